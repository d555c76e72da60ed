/* The rest of the core, for models of tasks (jobs.h) with the monitor: calls that block, and a main thread that waits. */
#ifndef MONITORED_H
#define MONITORED_H

#include "jobs.h"
#include "os/fault.h"

/* ---- what there is instead of the rest of the core ---- */

void pg_overflow_setup(void) {}
void *pg_fault_stack_take(void) { return NULL; }
void pg_fault_stack_drop(void *stack) { (void)stack; }
void pg_stack_cool(void) {}
bool pg_stack_any_warm(void) { return false; }
void pg_watch_worker(pg_worker *worker, pg_nanos now) { (void)worker, (void)now; }
void pg_trace(pg_nanos now) { (void)now; }
ABSENT(bool, pg_os_thread_wants_cpu, (unsigned long id), false)
atomic_int pg_bubble_count;

/* ---- calls that block, and what ends them; the monitor can tell who sits in one ---- */

static char ends[2];
static _Atomic(pg_fiber *) in_call;

static void block(int call)
{
    pg_store_relaxed(&in_call, pg_sched_self()->fiber);
    mc_token_take(&ends[call]);
    pg_store_relaxed(&in_call, NULL);
}
static void unblock(int call) { mc_token_put(&ends[call]); }
static bool is_outside(pg_fiber *fiber) { return pg_load_relaxed(&in_call) == fiber; }
static bool is_busy(void) { return false; }
static const pg_hooks watched = {.is_outside = is_outside, .is_busy = is_busy};

static void setup_watched_by(const pg_hooks *hooks, int workers)
{
    setup(hooks, workers, workers == 1); /* more permits only where there is no GIL */
    pg_store_relaxed(&pg_the_sched.scavenging, true); /* by somebody who never comes to his end */
    pg_store_relaxed(&in_call, NULL);
}

/* ---- the main thread: somebody wakes it ---- */

static bool never_interrupted(void) { return false; }
static bool false_alarm(void) { mc_fail("nobody can wake the main thread, it says, but somebody does"); }
static const pg_hooks awaited = {.thread_interrupted = never_interrupted, .thread_stuck = false_alarm};

#endif
