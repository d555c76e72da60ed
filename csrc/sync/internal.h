/* What chan.c lends to select.c. */
#ifndef PG_SYNC_INTERNAL_H
#define PG_SYNC_INTERNAL_H

#include "sync/chan.h"

/* Without waiting, under the lock: PG_OK, PG_ECLOSED or PG_EAGAIN. *ready as for pg_waiter_finish. */
int pg_chan_send_locked(pg_chan *chan, uintptr_t value, pg_task **ready);
int pg_chan_recv_locked(pg_chan *chan, uintptr_t *value, pg_task **ready);
void pg_chan_link(pg_chan *chan, pg_waiter *waiter, bool is_send);

static inline void pg_enqueue_if(pg_task *ready)
{
    if (ready != NULL) pg_sched_enqueue(ready);
}

#endif
