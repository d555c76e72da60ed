/* Fail points: named places where a test makes the system refuse something, or holds a thread up for a moment.
 *
 * Only a build with -DPG_FAILPOINTS has them. In all others pg_fails() is the constant 0 and pg_delay() is empty, so they
 * may stand on any path. Hits are counted whether or not a point is armed: a test sees that what it armed was reached.
 *
 * Armed by name, from the environment when the core is loaded, or by pygo_failpoints_arm() (for Python: through ctypes):
 *
 *      PYGO_FAILPOINTS="timer_heap=after:3,times:1;slots_copied=every:5,us:50"
 *
 *      after:N   the first N hits pass (0)
 *      every:M   then each M-th counts, the next one first (1)
 *      times:K   so often at most; 0: without end (0)
 *      us:T      of delays: sleep so long; 0: only offer the CPU to others (0)
 *      errno:E   of refusals of the system: the code it gives (what its manual names first)
 *
 * With PYGO_FAILPOINTS_REPORT in the environment, the counts go to standard error at the end of the process.
 *
 * `memory` stands for every point that refuses memory, all counted together: armed with after:N,times:1 for N = 0, 1, 2 ...
 * it makes each allocation fail once.
 */
#ifndef PG_FAILPOINT_H
#define PG_FAILPOINT_H

#include "base/base.h"

/* What is refused, and what its caller then does. Docs: docs/testing.md, "Fail points", a test compares. */
#define PG_FAIL_POINTS(POINT)                                                                                         \
    POINT(memory)         /* all of the next group at once */                                                         \
    /* memory */                                                                                                      \
    POINT(pages_reserve)  /* mmap of stacks, pools of tasks, signal stacks */                                         \
    POINT(stack_list)     /* the list of unused stacks of a class */                                                  \
    POINT(thread_start)   /* pthread_create, and what is allocated for it */                                          \
    POINT(thread_record)  /* what stands for an OS thread that waits */                                               \
    POINT(worker_record)                                                                                              \
    POINT(inject_block)   /* of the shared queue */                                                                   \
    POINT(timer_heap)                                                                                                 \
    POINT(chan_ring)                                                                                                  \
    POINT(select_waiters) /* of a select with many cases */                                                           \
    POINT(thread_state)   /* PyThreadState_New for a new fiber */                                                     \
    POINT(task_record)                                                                                                \
    POINT(task_rare)      /* names, callbacks, bubbles, joiners of tasks */                                           \
    POINT(task_arguments)                                                                                             \
    POINT(task_list)      /* all_tasks, waits */                                                                      \
    POINT(alarm)          /* timers, tickers, after */                                                                \
    POINT(select_cases)                                                                                               \
    /* other refusals */                                                                                              \
    POINT(pages_guard)    /* both kinds of guards */                                                                  \
    POINT(pages_advice)   /* madvise that is advice only */                                                           \
    POINT(pages_free)     /* munmap: ENOMEM */                                                                        \
    POINT(futex_wait)     /* returns early: EINTR, or errno:11 for EAGAIN */                                          \
    POINT(thread_count)   /* /proc/self/stat cannot be read */                                                        \
    POINT(swap_probe)     /* the interpreter asks for something while switches are tried, at import */

#define PG_FIRST_MEMORY_POINT PG_FP_pages_reserve
#define PG_LAST_MEMORY_POINT PG_FP_select_cases

/* Where a moment decides. */
#define PG_DELAY_POINTS(POINT)                                                                                        \
    POINT(linked_to_park)     /* a waiter is linked into its object and unlocked, and has not parked */               \
    POINT(left_to_parked)     /* a task has left its stack, and its state does not say so yet */                      \
    POINT(thread_to_parked)   /* the same of an ordinary thread */                                                    \
    POINT(parked_to_sleep)    /* its state says so, and it is not in its futex */                                     \
    POINT(won_to_pushed)      /* a waker has won a task, which is in no queue */                                      \
    POINT(let_go_to_futex)    /* a waker has let go of a thread, which may be gone, and wakes its futex */            \
    POINT(ending_to_ended)    /* a waiter is done, and its waker has not let go of its record */                      \
    POINT(fired_to_pushed)    /* timers have fired, their tasks are in no queue */                                    \
    POINT(slots_copied)       /* a thief (or drainer) has read slots of a ring, and not taken them */                 \
    POINT(taken_to_spilled)   /* half of a ring is in the hands of its owner */                                       \
    POINT(pushed_to_look)     /* a task is in the shared queue, its pusher has not looked whom to wake */             \
    POINT(handed_off)         /* a permit has gone from a worker that keeps its queue */                              \
    POINT(lain_down)          /* a worker is in the idle list, and has not looked once more */                        \
    POINT(permit_to_woken)    /* a worker has been given a permit, and sleeps */                                      \
    POINT(monitor_to_sleep)   /* the monitor has said that it sleeps, and does not */                                 \
    POINT(ended_to_picked)    /* a task has ended, its fiber goes on with another or to the pool */

#define PG_NAME_POINT(name) PG_FP_##name,
enum pg_failpoint { PG_FAIL_POINTS(PG_NAME_POINT) PG_DELAY_POINTS(PG_NAME_POINT) PG_FAILPOINT_COUNT };
#undef PG_NAME_POINT

#ifdef PG_FAILPOINTS

/* Nonzero when it is to fail: the errno, if one was asked for, else -1. */
int pg_failpoint_fails(enum pg_failpoint point);
void pg_failpoint_delay(enum pg_failpoint point);
#define pg_fails(name) PG_UNLIKELY(pg_failpoint_fails(PG_FP_##name) != 0)
#define pg_fails_with(name) pg_failpoint_fails(PG_FP_##name)
#define pg_delay(name) pg_failpoint_delay(PG_FP_##name)

#define PG_EXPORTED __attribute__((visibility("default")))
/* In the syntax above; what is armed already stays so. -1: there is an error in it, and nothing was armed. */
PG_EXPORTED int pygo_failpoints_arm(const char *text);
/* And count from zero. */
PG_EXPORTED void pygo_failpoints_disarm(void);
/* How often the point was passed, and how often it failed or delayed, since it was last armed or disarmed; -1: no such
 * point. */
PG_EXPORTED long pygo_failpoints_hits(const char *name);
PG_EXPORTED long pygo_failpoints_done(const char *name);
/* NULL behind the last. */
PG_EXPORTED const char *pygo_failpoints_name(int index);
PG_EXPORTED int pygo_failpoints_is_delay(int index);

#else
#define pg_fails(name) 0
#define pg_fails_with(name) 0
#define pg_delay(name) ((void)0)
#endif

#endif
