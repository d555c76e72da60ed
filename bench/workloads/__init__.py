"""The workloads, one module per system.

Systems in which a wait is an ordinary call share `blocking.py` and differ in a handful of primitives; coroutines
have their own text in `on_asyncio.py`, bare greenlets in `on_greenlet.py`. Each module ends in one `SYSTEM`, with a
method per workload that runs it at the given sizes and returns its figures in seconds, bytes and counts.
"""

from __future__ import annotations

from importlib import import_module

from bench.model import SYSTEMS, UnsupportedError, Values, Workload


def perform(system: str, workload: Workload, quick: bool, rounds: int) -> list[Values]:
    """Run one workload on one system in this process; ImportError where the system is not installed."""
    runner = import_module(f"bench.workloads.{SYSTEMS[system].module}").SYSTEM
    method = getattr(runner, workload.attribute, None)
    if method is None:
        raise UnsupportedError(runner.lacks)
    sizes = workload.sizes(system, quick)
    if workload.warm_up:
        runner.run(method, sizes)  # as a program finds things that does it again and again
    return [runner.run(method, sizes) for _ in range(rounds)]
