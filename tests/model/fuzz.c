/* The explorer itself, with random small programs (of the seed MC_SEED): what can be read, and what is left, must be
 * the same with and without the reduction. */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"

enum { ACTORS = 3, OPERATIONS = 3, PLACES = 2, OUTCOMES = 4096 };

static atomic_uint places[PLACES];
static uint64_t got[ACTORS][OPERATIONS];
static uint64_t outcomes[OUTCOMES]; /* a hash table */
static unsigned outcome_count;
static uint64_t seed;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void setup(void)
{
    const char *text = getenv("MC_SEED");
    seed = text != NULL ? strtoull(text, NULL, 10) : 1;
    memset(places, 0, sizeof places);
    memset(got, 0, sizeof got);
}

static uint64_t operate(unsigned kind, atomic_uint *place, unsigned value)
{
    unsigned expected = 1;
    switch (kind) {
    case 0: return pg_load_relaxed(place);
    case 1: return pg_load_acquire(place);
    case 2: return pg_load_seqcst(place);
    case 3: pg_store_relaxed(place, value); return 0;
    case 4: pg_store_release(place, value); return 0;
    case 5: pg_store_seqcst(place, value); return 0;
    case 6: return pg_exchange_acqrel(place, value);
    case 7: return (uint64_t)pg_cas_acqrel(place, &expected, value) << 32 | expected;
    case 8: return pg_add_seqcst(place, 10);
    default: pg_fence_seqcst(); return 0;
    }
}

/* The last one has one operation less: what is not reduced grows fast. */
static void act(void)
{
    int self = mc_self();
    for (int i = 0; i < OPERATIONS - (self == ACTORS - 1); i++) {
        uint64_t draw = mix(seed * 1000 + (uint64_t)(self * OPERATIONS + i));
        uint64_t result = operate(draw % 10, &places[(draw >> 8) % PLACES], 1 + (unsigned)((draw >> 16) % 2));
        got[self][i] = result;
    }
}

static void note(void)
{
    uint64_t hash = 1;
    for (int i = 0; i < ACTORS * OPERATIONS; i++) hash = mix(hash * 31 + got[i / OPERATIONS][i % OPERATIONS]);
    for (int i = 0; i < PLACES; i++) hash = mix(hash * 31 + places[i]);
    unsigned at = (unsigned)(hash % OUTCOMES);
    while (outcomes[at] != 0 && outcomes[at] != hash) at = (at + 1) % OUTCOMES;
    if (outcomes[at] == 0) outcome_count++;
    outcomes[at] = hash;
    MC_CHECK(outcome_count < OUTCOMES / 2);
}

static void conclude(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < OUTCOMES; i++) sum += outcomes[i];
    printf("%u outcomes, together %#llx\n", outcome_count, (unsigned long long)sum);
}

const mc_scenario mc_scenarios[] = {
    {"random", setup, {act, act, act}, note, conclude},
    {.name = NULL},
};
