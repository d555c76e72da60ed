"""C++ code that waits, through Python, in catch blocks and in destructors run by exceptions; thread_local in C++."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled import HERE, build_extension
from crowd import run_crowd
from helpers import in_task, in_threads, join_all, run_program

import pygo

Wait = Callable[[], None]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flights")


@pytest.fixture(scope="session")
def flights(directory: Path) -> Any:
    return build_extension("flights", HERE / "flights.cpp", directory)


def test_a_task_may_wait_in_a_catch_block(flights: Any, workers: int) -> None:
    """What is being handled is its own when it goes on: it throws it again, and has none afterwards."""

    def use(wait: Wait) -> Any:
        number = id(wait) % 1000 + pygo.current_task().id  # type: ignore[union-attr]
        *caught, clean = flights.caught(wait, number)
        return set(caught) == {str(number)}, clean, flights.in_flight()

    run_crowd(use, (True, 1, (0, False)))


def test_a_task_may_wait_while_an_exception_is_on_its_way(flights: Any, workers: int) -> None:
    run_crowd(lambda wait: flights.unwinding(wait, 7), ("7", 0, True))


def test_exceptions_leave_as_python_exceptions(flights: Any, workers: int) -> None:
    def use(wait: Wait) -> str:
        with pytest.raises(RuntimeError) as failure:
            flights.leaving(wait, 8)
        return str(failure.value)

    run_crowd(use, "C++: 8")


def test_exceptions_of_tasks_nest_without_order(flights: Any, workers: int) -> None:
    """Each in a catch block within a catch block, and the first in is the first out."""
    count = 12
    gates = [pygo.Channel[None]() for _ in range(count)]
    inside = pygo.WaitGroup()
    inside.add(count)

    def body(number: int) -> list[Any]:
        seen: list[Any] = []

        def inner() -> None:
            if not seen:
                seen.append(None)
                inside.done()
                gates[number].recv()
            pygo.yield_now()

        def outer() -> None:
            assert flights.in_flight()[1]
            seen.append(flights.caught(inner, 1000 + number))

        return [flights.caught(outer, number), *filter(None, seen)]

    tasks = [pygo.spawn(body, number) for number in range(count)]
    inside.wait()
    for gate in gates:
        gate.send(None)
    for number, outcomes in enumerate(join_all(tasks)):
        assert [outcome[0] for outcome in outcomes] == [str(number)] + [str(1000 + number)] * 3
        for outcome in outcomes:
            assert outcome[0] == outcome[1] == outcome[2]


def test_no_other_task_sees_an_exception_in_flight(flights: Any, workers: int) -> None:
    held = pygo.Channel[None]()
    holders = [pygo.spawn(flights.leaving, held.recv, number) for number in range(6)]
    while held.waiting_receivers < 6:
        pygo.sleep(0.001)
    assert join_all([pygo.spawn(flights.in_flight) for _ in range(30)]) == [(0, False)] * 30
    assert in_threads([flights.in_flight] * 3) == [(0, False)] * 3
    for _ in holders:
        held.send(None)
    for number, holder in enumerate(holders):
        with pytest.raises(RuntimeError, match=f"C\\+\\+: {number}"):
            holder.join()


def test_an_exception_of_python_unwinds_the_frames_of_cxx(flights: Any, workers: int) -> None:
    class Broken(Exception):
        pass

    def broken() -> None:
        pygo.yield_now()
        raise Broken

    for function in (flights.caught, flights.leaving):
        with pytest.raises(Broken):
            in_task(function, broken, 1)
    assert in_task(flights.in_flight) == (0, False)


def test_a_cancelled_task_unwinds_the_frames_of_cxx(flights: Any, workers: int) -> None:
    never = pygo.Channel[None]()
    tasks = [pygo.spawn(flights.caught, never.recv, number) for number in range(8)]
    while never.waiting_receivers < 8:
        pygo.sleep(0.001)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(pygo.TaskCancelled):
            task.join()
    assert in_task(flights.in_flight) == (0, False)
    assert in_task(flights.depth) == 0


def test_what_is_counted_in_a_thread_local_comes_out_even(flights: Any, workers: int) -> None:
    """On the way in a function of ours counts up, on the way out down: a task that waits in between stays."""

    def use(wait: Wait) -> Any:
        flights.caught(lambda: (wait(), flights.leaving and flights.unwinding(wait, 2)), 1)
        return True

    run_crowd(use, True)
    depths = join_all([pygo.spawn(lambda: (pygo.yield_now(), flights.depth())[1]) for _ in range(20)])
    assert depths == [0] * 20


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

# In a process of its own, where nothing but ctypes ever loads a library of C++.
PLAIN = """
import ctypes, sys
sys.path[:0] = {path!r}
import pygo
from crowd import run_crowd

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
assert "libstdc++" not in open("/proc/self/maps").read()
library = ctypes.CDLL({library!r})
assert "libstdc++" in open("/proc/self/maps").read()
pygo.runtime.set_workers({workers})

def use(wait):
    def keep(number):
        wait()
        return number

    def refuse(number):
        wait()
        return -number

    return library.plain_caught(CALLBACK(keep), 5), library.plain_caught(CALLBACK(refuse), 6)

run_crowd(use, (5, 6))
print("end")
"""


def test_a_library_of_ctypes_may_throw_and_wait(flights: Any, workers: int) -> None:
    path = [str(HERE), str(HERE.parent)]
    source = PLAIN.format(path=path, library=flights.__file__, workers=workers)
    assert run_program(source).ok().out == "end\n"
