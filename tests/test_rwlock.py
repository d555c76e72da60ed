"""RWLock: many readers or one writer, writers preferred, nothing lost when somebody gives up."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers import HANG, in_threads, join_all, wait_until

import pygo
from pygo import sync
from pygo.testing import wait_until_blocked


def spawn_waiting(fn: Any, *args: Any, **kwargs: Any) -> pygo.Task[Any]:
    task = pygo.spawn(fn, *args, **kwargs)
    wait_until_blocked(task)
    return task


def test_readers_are_inside_together(workers: int) -> None:
    """Go's parallel readers: each waits inside until all are there."""
    rw, barrier = sync.RWLock(), sync.Barrier(10)

    def body() -> None:
        with rw.read:
            barrier.wait(HANG)

    join_all([pygo.spawn(body) for _ in range(10)])
    assert not rw.read.locked()


def test_a_writer_is_alone(workers: int) -> None:
    """Go's HammerRWMutex: 10,000 for each writer, one for each reader, and never both."""
    rw, activity, entered = sync.RWLock(), [0], [0] * 14

    def read(slot: int) -> None:
        for _ in range(100):
            with rw.read:
                activity[0] += 1
                assert 1 <= activity[0] < 10_000
                if pygo.current_task():
                    pygo.yield_now()
                entered[slot] += 1
                activity[0] -= 1

    def write(slot: int) -> None:
        for _ in range(50):
            with rw.write:
                activity[0] += 10_000
                assert activity[0] == 10_000
                if pygo.current_task():
                    pygo.yield_now()
                entered[slot] += 1
                activity[0] -= 10_000

    tasks = [pygo.spawn(read, slot) for slot in range(8)] + [pygo.spawn(write, slot) for slot in (8, 9, 10)]
    in_threads([lambda: read(11), lambda: read(12), lambda: write(13)])
    join_all(tasks)
    assert entered == [100] * 8 + [50] * 3 + [100, 100, 50]
    assert activity == [0]


def test_a_waiting_writer_keeps_further_readers_out_and_goes_before_them(workers: int) -> None:
    rw, order = sync.RWLock(), []

    def enter(view: Any, name: str) -> None:
        with view:
            order.append(name)

    rw.read.acquire()
    tasks = [spawn_waiting(enter, rw.write, "first writer"), spawn_waiting(enter, rw.read, "reader")]
    assert not rw.read.acquire(blocking=False)
    tasks.append(spawn_waiting(enter, rw.write, "second writer"))
    rw.read.release()
    join_all(tasks)
    assert order == ["first writer", "second writer", "reader"]


@pytest.mark.parametrize("way", ["timeout", "cancel"])
def test_readers_behind_a_writer_that_gives_up_go_on(way: str, workers: int) -> None:
    rw = sync.RWLock()
    rw.read.acquire()
    writer = pygo.spawn(rw.write.acquire, timeout=0.02 if way == "timeout" else HANG)
    wait_until(lambda: writer.state in ("waiting", "done"))  # done: we were held up for 0.02 s
    readers = [pygo.spawn(rw.read.acquire) for _ in range(3)]
    if way == "cancel":
        wait_until_blocked(*readers)
        writer.cancel()
    assert join_all(readers) == [True] * 3
    for _ in range(4):
        rw.read.release()
    assert rw.write.acquire(blocking=False)
    assert writer.cancelled() if way == "cancel" else writer.join() is False


def test_views_are_the_same_objects_and_show_the_state() -> None:
    rw = sync.RWLock()
    assert rw.read is rw.read
    with rw.read, rw.read:
        assert rw.read.locked()
        assert not rw.write.locked()
        assert "2 reading" in repr(rw)
        assert repr(rw.read).startswith("<locked for reading")
    with rw.write:
        assert rw.write.locked()
        assert "writing" in repr(rw)
    for view in (rw.read, rw.write):
        with pytest.raises(RuntimeError, match="nobody holds"):
            view.release()


def test_impatient_readers_and_writers_leave_it_free(workers: int) -> None:
    rw, rng = sync.RWLock(), random.Random(workers)
    inside = [0, 0]

    def body(writes: bool, patience: float) -> None:
        view = rw.write if writes else rw.read
        if view.acquire(timeout=patience):
            inside[writes] += 1
            assert inside[1] == 0 or inside == [0, 1]
            pygo.yield_now()
            inside[writes] -= 1
            view.release()

    for _ in range(20):
        choices = [(rng.random() < 0.4, rng.choice([HANG, 0.0001, 0.001])) for _ in range(30)]
        join_all([pygo.spawn(body, *choice) for choice in choices])
        assert not rw.read.locked()
        assert rw.write.acquire(blocking=False)
        rw.write.release()
