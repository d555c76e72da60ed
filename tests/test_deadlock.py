"""DeadlockError: raised where nothing can wake the main thread, and nowhere else.

Each program runs in a process of its own: the test run's threads and signal handlers count as able to wake.
"""

from __future__ import annotations

import pytest
from helpers import run_program

WORKERS = [1, 2, 4, 16]

# The bodies of main; each waits for ever. After Go's deadlock programs.
STUCK = {
    "receive": "pygo.Channel().recv()",
    "send": "pygo.Channel().send(1)",
    "receive from a buffered channel": "pygo.Channel(3).recv()",
    "send to a full channel": "ch = pygo.Channel(1); ch.send(1); ch.send(2)",
    "iterate": "list(pygo.Channel())",
    "select without cases": "pygo.select()",
    "select on nil channels": "pygo.select(pygo.recv(None), pygo.send(None, 1))",
    "select on channels nobody uses": "pygo.select(pygo.recv(pygo.Channel()), pygo.send(pygo.Channel(), 1))",
    "wait group": "wg = pygo.WaitGroup(); wg.add(); wg.wait()",
    "join of a parked task": "pygo.spawn(pygo.Channel().recv).join()",
    "join of a task in select": "pygo.spawn(pygo.select).join()",
    "two tasks wait for each other": """
        a, b = pygo.Channel(), pygo.Channel()
        def body(mine, other):
            mine.recv()
            other.send(1)
        one, two = pygo.spawn(body, a, b), pygo.spawn(body, b, a)
        one.join()
    """,
    "after many tasks have ended": """
        tasks = [pygo.spawn(pygo.yield_now) for _ in range(1000)]
        for task in tasks:
            task.join()
        pygo.Channel().recv()
    """,
    "after a blocking call has ended": """
        pygo.spawn(time.sleep, 0.01)
        pygo.spawn(pygo.sleep, 0.01)
        pygo.Channel().recv()
    """,
    "a task locked to its thread": """
        def body():
            with pygo.lock_thread():
                pygo.Channel().recv()
        pygo.spawn(body).join()
    """,
    "main locked to its thread": """
        with pygo.lock_thread():
            pygo.select()
    """,
    "while a module is imported": """
        import pathlib
        pathlib.Path(__file__).with_name("stuck.py").write_text("import pygo; pygo.select()")
        import stuck
    """,
    "another thread waits too": """
        ch = pygo.Channel()
        thread = threading.Thread(target=ch.recv_ok, daemon=True)
        thread.start()
        pygo.Channel().recv()
    """,
    "another thread has ended": """
        thread = threading.Thread(target=time.sleep, args=(0.3,))
        thread.start()
        pygo.Channel().recv()
    """,
    "a handler that Python installed itself": """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pygo.Channel().recv()
    """,
    "a stopped timeout": """
        pygo.spawn(pygo.Channel(1).send, 1, 60).join()
        pygo.Channel().recv()
    """,
    "a child of a fork": """
        pygo.spawn(int).join()
        pid = os.fork()
        if pid:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        pygo.Channel().recv()
    """,
}

HEAD = "import os, signal, subprocess, sys, threading, time\nimport pygo\n"


def program(body: str) -> str:
    lines = body.strip("\n").splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return HEAD + "\n".join(line[indent:] for line in lines) + "\n"


@pytest.mark.parametrize("name", STUCK)
def test_main_that_nothing_can_wake_gets_an_error(name: str) -> None:
    ended = run_program(program(STUCK[name]), env={"PYGO_WORKERS": "2"})
    assert ended.code == 2, ended
    assert "pygo.DeadlockError: the main thread waits, and nothing can wake it" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("count", WORKERS)
def test_all_tasks_asleep(count: int) -> None:
    body = """
        channels = [pygo.Channel() for _ in range(100)]
        def body(slot):
            channels[slot].recv()
        tasks = [pygo.spawn(body, slot) for slot in range(100)]
        try:
            tasks[0].join()
        except pygo.DeadlockError as error:
            text = str(error)
        assert text.count("channel receive on <pygo.Channel") == 100, text
        assert text.count("in body") == 100, text
        for channel in channels:
            channel.send(1)
        for task in tasks:
            task.join()
        print("all joined")
    """
    ended = run_program(program(body), env={"PYGO_WORKERS": str(count)}).ok()
    assert ended.out == "all joined\n"


def test_an_uncaught_one_prints_the_dump_and_exits_with_2_the_ordinary_way() -> None:
    body = """
        import atexit
        atexit.register(print, "handlers run")
        pygo.Task(pygo.Channel().recv, name="stuck task")
        try:
            pygo.Channel().recv()
        finally:
            print("finally runs")
    """
    ended = run_program(program(body))
    assert ended.code == 2
    assert ended.out == "finally runs\nhandlers run\n"
    assert "'stuck task' waiting in channel receive on" in ended.err
    assert ended.err.startswith("Traceback (most recent call last)")
    assert "_deadlock.py" not in ended.err


def test_other_exceptions_keep_their_exit_code_and_hook() -> None:
    body = """
        sys.excepthook = lambda kind, exc, traceback: print("hook", kind.__name__)
        try:
            pygo.Channel().recv()
        except pygo.DeadlockError:
            print("caught")
        raise KeyError(1)
    """
    ended = run_program(program(body))
    assert (ended.code, ended.out) == (1, "caught\nhook KeyError\n")


def test_the_hook_of_the_program_sees_it() -> None:
    body = """
        sys.excepthook = lambda kind, exc, traceback: print("hook", kind.__name__)
        pygo.Channel().recv()
    """
    ended = run_program(program(body))
    assert (ended.code, ended.out) == (2, "hook DeadlockError\n")


def test_what_main_raises_gets_through_its_finally_blocks_that_wait() -> None:
    """Go's TestPanicDeadlockGosched, TestPanicDeadlockSyscall."""
    body = """
        pygo.spawn(pygo.Channel().recv)
        try:
            raise KeyError("hello")
        finally:
            pygo.yield_now()
            time.sleep(0.001)
            pygo.spawn(time.sleep, 0.001).join()
    """
    ended = run_program(program(body))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("KeyError: 'hello'\n")


def test_the_dump_has_no_tasks_of_the_runtime() -> None:
    """Go's TestNoHelperGoroutines: timers, a worker for blocking calls and the collector need none that one sees."""
    body = """
        import gc
        pygo.spawn(time.sleep, 0.001).join()
        rung = pygo.Channel(1)
        timer, later = pygo.Timer(0.001, lambda: rung.send(1)), pygo.Timer(3600, print)
        rung.recv()
        pygo.after(0.001).recv()
        gc.collect()
        while pygo.runtime.stats().live:
            pygo.sleep(0.001)
        assert pygo.all_tasks() == []
        pygo.runtime.dump(sys.stdout)
    """
    ended = run_program(program(body)).ok()
    assert "0 tasks" in ended.out, ended.out


def test_it_comes_again_at_the_next_hopeless_wait() -> None:
    body = """
        for _ in range(3):
            try:
                pygo.Channel().recv()
            except pygo.DeadlockError:
                print("caught")
        pygo.Channel().recv()
    """
    ended = run_program(program(body))
    assert (ended.code, ended.out) == (2, "caught\n" * 3)


# Programs whose main waits without a deadline and is woken after a time in which it looks around hundreds of times.
FINE = {
    "a sleeper": "pygo.spawn(pygo.sleep, 0.3).join()",
    "a task in time.sleep": "pygo.spawn(time.sleep, 0.3).join()",
    "a task in a subprocess": "pygo.spawn(subprocess.run, ['sleep', '0.3']).join()",
    "a task in a read": """
        readable, writable = os.pipe()
        threading.Timer(0.3, os.write, (writable, b'x')).start()
        pygo.spawn(os.read, readable, 1).join()
    """,
    "a read that another process ends": """
        child = subprocess.Popen(["sleep", "0.3"], stdout=subprocess.PIPE)
        pygo.spawn(child.stdout.read).join()
        child.wait()
    """,
    "a task that computes": "pygo.spawn(sum, range(20_000_000)).join()",
    "after": "pygo.after(0.3).recv()",
    "a timeout in a task": """
        def body():
            try:
                pygo.Channel().recv(timeout=0.3)
            except TimeoutError:
                pass
        pygo.spawn(body).join()
    """,
    "a thread that sleeps": """
        ch = pygo.Channel()
        threading.Timer(0.3, ch.send, (1,)).start()
        ch.recv()
    """,
    "a daemon thread that sleeps": """
        ch = pygo.Channel()
        def body():
            time.sleep(0.3)
            ch.send(1)
        threading.Thread(target=body, daemon=True).start()
        ch.recv()
    """,
    "a thread that waits in pygo with a timeout": """
        ch = pygo.Channel()
        def body():
            pygo.sleep(0.3)
            ch.send(1)
        threading.Thread(target=body).start()
        ch.recv()
    """,
    "threads that pass it on": """
        channels = [pygo.Channel() for _ in range(5)]
        def body(source, target):
            target.send(source.recv())
        for source, target in zip(channels, channels[1:]):
            threading.Thread(target=body, args=(source, target)).start()
        pygo.spawn(lambda: (time.sleep(0.3), channels[0].send(1)))
        channels[-1].recv()
    """,
    "a signal handler": """
        ch = pygo.Channel(1)
        signal.signal(signal.SIGALRM, lambda *_: ch.send(1))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        ch.recv()
    """,
    "a main that sleeps": "pygo.sleep(0.3)",
    "a main with a timeout": """
        try:
            pygo.Channel().recv(timeout=0.3)
        except TimeoutError:
            pass
    """,
    "somebody outside": """
        from pygo import _extension
        ch = pygo.Channel()
        _extension.outside_add(1)
        pygo.spawn(int).join()
        def later():
            _extension.outside_add(-1)
        pygo.spawn(lambda: (pygo.sleep(0.3), ch.send(1), later()))
        ch.recv()
    """,
    "tasks that spawn tasks": """
        def chain(left):
            return pygo.spawn(chain, left - 1).join() if left else "end"
        assert pygo.spawn(chain, 300).join() == "end"
    """,
    "the end of the process": """
        import atexit
        pygo.spawn(pygo.Channel().recv)
        pygo.spawn(pygo.sleep, 100)
        pygo.yield_now()
    """,
}


@pytest.mark.parametrize("name", FINE)
def test_main_that_will_be_woken_gets_no_error(name: str) -> None:
    hasten = "from pygo import _extension\n_extension.set_signal_slice(0.0005)\n"
    ended = run_program(program(FINE[name]).replace("import pygo\n", "import pygo\n" + hasten, 1))
    assert ended.ok().err == ""


@pytest.mark.parametrize("count", WORKERS)
def test_the_last_wake_comes_from_a_worker(count: int) -> None:
    """Main looks around all the time while the only one who can wake it is on its way to do so and to rest."""
    body = """
        from pygo import _extension
        _extension.set_signal_slice(2e-5)
        def passing(source, target):
            target.send(source.recv())
        def blocking(target):
            time.sleep(1e-4)
            target.send(1)
        for turn in range(200):
            first, second, last = pygo.Channel(), pygo.Channel(turn % 2), pygo.Channel()
            pygo.spawn(passing, first, second)
            pygo.spawn(passing, second, last)
            if turn % 4 == 0:
                pygo.spawn(pygo.sleep, 2e-4).add_done_callback(lambda task: pygo.spawn(first.send, 1))
            elif turn % 4 == 1:
                pygo.spawn(blocking, first)
            elif turn % 4 == 2:
                threading.Thread(target=passing, args=(pygo.after(1e-4), first)).start()
            else:
                pygo.spawn(first.send, 1)
            last.recv()
        print("woken")
    """
    assert run_program(program(body), env={"PYGO_WORKERS": str(count)}).ok().out == "woken\n"


def test_handlers_at_exit_may_wait() -> None:
    body = """
        import atexit
        from pygo import _extension
        _extension.set_signal_slice(2e-5)
        def at_exit():
            task.join()
            print("joined")
        atexit.register(at_exit)
        task = pygo.spawn(pygo.sleep, 0.2)
    """
    assert run_program(program(body)).ok().out == "joined\n"


def test_waiting_for_a_foreign_thread_costs_nothing() -> None:
    body = """
        ch = pygo.Channel()
        threading.Timer(2.0, ch.send, (1,)).start()
        start = time.process_time()
        ch.recv()
        used = time.process_time() - start
        print(used < 0.1 or used)
    """
    assert run_program(program(body)).ok().out == "True\n"


def test_the_count_of_those_outside_cannot_become_negative() -> None:
    ended = run_program(program("from pygo import _extension\n_extension.outside_add(-1)"))
    assert "pg_sched_outside_add" in ended.err
