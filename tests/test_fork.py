"""fork: only the forking task lives on in the child, and the runtime works there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import run_program, shared_library

# Forking with several threads is what these tests are about.
QUIET = ("-W", "ignore::DeprecationWarning")

PRELUDE = """
import multiprocessing, os, signal, subprocess, sys, threading, time, pygo

def quick_suite():
    # Something of everything; the runtime must be as new.
    assert [pygo.spawn(int, n).join(timeout=20) for n in range(100)] == list(range(100))
    ch, other = pygo.Channel(), pygo.Channel(2)
    tasks = [pygo.spawn(ch.recv, timeout=20) for _ in range(50)]
    for number in range(50):
        ch.send(number, timeout=20)
    assert sorted(task.join(timeout=20) for task in tasks) == list(range(50))
    group = pygo.WaitGroup()
    for _ in range(20):
        group.go(time.sleep, 0.001)
        group.go(pygo.sleep, 0.001)
        group.go(pygo.yield_now)
    group.wait(timeout=20)
    assert pygo.select(pygo.recv(ch), pygo.send(other, 1), timeout=20).index == 1
    assert isinstance(pygo.after(0.001).recv(timeout=20), float)
    thread = threading.Thread(target=lambda: pygo.spawn(other.send, 2).join(timeout=20))
    thread.start()
    thread.join()
    assert len(other) == 2
    pygo.runtime.set_workers(3)
    assert pygo.spawn(pygo.runtime.workers).join() == 3
    assert pygo.runtime.stats().live == (pygo.current_task() is not None)
    return 0

def fork_and_check(child=quick_suite):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child()
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 98
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    wait_for(pid)

def wait_for(pid):
    deadline = time.monotonic() + 25
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
            return
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        pygo.sleep(0.002)
"""

BUSINESS = {
    "nothing": "",
    "parked": "keep = [pygo.spawn(pygo.Channel().recv) for _ in range(1000)]",
    "sleeping": "keep = [pygo.spawn(pygo.sleep, 1000) for _ in range(1000)]",
    "blocking": "keep = [pygo.spawn(time.sleep, 1000) for _ in range(8)]",
    "busy": """
def busy():
    while True:
        pass
keep = [pygo.spawn(busy) for _ in range(4)]
""",
    "exchanging": """
shared = pygo.Channel()
def sender():
    while True:
        shared.send(1)
def receiver():
    while True:
        pygo.select(pygo.recv(shared), timeout=1)
keep = [pygo.spawn(body) for body in (sender, receiver) for _ in range(5)]
""",
    "spawning": """
def spawner():
    while True:
        pygo.spawn(pygo.yield_now).join()
keep = [pygo.spawn(spawner) for _ in range(5)]
""",
    "threads": """
shared = pygo.Channel()
threads = [threading.Thread(target=shared.recv, daemon=True) for _ in range(5)]
for thread in threads:
    thread.start()
while shared.waiting_receivers < 5:
    time.sleep(0.001)
""",
}


@pytest.mark.parametrize("business", list(BUSINESS))
@pytest.mark.parametrize("place", ["main", "task", "thread"])
def test_the_child_can_use_the_runtime(place: str, business: str) -> None:
    forks = {
        "main": "fork_and_check()",
        "task": "pygo.spawn(fork_and_check).join(timeout=28)",
        "thread": "ended = pygo.Channel(1); "
        "threading.Thread(target=lambda: (fork_and_check(), ended.send(1)), daemon=True).start(); "
        "ended.recv(timeout=28)",
    }
    program = run_program(
        PRELUDE
        + BUSINESS[business]
        + f"""
for _ in range(3):
    {forks[place]}
assert pygo.spawn(int, "3").join(timeout=20) == 3
print("parent goes on")
""",
        options=QUIET,
        timeout=90,
    ).ok()
    assert program.out == "parent goes on\n"
    assert program.err == ""


def test_only_the_forking_task_lives_in_the_child() -> None:
    program = run_program(
        PRELUDE
        + """
ch = pygo.Channel()
keep = [pygo.spawn(ch.recv) for _ in range(10)]
while ch.waiting_receivers < 10:
    pygo.sleep(0.001)

def child():
    me = pygo.current_task()
    assert me is not None and pygo.all_tasks() == [me], pygo.all_tasks()
    assert pygo.runtime.stats().live == 1
    return quick_suite()

def child_of_main():
    assert pygo.current_task() is None and pygo.all_tasks() == []
    assert pygo.runtime.stats().live == 0
    return quick_suite()

pygo.spawn(fork_and_check, child).join()
fork_and_check(child_of_main)
for number in range(10):
    ch.send(number)
print(sorted(task.join() for task in keep))
""",
        options=QUIET,
    ).ok()
    assert program.out == f"{list(range(10))}\n"


def test_the_parents_channels_can_be_used_in_the_child() -> None:
    """Buffered values are there; waiters of the parent are not."""
    program = run_program(
        PRELUDE
        + """
buffered, awaited = pygo.Channel(3), pygo.Channel()
buffered.send(1)
buffered.send(2)
keep = pygo.spawn(awaited.recv)
while awaited.waiting_receivers < 1:
    pygo.sleep(0.001)

def child():
    assert [buffered.recv(), buffered.recv()] == [1, 2]
    assert awaited.try_send(1) is False
    task = pygo.spawn(awaited.recv)
    awaited.send(5, timeout=20)
    assert task.join(timeout=20) == 5
    return 0

fork_and_check(child)
pygo.spawn(fork_and_check, child).join()
awaited.send(7)
print(keep.join(), len(buffered))
""",
        options=QUIET,
    ).ok()
    assert program.out == "7 2\n"


def test_a_child_that_ends_normally_exits_cleanly() -> None:
    """Not by ``os._exit``: atexit handlers and finalization run in the child too."""
    program = run_program(
        PRELUDE
        + """
import atexit
atexit.register(lambda: print("atexit", pygo.spawn(int, "3").join(timeout=10), flush=True))
keep = [pygo.spawn(pygo.Channel().recv) for _ in range(100)]
pygo.spawn(int).join()
pid = os.fork()
if pid == 0:
    assert pygo.spawn(int, "4").join(timeout=10) == 4
    sys.exit(0)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
""",
        options=QUIET,
    ).ok()
    assert program.out == "atexit 3\nchild ended with 0\natexit 3\n"
    assert program.err == ""


def test_the_child_can_fork_again() -> None:
    program = run_program(
        PRELUDE
        + """
def child(depth):
    quick_suite()
    if depth:
        fork_and_check(lambda: child(depth - 1))
    return 0

fork_and_check(lambda: child(3))
pygo.spawn(fork_and_check, lambda: child(3)).join()
print("end")
""",
        options=QUIET,
        timeout=60,
    ).ok()
    assert program.out == "end\n"


def test_a_fork_before_the_first_use_changes_nothing() -> None:
    program = run_program(PRELUDE + "fork_and_check()\nfork_and_check()\nprint(quick_suite())", options=QUIET).ok()
    assert program.out == "0\n"


@pytest.mark.parametrize("place", ["main", "task"])
def test_multiprocessing_with_fork_works(place: str) -> None:
    program = run_program(
        PRELUDE
        + f"""
def child(number):
    return pygo.spawn(lambda: number * 2).join(timeout=20)

def body():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=lambda n=n: queue.put(child(n))) for n in range(3)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=20) for _ in processes)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    with context.Pool(2) as pool:
        return results + pool.map(child, range(5))

keep = [pygo.spawn(pygo.Channel().recv) for _ in range(10)]
print({"body()" if place == "main" else "pygo.spawn(body).join(timeout=60)"})
""",
        options=QUIET,
        timeout=70,
    ).ok()
    assert program.out == f"{[0, 2, 4, 0, 2, 4, 6, 8]}\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing_with_other_methods_works_in_a_task(method: str) -> None:
    program = run_program(
        PRELUDE
        + f"""
def body():
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])

if __name__ == "__main__":
    print(pygo.spawn(body).join(timeout=60))
""",
        timeout=70,
    ).ok()
    assert program.out == "[1, 2, 3]\n"


def test_many_forks_beside_running_tasks() -> None:
    """At forty moments, with tasks of every kind running."""
    program = run_program(
        PRELUDE
        + BUSINESS["exchanging"]
        + BUSINESS["spawning"]
        + """
for turn in range(20):
    fork_and_check(lambda: pygo.spawn(int).join(timeout=20))
    pygo.spawn(fork_and_check, lambda: pygo.spawn(int).join(timeout=20)).join()
print("end")
""",
        options=QUIET,
        timeout=100,
    ).ok()
    assert program.out == "end\n"


def test_hooks_of_others_may_take_their_time_while_tasks_run() -> None:
    """Those registered before pygo's run nearest to the fork; no lock of the core may be held meanwhile."""
    program = run_program(
        """
        import os, time
        os.register_at_fork(before=lambda: time.sleep(0.02), after_in_parent=lambda: time.sleep(0.02))
        import pygo

        def spawner():
            while True:
                pygo.spawn(pygo.yield_now).join()

        keep = [pygo.spawn(spawner) for _ in range(3)]
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        print(pygo.spawn(int, "3").join(timeout=20))
        """,
        options=QUIET,
    ).ok()
    assert program.out == "3\n"


def test_hooks_registered_before_the_import_may_use_pygo() -> None:
    program = run_program(
        """
        import os

        def use():
            pygo.spawn(lambda: ch.send(1)).join(timeout=20)

        os.register_at_fork(before=use, after_in_parent=use, after_in_child=use)
        import pygo
        ch = pygo.Channel(9)
        pid = os.fork()
        if pid == 0:
            os._exit(len(ch))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(ch))
        """,
        options=QUIET,
    ).ok()
    assert program.out == "2 2\n"


@pytest.mark.parametrize("place", ["main", "task"])
def test_finalizers_of_what_other_threads_had_run_in_the_child_and_may_use_pygo(place: str) -> None:
    """The interpreter deletes the states of all other threads and tasks before any hook of the child runs."""
    program = run_program(
        PRELUDE
        + f"""
class Late:
    def __del__(self):
        spawned.append(pygo.spawn(int, "5"))
        ch.try_send(1)
        pygo.spawn(int).join(timeout=20)

ch, ready, spawned, own = pygo.Channel(3), pygo.Channel(), [], threading.local()

def holder():
    own.late = Late()
    ready.send(None)
    time.sleep(1000)

threading.Thread(target=holder, daemon=True).start()
ready.recv()
pygo.spawn(holder)
ready.recv()

def child():
    assert len(ch) == 2, ch
    assert [task.join(timeout=20) for task in spawned] == [5, 5]
    return quick_suite()

{"fork_and_check(child)" if place == "main" else "pygo.spawn(fork_and_check, child).join(timeout=28)"}
print(spawned, len(ch), flush=True)
os._exit(0)  # the finalizers would wait for tasks at the end of the interpreter
""",
        options=QUIET,
    ).ok()
    assert program.out == "[] 0\n"
    assert program.err == ""


@pytest.mark.parametrize(
    ("ending", "code", "err"),
    [
        ("return", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('bye')", 1, "bye"),
        ("raise ValueError('the end')", 1, "ValueError: the end"),
        ("pygo.exit_task(1)", 0, ""),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("pygo.sleep(0.01); sys.exit(4)", 4, ""),
    ],
)
def test_the_end_of_the_task_that_forked_is_the_end_of_the_child(ending: str, code: int, err: str) -> None:
    """As that of the main thread is elsewhere, with its exit code and its atexit handlers."""
    program = run_program(
        PRELUDE
        + f"""
import atexit
atexit.register(lambda: print("atexit", pygo.spawn(int, "3").join(timeout=10), flush=True))

def body():
    pid = os.fork()
    if pid == 0:
        {ending}
        return
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

keep = [pygo.spawn(pygo.Channel().recv) for _ in range(10)]
print("ended with", pygo.spawn(body).join(timeout=25), flush=True)
""",
        options=QUIET,
    ).ok()
    assert program.out == f"atexit 3\nended with {code}\natexit 3\n"
    assert err in program.err if err else program.err == ""


def test_handlers_of_such_a_child_that_run_after_pygos_own_may_wait() -> None:
    """Those registered before the import."""
    program = run_program(
        """
        import atexit, os, sys

        @atexit.register
        def handler():
            pygo.sleep(0.001)
            print(pygo.spawn(int, "3").join(timeout=10), flush=True)

        import pygo

        def body():
            pid = os.fork()
            if pid == 0:
                sys.exit(5)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        print("ended with", pygo.spawn(body).join(timeout=25), flush=True)
        """,
        options=QUIET,
    )
    assert (program.code, program.out, program.err) == (0, "3\nended with 5\n3\n", "")


def test_a_wait_without_end_in_a_finalizer_of_such_a_child_raises() -> None:
    """At the end of the interpreter no other task runs, as in a main program."""
    program = run_program(
        PRELUDE
        + """
parked = pygo.spawn(pygo.Channel().recv)

class Late:
    def __del__(self, sleep=pygo.sleep, waits=(pygo.Channel().recv, parked.join, pygo.select), getpid=os.getpid):
        sleep(0.001)
        for wait in waits:
            try:
                wait()
            except RuntimeError as error:
                if getpid() != self.parent:
                    print(error, flush=True)

def body():
    pid = os.fork()
    if pid == 0:
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

kept = Late()
kept.parent = os.getpid()
print(pygo.spawn(body).join(timeout=25), flush=True)
""",
        options=QUIET,
    )
    assert program.out == "no task runs any more: the interpreter is shutting down\n" * 3 + "3\n", program
    assert (program.code, program.err) == (0, "")


def test_signal_handlers_run_in_the_child_that_a_task_has_forked() -> None:
    """It stays on the child's main OS thread, the only one that handles signals."""
    program = run_program(
        PRELUDE
        + """
def child():
    handled = []
    signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(pygo.current_task() is me))
    me, thread = pygo.current_task(), threading.get_native_id()
    for turn in range(100):
        pygo.sleep(0.0005)
        pygo.spawn(time.sleep, 0.0005).join(timeout=20)
        assert threading.get_native_id() == thread == os.getpid()
        os.kill(os.getpid(), signal.SIGUSR1)
    return 0 if handled == [True] * 100 else 1

for turn in range(2):
    pygo.spawn(fork_and_check, child).join(timeout=28)
print("end")
""",
        options=QUIET,
    ).ok()
    assert program.out == "end\n"


def test_the_failures_of_the_parents_tasks_are_reported_by_the_parent_alone() -> None:
    program = run_program(
        PRELUDE
        + """
def broken():
    raise ValueError("what went wrong")

kept = pygo.spawn(broken)
while not kept.done():
    pygo.sleep(0.001)
pid = os.fork()
if pid == 0:
    try:
        kept.join()
    except ValueError:
        sys.exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        options=QUIET,
    ).ok()
    assert program.out == "5\n"
    assert program.err.count("ValueError: what went wrong") == 1


def test_what_was_to_end_the_parent_does_not_end_the_child() -> None:
    """A task has asked the main thread to exit, and a thread forks before main has noticed."""
    program = run_program(
        PRELUDE
        + """
def child():
    pygo.spawn(int).join(timeout=20)
    return quick_suite()

def forks():
    gate.acquire()
    pygo.wait([pygo.spawn(sys.exit, 7)], timeout=20)
    fork_and_check(child)
    print("checked", flush=True)
    os.write(writable, b"x")

readable, writable = os.pipe()
gate = threading.Lock()
gate.acquire()
sys.setswitchinterval(1000)  # from the release on, main keeps the interpreter until it is in the read
try:
    threading.Thread(target=forks, daemon=True).start()
    gate.release()
    os.read(readable, 1)  # and notices nothing before this returns
    pygo.sleep(20)
except SystemExit as exit:
    print(exit.code)
""",
        options=QUIET,
    ).ok()
    assert program.out == "checked\n7\n"


LOCK = re.compile(r"^\s+pg_lock (\w+);", re.MULTILINE)
LISTED = re.compile(r"^ \*      (\w+/\w+\.[ch])\s+(\w+)\s+\w", re.MULTILINE)
SOURCES = Path(__file__).parents[1] / "csrc"


def locks_left_out(sources: dict[str, str], table: str) -> set[tuple[str, str]]:
    """The locks that some source declares and the table does not name."""
    declared = {(name, lock) for name, text in sources.items() for lock in LOCK.findall(text)}
    assert len(declared) > 8, declared
    return declared - set(LISTED.findall(table))


def test_the_table_of_locks_at_a_fork_is_complete() -> None:
    sources = {str(path.relative_to(SOURCES)): path.read_text() for path in SOURCES.rglob("*.[ch]")}
    table = sources["sched/lifecycle.c"]
    assert not locks_left_out(sources, table)
    assert locks_left_out({**sources, "sync/new.h": "struct {\n    pg_lock fresh;\n}"}, table) == {
        ("sync/new.h", "fresh")
    }


def test_a_child_ends_quietly_although_its_thread_was_taken_for_a_foreign_one() -> None:
    """As it is by `threading.current_thread()` in a task, and by `to_thread`, which starts threads."""
    program = run_program(
        """
        import os, sys, threading, pygo
        def body():
            threading.current_thread()
            pid = os.fork()
            if pid == 0:
                assert threading.current_thread() is threading.main_thread()
                sys.exit(3)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(pygo.spawn(body).join())
        """,
        options=("-W", "ignore"),
    )
    assert program.ok().out == "3\n"
    assert "AssertionError" not in program.err  # 3.13 before 3.13.3 has a complaint of its own (gh-130522)


def test_a_fork_while_others_make_thread_states(tmp_path: Path) -> None:
    """As a worker does for a new task, and any library's thread that comes to Python: outside of the GIL."""
    library = shared_library(Path(__file__).with_name("thread_states.c"), tmp_path)
    program = f"""
import ctypes, random
library = ctypes.CDLL({str(library)!r})
ctypes.pythonapi.PyInterpreterState_Get.restype = ctypes.c_void_p
assert library.start(ctypes.c_void_p(ctypes.pythonapi.PyInterpreterState_Get())) == 0
for _ in range(50):
    library.go_on(3000)
    time.sleep(random.random() * 0.0002)  # any moment of it
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    made = library.go_on(0)
    wait_for(pid)
assert made > 0
fork_and_check()
print("end")
sys.stdout.flush()
os._exit(0)
"""
    assert run_program(PRELUDE + program, options=QUIET).ok().out == "end\n"
