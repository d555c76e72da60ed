"""Future, wait, as_completed, to_thread: results that come from elsewhere, and waiting for several."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, ParamSpec, Self, TypeVar

from pygo._errors import Error
from pygo._native import Channel, Task, WaitGroup, _birthplace, _bubble, _made_in, _now

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_T = TypeVar("_T")
_R = TypeVar("_R")
_P = ParamSpec("_P")

# The values of concurrent.futures, whose import would cost more than all of this package.
FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"


class Future(Generic[_T]):
    """A value that is set once and waited for by any number of tasks and threads.

    >>> future = Future[int]()
    >>> future.set_result(42)
    >>> future.result()
    42
    """

    __slots__ = ("__weakref__", "_callbacks", "_outcome", "_set")

    def __init__(self) -> None:
        self._outcome: dict[str, tuple[_T | None, BaseException | None]] = {}
        self._callbacks: list[Callable[[Future[_T]], object]] = []
        self._set = WaitGroup()
        self._set.add()

    def set_result(self, value: _T) -> None:
        """Give the future its value. Never waits. Raises `Error` if it has one, or an exception, already."""
        self._settle((value, None))

    def set_exception(self, error: BaseException) -> None:
        """Let `result` raise `error` (an instance). Never waits. Raises `Error` if the future is set already."""
        if not isinstance(error, BaseException):
            raise TypeError(f"an exception instance is needed, not {type(error).__name__}")
        self._settle((None, error))

    def _settle(self, outcome: tuple[_T | None, BaseException | None]) -> None:
        if self._bubble not in (0, _bubble()):
            raise RuntimeError("a future that belongs to a bubble is set from outside of it")
        if self._outcome.setdefault("it", outcome) is not outcome:  # atomic: one of several setters wins
            raise Error("the future has been set already")
        self._set.done()
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread has taken the last
                return
            _call_back(callback, self)

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the value, or raise the exception. timeout: seconds; raises `TimeoutError`."""
        self._wait(timeout)
        value, error = self._outcome["it"]
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle through this frame
        return value  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until the future is set; return its exception, or None. timeout: seconds; raises `TimeoutError`."""
        self._wait(timeout)
        return self._outcome["it"][1]

    def _wait(self, timeout: float | None) -> None:
        try:
            self._set.wait(timeout)
        except TimeoutError:
            raise TimeoutError("the future was not set in time") from None

    @property
    def _bubble(self) -> int:
        return self._set._bubble

    def done(self) -> bool:
        """Whether it has been set. Never waits."""
        return bool(self._outcome)

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        """Call fn(future) when it is set, in the setter's place; at once if it is.

        An exception of fn goes to sys.unraisablehook.
        """
        if not callable(fn):
            raise TypeError(f"a callback must be callable, not {type(fn).__name__}")
        self._callbacks.append(fn)
        if self._outcome:
            self._run_callbacks()

    def remove_done_callback(self, fn: Callable[[Future[_T]], object]) -> int:
        """Take callbacks equal to fn away again; returns how many. Those already called are not counted."""
        removed = 0
        while True:
            try:
                self._callbacks.remove(fn)
            except ValueError:
                return removed
            removed += 1

    def __repr__(self) -> str:
        state = "pending"
        if self._outcome:
            _, error = self._outcome["it"]
            state = "done" if error is None else f"failed with {type(error).__name__}"
        return f"<pygo.Future at {id(self):#x} {state}>"


def _call_back(callback: Callable[[Any], object], argument: object) -> None:
    try:
        callback(argument)
    except BaseException as error:
        import sys
        from types import SimpleNamespace

        hook: Any = sys.unraisablehook
        hook(
            SimpleNamespace(
                exc_type=type(error),
                exc_value=error,
                exc_traceback=error.__traceback__,
                err_msg="Exception in a callback of a future",
                object=callback,
            )
        )


_Awaitable = Task[Any] | Future[Any]


class DoneAndNotDone(NamedTuple):
    """What `wait` returns: two sets."""

    done: set[Any]
    not_done: set[Any]


class _Arrivals:
    """A channel on which each of some tasks and futures appears once, when it is done."""

    def __init__(self, awaited: set[_Awaitable]) -> None:
        self._awaited = awaited
        here = _birthplace()
        places = {one._bubble for one in awaited}
        self.channel: Channel[Any] = _made_in(here if places <= {here} else 0, Channel, max(1, len(awaited)))

    def _arrive(self, one: _Awaitable) -> None:
        self.channel.try_send(one)  # there is room for all of them

    def __enter__(self) -> Self:
        for one in self._awaited:
            one.add_done_callback(self._arrive)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._awaited:
            one.remove_done_callback(self._arrive)


def _checked(awaited: Iterable[Any]) -> set[Any]:
    chosen = set(awaited)
    for one in chosen:
        if not isinstance(one, (Task, Future)):
            raise TypeError(f"tasks and futures can be waited for, not {type(one).__name__}")
    return chosen


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"a time must be a non-negative number of seconds, not {timeout!r}")
    return _now() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - _now())


def _has_failed(one: _Awaitable) -> bool:
    if isinstance(one, Task):
        return one.cancelled() or one._failed
    return one.exception() is not None


def wait(
    tasks: Iterable[Any],
    timeout: float | None = None,
    return_when: Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"] = "ALL_COMPLETED",
) -> DoneAndNotDone:
    """Wait for tasks and futures, as `concurrent.futures.wait` does.

    timeout: seconds; when it has passed, what is not done is in the second set, and nothing is raised. return_when:
    `FIRST_COMPLETED`, `FIRST_EXCEPTION` (the first that fails or is cancelled, else all), `ALL_COMPLETED`. Raises
    `TypeError` for other objects, `ValueError` for another condition.

    >>> done, not_done = wait([spawn(pow, 2, n) for n in range(3)])
    >>> sorted(task.result() for task in done), not_done
    ([1, 2, 4], set())
    """
    if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        raise ValueError(f"return_when must be FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED, not {return_when!r}")
    awaited = _checked(tasks)
    deadline = _deadline(timeout)
    done = {one for one in awaited if one.done()}
    not_done = awaited - done

    def is_enough() -> bool:
        if not not_done:
            return True
        if return_when == FIRST_COMPLETED:
            return bool(done)
        return return_when == FIRST_EXCEPTION and any(map(_has_failed, done))

    if is_enough():
        return DoneAndNotDone(done, not_done)
    with _Arrivals(not_done) as arrivals:
        while not is_enough():
            try:
                one = arrivals.channel.recv(_left(deadline))
            except TimeoutError:
                break
            done.add(one)
            not_done = not_done - {one}
    return DoneAndNotDone(done, not_done)


def as_completed(tasks: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """Tasks and futures in the order in which they end. The iterator waits.

    timeout: seconds from this call on; then `TimeoutError`. Raises `TypeError` for other objects.

    >>> sorted(task.result() for task in as_completed([spawn(pow, 2, n) for n in range(3)]))
    [1, 2, 4]
    """
    return _as_completed(_checked(tasks), _deadline(timeout))


def _as_completed(awaited: set[Any], deadline: float | None) -> Iterator[Any]:
    with _Arrivals(awaited) as arrivals:
        for ended in range(len(awaited)):
            try:
                yield arrivals.channel.recv(_left(deadline))
            except TimeoutError:
                raise TimeoutError(f"{len(awaited) - ended} of {len(awaited)} did not end in time") from None


_executors: dict[int, ThreadPoolExecutor] = {}  # by process: a fork's child has none of its parent's threads
_import_places: dict[int, Channel[None]] = {}  # likewise


def _helper_threads() -> ThreadPoolExecutor:
    executor = _executors.get(os.getpid())
    if executor is not None:
        return executor
    # One task imports it. In the import the others would wait below C code, and have to go on on the threads that they
    # are on, where meanwhile the calls may block that they are to serve.
    place = _import_places.setdefault(os.getpid(), _made_in(0, Channel[None], 1))
    place.send(None)
    try:
        from concurrent.futures import ThreadPoolExecutor

        fresh = ThreadPoolExecutor(thread_name_prefix="pygo-helper")  # starts no thread before it is used
        return _executors.setdefault(os.getpid(), fresh)
    finally:
        place.try_recv()


def to_thread(fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Run fn(*args, **kwargs) on a helper thread and wait for it; return its result or raise its exception.

    The call sees a copy of the caller's `contextvars`. Cancelling the waiter does not interrupt the call.
    """
    answer: Future[_R] = _made_in(0, Future)  # set from outside, whoever waits
    context = contextvars.copy_context()

    def run() -> None:
        try:
            value = context.run(fn, *args, **kwargs)
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(value)

    _helper_threads().submit(run)
    return answer.result()
