/* Stacks: reserved address ranges that grow by being touched, in two size classes, and their cache.
 *
 *      low address                                                                       high address
 *      | guard | reserved, untouched ................. | touched pages <- grows | header area | (next stack)
 *
 * A guard is wide enough that no frame of the interpreter and its standard library steps over it into the stack below:
 * that of select.select takes 49 KiB.
 *
 * A stack costs address space and page tables until a page is touched; the kernel supplies pages as the stack grows
 * down. Nothing ever moves. Stacks of one class are cut from slabs, so that a stack is not a mapping of its own
 * (vm.max_map_count), and stay reserved when free; pages that a stack has touched below its top page are given back
 * when it returns to the cache (pg_stack_put), not on the hot path of a task that only used its top page. Stacks for
 * single calls come and go too quickly for that: the last few stay warm, as the call left them, until pg_stack_cool.
 *
 * Locks: the cache has one, short. Any thread may call any function.
 */
#ifndef PG_STACK_H
#define PG_STACK_H

#include "base/base.h"

typedef struct pg_stack {
    char *base;   /* lowest usable address, just above the guard of pg_stack_guard_size bytes */
    char *top;    /* one past the highest usable address, page aligned */
    bool guarded; /* false when there are too many (mapping limit) or the kernel refused: counted in pg_stack_stats */
    bool large;   /* of the large class, which the cache hands out first, or of an odd size beyond it */
    bool own;     /* an odd size with a mapping of its own, unmapped when it is put back */
#ifdef PG_VALGRIND
    unsigned noted; /* its number there */
#endif
} pg_stack;

typedef struct pg_stack_stats {
    size_t in_use, cached, mapped_bytes, unguarded;
} pg_stack_stats;

/* Set the usable size of the small class for stacks mapped from now on; rounded up to pages; PG_EINVAL below 64 KiB. */
int pg_stack_set_default_size(size_t size);
size_t pg_stack_default_size(void);

/* A stack of at least `size` usable bytes; 0 means: whichever class is at hand, large ones first. PG_ENOMEM when
 * the system refuses. */
int pg_stack_get(pg_stack *stack, size_t size);
void pg_stack_put(pg_stack *stack);

/* Likewise, from and to the few that are warm. */
int pg_stack_get_warm(pg_stack *stack, size_t size);
/* True: it is the first that is warm, so that somebody has to cool it. */
bool pg_stack_put_warm(pg_stack *stack);
/* Give back the memory of the warm ones unless one has been handed out since the last time. */
void pg_stack_cool(void);
bool pg_stack_any_warm(void);

/* Give back the pages of a stack in use that lie below `keep_from`. False: there are none in memory, as far as the pages
 * nearest to it tell. */
bool pg_stack_trim(pg_stack *stack, char *keep_from);

static inline size_t pg_stack_size(const pg_stack *stack) { return (size_t)(stack->top - stack->base); }
size_t pg_stack_guard_size(void);
/* Safe in a signal handler. */
bool pg_stack_is_guard(const pg_stack *stack, const char *address);

void pg_stack_read_stats(pg_stack_stats *stats);
/* Around a fork: hold the cache's lock; let it go in parent and child. */
void pg_stack_before_fork(void);
void pg_stack_after_fork(void);

#endif
