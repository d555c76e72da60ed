/* The scheduler: many tasks on few OS threads.
 *
 * Words
 *      task      something to run (objects/task.h)
 *      fiber     a stack that a started task runs on, with what the interpreter keeps per thread
 *      worker    an OS thread with a run queue of its own, able to carry fibers
 *      permit    the right to run tasks. As many exist as tasks may run at once: one per CPU in native use (and with a
 *                free-threaded interpreter), exactly one under a GIL. There it is the baton that workers pass on: a
 *                worker without it sleeps here, not in the interpreter's queue for the GIL.
 *      monitor   a thread that watches the permit holders and fires timers nobody else looks at
 *      thread    any other OS thread, the main thread included; it waits on a stand-in task and never runs tasks
 *
 * Rejected: the main thread as a worker while it waits. A task that then blocks in C on the main thread (time.sleep,
 * a driver call) keeps the main stack, which may resume only there, from its own timeout, its Ctrl-C and its result,
 * and nothing can take the call away from the thread. Instead both sides of a hand-over spin for some microseconds.
 *
 * Life of a permit
 *      P1 a worker that runs tasks has one, or is LOST: the monitor took it away while its task sat in a blocking call
 *         or computed for too long. It finds out at its next scheduling point. Having two runners for a moment is
 *         harmless; the permit bounds concurrency, it protects nothing.
 *      P2 a worker gives its permit up when it finds nothing to do; then, sequentially consistent, it looks at all
 *         queues again before it sleeps.
 *      P3 whoever makes a task ready stores it in a queue first, then, sequentially consistent, looks whether a permit
 *         is free; if so it takes one and wakes a worker with it. P2 and P3 cannot miss each other.
 *      P4 a sleeping worker is woken only with a permit granted (or to retire, or by its own timeout).
 *
 * Locks: sched.lock covers permits, the lists of sleeping workers and the table of workers. Order: the monitor's
 * look_lock; sched.lock or fiber_lock; an injection queue's lock. The timers' lock is a leaf above nothing but task
 * states and a bubble's lock, which is one. None is held across a switch or while the interpreter is entered.
 */
#ifndef PG_SCHED_H
#define PG_SCHED_H

#include "machine/stack.h"
#include "objects/runq.h"
#include "objects/task.h"
#include "sources/timer.h"

enum {
    PG_MAX_WORKERS = 256,  /* permits */
    PG_MAX_THREADS = 1024, /* worker threads, those held in blocking calls included */
};

/* How the layer above (the interpreter) takes part; every pointer may be NULL. */
typedef struct pg_hooks {
    size_t fiber_extra; /* bytes per fiber for the layer above, in the stack's top page */
    /* A new fiber's extra area is ready to be set up: PG_OK or PG_ENOMEM. No permit needed; any worker. */
    int (*fiber_init)(pg_fiber *fiber);
    /* The fiber goes away; it runs nothing. Called by a task. */
    void (*fiber_fini)(pg_fiber *fiber);
    /* Whether fibers can be taken apart at all. */
    bool (*fiber_fini_possible)(void);
    /* The scavenger, inside the interpreter: give back memory that was not needed since the last call. True: some is left
     * for the next. NULL: nothing to give. */
    bool (*give_back)(void);
    /* On `to`'s stack: enter the interpreter as `to`, coming from fiber `from`, or from outside when NULL. */
    void (*enter)(pg_fiber *from, pg_fiber *to);
    /* The suspended fiber will be entered soon: a moment to prefetch what that takes. Of what it has may only be read what
     * lies in the extra area. NULL: nothing to fetch. */
    void (*foresee)(const pg_fiber *fiber);
    /* On the worker's own stack: leave the interpreter, which was entered as `fiber`. */
    void (*leave)(pg_fiber *fiber);
    /* The running fiber's task is in a call that has left the interpreter. The monitor asks; a hint. */
    bool (*is_outside)(pg_fiber *fiber);
    /* The suspended fiber must resume on the OS thread it last ran on; the caller keeps others from resuming it. The second:
     * in doubt, and of any fiber that exists, outside of the interpreter, too. Both or none. */
    bool (*must_stay)(pg_fiber *fiber);
    bool (*may_have_to_stay)(pg_fiber *fiber);
    /* A suspended fiber that should stay may go on elsewhere all the same, if its OS thread does not come back. NULL: none. */
    bool (*may_stray)(pg_fiber *fiber);
    /* An ordinary thread is about to sleep / has slept. */
    void *(*thread_leave)(void);
    void (*thread_enter)(void *token);
    /* On the main thread, inside again after pg_sched_park said PG_EINTERRUPTED: true gives the wait up. */
    bool (*thread_interrupted)(void);
    /* Likewise, when nothing the scheduler knows of can end the main thread's wait: true gives it up. */
    bool (*thread_stuck)(void);
    /* No task runs any more: whoever waits for one does so in vain. Then thread_stuck is asked at every look. */
    bool (*is_ending)(void);
    /* The waiter itself, inside, when its alarm (objects/task.h) is set: true gives the wait up. */
    bool (*is_cancelled)(pg_task *self);
    /* In a signal handler, on the task's own thread: write what to call the task, for people, as a string. */
    void (*describe)(pg_task *task, char *text, size_t room);
    /* Is somebody inside the interpreter now? A hint to spin on. */
    bool (*is_busy)(void);
    /* Tasks and threads use objects (channels, latches, ...) only inside the interpreter, which one at a time may enter:
     * objects need no locks. What comes from outside (timers that expire) touches nothing but states of tasks. */
    bool serial;
    /* A switch of fibers restarts the patience of threads that wait to enter: they never get to ask for their turn. */
    bool switch_restarts_waits;
} pg_hooks;

typedef struct pg_party pg_party;
typedef struct pg_bubble pg_bubble;

/* A further stack that a task, or a thread, runs one call on. The record lies on the stack that makes the call. */
typedef struct pg_segment {
    pg_stack stack;
    struct pg_segment *outer; /* the call is made on that one; NULL: on the caller's first stack */
} pg_segment;

struct pg_fiber {
    void *sp;           /* its worker before a switch, whoever resumes it after */
    pg_task *task;      /* likewise */
    pg_worker *worker;  /* where it runs or last ran */
    pg_worker *pinned;  /* NULL, or the only worker that may resume it */
    uint32_t pin_depth; /* nested pg_sched_pin */
    bool bound;         /* its worker: the OS thread ends with the task */
    bool astray;        /* whoever has the ready task: it should stay, but its OS thread does not come back */
    int saved_errno;
    pg_stack stack;     /* set before publish */
    pg_fiber *next;     /* free list: sched.fiber_lock */
    pg_node all;        /* list of all fibers: sched.fiber_lock */
    pg_nanos parked_at; /* coarse time of the last park, for reports */
    bool for_ever;      /* that park has no deadline */
    uint32_t park_count; /* tells one park of the fiber from the next */
    uint32_t trimmed_park; /* the scavenger: the last park that its stack was trimmed in */
    pg_segment *segment; /* its worker: the innermost, which it runs on; NULL: on `stack` */
    pg_party *party;    /* its worker: what the task waits with (sync/chan.h), while it waits */
    pg_bubble *bubble;  /* the running task's, or NULL: its worker, as the three below */
    uint32_t birthplace; /* the bubble that what it makes belongs to: its id, 0: none */
    bool durable;       /* set before every wait: only the bubble can end it */
    bool idle;          /* the bubble's lock: does not count as running there */
    void *scopes;       /* of the layer above; NULL between tasks */
    const void *wait;   /* what the layer above says of the current wait, valid while parked */
    void *sanitizer;    /* ThreadSanitizer's name for this stack */
    pg_task tail;       /* stands for the task while what is left of it is cleaned up */
};

/* There are more fibers than the caches hold what a switch touches of. Then that is fetched as soon as it is known who goes
 * on: dozens of lines at once, which would be waited for one after the other. Else it would cost for nothing. */
extern atomic_bool pg_fibers_are_many;
/* A waker of `task`, which will be woken in a moment, and waits with `record` on its stack. */
void pg_sched_foresee_wake(const pg_task *task, const void *record);

static inline void *pg_fiber_extra(const pg_fiber *fiber, size_t extra) { return (char *)fiber - extra; }

typedef struct pg_sched_stats {
    uint32_t workers, threads, blocked, idle, permits_free;
    uint64_t spawned, finished, switches, steals, handoffs, parks, fresh_starts;
    uint64_t ready, fibers, fibers_pooled, timers, starved;
    pg_stack_stats stacks;
} pg_sched_stats;

extern bool pg_sched_is_serial; /* hooks.serial: set before publish */

/* ---- set-up. Starts no thread; those start when there is work. ---- */
/* `exclusive`: one permit only, whatever the number of workers (the interpreter has a GIL). */
int pg_sched_init(const pg_hooks *hooks, int workers, bool exclusive);
int pg_sched_set_workers(int workers);
int pg_sched_workers(void);
/* Quiesce: no task starts or resumes any more, and no thread that ends asks whether fibers may have to stay; waits up to
 * `patience` for running tasks to reach a scheduling point. True when all have. Undone by pg_sched_resume, which says
 * whether there was anything to undo. */
bool pg_sched_stop(pg_nanos patience);
bool pg_sched_resume(void);
/* Around the system call of a fork: the first takes the core's locks, so that the child finds what they cover in order;
 * the parent lets them go again; in the child only the caller's task or thread is left. */
void pg_sched_before_fork(void);
void pg_sched_after_fork_in_parent(void);
void pg_sched_after_fork_in_child(void (*forget)(pg_party *party)); /* called for every wait of another task or thread */
/* The main thread, if it waits, looks around (thread_interrupted). */
void pg_sched_nudge_main(void);

/* ---- tasks; any thread ---- */
void pg_sched_spawn(pg_task *task);   /* first time: to the end of the queue */
void pg_sched_enqueue(pg_task *task); /* step V3 of objects/task.h: next to run, as a partner in an exchange */
void pg_sched_enqueue_last(pg_task *task); /* likewise, but behind all others: who waited for many is in no hurry */

/* The running task's record may go away now, though it still runs: from here on the fiber's own stands for it. */
void pg_sched_detach_task(pg_fiber *fiber);

/* The caller's task, or its thread's stand-in; NULL when no memory is left for the latter. */
pg_task *pg_sched_self(void);
/* Where the task, whose fiber it has, or the thread keeps what it waits with; for the waiter, and in a fork's child. */
pg_party **pg_sched_party(pg_task *task);
/* Where the layer above keeps its cancellation scopes, likewise. */
void **pg_sched_scopes(pg_task *task);
/* Keep a thread's stand-in in memory although the thread may end; of a task this does nothing. */
void pg_sched_hold(pg_task *task);
void pg_sched_drop(pg_task *task);
/* Whether the caller, self, is to give a wait up: asks hooks.is_cancelled if the alarm is set. */
bool pg_sched_is_cancelled(pg_task *self);
/* The running task's fiber, or NULL outside of tasks. */
pg_fiber *pg_sched_fiber(void);

/* Wait for a wake of the caller (W2 of objects/task.h), until `deadline`. PG_OK: woken, maybe for nothing;
 * PG_ETIMEDOUT; PG_EINTERRUPTED (main thread: a signal may want attention); PG_ENOMEM (no room for the timer). */
int pg_sched_park(pg_task *self, pg_nanos deadline);
/* How far a wait has come. ENDING: won, its outcome is filled in, the winner still wakes the task; ENDED: the winner has
 * let go of the task and of the wait, which may be gone the next moment. */
enum { PG_WAIT_OPEN, PG_WAIT_ENDING, PG_WAIT_ENDED };

/* Park until *done, which the waker sets before it wakes; PG_ECANCELED also when the alarm says so. Any other outcome than PG_OK means: not done when last seen;
 * the caller unlinks its waiter under the object's lock, and looks again there. */
int pg_sched_park_until(pg_task *self, atomic_uchar *done, pg_nanos deadline);
/* Likewise without a deadline and whatever the alarm says: for what cancellation has to wait for. PG_OK or PG_EINTERRUPTED. */
int pg_sched_park_shielded(pg_task *self, atomic_uchar *done);
/* For tests: with a seed, everything the scheduler leaves to chance is drawn from it, a task is now and then put behind
 * others, and pg_sched_preempt_point yields now and then. Off: everything as usual again. Outside of the interpreter: on
 * waits for a task of the scheduler's own to end. */
void pg_sched_set_seed(bool on, uint64_t seed);
extern atomic_bool pg_sched_is_seeded;
void pg_sched_preempt_point(void);
/* For tests: every n-th park returns at once, as after a stale wake; 0 turns it off. */
void pg_sched_inject_stale_wakes(unsigned every);
/* For tests: while on, the monitor does nothing, as where it does not get to run. */
void pg_sched_hold_monitor(bool on);
void pg_sched_yield(void);
int pg_sched_sleep_until(pg_nanos deadline);
/* Around a call on another stack of at least `size` bytes, by the caller, be it a task or a thread. PG_OK, PG_ENOMEM, or
 * PG_EINVAL in a task after pg_sched_bind. */
int pg_sched_segment_link(pg_segment *segment, size_t size);
void pg_sched_segment_unlink(pg_segment *segment);
/* Keep the running task on its OS thread, alone there, until unpinned as often. PG_EINVAL outside of tasks. */
int pg_sched_pin(void);
int pg_sched_unpin(void);
/* Likewise until the task's end, with which the OS thread ends, too. It may run no calls on other stacks from then on.
 * PG_OK, also for an ordinary thread; PG_EINVAL on such a stack; PG_EAGAIN when another task has this OS thread for itself,
 * as may be for one that must stay here. */
int pg_sched_bind(void);

/* Whoever can make tasks or threads ready and is neither a task, a timer nor a thread that the scheduler sees awake (a
 * poller that sleeps until a descriptor is ready, a helper thread with a job under way) raises this count first and
 * lowers it after the wake; while it is above zero nobody is deadlocked. Any thread. */
void pg_sched_outside_add(int change);
/* For tests: how long the main thread sleeps before it looks around, instead of a tenth of a second; 0 resets it. */
void pg_sched_set_signal_slice(pg_nanos slice);

/* For tests: how often the scavenger runs, and how long tasks have been parked before their stacks are trimmed, instead of
 * a second; 0 resets it. */
void pg_sched_set_scavenge_interval(pg_nanos interval);

/* The caller's clock: that of its bubble, else pg_now(). And pg_deadline_after on that clock. */
pg_nanos pg_sched_now(void);
pg_nanos pg_sched_deadline_after(pg_nanos timeout);

/* Timers of the layer above: on expiry, fire() names a task to enqueue. The deadline is one of timer->home's clock. */
int pg_sched_timer_start(pg_timer *timer, pg_nanos deadline);
bool pg_sched_timer_stop(pg_timer *timer);
/* Whether it is pending, and until when. */
bool pg_sched_timer_is_pending(const pg_timer *timer, pg_nanos *deadline);
/* Call `look` for every pending timer; it runs under the timers' lock, and so may not start, stop or allocate. */
void pg_sched_each_timer(void (*look)(pg_timer *timer, void *opaque), void *opaque);

/* The watchdog: report tasks that run for `limit` without a scheduling point, once each time; 0 turns it off. */
int pg_sched_set_watchdog(pg_nanos limit);
/* Have the thread that reports make a dump; for signal handlers, on any thread. May change errno. */
void pg_sched_ask_dump(void);
/* For the one thread that reports: wait until there is something, then take it: whether a dump is asked for, and who is
 * overdue. `task` is what the worker carries, NULL when it has left the call meanwhile; valid only as long as the caller
 * stays inside the interpreter. */
int pg_sched_wait_to_report(void);
bool pg_sched_next_dump(void);
typedef struct pg_overdue {
    pg_task *task;
    pg_nanos since;
    unsigned long os_id;
} pg_overdue;
bool pg_sched_next_overdue(pg_overdue *found);
/* Write a line on the scheduler to stderr every so often; 0 turns it off. */
void pg_sched_set_trace(pg_nanos interval);

/* Pseudo-random, a stream per OS thread; not for secrets. */
uint64_t pg_sched_random(void);
/* A recent time without reading the clock, off by a few milliseconds at most while tasks run. */
pg_nanos pg_sched_coarse_now(void);
void pg_sched_read_stats(pg_sched_stats *stats);
/* A worker carries the fiber at this moment. For reports. */
bool pg_sched_is_running(pg_fiber *fiber);
/* The fiber's task is in a blocking call, or runs without a permit. For reports. */
bool pg_sched_is_blocked(pg_fiber *fiber);

#endif
