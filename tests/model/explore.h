/* Exhaustive exploration of small worlds: the C core's real code, every schedule of a few threads, every value that
 * the C11 memory model lets a load see.
 *
 * The sources of csrc/ are compiled as they are, with -fsanitize=thread, and linked not with ThreadSanitizer's
 * runtime but with ours: the compiler turns each atomic operation into a call of __tsan_atomic..., and each other
 * access to memory that may be shared into one of __tsan_read... or __tsan_write.... So nothing is copied, renamed or
 * annotated, and what the models run cannot drift away from what ships.
 *
 * Schedules. Threads are coroutines of one OS thread. Each atomic operation, each taking of a lock, each futex call
 * is a step; before it the explorer chooses who makes the next one. Depth first, by running again from the start;
 * dynamic partial-order reduction with sleep sets leaves out schedules that differ in the order of independent steps
 * only. Where a world is too large for all of them, some are made by chance.
 *      Flanagan, Godefroid: Dynamic partial-order reduction for model checking software. POPL 2005.
 *      Abdulla, Aronis, Jonsson, Sagonas: Optimal dynamic partial order reduction. POPL 2014.
 *      Norris, Demsky: CDSChecker: checking concurrent data structures written with C/C++ atomics. OOPSLA 2013.
 *      Musuvathi, Qadeer: Iterative context bounding for systematic testing of multithreaded programs. PLDI 2007.
 *
 * Memory. Of each location all stores are kept, in modification order, which is that of the steps; a thread has a
 * view: of each location the oldest store that it may still read. Release attaches the view to a store, acquire joins
 * it.
 *      Kang, Hur, Lahav, Vafeiadis, Dreyer: A promising semantics for relaxed-memory concurrency. POPL 2017
 *        (no promises).
 * Plain accesses that are not ordered by these views are data races and fail.
 *
 * What is not covered: a load that sees a store of the future (load buffering), modification orders that contradict
 * the order of steps (2+2W), a compare-and-swap that fails for an outdated value, wake-ups of the kernel for no
 * reason. Delays are finite: a load that saw an outdated store twice, or spins, sees a newer one the next time.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

enum { MC_THREADS = 6, MC_LOCATIONS = 320, MC_STORES = 192 };

typedef struct mc_scenario {
    const char *name;
    void (*setup)(void);               /* before every execution, outside of the threads */
    void (*threads[MC_THREADS])(void); /* up to the first NULL */
    void (*check)(void);               /* after every execution, when all threads have ended, or rest */
    void (*conclude)(void);            /* NULL, or once, after all executions */
    bool rests;                        /* threads may be left asleep: `check` says whether rightly */
    int preemptions;                   /* 0: all schedules; else so many switches away from who could go on, at most */
    int stale;                         /* 0: all values; else so many loads of an outdated one in an execution */
    unsigned long least;               /* executions that there must be, or the scenario has not tested what it says */
} mc_scenario;

extern const mc_scenario mc_scenarios[]; /* of the program, up to one without a name */

/* ---- for models; in a thread unless said otherwise ---- */

__attribute__((noreturn, format(printf, 1, 2))) void mc_fail(const char *format, ...);
#define MC_CHECK(condition)                                                                                           \
    do {                                                                                                              \
        if (!(condition)) mc_fail("%s:%d: not true: %s", __FILE__, __LINE__, #condition);                             \
    } while (0)

int mc_self(void);                                   /* the thread's number, -1 outside */
unsigned mc_choose(unsigned count);                  /* each of 0 ... count-1 is tried */
int mc_spawn(void (*body)(void *), void *argument);  /* one more thread; its number */
void mc_name(const char *name);                      /* of the thread, in traces */
void **mc_slot(void);                                /* the thread-local slot of the core */
bool mc_all_ended(void);                             /* in `check`: no thread is left asleep */
void mc_set_short_of_memory(void);                   /* in `setup`: malloc may say no */
void mc_set_short_of_threads(int most);              /* likewise: so many threads may be refused */
void mc_set_patient(void);                           /* likewise: no deadline of a sleep ever comes */
void mc_set_hurried(void);                           /* likewise: a nap takes a thousand times as long by the clock */
void mc_thread_exits(void);                          /* what the core wants done at the end of a thread */
void mc_set_main_thread(void);                       /* in `setup`: thread 0 is the main one, and threads are counted */
void mc_nap(void);                                   /* until another thread has made a step, or none can */
/* A token: put before taken, once each; taking waits. Ordered as a release and an acquire. */
void mc_token_put(void *token);
void mc_token_take(void *token);
bool mc_token_is_there(void *token); /* a look that is no step */
/* What lies below the caller on its stack is gone: nobody may touch it until the thread calls mc_frame_begin. */
void mc_frame_begin(void);
void mc_frame_end(void);

/* ---- inside the explorer ---- */

typedef enum mc_kind {
    MC_START, MC_LOAD, MC_STORE, MC_RMW, MC_FENCE, MC_LOCK, MC_FUTEX_WAIT, MC_FUTEX_SLEEP, MC_FUTEX_WAKE,
    MC_TOKEN_PUT, MC_TOKEN_TAKE, MC_COUNT, MC_NAP,
} mc_kind;

typedef struct mc_step {
    mc_kind kind;
    const void *object, *pc;
    bool writes, sequential;  /* for an RMW that failed, writes is corrected afterwards */
    int order;                /* __ATOMIC_... */
    uint64_t seen, left;      /* values, for the trace */
    uint32_t age;             /* of the store that was read: 0 the newest */
    uint32_t made, read;      /* which of the location's stores a step made, or read */
    uint32_t oldest;          /* that a load could have read */
    bool (*enabled)(const struct mc_step *step); /* NULL: always */
    uint64_t argument;
} mc_step;

typedef struct mc_view {
    uint16_t clocks[MC_THREADS];
    uint16_t stores[MC_LOCATIONS];
} mc_view;

void mc_step_begin(mc_step *step); /* returns when the explorer has chosen this thread to make its step */
mc_step *mc_step_now(void);        /* the record of the step under way, in the trace */
void mc_relax(void);
void mc_relax_on(const void *word); /* a sleep on it has been refused */
int mc_threads_left(void);          /* those that have not come to their end */
const mc_step *mc_spun_on(void); /* NULL: it did not spin */
bool mc_may_be_stale(void);
void mc_note_stale(void);
void mc_check_alive(uintptr_t address, const void *pc); /* neither freed nor in a frame that has ended */

/* system.c */
void mc_os_reset(void);
void mc_thread_ends(void);       /* its body has; it holds no locks */
void mc_check_heap(uintptr_t address, const void *pc);

/* memory.c */
void mc_memory_reset(void);
mc_view *mc_view_of(int thread);
void mc_view_join(mc_view *into, const mc_view *from);
void mc_tick(void);
void mc_access(uintptr_t address, size_t size, bool write, bool atomic, const void *pc);
void mc_access_ends(uintptr_t from, uintptr_t to); /* to those addresses, by others: all must have happened before */
uint64_t mc_newest(const void *address, size_t size);
extern unsigned long mc_plain_accesses, mc_stale_loads;

/* Functions that a model's sources name, and that no scenario may call. */
#define ABSENT(type, name, parameters, result)                                                                        \
    type name parameters                                                                                              \
    {                                                                                                                 \
        mc_fail("%s is not in this model", #name);                                                                    \
        return result;                                                                                                \
    }
#define ABSENT_VOID(name, parameters)                                                                                 \
    void name parameters { mc_fail("%s is not in this model", #name); }

#endif
