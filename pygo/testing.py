"""Helpers for tests of concurrent programs: waiting until others wait, schedules that can be repeated, leak checks.

`pytest` finds the fixtures `pygo_leak_check` and `pygo_seed`, and the option `--pygo-seed`, by itself once pygo is
installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pygo import _extension, runtime
from pygo._native import Channel, RecvChannel, SendChannel, Task, all_tasks, current_task, sleep, yield_now

_GENEROUS = 30.0  # seconds: longer than any correct wait takes on a busy machine


def _poll(is_so: Callable[[], bool], timeout: float, what: Callable[[], str]) -> None:
    """Let others run until `is_so`. Raises `TimeoutError` with what() after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.0
    while not is_so():
        if time.monotonic() >= deadline:
            raise TimeoutError(what())
        if current_task() is not None:
            yield_now()
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
