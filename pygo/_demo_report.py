"""What the demo shows: figures as text, and a progress bar or lines in its place."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LINE_EVERY = 2.0  # seconds between two lines of progress where there is no bar


class Progress(Protocol):
    """Where a running part of the demo says how far it is."""

    def update(self, done: int) -> None: ...


class Lines:
    """Progress as plain lines, none for what ends soon."""

    def __init__(self, what: str, unit: str, total: int | None) -> None:
        self._what = what
        self._unit = unit
        self._of = "" if total is None else f" of {total:,}"
        self._next = time.monotonic() + LINE_EVERY

    def update(self, done: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY
            say(f"  {self._what}: {done:,}{self._of} {self._unit}")


class Bar:
    """Progress as a bar of ``rich``."""

    def __init__(self, bar: Any, what: str, unit: str, total: int | None) -> None:
        self._bar = bar
        self._unit = unit
        self._task = bar.add_task(f"  {what}", total=total, count=f"0 {unit}")

    def update(self, done: int) -> None:
        self._bar.update(self._task, completed=done, count=f"{done:,} {self._unit}")


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """A bar on a terminal if ``rich`` is installed, and plain lines otherwise; the bar disappears at the end."""
    if sys.stdout.isatty():
        try:
            rich = importlib.import_module("rich.progress")
        except ImportError:
            pass
        else:
            columns = ("{task.description}", rich.BarColumn(), "{task.fields[count]}", rich.TimeElapsedColumn())
            with rich.Progress(*columns, transient=True) as bar:
                yield Bar(bar, what, unit, total)
            return
    yield Lines(what, unit, total)


def say(line: str = "") -> None:
    print(line, flush=True)


def rate(count: float, seconds: float) -> str:
    return f"{count / max(seconds, 1e-9):,.0f}"


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
