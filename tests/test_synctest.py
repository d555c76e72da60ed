"""Bubbles: virtual time, waiting until all others are blocked, deadlocks. Ported from Go's synctest, and pygo's own.

The table of Go's tests and their counterparts is in docs/testing.md.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, Interruption, in_task, in_thread, run_program, scaled, wait_until

import pygo
from pygo import context, sync, testing
from pygo.testing import bubble, bubbled, now, settle

HOUR = 3600.0


@pytest.fixture(autouse=True)
def no_real_time_passes(request: pytest.FixtureRequest) -> Iterator[None]:
    """A bubble never waits for its clock: hours pass in it, and a test that waited for one would not come to an end."""
    yield
    assert not testing._bubble()


def outside(fn: Callable[..., Any], /, *args: Any) -> pygo.Task[Any]:
    """Spawn a task that is in no bubble, also from inside of one."""
    return in_thread(lambda: pygo.spawn(fn, *args))  # type: ignore[no-any-return]


def channel_of(timer: pygo.Timer | pygo.Ticker) -> pygo.RecvChannel[float]:
    assert timer.channel is not None
    return timer.channel


# ---- the clock ----


class TestTheClock:
    def test_it_starts_at_zero_and_moves_when_all_sleep(self, workers: int) -> None:
        def main() -> list[float]:
            seen = [now()]
            pygo.spawn(lambda: seen.append(now()))
            pygo.sleep(1)
            seen.append(now())
            return seen

        assert bubble(main) == [0.0, 0.0, 1.0]

    def test_it_is_exact(self) -> None:
        def main() -> None:
            for tenth in range(1, 101):
                pygo.sleep(0.1)
                assert now() == tenth / 10

        bubble(main)

    def test_it_is_the_real_one_outside(self) -> None:
        before = time.monotonic()
        seen = now(), in_task(now), in_thread(now)
        assert before <= min(seen) <= max(seen) <= time.monotonic()

    def test_bubbles_side_by_side_have_their_own(self, workers: int) -> None:
        def main(period: float) -> float:
            for _ in range(20):
                pygo.sleep(period)
            return now()

        tasks = [pygo.spawn(bubble, main, period) for period in range(1, 9)]
        assert [task.join(HANG) for task in tasks] == [20.0 * period for period in range(1, 9)]

    def test_it_stands_still_while_a_task_computes(self, workers: int) -> None:
        def main() -> None:
            sleeper = pygo.spawn(pygo.sleep, HOUR)
            for _ in range(200):
                pygo.yield_now()
                sum(range(1000))
            assert now() == 0.0
            assert not sleeper.done()

        with pytest.raises(pygo.DeadlockError):
            bubble(main)  # the sleeper is left behind

    def test_it_stands_still_while_a_task_is_in_a_blocking_call(self, workers: int) -> None:
        def main() -> tuple[float, float]:
            pygo.spawn(pygo.sleep, 5).add_done_callback(lambda _: seen.append(now()))
            seen: list[float] = []
            time.sleep(0.02)
            standing = now()
            pygo.sleep(6)
            return standing, seen[0]

        assert bubble(main) == (0.0, 5.0)

    def test_it_stands_still_while_a_helper_thread_works(self, workers: int) -> None:
        def main() -> float:
            ticker = pygo.spawn(pygo.sleep, HOUR)
            assert pygo.to_thread(lambda: time.sleep(0.02) or 7) == 7
            before = now()
            ticker.join()
            return before

        assert bubble(main) == 0.0

    def test_each_way_to_wait_goes_by_it(self, workers: int) -> None:
        def main() -> None:
            lapse = iter(range(1, 100))
            ch = pygo.Channel[int]()
            event, condition, semaphore, lock = sync.Event(), sync.Condition(), sync.Semaphore(0), sync.Lock()
            barrier, queue, future = sync.Barrier(2), sync.Queue[int](), pygo.Future[int]()
            group = pygo.WaitGroup()
            group.add()
            lock.acquire()
            never = pygo.spawn(ch.recv)

            def times_out(wait: Callable[[float], object], error: type[BaseException] | None = TimeoutError) -> None:
                start, seconds = now(), float(next(lapse))
                if error is None:
                    assert not wait(seconds)
                else:
                    with pytest.raises(error):
                        wait(seconds)
                assert now() == start + seconds

            other = pygo.Channel[int]()
            times_out(other.recv)
            times_out(lambda s: other.recv_ok(timeout=s))
            times_out(lambda s: other.send(1, timeout=s))
            times_out(lambda s: pygo.select(pygo.recv(other), pygo.send(other, 1), timeout=s))
            times_out(lambda s: pygo.select(timeout=s))
            times_out(group.wait)
            times_out(never.join)
            times_out(never.exception)
            times_out(future.result)
            times_out(lambda s: list(pygo.as_completed([never, future], timeout=s)))
            times_out(lambda s: pygo.wait([never], timeout=s).done, None)
            times_out(event.wait, None)
            times_out(lambda s: semaphore.acquire(timeout=s), None)
            times_out(lambda s: sync.WeightedSemaphore(1).acquire(1) and semaphore.acquire(timeout=s), None)
            times_out(lambda s: lock.acquire(timeout=s), None)
            times_out(lambda s: queue.get(timeout=s), sync.Empty)
            times_out(barrier.wait, threading.BrokenBarrierError)
            with condition:
                times_out(condition.wait, None)
                times_out(lambda s: condition.wait_for(lambda: False, s), None)

            def scope(seconds: float) -> None:
                with pygo.timeout(seconds) as deadline:
                    assert deadline.deadline == now() + seconds
                    ch.recv()

            times_out(scope)
            assert pygo.after(float(next(lapse))).recv() == now()
            group.done()
            never.cancel()

        before = time.monotonic()
        bubble(main)
        assert time.monotonic() - before < HANG

    def test_a_timeout_can_be_moved(self) -> None:
        def main() -> float:
            with pytest.raises(TimeoutError), pygo.timeout(5) as deadline:
                pygo.sleep(4)
                deadline.reschedule(10)
                pygo.select()
            return now()

        assert bubble(main) == 14.0

    def test_a_timeout_is_not_moved_from_outside(self) -> None:
        def main() -> None:
            with pygo.timeout(5) as deadline, pytest.raises(RuntimeError, match="same bubble"):
                outside(deadline.reschedule, 1).join()

        bubble(main)

    def test_who_sleeps_for_ever_does_not_move_it(self, workers: int) -> None:
        def main() -> None:
            for _ in range(2):
                pygo.spawn(pygo.sleep, float("inf"))
            pygo.Timer(float("inf"))
            pygo.select()

        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked"):
            bubble(main)

    def test_who_is_woken_in_time_leaves_no_timer(self, workers: int) -> None:
        def main() -> float:
            ch = pygo.Channel[int]()
            for _ in range(100):
                pygo.spawn(ch.send, 1)
                ch.recv(timeout=HOUR)
            pygo.sleep(1)
            return now()

        assert bubble(main) == 1.0


# ---- Go: time ----


class TestTimers:
    def test_a_timer_read_before_its_time_comes_at_its_time(self) -> None:
        def main() -> None:
            assert channel_of(pygo.Timer(5)).recv() == 5.0
            assert now() == 5.0

        bubble(main)

    def test_a_timer_read_after_its_time_tells_when_it_was(self) -> None:
        def main() -> None:
            timer = pygo.Timer(1)
            pygo.sleep(2)
            assert channel_of(timer).try_recv() == (1.0, True)
            assert now() == 2.0

        bubble(main)

    def test_a_timer_can_be_started_again(self) -> None:
        def main() -> None:
            timer = pygo.Timer(1)
            assert channel_of(timer).recv() == 1.0
            assert timer.reset(2) is False
            assert channel_of(timer).recv() == 3.0
            timer.reset(3)
            pygo.sleep(1)
            assert timer.reset(3) is True
            assert channel_of(timer).recv() == 7.0

        bubble(main)

    def test_a_stopped_timer_does_not_hold_up_or_move_anything(self) -> None:
        def main() -> float:
            timer, far = pygo.Timer(5), pygo.Timer(HOUR, pygo.all_tasks)
            assert timer.stop() is True and far.stop() is True
            pygo.sleep(1)
            assert len(channel_of(timer)) == 0
            return now()

        assert bubble(main) == 1.0

    def test_functions_of_timers_and_their_tasks_are_in_the_bubble(self, workers: int) -> None:
        def main() -> list[float]:
            seen = []

            def second() -> None:
                pygo.sleep(1)
                seen.append(now())

            def first() -> None:
                seen.append(now())
                pygo.spawn(second)

            pygo.Timer(1, first)
            pygo.sleep(3)
            settle()
            return seen

        assert bubble(main) == [1.0, 2.0]

    def test_a_timer_pending_at_the_end_never_fires(self) -> None:
        calls: list[int] = []
        alive = weakref.ref(bubble(lambda: pygo.Timer(1, lambda: calls.append(1))))
        gc.collect()
        assert alive() is None
        assert calls == []

    def test_a_timer_from_outside_is_waited_for_in_real_time(self, workers: int) -> None:
        timer = pygo.Timer(0.01)
        bubble(lambda: channel_of(timer).recv())
        assert timer.stop() is False

    def test_a_timer_without_delay_has_fired_at_once(self) -> None:
        def main() -> None:
            pygo.sleep(3)
            assert channel_of(pygo.Timer(0)).try_recv() == (3.0, True)
            assert pygo.after(0).try_recv() == (3.0, True)
            timer = pygo.Timer(9)
            timer.reset(0)
            assert channel_of(timer).try_recv() == (3.0, True)

        bubble(main)

    def test_a_function_without_delay_runs_although_others_do(self, workers: int) -> None:
        def main() -> float:
            called: list[int] = []
            pygo.Timer(0, lambda: called.append(1))
            while not called:
                pygo.yield_now()
            return now()

        assert bubble(main) == 0.0

    def test_timers_of_the_same_moment_fire_in_an_order_that_the_seed_draws(self) -> None:
        def main() -> int:
            return pygo.select(pygo.recv(pygo.after(1)), pygo.recv(pygo.after(1))).index

        orders = set()
        for seed in range(20):
            with testing.seeded(seed):
                orders.add(bubble(main))
        assert orders == {0, 1}

    def test_sleepers_until_the_same_moment_go_on_in_an_order_that_the_seed_draws(self) -> None:
        def main() -> str:
            order: list[str] = []

            def sleeper(name: str) -> None:
                pygo.sleep(1)
                order.append(name)

            for name in "abc":
                pygo.spawn(sleeper, name)
            settle(1)
            return "".join(order)

        def under(seed: int) -> str:
            with testing.seeded(seed):
                return bubble(main)

        orders = [under(seed) for seed in range(40)]
        assert len(set(orders)) >= 4
        assert [under(seed) for seed in range(40)] == orders

    def test_a_ticker_keeps_its_rhythm(self, workers: int) -> None:
        def main() -> None:
            ticker = pygo.Ticker(2)
            assert [channel_of(ticker).recv() for _ in range(3)] == [2.0, 4.0, 6.0]
            pygo.sleep(7)  # until 13: the ticks of 10 and 12 find that of 8 unread
            assert channel_of(ticker).recv() == 8.0
            assert channel_of(ticker).recv() == 14.0
            ticker.reset(5)
            assert channel_of(ticker).recv() == 19.0
            ticker.stop()

        bubble(main)

    def test_ticks_that_nobody_reads_do_not_move_the_clock(self, workers: int) -> None:
        def main() -> None:
            ticker = pygo.Ticker(1)
            pygo.select()
            ticker.stop()

        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked"):
            bubble(main)

    def test_ticks_that_nobody_reads_hold_nobody_up(self) -> None:
        def main() -> tuple[float, float]:
            ticker = pygo.Ticker(0.5)
            pygo.sleep(500)
            return now(), channel_of(ticker).recv()

        assert bubble(main) == (500.0, 0.5)

    def test_many_timers_fire_in_the_order_of_their_times(self, workers: int) -> None:
        count = scaled(2000, 100_000)

        def main() -> list[float]:
            seen: list[float] = []

            def sleeper(seconds: float) -> None:
                pygo.sleep(seconds)
                assert now() == seconds
                seen.append(seconds)

            group = pygo.WaitGroup()
            for place in range(count):
                group.go(sleeper, float(1 + place * 7919 % count))
            group.wait()
            return seen

        seen = bubble(main)
        assert seen == sorted(seen)
        assert len(seen) == count


# ---- Go: waiting for the others ----


class TestSettle:
    def test_nobody_else_is_there(self, workers: int) -> None:
        bubble(settle)

    def test_the_others_have_ended(self, workers: int) -> None:
        def main() -> list[int]:
            seen: list[int] = []
            for number in range(10):
                pygo.spawn(seen.append, number)
            settle()
            return seen

        assert sorted(bubble(main)) == list(range(10))

    def test_a_chain_of_tasks_has_ended(self, workers: int) -> None:
        def main() -> bool:
            ch, done = pygo.Channel[int](), []

            def link() -> None:
                count = ch.recv()
                if count == 0:
                    done.append(True)
                else:
                    pygo.spawn(link)
                    ch.send(count - 1)

            pygo.spawn(link)
            ch.send(100)
            settle()
            return done == [True]

        assert bubble(main)

    def test_many_bubbles_one_after_the_other(self, workers: int) -> None:
        def main() -> int:
            ch = pygo.Channel[bytes]()
            pygo.spawn(lambda: ch.send(bytes(10)))
            settle()
            assert ch.waiting_senders == 1
            return len(ch.recv())

        for _ in range(scaled(50, 1000)):
            assert bubble(main) == 10

    def test_the_clock_stands_still_meanwhile(self, workers: int) -> None:
        def main() -> None:
            sleeper = pygo.spawn(pygo.sleep, 5)
            settle()
            assert now() == 0.0
            assert sleeper.state == "waiting"
            sleeper.join()

        bubble(main)

    def test_time_can_pass_first(self, workers: int) -> None:
        def main() -> list[float]:
            seen: list[float] = []

            def sleeper() -> None:
                pygo.sleep(5)
                for _ in range(20):
                    pygo.yield_now()
                seen.append(now())

            pygo.spawn(sleeper)
            settle(5)
            return seen

        assert bubble(main) == [5.0]

    def test_who_waits_for_something_outside_is_waited_for(self, workers: int) -> None:
        gate = pygo.Channel[int]()

        def main() -> int:
            seen: list[int] = []
            pygo.spawn(lambda: seen.append(gate.recv()))
            outside(lambda: (time.sleep(0.01), gate.send(7)))
            settle()
            return seen[0]

        assert bubble(main) == 7

    def test_who_is_in_a_blocking_call_is_waited_for(self, workers: int) -> None:
        def main() -> bool:
            task = pygo.spawn(time.sleep, 0.01)
            settle()
            return task.done()

        assert bubble(main)

    def test_two_at_a_time_are_refused(self, workers: int) -> None:
        def main() -> None:
            first = pygo.spawn(settle)
            testing.wait_until_blocked(first)
            with pytest.raises(RuntimeError, match="another task"):
                settle()
            first.join()
            settle()

        bubble(main)

    def test_it_is_refused_outside_of_a_bubble(self) -> None:
        for place in (lambda fn: fn(), in_task, in_thread):
            with pytest.raises(RuntimeError, match="outside of a bubble"):
                place(settle)

    @pytest.mark.parametrize("bad", [-1, float("nan")])
    def test_a_negative_time_is_refused(self, bad: float) -> None:
        def main() -> None:
            with pytest.raises(ValueError, match="non-negative"):
                settle(bad)

        bubble(main)

    def test_it_can_be_cancelled_and_called_again(self, workers: int) -> None:
        def main() -> None:
            waiter = pygo.spawn(settle)
            testing.wait_until_blocked(waiter)
            waiter.cancel()
            with pytest.raises(pygo.TaskCancelled):
                waiter.join()
            settle()

        bubble(main)

    def test_what_others_did_before_is_seen_after(self, workers: int) -> None:
        steps = [0, 0]

        def step(place: int, then: Callable[[], object] = lambda: None) -> None:
            steps[place] += 1
            then()

        def main() -> None:
            for place in range(2):
                pygo.spawn(step, place)
            settle()
            assert steps == [1, 1]
            gate = pygo.Channel[None]()
            for place in range(2):
                pygo.spawn(step, place, gate.recv_ok)
            settle()
            assert steps == [2, 2]
            gate.close()
            for place in range(2):
                pygo.Timer(0, lambda place=place: step(place))  # type: ignore[misc]
            settle()
            assert steps == [3, 3]
            gate = pygo.Channel[None]()
            for place in range(2):
                pygo.Timer(0, lambda place=place, gate=gate: step(place, gate.recv_ok))  # type: ignore[misc]
            settle()
            assert steps == [4, 4]
            gate.close()

        bubble(main)
        assert steps == [4, 4]
        bubble(lambda: [pygo.spawn(pygo.spawn, step, place) for place in range(2)])
        assert steps == [5, 5]


# ---- Go: inside and outside ----


class TestFromOutside:
    @pytest.mark.parametrize(
        ("act", "wait"),
        [
            (lambda ch: ch.close(), lambda ch: ch.recv_ok()),
            (lambda ch: ch.send(0), lambda ch: ch.recv()),
            (lambda ch: ch.recv(), lambda ch: ch.send(0)),
            (lambda ch: ch.close(), lambda ch: pygo.select(pygo.recv(ch), pygo.recv(never))),
            (lambda ch: ch.close(), lambda ch: pygo.select(pygo.recv(ch), pygo.recv(pygo.Channel[int]()))),
        ],
        ids=["close", "send", "receive", "select-outside", "select-mixed"],
    )
    def test_a_channel_from_outside_is_waited_for(
        self, workers: int, act: Callable[[Any], object], wait: Callable[[Any], object]
    ) -> None:
        ch = pygo.Channel[int]()
        task = pygo.spawn(lambda: (time.sleep(0.002), act(ch)))
        bubble(wait, ch)
        task.join()

    def test_a_wait_for_outside_stops_the_clock_also_with_a_timeout(self, workers: int) -> None:
        gate = pygo.Channel[int]()

        def main() -> float:
            sleeper = pygo.spawn(pygo.sleep, HOUR)
            assert gate.recv(timeout=5) == 1
            before = now()
            sleeper.join()
            return before

        task = pygo.spawn(lambda: (time.sleep(0.01), gate.send(1)))
        assert bubble(main) == 0.0
        task.join()

    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda ch: ch.recv(), "receive from a channel"),
            (lambda ch: ch.recv_ok(), "receive from a channel"),
            (lambda ch: ch.try_recv(), "receive from a channel"),
            (lambda ch: list(ch), "receive from a channel"),
            (lambda ch: ch.send(None), "send to a channel"),
            (lambda ch: ch.try_send(None), "send to a channel"),
            (lambda ch: ch.close(), "close of a channel"),
            (lambda ch: pygo.select(pygo.recv(ch), default=True), "select on a channel"),
        ],
    )
    @pytest.mark.parametrize("where", ["main thread", "task", "another bubble"])
    def test_a_channel_of_a_bubble_is_refused(self, act: Callable[[Any], object], message: str, where: str) -> None:
        place: Callable[..., Any] = {
            "main thread": lambda fn, *args: fn(*args),
            "task": in_task,
            "another bubble": bubble,
        }[where]
        ch = bubble(lambda: pygo.Channel[None](1))
        for one in (ch, ch.sender, ch.receiver):
            try:
                act(one)
            except (AttributeError, TypeError):
                continue  # a view without that direction
            except RuntimeError:
                pass
            with pytest.raises(RuntimeError, match=f"{message} that belongs to a bubble, from outside"):
                place(act, one)
        assert len(ch) == 0 and ch.capacity == 1 and not ch.closed

    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda timer: timer.channel.recv(), "receive from a channel"),
            (lambda timer: timer.reset(1), "reset of a timer"),
            (lambda timer: timer.stop(), "stop of a timer"),
        ],
        ids=["receive", "reset", "stop"],
    )
    def test_a_timer_of_a_bubble_is_refused(self, act: Callable[[Any], object], message: str) -> None:
        def main() -> None:
            for timer in (pygo.Timer(1), pygo.Ticker(1)):
                with pytest.raises(RuntimeError, match=f"{message} that belongs to a bubble"):
                    outside(act, timer).join()
                timer.stop()

        bubble(main)

    @pytest.mark.parametrize(
        "act",
        [
            lambda: bubble(sync.Event).set(),
            lambda: bubble(sync.Semaphore, 0).release(),
            lambda: bubble(sync.Semaphore).acquire(),
            lambda: bubble(sync.WeightedSemaphore, 1).try_acquire(),
            lambda: bubble(taken_lock).acquire(),
            lambda: bubble(taken_rlock).acquire(timeout=1),
        ],
        ids=["set", "release", "acquire", "try_acquire", "lock", "rlock"],
    )
    def test_what_else_belongs_to_a_bubble_is_refused(self, act: Callable[[], object]) -> None:
        with pytest.raises(RuntimeError, match="belongs to a bubble, from outside of it"):
            act()

    def test_a_future_of_a_bubble_is_not_set_from_outside(self) -> None:
        def main() -> int:
            future = pygo.Future[int]()
            with pytest.raises(RuntimeError, match="from outside of it"):
                in_thread(future.set_result, 1)
            assert not future.done()
            future.set_result(2)
            return future.result()

        assert bubble(main) == 2

    def test_a_notification_from_outside_is_refused(self, workers: int) -> None:
        def main() -> None:
            condition, woken = sync.Condition(), []

            def waiter() -> None:
                with condition:
                    woken.append(condition.wait(timeout=5))

            task = pygo.spawn(waiter)
            settle()

            def notify() -> None:
                with condition:
                    condition.notify()

            with pytest.raises(RuntimeError, match=r"set\(\) of an event"):
                outside(notify).join()
            task.join()

        bubble(main)

    def test_what_came_from_outside_is_not_durable(self, workers: int) -> None:
        """Each wait here ends from outside, so the bubble must not take itself for deadlocked, nor jump to the hour."""
        lock, event, semaphore, queue = sync.Lock(), sync.Event(), sync.Semaphore(0), sync.Queue[int]()
        condition, group, future, barrier = sync.Condition(), pygo.WaitGroup(), pygo.Future[int](), sync.Barrier(2)
        gate, ctx_cancel = pygo.Channel[int](), context.with_cancel(context.background())
        ctx, cancel = ctx_cancel
        task = pygo.spawn(gate.recv)
        lock.acquire()
        group.add()
        rw = sync.RWLock()
        rw.write.acquire()

        def in_condition() -> None:
            with condition:
                condition.wait()

        def notify() -> None:
            with condition:
                condition.notify_all()

        waits: list[tuple[Callable[[], object], Callable[[], object]]] = [
            (lock.acquire, lock.release),
            (event.wait, event.set),
            (semaphore.acquire, semaphore.release),
            (queue.get, lambda: queue.put(1)),
            (in_condition, notify),
            (rw.read.acquire, rw.write.release),
            (rw.write.acquire, rw.read.release),
            (group.wait, group.done),
            (future.result, lambda: future.set_result(1)),
            (lambda: barrier.wait(), lambda: barrier.wait()),
            (task.join, lambda: gate.send(1)),
            (lambda: pygo.wait([task, pygo.spawn(pygo.sleep, 0)]), lambda: None),
            (ctx.done.recv_ok, cancel),
            (context.with_cancel(ctx)[0].done.recv_ok, lambda: None),
        ]

        def main() -> None:
            for wait, act in waits:
                sleeper = pygo.spawn(pygo.sleep, HOUR)
                other = outside(lambda act=act: (time.sleep(0.002), act()))
                start = now()
                wait()
                assert now() == start
                other.join()
                sleeper.join()

        bubble(main)

    def test_a_context_of_outside_ends_its_children_in_a_bubble(self, workers: int) -> None:
        ctx, cancel = context.with_cancel(context.background())

        def main() -> None:
            child, _ = context.with_timeout(ctx, HOUR)
            other = outside(lambda: (time.sleep(0.002), cancel()))
            assert child.done.recv_ok() == (None, False)
            assert child.err == context.Canceled
            assert now() == 0.0
            other.join()

        bubble(main)

    def test_a_context_of_a_bubble_is_not_ended_from_outside(self) -> None:
        def main() -> None:
            ctx, cancel = context.with_cancel(context.background())
            child, _ = context.with_cancel(ctx)
            with pytest.raises(RuntimeError, match="ended from outside"):
                in_thread(cancel)
            assert ctx.err is None and child.err is None and not child.done.closed
            cancel()
            assert child.err == context.Canceled

        bubble(main)

    def test_a_task_of_a_bubble_can_be_joined_and_cancelled_from_outside(self, workers: int) -> None:
        def main() -> None:
            task = pygo.spawn(pygo.sleep, HOUR)
            busy = pygo.spawn(lambda: time.sleep(0.01))
            other = outside(lambda: (task.cancel(), task.exception))
            busy.join()
            other.join()
            with pytest.raises(pygo.TaskCancelled):
                outside(task.join).join()
            assert now() == 0.0

        bubble(main)

    def test_modules_are_imported_with_others(self, tmp_path: Path, workers: int) -> None:
        (tmp_path / "slow_bubbled.py").write_text("import time\ntime.sleep(0.02)\nvalue = 1\n")
        sys.path.insert(0, str(tmp_path))
        try:

            def load() -> int:
                import slow_bubbled  # type: ignore[import-not-found]

                return int(slow_bubbled.value)

            others = [pygo.spawn(load), pygo.spawn(bubble, load)]
            assert bubble(lambda: [task.join() for task in [pygo.spawn(load) for _ in range(3)]]) == [1, 1, 1]
            assert [task.join() for task in others] == [1, 1]
        finally:
            sys.path.remove(str(tmp_path))
            sys.modules.pop("slow_bubbled", None)


never = pygo.Channel[int]()


def taken_lock() -> sync.Lock:
    lock = sync.Lock()
    lock.acquire()
    return lock


def taken_rlock() -> sync.RLock:
    lock = sync.RLock()
    lock.acquire()
    return lock


class TestWaitGroups:
    def test_a_group_of_the_bubble_is_waited_for_in_its_time(self, workers: int) -> None:
        def main() -> float:
            group = pygo.WaitGroup()
            group.add()
            pygo.spawn(lambda: (pygo.sleep(1), group.done()))
            group.wait()
            return now()

        assert bubble(main) == 1.0

    def test_a_group_from_outside_is_waited_for_in_real_time(self, workers: int) -> None:
        group = pygo.WaitGroup()
        group.add()
        running = pygo.spawn(bubble, group.wait)
        with pytest.raises(TimeoutError):
            running.join(timeout=0.002)
        group.done()
        running.join(HANG)

    def test_a_group_in_use_is_not_moved_into_a_bubble(self) -> None:
        group = pygo.WaitGroup()
        group.add()
        for act in (group.add, lambda: group.go(settle)):
            with pytest.raises(RuntimeError, match="inside and outside of a bubble"):
                bubble(act)
        group.done()
        group.wait()

    def test_a_group_in_use_is_not_moved_out_of_its_bubble(self) -> None:
        group = pygo.WaitGroup()
        bubble(group.add)
        with pytest.raises(RuntimeError, match="inside and outside of a bubble"):
            group.add()
        with pytest.raises(RuntimeError, match=r"done.. of a WaitGroup that belongs to a bubble"):
            group.done()

    def test_a_group_in_use_is_not_moved_to_another_bubble(self) -> None:
        group = pygo.WaitGroup()
        bubble(group.add)
        with pytest.raises(RuntimeError, match="inside and outside of a bubble"):
            bubble(group.add)

    def test_a_group_at_zero_may_be_used_elsewhere(self) -> None:
        group = pygo.WaitGroup()

        def main() -> float:
            group.add()
            group.done()
            group.go(pygo.sleep, 1)
            group.wait()
            return now()

        assert [bubble(main), bubble(main)] == [1.0, 1.0]
        group.go(settle.__doc__.strip if settle.__doc__ else list)
        group.wait(HANG)


class TestOtherObjects:
    def test_a_condition_of_the_bubble(self, workers: int) -> None:
        def main() -> None:
            condition, times = sync.Condition(sync.Lock()), []

            def waker() -> None:
                pygo.sleep(0.001)
                with condition:
                    condition.notify()
                pygo.sleep(0.001)
                with condition:
                    condition.notify_all()

            def waiter() -> None:
                with condition:
                    condition.wait()
                times.append(now())

            pygo.spawn(waker)
            waiter()
            pygo.spawn(waiter)
            waiter()
            settle()
            assert times == [0.001, 0.002, 0.002]

        bubble(main)

    def test_who_waits_for_a_lock_of_the_bubble_is_blocked_durably(self, workers: int) -> None:
        """Unlike Go, where mutexes know no bubble: whoever holds one while he sleeps lets the clock move."""

        def main() -> list[float]:
            lock, times = sync.Lock(), []

            def holder() -> None:
                with lock:
                    pygo.sleep(1)
                    times.append(now())

            with pygo.TaskGroup() as tg:
                for _ in range(3):
                    tg.spawn(holder)
            return times

        assert bubble(main) == [1.0, 2.0, 3.0]

    def test_generators_wait_in_the_time_of_their_caller(self, workers: int) -> None:
        def ticks() -> Iterator[float]:
            while True:
                yield now()
                pygo.sleep(1)

        def main() -> list[float]:
            seen: list[float] = []

            def reader() -> None:
                for tick in ticks():
                    seen.append(tick)
                    if len(seen) == 3:
                        return

            pygo.spawn(reader)
            settle(5)
            return seen

        assert bubble(main) == [0.0, 1.0, 2.0]

    def test_queues_barriers_and_semaphores(self, workers: int) -> None:
        def main() -> float:
            queue, barrier, semaphore = sync.Queue[int](1), sync.Barrier(3), sync.Semaphore(0)

            def producer() -> None:
                for number in range(10):
                    pygo.sleep(1)
                    queue.put(number)
                barrier.wait()
                semaphore.release()

            for _ in range(2):
                pygo.spawn(producer)
            assert sorted(queue.get() for _ in range(20)) == sorted([*range(10)] * 2)
            barrier.wait()
            semaphore.acquire()
            semaphore.acquire()
            return now()

        assert bubble(main) == 10.0

    def test_futures_groups_and_waits(self, workers: int) -> None:
        def main() -> float:
            future = pygo.Future[int]()
            pygo.Timer(2, lambda: future.set_result(1))
            with pygo.TaskGroup(limit=2) as tg:
                tasks = [tg.spawn(pygo.sleep, seconds) for seconds in (1, 3)]
                assert list(pygo.as_completed([*tasks, future])) == [tasks[0], future, tasks[1]]
                assert now() == 3.0
                tasks += [tg.spawn(pygo.sleep, seconds) for seconds in (3, 1, 2)]  # the third waits for a place
                assert pygo.wait(tasks[2:], timeout=1.5).done == {tasks[3]}
                assert pygo.wait(tasks[2:], return_when=pygo.FIRST_COMPLETED).done == {tasks[3]}
            assert future.result() == 1
            return now()

        assert bubble(main) == 6.0

    def test_contexts(self, workers: int) -> None:
        def main() -> None:
            ctx, cancel = context.with_timeout(context.background(), 5)
            called: list[float] = []
            context.after_func(ctx, lambda: called.append(now()))
            child, _ = context.with_deadline(ctx, now() + 60)
            assert child.deadline == ctx.deadline == 5.0
            assert "5.000 s left" in repr(ctx)
            settle(5 - 1e-9)
            assert ctx.err is None and called == []
            settle(1e-9)
            assert ctx.err == context.DeadlineExceeded and called == [5.0]
            assert child.done.recv_ok() == (None, False)
            cancel()
            gone, _ = context.with_deadline(context.background(), now())
            assert gone.err == context.DeadlineExceeded

        bubble(main)

    def test_weak_references_and_collections(self) -> None:
        def main() -> None:
            for _ in range(5):
                gc.collect()
                ch = pygo.Channel[int](1)
                gone = weakref.ref(ch)
                del ch
                assert gone() is None

        bubble(main)


class TestCancellation:
    def test_a_cancelled_sleeper_leaves_no_timer(self, workers: int) -> None:
        def main() -> float:
            sleepers = [pygo.spawn(pygo.sleep, HOUR) for _ in range(10)]
            settle()
            for sleeper in sleepers:
                sleeper.cancel()
            settle()
            assert all(sleeper.cancelled() for sleeper in sleepers)
            pygo.sleep(1)
            return now()

        assert bubble(main) == 1.0

    def test_a_failure_cancels_a_group_at_its_time(self, workers: int) -> None:
        ended: list[float] = []

        def sleeper() -> None:
            try:
                pygo.sleep(HOUR)
            finally:
                ended.append(now())

        def fails() -> None:
            pygo.sleep(3)
            raise KeyError("it")

        def main() -> float:
            with pytest.raises(ExceptionGroup), pygo.TaskGroup() as tg:
                for _ in range(5):
                    tg.spawn(sleeper)
                tg.spawn(fails)
            return now()

        assert bubble(main) == 3.0
        assert ended == [3.0] * 5

    def test_a_shield_holds_while_time_passes(self, workers: int) -> None:
        def main() -> list[float]:
            times: list[float] = []
            with pytest.raises(TimeoutError), pygo.timeout(2):
                try:
                    pygo.sleep(10)
                finally:
                    times.append(now())
                    with pygo.shield():
                        pygo.sleep(3)
                        with pytest.raises(TimeoutError), pygo.timeout(4):
                            pygo.sleep(10)
                    times.append(now())
            return times

        assert bubble(main) == [2.0, 9.0]

    def test_a_task_that_never_began_counts_as_ended(self, workers: int) -> None:
        def main() -> None:
            task = pygo.spawn(pygo.sleep, HOUR)
            task.cancel()
            settle()
            assert task.cancelled() or now() == 0.0
            with pytest.raises(pygo.TaskCancelled):
                task.join()

        bubble(main)

    def test_the_root_can_be_cancelled(self, workers: int) -> None:
        def main() -> None:
            me = pygo.current_task()
            assert me is not None
            pygo.Timer(5, me.cancel)
            pygo.sleep(HOUR)

        with pytest.raises(pygo.TaskCancelled):
            bubble(main)

    def test_a_task_can_end_the_program(self) -> None:
        program = """
            import sys, pygo
            from pygo.testing import bubble
            def main():
                pygo.spawn(lambda: (pygo.sleep(5), sys.exit(7)))
                pygo.sleep(3600)
            bubble(main)
        """
        assert run_program(program).code == 7


# ---- deadlocks ----


class TestDeadlock:
    def test_tasks_of_bubbles_and_who_waits_for_them_are_not_leaked(self, workers: int) -> None:
        ch, gate = pygo.Channel[int](), pygo.Channel[int]()

        def main() -> None:
            timer = pygo.Timer(5)
            pygo.spawn(channel_of(timer).recv)
            outside(lambda: None).join()
            settle()
            assert gate.recv() == 1
            ch.send(1)
            pygo.sleep(5)

        task = pygo.spawn(bubble, main)
        waiter = pygo.spawn(ch.recv)
        testing.wait_until_blocked(gate, receivers=1)
        assert pygo.runtime.leaked_tasks() == []
        gate.send(1)
        assert waiter.join() == 1
        task.join()

    def test_the_root_is_blocked(self, workers: int) -> None:
        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked") as caught:
            bubble(pygo.select)
        assert "waiting in select" in str(caught.value)

    def test_all_are_blocked(self, workers: int) -> None:
        def blocked_here(ch: pygo.Channel[int]) -> None:
            ch.recv()

        def main() -> None:
            with pygo.TaskGroup() as tg:
                for _ in range(3):
                    tg.spawn(blocked_here, pygo.Channel[int]())

        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked") as caught:
            bubble(main)
        text = str(caught.value)
        assert text.count("in channel receive on") == 3
        assert text.count(", in blocked_here") == 3
        assert "in wait group on" in text

    def test_a_child_is_left_when_the_root_has_ended(self, workers: int) -> None:
        with pytest.raises(pygo.DeadlockError, match="first task has ended, but others are blocked") as caught:
            bubble(lambda: pygo.spawn(pygo.select))
        assert "waiting in select" in str(caught.value)

    def test_time_stops_when_the_root_has_ended(self, workers: int) -> None:
        ran: list[float] = []

        def reader(ticks: pygo.Ticker) -> None:
            ran.extend(channel_of(ticks))

        with pytest.raises(pygo.DeadlockError, match="first task has ended"):
            bubble(lambda: pygo.spawn(reader, pygo.Ticker(1)))
        with pytest.raises(pygo.DeadlockError, match="first task has ended"):
            bubble(lambda: pygo.spawn(lambda: (pygo.sleep(1), ran.append(now()))))
        assert ran == []

    def test_others_may_go_on_when_the_root_has_ended(self, workers: int) -> None:
        seen: list[int] = []

        def main() -> str:
            ch = pygo.Channel[int]()
            pygo.spawn(lambda: [ch.send(number) for number in range(10)])
            pygo.spawn(lambda: [seen.append(ch.recv()) for _ in range(10)])
            return "ended"

        assert bubble(main) == "ended"
        assert seen == list(range(10))

    def test_who_is_blocked_is_cancelled_and_cleans_up(self, workers: int) -> None:
        cleaned: list[float] = []

        def careful() -> None:
            try:
                pygo.select()
            finally:
                with pygo.shield():
                    pygo.sleep(5)
                cleaned.append(now())

        def main() -> None:
            pygo.spawn(careful)
            pygo.sleep(1)
            pygo.select()

        with pytest.raises(pygo.DeadlockError):
            bubble(main)
        assert cleaned == [6.0]

    def test_who_cannot_be_cancelled_is_named(self) -> None:
        program = """
            import pygo
            from pygo.testing import bubble
            def stubborn():
                with pygo.shield():
                    pygo.select()
            try:
                bubble(stubborn)
            except pygo.DeadlockError as error:
                assert "cannot be cancelled and stays" in str(error), error
                print(len(pygo.all_tasks()), bubble(int))
        """
        assert run_program(program).out == "1 0\n"

    def test_a_failed_root_is_told_with_what_it_left(self, workers: int) -> None:
        def main() -> None:
            pygo.spawn(pygo.Channel[int]().recv)
            raise KeyError("the cause")

        with pytest.raises(KeyError, match="the cause") as caught:
            bubble(main)
        assert "others are blocked" in caught.value.__notes__[0]
        assert "in channel receive" in caught.value.__notes__[0]

    def test_it_is_found_below_a_task_that_is_not_the_main_one(self, workers: int) -> None:
        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked"):
            in_task(bubble, pygo.select)
        with pytest.raises(pygo.DeadlockError, match="all tasks are blocked"):
            in_thread(bubble, pygo.select)

    def test_who_waits_for_outside_for_ever_is_found_by_the_main_thread(self) -> None:
        program = """
            import pygo
            from pygo.testing import bubble
            never = pygo.Channel()
            def main():
                pygo.spawn(never.recv)
                pygo.sleep(5)
                never.send(1)
            try:
                bubble(main)
            except pygo.DeadlockError as error:
                assert "the main thread waits" in str(error)
                assert "its clock stands still" in error.__notes__[0]
                print("found", len(pygo.all_tasks()))
        """
        assert run_program(program).out == "found 0\n"


# ---- the call ----


class TestTheCall:
    def test_it_passes_arguments_and_results(self) -> None:
        assert bubble(divmod, 7, 2) == (3, 1)
        assert bubble(dict, a=1) == {"a": 1}

    def test_it_raises_what_the_root_raises(self, reports: Any) -> None:
        def main() -> None:
            raise KeyError("it")

        with pytest.raises(KeyError, match="it") as caught:
            bubble(main)
        assert any(entry.name == "main" for entry in caught.traceback)
        assert reports.take() == []

    def test_it_takes_callables_only(self) -> None:
        with pytest.raises(TypeError, match="callable"):
            bubble(3)  # type: ignore[arg-type]

    def test_there_is_none_inside_another(self) -> None:
        with pytest.raises(RuntimeError, match="inside of another"):
            bubble(bubble, int)
        with pytest.raises(RuntimeError, match="inside of another"):
            bubble(lambda: pygo.spawn(bubble, int).join())

    @pytest.mark.parametrize("place", [lambda fn: fn(), in_task, in_thread], ids=["main", "task", "thread"])
    def test_it_can_be_made_from_anywhere(self, workers: int, place: Callable[..., float]) -> None:
        assert place(lambda: bubble(lambda: (pygo.sleep(HOUR), now())[1])) == HOUR

    def test_failures_of_other_tasks_are_reported_as_usual(self, workers: int, reports: Any) -> None:
        def fails() -> None:
            pygo.sleep(1)
            raise KeyError("in a child")

        def main() -> None:
            pygo.spawn(fails)
            pygo.sleep(2)

        bubble(main)
        wait_until(lambda: reports.tasks)  # reported when its task goes, a moment after its end
        ((_, text),) = reports.take()
        assert "in a child" in text

    def test_it_returns_when_all_have_ended(self, workers: int) -> None:
        ended: list[int] = []
        bubble(lambda: [pygo.spawn(lambda: (time.sleep(0.005), ended.append(1))) for _ in range(3)])
        assert ended == [1, 1, 1]
        assert pygo.all_tasks() == []

    def test_a_cancelled_caller_cancels_its_tasks(self, workers: int) -> None:
        gate, ended = pygo.Channel[int](), []

        def main() -> None:
            try:
                pygo.spawn(gate.recv_ok)
                gate.recv()
            finally:
                ended.append(now())

        caller = pygo.spawn(bubble, main)
        testing.wait_until_blocked(gate, receivers=2)
        caller.cancel()
        with pytest.raises(pygo.TaskCancelled):
            caller.join(HANG)
        assert ended == [0.0]
        assert gate.waiting_receivers == 0

    def test_a_timeout_around_it_is_one_of_real_time(self, workers: int) -> None:
        with pytest.raises(TimeoutError), pygo.timeout(0.01):
            bubble(never.recv)

    def test_ctrl_c_ends_it(self) -> None:
        program = """
            import os, signal, time, pygo
            from pygo.testing import bubble
            never = pygo.Channel()
            def main():
                os.kill(os.getpid(), signal.SIGINT)
                try:
                    never.recv()
                finally:
                    print("cleaned up")
            try:
                bubble(main)
            except KeyboardInterrupt:
                print("interrupted", len(pygo.all_tasks()))
        """
        assert run_program(program).out == "cleaned up\ninterrupted 0\n"

    @pytest.mark.parametrize("stuck", [False, True])
    def test_ctrl_c_at_any_step_leaves_no_task_behind(self, stuck: bool, workers: int) -> None:
        def main() -> None:
            nobodys = pygo.Channel[int]()
            for _ in range(3):
                pygo.spawn(nobodys.recv if stuck else pygo.yield_now)

        expected = (KeyboardInterrupt, pygo.DeadlockError) if stuck else (KeyboardInterrupt,)
        for step in itertools.count(1):
            with Interruption(testing, step, exempt=("bubble",)) as interruption, contextlib.suppress(*expected):
                bubble(main)
            assert pygo.all_tasks() == []
            if not interruption.came:
                break
        assert step > 4

    def test_it_leaves_nothing_behind(self, workers: int) -> None:
        def main() -> None:
            timers.extend([pygo.Timer(9), pygo.Timer(9, int)])
            tickers = [pygo.Ticker(9)]
            ch = pygo.Channel[Any](4)
            ch.send((ch, tickers, timers))
            pygo.spawn(pygo.sleep, 1).join()

        timers: list[Any] = []
        kinds = (pygo.Task, pygo.Channel, pygo.Timer, pygo.Ticker, testing._Bubble)

        def count() -> int:
            gc.collect()
            return sum(isinstance(one, kinds) for one in gc.get_objects())

        before = count()
        for _ in range(20):
            bubble(main)
            timers.clear()
        assert count() <= before

    def test_a_timer_kept_from_a_bubble_that_is_over_is_harmless(self) -> None:
        kept = bubble(lambda: [pygo.Timer(9), pygo.Timer(9, int), pygo.Ticker(9), pygo.after(9)])
        assert "not pending" in repr(kept[0])
        with pytest.raises(RuntimeError, match="stop of a timer"):
            kept[1].stop()
        kept.clear()
        gc.collect()

    def test_stale_wakes_are_absorbed(self, workers: int) -> None:
        def main() -> float:
            ch = pygo.Channel[int]()
            for _ in range(20):
                pygo.spawn(lambda: (pygo.sleep(1), ch.send(1)))
            for _ in range(20):
                ch.recv()
                settle()
            return now()

        pygo._extension.inject_stale_wakes(2)
        try:
            assert bubble(main) == 1.0
        finally:
            pygo._extension.inject_stale_wakes(0)

    def test_it_holds_under_every_seed(self, seed: int) -> None:
        for workers in (1, 2):
            with testing.seeded(seed, workers=workers):
                assert bubble(crowd, 20, 5) == 5 * 20 * 0.5

    def test_it_holds_with_hasty_switches(self, workers: int, switch_interval: float) -> None:
        assert bubble(crowd, 20, scaled(5, 200)) == scaled(5, 200) * 10.0

    def test_the_clock_never_moves_while_somebody_runs(self, workers: int, switch_interval: float) -> None:
        """Each message is on its way at one moment of the clock, whoever else sleeps, computes or blocks meanwhile."""
        rounds = scaled(50, 2000)

        def echo(inbox: pygo.Channel[float], outbox: pygo.Channel[float]) -> None:
            for sent in inbox:
                if sent % 3 == 0:
                    time.sleep(0.0001)
                outbox.send(sent)

        def caller(period: float) -> None:
            inbox, outbox = pygo.Channel[float](), pygo.Channel[float](1)
            pygo.spawn(echo, inbox, outbox)
            for _ in range(rounds):
                start = now()
                inbox.send(start)
                assert outbox.recv() == start == now()
                pygo.sleep(period)
            inbox.close()

        def main() -> None:
            with pygo.TaskGroup() as tg:
                for period in (1, 2, 3, 5):
                    tg.spawn(caller, period)

        bubble(main)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_a_task_that_forks_is_alone_in_its_bubble(self) -> None:
        program = """
            import os, warnings
            import pygo
            from pygo.testing import bubble, now, settle
            warnings.simplefilter("ignore")
            def main():
                others = [pygo.spawn(pygo.sleep, 5) for _ in range(3)]
                pygo.sleep(1)
                pid = os.fork()
                if pid == 0:
                    settle()
                    pygo.sleep(10)
                    os._exit(40 + (now() == 11.0))
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                for task in others:
                    task.join()
                return code, now()
            print(bubble(main))
        """
        assert run_program(program).out == "(41, 5.0)\n"


def crowd(count: int, rounds: int) -> float:
    """Tasks that meet in all sorts of places; returns the time it took."""
    ch, lock, group = pygo.Channel[int](2), sync.Lock(), pygo.WaitGroup()

    def producer(number: int) -> None:
        for _ in range(rounds):
            with lock:
                pygo.sleep(0.5)
            ch.send(number)

    for number in range(count):
        group.go(producer, number)
    pygo.spawn(lambda: (group.wait(), ch.close()))
    got = list(ch)
    assert sorted(got) == sorted([*range(count)] * rounds)
    return now()


# ---- as a decorator and in pytest ----


@bubbled
def test_a_test_can_be_bubbled(workers: int) -> None:
    """With fixtures."""
    assert workers == pygo.runtime.workers()
    pygo.sleep(HOUR)
    assert now() == HOUR


@pytest.mark.pygo_bubble
def test_a_test_can_be_marked(tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    pygo.sleep(HOUR)
    assert now() == HOUR


def test_code_that_uses_the_time_module_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/testing.md recommends; and helpers that look at the real time go on to do so."""
    monkeypatch.setattr(time, "sleep", pygo.sleep)
    monkeypatch.setattr(time, "monotonic", now)

    def main() -> float:
        start = time.monotonic()
        time.sleep(HOUR)
        ch = pygo.Channel[int]()
        task = pygo.spawn(ch.recv)
        testing.wait_until_blocked(task)
        ch.send(1)
        return time.monotonic() - start

    assert bubble(main) == HOUR
    time.sleep(0.001)
    assert time.monotonic() > 0


@pytest.mark.pygo_bubble
class TestAMarkedClass:
    def test_its_methods_are_bubbled(self) -> None:
        pygo.sleep(HOUR)
        assert now() == HOUR


def test_others_can_be_waited_for_in_a_bubble(workers: int) -> None:
    def main() -> float:
        ch = pygo.Channel[int]()
        task = pygo.spawn(ch.recv)
        testing.wait_until_blocked(task)
        testing.wait_until_blocked(ch, receivers=1)
        ch.send(1)
        task.join()
        with testing.leak_check():
            pygo.spawn(time.sleep, 0.001)
        return now()

    assert bubble(main) == 0.0


def test_outcomes_of_pytest_pass_through(tmp_path: Path) -> None:
    text = """
import pygo, pytest
pytestmark = pytest.mark.pygo_bubble
def test_passes(): pygo.sleep(60)
def test_fails(): pygo.sleep(60); assert 1 + 1 == 3
def test_skips(): pytest.skip("for a reason")
@pytest.mark.xfail(strict=True)
def test_is_expected(): raise ValueError
def test_is_stuck(): pygo.select()
def test_leaves(): pygo.spawn(pygo.sleep, 1)
"""
    test = tmp_path / "test_it.py"
    test.write_text(text)
    program = f"""
        import sys, pytest
        sys.exit(pytest.main(["-p", "no:pygo", "-p", "pygo._pytest_plugin", "-p", "no:cacheprovider", "-q", "-rA",
                              "--strict-markers", "--rootdir", {str(tmp_path)!r}, {str(test)!r}]))
    """
    output = run_program(program).out
    assert "3 failed, 1 passed, 1 skipped, 1 xfailed" in output, output
    assert "assert (1 + 1) == 3" in output
    assert "all tasks are blocked" in output
    assert "first task has ended" in output
