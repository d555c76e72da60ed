"""The watchdog and the scheduler trace. Each program runs in a process of its own: both write to its stderr."""

from __future__ import annotations

import re

import pytest
from helpers import run_program

import pygo

HEAD = """
import os, sys, threading, time
import pygo
"""

STAYS = {
    "a blocking call": ("time.sleep(0.5)", "blocked"),
    "a computation": ("end = time.monotonic() + 0.5\n    while time.monotonic() < end: pass", "(running|blocked)"),
}


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("name", STAYS)
def test_a_task_that_stays_in_one_call_is_named_once_with_its_stack(name: str, count: int) -> None:
    call, state = STAYS[name]
    source = f"""{HEAD}
pygo.runtime.watchdog(0.1)
def stays():
    {call}
pygo.Task(stays, name="the slow one").join()
for _ in range(100):
    pygo.spawn(pygo.sleep, 0.001).join()
"""
    err = run_program(source, env={"PYGO_WORKERS": str(count)}).ok().err
    reports = re.findall(
        r"pygo watchdog: a task has kept thread \d+ in one call for (\d+\.\d+) s: "
        rf"task \d+ 'the slow one' {state}, spawned at file .*\n  File .*, in stays\n",
        err,
    )
    assert len(reports) == 1, err
    assert float(reports[0] if isinstance(reports[0], str) else reports[0][0]) >= 0.1


def test_each_stay_is_reported_and_progress_is_not() -> None:
    source = f"""{HEAD}
def stays():
    for _ in range(3):
        time.sleep(0.4)
        pygo.yield_now()
def goes_on():
    for _ in range(60):
        time.sleep(0.01)
        pygo.yield_now()
def waits():
    pygo.sleep(0.6)
tasks = [pygo.Task(fn, name=fn.__name__) for fn in (stays, goes_on, waits)]
for task in tasks:
    task.join()
"""
    err = run_program(source, env={"PYGO_WATCHDOG": "0.2"}).ok().err
    assert err.count("pygo watchdog") == err.count("'stays'") == 3, err


def test_a_call_that_keeps_the_gil_is_reported_when_it_is_over() -> None:
    source = f"""{HEAD}
sys.setswitchinterval(1000)
pygo.runtime.watchdog(0.1)
def keeps():
    end = time.monotonic() + 0.5
    while time.monotonic() < end: pass
pygo.spawn(keeps).join()
pygo.sleep(0.1)
"""
    assert "without giving the GIL away" in run_program(source).ok().err


def test_it_is_off_unless_asked_for_and_can_be_turned_off() -> None:
    source = f"""{HEAD}
assert threading.active_count() == 1
pygo.spawn(time.sleep, 0.3).join()
pygo.runtime.watchdog(0.1)
pygo.runtime.watchdog(None)
pygo.spawn(time.sleep, 0.3).join()
pygo.runtime.watchdog(0.1)
pygo.runtime.watchdog(0)
pygo.spawn(time.sleep, 0.3).join()
"""
    assert run_program(source).ok().err == ""


def test_it_goes_on_in_the_child_of_a_fork() -> None:
    source = f"""{HEAD}
pygo.runtime.watchdog(0.1)
pygo.spawn(int).join()
if pid := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pygo.Task(time.sleep, (0.4,), name="in the child").join()
"""
    assert run_program(source).ok().err.count("'in the child'") == 1


def test_its_thread_hides_no_deadlock() -> None:
    assert run_program("import pygo\npygo.select()", env={"PYGO_WATCHDOG": "0.1"}).code == 2


def test_a_closed_stderr_does_not_end_it() -> None:
    source = f"""{HEAD}
import io
sys.stderr, before = open(os.devnull, "w"), sys.stderr
sys.stderr.close()
pygo.spawn(time.sleep, 0.3).join()
pygo.sleep(0.05)
sys.stderr = before
pygo.spawn(time.sleep, 0.3).join()
pygo.sleep(0.05)
"""
    assert run_program(source, env={"PYGO_WATCHDOG": "0.1"}).ok().err.count("pygo watchdog") >= 1


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_bad_limits_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        pygo.runtime.watchdog(bad)


@pytest.mark.parametrize("name", ["PYGO_WATCHDOG", "PYGO_SCHEDTRACE"])
@pytest.mark.parametrize("bad", ["x", "-1", "nan"])
def test_a_bad_environment_is_refused(name: str, bad: str) -> None:
    ended = run_program("import pygo", env={name: bad})
    assert ended.code == 1
    assert f"ImportError: {name} must be" in ended.err


# ---- the scheduler trace ----

LINE = re.compile(
    r"SCHED (\d+)ms: workers=(\d+) idle=(\d+) threads=(\d+) blocked=(\d+) searching=\d+ ready=(\d+) timers=(\d+) "
    r"switches=(\d+) shared=(\d+) \[(\d+(?: \d+)*)\]"
)


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_the_trace_shows_the_scheduler(count: int) -> None:
    source = f"""{HEAD}
def spin():
    end = time.monotonic() + 0.2
    while time.monotonic() < end: pass
tasks = [pygo.spawn(spin) for _ in range(5)] + [pygo.spawn(time.sleep, 0.5), pygo.spawn(pygo.sleep, 0.5)]
for task in tasks:
    task.join()
pygo.Channel().recv(timeout=0.3)
"""
    err = run_program(source, env={"PYGO_WORKERS": str(count), "PYGO_SCHEDTRACE": "20"}).err
    lines, rest = [], []
    for line in err.splitlines():
        (lines if line.startswith("SCHED") else rest).append(line)
    assert rest[-1].startswith("TimeoutError"), err
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches) and len(matches) >= 10, err
    rows = [(*map(int, match.groups()[:-1]), sum(map(int, match[10].split()))) for match in matches if match]
    times, workers, idle, threads, blocked, ready, timers, switches, _shared, _queued = zip(*rows, strict=True)
    assert list(times) == sorted(set(times))
    assert set(workers) == {count}
    assert all(one <= other for one, other in zip(idle, threads, strict=True))
    assert max(blocked) >= 1 and max(timers) >= 1 and max(ready) >= 1
    rests = [row for row in rows[-8:] if row[2] == row[3] and row[5] == row[8] == row[9] == 0]
    assert rests, err  # in one of the last lines: the scheduler has a task of its own now and then
    assert list(switches) == sorted(switches)


def test_there_is_no_trace_unless_asked_for() -> None:
    source = f"{HEAD}\nfor _ in range(10): pygo.spawn(pygo.sleep, 0.01).join()"
    assert run_program(source).ok().err == ""
    assert run_program(source, env={"PYGO_SCHEDTRACE": "0"}).ok().err == ""
