"""Goroutines for Python: tasks, channels, select and wait groups on a work-stealing scheduler.

>>> import pygo
>>> ch = pygo.Channel()
>>> def squares(n):
...     for i in range(n):
...         ch.send(i * i)
...     ch.close()
>>> task = pygo.spawn(squares, 4)
>>> list(ch)
[0, 1, 4, 9]

The runtime starts by itself at the first use.
"""

from __future__ import annotations

import atexit as _atexit
import os as _os
import threading as _threading
from collections.abc import Callable as _Callable
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from pygo import _extension as _extension  # loads the native module, or says why it can not
from pygo import _imports, runtime
from pygo._errors import Cancelled, ChannelClosed, DeadlockError, Error, Selected, TaskCancelled
from pygo._futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Future,
    as_completed,
    to_thread,
    wait,
)
from pygo._groups import TaskGroup
from pygo._native import (
    Case,
    Channel,
    RecvChannel,
    Scope,
    SendChannel,
    Task,
    Ticker,
    Timer,
    WaitGroup,
    _after_fork_in_child,
    _at_exit,
    _claim_process,
    after,
    all_tasks,
    call_on_stack,
    current_task,
    exit_task,
    recv,
    select,
    send,
    shield,
    sleep,
    spawn,
    timeout,
    yield_now,
)
from pygo._report import excepthook
from pygo._threads import lock_thread

if _TYPE_CHECKING:
    from pygo import context, sync

__version__ = "0.1.0"

go = spawn

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Cancelled",
    "Case",
    "Channel",
    "ChannelClosed",
    "DeadlockError",
    "Error",
    "Future",
    "RecvChannel",
    "Scope",
    "Selected",
    "SendChannel",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "Ticker",
    "Timer",
    "WaitGroup",
    "after",
    "all_tasks",
    "as_completed",
    "call_on_stack",
    "context",
    "current_task",
    "excepthook",
    "exit_task",
    "go",
    "lock_thread",
    "recv",
    "runtime",
    "select",
    "send",
    "shield",
    "sleep",
    "spawn",
    "sync",
    "timeout",
    "to_thread",
    "wait",
    "yield_now",
]


_AT_FIRST_USE = {"context", "sync", "testing"}  # many programs need none of them


def __getattr__(name: str) -> _Any:
    if name in _AT_FIRST_USE:
        import importlib

        return importlib.import_module(f"pygo.{name}")
    raise AttributeError(f"module 'pygo' has no attribute {name!r}")


def _from_environment(name: str, kind: _Callable[[str], _Any], use: _Callable[[_Any], object], rule: str) -> None:
    text = _os.environ.get(name)
    if not text:
        return
    try:
        use(kind(text))
    except ValueError:
        raise ImportError(f"{name} must be {rule}, not {text!r}") from None


def _trace(interval: float) -> None:
    if not 0 <= interval < 1e12:
        raise ValueError
    _extension.set_trace(interval / 1000)


_from_environment("PYGO_WORKERS", int, runtime.set_workers, "a number from 1 to 256")
_from_environment("PYGO_SEED", int, _extension.set_seed, "an integer")
_from_environment("PYGO_WATCHDOG", float, runtime.watchdog, "a number of seconds")
_from_environment("PYGO_SCHEDTRACE", float, _trace, "a number of milliseconds")


def _become_main_thread() -> None:
    """In the child of a fork: its thread is the main one, whatever ``threading`` took it for.

    Releases before 3.11.8 and 3.12.2 leave a foreign thread that it has met what it was, and complain at the exit.
    """
    inside: _Any = vars(_threading)
    main = inside["_main_thread"]
    if type(main) is inside["_DummyThread"] and getattr(main, "_tstate_lock", main) is None:
        main.__class__ = inside["_MainThread"]
        main._name, main._daemonic = "MainThread", False
        main._set_tstate_lock()


if _claim_process():
    _imports.install()
    _atexit.register(_at_exit)
    _os.register_at_fork(after_in_child=_after_fork_in_child)
    _os.register_at_fork(after_in_child=_become_main_thread)
