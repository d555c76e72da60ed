"""The behaviours of Go's runtime/chan_test, as tests. docs/testing.md has the table."""

from __future__ import annotations

import gc
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from helpers import LONG_TESTS, PROGRAM_LIMIT, join_all, run_main, scaled, wait_until

import pygo
from pygo import Channel, ChannelClosed, recv, select, send, spawn, yield_now

pytestmark = pytest.mark.timeout(1200 if LONG_TESTS else 120)

CAPACITIES = range(200)


def join_program(tasks: list[pygo.Task[Any]]) -> list[Any]:
    return join_all(tasks, timeout=PROGRAM_LIMIT)


class TestEveryCapacity:
    """TestChan"""

    def test_a_receive_from_an_empty_channel_waits(self, workers: int) -> None:
        def main() -> None:
            for capacity in CAPACITIES:
                ch: Channel[int] = Channel(capacity)
                tasks = [spawn(ch.recv), spawn(ch.recv_ok)]
                wait_until(lambda ch=ch: ch.waiting_receivers == 2)  # type: ignore[misc]
                assert not any(task.done() for task in tasks)
                assert ch.try_recv() == (None, False)
                assert select(recv(ch), default=True).index == -1
                ch.send(1)
                ch.send(2)
                assert [tasks[0].join(), tasks[1].join()] == [1, (2, True)]

        run_main(main)

    def test_a_send_to_a_full_channel_waits(self, workers: int) -> None:
        def main() -> None:
            for capacity in CAPACITIES:
                ch: Channel[int] = Channel(capacity)
                for number in range(capacity):
                    ch.send(number)
                task = spawn(ch.send, capacity)
                wait_until(lambda ch=ch: ch.waiting_senders == 1)  # type: ignore[misc]
                assert not task.done()
                assert ch.try_send(-1) is False
                assert select(send(ch, -1), default=True).index == -1
                assert [ch.recv() for _ in range(capacity + 1)] == list(range(capacity + 1))
                task.join()

        run_main(main)

    def test_what_was_sent_before_the_close_is_received_first(self) -> None:
        for capacity in CAPACITIES:
            ch: Channel[int] = Channel(capacity)
            for number in range(capacity):
                ch.send(number)
            ch.close()
            assert [ch.recv_ok() for _ in range(capacity)] == [(number, True) for number in range(capacity)]
            assert ch.recv_ok() == (None, False)
            with pytest.raises(ChannelClosed):
                ch.recv()

    def test_a_close_ends_the_waits_of_receivers(self, workers: int) -> None:
        def main() -> None:
            for capacity in CAPACITIES:
                ch: Channel[int] = Channel(capacity)
                tasks: list[pygo.Task[Any]] = [
                    spawn(ch.recv_ok),
                    spawn(list, ch),
                    spawn(select, recv(ch)),
                    spawn(ch.recv),
                ]
                wait_until(lambda ch=ch: ch.waiting_receivers == 4)  # type: ignore[misc]
                ch.close()
                assert join_all(tasks[:3]) == [(None, False), [], (0, None, False)]
                assert isinstance(tasks[3].exception(), ChannelClosed)

        run_main(main)

    def test_a_close_ends_the_waits_of_senders(self, workers: int) -> None:
        def main() -> None:
            for capacity in CAPACITIES:
                ch: Channel[int] = Channel(capacity)
                for number in range(capacity):
                    ch.send(number)
                tasks = [spawn(ch.send, -1), spawn(select, send(ch, -1))]
                wait_until(lambda ch=ch: ch.waiting_senders == 2)  # type: ignore[misc]
                ch.close()
                assert all(isinstance(task.exception(), ChannelClosed) for task in tasks)
                assert list(ch) == list(range(capacity))

        run_main(main)

    def test_values_arrive_in_the_order_they_were_sent(self, workers: int) -> None:
        def main() -> None:
            for capacity in CAPACITIES:
                ch: Channel[int] = Channel(capacity)

                def produce(ch: Channel[int] = ch) -> None:
                    for number in range(100):
                        ch.send(number)

                task = spawn(produce)
                got = [ch.recv() if number % 2 else ch.recv_ok()[0] for number in range(100)]
                assert got == list(range(100)), capacity
                task.join()

        run_main(main)

    def test_the_length_follows_what_is_buffered_and_the_capacity_stays(self) -> None:
        for capacity in CAPACITIES:
            ch: Channel[int] = Channel(capacity)
            assert (len(ch), ch.capacity) == (0, capacity)
            for number in range(capacity):
                ch.send(number)
                assert (len(ch), ch.capacity) == (number + 1, capacity)
            for number in range(capacity // 2):
                ch.recv()
                assert (len(ch), ch.capacity) == (capacity - number - 1, capacity)
            ch.close()
            assert (len(ch), ch.capacity) == (capacity - capacity // 2, capacity)

    @pytest.mark.parametrize("first", range(4))
    def test_four_senders_and_four_receivers_lose_nothing(self, first: int, workers: int) -> None:
        """Each receiver sees the values of one sender in their order, too."""
        senders, count = 4, 1000

        def produce(ch: Channel[tuple[int, int]], who: int) -> None:
            for number in range(count):
                ch.send((who, number))

        def consume(ch: Channel[tuple[int, int]]) -> list[tuple[int, int]]:
            return [ch.recv() for _ in range(count)]

        def main() -> None:
            for capacity in CAPACITIES[first::4]:
                ch: Channel[tuple[int, int]] = Channel(capacity)
                producers = [spawn(produce, ch, who) for who in range(senders)]
                parts = join_program([spawn(consume, ch) for _ in range(senders)])
                join_all(producers)
                for part in parts:
                    for who in range(senders):
                        numbers = [number for sender, number in part if sender == who]
                        assert numbers == sorted(numbers), capacity
                assert sorted(itertools.chain(*parts)) == list(itertools.product(range(senders), range(count)))

        run_main(main)


def test_a_task_that_polls_meets_a_close(workers: int, switch_interval: float) -> None:
    """TestNonblockRecvRace: a value or a close is there at every moment, so polling never finds nothing."""

    def poll(ch: Channel[int]) -> int:
        return select(recv(ch), default=True).index

    def main() -> None:
        for turn in range(10_000):
            ch: Channel[int] = Channel(1)
            ch.send(1)
            task = spawn(poll, ch)
            if turn % 2:
                yield_now()
            ch.close()
            ch.recv_ok()
            assert task.join() == 0, turn

    run_main(main)


@pytest.mark.parametrize("how", ["send", "close"])
def test_a_select_that_polls_finds_the_channel_that_is_ready(how: str, workers: int, switch_interval: float) -> None:
    """TestNonblockSelectRace, TestNonblockSelectRace2: first one channel has a value, then both, then the other.

    Without all its channels locked a select may look at each in its empty moment. 100,000 times over all parameters.
    """

    def poll(c1: Channel[int], c2: Channel[int], done: Channel[int]) -> None:
        done.send(select(recv(c1), recv(c2), default=True).index)

    def main() -> None:
        done: Channel[int] = Channel(1)
        for turn in range(scaled(100_000 // 16, 100_000)):
            c1, c2 = Channel[int](1), Channel[int](1)
            c1.send(1)
            task = spawn(poll, c1, c2, done)
            if turn % 3 == 0:
                yield_now()
            if how == "send":
                c2.send(1)
            else:
                c2.close()
            select(recv(c1), default=True)
            assert done.recv() != -1, turn
            task.join()

    run_main(main)


@pytest.mark.parametrize("capacity", [0, 10])
def test_a_select_of_a_send_and_a_receive_never_meets_itself(
    capacity: int, workers: int, switch_interval: float
) -> None:
    """TestSelfSelect: two tasks, each ready to send to and to receive from the other, cases in either order."""
    count = scaled(10_000, 100_000)

    def body(ch: Channel[int], who: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for turn in range(count):
            cases = [send(ch, who), recv(ch)]
            if who and turn % 2:
                cases.reverse()
            _, value, ok = select(*cases)
            assert ok
            if value is None:
                seen["sent"] += 1
            else:
                assert capacity > 0 or value == 1 - who
                seen["received"] += 1
        return seen

    def main() -> None:
        ch: Channel[int] = Channel(capacity)
        counts = join_program([spawn(body, ch, who) for who in range(2)])
        total = counts[0] + counts[1]
        assert total["sent"] + total["received"] == 2 * count
        assert total["sent"] - total["received"] == len(ch)
        if capacity == 0:
            assert counts[0]["sent"] == counts[1]["received"]

    run_main(main)


@pytest.mark.parametrize("jitter", [False, True], ids=["", "random yields"])
def test_selects_and_plain_operations_work_the_same_channels(
    jitter: bool, workers: int, seed: int, switch_interval: float
) -> None:
    """TestSelectStress: four plain senders, four plain receivers, a selecting sender and a selecting receiver.

    They share four channels. A selecting task takes a channel out, as None, when its share of it is done.
    """
    count = scaled(2000, 100_000)
    capacities = (0, 0, 2, 3)

    def pause(rng: random.Random) -> None:
        if jitter and rng.random() < 0.1:
            yield_now()

    def plain_send(ch: Channel[int], lane: int) -> None:
        rng = random.Random(f"{seed} send {lane}")
        for number in range(count):
            ch.send(2 * number)
            pause(rng)

    def plain_recv(ch: Channel[int], lane: int) -> list[int]:
        rng = random.Random(f"{seed} recv {lane}")
        got = []
        for _ in range(count):
            got.append(ch.recv())
            pause(rng)
        return got

    def selecting_send(channels: list[Channel[int]]) -> None:
        rng = random.Random(f"{seed} selecting send")
        live: list[Channel[int] | None] = list(channels)
        sent = [0] * len(channels)
        order = list(range(len(channels)))
        while any(live):
            rng.shuffle(order)
            selected = select(*(send(live[lane], 2 * sent[lane] + 1) for lane in order))
            lane = order[selected.index]
            sent[lane] += 1
            if sent[lane] == count:
                live[lane] = None
            pause(rng)

    def selecting_recv(channels: list[Channel[int]]) -> list[list[int]]:
        rng = random.Random(f"{seed} selecting recv")
        live: list[Channel[int] | None] = list(channels)
        got: list[list[int]] = [[] for _ in channels]
        order = list(range(len(channels)))
        while any(live):
            rng.shuffle(order)
            selected = select(*(recv(live[lane]) for lane in order))
            lane = order[selected.index]
            assert selected.ok
            got[lane].append(selected.value)
            if len(got[lane]) == count:
                live[lane] = None
            pause(rng)
        return got

    def main() -> None:
        channels = [Channel[int](capacity) for capacity in capacities]
        senders = [spawn(plain_send, ch, lane) for lane, ch in enumerate(channels)]
        senders.append(spawn(selecting_send, channels))
        receivers = [spawn(plain_recv, ch, lane) for lane, ch in enumerate(channels)]
        by_select = spawn(selecting_recv, channels)
        plain = join_program(receivers)
        selected = by_select.join(timeout=PROGRAM_LIMIT)
        join_program(senders)
        for lane, ch in enumerate(channels):
            assert sorted(plain[lane] + selected[lane]) == list(range(2 * count)), f"seed {seed}, channel {lane}"
            for part in (plain[lane], selected[lane]):
                for parity in range(2):
                    mine = [value for value in part if value % 2 == parity]
                    assert mine == sorted(mine), f"seed {seed}, channel {lane}"
            assert len(ch) == 0

    run_main(main)


class TestFairness:
    @pytest.mark.parametrize("idle", [0, 2])
    def test_two_channels_that_are_always_ready_are_chosen_alike(self, idle: int, workers: int) -> None:
        """TestSelectFairness, with the channels that are never ready first, as there."""
        trials = 10_000

        def main() -> Counter[int]:
            full = [Channel[int](trials + 1) for _ in range(2)]
            for ch in full:
                for number in range(trials + 1):
                    ch.send(number)
            never = [Channel[int]() for _ in range(idle)]
            out: Channel[int] = Channel()
            cases = [recv(ch) for ch in never + full]

            def forward() -> None:
                for _ in range(trials):
                    out.send(select(*cases).index)
                out.close()

            task = spawn(forward)
            counts = Counter(out)
            task.join()
            return counts

        counts = run_main(main)
        assert counts.total() == trials
        assert set(counts) <= {idle, idle + 1}
        # Five standard deviations: a fair select fails once in two million runs.
        assert abs(counts[idle] / trials - 0.5) < 5 / (2 * math.sqrt(trials)), counts

    @pytest.mark.parametrize("capacity", [0, 100])
    def test_two_sends_to_one_channel_are_chosen_alike(self, capacity: int, workers: int) -> None:
        """TestPseudoRandomSend"""
        count = 1000

        def main() -> list[int]:
            ch: Channel[int] = Channel(capacity)

            def consume() -> list[int]:
                got = []
                for _ in range(count):
                    yield_now()
                    got.append(ch.recv())
                return got

            task = spawn(consume)
            zero, one = send(ch, 0), send(ch, 1)
            for _ in range(count):
                select(zero, one)
            return task.join()

        got = run_main(main)
        assert count // 3 < sum(got) < 2 * count // 3


def test_many_consumers_share_a_queue(workers: int, switch_interval: float) -> None:
    """TestMultiConsumer: workers forward what they take, each now and then yielding in the middle."""
    task_count, count = 23, 271_828
    primes = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]

    def main() -> None:
        queue, results = Channel[int](3 * task_count), Channel[int](3 * task_count)
        group = pygo.WaitGroup()

        def work(who: int) -> None:
            for value in queue:
                if value == primes[who % len(primes)]:
                    yield_now()
                results.send(value)

        def feed() -> int:
            expected = 0
            for number in range(count):
                value = primes[number % len(primes)]
                expected += value
                queue.send(value)
            queue.close()
            group.wait()
            results.close()
            return expected

        tasks = [group.go(work, who) for who in range(task_count)]
        feeder = spawn(feed)
        got = total = 0
        for value in results:
            got += 1
            total += value
        assert (got, total) == (count, feeder.join())
        join_all(tasks)

    run_main(main)


class TestDuplicateChannels:
    """TestSelectDuplicateChannel"""

    def test_a_select_with_a_channel_twice_leaves_its_queue_whole(self, workers: int) -> None:
        """The select waits twice on `c`, another task waits behind it; when it ends through `d` that one must stay."""

        def main() -> None:
            c, d, e = Channel[int](), Channel[int](), Channel[int]()

            def twice() -> int:
                index = select(recv(c), recv(c), recv(d)).index
                e.send(9)
                return index

            first = spawn(twice)
            wait_until(lambda: c.waiting_receivers == 2)
            second = spawn(c.recv)
            wait_until(lambda: c.waiting_receivers == 3)
            d.send(7)
            assert e.recv() == 9
            assert first.join() == 2
            wait_until(lambda: c.waiting_receivers == 1)
            c.send(8)
            assert second.join() == 8

        run_main(main)

    @pytest.mark.parametrize("capacity", [0, 3])
    @pytest.mark.parametrize("copies", [2, 5, 40])
    def test_a_value_reaches_one_of_the_cases_only(self, copies: int, capacity: int, workers: int) -> None:
        count = scaled(300, 10_000)

        def main() -> None:
            ch: Channel[int] = Channel(capacity)

            def produce() -> None:
                for number in range(0, count, 2):
                    ch.send(number)
                    select(*[send(ch, number + 1)] * copies)

            task = spawn(produce)
            cases = [recv(ch) for _ in range(copies)]
            assert [select(*cases).value for _ in range(count)] == list(range(count))
            task.join()
            assert (ch.waiting_receivers, ch.waiting_senders, len(ch)) == (0, 0, 0)

        run_main(main)


@pytest.mark.parametrize("jitter", [False, True], ids=["", "random yields"])
def test_ping_pong_over_selects(jitter: bool, workers: int, seed: int) -> None:
    """Two tasks pass a number to and fro, each with a select that could also be stopped."""
    count = scaled(5000, 100_000)

    def player(inbox: Channel[int], outbox: Channel[int], stop: Channel[None], who: int) -> int:
        rng = random.Random(f"{seed} {who}")
        turns = 0
        while True:
            index, value, ok = select(recv(stop), recv(inbox))
            if index == 0:
                return turns
            assert ok and value == 2 * turns + who, f"seed {seed}"
            turns += 1
            if jitter and rng.random() < 0.3:
                yield_now()
            if select(send(outbox, value + 1), recv(stop)).index == 1:
                return turns

    def main() -> None:
        ping, pong, stop = Channel[int](), Channel[int](), Channel[None]()
        last: Channel[int] = Channel()
        tasks = [spawn(player, ping, pong, stop, 0), spawn(player, last, ping, stop, 1)]
        ping.send(0)
        for turn in range(count):
            value = pong.recv()
            assert value == 2 * turn + 1, f"seed {seed}"
            last.send(value)
        stop.close()
        turns = join_all(tasks)
        assert abs(turns[0] - turns[1]) <= 1
        assert min(turns) >= count

    run_main(main)


def test_what_parked_selects_hold_survives_collections(workers: int) -> None:
    """In place of the tests of moving stacks: values that only a waiting select knows, while garbage is collected."""

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number
            self.cycle = self

    count = 200

    def main() -> list[int]:
        dead: Channel[Value] = Channel()
        channels = [Channel[Value]() for _ in range(count)]

        def offer(ch: Channel[Value], number: int) -> int:
            return select(recv(dead), send(ch, Value(number)), send(ch, Value(number))).index

        tasks = [spawn(offer, ch, number) for number, ch in enumerate(channels)]
        wait_until(lambda: dead.waiting_receivers == count)
        got = []
        for number, ch in enumerate(channels):
            if number % 20 == 0:
                gc.collect()
                [Value(-1) for _ in range(1000)]
            got.append(select(recv(ch), recv(dead)).value.number)
        assert set(join_all(tasks)) <= {1, 2}
        return got

    assert run_main(main) == list(range(count))


SHAPES: dict[str, Callable[[Channel[Any], int], Any]] = {
    "plain": lambda ch, number: ch.send(number),
    "select": lambda ch, number: select(send(ch, number)),
    "try": lambda ch, number: ch.try_send(number) or ch.send(number),
    "select or wait": lambda ch, number: (
        select(send(ch, number), default=True).index == 0 or select(send(ch, number), send(None, number))
    ),
    "timeout": lambda ch, number: ch.send(number, timeout=PROGRAM_LIMIT),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("capacity", [0, 1, 100])
def test_a_producer_and_a_consumer_that_work_meanwhile(capacity: int, shape: str, workers: int, seed: int) -> None:
    """After the benchmarks of producers and consumers: each works a random while between its operations."""
    count = scaled(300, 10_000)
    operation = SHAPES[shape]

    def work(rng: random.Random) -> None:
        for _ in range(rng.choice((0, 0, 10, 200))):
            pass
        if rng.random() < 0.05:
            yield_now()

    def main() -> list[int]:
        ch: Channel[int] = Channel(capacity)

        def produce() -> None:
            rng = random.Random(f"{seed} producer")
            for number in range(count):
                work(rng)
                operation(ch, number)
            ch.close()

        task = spawn(produce)
        rng = random.Random(f"{seed} consumer")
        got = []
        for value in ch:
            got.append(value)
            work(rng)
        task.join()
        return got

    assert run_main(main) == list(range(count)), f"seed {seed}"
