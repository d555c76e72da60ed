"""Runs the programs of `edge_programs.py` over and over: `python tests/edge_runs.py --times 1000 [NAME ...]`.

A name is any part of an edge's; all edges if there is none. Each run is a process of its own that must end in time,
with the right exit code, output and standard error, and leave no process behind. Exit code 0 only if all did.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_programs import EDGES, Edge, Ending
from helpers import heed_interrupts

import pygo

HANG = 60.0  # longer than any correct run takes on the busiest machine
WORKERS = ("1", "4")  # taken in turns
LINGER = 10.0  # what a process has started may end that much later
CPU_LIMIT = 120


def _group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _outlived(group: int) -> bool:
    """Whether processes of the group go on; the helpers of multiprocessing end a moment after their master."""
    deadline = time.monotonic() + LINGER
    while not _group_is_empty(group):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.002)
    return False


def _describe(ending: Ending, code: int, out: str, err: str) -> str:
    return f"expected {ending}\ngot exit code {code}\n--- stdout\n{out}\n--- stderr\n{err[-6000:]}"


def run_once(edge: Edge, run: int, workers: str) -> str | None:
    """One run; what is wrong with it, or None."""
    source, ending = edge.program(run)
    with tempfile.TemporaryDirectory(prefix="pygo-edge-") as folder:
        path = Path(folder, "program.py")
        path.write_text(source)
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=str(Path(pygo.__file__).parent.parent), PYGO_WORKERS=workers),
            cwd=folder,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
        try:
            out, err = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # faulthandler prints where they are
            out, err = process.communicate()
            return "hangs\n" + _describe(ending, process.returncode, out, err)
        if _outlived(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            return "leaves processes behind\n" + _describe(ending, process.returncode, out, err)
    wrong_err = ending.err not in err if ending.err else err != ""
    if process.returncode != ending.code or out != ending.out or wrong_err:
        return _describe(ending, process.returncode, out, err)
    return None


def runs_of(name: str, times: int) -> Iterator[tuple[int, str]]:
    """Which ending and which number of workers each run takes; edges begin at different endings."""
    first = list(EDGES).index(name) if name in EDGES else 0
    for run in range(times):
        yield first + run, WORKERS[(run // len(EDGES[name].endings) + run + first) % len(WORKERS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names of edges")
    parser.add_argument("--times", type=int, default=1000, help="runs of each (1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--workers", help="PYGO_WORKERS of all runs, instead of 1 and 4 in turns")
    parser.add_argument("--ending", type=int, help="this one of an edge's endings only")
    parser.add_argument("--many", type=int, default=100_000, help="tasks of edges with very many (100,000)")
    options = parser.parse_args()
    os.environ["EDGE_MANY"] = str(options.many)
    chosen = [name for name in EDGES if not options.names or any(part in name for part in options.names)]
    if not chosen:
        parser.error("no such edge")
    heed_interrupts()
    begin, failures, total = time.monotonic(), 0, 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for name in chosen:
            runs = [
                (options.ending if options.ending is not None else run, options.workers or workers)
                for run, workers in runs_of(name, options.times)
            ]
            since = time.monotonic()
            wrong = 0
            for (run, workers), problem in zip(
                runs, pool.map(lambda run, name=name: run_once(EDGES[name], *run), runs), strict=True
            ):
                if problem is None:
                    continue
                wrong += 1
                number = run % len(EDGES[name].endings)
                print(f"--- {name}, ending {number}, {workers} workers: {problem}", flush=True)
            print(f"{name}: {len(runs)} runs, {wrong} wrong, {time.monotonic() - since:.1f} s", flush=True)
            failures += wrong
            total += len(runs)
    print(f"{total} runs of {len(chosen)} edges, {failures} wrong, {time.monotonic() - begin:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
