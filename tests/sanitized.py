"""The extension under tools that watch memory, one command each.

    python tests/sanitized.py asan              AddressSanitizer and UBSan, and a part of the tests
    python tests/sanitized.py asan --long       all tests that can run there
    python tests/sanitized.py valgrind          memcheck, and tests/echo_program.py
    python tests/sanitized.py valgrind --long   the same many times, with 1, 2, 4 and 16 workers
    python tests/sanitized.py --long            both

Each builds the extension from this tree in a directory of its own. First with bugs in it, each of which the tool has to
find; then as it is, which has to do its work without a report. Exit code 0 says both.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("csrc", "pygo", "tests", "docs", "setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@dataclass(frozen=True)
class Bug:
    """One place of a source changed, a program that meets only this one, and what the tool then says."""

    name: str
    source: str
    old: str
    new: str
    program: str
    says: str


USED_AFTER_FREE = (
    "sync/chan.c",
    "    uintptr_t value = chan->ring[chan->head];",
    "    free(chan->ring);\n    uintptr_t value = chan->ring[chan->head];",
    "import pygo; channel = pygo.Channel(8); channel.send(1); channel.recv()",
)
OVERRUN = (
    "sync/chan.c",
    "malloc(capacity * sizeof *chan->ring)",
    "malloc((capacity - 1) * sizeof *chan->ring)",
    "import pygo; channel = pygo.Channel(2); channel.send(1); channel.send(2)",
)
ASAN_BUGS = (
    Bug("used after it was freed", *USED_AFTER_FREE, "heap-use-after-free"),
    Bug("written behind its end", *OVERRUN, "heap-buffer-overflow"),
    Bug(
        "a frame of a task's stack, used after its return",
        "python/time.c",
        "    pg_nanos nanos;\n    if (nanos_from(seconds, &nanos) < 0) return NULL;\n    if (nanos == 0) {",
        "    pg_nanos *left;\n    {\n        pg_nanos inner;\n        left = &inner;\n"
        "        if (nanos_from(seconds, left) < 0) return NULL;\n    }\n"
        "    pg_nanos nanos = *(volatile pg_nanos *)left;\n    if (nanos == 0) {",
        "import pygo; pygo.spawn(pygo.sleep, 0.001).join()",
        "stack-use-after-scope",
    ),
    Bug(
        "a shift that C does not define",
        "sync/chan.c",
        "int pg_chan_close(pg_chan *chan)\n{\n",
        "int pg_chan_close(pg_chan *chan)\n{\n    volatile int by = 40, shifted = 1 << by;\n    (void)shifted;\n",
        "import pygo; pygo.Channel().close()",
        "shift exponent 40",
    ),
)
VALGRIND_BUGS = (
    Bug("used after it was freed", *USED_AFTER_FREE, "Invalid read of size 8"),
    Bug("written behind its end", *OVERRUN, "Invalid write of size 8"),
    Bug(
        "never initialised",
        "sync/chan.c",
        "    atomic_init(&party->claimed, false);\n    atomic_init(&party->done, PG_WAIT_OPEN);\n",
        "    atomic_init(&party->claimed, false);\n    char undefined[64];\n"
        '    __asm__ volatile("" : : "r"(undefined) : "memory");\n'
        "    atomic_init(&party->done, undefined[7] == 42 ? PG_WAIT_OPEN : PG_WAIT_OPEN);\n"
        "    if (undefined[8] == 42) party->is_select = is_select;\n",
        "import pygo; pygo.spawn(sum, [1, 2]).join()",
        "Conditional jump or move depends on uninitialised value",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a program under a tool left behind; ``reports`` are the tool's, of all its processes."""

    code: int
    output: str
    reports: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.output}\n{self.reports}"


@dataclass
class Tool:
    """How the extension is built for a tool, and how Python runs under it."""

    directory: Path
    cflags: str
    ldflags: str = ""
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def build(self, name: str, bugs: tuple[Bug, ...] = ()) -> Path:
        """A copy of the tree with these bugs and the extension."""
        tree = self.directory / name
        tree.mkdir()
        for part in SOURCES:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            elif (ROOT / part).exists():
                shutil.copy2(ROOT / part, tree / part)
        for bug in bugs:
            path = tree / "csrc" / bug.source
            text = path.read_text()
            if text.count(bug.old) != 1:
                sys.exit(f"{bug.source} has changed: adapt the planted bug {bug.name!r}")
            path.write_text(text.replace(bug.old, bug.new))
        env = dict(os.environ, PYGO_CFLAGS=self.cflags, LDFLAGS=self.ldflags)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        built = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            sys.exit(f"cannot build: {built.stdout}{built.stderr}")
        return tree

    def environment(self, tree: Path) -> dict[str, str]:
        """For a Python that is to import the extension of that tree."""
        return dict(os.environ, PYTHONPATH=str(tree))

    def python(self, tree: Path, *arguments: str, limit: float = 120.0, shown: bool = False) -> Outcome:
        """Run Python on the extension of that tree."""
        reports = tree / "reports"
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir()
        env = self.environment(tree) | {"PYTHONMALLOC": "malloc", "PYTHONFAULTHANDLER": "1"}
        env |= {name: value.replace("REPORTS", str(reports)) for name, value in self.env.items()}
        command = [*(part.replace("REPORTS", str(reports)) for part in self.command), sys.executable, *arguments]
        with subprocess.Popen(
            command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            lines = []
            assert process.stdout is not None
            watchdog = subprocess.Popen(["sh", "-c", f"sleep {limit} && kill -ABRT {process.pid}"])
            try:
                for line in process.stdout:
                    lines.append(line)
                    if shown:
                        print(line, end="", flush=True)
            finally:
                watchdog.kill()
                watchdog.wait()
        found = "".join(path.read_text(errors="replace") for path in sorted(reports.iterdir()))
        return Outcome(process.returncode, "".join(lines), found)

    def must_find(self, bugs: tuple[Bug, ...]) -> None:
        """Build with all the bugs, and run the program of each: the tool has to name it."""
        tree = self.build("planted", bugs)
        for bug in bugs:
            outcome = self.python(tree, "-c", bug.program)
            if outcome.code == 0 or bug.says not in outcome.output + outcome.reports:
                sys.exit(f"the planted bug {bug.name!r} was not found: {outcome}")
            print(f"found: {bug.name}: {bug.says}", flush=True)
        shutil.rmtree(tree)


# ---- AddressSanitizer and UBSan

# What moves most through the core, at the size of a stage of CI.
SHORT = ("task", "channel", "select", "cancel", "waitgroup", "timer", "sync", "queues", "futures", "taskgroup")
SHORT += ("callbacks", "sanitizers")
LEFT_OUT = {
    "c_core": "builds its own",
    "cpython_suite": "runs for hours there",
    "docs": "uses no extension",
    "edges": "forks while other threads allocate: the sanitizer's locks stay taken in the child, up to GCC 13",
    "failpoints": "builds its own, and counts the blocks of Python's own allocator, which is off here",
    "fork": "forks, as edges",
    "memory": "about resident memory, of which the sanitizer keeps what is freed",
    "model": "builds its own",
    "packaging": "builds its own",
    "soak": "about resident memory",
    "stack_memory": "about resident memory",
    "threading_cpython": "forks",
    "tools": "uses no extension",
}
DESELECTED = {
    "tests/test_sync.py::test_free_locks_cost_what_those_of_threading_do": "compares speeds",
    "tests/test_sync.py::test_handing_over_between_tasks_is_much_faster_than_between_threads": "compares speeds",
    "tests/test_demo.py::test_threads_that_the_system_refuses_are_reported_not_fatal": "needs a limit",
    "tests/test_go_chan_programs.py::test_selects_whose_other_case_never_happens_take_no_memory": "resident memory",
    "tests/test_leaks.py::test_free_lists_of_asyncio_are_left_alone": "needs a limit",
    "tests/test_scenarios.py::test_errno_matrix": "preloads a library of its own",
    "tests/test_watchdog.py::test_each_stay_is_reported_and_progress_is_not": "counts reports in a time",
}
FORK = (
    "tests/test_cancel.py::test_deadlines_count_on_in_a_forks_child",
    "tests/test_deadlock.py::test_main_that_nothing_can_wake_gets_an_error[a child of a fork]",
    "tests/test_futures.py::test_to_thread_works_in_a_forks_child",
    "tests/test_overflow.py::test_a_forked_child_says_so_too",
    "tests/test_scenarios.py::test_fork_at_any_moment",
    "tests/test_sync.py::test_a_fork_child_finds_locks_in_order",
    "tests/test_synctest.py::TestTheCall::test_a_task_that_forks_is_alone_in_its_bubble",
    "tests/test_timers.py::TestPrograms::test_in_a_forks_child_no_timer_is_pending_and_each_can_be_started_again",
    "tests/test_watchdog.py::test_it_goes_on_in_the_child_of_a_fork",
)
DESELECTED |= dict.fromkeys(FORK, "forks, as edges")


def library(name: str) -> str:
    """The runtime of a sanitizer, as the compiler of the extension finds it."""
    compiler = shlex.split(os.environ.get("CC") or "gcc")
    found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def asan(directory: Path, is_long: bool) -> None:
    flags = "-fsanitize=address,undefined"
    tool = Tool(
        directory,
        f"-O1 -g -w {flags} -fno-sanitize-recover=undefined -fno-omit-frame-pointer",
        flags,
        {
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            # Python leaks by design. A frame must lie on its task's stack. Faults belong to pygo and faulthandler.
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:handle_segv=0:handle_sigbus=0:"
            "log_path=REPORTS/asan",
            "UBSAN_OPTIONS": "print_stacktrace=1:log_path=REPORTS/ubsan",
        },
    )
    tool.must_find(ASAN_BUGS)
    tree = tool.build("clean")
    names = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py"))
    chosen = [name for name in names if name not in LEFT_OUT] if is_long else list(SHORT)
    os.environ.setdefault("PYGO_TEST_WORKERS", "1,4" if is_long else "4")
    os.environ.setdefault("PYGO_TEST_SEEDS", "3" if is_long else "1")
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=300", "--durations=5"]
    arguments += [f"--deselect={name}" for name in DESELECTED]
    arguments += [f"tests/test_{name}.py" for name in chosen]
    outcome = tool.python(tree, *arguments, limit=7200.0 if is_long else 600.0, shown=True)
    passed = re.search(r"(\d+) passed", outcome.output)
    if outcome.code != 0 or outcome.reports or not passed or int(passed[1]) < 500:
        sys.exit(f"failed: exit code {outcome.code}\n{outcome.reports}")
    print(f"asan: {passed[1]} tests, no report")


# ---- valgrind


def workloads(is_long: bool) -> Iterator[list[str]]:
    """Arguments of the program: rounds, workers."""
    if not is_long:
        yield ["1", "2"]
        return
    for workers in (1, 2, 4, 16):
        yield ["20", str(workers)]


def valgrind(directory: Path, is_long: bool) -> None:
    suppressions = ROOT / "tests" / "memcheck.supp"
    options = ("--error-exitcode=99", f"--suppressions={suppressions}", "--log-file=REPORTS/%p", "--num-callers=30")
    tool = Tool(directory, "-O1 -g -w -DPG_VALGRIND", command=("valgrind", "--tool=memcheck", *options))
    tool.must_find(VALGRIND_BUGS)
    tree = tool.build("clean")
    for arguments in workloads(is_long):
        outcome = tool.python(tree, "tests/echo_program.py", *arguments, limit=3600.0 if is_long else 300.0)
        done = re.search(r"^operations: (\d+)$", outcome.output, re.MULTILINE)
        errors = re.findall(r"ERROR SUMMARY: (\d+) errors", outcome.reports)
        if outcome.code != 0 or not done or int(done[1]) < 400 or not errors or set(errors) != {"0"}:
            sys.exit(f"failed: {outcome}")
        print(f"valgrind: {done[1]} operations with {arguments[1]} workers, 0 errors", flush=True)


TOOLS = {"asan": asan, "valgrind": valgrind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=list(TOOLS), nargs="*", help="both if none is named")
    parser.add_argument("--long", action="store_true", help="much more of it")
    arguments = parser.parse_args()
    for tool in arguments.tool or TOOLS:
        with tempfile.TemporaryDirectory(prefix="pygo-sanitized.") as directory:
            TOOLS[tool](Path(directory), arguments.long)


if __name__ == "__main__":
    main()
