"""Time: sleep, after, timeouts; never early, in order, and gone when no longer needed."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import Any

import pytest
from helpers import HANG, PLACES, in_threads, join_all, wait_until

import pygo
from pygo import testing


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


class TestSleep:
    @pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 0.0001, 0.001, 0.02])
    def test_it_never_ends_early(self, place: Any, seconds: float) -> None:
        def body() -> float:
            start = time.monotonic()
            pygo.sleep(seconds)
            return time.monotonic() - start

        assert place(body) >= seconds

    @pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), -math.inf])
    def test_a_negative_time_is_refused(self, place: Any, bad: float) -> None:
        with pytest.raises(ValueError, match=r"."):
            place(lambda: pygo.sleep(bad))

    @pytest.mark.parametrize("bad", ["1", None, []])
    def test_the_time_must_be_a_number(self, bad: Any) -> None:
        with pytest.raises(TypeError):
            pygo.sleep(bad)
        with pytest.raises(TypeError):
            pygo.sleep()

    @testing.bubbled
    def test_sleepers_wake_in_the_order_of_their_deadlines(self, workers: int) -> None:
        """In virtual time: of two that are due on a busy machine's clock, either may get to run first."""
        woken: list[int] = []

        def sleeper(slot: int) -> None:
            pygo.sleep(slot * 1e-6)
            woken.append(slot)

        slots = list(range(300))
        random.Random(1).shuffle(slots)
        join_all([pygo.spawn(sleeper, slot) for slot in slots])
        assert woken == sorted(woken)

    def test_sleepers_share_the_time(self, workers: int) -> None:
        """10,000 sleeps of half a second take nothing like 5,000 seconds."""
        tasks = [pygo.spawn(pygo.sleep, 0.5) for _ in range(10_000)]
        join_all(tasks, timeout=HANG)

    def test_a_hundred_thousand_random_sleeps_all_end(self) -> None:
        rng = random.Random(2)

        def sleeper(seconds: float) -> bool:
            start = time.monotonic()
            pygo.sleep(seconds)
            return time.monotonic() - start >= seconds

        tasks = [pygo.spawn(sleeper, rng.random()) for _ in range(100_000)]
        assert all(join_all(tasks, timeout=HANG))
        assert pygo.runtime.stats().timers == 0

    def test_timers_fire_beside_busy_yielders(self, workers: int) -> None:
        stop: pygo.Channel[None] = pygo.Channel()

        def yielder() -> None:
            while not stop.closed:
                pygo.yield_now()

        yielders = [pygo.spawn(yielder) for _ in range(workers + 1)]
        tasks = [pygo.spawn(pygo.sleep, 0.001 * number) for number in range(50)]
        join_all(tasks)
        stop.close()
        join_all(yielders)

    def test_timers_fire_while_nothing_else_happens(self) -> None:
        """Each timer alone, with every worker asleep, and a later one armed before an earlier one."""
        start = time.monotonic()
        late = pygo.spawn(pygo.sleep, 0.2)
        wait_until(lambda: late.state in ("waiting", "done"))  # done: this thread was held up for 0.2 s
        pygo.spawn(pygo.sleep, 0.01).join(timeout=HANG)
        assert not late.done() or time.monotonic() - start >= 0.2
        late.join(timeout=HANG)


class TestAfter:
    def test_it_delivers_the_monotonic_time_once(self, place: Any) -> None:
        def body() -> tuple[float, float, float]:
            start = time.monotonic()
            value = pygo.after(0.01).recv(timeout=HANG)
            return start, value, time.monotonic()

        start, value, end = place(body)
        assert start + 0.01 <= value <= end

    def test_it_is_a_receiving_channel(self) -> None:
        ch = pygo.after(0.005)
        assert isinstance(ch, pygo.RecvChannel)
        assert not hasattr(ch, "send")
        assert isinstance(ch.recv(timeout=HANG), float)
        with pytest.raises(TimeoutError):
            ch.recv(timeout=0.005)

    def test_nobody_has_to_wait_for_it(self) -> None:
        ch = pygo.after(0)
        wait_until(lambda: len(ch) == 1)
        assert ch.try_recv()[1]

    def test_it_bounds_a_select(self, place: Any) -> None:
        def body() -> int:
            ch: pygo.Channel[int] = pygo.Channel()
            return pygo.select(pygo.recv(ch), pygo.recv(pygo.after(0.01))).index

        assert place(body) == 1

    @pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
    def test_a_bad_time_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            pygo.after(bad)

    def test_many_at_once_all_deliver(self, workers: int) -> None:
        rng = random.Random(workers)
        channels = [pygo.after(rng.random() * 0.1) for _ in range(2000)]
        values = join_all([pygo.spawn(ch.recv) for ch in channels])
        assert all(isinstance(value, float) for value in values)


class TestTimeouts:
    def test_no_wait_ends_before_its_timeout(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        group = pygo.WaitGroup()
        group.add()
        task = pygo.spawn(ch.recv)
        wait_until(lambda: ch.waiting_receivers == 1)
        other: pygo.Channel[int] = pygo.Channel()
        waits = [
            lambda: other.recv(timeout=0.01),
            lambda: other.send(1, timeout=0.01),
            lambda: pygo.select(pygo.recv(other), timeout=0.01),
            lambda: group.wait(timeout=0.01),
            lambda: task.join(timeout=0.01),
        ]
        for wait in waits:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                place(wait)
            assert time.monotonic() - start >= 0.01
        ch.send(1)
        task.join()

    def test_a_wait_that_is_served_removes_its_timer(self, workers: int) -> None:
        before = pygo.runtime.stats().timers
        ch: pygo.Channel[int] = pygo.Channel()
        tasks = [pygo.spawn(ch.recv, timeout=1000) for _ in range(500)]
        wait_until(lambda: ch.waiting_receivers == 500)
        assert pygo.runtime.stats().timers >= before + 500
        for value in range(500):
            ch.send(value, timeout=1000)
        assert sorted(join_all(tasks)) == list(range(500))
        wait_until(lambda: pygo.runtime.stats().timers <= before)

    def test_a_wait_served_at_its_deadline_either_takes_the_value_or_times_out(self, workers: int) -> None:
        """The value is never lost: what the receiver did not take is still with the sender."""

        def pair(seed: int) -> list[str]:
            rng = random.Random(seed)
            outcomes = []
            for number in range(100):
                ch: pygo.Channel[int] = pygo.Channel()
                receiver = pygo.spawn(ch.recv, timeout=0.001)
                pygo.sleep(0.0005 + rng.random() * 0.001)
                sent = ch.try_send(number)
                failure = receiver.exception()
                assert sent == (failure is None)
                if sent:
                    assert receiver.join() == number
                else:
                    assert isinstance(failure, TimeoutError)
                outcomes.append("sent" if sent else "late")
            return outcomes

        outcomes = [outcome for part in join_all([pygo.spawn(pair, seed) for seed in range(10)]) for outcome in part]
        assert len(outcomes) == 1000

    def test_threads_and_tasks_time_out_together(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def body() -> bool:
            try:
                ch.recv(timeout=0.01)
            except TimeoutError:
                return True
            return False

        tasks = [pygo.spawn(body) for _ in range(100)]
        assert in_threads([body] * 10) == [True] * 10
        assert join_all(tasks) == [True] * 100
        assert ch.waiting_receivers == 0

    def test_the_same_task_times_out_again_and_again(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def body() -> int:
            timeouts = 0
            for _ in range(300):
                try:
                    ch.recv(timeout=0.0001)
                except TimeoutError:
                    timeouts += 1
            return timeouts

        assert join_all([pygo.spawn(body) for _ in range(8)]) == [300] * 8


def test_a_ticker_goes_on_while_a_thread_sleeps() -> None:
    ticks: list[float] = []
    stop = threading.Event()

    def ticker() -> None:
        while len(ticks) < 10:
            pygo.sleep(0.005)
            ticks.append(time.monotonic())
        stop.set()

    task = pygo.spawn(ticker)
    assert in_threads([lambda: stop.wait(HANG)]) == [True]
    task.join()
