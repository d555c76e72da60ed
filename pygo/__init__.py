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
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from pygo import _extension as _extension  # loads the native module, or says why it can not
from pygo import _imports, runtime
from pygo._errors import Cancelled, ChannelClosed, DeadlockError, Error, Selected, TaskCancelled
from pygo._native import (
    Case,
    Channel,
    RecvChannel,
    SendChannel,
    Task,
    Ticker,
    Timer,
    WaitGroup,
    _after_fork_in_child,
    _after_fork_in_parent,
    _at_exit,
    _before_fork,
    _claim_process,
    after,
    all_tasks,
    call_on_stack,
    current_task,
    exit_task,
    recv,
    select,
    send,
    sleep,
    spawn,
    yield_now,
)
from pygo._report import excepthook
from pygo._threads import lock_thread

if _TYPE_CHECKING:
    from pygo import context

__version__ = "0.1.0"

go = spawn

__all__ = [
    "Cancelled",
    "Case",
    "Channel",
    "ChannelClosed",
    "DeadlockError",
    "Error",
    "RecvChannel",
    "Selected",
    "SendChannel",
    "Task",
    "TaskCancelled",
    "Ticker",
    "Timer",
    "WaitGroup",
    "after",
    "all_tasks",
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
    "sleep",
    "spawn",
    "yield_now",
]


def __getattr__(name: str) -> _Any:
    """Import at their first use the submodules that many programs do not need."""
    if name == "context":
        return _import_module("pygo.context")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _workers_from_environment() -> None:
    text = _os.environ.get("PYGO_WORKERS")
    if not text:
        return
    try:
        runtime.set_workers(int(text))
    except ValueError:
        raise ImportError(f"PYGO_WORKERS must be a number from 1 to 256, not {text!r}") from None


_workers_from_environment()
if _claim_process():
    _imports.install()
    _atexit.register(_at_exit)
    _os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
