/* A task as the scheduler sees it: something to run, a wake-up state, and the queue link.
 *
 * Three kinds share the record: work that runs on a fiber (Python tasks, native tasks), and the stand-in of an ordinary
 * OS thread that waits on an object (the main thread included), which never enters a queue.
 *
 * The wake-up protocol, the only one there is. `state` holds:
 *
 *      FRESH     created, in no queue or in a queue, has no fiber yet
 *      READY     in a queue, has a fiber
 *      RUNNING   a worker runs it (its registers and stack belong to that worker)
 *      NOTIFIED  running, and somebody woke it meanwhile: its next park returns at once
 *      PARKED    off its stack, only a wake can bring it back
 *      DONE      ended
 *
 *   the waiter                                   a waker
 *   W1 link a waiter record into the object      V1 under the object's lock: unlink the record, fill in the
 *      (under the object's lock), unlock            outcome, pg_task_wake(task)
 *   W2 leave the stack, then CAS RUNNING ->      V2 unlock
 *      PARKED; if NOTIFIED: -> READY, enqueue    V3 if V1 said so (it moved PARKED -> READY), enqueue the task
 *   W3 on return, look at the record again
 *      under the lock; loop if nothing happened
 *
 * Both sides meet in `state` alone: either the waker's CAS sees PARKED and enqueues, or the parker's CAS sees
 * NOTIFIED and does. A wake may be stale (a timer and a sender at once): every park stands in a loop on its
 * predicate. The waker touches the task for the last time in V1 unless it has won the right to enqueue it, so a task
 * that returns from its wait and ends takes nothing from under a waker.
 */
#ifndef PG_TASK_H
#define PG_TASK_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/list.h"

typedef struct pg_fiber pg_fiber;
typedef struct pg_worker pg_worker;

enum {
    PG_TASK_FRESH = 0,
    PG_TASK_READY,
    PG_TASK_RUNNING,
    PG_TASK_NOTIFIED,
    PG_TASK_PARKED,
    PG_TASK_DONE,
};

enum pg_task_kind {
    PG_KIND_FIBER,  /* runs on a fiber */
    PG_KIND_THREAD, /* stand-in of an ordinary OS thread */
};

typedef struct pg_task {
    struct pg_task *next;             /* queue link: whoever owns the queue */
    atomic_uint state;                /* atomic; for a thread also the futex word it sleeps on */
    uint8_t kind;                     /* set before publish, as is stack_size */
    uint32_t stack_size;              /* usable bytes it asks for; 0: whatever is at hand */
    struct pg_party *party;           /* the running worker: what it waits with (sync/chan.h), while it waits */
    pg_fiber *fiber;                  /* the running worker; NULL before the first run and after the end */
    void (*run)(struct pg_task *task); /* set before publish; called on a fiber */
} pg_task;

static inline void pg_task_init(pg_task *task, void (*run)(pg_task *))
{
    task->next = NULL;
    pg_store_relaxed(&task->state, PG_TASK_FRESH);
    task->kind = PG_KIND_FIBER;
    task->stack_size = 0;
    task->party = NULL;
    task->fiber = NULL;
    task->run = run;
}

/* Step V1. True: the caller now owns the task and must enqueue it, after it has released its locks. */
bool pg_task_wake(pg_task *task);

#endif
