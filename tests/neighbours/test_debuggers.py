"""gdb, perf and py-spy look at a process with running, blocked and suspended tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from compiled import HERE
from helpers import Program, wait_until

PROGRAM = """
import sys, time
import pygo
never, stop = pygo.Channel(), pygo.Channel()

def inner_parked():
    never.recv()

def outer_parked():
    inner_parked()

def key_of(value):
    never.recv()

def parked_below_c():
    sorted([1], key=key_of)

def inner_spinning():
    while not stop.closed:
        sum(range(20000))

def outer_spinning():
    inner_spinning()

def sleeping():
    time.sleep(60)

for function in (outer_parked, parked_below_c, outer_spinning):
    pygo.Task(function)
asleep = pygo.Task(sleeping)
while never.waiting_receivers < 2 or asleep.state != "blocked":
    time.sleep(0.001)
print("ready")
time.sleep(60)
"""
ENDS = "pg_switch_trampoline"
PY_SPY = str(Path(sysconfig.get_path("scripts")) / "py-spy")


@pytest.fixture
def program() -> Iterator[Program]:
    child = Program(PROGRAM)
    child.expect("ready")
    yield child
    child.send_signal(9)
    child.finish()


def output_of(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
    return done.stdout


def gdb(pid: int, *commands: str) -> str:
    """What gdb prints for the commands, each on a process that stands still."""
    options = [option for command in commands for option in ("-ex", command)]
    return output_of("gdb", "-nx", "-batch", "-p", str(pid), *options)


def stacks_in(text: str, begin: str) -> list[list[str]]:
    """The function names of each stack, innermost first; a stack begins with a line that matches."""
    stacks: list[list[str]] = []
    for line in text.splitlines():
        if re.match(begin, line):
            stacks.append([])
        elif stacks and (found := re.match(r"#\d+ +(?:0x[0-9a-f]+ in )?(\w+)", line)):
            stacks[-1].append(found[1])
        elif stacks and re.search("[Bb]acktrace stopped|corrupt", line):
            stacks[-1].append(line)
    return stacks


def test_gdb_unwinds_running_and_blocked_tasks_through_the_switch(program: Program) -> None:
    stacks = stacks_in(gdb(program.pid, "thread apply all bt"), "Thread ")
    for innermost in ("builtin_sum|range|Long|Iter", "nanosleep"):
        found = [names for names in stacks if "task_run" in names and any(re.search(innermost, name) for name in names)]
        assert found, stacks
        for names in found:
            assert names[-4:] == ["task_run", "pg_fiber_loop", "pg_fiber_main", ENDS]


def test_gdb_unwinds_suspended_tasks(program: Program) -> None:
    """By the command of tests/neighbours/tasks_in_gdb.py, which puts their registers into a thread and back."""
    script = f"source {HERE / 'tasks_in_gdb.py'}"
    text = gdb(program.pid, script, "info registers", "pygo-bt", "info registers")
    stacks = stacks_in(text, "Fiber ")
    assert len(stacks) == 2, text
    for names in stacks:
        assert names[0] in ("pg_switch", "jump", "pg_switch_away"), names
        assert "channel_recv" in names
        assert names.count("_PyEval_EvalFrameDefault") == (2 if "builtin_sorted" in names else 1)
        assert names[-4:] == ["task_run", "pg_fiber_loop", "pg_fiber_main", ENDS]
    assert sum("builtin_sorted" in names for names in stacks) == 1
    pointers = re.findall(r"^(?:rsp|sp|rip|pc) +(\S+)", text, re.M)
    assert pointers[: len(pointers) // 2] == pointers[len(pointers) // 2 :] != []


def python_for_gdb() -> Path | None:
    """What CPython's build leaves beside the executable, or Debian's python3-dbg where gdb looks."""
    executable = Path(os.path.realpath(sys.executable))
    beside = Path(sysconfig.get_config_var("BINDIR")) / f"python{sysconfig.get_python_version()}-gdb.py"
    debian = Path(f"/usr/share/gdb/auto-load{executable}-gdb.py")
    return next((path for path in (beside, debian) if path.exists()), None)


def test_gdb_shows_the_python_frames_of_suspended_and_running_tasks(program: Program) -> None:
    commands = python_for_gdb()
    if commands is None:
        if os.environ.get("PYGO_WITHOUT_PYTHON_GDB"):
            pytest.skip("CPython came without its commands for gdb, says PYGO_WITHOUT_PYTHON_GDB")
        pytest.fail("this CPython came without its commands for gdb (python-gdb.py): set PYGO_WITHOUT_PYTHON_GDB=1")
    script = f"source {HERE / 'tasks_in_gdb.py'}"
    text = gdb(program.pid, script, f"source {commands}", "pygo-bt py-bt", "thread apply all py-bt")
    for caller, callee in (("outer_parked", "inner_parked"), ("parked_below_c", "key_of")):
        assert re.search(rf"in {callee}\n(?:.*\n){{1,5}}.*in {caller}\n", text), text
    assert re.search(r"in inner_spinning\n.*\n.*in outer_spinning\n", text), text
    assert "in sleeping" in text


def test_perf_unwinds_tasks_through_the_switch(program: Program, tmp_path: Path) -> None:
    data = str(tmp_path / "perf.data")
    record = ["perf", "record", "-q", "-F", "400", "--call-graph", "dwarf,16384", "-o", data]
    if os.environ.get("PYGO_WITHOUT_PERF"):
        pytest.skip("perf is not permitted here, says PYGO_WITHOUT_PERF; gdb has unwound the same stacks")
    output_of(*record, "-p", str(program.pid), "--", "sleep", "0.5")
    samples = output_of("perf", "script", "-i", data, "-F", "comm,ip,sym").split("\n\n")
    inside = [sample for sample in samples if "builtin_sum" in sample]
    assert len(inside) >= 10, samples[:3]
    complete = [sample for sample in inside if re.search(rf"task_run\n(?:.*\n)*.*{ENDS}$", sample.rstrip())]
    assert len(complete) >= 0.95 * len(inside), inside[:2]  # a sample in a prologue of libc may end early


def test_py_spy_names_what_tasks_run_and_wait_in(program: Program) -> None:
    def dump() -> str:
        return output_of(PY_SPY, "dump", "--pid", str(program.pid))

    text = dump()
    for callee, caller in (
        ("inner_spinning", "outer_spinning"),
        ("inner_parked", "outer_parked"),
        ("key_of", "parked_below_c"),
    ):
        assert re.search(rf"^ +{callee} \(.*\n +{caller} \(", text, re.M), text
    assert re.search(r"^ +sleeping \(", text, re.M), text
    # a dump may fall between two holders of the GIL, when the worker of the sleeping task is being replaced
    wait_until(lambda: re.search(r"active\+gil\)[^\n]*\n +inner_spinning", dump()))


def test_py_spy_records_a_profile_of_tasks(program: Program, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    pid = str(program.pid)
    output_of(PY_SPY, "record", "--gil", "-d", "1", "-r", "50", "-f", "raw", "-o", str(profile), "--pid", pid)
    hot = [line for line in profile.read_text().splitlines() if "outer_spinning" in line]
    assert sum(int(line.rpartition(" ")[2]) for line in hot) >= 10, profile.read_text()
    assert all("inner_spinning" in line for line in hot)
