"""uvloop: the coroutines of asyncio on its loop."""

from __future__ import annotations

import uvloop

from bench.workloads.on_asyncio import Asyncio


class Uvloop(Asyncio):
    loop_factory = staticmethod(uvloop.new_event_loop)


SYSTEM = Uvloop()
