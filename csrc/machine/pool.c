/* See pool.h. */
#include "machine/pool.h"

#include "os/os.h"

enum {
    CHUNK = 512 * 1024,
    STEP = 64 * 1024, /* populated at once */
    HEADER = (sizeof(pg_chunk) + PG_CACHE_LINE - 1) & ~(PG_CACHE_LINE - 1),
};

static char *first_record(pg_chunk *chunk) { return (char *)chunk + HEADER; }
static size_t records_in_chunk(size_t record) { return (CHUNK - HEADER) / record; }

void pg_pool_init(pg_pool *pool, size_t record, size_t keep)
{
    *pool = (pg_pool){.record = record, .spare_limit = (keep + records_in_chunk(record) - 1) / records_in_chunk(record)};
    pg_list_init(&pool->chunks);
    pg_list_init(&pool->partial);
    pg_list_init(&pool->spares);
}

static pg_chunk *chunk_of(void *record) { return (pg_chunk *)((uintptr_t)record & ~(uintptr_t)(CHUNK - 1)); }

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
    chunk->end = chunk->fresh + records_in_chunk(pool->record) * pool->record;
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
    if (node == NULL) {
        node = pg_list_first(&pool->spares);
        if (node == NULL) return new_chunk(pool);
        if (--pool->spare_count < pool->spare_low) pool->spare_low = pool->spare_count;
    }
    pg_list_remove(node);
    return pg_container_of(node, pg_chunk, partial);
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
        if (pool->spare_count >= pool->spare_limit) {
            free_chunk(pool, chunk);
            return;
        }
        pg_list_append(pool->spares.next, &chunk->partial); /* before the first */
        pool->spare_count++;
    }
    start_over(chunk);
}

bool pg_pool_shrink(pg_pool *pool, bool all)
{
    size_t count = all ? pool->spare_count : pool->spare_low;
    for (; count > 0; count--, pool->spare_count--) {
        pg_node *coldest = pool->spares.prev;
        pg_list_remove(coldest);
        free_chunk(pool, pg_container_of(coldest, pg_chunk, partial));
    }
    pool->spare_low = pool->spare_count;
    return pool->spare_count > 0;
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
