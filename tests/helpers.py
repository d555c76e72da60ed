"""What several test files share: waiting for a condition, child programs, forced moves between OS threads."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Self, TypeVar

import pygo

T = TypeVar("T")

# PYGO_TEST_EMULATED=1: another CPU, emulated. Conftest leaves out what emulated.toml names.
EMULATED = os.environ.get("PYGO_TEST_EMULATED", "0") not in ("", "0")
IS_SLOW = hasattr(sys, "gettotalrefcount") or "libasan" in os.environ.get("LD_PRELOAD", "")  # the first: a debug build
SLOWNESS = 5 if EMULATED else 3 if IS_SLOW else 1
# Longer than any correct wait takes on the busiest machine; only a hang reaches it.
HANG = 30.0 * SLOWNESS

# PYGO_LONG_TESTS=1 runs the ported programs at the size of their originals, which takes many minutes.
LONG_TESTS = os.environ.get("PYGO_LONG_TESTS", "0") not in ("", "0")
# PYGO_TEST_SWITCH_INTERVAL=1e-6 has every test, and the programs that it runs, at that sys.setswitchinterval().
SWITCH_INTERVAL = float(text) if (text := os.environ.get("PYGO_TEST_SWITCH_INTERVAL")) else None
PROGRAM_LIMIT = 20 * HANG if LONG_TESTS else HANG


def c_compiler() -> list[str]:
    """The one of the environment or of this Python, if it is here; else the system's."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    return command if shutil.which(command[0]) else ["cc"]


def shared_library(source: Path, folder: Path, *flags: str) -> Path:
    """A file in C, compiled into the folder, to be loaded or preloaded."""
    target = folder / f"{source.stem}.so"
    common = ("-shared", "-fPIC", "-O1", "-pthread")
    subprocess.run([*c_compiler(), *common, *flags, str(source), "-o", str(target), "-ldl"], check=True)
    return target


def heed_interrupts() -> None:
    """A shell lets its jobs in the background ignore these; what tests run and interrupt would inherit that."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def scaled(usual: int, full: int) -> int:
    """How much a ported program does: ``usual``, or ``full`` as its original when long tests are asked for."""
    return full if LONG_TESTS else usual


def wait_until(predicate: Callable[[], T], timeout: float = HANG, what: str = "") -> T:
    """Poll ``predicate`` until it is true and return its value; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    in_task = pygo.current_task() is not None
    while not (value := predicate()):
        if time.monotonic() > deadline:
            where = f"{predicate.__code__.co_filename}:{predicate.__code__.co_firstlineno}"
            raise AssertionError(f"not true within {timeout} s: {what or where}")
        if in_task:
            pygo.yield_now()
            pygo.sleep(0.0005)
        else:
            time.sleep(0.0005)
    return value


def join_all(tasks: list[Any], timeout: float = HANG) -> list[Any]:
    """Join every task and return the results in order."""
    deadline = time.monotonic() + timeout
    return [task.join(timeout=max(0.0, deadline - time.monotonic())) for task in tasks]


def in_task(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run ``fn`` as a task and return its result, or raise its exception."""
    return pygo.spawn(fn, *args, **kwargs).join(timeout=HANG)


def run_main(fn: Callable[..., T], /, *args: Any) -> T:
    """Run ``fn``, the main function of a ported program, as a task and return its result, or raise its exception."""
    return pygo.spawn(fn, *args).join(timeout=PROGRAM_LIMIT)


def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """Run ``fn`` on an ordinary thread and return its result, or raise its exception."""
    (outcome,) = in_threads([lambda: fn(*args)])
    return outcome


def in_threads(functions: list[Callable[[], Any]], timeout: float = HANG) -> list[Any]:
    """Run every function on its own ordinary thread at once; results in order, the first failure raised."""
    results: list[Any] = [None] * len(functions)
    failures: list[BaseException | None] = [None] * len(functions)

    def body(slot: int) -> None:
        try:
            results[slot] = functions[slot]()
        except BaseException as exc:
            failures[slot] = exc

    threads = [threading.Thread(target=body, args=(slot,), daemon=True) for slot in range(len(functions))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [slot for slot, thread in enumerate(threads) if thread.is_alive()]
    for failure in failures:
        if failure is not None:
            raise failure
    assert not stuck, f"threads {stuck} did not end within {timeout} s"
    return results


PLACES: dict[str, Callable[..., Any]] = {
    "main": lambda fn, *args: fn(*args),
    "task": in_task,
    "thread": in_thread,
}


def move_to_another_thread(attempts: int | None = None) -> bool:
    """Make the current task continue on another OS thread; return whether that happened.

    A task that sits in a blocking call keeps its thread, and the right to run goes to another worker. So another task
    wakes this one and then blocks the thread that it left, until it has gone on elsewhere, or until our patience ends:
    for a task that has to stay on its thread give a number of ``attempts``.
    """
    here, patience, deadline = threading.get_native_id(), 0.01, time.monotonic() + HANG
    while True:
        woken: pygo.Channel[None] = pygo.Channel(1)
        gone_on = threading.Event()
        pygo.spawn(_wake_and_block, here, woken, gone_on, patience)
        woken.recv()
        gone_on.set()
        if threading.get_native_id() != here:
            return True  # without another wait, which might bring it back
        attempts = attempts - 1 if attempts is not None else None
        if attempts == 0 or time.monotonic() > deadline:
            return False
        patience = min(2 * patience, 1.0)


def _wake_and_block(here: int, woken: pygo.Channel[None], gone_on: threading.Event, patience: float) -> None:
    woken.send(None)
    if threading.get_native_id() == here:
        gone_on.wait(patience)


@contextlib.contextmanager
def blocked_reader() -> Iterator[tuple[Any, Callable[[], None]]]:
    """A task that sits in a blocking ``os.read``, and the function that lets it go on."""
    readable, writable = os.pipe()
    task = pygo.spawn(os.read, readable, 1)
    released = False

    def release() -> None:
        nonlocal released
        if not released:
            released = True
            os.write(writable, b"x")

    try:
        yield task, release
    finally:
        release()
        task.join(timeout=HANG)
        os.close(readable)
        os.close(writable)


def native_threads() -> int:
    """How many OS threads this process has."""
    return len(os.listdir("/proc/self/task"))


@dataclass
class Finished:
    """What a child program left behind."""

    code: int
    out: str
    err: str

    def ok(self) -> Finished:
        """Fail unless the program ended with exit code 0; return itself."""
        assert self.code == 0, f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        return self


class Program:
    """A child Python program; ``expect`` reads its output, ``finish`` waits for its end."""

    def __init__(self, source: str, *args: str, env: dict[str, str] | None = None, options: tuple[str, ...] = ()):
        self._directory = tempfile.TemporaryDirectory(prefix="pygo-test-")
        path = Path(self._directory.name) / "program.py"
        text = textwrap.dedent(source)
        if SWITCH_INTERVAL is not None:  # in front of the first line, so that those that follow keep their numbers
            text = f"import sys; sys.setswitchinterval({SWITCH_INTERVAL!r}); {text}"
        path.write_text(text)
        environment = dict(os.environ, PYTHONPATH=str(Path(pygo.__file__).parent.parent), PYTHONUNBUFFERED="1")
        environment.update(env or {})
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *options, str(path), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self._directory.name,
        )
        self.pid = self._process.pid
        # Should this very process be killed, a computing child must not go on for ever.
        resource.prlimit(self.pid, resource.RLIMIT_CPU, (300, 300))

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def expect(self, line: str) -> None:
        """Read one line of output, which must be ``line``."""
        assert self._process.stdout is not None
        got = self._process.stdout.readline().rstrip("\n")
        if got != line:
            finished = self.finish(timeout=5.0)
            raise AssertionError(f"expected {line!r}, got {got!r}, then {finished}")

    def finish(self, timeout: float = HANG) -> Finished:
        """Wait for the end; on timeout have faulthandler print every thread's stack, and fail with that."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            threads = self._describe_threads()
            self._process.send_signal(signal.SIGABRT)
            try:
                out, err = self._process.communicate(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                out, err = self._process.communicate()
            raise AssertionError(
                f"the program did not end within {timeout} s\n--- threads\n{threads}\n"
                f"--- stdout\n{out}\n--- stderr\n{err}"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                self._directory.cleanup()
        if EMULATED:  # the emulator has its own word on signals that end a process
            err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("qemu: uncaught "))
        return Finished(self._process.returncode, out, err)

    def _describe_threads(self) -> str:
        lines = []
        with contextlib.suppress(OSError):
            for entry in sorted(Path(f"/proc/{self.pid}/task").iterdir(), key=lambda path: int(path.name)):
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    lines.append(f"{entry.name} {fields[0]} {(entry / 'wchan').read_text()}")
        return "\n".join(lines)


def run_program(
    source: str,
    *args: str,
    timeout: float = HANG,
    env: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Finished:
    """Run ``source`` as a program of its own and return its exit code, standard output and standard error."""
    return Program(source, *args, env=env, options=options).finish(timeout if timeout == HANG else timeout * SLOWNESS)


class Interruption:
    """As a context: Ctrl-C in the calling thread at the ``step``th moment when a function of ``module`` could get it.

    CPython looks for signals where a Python function begins and where one in C has returned, among others.
    """

    def __init__(self, module: ModuleType, step: int, exempt: tuple[str, ...] = ()) -> None:
        self.file, self.step, self.exempt = module.__file__, step, exempt

    def __enter__(self) -> Self:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        here = event == "c_return" or (event == "call" and code.co_name not in self.exempt)
        if here and code.co_filename == self.file:
            self.step -= 1
            if self.step == 0:
                raise KeyboardInterrupt

    @property
    def came(self) -> bool:
        return self.step <= 0
