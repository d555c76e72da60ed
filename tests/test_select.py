"""Select: exactly one case happens, chosen fairly at one moment; losers leave no trace."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from typing import Any

import pytest
from helpers import HANG, PLACES, in_task, in_threads, join_all, run_program, wait_until

import pygo


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


class TestOneCase:
    def test_a_receive_yields_index_value_and_ok(self, place: Any) -> None:
        ch: pygo.Channel[str] = pygo.Channel(1)
        ch.send("value")
        selected = place(lambda: pygo.select(pygo.recv(ch)))
        assert isinstance(selected, pygo.Selected)
        assert selected == (0, "value", True)
        assert (selected.index, selected.value, selected.ok) == (0, "value", True)

    def test_a_send_yields_no_value(self, place: Any) -> None:
        ch: pygo.Channel[str] = pygo.Channel(1)
        selected = place(lambda: pygo.select(pygo.send(ch, "value")))
        assert selected.index == 0
        assert selected.value is None
        assert selected.ok is True
        assert ch.recv() == "value"

    def test_a_closed_and_drained_channel_is_ready_to_receive(self, place: Any) -> None:
        ch: pygo.Channel[str] = pygo.Channel(1)
        ch.send("last")
        ch.close()
        assert place(lambda: pygo.select(pygo.recv(ch))) == (0, "last", True)
        assert place(lambda: pygo.select(pygo.recv(ch))) == (0, None, False)

    def test_a_send_on_a_closed_channel_raises(self, place: Any) -> None:
        ch: pygo.Channel[str] = pygo.Channel(1)
        ch.close()
        with pytest.raises(pygo.ChannelClosed):
            place(lambda: pygo.select(pygo.send(ch, "value")))
        with pytest.raises(pygo.ChannelClosed):
            place(lambda: pygo.select(pygo.send(ch, "value"), default=True))

    def test_views_can_stand_in_cases(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        assert pygo.select(pygo.send(ch.sender, 1)).index == 0
        assert pygo.select(pygo.recv(ch.receiver)) == (0, 1, True)


class TestNothingReady:
    def test_the_default_is_taken(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        selected = place(lambda: pygo.select(pygo.recv(ch), pygo.send(ch, 1), default=True))
        assert selected.index == -1
        assert selected.value is None
        assert selected.ok is False
        assert place(lambda: pygo.select(default=True)).index == -1

    def test_the_default_is_not_taken_when_a_case_is_ready(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        assert place(lambda: pygo.select(pygo.send(ch, 1), default=True)).index == 0

    @pytest.mark.parametrize("timeout", [0, 0.01])
    def test_the_timeout_raises(self, place: Any, timeout: float) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        with pytest.raises(TimeoutError):
            place(lambda: pygo.select(pygo.recv(ch), pygo.send(ch, 1), timeout=timeout))
        with pytest.raises(TimeoutError):
            place(lambda: pygo.select(timeout=timeout))
        assert ch.waiting_receivers == ch.waiting_senders == 0

    def test_a_timeout_of_zero_takes_what_is_ready(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        assert pygo.select(pygo.send(ch, 1), timeout=0).index == 0
        assert pygo.select(pygo.recv(ch), timeout=0).value == 1

    def test_a_case_without_a_channel_is_never_ready(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        ch.send(1)
        nothing = [pygo.recv(None), pygo.send(None, 1)]
        assert place(lambda: pygo.select(*nothing, pygo.recv(ch))) == (2, 1, True)
        assert place(lambda: pygo.select(*nothing, default=True)).index == -1
        with pytest.raises(TimeoutError):
            place(lambda: pygo.select(*nothing, timeout=0.01))

    def test_without_cases_it_waits_for_ever(self) -> None:
        """In a program of its own, for these tasks can never end."""
        program = run_program(
            """
            import pygo, time

            tasks = [pygo.spawn(pygo.select), pygo.spawn(pygo.select, pygo.recv(None), pygo.send(None, 1))]
            while any(task.state != "waiting" for task in tasks):
                time.sleep(0.001)
            for task in tasks:
                try:
                    task.join(timeout=0.02)
                except TimeoutError:
                    print(task.state)
            """
        ).ok()
        assert program.out.split() == ["waiting", "waiting"]


class TestArguments:
    @pytest.mark.parametrize("case", [None, 3, "recv", (), object])
    def test_what_is_no_case_is_refused(self, case: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        with pytest.raises(TypeError):
            pygo.select(pygo.send(ch, 1), case)
        assert len(ch) == 0

    def test_a_channel_is_no_case(self) -> None:
        with pytest.raises(TypeError):
            pygo.select(pygo.Channel(1))

    def test_a_case_needs_a_channel_of_its_direction(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        for bad in (3, "ch", ch.sender):
            with pytest.raises(TypeError):
                pygo.recv(bad)
        for bad in (3, "ch", ch.receiver):
            with pytest.raises(TypeError):
                pygo.send(bad, 1)
        with pytest.raises(TypeError):
            pygo.send(ch)
        with pytest.raises(TypeError):
            pygo.recv()

    @pytest.mark.parametrize("timeout", ["1", [], float("nan"), -1])
    def test_a_bad_timeout_is_refused(self, timeout: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        with pytest.raises((TypeError, ValueError)):
            pygo.select(pygo.send(ch, 1), timeout=timeout)
        assert len(ch) == 0

    def test_unknown_keywords_are_refused(self) -> None:
        with pytest.raises(TypeError):
            pygo.select(otherwise=True)


class TestWaiting:
    def test_the_first_case_to_become_ready_wins(self, workers: int) -> None:
        for winner in range(6):
            channels: list[pygo.Channel[int]] = [pygo.Channel() for _ in range(6)]
            cases = [pygo.recv(ch) if slot % 2 == 0 else pygo.send(ch, slot) for slot, ch in enumerate(channels)]
            task = pygo.spawn(pygo.select, *cases)
            wait_until(lambda task=task: task.state == "waiting")
            if winner % 2 == 0:
                channels[winner].send(100)
                assert task.join() == (winner, 100, True)
            else:
                assert channels[winner].recv() == winner
                assert task.join().index == winner
            assert not any(ch.waiting_receivers or ch.waiting_senders for ch in channels)

    def test_it_shows_as_waiting_on_every_channel(self) -> None:
        channels: list[pygo.Channel[int]] = [pygo.Channel() for _ in range(4)]
        task = pygo.spawn(pygo.select, *[pygo.recv(ch) for ch in channels])
        wait_until(lambda: task.state == "waiting")
        assert [ch.waiting_receivers for ch in channels] == [1] * 4
        assert set(channels) <= set(task.waiting_on.objects)
        channels[2].send(1)
        assert task.join().index == 2
        assert [ch.waiting_receivers for ch in channels] == [0] * 4

    def test_closing_wakes_it(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        other: pygo.Channel[int] = pygo.Channel()
        receiving = pygo.spawn(pygo.select, pygo.recv(other), pygo.recv(ch))
        wait_until(lambda: ch.waiting_receivers == 1)
        ch.close()
        assert receiving.join() == (1, None, False)
        ch = pygo.Channel()
        sending = pygo.spawn(pygo.select, pygo.recv(other), pygo.send(ch, 1))
        wait_until(lambda: ch.waiting_senders == 1)
        ch.close()
        assert isinstance(sending.exception(), pygo.ChannelClosed)
        assert other.waiting_receivers == 0

    def test_a_loser_takes_nothing_and_sends_nothing(self, workers: int) -> None:
        """Two senders serve the same waiting select; only one of them may find it."""
        for _ in range(100):
            left: pygo.Channel[str] = pygo.Channel()
            right: pygo.Channel[str] = pygo.Channel()
            task = pygo.spawn(pygo.select, pygo.recv(left), pygo.recv(right))
            wait_until(lambda left=left: left.waiting_receivers == 1)
            sends = join_all([pygo.spawn(left.try_send, "left"), pygo.spawn(right.try_send, "right")])
            assert sends.count(True) == 1
            assert task.join() == (sends.index(True), ["left", "right"][sends.index(True)], True)

    def test_the_same_channel_may_stand_in_several_cases(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(pygo.select, pygo.recv(ch), pygo.recv(ch), pygo.recv(ch))
        wait_until(lambda: ch.waiting_receivers >= 1)
        ch.send(5)
        selected = task.join()
        assert selected.index in (0, 1, 2)
        assert selected.value == 5
        assert ch.waiting_receivers == 0
        sending = pygo.spawn(pygo.select, pygo.send(ch, 6), pygo.send(ch, 7))
        assert ch.recv() == 6 + sending.join().index
        assert ch.waiting_senders == 0

    def test_a_task_never_meets_itself(self, place: Any) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        cases = [pygo.send(ch, 1), pygo.recv(ch), pygo.send(ch, 2)]
        assert place(lambda: pygo.select(*cases, default=True)).index == -1
        with pytest.raises(TimeoutError):
            place(lambda: pygo.select(*cases, timeout=0.01))
        assert ch.waiting_senders == ch.waiting_receivers == 0

    def test_two_selects_meet_each_other(self, workers: int) -> None:
        for _ in range(100):
            left: pygo.Channel[int] = pygo.Channel()
            right: pygo.Channel[int] = pygo.Channel()
            first = pygo.spawn(pygo.select, pygo.send(left, 1), pygo.recv(right))
            second = pygo.spawn(pygo.select, pygo.send(right, 2), pygo.recv(left))
            one, two = join_all([first, second])
            assert ((one.index, two.index) == (0, 1) and two.value == 1) or (
                (one.index, two.index) == (1, 0) and one.value == 2
            )

    def test_cases_can_be_built_once_and_reused_by_many_tasks(self, workers: int) -> None:
        ch: pygo.Channel[int] = pygo.Channel(4)
        sending, receiving = pygo.send(ch, 7), pygo.recv(ch)

        def repeat(case: Any) -> list[Any]:
            return [pygo.select(case) for _ in range(300)]

        tasks = [pygo.spawn(repeat, sending) for _ in range(4)] + [pygo.spawn(repeat, receiving) for _ in range(4)]
        outcomes = join_all(tasks)
        assert all(selected == (0, 7, True) for part in outcomes[4:] for selected in part)
        assert len(ch) == 0

    def test_very_many_cases(self, workers: int) -> None:
        channels: list[pygo.Channel[int]] = [pygo.Channel() for _ in range(1000)]
        task = pygo.spawn(pygo.select, *[pygo.recv(ch) for ch in channels])
        wait_until(lambda: channels[-1].waiting_receivers == 1)
        channels[777].send(3)
        assert task.join() == (777, 3, True)
        assert not any(ch.waiting_receivers for ch in channels)

    def test_it_holds_its_values_only_while_it_waits(self) -> None:
        import weakref

        class Value:
            pass

        value = Value()
        ref = weakref.ref(value)
        ch: pygo.Channel[Value] = pygo.Channel()
        with pytest.raises(TimeoutError):
            pygo.select(pygo.send(ch, value), timeout=0.001)
        del value
        assert ref() is None


class TestFairness:
    def test_ready_cases_are_chosen_uniformly(self, place: Any) -> None:
        """Chi-square with 7 degrees of freedom; 40 is passed by chance once in a million runs."""

        def body() -> list[int]:
            channels: list[pygo.Channel[int]] = [pygo.Channel(1) for _ in range(8)]
            cases = [pygo.recv(ch) for ch in channels]
            for ch in channels:
                ch.send(1)
            chosen = Counter[int]()
            for _ in range(8000):
                index = pygo.select(*cases).index
                channels[index].send(1)
                chosen[index] += 1
            return [chosen[slot] for slot in range(8)]

        counts = place(body)
        assert sum((count - 1000) ** 2 / 1000 for count in counts) < 40, counts

    def test_choices_between_send_and_receive_are_uniform(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(2)
        ch.send(1)
        chosen = [0, 0]
        for _ in range(4000):
            index = pygo.select(pygo.send(ch, 1), pygo.recv(ch)).index
            chosen[index] += 1
            if index == 0:
                ch.recv()
            else:
                ch.send(1)
        assert min(chosen) > 1700, chosen

    @pytest.mark.parametrize("sends", [False, True], ids=["receives", "sends"])
    @pytest.mark.parametrize("copies", [3, 12])
    def test_a_waiting_select_serves_any_of_the_cases_of_one_channel(
        self, copies: int, sends: bool, workers: int
    ) -> None:
        """Also when they became ready only after it had begun to wait. Chance fails this once in ten billion runs."""
        ch: pygo.Channel[int] = pygo.Channel()
        other: pygo.Channel[int] = pygo.Channel()
        case = pygo.send(ch, 1) if sends else pygo.recv(ch)
        cases = [pygo.recv(None), pygo.recv(other), *[case] * copies]
        chosen = Counter[int]()

        def waiting() -> int:
            return ch.waiting_senders if sends else ch.waiting_receivers

        def body() -> None:
            for _ in range(300 * copies):
                task = pygo.spawn(pygo.select, *cases)
                while waiting() < copies:
                    pygo.yield_now()
                if sends:
                    ch.recv()
                else:
                    ch.send(1)
                chosen[task.join().index - 2] += 1

        in_task(body)
        assert sum((chosen[slot] - 300) ** 2 / 300 for slot in range(copies)) < 70, chosen
        assert (ch.waiting_receivers, ch.waiting_senders, other.waiting_receivers) == (0, 0, 0)

    def test_a_busy_case_does_not_starve_the_others(self, workers: int) -> None:
        busy: pygo.Channel[int] = pygo.Channel(4)
        rare: pygo.Channel[int] = pygo.Channel(1)
        rare.send(1)
        producer = pygo.spawn(feed_until_closed, busy)
        turns = 0
        while pygo.select(pygo.recv(busy), pygo.recv(rare)).index != 1:
            turns += 1
            assert turns < 100_000
        busy.close()
        producer.join()


def feed_until_closed(ch: Any) -> None:
    try:
        while True:
            ch.send(1)
    except pygo.ChannelClosed:
        pass


def chosen_send(cases: list[Any], rng: random.Random) -> int | None:
    """One select over the cases, in one of its three forms; the index that happened, or ``None``."""
    kind = rng.randrange(3)
    if kind == 0:
        return pygo.select(*cases).index
    if kind == 1:
        index = pygo.select(*cases, default=True).index
        return None if index < 0 else index
    try:
        return pygo.select(*cases, timeout=rng.random() * 0.001).index
    except TimeoutError:
        return None


@pytest.mark.parametrize("capacities", [(0, 0, 0), (1, 0, 3), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("threads", [False, True], ids=["tasks", "mixed"])
def test_selects_on_both_sides_keep_every_value(capacities: tuple[int, ...], threads: bool, workers: int) -> None:
    """Senders and receivers select over the same channels in different orders; each value arrives exactly once."""
    channels: list[Any] = [pygo.Channel(capacity) for capacity in capacities]
    senders, receivers, per_sender = 6, 6, 100
    stop: pygo.Channel[None] = pygo.Channel()

    def sender(slot: int) -> None:
        rng = random.Random(slot)
        for number in range(per_sender):
            while True:
                order = rng.sample(channels, len(channels))
                if chosen_send([pygo.send(ch, (slot, number)) for ch in order], rng) is not None:
                    break
                pygo.yield_now()

    def receiver(slot: int) -> list[Any]:
        rng = random.Random(100 + slot)
        values = []
        while True:
            order = rng.sample(channels, len(channels))
            index, value, ok = pygo.select(*[pygo.recv(ch) for ch in order], pygo.recv(stop))
            if index == len(order):
                return values
            assert ok
            values.append(value)

    receiving = [pygo.spawn(receiver, slot) for slot in range(receivers)]
    threaded = range(0, senders, 2) if threads else range(0)
    outcome: pygo.Channel[Any] = pygo.Channel(1)
    if threads:
        bodies = [lambda slot=slot: sender(slot) for slot in threaded]
        threading.Thread(target=lambda: outcome.send(in_threads(bodies)), daemon=True).start()
    join_all([pygo.spawn(sender, slot) for slot in range(senders) if slot not in threaded])
    if threads:
        outcome.recv(timeout=HANG)
    wait_until(lambda: not any(len(ch) for ch in channels))
    stop.close()
    values = list(itertools.chain(*join_all(receiving)))
    assert sorted(values) == [(slot, number) for slot in range(senders) for number in range(per_sender)]
    assert not any(ch.waiting_receivers or ch.waiting_senders or len(ch) for ch in channels)


def test_select_in_a_task_that_migrates(workers: int) -> None:
    def body() -> int:
        ch: pygo.Channel[int] = pygo.Channel()
        total = 0
        for number in range(100):
            sender = pygo.spawn(ch.send, number)
            total += pygo.select(pygo.recv(ch), pygo.recv(None)).value
            sender.join()
        return total

    assert in_task(body) == sum(range(100))
