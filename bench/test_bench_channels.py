"""Channels: hand-over, buffers, many producers, pipelines, select."""

from typing import Any

import pytest

from bench.model import Figure, Workload
from bench.recording import cases, clock, record


@pytest.mark.benchmark(timer=clock)
@cases("ping-pong", "buffered", "fan-in", "ring", "sieve", "select")
def test_channels(benchmark: Any, workload: Workload, figure: Figure, system: str) -> None:
    record(benchmark, workload, figure, system)
