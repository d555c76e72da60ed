"""CPython's own tests of threading's locks and of queue, as shipped with the interpreter, against pygo.sync in tasks.

Every test runs in a task. The helper threads of the lock tests are tasks in one run and threads in the other; those of
the queue tests are threads. docs/testing.md lists the tests that are left out, with the reasons.
"""

from __future__ import annotations

import re
import threading
import unittest
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG

import pygo
from pygo import sync

pytest.importorskip("test.lock_tests", reason="this interpreter ships no `test` package")

from test import lock_tests, test_queue

# Class and method: why it cannot hold. docs/testing.md has the same list.
LEFT_OUT = {
    "EventTests.test_at_fork_reinit": "looks at threading.Event's private _cond",
}

LOCK_CASES: dict[str, dict[str, Any]] = {
    "LockTests": {"locktype": sync.Lock},
    "RLockTests": {"locktype": sync.RLock},
    "EventTests": {"eventtype": sync.Event},
    "ConditionTests": {"condtype": sync.Condition},
    "SemaphoreTests": {"semtype": sync.Semaphore},
    "BoundedSemaphoreTests": {"semtype": sync.BoundedSemaphore},
    "BarrierTests": {"barriertype": sync.Barrier},
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
            if f"{name}.{method}" not in LEFT_OUT:
                found.append(case(method))
    return found


def name_of(case: unittest.TestCase) -> str:
    return f"{type(case).__name__}.{case._testMethodName}"


def run_in_task(case: unittest.TestCase) -> None:
    result = unittest.TestResult()
    pygo.spawn(case.run, result).join(timeout=2 * HANG)
    assert result.testsRun == 1
    assert not result.failures + result.errors, "\n".join(text for _, text in result.failures + result.errors)
    for _, reason in result.skipped:
        pytest.skip(reason)


@pytest.fixture(params=["tasks", "threads"])
def helper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lock tests start beside themselves."""
    if request.param == "tasks":
        monkeypatch.setattr(lock_tests, "start_new_thread", lambda function, args: pygo.spawn(function, *args))


@pytest.mark.parametrize("case", make_cases(lock_tests, LOCK_CASES), ids=name_of)
def test_of_locks(case: unittest.TestCase, helper: None) -> None:
    run_in_task(case)


@pytest.mark.parametrize("case", make_cases(test_queue, QUEUE_CASES), ids=name_of)
def test_of_queues(case: unittest.TestCase, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_task(case)


def test_enough_of_them_are_run() -> None:
    assert len(make_cases(lock_tests, LOCK_CASES)) >= 70
    assert len(make_cases(test_queue, QUEUE_CASES)) >= 25


def test_the_documentation_lists_what_is_left_out() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text()
    assert set(LEFT_OUT) == set(re.findall(r"^\| `(\w+\.test_\w+)` \|", page, re.M))


def test_conditions_of_threading_work_with_our_locks() -> None:
    for lock in (sync.Lock(), sync.RLock()):
        condition = threading.Condition(lock)  # type: ignore[arg-type]
        with condition:
            assert not condition.wait(0.01)
            condition.notify_all()
        assert not lock.locked()
