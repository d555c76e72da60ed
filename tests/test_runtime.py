"""pygo.runtime: workers, counts, dumps; blocking and computing tasks stop nobody."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers import HANG, blocked_reader, in_task, in_threads, join_all, run_program, wait_until

import pygo
from pygo import runtime


class TestWorkers:
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 64])
    def test_their_number_can_be_set_while_tasks_run(self, count: int) -> None:
        before = runtime.workers()
        stop: pygo.Channel[None] = pygo.Channel()

        def yielder() -> int:
            turns = 0
            while not stop.closed:
                turns += 1
                pygo.yield_now()
            return turns

        tasks = [pygo.spawn(yielder) for _ in range(8)]
        try:
            runtime.set_workers(count)
            assert runtime.workers() == count
            assert runtime.stats().workers == count
            assert in_task(lambda: 1) == 1
            in_task(runtime.set_workers, before)
            assert runtime.workers() == before
        finally:
            runtime.set_workers(before)
            stop.close()
        assert all(join_all(tasks))

    def test_changing_it_again_and_again_loses_no_task(self) -> None:
        before = runtime.workers()
        ch: pygo.Channel[int] = pygo.Channel(3)

        def relay(number: int) -> None:
            pygo.yield_now()
            ch.send(number)

        try:
            tasks = []
            for turn in range(60):
                runtime.set_workers(1 + turn * 7 % 16)
                tasks += [pygo.spawn(relay, turn * 20 + number) for number in range(20)]
                for _ in range(15):
                    ch.recv(timeout=HANG)
            for _ in range(300):
                ch.recv(timeout=HANG)
        finally:
            runtime.set_workers(before)
        join_all(tasks)

    @pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)])
    def test_a_bad_number_is_refused(self, bad: Any, error: type[Exception]) -> None:
        before = runtime.workers()
        with pytest.raises(error):
            runtime.set_workers(bad)
        assert runtime.workers() == before

    def test_the_default_is_the_cpus_this_process_may_use(self) -> None:
        program = "import os, pygo; print(pygo.runtime.workers() == len(os.sched_getaffinity(0)))"
        environment = {name: value for name, value in os.environ.items() if name != "PYGO_WORKERS"}
        environment["PYTHONPATH"] = os.path.dirname(os.path.dirname(pygo.__file__))
        output = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=HANG, cwd="/"
        )
        assert output.stdout == "True\n", output

    def test_the_environment_sets_it(self) -> None:
        source = "import pygo; print(pygo.spawn(pygo.runtime.workers).join(), pygo.runtime.stats().workers)"
        assert run_program(source, env={"PYGO_WORKERS": "7"}).ok().out == "7 7\n"

    @pytest.mark.parametrize("value", ["0", "-3", "many", ""])
    def test_a_useless_value_in_the_environment_does_not_break_the_program(self, value: str) -> None:
        """It is ignored or named in an error; it never crashes."""
        program = run_program("import pygo; print(pygo.spawn(int, '3').join())", env={"PYGO_WORKERS": value})
        assert program.out == "3\n" or (program.code == 1 and "PYGO_WORKERS" in program.err), program


class TestStats:
    def test_it_has_the_documented_counts(self) -> None:
        stats = runtime.stats()
        for name in (
            "workers threads spawned finished live ready parked blocked "
            "fibers fibers_pooled switches handoffs steals timers"
        ).split():
            value = getattr(stats, name)
            assert isinstance(value, int), name
            assert value >= 0, name
        assert "spawned" in repr(stats)

    def test_spawned_and_finished_count_tasks(self, workers: int) -> None:
        before = runtime.stats()
        join_all([pygo.spawn(int) for _ in range(1000)])
        wait_until(lambda: runtime.stats().finished - before.finished == 1000)
        after = runtime.stats()
        assert after.spawned - before.spawned == 1000
        assert after.live == before.live

    def test_parked_live_and_timers_count_waiting_tasks(self, workers: int) -> None:
        wait_until(lambda: (runtime.stats().live, runtime.stats().parked) == (0, 0))
        before = runtime.stats()
        ch: pygo.Channel[int] = pygo.Channel()
        tasks = [pygo.spawn(ch.recv) for _ in range(100)] + [pygo.spawn(ch.recv, timeout=1000) for _ in range(50)]
        wait_until(lambda: ch.waiting_receivers == 150)
        wait_until(lambda: runtime.stats().parked == 150)  # one more while the runtime has a task of its own under way
        now = runtime.stats()
        assert now.live == 150
        assert now.timers - before.timers == 50
        assert now.fibers >= 150
        ch.close()
        for task in tasks:
            task.exception(timeout=HANG)

    def test_switches_grow_with_switches(self) -> None:
        def body() -> int:
            there, back = pygo.Channel[int](), pygo.Channel[int]()
            other = pygo.spawn(lambda: [back.send(there.recv()) for _ in range(500)])
            before = runtime.stats().switches
            for number in range(500):
                there.send(number)
                assert back.recv() == number
            other.join()
            return runtime.stats().switches - before

        assert in_task(body) >= 500

    def test_a_blocked_task_is_counted(self) -> None:
        with blocked_reader() as (task, release):

            def counted() -> bool:
                pygo.spawn(int).join()
                return runtime.stats().blocked >= 1

            wait_until(counted)
            release()
            task.join()
        wait_until(lambda: runtime.stats().blocked == 0)

    def test_fresh_tasks_that_never_wait_share_a_few_fibers(self) -> None:
        """Before its first run a task has no stack: 100,000 of them need a handful."""
        program = run_program(
            """
            import pygo
            tasks = [pygo.spawn(int) for _ in range(100_000)]
            for task in tasks:
                task.join()
            stats = pygo.runtime.stats()
            print(stats.fibers)
            """
        ).ok()
        assert int(program.out) <= 200

    def test_it_can_be_read_from_everywhere_at_once(self, workers: int) -> None:
        def body() -> int:
            return sum(runtime.stats().spawned >= 0 for _ in range(200))

        tasks = [pygo.spawn(body) for _ in range(10)]
        assert in_threads([body] * 4) == [200] * 4
        assert join_all(tasks) == [200] * 10


class TestDump:
    def test_it_shows_every_task_with_its_state_wait_age_origin_and_stack(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()

        def the_parked_function() -> int:
            return ch.recv()

        tasks = [pygo.Task(the_parked_function, name=f"parked-{number}") for number in range(5)]
        wait_until(lambda: ch.waiting_receivers == 5)
        stream = io.StringIO()
        runtime.dump(file=stream)
        text = stream.getvalue()
        for task in tasks:
            assert task.name in text
            assert str(task.id) in text
        assert text.count("the_parked_function") >= 5
        assert "waiting" in text
        assert "test_runtime.py" in text
        assert tasks[0].waiting_on.reason in text
        ch.close()
        for task in tasks:
            task.exception(timeout=HANG)

    def test_it_writes_to_stderr_by_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.Task(ch.recv, name="dumped-to-stderr")
        wait_until(lambda: ch.waiting_receivers == 1)
        runtime.dump()
        ch.send(1)
        task.join()
        assert "dumped-to-stderr" in capsys.readouterr().err

    def test_it_can_be_called_in_a_task_and_with_no_tasks(self) -> None:
        stream = io.StringIO()
        runtime.dump(file=stream)
        task = pygo.Task(runtime.dump, kwargs={"file": stream}, name="the-dumping-task")
        task.join()
        assert "the-dumping-task" in stream.getvalue()

    def test_it_can_be_called_while_tasks_run(self, workers: int) -> None:
        stop: pygo.Channel[None] = pygo.Channel()

        def busy(depth: int) -> None:
            while not stop.closed:
                if depth:
                    return busy(depth - 1)
                pygo.yield_now()

        def blocking() -> None:
            while not stop.closed:
                time.sleep(0.0005)

        tasks = [pygo.spawn(busy, depth) for depth in range(10)] + [pygo.spawn(blocking) for _ in range(4)]
        for _ in range(50):
            runtime.dump(file=io.StringIO())
        stop.close()
        join_all(tasks)


class TestDefaultStackSize:
    def test_it_can_be_set(self) -> None:
        program = run_program(
            """
            import pygo
            for size in (64 << 10, 256 << 10, 1 << 20, 8 << 20):
                pygo.runtime.set_default_stack_size(size)
                tasks = [pygo.spawn(lambda: sorted([2, 1], key=lambda value: value)) for _ in range(100)]
                assert all(task.join() == [1, 2] for task in tasks)
            """
        )
        program.ok()

    @pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (0, ValueError), ("x", TypeError), (1.5, TypeError)])
    def test_a_bad_size_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            runtime.set_default_stack_size(bad)


def tick(interval: float, until: Any, sleep: Any = pygo.sleep) -> list[float]:
    """Sleep ``interval`` again and again until the tasks in ``until`` are done; the times of the ticks."""
    ticks = []
    while not all(task.done() for task in until):
        sleep(interval)
        ticks.append(time.monotonic())
    return ticks


def busy_loop(seconds: float) -> int:
    turns, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        turns += 1
    return turns


def start_thread(fn: Any, *args: Any) -> Any:
    """A task's like made of an ordinary thread: for what the machine can do at this moment."""
    return FUTURES.submit(fn, *args)


FUTURES = ThreadPoolExecutor(16)


class TestBlockingTasks:
    """On a busy machine the bars of the issue are out of reach for threads too: these must then be matched."""

    def beside_a_ticker(self, start: Any, body: Any, seconds: float, count: int) -> tuple[float, int]:
        """Run ``body(seconds)`` ``count`` times at once beside a 5 ms ticker; seconds taken and ticks meanwhile."""
        sleep = pygo.sleep if start is pygo.spawn else time.sleep
        begin = time.monotonic()
        running = [start(body, seconds) for _ in range(count)]
        ticker = start(tick, 0.005, running, sleep)
        for item in running:
            item.result(timeout=HANG)
        return time.monotonic() - begin, len(ticker.result(timeout=HANG))

    def test_eight_real_sleeps_run_beside_a_ticker(self) -> None:
        """The issue's bar: all done in < 0.3 s, at least 35 ticks of 5 ms meanwhile."""
        outcomes = []
        for _ in range(5):
            elapsed, ticks = self.beside_a_ticker(pygo.spawn, time.sleep, 0.2, 8)
            if elapsed < 0.3 and ticks >= 35:
                return
            by_threads = self.beside_a_ticker(start_thread, time.sleep, 0.2, 8)
            outcomes.append(((elapsed, ticks), by_threads))
            if elapsed < 1.2 * by_threads[0] and ticks >= 0.8 * by_threads[1]:
                return
        pytest.fail(f"(seconds, ticks) of tasks and of threads: {outcomes}")

    def test_a_ticker_ticks_beside_a_busy_loop(self) -> None:
        """The issue's bar: at least 80 ticks of 5 ms in a second of computing."""
        outcomes = []
        for _ in range(4):
            _, ticks = self.beside_a_ticker(pygo.spawn, busy_loop, 1.0, 1)
            if ticks >= 80:
                return
            _, by_threads = self.beside_a_ticker(start_thread, busy_loop, 1.0, 1)
            outcomes.append((ticks, by_threads))
            if ticks >= 0.8 * by_threads:
                return
        pytest.fail(f"ticks of tasks and of threads: {outcomes}")

    def test_busy_loops_on_every_worker_starve_nobody(self, workers: int) -> None:
        over: list[bool] = []

        def hog() -> None:
            while not over:
                pass

        def ticker() -> None:
            for _ in range(3):
                pygo.sleep(0.001)

        hogs = [pygo.spawn(hog) for _ in range(workers + 1)]
        try:
            ticks = pygo.spawn(ticker)
            for _ in range(3):
                pygo.spawn(int).join(timeout=HANG)
            ticks.join(timeout=HANG)
        finally:
            over.append(True)
        join_all(hogs)

    def test_more_blocking_calls_than_workers_all_go_on_at_once(self, workers: int) -> None:
        """Each of 40 tasks blocks until all 40 have arrived: they can only end together."""
        barrier = threading.Barrier(40)
        tasks = [pygo.spawn(barrier.wait, HANG) for _ in range(40)]
        assert sorted(join_all(tasks)) == list(range(40))

    def test_a_task_serves_another_that_blocks_on_it(self, workers: int) -> None:
        """One blocks in ``recv`` of a plain socket pair, the other writes to it: in every order of starting."""

        def reader(sock: socket.socket) -> bytes:
            return b"".join(sock.recv(1) for _ in range(20))

        def writer(sock: socket.socket) -> None:
            for _ in range(20):
                sock.send(b"x")
                pygo.yield_now()

        for turn in range(10):
            left, right = socket.socketpair()
            with left, right:
                if turn % 2:
                    reading = pygo.spawn(reader, left)
                    writing = pygo.spawn(writer, right)
                else:
                    writing = pygo.spawn(writer, right)
                    reading = pygo.spawn(reader, left)
                assert reading.join(timeout=HANG) == b"x" * 20
                writing.join()

    def test_a_threading_lock_held_across_a_wait_stops_only_those_who_want_it(self, workers: int) -> None:
        lock = threading.Lock()
        gate: pygo.Channel[None] = pygo.Channel()

        def holder() -> None:
            with lock:
                gate.recv()

        def wanter() -> int:
            with lock:
                return 1

        holding = pygo.spawn(holder)
        wait_until(lambda: gate.waiting_receivers == 1)
        wanting = [pygo.spawn(wanter) for _ in range(10)]
        assert pygo.spawn(int, "3").join(timeout=HANG) == 3
        gate.send(None)
        assert join_all([holding, *wanting]) == [None] + [1] * 10

    def test_blocking_tasks_leave_no_threads_behind_for_ever(self) -> None:
        """300 tasks that block at once may need 300 threads for a moment; they retire or stay within a bound."""
        program = run_program(
            """
            import os, time, pygo
            pygo.runtime.set_workers(2)
            for _ in range(2):
                tasks = [pygo.spawn(time.sleep, 0.05) for _ in range(200)]
                for task in tasks:
                    task.join()
            peak = len(os.listdir("/proc/self/task"))
            deadline = time.monotonic() + 20
            while pygo.runtime.stats().threads > 64 and time.monotonic() < deadline:
                time.sleep(0.05)
            print(peak, pygo.runtime.stats().threads)
            """,
            timeout=3 * HANG,
        ).ok()
        assert int(program.out.split()[1]) <= 64


class TestIdling:
    def test_a_hundred_thousand_parked_tasks_use_no_cpu(self) -> None:
        """The issue's bar: < 5 ms of CPU time in 5 s; here in 3 s."""
        program = run_program(
            """
            import time, pygo
            ch = pygo.Channel()
            tasks = [pygo.spawn(ch.recv) for _ in range(100_000)]
            while ch.waiting_receivers < 100_000:
                time.sleep(0.01)
            # Spare threads retire and unused pages are given back first; that must end.
            deadline, used = time.monotonic() + 20, 1.0
            while used >= 0.005 and time.monotonic() < deadline:
                start = time.process_time()
                time.sleep(3)
                used = time.process_time() - start
            print(used)
            """,
            timeout=2 * HANG,
        ).ok()
        assert float(program.out) < 0.005

    def test_a_sleeping_runtime_wakes_for_work_from_a_thread(self, workers: int) -> None:
        """After each pause long enough for every worker to sleep, one spawn and one send get through."""
        ch: pygo.Channel[int] = pygo.Channel()

        def echo() -> None:
            for value in ch:
                out.send(value)

        out: pygo.Channel[int] = pygo.Channel()
        task = pygo.spawn(echo)
        for number in range(100):
            time.sleep(0.0001 * (number % 30))
            ch.send(number)
            assert out.recv(timeout=HANG) == number
            assert pygo.spawn(int, number).join(timeout=HANG) == number
        ch.close()
        task.join()


def test_tasks_can_run_child_processes(workers: int) -> None:
    def child(number: int) -> str:
        return subprocess.run(["echo", str(number)], capture_output=True, text=True, check=True).stdout

    tasks = [pygo.spawn(child, number) for number in range(6)]
    assert join_all(tasks) == [f"{number}\n" for number in range(6)]
