/* The heap of timers, see timer.h.
 *
 * A 4-ary heap: the children of place i are 4i+1 .. 4i+4. Half as deep as a binary one, and the four children are one
 * cache line: of the array, places begin one before a boundary. heap[timer->slot - 1].timer == timer for every pending timer; a timer that is not pending has slot 0, or
 * was forgotten in a fork's child together with its era's heap.
 *
 * next_deadline is sequentially consistent on both sides, so that it can be part of a handshake: who starts a timer
 * stores it and then looks for sleepers; who goes to sleep announces that and then loads it.
 */
#include "sources/timer.h"

#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"

enum { ARITY = 4, FIRST_CAPACITY = 64 };

/* Place 0 is the last of a line, so that its four children, and those of each other place, are one. */
static pg_timer_place *allocate(uint32_t capacity)
{
    enum { LEAD = ARITY - 1 };
    size_t size = ((size_t)capacity + LEAD) * sizeof(pg_timer_place), lines = (size + PG_CACHE_LINE - 1) / PG_CACHE_LINE;
    pg_timer_place *block = capacity > 0 && !pg_fails(timer_heap) ? aligned_alloc(PG_CACHE_LINE, lines * PG_CACHE_LINE) : NULL;
    return block != NULL ? block + LEAD : NULL;
}

static void release(pg_timer_place *heap)
{
    if (heap != NULL) free(heap - (ARITY - 1));
}

void pg_timers_init(pg_timers *timers)
{
    pg_lock_init(&timers->lock);
    timers->heap = NULL;
    timers->count = timers->capacity = timers->era = 0;
    pg_store_relaxed(&timers->next_deadline, PG_FOREVER);
}

void pg_timers_free(pg_timers *timers)
{
    for (uint32_t i = 0; i < timers->count; i++) timers->heap[i].timer->slot = 0; /* whoever stops them finds nothing */
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
    return timer->slot != 0 && timer->era == timers->era;
}

static void place(pg_timers *timers, uint32_t at, pg_timer_place entry)
{
    timers->heap[at] = entry;
    entry.timer->slot = at + 1;
}

static pg_timer_place entry_of(pg_timer *timer) { return (pg_timer_place){timer->deadline, timer}; }

static void sift_up(pg_timers *timers, uint32_t at, pg_timer_place entry)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / ARITY;
        if (timers->heap[parent].deadline <= entry.deadline) break;
        place(timers, at, timers->heap[parent]);
        at = parent;
    }
    place(timers, at, entry);
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

static void sift_down(pg_timers *timers, uint32_t at, pg_timer_place entry)
{
    for (;;) {
        uint32_t child = first_child(timers, at);
        if (child == timers->count || entry.deadline <= timers->heap[child].deadline) break;
        place(timers, at, timers->heap[child]);
        at = child;
    }
    place(timers, at, entry);
}

static void update_next(pg_timers *timers)
{
    pg_nanos next = timers->count > 0 ? timers->heap[0].deadline : PG_FOREVER;
    if (next != pg_load_relaxed(&timers->next_deadline)) pg_store_seqcst(&timers->next_deadline, next);
}

/* Fill the hole with the last timer, which may belong above or below it. */
static void remove_pending(pg_timers *timers, pg_timer *timer)
{
    uint32_t at = timer->slot - 1;
    pg_check(at < timers->count && timers->heap[at].timer == timer);
    pg_timer_place last = timers->heap[--timers->count];
    timer->slot = 0;
    if (last.timer == timer) return;
    if (last.deadline < timer->deadline) {
        sift_up(timers, at, last);
    } else {
        sift_down(timers, at, last);
    }
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
        if (timers->count > 0) memcpy(heap, old, timers->count * sizeof *heap);
        timers->heap = heap;
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
    timer->era = timers->era;
    sift_up(timers, timers->count++, entry_of(timer));
    *earliest = timer->slot == 1;
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
        const pg_timer_place *entry = &timers->heap[i];
        if (entry->deadline < earliest && counts(entry->timer)) {
            earliest = entry->deadline;
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
        if (chosen(timers->heap[i].timer)) found = timers->heap[i].timer;
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
        pg_timer *timer = timers->heap[0].timer;
        if (timer->period == 0) {
            remove_pending(timers, timer);
        } else {
            timer->deadline += timer->period * (1 + (now - timer->deadline) / timer->period);
            sift_down(timers, 0, entry_of(timer));
        }
        pg_task *task = timer->fire(timer); /* the last touch of one that fires once */
        if (task != NULL) ready[count++] = task;
    }
    update_next(timers);
    pg_lock_release(&timers->lock);
    return count;
}
