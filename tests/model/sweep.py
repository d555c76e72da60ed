"""Weakens every memory order of the modelled sources, one at a time, and takes single protocol steps out, or conditions
where they are what counts: does some model notice?
What survives must stand in survivors.toml with the reason; what stands there must survive.

    python tests/model/sweep.py [--limit EXECUTIONS] [--sample N/M] [--list] [WORD]

WORD: only mutants whose name contains it. Exit code 1: a survivor is not explained, or an explained one was noticed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from model.programs import CSRC, HERE, PROGRAMS, Builder, run

# the source, and the programs that run it: the quickest first
SOURCES: dict[str, tuple[str, ...]] = {
    "objects/runq.c": ("runq", "runq_of_two"),
    "objects/task.c": ("waits",),
    "sources/timer.c": ("timers",),
    "sched/park.c": ("waits", "handoff", "monitor"),
    "sched/sched.c": ("handoff", "workers", "waits"),
    "sched/thread.c": ("handoff", "workers", "waits"),
    "sched/worker.c": ("workers", "handoff"),
    "sched/deadlock.c": ("monitor",),
    "sched/monitor.c": ("monitor",),
    "sched/lifecycle.c": ("exits",),
    "sched/fiber.c": ("handoff", "monitor"),
    "sync/chan.c": ("waits",),
    "sync/select.c": ("waits",),
    "sync/semaphore.c": ("waits",),
    "sync/mutex.c": ("waits",),
    "sync/latch.c": ("waits",),
}

# Worlds too large for all schedules: some by chance, so many times as many, say more than the first ones in order.
BY_CHANCE = {"monitor": 2, "exits": 2}

WEAKER = (
    (r"pg_load_acquire\(", "pg_load_relaxed("),
    (r"pg_load_seqcst\(", "pg_load_acquire("),
    (r"pg_store_release\(", "pg_store_relaxed("),
    (r"pg_store_seqcst\(", "pg_store_release("),
    (r"pg_add_seqcst\(", "mc_add_acqrel("),
    (r"pg_exchange_acqrel\(", "mc_exchange_relaxed("),
    (r"pg_exchange_seqcst\(", "pg_exchange_acqrel("),
    (r"pg_cas_acqrel\(", "mc_cas_relaxed("),
    (r"pg_cas_seqcst\(", "pg_cas_acqrel("),
    (r"pg_fence_seqcst\(\)", "(void)0"),
    (r"memory_order_seq_cst", "memory_order_acq_rel"),
)
EXTRA = """
#define mc_add_acqrel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)
#define mc_exchange_relaxed(p, v) atomic_exchange_explicit((p), (v), memory_order_relaxed)
#define mc_cas_relaxed(p, expected, v) \\
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_relaxed, memory_order_relaxed)
#line 1
"""

# Steps of the protocols that are single statements: whole lines whose absence is a bug, or is explained.
STEP = re.compile(
    r"^ +(?:if \([^;{]*\) |else )?(?:pg_(?:store|add|waiter_unlink|list_append|list_remove|inject_push|chan_link|"
    r"sched_enqueue|enqueue_if|task_wake|party_end|futex_wake|object_unlock|sched_timer_stop|task_let_go)\w*|"
    r"update_next|unlink_all|link_all|serve|ring_push|remove_pending|take_waiters|"
    r"wake|lie_down|leave_list|give_permit|give_turn|stop_searching|queue_next|end_pinned|pg_(?:wake_\w+|worker_flush|"
    r"worker_notify|worker_make_way|queue_here_or_shared|runq_push|expire_timers|settle_previous|arrive|sched_drop)|"
    r"atomic_fetch_(?:and|or)_explicit)"
    r"\([^;]*\);(?: /\*.*\*/)?$|"
    r"^ +(?:worker|fiber)->(?:sleep|permit|alive|searching|pinned|pinned_task|give_turn|closing|previous|current|post)"
    r" = [^;]*;(?: /\*.*\*/)?$|^ +pg_poke\([^;]*\);(?: /\*.*\*/)?$"
)


# Of what these say every condition counts: returns that are made of several, or depend on some.
DECISIONS = ("sched/deadlock.c",)
DECISION = re.compile(r"^ +(?:if \((?P<condition>[^;{}]*?)\) return \w+;|return (?P<result>[^;{}]*);)$", re.MULTILINE)


def _terms(text: str) -> list[tuple[int, int]]:
    """Where the operands of the outermost `&&` or `||` lie; empty where there are both or none."""
    depth, starts, ends = 0, [0], []
    found = set()
    for match in re.finditer(r"[()]| *(?:&&|\|\|)\s*", text):
        if match[0] in "()":
            depth += 1 if match[0] == "(" else -1
        elif depth == 0:
            found.add(match[0].strip())
            ends.append(match.start())
            starts.append(match.end())
    return list(zip(starts, [*ends, len(text)], strict=True)) if len(found) == 1 else []


# What starts over in a fork's child, which is another process: the fork tests look at that.
LEFT_OUT = ("forget_worker", "pg_sched_after_fork_in_child")


@dataclass(frozen=True)
class Mutant:
    """One source with one change."""

    source: str
    name: str  # source, function, what is changed and the how-manieth of its kind there
    text: str

    @property
    def function(self) -> str:
        return self.name.split()[1].rstrip(":")


def _function_at(text: str, position: int) -> str:
    """The name of the function that the position is in: the last line that begins one."""
    before = re.findall(r"^\w[\w *]*?[ *](\w+)\(.*\)(?:\n\{| \{)", text[:position], re.M)
    return before[-1] if before else ""


def mutants(source: str) -> Iterator[Mutant]:
    text = (CSRC / source).read_text()
    seen: dict[str, int] = {}

    def made(what: str, start: int, end: int, new: str) -> Mutant:
        place = f"{source} {_function_at(text, start)}: {what}"
        seen[place] = seen.get(place, 0) + 1
        number = f" #{seen[place]}" if seen[place] > 1 else ""
        return Mutant(source, place + number, EXTRA + text[:start] + new + text[end:])

    for pattern, weaker in WEAKER:
        for match in re.finditer(pattern, text):
            line_start = text.rfind("\n", 0, match.start()) + 1
            if text[line_start : match.start()].lstrip().startswith(("*", "/*", "//")):
                continue
            statement = text[match.start() : text.find("\n", match.start())]
            called = re.match(r"([a-z_]+)\(?(&?[\w>.-]*)", statement)
            what = f"{called[1]}({called[2]})" if called else ""
            yield made(f"{what} weaker", match.start(), match.end(), weaker)
    for match in DECISION.finditer(text) if source in DECISIONS else ():
        kind = "condition" if match["condition"] else "result"
        terms, start = match[kind], match.start(kind)
        neutral = "true" if "&&" in terms else "false"
        for first, last in _terms(terms) or ([(0, len(terms))] if kind == "condition" else []):
            what = " ".join(terms[first:last].split())
            yield made(f"not asked: {what}", start + first, start + last, neutral)
    position = 0
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if STEP.match(bare):
            indent = len(bare) - len(bare.lstrip())
            what = re.sub(r" */\*.*\*/$", "", bare.strip())
            condition = re.match(r"(?:else )?(?:if \(.*?\) (?=\w))?", what)
            replacement = (condition[0] if condition else "") + "(void)0;"
            yield made(f"no {what}", position + indent, position + len(bare), replacement)
        position += len(line)


def explained() -> dict[str, str]:
    """Mutants that survive, and why."""
    path = HERE / "survivors.toml"
    return {name: str(reason) for name, reason in tomllib.loads(path.read_text()).items()} if path.exists() else {}


def is_killed(builder: Builder, mutant: Mutant, limit: int) -> str:
    """By what, or empty."""
    for program in SOURCES[mutant.source]:
        try:
            mutated = builder.mutated(program, mutant.source, mutant.text)
        except RuntimeError as error:
            raise SystemExit(f"{mutant.name} does not compile:\n{error}") from None
        # Where a scenario has a bound, all executions with one preemption say more than the first of those with two.
        which = ("--random", "1") if program in BY_CHANCE else ("--preemptions", "1")
        count = limit * BY_CHANCE.get(program, 1)
        result = run(mutated, "--limit", str(count), *which, timeout=600.0, quiet=True)
        if result.code == 124:
            raise TimeoutError(f"{mutant.name}: {program} was out of time, which says nothing")
        if result.code != 0:
            said = result.output.partition("FAILED ")[2].splitlines()
            return f"{program}: {said[0] if said else f'exit code {result.code}'}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--limit", type=int, default=5000, help="executions of each scenario")
    parser.add_argument("--sample", default="0/1", help="N/M: every M-th mutant from the N-th on")
    parser.add_argument("--list", action="store_true", help="name the mutants only")
    options = parser.parse_args()
    first, every = (int(part) for part in options.sample.split("/"))
    everything = [mutant for source in SOURCES for mutant in mutants(source) if mutant.function not in LEFT_OUT]
    names = [mutant.name for mutant in everything]
    assert len(set(names)) == len(names)
    chosen = [mutant for mutant in everything if options.word in mutant.name][first::every]
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    reasons = explained()
    wrong = sorted(set(reasons) - {mutant.name for mutant in everything})
    for name in wrong:
        print(f"no such mutant: {name}")
    killed = 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        builder = Builder(Path(directory))
        for mutant in chosen:
            by = is_killed(builder, mutant, options.limit)
            killed += bool(by)
            good = bool(by) != (mutant.name in reasons)
            if not good:
                wrong.append(mutant.name)
            verdict = f"killed by {by}" if by else reasons.get(mutant.name, "SURVIVED")
            print(f"{'' if good else 'WRONG '}{mutant.name}\n    {verdict}", flush=True)
    survivors = len(chosen) - killed
    print(f"{len(chosen)} mutants, {killed} killed, {survivors} survived, {len(wrong)} not as explained", end="")
    print(f", {len(everything)} in all, {time.monotonic() - begin:.0f} s, at most {options.limit} executions each")
    assert PROGRAMS and chosen, "nothing was done"
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
