"""Measurements in child processes, one after another, and what came of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

from bench import ROOT
from bench.model import SYSTEMS, WORKLOADS, UnsupportedError, Values, Workload
from bench.workloads import perform

TIMEOUT = {True: 100.0, False: 300.0}  # seconds per child: quick, full


@dataclass
class Outcome:
    """The measurements of one workload on one system, and whatever kept it from giving more of them."""

    rounds: list[Values] = field(default_factory=list)
    unsupported: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """Another try would end, or hang, as this one did."""
        return bool(self.unsupported) or any(failure.startswith("timeout") for failure in self.failures)

    def samples(self, key: str) -> list[float]:
        return [values[key] for values in self.rounds if key in values]

    def median(self, key: str) -> float | None:
        samples = self.samples(key)
        return median(samples) if samples else None

    def merge(self, other: Outcome) -> None:
        self.rounds += other.rounds
        self.failures += other.failures
        self.unsupported = other.unsupported or self.unsupported


Plan = dict[str, list[str]]  # workload: the systems to measure it on
Results = dict[tuple[str, str], Outcome]  # (workload, system): what came of it


def measure_here(system: str, workload: Workload, quick: bool, rounds: int = 1) -> dict[str, object]:
    """Measure in this process; the answer is what `python -m bench run` prints."""
    answer: dict[str, object] = {
        "system": system,
        "workload": workload.name,
        "sizes": workload.sizes(system, quick),
        "python": sys.version.split()[0],
    }
    try:
        answer["rounds"] = perform(system, workload, quick, rounds)
    except UnsupportedError as reason:
        answer["unsupported"] = str(reason)
    except Exception as error:
        answer["failure"] = f"{type(error).__name__}: {error}".rstrip(": ")
    return answer


def measure(system: str, workload: Workload, quick: bool, rounds: int = 1) -> Outcome:
    """Measure in a fresh child process."""
    command = [sys.executable, "-m", "bench", "run", system, workload.name, "--rounds", str(rounds)]
    timeout = TIMEOUT[quick]
    try:
        child = subprocess.run(
            command + ["--quick"] * quick, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(failures=[f"timeout after {timeout:.0f} s"])
    # Figures from a child that then crashed on its way out are kept, and the crash is told beside them.
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        answer = {}
    outcome = Outcome(answer.get("rounds", []), answer.get("unsupported", ""))
    if "failure" in answer:
        outcome.failures.append(answer["failure"])
    if child.returncode < 0:
        outcome.failures.append(f"killed by {signal.Signals(-child.returncode).name}")
    elif child.returncode or not answer:
        last_words = child.stderr.strip().splitlines()[-1:] or ["no output"]
        outcome.failures.append(f"exit code {child.returncode}: {last_words[0]}")
    return outcome


def installed(systems: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The systems that can be imported here, and why the others cannot; each import happens in a child."""
    present, missing = [], {}
    for name in systems:
        probe = subprocess.run(
            [sys.executable, "-c", f"import bench.workloads.{SYSTEMS[name].module}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode:
            missing[name] = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        else:
            present.append(name)
    return present, missing


def interleaved(plan: Plan, *, rounds: int, quick: bool, progress: Callable[[str], object]) -> Results:
    """Measure A B C, A B C, ...: what disturbs the machine for a while disturbs all of them alike.

    Ctrl-C ends it early; what was measured until then is returned.
    """
    results: Results = {(workload, system): Outcome() for workload, systems in plan.items() for system in systems}
    turns = [(workload, turn) for workload in plan for turn in range(1, rounds + 1)]
    with suppress(KeyboardInterrupt):
        for workload, turn in turns:
            for system in plan[workload]:
                progress(f"{workload}: {system}, {turn} of {rounds}")
                outcome = results[workload, system]
                if not outcome.hopeless:
                    outcome.merge(measure(system, WORKLOADS[workload], quick))
    return results
