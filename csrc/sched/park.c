/* Waiting: of tasks, which leave their stacks, and of ordinary threads, which sleep on the state of their stand-ins; both
 * in the loops on a predicate that every wait stands in. */
#include "base/failpoint.h"
#include "sched/bubble.h"
#include "sched/internal.h"

/* ---- tasks ---- */

typedef struct park_timer {
    pg_timer timer;
    pg_task *task;
    atomic_bool fired;
} park_timer;

static pg_task *park_timer_fire(pg_timer *timer)
{
    park_timer *park = pg_container_of(timer, park_timer, timer);
    pg_task *task = park->task;
    pg_store_release(&park->fired, true);
    return pg_task_wake(task) ? task : NULL;
}

static int fiber_park(pg_fiber *fiber, pg_nanos deadline)
{
    pg_worker *worker = fiber->worker;
    park_timer park;
    if (PG_UNLIKELY(pg_task_take_notification(fiber->task))) return PG_OK;
    pg_count(&worker->parks);
    fiber->parked_at = pg_load_relaxed(&pg_the_sched.coarse_now);
    fiber->for_ever = deadline == PG_FOREVER;
    fiber->park_count++;
    if (deadline == PG_FOREVER) {
        if (PG_UNLIKELY(fiber->bubble != NULL)) pg_bubble_rest(fiber);
        pg_switch_away(worker, fiber, POST_PARK);
        return PG_OK;
    }
    if (deadline <= 0 || pg_sched_now() >= deadline) return PG_ETIMEDOUT;
    park.task = fiber->task;
    park.timer = (pg_timer){.fire = park_timer_fire, .home = pg_bubble_timers(fiber->bubble)};
    atomic_init(&park.fired, false);
    int started = pg_sched_timer_start(&park.timer, deadline);
    if (started != PG_OK) return started;
    if (PG_UNLIKELY(fiber->bubble != NULL)) pg_bubble_rest(fiber);
    pg_switch_away(worker, fiber, POST_PARK);
    pg_sched_timer_stop(&park.timer); /* even if it fired: it may still be firing */
    return pg_load_acquire(&park.fired) ? PG_ETIMEDOUT : PG_OK;
}

/* ---- ordinary threads ---- */

/* Wait politely for the interpreter: a permit holder gives it up within a few task switches. */
static void take_turn(void)
{
    pg_sched *sched = &pg_the_sched;
    unsigned seen = pg_load_seqcst(&sched->turn_word);
    pg_nanos start;
    if (sched->hooks.is_busy == NULL || !sched->hooks.is_busy()) return;
    pg_add_seqcst(&sched->turns, 1);
    start = pg_now();
    while (sched->spinning && sched->hooks.is_busy() && pg_now() - start < PG_SPIN_TIME) pg_cpu_relax();
    if (sched->hooks.is_busy()) (void)pg_futex_wait(&sched->turn_word, seen, start + PG_TURN_PATIENCE);
    pg_add_seqcst(&sched->turns, -1);
}

static void thread_return(void *token)
{
    if (pg_the_sched.hooks.thread_enter == NULL) return;
    take_turn();
    pg_the_sched.hooks.thread_enter(token);
}

/* An ordinary thread lets tasks run: it leaves the interpreter until somebody has entered it, or nobody wants to. */
static void thread_yield(void)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    void *token = hooks->thread_leave ? hooks->thread_leave() : NULL;
    pg_nanos until = pg_now() + PG_SPIN_TIME;
    do {
        pg_os_yield();
    } while (hooks->is_busy != NULL && !hooks->is_busy() && pg_work_visible() && pg_now() < until);
    thread_return(token);
}

void pg_sched_yield(void)
{
    pg_worker *worker = pg_worker_of_thread();
    if (worker != NULL && worker->current != NULL) {
        pg_switch_away(worker, worker->current, POST_YIELD);
        return;
    }
    thread_yield();
}

/* While it is CALLED a waker still looks at the stand-in. */
static bool is_waited_for(atomic_uint *state)
{
    unsigned seen = pg_load_acquire(state); /* pairs with pg_task_let_go */
    return seen != PG_TASK_ACTIVE && seen != PG_TASK_NOTIFIED;
}

static int thread_sleep(pg_thread *thread, pg_nanos deadline)
{
    enum { SLICES = 32 }; /* so much longer at most than the first */
    atomic_uint *state = &thread->stand_in.state;
    unsigned seen = PG_TASK_ACTIVE;
    int outcome = PG_OK;
    pg_store_relaxed(&thread->for_ever, deadline == PG_FOREVER);
    pg_delay(thread_to_parked);
    if (deadline == PG_FOREVER) pg_add_seqcst(&pg_the_sched.thread_parks, 1); /* before it is seen parked: deadlock.c */
    if (!pg_cas_acqrel(state, &seen, PG_TASK_PARKED)) {
        pg_check(pg_task_take_notification(&thread->stand_in));
        return PG_OK;
    }
    if (pg_the_sched.spinning) {
        pg_nanos until = pg_now() + PG_SPIN_TIME;
        while (is_waited_for(state) && pg_now() < until) pg_cpu_relax();
    }
    while (is_waited_for(state) && outcome == PG_OK) {
        pg_nanos until = deadline;
        bool lacking = pg_threads_lacking();
        if (thread->is_main || lacking) {
            pg_nanos look = pg_now() + (lacking ? PG_RETRY_EVERY : thread->slice);
            if (look < until) until = look;
        }
        pg_delay(parked_to_sleep);
        outcome = pg_futex_wait(state, PG_TASK_PARKED, until); /* CALLED: returns at once, a moment too soon */
        if (lacking) pg_threads_retry();
        if (outcome == PG_EINTERRUPTED && !thread->is_main) outcome = PG_OK; /* signals are the main thread's */
        if (outcome == PG_ETIMEDOUT && until != deadline) {
            outcome = thread->is_main ? PG_EINTERRUPTED : PG_OK;
            if (thread->slice < SLICES * pg_load_relaxed(&pg_the_sched.signal_slice)) thread->slice *= 2;
        }
    }
    if (outcome == PG_OK) return PG_OK;
    seen = PG_TASK_PARKED;
    if (pg_cas_acqrel(state, &seen, PG_TASK_ACTIVE)) return outcome;
    while (is_waited_for(state)) pg_os_yield(); /* a waker has won us and is about to let go */
    return PG_OK;
}

static int thread_park(pg_thread *thread, pg_nanos deadline)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    if (pg_task_take_notification(&thread->stand_in)) return PG_OK;
    if (deadline != PG_FOREVER && (deadline <= 0 || pg_now() >= deadline)) return PG_ETIMEDOUT;
    /* Handlers of the process's exit may wait, in the main thread, and then tasks go on. But they must rest again before
     * it goes on, for it may be about to take the interpreter apart; so no other thread may let them go on. */
    bool resumed = thread->is_main && pg_sched_resume();
    void *token = hooks->thread_leave ? hooks->thread_leave() : NULL;
    int outcome = thread_sleep(thread, deadline);
    if (PG_UNLIKELY(resumed)) pg_sched_stop(PG_REST_TIME);
    thread_return(token);
    return outcome == PG_OK && thread->is_main ? PG_EINTERRUPTED : outcome;
}

/* ---- both ---- */

void pg_sched_inject_stale_wakes(unsigned every) { pg_store_relaxed(&pg_the_sched.stale_every, every); }

static bool is_woken_for_nothing(void)
{
    unsigned every = pg_load_relaxed(&pg_the_sched.stale_every);
    return PG_UNLIKELY(every != 0) && pg_add_relaxed(&pg_the_sched.stale_count, 1) % every == 0;
}

int pg_sched_park(pg_task *self, pg_nanos deadline)
{
    if (is_woken_for_nothing()) {
        pg_sched_yield(); /* as time passes before a real one, too */
        return deadline != PG_FOREVER && pg_sched_now() >= deadline ? PG_ETIMEDOUT : PG_OK;
    }
    if (PG_LIKELY(self->kind != PG_KIND_THREAD)) return fiber_park(self->fiber, deadline);
    return thread_park(pg_thread_of(self), deadline);
}

/* Done: then only the waker's last step is left, a few instructions, unless it has been preempted in between. */
static bool is_done(atomic_uchar *done)
{
    if (pg_load_acquire(done) == PG_WAIT_OPEN) return false;
    for (int spin = 0; pg_load_acquire(done) == PG_WAIT_ENDING; spin++) {
        if (spin < 100) pg_cpu_relax();
        else pg_os_yield();
    }
    return true;
}

bool pg_sched_is_cancelled(pg_task *self)
{
    if (PG_LIKELY(pg_load_acquire(&self->alarm) == 0)) return false;
    return pg_the_sched.hooks.is_cancelled != NULL && pg_the_sched.hooks.is_cancelled(self);
}

/* Main, inside the interpreter, in a wait without a deadline: whether to give it up because nobody can end it. The full
 * look costs a system call or three, so a wait that stays quiet makes it ever more seldom. */
static bool gives_up_stuck(pg_task *self, atomic_uchar *done, unsigned *quiet)
{
    enum { SELDOM = 16 };
    const pg_hooks *hooks = &pg_the_sched.hooks;
    pg_rest rest;
    if (PG_UNLIKELY(hooks->is_ending != NULL && hooks->is_ending())) return hooks->thread_stuck();
    if (hooks->thread_stuck == NULL || !pg_tasks_rest(&rest)) {
        *quiet = 0;
        return false;
    }
    ++*quiet;
    bool look = (*quiet & (*quiet - 1)) == 0 || *quiet % SELDOM == 0;
    if (!look || !pg_nobody_wakes_main() || is_done(done) || pg_load_acquire(&self->alarm)) return false;
    return hooks->thread_stuck();
}

/* In a fork's child, the task that forked, as for the main thread elsewhere: tasks go on while it waits, until the very
 * end. Then nobody can end its wait but the clock, and no worker is left to look at it. PG_OK: it may park. */
static int wait_as_main(pg_task *self, pg_nanos deadline, bool *resumed)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    if (self->fiber != pg_the_sched.main_fiber) return PG_OK;
    if (hooks->is_ending == NULL || !hooks->is_ending()) {
        *resumed = pg_sched_resume();
        return PG_OK;
    }
    if (deadline == PG_FOREVER) return hooks->thread_stuck() ? PG_EINTERRUPTED : PG_OK;
    pg_nanos left = self->kind == PG_KIND_BUBBLED ? 0 : deadline - pg_now();
    if (left > 0) pg_nanosleep(left);
    return PG_ETIMEDOUT;
}

static int park_until(pg_task *self, atomic_uchar *done, pg_nanos deadline, bool shielded)
{
    unsigned quiet = 0; /* looks in a row at which all was quiet */
    bool resumed = false;
    if (self->kind == PG_KIND_THREAD) pg_thread_of(self)->slice = pg_load_relaxed(&pg_the_sched.signal_slice);
    pg_delay(linked_to_park);
    while (!is_done(done)) {
        if (!shielded && PG_UNLIKELY(pg_sched_is_cancelled(self))) return PG_ECANCELED;
        if (PG_UNLIKELY(pg_the_sched.main_fiber != NULL)) {
            int as_main = wait_as_main(self, deadline, &resumed);
            if (as_main != PG_OK) return as_main;
        }
        int outcome = pg_sched_park(self, deadline);
        if (PG_UNLIKELY(resumed)) pg_sched_stop(0); /* its own worker is up, so there is nothing to wait for */
        if (is_done(done)) return PG_OK;
        if (outcome == PG_EINTERRUPTED && !pg_the_sched.hooks.thread_interrupted() &&
            (deadline != PG_FOREVER || !gives_up_stuck(self, done, &quiet)))
            continue;
        if (outcome != PG_OK) return outcome;
    }
    return PG_OK;
}

int pg_sched_park_until(pg_task *self, atomic_uchar *done, pg_nanos deadline)
{
    return park_until(self, done, deadline, false);
}

int pg_sched_park_shielded(pg_task *self, atomic_uchar *done) { return park_until(self, done, PG_FOREVER, true); }

int pg_sched_sleep_until(pg_nanos deadline)
{
    atomic_uchar never;
    pg_task *self = pg_sched_self();
    if (self == NULL) return PG_ENOMEM;
    atomic_init(&never, PG_WAIT_OPEN);
    if (self->fiber != NULL) self->fiber->durable = true;
    if (deadline == PG_FOREVER) deadline--; /* whoever sleeps waits for nobody: it has an end, however far */
    int outcome = pg_sched_park_until(self, &never, deadline);
    return outcome == PG_ETIMEDOUT ? PG_OK : outcome;
}

void pg_sched_set_signal_slice(pg_nanos slice)
{
    pg_store_relaxed(&pg_the_sched.signal_slice, slice > 0 ? slice : PG_SIGNAL_SLICE);
}
