/* What the scavenger keeps and gives back, look by look: the monitor, which has it look by the clock, is held. */
#include <sys/mman.h>

#include "machine/stack.h"
#include "os/os.h"
#include "sched/internal.h"
#include "tasks.h"

enum { MANY = 400, FEW = 8, DEEP = 32 * 1024 };

static pg_latch *done, *gate;
static atomic_int waiting;

static bool wait_for(bool (*reached)(void))
{
    pg_nanos deadline = pg_deadline_after(HANG);
    while (!reached())
        if (pg_now() > deadline) return false;
        else pg_os_yield();
    return true;
}

static bool is_through(void) { return !pg_load_acquire(&pg_the_sched.scavenging); }
static bool all_are_free(void)
{
    return pg_load_relaxed(&pg_the_sched.free_count) == pg_load_relaxed(&pg_the_sched.fiber_count);
}

static uint64_t spawned(void)
{
    pg_sched_stats stats;
    pg_sched_read_stats(&stats);
    return stats.spawned;
}

/* One look, to its end. True: the scavenger ran. */
static bool look(void)
{
    uint64_t before = spawned();
    pg_fibers_scavenge();
    CHECK(wait_for(is_through));
    return spawned() != before;
}

static size_t fibers(void) { return pg_load_relaxed(&pg_the_sched.fiber_count); }

/* Nobody needs a fiber, and every look that could follow from what was before has been. */
static void come_to_rest(void)
{
    CHECK(wait_for(all_are_free));
    for (int i = 0; look(); i++) {
        CHECK(i < 100);
        CHECK(wait_for(all_are_free));
    }
}

/* ---- fibers */

static void wait_body(void *argument)
{
    (void)argument;
    pg_add_relaxed(&waiting, 1);
    CHECK_EQ(pg_latch_wait(gate, pg_deadline_after(HANG)), PG_OK);
}

static bool all_wait(void) { return pg_load_relaxed(&waiting) == MANY; }

static void use_many(void)
{
    pg_store_relaxed(&waiting, 0);
    done = new_latch(MANY);
    gate = new_latch(1);
    for (int i = 0; i < MANY; i++) go(done, wait_body, NULL);
    CHECK(wait_for(all_wait));
    count_down(gate);
    finish(done);
    CHECK(wait_for(all_are_free));
}

static void fibers_that_every_burst_needs_are_kept(void)
{
    come_to_rest();
    for (int i = 0; i < 3; i++) {
        use_many();
        size_t before = fibers();
        CHECK(look());
        CHECK_EQ(fibers(), before);
        CHECK(wait_for(all_are_free));
    }
    size_t before = fibers();
    CHECK(look());
    CHECK(fibers() < before);
    come_to_rest();
    CHECK(fibers() < MANY);
}

/* ---- stacks of tasks that wait */

typedef struct deep {
    _Atomic(pg_task *) task;
    char *page;
} deep;

static deep deeps[FEW];

__attribute__((noinline)) static void go_deep(deep *self)
{
    volatile char room[DEEP];
    for (int i = 0; i < DEEP; i++) room[i] = 1;
    uintptr_t middle = (uintptr_t)&room[DEEP / 2];
    self->page = (char *)(middle & ~(uintptr_t)(pg_page_size() - 1));
}

static void deep_body(void *argument)
{
    deep *self = argument;
    go_deep(self);
    pg_store_release(&self->task, pg_sched_self());
    CHECK_EQ(pg_latch_wait(gate, pg_deadline_after(HANG)), PG_OK);
}

static bool all_are_parked(void)
{
    for (int i = 0; i < FEW; i++) {
        pg_task *task = pg_load_acquire(&deeps[i].task);
        if (task == NULL || pg_load_relaxed(&task->state) != PG_TASK_PARKED) return false;
    }
    return true;
}

static int resident(void)
{
    int count = 0;
    for (int i = 0; i < FEW; i++) {
        unsigned char here;
        CHECK_EQ(mincore(deeps[i].page, 1, &here), 0);
        count += here & 1;
    }
    return count;
}

static void use_few_deep(void)
{
    done = new_latch(FEW);
    gate = new_latch(1);
    memset(deeps, 0, sizeof deeps);
    for (int i = 0; i < FEW; i++) go(done, deep_body, &deeps[i]);
    CHECK(wait_for(all_are_parked));
}

static void who_has_only_just_parked_is_looked_at_again(void)
{
    if (CHECK_EMULATED) SKIP("the emulator answers mincore on its own");
    come_to_rest();
    use_few_deep();
    pg_the_sched.hooks.serial = true; /* nobody ends during the looks, so they may look at who waits */
    CHECK_EQ(resident(), FEW);
    CHECK(look());
    CHECK_EQ(resident(), FEW);
    pg_sched_set_scavenge_interval(1);
    CHECK(look());
    CHECK_EQ(resident(), 0);
    pg_sched_set_scavenge_interval(HANG);
    pg_the_sched.hooks.serial = false;
    count_down(gate);
    finish(done);
}

/* ---- seeds */

static void after_a_seed_it_looks_again(void)
{
    come_to_rest();
    pg_sched_set_seed(true, 1);
    use_many();
    size_t before = fibers();
    pg_fibers_scavenge();
    CHECK(is_through()); /* without having been on its way */
    pg_sched_set_seed(false, 0);
    CHECK(look());
    CHECK(wait_for(all_are_free));
    CHECK(look());
    CHECK(fibers() < before);
    come_to_rest();
}

int main(void)
{
    pg_sched_set_scavenge_interval(HANG);
    CHECK_EQ(pg_sched_init(NULL, 1, false), PG_OK);
    pg_sched_set_scavenge_interval(HANG);
    pg_sched_hold_monitor(true);
    RUN_WITH_WORKERS(fibers_that_every_burst_needs_are_kept);
    RUN_WITH_WORKERS(who_has_only_just_parked_is_looked_at_again);
    RUN_WITH_WORKERS(after_a_seed_it_looks_again);
    return 0;
}
