"""What happens when a stack is used up: an exception, or for C code that asks nobody, a line that says what happened.

Programs of their own, for a crash is what this is about.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import LONG_TESTS, Finished, c_compiler, run_program, shared_library
from recursions import UNBOUNDED

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
    if not shutil.which(c_compiler()[0]):
        pytest.skip("no C compiler")
    place: Path = tmp_path_factory.mktemp("runaway")
    (place / "runaway.c").write_text(RUNAWAY)
    return str(shared_library(place / "runaway.c", place, "-w"))


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


# --- recursion that the interpreter stops: tests/recursions.py, run in tasks on stacks of all kinds

RECURSIONS = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pygo
import recursions
from recursions import run_all

def occupy_large_stacks():
    gate = pygo.Channel()
    parked = [pygo.spawn(gate.recv) for _ in range(2100)]
    while gate.waiting_receivers < len(parked):
        time.sleep(0.001)
    return parked

def check(outcomes):
    pygo.spawn(int).join()
    kinds = {{outcome.split()[0] for outcome in outcomes}}
    # Most must have been stopped: those with deep structures may go through on a large stack, or in a newer Python.
    assert len(kinds) >= 28, sorted(kinds)
    print("end")
"""

# The class of stack, with the code that ends up on it. Sizes in KiB; the floor is 64, and small stacks are handed out
# once the large ones are in use.
SMALL = """
pygo.runtime.set_default_stack_size({kib} << 10)
parked = occupy_large_stacks()
check(pygo.spawn(run_all).join())
"""
STACKS = {
    "floor": SMALL.format(kib=64),
    "odd": SMALL.format(kib=101),
    "default": SMALL.format(kib=256),
    "large": "sys.setrecursionlimit(20_000)\ncheck(pygo.spawn(run_all).join())",
    "own": "sys.setrecursionlimit(20_000)\ncheck(pygo.Task(run_all, stack_size=(9 << 20) + 4097).join())",
    "segment of the main thread": "check(pygo.call_on_stack(64 << 10, run_all))",
    "nested segments": """
pygo.runtime.set_default_stack_size(64 << 10)
check(pygo.spawn(pygo.call_on_stack, 300 << 10, pygo.call_on_stack, 64 << 10, run_all).join())
""",
    "low limit": "sys.setrecursionlimit(300)\ncheck(pygo.spawn(run_all).join())",
    "moved": f"""
from helpers import move_to_another_thread
parked = occupy_large_stacks()
def moved():
    for _ in range({100 if LONG_TESTS else 2}):
        move_to_another_thread()
    return run_all()
check(pygo.spawn(moved).join())
""",
}


@pytest.mark.parametrize("stack", STACKS)
def test_endless_recursion_is_an_exception(stack: str) -> None:
    """On every class of stack, in each of some fifty ways; the task, and the runtime, go on."""
    finished = run_program(RECURSIONS + STACKS[stack], timeout=100)
    assert finished.code == 0, (finished.out.split()[-2:], finished.err)
    assert finished.out.endswith("end\n")


@pytest.mark.parametrize("stack", ["floor", "default", "large"])
@pytest.mark.parametrize("way", UNBOUNDED, ids=lambda way: way.__name__)
def test_where_the_interpreter_does_not_look_the_process_ends_with_a_line(stack: str, way: Callable[[], None]) -> None:
    """Unless the stack is large enough, or it does look sometimes."""
    call = f"print(pygo.spawn(run_all, [recursions.{way.__name__}])"
    program = STACKS[stack].replace("check(pygo.spawn(run_all)", call)
    finished = run_program(RECURSIONS + "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n" + program)
    if finished.code != 0:
        assert finished.code == -signal.SIGSEGV, finished
        assert len(lines_of(finished)) == 1 and "in run_all: C code has used up the task's stack" in finished.err


def test_exceptions_are_caught_by_one_class_of_several_on_the_smallest_stacks() -> None:
    """3.14 and later look through no tuple of classes with less than 64 KiB above what they keep for errors."""
    finished = run_program(
        """
        import pygo

        def body(levels):
            if levels:
                return max(map(body, [levels - 1]))
            try:
                raise ValueError
            except (KeyError, ValueError):
                return 1

        pygo.runtime.set_default_stack_size(64 << 10)
        for levels in (0, 8):
            print(pygo.spawn(pygo.call_on_stack, 1, body, levels).join())
            print(pygo.call_on_stack(64 << 10, body, levels))
        """
    ).ok()
    assert finished.out.split() == ["1"] * 4


def test_a_chain_of_many_tasks_that_hold_each_other_is_torn_down() -> None:
    """Ended and parked ones, on the smallest stacks: each is freed, or cancelled, by the one before."""
    length = 100_000 if LONG_TESTS else 20_000
    finished = run_program(
        RECURSIONS
        + f"""
pygo.runtime.set_default_stack_size(64 << 10)

def ended(chain):
    return chain

def build_ended():
    chain = None
    for _ in range({length}):
        chain = pygo.spawn(ended, chain)
        chain.join()

pygo.spawn(build_ended).join()

gate = pygo.Channel()

def parked(rest):
    try:
        gate.recv()
    except pygo.Cancelled:
        if rest is not None:
            rest.cancel()
        raise

chain = None
for _ in range({length}):
    chain = pygo.spawn(parked, chain)
while gate.waiting_receivers < {length}:
    time.sleep(0.001)
chain.cancel()
del chain
while pygo.runtime.stats().live:
    time.sleep(0.001)

chain = None
for _ in range({length}):
    chain = pygo.spawn(lambda rest: gate.recv() and rest, chain)
while gate.waiting_receivers < {length}:
    time.sleep(0.001)
gate.close()
while pygo.runtime.stats().live:
    time.sleep(0.001)
pygo.excepthook = lambda task, exc: None
del chain
print("end")
""",
        timeout=100,
    )
    assert finished.code == 0, finished.err[-2000:]
    assert finished.out == "end\n"
