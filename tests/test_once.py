"""Once and SingleFlight, after Go's tests of sync.Once and x/sync/singleflight."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from helpers import HANG, in_thread, in_threads, join_all

import pygo
from pygo import sync
from pygo.testing import wait_until_blocked


def test_once_does_it_once_for_tasks_and_threads(workers: int) -> None:
    once, done = sync.Once(), []

    def body() -> list[bool]:
        once.do(lambda: (pygo.sleep(0.001), done.append(True)))
        return list(done)

    tasks = [pygo.spawn(body) for _ in range(20)]
    assert in_threads([body] * 3) == [[True]] * 3
    assert join_all(tasks) == [[True]] * 20


def test_it_is_done_even_if_the_function_raises(workers: int) -> None:
    """Go's TestOncePanic; the exception is its caller's alone."""
    once, go_on = sync.Once(), sync.Event()

    def fail() -> None:
        go_on.wait()
        raise LookupError

    first = pygo.spawn(once.do, fail)
    wait_until_blocked(first)
    second = pygo.spawn(once.do, fail)
    wait_until_blocked(second)
    go_on.set()
    assert isinstance(first.exception(timeout=HANG), LookupError)
    assert second.join(timeout=HANG) is None
    once.do(lambda: pytest.fail("done already"))
    assert repr(once).endswith(": done>")


def test_once_within_itself_is_refused() -> None:
    once = sync.Once()
    with pytest.raises(RuntimeError, match="within"):
        once.do(lambda: once.do(int))


def test_a_waiter_may_be_cancelled_while_it_is_done() -> None:
    once, go_on = sync.Once(), sync.Event()
    first = pygo.spawn(once.do, go_on.wait)
    wait_until_blocked(first)
    second = pygo.spawn(once.do, int)
    wait_until_blocked(second)
    second.cancel()
    with pytest.raises(pygo.TaskCancelled):
        second.join(timeout=HANG)
    assert not first.done()
    go_on.set()
    first.join()


# ---- SingleFlight ----


def start(flights: sync.SingleFlight[Any], count: int, fn: Any) -> list[pygo.Task[Any]]:
    """So many tasks that share one call of fn."""
    tasks = [pygo.spawn(flights.do, "key", fn) for _ in range(count)]
    wait_until_blocked(*tasks)
    return tasks


def test_a_call_alone_is_not_shared() -> None:
    flights = sync.SingleFlight[str]()
    assert flights.do("key", int, "7") == (7, False)
    assert flights.do("key", int, "70", base=8) == sync.Flight(56, False)
    with pytest.raises(ValueError, match="invalid literal"):
        flights.do("key", int, "x")
    with pytest.raises(TypeError):
        flights.do([], int)  # type: ignore[type-var]
    assert "0 in flight" in repr(flights)


def test_callers_at_the_same_time_share_one_call(workers: int) -> None:
    """Go's TestDoDupSuppress."""
    flights, calls, go_on = sync.SingleFlight[str](), [], sync.Event()

    def load() -> str:
        calls.append(True)
        go_on.wait()
        return "value"

    tasks = start(flights, 10, load)
    go_on.set()
    assert join_all(tasks) == [("value", True)] * 10
    assert calls == [True]
    assert flights.do("key", load) == ("value", False)


def test_failures_are_shared() -> None:
    flights, go_on = sync.SingleFlight[str](), sync.Event()

    def fail() -> None:
        go_on.wait()
        raise LookupError("gone")

    tasks = start(flights, 5, fail)
    go_on.set()
    failures = [task.exception(timeout=HANG) for task in tasks]
    assert [type(failure) for failure in failures] == [LookupError] * 5
    assert flights.do("key", int) == (0, False)
    assert len(set(map(id, failures))) == 1


def test_forget_lets_the_next_caller_start_anew() -> None:
    """Go's TestForget and TestForgetUnshared."""
    flights, first_on, second_on = sync.SingleFlight[str](), sync.Event(), sync.Event()
    (first,) = start(flights, 1, lambda: (first_on.wait(), 1)[1])
    flights.forget("key")
    flights.forget("no such key")
    second, third = start(flights, 2, lambda: (second_on.wait(), 2)[1])
    first_on.set()
    assert first.join() == (1, False)
    second_on.set()
    assert join_all([second, third]) == [(2, True)] * 2


@pytest.mark.parametrize("end", ["cancel", "exit_task"])
def test_a_caller_that_is_ended_leaves_the_others_to_call_for_themselves(end: str, workers: int) -> None:
    flights, calls, go_on = sync.SingleFlight[str](), [], sync.Event()

    def load() -> int:
        calls.append(pygo.current_task())
        if len(calls) == 1:
            go_on.wait()
            pygo.exit_task()
        return len(calls)

    (leader,) = start(flights, 1, load)
    others = start(flights, 5, load)
    if end == "cancel":
        leader.cancel()
    else:
        go_on.set()
    results = join_all(others)
    assert all(value >= 2 for value, _ in results)
    assert calls[0] is leader
    assert leader not in calls[1:]


def test_a_sharer_that_is_cancelled_leaves_the_call_alone() -> None:
    flights, go_on = sync.SingleFlight[str](), sync.Event()
    (leader,) = start(flights, 1, go_on.wait)
    cancelled, other = start(flights, 2, int)
    cancelled.cancel()
    with pytest.raises(pygo.TaskCancelled):
        cancelled.join(timeout=HANG)
    go_on.set()
    assert leader.join() == other.join() == (True, True)


def test_threads_share_with_tasks(workers: int) -> None:
    flights, go_on = sync.SingleFlight[str](), sync.Event()
    (leader,) = start(flights, 1, go_on.wait)
    releaser = pygo.spawn(lambda: (pygo.sleep(0.01), go_on.set()))
    assert in_thread(flights.do, "key", lambda: True)[0] is True
    leader.join()
    releaser.join()


def test_nothing_of_a_failed_call_stays() -> None:
    class Value:
        pass

    flights = sync.SingleFlight[str]()
    value = Value()
    reference = weakref.ref(value)

    def fail(value: Value) -> None:
        raise LookupError

    gc.disable()
    try:
        with pytest.raises(LookupError):
            flights.do("key", fail, value)
        del value
    finally:
        gc.enable()
    gc.collect()
    assert reference() is None
