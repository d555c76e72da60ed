"""The behaviours of Go's sync/waitgroup_test, as tests. docs/testing.md has the table."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers import HANG, LONG_TESTS, PROGRAM_LIMIT, in_threads, join_all, run_main, scaled, wait_until

import pygo
from pygo import Channel, WaitGroup, spawn, yield_now

pytestmark = pytest.mark.timeout(1200 if LONG_TESTS else 120)


def test_two_groups_hold_each_other_in_turns(workers: int, switch_interval: float) -> None:
    """TestWaitGroup: sixteen tasks report to the first group and wait for the second; used again and again."""
    count = 16
    first, second = WaitGroup(), WaitGroup()

    def body(exited: Channel[bool]) -> None:
        first.done()
        second.wait()
        exited.send(True)

    def main() -> None:
        for _ in range(scaled(50, 1000)):
            exited: Channel[bool] = Channel(count)
            first.add(count)
            second.add(count)
            tasks = [spawn(body, exited) for _ in range(count)]
            first.wait()
            for _ in range(count):
                assert exited.try_recv() == (None, False), "released too early"
                second.done()
            assert [exited.recv() for _ in range(count)] == [True] * count
            join_all(tasks)

    run_main(main)


class TestMisuse:
    """TestWaitGroupMisuse. Go panics; here it is a ValueError, and the group stays as it was."""

    def test_more_done_than_added(self) -> None:
        group = WaitGroup()
        group.add(1)
        group.done()
        with pytest.raises(ValueError, match="negative"):
            group.done()
        group.wait(timeout=0)

    def test_more_done_than_added_while_tasks_wait(self, workers: int) -> None:
        group = WaitGroup()
        group.add(2)
        task = spawn(group.wait)
        wait_until(lambda: task.state == "waiting")
        with pytest.raises(ValueError, match="negative"):
            group.add(-3)
        assert task.state == "waiting"
        group.add(-2)
        task.join(timeout=HANG)

    def test_a_count_that_overflows(self) -> None:
        group = WaitGroup()
        largest = 2**63 - 1
        group.add(largest)
        with pytest.raises(ValueError, match="large"):
            group.add(1)
        group.add(-largest)
        group.wait(timeout=0)
        for count in (2**63, -(2**63) - 1):
            with pytest.raises(OverflowError):
                group.add(count)
        group.wait(timeout=0)

    def test_exactly_the_surplus_is_refused_under_contention(self, workers: int, switch_interval: float) -> None:
        group = WaitGroup()
        group.add(100)

        def body() -> bool:
            yield_now()
            try:
                group.done()
            except ValueError:
                return False
            return True

        assert join_all([spawn(body) for _ in range(150)]).count(True) == 100
        group.wait(timeout=0)

    def test_a_waiter_that_is_woken_may_use_the_group_at_once(self, workers: int, switch_interval: float) -> None:
        """Go's rule against reuse before all waits have returned does not hold here: a wait that was won stays won."""
        group = WaitGroup()

        def main() -> None:
            for _ in range(scaled(100, 5000)):
                group.add(1)
                tasks = [spawn(group.wait) for _ in range(5)]
                wait_until(lambda: all(task.state == "waiting" for task in tasks))  # noqa: B023 - called at once
                group.done()
                group.add(1)
                join_all(tasks)
                group.done()

        run_main(main)


def test_what_is_done_before_is_seen_after_the_wait(workers: int, seed: int, switch_interval: float) -> None:
    """TestWaitGroupRace: one group per round, two tasks that each do their work and then count down."""
    rng = random.Random(seed)

    def work(group: WaitGroup, total: list[int], slot: int, pause: int) -> None:
        for _ in range(pause):
            yield_now()
        total[slot] = 1
        group.done()

    def main() -> None:
        for turn in range(scaled(1000, 20_000)):
            group, total = WaitGroup(), [0, 0]
            group.add(1)
            tasks = [spawn(work, group, total, 0, rng.randrange(3))]
            group.add(1)
            tasks.append(spawn(work, group, total, 1, rng.randrange(3)))
            group.wait()
            assert total == [1, 1], f"seed {seed}, round {turn}"
            join_all(tasks)

    run_main(main)


class TestGo:
    """TestWaitGroupGo, and the ways its function may end."""

    def test_the_wait_ends_after_the_function(self, workers: int) -> None:
        group = WaitGroup()
        seen: list[int] = []
        task = group.go(seen.append, 1)
        group.wait(timeout=HANG)
        assert seen == [1]
        assert task.join(timeout=HANG) is None

    def test_failed_and_ended_tasks_are_counted_down(self, workers: int, reports: Any) -> None:
        group = WaitGroup()

        def body(number: int) -> int:
            yield_now()
            if number % 3 == 1:
                raise LookupError(number)
            if number % 3 == 2:
                pygo.exit_task(-number)
            return number

        tasks = [group.go(body, number) for number in range(99)]
        group.wait(timeout=HANG)
        for number, task in enumerate(tasks):
            if number % 3 == 1:
                assert isinstance(task.exception(timeout=HANG), LookupError)
            else:
                assert task.join(timeout=HANG) == (number if number % 3 == 0 else -number)
        assert reports.take() == []

    def test_tasks_that_start_more_tasks_hold_the_wait(self, workers: int, switch_interval: float) -> None:
        group = WaitGroup()
        leaves: Channel[int] = Channel(1 << 10)

        def node(depth: int) -> None:
            if depth == 0:
                leaves.send(1)
                return
            group.go(node, depth - 1)
            group.go(node, depth - 1)

        group.go(node, 10)
        group.wait(timeout=HANG)
        assert len(leaves) == 1 << 10


def test_many_waiters_and_many_counters_on_every_side(workers: int, seed: int) -> None:
    """After BenchmarkWaitGroupAddDone, Wait and ActuallyWait: adds, dones and waits from tasks and threads at once."""
    group = WaitGroup()
    group.add(1)  # nobody is released before the end
    released = [False]

    def count(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        for _ in range(scaled(200, 10_000)):
            group.add(step := rng.randrange(1, 4))
            if rng.random() < 0.1:
                yield_now()
            for _ in range(step):
                group.done()

    def wait() -> bool:
        group.wait(timeout=PROGRAM_LIMIT)
        return released[0]

    waiters = [spawn(wait) for _ in range(20)]
    counters = [spawn(count, number) for number in range(8)]
    in_threads([lambda: count(8), lambda: count(9)], timeout=PROGRAM_LIMIT)
    join_all(counters, timeout=PROGRAM_LIMIT)
    assert not any(waiter.done() for waiter in waiters)
    released[0] = True
    group.done()
    assert join_all(waiters) == [True] * 20, f"seed {seed}"
