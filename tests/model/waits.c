/* Model: the wake-up protocol (objects/task.c, sched/park.c) and what waits with it: channels, select, semaphores,
 * mutexes, latches (sync/).
 *
 * A task is a thread of the explorer; the stack that it "leaves" is its own, and it goes on when a token for it has
 * been put, which is what to enqueue a task means here: twice is an error, never a deadlock. W2 is the scheduler's
 * own (pg_settle_previous). Ordinary threads wait with all of the real code, on futexes.
 */
#include "explore.h"

#include <stdlib.h>
#include <string.h>

#include "sched/bubble.h"
#include "sched/internal.h"
#include "sync/chan.h"
#include "sync/latch.h"
#include "sync/mutex.h"
#include "sync/semaphore.h"

/* ---- tasks and threads ---- */

typedef struct actor {
    pg_worker worker; /* first: pg_worker begins with the thread's record */
    pg_fiber fiber;
    pg_task task;
    bool is_thread;
} actor;

enum { SOON = 2000, NOW_OR_LATER = 3000 };

static actor actors[MC_THREADS];

static pg_task *self_task(void)
{
    actor *self = &actors[mc_self()];
    return self->is_thread ? &self->worker.thread.stand_in : &self->task;
}

/* What sched.c and thread.c call these; there they use the worker and its queues. */
pg_task *pg_sched_self(void) { return self_task(); }

void pg_sched_enqueue(pg_task *task)
{
    if (task->kind == PG_KIND_THREAD) {
        pg_task_let_go(task);
        pg_futex_wake(&task->state, 1);
    } else {
        MC_CHECK(task->fiber->sp != NULL); /* whoever resumes it learns from us where it left off */
        mc_token_put(task);
    }
}
void pg_sched_enqueue_last(pg_task *task) { pg_sched_enqueue(task); }

uint64_t pg_sched_random(void) { return mc_choose(2); }

void pg_switch_away(pg_worker *worker, pg_fiber *fiber, enum worker_post post)
{
    pg_task *task = fiber->task;
    if (post == POST_YIELD) return;
    worker->previous = fiber;
    worker->post = post;
    fiber->sp = &fiber->sp; /* as a switch does */
    pg_settle_previous(worker);
    pg_task *again = pg_runq_pop(&worker->queue); /* it was woken while it left */
    MC_CHECK(again == NULL || again == task);
    if (again == NULL) mc_token_take(task);
    fiber->sp = NULL;
}

/* ---- the rest of the scheduler, which is not there ---- */

bool pg_work_visible(void) { return false; }
bool pg_threads_lacking(void) { return false; }
ABSENT_VOID(pg_threads_retry, (void))
ABSENT_VOID(pg_wake_one, (void))
ABSENT_VOID(pg_worker_notify, (pg_worker *worker))
ABSENT_VOID(pg_worker_make_way, (pg_worker *worker))
ABSENT(bool, pg_worker_give_turn_in_place, (pg_worker *worker), false)
ABSENT(size_t, pg_worker_flush, (pg_worker *worker), 0)
ABSENT(pg_fiber *, pg_fiber_obtain, (size_t size), NULL)
ABSENT_VOID(pg_fiber_release, (pg_fiber *fiber))
ABSENT_VOID(pg_fiber_lacking, (pg_task *task, bool none_free))
ABSENT_VOID(pg_bubble_rest, (pg_fiber *fiber))
ABSENT(bool, pg_tasks_rest, (pg_rest *rest), false)
ABSENT(bool, pg_nobody_wakes_main, (void), false)
ABSENT(bool, pg_sched_resume, (void), false)
ABSENT(bool, pg_sched_stop, (pg_nanos patience), false)
void pg_sched_set_scavenge_interval(pg_nanos interval) { pg_store_relaxed(&pg_the_sched.scavenge_interval, interval); }
pg_nanos pg_sched_now(void) { return pg_now(); } /* nobody is in a bubble */
ABSENT_VOID(pg_fault_stack_drop, (void *stack))
atomic_int pg_bubble_count;

/* ---- set-up ---- */

static bool cancelled; /* set before the alarm */
static bool cancels(pg_task *self) { return self != NULL && cancelled; }

static void setup(void)
{
    static const pg_hooks hooks = {.is_cancelled = cancels};
    memset(&pg_the_sched, 0, sizeof pg_the_sched);
    memset(actors, 0, sizeof actors);
    cancelled = false;
    MC_CHECK(pg_sched_init(&hooks, 1, true) == PG_OK);
    pg_the_sched.spinning = false;
    pg_store_relaxed(&pg_the_sched.permits_free, 0); /* all are in use: nobody to wake */
    for (int i = 0; i < MC_THREADS; i++) {
        actor *one = &actors[i];
        pg_runq_init(&one->worker.queue);
        pg_inject_init(&one->worker.inbox);
        pg_list_init(&one->worker.link);
        pg_task_init(&one->task, NULL);
        pg_store_relaxed(&one->task.state, PG_TASK_ACTIVE);
        pg_task_init(&one->worker.thread.stand_in, NULL);
        one->worker.thread.stand_in.kind = PG_KIND_THREAD;
        pg_store_relaxed(&one->worker.thread.stand_in.state, PG_TASK_ACTIVE);
        one->task.fiber = &one->fiber;
        one->fiber.task = &one->task;
        one->fiber.worker = &one->worker;
    }
}

static void be(const char *name)
{
    mc_name(name);
    *mc_slot() = &actors[mc_self()].worker.thread;
}
static void be_thread(const char *name)
{
    be(name);
    actors[mc_self()].is_thread = true;
}

/* A call whose frames nobody may touch once it has returned. */
#define CALL(result, call)                                                                                            \
    do {                                                                                                              \
        mc_frame_begin();                                                                                             \
        (result) = (call);                                                                                            \
        mc_frame_end();                                                                                               \
    } while (0)

/* Whoever looks at timers: once, when the deadlines have passed. */
static void clock_passes(void)
{
    pg_task *ready[4];
    be("clock");
    size_t count = pg_timers_expire(&pg_the_sched.timers, NOW_OR_LATER, ready, 4);
    for (size_t i = 0; i < count; i++) pg_sched_enqueue_last(ready[i]);
}

/* Somebody started his timer after the clock had passed. The executions in which he did so before tell the rest. */
static bool is_clock_early(void)
{
    if (mc_all_ended()) return false;
    MC_CHECK(pg_the_sched.timers.count > 0);
    return true;
}

/* What is left at the end: timers none, waiters none. */
static void check_clean(void)
{
    MC_CHECK(pg_the_sched.timers.count == 0);
    for (int i = 0; i < MC_THREADS; i++) {
        unsigned task = pg_load_relaxed(&actors[i].task.state);
        unsigned thread = pg_load_relaxed(&actors[i].worker.thread.stand_in.state);
        MC_CHECK(task == PG_TASK_ACTIVE || task == PG_TASK_NOTIFIED);
        MC_CHECK(thread == PG_TASK_ACTIVE || thread == PG_TASK_NOTIFIED);
        MC_CHECK(actors[i].fiber.party == NULL && actors[i].worker.thread.party == NULL);
    }
}

/* ---- park and wake alone ---- */

static atomic_uchar wait_done;
static int outcome_of[MC_THREADS];
static uintptr_t message;

static void setup_park(void)
{
    setup();
    pg_store_relaxed(&wait_done, PG_WAIT_OPEN);
    memset(outcome_of, -1, sizeof outcome_of);
    message = 0;
}

static void park_until_done(pg_nanos deadline)
{
    int outcome = pg_sched_park_until(self_task(), &wait_done, deadline);
    outcome_of[0] = outcome;
    if (outcome == PG_OK) MC_CHECK(message == 42);
}
static void parker(void) { be("parker"), park_until_done(PG_FOREVER); }
static void timed_parker(void) { be("parker"), park_until_done(SOON); }
static void thread_parker(void) { be_thread("parker"), park_until_done(PG_FOREVER); }
/* The thread ends, and its stand-in goes: the waker's last touch has been. */
static void ending_thread_parker(void)
{
    thread_parker();
    uintptr_t state = (uintptr_t)&actors[0].worker.thread.stand_in.state;
    mc_access_ends(state, state + sizeof(atomic_uint));
}
static void timed_thread_parker(void) { be_thread("parker"), park_until_done(SOON); }
static void shielded_parker(void)
{
    be("parker");
    outcome_of[0] = pg_sched_park_shielded(self_task(), &wait_done);
    MC_CHECK(outcome_of[0] == PG_OK && message == 42);
}

/* As pg_waiter_finish does; the parker is thread 0. */
static void finish(pg_task *task)
{
    message = 42;
    pg_store_release(&wait_done, PG_WAIT_ENDING);
    bool won = pg_task_wake(task);
    pg_store_release(&wait_done, PG_WAIT_ENDED);
    if (won) pg_sched_enqueue(task);
}
static void waker(void) { be("waker"), finish(&actors[0].task); }
static void waker_of_thread(void) { be("waker"), finish(&actors[0].worker.thread.stand_in); }
static void stale_wake(pg_task *task)
{
    if (pg_task_wake(task)) pg_sched_enqueue(task);
}
static void stale_waker(void) { be("stale"), stale_wake(&actors[0].task); }
static void stale_waker_of_thread(void) { be("stale"), stale_wake(&actors[0].worker.thread.stand_in); }

static void canceller(void)
{
    be("canceller");
    pg_task *task = &actors[0].task;
    cancelled = true;
    pg_store_release(&task->alarm, 1); /* as the layer above does */
    stale_wake(task);
}

static void check_woken(void)
{
    MC_CHECK(outcome_of[0] == PG_OK);
    check_clean();
}
static void check_woken_or(int other)
{
    if (is_clock_early()) return;
    MC_CHECK(outcome_of[0] == PG_OK || outcome_of[0] == other);
    check_clean();
}
static void check_timed(void) { check_woken_or(PG_ETIMEDOUT); }
static void check_cancelled(void) { check_woken_or(PG_ECANCELED); }

/* ---- channels ---- */

static pg_chan chan, other_chan;
static int received[8], sent[8];

static void setup_channels(uint32_t capacity)
{
    setup();
    memset(outcome_of, -1, sizeof outcome_of);
    memset(received, 0, sizeof received);
    memset(sent, 0, sizeof sent);
    MC_CHECK(pg_chan_init(&chan, capacity) == PG_OK && pg_chan_init(&other_chan, 0) == PG_OK);
}
static void setup_unbuffered(void) { setup_channels(0); }
static void setup_buffered(void) { setup_channels(1); }

static void note_sent(uintptr_t value, int outcome)
{
    outcome_of[mc_self()] = outcome;
    if (outcome == PG_OK) sent[value] = 1;
}
static void note_received(uintptr_t value, int outcome)
{
    outcome_of[mc_self()] = outcome;
    if (outcome != PG_OK) return;
    MC_CHECK(value > 0 && value < 8);
    received[value]++;
}

static void send_on(pg_chan *to, uintptr_t value, pg_nanos deadline)
{
    int outcome;
    CALL(outcome, pg_chan_send(to, value, deadline));
    note_sent(value, outcome);
}
static void receive_on(pg_chan *from, pg_nanos deadline)
{
    uintptr_t value = 0;
    int outcome;
    CALL(outcome, pg_chan_recv(from, &value, deadline));
    note_received(value, outcome);
}

static void sender_1(void) { be("sender 1"), send_on(&chan, 1, PG_FOREVER); }
static void sender_2(void) { be("sender 2"), send_on(&chan, 2, PG_FOREVER); }
static void other_sender_2(void) { be("sender 2"), send_on(&other_chan, 2, PG_FOREVER); }
static void thread_sender_1(void) { be_thread("sender 1"), send_on(&chan, 1, PG_FOREVER); }
static void timed_sender_1(void) { be("sender 1"), send_on(&chan, 1, SOON); }
static void trying_sender_2(void) { be("sender 2"), send_on(&chan, 2, PG_NEVER_WAIT); }
static void receiver(void) { be("receiver"), receive_on(&chan, PG_FOREVER); }
static void receiver_2(void) { be("receiver 2"), receive_on(&chan, PG_FOREVER); }
static void thread_receiver(void) { be_thread("receiver"), receive_on(&chan, PG_FOREVER); }
static void timed_receiver(void) { be("receiver"), receive_on(&chan, SOON); }
static void timed_thread_receiver(void) { be_thread("receiver"), receive_on(&chan, SOON); }
static void receiver_of_two(void)
{
    be("receiver");
    receive_on(&chan, PG_FOREVER);
    receive_on(&chan, PG_FOREVER);
}
static void closer(void)
{
    be("closer");
    MC_CHECK(pg_chan_close(&chan) == PG_OK);
}

static uintptr_t drain(pg_chan *one)
{
    uintptr_t value, mask = 0;
    while (one->count > 0 && pg_chan_recv(one, &value, PG_NEVER_WAIT) == PG_OK) {
        received[value]++;
        mask |= 1u << value;
    }
    return mask;
}

/* What was sent has been received once, or stands in the buffer; nobody is linked. */
static void check_channels(void)
{
    if (is_clock_early()) return;
    drain(&chan);
    drain(&other_chan);
    for (int i = 0; i < 8; i++) MC_CHECK(received[i] == sent[i]);
    pg_chan *both[] = {&chan, &other_chan};
    for (int i = 0; i < 2; i++) {
        MC_CHECK(pg_list_empty(&both[i]->receivers) && pg_list_empty(&both[i]->senders));
        MC_CHECK(both[i]->receiver_count == 0 && both[i]->sender_count == 0);
    }
    check_clean();
}
static void check_all_sent(void)
{
    check_channels();
    for (int i = 0; i < MC_THREADS; i++) MC_CHECK(outcome_of[i] == PG_OK || outcome_of[i] == -1);
}

/* ---- select ---- */

static void select_on(const pg_case *cases, uint32_t count, pg_nanos deadline)
{
    pg_selected selected;
    int outcome;
    CALL(outcome, pg_select(cases, count, deadline, &selected));
    outcome_of[mc_self()] = outcome;
    if (outcome != PG_OK) return;
    MC_CHECK(selected.index >= 0 && selected.index < (int32_t)count);
    const pg_case *one = &cases[selected.index];
    if (one->is_send) note_sent(one->value, selected.ok ? PG_OK : PG_ECLOSED);
    else note_received(selected.value, selected.ok ? PG_OK : PG_ECLOSED);
}
static const pg_case receive_either[] = {{&chan, false, 0}, {&other_chan, false, 0}};
static const pg_case send_or_receive[] = {{&chan, true, 1}, {&other_chan, false, 0}};
static const pg_case receive_or_send[] = {{&chan, false, 0}, {&other_chan, true, 2}};
static const pg_case both_ways[] = {{&chan, true, 1}, {&chan, false, 0}};
static void selecter(void) { be("select"), select_on(receive_either, 2, PG_FOREVER); }
static void selecter_of_two(void)
{
    be("select");
    select_on(receive_either, 2, PG_FOREVER);
    select_on(receive_either, 2, PG_FOREVER);
}
static void timed_selecter(void) { be("select"), select_on(receive_either, 2, SOON); }
static void thread_selecter(void) { be_thread("select"), select_on(receive_either, 2, PG_FOREVER); }
static void crossing_1(void) { be("select 1"), select_on(send_or_receive, 2, PG_FOREVER); }
static void crossing_2(void) { be("select 2"), select_on(receive_or_send, 2, PG_FOREVER); }
static void self_selecter(void) { be("select"), select_on(both_ways, 2, PG_FOREVER); }

/* ---- semaphores, mutexes, latches ---- */

static pg_semaphore semaphore;
static pg_mutex mutex;
static pg_latch latch;
static int held; /* plain: under the mutex, or the permit */

static void setup_sync(void)
{
    setup();
    memset(outcome_of, -1, sizeof outcome_of);
    pg_semaphore_init(&semaphore, 1);
    pg_mutex_init(&mutex);
    pg_latch_init(&latch, 2);
    held = 0;
}

static void use_mutex(pg_nanos deadline)
{
    const pg_patience patience = {.deadline = deadline};
    int outcome;
    CALL(outcome, pg_mutex_acquire(&mutex, &patience));
    outcome_of[mc_self()] = outcome;
    if (outcome != PG_OK) return;
    MC_CHECK(held++ == 0);
    held--;
    MC_CHECK(pg_mutex_release(&mutex) == PG_OK);
}
/* Somebody has waited for thread 0, who holds it, and given up. */
static void setup_contended(void)
{
    setup_sync();
    pg_store_relaxed(&mutex.state, PG_MUTEX_CONTENDED);
}
static void holder(void)
{
    be("holder");
    held = 0;
    MC_CHECK(pg_mutex_release(&mutex) == PG_OK);
}
static void locker_1(void) { be("locker 1"), use_mutex(PG_FOREVER); }
static void locker_2(void) { be("locker 2"), use_mutex(PG_FOREVER); }
static void thread_locker(void) { be_thread("locker 3"), use_mutex(PG_FOREVER); }
static void timed_locker(void) { be("locker 3"), use_mutex(SOON); }
static void check_mutex(void)
{
    if (is_clock_early()) return;
    MC_CHECK(!pg_mutex_is_held(&mutex) || pg_load_relaxed(&mutex.state) == PG_MUTEX_FREE);
    MC_CHECK(pg_list_empty(&mutex.waiters) && mutex.waiter_count == 0);
    for (int i = 0; i < MC_THREADS; i++) MC_CHECK(outcome_of[i] <= PG_OK && outcome_of[i] != PG_EINVAL);
    check_clean();
}

/* Two permits that one asks for, and gives up; one that another asks for behind it. */
static void use_permits(int64_t count, pg_nanos deadline)
{
    const pg_patience patience = {.deadline = deadline};
    int outcome;
    CALL(outcome, pg_semaphore_acquire(&semaphore, count, &patience));
    outcome_of[mc_self()] = outcome;
    if (outcome == PG_OK) MC_CHECK(pg_semaphore_release(&semaphore, count, 1) == PG_OK);
}
static void permit_1(void) { be("permit 1"), use_permits(1, PG_FOREVER); }
static void permit_2(void) { be("permit 2"), use_permits(1, PG_FOREVER); }
static void asks_for_two(void) { be("two"), use_permits(2, SOON); }
static void check_semaphore(void)
{
    if (is_clock_early()) return;
    MC_CHECK(semaphore.available == 1);
    MC_CHECK(pg_list_empty(&semaphore.waiters) && semaphore.waiter_count == 0);
    check_clean();
}

static void latch_waiter(void)
{
    be("waiter");
    CALL(outcome_of[0], pg_latch_wait(&latch, PG_FOREVER));
    MC_CHECK(outcome_of[0] == PG_OK && held >= 0);
}
static void timed_latch_waiter(void)
{
    be("waiter");
    CALL(outcome_of[0], pg_latch_wait(&latch, SOON));
}
static void count_down(void)
{
    be("worker");
    MC_CHECK(pg_latch_add(&latch, -1) == PG_OK);
}
static void count_down_both(void)
{
    be("worker");
    MC_CHECK(pg_latch_add(&latch, -2) == PG_OK);
}
static void latch_waiter_2(void)
{
    be_thread("waiter 2");
    CALL(outcome_of[1], pg_latch_wait(&latch, PG_FOREVER));
    MC_CHECK(outcome_of[1] == PG_OK);
}
static void check_latch(void)
{
    if (is_clock_early()) return;
    MC_CHECK(latch.count == 0 && latch.waiter_count == 0 && pg_list_empty(&latch.waiters));
    check_clean();
}

/* Refused, and nothing is left locked. */
static void misuser(void)
{
    be("misuser");
    MC_CHECK(pg_mutex_release(&mutex) == PG_EINVAL);
    MC_CHECK(pg_semaphore_release(&semaphore, 1, 1) == PG_EINVAL);
    MC_CHECK(pg_latch_add(&latch, -3) == PG_EINVAL);
    MC_CHECK(pg_chan_send(&chan, 1, PG_NEVER_WAIT) == PG_EAGAIN);
    MC_CHECK(pg_latch_wait(&latch, PG_NEVER_WAIT) == PG_EAGAIN);
    MC_CHECK(pg_chan_close(&chan) == PG_OK && pg_chan_close(&chan) == PG_ECLOSED);
}
static void setup_misuse(void)
{
    setup_sync();
    MC_CHECK(pg_chan_init(&chan, 0) == PG_OK);
}

const mc_scenario mc_scenarios[] = {
    {"park", setup_park, {parker, waker}, check_woken},
    {"park_and_stale_wake", setup_park, {parker, waker, stale_waker}, check_woken},
    {"park_until_deadline", setup_park, {timed_parker, waker, clock_passes}, check_timed, .rests = true},
    {"park_until_deadline_and_stale_wake", setup_park, {timed_parker, waker, stale_waker, clock_passes},
     check_timed, .rests = true, .stale = 1},
    {"cancel", setup_park, {parker, canceller}, check_cancelled},
    {"park_and_cancel", setup_park, {parker, waker, canceller}, check_cancelled},
    {"park_shielded_and_cancel", setup_park, {shielded_parker, waker, canceller}, check_woken},
    {"thread_park", setup_park, {thread_parker, waker_of_thread}, check_woken},
    {"thread_park_and_end", setup_park, {ending_thread_parker, waker_of_thread}, check_woken},
    {"thread_park_and_stale_wake", setup_park, {thread_parker, waker_of_thread, stale_waker_of_thread},
     check_woken, .stale = 1},
    {"thread_park_until_deadline", setup_park, {timed_thread_parker, waker_of_thread}, check_timed},
    {"rendezvous", setup_unbuffered, {sender_1, receiver}, check_all_sent},
    {"rendezvous_of_threads", setup_unbuffered, {thread_sender_1, thread_receiver}, check_all_sent},
    {"two_senders_one_receiver", setup_unbuffered, {sender_1, sender_2, receiver_of_two}, check_all_sent},
    {"buffer_of_one", setup_buffered, {sender_1, sender_2, receiver_of_two}, check_all_sent},
    {"close_against_receive", setup_unbuffered, {receiver, closer, receiver_2}, check_channels},
    {"close_against_send_and_receive", setup_unbuffered, {sender_1, receiver, closer}, check_channels},
    {"close_against_buffered_send", setup_buffered, {sender_1, sender_2, closer}, check_channels},
    {"receive_until_deadline", setup_unbuffered, {timed_receiver, trying_sender_2, clock_passes},
     check_channels, .rests = true},
    {"send_until_deadline", setup_unbuffered, {timed_sender_1, clock_passes, receiver, closer},
     check_channels, .rests = true, .stale = 1},
    {"thread_receive_until_deadline", setup_unbuffered, {timed_thread_receiver, trying_sender_2}, check_channels},
    {"select", setup_unbuffered, {selecter_of_two, sender_1, other_sender_2}, check_all_sent},
    {"select_of_thread", setup_unbuffered, {thread_selecter, thread_sender_1}, check_all_sent},
    {"select_against_close", setup_unbuffered, {selecter, trying_sender_2, closer}, check_channels},
    {"select_until_deadline", setup_unbuffered, {timed_selecter, closer, clock_passes}, check_channels, .rests = true},
    {"crossing_selects", setup_unbuffered, {crossing_1, crossing_2}, check_all_sent},
    {"select_with_itself", setup_unbuffered, {self_selecter, self_selecter}, check_all_sent},
    {"mutex", setup_sync, {locker_1, locker_2}, check_mutex},
    {"mutex_after_a_quitter", setup_contended, {holder, locker_2}, check_mutex},
    {"mutex_of_three", setup_sync, {locker_1, locker_2, thread_locker}, check_mutex, .stale = 1},
    {"mutex_until_deadline", setup_sync, {locker_1, timed_locker, clock_passes}, check_mutex, .rests = true},
    {"semaphore", setup_sync, {permit_1, permit_2}, check_semaphore},
    {"semaphore_front_gives_up", setup_sync, {permit_1, asks_for_two, permit_2, clock_passes},
     check_semaphore, .rests = true, .stale = 1},
    {"misuse", setup_misuse, {misuser}, check_clean},
    {"latch", setup_sync, {latch_waiter, count_down, count_down}, check_latch},
    {"latch_of_two_waiters", setup_sync, {latch_waiter, latch_waiter_2, count_down_both}, check_latch, .stale = 1},
    {"latch_until_deadline", setup_sync, {timed_latch_waiter, count_down_both, clock_passes},
     check_latch, .rests = true},
    {.name = NULL},
};
