/* The heap of timers, see timer.h.
 *
 * A 4-ary heap: the children of place i are 4i+1 .. 4i+4. Half as deep as a binary one, and the four children are one
 * cache line: of the array, places begin one before a boundary. A pending timer has an entry, which says where in the heap
 * it stands: heap[entries[timer->entry - 1].at].entry == timer->entry - 1. A timer that is not pending has entry 0, or was
 * forgotten in a fork's child together with its era's heap.
 *
 * next_deadline is sequentially consistent on both sides, so that it can be part of a handshake: who starts a timer
 * stores it and then looks for sleepers; who goes to sleep announces that and then loads it.
 */
#include "sources/timer.h"

#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"

enum { ARITY = 4, FIRST_CAPACITY = 64 };

static size_t whole_lines(size_t size) { return (size + PG_CACHE_LINE - 1) / PG_CACHE_LINE * PG_CACHE_LINE; }

/* Place 0 is the last of a line, so that its four children, and those of each other place, are one. */
enum { LEAD = ARITY - 1 };
static size_t heap_size(uint32_t capacity) { return whole_lines(((size_t)capacity + LEAD) * sizeof(pg_timer_place)); }

static pg_timer_place *allocate(uint32_t capacity)
{
    size_t size = heap_size(capacity) + whole_lines(capacity * sizeof(pg_timer_entry));
    pg_timer_place *block = capacity > 0 && !pg_fails(timer_heap) ? aligned_alloc(PG_CACHE_LINE, size) : NULL;
    return block != NULL ? block + LEAD : NULL;
}

static pg_timer_entry *entries_behind(pg_timer_place *heap, uint32_t capacity)
{
    return (pg_timer_entry *)((char *)(heap - LEAD) + heap_size(capacity));
}

static void release(pg_timer_place *heap)
{
    if (heap != NULL) free(heap - LEAD);
}

void pg_timers_init(pg_timers *timers)
{
    pg_lock_init(&timers->lock);
    timers->heap = NULL;
    timers->entries = NULL;
    timers->count = timers->capacity = timers->used = timers->unused = timers->era = 0;
    pg_store_relaxed(&timers->next_deadline, PG_FOREVER);
}

void pg_timers_free(pg_timers *timers)
{
    for (uint32_t i = 0; i < timers->count; i++) pg_timer_at(timers, i)->entry = 0; /* whoever stops them finds nothing */
    release(timers->heap);
    pg_timers_init(timers);
}

void pg_timers_forget(pg_timers *timers)
{
    uint32_t era = timers->era;
    pg_timers_init(timers);
    timers->era = era + 1;
}

/* ---- the heap, all under the lock ---- */

static bool is_pending(const pg_timers *timers, const pg_timer *timer)
{
    return timer->entry != 0 && timer->era == timers->era;
}

static void place(pg_timers *timers, uint32_t at, pg_timer_place it)
{
    timers->heap[at] = it;
    timers->entries[it.entry].at = at;
}

/* The last to be given back is in a cache. There are as many as places. */
static uint32_t take_entry(pg_timers *timers, pg_timer *timer)
{
    uint32_t entry = timers->unused > 0 ? timers->unused - 1 : timers->used++;
    if (timers->unused > 0) timers->unused = timers->entries[entry].at;
    timers->entries[entry].timer = timer;
    timer->entry = entry + 1;
    timer->era = timers->era;
    return entry;
}

static void give_entry(pg_timers *timers, pg_timer *timer)
{
    uint32_t entry = timer->entry - 1;
    timers->entries[entry].at = timers->unused;
    timers->unused = entry + 1;
    timer->entry = 0;
}

static void sift_up(pg_timers *timers, uint32_t at, pg_timer_place it)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / ARITY;
        if (timers->heap[parent].deadline <= it.deadline) break;
        place(timers, at, timers->heap[parent]);
        at = parent;
    }
    place(timers, at, it);
}

/* The child with the earliest deadline, or `count` when there is none. */
static uint32_t first_child(const pg_timers *timers, uint32_t at)
{
    uint64_t first = (uint64_t)at * ARITY + 1, end = first + ARITY;
    if (first >= timers->count) return timers->count;
    if (end > timers->count) end = timers->count;
    uint32_t best = (uint32_t)first;
    for (uint32_t i = best + 1; i < end; i++)
        if (timers->heap[i].deadline < timers->heap[best].deadline) best = i;
    return best;
}

static void sift_down(pg_timers *timers, uint32_t at, pg_timer_place it)
{
    for (;;) {
        uint32_t child = first_child(timers, at);
        if (child == timers->count || it.deadline <= timers->heap[child].deadline) break;
        place(timers, at, timers->heap[child]);
        at = child;
    }
    place(timers, at, it);
}

static void update_next(pg_timers *timers)
{
    pg_nanos next = timers->count > 0 ? timers->heap[0].deadline : PG_FOREVER;
    if (next != pg_load_relaxed(&timers->next_deadline)) pg_store_seqcst(&timers->next_deadline, next);
}

/* Fill the hole with the last timer, which may belong above or below it. */
static void remove_pending(pg_timers *timers, pg_timer *timer)
{
    uint32_t at = timers->entries[timer->entry - 1].at;
    pg_check(at < timers->count && pg_timer_at(timers, at) == timer);
    pg_nanos deadline = timers->heap[at].deadline;
    pg_timer_place last = timers->heap[--timers->count];
    give_entry(timers, timer);
    if (at == timers->count) return;
    if (last.deadline < deadline) sift_up(timers, at, last);
    else sift_down(timers, at, last);
}

/* ---- the interface ---- */

/* Called without the lock: an allocation may take long. Somebody else may have grown the heap meanwhile. */
static int grow(pg_timers *timers, uint32_t capacity)
{
    pg_timer_place *heap = allocate(capacity);
    if (heap == NULL) return PG_ENOMEM;
    pg_lock_acquire(&timers->lock);
    if (capacity > timers->capacity) {
        pg_timer_place *old = timers->heap;
        pg_timer_entry *entries = entries_behind(heap, capacity);
        if (timers->count > 0) memcpy(heap, old, timers->count * sizeof *heap);
        if (timers->used > 0) memcpy(entries, timers->entries, timers->used * sizeof *entries);
        timers->heap = heap;
        timers->entries = entries;
        timers->capacity = capacity;
        heap = old;
    }
    pg_lock_release(&timers->lock);
    release(heap);
    return PG_OK;
}

int pg_timer_start(pg_timers *timers, pg_timer *timer, pg_nanos deadline, bool *earliest)
{
    pg_lock_acquire(&timers->lock);
    while (timers->count == timers->capacity) {
        uint32_t capacity = timers->capacity > 0 ? timers->capacity * 2 : FIRST_CAPACITY; /* 0 after 2^31: refused */
        pg_lock_release(&timers->lock);
        if (grow(timers, capacity) != PG_OK) return PG_ENOMEM;
        pg_lock_acquire(&timers->lock);
    }
    pg_check(!is_pending(timers, timer));
    timer->deadline = deadline;
    sift_up(timers, timers->count++, (pg_timer_place){deadline, take_entry(timers, timer)});
    *earliest = timers->heap[0].entry == timer->entry - 1;
    update_next(timers);
    pg_lock_release(&timers->lock);
    return PG_OK;
}

bool pg_timer_stop(pg_timers *timers, pg_timer *timer)
{
    pg_lock_acquire(&timers->lock);
    bool pending = is_pending(timers, timer);
    if (pending) {
        remove_pending(timers, timer);
        update_next(timers);
    }
    pg_lock_release(&timers->lock);
    return pending;
}

bool pg_timer_is_pending(pg_timers *timers, const pg_timer *timer, pg_nanos *deadline)
{
    pg_lock_acquire(&timers->lock);
    bool pending = is_pending(timers, timer);
    if (pending) *deadline = timer->deadline;
    pg_lock_release(&timers->lock);
    return pending;
}

pg_nanos pg_timers_earliest(pg_timers *timers, bool (*counts)(const pg_timer *timer))
{
    pg_nanos earliest = PG_FOREVER;
    pg_lock_acquire(&timers->lock);
    for (uint32_t i = 0; i < timers->count; i++) {
        if (timers->heap[i].deadline < earliest && counts(pg_timer_at(timers, i))) {
            earliest = timers->heap[i].deadline;
            if (i == 0) break; /* all others are later */
        }
    }
    pg_lock_release(&timers->lock);
    return earliest;
}

pg_timer *pg_timers_take(pg_timers *timers, bool (*chosen)(const pg_timer *timer))
{
    pg_timer *found = NULL;
    pg_lock_acquire(&timers->lock);
    for (uint32_t i = 0; i < timers->count && found == NULL; i++)
        if (chosen(pg_timer_at(timers, i))) found = pg_timer_at(timers, i);
    if (found != NULL) {
        remove_pending(timers, found);
        update_next(timers);
    }
    pg_lock_release(&timers->lock);
    return found;
}

size_t pg_timers_expire(pg_timers *timers, pg_nanos now, pg_task **ready, size_t limit)
{
    size_t count = 0;
    pg_lock_acquire(&timers->lock);
    for (size_t fired = 0; fired < limit && timers->count > 0 && timers->heap[0].deadline <= now; fired++) {
        pg_timer *timer = pg_timer_at(timers, 0);
        if (timer->period == 0) {
            remove_pending(timers, timer);
        } else {
            timer->deadline += timer->period * (1 + (now - timer->deadline) / timer->period);
            sift_down(timers, 0, (pg_timer_place){timer->deadline, timer->entry - 1});
        }
        pg_task *task = timer->fire(timer); /* the last touch of one that fires once */
        if (task != NULL) ready[count++] = task;
    }
    update_next(timers);
    pg_lock_release(&timers->lock);
    return count;
}
