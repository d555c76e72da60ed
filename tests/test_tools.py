"""Python's own tools in tasks: profilers, tracers, the debugger, coverage, event loops."""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import in_task, join_all, run_program

import pygo


def square(number: int) -> int:
    pygo.yield_now()
    return number * number


def test_cprofile_counts_the_calls_of_its_task_only() -> None:
    profiler = cProfile.Profile()

    def profiled() -> int:
        total = 0
        for number in range(10):
            total += profiler.runcall(square, number)
        return total

    if sys.version_info >= (3, 12):  # since then one profiler sees all threads, and so all tasks
        assert in_task(profiled) == 285
    else:
        others = [pygo.spawn(square, number) for number in range(50)]
        assert in_task(profiled) == 285
        join_all(others)
    calls = {name: count for (_, _, name), (count, *_) in pstats.Stats(profiler).stats.items()}  # type: ignore[attr-defined]
    assert calls["square"] == 10


def test_threading_setprofile_reaches_tasks(workers: int) -> None:
    seen: set[str] = set()

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_name)

    threading.setprofile(profile)
    try:
        join_all([pygo.spawn(square, number) for number in range(4)])
    finally:
        threading.setprofile(None)
    assert "square" in seen


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_monitoring_sees_what_tasks_run(workers: int) -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
    tool = 3
    names: list[str] = []
    monitoring.use_tool_id(tool, "test")
    try:
        monitoring.register_callback(tool, monitoring.events.PY_START, lambda code, _: names.append(code.co_name))
        monitoring.set_events(tool, monitoring.events.PY_START)
        join_all([pygo.spawn(square, number) for number in range(20)])
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, monitoring.events.PY_START, None)
        monitoring.free_tool_id(tool)
    assert names.count("square") == 20


def test_the_debugger_stops_in_a_task() -> None:
    finished = run_program(
        """
        import io, pdb, sys, pygo

        def debugged(secret):
            pygo.yield_now()
            pdb.Pdb(stdin=io.StringIO("p secret\\nreturn\\np double\\ncontinue\\n"), stdout=sys.stdout).set_trace()
            pygo.yield_now()
            double = secret * 2
            return double

        others = [pygo.spawn(pygo.sleep, 0.001) for _ in range(10)]
        print("result", pygo.spawn(lambda: debugged(21)).join())
        """
    )
    out = finished.ok().out
    assert "(Pdb) 21" in out
    assert "(Pdb) 42" in out
    assert "result 42" in out


def test_coverage_counts_the_lines_of_tasks(tmp_path: Path) -> None:
    source = tmp_path / "covered.py"
    source.write_text(
        "import pygo\n"
        "def body(n):\n"
        "    pygo.yield_now()\n"
        "    if n > 2:\n"
        "        return 'big'\n"
        "    return 'small'\n"
        "def unused():\n"
        "    return 1\n"
        "print([pygo.spawn(body, n).join() for n in (1, 5)])\n"
    )
    report = tmp_path / "report.json"
    finished = run_program(
        f"""
        import coverage, runpy
        measured = coverage.Coverage(data_file=None, include=[{str(source)!r}])
        measured.start()
        runpy.run_path({str(source)!r})
        measured.stop()
        measured.json_report(outfile={str(report)!r})
        """
    )
    assert "['small', 'big']" in finished.ok().out
    (lines,) = json.loads(report.read_text())["files"].values()
    assert lines["missing_lines"] == [8]


def test_event_loops_run_in_many_tasks_at_once(workers: int) -> None:
    results = pygo.Channel[int](100)

    async def main(number: int) -> int:
        await asyncio.sleep(0.001)
        pieces = await asyncio.gather(*(asyncio.sleep(0, number) for _ in range(3)))
        results.send(number)
        return sum(pieces)

    assert join_all([pygo.spawn(lambda n=n: asyncio.run(main(n))) for n in range(6)]) == [0, 3, 6, 9, 12, 15]
    assert sorted(results.recv() for _ in range(6)) == list(range(6))


def test_to_thread_of_asyncio_may_use_pygo() -> None:
    ch = pygo.Channel[str]()

    async def main() -> str:
        receiving = asyncio.to_thread(ch.recv)
        task = pygo.spawn(ch.send, "hello")
        answer = await receiving
        task.join()
        return answer

    assert in_task(lambda: asyncio.run(main())) == "hello"
    assert asyncio.run(main()) == "hello"
