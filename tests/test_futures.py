"""Future, wait, as_completed, to_thread."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest
from helpers import HANG, PLACES, in_task, in_threads, join_all, run_program, wait_until

import pygo


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


# ---- Future ----


def test_a_result_is_seen_by_all_that_wait(place: Any, workers: int) -> None:
    future = pygo.Future[int]()
    tasks = [pygo.spawn(future.result) for _ in range(20)]
    wait_until(lambda: all(task.state == "waiting" for task in tasks))
    assert not future.done()
    future.set_result(5)
    assert join_all(tasks) == [5] * 20
    assert place(future.result) == 5
    assert future.done()
    assert future.exception() is None


def test_an_exception_is_raised_each_time(place: Any) -> None:
    future = pygo.Future[int]()
    error = KeyError("x")
    future.set_exception(error)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            place(future.result)
        assert caught.value is error
    assert future.exception(timeout=0) is error


@pytest.mark.parametrize("again", ["set_result", "set_exception"])
def test_setting_twice_is_an_error_and_changes_nothing(again: str) -> None:
    future = pygo.Future[Any]()
    future.set_result(1)
    with pytest.raises(pygo.Error):
        getattr(future, again)(ValueError())
    assert future.result() == 1


def test_of_many_setters_one_wins(workers: int) -> None:
    for _ in range(50):
        future = pygo.Future[int]()

        def set_it(number: int, future: pygo.Future[int] = future) -> int:
            try:
                future.set_result(number)
            except pygo.Error:
                return 0
            return number

        numbers = join_all([pygo.spawn(set_it, number) for number in range(1, 9)])
        (winner,) = filter(None, numbers)
        assert future.result() == winner


def test_of_many_setting_threads_one_wins() -> None:
    future = pygo.Future[int]()
    outcomes: list[int] = []

    def set_it(number: int) -> None:
        try:
            future.set_result(number)
        except pygo.Error:
            return
        outcomes.append(number)

    in_threads([lambda number=number: set_it(number) for number in range(8)])
    assert outcomes == [future.result()]


def test_waiting_for_a_future_has_a_timeout(place: Any) -> None:
    future = pygo.Future[int]()
    for method in (future.result, future.exception):
        with pytest.raises(TimeoutError, match="future"):
            place(method, 0.001)
        with pytest.raises(TimeoutError):
            place(method, 0)
    with pytest.raises(ValueError, match=r"."):
        future.result(-1)


@pytest.mark.parametrize("error", [ValueError, "text", None])
def test_only_exception_instances_are_taken(error: Any) -> None:
    with pytest.raises(TypeError):
        pygo.Future[int]().set_exception(error)


def test_callbacks_run_once_in_order() -> None:
    future = pygo.Future[int]()
    seen: list[Any] = []
    future.add_done_callback(lambda f: seen.append(("first", f.result())))
    future.add_done_callback(lambda f: seen.append(("second", f.result())))
    future.set_result(3)
    future.add_done_callback(lambda f: seen.append(("late", f.result())))
    assert seen == [("first", 3), ("second", 3), ("late", 3)]
    with pytest.raises(TypeError):
        future.add_done_callback(None)  # type: ignore[arg-type]


def test_a_failing_callback_is_reported_and_stops_nothing(reports: Any) -> None:
    future = pygo.Future[int]()
    seen: list[int] = []
    future.add_done_callback(lambda f: 1 // 0)
    future.add_done_callback(lambda f: seen.append(f.result()))
    future.set_result(1)
    assert seen == [1]
    (report,) = reports.take_unraisable()
    assert "ZeroDivisionError" in report


def test_callbacks_can_be_removed() -> None:
    future, seen = pygo.Future[int](), list[Any]()
    task = pygo.spawn(future.result)
    for one in (future, task):
        one.add_done_callback(seen.append)
        one.add_done_callback(seen.append)
        assert one.remove_done_callback(seen.append) == 2
        assert one.remove_done_callback(seen.append) == 0
    future.set_result(1)
    assert task.join() == 1
    assert seen == []


def test_a_future_shows_its_state_and_can_be_referred_to_weakly() -> None:
    future = pygo.Future[int]()
    trace = weakref.ref(future)
    assert "pending" in repr(future)
    future.set_exception(ValueError())
    assert "failed with ValueError" in repr(future)
    del future
    gc.collect()
    assert trace() is None
    future = pygo.Future[int]()
    future.set_result(1)
    assert "done" in repr(future)


# ---- wait ----


def test_wait_for_all(place: Any, workers: int) -> None:
    tasks = {pygo.spawn(pow, number, 2) for number in range(20)}
    done, not_done = place(pygo.wait, tasks)
    assert done == tasks
    assert not_done == set()


def test_wait_for_the_first(place: Any) -> None:
    gates = [pygo.Channel[int](1) for _ in range(5)]
    tasks = [pygo.spawn(gate.recv) for gate in gates]
    gates[3].send(3)
    done, not_done = place(pygo.wait, tasks, None, pygo.FIRST_COMPLETED)
    assert done == {tasks[3]}
    assert not_done == set(tasks) - done
    for gate in gates[:3] + gates[4:]:
        gate.send(0)
    join_all(tasks)


def test_wait_for_the_first_failure(workers: int) -> None:
    gate = pygo.Channel[int]()

    def fail() -> None:
        raise ValueError

    fine = [pygo.spawn(pow, 2, 2) for _ in range(3)]
    waiting = pygo.spawn(gate.recv)
    join_all(fine)
    failing = pygo.spawn(fail)
    done, not_done = pygo.wait([*fine, waiting, failing], return_when=pygo.FIRST_EXCEPTION)
    assert failing in done
    assert not_done == {waiting}
    with pytest.raises(ValueError):
        failing.join()
    gate.send(1)
    assert pygo.wait([waiting], return_when="FIRST_EXCEPTION").done == {waiting}


def test_a_cancelled_task_counts_as_failed() -> None:
    first, second = (pygo.spawn(pygo.Channel[int]().recv) for _ in range(2))
    first.cancel()
    assert pygo.wait([first, second], return_when=pygo.FIRST_EXCEPTION).done == {first}
    second.cancel()
    assert pygo.wait([first, second]).not_done == set()


def test_waiting_marks_no_failure_as_seen(reports: Any) -> None:
    def fail() -> None:
        raise ValueError("unseen")

    pygo.wait([pygo.spawn(fail)])
    wait_until(lambda: gc.collect() >= 0 and reports.tasks)  # the worker lets go of it a moment after its end
    ((_, text),) = reports.take()
    assert "unseen" in text


def test_wait_returns_what_is_done_when_its_time_is_over(place: Any) -> None:
    future, other = pygo.Future[int](), pygo.Future[int]()
    other.set_result(1)
    assert place(pygo.wait, [future, other], 0.01) == ({other}, {future})
    assert place(pygo.wait, [future], 0) == (set(), {future})
    assert pygo.wait([]) == (set(), set())
    future.set_result(2)


def test_wait_leaves_no_callbacks_behind() -> None:
    future = pygo.Future[int]()
    for _ in range(3):
        pygo.wait([future], timeout=0)
    assert future._callbacks == []


@pytest.mark.parametrize("what", [[1], ["x"], [None]])
def test_only_tasks_and_futures_can_be_waited_for(what: Any) -> None:
    for function in (pygo.wait, pygo.as_completed):
        with pytest.raises(TypeError, match="waited for"):
            function(what)


def test_bad_arguments_of_wait() -> None:
    with pytest.raises(ValueError, match="return_when"):
        pygo.wait([], return_when="SOMETIMES")  # type: ignore[arg-type]
    for function in (pygo.wait, pygo.as_completed):
        with pytest.raises(ValueError, match="non-negative"):
            function([], timeout=-1)


# ---- as_completed ----


def test_as_completed_gives_each_once_in_the_order_of_ending(place: Any, workers: int) -> None:
    gates = [pygo.Channel[int](1) for _ in range(6)]
    tasks = [pygo.spawn(gate.recv) for gate in gates]
    order = [4, 0, 5, 2, 1, 3]

    def body() -> list[int]:
        seen = []
        iterator = pygo.as_completed(tasks)
        for number in order:
            gates[number].send(number)
            seen.append(next(iterator).result())
        assert list(iterator) == []
        return seen

    assert place(body) == order


def test_as_completed_starts_with_what_is_done() -> None:
    futures = [pygo.Future[int]() for _ in range(3)]
    for number, future in enumerate(futures):
        future.set_result(number)
    assert sorted(future.result() for future in pygo.as_completed(futures + futures)) == [0, 1, 2]
    assert list(pygo.as_completed([])) == []


def test_as_completed_has_a_deadline(place: Any) -> None:
    future, never = pygo.Future[int](), pygo.Future[int]()
    future.set_result(1)

    def body() -> list[Any]:
        seen = []
        with pytest.raises(TimeoutError, match="1 of 2"):
            for one in pygo.as_completed([future, never], timeout=0.01):
                seen.append(one)
        return seen

    assert place(body) == [future]
    assert never._callbacks == []


# ---- to_thread ----


def test_to_thread_runs_elsewhere_and_returns(place: Any) -> None:
    here = threading.get_ident()
    there, current = place(pygo.to_thread, lambda: (threading.get_ident(), pygo.current_task()))
    assert there != here
    assert current is None
    assert place(lambda: pygo.to_thread(pow, 2, exp=3)) == 8


def test_to_thread_raises_what_the_call_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        in_task(pygo.to_thread, lambda: 1 // 0)


def test_to_thread_carries_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def body() -> tuple[int, int]:
        variable.set(3)
        return pygo.to_thread(lambda: (variable.get(), variable.set(4))[0]), variable.get()

    assert in_task(body) == (3, 3)


def test_others_run_while_a_task_waits_for_a_thread(workers: int) -> None:
    gate = threading.Event()
    task = pygo.spawn(pygo.to_thread, gate.wait)
    wait_until(lambda: task.state == "waiting")
    assert in_task(lambda: 7) == 7
    gate.set()
    assert task.join(timeout=HANG)


def test_a_cancelled_waiter_does_not_wait_for_the_thread() -> None:
    gate = threading.Event()
    ended = threading.Event()

    def call() -> None:
        gate.wait()
        ended.set()

    task = pygo.spawn(pygo.to_thread, call)
    wait_until(lambda: task.state == "waiting")
    task.cancel()
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)
    gate.set()
    assert ended.wait(HANG)


def test_to_thread_works_in_a_forks_child() -> None:
    finished = run_program(
        """
        import os, pygo
        assert pygo.to_thread(pow, 2, 3) == 8
        pid = os.fork()
        if pid == 0:
            print("child", pygo.to_thread(pow, 2, 4), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent", pygo.to_thread(pow, 2, 5))
        """
    )
    assert finished.ok().out == "child 16\nparent 32\n"
