"""Many tasks that use a neighbour at once, wait in what it calls back, and change their OS threads meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helpers import join_all, move_to_another_thread

import pygo

TASKS = 8


@dataclass
class Crowd:
    """What happened while a crowd ran."""

    waits: int
    moved_in_waits: int
    moved_between_calls: int


class Waiter:
    """Called in callbacks: waits, each time in another way, and notes whether it resumed on another OS thread."""

    def __init__(self, requests: pygo.Channel[Any]) -> None:
        self._requests = requests
        self._turns = itertools.count()
        self._waits = itertools.count()
        self._moves = itertools.count()

    def __call__(self) -> None:
        before = threading.get_native_id()
        match next(self._turns) % 5:
            case 0 | 1:
                reply: pygo.Channel[None] = pygo.Channel()
                self._requests.send(reply)
                reply.recv()
            case 2:
                pygo.yield_now()
            case 3:
                pygo.sleep(0.0001)
            case 4:
                assert pygo.spawn(int, "3").join() == 3
        next(self._waits)
        if threading.get_native_id() != before:
            next(self._moves)

    def waits(self) -> int:
        return next(self._waits)

    def moves(self) -> int:
        return next(self._moves)


def run_crowd(
    use: Callable[[Callable[[], None]], Any], expected: Any, *, rounds: int = 2, stays: bool = True, waits: bool = True
) -> Crowd:
    """Run ``use(wait)`` in many tasks, ``rounds`` times in each, beside tasks that block, so that others are moved.

    Every call must return ``expected`` (or an equal). Between the calls each task is moved to another OS thread. With
    ``stays`` none may move in a wait: it is one inside a callback from C.
    """
    requests: pygo.Channel[Any] = pygo.Channel()
    wait = Waiter(requests)
    over = pygo.Channel[None]()

    def serve() -> None:
        for reply in requests:
            reply.send(None)

    def block() -> None:
        while not over.closed:
            time.sleep(0.0002)
            pygo.yield_now()

    def body() -> int:
        moved = 0
        for _ in range(rounds):
            assert use(wait) == expected
            moved += move_to_another_thread()
        assert use(lambda: None) == expected
        return moved

    others = [pygo.spawn(serve), pygo.spawn(serve), pygo.spawn(block), pygo.spawn(block)]
    try:
        moves = join_all([pygo.spawn(body) for _ in range(TASKS)])
    finally:
        over.close()
        requests.close()
    join_all(others)
    crowd = Crowd(wait.waits(), wait.moves(), sum(moves))
    assert crowd.moved_between_calls == TASKS * rounds, crowd
    assert not waits or crowd.waits >= TASKS * rounds, crowd
    assert not stays or crowd.moved_in_waits == 0, crowd
    return crowd
