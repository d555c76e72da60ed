/* Clock, futex, locks, pages and the thread-local slot. */
#include "os/os.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

static void deadlines_do_not_overflow(void)
{
    pg_nanos before = pg_now(), deadline = pg_deadline_after(PG_SECOND);
    CHECK(deadline >= before + PG_SECOND && deadline <= pg_now() + PG_SECOND);
    CHECK_EQ(pg_deadline_after(INT64_MAX), PG_FOREVER);
    CHECK_EQ(pg_deadline_after(PG_FOREVER - 1), PG_FOREVER);
    CHECK_EQ(pg_deadline_after(0), PG_NEVER_WAIT);
    CHECK_EQ(pg_deadline_after(-5), PG_NEVER_WAIT);
}

static void there_is_a_cpu_and_a_page(void)
{
    CHECK(pg_cpu_count() >= 1);
    CHECK(pg_page_size() >= 4096 && (pg_page_size() & (pg_page_size() - 1)) == 0);
}

/* ---- futex ---- */

static void a_futex_wait_ends_by_value_or_deadline(void)
{
    atomic_uint word = 7;
    errno = 78;
    CHECK_EQ(pg_futex_wait(&word, 6, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_futex_wait(&word, 7, PG_NEVER_WAIT), PG_ETIMEDOUT);
    CHECK_EQ(pg_futex_wait(&word, 7, 0), PG_ETIMEDOUT);
    pg_nanos deadline = pg_deadline_after(PG_SECOND / 100);
    CHECK_EQ(pg_futex_wait(&word, 7, deadline), PG_ETIMEDOUT);
    CHECK(pg_now() >= deadline);
    CHECK_EQ(errno, 78);
}

static void *futex_sleeper(void *argument)
{
    atomic_uint *word = argument;
    while (pg_load_acquire(word) == 0) CHECK_EQ(pg_futex_wait(word, 0, PG_FOREVER), PG_OK);
    return NULL;
}

static void a_futex_wake_reaches_every_sleeper(void)
{
    atomic_uint word = 0;
    pthread_t sleepers[4];
    for (int i = 0; i < 4; i++) sleepers[i] = check_thread(futex_sleeper, &word);
    pg_store_release(&word, 1);
    errno = 77;
    pg_futex_wake(&word, INT_MAX);
    pg_futex_wake((atomic_uint *)16, 1); /* the word may be gone by the time of the wake */
    CHECK_EQ(errno, 77);
    for (int i = 0; i < 4; i++) check_join(sleepers[i]);
}

static void on_signal(int number) { (void)number; }

static void *interrupted_sleeper(void *argument)
{
    return (void *)(intptr_t)pg_futex_wait(argument, 0, PG_FOREVER);
}

static void a_signal_interrupts_a_futex_wait(void)
{
    atomic_uint word = 0;
    struct sigaction action = {.sa_handler = on_signal}, before;
    struct timespec pause = {0, 1000000};
    sigaction(SIGUSR1, &action, &before);
    pthread_t sleeper = check_thread(interrupted_sleeper, &word);
    void *result;
    while (pthread_tryjoin_np(sleeper, &result) != 0) { /* until one of them finds it asleep */
        pthread_kill(sleeper, SIGUSR1);
        nanosleep(&pause, NULL);
    }
    CHECK_EQ((intptr_t)result, PG_EINTERRUPTED);
    sigaction(SIGUSR1, &before, NULL);
}

/* ---- locks ---- */

static struct {
    pg_lock lock;
    long count; /* lock */
    int rounds;
} counter;

static void *counter_body(void *unused)
{
    for (int i = 0; i < counter.rounds; i++) {
        if (i % 8 != 0 || !pg_lock_try(&counter.lock)) pg_lock_acquire(&counter.lock);
        counter.count++;
        pg_lock_release(&counter.lock);
    }
    return unused;
}

static void a_lock_excludes(void)
{
    pthread_t threads[4];
    pg_lock_init(&counter.lock);
    counter.rounds = check_rounds(300000);
    for (int i = 0; i < 4; i++) threads[i] = check_thread(counter_body, NULL);
    for (int i = 0; i < 4; i++) check_join(threads[i]);
    CHECK_EQ(counter.count, 4L * counter.rounds);
    CHECK(pg_lock_try(&counter.lock));
    CHECK(!pg_lock_try(&counter.lock));
    pg_lock_release(&counter.lock);
}

/* ---- pages ---- */

static void discarded_pages_read_as_zero(void)
{
    size_t page = pg_page_size();
    char *start = pg_pages_reserve(4 * page);
    CHECK(start != NULL);
    memset(start, 1, 4 * page);
    pg_pages_discard(start + page, 2 * page);
    CHECK_EQ(start[page - 1], 1);
    CHECK_EQ(start[page], 0);
    CHECK_EQ(start[3 * page - 1], 0);
    CHECK_EQ(start[3 * page], 1);
    pg_pages_free(start, 4 * page);
}

static void a_huge_reservation_is_refused(void) { CHECK(pg_pages_reserve((size_t)1 << 60) == NULL); }

static char *guarded; /* for the child */

static void touch_guard(void)
{
    signal(SIGSEGV, SIG_DFL);
    guarded[0] = 1;
}

static void check_guard_faults(bool light)
{
    size_t page = pg_page_size();
    bool before = pg_guards_are_light();
    pg_guards_set_light(light);
    char *start = pg_pages_reserve(3 * page);
    CHECK_EQ(pg_pages_guard(start + page, page), PG_OK);
    start[page - 1] = start[2 * page] = 1;
    guarded = start + page;
    int status = check_child(touch_guard);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    pg_pages_discard(start, 3 * page);
    status = check_child(touch_guard);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    pg_pages_free(start, 3 * page);
    pg_guards_set_light(before);
}

static void protected_guards_fault(void) { check_guard_faults(false); }

static void light_guards_fault(void)
{
    if (!pg_guards_are_light()) SKIP("the kernel has no lightweight guards");
    check_guard_faults(true);
}

static void lock_memory_and_guard(void)
{
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    size_t page = pg_page_size();
    (void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
    if (mlockall(MCL_FUTURE) != 0) _exit(0); /* not allowed here */
    char *start = pg_pages_reserve(2 * page);
    CHECK_EQ(pg_pages_guard(start, page), PG_OK);
    start[page] = 1;
    guarded = start;
    touch_guard();
}

static void locked_memory_gets_guards_too(void)
{
    if (CHECK_SANITIZED) SKIP("locking all memory stops the sanitizer itself");
    int status = check_child(lock_memory_and_guard);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) || status == 0);
}

/* ---- threads ---- */

static atomic_int destroyed;
static void destroy_slot(void *value) { pg_add_seqcst(&destroyed, *(int *)value); }

static void *slot_body(void *value)
{
    CHECK(pg_tls_get() == NULL);
    if (value != NULL) pg_tls_set(value);
    CHECK(pg_tls_get() == value);
    pg_errno_set(5);
    CHECK_EQ(errno, 5);
    errno = 6;
    CHECK_EQ(pg_errno_get(), 6);
    return NULL;
}

static void the_slot_is_private_and_destroyed_with_its_thread(void)
{
    int ten = 10, one = 1;
    pg_tls_on_thread_exit(destroy_slot);
    pthread_t first = check_thread(slot_body, &ten), second = check_thread(slot_body, &one);
    pthread_t without = check_thread(slot_body, NULL);
    check_join(first), check_join(second), check_join(without);
    CHECK(pg_tls_get() == NULL);
    CHECK_EQ(pg_load_seqcst(&destroyed), 11);
}

static void started_body(void *word)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    CHECK(strcmp(name, "a-name-too-long") == 0);
    pg_store_release((atomic_uint *)word, 1);
    pg_futex_wake(word, 1);
}

static void a_thread_starts_with_its_name_cut(void)
{
    static atomic_uint word;
    CHECK_EQ(pg_os_thread_start(started_body, &word, "a-name-too-long-for-linux"), PG_OK);
    futex_sleeper(&word);
}

int main(void)
{
    RUN(deadlines_do_not_overflow);
    RUN(there_is_a_cpu_and_a_page);
    RUN(a_futex_wait_ends_by_value_or_deadline);
    RUN(a_futex_wake_reaches_every_sleeper);
    RUN(a_signal_interrupts_a_futex_wait);
    RUN(a_lock_excludes);
    RUN(discarded_pages_read_as_zero);
    RUN(a_huge_reservation_is_refused);
    RUN(protected_guards_fault);
    RUN(light_guards_fault);
    RUN(locked_memory_gets_guards_too);
    RUN(the_slot_is_private_and_destroyed_with_its_thread);
    RUN(a_thread_starts_with_its_name_cut);
    return 0;
}
