"""runloom on one hub, which is all it offers under a GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from bench.model import Sizes, Values
from bench.workloads.blocking import Blocking, Ends

# The stubs that come with it describe an older version.
runloom: Any = import_module("runloom")


class Runloom(Blocking):
    spawn = staticmethod(runloom.fiber)
    sleep = staticmethod(runloom.sleep)
    yield_now = staticmethod(runloom.yield_now)

    def channel(self, capacity: int = 0) -> Ends:
        channel = runloom.Chan(capacity)
        # Its recv() returns (value, ok); the iterator is the compiled way to the bare value.
        return Ends(channel.send, iter(channel).__next__, channel)

    def join(self, tasks: Sequence[Any]) -> None:
        # A fiber has no join, and the library's WaitGroup, written in Python, costs more than this.
        runloom.yield_now()
        for task in tasks:
            while not task.done:
                runloom.sleep(0.001)

    def selector(self, channels: Sequence[Ends]) -> Callable[[], object]:
        return partial(runloom.select, [("recv", ends.channel) for ends in channels])

    def run(self, method: Callable[..., Values], sizes: Sizes) -> Values:
        outcome: list[Values | BaseException] = []

        def root() -> None:
            try:
                outcome.append(method(**sizes))
            except BaseException as error:
                outcome.append(error)

        runloom.run(1, root)
        if not outcome:
            raise RuntimeError("run() gave up before the root fiber had ended")
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result


SYSTEM = Runloom()
