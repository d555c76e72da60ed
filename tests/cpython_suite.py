"""Runs modules of CPython's own test package inside a task, beside a crowd of other tasks.

    python tests/cpython_suite.py                      the modules of MODULES, one after the other
    python tests/cpython_suite.py test_list test_gc    these modules
    python tests/cpython_suite.py --workers 1,4 ...    with one worker, then with four
    python tests/cpython_suite.py --deep ...           wait at audit events too, so below C code of all sorts
    python tests/cpython_suite.py --where thread ...   in an ordinary thread instead, without pygo
    python tests/cpython_suite.py --table FILE         also put the results into the table of docs/cpython-suite.md

Every module runs twice, each time in a process of its own: as its authors mean it, in the main thread of an
interpreter that has not imported pygo, and in a task, while the main thread joins that task. Between two tests, and
at every assertion in most modules, the task lets others run and goes on wherever it is resumed, so that it moves
between OS threads. A test that passes in the main thread has to pass in the task. Those that cannot are listed in
cpython_exceptions.toml with the reason; a listed test that passes is a failure too, so the list can only shrink. A
process that crashes, hangs, or in which the task never moved or the crowd stood still, is a failure.

Resources that CPython's own runner calls expensive (-u: cpu, network, largefile and the like) stay off.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import faulthandler
import fnmatch
import importlib.util
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # pragma: no cover
    raise SystemExit("CPython 3.11 or later is needed") from None

HERE = Path(__file__).resolve().parent
EXCEPTIONS = HERE / "cpython_exceptions.toml"
MINOR = "{}.{}".format(*sys.version_info[:2])
PLACES = ("main", "thread", "task")
LIMIT = 600.0  # seconds for one module in one place

MODULES = """
    test_list test_dict test_set test_str test_bytes test_int test_long test_float test_generators test_coroutines
    test_exceptions test_traceback test_sys test_gc test_weakref test_contextlib test_context test_functools
    test_itertools test_re test_json test_pickle test_copy test_decimal test_sqlite3 test_ctypes test_struct test_zlib
    test_hashlib test_io test_fileinput test_tempfile test_subprocess test_socket test_ssl test_select test_selectors
    test_threading test_queue test_thread test_threading_local test_concurrent_futures test_signal test_fork1
    test_faulthandler test_sys_setprofile test_sys_settrace test_monitoring test_importlib test_unittest
    test_asyncio.test_base_events test_asyncio.test_context test_asyncio.test_events test_asyncio.test_futures
    test_asyncio.test_locks test_asyncio.test_pep492 test_asyncio.test_queues test_asyncio.test_runners
    test_asyncio.test_selector_events test_asyncio.test_streams test_asyncio.test_subprocess
    test_asyncio.test_taskgroups test_asyncio.test_tasks test_asyncio.test_threads test_asyncio.test_timeouts
    test_asyncio.test_unix_events test_asyncio.test_waitfor
""".split()

# What a module is called where it is not test.<name>.
OTHER_NAMES: dict[str, list[str]] = {
    "test_str": ["test.test_unicode"],
    "test_ctypes": ["ctypes.test"],
    "test_unittest": ["unittest.test"],
}

PASSED, FAILED, SKIPPED, MISSING = "passed", "failed", "skipped", "not run"

# Kinds of exceptions. FAILS: does not pass in a task, and has to fail. LEFT_OUT: not even run, for it would not end, or
# chance decides. ONE_THREAD: has to pass, but without waits at its assertions, for what it is about is bound to an OS
# thread.
FAILS, LEFT_OUT, ONE_THREAD = "fails", "left out", "one thread"
ALL_TESTS = "*"


def find(module: str) -> str | None:
    """The full name of a test module in this interpreter, or None."""
    for name in (f"test.{module}", *OTHER_NAMES.get(module, []), module):
        with contextlib.suppress(ImportError):
            if importlib.util.find_spec(name) is not None:
                return name
    return None


# ---- the exceptions


@dataclass
class Excepted:
    """One entry of cpython_exceptions.toml."""

    module: str
    tests: list[str]
    reason: str
    kind: str = FAILS
    says: str = ""  # what a failure has to say, or it is another one
    versions: list[str] = field(default_factory=list)  # none: all

    def applies(self, module: str) -> bool:
        return fnmatch.fnmatchcase(module, self.module) and (not self.versions or MINOR in self.versions)


def load_exceptions(path: Path) -> list[Excepted]:
    with path.open("rb") as file:
        return [Excepted(**entry) for entry in tomllib.load(file).get("exception", [])]


class Listed:
    """The exceptions of one kind for a module in this version."""

    def __init__(self, exceptions: list[Excepted], module: str, kind: str) -> None:
        entries = [entry for entry in exceptions if entry.applies(module) and entry.kind == kind]
        self.entries = {pattern: entry for entry in entries for pattern in entry.tests}

    def patterns(self) -> list[str]:
        return sorted(self.entries)

    def find(self, test: str) -> Excepted | None:
        for pattern, entry in self.entries.items():
            if fnmatch.fnmatchcase(test, pattern):
                return entry
        return None

    def unused(self, tests: Iterable[str]) -> list[str]:
        """The patterns that none of `tests` matches."""
        return [pattern for pattern in self.patterns() if not fnmatch.filter(tests, pattern)]


def matches(test: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)


# ---- the child: one module in one place


class Recorder(unittest.TestResult):
    """Writes what happens as lines of JSON, each at once: a process that dies has said which test it was in."""

    def __init__(self, module: str, file: Any, before_test: Callable[[str], None]) -> None:
        super().__init__()
        self._prefix = module + "."
        self._file = file
        self._before_test = before_test
        self._outcome = PASSED
        self._details: list[str] = []
        self._running: str | None = None

    def name(self, test: Any) -> str:
        return str(test.id()).removeprefix(self._prefix).replace(self._prefix, "")

    def say(self, **what: Any) -> None:
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()

    def startTest(self, test: Any) -> None:  # noqa: N802
        super().startTest(test)
        self._outcome, self._details, self._running = PASSED, [], self.name(test)
        self.say(start=self._running)
        self._before_test(self._running)

    def stopTest(self, test: Any) -> None:  # noqa: N802
        super().stopTest(test)
        if self._running is None:  # 3.12.1 starts no test that is skipped
            return
        self.say(test=self._running, outcome=self._outcome, details="\n".join(self._details))
        self._running = None

    def note(self, test: Any, outcome: str, details: str) -> None:
        if self._running is None:  # of a class or a module, before or after its tests
            self.say(test=self.name(test), outcome=outcome, details=details)
            return
        self._details.append(details)
        if self._outcome != FAILED:
            self._outcome = outcome

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        self.note(test, FAILED, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        self.addError(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is not None:
            self.addError(subtest, err)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        if self._running is None or not hasattr(test, "test_case"):  # a part that is skipped is not the whole
            self.note(test, SKIPPED, reason)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        self.note(test, FAILED, "unexpected success")


def all_cases(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from all_cases(test)
        else:
            yield test


class FlatSuite(unittest.TestSuite):
    """Runs its cases as unittest's suites do, but by plain calls from Python to Python.

    TestSuite calls its parts, and so goes through C (`type.__call__`) at each level. Below C code a task keeps its OS
    thread, on builds with a shared libpython; and every test would be below C code.
    """

    def run(self, result: Any, debug: bool = False) -> Any:
        result._testRunEntered = True
        for test in self:
            self._tearDownPreviousClass(test, result)  # type: ignore[attr-defined]
            self._handleModuleFixture(test, result)  # type: ignore[attr-defined]
            self._handleClassSetUp(test, result)  # type: ignore[attr-defined]
            result._previousTestClass = test.__class__
            if not getattr(test.__class__, "_classSetupFailed", False) and not result._moduleSetUpFailed:
                test.run(result)
        self._tearDownPreviousClass(None, result)  # type: ignore[attr-defined]
        self._handleModuleTearDown(result)  # type: ignore[attr-defined]
        return result


class Crowd:
    """Tasks that do what tasks do, until stopped: wait, yield, sleep, block outside of pygo, compute, start others."""

    def __init__(self) -> None:
        import pygo

        self.pygo = pygo
        self.turns = {"yields": 0, "sleeps": 0, "blocks": 0, "reads": 0, "computes": 0, "spawns": 0, "speaks": 0}
        self._stopped = False
        self._never: Any = pygo.Channel()
        self._chance = random.Random(1)
        self._sleep_outside, self._read_pipe, self._write_pipe = time.sleep, os.read, os.write  # tests replace them
        self._pipe = os.pipe()  # one for the whole run: tests look at which descriptors are free
        self._tasks: list[Any] = []
        for _ in range(20):
            self._tasks.append(pygo.spawn(self._never.recv_ok))
            self._tasks.append(pygo.spawn(pygo.select, pygo.recv(self._never), pygo.recv(pygo.Channel())))
        for body in (self._yield, self._sleep, self._block, self._block, self._read, self._compute, self._spawn):
            self._tasks.append(pygo.spawn(self._until_stopped, body))
        self._tasks.append(pygo.spawn(self._speak))

    def _until_stopped(self, body: Callable[[], str]) -> None:
        while not self._stopped:
            self.turns[body()] += 1

    def _pause(self) -> float:
        return self._chance.uniform(0.0005, 0.005)

    def _yield(self) -> str:
        for _ in range(20):
            self.pygo.yield_now()
        self.pygo.sleep(0.002)
        return "yields"

    def _sleep(self) -> str:
        self.pygo.sleep(self._pause())
        return "sleeps"

    def _block(self) -> str:
        self._sleep_outside(self._pause())
        self.pygo.yield_now()
        return "blocks"

    def _read(self) -> str:
        reader = self.pygo.spawn(self._read_pipe, self._pipe[0], 1)
        self.pygo.sleep(0.002)
        self._write_pipe(self._pipe[1], b"x")
        reader.join()
        return "reads"

    def _compute(self) -> str:
        sum(range(5000))
        self.pygo.sleep(0.02)
        return "computes"

    def _spawn(self) -> str:
        for task in [self.pygo.spawn(self.pygo.yield_now) for _ in range(5)]:
            task.join()
        self.pygo.sleep(0.003)
        return "spawns"

    def _speak(self) -> None:
        ch: Any = self.pygo.Channel()
        echo = self.pygo.spawn(lambda: [None for _ in ch])
        while not self._stopped:
            ch.send(None)
            self.turns["speaks"] += 1
            self.pygo.sleep(self._pause())
        ch.close()
        echo.join()

    def stop(self) -> None:
        self._stopped = True
        self._never.close()
        for task in self._tasks:
            task.join(timeout=60)


class Moves:
    """Where the task under test goes on, and that it does so elsewhere now and then."""

    def __init__(self, pygo: ModuleType, one_thread: list[str]) -> None:
        self.pygo = pygo
        self.task = pygo.current_task()
        self.one_thread = one_thread
        self.held = False
        self.in_hook = False
        self.getpid, self.thread_id = os.getpid, threading.get_native_id  # tests replace them
        self.pid = os.getpid()
        self.threads = {self.thread_id()}
        self.count = 0
        self.asserts = 0

    def before_test(self, test: str) -> None:
        """Go on on another OS thread, as far as that happens within a few waits."""
        self.held = matches(test, self.one_thread)
        start = self.thread_id()
        for _ in range(10):
            self.pygo.sleep(0.0005)
            here = self.thread_id()
            if here != start:
                self.threads.add(here)
                self.count += 1
                return

    def at_assertion(self) -> None:
        """Let others run; called at every assertion of a test, so below all sorts of callers."""
        if self.held or self.pygo.current_task() is not self.task or self.getpid() != self.pid:
            return
        self.asserts += 1
        start = self.thread_id()
        if self.asserts % 16:
            self.pygo.yield_now()
        else:
            self.pygo.sleep(0)
        self.count += self.thread_id() != start

    def at_audit_events(self) -> None:
        """Let others run at every event that the interpreter audits, too: imports, opened files, compiled code."""

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if not self.in_hook:
                self.in_hook = True
                self.at_assertion()
                self.in_hook = False

        sys.addaudithook(hook)


def wrap_assertions(before: Callable[[], None]) -> None:
    """Call `before` at the beginning of the common assertions."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def assertion(self: Any, *args: Any, **kwargs: Any) -> Any:
            before()
            return original(self, *args, **kwargs)

        assertion.__name__ = original.__name__
        return assertion

    for name in ("Equal", "NotEqual", "True", "False", "Is", "IsNot", "In", "IsNone", "IsInstance", "Raises"):
        setattr(unittest.TestCase, "assert" + name, wrap(getattr(unittest.TestCase, "assert" + name)))


def prepare_support() -> None:
    """Set test.support up as CPython's runner does with all resources off."""
    from test import support

    support.use_resources = []
    support.verbose = 0
    support.failfast = False


def run_module(name: str, report: Any, left_out: list[str], before_test: Callable[[str], None]) -> None:
    recorder = Recorder(name, report, before_test)
    cases = all_cases(unittest.defaultTestLoader.loadTestsFromName(name))
    kept = []
    for case in cases:
        if matches(recorder.name(case), left_out):
            recorder.say(left_out=recorder.name(case))
        else:
            kept.append(case)
    FlatSuite(kept).run(recorder)
    recorder.say(done=True)


def run_in_task(name: str, report: Any, left_out: list[str], one_thread: list[str], deep: bool) -> None:
    import pygo

    crowd = Crowd()

    def body() -> Moves:
        moves = Moves(pygo, one_thread)
        wrap_assertions(moves.at_assertion)
        if deep:
            moves.at_audit_events()
        run_module(name, report, left_out, moves.before_test)
        return moves

    task = pygo.spawn(body)
    while not task.done():  # what tests do to the main thread is no reason to end
        with contextlib.suppress(KeyboardInterrupt):
            pygo.wait([task])
    moves = task.result()
    crowd.stop()
    report.write(json.dumps({"moves": moves.count, "threads": len(moves.threads), "crowd": crowd.turns}) + "\n")
    report.flush()


def run_in_thread(name: str, report: Any, left_out: list[str]) -> None:
    thread = threading.Thread(target=run_module, args=(name, report, left_out, lambda test: None))
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(KeyboardInterrupt):
            thread.join()


def child(where: str, name: str, path: str) -> None:
    """The whole of a child process. What to leave out, and what keeps its thread, comes through standard input."""
    left_out, one_thread, deep = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv[1:] = []
    with open(path, "w") as report:
        if where == "main":
            run_module(name, report, left_out, lambda test: None)
        elif where == "thread":
            run_in_thread(name, report, left_out)
        else:
            run_in_task(name, report, left_out, one_thread, deep)


# ---- the parent


@dataclass
class Run:
    """What one module did in one place."""

    outcomes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    trouble: str = ""  # why it did not come to its end
    seconds: float = 0.0
    moves: int = 0
    threads: int = 0
    crowd: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        return sum(found == outcome for found in self.outcomes.values())

    def failed(self) -> list[str]:
        return [test for test, outcome in self.outcomes.items() if outcome == FAILED]


WORST_FIRST = (FAILED, PASSED, SKIPPED)


def read_report(path: Path, run: Run) -> None:
    started, done = "before the first test", False
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        if "start" in entry:
            started = entry["start"]
        elif "test" in entry:
            test = entry["test"]
            before = run.outcomes.get(test, entry["outcome"])
            run.outcomes[test] = min(before, entry["outcome"], key=WORST_FIRST.index)
            if entry["details"]:
                run.details[test] = (run.details.get(test, "") + "\n" + entry["details"]).strip()
            started = f"after {test}"
        elif "left_out" in entry:
            run.left_out.add(entry["left_out"])
        elif "done" in entry:
            done = True
            started = "after the last test"
        elif "crowd" in entry:
            run.moves, run.threads, run.crowd = entry["moves"], entry["threads"], entry["crowd"]
    if not done or run.trouble:
        run.trouble = f"{run.trouble or 'it ended early'}, {started}"


def signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def set_process_up() -> None:
    """In the child, before it runs Python."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


def run_child(
    where: str,
    name: str,
    left_out: list[str],
    one_thread: list[str],
    workers: int | None = None,
    limit: float = LIMIT,
    deep: bool = False,
) -> Run:
    """Run one module in one place."""
    run = Run()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYGO_")}
    environment["LC_ALL"] = "C.UTF-8"
    if workers is not None:
        environment["PYGO_WORKERS"] = str(workers)
    with tempfile.TemporaryDirectory(prefix="pygo-suite-", ignore_cleanup_errors=True) as directory:
        report, log, place = Path(directory, "report"), Path(directory, "log"), Path(directory, "place")
        place.mkdir()
        environment["TMPDIR"] = str(place)
        begin = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", __file__, "--child", where, name, str(report)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=place,
                start_new_session=True,
                preexec_fn=set_process_up,
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps([left_out, one_thread, deep]).encode())
            process.stdin.close()
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                run.trouble = f"it hung for {limit:.0f} s"
                process.send_signal(signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            finally:
                signal_all(process, signal.SIGKILL)
                process.wait()
        run.seconds = time.monotonic() - begin
        if process.returncode and not run.trouble:
            code = process.returncode
            run.trouble = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        read_report(report, run)
        if run.trouble:
            run.details["trouble"] = log.read_text(errors="replace")[-20_000:]
    return run


@dataclass
class Verdict:
    """One module: what went wrong, and the figures for the table."""

    module: str
    problems: list[str] = field(default_factory=list)
    main: Run | None = None
    runs: dict[str, Run] = field(default_factory=dict)  # by place and number of workers
    excepted: set[str] = field(default_factory=set)  # what failed as listed, and what was left out
    absent: bool = False

    def line(self) -> str:
        if self.absent:
            return f"{self.module}: not in this Python"
        told = [self.module]
        for label, run in {**self.runs, **({"main": self.main} if self.main else {})}.items():
            figures = f"{run.count(PASSED)} passed, {run.count(FAILED)} failed, {run.count(SKIPPED)} skipped"
            told.append(f"  {label}: {figures}, {run.seconds:.1f} s" + (f", {run.moves} moves" if run.crowd else ""))
        if self.excepted:
            told.append(f"  {len(self.excepted)} excepted")
        return "\n".join(told)

    def cell(self) -> str:
        """For the table: tests run, of those passed with every number of workers, and exceptions."""
        if self.absent:
            return "-"
        run = {test for each in self.runs.values() for test, outcome in each.outcomes.items() if outcome != SKIPPED}
        passed = {test for test in run if all(each.outcomes.get(test) == PASSED for each in self.runs.values())}
        return f"{len(run)} / {len(passed)} / {len(self.excepted)}"


def judge(verdict: Verdict, label: str, task: Run, listed: Listed) -> None:
    """Compare what happened in the task with the main thread and with the list."""
    main = verdict.main

    def problem(what: str, details: str = "") -> None:
        verdict.problems.append(f"{label}: {what}\n{details}")

    if task.trouble:
        problem(task.trouble, task.details.get("trouble", ""))
    for test in sorted(task.outcomes | (main.outcomes if main is not None else {})):
        here = task.outcomes.get(test, MISSING)
        there = main.outcomes.get(test, MISSING) if main is not None else PASSED
        entry = listed.find(test)
        if entry is not None:
            details = task.details.get(test, "")
            if here == PASSED:
                problem(f"{test}: passed, but is listed as an exception ({entry.reason})")
            elif here == FAILED and entry.says not in details:
                problem(f"{test}: failed, but not as listed ({entry.reason})", details)
            if here == FAILED:
                verdict.excepted.add(test)
        elif here == FAILED and there != FAILED:
            problem(f"{test}: failed", task.details.get(test, ""))
        elif main is not None and here in (SKIPPED, MISSING) and there == PASSED and not task.trouble:
            problem(f"{test}: {here}, but passed in the main thread", task.details.get(test, ""))
    if not task.trouble:
        for pattern in listed.unused(task.outcomes):
            problem(f"{pattern}: is listed as an exception, but there is no such test")


def judge_crowd(verdict: Verdict, label: str, task: Run) -> None:
    """That others ran beside the task, and that it moved; else the run has shown nothing."""
    if task.trouble:
        return
    if len(task.outcomes) >= 20 and task.moves == 0:
        verdict.problems.append(f"{label}: the task never moved to another OS thread")
    idle = [kind for kind, turns in task.crowd.items() if turns == 0]
    if task.seconds > 5 and idle:
        verdict.problems.append(f"{label}: the crowd stood still: {', '.join(idle)}")


def check_module(
    module: str,
    exceptions: list[Excepted],
    *,
    place: str = "task",
    workers: Sequence[int | None] = (None,),
    limit: float = LIMIT,
    always_compare: bool = True,
    deep: bool = False,
) -> Verdict:
    """Run a module in both places and say what is wrong. In the main thread only if needed, unless `always_compare`."""
    verdict = Verdict(module)
    name = find(module)
    if name is None:
        verdict.absent = True
        return verdict
    out, listed, still = (Listed(exceptions, module, kind) for kind in (LEFT_OUT, FAILS, ONE_THREAD))
    for count in workers:
        label = place if count is None else f"{place}, {count} workers"
        verdict.runs[label] = run_child(place, name, out.patterns(), still.patterns(), count, limit, deep)
    if always_compare or any(run.trouble or not all(map(listed.find, run.failed())) for run in verdict.runs.values()):
        verdict.main = run_child("main", name, out.patterns(), [], limit=limit)
        if verdict.main.trouble:  # nothing can be said about the task then
            verdict.problems.append(f"main: {verdict.main.trouble}\n{verdict.main.details.get('trouble', '')}")
    for label, run in verdict.runs.items():
        judge(verdict, label, run, listed)
        if place == "task":
            judge_crowd(verdict, label, run)
        verdict.excepted |= run.left_out
    return verdict


def shown(verdict: Verdict, details: bool) -> str:
    lines = [verdict.line()]
    for problem in verdict.problems:
        text = problem if details else problem.partition("\n")[0]
        lines.append("  PROBLEM " + text.strip().replace("\n", "\n    "))
    return "\n".join(lines)


# ---- the table

BEGIN, END = "<!-- results -->", "<!-- /results -->"
LEFT_BEGIN, LEFT_END = "<!-- exceptions -->", "<!-- /exceptions -->"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """The columns of the table in the page: by Python, the cells by module."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    ]
    if len(rows) < 2:
        return {}
    return {python: {row[0]: row[at] for row in rows[2:]} for at, python in enumerate(rows[0]) if at}


def written_table(columns: dict[str, dict[str, str]]) -> str:
    pythons = sorted(columns, key=lambda python: [int(part) for part in python.split(".")])
    lines = ["| | " + " | ".join(pythons) + " |", "| --- |" + " ---: |" * len(pythons)]
    for row in ["date", "workers", *MODULES]:
        cells = [columns[python].get(row, "") for python in pythons]
        lines.append(f"| {row if row in ('date', 'workers') else f'`{row}`'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def written_exceptions(exceptions: list[Excepted]) -> str:
    lines = ["| module | tests | Pythons | | reason |", "| --- | --- | --- | --- | --- |"]
    for entry in exceptions:
        tests = "all" if entry.tests == [ALL_TESTS] else ", ".join(f"`{test}`" for test in entry.tests)
        versions = ", ".join(entry.versions) or "all"
        lines.append(f"| `{entry.module}` | {tests} | {versions} | {entry.kind} | {entry.reason} |")
    return "\n".join(lines)


def replaced(text: str, begin: str, end: str, what: str) -> str:
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{what}\n{end}{rest.partition(end)[2]}"


def update_page(path: Path, verdicts: list[Verdict], workers: Sequence[int | None], exceptions: list[Excepted]) -> None:
    """Put the results of this Python into its column."""
    text = path.read_text()
    columns = read_table(text)
    before = columns.get(platform.python_version(), {})  # a run of some modules leaves the others as they are
    columns = {python: cells for python, cells in columns.items() if not python.startswith(f"{MINOR}.")}
    columns[platform.python_version()] = before | {
        "date": datetime.date.today().isoformat(),
        "workers": ", ".join(str(count or "default") for count in workers),
        **{verdict.module: verdict.cell() for verdict in verdicts},
    }
    text = replaced(text, BEGIN, END, written_table(columns))
    path.write_text(replaced(text, LEFT_BEGIN, LEFT_END, written_exceptions(exceptions)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="names as in test.NAME")
    parser.add_argument("--where", choices=PLACES, default="task", help="the place to compare with the main thread")
    parser.add_argument("--workers", help="PYGO_WORKERS of the tasks; 1,4 runs everything with each (default: pygo's)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one module in one place")
    parser.add_argument("--no-exceptions", action="store_true", help="as if the list of exceptions were empty")
    parser.add_argument("--quick", action="store_true", help="compare with the main thread only what fails")
    parser.add_argument("--deep", action="store_true", help="let others run at audit events too")
    parser.add_argument("--brief", action="store_true", help="names of failed tests without their tracebacks")
    parser.add_argument("--table", type=Path, help="also put the results into this page, docs/cpython-suite.md")
    options = parser.parse_args()
    exceptions = [] if options.no_exceptions else load_exceptions(EXCEPTIONS)
    workers = [int(count) for count in options.workers.split(",")] if options.workers else [None]
    print(f"CPython {platform.python_version()}, {options.where}, workers: {options.workers or 'default'}")
    verdicts = []
    for module in options.modules or MODULES:
        verdict = check_module(
            module,
            exceptions,
            place=options.where,
            workers=workers,
            limit=options.limit,
            always_compare=not options.quick,
            deep=options.deep,
        )
        print(shown(verdict, not options.brief), flush=True)
        verdicts.append(verdict)
        if options.table:
            update_page(options.table, [verdict], workers, exceptions)
    failed = [verdict.module for verdict in verdicts if verdict.problems]
    sys.exit(f"{len(failed)} of {len(verdicts)} modules failed: {' '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    if sys.argv[1:2] == ["--child"]:
        faulthandler.enable()
        with contextlib.suppress(ImportError):
            prepare_support()
        child(*sys.argv[2:])
    else:
        main()
