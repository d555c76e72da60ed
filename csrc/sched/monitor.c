/* The monitor: one thread that runs no tasks (Go's sysmon).
 *
 * While workers hold permits it looks at them every 25 us to 1 ms:
 *      - a holder whose task left the interpreter and has not been back for several looks loses its permit: it sits in
 *        a blocking call, and others go on meanwhile;
 *      - a holder that has run one task for 10 ms although others are ready loses it too; then both run, and under a GIL
 *        the interpreter's own switching shares the time;
 *      - tasks that wait for the OS thread of such a call go on elsewhere after a while, if they can;
 *      - timers that are due and that no worker has looked at are fired;
 *      - if asked to, it reports tasks that stay too long in one call, and traces (watch.c).
 * It slows down while nothing happens and sleeps while nobody holds a permit, until somebody takes one.
 */
#include "sched/internal.h"

enum {
    LOOKS_OUTSIDE = 4, /* looks in a row that must find the task outside: one look may hit any short call */
    LINGER_ROUNDS = 3,
};
#define LOOK_FAST ((pg_nanos)25000)
#define LOOK_SLOW ((pg_nanos)1000000)
#define LOOK_LOST ((pg_nanos)100000000)
#define COMPUTING_TOO_LONG ((pg_nanos)10000000)
#define COMPUTING_TOO_LONG_SEEDED PG_SECOND
#define WAITING_TOO_LONG ((pg_nanos)20000000)

typedef struct look {
    bool holders, outside, lost;
} look;

/* With a seed, a thread that did not get its CPU for a while is not to change the order of tasks: one that was woken to take
 * the interpreter back, which nobody has by now, looks like one in a blocking call until it runs. */
static bool may_only_be_late(const pg_worker *worker, pg_nanos now)
{
    if (PG_LIKELY(!pg_is_seeded())) return false;
    return now - worker->outside_since < WAITING_TOO_LONG || pg_os_thread_wants_cpu(worker->os_id);
}

/* It carries nothing, or something else than at the last look. Also of a worker that has lost its permit: that may have
 * happened a moment after it took up another task. */
static bool has_got_on(pg_worker *worker, pg_nanos now)
{
    unsigned tick = pg_load_relaxed(&worker->tick);
    if (pg_load_relaxed(&worker->watched) != NULL && tick == worker->seen_tick) return false;
    worker->seen_tick = tick;
    worker->seen_since = now;
    worker->seen_outside = 0;
    return true;
}

static void look_at_holder(pg_worker *worker, pg_nanos now, look *seen)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    pg_fiber *fiber = pg_load_relaxed(&worker->watched);
    seen->holders = true;
    if (has_got_on(worker, now) || fiber == NULL) return;
    if (hooks->is_outside != NULL && hooks->is_outside(fiber)) {
        /* While another thread is inside, ours may only be waiting to come back, and so would its successor. */
        if (hooks->is_busy() && now - worker->seen_since < WAITING_TOO_LONG) return;
        seen->outside = true;
        if (worker->seen_outside++ == 0) worker->outside_since = now;
        if (worker->seen_outside >= LOOKS_OUTSIDE && !may_only_be_late(worker, now)) pg_take_permit_away(worker);
        return;
    }
    worker->seen_outside = 0;
    /* Likewise. */
    if (now - worker->seen_since < (pg_is_seeded() ? COMPUTING_TOO_LONG_SEEDED : COMPUTING_TOO_LONG)) return;
    if (pg_work_visible() || pg_load_relaxed(&pg_the_sched.turns) > 0) pg_take_permit_away(worker);
}

/* While tasks are in its hands and in no queue, nobody may conclude that there are none: see deadlock.c. */
static void begin_round(void) { pg_add_seqcst(&pg_the_sched.monitor_round, 1); }
static void end_round(void) { pg_add_seqcst(&pg_the_sched.monitor_round, 1); }

/* The worker's thread sits in a blocking call, perhaps until a task goes on that waits for that thread: those that can do
 * without it need not. */
static void let_stray(pg_worker *worker)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    pg_task *task;
    size_t count = pg_load_seqcst(&worker->inbox.count);
    bool stayed = false;
    for (; count > 0 && pg_inject_pop(&worker->inbox, &task, 1) > 0; count--) {
        pg_fiber *fiber = task->fiber;
        if (fiber == NULL || fiber->pinned != NULL || !hooks->may_stray(fiber)) {
            pg_inject_push(&worker->inbox, task);
            stayed = true;
            continue;
        }
        fiber->astray = true;
        pg_inject_push(&pg_the_sched.inject, task);
        pg_wake_after_inject();
    }
    if (stayed) pg_worker_notify(worker); /* it may have looked meanwhile and gone to rest */
}

static bool is_held_up(pg_worker *worker, pg_nanos now)
{
    if (has_got_on(worker, now) || now - worker->seen_since < PG_SECOND) return false;
    return pg_the_sched.hooks.may_stray != NULL && pg_load_seqcst(&worker->inbox.count) > 0;
}

static look look_at_all(pg_nanos now)
{
    pg_sched *sched = &pg_the_sched;
    look seen = {false, false, false};
    int slots = pg_load_acquire(&sched->table_length);
    pg_lock_acquire(&sched->look_lock);
    for (int i = 0; i < slots; i++) {
        pg_worker *worker = pg_load_acquire(&sched->table[i]);
        pg_lock_acquire(&sched->lock);
        bool holds = worker->alive && worker->permit, awake = worker->alive && worker->sleep == AWAKE;
        pg_lock_release(&sched->lock);
        if (holds) {
            look_at_holder(worker, now, &seen);
            pg_watch_worker(worker, now);
        } else if (awake) { /* lost its permit; a task it queued before it noticed must not wait for it */
            seen.lost = true;
            if (pg_worker_flush(worker) > 0) pg_wake_if_free();
            if (PG_UNLIKELY(is_held_up(worker, now))) let_stray(worker);
            pg_watch_worker(worker, now);
        }
    }
    pg_lock_release(&sched->look_lock);
    return seen;
}

/* Memory for stacks may have come back from elsewhere, or a free fiber be too small for the first that waits. */
static void retry_starved(pg_nanos now, pg_nanos *retried)
{
    pg_sched *sched = &pg_the_sched;
    if (PG_LIKELY(pg_load_relaxed(&sched->no_stack.count) == 0) || now - *retried < PG_RETRY_EVERY) return;
    *retried = now;
    for (size_t i = pg_load_relaxed(&sched->free_count) + 1; i > 0; i--) {
        pg_task *task;
        if (pg_inject_pop(&sched->no_stack, &task, 1) == 0) return;
        pg_inject_push(&sched->inject, task);
        pg_wake_after_inject(); /* all workers may rest */
    }
}

static pg_nanos scavenge_patience(void)
{
    pg_nanos patience = pg_fibers_patience(), interval = pg_load_relaxed(&pg_the_sched.scavenge_interval);
    return patience > interval && pg_stack_any_warm() ? interval : patience;
}

/* What may be left to do without holders: a thread to start, starved tasks, a worker that lost its permit, stacks to give back. */
static pg_nanos quiet_patience(const look *seen)
{
    pg_nanos trace = pg_load_relaxed(&pg_the_sched.trace_interval), patience = PG_FOREVER;
    bool starved = pg_load_relaxed(&pg_the_sched.no_stack.count) > 0;
    if (starved || pg_load_relaxed(&pg_the_sched.short_of_threads)) patience = PG_RETRY_EVERY;
    else if (seen->lost) patience = LOOK_LOST;
    else patience = scavenge_patience();
    return trace > 0 && trace < patience ? trace : patience;
}

/* Sleep long, unless somebody takes a permit: only then is there anything new to see. */
static void sleep_until_permit(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_store_seqcst(&sched->monitor_word, 0);
    /* A permit taken before the store was taken by somebody who saw us awake: look once more. */
    begin_round();
    look seen = look_at_all(pg_now());
    end_round();
    if (!seen.holders) {
        pg_delay(monitor_to_sleep);
        pg_nanos limit = quiet_patience(&seen); /* likewise only now: with all that has happened until then */
        (void)pg_futex_wait(&sched->monitor_word, 0, limit == PG_FOREVER ? limit : pg_now() + limit);
    }
    pg_store_seqcst(&sched->monitor_word, 1);
}

static void monitor_main(void *unused)
{
    pg_sched *sched = &pg_the_sched;
    pg_nanos interval = LOOK_FAST, scavenged = pg_now(), retried = 0;
    int quiet = 0;
    (void)unused;
    for (;;) {
        if (PG_UNLIKELY(pg_load_relaxed(&sched->monitor_held))) {
            pg_nanosleep(LOOK_SLOW);
            continue;
        }
        pg_nanos now = pg_now();
        begin_round();
        pg_expire_timers(now);
        look seen = look_at_all(now);
        retry_starved(now, &retried);
        if (pg_load_relaxed(&sched->short_of_threads)) pg_wake_if_free();
        pg_nanos pause = pg_load_relaxed(&sched->scavenge_interval), quick = seen.holders ? PG_FOREVER : pg_fibers_patience();
        if (now - scavenged > (quick < pause ? quick : pause)) {
            pg_fibers_scavenge();
            pg_stack_cool();
            scavenged = now;
        }
        end_round();
        pg_trace(now);
        if (seen.holders) {
            quiet = 0;
            if (seen.outside) interval = LOOK_FAST;
            else if (interval < LOOK_SLOW) interval += interval / 4;
            pg_nanosleep(interval);
        } else if (quiet++ < LINGER_ROUNDS) { /* being woken costs the waker more than a look now and then */
            pg_nanosleep(LOOK_SLOW);
            interval = LOOK_FAST;
        } else {
            sleep_until_permit();
            interval = LOOK_FAST;
        }
    }
}

void pg_sched_hold_monitor(bool on) { pg_store_relaxed(&pg_the_sched.monitor_held, on); }

void pg_monitor_wake(void)
{
    pg_sched *sched = &pg_the_sched;
    if (pg_load_seqcst(&sched->monitor_word) != 0) return;
    if (pg_exchange_seqcst(&sched->monitor_word, 1) == 0) pg_futex_wake(&sched->monitor_word, 1);
}

void pg_monitor_start_locked(void)
{
    pg_sched *sched = &pg_the_sched;
    if (pg_load_relaxed(&sched->monitor_started)) return;
    pg_store_seqcst(&sched->monitor_word, 1);
    bool started = pg_os_thread_start(monitor_main, NULL, "pygo-monitor") == PG_OK;
    pg_store_relaxed(&sched->monitor_started, started);
    if (!started) pg_store_relaxed(&sched->short_of_threads, true);
}

bool pg_threads_lacking(void)
{
    pg_sched *sched = &pg_the_sched;
    return PG_UNLIKELY(pg_load_relaxed(&sched->short_of_threads)) && !pg_load_relaxed(&sched->monitor_started);
}

void pg_threads_retry(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_lock_acquire(&sched->lock);
    pg_monitor_start_locked();
    pg_lock_release(&sched->lock);
    pg_wake_if_free();
}
