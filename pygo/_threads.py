"""Tasks and their OS threads."""

from __future__ import annotations

from types import TracebackType

from pygo._native import _pin, _unpin


class lock_thread:  # noqa: N801 - used like a function, as contextlib's managers are
    """Context manager: the running task stays on its OS thread, and no other task runs there. Go's LockOSThread.

    For libraries that keep state per OS thread. May be nested; in an ordinary thread it does nothing. Never waits.

    >>> with lock_thread():
    ...     pass
    """

    def __enter__(self) -> None:
        self._pinned = _pin()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pinned:
            _unpin()
