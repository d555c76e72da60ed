"""pygo.sync's queues: order, bounds, waiting, shutdown, subclasses; CPython's own tests are in test_sync_cpython.py."""

from __future__ import annotations

import contextlib
import heapq
import queue
import random
from typing import Any

import pytest
from helpers import HANG, PLACES, in_threads, join_all

import pygo
from pygo import sync
from pygo.testing import wait_until_blocked

KINDS: dict[str, Any] = {
    "Queue": sync.Queue,
    "LifoQueue": sync.LifoQueue,
    "PriorityQueue": sync.PriorityQueue,
    "SimpleQueue": sync.SimpleQueue,
}
BOUNDED = ["Queue", "LifoQueue", "PriorityQueue"]


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


@pytest.mark.parametrize("name", list(KINDS))
def test_every_item_arrives_once_among_tasks_and_threads(name: str, workers: int) -> None:
    items: Any = KINDS[name]() if name == "SimpleQueue" else KINDS[name](3)

    def produce(start: int) -> None:
        for number in range(start, start + 100):
            items.put(number)

    def consume() -> list[int]:
        return [items.get() for _ in range(80)]

    producers = [pygo.spawn(produce, start) for start in (0, 100, 200)]
    consumers = [pygo.spawn(consume) for _ in range(4)]
    _, rest = in_threads([lambda: produce(300), consume])
    join_all(producers)
    assert sorted(sum(join_all(consumers), rest)) == list(range(400))
    assert items.empty()


@pytest.mark.parametrize("name", list(KINDS))
def test_waiting_for_an_item(name: str, place: Any) -> None:
    items = KINDS[name]()
    with pytest.raises(queue.Empty):
        place(lambda: items.get(block=False))
    with pytest.raises(sync.Empty):
        place(lambda: items.get(timeout=0.01))
    with pytest.raises(ValueError, match="non-negative"):
        place(lambda: items.get(timeout=-1))
    items.put_nowait(1)
    assert (items.qsize(), items.empty()) == (1, False)
    assert place(lambda: items.get(timeout=HANG)) == 1
    giver = pygo.spawn(lambda: (pygo.sleep(0.01), items.put(2)))
    assert place(items.get) == 2
    giver.join()


@pytest.mark.parametrize("name", BOUNDED)
def test_waiting_for_room(name: str, place: Any) -> None:
    items = KINDS[name](1)
    items.put(1)
    assert items.full()
    with pytest.raises(queue.Full):
        place(lambda: items.put_nowait(2))
    with pytest.raises(sync.Full):
        place(lambda: items.put(2, timeout=0.01))
    with pytest.raises(ValueError, match="non-negative"):
        place(lambda: items.put(2, timeout=-1))
    taker = pygo.spawn(lambda: (pygo.sleep(0.01), items.get()))
    place(lambda: items.put(2))
    assert taker.join()[1] == 1
    assert items.get() == 2


@pytest.mark.parametrize("name", list(KINDS))
def test_a_cancelled_getter_takes_no_item_with_it(name: str, workers: int) -> None:
    items, rng = KINDS[name](), random.Random(workers)
    for _ in range(30):
        getters = [pygo.spawn(items.get) for _ in range(6)]
        wait_until_blocked(*getters)
        for number, getter in enumerate(rng.sample(getters, 3)):
            items.put(number)
            getter.cancel()
        rest = [getter for getter in getters if not getter.done()]
        pygo.sleep(0.001)
        for getter in rest:
            getter.cancel()
        got = []
        for getter in getters:
            with contextlib.suppress(pygo.TaskCancelled):
                got.append(getter.join(timeout=HANG))
        got += [items.get_nowait() for _ in range(items.qsize())]
        assert sorted(got) == [0, 1, 2]


@pytest.mark.parametrize("name", BOUNDED)
def test_join_waits_until_all_is_dealt_with(name: str, workers: int) -> None:
    jobs, dealt = KINDS[name](), [0] * 4

    def body(slot: int) -> None:
        try:
            while True:
                jobs.get()
                pygo.yield_now()
                dealt[slot] += 1
                jobs.task_done()
        except sync.ShutDown:
            pass

    tasks = [pygo.spawn(body, slot) for slot in range(4)]
    for turn in range(5):
        for number in range(20):
            jobs.put(number)
        jobs.join()
        assert sum(dealt) == 20 * (turn + 1)
    jobs.shutdown()
    join_all(tasks)
    with pytest.raises(ValueError, match="too many"):
        jobs.task_done()


def test_task_done_counts_in_a_cancelled_task() -> None:
    jobs: sync.Queue[int] = sync.Queue()
    jobs.put(1)

    def body() -> None:
        jobs.get()
        try:
            pygo.sleep(HANG)
        finally:
            jobs.task_done()

    task = pygo.spawn(body)
    wait_until_blocked(task)
    with jobs.mutex:  # so that task_done has to wait for it
        task.cancel()
        pygo.sleep(0.01)
        assert not task.done()
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)
    jobs.join()


@pytest.mark.parametrize("name", BOUNDED)
def test_shutdown_lets_the_rest_be_taken(name: str, workers: int) -> None:
    items = KINDS[name](2)
    getters = [pygo.spawn(items.get) for _ in range(3)]
    wait_until_blocked(*getters)
    items.shutdown()
    assert all(isinstance(getter.exception(timeout=HANG), sync.ShutDown) for getter in getters)
    items = KINDS[name](2)
    items.put(1), items.put(2)
    putter = pygo.spawn(items.put, 3)
    wait_until_blocked(putter)
    items.shutdown()
    assert isinstance(putter.exception(timeout=HANG), sync.ShutDown)
    with pytest.raises(sync.ShutDown):
        items.put(4)
    assert sorted([items.get(), items.get()]) == [1, 2]
    with pytest.raises(sync.ShutDown):
        items.get_nowait()
    assert "shut down" in repr(items)


def test_immediate_shutdown_drops_the_rest() -> None:
    items: sync.Queue[int] = sync.Queue()
    items.put(1)
    joiner = pygo.spawn(items.join)
    wait_until_blocked(joiner)
    items.shutdown(immediate=True)
    joiner.join(timeout=HANG)
    with pytest.raises(sync.ShutDown):
        items.get()


def test_subclasses_choose_how_items_are_kept() -> None:
    class Unique(sync.Queue[int]):
        def _init(self, maxsize: int) -> None:
            self.kept: dict[int, None] = {}

        def _qsize(self) -> int:
            return len(self.kept)

        def _put(self, item: int) -> None:
            self.kept[item] = None

        def _get(self) -> int:
            return self.kept.popitem()[0]

    items = Unique(2)
    items.put(1), items.put(1), items.put(2)
    assert items.full()
    assert (items.get(), items.get(), items.empty()) == (2, 1, True)


def test_a_put_that_fails_leaves_its_room_to_the_next() -> None:
    class Picky(sync.Queue[int]):
        def _put(self, item: int) -> None:
            super()._put(item + 0)

    items: Any = Picky(1)
    items.put(1)
    wrong = pygo.spawn(items.put, "no number")
    wait_until_blocked(wrong)
    right = pygo.spawn(items.put, 3)
    wait_until_blocked(right)
    assert items.get() == 1
    assert isinstance(wrong.exception(timeout=HANG), TypeError)
    right.join(timeout=HANG)
    assert items.get() == 3


def test_the_least_comes_out_first() -> None:
    numbers = random.Random(1).sample(range(1000), 200)
    items: sync.PriorityQueue[int] = sync.PriorityQueue()
    for number in numbers:
        items.put(number)
    heapq.heapify(numbers)
    assert [items.get() for _ in range(200)] == [heapq.heappop(numbers) for _ in range(200)]


def test_queues_are_generic_and_name_the_standard_exceptions() -> None:
    assert sync.Queue[int](3).maxsize == 3
    assert (sync.Empty, sync.Full) == (queue.Empty, queue.Full)
    assert sync.ShutDown is getattr(queue, "ShutDown", sync.ShutDown)
    assert sync.ShutDown.__name__ == "ShutDown"
