"""Channels: rendezvous, buffer, closing, views; every value arrives exactly once."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from helpers import HANG, PLACES, in_task, in_threads, join_all, wait_until
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pygo

CAPACITIES = [0, 1, 2, 7, 100]


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


class TestConstruction:
    def test_the_default_is_unbuffered(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        assert ch.capacity == 0
        assert len(ch) == 0
        assert not ch.closed
        assert bool(ch) is True

    def test_a_subscripted_channel_can_be_called(self) -> None:
        ch = pygo.Channel[int](8)
        assert isinstance(ch, pygo.Channel)
        assert ch.capacity == 8

    @pytest.mark.parametrize(
        ("capacity", "error"),
        [
            (-1, ValueError),
            ("3", TypeError),
            (1.0, TypeError),
            (None, TypeError),
            (1 << 70, (ValueError, OverflowError)),
        ],
    )
    def test_a_bad_capacity_is_refused(self, capacity: Any, error: Any) -> None:
        with pytest.raises(error):
            pygo.Channel(capacity)

    def test_a_huge_capacity_costs_nothing_or_is_refused(self) -> None:
        try:
            ch: pygo.Channel[int] = pygo.Channel(1 << 40)
        except (MemoryError, ValueError):
            return
        assert ch.try_send(1)

    def test_constructing_twice_neither_crashes_nor_leaks_values(self) -> None:
        uninitialised = pygo.Channel.__new__(pygo.Channel)
        try:
            assert uninitialised.try_send(1) in (True, False)
        except (TypeError, RuntimeError, pygo.Error):
            pass
        repr(uninitialised)
        ch: pygo.Channel[int] = pygo.Channel(2)
        ch.send(1)
        try:
            ch.__init__(3)  # type: ignore[misc]
        except (TypeError, RuntimeError, pygo.Error):
            pass
        assert len(ch) == 1
        assert ch.recv() == 1


class TestBuffered:
    def test_values_come_out_in_the_order_they_went_in(self, place: Any) -> None:
        def body() -> list[int]:
            ch: pygo.Channel[int] = pygo.Channel(100)
            for value in range(100):
                ch.send(value)
            assert len(ch) == 100
            return [ch.recv() for _ in range(100)]

        assert place(body) == list(range(100))

    def test_the_ring_wraps_around(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(3)
        expected: deque[int] = deque()
        numbers = itertools.count()
        for turn in range(300):
            for _ in range(turn % 4):
                value = next(numbers)
                if ch.try_send(value):
                    expected.append(value)
            for _ in range((turn * 7) % 4):
                if expected:
                    assert ch.try_recv() == (expected.popleft(), True)
            assert len(ch) == len(expected)

    def test_a_full_buffer_makes_the_sender_wait(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        sent: list[int] = []

        def sender() -> None:
            for value in range(5):
                ch.send(value)
                sent.append(value)

        task = pygo.spawn(sender)
        wait_until(lambda: ch.waiting_senders == 1)
        assert sent == [0, 1]
        assert len(ch) == 2
        assert [ch.recv() for _ in range(5)] == [0, 1, 2, 3, 4]
        task.join()

    def test_waiting_senders_are_served_in_order(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        ch.send(-1)
        tasks = []
        for number in range(50):
            tasks.append(pygo.spawn(ch.send, number))
            wait_until(lambda number=number: ch.waiting_senders == number + 1)
        assert [ch.recv() for _ in range(51)] == list(range(-1, 50))
        join_all(tasks)

    def test_waiting_receivers_are_served_in_order(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(3)
        tasks = []
        for number in range(50):
            tasks.append(pygo.spawn(ch.recv))
            wait_until(lambda number=number: ch.waiting_receivers == number + 1)
        for value in range(50):
            ch.send(value)
        assert join_all(tasks) == list(range(50))


class TestUnbuffered:
    def test_send_returns_only_when_a_receiver_has_the_value(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(ch.send, 1)
        wait_until(lambda: ch.waiting_senders == 1)
        assert not task.done()
        assert len(ch) == 0
        assert ch.recv() == 1
        task.join()
        assert ch.waiting_senders == 0

    def test_any_object_passes_unchanged(self) -> None:
        ch: pygo.Channel[Any] = pygo.Channel()
        for value in (None, False, ch, [], object(), ValueError("an exception"), ValueError, (None, False)):
            task = pygo.spawn(ch.recv)
            ch.send(value)
            assert task.join() is value

    @pytest.mark.parametrize("sender", list(PLACES))
    @pytest.mark.parametrize("receiver", list(PLACES))
    def test_ping_pong_between_every_pair_of_places(self, sender: str, receiver: str, workers: int) -> None:
        if sender == receiver == "main":
            return
        there: pygo.Channel[int] = pygo.Channel()
        back: pygo.Channel[int] = pygo.Channel()

        def ping() -> int:
            value = 0
            for _ in range(200):
                there.send(value)
                value = back.recv()
            return value

        def pong() -> None:
            for _ in range(200):
                back.send(there.recv() + 1)

        # The main thread can play one part only: the other one runs beside it.
        if receiver == "main":
            other = pygo.spawn(PLACES[sender], ping)
            pong()
            assert other.join() == 200
        else:
            other = pygo.spawn(PLACES[receiver], pong)
            assert PLACES[sender](ping) == 200
            other.join()


class TestTrying:
    def test_an_unbuffered_channel_takes_only_what_a_waiter_takes(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        assert place(lambda: ch.try_send(1)) is False
        assert place(ch.try_recv) == (None, False)
        receiver = pygo.spawn(ch.recv)
        wait_until(lambda: ch.waiting_receivers == 1)
        assert place(lambda: ch.try_send(2)) is True
        assert receiver.join() == 2
        sender = pygo.spawn(ch.send, 3)
        wait_until(lambda: ch.waiting_senders == 1)
        assert place(ch.try_recv) == (3, True)
        sender.join()

    def test_a_sent_none_differs_from_nothing(self) -> None:
        ch: pygo.Channel[None] = pygo.Channel(1)
        assert ch.try_send(None)
        assert ch.try_recv() == (None, True)
        assert ch.try_recv() == (None, False)

    def test_on_a_closed_channel_it_raises(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        ch.send(1)
        ch.close()
        with pytest.raises(pygo.ChannelClosed):
            ch.try_send(2)
        assert ch.try_recv() == (1, True)
        with pytest.raises(pygo.ChannelClosed):
            ch.try_recv()


class TestTimeouts:
    @pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
    def test_a_receiver_that_times_out_takes_nothing(self, place: Any, timeout: float) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        for method in (ch.recv, ch.recv_ok):
            with pytest.raises(TimeoutError):
                place(lambda method=method: method(timeout=timeout))
        assert ch.waiting_receivers == 0
        assert ch.try_send(1) is False

    @pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
    def test_a_sender_that_times_out_has_sent_nothing(self, place: Any, timeout: float) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        with pytest.raises(TimeoutError):
            place(lambda: ch.send(1, timeout=timeout))
        assert ch.waiting_senders == 0
        assert ch.try_recv() == (None, False)
        full: pygo.Channel[int] = pygo.Channel(1)
        full.send(1)
        with pytest.raises(TimeoutError):
            place(lambda: full.send(2, timeout=timeout))
        assert full.recv() == 1
        assert full.try_recv() == (None, False)

    def test_zero_takes_what_is_there(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        place(lambda: ch.send(1, timeout=0))
        assert place(lambda: ch.recv(timeout=0)) == 1
        sender = pygo.spawn(ch.send, 2)
        sender.join()
        assert place(lambda: ch.recv_ok(timeout=0)) == (2, True)

    def test_timeouts_may_be_positional_integers_or_none(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        ch.send(1, 5)
        assert ch.recv(5) == 1
        ch.send(1, None)
        assert ch.recv_ok(None) == (1, True)
        ch.send(2, timeout=float("inf"))
        assert ch.recv(timeout=float("inf")) == 2
        ch.send(3, timeout=1e300)
        assert ch.recv(timeout=1e300) == 3

    @pytest.mark.parametrize("timeout", ["1", [], float("nan"), 1j, -1, float("-inf")])
    def test_a_bad_timeout_is_refused(self, timeout: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        with pytest.raises((TypeError, ValueError)):
            ch.send(1, timeout=timeout)
        assert len(ch) == 0
        ch.send(1)
        for method in (ch.recv, ch.recv_ok):
            with pytest.raises((TypeError, ValueError)):
                method(timeout=timeout)
        assert len(ch) == 1

    def test_a_huge_timeout_waits(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        tasks = [pygo.spawn(ch.recv, timeout=timeout) for timeout in (1e9, 1e18, 1e300, float("inf"))]
        wait_until(lambda: ch.waiting_receivers == len(tasks))
        for value in range(len(tasks)):
            ch.send(value)
        assert sorted(join_all(tasks)) == list(range(len(tasks)))

    def test_a_timed_out_waiter_leaves_its_place_in_the_queue(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        patient = [pygo.spawn(ch.recv) for _ in range(2)]
        wait_until(lambda: ch.waiting_receivers == 2)
        hasty = [pygo.spawn(ch.recv, timeout=0.01) for _ in range(5)]
        for task in hasty:
            assert isinstance(task.exception(timeout=HANG), TimeoutError)
        wait_until(lambda: ch.waiting_receivers == 2)
        ch.send(1)
        ch.send(2)
        assert sorted(join_all(patient)) == [1, 2]


class TestClosing:
    def test_it_wakes_all_receivers(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        raising = [pygo.spawn(ch.recv) for _ in range(20)]
        telling = [pygo.spawn(ch.recv_ok) for _ in range(20)]
        iterating = [pygo.spawn(list, ch) for _ in range(20)]
        wait_until(lambda: ch.waiting_receivers == 60)
        ch.close()
        assert ch.closed
        assert all(isinstance(task.exception(), pygo.ChannelClosed) for task in raising)
        assert join_all(telling) == [(None, False)] * 20
        assert join_all(iterating) == [[]] * 20
        assert ch.waiting_receivers == 0

    def test_it_wakes_all_senders_whose_values_are_not_delivered(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        ch.send(0)
        tasks = [pygo.spawn(ch.send, number) for number in range(1, 20)]
        wait_until(lambda: ch.waiting_senders == 19)
        ch.close()
        assert all(isinstance(task.exception(), pygo.ChannelClosed) for task in tasks)
        assert list(ch) == [0]

    def test_buffered_values_can_still_be_received(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(3)
        for value in range(3):
            ch.send(value)
        ch.close()
        assert place(ch.recv) == 0
        assert place(ch.recv_ok) == (1, True)
        assert place(lambda: list(ch)) == [2]
        assert place(ch.recv_ok) == (None, False)
        with pytest.raises(pygo.ChannelClosed):
            place(ch.recv)

    def test_sending_raises_at_once(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(3)
        ch.close()
        for call in (lambda: ch.send(1), lambda: ch.send(1, timeout=0), lambda: ch.try_send(1)):
            with pytest.raises(pygo.ChannelClosed):
                place(call)

    def test_closing_twice_raises(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        place(ch.close)
        with pytest.raises(pygo.ChannelClosed):
            place(ch.close)

    def test_only_one_of_many_closers_succeeds(self, workers: int) -> None:
        for _ in range(20):
            ch: pygo.Channel[int] = pygo.Channel()
            tasks = [pygo.spawn(ch.close) for _ in range(10)]
            failures = [task.exception(timeout=HANG) for task in tasks]
            assert failures.count(None) == 1
            assert sum(isinstance(failure, pygo.ChannelClosed) for failure in failures) == 9

    def test_iteration_ends_when_closed_and_drained(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(4)

        def producer() -> None:
            for value in range(1000):
                ch.send(value)
            ch.close()

        task = pygo.spawn(producer)
        assert list(ch) == list(range(1000))
        assert list(ch) == []
        task.join()

    def test_several_iterators_share_the_values(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        tasks = [pygo.spawn(list, ch) for _ in range(5)]
        for value in range(1000):
            ch.send(value)
        ch.close()
        received = join_all(tasks)
        assert sorted(itertools.chain(*received)) == list(range(1000))
        assert all(part == sorted(part) for part in received)


class TestViews:
    def test_each_view_is_the_same_object_each_time(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        assert ch.sender is ch.sender
        assert ch.receiver is ch.receiver
        assert isinstance(ch.sender, pygo.SendChannel)
        assert isinstance(ch.receiver, pygo.RecvChannel)

    def test_the_other_direction_does_not_exist(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        for name in ("recv", "recv_ok", "try_recv", "__iter__", "__next__"):
            assert not hasattr(ch.sender, name), name
        for name in ("send", "try_send", "close"):
            assert not hasattr(ch.receiver, name), name

    def test_both_have_length_capacity_and_closed(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        ch.send(1)
        for view in (ch.sender, ch.receiver):
            assert len(view) == 1
            assert view.capacity == 2
            assert view.closed is False
            assert bool(view) is True
        ch.close()
        assert ch.sender.closed
        assert ch.receiver.closed

    def test_values_pass_through_them(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)

        def producer(out: Any) -> None:
            out.send(1)
            out.send(2, timeout=HANG)
            while not out.try_send(3):
                pygo.yield_now()
            for value in range(4, 10):
                out.send(value)
            out.close()

        def consumer(source: Any) -> list[int]:
            values = [source.recv(), source.recv(timeout=HANG)]
            while not (got := source.try_recv())[1]:
                pygo.yield_now()
            values.append(got[0])
            values.append(source.recv_ok()[0])
            return values + list(source)

        sending = pygo.spawn(producer, ch.sender)
        receiving = pygo.spawn(consumer, ch.receiver)
        assert receiving.join(timeout=HANG) == list(range(1, 10))
        sending.join()

    def test_a_view_keeps_its_channel_alive(self) -> None:
        sender = pygo.Channel[int](1).sender
        sender.send(1)
        assert len(sender) == 1
        receiver = pygo.Channel[int](1).receiver
        assert receiver.try_recv() == (None, False)

    def test_views_cannot_be_constructed_from_nothing(self) -> None:
        for view in (pygo.SendChannel, pygo.RecvChannel):
            with pytest.raises(TypeError):
                view()


SENDERS = {
    "send": lambda ch, value, rng: ch.send(value),
    "try_send": lambda ch, value, rng: retry(lambda: ch.try_send(value)),
    "timed": lambda ch, value, rng: retry_timeout(lambda: ch.send(value, timeout=rng.random() * 0.0005)),
    "select": lambda ch, value, rng: pygo.select(pygo.send(ch, value)),
    "select_default": lambda ch, value, rng: retry(lambda: pygo.select(pygo.send(ch, value), default=True).index == 0),
    "select_timed": lambda ch, value, rng: retry_timeout(
        lambda: pygo.select(pygo.send(ch, value), timeout=rng.random() * 0.0005)
    ),
}
RECEIVERS = {
    "recv": lambda ch, rng: ch.recv(),
    "recv_ok": lambda ch, rng: got(ch.recv_ok()),
    "try_recv": lambda ch, rng: retry(ch.try_recv, lambda pair: pair[1])[0],
    "timed": lambda ch, rng: retry_timeout(lambda: ch.recv(timeout=rng.random() * 0.0005)),
    "select": lambda ch, rng: got(pygo.select(pygo.recv(ch))[1:]),
    "select_timed": lambda ch, rng: got(
        retry_timeout(lambda: pygo.select(pygo.recv(ch), timeout=rng.random() * 0.0005))[1:]
    ),
}


def retry(call: Any, accepted: Any = bool) -> Any:
    while not accepted(outcome := call()):
        pygo.yield_now()
    return outcome


def retry_timeout(call: Any) -> Any:
    while True:
        try:
            return call()
        except TimeoutError:
            pass


def got(pair: Any) -> Any:
    value, ok = pair
    if not ok:
        raise pygo.ChannelClosed
    return value


def exchange(ch: Any, per_sender: int, sender_kinds: list[str], receiver_kinds: list[str], run: Any, seed: int) -> None:
    """Every kind sends or receives at once on one channel; each value arrives once, in its sender's order."""

    def sender(slot: int) -> int:
        rng = random.Random(seed * 1000 + slot)
        for number in range(per_sender):
            SENDERS[sender_kinds[slot]](ch, (slot, number), rng)
            if rng.random() < 0.02:
                pygo.yield_now()
        return per_sender

    def receiver(slot: int) -> list[tuple[int, int]]:
        rng = random.Random(seed * 2000 + slot)
        values = []
        try:
            while True:
                values.append(RECEIVERS[receiver_kinds[slot]](ch, rng))
        except pygo.ChannelClosed:
            return values

    def closer(senders: list[Any]) -> None:
        for task in senders:
            task.join()
        ch.close()

    received = run(sender, len(sender_kinds), receiver, len(receiver_kinds), closer)
    values = list(itertools.chain(*received))
    assert len(values) == per_sender * len(sender_kinds)
    assert set(values) == {(slot, number) for slot in range(len(sender_kinds)) for number in range(per_sender)}
    for part in received:
        for slot in range(len(sender_kinds)):
            numbers = [number for origin, number in part if origin == slot]
            assert numbers == sorted(numbers)
    assert ch.waiting_senders == ch.waiting_receivers == len(ch) == 0


def run_as_tasks(sender: Any, senders: int, receiver: Any, receivers: int, closer: Any) -> list[Any]:
    receiving = [pygo.spawn(receiver, slot) for slot in range(receivers)]
    sending = [pygo.spawn(sender, slot) for slot in range(senders)]
    closing = pygo.spawn(closer, sending)
    closing.join(timeout=60)
    return join_all(receiving)


def run_half_as_threads(sender: Any, senders: int, receiver: Any, receivers: int, closer: Any) -> list[Any]:
    """Odd slots run on ordinary threads; a task per thread stands for it, so that the closer can join it."""

    def start(fn: Any, slot: int) -> Any:
        if slot % 2 == 0:
            return pygo.spawn(fn, slot)
        outcome: pygo.Channel[Any] = pygo.Channel(1)
        pygo.spawn(in_threads, [lambda: outcome.send(fn(slot))])
        return pygo.spawn(outcome.recv)

    receiving = [start(receiver, slot) for slot in range(receivers)]
    sending = [start(sender, slot) for slot in range(senders)]
    pygo.spawn(closer, sending).join(timeout=60)
    return join_all(receiving)


@pytest.mark.parametrize("run", [run_as_tasks, run_half_as_threads])
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_every_value_arrives_once_whatever_the_ways_to_send_and_receive(capacity: int, run: Any, workers: int) -> None:
    per_sender = 100 if run is run_as_tasks else 50
    exchange(pygo.Channel(capacity), per_sender, list(SENDERS), list(RECEIVERS), run, seed=capacity * 10 + workers)


@pytest.mark.parametrize("shape", [(1, 1), (100, 1), (1, 100), (50, 50)], ids=lambda shape: f"{shape[0]}to{shape[1]}")
@pytest.mark.parametrize("capacity", [0, 8])
def test_many_senders_and_many_receivers_lose_nothing(capacity: int, shape: tuple[int, int], workers: int) -> None:
    senders, receivers = shape
    per_sender = 4000 // senders
    exchange(pygo.Channel(capacity), per_sender, ["send"] * senders, ["recv"] * receivers, run_as_tasks, seed=1)


def test_a_value_is_received_once_or_its_send_raised_when_closing_at_any_moment(workers: int) -> None:
    for turn in range(60):
        ch: pygo.Channel[tuple[int, int]] = pygo.Channel(turn % 4)
        sent: list[list[tuple[int, int]]] = [[] for _ in range(6)]

        def sender(slot: int, ch: Any = ch, sent: Any = sent) -> None:
            try:
                for number in itertools.count():
                    ch.send((slot, number))
                    sent[slot].append((slot, number))
            except pygo.ChannelClosed:
                pass

        senders = [pygo.spawn(sender, slot) for slot in range(6)]
        receivers = [pygo.spawn(list, ch) for _ in range(3)]
        received = [ch.recv() for _ in range(turn)]
        ch.close()
        join_all(senders)
        received += itertools.chain(*join_all(receivers))
        assert sorted(received) == sorted(itertools.chain(*sent))


def test_a_ring_of_tasks_passes_a_token_round(workers: int) -> None:
    first: pygo.Channel[int] = pygo.Channel()

    def relay(source: Any, target: Any) -> None:
        for value in source:
            target.send(value + 1)
        target.close()

    channel = first
    tasks = []
    for _ in range(2000):
        following: pygo.Channel[int] = pygo.Channel()
        tasks.append(pygo.spawn(relay, channel, following))
        channel = following
    for turn in range(5):
        first.send(turn)
        assert channel.recv(timeout=HANG) == turn + 2000
    first.close()
    assert channel.recv_ok(timeout=HANG) == (None, False)
    join_all(tasks)


def test_the_prime_sieve_finds_primes(workers: int) -> None:
    def generate(out: Any) -> None:
        try:
            for number in itertools.count(2):
                out.send(number)
        except pygo.ChannelClosed:
            pass

    def sift(source: Any, out: Any, prime: int) -> None:
        try:
            for number in source:
                if number % prime:
                    out.send(number)
        except pygo.ChannelClosed:
            pass

    source: pygo.Channel[int] = pygo.Channel()
    channels, primes = [source], []
    tasks = [pygo.spawn(generate, source)]
    for _ in range(60):
        prime = source.recv(timeout=HANG)
        primes.append(prime)
        out: pygo.Channel[int] = pygo.Channel()
        tasks.append(pygo.spawn(sift, source, out, prime))
        source = out
        channels.append(out)
    for channel in channels:
        channel.close()
    join_all(tasks)
    assert primes == [n for n in range(2, 282) if all(n % p for p in range(2, n))]


class ChannelModel(RuleBasedStateMachine):
    """Every operation that does not wait, and parked senders and receivers, against a list and two queues."""

    @initialize(capacity=st.integers(0, 4))
    def create(self, capacity: int) -> None:
        self.ch: Any = pygo.Channel(capacity)
        self.capacity = capacity
        self.buffer: deque[int] = deque()
        self.receivers: deque[Any] = deque()
        self.senders: deque[tuple[Any, int]] = deque()
        self.closed = False
        self.numbers = itertools.count()

    def expect_joined(self, task: Any, value: Any) -> None:
        assert task.join(timeout=HANG) == value

    def model_send(self, value: int) -> bool:
        """Whether a send goes through now; the model after it."""
        if self.receivers:
            self.expect_joined(self.receivers.popleft(), (value, True))
            return True
        if len(self.buffer) < self.capacity:
            self.buffer.append(value)
            return True
        return False

    def model_recv(self) -> tuple[int | None, bool]:
        """What a receive gets now, or ``(None, False)``; the model after it."""
        if self.buffer:
            value = self.buffer.popleft()
            if self.senders:
                task, waiting = self.senders.popleft()
                self.buffer.append(waiting)
                self.expect_joined(task, None)
            return value, True
        if self.senders:
            task, value = self.senders.popleft()
            self.expect_joined(task, None)
            return value, True
        return None, False

    @rule(kind=st.sampled_from(["try", "timeout", "select"]))
    def send(self, kind: str) -> None:
        value = next(self.numbers)
        calls = {
            "try": lambda: self.ch.try_send(value),
            "timeout": lambda: done_in_time(lambda: self.ch.send(value, timeout=0)),
            "select": lambda: pygo.select(pygo.send(self.ch, value), default=True).index == 0,
        }
        if self.closed:
            with pytest.raises(pygo.ChannelClosed):
                calls[kind]()
        else:
            sent = calls[kind]()
            assert sent == self.model_send(value)

    @rule(kind=st.sampled_from(["try", "timeout", "ok", "select"]))
    def recv(self, kind: str) -> None:
        expected = self.peek()
        if self.closed and not expected[1]:
            if kind == "try" or kind == "timeout":
                with pytest.raises(pygo.ChannelClosed):
                    self.ch.try_recv() if kind == "try" else self.ch.recv(timeout=0)
            elif kind == "ok":
                assert self.ch.recv_ok(timeout=0) == (None, False)
            else:
                assert pygo.select(pygo.recv(self.ch), default=True) == (0, None, False)
            return
        if kind == "try":
            received = self.ch.try_recv()
        elif kind == "select":
            index, value, ok = pygo.select(pygo.recv(self.ch), default=True)
            assert (index == 0) == ok
            received = (value, ok)
        else:
            try:
                received = (self.ch.recv(timeout=0), True) if kind == "timeout" else self.ch.recv_ok(timeout=0)
            except TimeoutError:
                received = (None, False)
        assert received == expected
        assert self.model_recv() == expected

    def peek(self) -> tuple[int | None, bool]:
        if self.buffer:
            return self.buffer[0], True
        if self.senders:
            return self.senders[0][1], True
        return None, False

    @precondition(lambda self: not self.closed and not self.buffer and not self.senders and len(self.receivers) < 4)
    @rule(select=st.booleans())
    def park_a_receiver(self, select: bool) -> None:
        body = (lambda: tuple(pygo.select(pygo.recv(self.ch))[1:])) if select else self.ch.recv_ok
        self.receivers.append(pygo.spawn(body))
        wait_until(lambda: self.ch.waiting_receivers == len(self.receivers))

    @precondition(lambda self: not self.closed and not self.receivers and len(self.buffer) == self.capacity)
    @rule(select=st.booleans())
    def park_a_sender(self, select: bool) -> None:
        value = next(self.numbers)
        body = (lambda: pygo.select(pygo.send(self.ch, value))[1]) if select else (lambda: self.ch.send(value))
        self.senders.append((pygo.spawn(body), value))
        wait_until(lambda: self.ch.waiting_senders == len(self.senders))

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.ch.close()
        self.closed = True
        for task in self.receivers:
            assert task.join(timeout=HANG) == (None, False)
        for task, _ in self.senders:
            assert isinstance(task.exception(timeout=HANG), pygo.ChannelClosed)
        self.receivers.clear()
        self.senders.clear()

    @precondition(lambda self: self.closed)
    @rule()
    def close_again(self) -> None:
        with pytest.raises(pygo.ChannelClosed):
            self.ch.close()

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "ch"):
            assert len(self.ch) == len(self.ch.sender) == len(self.ch.receiver) == len(self.buffer)
            assert self.ch.capacity == self.capacity
            assert self.ch.closed == self.closed
            assert self.ch.waiting_receivers == len(self.receivers)
            assert self.ch.waiting_senders == len(self.senders)

    def teardown(self) -> None:
        if hasattr(self, "ch") and not self.closed:
            self.close()


def done_in_time(call: Any) -> bool:
    try:
        call()
    except TimeoutError:
        return False
    return True


TestChannelModel = ChannelModel.TestCase
TestChannelModel.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None)


class TestInATask:
    """The same model with every operation made by a task."""

    def test_the_model_holds_there(self) -> None:
        settings = hypothesis.settings(max_examples=30, stateful_step_count=30, deadline=None, database=None)
        in_task(hypothesis.stateful.run_state_machine_as_test, ChannelModel, settings=settings)
