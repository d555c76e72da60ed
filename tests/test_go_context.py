"""Behaviours of the tests of Go's context that tests/test_context.py does not have. docs/testing.md has the table."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers import HANG, in_task, join_all, scaled, wait_until

import pygo
from pygo import Channel, recv, select, spawn, sync
from pygo.context import (
    Canceled,
    Context,
    DeadlineExceeded,
    after_func,
    background,
    with_cancel,
    with_timeout,
    with_value,
    without_cancel,
)
from pygo.testing import wait_until_blocked

FAR = 1000.0  # seconds; never reached


def test_simultaneous_cancels_of_a_whole_tree_all_return(workers: int, seed: int, switch_interval: float) -> None:
    """TestSimultaneousCancels: a hundred contexts, each cancelled by a task and awaited by another, in any order."""
    rng = random.Random(seed)
    tree = [with_cancel(background())]
    place = 0
    while len(tree) < 100:
        tree += [with_cancel(tree[place][0]) for _ in range(4)]
        place += 1
    waiters = [spawn(ctx.done.recv_ok, timeout=HANG) for ctx, _ in rng.sample(tree, len(tree))]
    cancels = [spawn(cancel) for _, cancel in rng.sample(tree, len(tree))]
    join_all(cancels)
    assert join_all(waiters) == [(None, False)] * len(tree)
    assert all(ctx.err == Canceled for ctx, _ in tree)


def test_parent_and_child_cancelled_at_once_do_not_hold_each_other_up(workers: int, switch_interval: float) -> None:
    """TestInterlockedCancels"""
    for _ in range(scaled(20, 1000)):
        parent, cancel_parent = with_cancel(background())
        child, cancel_child = with_cancel(parent)

        def other(parent: Context = parent, cancel_child: Any = cancel_child) -> None:
            assert parent.done is parent.done
            cancel_child()

        task = spawn(other)
        in_task(cancel_parent)
        assert child.done.recv_ok(timeout=HANG) == (None, False)
        task.join(timeout=HANG)


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_layers_of_all_kinds_end_together_and_keep_their_values(end: str, workers: int, seed: int) -> None:
    """TestLayersCancel, TestLayersTimeout: thirty layers and more, of values, cancels and deadlines as they come."""
    rng = random.Random(f"{seed} {end}")
    ctx, keys = background(), list[object]()
    cancels: list[tuple[Context, Any]] = []
    timers = 0
    while len(keys) + len(cancels) < 30 or not (timers and keys and cancels):
        kind = rng.randrange(3)
        if kind == 0:
            keys.append(object())
            ctx = with_value(ctx, keys[-1], len(keys))
        else:
            timers += kind == 2
            ctx, cancel = with_cancel(ctx) if kind == 1 else with_timeout(ctx, 0.02 if end == "timeout" else FAR)
            cancels.append((ctx, cancel))
    assert [ctx.value(key) for key in keys] == list(range(1, len(keys) + 1))
    if end == "timeout":
        assert ctx.done.recv_ok(timeout=HANG) == (None, False)
        assert ctx.err == DeadlineExceeded
    else:
        assert ctx.err is None
        chosen = rng.randrange(len(cancels))
        in_task(cancels[chosen][1])
        assert [above.err is not None for above, _ in cancels] == [place >= chosen for place in range(len(cancels))]
        assert ctx.done.closed
    assert [ctx.value(key) for key in keys] == list(range(1, len(keys) + 1))
    for _, cancel in cancels:
        cancel()
    assert pygo.runtime.stats().timers == 0


def test_values_of_all_layers_are_found_and_hidden_as_in_go() -> None:
    """TestValues: a key of another type is another key, and a later None hides an earlier value."""

    class Key:
        def __init__(self, number: int) -> None:
            self.number = number

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self) and vars(other) == vars(self)

        def __hash__(self) -> int:
            return self.number

    class OtherKey(Key):
        pass

    first, second, third = Key(1), OtherKey(1), OtherKey(3)

    def seen(ctx: Context) -> list[Any]:
        return [ctx.value(key) for key in (Key(1), OtherKey(1), OtherKey(3))]

    assert seen(background()) == [None, None, None]
    one = with_value(background(), first, "1")
    two = with_value(with_cancel(one)[0], second, "2")
    three = with_value(without_cancel(two), third, "3")
    hidden = with_value(three, first, None)
    assert [seen(ctx) for ctx in (one, two, three, hidden)] == [
        ["1", None, None],
        ["1", "2", None],
        ["1", "2", "3"],
        [None, "2", "3"],
    ]


def test_a_cause_is_there_as_soon_as_the_context_has_ended(workers: int, switch_interval: float) -> None:
    """TestCauseRace: who sees the end sees the cause, however early it looks."""
    for number in range(scaled(50, 1000)):
        ctx, cancel = with_cancel(background())
        cause = ValueError(number)
        task = spawn(cancel, cause)

        def look(ctx: Context = ctx) -> Any:
            while ctx.err is None:
                pygo.yield_now()
            return ctx.cause

        assert in_task(look) is cause
        task.join()


def test_a_cause_goes_down_to_where_another_came_first() -> None:
    """TestCause: of parent and child, each cancelled with a cause of its own in either order, and timeouts between."""
    mine, theirs = ValueError("child"), ValueError("parent")
    for child_first in (True, False):
        parent, cancel_parent = with_cancel(background())
        child, cancel_child = with_cancel(with_timeout(parent, FAR)[0])
        cancels = [(cancel_child, mine), (cancel_parent, theirs)]
        for cancel, cause in cancels if child_first else reversed(cancels):
            cancel(cause)
        assert (child.cause, parent.cause) == (mine if child_first else theirs, theirs)
        assert without_cancel(child).cause is None
    expired, cancel = with_timeout(background(), 0)
    cancel(mine)
    assert expired.cause is expired.err
    assert expired.err == DeadlineExceeded


def test_contexts_need_no_tasks() -> None:
    """TestCustomContextGoroutines: whatever is derived from whatever, alive or ended, nothing runs for it."""
    before = pygo.runtime.stats()
    root, cancel = with_cancel(background())
    contexts, cancels = [root], []
    for _ in range(3):
        for parent in contexts[:]:
            pairs = [with_cancel(parent), with_timeout(parent, FAR)]
            contexts += [with_value(parent, 1, 2), without_cancel(parent), *(ctx for ctx, _ in pairs)]
            cancels += [cancel_one for _, cancel_one in pairs]
    cancel()
    contexts += [with_cancel(root)[0], with_timeout(root, FAR)[0]]
    for cancel_one in cancels:
        cancel_one()
    assert len(contexts) > 100
    after = pygo.runtime.stats()
    assert (after.live, after.spawned) == (before.live, before.spawned)


class TestAfterFunc:
    @pytest.mark.parametrize("end", ["cancel", "timeout", "before"])
    def test_it_is_called_after_the_end(self, end: str, workers: int) -> None:
        """TestAfterFuncCalledAfterCancel, ...AfterTimeout, ...ImmediatelyWhenCanceled: once, and by no later cancel."""
        ctx, cancel = with_timeout(background(), 0.005) if end == "timeout" else with_cancel(background())
        called: Channel[bool] = Channel(2)
        if end == "before":
            cancel()
        stop = after_func(ctx, lambda: called.send(ctx.err is not None))
        if end == "cancel":
            assert len(called) == 0
            cancel()
        assert called.recv(timeout=HANG) is True
        cancel()
        assert not stop()
        assert len(called) == 0

    def test_stopped_it_is_not_called_and_the_others_are(self, workers: int) -> None:
        """TestAfterFuncNotCalledAfterStop; stop says true once."""
        ctx, cancel = with_cancel(background())
        called: list[int] = []
        stops = [after_func(ctx, lambda number=number: called.append(number)) for number in range(6)]  # type: ignore[misc]
        assert [stop() for stop in stops[::2]] == [True] * 3
        assert [stop() for stop in stops[::2]] == [False] * 3
        cancel()
        wait_until(lambda: len(called) == 3)
        assert sorted(called) == [1, 3, 5]

    def test_cancel_does_not_wait_for_it(self, workers: int) -> None:
        """TestAfterFuncCalledAsynchronously: functions that wait for each other hold neither cancel nor each other."""
        ctx, cancel = with_cancel(background())
        there, back = Channel[int](), Channel[int]()
        after_func(ctx, lambda: there.send(back.recv()))
        after_func(ctx, lambda: back.send(7))
        cancel()
        assert there.recv(timeout=HANG) == 7

    def test_it_ends_a_wait_for_a_condition(self, workers: int) -> None:
        """ExampleAfterFunc_cond: four waiters with contexts of their own; each end wakes exactly its waiter."""
        condition = sync.Condition()

        def wait(ctx: Context) -> str:
            def wake() -> None:
                with condition:
                    condition.notify_all()

            stop = after_func(ctx, wake)
            try:
                with condition:
                    while ctx.err is None:
                        condition.wait()
                return str(ctx.err)
            finally:
                stop()

        contexts = [with_cancel(background()) for _ in range(4)]
        tasks = [spawn(wait, ctx) for ctx, _ in contexts]
        wait_until_blocked(*tasks)
        for (_, cancel), task in zip(contexts, tasks, strict=True):
            cancel()
            assert task.join(timeout=HANG) == "context canceled"

    @pytest.mark.parametrize("first", [0, 1])
    def test_it_merges_contexts(self, first: int, workers: int) -> None:
        """ExampleAfterFunc_merge: a context that ends with either of two, with the cause of the first."""

        def merge(one: Context, other: Context) -> tuple[Context, Any]:
            merged, cancel = with_cancel(one)
            stop = after_func(other, lambda: cancel(other.cause))
            return merged, lambda: (stop(), cancel())

        pairs = [with_cancel(background()) for _ in range(2)]
        merged, cancel = merge(pairs[0][0], pairs[1][0])
        causes = [ValueError("one"), ValueError("other")]
        pairs[first][1](causes[first])
        assert select(recv(merged.done), timeout=HANG).ok is False
        assert merged.cause is causes[first]
        cancel()
        pairs[1 - first][1](causes[1 - first])
        assert merged.cause is causes[first]
