"""How tasks are shown to people: stacks, dumps, the report of a failure nobody looked at."""

from __future__ import annotations

import sys
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pygo._native import Task


def _summary(frames: list[FrameType]) -> traceback.StackSummary:
    return traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)


def print_stack(task: Task[Any], file: TextIO | None = None) -> None:
    """Print one task's stack; what `Task.print_stack` does."""
    out = sys.stderr if file is None else file
    frames = task.frames()
    if not frames:
        print(f"No stack for {task!r}", file=out)
        return
    print(f"Stack for {task!r} (most recent call last):", file=out)
    print("".join(_summary(frames).format()), end="", file=out)


def spawned_at(task: Task[Any]) -> str:
    """Where the task was spawned, in words."""
    place = task._spawned_at
    return "at an unknown place" if place is None else f'at file "{place[0]}", line {place[1]}'


def excepthook(task: Task[Any], exc: BaseException) -> None:
    """Called once with an exception that left a task and that nobody joined. Replace `pygo.excepthook` to change it.

    task: the ended Task. exc: its exception. Prints the traceback with the task's name and where it was spawned.
    """
    if sys.stderr is None:
        return
    lines = "".join(traceback.format_exception(exc))
    print(f"Exception in task {task.name!r}, spawned {spawned_at(task)}:\n{lines}", end="", file=sys.stderr)


def describe(task: Task[Any], now: float) -> str:
    """One task for a dump: a line on its state and wait, then its stack."""
    line = f"task {task.id} {task.name!r} {task.state}"
    waiting, since = task.waiting_on, task._waiting_since
    if waiting is not None:
        objects = ", ".join(map(repr, waiting.objects))
        line += f" in {waiting.reason}" + (f" on {objects}" if objects else "")
        if since is not None:
            line += f" for {max(0.0, now - since):.3f} s"
    stack = "".join(_summary(task.frames()).format())
    return f"{line}, spawned {spawned_at(task)}\n{stack}"


def dump(tasks: list[Task[Any]], file: TextIO | None = None) -> None:
    """Print all of `tasks`."""
    out = sys.stderr if file is None else file
    now = time.monotonic()
    print(f"{len(tasks)} tasks", file=out)
    for task in tasks:
        print(describe(task, now), end="", file=out)
