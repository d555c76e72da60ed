"""The runtime as a whole: workers, counters, dumps, stack size."""

from __future__ import annotations

import operator
from typing import NamedTuple, TextIO

from pygo import _extension, _report
from pygo._native import all_tasks

__all__ = ["Stats", "dump", "set_default_stack_size", "set_workers", "stats", "workers"]


class Stats(NamedTuple):
    """Counters of one moment. Totals count from the start of the process."""

    workers: int
    """Workers asked for; see `workers()`."""
    threads: int
    """Worker threads that exist now, those held in blocking calls included."""
    blocked: int
    """Worker threads whose task sits in a blocking call or computes beside the others."""
    idle: int
    """Worker threads that sleep."""
    spawned: int
    """Total of tasks spawned."""
    finished: int
    """Total of tasks ended."""
    live: int
    """Tasks spawned and not ended."""
    ready: int
    """Tasks that stand in a queue."""
    parked: int
    """Live tasks that have started and neither run nor stand in a queue: they wait, or sit in a blocking call."""
    fibers: int
    """Stacks with a thread state, in use or pooled."""
    fibers_pooled: int
    """Those of them that no task uses."""
    switches: int
    """Total of switches to a task."""
    parks: int
    """Total of waits in which a task left its thread."""
    handoffs: int
    """Total of times the right to run was taken from a worker in a blocking call or a long computation."""
    steals: int
    """Total of times a worker took tasks from another's queue."""
    timers: int
    """Timers pending: sleeps, timeouts, `after`, `Timer`, `Ticker`."""
    starved: int
    """Tasks that wait for a stack because the system refused memory."""
    stack_bytes: int
    """Address space reserved for stacks."""
    unguarded_stacks: int
    """Stacks without a guard page because the system refused one."""


def workers() -> int:
    """The number of workers. Default: the CPUs this process may use, or the environment's PYGO_WORKERS. Go: GOMAXPROCS.

    On builds with the GIL one worker at a time runs Python; the others stand by to take over when its task blocks.
    """
    return _extension.workers()


def set_workers(n: int) -> None:
    """Set the number of workers, 1 to 256, while everything runs. Raises ValueError and TypeError. Never waits."""
    _extension.set_workers(operator.index(n))


def set_default_stack_size(n: int) -> None:
    """Set the stack size in bytes that tasks beyond the first few thousand get at least; the first get 8 MiB.

    Counts for stacks made from now on. Raises ValueError below 64 KiB, TypeError for anything but an int.
    """
    _extension.set_default_stack_size(operator.index(n))


def stats() -> Stats:
    """The runtime's counters now. Never waits."""
    raw = _extension.read_stats()
    in_use = raw["fibers"] - raw["fibers_pooled"]
    started_ready = max(0, raw["ready"] - max(0, raw["live"] - in_use))
    return Stats(
        workers=raw["workers"],
        threads=raw["threads"],
        blocked=raw["blocked"],
        idle=raw["idle"],
        spawned=raw["spawned"],
        finished=raw["finished"],
        live=raw["live"],
        ready=raw["ready"],
        parked=max(0, in_use - started_ready),
        fibers=raw["fibers"],
        fibers_pooled=raw["fibers_pooled"],
        switches=raw["switches"],
        parks=raw["parks"],
        handoffs=raw["handoffs"],
        steals=raw["steals"],
        timers=raw["timers"],
        starved=raw["starved"],
        stack_bytes=raw["stack_bytes"],
        unguarded_stacks=raw["stacks_unguarded"],
    )


def dump(file: TextIO | None = None) -> None:
    """Print every task: id, name, state, what it waits on and for how long, where it was spawned, its Python stack.

    file: default sys.stderr. May be called at any time, from tasks and any thread.
    """
    _report.dump(all_tasks(), file)
