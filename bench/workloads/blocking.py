"""The workloads for systems in which a wait is an ordinary call: threads, greenlets of gevent, pygo, runloom.

Each method runs inside a task of the system (the main thread where that is one), with every hot call bound to a
local name, so that nothing but the loop itself stands between the system and the clock.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any, NamedTuple

from bench.model import Sizes, UnsupportedError, Values
from bench.workloads.gauges import TICK, memory, naps, peak_memory, sum_below


class Ends(NamedTuple):
    """A channel, and its two operations as the system's own bound methods."""

    send: Callable[[Any], object]
    recv: Callable[[], Any]
    channel: Any


def noop() -> None:
    pass


class Blocking(ABC):
    """The primitives of one system, and the workloads made of them."""

    lacks = ""
    spawn: Callable[..., Any]
    sleep: Callable[[float], object]
    yield_now: Callable[[], object]

    @abstractmethod
    def channel(self, capacity: int = 0) -> Ends:
        """A channel; capacity 0 is a rendezvous, or the nearest thing the system has."""

    def join(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            task.join()

    def settle(self, parked_on: Ends, n: int) -> None:
        """Return once `n` spawned tasks are parked on the channel."""
        self.yield_now()

    def selector(self, channels: Sequence[Ends]) -> Callable[[], object]:
        """A call that receives one value from whichever channel has one."""
        raise UnsupportedError("no select over channels")

    def run(self, method: Callable[..., Values], sizes: Sizes) -> Values:
        """Run the method as a task and return what it returns."""
        return method(**sizes)

    def spawn_join(self, n: int) -> Values:
        spawn = self.spawn
        start = perf_counter()
        self.join([spawn(noop) for _ in range(n)])
        return {"task": (perf_counter() - start) / n}

    def _park(self, n: int) -> tuple[Ends, list[Any]]:
        gate = self.channel()
        recv, spawn = gate.recv, self.spawn

        def parked() -> None:
            recv()

        tasks = [spawn(parked) for _ in range(n)]
        self.settle(gate, n)
        return gate, tasks

    def _release(self, gate: Ends, tasks: list[Any]) -> None:
        send = gate.send
        for _ in tasks:
            send(None)
        self.join(tasks)

    def parked(self, n: int) -> Values:
        before = memory()
        start = perf_counter()
        gate, tasks = self._park(n)
        created = perf_counter() - start
        weight = memory() - before
        start = perf_counter()
        self._release(gate, tasks)
        return {"memory": weight / n, "create": created / n, "release": (perf_counter() - start) / n}

    def ping_pong(self, n: int) -> Values:
        there, back = self.channel(), self.channel()

        def pong() -> None:
            recv, send = there.recv, back.send
            for _ in range(n):
                recv()
                send(None)

        task = self.spawn(pong)
        send, recv = there.send, back.recv
        start = perf_counter()
        for _ in range(n):
            send(None)
            recv()
        elapsed = perf_counter() - start
        self.join([task])
        return {"trip": elapsed / n}

    def yielding(self, n: int) -> Values:
        yield_now = self.yield_now

        def other() -> None:
            for _ in range(n):
                yield_now()

        task = self.spawn(other)
        start = perf_counter()
        for _ in range(n):
            yield_now()
        elapsed = perf_counter() - start
        self.join([task])
        return {"yield": elapsed / (2 * n)}

    def _consume(self, channel: Ends, n: int, producers: int) -> Values:
        share = n // producers

        def produce() -> None:
            send = channel.send
            for item in range(share):
                send(item)

        recv = channel.recv
        start = perf_counter()
        tasks = [self.spawn(produce) for _ in range(producers)]
        for _ in range(share * producers):
            recv()
        elapsed = perf_counter() - start
        self.join(tasks)
        return {"item": elapsed / (share * producers)}

    def buffered(self, n: int) -> Values:
        return self._consume(self.channel(128), n, producers=1)

    def fan_in(self, n: int, producers: int) -> Values:
        return self._consume(self.channel(), n, producers)

    def ring(self, n: int, laps: int) -> Values:
        links = [self.channel() for _ in range(n)]

        def relay(recv: Callable[[], Any], send: Callable[[Any], object]) -> None:
            for _ in range(laps + 1):
                send(recv())

        # The running task closes the ring: it sends into the first link and receives from the last.
        tasks = [self.spawn(relay, links[i].recv, links[i + 1].send) for i in range(n - 1)]
        send, recv = links[0].send, links[-1].recv
        send(None)
        token = recv()
        start = perf_counter()
        for _ in range(laps):
            send(token)
            token = recv()
        elapsed = perf_counter() - start
        self.join(tasks)
        return {"hop": elapsed / (laps * n)}

    def sieve(self, primes: int) -> Values:
        tasks = []

        def generate(send: Callable[[int], object], last: int) -> None:
            for number in range(2, last + 1):
                send(number)
            send(0)

        def sift(recv: Callable[[], int], send: Callable[[int], object], prime: int) -> None:
            while number := recv():
                if number % prime:
                    send(number)
            send(0)

        last = nth_prime(primes)
        start = perf_counter()
        source = self.channel()
        tasks.append(self.spawn(generate, source.send, last))
        prime = 0
        for _ in range(primes):
            prime = source.recv()
            sink = self.channel()
            tasks.append(self.spawn(sift, source.recv, sink.send, prime))
            source = sink
        elapsed = perf_counter() - start
        while source.recv():
            pass
        self.join(tasks)
        assert prime == last
        return {"time": elapsed}

    def skynet(self, leaves: int) -> Values:
        spawn, channel = self.spawn, self.channel

        def node(report: Callable[[int], object], number: int, size: int) -> None:
            if size == 1:
                report(number)
                return
            results, share = channel(), size // 10
            for child in range(10):
                spawn(node, results.send, number + child * share, share)
            total, recv = 0, results.recv
            for _ in range(10):
                total += recv()
            report(total)

        start = perf_counter()
        result = channel()
        root = spawn(node, result.send, 0, leaves)
        total = result.recv()
        elapsed = perf_counter() - start
        self.join([root])
        assert total == sum_below(leaves)
        return {"time": elapsed, "peak": peak_memory()}

    def selecting(self, n: int) -> Values:
        channels = [self.channel() for _ in range(4)]
        share = n // len(channels)

        def produce(send: Callable[[int], object]) -> None:
            for item in range(share):
                send(item)

        select_one = self.selector(channels)
        start = perf_counter()
        tasks = [self.spawn(produce, channel.send) for channel in channels]
        for _ in range(share * len(channels)):
            select_one()
        elapsed = perf_counter() - start
        self.join(tasks)
        return {"item": elapsed / (share * len(channels))}

    def sleepers(self, n: int) -> Values:
        sleep, durations = self.sleep, naps(n)

        def nap(seconds: float) -> None:
            sleep(seconds)

        start, start_cpu = perf_counter(), process_time()
        self.join([self.spawn(nap, seconds) for seconds in durations])
        return {"wall": perf_counter() - start, "cpu": (process_time() - start_cpu) / n}

    def _beside_ticker(self, work: Callable[[], object], copies: int) -> Values:
        ticks = 0
        over = False

        def tick() -> None:
            nonlocal ticks
            while not over:
                self.sleep(TICK)
                ticks += 1

        ticker = self.spawn(tick)
        self.sleep(4 * TICK)
        before, start = ticks, perf_counter()
        self.join([self.spawn(work) for _ in range(copies)])
        result = {"total": perf_counter() - start, "ticks": float(ticks - before)}
        over = True
        self.join([ticker])
        return result

    def blocking(self, calls: int, call_ms: int) -> Values:
        return self._beside_ticker(lambda: time.sleep(call_ms / 1000), calls)

    def hog(self, busy_ms: int) -> Values:
        return self._beside_ticker(lambda: burn(busy_ms / 1000), 1)

    def idle(self, n: int, seconds: int) -> Values:
        gate, tasks = self._park(n)
        start = process_time()
        self.sleep(seconds)
        used = process_time() - start
        self._release(gate, tasks)
        return {"cpu": used * 5 / seconds}


def burn(seconds: float) -> None:
    """Compute in pure Python, never waiting."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        sum_below(1000)


def nth_prime(n: int) -> int:
    found: list[int] = []
    number = 1
    while len(found) < n:
        number += 1
        if all(number % prime for prime in found):
            found.append(number)
    return found[-1]
