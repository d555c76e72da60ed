"""Helpers for tests of concurrent programs: virtual time, waiting until others wait, schedules that can be repeated,
leak checks.

`pytest` finds the marker `pygo_bubble`, the fixtures `pygo_leak_check` and `pygo_seed`, and the option `--pygo-seed`
by itself once pygo is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pygo import _extension, _report, runtime
from pygo._errors import DeadlockError
from pygo._native import (
    Channel,
    RecvChannel,
    SendChannel,
    Task,
    _Bubble,
    _bubble,
    _now,
    _settle,
    all_tasks,
    current_task,
    shield,
    sleep,
    yield_now,
)

_P = ParamSpec("_P")
_R = TypeVar("_R")

_real_sleep, _real_time = time.sleep, time.monotonic  # tests may put those of a bubble in their place

_GENEROUS = 30.0  # seconds: longer than any correct wait takes on a busy machine


def _poll(is_so: Callable[[], bool], timeout: float, what: Callable[[], str]) -> None:
    """Let others run until `is_so`. Raises `TimeoutError` with what() after `timeout` seconds."""
    deadline = _real_time() + timeout
    pause = 0.0
    while not is_so():
        if _real_time() >= deadline:
            raise TimeoutError(what())
        if current_task() is not None:
            yield_now()
        if _bubble():
            _real_sleep(pause)  # its clock is not to move for this
        else:
            sleep(pause)
        pause = min(0.005, pause * 2 or 0.00005)


def wait_until_blocked(
    *waiters: Task[Any] | Channel[Any] | SendChannel[Any] | RecvChannel[Any],
    receivers: int | None = None,
    senders: int | None = None,
    timeout: float = _GENEROUS,
) -> None:
    """Wait until tasks wait: the given tasks, or so many receivers and senders on the given channels.

    For a channel without numbers: until somebody waits on it. A view of a channel cannot be asked, its channel can.
    Raises `TimeoutError` after `timeout` seconds, `RuntimeError` if a task ends instead, `TypeError` for other objects.

    >>> import pygo
    >>> ch = pygo.Channel()
    >>> task = pygo.spawn(ch.recv)
    >>> wait_until_blocked(ch, receivers=1)
    >>> ch.try_send(7), task.join()
    (True, 7)
    """
    for waiter in waiters:
        if isinstance(waiter, Task):
            _wait_for_task(waiter, timeout)
        elif isinstance(waiter, Channel):
            _wait_for_channel(waiter, receivers, senders, timeout)
        else:
            raise TypeError(f"tasks and channels can be asked who waits, not {type(waiter).__name__}")


def _wait_for_task(task: Task[Any], timeout: float) -> None:
    def is_waiting() -> bool:
        if task.done():
            raise RuntimeError(f"{task!r} has ended")
        return task.state == "waiting"

    _poll(is_waiting, timeout, lambda: f"{task!r} does not wait")


def _wait_for_channel(ch: Channel[Any], receivers: int | None, senders: int | None, timeout: float) -> None:
    def is_waited_on() -> bool:
        if receivers is None and senders is None:
            return ch.waiting_receivers + ch.waiting_senders > 0
        return ch.waiting_receivers >= (receivers or 0) and ch.waiting_senders >= (senders or 0)

    _poll(is_waited_on, timeout, lambda: f"{ch.waiting_receivers} receive from and {ch.waiting_senders} send to {ch!r}")


@contextmanager
def seeded(seed: int, *, workers: int | None = 1) -> Iterator[None]:
    """Draw what the scheduler leaves to chance from `seed`, inside the block.

    The choice among ready select cases, where a thief begins to steal, whether a task whose turn it is goes behind
    others, and whether a call that did not have to wait yields to others. With one worker, tasks that were spawned by
    tasks, and that neither block outside of pygo, nor sleep, nor compute for a second, then run in the same
    order each time; with other seeds in others. The environment variable PYGO_SEED does it for a whole program.

    workers: how many to use inside the block; None leaves the number as it is.

    >>> import pygo
    >>> def letters(out, name):
    ...     for _ in range(3):
    ...         out.append(name)
    ...         pygo.yield_now()
    >>> def run():
    ...     out = []
    ...     with pygo.TaskGroup() as tg:
    ...         for name in "abc":
    ...             tg.spawn(letters, out, name)
    ...     return "".join(out)
    >>> with seeded(1):
    ...     first = pygo.spawn(run).join()
    >>> with seeded(1):
    ...     pygo.spawn(run).join() == first
    True
    """
    before, workers_before = _extension.current_seed(), runtime.workers()
    if workers is not None:
        runtime.set_workers(workers)
    _extension.set_seed(seed)
    try:
        yield
    finally:
        _extension.set_seed(before)
        runtime.set_workers(workers_before)


@contextmanager
def leak_check(timeout: float = 5.0) -> Iterator[None]:
    """Check that the block leaves no task behind: those spawned inside must have ended within `timeout` seconds.

    Raises `AssertionError` that shows the stacks of those that have not.

    >>> import pygo
    >>> with leak_check(timeout=0.01):
    ...     task = pygo.spawn(pygo.Channel().recv)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: 1 task is left behind:...
    >>> task.cancel()
    True
    """
    before = {task.id for task in all_tasks()}

    def left() -> list[Task[Any]]:
        return [task for task in all_tasks() if task.id not in before]

    yield
    try:
        _poll(lambda: not left(), timeout, lambda: "")
    except TimeoutError:
        tasks = left()
        if tasks:
            raise AssertionError(_describe(tasks)) from None


def _describe(tasks: list[Task[Any]], most: int = 20) -> str:
    import io

    text = io.StringIO()
    text.write("1 task is" if len(tasks) == 1 else f"{len(tasks)} tasks are")
    text.write(" left behind:\n")
    for task in tasks[:most]:
        text.write(f"{task!r}, {task.waiting_on or task.state}\n")
        task.print_stack(text)
    if len(tasks) > most:
        text.write(f"and {len(tasks) - most} more\n")
    return text.getvalue()


# ---- virtual time ----


def bubble(fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Run fn(*args, **kwargs) as a task with virtual time; return its result or raise its exception.

    The task, and all tasks spawned from there, form a *bubble* with a clock of its own, which starts at zero. `sleep`,
    `after`, `Timer`, `Ticker`, every `timeout`, and the deadlines of `pygo.context` go by it, and what the channels of
    timers deliver is its time. The clock stands still while any of the tasks can go on. When all are *durably blocked*,
    that is, wait for something that only the bubble can bring about, it jumps to the next moment at which something
    happens. So a test of timeouts takes no time. The rules are in docs/testing.md. After Go's `testing/synctest`.

    The call waits, as a task or a thread, until all tasks of the bubble have ended; timers that are pending then never
    fire. Raises `DeadlockError`, with a dump of them, if the bubble's tasks wait for each other and nothing can ever
    happen, or if fn has ended and others are blocked (the clock stops then); they are cancelled. RuntimeError inside of
    a bubble. If the caller is cancelled or interrupted, so are the bubble's tasks.

    >>> import pygo
    >>> def main():
    ...     before = now()
    ...     pygo.sleep(3600)
    ...     return now() - before
    >>> bubble(main)
    3600.0
    """
    if _bubble():
        raise RuntimeError("a bubble inside of another")
    this = _Bubble()
    try:  # from before the first task is there: the main thread can be interrupted between any two steps
        root = this.start(fn, *args, **kwargs)
        _wait(this)
        left = this.tasks()
        if left:
            _raise_stuck(this, root, left)
        return root.result()
    finally:
        try:
            if this.tasks():
                _end(this)
        finally:
            this.drop_timers()


def _wait(this: _Bubble) -> None:
    """Until nothing happens any more."""
    try:
        this.wait()
    except DeadlockError as error:  # the main thread's: the bubble itself is not stuck
        error.add_note("A task of the bubble waits for what was made outside. Meanwhile its clock stands still.")
        raise


def _end(this: _Bubble) -> None:
    this.close()
    with shield():
        this.wait()


def _raise_stuck(this: _Bubble, root: Task[Any], left: list[Task[Any]]) -> None:
    now = _real_time()
    text = "".join(_report.describe(task, now) for task in left)
    failed = root.done() and root._failed and not root.cancelled()
    what = "the bubble's first task has ended, but others are blocked" if root.done() else "all tasks are blocked"
    del left
    _end(this)
    text += "".join(f"{task!r} cannot be cancelled and stays\n" for task in this.tasks())
    if not failed:
        raise DeadlockError(f"{what}, and time cannot help\n{text.rstrip()}")
    try:
        root.result()
    except BaseException as error:
        error.add_note(f"{what}:\n{text.rstrip()}")
        raise


def bubbled(fn: Callable[_P, _R]) -> Callable[_P, _R]:
    """A decorator: each call of fn runs in a bubble of its own. For test functions; see `bubble`.

    >>> import pygo
    >>> @bubbled
    ... def test_a_slow_answer_is_not_waited_for():
    ...     with pygo.timeout(5):
    ...         pygo.sleep(60)
    >>> test_a_slow_answer_is_not_waited_for()
    Traceback (most recent call last):
    TimeoutError: the block did not end in time
    """

    @wraps(fn)
    def in_bubble(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return bubble(fn, *args, **kwargs)

    return in_bubble


def now() -> float:
    """The time in seconds on the caller's clock: in a bubble its own, which starts at zero, else `time.monotonic()`.

    Deadlines and the values of timers' channels are on this clock. Never waits.
    """
    return _now()


def settle(seconds: float = 0.0) -> None:
    """Let the bubble's time pass, then wait until all its other tasks have ended or are durably blocked.

    What they do meanwhile has been done then. The clock stands still for the second step. With another task asleep
    until the same moment, a mere `sleep` leaves open who goes on first.

    seconds: how long to sleep first. Raises RuntimeError outside of a bubble, and when another of its tasks waits for
    the same; ValueError for a negative time. May be cancelled.

    >>> import pygo
    >>> def main():
    ...     seen = []
    ...     pygo.spawn(seen.append, 1)
    ...     settle()
    ...     return seen
    >>> bubble(main)
    [1]
    """
    if not _bubble():
        raise RuntimeError("settle() outside of a bubble")
    if seconds:
        sleep(seconds)
    _settle()
