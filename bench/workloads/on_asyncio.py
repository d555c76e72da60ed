"""asyncio: coroutines with `asyncio.Queue`; a queue of one place stands in for a rendezvous."""

from __future__ import annotations

import asyncio
import time
from asyncio import FIRST_COMPLETED, Queue, Task, create_task, sleep
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from time import perf_counter, process_time
from typing import Any

from bench.model import Sizes, Values
from bench.workloads.blocking import burn, nth_prime
from bench.workloads.gauges import TICK, memory, naps, peak_memory, sum_below

Get = Callable[[], Awaitable[Any]]
Put = Callable[[Any], Awaitable[None]]


async def noop() -> None:
    pass


async def join(tasks: Iterable[Task[None]]) -> None:
    for task in tasks:
        await task


def channel(capacity: int = 1) -> Queue[Any]:
    return Queue(capacity)


class Asyncio:
    lacks = ""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def run(self, method: Callable[..., Coroutine[Any, Any, Values]], sizes: Sizes) -> Values:
        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(method(**sizes))

    async def spawn_join(self, n: int) -> Values:
        start = perf_counter()
        await join([create_task(noop()) for _ in range(n)])
        return {"task": (perf_counter() - start) / n}

    async def _park(self, n: int) -> tuple[Queue[Any], list[Task[None]]]:
        gate = Queue[Any]()

        async def parked() -> None:
            await gate.get()

        tasks = [create_task(parked()) for _ in range(n)]
        await sleep(0)
        return gate, tasks

    async def _release(self, gate: Queue[Any], tasks: list[Task[None]]) -> None:
        for _ in tasks:
            gate.put_nowait(None)
        await join(tasks)

    async def parked(self, n: int) -> Values:
        before = memory()
        start = perf_counter()
        gate, tasks = await self._park(n)
        created = perf_counter() - start
        weight = memory() - before
        start = perf_counter()
        await self._release(gate, tasks)
        return {"memory": weight / n, "create": created / n, "release": (perf_counter() - start) / n}

    async def ping_pong(self, n: int) -> Values:
        there, back = channel(), channel()

        async def pong() -> None:
            get, put = there.get, back.put
            for _ in range(n):
                await get()
                await put(None)

        task = create_task(pong())
        put, get = there.put, back.get
        start = perf_counter()
        for _ in range(n):
            await put(None)
            await get()
        elapsed = perf_counter() - start
        await task
        return {"trip": elapsed / n}

    async def yielding(self, n: int) -> Values:
        async def other() -> None:
            for _ in range(n):
                await sleep(0)

        task = create_task(other())
        start = perf_counter()
        for _ in range(n):
            await sleep(0)
        elapsed = perf_counter() - start
        await task
        return {"yield": elapsed / (2 * n)}

    async def _consume(self, queue: Queue[Any], n: int, producers: int) -> Values:
        share = n // producers

        async def produce() -> None:
            put = queue.put
            for item in range(share):
                await put(item)

        get = queue.get
        start = perf_counter()
        tasks = [create_task(produce()) for _ in range(producers)]
        for _ in range(share * producers):
            await get()
        elapsed = perf_counter() - start
        await join(tasks)
        return {"item": elapsed / (share * producers)}

    async def buffered(self, n: int) -> Values:
        return await self._consume(channel(128), n, producers=1)

    async def fan_in(self, n: int, producers: int) -> Values:
        return await self._consume(channel(), n, producers)

    async def ring(self, n: int, laps: int) -> Values:
        links = [channel() for _ in range(n)]

        async def relay(get: Get, put: Put) -> None:
            for _ in range(laps + 1):
                await put(await get())

        tasks = [create_task(relay(links[i].get, links[i + 1].put)) for i in range(n - 1)]
        put, get = links[0].put, links[-1].get
        await put(None)
        token = await get()
        start = perf_counter()
        for _ in range(laps):
            await put(token)
            token = await get()
        elapsed = perf_counter() - start
        await join(tasks)
        return {"hop": elapsed / (laps * n)}

    async def sieve(self, primes: int) -> Values:
        async def generate(put: Put, last: int) -> None:
            for number in range(2, last + 1):
                await put(number)
            await put(0)

        async def sift(get: Get, put: Put, prime: int) -> None:
            while number := await get():
                if number % prime:
                    await put(number)
            await put(0)

        last = nth_prime(primes)
        start = perf_counter()
        source = channel()
        tasks = [create_task(generate(source.put, last))]
        prime = 0
        for _ in range(primes):
            prime = await source.get()
            sink = channel()
            tasks.append(create_task(sift(source.get, sink.put, prime)))
            source = sink
        elapsed = perf_counter() - start
        while await source.get():
            pass
        await join(tasks)
        assert prime == last
        return {"time": elapsed}

    async def skynet(self, leaves: int) -> Values:
        async def node(report: Put, number: int, size: int) -> None:
            if size == 1:
                await report(number)
                return
            results, share = channel(), size // 10
            children = [create_task(node(results.put, number + child * share, share)) for child in range(10)]
            total, get = 0, results.get
            for _ in children:
                total += await get()
            await report(total)

        start = perf_counter()
        result = channel()
        root = create_task(node(result.put, 0, leaves))
        total = await result.get()
        elapsed = perf_counter() - start
        await root
        assert total == sum_below(leaves)
        return {"time": elapsed, "peak": peak_memory()}

    async def selecting(self, n: int) -> Values:
        """A pending get() per queue, and `asyncio.wait` for the first of them."""
        queues = [channel() for _ in range(4)]
        share = n // len(queues)

        async def produce(put: Put) -> None:
            for item in range(share):
                await put(item)

        start = perf_counter()
        tasks = [create_task(produce(queue.put)) for queue in queues]
        source = {create_task(queue.get()): queue for queue in queues}
        received = 0
        while received < share * len(queues):
            done, _ = await asyncio.wait(source, return_when=FIRST_COMPLETED)
            for getter in done:
                queue = source.pop(getter)
                source[create_task(queue.get())] = queue
                received += 1
        elapsed = perf_counter() - start
        for getter in source:
            getter.cancel()
        await join(tasks)
        return {"item": elapsed / received}

    async def sleepers(self, n: int) -> Values:
        async def nap(seconds: float) -> None:
            await sleep(seconds)

        durations = naps(n)
        start, start_cpu = perf_counter(), process_time()
        await join([create_task(nap(seconds)) for seconds in durations])
        return {"wall": perf_counter() - start, "cpu": (process_time() - start_cpu) / n}

    async def _beside_ticker(self, work: Callable[[], None], copies: int) -> Values:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await sleep(TICK)
                ticks += 1

        async def call() -> None:
            work()

        ticker = create_task(tick())
        await sleep(4 * TICK)
        before, start = ticks, perf_counter()
        await join([create_task(call()) for _ in range(copies)])
        result = {"total": perf_counter() - start, "ticks": float(ticks - before)}
        ticker.cancel()
        return result

    async def blocking(self, calls: int, call_ms: int) -> Values:
        return await self._beside_ticker(lambda: time.sleep(call_ms / 1000), calls)

    async def hog(self, busy_ms: int) -> Values:
        return await self._beside_ticker(lambda: burn(busy_ms / 1000), 1)

    async def idle(self, n: int, seconds: int) -> Values:
        gate, tasks = await self._park(n)
        start = process_time()
        await sleep(seconds)
        used = process_time() - start
        await self._release(gate, tasks)
        return {"cpu": used * 5 / seconds}


SYSTEM = Asyncio()
