/* What can be seen from outside, at any time; the watchdog, dumps on a signal and the scheduler trace: off unless asked for.
 *
 * Watchdog: the monitor notices that a worker has carried one task for too long without a scheduling point. It cannot
 * read Python stacks, for it never enters the interpreter; so it wakes an ordinary Python thread, the watcher, which waits
 * here without a deadline. That thread sleeps while nothing is wrong, and to deadlock.c it is one of the threads that can
 * wake nobody. Rejected: a Python thread that looks every so often, which costs idle programs time and hides deadlocks.
 * A call that keeps the interpreter to itself keeps the watcher out: then it learns of the call when that is over.
 *
 * The same thread makes the dumps that a signal asks for. A handler of Python's runs in the main thread between two
 * bytecodes: never in a C call that goes on after a signal, and not before the next signal if this one comes between the
 * last look for signals and the wait that it should have ended, as in plain CPython some 5 of 100,000 do.
 *
 * The trace is written by the monitor itself, without the interpreter, so that it goes on whatever that does.
 */
#include "sched/internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the thread that reports ---- */

/* Nothing that a signal handler may not do: the watcher is no fiber, so no queue is touched. */
static void wake_watcher(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_store_seqcst(&sched->to_report, true);
    pg_thread *watcher = pg_load_seqcst(&sched->watcher);
    if (watcher != NULL && pg_task_wake(&watcher->stand_in)) pg_sched_enqueue(&watcher->stand_in);
}

int pg_sched_wait_to_report(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_task *self = pg_sched_self();
    if (self == NULL) return PG_ENOMEM;
    if (self->kind != PG_KIND_THREAD) return PG_EINVAL;
    pg_store_seqcst(&sched->watcher, pg_container_of(self, pg_thread, stand_in));
    while (!pg_exchange_seqcst(&sched->to_report, false)) {
        int outcome = pg_sched_park(self, PG_FOREVER);
        if (outcome != PG_OK) return outcome;
    }
    return PG_OK;
}

void pg_sched_ask_dump(void)
{
    pg_store_release(&pg_the_sched.dump_asked, true);
    wake_watcher();
}

bool pg_sched_next_dump(void) { return pg_exchange_acqrel(&pg_the_sched.dump_asked, false); }

/* ---- watchdog ---- */

int pg_sched_set_watchdog(pg_nanos limit)
{
    if (limit < 0) return PG_EINVAL;
    pg_store_seqcst(&pg_the_sched.watchdog, limit);
    return PG_OK;
}

void pg_watch_worker(pg_worker *worker, pg_nanos now)
{
    pg_nanos limit = pg_load_relaxed(&pg_the_sched.watchdog);
    unsigned tick = pg_load_relaxed(&worker->tick);
    if (PG_LIKELY(limit == 0) || tick != worker->seen_tick || pg_load_relaxed(&worker->watched) == NULL) return;
    if (now - worker->seen_since < limit || worker->barked_at == tick) return;
    worker->barked_at = tick;
    pg_store_relaxed(&worker->overdue_since, worker->seen_since);
    pg_store_relaxed(&worker->overdue_tick, tick);
    pg_store_release(&worker->overdue, true); /* pairs with the exchange of pg_sched_next_overdue */
    wake_watcher();
}

bool pg_sched_next_overdue(pg_overdue *found)
{
    int slots = pg_load_acquire(&pg_the_sched.table_length);
    for (int i = 0; i < slots; i++) {
        pg_worker *worker = pg_load_acquire(&pg_the_sched.table[i]);
        if (!pg_exchange_acqrel(&worker->overdue, false)) continue;
        pg_fiber *fiber = pg_load_relaxed(&worker->watched);
        bool still = fiber != NULL && pg_load_relaxed(&worker->tick) == pg_load_relaxed(&worker->overdue_tick);
        found->task = still ? fiber->task : NULL;
        found->since = pg_load_relaxed(&worker->overdue_since);
        found->os_id = worker->os_id;
        return true;
    }
    return false;
}

/* ---- looks at any time ---- */

bool pg_sched_is_running(pg_fiber *fiber)
{
    pg_worker *worker = pg_peek(&fiber->worker);
    return worker != NULL && pg_load_relaxed(&worker->watched) == fiber;
}

bool pg_sched_is_blocked(pg_fiber *fiber)
{
    pg_worker *worker = pg_peek(&fiber->worker);
    if (!pg_sched_is_running(fiber)) return false;
    if (pg_load_relaxed(&worker->attention) & ATTEND_LOST) return true;
    return pg_the_sched.hooks.is_outside != NULL && pg_the_sched.hooks.is_outside(fiber);
}

void pg_sched_read_stats(pg_sched_stats *stats)
{
    pg_sched *sched = &pg_the_sched;
    memset(stats, 0, sizeof *stats);
    pg_lock_acquire(&sched->lock);
    stats->workers = (uint32_t)pg_load_relaxed(&sched->limit);
    stats->threads = (uint32_t)pg_load_relaxed(&sched->thread_count);
    stats->permits_free = (uint32_t)pg_load_relaxed(&sched->permits_free);
    int length = pg_load_relaxed(&sched->table_length);
    for (int i = 0; i < length; i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        if (worker->alive && worker->sleep != AWAKE) stats->idle++;
        if (worker->alive && worker->sleep == AWAKE && !worker->permit) stats->blocked++;
        stats->spawned += pg_load_relaxed(&worker->spawned);
        stats->finished += pg_load_relaxed(&worker->finished);
        stats->switches += pg_load_relaxed(&worker->switches);
        stats->steals += pg_load_relaxed(&worker->steals);
        stats->parks += pg_load_relaxed(&worker->parks);
        stats->fresh_starts += pg_load_relaxed(&worker->fresh_starts);
        stats->ready += pg_runq_length(&worker->queue) + pg_load_relaxed(&worker->inbox.count) +
                        (pg_load_relaxed(&worker->run_next) != NULL);
    }
    pg_lock_release(&sched->lock);
    stats->spawned += pg_load_relaxed(&sched->foreign_spawned);
    stats->handoffs = pg_load_relaxed(&sched->handoffs);
    stats->starved = pg_load_relaxed(&sched->no_stack.count);
    stats->ready += pg_load_relaxed(&sched->inject.count) + stats->starved;
    stats->fibers = pg_load_relaxed(&sched->fiber_count);
    stats->fibers_pooled = pg_load_relaxed(&sched->free_count);
    pg_lock_acquire(&sched->timers.lock);
    stats->timers = sched->timers.count;
    pg_lock_release(&sched->timers.lock);
    pg_stack_read_stats(&stats->stacks);
}

/* ---- trace ---- */

void pg_sched_set_trace(pg_nanos interval) { pg_store_seqcst(&pg_the_sched.trace_interval, interval); }

/* One write, so that lines of others do not come in between; a long list of workers is cut. */
void pg_trace(pg_nanos now)
{
    enum { ROOM = 2000 };
    pg_sched *sched = &pg_the_sched;
    pg_nanos interval = pg_load_relaxed(&sched->trace_interval);
    pg_sched_stats stats;
    char line[ROOM + 64];
    if (PG_LIKELY(interval == 0) || now < sched->trace_next) return;
    sched->trace_next = now + interval;
    pg_sched_read_stats(&stats);
    int length = snprintf(line, ROOM,
                          "SCHED %lldms: workers=%u idle=%u threads=%u blocked=%u searching=%d ready=%llu timers=%llu "
                          "switches=%llu shared=%zu [",
                          (long long)((now - sched->started_at) / 1000000), stats.workers, stats.idle, stats.threads,
                          stats.blocked, pg_load_relaxed(&sched->searching), (unsigned long long)stats.ready,
                          (unsigned long long)stats.timers, (unsigned long long)stats.switches,
                          (size_t)pg_load_relaxed(&sched->inject.count));
    int slots = pg_load_acquire(&sched->table_length);
    for (int i = 0; i < slots && length < ROOM; i++) {
        pg_worker *worker = pg_load_acquire(&sched->table[i]);
        size_t queued = pg_runq_length(&worker->queue) + pg_load_relaxed(&worker->inbox.count) +
                        (pg_load_relaxed(&worker->run_next) != NULL);
        length += snprintf(line + length, (size_t)(ROOM - length), "%s%zu", i > 0 ? " " : "", queued);
    }
    if (length > ROOM) length = ROOM;
    length += snprintf(line + length, 8, "]\n");
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written; /* nobody is left to tell */
}
