/* Every refusal of the system, one after the other and all from some moment on: calls say so, tasks wait for better times,
 * nothing is lost, and afterwards everything is as before. Needs a build with -DPG_FAILPOINTS. */
#include "base/failpoint.h"
#include "sync/chan.h"
#include "sync/mutex.h"
#include "tasks.h"

#ifndef PG_FAILPOINTS
#error "built without fail points"
#endif

/* ---- arming ---- */

static void what_is_asked_for_happens_and_nothing_else(void)
{
    const char *wanted = "..x..x..x..."; /* after:2,every:3,times:3 */
    CHECK_EQ(pygo_failpoints_arm("timer_heap=after:2,every:3,times:3"), 0);
    for (int i = 0; wanted[i] != '\0'; i++) {
        CHECK_EQ(pg_fails(timer_heap) != 0, wanted[i] == 'x');
        CHECK(!pg_fails(chan_ring));
    }
    CHECK_EQ(pygo_failpoints_hits("timer_heap"), 12);
    CHECK_EQ(pygo_failpoints_done("timer_heap"), 3);
    CHECK_EQ(pygo_failpoints_done("chan_ring"), 0);
    CHECK_EQ(pygo_failpoints_arm("futex_wait=errno:11;memory=after:1,times:1"), 0);
    CHECK_EQ(pg_fails_with(futex_wait), 11);
    CHECK(!pg_fails(chan_ring));
    CHECK(pg_fails(timer_heap)); /* whichever comes next */
    CHECK(!pg_fails(chan_ring));
    pygo_failpoints_disarm();
    CHECK_EQ(pygo_failpoints_hits("memory"), 0);
    CHECK(!pg_fails(futex_wait));
    CHECK_EQ(pygo_failpoints_hits("futex_wait"), 1);
    CHECK_EQ(pygo_failpoints_arm("lain_down=us:2000"), 0);
    pg_nanos start = pg_now();
    pg_delay(lain_down);
    CHECK(pg_now() - start >= 2000000);
    pygo_failpoints_disarm();
}

static void what_cannot_be_understood_arms_nothing(void)
{
    const char *wrong[] = {"nothing", "memory=",         "memory=after",      "memory=after:",          "memory=every:0",
                           "memory=after:-1", "memory=after:1,", "memory=after:1;no", "timer_heap;memory=no:1", "memory after:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_EQ(pygo_failpoints_arm(wrong[i]), -1);
        CHECK(!pg_fails(timer_heap));
    }
    CHECK_EQ(pygo_failpoints_arm(""), 0);
    CHECK_EQ(pygo_failpoints_hits("nothing"), -1);
    CHECK(pygo_failpoints_name(PG_FAILPOINT_COUNT) == NULL && pygo_failpoints_name(-1) == NULL);
    CHECK(!pygo_failpoints_is_delay(PG_FP_thread_count) && pygo_failpoints_is_delay(PG_FP_linked_to_park));
}

/* ---- a life of the scheduler ---- */

enum { SENDERS = 200, FOREIGN = 3, CASES = 12, WORKERS = 4 };

static pg_chan buffered, direct, silent[CASES];
static pg_mutex mutex;
static atomic_uint refusals, counted;

/* Again until it is not refused, which everything may be that says so. */
#define INSIST(outcome, call)                                                                                         \
    while ((outcome = (call)) == PG_ENOMEM) {                                                                         \
        (void)pg_add_relaxed(&refusals, 1);                                                                           \
        pg_sched_yield();                                                                                             \
    }

static void use_a_segment(size_t size)
{
    pg_segment segment;
    int outcome;
    INSIST(outcome, pg_sched_segment_link(&segment, size));
    CHECK_EQ(outcome, PG_OK);
    memset(segment.stack.base, 1, 4096);
    pg_sched_segment_unlink(&segment);
}

static void wait_in_vain(void)
{
    pg_case cases[CASES];
    pg_selected selected;
    int outcome;
    for (int i = 0; i < CASES; i++) cases[i] = (pg_case){.chan = &silent[i]};
    INSIST(outcome, pg_select(cases, CASES, pg_deadline_after(100000), &selected));
    CHECK_EQ(outcome, PG_ETIMEDOUT);
    INSIST(outcome, pg_sched_sleep_until(pg_deadline_after(100000)));
    CHECK_EQ(outcome, PG_OK);
}

static void count_one(void)
{
    static const pg_patience patience = {.deadline = PG_FOREVER};
    static unsigned unprotected;
    int outcome;
    INSIST(outcome, pg_mutex_acquire(&mutex, &patience));
    CHECK_EQ(outcome, PG_OK);
    unsigned before = unprotected;
    if (before % 8 == 0) pg_sched_yield();
    unprotected = before + 1;
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    (void)pg_add_relaxed(&counted, 1);
}

static void sender_body(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    int outcome;
    if (number % 50 == 0) use_a_segment(64 * 1024);
    if (number % 10 == 0) wait_in_vain();
    count_one();
    INSIST(outcome, pg_chan_send(number % 2 ? &direct : &buffered, number, pg_deadline_after(HANG)));
    CHECK_EQ(outcome, PG_OK);
}

static void *foreign_body(void *argument)
{
    use_a_segment(64 * 1024 * 1024); /* of its own */
    wait_in_vain();
    sender_body(argument);
    return NULL;
}

static void spawning_body(void *latch)
{
    for (uintptr_t i = 0; i < SENDERS; i++) go(latch, sender_body, (void *)i);
}

static void receive_all(uintptr_t count)
{
    pg_case cases[] = {{.chan = &buffered}, {.chan = &direct}};
    bool seen[SENDERS + FOREIGN] = {false};
    pg_selected selected;
    for (uintptr_t i = 0; i < count; i++) {
        int outcome;
        INSIST(outcome, pg_select(cases, 2, pg_deadline_after(HANG), &selected));
        if (outcome != PG_OK) print_stats();
        CHECK_EQ(outcome, PG_OK);
        CHECK(selected.ok && selected.value < count && !seen[selected.value]);
        seen[selected.value] = true;
    }
}

static void begin(void)
{
    int outcome;
    CHECK_EQ(pg_sched_init(NULL, WORKERS, false), PG_OK);
    pg_sched_set_scavenge_interval(2000000);
    pg_mutex_init(&mutex);
    INSIST(outcome, pg_chan_init(&buffered, 8));
    INSIST(outcome, pg_chan_init(&direct, 0));
    for (int i = 0; i < CASES; i++) CHECK_EQ(pg_chan_init(&silent[i], 0), PG_OK);
}

/* A burst that overflows rings and the shared queue's first block, from outside and from a task; waits of all kinds. */
static void live(void)
{
    pthread_t threads[FOREIGN];
    pg_latch *latch = new_latch(SENDERS + 1);
    begin();
    go(latch, spawning_body, latch);
    for (uintptr_t i = 0; i < FOREIGN; i++) threads[i] = check_thread(foreign_body, (void *)(SENDERS + i));
    receive_all(SENDERS + FOREIGN);
    int outcome;
    INSIST(outcome, pg_latch_wait(latch, pg_deadline_after(HANG)));
    CHECK_EQ(outcome, PG_OK);
    for (int i = 0; i < FOREIGN; i++) check_join(threads[i]);
}

/* With nothing armed: what was refused has left no trace. */
static void check_all_is_as_before(void)
{
    pg_sched_stats stats;
    pygo_failpoints_disarm();
    pg_nanos deadline = pg_deadline_after(HANG);
    do {
        CHECK(check_quiet_soon(&stats));
        pg_os_yield();
    } while ((stats.fibers != stats.fibers_pooled || stats.stacks.in_use != stats.fibers) && pg_now() < deadline);
    CHECK_EQ(stats.fibers, stats.fibers_pooled);
    CHECK_EQ(stats.stacks.in_use, stats.fibers);
    CHECK_EQ(stats.starved, 0);
    CHECK_EQ(counted, SENDERS + FOREIGN);
    CHECK_EQ(buffered.count + buffered.receiver_count + buffered.sender_count, 0);
    CHECK_EQ(direct.receiver_count + direct.sender_count, 0);
    for (int i = 0; i < CASES; i++) CHECK_EQ(silent[i].receiver_count, 0);
    CHECK(!pg_mutex_is_held(&mutex));
    pg_latch *latch = new_latch(SENDERS);
    for (uintptr_t i = 0; i < SENDERS; i++) go(latch, sender_body, (void *)i);
    receive_all(SENDERS);
    finish(latch);
    CHECK_EQ(counted, 2 * SENDERS + FOREIGN);
    pg_sched_read_stats(&stats);
    CHECK(stats.threads >= 1);
}

/* ---- refusals ---- */

static char plan[128];
static const char *point;
enum { REFUSED = 20, PASSED = 21 };

static void live_under_plan(void)
{
    CHECK_EQ(pygo_failpoints_arm(plan), 0);
    live();
    long done = pygo_failpoints_done(point);
    check_all_is_as_before();
    _exit(done > 0 ? REFUSED : PASSED);
}

static int outcome_of(const char *name, const char *how, long number)
{
    snprintf(plan, sizeof plan, how, name, number);
    point = name;
    int status = check_child(live_under_plan);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != REFUSED && WEXITSTATUS(status) != PASSED)) {
        fprintf(stderr, "with %s: wait status %#x\n", plan, (unsigned)status);
        check_end();
    }
    return WEXITSTATUS(status);
}

/* The n-th for all n: until what is done needs no n-th. Behind the first hundred, where only queues grow, not each. */
static void sweep(const char *how)
{
    enum { LIMIT = 100000, ONE_BY_ONE = CHECK_SANITIZED ? 12 : 40 };
    long step = 1, tried = 0;
    int passed = 0;
    for (long n = 0; passed < 2 && n < LIMIT; n += step) {
        if (outcome_of("memory", how, n) == PASSED) passed++;
        if (n > ONE_BY_ONE) step = n / 8;
        tried++;
    }
    printf("%ld refusals\n", tried - passed);
    CHECK(passed == 2 && tried > 10);
}

static void any_one_refusal_of_memory_harms_nobody(void) { sweep("%s=after:%ld,times:1"); }

/* What must be had in the end is had when the system comes round: after fifty refusals in a row. */
static void fifty_refusals_in_a_row_harm_nobody(void) { sweep("%s=after:%ld,times:50"); }

static void every_second_time_each_point_refuses(void)
{
    for (int i = PG_FP_memory + 1; i < PG_FP_linked_to_park; i++) {
        bool is_of_python = (i >= PG_FP_thread_state && i <= PG_LAST_MEMORY_POINT) || i == PG_FP_thread_count ||
                            i == PG_FP_swap_probe;
        int outcome = outcome_of(pygo_failpoints_name(i), "%s=every:2,after:%ld", 0);
        if (outcome != REFUSED && !is_of_python) fprintf(stderr, "never met: %s\n", pygo_failpoints_name(i));
        CHECK_EQ(outcome, is_of_python ? PASSED : REFUSED); /* those are in test_failpoints.py */
    }
    CHECK_EQ(outcome_of("futex_wait", "%s=every:2,errno:%ld", 11), REFUSED); /* EAGAIN */
    CHECK_EQ(outcome_of("memory", "%s=every:2,after:%ld", 0), REFUSED);
}

/* Nothing at all is to be had for a while; the tasks that were spawned meanwhile run when it is. */
static void live_in_want(void)
{
    begin();
    pg_latch *latch = new_latch(SENDERS);
    CHECK_EQ(pygo_failpoints_arm("memory"), 0);
    for (uintptr_t i = 0; i < SENDERS; i++) {
        job *self = malloc(sizeof *self);
        pg_task_init(&self->task, job_run);
        self->latch = latch;
        self->body = sender_body;
        self->argument = (void *)i;
        pg_sched_spawn(&self->task);
    }
    CHECK_EQ(pg_latch_wait(latch, pg_deadline_after(10000000)), PG_ENOMEM); /* no record for this thread */
    CHECK_EQ(pg_sched_sleep_until(pg_deadline_after(10000000)), PG_ENOMEM);
    CHECK(pygo_failpoints_hits("worker_record") > 0);
    pygo_failpoints_disarm();
    receive_all(SENDERS);
    finish(latch);
    (void)pg_add_relaxed(&counted, FOREIGN);
    check_all_is_as_before();
}

static void refusals_for_ever_and_then_no_more(void) { CHECK_EQ(check_child(live_in_want), 0); }

/* ---- delays ---- */

static atomic_bool other_ran;

static void other_body(void *unused) { pg_store_release(&other_ran, true); }

static void computing_body(void *latch)
{
    pg_nanos deadline = pg_deadline_after(HANG);
    go(latch, other_body, NULL);
    while (!pg_load_acquire(&other_ran) && pg_now() < deadline) pg_cpu_relax();
}

/* One permit, and who has it computes until the other has run: that takes a hand-off, once the permits of before are gone. */
static void hand_off(void)
{
    pg_nanos deadline = pg_deadline_after(HANG);
    CHECK_EQ(pg_sched_set_workers(1), PG_OK);
    do {
        pg_latch *latch = new_latch(2);
        pg_store_release(&other_ran, false);
        go(latch, computing_body, latch);
        finish(latch);
        CHECK(pg_load_acquire(&other_ran));
    } while (pygo_failpoints_hits("handed_off") == 0 && pg_now() < deadline);
    CHECK_EQ(pg_sched_set_workers(WORKERS), PG_OK);
}

static void live_with_delays(void)
{
    CHECK_EQ(pygo_failpoints_arm(plan), 0);
    live();
    hand_off();
    pg_nanos deadline = pg_deadline_after(HANG);
    while (pygo_failpoints_hits("monitor_to_sleep") == 0 && pg_now() < deadline) pg_nanosleep(1000000);
    CHECK(pygo_failpoints_done(point) > 0);
    check_all_is_as_before();
}

static void every_delay_is_met_and_harms_nobody(void)
{
    const char *hows[] = {"%s=every:3,us:50", "%s=us:0", "%s=every:20,us:1000"};
    for (int i = PG_FP_linked_to_park; i < PG_FAILPOINT_COUNT; i++) {
        point = pygo_failpoints_name(i);
        for (int how = 0; how < 3; how++) {
            if (how == 2 && (i == PG_FP_handed_off || i == PG_FP_monitor_to_sleep)) continue; /* not so often */
            snprintf(plan, sizeof plan, hows[how], point);
            int status = check_child(live_with_delays);
            if (status != 0) fprintf(stderr, "with %s\n", plan);
            CHECK_EQ(status, 0);
        }
    }
}

int main(void)
{
    RUN(what_is_asked_for_happens_and_nothing_else);
    RUN(what_cannot_be_understood_arms_nothing);
    RUN(any_one_refusal_of_memory_harms_nobody);
    RUN(fifty_refusals_in_a_row_harm_nobody);
    RUN(every_second_time_each_point_refuses);
    RUN(refusals_for_ever_and_then_no_more);
    RUN(every_delay_is_met_and_harms_nobody);
    return 0;
}
