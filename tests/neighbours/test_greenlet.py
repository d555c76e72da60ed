"""greenlet in tasks: a task that makes greenlets has its OS thread for itself, to its end."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import pytest
from helpers import HANG, in_task, in_thread, join_all, move_to_another_thread, run_program, wait_until

import pygo


def ping_pong(wait: Callable[[], object], turns: int = 20) -> list[int]:
    """Two greenlets exchange numbers, and both wait in between."""
    seen: list[int] = []
    main = greenlet.getcurrent()

    def inner(value: int) -> str:
        for _ in range(turns):
            wait()
            seen.append(value)
            value = main.switch(value + 1)
        return "end"

    other = greenlet.greenlet(inner)
    value = other.switch(0)
    for _ in range(turns):
        wait()
        value = other.switch(value)
    assert value == "end"
    assert other.dead
    return seen


def test_greenlets_switch_inside_tasks(workers: int) -> None:
    assert join_all([pygo.spawn(ping_pong, lambda: None) for _ in range(20)]) == [list(range(20))] * 20


def test_tasks_wait_inside_greenlets_and_between(workers: int) -> None:
    """On channels, in sleep and yield_now, among other tasks with greenlets and others without."""
    requests: pygo.Channel[Any] = pygo.Channel()

    def serve() -> None:
        for reply in requests:
            reply.send(None)

    def wait() -> None:
        thread = threading.get_native_id()
        reply: pygo.Channel[None] = pygo.Channel()
        requests.send(reply)
        reply.recv()
        pygo.sleep(0.0001)
        pygo.yield_now()
        assert threading.get_native_id() == thread

    servers = [pygo.spawn(serve) for _ in range(2)]
    assert join_all([pygo.spawn(ping_pong, wait) for _ in range(12)]) == [list(range(20))] * 12
    requests.close()
    join_all(servers)


def test_the_task_has_its_thread_for_itself_to_its_end(workers: int) -> None:
    """And may have moved before; others never run there, and the thread ends with it."""
    others: set[int] = set()
    over = pygo.Channel[None]()

    def other() -> None:
        while not over.closed:
            others.add(threading.get_native_id())
            pygo.yield_now()

    def body() -> int:
        assert move_to_another_thread()
        kept = greenlet.greenlet(lambda: None)
        thread = threading.get_native_id()
        others.clear()
        assert not move_to_another_thread(20)
        assert thread not in others
        assert not kept
        with pygo.lock_thread():
            pygo.yield_now()
        assert not move_to_another_thread(20)
        return thread

    yielding = [pygo.spawn(other) for _ in range(4)]
    threads = join_all([pygo.spawn(body) for _ in range(4)])
    over.close()
    join_all(yielding)
    assert len(set(threads)) == 4
    wait_until(lambda: not {int(name) for name in os.listdir("/proc/self/task")} & set(threads))


def test_what_a_task_leaves_suspended_is_nobodys(workers: int) -> None:
    """It is never resumed on a stack that is another's by now: not when it is collected, nor when somebody tries."""
    left: list[Any] = []

    def suspended() -> None:
        try:
            greenlet.getcurrent().parent.switch("suspended")
        finally:
            left.append("was resumed")

    def body() -> None:
        for _ in range(3):
            one = greenlet.greenlet(suspended)
            assert one.switch() == "suspended"
            left.append(one)
            pygo.yield_now()

    join_all([pygo.spawn(body) for _ in range(10)])
    ones, left[:] = list(left), []
    assert len(ones) == 30

    def resume(one: Any) -> None:
        with pytest.raises(greenlet.error, match="different thread"):
            one.switch()

    resume(ones[0])
    join_all([pygo.spawn(resume, one) for one in ones])
    in_thread(resume, ones[1])
    tasks = [pygo.spawn(ping_pong, pygo.yield_now) for _ in range(4)]
    del ones
    gc.collect()
    assert join_all(tasks) == [list(range(20))] * 4
    in_task(ping_pong, pygo.yield_now)
    assert left == []


def test_greenlets_of_another_task_are_refused(workers: int) -> None:
    ready, over = pygo.Channel[Any](), pygo.Channel[None]()

    def owner() -> None:
        one = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
        one.switch()
        ready.send(one)
        over.recv()
        one.switch()
        assert one.dead

    task = pygo.spawn(owner)
    one = ready.recv(timeout=HANG)

    def thief() -> None:
        with pytest.raises(greenlet.error):
            one.switch()
        assert ping_pong(pygo.yield_now)
        with pytest.raises(greenlet.error):
            one.throw(ValueError)

    with pytest.raises(greenlet.error):  # the main thread is no better
        one.switch()
    join_all([pygo.spawn(thief) for _ in range(6)])
    over.send(None)
    task.join(timeout=HANG)


def test_exceptions_cross_greenlets_in_tasks(workers: int) -> None:
    def fail() -> None:
        pygo.yield_now()
        raise KeyError("inside")

    def body() -> str:
        with pytest.raises(KeyError):
            greenlet.greenlet(fail).switch()
        try:
            raise ValueError("outer")
        except ValueError as exc:
            ping_pong(pygo.yield_now, 5)
            assert exc.__context__ is None
        try:
            greenlet.greenlet(lambda: greenlet.getcurrent().parent.throw(OSError("thrown"))).switch()
        except OSError as exc:
            return str(exc)
        return ""

    assert join_all([pygo.spawn(body) for _ in range(10)]) == ["thrown"] * 10


def test_a_cancelled_wait_in_a_greenlet_ends_the_task(workers: int) -> None:
    never = pygo.Channel[None]()

    def body() -> None:
        greenlet.greenlet(never.recv).switch()

    tasks = [pygo.spawn(body) for _ in range(6)]
    wait_until(lambda: never.waiting_receivers == 6)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(pygo.TaskCancelled):
            task.join(timeout=HANG)


def test_deadlines_in_greenlets(workers: int) -> None:
    never = pygo.Channel[None]()

    def limited() -> str:
        try:
            with pygo.timeout(0.001):
                never.recv()
        except TimeoutError:
            return "late"
        return ""

    def body() -> tuple[str, str]:
        return greenlet.greenlet(limited).switch(), limited()

    assert join_all([pygo.spawn(body) for _ in range(6)]) == [("late", "late")] * 6


def test_deep_recursion_in_a_greenlet_is_an_error(workers: int) -> None:
    def deep() -> int:
        return deep() + 1

    def body() -> bool:
        with pytest.raises(RecursionError):
            greenlet.greenlet(deep).switch()
        return bool(ping_pong(pygo.yield_now, 3))

    assert join_all([pygo.spawn(body) for _ in range(4)]) == [True] * 4


def test_many_more_tasks_with_greenlets_than_workers(workers: int) -> None:
    """Each holds an OS thread while it lives, as in a blocking call."""
    assert join_all([pygo.spawn(ping_pong, pygo.yield_now, 3) for _ in range(150)]) == [[0, 1, 2]] * 150


def test_greenlets_and_other_stacks_exclude_each_other(workers: int) -> None:
    def make() -> None:
        with pytest.raises(RuntimeError, match="call_on_stack"):
            greenlet.greenlet(lambda: None)

    def body() -> None:
        pygo.call_on_stack(1 << 20, make)
        ping_pong(pygo.yield_now, 2)
        with pytest.raises(RuntimeError, match="greenlets"):
            pygo.call_on_stack(1 << 20, lambda: None)

    in_task(body)
    in_thread(pygo.call_on_stack, 1 << 20, make)
    assert in_task(pygo.call_on_stack, 1 << 20, int, "3") == 3


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_a_task_that_must_stay_where_another_has_greenlets_gets_an_error(workers: int) -> None:
    """It waits below C code when the other, on the same OS thread, makes its first."""
    gate, over = pygo.Channel[None](), pygo.Channel[None]()

    def below(value: int) -> int:
        thread = threading.get_native_id()
        gate.recv()
        assert threading.get_native_id() == thread
        with pytest.raises(RuntimeError, match="another task has this OS thread"):
            greenlet.greenlet(lambda: None)
        return value

    def owner() -> None:
        greenlet.greenlet(lambda: None).switch()
        over.recv()

    stays = pygo.spawn(sorted, [1], key=below)
    wait_until(lambda: gate.waiting_receivers == 1)
    task = pygo.spawn(owner)
    wait_until(lambda: over.waiting_receivers == 1)
    gate.send(None)
    assert stays.join(timeout=HANG) == [1]
    over.send(None)
    task.join(timeout=HANG)
    assert in_task(ping_pong, pygo.yield_now)


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_a_thread_that_is_to_end_waits_for_tasks_that_must_stay(workers: int) -> None:
    gate = pygo.Channel[None]()

    def below(value: int) -> int:
        for _ in range(3):
            thread = threading.get_native_id()
            gate.recv()
            assert threading.get_native_id() == thread
        return value

    stays = pygo.spawn(sorted, [1], key=below)
    wait_until(lambda: gate.waiting_receivers == 1)
    assert in_task(ping_pong, pygo.yield_now)  # on the same thread, which is to end now
    assert in_task(ping_pong, pygo.yield_now)
    for _ in range(3):
        gate.send(None, timeout=HANG)
    assert stays.join(timeout=HANG) == [1]


def test_greenlets_made_through_the_api_for_c_count_too(workers: int) -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.POINTER(ctypes.c_void_p), [ctypes.py_object, ctypes.c_char_p]
    table = pointer(greenlet._greenlet._C_API, b"greenlet._C_API")
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)(table[3])

    def body() -> bool:
        assert move_to_another_thread()
        assert make(lambda: "made", None).switch() == "made"
        return move_to_another_thread(20)

    assert join_all([pygo.spawn(body) for _ in range(4)]) == [False] * 4


def test_a_thread_with_greenlets_beside_busy_tasks(workers: int) -> None:
    """A program of greenlets in an ordinary thread, and in the main thread, uses channels that tasks serve."""
    requests: pygo.Channel[Any] = pygo.Channel()
    over = pygo.Channel[None]()

    def serve() -> None:
        for reply in requests:
            reply.send(None)

    def busy() -> None:
        while not over.closed:
            ping_pong(pygo.yield_now, 2)

    def wait() -> None:
        reply: pygo.Channel[None] = pygo.Channel()
        requests.send(reply, timeout=HANG)
        reply.recv(timeout=HANG)

    tasks = [pygo.spawn(serve), pygo.spawn(busy), pygo.spawn(busy)]
    assert in_thread(ping_pong, wait) == list(range(20))
    assert ping_pong(wait) == list(range(20))
    over.close()
    requests.close()
    join_all(tasks)


IMPORTED_BEFORE = """
import greenlet, threading
class Own(greenlet.greenlet): pass
class Other(greenlet.greenlet):
    def __new__(cls, *args): return super().__new__(cls)
import pygo, sys
sys.path[:0] = [{tests!r}]
from helpers import move_to_another_thread
def body(kind):
    assert move_to_another_thread()
    assert kind(lambda: pygo.yield_now() or "made").switch() == "made"
    return move_to_another_thread(20)
for kind in (greenlet.greenlet, Own, Other):
    assert [task.join() for task in [pygo.spawn(body, kind) for _ in range(4)]] == [False] * 4
print("end")
"""


@pytest.mark.parametrize("order", ["greenlet first", "pygo first"])
def test_the_order_of_the_imports_does_not_matter(order: str) -> None:
    source = IMPORTED_BEFORE.format(tests=str(Path(__file__).parent.parent))
    if order == "pygo first":
        source = "import pygo\n" + source
    assert run_program(source).ok().out == "end\n"


def test_the_program_ends_with_greenlets_suspended_in_tasks() -> None:
    program = run_program(
        """
        import greenlet, pygo
        never = pygo.Channel()
        def body():
            one = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
            one.switch()
            greenlet.greenlet(never.recv).switch()
        tasks = [pygo.spawn(body) for _ in range(8)]
        while never.waiting_receivers < 8:
            pygo.sleep(0.001)
        print("end")
        """
    )
    assert program.ok().out == "end\n"
