"""sqlite3: functions, aggregates, collations and hooks that wait; a connection that moves with its task."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crowd import run_crowd
from helpers import in_task, join_all, move_to_another_thread

import pygo

Wait = Callable[[], None]


@contextlib.contextmanager
def numbers() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        connection.execute("create table numbers (value integer)")
        connection.executemany("insert into numbers values (?)", [(value,) for value in range(6)])
        yield connection


def function(wait: Wait) -> Any:
    with numbers() as connection:
        connection.create_function("double", 1, lambda value: (wait(), 2 * value)[1], deterministic=True)
        return [value for (value,) in connection.execute("select double(value) from numbers")]


def aggregate(wait: Wait) -> Any:
    class Total:
        def __init__(self) -> None:
            self.total = 0
            wait()

        def step(self, value: int) -> None:
            wait()
            self.total += value

        def inverse(self, value: int) -> None:
            wait()
            self.total -= value

        def value(self) -> int:
            wait()
            return self.total

        finalize = value

    with numbers() as connection:
        connection.create_aggregate("total_of", 1, Total)  # type: ignore[arg-type]
        total = connection.execute("select total_of(value) from numbers").fetchone()[0]
        windows: list[int] = []
        connection.create_window_function("running", 1, Total)  # type: ignore[attr-defined]
        query = "select running(value) over (order by value rows between 1 preceding and current row) from numbers"
        windows = [value for (value,) in connection.execute(query)]
        return total, windows


def collation(wait: Wait) -> Any:
    def backwards(left: str, right: str) -> int:
        wait()
        return (left < right) - (left > right)

    with numbers() as connection:
        connection.create_collation("backwards", backwards)
        return [v for (v,) in connection.execute("select value || '' as t from numbers order by t collate backwards")]


def hooks(wait: Wait) -> Any:
    seen = set()

    def progress() -> int:
        wait()
        seen.add("progress")
        return 0

    def trace(statement: str) -> None:
        wait()
        seen.add("trace")

    def authorize(*args: Any) -> int:
        wait()
        seen.add("authorizer")
        return sqlite3.SQLITE_OK

    with numbers() as connection:
        connection.set_progress_handler(progress, 20)
        connection.set_trace_callback(trace)
        connection.set_authorizer(authorize)
        total = connection.execute("select sum(value) from numbers").fetchone()[0]
        return total, sorted(seen)


def adapters_and_factories(wait: Wait) -> Any:
    class Adapted:
        def __conform__(self, protocol: object) -> int:
            wait()
            return 42

    def row(cursor: Any, values: tuple[Any, ...]) -> list[Any]:
        wait()
        return list(values)

    with numbers() as connection:
        connection.row_factory = row
        connection.text_factory = lambda data: (wait(), data.decode())[1]
        return connection.execute("select ?, 'text'", (Adapted(),)).fetchall()


def parameters(wait: Wait) -> Any:
    """``executemany`` takes its rows from a generator that waits, with a transaction open."""

    def rows() -> Iterator[tuple[int]]:
        for value in range(4):
            wait()
            yield (value,)

    with numbers() as connection:
        with connection:
            connection.executemany("insert into numbers values (?)", rows())
        return connection.execute("select count(*) from numbers").fetchone()[0]


WAYS = {
    function: [0, 2, 4, 6, 8, 10],
    aggregate: (15, [0, 1, 3, 5, 7, 9]),
    collation: ["5", "4", "3", "2", "1", "0"],
    hooks: (15, ["authorizer", "progress", "trace"]),
    adapters_and_factories: [[42, "text"]],
    parameters: 10,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_sqlite_calls_may_wait(way: Any, workers: int) -> None:
    run_crowd(way, WAYS[way])


def test_a_connection_moves_with_its_task_and_is_handed_on(tmp_path: Any, workers: int) -> None:
    """``check_same_thread=False``: one task at a time, on whatever OS thread; here a channel hands it on."""
    place = pygo.Channel[sqlite3.Connection](1)
    connection = sqlite3.connect(tmp_path / "database", check_same_thread=False)
    connection.execute("create table log (task integer, thread integer)")
    place.send(connection)

    def write(number: int) -> int:
        for _ in range(5):
            mine = place.recv()
            with mine:
                mine.execute("insert into log values (?, ?)", (number, threading.get_native_id()))
                move_to_another_thread()
                mine.execute("insert into log values (?, ?)", (number, threading.get_native_id()))
            place.send(mine)
        return 10

    assert join_all([pygo.spawn(write, number) for number in range(6)]) == [10] * 6
    assert connection.execute("select count(*) from log").fetchone() == (60,)
    assert connection.execute("select count(distinct thread) from log").fetchone()[0] > 1
    connection.close()


def test_a_connection_of_one_thread_says_so(workers: int) -> None:
    def body() -> None:
        with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as anybodys:
            assert move_to_another_thread()
            assert anybodys.execute("select 1").fetchone() == (1,)
        # a task that moved could not be sure ever to come back to where its connection may be closed
        with pygo.lock_thread(), contextlib.closing(sqlite3.connect(":memory:")) as own:
            pygo.sleep(0.001)
            assert own.execute("select 1").fetchone() == (1,)
            with pytest.raises(sqlite3.ProgrammingError, match="thread"):
                pygo.spawn(own.execute, "select 1").join()

    in_task(body)


def test_exceptions_in_callbacks_are_errors_of_the_statement(workers: int) -> None:
    def broken(value: int) -> int:
        pygo.yield_now()
        raise KeyError("broken")

    def body() -> None:
        with numbers() as connection:
            connection.create_function("broken", 1, broken)
            with pytest.raises(sqlite3.OperationalError, match="user-defined function raised exception"):
                connection.execute("select broken(value) from numbers").fetchall()
            assert sys.exc_info() == (None, None, None)

    join_all([pygo.spawn(body) for _ in range(10)])
