/* Timers: against a model that keeps them all in a plain array, and with threads that start, stop and fire at once. */
#include "sources/timer.h"

#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "objects/task.h"

typedef struct probe {
    pg_timer timer;
    pg_task task;
    bool pending;  /* what the model says */
    int fired;     /* plain: fire writes it under the heap's lock, the owner reads it after stop */
    bool wakes;    /* fire names the task */
} probe;

static pg_task *probe_fire(pg_timer *timer)
{
    probe *self = pg_container_of(timer, probe, timer);
    CHECK(timer->period > 0 || timer->entry == 0);
    self->fired++;
    return self->wakes ? &self->task : NULL;
}

static void probe_init(probe *self)
{
    memset(self, 0, sizeof *self);
    self->timer.fire = probe_fire;
    self->wakes = true;
}

/* ---- one thread ---- */

static void timers_fire_in_the_order_of_their_deadlines(void)
{
    enum { COUNT = 1000 };
    pg_timers timers;
    probe *probes = calloc(COUNT, sizeof *probes);
    pg_task *ready[COUNT];
    bool earliest;
    pg_timers_init(&timers);
    CHECK(!pg_timers_due(&timers, PG_FOREVER - 1));
    for (int i = 0; i < COUNT; i++) { /* 7 is coprime to COUNT: every deadline once, in mixed order */
        probe_init(&probes[i]);
        CHECK_EQ(pg_timer_start(&timers, &probes[i].timer, i * 7 % COUNT, &earliest), PG_OK);
        CHECK_EQ(earliest, i == 0);
    }
    CHECK_EQ(pg_timers_expire(&timers, -1, ready, COUNT), 0);
    CHECK_EQ(pg_timers_expire(&timers, COUNT / 2, ready, COUNT), COUNT / 2 + 1);
    for (int i = 0; i <= COUNT / 2; i++) CHECK_EQ(pg_container_of(ready[i], probe, task)->timer.deadline, i);
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), COUNT / 2 + 1);
    pg_timers_free(&timers);
    for (int i = 0; i < COUNT; i++) CHECK(!pg_timer_stop(&timers, &probes[i].timer));
    free(probes);
}

static void the_limit_counts_timers_that_name_no_task_too(void)
{
    pg_timers timers;
    probe probes[6];
    pg_task *ready[6];
    bool earliest;
    pg_timers_init(&timers);
    for (int i = 0; i < 6; i++) {
        probe_init(&probes[i]);
        probes[i].wakes = i % 2;
        CHECK_EQ(pg_timer_start(&timers, &probes[i].timer, i, &earliest), PG_OK);
    }
    CHECK_EQ(pg_timers_expire(&timers, 100, ready, 0), 0);
    CHECK_EQ(pg_timers_expire(&timers, 100, ready, 3), 1);
    CHECK(ready[0] == &probes[1].task);
    CHECK_EQ(timers.count, 3);
    CHECK_EQ(pg_timers_expire(&timers, 100, ready, 100), 2);
    CHECK(ready[0] == &probes[3].task && ready[1] == &probes[5].task);
    for (int i = 0; i < 6; i++) CHECK_EQ(probes[i].fired, 1);
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), PG_FOREVER);
    pg_timers_free(&timers);
}

static void the_ends_of_time_are_ordinary_deadlines(void)
{
    pg_timers timers;
    probe never, past, now;
    pg_task *ready[3];
    bool earliest;
    pg_timers_init(&timers);
    probe_init(&never), probe_init(&past), probe_init(&now);
    CHECK_EQ(pg_timer_start(&timers, &never.timer, PG_FOREVER, &earliest), PG_OK);
    CHECK(earliest);
    CHECK_EQ(pg_timer_start(&timers, &now.timer, 5, &earliest), PG_OK);
    CHECK_EQ(pg_timer_start(&timers, &past.timer, PG_NEVER_WAIT, &earliest), PG_OK);
    CHECK(earliest && pg_timers_due(&timers, INT64_MIN));
    CHECK_EQ(pg_timers_expire(&timers, PG_FOREVER - 1, ready, 3), 2);
    CHECK(ready[0] == &past.task && ready[1] == &now.task);
    CHECK(pg_timer_stop(&timers, &never.timer));
    pg_timers_free(&timers);
}

static void a_periodic_timer_goes_on_and_leaves_out_what_is_past(void)
{
    pg_timers timers;
    probe ticking, other;
    pg_task *ready[4];
    pg_nanos deadline;
    bool earliest;
    pg_timers_init(&timers);
    probe_init(&ticking), probe_init(&other);
    ticking.timer.period = 10;
    CHECK_EQ(pg_timer_start(&timers, &ticking.timer, 10, &earliest), PG_OK);
    CHECK_EQ(pg_timer_start(&timers, &other.timer, 15, &earliest), PG_OK);
    CHECK_EQ(pg_timers_expire(&timers, 9, ready, 4), 0);
    CHECK_EQ(pg_timers_expire(&timers, 10, ready, 4), 1);
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), 15);
    CHECK_EQ(pg_timers_expire(&timers, 20, ready, 4), 2);
    CHECK(ready[0] == &other.task && ready[1] == &ticking.task);
    CHECK_EQ(pg_timers_expire(&timers, 57, ready, 4), 1); /* 30, 40 and 50 at once */
    CHECK(pg_timer_is_pending(&timers, &ticking.timer, &deadline));
    CHECK_EQ(deadline, 60);
    CHECK_EQ(ticking.fired, 3);
    CHECK(pg_timer_stop(&timers, &ticking.timer) && !pg_timer_stop(&timers, &ticking.timer));
    CHECK(!pg_timer_is_pending(&timers, &ticking.timer, &deadline));
    CHECK_EQ(pg_timers_expire(&timers, 1000, ready, 4), 0);
    pg_timers_free(&timers);
}

static bool is_periodic(const pg_timer *timer) { return timer->period > 0; }
static bool is_any(const pg_timer *timer) { return true; }

static void timers_are_looked_for_and_taken_by_what_they_are(void)
{
    enum { COUNT = 20 };
    pg_timers timers;
    probe probes[COUNT];
    bool earliest;
    pg_timers_init(&timers);
    CHECK_EQ(pg_timers_earliest(&timers, is_any), PG_FOREVER);
    CHECK(pg_timers_take(&timers, is_any) == NULL);
    for (int i = 0; i < COUNT; i++) {
        probe_init(&probes[i]);
        probes[i].timer.period = i % 7 == 6; /* 6 and 13 */
        CHECK_EQ(pg_timer_start(&timers, &probes[i].timer, COUNT - i, &earliest), PG_OK);
    }
    CHECK_EQ(pg_timers_earliest(&timers, is_any), 1);
    CHECK_EQ(pg_timers_earliest(&timers, is_periodic), COUNT - 13);
    CHECK(is_periodic(pg_timers_take(&timers, is_periodic)));
    CHECK(is_periodic(pg_timers_take(&timers, is_periodic)));
    CHECK(pg_timers_take(&timers, is_periodic) == NULL);
    CHECK_EQ(pg_timers_earliest(&timers, is_periodic), PG_FOREVER);
    CHECK(!pg_timer_stop(&timers, &probes[6].timer));
    CHECK(pg_timer_stop(&timers, &probes[19].timer));
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), 2);
    for (int left = COUNT - 3; left > 0; left--) CHECK(pg_timers_take(&timers, is_any) != NULL);
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), PG_FOREVER);
    pg_timers_free(&timers);
}

static void forgotten_timers_can_be_stopped_and_started(void)
{
    pg_timers timers;
    probe old, fresh;
    pg_task *ready[4];
    bool earliest;
    pg_timers_init(&timers);
    probe_init(&old), probe_init(&fresh);
    CHECK_EQ(pg_timer_start(&timers, &old.timer, 5, &earliest), PG_OK);
    pg_timers before = timers;
    pg_timers_forget(&timers);
    before.count = 0; /* touches none of them either */
    pg_timers_free(&before);
    CHECK_EQ(pg_timer_start(&timers, &fresh.timer, 7, &earliest), PG_OK);
    CHECK(earliest && !pg_timer_stop(&timers, &old.timer));
    CHECK_EQ(pg_timer_start(&timers, &old.timer, 6, &earliest), PG_OK);
    CHECK_EQ(pg_timers_expire(&timers, 100, ready, 4), 2);
    CHECK(ready[0] == &old.task && ready[1] == &fresh.task);
    pg_timers_free(&timers);
}

/* ---- the model ---- */

enum { PROBES = 2000 };

typedef struct model {
    pg_timers timers;
    probe probes[PROBES];
    uint64_t random;
    int pending;
} model;

static pg_nanos model_next(model *self)
{
    pg_nanos next = PG_FOREVER;
    for (int i = 0; i < PROBES; i++)
        if (self->probes[i].pending && self->probes[i].timer.deadline < next) next = self->probes[i].timer.deadline;
    return next;
}

static void model_start(model *self, probe *one)
{
    pg_nanos before = model_next(self), deadline = (pg_nanos)check_below(&self->random, 500);
    bool earliest;
    if (one->pending) return;
    CHECK_EQ(pg_timer_start(&self->timers, &one->timer, deadline, &earliest), PG_OK);
    CHECK_EQ(earliest, deadline < before);
    one->pending = true;
    self->pending++;
}

static void model_stop(model *self, probe *one)
{
    int fired = one->fired;
    CHECK_EQ(pg_timer_stop(&self->timers, &one->timer), one->pending);
    CHECK_EQ(one->fired, fired);
    self->pending -= one->pending;
    one->pending = false;
}

static void model_expire(model *self)
{
    pg_task *ready[PROBES];
    size_t limit = check_below(&self->random, 40), due = 0;
    pg_nanos now = (pg_nanos)check_below(&self->random, 60), last = PG_NEVER_WAIT;
    for (int i = 0; i < PROBES; i++) due += self->probes[i].pending && self->probes[i].timer.deadline <= now;
    size_t fired = pg_timers_expire(&self->timers, now, ready, limit);
    CHECK_EQ(fired, due < limit ? due : limit);
    for (size_t i = 0; i < fired; i++) {
        probe *one = pg_container_of(ready[i], probe, task);
        CHECK(one->pending && one->timer.deadline <= now && one->timer.deadline >= last);
        last = one->timer.deadline;
        one->pending = false;
        self->pending--;
    }
    CHECK(fired == due || model_next(self) >= last);
}

static void random_use_agrees_with_a_plain_array(void)
{
    static model self;
    pg_timers_init(&self.timers);
    self.random = 4711;
    for (int i = 0; i < PROBES; i++) probe_init(&self.probes[i]);
    for (int step = 0, steps = check_rounds(40000); step < steps; step++) {
        probe *one = &self.probes[check_below(&self.random, PROBES)];
        uint64_t choice = check_below(&self.random, 100);
        if (choice < (step / 2000 % 2 ? 40u : 85u)) { /* phases of growth and of shrinking */
            model_start(&self, one);
        } else if (choice < 98) {
            model_stop(&self, one);
        } else {
            model_expire(&self);
        }
        CHECK_EQ(self.timers.count, self.pending);
        CHECK_EQ(pg_load_relaxed(&self.timers.next_deadline), model_next(&self));
    }
    pg_timers_free(&self.timers);
}

/* ---- no memory ---- */

static void fill_the_heap_in_little_memory(void)
{
    static probe probes[1 << 20]; /* shared zero pages until a timer is started */
    pg_timers timers;
    struct rlimit limit;
    bool earliest;
    int started = 0, outcome = PG_OK;
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm != NULL && fscanf(statm, "%ld", &pages) == 1);
    fclose(statm);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (1 << 20);
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    pg_timers_init(&timers);
    for (; started < 1 << 20 && outcome == PG_OK; started += outcome == PG_OK) {
        probe_init(&probes[started]);
        outcome = pg_timer_start(&timers, &probes[started].timer, -started, &earliest);
    }
    CHECK_EQ(outcome, PG_ENOMEM);
    CHECK(started >= 64 && timers.count == (uint32_t)started);
    CHECK_EQ(probes[started].timer.entry, 0);
    CHECK_EQ(pg_load_relaxed(&timers.next_deadline), -(started - 1));
    for (int i = 0; i < started; i++) CHECK(pg_timer_stop(&timers, &probes[i].timer));
    pg_timers_free(&timers);
}

static void a_heap_that_cannot_grow_refuses_and_stays_whole(void)
{
    if (CHECK_SANITIZED) SKIP("an address-space limit stops the sanitizer itself");
    if (CHECK_EMULATED) SKIP("the emulator ignores address-space limits");
    CHECK_EQ(check_child(fill_the_heap_in_little_memory), 0);
}

/* ---- many threads ---- */

enum { STARTERS = 3 };

static struct {
    pg_timers timers;
    atomic_llong now;
    atomic_int running;
    atomic_long fired_tasks;
    int rounds;
} race;

/* Each timer lives in memory that is gone once stop has returned: firing later would be a use after free. */
static void *starter_body(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument;
    long *counts = calloc(2, sizeof *counts);
    for (int i = 0; i < race.rounds || counts[0] == 0 || counts[1] == 0; i++) { /* until both have happened */
        probe *one = malloc(sizeof *one);
        bool earliest;
        probe_init(one);
        pg_nanos deadline = pg_load_relaxed(&race.now) + (pg_nanos)check_below(&random, 40);
        CHECK_EQ(pg_timer_start(&race.timers, &one->timer, deadline, &earliest), PG_OK);
        for (uint64_t spins = check_below(&random, 400); spins > 0; spins--) pg_cpu_relax();
        bool stopped = pg_timer_stop(&race.timers, &one->timer);
        CHECK_EQ(one->fired, !stopped);
        counts[stopped]++;
        memset(one, 0xff, sizeof *one);
        free(one);
    }
    pg_add_seqcst(&race.running, -1);
    return counts;
}

static void *expirer_body(void *unused)
{
    pg_task *ready[4];
    while (pg_load_relaxed(&race.running) > 0) {
        pg_nanos now = pg_add_relaxed(&race.now, 1);
        if (pg_timers_due(&race.timers, now))
            pg_add_relaxed(&race.fired_tasks, (long)pg_timers_expire(&race.timers, now, ready, 4));
    }
    return unused;
}

static void a_timer_either_fires_or_is_stopped(void)
{
    pthread_t starters[STARTERS], expirers[2];
    long stopped = 0, fired = 0;
    race.rounds = check_rounds(40000);
    pg_timers_init(&race.timers);
    pg_store_relaxed(&race.running, STARTERS);
    for (int i = 0; i < STARTERS; i++) starters[i] = check_thread(starter_body, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < 2; i++) expirers[i] = check_thread(expirer_body, NULL);
    for (int i = 0; i < STARTERS; i++) {
        long *counts = check_join(starters[i]);
        fired += counts[0];
        stopped += counts[1];
        free(counts);
    }
    for (int i = 0; i < 2; i++) check_join(expirers[i]);
    CHECK_EQ(race.timers.count, 0);
    CHECK_EQ(pg_load_relaxed(&race.fired_tasks), fired);
    CHECK(stopped + fired >= (long)STARTERS * race.rounds);
    pg_timers_free(&race.timers);
}

static struct {
    pg_timers timers;
    probe probes[4][3000];
    bool earliest[4];
} growth;

static void *grower_body(void *argument)
{
    probe *mine = growth.probes[(uintptr_t)argument];
    for (int i = 0; i < 3000; i++) {
        probe_init(&mine[i]);
        CHECK_EQ(pg_timer_start(&growth.timers, &mine[i].timer, 3000 - i, &growth.earliest[(uintptr_t)argument]), 0);
    }
    return NULL;
}

static void the_heap_grows_under_many_starters(void)
{
    pthread_t threads[4];
    pg_task *ready[64];
    size_t fired = 0, batch;
    pg_timers_init(&growth.timers);
    for (uintptr_t i = 0; i < 4; i++) threads[i] = check_thread(grower_body, (void *)i);
    for (int i = 0; i < 4; i++) check_join(threads[i]);
    CHECK_EQ(growth.timers.count, 4 * 3000);
    CHECK_EQ(pg_load_relaxed(&growth.timers.next_deadline), 1);
    while ((batch = pg_timers_expire(&growth.timers, 3000, ready, 64)) > 0) fired += batch;
    CHECK_EQ(fired, 4 * 3000);
    pg_timers_free(&growth.timers);
}

int main(void)
{
    RUN(timers_fire_in_the_order_of_their_deadlines);
    RUN(the_limit_counts_timers_that_name_no_task_too);
    RUN(the_ends_of_time_are_ordinary_deadlines);
    RUN(a_periodic_timer_goes_on_and_leaves_out_what_is_past);
    RUN(timers_are_looked_for_and_taken_by_what_they_are);
    RUN(forgotten_timers_can_be_stopped_and_started);
    RUN(random_use_agrees_with_a_plain_array);
    RUN(a_heap_that_cannot_grow_refuses_and_stays_whole);
    RUN(a_timer_either_fires_or_is_stopped);
    RUN(the_heap_grows_under_many_starters);
    return 0;
}
