"""The figures this package promises itself, checked on the Python that runs.

Absolute bars are meant for an otherwise idle machine with two cores; ratios hold on a busy one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.model import WORKLOADS, Figure
from bench.runs import Outcome, Plan, Results


@dataclass(frozen=True)
class Bar:
    """A bound on one figure of pygo, in its display unit, or on its advantage over a peer where one is named."""

    workload: str
    key: str
    bound: float
    peer: str = ""

    @property
    def figure(self) -> Figure:
        return next(figure for figure in WORKLOADS[self.workload].figures if figure.key == self.key)

    @property
    def at_least(self) -> bool:
        return bool(self.peer) or self.figure.higher_is_better


@dataclass(frozen=True)
class Verdict:
    """One line of the table of bars."""

    what: str
    bar: str
    measured: str
    best: str
    met: bool | None


def _times(workload: str, key: str, **peers: float) -> list[Bar]:
    return [Bar(workload, key, bound, peer) for peer, bound in peers.items()]


def promised(python: tuple[int, int]) -> list[Bar]:
    """The bars for this version of Python: a thread state's swap costs 2 ns on 3.11 and 30 to 50 ns since."""
    cheap_swap = python < (3, 12)
    parked = [
        Bar(workload, key, bound)
        for workload in ("parked", "parked-million")
        for key, bound in (("memory", 5.3 * 1024), ("create", 4.0), ("release", 1.0))
    ]
    return [
        Bar("spawn-join", "task", 200),
        *_times("spawn-join", "task", threading=500, asyncio=20, uvloop=20, gevent=80),
        Bar("ping-pong", "trip", 150 if cheap_swap else 250),
        *_times("ping-pong", "trip", asyncio=20, gevent=20, uvloop=10, runloom=1.5),
        Bar("yield", "yield", 60 if cheap_swap else 110),
        *_times("yield", "yield", greenlet=1),
        Bar("buffered", "item", 75),
        *_times("buffered", "item", gevent=2, runloom=1),
        Bar("fan-in", "item", 300),
        Bar("ring", "hop", 500),
        Bar("sieve", "time", 45),
        *_times("sieve", "time", uvloop=5, runloom=1),
        Bar("select", "item", 500),
        *_times("select", "item", asyncio=10, uvloop=10, runloom=10),
        Bar("skynet", "time", 2),
        *_times("skynet", "time", asyncio=6, gevent=12),
        Bar("skynet", "peak", 1024),
        *parked,
        Bar("blocking", "total", 0.3),
        Bar("blocking", "ticks", 35),
        Bar("hog", "ticks", 80),
        Bar("sleepers", "wall", 1.4),
        Bar("sleepers", "cpu", 6),
        Bar("idle", "cpu", 5),
    ]


def needed(bars: Sequence[Bar]) -> Plan:
    """The systems each workload has to be measured on."""
    systems: Plan = {}
    for bar in bars:
        wanted = systems.setdefault(bar.workload, ["pygo"])
        if bar.peer and bar.peer not in wanted:
            wanted.append(bar.peer)
    return systems


def judge(bar: Bar, results: Results, missing: dict[str, str], quick: bool) -> Verdict:
    figure, unit = bar.figure, bar.figure.unit
    title = WORKLOADS[bar.workload].titled(figure, quick)
    sign = ">=" if bar.at_least else "<="
    ours = results.get((bar.workload, "pygo"), Outcome())
    value = ours.median(bar.key)
    if bar.peer:
        what, bound = f"{title}: against {bar.peer}", f">= {bar.bound:g}x"
        theirs = results.get((bar.workload, bar.peer), Outcome())
        peer_value = theirs.median(bar.key)
        if bar.peer in missing or theirs.unsupported:
            return Verdict(what, bound, theirs.unsupported or "not installed", "", None)
        if peer_value is None:
            return Verdict(what, bound, f"{bar.peer}: {'; '.join(dict.fromkeys(theirs.failures))}", "", None)
        if value is not None:
            ratio = figure.advantage(value, peer_value) or 0.0
            return Verdict(what, bound, f"{ratio:.3g}x", "", ratio >= bar.bound and not ours.failures)
    else:
        what, bound = title, f"{sign} {bar.bound:,.10g} {unit}".rstrip()
        if value is not None:
            samples = ours.samples(bar.key)
            best = max(samples) if figure.higher_is_better else min(samples)
            scaled = figure.scaled(value)
            met = scaled >= bar.bound if bar.at_least else scaled <= bar.bound
            failed = f", FAILED {len(ours.failures)}: {ours.failures[0]}" if ours.failures else ""
            shown = f"{figure.show(value)} {unit}".rstrip() + failed
            return Verdict(what, bound, shown, figure.show(best), met and not ours.failures)
    reason = ours.unsupported or "; ".join(dict.fromkeys(ours.failures)) or "not measured"
    return Verdict(what, bound, f"pygo: {reason}", "", False)
