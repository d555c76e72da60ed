/* Mutexes and semaphores: exclusion, order of arrival, deadlines, nothing lost to those who give up, threads and tasks. */
#include "sync/mutex.h"

#include "sync/semaphore.h"
#include "tasks.h"

static const pg_patience for_ever = {.deadline = PG_FOREVER}, once = {.deadline = PG_NEVER_WAIT};

static void wait_for_waiters(pg_lock *lock, const uint32_t *counter, uint32_t count)
{
    for (uint32_t waiting = count + 1; waiting != count;) {
        pg_os_yield();
        pg_lock_acquire(lock);
        waiting = *counter;
        pg_lock_release(lock);
    }
}

/* ---- mutexes ---- */

static pg_mutex mutex;

static void check_free(void)
{
    CHECK(!pg_mutex_is_held(&mutex) && mutex.waiter_count == 0 && pg_list_empty(&mutex.waiters));
}

static void a_mutex_is_held_once(void)
{
    pg_mutex_init(&mutex);
    CHECK_EQ(pg_mutex_release(&mutex), PG_EINVAL);
    CHECK_EQ(pg_mutex_acquire(&mutex, &for_ever), PG_OK);
    CHECK_EQ(pg_mutex_acquire(&mutex, &once), PG_EAGAIN);
    CHECK(!pg_mutex_try(&mutex));
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    CHECK_EQ(pg_mutex_release(&mutex), PG_EINVAL);
    check_free();
}

static void a_waiter_that_gave_up_leaves_nothing_behind(void)
{
    pg_patience brief = {.deadline = pg_now() + PG_SECOND / 200};
    pg_mutex_init(&mutex);
    CHECK(pg_mutex_try(&mutex));
    CHECK_EQ(pg_mutex_acquire(&mutex, &brief), PG_ETIMEDOUT);
    CHECK(pg_now() >= brief.deadline);
    CHECK(pg_mutex_is_held(&mutex));
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    check_free();
    CHECK_EQ(pg_mutex_acquire(&mutex, &once), PG_OK);
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
}

enum { PARTIES = 12 };
static int inside, entered, each; /* the mutex */

/* Enter `each` times with all kinds of deadlines; a plain counter tells whether somebody else is inside. */
static void enter_often(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    for (int i = 0; i < each;) {
        pg_patience patience = for_ever;
        uint64_t kind = check_below(&random, 4);
        if (kind == 0) patience.deadline = PG_NEVER_WAIT;
        if (kind == 1) patience.deadline = pg_now() + (pg_nanos)check_below(&random, 30000);
        if (kind == 2) patience.shielded = true;
        int outcome = pg_mutex_acquire(&mutex, &patience);
        CHECK(outcome == PG_OK || patience.deadline != PG_FOREVER);
        if (outcome != PG_OK) continue;
        CHECK_EQ(inside++, 0);
        entered++, i++;
        if (check_below(&random, 8) == 0) pg_sched_yield();
        CHECK_EQ(--inside, 0);
        CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    }
}

static void *enter_often_thread(void *argument)
{
    enter_often(argument);
    return NULL;
}

static void tasks_and_threads_exclude_each_other(void)
{
    pthread_t threads[PARTIES / 3];
    pg_latch *done = new_latch(PARTIES - PARTIES / 3);
    pg_mutex_init(&mutex);
    inside = entered = 0;
    each = check_rounds(2000);
    for (uintptr_t i = 0; i < PARTIES; i++) {
        if (i % 3 == 0) threads[i / 3] = check_thread(enter_often_thread, (void *)i);
        else go(done, enter_often, (void *)i);
    }
    finish(done);
    for (int i = 0; i < PARTIES / 3; i++) check_join(threads[i]);
    CHECK_EQ(entered, PARTIES * each);
    check_free();
}

static int order[PARTIES], order_length; /* the mutex, or the semaphore's only permit */

static void note_turn(void *argument)
{
    CHECK_EQ(pg_mutex_acquire(&mutex, &for_ever), PG_OK);
    order[order_length++] = (int)(uintptr_t)argument;
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
}

static void waiters_get_a_mutex_in_the_order_of_their_coming(void)
{
    pg_latch *done = new_latch(PARTIES);
    pg_mutex_init(&mutex);
    order_length = 0;
    CHECK(pg_mutex_try(&mutex));
    for (uint32_t i = 0; i < PARTIES; i++) {
        go(done, note_turn, (void *)(uintptr_t)i);
        wait_for_waiters(&mutex.lock, &mutex.waiter_count, i + 1);
    }
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    finish(done);
    for (int i = 0; i < PARTIES; i++) CHECK_EQ(order[i], i);
    check_free();
}

static void a_released_mutex_is_the_waiters_at_once(void)
{
    pg_latch *done = new_latch(1);
    pg_mutex_init(&mutex);
    order_length = 0;
    CHECK(pg_mutex_try(&mutex));
    go(done, note_turn, NULL);
    wait_for_waiters(&mutex.lock, &mutex.waiter_count, 1);
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    CHECK_EQ(pg_mutex_acquire(&mutex, &for_ever), PG_OK); /* nobody overtakes */
    CHECK_EQ(order_length, 1);
    CHECK_EQ(pg_mutex_release(&mutex), PG_OK);
    finish(done);
}

/* ---- semaphores ---- */

static pg_semaphore semaphore;

static void permits_are_counted(void)
{
    pg_semaphore_init(&semaphore, 3);
    CHECK_EQ(pg_semaphore_acquire(&semaphore, 2, &once), PG_OK);
    CHECK_EQ(pg_semaphore_acquire(&semaphore, 2, &once), PG_EAGAIN);
    CHECK_EQ(pg_semaphore_acquire(&semaphore, 0, &once), PG_OK);
    CHECK_EQ(pg_semaphore_release(&semaphore, 3, 3), PG_EINVAL);
    CHECK_EQ(pg_semaphore_release(&semaphore, INT64_MAX, INT64_MAX), PG_EINVAL);
    CHECK_EQ(pg_semaphore_release(&semaphore, 2, 3), PG_OK);
    CHECK_EQ(pg_semaphore_acquire(&semaphore, 3, &for_ever), PG_OK);
    CHECK_EQ(semaphore.available, 0);
}

static atomic_int got_in;

static void take_one(void *unused)
{
    (void)unused;
    CHECK_EQ(pg_semaphore_acquire(&semaphore, 1, &for_ever), PG_OK);
    pg_add_relaxed(&got_in, 1);
}

static void take_five_briefly(void *outcome)
{
    pg_patience brief = {.deadline = pg_now() + PG_SECOND / 20};
    *(int *)outcome = pg_semaphore_acquire(&semaphore, 5, &brief);
}

static void those_behind_a_large_waiter_that_gives_up_go_on(void)
{
    int outcome = PG_OK;
    pg_latch *small = new_latch(2), *large = new_latch(1);
    pg_semaphore_init(&semaphore, 2);
    pg_store_relaxed(&got_in, 0);
    go(large, take_five_briefly, &outcome);
    wait_for_waiters(&semaphore.lock, &semaphore.waiter_count, 1);
    for (int i = 0; i < 2; i++) go(small, take_one, NULL);
    finish(large);
    finish(small);
    CHECK_EQ(outcome, PG_ETIMEDOUT);
    CHECK_EQ(pg_load_relaxed(&got_in), 2);
    CHECK_EQ(semaphore.available, 0);
    CHECK_EQ(semaphore.waiter_count, 0);
}

static void many_permits_serve_many_waiters(void)
{
    enum { WAITERS = 200 };
    pg_latch *done = new_latch(WAITERS);
    pg_semaphore_init(&semaphore, 0);
    for (int i = 0; i < WAITERS; i++) go(done, take_one, NULL);
    wait_for_waiters(&semaphore.lock, &semaphore.waiter_count, WAITERS);
    CHECK_EQ(pg_semaphore_release(&semaphore, WAITERS + 1, INT64_MAX), PG_OK);
    finish(done);
    CHECK_EQ(semaphore.available, 1);
}

enum { SIZE = 5 };
static atomic_int in_use;

static void take_some_often(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    for (int i = 0; i < each; i++) {
        int weight = (int)check_below(&random, SIZE + 1);
        pg_patience patience = for_ever;
        if (check_below(&random, 3) == 0) patience.deadline = pg_now() + (pg_nanos)check_below(&random, 30000);
        if (pg_semaphore_acquire(&semaphore, weight, &patience) != PG_OK) continue;
        CHECK(pg_add_relaxed(&in_use, weight) + weight <= SIZE);
        if (check_below(&random, 4) == 0) pg_sched_yield();
        pg_add_relaxed(&in_use, -weight);
        CHECK_EQ(pg_semaphore_release(&semaphore, weight, SIZE), PG_OK);
    }
}

static void *take_some_often_thread(void *argument)
{
    take_some_often(argument);
    return NULL;
}

static void no_permit_is_lost_or_given_twice(void)
{
    pthread_t threads[PARTIES / 3];
    pg_latch *done = new_latch(PARTIES - PARTIES / 3);
    pg_semaphore_init(&semaphore, SIZE);
    pg_store_relaxed(&in_use, 0);
    each = check_rounds(2000);
    for (uintptr_t i = 0; i < PARTIES; i++) {
        if (i % 3 == 0) threads[i / 3] = check_thread(take_some_often_thread, (void *)i);
        else go(done, take_some_often, (void *)i);
    }
    finish(done);
    for (int i = 0; i < PARTIES / 3; i++) check_join(threads[i]);
    CHECK_EQ(semaphore.available, SIZE);
    CHECK_EQ(semaphore.waiter_count, 0);
}

int main(void)
{
    CHECK_EQ(pg_sched_init(NULL, 1, false), PG_OK);
    RUN(a_mutex_is_held_once);
    RUN(a_waiter_that_gave_up_leaves_nothing_behind);
    RUN(permits_are_counted);
    RUN_WITH_WORKERS(tasks_and_threads_exclude_each_other);
    RUN_WITH_WORKERS(waiters_get_a_mutex_in_the_order_of_their_coming);
    RUN_WITH_WORKERS(a_released_mutex_is_the_waiters_at_once);
    RUN_WITH_WORKERS(those_behind_a_large_waiter_that_gives_up_go_on);
    RUN_WITH_WORKERS(many_permits_serve_many_waiters);
    RUN_WITH_WORKERS(no_permit_is_lost_or_given_twice);
    return 0;
}
