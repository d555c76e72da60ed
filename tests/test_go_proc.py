"""The behaviours of Go's runtime/proc_test, as tests. docs/testing.md has the table."""

from __future__ import annotations

import functools
import gc
import itertools
import operator
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest
from helpers import HANG, LONG_TESTS, PLACES, PROGRAM_LIMIT, in_task, in_thread, join_all, run_main, scaled, wait_until

import pygo
from pygo import Channel, lock_thread, recv, select, send, spawn, yield_now

pytestmark = pytest.mark.timeout(1200 if LONG_TESTS else 120)


class Until:
    """Tasks that go on until the end of the block, each with a count of its rounds."""

    def __init__(self) -> None:
        self.over = False
        self.tasks: list[pygo.Task[int]] = []
        self.rounds: list[int] = []

    def start(self, step: Callable[[], Any], locked: bool = False) -> None:
        slot = len(self.rounds)
        self.rounds.append(0)

        def body() -> int:
            while not self.over:
                step()
                self.rounds[slot] += 1
            return self.rounds[slot]

        def pinned() -> int:
            with lock_thread():
                return body()

        self.tasks.append(spawn(pinned if locked else body))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        join_all(self.tasks, timeout=PROGRAM_LIMIT)


def compute(steps: int = 1000) -> None:
    for _ in range(steps):
        pass


def test_collections_statistics_and_changes_of_the_worker_count_stop_nobody(
    workers: int, switch_interval: float
) -> None:
    """TestStopTheWorldDeadlock: what reaches all workers at once, from several tasks, while tasks come and go."""
    counts = itertools.cycle([1, 3, 2, 16])

    with Until() as others:
        others.start(gc.collect)
        others.start(lambda: pygo.runtime.set_workers(next(counts)))
        others.start(pygo.runtime.stats)
        others.start(lambda: spawn(int).join())
        others.start(pygo.all_tasks)
        done = [spawn(lambda: [spawn(yield_now).join() for _ in range(scaled(100, 1000))]) for _ in range(3)]
        join_all(done, timeout=PROGRAM_LIMIT)
        wait_until(lambda: min(others.rounds) >= 3)


@pytest.mark.parametrize("locked", [False, True], ids=["", "locked"])
@pytest.mark.parametrize("place", PLACES)
def test_a_task_that_only_yields_lets_everybody_go_on(
    place: str, locked: bool, workers: int, switch_interval: float
) -> None:
    """TestYieldProgress, TestYieldLockedProgress"""

    rounds = [0]

    def poll(asked: Channel[None], answer: Channel[int]) -> None:
        while select(recv(asked), default=True).index == -1:
            rounds[0] += 1
            yield_now()
        answer.send(rounds[0])

    def locked_poll(asked: Channel[None], answer: Channel[int]) -> None:
        with lock_thread():
            poll(asked, answer)

    def main() -> None:
        asked, answer = Channel[None](), Channel[int]()
        task = spawn(locked_poll if locked else poll, asked, answer)
        for goal in (1, 100, 1000):
            wait_until(lambda: rounds[0] >= goal)  # noqa: B023 - called before the next round
            assert spawn(int).join(timeout=HANG) == 0
            pygo.sleep(0.0001)
        asked.send(None)
        assert answer.recv(timeout=HANG) >= 1000
        task.join(timeout=HANG)

    PLACES[place](main)


class TestParallelism:
    """TestGoroutineParallelism, TestGoroutineParallelism2"""

    def test_tasks_in_blocking_calls_are_there_at_the_same_time(self, workers: int) -> None:
        """A barrier of the operating system opens only when all its parties block in it."""
        barrier = threading.Barrier(12, timeout=HANG)
        tasks = [spawn(barrier.wait) for _ in range(12)]
        assert sorted(join_all(tasks)) == list(range(12))

    def test_a_token_goes_round_through_blocking_calls(self, workers: int) -> None:
        pipes = [os.pipe() for _ in range(6)]

        def pass_on(source: int, target: int) -> int:
            for _ in range(30):
                os.write(target, os.read(source, 1))
            return 30

        try:
            tasks = [spawn(pass_on, pipes[place][0], pipes[(place + 1) % len(pipes)][1]) for place in range(len(pipes))]
            os.write(pipes[0][1], b"x")
            assert join_all(tasks) == [30] * len(pipes)
        finally:
            for end in itertools.chain(*pipes):
                os.close(end)

    @pytest.mark.parametrize("collect", [False, True], ids=["", "with collections"])
    def test_tasks_that_wait_busily_for_each_other_all_get_their_turns(
        self, collect: bool, workers: int, switch_interval: float
    ) -> None:
        """Also TestPreemption, TestPreemptionGC: nobody ever waits in the runtime, so each turn needs a preemption."""
        parties, turn = 3, [0]

        def body(who: int) -> None:
            for _ in range(scaled(4, 50)):
                while turn[0] % parties != who:
                    pass
                turn[0] += 1

        with Until() as collectors:
            if collect:
                collectors.start(gc.collect)
            join_all([spawn(body, who) for who in range(parties)], timeout=PROGRAM_LIMIT)
        assert turn[0] == parties * scaled(4, 50)


class TestLockThread:
    def test_a_locked_task_exchanges_values_with_others(self, workers: int, switch_interval: float) -> None:
        """TestBlockLocked"""
        ch: Channel[int] = Channel()

        def produce() -> bool:
            with lock_thread():
                before = threading.get_native_id()
                for number in range(200):
                    ch.send(number)
                ch.close()
                return threading.get_native_id() == before

        task = spawn(produce)
        assert list(ch) == list(range(200))
        assert task.join(timeout=HANG)

    def test_the_outermost_block_ends_the_lock(self, workers: int) -> None:
        """TestLockOSThreadNesting"""

        def waits_without_moving() -> bool:
            before = threading.get_native_id()
            blockers = [spawn(time.sleep, 0.0005) for _ in range(3)]
            join_all(blockers)
            yield_now()
            return threading.get_native_id() == before

        def main() -> None:
            with lock_thread():
                with lock_thread():
                    with lock_thread():
                        assert waits_without_moving()
                    assert waits_without_moving()
                assert waits_without_moving()

        in_task(main)
        wait_until(lambda: not in_task(waits_without_moving), what="a task that is not locked moves at some time")

    def test_locked_tasks_pass_a_token_round(self, workers: int) -> None:
        """Every hand-over is one from OS thread to OS thread."""
        count, rounds = 5, scaled(40, 1000)

        def body(inbox: Channel[int], outbox: Channel[int]) -> int:
            with lock_thread():
                for _ in range(rounds):
                    outbox.send(inbox.recv() + 1)
                return threading.get_native_id()

        channels = [Channel[int]() for _ in range(count + 1)]
        tasks = [spawn(body, channels[place], channels[place + 1]) for place in range(count)]
        for turn in range(rounds):
            channels[0].send(turn)
            assert channels[count].recv(timeout=PROGRAM_LIMIT) == turn + count
        assert len(set(join_all(tasks))) == count

    @pytest.mark.parametrize("end", ["exit_task", "exception", "nested"])
    def test_a_task_that_ends_locked_takes_nothing_with_it(self, end: str, workers: int) -> None:
        """TestLockOSThreadExit: Go ends the thread; here it serves others again."""

        def body() -> None:
            with lock_thread():
                if end == "exit_task":
                    pygo.exit_task(1)
                elif end == "exception":
                    raise LookupError
                with lock_thread():
                    pygo.exit_task(1)

        for _ in range(50):
            task = spawn(body)
            if end == "exception":
                assert isinstance(task.exception(timeout=HANG), LookupError)
            else:
                assert task.join(timeout=HANG) == 1
        assert join_all([spawn(int) for _ in range(100)]) == [0] * 100

    def test_many_tasks_lock_and_unlock_in_turns(self, workers: int, switch_interval: float) -> None:
        """TestLockOSThreadTemplateThreadRace: locks come and go while other tasks start."""

        def body() -> bool:
            same = True
            for _ in range(10):
                with lock_thread():
                    before = threading.get_native_id()
                    spawn(yield_now).join()
                    same = same and threading.get_native_id() == before
                yield_now()
            return same

        assert join_all([spawn(body) for _ in range(20)]) == [True] * 20


class TestTimersAreServed:
    def test_beside_tasks_that_always_have_a_partner(self, workers: int, switch_interval: float) -> None:
        """TestTimerFairness: a select always has a sender that is ready, and the timer gets through."""

        def main() -> None:
            done, values = Channel[None](), Channel[None]()

            def offer() -> None:
                while select(send(values, None), recv(done)).index == 0:
                    pass

            tasks = [spawn(offer) for _ in range(2)]
            wait_until(lambda: values.waiting_senders == 2)
            timer = pygo.after(0.01)
            while select(recv(values), recv(timer)).index == 0:
                pass
            done.close()
            join_all(tasks)

        run_main(main)

    @pytest.mark.parametrize("kind", ["yield", "compute", "system call", "spawn", "ping-pong", "default"])
    def test_beside_tasks_that_never_sleep(self, kind: str, workers: int) -> None:
        """TestTimerFairness2 and more. Each of ten short timers in a row passes, from tasks and from threads."""
        empty: Channel[int] = Channel()
        null = os.open(os.devnull, os.O_RDONLY)
        steps: dict[str, Callable[[], Any]] = {
            "yield": yield_now,
            "compute": compute,
            "system call": lambda: os.read(null, 1),
            "spawn": lambda: spawn(int).join(),
            "ping-pong": lambda: (lambda ch: (spawn(ch.send, 1), ch.recv()))(Channel[int]()),
            "default": lambda: select(recv(empty), default=True),
        }

        def timers() -> None:
            for _ in range(10):
                pygo.sleep(0.001)

        try:
            with Until() as others:
                for _ in range(3):
                    others.start(steps[kind])
                tasks = [spawn(timers) for _ in range(3)]
                in_thread(timers)
                join_all(tasks)
                wait_until(lambda: min(others.rounds) > 0)
        finally:
            os.close(null)


def test_everybody_goes_on_while_garbage_is_collected(workers: int) -> None:
    """TestGCFairness, TestGCFairness2: busy tasks, tasks that make garbage and collect it, and short sleepers."""

    def litter() -> None:
        cells: list[Any] = [[] for _ in range(100)]
        for cell in cells:
            cell.append(cells)

    with Until() as tasks:
        for _ in range(2):
            tasks.start(lambda: pygo.sleep(0.0001))
            tasks.start(litter)
            tasks.start(gc.collect)
            tasks.start(compute)
        wait_until(lambda: min(tasks.rounds) >= 3)


def test_a_loop_that_calls_nothing_is_preempted(workers: int, switch_interval: float) -> None:
    """TestAsyncPreempt: loops without a call, more of them than workers, while another task and a thread go on."""
    over: list[None] = []

    def spin() -> None:
        while not over:
            pass

    spinners = [spawn(spin) for _ in range(3)]
    assert join_all([spawn(int) for _ in range(10)]) == [0] * 10
    assert in_thread(lambda: spawn(int).join()) == 0
    pygo.sleep(0.001)
    over.append(None)
    join_all(spinners)


def test_the_tasks_that_exist_are_counted(workers: int) -> None:
    """TestNumGoroutine"""
    before = len(pygo.all_tasks())
    gate: Channel[None] = Channel()
    for count in (0, 1, 100):
        tasks = [spawn(gate.recv) for _ in range(count)]
        assert len(pygo.all_tasks()) == before + count
        assert set(tasks) <= set(pygo.all_tasks())
        wait_until(lambda count=count: gate.waiting_receivers == count)  # type: ignore[misc]
        assert pygo.runtime.stats().live == before + count
        for _ in range(count):
            gate.send(None)
        join_all(tasks)
        wait_until(lambda: len(pygo.all_tasks()) == before)


class TestPingPongBesideAHog:
    """TestPingPongHog: partners that wake each other share one time slice, however often they wake each other."""

    def progress(self, amounts: list[int], hogs: int = 0) -> list[int]:
        """What pairs get done that work ``amounts`` of steps per turn, until one has done much, or beside hogs both."""
        # Of three or more busy threads the interpreter leaves one out for up to a quarter of a second, pygo or not.
        enough: Callable[[list[int]], int] = min if hogs else max
        goal = max(scaled(8_000_000 if hogs else 4_000_000, 20_000_000), 5 * max(amounts))
        over: Channel[None] = Channel()
        counts = [0] * len(amounts)

        def player(slot: int, wake: Channel[None]) -> None:
            while select(recv(over), recv(wake)).index == 1:
                for _ in range(amounts[slot]):
                    counts[slot] += 1
                if select(send(wake, None), recv(over)).index == 1:
                    return

        tasks, wakes = [], []
        with Until() as others:
            for _ in range(hogs):
                others.start(compute)
            for slot in range(len(amounts)):
                wakes.append(Channel[None]())
                tasks += [spawn(player, slot, wakes[-1]) for _ in range(2)]
            for wake in wakes:
                wake.send(None)
            wait_until(lambda: min(counts) > 0)  # the thread that sends the second wake may be late
            before = list(counts)

            def done() -> list[int]:
                return list(map(operator.sub, counts, before))

            wait_until(lambda: enough(done()) > goal, timeout=PROGRAM_LIMIT)
            seen = done()
            over.close()
            join_all(tasks)
        return seen

    def median_ratio(self, amounts: list[int], hogs: int = 0) -> float:
        """Of three looks: on a shared machine one of them may see a stall."""
        looks = [self.progress(amounts, hogs) for _ in range(3)]
        return sorted(first / max(second, 1) for first, second in looks)[1]

    @pytest.mark.parametrize("hogs", [0, 2])
    def test_pairs_that_are_alike_get_alike_much_done(self, hogs: int, workers: int) -> None:
        ratio = self.median_ratio([1000, 1000], hogs)
        assert 0.5 <= ratio <= 2, ratio

    def test_long_turns_get_a_pair_no_more_than_short_ones_do(self, workers: int) -> None:
        """Turns a hundred times as long: counted in switches their share was 1,500 times larger. Go's bound is 5."""
        ratio = self.median_ratio([40_000, 400])
        assert 1 / 5 <= ratio <= 5, ratio

    def test_turns_that_are_longer_than_a_time_slice(self, workers: int) -> None:
        """As in Go's program, a million steps against a thousand; its bound is a factor of 5, or 20."""
        ratio = self.median_ratio([1_000_000, 1000])
        assert 1 / 20 <= ratio <= 20, ratio


class TestNobodyStarves:
    def test_tasks_that_yield_take_turns(self, workers: int) -> None:
        with Until() as tasks:
            for _ in range(20):
                tasks.start(yield_now)
            wait_until(lambda: min(tasks.rounds) > 0)  # until all are there the first have no company
            before = list(tasks.rounds)
            # so many that a thread which is left without a CPU for some hundredths of a second does not decide
            wait_until(lambda: min(map(operator.sub, tasks.rounds, before)) >= 200_000)
            seen = list(map(operator.sub, tasks.rounds, before))
        assert max(seen) <= 2 * min(seen), seen

    @pytest.mark.parametrize("place", PLACES)
    def test_tasks_start_while_partners_take_long_turns(self, place: str, workers: int) -> None:
        """What is spawned from anywhere waits for a few of their turns, not for as many as a streak has switches."""
        over: Channel[None] = Channel()
        turns = [0]

        def player(wake: Channel[None]) -> None:
            while select(recv(over), recv(wake)).index == 1:
                compute(100_000)
                turns[0] += 1
                if select(send(wake, None), recv(over)).index == 1:
                    return

        def main() -> list[int]:
            waited = []
            for _ in range(5):
                before = turns[0]
                waited.append(spawn(lambda: turns[0]).join(timeout=HANG) - before)
            return sorted(waited)

        wake: Channel[None] = Channel()
        players = [spawn(player, wake) for _ in range(2)]
        wake.send(None)
        waited = PLACES[place](main)
        over.close()
        join_all(players)
        assert waited[2] < 20, waited

    @pytest.mark.parametrize("hog", ["compute", "yield", "spawn"])
    def test_tasks_spawned_while_all_are_busy_start_and_end(self, hog: str, workers: int) -> None:
        steps: dict[str, Callable[[], Any]] = {
            "compute": compute,
            "yield": yield_now,
            "spawn": lambda: spawn(int).join(),
        }
        with Until() as hogs:
            for _ in range(4):
                hogs.start(steps[hog])
            wait_until(lambda: min(hogs.rounds) > 0)
            for place in PLACES.values():
                assert place(lambda: join_all([spawn(int) for _ in range(200)])) == [0] * 200


@pytest.mark.parametrize("locked", [False, True], ids=["", "locked"])
def test_many_tasks_stand_deep_in_recursions_at_once(locked: bool, workers: int) -> None:
    """After stack_test's growth in many goroutines: each waits at its deepest point and comes up whole."""
    count, depth = 20 if locked else 200, 300
    gate: Channel[int] = Channel()

    def descend(level: int, own: list[int]) -> int:
        if level == 0:
            return gate.recv()
        own.append(level)
        if level % 2:
            result = functools.reduce(lambda _, below: descend(below, own), [None, level - 1])  # a C function between
        else:
            result = descend(level - 1, own)
        assert own.pop() == level
        return result + 1

    def body() -> int:
        with lock_thread():
            return descend(depth // 2, [])

    tasks = [spawn(body) if locked else spawn(descend, depth // 2, []) for _ in range(count)]
    wait_until(lambda: gate.waiting_receivers == count)
    gc.collect()
    for number in range(count):
        gate.send(number)
    assert sorted(join_all(tasks)) == [depth // 2 + number for number in range(count)]


def test_a_tree_of_tasks_joins_itself(workers: int, switch_interval: float) -> None:
    """After the benchmarks that create goroutines: every task spawns two more and waits for them."""

    def node(depth: int) -> int:
        if depth == 0:
            return 1
        left, right = spawn(node, depth - 1), spawn(node, depth - 1)
        return left.join() + right.join()

    assert run_main(node, scaled(12, 16)) == 2 ** scaled(12, 16)


@pytest.mark.parametrize("count", [0, -1, 257, 1 << 20, 1 << 70])
def test_a_worker_count_out_of_range_is_refused(count: int) -> None:
    """TestBigGOMAXPROCS"""
    before = pygo.runtime.workers()
    with pytest.raises((ValueError, OverflowError)):
        pygo.runtime.set_workers(count)
    assert pygo.runtime.workers() == before
