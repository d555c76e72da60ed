/* Fibers: making, pooling and giving them back.
 *
 *      highest address of the stack
 *      | pg_fiber | extra area of the layer above | C stack, growing down ...
 *
 * All of it shares the stack's top page, so that a parked task of ordinary depth costs one page. The free lists are
 * last in, first out: the next task gets the warmest stack.
 *
 * Once a second, while anything happens, the monitor spawns the scavenger, a task that gives memory back:
 *      - fibers that the free lists have not needed since the last time are taken apart, half of them each time;
 *      - stacks of others in the free lists are trimmed to the page that is in use;
 *      - so are stacks of tasks that have been parked for a second: they may have been deep before;
 *      - the layer above gives back what it has kept for the next tasks and did not need (hooks.give_back).
 * A parked task is claimed for that as a waker would claim it (objects/task.h): PARKED -> ACTIVE keeps everybody from
 * resuming it; who wakes it meanwhile makes that NOTIFIED, and the scavenger enqueues it, as the parker would have
 * done. Its record cannot go away, for tasks end inside the interpreter, where the scavenger is (hooks.serial; without
 * that parked tasks are left alone). Nothing is added to a park or a switch.
 */
#include "sched/internal.h"

#include <string.h>

enum {
    MANY = 256, /* of which a switch touches some 2.5 KiB each: half of a usual second-level cache */
    KEEP = 64,  /* free fibers that are never given back */
    COLORS = 8, /* lines of the top page given up for it: a typical parked task must still fit in */
};
#define TRIM_TIME ((pg_nanos)4000000) /* to look at parked tasks */

void pg_fibers_count(size_t count)
{
    pg_store_relaxed(&pg_the_sched.fiber_count, count);
    pg_store_relaxed(&pg_fibers_are_many, count > MANY);
}

void pg_fiber_main(void *opaque)
{
    pg_worker *worker = opaque;
    pg_fiber *fiber = worker->entering;
    pg_note_arrival(NULL);
    pg_arrive(worker, fiber);
    pg_fiber_loop(fiber->worker, fiber);
}

static pg_fiber *fiber_create(size_t stack_size)
{
    pg_sched *sched = &pg_the_sched;
    pg_stack stack;
    if (pg_stack_get(&stack, stack_size) != PG_OK) return NULL;
    /* Fibers start at different cache lines of their pages, or the hot lines of all of them would share few cache sets. */
    unsigned color = pg_add_relaxed(&sched->colors, 1) % COLORS;
    uintptr_t at = ((uintptr_t)stack.top - sizeof(pg_fiber)) & ~(uintptr_t)(PG_CACHE_LINE - 1);
    at -= color * PG_CACHE_LINE;
    pg_fiber *fiber = (pg_fiber *)at;
    memset(fiber, 0, sizeof *fiber);
    fiber->stack = stack;
    pg_task_init(&fiber->tail, NULL);
    pg_list_init(&fiber->all);
    if (sched->hooks.fiber_init != NULL && sched->hooks.fiber_init(fiber) != PG_OK) {
        pg_stack_put(&stack);
        return NULL;
    }
    at = (at - sched->hooks.fiber_extra) & ~(uintptr_t)15;
    fiber->sp = pg_switch_prepare((void *)at, pg_fiber_main);
#ifdef PG_TSAN
    fiber->sanitizer = __tsan_create_fiber(0);
#endif
    pg_lock_acquire(&sched->fiber_lock);
    pg_list_append(&sched->fibers, &fiber->all);
    pg_fibers_count(pg_load_relaxed(&sched->fiber_count) + 1);
    pg_lock_release(&sched->fiber_lock);
    return fiber;
}

static void set_free_count(pg_sched *sched, size_t count)
{
    pg_store_relaxed(&sched->free_count, count);
    if (count < pg_load_relaxed(&sched->free_low)) pg_store_relaxed(&sched->free_low, count);
}

static pg_fiber *pop_from(pg_sched *sched, pg_fiber **list)
{
    pg_fiber *fiber = *list;
    if (fiber == NULL) return NULL;
    *list = fiber->next;
    set_free_count(sched, pg_load_relaxed(&sched->free_count) - 1);
    return fiber;
}

static pg_fiber *pop_free(pg_sched *sched, bool large)
{
    pg_fiber *fiber = pop_from(sched, &sched->free_fibers[large]);
    return fiber != NULL ? fiber : pop_from(sched, &sched->trimmed_fibers[large]);
}

static void push_on(pg_sched *sched, pg_fiber **list, pg_fiber *fiber)
{
    fiber->next = *list;
    *list = fiber;
    set_free_count(sched, pg_load_relaxed(&sched->free_count) + 1);
}

static void push_free(pg_sched *sched, pg_fiber *fiber)
{
    push_on(sched, &sched->free_fibers[fiber->stack.large], fiber);
}

pg_fiber *pg_fiber_obtain(size_t stack_size)
{
    pg_sched *sched = &pg_the_sched;
    pg_fiber *fiber = NULL;
    if (pg_load_relaxed(&sched->free_count) == 0) {
        pg_store_relaxed(&sched->free_low, 0);
        return fiber_create(stack_size);
    }
    pg_lock_acquire(&sched->fiber_lock);
    fiber = pop_free(sched, true); /* large ones first: the fewer live tasks, the more room each has */
    if (fiber == NULL) fiber = pop_free(sched, false);
    if (fiber != NULL && pg_stack_size(&fiber->stack) < stack_size) { /* looking further is not worth it */
        push_free(sched, fiber);
        fiber = NULL;
    }
    pg_lock_release(&sched->fiber_lock);
    return fiber != NULL ? fiber : fiber_create(stack_size);
}

void pg_fiber_release(pg_fiber *fiber)
{
    pg_sched *sched = &pg_the_sched;
    pg_task *waiting;
    pg_lock_acquire(&sched->fiber_lock);
    push_free(sched, fiber);
    bool starved = pg_load_relaxed(&sched->no_stack.count) > 0; /* or the other comes after us, and sees the fiber */
    pg_lock_release(&sched->fiber_lock);
    if (PG_UNLIKELY(starved) && pg_inject_pop(&sched->no_stack, &waiting, 1) > 0)
        pg_inject_push(&sched->inject, waiting); /* the caller looks at the shared queue before it rests */
}

void pg_fiber_lacking(pg_task *task, bool none_free)
{
    pg_sched *sched = &pg_the_sched;
    pg_lock_acquire(&sched->fiber_lock);
    /* If free ones were too small, trying again at once would spin. */
    bool again = none_free && pg_load_relaxed(&sched->free_count) > 0;
    pg_inject_push(again ? &sched->inject : &sched->no_stack, task);
    pg_lock_release(&sched->fiber_lock);
}

/* Unlink up to `count` free fibers, small ones first. They stay linked through next. */
static pg_fiber *take_cold(pg_sched *sched, size_t count)
{
    pg_fiber *cold = NULL, *fiber;
    pg_lock_acquire(&sched->fiber_lock);
    while (count-- > 0) {
        if ((fiber = pop_free(sched, false)) == NULL && (fiber = pop_free(sched, true)) == NULL) break;
        pg_list_remove(&fiber->all);
        pg_fibers_count(pg_load_relaxed(&sched->fiber_count) - 1);
        fiber->next = cold;
        cold = fiber;
    }
    pg_lock_release(&sched->fiber_lock);
    return cold;
}

static void destroy(pg_fiber *fiber)
{
    if (pg_the_sched.hooks.fiber_fini != NULL) pg_the_sched.hooks.fiber_fini(fiber);
    pg_stack stack = fiber->stack; /* the record lies on the pages that go */
#ifdef PG_TSAN
    __tsan_destroy_fiber(fiber->sanitizer);
#endif
    pg_stack_put(&stack);
}

/* Half of what the free lists have held without using it since the last time. */
static void take_apart(pg_sched *sched, size_t unused)
{
    enum { BATCH = 128 };
    size_t wanted = unused > KEEP ? (unused - KEEP + 1) / 2 : 0;
    while (wanted > 0 && pg_load_relaxed(&sched->free_count) > KEEP && !pg_is_seeded()) {
        size_t batch = wanted < BATCH ? wanted : BATCH;
        wanted -= batch;
        pg_lock_acquire(&sched->look_lock);
        for (pg_fiber *next, *fiber = take_cold(sched, batch); fiber != NULL; fiber = next) {
            next = fiber->next;
            destroy(fiber);
        }
        pg_lock_release(&sched->look_lock);
        pg_sched_yield();
    }
}

/* ---- trimming ---- */

enum {
    RED_ZONE = 256,     /* below a saved stack pointer: what the ABI allows, and the portable switch keeps */
    CALLER_ROOM = 4096, /* below a segment's record: the rest of the frame it lies in, and of the call to the segment */
};

/* The fiber is suspended, and the caller's alone. Segments are left as deep as the calls on further ones were made. True:
 * there was something to give back. */
static bool trim(pg_fiber *fiber)
{
    char *in_use = (char *)fiber->sp - RED_ZONE;
    bool any = false;
    for (pg_segment *segment = fiber->segment; segment != NULL; segment = segment->outer) {
        any |= pg_stack_trim(&segment->stack, in_use);
        in_use = (char *)segment - CALLER_ROOM;
    }
    return pg_stack_trim(&fiber->stack, in_use) || any;
}

static bool trim_free(pg_sched *sched, bool large)
{
    pg_lock_acquire(&sched->fiber_lock);
    pg_fiber *fiber = pop_from(sched, &sched->free_fibers[large]);
    pg_lock_release(&sched->fiber_lock);
    if (fiber == NULL) return false;
    trim(fiber);
    pg_lock_acquire(&sched->fiber_lock);
    push_on(sched, &sched->trimmed_fibers[large], fiber);
    pg_lock_release(&sched->fiber_lock);
    return true;
}

/* So many free ones have not been needed since the last time. True: others are left. */
static bool trim_all_free(pg_sched *sched, size_t unused)
{
    enum { BATCH = 64 };
    while (unused > 0 && !pg_is_seeded() && (trim_free(sched, true) || trim_free(sched, false)))
        if (--unused % BATCH == 0) pg_sched_yield();
    pg_lock_acquire(&sched->fiber_lock);
    bool some = sched->free_fibers[0] != NULL || sched->free_fibers[1] != NULL;
    pg_lock_release(&sched->fiber_lock);
    return some;
}

enum trim_outcome { TRIM_FREE, TRIM_NOTHING, TRIM_LATER, TRIM_DEEP };

static enum trim_outcome trim_parked(pg_fiber *fiber, pg_nanos now)
{
    pg_task *task = fiber->task;
    unsigned seen = PG_TASK_PARKED;
    if (task == NULL) return TRIM_FREE;
    if (fiber->trimmed_park == fiber->park_count) return TRIM_NOTHING;
    if (pg_load_relaxed(&task->state) != PG_TASK_PARKED) return TRIM_NOTHING;
    if (now - fiber->parked_at < pg_load_relaxed(&pg_the_sched.scavenge_interval)) return TRIM_LATER;
    if (!pg_cas_acqrel(&task->state, &seen, PG_TASK_ACTIVE)) return TRIM_NOTHING; /* pairs with the parker's CAS */
    enum trim_outcome outcome = trim(fiber) ? TRIM_DEEP : TRIM_NOTHING;
    fiber->trimmed_park = fiber->park_count;
    seen = PG_TASK_ACTIVE;
    if (pg_cas_acqrel(&task->state, &seen, PG_TASK_PARKED)) return outcome; /* pairs with the next waker's */
    pg_check(pg_task_take_notification(task)); /* it was woken meanwhile */
    pg_sched_enqueue_last(task);
    return outcome;
}

/* The next in the list of all, which goes to its end. */
static pg_fiber *next_of_all(pg_sched *sched)
{
    pg_lock_acquire(&sched->fiber_lock);
    pg_node *node = pg_list_first(&sched->fibers); /* the scavenger's own is there */
    pg_list_remove(node);
    pg_list_append(&sched->fibers, node);
    pg_lock_release(&sched->fiber_lock);
    return pg_container_of(node, pg_fiber, all);
}

/* What every task does that has used a stack. The scavenger only ends, see below. */
static uint64_t count_parks_and_ends(void)
{
    uint64_t count = 0;
    int slots = pg_load_acquire(&pg_the_sched.table_length);
    for (int i = 0; i < slots; i++) {
        pg_worker *worker = pg_load_acquire(&pg_the_sched.table[i]);
        count += pg_load_relaxed(&worker->parks) + pg_load_relaxed(&worker->finished);
    }
    return count;
}

static size_t lesser(size_t one, size_t other) { return one < other ? one : other; }

static void begin_round(pg_sched *sched)
{
    enum { SAMPLE = 128, SAMPLES = 8 };
    uint64_t now = count_parks_and_ends();
    if (pg_load_relaxed(&sched->trimmed_until) != now) sched->trim_samples = SAMPLES;
    sched->trim_unseen = sched->hooks.serial ? pg_load_relaxed(&sched->fiber_count) : 0;
    sched->trim_rest = lesser(sched->trim_unseen, SAMPLE);
    if (sched->trim_unseen - lesser(sched->trim_unseen, pg_load_relaxed(&sched->free_count)) <= SAMPLE)
        sched->trim_samples = 0; /* it is no sample then */
    else if (sched->trim_samples > 0) sched->trim_samples--;
    pg_store_relaxed(&sched->trimmed_until, now);
    pg_store_relaxed(&sched->trim_later, sched->trim_samples > 0);
}

/* To look at each of a hundred thousand parked tasks costs 50 ms, and most have never been deep. So a round is a sample, the
 * next so many in the list of all, and goes on behind each deep one it finds, up to all of them; if none is found for some
 * rounds and no task has parked or ended since, none is looked for. A pass goes on where the last ran out of time. */
static void trim_all_parked(pg_sched *sched)
{
    enum { BATCH = 64, BEHIND_DEEP = 256 };
    pg_nanos start = pg_now();
    bool in_time = true;
    if (sched->trim_rest == 0) begin_round(sched);
    while (sched->trim_rest > 0 && in_time && !pg_is_seeded()) {
        enum trim_outcome outcome = trim_parked(next_of_all(sched), start);
        sched->trim_unseen--;
        if (outcome != TRIM_FREE) sched->trim_rest--;
        if (outcome >= TRIM_LATER) pg_store_relaxed(&sched->trim_later, true);
        if (outcome == TRIM_DEEP && sched->trim_rest < BEHIND_DEEP) sched->trim_rest = BEHIND_DEEP;
        sched->trim_rest = lesser(sched->trim_rest, sched->trim_unseen);
        if (sched->trim_unseen % BATCH != 0) continue;
        in_time = pg_now() - start < TRIM_TIME;
        pg_sched_yield();
    }
    pg_store_relaxed(&sched->trim_unfinished, sched->trim_rest > 0);
}

static bool may_fade(void)
{
    const pg_hooks *hooks = &pg_the_sched.hooks;
    return hooks->fiber_fini_possible == NULL || hooks->fiber_fini_possible();
}

/* Runs as a task, so that it is inside the interpreter, and stops where tasks stop. */
static void scavenge_run(pg_task *task)
{
    pg_sched *sched = &pg_the_sched;
    pg_fiber *fiber = task->fiber;
    size_t unused = pg_load_relaxed(&sched->free_low);
    if (may_fade()) take_apart(sched, unused);
    trim_all_parked(sched);
    if (trim_all_free(sched, unused)) pg_store_relaxed(&sched->trim_later, true);
    if (sched->hooks.give_back != NULL && sched->hooks.give_back()) pg_store_relaxed(&sched->trim_later, true);
    pg_add_relaxed(&sched->trimmed_until, 1); /* our own end, which will be counted */
    pg_stack_trim(&fiber->stack, (char *)__builtin_frame_address(0) - CALLER_ROOM); /* somebody's before us */
    pg_store_relaxed(&sched->free_low, pg_load_relaxed(&sched->free_count));
    pg_sched_detach_task(fiber);
    pg_store_release(&sched->scavenging, false);
}

void pg_sched_set_scavenge_interval(pg_nanos interval)
{
    pg_store_relaxed(&pg_the_sched.scavenge_interval, interval > 0 ? interval : PG_SCAVENGE_EVERY);
}

/* More than that were not needed since the last look. */
static bool has_surplus(void)
{
    pg_sched *sched = &pg_the_sched;
    return pg_load_relaxed(&sched->free_low) > KEEP && pg_load_relaxed(&sched->free_count) > KEEP;
}

bool pg_fibers_may_fade(void) { return pg_load_relaxed(&pg_the_sched.free_count) > KEEP && may_fade(); }

static bool may_shrink(pg_sched *sched)
{
    if (pg_load_relaxed(&sched->trim_later) || pg_load_relaxed(&sched->trim_unfinished)) return true;
    return count_parks_and_ends() != pg_load_relaxed(&sched->trimmed_until);
}

pg_nanos pg_fibers_patience(void)
{
    enum { QUICKER = 50 }; /* nobody is disturbed then */
    pg_sched *sched = &pg_the_sched;
    pg_nanos interval = pg_load_relaxed(&sched->scavenge_interval);
    if (pg_load_relaxed(&sched->trim_unfinished)) return interval / QUICKER;
    return pg_fibers_may_fade() || may_shrink(sched) ? interval : PG_FOREVER;
}

void pg_fibers_scavenge(void)
{
    pg_sched *sched = &pg_the_sched;
    if (!(has_surplus() && may_fade()) && !may_shrink(sched)) {
        pg_store_relaxed(&sched->free_low, pg_load_relaxed(&sched->free_count));
        return;
    }
    if (pg_exchange_seqcst(&sched->scavenging, true)) return; /* the last one is not through */
    if (pg_load_seqcst(&pg_sched_is_seeded)) { /* it would come between tasks whose order the seed says */
        pg_store_release(&sched->scavenging, false);
        return;
    }
    pg_task_init(&sched->scavenger, scavenge_run);
    pg_sched_spawn(&sched->scavenger); /* counted like any other, for it will be counted when it ends */
}
