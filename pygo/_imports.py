"""Makes the import system tell tasks apart, and tell the runtime of extension modules.

importlib's module locks know their owner by `_thread.get_ident()`. Two tasks on one OS thread would be one owner: the
second to import a module would get it half-built. And a task that waits for another's import would block the OS thread
on which that other one may have to go on. So importlib gets a `_thread` of its own, with an ident per task and with
locks that let the task wait. Ordinary threads see what they always saw.
"""

from __future__ import annotations

import _imp
import _thread
import importlib._bootstrap
import importlib._bootstrap_external
import sys
from typing import Any

from pygo._extension import native


class _Lock:
    """A lock that tasks wait for as tasks: a channel with one place, taken by the holder."""

    __slots__ = ("_place",)

    def __init__(self) -> None:
        self._place = native._made_in(0, native.Channel, 1)  # whoever imports waits, in bubbles and outside

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking:
            return bool(self._place.try_send(None))
        try:
            self._place.send(None, timeout=None if timeout < 0 else timeout)
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        if not self._place.try_recv()[1]:
            raise RuntimeError("release unlocked lock")

    def locked(self) -> bool:
        return len(self._place) == 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


class _TaskThread:
    """`_thread` as importlib is to see it."""

    get_ident = staticmethod(native._get_ident)
    allocate_lock = _Lock

    def __getattr__(self, name: str) -> Any:
        return getattr(_thread, name)


class _RLock:
    """A reentrant lock owned by a task; importlib guards a module lock's own fields with one (3.12 and later)."""

    __slots__ = ("_count", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = _Lock()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = native._get_ident()
        if self._owner != me:
            if not self._lock.acquire(blocking, timeout):
                return False
            self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        if self._owner != native._get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if self._count == 0:
            self._owner = None
            self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


_TaskThread.RLock = _RLock  # type: ignore[attr-defined]


class _Extensions:
    """`_imp` as importlib is to see it: the runtime hears of each extension module."""

    @staticmethod
    def exec_dynamic(module: Any) -> int:
        outcome = _imp.exec_dynamic(module)
        native._extension_loaded(module)
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(_imp, name)


def install() -> None:
    """Called once, at the import of pygo."""
    bootstrap: Any = importlib._bootstrap
    bootstrap._thread = _TaskThread()
    external: Any = importlib._bootstrap_external
    external._imp = _Extensions()
    if (loaded := sys.modules.get("greenlet._greenlet")) is not None:
        native._extension_loaded(loaded)
