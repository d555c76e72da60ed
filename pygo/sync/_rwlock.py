"""RWLock."""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType

from pygo._native import Event, _birthplace, _made_in, _mutex


class _View:
    """One of the two sides of an `RWLock`, with the methods of a `Lock`."""

    def __init__(self, whole: RWLock, purpose: str) -> None:
        self._whole = whole
        self._purpose = purpose
        self._waiting: OrderedDict[Event, None] = OrderedDict()  # in the order of coming: the whole's mutex
        self._holders = 0  # likewise

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take this side, waiting for it if need be; return whether it was taken.

        blocking: False tries once. timeout: seconds, -1 for ever. Raises ValueError for a negative timeout or one
        without blocking. May be called from tasks and any thread.
        """
        if timeout != -1:
            if not blocking:
                raise ValueError("can't specify a timeout for a non-blocking call")
            if not timeout >= 0:
                raise ValueError("timeout value must be a non-negative number")
        whole = self._whole
        with whole._mutex:
            if self._is_free():
                self._holders += 1
                return True
            if not blocking:
                return False
            waiter: Event = _made_in(whole._birthplace, Event)
            self._waiting[waiter] = None
        try:
            granted = waiter.wait(None if timeout == -1 else timeout)
        except BaseException:
            if not self._withdraw(waiter):
                self.release()
            raise
        return granted or not self._withdraw(waiter)

    def release(self) -> None:
        """Give this side back. Any task or thread may do so; never waits.

        Raises RuntimeError if nobody holds it.
        """
        whole = self._whole
        with whole._mutex:
            if self._holders == 0:
                raise RuntimeError(f"release of an RWLock that nobody holds for {self._purpose}")
            self._holders -= 1
            whole._serve()

    def locked(self) -> bool:
        """Whether somebody holds this side."""
        return self._holders > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{'locked' if self._holders else 'unlocked'} for {self._purpose}: {self._whole!r}>"

    def _is_free(self) -> bool:
        raise NotImplementedError

    def _withdraw(self, waiter: Event) -> bool:
        """False if the waiter has been granted its wish meanwhile."""
        whole = self._whole
        with whole._mutex:
            if waiter not in self._waiting:
                return False
            del self._waiting[waiter]
            whole._serve()  # readers may have waited only for this writer
            return True

    def _grant_first(self) -> None:
        waiter, _ = self._waiting.popitem(last=False)
        self._holders += 1
        waiter.set()


class _ReadView(_View):
    def _is_free(self) -> bool:
        write = self._whole.write
        return write._holders == 0 and not write._waiting


class _WriteView(_View):
    def _is_free(self) -> bool:
        # Under the mutex nobody waits for what is free, so a free lock has no waiting writer to be overtaken.
        return self._holders == 0 and self._whole.read._holders == 0


class RWLock:
    """A lock that many may hold for reading at once, or one for writing. Writers are preferred.

    `read` and `write` are its two sides, each used like a `Lock`. While a writer waits no further reader comes in, and
    writers go before readers; each kind in the order of coming. So somebody who holds the read side must not ask for it
    once more (a writer may wait in between), nor for the write side. Not owned: any task or thread may release.

    >>> rw = RWLock()
    >>> with rw.read, rw.read:
    ...     rw.write.acquire(blocking=False)
    False
    >>> with rw.write:
    ...     rw.read.acquire(timeout=0.01)
    False
    """

    def __init__(self) -> None:
        self._birthplace = _birthplace()
        self._mutex = _mutex()
        self.read = _ReadView(self, "reading")
        self.write = _WriteView(self, "writing")

    def __repr__(self) -> str:
        state = "writing" if self.write._holders else f"{self.read._holders} reading"
        waiting = f"{len(self.read._waiting)} readers and {len(self.write._waiting)} writers waiting"
        return f"<sync.RWLock at {id(self):#x}: {state}, {waiting}>"

    def _serve(self) -> None:
        """Let in whoever can go on; under the mutex."""
        read, write = self.read, self.write
        if write._holders:
            return
        if write._waiting:
            if read._holders == 0:
                write._grant_first()
            return
        while read._waiting:
            read._grant_first()
