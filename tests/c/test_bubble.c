/* Bubbles: the clock moves when nobody runs, and only then, also where tasks really run side by side. */
#include "sched/bubble.h"

#include "check.h"
#include "sync/chan.h"
#include "tasks.h"

enum { MANY = 64, FEW = 6 };

static struct {
    pg_bubble bubble;
    pg_task steward;
    pg_latch *end;
} world;

/* ---- a bubble of native tasks ---- */

static bool is_any(const pg_timer *timer) { return true; }

static bool advance(void)
{
    pg_task *ready[MANY];
    pg_nanos next = pg_timers_earliest(&world.bubble.timers, is_any);
    if (next == PG_FOREVER) return false;
    CHECK(next > pg_load_relaxed(&world.bubble.now));
    pg_store_relaxed(&world.bubble.now, next);
    size_t count = pg_timers_expire(&world.bubble.timers, next, ready, MANY);
    for (size_t i = 0; i < count; i++) pg_sched_enqueue_last(ready[i]);
    return true;
}

static void steward_run(pg_task *task)
{
    pg_sched_detach_task(task->fiber);
    for (;;) {
        enum pg_bubble_state state = pg_bubble_look(&world.bubble);
        if (state == PG_BUBBLE_BUSY) return;
        if (state == PG_BUBBLE_WOKEN || advance()) continue;
        if (pg_bubble_retire(&world.bubble)) break;
    }
    count_down(world.end);
}

static void call_steward(pg_bubble *bubble)
{
    pg_task_init(&world.steward, steward_run);
    pg_sched_spawn(&world.steward);
}

typedef struct resident {
    pg_task task;
    void (*body)(void *argument);
    void *argument;
} resident;

static void resident_run(pg_task *task)
{
    resident *self = pg_container_of(task, resident, task);
    pg_bubble_enter(&world.bubble);
    self->body(self->argument);
    pg_bubble_leave();
    pg_sched_detach_task(task->fiber);
    memset(self, 0x5a, sizeof *self);
    free(self);
}

static resident *new_resident(void (*body)(void *argument), void *argument)
{
    resident *self = malloc(sizeof *self);
    CHECK(self != NULL);
    pg_task_init(&self->task, resident_run);
    self->body = body;
    self->argument = argument;
    pg_bubble_adopt(&world.bubble, &self->task);
    return self;
}

static void settle_in(void (*body)(void *argument), void *argument)
{
    pg_sched_spawn(&new_resident(body, argument)->task);
}

/* Until its tasks have ended, or wait for each other for ever; returns how many are left. */
static uint32_t run(void (*body)(void *argument), void *argument)
{
    pg_bubble_init(&world.bubble, call_steward);
    world.end = new_latch(1);
    resident *root = new_resident(body, argument);
    world.bubble.root = &root->task; /* the only one there is yet */
    pg_sched_spawn(&root->task);
    finish(world.end);
    return world.bubble.total;
}

static void nap(pg_nanos nanos) { CHECK_EQ(pg_sched_sleep_until(pg_sched_deadline_after(nanos)), PG_OK); }

static void chan_init(pg_chan *chan, uint32_t capacity)
{
    CHECK_EQ(pg_chan_init(chan, capacity), PG_OK);
    chan->bubble = pg_bubble_birthplace();
    CHECK(chan->bubble != 0);
}

/* ---- the clock ---- */

static void sleeps(void *unused)
{
    CHECK_EQ(pg_sched_now(), 0);
    for (int i = 1; i <= 100; i++) {
        nap(3600 * PG_SECOND);
        CHECK_EQ(pg_sched_now(), i * 3600 * PG_SECOND);
    }
}

static void hours_pass_in_no_time(void)
{
    pg_nanos start = pg_now();
    CHECK_EQ(run(sleeps, NULL), 0);
    CHECK(pg_now() - start < HANG);
    CHECK(pg_sched_now() >= start); /* out here the clock is the real one */
    pg_bubble_free(&world.bubble);
}

typedef struct pair {
    pg_chan there, back;
    pg_nanos period;
} pair;

static pair pairs[FEW];
static int pair_rounds;

static void echo_body(void *argument)
{
    pair *self = argument;
    uintptr_t value;
    while (pg_chan_recv(&self->there, &value, PG_FOREVER) == PG_OK) {
        CHECK_EQ(value, pg_sched_now());
        CHECK_EQ(pg_chan_send(&self->back, value, PG_FOREVER), PG_OK);
    }
}

static void caller_body(void *argument)
{
    pair *self = argument;
    chan_init(&self->there, 0);
    chan_init(&self->back, (uint32_t)(self->period % 2));
    settle_in(echo_body, self);
    for (int i = 0; i < pair_rounds; i++) {
        pg_nanos start = pg_sched_now();
        uintptr_t value;
        for (int exchange = 0; exchange < 3; exchange++) {
            CHECK_EQ(pg_chan_send(&self->there, (uintptr_t)start, PG_FOREVER), PG_OK);
            CHECK_EQ(pg_chan_recv(&self->back, &value, start + 1 + i % 2), PG_OK); /* a timer that must not fire */
            CHECK_EQ(value, start);
            CHECK_EQ(pg_sched_now(), start);
        }
        nap(self->period);
        CHECK_EQ(pg_sched_now(), start + self->period);
    }
    CHECK_EQ(pg_chan_close(&self->there), PG_OK);
}

static void callers(void *unused)
{
    for (int i = 0; i < FEW; i++) {
        pairs[i].period = i + 1;
        settle_in(caller_body, &pairs[i]);
    }
}

static void the_clock_stands_still_while_anybody_runs(void)
{
    pair_rounds = check_rounds(3000);
    CHECK_EQ(run(callers, NULL), 0);
    CHECK_EQ(pg_load_relaxed(&world.bubble.now), (pg_nanos)FEW * pair_rounds);
    for (int i = 0; i < FEW; i++) {
        pg_chan_free(&pairs[i].there);
        pg_chan_free(&pairs[i].back);
    }
    pg_bubble_free(&world.bubble);
}

static void rests_woken(void *unused)
{
    pg_fiber *fiber = pg_sched_fiber();
    fiber->durable = true;
    CHECK(!pg_task_wake(fiber->task)); /* somebody is quicker than B2 */
    pg_bubble_rest(fiber);
    CHECK(!fiber->idle);
    CHECK(pg_bubble_is_busy(&world.bubble));
    CHECK(pg_task_take_notification(fiber->task));
}

static void who_is_woken_before_it_is_idle_goes_on(void)
{
    CHECK_EQ(run(rests_woken, NULL), 0);
    pg_bubble_free(&world.bubble);
}

/* ---- waiting for the others ---- */

static atomic_int steps, helpers;

static void step_body(void *argument)
{
    for (int i = 0; i < 5; i++) {
        pg_sched_yield();
        pg_add_seqcst(&steps, 1);
    }
    pg_add_seqcst(&helpers, -1);
}

static void looks(void *unused)
{
    int rounds = check_rounds(1000);
    for (int i = 1; i <= rounds; i++) {
        pg_add_seqcst(&helpers, FEW);
        for (int k = 0; k < FEW; k++) settle_in(step_body, NULL);
        CHECK_EQ(pg_bubble_settle(NULL), PG_OK);
        CHECK_EQ(pg_load_seqcst(&steps), i * FEW * 5);
        CHECK_EQ(pg_load_seqcst(&helpers), 0);
        if (i % 4 == 0) nap(1);
    }
    CHECK_EQ(pg_sched_now(), rounds / 4);
}

static void who_waits_for_the_others_sees_what_they_did(void)
{
    pg_store_seqcst(&steps, 0);
    CHECK_EQ(run(looks, NULL), 0);
    pg_bubble_free(&world.bubble);
}

/* ---- deadlock ---- */

static pg_chan never;

static void waits_for_ever(void *unused)
{
    uintptr_t value;
    CHECK_EQ(pg_chan_recv(&never, &value, PG_FOREVER), PG_ECLOSED);
}

static void stuck(void *unused)
{
    chan_init(&never, 0);
    for (int i = 0; i < FEW; i++) settle_in(waits_for_ever, NULL);
    nap(7);
    waits_for_ever(NULL);
}

static void those_that_wait_for_each_other_are_left(void)
{
    CHECK_EQ(run(stuck, NULL), FEW + 1);
    CHECK_EQ(pg_load_relaxed(&world.bubble.now), 7);
    CHECK(!pg_bubble_is_busy(&world.bubble));
    world.end = new_latch(1); /* they can still be woken, from outside */
    CHECK_EQ(pg_chan_close(&never), PG_OK);
    finish(world.end);
    CHECK_EQ(world.bubble.total, 0);
    pg_chan_free(&never);
    pg_bubble_free(&world.bubble);
}

static void from_outside(void *argument)
{
    pg_chan *chan = argument;
    nap(PG_SECOND / 1000);
    CHECK_EQ(pg_chan_send(chan, 1, PG_FOREVER), PG_OK);
}

static void waits_outside(void *argument)
{
    uintptr_t value;
    CHECK_EQ(pg_chan_recv(argument, &value, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_sched_now(), 0);
}

static void waits_with_others(void *argument)
{
    settle_in(waits_outside, argument);
    nap(PG_SECOND);
}

static void the_clock_waits_for_what_comes_from_outside(void)
{
    pg_chan chan;
    CHECK_EQ(pg_chan_init(&chan, 0), PG_OK);
    pg_latch *sent = new_latch(1);
    go(sent, from_outside, &chan);
    CHECK_EQ(run(waits_with_others, &chan), 0);
    finish(sent);
    pg_chan_free(&chan);
    pg_bubble_free(&world.bubble);
}

int main(void)
{
    CHECK_EQ(pg_sched_init(NULL, 1, false), PG_OK);
    RUN_WITH_WORKERS(hours_pass_in_no_time);
    RUN_WITH_WORKERS(the_clock_stands_still_while_anybody_runs);
    RUN_WITH_WORKERS(who_is_woken_before_it_is_idle_goes_on);
    RUN_WITH_WORKERS(who_waits_for_the_others_sees_what_they_did);
    RUN_WITH_WORKERS(those_that_wait_for_each_other_are_left);
    RUN_WITH_WORKERS(the_clock_waits_for_what_comes_from_outside);
    return 0;
}
