/* Timers: a 4-ary heap of deadlines with removal from the middle.
 *
 * A source: it returns what is due and schedules nothing. One heap serves the process, and each bubble (sched/bubble.h)
 * has one on a clock of its own. Its lock is a leaf, except that a timer's fire function runs under it, so that
 * pg_timer_stop, once it returns, means "not firing any more". A fire function therefore only flips a state and says
 * whether its task is to be enqueued by the caller afterwards.
 */
#ifndef PG_TIMER_H
#define PG_TIMER_H

#include "base/atomic.h"
#include "base/base.h"
#include "os/os.h"

typedef struct pg_task pg_task;

typedef struct pg_timers pg_timers;

typedef struct pg_timer {
    pg_timers *home;   /* set before the start, for the scheduler: the heap it belongs to, NULL: the process's */
    pg_nanos deadline; /* lock, while it is pending, as in the heap */
    pg_nanos period;   /* set before the start. 0: fires once; else again and again, leaving out what is past */
    uint32_t entry;    /* its number in pg_timers.entries + 1, 0 when not pending: lock */
    uint32_t era;      /* of the heap that the number counts in: lock */
    /* Returns the task to make ready, or NULL. Called under the heap's lock. */
    pg_task *(*fire)(struct pg_timer *timer);
} pg_timer;

/* A timer lies on a page of its own, that of the stack that waits for it. So to move places of the heap about touches no
 * timer: neither to compare deadlines nor to note where a timer stands now. */
typedef struct pg_timer_place {
    pg_nanos deadline;
    uint32_t entry;
} pg_timer_place;

typedef struct pg_timer_entry {
    pg_timer *timer;
    uint32_t at; /* its place in the heap; of an unused entry: the next one, + 1 */
} pg_timer_entry;

struct pg_timers {
    pg_lock lock;
    pg_timer_place *heap;           /* lock; on a boundary of four places */
    pg_timer_entry *entries;        /* lock; in the same block of memory, behind the heap */
    uint32_t count, capacity;       /* lock; of places, and of entries */
    uint32_t used, unused;          /* lock; entries that ever had a timer; the first of those that have none any more, + 1 */
    uint32_t era;                   /* changes when all pending timers are forgotten at once */
    _Atomic pg_nanos next_deadline; /* earliest pending, or PG_FOREVER: written under the lock, read by anyone */
};

/* Under the lock: the one that stands there in the heap. */
static inline pg_timer *pg_timer_at(const pg_timers *timers, uint32_t at) { return timers->entries[timers->heap[at].entry].timer; }

void pg_timers_init(pg_timers *timers);
void pg_timers_free(pg_timers *timers);
/* In a fork's child: no timer is pending any more. Touches none, and leaves the old heap: another thread may have been
 * growing it. */
void pg_timers_forget(pg_timers *timers);

/* Start a stopped timer. *earliest is set when it became the first to fire, so that a sleeper must be told. PG_ENOMEM
 * when the heap cannot grow. */
int pg_timer_start(pg_timers *timers, pg_timer *timer, pg_nanos deadline, bool *earliest);
/* Returns whether it was pending: then it will not fire. */
bool pg_timer_stop(pg_timers *timers, pg_timer *timer);
/* *deadline is filled in when it is. */
bool pg_timer_is_pending(pg_timers *timers, const pg_timer *timer, pg_nanos *deadline);
/* Fire at most `limit` timers due at `now`; the tasks to enqueue go to `ready`, their number is returned. */
size_t pg_timers_expire(pg_timers *timers, pg_nanos now, pg_task **ready, size_t limit);
/* The earliest deadline among those that count, PG_FOREVER if none does. `counts` runs under the lock. */
pg_nanos pg_timers_earliest(pg_timers *timers, bool (*counts)(const pg_timer *timer));
/* Stop one of those that `chosen` picks; NULL when there is none. `chosen` runs under the lock. */
pg_timer *pg_timers_take(pg_timers *timers, bool (*chosen)(const pg_timer *timer));
static inline bool pg_timers_due(pg_timers *timers, pg_nanos now)
{
    return pg_load_seqcst(&timers->next_deadline) <= now;
}

#endif
