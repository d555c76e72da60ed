/* The waker's half of the wake-up protocol. */
#include "objects/task.h"

#include <signal.h>
#include <string.h>

#include "base/atomic.h"
#include "check.h"
#include "os/os.h"

static enum pg_task_kind kind = PG_KIND_FIBER;

static bool wake_in_state(unsigned before, unsigned after)
{
    pg_task task;
    pg_task_init(&task, NULL);
    task.kind = (uint8_t)kind;
    pg_store_relaxed(&task.state, before);
    bool won = pg_task_wake(&task);
    CHECK_EQ(pg_load_relaxed(&task.state), after);
    return won;
}

static void a_wake_wins_only_a_parked_task(void)
{
    CHECK(wake_in_state(PG_TASK_PARKED, PG_TASK_ACTIVE));
    CHECK(!wake_in_state(PG_TASK_ACTIVE, PG_TASK_NOTIFIED));
    CHECK(!wake_in_state(PG_TASK_NOTIFIED, PG_TASK_NOTIFIED));
    kind = PG_KIND_THREAD;
    CHECK(wake_in_state(PG_TASK_PARKED, PG_TASK_CALLED));
    CHECK(!wake_in_state(PG_TASK_CALLED, PG_TASK_CALLED_AGAIN));
    CHECK(!wake_in_state(PG_TASK_CALLED_AGAIN, PG_TASK_CALLED_AGAIN));
    kind = PG_KIND_FIBER;
}

static int stirred;
static unsigned stirred_in;
static void note_stirred(pg_task *task)
{
    stirred++;
    stirred_in = pg_load_relaxed(&task->state);
}

static void a_bubble_is_told_of_every_wake_of_its_tasks_once_the_state_has_moved(void)
{
    pg_task_stirred = note_stirred;
    kind = PG_KIND_BUBBLED;
    CHECK(wake_in_state(PG_TASK_PARKED, PG_TASK_ACTIVE));
    CHECK_EQ(stirred, 1);
    CHECK_EQ(stirred_in, PG_TASK_ACTIVE);
    CHECK(!wake_in_state(PG_TASK_ACTIVE, PG_TASK_NOTIFIED));
    CHECK_EQ(stirred, 2);
    CHECK_EQ(stirred_in, PG_TASK_NOTIFIED);
    kind = PG_KIND_FIBER;
    CHECK(wake_in_state(PG_TASK_PARKED, PG_TASK_ACTIVE));
    CHECK_EQ(stirred, 2);
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

/* A parker and a waker, the parker's half written out. What the parker waits for is, as in the objects, published by
 * a mere release store; the waker goes on at once a few times, so that its wakes find every state. The last wake of such a
 * burst must not get lost: the waker would wait for ever. */
static struct {
    pg_task task;
    PG_ALIGNED(PG_CACHE_LINE) atomic_int posted;
    PG_ALIGNED(PG_CACHE_LINE) atomic_int seen;
    PG_ALIGNED(PG_CACHE_LINE) atomic_int won; /* counted by the waker, once it is done with the task */
    int private; /* plain: handed from the parker to the waker that won, and back */
} duel;

static int duel_rounds;

/* Let the other go on, which may have to get a CPU first. */
static bool passes_soon(atomic_int *word, int value)
{
    pg_nanos deadline = pg_deadline_after(10 * PG_SECOND);
    for (unsigned spin = 0; pg_load_acquire(word) != value; spin++) {
        pg_cpu_relax();
        if (spin % 1024 != 1023) continue;
        if (pg_now() > deadline) return false;
        sched_yield();
    }
    return true;
}

static void *waker_body(void *unused)
{
    uint64_t random = 7;
    for (int round = 1; round <= duel_rounds; round++) {
        pg_store_release(&duel.posted, round);
        if (pg_task_wake(&duel.task)) {
            duel.private++;
            if (duel.task.kind == PG_KIND_THREAD) pg_task_let_go(&duel.task);
            pg_store_release(&duel.won, pg_load_relaxed(&duel.won) + 1); /* plays the worker that resumes it */
        }
        if (check_below(&random, 3) == 0) CHECK(passes_soon(&duel.seen, round));
    }
    return unused;
}

static void park(int *parks)
{
    unsigned expected = PG_TASK_ACTIVE;
    if (pg_task_take_notification(&duel.task)) return;
    duel.private++;
    if (!pg_cas_acqrel(&duel.task.state, &expected, PG_TASK_PARKED)) {
        CHECK(pg_task_take_notification(&duel.task));
        return;
    }
    CHECK(passes_soon(&duel.won, ++*parks));
}

static void no_wake_is_lost_between_parking_and_waking(void)
{
    for (int of_thread = 0; of_thread < 2; of_thread++) {
        int taken = 0, parks = 0;
        memset(&duel, 0, sizeof duel);
        pg_task_init(&duel.task, NULL);
        duel.task.kind = of_thread ? PG_KIND_THREAD : PG_KIND_FIBER;
        pg_store_relaxed(&duel.task.state, PG_TASK_ACTIVE);
        duel_rounds = check_rounds(1000000);
        pthread_t waker = check_thread(waker_body, NULL);
        while (taken < duel_rounds) {
            int posted = pg_load_acquire(&duel.posted);
            if (posted == taken) park(&parks);
            else pg_store_release(&duel.seen, taken = posted);
        }
        check_join(waker);
        CHECK_EQ(pg_load_relaxed(&duel.won), parks);
        CHECK(parks > 0);
    }
}

int main(void)
{
    RUN(a_wake_wins_only_a_parked_task);
    RUN(a_bubble_is_told_of_every_wake_of_its_tasks_once_the_state_has_moved);
    RUN(waking_what_cannot_wait_ends_the_process);
    RUN(no_wake_is_lost_between_parking_and_waking);
    return 0;
}
