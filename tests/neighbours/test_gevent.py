"""gevent, unpatched, in tasks and in threads beside them; uvloop in tasks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.pool
import gevent.queue
import gevent.threadpool
import uvloop
from helpers import HANG, in_task, in_thread, in_threads, join_all, run_program, wait_until

import pygo

# What gevent's own hub needs of the OS thread: it is the task's own until its end.


def crowd_of_greenlets(count: int = 20) -> list[int]:
    """Greenlets of gevent that sleep, pass things on and wait for each other; pygo is used among them."""
    queue: Any = gevent.queue.Queue(2)
    turnstile = gevent.lock.BoundedSemaphore(3)
    done = gevent.event.Event()

    def produce(number: int) -> None:
        with turnstile:
            gevent.sleep(0.0005 * (number % 3))
            pygo.yield_now()
            queue.put(number)

    def consume() -> list[int]:
        taken = sorted(queue.get() for _ in range(count))
        done.set()
        return taken

    consumer = gevent.spawn(consume)
    producers = [gevent.spawn(produce, number) for number in range(count)]
    assert done.wait(timeout=HANG)
    gevent.joinall([*producers, consumer], timeout=HANG, raise_error=True)
    return consumer.value  # type: ignore[no-any-return]


def end_hub() -> None:
    gevent.get_hub().destroy(destroy_loop=True)


def in_hub(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    finally:
        end_hub()


def test_a_hub_in_each_of_many_tasks(workers: int) -> None:
    assert join_all([pygo.spawn(in_hub, crowd_of_greenlets) for _ in range(8)]) == [list(range(20))] * 8


def test_a_hub_that_nobody_ends_goes_with_its_task(workers: int) -> None:
    assert join_all([pygo.spawn(crowd_of_greenlets, 5) for _ in range(4)]) == [list(range(5))] * 4


def test_greenlets_of_gevent_wait_for_tasks(workers: int) -> None:
    """A wait in pygo holds up the hub of this task, as a blocking call would, and no other task."""
    requests: pygo.Channel[Any] = pygo.Channel()

    def serve() -> None:
        for reply in requests:
            reply.send(None)

    def ask(number: int) -> int:
        reply: pygo.Channel[None] = pygo.Channel()
        requests.send(reply)
        gevent.sleep(0)
        reply.recv()
        return number

    def body() -> list[int]:
        pool = gevent.pool.Pool(4)
        return sorted(pool.imap_unordered(ask, range(10)))

    servers = [pygo.spawn(serve) for _ in range(12)]  # each may be held up by a greenlet that does not receive yet
    assert join_all([pygo.spawn(in_hub, body) for _ in range(3)]) == [list(range(10))] * 3
    requests.close()
    join_all(servers)


def test_the_thread_pool_of_gevent_in_a_task(workers: int) -> None:
    def body() -> list[int]:
        pool = gevent.threadpool.ThreadPool(2)
        try:
            return [result.get() for result in [pool.spawn(pow, 2, power) for power in range(5)]]
        finally:
            pool.kill()

    assert join_all([pygo.spawn(in_hub, body) for _ in range(2)]) == [[1, 2, 4, 8, 16]] * 2


def test_gevent_through_to_thread_and_in_threads(workers: int) -> None:
    ticks = pygo.spawn(lambda: [pygo.sleep(0.0005) for _ in range(20)])
    assert in_task(lambda: pygo.to_thread(in_hub, crowd_of_greenlets)) == list(range(20))
    assert in_threads([lambda: in_hub(crowd_of_greenlets)] * 2) == [list(range(20))] * 2
    assert len(ticks.join(timeout=HANG)) == 20


def test_a_hub_in_the_main_thread_beside_tasks() -> None:
    program = run_program(
        """
        import gevent, pygo
        ch = pygo.Channel(8)
        def feed():
            for number in range(50):
                ch.send(number)
                pygo.yield_now()
            ch.close()
        def poll():
            seen = []
            while True:
                try:
                    value, there = ch.try_recv()
                except pygo.ChannelClosed:
                    return seen
                if there:
                    seen.append(value)
                else:
                    gevent.sleep(0.0005)
        task = pygo.spawn(feed)
        pollers = [gevent.spawn(poll) for _ in range(3)]
        gevent.joinall(pollers, raise_error=True)
        assert sorted(sum((poller.value for poller in pollers), [])) == list(range(50))
        task.join()
        print("end")
        """
    )
    assert program.ok().out == "end\n"


def test_timeouts_of_gevent_in_tasks(workers: int) -> None:
    def body() -> str:
        with gevent.Timeout(0.001, False):
            gevent.sleep(HANG)
        try:
            with gevent.Timeout(0.001):
                gevent.event.Event().wait()
        except gevent.Timeout:
            return "late"
        return ""

    assert join_all([pygo.spawn(in_hub, body) for _ in range(6)]) == ["late"] * 6


async def asked(requests: Any, number: int) -> int:
    await asyncio.sleep(0.0005)
    reply: pygo.Channel[int] = pygo.Channel(1)
    requests.send((number, reply))
    while not len(reply):
        await asyncio.sleep(0.0002)
    return reply.recv()


async def gathered(requests: Any) -> list[int]:
    return await asyncio.gather(*(asked(requests, number) for number in range(10)))


def test_uvloop_runs_in_many_tasks(workers: int) -> None:
    """A loop per task; its callbacks use pygo, and a coroutine that waits there holds up its own loop only."""
    requests: pygo.Channel[Any] = pygo.Channel()

    def serve() -> None:
        for number, reply in requests:
            pygo.yield_now()
            reply.send(number * number)

    servers = [pygo.spawn(serve) for _ in range(2)]
    tasks = [pygo.spawn(uvloop.run, gathered(requests)) for _ in range(6)]
    tasks += [pygo.spawn(lambda: uvloop.run(gathered(requests))) for _ in range(2)]
    assert join_all(tasks) == [[number * number for number in range(10)]] * 8
    requests.close()
    join_all(servers)


def test_uvloop_serves_sockets_in_tasks_and_in_a_thread(workers: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            pygo.yield_now()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            answers = b""
            for number in range(5):
                writer.write(b"%d" % number)
                answers += await reader.readexactly(1)
            writer.close()
            await writer.wait_closed()
            return answers

    tasks = [pygo.spawn(lambda: uvloop.run(talk())) for _ in range(4)]
    assert in_thread(lambda: uvloop.run(talk())) == b"01234"
    assert join_all(tasks) == [b"01234"] * 4


def test_nothing_of_the_threads_is_left(workers: int) -> None:
    before = threading.active_count()
    join_all([pygo.spawn(in_hub, crowd_of_greenlets, 3) for _ in range(10)])
    wait_until(lambda: threading.active_count() <= before + workers)
