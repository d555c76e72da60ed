/* Records of one size: each handed out once, chunks that come and go, and what a walk sees. */
#include "machine/pool.h"

#include <string.h>

#include "check.h"
#include "os/os.h"

enum { RECORD = 192 };

/* As users do, know free records from others: the second word is 0 in a free one. */
typedef struct item {
    void *link;
    uintptr_t number; /* from 1 */
    char rest[RECORD - 16];
} item;

static item *take(pg_pool *pool, uintptr_t number)
{
    item *one = pg_pool_take(pool);
    CHECK(one != NULL);
    CHECK_EQ((uintptr_t)one % 64, 0);
    memset(one, (int)number, sizeof *one);
    one->number = number;
    return one;
}

static void give(pg_pool *pool, item *one, uintptr_t number)
{
    CHECK_EQ(one->number, number);
    for (size_t i = 0; i < sizeof one->rest; i++) CHECK_EQ((unsigned char)one->rest[i], number % 256);
    one->number = 0;
    pg_pool_give(pool, one);
}

static size_t walk(pg_pool *pool, uintptr_t *sum)
{
    size_t count = 0;
    *sum = 0;
    for (item *one = NULL; (one = pg_pool_next(pool, one)) != NULL;) {
        if (one->number == 0) continue;
        count++;
        *sum += one->number;
    }
    return count;
}

static void records_of_any_number_are_apart_and_are_found(void)
{
    enum { MANY = 20000 };
    static item *items[MANY + 1];
    pg_pool pool;
    uintptr_t sum;
    pg_pool_init(&pool, RECORD, 0);
    CHECK_EQ(walk(&pool, &sum), 0);
    for (uintptr_t i = 1; i <= MANY; i++) items[i] = take(&pool, i);
    CHECK_EQ(walk(&pool, &sum), MANY);
    CHECK_EQ(sum, (uintptr_t)MANY * (MANY + 1) / 2);
    CHECK(pool.chunk_count > 2);
    for (uintptr_t i = 1; i <= MANY; i += 2) give(&pool, items[i], i);
    CHECK_EQ(walk(&pool, &sum), MANY / 2);
    for (uintptr_t i = 1; i <= MANY; i += 2) items[i] = take(&pool, i); /* in the holes */
    size_t chunks = pool.chunk_count;
    CHECK_EQ(walk(&pool, &sum), MANY);
    for (uintptr_t i = 1; i <= MANY; i++) give(&pool, items[i], i);
    CHECK_EQ(walk(&pool, &sum), 0);
    CHECK(chunks > 2);
    CHECK_EQ(pool.chunk_count, 1);
}

static void freed_records_are_used_again_before_fresh_ones(void)
{
    pg_pool pool;
    pg_pool_init(&pool, RECORD, 0);
    item *first = take(&pool, 1), *second = take(&pool, 2);
    give(&pool, first, 1);
    CHECK(take(&pool, 3) == first);
    give(&pool, second, 2);
    give(&pool, first, 3);
    CHECK(take(&pool, 4) == first); /* an empty chunk starts over in order */
    CHECK(take(&pool, 5) == second);
}

static void a_queue_of_steady_length_maps_nothing(void)
{
    enum { LENGTH = 10000 };
    static item *items[LENGTH];
    pg_pool pool;
    size_t least = SIZE_MAX, most = 0;
    pg_pool_init(&pool, RECORD, 1);
    for (uintptr_t i = 0; i < LENGTH; i++) items[i] = take(&pool, i + 1);
    for (uintptr_t i = 0; i < 20 * LENGTH; i++) {
        give(&pool, items[i % LENGTH], i + 1);
        items[i % LENGTH] = take(&pool, i + LENGTH + 1);
        if (i < LENGTH) continue;
        if (pool.chunk_count < least) least = pool.chunk_count;
        if (pool.chunk_count > most) most = pool.chunk_count;
    }
    CHECK(least > 3);
    CHECK(most - least <= 1);
}

static void a_burst_finds_the_memory_of_the_last_until_it_was_not_needed(void)
{
    enum { BURST = 10000, TRICKLE = 100 };
    static item *items[BURST];
    pg_pool pool;
    size_t kept = 0;
    pg_pool_init(&pool, RECORD, BURST);
    CHECK(!pg_pool_shrink(&pool, false));
    for (int burst = 0; burst < 4; burst++) {
        for (uintptr_t i = 0; i < BURST; i++) items[i] = take(&pool, i + 1);
        if (burst == 0) kept = pool.chunk_count;
        CHECK_EQ(pool.chunk_count, kept); /* none is new after the first burst */
        for (uintptr_t i = 0; i < BURST; i++) give(&pool, items[i], i + 1);
        CHECK_EQ(pool.chunk_count, kept);
        CHECK(pg_pool_shrink(&pool, false)); /* between bursts: all was needed */
        CHECK_EQ(pool.chunk_count, kept);
    }
    for (uintptr_t i = 0; i < TRICKLE; i++) items[i] = take(&pool, i + 1);
    CHECK(kept > 3);
    CHECK(!pg_pool_shrink(&pool, false)); /* what is in use stays */
    CHECK_EQ(pool.chunk_count, 1);
    for (uintptr_t i = 0; i < TRICKLE; i++) give(&pool, items[i], i + 1);
}

static void no_more_is_kept_than_asked_for_and_nothing_if_told_so(void)
{
    enum { BURST = 20000, KEEP = 10000 };
    static item *items[BURST];
    pg_pool pool;
    pg_pool_init(&pool, RECORD, KEEP);
    for (uintptr_t i = 0; i < BURST; i++) items[i] = take(&pool, i + 1);
    size_t most = pool.chunk_count;
    for (uintptr_t i = 0; i < BURST; i++) give(&pool, items[i], i + 1);
    CHECK(pool.chunk_count <= most / 2 + 2);
    CHECK(pool.chunk_count >= most / 2);
    CHECK(!pg_pool_shrink(&pool, true));
    CHECK_EQ(pool.chunk_count, 1);
}

static void random_use_keeps_every_record_whole(void)
{
    enum { SLOTS = 30000 };
    static item *items[SLOTS];
    static uintptr_t numbers[SLOTS];
    pg_pool pool;
    uint64_t random = 1;
    uintptr_t next = 1, sum, expected = 0;
    size_t held = 0;
    int rounds = check_rounds(400000);
    pg_pool_init(&pool, RECORD, 0);
    for (int i = 0; i < rounds; i++) {
        bool growing = (i / 50000) % 2 == 0;
        size_t at = check_below(&random, SLOTS);
        if (items[at] == NULL && (growing || check_below(&random, 4) == 0)) {
            items[at] = take(&pool, next);
            numbers[at] = next++;
            held++;
        } else if (items[at] != NULL && (!growing || check_below(&random, 4) == 0)) {
            give(&pool, items[at], numbers[at]);
            items[at] = NULL;
            held--;
        }
    }
    for (size_t at = 0; at < SLOTS; at++) expected += items[at] ? numbers[at] : 0;
    CHECK_EQ(walk(&pool, &sum), held);
    CHECK_EQ(sum, expected);
    for (size_t at = 0; at < SLOTS; at++)
        if (items[at] != NULL) give(&pool, items[at], numbers[at]);
    CHECK_EQ(pool.chunk_count, 1);
    CHECK(next > (uintptr_t)rounds / 10);
}

static void sizes_that_do_not_divide_a_chunk_fit(void)
{
    const size_t sizes[] = {16, 48, 176, 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pg_pool pool;
        char *before = NULL;
        pg_pool_init(&pool, sizes[i], 0);
        for (int n = 0; n < 40000; n++) {
            char *record = pg_pool_take(&pool);
            CHECK(record != NULL && record != before);
            memset(record, 0xee, sizes[i]);
            before = record;
        }
    }
}

int main(void)
{
    RUN(records_of_any_number_are_apart_and_are_found);
    RUN(freed_records_are_used_again_before_fresh_ones);
    RUN(a_queue_of_steady_length_maps_nothing);
    RUN(a_burst_finds_the_memory_of_the_last_until_it_was_not_needed);
    RUN(no_more_is_kept_than_asked_for_and_nothing_if_told_so);
    RUN(random_use_keeps_every_record_whole);
    RUN(sizes_that_do_not_divide_a_chunk_fit);
    return 0;
}
