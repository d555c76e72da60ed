"""OS threads with `queue.Queue`; a queue of one place stands in for the rendezvous that the library lacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from queue import Queue
from threading import Thread
from typing import Any

from bench.model import UnsupportedError, Values
from bench.workloads.blocking import Blocking, Ends


class Threading(Blocking):
    sleep = staticmethod(time.sleep)
    yield_now = staticmethod(partial(time.sleep, 0))

    @staticmethod
    def spawn(fn: Callable[..., Any], *args: Any) -> Thread:
        thread = Thread(target=fn, args=args, daemon=True)
        thread.start()
        return thread

    def channel(self, capacity: int = 0) -> Ends:
        queue: Queue[Any] = Queue(capacity or 1)
        return Ends(queue.put, queue.get, queue)

    def settle(self, parked_on: Ends, n: int) -> None:
        # start() has seen every thread run; the last of them have one call to go.
        time.sleep(0.01)

    def skynet(self, leaves: int) -> Values:
        raise UnsupportedError("more threads at once than a system bears")


SYSTEM = Threading()
