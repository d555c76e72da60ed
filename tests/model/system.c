/* The system under the core in the models: locks, futexes, clock, memory. Stands in for csrc/os/os.c, base.c and
 * libc. */
#include "explore.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "os/os.h"

#define PC __builtin_return_address(0)

enum { LOCKS = 64, HEAP = 64 * 1024, BLOCKS = 256, TIMEOUTS = 2, HURRY = 1000 };

typedef struct lock_record {
    pg_lock *lock;
    int holder; /* -1: free */
    mc_view view;
} lock_record;

typedef struct token {
    void *address;
    bool there;
    mc_view view;
} token;

typedef struct block {
    uintptr_t start, end;
    const void *freed; /* where, or NULL */
} block;

static lock_record locks[LOCKS];
static token tokens[LOCKS];
static unsigned lock_count, token_count, block_count;
static atomic_uint *asleep_on[MC_THREADS]; /* NULL: awake, or woken */
static unsigned timeouts[MC_THREADS];
static int errors[MC_THREADS + 1];
static pg_nanos clock_now;
/* One for each thread, so that addresses depend on no schedule. */
static char heaps[MC_THREADS + 1][HEAP] __attribute__((aligned(64)));
static size_t heap_used[MC_THREADS + 1];
static block blocks[BLOCKS];
static bool short_of_memory, patient, hurried, counting;
static int refusals; /* of threads, that are left */
static mc_view threads; /* the kernel counts them under a lock: siglock, in __exit_signal and do_task_stat */
static void (*thread_exit)(void *);

void mc_os_reset(void)
{
    lock_count = token_count = block_count = 0;
    memset(asleep_on, 0, sizeof asleep_on);
    memset(timeouts, 0, sizeof timeouts);
    memset(heap_used, 0, sizeof heap_used);
    memset(&threads, 0, sizeof threads);
    clock_now = 1000;
    short_of_memory = patient = hurried = counting = false;
    refusals = 0;
}

void mc_set_short_of_memory(void) { short_of_memory = true; }
void mc_set_short_of_threads(int most) { refusals = most; }
void mc_set_hurried(void) { hurried = true; }
void mc_set_patient(void) { patient = true; }
void mc_set_main_thread(void) { counting = true; }

/* ---- locks ---- */

static lock_record *record_of(pg_lock *lock)
{
    for (unsigned i = 0; i < lock_count; i++)
        if (locks[i].lock == lock) return &locks[i];
    if (lock_count == LOCKS) mc_fail("too many locks for the explorer: raise LOCKS");
    locks[lock_count] = (lock_record){.lock = lock, .holder = -1};
    return &locks[lock_count++];
}

static bool is_free(const mc_step *step) { return record_of((pg_lock *)step->object)->holder < 0; }

static void hold(lock_record *record)
{
    record->holder = mc_self();
    mc_view_join(mc_view_of(mc_self()), &record->view);
}

void pg_lock_acquire(pg_lock *lock)
{
    if (mc_self() < 0) return;
    mc_step step = {.kind = MC_LOCK, .object = lock, .pc = PC, .writes = true, .enabled = is_free};
    mc_check_alive((uintptr_t)lock, PC);
    if (record_of(lock)->holder == mc_self()) mc_fail("a lock taken twice at %p", PC);
    mc_step_begin(&step);
    mc_check_alive((uintptr_t)lock, PC);
    hold(record_of(lock));
    mc_tick();
}

bool pg_lock_try(pg_lock *lock)
{
    mc_fail("pg_lock_try: releasing a lock is then a step, too");
    return lock == NULL;
}

/* No step of its own: nobody but who waits for the lock can tell when it happens. */
void pg_lock_release(pg_lock *lock)
{
    if (mc_self() < 0) return;
    lock_record *record = record_of(lock);
    mc_check_alive((uintptr_t)lock, PC);
    if (record->holder != mc_self()) mc_fail("a lock released that is not held at %p", PC);
    record->holder = -1;
    record->view = *mc_view_of(mc_self());
    mc_tick();
}


/* ---- tokens ---- */

static token *token_of(void *address)
{
    for (unsigned i = 0; i < token_count; i++)
        if (tokens[i].address == address) return &tokens[i];
    if (token_count == LOCKS) mc_fail("too many tokens for the explorer: raise LOCKS");
    tokens[token_count] = (token){.address = address};
    return &tokens[token_count++];
}

void mc_token_put(void *address)
{
    mc_step step = {.kind = MC_TOKEN_PUT, .object = address, .pc = PC, .writes = true};
    mc_step_begin(&step);
    token *it = token_of(address);
    if (it->there) mc_fail("put twice: %p at %p", address, PC);
    it->there = true;
    mc_view_join(&it->view, mc_view_of(mc_self()));
    mc_tick();
}

bool mc_token_is_there(void *address) { return token_of(address)->there; }

static bool is_there(const mc_step *step) { return token_of((void *)step->object)->there; }

void mc_token_take(void *address)
{
    mc_step step = {.kind = MC_TOKEN_TAKE, .object = address, .pc = PC, .writes = true, .enabled = is_there};
    mc_step_begin(&step);
    token *it = token_of(address);
    it->there = false;
    mc_view_join(mc_view_of(mc_self()), &it->view);
    mc_tick();
}

/* ---- futex ---- */

static bool is_woken(const mc_step *step) { return step->argument == 0 ? asleep_on[step->left] == NULL : true; }

int pg_futex_wait(atomic_uint *word, unsigned expected, pg_nanos deadline)
{
    int self = mc_self();
    mc_step step = {.kind = MC_FUTEX_WAIT, .object = word, .pc = PC, .writes = true};
    mc_step_begin(&step);
    mc_check_alive((uintptr_t)word, PC);
    mc_tick();
    if (mc_newest(word, sizeof *word) != expected) { /* the kernel sees what is there */
        mc_relax_on(word);
        return PG_OK;
    }
    asleep_on[self] = word;
    /* It may time out at any moment, but not again and again. */
    bool may_end = deadline != PG_FOREVER && timeouts[self] < TIMEOUTS && !patient;
    mc_step sleep = {.kind = MC_FUTEX_SLEEP, .object = word, .pc = PC, .writes = true, .enabled = is_woken,
                     .argument = may_end, .left = (uint64_t)self};
    mc_step_begin(&sleep);
    mc_tick();
    if (asleep_on[self] == NULL) return PG_OK;
    asleep_on[self] = NULL;
    timeouts[self]++;
    if (clock_now < deadline) clock_now = deadline;
    return PG_ETIMEDOUT;
}

void pg_futex_wake(atomic_uint *word, int count)
{
    mc_step step = {.kind = MC_FUTEX_WAKE, .object = word, .pc = PC, .writes = true};
    mc_step_begin(&step);
    for (int i = 0; i < MC_THREADS && count > 0; i++)
        if (asleep_on[i] == word) asleep_on[i] = NULL, count--;
    mc_tick();
}

/* The real functions of os.c, where a model has them, come here. */
long mc_syscall(long number, ...)
{
    va_list arguments;
    va_start(arguments, number);
    atomic_uint *word = va_arg(arguments, atomic_uint *);
    int operation = va_arg(arguments, int);
    unsigned value = va_arg(arguments, unsigned);
    va_end(arguments);
    if (number != SYS_futex) mc_fail("system call %ld", number);
    if ((operation & ~FUTEX_PRIVATE_FLAG) == FUTEX_WAKE) {
        pg_futex_wake(word, (int)value);
        return 0;
    }
    (void)pg_futex_wait(word, value, PG_FOREVER);
    return 0;
}

/* ---- clock and threads ---- */

static void count_step(bool writes, const void *pc)
{
    mc_step step = {.kind = MC_COUNT, .object = &threads, .pc = pc, .writes = writes};
    if (!counting) return;
    mc_step_begin(&step);
    mc_view_join(mc_view_of(mc_self()), &threads);
    mc_view_join(&threads, mc_view_of(mc_self()));
    mc_tick();
}

int pg_os_thread_count(void)
{
    count_step(false, PC);
    return counting ? mc_threads_left() : -1;
}

void mc_thread_ends(void)
{
    for (unsigned i = 0; i < lock_count; i++)
        if (locks[i].holder == mc_self()) mc_fail("thread %d ended with the lock at %p", mc_self(), (void *)locks[i].lock);
    count_step(true, PC);
}

pg_nanos pg_now(void) { return clock_now; }
pg_nanos pg_deadline_after(pg_nanos timeout) { return timeout <= 0 ? PG_NEVER_WAIT : clock_now + timeout; }
void pg_nanosleep(pg_nanos duration)
{
    mc_nap();
    clock_now += hurried ? HURRY * duration : duration;
}
void pg_os_yield(void) { mc_relax(); }
int pg_cpu_count(void) { return 1; }
unsigned long pg_os_thread_id(void) { return (unsigned long)mc_self() + 1; }
bool pg_os_is_main_thread(void) { return counting && mc_self() == 0; }
int pg_errno_get(void) { return errors[mc_self() + 1]; }
void pg_errno_set(int value) { errors[mc_self() + 1] = value; }
int *mc_errno(void) { return &errors[mc_self() + 1]; } /* for os.c: the threads are all one to the system */
void *pg_tls_get(void) { return mc_self() < 0 ? NULL : *mc_slot(); }
void pg_tls_set(void *value) { *mc_slot() = value; }
void pg_tls_on_thread_exit(void (*destroy)(void *)) { thread_exit = destroy; }

void mc_thread_exits(void)
{
    void *slot = *mc_slot();
    *mc_slot() = NULL;
    if (slot != NULL) thread_exit(slot);
}

int pg_os_thread_start(void (*body)(void *), void *argument, const char *name)
{
    (void)name;
    if (refusals > 0 && mc_choose(2) == 1) {
        refusals--;
        return PG_ENOMEM;
    }
    count_step(true, PC);
    mc_spawn(body, argument);
    return PG_OK;
}

/* ---- memory: never used twice in an execution ---- */

void *mc_aligned_alloc(size_t alignment, size_t size)
{
    int owner = mc_self() + 1;
    size_t start = (heap_used[owner] + alignment - 1) / alignment * alignment;
    if (start + size > HEAP || block_count == BLOCKS) mc_fail("too much memory for the explorer: raise HEAP or BLOCKS");
    heap_used[owner] = start + size;
    uintptr_t address = (uintptr_t)&heaps[owner][start];
    blocks[block_count++] = (block){address, address + size, NULL};
    memset((void *)address, 0xa5, size);
    return (void *)address;
}

void *mc_malloc(size_t size)
{
    if (short_of_memory && mc_self() >= 0 && mc_choose(2) == 1) return NULL;
    return mc_aligned_alloc(16, size);
}

void *mc_calloc(size_t count, size_t size)
{
    void *memory = mc_malloc(count * size);
    memset(memory, 0, count * size);
    return memory;
}

int mc_posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (short_of_memory && mc_self() >= 0 && mc_choose(2) == 1) return ENOMEM;
    *memory = mc_aligned_alloc(alignment, size);
    return 0;
}

static block *block_of(uintptr_t address)
{
    if (address < (uintptr_t)heaps || address >= (uintptr_t)(heaps + 1 + MC_THREADS)) return NULL;
    for (unsigned i = 0; i < block_count; i++)
        if (address >= blocks[i].start && address < blocks[i].end) return &blocks[i];
    return NULL;
}

void mc_free(void *memory)
{
    if (memory == NULL) return;
    block *found = block_of((uintptr_t)memory);
    if (found == NULL || found->start != (uintptr_t)memory || found->freed != NULL) mc_fail("freed wrongly at %p", PC);
    if (mc_self() >= 0) mc_access(found->start, found->end - found->start, true, false, PC); /* its last use */
    found->freed = PC;
}

void mc_check_heap(uintptr_t address, const void *pc)
{
    const block *found = block_of(address);
    if (found != NULL && found->freed != NULL) mc_fail("memory touched at %p that was freed at %p", pc, found->freed);
}

void *mc_memcpy(void *restrict to, const void *restrict from, size_t size)
{
    if (mc_self() >= 0) {
        mc_access((uintptr_t)from, size, false, false, PC);
        mc_access((uintptr_t)to, size, true, false, PC);
    }
    return memcpy(to, from, size);
}

void *mc_memset(void *to, int byte, size_t size)
{
    if (mc_self() >= 0) mc_access((uintptr_t)to, size, true, false, PC);
    return memset(to, byte, size);
}
