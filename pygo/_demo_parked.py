"""Many tasks waiting on one channel, and as many threads on one queue as the system gives."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pygo import Channel, WaitGroup, _demo_threads, sleep

STALLED = 5.0  # seconds without one more waiting task after which the rest is given up


@dataclass
class Parked:
    """How many waited, and what that took."""

    number: int
    create: float
    bytes: int
    wake: float
    failure: str | None = None


def park_tasks(number: int) -> Parked:
    """Let ``number`` tasks wait on one channel, then wake them all by closing it."""
    gate: Channel[None] = Channel()
    group = WaitGroup()
    failure = None
    spawned = 0
    gc.collect()
    before, start = _demo_threads.memory_bytes(), time.perf_counter()
    try:
        while spawned < number:
            group.go(wait_at, gate)
            spawned += 1
    except (MemoryError, RuntimeError) as exc:
        failure = str(exc) or type(exc).__name__
    waiting, last = wait_for_receivers(gate, spawned)
    used = _demo_threads.memory_bytes() - before
    if waiting < spawned:
        failure = failure or "the others found no room to start in"
    woken = time.perf_counter()
    gate.close()
    group.wait()
    return Parked(waiting, last - start, used, time.perf_counter() - woken, failure)


def wait_at(gate: Channel[None]) -> None:
    gate.recv_ok()


def wait_for_receivers(gate: Channel[None], number: int) -> tuple[int, float]:
    """Wait until ``number`` tasks wait on ``gate``, or for some time no more came; return how many, and since when."""
    waiting, since = gate.waiting_receivers, time.perf_counter()
    while waiting < number and time.perf_counter() - since < STALLED:
        sleep(0.001)
        if (now_waiting := gate.waiting_receivers) > waiting:
            waiting, since = now_waiting, time.perf_counter()
    return waiting, since


def park_threads(limit: int, progress: Callable[[int], None]) -> Parked:
    """Let up to ``limit`` threads of a process of their own wait on one queue; ``progress`` is told their number."""
    command = [sys.executable, "-I", _demo_threads.__file__, str(limit)]
    last: dict[str, Any] = {"number": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            last = json.loads(line)
            progress(last["number"])
    if "wake" not in last:
        return Parked(last["number"], 0.0, 0, 0.0, f"their process ended with code {child.returncode}")
    return Parked(**last)
