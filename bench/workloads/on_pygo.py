"""pygo: tasks and channels, on as many workers as it starts by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pygo
from bench.model import Sizes, Values
from bench.workloads.blocking import Blocking, Ends


class Pygo(Blocking):
    spawn: Any = staticmethod(pygo.spawn)
    sleep = staticmethod(pygo.sleep)
    yield_now = staticmethod(pygo.yield_now)

    def channel(self, capacity: int = 0) -> Ends:
        channel: pygo.Channel[Any] = pygo.Channel(capacity)
        return Ends(channel.send, channel.recv, channel)

    def settle(self, parked_on: Ends, n: int) -> None:
        while parked_on.channel.waiting_receivers < n:
            pygo.yield_now()

    def selector(self, channels: Sequence[Ends]) -> Callable[[], object]:
        return partial(pygo.select, *(pygo.recv(ends.channel) for ends in channels))

    def run(self, method: Callable[..., Values], sizes: Sizes) -> Values:
        values: Values = pygo.spawn(method, **sizes).join()
        return values


SYSTEM = Pygo()
