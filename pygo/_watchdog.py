"""The thread that reports what the watchdog of the native code has noticed.

The monitor notices, but never enters the interpreter and so cannot read Python stacks. This thread can; it sleeps until
the monitor wakes it.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from pygo import _extension, _report
from pygo._native import _next_overdue, _wait_overdue

_limit = 0.0
_thread: threading.Thread | None = None


def _report_overdue() -> None:
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


def _watch() -> None:
    while True:
        _wait_overdue()
        try:
            _report_overdue()
        except (OSError, ValueError):  # stderr is closed: later ones may find another
            continue


def _start() -> None:
    global _thread
    _thread = threading.Thread(target=_watch, name="pygo-watchdog", daemon=True)
    _thread.start()


def _after_fork_in_child() -> None:
    global _thread
    _thread = None
    if _limit > 0:
        _start()


def set_limit(seconds: float) -> None:
    """0 turns the watchdog off; its thread stays, asleep."""
    global _limit
    if _limit == 0 and _thread is None and seconds > 0:
        os.register_at_fork(after_in_child=_after_fork_in_child)
    _limit = seconds
    if seconds > 0 and _thread is None:
        _start()
    _extension.set_watchdog(seconds)
