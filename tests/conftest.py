"""Fixtures: several worker counts, and the check after every test that nothing is left behind."""

from __future__ import annotations

import fnmatch
import gc
import os
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import EMULATED, SWITCH_INTERVAL, heed_interrupts

import pygo

WORKER_COUNTS = tuple(map(int, os.environ.get("PYGO_TEST_WORKERS", "1,2,4,16").split(",")))
COUNTS = ("live", "ready", "parked", "blocked", "timers")

heed_interrupts()


def _seeds(text: str) -> range:
    """`20`: the first twenty. `4-7`: these four."""
    first, _, last = text.rpartition("-")
    return range(int(first or 1), int(last) + 1)


SEEDS = _seeds(os.environ.get("PYGO_TEST_SEEDS", "3"))


PORTED = ("test_go_*", "test_*_cpython", "test_deadlock", "test_synctest")
OWN = ("test_cancel", "test_context", "test_futures", "test_once", "test_queues", "test_rwlock", "test_sync")
OWN += ("test_taskgroup", "test_timer", "test_timers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what races with the scheduler by nature, ported or pygo's own, for `pytest -m behaviour`."""
    for item in items:
        if any(fnmatch.fnmatchcase(item.path.stem, pattern) for pattern in PORTED + OWN):
            item.add_marker("behaviour")
    if EMULATED:
        _leave_out_what_emulators_cannot_do(config, items)


def _leave_out_what_emulators_cannot_do(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = tomllib.loads((Path(__file__).parent / "emulated.toml").read_text())
    patterns = {pattern for reason in reasons.values() for pattern in reason["tests"]}
    kept, left_out, used = [], [], set()
    for item in items:
        name = f"{item.path.stem}::{item.nodeid.partition('::')[2].replace('[', ' ').rstrip(']')}"
        found = {pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}
        used |= found
        (left_out if found else kept).append(item)
    whole = {item.path.stem for item in items} if not any("::" in argument for argument in config.args) else set()
    stale = sorted(pattern for pattern in patterns - used if pattern.partition("::")[0] in whole)
    if stale:
        raise pytest.UsageError(f"emulated.toml names tests that do not exist: {stale}")
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def pytest_collection_finish() -> None:
    """What is garbage by now shall not be kept: see `reports`."""
    gc.collect()


@pytest.fixture(params=WORKER_COUNTS, ids=lambda count: f"{count}w")
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with 1, 2, 4 and 16 workers."""
    before = pygo.runtime.workers()
    pygo.runtime.set_workers(request.param)
    yield request.param
    pygo.runtime.set_workers(before)


if SWITCH_INTERVAL is not None:
    sys.setswitchinterval(SWITCH_INTERVAL)


INTERVALS = {"usual-switching": None, "hasty-switching": 1e-6} if SWITCH_INTERVAL is None else {"": SWITCH_INTERVAL}


@pytest.fixture(params=INTERVALS.values(), ids=list(INTERVALS))
def switch_interval(request: pytest.FixtureRequest) -> Iterator[float]:
    """Run the test at the interpreter's usual interval between switches of threads, and at a microsecond.

    With PYGO_TEST_SWITCH_INTERVAL all tests run at that one, and these, too.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param or before)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def seed(request: pytest.FixtureRequest) -> int:
    """Run the test with several seeds: PYGO_TEST_SEEDS many, else three. The name of a failed test has its seed."""
    number: int = request.param
    return number


class Reports:
    """What went to the hooks during a test, as text, so that no traceback is kept alive by the record."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, str]] = []
        self.unraisable: list[str] = []
        self.threads: list[str] = []

    def task_failed(self, task: Any, exc: BaseException) -> None:
        self.tasks.append((task.name, "".join(traceback.format_exception(exc))))

    def unraisable_raised(self, args: Any) -> None:
        text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
        self.unraisable.append(f"{args.err_msg or 'ignored'} in {args.object!r}: {text}")

    def thread_failed(self, args: Any) -> None:
        self.threads.append("".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)))

    def take(self) -> list[tuple[str, str]]:
        """The task failures reported so far, which are thereby expected."""
        gc.collect()
        taken, self.tasks = self.tasks, []
        return taken

    def take_unraisable(self) -> list[str]:
        """The ignored exceptions reported so far, which are thereby expected."""
        gc.collect()
        taken, self.unraisable = self.unraisable, []
        return taken


def _counts() -> dict[str, int]:
    stats = pygo.runtime.stats()
    return {name: getattr(stats, name) for name in COUNTS}


def _exceeds(counts: dict[str, int], before: dict[str, int]) -> bool:
    return any(count > before[name] for name, count in counts.items())


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    """Fail a test that leaves tasks, timers or waiters behind, or whose failures nobody looked at."""
    # Spare the collections in every test the objects of the test run itself, which keeps some of each test that has
    # been: after thousands of tests a collection took 50 ms, and all of them together half of the time.
    gc.freeze()
    record = Reports()
    before = _counts()
    monkeypatch.setattr(pygo, "excepthook", record.task_failed)
    monkeypatch.setattr(sys, "unraisablehook", record.unraisable_raised)
    monkeypatch.setattr(threading, "excepthook", record.thread_failed)
    yield record
    gc.collect()
    waited = False
    deadline = time.monotonic() + 10.0
    while _exceeds(after := _counts(), before):
        if time.monotonic() > deadline:
            pygo.runtime.dump()
            pytest.fail(f"left behind: counts {after}, before the test {before}; {pygo.all_tasks()[:20]}")
        time.sleep(0.001)
        waited = True
    if waited:
        gc.collect()  # what has ended only now may have left a failure in a cycle
    problems = [f"task {name}: {text}" for name, text in record.tasks] + record.unraisable + record.threads
    assert not problems, "unexpected reports:\n" + "\n".join(problems)
