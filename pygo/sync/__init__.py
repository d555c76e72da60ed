"""Locks, conditions, barriers and queues with the signatures of `threading` and `queue`, for tasks and threads alike.

A wait in a task lets other tasks run. Ownership is the task's, not the OS thread's. Waiters of a lock or semaphore are
served in the order of their coming, and what is granted to one that gives up in the same instant is never lost.

>>> from pygo import spawn, sync
>>> lock, total = sync.Lock(), [0]
>>> def add(n):
...     for _ in range(n):
...         with lock:
...             total[0] += 1
>>> tasks = [spawn(add, 1000) for _ in range(4)]
>>> for task in tasks:
...     task.join()
>>> total
[4000]
"""

from __future__ import annotations

from queue import Empty, Full
from threading import BrokenBarrierError

from pygo._native import BoundedSemaphore, Event, Lock, RLock, Semaphore, WeightedSemaphore
from pygo.sync._barrier import Barrier
from pygo.sync._condition import Condition
from pygo.sync._once import Flight, Once, SingleFlight
from pygo.sync._queues import LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue
from pygo.sync._rwlock import RWLock

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Empty",
    "Event",
    "Flight",
    "Full",
    "LifoQueue",
    "Lock",
    "Once",
    "PriorityQueue",
    "Queue",
    "RLock",
    "RWLock",
    "Semaphore",
    "ShutDown",
    "SimpleQueue",
    "SingleFlight",
    "WeightedSemaphore",
]

for _public in (Barrier, Condition, Flight, Once, SingleFlight, LifoQueue, PriorityQueue, Queue, SimpleQueue, RWLock):
    _public.__module__ = "pygo.sync"
