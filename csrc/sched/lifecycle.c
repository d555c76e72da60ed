/* Stopping for the end of the process, and starting over in the child of a fork.
 *
 * Every lock, and what becomes of it at a fork; the locks table, which a test compares with the sources:
 *
 *      sched/internal.h    lock        held across the fork, made anew in the child
 *      sched/internal.h    fiber_lock  likewise
 *      machine/stack.c     lock        held across the fork, released in parent and child: what it covers is kept
 *      sched/internal.h    look_lock   made anew: the monitor is gone, and a task that takes fibers apart has the GIL
 *      objects/runq.h      lock        made anew, with queues that are empty
 *      sources/timer.h     lock        made anew, with a heap that is empty
 *      sched/bubble.h      lock        made anew for the forking task's bubble, whose other tasks are gone; others are dead
 *      python/timer.c      lock        made anew, with a list that is empty
 *      sync/chan.h         lock        held only inside the interpreter, where the forking thread is: free
 *      sync/latch.h        lock        likewise
 *      sync/mutex.h        lock        likewise
 *      sync/semaphore.h    lock        likewise
 *
 * CPython's lock of its thread states: held across the fork (python/interp.c), released in parent and child.
 *
 * What others were about to do is seen half done: a fiber that has its task while the task has not got its fiber, a timer
 * out of the heap that has not fired, a worker with a permit that nobody woke. So the child looks at nothing of the others
 * but their waits, which are written inside the interpreter; their records, queues and the heap it forgets.
 */
#include "sched/internal.h"

static void set_stopping(bool stopping)
{
    pg_sched *sched = &pg_the_sched;
    pg_lock_acquire(&sched->lock);
    pg_store_seqcst(&sched->stopping, stopping);
    int slots = pg_load_relaxed(&sched->table_length);
    for (int i = 0; i < slots; i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        if (stopping) atomic_fetch_or_explicit(&worker->attention, ATTEND_STOP, memory_order_seq_cst);
        else atomic_fetch_and_explicit(&worker->attention, ~(unsigned)ATTEND_STOP, memory_order_seq_cst);
    }
    pg_lock_release(&sched->lock);
}

static bool all_at_rest(void)
{
    pg_sched *sched = &pg_the_sched;
    bool rest = true;
    pg_lock_acquire(&sched->lock);
    int slots = pg_load_relaxed(&sched->table_length);
    for (int i = 0; i < slots; i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        if (worker->alive && worker->sleep == AWAKE) rest = false;
    }
    pg_lock_release(&sched->lock);
    return rest;
}

bool pg_sched_stop(pg_nanos patience)
{
    pg_nanos until = pg_now() + patience;
    set_stopping(true);
    pg_lock_acquire(&pg_the_sched.fiber_lock); /* a thread that looked at others' fibers is through; none begins */
    pg_lock_release(&pg_the_sched.fiber_lock);
    while (!all_at_rest()) {
        if (pg_now() >= until) return false;
        pg_nanosleep(50000);
    }
    return true;
}

bool pg_sched_resume(void)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    if (PG_LIKELY(!pg_load_relaxed(&pg_the_sched.stopping))) return false;
    /* Too late: a thread state made now would enter an interpreter that is being taken apart (3.14 stops only those
     * that were there when it began). */
    if (hooks->is_ending != NULL && hooks->is_ending()) return false;
    set_stopping(false);
    pg_wake_if_free(); /* to look for work, and to keep time */
    return true;
}

static void forget_worker(pg_worker *worker)
{
    worker->alive = worker->permit = worker->searching = worker->give_turn = false;
    worker->sleep = AWAKE;
    worker->pinned_task = NULL;
    worker->closing = false;
    worker->current = worker->previous = NULL;
    pg_store_relaxed(&worker->watched, NULL);
    pg_store_relaxed(&worker->attention, 0);
    pg_store_relaxed(&worker->granted, 0);
    pg_store_relaxed(&worker->overdue, false);
    pg_store_relaxed(&worker->run_next, NULL);
    pg_runq_init(&worker->queue);
    pg_inject_init(&worker->inbox);
    pg_list_init(&worker->link);
}

/* The locks in the order of sched.h. */
void pg_sched_before_fork(void)
{
    pg_lock_acquire(&pg_the_sched.lock);
    pg_lock_acquire(&pg_the_sched.fiber_lock);
    pg_stack_before_fork();
}

void pg_sched_after_fork_in_parent(void)
{
    pg_stack_after_fork();
    pg_lock_release(&pg_the_sched.fiber_lock);
    pg_lock_release(&pg_the_sched.lock);
}

/* Only the records are looked at that a fork finds whole: a worker outside of the interpreter may have been about to
 * give a fiber its task, and the task its fiber. */
static void forget_others(pg_thread *self, pg_fiber *fiber, void (*forget)(pg_party *))
{
    pg_sched *sched = &pg_the_sched;
    for (pg_node *node = sched->fibers.next; node != &sched->fibers; node = node->next) {
        pg_fiber *other = pg_container_of(node, pg_fiber, all);
        if (other != fiber && other->party != NULL) forget(other->party);
    }
    for (pg_node *node = sched->threads.next; node != &sched->threads; node = node->next) {
        pg_thread *other = pg_container_of(node, pg_thread, link);
        if (other != self && other->party != NULL) forget(other->party);
    }
}

void pg_sched_after_fork_in_child(void (*forget)(pg_party *party))
{
    pg_sched *sched = &pg_the_sched;
    pg_worker *self = pg_worker_of_thread();
    pg_fiber *fiber = self ? self->current : NULL;
    forget_others(pg_tls_get(), fiber, forget);
    pg_task *pinned = self ? self->pinned_task : NULL;
    int slots = pg_load_relaxed(&sched->table_length);
    pg_lock_init(&sched->lock);
    pg_lock_init(&sched->fiber_lock);
    pg_lock_init(&sched->look_lock);
    pg_inject_init(&sched->inject);
    pg_inject_init(&sched->no_stack);
    pg_timers_forget(&sched->timers);
    pg_stack_after_fork();
    pg_list_init(&sched->idle);
    pg_list_init(&sched->waiting);
    pg_list_init(&sched->fibers);
    pg_list_init(&sched->threads);
    for (int i = 0; i < 2; i++) /* the interpreter has freed their thread states */
        sched->free_fibers[i] = sched->trimmed_fibers[i] = NULL;
    pg_store_relaxed(&sched->free_count, 0);
    pg_store_relaxed(&sched->free_low, 0);
    pg_fibers_count(0);
    pg_store_relaxed(&sched->scavenging, false);
    sched->trim_rest = 0;
    for (int i = 0; i < slots; i++) forget_worker(pg_load_relaxed(&sched->table[i]));
    pg_store_relaxed(&sched->thread_count, self != NULL);
    pg_store_relaxed(&sched->permits_free, sched->permits - (self != NULL));
    pg_store_relaxed(&sched->searching, 0);
    pg_store_relaxed(&sched->turns, 0);
    pg_store_relaxed(&sched->stopping, false);
    pg_store_relaxed(&sched->timekeeper, NULL);
    pg_store_relaxed(&sched->monitor_started, false);
    pg_store_relaxed(&sched->short_of_threads, false);
    pg_store_relaxed(&sched->monitor_word, 1);
    pg_store_relaxed(&sched->monitor_round, 0);
    pg_store_relaxed(&sched->watcher, NULL);
    pg_store_relaxed(&sched->to_report, false);
    pg_store_relaxed(&sched->dump_asked, false);
    pg_store_relaxed(&sched->outside, 0); /* pollers and helper threads are gone */
    sched->main_fiber = NULL;
    pg_thread *thread = pg_tls_get();
    if (thread != NULL && self == NULL) {
        thread->is_main = sched->hooks.thread_interrupted != NULL;
        pg_store_relaxed(&sched->main_thread, thread->is_main ? thread : NULL);
        pg_list_append(&sched->threads, &thread->link);
    } else {
        pg_store_relaxed(&sched->main_thread, NULL);
    }
    if (self == NULL) return;
    self->os_id = pg_os_thread_id();
    self->alive = self->permit = true;
    self->pinned_task = pinned;
    self->current = fiber;
    sched->main_fiber = fiber;
    pg_store_relaxed(&self->watched, fiber);
    if (fiber == NULL) return;
    pg_list_append(&sched->fibers, &fiber->all);
    pg_fibers_count(1);
    pg_lock_acquire(&sched->lock);
    pg_monitor_start_locked();
    pg_lock_release(&sched->lock);
}
