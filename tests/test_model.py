"""Small worlds of the C core, explored exhaustively: the programs in tests/model, see explore.h there.

They link the core's own sources, and know nothing of Python. A detector counts only if it catches a planted bug: below,
one line of the real sources is changed, and the named program must then fail as predicted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from model.programs import CSRC, HERE, PROGRAMS, Builder, run


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("model"))


def _scenarios(model: str) -> list[str]:
    table = (HERE / model).read_text().partition("mc_scenarios[] = {")[2]
    return re.findall(r'^    \{"(\w+)"', table, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "litmus"])
def test_every_execution_passes(builder: Builder, name: str) -> None:
    result = run(builder.program(name))
    assert result.code == 0, result.output
    for scenario in _scenarios(PROGRAMS[name].model):
        assert re.search(rf"^{scenario}: [1-9]\d* executions, .* [1-9]\d* steps", result.output, re.MULTILINE), scenario


# ---- the explorer itself ----

LITMUS = _scenarios("litmus.c")


@pytest.mark.parametrize("mode", [(), ("--unreduced",)], ids=["reduced", "unreduced"])
def test_outcomes_of_litmus_programs_are_those_that_c11_allows(builder: Builder, mode: tuple[str, ...]) -> None:
    for scenario in LITMUS:
        if scenario.startswith("bad_") or (mode and scenario == "iriw"):  # 120,960 executions of it
            continue
        result = run(builder.program("litmus"), *mode, scenario)
        assert result.code == 0, result.output
        assert result.output.rstrip().endswith("complete")


FINDS = {
    "bad_plain_relaxed_store": "data race",
    "bad_plain_relaxed_load": "data race",
    "bad_plain_release_not_carried_on": "data race",
    "bad_lock_order": "deadlock",
    "bad_wake_before_store": "deadlock",
    "bad_spin_for_ever": "no end",
    "bad_frame": "in a frame that has ended",
}


def test_every_planted_bug_of_a_litmus_program_is_predicted() -> None:
    assert sorted(FINDS) == sorted(name for name in LITMUS if name.startswith("bad_"))


@pytest.mark.parametrize("scenario", FINDS)
def test_bug_in_a_litmus_program_is_found_and_replayed(builder: Builder, scenario: str) -> None:
    program = builder.program("litmus")
    result = run(program, scenario)
    assert result.code == 1
    assert FINDS[scenario] in result.output.splitlines()[0]
    assert re.search(r"litmus\.c:\d+ \w+", result.output), "the trace names no source line"
    choices = result.output.rpartition(f"replay: {scenario} ")[2].split()[0]
    again = run(program, scenario, choices)
    assert again.code == 1, again.output
    assert FINDS[scenario] in again.output.splitlines()[0]


# ---- planted bugs ----


@dataclass(frozen=True)
class Planted:
    """A bug in a source of the core, the program and the scenario that must fail, and what it must say."""

    name: str
    source: str
    old: str
    new: str
    program: str
    scenario: str
    finds: str


PLANTED = [
    Planted(
        "tail_published_too_weakly",
        "objects/runq.c",
        "pg_store_release(&queue->tail, tail + 1); /* P3 */",
        "pg_store_relaxed(&queue->tail, tail + 1);",
        "runq",
        "owner_and_thief",
        "data race",
    ),
    Planted(
        "tail_of_a_thief_published_too_weakly",
        "objects/runq.c",
        "pg_store_release(&own->tail, tail + count - 1);",
        "pg_store_relaxed(&own->tail, tail + count - 1);",
        "runq",
        "thief_of_a_thief",
        "data race",
    ),
    Planted(
        "count_of_the_shared_queue_not_in_the_handshake",
        "objects/runq.c",
        "if (pg_load_seqcst(&queue->count) == 0) return 0;",
        "if (pg_load_acquire(&queue->count) == 0) return 0;",
        "runq",
        "shared_handshake_pop",
        "pusher_saw_sleeper || sleeper_saw_work",
    ),
    Planted(
        "spilled_task_dropped",
        "objects/runq.c",
        "pg_inject_push_all(overflow, batch, HALF + 1);",
        "pg_inject_push_all(overflow, batch, HALF);",
        "runq",
        "overflow_and_thief",
        "items[i].taken",
    ),
    Planted(
        "pop_without_compare_and_swap",
        "objects/runq.c",
        "if (pg_cas_acqrel(&queue->head, &head, head + 1)) { /* T3;",
        "pg_store_release(&queue->head, head + 1); { /* T3;",
        "runq_of_two",
        "owner_and_thief",
        "data race",
    ),
    Planted(
        "task_taken_before_it_is_owned",
        "objects/runq.c",
        "if (pg_cas_acqrel(&queue->head, &head, head + count)) return count; /* T3 */",
        "slot_load(queue, head)->next = NULL;\n"
        "        if (pg_cas_acqrel(&queue->head, &head, head + count)) return count;",
        "runq",
        "owner_and_thief",
        "data race",
    ),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_planted_bug_is_found(builder: Builder, planted: Planted) -> None:
    text = (CSRC / planted.source).read_text()
    assert text.count(planted.old) == 1, f"{planted.source} has changed: adapt the planted bug"
    program = builder.mutated(planted.program, planted.source, text.replace(planted.old, planted.new))
    result = run(program, planted.scenario)
    assert result.code == 1, result.output
    assert planted.finds in result.output.splitlines()[0], result.output


def test_every_program_has_planted_bugs() -> None:
    models = {PROGRAMS[planted.program].model for planted in PLANTED} | {"litmus.c"}
    assert models == {path.name for path in HERE.glob("*.c")} - {"explore.c", "memory.c", "system.c"}
    assert models == {program.model for program in PROGRAMS.values()}


def test_sources_are_there() -> None:
    for program in PROGRAMS.values():
        assert all(Path(CSRC / source).is_file() for source in program.sources)
