"""What is measured: the workloads, the figures each of them gives, and the systems they run on.

Workloads hand their figures over in seconds, bytes or plain counts; units are a matter of display.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "B": 1.0, "MiB": 2.0**20, "": 1.0}

Sizes = dict[str, int]
Values = dict[str, float]


class UnsupportedError(Exception):
    """This system has no such workload; the message says why."""


@dataclass(frozen=True)
class Figure:
    """One number of a workload: its title, a format over the sizes, its display unit, and which way is better."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = False

    def scaled(self, value: float) -> float:
        return value / UNITS[self.unit]

    def show(self, value: float) -> str:
        scaled = self.scaled(value)
        return f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"

    def advantage(self, ours: float, theirs: float) -> float | None:
        """How many times better `ours` is than `theirs`; None where that cannot be said."""
        good, bad = (ours, theirs) if self.higher_is_better else (theirs, ours)
        return good / bad if good > 0 and bad > 0 else None


@dataclass(frozen=True)
class Workload:
    """A named shape of work. `full` and `quick` are its sizes, `threading` those that OS threads can bear."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    full: Sizes
    quick: Sizes
    threading: Sizes | None = None
    method: str = ""
    warm_up: bool = False
    only: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """The name of the method that runs it."""
        return self.method or self.name.replace("-", "_")

    def sizes(self, system: str, quick: bool) -> Sizes:
        sizes = dict(self.quick if quick else self.full)
        if system == "threading" and self.threading:
            share = 5 if quick else 1
            sizes |= {key: max(min(sizes[key], bound // share), 1) for key, bound in self.threading.items()}
        return sizes

    def titled(self, figure: Figure, quick: bool) -> str:
        """The figure's title at the sizes that pygo runs."""
        return figure.title.format(**self.sizes("pygo", quick))


@dataclass(frozen=True)
class System:
    """One way of running many tasks: `module` under `bench.workloads`, `package` as it is installed."""

    name: str
    module: str
    package: str | None = None


SYSTEMS: Final = {
    system.name: system
    for system in (
        System("pygo", "on_pygo", "pygo"),
        System("threading", "on_threading"),
        System("asyncio", "on_asyncio"),
        System("uvloop", "on_uvloop", "uvloop"),
        System("gevent", "on_gevent", "gevent"),
        System("greenlet", "on_greenlet", "greenlet"),
        System("runloom", "on_runloom", "runloom"),
    )
}

_PARKED = (
    Figure("memory", "{n:,} parked: resident + page tables, per task", "B"),
    Figure("create", "{n:,} parked: create and park, per task", "us"),
    Figure("release", "{n:,} parked: release, per task", "us"),
)

WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload(
            "spawn-join",
            "spawn no-op tasks, then wait for all of them",
            (Figure("task", "spawn + join, per task", "ns"),),
            full={"n": 100_000},
            quick={"n": 20_000},
            threading={"n": 10_000},
            warm_up=True,
        ),
        Workload(
            "parked",
            "tasks that block on one channel: memory, time to create and park, time to release",
            _PARKED,
            full={"n": 100_000},
            quick={"n": 20_000},
            threading={"n": 10_000},
        ),
        Workload(
            "parked-million",
            "the same with 1,000,000 tasks",
            _PARKED,
            full={"n": 1_000_000},
            quick={"n": 200_000},
            method="parked",
            only=("pygo",),
        ),
        Workload(
            "ping-pong",
            "two tasks send one value to and fro over two unbuffered channels",
            (Figure("trip", "ping-pong, per round trip", "ns"),),
            full={"n": 200_000},
            quick={"n": 20_000},
            threading={"n": 20_000},
            warm_up=True,
        ),
        Workload(
            "yield",
            "two tasks yield to each other",
            (Figure("yield", "yield, each", "ns"),),
            full={"n": 500_000},
            quick={"n": 50_000},
            threading={"n": 20_000},
            method="yielding",
            warm_up=True,
        ),
        Workload(
            "buffered",
            "one producer, one consumer, a channel of capacity 128",
            (Figure("item", "buffered channel (128), per item", "ns"),),
            full={"n": 1_000_000},
            quick={"n": 100_000},
            threading={"n": 200_000},
            warm_up=True,
        ),
        Workload(
            "fan-in",
            "100 producers, one consumer, an unbuffered channel",
            (Figure("item", "fan-in 100:1, per item", "ns"),),
            full={"n": 200_000, "producers": 100},
            quick={"n": 20_000, "producers": 100},
            threading={"n": 20_000},
            warm_up=True,
        ),
        Workload(
            "ring",
            "10,000 tasks in a ring of unbuffered channels, one token, 100 laps; set-up and first lap not timed",
            (Figure("hop", "ring of {n:,}, per hop", "ns"),),
            full={"n": 10_000, "laps": 100},
            quick={"n": 2_000, "laps": 10},
            threading={"n": 10_000, "laps": 2},
        ),
        Workload(
            "sieve",
            "prime sieve: a filter task per prime, unbuffered channels",
            (Figure("time", "prime sieve of {primes}", "ms"),),
            full={"primes": 500},
            quick={"primes": 200},
            warm_up=True,
        ),
        Workload(
            "skynet",
            "a tree of tasks with fan-out 10 and a channel per node, 1,000,000 leaves: 1,111,111 tasks",
            (
                Figure("time", "skynet of {leaves:,} leaves", "s"),
                Figure("peak", "skynet: peak resident memory", "MiB"),
            ),
            full={"leaves": 1_000_000},
            quick={"leaves": 10_000},
        ),
        Workload(
            "select",
            "four producers with an unbuffered channel each, one task that selects over them",
            (Figure("item", "select over 4 channels, per item", "ns"),),
            full={"n": 100_000},
            quick={"n": 20_000},
            method="selecting",
            warm_up=True,
        ),
        Workload(
            "sleepers",
            "100,000 tasks that sleep 0 to 1 s each",
            (
                Figure("wall", "{n:,} sleepers of 0..1 s: wall", "s"),
                Figure("cpu", "sleepers: CPU per task", "us"),
            ),
            full={"n": 100_000},
            quick={"n": 20_000},
            threading={"n": 10_000},
        ),
        Workload(
            "blocking",
            "8 tasks in time.sleep(0.2), the blocking one, beside a task that ticks every 5 ms",
            (
                Figure("total", "{calls} blocking calls of {call_ms} ms: total", "s"),
                Figure("ticks", "{calls} blocking calls: ticks of 5 ms meanwhile", "", higher_is_better=True),
            ),
            full={"calls": 8, "call_ms": 200},
            quick={"calls": 8, "call_ms": 200},
        ),
        Workload(
            "hog",
            "a pure-Python busy loop of 1 s beside a task that ticks every 5 ms",
            (Figure("ticks", "busy loop of {busy_ms:,} ms: ticks of 5 ms meanwhile", "", higher_is_better=True),),
            full={"busy_ms": 1000},
            quick={"busy_ms": 1000},
        ),
        Workload(
            "idle",
            "5 s with 100,000 parked tasks and nothing to do",
            (Figure("cpu", "idle with {n:,} parked: CPU in 5 s", "ms"),),
            full={"n": 100_000, "seconds": 5},
            quick={"n": 20_000, "seconds": 1},
            threading={"n": 10_000},
        ),
    )
}
