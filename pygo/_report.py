"""How tasks are shown to people: stacks, dumps, the report of a failure nobody looked at.

A stack comes from the native code as a flat tuple (file name, line, function, file name, ...), so that no frame of
another task is held here and equal stacks are formatted once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pygo._native import Task

Stack = tuple[Any, ...]

CHUNK = 256  # tasks per write
HERE = os.path.dirname(__file__)


def format_stack(stack: Stack) -> str:
    """The lines of a traceback, without its heading."""
    frames = [(stack[i], stack[i + 1], stack[i + 2], None) for i in range(0, len(stack), 3)]
    import traceback  # heavy, and seldom needed

    return "".join(traceback.StackSummary.from_list(frames).format())


def print_stack(task: Task[Any], file: TextIO | None = None) -> None:
    """Print one task's stack; what `Task.print_stack` does."""
    out = sys.stderr if file is None else file
    stack = task._snapshot()[3]
    if not stack:
        print(f"No stack for {task!r}", file=out)
        return
    print(f"Stack for {task!r} (most recent call last):", file=out)
    print(format_stack(stack), end="", file=out)


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
    import traceback  # heavy, and seldom needed

    lines = "".join(traceback.format_exception(exc))
    print(f"Exception in task {task.name!r}, spawned {spawned_at(task)}:\n{lines}", end="", file=sys.stderr)


class _Formatter:
    """Formats each distinct stack once."""

    def __init__(self) -> None:
        self._known: dict[Stack, str] = {}

    def __call__(self, stack: Stack) -> str:
        text = self._known.get(stack)
        if text is None:
            text = self._known[stack] = format_stack(stack)
        return text


def describe(task: Task[Any], now: float, formatted: Callable[[Stack], str] = format_stack) -> str:
    """One task for a dump: a line on its state and wait, then its stack. `now`: time.monotonic()."""
    state, waiting, since, stack = task._snapshot()
    line = f"task {task.id} {task.name!r} {state}"
    if waiting is not None:
        objects = ", ".join(map(repr, waiting.objects))
        line += f" in {waiting.reason}" + (f" on {objects}" if objects else "")
    if since is not None:
        line += f" for {max(0.0, now - since):.3f} s"
    return f"{line}, spawned {spawned_at(task)}\n{formatted(stack)}"


class OwnThread(threading.Thread):
    """One that pygo started for itself, which is in no dump."""


def _ordinary_threads() -> Iterator[threading.Thread]:
    """Those that the program started, and the main one. A lock that its holder may need to go on is not waited for."""
    for thread in list(threading._active.values()):  # type: ignore[attr-defined]  # what enumerate() copies under a lock
        if not isinstance(thread, (threading._DummyThread, OwnThread)):  # workers look like the former from tasks
            yield thread


def _describe_threads(formatted: Callable[[Stack], str]) -> Iterator[str]:
    from pygo._native import _stack_of_thread

    for thread in _ordinary_threads():
        stack = _stack_of_thread(thread.ident or 0)
        while stack and os.path.dirname(stack[-3]) == HERE:
            stack = stack[:-3]  # the one that makes this dump
        if stack:
            yield f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}\n{formatted(stack)}"


def dump(tasks: Iterable[Task[Any]], file: TextIO | None = None) -> None:
    """Print all of `tasks`, then the ordinary threads."""
    out = sys.stderr if file is None else file
    if out is None:
        return
    formatted, now, lines = _Formatter(), time.monotonic(), []
    tasks = list(tasks)
    out.write(f"{len(tasks)} tasks\n")
    for number, task in enumerate(tasks, 1):
        lines.append(describe(task, now, formatted))
        if number % CHUNK == 0:
            out.write("".join(lines))
            lines.clear()
    lines.extend(_describe_threads(formatted))
    out.write("".join(lines))
    out.flush()
