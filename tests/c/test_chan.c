/* Channels, select and latches: order, conservation, closing, deadlines, one winner, threads beside tasks. */
#include "sync/chan.h"

#include <string.h>

#include "tasks.h"

static pg_chan *new_chan(uint32_t capacity)
{
    pg_chan *chan = malloc(sizeof *chan);
    CHECK(chan != NULL);
    CHECK_EQ(pg_chan_init(chan, capacity), PG_OK);
    return chan;
}

static void check_quiet(pg_chan *chan)
{
    CHECK_EQ(chan->receiver_count, 0);
    CHECK_EQ(chan->sender_count, 0);
    CHECK(pg_list_empty(&chan->receivers) && pg_list_empty(&chan->senders));
}

static void drop(pg_chan *chan)
{
    check_quiet(chan);
    pg_chan_free(chan);
    free(chan);
}

/* ---- without waiting ---- */

static void a_buffer_keeps_order_and_tells_when_it_is_full_or_empty(void)
{
    for (uint32_t capacity = 0; capacity < 5; capacity++) {
        pg_chan *chan = new_chan(capacity);
        uintptr_t value = 0, next = 1, expected = 1;
        for (int turn = 0; turn < 20; turn++) {
            for (uint32_t i = 0; i < capacity; i++) CHECK_EQ(pg_chan_send(chan, next++, PG_NEVER_WAIT), PG_OK);
            CHECK_EQ(pg_chan_send(chan, 0, PG_NEVER_WAIT), PG_EAGAIN);
            for (uint32_t i = turn % 2; i < capacity; i++) {
                CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_OK);
                CHECK_EQ(value, expected++);
            }
            if (turn % 2 == 0 || capacity == 0) CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_EAGAIN);
            for (; expected < next; expected++) CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_OK);
        }
        drop(chan);
    }
}

static void a_closed_channel_is_drained_then_says_so(void)
{
    pg_chan *chan = new_chan(3);
    uintptr_t value = 0;
    CHECK_EQ(pg_chan_send(chan, 7, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_chan_send(chan, 8, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_chan_close(chan), PG_OK);
    CHECK_EQ(pg_chan_close(chan), PG_ECLOSED);
    CHECK_EQ(pg_chan_send(chan, 9, PG_FOREVER), PG_ECLOSED);
    CHECK_EQ(pg_chan_send(chan, 9, PG_NEVER_WAIT), PG_ECLOSED);
    for (uintptr_t i = 7; i <= 8; i++) {
        CHECK_EQ(pg_chan_recv(chan, &value, PG_FOREVER), PG_OK);
        CHECK_EQ(value, i);
    }
    CHECK_EQ(pg_chan_recv(chan, &value, PG_FOREVER), PG_ECLOSED);
    CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_ECLOSED);
    drop(chan);
}

static void a_deadline_ends_a_wait_and_leaves_nothing_behind(void)
{
    pg_chan *chan = new_chan(1);
    uintptr_t value;
    pg_nanos until = pg_now() + PG_SECOND / 200;
    CHECK_EQ(pg_chan_recv(chan, &value, until), PG_ETIMEDOUT);
    CHECK(pg_now() >= until);
    CHECK_EQ(pg_chan_send(chan, 1, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_chan_send(chan, 2, pg_now() + PG_SECOND / 200), PG_ETIMEDOUT);
    check_quiet(chan);
    CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_OK);
    CHECK_EQ(value, 1);
    CHECK_EQ(pg_chan_recv(chan, &value, PG_NEVER_WAIT), PG_EAGAIN);
    drop(chan);
}

/* ---- conservation ---- */

enum { PRODUCERS = 6, CONSUMERS = 5 };

static struct {
    pg_chan *chans[3];
    int each;
    uint32_t capacity;
    bool impatient; /* operations with short deadlines, repeated */
    bool selecting;
    atomic_uchar *seen;
    atomic_int producing;
    pg_latch *produced;
} flow;

static uintptr_t value_of(uintptr_t producer, int index)
{
    return producer * (uintptr_t)flow.each + (uintptr_t)index + 1;
}

static pg_nanos some_deadline(uint64_t *random)
{
    if (!flow.impatient || check_below(random, 3) == 0) return PG_FOREVER;
    return check_below(random, 2) ? PG_NEVER_WAIT : pg_now() + (pg_nanos)check_below(random, 30000);
}

static bool refused(int outcome, pg_nanos deadline)
{
    CHECK(outcome == PG_OK || (outcome == PG_ETIMEDOUT && deadline != PG_FOREVER) ||
          (outcome == PG_EAGAIN && deadline == PG_NEVER_WAIT));
    if (outcome == PG_EAGAIN) pg_sched_yield();
    return outcome != PG_OK;
}

static void send_one(uintptr_t value, uint64_t *random)
{
    pg_nanos deadline;
    if (flow.selecting && check_below(random, 2)) {
        pg_case cases[3];
        pg_selected selected;
        for (int i = 0; i < 3; i++) cases[i] = (pg_case){flow.chans[i], true, value};
        while (deadline = some_deadline(random), refused(pg_select(cases, 3, deadline, &selected), deadline)) {}
        CHECK(selected.ok && selected.index >= 0 && selected.index < 3);
        return;
    }
    pg_chan *chan = flow.chans[flow.selecting ? check_below(random, 3) : 0];
    while (deadline = some_deadline(random), refused(pg_chan_send(chan, value, deadline), deadline)) {}
}

static void producer_body(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    for (int i = 0; i < flow.each; i++) send_one(value_of((uintptr_t)argument, i), &random);
    pg_latch *produced = flow.produced;
    count_down(produced);
}

/* False when all channels are closed and drained. */
static bool receive_one(uintptr_t *value, uint64_t *random, bool *open)
{
    pg_nanos deadline = some_deadline(random);
    if (!flow.selecting) {
        int outcome = pg_chan_recv(flow.chans[0], value, deadline);
        if (outcome == PG_ECLOSED) return open[0] = false;
        return !refused(outcome, deadline) || (*value = 0, true);
    }
    pg_case cases[3];
    pg_selected selected;
    for (int i = 0; i < 3; i++) cases[i] = (pg_case){open[i] ? flow.chans[i] : NULL, false, 0};
    int outcome = pg_select(cases, 3, deadline, &selected);
    *value = 0;
    if (refused(outcome, deadline)) return true;
    CHECK(open[selected.index]);
    if (selected.ok) *value = selected.value;
    else open[selected.index] = false;
    return open[0] || open[1] || open[2];
}

static void consumer_body(void *argument)
{
    uint64_t random = (uintptr_t)argument + 100;
    int last[PRODUCERS];
    bool open[3] = {true, true, true};
    uintptr_t value;
    memset(last, 0xff, sizeof last);
    while (receive_one(&value, &random, open)) {
        if (value == 0) continue;
        int producer = (int)((value - 1) / (uintptr_t)flow.each), index = (int)((value - 1) % (uintptr_t)flow.each);
        CHECK(producer >= 0 && producer < PRODUCERS);
        CHECK_EQ(pg_add_relaxed(&flow.seen[value - 1], 1), 0);
        CHECK(flow.selecting || index > last[producer]); /* one channel: each producer's values in order */
        last[producer] = index;
    }
}

static void *producer_thread(void *argument)
{
    producer_body(argument);
    return NULL;
}

static void *consumer_thread(void *argument)
{
    consumer_body(argument);
    return NULL;
}

/* Tasks and, where `threads`, every third party an ordinary thread that ends as soon as it is done. */
static void run_flow(uint32_t capacity, bool threads)
{
    pthread_t others[PRODUCERS + CONSUMERS];
    int other_count = 0;
    flow.capacity = capacity;
    flow.seen = calloc((size_t)(PRODUCERS * flow.each), sizeof *flow.seen);
    CHECK(flow.seen != NULL);
    for (int i = 0; i < 3; i++) flow.chans[i] = new_chan(capacity);
    pg_latch *consumed = new_latch(threads ? CONSUMERS - 2 : CONSUMERS);
    flow.produced = new_latch(PRODUCERS);
    for (uintptr_t i = 0; i < CONSUMERS; i++) {
        if (threads && i % 3 == 0) others[other_count++] = check_thread(consumer_thread, (void *)i);
        else go(consumed, consumer_body, (void *)i);
    }
    for (uintptr_t i = 0; i < PRODUCERS; i++) {
        if (threads && i % 3 == 0) others[other_count++] = check_thread(producer_thread, (void *)i);
        else go(NULL, producer_body, (void *)i);
    }
    finish(flow.produced);
    for (int i = 0; i < 3; i++) CHECK_EQ(pg_chan_close(flow.chans[i]), PG_OK);
    finish(consumed);
    for (int i = 0; i < other_count; i++) check_join(others[i]);
    for (int i = 0; i < PRODUCERS * flow.each; i++) CHECK_EQ(pg_load_relaxed(&flow.seen[i]), 1);
    for (int i = 0; i < 3; i++) drop(flow.chans[i]);
    free(flow.seen);
}

static void run_flows(int each, bool impatient, bool selecting, bool threads)
{
    const uint32_t capacities[] = {0, 1, 3, 64};
    flow.each = check_rounds(each);
    flow.impatient = impatient;
    flow.selecting = selecting;
    for (int i = 0; i < 4; i++) run_flow(capacities[i], threads);
}

static void every_value_arrives_once_and_in_order(void) { run_flows(2000, false, false, false); }
static void deadlines_lose_and_repeat_nothing(void) { run_flows(500, true, false, false); }
static void select_delivers_every_value_once(void) { run_flows(1000, false, true, false); }
static void select_under_deadlines_delivers_every_value_once(void) { run_flows(500, true, true, false); }
static void threads_and_tasks_share_channels(void) { run_flows(500, false, false, true); }
static void threads_and_tasks_select_under_deadlines(void) { run_flows(300, true, true, true); }

/* ---- rendezvous ---- */

static void echo_body(void *argument)
{
    pg_chan **pair = argument;
    uintptr_t value;
    while (pg_chan_recv(pair[0], &value, PG_FOREVER) == PG_OK)
        CHECK_EQ(pg_chan_send(pair[1], value + 1, PG_FOREVER), PG_OK);
}

static void ping_body(void *argument)
{
    pg_chan **pair = argument;
    for (uintptr_t i = 0, rounds = (uintptr_t)check_rounds(3000); i < rounds; i++) {
        uintptr_t value = 0;
        CHECK_EQ(pg_chan_send(pair[0], i, PG_FOREVER), PG_OK);
        CHECK_EQ(pg_chan_recv(pair[1], &value, PG_FOREVER), PG_OK);
        CHECK_EQ(value, i + 1);
    }
    CHECK_EQ(pg_chan_close(pair[0]), PG_OK);
}

static void pairs_play_ping_pong(void)
{
    enum { PAIRS = 8 };
    pg_chan *pairs[PAIRS][2];
    pg_latch *done = new_latch(2 * PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        pairs[i][0] = new_chan(0), pairs[i][1] = new_chan(0);
        go(done, echo_body, pairs[i]);
        go(done, ping_body, pairs[i]);
    }
    finish(done);
    for (int i = 0; i < PAIRS; i++) drop(pairs[i][0]), drop(pairs[i][1]);
}

/* The task of a wait that just ended goes away at once: whoever ended the wait must be done with it. */
static pg_chan *brief;

static void brief_receiver(void *expected)
{
    uintptr_t value = 0;
    CHECK_EQ(pg_chan_recv(brief, &value, PG_FOREVER), PG_OK);
    CHECK(expected == NULL || value == (uintptr_t)expected);
}

static void brief_sender(void *value) { CHECK_EQ(pg_chan_send(brief, (uintptr_t)value, PG_FOREVER), PG_OK); }

static void a_task_may_end_right_after_its_wait(void)
{
    int count = check_rounds(20000);
    pg_latch *done = new_latch(2 * count);
    brief = new_chan(0);
    for (int i = 0; i < count; i++) {
        go(done, i % 2 ? brief_receiver : brief_sender, NULL);
        go(done, i % 2 ? brief_sender : brief_receiver, NULL);
    }
    finish(done);
    drop(brief);
}

static void *brief_thread(void *unused)
{
    brief_receiver(NULL);
    return unused;
}

static void a_thread_may_end_right_after_its_wait(void)
{
    int rounds = check_rounds(1000);
    pg_latch *sent = new_latch(rounds);
    brief = new_chan(0);
    for (int i = 0; i < rounds; i++) {
        pthread_t thread = check_thread(brief_thread, NULL);
        go(sent, brief_sender, NULL);
        check_join(thread);
    }
    finish(sent);
    drop(brief);
}

/* ---- closing ---- */

static pg_chan *doomed;
static atomic_int closed_seen;

static void doomed_receiver(void *unused)
{
    uintptr_t value;
    (void)unused;
    CHECK_EQ(pg_chan_recv(doomed, &value, PG_FOREVER), PG_ECLOSED);
    pg_add_relaxed(&closed_seen, 1);
}

static void doomed_selecter(void *unused)
{
    pg_case cases[] = {{NULL, true, 1}, {doomed, false, 0}, {NULL, false, 0}};
    pg_selected selected = {.ok = true};
    (void)unused;
    CHECK_EQ(pg_select(cases, 3, PG_FOREVER, &selected), PG_OK);
    CHECK_EQ(selected.index, 1);
    CHECK(!selected.ok);
    pg_add_relaxed(&closed_seen, 1);
}

static void doomed_sender(void *unused)
{
    (void)unused;
    CHECK_EQ(pg_chan_send(doomed, 1, PG_FOREVER), PG_ECLOSED);
    pg_add_relaxed(&closed_seen, 1);
}

static void wait_for_waiters(pg_chan *chan, uint32_t count)
{
    for (uint32_t waiting = 0; waiting < count;) {
        pg_os_yield();
        pg_lock_acquire(&chan->lock);
        waiting = chan->receiver_count + chan->sender_count;
        pg_lock_release(&chan->lock);
    }
}

static void closing_wakes_every_waiter(void)
{
    pg_latch *done = new_latch(200);
    pg_store_relaxed(&closed_seen, 0);
    doomed = new_chan(0);
    for (int i = 0; i < 100; i++) go(done, doomed_receiver, NULL), go(done, doomed_selecter, NULL);
    wait_for_waiters(doomed, 200);
    CHECK_EQ(pg_chan_close(doomed), PG_OK);
    finish(done);
    drop(doomed);
    done = new_latch(100);
    doomed = new_chan(0);
    for (int i = 0; i < 100; i++) go(done, doomed_sender, NULL);
    wait_for_waiters(doomed, 100);
    CHECK_EQ(pg_chan_close(doomed), PG_OK);
    finish(done);
    drop(doomed);
    CHECK_EQ(pg_load_relaxed(&closed_seen), 300);
}

/* ---- select ---- */

static void select_without_an_able_case_says_so(void)
{
    pg_chan *chan = new_chan(1);
    pg_selected selected;
    pg_case cases[] = {{chan, false, 0}, {NULL, true, 0}, {chan, false, 0}};
    CHECK_EQ(pg_select(cases, 3, PG_NEVER_WAIT, &selected), PG_EAGAIN);
    CHECK_EQ(pg_select(cases, 0, PG_NEVER_WAIT, &selected), PG_EAGAIN);
    CHECK_EQ(pg_select(cases, 3, pg_now() + 1000000, &selected), PG_ETIMEDOUT);
    CHECK_EQ(pg_select(cases, 0, pg_now() + 1000000, &selected), PG_ETIMEDOUT);
    check_quiet(chan);
    CHECK_EQ(pg_chan_send(chan, 5, PG_NEVER_WAIT), PG_OK);
    CHECK_EQ(pg_select(cases, 3, PG_FOREVER, &selected), PG_OK);
    CHECK(selected.ok && selected.value == 5 && selected.index != 1);
    drop(chan);
}

static void select_does_not_meet_itself(void)
{
    pg_chan *chan = new_chan(0);
    pg_selected selected;
    pg_case cases[] = {{chan, true, 9}, {chan, false, 0}};
    CHECK_EQ(pg_select(cases, 2, PG_NEVER_WAIT, &selected), PG_EAGAIN);
    CHECK_EQ(pg_select(cases, 2, pg_now() + PG_SECOND / 500, &selected), PG_ETIMEDOUT);
    drop(chan);
}

static atomic_int sent_here, received_here;
static pg_chan *meeting;

static void both_ways_body(void *argument)
{
    for (int i = 0, rounds = *(int *)argument; i < rounds; i++) {
        pg_case cases[] = {{meeting, true, 9}, {meeting, false, 0}};
        pg_selected selected;
        CHECK_EQ(pg_select(cases, 2, PG_FOREVER, &selected), PG_OK);
        CHECK(selected.ok);
        CHECK_EQ(selected.value, selected.index == 1 ? 9 : 0);
        pg_add_relaxed(selected.index == 0 ? &sent_here : &received_here, 1);
    }
}

static void selects_meet_each_other(void)
{
    int rounds = check_rounds(3000);
    pg_latch *done = new_latch(2);
    meeting = new_chan(0);
    pg_store_relaxed(&sent_here, 0), pg_store_relaxed(&received_here, 0);
    for (int i = 0; i < 2; i++) go(done, both_ways_body, &rounds);
    finish(done);
    CHECK_EQ(pg_load_relaxed(&sent_here), rounds);
    CHECK_EQ(pg_load_relaxed(&received_here), rounds);
    drop(meeting);
}

static void select_chooses_uniformly(void)
{
    enum { CASES = 12, ROUNDS = 12000 }; /* more cases than fit on the stack */
    pg_chan *chans[CASES];
    pg_case cases[CASES];
    pg_selected selected;
    int chosen[CASES] = {0};
    double chi_square = 0;
    for (int i = 0; i < CASES; i++) {
        chans[i] = new_chan(1);
        cases[i] = (pg_case){chans[i], i % 2 == 0, (uintptr_t)i + 1};
        if (i % 2) CHECK_EQ(pg_chan_send(chans[i], (uintptr_t)i, PG_NEVER_WAIT), PG_OK);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uintptr_t value;
        CHECK_EQ(pg_select(cases, CASES, PG_FOREVER, &selected), PG_OK);
        int index = selected.index;
        chosen[index]++;
        if (index % 2) CHECK_EQ(pg_chan_send(chans[index], (uintptr_t)index, PG_NEVER_WAIT), PG_OK);
        else CHECK_EQ(pg_chan_recv(chans[index], &value, PG_NEVER_WAIT), PG_OK);
        CHECK_EQ(index % 2 ? selected.value : value, index % 2 ? index : index + 1);
    }
    for (int i = 0; i < CASES; i++) {
        double difference = chosen[i] - ROUNDS / CASES;
        chi_square += difference * difference / (ROUNDS / CASES);
        drop(chans[i]);
    }
    CHECK(chi_square < 45); /* 11 degrees of freedom: one in 200,000 */
}

/* Two selecters, two channels, opposite orders: a deadlock unless locks are taken in one order. */
static void crossing_body(void *argument)
{
    bool reverse = argument != NULL;
    for (int i = 0, rounds = check_rounds(3000); i < rounds; i++) {
        pg_case cases[2];
        pg_selected selected;
        for (int k = 0; k < 2; k++) cases[k] = (pg_case){flow.chans[reverse ? 1 - k : k], (i + k) % 2 == 0, 1};
        int outcome = pg_select(cases, 2, i % 4 ? PG_NEVER_WAIT : pg_now() + 20000, &selected);
        CHECK(outcome == PG_OK || outcome == PG_EAGAIN || outcome == PG_ETIMEDOUT);
    }
}

static void selects_in_opposite_orders_do_not_deadlock(void)
{
    pg_latch *done = new_latch(8);
    for (int i = 0; i < 2; i++) flow.chans[i] = new_chan(1);
    for (uintptr_t i = 0; i < 8; i++) go(done, crossing_body, (void *)(i % 2));
    finish(done);
    for (int i = 0; i < 2; i++) drop(flow.chans[i]);
}

/* ---- latches ---- */

static void latch_counts_are_checked(void)
{
    pg_latch *latch = new_latch(0);
    CHECK_EQ(pg_latch_wait(latch, PG_FOREVER), PG_OK);
    CHECK_EQ(pg_latch_add(latch, -1), PG_EINVAL);
    CHECK_EQ(pg_latch_add(latch, INT64_MAX), PG_OK);
    CHECK_EQ(pg_latch_add(latch, 1), PG_EINVAL);
    CHECK_EQ(pg_latch_add(latch, -INT64_MAX + 1), PG_OK);
    CHECK_EQ(pg_latch_wait(latch, PG_NEVER_WAIT), PG_EAGAIN);
    CHECK_EQ(pg_latch_wait(latch, pg_now() + 1000000), PG_ETIMEDOUT);
    CHECK_EQ(latch->waiter_count, 0);
    CHECK_EQ(pg_latch_add(latch, -1), PG_OK);
    CHECK_EQ(pg_latch_wait(latch, PG_NEVER_WAIT), PG_OK);
}

static pg_latch *barrier;

static void barrier_body(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    int outcome;
    do {
        pg_nanos deadline = check_below(&random, 2) ? PG_FOREVER : pg_now() + (pg_nanos)check_below(&random, 200000);
        outcome = pg_latch_wait(barrier, deadline);
        CHECK(outcome == PG_OK || (outcome == PG_ETIMEDOUT && deadline != PG_FOREVER));
    } while (outcome != PG_OK);
}

static void many_wait_for_a_latch_some_with_deadlines(void)
{
    for (int round = 0; round < 10; round++) {
        pg_latch *done = new_latch(100);
        barrier = new_latch(3);
        for (uintptr_t i = 0; i < 100; i++) go(done, barrier_body, (void *)(i + 1));
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(pg_sched_sleep_until(pg_now() + 100000), PG_OK);
            CHECK_EQ(pg_latch_wait(done, PG_NEVER_WAIT), PG_EAGAIN);
            count_down(barrier);
        }
        finish(done);
        CHECK_EQ(barrier->waiter_count, 0);
    }
}

int main(void)
{
    CHECK_EQ(pg_sched_init(NULL, 1, false), PG_OK);
    RUN(a_buffer_keeps_order_and_tells_when_it_is_full_or_empty);
    RUN(a_closed_channel_is_drained_then_says_so);
    RUN(a_deadline_ends_a_wait_and_leaves_nothing_behind);
    RUN(select_without_an_able_case_says_so);
    RUN(select_does_not_meet_itself);
    RUN(select_chooses_uniformly);
    RUN(latch_counts_are_checked);
    RUN_WITH_WORKERS(every_value_arrives_once_and_in_order);
    RUN_WITH_WORKERS(deadlines_lose_and_repeat_nothing);
    RUN_WITH_WORKERS(threads_and_tasks_share_channels);
    RUN_WITH_WORKERS(pairs_play_ping_pong);
    RUN_WITH_WORKERS(a_task_may_end_right_after_its_wait);
    RUN_WITH_WORKERS(a_thread_may_end_right_after_its_wait);
    RUN_WITH_WORKERS(closing_wakes_every_waiter);
    RUN_WITH_WORKERS(select_delivers_every_value_once);
    RUN_WITH_WORKERS(select_under_deadlines_delivers_every_value_once);
    RUN_WITH_WORKERS(threads_and_tasks_select_under_deadlines);
    RUN_WITH_WORKERS(selects_meet_each_other);
    RUN_WITH_WORKERS(selects_in_opposite_orders_do_not_deadlock);
    RUN_WITH_WORKERS(many_wait_for_a_latch_some_with_deadlines);
    return 0;
}
