"""Once and SingleFlight."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from pygo._native import Event, RLock, _mutex

_K = TypeVar("_K", bound=Hashable)
_P = ParamSpec("_P")


class Once:
    """Does something once, whoever comes first. After Go's sync.Once.

    >>> once = Once()
    >>> for name in "ab":
    ...     once.do(lambda: print("set up by", name))
    set up by a
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._done = False

    def __repr__(self) -> str:
        state = "done" if self._done else "running" if self._lock.locked() else "not done"
        return f"<sync.Once at {id(self):#x}: {state}>"

    def do(self, fn: Callable[[], object]) -> None:
        """Call `fn()` if nothing has been done yet. Return when it has been done, by whomever.

        If fn raises, that goes to its caller alone, and the thing counts as done. Calls that come meanwhile wait, as a
        task if they are in one. Raises RuntimeError when fn itself calls `do`, which could never end.
        """
        if self._done:
            return
        if self._lock._is_owned():
            raise RuntimeError("Once.do() from within the function that it calls")
        with self._lock:
            self._do_now(fn)

    def _do_now(self, fn: Callable[[], object]) -> None:
        if self._done:  # by the one who held the lock before
            return
        try:
            fn()
        finally:
            self._done = True


class Flight(NamedTuple):
    """What `SingleFlight.do` returns: the function's result, and whether several callers got it."""

    value: Any
    shared: bool


class _Call:
    __slots__ = ("abandoned", "error", "over", "sharers", "value")

    def __init__(self) -> None:
        self.over = Event()
        self.value: Any = None
        self.error: Exception | None = None
        self.abandoned = False
        self.sharers = 0


class SingleFlight(Generic[_K]):
    """Lets callers who want the same at the same time share one call. After Go's x/sync/singleflight.

    >>> flights = SingleFlight()
    >>> flights.do("answer", lambda: 42)
    Flight(value=42, shared=False)
    """

    def __init__(self) -> None:
        self._mutex = _mutex()
        self._calls: dict[_K, _Call] = {}

    def __repr__(self) -> str:
        return f"<sync.SingleFlight at {id(self):#x}: {len(self._calls)} in flight>"

    def do(self, key: _K, fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Flight:
        """Return the result of `fn(*args, **kwargs)`, or that of a call with the same key that is under way.

        An exception of the call is raised in all who share it. If its caller is cancelled, or is ended by any other
        exception that is no `Exception`, that is its own affair: those who shared it then call for themselves.
        fn must not call `do` with the same key. Waits as a task if in one.
        """
        while True:
            with self._mutex:
                leads = key not in self._calls
                call = self._calls.setdefault(key, _Call())
                call.sharers += not leads
            if leads:
                return self._fly(key, call, lambda: fn(*args, **kwargs))
            call.over.wait()
            if call.abandoned:
                continue
            if call.error is None:
                return Flight(call.value, True)
            try:
                raise call.error
            finally:
                del call  # the exception refers to this frame

    def _fly(self, key: _K, call: _Call, fn: Callable[[], object]) -> Flight:
        try:
            try:
                call.value = fn()
            except Exception as error:
                call.error = error
                raise
            except BaseException:
                call.abandoned = True
                raise
            finally:
                with self._mutex:
                    if self._calls.get(key) is call:
                        del self._calls[key]
                call.over.set()
            return Flight(call.value, call.sharers > 0)
        finally:
            del call  # likewise

    def forget(self, key: _K) -> None:
        """Let the next `do` with this key make a call of its own, although one may be under way. Never waits."""
        with self._mutex:
            self._calls.pop(key, None)
