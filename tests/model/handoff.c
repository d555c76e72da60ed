/* Model: workers and what they hand to each other, with all of sched.c, worker.c, park.c and fiber.c. Tasks go on where
 * they were on whichever worker resumes them: pinned ones on their own, which asks for the permit; those that a blocked
 * worker left behind on others; ordinary threads wait for tasks and, where there is an interpreter, for their turn.
 */
#include "jobs.h"
#include "without_monitor.h"

ABSENT(bool, pg_tasks_rest, (pg_rest *rest), false)
ABSENT(bool, pg_nobody_wakes_main, (void), false)
ABSENT(bool, pg_sched_resume, (void), false)
ABSENT(bool, pg_sched_stop, (pg_nanos patience), false)

/* ---- an interpreter: one at a time is inside ---- */

static char interpreter; /* a token: nobody is */

static void go_in(void) { mc_token_take(&interpreter); }
static void go_out(void) { mc_token_put(&interpreter); }
static void enter(pg_fiber *from, pg_fiber *to)
{
    (void)to;
    if (from == NULL) go_in();
}
static void leave(pg_fiber *fiber)
{
    (void)fiber;
    go_out();
}
static void *thread_leave(void)
{
    go_out();
    return NULL;
}
static void thread_enter(void *token)
{
    (void)token;
    go_in();
}
static bool is_busy(void) { return !mc_token_is_there(&interpreter); }

/* ---- set-up ---- */

static void setup_one(void) { setup(NULL, 1, true); }
static void setup_one_of_many(void) { setup(NULL, 1, false); }
static void setup_two(void) { setup(NULL, 2, false); }

/* A call that blocks, and what ends it; neither is known to the scheduler. */
static char unblocked, is_blocked;
static pg_worker *blocked; /* before is_blocked is put */

static void block(job *it)
{
    (void)it;
    blocked = pg_worker_of_thread();
    mc_token_put(&is_blocked);
    mc_token_take(&unblocked);
}
static void unblock(job *it)
{
    (void)it;
    mc_token_put(&unblocked);
}

/* ---- a task waits, another wakes it: it may go on elsewhere ---- */

static void spawner(void)
{
    mc_name("spawner");
    spawn(0, wait_0);
    spawn(1, end_0);
}
static void waker(void)
{
    mc_name("waker");
    end_wait(0);
}
static void spawner_of_one(void)
{
    mc_name("spawner");
    spawn(0, wait_0);
}

/* Two wake each other: what each does before is seen by the other, on whichever worker. */
static int shared;
static void ping(job *it)
{
    (void)it;
    shared = 1;
    end_wait(0);
    wait_for(1);
    MC_CHECK(shared == 2);
}
static void pong(job *it)
{
    (void)it;
    wait_for(0);
    MC_CHECK(shared == 1);
    shared = 2;
    end_wait(1);
}
static void spawner_of_ping_pong(void)
{
    mc_name("spawner");
    spawn(0, ping);
    spawn(1, pong);
}

/* ---- what a task has made ready is its worker's next task. The worker blocks before that: others get it ---- */

static void wake_and_block(job *it)
{
    end_wait(0);
    block(it);
}
static void wait_and_unblock(job *it)
{
    wait_for(0);
    unblock(it);
}
static void spawner_of_wake_and_block(void)
{
    mc_name("spawner");
    spawn(0, wait_and_unblock);
    spawn(1, wake_and_block);
}
/* As monitor.c does. Once a worker has lost its permit, its queue is looked at again. */
static void monitor_of_blocked(void)
{
    mc_name("monitor");
    mc_token_take(&is_blocked);
    pg_take_permit_away(blocked);
}
/* At any moment, and the look of a later round. */
static void monitor_in_a_hurry(void)
{
    mc_name("monitor");
    pg_worker *worker = pg_load_acquire(&pg_the_sched.table[0]);
    if (worker != NULL) pg_take_permit_away(worker);
    mc_token_take(&is_blocked);
    pg_take_permit_away(blocked);
    for (int i = 0; i < pg_load_acquire(&pg_the_sched.table_length); i++)
        if (pg_worker_flush(pg_load_acquire(&pg_the_sched.table[i])) > 0) pg_wake_if_free();
}

/* Only as it happens to come: nobody looks again. */
static void monitor_at_any_moment(void)
{
    mc_name("monitor");
    pg_worker *worker = pg_load_acquire(&pg_the_sched.table[0]);
    if (worker != NULL) pg_take_permit_away(worker);
}
/* A task made ready for the next one pushes that into the queue, where others see it. */
static void wait_1(job *it)
{
    (void)it;
    wait_for(1);
}
static void wait_1_and_unblock(job *it)
{
    (void)it;
    wait_for(1);
    unblock(it);
}
static void wake_two_and_block(job *it)
{
    end_wait(0);
    end_wait(1);
    block(it);
}
static void spawner_of_wake_two_and_block(void)
{
    mc_name("spawner");
    spawn(0, wait_0);
    spawn(1, wait_1_and_unblock);
    spawn(2, wake_two_and_block);
}
static void bump_and_block(job *it)
{
    bool first = end_wait(0), second = end_wait(1);
    if (first && second) block(it); /* else the one that unblocks us may be next here: the monitor would have to help */
}
static void spawner_of_bump_and_block(void)
{
    mc_name("spawner");
    spawn(0, wait_and_unblock);
    spawn(1, wait_1);
    spawn(2, bump_and_block);
}
/* After so many turns in a row the next task goes behind the others. */
static void wake_two_after_a_streak(job *it)
{
    (void)it;
    end_wait(0);
    end_wait(1);
    pg_worker_of_thread()->next_streak = PG_NEXT_STREAK;
}
static void spawner_of_streak(void)
{
    mc_name("spawner");
    spawn(0, wait_0);
    spawn(1, wait_1);
    spawn(2, wake_two_after_a_streak);
}
/* Its timer is to ring although its worker blocks, and the timer is all there is. */
static pg_task *ring_0(pg_timer *rung)
{
    (void)rung;
    return &jobs[0].task;
}
static void start_timer_and_block(job *it)
{
    timer = (pg_timer){.fire = ring};
    jobs[1].body = unblock;
    jobs[1].by_timer = true;
    MC_CHECK(pg_sched_timer_start(&timer, pg_now() + 1000) == PG_OK);
    block(it);
}
static void spawner_of_timer(void)
{
    mc_name("spawner");
    spawn(0, start_timer_and_block);
}
static void spawner_of_two_that_meet(void)
{
    mc_name("spawner");
    spawn(0, block);
    spawn(1, unblock);
}

/* ---- pinned tasks ---- */

static void pinned_wait_0(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_pin() == PG_OK);
    pg_worker *before = pg_worker_of_thread();
    pg_store_relaxed(&kept_for_pinned, before);
    wait_for(0);
    MC_CHECK(pg_worker_of_thread() == before);
    pg_store_relaxed(&kept_for_pinned, NULL);
    MC_CHECK(pg_sched_unpin() == PG_OK);
}
static void spawner_of_pinned(void)
{
    mc_name("spawner");
    spawn(0, pinned_wait_0);
    spawn(1, end_0);
}
static void spawner_of_one_pinned(void)
{
    mc_name("spawner");
    spawn(0, pinned_wait_0);
}
static void pinned_ping(job *it)
{
    MC_CHECK(pg_sched_pin() == PG_OK);
    pg_worker *before = pg_worker_of_thread();
    ping(it);
    MC_CHECK(pg_worker_of_thread() == before);
    MC_CHECK(pg_sched_unpin() == PG_OK);
}
static void spawner_of_pinned_ping_pong(void)
{
    mc_name("spawner");
    spawn(0, pinned_ping);
    spawn(1, pong);
}
/* What waits in its queue when it is pinned must go elsewhere. */
static void spawn_and_pin(job *it)
{
    spawn(1, unblock);
    MC_CHECK(pg_sched_pin() == PG_OK);
    block(it);
    MC_CHECK(pg_sched_unpin() == PG_OK);
}
static void spawner_of_spawn_and_pin(void)
{
    mc_name("spawner");
    spawn(0, spawn_and_pin);
}
/* It yields to who is ready, who runs elsewhere with its permit. */
static void pin_and_yield(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_pin() == PG_OK);
    pg_worker *before = pg_worker_of_thread();
    spawn(1, nothing);
    pg_sched_yield();
    MC_CHECK(pg_worker_of_thread() == before && jobs[1].ended);
    MC_CHECK(pg_sched_unpin() == PG_OK);
}
static void spawner_of_pin_and_yield(void)
{
    mc_name("spawner");
    spawn(0, pin_and_yield);
}
/* Its worker keeps no time: another has to. */
static void pin_and_sleep(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_pin() == PG_OK);
    MC_CHECK(pg_sched_sleep_until(pg_now() + 1000) == PG_OK);
    MC_CHECK(pg_sched_unpin() == PG_OK);
}
static void spawner_of_pinned_sleeper(void)
{
    mc_name("spawner");
    spawn(0, pin_and_sleep);
}
static void yield_once(job *it)
{
    (void)it;
    pg_sched_yield();
}
/* The second is started on the fiber of the first. */
static void spawner_of_one_after_another(void)
{
    mc_name("spawner");
    spawn(0, nothing);
    spawn(1, wait_0);
}
static void spawner_of_yields(void)
{
    mc_name("spawner");
    spawn(0, yield_once);
    spawn(1, yield_once);
}

/* It waits for the permit of a worker that blocks. */
static void pinned_wait_and_unblock(job *it)
{
    pinned_wait_0(it);
    unblock(it);
}
static void spawner_of_heir(void)
{
    mc_name("spawner");
    spawn(0, pinned_wait_and_unblock);
    spawn(1, wake_and_block);
}
/* While it waits for a permit, a worker that has had its turn goes to rest. What was to be next there is for others. */
static void wake_both_and_make_way(job *it)
{
    (void)it;
    end_wait(0);
    end_wait(1);
    pg_worker *worker = pg_worker_of_thread();
    worker->turn_polls = PG_TURN_POLLS - 1;
    pg_store_relaxed(&worker->tick, PG_POLL_TICKS - 1);
    pg_sched_yield();
}
static void spawner_of_making_way(void)
{
    mc_name("spawner");
    spawn(0, pinned_wait_0);
    spawn(1, wait_1);
    spawn(2, wake_both_and_make_way);
}
/* Not pinned, but it has to stay where it was: below C code. Whoever finds it sends it there. */
static bool has_to_stay(pg_fiber *fiber) { return fiber->task == &jobs[0].task; }
static bool may_have_to_stay(pg_fiber *fiber) { return pg_peek(&fiber->task) == &jobs[0].task; }
static const pg_hooks staying = {.must_stay = has_to_stay, .may_have_to_stay = may_have_to_stay};
static void setup_staying(void) { setup(&staying, 2, false); }
static void stay_and_wait(job *it)
{
    (void)it;
    pg_worker *before = pg_worker_of_thread();
    wait_for(0);
    MC_CHECK(pg_worker_of_thread() == before);
}
static void spawner_of_staying(void)
{
    mc_name("spawner");
    spawn(0, stay_and_wait);
    spawn(1, end_0);
}
static void spawner_of_one_staying(void)
{
    mc_name("spawner");
    spawn(0, stay_and_wait);
}

/* ---- threads end: with the task they belong to, or because there are to be fewer ---- */

static void bind(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_bind() == PG_OK);
    spawn(1, nothing);
}
static void spawner_of_bound(void)
{
    mc_name("spawner");
    spawn(0, bind);
}
static void check_bound(void)
{
    check();
    MC_CHECK(!pg_the_sched.table[0]->alive || !pg_the_sched.table[1]->alive);
}
/* Another thread may take its record over. */
static void bind_and_end_0(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_bind() == PG_OK);
    end_wait(0);
}
static void pin_to_the_end(job *it)
{
    (void)it;
    MC_CHECK(pg_sched_pin() == PG_OK);
    end_wait(0);
}
static void thread_after_bound(void)
{
    mc_name("thread");
    spawn(0, bind_and_end_0);
    wait_for(0);
    spawn(1, nothing);
    mc_thread_exits();
}
static void thread_after_pinned(void)
{
    mc_name("thread");
    spawn(0, pin_to_the_end);
    wait_for(0);
    spawn(1, nothing);
    mc_thread_exits();
}
static void fewer(void)
{
    mc_name("spawner");
    spawn(0, nothing);
    spawn(1, nothing);
    MC_CHECK(pg_sched_set_workers(1) == PG_OK);
}
static void check_fewer(void)
{
    check();
    MC_CHECK(pg_the_sched.permits == 1 && pg_sched_workers() == 1 && idle_workers >= 1);
}
static void more(void)
{
    mc_name("spawner");
    spawn(0, block);
    spawn(1, unblock);
    mc_token_take(&is_blocked);
    MC_CHECK(pg_sched_set_workers(2) == PG_OK);
}

/* ---- threads that cannot be started ---- */

static void setup_short(void)
{
    setup_two();
    mc_set_short_of_threads(1000);
}
static void setup_short_of_memory(void)
{
    setup_two();
    mc_set_short_of_memory();
}
static void spawner_of_nothing(void)
{
    mc_name("spawner");
    spawn(0, nothing);
    spawn(1, nothing);
}
/* Then a task may be left, if there is nobody at all to run it, and it says so. */
static void check_short(void)
{
    if (pg_load_relaxed(&pg_the_sched.short_of_threads)) {
        MC_CHECK(jobs[0].ended && jobs[1].ended ? true : pg_load_relaxed(&pg_the_sched.thread_count) == 0);
        while (pg_load_relaxed(&pg_the_sched.inject.count) > 0) {
            pg_task *task;
            MC_CHECK(pg_inject_pop(&pg_the_sched.inject, &task, 1) == 1);
        }
        check_workers();
    } else {
        check();
    }
}

/* ---- an ordinary thread waits for a task ---- */

static void thread_that_waits(void)
{
    mc_name("thread");
    spawn(0, end_0);
    wait_for(0);
    mc_thread_exits();
}

static char first_is_gone;
static void thread_that_goes(void)
{
    thread_that_waits();
    mc_token_put(&first_is_gone);
}
static void thread_that_comes_later(void)
{
    mc_name("later");
    mc_token_take(&first_is_gone);
    MC_CHECK(pg_sched_self() != NULL);
    mc_thread_exits();
}

/* And wants the interpreter, while a task keeps it. */
static const pg_hooks interpreted = {
    .enter = enter, .leave = leave, .thread_leave = thread_leave, .thread_enter = thread_enter, .is_busy = is_busy,
};
/* The thread finds us inside, so it asks. The clock stands still here: by it no worker looks at turns. */
static void yield_when_asked(job *it)
{
    (void)it;
    end_wait(0);
    while (pg_load_seqcst(&pg_the_sched.turns) == 0) pg_cpu_relax();
    pg_worker *worker = pg_worker_of_thread();
    worker->turn_polls = PG_TURN_POLLS - 1;
    pg_store_relaxed(&worker->tick, PG_POLL_TICKS - 1);
    pg_sched_yield();
    MC_CHECK(pg_load_relaxed(&pg_the_sched.turn_word) == 1);
}
static void setup_interpreter(void)
{
    setup(&interpreted, 1, true);
    mc_set_patient();
}
static void thread_that_comes_back(void)
{
    mc_name("thread");
    mc_token_put(&interpreter);
    go_in();
    spawn(0, yield_when_asked);
    wait_for(0);
    go_out();
    mc_thread_exits();
}

/* ---- the scavenger trims the stacks of tasks that wait, and of nobody, while others wake them from outside ---- */

static const pg_hooks serial = {.enter = enter, .leave = leave, .is_busy = is_busy, .serial = true};
static void setup_scavenged(void)
{
    setup(&serial, 1, true);
    pg_store_relaxed(&pg_the_sched.scavenge_interval, 0); /* the clock stands still */
}
static void scavenge_and_wake(void)
{
    enum { NAPS = 6 }; /* by then it waits, or not */
    mc_name("monitor");
    mc_token_put(&interpreter);
    spawn(0, wait_0);
    for (int i = 0; i < NAPS; i++) mc_nap();
    pg_fibers_scavenge();
    end_wait(0);
}
/* On another worker than where it waits: that has lost its permit at any moment. */
static void scavenge_elsewhere_and_wake(void)
{
    enum { MOMENTS = 6 };
    mc_name("monitor");
    mc_token_put(&interpreter);
    spawn(0, wait_0);
    for (unsigned i = mc_choose(MOMENTS); i-- > 0;) mc_nap();
    pg_take_permit_away(pg_load_acquire(&pg_the_sched.table[0]));
    pg_fibers_scavenge();
    end_wait(0);
}
static void scavenge_twice(void)
{
    enum { NAPS = 6 };
    mc_name("monitor");
    mc_token_put(&interpreter);
    for (int number = 0; number < 2; number++) {
        spawn(number, nothing);
        for (int i = 0; i < NAPS; i++) mc_nap();
        pg_fibers_scavenge();
    }
}
/* Stacks of tasks that have ended, beside others that begin on them. */
static void scavenge_and_spawn(void)
{
    enum { NAPS = 6 };
    mc_name("monitor");
    mc_token_put(&interpreter);
    spawn(0, nothing);
    for (int i = 0; i < NAPS; i++) mc_nap();
    pg_fibers_scavenge();
    spawn(1, nothing);
}
static unsigned long trimmed, untrimmed; /* executions */
static void check_scavenged(void)
{
    for (int i = 0; i < TASKS; i++) MC_CHECK(jobs[i].ended == jobs[i].spawned);
    MC_CHECK(!pg_load_relaxed(&pg_the_sched.scavenging));
    check_workers();
    size_t count = pg_load_relaxed(&pg_the_sched.fiber_count), seen = 0;
    bool any = false;
    pg_node *list = &pg_the_sched.fibers;
    for (pg_node *node = list->next; node != list && seen <= count; node = node->next, seen++)
        any |= pg_container_of(node, pg_fiber, all)->trimmed_park != 0;
    MC_CHECK(seen == count);
    *(any ? &trimmed : &untrimmed) += 1;
}
static void conclude_scavenged(void)
{
    MC_CHECK(trimmed > 0 && untrimmed > 0);
    trimmed = untrimmed = 0;
}

/* ---- one worker that has a task as its next, or a timer to start, against who takes its permit, alone ---- */

static pg_worker alone;
static pg_fiber on_alone;
static int payload[2];

static void setup_alone(bool exclusive)
{
    setup(NULL, 1, exclusive);
    memset(&alone, 0, sizeof alone);
    memset(&on_alone, 0, sizeof on_alone);
    alone.thread.worker = &alone;
    alone.current = &on_alone;
    pg_runq_init(&alone.queue);
    pg_inject_init(&alone.inbox);
    pg_list_init(&alone.link);
    alone.alive = alone.permit = true;
    alone.sleep = AWAKE;
    pg_store_relaxed(&pg_the_sched.table[0], &alone);
    pg_store_relaxed(&pg_the_sched.table_length, 1);
    pg_store_relaxed(&pg_the_sched.thread_count, 1);
    pg_store_relaxed(&pg_the_sched.permits_free, 0);
    payload[0] = payload[1] = 0;
}
static void setup_alone_exclusive(void) { setup_alone(true); }
static void setup_alone_of_many(void) { setup_alone(false); }

static void make_two_next(void)
{
    mc_name("worker");
    *mc_slot() = &alone.thread;
    for (int i = 0; i < 2; i++) {
        payload[i] = 1;
        pg_sched_enqueue(&jobs[i].task);
    }
}
/* What it gets it also sees. */
static void flush(void)
{
    mc_name("monitor");
    pg_task *task;
    pg_worker_flush(&alone);
    while (pg_inject_pop(&pg_the_sched.inject, &task, 1) > 0) MC_CHECK(payload[task == &jobs[1].task]++ == 1);
}
static void check_alone(void)
{
    int left = pg_runq_length(&alone.queue) + (alone.run_next != NULL);
    MC_CHECK(left + (payload[0] - 1) + (payload[1] - 1) + (int)pg_load_relaxed(&pg_the_sched.inject.count) == 2);
}

static void make_one_next(void)
{
    mc_name("worker");
    *mc_slot() = &alone.thread;
    jobs[0].spawned = true;
    pg_sched_enqueue(&jobs[0].task);
}
/* Into its own queue, while the other worker goes to rest. */
static void setup_beside(void)
{
    setup_alone(false);
    pg_the_sched.permits = 2;
    pg_store_relaxed(&pg_the_sched.limit, 2);
    pg_store_relaxed(&pg_the_sched.permits_free, 1);
}
static void push(void)
{
    mc_name("worker");
    *mc_slot() = &alone.thread;
    spawn(0, nothing);
}
static void spawner_of_another(void)
{
    mc_name("spawner");
    spawn(1, nothing);
}
static void check_beside(void)
{
    MC_CHECK(jobs[0].ended && jobs[1].ended);
    MC_CHECK(pg_load_relaxed(&pg_the_sched.permits_free) == 1 && pg_load_relaxed(&pg_the_sched.searching) == 0);
}
static void start_timer(void)
{
    mc_name("worker");
    *mc_slot() = &alone.thread;
    jobs[0].by_timer = true;
    timer = (pg_timer){.fire = ring_0};
    MC_CHECK(pg_sched_timer_start(&timer, pg_now() + 1000) == PG_OK);
}
static void take_from_alone(void)
{
    mc_name("monitor");
    pg_take_permit_away(&alone);
}
static void check_ended(void)
{
    MC_CHECK(jobs[0].ended && alone.run_next == NULL && !alone.permit);
    MC_CHECK(pg_load_relaxed(&pg_the_sched.permits_free) == 1 && pg_load_relaxed(&pg_the_sched.searching) == 0);
}

#define BOUNDS .rests = true, .preemptions = 2, .stale = 1
const mc_scenario mc_scenarios[] = {
    {"park_and_wake", setup_two, {spawner}, check, BOUNDS},
    {"park_and_wake_by_a_thread", setup_one, {spawner_of_one, waker}, check, BOUNDS},
    {"ping_pong", setup_two, {spawner_of_ping_pong}, check, BOUNDS},
    {"ping_pong_of_one", setup_one, {spawner_of_ping_pong}, check, BOUNDS},
    {"on_the_fiber_of_another", setup_one, {spawner_of_one_after_another, waker}, check, BOUNDS},
    {"yields", setup_two, {spawner_of_yields}, check, BOUNDS},
    {"next_of_a_blocked_worker", setup_one, {spawner_of_wake_and_block, monitor_of_blocked}, check, BOUNDS},
    {"next_of_a_worker_that_loses_its_permit", setup_one_of_many, {spawner_of_wake_and_block, monitor_in_a_hurry},
     check, BOUNDS},
    {"next_of_a_worker_that_loses_its_permit_and_goes_on", setup_one, {spawner, monitor_at_any_moment}, check, BOUNDS},
    {"made_next_against_flush", setup_alone_exclusive, {make_two_next, flush}, check_alone},
    {"made_next_against_loss", setup_alone_of_many, {make_one_next, take_from_alone}, check_ended,
     .rests = true, .preemptions = 2, .stale = 2},
    {"push_against_rest", setup_beside, {push, spawner_of_another}, check_beside, BOUNDS},
    {"timer_against_loss", setup_alone_of_many, {start_timer, take_from_alone}, check_ended, BOUNDS},
    {"two_made_next", setup_one_of_many, {spawner_of_wake_two_and_block, monitor_in_a_hurry}, check, BOUNDS},
    {"bumped", setup_two, {spawner_of_bump_and_block}, check, BOUNDS},
    {"streak", setup_one, {spawner_of_streak}, check, BOUNDS},
    {"timer_of_a_blocked_worker", setup_one, {spawner_of_timer, monitor_of_blocked}, check, BOUNDS},
    {"two_that_meet", setup_two, {spawner_of_two_that_meet}, check, BOUNDS},
    {"pinned", setup_one, {spawner_of_pinned}, check, BOUNDS},
    {"pinned_woken_by_a_thread", setup_one, {spawner_of_one_pinned, waker}, check, BOUNDS},
    {"pinned_ping_pong", setup_one, {spawner_of_pinned_ping_pong}, check, BOUNDS},
    {"pinned_ping_pong_of_two", setup_two, {spawner_of_pinned_ping_pong}, check, BOUNDS},
    {"queue_of_a_worker_that_is_pinned", setup_two, {spawner_of_spawn_and_pin}, check, BOUNDS},
    {"pinned_yields", setup_one, {spawner_of_pin_and_yield}, check, BOUNDS},
    {"pinned_sleeper", setup_one, {spawner_of_pinned_sleeper}, check, BOUNDS},
    {"heir_of_a_blocked_worker", setup_one, {spawner_of_heir, monitor_of_blocked}, check, BOUNDS},
    {"making_way", setup_one, {spawner_of_making_way}, check, BOUNDS},
    {"staying", setup_staying, {spawner_of_staying}, check, BOUNDS},
    {"staying_woken_by_a_thread", setup_staying, {spawner_of_one_staying, waker}, check, BOUNDS},
    {"record_of_another", setup_one, {thread_after_bound}, check, BOUNDS},
    {"fiber_of_another", setup_one, {thread_after_pinned}, check, BOUNDS},
    {"bound", setup_one, {spawner_of_bound}, check_bound, BOUNDS},
    {"fewer", setup_two, {fewer}, check_fewer, BOUNDS},
    {"more", setup_one_of_many, {more}, check, BOUNDS},
    {"short_of_threads", setup_short, {spawner_of_nothing}, check_short, BOUNDS},
    {"short_of_memory", setup_short_of_memory, {spawner_of_nothing}, check_short, BOUNDS},
    {"threads_come_and_go", setup_one, {thread_that_goes, thread_that_comes_later}, check, BOUNDS},
    {"thread_waits", setup_one, {thread_that_waits}, check, BOUNDS},
    {"thread_comes_back", setup_interpreter, {thread_that_comes_back}, check, BOUNDS},
    {"scavenged", setup_scavenged, {scavenge_and_wake}, check_scavenged, conclude_scavenged, BOUNDS},
    {"scavenged_elsewhere", setup_scavenged, {scavenge_elsewhere_and_wake}, check_scavenged, BOUNDS},
    {"scavenged_twice", setup_scavenged, {scavenge_twice}, check_scavenged, BOUNDS},
    {"scavenged_free", setup_scavenged, {scavenge_and_spawn}, check_scavenged, BOUNDS},
    {.name = NULL},
};
