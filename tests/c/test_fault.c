/* The overflow handler: what it says and when, whom it passes signals on to, and how the process ends; in children. */
#include "os/fault.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "check.h"
#include "os/os.h"

enum { REPORTED = 1, PREVIOUS = 2, LATER = 4 };

static char *guard; /* a page that faults */
static atomic_int *seen; /* shared with the parent */

static bool is_overflow(const char *address) { return address >= guard && address < guard + pg_page_size(); }
static void note_report(const char *address)
{
    CHECK(is_overflow(address));
    atomic_fetch_add(seen, REPORTED << 8);
    atomic_fetch_or(seen, REPORTED);
}

static void install(void)
{
    static const pg_fault_hooks hooks = {is_overflow, note_report};
    pg_fault_install(&hooks);
    pg_fault_install(&hooks); /* the second would be its own predecessor */
    CHECK(pg_fault_stack_take() != NULL);
}

static void touch_guard(void) { *(volatile char *)guard = 1; }
static void touch_nothing(void) { *(char *volatile *)NULL = NULL; }
static void raise_it(void) { raise(SIGSEGV); }

static void plain_handler(int number)
{
    CHECK_EQ(number, SIGSEGV);
    atomic_fetch_or(seen, PREVIOUS);
    errno = EDOM;
}

static void repairing_handler(int number, siginfo_t *info, void *context)
{
    CHECK(number == SIGSEGV && context != NULL);
    atomic_fetch_or(seen, PREVIOUS);
    if (is_overflow(info->si_addr)) return;
    CHECK_EQ(mprotect(info->si_addr, 1, PROT_READ | PROT_WRITE), 0);
}

static void set_handler(void (*plain)(int), void (*full)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_flags = flags | SA_ONSTACK};
    if (full != NULL) action.sa_sigaction = full, action.sa_flags |= SA_SIGINFO;
    else action.sa_handler = plain;
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

/* As faulthandler does: what was there comes back, and the signal is raised again. */
static struct sigaction covered;
static void raising_handler(int number)
{
    atomic_fetch_or(seen, LATER);
    sigaction(number, &covered, NULL);
    raise(number);
}

static void cover(void)
{
    struct sigaction action = {.sa_handler = raising_handler, .sa_flags = SA_NODEFER | SA_ONSTACK};
    sigaction(SIGSEGV, &action, &covered);
}

/* Run body in a child, which must see exactly these things, and end so. */
static void expect(void (*body)(void), int things, int signal_number)
{
    atomic_store(seen, 0);
    int status = check_child(body);
    if (signal_number != 0) CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
    else CHECK_EQ(status, 0);
    CHECK_EQ(atomic_load(seen) & 0xff, things);
    CHECK_EQ(atomic_load(seen) >> 8, (things & REPORTED) != 0); /* once */
}

#define CASE(name, set_up, act)                                                                                       \
    static void name(void)                                                                                            \
    {                                                                                                                 \
        set_up;                                                                                                       \
        act();                                                                                                        \
    }

CASE(hit, install(), touch_guard)
CASE(null, install(), touch_nothing)
CASE(raised, install(), raise_it)
CASE(ignored_hit, (signal(SIGSEGV, SIG_IGN), install()), touch_guard)
CASE(ignored_null, (signal(SIGSEGV, SIG_IGN), install()), touch_nothing)
CASE(ignored_raised, (signal(SIGSEGV, SIG_IGN), install()), raise_it)
CASE(plain_hit, (set_handler(plain_handler, NULL, 0), install()), touch_guard)
CASE(once_null, (set_handler(plain_handler, NULL, SA_RESETHAND), install()), touch_nothing)
CASE(repairing_hit, (set_handler(NULL, repairing_handler, 0), install()), touch_guard)
CASE(covered_hit, (install(), cover()), touch_guard)
CASE(covered_null, (install(), cover()), touch_nothing)
CASE(covered_raised, (install(), cover()), raise_it)

static void plain_raised(void)
{
    set_handler(plain_handler, NULL, 0);
    install();
    errno = ERANGE;
    raise(SIGSEGV);
    raise(SIGSEGV);
    CHECK_EQ(errno, ERANGE);
}

static void repaired(void)
{
    char *page = mmap(NULL, pg_page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    set_handler(NULL, repairing_handler, 0);
    install();
    for (int i = 0; i < 3; i++) { /* a library that works with faults goes on doing so */
        CHECK_EQ(mprotect(page, 1, PROT_NONE), 0);
        *page = 1;
    }
}

static void a_hit_is_reported_and_ends_the_process(void) { expect(hit, REPORTED, SIGSEGV); }
static void other_faults_end_the_process_as_ever(void)
{
    expect(null, 0, SIGSEGV);
    expect(raised, 0, SIGSEGV);
}
static void an_ignored_signal_stays_ignored(void)
{
    expect(ignored_hit, REPORTED, SIGSEGV);
    expect(ignored_null, 0, SIGSEGV);
    expect(ignored_raised, 0, 0);
}
static void what_was_installed_before_is_called(void)
{
    expect(plain_hit, REPORTED | PREVIOUS, SIGSEGV);
    expect(plain_raised, PREVIOUS, 0);
    expect(once_null, PREVIOUS, SIGSEGV);
    expect(repairing_hit, REPORTED | PREVIOUS, SIGSEGV);
    expect(repaired, PREVIOUS, 0);
}
static void a_later_handler_that_raises_again_hides_nothing(void)
{
    expect(covered_hit, REPORTED | LATER, SIGSEGV);
    expect(covered_null, LATER, SIGSEGV);
    expect(covered_raised, LATER, SIGSEGV);
}

static void a_thread_that_has_an_alternate_stack_keeps_it(void)
{
    static char memory[64 * 1024];
    stack_t mine = {.ss_sp = memory, .ss_size = sizeof memory}, before, now;
    CHECK_EQ(sigaltstack(&mine, &before), 0);
    CHECK(pg_fault_stack_take() == NULL);
    pg_fault_stack_drop(NULL);
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK(now.ss_sp == memory && !(now.ss_flags & SS_DISABLE));
    mine = (stack_t){.ss_flags = SS_DISABLE};
    CHECK_EQ(sigaltstack(before.ss_sp != NULL ? &before : &mine, NULL), 0);
}

static void *take_and_drop(void *unused)
{
    stack_t now;
    void *alternate = pg_fault_stack_take();
    CHECK(pg_fault_stack_take() == NULL);
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK(alternate == NULL || now.ss_sp == alternate); /* a sanitizer has given one to each thread */
    CHECK(alternate != NULL || CHECK_SANITIZED);
    pg_fault_stack_drop(alternate);
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK((now.ss_flags & SS_DISABLE) || CHECK_SANITIZED);
    return unused;
}

static void every_thread_can_have_one(void) { check_join(check_thread(take_and_drop, NULL)); }

int main(void)
{
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    guard = mmap(NULL, pg_page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED && guard != MAP_FAILED);
    RUN(a_thread_that_has_an_alternate_stack_keeps_it);
    RUN(every_thread_can_have_one);
    if (CHECK_SANITIZED) return 0; /* the sanitizer takes the faults */
    RUN(a_hit_is_reported_and_ends_the_process);
    RUN(other_faults_end_the_process_as_ever);
    RUN(an_ignored_signal_stays_ignored);
    RUN(what_was_installed_before_is_called);
    RUN(a_later_handler_that_raises_again_hides_nothing);
    return 0;
}
