/* The operating system: pages, clock, CPU count, futex, OS threads, and the one thread-local of the core.
 *
 * The thread-local is reached only through noinline accessors: compilers keep the address of a thread-local (and of
 * errno) in a register, and after a context switch the code may go on running on another OS thread.
 */
#ifndef PG_OS_H
#define PG_OS_H

#include "base/atomic.h"
#include "base/base.h"

pg_nanos pg_now(void);
/* The deadline that lies `timeout` ns from now, without overflow. */
pg_nanos pg_deadline_after(pg_nanos timeout);

/* CPUs this process may use (affinity mask), at least 1. */
int pg_cpu_count(void);
size_t pg_page_size(void);

/* Sleep while *word == expected, until woken or until `deadline`. Returns PG_OK (woken, or the value differed),
 * PG_ETIMEDOUT, or PG_EINTERRUPTED (a signal handler ran). May return PG_OK for no reason. */
int pg_futex_wait(atomic_uint *word, unsigned expected, pg_nanos deadline);
/* Touches no memory: safe although the waiter may have returned and freed the word by now. */
void pg_futex_wake(atomic_uint *word, int count);

/* Sleep for a duration; used by the monitor alone. */
void pg_nanosleep(pg_nanos duration);

/* Address space. Reserved ranges are readable and writable, zero, not counted against memory until touched. */
void *pg_pages_reserve(size_t size);
/* On a boundary of its size, a power of two. */
void *pg_pages_reserve_aligned(size_t size);
void pg_pages_free(void *start, size_t size);
/* Touch all pages of a range in one system call, where the kernel knows how; else they come one by one when used. */
void pg_pages_populate(void *start, size_t size);
/* Whether any page of the range is in memory. Not whether it was swapped out. */
bool pg_pages_resident(void *start, size_t size);
/* Give the memory below back to the system; the range reads as zero afterwards. */
void pg_pages_discard(void *start, size_t size);
/* Make [start, start+size) fault. Prefers lightweight guard regions (Linux 6.13+), which split no mapping; otherwise
 * mprotect, which does. Returns PG_ENOMEM when the kernel refuses (vm.max_map_count). */
int pg_pages_guard(void *start, size_t size);
/* Which of the two pg_pages_guard uses: true for lightweight ones. The setter is for tests of the other path. */
bool pg_guards_are_light(void);
void pg_guards_set_light(bool light);

/* Start a detached OS thread with a small stack of its own. */
int pg_os_thread_start(void (*body)(void *), void *argument, const char *name);
void pg_os_yield(void);
/* How many threads this process has; -1 where the system does not say. */
int pg_os_thread_count(void);
/* Whether a thread of this process has a CPU or waits for one; false where the system does not say. */
bool pg_os_thread_wants_cpu(unsigned long id);
/* The kernel's id of the calling thread, and whether it is the process's first. */
unsigned long pg_os_thread_id(void);
bool pg_os_is_main_thread(void);

/* A lock for short sections: spins briefly, then sleeps. Never held across a context switch or a wait for the GIL. */
typedef struct pg_lock {
    atomic_uint word; /* 0 free, 1 held, 2 held with sleepers */
} pg_lock;

void pg_lock_slow(pg_lock *lock);
static inline void pg_lock_acquire(pg_lock *lock)
{
    unsigned expected = 0;
    if (PG_UNLIKELY(!pg_cas_acqrel(&lock->word, &expected, 1))) pg_lock_slow(lock);
}
static inline bool pg_lock_try(pg_lock *lock)
{
    unsigned expected = 0;
    return pg_cas_acqrel(&lock->word, &expected, 1);
}
static inline void pg_lock_release(pg_lock *lock)
{
    if (PG_UNLIKELY(pg_exchange_acqrel(&lock->word, 0) == 2)) pg_futex_wake(&lock->word, 1);
}
static inline void pg_lock_init(pg_lock *lock) { pg_store_relaxed(&lock->word, 0); }

/* The thread-local slot of the core: the record of the running OS thread (sched/), or NULL. */
void *pg_tls_get(void);
void pg_tls_set(void *value);
int pg_errno_get(void);
void pg_errno_set(int value);
/* Called once when a thread ends that had a non-NULL slot. */
void pg_tls_on_thread_exit(void (*destroy)(void *));

#endif
