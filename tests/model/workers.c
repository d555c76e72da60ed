/* Model: sched/worker.c. Workers find work, lie down and get up with all of the real code; permits are passed on,
 * taken away and come back. A task is run by its worker on the worker's own stack: what fibers add is in waits.c.
 *
 * In the end everybody sleeps. Then every task has run once, all permits are free, and nobody counts as searching.
 */
#include "explore.h"

#include <stdlib.h>
#include <string.h>

#include "sched/bubble.h"
#include "sched/internal.h"
#include "without_monitor.h"

enum { TASKS = 4 };

typedef struct job {
    pg_task task;
    int runs;
    void (*body)(struct job *job);
} job;

static job jobs[TASKS];
static int spawned;
static pg_timer timer;

/* ---- what there is instead of fibers and the monitor ---- */

static void run_job(pg_task *task)
{
    job *it = pg_container_of(task, job, task);
    MC_CHECK(it->runs++ == 0);
    if (it->body != NULL) it->body(it);
}

void pg_dispatch(pg_worker *worker, pg_task *task)
{
    MC_CHECK(worker == pg_worker_of_thread());
    pg_store_relaxed(&worker->tick, pg_load_relaxed(&worker->tick) + 1);
    task->run(task);
}

void pg_sched_set_scavenge_interval(pg_nanos interval) { (void)interval; }
void pg_sched_set_signal_slice(pg_nanos slice) { (void)slice; }
ABSENT(pg_fiber *, pg_fiber_obtain, (size_t size), NULL)
ABSENT_VOID(pg_fiber_release, (pg_fiber *fiber))
ABSENT_VOID(pg_fiber_lacking, (pg_task *task, bool none_free))
ABSENT_VOID(pg_sched_yield, (void))

/* ---- set-up and end ---- */

static void setup(int workers, bool exclusive)
{
    memset(&pg_the_sched, 0, sizeof pg_the_sched);
    memset(jobs, 0, sizeof jobs);
    memset(&timer, 0, sizeof timer);
    MC_CHECK(pg_sched_init(NULL, workers, exclusive) == PG_OK);
    for (int i = 0; i < TASKS; i++) pg_task_init(&jobs[i].task, run_job);
    spawned = 0;
}
static void setup_one(void) { setup(1, true); }
static void setup_two(void) { setup(2, false); }

static void check(void)
{
    pg_sched *sched = &pg_the_sched;
    for (int i = 0; i < TASKS; i++) MC_CHECK(jobs[i].runs == (jobs[i].task.stack_units == 1)); /* see spawn */
    MC_CHECK(pg_load_relaxed(&sched->permits_free) == sched->permits);
    MC_CHECK(pg_load_relaxed(&sched->searching) == 0 && pg_load_relaxed(&sched->turns) == 0);
    MC_CHECK(pg_load_relaxed(&sched->inject.count) == 0 && sched->timers.count == 0);
    for (int i = 0; i < pg_load_relaxed(&sched->table_length); i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        MC_CHECK(!worker->permit && pg_runq_length(&worker->queue) == 0);
        MC_CHECK(!worker->alive || worker->sleep == IDLE);
    }
}

/* Marked by a field that nothing here looks at. */
static void spawn(int number)
{
    jobs[number].task.stack_units = 1;
    pg_sched_spawn(&jobs[number].task);
}

/* ---- push and look for sleepers, against lie down and look for work ---- */

static void spawner(void)
{
    mc_name("spawner");
    spawn(0);
    spawn(1);
}
static void second_spawner(void)
{
    mc_name("spawner 2");
    spawn(2);
}

/* A task that spawns: into its worker's own queue, for others to steal. */
static void spawn_two(job *it)
{
    (void)it;
    spawn(1);
    spawn(2);
}
static void spawner_of_spawner(void)
{
    mc_name("spawner");
    jobs[0].body = spawn_two;
    spawn(0);
}

/* ---- timers: whoever rests wakes for the next one ---- */

static pg_task *fire(pg_timer *fired)
{
    (void)fired;
    return &jobs[1].task;
}
static void starter(void)
{
    mc_name("starter");
    timer.fire = fire;
    jobs[1].task.stack_units = 1;
    pg_store_relaxed(&jobs[1].task.state, PG_TASK_ACTIVE);
    MC_CHECK(pg_sched_timer_start(&timer, pg_now() + 1000) == PG_OK);
}
static void spawner_of_one(void)
{
    mc_name("spawner");
    spawn(0);
}

/* ---- the permit of a blocked worker ---- */

static char unblocked;

static void block(job *it)
{
    (void)it;
    mc_token_take(&unblocked);
}
static void unblock(job *it)
{
    (void)it;
    mc_token_put(&unblocked);
}
/* What it has made ready another worker has to take: there is a permit for that, and no monitor to help. */
static void spawn_and_block(job *it)
{
    spawn(1);
    block(it);
}
static void spawner_of_spawn_and_block(void)
{
    mc_name("spawner");
    jobs[0].body = spawn_and_block;
    jobs[1].body = unblock;
    spawn(2);
    spawn(0);
}
/* As the monitor does: at any moment, by mistake too, and once for good. */
static void taker(void)
{
    mc_name("monitor");
    pg_worker *worker = pg_load_acquire(&pg_the_sched.table[0]);
    if (worker != NULL) pg_take_permit_away(worker);
}
/* The worker is there, and blocked. */
static char is_blocked;
static void block_and_say_so(job *it)
{
    mc_token_put(&is_blocked);
    block(it);
}
static void spawner_of_blocked_for_sure(void)
{
    mc_name("spawner");
    jobs[0].body = block_and_say_so;
    jobs[1].body = unblock;
    spawn(0);
    spawn(1);
}
static void taker_of_blocked(void)
{
    mc_name("monitor");
    mc_token_take(&is_blocked);
    pg_take_permit_away(pg_load_acquire(&pg_the_sched.table[0]));
}

const mc_scenario mc_scenarios[] = {
    {"spawn_against_rest", setup_one, {spawner}, check, .rests = true, .preemptions = 3, .stale = 1},
    {"two_spawners", setup_one, {spawner, second_spawner}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"two_workers", setup_two, {spawner}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"steal_or_run", setup_two, {spawner_of_spawner}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"push_against_rest", setup_two, {spawner_of_spawn_and_block}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"timer_against_rest", setup_one, {spawner_of_one, starter}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"permit_taken_at_any_moment", setup_one, {spawner, taker}, check, .rests = true, .preemptions = 2, .stale = 1},
    {"permit_of_a_blocked_worker", setup_one, {spawner_of_blocked_for_sure, taker_of_blocked}, check,
     .rests = true, .preemptions = 2, .stale = 1},
    {.name = NULL},
};
