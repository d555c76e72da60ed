/* Run queues.
 *
 * pg_runq: a bounded ring of one worker. The owner pushes at the tail and pops at the head; any other thread steals
 * half from the head. FIFO. The algorithm is Go's (runtime/proc.go: runqput, runqget, runqgrab).
 *
 * pg_inject: the shared queue, unbounded, under a lock. FIFO. It stores addresses in blocks, so that passing a task on
 * touches nothing of it: of a hundred thousand tasks, most have left the caches by then. Should a block not be had, tasks
 * are linked through pg_task.next instead.
 */
#ifndef PG_RUNQ_H
#define PG_RUNQ_H

#include "base/atomic.h"
#include "objects/task.h"
#include "os/os.h"

#ifndef PG_RUNQ_SIZE
#define PG_RUNQ_SIZE 256 /* power of two; 4 under the model checker, so that wrap and overflow are reached */
#endif

typedef struct pg_runq {
    PG_ALIGNED(PG_CACHE_LINE) atomic_uint head; /* atomic: moved by owner and thieves with CAS */
    PG_ALIGNED(PG_CACHE_LINE) atomic_uint tail; /* written by the owner only */
    _Atomic(pg_task *) slots[PG_RUNQ_SIZE];     /* relaxed: a thief may read a slot while it loses the race for it */
} pg_runq;

#define PG_BLOCK_TASKS (PG_RUNQ_SIZE > 8 ? 126 : 3)

typedef struct pg_block {
    struct pg_block *next;
    uint32_t from, to;
    pg_task *tasks[PG_BLOCK_TASKS];
} pg_block;

typedef struct pg_inject {
    pg_lock lock;
    pg_block *first, *last;       /* lock, as what follows; there is no empty block */
    pg_task *chained, *chain_end; /* behind the blocks */
    atomic_size_t count;   /* written under the lock, read by anyone */
} pg_inject;

void pg_inject_init(pg_inject *queue);
void pg_inject_push(pg_inject *queue, pg_task *task);
void pg_inject_push_all(pg_inject *queue, pg_task *const *tasks, size_t count);
/* Pop up to `limit` tasks in order into tasks[]; returns how many. */
size_t pg_inject_pop(pg_inject *queue, pg_task **tasks, size_t limit);

void pg_runq_init(pg_runq *queue);
/* Owner only. A full ring spills half of itself and the task into `overflow`; nothing is ever dropped. */
void pg_runq_push(pg_runq *queue, pg_task *task, pg_inject *overflow);
/* Owner only. NULL when empty. */
pg_task *pg_runq_pop(pg_runq *queue);
/* Thief: move half (at least one) of `victim` into `own`, whose owner the caller is; returns one of them, or NULL. */
pg_task *pg_runq_steal(pg_runq *own, pg_runq *victim);
/* Anyone: move everything that stands in the ring into `sink`; returns how many. The owner may push meanwhile. */
size_t pg_runq_drain(pg_runq *queue, pg_inject *sink);
/* A snapshot, exact only for the owner while nobody steals. */
static inline uint32_t pg_runq_length(pg_runq *queue)
{
    uint32_t tail = pg_load_acquire(&queue->tail);
    return tail - pg_load_acquire(&queue->head);
}

#endif
