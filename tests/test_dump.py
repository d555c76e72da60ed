"""Dumps: complete, safe while everything runs, quick, and on a signal."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, Program, in_thread, join_all, run_program, wait_until

import pygo
from pygo import runtime


def dumped() -> str:
    out = io.StringIO()
    runtime.dump(out)
    return out.getvalue()


def entry(text: str, name: str) -> str:
    """What the dump says of the task or thread with this name."""
    found = re.search(rf"^(task \d+|thread) '{re.escape(name)}'.*?(?=^task |^thread |\Z)", text, re.M | re.S)
    assert found, text
    return found.group()


def test_it_says_what_a_task_waits_on_for_how_long_and_where() -> None:
    ch: pygo.Channel[None] = pygo.Channel()

    def inner() -> None:
        ch.recv()  # here it waits

    def body() -> None:
        inner()

    task = pygo.Task(body, name="the receiver")  # spawned here
    wait_until(lambda: task.state == "waiting")
    spawn_line = task._spawned_at[1]
    text = entry(dumped(), "the receiver")
    head, *stack = text.splitlines()
    seconds = re.fullmatch(
        rf"task {task.id} 'the receiver' waiting in channel receive on {re.escape(repr(ch))} for (\d+\.\d+) s, "
        rf'spawned at file "{re.escape(__file__)}", line {spawn_line}',
        head,
    )
    assert seconds and 0 <= float(seconds[1]) < HANG
    assert [line.strip() for line in stack[1::2]] == ["inner()", "ch.recv()  # here it waits"]
    assert stack[0].endswith("in body") and stack[2].endswith("in inner")
    ch.send(None)
    task.join()


def test_each_kind_of_wait_names_its_objects() -> None:
    one: pygo.Channel[int] = pygo.Channel()
    two: pygo.Channel[int] = pygo.Channel()
    group = pygo.WaitGroup()
    group.add()
    waits = {
        "send": lambda: one.send(1),
        "select": lambda: pygo.select(pygo.recv(two), pygo.recv(None)),
        "nothing": lambda: pygo.select(pygo.recv(two)),
        "group": group.wait,
        "join": lambda: first.join(),
    }
    tasks = {name: pygo.Task(fn, name=name) for name, fn in waits.items()}
    first = tasks["send"]
    wait_until(lambda: all(task.state == "waiting" for task in tasks.values()))
    text = dumped()
    assert f"in channel send on {one!r} for" in entry(text, "send")
    assert f"in select on {two!r}, None for" in entry(text, "select")
    assert f"in wait group on {group!r} for" in entry(text, "group")
    assert f"in join on {first!r} for" in entry(text, "join")
    one.recv()
    group.done()
    two.close()
    join_all(list(tasks.values()))


def test_the_states_of_those_that_do_not_wait(workers: int) -> None:
    readable, writable = os.pipe()
    blocked = pygo.Task(os.read, (readable, 1), name="blocked one")
    wait_until(lambda: blocked.state == "blocked")
    assert re.match(r"task \d+ 'blocked one' blocked, spawned", entry(dumped(), "blocked one"))
    itself = pygo.Task(dumped, name="dumping one")
    assert re.match(r"task \d+ 'dumping one' running, spawned", entry(itself.join(), "dumping one"))
    os.write(writable, b"x")
    blocked.join()
    os.close(readable)
    os.close(writable)


def test_ordinary_threads_are_shown_too() -> None:
    event, ready = threading.Event(), threading.Event()

    def body() -> None:
        ready.set()
        event.wait()

    thread = threading.Thread(target=body, name="plain thread", daemon=True)
    thread.start()
    ready.wait()
    assert "in body" in entry(dumped(), "plain thread")
    assert "in test_ordinary_threads_are_shown_too" in entry(dumped(), "MainThread")
    assert "plain thread" in in_thread(dumped)
    event.set()
    thread.join()


def test_without_stderr_nothing_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    runtime.dump()
    assert capsys.readouterr().out == ""


def test_looking_at_a_task_collects_no_garbage_in_between(workers: int) -> None:
    """A collection runs any code, the task that is looked at included, whose waits lie on its stack."""
    import gc

    ch: pygo.Channel[int] = pygo.Channel()

    def body() -> None:
        for _ in range(2000):
            ch.recv()

    def sender() -> None:
        for i in range(2000):
            ch.send(i)

    tasks = [pygo.spawn(body), pygo.spawn(sender)]
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        while not all(task.done() for task in tasks):
            for task in tasks:
                assert len(task._snapshot()) == 4
                assert task.waiting_on is None or task.waiting_on.objects
            pygo.yield_now()
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()
    join_all(tasks)


@pytest.fixture(params=[1e-6, 0.005])
def interval(request: pytest.FixtureRequest) -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield request.param
    sys.setswitchinterval(before)


def test_a_thousand_dumps_under_load(workers: int, interval: float) -> None:
    stop = False
    ch: pygo.Channel[int] = pygo.Channel()

    def ping(mine: Any, other: Any) -> None:
        while not stop:
            pygo.select(pygo.send(other, 1), pygo.recv(mine))

    def spawner() -> None:
        while not stop:
            pygo.spawn(recurse, 20).join()

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        pygo.yield_now()

    def blocker() -> None:
        while not stop:
            time.sleep(0.0002)

    def sleeper() -> None:
        while not stop:
            pygo.sleep(0.0002)

    tasks = [pygo.spawn(ping, ch, ch) for _ in range(3)]
    tasks += [pygo.spawn(fn) for fn in (spawner, blocker, sleeper)]
    try:
        for _ in range(125):  # 8 runs: a thousand
            assert dumped().count("\ntask ") >= len(tasks)
    finally:
        stop = True
        wait_until(lambda: (ch.try_recv() or True) and all(task.done() for task in tasks))


def test_a_hundred_thousand_tasks() -> None:
    body = """
        import io, sys, time
        import pygo
        ch = pygo.Channel()
        tasks = [pygo.spawn(ch.recv_ok) for _ in range(100_000)]
        while ch.waiting_receivers < len(tasks):
            time.sleep(0.01)
        out = io.StringIO()
        start = time.process_time()
        pygo.runtime.dump(out)
        took = time.process_time() - start
        print(out.getvalue().count("waiting in channel receive"))
        start = time.process_time()
        text = [str(task) + str(task.id) for task in tasks for _ in range(20)]
        print(took < time.process_time() - start or took)
    """
    assert run_program(body).ok().out == "100000\nTrue\n"


# ---- on a signal ----

WAITS = {
    "waits in pygo": "ch.recv()",
    "waits in a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "sleeps": "time.sleep(60)",
    "computes": "while True: pass",
    "computes in a task": "pygo.spawn(exec, 'while True: pass', {}).join()",
}
DUMP_ON = """
import signal, sys, time
import pygo
pygo.runtime.dump_on(signal.SIGQUIT)
ch = pygo.Channel()
task = pygo.Task(ch.recv, name="parked one")
while task.state != "waiting":
    time.sleep(0.001)
later = pygo.after(3600)  # so that nobody waits for ever
print("ready")
"""


def read_line(program: Program) -> str:
    stderr = program._process.stderr
    assert stderr is not None
    line = stderr.readline()
    assert line, "the program has ended"
    return line


def read_until_dump(program: Program) -> str:
    text = ""
    while "thread 'MainThread'" not in text:
        text += read_line(program)
    return text


@pytest.mark.parametrize("name", WAITS)
def test_a_signal_prints_the_dump_and_the_program_goes_on(name: str) -> None:
    program = Program(DUMP_ON + WAITS[name])
    program.expect("ready")
    for _ in range(2):
        program.send_signal(signal.SIGQUIT)
        assert "'parked one' waiting in channel receive" in read_until_dump(program)
    program.send_signal(signal.SIGKILL)
    assert program.finish().code == -signal.SIGKILL


def test_a_signal_prints_the_dump_while_the_main_thread_waits_in_c() -> None:
    program = Program(f"""{DUMP_ON}
import ctypes
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
lock(mutex)  # no signal ends this wait
""")
    program.expect("ready")
    stands_at = ""
    while "no signal ends this wait" not in stands_at:
        program.send_signal(signal.SIGQUIT)
        read_until_dump(program)
        stands_at = read_line(program) + read_line(program)  # the outermost frame and its line
    program.send_signal(signal.SIGQUIT)
    read_until_dump(program)
    program.send_signal(signal.SIGKILL)
    assert program.finish().code == -signal.SIGKILL


@pytest.mark.parametrize("name", ["waits in a lock", "computes"])
def test_a_signal_prints_the_dump_in_the_child_of_a_fork_too(name: str) -> None:
    source = f"""
import os, signal, sys
import pygo
pygo.runtime.dump_on(signal.SIGQUIT)
if os.fork():
    os.wait()
    sys.exit()
print(os.getpid())
{WAITS[name]}
"""
    program = Program(source)
    assert program._process.stdout is not None
    child = int(program._process.stdout.readline())
    for _ in range(2):
        os.kill(child, signal.SIGQUIT)
        read_until_dump(program)
    os.kill(child, signal.SIGKILL)
    program.finish().ok()


def asks_for_dumps(source: str) -> str:
    """What a program writes that asks for dumps by SIGQUIT in its own main thread, where they come at once."""
    head = "import os, signal, sys\nimport pygo\npygo.runtime.dump_on(signal.SIGQUIT)\n"
    return run_program(head + source).ok().err


def test_the_main_thread_gets_the_dump_of_the_moment_it_asks_for_one_in() -> None:
    text = asks_for_dumps("""
def here():
    os.kill(os.getpid(), signal.SIGQUIT)
for _ in range(20):
    here()
    print("gone on", file=sys.stderr)
""")
    assert [part.count(", in here\n") for part in text.split("gone on\n")] == [1] * 20 + [0]
    assert "pygo-reporter" not in text


def test_a_dump_in_a_signal_handler_imports_nothing() -> None:
    """It may come into an import, which on 3.11 then fails: `_ModuleLock.acquire` is not reentrant there."""
    text = asks_for_dumps("""
before = set(sys.modules)
os.kill(os.getpid(), signal.SIGQUIT)
assert not (new := set(sys.modules) - before), new
""")
    assert text.count("0 tasks\n") == 1


@pytest.mark.parametrize(
    "again",
    [
        "before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)\nsignal.signal(signal.SIGQUIT, before)",
        "before = signal.getsignal(signal.SIGQUIT)\nsignal.signal(signal.SIGQUIT, lambda *args: before(*args))",
    ],
    ids=["put back", "called"],
)
def test_its_handler_may_be_put_back_or_called(again: str) -> None:
    assert asks_for_dumps(f"{again}\nos.kill(os.getpid(), signal.SIGQUIT)").count("0 tasks\n") == 1


def test_another_handler_takes_its_place() -> None:
    source = "signal.signal(signal.SIGQUIT, lambda *args: None)\nos.kill(os.getpid(), signal.SIGQUIT)"
    assert asks_for_dumps(source) == ""


def test_a_failing_repr_ends_no_later_dump() -> None:
    text = asks_for_dumps("""
class Name(str):
    def __repr__(self):
        raise LookupError("no name")
ch = pygo.Channel()
task = pygo.Task(ch.recv, name=Name("x"))
while task.state != "waiting":
    pygo.yield_now()
os.kill(os.getpid(), signal.SIGQUIT)
ch.send(1)
task.join()
os.kill(os.getpid(), signal.SIGQUIT)
""")
    assert text.count("\nLookupError: no name\n") == 1
    assert text.count("0 tasks\n") == 1


def test_a_dump_on_a_signal_hides_no_deadlock() -> None:
    source = "import signal, pygo\npygo.runtime.dump_on(signal.SIGQUIT)\npygo.Channel().recv()"
    assert run_program(source).code == 2


def test_dump_on_refuses_what_is_no_signal() -> None:
    with pytest.raises(ValueError, match=r"."):
        runtime.dump_on(1000)
    with pytest.raises(OSError, match=r"."):
        runtime.dump_on(signal.SIGKILL)
    with pytest.raises(ValueError, match=r"."):
        in_thread(runtime.dump_on, signal.SIGQUIT)


# ---- the command line ----


def run_command(*args: str, cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pygo", *args],
        capture_output=True,
        text=True,
        timeout=HANG,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(pygo.__file__).parent.parent)},
        **kwargs,
    )


PROGRAM = """
import os, signal, sys
print(__name__, sys.argv, sys.path[0])
import beside
os.kill(os.getpid(), getattr(signal, os.environ.get("KILL", "SIGQUIT")))
assert sys.modules["__main__"].beside is beside
sys.exit(7)
"""


@pytest.mark.parametrize(
    "option", [["--dump-on", "SIGQUIT"], ["--dump-on=quit"], ["--dump-on", str(int(signal.SIGQUIT))]]
)
@pytest.mark.parametrize("module", [False, True])
def test_the_command_runs_a_program_as_python_does(option: list[str], module: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "beside.py").write_text("")
    what = ["-m", "program"] if module else ["folder/program.py"]
    ended = run_command(*option, *what, "--dump-on", "-m", "x", cwd=folder if module else tmp_path)
    assert ended.returncode == 7, ended
    name = str(folder / "program.py") if module else "folder/program.py"
    assert ended.stdout == f"__main__ {[name, '--dump-on', '-m', 'x']} {folder}\n"
    assert ended.stderr.startswith("0 tasks\nthread 'MainThread'\n")


@pytest.mark.parametrize("args", [[], ["SIGNONE", "x.py"], ["SIGKILL", "x.py"], ["SIGQUIT"], ["SIGQUIT", "-m"]])
def test_the_command_refuses_wrong_arguments(args: list[str], tmp_path: Path) -> None:
    ended = run_command("--dump-on", *args, cwd=tmp_path)
    assert ended.returncode == 2
    assert "usage: python -m pygo --dump-on" in ended.stderr


def test_the_program_of_the_command_may_fail(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("1/0")
    ended = run_command("--dump-on", "SIGQUIT", "program.py", cwd=tmp_path)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    (tmp_path / "program.py").write_text("import pygo; pygo.select()")
    assert run_command("--dump-on", "SIGQUIT", "program.py", cwd=tmp_path).returncode == 2
