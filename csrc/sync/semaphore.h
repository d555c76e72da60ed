/* A number of permits that are taken and given back, some at a time, first come first served.
 *
 * Whoever asks for many permits is not overtaken by those who ask for few: newcomers wait behind the waiter in front
 * although there is enough for them. When it gives up, those behind it that fit go on.
 *
 * Locks: one per semaphore; below it only task states.
 */
#ifndef PG_SEMAPHORE_H
#define PG_SEMAPHORE_H

#include "sync/chan.h"

typedef struct pg_semaphore {
    pg_lock lock;
    uint32_t waiter_count; /* lock, as everything below */
    int64_t available;
    pg_node waiters;       /* first in, first out; each one's value is how many permits it asks for */
} pg_semaphore;

void pg_semaphore_init(pg_semaphore *semaphore, int64_t available);
/* PG_OK; PG_EAGAIN with the deadline PG_NEVER_WAIT, else what pg_sched_park says. count must not be negative. */
int pg_semaphore_acquire(pg_semaphore *semaphore, int64_t count, const pg_patience *patience);
/* PG_EINVAL, and nothing changed, when more than `limit` permits would be free. */
int pg_semaphore_release(pg_semaphore *semaphore, int64_t count, int64_t limit);

#endif
