/* Clock, futex, pages, threads and locks on Linux. */
#define _GNU_SOURCE 1 /* as the build defines it */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/failpoint.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

pg_nanos pg_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (pg_nanos)now.tv_sec * PG_SECOND + now.tv_nsec;
}

pg_nanos pg_deadline_after(pg_nanos timeout)
{
    pg_nanos deadline;
    if (timeout <= 0) return PG_NEVER_WAIT;
    if (__builtin_add_overflow(pg_now(), timeout, &deadline)) return PG_FOREVER;
    return deadline;
}

int pg_cpu_count(void)
{
    cpu_set_t set;
    long count = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
    if (count <= 0) count = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than cpu_set_t holds */
    return count > 0 ? (int)count : 1;
}

size_t pg_page_size(void)
{
    static atomic_size_t cached;
    size_t size = pg_load_relaxed(&cached);
    if (size == 0) {
        size = (size_t)sysconf(_SC_PAGESIZE);
        pg_store_relaxed(&cached, size);
    }
    return size;
}

/* ---- futex ---- */

int pg_futex_wait(atomic_uint *word, unsigned expected, pg_nanos deadline)
{
    struct timespec at, *limit = NULL;
    int saved = errno, injected = pg_fails_with(futex_wait); /* whoever meets a busy lock keeps his errno */
    if (PG_UNLIKELY(injected != 0)) return injected == EAGAIN ? PG_OK : PG_EINTERRUPTED;
    if (deadline != PG_FOREVER) {
        if (deadline < 0) deadline = 0;
        at.tv_sec = deadline / PG_SECOND;
        at.tv_nsec = deadline % PG_SECOND;
        limit = &at;
    }
    /* FUTEX_WAIT_BITSET takes an absolute time, on the monotonic clock. */
    int failed = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, limit, NULL,
                         FUTEX_BITSET_MATCH_ANY) == 0 ? 0 : errno;
    errno = saved;
    switch (failed) {
    case 0:
    case EAGAIN: return PG_OK;
    case ETIMEDOUT: return PG_ETIMEDOUT;
    case EINTR: return PG_EINTERRUPTED;
    default: pg_fatal("futex wait failed with errno %d", failed);
    }
}

void pg_futex_wake(atomic_uint *word, int count)
{
    int saved = errno; /* EFAULT is possible and harmless, see the header */
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
    errno = saved;
}

void pg_lock_slow(pg_lock *lock)
{
    for (int spin = 0; spin < 64; spin++) {
        unsigned expected = 0;
        pg_cpu_relax();
        if (pg_load_relaxed(&lock->word) == 0 && pg_cas_acqrel(&lock->word, &expected, 1)) return;
    }
    while (pg_exchange_acqrel(&lock->word, 2) != 0) (void)pg_futex_wait(&lock->word, 2, PG_FOREVER);
}

void pg_nanosleep(pg_nanos duration)
{
    struct timespec span = {duration / PG_SECOND, duration % PG_SECOND};
    nanosleep(&span, NULL);
}

/* ---- pages ---- */

static atomic_int light_guards = -1; /* -1 not yet known */

void *pg_pages_reserve(size_t size)
{
    if (pg_fails(pages_reserve)) return NULL;
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return NULL;
    if (!pg_fails(pages_advice)) madvise(start, size, MADV_NOHUGEPAGE); /* a parked task must cost one page, not one huge page */
    return start;
}

void *pg_pages_reserve_aligned(size_t size)
{
    char *start = pg_pages_reserve(2 * size);
    if (start == NULL) return NULL;
    size_t before = -(uintptr_t)start & (size - 1);
    if (before > 0) pg_pages_free(start, before);
    pg_pages_free(start + before + size, size - before);
    return start + before;
}

void pg_pages_populate(void *start, size_t size)
{
    int saved = errno;
    if (!pg_fails(pages_advice)) madvise(start, size, MADV_POPULATE_WRITE); /* Linux 5.14; advice only */
    errno = saved;
}

void pg_pages_free(void *start, size_t size)
{
    bool refused = pg_fails(pages_free);
    if (!refused && munmap(start, size) == 0) return;
    if (!refused && errno != ENOMEM) pg_fatal("munmap failed with errno %d", errno);
    pg_pages_discard(start, size); /* it would split a mapping, and there are too many: only the memory goes back */
}

bool pg_pages_resident(void *start, size_t size)
{
    enum { AT_ONCE = 512 };
    unsigned char in_memory[AT_ONCE];
    char *at = start, *end = at + size;
    size_t page = pg_page_size();
    for (; at < end; at += AT_ONCE * page) {
        size_t some = (size_t)(end - at) < AT_ONCE * page ? (size_t)(end - at) : AT_ONCE * page;
        if (mincore(at, some, in_memory) != 0) return true; /* who knows */
        for (size_t i = 0; i < some / page; i++)
            if (in_memory[i] & 1) return true;
    }
    return false;
}

void pg_pages_discard(void *start, size_t size)
{
    if (!pg_fails(pages_advice)) madvise(start, size, MADV_DONTNEED); /* advice only: failing, the memory just stays */
}

/* Emulators accept advice that they do not know, so see whether the guard really keeps pages out. */
static bool probe_light_guard(void)
{
    size_t page = pg_page_size();
    void *probe = pg_pages_reserve(page);
    if (probe == NULL) return false;
    bool works = madvise(probe, page, MADV_GUARD_INSTALL) == 0 && madvise(probe, page, MADV_POPULATE_READ) != 0;
    pg_pages_free(probe, page);
    return works;
}

bool pg_guards_are_light(void)
{
    int known = pg_load_relaxed(&light_guards);
    if (known < 0) {
        known = probe_light_guard();
        pg_store_relaxed(&light_guards, known);
    }
    return known != 0;
}

void pg_guards_set_light(bool light) { pg_store_relaxed(&light_guards, light); }

int pg_pages_guard(void *start, size_t size)
{
    if (pg_fails(pages_guard)) return PG_ENOMEM;
    if (pg_guards_are_light() && madvise(start, size, MADV_GUARD_INSTALL) == 0) return PG_OK;
    return mprotect(start, size, PROT_NONE) == 0 ? PG_OK : PG_ENOMEM; /* also where memory is locked (mlockall) */
}

/* ---- threads ---- */

typedef struct start_record {
    void (*body)(void *);
    void *argument;
    char name[16];
} start_record;

static void *thread_main(void *opaque)
{
    start_record record = *(start_record *)opaque;
    free(opaque);
    pthread_setname_np(pthread_self(), record.name);
    record.body(record.argument);
    return NULL;
}

int pg_os_thread_start(void (*body)(void *), void *argument, const char *name)
{
    start_record *record = pg_fails(thread_start) ? NULL : calloc(1, sizeof *record);
    pthread_attr_t attributes;
    pthread_t thread;
    if (record == NULL) return PG_ENOMEM;
    record->body = body;
    record->argument = argument;
    for (size_t i = 0; i + 1 < sizeof record->name && name[i]; i++) record->name[i] = name[i];
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024); /* only the scheduler loop runs on it */
    int failed = pthread_create(&thread, &attributes, thread_main, record);
    pthread_attr_destroy(&attributes);
    if (failed) free(record);
    return failed ? PG_ENOMEM : PG_OK;
}

void pg_os_yield(void) { sched_yield(); }

unsigned long pg_os_thread_id(void) { return (unsigned long)syscall(SYS_gettid); }

/* What such a file of /proc says behind the command, which may hold anything: from the closing parenthesis on, or NULL. */
static const char *read_stat(const char *path, char *text, size_t room)
{
    int saved = errno, file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 || pg_fails(thread_count) ? -1 : read(file, text, room - 1);
    if (file >= 0) (void)close(file);
    errno = saved;
    if (length <= 0) return NULL;
    text[length] = '\0';
    return strrchr(text, ')');
}

int pg_os_thread_count(void)
{
    enum { AFTER_COMMAND = 18 }; /* fields between the command's closing parenthesis and num_threads, see proc(5) */
    char text[1024];
    int count = -1;
    const char *at = read_stat("/proc/self/stat", text, sizeof text);
    for (int field = 0; at != NULL && field < AFTER_COMMAND; field++) at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, "%d", &count) == 1 ? count : -1;
}

bool pg_os_thread_wants_cpu(unsigned long id)
{
    char path[64], text[1024];
    (void)snprintf(path, sizeof path, "/proc/self/task/%lu/stat", id);
    const char *at = read_stat(path, text, sizeof text);
    return at != NULL && at[1] == ' ' && at[2] == 'R';
}

bool pg_os_is_main_thread(void) { return pg_os_thread_id() == (unsigned long)getpid(); }

/* ---- thread-locals ---- */

static _Thread_local void *tls_slot;
static pthread_key_t exit_key; /* only for its destructor */

PG_NOINLINE void *pg_tls_get(void)
{
    __asm__ volatile(""); /* not pure: the answer changes across a context switch */
    return tls_slot;
}

PG_NOINLINE void pg_tls_set(void *value)
{
    tls_slot = value;
    pthread_setspecific(exit_key, value);
}

PG_NOINLINE int pg_errno_get(void)
{
    __asm__ volatile("");
    return errno;
}

PG_NOINLINE void pg_errno_set(int value)
{
    __asm__ volatile("");
    errno = value;
}

void pg_tls_on_thread_exit(void (*destroy)(void *))
{
    if (pthread_key_create(&exit_key, destroy) != 0) pg_fatal("no thread-local key left");
}
