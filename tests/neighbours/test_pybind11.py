"""pybind11: what its functions call back may wait in a task that is locked to its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pybind11
import pytest
from compiled import HERE, build_extension
from crowd import run_crowd
from helpers import in_task, join_all, move_to_another_thread

import pygo

Wait = Callable[[], None]


@pytest.fixture(scope="session")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Any:
    include = f"-I{pybind11.get_include()}"
    return build_extension(
        "bound", HERE / "bound.cpp", tmp_path_factory.mktemp("bound"), include, "-Wno-error", "-O0", "-g0"
    )


def test_locked_tasks_wait_in_callbacks(bound: Any, workers: int) -> None:
    """pybind11 keeps the calls under way in a thread-local, and ends the process where they end out of order."""

    def use(wait: Wait) -> Any:
        with pygo.lock_thread():
            number = bound.each(lambda number: (wait(), number)[1], 4)
            return number, bound.handled(wait, "text"), bound.without_gil(wait)

    run_crowd(use, (6, "text", 1))


def test_calls_that_do_not_wait_need_no_lock(bound: Any, workers: int) -> None:
    def body() -> list[int]:
        results = []
        for count in range(10):
            results.append(bound.each(lambda number: number, count))
            if count % 3 == 0:
                move_to_another_thread()
            pygo.yield_now()
        return results

    assert join_all([pygo.spawn(body) for _ in range(8)]) == [[count * (count - 1) // 2 for count in range(10)]] * 8


def test_exceptions_cross_pybind11(bound: Any, workers: int) -> None:
    def broken(*args: int) -> int:
        pygo.yield_now()
        raise KeyError("broken")

    def body() -> None:
        with pygo.lock_thread(), pytest.raises(KeyError):
            bound.each(broken, 3)
        with pygo.lock_thread(), pytest.raises(KeyError):
            bound.handled(broken, "text")

    join_all([pygo.spawn(body) for _ in range(6)])
    in_task(body)
