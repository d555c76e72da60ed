/* Model: the monitor, with all of monitor.c and deadlock.c beside what handoff.c has. Where only the monitor can let tasks
 * go on it must, whenever it may have gone to sleep: they have all ended in the end.
 *
 * And whether anybody could still wake the main thread, thread 0. It looks whenever its wait for signals times out, at any
 * moment that is: so often, see system.c, that both a look at a world that moves and one at a world at rest are among the
 * executions. Where somebody is going to wake it no look may say that nobody can: `false_alarm`. Where nobody is, some look
 * must.
 */
#include "monitored.h"

#include <stdio.h>

bool pg_sched_resume(void) { return false; }
ABSENT(bool, pg_sched_stop, (pg_nanos patience), false)

static void setup_watched(void) { setup_watched_by(&watched, 1); }
static void setup_patient(void) /* it does not wake for other reasons */
{
    setup_watched();
    mc_set_patient();
}
static void setup_unknown(void) { setup_watched_by(NULL, 1); } /* where it cannot tell */
static void setup_lacking_a_stack(void)
{
    setup_watched();
    stacks_refused = 1;
}
static void setup_lacking_threads(void)
{
    setup_watched();
    mc_set_short_of_threads(1);
}

/* The monitor has seen that nobody needs it, and is about to sleep. */
static void put_to_sleep(void)
{
    spawn(2, nothing);
    while (pg_load_seqcst(&pg_the_sched.monitor_word) != 0) pg_cpu_relax();
}

static void block_0(job *it)
{
    (void)it;
    block(0);
}
static void unblock_0(job *it)
{
    (void)it;
    unblock(0);
}
static void spawner_of_blocked(void)
{
    mc_name("spawner");
    spawn(0, block_0);
    spawn(1, unblock_0);
}
static void spawner_of_blocked_after_sleep(void)
{
    mc_name("spawner");
    put_to_sleep();
    spawner_of_blocked();
}
/* It may have had its last look but one. */
static void spawner_of_blocked_before_sleep(void)
{
    enum { ROUNDS = 4 };
    mc_name("spawner");
    spawn(2, nothing);
    for (int i = 0; i < ROUNDS; i++) mc_nap();
    spawner_of_blocked();
}
/* It has lost its permit meanwhile; what it makes ready then, others have to run. */
static void block_and_make_ready(job *it)
{
    (void)it;
    block(0);
    end_wait(0);
    block(1);
}
static void wait_0_and_unblock_1(job *it)
{
    (void)it;
    wait_for(0);
    unblock(1);
}
static void spawner_of_twice_blocked(void)
{
    mc_name("spawner");
    spawn(0, wait_0_and_unblock_1);
    spawn(1, block_and_make_ready);
    spawn(2, unblock_0);
}
/* Or is about to lose it: the next look would be the last one. */
static void block_for_long_and_make_ready(job *it)
{
    pg_worker *worker = pg_worker_of_thread();
    pg_lock_acquire(&pg_the_sched.look_lock);
    worker->seen_tick = pg_load_relaxed(&worker->tick);
    worker->seen_outside = 1000;
    pg_lock_release(&pg_the_sched.look_lock);
    block_and_make_ready(it);
}
static void spawner_that_unblocks(void)
{
    mc_name("spawner");
    spawn(0, wait_0_and_unblock_1);
    spawn(1, block_for_long_and_make_ready);
    unblock(0);
}
/* It blocks when its timer is running, and the timer's task is who ends that. */
static void start_timer_and_block(job *it)
{
    (void)it;
    timer = (pg_timer){.fire = ring};
    jobs[1].body = unblock_0;
    jobs[1].by_timer = true;
    MC_CHECK(pg_sched_timer_start(&timer, pg_now() + 1000) == PG_OK);
    block(0);
}
static void spawner_of_timer(void)
{
    mc_name("spawner");
    spawn(0, start_timer_and_block);
}
static void spawner_of_one(void)
{
    mc_name("spawner");
    spawn(0, nothing);
}
static void spawner_of_one_after_sleep(void)
{
    mc_name("spawner");
    put_to_sleep();
    spawn(0, nothing);
}

/* Whoever waits tries again to start the threads that were refused, or the monitor does. */
static void waiter(void)
{
    mc_name("waiter");
    spawn(0, end_0);
    wait_for(0);
}
static void check_lacking_threads(void)
{
    check();
    MC_CHECK(pg_load_relaxed(&pg_the_sched.monitor_started));
}

/* A task has to go on on the thread of one that blocks: below C code. Its own end is all that would end that call. */
static bool has_to_stay(pg_fiber *fiber) { return fiber->task == &jobs[0].task; }
static bool may_have_to_stay(pg_fiber *fiber) { return pg_peek(&fiber->task) == &jobs[0].task; }
static bool may_stray(pg_fiber *fiber) { return fiber->task == &jobs[0].task; }
static bool may_not_stray(pg_fiber *fiber) { return fiber == NULL; }
static const pg_hooks straying = {.is_outside = is_outside, .is_busy = is_busy, .must_stay = has_to_stay,
                                  .may_have_to_stay = may_have_to_stay, .may_stray = may_stray};
static const pg_hooks staying = {.is_outside = is_outside, .is_busy = is_busy, .must_stay = has_to_stay,
                                 .may_have_to_stay = may_have_to_stay, .may_stray = may_not_stray};
static void setup_straying(void)
{
    setup_watched_by(&straying, 1);
    mc_set_hurried();
}
static void setup_staying(void)
{
    setup_watched_by(&staying, 1);
    mc_set_hurried();
}
static void wait_0_and_unblock_0(job *it)
{
    (void)it;
    wait_for(0);
    unblock(0);
}
static void spawner_of_strayed(void)
{
    mc_name("spawner");
    spawn(0, wait_0_and_unblock_0);
    spawn(1, block_0);
    spawn(2, end_0);
}
/* It may not, and goes on when the call has ended, at a moment when the monitor has just looked for such. */
static void spawner_that_waits_long(void)
{
    enum { NAPS = 12 };
    mc_name("spawner");
    spawn(0, wait_0);
    spawn(1, block_0);
    spawn(2, end_0);
    for (int i = 0; i < NAPS; i++) mc_nap();
    unblock(0);
}

/* ---- the main thread ---- */

static unsigned long told, untold; /* executions in which it has been told that it is stuck, and others */
static bool is_told;

static bool alarm(void)
{
    is_told = true;
    return true;
}
static const pg_hooks forsaken = {.thread_interrupted = never_interrupted, .thread_stuck = alarm};

static void setup_main(const pg_hooks *hooks, int workers)
{
    setup_watched_by(hooks, workers);
    mc_set_main_thread();
    is_told = false;
}
static void setup_awaited(void) { setup_main(&awaited, 1); }
static void setup_awaited_of_two(void) { setup_main(&awaited, 2); }
static void setup_awaited_without_a_stack(void)
{
    setup_awaited();
    stacks_refused = 1;
}
static void setup_polled(void) /* by somebody who is no thread of ours, and may come back any time */
{
    setup_awaited();
    pg_sched_outside_add(1);
}
static void setup_forsaken(void) { setup_main(&forsaken, 1); }

static void count_told(void) { *(is_told ? &told : &untold) += 1; }
static void check_forsaken(void)
{
    check();
    count_told();
}
/* What ends the look early, a worker that is just lying down for instance, may do so each time it looks. */
static void conclude_forsaken(void)
{
    printf("    told in %lu executions, not in %lu\n", told, untold);
    MC_CHECK(told > 0);
    told = untold = 0;
}

/* ---- somebody will wake it: a task, of one worker or another ---- */

static void main_of_a_task(void)
{
    mc_name("main");
    spawn(0, end_0);
    wait_for(0);
}
static void spawn_end_0(job *it)
{
    (void)it;
    spawn(1, end_0);
}
static void main_of_a_chain(void)
{
    mc_name("main");
    spawn(0, spawn_end_0);
    wait_for(0);
}
/* One waits for another, which is in a queue, or carried, or on its way between two workers. */
static void wait_1_and_end_0(job *it)
{
    (void)it;
    wait_for(1);
    end_wait(0);
}
static void end_1(job *it)
{
    (void)it;
    end_wait(1);
}
static void main_of_tasks_that_wait(void)
{
    mc_name("main");
    spawn(0, wait_1_and_end_0);
    spawn(1, end_1);
    wait_for(0);
}
/* Nobody but the clock wakes the task, and the monitor may be who looks at that. */
static void sleep_and_end_0(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_sleep_until(pg_now() + 1000) == PG_OK);
    end_wait(0);
}
static void main_of_a_sleeper(void)
{
    mc_name("main");
    spawn(0, sleep_and_end_0);
    wait_for(0);
}

static void start_timer_that_ends_0(void)
{
    timer = (pg_timer){.fire = ring};
    jobs[1].body = end_0;
    jobs[1].by_timer = true;
    MC_CHECK(pg_sched_timer_start(&timer, pg_now()) == PG_OK);
}
static void main_of_a_timer(void)
{
    mc_name("main");
    start_timer_that_ends_0();
    wait_for(0);
}

/* ---- or a thread: that never waited, that has ended when it looks, or that a task has to wake first ---- */

static void thread_that_ends_0(void)
{
    mc_name("thread");
    end_wait(0);
    mc_thread_exits();
}
static void main_that_waits(void)
{
    mc_name("main");
    wait_for(0);
}
static void main_that_nobody_wakes_yet(void)
{
    mc_name("main");
    (void)pg_sched_park_until(pg_sched_self(), &done[0], PG_FOREVER);
    mc_fail("it went on");
}
static void main_of_a_thread_that_waits(void)
{
    mc_name("main");
    spawn(0, end_1);
    wait_for(0);
}
static void thread_that_waits_and_ends_0(void)
{
    mc_name("thread");
    wait_for(1);
    end_wait(0);
    mc_thread_exits();
}
static void sleep_here_and_end_0(void)
{
    MC_CHECK(pg_sched_sleep_until(pg_now() + 1000) == PG_OK);
    end_wait(0);
    mc_thread_exits();
}
static void thread_that_starts_a_timer(void)
{
    mc_name("thread");
    start_timer_that_ends_0();
    mc_thread_exits();
}
static void thread_that_sleeps_and_ends_0(void)
{
    mc_name("thread");
    sleep_here_and_end_0();
}
static void thread_that_ends_1(void)
{
    mc_name("thread 2");
    end_wait(1);
    mc_thread_exits();
}
/* First without a deadline, and then with one. */
static void thread_that_waits_and_sleeps_and_ends_0(void)
{
    mc_name("thread");
    wait_for(1);
    sleep_here_and_end_0();
}
/* When everybody rests again there is one more thread than was counted. */
static void end_0_as_a_thread(void *unused)
{
    (void)unused;
    mc_name("started");
    end_wait(0);
    mc_thread_exits();
}
static void start_a_thread(job *it)
{
    (void)it;
    MC_CHECK(pg_os_thread_start(end_0_as_a_thread, NULL, "") == PG_OK);
}
static void thread_that_spawns_who_starts_another(void)
{
    mc_name("thread");
    spawn(0, start_a_thread);
    mc_thread_exits();
}
/* Likewise; a thread has been up, and rests again. */
static void thread_that_starts_another_and_waits_in_vain(void)
{
    static atomic_uchar never;
    mc_name("thread");
    pg_store_relaxed(&never, PG_WAIT_OPEN);
    wait_for(1);
    start_a_thread(NULL);
    MC_CHECK(pg_sched_park_until(pg_sched_self(), &never, PG_FOREVER) == PG_OK);
}
static void main_beside_a_worker(void)
{
    mc_name("main");
    spawn(2, nothing);
    wait_for(0);
}
static void thread_that_spawns(void)
{
    mc_name("thread");
    spawn(0, end_0);
    mc_thread_exits();
}

/* ---- nobody will ---- */

static void main_waits_in_vain(void)
{
    MC_CHECK(pg_sched_self() != NULL);
    int outcome = pg_sched_park_until(pg_sched_self(), &done[0], PG_FOREVER);
    MC_CHECK(outcome == PG_EINTERRUPTED && is_told);
}
static void pin_and_wait_in_vain(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_pin() == PG_OK);
    MC_CHECK(pg_sched_park_until(pg_sched_self(), &done[1], PG_FOREVER) == PG_OK);
}
static void main_beside_a_pinned_task(void)
{
    mc_name("main");
    spawn(0, pin_and_wait_in_vain);
    main_waits_in_vain();
}
static void main_of_a_task_that_ends(void)
{
    mc_name("main");
    spawn(0, nothing);
    main_waits_in_vain();
}
static void main_of_a_thread_that_goes(void)
{
    mc_name("main");
    main_waits_in_vain();
}
static void thread_that_goes(void)
{
    mc_name("thread");
    MC_CHECK(pg_sched_self() != NULL);
    mc_thread_exits();
}
static void thread_that_waits_in_vain(void)
{
    mc_name("thread");
    MC_CHECK(pg_sched_park_until(pg_sched_self(), &done[1], PG_FOREVER) == PG_OK);
}

#define BOUNDS .rests = true, .preemptions = 2, .stale = 1
#define TELLS conclude_forsaken, BOUNDS
const mc_scenario mc_scenarios[] = {
    {"blocked", setup_watched, {spawner_of_blocked}, check, BOUNDS},
    {"blocked_after_sleep", setup_patient, {spawner_of_blocked_after_sleep}, check, BOUNDS},
    {"blocked_before_sleep", setup_patient, {spawner_of_blocked_before_sleep}, check, BOUNDS},
    {"computing", setup_unknown, {spawner_of_blocked}, check, BOUNDS},
    {"blocked_twice", setup_watched, {spawner_of_twice_blocked}, check, BOUNDS},
    {"blocked_beside_a_timer", setup_watched, {spawner_of_timer}, check, BOUNDS},
    {"blocked_twice_while_it_loses_its_permit", setup_watched, {spawner_that_unblocks}, check, BOUNDS},
    {"computing_beside_a_timer", setup_unknown, {spawner_of_timer}, check, BOUNDS},
    {"strayed", setup_straying, {spawner_of_strayed}, check, BOUNDS},
    {"not_strayed", setup_staying, {spawner_that_waits_long}, check, BOUNDS},
    {"lacking_a_stack", setup_lacking_a_stack, {spawner_of_one}, check, BOUNDS},
    {"lacking_a_stack_after_sleep", setup_lacking_a_stack, {spawner_of_one_after_sleep}, check, BOUNDS},
    {"lacking_threads", setup_lacking_threads, {waiter}, check_lacking_threads, BOUNDS},
    {"woken_by_a_task", setup_awaited, {main_of_a_task}, check, BOUNDS},
    {"woken_by_a_chain", setup_awaited, {main_of_a_chain}, check, BOUNDS},
    {"woken_by_a_chain_of_two", setup_awaited_of_two, {main_of_a_chain}, check, BOUNDS},
    {"woken_by_tasks_that_wait", setup_awaited_of_two, {main_of_tasks_that_wait}, check, BOUNDS},
    {"woken_by_a_sleeper", setup_awaited, {main_of_a_sleeper}, check, BOUNDS},
    {"woken_by_a_timer", setup_awaited, {main_of_a_timer}, check, BOUNDS},
    {"woken_by_the_timer_of_a_thread", setup_awaited, {main_that_waits, thread_that_starts_a_timer}, check, BOUNDS},
    {"woken_by_a_thread", setup_awaited, {main_that_waits, thread_that_ends_0}, check, BOUNDS},
    {"woken_by_a_thread_that_waits", setup_awaited, {main_of_a_thread_that_waits, thread_that_waits_and_ends_0}, check,
     BOUNDS},
    {"woken_by_a_thread_that_a_thread_starts", setup_awaited,
     {main_that_waits, thread_that_starts_another_and_waits_in_vain, thread_that_ends_1}, check, BOUNDS},
    {"woken_by_a_thread_that_sleeps", setup_awaited, {main_that_waits, thread_that_sleeps_and_ends_0}, check, BOUNDS},
    {"woken_by_a_thread_that_waits_and_sleeps", setup_awaited,
     {main_that_waits, thread_that_waits_and_sleeps_and_ends_0, thread_that_ends_1}, check, BOUNDS},
    {"woken_by_the_task_of_a_thread", setup_awaited, {main_that_waits, thread_that_spawns}, check, BOUNDS},
    {"woken_by_a_thread_that_a_task_starts", setup_awaited, {main_beside_a_worker, thread_that_spawns_who_starts_another},
     check, .rests = true, .preemptions = 3, .stale = 1},
    {"woken_by_a_task_that_lacks_a_stack", setup_awaited_without_a_stack, {main_of_a_task}, check, BOUNDS},
    {"polled", setup_polled, {main_that_nobody_wakes_yet, thread_that_goes}, check, BOUNDS},
    {"left_by_a_task", setup_forsaken, {main_of_a_task_that_ends}, check_forsaken, TELLS},
    {"left_by_a_thread", setup_forsaken, {main_of_a_thread_that_goes, thread_that_goes}, check_forsaken, TELLS},
    {"left_beside_a_thread", setup_forsaken, {main_of_a_thread_that_goes, thread_that_waits_in_vain}, check_forsaken,
     TELLS},
    {"left_beside_a_pinned_task", setup_forsaken, {main_beside_a_pinned_task}, count_told, TELLS},
    {.name = NULL},
};
