"""What happens when a stack is used up: an exception, or for C code that asks nobody, a line that says what happened.

Programs of their own, for a crash is what this is about.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

import pytest
from helpers import Finished, run_program

RUNAWAY = """
#include <stddef.h>
__attribute__((noinline)) long runaway(long depth)
{
    volatile char frame[400];
    frame[0] = (char)depth;
    long below = runaway(depth + 1);
    return below + frame[0];
}
void poke(char *address) { *address = 1; }
"""


@pytest.fixture(scope="module")
def runaway(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a library: ``runaway`` calls itself for ever, ``poke`` writes to an address."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(command[0]):
        command = ["cc"]
    if not shutil.which(command[0]):
        pytest.skip("no C compiler")
    place: Path = tmp_path_factory.mktemp("runaway")
    (place / "runaway.c").write_text(RUNAWAY)
    library = str(place / "runaway.so")
    subprocess.run([*command, "-O1", "-w", "-shared", "-fPIC", "-o", library, str(place / "runaway.c")], check=True)
    return library


PROLOGUE = """
import ctypes, faulthandler, os, resource, signal, sys
import pygo
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
library = ctypes.CDLL({library!r})
before, after = {handlers!r}
if not before:
    faulthandler.disable()  # The program was started with it.
pygo.spawn(int).join()
if after:
    faulthandler.enable()
"""

# Who overflows; the line says whom.
OVERFLOWS = {
    "pygo.spawn(library.runaway, 0).join()": "task 2: C code has used up the task's stack of ",
    "pygo.Task(library.runaway, (0,), name='diver').join()": "task 2 'diver': ",
    "pygo.spawn(lambda: library.runaway(0)).join()": "task 2 in <lambda>: ",
    "pygo.spawn(pygo.call_on_stack, 20 << 20, library.runaway, 0).join()": "call_on_stack of 20480 KiB",
    "pygo.spawn(lambda: pygo.call_on_stack(9 << 20, lambda: pygo.call_on_stack(1 << 16, library.runaway, 0))).join()": (
        "task 2 in <lambda>: C code has used up the stack of a call_on_stack of 256 KiB"
    ),
    "pygo.call_on_stack(9 << 20, library.runaway, 0)": ": C code has used up the stack of a call_on_stack of 9216 KiB",
    "pygo.Task(library.runaway, (0,), stack_size=9 << 20).join()": "the task's stack of 9216 KiB",
}

# Ends by SIGSEGV that have nothing to do with stacks.
OTHER_ENDS = [
    "pygo.spawn(library.poke, None).join()",
    "library.poke(None)",
    "pygo.spawn(os.kill, os.getpid(), signal.SIGSEGV).join()",
    "pygo.spawn(signal.raise_signal, signal.SIGSEGV).join()",
    "pygo.spawn(ctypes.string_at, 1).join()",
]

# faulthandler enabled (before, after) pygo began to handle overflows.
HANDLERS = [(False, False), (True, False), (False, True), (True, True)]


def end_of(action: str, library: str, handlers: tuple[bool, bool]) -> Finished:
    return run_program(PROLOGUE.format(library=library, handlers=handlers) + action)


def lines_of(finished: Finished) -> list[str]:
    return [line for line in finished.err.splitlines() if line.startswith("pygo: ")]


@pytest.mark.parametrize("action", OVERFLOWS)
def test_c_code_that_overflows_ends_the_process_with_one_line(runaway: str, action: str) -> None:
    finished = end_of(action, runaway, (False, False))
    assert finished.code == -signal.SIGSEGV
    assert finished.err.startswith("pygo: stack overflow in ") and finished.err.count("\n") == 1
    assert OVERFLOWS[action] in finished.err


@pytest.mark.parametrize("handlers", HANDLERS[1:], ids=["before", "after", "both"])
def test_faulthandler_prints_its_part_too(runaway: str, handlers: tuple[bool, bool]) -> None:
    """Whether it was enabled before pygo's handler was installed or after."""
    finished = end_of("pygo.spawn(lambda: library.runaway(0)).join()", runaway, handlers)
    assert finished.code == -signal.SIGSEGV
    assert len(lines_of(finished)) == 1
    assert finished.err.count("Fatal Python error: Segmentation fault") == 1
    assert "in <lambda>" in finished.err.partition("Fatal Python error")[2]


@pytest.mark.parametrize("handlers", HANDLERS, ids=["none", "before", "after", "both"])
@pytest.mark.parametrize("action", OTHER_ENDS)
def test_other_segmentation_faults_are_left_alone(runaway: str, action: str, handlers: tuple[bool, bool]) -> None:
    finished = end_of(action, runaway, handlers)
    assert finished.code == -signal.SIGSEGV
    assert not lines_of(finished)
    assert finished.err.count("Fatal Python error: Segmentation fault") == any(handlers)


def test_a_forked_child_says_so_too(runaway: str) -> None:
    """The child of a task, and of the main thread, whose workers are new."""
    program = """
    def fork_and_overflow(overflow):
        child = os.fork()
        if child == 0:
            overflow()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    print(pygo.spawn(fork_and_overflow, lambda: library.runaway(0)).join())
    print(fork_and_overflow(lambda: pygo.spawn(lambda: library.runaway(0)).join()))
    """
    finished = run_program(
        PROLOGUE.format(library=runaway, handlers=(False, False)) + "\n".join(line[4:] for line in program.splitlines())
    ).ok()
    assert finished.out.split() == [str(-signal.SIGSEGV)] * 2
    assert len(lines_of(finished)) == 2
