/* Latches, see latch.h. */
#include "sync/latch.h"

#include "sync/internal.h"

void pg_latch_init(pg_latch *latch, int64_t count)
{
    *latch = (pg_latch){.count = count};
    pg_list_init(&latch->waiters);
}

/* Move the waiters of this moment to a list of their own, so that later ones are not caught up in the waking. */
static void take_waiters(pg_latch *latch, pg_node *list)
{
    pg_list_init(list);
    if (pg_list_empty(&latch->waiters)) return;
    *list = latch->waiters;
    list->next->prev = list->prev->next = list;
    pg_list_init(&latch->waiters);
}

static bool wake_some(pg_latch *latch, pg_node *list)
{
    enum { BATCH = 32 };
    pg_task *ready[BATCH];
    int count = 0;
    pg_node *node = NULL;
    pg_object_lock(&latch->lock); /* a waiter that gives up unlinks itself from our list under this lock */
    while (count < BATCH && (node = pg_list_first(list)) != NULL) {
        pg_waiter *waiter = pg_container_of(node, pg_waiter, link);
        pg_waiter_unlink(waiter);
        ready[count] = NULL;
        if (pg_waiter_finish(waiter, 0, true, &ready[count]) && ready[count] != NULL) count++;
    }
    pg_object_unlock(&latch->lock);
    for (int i = 0; i < count; i++) pg_sched_enqueue_last(ready[i]);
    return node != NULL;
}

int pg_latch_add(pg_latch *latch, int64_t change)
{
    pg_node list;
    int64_t count;
    pg_object_lock(&latch->lock);
    if (__builtin_add_overflow(latch->count, change, &count) || count < 0) {
        pg_object_unlock(&latch->lock);
        return PG_EINVAL;
    }
    latch->count = count;
    bool wakes = count == 0 && !pg_list_empty(&latch->waiters);
    if (wakes) take_waiters(latch, &list);
    pg_object_unlock(&latch->lock);
    if (wakes)
        while (wake_some(latch, &list)) {}
    return PG_OK;
}

int pg_latch_wait(pg_latch *latch, pg_nanos deadline)
{
    pg_task *self = pg_sched_self();
    pg_party party;
    pg_waiter waiter = {.party = &party};
    if (self == NULL) return PG_ENOMEM;
    pg_object_lock(&latch->lock);
    if (latch->count == 0 || deadline == PG_NEVER_WAIT) {
        bool zero = latch->count == 0;
        pg_object_unlock(&latch->lock);
        return zero ? PG_OK : PG_EAGAIN;
    }
    pg_party_init(&party, self, false, &waiter, 1);
    pg_waiter_link(&waiter, &latch->waiters, &latch->waiter_count);
    pg_object_unlock(&latch->lock);
    int outcome = pg_sched_park_until(self, &party.done, deadline);
    if (PG_UNLIKELY(outcome != PG_OK)) {
        pg_object_lock(&latch->lock);
        if (pg_load_acquire(&party.done)) outcome = PG_OK;
        else pg_waiter_unlink(&waiter);
        pg_object_unlock(&latch->lock);
    }
    pg_party_end(&party);
    return outcome;
}
