/* Model: objects/runq.c. Each task that goes in comes out once, and what its pusher wrote before is seen. */
#include "explore.h"

#include <string.h>

#include "objects/runq.h"

enum { TASKS = 12 };

typedef struct item {
    pg_task task;
    int payload, taken;
} item;

static item items[TASKS];
static pg_runq owner_queue, thief_queue, second_queue;
static pg_inject shared;
static int pushed;

static void setup(void)
{
    memset(items, 0, sizeof items);
    pg_runq_init(&owner_queue);
    pg_runq_init(&thief_queue);
    pg_runq_init(&second_queue);
    pg_inject_init(&shared);
    pushed = 0;
}

static pg_task *fill_in(int number)
{
    items[number].payload = number + 100;
    return &items[number].task;
}

static void push(int number) { pg_runq_push(&owner_queue, fill_in(number), &shared); }

static bool take(pg_task *task)
{
    if (task == NULL) return false;
    item *it = pg_container_of(task, item, task);
    MC_CHECK(it >= items && it < items + TASKS);
    MC_CHECK(it->payload == (int)(it - items) + 100);
    MC_CHECK(it->taken++ == 0);
    task->next = NULL; /* ours, to do with as we like */
    return true;
}

static void drain_shared(void)
{
    pg_task *task;
    while (pg_inject_pop(&shared, &task, 1) == 1) take(task);
}

/* The rest, by whoever looks last; then everything has been taken. */
static void check_taken(int count)
{
    for (int i = 0; i < TASKS; i++) MC_CHECK(items[i].taken == (i < count));
}

static void empty(pg_runq *queue)
{
    while (take(pg_runq_pop(queue))) {}
}

static void check_all(int count)
{
    empty(&owner_queue);
    empty(&thief_queue);
    empty(&second_queue);
    drain_shared();
    MC_CHECK(pg_load_relaxed(&shared.count) == 0);
    check_taken(count);
}

/* ---- the owner against thieves ---- */

static void steal_into(pg_runq *queue)
{
    take(pg_runq_steal(queue, &owner_queue));
    take(pg_runq_pop(queue));
}
static void thief(void) { mc_name("thief"), steal_into(&thief_queue); }
static void second_thief(void) { mc_name("second"), steal_into(&second_queue); }

static void owner_push_pop(void)
{
    mc_name("owner");
    push(0);
    push(1);
    take(pg_runq_pop(&owner_queue));
    push(2);
    take(pg_runq_pop(&owner_queue));
}
static void check_3(void) { check_all(3); }

static void owner_push_two(void)
{
    mc_name("owner");
    push(0);
    push(1);
    take(pg_runq_pop(&owner_queue));
}
static void check_2(void) { check_all(2); }

/* What a thief has put into its own ring is stolen from there. */
static void owner_push_three(void)
{
    mc_name("owner");
    for (int i = 0; i < 3; i++) push(i);
}
static void thief_that_keeps(void)
{
    mc_name("thief");
    take(pg_runq_steal(&thief_queue, &owner_queue));
}
static void thief_of_the_thief(void)
{
    mc_name("second");
    take(pg_runq_steal(&second_queue, &thief_queue));
}

/* ---- a ring that wraps and spills ---- */

static void setup_near_wrap(void)
{
    setup();
    pg_store_relaxed(&owner_queue.head, UINT32_MAX);
    pg_store_relaxed(&owner_queue.tail, UINT32_MAX);
}

static void owner_overflow(void)
{
    mc_name("owner");
    for (int i = 0; i < PG_RUNQ_SIZE + 1; i++) push(i);
    take(pg_runq_pop(&owner_queue));
}
static void check_overflow(void) { check_all(PG_RUNQ_SIZE + 1); }

/* Slots are filled again while a thief that saw an old head still copies them. */
static void setup_full(void)
{
    setup_near_wrap();
    for (int i = 0; i < PG_RUNQ_SIZE; i++) push(i);
}
static void owner_refill(void)
{
    mc_name("owner");
    take(pg_runq_pop(&owner_queue));
    push(PG_RUNQ_SIZE);
    take(pg_runq_pop(&owner_queue));
}

/* ---- the drainer: a monitor that empties the ring of a worker which lost its permit ---- */

static void drainer(void)
{
    mc_name("drainer");
    pg_runq_drain(&owner_queue, &shared);
    drain_shared();
}

/* ---- the shared queue ---- */

static void push_shared(void)
{
    pg_task *both[2] = {fill_in(0), fill_in(1)};
    mc_name("pusher");
    pg_inject_push_all(&shared, both, 2);
}
static void push_shared_more(void)
{
    pg_task *more[2] = {fill_in(2), fill_in(3)};
    mc_name("more");
    pg_inject_push_all(&shared, more, 2);
}
static void pop_some(size_t limit)
{
    pg_task *tasks[3];
    size_t count = pg_inject_pop(&shared, tasks, limit);
    MC_CHECK(count <= limit);
    for (size_t i = 0; i < count; i++) take(tasks[i]);
}
static void pop_shared(void)
{
    mc_name("popper");
    pop_some(3);
    pop_some(1);
}
static void setup_short(void)
{
    setup();
    mc_set_short_of_memory();
}
static void check_4(void) { check_all(4); }

/* ---- push, then look for sleepers, against announce sleep, then look for work ---- */

static atomic_int sleeping;
static bool pusher_saw_sleeper, sleeper_saw_work;

static void setup_handshake(void)
{
    setup();
    pg_store_relaxed(&sleeping, 0);
    pusher_saw_sleeper = sleeper_saw_work = false;
}
static void ring_pusher(void)
{
    mc_name("pusher");
    push(0);
    pg_fence_seqcst();
    pusher_saw_sleeper = pg_load_seqcst(&sleeping) != 0;
}
static void ring_sleeper(void)
{
    mc_name("sleeper");
    pg_store_seqcst(&sleeping, 1);
    pg_fence_seqcst();
    sleeper_saw_work = pg_runq_length(&owner_queue) > 0;
}
static void shared_pusher(void)
{
    mc_name("pusher");
    pg_inject_push(&shared, fill_in(0));
    pusher_saw_sleeper = pg_load_seqcst(&sleeping) != 0;
}
static void shared_sleeper(void)
{
    mc_name("sleeper");
    pg_store_seqcst(&sleeping, 1);
    sleeper_saw_work = pg_load_seqcst(&shared.count) > 0;
}
/* As a worker does: it takes what it sees without the lock's help. */
static void popping_sleeper(void)
{
    pg_task *task;
    mc_name("sleeper");
    pg_store_seqcst(&sleeping, 1);
    sleeper_saw_work = pg_inject_pop(&shared, &task, 1) == 1;
    if (sleeper_saw_work) take(task);
}
static void check_handshake(void)
{
    MC_CHECK(pusher_saw_sleeper || sleeper_saw_work);
    check_all(1);
}

const mc_scenario mc_scenarios[] = {
    {"owner_and_thief", setup, {owner_push_pop, thief}, check_3, .least = 40},
    {"owner_and_two_thieves", setup, {owner_push_two, thief, second_thief}, check_2, .least = 40},
    {"thief_of_a_thief", setup, {owner_push_three, thief_that_keeps, thief_of_the_thief}, check_3, .least = 10},
    {"overflow_and_thief", setup_near_wrap, {owner_overflow, thief}, check_overflow, .least = 40},
    {"refill_and_thief", setup_full, {owner_refill, thief}, check_overflow, .least = 40},
    {"overflow_and_drainer", setup_near_wrap, {owner_overflow, drainer}, check_overflow, .least = 40},
    {"owner_thief_drainer", setup, {owner_push_two, thief, drainer}, check_2, .least = 40},
    {"shared_queue", setup, {push_shared, push_shared_more, pop_shared}, check_4, .least = 5},
    {"shared_queue_without_memory", setup_short, {push_shared, push_shared_more, pop_shared}, check_4, .least = 20},
    {"ring_handshake", setup_handshake, {ring_pusher, ring_sleeper}, check_handshake, .least = 3},
    {"shared_handshake", setup_handshake, {shared_pusher, shared_sleeper}, check_handshake, .least = 3},
    {"shared_handshake_pop", setup_handshake, {shared_pusher, popping_sleeper}, check_handshake, .least = 3},
    {.name = NULL},
};
