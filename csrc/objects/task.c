/* The waker's half of the wake-up protocol, see task.h. */
#include "objects/task.h"

bool pg_task_wake(pg_task *task)
{
    unsigned seen = pg_load_acquire(&task->state);
    for (;;) {
        switch (seen) {
        case PG_TASK_PARKED: /* pairs with the parker's CAS: its stack is completely saved */
            if (pg_cas_acqrel(&task->state, &seen, PG_TASK_READY)) return true;
            break;
        case PG_TASK_RUNNING:
            if (pg_cas_acqrel(&task->state, &seen, PG_TASK_NOTIFIED)) return false;
            break;
        case PG_TASK_READY:
        case PG_TASK_NOTIFIED: return false; /* it will look at its predicate anyway */
        default: pg_fatal("task %p woken in state %u", (void *)task, seen);
        }
    }
}
