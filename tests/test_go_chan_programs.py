"""The behaviours of the channel programs in Go's test directory, as tests. docs/testing.md has the table."""

from __future__ import annotations

import contextlib
import gc
import heapq
import itertools
import resource
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import factorial
from typing import Any

import pytest
from helpers import HANG, LONG_TESTS, PROGRAM_LIMIT, join_all, run_main, run_program, scaled, wait_until

import pygo
from pygo import Channel, ChannelClosed, recv, select, send, spawn

pytestmark = pytest.mark.timeout(1200 if LONG_TESTS else 120)

# What goes through channels unchanged, those that count as false above all: they must not be taken for "nothing".
VALUES = [0, 1, -(1 << 70), False, True, 2.5, 1j, "", "text", b"", None, (), [], {}, len, object()]


def waits(task: pygo.Task[Any]) -> bool:
    return task.state == "waiting"


class TestDoubleSelect:
    """doubleselect.go: a value offered to four channels goes to exactly one of them."""

    @pytest.mark.parametrize("sides", ["select to plain", "plain to select", "select to select"])
    def test_a_select_never_does_two_of_its_cases(self, sides: str, workers: int, switch_interval: float) -> None:
        count = scaled(20_000, 100_000)
        ends: Channel[list[int]] = Channel(4)

        def send_by_select(channels: list[Channel[int]]) -> None:
            for number in range(count):
                select(*(send(ch, number) for ch in channels))
            for ch in channels:
                ch.close()

        def send_plainly(ch: Channel[int], numbers: range) -> None:
            for number in numbers:
                ch.send(number)
            ch.close()

        def receive_plainly(ch: Channel[int]) -> None:
            ends.send(list(ch))

        def receive_by_select(channels: list[Channel[int]]) -> None:
            sources: list[Channel[int] | None] = list(channels)
            got = []
            while any(sources):
                selected = select(*map(recv, sources))
                if selected.ok:
                    got.append(selected.value)
                else:
                    sources[selected.index] = None
            ends.send(got)

        def main() -> list[int]:
            channels: list[Channel[int]] = [Channel() for _ in range(4)]
            if sides.startswith("select"):
                tasks = [spawn(send_by_select, channels)]
            else:
                tasks = [spawn(send_plainly, ch, range(i, count, 4)) for i, ch in enumerate(channels)]
            if sides.endswith("select"):
                tasks.append(spawn(receive_by_select, channels))
                parts = 1
            else:
                tasks += [spawn(receive_plainly, ch) for ch in channels]
                parts = 4
            got = [value for _ in range(parts) for value in ends.recv()]
            join_all(tasks)
            return got

        assert sorted(run_main(main)) == list(range(count))


class TestFifo:
    """fifo.go"""

    @pytest.mark.parametrize("capacity", [1, 2, 10])
    def test_a_buffered_channel_keeps_the_order(self, capacity: int) -> None:
        ch: Channel[int] = Channel(capacity)
        for number in range(capacity):
            ch.send(number)
        assert [ch.recv() for _ in range(capacity)] == list(range(capacity))

    def test_receivers_that_queue_on_a_channel_are_served_in_order(self, workers: int) -> None:
        """Each link starts to receive only after the one before it, and must get the value of its place."""
        count = 100
        ch: Channel[int] = Channel()

        def main() -> list[int]:
            tasks = []
            for number in range(count):
                tasks.append(spawn(ch.recv))
                wait_until(lambda number=number: ch.waiting_receivers == number + 1)  # type: ignore[misc]
            for number in range(count):
                ch.send(number)
            return join_all(tasks)

        assert run_main(main) == list(range(count))

    def test_senders_that_queue_on_a_channel_are_served_in_order(self, workers: int) -> None:
        count = 100
        ch: Channel[int] = Channel()

        def main() -> list[int]:
            tasks = []
            for number in range(count):
                tasks.append(spawn(ch.send, number))
                wait_until(lambda number=number: ch.waiting_senders == number + 1)  # type: ignore[misc]
            got = [ch.recv() for _ in range(count)]
            join_all(tasks)
            return got

        assert run_main(main) == list(range(count))

    def test_a_chain_of_links_takes_turns_on_one_channel(self, workers: int) -> None:
        """Each link waits for its predecessor, takes one value from the common channel and releases its successor."""
        count = 1000
        ch: Channel[int] = Channel()

        def link(before: Channel[None], after: Channel[None]) -> int:
            before.recv()
            value = ch.recv()
            after.send(None)
            return value

        def main() -> list[int]:
            first = before = Channel[None]()
            tasks = []
            for _ in range(count):
                after: Channel[None] = Channel()
                tasks.append(spawn(link, before, after))
                before = after
            first.send(None)
            for number in range(count):
                ch.send(number)
            before.recv()
            return join_all(tasks)

        assert run_main(main) == list(range(count))


def test_a_value_passes_a_chain_of_ten_thousand_tasks(workers: int, switch_interval: float) -> None:
    """goroutines.go"""

    def main() -> int:
        first = right = Channel[int]()
        tasks = []
        for _ in range(10_000):
            left, right = right, Channel()
            tasks.append(spawn(lambda left, right: right.send(left.recv() + 1), left, right))
        first.send(0)
        result = right.recv()
        join_all(tasks)
        return result

    assert run_main(main) == 10_000


class TestNonblock:
    """nonblock.go: operations that never wait, in every state of a channel. Both spellings of them."""

    @pytest.fixture(params=["try", "select with default"])
    def ways(self, request: pytest.FixtureRequest) -> tuple[Callable[..., bool], Callable[..., tuple[Any, bool]]]:
        if request.param == "try":
            return (lambda ch, value: ch.try_send(value)), (lambda ch: ch.try_recv())

        def try_send(ch: Channel[Any], value: Any) -> bool:
            return select(send(ch, value), default=True).index == 0

        def try_recv(ch: Channel[Any]) -> tuple[Any, bool]:
            selected = select(recv(ch), default=True)
            return selected.value, selected.ok

        return try_send, try_recv

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_without_a_buffer_they_need_a_partner_that_waits(self, value: Any, ways: Any) -> None:
        try_send, try_recv = ways
        ch: Channel[Any] = Channel()
        assert try_recv(ch) == (None, False)
        assert try_send(ch, value) is False
        assert len(ch) == 0

        receiver = spawn(ch.recv)
        wait_until(lambda: ch.waiting_receivers == 1)
        assert try_recv(ch) == (None, False)
        assert try_send(ch, value) is True
        assert try_send(ch, value) is False
        assert receiver.join(timeout=HANG) is value

        sender = spawn(ch.send, value)
        wait_until(lambda: ch.waiting_senders == 1)
        assert try_send(ch, value) is False
        got, ok = try_recv(ch)
        assert got is value and ok is True
        assert try_recv(ch) == (None, False)
        sender.join(timeout=HANG)

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_with_a_buffer_they_need_room_or_a_value(self, value: Any, ways: Any) -> None:
        try_send, try_recv = ways
        ch: Channel[Any] = Channel(2)
        assert try_recv(ch) == (None, False)
        for sent in (True, True, False):
            assert try_send(ch, value) is sent
        sender = spawn(ch.send, value)
        wait_until(lambda: ch.waiting_senders == 1)
        for _ in range(3):
            got, ok = try_recv(ch)
            assert got is value and ok is True
        assert try_recv(ch) == (None, False)
        sender.join(timeout=HANG)

    @pytest.mark.parametrize("capacity", [0, 1, 5])
    def test_pairs_of_tasks_that_poll_exchange_everything(self, capacity: int, ways: Any, workers: int) -> None:
        try_send, try_recv = ways
        count = scaled(10_000, 100_000)
        ch: Channel[int] = Channel(capacity)

        def produce() -> None:
            for number in range(count):
                if capacity == 0:  # two that only poll never meet there
                    ch.send(number)
                while capacity != 0 and not try_send(ch, number):
                    pygo.yield_now()

        def consume() -> list[int]:
            got: list[int] = []
            while len(got) < count:
                value, ok = try_recv(ch)
                if ok:
                    got.append(value)
                else:
                    pygo.yield_now()
            return got

        producer, consumer = spawn(produce), spawn(consume)
        assert consumer.join(timeout=PROGRAM_LIMIT) == list(range(count))
        producer.join(timeout=HANG)


class TestPerm:
    """perm.go: what a one-directional view forbids. Go's compiler refuses it; here the view has no such method."""

    @pytest.mark.parametrize("name", ["send", "try_send", "close", "sender", "receiver"])
    def test_a_receiving_view_cannot(self, name: str) -> None:
        with pytest.raises(AttributeError):
            getattr(Channel[int](1).receiver, name)

    @pytest.mark.parametrize("name", ["recv", "recv_ok", "try_recv", "__iter__", "__next__", "sender", "receiver"])
    def test_a_sending_view_cannot(self, name: str) -> None:
        with pytest.raises(AttributeError):
            getattr(Channel[int](1).sender, name)

    def test_a_sending_view_cannot_be_iterated(self) -> None:
        with pytest.raises(TypeError):
            iter(Channel[int](1).sender)  # type: ignore[call-overload]

    def test_a_case_of_the_wrong_direction_is_refused(self) -> None:
        ch: Channel[int] = Channel(1)
        with pytest.raises(TypeError):
            recv(ch.sender)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            send(ch.receiver, 1)  # type: ignore[call-overload]
        assert len(ch) == 0

    def test_what_the_views_allow_acts_on_the_channel(self) -> None:
        ch: Channel[int] = Channel(2)
        ch.sender.send(1)
        assert ch.sender.try_send(2) is True
        assert (len(ch.sender), ch.receiver.capacity) == (2, 2)
        assert ch.receiver.recv() == 1
        assert ch.receiver.try_recv() == (2, True)
        ch.sender.close()
        assert list(ch.receiver) == []


class PowerSeries:
    """A few operations on power series, each series a task that computes a coefficient when asked for one.

    After powser1.go and M. D. McIlroy, "Squinting at Power Series" (1990). A series is a pair of channels: a request on
    the first is answered by the next coefficient on the second. Series are infinite: `close` ends all of their tasks.
    """

    Series = tuple[Channel[None], Channel[Fraction]]

    def __init__(self) -> None:
        self.channels: list[Channel[Any]] = []
        self.tasks: list[pygo.Task[None]] = []

    def close(self) -> None:
        for ch in self.channels:
            with contextlib.suppress(ChannelClosed):
                ch.close()
        join_all(self.tasks)

    def channel(self) -> Channel[Any]:
        ch: Channel[Any] = Channel()
        self.channels.append(ch)
        return ch

    def start(self, body: Callable[..., None], *args: Any) -> None:
        def guarded() -> None:
            with contextlib.suppress(ChannelClosed):
                body(*args)

        self.tasks.append(spawn(guarded))

    def series(self, coefficients: Iterator[Fraction]) -> Series:
        asked, answers = self.channel(), self.channel()

        def body() -> None:
            for _ in asked:
                answers.send(next(coefficients))

        self.start(body)
        return asked, answers

    @staticmethod
    def get(f: Series) -> Fraction:
        f[0].send(None)
        return f[1].recv()

    @staticmethod
    def get_both(f: Series, g: Series) -> tuple[Fraction, Fraction]:
        """One coefficient of each, asked for and received in whatever order they are ready."""
        cases = [send(f[0], None), send(g[0], None), recv(None), recv(None)]
        got: list[Fraction] = [Fraction(0)] * 2
        for _ in range(4):
            index, value, ok = select(*cases)
            cases[index] = recv(None)
            if index < 2:
                cases[index + 2] = recv((f, g)[index][1])
            elif ok:
                got[index - 2] = value
            else:
                raise ChannelClosed
        return got[0], got[1]

    def split(self, f: Series) -> tuple[Series, Series]:
        """Twice the same series: what one reader has taken is kept for the other.

        While one reader waits for a new coefficient the other gets what is kept: in a feedback the new depends on it.
        """
        readers = [(self.channel(), self.channel()) for _ in range(2)]
        kept: list[deque[Fraction]] = [deque(), deque()]

        def body() -> None:
            waiting, asked = [False, False], False
            while True:
                ask = f[0] if any(waiting) and not asked else None
                requests = [None if busy else reader[0] for busy, reader in zip(waiting, readers, strict=True)]
                index, value, ok = select(*map(recv, requests), send(ask, None), recv(f[1] if asked else None))
                if not ok:
                    return
                if index == 2:
                    asked = True
                elif index == 3:
                    asked = False
                    for queue in kept:
                        queue.append(value)
                else:
                    waiting[index] = True
                for reader in range(2):
                    if waiting[reader] and kept[reader]:
                        readers[reader][1].send(kept[reader].popleft())
                        waiting[reader] = False

        self.start(body)
        return readers[0], readers[1]

    def take(self, f: Series, count: int) -> list[Fraction]:
        return [self.get(f) for _ in range(count)]

    def rest(self, f: Series) -> Iterator[Fraction]:
        while True:
            yield self.get(f)

    def constant(self, value: int) -> Series:
        return self.series(itertools.chain([Fraction(value)], itertools.repeat(Fraction(0))))

    def ones(self) -> Series:
        return self.series(itertools.repeat(Fraction(1)))

    def add(self, f: Series, g: Series) -> Series:
        return self.series(itertools.starmap(lambda a, b: a + b, iter(lambda: self.get_both(f, g), None)))

    def scale(self, factor: Fraction, f: Series) -> Series:
        return self.series(factor * value for value in self.rest(f))

    def shift(self, first: Fraction, f: Series) -> Series:
        """first + x f"""
        return self.series(itertools.chain([first], self.rest(f)))

    def multiply(self, f: Series, g: Series) -> Series:
        """(f0 + x F)(g0 + x G) = f0 g0 + x (f0 G + g0 F + x F G)"""

        def coefficients() -> Iterator[Fraction]:
            first_f, first_g = self.get_both(f, g)
            yield first_f * first_g
            (f1, f2), (g1, g2) = self.split(f), self.split(g)
            linear = self.add(self.scale(first_f, g1), self.scale(first_g, f1))
            yield from self.rest(self.add(linear, self.shift(Fraction(0), self.multiply(f2, g2))))

        return self.series(coefficients())

    def derivative(self, f: Series) -> Series:
        terms = enumerate(self.rest(f))
        return self.series(power * value for power, value in itertools.islice(terms, 1, None))

    def integral(self, constant: Fraction, f: Series) -> Series:
        terms = (value / power for power, value in zip(itertools.count(1), self.rest(f)))
        return self.series(itertools.chain([constant], terms))

    def substitute(self, f: Series, factor: int, power: int) -> Series:
        """f(factor x^power)"""

        def coefficients() -> Iterator[Fraction]:
            for exponent in itertools.count():
                yield self.get(f) * factor**exponent
                yield from [Fraction(0)] * (power - 1)

        return self.series(coefficients())

    def reciprocal(self, f: Series) -> Series:
        """z f = 1, thus z0 = 1 / f0 and Z = -z0 F z."""
        return self.feedback(
            lambda z, first: self.scale(-first, self.multiply(self.series(self.rest(f)), z)),
            lambda: 1 / self.get(f),
        )

    def exponential(self, f: Series) -> Series:
        """z' = f' z for an f without constant term."""
        return self.solve(Fraction(1), lambda z: self.multiply(self.derivative(f), z))

    def solve(self, start: Fraction, slope: Callable[[Series], Series]) -> Series:
        """The z with z(0) = start and z' = slope(z): its own output is its input."""
        return self.feedback(
            lambda z, first: self.series(
                value / power for power, value in zip(itertools.count(1), self.rest(slope(z)))
            ),
            lambda: start,
        )

    def feedback(self, tail: Callable[[Series, Fraction], Series], first: Callable[[], Fraction]) -> Series:
        readers: list[PowerSeries.Series] = []

        def coefficients() -> Iterator[Fraction]:
            value = first()
            yield value
            yield from self.rest(tail(readers[0], value))

        once, out = self.split(self.series(coefficients()))
        readers.append(once)
        return out


class TestPowerSeries:
    """powser1.go, powser2.go"""

    COUNT = scaled(10, 20)

    @pytest.fixture
    def ps(self, workers: int) -> Iterator[PowerSeries]:
        machine = PowerSeries()
        yield machine
        machine.close()

    def check(self, ps: PowerSeries, make: Callable[[], PowerSeries.Series], expected: Callable[[int], Any]) -> None:
        got = run_main(lambda: ps.take(make(), self.COUNT))
        assert got == [Fraction(expected(power)) for power in range(self.COUNT)]

    def test_a_sum(self, ps: PowerSeries) -> None:
        self.check(ps, lambda: ps.add(ps.ones(), ps.scale(Fraction(3), ps.ones())), lambda n: 4)

    def test_a_product(self, ps: PowerSeries) -> None:
        self.check(ps, lambda: ps.multiply(ps.ones(), ps.ones()), lambda n: n + 1)

    def test_a_derivative(self, ps: PowerSeries) -> None:
        self.check(ps, lambda: ps.derivative(ps.multiply(ps.ones(), ps.ones())), lambda n: (n + 1) * (n + 2))

    def test_an_integral_undoes_a_derivative(self, ps: PowerSeries) -> None:
        self.check(ps, lambda: ps.integral(Fraction(1), ps.derivative(ps.ones())), lambda n: 1)

    def test_a_reciprocal(self, ps: PowerSeries) -> None:
        def make() -> PowerSeries.Series:  # 1 / (1 - x)
            return ps.reciprocal(ps.series(itertools.chain(map(Fraction, [1, -1]), itertools.repeat(Fraction(0)))))

        self.check(ps, make, lambda n: 1)

    def test_the_exponential(self, ps: PowerSeries) -> None:
        self.check(
            ps, lambda: ps.exponential(ps.shift(Fraction(0), ps.constant(1))), lambda n: Fraction(1, factorial(n))
        )

    def test_the_exponential_of_a_product_is_its_own_equation(self, ps: PowerSeries) -> None:
        """exp(f) exp(-f) = 1 for f = x / (1 - x)."""

        def make() -> PowerSeries.Series:
            f, g = (ps.shift(Fraction(0), ps.ones()) for _ in range(2))
            return ps.multiply(ps.exponential(f), ps.exponential(ps.scale(Fraction(-1), g)))

        self.check(ps, make, lambda n: int(n == 0))

    def test_the_arc_tangent(self, ps: PowerSeries) -> None:
        self.check(
            ps,
            lambda: ps.integral(Fraction(0), ps.substitute(ps.ones(), -1, 2)),
            lambda n: Fraction((-1) ** (n // 2), n) if n % 2 else 0,
        )

    def test_the_tangent(self, ps: PowerSeries) -> None:
        """z' = 1 + z z"""
        known = map(Fraction, "0 1 0 1/3 0 2/15 0 17/315 0 62/2835".split())
        got = run_main(
            lambda: ps.take(
                ps.solve(Fraction(0), lambda z: ps.add(ps.constant(1), ps.multiply(*ps.split(z)))), self.COUNT
            )
        )
        assert all(value == expected for value, expected in zip(got, known, strict=False))


def test_cases_are_switched_off_one_by_one_and_all_values_are_made_for_every_select() -> None:
    """select.go"""
    made = 0

    def make(bit: int) -> int:
        nonlocal made
        made += 1
        return 1 << bit

    def fill(a: Channel[int] | None, b: Channel[int] | None) -> int:
        for bit in itertools.count():
            selected = select(send(a, make(bit)), send(b, make(bit)), default=True)
            if selected.index == -1:
                return bit
            if selected.index == 0:
                a = None
            else:
                b = None
        raise AssertionError

    a, b = Channel[int](1), Channel[int](1)
    assert fill(a, b) == 2
    assert a.recv() | b.recv() == 3
    assert fill(a, None) == 1
    assert a.recv() == 1
    assert made == 10


@pytest.mark.parametrize("waiting", [False, True], ids=["ready", "waiting"])
def test_selects_whose_other_case_never_happens_take_no_memory(waiting: bool, workers: int) -> None:
    """select2.go: each of many selects links a waiter into a channel that nobody ever uses."""
    count = scaled(30_000, 100_000)
    dummy: Channel[int] = Channel()

    def produce(ch: Channel[int], amount: int) -> None:
        for number in range(amount):
            select(send(ch, number), recv(dummy))

    def consume(ch: Channel[int], amount: int) -> None:
        for _ in range(amount):
            select(recv(ch), recv(dummy))

    def main(amount: int) -> None:
        ch: Channel[int] = Channel(0 if waiting else 1)
        join_all([spawn(produce, ch, amount), spawn(consume, ch, amount)], timeout=PROGRAM_LIMIT)

    def used() -> tuple[int, int]:
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return sys.getallocatedblocks(), pages * resource.getpagesize()

    run_main(main, count // 5)
    blocks, resident = used()
    run_main(main, count)
    more_blocks, more_resident = used()
    assert more_blocks - blocks < count // 10
    assert more_resident - resident < (16 << 10) + count * 20 + (512 << 10)
    assert dummy.waiting_receivers == 0


def test_every_kind_of_select_blocks_or_goes_on(workers: int) -> None:
    """select3.go, in a program of its own, for what blocks there blocks for ever."""
    program = run_program(
        """
        import os, time
        from pygo import Channel, ChannelClosed, recv, select, send, spawn

        def closed(capacity=0):
            ch = Channel(capacity)
            ch.close()
            return ch

        def full():
            ch = Channel(1)
            ch.send("old")
            return ch

        nothing = [recv(None), send(None, 7)]
        blocking = {
            "empty select": lambda: select(),
            "None, receive": lambda: select(recv(None)),
            "None, send": lambda: select(send(None, 7)),
            "None, both": lambda: select(*nothing),
            "recv, no buffer": lambda: Channel().recv(),
            "send, no buffer": lambda: Channel().send(7),
            "recv, empty buffer": lambda: Channel(10).recv(),
            "send, full buffer": lambda: full().send(7),
            "select recv, no buffer": lambda: select(recv(Channel())),
            "select send, no buffer": lambda: select(send(Channel(), 7)),
            "select both, no buffer": lambda: (lambda ch: select(recv(ch), send(ch, 7)))(Channel()),
            "select recv, empty buffer": lambda: select(recv(Channel(10))),
            "select send, full buffer": lambda: select(send(full(), 7)),
            "select of many that block": lambda: select(
                *nothing, recv(Channel()), send(Channel(), 7), recv(Channel(10)), send(full(), 7)
            ),
            "iteration": lambda: next(Channel()),
        }
        going_on = {
            "default alone": (lambda: select(default=True).index, -1),
            "None, default": (lambda: select(*nothing, default=True).index, -1),
            "recv, closed": (lambda: closed().recv_ok(), (None, False)),
            "recv, closed with buffer": (lambda: closed(10).recv_ok(), (None, False)),
            "recv, full buffer": (lambda: full().recv(), "old"),
            "send, room": (lambda: Channel(10).send(7), None),
            "select recv, closed": (lambda: select(recv(closed())), (0, None, False)),
            "select recv, closed, among None": (lambda: select(*nothing, recv(closed())), (2, None, False)),
            "select recv, closed, or default": (lambda: select(recv(closed()), default=True), (0, None, False)),
            "select recv, full buffer": (lambda: select(recv(full())), (0, "old", True)),
            "select send, room": (lambda: select(send(Channel(10), 7)), (0, None, True)),
            "select recv, no buffer, or default": (lambda: select(recv(Channel()), default=True).index, -1),
            "select send, no buffer, or default": (lambda: select(send(Channel(), 7), default=True).index, -1),
            "select recv, empty buffer, or default": (lambda: select(recv(Channel(10)), default=True).index, -1),
            "select send, full buffer, or default": (lambda: select(send(full(), 7), default=True).index, -1),
            "select of both ways that fit": (
                lambda: (lambda ch: select(recv(ch), send(ch, 7)))(Channel(1)).index, 1),
        }
        raising = {
            "recv, closed": lambda: closed().recv(),
            "send, closed": lambda: closed().send(7),
            "send, closed with buffer": lambda: closed(10).send(7),
            "select send, closed": lambda: select(send(closed(), 7)),
            "select send, closed, or default": lambda: select(send(closed(), 7), default=True),
            "close twice": lambda: closed().close(),
        }
        blocked = {name: spawn(body) for name, body in blocking.items()}
        for name, (body, expected) in going_on.items():
            result = spawn(body).join(timeout=30)
            assert result == expected, (name, result)
        for name, body in raising.items():
            assert isinstance(spawn(body).exception(timeout=30), ChannelClosed), name
        deadline = time.monotonic() + 30
        while waiting_for := [name for name, task in blocked.items() if task.state != "waiting"]:
            assert time.monotonic() < deadline, waiting_for
            time.sleep(0.001)
        for _ in range(100):  # and stay there while others run
            spawn(int).join()
        assert not [name for name, task in blocked.items() if task.done()]
        print("ok")
        os._exit(0)
        """,
        env={"PYGO_WORKERS": str(workers)},
    ).ok()
    assert program.out == "ok\n"


def test_what_a_select_received_is_stored_only_for_the_chosen_case() -> None:
    """select4.go. Here the caller stores; the other channel's value must still be there."""
    stored: dict[int, int] = {}
    channels = [Channel[int](1) for _ in range(2)]
    channels[1].send(42)
    selected = select(*map(recv, channels))
    stored[selected.index] = selected.value
    assert stored == {1: 42}
    for ch in channels:
        ch.send(7)
    index = select(*map(recv, channels)).index
    assert len(channels[index]) == 0
    assert channels[1 - index].recv() == 7


class TestOrderOfEvaluation:
    """select5.go: channels and values are evaluated once each, from left to right, whichever case is chosen."""

    @pytest.mark.parametrize("ready", [0, 1, 2, 3, None])
    def test_all_operands_are_evaluated_once_in_order(self, ready: int | None) -> None:
        log: list[str] = []
        channels = [Channel[str](1) for _ in range(4)]
        for number in (1, 3):
            channels[number].send("filler")  # a send is ready where there is room
        if ready is not None and ready % 2 == 0:
            channels[ready].send("value")
        elif ready is not None:
            channels[ready].recv()

        def note(name: str, value: Any) -> Any:
            log.append(name)
            return value

        selected = select(
            recv(note("c0", channels[0])),
            send(note("c1", channels[1]), note("v1", "new")),
            recv(note("c2", channels[2])),
            send(note("c3", channels[3]), note("v3", "new")),
            default=note("default", True),
        )
        assert selected.index == (-1 if ready is None else ready)
        assert log == ["c0", "c1", "v1", "c2", "c3", "v3", "default"]

    def test_a_channel_of_a_channel_is_received_before_the_select_begins(self) -> None:
        inner: Channel[int] = Channel(1)
        outer: Channel[Channel[int]] = Channel(1)
        inner.send(5)
        outer.send(inner)
        assert select(recv(outer.recv()), recv(outer)) == (0, 5, True)

    def test_an_operand_that_fails_leaves_the_channels_alone(self) -> None:
        ch: Channel[int] = Channel(1)
        with pytest.raises(ZeroDivisionError):
            select(send(ch, 1), send(ch, 1 // 0))
        assert len(ch) == 0


class TestLosingCasesLeaveTheQueuesIntact:
    """select6.go: a select that lost was last in the queue of a channel on which others wait and will wait."""

    def test_of_receivers(self, workers: int) -> None:
        def main() -> list[int]:
            c1, c2, c3 = Channel[int](), Channel[int](), Channel[int]()

            def loser() -> int:
                assert select(recv(c1), recv(c2)).index == 1
                c3.send(0)
                return c1.recv()

            first = spawn(c1.recv)
            wait_until(lambda: c1.waiting_receivers == 1)
            second = spawn(loser)
            wait_until(lambda: c1.waiting_receivers == 2)
            c2.send(0)
            c3.recv()
            wait_until(lambda: c1.waiting_receivers == 2)
            c1.send(1)
            c1.send(2)
            return [first.join(), second.join()]

        assert run_main(main) == [1, 2]

    def test_of_senders(self, workers: int) -> None:
        def main() -> list[int]:
            c1, c2, c3 = Channel[int](), Channel[int](), Channel[int]()

            def loser() -> None:
                assert select(send(c1, -1), recv(c2)).index == 1
                c3.send(0)
                c1.send(2)

            first = spawn(c1.send, 1)
            wait_until(lambda: c1.waiting_senders == 1)
            second = spawn(loser)
            wait_until(lambda: c1.waiting_senders == 2)
            c2.send(0)
            c3.recv()
            wait_until(lambda: c1.waiting_senders == 2)
            got = [c1.recv(), c1.recv()]
            join_all([first, second])
            return got

        assert run_main(main) == [1, 2]

    @pytest.mark.parametrize("capacity", [1, 3])
    def test_of_a_buffer_whose_order_stays(self, capacity: int, workers: int) -> None:
        """Two tasks stand in two selects each while the buffers are full; then everything comes out in its order."""

        def main() -> None:
            a, b = Channel[tuple[str, int]](capacity), Channel[tuple[str, int]](capacity)
            for number in range(capacity):
                a.send(("buffer", number))
                b.send(("buffer", number))

            def offer(name: str) -> list[int]:
                return [select(send(a, (name, turn)), send(b, (name, turn))).index for turn in range(20)]

            tasks = [spawn(offer, name) for name in "xy"]
            got: list[list[tuple[str, int]]] = [[], []]
            for turn in range(2 * capacity + 40):
                index, value, ok = select(recv(a), recv(b)) if turn % 3 else select(recv(b), recv(a))
                assert ok
                got[index if turn % 3 else 1 - index].append(value)
            chosen = dict(zip("xy", join_all(tasks), strict=True))
            for side, values in enumerate(got):
                assert [value for value in values if value[0] == "buffer"] == values[:capacity]
                for name in "xy":
                    mine = [turn for who, turn in values if who == name]
                    assert mine == [turn for turn, index in enumerate(chosen[name]) if index == side]

        run_main(main)


RECEIVES: dict[str, Callable[[Channel[int]], Any]] = {
    "recv": lambda ch: ch.recv(),
    "recv_ok": lambda ch: ch.recv_ok(),
    "iteration": lambda ch: next(ch),
    "select": lambda ch: select(recv(ch)),
    "select with a dead case": lambda ch: select(recv(ch), recv(Channel())),
    "select with None": lambda ch: select(recv(None), recv(ch)),
}
SENDS: dict[str, Callable[[Channel[int]], Any]] = {
    "send": lambda ch: ch.send(1),
    "select": lambda ch: select(send(ch, 1)),
    "select with a dead case": lambda ch: select(send(ch, 1), recv(Channel())),
    "select with itself": lambda ch: select(send(ch, 1), send(ch, 1)),
}


class TestReceiveWithoutUse:
    """select7.go: every way to receive meets every way to send, whoever comes first, used or thrown away."""

    def test_all_pairs(self, workers: int) -> None:
        def main() -> None:
            for way_in, way_out in itertools.product(SENDS, RECEIVES):
                ch: Channel[int] = Channel()
                for first, second, counter in (
                    (RECEIVES[way_out], SENDS[way_in], lambda ch=ch: ch.waiting_receivers),
                    (SENDS[way_in], RECEIVES[way_out], lambda ch=ch: ch.waiting_senders),
                ):
                    partner = spawn(first, ch)
                    wait_until(counter, what=f"{way_in}, {way_out}")
                    second(ch)
                    partner.join(timeout=HANG)
                assert (ch.waiting_receivers, ch.waiting_senders, len(ch)) == (0, 0, 0), (way_in, way_out)

        run_main(main)


class TestSendStatement:
    """sendstmt.go"""

    @pytest.mark.parametrize("left", [False, True])
    @pytest.mark.parametrize("right", [False, True])
    def test_the_result_of_an_expression_is_sent(self, left: bool, right: bool) -> None:
        ch: Channel[bool] = Channel(2)
        ch.send(left or right)
        ch.send(left is right)
        assert [ch.recv(), ch.recv()] == [left or right, left is right]

    def test_a_channel_sent_through_a_channel_can_be_used_in_the_same_select(self) -> None:
        carrier: Channel[Channel[int]] = Channel(1)
        ch: Channel[int] = Channel(1)
        carrier.send(ch)
        assert select(send(carrier.recv(), 2), default=True).index == 0
        assert ch.recv() == 2


@pytest.mark.parametrize("capacity", [0, 1, 1000])
def test_values_without_content_are_counted_like_others(capacity: int, workers: int) -> None:
    """zerosize.go"""
    ch: Channel[None] = Channel(capacity)
    for number in range(capacity):
        assert len(ch) == number
        assert ch.try_send(None) is True
    assert ch.try_send(None) is False
    sender = spawn(ch.send, None)
    wait_until(lambda: ch.waiting_senders == 1)
    for _ in range(capacity + 1):
        assert ch.recv_ok() == (None, True)
    sender.join(timeout=HANG)
    assert ch.try_recv() == (None, False)
    ch.close()
    assert ch.recv_ok() == (None, False)


PRIMES_UP_TO_100 = [n for n in range(2, 100) if all(n % divisor for divisor in range(2, n))]


def test_the_sieve_of_filters_finds_primes(workers: int, switch_interval: float) -> None:
    """sieve1.go: a filter per prime, in a growing chain."""
    limit = scaled(1000, 5000)

    def generate(out: Channel[int]) -> None:
        with contextlib.suppress(ChannelClosed):
            for number in itertools.count(2):
                out.send(number)

    def strain(source: Channel[int], out: Channel[int], prime: int) -> None:
        with contextlib.suppress(ChannelClosed):
            for number in source:
                if number % prime:
                    out.send(number)

    def main() -> list[int]:
        source: Channel[int] = Channel()
        channels, primes, tasks = [source], [], [spawn(generate, source)]
        while (prime := source.recv()) < limit:
            primes.append(prime)
            out: Channel[int] = Channel()
            tasks.append(spawn(strain, source, out, prime))
            channels.append(out)
            source = out
        for ch in channels:
            ch.close()
        join_all(tasks)
        return primes

    primes = run_main(main)
    assert primes == [n for n in range(2, limit) if all(n % divisor for divisor in range(2, n))]


def test_the_sieve_of_merged_multiples_finds_primes(workers: int) -> None:
    """sieve2.go: primes are the odd numbers missing from the merged multiples of the primes found: a loop of channels.

    The primes go back to the merger through a task that keeps any number of them, or the loop would lock up.
    """
    count = scaled(500, 5000)

    def unbounded(source: Channel[int], out: Channel[int]) -> None:
        kept: deque[int] = deque()
        while True:
            selected = select(recv(source), send(out if kept else None, kept[0] if kept else None))
            if selected.index == 1:
                kept.popleft()
            elif selected.ok:
                kept.append(selected.value)
            else:
                return

    def multiples(prime: int, out: Channel[int]) -> None:
        for number in itertools.count(prime * prime, 2 * prime):
            out.send(number)

    def merge(primes: Channel[int], out: Channel[int], start: Callable[..., Any]) -> None:
        """Ascending, without repetition. The multiples of a prime begin at its square, so it waits until then."""
        following = primes.recv()
        heads: list[tuple[int, int, Channel[int]]] = []
        last = 0
        while True:
            if not heads or following * following <= heads[0][0]:
                source: Channel[int] = Channel()
                start(multiples, following, source)
                heapq.heappush(heads, (source.recv(), following, source))
                following = primes.recv()
                continue
            number, prime, source = heads[0]
            if number != last:
                out.send(number)
                last = number
            heapq.heapreplace(heads, (source.recv(), prime, source))

    def sieve(found: Channel[int], back: Channel[int], composites: Channel[int]) -> None:
        found.send(2)
        for number in (3, 5, 7):
            found.send(number)
            back.send(number)
        composite = composites.recv()
        for number in itertools.count(9, 2):
            if number == composite:
                composite = composites.recv()
            else:
                found.send(number)
                back.send(number)

    def main() -> list[int]:
        tasks: list[pygo.Task[None]] = []
        used: set[Channel[int]] = set()

        def start(body: Callable[..., None], *args: Any) -> None:
            used.update(arg for arg in args if isinstance(arg, Channel))

            def guarded() -> None:
                with contextlib.suppress(ChannelClosed):
                    body(*args)

            tasks.append(spawn(guarded))

        found, back, primes, composites = (Channel[int]() for _ in range(4))
        start(unbounded, back, primes)
        start(merge, primes, composites, start)
        start(sieve, found, back, composites)
        got = [found.recv() for _ in range(count)]
        while not all(task.done() for task in tasks):  # the merger may start one more meanwhile
            for ch in list(used):
                if not ch.closed:
                    ch.close()
            pygo.yield_now()
        join_all(tasks)
        return got

    got = run_main(main)
    assert got[: len(PRIMES_UP_TO_100)] == PRIMES_UP_TO_100[:count]
    assert all(number % prime for number in got for prime in got if prime * prime <= number)
    assert got == sorted(set(got))


CLOSED_RECEIVES: dict[str, Callable[[Channel[int]], tuple[Any, bool]]] = {
    "recv_ok": lambda ch: ch.recv_ok(),
    "recv_ok with a timeout": lambda ch: ch.recv_ok(timeout=HANG),
    "select": lambda ch: select(recv(ch))[1:],
    "select or default": lambda ch: select(recv(ch), default=True)[1:],
    "select with a dead case": lambda ch: select(recv(ch), recv(Channel()), recv(None))[1:],
}
RAISING_RECEIVES: dict[str, Callable[[Channel[int]], Any]] = {
    "recv": lambda ch: ch.recv(),
    "recv with a timeout": lambda ch: ch.recv(timeout=HANG),
    "try_recv": lambda ch: ch.try_recv(),
}
CLOSED_SENDS: dict[str, Callable[[Channel[int]], Any]] = {
    "send": lambda ch: ch.send(1),
    "try_send": lambda ch: ch.try_send(1),
    "select": lambda ch: select(send(ch, 1)),
    "select or default": lambda ch: select(send(ch, 1), default=True),
    "select with a dead case": lambda ch: select(send(ch, 1), recv(Channel()), recv(None)),
}


class TestClosedChannels:
    """closedchan.go: closed with and without values left, every way to receive and to send, plain and in a select."""

    def closed(self, capacity: int, values: int) -> Channel[int]:
        ch: Channel[int] = Channel(capacity)
        for number in range(values):
            ch.send(number)
        ch.close()
        return ch

    @pytest.mark.parametrize("way", CLOSED_RECEIVES)
    @pytest.mark.parametrize(("capacity", "values"), [(0, 0), (2, 0), (2, 1), (2, 2)])
    def test_receiving_gives_what_is_left_and_then_nothing_for_ever(self, capacity: int, values: int, way: str) -> None:
        ch = self.closed(capacity, values)
        receive = CLOSED_RECEIVES[way]
        assert [receive(ch) for _ in range(values)] == [(number, True) for number in range(values)]
        assert [receive(ch) for _ in range(5)] == [(None, False)] * 5

    @pytest.mark.parametrize("way", RAISING_RECEIVES)
    @pytest.mark.parametrize("capacity", [0, 2])
    def test_what_has_no_second_result_raises(self, capacity: int, way: str) -> None:
        ch = self.closed(capacity, 0)
        for _ in range(3):
            with pytest.raises(ChannelClosed):
                RAISING_RECEIVES[way](ch)

    @pytest.mark.parametrize("way", CLOSED_SENDS)
    @pytest.mark.parametrize(("capacity", "values"), [(0, 0), (2, 0), (2, 2)])
    def test_sending_raises_and_changes_nothing(self, capacity: int, values: int, way: str) -> None:
        ch = self.closed(capacity, values)
        for _ in range(3):
            with pytest.raises(ChannelClosed):
                CLOSED_SENDS[way](ch)
        assert list(ch) == list(range(values))

    def test_closing_twice_raises(self) -> None:
        ch = self.closed(1, 0)
        for _ in range(2):
            with pytest.raises(ChannelClosed):
                ch.close()

    def test_a_closed_channel_among_ready_ones_is_one_of_them(self) -> None:
        closed, other = self.closed(0, 0), Channel[int](1000)
        for number in range(1000):
            other.send(number)
        counts = Counter(select(recv(closed), recv(other)).index for _ in range(1000))
        assert min(counts[0], counts[1]) > 350


@pytest.mark.parametrize("capacity", [0, 1, 100])
def test_a_loop_over_a_channel_sees_every_value_until_it_is_closed(capacity: int, workers: int) -> None:
    """range.go, its part about channels."""
    text = "abcdefghijklmnopqrstuvwxyz"

    def produce(out: pygo.SendChannel[str]) -> None:
        for letter in text:
            out.send(letter)
        out.close()

    def main() -> None:
        calls = 0

        def make() -> Channel[str]:
            nonlocal calls
            calls += 1
            ch: Channel[str] = Channel(capacity)
            tasks.append(spawn(produce, ch.sender))
            return ch

        tasks: list[pygo.Task[None]] = []
        seen = ""
        for letter in make():
            seen += letter
        assert (seen, calls) == (text, 1)
        source = make()
        for letter in source:
            if letter == "c":
                break
        assert "".join(source) == text[3:]
        join_all(tasks)

    run_main(main)


@pytest.mark.parametrize("capacity", [-1, -(1 << 63), 1 << 63, 1 << 100])
def test_a_capacity_out_of_range_is_refused(capacity: int) -> None:
    """chancap.go"""
    with pytest.raises((ValueError, OverflowError, MemoryError)) as caught:
        Channel(capacity)
    assert capacity > 0 or caught.type is ValueError


def test_a_web_of_typed_channels_carries_everything_by_polling_and_waiting(workers: int) -> None:
    """ken/chan.go and ken/chan1.go: several channels at once, each with its own sequence, checked at the far end."""
    lanes, count = 6, scaled(1000, 10_000)

    def sender(ch: Channel[int], lane: int) -> None:
        for number in range(count):
            if (number + lane) % 3 == 0:
                while not ch.try_send(lane * count + number):
                    pygo.yield_now()
            elif (number + lane) % 3 == 1:
                select(send(ch, lane * count + number))
            else:
                ch.send(lane * count + number)

    def main(capacity: int) -> list[list[int]]:
        channels = [Channel[int](capacity) for _ in range(lanes)]
        tasks = [spawn(sender, ch, lane) for lane, ch in enumerate(channels)]
        got: list[list[int]] = [[] for _ in channels]
        for _ in range(lanes * count):
            selected = select(*map(recv, channels))
            got[selected.index].append(selected.value)
        join_all(tasks)
        return got

    expected = [list(range(lane * count, (lane + 1) * count)) for lane in range(lanes)]
    for capacity in (0, 1, 10):
        assert run_main(main, capacity) == expected
