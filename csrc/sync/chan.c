/* Channel operations, see chan.h. */
#include "sync/chan.h"

#include <stdlib.h>

#include "base/failpoint.h"

#include "sync/internal.h"

void pg_party_init(pg_party *party, pg_task *task, bool is_select, pg_waiter *waiters, uint32_t waiter_count)
{
    party->task = task;
    party->is_select = is_select;
    party->waiters = waiters;
    party->waiter_count = waiter_count;
    *pg_sched_party(task) = party;
    atomic_init(&party->claimed, false);
    atomic_init(&party->done, PG_WAIT_OPEN);
}

void pg_party_end(pg_party *party) { *pg_sched_party(party->task) = NULL; }

void pg_waiter_link(pg_waiter *waiter, pg_node *list, uint32_t *counter)
{
    pg_list_append(list, &waiter->link);
    waiter->counter = counter;
    ++*counter;
}

void pg_waiter_unlink(pg_waiter *waiter)
{
    if (!pg_list_linked(&waiter->link)) return;
    pg_list_remove(&waiter->link);
    --*waiter->counter;
}

void pg_sync_forget(pg_party *party)
{
    for (uint32_t i = 0; i < party->waiter_count; i++) pg_waiter_unlink(&party->waiters[i]);
}

bool pg_waiter_finish(pg_waiter *waiter, uintptr_t value, bool ok, pg_task **ready)
{
    pg_party *party = waiter->party;
    if (party->is_select && pg_exchange_acqrel(&party->claimed, true)) return false;
    pg_task *task = party->task;
    if (PG_UNLIKELY(pg_load_relaxed(&pg_fibers_are_many))) pg_sched_foresee_wake(task, waiter);
    party->ok = ok;
    party->index = waiter->index;
    party->value = value;
    pg_store_release(&party->done, PG_WAIT_ENDING); /* pairs with the acquire of pg_sched_park_until */
    *ready = pg_task_wake(task) ? task : NULL;
    pg_delay(ending_to_ended);
    pg_store_release(&party->done, PG_WAIT_ENDED); /* likewise: from here on neither the party nor the task is ours */
    return true;
}

int pg_wait_in(pg_lock *lock, pg_node *list, uint32_t *counter, uintptr_t value, const pg_patience *patience)
{
    pg_task *self = pg_sched_self();
    pg_party party;
    pg_waiter waiter = {.party = &party, .value = value};
    if (self == NULL) {
        pg_object_unlock(lock);
        return PG_ENOMEM;
    }
    pg_party_init(&party, self, false, &waiter, 1);
    if (self->fiber != NULL) {
        self->fiber->wait = patience->note;
        self->fiber->durable = patience->durable;
    }
    pg_waiter_link(&waiter, list, counter);
    pg_object_unlock(lock);
    int outcome = patience->shielded ? pg_sched_park_shielded(self, &party.done)
                                     : pg_sched_park_until(self, &party.done, patience->deadline);
    if (PG_UNLIKELY(outcome != PG_OK)) {
        pg_object_lock(lock);
        if (pg_load_acquire(&party.done)) outcome = PG_OK;
        else pg_waiter_unlink(&waiter);
        pg_object_unlock(lock);
    }
    pg_party_end(&party);
    return outcome;
}

int pg_chan_init(pg_chan *chan, uint32_t capacity)
{
    *chan = (pg_chan){.capacity = capacity};
    pg_list_init(&chan->receivers);
    pg_list_init(&chan->senders);
    if (capacity == 0) return PG_OK;
    chan->ring = pg_fails(chan_ring) ? NULL : malloc(capacity * sizeof *chan->ring);
    return chan->ring ? PG_OK : PG_ENOMEM;
}

void pg_chan_free(pg_chan *chan)
{
    free(chan->ring);
    chan->ring = NULL;
}

void pg_chan_link(pg_chan *chan, pg_waiter *waiter, bool is_send)
{
    if (is_send) pg_waiter_link(waiter, &chan->senders, &chan->sender_count);
    else pg_waiter_link(waiter, &chan->receivers, &chan->receiver_count);
}

static pg_waiter *pop_waiter(pg_chan *chan, bool is_send)
{
    pg_node *node = pg_list_first(is_send ? &chan->senders : &chan->receivers);
    if (node == NULL) return NULL;
    pg_waiter *waiter = pg_container_of(node, pg_waiter, link);
    pg_waiter_unlink(waiter);
    return waiter;
}

static void ring_push(pg_chan *chan, uintptr_t value)
{
    uint32_t at = chan->head + chan->count++;
    chan->ring[at < chan->capacity ? at : at - chan->capacity] = value;
}

static uintptr_t ring_pop(pg_chan *chan)
{
    uintptr_t value = chan->ring[chan->head];
    if (++chan->head == chan->capacity) chan->head = 0;
    chan->count--;
    return value;
}

int pg_chan_send_locked(pg_chan *chan, uintptr_t value, pg_task **ready)
{
    pg_waiter *waiter;
    if (PG_UNLIKELY(chan->closed)) return PG_ECLOSED;
    while ((waiter = pop_waiter(chan, false)) != NULL)
        if (pg_waiter_finish(waiter, value, true, ready)) return PG_OK;
    if (chan->count == chan->capacity) return PG_EAGAIN;
    ring_push(chan, value);
    return PG_OK;
}

int pg_chan_recv_locked(pg_chan *chan, uintptr_t *value, pg_task **ready)
{
    pg_waiter *waiter;
    bool from_ring = chan->count > 0;
    if (from_ring) *value = ring_pop(chan);
    while ((waiter = pop_waiter(chan, true)) != NULL) {
        uintptr_t offered = waiter->value; /* its stack may be gone once the wait is finished */
        if (!pg_waiter_finish(waiter, 0, true, ready)) continue;
        if (from_ring) ring_push(chan, offered); /* room for one more, and still in order */
        else *value = offered;
        return PG_OK;
    }
    if (from_ring) return PG_OK;
    return chan->closed ? PG_ECLOSED : PG_EAGAIN;
}

/* The waiting half: link, park, and on any end but a finished wait, unlink. The lock is held on entry, not on exit.
 * *value is what a sender offers, and what a receiver got. */
static int wait_locked(pg_chan *chan, bool is_send, uintptr_t *value, pg_nanos deadline, const void *note)
{
    pg_task *self = pg_sched_self();
    pg_party party;
    pg_waiter waiter = {.party = &party, .value = *value};
    if (self == NULL) {
        pg_object_unlock(&chan->lock);
        return PG_ENOMEM;
    }
    pg_party_init(&party, self, false, &waiter, 1);
    if (self->fiber != NULL) {
        self->fiber->wait = note;
        self->fiber->durable = chan->bubble != 0;
    }
    pg_chan_link(chan, &waiter, is_send);
    pg_object_unlock(&chan->lock);
    int outcome = pg_sched_park_until(self, &party.done, deadline);
    if (PG_UNLIKELY(outcome != PG_OK)) {
        pg_object_lock(&chan->lock);
        if (pg_load_acquire(&party.done)) outcome = PG_OK;
        else pg_waiter_unlink(&waiter);
        pg_object_unlock(&chan->lock);
    }
    pg_party_end(&party);
    if (outcome != PG_OK) return outcome;
    *value = party.value;
    return party.ok ? PG_OK : PG_ECLOSED;
}

int pg_chan_send_noting(pg_chan *chan, uintptr_t value, pg_nanos deadline, const void *note)
{
    pg_task *ready = NULL;
    pg_object_lock(&chan->lock);
    int outcome = pg_chan_send_locked(chan, value, &ready);
    if (outcome == PG_EAGAIN && deadline != PG_NEVER_WAIT) return wait_locked(chan, true, &value, deadline, note);
    pg_object_unlock(&chan->lock);
    pg_enqueue_if(ready);
    return outcome;
}

int pg_chan_recv_noting(pg_chan *chan, uintptr_t *value, pg_nanos deadline, const void *note)
{
    pg_task *ready = NULL;
    pg_object_lock(&chan->lock);
    int outcome = pg_chan_recv_locked(chan, value, &ready);
    if (outcome == PG_EAGAIN && deadline != PG_NEVER_WAIT) {
        *value = 0;
        return wait_locked(chan, false, value, deadline, note);
    }
    pg_object_unlock(&chan->lock);
    pg_enqueue_if(ready);
    return outcome;
}

/* Wake some waiters of one side as closed; false when none are left. */
static bool close_some(pg_chan *chan, bool is_send)
{
    enum { BATCH = 32 };
    pg_task *ready[BATCH];
    int count = 0;
    pg_waiter *waiter = NULL;
    pg_object_lock(&chan->lock);
    while (count < BATCH && (waiter = pop_waiter(chan, is_send)) != NULL) {
        ready[count] = NULL;
        if (pg_waiter_finish(waiter, 0, false, &ready[count]) && ready[count] != NULL) count++;
    }
    pg_object_unlock(&chan->lock);
    for (int i = 0; i < count; i++) pg_sched_enqueue(ready[i]);
    return waiter != NULL;
}

int pg_chan_close(pg_chan *chan)
{
    pg_object_lock(&chan->lock);
    bool was_closed = chan->closed;
    chan->closed = true;
    pg_object_unlock(&chan->lock);
    if (was_closed) return PG_ECLOSED;
    while (close_some(chan, false)) {}
    while (close_some(chan, true)) {}
    return PG_OK;
}
