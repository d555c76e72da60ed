/* A task as the scheduler sees it: something to run, a wake-up state, and the queue link.
 *
 * Three kinds share the record: work that runs on a fiber (Python tasks, native tasks), the same in a bubble, and the
 * stand-in of an ordinary OS thread that waits on an object (the main thread included), which never enters a queue.
 *
 * The wake-up protocol, the only one there is. `state` holds:
 *
 *      FRESH     created, in no queue or in its first; has no fiber yet, nobody can wake it
 *      ACTIVE    in a queue, or run by a worker (its registers and stack belong to that worker)
 *      NOTIFIED  active, and somebody woke it meanwhile: its next park returns at once
 *      PARKED    off its stack, only a wake can bring it back
 *      CALLED    threads only: won by a waker that has not let go of it yet; CALLED_AGAIN: and woken by another
 *      DONE      ended
 *
 *   the waiter                                   a waker
 *   W1 link a waiter record into the object      V1 under the object's lock: unlink the record, fill in the
 *      (under the object's lock), unlock            outcome, pg_task_wake(task)
 *   W2 leave the stack, then CAS ACTIVE ->       V2 unlock
 *      PARKED; if NOTIFIED: -> ACTIVE, enqueue   V3 if V1 said so (it moved PARKED -> ACTIVE), enqueue the task
 *   W3 on return, look at the record again
 *      and loop if nothing happened
 *
 * Both sides meet in `state` alone: either the waker's CAS sees PARKED and enqueues, or the parker's CAS sees
 * NOTIFIED and does. A wake may be stale (a timer and a sender at once): every park stands in a loop on its
 * predicate. The waker touches the task for the last time in V1 unless it has won the right to enqueue it, so a task
 * that returns from its wait and ends takes nothing from under a waker.
 *
 * W3 looks without the lock, so a wake that leaves the state as it is must still not miss the look that follows. The
 * only such wake is that of a task NOTIFIED already: the waker writes the outcome and reads the state, the waiter
 * takes NOTIFIED back and reads the outcome; a sequentially consistent fence stands in the middle of each
 * (pg_task_wake, pg_task_clear_notification). To be resumed writes nothing: were READY a state of its own, every
 * resume would need that fence.
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
    PG_TASK_ACTIVE,
    PG_TASK_NOTIFIED,
    PG_TASK_PARKED,
    PG_TASK_CALLED,
    PG_TASK_CALLED_AGAIN,
    PG_TASK_DONE,
};

enum pg_task_kind {
    PG_KIND_FIBER,  /* runs on a fiber */
    PG_KIND_THREAD, /* stand-in of an ordinary OS thread */
    PG_KIND_BUBBLED, /* runs on a fiber, in a bubble (sched/bubble.h), which is told when the task is woken */
};

typedef struct pg_task {
    struct pg_task *next;             /* queue link: whoever owns the queue */
    atomic_uint state;                /* atomic; for a thread also the futex word it sleeps on */
    uint16_t stack_units;             /* set before publish, as is kind: the stack it asks for; 0: whatever is at hand */
    uint8_t kind;
    atomic_uchar alarm;               /* set by anybody before a wake: the waiter is to ask whether it goes on waiting */
    pg_fiber *fiber;                  /* the running worker; NULL before the first run and after the end */
    void (*run)(struct pg_task *task); /* set before publish; called on a fiber */
} pg_task;

static inline void pg_task_init(pg_task *task, void (*run)(pg_task *))
{
    task->next = NULL;
    pg_store_relaxed(&task->state, PG_TASK_FRESH);
    task->kind = PG_KIND_FIBER;
    task->stack_units = 0;
    pg_store_relaxed(&task->alarm, 0);
    task->fiber = NULL;
    task->run = run;
}

enum { PG_STACK_UNIT = 64 * 1024 }; /* bytes */
static inline size_t pg_task_stack_size(const pg_task *task) { return (size_t)task->stack_units * PG_STACK_UNIT; }

/* Step V1. True: the caller now owns the task and must enqueue it, after it has released its locks. */
bool pg_task_wake(pg_task *task);
/* Called in V1 for tasks of a bubble, after the state has been moved: at the latest then the task is not idle any more. */
extern void (*pg_task_stirred)(pg_task *task);
/* V3 for a thread, the waker's last touch: it goes on as soon as its state says so. */
void pg_task_let_go(pg_task *thread);
void pg_task_clear_notification(pg_task *self);
/* The active waiter itself: whether it was woken since it last asked. */
static inline bool pg_task_take_notification(pg_task *self)
{
    if (PG_LIKELY(pg_load_acquire(&self->state) != PG_TASK_NOTIFIED)) return false;
    pg_task_clear_notification(self);
    return true;
}

#endif
