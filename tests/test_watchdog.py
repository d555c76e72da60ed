"""The watchdog and the scheduler trace. Each program runs in a process of its own: both write to its stderr."""

from __future__ import annotations

import itertools
import re

import pytest
from helpers import run_program

import pygo

HEAD = """
import os, sys, threading, time
import pygo
"""

# Of what stays in a call none stays for a time; it stays until it has been reported, however long that takes.
STAY = f"""{HEAD}
class Told:
    # In the place of stderr: sets an event when something has been written.
    def __init__(self, stderr):
        self.stderr, self.text, self.event = stderr, "", threading.Event()
    def write(self, text):
        self.stderr.write(text)
        self.text += text
        self.event.set()
    def flush(self):
        self.stderr.flush()

told = sys.stderr = Told(sys.stderr)

def blocks():
    told.event.wait()

def computes():
    while not told.event.is_set(): pass
"""


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize(("stays", "states"), [("blocks", ["blocked"]), ("computes", ["running", "blocked"])])
def test_a_task_that_stays_in_one_call_is_named_once_with_its_stack(stays: str, states: list[str], count: int) -> None:
    source = f"""{STAY}
def stays():
    {stays}()
    time.sleep(0.3)  # three times as long again
task = pygo.Task(stays, name="the slow one")
while task.state not in {states}:
    pygo.sleep(0.001)
pygo.runtime.watchdog(0.1)
task.join()
for _ in range(100):
    pygo.spawn(pygo.sleep, 0.001).join()
"""
    err = run_program(source, env={"PYGO_WORKERS": str(count)}).ok().err
    reports = re.findall(
        r"pygo watchdog: a task has kept thread \d+ in one call for (\d+\.\d+) s: "
        rf"task \d+ 'the slow one' (?:{'|'.join(states)}), spawned at file .*\n  File .*, in stays\n",
        err,
    )
    assert len(reports) == err.count("'the slow one'") == 1, err
    assert float(reports[0]) >= 0.1


def test_each_stay_is_reported_and_progress_is_not() -> None:
    """A task that goes on is reported only if it has not gone on for that long, as happens on a busy machine."""
    source = f"""{STAY}
def stays():
    for count in range(1, 4):
        while told.text.count("'stays'") < count:
            told.event.wait()
            told.event.clear()
        pygo.yield_now()
def goes_on():
    gaps, last = 0, time.monotonic()
    while not over:
        time.sleep(0.01)
        pygo.yield_now()
        now = time.monotonic()
        gaps, last = gaps + (now - last >= 0.2), now
    print(gaps)
def waits():
    pygo.Channel().recv()
over = []
tasks = [pygo.Task(fn, name=fn.__name__) for fn in (stays, goes_on, waits)]
tasks[0].join()
over.append(True)
tasks[1].join()
"""
    ended = run_program(source, env={"PYGO_WATCHDOG": "0.2"}).ok()
    assert ended.err.count("'stays'") == 3, ended
    assert ended.err.count("'goes_on'") <= int(ended.out), ended
    assert "'waits' waiting" not in ended.err


def test_a_call_that_keeps_the_gil_is_reported_when_it_is_over() -> None:
    """Again and again, for the monitor may not get to look meanwhile."""
    source = f"""{STAY}
sys.setswitchinterval(1000)
pygo.runtime.watchdog(0.1)
def keeps():
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
while not told.event.wait(0.1):
    pygo.spawn(keeps).join()
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
    source = f"""{STAY}
pygo.runtime.watchdog(0.1)
pygo.spawn(int).join()
if pid := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pygo.Task(blocks, name="in the child").join()
"""
    assert run_program(source).ok().err.count("'in the child'") == 1


def test_its_thread_hides_no_deadlock() -> None:
    assert run_program("import pygo\npygo.select()", env={"PYGO_WATCHDOG": "0.1"}).code == 2


def test_a_closed_stderr_does_not_end_it() -> None:
    source = f"""{STAY}
stderr, tried = told.stderr, threading.Event()

class Closed:
    def write(self, text):
        tried.set()
        raise ValueError("I/O operation on closed file")

told.stderr = Closed()
pygo.spawn(tried.wait).join()
told.stderr = stderr
pygo.spawn(blocks).join()
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


# Reads its own trace, and goes on as soon as that has shown all there is.
TRACED = f"""{HEAD}
import re
over = []
def spin():
    while not over: pass
def read_until(*wanted):
    wanted = set(wanted)
    while wanted:
        print(line := trace.readline(), end="")
        found = {{name: int(number) for name, number in re.findall(r"(\\w+)=(\\d+)", line)}}
        queued = line[line.index("["):].strip("[]0 \\n")
        found["at rest"] = found["idle"] == found["threads"] and not (found["ready"] or found["shared"] or queued)
        wanted -= {{name for name in wanted if found[name]}}
readable, writable = os.pipe()
os.dup2(writable, 2)
trace = open(readable)
blocked_in, unblock = os.pipe()
tasks = [pygo.spawn(spin) for _ in range(5)] + [pygo.spawn(os.read, blocked_in, 1)]
sleeper = pygo.spawn(pygo.sleep, 1000)
read_until("blocked", "timers", "ready")
over.append(True)
os.write(unblock, b"x")
for task in tasks:
    task.join()
read_until("at rest")
"""


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_the_trace_shows_the_scheduler(count: int) -> None:
    out = run_program(TRACED, env={"PYGO_WORKERS": str(count), "PYGO_SCHEDTRACE": "20"}).ok().out
    matches = [LINE.fullmatch(line) for line in out.splitlines()]
    assert all(matches) and len(matches) >= 2, out
    rows = [tuple(map(int, match.groups()[:-1])) for match in matches if match]
    times, workers, idle, threads, _blocked, _ready, _timers, switches, _shared = zip(*rows, strict=True)
    assert list(times) == sorted(set(times))
    assert all(later - earlier >= 19 for earlier, later in itertools.pairwise(times))
    assert set(workers) == {count}
    assert all(one <= other for one, other in zip(idle, threads, strict=True))
    assert list(switches) == sorted(switches)


def test_there_is_no_trace_unless_asked_for() -> None:
    source = f"{HEAD}\nfor _ in range(10): pygo.spawn(pygo.sleep, 0.01).join()"
    assert run_program(source).ok().err == ""
    assert run_program(source, env={"PYGO_SCHEDTRACE": "0"}).ok().err == ""
