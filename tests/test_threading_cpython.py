"""CPython's own test_threading, as shipped with the interpreter, with tasks in place of threads.

Every test runs in a task; its helper threads are tasks, its locks those of pygo.sync, in child programs too. What is
left out stands below with the reasons, and in docs/testing.md.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import types
import unittest
from pathlib import Path
from typing import Any

import pytest
import tasks_as_threads
from conftest import WORKER_COUNTS
from helpers import HANG

import pygo

pytest.importorskip("test.lock_tests", reason="this interpreter ships no `test` package")

from test import test_threading

# Tests of some version of CPython, under the reason why they are left out. docs/testing.md has the same.
LEFT_OUT: dict[str, list[str]] = {
    "run in `tests/test_sync_cpython.py`": [
        "LockTests.*",
        "PyRLockTests.*",
        "CRLockTests.*",
        "EventTests.*",
        "ConditionAsRLockTests.*",
        "ConditionTests.*",
        "SemaphoreTests.*",
        "BoundedSemaphoreTests.*",
        "BarrierTests.*",
    ],
    "tasks end with the main thread, as in Go": [
        "ThreadTests.test_join_nondaemon_on_shutdown",
        "ThreadingExceptionTests.test_keyboard_interrupt_during_threading_shutdown",
        "ThreadJoinOnShutdown.test_1_join_on_shutdown",
        "ThreadJoinOnShutdown.test_2_join_in_forked_process",
        "ThreadJoinOnShutdown.test_3_join_in_forked_from_thread",
        "ThreadJoinOnShutdown.test_thread_from_thread",
    ],
    "a task is started when it is made, and is never a daemon": [
        "ThreadTests.test_daemon_param",
        "ThreadTests.test_repr_daemon",
        "ThreadingExceptionTests.test_daemonize_active_thread",
        "ThreadingExceptionTests.test_joining_inactive_thread",
        "ThreadingExceptionTests.test_start_thread_again",
    ],
    "about `threading`'s names, records and settings, or about threads outside of it": [
        "AtexitTests.*",
        "MiscTestCase.*",
        "TimerTests.*",
        "ThreadTests.test_constructor_noargs",
        "ThreadTests.test_debug_deprecation",
        "ThreadTests.test_disallow_instantiation",
        "ThreadTests.test_dummy_thread_*",
        "ThreadTests.test_finalize_running_thread",
        "ThreadTests.test_foreign_thread",
        "ThreadTests.test_fork_at_exit",
        "ThreadTests.test_getprofile",
        "ThreadTests.test_gettrace",
        "ThreadTests.test_ident_of_no_threading_threads",
        "ThreadTests.test_import_from_another_thread",
        "ThreadTests.test_lazy_import",
        "ThreadTests.test_limbo_cleanup",
        "ThreadTests.test_locals_at_exit",
        "ThreadTests.test_main_thread_*",
        "ThreadTests.test_name",
        "ThreadTests.test_native_id_after_fork",
        "ThreadTests.test_old_threading_api",
        "ThreadTests.test_shutdown_locks",
        "ThreadTests.test_start_new_thread_*",
        "ThreadTests.test_tstate_lock",
        "ThreadTests.test_PyThreadState_SetAsyncExc_interrupts_sleep",
        "ThreadingExceptionTests.test_dummy_thread_on_interpreter_shutdown",
    ],
    "a task that the child of a fork does not have stays for it as it was": [
        "ThreadTests.test_is_alive_after_fork",
    ],
    "`pygo.excepthook` has its own tests, in `tests/test_task.py`": [
        "ExceptHookTests.*",
        "ThreadingExceptionTests.test_print_exception",
        "ThreadingExceptionTests.test_print_exception_stderr_is_none_1",
    ],
    "at the end of the interpreter a wait raises `RuntimeError`: `tests/test_exit.py`": [
        "ThreadTests.test_join_daemon_thread_in_finalization",
        "ThreadTests.test_acquire_daemon_thread_lock_in_finalization",
    ],
    "subinterpreters are refused": [
        "SubinterpThreadingTests.*",
    ],
    "about the signals of the main thread alone": [
        "InterruptMainTests.test_interrupt_main_mainthread",
        "InterruptMainTests.test_interrupt_main_with_signal_handler",
        "InterruptMainTests.test_interrupt_main_noerror",
        "InterruptMainTests.test_interrupt_main_invalid_signal",
    ],
}
# These take the main thread itself.
IN_MAIN = ["InterruptMainTests.*", "ThreadTests.test_main_thread"]


# These take seconds: with one number of workers.
COSTLY = ["ThreadingExceptionTests.test_print_exception_gh_102056"]


def names_left_out() -> set[str]:
    return {name for names in LEFT_OUT.values() for name in names}


def is_left_out(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in names_left_out())


def all_cases() -> dict[str, unittest.TestCase]:
    found = {}
    for suite in unittest.TestLoader().loadTestsFromModule(test_threading):
        for case in suite:  # type: ignore[union-attr]
            found[case.id().removeprefix(f"{test_threading.__name__}.")] = case
    return found


CASES = {name: case for name, case in all_cases().items() if not is_left_out(name)}
PROLOGUE = (
    f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(pygo.__file__).parent.parent)]!r}\n"
    "import tasks_as_threads; tasks_as_threads.install()\n"
)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put tasks in the place of threads, in the module of the tests and in the programs that they run."""
    stand_in = tasks_as_threads.module()
    monkeypatch.setattr(test_threading, "threading", stand_in)
    for name in ("TestThread", "ThreadRunFail"):
        body = {key: value for key, value in vars(getattr(test_threading, name)).items() if key != "__dict__"}
        monkeypatch.setattr(test_threading, name, type(name, (tasks_as_threads.Thread,), body))
    for name in ("assert_python_ok", "assert_python_failure"):
        run = getattr(test_threading, name)
        monkeypatch.setattr(
            test_threading, name, lambda *args, run=run, **env: run(*args[:-1], PROLOGUE + args[-1], **env)
        )

    def popen(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen([*command[:-1], PROLOGUE + command[-1]], **options)

    monkeypatch.setattr(test_threading, "subprocess", types.SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE))


@pytest.mark.parametrize(
    ("name", "workers"),
    [(name, count) for name in CASES for count in (WORKER_COUNTS[-1:] if name in COSTLY else WORKER_COUNTS)],
    indirect=["workers"],
)
def test_of_threading(name: str, workers: int, tasks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYGO_WORKERS", str(workers))  # for its child programs
    case, result = CASES[name], unittest.TestResult()
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in IN_MAIN):
        case.run(result)
    else:
        pygo.spawn(case.run, result).join(timeout=2 * HANG)
    assert result.testsRun == 1
    assert not result.failures + result.errors, "\n".join(text for _, text in result.failures + result.errors)
    for _, reason in result.skipped:
        pytest.skip(reason)


def test_enough_of_them_are_run() -> None:
    assert len(CASES) >= 26


def test_the_documentation_lists_what_is_left_out() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text()
    section = page.partition("### `test.test_threading`")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", section, re.M)[2:]
    assert {reason: re.findall(r"`([\w.*]+)`", names) for names, reason in rows} == LEFT_OUT
