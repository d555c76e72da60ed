"""What a process weighs and uses, as the kernel counts it."""

from __future__ import annotations

import gc
import random
from pathlib import Path

from bench.model import UnsupportedError

TICK = 0.005
_STATUS = Path("/proc/self/status")


def _status(*fields: str) -> int:
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    except FileNotFoundError:
        raise UnsupportedError(f"memory is read from {_STATUS}, which this system does not have") from None
    return sum(int(lines[field].split()[0]) * 1024 for field in fields)


def memory() -> int:
    """Bytes resident and in page tables, after a full collection."""
    gc.collect()
    return _status("VmRSS", "VmPTE")


def peak_memory() -> int:
    """The most bytes that were ever resident."""
    return _status("VmHWM")


def naps(n: int) -> list[float]:
    """`n` durations from 0 to 1 s, the same ones in every run."""
    generator = random.Random(n)
    return [generator.random() for _ in range(n)]


def sum_below(n: int) -> int:
    return n * (n - 1) // 2
