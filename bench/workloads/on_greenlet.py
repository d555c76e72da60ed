"""Bare greenlets: the cost of a switch and a stack with no scheduler, no channel and no timer around them."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from greenlet import getcurrent, greenlet

from bench.model import Sizes, Values
from bench.workloads.blocking import noop
from bench.workloads.gauges import memory


class Greenlet:
    lacks = "greenlet has neither channels nor timers nor a scheduler"

    def run(self, method: Callable[..., Values], sizes: Sizes) -> Values:
        return method(**sizes)

    def spawn_join(self, n: int) -> Values:
        start = perf_counter()
        tasks = [greenlet(noop) for _ in range(n)]
        for task in tasks:
            task.switch()
        return {"task": (perf_counter() - start) / n}

    def parked(self, n: int) -> Values:
        release = getcurrent().switch

        def wait() -> None:
            release()

        before = memory()
        start = perf_counter()
        tasks = [greenlet(wait) for _ in range(n)]
        for task in tasks:
            task.switch()
        created = perf_counter() - start
        weight = memory() - before
        start = perf_counter()
        for task in tasks:
            task.switch()
        return {"memory": weight / n, "create": created / n, "release": (perf_counter() - start) / n}

    def _back_and_forth(self, n: int) -> float:
        here = getcurrent().switch

        def other() -> None:
            for _ in range(n):
                here(None)

        there = greenlet(other).switch
        start = perf_counter()
        for _ in range(n):
            there()
        elapsed = perf_counter() - start
        there()
        return elapsed

    def ping_pong(self, n: int) -> Values:
        """A value handed over with each switch."""
        return {"trip": self._back_and_forth(n) / n}

    def yielding(self, n: int) -> Values:
        return {"yield": self._back_and_forth(n) / (2 * n)}

    def ring(self, n: int, laps: int) -> Values:
        """Each greenlet switches straight to the next."""
        home = getcurrent().switch

        def relay(successor: Callable[[object], object]) -> None:
            home()
            for _ in range(laps + 1):
                successor(None)

        # Built from the end, because each needs its successor; the last one's is the running greenlet. They are
        # started from here one by one: started by each other, they would add up to one deep recursion.
        tasks: list[greenlet] = []
        successor = home
        for _ in range(n - 1):
            tasks.append(greenlet(relay))
            tasks[-1].switch(successor)
            successor = tasks[-1].switch
        first = successor
        first()
        start = perf_counter()
        for _ in range(laps):
            first()
        elapsed = perf_counter() - start
        for task in tasks:  # each still stands in its last switch
            task.switch()
        return {"hop": elapsed / (laps * n)}


SYSTEM = Greenlet()
