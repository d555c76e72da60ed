/* Bubbles: tasks with a clock of their own, which moves only when all of them wait for each other or for it. After Go's
 * internal/synctest.
 *
 * Every task of a bubble is running or idle. It is idle from the moment it parks in a durable wait, one that only the
 * bubble itself can end, until it is woken; everything else counts as running: queued, computing, in a blocking call,
 * waiting for something from outside. When none is running the bubble has come to rest. Then its steward, a task of the
 * layer above that stands outside of the bubble, wakes who waits for that, or else moves the clock to the next timer, or
 * else ends the bubble.
 *
 *   the parker                                    the waker
 *   B1 links its waiter, under the object's lock  V1 (objects/task.h) moves the task's state; then, under the
 *   B2 under the bubble's lock: becomes idle         bubble's lock, makes the task running if it is idle
 *   B3 looks whether it has been notified; if
 *      so, becomes running again
 *   B4 calls the steward if nobody runs, parks
 * A waker that comes before B2 has moved the state by then, which B3 sees; one that comes after finds the task idle. So a
 * task that is to go on is counted before the waker, if it is one of the bubble, can become idle itself.
 *
 * Timers of the bubble stand in a heap of its own. They fire from the steward alone.
 *
 * Locks: the bubble's, a leaf. All calls but pg_sched_now come from inside the interpreter.
 *
 * Rejected: a look at all tasks of the bubble whenever one parks (quadratic); counting a woken task when it is enqueued
 * (a task that is notified while it leaves its stack is enqueued only once it has left, and would be missed meanwhile).
 */
#ifndef PG_BUBBLE_H
#define PG_BUBBLE_H

#include "sched/sched.h"

struct pg_bubble {
    uint32_t id;            /* set before publish: never 0, another for each */
    void (*at_rest)(struct pg_bubble *bubble); /* likewise: calls the steward. Called without locks, by a task that runs */
    pg_lock lock;
    uint32_t total, running; /* lock: tasks, and those that are not idle */
    bool attended;          /* lock: the steward is called and not through */
    bool awaited;           /* lock: a task is in pg_bubble_settle */
    pg_task *waiter;        /* lock: likewise, until it is woken */
    atomic_uchar settled;   /* its wait: PG_WAIT_... */
    pg_task *root;          /* lock: NULL once it has ended */
    _Atomic pg_nanos now;   /* steward writes */
    pg_timers timers;
};

/* How many bubbles there are: as long as it is zero nobody need look for his own. */
extern atomic_int pg_bubble_count;

void pg_bubble_init(pg_bubble *bubble, void (*at_rest)(pg_bubble *bubble));
/* No task of it will run any more. */
void pg_bubble_free(pg_bubble *bubble);

/* A task that has not been spawned yet becomes one of the bubble. */
void pg_bubble_adopt(pg_bubble *bubble, pg_task *task);
/* On the task's fiber: first and last thing. */
void pg_bubble_enter(pg_bubble *bubble);
void pg_bubble_leave(void);

/* The bubble of the calling task, or NULL. */
static inline pg_bubble *pg_bubble_current(void)
{
    pg_fiber *fiber = PG_LIKELY(pg_load_relaxed(&pg_bubble_count) == 0) ? NULL : pg_sched_fiber();
    return fiber != NULL ? fiber->bubble : NULL;
}
/* The id that what the caller makes gets. */
static inline uint32_t pg_bubble_birthplace(void)
{
    pg_fiber *fiber = PG_LIKELY(pg_load_relaxed(&pg_bubble_count) == 0) ? NULL : pg_sched_fiber();
    return fiber != NULL ? fiber->birthplace : 0;
}
static inline pg_timers *pg_bubble_timers(pg_bubble *bubble) { return bubble != NULL ? &bubble->timers : NULL; }

/* The fiber's task is about to park (B2 to B4). */
void pg_bubble_rest(pg_fiber *fiber);

/* The calling task waits until all others of its bubble are idle. PG_EINVAL: another one waits for that; else what
 * pg_sched_park_until says. */
int pg_bubble_settle(const void *note);

/* ---- for the steward ---- */
enum pg_bubble_state {
    PG_BUBBLE_BUSY, /* somebody runs: the steward is through, and will be called again */
    PG_BUBBLE_WOKEN, /* who waits for the others to be idle has been woken */
    PG_BUBBLE_IDLE,
};
enum pg_bubble_state pg_bubble_look(pg_bubble *bubble);
bool pg_bubble_is_busy(pg_bubble *bubble);
/* There is nothing left to do: false when somebody runs again, else the steward is through. */
bool pg_bubble_retire(pg_bubble *bubble);
/* In a fork's child: the surviving task, if it is in a bubble, is the only one there. */
void pg_bubble_after_fork(pg_fiber *survivor);

#endif
