/* Stack segments of calls, and what is said when a task has used up the stack it runs on.
 *
 * The interpreter stops recursion of its own in time, from the size it is told; what runs into a guard is C code that
 * recurses, or takes large buffers, without asking it. The report runs in a signal handler, so it reads what belongs to
 * the calling thread, without locks, and writes with one system call.
 */
#include "os/fault.h"
#include "sched/internal.h"

#include <stdio.h>
#include <unistd.h>

static pg_segment **innermost(pg_thread *thread)
{
    pg_fiber *fiber = thread->worker != NULL ? thread->worker->current : NULL;
    return fiber != NULL ? &fiber->segment : &thread->segment;
}

int pg_sched_segment_link(pg_segment *segment, size_t size)
{
    if (pg_sched_self() == NULL) return PG_ENOMEM; /* it also makes the record of a thread */
    pg_thread *thread = pg_tls_get();
    pg_fiber *fiber = pg_sched_fiber();
    if (fiber != NULL && fiber->bound) return PG_EINVAL;
    if (pg_stack_get_warm(&segment->stack, size) != PG_OK) return PG_ENOMEM;
    if (PG_UNLIKELY(thread->worker == NULL && thread->alternate == NULL)) {
        pg_overflow_setup();
        thread->alternate = pg_fault_stack_take();
    }
    pg_segment **link = innermost(thread);
    segment->outer = *link;
    *link = segment;
    return PG_OK;
}

void pg_sched_segment_unlink(pg_segment *segment)
{
    *innermost(pg_tls_get()) = segment->outer;
    if (pg_stack_put_warm(&segment->stack)) pg_monitor_wake();
}

/* ---- in a signal handler ---- */

/* The stack whose guard holds the address: the one the calling thread runs on, or one that it will return to. */
static const pg_stack *find_stack(pg_thread *thread, const char *address)
{
    if (thread == NULL) return NULL;
    for (pg_segment *segment = *innermost(thread); segment != NULL; segment = segment->outer)
        if (pg_stack_is_guard(&segment->stack, address)) return &segment->stack;
    pg_fiber *fiber = thread->worker != NULL ? thread->worker->current : NULL;
    return fiber != NULL && pg_stack_is_guard(&fiber->stack, address) ? &fiber->stack : NULL;
}

static bool is_overflow(const char *address) { return find_stack(pg_tls_get(), address) != NULL; }

/* snprintf takes no locks and allocates nothing for formats like these, in glibc and in musl. */
static void report(const char *address)
{
    enum { ROOM = 256 };
    pg_thread *thread = pg_tls_get();
    pg_fiber *fiber = thread->worker != NULL ? thread->worker->current : NULL;
    const pg_stack *stack = find_stack(thread, address);
    char who[ROOM], line[2 * ROOM];
    if (fiber == NULL) snprintf(who, ROOM, "thread %lu", pg_os_thread_id());
    else if (fiber->task == NULL || pg_the_sched.hooks.describe == NULL) snprintf(who, ROOM, "a task");
    else pg_the_sched.hooks.describe(fiber->task, who, ROOM);
    int length = snprintf(line, sizeof line,
                          "pygo: stack overflow in %s: C code has used up %s of %zu KiB; give it more with "
                          "Task(stack_size=...) or call_on_stack\n",
                          who, fiber != NULL && stack == &fiber->stack ? "the task's stack" : "the stack of a call_on_stack",
                          pg_stack_size(stack) / 1024);
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written; /* nobody is left to tell */
}

void pg_overflow_setup(void)
{
    static const pg_fault_hooks hooks = {is_overflow, report};
    pg_fault_install(&hooks);
}
