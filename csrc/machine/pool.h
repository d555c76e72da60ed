/* Records of one size, for objects that come and go by the hundred thousand.
 *
 * Chunks lie on a boundary of their own size, so that a record tells its chunk. Within a chunk, records that came back are
 * used again first, last in, first out; then fresh ones in order of address. Pages are populated some at a time in one
 * system call: page faults one by one would cost more than everything else about a short-lived record. Huge pages were
 * tried and are worse for the first to use them, often by far: the kernel, and a hypervisor below it, has to find them.
 *
 * So are empty chunks kept, up to a limit: a burst of records as large as the last one then finds its memory as it left it,
 * which takes a third off the time of a task that only starts and ends. Those that were in nobody's way since the last
 * pg_pool_shrink go back to the system with the next, which the owner calls now and then.
 *
 * No locks: the caller serialises (Python's types do by the GIL).
 */
#ifndef PG_POOL_H
#define PG_POOL_H

#include "base/base.h"
#include "base/list.h"

typedef struct pg_chunk {
    pg_node link;       /* in pool.chunks */
    pg_node partial;    /* in pool.partial: it has room, and is not the current one; or in pool.spares */
    void *free;         /* linked through their first words */
    char *fresh, *ready, *end; /* never used yet from `fresh` on; populated up to `ready` */
    size_t used;
} pg_chunk;

typedef struct pg_pool {
    size_t record;
    pg_chunk *current; /* NULL before the first */
    pg_node chunks, partial, spares; /* all of them; see pg_chunk; empty ones, the last to become so first */
    size_t chunk_count, spare_count;
    size_t spare_low, spare_limit; /* the least spare_count since the last shrink; the most it may be */
} pg_pool;

/* `record`: bytes, a multiple of 16 and at most 4096. Empty chunks are kept as long as `keep` records have room in them. */
void pg_pool_init(pg_pool *pool, size_t record, size_t keep);
void *pg_pool_take_slow(pg_pool *pool);
void pg_pool_give(pg_pool *pool, void *record);
/* Give back the empty chunks that have not been needed since the last call, or all there are. True: others are left. */
bool pg_pool_shrink(pg_pool *pool, bool all);
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
