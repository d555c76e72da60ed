/* Tasks: spawn, make ready, pick, switch. Parking is in park.c, worker threads are in worker.c, the design in sched.h. */
#include "sched/internal.h"

pg_sched pg_the_sched;
bool pg_sched_is_serial;
atomic_bool pg_fibers_are_many;

/* ---- queues ---- */

static bool may_use_own_queue(pg_worker *worker)
{
    return pg_load_relaxed(&worker->attention) == 0 && worker->pinned_task == NULL;
}

void pg_queue_here_or_shared(pg_worker *worker, pg_task *task)
{
    pg_sched *sched = &pg_the_sched;
    if (worker != NULL && may_use_own_queue(worker)) {
        pg_runq_push(&worker->queue, task, &sched->inject);
        if (!sched->exclusive) pg_wake_if_free(); /* else the only permit is ours: nobody to wake */
    } else {
        pg_inject_push(&sched->inject, task);
        pg_wake_after_inject();
    }
}

/* ---- fetching ahead ---- */

static void fetch_lines(const void *at, int from, int to)
{
    for (int line = from; line < to; line++) __builtin_prefetch((const char *)at + line * PG_CACHE_LINE, 1);
    __asm__ volatile(""); /* GCC holds a function that does nothing else for one without effects, and drops its calls */
}

/* The record of the fiber, and next to it what the layer above looks at first: its extra area's record and frames. */
static void fetch_fiber(const pg_fiber *fiber) { fetch_lines(fiber, -3, 4); }

/* The innermost frames of a suspended one, and what the layer above keeps elsewhere. */
static void fetch_suspended(const pg_fiber *fiber)
{
    fetch_lines(fiber->sp, 0, 16);
    if (pg_the_sched.hooks.foresee != NULL) pg_the_sched.hooks.foresee(fiber);
}

void pg_sched_foresee_wake(const pg_task *task, const void *record)
{
    pg_worker *worker = pg_worker_of_thread();
    if (worker == NULL || pg_load_relaxed(&worker->run_next) != NULL) return; /* others go on before it */
    fetch_lines(record, -6, 16); /* the frames of the wait, and those around */
    if (task->fiber != NULL) fetch_fiber(task->fiber);
}

static void foresee_resume(const pg_fiber *fiber)
{
    if (PG_LIKELY(!pg_load_relaxed(&pg_fibers_are_many)) || fiber == NULL) return;
    fetch_suspended(fiber);
    fetch_fiber(fiber);
}

/* They are the caller's, and will run soon one after the other. */
static void foresee_batch(pg_task *const *tasks, size_t count)
{
    if (PG_LIKELY(!pg_load_relaxed(&pg_fibers_are_many))) return;
    for (size_t i = 0; i < count; i++) fetch_lines(tasks[i], 0, 2);
    for (size_t i = 0; i < count; i++)
        if (tasks[i]->fiber != NULL) fetch_fiber(tasks[i]->fiber);
    for (size_t i = 0; i < count; i++)
        if (tasks[i]->fiber != NULL) fetch_suspended(tasks[i]->fiber);
}

/* ---- queueing ---- */

/* Run `task` next, and what was to be next before it at the end of the queue. */
static void queue_next(pg_worker *worker, pg_task *task)
{
    enum { ONE_IN = 4 };
    if (pg_is_seeded() && pg_is_drawn(ONE_IN)) {
        pg_queue_here_or_shared(worker, task);
        return;
    }
    if (pg_load_relaxed(&worker->run_next) == NULL) { /* others only take: it stays so */
        pg_store_release(&worker->run_next, task); /* pairs with the exchange of whoever takes it */
    } else {
        pg_task *bumped = pg_exchange_acqrel(&worker->run_next, task);
        if (bumped != NULL) pg_runq_push(&worker->queue, bumped, &pg_the_sched.inject);
    }
    if (!pg_the_sched.exclusive) pg_wake_if_free();
}

void pg_sched_spawn(pg_task *task)
{
    pg_worker *worker = pg_worker_of_thread();
    if (worker != NULL) pg_count(&worker->spawned);
    else pg_add_relaxed(&pg_the_sched.foreign_spawned, 1);
    pg_queue_here_or_shared(worker, task);
}

/* The one worker that may resume the task, or NULL. */
static pg_worker *home_of(pg_task *task) { return task->fiber != NULL ? task->fiber->pinned : NULL; }

void pg_sched_enqueue_last(pg_task *task)
{
    if (task->kind == PG_KIND_THREAD || home_of(task) != NULL) pg_sched_enqueue(task);
    else pg_queue_here_or_shared(pg_worker_of_thread(), task);
}

void pg_sched_enqueue(pg_task *task)
{
    if (task->kind == PG_KIND_THREAD) {
        pg_task_let_go(task); /* the last touch: the thread, and its stand-in, may go */
        pg_delay(let_go_to_futex);
        pg_futex_wake(&task->state, 1);
        return;
    }
    pg_delay(won_to_pushed);
    pg_worker *worker = pg_worker_of_thread(), *home = home_of(task);
    if (PG_UNLIKELY(home != NULL)) {
        pg_inject_push(&home->inbox, task);
        if (home != worker) pg_worker_notify(home);
    } else if (worker != NULL && worker->current != NULL && may_use_own_queue(worker)) {
        queue_next(worker, task);
    } else {
        pg_inject_push(&pg_the_sched.inject, task);
        pg_wake_after_inject();
    }
}

/* ---- picking ---- */

size_t pg_expire_timers(pg_nanos now)
{
    pg_sched *sched = &pg_the_sched;
    pg_task *ready[PG_EXPIRE_BATCH];
    size_t total = 0, count;
    pg_store_relaxed(&sched->coarse_now, now);
    if (!pg_timers_due(&sched->timers, now)) return 0;
    do {
        count = pg_timers_expire(&sched->timers, now, ready, PG_EXPIRE_BATCH);
        pg_delay(fired_to_pushed);
        foresee_batch(ready, count);
        for (size_t i = 0; i < count; i++) pg_sched_enqueue_last(ready[i]);
        total += count;
    } while (count > 0 || pg_timers_due(&sched->timers, now));
    return total;
}

bool pg_may_run(pg_worker *worker, pg_task *task)
{
    pg_fiber *fiber = task->fiber;
    pg_worker *home;
    if (fiber == NULL) return true;
    if (PG_UNLIKELY(fiber->pinned != NULL)) home = fiber->pinned;
    else home = fiber->worker;
    if (PG_LIKELY(home == worker)) return true;
    if (fiber->pinned == NULL && (fiber->astray || pg_the_sched.hooks.must_stay == NULL || !pg_the_sched.hooks.must_stay(fiber)))
        return true;
    pg_inject_push(&home->inbox, task);
    pg_worker_notify(home);
    return false;
}

/* Move up to `limit` tasks, at most half a ring, from the shared queue into the own one; returns the first. */
static pg_task *take_shared(pg_worker *worker, size_t limit)
{
    pg_task *tasks[PG_RUNQ_SIZE / 2];
    size_t count = pg_inject_pop(&pg_the_sched.inject, tasks, limit);
    foresee_batch(tasks, count);
    for (size_t i = 1; i < count; i++) pg_runq_push(&worker->queue, tasks[i], &pg_the_sched.inject);
    return count > 0 ? tasks[0] : NULL;
}

static pg_task *take_inbox(pg_worker *worker)
{
    pg_task *task;
    if (PG_LIKELY(pg_load_seqcst(&worker->inbox.count) == 0)) return NULL;
    return pg_inject_pop(&worker->inbox, &task, 1) ? task : NULL;
}

/* Tasks that wake each other run one after the other, ahead of the queue: a streak. It must not starve the queue, in
 * switches or in time, nor may partners that take long turns get more time than those that take short ones: a streak
 * goes on at least as long as the longest turn of the streak before it. */
static bool is_streak_over(const pg_worker *worker)
{
    if (pg_is_seeded()) return worker->next_streak >= PG_NEXT_STREAK;
    pg_nanos lasted = worker->picked_at - worker->streak_start;
    return lasted >= worker->streak_least && (worker->next_streak >= PG_NEXT_STREAK || lasted >= PG_POLL_TIME);
}

static void start_streak(pg_worker *worker)
{
    enum { LONG_STREAK = 8 };
    if (worker->next_streak >= LONG_STREAK) worker->unread_most = 1; /* who comes now may take longer turns */
    worker->next_streak = 0;
    worker->streak_start = worker->picked_at;
    worker->streak_least = worker->longest_turn < PG_TURN_TIME ? worker->longest_turn : PG_TURN_TIME;
    worker->longest_turn = 0;
}

/* The time of this pick, as far as anybody asks: it is read when the coarse clock has moved and, for its monitor may not
 * have got to run for long, after some turns in any case; after each where turns are long. So a turn that is long beside
 * what the reading costs is measured alone, and of short ones a few together. */
static pg_nanos note_turn(pg_worker *worker)
{
    pg_nanos coarse = pg_load_relaxed(&pg_the_sched.coarse_now);
    if (coarse == worker->seen_coarse && ++worker->unread < worker->unread_most) return worker->picked_at;
    pg_nanos now = pg_now(), turn = now - worker->picked_at;
    if (turn >= worker->unread * PG_LONG_TURN) worker->unread_most = 1;
    else if (worker->unread_most < PG_POLL_TICKS) worker->unread_most *= 2;
    if (worker->current != NULL && turn > worker->longest_turn) worker->longest_turn = turn;
    worker->unread = 0;
    worker->seen_coarse = coarse;
    worker->picked_at = now;
    return now;
}

static pg_task *take_next(pg_worker *worker)
{
    if (pg_load_relaxed(&worker->run_next) == NULL) return NULL;
    pg_task *task = pg_exchange_acqrel(&worker->run_next, NULL);
    if (task == NULL || !is_streak_over(worker) || pg_runq_length(&worker->queue) == 0) return task;
    pg_runq_push(&worker->queue, task, &pg_the_sched.inject);
    return NULL;
}

/* Threads that wait for the interpreter outside of the runtime's calls are not counted in sched.turns. Where they cannot
 * ask for it themselves, the worker leaves it open for a moment now and then, more seldom while nobody comes. */
static bool is_time_to_open(pg_worker *worker)
{
    if (!pg_the_sched.hooks.switch_restarts_waits) return false;
    return worker->polled_at - worker->opened_at >= worker->open_every;
}

/* Every PG_POLL_TICKS or PG_POLL_TIME: what other threads put elsewhere gets its share. */
static pg_task *poll_shared(pg_worker *worker)
{
    worker->polled_at = pg_now();
    if (pg_load_relaxed(&pg_the_sched.turns) > 0 && ++worker->turn_polls >= PG_TURN_POLLS) worker->give_turn = true;
    if (is_time_to_open(worker)) worker->give_turn = worker->open = true;
    if (worker->give_turn) {
        worker->turn_polls = 0;
        if (!pg_is_seeded() || !pg_worker_give_turn_in_place(worker)) return NULL;
    }
    pg_expire_timers(worker->polled_at);
    return worker->pinned_task == NULL ? take_shared(worker, 1) : NULL;
}

static pg_task *pick_candidate(pg_worker *worker)
{
    enum { ONE_IN = 4 };
    pg_task *task = take_inbox(worker);
    if (PG_UNLIKELY(task != NULL)) return task;
    if (PG_UNLIKELY(worker->pinned_task != NULL)) return NULL;
    task = take_next(worker);
    if (task != NULL) {
        worker->next_streak++;
        return task;
    }
    start_streak(worker);
    task = pg_runq_pop(&worker->queue);
    if (pg_is_seeded() && task != NULL && pg_is_drawn(ONE_IN)) {
        pg_runq_push(&worker->queue, task, &pg_the_sched.inject); /* another first; with no other, this one */
        task = pg_runq_pop(&worker->queue);
    }
    return task != NULL ? task : take_shared(worker, PG_RUNQ_SIZE / 2);
}

pg_task *pg_pick(pg_worker *worker)
{
    pg_task *task = NULL;
    unsigned tick = pg_load_relaxed(&worker->tick) + 1;
    pg_store_relaxed(&worker->tick, tick);
    if (PG_UNLIKELY(pg_load_relaxed(&worker->attention) != 0)) return NULL;
    bool poll = note_turn(worker) - worker->polled_at >= PG_POLL_TIME || tick % PG_POLL_TICKS == 0;
    if (pg_is_seeded() && worker->current != NULL) poll = pg_is_drawn(PG_POLL_TICKS); /* not by the clock */
    if (PG_UNLIKELY(poll)) {
        task = poll_shared(worker);
        if (worker->give_turn) return NULL;
    }
    do {
        if (task == NULL) task = pick_candidate(worker);
        if (task == NULL || task->fiber == NULL || PG_LIKELY(pg_may_run(worker, task))) return task;
        task = NULL;
    } while (true);
}

/* ---- switching ---- */

pg_fiber *pg_fiber_for(pg_worker *worker, pg_task *task)
{
    pg_fiber *fiber = task->fiber;
    if (fiber == NULL) {
        bool none_free = pg_load_relaxed(&pg_the_sched.free_count) == 0;
        fiber = pg_fiber_obtain(pg_task_stack_size(task));
        if (fiber == NULL) {
            pg_fiber_lacking(task, none_free);
            return NULL;
        }
        pg_poke(&fiber->task, task);
        task->fiber = fiber;
        pg_store_relaxed(&task->state, PG_TASK_ACTIVE);
        pg_count(&worker->fresh_starts);
    }
    return fiber;
}

void pg_settle_previous(pg_worker *worker)
{
    pg_fiber *fiber = worker->previous;
    unsigned seen = PG_TASK_ACTIVE;
    if (fiber == NULL) return;
    worker->previous = NULL;
    pg_task *task = fiber->task;
    switch (worker->post) {
    case POST_PARK: /* W2; a success pairs with the waker's CAS, from then on the task is not ours */
        pg_delay(left_to_parked);
        if (PG_LIKELY(pg_cas_acqrel(&task->state, &seen, PG_TASK_PARKED))) return;
        pg_check(pg_task_take_notification(task)); /* it was woken while it left */
        __attribute__((fallthrough));
    case POST_YIELD:
        if (PG_UNLIKELY(fiber->pinned != NULL)) pg_inject_push(&worker->inbox, task);
        else pg_queue_here_or_shared(worker, task);
        return;
    case POST_END: pg_fiber_release(fiber); return;
    case POST_NONE: pg_fatal("left a fiber without saying why");
    }
}

void pg_arrive(pg_worker *worker, pg_fiber *fiber)
{
    pg_sched *sched = &pg_the_sched;
    pg_fiber *previous = worker->previous;
    pg_poke(&fiber->worker, worker); /* others look at it, and at the task: is_needed */
    fiber->astray = false;
    worker->current = fiber;
    pg_count(&worker->switches);
    if (sched->hooks.enter != NULL) {
        if (previous == NULL && sched->spinning && sched->hooks.is_busy != NULL && sched->hooks.is_busy()) {
            pg_nanos until = pg_now() + PG_SPIN_TIME;
            while (sched->hooks.is_busy() && pg_now() < until) pg_cpu_relax();
        }
        sched->hooks.enter(previous, fiber);
    }
    pg_store_relaxed(&worker->watched, fiber); /* only now: waiting to enter is no blocking call */
    pg_settle_previous(worker);
}

static void *note_departure(pg_worker *worker, pg_fiber *target)
{
    if (target == NULL) return pg_note_departure(worker->own_base, worker->own_size);
    const pg_stack *stack = target->segment != NULL ? &target->segment->stack : &target->stack;
    return pg_note_departure(stack->base, pg_stack_size(stack));
}

/* Suspend the context that *save names for `target`, or for the worker's own stack. Returns the worker that resumes. */
static pg_worker *jump(pg_worker *worker, void **save, pg_fiber *target)
{
    worker->entering = target;
    pg_store_relaxed(&worker->watched, NULL);
    void *fake = note_departure(worker, target);
    pg_note_switch(target ? target->sanitizer : worker->sanitizer);
    worker = pg_switch(save, target ? target->sp : worker->sp, worker);
    pg_note_arrival(fake);
    return worker;
}

/* Leave `fiber` for the next task or the worker's own stack; returns when it is resumed, maybe elsewhere. */
void pg_switch_away(pg_worker *worker, pg_fiber *fiber, enum worker_post post)
{
    fiber->saved_errno = pg_errno_get(); /* before picking, which may map a stack or meet a busy lock */
    pg_task *next = pg_pick(worker);
    if (next == NULL && post == POST_YIELD && worker->pinned_task != NULL) pg_worker_make_way(worker);
    if (next == NULL && post == POST_YIELD && !worker->give_turn && pg_load_relaxed(&worker->attention) == 0) {
        pg_errno_set(fiber->saved_errno);
        return;
    }
    pg_fiber *target = next ? pg_fiber_for(worker, next) : NULL;
    foresee_resume(target);
    worker->previous = fiber;
    worker->post = post;
    worker = jump(worker, &fiber->sp, target);
    pg_arrive(worker, fiber);
    pg_errno_set(fiber->saved_errno);
}

void pg_sched_detach_task(pg_fiber *fiber)
{
    fiber->tail.fiber = fiber; /* the rest is as fiber_create left it */
    pg_store_relaxed(&fiber->tail.state, PG_TASK_ACTIVE);
    pg_poke(&fiber->task, &fiber->tail);
}

void pg_dispatch(pg_worker *worker, pg_task *task)
{
    pg_fiber *fiber = pg_fiber_for(worker, task);
    if (fiber == NULL) return;
    foresee_resume(fiber);
    worker->previous = NULL;
    worker->post = POST_NONE;
    jump(worker, &worker->sp, fiber);
    worker->current = NULL;
    if (pg_the_sched.hooks.leave != NULL) pg_the_sched.hooks.leave(worker->previous);
    pg_settle_previous(worker);
}

/* The task has ended without unpinning. A thread that ends with its task stays closed to others. */
static void end_pinned(pg_worker *worker, pg_fiber *fiber)
{
    fiber->pin_depth = 0;
    fiber->pinned = NULL;
    worker->pinned_task = fiber->bound ? &worker->thread.stand_in : NULL;
    worker->closing = fiber->bound;
    fiber->bound = false;
}

void pg_fiber_loop(pg_worker *worker, pg_fiber *fiber)
{
    for (;;) {
        fiber->task->run(fiber->task); /* afterwards the task may be gone, and the worker another */
        pg_poke(&fiber->task, NULL);
        pg_delay(ended_to_picked);
        worker = fiber->worker;
        pg_count(&worker->finished);
        if (PG_UNLIKELY(fiber->pin_depth > 0)) end_pinned(worker, fiber);
        pg_switch_clean_float(); /* the next task on this fiber is a stranger */
        pg_task *next = pg_pick(worker);
        if (next != NULL && next->fiber == NULL && pg_fiber_suits(fiber, next)) { /* start it here, without a switch */
            pg_poke(&fiber->task, next);
            next->fiber = fiber;
            pg_store_relaxed(&next->state, PG_TASK_ACTIVE);
            pg_count(&worker->fresh_starts);
            continue;
        }
        worker->previous = fiber;
        worker->post = POST_END;
        worker = jump(worker, &fiber->sp, next ? pg_fiber_for(worker, next) : NULL);
        pg_arrive(worker, fiber);
    }
}

/* ---- timers of the layer above ---- */

int pg_sched_timer_start(pg_timer *timer, pg_nanos deadline)
{
    pg_sched *sched = &pg_the_sched;
    bool earliest = false;
    if (PG_UNLIKELY(timer->home != NULL)) return pg_timer_start(timer->home, timer, deadline, &earliest);
    int outcome = pg_timer_start(&sched->timers, timer, deadline, &earliest);
    /* Somebody asleep may have to wake earlier than it thought. While all permits are in use, holders look. */
    if (outcome == PG_OK && earliest) pg_wake_if_free();
    return outcome;
}

static pg_timers *home_of_timer(const pg_timer *timer)
{
    return PG_LIKELY(timer->home == NULL) ? &pg_the_sched.timers : timer->home;
}

bool pg_sched_timer_stop(pg_timer *timer) { return pg_timer_stop(home_of_timer(timer), timer); }

void pg_sched_each_timer(void (*look)(pg_timer *timer, void *opaque), void *opaque)
{
    pg_timers *timers = &pg_the_sched.timers;
    pg_lock_acquire(&timers->lock);
    for (uint32_t i = 0; i < timers->count; i++) look(pg_timer_at(timers, i), opaque);
    pg_lock_release(&timers->lock);
}

bool pg_sched_timer_is_pending(const pg_timer *timer, pg_nanos *deadline)
{
    return pg_timer_is_pending(home_of_timer(timer), timer, deadline);
}

pg_nanos pg_sched_coarse_now(void) { return pg_load_relaxed(&pg_the_sched.coarse_now); }

/* ---- pinning ---- */

int pg_sched_pin(void)
{
    pg_fiber *fiber = pg_sched_fiber();
    if (fiber == NULL) return PG_EINVAL;
    if (fiber->pin_depth++ == 0) {
        pg_worker *worker = fiber->worker;
        fiber->pinned = worker;
        worker->pinned_task = fiber->task;
        if (pg_worker_flush(worker) > 0) pg_wake_if_free(); /* what waited here must go elsewhere */
    }
    return PG_OK;
}

int pg_sched_unpin(void)
{
    pg_fiber *fiber = pg_sched_fiber();
    if (fiber == NULL || fiber->pin_depth == 0) return PG_EINVAL;
    if (--fiber->pin_depth == 0) {
        fiber->worker->pinned_task = NULL;
        fiber->pinned = NULL;
    }
    return PG_OK;
}

int pg_sched_bind(void)
{
    pg_fiber *fiber = pg_sched_fiber();
    if (pg_sched_self() == NULL) return PG_ENOMEM; /* it also makes the record of a thread */
    if (fiber == NULL) return ((pg_thread *)pg_tls_get())->segment != NULL ? PG_EINVAL : PG_OK;
    if (fiber->segment != NULL) return PG_EINVAL;
    if (fiber->bound) return PG_OK;
    if (fiber->pinned == NULL && fiber->worker->pinned_task != NULL) return PG_EAGAIN;
    fiber->bound = true;
    return pg_sched_pin();
}

/* ---- set-up ---- */

int pg_sched_init(const pg_hooks *hooks, int workers, bool exclusive)
{
    pg_sched *sched = &pg_the_sched;
    if (workers < 1 || workers > PG_MAX_WORKERS) return PG_EINVAL;
    if (hooks != NULL) sched->hooks = *hooks;
    pg_sched_is_serial = sched->hooks.serial;
    sched->exclusive = exclusive;
    sched->spinning = pg_cpu_count() > 1;
    pg_store_relaxed(&sched->limit, workers);
    sched->permits = exclusive ? 1 : workers;
    pg_store_relaxed(&sched->permits_free, sched->permits);
    pg_list_init(&sched->idle);
    pg_list_init(&sched->waiting);
    pg_list_init(&sched->threads);
    pg_list_init(&sched->fibers);
    pg_inject_init(&sched->inject);
    pg_inject_init(&sched->no_stack);
    pg_timers_init(&sched->timers);
    pg_store_relaxed(&sched->coarse_now, pg_now());
    pg_sched_set_signal_slice(0);
    pg_sched_set_scavenge_interval(0);
    sched->started_at = pg_now();
    pg_tls_on_thread_exit(pg_thread_destroy);
    return PG_OK;
}

int pg_sched_workers(void)
{
    return pg_load_relaxed(&pg_the_sched.limit);
}

int pg_sched_set_workers(int workers)
{
    pg_sched *sched = &pg_the_sched;
    if (workers < 1 || workers > PG_MAX_WORKERS) return PG_EINVAL;
    pg_lock_acquire(&sched->lock);
    int permits = sched->exclusive ? 1 : workers;
    pg_store_relaxed(&sched->limit, workers);
    pg_add_seqcst(&sched->permits_free, permits - sched->permits);
    sched->permits = permits;
    pg_lock_release(&sched->lock);
    if (pg_work_visible()) pg_wake_if_free();
    return PG_OK;
}
