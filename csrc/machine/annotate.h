/* What the tools that watch memory are told of stacks; nothing in ordinary builds.
 *
 * AddressSanitizer must know the bounds of the stack that runs, or it takes the frames that an exception of C++ or a longjmp
 * leaves for live ones. So whoever switches says where to, and who arrives says so. Stacks given up for good (ended fibers
 * in the pool) keep no fake frames: detect_stack_use_after_return must be off, for a frame must lie on its task's stack.
 *
 * valgrind (-DPG_VALGRIND, with its header) must know all stacks that are in use, or a switch looks to it like one huge frame.
 * ThreadSanitizer is told by sched/ itself: it counts fibers, not stacks.
 */
#ifndef PG_ANNOTATE_H
#define PG_ANNOTATE_H

#include "machine/stack.h"

#ifdef PG_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/* The last thing before a switch; what it returns is for the note of the arrival back here. */
static inline void *pg_note_departure(const char *base, size_t size)
{
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, base, size);
    return fake;
}
/* The first thing on a stack after a switch to it; NULL on a new one. The second says which stack that came from. */
static inline void pg_note_arrival(void *fake) { __sanitizer_finish_switch_fiber(fake, NULL, NULL); }
static inline void pg_note_arrival_from(void *fake, const char **base, size_t *size)
{
    __sanitizer_finish_switch_fiber(fake, (const void **)base, size);
}

static inline void pg_note_unpoison(char *base, size_t size) { __asan_unpoison_memory_region(base, size); }

/* The stack that the system has given the calling thread. */
static inline void pg_note_own_stack(char **base, size_t *size)
{
    pthread_attr_t attributes;
    void *start = NULL;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) pg_fatal("no bounds of the stack");
    pthread_attr_getstack(&attributes, &start, size);
    pthread_attr_destroy(&attributes);
    *base = start;
}

#else
static inline void *pg_note_departure(const char *base, size_t size) { return (void)base, (void)size, NULL; }
static inline void pg_note_arrival(void *fake) { (void)fake; }
static inline void pg_note_arrival_from(void *fake, const char **base, size_t *size) { (void)fake, (void)base, (void)size; }
static inline void pg_note_unpoison(char *base, size_t size) { (void)base, (void)size; }
static inline void pg_note_own_stack(char **base, size_t *size) { *base = NULL, *size = 0; }
#endif

#ifdef PG_VALGRIND
#include <valgrind/memcheck.h>
static inline void pg_note_in_use(pg_stack *stack) { stack->noted = VALGRIND_STACK_REGISTER(stack->base, stack->top); }
/* To whoever gets it next, what was below the stack pointer of its last user may be written again. */
static inline void pg_note_fresh(pg_stack *stack) { VALGRIND_MAKE_MEM_UNDEFINED(stack->base, pg_stack_size(stack)); }
static inline void pg_note_given_back(pg_stack *stack) { VALGRIND_STACK_DEREGISTER(stack->noted); }
#else
static inline void pg_note_in_use(pg_stack *stack) { (void)stack; }
static inline void pg_note_fresh(pg_stack *stack) { (void)stack; }
static inline void pg_note_given_back(pg_stack *stack) { (void)stack; }
#endif

#endif
