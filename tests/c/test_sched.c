/* The scheduler with native tasks: spawn, yield, park and wake, deadlines, foreign threads, pinning, stop and fork. */
#include "sched/sched.h"

#include <fenv.h>
#include <malloc.h>
#include <string.h>

#include "sched/internal.h"
#include "sync/chan.h"
#include "tasks.h"

/* ---- spawning ---- */

static atomic_uchar *runs;
static pg_latch *done;
static atomic_int next_index;

static void mark_body(void *argument) { pg_add_relaxed(&runs[(uintptr_t)argument], 1); }

static void spawn_range(uintptr_t from, uintptr_t count)
{
    for (uintptr_t i = from; i < from + count; i++) go(done, mark_body, (void *)i);
}

static void check_runs(int count)
{
    finish(done);
    for (int i = 0; i < count; i++) CHECK_EQ(pg_load_relaxed(&runs[i]), 1);
    free(runs);
}

static void expect_runs(int count)
{
    runs = calloc((size_t)count, sizeof *runs);
    CHECK(runs != NULL);
    done = new_latch(count);
    pg_store_relaxed(&next_index, 0);
}

static void every_task_spawned_by_a_thread_runs_once(void)
{
    int count = check_rounds(50000);
    expect_runs(count);
    spawn_range(0, (uintptr_t)count);
    check_runs(count);
}

enum { BURST = 20 * PG_RUNQ_SIZE };

static void burst_body(void *argument) { spawn_range((uintptr_t)argument * BURST, BURST); }

static void bursts_beyond_every_ring_run_to_the_last_task(void)
{
    expect_runs(8 * BURST);
    for (uintptr_t i = 0; i < 8; i++) go(NULL, burst_body, (void *)i);
    check_runs(8 * BURST);
}

static void tree_body(void *argument)
{
    uintptr_t depth = (uintptr_t)argument;
    int index = pg_add_relaxed(&next_index, 1);
    if (depth > 0) go(done, tree_body, (void *)(depth - 1)), go(done, tree_body, (void *)(depth - 1));
    mark_body((void *)(uintptr_t)index);
}

static void tasks_that_spawn_tasks_are_spread_and_all_run(void)
{
    uintptr_t depth = CHECK_SANITIZED || CHECK_EMULATED ? 9 : 13;
    int count = (2 << depth) - 1;
    expect_runs(count);
    go(done, tree_body, (void *)depth);
    check_runs(count);
}

static void *spawning_thread(void *argument)
{
    spawn_range((uintptr_t)argument * 1000, 1000);
    return NULL;
}

static void foreign_threads_spawn_and_end(void)
{
    pthread_t threads[4];
    expect_runs(4000);
    for (uintptr_t i = 0; i < 4; i++) threads[i] = check_thread(spawning_thread, (void *)i);
    for (int i = 0; i < 4; i++) check_join(threads[i]);
    check_runs(4000);
}

/* ---- yielding ---- */

static atomic_long yields;

static void yielding_body(void *argument)
{
    uint64_t mine = (uintptr_t)argument, sum = 0, again = (uintptr_t)argument, check = 0;
    for (int i = 0; i < 100; i++) {
        sum += check_random(&mine);
        pg_sched_yield();
        check += check_random(&again);
        CHECK(sum == check);
        pg_add_relaxed(&yields, 1);
    }
}

static void yielding_tasks_all_go_on(void)
{
    int count = check_rounds(2000);
    done = new_latch(count);
    pg_store_relaxed(&yields, 0);
    for (int i = 0; i < count; i++) go(done, yielding_body, (void *)(uintptr_t)(i + 1));
    finish(done);
    CHECK_EQ(pg_load_relaxed(&yields), 100L * count);
}

static void private_state_body(void *argument)
{
    const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    int mine = (int)(intptr_t)argument;
    CHECK_EQ(fegetround(), FE_TONEAREST);
    fesetround(modes[mine % 4]);
    for (int i = 0; i < 50; i++) {
        pg_errno_set(mine); /* not errno itself: compilers keep its address, and the thread may be another */
        pg_sched_yield();
        CHECK_EQ(pg_errno_get(), mine);
        CHECK_EQ(fegetround(), modes[mine % 4]);
    }
}

static void errno_and_rounding_are_private(void)
{
    done = new_latch(100);
    for (int i = 0; i < 100; i++) go(done, private_state_body, (void *)(intptr_t)i);
    finish(done);
}

static atomic_bool enough;

static void endless_yielder(void *unused)
{
    (void)unused;
    while (!pg_load_relaxed(&enough)) pg_sched_yield();
}

static void sleeping_body(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++) {
        pg_nanos until = pg_now() + PG_SECOND / 1000;
        CHECK_EQ(pg_sched_sleep_until(until), PG_OK);
        CHECK(pg_now() >= until);
    }
}

static void a_yielder_starves_neither_fresh_tasks_nor_timers(void)
{
    pg_latch *yielders = new_latch(3), *sleepers = new_latch(100);
    pg_store_relaxed(&enough, false);
    for (int i = 0; i < 3; i++) go(yielders, endless_yielder, NULL);
    CHECK_EQ(pg_sched_sleep_until(pg_now() + PG_SECOND / 1000), PG_OK); /* they are at it */
    expect_runs(100);
    spawn_range(0, 100);
    for (int i = 0; i < 100; i++) go(sleepers, sleeping_body, NULL);
    check_runs(100);
    finish(sleepers);
    pg_store_relaxed(&enough, true);
    finish(yielders);
}

static void computing_body(void *unused)
{
    (void)unused;
    while (!pg_load_relaxed(&enough)) pg_cpu_relax();
}

static void enough_body(void *unused)
{
    (void)unused;
    pg_store_relaxed(&enough, true);
}

static void a_computing_task_does_not_stop_the_others(void)
{
    int spinners = check_workers;
    if (check_workers > 4) return; /* each occupies a thread, and the machine has few */
    done = new_latch(spinners + 1);
    pg_store_relaxed(&enough, false);
    for (int i = 0; i < spinners; i++) go(done, computing_body, NULL);
    CHECK_EQ(pg_sched_sleep_until(pg_now() + PG_SECOND / 1000), PG_OK);
    go(done, enough_body, NULL);
    finish(done);
}

/* ---- parking ---- */

typedef struct rally {
    pg_task *players[2];
    atomic_int turn, present;
    int rounds;
    long ball; /* plain: handed over by the wake */
} rally;

typedef struct player {
    rally *rally;
    int side;
} player;

static void wake(pg_task *task)
{
    if (pg_task_wake(task)) pg_sched_enqueue(task);
}

static void player_body(void *argument)
{
    player *self = argument;
    rally *game = self->rally;
    game->players[self->side] = pg_sched_self();
    pg_add_seqcst(&game->present, 1);
    while (pg_load_acquire(&game->present) < 2) pg_sched_yield();
    for (int i = 0; i < game->rounds; i++) {
        while (pg_load_acquire(&game->turn) != self->side) CHECK_EQ(pg_sched_park(pg_sched_self(), PG_FOREVER), PG_OK);
        game->ball++;
        pg_store_release(&game->turn, 1 - self->side);
        wake(game->players[1 - self->side]);
    }
    pg_add_seqcst(&game->present, 1);
    while (pg_load_acquire(&game->present) < 4) pg_sched_yield(); /* the other may be about to wake us */
}

static void pairs_hand_a_ball_to_and_fro(void)
{
    enum { PAIRS = 10 };
    static rally games[PAIRS];
    static player players[PAIRS][2];
    memset(games, 0, sizeof games);
    done = new_latch(2 * PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        games[i].rounds = check_rounds(5000);
        for (int side = 0; side < 2; side++) {
            players[i][side] = (player){&games[i], side};
            go(done, player_body, &players[i][side]);
        }
    }
    finish(done);
    for (int i = 0; i < PAIRS; i++) CHECK_EQ(games[i].ball, 2 * games[i].rounds);
}

/* Wakes, deadlines and the end of the wait at the same time; a wake without a reason must not end the wait. */
typedef struct sitter {
    pg_task *task; /* set before `seated` */
    atomic_int seated, permits;
    int taken, timeouts;
} sitter;

enum { SITTERS = 16 };
static sitter sitters[SITTERS];
static atomic_bool heckling, sitting;
static int permits_each;

static void sitter_body(void *argument)
{
    sitter *self = argument;
    uint64_t random = (uintptr_t)argument;
    self->task = pg_sched_self();
    pg_store_release(&self->seated, 1);
    while (self->taken < permits_each) {
        int here = atomic_exchange(&self->permits, 0);
        self->taken += here;
        if (here > 0) continue;
        pg_nanos deadline = check_below(&random, 4) ? PG_FOREVER : pg_now() + (pg_nanos)check_below(&random, 50000);
        int outcome = pg_sched_park(self->task, deadline);
        CHECK(outcome == PG_OK || (outcome == PG_ETIMEDOUT && deadline != PG_FOREVER && pg_now() >= deadline));
        self->timeouts += outcome == PG_ETIMEDOUT;
    }
    pg_store_release(&self->seated, 2);
    while (pg_load_acquire(&sitting)) CHECK_EQ(pg_sched_sleep_until(pg_now() + 100000), PG_OK);
}

static void *heckler_body(void *unused)
{
    uint64_t random = 99;
    while (pg_load_relaxed(&heckling)) {
        sitter *one = &sitters[check_below(&random, SITTERS)];
        if (pg_load_acquire(&one->seated)) wake(one->task);
        if (check_below(&random, 8) == 0) pg_os_yield();
    }
    return unused;
}

static void *giver_body(void *argument)
{
    sitter *first = argument;
    for (int i = 0; i < permits_each; i++)
        for (sitter *one = first; one < first + SITTERS / 2; one++) {
            while (!pg_load_acquire(&one->seated)) pg_os_yield();
            pg_add_seqcst(&one->permits, 1);
            wake(one->task);
        }
    return NULL;
}

static void wakes_deadlines_and_stale_wakes_lose_nothing(void)
{
    pthread_t givers[2], heckler;
    memset(sitters, 0, sizeof sitters);
    permits_each = check_rounds(50000);
    done = new_latch(SITTERS);
    pg_store_relaxed(&heckling, true);
    pg_store_relaxed(&sitting, true);
    for (int i = 0; i < SITTERS; i++) go(done, sitter_body, &sitters[i]);
    heckler = check_thread(heckler_body, NULL);
    for (int i = 0; i < 2; i++) givers[i] = check_thread(giver_body, &sitters[i * SITTERS / 2]);
    for (int i = 0; i < 2; i++) check_join(givers[i]);
    pg_nanos deadline = pg_deadline_after(HANG);
    for (int i = 0; i < SITTERS; i++)
        while (pg_load_acquire(&sitters[i].seated) != 2) {
            CHECK(pg_now() < deadline);
            pg_os_yield();
        }
    pg_store_relaxed(&heckling, false);
    check_join(heckler);
    pg_store_release(&sitting, false); /* nobody wakes them any more: now they may end */
    finish(done);
    for (int i = 0; i < SITTERS; i++) CHECK_EQ(sitters[i].taken, permits_each);
}

static pg_latch *gate;

static void gate_body(void *unused)
{
    (void)unused;
    finish(gate);
}

static void very_many_tasks_park_at_once_and_all_return(void)
{
    int count = CHECK_SANITIZED ? 500 : CHECK_EMULATED ? 3000 : 30000;
    pg_sched_stats stats;
    gate = new_latch(1);
    done = new_latch(count);
    for (int i = 0; i < count; i++) go(done, gate_body, NULL);
    do { /* each has a timer */
        pg_os_yield();
        pg_sched_read_stats(&stats);
    } while (stats.timers < (uint64_t)count);
    CHECK_EQ(pg_latch_wait(done, PG_NEVER_WAIT), PG_EAGAIN);
    count_down(gate);
    finish(done);
}

/* ---- deadlines ---- */

static void deadline_body(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    for (int i = 0; i < 20; i++) {
        pg_nanos until = pg_now() + (pg_nanos)check_below(&random, 2000000);
        CHECK_EQ(pg_sched_sleep_until(until), PG_OK);
        CHECK(pg_now() >= until);
        CHECK(pg_now() < until + 5 * PG_SECOND);
    }
}

static void sleeps_are_never_short(void)
{
    done = new_latch(100);
    for (int i = 0; i < 100; i++) go(done, deadline_body, (void *)(uintptr_t)(i + 1));
    finish(done);
}

static void *sleeping_thread(void *argument)
{
    deadline_body(argument);
    return NULL;
}

static void threads_sleep_too_and_passed_deadlines_return_at_once(void)
{
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) threads[i] = check_thread(sleeping_thread, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < 3; i++) check_join(threads[i]);
    CHECK_EQ(pg_sched_park(pg_sched_self(), PG_NEVER_WAIT), PG_ETIMEDOUT);
    CHECK_EQ(pg_sched_park(pg_sched_self(), 1), PG_ETIMEDOUT);
    CHECK_EQ(pg_sched_sleep_until(1), PG_OK);
}

/* A timer that a thread starts while everybody sleeps must be kept on time. */
static void an_earlier_timer_shortens_everybodys_sleep(void)
{
    pg_latch *far = new_latch(1), *near = new_latch(1);
    gate = new_latch(1);
    go(far, gate_body, NULL); /* a timer 40 s away */
    CHECK_EQ(pg_sched_sleep_until(pg_now() + PG_SECOND / 500), PG_OK);
    pg_nanos start = pg_now();
    go(near, deadline_body, (void *)7);
    finish(near);
    CHECK(pg_now() - start < 10 * PG_SECOND);
    count_down(gate);
    finish(far);
}

/* ---- threads that wait ---- */

static void *waiting_thread(void *latch)
{
    finish(latch);
    return NULL;
}

static void opening_body(void *latch)
{
    pg_sched_yield();
    count_down(latch);
}

static void foreign_threads_wait_for_tasks_and_end_at_once(void)
{
    for (int round = 0, rounds = check_rounds(200); round < rounds; round++) {
        pthread_t threads[3];
        pg_latch *latch = new_latch(1);
        for (int i = 0; i < 3; i++) threads[i] = check_thread(waiting_thread, latch);
        go(NULL, opening_body, latch);
        for (int i = 0; i < 3; i++) check_join(threads[i]);
    }
}

/* ---- pinning ---- */

static void pinned_body(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pg_sched_unpin(), PG_EINVAL);
        CHECK_EQ(pg_sched_pin(), PG_OK);
        CHECK_EQ(pg_sched_pin(), PG_OK);
        unsigned long thread = pg_os_thread_id();
        for (int k = 0; k < 10; k++) {
            if (k % 2) pg_sched_yield();
            else CHECK_EQ(pg_sched_sleep_until(pg_now() + 50000), PG_OK);
            CHECK_EQ(pg_os_thread_id(), thread);
        }
        CHECK_EQ(pg_sched_unpin(), PG_OK);
        pg_sched_yield();
        CHECK_EQ(pg_os_thread_id(), thread);
        CHECK_EQ(pg_sched_unpin(), PG_OK);
        pg_sched_yield();
    }
    CHECK_EQ(pg_sched_pin(), PG_OK); /* ends pinned */
}

static void pinned_tasks_keep_their_thread_and_others_go_on(void)
{
    CHECK_EQ(pg_sched_pin(), PG_EINVAL);
    int others = check_rounds(200);
    done = new_latch(5 + others);
    for (int i = 0; i < others; i++) {
        if (i % (others / 5) == 0) go(done, pinned_body, NULL);
        go(done, yielding_body, (void *)(uintptr_t)(i + 1));
    }
    finish(done);
}

/* ---- changing the number of workers, stopping ---- */

static void workers_change_under_load(void)
{
    const int counts[] = {1, 7, 2, 16, 3};
    int before = check_workers, count = check_rounds(1000);
    done = new_latch(count);
    for (int i = 0; i < count; i++) go(done, yielding_body, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(pg_sched_set_workers(counts[i % 5]), PG_OK);
        CHECK_EQ(pg_sched_workers(), counts[i % 5]);
        pg_os_yield();
    }
    CHECK_EQ(pg_sched_set_workers(0), PG_EINVAL);
    CHECK_EQ(pg_sched_set_workers(PG_MAX_WORKERS + 1), PG_EINVAL);
    CHECK_EQ(pg_sched_set_workers(before), PG_OK);
    finish(done);
}

static void stopping_holds_every_task_until_resumed(void)
{
    int count = check_rounds(1000);
    done = new_latch(count);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < count / 2; i++) go(done, yielding_body, (void *)(uintptr_t)(i + 1));
    for (int round = 0; round < 20; round++) {
        CHECK(pg_sched_stop(HANG));
        long before = pg_load_relaxed(&yields);
        for (int i = 0; i < 100; i++) pg_os_yield();
        CHECK_EQ(pg_load_relaxed(&yields), before);
        pg_sched_resume();
        for (int i = 0; i < 20; i++) pg_os_yield();
    }
    finish(done);
}

/* The layer above may delete what fibers have there as soon as all has stopped. */
static atomic_bool are_stopped, look_came_late, is_bound;
static atomic_int looks;
static pg_latch *go_on;

static _Atomic(pg_fiber *) at_home, away; /* the one that must stay on its thread; the one that is outside */

static bool stays(pg_fiber *fiber) { return fiber == NULL || fiber == pg_load_acquire(&at_home); }
static bool look_at(pg_fiber *fiber)
{
    pg_add_relaxed(&looks, 1);
    if (pg_load_acquire(&are_stopped)) pg_store_relaxed(&look_came_late, true);
    return stays(fiber);
}
static atomic_bool are_outside; /* all that run, as the monitor sees it */
static bool look_outside(pg_fiber *fiber)
{
    return fiber != NULL && (pg_load_acquire(&are_outside) || fiber == pg_load_acquire(&away));
}
static bool nobody_inside(void) { return false; }
static const pg_hooks with_looks = {
    .must_stay = stays, .may_have_to_stay = look_at, .is_outside = look_outside, .is_busy = nobody_inside};

static void wait_to_go_on(void *argument)
{
    (void)argument;
    pg_add_relaxed(&next_index, 1);
    finish(go_on);
}

/* When it ends, its thread looks whether the others, which were here last, need it. */
static void ends_with_its_thread(void *argument)
{
    enum { OTHERS = 20 };
    (void)argument;
    for (int i = 0; i < OTHERS; i++) go(done, wait_to_go_on, NULL);
    while (pg_load_relaxed(&next_index) < OTHERS) pg_sched_yield();
    CHECK_EQ(pg_sched_bind(), PG_OK);
    pg_store_release(&is_bound, true);
    while (!pg_load_acquire(&enough)) pg_nanosleep(100000);
}

static void a_thread_that_ends_late_looks_at_no_fibers(void)
{
    for (int is_late = 0; is_late < 2; is_late++) {
        int before = pg_load_relaxed(&looks);
        done = new_latch(21);
        go_on = new_latch(1);
        pg_store_relaxed(&next_index, 0);
        pg_store_relaxed(&enough, false);
        pg_store_relaxed(&is_bound, false);
        go(done, ends_with_its_thread, NULL);
        while (!pg_load_acquire(&is_bound)) pg_nanosleep(100000);
        if (is_late) {
            CHECK(!pg_sched_stop(0));
            pg_store_release(&are_stopped, true);
            pg_store_release(&enough, true);
            CHECK(pg_sched_stop(HANG));
            pg_nanosleep(5000000); /* for the look, which must not come */
            pg_store_release(&are_stopped, false);
            pg_sched_resume();
        }
        pg_store_release(&enough, true);
        /* alone there, all of them were on its thread */
        pg_nanos deadline = pg_deadline_after(HANG);
        while (!is_late && check_workers == 1 && pg_load_relaxed(&looks) == before && pg_now() < deadline) pg_os_yield();
        CHECK(is_late || check_workers > 1 || pg_load_relaxed(&looks) > before);
        count_down(go_on);
        finish(done);
    }
    CHECK(!pg_load_relaxed(&look_came_late));
}

/* Who is in a list says so, and who says so is in one. */
static void check_lists(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_node *lists[] = {&sched->idle, &sched->waiting};
    const int says[] = {IDLE, QUEUED};
    int expected[] = {0, 0};
    pg_lock_acquire(&sched->lock);
    for (int i = 0; i < pg_load_relaxed(&sched->table_length); i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        for (int j = 0; j < 2; j++) expected[j] += worker->alive && (int)worker->sleep == says[j];
    }
    for (int j = 0; j < 2; j++) {
        for (pg_node *node = lists[j]->next; node != lists[j]; node = node->next) {
            CHECK(node->next->prev == node);
            CHECK_EQ((int)pg_container_of(node, pg_worker, link)->sleep, says[j]);
            CHECK(--expected[j] >= 0);
        }
        CHECK_EQ(expected[j], 0);
    }
    pg_lock_release(&sched->lock);
}

static atomic_bool has_the_permit;

static void keeps_the_permit(void *unused)
{
    (void)unused;
    pg_store_release(&has_the_permit, true);
    while (!pg_load_acquire(&enough)) pg_cpu_relax();
}

static pg_worker *_Atomic its_worker;

/* Its thread loses the permit to the other while it is away, and has none when it is to rest. */
static void comes_home_and_waits(void *unused)
{
    pg_fiber *fiber = pg_sched_fiber();
    pg_worker *worker = fiber->worker;
    (void)unused;
    pg_store_release(&at_home, fiber);
    go(done, keeps_the_permit, NULL);
    pg_store_release(&away, fiber);
    while (!pg_load_acquire(&has_the_permit)) pg_cpu_relax();
    pg_store_release(&away, NULL);
    pg_store_release(&its_worker, worker);
    finish(go_on);
    CHECK(fiber->worker == worker);
    pg_store_release(&at_home, NULL);
}

static bool rests(pg_worker *worker)
{
    pg_lock_acquire(&pg_the_sched.lock);
    bool resting = worker != NULL && worker->sleep == IDLE;
    if (resting) CHECK_EQ(pg_load_relaxed(&pg_the_sched.permits_free), 0);
    pg_lock_release(&pg_the_sched.lock);
    return resting;
}

static void a_task_for_a_thread_at_rest_waits_there_for_a_permit(void)
{
    int before = check_workers;
    CHECK_EQ(pg_sched_set_workers(1), PG_OK);
    done = new_latch(2);
    go_on = new_latch(1);
    pg_store_relaxed(&enough, false);
    pg_store_relaxed(&has_the_permit, false);
    pg_store_relaxed(&its_worker, NULL);
    go(done, comes_home_and_waits, NULL);
    while (!rests(pg_load_acquire(&its_worker))) pg_nanosleep(100000);
    check_lists();
    count_down(go_on);
    check_lists();
    pg_store_release(&enough, true);
    finish(done);
    check_lists();
    CHECK_EQ(pg_sched_set_workers(before), PG_OK);
}

/* ---- fork ---- */

static void after_fork(void)
{
    pg_sched_after_fork_in_child(pg_sync_forget);
    expect_runs(1000);
    spawn_range(0, 1000);
    check_runs(1000);
    CHECK_EQ(pg_sched_sleep_until(pg_now() + 1000000), PG_OK);
}

static void a_child_process_has_a_scheduler_of_its_own(void)
{
    if (CHECK_SANITIZED) SKIP("the sanitizer does not survive a fork with threads");
    if (CHECK_EMULATED) SKIP("a fork beside threads that start others leaves a lock of the emulator held in the child");
    enum { FORKS = 8, BURST_SIZE = 300 };
    int count = 200;
    pg_store_relaxed(&enough, false);
    done = new_latch(count + 2 + FORKS * BURST_SIZE);
    pg_latch *mine = done;
    for (int i = 0; i < 2; i++) go(done, endless_yielder, NULL);
    for (int i = 0; i < count; i++) go(done, deadline_body, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < FORKS; i++) {
        for (int j = 0; j < BURST_SIZE; j++) go(mine, sleeping_body, NULL); /* workers are about to start them */
        pg_sched_before_fork();
        pid_t child = check_fork(after_fork);
        pg_sched_after_fork_in_parent();
        CHECK_EQ(check_wait(child), 0);
    }
    pg_store_relaxed(&enough, true);
    finish(mine);
}

static atomic_uint lock_held;

static void *hold_lock(void *opaque)
{
    pg_lock *lock = opaque;
    pg_lock_acquire(lock);
    pg_store_release(&lock_held, 1);
    while (pg_load_acquire(&lock_held) == 1) pg_nanosleep(100000);
    pg_lock_release(lock);
    return NULL;
}

static pg_lock *const locks[] = {&pg_the_sched.lock, &pg_the_sched.fiber_lock, &pg_the_sched.look_lock,
                                 &pg_the_sched.inject.lock, &pg_the_sched.no_stack.lock, &pg_the_sched.timers.lock};
enum { LOCKS = sizeof locks / sizeof *locks, TAKEN_FOR_FORK = 2 };

static void after_fork_with_locks(void)
{
    alarm(20); /* a lock that nobody will release ends the child */
    after_fork();
    for (int i = 0; i < LOCKS; i++) {
        pg_lock_acquire(locks[i]);
        pg_lock_release(locks[i]);
    }
}

static void locks_that_others_hold_at_a_fork_are_free_in_the_child(void)
{
    if (CHECK_SANITIZED) SKIP("the sanitizer does not survive a fork with threads");
    for (int i = TAKEN_FOR_FORK; i < LOCKS; i++) {
        pthread_t holder = check_thread(hold_lock, locks[i]);
        while (pg_load_acquire(&lock_held) == 0) pg_os_yield();
        pg_sched_before_fork();
        pid_t child = check_fork(after_fork_with_locks);
        pg_sched_after_fork_in_parent();
        pg_store_release(&lock_held, 0);
        CHECK_EQ(check_wait(child), 0);
        check_join(holder);
    }
}

static void *take_locks(void *opaque)
{
    pg_sched_stats stats;
    while (!pg_load_acquire(&enough)) {
        pg_sched_read_stats(&stats); /* the scheduler's, the timers' and that of the stacks */
        pg_lock_acquire(&pg_the_sched.fiber_lock);
        pg_lock_release(&pg_the_sched.fiber_lock);
    }
    return opaque;
}

static void locks_that_others_take_all_the_time_are_in_order_after_a_fork(void)
{
    if (CHECK_SANITIZED) SKIP("the sanitizer does not survive a fork with threads");
    pg_store_release(&enough, false);
    pthread_t taker = check_thread(take_locks, NULL);
    for (int i = 0; i < 20; i++) {
        pg_sched_before_fork();
        pid_t child = check_fork(after_fork_with_locks);
        pg_sched_after_fork_in_parent();
        CHECK_EQ(check_wait(child), 0);
    }
    pg_store_release(&enough, true);
    check_join(taker);
}

/* ---- refusal ---- */

static void wait_for_many_stacks(void)
{
    struct rlimit limit;
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm != NULL && fscanf(statm, "%ld", &pages) == 1);
    fclose(statm);
    /* The tasks' own records must be had even when their stacks have taken everything. */
    CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 30) == 1);
    void *held[2000];
    for (int i = 0; i < 2000; i++) CHECK((held[i] = malloc(sizeof(job))) != NULL);
    for (int i = 0; i < 2000; i++) free(held[i]);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * pg_page_size() + (64 << 20);
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(pg_sched_init(NULL, 2, false), PG_OK);
    done = new_latch(2000);
    for (int i = 0; i < 2000; i++) go(done, sleeping_body, NULL); /* each parks, so each wants a stack */
    finish(done);
    pg_sched_stats stats;
    pg_sched_read_stats(&stats);
    CHECK(stats.fibers < 2000);
}

/* ---- a thread that gets no CPU, with a seed ---- */

static uint64_t handoffs(void) { return pg_load_relaxed(&pg_the_sched.handoffs); }

static void seeded_body(void *unused)
{
    uint64_t before = handoffs();
    pg_nanos until = pg_deadline_after(PG_SECOND / 10);
    (void)unused;
    pg_store_release(&are_outside, true);
    while (pg_now() < until) pg_cpu_relax(); /* wants its CPU all the time */
    CHECK_EQ(handoffs(), before);
    until = pg_deadline_after(HANG);
    while (handoffs() == before && pg_now() < until) pg_nanosleep(PG_SECOND / 200);
    CHECK(handoffs() != before);
    pg_store_release(&are_outside, false);
}

static void usual_body(void *unused)
{
    uint64_t before = handoffs();
    pg_nanos until = pg_deadline_after(HANG);
    (void)unused;
    pg_store_release(&are_outside, true);
    while (handoffs() == before && pg_now() < until) pg_cpu_relax();
    CHECK(handoffs() != before);
    pg_store_release(&are_outside, false);
}

static void with_a_seed_only_a_thread_that_sleeps_is_in_a_blocking_call(void)
{
    if (CHECK_EMULATED) SKIP("the emulator's threads want the CPU at other times");
    pg_sched_set_seed(true, 1);
    done = new_latch(1);
    go(done, seeded_body, NULL);
    finish(done);
    pg_sched_set_seed(false, 0);
    done = new_latch(1);
    go(done, usual_body, NULL);
    finish(done);
}

static void tasks_without_a_stack_wait_for_one(void)
{
    if (CHECK_SANITIZED) SKIP("an address-space limit stops the sanitizer itself");
    if (CHECK_EMULATED) SKIP("the emulator ignores address-space limits");
    CHECK_EQ(check_child(wait_for_many_stacks), 0);
}

int main(void)
{
    RUN(tasks_without_a_stack_wait_for_one); /* first: it forks before there are threads */
    CHECK_EQ(pg_sched_init(NULL, 0, false), PG_EINVAL);
    CHECK_EQ(pg_sched_init(&with_looks, 1, false), PG_OK);
    RUN_WITH_WORKERS(every_task_spawned_by_a_thread_runs_once);
    RUN_WITH_WORKERS(bursts_beyond_every_ring_run_to_the_last_task);
    RUN_WITH_WORKERS(tasks_that_spawn_tasks_are_spread_and_all_run);
    RUN_WITH_WORKERS(foreign_threads_spawn_and_end);
    RUN_WITH_WORKERS(yielding_tasks_all_go_on);
    RUN_WITH_WORKERS(errno_and_rounding_are_private);
    RUN_WITH_WORKERS(a_yielder_starves_neither_fresh_tasks_nor_timers);
    RUN_WITH_WORKERS(a_computing_task_does_not_stop_the_others);
    RUN_WITH_WORKERS(pairs_hand_a_ball_to_and_fro);
    RUN_WITH_WORKERS(wakes_deadlines_and_stale_wakes_lose_nothing);
    RUN_WITH_WORKERS(very_many_tasks_park_at_once_and_all_return);
    RUN_WITH_WORKERS(sleeps_are_never_short);
    RUN_WITH_WORKERS(threads_sleep_too_and_passed_deadlines_return_at_once);
    RUN_WITH_WORKERS(an_earlier_timer_shortens_everybodys_sleep);
    RUN_WITH_WORKERS(foreign_threads_wait_for_tasks_and_end_at_once);
    RUN_WITH_WORKERS(with_a_seed_only_a_thread_that_sleeps_is_in_a_blocking_call);
    RUN_WITH_WORKERS(pinned_tasks_keep_their_thread_and_others_go_on);
    RUN_WITH_WORKERS(workers_change_under_load);
    RUN_WITH_WORKERS(stopping_holds_every_task_until_resumed);
    RUN_WITH_WORKERS(a_task_for_a_thread_at_rest_waits_there_for_a_permit);
    RUN_WITH_WORKERS(a_thread_that_ends_late_looks_at_no_fibers);
    RUN_WITH_WORKERS(a_child_process_has_a_scheduler_of_its_own);
    RUN_WITH_WORKERS(locks_that_others_hold_at_a_fork_are_free_in_the_child);
    RUN_WITH_WORKERS(locks_that_others_take_all_the_time_are_in_order_after_a_fork);
    return 0;
}
