"""Run by tests/test_failpoints.py with fail points: calls of pygo while each of their allocations is refused.

    python tests/failpoint_program.py refusals      for each allocation of a call: it is refused; so are fifty
    python tests/failpoint_program.py delays        exchanges of all kinds with every delay armed
    python tests/failpoint_program.py planted       calls that do wrong when they are refused: all are noticed
    python tests/failpoint_program.py import        what came of points armed by PYGO_FAILPOINTS while pygo was imported

Prints one line per call, with how many refusals it met, and one with the points that were reached.
"""

from __future__ import annotations

import ctypes
import gc
import io
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pygo
import pygo._core
from pygo import context, sync, testing
from pygo._extension import set_scavenge_interval, switch_keeps_gil

library = ctypes.PyDLL(pygo._core.__file__)
library.pygo_failpoints_name.restype = ctypes.c_char_p
library.pygo_failpoints_done.restype = ctypes.c_long
library.pygo_failpoints_hits.restype = ctypes.c_long
POINTS = [library.pygo_failpoints_name(index).decode() for index in range(100) if library.pygo_failpoints_name(index)]
DELAYS = [name for index, name in enumerate(POINTS) if library.pygo_failpoints_is_delay(index)]

reached: dict[str, int] = {}
unraisable: list[type[BaseException]] = []


def arm(text: str) -> None:
    assert library.pygo_failpoints_arm(text.encode()) == 0, text


def disarm(name: str) -> int:
    """How often the point did what it was armed for; the hits of all are added up in ``reached``."""
    done = int(library.pygo_failpoints_done(name.encode()))
    for point in POINTS:
        reached[point] = reached.get(point, 0) + int(library.pygo_failpoints_hits(point.encode()))
    library.pygo_failpoints_disarm()
    return done


def settle(patience: float = 20.0) -> None:
    """Wait until nothing is left of what was refused; fail if something stays."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        stats = pygo.runtime.stats()
        if (stats.live, stats.ready, stats.starved, stats.timers) == (0, 0, 0, 0):
            break
        time.sleep(0.0002)
    else:
        raise AssertionError(f"left behind: {pygo.runtime.stats()}")
    assert pygo.spawn(sum, [1, 2]).join(timeout=20.0) == 3


# ---- calls: each returns when all that it began has ended


def spawn_plain() -> None:
    assert pygo.spawn(sum, [1, 2]).join() == 3


def spawn_with_arguments() -> None:
    assert pygo.spawn(lambda *args, **kwargs: len(args) + len(kwargs), *range(9), one=1, two=2).join() == 11


def task_with_a_name() -> None:
    task = pygo.Task(sum, ([1, 2],), name="named")
    assert (task.name, task.join()) == ("named", 3)


def done_callback() -> None:
    called: list[Any] = []
    task = pygo.spawn(int)
    task.add_done_callback(called.append)
    task.join()
    assert called == [task]


def buffered() -> None:
    channel: pygo.Channel[int] = pygo.Channel(5)
    channel.send(1)
    assert channel.recv() == 1


def timed_receive() -> None:
    try:
        pygo.Channel[None]().recv(timeout=0.0005)
    except TimeoutError:
        return
    raise AssertionError("it received something")


def timed_receive_in_a_task() -> None:
    pygo.spawn(timed_receive).join()


def sleep() -> None:
    pygo.sleep(0.0002)
    pygo.spawn(pygo.sleep, 0.0002).join()


def big_select() -> None:
    channels = [pygo.Channel[int](1) for _ in range(20)]
    channels[7].send(7)
    assert pygo.select(*map(pygo.recv, channels)).index == 7
    assert pygo.select(*map(pygo.recv, channels), default=True).index == -1


def waiting_select() -> None:
    channels = [pygo.Channel[int]() for _ in range(20)]
    task = pygo.spawn(lambda: pygo.select(*map(pygo.recv, channels)).index)
    try:
        while task.state != "waiting":
            pygo.yield_now()
            if task.done():
                task.join()
        assert task.waiting_on is not None
        channels[3].send(1)
        assert task.join() == 3
    finally:
        task.cancel()


def after_and_timers() -> None:
    fired: pygo.Channel[int] = pygo.Channel(1)
    pygo.after(0.0002).recv()
    timer = pygo.Timer(0.0002, lambda: fired.try_send(1))
    ticker = pygo.Ticker(0.0005)
    try:
        before = len(unraisable)
        while not fired.try_recv()[1]:
            if len(unraisable) > before:
                raise MemoryError  # no task for the function, which nobody but the hook can be told
            pygo.sleep(0.0002)
        ticker.channel.recv()
    finally:
        ticker.stop()
        timer.stop()


def lists() -> None:
    pygo.all_tasks()
    assert pygo.wait([pygo.spawn(int), pygo.spawn(int)]).not_done == set()
    pygo.runtime.dump(io.StringIO())
    pygo.runtime.leaked_tasks()


def another_stack() -> None:
    assert pygo.call_on_stack(300 << 10, sum, [1, 2]) == 3
    assert pygo.call_on_stack(40 << 20, sum, [1, 2]) == 3


def locks_and_groups() -> None:
    lock, group, semaphore = sync.Lock(), pygo.WaitGroup(), sync.Semaphore(0)
    lock.acquire()
    assert not lock.acquire(timeout=0.0002)
    assert not semaphore.acquire(timeout=0.0002)
    group.add(1)
    pygo.spawn(group.done)
    group.wait()
    assert not sync.Event().wait(0.0002)


def scopes() -> None:
    try:
        with pygo.timeout(0.0005):
            pygo.Channel[None]().recv()
    except TimeoutError:
        pass
    with pygo.TaskGroup() as group:
        group.spawn(pygo.sleep, 0.0002)


def contexts() -> None:
    ctx, cancel = context.with_timeout(context.background(), 0.0003)
    try:
        assert pygo.select(pygo.recv(ctx.done)).ok is False
    finally:
        cancel()


def virtual_time() -> None:
    testing.bubble(lambda: pygo.spawn(pygo.sleep, 100.0).join())


def helper_thread() -> None:
    assert pygo.to_thread(sum, [1, 2]) == 3


def thread_that_is_new() -> None:
    """A thread that has not waited before, and ends."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            pygo.spawn(pygo.yield_now).join()
        except MemoryError as exc:
            failures.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def crowd() -> None:
    """More tasks wait at once than free fibers are kept, so that some are made."""
    gate: pygo.Channel[None] = pygo.Channel()
    tasks: list[pygo.Task[Any]] = []
    try:
        for _ in range(72):
            tasks.append(pygo.spawn(lambda: gate.recv_ok()[1]))
    finally:
        gate.close()
    assert [task.join() for task in tasks] == [False] * 72
    time.sleep(0.003)  # the surplus may go


CALLS: list[Callable[[], None]] = [
    spawn_plain,
    spawn_with_arguments,
    task_with_a_name,
    done_callback,
    buffered,
    timed_receive,
    timed_receive_in_a_task,
    sleep,
    big_select,
    waiting_select,
    after_and_timers,
    lists,
    another_stack,
    locks_and_groups,
    scopes,
    contexts,
    virtual_time,
    helper_thread,
    thread_that_is_new,
    crowd,
]


def is_memory_error(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_memory_error, error.exceptions))
    return isinstance(error, MemoryError)


def sweep(call: Callable[[], None], times: int, patience: float = 20.0) -> tuple[int, int]:
    """How many refusals there were, and how often the call raised, when the n-th allocation fails, for all n."""
    refused = raised = 0
    for n in range(1000):
        arm(f"memory=after:{n},times:{times}")
        try:
            call()
        except BaseException as exc:
            disarmed = disarm("memory")
            if not is_memory_error(exc):
                print(f"{call.__name__}: at allocation {n}, {times} times", flush=True)
                raise
            raised += 1
        else:
            disarmed = disarm("memory")
        settle(patience)
        if disarmed == 0:
            return refused, raised
        refused += disarmed
    raise AssertionError(f"{call.__name__} never passes unharmed")


def nobody_listens(task: Any, exc: BaseException) -> None:
    """Of tasks that were left when their spawner failed."""
    if not is_memory_error(exc) and not isinstance(exc, pygo.Cancelled):
        sys.__excepthook__(type(exc), exc, exc.__traceback__)


def check_blocks(call: Callable[[], None]) -> None:
    """What is refused again and again takes no more memory each time."""
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(3):
        sweep(call, 1)
    gc.collect()
    grown = sys.getallocatedblocks() - before
    assert grown < 100, f"{call.__name__} leaks: {grown} blocks"


def refusals() -> None:
    pygo.excepthook = nobody_listens
    sys.unraisablehook = lambda args: unraisable.append(args.exc_type)
    # First: while there are helper threads there is no deadlock.
    arm("thread_count=times:2")
    try:
        pygo.Channel[None]().recv()
    except pygo.DeadlockError:
        print("deadlock found")
    assert disarm("thread_count") == 2
    for call in CALLS:
        call()  # once undisturbed, for what is made once
        settle()
        counts = sweep(call, 1)
        sweep(call, 50)
        check_blocks(call)
        print(f"{call.__name__}: {counts[0]} refused, {counts[1]} raised", flush=True)
    assert all(issubclass(kind, MemoryError) for kind in unraisable), unraisable


kept: list[Any] = []


def leaves_a_task() -> None:
    try:
        pygo.Channel[int](1)
    except MemoryError:
        kept.append(pygo.spawn(pygo.Channel[None]().recv))
        raise


def keeps_memory() -> None:
    try:
        pygo.Channel[int](1)
    except MemoryError:
        kept.append([[number] for number in range(200)])
        raise


def says_something_else() -> None:
    try:
        pygo.Channel[int](1)
    except MemoryError:
        raise ValueError("no") from None


def planted() -> None:
    found = 0
    for call, expected in ((leaves_a_task, AssertionError), (says_something_else, ValueError)):
        try:
            sweep(call, 1, patience=0.2)
        except expected:
            found += 1
        for task in kept:
            task.cancel()
        settle()
    try:
        check_blocks(keeps_memory)
    except AssertionError:
        found += 1
    print(f"found: {found} of 3")


def delays() -> None:
    """What two workers, threads and hand-offs make of it: nothing is lost, nothing comes twice."""
    for turn, how in enumerate(("every:5", "every:29,us:300")):
        arm(";".join(f"{name}={how}" for name in DELAYS))
        for call in CALLS:
            for _ in range(5):
                call()
        left: pygo.Channel[int] = pygo.Channel()
        right: pygo.Channel[int] = pygo.Channel(3)

        def relay(left: pygo.Channel[int] = left, right: pygo.Channel[int] = right) -> None:
            for value in left:
                right.send(value)

        relays = [pygo.spawn(relay) for _ in range(4)]
        threads = [threading.Thread(target=lambda left=left: [left.send(n) for n in range(200)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        blocking = [pygo.spawn(time.sleep, 0.005) for _ in range(20)]
        got = sorted(right.recv() for _ in range(600))
        assert got == sorted([*range(200)] * 3)
        left.close()
        for thread in threads:
            thread.join()
        for task in relays + blocking:
            task.join()
        deadline = time.monotonic() + 20.0
        while library.pygo_failpoints_hits(b"monitor_to_sleep") == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        disarm("lain_down")
        settle()
        print(f"turn {turn}: {len(got)} values", flush=True)


def at_import() -> None:
    hits = library.pygo_failpoints_hits(b"swap_probe")
    print(f"keeps the GIL: {switch_keeps_gil()}, after {disarm('swap_probe')} of {hits}", flush=True)


def main() -> None:
    pygo.runtime.set_workers(2)
    set_scavenge_interval(0.001)
    {"refusals": refusals, "delays": delays, "planted": planted, "import": at_import}[sys.argv[1]]()
    names = sorted(name for name, hits in reached.items() if hits > 0)
    print("reached:", " ".join(names))
    assert all(re.fullmatch(r"\w+", name) for name in names)


if __name__ == "__main__":
    main()
