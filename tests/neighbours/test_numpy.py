"""numpy: what it calls back waits, and arrays are used by tasks that change their OS threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crowd import run_crowd
from helpers import in_task, join_all, move_to_another_thread

import pygo

Wait = Callable[[], None]


@functools.total_ordering
class Number:
    """An element of object arrays; its operators wait."""

    def __init__(self, value: int, wait: Wait) -> None:
        self.value, self.wait = value, wait

    def __add__(self, other: Number) -> Number:
        self.wait()
        return Number(self.value + other.value, self.wait)

    def __mul__(self, other: Number) -> Number:
        self.wait()
        return Number(self.value * other.value, self.wait)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.value == other.value

    def __lt__(self, other: Number) -> bool:
        self.wait()
        return self.value < other.value

    __hash__ = None  # type: ignore[assignment]


def numbers(wait: Wait, count: int = 6) -> Any:
    return np.array([Number(value, wait) for value in range(count)], dtype=object)


def object_arrays(wait: Wait) -> Any:
    array = numbers(wait)
    summed, product = array + array, array @ array
    return [element.value for element in summed], product.value, array.sum().value


def sorted_objects(wait: Wait) -> Any:
    array = numbers(wait)[::-1]
    return [element.value for element in np.sort(array)], [int(i) for i in array.argsort()], array.max().value


def from_python_function(wait: Wait) -> Any:
    def add(left: int, right: int) -> int:
        wait()
        return left + right

    ufunc = np.frompyfunc(add, 2, 1)
    return list(ufunc(np.arange(5), 10)), ufunc.reduce(np.arange(5)), list(ufunc.accumulate(np.arange(4, dtype=object)))


def vectorized(wait: Wait) -> Any:
    def square(value: float) -> float:
        wait()
        return value * value

    return np.vectorize(square, otypes=[float])(np.arange(4.0)).tolist()


def along_an_axis(wait: Wait) -> Any:
    def total(row: Any) -> Any:
        wait()
        return row.sum()

    table = np.arange(6).reshape(2, 3)
    return (
        np.apply_along_axis(total, 1, table).tolist(),
        np.fromfunction(lambda i, j: (wait(), i + j)[1], (2, 2)).tolist(),
        np.fromiter((wait() or value for value in range(4)), dtype=int).tolist(),
        np.piecewise(np.arange(4.0), [np.arange(4) < 2], [lambda x: (wait(), -x)[1], 7]).tolist(),
    )


def protocols(wait: Wait) -> Any:
    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            wait()
            return np.arange(3)

        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
            wait()
            return method, len(inputs)

        def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            wait()
            return function.__name__

    wrapped: Any = Wrapped()
    return np.asarray(wrapped).tolist(), np.add(wrapped, 1), np.concatenate([wrapped])


def error_handlers(wait: Wait) -> Any:
    seen: list[str] = []

    def handle(kind: str, flag: int) -> None:
        wait()
        seen.append(kind)

    with np.errstate(divide="call", invalid="call", call=handle):
        with np.errstate(over="raise"):
            wait()
        quotient = np.array([1.0, 0.0]) / np.array([0.0, 0.0])
    return seen, bool(np.isinf(quotient[0])), np.geterr()["divide"]


WAYS = {
    object_arrays: ([0, 2, 4, 6, 8, 10], 55, 15),
    sorted_objects: ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], 5),
    from_python_function: ([10, 11, 12, 13, 14], 10, [0, 1, 3, 6]),
    vectorized: [0.0, 1.0, 4.0, 9.0],
    along_an_axis: ([3, 12], [[0.0, 1.0], [1.0, 2.0]], [0, 1, 2, 3], [0.0, -1.0, 7.0, 7.0]),
    protocols: ([0, 1, 2], ("__call__", 2), "concatenate"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_numpy_calls_may_wait(way: Any, workers: int) -> None:
    run_crowd(way, WAYS[way], stays=way not in (along_an_axis, vectorized))


def test_the_handling_of_floating_point_errors_is_a_tasks_own(workers: int) -> None:
    """numpy keeps it in a context variable; a wait in the handler, and beside others with other settings, keeps it."""
    kinds, infinite, usual = ["divide by zero", "invalid value"], True, np.geterr()["divide"]
    run_crowd(error_handlers, (kinds, infinite, usual))


def test_computations_without_the_gil_go_on_beside_others(workers: int) -> None:
    generator = np.random.default_rng(1)
    left, right = generator.random((120, 120)), generator.random((120, 120))
    expected = left @ right

    def body() -> bool:
        for _ in range(3):
            product = left @ right
            move_to_another_thread()
            if not np.allclose(product, expected):
                return False
        return True

    ticks = pygo.spawn(lambda: [pygo.sleep(0.0005) for _ in range(20)])
    assert join_all([pygo.spawn(body) for _ in range(6)]) == [True] * 6
    assert len(ticks.join()) == 20


def test_random_generators_are_shared_by_tasks_that_move(workers: int) -> None:
    generator = np.random.default_rng(2)

    def body() -> int:
        drawn = 0
        for _ in range(5):
            drawn += len(generator.random(1000))
            move_to_another_thread()
        return drawn

    assert join_all([pygo.spawn(body) for _ in range(4)]) == [5000] * 4


def test_exceptions_leave_numpy_after_a_wait(workers: int) -> None:
    def broken(value: object) -> object:
        pygo.yield_now()
        raise KeyError("broken")

    for _ in range(10):
        with pytest.raises(KeyError):
            in_task(np.frompyfunc(broken, 1, 1), np.arange(3))
