/* See pool.h. */
#include "machine/pool.h"

#include "os/os.h"

enum {
    CHUNK = 512 * 1024,
    STEP = 64 * 1024, /* populated at once */
};

void pg_pool_init(pg_pool *pool, size_t record)
{
    *pool = (pg_pool){.record = record};
    pg_list_init(&pool->chunks);
    pg_list_init(&pool->partial);
}

static pg_chunk *chunk_of(void *record) { return (pg_chunk *)((uintptr_t)record & ~(uintptr_t)(CHUNK - 1)); }

static char *first_record(pg_chunk *chunk)
{
    size_t header = (sizeof *chunk + PG_CACHE_LINE - 1) & ~(size_t)(PG_CACHE_LINE - 1);
    return (char *)chunk + header;
}

static bool is_full(pg_chunk *chunk) { return chunk->free == NULL && chunk->fresh == chunk->end; }

/* The next fresh records become ready: whole ones in the first so many bytes of the chunk. */
static void make_ready(pg_pool *pool, pg_chunk *chunk)
{
    size_t before = (size_t)(chunk->ready - (char *)chunk), least = before + pool->record;
    size_t after = (least + STEP - 1) / STEP * STEP;
    size_t from = (before + pg_page_size() - 1) & ~(pg_page_size() - 1);
    if (from < after) pg_pages_populate((char *)chunk + from, after - from);
    char *first = first_record(chunk);
    size_t whole = (size_t)((char *)chunk + after - first) / pool->record;
    chunk->ready = first + whole * pool->record;
}

static pg_chunk *new_chunk(pg_pool *pool)
{
    pg_chunk *chunk = pg_pages_reserve_aligned(CHUNK);
    if (chunk == NULL) return NULL;
    chunk->free = NULL;
    chunk->used = 0;
    chunk->fresh = chunk->ready = first_record(chunk);
    chunk->end = chunk->fresh + (size_t)((char *)chunk + CHUNK - chunk->fresh) / pool->record * pool->record;
    pg_list_init(&chunk->partial);
    pg_list_append(&pool->chunks, &chunk->link);
    pool->chunk_count++;
    return chunk;
}

static void free_chunk(pg_pool *pool, pg_chunk *chunk)
{
    pg_list_remove(&chunk->link);
    pool->chunk_count--;
    pg_pages_free(chunk, CHUNK);
}

static pg_chunk *chunk_with_room(pg_pool *pool)
{
    pg_node *node = pg_list_first(&pool->partial);
    pg_chunk *chunk = node ? pg_container_of(node, pg_chunk, partial) : pool->spare;
    if (chunk == NULL) return new_chunk(pool);
    if (chunk == pool->spare) pool->spare = NULL;
    pg_list_remove(&chunk->partial);
    return chunk;
}

void *pg_pool_take_slow(pg_pool *pool)
{
    pg_chunk *chunk = pool->current;
    if (chunk == NULL || is_full(chunk)) {
        chunk = chunk_with_room(pool);
        if (chunk == NULL) return NULL;
        pool->current = chunk;
    }
    if (chunk->free == NULL && chunk->fresh == chunk->ready) make_ready(pool, chunk);
    return pg_pool_take(pool);
}

/* So that its records are handed out in order again. */
static void start_over(pg_chunk *chunk)
{
    chunk->free = NULL;
    chunk->fresh = first_record(chunk);
}

void pg_pool_give(pg_pool *pool, void *record)
{
    pg_chunk *chunk = chunk_of(record);
    if (PG_UNLIKELY(chunk != pool->current && is_full(chunk))) pg_list_append(&pool->partial, &chunk->partial);
    *(void **)record = chunk->free;
    chunk->free = record;
    if (PG_LIKELY(--chunk->used > 0)) return;
    if (chunk != pool->current) {
        pg_list_remove(&chunk->partial);
        if (pool->spare != NULL) free_chunk(pool, chunk);
        else pool->spare = chunk;
        if (pool->chunk_count == 2) {
            free_chunk(pool, pool->spare);
            pool->spare = NULL;
        }
        if (pool->spare != chunk) return;
    }
    start_over(chunk);
}

void *pg_pool_next(pg_pool *pool, void *record)
{
    pg_chunk *chunk = record ? chunk_of(record) : NULL;
    char *next = record ? (char *)record + pool->record : NULL;
    while (chunk == NULL || next >= chunk->fresh) {
        pg_node *node = chunk ? chunk->link.next : pool->chunks.next;
        if (node == &pool->chunks) return NULL;
        chunk = pg_container_of(node, pg_chunk, link);
        next = first_record(chunk);
    }
    return next;
}
