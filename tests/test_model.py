"""Small worlds of the C core, explored exhaustively: the programs in tests/model, see explore.h there.

They link the core's own sources, and know nothing of Python. A detector counts only if it catches a planted bug: below,
one line of the real sources is changed, and the named program must then fail as predicted.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import LONG_TESTS
from model.programs import CSRC, HERE, PROGRAMS, Builder, run


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("model"))


def _scenarios(model: str) -> list[str]:
    table = (HERE / model).read_text().partition("mc_scenarios[] = {")[2]
    return re.findall(r'^    \{"(\w+)"', table, re.MULTILINE)


SHORT = 5000  # executions per scenario; all that have fewer are explored to the end
LONG = 300000


OF_THE_EXPLORER = ("litmus", "fuzz")


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in OF_THE_EXPLORER])
@pytest.mark.timeout(3600 if LONG_TESTS else 120)
def test_every_execution_passes(builder: Builder, name: str) -> None:
    limit = LONG if LONG_TESTS else SHORT
    bound = () if LONG_TESTS else ("--preemptions", "1")  # where there is a bound: complete
    result = run(builder.program(name), "--limit", str(limit), *bound, timeout=3500.0 if LONG_TESTS else 100.0)
    assert result.code == 0, result.output
    print(result.output)
    found = re.findall(
        r"^(\w+): (\d+) executions, (\d+) cut as repetitions, .*(complete|cut by)", result.output, re.MULTILINE
    )
    assert [scenario for scenario, *_ in found] == _scenarios(PROGRAMS[name].model)
    for scenario, executions, repetitions, end in found:
        assert end == "complete" or int(executions) + int(repetitions) == limit, scenario
        assert int(executions) > 1 or scenario == "misuse"


# The first executions in order differ only in their last steps.
LARGE = ("workers", "handoff", "monitor", "exits")


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.timeout(3600 if LONG_TESTS else 120)
def test_executions_by_chance_pass(builder: Builder, name: str) -> None:
    count = 200000 if LONG_TESTS else 1500
    result = run(builder.program(name), "--limit", str(count), "--random", "1", timeout=3500.0 if LONG_TESTS else 100.0)
    assert result.code == 0, result.output
    found = re.findall(r"^(\w+): (\d+) executions, .* by chance", result.output, re.MULTILINE)
    assert found == [(scenario, str(count)) for scenario in _scenarios(PROGRAMS[name].model)]


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


@pytest.mark.timeout(3600 if LONG_TESTS else 120)
def test_reduction_loses_no_outcome_of_random_programs(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    program = builder.program("fuzz")
    spared = 0
    for seed in range(1, 500 if LONG_TESTS else 15):
        monkeypatch.setenv("MC_SEED", str(seed))
        reduced, unreduced = run(program).output.splitlines(), run(program, "--unreduced").output.splitlines()
        assert re.match(r"[1-9]\d* outcomes", reduced[1]), reduced
        assert reduced[1] == unreduced[1], f"MC_SEED={seed}"
        spared += int(unreduced[0].split()[1]) - int(reduced[0].split()[1])
    assert spared > 10000


FINDS = {
    "bad_plain_relaxed_store": "data race",
    "bad_plain_relaxed_load": "data race",
    "bad_plain_release_not_carried_on": "data race",
    "bad_lock_order": "deadlock",
    "bad_wake_before_store": "deadlock",
    "bad_spin_for_ever": "no end",
    "bad_loop_without_steps": "not a step in",
    "bad_frame": "that may have ended",
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
        "lock_released_too_weakly",
        "os/os.h",
        "pg_exchange_acqrel(&lock->word, 0) == 2",
        "atomic_exchange_explicit(&lock->word, 0, memory_order_relaxed) == 2",
        "lock",
        "two_users",
        "data race",
    ),
    Planted(
        "sleepers_on_a_lock_forgotten",
        "os/os.h",
        "pg_exchange_acqrel(&lock->word, 0) == 2",
        "pg_exchange_acqrel(&lock->word, 0) == 3",
        "lock",
        "two_users",
        "deadlock",
    ),
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
        "timer_fired_outside_the_lock",
        "sources/timer.c",
        "pg_task *task = timer->fire(timer);",
        "pg_lock_release(&timers->lock);\n"
        "        pg_task *task = timer->fire(timer);\n"
        "        pg_lock_acquire(&timers->lock);",
        "timers",
        "stop_against_fire",
        "data race",
    ),
    Planted(
        "deadline_of_a_stopped_timer_left",
        "sources/timer.c",
        "        remove_pending(timers, timer);\n        update_next(timers);\n",
        "        remove_pending(timers, timer);\n",
        "timers",
        "periodic_stop_against_fire",
        "next_deadline",
    ),
    Planted(
        "deadline_not_in_the_handshake",
        "sources/timer.c",
        "pg_store_seqcst(&timers->next_deadline, next);",
        "pg_store_release(&timers->next_deadline, next);",
        "timers",
        "start_handshake",
        "starter_saw_sleeper || sleeper_saw_deadline",
    ),
    Planted(
        "notification_taken_back_too_late",
        "objects/task.c",
        "pg_fence_seqcst(); /* pairs with that of pg_task_wake */",
        "",
        "waits",
        "park_and_stale_wake",
        "deadlock",
    ),
    Planted(
        "state_looked_at_too_early",
        "objects/task.c",
        "    pg_fence_seqcst(); /* pairs with that of pg_task_clear_notification */\n",
        "",
        "waits",
        "park_and_stale_wake",
        "deadlock",
    ),
    Planted(
        "wake_of_a_running_task_lost",
        "objects/task.c",
        "if (pg_cas_acqrel(&task->state, &seen, PG_TASK_NOTIFIED)) return false;",
        "return false;",
        "waits",
        "park",
        "deadlock",
    ),
    Planted(
        "timer_left_on_a_frame_that_ends",
        "sched/park.c",
        "    pg_sched_timer_stop(&park.timer); /* even if it fired: it may still be firing */\n",
        "",
        "waits",
        "park_until_deadline",
        "frame that has ended",
    ),
    Planted(
        "wait_ended_before_the_wake",
        "sync/chan.c",
        "    pg_store_release(&party->done, PG_WAIT_ENDING); /*",
        "    pg_store_release(&party->done, PG_WAIT_ENDED); /*",
        "waits",
        "rendezvous",
        "may have ended",
    ),
    Planted(
        "end_of_a_wait_published_too_weakly",
        "sync/chan.c",
        "    pg_store_release(&party->done, PG_WAIT_ENDED); /*",
        "    pg_store_relaxed(&party->done, PG_WAIT_ENDED); /*",
        "waits",
        "rendezvous",
        "may have ended",
    ),
    Planted(
        "select_won_twice",
        "sync/chan.c",
        "if (party->is_select && pg_exchange_acqrel(&party->claimed, true)) return false;",
        "if (party->is_select && pg_load_acquire(&party->claimed)) return false;",
        "waits",
        "select",
        "data race",
    ),
    Planted(
        "waiter_that_gives_up_left_in_the_list",
        "sync/chan.c",
        "        else pg_waiter_unlink(&waiter);\n        pg_object_unlock(&chan->lock);",
        "        pg_object_unlock(&chan->lock);",
        "waits",
        "receive_until_deadline",
        "frame that has ended",
    ),
    Planted(
        "mutex_freed_before_its_waiter",
        "sync/mutex.c",
        "node != NULL ? PG_MUTEX_HELD : PG_MUTEX_FREE",
        "PG_MUTEX_FREE",
        "waits",
        "mutex",
        "",
    ),
    Planted(
        "those_behind_a_quitter_forgotten",
        "sync/semaphore.c",
        "if (PG_UNLIKELY(outcome != PG_OK)) {",
        "if (false) {",
        "waits",
        "semaphore_front_gives_up",
        "",
    ),
    Planted(
        "work_not_looked_for_before_the_sleep",
        "sched/worker.c",
        "if (!inbox && (worker->pinned_task != NULL || (!pg_work_visible() && !timers_due()))) return false;",
        "if (!inbox) return false;",
        "workers",
        "spawn_against_rest",
        "jobs[i].runs ==",
    ),
    Planted(
        "work_looked_for_too_early",
        "sched/worker.c",
        "    pg_fence_seqcst(); /* P2; pairs with the fence of pg_wake_if_free */\n",
        "",
        "workers",
        "push_against_rest",
        "jobs[i].runs ==",
    ),
    Planted(
        "permit_lost",
        "sched/worker.c",
        "    else pg_add_seqcst(&pg_the_sched.permits_free, 1);\n    return heir;",
        "    return heir;",
        "workers",
        "spawn_against_rest",
        "permits_free",
    ),
    Planted(
        "sleeper_not_told_of_an_earlier_timer",
        "sched/sched.c",
        "    if (outcome == PG_OK && earliest) pg_wake_if_free();",
        "",
        "workers",
        "timer_against_rest",
        "jobs[i].runs ==",
    ),
    Planted(
        "stack_left_too_weakly",
        "sched/sched.c",
        "pg_cas_acqrel(&task->state, &seen, PG_TASK_PARKED)",
        "atomic_compare_exchange_strong_explicit(&task->state, &seen, PG_TASK_PARKED, memory_order_relaxed, "
        "memory_order_relaxed)",
        "handoff",
        "park_and_wake",
        "data race",
    ),
    Planted(
        "worker_of_a_pinned_task_not_told",
        "sched/sched.c",
        "        if (home != worker) pg_worker_notify(home);\n",
        "",
        "handoff",
        "pinned",
        "jobs[i].ended ==",
    ),
    Planted(
        "permit_not_passed_on",
        "sched/worker.c",
        "    bool passes = !pg_load_relaxed(&pg_the_sched.stopping) && first_waiting() != NULL;",
        "    bool passes = false;",
        "handoff",
        "pinned_ping_pong",
        "jobs[i].ended ==",
    ),
    Planted(
        "turn_not_given",
        "sched/worker.c",
        "    pg_futex_wake(&sched->turn_word, 1);\n",
        "",
        "handoff",
        "thread_comes_back",
        "no end",
    ),
    Planted(
        "worker_that_lost_its_permit_not_followed",
        "sched/monitor.c",
        "    if (has_got_on(worker, now) || now - worker->seen_since < PG_SECOND) return false;",
        "    if (pg_load_relaxed(&worker->tick) != worker->seen_tick) return false;\n"
        "    if (now - worker->seen_since < PG_SECOND) return false;",
        "monitor",
        "strayed",
        "jobs[i].ended ==",
    ),
    Planted(
        "queue_of_a_worker_without_permit_not_looked_at_again",
        "sched/monitor.c",
        "            if (pg_worker_flush(worker) > 0) pg_wake_if_free();\n",
        "",
        "monitor",
        "blocked_twice_while_it_loses_its_permit",
        "jobs[i].ended ==",
    ),
    Planted(
        "monitor_sleeps_without_a_second_look",
        "sched/monitor.c",
        "    if (!seen.holders) {\n        pg_delay(monitor_to_sleep);",
        "    {\n        pg_delay(monitor_to_sleep);",
        "monitor",
        "blocked_before_sleep",
        "jobs[i].ended ==",
    ),
    Planted(
        "threads_not_counted",
        "sched/deadlock.c",
        " || pg_os_thread_count() != before.harmless) return false;",
        ") return false;",
        "monitor",
        "woken_by_a_thread",
        "nobody can wake the main thread, it says",
    ),
    Planted(
        "thread_that_parks_during_the_look_counted",
        "sched/deadlock.c",
        " && pg_load_seqcst(&sched->thread_parks) == parks;",
        ";",
        "monitor",
        "woken_by_a_thread_that_a_thread_starts",
        "nobody can wake the main thread, it says",
    ),
    Planted(
        "thread_woken_after_the_look_by_one_that_ends_before_the_count",
        "sched/deadlock.c",
        "    if (!pg_tasks_rest(&after) || ",
        "    (void)pg_tasks_rest(&after), after = before;\n    if (",
        "monitor",
        "woken_by_a_thread_that_waits_and_sleeps",
        "nobody can wake the main thread, it says",
    ),
    Planted(
        "round_of_the_monitor_between_two_looks_overlooked",
        "sched/deadlock.c",
        "    return pg_load_seqcst(&sched->monitor_round) == round && ",
        "    return ",
        "monitor",
        "woken_by_the_timer_of_a_thread",
        "nobody can wake the main thread, it says",
    ),
    Planted(
        "worker_not_told_of_what_the_monitor_puts_back",
        "sched/monitor.c",
        "    if (stayed) pg_worker_notify(worker);",
        "    (void)stayed;",
        "monitor",
        "not_strayed",
        "jobs[i].ended ==",
    ),
    Planted(
        "task_in_the_hands_of_the_monitor_overlooked",
        "sched/deadlock.c",
        "if (round % 2 != 0 || ",
        "if (",
        "monitor",
        "woken_by_a_timer",
        "nobody can wake the main thread, it says",
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
    Planted(
        "stop_that_does_not_wait",
        "sched/lifecycle.c",
        "if (worker->alive && worker->sleep == AWAKE) rest = false;",
        "(void)worker;",
        "exits",
        "yielding_tasks_stop",
        "!pg_load_relaxed(&stopped)",
    ),
    Planted(
        "worker_not_told_of_the_stop",
        "sched/lifecycle.c",
        "if (stopping) atomic_fetch_or_explicit(&worker->attention, ATTEND_STOP, memory_order_seq_cst);\n        else ",
        "if (!stopping) ",
        "exits",
        "stops_at_once",
        "it went on",
    ),
    Planted(
        "nobody_looks_for_work_after_the_stop",
        "sched/lifecycle.c",
        "    pg_wake_if_free(); /* to look for work, and to keep time */\n",
        "",
        "exits",
        "resumes_a_sleeper",
        "jobs[i].ended ==",
    ),
    Planted(
        "tasks_that_go_on_after_the_wait_of_a_handler",
        "sched/park.c",
        "    if (PG_UNLIKELY(resumed)) pg_sched_stop(PG_REST_TIME);\n",
        "    (void)resumed;\n",
        "exits",
        "waits_then",
        "pg_the_sched.stopping",
    ),
    Planted(
        "stack_trimmed_under_a_task_that_goes_on",
        "sched/fiber.c",
        "if (!pg_cas_acqrel(&task->state, &seen, PG_TASK_ACTIVE)) return TRIM_NOTHING;",
        "pg_store_relaxed(&task->state, PG_TASK_ACTIVE);",
        "handoff",
        "scavenged",
        "PG_TASK_PARKED",
    ),
    Planted(
        "task_woken_while_its_stack_is_trimmed_forgotten",
        "sched/fiber.c",
        "    pg_sched_enqueue_last(task);\n    return outcome;",
        "    return outcome;",
        "handoff",
        "scavenged",
        "jobs[i].ended ==",
    ),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_planted_bug_is_found(builder: Builder, planted: Planted) -> None:
    text = (CSRC / planted.source).read_text()
    assert text.count(planted.old) == 1, f"{planted.source} has changed: adapt the planted bug"
    program = builder.mutated(planted.program, planted.source, text.replace(planted.old, planted.new))
    by_chance = ("--limit", "100000", "--random", "1") if planted.program in ("monitor", "exits") else ()
    result = run(program, *by_chance, planted.scenario)
    assert result.code == 1, result.output
    assert planted.finds in result.output.splitlines()[0], result.output


def test_sample_of_weaker_orders_and_missing_steps_is_noticed() -> None:
    """All of them: python tests/model/sweep.py."""
    command = [sys.executable, str(HERE / "sweep.py"), "--limit", "1000", "--sample", "76/84"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
    # which ones they are changes with the sources
    counts = re.search(r"^(\d+) mutants, (\d+) killed", done.stdout, re.MULTILINE)
    assert counts is not None and int(counts[1]) >= 3 and int(counts[2]) >= 1, done.stdout


def test_every_program_has_planted_bugs() -> None:
    models = {PROGRAMS[planted.program].model for planted in PLANTED} | {f"{name}.c" for name in OF_THE_EXPLORER}
    assert models == {path.name for path in HERE.glob("*.c")} - {"explore.c", "memory.c", "system.c"}
    assert models == {program.model for program in PROGRAMS.values()}


def test_sources_are_there() -> None:
    for program in PROGRAMS.values():
        assert all(Path(CSRC / source).is_file() for source in program.sources)
