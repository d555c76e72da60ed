/* Mutual exclusion, see mutex.h. */
#include "sync/mutex.h"

#include "sync/internal.h"

void pg_mutex_init(pg_mutex *mutex)
{
    *mutex = (pg_mutex){.waiter_count = 0};
    pg_list_init(&mutex->waiters);
}

/* Under the lock: take the mutex if it is free, else see to it that its holder will look for waiters. */
static bool take_or_mark(pg_mutex *mutex)
{
    for (;;) {
        unsigned seen = PG_MUTEX_HELD;
        if (pg_mutex_try(mutex)) return true;
        if (pg_cas_acqrel(&mutex->state, &seen, PG_MUTEX_CONTENDED) || seen == PG_MUTEX_CONTENDED) return false;
    }
}

int pg_mutex_acquire(pg_mutex *mutex, const pg_patience *patience)
{
    if (PG_LIKELY(pg_mutex_try(mutex))) return PG_OK;
    if (patience->deadline == PG_NEVER_WAIT) return PG_EAGAIN;
    pg_object_lock(&mutex->lock);
    if (take_or_mark(mutex)) {
        pg_object_unlock(&mutex->lock);
        return PG_OK;
    }
    return pg_wait_in(&mutex->lock, &mutex->waiters, &mutex->waiter_count, 0, patience);
}

int pg_mutex_release_slow(pg_mutex *mutex)
{
    pg_task *ready = NULL;
    pg_object_lock(&mutex->lock);
    if (!pg_mutex_is_held(mutex)) {
        pg_object_unlock(&mutex->lock);
        return PG_EINVAL;
    }
    pg_node *node = pg_list_first(&mutex->waiters);
    if (node != NULL) {
        pg_waiter *waiter = pg_container_of(node, pg_waiter, link);
        pg_waiter_unlink(waiter);
        pg_waiter_finish(waiter, 0, true, &ready); /* hands the mutex over: it stays held */
    }
    if (pg_list_empty(&mutex->waiters))
        pg_store_release(&mutex->state, node != NULL ? PG_MUTEX_HELD : PG_MUTEX_FREE); /* pairs with pg_mutex_try */
    pg_object_unlock(&mutex->lock);
    pg_enqueue_if(ready);
    return PG_OK;
}
