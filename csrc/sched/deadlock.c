/* Whether anybody could still wake the main thread.
 *
 * Asked by the main thread itself, inside the interpreter, while it waits without a deadline: it wakes ten times a
 * second for signals anyway, so that workers pay nothing for it when they rest. Rejected: the last worker that lies down
 * tells the main thread. It would have to look at all others each time, on the path that every idle moment takes, and
 * would still not learn of a foreign thread that ends.
 *
 * The look is exact although it is no snapshot: it is made twice, and the threads of the process are counted in between. Nobody
 * has acted meanwhile if both found everybody at rest, and
 *      - no worker has got up: those seen at rest under sched.lock can do so only under sched.lock, and it is counted (risings);
 *      - no thread that was parked without a deadline has been woken, or it would be parked no more, or again (thread_parks);
 *      - the monitor has moved nothing: monitor_round is even, and has not moved.
 * Then there was nobody else at the moment of the count, and who rests wakes nobody. The wait's own outcome is looked at after.
 * One look, with the count after it, would not do: a thread that ends just before the count may have woken one of those that
 * were seen parked.
 *
 * A thread that we know nothing of may call into the interpreter at any time, whether Python made it or a C library. So
 * all threads of the process are counted, not only those that the interpreter knows. Where they cannot be, nobody is
 * stuck: a false alarm is worse than none.
 */
#include "sched/internal.h"

void pg_sched_outside_add(int change)
{
    int before = pg_add_seqcst(&pg_the_sched.outside, change);
    pg_check(before + change >= 0);
}

static bool is_at_rest(pg_worker *worker)
{
    if (!worker->alive) return true;
    if (worker->sleep != IDLE && worker->sleep != LOCKED_IDLE) return false;
    return pg_load_seqcst(&worker->inbox.count) == 0 && pg_runq_length(&worker->queue) == 0 &&
           pg_load_seqcst(&worker->run_next) == NULL;
}

/* Under sched.lock: no worker carries a task, none is on its way, and no task is in a queue. */
static bool workers_rest(void)
{
    pg_sched *sched = &pg_the_sched;
    int slots = pg_load_relaxed(&sched->table_length);
    for (int i = 0; i < slots; i++)
        if (!is_at_rest(pg_load_relaxed(&sched->table[i]))) return false;
    return pg_load_seqcst(&sched->inject.count) == 0 && pg_load_seqcst(&sched->no_stack.count) == 0;
}

static bool is_parked_for_ever(pg_thread *thread)
{
    /* The acquire pairs with the parking CAS: the flag was set before it. */
    return pg_load_acquire(&thread->stand_in.state) == PG_TASK_PARKED && pg_load_relaxed(&thread->for_ever);
}

/* Under sched.lock: how many OS threads can wake nobody, the calling main thread included. */
static int count_harmless(void)
{
    pg_sched *sched = &pg_the_sched;
    int count = 1 + pg_load_relaxed(&sched->thread_count) + pg_load_relaxed(&sched->monitor_started);
    for (pg_node *node = sched->threads.next; node != &sched->threads; node = node->next) {
        pg_thread *thread = pg_container_of(node, pg_thread, link);
        if (!thread->is_main) count += is_parked_for_ever(thread);
    }
    return count;
}

bool pg_tasks_rest(pg_rest *rest)
{
    pg_sched *sched = &pg_the_sched;
    if (pg_load_seqcst(&sched->outside) > 0 || pg_load_seqcst(&sched->timers.next_deadline) != PG_FOREVER) return false;
    pg_lock_acquire(&sched->lock);
    bool all = !pg_load_relaxed(&sched->stopping) && !pg_load_relaxed(&sched->short_of_threads) && workers_rest();
    if (all) *rest = (pg_rest){.harmless = count_harmless(), .risings = sched->risings};
    pg_lock_release(&sched->lock);
    return all;
}

bool pg_nobody_wakes_main(void)
{
    pg_sched *sched = &pg_the_sched;
    unsigned round = pg_load_seqcst(&sched->monitor_round), parks = pg_load_seqcst(&sched->thread_parks);
    pg_rest before, after;
    if (round % 2 != 0 || !pg_tasks_rest(&before) || pg_os_thread_count() != before.harmless) return false;
    if (!pg_tasks_rest(&after) || after.harmless != before.harmless || after.risings != before.risings) return false;
    return pg_load_seqcst(&sched->monitor_round) == round && pg_load_seqcst(&sched->thread_parks) == parks;
}
