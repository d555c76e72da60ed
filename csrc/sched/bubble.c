/* Who of a bubble's tasks runs, and its clock: see bubble.h. */
#include "sched/bubble.h"

atomic_int pg_bubble_count;

/* ---- the clock ---- */

pg_nanos pg_sched_now(void)
{
    pg_bubble *bubble = pg_bubble_current();
    return PG_LIKELY(bubble == NULL) ? pg_now() : pg_load_relaxed(&bubble->now);
}

pg_nanos pg_sched_deadline_after(pg_nanos timeout)
{
    pg_nanos deadline;
    pg_bubble *bubble = pg_bubble_current();
    if (PG_LIKELY(bubble == NULL)) return pg_deadline_after(timeout);
    if (timeout <= 0) return PG_NEVER_WAIT;
    return __builtin_add_overflow(pg_load_relaxed(&bubble->now), timeout, &deadline) ? PG_FOREVER : deadline;
}

/* ---- who runs ---- */

/* V1 */
static void stirred(pg_task *task)
{
    pg_fiber *fiber = task->fiber;
    pg_bubble *bubble = fiber->bubble;
    if (bubble == NULL) return;
    pg_lock_acquire(&bubble->lock);
    if (fiber->idle) {
        fiber->idle = false;
        bubble->running++;
    }
    pg_lock_release(&bubble->lock);
}

/* Under the lock: one less runs. True: the caller is to call the steward. */
static bool was_last(pg_bubble *bubble)
{
    pg_check(bubble->running > 0);
    if (--bubble->running > 0 || bubble->attended) return false;
    bubble->attended = true;
    return true;
}

void pg_bubble_init(pg_bubble *bubble, void (*at_rest)(pg_bubble *bubble))
{
    static atomic_uint last_id;
    pg_task_stirred = stirred;
    *bubble = (pg_bubble){.at_rest = at_rest};
    do {
        bubble->id = pg_add_relaxed(&last_id, 1) + 1;
    } while (bubble->id == 0);
    pg_lock_init(&bubble->lock);
    pg_timers_init(&bubble->timers);
    pg_add_seqcst(&pg_bubble_count, 1);
}

void pg_bubble_free(pg_bubble *bubble)
{
    pg_timers_free(&bubble->timers);
    pg_add_seqcst(&pg_bubble_count, -1);
}

void pg_bubble_adopt(pg_bubble *bubble, pg_task *task)
{
    task->kind = PG_KIND_BUBBLED;
    pg_lock_acquire(&bubble->lock);
    bubble->total++;
    bubble->running++;
    pg_lock_release(&bubble->lock);
}

void pg_bubble_enter(pg_bubble *bubble)
{
    pg_fiber *fiber = pg_sched_fiber();
    fiber->bubble = bubble;
    fiber->birthplace = bubble->id;
    fiber->durable = fiber->idle = false;
}

void pg_bubble_leave(void)
{
    pg_fiber *fiber = pg_sched_fiber();
    pg_bubble *bubble = fiber->bubble;
    fiber->bubble = NULL;
    fiber->birthplace = 0;
    fiber->task->kind = PG_KIND_FIBER; /* what is left of it is not the bubble's */
    pg_lock_acquire(&bubble->lock);
    bubble->total--;
    if (bubble->root == fiber->task) bubble->root = NULL;
    bool last = was_last(bubble);
    pg_lock_release(&bubble->lock);
    if (last) bubble->at_rest(bubble);
}

void pg_bubble_rest(pg_fiber *fiber)
{
    pg_bubble *bubble = fiber->bubble;
    if (!fiber->durable) return;
    pg_lock_acquire(&bubble->lock); /* B2 */
    fiber->idle = true;
    bool last = was_last(bubble);
    pg_lock_release(&bubble->lock);
    if (pg_load_acquire(&fiber->task->state) == PG_TASK_NOTIFIED) stirred(fiber->task); /* B3 */
    if (last) bubble->at_rest(bubble);
}

/* ---- waiting for the others ---- */

int pg_bubble_settle(const void *note)
{
    pg_fiber *fiber = pg_sched_fiber();
    pg_bubble *bubble = fiber->bubble;
    pg_lock_acquire(&bubble->lock);
    bool first = !bubble->awaited;
    if (first) {
        bubble->awaited = true;
        bubble->waiter = fiber->task;
        pg_store_relaxed(&bubble->settled, PG_WAIT_OPEN);
    }
    pg_lock_release(&bubble->lock);
    if (!first) return PG_EINVAL;
    fiber->wait = note;
    fiber->durable = true;
    int outcome = pg_sched_park_until(fiber->task, &bubble->settled, PG_FOREVER);
    pg_lock_acquire(&bubble->lock);
    if (bubble->waiter == NULL) outcome = PG_OK; /* woken for this, too */
    bubble->awaited = false;
    bubble->waiter = NULL;
    pg_lock_release(&bubble->lock);
    return outcome;
}

/* ---- the steward ---- */

static void wake_waiter(pg_bubble *bubble, pg_task *waiter)
{
    pg_store_release(&bubble->settled, PG_WAIT_ENDING); /* pairs with the acquire of pg_sched_park_until */
    bool won = pg_task_wake(waiter);
    pg_store_release(&bubble->settled, PG_WAIT_ENDED);
    if (won) pg_sched_enqueue(waiter);
}

enum pg_bubble_state pg_bubble_look(pg_bubble *bubble)
{
    pg_lock_acquire(&bubble->lock);
    bool busy = bubble->running > 0;
    pg_task *waiter = busy ? NULL : bubble->waiter;
    if (busy) bubble->attended = false;
    if (waiter != NULL) bubble->waiter = NULL;
    pg_lock_release(&bubble->lock);
    if (waiter != NULL) wake_waiter(bubble, waiter);
    return busy ? PG_BUBBLE_BUSY : waiter != NULL ? PG_BUBBLE_WOKEN : PG_BUBBLE_IDLE;
}

bool pg_bubble_is_busy(pg_bubble *bubble)
{
    pg_lock_acquire(&bubble->lock);
    bool busy = bubble->running > 0;
    pg_lock_release(&bubble->lock);
    return busy;
}

bool pg_bubble_retire(pg_bubble *bubble)
{
    pg_lock_acquire(&bubble->lock);
    bool rests = bubble->running == 0;
    if (rests) bubble->attended = false;
    pg_lock_release(&bubble->lock);
    return rests;
}

void pg_bubble_after_fork(pg_fiber *survivor)
{
    pg_bubble *bubble = survivor != NULL ? survivor->bubble : NULL;
    if (bubble == NULL) return;
    pg_lock_init(&bubble->lock);
    pg_timers_forget(&bubble->timers);
    bubble->total = bubble->running = 1;
    bubble->attended = bubble->awaited = false;
    bubble->waiter = NULL;
    if (bubble->root != survivor->task) bubble->root = NULL;
}
