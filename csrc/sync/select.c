/* Select: one of several channel operations, see chan.h.
 *
 *      S1 lock all channels, in order of address
 *      S2 if any case can go on, do one of them, chosen uniformly; unlock, done
 *      S3 link a waiter per case, those of one channel in random order; unlock; park
 *      S4 whoever claims the wait first finishes it, under its channel's lock
 *      S5 lock all again and unlink what is left: with all locks held nobody can be in the middle of S4
 */
#include <stdlib.h>

#include "base/failpoint.h"
#include "sync/internal.h"

enum { INLINE_CASES = 8 };

typedef struct select_state {
    const pg_case *cases;
    uint32_t count;
    uint32_t lock_count;
    pg_chan **order;    /* distinct channels by address */
    pg_waiter *waiters; /* one per case */
} select_state;

static void sort_channels(select_state *state)
{
    state->lock_count = 0;
    for (uint32_t i = 0; i < state->count; i++) { /* insertion: selects are short */
        pg_chan *chan = state->cases[i].chan;
        if (chan == NULL) continue;
        uint32_t at = state->lock_count;
        while (at > 0 && (uintptr_t)state->order[at - 1] > (uintptr_t)chan) at--;
        if (at > 0 && state->order[at - 1] == chan) continue;
        for (uint32_t move = state->lock_count++; move > at; move--) state->order[move] = state->order[move - 1];
        state->order[at] = chan;
    }
}

static void lock_all(select_state *state)
{
    for (uint32_t i = 0; i < state->lock_count; i++) pg_object_lock(&state->order[i]->lock);
}

static void unlock_all(select_state *state)
{
    for (uint32_t i = state->lock_count; i-- > 0;) pg_object_unlock(&state->order[i]->lock);
}

/* Whether some waiter of one side can still be chosen. */
static bool has_open_waiter(pg_node *list)
{
    for (pg_node *node = list->next; node != list; node = node->next) {
        pg_party *party = pg_container_of(node, pg_waiter, link)->party;
        if (!party->is_select || !pg_load_acquire(&party->claimed)) return true;
    }
    return false;
}

static bool can_go_on(const pg_case *one)
{
    pg_chan *chan = one->chan;
    if (chan == NULL) return false;
    if (chan->closed) return true;
    if (one->is_send) return chan->count < chan->capacity || has_open_waiter(&chan->receivers);
    return chan->count > 0 || has_open_waiter(&chan->senders);
}

/* S2. PG_EAGAIN when no case can go on. */
static int try_cases(select_state *state, pg_selected *selected, pg_task **ready)
{
    for (;;) {
        uint32_t able = 0, chosen = 0;
        for (uint32_t i = 0; i < state->count; i++) { /* reservoir sampling: uniform in one pass */
            if (!can_go_on(&state->cases[i])) continue;
            if (++able == 1 || pg_sched_random() % able == 0) chosen = i;
        }
        if (able == 0) return PG_EAGAIN;
        const pg_case *one = &state->cases[chosen];
        selected->index = (int32_t)chosen;
        selected->value = 0;
        int outcome = one->is_send ? pg_chan_send_locked(one->chan, one->value, ready)
                                   : pg_chan_recv_locked(one->chan, &selected->value, ready);
        selected->ok = outcome == PG_OK;
        if (outcome != PG_EAGAIN) return PG_OK; /* else the waiters it counted on were claimed meanwhile */
    }
}

/* A channel that stands in several cases serves the one that was linked first: let chance decide which that is. */
static void shuffle(select_state *state)
{
    for (uint32_t i = 0; i < state->count; i++) state->waiters[i].index = i;
    if (state->lock_count == state->count) return; /* each channel stands in one case */
    for (uint32_t i = state->count; i > 1; i--) {
        uint32_t chosen = (uint32_t)(pg_sched_random() % i), last = state->waiters[i - 1].index;
        state->waiters[i - 1].index = state->waiters[chosen].index;
        state->waiters[chosen].index = last;
    }
}

static void link_all(select_state *state, pg_party *party)
{
    shuffle(state);
    for (uint32_t i = 0; i < state->count; i++) {
        uint32_t index = state->waiters[i].index;
        const pg_case *one = &state->cases[index];
        state->waiters[i] = (pg_waiter){.party = party, .index = index, .value = one->value};
        pg_list_init(&state->waiters[i].link);
        if (one->chan != NULL) pg_chan_link(one->chan, &state->waiters[i], one->is_send);
    }
}

static void unlink_all(select_state *state)
{
    for (uint32_t i = 0; i < state->count; i++) pg_waiter_unlink(&state->waiters[i]);
}

/* Only the bubble that all channels belong to can end the wait; nobody can if there are none. */
static bool is_durable(const select_state *state)
{
    for (uint32_t i = 0; i < state->lock_count; i++)
        if (state->order[i]->bubble == 0) return false;
    return true;
}

static int run(select_state *state, pg_nanos deadline, pg_selected *selected)
{
    pg_task *ready = NULL, *self = pg_sched_self();
    pg_party party;
    if (self == NULL) return PG_ENOMEM;
    sort_channels(state);
    lock_all(state);
    int outcome = try_cases(state, selected, &ready);
    if (outcome == PG_OK || deadline == PG_NEVER_WAIT) {
        unlock_all(state);
        pg_enqueue_if(ready);
        return outcome;
    }
    pg_party_init(&party, self, true, state->waiters, state->count);
    if (self->fiber != NULL) self->fiber->durable = is_durable(state);
    link_all(state, &party);
    unlock_all(state);
    outcome = pg_sched_park_until(self, &party.done, deadline);
    lock_all(state);
    bool done = pg_load_acquire(&party.done);
    unlink_all(state);
    unlock_all(state);
    pg_party_end(&party);
    if (!done) return outcome;
    *selected = (pg_selected){.index = (int32_t)party.index, .ok = party.ok, .value = party.value};
    return PG_OK;
}

int pg_select(const pg_case *cases, uint32_t count, pg_nanos deadline, pg_selected *selected)
{
    pg_chan *order[INLINE_CASES];
    pg_waiter waiters[INLINE_CASES];
    select_state state = {.cases = cases, .count = count, .order = order, .waiters = waiters};
    if (count <= INLINE_CASES) return run(&state, deadline, selected);
    void *memory = pg_fails(select_waiters) ? NULL : malloc(count * (sizeof *state.waiters + sizeof *state.order));
    if (memory == NULL) return PG_ENOMEM;
    state.waiters = memory;
    state.order = (pg_chan **)(state.waiters + count);
    int outcome = run(&state, deadline, selected);
    free(memory);
    return outcome;
}
