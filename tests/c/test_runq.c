/* The run queues: order, halves, spilling; and that under any interleaving each task comes out exactly once. */
#include "objects/runq.h"

#include <string.h>

#include "check.h"

enum { HALF = PG_RUNQ_SIZE / 2 };

/* ---- one thread ---- */

typedef struct numbered {
    pg_task task;
    int number;
} numbered;

static int number_of(pg_task *task) { return task ? pg_container_of(task, numbered, task)->number : -1; }

static numbered *make_tasks(int count)
{
    numbered *tasks = calloc((size_t)count, sizeof *tasks);
    CHECK(tasks != NULL);
    for (int i = 0; i < count; i++) {
        pg_task_init(&tasks[i].task, NULL);
        tasks[i].number = i;
    }
    return tasks;
}

/* The next `count` in the shared queue are those from number `from` on. */
static void check_popped(pg_inject *queue, size_t limit, int from, size_t count)
{
    pg_task *tasks[4 * PG_RUNQ_SIZE];
    CHECK(limit <= 4 * PG_RUNQ_SIZE);
    CHECK_EQ(pg_inject_pop(queue, tasks, limit), count);
    for (size_t i = 0; i < count; i++) CHECK_EQ(number_of(tasks[i]), from + (int)i);
}

static void the_ring_is_first_in_first_out(void)
{
    pg_runq queue;
    pg_inject overflow;
    numbered *tasks = make_tasks(PG_RUNQ_SIZE);
    pg_runq_init(&queue);
    pg_inject_init(&overflow);
    CHECK(pg_runq_pop(&queue) == NULL);
    for (int i = 0; i < PG_RUNQ_SIZE; i++) pg_runq_push(&queue, &tasks[i].task, &overflow);
    CHECK_EQ(pg_runq_length(&queue), PG_RUNQ_SIZE);
    for (int i = 0; i < PG_RUNQ_SIZE; i++) CHECK_EQ(number_of(pg_runq_pop(&queue)), i);
    CHECK(pg_runq_pop(&queue) == NULL);
    CHECK_EQ(pg_load_relaxed(&overflow.count), 0);
    free(tasks);
}

/* Set the positions just before they wrap at 2^32. */
static void positions_wrap_unnoticed(void)
{
    pg_runq queue;
    pg_inject overflow;
    numbered *tasks = make_tasks(2);
    pg_runq_init(&queue);
    pg_inject_init(&overflow);
    pg_store_relaxed(&queue.head, UINT32_MAX - PG_RUNQ_SIZE);
    pg_store_relaxed(&queue.tail, UINT32_MAX - PG_RUNQ_SIZE);
    for (int i = 0; i < 3 * PG_RUNQ_SIZE; i++) {
        pg_runq_push(&queue, &tasks[0].task, &overflow);
        pg_runq_push(&queue, &tasks[1].task, &overflow);
        CHECK_EQ(pg_runq_length(&queue), 2);
        CHECK_EQ(number_of(pg_runq_pop(&queue)), 0);
        CHECK_EQ(number_of(pg_runq_pop(&queue)), 1);
        CHECK(pg_runq_pop(&queue) == NULL);
    }
    free(tasks);
}

static void a_full_ring_spills_its_older_half_and_the_task(void)
{
    pg_runq queue;
    pg_inject overflow;
    numbered *tasks = make_tasks(PG_RUNQ_SIZE + 1);
    pg_runq_init(&queue);
    pg_inject_init(&overflow);
    for (int i = 0; i <= PG_RUNQ_SIZE; i++) pg_runq_push(&queue, &tasks[i].task, &overflow);
    CHECK_EQ(pg_runq_length(&queue), HALF);
    CHECK_EQ(pg_load_relaxed(&overflow.count), HALF + 1);
    check_popped(&overflow, HALF, 0, HALF);
    check_popped(&overflow, HALF, PG_RUNQ_SIZE, 1);
    for (int i = HALF; i < PG_RUNQ_SIZE; i++) CHECK_EQ(number_of(pg_runq_pop(&queue)), i);
    free(tasks);
}

static void a_thief_gets_the_older_half_rounded_up(void)
{
    for (int length = 0; length <= PG_RUNQ_SIZE; length++) {
        pg_runq own, victim;
        pg_inject overflow;
        numbered *tasks = make_tasks(length + 1);
        int taken = length - length / 2;
        pg_runq_init(&own);
        pg_runq_init(&victim);
        pg_inject_init(&overflow);
        for (int i = 0; i < length; i++) pg_runq_push(&victim, &tasks[i].task, &overflow);
        CHECK_EQ(number_of(pg_runq_steal(&own, &victim)), taken - 1);
        CHECK_EQ(pg_runq_length(&victim), length - taken);
        CHECK_EQ(pg_runq_length(&own), taken > 0 ? taken - 1 : 0);
        for (int i = 0; i < taken - 1; i++) CHECK_EQ(number_of(pg_runq_pop(&own)), i);
        for (int i = taken; i < length; i++) CHECK_EQ(number_of(pg_runq_pop(&victim)), i);
        free(tasks);
    }
}

static void a_thief_takes_no_more_than_its_own_ring_holds(void)
{
    for (int held = 0; held <= PG_RUNQ_SIZE; held++) {
        pg_runq own, victim;
        pg_inject overflow;
        numbered *tasks = make_tasks(2 * PG_RUNQ_SIZE);
        int room = PG_RUNQ_SIZE - held, taken = room < HALF ? room : HALF;
        pg_runq_init(&own);
        pg_runq_init(&victim);
        pg_inject_init(&overflow);
        for (int i = 0; i < held; i++) pg_runq_push(&own, &tasks[PG_RUNQ_SIZE + i].task, &overflow);
        for (int i = 0; i < PG_RUNQ_SIZE; i++) pg_runq_push(&victim, &tasks[i].task, &overflow);
        CHECK_EQ(number_of(pg_runq_steal(&own, &victim)), taken - 1);
        CHECK_EQ(pg_runq_length(&own), taken > 0 ? held + taken - 1 : held);
        for (int i = 0; i < held; i++) CHECK_EQ(number_of(pg_runq_pop(&own)), PG_RUNQ_SIZE + i);
        for (int i = 0; i < taken - 1; i++) CHECK_EQ(number_of(pg_runq_pop(&own)), i);
        CHECK_EQ(pg_runq_length(&victim), PG_RUNQ_SIZE - taken);
        free(tasks);
    }
}

static void a_drain_moves_everything_in_order(void)
{
    for (int length = 0; length <= PG_RUNQ_SIZE; length++) {
        pg_runq queue;
        pg_inject sink;
        numbered *tasks = make_tasks(length + 1);
        pg_runq_init(&queue);
        pg_inject_init(&sink);
        for (int i = 0; i < length; i++) pg_runq_push(&queue, &tasks[i].task, &sink);
        CHECK_EQ(pg_runq_drain(&queue, &sink), length);
        CHECK_EQ(pg_runq_length(&queue), 0);
        check_popped(&sink, PG_RUNQ_SIZE, 0, (size_t)length);
        free(tasks);
    }
}

static void the_shared_queue_keeps_order_limits_and_count(void)
{
    enum { TASKS = 3 * PG_BLOCK_TASKS };
    pg_inject queue;
    pg_task *all[TASKS];
    numbered *tasks = make_tasks(TASKS);
    for (int i = 0; i < TASKS; i++) all[i] = &tasks[i].task;
    pg_inject_init(&queue);
    check_popped(&queue, 5, 0, 0);
    for (int i = 0; i < 4; i++) pg_inject_push(&queue, all[i]);
    pg_inject_push_all(&queue, all + 4, TASKS - 4);
    CHECK_EQ(pg_load_relaxed(&queue.count), TASKS);
    check_popped(&queue, 0, 0, 0);
    check_popped(&queue, 3, 0, 3);
    check_popped(&queue, PG_BLOCK_TASKS, 3, PG_BLOCK_TASKS);
    check_popped(&queue, TASKS, 3 + PG_BLOCK_TASKS, TASKS - PG_BLOCK_TASKS - 3);
    CHECK_EQ(pg_load_relaxed(&queue.count), 0);
    CHECK(queue.first == NULL && queue.last == NULL);
    check_popped(&queue, 7, 0, 0);
    pg_inject_push(&queue, all[5]);
    check_popped(&queue, 7, 5, 1);
    free(tasks);
}

static void without_memory_for_blocks_the_shared_queue_links_its_tasks(void)
{
    pg_inject queue;
    numbered *tasks = make_tasks(10);
    pg_task *more[] = {&tasks[6].task, &tasks[7].task};
    pg_inject_init(&queue);
    for (int i = 0; i < 4; i++) pg_inject_push(&queue, &tasks[i].task);
    queue.chained = queue.chain_end = &tasks[4].task; /* as after a failure to get a block */
    pg_store_relaxed(&queue.count, 5);
    tasks[5].task.next = &tasks[0].task; /* what a task's link names before must not matter */
    pg_inject_push(&queue, &tasks[5].task);
    pg_inject_push_all(&queue, more, 2);
    check_popped(&queue, 2, 0, 2);
    check_popped(&queue, 4, 2, 4);
    check_popped(&queue, 9, 6, 2);
    CHECK(queue.chained == NULL);
    pg_inject_push(&queue, &tasks[8].task); /* blocks again */
    CHECK(queue.first != NULL);
    check_popped(&queue, 9, 8, 1);
    free(tasks);
}

/* ---- many threads ---- */

enum { MAX_THREADS = 8 };

typedef struct worked {
    pg_task task;
    int payload;         /* plain: only the order of the queues carries it from the pusher to the taker */
    atomic_int seen;
    int pushes_left;     /* plain likewise: it is pushed again by whoever took it */
} worked;

typedef struct role {
    pg_runq queue;
    uint64_t random;
    size_t taken, stolen;
} role;

static struct {
    role owners[MAX_THREADS];
    int owner_count;
    pg_inject inject;
    worked *tasks;
    int task_count, passes;
    atomic_int next, unfinished;
    atomic_bool any_stolen;
} work;

/* Every pass through a queue is counted; a task is done after the last. Returns it when it is to be pushed again. */
static pg_task *consume(role *self, pg_task *task)
{
    worked *item = pg_container_of(task, worked, task);
    self->taken++;
    CHECK_EQ(item->payload, (int)(item - work.tasks) + item->pushes_left);
    CHECK_EQ(pg_add_relaxed(&item->seen, 1), work.passes - 1 - item->pushes_left);
    task->next = (pg_task *)(uintptr_t)0x5a5a; /* a queue that still used the link would fall over it */
    if (item->pushes_left == 0) {
        pg_add_seqcst(&work.unfinished, -1);
        return NULL;
    }
    item->pushes_left--;
    item->payload = (int)(item - work.tasks) + item->pushes_left;
    return task;
}

static void consume_all(role *self, pg_task **tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (consume(self, tasks[i])) pg_runq_push(&self->queue, tasks[i], &work.inject);
}

/* New tasks in bursts that are sometimes longer than the ring. */
static void push_burst(role *self)
{
    int burst = (int)check_below(&self->random, 8) ? 3 : PG_RUNQ_SIZE + 5;
    for (int i = 0; i < burst; i++) {
        int index = pg_add_relaxed(&work.next, 1);
        if (index >= work.task_count) return;
        worked *item = &work.tasks[index];
        item->pushes_left = work.passes - 1;
        item->payload = index + item->pushes_left;
        pg_runq_push(&self->queue, &item->task, &work.inject);
    }
}

static void take_somewhere(role *self, bool only_steal)
{
    role *victim = &work.owners[check_below(&self->random, (uint64_t)work.owner_count)];
    uint64_t choice = only_steal ? 8 : check_below(&self->random, 64);
    if (only_steal && victim == self) return;
    pg_task *tasks[4] = {NULL};
    size_t count = 0;
    if (choice == 0) {
        pg_runq_drain(&victim->queue, &work.inject);
    } else if (choice < 8) {
        count = pg_inject_pop(&work.inject, tasks, 1 + check_below(&self->random, 4));
    } else if (choice < 32 && victim != self) {
        tasks[0] = pg_runq_steal(&self->queue, &victim->queue);
        if (tasks[0]) {
            self->stolen++;
            pg_store_relaxed(&work.any_stolen, true);
        }
    } else {
        tasks[0] = pg_runq_pop(&self->queue);
    }
    consume_all(self, tasks, count > 0 ? count : tasks[0] != NULL);
}

static void *owner_body(void *argument)
{
    role *self = argument;
    while (pg_load_relaxed(&work.unfinished) > 0) {
        if (check_below(&self->random, 8) == 0) push_burst(self);
        /* On a busy machine one of them might be through with all before the others begin: until something has been
         * stolen, what is in a ring stays there for a thief. */
        take_somewhere(self, work.owner_count > 1 && !pg_load_relaxed(&work.any_stolen));
    }
    return NULL;
}

static void run_owners(int owners, int task_count, int passes)
{
    pthread_t threads[MAX_THREADS];
    size_t taken = 0, stolen = 0;
    memset(&work, 0, sizeof work);
    work.owner_count = owners;
    work.task_count = task_count;
    work.passes = passes;
    work.tasks = calloc((size_t)task_count, sizeof *work.tasks);
    CHECK(work.tasks != NULL);
    pg_inject_init(&work.inject);
    pg_store_relaxed(&work.unfinished, task_count);
    for (int i = 0; i < owners; i++) {
        work.owners[i].random = (uint64_t)(i + 1) * 7919;
        pg_runq_init(&work.owners[i].queue);
    }
    for (int i = 0; i < owners; i++) threads[i] = check_thread(owner_body, &work.owners[i]);
    for (int i = 0; i < owners; i++) check_join(threads[i]);
    for (int i = 0; i < owners; i++) {
        CHECK_EQ(pg_runq_length(&work.owners[i].queue), 0);
        taken += work.owners[i].taken;
        stolen += work.owners[i].stolen;
    }
    CHECK_EQ(pg_load_relaxed(&work.inject.count), 0);
    CHECK_EQ(taken, (size_t)task_count * (size_t)passes);
    for (int i = 0; i < task_count; i++) CHECK_EQ(pg_load_relaxed(&work.tasks[i].seen), passes);
    CHECK(owners == 1 || stolen > 0);
    free(work.tasks);
}

static void each_task_comes_out_exactly_once(void)
{
    for (int owners = 1; owners <= MAX_THREADS; owners *= 2) run_owners(owners, check_rounds(100000), 20);
}

/* One owner that only pushes and pops, thieves that hammer its ring: the tightest race for head. */
static struct {
    pg_runq queue;
    pg_inject overflow;
    atomic_uchar *seen;
    numbered *tasks;
    atomic_int taken;
    atomic_bool over;
    int total;
} contest;

static void contest_count(pg_task *task)
{
    if (task == NULL) return;
    CHECK_EQ(atomic_fetch_add(&contest.seen[number_of(task)], 1), 0);
    pg_add_relaxed(&contest.taken, 1);
}

static void *contest_thief(void *unused)
{
    pg_runq own;
    pg_runq_init(&own);
    while (!pg_load_acquire(&contest.over)) {
        contest_count(pg_runq_steal(&own, &contest.queue));
        for (pg_task *task; (task = pg_runq_pop(&own)) != NULL;) contest_count(task);
    }
    return unused;
}

static void contest_take_overflow(void)
{
    pg_task *task;
    while (pg_inject_pop(&contest.overflow, &task, 1) > 0) contest_count(task);
}

static void owner_and_thieves_race_for_the_last_task(void)
{
    pthread_t thieves[3];
    contest.total = check_rounds(1500000);
    contest.tasks = make_tasks(contest.total);
    contest.seen = calloc((size_t)contest.total, sizeof *contest.seen);
    CHECK(contest.seen != NULL);
    pg_runq_init(&contest.queue);
    pg_inject_init(&contest.overflow);
    for (int i = 0; i < 3; i++) thieves[i] = check_thread(contest_thief, NULL);
    for (int i = 0; i < contest.total; i++) {
        pg_runq_push(&contest.queue, &contest.tasks[i].task, &contest.overflow);
        if (i % 3) contest_count(pg_runq_pop(&contest.queue));
        if (i % 1000 == 0) contest_take_overflow();
    }
    for (pg_task *task; (task = pg_runq_pop(&contest.queue)) != NULL;) contest_count(task);
    contest_take_overflow();
    pg_store_release(&contest.over, true);
    for (int i = 0; i < 3; i++) check_join(thieves[i]);
    CHECK_EQ(pg_load_relaxed(&contest.taken), contest.total);
    free(contest.tasks);
    free(contest.seen);
}

int main(void)
{
    RUN(the_ring_is_first_in_first_out);
    RUN(positions_wrap_unnoticed);
    RUN(a_full_ring_spills_its_older_half_and_the_task);
    RUN(a_thief_gets_the_older_half_rounded_up);
    RUN(a_thief_takes_no_more_than_its_own_ring_holds);
    RUN(a_drain_moves_everything_in_order);
    RUN(the_shared_queue_keeps_order_limits_and_count);
    RUN(without_memory_for_blocks_the_shared_queue_links_its_tasks);
    RUN(each_task_comes_out_exactly_once);
    RUN(owner_and_thieves_race_for_the_last_task);
    return 0;
}
