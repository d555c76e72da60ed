/* Worker threads: the loop on a worker's own stack, searching and resting, permits (sched.h, P1 to P4). */
#include "base/failpoint.h"
#include "os/fault.h"
#include "sched/internal.h"

#include <stdlib.h>

/* ---- seeing work ---- */

static pg_worker *worker_at(int slot) { return pg_load_acquire(&pg_the_sched.table[slot]); }
static int worker_slots(void) { return pg_load_acquire(&pg_the_sched.table_length); }

/* What others could take. Its run_next only a worker that lost its permit gives away: it will be next in an instant. */
static bool has_work_to_take(pg_worker *worker)
{
    if (pg_runq_length(&worker->queue) > 0) return true;
    return pg_load_seqcst(&worker->attention) != 0 && pg_load_seqcst(&worker->run_next) != NULL;
}

bool pg_work_visible(void)
{
    if (pg_load_seqcst(&pg_the_sched.inject.count) > 0) return true;
    for (int i = worker_slots(); i-- > 0;)
        if (has_work_to_take(worker_at(i))) return true;
    return false;
}

static bool timers_due(void)
{
    pg_nanos next = pg_load_seqcst(&pg_the_sched.timers.next_deadline);
    return next != PG_FOREVER && next <= pg_now();
}

static bool timer_pending(void) { return pg_load_seqcst(&pg_the_sched.timers.next_deadline) != PG_FOREVER; }

static pg_task *take_run_next(pg_worker *victim)
{
    if (pg_load_relaxed(&victim->run_next) == NULL) return NULL;
    return pg_exchange_acqrel(&victim->run_next, NULL);
}

static pg_task *steal(pg_worker *worker)
{
    int slots = worker_slots();
    uint64_t random = pg_random_step(&worker->victims) ^ pg_load_relaxed(&pg_the_sched.seed);
    for (int i = 0, at = (int)(random % (unsigned)slots); i < slots; i++, at = (at + 1) % slots) {
        pg_worker *victim = worker_at(at);
        if (victim == worker) continue;
        pg_task *task = pg_runq_steal(&worker->queue, &victim->queue);
        if (task == NULL && pg_load_relaxed(&victim->attention) != 0) task = take_run_next(victim);
        if (task != NULL) {
            pg_count(&worker->steals);
            if (pg_may_run(worker, task)) return task;
        }
    }
    return NULL;
}

size_t pg_worker_flush(pg_worker *worker)
{
    size_t moved = pg_runq_drain(&worker->queue, &pg_the_sched.inject);
    pg_task *task = take_run_next(worker);
    if (task != NULL) pg_inject_push(&pg_the_sched.inject, task);
    return moved + (task != NULL);
}

/* ---- permits; everything here under sched.lock ---- */

static void leave_list(pg_worker *worker)
{
    if (worker->sleep == QUEUED) pg_add_seqcst(&pg_the_sched.turns, -1);
    if (worker->sleep == QUEUED || worker->sleep == IDLE) pg_list_remove(&worker->link);
    worker->sleep = AWAKE;
    pg_the_sched.risings++;
}

/* The worker becomes a permit holder that searches. The permit has been taken from the count or from its last holder. */
static void give_permit(pg_worker *worker)
{
    pg_the_sched.waiting_had_last = worker->sleep == QUEUED || worker->sleep == LOCKED_IDLE;
    leave_list(worker);
    worker->permit = true;
    atomic_fetch_and_explicit(&worker->attention, ~(unsigned)ATTEND_LOST, memory_order_relaxed);
    pg_add_seqcst(&pg_the_sched.searching, 1);
}

static bool take_free_permit(void)
{
    if (pg_load_relaxed(&pg_the_sched.permits_free) <= 0 || pg_load_relaxed(&pg_the_sched.stopping)) return false;
    pg_add_seqcst(&pg_the_sched.permits_free, -1);
    return true;
}

static pg_worker *first_waiting(void)
{
    pg_node *node = pg_list_first(&pg_the_sched.waiting);
    return node ? pg_container_of(node, pg_worker, link) : NULL;
}

static pg_worker *first_idle(void)
{
    pg_node *node = pg_list_first(&pg_the_sched.idle);
    return node ? pg_container_of(node, pg_worker, link) : NULL;
}

/* Who is to have a permit: workers that wait for one and, where there are tasks for anybody, the others take turns. Else
 * two pinned tasks that yield would pass the permit to and fro, and all others would starve. NULL: a thread to be started. */
static pg_worker *next_in_line(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_worker *waiting = first_waiting();
    bool others = waiting == NULL || (sched->waiting_had_last && pg_load_seqcst(&sched->inject.count) > 0);
    return others ? first_idle() : waiting;
}

/* Pass the worker's permit to one that waits for it, or make it free. Returns whom to wake. */
static pg_worker *release_permit(pg_worker *worker)
{
    pg_worker *heir = NULL;
    bool passes = !pg_load_relaxed(&pg_the_sched.stopping) && first_waiting() != NULL;
    worker->permit = false;
    if (passes && pg_load_relaxed(&pg_the_sched.permits_free) >= 0) heir = next_in_line();
    if (heir != NULL) give_permit(heir);
    else pg_add_seqcst(&pg_the_sched.permits_free, 1);
    return heir;
}

static void wake(pg_worker *worker)
{
    if (worker == NULL) return;
    pg_delay(permit_to_woken);
    pg_store_release(&worker->granted, 1);
    pg_futex_wake(&worker->granted, 1);
    pg_monitor_wake();
}

/* ---- starting threads ---- */

static pg_worker *new_record_locked(void)
{
    pg_sched *sched = &pg_the_sched;
    int slots = pg_load_relaxed(&sched->table_length);
    for (int i = 0; i < slots; i++)
        if (!worker_at(i)->alive) return worker_at(i);
    if (slots == PG_MAX_THREADS) return NULL;
    void *memory = NULL;
    if (pg_fails(worker_record) || posix_memalign(&memory, PG_CACHE_LINE, sizeof(pg_worker)) != 0) return NULL;
    pg_worker *worker = __builtin_memset(memory, 0, sizeof *worker);
    worker->victims = (uint64_t)slots << 32;
    pg_runq_init(&worker->queue);
    pg_inject_init(&worker->inbox);
    pg_list_init(&worker->link);
    pg_store_release(&sched->table[slots], worker);
    pg_store_release(&sched->table_length, slots + 1);
    return worker;
}

/* A thread for a permit that has been taken. NULL: no record left. */
static pg_worker *prepare_worker_locked(void)
{
    pg_worker *worker = new_record_locked();
    if (worker == NULL) return NULL;
    worker->alive = true;
    worker->sleep = AWAKE;
    give_permit(worker);
    pg_add_relaxed(&pg_the_sched.thread_count, 1);
    pg_monitor_start_locked();
    pg_overflow_setup();
    return worker;
}

static void undo_prepare(pg_worker *worker)
{
    pg_lock_acquire(&pg_the_sched.lock);
    worker->alive = worker->permit = false;
    pg_add_seqcst(&pg_the_sched.searching, -1);
    pg_add_seqcst(&pg_the_sched.permits_free, 1);
    pg_add_relaxed(&pg_the_sched.thread_count, -1);
    pg_store_relaxed(&pg_the_sched.short_of_threads, true);
    pg_lock_release(&pg_the_sched.lock);
}

void pg_wake_one(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_worker *worker = NULL, *fresh = NULL;
    pg_lock_acquire(&sched->lock);
    if (take_free_permit()) {
        worker = next_in_line();
        if (worker != NULL) {
            give_permit(worker);
            /* It searches, and when it has found something asks for the next. */
            if (pg_load_relaxed(&sched->monitor_started)) pg_store_relaxed(&sched->short_of_threads, false);
        } else if ((fresh = prepare_worker_locked()) == NULL) {
            pg_add_seqcst(&sched->permits_free, 1);
            pg_store_relaxed(&sched->short_of_threads, true);
        }
    }
    pg_lock_release(&sched->lock);
    wake(worker);
    if (fresh == NULL) {
        if (pg_load_relaxed(&sched->short_of_threads)) pg_monitor_wake();
        return;
    }
    /* Out of threads the task stays queued; the monitor tries again, and so does whoever makes another one ready. */
    if (pg_os_thread_start(pg_worker_main, fresh, "pygo-worker") != PG_OK) undo_prepare(fresh);
    else if (pg_load_relaxed(&sched->monitor_started)) pg_store_relaxed(&sched->short_of_threads, false);
    pg_monitor_wake();
}

void pg_worker_notify(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    bool granted = false;
    pg_lock_acquire(&sched->lock);
    if (worker->sleep == IDLE || worker->sleep == LOCKED_IDLE) {
        granted = take_free_permit();
        if (granted) {
            give_permit(worker);
        } else { /* holders see sched.turns and pass their permit on */
            leave_list(worker);
            worker->sleep = QUEUED;
            pg_list_append(&sched->waiting, &worker->link);
            pg_add_seqcst(&sched->turns, 1);
        }
    }
    pg_lock_release(&sched->lock);
    if (granted) wake(worker);
}

/* The worker notices at its next scheduling point; until then its queue belongs to the others. */
void pg_take_permit_away(pg_worker *worker)
{
    pg_worker *heir = NULL;
    pg_lock_acquire(&pg_the_sched.lock);
    bool held = worker->permit;
    if (held) {
        atomic_fetch_or_explicit(&worker->attention, ATTEND_LOST, memory_order_seq_cst);
        heir = release_permit(worker);
    }
    pg_lock_release(&pg_the_sched.lock);
    if (!held) return;
    pg_add_relaxed(&pg_the_sched.handoffs, 1);
    pg_delay(handed_off);
    pg_worker_flush(worker);
    wake(heir);
    /* For pending timers too: a worker has to rest as their keeper. */
    if (pg_work_visible() || timer_pending()) pg_wake_if_free();
}

static bool does_another_wait(void)
{
    pg_sched *sched = &pg_the_sched;
    pg_lock_acquire(&sched->lock);
    bool waits = !pg_list_empty(&sched->waiting);
    pg_lock_release(&sched->lock);
    return waits;
}

void pg_worker_make_way(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    if (pg_load_relaxed(&sched->inject.count) > 0 || (pg_load_relaxed(&sched->turns) > 0 && does_another_wait()))
        pg_take_permit_away(worker);
}

/* ---- searching and resting; on the worker's own stack ---- */

static void stop_searching(pg_worker *worker)
{
    if (!worker->searching) return;
    worker->searching = false;
    /* The last searcher found something: there may be more, which its presence kept others from waking for. */
    if (pg_add_seqcst(&pg_the_sched.searching, -1) == 1 && !pg_the_sched.exclusive) pg_wake_if_free();
}

/* The interpreter was open: somebody has come in, or nobody. */
static void note_opening(pg_worker *worker, bool used)
{
    if (used) worker->open_every = PG_OPEN_EVERY;
    else if (worker->open && worker->open_every < PG_OPEN_SELDOM) worker->open_every *= 2;
    worker->open = false;
    worker->opened_at = pg_now();
}

/* Let a thread that wants the interpreter have it: we are outside, so it only needs to be told, and a moment. */
static void give_turn(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    worker->give_turn = false;
    pg_add_seqcst(&sched->turn_word, 1);
    pg_futex_wake(&sched->turn_word, 1);
    if (sched->hooks.is_busy == NULL) return;
    pg_nanos until = pg_now() + 3 * PG_SPIN_TIME; /* it may have to wake up */
    while ((worker->open || pg_load_seqcst(&sched->turns) > 0) && !sched->hooks.is_busy() && pg_now() < until) {
        if (sched->spinning) pg_cpu_relax();
        else pg_os_yield();
    }
    note_opening(worker, sched->hooks.is_busy());
}

bool pg_worker_give_turn_in_place(pg_worker *worker)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    if (worker->current == NULL || hooks->leave == NULL || does_another_wait()) return false;
    pg_store_relaxed(&worker->watched, NULL); /* this is no blocking call */
    hooks->leave(worker->current);
    give_turn(worker);
    hooks->enter(NULL, worker->current);
    pg_store_relaxed(&worker->watched, worker->current);
    return true;
}

/* Spinning pays where tasks come from other threads in quick succession; waiting for timers it only burns time. So it
 * goes on while it finds tasks, and is otherwise tried now and then. */
static bool may_pay_to_spin(pg_worker *worker)
{
    enum { NOW_AND_THEN = 16 };
    if (!pg_the_sched.spinning) return false;
    return worker->spin_credit > 0 || ++worker->spins_left_out % NOW_AND_THEN == 0;
}

static bool spin_for_work(pg_worker *worker)
{
    enum { CREDIT = 4 };
    if (!may_pay_to_spin(worker)) return false;
    if (worker->spin_credit > 0) worker->spin_credit--;
    pg_nanos until = pg_now() + PG_SPIN_TIME;
    do {
        for (int i = 0; i < 16; i++) {
            if (pg_work_visible() || pg_load_seqcst(&worker->inbox.count) > 0) {
                worker->spin_credit = CREDIT;
                return true;
            }
            pg_cpu_relax();
        }
        if (timers_due()) return true;
    } while (pg_now() < until);
    return false;
}

/* The next task, or NULL when the worker should rest (which gives its permit up). */
static pg_task *find(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    do {
        if (pg_load_relaxed(&worker->attention) != 0) {
            pg_worker_flush(worker);
            return NULL;
        }
        if (worker->give_turn) {
            if (does_another_wait()) {
                worker->give_turn = false;
                pg_worker_flush(worker);
                return NULL;
            }
            give_turn(worker);
        }
        pg_task *task = pg_pick(worker);
        if (worker->give_turn) continue;
        if (task == NULL && worker->pinned_task == NULL) {
            pg_expire_timers(pg_now());
            task = pg_pick(worker);
            if (task == NULL) task = steal(worker);
        }
        if (task != NULL) {
            stop_searching(worker);
            return task;
        }
        if (worker->pinned_task != NULL) return NULL;
        if (!worker->searching) {
            worker->searching = true;
            pg_add_seqcst(&sched->searching, 1);
        }
    } while (worker->give_turn || pg_load_relaxed(&worker->attention) != 0 || spin_for_work(worker));
    return NULL;
}

/* A spare thread, or one that is closing, may end unless a suspended task has to resume on it. With very many suspended
 * tasks looking at all of them costs more than an idle thread does. */
static bool is_needed(pg_worker *worker)
{
    enum { WORTH_LOOKING_AT = 4096 };
    pg_sched *sched = &pg_the_sched;
    bool needed = false;
    if (worker->pinned_task != NULL && !worker->closing) return true;
    if (sched->hooks.must_stay == NULL) return false;
    if (!worker->closing &&
        pg_load_relaxed(&sched->fiber_count) - pg_load_relaxed(&sched->free_count) > WORTH_LOOKING_AT)
        return true;
    pg_lock_acquire(&sched->fiber_lock);
    needed = pg_load_relaxed(&sched->stopping); /* what the layer above looks at may be gone soon: pg_sched_stop */
    for (pg_node *node = sched->fibers.next; node != &sched->fibers && !needed; node = node->next) {
        pg_fiber *fiber = pg_container_of(node, pg_fiber, all);
        bool was_here = pg_peek(&fiber->worker) == worker && pg_peek(&fiber->task) != NULL;
        needed = was_here && sched->hooks.may_have_to_stay(fiber);
    }
    pg_lock_release(&sched->fiber_lock);
    return needed;
}

static bool retire(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    if (is_needed(worker)) return false;
    pg_lock_acquire(&sched->lock);
    bool surplus = worker->sleep == IDLE && pg_load_relaxed(&sched->thread_count) > pg_load_relaxed(&sched->limit) &&
                   pg_load_relaxed(&sched->timekeeper) != worker;
    if (worker->closing) surplus = worker->sleep == LOCKED_IDLE && pg_load_seqcst(&worker->inbox.count) == 0;
    if (surplus) {
        leave_list(worker);
        worker->alive = false; /* the record stays: others may still look at its queue */
        pg_add_relaxed(&sched->thread_count, -1);
    }
    pg_lock_release(&sched->lock);
    return surplus;
}

/* Give the permit up and enter the list that fits. */
static void lie_down(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    pg_worker *heir = NULL;
    pg_lock_acquire(&sched->lock);
    pg_store_relaxed(&worker->granted, 0);
    if (worker->permit) heir = release_permit(worker);
    atomic_fetch_and_explicit(&worker->attention, ~(unsigned)ATTEND_LOST, memory_order_relaxed);
    if (pg_load_seqcst(&worker->inbox.count) > 0) {
        worker->sleep = QUEUED;
        pg_list_append(&sched->waiting, &worker->link);
        pg_add_seqcst(&sched->turns, 1);
    } else if (worker->pinned_task != NULL) {
        worker->sleep = LOCKED_IDLE;
    } else {
        worker->sleep = IDLE;
        pg_list_append(sched->idle.next, &worker->link); /* in front: the warmest is woken first */
    }
    pg_lock_release(&sched->lock);
    if (worker->searching) {
        worker->searching = false;
        pg_add_seqcst(&sched->searching, -1);
    }
    wake(heir);
}

/* Take a free permit for oneself, if there is something to do that nobody else will be woken for. */
static bool get_up(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    bool inbox = pg_load_seqcst(&worker->inbox.count) > 0;
    if (!inbox && (worker->pinned_task != NULL || (!pg_work_visible() && !timers_due()))) return false;
    pg_lock_acquire(&sched->lock);
    bool up = worker->sleep != AWAKE && take_free_permit();
    if (up) give_permit(worker);
    pg_lock_release(&sched->lock);
    if (up) pg_monitor_wake();
    return up;
}

static pg_nanos later(pg_nanos one, pg_nanos other) { return one > other ? one : other; }

/* Rest until there is a permit again. False: the thread is to end. */
static bool rest(pg_worker *worker)
{
    pg_sched *sched = &pg_the_sched;
    lie_down(worker);
    if (worker->pinned_task == NULL) pg_store_seqcst(&sched->timekeeper, worker);
    pg_delay(lain_down);
    pg_fence_seqcst(); /* P2; pairs with the fence of pg_wake_if_free */
    if (worker->pinned_task != NULL && (timer_pending() || pg_work_visible())) pg_wake_if_free();
    if (worker->closing && retire(worker)) return false;
    pg_nanos retire_at = pg_now() + PG_RETIRE_AFTER;
    while (!get_up(worker) && pg_load_acquire(&worker->granted) == 0) {
        bool surplus = worker->pinned_task == NULL && pg_load_relaxed(&sched->thread_count) > pg_load_relaxed(&sched->limit);
        pg_nanos until = surplus ? retire_at : PG_FOREVER;
        pg_nanos timer = pg_load_seqcst(&sched->timers.next_deadline);
        /* While permits are all in use their holders and the monitor look at timers, and at the end of the process nobody
         * does; a due one must not make us spin. */
        bool keeper = pg_load_seqcst(&sched->timekeeper) == worker && pg_load_seqcst(&sched->permits_free) > 0 &&
                      !pg_load_relaxed(&sched->stopping);
        if (keeper && timer < until) until = pg_load_relaxed(&pg_fibers_are_many) ? later(timer, pg_now() + PG_NAP) : timer;
        if (pg_threads_lacking()) {
            pg_threads_retry();
            if (pg_now() + PG_RETRY_EVERY < until) until = pg_now() + PG_RETRY_EVERY;
        }
        int outcome = pg_futex_wait(&worker->granted, 0, until);
        if (outcome == PG_ETIMEDOUT && surplus && pg_now() >= retire_at) {
            if (retire(worker)) return false;
            retire_at = pg_now() + PG_RETIRE_AFTER;
        }
    }
    worker->searching = true; /* counted by who gave the permit */
    /* Others had their turn meanwhile. Were it counted from before, a worker that waits long for its permit would give it away
     * as soon as it has it, before it has run anything, and again each time. */
    worker->polled_at = worker->opened_at = pg_now();
    worker->turn_polls = 0;
    return true;
}

void pg_worker_main(void *opaque)
{
    pg_worker *worker = opaque;
    worker->thread.worker = worker;
    worker->os_id = pg_os_thread_id();
    pg_note_own_stack(&worker->own_base, &worker->own_size);
    pg_task_init(&worker->thread.stand_in, NULL);
    worker->thread.stand_in.kind = PG_KIND_THREAD;
    pg_store_relaxed(&worker->thread.stand_in.state, PG_TASK_ACTIVE);
    worker->searching = true;
    worker->give_turn = worker->open = false;
    worker->open_every = PG_OPEN_EVERY;
    worker->opened_at = pg_now();
    worker->unread_most = 1;
    worker->pinned_task = NULL;
    worker->closing = false;
    pg_tls_set(&worker->thread);
    void *alternate = pg_fault_stack_take();
#ifdef PG_TSAN
    worker->sanitizer = __tsan_get_current_fiber();
#endif
    do {
        for (pg_task *task; (task = find(worker)) != NULL;) pg_dispatch(worker, task);
    } while (rest(worker));
    pg_fault_stack_drop(alternate);
    pg_tls_set(NULL);
}
