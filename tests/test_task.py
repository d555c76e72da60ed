"""Tasks: spawning, joining, what a task tells about itself, how it ends."""

from __future__ import annotations

import contextvars
import functools
import io
import operator
import os
import random
import threading
import time
import traceback
from typing import Any

import pytest
from helpers import HANG, PLACES, blocked_reader, in_task, in_thread, in_threads, join_all, run_program, wait_until

import pygo
from pygo import _extension


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def fail(exc: BaseException) -> None:
    raise exc


class Failure(Exception):
    pass


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


class TestSpawn:
    def test_join_returns_the_result_wherever_it_is_called(self, place: Any, workers: int) -> None:
        assert place(lambda: pygo.spawn(lambda: 42).join()) == 42

    def test_arguments_arrive_whatever_their_names(self) -> None:
        kwargs = {"fn": 1, "self": 2, "args": 3, "kwargs": 4, "name": 5, "context": 6, "stack_size": 7}
        assert pygo.spawn(echo, 1, 2, **kwargs).join() == ((1, 2), kwargs)

    def test_very_many_arguments_arrive(self) -> None:
        args = tuple(range(5000))
        kwargs = {f"k{i}": i for i in range(2000)}
        assert pygo.spawn(echo, *args, **kwargs).join() == (args, kwargs)

    def test_go_is_another_name_for_spawn(self) -> None:
        assert pygo.go(echo, 1, key=2).join() == ((1,), {"key": 2})

    def test_every_kind_of_callable_runs(self) -> None:
        class Callable:
            def __call__(self, value: int) -> int:
                return value + 1

            def method(self, value: int) -> int:
                return value + 2

            @classmethod
            def of_class(cls, value: int) -> int:
                return value + 3

            @staticmethod
            def static(value: int) -> int:
                return value + 4

        functions = [
            Callable(),
            Callable().method,
            Callable.of_class,
            Callable.static,
            functools.partial(int.__add__, 5),
        ]
        assert join_all([pygo.spawn(fn, 1) for fn in functions]) == [2, 3, 4, 5, 6]
        assert pygo.spawn(len, [1, 2]).join() == 2
        assert pygo.spawn(dict, a=1).join() == {"a": 1}
        assert pygo.spawn([3, 1, 2].index, 2).join() == 2

    def test_what_cannot_be_called_is_refused_at_once(self) -> None:
        for bad in (None, 3, "text"):
            with pytest.raises(TypeError):
                pygo.spawn(bad)
            with pytest.raises(TypeError):
                pygo.Task(bad)
        with pytest.raises(TypeError):
            pygo.spawn()

    def test_a_wrong_call_fails_in_the_task_not_in_the_spawner(self) -> None:
        task = pygo.spawn(lambda: None, 1, 2, 3)
        with pytest.raises(TypeError):
            task.join()

    def test_spawn_returns_before_the_task_has_ended(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def body() -> int:
            task = pygo.spawn(ch.recv)
            assert not task.done()
            ch.send(7)
            return task.join()

        assert place(body) == 7

    def test_tasks_spawn_tasks_that_spawn_tasks(self, workers: int) -> None:
        def leaves(depth: int) -> int:
            if depth == 0:
                return 1
            return sum(task.join() for task in [pygo.spawn(leaves, depth - 1) for _ in range(4)])

        assert pygo.spawn(leaves, 6).join(timeout=HANG) == 4**6

    def test_a_hundred_thousand_tasks_all_run_once(self, workers: int) -> None:
        ran = bytearray(100_000)

        def mark(slot: int) -> None:
            assert not ran[slot]
            ran[slot] = 1

        join_all([pygo.spawn(mark, slot) for slot in range(len(ran))])
        assert ran.count(1) == len(ran)

    def test_several_threads_spawn_and_join_at_once(self, workers: int) -> None:
        def body(base: int) -> int:
            return sum(join_all([pygo.spawn(int, base + i) for i in range(500)]))

        functions = [functools.partial(body, 1000 * slot) for slot in range(6)]
        assert in_threads(functions) == [sum(range(1000 * slot, 1000 * slot + 500)) for slot in range(6)]

    def test_tasks_never_run_on_the_main_thread(self, workers: int) -> None:
        main = threading.main_thread().native_id
        assert main not in join_all([pygo.spawn(threading.get_native_id) for _ in range(100)])


class TestTaskOptions:
    def test_arguments_are_given_as_a_sequence_and_a_mapping(self) -> None:
        assert pygo.Task(echo, (1, 2), {"a": 3}).join() == ((1, 2), {"a": 3})
        assert pygo.Task(echo, args=[1], kwargs=None).join() == ((1,), {})
        assert pygo.Task(echo).join() == ((), {})

    def test_constructing_schedules_it(self) -> None:
        ran = threading.Event()
        task = pygo.Task(ran.set)
        assert ran.wait(HANG)
        task.join()

    def test_the_name_is_kept(self) -> None:
        task = pygo.Task(echo, name="reader-1")
        assert task.name == "reader-1"
        assert "reader-1" in repr(task)
        task.join()

    def test_default_names_differ_and_are_texts(self) -> None:
        tasks = [pygo.spawn(echo) for _ in range(100)]
        join_all(tasks)
        assert len({task.name for task in tasks}) == 100
        assert all(isinstance(task.name, str) and task.name for task in tasks)

    def test_the_task_runs_in_the_given_context(self) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        context = contextvars.copy_context()
        context.run(variable.set, "outer")

        def body() -> str:
            seen = variable.get()
            variable.set("inner")
            return seen

        assert pygo.Task(body, context=context).join() == "outer"
        assert context[variable] == "inner"
        assert variable.get() == "unset"

    @pytest.mark.parametrize("size", [16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20, 64 << 20])
    def test_a_task_runs_on_a_stack_of_any_size(self, size: int) -> None:
        assert pygo.Task(echo, (1,), stack_size=size).join() == ((1,), {})

    @pytest.mark.parametrize(
        ("kwargs", "error"),
        [
            ({"stack_size": -1}, ValueError),
            ({"stack_size": "big"}, TypeError),
            ({"stack_size": 1 << 62}, (ValueError, MemoryError)),
            ({"name": 3}, TypeError),
            ({"context": "context"}, TypeError),
            ({"args": 3}, TypeError),
            ({"kwargs": 3}, TypeError),
            ({"kwargs": {1: 2}}, TypeError),
            ({"unknown": 3}, TypeError),
        ],
    )
    def test_bad_options_are_refused_before_anything_is_queued(self, kwargs: dict[str, Any], error: Any) -> None:
        spawned = pygo.runtime.stats().spawned
        with pytest.raises(error):
            pygo.Task(echo, **kwargs)
        assert pygo.runtime.stats().spawned == spawned

    def test_a_subscripted_task_is_for_annotations(self) -> None:
        assert pygo.Task[int] is not None


class TestJoin:
    def test_the_exception_comes_with_the_traceback_of_the_task(self, place: Any) -> None:
        def deep_in_the_task() -> None:
            raise Failure("deep")

        def body() -> None:
            deep_in_the_task()

        task = pygo.spawn(body)
        with pytest.raises(Failure, match="deep") as caught:
            place(task.join)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["body", "deep_in_the_task"]

    def test_many_joins_raise_the_same_exception_and_do_not_grow_its_traceback(self) -> None:
        task = pygo.spawn(fail, Failure())
        lengths = []
        for _ in range(20):
            with pytest.raises(Failure) as caught:
                task.join()
            assert caught.value is task.exception()
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert lengths[-1] <= lengths[1] + 20

    def test_many_tasks_and_threads_join_one_task(self, workers: int) -> None:
        gate: pygo.Channel[str] = pygo.Channel()
        task = pygo.spawn(gate.recv)
        joiners = [pygo.spawn(task.join) for _ in range(200)]
        threads_done: pygo.Channel[list[str]] = pygo.Channel(1)
        threading.Thread(target=lambda: threads_done.send(in_threads([task.join] * 10)), daemon=True).start()
        wait_until(lambda: all(joiner.state == "waiting" for joiner in joiners))
        gate.send("done")
        assert join_all(joiners) == ["done"] * 200
        assert threads_done.recv(timeout=HANG) == ["done"] * 10
        assert task.join() == "done"

    @pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
    def test_a_join_that_times_out_leaves_the_task_alone(self, place: Any, timeout: float) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(ch.recv)
        with pytest.raises(TimeoutError):
            place(lambda: task.join(timeout=timeout))
        ch.send(5)
        assert task.join() == 5
        assert place(lambda: task.join(timeout=0)) == 5

    def test_a_timeout_must_be_a_number(self) -> None:
        task = pygo.spawn(echo)
        for bad in ("1", [], float("nan"), -1):
            with pytest.raises((TypeError, ValueError)):
                task.join(timeout=bad)
        task.join(None)
        task.join(1)

    def test_a_task_that_joins_itself_is_told_so(self) -> None:
        def body() -> None:
            task = pygo.current_task()
            assert task is not None
            task.join(timeout=5)

        with pytest.raises((RuntimeError, pygo.Error)) as caught:
            in_task(body)
        assert not isinstance(caught.value, TimeoutError)

    @pytest.mark.parametrize("exception", [StopIteration("x"), GeneratorExit(), BaseException("base"), Failure(1, 2)])
    def test_any_exception_reaches_the_joiner(self, exception: BaseException) -> None:
        task = pygo.spawn(fail, exception)
        with pytest.raises(type(exception)) as caught:
            task.join()
        assert caught.value is exception

    def test_a_chain_of_joins_hands_the_result_on(self, workers: int) -> None:
        gate: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(gate.recv)
        for _ in range(1000):
            task = pygo.spawn(lambda before: before.join() + 1, task)
        gate.send(0)
        assert task.join(timeout=HANG) == 1000


class TestFutureLikeMethods:
    def test_result_and_exception_of_a_task_that_returned(self) -> None:
        task = pygo.spawn(int, "7")
        assert task.result() == 7
        assert task.exception() is None
        assert task.done()
        assert not task.cancelled()

    def test_result_and_exception_of_a_task_that_failed(self) -> None:
        failure = Failure()
        task = pygo.spawn(fail, failure)
        assert task.exception() is failure
        with pytest.raises(Failure):
            task.result()
        assert task.done()
        assert not task.cancelled()

    def test_result_and_exception_wait_and_time_out(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(ch.recv)
        assert not task.done()
        for method in (task.result, task.exception):
            with pytest.raises(TimeoutError):
                place(lambda method=method: method(timeout=0.005))
        ch.send(3)
        assert place(task.result) == 3
        assert place(task.exception) is None

    def test_asking_for_the_exception_counts_as_joining(self, reports: Any) -> None:
        task = pygo.spawn(fail, Failure())
        assert isinstance(task.exception(), Failure)
        del task
        assert reports.take() == []

    def test_callbacks_run_in_order_with_the_task_whether_added_before_or_after_the_end(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        called: list[tuple[str, Any]] = []
        task = pygo.spawn(ch.recv)
        task.add_done_callback(lambda done: called.append(("first", done)))
        task.add_done_callback(lambda done: called.append(("second", done)))
        assert called == []
        ch.send(1)
        task.join()
        wait_until(lambda: len(called) == 2)
        task.add_done_callback(lambda done: called.append(("late", done)))
        assert called == [("first", task), ("second", task), ("late", task)]

    def test_the_task_is_done_when_its_callback_runs(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        seen: list[Any] = []
        task = pygo.spawn(ch.recv)
        task.add_done_callback(lambda done: seen.append((done.done(), done.result(timeout=0))))
        ch.send(9)
        task.join()
        wait_until(lambda: seen)
        assert seen == [(True, 9)]

    def test_a_failing_callback_is_reported_and_the_others_run(self, reports: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        called: list[Any] = []
        task = pygo.spawn(ch.recv)
        task.add_done_callback(lambda done: fail(Failure("in the callback")))
        task.add_done_callback(called.append)
        ch.send(1)
        assert task.join() == 1
        wait_until(lambda: called)
        assert called == [task]
        reports.take_unraisable()

    def test_callbacks_added_while_the_task_ends_all_run(self, workers: int) -> None:
        for _ in range(50):
            called: list[int] = []
            task = pygo.spawn(pygo.yield_now)
            for slot in range(20):
                task.add_done_callback(lambda _, slot=slot, called=called: called.append(slot))
            task.join()
            wait_until(lambda called=called: len(called) == 20)
            assert sorted(called) == list(range(20))

    def test_a_callback_must_be_callable(self) -> None:
        task = pygo.spawn(echo)
        with pytest.raises(TypeError):
            task.add_done_callback(3)
        task.join()


class TestIntrospection:
    def test_ids_are_unique_numbers(self) -> None:
        tasks = [pygo.spawn(echo) for _ in range(1000)]
        join_all(tasks)
        assert len({task.id for task in tasks}) == 1000
        assert all(isinstance(task.id, int) and task.id > 0 for task in tasks)

    def test_current_task_is_the_running_one_and_none_elsewhere(self) -> None:
        task = pygo.spawn(pygo.current_task)
        assert task.join() is task
        assert pygo.current_task() is None
        assert in_thread(pygo.current_task) is None

    def test_a_running_task_says_so(self) -> None:
        task = pygo.spawn(lambda: pygo.current_task().state)
        assert task.join() == "running"
        assert task.state == "done"

    @pytest.mark.parametrize("kind", ["recv", "send", "select", "join", "wait", "sleep"])
    def test_a_waiting_task_says_what_it_waits_on(self, kind: str, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        other: pygo.Channel[int] = pygo.Channel()
        group = pygo.WaitGroup()
        group.add(1)
        target = pygo.spawn(other.recv)
        bodies = {
            "recv": (lambda: ch.recv(), ch),
            "send": (lambda: ch.send(1), ch),
            "select": (lambda: pygo.select(pygo.recv(ch), pygo.recv(other)), ch),
            "join": (lambda: target.join(), target),
            "wait": (lambda: group.wait(), group),
            "sleep": (lambda: pygo.sleep(HANG), None),
        }
        body, subject = bodies[kind]
        task = pygo.spawn(body)
        wait_until(lambda: task.state == "waiting")
        waiting = task.waiting_on
        assert isinstance(waiting, tuple)
        assert waiting == (waiting.reason, waiting.objects)
        assert isinstance(waiting.reason, str)
        assert waiting.reason
        if subject is not None:
            assert any(item is subject for item in waiting.objects)
        wait_until(lambda: target.state == "waiting")
        group.done()
        other.send(1)
        if kind == "recv" or kind == "select":
            ch.try_send(1)
        if kind == "send":
            assert ch.recv() == 1
        if kind == "sleep":
            assert task.cancel()
        pygo.wait([task], timeout=HANG)
        assert task.cancelled() == (kind == "sleep")
        target.join(timeout=HANG)
        assert task.waiting_on is None
        assert task.state == "done"

    def test_the_reasons_of_different_waits_differ(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        full: pygo.Channel[int] = pygo.Channel()
        group = pygo.WaitGroup()
        group.add()
        receiver = pygo.spawn(ch.recv)
        tasks = [
            receiver,
            pygo.spawn(full.send, 1),
            pygo.spawn(group.wait),
            pygo.spawn(pygo.sleep, HANG),
            pygo.spawn(receiver.join),
            pygo.spawn(pygo.select, pygo.send(full, 1), pygo.recv(ch)),
        ]
        wait_until(lambda: all(task.state == "waiting" for task in tasks))
        assert len({task.waiting_on.reason for task in tasks}) == len(tasks)
        group.done()
        ch.close()
        full.close()
        assert tasks[3].cancel()
        done, _ = pygo.wait(tasks, timeout=HANG)
        assert len([task.exception() for task in done if not task.cancelled()]) == len(tasks) - 1

    def test_state_changes_when_the_wait_is_won(self) -> None:
        """The waiter is no longer waiting as soon as the send that serves it has returned."""

        def body() -> set[str]:
            ch: pygo.Channel[int] = pygo.Channel()
            states = set()
            for _ in range(100):
                task = pygo.spawn(ch.recv)
                wait_until(lambda: ch.waiting_receivers == 1)
                ch.send(1)
                states.add(task.state)
                if task.state != "done":
                    assert task.waiting_on is None
                task.join()
            return states

        assert "waiting" not in in_task(body)

    def test_a_task_in_a_blocking_call_is_blocked(self) -> None:
        with blocked_reader() as (task, release):

            def blocked() -> bool:
                pygo.spawn(echo).join()
                return task.state == "blocked"

            wait_until(blocked)
            release()
            assert task.join(timeout=HANG) == b"x"

    def test_frames_show_where_a_parked_task_is(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def innermost() -> int:
            return ch.recv()

        def outermost() -> int:
            return innermost()

        task = pygo.spawn(outermost)
        wait_until(lambda: ch.waiting_receivers == 1)
        names = [getattr(frame, "name", None) or frame.f_code.co_name for frame in task.frames()]
        assert {"innermost", "outermost"} <= set(names)
        stream = io.StringIO()
        task.print_stack(file=stream)
        assert "innermost" in stream.getvalue()
        assert "test_task.py" in stream.getvalue()
        assert task.name in stream.getvalue()
        ch.send(1)
        task.join()
        assert list(task.frames()) == []
        task.print_stack(file=io.StringIO())

    def test_print_stack_writes_to_stderr_by_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.Task(ch.recv, name="stack-to-stderr")
        wait_until(lambda: ch.waiting_receivers == 1)
        task.print_stack()
        ch.send(1)
        task.join()
        assert "stack-to-stderr" in capsys.readouterr().err

    def test_frames_of_other_tasks_can_be_read_at_any_moment(self, workers: int) -> None:
        stop: pygo.Channel[None] = pygo.Channel()
        turns = [0] * 8

        def busy(slot: int) -> None:
            while not stop.closed:
                turns[slot] += 1
                pygo.yield_now()

        tasks = [pygo.spawn(busy, slot) for slot in range(8)]
        wait_until(lambda: all(turns))
        for _ in range(200):
            for task in tasks:
                for frame in task.frames():
                    assert getattr(frame, "name", None) or frame.f_code.co_name
                task.print_stack(file=io.StringIO())
        stop.close()
        join_all(tasks)

    def test_all_tasks_lists_the_unfinished_ones(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        tasks = [pygo.spawn(ch.recv) for _ in range(50)]
        assert set(tasks) <= set(pygo.all_tasks())
        ch.close()
        for task in tasks:
            task.exception(timeout=HANG)
        assert not set(tasks) & set(pygo.all_tasks())

    def test_tasks_compare_and_hash_by_identity(self) -> None:
        first, second = pygo.spawn(echo), pygo.spawn(echo)
        join_all([first, second])
        assert first != second
        assert first == first
        assert len({first, second, first}) == 2


class TestYieldAndSleep:
    def test_yield_lets_every_ready_task_run(self, workers: int) -> None:
        def body() -> None:
            ran = [False] * 20

            def mark(slot: int) -> None:
                ran[slot] = True

            tasks = [pygo.spawn(mark, slot) for slot in range(20)]
            turns = 0
            while not all(ran):
                pygo.yield_now()
                turns += 1
                assert turns < 1_000_000
            join_all(tasks)

        in_task(body)

    def test_yield_and_sleep_work_outside_tasks(self, place: Any) -> None:
        place(pygo.yield_now)
        place(lambda: pygo.sleep(0))
        place(lambda: pygo.sleep(0.001))

    def test_two_yielders_take_turns(self, workers: int) -> None:
        turns = [0, 0]
        stop: pygo.Channel[None] = pygo.Channel()

        def yielder(slot: int) -> None:
            while not stop.closed:
                turns[slot] += 1
                pygo.yield_now()

        tasks = [pygo.spawn(yielder, slot) for slot in range(2)]
        wait_until(lambda: min(turns) > 0)  # until both are there the first has no company
        before = list(turns)
        wait_until(lambda: sum(turns) - sum(before) > 20_000)
        stop.close()
        join_all(tasks)
        assert min(turns[0] - before[0], turns[1] - before[1]) > 1000, (turns, before)


class TestPartners:
    """Tasks that wake each other run one after the other, ahead of the queue, but not at the expense of others."""

    def partners(self, wake: Any, over: Any, turn: Any) -> list[Any]:
        def body() -> None:
            while pygo.select(pygo.recv(over), pygo.recv(wake)).index == 1:
                turn()
                if pygo.select(pygo.send(wake, None), pygo.recv(over)).index == 1:
                    return

        return [pygo.spawn(body) for _ in range(2)]

    def test_long_turns_of_partners_do_not_hold_up_a_new_task(self, workers: int) -> None:
        """It starts after a few of their turns, not after as many as a streak has switches."""
        wake: pygo.Channel[None] = pygo.Channel()
        over: pygo.Channel[None] = pygo.Channel()
        turns = [0]

        def turn() -> None:
            for _ in range(50_000):
                pass
            turns[0] += 1

        tasks = self.partners(wake, over, turn)
        wake.send(None)
        starts = []
        for _ in range(5):
            before = turns[0]
            starts.append(pygo.spawn(lambda: turns[0]).join(timeout=HANG) - before)
        over.close()
        join_all(tasks)
        assert sorted(starts)[2] < 20, starts

    @pytest.mark.parametrize("monitor", ["runs", "stands still"])
    def test_partners_get_the_same_time_whether_their_turns_are_long_or_short(self, monitor: str, workers: int) -> None:
        """Also on a machine so busy that the monitor, which moves the clock, does not get to run: then long turns had
        eighty times the time of short ones. The median of three looks: one of them may see a stall."""
        _extension.hold_monitor(monitor == "stands still")
        try:
            ratio = sorted(self.share_of_long_turns() for _ in range(3))[1]
        finally:
            _extension.hold_monitor(False)
        assert 1 / 4 < ratio < 4, ratio

    def share_of_long_turns(self) -> float:
        over: pygo.Channel[None] = pygo.Channel()
        steps = [0, 0]

        def turn(slot: int, amount: int) -> None:
            for _ in range(amount):
                steps[slot] += 1

        wakes: list[pygo.Channel[None]] = [pygo.Channel() for _ in range(2)]
        tasks = self.partners(wakes[0], over, lambda: turn(0, 40_000))
        tasks += self.partners(wakes[1], over, lambda: turn(1, 400))
        for wake in wakes:
            wake.send(None)
        wait_until(lambda: min(steps) > 0)  # the thread that sends the second wake may be late
        before = list(steps)
        wait_until(lambda: max(map(operator.sub, steps, before)) > 2_000_000)
        long, short = map(operator.sub, steps, before)
        over.close()
        join_all(tasks)
        return long / max(short, 1)


class TestExitTask:
    def test_it_ends_the_task_with_the_value_and_runs_finally_blocks(self) -> None:
        steps: list[str] = []

        def inner() -> None:
            try:
                pygo.exit_task("value")
            except Exception:
                steps.append("caught")
            finally:
                steps.append("finally")

        def body() -> str:
            inner()
            return "not reached"

        assert pygo.spawn(body).join() == "value"
        assert steps == ["finally"]

    def test_the_default_value_is_none(self, reports: Any) -> None:
        task = pygo.spawn(pygo.exit_task)
        assert task.join() is None
        assert task.exception() is None
        assert not task.cancelled()
        assert reports.take() == []

    def test_outside_a_task_it_is_an_error(self) -> None:
        for place in (PLACES["main"], in_thread):
            with pytest.raises((RuntimeError, pygo.Error)):
                place(pygo.exit_task)

    def test_a_finally_block_may_still_wait(self) -> None:
        ch: pygo.Channel[str] = pygo.Channel()

        def body() -> None:
            try:
                pygo.exit_task(1)
            finally:
                ch.send("cleaned up")

        task = pygo.spawn(body)
        assert ch.recv(timeout=HANG) == "cleaned up"
        assert task.join() == 1

    def test_what_a_finally_block_raises_comes_in_its_place(self) -> None:
        """Go's TestPanicAfterGoexit, TestRecoveredPanicAfterGoexit, TestGoexitInPanic."""

        def raising(caught: bool) -> None:
            try:
                pygo.exit_task(1)
            finally:
                try:
                    raise KeyError("hello")
                except KeyError:
                    if not caught:
                        raise

        def exiting() -> None:
            try:
                raise KeyError("hello")
            finally:
                pygo.exit_task(2)

        assert isinstance(pygo.spawn(raising, False).exception(timeout=HANG), KeyError)
        assert pygo.spawn(raising, True).join(timeout=HANG) == 1
        assert pygo.spawn(exiting).join(timeout=HANG) == 2


class TestLockThread:
    def test_a_locked_task_that_yields_lets_the_others_run(self, workers: int) -> None:
        """They need another OS thread for it, with this one's right to run."""
        rounds, over = [0, 0], pygo.Channel[None]()

        def body(slot: int) -> None:
            with pygo.lock_thread():
                while not over.closed:
                    rounds[slot] += 1
                    pygo.yield_now()

        def others() -> list[int]:
            waited = []
            for _ in range(10):
                before = sum(rounds)
                pygo.spawn(pygo.sleep, 0.0001).join(timeout=HANG)
                waited.append(sum(rounds) - before)
            return waited

        tasks = [pygo.spawn(body, slot) for slot in range(2)]
        wait_until(lambda: min(rounds) > 100)
        waited = pygo.spawn(others).join(timeout=HANG) + others()
        over.close()
        join_all(tasks)
        assert sorted(waited)[len(waited) // 2] < 100_000, waited

    @pytest.mark.parametrize("how", ["locked", "below C code"])
    def test_those_that_stay_get_their_turns_beside_tasks_that_block_and_yield(self, how: str, workers: int) -> None:
        """Their threads wait long for the right to run, and must not give it away before they have run anything."""
        over, turns = pygo.Channel[None](), [0, 0]

        def block(slot: int) -> None:
            while not over.closed:
                turns[slot] += 1
                time.sleep(0.0002)
                pygo.yield_now()

        def wait(value: int) -> int:
            for _ in range(5):
                pygo.yield_now()
            return value

        def locked() -> list[int]:
            with pygo.lock_thread():
                return [wait(1)]

        blocking = [pygo.spawn(block, slot) for slot in range(2)]
        staying = [pygo.spawn(locked) if how == "locked" else pygo.spawn(sorted, [1], key=wait) for _ in range(8)]
        assert join_all(staying) == [[1]] * 8
        over.close()
        join_all(blocking)
        assert sum(turns) < 10_000

    def test_the_task_keeps_its_os_thread(self, workers: int) -> None:
        stop: pygo.Channel[None] = pygo.Channel()

        def noise() -> None:
            while not stop.closed:
                time.sleep(0.0005)
                pygo.yield_now()

        def pinned() -> set[int]:
            seen = set()
            with pygo.lock_thread():
                for _ in range(100):
                    seen.add(threading.get_native_id())
                    pygo.yield_now()
                    seen.add(threading.get_native_id())
                    pygo.spawn(echo).join()
                    seen.add(threading.get_native_id())
                    time.sleep(0.0001)
            return seen

        noises = [pygo.spawn(noise) for _ in range(4)]
        tasks = [pygo.spawn(pinned) for _ in range(4)]
        seen = join_all(tasks)
        stop.close()
        join_all(noises)
        assert all(len(ids) == 1 for ids in seen)

    def test_it_nests(self) -> None:
        def body() -> int:
            with pygo.lock_thread():
                start = threading.get_native_id()
                with pygo.lock_thread():
                    pygo.spawn(time.sleep, 0.001).join()
                for _ in range(20):
                    pygo.spawn(time.sleep, 0.0005).join()
                    assert threading.get_native_id() == start
            pygo.spawn(time.sleep, 0.001).join()
            return 1

        assert in_task(body) == 1

    def test_an_exception_releases_it(self, workers: int) -> None:
        def body() -> None:
            with pygo.lock_thread():
                raise Failure

        for _ in range(10):
            with pytest.raises(Failure):
                in_task(body)
        assert in_task(lambda: 1) == 1

    def test_more_pinned_tasks_than_workers_all_make_progress(self, workers: int) -> None:
        def body(inbox: Any, outbox: Any) -> None:
            with pygo.lock_thread():
                for _ in range(20):
                    outbox.send(inbox.recv() + 1)

        first: pygo.Channel[int] = pygo.Channel()
        channel, tasks = first, []
        for _ in range(2 * workers + 2):
            following: pygo.Channel[int] = pygo.Channel()
            tasks.append(pygo.spawn(body, channel, following))
            channel = following

        def feed() -> None:
            for value in range(20):
                first.send(value)

        feeder = pygo.spawn(feed)
        assert [channel.recv(timeout=HANG) for _ in range(20)] == [value + len(tasks) for value in range(20)]
        join_all([*tasks, feeder])


class TestCallOnStack:
    def test_it_passes_arguments_result_and_exceptions(self, place: Any) -> None:
        kwargs = {"size": 1, "fn": 2}
        assert place(lambda: pygo.call_on_stack(1 << 20, echo, 1, 2, **kwargs)) == ((1, 2), kwargs)
        with pytest.raises(Failure, match="inside"):
            place(lambda: pygo.call_on_stack(1 << 20, fail, Failure("inside")))

    def test_the_call_may_wait_and_the_task_goes_on_afterwards(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def body(depth: int) -> int:
            if depth == 0:
                return ch.recv()
            return pygo.call_on_stack(256 << 10, body, depth - 1) + 1

        tasks = [pygo.spawn(body, depth) for depth in range(6)]
        wait_until(lambda: ch.waiting_receivers == 6)
        for _ in tasks:
            ch.send(100)
        assert join_all(tasks) == [100 + depth for depth in range(6)]

    def test_it_can_be_called_again_and_again(self) -> None:
        def body() -> int:
            return sum(pygo.call_on_stack(64 << 10, int, 1) for _ in range(20_000))

        assert in_task(body) == 20_000

    @pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (0, ValueError), ("x", TypeError), (1.5, TypeError)])
    def test_a_bad_size_is_refused(self, size: Any, error: type[Exception]) -> None:
        for place in (PLACES["main"], in_task):
            with pytest.raises(error):
                place(lambda: pygo.call_on_stack(size, echo))

    def test_what_cannot_be_called_is_refused(self) -> None:
        with pytest.raises(TypeError):
            pygo.call_on_stack(1 << 20, None)
        with pytest.raises(TypeError):
            pygo.call_on_stack(1 << 20)

    def test_it_gives_room_for_deep_recursion_in_c(self) -> None:
        """Nested sorts need about 5 KiB of C stack a level: 400 of them only fit on the larger segment."""

        def nest(depth: int) -> int:
            if depth == 0:
                return 0
            return sorted([depth], key=lambda value: nest(depth - 1))[0]

        def body() -> int:
            return pygo.call_on_stack(16 << 20, nest, 150)

        assert pygo.Task(body, stack_size=64 << 10).join(timeout=HANG) == 150


class TestFailures:
    def test_an_unjoined_failure_is_reported_once(self, reports: Any) -> None:
        pygo.Task(fail, (Failure("unjoined"),), name="lonely")
        wait_until(lambda: reports.tasks)
        ((name, text),) = reports.take()
        assert name == "lonely"
        assert "Failure: unjoined" in text
        assert "in fail" in text
        assert reports.take() == []

    def test_a_joined_failure_is_not_reported(self, reports: Any) -> None:
        for _ in range(100):
            with pytest.raises(Failure):
                pygo.spawn(fail, Failure()).join()
        assert reports.take() == []

    def test_a_join_that_timed_out_does_not_count(self, reports: Any) -> None:
        ch: pygo.Channel[BaseException] = pygo.Channel()
        task = pygo.spawn(lambda: fail(ch.recv()))
        with pytest.raises(TimeoutError):
            task.join(timeout=0.01)
        ch.send(Failure("late"))
        wait_until(task.done)
        del task
        wait_until(lambda: reports.tasks)
        assert len(reports.take()) == 1

    def test_a_task_kept_by_its_spawner_is_not_reported_while_it_may_still_be_joined(self, reports: Any) -> None:
        task = pygo.spawn(fail, Failure("kept"))
        wait_until(task.done)
        assert reports.take() == []
        with pytest.raises(Failure):
            task.join()
        del task
        assert reports.take() == []

    def test_a_thousand_unjoined_failures_are_reported_once_each(self, reports: Any, workers: int) -> None:
        for number in range(1000):
            pygo.Task(fail, (Failure(number),), name=f"failing-{number}")
        wait_until(lambda: len(reports.tasks) >= 1000)
        assert sorted(name for name, _ in reports.take()) == sorted(f"failing-{number}" for number in range(1000))

    def test_the_default_hook_prints_traceback_name_and_place_of_the_spawn(self) -> None:
        program = run_program(
            """
            import pygo

            def broken():
                raise ValueError("what went wrong")

            def spawner():
                pygo.Task(broken, name="the-broken-task")  # spawned here

            spawner()
            while pygo.all_tasks():
                pygo.sleep(0.001)
            """
        ).ok()
        assert program.err.count("ValueError: what went wrong") == 1
        assert "the-broken-task" in program.err
        assert "in broken" in program.err
        assert "program.py" in program.err
        assert "line 8" in program.err

    def test_the_end_of_the_program_waits_for_a_hook_under_way(self) -> None:
        """A worker is at it when all tasks have ended, and so the main thread does."""
        program = run_program(
            """
            import time, pygo

            def hook(task, exc):
                begun.append(True)
                time.sleep(0.3)
                print("reported")

            begun = []
            pygo.excepthook = hook
            pygo.spawn(int, "x")
            while not begun:
                pygo.sleep(0.001)
            """
        ).ok()
        assert program.out == "reported\n"

    def test_a_failing_hook_does_not_end_the_program(self) -> None:
        program = run_program(
            """
            import pygo

            def hook(task, exc):
                raise KeyError("the hook itself")

            pygo.excepthook = hook
            pygo.spawn(int, "x")
            while pygo.all_tasks():
                pygo.sleep(0.001)
            print(pygo.spawn(int, "3").join())
            """
        ).ok()
        assert program.out == "3\n"
        assert "the hook itself" in program.err

    def test_the_hook_gets_the_task_and_the_exception(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[Any, BaseException]] = []
        monkeypatch.setattr(pygo, "excepthook", lambda task, exc: seen.append((task, exc)))
        failure = Failure()
        pygo.spawn(fail, failure)
        wait_until(lambda: seen)
        ((task, exc),) = seen
        assert isinstance(task, pygo.Task)
        assert task.done()
        assert exc is failure
        assert task.exception() is failure


def test_generated_trees_of_tasks_sum_up(workers: int) -> None:
    """Random trees whose tasks spawn, sleep, yield, block and join in random order."""
    rng = random.Random(workers)

    def node(depth: int, seed: int) -> int:
        rng = random.Random(seed)
        children = [pygo.spawn(node, depth - 1, rng.getrandbits(30)) for _ in range(rng.randrange(4))] if depth else []
        match rng.randrange(5):
            case 0:
                pygo.yield_now()
            case 1:
                pygo.sleep(rng.random() * 0.002)
            case 2:
                time.sleep(rng.random() * 0.001)
            case 3:
                os.stat(".")
        rng.shuffle(children)
        return 1 + sum(child.join() for child in children)

    def size(depth: int, seed: int) -> int:
        rng = random.Random(seed)
        seeds = [rng.getrandbits(30) for _ in range(rng.randrange(4))] if depth else []
        return 1 + sum(size(depth - 1, child) for child in seeds)

    seeds = [rng.getrandbits(30) for _ in range(10)]
    tasks = [pygo.spawn(node, 6, seed) for seed in seeds]
    assert join_all(tasks) == [size(6, seed) for seed in seeds]
