/* Semaphores, see semaphore.h. */
#include "sync/semaphore.h"

#include "sync/internal.h"

void pg_semaphore_init(pg_semaphore *semaphore, int64_t available)
{
    *semaphore = (pg_semaphore){.available = available};
    pg_list_init(&semaphore->waiters);
}

/* The waiter in front, if there is enough for it; it then has its permits. */
static pg_waiter *pop_served(pg_semaphore *semaphore)
{
    pg_node *node = pg_list_first(&semaphore->waiters);
    pg_waiter *waiter = node != NULL ? pg_container_of(node, pg_waiter, link) : NULL;
    if (waiter == NULL || (int64_t)waiter->value > semaphore->available) return NULL;
    semaphore->available -= (int64_t)waiter->value;
    pg_waiter_unlink(waiter);
    return waiter;
}

/* Serve some of those in front; false when no more can be. The lock is held on entry, not on exit. */
static bool serve_some(pg_semaphore *semaphore)
{
    enum { BATCH = 32 };
    pg_task *ready[BATCH];
    int count = 0;
    pg_waiter *waiter = NULL;
    while (count < BATCH && (waiter = pop_served(semaphore)) != NULL) {
        ready[count] = NULL;
        if (pg_waiter_finish(waiter, 0, true, &ready[count]) && ready[count] != NULL) count++;
    }
    pg_object_unlock(&semaphore->lock);
    if (count == 1) pg_sched_enqueue(ready[0]);
    else
        for (int i = 0; i < count; i++) pg_sched_enqueue_last(ready[i]); /* in their order */
    return waiter != NULL;
}

/* Likewise all of them. */
static void serve(pg_semaphore *semaphore)
{
    while (serve_some(semaphore)) pg_object_lock(&semaphore->lock);
}

int pg_semaphore_acquire(pg_semaphore *semaphore, int64_t count, const pg_patience *patience)
{
    pg_object_lock(&semaphore->lock);
    bool enough = semaphore->available >= count && pg_list_empty(&semaphore->waiters);
    if (enough) semaphore->available -= count;
    if (enough || patience->deadline == PG_NEVER_WAIT) {
        pg_object_unlock(&semaphore->lock);
        return enough ? PG_OK : PG_EAGAIN;
    }
    int outcome =
        pg_wait_in(&semaphore->lock, &semaphore->waiters, &semaphore->waiter_count, (uintptr_t)count, patience);
    if (PG_UNLIKELY(outcome != PG_OK)) { /* those behind may have waited only for this one */
        pg_object_lock(&semaphore->lock);
        serve(semaphore);
    }
    return outcome;
}

int pg_semaphore_release(pg_semaphore *semaphore, int64_t count, int64_t limit)
{
    int64_t available;
    pg_object_lock(&semaphore->lock);
    if (__builtin_add_overflow(semaphore->available, count, &available) || available > limit) {
        pg_object_unlock(&semaphore->lock);
        return PG_EINVAL;
    }
    semaphore->available = available;
    serve(semaphore);
    return PG_OK;
}
