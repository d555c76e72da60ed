"""The command line: ``python -m pygo demo [DIR]`` and ``python -m pygo --dump-on SIGNAL script.py ...``."""

from __future__ import annotations

import argparse
import os
import sys

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
BROKEN_PIPE = 141  # the same for SIGPIPE


def build_parser() -> argparse.ArgumentParser:
    from pygo import _demo

    parser = argparse.ArgumentParser(
        prog="python -m pygo",
        description="Goroutines for Python. With --dump-on, runs a program as `python script.py` or `python -m module` "
        "would, and prints all its tasks to stderr whenever it gets the signal.",
    )
    parser.add_argument(
        "--dump-on", metavar="SIGNAL", help="such as SIGQUIT; then: script.py ARG..., or -m module ARG..."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo.add_command(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code of the program."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0].partition("=")[0] == "--dump-on":
        from pygo import _run

        return _run.run_program(argv)
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"pygo {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away. Nothing is left to say, also not at the flush of the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


if __name__ == "__main__":
    sys.exit(main())
