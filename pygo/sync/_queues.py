"""Queue, LifoQueue, PriorityQueue, SimpleQueue."""

from __future__ import annotations

import heapq
import queue
from collections import deque
from typing import Any, Generic, TypeVar

from pygo._native import Semaphore, _mutex, _now
from pygo.sync._condition import Condition

_T = TypeVar("_T")

Empty, Full = queue.Empty, queue.Full


class _ShutDown(Exception):
    """Raised by put() and get() of a queue that has been shut down."""


_ShutDown.__name__ = _ShutDown.__qualname__ = "ShutDown"
_ShutDown.__module__ = "pygo.sync"
ShutDown: type[Exception] = getattr(queue, "ShutDown", _ShutDown)  # the standard one is there since Python 3.13


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return _now() + timeout


class Queue(Generic[_T]):
    """A queue, first in, first out, with the interface of `queue.Queue`, for tasks and threads alike.

    maxsize: how many items it holds; 0 or less: any number.

    Subclasses may override `_init`, `_qsize`, `_put` and `_get`, which are called one at a time.

    >>> from pygo import spawn
    >>> jobs = Queue(maxsize=2)
    >>> def produce():
    ...     for number in range(4):
    ...         jobs.put(number)
    >>> task = spawn(produce)
    >>> [jobs.get() for _ in range(4)]
    [0, 1, 2, 3]
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._init(maxsize)
        self.mutex = _mutex()
        self.not_empty = Condition(self.mutex)
        self.not_full = Condition(self.mutex)
        self.all_tasks_done = Condition(self.mutex)
        self.unfinished_tasks = 0
        self.is_shutdown = False

    def __repr__(self) -> str:
        name, state = type(self).__qualname__, ", shut down" if self.is_shutdown else ""
        return f"<sync.{name} at {id(self):#x}: {self._qsize()} items, maxsize={self.maxsize}{state}>"

    # ---- what a subclass may override ----

    def _init(self, maxsize: int) -> None:
        self.queue: Any = deque()

    def _qsize(self) -> int:
        return len(self.queue)

    def _put(self, item: _T) -> None:
        self.queue.append(item)

    def _get(self) -> _T:
        item: _T = self.queue.popleft()
        return item

    # ---- for everybody ----

    def qsize(self) -> int:
        """How many items it holds now."""
        with self.mutex:
            return self._qsize()

    def empty(self) -> bool:
        """Whether it holds no item now."""
        with self.mutex:
            return not self._qsize()

    def full(self) -> bool:
        """Whether it holds as many items as it can now."""
        with self.mutex:
            return 0 < self.maxsize <= self._qsize()

    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, waiting for room.

        block: False tries once. timeout: seconds; None: for ever. Raises Full when there is no room (in time), ShutDown
        after shutdown() (also while waiting), ValueError for a negative timeout. From tasks and any thread.
        """
        with self.mutex:
            if self.is_shutdown:
                raise ShutDown
            if self.maxsize > 0:
                self._wait_for_room(block, timeout)
            try:
                self._put(item)
            except BaseException:
                self.not_full.notify()  # the room that this one was told of is still there
                raise
            self.unfinished_tasks += 1
            self.not_empty.notify()

    def _wait_for_room(self, block: bool, timeout: float | None) -> None:
        if not block:
            if self._qsize() >= self.maxsize:
                raise Full
            return
        deadline = _deadline(timeout)
        while self._qsize() >= self.maxsize:
            if not self._wait(self.not_full, deadline):
                raise Full
            if self.is_shutdown:
                raise ShutDown

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Take the next item out, waiting for one.

        block: False tries once. timeout: seconds; None: for ever. Raises Empty when there is none (in time), ShutDown
        after shutdown() when it is empty, ValueError for a negative timeout. From tasks and any thread.
        """
        with self.mutex:
            self._wait_for_item(block, timeout)
            try:
                item = self._get()
            except BaseException:
                self.not_empty.notify()  # the item that this one was told of is still there
                raise
            self.not_full.notify()
            return item

    def _wait_for_item(self, block: bool, timeout: float | None) -> None:
        deadline = _deadline(timeout) if block else None
        while not self._qsize():
            if self.is_shutdown:
                raise ShutDown
            if not block or not self._wait(self.not_empty, deadline):
                raise Empty

    @staticmethod
    def _wait(condition: Condition, deadline: float | None) -> bool:
        """False when the time has passed; else the caller looks again."""
        if deadline is None:
            return condition.wait()
        left = deadline - _now()
        if left <= 0:
            return False
        condition.wait(left)
        return True

    def put_nowait(self, item: _T) -> None:
        """put(item, block=False)"""
        self.put(item, block=False)

    def get_nowait(self) -> _T:
        """get(block=False)"""
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that an item which was taken out has been dealt with, for `join`. Never waits.

        Raises ValueError when there were no more items than that.
        """
        with self.all_tasks_done:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self.all_tasks_done.notify_all()

    def join(self) -> None:
        """Wait until every item that was put in has been dealt with (`task_done`)."""
        with self.all_tasks_done:
            while self.unfinished_tasks:
                self.all_tasks_done.wait()

    def shutdown(self, immediate: bool = False) -> None:
        """Let put() raise ShutDown from now on, and get() too once the queue is empty. Never waits.

        immediate: drop the items that are left, which then count as dealt with.
        """
        with self.mutex:
            self.is_shutdown = True
            if immediate:
                while self._qsize():
                    self._get()
                    if self.unfinished_tasks > 0:
                        self.unfinished_tasks -= 1
                self.all_tasks_done.notify_all()
            self.not_empty.notify_all()
            self.not_full.notify_all()


class LifoQueue(Queue[_T]):
    """A `Queue` that gives out what was put in last.

    >>> stack = LifoQueue()
    >>> stack.put(1), stack.put(2), stack.get()
    (None, None, 2)
    """

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _get(self) -> _T:
        item: _T = self.queue.pop()
        return item


class PriorityQueue(Queue[_T]):
    """A `Queue` that gives out the least item first.

    >>> queue = PriorityQueue()
    >>> queue.put((2, "later")), queue.put((1, "now")), queue.get()
    (None, None, (1, 'now'))
    """

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _put(self, item: _T) -> None:
        heapq.heappush(self.queue, item)

    def _get(self) -> _T:
        item: _T = heapq.heappop(self.queue)
        return item


class SimpleQueue(Generic[_T]):
    """An unbounded queue, first in, first out, with the interface of `queue.SimpleQueue`: quicker, and no task_done.

    `put` may be called at any time, in a destructor or signal handler too. Items go to getters in the order of coming.

    >>> queue = SimpleQueue()
    >>> queue.put("a")
    >>> queue.get()
    'a'
    """

    def __init__(self) -> None:
        self._items: deque[_T] = deque()
        self._count = Semaphore(0)  # items that nobody has been promised

    def __repr__(self) -> str:
        return f"<sync.{type(self).__qualname__} at {id(self):#x}: {len(self._items)} items>"

    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; never waits. block and timeout are there for the likeness to `Queue`."""
        self._items.append(item)
        self._count.release()

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Take the next item out, waiting for one.

        block: False tries once. timeout: seconds; None: for ever. Raises Empty when there is none (in time), ValueError
        for a negative timeout. From tasks and any thread.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not (self._count.acquire(True, timeout) if block else self._count.acquire(False)):
            raise Empty
        return self._items.popleft()

    def put_nowait(self, item: _T) -> None:
        """put(item)"""
        self.put(item)

    def get_nowait(self) -> _T:
        """get(block=False)"""
        return self.get(block=False)

    def empty(self) -> bool:
        """Whether it holds no item now."""
        return not self._items

    def qsize(self) -> int:
        """How many items it holds now."""
        return len(self._items)
