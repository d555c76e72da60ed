"""The thread that reports: what the watchdog of the native code has noticed, and the dumps that a signal asks for.

Neither the monitor nor a signal handler can enter the interpreter to read Python stacks. This thread can; it sleeps
until one of them wakes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from pygo import _deadlock, _extension, _report
from pygo._native import _dump_at_signal, _dump_on, _next_dump, _next_overdue, _wait_to_report, all_tasks

_thread: _report.OwnThread | None = None
_dumping = threading.RLock()


def _report_overdue() -> None:
    """What the watchdog has noticed."""
    while (overdue := _next_overdue()) is not None:
        task, seconds, thread = overdue
        if task is not None:
            text = _report.describe(task, time.monotonic())
            text = f"has kept thread {thread} in one call for {seconds:.3f} s: {text}"
        else:
            text = (
                f"had kept thread {thread} in one call, without giving the GIL away, and has gone on: stack unknown\n"
            )
        if sys.stderr is not None:
            sys.stderr.write(f"pygo watchdog: a task {text}")
            sys.stderr.flush()


def _dump() -> None:
    """To the file below sys.stderr: whoever is inside a write to sys.stderr itself may never come out of it."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by something that is no file
        _report.dump(all_tasks())
        return
    with open(descriptor, "w", errors="backslashreplace", closefd=False) as out:
        _report.dump(all_tasks(), out)


def _try(report: Callable[[], None]) -> None:
    try:
        report()
    except (OSError, ValueError):  # stderr is closed: later reports may find another
        pass
    except Exception:  # from a repr() of the program's own
        import traceback  # heavy, and seldom needed

        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()


def dump_now() -> None:
    """One at a time, but for one that a signal asks for inside of another."""
    with _dumping:
        _try(_dump)


def _report_forever() -> None:
    while True:
        _wait_to_report()
        _try(_report_overdue)
        if _next_dump():
            dump_now()


def _start() -> None:
    global _thread
    thread = _report.OwnThread(target=_report_forever, name="pygo-reporter", daemon=True)
    thread.start()
    if _thread is None:
        os.register_at_fork(after_in_child=_after_fork_in_child)
    _thread = thread


def _after_fork_in_child() -> None:
    global _dumping
    _dumping = threading.RLock()
    _start()


def set_limit(seconds: float) -> None:
    """The watchdog's; 0 turns it off, and the thread stays, asleep."""
    if seconds > 0 and _thread is None:
        _start()
    _extension.set_watchdog(seconds)


_deadlock.harmless_handlers.append(_dump_at_signal)


def dump_on(signum: int) -> None:
    # The first dump imports modules. A handler must not: on 3.11 an import that it comes into may fail.
    _report.dump([], io.StringIO())
    signal.signal(signum, _dump_at_signal)
    if _thread is None:
        _start()
    _dump_on(signum)
