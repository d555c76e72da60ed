"""What happens when the main thread waits and nothing that the scheduler knows of can wake it.

Imported by the native module while that is being made, so it imports nothing of pygo that needs it.
"""

from __future__ import annotations

import io
import signal
import sys
from types import TracebackType
from typing import Any

from pygo import _report
from pygo._errors import DeadlockError

EXIT_CODE = 2
"""Of a program that a DeadlockError ends, as in Go."""

harmless_handlers: list[Any] = [signal.default_int_handler]
"""Signal handlers that wake nobody: Python's own for SIGINT, and those of pygo."""


def _a_signal_may_help() -> bool:
    """A handler of the program's own may send on a channel, so whoever has one is not stuck."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return any(callable(handler) and all(handler is not known for known in harmless_handlers) for handler in handlers)


class _ExitHook:
    """A `sys.excepthook` that calls the one before, and ends the program with exit code 2 after a DeadlockError."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
        self._before(kind, exc, traceback)
        interactive = hasattr(sys, "ps1") or sys.flags.interactive or sys.flags.inspect
        if isinstance(exc, DeadlockError) and not interactive:
            sys.exit(EXIT_CODE)  # as from anywhere: exit handlers run, files are flushed


def deadlock_error() -> DeadlockError | None:
    """What to raise in the main thread, whose wait calls this; None if a signal handler may still wake it."""
    from pygo._native import all_tasks

    if _a_signal_may_help():
        return None
    before = getattr(sys, "excepthook", sys.__excepthook__)
    if not isinstance(before, _ExitHook):
        sys.excepthook = _ExitHook(before)
    text = io.StringIO()
    _report.dump(all_tasks(), text)
    return DeadlockError(f"the main thread waits, and nothing can wake it\n{text.getvalue().rstrip()}")
