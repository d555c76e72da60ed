"""Extensions made by Cython: callbacks with and without the GIL, generators, coroutines, classes with finalizers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled import HERE, build_extension
from crowd import run_crowd
from helpers import in_task, join_all, move_to_another_thread

import pygo

Wait = Callable[[], None]


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = tmp_path_factory.mktemp("cells") / "cells.c"
    subprocess.run([sys.executable, "-m", "cython", str(HERE / "cells.pyx"), "-o", str(source)], check=True)
    return build_extension("cells", source, Path(source).parent, "-Wno-error", "-w")


@pytest.mark.parametrize("name", ["called_back", "called_directly"])
def test_functions_that_compiled_code_calls_may_wait(name: str, cells: Any, workers: int) -> None:
    run_crowd(lambda wait: getattr(cells, name)(lambda number: (wait(), number)[1], 6), 15)


def test_generators_are_resumed_wherever_their_task_is(cells: Any, workers: int) -> None:
    """Between two values the task may move: the generator's frame is its own. Inside, it stays."""

    def use(wait: Wait) -> Any:
        values = []
        for value in cells.generate(lambda number: (wait(), number)[1], 4):
            values.append(value)
            move_to_another_thread(2)
        return values

    run_crowd(use, [0, 1, 2, 3])


def test_generators_are_handed_from_task_to_task(cells: Any, workers: int) -> None:
    def relay(generator: Any, depth: int) -> list[int]:
        move_to_another_thread()
        value = next(generator)
        return [value] + (pygo.spawn(relay, generator, depth - 1).join() if depth > 0 else [])

    def body() -> list[int]:
        return relay(cells.generate(lambda number: pygo.yield_now() or number, 10), 5)

    assert join_all([pygo.spawn(body) for _ in range(4)]) == [list(range(6))] * 4


def test_sections_without_the_gil_around_waits(cells: Any, workers: int) -> None:
    run_crowd(lambda wait: cells.computed(lambda number: wait(), 20000), True)


def test_finalizers_may_wait_and_are_called_once(cells: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        calls: list[int] = []

        def note(number: int) -> int:
            wait()
            calls.append(number)
            return number

        cell = cells.Cell(note, 5)
        assert cell == cells.Cell(note, 5)
        assert cell[2] == 7
        assert cell.value == 5
        del cell
        return calls

    run_crowd(use, [5, 5, 0, 5, 7, 5, 5])


def test_cells_in_cycles_are_collected_beside_others(cells: Any, workers: int) -> None:
    def body() -> int:
        freed: list[int] = []
        for number in range(30):
            one, other = cells.Cell(lambda _: None, number), cells.Cell(freed.append, number)
            one.other, other.other = other, None
            pygo.yield_now()
            del one, other
        return len(freed)

    assert join_all([pygo.spawn(body) for _ in range(6)]) == [60] * 6


def test_compiled_coroutines_run_in_tasks(cells: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        return asyncio.run(cells.awaited(asyncio.sleep(0, "value"), lambda number: wait()))

    run_crowd(use, "value", rounds=1)


def test_exceptions_come_through_compiled_code(cells: Any, workers: int) -> None:
    def broken(number: int) -> int:
        pygo.yield_now()
        raise KeyError(number)

    for _ in range(5):
        with pytest.raises(KeyError):
            in_task(cells.called_directly, broken, 3)
        with pytest.raises(KeyError):
            in_task(lambda: list(cells.generate(broken, 3)))
