"""C code that calls Python in a task: ctypes, qsort, sqlite3, sort keys; waiting or moved ones too."""

from __future__ import annotations

import ctypes
import functools
import itertools
import re
import sqlite3
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from helpers import HANG, in_task, in_thread, join_all, move_to_another_thread, run_program, wait_until

import pygo

libc = ctypes.CDLL(None)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
UNARY = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


def qsort(values: list[int], before: Callable[[], Any]) -> list[int]:
    """Sort through libc's ``qsort``, whose comparator calls ``before`` first."""

    @COMPARE
    def compare(left: Any, right: Any) -> int:
        before()
        return int(left[0] - right[0])

    array = (ctypes.c_int * len(values))(*values)
    libc.qsort(array, ctypes.c_size_t(len(values)), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int)), compare)
    return list(array)


def ctypes_callback(before: Callable[[], Any]) -> list[int]:
    """A Python function called through C, from Python: a callback without a C library between."""

    @UNARY
    def double(value: int) -> int:
        before()
        return 2 * value

    return [double(value) for value in range(20)]


def sqlite_function(before: Callable[[], Any]) -> list[int]:
    def double(value: int) -> int:
        before()
        return 2 * value

    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.create_function("double", 1, double)
        connection.execute("create table numbers (value integer)")
        connection.executemany("insert into numbers values (?)", [(value,) for value in range(20)])
        return [value for (value,) in connection.execute("select double(value) from numbers order by value")]
    finally:
        connection.close()


def sqlite_aggregate(before: Callable[[], Any]) -> list[int]:
    class Total:
        def __init__(self) -> None:
            self.total = 0

        def step(self, value: int) -> None:
            before()
            self.total += value

        def finalize(self) -> int:
            before()
            return self.total

    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.create_aggregate("total_of", 1, Total)  # type: ignore[arg-type]
        return [connection.execute("select total_of(value) from (select 1 as value union select 2)").fetchone()[0]]
    finally:
        connection.close()


def sort_key(before: Callable[[], Any]) -> list[int]:
    def key(value: int) -> int:
        before()
        return -value

    values = list(range(20))
    values.sort(key=key)
    return values


def comparison_method(before: Callable[[], Any]) -> list[int]:
    @functools.total_ordering
    class Number:
        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Number) and self.value == other.value

        def __hash__(self) -> int:
            before()
            return 7

        def __lt__(self, other: Number) -> bool:
            before()
            return self.value < other.value

    numbers = sorted(Number(value) for value in (3, 1, 2))
    assert len(dict.fromkeys(numbers)) == 3
    return [number.value for number in numbers]


def regex_replacement(before: Callable[[], Any]) -> list[int]:
    def replace(match: re.Match[str]) -> str:
        before()
        return str(2 * int(match.group()))

    return [int(text) for text in re.sub(r"\d+", replace, "1 2 3 4").split()]


def map_and_reduce(before: Callable[[], Any]) -> list[int]:
    def add(left: int, right: int) -> int:
        before()
        return left + right

    return [functools.reduce(add, map(add, range(5), itertools.accumulate(range(5), add)))]


WAYS: dict[str, tuple[Callable[[Callable[[], Any]], list[int]], list[int]]] = {
    "ctypes": (ctypes_callback, [2 * value for value in range(20)]),
    "qsort": (functools.partial(qsort, [5, 2, 9, 1, 7, 3]), [1, 2, 3, 5, 7, 9]),
    "sqlite function": (sqlite_function, [2 * value for value in range(20)]),
    "sqlite aggregate": (sqlite_aggregate, [3]),
    "sort key": (sort_key, list(range(19, -1, -1))),
    "comparison": (comparison_method, [1, 2, 3]),
    "regex": (regex_replacement, [2, 4, 6, 8]),
    "map and reduce": (map_and_reduce, [30]),
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


def ask(requests: Any) -> int:
    """Wait twice: send a reply channel, then receive from it."""
    reply: pygo.Channel[int] = pygo.Channel()
    requests.send(reply)
    return reply.recv()


def answer(requests: Any) -> int:
    """Serve ``ask`` until the channel is closed; the number of requests served."""
    served = 0
    for reply in requests:
        served += 1
        reply.send(served)
    return served


def test_callbacks_run_in_tasks(way: Any, workers: int) -> None:
    function, expected = way
    assert join_all([pygo.spawn(function, lambda: None) for _ in range(20)]) == [expected] * 20


def test_callbacks_may_wait_on_channels(way: Any, workers: int) -> None:
    """Many tasks wait inside C frames at once and are served in any order."""
    function, expected = way
    requests: pygo.Channel[Any] = pygo.Channel()
    server = pygo.spawn(answer, requests)
    tasks = [pygo.spawn(function, lambda: ask(requests)) for _ in range(20)]
    assert join_all(tasks) == [expected] * 20
    requests.close()
    assert server.join() >= 20


def test_callbacks_may_yield_sleep_spawn_and_block(way: Any, workers: int) -> None:
    function, expected = way
    turns = itertools.count()

    def before() -> None:
        match next(turns) % 4:
            case 0:
                pygo.yield_now()
            case 1:
                pygo.sleep(0.0001)
            case 2:
                assert pygo.spawn(int, "3").join() == 3
            case 3:
                time.sleep(0.0001)

    assert join_all([pygo.spawn(function, before) for _ in range(8)]) == [expected] * 8


def test_callbacks_work_after_the_task_moved_to_another_thread(way: Any, workers: int) -> None:
    """Called on one OS thread, then on another, each time with waits inside."""
    function, expected = way
    requests: pygo.Channel[Any] = pygo.Channel()
    server = pygo.spawn(answer, requests)

    def body() -> tuple[bool, list[list[int]]]:
        results = [function(lambda: ask(requests))]
        moved = False
        for _ in range(3):
            moved = move_to_another_thread() or moved
            results.append(function(lambda: ask(requests)))
            results.append(function(lambda: None))
        return moved, results

    for moved, results in join_all([pygo.spawn(body) for _ in range(3)]):
        assert moved
        assert results == [expected] * 7
    requests.close()
    server.join()


def test_a_task_moves_between_os_threads() -> None:
    """What the tests above rely on: a waiting task does resume on another thread when its own is held up.

    It parks straight from Python code: below a C frame (``sum`` of a generator, say) it may have to stay.
    """

    def body() -> int:
        moved = 0
        for _ in range(10):
            moved += move_to_another_thread()
        return moved

    assert in_task(body) == 10


def test_a_task_that_waits_below_c_code_stays_on_its_thread(way: Any, workers: int) -> None:
    """Extensions keep in thread-locals how often they have been entered, and count down on their way out."""
    function, expected = way
    moved: list[bool] = []

    def body() -> list[int]:
        return function(lambda: moved.append(move_to_another_thread(2)))

    assert join_all([pygo.spawn(body) for _ in range(4)]) == [expected] * 4
    assert moved
    assert not any(moved)


@pytest.mark.skipif(
    sys.version_info >= (3, 12) and bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    reason="C code of a shared libpython may hold the address of a thread-local: the task has to stay",
)
def test_a_task_below_c_code_does_not_wait_for_ever_for_its_thread() -> None:
    """The thread is in a call that ends only when the task goes on; no other worker is there. The monitor helps."""
    program = run_program(
        """
        import threading, pygo

        pygo.runtime.set_workers(1)
        go, done, threads = pygo.Channel(), threading.Event(), []

        def wait(value):
            threads.append(threading.get_ident())
            go.recv()
            threads.append(threading.get_ident())
            done.set()
            return value

        def block():
            threads.append(threading.get_ident())
            done.wait()

        while True:
            waiting = pygo.spawn(sorted, [1], key=wait)
            pygo.testing.wait_until_blocked(waiting)
            blocking = pygo.spawn(block)
            while len(threads) < 2:
                pygo.sleep(0.001)
            if threads[0] == threads[1]:
                break
            done.set()  # the worker has been replaced meanwhile, as happens on a busy machine: once more
            go.send(None)
            waiting.join(timeout=20), blocking.join(timeout=20)
            threads.clear(), done.clear()
        go.send(None)
        assert waiting.join(timeout=20) == [1]
        blocking.join(timeout=20)
        before, held_up, after = threads
        print(before == held_up != after)
        """
    ).ok()
    assert program.out == "True\n"


def test_a_function_in_c_that_is_a_task_itself_is_c_code_too() -> None:
    def moves(value: int) -> bool:
        return move_to_another_thread(3)

    for task in (pygo.spawn(max, [1], key=moves), pygo.spawn(functools.partial(max, [1], key=moves))):
        assert task.join() == 1
    assert in_task(list, map(moves, [1, 2])) == [False, False]
    assert in_task(functools.partial(list, map(moves, [1, 2]))) == [False, False]
    assert in_task(functools.partial(move_to_another_thread, None))


def test_generators_in_loops_move_freely() -> None:
    def outer(move: Callable[[], bool]) -> Any:
        yield move()
        yield from inner(move)

    def inner(move: Callable[[], bool]) -> Any:
        yield move()

    def body() -> list[bool]:
        moved: list[bool] = []
        for turn in range(8):  # 3.12 and later enter them without C in between once they have seen what runs
            moved = []
            for value in outer(move_to_another_thread if turn == 7 else bool):
                moved.append(value)
        return moved

    assert in_task(body) == [True, True]


def test_callbacks_nest_through_several_libraries(workers: int) -> None:
    requests: pygo.Channel[Any] = pygo.Channel()
    server = pygo.spawn(answer, requests)

    def body() -> list[int]:
        return sort_key(lambda: qsort([2, 1], lambda: ctypes_callback(lambda: None) and ask(requests)))

    assert join_all([pygo.spawn(body) for _ in range(8)]) == [list(range(19, -1, -1))] * 8
    requests.close()
    server.join()


def test_exceptions_in_callbacks_come_back_where_the_library_allows_it(workers: int) -> None:
    class Broken(Exception):
        pass

    def broken() -> None:
        pygo.yield_now()
        raise Broken

    for function in (sort_key, regex_replacement, map_and_reduce, comparison_method):
        with pytest.raises(Broken):
            in_task(function, broken)
    with pytest.raises(sqlite3.OperationalError):
        in_task(sqlite_function, broken)


def test_a_callback_from_a_foreign_c_thread_can_use_channels() -> None:
    """A thread that Python did not start calls in through ctypes and sends on a channel."""
    ch: pygo.Channel[int] = pygo.Channel()
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

    @start
    def body(argument: int | None) -> None:
        ch.send(5)
        ch.send(pygo.spawn(int, "6").join())

    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, body, None) == 0
    assert ch.recv(timeout=HANG) == 5
    assert ch.recv(timeout=HANG) == 6
    in_thread(lambda: libc.pthread_join(thread, None))


def test_a_foreign_c_thread_can_be_made_by_a_task(workers: int) -> None:
    ch: pygo.Channel[int] = pygo.Channel()
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

    @start
    def body(argument: int | None) -> None:
        for number in range(10):
            ch.send(number)

    def task() -> list[int]:
        thread = ctypes.c_ulong()
        assert libc.pthread_create(ctypes.byref(thread), None, body, None) == 0
        received = [ch.recv(timeout=HANG) for _ in range(10)]
        libc.pthread_join(thread, None)
        return received

    for _ in range(5):
        assert in_task(task) == list(range(10))


def test_weakref_callbacks_and_finalizers_may_wait(workers: int) -> None:
    class Value:
        pass

    def body(requests: Any) -> int:
        seen: list[int] = []
        for _ in range(20):
            value = Value()
            ref = weakref.ref(value, lambda _: seen.append(ask(requests)))
            weakref.finalize(value, lambda: seen.append(ask(requests)))
            del value
            assert ref() is None
        return len(seen)

    requests: pygo.Channel[Any] = pygo.Channel()
    server = pygo.spawn(answer, requests)
    assert join_all([pygo.spawn(body, requests) for _ in range(5)]) == [40] * 5
    requests.close()
    assert server.join() == 200


def test_two_tasks_in_one_qsort_each_do_not_disturb_each_other() -> None:
    """Both stand inside qsort at one moment, waiting for each other's comparator."""
    there: pygo.Channel[int] = pygo.Channel()
    back: pygo.Channel[int] = pygo.Channel()
    values = list(range(50, 0, -1))
    left = pygo.spawn(qsort, values, lambda: (there.send(1), back.recv()))
    right = pygo.spawn(qsort, values, lambda: (there.recv(), back.send(1)))
    assert left.join(timeout=HANG) == right.join(timeout=HANG) == sorted(values)


def test_gilstate_is_right_on_every_thread_a_task_comes_to(workers: int) -> None:
    """``PyGILState_Check`` and ``PyGILState_GetThisThreadState`` agree with the running thread state after moves."""
    check = ctypes.pythonapi.PyGILState_Check
    this_thread = ctypes.pythonapi.PyGILState_GetThisThreadState
    current = ctypes.pythonapi.PyThreadState_Get
    for function in (this_thread, current):
        function.restype = ctypes.c_void_p

    def body() -> set[int]:
        threads = set()
        for _ in range(30):
            threads.add(threading.get_native_id())
            assert check() == 1
            assert this_thread() == current()
            pygo.yield_now()
            pygo.spawn(time.sleep, 0.0005).join()
            time.sleep(0.0001)
        return threads

    join_all([pygo.spawn(body) for _ in range(6)])
    wait_until(lambda: pygo.runtime.stats().live == 0)
