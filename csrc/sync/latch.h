/* Waiting for a count to reach zero: what joins (a count of one) and wait groups are made of.
 *
 * Locks: one per latch; below it only task states.
 */
#ifndef PG_LATCH_H
#define PG_LATCH_H

#include "base/list.h"
#include "sched/sched.h"

typedef struct pg_latch {
    pg_lock lock;
    uint32_t waiter_count; /* lock, as everything below */
    int64_t count;
    pg_node waiters;
} pg_latch;

void pg_latch_init(pg_latch *latch, int64_t count);
/* PG_EINVAL, and nothing changed, when the count would become negative or overflow. At zero all waiters are woken. */
int pg_latch_add(pg_latch *latch, int64_t change);
/* PG_OK at once when the count is zero; else what pg_sched_park says, PG_EAGAIN with PG_NEVER_WAIT. */
int pg_latch_wait(pg_latch *latch, pg_nanos deadline);

#endif
