"""Builds the programs of this directory: models of parts of the C core, which they link unchanged.

The core's sources are compiled with ThreadSanitizer's instrumentation and linked with the explorer (explore.h) in place
of its runtime. A mutation is a change of one source on its way to the compiler.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Werror")
COMMON = ("-std=gnu11", "-g", "-fno-pie", "-pthread", "-D_GNU_SOURCE=1", f"-I{CSRC}", f"-I{HERE}", *WARNINGS)
SHADOW = f"-I{HERE / 'shadow'}"  # comes before the core's own headers
EXPLORER = ("explore.c", "memory.c", "system.c")
# The last one: the core is not to look for the runtime's interface.
INSTRUMENTED = (
    "-O1",
    "-fsanitize=thread",
    *(
        f"-D{name}=mc_{name}"
        for name in ("malloc", "calloc", "free", "aligned_alloc", "posix_memalign", "memcpy", "memset", "syscall")
    ),
    "-U__SANITIZE_THREAD__",
    "-Wno-tsan",  # that it does not model fences: we do
)


# What system.c stands in for, where os.c is linked as well.
SYSTEM = (
    *("now", "deadline_after", "cpu_count", "nanosleep", "futex_wait", "futex_wake", "errno_get", "errno_set"),
    *("os_thread_start", "os_yield", "os_thread_count", "os_thread_id", "os_is_main_thread"),
    *("tls_get", "tls_set", "tls_on_thread_exit"),
)


@dataclass(frozen=True)
class Program:
    """A model: its file here, the core's sources under test, flags for all of them, and for single sources."""

    model: str
    sources: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    source_flags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    shadow: bool = True
    changes: tuple[tuple[str, str, str], ...] = ()  # source, old, new: loops that only multiply the executions


# Tasks on fibers, whichever worker they go on with.
MOVING = (
    "objects/task.c",
    "objects/runq.c",
    "sources/timer.c",
    "sched/thread.c",
    "sched/sched.c",
    "sched/worker.c",
    "sched/park.c",
    "sched/fiber.c",
)

PROGRAMS: Mapping[str, Program] = {
    "litmus": Program("litmus.c"),
    "fuzz": Program("fuzz.c"),
    "runq": Program("runq.c", ("objects/runq.c",), ("-DPG_RUNQ_SIZE=4",)),
    "runq_of_two": Program("runq.c", ("objects/runq.c",), ("-DPG_RUNQ_SIZE=2",)),
    "lock": Program(
        "lock.c",
        ("os/os.c",),
        source_flags=(
            ("os/os.c", (*(f"-Dpg_{name}=pg_real_{name}" for name in SYSTEM), "-D__errno_location=mc_errno")),
        ),
        shadow=False,
        changes=(("os/os.c", "spin < 64", "spin < 1"),),
    ),
    "timers": Program("timers.c", ("sources/timer.c",)),
    "workers": Program(
        "workers.c",
        ("objects/task.c", "objects/runq.c", "sources/timer.c", "sched/thread.c", "sched/sched.c", "sched/worker.c"),
        ("-DPG_RUNQ_SIZE=4",),
        (("sched/sched.c", ("-Dpg_dispatch=pg_real_dispatch",)),),
    ),
    "handoff": Program("handoff.c", MOVING, ("-DPG_RUNQ_SIZE=4",)),
    "monitor": Program("monitor.c", (*MOVING, "sched/monitor.c", "sched/deadlock.c"), ("-DPG_RUNQ_SIZE=4",)),
    "exits": Program(
        "exits.c",
        (*MOVING, "sched/monitor.c", "sched/deadlock.c", "sched/lifecycle.c"),
        ("-DPG_RUNQ_SIZE=4",),
    ),
    "waits": Program(
        "waits.c",
        (
            "objects/task.c",
            "objects/runq.c",
            "sources/timer.c",
            "sched/thread.c",
            "sched/sched.c",
            "sched/park.c",
            "sync/chan.c",
            "sync/select.c",
            "sync/semaphore.c",
            "sync/mutex.c",
            "sync/latch.c",
        ),
        source_flags=(
            ("sched/thread.c", ("-Dpg_sched_self=pg_real_sched_self", "-Dpg_sched_random=pg_real_sched_random")),
            (
                "sched/sched.c",
                tuple(f"-Dpg_{name}=pg_real_{name}" for name in ("switch_away", "sched_enqueue", "sched_enqueue_last")),
            ),
        ),
    ),
}


@dataclass(frozen=True)
class Result:
    """What a program said."""

    code: int
    output: str

    @property
    def failed_scenario(self) -> str:
        return self.output.partition("FAILED ")[2].partition(" ")[0]


def compiler() -> list[str]:
    """That of the build, where it is gcc: with clang the core cannot be told that it is not for ThreadSanitizer."""
    named = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    return named if "gcc" in named[0] and shutil.which(named[0]) else ["gcc"]


def _run(command: list[str], timeout: float, quiet: bool = False) -> Result:
    environment = dict(os.environ)
    if quiet:
        environment["MC_QUIET"] = "1"  # without traces
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return Result(124, output + "\nout of time")
    return Result(process.returncode, output)


class Builder:
    """Compiles what is asked for, once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.object_of = functools.cache(self._object_of)
        self.program = functools.cache(self._program)

    def _compile(self, source: Path, target: Path, flags: tuple[str, ...], *last: str) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        done = _run([*compiler(), *flags, *COMMON, *last, "-c", str(source), "-o", str(target)], timeout=100.0)
        if done.code != 0:
            raise RuntimeError(done.output)
        return target

    def _object_of(self, source: str, flags: tuple[str, ...] = ()) -> Path:
        """A file here or, with a slash, of the core."""
        path = (CSRC if "/" in source else HERE) / source
        number = len(list(self._directory.glob("**/*.o")))
        return self._compile(path, self._directory / str(number) / f"{path.name}.o", flags)

    def _base(self) -> list[Path]:
        switches = [path.relative_to(CSRC) for path in sorted((CSRC / "machine").glob("switch*.[cS]"))]
        return [
            *(self.object_of(name, ("-O2", "-fno-builtin", SHADOW)) for name in EXPLORER),
            *(self.object_of(str(path), ("-O2",)) for path in switches),
        ]

    @staticmethod
    def _flags(program: Program, source: str) -> tuple[str, ...]:
        own = dict(program.source_flags).get(source, ())
        return ((SHADOW,) if program.shadow else ()) + INSTRUMENTED + program.flags + own

    def _link(self, objects: list[Path], target: Path) -> Path:
        done = _run([*compiler(), "-no-pie", *map(str, objects), "-o", str(target)], timeout=100.0)
        if done.code != 0:
            raise RuntimeError(done.output)
        return target

    def _program(self, name: str) -> Path:
        program = PROGRAMS[name]
        for source, old, new in program.changes:
            text = (CSRC / source).read_text()
            assert text.count(old) == 1, f"{source} has changed: adapt the program"
            return self.mutated(name, source, text.replace(old, new))
        objects = [self.object_of(each, self._flags(program, each)) for each in (program.model, *program.sources)]
        return self._link(objects + self._base(), self._directory / name)

    def mutated(self, name: str, source: str, text: str) -> Path:
        """The program with `text`, which may have warnings, in place of one source. A header is put before the real."""
        program = PROGRAMS[name]
        number = len(list(self._directory.glob("mutated*")))
        directory = self._directory / f"mutated{number}"
        for changed_source, old, new in program.changes:
            if changed_source == source:
                text = text.replace(old, new)
        changed = directory / source
        changed.parent.mkdir(parents=True)
        changed.write_text(text)
        header = source.endswith(".h")
        objects = []
        for each in (program.model, *program.sources):
            flags = self._flags(program, each)
            if header:
                path = (CSRC if "/" in each else HERE) / each
                objects.append(self._compile(path, directory / f"{path.name}.o", (f"-I{directory}", *flags)))
            elif each == source:
                objects.append(self._compile(changed, directory / f"{changed.name}.o", flags, "-w"))
            else:
                objects.append(self.object_of(each, flags))
        return self._link(objects + self._base(), directory / name)


def run(program: Path, *arguments: str, timeout: float = 100.0, quiet: bool = False) -> Result:
    """Explore: all scenarios, or those that the arguments choose (see main in explore.c)."""
    return _run([str(program), *arguments], timeout, quiet)
