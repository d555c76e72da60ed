"""Memory of stacks: it grows with the depth of calls, and comes back when tasks end, and while they wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
from helpers import join_all, run_program, wait_until

import pygo
from pygo import _extension

# What the programs below share. A level of `deep` takes about half a KiB to 1.2 KiB of C stack.
PROGRAM = """
import resource, sys, time, pygo, pygo._extension

def resident():
    with open("/proc/self/smaps_rollup") as smaps:  # exact, where statm is off by some hundred KiB
        return sum(int(line.split()[1]) for line in smaps if line.startswith("Rss:"))  # KiB

def deep(levels):
    return max(map(deep, [levels - 1])) if levels else 0

def wait_until(reached):
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, resident()
        time.sleep(0.02)

sys.setrecursionlimit(100_000)
pygo._extension.set_scavenge_interval(1000)  # nothing is given back before we have seen that it is there
pygo.spawn(deep, 5).join()
ch = pygo.Channel()
start = resident()

def give_back():
    pygo._extension.set_scavenge_interval(0.2)  # instead of a second
    pygo.spawn(int).join()  # the monitor sleeps by the old one
"""

TASKS = 20
LEVELS = 400  # at least 200 KiB


def end_of(program: str) -> None:
    finished = run_program(PROGRAM + program).ok()
    assert finished.out == "end\n"


def test_memory_of_a_deep_call_comes_back_while_the_task_waits() -> None:
    """Within a few seconds, although nothing happens in the program; the tasks then go on, and as deep again."""
    end_of(
        f"""
def body():
    deep({LEVELS})
    ch.recv()
    deep({LEVELS})
    return 1

tasks = [pygo.spawn(body) for _ in range({TASKS})]
while ch.waiting_receivers < {TASKS}:
    time.sleep(0.001)
peak = resident()
assert peak - start > {TASKS} * 150, (start, peak)
give_back()
wait_until(lambda: resident() - start < (peak - start) // 10)
for _ in tasks:
    ch.send(None)
assert sum(task.join() for task in tasks) == {TASKS}
print("end")
"""
    )


def test_memory_of_a_deep_call_comes_back_when_the_task_ends() -> None:
    """Although its stack is kept for the next task."""
    end_of(
        f"""
def body():
    deep({LEVELS})
    ch.recv()

tasks = [pygo.spawn(deep, {LEVELS}) for _ in range({TASKS})]
tasks += [pygo.spawn(body) for _ in range({TASKS})]
while ch.waiting_receivers < {TASKS}:
    time.sleep(0.001)
peak = resident()
ch.close()
for task in tasks:
    task.exception()
give_back()
wait_until(lambda: resident() - start < (peak - start) // 10)
print("end")
"""
    )


@pytest.mark.parametrize("place", ["deep_on_segments()", "pygo.spawn(deep_on_segments).join()"], ids=["main", "task"])
def test_memory_of_call_on_stack_comes_back(place: str) -> None:
    """Also where the monitor sleeps and the main thread makes the call, and beyond the large class."""
    end_of(
        f"""
def deep_on_segments():
    def to_the_peak():
        deep({LEVELS})
        return resident()  # here, for as soon as the call is over the memory may be given back
    for size in (200 << 10, 4 << 20, 12 << 20):
        pygo.call_on_stack(size, deep, 30)
        peak = pygo.call_on_stack(12 << 20, to_the_peak)
    return peak

give_back()
peak = {place}
wait_until(lambda: peak - resident() > 150)
before = pygo.runtime.stats().stack_bytes
{place}
wait_until(lambda: pygo.runtime.stats().stack_bytes == before)
print("end")
"""
    )


def test_memory_comes_back_under_nested_segments() -> None:
    """A task that waits on a segment on a segment: all three stacks are trimmed, and nothing that is in use is lost."""
    end_of(
        f"""
def nest(count):
    deep({LEVELS // 2})
    value = object()
    kept = [value] * 50
    if count:
        assert pygo.call_on_stack(8 << 20, nest, count - 1) == count - 1
    else:
        ch.recv()
    assert kept == [value] * 50
    deep({LEVELS // 2})
    return count

tasks = [pygo.spawn(nest, 2) for _ in range({TASKS})]
while ch.waiting_receivers < {TASKS}:
    time.sleep(0.001)
peak = resident()
assert peak - start > {TASKS} * 150, (start, peak)
give_back()
wait_until(lambda: resident() - start < (peak - start) // 5)
for _ in tasks:
    ch.send(None)
assert sum(task.join() for task in tasks) == 2 * {TASKS}
print("end")
"""
    )


def test_thread_states_that_nobody_needs_go() -> None:
    end_of(
        """
tasks = [pygo.spawn(ch.recv) for _ in range(2000)]
while ch.waiting_receivers < 2000:
    time.sleep(0.001)
assert pygo.runtime.stats().fibers >= 2000
ch.close()
for task in tasks:
    task.exception()
del tasks, task
give_back()
wait_until(lambda: pygo.runtime.stats().fibers < 300)
assert len([pygo.spawn(int).join() for _ in range(1000)]) == 1000
print("end")
"""
    )


def test_an_idle_program_is_left_alone() -> None:
    """Once all is given back, the monitor sleeps, although thousands of tasks wait."""
    end_of(
        """
tasks = [pygo.spawn(ch.recv) for _ in range(3000)]
while ch.waiting_receivers < 3000:
    time.sleep(0.001)

def quiet():
    before = pygo.runtime.stats().switches, wakes()
    time.sleep(0.5)
    return pygo.runtime.stats().switches == before[0] and wakes() - before[1] <= 2  # our own, and a last look

give_back()

def wakes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

wait_until(quiet)
ch.close()
for task in tasks:
    task.exception()
print("end")
"""
    )


@pytest.fixture
def hasty_scavenger() -> Iterator[None]:
    """Stacks are trimmed all the time, and as soon as tasks wait."""
    _extension.set_scavenge_interval(1e-9)
    yield
    _extension.set_scavenge_interval(0)


def deep(levels: int) -> int:
    return 1 + max(map(deep, [levels - 1])) if levels else 0


@pytest.mark.usefixtures("hasty_scavenger")
def test_tasks_lose_nothing_when_they_are_trimmed_as_they_wake(workers: int) -> None:
    """Every kind of wake meets the scavenger: partners, timers, other threads; stacks keep what is in use."""
    rounds, levels = 150, 15 if sys.version_info < (3, 12) else 40

    def partner(mine: pygo.Channel[int], other: pygo.Channel[int], depth: int) -> int:
        def at_depth(left: int) -> int:
            if left:
                return max(map(at_depth, [left - 1]))
            total = 0
            for number in range(rounds):
                other.send(number)
                total += mine.recv()
                assert deep(levels) == levels
            return total

        return at_depth(depth)

    def sleeper() -> None:
        for number in range(rounds // 3):
            pygo.sleep(0.001 * (number % 3))
            assert deep(levels) == levels

    def blocker() -> None:
        for _ in range(30):
            time.sleep(0.0005)  # others go on elsewhere meanwhile

    tasks = []
    for pair in range(10):
        first: pygo.Channel[int] = pygo.Channel(1)
        second: pygo.Channel[int] = pygo.Channel(1)
        depth = pair % 4 * 3
        tasks.append(pygo.spawn(partner, first, second, depth))
        tasks.append(pygo.spawn(pygo.call_on_stack, 64 << 10, partner, second, first, depth))
    sleepers = [pygo.spawn(body) for body in (sleeper, blocker) for _ in range(10)]
    assert join_all(tasks) == [sum(range(rounds))] * 20
    join_all(sleepers)


@pytest.mark.usefixtures("hasty_scavenger")
def test_the_hasty_scavenger_does_trim() -> None:
    """So that the test above is worth something: a task's stack shrinks at once."""

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4

    ch: pygo.Channel[None] = pygo.Channel()

    def body() -> None:
        pygo.call_on_stack(8 << 20, deep, 60)
        deep(60)
        ch.recv()

    before = resident()
    tasks = [pygo.spawn(body) for _ in range(100)]
    wait_until(lambda: ch.waiting_receivers == 100)
    wait_until(lambda: resident() - before < 100 * 20)
    ch.close()
    for task in tasks:
        assert isinstance(task.exception(), pygo.ChannelClosed)
