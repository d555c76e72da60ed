/* Context switch through ucontext, for CPUs without an assembly file. Slow: two system calls per switch, because
 * swapcontext also swaps the signal mask. A context thus carries the mask of the thread that prepared it.
 *
 * The word that names a suspended context points at the record on its own stack, which lives as long as it is
 * suspended. Unwinders that run on the stack of pg_switch_call_on do not see the caller.
 */
#include "machine/switch.h"

#ifdef PG_SWITCH_PORTABLE

#include <fenv.h>
#include <string.h>
#include <ucontext.h>

typedef struct context {
    ucontext_t machine;
    fenv_t floating; /* swapcontext need not save all of it */
    void *value;     /* what the switch that resumes it passes */
    void (*entry)(void *value);
} context;

void *pg_switch(void **save, void *resume, void *value)
{
    context here, *next = resume;
    memset(&here.machine.uc_stack, 0, sizeof here.machine.uc_stack); /* sanitizers look at it */
    fegetenv(&here.floating);
    *save = &here;
    next->value = value;
    if (swapcontext(&here.machine, &next->machine) != 0) pg_fatal("swapcontext failed");
    fesetenv(&here.floating);
    return here.value;
}

/* makecontext passes ints, so a pointer comes in two halves. */
static void start(unsigned high, unsigned low)
{
    context *self = (context *)(uintptr_t)((uint64_t)high << 32 | low);
    fesetenv(FE_DFL_ENV);
    self->entry(self->value);
    pg_fatal("an entry function returned");
}

void *pg_switch_prepare(void *top, void (*entry)(void *value))
{
    pg_check(((uintptr_t)top & 15) == 0);
    context *fresh = (context *)(((uintptr_t)top - sizeof(context)) & ~(uintptr_t)63);
    uint64_t address = (uintptr_t)fresh;
    if (getcontext(&fresh->machine) != 0) pg_fatal("getcontext failed");
    fresh->machine.uc_link = NULL;
    fresh->machine.uc_stack.ss_size = 1024; /* nobody checks the size; only the end matters */
    fresh->machine.uc_stack.ss_sp = (char *)fresh - fresh->machine.uc_stack.ss_size;
    fresh->entry = entry;
    makecontext(&fresh->machine, (void (*)(void))start, 2, (unsigned)(address >> 32), (unsigned)address);
    return fresh;
}

typedef struct call {
    void *(*function)(void *argument);
    void *argument; /* then the result */
    fenv_t floating;
    void *caller, *callee; /* contexts */
} call;

static void call_entry(void *value)
{
    call *record = value;
    fesetenv(&record->floating); /* a call, not a fresh context */
    record->argument = record->function(record->argument);
    fegetenv(&record->floating);
    pg_switch(&record->callee, record->caller, NULL);
}

void *pg_switch_call_on(void *top, void *(*function)(void *), void *argument)
{
    call record = {.function = function, .argument = argument};
    fegetenv(&record.floating);
    pg_switch(&record.caller, pg_switch_prepare(top, call_entry), &record);
    fesetenv(&record.floating);
    return record.argument;
}

#endif
