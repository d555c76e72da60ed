/* Native tasks for the tests of sched/ and sync/: a function and an argument on a fiber. */
#ifndef TASKS_H
#define TASKS_H

#include "check.h"
#include "os/os.h"
#include "sched/sched.h"
#include "sync/latch.h"

/* Longer than anything takes on a busy machine under a sanitizer; only a hang reaches it. */
#define HANG (40 * PG_SECOND)

/* Latches are never used again: the last one to count down may still be inside when the waiter goes on. */
static inline pg_latch *new_latch(int64_t count)
{
    static pg_latch latches[4096];
    static atomic_uint used;
    unsigned index = atomic_fetch_add(&used, 1);
    CHECK(index < 4096);
    pg_latch_init(&latches[index], count);
    return &latches[index];
}

static inline void count_down(pg_latch *latch) { CHECK_EQ(pg_latch_add(latch, -1), PG_OK); }

typedef struct job {
    pg_task task;
    pg_latch *latch;
    void (*body)(void *argument);
    void *argument;
} job;

/* The record goes as soon as the task is done: whoever still wakes it then touches freed memory. */
static inline void job_run(pg_task *task)
{
    job *self = pg_container_of(task, job, task);
    self->body(self->argument);
    if (self->latch != NULL) count_down(self->latch);
    pg_sched_detach_task(task->fiber); /* a fork at this moment must not find the record */
    memset(self, 0x5a, sizeof *self);
    free(self);
}

/* Run body(argument) as a task, then count the latch down, which may be NULL. */
static inline void go(pg_latch *latch, void (*body)(void *argument), void *argument)
{
    job *self = malloc(sizeof *self);
    CHECK(self != NULL);
    pg_task_init(&self->task, job_run);
    self->latch = latch;
    self->body = body;
    self->argument = argument;
    pg_sched_spawn(&self->task);
}

static inline void print_stats(void)
{
    pg_sched_stats stats;
    pg_sched_read_stats(&stats);
    fprintf(stderr, "spawned %llu finished %llu ready %llu parks %llu timers %llu ", (unsigned long long)stats.spawned,
            (unsigned long long)stats.finished, (unsigned long long)stats.ready, (unsigned long long)stats.parks,
            (unsigned long long)stats.timers);
    fprintf(stderr, "fibers %llu pooled %llu starved %llu\n", (unsigned long long)stats.fibers,
            (unsigned long long)stats.fibers_pooled, (unsigned long long)stats.starved);
    fprintf(stderr, "workers %u threads %u blocked %u idle %u permits free %d\n", stats.workers, stats.threads,
            stats.blocked, stats.idle, (int)stats.permits_free);
}

static inline void finish(pg_latch *latch)
{
    int outcome = pg_latch_wait(latch, pg_deadline_after(HANG));
    if (outcome != PG_OK) print_stats();
    CHECK_EQ(outcome, PG_OK);
}

/* The last task to count down is still on its way out, and now and then the scheduler runs one of its own. */
static inline bool check_quiet_soon(pg_sched_stats *stats)
{
    pg_nanos deadline = pg_deadline_after(HANG);
    do {
        pg_sched_read_stats(stats);
        if (stats->finished == stats->spawned && stats->ready == 0 && stats->timers == 0) return true;
        pg_os_yield();
    } while (pg_now() < deadline);
    return false;
}

/* Run `test` with 1, 2, 4 and 16 workers; afterwards every task has ended and nothing is left in a queue or timer. */
static inline void run_with_workers(void (*test)(void), const char *name)
{
    const char *only = getenv("CHECK_ONLY");
    const int counts[] = {1, 2, 4, 16};
    if (only != NULL && strcmp(only, name) != 0) return;
    check_skipped = false;
    for (int i = 0; i < 4 && !check_skipped; i++) {
        pg_sched_stats stats;
        check_workers = counts[i];
        CHECK_EQ(pg_sched_set_workers(counts[i]), PG_OK);
        test();
        if (!check_quiet_soon(&stats)) print_stats();
        CHECK_EQ(stats.finished, stats.spawned);
        CHECK_EQ(stats.ready, 0);
        CHECK_EQ(stats.timers, 0);
    }
    check_workers = 0;
    if (!check_skipped) printf("ok %s\n", name);
    fflush(stdout);
}
#define RUN_WITH_WORKERS(test) run_with_workers(test, #test)

#endif
