"""Wait groups: a counter that many tasks wait for."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from helpers import HANG, PLACES, in_threads, join_all, wait_until

import pygo


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


def test_waiting_for_nothing_returns_at_once(place: Any) -> None:
    group = pygo.WaitGroup()
    place(group.wait)
    place(lambda: group.wait(timeout=0))
    assert group.wait() is None


def test_the_wait_ends_when_the_counter_reaches_zero(place: Any, workers: int) -> None:
    group = pygo.WaitGroup()
    finished = [False] * 100

    def body(slot: int) -> None:
        pygo.yield_now()
        finished[slot] = True
        group.done()

    group.add(100)
    tasks = [pygo.spawn(body, slot) for slot in range(100)]
    place(group.wait)
    assert all(finished)
    join_all(tasks)


def test_add_counts_one_by_default_and_may_count_down() -> None:
    group = pygo.WaitGroup()
    group.add()
    group.add(3)
    group.add(-2)
    group.done()
    with pytest.raises(TimeoutError):
        group.wait(timeout=0)
    group.done()
    group.wait(timeout=0)


def test_a_negative_counter_is_refused_and_changes_nothing() -> None:
    group = pygo.WaitGroup()
    with pytest.raises(ValueError, match=r"."):
        group.done()
    group.add(2)
    with pytest.raises(ValueError, match=r"."):
        group.add(-3)
    with pytest.raises(TimeoutError):
        group.wait(timeout=0)
    group.add(-2)
    group.wait(timeout=0)


@pytest.mark.parametrize("bad", ["1", 1.5, None, []])
def test_a_count_must_be_an_integer(bad: Any) -> None:
    group = pygo.WaitGroup()
    with pytest.raises(TypeError):
        group.add(bad)
    group.wait(timeout=0)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_the_wait_times_out(place: Any, timeout: float) -> None:
    group = pygo.WaitGroup()
    group.add()
    with pytest.raises(TimeoutError):
        place(lambda: group.wait(timeout=timeout))
    group.done()
    place(lambda: group.wait(timeout=timeout))


def test_all_waiters_wake_tasks_and_threads(workers: int) -> None:
    group = pygo.WaitGroup()
    group.add()
    tasks = [pygo.spawn(group.wait, timeout=HANG) for _ in range(200)]
    ended: pygo.Channel[Any] = pygo.Channel(1)
    threading.Thread(target=lambda: ended.send(in_threads([group.wait] * 5)), daemon=True).start()
    wait_until(lambda: all(task.state == "waiting" for task in tasks))
    group.done()
    assert join_all(tasks) == [None] * 200
    assert ended.recv(timeout=HANG) == [None] * 5


def test_it_can_be_used_again(workers: int) -> None:
    group = pygo.WaitGroup()
    for _ in range(200):
        group.add(3)
        tasks = [pygo.spawn(group.done) for _ in range(3)]
        group.wait()
        join_all(tasks)


def test_go_counts_its_task_until_it_ends(place: Any, workers: int) -> None:
    def body() -> list[int]:
        group = pygo.WaitGroup()
        tasks = [group.go(int, str(number)) for number in range(100)]
        group.wait()
        assert all(isinstance(task, pygo.Task) for task in tasks)
        return [task.join() for task in tasks]

    assert place(body) == list(range(100))


def test_go_passes_keyword_arguments_of_any_name() -> None:
    group = pygo.WaitGroup()
    kwargs = {"fn": 1, "self": 2, "name": 3}
    task = group.go(dict, **kwargs)
    group.wait()
    assert task.join() == kwargs


def test_go_counts_down_when_the_task_fails(reports: Any, workers: int) -> None:
    group = pygo.WaitGroup()
    for _ in range(10):
        group.go(int, "x")
    group.go(pygo.exit_task)
    group.wait(timeout=HANG)
    wait_until(lambda: len(reports.tasks) == 10)
    assert len(reports.take()) == 10


def test_go_refuses_what_cannot_be_called() -> None:
    group = pygo.WaitGroup()
    with pytest.raises(TypeError):
        group.go(3)
    with pytest.raises(TypeError):
        group.go()
    group.wait(timeout=0)


def test_a_task_may_start_more_work_before_it_ends(workers: int) -> None:
    group = pygo.WaitGroup()
    visited = [[0] for _ in range(1 << 10)]

    def visit(node: int) -> None:
        visited[node][0] += 1
        for child in (2 * node, 2 * node + 1):
            if child < len(visited):
                group.go(visit, child)

    group.go(visit, 1)
    group.wait(timeout=HANG)
    assert [count for (count,) in visited[1:]] == [1] * (len(visited) - 1)


def test_waits_and_counts_race_from_tasks_and_threads(workers: int) -> None:
    """Each wait ends only after all of its round's work, over many rounds and from everywhere."""
    for turn in range(30):
        group = pygo.WaitGroup()
        finished = [False] * 20
        group.add(len(finished))

        def work(slot: int, group: Any = group, finished: Any = finished) -> None:
            finished[slot] = True
            group.done()

        def watch(group: Any = group, finished: Any = finished) -> bool:
            group.wait(timeout=HANG)
            return all(finished)

        watchers = [pygo.spawn(watch) for _ in range(10)]
        tasks = [pygo.spawn(work, slot) for slot in range(turn % 2, 20, 2)]
        threaded = in_threads(
            [lambda slot=slot: work(slot) for slot in range(1 - turn % 2, 20, 2)]  # type: ignore[misc]
            + [watch, watch]
        )
        assert threaded[-2:] == [True, True]
        assert join_all(watchers) == [True] * 10
        join_all(tasks)


def test_a_waiter_that_times_out_leaves_the_others(workers: int) -> None:
    group = pygo.WaitGroup()
    group.add()
    tasks = list(
        itertools.chain.from_iterable(
            (pygo.spawn(group.wait, timeout=0.005), pygo.spawn(group.wait, timeout=HANG)) for _ in range(50)
        )
    )
    assert all(isinstance(task.exception(timeout=HANG), TimeoutError) for task in tasks[::2])
    assert not any(task.done() for task in tasks[1::2])
    group.done()
    assert join_all(tasks[1::2]) == [None] * 50
