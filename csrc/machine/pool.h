/* Records of one size, for objects that come and go by the hundred thousand.
 *
 * Chunks lie on a boundary of their own size, so that a record tells its chunk. Within a chunk, records that came back are
 * used again first, last in, first out; then fresh ones in order of address. Pages are populated some at a time in one
 * system call: page faults one by one would cost more than everything else about a short-lived record. Huge pages were
 * tried and are worse for the first to use them, often by far: the kernel, and a hypervisor below it, has to find them.
 *
 * An empty chunk goes back to the system at once, but for the one in use, and a spare one while there are others: a
 * number of records that sways across a boundary, or that of a queue, maps nothing.
 *
 * No locks: the caller serialises (Python's types do by the GIL).
 */
#ifndef PG_POOL_H
#define PG_POOL_H

#include "base/base.h"
#include "base/list.h"

typedef struct pg_chunk {
    pg_node link;       /* in pool.chunks */
    pg_node partial;    /* in pool.partial: it has room, and is not the current one */
    void *free;         /* linked through their first words */
    char *fresh, *ready, *end; /* never used yet from `fresh` on; populated up to `ready` */
    size_t used;
} pg_chunk;

typedef struct pg_pool {
    size_t record;
    pg_chunk *current; /* NULL before the first */
    pg_chunk *spare;   /* empty, or NULL */
    pg_node chunks, partial;
    size_t chunk_count;
} pg_pool;

/* `record`: bytes, a multiple of 16 and at most 4096. */
void pg_pool_init(pg_pool *pool, size_t record);
void *pg_pool_take_slow(pg_pool *pool);
void pg_pool_give(pg_pool *pool, void *record);
/* The record after `record` in no particular order, NULL for the first; free ones included, of which the caller must know
 * how to tell them: only their first word has changed since they were given back. NULL: there are no more. */
void *pg_pool_next(pg_pool *pool, void *record);

/* A record with anything in it, on a 16-byte boundary (64, if the size is a multiple of that), or NULL. */
static inline void *pg_pool_take(pg_pool *pool)
{
    pg_chunk *chunk = pool->current;
    if (PG_UNLIKELY(chunk == NULL)) return pg_pool_take_slow(pool);
    void *record = chunk->free;
    if (record != NULL) {
        chunk->free = *(void **)record;
    } else {
        if (PG_UNLIKELY(chunk->fresh == chunk->ready)) return pg_pool_take_slow(pool);
        record = chunk->fresh;
        chunk->fresh += pool->record;
    }
    chunk->used++;
    return record;
}

#endif
