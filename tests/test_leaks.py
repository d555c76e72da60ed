"""runtime.leaked_tasks: planted leaks are found, and nothing that can still be woken is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import HANG, run_program, wait_until

import pygo
from pygo import runtime

GLOBAL: dict[str, Any] = {}
FAR = 1000.0  # seconds; never reached


def started(fn: Callable[..., Any], *args: Any, count: int = 1) -> list[pygo.Task[Any]]:
    """Tasks that wait by now."""
    tasks = [pygo.Task(fn, args) for _ in range(count)]
    wait_until(lambda: all(task.state == "waiting" for task in tasks))
    return tasks


def receive(ch: Any) -> Any:
    return ch.recv()


def end(tasks: list[pygo.Task[Any]]) -> None:
    """Close what the tasks wait on, until they have ended."""

    def close_all() -> bool:
        for task in tasks:
            for value in getattr(task.waiting_on, "objects", ()):
                if isinstance(value, pygo.Channel) and not value.closed:
                    value.close()
                if isinstance(value, pygo.WaitGroup):
                    value.done()
        return all(task.done() for task in tasks)

    wait_until(close_all)
    for task in tasks:
        task.exception()


def cancel(tasks: list[pygo.Task[Any]]) -> None:
    for task in tasks:
        assert task.cancel()
    pygo.wait(tasks, timeout=HANG)


# ---- leaks ----


def by_argument() -> list[pygo.Task[Any]]:
    return started(receive, pygo.Channel())


def by_closure() -> list[pygo.Task[Any]]:
    ch: pygo.Channel[int] = pygo.Channel()

    def body() -> None:
        ch.recv()

    return started(body)


def by_own_channel() -> list[pygo.Task[Any]]:
    def body() -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        holder = {"deep": [ch]}
        ch.send(1)
        del holder

    return started(body)


def by_bound_method() -> list[pygo.Task[Any]]:
    return started(pygo.Channel().recv)


def by_select() -> list[pygo.Task[Any]]:
    def body(one: Any, two: Any) -> None:
        pygo.select(pygo.recv(one), pygo.send(two, 1))

    return started(body, pygo.Channel(), pygo.Channel())


def by_wait_group() -> list[pygo.Task[Any]]:
    group = pygo.WaitGroup()
    group.add()
    return started(lambda: group.wait())


def by_each_other() -> list[pygo.Task[Any]]:
    def body(mine: Any, other: Any) -> None:
        mine.recv()
        other.send(1)

    one: pygo.Channel[int] = pygo.Channel()
    two: pygo.Channel[int] = pygo.Channel()
    return started(body, one, two) + started(body, two, one)


def by_join() -> list[pygo.Task[Any]]:
    tasks = started(receive, pygo.Channel())
    return tasks + started(tasks[0].join)


LEAKS = [by_argument, by_closure, by_own_channel, by_bound_method, by_select, by_wait_group, by_each_other, by_join]


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_a_planted_leak_is_found(leak: Callable[[], list[pygo.Task[Any]]], workers: int, reports: Any) -> None:
    tasks = leak()
    found = runtime.leaked_tasks()
    try:
        assert sorted(task.id for task in found) == sorted(task.id for task in tasks)
    finally:
        end(tasks)
        reports.take()


# ---- no leaks ----


def test_a_global_keeps_it_alive(workers: int) -> None:
    GLOBAL["channel"] = pygo.Channel()
    tasks = started(receive, GLOBAL["channel"])
    assert runtime.leaked_tasks() == []
    GLOBAL.pop("channel").close()
    tasks[0].exception()


def test_a_local_of_main_keeps_it_alive(workers: int) -> None:
    ch: pygo.Channel[int] = pygo.Channel()
    tasks = started(receive, ch)
    view = ch.sender
    del ch
    assert runtime.leaked_tasks() == []
    view.send(1)
    assert tasks[0].join() == 1


def test_a_closure_keeps_it_alive(workers: int) -> None:
    ch: pygo.Channel[int] = pygo.Channel()
    tasks = started(receive, ch)

    def later(ch: pygo.Channel[int] = ch) -> None:
        ch.send(1)

    del ch
    assert runtime.leaked_tasks() == []
    later()
    tasks[0].join()


def test_a_local_of_another_thread_keeps_it_alive(workers: int) -> None:
    go = threading.Event()
    tasks: list[pygo.Task[Any]] = []

    def body() -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        tasks.extend(started(receive, ch))
        local = threading.local()
        local.ch = ch
        del ch
        go.wait()
        local.ch.send(1)

    thread = threading.Thread(target=body)
    thread.start()
    wait_until(lambda: tasks)
    assert runtime.leaked_tasks() == []
    go.set()
    tasks[0].join()
    thread.join()


def test_a_task_that_will_go_on_keeps_it_alive(workers: int) -> None:
    """Main can wake the first, which then wakes the second, and so on."""
    first: pygo.Channel[int] = pygo.Channel()

    def body(source: Any, target: Any) -> None:
        target.send(source.recv() + 1)

    source, tasks = first, []
    for _ in range(20):
        target: pygo.Channel[int] = pygo.Channel(1)
        tasks += started(body, source, target)
        source = target
    tasks += started(tasks[-1].join)
    del source, target
    assert runtime.leaked_tasks() == []
    first.send(1)
    for task in tasks:
        task.join()


def test_a_pending_timer_keeps_it_alive(workers: int) -> None:
    tasks = started(pygo.after(FAR).recv) + started(lambda: pygo.after(FAR).recv())
    assert runtime.leaked_tasks() == []
    cancel(tasks)


def test_whoever_waits_with_a_deadline_is_not_leaked(workers: int) -> None:
    tasks = started(lambda: pygo.Channel().recv(timeout=FAR)) + started(pygo.sleep, FAR)
    assert runtime.leaked_tasks() == []
    cancel(tasks)


def test_a_queue_in_c_keeps_it_alive(workers: int) -> None:
    """What is held where Python does not look still counts."""
    held: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ch: pygo.Channel[int] = pygo.Channel()
    tasks = started(receive, ch)
    held.put([ch])
    del ch
    assert runtime.leaked_tasks() == []
    held.get()[0].send(1)
    tasks[0].join()


def test_leaks_are_told_from_the_rest_under_load(workers: int) -> None:
    stop = False

    def exchange() -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        while not stop:
            partner = pygo.spawn(receive, ch)
            ch.send(1)
            partner.join()

    busy = [pygo.spawn(exchange) for _ in range(3)]
    leaked = started(receive, pygo.Channel(), count=5)
    try:
        for _ in range(5):
            assert {task.id for task in runtime.leaked_tasks()} == {task.id for task in leaked}
    finally:
        stop = True
        for task in busy:
            task.join()
        leaked[0].waiting_on.objects[0].close()  # type: ignore[union-attr]
        for task in leaked:
            task.exception()


def test_it_can_be_called_from_a_task_and_leaves_no_trace(workers: int) -> None:
    tasks = by_argument()
    assert pygo.spawn(runtime.leaked_tasks).join() == tasks
    ch = tasks[0].waiting_on.objects[0]  # type: ignore[union-attr]
    assert runtime.leaked_tasks() == []  # this function could wake it now
    ch.close()
    tasks[0].exception()


def test_free_lists_of_asyncio_are_left_alone() -> None:
    """CPython 3.12 shows them to the collector, and whoever takes what it shows turns them into a ring without end."""
    run_program(
        """
        import asyncio, gc, resource
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        import pygo

        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(20):
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                await future

        asyncio.run(main())
        lost = pygo.spawn(pygo.Channel().recv)
        while lost.state != "waiting":
            pygo.yield_now()
        for _ in range(3):
            assert pygo.runtime.leaked_tasks() == [lost]
            gc.collect()
        """
    ).ok()
