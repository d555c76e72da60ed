"""pygo.context: trees that end together, deadlines, values; after the behaviours that Go's own tests fix."""

from __future__ import annotations

import contextvars
import gc
import random
import sys
import time
import weakref
from typing import Any

import pytest
from helpers import HANG, PLACES, in_threads, join_all, run_program, wait_until

import pygo
from pygo import context, testing
from pygo.context import (
    Canceled,
    Context,
    DeadlineExceeded,
    after_func,
    background,
    with_cancel,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)

FAR = 1000.0  # seconds; never reached


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


def assert_open(*contexts: Context) -> None:
    for ctx in contexts:
        assert ctx.err is None
        assert ctx.cause is None
        assert not ctx.done.closed
        assert pygo.select(pygo.recv(ctx.done), default=True).index == -1


def assert_ended(kind: type[Exception], *contexts: Context) -> None:
    for ctx in contexts:
        assert isinstance(ctx.err, kind)
        assert ctx.done.closed
        assert ctx.done.recv_ok(timeout=0) == (None, False)


def pending_timers() -> int:
    return pygo.runtime.stats().timers


class TestBackground:
    def test_it_never_ends_and_has_nothing(self, place: Any) -> None:
        def body() -> None:
            ctx = background()
            assert_open(ctx)
            assert (ctx.deadline, ctx.value("key"), ctx.value(None)) == (None, None, None)
            with pytest.raises(TimeoutError):
                ctx.done.recv(timeout=0.001)

        place(body)

    def test_it_is_always_the_same_and_so_is_its_channel(self) -> None:
        assert background() is background()
        assert background().done is background().done
        assert isinstance(background().done, pygo.RecvChannel)
        assert repr(background()) == "<pygo.context.Context background>"

    def test_the_module_is_an_attribute_that_costs_nothing_until_used(self) -> None:
        finished = run_program(
            """
            import sys, pygo
            assert "pygo.context" not in sys.modules
            assert pygo.context.background().err is None
            assert "pygo.context" in sys.modules and not hasattr(pygo, "no_such_name")
            import os
            assert len(os.listdir("/proc/self/task")) == 1
            """
        ).ok()
        assert finished.err == ""


class TestCancel:
    def test_it_ends_the_context(self, place: Any, workers: int) -> None:
        def body() -> None:
            ctx, cancel = with_cancel(background())
            assert_open(ctx)
            assert cancel() is None
            assert_ended(Canceled, ctx)
            assert ctx.cause is ctx.err
            assert not isinstance(ctx.err, TimeoutError)
            assert str(ctx.err) == "context canceled"

        place(body)

    def test_it_wakes_who_waits_for_done(self, place: Any, workers: int) -> None:
        def body() -> None:
            ctx, cancel = with_cancel(background())
            tasks = [pygo.spawn(ctx.done.recv_ok, timeout=HANG) for _ in range(20)]
            tasks += [pygo.spawn(pygo.select, pygo.recv(ctx.done), timeout=HANG) for _ in range(20)]
            wait_until(lambda: all(task.state == "waiting" for task in tasks))
            cancel()
            results = join_all(tasks)
            assert results == [(None, False)] * 20 + [(0, None, False)] * 20
            assert ctx.err is not None

        place(body)

    def test_again_it_changes_nothing(self) -> None:
        ctx, cancel = with_cancel(background())
        cause = ValueError("first")
        cancel(cause)
        err, done = ctx.err, ctx.done
        cancel(KeyError("second"))
        cancel()
        assert (ctx.err, ctx.cause, ctx.done) == (err, cause, done)
        assert ctx.err is err

    def test_done_is_always_the_same_channel(self) -> None:
        for ask_before in (True, False):
            ctx, cancel = with_cancel(background())
            value = with_value(ctx, "k", "v")
            before = ctx.done if ask_before else None
            cancel()
            assert ctx.done is ctx.done is value.done
            assert before in (None, ctx.done)
            assert isinstance(ctx.done, pygo.RecvChannel)
            assert not hasattr(ctx.done, "close")

    def test_children_end_with_the_parent_and_not_the_other_way_round(self, workers: int) -> None:
        """Go: TestParentFinishesChild, TestChildFinishesFirst."""
        parent, cancel = with_cancel(background())
        first, cancel_first = with_cancel(parent)
        second = with_value(parent, "key", "value")
        third, _ = with_timeout(second, FAR)
        grandchild, _ = with_cancel(first)
        cancel_first()
        assert_ended(Canceled, first, grandchild)
        assert_open(parent, second, third)
        cancel()
        assert_ended(Canceled, parent, first, second, third, grandchild)
        late, _ = with_cancel(parent)
        assert_ended(Canceled, late)
        assert pending_timers() == 0

    def test_all_below_have_ended_when_it_returns(self, workers: int) -> None:
        rng = random.Random(workers)
        for _ in range(20):
            root, cancel = with_cancel(background())
            tree = [root]
            for number in range(300):
                parent = rng.choice(tree)
                tree.append(with_value(parent, number, number) if rng.random() < 0.3 else with_cancel(parent)[0])
            cancel()
            assert all(ctx.err is not None and ctx.done.closed for ctx in tree)

    def test_a_deep_chain_ends_at_once(self) -> None:
        root, cancel = with_cancel(background())
        ctx = root
        for _ in range(20_000):
            ctx, _ = with_cancel(ctx)
        cancel()
        assert_ended(Canceled, ctx)

    def test_it_takes_a_cause_by_position_and_by_name(self) -> None:
        """Go: TestCause."""
        cause = ValueError("why")
        for call in (lambda cancel: cancel(cause), lambda cancel: cancel(cause=cause)):
            ctx, cancel = with_cancel(background())
            child, cancel_child = with_cancel(with_value(ctx, 1, 2))
            call(cancel)
            cancel_child(KeyError("too late"))
            assert isinstance(ctx.err, Canceled)
            assert isinstance(child.err, Canceled)
            assert ctx.cause is cause
            assert child.cause is cause

    def test_a_childs_own_cause_is_not_its_parents(self) -> None:
        parent, cancel_parent = with_cancel(background())
        child, cancel_child = with_cancel(parent)
        mine, theirs = ValueError("child"), ValueError("parent")
        cancel_child(mine)
        cancel_parent(theirs)
        assert (child.cause, parent.cause) == (mine, theirs)

    @pytest.mark.parametrize("bad", [None, 3, "ctx", with_cancel, Context])
    def test_a_parent_must_be_a_context(self, bad: Any) -> None:
        for call in (
            lambda: with_cancel(bad),
            lambda: with_timeout(bad, 1),
            lambda: with_deadline(bad, 1),
            lambda: with_value(bad, "k", "v"),
            lambda: without_cancel(bad),
            lambda: after_func(bad, print),
        ):
            with pytest.raises(TypeError):
                call()


class TestErrors:
    def test_they_are_exceptions_to_raise_and_to_compare(self) -> None:
        ctx, cancel = with_cancel(background())
        cancel()
        assert ctx.err == Canceled
        assert ctx.err != DeadlineExceeded
        assert ctx.err is not None
        with pytest.raises(Canceled, match="context canceled"):
            raise ctx.err
        timed, _ = with_timeout(background(), 0)
        assert timed.err == DeadlineExceeded
        assert timed.err != Canceled
        assert timed.err is not None
        with pytest.raises(TimeoutError, match="context deadline exceeded"):
            raise timed.err
        assert issubclass(DeadlineExceeded, pygo.Error)
        assert len({timed.err, DeadlineExceeded, ctx.err, Canceled}) == 2


class TestDeadline:
    def test_it_ends_the_context_and_not_early(self, place: Any, workers: int) -> None:
        """Go: TestDeadline, TestTimeout."""

        def body() -> None:
            start = time.monotonic()
            ctx, _ = with_timeout(background(), 0.01)
            other, _ = with_deadline(with_value(background(), 1, 2), start + 0.02)
            for one, at in ((ctx, start + 0.01), (other, start + 0.02)):
                one.done.recv_ok(timeout=HANG)
                assert time.monotonic() >= at
                assert_ended(DeadlineExceeded, one)
                assert one.cause is one.err

        place(body)

    def test_it_is_the_earlier_of_parent_and_own(self) -> None:
        now = time.monotonic()
        early, cancel_early = with_deadline(background(), now + FAR)
        late, _ = with_deadline(early, now + 2 * FAR)
        own, _ = with_deadline(early, now + FAR / 2)
        plain, _ = with_cancel(own)
        assert [ctx.deadline for ctx in (early, late, own, plain)] == [
            now + FAR,
            now + FAR,
            now + FAR / 2,
            now + FAR / 2,
        ]
        assert with_value(own, 1, 2).deadline == own.deadline
        assert without_cancel(own).deadline is None
        cancel_early()
        assert_ended(Canceled, early, late, own, plain)
        assert own.deadline == now + FAR / 2

    def test_a_parents_earlier_deadline_ends_the_child(self, workers: int) -> None:
        parent, _ = with_timeout(background(), 0.01)
        child, _ = with_timeout(parent, FAR)
        child.done.recv_ok(timeout=HANG)
        assert_ended(DeadlineExceeded, child, parent)

    @pytest.mark.parametrize("seconds", [0, 0.0, -1, -0.001, float("-inf")])
    def test_one_in_the_past_has_passed_at_once(self, seconds: float) -> None:
        for ctx, cancel in (
            with_timeout(background(), seconds),
            with_deadline(background(), time.monotonic() + seconds),
            with_timeout(with_cancel(background())[0], seconds),
        ):
            assert_ended(DeadlineExceeded, ctx)
            cancel()
            assert_ended(DeadlineExceeded, ctx)

    def test_cancelling_first_wins(self) -> None:
        """Go: TestCanceledTimeout."""
        ctx, cancel = with_timeout(background(), FAR)
        cancel()
        assert_ended(Canceled, ctx)
        assert pending_timers() == 0

    def test_an_infinite_one_is_none(self) -> None:
        before = pending_timers()
        ctx, _ = with_timeout(background(), float("inf"))
        assert ctx.deadline is None
        assert_open(ctx)
        assert pending_timers() == before

    def test_it_must_be_a_number(self) -> None:
        for bad in ("1", None, []):
            with pytest.raises(TypeError):
                with_timeout(background(), bad)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                with_deadline(background(), bad)  # type: ignore[arg-type]
        for call in (with_timeout, with_deadline):
            with pytest.raises(ValueError, match="NaN"):
                call(background(), float("nan"))

    @testing.bubbled
    def test_the_cause_of_a_cancel_before_the_deadline_stays(self, workers: int) -> None:
        ctx, cancel = with_timeout(background(), 0.2)
        cancel("reason")
        pygo.sleep(0.3)
        assert_ended(Canceled, ctx)
        assert ctx.cause == "reason"

    def test_a_cancelled_parent_has_a_child_with_a_deadline_end(self) -> None:
        parent, cancel = with_cancel(background())
        cancel()
        child, _ = with_timeout(parent, FAR)
        assert_ended(Canceled, child)
        assert pending_timers() == 0

    def test_many_end_at_their_own_time(self, workers: int) -> None:
        rng = random.Random(workers)

        def body(seconds: float) -> bool:
            start = time.monotonic()
            ctx, _ = with_timeout(background(), seconds)
            ctx.done.recv_ok(timeout=HANG)
            return time.monotonic() >= start + seconds and ctx.err == DeadlineExceeded

        assert all(join_all([pygo.spawn(body, rng.random() * 0.05) for _ in range(1000)]))


class TestValue:
    def test_it_is_found_upwards_and_hidden_by_a_nearer_one(self) -> None:
        """Go: TestValues."""
        first = with_value(background(), "a", 1)
        second = with_value(with_cancel(first)[0], "b", 2)
        third = with_value(with_cancel(second)[0], "a", 3)
        assert (first.value("a"), first.value("b")) == (1, None)
        assert (second.value("a"), second.value("b")) == (1, 2)
        assert (third.value("a"), third.value("b"), third.value("c")) == (3, 2, None)

    def test_keys_are_compared_by_equality(self) -> None:
        class Key:
            pass

        mine, same = Key(), with_value(background(), (1, "x"), "tuple")
        ctx = with_value(with_value(same, mine, "mine"), [1], "list")
        assert ctx.value((1, "x")) == "tuple"
        assert ctx.value(mine) == "mine"
        assert ctx.value(Key()) is None
        assert ctx.value([1]) == "list"
        assert with_value(background(), float("nan"), 1).value(float("nan")) is None

    def test_a_none_key_is_refused_and_a_none_value_is_not(self) -> None:
        with pytest.raises(TypeError):
            with_value(background(), None, 1)
        ctx = with_value(with_value(background(), "k", 1), "k", None)
        assert ctx.value("k") is None

    def test_a_deep_chain_is_searched(self) -> None:
        ctx = with_value(background(), "bottom", 1)
        for number in range(20_000):
            ctx = with_value(ctx, number, number)
        assert (ctx.value("bottom"), ctx.value(0), ctx.value("missing")) == (1, 0, None)


class TestWithoutCancel:
    def test_it_keeps_the_values_and_nothing_else(self) -> None:
        """Go: TestWithoutCancel."""
        parent, cancel = with_timeout(with_value(background(), "k", "v"), FAR)
        ctx = without_cancel(parent)
        cancel()
        assert_open(ctx)
        assert (ctx.value("k"), ctx.deadline) == ("v", None)

    def test_a_context_below_it_ends_on_its_own(self) -> None:
        parent, cancel_parent = with_cancel(background())
        child, cancel_child = with_cancel(without_cancel(parent))
        cancel_parent()
        assert_open(child)
        cancel_child()
        assert_ended(Canceled, child)


class TestAfterFunc:
    def test_it_is_called_once_in_a_task_of_its_own(self, place: Any, workers: int) -> None:
        def body() -> None:
            called: pygo.Channel[Any] = pygo.Channel(2)
            ctx, cancel = with_cancel(background())
            stop = after_func(with_value(ctx, 1, 2), lambda: called.send(pygo.current_task()))
            assert called.try_recv() == (None, False)
            cancel()
            task = called.recv(timeout=HANG)
            assert isinstance(task, pygo.Task)
            assert task is not pygo.current_task()
            assert stop() is False
            cancel()
            assert called.try_recv() == (None, False)

        place(body)

    def test_the_context_has_ended_when_it_is_called(self, workers: int) -> None:
        for make in (lambda: with_cancel(background()), lambda: with_timeout(background(), 0.001)):
            ctx, cancel = make()
            seen: pygo.Channel[Any] = pygo.Channel(1)
            after_func(ctx, lambda ctx=ctx, seen=seen: seen.send((ctx.err is not None, ctx.done.closed)))  # type: ignore[misc]
            if ctx.deadline is None:
                cancel()
            assert seen.recv(timeout=HANG) == (True, True)

    def test_it_is_called_at_once_if_the_context_has_ended(self) -> None:
        ctx, cancel = with_cancel(background())
        cancel()
        called: pygo.Channel[None] = pygo.Channel(1)
        stop = after_func(ctx, lambda: called.send(None))
        called.recv(timeout=HANG)
        assert stop() is False

    def test_stopped_it_is_not_called(self, workers: int) -> None:
        """Go: TestAfterFuncNotCalledAfterStop."""
        ctx, cancel = with_cancel(background())
        called: list[int] = []
        stop, other = after_func(ctx, lambda: called.append(1)), after_func(ctx, lambda: called.append(2))
        assert [stop(), stop()] == [True, False]
        cancel()
        wait_until(lambda: called)
        assert called == [2]
        assert [stop(), other()] == [False, False]

    def test_stop_does_not_wait_for_it(self) -> None:
        gate: pygo.Channel[None] = pygo.Channel()
        ctx, cancel = with_cancel(background())
        stop = after_func(ctx, gate.recv_ok)
        cancel()
        wait_until(lambda: gate.waiting_receivers == 1)
        assert stop() is False
        gate.close()

    def test_on_a_context_that_never_ends_it_is_never_called(self) -> None:
        for ctx in (background(), without_cancel(with_timeout(background(), 0)[0])):
            stop = after_func(ctx, lambda: 1 / 0)
            assert [stop(), stop()] == [True, False]

    def test_several_are_all_called(self, workers: int) -> None:
        ctx, cancel = with_cancel(background())
        group = pygo.WaitGroup()
        group.add(100)
        for _ in range(100):
            after_func(ctx, group.done)
        cancel()
        group.wait(timeout=HANG)

    def test_it_runs_in_a_copy_of_the_callers_contextvars(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: pygo.Channel[str] = pygo.Channel(1)
        ctx, cancel = with_cancel(background())
        variable.set("asked")
        after_func(ctx, lambda: seen.send(variable.get()))
        variable.set("ended")
        cancel()
        assert seen.recv(timeout=HANG) == "asked"

    def test_it_must_be_callable(self) -> None:
        with pytest.raises(TypeError):
            after_func(background(), 3)  # type: ignore[arg-type]


class TestNothingIsKept:
    def test_a_cancelled_child_leaves_its_parent(self) -> None:
        """Go: TestRemoveChildren; here for 100,000 of them, and by weak references."""
        parent, _ = with_cancel(background())
        gone = []
        gc.disable()
        try:
            for _ in range(100_000):
                child, cancel = with_cancel(parent)
                gone.append(weakref.ref(child))
                cancel()
            del child, cancel
            assert not any(ref() for ref in gone)
        finally:
            gc.enable()

    def test_a_hundred_thousand_children_end_with_their_parent_and_are_gone(self) -> None:
        before = pending_timers()
        parent, cancel = with_cancel(background())
        children = [with_timeout(parent, FAR)[0] for _ in range(100_000)]
        gone = [weakref.ref(child) for child in children]
        assert pending_timers() == before + 100_000
        cancel()
        assert pending_timers() == before
        assert all(child.err is not None for child in children)
        children.clear()
        assert not any(ref() for ref in gone)

    def test_a_child_that_expired_leaves_its_parent(self, workers: int) -> None:
        parent, _ = with_cancel(background())
        child, _ = with_timeout(parent, 0.001)
        child.done.recv_ok(timeout=HANG)
        gone = weakref.ref(child)
        del child, _
        wait_until(lambda: gone() is None)

    def test_a_stopped_or_called_after_func_lets_its_function_go(self) -> None:
        class Graph:
            def method(self) -> None: ...

        ctx, cancel = with_cancel(background())
        for end in ("stop", "cancel"):
            graph = Graph()
            gone = weakref.ref(graph)
            stop = after_func(ctx, graph.method)
            del graph
            assert gone() is not None
            if end == "stop":
                assert stop()
            else:
                cancel()
            wait_until(lambda gone=gone: gone() is None)  # type: ignore[misc]

    def test_a_cancelled_context_with_a_deadline_is_freed(self) -> None:
        ctx, cancel = with_timeout(background(), FAR)
        cancel()
        gone = weakref.ref(ctx)
        gc.disable()
        try:
            del ctx, cancel
            assert gone() is None
        finally:
            gc.enable()

    def test_the_end_of_a_program_waits_for_no_deadline(self) -> None:
        finished = run_program(
            """
            from pygo import context
            ctx, cancel = context.with_timeout(context.background(), 1000)
            print(context.with_timeout(ctx, 0)[0].err)
            """
        ).ok()
        assert finished.out == "context deadline exceeded\n"


class TestRaces:
    def test_children_made_during_the_parents_cancel_do_not_miss_it(self, workers: int) -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for turn in range(30):
                parent, cancel = with_cancel(background())
                made: list[list[Context]] = [[] for _ in range(6)]

                def make(slot: int, parent: Context = parent, made: Any = made) -> None:
                    while parent.err is None:
                        made[slot].append(with_cancel(with_value(parent, 1, 2))[0])
                        made[slot].append(with_timeout(parent, FAR)[0])
                        if len(made[slot]) % 20 == 0:
                            pygo.yield_now()

                tasks = [pygo.spawn(make, slot) for slot in range(3)]

                def stop(turn: int = turn, made: Any = made, cancel: Any = cancel) -> None:
                    wait_until(lambda: sum(map(len, made)) > turn * 10)
                    cancel()

                in_threads([lambda slot=slot, make=make: make(slot) for slot in range(3, 6)] + [stop])  # type: ignore[misc]
                join_all(tasks)
                assert all(ctx.err is not None and ctx.done.closed for part in made for ctx in part)
        finally:
            sys.setswitchinterval(before)
        assert pending_timers() == 0

    def test_every_cancel_returns_only_when_all_below_have_ended(self, workers: int) -> None:
        """Also the one that comes second, while the first is still under way."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for _ in range(20):
                root, cancel_root = with_cancel(background())
                middle, cancel_middle = with_cancel(root)
                leaves = [with_cancel(with_cancel(middle)[0])[0] for _ in range(200)]

                def check(cancel: Any, leaves: Any = leaves) -> bool:
                    cancel()
                    return all(leaf.err is not None and leaf.done.closed for leaf in leaves)

                tasks = [pygo.spawn(check, cancel) for cancel in (cancel_root, cancel_middle, cancel_root)]
                assert (
                    in_threads([lambda c=c, check=check: check(c) for c in (cancel_root, cancel_middle)]) == [True] * 2
                )  # type: ignore[misc]
                assert join_all(tasks) == [True] * 3
        finally:
            sys.setswitchinterval(before)

    def test_a_done_channel_that_another_thread_is_making_is_closed_when_the_context_has_ended(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other thread stands where it has made the channel and not closed it yet."""
        ctx, cancel = with_cancel(background())
        cancel()
        close, seen = context._Cancellable._close_done, []  # type: ignore[attr-defined]

        def look_first(node: Any) -> None:
            monkeypatch.undo()
            seen.append(ctx.done.closed)
            close(node)

        monkeypatch.setattr(context._Cancellable, "_close_done", look_first)  # type: ignore[attr-defined]
        assert ctx.done.closed
        assert seen == [True]

    def test_one_outcome_wins_and_all_agree(self, workers: int) -> None:
        """Deadline, several causes, and done channels asked for meanwhile."""

        def look(ctx: Context) -> tuple[Any, ...]:
            done = ctx.done
            done.recv_ok(timeout=HANG)
            return id(done), id(ctx.err), id(ctx.cause)

        for _ in range(30):
            ctx, cancel = with_timeout(background(), 0.0005)
            child, _ = with_cancel(ctx)
            lookers = [pygo.spawn(look, ctx) for _ in range(5)]
            cancels = [pygo.spawn(cancel, ValueError(number)) for number in range(3)]
            threaded = in_threads([lambda ctx=ctx: look(ctx)] * 3)  # type: ignore[misc]
            assert len(set(threaded + join_all(lookers))) == 1
            join_all(cancels)
            assert child.err is ctx.err
            assert child.cause is ctx.cause

    def test_an_after_func_is_called_or_stopped_but_not_both(self, workers: int) -> None:
        for _ in range(100):
            called: list[int] = []
            ctx, cancel = with_cancel(background())
            stop = after_func(ctx, lambda called=called: called.append(1))  # type: ignore[misc]
            stops = [pygo.spawn(stop) for _ in range(3)]
            tasks = [pygo.spawn(cancel), pygo.spawn(cancel)]
            stopped = sum(join_all(stops))
            join_all(tasks)
            assert stopped in (0, 1)
            wait_until(lambda called=called, stopped=stopped: len(called) == 1 - stopped)  # type: ignore[misc]

    def test_random_trees_under_random_cancels_agree_with_their_ancestors(self, workers: int) -> None:
        """In the end a context has ended if and only if it, or one above it, was cancelled or timed out."""
        rng, before = random.Random(workers), pending_timers()
        nodes: list[tuple[Context, Any, int]] = [(*with_cancel(background()), -1)]
        for _ in range(400):
            above = rng.randrange(len(nodes))
            make = rng.choice([with_cancel, lambda ctx: with_timeout(ctx, FAR), lambda ctx: with_timeout(ctx, 0.001)])
            nodes.append((*make(nodes[above][0]), above))
        chosen = set(rng.sample(range(1, len(nodes)), 40))
        deadlines = {slot for slot, (ctx, _, _) in enumerate(nodes) if ctx.deadline and ctx.deadline < nodes_limit()}
        tasks = [pygo.spawn(nodes[slot][1]) for slot in chosen]
        in_threads([nodes[slot][1] for slot in rng.sample(sorted(chosen), 5)])
        join_all(tasks)
        expected = [False] * len(nodes)
        for slot, (ctx, _, above) in enumerate(nodes):
            expected[slot] = slot in chosen or slot in deadlines or (above >= 0 and expected[above])
            if expected[slot]:
                ctx.done.recv_ok(timeout=HANG)
        assert [ctx.err is not None for ctx, _, _ in nodes] == expected
        nodes[0][1]()
        assert all(ctx.err is not None for ctx, _, _ in nodes)
        assert pending_timers() == before


def nodes_limit() -> float:
    """Deadlines before this moment are near ones."""
    return time.monotonic() + FAR / 2


def test_all_names_are_public() -> None:
    assert all(hasattr(context, name) for name in context.__all__)
    assert pygo.context is context
