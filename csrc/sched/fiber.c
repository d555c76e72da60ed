/* Fibers: making, pooling and giving them back.
 *
 *      highest address of the stack
 *      | pg_fiber | extra area of the layer above | C stack, growing down ...
 *
 * All of it shares the stack's top page, so that a parked task of ordinary depth costs one page. The free lists are
 * last in, first out: the next task gets the warmest stack. What the list has not needed for a while the monitor takes apart.
 */
#include "sched/internal.h"

#include <string.h>

enum {
    KEEP = 64,  /* free fibers that are never given back */
    COLORS = 8, /* lines of the top page given up for it: a typical parked task must still fit in */
};

void pg_fiber_main(void *opaque)
{
    pg_worker *worker = opaque;
    pg_fiber *fiber = worker->entering;
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
    pg_store_relaxed(&sched->fiber_count, pg_load_relaxed(&sched->fiber_count) + 1);
    pg_lock_release(&sched->fiber_lock);
    return fiber;
}

static void set_free_count(pg_sched *sched, size_t count)
{
    pg_store_relaxed(&sched->free_count, count);
    if (count < pg_load_relaxed(&sched->free_low)) pg_store_relaxed(&sched->free_low, count);
}

static pg_fiber *pop_free(pg_sched *sched, bool large)
{
    pg_fiber *fiber = sched->free_fibers[large];
    if (fiber == NULL) return NULL;
    sched->free_fibers[large] = fiber->next;
    set_free_count(sched, pg_load_relaxed(&sched->free_count) - 1);
    return fiber;
}

static void push_free(pg_sched *sched, pg_fiber *fiber)
{
    pg_fiber **list = &sched->free_fibers[fiber->stack.large];
    fiber->next = *list;
    *list = fiber;
    set_free_count(sched, pg_load_relaxed(&sched->free_count) + 1);
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
        pg_store_relaxed(&sched->fiber_count, pg_load_relaxed(&sched->fiber_count) - 1);
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

/* Runs as a task, so that it is inside the interpreter, and stops where tasks stop. Takes apart half of what the free
 * list has held without using it since the last time. */
static void scavenge_run(pg_task *task)
{
    enum { BATCH = 128 };
    pg_sched *sched = &pg_the_sched;
    size_t unused = pg_load_relaxed(&sched->free_low), wanted = unused > KEEP ? (unused - KEEP + 1) / 2 : 0;
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
    pg_store_relaxed(&sched->free_low, pg_load_relaxed(&sched->free_count));
    pg_sched_detach_task(task->fiber);
    pg_store_release(&sched->scavenging, false);
}

/* More than that were not needed since the last look. */
static bool has_surplus(void)
{
    pg_sched *sched = &pg_the_sched;
    return pg_load_relaxed(&sched->free_low) > KEEP && pg_load_relaxed(&sched->free_count) > KEEP;
}

bool pg_fibers_may_fade(void)
{
    pg_sched *sched = &pg_the_sched;
    return pg_load_relaxed(&sched->free_count) > KEEP &&
           (sched->hooks.fiber_fini_possible == NULL || sched->hooks.fiber_fini_possible());
}

void pg_fibers_scavenge(void)
{
    pg_sched *sched = &pg_the_sched;
    if (!has_surplus()) {
        pg_store_relaxed(&sched->free_low, pg_load_relaxed(&sched->free_count));
        return;
    }
    if (!pg_fibers_may_fade()) return;
    if (pg_exchange_seqcst(&sched->scavenging, true)) return; /* the last one is not through */
    if (pg_load_seqcst(&pg_sched_is_seeded)) { /* it would come between tasks whose order the seed says */
        pg_store_release(&sched->scavenging, false);
        return;
    }
    pg_task_init(&sched->scavenger, scavenge_run);
    pg_sched_spawn(&sched->scavenger); /* counted like any other, for it will be counted when it ends */
}
