/* Saying why, when a stack has run into its guard: one SIGSEGV handler for the process, which the runtime never needs
 * in normal operation, and alternate signal stacks for the threads, for the handler finds no room on a full stack.
 */
#ifndef PG_FAULT_H
#define PG_FAULT_H

#include "base/base.h"

typedef struct pg_fault_hooks {
    /* In a signal handler: whether the address lies in a guard of the stack that the calling thread runs on. */
    bool (*is_overflow)(const char *address);
    /* Then, once: say so. */
    void (*report)(const char *address);
} pg_fault_hooks;

/* Install the handler, above whatever is there; the second and further calls do nothing. */
void pg_fault_install(const pg_fault_hooks *hooks);

/* Give the calling thread an alternate signal stack unless it has one; NULL: none was needed, or to be had. */
void *pg_fault_stack_take(void);
/* The same thread, before it ends. */
void pg_fault_stack_drop(void *alternate);

#endif
