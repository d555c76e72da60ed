/* Mutual exclusion between tasks and threads, first come first served.
 *
 * Free and without contention it is one word and a compare-and-swap. Under contention the one who releases hands the
 * mutex to the waiter in front: it never becomes free while somebody waits, so nobody overtakes and nobody starves.
 *
 * Invariants, under `lock`:
 *      - while a waiter is linked, the state is CONTENDED;
 *      - only a holder of `lock` moves the state to or from CONTENDED. (It may be so without waiters, when they have
 *        given up.)
 *
 * Rejected: barging, where a running task may take a mutex that was just released. It saves switches, but a task that
 * takes the mutex in a loop then keeps it from all others until the scheduler takes the interpreter away.
 */
#ifndef PG_MUTEX_H
#define PG_MUTEX_H

#include "sync/chan.h"

enum { PG_MUTEX_FREE, PG_MUTEX_HELD, PG_MUTEX_CONTENDED };

typedef struct pg_mutex {
    atomic_uint state;     /* atomic */
    pg_lock lock;          /* covers the fields below */
    uint32_t waiter_count;
    pg_node waiters;       /* first in, first out */
} pg_mutex;

void pg_mutex_init(pg_mutex *mutex);

static inline bool pg_mutex_try(pg_mutex *mutex)
{
    unsigned expected = PG_MUTEX_FREE;
    return pg_cas_acqrel(&mutex->state, &expected, PG_MUTEX_HELD);
}

static inline bool pg_mutex_is_held(pg_mutex *mutex) { return pg_load_acquire(&mutex->state) != PG_MUTEX_FREE; }

/* PG_OK: the caller holds it. PG_EAGAIN with the deadline PG_NEVER_WAIT, else what pg_sched_park says. */
int pg_mutex_acquire(pg_mutex *mutex, const pg_patience *patience);

int pg_mutex_release_slow(pg_mutex *mutex);
/* PG_EINVAL, and nothing changed, when it is free. Any task or thread may release it. */
static inline int pg_mutex_release(pg_mutex *mutex)
{
    unsigned expected = PG_MUTEX_HELD;
    if (PG_LIKELY(pg_cas_acqrel(&mutex->state, &expected, PG_MUTEX_FREE))) return PG_OK;
    return pg_mutex_release_slow(mutex);
}

#endif
