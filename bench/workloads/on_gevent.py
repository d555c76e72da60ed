"""gevent: greenlets over its own loop, unpatched standard library, its compiled queues."""

from __future__ import annotations

from functools import partial

import gevent
from gevent.queue import Channel, SimpleQueue

from bench.workloads.blocking import Blocking, Ends


class Gevent(Blocking):
    spawn = staticmethod(gevent.spawn)
    sleep = staticmethod(gevent.sleep)
    yield_now = staticmethod(partial(gevent.sleep, 0))

    def channel(self, capacity: int = 0) -> Ends:
        queue = SimpleQueue(capacity) if capacity else Channel()
        return Ends(queue.put, queue.get, queue)


SYSTEM = Gevent()
