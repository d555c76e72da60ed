"""Tasks in the shape of `threading.Thread`, with `pygo.sync` beside them, for tests that were written for threads.

`install()` puts them into `threading` itself, for child programs; `module()` is a stand-in for `threading`.
"""

from __future__ import annotations

import itertools
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pygo
from pygo import sync

_numbers = itertools.count(1)
_current_thread = threading.current_thread
_stack_size = 0


class Thread:
    """Started it is a task; `daemon` is only remembered, for all tasks end with the program."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        assert group is None
        self._target = target
        self._args, self._kwargs = args, dict(kwargs or {})
        self.name = name or f"Thread-{next(_numbers)}"
        self.daemon = bool(daemon)
        self.task: pygo.Task[None] | None = None

    def __repr__(self) -> str:
        state = (
            "initial" if self.task is None else f"started {self.ident}" if self.is_alive() else f"stopped {self.ident}"
        )
        return f"<{type(self).__name__}({self.name}, {state})>"

    def start(self) -> None:
        if self.task is not None:
            raise RuntimeError("threads can only be started once")
        self.task = pygo.Task(self._run, name=self.name, stack_size=_stack_size or None)

    def _run(self) -> None:
        try:
            self.run()
        except SystemExit:  # ends a thread silently, and of a task the program
            pass

    def run(self) -> None:
        try:
            if self._target is not None:
                self._target(*self._args, **self._kwargs)
        finally:
            del self._target, self._args, self._kwargs

    def join(self, timeout: float | None = None) -> None:
        if self.task is None:
            raise RuntimeError("cannot join thread before it is started")
        if self.task is pygo.current_task():
            self.task.join()  # the runtime refuses that
        pygo.wait([self.task], timeout=None if timeout is None else max(timeout, 0))

    def is_alive(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def ident(self) -> int | None:
        return None if self.task is None else self.task.id


class _Running(Thread):
    """For a task that none of the above started."""

    def __init__(self, task: pygo.Task[Any]) -> None:
        super().__init__(name=task.name)
        self.task = task


def current_thread() -> Any:
    task = pygo.current_task()
    return _current_thread() if task is None else _Running(task)


def stack_size(size: int = 0) -> int:
    global _stack_size
    before, _stack_size = _stack_size, size
    return before


STAND_INS: dict[str, Any] = {
    "Thread": Thread,
    "current_thread": current_thread,
    "enumerate": pygo.all_tasks,
    "stack_size": stack_size,
    **{name: getattr(sync, name) for name in ("Lock", "RLock", "Condition", "Event", "Barrier")},
    **{name: getattr(sync, name) for name in ("Semaphore", "BoundedSemaphore")},
}


class _Threading(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "get_native_id":  # tasks share the threads of the system
            raise AttributeError(name)
        return getattr(threading, name)


def module() -> types.ModuleType:
    """`threading` with tasks in place of threads."""
    stand_in = _Threading("threading")
    vars(stand_in).update(STAND_INS)
    return stand_in


def install() -> None:
    """Put them into `threading`, in a program of its own."""
    vars(threading).update(STAND_INS)
