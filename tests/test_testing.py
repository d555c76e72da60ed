"""pygo.testing: waiting until others wait, seeded schedules, leak checks, and the pytest plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import in_task, run_program

import pygo
from pygo import _extension, testing

PROGRAM = """
import pygo

def main():
    out, ch, rendezvous = [], pygo.Channel(2), pygo.Channel()

    def producer(number):
        for turn in range(5):
            out.append(f"{number}.{turn}")
            (ch if number % 2 else rendezvous).send(number)

    def consumer():
        for _ in range(40):
            got = pygo.select(pygo.recv(ch), pygo.recv(rendezvous))
            out.append(f"{got.index}:{got.value}")

    with pygo.TaskGroup() as tg:
        tg.spawn(consumer)
        for number in range(8):
            tg.spawn(producer, number)
    return " ".join(out)
"""


YIELDING = """
import pygo

def main():
    out = []

    def body(name):
        for _ in range(400):
            out.append(name)
            pygo.yield_now()

    with pygo.TaskGroup() as tg:
        for name in "abcdefg":
            tg.spawn(body, name)
    return "".join(out)
"""


def trace_of(seed: int, program: str = PROGRAM) -> str:
    names: dict[str, Any] = {}
    exec(program, names)
    with testing.seeded(seed):
        return str(pygo.spawn(names["main"]).join())


# ---- wait_until_blocked ----


def test_waiting_until_a_task_waits(workers: int) -> None:
    ch = pygo.Channel[int]()
    tasks = [pygo.spawn(ch.recv) for _ in range(10)]
    testing.wait_until_blocked(*tasks)
    assert ch.waiting_receivers == 10
    in_task(testing.wait_until_blocked, *tasks)
    for number in range(10):
        ch.send(number)
    assert sorted(task.join() for task in tasks) == list(range(10))


def test_waiting_until_somebody_waits_on_a_channel(workers: int) -> None:
    ch = pygo.Channel[int]()
    sender = pygo.spawn(ch.send, 1)
    testing.wait_until_blocked(ch)
    testing.wait_until_blocked(ch, senders=1)
    assert ch.recv() == 1
    receivers = [pygo.spawn(ch.recv) for _ in range(3)]
    testing.wait_until_blocked(ch, receivers=3)
    for _ in receivers:
        assert ch.try_send(5)
    for task in (sender, *receivers):
        task.join()


def test_what_never_waits_times_out_or_has_ended() -> None:
    ch = pygo.Channel[int]()
    with pytest.raises(TimeoutError, match="0 receive"):
        testing.wait_until_blocked(ch, timeout=0.01)
    task = pygo.spawn(pow, 2, 2)
    task.join()
    with pytest.raises(RuntimeError, match="ended"):
        testing.wait_until_blocked(task)
    with pytest.raises(TypeError, match="can be asked"):
        testing.wait_until_blocked(ch.sender)


# ---- seeds ----


def test_the_same_seed_gives_the_same_order() -> None:
    for seed in range(5):
        assert trace_of(seed) == trace_of(seed)


def test_a_thread_that_looks_in_all_the_time_does_not_change_the_order() -> None:
    """The main thread, which waits, enters the interpreter whenever it looks for signals."""
    _extension.set_signal_slice(2e-5)
    try:
        assert len({trace_of(1, YIELDING) for _ in range(60)}) == 1
    finally:
        _extension.set_signal_slice(0)


def test_giving_stacks_back_does_not_change_the_order() -> None:
    """A task does that, every second while many have been free for that long."""
    count = 2000
    expected, many = trace_of(1), pygo.Channel[None]()
    tasks = [pygo.spawn(many.recv_ok) for _ in range(count)]
    testing.wait_until_blocked(many, receivers=count)
    many.close()
    for task in tasks:
        task.join()
    assert {trace_of(1) for _ in range(6000)} == {expected}


def test_other_seeds_give_other_orders() -> None:
    assert len({trace_of(seed) for seed in range(10)}) > 5


def test_the_order_is_that_of_other_processes() -> None:
    program = PROGRAM + "print(pygo.spawn(main).join())"
    outputs = {run_program(program, env={"PYGO_SEED": "3", "PYGO_WORKERS": "1"}).ok().out for _ in range(3)}
    assert outputs == {trace_of(3) + "\n"}


def test_values_are_neither_lost_nor_doubled_under_any_seed(workers: int) -> None:
    for seed in range(20):
        with testing.seeded(seed, workers=None):
            ch = pygo.Channel[int](seed % 3)
            got: list[int] = []

            def receive(ch: Any = ch, got: list[int] = got) -> None:
                for value in ch:
                    got.append(value)

            def send(start: int, ch: Any = ch) -> None:
                for value in range(start, start + 20):
                    ch.send(value)

            receivers = [pygo.spawn(receive) for _ in range(3)]
            for task in [pygo.spawn(send, start) for start in range(0, 100, 20)]:
                task.join()
            ch.close()
            for task in receivers:
                task.join()
            assert sorted(got) == list(range(100))


def test_the_block_restores_what_was_before() -> None:
    before = pygo.runtime.workers()
    with testing.seeded(1), testing.seeded(2, workers=4):
        assert pygo.runtime.workers() == 4
    assert pygo.runtime.workers() == before


@pytest.mark.parametrize("seed", ["x", "1.5"])
def test_a_bad_seed_in_the_environment_is_refused(seed: str) -> None:
    finished = run_program("import pygo", env={"PYGO_SEED": seed})
    assert finished.code == 1
    assert "PYGO_SEED must be an integer" in finished.err


# ---- leaks ----


def test_a_task_left_behind_is_named_with_its_stack() -> None:
    def forgotten() -> None:
        pygo.Channel[int]().recv()

    tasks: list[pygo.Task[None]] = []
    with pytest.raises(AssertionError, match="1 task is left behind") as caught, testing.leak_check(timeout=0.01):
        tasks.append(pygo.spawn(forgotten))
        testing.wait_until_blocked(*tasks)
    assert "forgotten" in str(caught.value)
    assert "test_testing.py" in str(caught.value)
    tasks[0].cancel()


def test_tasks_of_before_and_tasks_that_end_are_no_leaks(workers: int) -> None:
    before = pygo.spawn(pygo.Channel[int]().recv)
    with testing.leak_check():
        pygo.spawn(pygo.sleep, 0.01)
    before.cancel()


def test_of_many_leaks_some_are_shown() -> None:
    ch = pygo.Channel[int]()
    with pytest.raises(AssertionError, match="30 tasks are left behind") as caught, testing.leak_check(timeout=0.01):
        for _ in range(30):
            pygo.spawn(ch.recv_ok)
    assert "and 10 more" in str(caught.value)
    ch.close()


# ---- the plugin ----


def pytest_in(directory: Path, text: str, *options: str) -> str:
    test = directory / "test_it.py"
    test.write_text(text)
    program = f"""
        import sys, pytest
        sys.exit(pytest.main(["-p", "no:pygo", "-p", "pygo._pytest_plugin", "-p", "no:cacheprovider", "-q",
                              "--rootdir", {str(directory)!r}, {str(test)!r}, *{list(options)!r}]))
    """
    return run_program(program, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}).out


def test_the_leak_fixture_fails_the_test_that_leaks(tmp_path: Path) -> None:
    output = pytest_in(
        tmp_path,
        "import pygo, pytest\n"
        "from pygo import testing\n"
        "import functools\n"
        "def test_leaks(pygo_leak_check, monkeypatch):\n"
        "    monkeypatch.setattr(testing._poll, '__defaults__', None)\n"
        "    pygo.spawn(pygo.Channel().recv)\n"
        "def test_clean(pygo_leak_check):\n"
        "    pygo.spawn(pow, 2, 2).join()\n",
    )
    assert "1 task is left behind" in output
    assert "2 passed, 1 error" in output


def test_the_seed_fixture_takes_its_seed_from_the_command_line_and_shows_it(tmp_path: Path) -> None:
    text = "def test_it(pygo_seed):\n    assert pygo_seed == 7\n"
    assert "1 passed" in pytest_in(tmp_path, text, "--pygo-seed=7")
    output = pytest_in(tmp_path, text, "--pygo-seed=8")
    assert "1 failed" in output
    assert "--pygo-seed=8" in output
    assert "--pygo-seed=" in pytest_in(tmp_path, text)
