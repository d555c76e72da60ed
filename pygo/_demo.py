"""``python -m pygo demo [DIR]``: the words of all files below a directory, then 200,000 tasks at once."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable

import pygo
from pygo import runtime
from pygo._demo_job import REFRESH, Crew, Result, Skip, TaskJob, ThreadJob, Tree, list_directory, read_pieces
from pygo._demo_parked import Parked, park_tasks, park_threads
from pygo._demo_report import Progress, duration, megabytes, progress, rate, say

DIFFERENT = 1
USAGE = 2


def at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return number

    parse.__name__ = "int"  # what argparse calls it when the text is no number
    return parse


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    crew = Crew()
    demo = commands.add_parser(
        "demo",
        help="count the words of all files below a directory with tasks, and with threads for comparison",
        description="Counts the words of all files below a directory with tasks and channels, then with threads and "
        "queues, and checks that both agree. Then lets 200,000 tasks wait on one channel, which takes about 1.1 GB of "
        "memory, wakes them all, and tries the same with threads.",
    )
    demo.set_defaults(run=run)
    demo.add_argument("directory", metavar="DIR", nargs="?", help="default: the standard library of this Python")
    for option, default, minimum, meaning in (
        ("--walkers", crew.walkers, 1, "tasks that list directories"),
        ("--readers", crew.readers, 1, "tasks that read files"),
        ("--counters", crew.counters, 1, "tasks that count words"),
        ("--top", 10, 0, "words to print"),
        ("--tasks", 200_000, 0, "tasks that wait at once"),
        ("--threads", 10_000, 0, "threads that wait at once, if there can be so many"),
    ):
        description = f"{meaning} (default: {default:,})"
        demo.add_argument(option, metavar="N", type=at_least(minimum), default=default, help=description)
    demo.add_argument("--no-threads", action="store_true", help="leave out all comparisons with threads")


def run(args: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and words may be anything
    tree = standard_library() if args.directory is None else Tree(args.directory)
    try:
        with os.scandir(tree.root):
            pass
    except OSError as exc:
        print(f"pygo demo: cannot read the directory {tree.root!r}: {exc.strerror}", file=sys.stderr)
        return USAGE
    python = f"{platform.python_implementation()} {platform.python_version()}"
    say(f"pygo {pygo.__version__} on {python}, {runtime.workers()} workers")
    crew = Crew(args.walkers, args.readers, args.counters)
    code = run_jobs(tree, crew, args.top, compare=not args.no_threads)
    if args.tasks:
        run_parked(args.tasks, 0 if args.no_threads else args.threads)
    return code


def standard_library() -> Tree:
    """The library of the running Python without what users installed into it."""
    root = sysconfig.get_path("stdlib")
    return Tree(root, frozenset(os.path.join(root, name) for name in ("site-packages", "dist-packages")))


def run_jobs(tree: Tree, crew: Crew, top: int, *, compare: bool) -> int:
    """Count the words below ``tree`` with tasks and, to compare, with threads; return the exit code."""
    say(f"\nWords below {tree.root}: {crew.walkers} walkers, {crew.readers} readers, {crew.counters} counters")
    total = None
    if compare:
        with progress("looking", "files") as seen:
            total = look(tree, seen)
    result, seconds = run_job(TaskJob, "tasks", tree, crew, total)
    say(f"  tasks    {outcome(result, seconds)}")
    if compare:
        other, other_seconds = run_job(ThreadJob, "threads", tree, crew, total)
        say(f"  threads  {outcome(other, other_seconds)}")
        if other != result:
            print("pygo demo: tasks and threads counted differently; do the files change?", file=sys.stderr)
            return DIFFERENT
        say(f"           the same counts; tasks were {other_seconds / seconds:.2f} times as fast as threads")
    if result.words and top:
        # Equal counts in alphabetical order, so that the same files give the same lines.
        words = sorted(result.words.items(), key=lambda item: (-item[1], item[0]))[:top]
        say("  most frequent words: " + ", ".join(f"{word} {count:,}" for word, count in words))
    if result.skipped:
        say(
            "  not counted: " + ", ".join(f"{skip} ({result.skipped[skip]:,})" for skip in Skip if result.skipped[skip])
        )
    return 0


def look(tree: Tree, seen: Progress) -> int:
    """Read every file once, so that both jobs find the same in the page cache; return how many there are."""
    todo, files = [tree.root], 0
    while todo:
        listing = list_directory(todo.pop(), tree.left_out)
        todo += listing.directories
        for path in listing.files:
            for _ in read_pieces(path):
                pass
            files += 1
            seen.update(files)
    return files


def run_job(
    job_type: type[TaskJob | ThreadJob], name: str, tree: Tree, crew: Crew, total: int | None
) -> tuple[Result, float]:
    """Run one job to its end, showing its progress; return its result and how long it took."""
    with progress(name, "files", total) as shown:
        start = time.perf_counter()
        job = job_type(tree, crew)
        while not job.wait(REFRESH):
            shown.update(job.result.files + job.result.skipped.total())
        return job.result, time.perf_counter() - start


def outcome(result: Result, seconds: float) -> str:
    return (
        f"{result.files:,} files, {megabytes(result.size)}, {result.words.total():,} words in {duration(seconds)}: "
        f"{rate(result.files, seconds)} files/s, {megabytes(result.size / seconds)}/s"
    )


def run_parked(tasks: int, threads: int) -> None:
    """Let many tasks wait at once, then as many threads as there can be."""
    say(f"\n{tasks:,} tasks waiting on one channel")
    show_parked(park_tasks(tasks), tasks, "task")
    if threads:
        say(f"\nThreads waiting on one queue, up to {threads:,}")
        with progress("started", "threads", threads) as shown:
            reached = park_threads(threads, shown.update)
        show_parked(reached, threads, "thread")


def show_parked(parked: Parked, wanted: int, each: str) -> None:
    number = max(parked.number, 1)
    if parked.number < wanted:
        say(f"  only {parked.number:,} came so far: {parked.failure}")
    say(f"  create and wait  {duration(parked.create / number)} per {each}")
    say(f"  memory           {parked.bytes / number:,.0f} bytes per {each}, resident and page tables")
    say(f"  wake and end     {duration(parked.wake / number)} per {each}")
