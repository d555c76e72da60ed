"""The C core without Python: builds the programs in tests/c with the floors of csrc in several variants, runs them.

A detector counts only if it catches a planted bug: the mutations below change one line of the real sources, and the
named program must then fail as predicted.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import LONG_TESTS, c_compiler

HERE = Path(__file__).parent
CSRC = HERE.parent / "csrc"
RUN_TIMEOUT = 100.0

LOW_FLOORS = ("base", "os", "machine", "objects", "sources")
ALL_FLOORS = (*LOW_FLOORS, "sched", "sync")
PROGRAMS = {
    "test_list": LOW_FLOORS,
    "test_os": LOW_FLOORS,
    "test_fault": LOW_FLOORS,
    "test_switch": LOW_FLOORS,
    "test_stack": LOW_FLOORS,
    "test_pool": LOW_FLOORS,
    "test_task": LOW_FLOORS,
    "test_runq": LOW_FLOORS,
    "test_timer": LOW_FLOORS,
    "test_sched": ALL_FLOORS,
    "test_scavenge": ALL_FLOORS,
    "test_chan": ALL_FLOORS,
    "test_mutex": ALL_FLOORS,
    "test_bubble": ALL_FLOORS,
    "test_failpoints": ALL_FLOORS,
}
ORDINARY = tuple(program for program in PROGRAMS if program != "test_failpoints")  # it needs the points
SWITCHING = ("test_switch", "test_stack", "test_sched", "test_chan", "test_mutex")
QUEUEING = ("test_runq", "test_sched", "test_chan", "test_mutex")
DELAYED = ("test_runq", "test_sched", "test_chan", "test_mutex", "test_bubble")

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wno-unused-parameter", "-Werror")
COMMON = ("-std=gnu11", "-O2", "-g", "-pthread", "-D_GNU_SOURCE=1", f"-I{CSRC}", f"-I{HERE / 'c'}", *WARNINGS)
COMMON += tuple(shlex.split(os.environ.get("PYGO_TEST_CFLAGS", "")))  # such as another level of optimisation
THREAD = ("-fsanitize=thread", "-Wno-tsan")  # it does not model fences; none of ours orders plain data
POINTS = ("-DPG_FAILPOINTS", "-DPG_RUNQ_SIZE=4")
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


@dataclass(frozen=True)
class Variant:
    """One way to compile, and what is worth running in it."""

    flags: tuple[str, ...] = ()
    programs: tuple[str, ...] = ORDINARY
    foreign: bool = False

    @property
    def compiler(self) -> list[str]:
        if self.foreign:
            return ["aarch64-linux-gnu-gcc"]
        return c_compiler()

    @property
    def runner(self) -> list[str]:
        return ["qemu-aarch64-static"] if self.foreign else _runner(self.sanitizer)

    @property
    def sanitizer(self) -> str:
        return next((flag for flag in self.flags if flag.startswith("-fsanitize=")), "")


VARIANTS = {
    "plain": Variant(),
    "thread": Variant(THREAD),
    "address": Variant(ADDRESS),
    "portable": Variant(("-DPG_SWITCH_PORTABLE",), SWITCHING),
    "tiny_ring": Variant(("-DPG_RUNQ_SIZE=4",), QUEUEING),
    "tiny_ring_thread": Variant((*THREAD, "-DPG_RUNQ_SIZE=4"), QUEUEING),
    "failpoints": Variant(POINTS, ("test_failpoints", *DELAYED)),
    "failpoints_address": Variant((*ADDRESS, *POINTS), ("test_failpoints",)),
    "failpoints_thread": Variant((*THREAD, *POINTS), DELAYED),
    "aarch64": Variant(("-static", "-DCHECK_EMULATED=1"), foreign=True),
}


@functools.cache
def _runner(sanitizer: str) -> list[str]:
    """ThreadSanitizer cannot place its shadow where address randomisation has put something: then run without it."""
    return ["setarch", "-R"] if sanitizer == "-fsanitize=thread" and shutil.which("setarch") else []


def _run(
    command: list[str], timeout: float = RUN_TIMEOUT, only: str = "", failpoints: str | None = None
) -> tuple[int, str]:
    """Exit code (124 on timeout) and both outputs."""
    # A stack that goes from thread to thread may not have its frames in a thread's fake stack.
    asan = "detect_stack_use_after_return=0"
    env = dict(os.environ, TSAN_OPTIONS="halt_on_error=1", ASAN_OPTIONS=asan, UBSAN_OPTIONS="print_stacktrace=1")
    if only:
        env["CHECK_ONLY"] = only
    if failpoints is not None:
        env |= {"PYGO_FAILPOINTS": failpoints, "PYGO_FAILPOINTS_REPORT": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # children of the program, too
        output, _ = process.communicate()
        return 124, output
    return process.returncode, output


class Builder:
    """Compiles each floor once per variant, and all programs of a variant when the first is asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.objects = functools.cache(self._objects)
        self._programs = functools.cache(self._build_programs)
        self.why_not = functools.cache(self._why_not)

    def _why_not(self, name: str) -> str:
        """Why this system cannot build or run the variant; empty if it can."""
        variant = VARIANTS[name]
        for tool in (*variant.compiler[:1], *variant.runner[:1]):
            if not shutil.which(tool):
                return f"{tool} is not installed"
        source = self._directory / f"probe_{name}.c"
        source.write_text("int main(void) { return 0; }\n")
        link = [*variant.compiler, *variant.flags, str(source), "-o", str(source.with_suffix(""))]
        if _run(link)[0] != 0:
            return f"{variant.compiler[0]} cannot link with {' '.join(variant.flags)}"
        return ""

    def _compile(self, variant: Variant, source: Path, target: Path) -> Path:
        code, output = _run([*variant.compiler, *COMMON, *variant.flags, "-c", str(source), "-o", str(target)])
        assert code == 0, output
        return target

    def _objects(self, name: str, floor: str) -> list[Path]:
        directory = self._directory / name / floor
        directory.mkdir(parents=True)
        sources = [path for path in sorted((CSRC / floor).iterdir()) if path.suffix in (".c", ".S")]
        compile_one = functools.partial(self._compile, VARIANTS[name])
        targets = [directory / f"{source.name}.o" for source in sources]
        return list(self._pool.map(compile_one, sources, targets))

    def link(self, name: str, program: str, objects: list[Path], target: Path) -> Path:
        variant = VARIANTS[name]
        source = HERE / "c" / f"{program}.c"
        inputs = map(str, [source, *objects])
        code, output = _run([*variant.compiler, *COMMON, *variant.flags, *inputs, "-lm", "-o", str(target)])
        assert code == 0, output
        return target

    def _build_programs(self, name: str) -> dict[str, Path]:
        programs = VARIANTS[name].programs
        needed = [[path for floor in PROGRAMS[one] for path in self.objects(name, floor)] for one in programs]
        targets = [self._directory / name / one for one in programs]
        link_one = functools.partial(self.link, name)
        return dict(zip(programs, self._pool.map(link_one, programs, needed, targets), strict=True))

    def program(self, name: str, program: str) -> Path:
        return self._programs(name)[program]

    def mutated(self, mutation: Mutation) -> Path:
        """The program with one line of one source changed."""
        original = CSRC / mutation.source
        text = original.read_text()
        assert text.count(mutation.old) == 1, f"{mutation.source} has changed: adapt the mutation"
        directory = self._directory / "mutated" / mutation.name
        directory.mkdir(parents=True)
        changed = directory / original.name
        changed.write_text(text.replace(mutation.old, mutation.new))
        replaced = f"{original.name}.o"
        objects = [
            path
            for floor in PROGRAMS[mutation.program]
            for path in self.objects(mutation.variant, floor)
            if (floor, path.name) != (original.parent.name, replaced)
        ]
        objects.append(self._compile(VARIANTS[mutation.variant], changed, directory / replaced))
        return self.link(mutation.variant, mutation.program, objects, directory / mutation.program)


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("c_core"))


def _require(builder: Builder, name: str) -> None:
    reason = builder.why_not(name)
    if reason:
        pytest.skip(reason)


CASES = [
    (name, program)
    for name, variant in VARIANTS.items()
    for program in variant.programs
    if program not in DELAYED or "-DPG_FAILPOINTS" not in variant.flags  # they have tests of their own
]


@pytest.mark.parametrize(("name", "program"), CASES, ids=[f"{name}-{program}" for name, program in CASES])
def test_program_passes(builder: Builder, name: str, program: str) -> None:
    _require(builder, name)
    code, output = _run([*VARIANTS[name].runner, str(builder.program(name, program))])
    assert code == 0, output
    assert "ok " in output


def _delays() -> list[str]:
    """The names of all points of delay."""
    _, _, text = (CSRC / "base" / "failpoint.h").read_text().partition("#define PG_DELAY_POINTS")
    return re.findall(r"POINT\((\w+)\)", text.partition("#define")[0])


def _all_delays(turn: int) -> str:
    """Every point armed, half of them to yield often, and half to sleep now and then."""
    hows = ("every:7", "every:61,us:200")
    return ";".join(f"{name}={hows[(i + turn) % 2]}" for i, name in enumerate(_delays()))


@pytest.mark.parametrize("program", DELAYED)
@pytest.mark.parametrize("turn", [0, 1] if LONG_TESTS else [0])
def test_delays_where_a_moment_decides_harm_nobody(builder: Builder, program: str, turn: int) -> None:
    _require(builder, "failpoints")
    only = "owner_and_thieves_race_for_the_last_task" if program == "test_runq" and not LONG_TESTS else ""
    code, output = _run([str(builder.program("failpoints", program))], only=only, failpoints=_all_delays(turn))
    assert code == 0, output
    counts = re.findall(r"^(\w+): \d+ hits, (\d+) done$", output, re.MULTILINE)
    met = {name for name, done in counts if int(done) > 0}
    assert met >= (
        {"slots_copied"} if program == "test_runq" else {"linked_to_park", "left_to_parked", "won_to_pushed"}
    )
    assert len(met) >= (1 if program == "test_runq" else 9), output


@pytest.mark.skipif(not LONG_TESTS, reason="takes half an hour: PYGO_LONG_TESTS=1")
@pytest.mark.parametrize("program", DELAYED)
@pytest.mark.parametrize("name", ["failpoints", "failpoints_thread"])
@pytest.mark.parametrize("point", _delays())
def test_each_delay_alone_harms_nobody(builder: Builder, name: str, program: str, point: str) -> None:
    _require(builder, name)
    for how in ("every:3", "every:40,us:500"):
        command = [*VARIANTS[name].runner, str(builder.program(name, program))]
        code, output = _run(command, failpoints=f"{point}={how}", timeout=3 * RUN_TIMEOUT)
        assert code == 0, output


@dataclass(frozen=True)
class Mutation:
    """A bug planted in a source, the program that must fail, and what its output must then contain."""

    name: str
    source: str
    old: str
    new: str
    program: str
    only: str
    finds: str
    variant: str = "plain"
    failpoints: str | None = None


MUTATIONS = [
    Mutation(
        "late_thread_taken_for_a_blocked_one",
        "sched/monitor.c",
        " || pg_os_thread_wants_cpu(worker->os_id)",
        "",
        "test_sched",
        "with_a_seed_only_a_thread_that_sleeps_is_in_a_blocking_call",
        "test_sched.c:",
    ),
    Mutation(
        "free_fibers_that_were_needed_not_noted",
        "sched/fiber.c",
        "if (count < pg_load_relaxed(&sched->free_low)) pg_store_relaxed(&sched->free_low, count);",
        "",
        "test_scavenge",
        "fibers_that_every_burst_needs_are_kept",
        "fibers() is",
    ),
    Mutation(
        "stacks_of_tasks_that_have_just_parked_forgotten",
        "sched/fiber.c",
        "if (outcome >= TRIM_LATER) pg_store_relaxed(&sched->trim_later, true);",
        "",
        "test_scavenge",
        "who_has_only_just_parked_is_looked_at_again",
        "not true: look()",
    ),
    Mutation(
        "always_the_same_stack_trimmed",
        "sched/fiber.c",
        "    pg_list_remove(node);\n",
        "",
        "test_scavenge",
        "who_has_only_just_parked_is_looked_at_again",
        "test_scavenge.c:",
    ),
    Mutation(
        "scavenger_that_a_seed_has_refused_still_on_its_way",
        "sched/fiber.c",
        "        pg_store_release(&sched->scavenging, false);\n        return;",
        "        return;",
        "test_scavenge",
        "after_a_seed_it_looks_again",
        "not true: is_through()",
    ),
    Mutation(
        "spilled_task_dropped",
        "objects/runq.c",
        "pg_inject_push_all(overflow, batch, HALF + 1);",
        "pg_inject_push_all(overflow, batch, HALF);",
        "test_runq",
        "owner_and_thieves_race_for_the_last_task",
        "test_runq.c:",
    ),
    Mutation(
        "tail_published_too_weakly",
        "objects/runq.c",
        "pg_store_release(&queue->tail, tail + 1); /* P3 */",
        "pg_store_relaxed(&queue->tail, tail + 1);",
        "test_runq",
        "each_task_comes_out_exactly_once",
        "data race",
        "thread",
    ),
    Mutation(
        "pop_without_compare_and_swap",
        "objects/runq.c",
        "if (pg_cas_acqrel(&queue->head, &head, head + 1)) { /* T3;",
        "pg_store_release(&queue->head, head + 1); { /* T3;",
        "test_runq",
        "owner_and_thieves_race_for_the_last_task",
        "test_runq.c:",
    ),
    Mutation(
        "task_taken_before_it_is_owned",
        "objects/runq.c",
        "if (pg_cas_acqrel(&queue->head, &head, head + count)) return count; /* T3 */",
        "slot_load(queue, head)->next = NULL;\n"
        "        if (pg_cas_acqrel(&queue->head, &head, head + count)) return count;",
        "test_runq",
        "each_task_comes_out_exactly_once",
        "data race",
        "thread",
    ),
    Mutation(
        "hole_in_the_heap_not_sifted_up",
        "sources/timer.c",
        "if (last.deadline < deadline) sift_up",
        "if (deadline < 0) sift_up",
        "test_timer",
        "random_use_agrees_with_a_plain_array",
        "test_timer.c:",
    ),
    Mutation(
        "place_in_the_heap_not_noted",
        "sources/timer.c",
        "    timers->entries[it.entry].at = at;",
        "    if (at != 2) timers->entries[it.entry].at = at;",
        "test_timer",
        "random_use_agrees_with_a_plain_array",
        "timer_at",
    ),
    Mutation(
        "chunk_given_back_that_was_needed",
        "machine/pool.c",
        "if (--pool->spare_count < pool->spare_low) pool->spare_low = pool->spare_count;",
        "pool->spare_count--;",
        "test_pool",
        "a_burst_finds_the_memory_of_the_last_until_it_was_not_needed",
        "test_pool.c:",
    ),
    Mutation(
        "timer_fired_outside_the_lock",
        "sources/timer.c",
        "pg_task *task = timer->fire(timer);",
        "pg_lock_release(&timers->lock);\n"
        "        pg_task *task = timer->fire(timer);\n"
        "        pg_lock_acquire(&timers->lock);",
        "test_timer",
        "a_timer_either_fires_or_is_stopped",
        "data race",
        "thread",
    ),
    Mutation(
        "wake_of_a_running_task_lost",
        "objects/task.c",
        "if (pg_cas_acqrel(&task->state, &seen, PG_TASK_NOTIFIED)) return false;",
        "return false;",
        "test_task",
        "a_wake_wins_only_a_parked_task",
        "test_task.c:",
    ),
    Mutation(
        "notification_taken_back_too_late",
        "objects/task.c",
        "pg_fence_seqcst(); /* pairs with that of pg_task_wake */",
        "",
        "test_task",
        "no_wake_is_lost_between_parking_and_waking",
        "test_task.c:",
    ),
    Mutation(
        "guard_left_out",
        "machine/stack.c",
        "pg_pages_guard(stack->base - pg_stack_guard_size(), pg_stack_guard_size()) == PG_OK",
        "true",
        "test_stack",
        "overflow_hits_a_protected_guard",
        "test_stack.c:",
    ),
    Mutation(
        "guard_that_a_wide_frame_steps_over",
        "machine/stack.c",
        "GUARD_LEAST = 60 * 1024",
        "GUARD_LEAST = 4 * 1024",
        "test_stack",
        "overflow_hits_a_protected_guard",
        "test_stack.c:",
    ),
    Mutation(
        "the_handler_before_ours_forgotten",
        "os/fault.c",
        "        call_previous(number, info, context);\n",
        "        if (number < 0) call_previous(number, info, context);\n",
        "test_fault",
        "what_was_installed_before_is_called",
        "test_fault.c:",
    ),
    Mutation(
        "a_signal_raised_again_not_traced_back",
        "os/fault.c",
        "if (!is_from_a_fault(info)) return find_hidden_overflow();",
        "if (!is_from_a_fault(info)) return find_hidden_overflow() != NULL ? NULL : NULL;",
        "test_fault",
        "a_later_handler_that_raises_again_hides_nothing",
        "test_fault.c:",
    ),
    Mutation(
        "errno_not_restored",
        "sched/sched.c",
        "    pg_arrive(worker, fiber);\n    pg_errno_set(fiber->saved_errno);\n",
        "    pg_arrive(worker, fiber);\n",
        "test_sched",
        "errno_and_rounding_are_private",
        "test_sched.c:",
    ),
    Mutation(
        "rounding_mode_left_to_the_next_task",
        "sched/sched.c",
        "pg_switch_clean_float();",
        ";",
        "test_sched",
        "errno_and_rounding_are_private",
        "test_sched.c:",
    ),
    Mutation(
        "waiting_senders_value_dropped",
        "sync/chan.c",
        "if (from_ring) ring_push(chan, offered);",
        "if (from_ring) {}",
        "test_chan",
        "every_value_arrives_once_and_in_order",
        "test_chan.c:",
    ),
    Mutation(
        "select_won_twice",
        "sync/chan.c",
        "if (party->is_select && pg_exchange_acqrel(&party->claimed, true)) return false;",
        "if (party->is_select && pg_load_acquire(&party->claimed)) return false;",
        "test_chan",
        "select_delivers_every_value_once",
        "",
    ),
    Mutation(
        "notified_tasks_counted_as_idle",
        "objects/task.c",
        "pg_task_stirred(task);",
        "if (won) pg_task_stirred(task);",
        "test_bubble",
        "the_clock_stands_still_while_anybody_runs",
        "",
    ),
    Mutation(
        "task_woken_before_it_is_idle_counted_as_idle",
        "sched/bubble.c",
        "if (pg_load_acquire(&fiber->task->state) == PG_TASK_NOTIFIED) stirred(fiber->task); /* B3 */",
        "",
        "test_bubble",
        "who_is_woken_before_it_is_idle_goes_on",
        "test_bubble.c:",
    ),
    Mutation(
        "waits_for_outside_counted_as_idle",
        "sched/bubble.c",
        "if (!fiber->durable) return;",
        "",
        "test_bubble",
        "the_clock_waits_for_what_comes_from_outside",
        "test_bubble.c:",
    ),
    Mutation(
        "mutex_freed_before_its_waiter",
        "sync/mutex.c",
        "node != NULL ? PG_MUTEX_HELD : PG_MUTEX_FREE",
        "PG_MUTEX_FREE",
        "test_mutex",
        "tasks_and_threads_exclude_each_other",
        "test_mutex.c:",
    ),
    Mutation(
        "those_behind_a_quitter_forgotten",
        "sync/semaphore.c",
        "if (PG_UNLIKELY(outcome != PG_OK)) {",
        "if (false) {",
        "test_mutex",
        "those_behind_a_large_waiter_that_gives_up_go_on",
        "",
    ),
    Mutation(
        "tasks_that_can_have_a_stack_again_told_to_nobody",
        "sched/monitor.c",
        "pg_wake_after_inject(); /* all workers may rest */",
        "",
        "test_failpoints",
        "fifty_refusals_in_a_row_harm_nobody",
        "",
        "failpoints",
    ),
    Mutation(
        "no_worker_record_and_nobody_tries_again",
        "sched/worker.c",
        "1);\n            pg_store_relaxed(&sched->short_of_threads, true);\n        }\n",
        "1);\n        }\n",
        "test_failpoints",
        "any_one_refusal_of_memory_harms_nobody",
        "",
        "failpoints",
    ),
    Mutation(
        "refused_timer_of_a_wait_ignored",
        "sched/park.c",
        "if (started != PG_OK) return started;",
        "(void)started;",
        "test_failpoints",
        "any_one_refusal_of_memory_harms_nobody",
        "",
        "failpoints",
    ),
    Mutation(
        "rounding_mode_not_restored_x86_64",
        "machine/switch_x86_64.S",
        "ldmxcsr (%rsp)",
        "nop",
        "test_switch",
        "the_floating_point_environment_is_private",
        "test_switch.c:",
    ),
    Mutation(
        "two_registers_swapped_x86_64",
        "machine/switch_x86_64.S",
        "        popq    %r15\n        .cfi_adjust_cfa_offset -8\n        .cfi_restore %r15\n        popq    %r14\n",
        "        popq    %r14\n        .cfi_adjust_cfa_offset -8\n        .cfi_restore %r15\n        popq    %r15\n",
        "test_switch",
        "callee_saved_registers_survive_a_million_switches",
        "",
    ),
    Mutation(
        "end_of_the_stack_not_marked_x86_64",
        "machine/switch_x86_64.S",
        ".cfi_undefined %rip ",
        "/* */ ",
        "test_switch",
        "unwinding_a_context_ends_at_its_trampoline",
        "",
    ),
    Mutation(
        "rounding_mode_not_restored_aarch64",
        "machine/switch_aarch64.S",
        "msr     fpcr, x10",
        "nop",
        "test_switch",
        "the_floating_point_environment_is_private",
        "test_switch.c:",
        "aarch64",
    ),
    Mutation(
        "vector_register_not_restored_aarch64",
        "machine/switch_aarch64.S",
        "ldp     d10, d11, [sp, #128]",
        "nop",
        "test_switch",
        "callee_saved_registers_survive_a_million_switches",
        "test_switch.c:",
        "aarch64",
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_planted_bug_is_caught(builder: Builder, mutation: Mutation) -> None:
    _require(builder, mutation.variant)
    if mutation.name.endswith("x86_64") and os.uname().machine != "x86_64":
        pytest.skip("for another CPU")
    command = [*VARIANTS[mutation.variant].runner, str(builder.mutated(mutation))]
    deadline = time.monotonic() + 90.0
    code, output = 0, ""
    while code == 0 and time.monotonic() < deadline:  # a race may hide for a while on a busy machine
        # one that shows only as a hang, where the test in question otherwise takes a fraction of a second
        limit = 20.0 if mutation.finds else 5.0
        code, output = _run(command, timeout=limit, only=mutation.only, failpoints=mutation.failpoints)
    assert code != 0, f"not noticed:\n{output}"
    assert mutation.finds in output, output
