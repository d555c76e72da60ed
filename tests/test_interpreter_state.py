"""Everything the interpreter keeps per thread belongs to the task; recursion ends in RecursionError on every stack."""

from __future__ import annotations

import contextlib
import contextvars
import decimal
import gc
import json
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import HANG, in_task, join_all, move_to_another_thread, run_program

import pygo
from pygo._extension import has_portable_switch, switch_keeps_gil


def switch() -> None:
    """Let every other task run, on this or another thread."""
    pygo.yield_now()


def block() -> None:
    time.sleep(0.0002)


@pytest.fixture(params=[switch, block], ids=["yielding", "blocking"])
def pause(request: pytest.FixtureRequest) -> Callable[[], None]:
    return request.param


def side_by_side(body: Callable[[int], Any], count: int = 8) -> list[Any]:
    return join_all([pygo.spawn(body, slot) for slot in range(count)])


class Own(Exception):
    pass


class TestExceptions:
    def test_the_handled_exception_is_the_tasks_own(self, pause: Any, workers: int) -> None:
        def body(slot: int) -> None:
            assert sys.exc_info() == (None, None, None)
            for turn in range(20):
                try:
                    raise Own(slot, turn)
                except Own as exc:
                    pause()
                    assert sys.exc_info()[1] is exc
                    assert exc.args == (slot, turn)
                    try:
                        pause()
                        raise ValueError(slot)
                    except ValueError as inner:
                        pause()
                        assert inner.__context__ is exc
                        assert sys.exc_info()[1] is inner
                    assert sys.exc_info()[1] is exc
                assert sys.exc_info() == (None, None, None)
                pause()

        side_by_side(body)

    def test_a_bare_raise_raises_the_tasks_own(self, pause: Any, workers: int) -> None:
        def body(slot: int) -> None:
            for _ in range(20):
                with pytest.raises(Own) as caught:
                    try:
                        raise Own(slot)
                    except Own:
                        pause()
                        raise
                assert caught.value.args == (slot,)

        side_by_side(body)

    def test_a_task_spawned_in_a_handler_starts_without_an_exception(self) -> None:
        def body() -> Any:
            try:
                raise Own
            except Own:
                return pygo.spawn(sys.exc_info).join()

        assert in_task(body) == (None, None, None)
        try:
            raise Own
        except Own:
            assert pygo.spawn(sys.exc_info).join() == (None, None, None)

    def test_generators_keep_their_exceptions_across_tasks(self, pause: Any, workers: int) -> None:
        """A generator suspended in a handler goes from task to task."""

        def generator() -> Iterator[BaseException | None]:
            try:
                raise Own("generator")
            except Own:
                while True:
                    pause()
                    yield sys.exc_info()[1]

        def body(slot: int) -> None:
            own = generator()
            for _ in range(20):
                try:
                    raise ValueError(slot)
                except ValueError as exc:
                    assert repr(next(own)) == "Own('generator')"
                    pause()
                    assert sys.exc_info()[1] is exc

        side_by_side(body)
        shared = generator()
        for _ in range(10):
            assert repr(in_task(next, shared)) == "Own('generator')"
            assert sys.exc_info()[1] is None

    def test_exception_groups_and_with_blocks_survive_waits(self, pause: Any, workers: int) -> None:
        @contextlib.contextmanager
        def manager() -> Iterator[None]:
            try:
                yield
            except Own:
                pause()
                raise ValueError from None
            finally:
                pause()

        def body(slot: int) -> None:
            for _ in range(10):
                with pytest.raises(ValueError, match=r"^$"), manager():
                    pause()
                    raise Own(slot)
                try:
                    raise ExceptionGroup("group", [Own(slot), ValueError(slot)])
                except* Own as group:
                    pause()
                    assert group.exceptions[0].args == (slot,)
                except* ValueError as group:
                    pause()
                    assert group.exceptions[0].args == (slot,)

        side_by_side(body)


class TestContexts:
    def test_a_task_starts_in_a_copy_of_its_spawners_context(self, workers: int) -> None:
        variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)

        def child() -> Any:
            before = variable.get()
            variable.set("child")
            pygo.yield_now()
            assert variable.get() == "child"
            return before

        def parent(slot: int) -> None:
            variable.set(slot)
            for _ in range(10):
                tasks = [pygo.spawn(child) for _ in range(5)]
                assert variable.get() == slot
                variable.set(-1)
                assert join_all(tasks) == [slot] * 5
                assert variable.get() == -1
                variable.set(slot)

        side_by_side(parent)
        assert variable.get() is None

    def test_the_copy_is_made_at_the_spawn(self) -> None:
        variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)
        gate: pygo.Channel[None] = pygo.Channel()
        variable.set("at the spawn")
        task = pygo.spawn(lambda: (gate.recv(), variable.get()))
        variable.set("later")
        gate.send(None)
        assert task.join()[1] == "at the spawn"
        variable.set(None)

    def test_no_task_sees_the_variables_of_the_stacks_last_task(self, workers: int) -> None:
        """Thread states are recycled; the context cache of a ContextVar must not be."""
        variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="clean")

        def dirty(slot: int) -> None:
            assert variable.get() == "clean"
            variable.set(slot)
            assert variable.get() == slot

        def clean(slot: int) -> Any:
            return variable.get()

        for _ in range(20):
            side_by_side(dirty, 50)
            assert side_by_side(clean, 50) == ["clean"] * 50

    def test_context_run_across_waits(self, pause: Any, workers: int) -> None:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

        def body(slot: int) -> None:
            context = contextvars.copy_context()

            def inside() -> None:
                variable.set(slot)
                pause()
                assert variable.get() == slot

            for _ in range(20):
                context.run(inside)
                pause()
                assert variable.get() == -1

        side_by_side(body)

    def test_decimal_contexts_are_the_tasks_own(self, pause: Any, workers: int) -> None:
        def body(slot: int) -> None:
            decimal.setcontext(decimal.Context(prec=slot + 3))
            for _ in range(20):
                pause()
                assert decimal.getcontext().prec == slot + 3
                assert str(decimal.Decimal(1) / decimal.Decimal(3)) == "0." + "3" * (slot + 3)
                with decimal.localcontext() as local:
                    local.prec = 2
                    pause()
                    assert str(decimal.Decimal(1) / decimal.Decimal(3)) == "0.33"

        before = decimal.getcontext().prec
        side_by_side(body)
        assert decimal.getcontext().prec == before
        assert in_task(lambda: decimal.getcontext().prec) == before


class TestThreadLocals:
    def test_they_are_the_tasks_own(self, pause: Any, workers: int) -> None:
        local = threading.local()

        def body(slot: int) -> None:
            assert not hasattr(local, "value")
            local.value = slot
            for _ in range(20):
                pause()
                assert local.value == slot

        for _ in range(5):
            side_by_side(body)
        assert not hasattr(local, "value")

    def test_their_values_are_freed_when_the_task_ends(self, workers: int) -> None:
        import weakref

        class Value:
            pass

        local = threading.local()
        refs: list[Any] = [None] * 20

        def body(slot: int) -> None:
            local.value = Value()
            refs[slot] = weakref.ref(local.value)
            pygo.yield_now()

        side_by_side(body, 20)
        gc.collect()
        assert [ref() for ref in refs] == [None] * 20

    def test_they_move_with_the_task(self) -> None:
        local = threading.local()

        def body() -> bool:
            local.value = 1
            moved = move_to_another_thread()
            return moved and local.value == 1

        assert in_task(body)


class TestHooksAndLimits:
    def test_a_trace_function_set_in_a_task_stays_there(self, workers: int) -> None:
        def body(slot: int) -> list[str]:
            if slot % 2:
                for _ in range(20):
                    pygo.yield_now()
                return [] if sys.gettrace() is None and sys.getprofile() is None else ["traced"]
            seen: list[str] = []
            sys.setprofile(lambda frame, event, argument: seen.append(event))
            for _ in range(20):
                pygo.yield_now()
            sys.setprofile(None)
            return seen

        outcomes = side_by_side(body)
        assert all(outcomes[::2])
        assert not any(outcomes[1::2])

    def test_threadings_hooks_reach_new_tasks(self) -> None:
        program = run_program(
            """
            import threading, pygo
            seen = []
            pygo.spawn(int).join()

            def traced():
                return 1

            def hook(frame, event, argument):
                if frame.f_code is traced.__code__:
                    seen.append(event)

            threading.setprofile(hook)
            for _ in range(3):
                pygo.spawn(traced).join()
            threading.setprofile(None)
            print(seen)
            """
        ).ok()
        assert program.out == f"{['call', 'return'] * 3}\n"

    def test_the_recursion_limit_is_shared_and_the_depth_is_not(self, workers: int) -> None:
        """Eight tasks, each 300 frames deep at one moment, under a limit none of them would reach alone."""

        def descend(depth: int) -> int:
            if depth == 0:
                pygo.yield_now()
                pygo.sleep(0.001)
                return 0
            return 1 + descend(depth - 1)

        assert side_by_side(lambda slot: descend(300)) == [300] * 8

    def test_async_generators_and_coroutines_can_be_driven_in_tasks(self, pause: Any, workers: int) -> None:
        async def coroutine(slot: int) -> int:
            pause()
            return slot

        def body(slot: int) -> int:
            try:
                coroutine(slot).send(None)
            except StopIteration as stop:
                return stop.value
            raise AssertionError

        assert side_by_side(body) == list(range(8))

    def test_an_event_loop_can_run_in_a_task(self, workers: int) -> None:
        import asyncio

        async def main(slot: int) -> int:
            await asyncio.sleep(0.001)
            return slot

        assert side_by_side(lambda slot: asyncio.run(main(slot)), 4) == list(range(4))

    def test_warnings_filters_and_import_state_survive(self, workers: int) -> None:
        def body(slot: int) -> None:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")

        with warnings.catch_warnings():
            join_all([pygo.spawn(body, 0)])

    def test_from_task_to_task_the_gil_stays(self) -> None:
        """On each supported release; where it did not, all would work, but a switch took twice as long."""
        assert switch_keeps_gil() or has_portable_switch()

    def test_a_thread_that_took_the_place_of_another_is_told_apart(self) -> None:
        """A worker's record is used again when its thread has ended; what a task noted of that thread must not be."""
        program = run_program(
            """
            import sys, threading, time, pygo

            pygo.runtime.set_workers(1)
            parked = pygo.Channel()
            idents = []

            def block(until):
                idents.append(threading.get_ident())
                until.wait()

            def body():
                idents.append(threading.get_ident())
                begun.set()
                parked.recv()
                idents.append(threading.get_ident())
                return sys._current_frames()[threading.get_ident()] is sys._getframe()

            begun, ended = threading.Event(), threading.Event()
            first, task = pygo.spawn(block, begun), pygo.spawn(body)
            first.join()
            deadline = time.monotonic() + 20
            while pygo.runtime.stats().threads > 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            threading.stack_size(256 * 1024)  # that of workers: the stack of the one that ended is taken, so that
            for _ in range(3):                # the next has another ident
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            second = pygo.spawn(block, ended)
            pygo.spawn(parked.send, 1)
            assert task.join()
            ended.set()
            blocked, before, _, after = idents
            print(before not in (blocked, after))
            """
        ).ok()
        assert program.out == "True\n"

    def test_async_exceptions_reach_the_right_task(self) -> None:
        """``PyThreadState_SetAsyncExc`` by the ident a computing task sees."""
        import ctypes

        idents: pygo.Channel[int] = pygo.Channel(1)

        def body() -> str:
            idents.send(threading.get_ident())
            try:
                while True:
                    pass
            except Own:
                return "interrupted"

        task = pygo.spawn(body)
        ident = idents.recv(timeout=HANG)
        raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Own))
        assert raised == 1
        assert task.join(timeout=HANG) == "interrupted"

    def test_current_frames_shows_running_and_parked_tasks(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def the_parked_function() -> int:
            return ch.recv()

        tasks = [pygo.spawn(the_parked_function) for _ in range(10)]
        while ch.waiting_receivers < 10:
            pygo.sleep(0.001)

        def body() -> tuple[int, bool]:
            frames = sys._current_frames()
            stacks = ["".join(traceback.format_stack(frame)) for frame in frames.values()]
            own = frames[threading.get_ident()]
            return sum("the_parked_function" in stack for stack in stacks), own is sys._getframe()

        assert in_task(body) == (10, True)
        ch.close()
        for task in tasks:
            task.exception(timeout=HANG)


def test_deep_destruction_is_harmless(workers: int) -> None:
    """The trashcan of CPython defers nested deallocation, per thread; nothing may overflow or leak here."""

    def body(slot: int) -> None:
        for _ in range(3):
            value: Any = None
            for _ in range(100_000):
                value = (value, [])
            pygo.yield_now()
            del value
            chained: BaseException | None = None
            for _ in range(20_000):
                link = Own()
                link.__context__ = chained
                chained = link

    side_by_side(body, 4)


def test_a_usual_depth_of_python_recursion_fits_in_every_task() -> None:
    """900 frames, the default limit less some: through plain calls, ``__init__`` and ``json``."""

    class Nested:
        def __init__(self, depth: int) -> None:
            self.child = Nested(depth - 1) if depth else None

    def plain(depth: int) -> int:
        return 1 + plain(depth - 1) if depth else 0

    def body(slot: int) -> int:
        Nested(400)
        assert json.loads("[" * 400 + "]" * 400)
        return plain(900)

    assert side_by_side(body, 50) == [900] * 50


def test_the_recursion_depth_is_reset_when_a_stack_is_used_again(workers: int) -> None:
    """A task that dies at the limit leaves no depth behind for the next one on its stack."""

    def body(slot: int) -> int:
        depth = 0

        def descend() -> None:
            nonlocal depth
            depth += 1
            descend()

        with pytest.raises(RecursionError):
            descend()
        return depth

    first = side_by_side(body)
    for _ in range(10):
        assert min(side_by_side(body)) >= min(first) - 100


def test_a_recursion_limit_that_is_lowered_again_stops_no_parked_task() -> None:
    # 3.11 counts against the limit; tasks whose stack bears less than a high limit must not end below zero afterwards.
    program = """
        import sys, pygo
        from pygo import testing

        sys.setrecursionlimit(10_050)
        ch = pygo.Channel()
        task = pygo.spawn(lambda: [ch.recv(), len(str(1))])
        testing.wait_until_blocked(task)
        pygo.spawn(len, "").join()  # leaves an idle fiber
        sys.setrecursionlimit(1000)
        ch.send(1)
        print(task.join(timeout=20), pygo.spawn(lambda: len(str(1))).join(timeout=20))
    """
    assert run_program(program).ok().out == "[1, 1] 1\n"
