"""Ordinary ``threading.Thread``s use every primitive, at once and together with tasks."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from helpers import HANG, in_task, in_thread, in_threads, join_all, run_program, wait_until

import pygo


def test_many_threads_send_and_receive_at_once(workers: int) -> None:
    ch: pygo.Channel[tuple[int, int]] = pygo.Channel(3)
    senders, receivers, per_sender = 8, 8, 200
    quota = senders * per_sender // receivers

    def sender(slot: int) -> None:
        for number in range(per_sender):
            ch.send((slot, number), timeout=HANG)

    def receiver() -> list[tuple[int, int]]:
        return [ch.recv(timeout=HANG) for _ in range(quota)]

    functions = [functools.partial(sender, slot) for slot in range(senders)] + [receiver] * receivers
    received = in_threads(functions)[senders:]
    assert sorted(itertools.chain(*received)) == list(itertools.product(range(senders), range(per_sender)))


def test_a_thread_that_only_computes_gets_its_turns_beside_tasks_that_switch() -> None:
    """It cannot ask politely, and where a switch drops the GIL it never comes to ask for that either."""
    turns, over = [0], False

    def body() -> None:
        while not over:
            for _ in range(10_000):
                pass
            turns[0] += 1
            pygo.yield_now()

    def thread() -> int:
        longest, last = 0, turns[0]
        while last < 4000 and not over:
            for _ in range(1000):
                pass
            now = turns[0]
            longest, last = max(longest, now - last), now
        return longest

    tasks = [pygo.spawn(body) for _ in range(2)]
    try:
        longest = in_threads([thread])[0]
    finally:
        over = True  # a task that is left would keep the tests that follow from their turns
        join_all(tasks)
    assert longest < 1000, longest


def test_a_thread_and_a_task_play_ping_pong(workers: int) -> None:
    there: pygo.Channel[int] = pygo.Channel()
    back: pygo.Channel[int] = pygo.Channel()

    def pong() -> None:
        for value in there:
            back.send(value + 1)

    def ping() -> int:
        value = 0
        for _ in range(2000):
            there.send(value)
            value = back.recv()
        there.close()
        return value

    task = pygo.spawn(pong)
    assert in_thread(ping) == 2000
    task.join()
    there, back = pygo.Channel(), pygo.Channel()
    pinger = pygo.spawn(ping)
    in_thread(pong)
    assert pinger.join() == 2000


def test_every_primitive_from_threads_and_tasks_at_once(workers: int) -> None:
    """Twelve actors, every second one a thread, do random operations; what each one put in comes out once."""
    ch: pygo.Channel[Any] = pygo.Channel(2)
    rendezvous: pygo.Channel[Any] = pygo.Channel()
    rounds, actors = 60, 12
    group = pygo.WaitGroup()
    group.add(actors)

    def actor(slot: int) -> list[Any]:
        rng = random.Random(slot)
        put = []
        for number in range(rounds):
            value = (slot, number)
            match rng.randrange(7):
                case 0:
                    ch.send(value)
                    put.append(value)
                case 1:
                    try:
                        ch.send(value, timeout=0.0003)
                        put.append(value)
                    except TimeoutError:
                        pass
                case 2:
                    if pygo.select(pygo.send(ch, value), pygo.send(rendezvous, value), timeout=HANG).index >= 0:
                        put.append(value)
                case 3:
                    if ch.try_send(value):
                        put.append(value)
                case 4:
                    assert pygo.spawn(lambda value=value: value).join(timeout=HANG) == value
                case 5:
                    pygo.sleep(0.0002)
                    pygo.yield_now()
                case 6:
                    inner = pygo.WaitGroup()
                    inner.go(pygo.sleep, 0.0001)
                    inner.wait(timeout=HANG)
                    assert isinstance(pygo.after(0.0001).recv(timeout=HANG), float)
        group.done()
        group.wait(timeout=HANG)
        return put

    def collector() -> list[Any]:
        values = []
        while True:
            index, value, ok = pygo.select(pygo.recv(ch), pygo.recv(rendezvous), pygo.recv(stop))
            if index == 2:
                return values
            assert ok
            values.append(value)

    stop: pygo.Channel[None] = pygo.Channel()
    collectors = [pygo.spawn(collector) for _ in range(3)]
    collected_by_thread: pygo.Channel[list[Any]] = pygo.Channel(1)
    threading.Thread(target=lambda: collected_by_thread.send(collector()), daemon=True).start()
    tasks = [pygo.spawn(actor, slot) for slot in range(0, actors, 2)]
    put = in_threads([functools.partial(actor, slot) for slot in range(1, actors, 2)])
    put += join_all(tasks)
    wait_until(lambda: len(ch) == 0)
    stop.close()
    got = join_all(collectors) + [collected_by_thread.recv(timeout=HANG)]
    assert sorted(itertools.chain(*got)) == sorted(itertools.chain(*put))


def test_threads_come_and_go(workers: int) -> None:
    """400 short threads, each using the runtime once, leave it as it was."""
    ch: pygo.Channel[int] = pygo.Channel()
    task = pygo.spawn(lambda: sum(ch))
    before = pygo.runtime.stats().threads
    for base in range(0, 400, 20):
        in_threads([functools.partial(ch.send, base + slot) for slot in range(20)])
    ch.close()
    assert task.join() == sum(range(400))
    wait_until(lambda: pygo.runtime.stats().threads <= before + 20)


def test_the_first_use_may_be_in_a_thread() -> None:
    program = run_program(
        """
        import threading, pygo
        results = []

        def body():
            ch = pygo.Channel()
            task = pygo.spawn(ch.recv)
            ch.send(3)
            results.append(task.join())

        threads = [threading.Thread(target=body) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(results)
        """
    ).ok()
    assert program.out == f"{[3] * 8}\n"


def test_a_task_waits_for_threads_and_threads_for_tasks(workers: int) -> None:
    def task_body() -> int:
        results = in_threads([lambda: pygo.spawn(int, "4").join() for _ in range(4)])
        return sum(results)

    assert join_all([pygo.spawn(task_body) for _ in range(4)]) == [16] * 4


def test_thread_pools_and_tasks_work_together(workers: int) -> None:
    ch: pygo.Channel[int] = pygo.Channel()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ch.recv) for _ in range(20)]
        sender = pygo.spawn(lambda: [ch.send(number) for number in range(20)])
        assert sorted(future.result(timeout=HANG) for future in futures) == list(range(20))
        sender.join()
        assert in_task(lambda: sum(pool.map(int, "12345"))) == 15
        assert in_task(lambda: pool.submit(lambda: pygo.spawn(int, "6").join()).result(timeout=HANG)) == 6


def test_plain_locks_events_conditions_and_queues_work_between_tasks_and_threads(workers: int) -> None:
    """The library's own primitives block the worker under a task; another one goes on, so all of this ends."""
    lock = threading.Lock()
    condition = threading.Condition(lock)
    event = threading.Event()
    numbers: queue.Queue[int] = queue.Queue(2)
    state = {"go": False}

    def waiter() -> bool:
        with condition:
            ok = condition.wait_for(lambda: state["go"], timeout=HANG)
        return ok and event.wait(HANG)

    def producer() -> None:
        for number in range(50):
            numbers.put(number, timeout=HANG)

    def consumer() -> int:
        return sum(numbers.get(timeout=HANG) for _ in range(25))

    waiters = [pygo.spawn(waiter) for _ in range(6)]
    consumers = [pygo.spawn(consumer) for _ in range(2)]
    producing = pygo.spawn(producer)
    thread_side: pygo.Channel[Any] = pygo.Channel(1)
    threading.Thread(target=lambda: thread_side.send(in_threads([waiter] * 3)), daemon=True).start()
    assert sum(join_all(consumers)) == sum(range(50))
    producing.join()
    with condition:
        state["go"] = True
        condition.notify_all()
    event.set()
    assert all(join_all(waiters))
    assert thread_side.recv(timeout=HANG) == [True] * 3


def test_the_feeder_thread_of_a_multiprocessing_queue_serves_tasks(workers: int) -> None:
    numbers: Any = multiprocessing.get_context("spawn").Queue()
    try:
        putting = [pygo.spawn(lambda base=base: [numbers.put(base + i) for i in range(20)]) for base in (0, 100)]
        getting = pygo.spawn(lambda: sorted(numbers.get(timeout=HANG) for _ in range(40)))
        assert getting.join(timeout=HANG) == [*range(20), *range(100, 120)]
        join_all(putting)
    finally:
        numbers.close()
        numbers.join_thread()


def test_current_threads_names_and_idents_are_true_in_tasks(workers: int) -> None:
    """``threading.current_thread()`` works in a task, and two tasks that run at one moment differ in their ident."""

    def body() -> tuple[int, bool]:
        ident = threading.get_ident()
        time.sleep(0.001)
        return ident, threading.current_thread() is not threading.main_thread()

    outcomes = join_all([pygo.spawn(body) for _ in range(20)])
    assert all(not_main for _, not_main in outcomes)
    assert all(ident != threading.main_thread().ident for ident, _ in outcomes)


def test_a_thread_that_dies_waiting_for_a_daemon_end_is_abandoned() -> None:
    program = run_program(
        """
        import threading, pygo
        ch = pygo.Channel()
        threads = [threading.Thread(target=ch.recv, daemon=True) for _ in range(5)]
        for thread in threads:
            thread.start()
        while ch.waiting_receivers < 5:
            pygo.sleep(0.001)
        print("end")
        """
    ).ok()
    assert program.out == "end\n"
    assert program.err == ""
