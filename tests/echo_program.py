"""A program of everything in small, for tools that slow it down: echo, channels, select, timers, cancellation.

    python tests/echo_program.py [ROUNDS [WORKERS]]

The last line of its output is `operations: N`. What it does is checked; it fails with a traceback.
"""

from __future__ import annotations

import socket
import sys
import time

import pygo
from pygo import sync

CLIENTS, MESSAGES = 4, 5


class Counter:
    """Operations done, by name."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        self.done[name] = self.done.get(name, 0) + count


def serve(server: socket.socket) -> int:
    """Echo in upper case until the other side closes; each call blocks a thread, not the other tasks."""
    served = 0
    with server:
        while data := server.recv(100):
            server.sendall(data.upper())
            served += 1
    return served


def echo(counter: Counter, in_thread: bool) -> None:
    replies: pygo.Channel[bytes] = pygo.Channel(3)

    def client(number: int, connection: socket.socket) -> None:
        with connection:
            for message in range(MESSAGES):
                connection.sendall(b"message %d.%d" % (number, message))
                replies.send(connection.recv(100))

    servers = []
    with pygo.TaskGroup() as group:
        for number in range(CLIENTS):
            near, far = socket.socketpair()
            servers.append(group.spawn(pygo.to_thread, serve, far) if in_thread else group.spawn(serve, far))
            group.spawn(client, number, near)
        expected = {b"MESSAGE %d.%d" % (n, m) for n in range(CLIENTS) for m in range(MESSAGES)}
        got = {replies.recv() for _ in expected}
    assert got == expected
    assert [task.join() for task in servers] == [MESSAGES] * CLIENTS
    counter.add("echoes", len(got))


def exchange(counter: Counter) -> None:
    left: pygo.Channel[int] = pygo.Channel()
    right: pygo.Channel[int] = pygo.Channel(2)
    silent = [pygo.Channel[int]() for _ in range(10)]
    stop = pygo.after(60.0)

    def produce(channel: pygo.Channel[int]) -> None:
        for number in range(20):
            channel.send(number)
        channel.close()

    pygo.spawn(produce, left)
    pygo.spawn(produce, right)
    total, open_ones = 0, {0, 1}
    while open_ones:
        cases = [pygo.recv(left if 0 in open_ones else None), pygo.recv(right if 1 in open_ones else None)]
        index, value, ok = pygo.select(*cases, pygo.recv(stop), *map(pygo.recv, silent))
        assert index in open_ones
        if ok:
            total += value
            counter.add("selects")
        else:
            open_ones.discard(index)
    assert total == 2 * sum(range(20))
    assert pygo.select(*map(pygo.recv, silent), default=True).index == -1


def wait(counter: Counter) -> None:
    lock, ready = sync.Lock(), sync.Event()
    never: pygo.Channel[None] = pygo.Channel()
    ended = pygo.WaitGroup()

    def contend() -> None:
        with lock:
            pygo.yield_now()
            counter.add("locked")

    tasks = [pygo.spawn(contend) for _ in range(5)]
    waiting = [pygo.spawn(never.recv) for _ in range(3)]
    pygo.Timer(0.001, ready.set)
    assert ready.wait(60.0)
    ended.add(1)
    ticker = pygo.Ticker(0.001)
    for _ in range(2):
        ticker.channel.recv()
    ticker.stop()
    ended.done()
    ended.wait()
    for task in waiting:
        task.cancel()
    pygo.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    counter.add("cancelled", len(waiting))
    for task in tasks:
        task.join()
    try:
        with pygo.timeout(0.002):
            never.recv()
    except TimeoutError:
        counter.add("timeouts")
    try:
        never.recv(timeout=0.001)
    except TimeoutError:
        counter.add("timeouts")
    assert pygo.call_on_stack(1 << 20, deep, 50) == 50
    pygo.sleep(0.001)
    counter.add("slept")


def deep(levels: int) -> int:
    """Each level is one of the interpreter's and some of C."""
    return 0 if levels == 0 else 1 + next(map(deep, [levels - 1]))


def keywords(*args: int, **kwargs: int) -> int:
    return sum(args) + sum(kwargs.values())


def spawn(counter: Counter) -> None:
    tasks = [pygo.spawn(keywords, *range(10), a=1, b=2) for _ in range(50)]
    assert [task.join() for task in tasks] == [48] * 50
    counter.add("spawned", 50)
    many = [pygo.spawn(pygo.yield_now) for _ in range(300)]
    pygo.wait(many)
    counter.add("spawned", 300)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    pygo.runtime.set_workers(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    counter = Counter()
    for _ in range(rounds):
        spawn(counter)
        pygo.spawn(exchange, counter).join()
        exchange(counter)
        pygo.spawn(wait, counter).join()
        wait(counter)
        echo(counter, in_thread=False)
        pygo.spawn(echo, counter, True).join()
    deadline = time.monotonic() + 60.0
    while pygo.runtime.stats().live and time.monotonic() < deadline:
        time.sleep(0.001)
    stats = pygo.runtime.stats()
    assert (stats.live, stats.ready, stats.starved) == (0, 0, 0), stats
    pygo.spawn(pygo.Channel[None]().recv)  # one that waits when the interpreter ends
    print(counter.done)
    print("operations:", sum(counter.done.values()))


if __name__ == "__main__":
    main()
