"""TaskGroup: a block that ends with all its tasks; failures, nesting, deadlines and limits."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from typing import Any

import pytest
from helpers import HANG, PLACES, Interruption, in_task, run_program, wait_until

import pygo
from pygo import _groups


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


def fail(error: BaseException) -> None:
    raise error


def forever(trace: list[str] | None = None, name: str = "") -> None:
    try:
        pygo.Channel[int]().recv()
    finally:
        if trace is not None:
            trace.append(name)


def test_the_block_ends_when_all_tasks_have(place: Any, workers: int) -> None:
    def body() -> list[int]:
        ended: list[int] = []

        def child(number: int) -> int:
            pygo.yield_now()
            ended.append(number)
            return number * 2

        with pygo.TaskGroup() as tg:
            tasks = [tg.spawn(child, number) for number in range(50)]
        assert sorted(ended) == list(range(50))
        return [task.result(timeout=0) for task in tasks]

    assert place(body) == [number * 2 for number in range(50)]


def test_an_empty_group_ends_at_once(place: Any) -> None:
    def body() -> None:
        with pygo.TaskGroup():
            pass

    place(body)


def test_tasks_may_spawn_into_the_group(workers: int) -> None:
    seen: list[int] = []

    def body() -> None:
        with pygo.TaskGroup() as tg:

            def child(depth: int) -> None:
                seen.append(depth)
                if depth:
                    tg.spawn(child, depth - 1)
                    tg.spawn(child, depth - 1)

            tg.spawn(child, 5)

    in_task(body)
    assert len(seen) == 63


def test_the_first_failure_cancels_the_others_and_the_block(place: Any, workers: int) -> None:
    trace: list[str] = []

    def body() -> None:
        with pygo.TaskGroup() as tg:
            waiting = [tg.spawn(forever, trace, str(number)) for number in range(5)]
            wait_until(lambda: all(task.state == "waiting" for task in waiting))
            tg.spawn(fail, ValueError("bad"))
            try:
                pygo.sleep(HANG)
            finally:
                trace.append("block")

    with pytest.raises(ExceptionGroup) as caught:
        place(body)
    (error,) = caught.value.exceptions
    assert isinstance(error, ValueError)
    assert error.__traceback__ is not None
    assert sorted(trace) == ["0", "1", "2", "3", "4", "block"]


def test_a_failure_of_the_block_cancels_the_tasks(place: Any) -> None:
    trace: list[str] = []

    def body() -> None:
        with pygo.TaskGroup() as tg:
            task = tg.spawn(forever, trace, "task")
            wait_until(lambda: task.state == "waiting")
            raise KeyError("block")

    with pytest.raises(ExceptionGroup) as caught:
        place(body)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert trace == ["task"]


def test_several_failures_come_together(workers: int) -> None:
    ready = pygo.WaitGroup()
    ready.add(3)

    def child(number: int) -> None:
        ready.done()
        try:
            pygo.Channel[int]().recv()
        finally:
            raise LookupError(number)

    def body() -> None:
        with pygo.TaskGroup() as tg:
            for number in range(3):
                tg.spawn(child, number)
            ready.wait()
            raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        in_task(body)
    first, *others = caught.value.exceptions
    assert isinstance(first, ValueError)
    assert sorted(error.args for error in others) == [(0,), (1,), (2,)]


def test_a_base_exception_makes_a_base_exception_group(reports: Any) -> None:
    class Weird(BaseException):
        pass

    def body() -> None:
        with pygo.TaskGroup() as tg:
            tg.spawn(fail, Weird())

    with pytest.raises(BaseExceptionGroup) as caught:
        in_task(body)
    assert not isinstance(caught.value, ExceptionGroup)
    assert reports.take() == []  # the group has dealt with it


def test_except_star_takes_the_failures_apart() -> None:
    seen: list[str] = []

    def body() -> None:
        try:
            with pygo.TaskGroup() as tg:
                tg.spawn(fail, ValueError("x"))
        except* ValueError:
            seen.append("value")

    in_task(body)
    assert seen == ["value"]


def test_cancel_ends_the_block_without_an_exception(place: Any, workers: int) -> None:
    trace: list[str] = []

    def body() -> str:
        with pygo.TaskGroup() as tg:
            task = tg.spawn(forever, trace, "task")
            wait_until(lambda: task.state == "waiting")
            tg.cancel()
            with contextlib.suppress(TimeoutError):
                pygo.sleep(HANG)
            trace.append("unreachable")
        assert task.cancelled()
        pygo.sleep(0)  # outside, nothing of it is left
        return "went on"

    assert place(body) == "went on"
    assert trace == ["task"]


def test_a_task_spawned_into_a_cancelled_group_does_not_begin() -> None:
    def body() -> pygo.Task[Any]:
        with pygo.TaskGroup() as tg:
            tg.cancel()
            return tg.spawn(fail, AssertionError("it began"))

    assert in_task(body).cancelled()


def test_cancelling_the_owner_cancels_the_tasks(workers: int) -> None:
    trace: list[str] = []
    tasks: list[pygo.Task[Any]] = []

    def owner() -> None:
        with pygo.TaskGroup() as tg:
            for number in range(10):
                tasks.append(tg.spawn(forever, trace, str(number)))
        trace.append("unreachable")

    task = pygo.spawn(owner)
    wait_until(lambda: len(tasks) == 10 and all(one.state == "waiting" for one in (task, *tasks)))
    task.cancel("owner")
    with pytest.raises(pygo.TaskCancelled, match="owner"):
        task.join(timeout=HANG)
    assert sorted(trace) == [str(number) for number in range(10)]


def test_a_child_that_is_cancelled_alone_leaves_the_rest() -> None:
    def body() -> int:
        with pygo.TaskGroup() as tg:
            child = tg.spawn(forever)
            other = tg.spawn(lambda: (pygo.sleep(0.01), 7)[1])
            wait_until(lambda: child.state == "waiting")
            child.cancel()
        assert child.cancelled()
        return other.result()

    assert in_task(body) == 7


def test_finally_blocks_may_wait_under_a_shield(workers: int) -> None:
    trace: list[int] = []

    def child(number: int) -> None:
        try:
            forever()
        finally:
            with pygo.shield():
                pygo.sleep(0.001)
                trace.append(number)

    def body() -> None:
        with pygo.TaskGroup() as tg:
            tasks = [tg.spawn(child, number) for number in range(20)]
            wait_until(lambda: all(task.state == "waiting" for task in tasks))
            tg.cancel()

    in_task(body)
    assert sorted(trace) == list(range(20))


def test_a_deadline_over_a_group(place: Any) -> None:
    trace: list[str] = []

    def body() -> None:
        with pygo.timeout(HANG) as scope, pygo.TaskGroup() as tg:
            task = tg.spawn(forever, trace, "task")
            wait_until(lambda: task.state == "waiting")  # a task that has not begun would not
            scope.reschedule(0.001)

    with pytest.raises(TimeoutError):
        place(body)
    assert trace == ["task"]


def test_a_deadline_inside_a_group_is_only_the_blocks_failure() -> None:
    def body() -> None:
        with pygo.TaskGroup() as tg:
            tg.spawn(forever)
            with pygo.timeout(0.01):
                pygo.sleep(HANG)

    with pytest.raises(ExceptionGroup) as caught:
        in_task(body)
    assert [type(error) for error in caught.value.exceptions] == [TimeoutError]


def test_nested_groups_fail_outwards(workers: int) -> None:
    trace: list[str] = []

    def inner() -> None:
        with pygo.TaskGroup() as tg:
            tg.spawn(forever, trace, "grandchild")
            tg.spawn(fail, ValueError("deep"))

    def outer() -> None:
        with pygo.TaskGroup() as tg:
            sibling = tg.spawn(forever, trace, "sibling")
            wait_until(lambda: sibling.state == "waiting")
            tg.spawn(inner)

    with pytest.raises(ExceptionGroup) as caught:
        in_task(outer)
    (group,) = caught.value.exceptions
    assert isinstance(group, ExceptionGroup)
    assert isinstance(group.exceptions[0], ValueError)
    assert "sibling" in trace


def test_cancelling_an_outer_group_reaches_the_innermost() -> None:
    trace: list[str] = []

    tasks: list[pygo.Task[Any]] = []

    def middle() -> None:
        with pygo.TaskGroup() as tg:
            tasks.append(tg.spawn(forever, trace, "inner"))

    def body() -> None:
        with pygo.TaskGroup() as tg:
            tg.spawn(middle)
            wait_until(lambda: [task.state for task in tasks] == ["waiting"])
            tg.cancel()

    in_task(body)
    assert trace == ["inner"]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_bounds_what_runs_at_once(limit: int, workers: int) -> None:
    running = most = 0

    def child() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        pygo.sleep(0)
        running -= 1

    def body() -> None:
        with pygo.TaskGroup(limit=limit) as tg:
            for _ in range(30):
                tg.spawn(child)

    in_task(body)
    assert 1 <= most <= limit


def test_waiting_for_a_place_is_cancelled_with_the_group() -> None:
    def body() -> None:
        with pygo.TaskGroup(limit=1) as tg:

            def failing() -> None:
                pygo.sleep(0.01)
                raise ValueError

            tg.spawn(failing)
            tg.spawn(forever)

    with pytest.raises(ExceptionGroup) as caught:
        in_task(body)
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


def test_a_refused_spawn_gives_its_place_back() -> None:
    def body() -> None:
        with pygo.TaskGroup(limit=1) as tg:
            for _ in range(3):
                with pytest.raises(TypeError):
                    tg.spawn(None)  # type: ignore[call-overload]

    in_task(body)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_limits_are_refused(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit"):
        pygo.TaskGroup(limit=limit)


def test_spawning_outside_of_the_block_is_refused() -> None:
    tg = pygo.TaskGroup()
    with pytest.raises(RuntimeError, match="block"):
        tg.spawn(forever)
    with tg, pytest.raises(RuntimeError, match="once"):
        tg.__enter__()
    with pytest.raises(RuntimeError, match="over"):
        tg.spawn(forever)
    assert "over" in repr(tg)


def test_a_group_leaves_nothing_behind() -> None:
    class Marker:
        pass

    marker = Marker()
    trace = weakref.ref(marker)

    def body(marker: Marker) -> None:
        with contextlib.suppress(ExceptionGroup), pygo.TaskGroup() as tg:
            tg.spawn(forever, [], str(marker))
            tg.spawn(lambda: divmod(len(str(marker)), 0))

    gc.disable()
    try:
        task = pygo.spawn(body, marker)
        task.join(timeout=HANG)
        del marker, task
        assert trace() is None  # no cycle had to be collected
    finally:
        gc.enable()


def test_ctrl_c_in_the_main_thread_ends_the_group() -> None:
    finished = run_program(
        """
        import os, signal, sys, threading, pygo

        def child():
            try:
                pygo.Channel().recv()
            finally:
                print("child ended", flush=True)

        def interrupt(other):
            main = threading.main_thread().ident
            while other.state != "waiting" or sys._current_frames()[main].f_code.co_name != "__exit__":
                pygo.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        try:
            with pygo.TaskGroup() as tg:
                tg.spawn(interrupt, tg.spawn(child))
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert finished.ok().out == "child ended\ninterrupted\n"


@pytest.mark.parametrize("failing", [False, True])
def test_ctrl_c_at_any_step_leaves_no_task_running(failing: bool, workers: int) -> None:
    """But for the very first one of `__exit__`, at which it has not begun."""
    for step in itertools.count(1):
        expected = (KeyboardInterrupt, ExceptionGroup) if failing else (KeyboardInterrupt,)
        with (
            Interruption(_groups, step, exempt=("__exit__",)) as interruption,
            contextlib.suppress(*expected),
            pygo.TaskGroup() as tg,
        ):
            for _ in range(3):
                tg.spawn(forever)
            if failing:
                fail(ValueError("of the block"))
            tg.cancel()
        wait_until(lambda: not pygo.all_tasks())
        if not interruption.came:
            break
    assert step > 4


def test_a_hundred_thousand_tasks_are_cancelled_and_run_their_finally_blocks() -> None:
    count = 100_000
    ended = 0

    def child() -> None:
        nonlocal ended
        try:
            never.recv()
        finally:
            ended += 1

    never = pygo.Channel[int]()

    def body() -> None:
        with pygo.TaskGroup() as tg:
            for _ in range(count):
                tg.spawn(child)
            wait_until(lambda: never.waiting_receivers == count)
            tg.cancel()

    in_task(body)
    assert ended == count
    assert never.waiting_receivers == 0
