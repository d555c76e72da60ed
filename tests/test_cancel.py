"""Cancellation: Task.cancel, timeout, shield. One level-triggered model, checked against a plain copy of it, too."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import HANG, PLACES, in_task, in_thread, join_all, run_program, wait_until

import pygo
from pygo import testing


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Run a function in the main thread, in a task, and on an ordinary thread."""
    return PLACES[request.param]


def waiting(*tasks: pygo.Task[Any]) -> None:
    for task in tasks:
        wait_until(lambda task=task: task.state == "waiting")


WAITS: dict[str, Any] = {
    "recv": lambda ch: ch.recv(),
    "recv_ok": lambda ch: ch.recv_ok(),
    "recv with a timeout": lambda ch: ch.recv(timeout=HANG),
    "next": lambda ch: next(iter(ch)),
    "send": lambda ch: pygo.Channel().send(1),
    "select": lambda ch: pygo.select(pygo.recv(ch), pygo.send(pygo.Channel(), 1)),
    "select without cases": lambda ch: pygo.select(),
    "sleep": lambda ch: pygo.sleep(HANG),
    "join": lambda ch: pygo.spawn(ch.recv_ok).join(),
    "wait group": lambda ch: waiting_group().wait(),
    "future": lambda ch: pygo.Future[int]().result(),
    "wait": lambda ch: pygo.wait([pygo.Future[int]()]),
}


def waiting_group() -> pygo.WaitGroup:
    group = pygo.WaitGroup()
    group.add()
    return group


# ---- Task.cancel ----


@pytest.mark.parametrize("wait", list(WAITS))
def test_the_current_wait_and_every_later_one_raise(wait: str, workers: int) -> None:
    ch = pygo.Channel[Any]()
    seen: list[Any] = []

    def body() -> None:
        for _ in range(3):
            try:
                WAITS[wait](ch)
            except pygo.Cancelled as cancelled:
                seen.append(cancelled.args)

    task = pygo.spawn(body)
    waiting(task)
    assert task.cancel("enough")
    task.join(timeout=HANG)
    assert seen == [("enough",)] * 3
    assert not task.cancelled()  # it went on and ended by itself
    ch.close()
    if wait == "join":
        wait_until(lambda: not pygo.all_tasks())


def test_a_wait_that_need_not_wait_goes_through() -> None:
    ch = pygo.Channel[int](2)

    def body() -> list[int]:
        pygo.current_task().cancel()  # type: ignore[union-attr]
        ch.send(1)
        ch.send(2)
        return [ch.recv(), ch.recv()]

    assert in_task(body) == [1, 2]


@pytest.mark.parametrize("call", [pygo.yield_now, lambda: pygo.sleep(0)], ids=["yield_now", "sleep(0)"])
def test_yielding_is_a_point_of_cancellation(call: Any) -> None:
    def body() -> str:
        pygo.current_task().cancel()  # type: ignore[union-attr]
        with pytest.raises(pygo.Cancelled):
            call()
        return "went on"

    assert in_task(body) == "went on"


def test_what_join_result_and_exception_say_of_a_cancelled_task(place: Any) -> None:
    task = pygo.spawn(pygo.Channel[int]().recv)
    waiting(task)
    task.cancel("no longer wanted")
    for method in (task.join, task.result, task.exception):
        with pytest.raises(pygo.TaskCancelled, match="no longer wanted") as caught:
            place(method)
        assert isinstance(caught.value.__cause__, pygo.Cancelled)
    assert task.cancelled()
    assert task.done()
    assert "pygo.Task" in repr(task)


def test_cancel_tells_whether_it_came_in_time(workers: int) -> None:
    task = pygo.spawn(lambda: None)
    task.join()
    assert not task.cancel()

    def body() -> None:
        try:
            never.recv()
        finally:
            both.wait(HANG)  # it has not ended before

    never, both = pygo.Channel[int](), threading.Event()
    task = pygo.spawn(body)
    waiting(task)
    assert task.cancel("first")
    assert task.cancel("second")
    both.set()
    with pytest.raises(pygo.TaskCancelled, match="first"):
        task.join()
    assert not task.cancel()


@pytest.mark.parametrize("arguments", [((1, 2), {}), ((), {"why": 1})])
def test_cancel_checks_its_arguments(arguments: Any) -> None:
    task = pygo.spawn(lambda: None)
    with pytest.raises(TypeError, match="cancel"):
        task.cancel(*arguments[0], **arguments[1])
    task.join()


def test_a_task_that_has_not_begun_will_not() -> None:
    ran: list[int] = []
    context = contextvars.copy_context()

    def body() -> None:
        tasks = [pygo.spawn(ran.append, 1), pygo.Task(ran.append, (1,), context=context, name="x")]
        for task in tasks:
            assert task.cancel()
        for task in tasks:
            with pytest.raises(pygo.TaskCancelled):
                task.join()

    in_task(body)
    assert ran == []
    context.run(lambda: None)  # it is not left entered


def test_a_cancelled_task_is_not_reported(reports: Any) -> None:
    task = pygo.spawn(pygo.Channel[int]().recv)
    waiting(task)
    task.cancel()
    wait_until(task.done)
    del task
    assert reports.take() == []


def test_an_exception_on_the_way_out_wins(reports: Any) -> None:
    def body() -> None:
        try:
            pygo.Channel[int]().recv()
        finally:
            raise KeyError("cleanup")

    task = pygo.spawn(body)
    waiting(task)
    task.cancel()
    with pytest.raises(KeyError) as caught:
        task.join(timeout=HANG)
    assert isinstance(caught.value.__context__, pygo.Cancelled)
    assert not task.cancelled()


def test_except_exception_lets_cancellation_pass() -> None:
    def body() -> str:
        try:
            pygo.Channel[int]().recv()
        except Exception:
            return "swallowed"
        return "unreachable"

    task = pygo.spawn(body)
    waiting(task)
    task.cancel()
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)


def test_finally_blocks_wait_under_a_shield(workers: int) -> None:
    goodbye = pygo.Channel[str]()

    def body() -> None:
        try:
            pygo.Channel[int]().recv()
        finally:
            with pygo.shield():
                goodbye.send("bye")
                pygo.sleep(0)
            with pytest.raises(pygo.Cancelled):
                goodbye.send("not any more")

    task = pygo.spawn(body)
    waiting(task)
    task.cancel()
    assert goodbye.recv(timeout=HANG) == "bye"
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)


def test_cancelling_from_a_thread_and_from_the_task_itself() -> None:
    task = pygo.spawn(pygo.Channel[int]().recv)
    waiting(task)
    assert in_thread(task.cancel)
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)


def test_a_task_in_a_blocking_call_is_cancelled_at_its_next_wait() -> None:
    gate = threading.Event()

    def body() -> None:
        gate.wait()
        pygo.Channel[int]().recv()

    task = pygo.spawn(body)
    wait_until(lambda: task.state == "blocked")
    task.cancel()
    assert task.state == "blocked"
    gate.set()
    with pytest.raises(pygo.TaskCancelled):
        task.join(timeout=HANG)


def test_joining_a_cancelled_task_does_not_cancel_the_joiner() -> None:
    inner = pygo.spawn(pygo.Channel[int]().recv)

    def joiner() -> str:
        try:
            inner.join()
        except pygo.TaskCancelled:
            pygo.sleep(0)  # waits as ever
            return "not me"
        return "unreachable"

    outer = pygo.spawn(joiner)
    waiting(inner, outer)
    inner.cancel()
    assert outer.join(timeout=HANG) == "not me"


def test_a_cancelled_joiner_leaves_the_task_alone() -> None:
    ch = pygo.Channel[int]()
    inner = pygo.spawn(ch.recv)
    outer = pygo.spawn(inner.join)
    waiting(inner, outer)
    outer.cancel()
    with pytest.raises(pygo.TaskCancelled):
        outer.join(timeout=HANG)
    ch.send(5)
    assert inner.join(timeout=HANG) == 5


def test_nothing_of_a_cancelled_task_stays(workers: int) -> None:
    class Marker:
        pass

    def body(marker: Marker) -> None:
        pygo.Channel[int]().recv()

    marker = Marker()
    trace = weakref.ref(marker)
    task = pygo.spawn(body, marker)
    del marker
    waiting(task)
    task.cancel()
    wait_until(task.done)
    del task
    gc.collect()
    assert trace() is None


# ---- a value handed over in the same instant ----


@pytest.mark.parametrize("seed", range(4))
def test_a_value_is_received_or_still_there(seed: int, workers: int) -> None:
    """Receivers are cancelled while senders meet them: each value arrives once, or its send is cancelled too."""
    rng = random.Random(seed)
    ch = pygo.Channel[int](rng.choice([0, 0, 1, 3]))
    total = 300
    sent: list[int] = []
    got: list[int] = []

    def sender(value: int) -> None:
        ch.send(value)
        sent.append(value)

    def receiver(use_select: bool) -> None:
        value = pygo.select(pygo.recv(ch)).value if use_select else ch.recv()
        got.append(value)

    tasks: list[pygo.Task[Any]] = []
    for value in range(total):
        tasks.append(pygo.spawn(sender, value))
        tasks.append(pygo.spawn(receiver, rng.random() < 0.5))

    def canceller(mine: list[pygo.Task[Any]], seed: int) -> None:
        mine_rng = random.Random(seed)
        for task in mine:
            if mine_rng.random() < 0.4:
                task.cancel()
            if mine_rng.random() < 0.2:
                pygo.yield_now()

    shuffled = rng.sample(tasks, len(tasks))
    cancellers = [pygo.spawn(canceller, shuffled[part::3], seed + part) for part in range(3)]
    join_all(cancellers)
    with contextlib.suppress(TimeoutError):
        pygo.wait(tasks, timeout=0.2)
    for task in tasks:
        task.cancel()
    pygo.wait(tasks, timeout=HANG)
    left = []
    while len(ch):
        left.append(ch.try_recv()[0])
    assert sorted(got + left) == sorted(sent)
    assert len(set(got)) == len(got)
    assert ch.waiting_receivers == ch.waiting_senders == 0


# ---- timeout ----


@pytest.mark.parametrize("wait", list(WAITS))
def test_a_deadline_ends_a_wait(wait: str, place: Any) -> None:
    ch = pygo.Channel[Any]()

    def body() -> None:
        start = time.monotonic()
        with pytest.raises(TimeoutError) as caught, pygo.timeout(0.02) as scope:
            try:
                WAITS[wait](ch)
            except pygo.Cancelled:
                assert scope.expired
                raise
        assert time.monotonic() - start >= 0.02
        assert isinstance(caught.value.__cause__, pygo.Cancelled)

    place(body)
    ch.close()
    wait_until(lambda: not pygo.all_tasks())


def test_a_block_in_time_costs_nothing(place: Any) -> None:
    def body() -> int:
        with pygo.timeout(HANG) as scope:
            pygo.sleep(0)
            assert not scope.expired
            assert scope.deadline is not None
            assert scope.deadline > time.monotonic()
        return pygo.runtime.stats().timers

    assert place(body) == 0


def test_without_a_deadline_a_timeout_does_nothing() -> None:
    with pygo.timeout(None) as scope:
        assert scope.deadline is None
        pygo.sleep(0)


def test_a_timeout_of_zero_tries_once(place: Any) -> None:
    ch = pygo.Channel[int](1)
    ch.send(7)

    def body() -> int:
        with pytest.raises(TimeoutError), pygo.timeout(0):
            value = ch.recv()
            ch.recv()
        return value

    assert place(body) == 7


@pytest.mark.parametrize("seconds", [-1, float("nan"), "soon"])
def test_a_bad_time_is_refused_at_the_call(seconds: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        pygo.timeout(seconds)


def test_the_outer_deadline_counts_inside_too(workers: int) -> None:
    def body() -> str:
        try:
            with pygo.timeout(0.01), pygo.timeout(HANG) as inner:
                pygo.sleep(HANG)
        except TimeoutError:
            assert not inner.expired
            return "outer"
        return "none"

    assert in_task(body) == "outer"


def test_the_inner_deadline_leaves_the_outer_block_running() -> None:
    def body() -> str:
        with pygo.timeout(HANG):
            with pytest.raises(TimeoutError), pygo.timeout(0.01):
                pygo.sleep(HANG)
            pygo.sleep(0.001)
            return "went on"

    assert in_task(body) == "went on"


def test_both_deadlines_passed_is_the_outers_timeout() -> None:
    def body() -> str:
        trace = []
        try:
            with pygo.timeout(0.01):
                try:
                    with pygo.timeout(0.01):
                        time.sleep(0.05)
                        pygo.sleep(HANG)
                except TimeoutError:
                    trace.append("inner")
                except pygo.Cancelled:
                    trace.append("cancelled")
                    raise
        except TimeoutError:
            trace.append("outer")
        return " ".join(trace)

    assert in_task(body) == "cancelled outer"


def test_cancel_inside_a_timeout_stays_a_cancellation() -> None:
    def body() -> None:
        with pygo.timeout(HANG):
            pygo.sleep(HANG)

    task = pygo.spawn(body)
    waiting(task)
    task.cancel("by hand")
    with pytest.raises(pygo.TaskCancelled, match="by hand"):
        task.join(timeout=HANG)


def test_a_shield_keeps_outer_deadlines_away_but_not_inner_ones() -> None:
    def body() -> list[str]:
        trace = []
        with contextlib.suppress(TimeoutError), pygo.timeout(0.01):
            with pygo.shield():
                pygo.sleep(0.03)
                trace.append("shielded")
                with pytest.raises(TimeoutError), pygo.timeout(0.01):
                    pygo.sleep(HANG)
                trace.append("inner deadline")
            trace.append("unshielded")
            pygo.sleep(HANG)
            trace.append("unreachable")
        return trace

    assert in_task(body) == ["shielded", "inner deadline", "unshielded"]


def test_other_exceptions_pass_through_an_expired_timeout() -> None:
    with pytest.raises(KeyError), pygo.timeout(0.001):
        time.sleep(0.01)
        raise KeyError


def test_an_expired_block_that_waits_no_more_ends_normally() -> None:
    with pygo.timeout(0.001) as scope:
        wait_until(lambda: scope.expired)
    pygo.sleep(0.001)  # nothing of it is left


def test_reschedule_moves_the_deadline() -> None:
    def body() -> None:
        with pygo.timeout(0.01) as scope:
            scope.reschedule(HANG)
            pygo.sleep(0.03)
            scope.reschedule(None)
            assert scope.deadline is None

    testing.bubble(body)  # in virtual time, so that the first deadline cannot pass before it is moved
    with pygo.timeout(HANG) as scope:
        scope.reschedule(None)
    with pytest.raises(RuntimeError):
        scope.reschedule(1)
    with pytest.raises(TimeoutError), pygo.timeout(HANG) as scope:
        scope.reschedule(0)
        pygo.sleep(HANG)


def test_cancel_of_a_scope_from_elsewhere(place: Any, workers: int) -> None:
    scopes = pygo.Channel[pygo.Scope](1)

    def body() -> str:
        try:
            with pygo.timeout(None) as scope:
                scopes.send(scope)
                pygo.sleep(HANG)
        except TimeoutError:
            return "ended"
        return "unreachable"

    task = pygo.spawn(lambda: scopes.recv().cancel())
    assert place(body) == "ended"
    task.join(timeout=HANG)


def test_a_scope_is_for_one_block_of_one_task() -> None:
    scope = pygo.timeout(1)
    with pytest.raises(RuntimeError, match="must be left"):
        scope.__exit__(None, None, None)
    with scope:
        with pytest.raises(RuntimeError, match="once"):
            scope.__enter__()
        with pytest.raises(RuntimeError, match="must be left"):
            in_task(scope.__exit__, None, None, None)
        with pytest.raises(RuntimeError, match="must be left"):
            in_thread(scope.__exit__, None, None, None)
    with pytest.raises(TypeError):
        scope.__exit__()  # type: ignore[call-arg]
    assert "timeout" in repr(scope)
    assert "left" in repr(scope)
    assert "shield" in repr(pygo.shield())
    with pytest.raises(TypeError):
        pygo.Scope()


def generator_with_a_deadline(seconds: float) -> Iterator[int]:
    with pygo.timeout(seconds):
        yield 1
        pygo.sleep(HANG)
        yield 2


def test_a_scope_left_open_by_a_generator_ends_with_its_task(workers: int) -> None:
    def body() -> Any:
        generator = generator_with_a_deadline(0.01)
        assert next(generator) == 1
        return generator

    generator = in_task(body)
    assert pygo.runtime.stats().timers == 0
    pygo.sleep(0.02)
    del generator
    gc.collect()


def test_a_scope_left_open_in_a_thread_does_no_harm() -> None:
    kept: list[Any] = []

    def body() -> None:
        generator = generator_with_a_deadline(0.02)
        next(generator)
        kept.append(generator)

    in_thread(body)
    pygo.sleep(0.05)  # it expires for a thread that is gone
    with pytest.raises(RuntimeError):
        kept.pop().close()


def test_scopes_left_out_of_order_are_unlinked() -> None:
    def body() -> str:
        outer = generator_with_a_deadline(HANG)
        next(outer)
        inner = pygo.timeout(HANG)
        with inner:
            outer.close()
            pygo.sleep(0)
        pygo.sleep(0)
        return "fine"

    assert in_task(body) == "fine"


def test_many_deadlines_at_once(workers: int) -> None:
    def body(number: int) -> bool:
        try:
            with pygo.timeout(number % 10 / 1000):
                pygo.Channel[int]().recv()
        except TimeoutError:
            return True
        return False

    assert all(join_all([pygo.spawn(body, number) for number in range(2000)]))


def test_a_deadline_and_a_value_at_the_same_moment(workers: int) -> None:
    """Whatever comes first, the value is received once or stays with its sender."""
    for attempt in range(60):
        ch = pygo.Channel[int]()
        moment = 0.0005 * (attempt % 4)

        def receiver(ch: Any = ch, moment: float = moment) -> int | None:
            try:
                with pygo.timeout(moment):
                    return ch.recv()  # type: ignore[no-any-return]
            except TimeoutError:
                return None

        def sender(ch: Any = ch, moment: float = moment) -> bool:
            pygo.sleep(moment)
            return ch.try_send(1)  # type: ignore[no-any-return]

        first, second = pygo.spawn(receiver), pygo.spawn(sender)
        assert (first.join(timeout=HANG) == 1) == second.join(timeout=HANG)


def test_deadlines_count_on_in_a_forks_child() -> None:
    finished = run_program(
        """
        import os, pygo

        def body():
            with pygo.timeout(0.2):
                pid = os.fork()
                try:
                    pygo.Channel().recv()
                except pygo.Cancelled:
                    os.write(1, b"child cancelled\\n" if pid == 0 else b"parent cancelled\\n")
                    if pid == 0:
                        os._exit(0)
                    os.waitpid(pid, 0)
                    raise

        try:
            pygo.spawn(body).join()
        except TimeoutError:
            print("parent timed out")
        """
    )
    assert sorted(finished.ok().out.split("\n")[:-1]) == ["child cancelled", "parent cancelled", "parent timed out"]


# ---- the model ----


class Model:
    """What a stack of scopes over one task says of a wait, written down a second time."""

    def __init__(self) -> None:
        self.scopes: list[list[Any]] = []  # [kind, cancelled]
        self.requested = False

    def is_cancelled(self, depth: int | None = None) -> bool:
        for kind, cancelled in reversed(self.scopes[:depth]):
            if kind == "shield":
                return False
            if cancelled:
                return True
        return self.requested


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_agree_with_the_model(seed: int) -> None:
    rng = random.Random(seed)
    steps: list[str] = []

    def outcome(wait: Any) -> str:
        try:
            wait()
        except pygo.Cancelled:
            return "cancelled"
        except TimeoutError:
            return "timed out"
        return "waited"

    def body() -> None:
        model = Model()
        task = pygo.current_task()
        assert task is not None
        stack: list[Any] = []

        def check() -> None:
            expected = "cancelled" if model.is_cancelled() else "waited"
            assert outcome(pygo.yield_now) == expected, steps
            expected = "cancelled" if model.is_cancelled() else "timed out"
            assert outcome(lambda: pygo.Channel[int]().recv(timeout=0.0001)) == expected, steps

        def block(level: int) -> None:
            for _ in range(rng.randint(1, 4)):
                step = rng.choice(["wait", "wait", "enter", "enter", "cancel scope", "cancel task"])
                steps.append(step)
                if step == "cancel task" and rng.random() < 0.15:
                    task.cancel()
                    model.requested = True
                elif step == "cancel scope" and stack:
                    at = rng.randrange(len(stack))
                    if model.scopes[at][0] == "timeout":
                        stack[at].cancel()
                        model.scopes[at][1] = True
                elif step == "enter" and level < 5:
                    enter(level)
                check()

        def enter(level: int) -> None:
            kind = rng.choice(["timeout", "timeout", "shield"])
            scope = pygo.timeout(None) if kind == "timeout" else pygo.shield()
            raises = rng.random() < 0.5
            depth = len(stack)
            try:
                with scope:
                    stack.append(scope)
                    model.scopes.append([kind, False])
                    block(level + 1)
                    if raises:
                        pygo.yield_now()
            except TimeoutError:
                ended = "timed out"
            except pygo.Cancelled:
                ended = "cancelled"
            else:
                ended = "normal"
            expected = "normal"
            if raises and model.is_cancelled():
                own = kind == "timeout" and model.scopes[-1][1] and not model.is_cancelled(depth)
                expected = "timed out" if own else "cancelled"
            assert ended == expected, steps
            stack.pop()
            model.scopes.pop()

        for _ in range(10):
            block(0)

    task = pygo.spawn(body)
    with contextlib.suppress(pygo.TaskCancelled):
        task.join(timeout=HANG)


@pytest.mark.parametrize("seed", range(6))
def test_random_interleavings_deliver_each_cancellation(seed: int, workers: int) -> None:
    """Tasks that wait in all ways, cancelled at random moments: each ends, cancelled or with its value."""
    rng = random.Random(seed)
    ch = pygo.Channel[int]()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6 if seed % 2 else before)
    try:
        waits = itertools.cycle([name for name in WAITS if name != "join"])
        tasks = [pygo.spawn(WAITS[next(waits)], ch) for _ in range(200)]

        def feed() -> None:
            for value in itertools.count():
                try:
                    ch.send(value, timeout=0.05)
                except TimeoutError:
                    return

        feeder = pygo.spawn(feed)
        for task in rng.sample(tasks, len(tasks)):
            task.cancel()
            if rng.random() < 0.3:
                pygo.yield_now()
        done, not_done = pygo.wait(tasks, timeout=HANG)
        assert not not_done
        assert all(task.cancelled() or not task._failed for task in done)
        feeder.join(timeout=HANG)
    finally:
        sys.setswitchinterval(before)
    assert ch.waiting_receivers == ch.waiting_senders == 0
