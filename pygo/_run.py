"""``python -m pygo --dump-on SIGNAL script.py ARG...``: runs a program as Python itself would."""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
from types import ModuleType

from pygo import runtime

USAGE = "usage: python -m pygo --dump-on SIGNAL (script.py | -m module) [ARG...]"


def _signal_from(name: str) -> int:
    """SIGQUIT, QUIT, quit and 3 all mean the same."""
    if name.isdecimal():
        return int(name)
    upper = name.upper()
    return signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"]


def _run_script(path: str) -> None:
    """As `__main__`, which stays that module until the end of the process."""
    with io.open_code(os.path.abspath(path)) as file:
        source = file.read()
    main = ModuleType("__main__")
    main.__file__ = path
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(path))
    exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def run_program(argv: list[str]) -> int:
    """Run what the command line names. Returns an exit code for a wrong one; the program's own exceptions pass."""
    option, _, name = argv[0].partition("=")
    rest = argv[1:] if name else argv[2:]
    name = name or "".join(argv[1:2])
    try:
        runtime.dump_on(_signal_from(name))
    except (KeyError, ValueError, OSError):
        print(f"{USAGE}\npython -m pygo: {option}: no signal that can be caught: {name!r}", file=sys.stderr)
        return 2
    is_module = rest[:1] == ["-m"]
    program = rest[1:] if is_module else rest
    if not program:
        print(f"{USAGE}\npython -m pygo: no program to run", file=sys.stderr)
        return 2
    sys.argv[:] = program
    if is_module:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        _run_script(program[0])
    return 0
