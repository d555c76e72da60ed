/* Fail points, see failpoint.h. Counting must order nothing that it does not order without: all relaxed. */
#include "base/failpoint.h"

#ifdef PG_FAILPOINTS

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/atomic.h"

typedef struct plan {
    long after, every, times, us, code;
} plan;

typedef struct point {
    const char *name;
    atomic_bool armed;
    _Atomic long after, every, times, us, code;
    _Atomic long hits, due, done; /* due: hits since it was armed */
} point;

#define INIT_POINT(text) [PG_FP_##text] = {.name = #text},
static point points[PG_FAILPOINT_COUNT] = {PG_FAIL_POINTS(INIT_POINT) PG_DELAY_POINTS(INIT_POINT)};

static bool is_memory(enum pg_failpoint at) { return at >= PG_FIRST_MEMORY_POINT && at <= PG_LAST_MEMORY_POINT; }

#define COUNT_POINT(text) +1
enum { FAIL_POINTS = 0 PG_FAIL_POINTS(COUNT_POINT) };

/* Whether this hit is one of those that were asked for. */
static bool is_hit(point *self)
{
    (void)pg_add_relaxed(&self->hits, 1);
    if (!pg_load_relaxed(&self->armed)) return false;
    long since = pg_add_relaxed(&self->due, 1) - pg_load_relaxed(&self->after);
    if (since < 0 || since % pg_load_relaxed(&self->every) != 0) return false;
    long times = pg_load_relaxed(&self->times), before = pg_add_relaxed(&self->done, 1);
    if (times == 0 || before < times) return true;
    (void)pg_add_relaxed(&self->done, -1);
    return false;
}

static int code_of(point *self)
{
    long code = pg_load_relaxed(&self->code);
    return code != 0 ? (int)code : -1;
}

int pg_failpoint_fails(enum pg_failpoint at)
{
    bool all = is_memory(at) && is_hit(&points[PG_FP_memory]);
    if (is_hit(&points[at])) return code_of(&points[at]);
    return all ? code_of(&points[PG_FP_memory]) : 0;
}

void pg_failpoint_delay(enum pg_failpoint at)
{
    point *self = &points[at];
    if (!is_hit(self)) return;
    int saved = errno;
    long us = pg_load_relaxed(&self->us);
    struct timespec span = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&span, NULL);
    else sched_yield();
    errno = saved;
}

/* ---- arming ---- */

static point *find(const char *name, size_t length)
{
    for (int i = 0; i < PG_FAILPOINT_COUNT; i++)
        if (strlen(points[i].name) == length && memcmp(points[i].name, name, length) == 0) return &points[i];
    return NULL;
}

/* `key:number`; returns what follows it, NULL when it is none. */
static const char *parse_setting(const char *text, plan *into)
{
    const struct {
        const char *key;
        long *value;
    } known[] = {{"after:", &into->after}, {"every:", &into->every}, {"times:", &into->times},
                 {"us:", &into->us},       {"errno:", &into->code}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i].key);
        if (strncmp(text, known[i].key, length) != 0) continue;
        char *end;
        *known[i].value = strtol(text + length, &end, 10);
        return end > text + length && *known[i].value >= 0 ? end : NULL;
    }
    return NULL;
}

static void arm(point *self, const plan *wanted)
{
    pg_store_relaxed(&self->armed, false);
    pg_store_relaxed(&self->after, wanted->after);
    pg_store_relaxed(&self->every, wanted->every);
    pg_store_relaxed(&self->times, wanted->times);
    pg_store_relaxed(&self->us, wanted->us);
    pg_store_relaxed(&self->code, wanted->code);
    pg_store_relaxed(&self->hits, 0);
    pg_store_relaxed(&self->due, 0);
    pg_store_relaxed(&self->done, 0);
    pg_store_relaxed(&self->armed, true);
}

static bool arm_all(const char *text, bool really)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "=;");
        point *self = find(text, length);
        plan wanted = {.every = 1};
        if (self == NULL) return false;
        text += length;
        if (*text == '=') {
            do {
                if ((text = parse_setting(text + 1, &wanted)) == NULL) return false;
            } while (*text == ',');
        }
        if (wanted.every == 0 || (*text != '\0' && *text++ != ';')) return false;
        if (really) arm(self, &wanted);
    }
    return true;
}

int pygo_failpoints_arm(const char *text)
{
    if (!arm_all(text, false)) return -1;
    arm_all(text, true);
    return 0;
}

void pygo_failpoints_disarm(void)
{
    for (int i = 0; i < PG_FAILPOINT_COUNT; i++) {
        pg_store_relaxed(&points[i].armed, false);
        pg_store_relaxed(&points[i].hits, 0);
        pg_store_relaxed(&points[i].done, 0);
    }
}

static long read_count(const char *name, bool done)
{
    point *self = find(name, strlen(name));
    if (self == NULL) return -1;
    return done ? pg_load_relaxed(&self->done) : pg_load_relaxed(&self->hits);
}

long pygo_failpoints_hits(const char *name) { return read_count(name, false); }
long pygo_failpoints_done(const char *name) { return read_count(name, true); }

const char *pygo_failpoints_name(int index)
{
    return index >= 0 && index < PG_FAILPOINT_COUNT ? points[index].name : NULL;
}

int pygo_failpoints_is_delay(int index) { return index >= FAIL_POINTS && index < PG_FAILPOINT_COUNT; }

__attribute__((constructor)) static void arm_from_environment(void)
{
    const char *text = getenv("PYGO_FAILPOINTS");
    if (text != NULL && pygo_failpoints_arm(text) != 0) pg_fatal("PYGO_FAILPOINTS cannot be understood: %s", text);
}

__attribute__((destructor)) static void report(void)
{
    if (getenv("PYGO_FAILPOINTS_REPORT") == NULL) return;
    for (int i = 0; i < PG_FAILPOINT_COUNT; i++)
        fprintf(stderr, "%s: %ld hits, %ld done\n", points[i].name, pg_load_relaxed(&points[i].hits),
                pg_load_relaxed(&points[i].done));
}

#else
typedef int pg_no_failpoints; /* ISO C wants a declaration */
#endif
