"""Tasks: spawning, parking, yielding, trees of them, and sleeping."""

from typing import Any

import pytest

from bench.model import Figure, Workload
from bench.recording import cases, clock, record


@pytest.mark.benchmark(timer=clock)
@cases("spawn-join", "parked", "yield", "skynet", "sleepers")
def test_tasks(benchmark: Any, workload: Workload, figure: Figure, system: str) -> None:
    record(benchmark, workload, figure, system)
