/* The run queue of a worker and the shared queue, see runq.h.
 *
 * The ring after Go's runtime (proc.go: runqput, runqputslow, runqget, runqgrab, runqsteal). `head` and `tail` count up
 * for ever and wrap at 2^32; a task stands in slot (position % PG_RUNQ_SIZE) for head <= position < tail.
 *
 *   the owner, pushing                            a taker: thief, drainer, or the owner popping or spilling
 *   P1 load head (acquire, pairs with T3):        T1 load head (acquire, pairs with T3): slots freed and refilled
 *      whoever took a slot has done reading it       before it are seen as such
 *   P2 write the slot (relaxed)                   T2 load tail (acquire, pairs with P3), copy the slots (relaxed)
 *   P3 store tail + 1 (release, pairs with T2):   T3 CAS head forward (release, pairs with P1 and T1): now they are
 *      the slot and the task behind it are seen      ours; on failure forget the copies
 *
 * - A taker may copy a slot that is refilled meanwhile: slots are atomic, and its CAS fails, as head has moved. Only a
 *   taker that sleeps through exactly 2^32 takes would be fooled.
 * - T1 before T2: read the other way round, head may have overtaken the tail in hand. This way the tail may only be too
 *   new, and the length seen too large, which take() notices.
 * - Only the CAS gives the right to touch a task.
 *
 * P3 is a release store, no more: it may still sit in the store buffer when the pusher's next load runs. Who pushes and
 * then asks whether anybody sleeps puts pg_fence_seqcst in between. The count of the shared queue is sequentially
 * consistent on both sides and can be part of such a handshake as it is.
 */
#include "objects/runq.h"

#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"

_Static_assert(PG_RUNQ_SIZE >= 2 && (PG_RUNQ_SIZE & (PG_RUNQ_SIZE - 1)) == 0, "positions wrap modulo the size");

enum { HALF = PG_RUNQ_SIZE / 2, AHEAD = 3 };

/* ---- the shared queue ---- */

void pg_inject_init(pg_inject *queue)
{
    pg_lock_init(&queue->lock);
    queue->first = queue->last = NULL;
    queue->chained = queue->chain_end = NULL;
    pg_store_relaxed(&queue->count, 0);
}

static void append_chained(pg_inject *queue, pg_task *task)
{
    task->next = NULL;
    if (queue->chained == NULL) queue->chained = task;
    else queue->chain_end->next = task;
    queue->chain_end = task;
}

static bool make_room(pg_inject *queue)
{
    if (queue->last != NULL && queue->last->to < PG_BLOCK_TASKS) return true;
    pg_block *block = pg_fails(inject_block) ? NULL : malloc(sizeof *block);
    if (block == NULL) return false;
    block->next = NULL;
    block->from = block->to = 0;
    if (queue->last == NULL) queue->first = block;
    else queue->last->next = block;
    queue->last = block;
    return true;
}

void pg_inject_push(pg_inject *queue, pg_task *task) { pg_inject_push_all(queue, &task, 1); }

static size_t least(size_t one, size_t other) { return one < other ? one : other; }

void pg_inject_push_all(pg_inject *queue, pg_task *const *tasks, size_t count)
{
    size_t left = count;
    pg_lock_acquire(&queue->lock);
    while (left > 0 && PG_LIKELY(queue->chained == NULL) && make_room(queue)) {
        pg_block *block = queue->last;
        size_t some = least(left, PG_BLOCK_TASKS - block->to);
        memcpy(&block->tasks[block->to], tasks, some * sizeof *tasks);
        block->to += (uint32_t)some;
        tasks += some;
        left -= some;
    }
    while (left-- > 0) append_chained(queue, *tasks++);
    pg_store_seqcst(&queue->count, pg_load_relaxed(&queue->count) + count); /* pairs with the load in pop */
    pg_lock_release(&queue->lock);
}

static void drop_first_block(pg_inject *queue)
{
    pg_block *block = queue->first;
    queue->first = block->next;
    if (queue->first == NULL) queue->last = NULL;
    free(block);
}

static size_t pop_locked(pg_inject *queue, pg_task **tasks, size_t limit)
{
    size_t taken = 0;
    while (taken < limit && queue->first != NULL) {
        pg_block *block = queue->first;
        size_t some = least(limit - taken, block->to - block->from);
        memcpy(&tasks[taken], &block->tasks[block->from], some * sizeof *tasks);
        block->from += (uint32_t)some;
        taken += some;
        if (block->from == block->to) drop_first_block(queue);
    }
    for (; taken < limit && queue->chained != NULL; queue->chained = queue->chained->next) tasks[taken++] = queue->chained;
    return taken;
}

size_t pg_inject_pop(pg_inject *queue, pg_task **tasks, size_t limit)
{
    if (pg_load_seqcst(&queue->count) == 0) return 0; /* pairs with push: no lock while idle */
    pg_lock_acquire(&queue->lock);
    size_t taken = pop_locked(queue, tasks, limit);
    pg_store_seqcst(&queue->count, pg_load_relaxed(&queue->count) - taken);
    pg_lock_release(&queue->lock);
    return taken;
}

/* ---- the ring ---- */

static pg_task *slot_load(pg_runq *queue, uint32_t position)
{
    return pg_load_relaxed(&queue->slots[position % PG_RUNQ_SIZE]);
}

static void slot_store(pg_runq *queue, uint32_t position, pg_task *task)
{
    pg_store_relaxed(&queue->slots[position % PG_RUNQ_SIZE], task);
}

void pg_runq_init(pg_runq *queue)
{
    pg_store_relaxed(&queue->head, 0);
    pg_store_relaxed(&queue->tail, 0);
    for (uint32_t i = 0; i < PG_RUNQ_SIZE; i++) slot_store(queue, i, NULL);
}

/* Half of the ring and then the task, so that their order stays. False when a thief made room meanwhile. */
static bool spill(pg_runq *queue, unsigned head, pg_task *task, pg_inject *overflow)
{
    pg_task *batch[HALF + 1];
    for (uint32_t i = 0; i < HALF; i++) batch[i] = slot_load(queue, head + i);
    if (!pg_cas_acqrel(&queue->head, &head, head + HALF)) return false; /* T3 */
    batch[HALF] = task;
    pg_delay(taken_to_spilled);
    pg_inject_push_all(overflow, batch, HALF + 1);
    return true;
}

void pg_runq_push(pg_runq *queue, pg_task *task, pg_inject *overflow)
{
    unsigned tail = pg_load_relaxed(&queue->tail); /* ours */
    for (;;) {
        unsigned head = pg_load_acquire(&queue->head); /* P1 */
        if (PG_LIKELY(tail - head < PG_RUNQ_SIZE)) {
            slot_store(queue, tail, task);
            pg_store_release(&queue->tail, tail + 1); /* P3 */
            return;
        }
        if (spill(queue, head, task, overflow)) return;
    }
}

/* A task that will run soon has often left the caches. The slot may name one that is gone: the CPU does not mind. */
static void prefetch(pg_task *task)
{
    for (int line = 0; line < 2; line++) __builtin_prefetch((char *)task + line * PG_CACHE_LINE, 1);
}

pg_task *pg_runq_pop(pg_runq *queue)
{
    unsigned tail = pg_load_relaxed(&queue->tail); /* ours */
    unsigned head = pg_load_acquire(&queue->head); /* T1 */
    while (head != tail) {
        pg_task *task = slot_load(queue, head);
        if (pg_cas_acqrel(&queue->head, &head, head + 1)) { /* T3; a failure reloads head, as T1 */
            prefetch(slot_load(queue, head + AHEAD));
            return task;
        }
    }
    return NULL;
}

static uint32_t half_rounded_up(uint32_t length) { return length - length / 2; }
static uint32_t whole(uint32_t length) { return length; }

/* Take a share of what stands in the ring, at most `limit`, and write it to into[(at + i) % PG_RUNQ_SIZE]. */
static uint32_t take(pg_runq *queue, uint32_t (*share)(uint32_t length), uint32_t limit, pg_runq *into, uint32_t at)
{
    for (;;) {
        unsigned head = pg_load_acquire(&queue->head);          /* T1 */
        uint32_t length = pg_load_acquire(&queue->tail) - head; /* T2 */
        if (length > PG_RUNQ_SIZE) continue; /* head is old by now */
        uint32_t count = share(length);
        if (count > limit) count = limit;
        if (count == 0) return 0;
        for (uint32_t i = 0; i < count; i++) slot_store(into, at + i, slot_load(queue, head + i));
        pg_delay(slots_copied);
        if (pg_cas_acqrel(&queue->head, &head, head + count)) return count; /* T3 */
    }
}

pg_task *pg_runq_steal(pg_runq *own, pg_runq *victim)
{
    unsigned tail = pg_load_relaxed(&own->tail);                         /* ours */
    uint32_t room = PG_RUNQ_SIZE - (tail - pg_load_acquire(&own->head)); /* P1; it can only grow */
    uint32_t count = take(victim, half_rounded_up, room, own, tail);     /* P2: beyond the tail, not yet public */
    if (count == 0) return NULL;
    pg_task *task = slot_load(own, tail + count - 1);
    if (count > 1) pg_store_release(&own->tail, tail + count - 1); /* P3 */
    return task;
}

size_t pg_runq_drain(pg_runq *queue, pg_inject *sink)
{
    pg_runq copy;
    pg_task *tasks[PG_RUNQ_SIZE];
    uint32_t count = take(queue, whole, PG_RUNQ_SIZE, &copy, 0);
    for (uint32_t i = 0; i < count; i++) tasks[i] = slot_load(&copy, i);
    if (count > 0) pg_inject_push_all(sink, tasks, count);
    return count;
}
