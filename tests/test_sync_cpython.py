"""CPython's own tests of threading's locks and of queue, as shipped with the interpreter, against pygo.sync in tasks.

Every test runs in a task. The helper threads of the lock tests are tasks in one run and threads in the other; those of
the queue tests are threads. docs/testing.md lists the tests that are left out, with the reasons.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

import pytest
from conftest import WORKER_COUNTS
from helpers import HANG, join_all

import pygo
from pygo import sync

pytest.importorskip("test.lock_tests", reason="this interpreter ships no `test` package")

from test import lock_tests, test_queue

# Class and method: why it cannot hold. docs/testing.md has the same list.
LEFT_OUT = {
    "EventTests.test_at_fork_reinit": "looks at threading.Event's private _cond",
    "BarrierTests.test_default_timeout": "the others wait below C frames for the thread that one sleeps on",
}
SINCE_WRITTEN_ANEW = {"BarrierTests.test_default_timeout": (3, 11, 4)}  # the version; left out before it


class ConditionAsRLockTests(lock_tests.RLockTests):  # type: ignore[misc]
    """As in test_threading: a condition is used like the lock that it is made with."""

    def test_recursion_count(self) -> None:
        """Condition does not expose it, neither there nor here."""
        assert not hasattr(sync.Condition(), "_recursion_count")

    def test_constructor_noargs(self) -> None:
        """Condition has arguments."""
        assert sync.Condition(lock=sync.RLock())


ConditionAsRLockTests.__test__ = False  # only what is made of it below
lock_tests.ConditionAsRLockTests = ConditionAsRLockTests  # where the cases are looked up

LOCK_CASES: dict[str, dict[str, Any]] = {
    "LockTests": {"locktype": sync.Lock},
    "RLockTests": {"locktype": sync.RLock},
    "ConditionAsRLockTests": {"locktype": sync.Condition},
    "EventTests": {"eventtype": sync.Event},
    "ConditionTests": {"condtype": sync.Condition},
    "SemaphoreTests": {"semtype": sync.Semaphore},
    "BoundedSemaphoreTests": {"semtype": sync.BoundedSemaphore},
    # twice what it is there: on a busy machine a quarter of it must not pass while five set out to wait
    "BarrierTests": {"barriertype": sync.Barrier, "defaultTimeout": 4.0},
}
QUEUE_CASES: dict[str, dict[str, Any]] = {
    "QueueTest": {"queue": sync},
    "LifoQueueTest": {"queue": sync},
    "PriorityQueueTest": {"queue": sync},
    "FailingQueueTest": {"queue": sync},
    "BaseSimpleQueueTest": {"queue": sync, "type2test": sync.SimpleQueue},
}


def make_cases(module: Any, cases: dict[str, dict[str, Any]]) -> list[unittest.TestCase]:
    """An instance per test method, with our types put in."""
    found = []
    for name, types in cases.items():
        wrapped = {key: staticmethod(value) if callable(value) else value for key, value in types.items()}
        case = type(name, (getattr(module, name), unittest.TestCase), wrapped)
        for method in unittest.TestLoader().getTestCaseNames(case):
            full = f"{name}.{method}"
            if full not in LEFT_OUT or sys.version_info >= SINCE_WRITTEN_ANEW.get(full, (4,)):
                found.append(case(method))
    return found


def name_of(case: unittest.TestCase) -> str:
    return f"{type(case).__name__}.{case._testMethodName}"


def run_in_tasks(*cases: unittest.TestCase) -> None:
    """Each in a task of its own, all at once."""
    results = [unittest.TestResult() for _ in cases]
    join_all([pygo.spawn(case.run, result) for case, result in zip(cases, results, strict=True)], timeout=2 * HANG)
    problems = [text for result in results for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert [result.testsRun for result in results] == [1] * len(cases)
    for result in results:
        for _, reason in result.skipped:
            pytest.skip(reason)


# What does little but wait, for half a second and more, is run together.
LONG_WAITS = ["*timeout*", "*.test_basic", "*failing_queue", "ConditionTests.test_notify"]
# And these work for seconds with all the threads there can be: each runs with one number of workers, in turn.
MANY_THREADS = "*_in_many_threads"


def matches(case: unittest.TestCase, *patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name_of(case), pattern) for pattern in patterns)


def waits_long(case: unittest.TestCase) -> bool:
    return matches(case, *LONG_WAITS)


@pytest.fixture(params=["tasks", "threads"])
def helper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lock tests start beside themselves."""
    if request.param == "tasks":
        monkeypatch.setattr(lock_tests, "start_new_thread", lambda function, args: pygo.spawn(function, *args))


OF_LOCKS = make_cases(lock_tests, LOCK_CASES)
OF_QUEUES = make_cases(test_queue, QUEUE_CASES)
WITH_MANY_THREADS = [case for case in OF_QUEUES if matches(case, MANY_THREADS)]
OF_QUEUES = [case for case in OF_QUEUES if not matches(case, MANY_THREADS)]


@pytest.mark.parametrize("case", [case for case in OF_LOCKS if not waits_long(case)], ids=name_of)
def test_of_locks(case: unittest.TestCase, helper: None, workers: int) -> None:
    run_in_tasks(case)


def test_of_locks_that_wait_long(helper: None, workers: int) -> None:
    run_in_tasks(*filter(waits_long, OF_LOCKS))


@pytest.mark.parametrize("case", [case for case in OF_QUEUES if not waits_long(case)], ids=name_of)
def test_of_queues(case: unittest.TestCase, workers: int) -> None:
    run_in_tasks(case)


if WITH_MANY_THREADS:  # from CPython 3.13 on

    @pytest.mark.parametrize(
        ("case", "workers"),
        [(case, WORKER_COUNTS[place % len(WORKER_COUNTS)]) for place, case in enumerate(WITH_MANY_THREADS)],
        indirect=["workers"],
        ids=[name_of(case) for case in WITH_MANY_THREADS],
    )
    def test_of_queues_with_many_threads(case: unittest.TestCase, workers: int) -> None:
        run_in_tasks(case)


def test_of_queues_that_wait_long(workers: int) -> None:
    run_in_tasks(*filter(waits_long, OF_QUEUES))


def test_enough_of_them_are_run() -> None:
    assert len(OF_LOCKS) >= 90
    assert len(OF_QUEUES) >= 25
    assert len([case for case in OF_LOCKS + OF_QUEUES if waits_long(case)]) >= 12


def test_the_documentation_lists_what_is_left_out() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text()
    section = page.partition("### `test.lock_tests`")[2].partition("\n#")[0]
    assert set(LEFT_OUT) == set(re.findall(r"^\| `(\w+\.test_\w+)` \|", section, re.M))


def test_conditions_of_threading_work_with_our_locks() -> None:
    for lock in (sync.Lock(), sync.RLock()):
        condition = threading.Condition(lock)  # type: ignore[arg-type]
        with condition:
            assert not condition.wait(0.01)
            condition.notify_all()
        assert not lock.locked()
