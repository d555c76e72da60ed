"""How many threads wait on one queue before the system refuses one: a program of its own, run by the demo.

It starts up to ``argv[1]`` threads and prints one JSON object per line: ``{"number": n}`` now and then, and at last
``{"number", "create", "bytes", "wake", "failure"}``. It imports nothing of pygo, so that the limits of a process
(mappings, threads, memory) are there for the threads alone.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time

REPORT_EVERY = 250


def memory_bytes() -> int:
    """Resident memory and page tables of this process."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        fields = dict(line.split(":", 1) for line in status)
    return sum(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmPTE"))


def wait_on_one_queue(limit: int) -> None:
    gate: queue.SimpleQueue[None] = queue.SimpleQueue()
    threads: list[threading.Thread] = []
    failure = None
    before, start = memory_bytes(), time.perf_counter()
    try:
        while len(threads) < limit:
            thread = threading.Thread(target=gate.get, daemon=True)
            thread.start()
            threads.append(thread)
            if len(threads) % REPORT_EVERY == 0:
                print(json.dumps({"number": len(threads)}), flush=True)
    except (RuntimeError, MemoryError) as exc:
        failure = str(exc) or type(exc).__name__
    created, used = time.perf_counter() - start, memory_bytes() - before
    start = time.perf_counter()
    for _ in threads:
        gate.put(None)
    for thread in threads:
        thread.join()
    result = {"number": len(threads), "create": created, "bytes": used, "failure": failure}
    print(json.dumps({**result, "wake": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        wait_on_one_queue(int(sys.argv[1]))
