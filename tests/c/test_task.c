/* The waker's half of the wake-up protocol. */
#include "objects/task.h"

#include <signal.h>
#include <string.h>

#include "base/atomic.h"
#include "check.h"

static bool wake_in_state(unsigned before, unsigned after)
{
    pg_task task;
    pg_task_init(&task, NULL);
    pg_store_relaxed(&task.state, before);
    bool won = pg_task_wake(&task);
    CHECK_EQ(pg_load_relaxed(&task.state), after);
    return won;
}

static void a_wake_wins_only_a_parked_task(void)
{
    CHECK(wake_in_state(PG_TASK_PARKED, PG_TASK_READY));
    CHECK(!wake_in_state(PG_TASK_RUNNING, PG_TASK_NOTIFIED));
    CHECK(!wake_in_state(PG_TASK_NOTIFIED, PG_TASK_NOTIFIED));
    CHECK(!wake_in_state(PG_TASK_READY, PG_TASK_READY));
}

static void wake_the_ended(void) { wake_in_state(PG_TASK_DONE, PG_TASK_DONE); }
static void wake_the_fresh(void) { wake_in_state(PG_TASK_FRESH, PG_TASK_FRESH); }

/* Run the body in a child whose stderr is read; it must abort and name the function. */
static void check_fatal(void (*body)(void), const char *function)
{
    int pipe_ends[2], saved = dup(2);
    char text[256] = "";
    CHECK_EQ(pipe(pipe_ends), 0);
    dup2(pipe_ends[1], 2);
    int status = check_child(body);
    dup2(saved, 2);
    close(saved);
    close(pipe_ends[1]);
    CHECK(read(pipe_ends[0], text, sizeof text - 1) > 0);
    close(pipe_ends[0]);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, "pygo: fatal error in ") == text);
    CHECK(strstr(text, function) != NULL);
}

static void waking_what_cannot_wait_ends_the_process(void)
{
    check_fatal(wake_the_ended, "pg_task_wake");
    check_fatal(wake_the_fresh, "pg_task_wake");
}

/* A parker and wakers, the parker's half written out: every wake is either won by exactly one waker, or seen by the
 * parker as NOTIFIED, or stale because an earlier one is still unseen. */
static struct {
    pg_task task;
    atomic_int permits; /* what the waits wait for */
    atomic_int won;
    int parks; /* the parker alone */
    int private; /* plain: handed from the parker to the waker that won, and back */
    atomic_int left;
} duel;

static void *waker_body(void *argument)
{
    for (int i = 0; i < *(int *)argument; i++) {
        if (i % 64 == 0) sched_yield(); /* let it fall asleep now and then */
        pg_add_seqcst(&duel.permits, 1);
        if (pg_task_wake(&duel.task)) {
            duel.private++;
            pg_add_relaxed(&duel.won, 1);
            pg_store_release(&duel.task.state, PG_TASK_RUNNING); /* plays the worker that resumes it */
        }
    }
    pg_add_seqcst(&duel.left, -1);
    return NULL;
}

static void park(void)
{
    unsigned expected = PG_TASK_RUNNING;
    duel.private++;
    if (!pg_cas_acqrel(&duel.task.state, &expected, PG_TASK_PARKED)) {
        CHECK_EQ(expected, PG_TASK_NOTIFIED);
        pg_store_release(&duel.task.state, PG_TASK_RUNNING);
        return;
    }
    duel.parks++;
    while (pg_load_acquire(&duel.task.state) == PG_TASK_PARKED || pg_load_acquire(&duel.task.state) == PG_TASK_READY)
        sched_yield();
}

static void no_wake_is_lost_between_parking_and_waking(void)
{
    int rounds = check_rounds(1000000), taken = 0;
    pthread_t wakers[3];
    pg_task_init(&duel.task, NULL);
    pg_store_relaxed(&duel.task.state, PG_TASK_RUNNING);
    pg_store_relaxed(&duel.left, 3);
    for (int i = 0; i < 3; i++) wakers[i] = check_thread(waker_body, &rounds);
    while (taken < 3 * rounds) {
        int here = atomic_exchange(&duel.permits, 0);
        taken += here;
        if (here == 0) park();
    }
    for (int i = 0; i < 3; i++) check_join(wakers[i]);
    CHECK_EQ(taken, 3 * rounds);
    CHECK_EQ(pg_load_relaxed(&duel.won), duel.parks);
    CHECK(duel.parks > 0);
}

int main(void)
{
    RUN(a_wake_wins_only_a_parked_task);
    RUN(waking_what_cannot_wait_ends_the_process);
    RUN(no_wake_is_lost_between_parking_and_waking);
    return 0;
}
