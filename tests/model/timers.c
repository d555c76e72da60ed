/* Model: sources/timer.c. Stop against fire against start again, from several threads: each start ends in one expiry,
 * one successful stop, or a pending timer. */
#include "explore.h"

#include <string.h>

#include "sources/timer.h"

enum { FIRST = 10, SECOND = 20, TIMERS = 3 };

typedef struct clocked {
    pg_timer timer;
    int starts, stops; /* by the thread that owns it */
    int fires;         /* under the heap's lock */
    bool gone;         /* stopped for good: its owner may do with it as it likes */
} clocked;

static pg_timers timers;
static clocked all[TIMERS];

static pg_task *fire(pg_timer *timer)
{
    clocked *it = pg_container_of(timer, clocked, timer);
    MC_CHECK(!it->gone);
    it->fires++;
    return NULL;
}

static void start(clocked *it, pg_nanos deadline)
{
    bool earliest = false;
    int outcome = pg_timer_start(&timers, &it->timer, deadline, &earliest);
    MC_CHECK(outcome == PG_OK || outcome == PG_ENOMEM);
    if (outcome == PG_OK) it->starts++;
}

static void stop(clocked *it) { it->stops += pg_timer_stop(&timers, &it->timer); }

static void setup(void)
{
    memset(all, 0, sizeof all);
    pg_timers_init(&timers);
    for (int i = 0; i < TIMERS; i++) all[i].timer.fire = fire;
}

static void setup_started(void)
{
    setup();
    start(&all[0], FIRST);
}

static void setup_periodic(void)
{
    setup();
    all[0].timer.period = 5;
    start(&all[0], FIRST);
}

static void check(void)
{
    pg_nanos earliest = PG_FOREVER;
    for (int i = 0; i < TIMERS; i++) {
        pg_nanos deadline;
        bool pending = pg_timer_is_pending(&timers, &all[i].timer, &deadline);
        if (pending && deadline < earliest) earliest = deadline;
        if (all[i].timer.period == 0) MC_CHECK(all[i].fires + all[i].stops + pending == all[i].starts);
        else MC_CHECK(all[i].stops + pending == all[i].starts);
    }
    MC_CHECK(pg_load_seqcst(&timers.next_deadline) == earliest);
}

/* ---- who does what ---- */

static void expire(pg_nanos now, size_t limit)
{
    pg_task *ready[TIMERS];
    if (pg_timers_due(&timers, now)) MC_CHECK(pg_timers_expire(&timers, now, ready, limit) == 0);
}
static void clock_first(void) { mc_name("clock"), expire(FIRST, 2); }
static void clock_both(void)
{
    mc_name("clock");
    expire(FIRST, 1);
    expire(SECOND, TIMERS);
}
static void second_clock(void) { mc_name("clock 2"), expire(SECOND, TIMERS); }

static void stopper(void)
{
    mc_name("stopper");
    stop(&all[0]);
    all[0].gone = true; /* not firing any more, whether it was pending or not */
}

static void restarter(void)
{
    mc_name("restarter");
    stop(&all[0]);
    start(&all[0], SECOND);
    stop(&all[0]);
    all[0].gone = true;
}

static void starter(void)
{
    mc_name("starter");
    start(&all[1], FIRST);
}
static void second_starter(void)
{
    mc_name("starter 2");
    start(&all[2], SECOND);
    stop(&all[2]);
}

static bool any(const pg_timer *timer) { return timer != NULL; }
static void taker(void)
{
    mc_name("taker");
    (void)pg_timers_earliest(&timers, any);
    pg_timer *found = pg_timers_take(&timers, any);
    if (found != NULL) pg_container_of(found, clocked, timer)->stops++;
}

/* Reads a heap in the middle of anything. */
static void asker(void)
{
    pg_nanos deadline = 0;
    mc_name("asker");
    if (pg_timer_is_pending(&timers, &all[0].timer, &deadline)) MC_CHECK(deadline == FIRST || deadline == SECOND);
}

static void setup_short(void)
{
    setup();
    mc_set_short_of_memory();
}

/* ---- start, then look for sleepers, against announce sleep, then look for the next deadline ---- */

static atomic_int sleeping;
static bool starter_saw_sleeper, sleeper_saw_deadline;

static void setup_handshake(void)
{
    setup();
    pg_store_relaxed(&sleeping, 0);
    starter_saw_sleeper = sleeper_saw_deadline = false;
}
static void telling_starter(void)
{
    mc_name("starter");
    start(&all[0], FIRST);
    starter_saw_sleeper = pg_load_seqcst(&sleeping) != 0;
}
static void looking_sleeper(void)
{
    mc_name("sleeper");
    pg_store_seqcst(&sleeping, 1);
    sleeper_saw_deadline = pg_timers_due(&timers, FIRST);
}
static void check_handshake(void)
{
    MC_CHECK(starter_saw_sleeper || sleeper_saw_deadline);
    check();
}

const mc_scenario mc_scenarios[] = {
    {"stop_against_fire", setup_started, {stopper, clock_first}, check, .least = 2},
    {"restart_against_fire", setup_started, {restarter, clock_both}, check, .least = 5},
    {"restart_against_two_clocks", setup_started, {restarter, clock_first, second_clock}, check, .least = 10},
    {"periodic_stop_against_fire", setup_periodic, {stopper, clock_both}, check, .least = 3},
    {"starts_that_grow_the_heap", setup, {starter, second_starter, second_clock}, check, .least = 10},
    {"starts_without_memory", setup_short, {starter, second_starter}, check, .least = 10},
    {"take_against_fire_and_restart", setup_started, {taker, second_clock, asker}, check, .least = 5},
    {"take_and_ask", setup_started, {taker, asker}, check, .least = 2},
    {"start_handshake", setup_handshake, {telling_starter, looking_sleeper}, check_handshake, .least = 3},
    {.name = NULL},
};
