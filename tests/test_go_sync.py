"""The behaviours of the tests of golang.org/x/sync: errgroup, semaphore, singleflight. Tables: docs/testing.md."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers import HANG, in_task, join_all, run_main, scaled

import pygo
from pygo import Channel, TaskGroup, context, sync
from pygo.testing import wait_until_blocked


class Doomed(Exception):
    """Compared by its number, so that tests can say which of them came out."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self.number = number


def end_with(error: BaseException | None) -> None:
    if error is not None:
        raise error


class TestErrGroup:
    """A TaskGroup stands for the group, its block for everything up to Wait."""

    @pytest.mark.parametrize("outcomes", ["", "-", "1", "1-", "-1", "1-2", "--3-"], ids=lambda text: f"outcomes {text}")
    def test_the_first_failure_comes_out(self, outcomes: str, workers: int) -> None:
        """TestZeroGroup: each task ends before the next is started. After a failure none begins any more."""
        failures = [Doomed(int(letter)) if letter != "-" else None for letter in outcomes]
        begun: list[Doomed | None] = []

        def body(failure: Doomed | None) -> None:
            begun.append(failure)
            end_with(failure)

        def main() -> list[Exception]:
            tasks = []
            try:
                with TaskGroup() as tg:
                    for failure in failures:
                        tasks.append(tg.spawn(body, failure))
                        with pygo.shield():
                            pygo.wait(tasks)
            except ExceptionGroup as group:
                return list(group.exceptions)
            return []

        firsts = [place for place, failure in enumerate(failures) if failure][:1]
        assert in_task(main) == [failures[place] for place in firsts]
        assert begun == failures[: firsts[0] + 1 if firsts else len(failures)]

    @pytest.mark.parametrize("outcomes", ["", "-", "1", "1-"], ids=lambda text: f"outcomes {text}")
    def test_a_context_of_the_group_ends_with_it_and_has_the_failure_as_its_cause(
        self, outcomes: str, workers: int
    ) -> None:
        """TestWithContext, TestCancelCause: in terms of pygo, a context that the block cancels at its end."""
        failures = [Doomed(int(letter)) if letter != "-" else None for letter in outcomes]
        ctx, cancel = context.with_cancel(context.background())

        def main() -> BaseException | None:
            cause: BaseException | None = None
            try:
                with TaskGroup() as tg:
                    for failure in failures:
                        tg.spawn(end_with, failure)
            except ExceptionGroup as group:
                (cause,) = group.exceptions
                return cause
            finally:
                cancel(cause)
            return None

        expected = next((failure for failure in failures if failure), None)
        assert in_task(main) is expected
        assert ctx.done.closed
        assert ctx.err == context.Canceled
        assert ctx.cause is (expected or ctx.err)

    def test_a_failure_ends_the_waits_of_the_others(self, workers: int) -> None:
        """What errgroup leaves to those who look at the context, a TaskGroup does to every wait."""
        ended: list[int] = []

        def waiter(number: int) -> None:
            try:
                Channel[int]().recv()
            finally:
                ended.append(number)

        def main() -> None:
            with TaskGroup() as tg:
                waiters = [tg.spawn(waiter, number) for number in range(20)]
                wait_until_blocked(*waiters)
                tg.spawn(end_with, Doomed())

        with pytest.raises(ExceptionGroup) as caught:
            in_task(main)
        assert [type(error) for error in caught.value.exceptions] == [Doomed]
        assert sorted(ended) == list(range(20))

    @pytest.mark.parametrize("limit", [1, 42])
    def test_one_more_than_the_limit_has_to_wait_until_one_ends(self, limit: int, workers: int) -> None:
        """TestTryGo, with a deadline in place of TryGo: a spawn that gives up starts nothing."""
        gate: Channel[None] = Channel()
        started: list[int] = []

        def body(number: int) -> None:
            started.append(number)
            gate.send(None)

        def main() -> None:
            with TaskGroup(limit=limit) as tg:
                tasks = [tg.spawn(body, number) for number in range(limit)]
                wait_until_blocked(*tasks)
                with pytest.raises(TimeoutError), pygo.timeout(0.005):
                    tg.spawn(body, -1)
                gate.recv()
                tasks.append(tg.spawn(body, limit))
                for _ in range(limit):
                    gate.recv()
                join_all(tasks)
                last = tg.spawn(body, limit + 1)
                gate.recv()
                last.join()

        in_task(main)
        assert sorted(started) == list(range(limit + 2))

    def test_no_more_than_the_limit_are_active(self, workers: int, switch_interval: float) -> None:
        """TestGoLimit"""
        limit, total, active, most = 10, scaled(300, 1025), [0], [0]
        lock = sync.Lock()

        def body() -> None:
            with lock:
                active[0] += 1
                most[0] = max(most[0], active[0])
            pygo.sleep(1e-6)  # others get a chance to become active
            with lock:
                active[0] -= 1

        def main() -> None:
            with TaskGroup(limit=limit) as tg:
                for _ in range(total):
                    tg.spawn(body)

        run_main(main)
        assert active == [0]
        assert 1 < most[0] <= limit

    def test_a_parallel_search_has_all_results_or_the_failure(self, workers: int) -> None:
        """ExampleGroup_parallel, ExampleGroup_justErrors"""

        def search(kind: str, query: str) -> str:
            pygo.yield_now()
            if kind == query:
                raise Doomed
            return f"{kind} result for {query}"

        def google(query: str) -> list[str]:
            with TaskGroup() as tg:
                tasks = [tg.spawn(search, kind, query) for kind in ("web", "image", "video")]
            return [task.result(timeout=0) for task in tasks]

        assert in_task(google, "go") == [f"{kind} result for go" for kind in ("web", "image", "video")]
        with pytest.raises(ExceptionGroup):
            in_task(google, "image")

    @pytest.mark.parametrize("broken", [None, 37])
    def test_a_pipeline_ends_whole_or_fails_whole(
        self, broken: int | None, workers: int, switch_interval: float
    ) -> None:
        """ExampleGroup_pipeline: a walker, digesters, and a task that closes the results when they have ended."""
        count = 100

        def walk(paths: Channel[int]) -> None:
            try:
                for number in range(count):
                    paths.send(number)
            finally:
                paths.close()

        def digest(paths: Channel[int], results: Channel[tuple[int, int]]) -> None:
            for number in paths:
                if number == broken:
                    raise Doomed(number)
                results.send((number, number * number))

        def main() -> dict[int, int]:
            paths, results = Channel[int](), Channel[tuple[int, int]]()

            def digest_all() -> None:
                try:
                    with TaskGroup() as tg:
                        for _ in range(20):
                            tg.spawn(digest, paths, results)
                finally:
                    results.close()

            with TaskGroup() as tg:
                tg.spawn(walk, paths)
                tg.spawn(digest_all)
                found = dict(results)
            return found

        if broken is None:
            assert in_task(main) == {number: number * number for number in range(count)}
        else:
            with pytest.raises(ExceptionGroup) as caught:
                in_task(main)
            assert caught.value.subgroup(lambda error: getattr(error, "number", None) == broken) is not None

    def test_a_task_that_ends_early_is_no_failure(self, workers: int) -> None:
        def main() -> None:
            with TaskGroup(limit=2) as tg:
                for _ in range(20):
                    tg.spawn(pygo.exit_task)

        in_task(main)


class TestSemaphore:
    def test_weights_of_all_sizes_under_the_hammer(self, workers: int, seed: int, switch_interval: float) -> None:
        """TestWeighted"""
        size, rounds = 8, scaled(60, 1250)
        semaphore, lock, used, most = sync.WeightedSemaphore(size), sync.Lock(), [0], [0]

        def hammer(weight: int) -> None:
            rng = random.Random(f"{seed} {weight}")
            for _ in range(rounds):
                semaphore.acquire(weight)
                with lock:
                    used[0] += weight
                    most[0] = max(most[0], used[0])
                if rng.random() < 0.3:
                    pygo.sleep(rng.random() * 1e-4)
                with lock:
                    used[0] -= weight
                semaphore.release(weight)

        join_all([pygo.spawn(hammer, weight) for weight in range(size + 1)])
        assert used == [0]
        assert most[0] <= size
        assert semaphore.try_acquire(size)

    @pytest.mark.parametrize("way", ["try", "with a deadline", "with a timeout"])
    def test_what_is_left_can_be_had_and_no_more(self, way: str, workers: int) -> None:
        """TestWeightedTryAcquire, TestWeightedAcquire"""
        semaphore = sync.WeightedSemaphore(2)

        def attempt() -> bool:
            if way == "try":
                return semaphore.try_acquire(1)
            if way == "with a timeout":
                return semaphore.acquire(1, timeout=0.002)
            try:
                with pygo.timeout(0.002):
                    return semaphore.acquire(1)
            except TimeoutError:
                return False

        def main() -> list[bool]:
            semaphore.acquire(1)
            tries = [attempt(), attempt()]
            semaphore.release(2)
            tries.append(attempt())
            semaphore.acquire(1)
            return [*tries, attempt()]

        assert in_task(main) == [True, False, True, False]

    def test_one_that_asks_for_too_much_blocks_nobody(self, workers: int) -> None:
        """TestWeightedDoesntBlockIfTooBig: Go's waits until it is cancelled; here it is refused at once."""
        size = 2
        semaphore = sync.WeightedSemaphore(size)

        def body() -> None:
            semaphore.acquire(1)
            pygo.sleep(0.0001)
            semaphore.release(1)

        def main() -> None:
            with TaskGroup() as tg:
                for _ in range(size * 3):
                    tg.spawn(body)
                with pytest.raises(ValueError, match="more"):
                    semaphore.acquire(size + 1)

        in_task(main)
        assert semaphore.try_acquire(size)

    def test_a_pool_of_workers_is_done_when_all_of_the_semaphore_can_be_had(self, workers: int) -> None:
        """Example_workerPool"""
        size, total = 4, 32
        semaphore, out = sync.WeightedSemaphore(size), [0] * total

        def collatz(number: int) -> int:
            steps = 0
            while number > 1:
                number, steps = number // 2 if number % 2 == 0 else 3 * number + 1, steps + 1
            return steps

        def body(slot: int) -> None:
            try:
                out[slot] = collatz(slot + 1)
            finally:
                semaphore.release(1)

        def main() -> None:
            for slot in range(total):
                semaphore.acquire(1)
                pygo.spawn(body, slot)
            assert semaphore.acquire(size, timeout=HANG)

        in_task(main)
        assert out == [collatz(number) for number in range(1, total + 1)]


class TestSingleFlight:
    def test_a_caller_may_go_on_and_take_the_result_later(self, workers: int) -> None:
        """TestDoChan: a task of one's own makes of Do what DoChan is."""
        flights = sync.SingleFlight[str]()
        results: Channel[Any] = Channel(1)
        pygo.spawn(lambda: results.send(flights.do("key", lambda: "bar")))
        assert results.recv(timeout=HANG) == ("bar", False)

    @pytest.mark.parametrize("end", ["exception", "exit_task", "cancellation"])
    def test_nobody_hangs_however_the_call_ends(self, end: str, workers: int, switch_interval: float) -> None:
        """TestPanicDo, TestGoexitDo: five callers at once, all of whose calls end so."""
        flights, calls = sync.SingleFlight[str](), []

        def fn() -> None:
            calls.append(True)
            pygo.yield_now()
            if end == "exception":
                raise Doomed
            if end == "exit_task":
                pygo.exit_task("ended")
            task = pygo.current_task()
            assert task is not None
            task.cancel()
            pygo.sleep(0)

        tasks = [pygo.spawn(flights.do, "key", fn) for _ in range(5)]
        outcomes = []
        for task in tasks:
            try:
                outcomes.append(type(task.exception(timeout=HANG)))
            except pygo.TaskCancelled as error:
                outcomes.append(type(error))
        expected = {"exception": Doomed, "exit_task": type(None), "cancellation": pygo.TaskCancelled}[end]
        assert outcomes == [expected] * 5
        assert len(calls) == 5 if end != "exception" else 1 <= len(calls) <= 5
        assert "0 in flight" in repr(flights)

    def test_what_ends_the_program_is_its_callers_alone(self, workers: int) -> None:
        """TestPanicDoSharedByDoChan: Go ends the program; here who shared the call makes one of their own."""
        flights, go_on, calls = sync.SingleFlight[str](), sync.Event(), []

        class End(BaseException):
            pass

        def fn() -> int:
            calls.append(True)
            if len(calls) == 1:
                go_on.wait()
                raise End
            return len(calls)

        leader = pygo.spawn(flights.do, "key", fn)
        wait_until_blocked(leader)
        other = pygo.spawn(flights.do, "key", fn)
        wait_until_blocked(other)
        go_on.set()
        assert other.join(timeout=HANG).value == 2
        assert isinstance(leader.exception(timeout=HANG), End)

    def test_keys_do_not_share(self, workers: int, seed: int) -> None:
        """Calls with equal keys that overlap share, others never do; each caller gets its own key's value."""
        flights, running = sync.SingleFlight[int](), [0] * 5

        def load(key: int) -> int:
            running[key] += 1
            assert running[key] == 1
            pygo.sleep(0.0001)
            running[key] -= 1
            return key * 10

        def body(number: int) -> None:
            rng = random.Random(f"{seed} {number}")
            for _ in range(20):
                key = rng.randrange(5)
                assert flights.do(key, load, key).value == key * 10

        join_all([pygo.spawn(body, number) for number in range(10)])
        assert "0 in flight" in repr(flights)
