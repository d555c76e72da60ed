"""pytest-benchmark as the recorder of figures that the workloads time themselves.

A workload leaves its set-up out of the time and gives several figures at once, so the clock that pytest-benchmark
reads is one that `record` moves on by each measured figure. A child process per workload and system measures, so
that no system meets another's hooks, threads or memory, and a crash is one failed test.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from bench.model import SYSTEMS, WORKLOADS, Figure, Workload
from bench.runs import Outcome, installed, measure


class Clock:
    """A timer that stands still until it is told how much time went by."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


clock = Clock()


def timed(figure: Figure) -> bool:
    return figure.unit in ("ns", "us", "ms", "s", "")


def cases(*names: str) -> pytest.MarkDecorator:
    """Parametrise a test with every timed figure of these workloads, on every system."""
    return pytest.mark.parametrize(
        ("workload", "figure", "system"),
        [
            pytest.param(workload, figure, system, id=f"{workload.name}-{figure.key}-{system}")
            for workload in map(WORKLOADS.__getitem__, names)
            for figure in filter(timed, workload.figures)
            for system in workload.only or SYSTEMS
        ],
    )


@cache
def missing(system: str) -> str | None:
    return installed([system])[1].get(system)


@cache
def measured(workload: str, system: str, rounds: int) -> Outcome:
    return measure(system, WORKLOADS[workload], quick=True, rounds=rounds)


def record(benchmark: Any, workload: Workload, figure: Figure, system: str, rounds: int = 3) -> None:
    """Hand one figure's samples to pytest-benchmark; ticks become the mean time between two of them."""
    reason = missing(system)
    if reason and system != "pygo":
        pytest.skip(f"not installed: {reason}")
    outcome = measured(workload.name, system, rounds)
    if outcome.unsupported:
        pytest.skip(outcome.unsupported)
    assert not outcome.failures, outcome.failures
    title = workload.titled(figure, quick=True)
    benchmark.group = title if figure.unit else f"{title}, time between them"
    benchmark.extra_info["sizes"] = workload.sizes(system, quick=True)
    benchmark.extra_info["first round"] = outcome.rounds[0]
    samples = iter(outcome.rounds)

    def advance() -> None:
        values = next(samples)
        value = values[figure.key]
        clock.now += value if figure.unit else values["total"] / max(value, 1)

    benchmark.pedantic(advance, rounds=rounds)
