/* Who calls: the record of each OS thread that has come by, the task it carries or stands for; and the chance that each
 * draws, or all together from one seed.
 */
#include "base/failpoint.h"
#include "os/fault.h"
#include "sched/internal.h"

#include <stdlib.h>

/* ---- records ---- */

void pg_thread_destroy(void *slot)
{
    pg_thread *thread = slot;
    if (thread->worker != NULL) return;
    pg_fault_stack_drop(thread->alternate);
    pg_lock_acquire(&pg_the_sched.lock);
    pg_list_remove(&thread->link);
    pg_lock_release(&pg_the_sched.lock);
    if (thread->is_main) pg_store_release(&pg_the_sched.main_thread, NULL);
    if (thread == pg_load_seqcst(&pg_the_sched.watcher)) return; /* somebody may be about to wake it */
    pg_sched_drop(&thread->stand_in);
}

void pg_sched_hold(pg_task *task)
{
    if (task->kind == PG_KIND_THREAD) pg_add_relaxed(&pg_thread_of(task)->holders, 1);
}

void pg_sched_drop(pg_task *task)
{
    if (task->kind != PG_KIND_THREAD) return;
    pg_thread *thread = pg_thread_of(task);
    if (atomic_fetch_sub_explicit(&thread->holders, 1, memory_order_acq_rel) == 1) free(thread);
}

static pg_thread *thread_of_caller(void)
{
    pg_thread *thread = pg_tls_get();
    if (PG_LIKELY(thread != NULL)) return thread;
    thread = pg_fails(thread_record) ? NULL : calloc(1, sizeof *thread);
    if (thread == NULL) return NULL;
    pg_task_init(&thread->stand_in, NULL);
    thread->stand_in.kind = PG_KIND_THREAD;
    pg_store_relaxed(&thread->holders, 1);
    pg_store_relaxed(&thread->stand_in.state, PG_TASK_ACTIVE);
    thread->is_main = pg_the_sched.hooks.thread_interrupted != NULL && pg_os_is_main_thread();
    if (thread->is_main) pg_store_release(&pg_the_sched.main_thread, thread);
    pg_lock_acquire(&pg_the_sched.lock);
    pg_list_append(&pg_the_sched.threads, &thread->link);
    pg_lock_release(&pg_the_sched.lock);
    pg_tls_set(thread);
    return thread;
}

pg_fiber *pg_sched_fiber(void)
{
    pg_worker *worker = pg_worker_of_thread();
    return worker ? worker->current : NULL;
}

pg_task *pg_sched_self(void)
{
    pg_thread *thread = thread_of_caller();
    if (thread == NULL) return NULL;
    if (thread->worker != NULL && thread->worker->current != NULL) return thread->worker->current->task;
    return &thread->stand_in;
}

pg_party **pg_sched_party(pg_task *task)
{
    if (PG_LIKELY(task->kind != PG_KIND_THREAD)) return &task->fiber->party;
    return &pg_thread_of(task)->party;
}

void **pg_sched_scopes(pg_task *task)
{
    if (PG_LIKELY(task->kind != PG_KIND_THREAD)) return &task->fiber->scopes;
    return &pg_thread_of(task)->scopes;
}

void pg_sched_nudge_main(void)
{
    pg_thread *thread = pg_load_acquire(&pg_the_sched.main_thread);
    if (thread != NULL && pg_task_wake(&thread->stand_in)) pg_sched_enqueue(&thread->stand_in);
}

/* ---- chance ---- */

atomic_bool pg_sched_is_seeded;

uint64_t pg_sched_random(void)
{
    static _Atomic uint64_t streams;
    pg_sched *sched = &pg_the_sched;
    if (pg_is_seeded()) return pg_random_mix(pg_add_relaxed(&sched->drawn, PG_RANDOM_STRIDE));
    pg_thread *thread = thread_of_caller();
    uint64_t fallback = pg_add_relaxed(&streams, 1);
    if (thread == NULL) return pg_random_step(&fallback);
    if (thread->random == 0) thread->random = fallback + 1;
    return pg_random_step(&thread->random);
}

void pg_sched_set_seed(bool on, uint64_t seed)
{
    pg_sched *sched = &pg_the_sched;
    pg_store_relaxed(&sched->seed, seed);
    pg_store_seqcst(&pg_sched_is_seeded, on); /* pairs with the look of pg_fibers_scavenge: none begins from here on */
    while (on && pg_load_seqcst(&sched->scavenging) && !pg_load_relaxed(&sched->stopping)) pg_nanosleep(PG_SPIN_TIME);
    pg_store_relaxed(&sched->drawn, seed);
}

bool pg_is_drawn(unsigned one_in) { return pg_sched_random() % one_in == 0; }

void pg_sched_preempt_point(void)
{
    enum { ONE_IN = 8 };
    if (PG_LIKELY(!pg_is_seeded())) return;
    pg_worker *worker = pg_worker_of_thread();
    if (worker != NULL && worker->current != NULL && pg_is_drawn(ONE_IN)) pg_sched_yield();
}
