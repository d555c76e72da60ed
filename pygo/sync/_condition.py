"""Condition."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from pygo._native import Event, RLock, _birthplace, _made_in, _now

_T = TypeVar("_T")


class Condition:
    """A condition variable, like `threading.Condition`, for tasks and threads alike.

    lock: a `Lock` or `RLock` of `pygo.sync` (also `threading`'s, which keeps an OS thread while a task waits for it);
    None: a new `RLock`.

    Waiters are notified in the order of their coming. A waiter that is cancelled or times out in the same instant does
    not take a notification with it: it reports that it was notified, or lets the next one have it. Cancellation waits
    until the lock is taken again, so `wait` always ends with the lock held.

    >>> from pygo import spawn
    >>> ready, items = Condition(), []
    >>> def take():
    ...     with ready:
    ...         ready.wait_for(lambda: items)
    ...         return items.pop()
    >>> task = spawn(take)
    >>> with ready:
    ...     items.append("a")
    ...     ready.notify()
    >>> task.join()
    'a'
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._birthplace = _birthplace()
        # In the order of coming. Its operations are single steps of the interpreter, with or without the lock.
        self._waiters: OrderedDict[Event, None] = OrderedDict()

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        """Take the lock: its own `acquire`."""
        return bool(self._lock.acquire(*args, **kwargs))

    def release(self) -> None:
        """Release the lock: its own `release`."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody holds the lock."""
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, value, traceback)

    def __repr__(self) -> str:
        return f"<sync.Condition({self._lock!r}, {len(self._waiters)}) at {id(self):#x}>"

    def _is_owned(self) -> bool:
        try:
            return bool(self._lock._is_owned())
        except AttributeError:  # a lock of threading's
            if self._lock.acquire(False):
                self._lock.release()
                return False
            return True

    def _release_save(self) -> Any:
        try:
            release_save = self._lock._release_save
        except AttributeError:
            return self._lock.release()
        return release_save()

    def _acquire_restore(self, saved: Any) -> None:
        try:
            acquire_restore = self._lock._acquire_restore
        except AttributeError:
            self._lock.acquire()
            return
        acquire_restore(saved)

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._waiters.clear()

    def _withdraw(self, waiter: Event) -> bool:
        """False if the waiter has been notified."""
        try:
            del self._waiters[waiter]
        except KeyError:
            return False
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait to be notified, take the lock again. Return False when the time has passed first.

        timeout: seconds; None: for ever. Raises RuntimeError if the caller does not hold the lock.
        """
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter: Event = _made_in(self._birthplace, Event)
        self._waiters[waiter] = None
        saved = self._release_save()
        try:
            notified = waiter.wait(timeout) or not self._withdraw(waiter)
        except BaseException:
            if not self._withdraw(waiter):
                self._notify(1)
            self._acquire_restore(saved)
            raise
        self._acquire_restore(saved)
        return notified

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until `predicate()` is true; return its last value, which is false when the time has passed first.

        timeout: seconds in all; None: for ever. The predicate is called with the lock held. Raises RuntimeError if the
        caller does not hold the lock.
        """
        deadline = None if timeout is None else _now() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - _now()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def _notify(self, count: int) -> None:
        waiters = self._waiters
        for _ in range(min(count, len(waiters))):
            try:
                waiter, _none = waiters.popitem(last=False)
            except KeyError:  # the last one has withdrawn meanwhile
                return
            waiter.set()

    def notify(self, n: int = 1) -> None:
        """Wake up to n waiters, those who came first. Raises RuntimeError if the caller does not hold the lock."""
        if not self._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        self._notify(n)

    def notify_all(self) -> None:
        """Wake all waiters. Raises RuntimeError if the caller does not hold the lock."""
        self.notify(len(self._waiters))
