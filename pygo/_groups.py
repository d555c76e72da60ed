"""TaskGroup: tasks that end together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from pygo._errors import Cancelled
from pygo._native import Channel, Task, WaitGroup, _cancel_group, _group_scope, shield

_P = ParamSpec("_P")
_R = TypeVar("_R")


class TaskGroup:
    """A block that ends when all tasks spawned in it have ended (structured concurrency, as trio's nurseries).

    The first failure, of a task or of the block itself, cancels everything else in the group; what failed is raised as
    an `ExceptionGroup` when all have ended. Cancelling the task that runs the block cancels the group's tasks, too.

    limit: how many of its tasks may be unfinished at once; `spawn` then waits for a free place. `None`: no limit.

    >>> with TaskGroup() as tg:
    ...     squares = [tg.spawn(pow, n, 2) for n in range(4)]
    >>> [task.result() for task in squares]
    [0, 1, 4, 9]
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self._places = None if limit is None else Channel[None](_checked_limit(limit))
        self._tasks = WaitGroup()
        self._scope = _group_scope()
        self._failures: list[BaseException] = []
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("a TaskGroup can be entered once")
        try:
            self._scope.__enter__()
        except BaseException:  # Ctrl-C when it had been entered already, or no memory for it
            with suppress(RuntimeError):
                self._scope.__exit__(None, None, None)
            raise
        self._tasks._on_failure = self._child_failed
        self._state = "open"
        return self

    def spawn(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Task[_R]:
        """Schedule fn(*args, **kwargs) as a task of the group. Waits only where the group has a limit.

        In a cancelled group the task is cancelled before it can begin. Raises `RuntimeError` outside of the block.
        """
        self._check_open()
        if self._places is not None:
            self._places.send(None)
            try:
                self._check_open()  # it may have ended while we waited
                task = self._tasks.go(fn, *args, **kwargs)
            except BaseException:
                self._places.try_recv()
                raise
            task.add_done_callback(self._free_place)
        else:
            task = self._tasks.go(fn, *args, **kwargs)
        if self._scope.expired:
            task.cancel()
        return task

    def cancel(self) -> None:
        """Cancel the group's tasks, and the waits of its block. The block then ends without an exception of its own."""
        self._scope.cancel()
        _cancel_group(self._tasks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        ending, cancelled_itself = error, False
        try:
            try:  # the main thread can be interrupted between any two steps
                if error is not None:
                    if not isinstance(error, (Cancelled, *_ENDS_THE_PROGRAM)):
                        self._failures.append(error)
                    self.cancel()
                try:
                    self._tasks.wait()
                except BaseException as interruption:  # Cancelled, or Ctrl-C in the main thread
                    self.cancel()
                    with shield():
                        self._tasks.wait()
                    if ending is None or not isinstance(interruption, Cancelled):
                        ending = interruption
            except BaseException:  # interrupted once more: leave what has not ended behind
                self.cancel()
                raise
            finally:
                self._state = "over"
                del self._tasks._on_failure  # which refers to the group
                cancelled_itself = self._scope.__exit__(None, ending, None)
            return self._outcome(error, ending, cancelled_itself)
        finally:
            error = ending = None  # they refer to this frame

    def _outcome(self, error: BaseException | None, ending: BaseException | None, cancelled_itself: bool) -> bool:
        """Raise what the group comes to; or whether the block's own exception, if any, ends here."""
        failures, self._failures = self._failures, []
        try:
            if isinstance(ending, _ENDS_THE_PROGRAM):
                if ending is error:
                    return False
                raise ending
            if failures:
                raise BaseExceptionGroup("unhandled errors in a TaskGroup", failures) from None
            if ending is not None and ending is not error and not cancelled_itself:
                raise ending
            return cancelled_itself
        finally:
            del failures, error, ending  # likewise

    def _check_open(self) -> None:
        if self._state != "open":
            raise RuntimeError(f"tasks are spawned inside the TaskGroup's block; it is {self._state}")

    def _child_failed(self, task: Task[Any], error: BaseException) -> None:
        self._failures.append(error)
        self.cancel()

    def _free_place(self, task: Task[Any]) -> None:
        assert self._places is not None
        self._places.try_recv()

    def __repr__(self) -> str:
        return f"<pygo.TaskGroup at {id(self):#x} {self._state}>"


_ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit)


def _checked_limit(limit: int) -> int:
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be an integer or None, not {type(limit).__name__}")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return limit
