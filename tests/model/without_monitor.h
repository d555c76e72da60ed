/* The rest of the core, for models of workers without the monitor, fault handlers and bubbles. */
#ifndef WITHOUT_MONITOR_H
#define WITHOUT_MONITOR_H

#include "explore.h"
#include "os/fault.h"
#include "sched/bubble.h"
#include "sched/internal.h"

void pg_monitor_wake(void) {}
void pg_monitor_start_locked(void) {}
bool pg_threads_lacking(void) { return false; }
void pg_overflow_setup(void) {}
void *pg_fault_stack_take(void) { return NULL; }
void pg_fault_stack_drop(void *stack) { (void)stack; }
ABSENT_VOID(pg_threads_retry, (void))
atomic_int pg_bubble_count;

#endif
