"""What tasks get done beside blocking calls and busy loops, and what they cost when none of them runs."""

from typing import Any

import pytest

from bench.model import Figure, Workload
from bench.recording import cases, clock, record


@pytest.mark.benchmark(timer=clock)
@cases("blocking", "hog", "idle")
def test_beside(benchmark: Any, workload: Workload, figure: Figure, system: str) -> None:
    record(benchmark, workload, figure, system, rounds=1)
