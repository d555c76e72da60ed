/* Tasks for models: they run on fibers of their own, by the real switch, and wait for each other.
 *
 * In the end everybody sleeps. Then every task has ended, all permits are free, nothing is queued anywhere: `check`.
 */
#ifndef JOBS_H
#define JOBS_H

#include "explore.h"

#include <stdlib.h>
#include <string.h>

#include "sched/bubble.h"
#include "sched/internal.h"

enum { TASKS = 3, STACKS = 4, STACK_BYTES = 32 * 1024 };

typedef struct job {
    pg_task task;
    void (*body)(struct job *job);
    bool spawned, by_timer, ended;
} job;

static job jobs[TASKS];
static atomic_uchar done[2]; /* what jobs and threads wait for, see wait_for */
static pg_task *waiting[2];  /* waits_lock */
static pg_lock waits_lock;

/* ---- what there is instead of the system's stacks, and of the rest of the scheduler ---- */

static char stacks[STACKS][STACK_BYTES] __attribute__((aligned(4096)));
static bool in_use[STACKS];
static int stacks_refused; /* so many may be, of those asked for first; set in setup */
static pg_lock stacks_lock;

int pg_stack_get(pg_stack *stack, size_t size)
{
    int found = -1;
    (void)size;
    pg_lock_acquire(&stacks_lock);
    if (stacks_refused > 0 && mc_choose(2) == 1) {
        stacks_refused--;
        pg_lock_release(&stacks_lock);
        return PG_ENOMEM;
    }
    for (int i = STACKS; i-- > 0;)
        if (!in_use[i]) found = i;
    if (found < 0) mc_fail("no stack is left");
    in_use[found] = true;
    pg_lock_release(&stacks_lock);
    *stack = (pg_stack){.base = stacks[found], .top = stacks[found] + STACK_BYTES};
    return PG_OK;
}

ABSENT_VOID(pg_stack_put, (pg_stack *stack))

/* Plain: whoever uses a stack, and who gives back what it does not use, have to be ordered by what they tell each other. */
static int uses[STACKS];
static void use_stack_of(const char *address) { uses[(address - stacks[0]) / STACK_BYTES]++; }
bool pg_stack_trim(pg_stack *stack, char *keep_from)
{
    MC_CHECK(keep_from > stack->base && keep_from <= stack->top);
    use_stack_of(stack->base);
    return true;
}
ABSENT_VOID(pg_bubble_rest, (pg_fiber *fiber))
pg_nanos pg_sched_now(void) { return pg_now(); }

/* ---- set-up and end ---- */

static _Atomic(pg_worker *) kept_for_pinned; /* nothing may start there */

static void run_job(pg_task *task)
{
    job *it = pg_container_of(task, job, task);
    pg_worker *worker = pg_worker_of_thread();
    MC_CHECK(!it->ended && task->fiber->pinned == NULL && task->fiber->pin_depth == 0);
    MC_CHECK(pg_load_relaxed(&worker->watched) == task->fiber && pg_load_relaxed(&kept_for_pinned) != worker);
    pg_lock_acquire(&pg_the_sched.lock);
    MC_CHECK(worker->permit || pg_load_relaxed(&worker->attention) != 0); /* P1 */
    pg_lock_release(&pg_the_sched.lock);
    char here;
    use_stack_of(&here);
    it->body(it);
    use_stack_of(&here);
    MC_CHECK(task->fiber->pin_depth > 0 || task->fiber->pinned == NULL);
    it->ended = true;
}

static void nothing(job *it) { (void)it; }

static void setup(const pg_hooks *hooks, int workers, bool exclusive)
{
    memset(&pg_the_sched, 0, sizeof pg_the_sched);
    memset(jobs, 0, sizeof jobs);
    memset(in_use, 0, sizeof in_use);
    stacks_refused = 0;
    memset(waiting, 0, sizeof waiting);
    for (int i = 0; i < 2; i++) pg_store_relaxed(&done[i], PG_WAIT_OPEN);
    pg_store_relaxed(&kept_for_pinned, NULL);
    MC_CHECK(pg_sched_init(hooks, workers, exclusive) == PG_OK);
    for (int i = 0; i < TASKS; i++) {
        pg_task_init(&jobs[i].task, run_job);
        jobs[i].body = nothing;
    }
}

static int idle_workers;

static void check_workers(void)
{
    pg_sched *sched = &pg_the_sched;
    int alive = 0;
    idle_workers = 0;
    for (int i = 0; i < pg_load_relaxed(&sched->table_length); i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        MC_CHECK(!worker->permit && pg_runq_length(&worker->queue) == 0 && worker->run_next == NULL);
        MC_CHECK(pg_load_relaxed(&worker->inbox.count) == 0 && pg_load_relaxed(&worker->attention) == 0);
        if (!worker->alive) continue;
        alive++;
        MC_CHECK(worker->sleep == IDLE && worker->current == NULL && pg_load_relaxed(&worker->watched) == NULL);
        MC_CHECK(worker->pinned_task == NULL && !worker->closing);
        idle_workers++;
    }
    MC_CHECK(pg_load_relaxed(&sched->thread_count) == alive);
    int listed = 0;
    for (pg_node *node = sched->idle.next; node != &sched->idle; node = node->next) listed++;
    MC_CHECK(listed == idle_workers && pg_list_empty(&sched->waiting));
    MC_CHECK(pg_load_relaxed(&sched->permits_free) == sched->permits);
    MC_CHECK(pg_load_relaxed(&sched->searching) == 0 && pg_load_relaxed(&sched->turns) == 0);
    MC_CHECK(pg_load_relaxed(&sched->inject.count) == 0 && sched->timers.count == 0);
    MC_CHECK(pg_load_relaxed(&sched->fiber_count) == pg_load_relaxed(&sched->free_count));
}

static void check(void)
{
    uint64_t spawned = pg_load_relaxed(&pg_the_sched.foreign_spawned), finished = 0, jobs_spawned = 0;
    for (int i = 0; i < TASKS; i++) {
        MC_CHECK(jobs[i].ended == (jobs[i].spawned || jobs[i].by_timer));
        jobs_spawned += jobs[i].spawned;
    }
    for (int i = 0; i < pg_load_relaxed(&pg_the_sched.table_length); i++) {
        spawned += pg_load_relaxed(&pg_the_sched.table[i]->spawned);
        finished += pg_load_relaxed(&pg_the_sched.table[i]->finished);
    }
    MC_CHECK(spawned == jobs_spawned && finished >= jobs_spawned);
    check_workers();
}

static void spawn(int number, void (*body)(job *))
{
    jobs[number].body = body;
    jobs[number].spawned = true;
    pg_sched_spawn(&jobs[number].task);
}

/* ---- what tasks do to each other: one waits for done[number], another ends that wait; V1 to V3 ---- */

static void wait_for(int number)
{
    pg_task *self = pg_sched_self();
    pg_lock_acquire(&waits_lock);
    waiting[number] = self;
    pg_lock_release(&waits_lock);
    MC_CHECK(pg_sched_park_until(self, &done[number], PG_FOREVER) == PG_OK);
    MC_CHECK(mc_newest(&self->state, sizeof self->state) != PG_TASK_PARKED);
}

/* Whether the other has to be sent off: it was waiting. */
static bool end_wait(int number)
{
    pg_lock_acquire(&waits_lock);
    pg_task *task = waiting[number];
    pg_store_release(&done[number], PG_WAIT_ENDING);
    bool won = task != NULL && pg_task_wake(task);
    pg_store_release(&done[number], PG_WAIT_ENDED); /* who has seen that may be gone */
    pg_lock_release(&waits_lock);
    if (won) pg_sched_enqueue(task);
    return won;
}

static inline void wait_0(job *it)
{
    (void)it;
    wait_for(0);
}
static inline void end_0(job *it)
{
    (void)it;
    end_wait(0);
}

/* A timer whose end makes the second job ready. */
static pg_timer timer;
static pg_task *ring(pg_timer *rung)
{
    (void)rung;
    return &jobs[1].task;
}

#endif
