"""Exceptions and small records that the native code shares with the Python layer. Imports nothing of pygo."""

from __future__ import annotations

from typing import Any, NamedTuple


class Error(Exception):
    """Base of pygo's own exceptions."""


class ChannelClosed(Error):
    """The channel is closed: nothing can be sent, or nothing is left to receive, or it was closed twice."""


class DeadlockError(Error):
    """The main thread waits, and nothing can ever wake it. The message holds a dump of all tasks.

    From `pygo.testing.bubble`: the tasks of the bubble wait, and nothing can ever wake them.
    """


class TaskCancelled(Error):
    """From `join` and `result` of a task that was cancelled."""


class Cancelled(BaseException):
    """What a cancelled task itself gets at its waits. Not an `Exception`, so that `except Exception` lets it pass."""


class TaskExit(BaseException):
    """What `exit_task` raises in its task; carries the task's result. Re-raise it when caught."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class Selected(NamedTuple):
    """What `select` did: the case's position, the value received (None for a send), and whether a receive got one."""

    index: int  # type: ignore[assignment]  # hides tuple.index, as the contract names it
    value: Any
    ok: bool


class WaitingOn(NamedTuple):
    """What a task waits for: a reason in words, and the objects (channels, a task, a wait group)."""

    reason: str
    objects: tuple[Any, ...]


for _public in (Error, ChannelClosed, DeadlockError, TaskCancelled, Cancelled, Selected):
    _public.__module__ = "pygo"
