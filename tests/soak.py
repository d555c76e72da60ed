"""Everything at once, for as long as one likes: `python tests/soak.py --seconds 3600 --seed 7`.

Rounds of a random workload. In a round some dozen activities run side by side, each on its own channels and locks, each
checking what it knows: values sent are those received and left, whoever waits is woken, a lock has one holder, what was
stopped does not fire. After a round nothing may be left: no task, timer, waiter. Memory, the interpreter's blocks,
descriptors and threads are sampled between rounds and must stay flat once warm.

A round is drawn from (seed, its number) alone; the schedule is not. `--first N --rounds 1` repeats one. Exit code 0:
all was well; 1: the last lines say what was not, in which round.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import random
import statistics
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pygo
import pygo.context
import pygo.sync

HANG = 60.0  # seconds: longer than any round takes on the busiest machine
PLANTS = (
    "dropped value",
    "doubled value",
    "lost wake-up",
    "leaked task",
    "leaked timer",
    "leaked memory",
    "leaked file",
)


class Failed(AssertionError):
    """An invariant is broken."""


def check(condition: object, *facts: object) -> None:
    if not condition:
        raise Failed(" ".join(map(str, facts)))


@dataclass
class Share:
    """An activity's chance, and what it has done."""

    random: random.Random
    plant: str | None = None
    work: Counter[str] = field(default_factory=Counter)
    kept: list[Any] = field(default_factory=list)

    def plants(self, fault: str) -> bool:
        return self.plant == fault and self.random.random() < 0.5


def join_all(tasks: list[Any], what: str) -> list[Any]:
    deadline = time.monotonic() + HANG
    results = []
    for task in tasks:
        try:
            results.append(task.join(timeout=max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            raise Failed(f"{what}: {task} never ends, {task.waiting_on}") from None
    return results


# ---- activities


def _send(ch: Any, value: int, how: float) -> bool:
    """In one of five ways; whether it was sent."""
    if how < 0.5:
        ch.send(value)
        return True
    if how < 0.6:
        return bool(ch.try_send(value))
    if how < 0.75:
        return pygo.select(pygo.send(ch, value), default=how < 0.65).index == 0
    try:
        if how < 0.9:
            ch.send(value, timeout=how / 1000)
        else:
            pygo.select(pygo.send(ch, value), pygo.recv(None), timeout=how / 1000)
    except TimeoutError:
        return False
    return True


def _receive(ch: Any, how: float) -> tuple[Any, bool]:
    if how < 0.5:
        return ch.recv_ok()
    if how < 0.7:
        _, value, ok = pygo.select(pygo.recv(ch), pygo.recv(None))
        return value, ok
    with contextlib.suppress(TimeoutError):
        if how < 0.85:
            return ch.recv_ok(timeout=how / 1000)
        with pygo.timeout(how / 1000):
            _, value, ok = pygo.select(pygo.recv(ch))
            return value, ok
    return None, True


def channels(share: Share) -> None:
    """Producers and consumers of every kind: what is sent is received, once, and in each producer's order."""
    rng = share.random
    ch = pygo.Channel[tuple[int, int]](rng.choice([0, 0, 1, 2, 3, 7, 64]))
    producers, consumers, count = rng.randrange(1, 6), rng.randrange(1, 6), rng.randrange(1, 60)
    drops, doubles = share.plants("dropped value"), share.plants("doubled value")

    def produce(who: int, seed: int) -> list[tuple[int, int]]:
        chance = random.Random(seed)
        return [(who, number) for number in range(count) if _send(ch, (who, number), chance.random())]

    def consume(seed: int) -> list[tuple[int, int]]:
        chance, got, ok = random.Random(seed), [], True
        while ok:
            value, ok = _receive(ch, chance.random())
            if ok and value is not None:
                got.append(value)
        return got

    receivers = [pygo.spawn(consume, rng.random()) for _ in range(consumers)]
    sent = [
        one
        for part in join_all([pygo.spawn(produce, who, rng.random()) for who in range(producers)], "send")
        for one in part
    ]
    ch.close()
    parts = join_all(receivers, "receive")
    if drops and sent:
        max(parts, key=len).pop()
    if doubles and sent:
        parts[0].append(sent[0])
    got = Counter(one for part in parts for one in part)
    check(
        got == Counter(sent),
        "sent",
        len(sent),
        "received",
        sum(got.values()),
        (Counter(sent) - got),
        (got - Counter(sent)),
    )
    for part in parts:
        for who in range(producers):
            numbers = [number for producer, number in part if producer == who]
            check(numbers == sorted(numbers), "out of order", numbers)
    share.work["values"] += len(sent)


def selects(share: Share) -> None:
    """Tasks that select sends and receives over the same channels, until all is closed under them."""
    rng = share.random
    chs = [pygo.Channel[int](rng.randrange(3)) for _ in range(rng.randrange(1, 4))]
    stop = pygo.Channel[None]()

    def body() -> tuple[int, int]:
        sent = received = 0
        while True:
            cases = [pygo.recv(stop)] + [pygo.send(ch, 1) for ch in chs] + [pygo.recv(ch) for ch in chs]
            index = pygo.select(*cases).index
            if index == 0:
                return sent, received
            sent, received = sent + (index <= len(chs)), received + (index > len(chs))

    tasks = [pygo.spawn(body) for _ in range(rng.randrange(1, 7))]
    pygo.sleep(rng.random() / 200)
    stop.close()
    totals = join_all(tasks, "select")
    left = sum(len(ch) for ch in chs)
    sent, received = sum(one for one, _ in totals), sum(other for _, other in totals)
    check(sent == received + left, "selects sent", sent, "received", received, "left", left)
    check(all(ch.waiting_receivers == ch.waiting_senders == 0 for ch in chs), "waiters of selects left behind")
    share.work["selects"] += sent + received


def _waits(rng: random.Random) -> list[Callable[[], object]]:
    gone = pygo.spawn(pygo.Channel().recv)
    group, full, lock = pygo.WaitGroup(), pygo.Channel[int](1), pygo.sync.Lock()
    group.add()
    full.send(1)
    lock.acquire()
    condition = pygo.sync.Condition()

    def conditionally() -> None:
        with condition:
            condition.wait()

    waits: list[Callable[[], object]] = [
        pygo.Channel().recv,
        lambda: full.send(2),
        lambda: list(pygo.Channel[int]()),
        lambda: pygo.select(pygo.recv(pygo.Channel[int]()), pygo.send(full, 3)),
        group.wait,
        gone.join,
        lambda: pygo.sleep(1000),
        lock.acquire,
        pygo.sync.Event().wait,
        pygo.sync.Semaphore(0).acquire,
        pygo.sync.Barrier(2).wait,
        pygo.sync.Queue[int]().get,
        pygo.Future[int]().result,
        conditionally,
        lambda: pygo.after(1000).recv(),
    ]
    waits.append(gone.cancel)  # last
    return waits


def cancellation(share: Share) -> None:
    """Tasks in every kind of wait are cancelled, at once or later, some under shields; each cleans up and ends."""
    rng = share.random
    *waits, finish = _waits(rng)
    cleaned = []

    def body(wait: Callable[[], object], shields: bool) -> None:
        try:
            if shields:
                with pygo.shield():
                    pygo.sleep(0.001)
            wait()
        finally:
            pygo.yield_now() if not shields else None
            cleaned.append(wait)

    started = rng.sample(waits, rng.randrange(1, len(waits) + 1))
    tasks = [pygo.spawn(body, wait, rng.random() < 0.3) for wait in started]
    if rng.random() < 0.7:
        pygo.sleep(rng.random() / 500)
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            task.join(timeout=HANG)
        except pygo.TaskCancelled:
            continue
        except TimeoutError:
            raise Failed(f"a cancelled task never ends: {task.waiting_on}") from None
        raise Failed(f"a cancelled task returned: {task}")
    begun = len(cleaned)
    check(begun <= len(started), "cleaned up twice")
    finish()
    share.work["cancelled"] += len(tasks)


def groups(share: Share) -> None:
    """Nested TaskGroups; a failure ends all of them, and comes out once."""
    rng = share.random
    begun, ended = [], []  # whoever is cancelled before it could begin is in neither

    def leaf(fails: bool) -> None:
        begun.append(1)
        try:
            pygo.sleep(rng.random() / 500)
            if fails:
                raise ValueError("planned")
            pygo.sleep(0 if not failing else 1000)
        finally:
            ended.append(1)

    def branch(depth: int) -> None:
        with pygo.TaskGroup() as tg:
            for place in range(3):
                tg.spawn(leaf, failing and depth == 0 and place == 1)
            if depth:
                tg.spawn(branch, depth - 1)

    failing = rng.random() < 0.5
    try:
        branch(rng.randrange(3))
    except ExceptionGroup as failures:
        check(failing and failures.subgroup(ValueError) is not None, "unexpected", failures)
    else:
        check(not failing, "a failure was lost")
    check(len(begun) == len(ended) and (failing or ended), "the block ended before its tasks", begun, ended)
    share.work["groups"] += 1


def timers(share: Share) -> None:
    """Timers, tickers, sleeps and timeouts: none early, none after it was stopped, none lost."""
    rng = share.random
    fired: list[int] = []
    stopped, pending = set(), []
    group = pygo.WaitGroup()

    def ring(number: int) -> None:
        fired.append(number)
        group.done()

    for number in range(rng.randrange(1, 30)):
        group.add()
        timer = pygo.Timer(rng.random() / 200, lambda number=number: ring(number))
        pending.append(timer)
        if rng.random() < 0.4 and timer.stop():
            stopped.add(number)
            group.done()
        elif rng.random() < 0.2 and timer.reset(rng.random() / 200) is False:
            group.add()  # it had fired, and will again
    ticker = pygo.Ticker(0.0005)
    ticks = [ticker.channel.recv(timeout=HANG) for _ in range(rng.randrange(1, 5))]
    check(ticks == sorted(set(ticks)), "ticks", ticks)
    ticker.stop()
    begin, span = time.monotonic(), rng.random() / 200
    try:
        with pygo.timeout(span):
            pygo.sleep(1000)
    except TimeoutError:
        check(time.monotonic() - begin >= span - 1e-6, "early")
    begin = time.monotonic()
    pygo.sleep(span)
    check(time.monotonic() - begin >= span - 1e-6, "early")
    group.wait(timeout=HANG)
    check(not stopped & set(fired), "stopped timers fired", stopped & set(fired))
    if share.plants("leaked timer"):
        share.kept.append(pygo.Timer(1000, print))
    share.work["timers"] += len(fired)


def locks(share: Share) -> None:
    """Every primitive that excludes or counts, between tasks that yield, time out and fail inside."""
    rng = share.random
    lock, rlock = pygo.sync.Lock(), pygo.sync.RLock()
    semaphore, rw = pygo.sync.BoundedSemaphore(2), pygo.sync.RWLock()
    # All there from the start: for a missing key Counter runs code in Python, where another task may come between the
    # reading and the writing of `+=`, and then one of two who may be inside at once is not counted.
    inside = dict.fromkeys(("lock", "rlock", "semaphore", "read", "write"), 0)
    turns = rng.randrange(1, 30)

    @contextlib.contextmanager
    def room(name: str, most: int) -> Iterator[None]:
        inside[name] += 1
        check(inside[name] <= most, name, inside[name], "inside")
        try:
            yield
        finally:
            inside[name] -= 1

    def body(seed: int) -> int:
        chance, done = random.Random(seed), 0
        for _ in range(turns):
            pick = chance.randrange(5)
            with contextlib.suppress(ValueError):
                if pick == 0:
                    with lock, room("lock", 1):
                        pygo.yield_now()
                        if chance.random() < 0.2:
                            raise ValueError
                elif pick == 1:
                    with rlock, rlock, room("rlock", 1):
                        pygo.sleep(chance.random() / 5000)
                elif pick == 2 and semaphore.acquire(timeout=chance.random() / 1000):
                    with room("semaphore", 2):
                        pygo.yield_now()
                    semaphore.release()
                elif pick == 3:
                    with rw.read, room("read", 99):
                        check(not inside["write"], "a reader beside a writer")
                        pygo.yield_now()
                elif pick == 4:
                    with rw.write, room("write", 1):
                        check(not inside["read"], "a writer beside a reader")
                        pygo.yield_now()
            done += 1
        return done

    check(sum(join_all([pygo.spawn(body, rng.random()) for _ in range(rng.randrange(2, 8))], "locks")) >= turns)
    check(not any(inside.values()) and not lock.locked(), "held at the end", inside)
    share.work["locked"] += turns


def queues(share: Share) -> None:
    """A condition, events, a barrier and the queues: what goes in comes out, and everybody gets through."""
    rng = share.random
    kind = rng.choice([pygo.sync.Queue, pygo.sync.LifoQueue, pygo.sync.PriorityQueue])
    queue: Any = kind(rng.choice([0, 1, 3]))
    count, parties = rng.randrange(1, 40), rng.randrange(1, 5)
    event, barrier, got = pygo.sync.Event(), pygo.sync.Barrier(parties), []

    def consume() -> None:
        event.wait(timeout=HANG)
        barrier.wait(timeout=HANG)
        while (item := queue.get(timeout=HANG)) >= 0:
            got.append(item)
            queue.task_done()
        queue.task_done()

    tasks = [pygo.spawn(consume) for _ in range(parties)]
    if not share.plants("lost wake-up"):
        event.set()
    for number in range(count):
        queue.put(number, timeout=HANG)
    queue.join()
    for _ in tasks:
        queue.put(-1, timeout=HANG)
    join_all(tasks, "queue")
    check(sorted(got) == list(range(count)), "queue", sorted(got))
    share.work["queued"] += count


def futures(share: Share) -> None:
    rng = share.random
    awaited = [pygo.Future[int]() for _ in range(rng.randrange(1, 10))]

    def settle(number: int, fails: bool) -> None:
        pygo.sleep(number / 10_000)
        if fails:
            awaited[number].set_exception(ValueError(number))
        else:
            awaited[number].set_result(number)

    failing = {number for number in range(len(awaited)) if rng.random() < 0.3}
    tasks = [pygo.spawn(settle, number, number in failing) for number in range(len(awaited))]
    ended = list(pygo.as_completed([*awaited, *tasks], timeout=HANG))
    check(len(set(ended)) == 2 * len(awaited), "as_completed", len(ended))
    check({n for n, one in enumerate(awaited) if one.exception() is not None} == failing, "futures", failing)
    check(not pygo.wait(tasks, timeout=HANG).not_done, "wait")
    share.work["futures"] += len(awaited)


def contexts(share: Share) -> None:
    """A tree of contexts whose root, or some node, ends: then all below it have, and nothing else."""
    rng = share.random
    root, cancel = pygo.context.with_cancel(pygo.context.background())
    tree, calls = [root], pygo.WaitGroup()
    for _ in range(rng.randrange(1, 12)):
        parent = rng.choice(tree)
        child, _ = rng.choice(
            [
                pygo.context.with_cancel,
                lambda ctx: pygo.context.with_timeout(ctx, 1000),
                lambda ctx: (pygo.context.with_value(ctx, 1, 2), None),
            ]
        )(parent)
        tree.append(child)
    tasks = [pygo.spawn(node.done.recv_ok) for node in tree]
    calls.add(len(tree))
    for node in tree:
        pygo.context.after_func(node, calls.done)
    check(all(node.err is None for node in tree), "ended early")
    cancel()
    check(all(isinstance(node.err, pygo.context.Canceled) for node in tree), "a child missed its parent's end")
    check(join_all(tasks, "context") == [(None, False)] * len(tree), "done channels")
    calls.wait(timeout=HANG)
    share.work["contexts"] += len(tree)


def blocking(share: Share) -> None:
    """Calls that block: in C, in a read, on helper threads."""
    rng = share.random
    readable, writable = os.pipe()
    tasks: list[Any] = [pygo.spawn(os.read, readable, 1) for _ in range(rng.randrange(1, 4))]
    readers = len(tasks)
    tasks += [pygo.spawn(time.sleep, rng.random() / 500) for _ in range(rng.randrange(4))]
    tasks += [pygo.spawn(pygo.to_thread, pow, 2, number) for number in range(rng.randrange(4))]
    tasks += [pygo.spawn(sorted, [3, 1, 2], key=lambda one: time.sleep(0.0002) or one) for _ in range(rng.randrange(3))]
    pygo.sleep(rng.random() / 500)
    os.write(writable, b"x" * readers)
    check(join_all(tasks, "blocking calls")[:readers] == [b"x"] * readers, "reads")
    os.close(readable)
    os.close(writable)
    if share.plants("leaked file"):
        share.kept.append(os.dup(0))
    share.work["blocked"] += len(tasks)


def threads(share: Share) -> None:
    """Ordinary threads as partners of tasks."""
    rng = share.random
    ch, back, count = pygo.Channel[int](rng.randrange(2)), pygo.Channel[int](), rng.randrange(1, 40)

    def forward() -> None:
        for value in ch:
            back.send(value, timeout=HANG)

    made = [threading.Thread(target=forward, daemon=True) for _ in range(rng.randrange(1, 4))]
    for thread in made:
        thread.start()
    sender = pygo.spawn(lambda: [ch.send(number, timeout=HANG) for number in range(count)] and ch.close())
    got = sorted(back.recv(timeout=HANG) for _ in range(count))
    check(got == list(range(count)), "threads", got)
    join_all([sender], "threads")
    for thread in made:
        join_all([pygo.spawn(thread.join, HANG)], "threads")
        check(not thread.is_alive(), "a thread never ends")
    share.work["through threads"] += count


def failures(share: Share) -> None:
    """Exceptions out of tasks, of frames that are deep and objects that are cycles."""
    rng = share.random

    def deep(left: int, cycle: list[Any]) -> int:
        cycle.append(cycle)
        if left == 0:
            pygo.yield_now()
            raise KeyError(left)
        return deep(left - 1, [cycle])

    tasks = [pygo.spawn(deep, rng.randrange(60), []) for _ in range(rng.randrange(1, 8))]
    for task in tasks:
        try:
            task.join(timeout=HANG)
        except KeyError as error:
            check(error.__traceback__ is not None)
        else:
            raise Failed("an exception was lost")
    share.work["failures"] += len(tasks)


def stacks(share: Share) -> None:
    """Overflows, calls on stacks of their own, C callbacks, tasks on large stacks."""
    rng = share.random
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))

    def overflow() -> int:
        return overflow() + 1

    def caught() -> bool:
        try:
            overflow()
        except RecursionError:
            return True
        return False

    def compare(one: Any, other: Any) -> int:
        pygo.yield_now()
        return int(one[0]) - int(other[0])

    def callback() -> bool:
        items = (ctypes.c_int * 6)(3, 1, 2, 0, 5, 4)
        ctypes.CDLL(None).qsort(items, 6, 4, kind(compare))
        return list(items) == [0, 1, 2, 3, 4, 5]

    bodies: list[Callable[[], bool]] = [caught, callback, lambda: pygo.call_on_stack(1 << 19, caught)]
    tasks = [
        pygo.Task(rng.choice(bodies), stack_size=rng.choice([None, None, 1 << 18, 1 << 20]))
        for _ in range(rng.randrange(1, 5))
    ]
    check(all(join_all(tasks, "stacks")), "stacks")
    share.work["stacks"] += len(tasks)


def spawning(share: Share) -> None:
    """Bursts, trees, callbacks, exits, pinned tasks."""
    rng = share.random
    count, depth = rng.randrange(1, 600), rng.randrange(1, 5)
    called = pygo.WaitGroup()

    def tree(depth: int) -> int:
        return 1 + sum(
            task.join(timeout=HANG) for task in [pygo.spawn(tree, depth - 1) for _ in range(3 * bool(depth))]
        )

    def pinned() -> bool:
        with pygo.lock_thread():
            before = threading.get_native_id()
            pygo.sleep(0.0002)
            pygo.yield_now()
            return threading.get_native_id() == before

    burst = [pygo.spawn(int, number) for number in range(count)]
    called.add(count)
    for task in burst:
        task.add_done_callback(lambda _: called.done())
    check(join_all(burst, "burst") == list(range(count)), "burst")
    called.wait(timeout=HANG)
    check(pygo.spawn(tree, depth).join(timeout=HANG) == (3 ** (depth + 1) - 1) // 2, "tree")
    check(all(join_all([pygo.spawn(pinned) for _ in range(rng.randrange(3))], "pinned")), "moved")
    check(join_all([pygo.spawn(pygo.exit_task, 5)], "exit") == [5], "exit_task")
    if share.plants("leaked task"):
        share.kept.append(pygo.spawn(pygo.Channel().recv))
    share.work["spawned"] += count


def machinery(share: Share) -> None:
    """What changes the runtime or looks at it while it runs."""
    rng = share.random
    for _ in range(rng.randrange(1, 6)):
        pick = rng.randrange(4)
        if pick == 0:
            pygo.runtime.set_workers(rng.choice([1, 2, 3, 4, 8, 16]))
        elif pick == 1:
            gc.collect(rng.randrange(3))
        elif pick == 2:
            for task in pygo.all_tasks()[:50]:
                task.frames()
        else:
            sys.setswitchinterval(rng.choice([1e-6, 1e-4, 5e-3]))
        pygo.yield_now()
    if share.plants("leaked memory"):
        share.kept.append(bytearray(rng.randbytes(1000)) * 400)
    share.work["machinery"] += 1


def forks(share: Share) -> None:
    """Rarely, for it takes milliseconds: a child that uses everything anew."""
    if share.random.random() < 0.9:
        return
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ch = pygo.Channel[int]()
            tasks = [pygo.spawn(ch.recv, timeout=HANG) for _ in range(5)]
            for number in range(5):
                ch.send(number, timeout=HANG)
            pygo.sleep(0.0005)
            code = int(sorted(task.join(timeout=HANG) for task in tasks) != list(range(5)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + HANG
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        check(time.monotonic() < deadline, "a child never ends")
        pygo.sleep(0.0005)
    check(done[1] == 0, "a child ended with", done[1])
    share.work["forks"] += 1


ACTIVITIES: list[Callable[[Share], None]] = [
    channels,
    selects,
    cancellation,
    groups,
    timers,
    locks,
    queues,
    futures,
    contexts,
    blocking,
    threads,
    failures,
    stacks,
    spawning,
    machinery,
    forks,
]

# ---- rounds


def _settle(what: str, problem: Callable[[], str | None], patience: float = 10.0) -> None:
    """Until there is no problem; some ends come a moment after the last join."""
    deadline = time.monotonic() + patience
    while (found := problem()) is not None:
        if time.monotonic() > deadline:
            raise Failed(f"{what}: {found}")
        time.sleep(0.0005)


def _left_behind() -> str | None:
    gc.collect(0)
    stats = pygo.runtime.stats()
    left = {name: getattr(stats, name) for name in ("live", "ready", "parked", "timers", "starved")}
    if not any(left.values()) and stats.spawned == stats.finished:
        return None
    return f"{left} {stats.spawned} spawned {stats.finished} finished; {pygo.all_tasks()[:5]}"


def draw(seed: int, number: int) -> list[tuple[Callable[[Share], None], float]]:
    """The activities of a round, and the seed of each."""
    chance = random.Random(f"{seed}/{number}")
    return [(activity, chance.random()) for activity in chance.choices(ACTIVITIES, k=chance.randrange(1, 14))]


def run_round(seed: int, number: int, plant: str | None) -> Share:
    """Draw the activities of the round, run them at once from the main thread, and check that nothing is left."""
    total, shares, tasks = Share(random.Random(), plant), [], []
    for activity, chance in draw(seed, number):
        shares.append(Share(random.Random(chance), plant))
        tasks.append(pygo.Task(activity, (shares[-1],), name=activity.__name__))
    deadline = time.monotonic() + 2 * HANG
    for task in tasks:
        try:
            task.join(timeout=max(0.0, deadline - time.monotonic()))
        except Exception as error:
            if not task.done():
                pygo.runtime.dump()
                raise Failed(f"{task.name} never ends") from None
            raise Failed(f"{task.name}: {error!r}") from error
    for share in shares:
        total.work += share.work
        total.kept += share.kept
    total.work["rounds"] += 1
    return total


# ---- what must stay flat


@dataclass(frozen=True)
class Gauge:
    """A quantity sampled between rounds, and by how much its median may move from early in the run to late."""

    name: str
    read: Callable[[], int]
    slack: int  # 0: it depends on how long the run is


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _slack_of_memory(seconds: float) -> int:
    """Pools and heaps fill within the first minute; what leaks has grown beyond that by then."""
    return 3_000_000 if seconds >= 60 else 16_000_000


GAUGES = [
    Gauge("resident bytes", _resident, 0),
    Gauge("blocks of the interpreter", sys.getallocatedblocks, 4000),
    Gauge("descriptors", lambda: len(os.listdir("/proc/self/fd")), 2),
    Gauge("OS threads", lambda: len(os.listdir("/proc/self/task")), 40),
    Gauge("bytes of stacks", lambda: pygo.runtime.stats().stack_bytes, 4 << 30),
]


def grows(samples: list[int], slack: int) -> bool:
    """Whether the median moved by more than the slack over the last three quarters, and does not slow down.

    Pools grow up to the largest demand so far, ever more seldom: less than a third of it comes in the second half.
    """
    warm = samples[len(samples) // 4 :]
    if len(warm) < 9:
        return False
    third = len(warm) // 3
    early, middle, late = (statistics.median(warm[at : at + third]) for at in (0, third, len(warm) - third))
    return late - early > slack and late - middle > (late - early) / 3


def soak(options: argparse.Namespace) -> Counter[str]:
    """Run, and return the work done; raises Failed."""
    work: Counter[str] = Counter()
    samples: dict[str, list[int]] = {gauge.name: [] for gauge in GAUGES}
    begin = said = time.monotonic()
    every = max(options.seconds / 200, 0.05) if options.plant is None else 0.0  # whatever the speed: after every round
    sampled = begin
    kept: list[Any] = []
    number = options.first
    while time.monotonic() - begin < options.seconds and number - options.first < options.rounds:
        try:
            done = run_round(options.seed, number, options.plant)
            _settle("left behind", _left_behind, 10.0 if options.plant is None else 1.0)
        except Failed as failure:
            raise Failed(f"round {number}: {failure}") from failure
        work += done.work
        kept += done.kept
        number += 1
        now = time.monotonic()
        if now - sampled >= every:
            sampled = now
            gc.collect()
            for gauge in GAUGES:
                samples[gauge.name].append(gauge.read())
        if now - said > 60:
            said = now
            last = {name: values[-1] for name, values in samples.items() if values}
            print(f"{now - begin:.0f} s, {work['rounds']} rounds: {last}", flush=True)
    growing = {}
    for gauge in GAUGES:
        values = samples[gauge.name]
        if grows(values, gauge.slack or _slack_of_memory(options.seconds)):
            growing[gauge.name] = values[:: max(1, len(values) // 24)]
    check(not growing, *(f"{name} grow: {values}" for name, values in growing.items()))
    pygo.runtime.set_workers(2)
    check(not pygo.runtime.leaked_tasks(), "leaked tasks", pygo.runtime.leaked_tasks()[:5])
    return work


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="of the workload; by default another each time")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round (0)")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="so many at most")
    parser.add_argument("--plant", choices=PLANTS, help="a fault to be found, for tests of this very program")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.plant == "lost wake-up":  # not to wait for long; but rounds may take seconds beside a task that computes
        global HANG
        HANG = 2.0
    print(f"seed {options.seed}", flush=True)
    try:
        work = soak(options)
    except Failed as failure:
        traceback.print_exc()
        print(f"FAILED with --seed {options.seed}: {failure}", flush=True)
        return 1
    print(f"all well: {dict(sorted(work.items()))}", flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code else sys.exit(0)
