/* What chan.c lends to the others. */
#ifndef PG_SYNC_INTERNAL_H
#define PG_SYNC_INTERNAL_H

#include "sync/chan.h"

/* An object's lock. Where the layer above lets one caller in at a time it is not needed, and its two locked instructions
 * would be a quarter of what an operation on a channel costs. */
static inline void pg_object_lock(pg_lock *lock)
{
    if (PG_UNLIKELY(!pg_sched_is_serial)) pg_lock_acquire(lock);
}
static inline void pg_object_unlock(pg_lock *lock)
{
    if (PG_UNLIKELY(!pg_sched_is_serial)) pg_lock_release(lock);
}

/* Without waiting, under the lock: PG_OK, PG_ECLOSED or PG_EAGAIN. *ready as for pg_waiter_finish. */
int pg_chan_send_locked(pg_chan *chan, uintptr_t value, pg_task **ready);
int pg_chan_recv_locked(pg_chan *chan, uintptr_t *value, pg_task **ready);
void pg_chan_link(pg_chan *chan, pg_waiter *waiter, bool is_send);

/* Wait in `list` with a record that says `value`. The object's lock is held on entry, not on exit. Any outcome but PG_OK:
 * the record is out of the list, and nobody had ended the wait. */
int pg_wait_in(pg_lock *lock, pg_node *list, uint32_t *counter, uintptr_t value, const pg_patience *patience);

static inline void pg_enqueue_if(pg_task *ready)
{
    if (ready != NULL) pg_sched_enqueue(ready);
}

#endif
