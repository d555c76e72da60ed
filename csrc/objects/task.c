/* The wake-up protocol, see task.h. */
#include "objects/task.h"

void (*pg_task_stirred)(pg_task *task);

static inline bool wake(pg_task *task, unsigned won)
{
    unsigned seen = PG_TASK_PARKED; /* the usual case; pairs with the parker's CAS: its stack is completely saved */
    if (PG_LIKELY(pg_cas_acqrel(&task->state, &seen, won))) return true;
    pg_fence_seqcst(); /* pairs with that of pg_task_clear_notification */
    seen = pg_load_acquire(&task->state);
    for (;;) {
        switch (seen) {
        case PG_TASK_PARKED:
            if (pg_cas_acqrel(&task->state, &seen, won)) return true;
            break;
        case PG_TASK_ACTIVE:
            if (pg_cas_acqrel(&task->state, &seen, PG_TASK_NOTIFIED)) return false;
            break;
        case PG_TASK_CALLED:
            if (pg_cas_acqrel(&task->state, &seen, PG_TASK_CALLED_AGAIN)) return false;
            break;
        case PG_TASK_NOTIFIED:
        case PG_TASK_CALLED_AGAIN: return false; /* it will look at its predicate anyway */
        default: pg_fatal_at("pg_task_wake", "task %p woken in state %u", (void *)task, seen);
        }
    }
}

bool pg_task_wake(pg_task *task)
{
    if (PG_LIKELY(task->kind == PG_KIND_FIBER)) return wake(task, PG_TASK_ACTIVE);
    if (task->kind == PG_KIND_THREAD) return wake(task, PG_TASK_CALLED);
    bool won = wake(task, PG_TASK_ACTIVE);
    pg_task_stirred(task);
    return won;
}

void pg_task_let_go(pg_task *thread)
{
    unsigned seen = PG_TASK_CALLED;
    if (pg_cas_acqrel(&thread->state, &seen, PG_TASK_ACTIVE)) return;
    pg_check(seen == PG_TASK_CALLED_AGAIN);
    pg_store_release(&thread->state, PG_TASK_NOTIFIED);
}

void pg_task_clear_notification(pg_task *self)
{
    pg_store_relaxed(&self->state, PG_TASK_ACTIVE); /* wakers leave NOTIFIED alone, so nothing is overwritten */
    pg_fence_seqcst(); /* pairs with that of pg_task_wake */
}
