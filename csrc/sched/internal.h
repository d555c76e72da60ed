/* What the files of sched/ share. */
#ifndef PG_SCHED_INTERNAL_H
#define PG_SCHED_INTERNAL_H

#include "base/failpoint.h"
#include "machine/annotate.h"
#include "machine/switch.h"
#include "sched/sched.h"

#ifdef PG_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    PG_POLL_TICKS = 64,       /* every so many task starts a worker looks at the shared queue, timers and turns */
    PG_TURN_POLLS = 8,        /* a turn costs some microseconds: after so many polls with a thread waiting for one */
    PG_NEXT_STREAK = 128,     /* so often may run_next jump the queue in a row, see is_streak_over */
    PG_EXPIRE_BATCH = 64,
};
#define PG_POLL_TIME ((pg_nanos)1000000)      /* the same where tasks run long; and the time of a streak of them */
#define PG_NAP ((pg_nanos)150000)             /* the shortest wait for a timer beside many fibers, so that some ring together */
#define PG_TURN_TIME ((pg_nanos)10000000)     /* the longest turn that others are compensated for */
#define PG_LONG_TURN ((pg_nanos)5000)         /* beside it, looking at the clock costs nothing */
#define PG_OPEN_EVERY ((pg_nanos)5000000)     /* as the interpreter's own switching, see is_time_to_open */
#define PG_OPEN_SELDOM ((pg_nanos)40000000)
#define PG_SPIN_TIME ((pg_nanos)30000)        /* about two futex wake-ups; beyond it sleeping is cheaper */
#define PG_TURN_PATIENCE ((pg_nanos)1000000)  /* then a thread queues for the GIL like everybody */
/* A signal that comes just before main sleeps wakes nobody: main looks again after so long, then ever less often; for
 * deadlock, too. */
#define PG_SIGNAL_SLICE (PG_SECOND / 20)
#define PG_RETRY_EVERY ((pg_nanos)5000000)    /* what the system has refused is asked for again */
#define PG_SCAVENGE_EVERY PG_SECOND
#define PG_REST_TIME ((pg_nanos)2000000)      /* for tasks to come to a scheduling point, after a wait during the exit */
#define PG_RETIRE_AFTER (2 * PG_SECOND)       /* idle time after which a spare worker thread ends */

/* An OS thread as the thread-local slot knows it. */
typedef struct pg_thread {
    pg_worker *worker; /* NULL: not one of ours */
    bool is_main;
    pg_node link; /* in sched.threads: sched.lock */
    uint64_t random; /* owner only */
    pg_task stand_in;  /* what it waits with outside of tasks */
    pg_segment *segment; /* owner only: as in pg_fiber */
    pg_party *party;   /* likewise */
    void *scopes;      /* likewise */
    pg_nanos slice;    /* main only: until it looks for signals */
    void *alternate;   /* owner only: signal stack (os/fault.h), once it has had a segment */
    atomic_uint holders; /* the thread itself, and pg_sched_hold */
    atomic_bool for_ever; /* owner writes: its current or last sleep has no deadline */
} pg_thread;

enum worker_sleep {
    AWAKE,
    IDLE,        /* in sched.idle */
    QUEUED,      /* in sched.waiting: has work only it may run, wants a permit */
    LOCKED_IDLE, /* in no list: carries a pinned task that is parked */
};

enum worker_post { POST_NONE, POST_PARK, POST_YIELD, POST_END };

/* Bits of pg_worker.attention. */
enum { ATTEND_LOST = 1, ATTEND_STOP = 2 };

struct pg_worker {
    pg_thread thread; /* first: the slot points here */

    /* owner only */
    pg_fiber *current; /* the fiber that runs, NULL while on the worker's own stack */
    void *sp;          /* own stack, while a fiber runs */
    pg_fiber *previous; /* the fiber just left, for the one just entered */
    pg_fiber *entering; /* the fiber being switched to: how a new one learns who it is */
    enum worker_post post;
    uint32_t next_streak, turn_polls, spin_credit, spins_left_out;
    uint64_t victims;    /* random: where to begin stealing; apart, for how often it is asked depends on time */
    pg_nanos polled_at, picked_at, seen_coarse;
    uint32_t unread, unread_most; /* turns since the clock was read; after so many it is. See note_turn */
    pg_nanos streak_start, streak_least, longest_turn; /* see is_streak_over */
    pg_nanos opened_at, open_every; /* see is_time_to_open */
    bool searching, give_turn, open;
    bool closing;        /* it ends as soon as no suspended task has to resume on it; till then it runs only those */
    pg_task *pinned_task; /* runs nothing else while set */
    void *sanitizer;
    unsigned long os_id; /* set at the thread's start */

    /* shared */
    _Atomic(pg_fiber *) watched; /* = current, for the monitor */
    atomic_uint tick;            /* owner counts task starts; the monitor compares */
    atomic_uint attention;       /* bits: set by others, cleared by the owner */
    _Atomic(pg_task *) run_next; /* owner puts; owner and drainers take by exchange */
    pg_runq queue;
    pg_inject inbox;             /* tasks that must run here */
    atomic_uint granted;         /* futex word: 0 asleep, 1 woken with a permit */

    /* sched.lock */
    enum worker_sleep sleep;
    pg_node link;       /* in sched.idle or sched.waiting */
    bool alive, permit; /* permit: it holds one */

    /* monitor only */
    uint32_t seen_tick, seen_outside;
    pg_nanos seen_since, outside_since; /* when each of them began */
    uint32_t barked_at; /* the tick of the last report */

    /* watch.c */
    atomic_bool overdue; /* the monitor reports a stay of the two below: set last, taken back by the watcher */
    atomic_uint overdue_tick;
    _Atomic pg_nanos overdue_since;

    /* statistics: owner writes, anyone reads */
    _Atomic uint64_t spawned, finished, switches, steals, parks, fresh_starts;

    char *own_base; /* owner only: its own stack, where somebody has to be told: machine/annotate.h */
    size_t own_size;
};

typedef struct pg_sched {
    pg_hooks hooks;
    bool exclusive, spinning; /* set before publish */
    pg_fiber *main_fiber;     /* in the child of a fork that a task made: that task's; likewise */

    pg_lock lock;
    atomic_int limit;            /* workers asked for: written under lock */
    int permits;                 /* lock: how many exist */
    atomic_int permits_free;     /* written under lock; negative while workers are to be fewer */
    pg_node idle, waiting;       /* lock */
    bool waiting_had_last;       /* lock: see next_in_line */
    pg_node threads;             /* lock: threads that are not workers */
    _Atomic(pg_worker *) timekeeper; /* the resting worker that wakes for the next timer: the last that lay down */
    atomic_int thread_count;     /* written under lock */
    _Atomic(pg_worker *) table[PG_MAX_THREADS]; /* slots are filled under the lock and never emptied */
    atomic_int table_length;
    uint32_t starting;           /* lock: threads being created */
    atomic_bool stopping;
    _Atomic(pg_thread *) main_thread; /* once it has waited here */

    atomic_int searching;   /* workers with a permit that look for work */
    atomic_int turns;       /* threads that want the interpreter */
    atomic_uint turn_word;  /* futex: counts turns given */
    pg_inject inject;
    pg_inject no_stack;     /* tasks put back because no stack was to be had, until a fiber is released */
    pg_timers timers;

    pg_lock fiber_lock;
    /* fiber_lock; last in, first out; [small stacks, large ones], and of each those that hold what their last tasks have
     * touched, and those that hold one page */
    pg_fiber *free_fibers[2], *trimmed_fibers[2];
    pg_node fibers;                 /* fiber_lock */
    atomic_size_t fiber_count, free_count, free_low; /* written under fiber_lock */

    atomic_uint colors;
    pg_lock look_lock;              /* held by the monitor while it looks at running fibers, and to take any apart */
    pg_task scavenger;              /* owned by whoever has set: */
    atomic_bool scavenging;
    _Atomic pg_nanos scavenge_interval;
    atomic_bool trim_later;         /* the last pass of the scavenger left something that has to wait */
    atomic_bool trim_unfinished;    /* it ran out of time */
    size_t trim_rest, trim_unseen;  /* scavenger: fibers to look at in this round, and in all until it has been round */
    int trim_samples;               /* likewise: further rounds to try, should none be found */
    _Atomic uint64_t trimmed_until; /* what may_shrink counted when it began the round */

    /* monitor */
    atomic_uint monitor_word; /* futex: 0 asleep, 1 awake */
    atomic_uint monitor_round; /* odd while it may be moving tasks */
    atomic_bool monitor_held;    /* for tests: see pg_sched_hold_monitor */
    atomic_uint stale_every, stale_count; /* for tests: see pg_sched_inject_stale_wakes */
    _Atomic uint64_t seed;       /* see pg_sched_set_seed */
    _Atomic uint64_t drawn;      /* one stream for all workers: tasks may wander among them */
    atomic_bool monitor_started; /* written under lock */
    atomic_bool short_of_threads; /* likewise: the last one could not be started, or the monitor not yet */
    _Atomic pg_nanos coarse_now;
    _Atomic uint64_t handoffs, foreign_spawned;

    /* watch.c */
    _Atomic pg_nanos watchdog;       /* longest stay of a task without a scheduling point; 0: off */
    _Atomic(pg_thread *) watcher;    /* the thread to tell; never freed once it was one */
    atomic_bool to_report;           /* some worker's overdue, or the next, is set */
    atomic_bool dump_asked;
    _Atomic pg_nanos trace_interval; /* 0: off */
    pg_nanos trace_next, started_at; /* monitor; set before publish */

    /* deadlock.c */
    atomic_int outside;       /* see pg_sched_outside_add */
    atomic_uint thread_parks; /* sleeps of ordinary threads without a deadline */
    unsigned risings;         /* lock: how often workers have got up */
    _Atomic pg_nanos signal_slice; /* how long main sleeps at a time */
} pg_sched;

/* While no worker is up: how many threads will start nothing, and how often workers have got up before. */
typedef struct pg_rest {
    int harmless;
    unsigned risings;
} pg_rest;

extern pg_sched pg_the_sched;

/* worker.c */
void pg_worker_main(void *worker);
void pg_wake_one(void);               /* P3, slow half: take a free permit, wake or start a worker with it */
void pg_worker_notify(pg_worker *worker); /* its inbox has something */
bool pg_work_visible(void);
void pg_take_permit_away(pg_worker *worker);
/* Its pinned task yields: what is ready can only run elsewhere, with this worker's permit. */
void pg_worker_make_way(pg_worker *worker);
/* On the running task's stack, and with no other effect than that it was outside for a moment. False: it cannot be. */
bool pg_worker_give_turn_in_place(pg_worker *worker);
size_t pg_worker_flush(pg_worker *worker); /* its queue goes to the shared one */

/* P3, fast half. Call after the task has been stored in the shared queue, whose count is sequentially consistent. */
static inline void pg_wake_after_inject(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_delay(pushed_to_look);
    if (PG_UNLIKELY(pg_load_seqcst(&sched->permits_free) > 0) && pg_load_seqcst(&sched->searching) == 0) pg_wake_one();
}

/* The same after any other store. */
static inline void pg_wake_if_free(void)
{
    pg_fence_seqcst(); /* pairs with the fence of rest() */
    pg_wake_after_inject();
}

/* fiber.c */
bool pg_fibers_may_fade(void); /* more are free than are kept for ever */
pg_nanos pg_fibers_patience(void); /* until the scavenger has something to do, if nothing else happens */
void pg_fibers_count(size_t count); /* under fiber_lock, or alone */
pg_fiber *pg_fiber_obtain(size_t stack_size); /* from the free list or new; NULL when the system refuses */
void pg_fiber_release(pg_fiber *fiber);
void pg_fibers_scavenge(void);
void pg_fiber_lacking(pg_task *task, bool none_free); /* put it back until there is a stack for it */
_Noreturn void pg_fiber_main(void *worker);

/* thread.c */
void pg_thread_destroy(void *thread);
bool pg_is_drawn(unsigned one_in); /* with a seed: true once in so many, as the seed has it */

/* sched.c */
void pg_queue_here_or_shared(pg_worker *worker, pg_task *task);
pg_task *pg_pick(pg_worker *worker); /* quick: own queue, then the shared one; NULL sends the worker to its own stack */
bool pg_may_run(pg_worker *worker, pg_task *task); /* or forwards it to where it must run */
pg_fiber *pg_fiber_for(pg_worker *worker, pg_task *task); /* NULL: no stack; the task was put back */
void pg_arrive(pg_worker *worker, pg_fiber *fiber);       /* first thing on a stack just switched to */
void pg_settle_previous(pg_worker *worker);               /* publish what was left: only now may others resume it */
_Noreturn void pg_fiber_loop(pg_worker *worker, pg_fiber *fiber);
/* Leave `fiber` for the next task or the worker's own stack; returns when it is resumed, maybe elsewhere. */
void pg_switch_away(pg_worker *worker, pg_fiber *fiber, enum worker_post post);
void pg_dispatch(pg_worker *worker, pg_task *task);       /* from the worker's own stack, until it is switched back to */
size_t pg_expire_timers(pg_nanos now);

/* deadlock.c */
bool pg_tasks_rest(pg_rest *rest); /* nothing runs, is ready, or is pending */
bool pg_nobody_wakes_main(void);   /* for the main thread, inside the interpreter; costs a file read */

/* overflow.c */
void pg_overflow_setup(void); /* the process has a handler for overflows from now on */

/* watch.c */
void pg_watch_worker(pg_worker *worker, pg_nanos now); /* for the monitor, after it has noted the worker's tick */
void pg_trace(pg_nanos now);                           /* likewise */

/* monitor.c */
void pg_monitor_wake(void);
void pg_monitor_start_locked(void);
/* The system has refused a thread, and there is not even a monitor to try again: then whoever rests or waits does. */
bool pg_threads_lacking(void);
void pg_threads_retry(void);

static inline pg_thread *pg_thread_of(pg_task *stand_in) { return pg_container_of(stand_in, pg_thread, stand_in); }

static inline pg_worker *pg_worker_of_thread(void)
{
    pg_thread *thread = pg_tls_get();
    return thread ? thread->worker : NULL;
}

/* Vigna's splitmix64. */
#define PG_RANDOM_STRIDE 0x9e3779b97f4a7c15u
static inline uint64_t pg_random_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline bool pg_fiber_suits(const pg_fiber *fiber, const pg_task *task)
{
    return PG_LIKELY(task->stack_units == 0) || pg_stack_size(&fiber->stack) >= pg_task_stack_size(task);
}

static inline uint64_t pg_random_step(uint64_t *state) { return pg_random_mix(*state += PG_RANDOM_STRIDE); }

static inline bool pg_is_seeded(void) { return PG_UNLIKELY(pg_load_relaxed(&pg_sched_is_seeded)); }

/* ThreadSanitizer counts calls and returns per stack: no function may be entered on one and left on another but the one that
 * switches. Hence inlined without optimisation, too. */
static inline __attribute__((always_inline)) void pg_note_switch(void *sanitizer)
{
#ifdef PG_TSAN
    __tsan_switch_to_fiber(sanitizer, 0);
#else
    (void)sanitizer;
#endif
}

#endif
