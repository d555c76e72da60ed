"""pygo.sync: locks, conditions, semaphores, barriers, events, for tasks and threads beside each other."""

from __future__ import annotations

import copy
import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, PLACES, in_task, in_thread, in_threads, join_all, run_program, wait_until

import pygo
from pygo import sync
from pygo._extension import has_portable_switch
from pygo.testing import wait_until_blocked

MAKERS: dict[str, Any] = {
    "Lock": sync.Lock,
    "RLock": sync.RLock,
    "Semaphore": sync.Semaphore,
    "BoundedSemaphore": sync.BoundedSemaphore,
    "WeightedSemaphore": lambda: sync.WeightedSemaphore(1),
    "read": lambda: sync.RWLock().read,
    "write": lambda: sync.RWLock().write,
    "Condition": sync.Condition,
}
EXCLUSIVE = [name for name in MAKERS if name != "read"]
FIFO = [name for name in EXCLUSIVE if name != "Condition"]
PUBLIC = [name for name in sync.__all__ if isinstance(getattr(sync, name), type)]


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


def spawn_waiting(fn: Any, *args: Any, **kwargs: Any) -> pygo.Task[Any]:
    """A task that has come to wait in fn."""
    task = pygo.spawn(fn, *args, **kwargs)
    wait_until_blocked(task)
    return task


def failure_of(task: pygo.Task[Any]) -> BaseException | None:
    """How the task ended, cancellation included."""
    try:
        return task.exception(timeout=HANG)
    except pygo.TaskCancelled as error:
        return error


# ---- what all locks have in common ----


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_only_one_is_inside(name: str, workers: int) -> None:
    lock, inside, most, entered = MAKERS[name](), [0], [0], [0] * 12

    def body(slot: int) -> None:
        for turn in range(50):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                if turn % 10 == slot % 10 and pygo.current_task():
                    pygo.yield_now()
                entered[slot] += 1
                inside[0] -= 1

    tasks = [pygo.spawn(body, slot) for slot in range(8)]
    in_threads([lambda slot=slot: body(slot) for slot in range(8, 12)])  # type: ignore[misc]
    join_all(tasks)
    assert most == [1]
    assert entered == [50] * 12


@pytest.mark.parametrize("name", FIFO)
def test_waiters_are_served_in_the_order_of_their_coming(name: str, workers: int) -> None:
    lock, order = MAKERS[name](), []

    def body(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        tasks = [spawn_waiting(body, number) for number in range(20)]
    join_all(tasks)
    assert order == list(range(20))


@pytest.mark.parametrize("name", FIFO)
def test_nobody_overtakes_a_waiter_that_was_handed_the_lock(name: str) -> None:
    lock, order = MAKERS[name](), []

    def body() -> None:
        with lock:
            order.append("waiter")

    def greedy() -> None:
        with lock:
            task = spawn_waiting(body)
        with lock:
            order.append("greedy")
        task.join()

    in_task(greedy)
    assert order == ["waiter", "greedy"]


@pytest.mark.parametrize("name", list(MAKERS))
def test_acquire_tells_whether_it_was_taken(name: str, place: Any) -> None:
    lock = MAKERS[name]()
    blocker = lock._whole.write if name == "read" else lock
    assert place(lambda: (lock.acquire(), lock.release())) == (True, None)
    holder, go_on = sync.Event(), sync.Event()

    def hold() -> None:
        with blocker:
            holder.set()
            go_on.wait()

    task = pygo.spawn(hold)
    holder.wait()
    assert not place(lambda: lock.acquire(blocking=False))
    assert not place(lambda: lock.acquire(timeout=0.01))
    assert not place(lambda: lock.acquire(timeout=0))
    go_on.set()
    task.join()
    assert place(lambda: (lock.acquire(timeout=HANG), lock.release())) == (True, None)


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_cancelled_waiter_takes_nothing_with_it(name: str, workers: int) -> None:
    lock = MAKERS[name]()
    blocker = lock._whole.write if name == "read" else lock
    with blocker:
        tasks = [spawn_waiting(lock.acquire) for _ in range(5)]
        for task in tasks:
            task.cancel()
        assert all(isinstance(failure_of(task), pygo.TaskCancelled) for task in tasks)
    assert blocker.acquire(blocking=False)


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_a_cancelled_task_takes_what_is_free_and_gives_it_back(name: str) -> None:
    lock, entered = MAKERS[name](), []

    def body() -> None:
        pygo.current_task().cancel()  # type: ignore[union-attr]
        with lock:
            entered.append(True)
        pygo.sleep(HANG)

    assert isinstance(failure_of(pygo.spawn(body)), pygo.TaskCancelled)
    assert entered == [True]
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize("name", list(MAKERS))
def test_nothing_is_lost_when_waiters_give_up_in_the_instant_of_their_turn(name: str, workers: int) -> None:
    """Timeouts, cancellation and hand-overs race; in the end the lock is free and everybody is accounted for."""
    lock = MAKERS[name]()
    rng = random.Random(workers)
    entered = [0] * 40

    def body(slot: int, patience: float) -> None:
        if lock.acquire(timeout=patience):
            try:
                entered[slot] += 1
                pygo.sleep(0)
            finally:
                lock.release()

    for _ in range(10):
        tasks = [pygo.spawn(body, slot, rng.choice([HANG, 0.0002, 0.001])) for slot in range(40)]
        for task in rng.sample(tasks, 15):
            task.cancel()
            pygo.sleep(0)
        for task in tasks:
            assert isinstance(failure_of(task), (pygo.TaskCancelled, type(None)))
    whole = lock._whole.write if name in ("read", "write") else lock
    assert whole.acquire(blocking=False)
    assert sum(entered) >= 10


@pytest.mark.parametrize("name", ["Lock", "RLock", "read", "write", "Condition"])
def test_releasing_what_nobody_holds_raises(name: str, place: Any) -> None:
    with pytest.raises(RuntimeError):
        place(MAKERS[name]().release)


@pytest.mark.parametrize("name", ["Lock", "RLock", "read", "write"])
def test_timeouts_follow_the_rules_of_threading(name: str) -> None:
    lock = MAKERS[name]()
    with pytest.raises(ValueError, match="non-blocking"):
        lock.acquire(False, 1)
    with pytest.raises(ValueError, match="non-negative"):
        lock.acquire(timeout=-2)
    with pytest.raises(TypeError):
        lock.acquire(timeout="1")
    assert not lock.locked()
    assert lock.acquire(True, -1)
    assert lock.locked()
    lock.release()


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_arguments_are_checked_as_by_threading(name: str) -> None:
    lock = MAKERS[name]()
    for error, args, kwargs in [
        (TypeError, (1, 2, 3), {}),
        (TypeError, (True,), {"blocking": True}),
        (TypeError, (), {"patience": 1}),
        (TypeError, (), {"timeout": None}),
        (OverflowError, (), {"timeout": threading.TIMEOUT_MAX + 1}),
        (OverflowError, (), {"timeout": 1e100}),
        (ValueError, (), {"timeout": float("nan")}),
    ]:
        with pytest.raises(error):
            lock.acquire(*args, **kwargs)
    assert not lock.locked()
    with pytest.raises(TypeError):
        MAKERS[name](1)


@pytest.mark.parametrize("name", FIFO)
def test_a_wait_shows_what_it_is_for(name: str) -> None:
    lock = MAKERS[name]()
    with lock:
        task = spawn_waiting(lock.acquire)
        assert task.waiting_on is not None
        assert task.waiting_on.reason in ("lock", "semaphore", "event")
        if name not in ("read", "write"):
            assert task.waiting_on.objects == (lock,)
    task.join()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_classes_name_their_module(name: str) -> None:
    kind = getattr(sync, name)
    assert kind.__module__ in ("pygo.sync", "queue", "_queue", "threading")
    assert kind.__qualname__ == name
    assert kind.__doc__ or kind.__module__ == "threading"


INSTANCES: dict[str, Any] = {
    **MAKERS,
    "RWLock": sync.RWLock,
    "Event": sync.Event,
    "Barrier": lambda: sync.Barrier(2),
    "Once": sync.Once,
    "SingleFlight": sync.SingleFlight,
    "Queue": sync.Queue,
    "SimpleQueue": sync.SimpleQueue,
}


@pytest.mark.parametrize("name", list(INSTANCES))
def test_objects_show_themselves_are_weakly_referable_and_go_away(name: str) -> None:
    item = INSTANCES[name]()
    assert re_address(repr(item)) or name in ("read", "write", "Condition")
    assert hash(item) == hash(item)
    reference = weakref.ref(item)
    if name in ("Lock", "RLock", "Semaphore", "Event"):
        with pytest.raises(TypeError):
            copy.copy(item)
    del item
    gc.collect()
    assert reference() is None


def re_address(text: str) -> bool:
    return " at 0x" in text


def test_lock_reprs_tell_the_state() -> None:
    lock, rlock = sync.Lock(), sync.RLock()
    assert repr(lock).startswith("<unlocked sync.Lock object at 0x")
    with lock, rlock, rlock:
        assert repr(lock).startswith("<locked ")
        assert "count=2" in repr(rlock)
    task = pygo.Task(lambda: (rlock.acquire(), repr(rlock), rlock.release()))
    assert f"owner=task {task.id} count=1" in task.join()[1]


# ---- ownership ----


def test_two_tasks_on_one_worker_exclude_each_other() -> None:
    lock = sync.RLock()
    with lock:
        assert in_task(lock.acquire, False) is False
        assert in_thread(lock.acquire, False) is False
        assert lock.acquire(False)
        lock.release()


def test_only_the_owner_releases_an_rlock(place: Any) -> None:
    lock = sync.RLock()
    pygo.spawn(lock.acquire).join()
    with pytest.raises(RuntimeError, match="un-acquired"):
        place(lock.release)
    assert lock.locked()


def test_an_rlock_left_behind_is_not_taken_for_a_later_tasks_own() -> None:
    lock = sync.RLock()
    pygo.spawn(lock.acquire).join()
    for _ in range(200):
        assert in_task(lock.acquire, False) is False


def test_a_lock_may_be_released_by_another(place: Any) -> None:
    lock = sync.Lock()
    lock.acquire()
    place(lock.release)
    assert not lock.locked()


def test_an_rlock_belongs_to_its_task_on_whatever_thread(workers: int) -> None:
    lock = sync.RLock()

    def body() -> None:
        with lock:
            for _ in range(20):
                pygo.sleep(0.0001)
                assert lock._is_owned()
                with lock:
                    pygo.yield_now()

    join_all([pygo.spawn(body) for _ in range(8)])


def test_rlocks_semaphores_and_events_may_be_subclassed() -> None:
    class Named(sync.RLock):
        def __init__(self, name: str) -> None:
            self.name = name

    class Pool(sync.BoundedSemaphore):
        def __init__(self, items: list[int]) -> None:
            super().__init__(len(items))
            self.items = items

    class Flag(sync.Event):
        pass

    lock, pool, flag = Named("a"), Pool([1, 2]), Flag()
    with lock, pool:
        assert lock.name == "a"
        assert "Pool" in repr(pool)
        assert "value=1/2" in repr(pool)
    flag.set()
    assert flag.wait()
    with pytest.raises(TypeError):
        type("Sub", (sync.Lock,), {})
    references = [weakref.ref(item) for item in (lock, pool, flag)]
    del lock, pool, flag
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# ---- conditions ----


def test_waiters_are_notified_in_order_and_only_so_many(workers: int) -> None:
    condition, woken = sync.Condition(), []

    def body(number: int) -> None:
        with condition:
            assert condition.wait()
            woken.append(number)

    tasks = [spawn_waiting(body, number) for number in range(10)]
    with condition:
        condition.notify()
    tasks[0].join()
    with condition:
        condition.notify(3)
    join_all(tasks[1:4])
    assert sorted(woken) == [0, 1, 2, 3]
    with condition:
        condition.notify_all()
    join_all(tasks)
    assert len(woken) == 10


def test_a_wait_ends_with_the_lock_held_whatever_happens(workers: int) -> None:
    condition, held = sync.Condition(), []

    def body() -> None:
        with condition:
            try:
                condition.wait()
            finally:
                held.append(condition._is_owned())

    tasks = [spawn_waiting(body) for _ in range(5)]
    with condition:  # so that they all have to wait for the lock
        for task in tasks:
            task.cancel()
        pygo.sleep(0.01)
        assert held == []
    assert all(isinstance(failure_of(task), pygo.TaskCancelled) for task in tasks)
    assert held == [True] * 5


def test_an_rlock_held_several_times_is_given_up_and_taken_back_whole() -> None:
    condition = sync.Condition()

    def body() -> int:
        with condition, condition, condition:
            condition.wait()
            return condition._lock._recursion_count()

    task = spawn_waiting(body)
    with condition:
        condition.notify()
    assert task.join() == 3


def test_a_waiter_that_was_notified_is_not_cancelled_any_more(workers: int) -> None:
    condition, woken = sync.Condition(sync.Lock()), []

    def body(number: int) -> None:
        with condition:
            condition.wait()
            woken.append(number)

    tasks = [spawn_waiting(body, number) for number in range(6)]
    with condition:
        condition.notify(3)
        for task in tasks[1:5]:
            task.cancel()
    assert [isinstance(failure_of(task), pygo.TaskCancelled) for task in tasks[:5]] == [False] * 3 + [True] * 2
    with condition:
        condition.notify()
    join_all([tasks[5]])
    assert sorted(woken) == [0, 1, 2, 5]


def test_a_cancelled_waiter_passes_its_notification_on() -> None:
    condition = sync.Condition()

    def body() -> bool:
        with condition:
            return condition.wait()

    first, second = spawn_waiting(body), spawn_waiting(body)
    with condition:
        condition._waiters.popitem(last=False)  # notify() has come so far, when
        first.cancel()
    assert isinstance(failure_of(first), pygo.TaskCancelled)
    assert second.join(timeout=HANG) is True


def test_a_waiter_notified_after_its_time_and_before_it_withdrew_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    withdraw = sync.Condition._withdraw

    def withdraw_too_late(self: sync.Condition, waiter: sync.Event) -> bool:
        self._notify(1)
        return withdraw(self, waiter)

    monkeypatch.setattr(sync.Condition, "_withdraw", withdraw_too_late)
    condition = sync.Condition()
    with condition:
        assert condition.wait(0.001) is True
    assert not condition._waiters


def test_a_waiter_that_times_out_as_it_is_notified_reports_the_notification(workers: int) -> None:
    """Timeouts and notifications race; every notification that found a waiter is reported by exactly one."""
    notified = 0

    class Waiters(OrderedDict[Any, None]):
        def popitem(self, last: bool = True) -> Any:  # who times out takes itself out otherwise, and without the lock
            nonlocal notified
            item = super().popitem(last)
            notified += 1
            return item

    condition = sync.Condition()
    condition._waiters = Waiters()

    def body() -> int:
        with condition:
            return condition.wait(0.0005)

    for _ in range(100):
        tasks = [pygo.spawn(body) for _ in range(4)]
        while not all(task.done() for task in tasks):
            with condition:
                condition.notify()
            pygo.sleep(0.0001)
        assert notified == sum(join_all(tasks))
        notified = 0


def test_conditions_take_locks_of_threading(place: Any) -> None:
    for lock in (threading.Lock(), threading.RLock()):
        condition = sync.Condition(lock)

        def body(condition: Any = condition) -> bool:
            with condition:
                return condition.wait(0.001) or condition.wait_for(lambda: False, 0.001)

        assert place(body) is False
        with pytest.raises(RuntimeError):
            condition.notify()


def test_conditions_refuse_callers_without_the_lock() -> None:
    condition = sync.Condition()
    for call in (condition.wait, condition.notify, condition.notify_all, condition.release):
        with pytest.raises(RuntimeError):
            call()


# ---- events and barriers ----


@pytest.mark.parametrize("count", [1, 1000])
def test_every_waiter_of_an_event_wakes(count: int, workers: int) -> None:
    event = sync.Event()
    tasks = [pygo.spawn(event.wait) for _ in range(count)]
    thread = pygo.spawn(pygo.to_thread, in_threads, [event.wait] * 3)
    wait_until(lambda: all(task.state == "waiting" for task in tasks))
    event.set()
    event.clear()
    assert join_all(tasks) == [True] * count
    event.set()
    assert thread.join(timeout=HANG) == [True] * 3


def test_an_event_that_is_set_cleared_and_set_ends_its_waiters(workers: int) -> None:
    event, ended = sync.Event(), [0] * 20

    def body(slot: int) -> None:
        for _ in range(20):
            event.wait(HANG)
            ended[slot] += 1

    tasks = [pygo.spawn(body, slot) for slot in range(20)]
    while not all(task.done() for task in tasks):
        event.set()
        event.clear()
        pygo.yield_now()
        pygo.sleep(0.0001)
    join_all(tasks)
    assert ended == [20] * 20


def test_event_timeouts(place: Any) -> None:
    event = sync.Event()
    assert [place(lambda t=t: event.wait(t)) for t in (0, -1, 0.01)] == [False] * 3
    event.set()
    assert [place(lambda t=t: event.wait(t)) for t in (0, -1, None)] == [True] * 3


def test_a_barrier_is_passed_in_lockstep_by_tasks_and_threads(workers: int) -> None:
    barrier, rounds, actions = sync.Barrier(6, lambda: actions.append(True)), [0] * 6, []

    def body(slot: int) -> list[int]:
        numbers = []
        for turn in range(30):
            rounds[slot] += 1
            numbers.append(barrier.wait())
            assert all(turn + 1 <= count <= turn + 2 for count in rounds)
        return numbers

    tasks = [pygo.spawn(body, slot) for slot in range(4)]
    results = in_threads([lambda slot=slot: body(slot) for slot in (4, 5)])  # type: ignore[misc]
    results += join_all(tasks)
    assert all(sorted(numbers) == list(range(6)) for numbers in zip(*results, strict=True))
    assert len(actions) == 30
    assert barrier.n_waiting == 0


def test_a_cancelled_party_leaves_the_barrier_waiting_for_one_more() -> None:
    barrier = sync.Barrier(3)
    first, second = spawn_waiting(barrier.wait), spawn_waiting(barrier.wait)
    first.cancel()
    assert isinstance(failure_of(first), pygo.TaskCancelled)
    assert barrier.n_waiting == 1
    third = spawn_waiting(barrier.wait)
    assert sorted([barrier.wait(), second.join(), third.join()]) == [0, 1, 2]


def test_an_action_that_fails_breaks_the_barrier() -> None:
    barrier = sync.Barrier(2, lambda: 1 / 0)
    task = spawn_waiting(barrier.wait)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert isinstance(task.exception(), sync.BrokenBarrierError)
    assert barrier.broken
    with pytest.raises(sync.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    task = spawn_waiting(barrier.wait)
    barrier.reset()
    assert isinstance(task.exception(), threading.BrokenBarrierError)
    with pytest.raises(sync.BrokenBarrierError):
        barrier.wait(0.001)
    assert barrier.broken


def test_an_action_may_wait_and_the_next_round_waits_for_it() -> None:
    go_on, seen = sync.Event(), []
    barrier = sync.Barrier(2, lambda: (go_on.wait(), seen.append("action")))

    def body() -> None:
        barrier.wait()
        seen.append("past")

    tasks = [spawn_waiting(body) for _ in range(2)]
    early = pygo.spawn(barrier.wait)
    wait_until_blocked(early)
    assert seen == []
    go_on.set()
    join_all(tasks)
    barrier.wait()
    early.join()
    assert seen[0] == "action"


# ---- semaphores ----


def test_a_semaphore_admits_so_many(workers: int) -> None:
    semaphore, inside, most = sync.Semaphore(3), [0], [0]

    def body() -> None:
        for _ in range(20):
            with semaphore:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                pygo.yield_now()
                inside[0] -= 1

    join_all([pygo.spawn(body) for _ in range(10)])
    assert most == [3]
    assert "value=3" in repr(semaphore)


def test_semaphore_values_and_releases_are_checked() -> None:
    for make in (sync.Semaphore, sync.BoundedSemaphore, sync.WeightedSemaphore):
        with pytest.raises(ValueError, match=r"."):
            make(-1)
        with pytest.raises(TypeError):
            make("1")
    semaphore, bounded = sync.Semaphore(), sync.BoundedSemaphore(2)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="one or more"):
            semaphore.release(bad)
    with pytest.raises(ValueError, match="too many"):
        bounded.release()
    with pytest.raises(ValueError, match="non-blocking"):
        semaphore.acquire(False, timeout=1)
    bounded.acquire()
    with pytest.raises(ValueError, match="too many"):
        bounded.release(2)
    bounded.release()
    assert repr(bounded).endswith("value=2/2>")


def test_a_large_acquire_is_not_starved(workers: int) -> None:
    """Go's TestLargeAcquireDoesntStarve."""
    size = 8
    semaphore, running = sync.WeightedSemaphore(size), [True]
    semaphore.acquire(size)

    def body() -> None:
        while True:
            semaphore.acquire(1)
            pygo.sleep(0.0002)
            semaphore.release(1)
            if not running[0]:
                return

    tasks = [pygo.spawn(body) for _ in range(size)]
    semaphore.release(size)
    assert semaphore.acquire(size, timeout=HANG)
    running[0] = False
    semaphore.release(size)
    join_all(tasks)


@pytest.mark.parametrize("way", ["timeout", "cancel"])
def test_those_behind_a_large_waiter_that_gives_up_go_on(way: str, workers: int) -> None:
    semaphore = sync.WeightedSemaphore(10)
    semaphore.acquire(8)
    large = spawn_waiting(semaphore.acquire, 5, timeout=HANG if way == "cancel" else 0.02)
    small = [pygo.spawn(semaphore.acquire, 1) for _ in range(2)]
    if way == "cancel":
        large.cancel()
    assert join_all(small) == [True, True]
    assert not semaphore.try_acquire(1)
    semaphore.release(10)
    assert semaphore.try_acquire(10)
    assert large.cancelled() if way == "cancel" else large.join() is False


def test_weights_are_checked() -> None:
    semaphore = sync.WeightedSemaphore(2)
    for call in (semaphore.acquire, semaphore.try_acquire):
        for bad in (-1, 3, 10**30):
            with pytest.raises(ValueError, match=r"."):
                call(bad)
        with pytest.raises(TypeError):
            call(1.5)
    with pytest.raises(ValueError, match="more than was acquired"):
        semaphore.release(1)
    assert semaphore.acquire(0)
    assert semaphore.try_acquire(2)
    assert not semaphore.try_acquire(1)
    semaphore.release(2)


def test_try_acquire_does_not_overtake() -> None:
    semaphore = sync.WeightedSemaphore(3)
    semaphore.acquire(2)
    task = spawn_waiting(semaphore.acquire, 2)
    assert not semaphore.try_acquire(1)
    semaphore.release(2)
    task.join()
    assert semaphore.try_acquire(1)


# ---- the whole ----


def test_stale_wakes_do_not_end_waits() -> None:
    run_program(
        """
        import pygo
        from pygo import _extension, sync
        _extension.inject_stale_wakes(2)
        lock, total, event, queue = sync.Lock(), [0], sync.Event(), sync.Queue(1)
        def add():
            assert event.wait()
            for _ in range(200):
                with lock:
                    seen = total[0]
                    pygo.yield_now()
                    total[0] = seen + 1
            queue.put(1)
        tasks = [pygo.spawn(add) for _ in range(5)]
        pygo.sleep(0.01)
        event.set()
        assert [queue.get() for _ in tasks] == [1] * 5
        assert total == [1000]
        """
    ).ok()


def test_a_fork_child_finds_locks_in_order() -> None:
    run_program(
        """
        import os, pygo
        from pygo import sync
        lock, event = sync.Lock(), sync.Event()
        def body():
            with lock:
                event.set()
        lock.acquire()
        waiter = pygo.spawn(body)
        pygo.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            lock.release()  # its waiter is not here
            ok = lock.acquire(timeout=5)
            lock._at_fork_reinit()
            os._exit(0 if ok and not lock.locked() else 1)
        assert os.waitpid(pid, 0)[1] == 0
        lock.release()
        event.wait()
        waiter.join()
        """
    ).ok()


def test_pygo_is_imported_without_sync_which_comes_at_the_first_use() -> None:
    finished = run_program(
        """
        import sys, pygo
        assert "pygo.sync" not in sys.modules
        assert pygo.sync.Lock() and "pygo.sync" in sys.modules
        try:
            pygo.no_such_name
        except AttributeError as error:
            print(error)
        """
    ).ok()
    assert finished.out == "module 'pygo' has no attribute 'no_such_name'\n"


def test_the_examples_in_the_docstrings_show_what_happens() -> None:
    program = "import doctest, sys, pygo.sync; sys.exit(doctest.testmod(pygo.sync, verbose=False).failed)"
    root = str(Path(pygo.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG, cwd=root)


def best_of(calls: dict[str, Any], rounds: int = 15) -> dict[str, float]:
    """The least time of each of several calls, taken turn about."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def test_free_locks_cost_what_those_of_threading_do() -> None:
    def use(lock: Any) -> Any:
        def body() -> None:
            for _ in range(2000):
                with lock:
                    pass

        return body

    group = pygo.WaitGroup()

    def count() -> None:
        for _ in range(2000):
            group.add(1)
            group.done()

    calls = {"threading": use(threading.Lock()), "Lock": use(sync.Lock()), "RLock": use(sync.RLock()), "group": count}
    best = pygo.spawn(best_of, calls).join()
    assert max(best["Lock"], best["RLock"], best["group"]) <= 1.5 * best["threading"]


def test_handing_over_between_tasks_is_much_faster_than_between_threads() -> None:
    def pair(kind: Any) -> tuple[Any, Any]:
        here, there = kind(), kind()
        here.acquire()
        there.acquire()

        def serve() -> None:
            for _ in range(10_000):
                there.release()
                here.acquire()

        def answer() -> None:
            for _ in range(10_000):
                there.acquire()
                here.release()

        return serve, answer

    best = best_of(
        {
            "tasks": lambda: join_all([pygo.spawn(side) for side in pair(sync.Lock)]),
            "threads": lambda: in_threads(list(pair(threading.Lock))),
        },
        rounds=10,
    )
    times = 3 if has_portable_switch() else 10  # the portable switch makes two system calls
    assert times * best["tasks"] <= best["threads"]
