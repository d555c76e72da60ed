/* Slabs and the cache of stacks, see stack.h. */
#include "machine/stack.h"

#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "machine/annotate.h"
#include "os/os.h"

enum {
    SMALL_DEFAULT = 256 * 1024,
    SMALL_FLOOR = 64 * 1024, /* CPython 3.14 needs 48 KiB for its own margins */
    LARGE_SIZE = 8 * 1024 * 1024,
    GUARD_LEAST = 60 * 1024,
    LARGE_LIMIT = 2048, /* 16 GiB of address space; each costs a page-table page of its own when touched */
    PROTECTED_LIMIT = 16 * 1024, /* an mprotect guard costs two mappings, of 65,530 by default (vm.max_map_count) */
    SMALL_PER_SLAB = 64,
    LARGE_PER_SLAB = 4,
    WARM = 4,
};

#define SIZE_LIMIT ((size_t)1 << 40)

typedef struct stack_class {
    pg_stack *cached; /* a heap array, not a list through the stacks: that would touch their pages */
    size_t count, capacity, cut;
} stack_class;

static struct {
    pg_lock lock;
    stack_class small, large; /* lock */
    size_t default_size;      /* lock; 0 means SMALL_DEFAULT */
    size_t guarded;           /* lock; stacks mapped with a guard */
    pg_stack warm[WARM];      /* lock; oldest first, as is: */
    size_t warm_count;
    bool warm_used;           /* lock; since pg_stack_cool looked */
    pg_stack_stats stats;     /* lock */
} cache;

static size_t round_to_pages(size_t size)
{
    size_t page = pg_page_size();
    return (size + page - 1) & ~(page - 1);
}

/* An odd number of pages, so that the tops of stacks share neither cache sets nor those of the TLB. */
size_t pg_stack_guard_size(void)
{
    size_t page = pg_page_size();
    return (round_to_pages(GUARD_LEAST) / page | 1) * page;
}

bool pg_stack_is_guard(const pg_stack *stack, const char *address)
{
    return stack->guarded && address < stack->base && (size_t)(stack->base - address) <= pg_stack_guard_size();
}

static size_t default_size_locked(void) { return cache.default_size ? cache.default_size : SMALL_DEFAULT; }

int pg_stack_set_default_size(size_t size)
{
    if (size < SMALL_FLOOR || size > SIZE_LIMIT) return PG_EINVAL;
    pg_lock_acquire(&cache.lock);
    cache.default_size = round_to_pages(size);
    pg_lock_release(&cache.lock);
    return PG_OK;
}

size_t pg_stack_default_size(void)
{
    pg_lock_acquire(&cache.lock);
    size_t size = default_size_locked();
    pg_lock_release(&cache.lock);
    return size;
}

/* Room for `count` more, so that a later push cannot fail. */
static bool class_make_room(stack_class *class, size_t count)
{
    size_t wanted = class->cut + count;
    if (wanted <= class->capacity) return true;
    size_t capacity = class->capacity ? class->capacity : 64;
    while (capacity < wanted) capacity *= 2;
    pg_stack *grown = pg_fails(stack_list) ? NULL : realloc(class->cached, capacity * sizeof *grown);
    if (grown == NULL) return false;
    class->cached = grown;
    class->capacity = capacity;
    return true;
}

/* Without lightweight guards only so many stacks get one: the mapping limit is the whole process's, and a stack without
 * a guard beats one that cannot be had, or a thread that cannot start. */
static void guard_stack(pg_stack *stack)
{
    bool affordable = pg_guards_are_light() || cache.guarded < PROTECTED_LIMIT;
    stack->guarded = affordable && pg_pages_guard(stack->base - pg_stack_guard_size(), pg_stack_guard_size()) == PG_OK;
    *(stack->guarded ? &cache.guarded : &cache.stats.unguarded) += 1;
}

/* Map a slab and push its stacks. Falls back to a single stack when the address space is tight. */
static int class_cut_slab(stack_class *class, size_t size, size_t count)
{
    size_t guard = pg_stack_guard_size(), stride = guard + size;
    char *slab = NULL;
    for (; count > 0; count = count > 1 ? 1 : 0) {
        if (!class_make_room(class, count)) return PG_ENOMEM;
        slab = pg_pages_reserve(stride * count);
        if (slab != NULL) break;
    }
    if (slab == NULL) return PG_ENOMEM;
    for (size_t i = count; i-- > 0;) { /* pushed so that the lowest is popped first */
        pg_stack *stack = &class->cached[class->count++];
        char *start = slab + i * stride;
        *stack = (pg_stack){.base = start + guard, .top = start + stride, .large = class == &cache.large};
        guard_stack(stack);
    }
    class->cut += count;
    cache.stats.mapped_bytes += stride * count;
    return PG_OK;
}

static int get_own(pg_stack *stack, size_t size)
{
    size_t guard = pg_stack_guard_size();
    char *start = pg_pages_reserve(guard + size);
    if (start == NULL) return PG_ENOMEM;
    *stack = (pg_stack){.base = start + guard, .top = start + guard + size, .large = true, .own = true};
    guard_stack(stack);
    cache.stats.mapped_bytes += guard + size;
    return PG_OK;
}

static void unmap(pg_stack *stack)
{
    size_t guard = pg_stack_guard_size();
    *(stack->guarded ? &cache.guarded : &cache.stats.unguarded) -= 1;
    cache.stats.mapped_bytes -= guard + pg_stack_size(stack);
    pg_pages_free(stack->base - guard, guard + pg_stack_size(stack));
}

static int class_pop(stack_class *class, pg_stack *stack, size_t size)
{
    while (class->count > 0) {
        *stack = class->cached[--class->count];
        if (pg_stack_size(stack) >= size) return PG_OK;
        class->cut--; /* cut before the default size was raised */
        unmap(stack);
    }
    return PG_EAGAIN;
}

static int get_locked(pg_stack *stack, size_t size)
{
    size_t small = default_size_locked();
    if (size > LARGE_SIZE) return get_own(stack, size);
    if (size == 0 || size > small) {
        if (class_pop(&cache.large, stack, LARGE_SIZE) == PG_OK) return PG_OK;
        if (cache.large.cut < LARGE_LIMIT && class_cut_slab(&cache.large, LARGE_SIZE, LARGE_PER_SLAB) == PG_OK)
            return class_pop(&cache.large, stack, LARGE_SIZE);
        if (size > small) return get_own(stack, size);
    }
    if (class_pop(&cache.small, stack, small) == PG_OK) return PG_OK;
    if (class_cut_slab(&cache.small, small, SMALL_PER_SLAB) != PG_OK) return PG_ENOMEM;
    return class_pop(&cache.small, stack, small);
}

int pg_stack_get(pg_stack *stack, size_t size)
{
    if (size > SIZE_LIMIT) return PG_ENOMEM; /* before rounding, which could wrap to 0 */
    size = round_to_pages(size);
    pg_lock_acquire(&cache.lock);
    int outcome = get_locked(stack, size);
    if (outcome == PG_OK) cache.stats.in_use++;
    pg_lock_release(&cache.lock);
    if (outcome == PG_OK) {
        pg_note_in_use(stack);
        pg_note_fresh(stack);
    }
    return outcome;
}

void pg_stack_put(pg_stack *stack)
{
    pg_note_unpoison(stack->base, pg_stack_size(stack)); /* frames left for good poisoned it */
    pg_note_given_back(stack);
    if (!stack->own) pg_pages_discard(stack->base, pg_stack_size(stack));
    pg_lock_acquire(&cache.lock);
    cache.stats.in_use--;
    if (stack->own) {
        unmap(stack);
    } else {
        stack_class *class = stack->large ? &cache.large : &cache.small;
        class->cached[class->count++] = *stack; /* room was made when it was cut */
    }
    pg_lock_release(&cache.lock);
}

/* ---- warm ones ---- */

/* At most WARM, so moving them costs nothing. */
static pg_stack take_warm(size_t at)
{
    pg_stack stack = cache.warm[at];
    cache.warm_count--;
    memmove(cache.warm + at, cache.warm + at + 1, (cache.warm_count - at) * sizeof stack);
    return stack;
}

static bool suits(const pg_stack *stack, size_t size)
{
    return pg_stack_size(stack) >= size && (!stack->large || size > default_size_locked());
}

int pg_stack_get_warm(pg_stack *stack, size_t size)
{
    pg_lock_acquire(&cache.lock);
    size_t at = cache.warm_count;
    while (at > 0 && !suits(&cache.warm[at - 1], size)) at--;
    if (at > 0) {
        *stack = take_warm(at - 1);
        cache.warm_used = true;
        cache.stats.in_use++;
    }
    pg_lock_release(&cache.lock);
    if (at == 0) return pg_stack_get(stack, size);
    pg_note_fresh(stack);
    return PG_OK;
}

bool pg_stack_put_warm(pg_stack *stack)
{
    pg_stack oldest;
    pg_note_unpoison(stack->base, pg_stack_size(stack));
    pg_lock_acquire(&cache.lock);
    bool full = cache.warm_count == WARM;
    if (full) oldest = take_warm(0); /* counted as in use until it is put back below */
    else cache.stats.in_use--;
    cache.warm[cache.warm_count++] = *stack;
    bool first = cache.warm_count == 1;
    pg_lock_release(&cache.lock);
    if (full) pg_stack_put(&oldest);
    return first;
}

void pg_stack_cool(void)
{
    pg_stack stack;
    pg_lock_acquire(&cache.lock);
    bool used = cache.warm_used;
    cache.warm_used = false;
    while (!used && cache.warm_count > 0) {
        stack = take_warm(cache.warm_count - 1);
        cache.stats.in_use++;
        pg_lock_release(&cache.lock);
        pg_stack_put(&stack);
        pg_lock_acquire(&cache.lock);
    }
    pg_lock_release(&cache.lock);
}

bool pg_stack_any_warm(void)
{
    pg_lock_acquire(&cache.lock);
    bool any = cache.warm_count > 0;
    pg_lock_release(&cache.lock);
    return any;
}

bool pg_stack_trim(pg_stack *stack, char *keep_from)
{
    enum { LOOK_AT = 256 * 1024 }; /* nearest to what is kept: whoever was deeper has gone through it */
    char *end = (char *)((uintptr_t)keep_from & ~(uintptr_t)(pg_page_size() - 1));
    if (end <= stack->base) return false;
    char *start = end - stack->base > LOOK_AT ? end - LOOK_AT : stack->base;
    if (!pg_pages_resident(start, (size_t)(end - start))) return false;
    pg_pages_discard(stack->base, (size_t)(end - stack->base));
    return true;
}

void pg_stack_read_stats(pg_stack_stats *stats)
{
    pg_lock_acquire(&cache.lock);
    *stats = cache.stats;
    stats->cached = cache.small.count + cache.large.count + cache.warm_count;
    pg_lock_release(&cache.lock);
}

void pg_stack_before_fork(void) { pg_lock_acquire(&cache.lock); }

void pg_stack_after_fork(void) { pg_lock_release(&cache.lock); }
