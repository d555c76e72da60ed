"""The runtime as a whole: workers, counters, dumps, stack size."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple, TextIO

from pygo import _extension, _report, _reporter
from pygo._native import Task, all_tasks

__all__ = [
    "Stats",
    "dump",
    "dump_on",
    "leaked_tasks",
    "set_default_stack_size",
    "set_workers",
    "stats",
    "watchdog",
    "workers",
]


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

    After the tasks come the ordinary threads with their stacks. file: a text file, default sys.stderr. May be called at
    any time, from tasks and any thread, while everything runs: each task is shown as it was at one moment.
    """
    _report.dump(all_tasks(), file)


def watchdog(seconds: float | None) -> None:
    """Name on stderr each task that keeps its thread in one call for longer than that, with its stack, once per stay.

    seconds: None or 0 turns it off, as it is at the start unless the environment has PYGO_WATCHDOG=seconds. A stay is
    the time between two scheduling points (waits in pygo, `yield_now`): a blocking call or a computation. Stays are
    measured to a tenth of a second. Where a call holds the GIL all the time, the report comes when it has ended. Raises
    ValueError for a negative time. Never waits.
    """
    limit = 0.0 if seconds is None else float(seconds)
    if not 0 <= limit < 1e9:
        raise ValueError(f"the watchdog needs a non-negative number of seconds, not {seconds!r}")
    _reporter.set_limit(limit)


def leaked_tasks() -> list[Task[Any]]:
    """The tasks that wait, without a deadline, for something that nothing else alive can reach: they never go on.

    After Go's goroutine-leak profile. Looks at every object the garbage collector knows, so it takes about as long as
    some full collections; other tasks run meanwhile, and what it finds it has seen twice. It errs on the side of
    silence: what is held in ways that Python cannot see counts as reachable. A task whose handle alone is still held is
    leaked all the same. Never waits.
    """
    from pygo import _leaks  # seldom needed

    return _leaks.leaked_tasks()


def dump_on(signum: int) -> None:
    """Print a dump to stderr whenever the process gets the signal, whatever its threads do; the program goes on.

    signum: a signal of the `signal` module, such as `signal.SIGQUIT` (Ctrl-\\ in a terminal). Replaces its handler. To
    be called in the main thread, as `signal.signal`; raises ValueError elsewhere, OSError for a signal that cannot be
    caught, RuntimeError if the thread that prints cannot be started. A dump waits for the GIL, and so for a C call that
    keeps it. Signals that come while one is being made make one more dump together.
    """
    _reporter.dump_on(signum)
