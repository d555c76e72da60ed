"""Barrier."""

from __future__ import annotations

import enum
from collections.abc import Callable
from threading import BrokenBarrierError

from pygo._native import Event, _birthplace, _made_in, _mutex


class _State(enum.Enum):
    FILLING = 0
    RELEASING = 1  # all are there, the action runs
    OPEN = 2
    BROKEN = 3


class _Round:
    """One passing of the barrier; its fields are the barrier's mutex's."""

    __slots__ = ("arrived", "over", "state", "vacant")

    def __init__(self, birthplace: int) -> None:
        self.state = _State.FILLING
        self.arrived = 0
        self.vacant: list[int] = []  # numbers of those who have left again
        self.over: Event = _made_in(birthplace, Event)

    def end(self, state: _State) -> None:
        self.state = state
        self.over.set()


class Barrier:
    """Where `parties` tasks or threads wait for each other, like `threading.Barrier`.

    action: called by the last one to come before any goes on; if it raises, the barrier is broken.
    timeout: for `wait` calls that give none, in seconds. Raises ValueError if parties is less than 1.

    A waiter that is cancelled leaves: the barrier then waits for one more again.

    >>> from pygo import spawn
    >>> barrier = Barrier(2)
    >>> task = spawn(barrier.wait)
    >>> sorted([barrier.wait(), task.join()])
    [0, 1]
    """

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        if parties < 1:
            raise ValueError("parties must be greater than 0")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._mutex = _mutex()
        self._birthplace = _birthplace()
        self._round = _Round(self._birthplace)

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self._parties}"
        return f"<sync.Barrier at {id(self):#x}: {state}>"

    @property
    def parties(self) -> int:
        """How many have to come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        this = self._round
        return this.arrived if this.state is _State.FILLING else 0

    @property
    def broken(self) -> bool:
        """Whether it is broken: `wait` raises until `reset`."""
        return self._round.state is _State.BROKEN

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have come; return a number from 0 to parties-1, another one to each.

        timeout: seconds; None: the barrier's own. When it passes the barrier is broken for all.
        Raises BrokenBarrierError when the barrier is or gets broken, or is reset meanwhile.
        """
        this, index, is_last = self._enter()
        if is_last:
            self._release(this)
        else:
            self._wait(this, index, self._timeout if timeout is None else timeout)
        if this.state is _State.BROKEN:
            raise BrokenBarrierError
        return index

    def _enter(self) -> tuple[_Round, int, bool]:
        while True:
            with self._mutex:
                this = self._round
                if this.state is _State.BROKEN:
                    raise BrokenBarrierError
                if this.state is _State.FILLING:
                    index = this.vacant.pop() if this.vacant else this.arrived
                    this.arrived += 1
                    is_last = this.arrived == self._parties
                    if is_last:
                        this.state = _State.RELEASING
                    return this, index, is_last
            this.over.wait()

    def _release(self, this: _Round) -> None:
        end = _State.BROKEN
        try:
            if self._action is not None:
                self._action()
            end = _State.OPEN
        finally:
            with self._mutex:
                if this.state is _State.RELEASING:  # neither aborted nor reset by the action
                    this.end(end)
                    if end is _State.OPEN:
                        self._round = _Round(self._birthplace)

    def _wait(self, this: _Round, index: int, timeout: float | None) -> None:
        try:
            in_time = this.over.wait(timeout)
        except BaseException:
            with self._mutex:
                if this.state is _State.FILLING:
                    this.arrived -= 1
                    this.vacant.append(index)
            raise
        if in_time:
            return
        with self._mutex:
            if this.state is _State.FILLING:
                this.end(_State.BROKEN)
        this.over.wait()  # all had come in time, and the action still runs

    def abort(self) -> None:
        """Break the barrier: those who wait and will wait get BrokenBarrierError, until `reset`. Never waits."""
        with self._mutex:
            self._round.end(_State.BROKEN)

    def reset(self) -> None:
        """Make the barrier as new. Those who wait get BrokenBarrierError. Never waits."""
        with self._mutex:
            self._round.end(_State.BROKEN)
            self._round = _Round(self._birthplace)
