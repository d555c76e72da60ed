"""Signals: handlers run in the main thread while it waits; Ctrl-C reaches its wait at once."""

from __future__ import annotations

import signal

import pytest
from helpers import Program, run_program

WAITS = {
    "recv": "ch.recv()",
    "recv with timeout": "ch.recv(timeout=1000)",
    "send": "ch2.send(1)",
    "iteration": "list(ch)",
    "select": "pygo.select(pygo.recv(ch), pygo.send(ch2, 1))",
    "join": "parked.join()",
    "result": "parked.result(timeout=1000)",
    "wait group": "group.wait()",
    "sleep": "pygo.sleep(1000)",
    "after": "pygo.after(1000).recv()",
    "time.sleep": "time.sleep(1000)",
    "yielding": "\n    while True: pygo.yield_now()",
    "computing": "\n    while True: pass",
}

COMPANY = {
    "alone": "",
    "with busy tasks": "[pygo.spawn(busy) for _ in range(4)]",
    "with blocked tasks": "[pygo.spawn(time.sleep, 1000) for _ in range(4)]",
    "with yielders": "[pygo.spawn(yielder) for _ in range(4)]",
}

PRELUDE = """
import os, signal, sys, threading, time, pygo
ch, ch2, group = pygo.Channel(), pygo.Channel(), pygo.WaitGroup()
group.add()
parked = pygo.spawn(pygo.Channel().recv)

def busy():
    while True:
        pass

def yielder():
    while True:
        pygo.yield_now()

def kill_soon(number, delay=0.1):
    # From a thread that is no task. A signal that comes before the wait must end it just the same.
    def body():
        time.sleep(delay)
        os.kill(os.getpid(), number)
    threading.Thread(target=body, daemon=True).start()
"""


@pytest.mark.parametrize("company", list(COMPANY))
@pytest.mark.parametrize("wait", list(WAITS))
def test_ctrl_c_interrupts_the_wait_of_main(wait: str, company: str) -> None:
    """Then ten more tasks still work, and the program ends by itself."""
    if company != "alone" and wait not in ("recv", "select", "join", "wait group", "sleep"):
        pytest.skip("one kind of company is enough for this wait")
    program = run_program(
        PRELUDE
        + f"""
keep = {COMPANY[company] or None}
try:
    kill_soon(signal.SIGINT)
    {WAITS[wait]}
except KeyboardInterrupt:
    print("interrupted", threading.current_thread() is threading.main_thread())
assert [pygo.spawn(int, n).join(timeout=20) for n in range(10)] == list(range(10))
"""
    )
    assert (program.code, program.out, program.err) == (0, "interrupted True\n", "")


@pytest.mark.parametrize("company", list(COMPANY))
def test_an_uncaught_ctrl_c_ends_the_program_as_usual(company: str) -> None:
    program = Program(PRELUDE + f"keep = {COMPANY[company] or None}\nprint('ready')\nch.recv()\n")
    program.expect("ready")
    program.send_signal(signal.SIGINT)
    finished = program.finish()
    assert finished.code == -signal.SIGINT
    assert finished.err.count("KeyboardInterrupt") == 1


def test_ctrl_c_interrupts_a_wait_with_a_hundred_thousand_tasks_parked() -> None:
    program = Program(
        """
        import pygo
        ch = pygo.Channel()
        tasks = [pygo.spawn(ch.recv) for _ in range(100_000)]
        while ch.waiting_receivers < 100_000:
            pygo.sleep(0.01)
        try:
            print("ready")
            tasks[0].join()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    program.expect("ready")
    program.send_signal(signal.SIGINT)
    finished = program.finish()
    assert (finished.code, finished.out, finished.err) == (0, "interrupted\n", "")


def test_no_task_ever_gets_the_keyboard_interrupt() -> None:
    program = run_program(
        PRELUDE
        + """
hit = []

def worker(slot):
    try:
        while not ch.closed:
            pygo.yield_now()
            sum(range(100))
    except BaseException as exc:
        hit.append(exc)

tasks = [pygo.spawn(worker, slot) for slot in range(8)]
for _ in range(20):
    try:
        kill_soon(signal.SIGINT, 0.005)
        group.wait(timeout=20)
    except KeyboardInterrupt:
        print("x", end="")
ch.close()
for task in tasks:
    task.join(timeout=20)
print(hit)
"""
    ).ok()
    assert program.out == "x" * 20 + "[]\n"


@pytest.mark.parametrize("wait", ["recv", "recv with timeout", "send", "select", "join", "wait group", "sleep"])
def test_handlers_run_in_main_while_it_waits_and_the_wait_goes_on(wait: str) -> None:
    """Five signals are handled during one wait, which then ends by what it waited for."""
    finishing = {
        "recv": "ch.send(1)",
        "recv with timeout": "ch.send(1)",
        "send": "ch2.recv()",
        "select": "ch.send(1)",
        "join": "gate.send(1)",
        "wait group": "group.done()",
        "sleep": "None",
    }
    waits = dict(WAITS, join="gated.join()", sleep="pygo.sleep(1.5)")
    program = run_program(
        PRELUDE
        + f"""
gate = pygo.Channel()
gated = pygo.spawn(gate.recv)
handled = []

def handler(number, frame):
    handled.append(threading.current_thread() is threading.main_thread())

signal.signal(signal.SIGUSR1, handler)

def sender():
    for count in range(1, 6):
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(handled) < count:
            time.sleep(0.001)
    {finishing[wait]}

start = time.monotonic()
thread = threading.Thread(target=sender)
thread.start()
{waits[wait]}
if {wait!r} == "sleep":
    assert time.monotonic() - start >= 1.5
thread.join()
print(handled)
"""
    ).ok()
    assert program.out == f"{[True] * 5}\n"


def test_the_exception_of_a_handler_comes_out_of_the_wait() -> None:
    program = run_program(
        PRELUDE
        + """
class Alarm(Exception):
    pass

def handler(number, frame):
    raise Alarm

signal.signal(signal.SIGALRM, handler)
for wait in (ch.recv, group.wait, parked.join, lambda: pygo.sleep(20), lambda: pygo.select(pygo.recv(ch))):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        wait()
    except Alarm:
        print("alarm")
print(ch.waiting_receivers, ch.try_send(1))
"""
    ).ok()
    assert program.out == "alarm\n" * 5 + "0 False\n"


def test_a_value_is_not_lost_to_an_interrupted_receiver() -> None:
    """Signals against sends: each value arrives once, in order; an alarm after the wait may cost its value."""
    program = run_program(
        PRELUDE
        + """
class Alarm(Exception):
    pass

def wait():
    return ch.recv_ok()

def handler(number, frame):
    if frame.f_code is wait.__code__:
        raise Alarm

signal.signal(signal.SIGALRM, handler)

def sender():
    for number in range(3000):
        ch.send(number)
        if number % 7 == 0:
            pygo.sleep(0.0002)
    ch.close()

task = pygo.spawn(sender)
got, alarms, ok = [], 0, True
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
while ok:
    try:
        value, ok = wait()
        if ok:
            got.append(value)
    except Alarm:
        alarms += 1
signal.setitimer(signal.ITIMER_REAL, 0)
missing = set(range(3000)) - set(got)
print(len(got) == len(set(got)), got == sorted(got), len(missing) <= alarms, alarms > 0)
"""
    ).ok()
    assert program.out == "True True True True\n"


def test_a_handler_may_use_the_runtime() -> None:
    program = run_program(
        PRELUDE
        + """
def handler(number, frame):
    ch2 = pygo.Channel()
    task = pygo.spawn(ch2.recv)
    ch2.send("from the handler")
    print(task.join())
    pygo.sleep(0.01)
    ch.send("served")

receiver = pygo.spawn(ch.recv)
signal.signal(signal.SIGUSR1, handler)
kill_soon(signal.SIGUSR1, 0.05)
print(receiver.join())
"""
    ).ok()
    assert program.out == "from the handler\nserved\n"


def test_signals_sent_by_a_task_are_handled_in_main() -> None:
    program = run_program(
        PRELUDE
        + """
def handler(number, frame):
    print(threading.current_thread() is threading.main_thread(), pygo.current_task())
    ch.close()

signal.signal(signal.SIGUSR1, handler)
pygo.spawn(os.kill, os.getpid(), signal.SIGUSR1)
print(ch.recv_ok())
"""
    ).ok()
    assert program.out == "True None\n(None, False)\n"


def test_a_signal_delivered_to_a_worker_thread_wakes_main_too() -> None:
    """The kernel may choose any thread; here it is forced to be the one under a task."""
    program = run_program(
        PRELUDE
        + """
signal.signal(signal.SIGUSR1, lambda number, frame: ch.close())

def body():
    while not ch.closed:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        pygo.sleep(0.05)

with_task = pygo.spawn(body)
print(ch.recv_ok(timeout=20))
with_task.join()
"""
    ).ok()
    assert program.out == "(None, False)\n"


def test_setting_a_handler_in_a_task_is_refused_as_in_a_thread() -> None:
    program = run_program(
        """
        import signal, pygo
        try:
            pygo.spawn(signal.signal, signal.SIGUSR1, signal.SIG_IGN).join()
        except ValueError as exc:
            print("main thread" in str(exc))
        """
    ).ok()
    assert program.out == "True\n"


def test_blocking_calls_in_tasks_survive_signals() -> None:
    """System calls interrupted by a signal are retried, in tasks as elsewhere."""
    program = run_program(
        PRELUDE
        + """
signal.signal(signal.SIGALRM, lambda number, frame: None)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
r, w = os.pipe()
tasks = [pygo.spawn(os.read, r, 1) for _ in range(4)] + [pygo.spawn(time.sleep, 0.2) for _ in range(4)]
pygo.sleep(0.3)
os.write(w, b"xxxx")
print([task.join(timeout=20) for task in tasks])
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    ).ok()
    assert program.out == f"{[b'x'] * 4 + [None] * 4}\n"


@pytest.mark.parametrize("parked", [1, 150])
def test_faulthandler_dumps_the_stacks_of_parked_tasks(parked: int) -> None:
    """It walks the interpreter's states, a hundred at most, and asks the C library for the names of their threads."""
    program = run_program(
        f"""
        import faulthandler, sys, time, pygo
        ch = pygo.Channel()

        def waits_here():
            ch.recv()

        keep = [pygo.spawn(waits_here) for _ in range({parked})]
        while ch.waiting_receivers < {parked}:
            time.sleep(0.001)
        for _ in range(20):
            faulthandler.dump_traceback(all_threads=True)
            pygo.spawn(int).join()
        print("end")
        """
    ).ok()
    assert program.out == "end\n"
    assert program.err.count("in waits_here") >= 20


def test_a_crash_beside_parked_tasks_is_reported_in_full() -> None:
    program = run_program(
        """
        import faulthandler, pygo
        ch = pygo.Channel()

        def waits_here():
            ch.recv()

        keep = [pygo.spawn(waits_here) for _ in range(20)]
        while ch.waiting_receivers < 20:
            pygo.sleep(0.001)
        pygo.spawn(faulthandler._sigabrt).join()
        """
    )
    assert program.code == -6, program
    assert "Fatal Python error: Aborted" in program.err
    assert program.err.count("in waits_here") == 20
