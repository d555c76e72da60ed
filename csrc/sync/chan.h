/* Channels and select, after Go's runtime/chan.go and select.go. Values are machine words.
 *
 * Invariants, under the channel's lock:
 *      - a buffered value and a waiting receiver never exist together, nor free room and a waiting sender, except that
 *        waiters whose select has been won elsewhere may still be linked;
 *      - a closed channel has no waiters that can still be chosen;
 *      - a linked waiter's wait is open; whoever unlinks a single waiter has won it; for a select the one who moves
 *        `claimed` from false to true has.
 * A value moves straight from a sender to a waiting receiver, and from a waiting sender to the receiver or the ring.
 *
 * Locks: one per channel; select takes those of its channels in order of address. Below them only task states. Tasks
 * made ready are enqueued after all of them are released.
 *
 * Waiters lie on the C stack of the waiting call (stacks never move, and the call unlinks before it returns).
 */
#ifndef PG_CHAN_H
#define PG_CHAN_H

#include "base/list.h"
#include "sched/sched.h"

/* One wait of one task: shared by the waiters of all its cases. */
struct pg_party {
    pg_task *task;       /* set before publish, as are is_select, waiters and waiter_count */
    struct pg_waiter *waiters;
    uint32_t waiter_count;
    bool is_select;
    atomic_bool claimed; /* select: atomic */
    atomic_uchar done;   /* PG_WAIT_...: by the winner, release; ENDING after the fields below, ENDED as its last touch */
    bool ok;             /* false: ended by close */
    uint32_t index;
    uintptr_t value;
};

typedef struct pg_waiter {
    pg_node link;      /* the object's lock */
    uint32_t *counter; /* the object's count of waiters like this one: the object's lock */
    pg_party *party;
    uint32_t index;
    uintptr_t value; /* what a sender offers */
} pg_waiter;

/* How a caller waits. */
typedef struct pg_patience {
    pg_nanos deadline;
    bool shielded;    /* from cancellation; then the deadline must be PG_FOREVER */
    bool durable;     /* see pg_fiber */
    const void *note; /* what the layer above says of the wait (pg_fiber.wait), or NULL */
} pg_patience;

void pg_party_init(pg_party *party, pg_task *task, bool is_select, pg_waiter *waiters, uint32_t waiter_count);
/* The wait is over, for the task that waited. */
void pg_party_end(pg_party *party);
/* Under the object's lock. Unlinking what is not linked does nothing. */
void pg_waiter_link(pg_waiter *waiter, pg_node *list, uint32_t *counter);
void pg_waiter_unlink(pg_waiter *waiter);
/* In a fork's child: take the waiters of a task that is no more out of their objects. */
void pg_sync_forget(pg_party *party);
/* Under the object's lock, after unlinking: try to end the wait. False: it was won elsewhere. When true, *ready is the
 * task to enqueue after the lock is released, or NULL. */
bool pg_waiter_finish(pg_waiter *waiter, uintptr_t value, bool ok, pg_task **ready);

typedef struct pg_chan {
    pg_lock lock;
    bool closed;                /* lock, as everything below */
    uint32_t capacity;          /* set before publish */
    uint32_t count, head;       /* ring: count values from head on */
    uint32_t receiver_count, sender_count;
    uint32_t bubble;            /* set before publish: the id of the one it belongs to, 0: none */
    pg_node receivers, senders; /* first in, first out */
    uintptr_t *ring;
} pg_chan;

int pg_chan_init(pg_chan *chan, uint32_t capacity);
/* Nobody may use the channel any more; values left in the ring have been taken out. */
void pg_chan_free(pg_chan *chan);

/* PG_OK, PG_ECLOSED; with deadline PG_NEVER_WAIT also PG_EAGAIN; else what pg_sched_park says. `note` is what the layer
 * above says of the wait (pg_fiber.wait), if it comes to one. */
int pg_chan_send_noting(pg_chan *chan, uintptr_t value, pg_nanos deadline, const void *note);
int pg_chan_recv_noting(pg_chan *chan, uintptr_t *value, pg_nanos deadline, const void *note);
static inline int pg_chan_send(pg_chan *chan, uintptr_t value, pg_nanos deadline)
{
    return pg_chan_send_noting(chan, value, deadline, NULL);
}
static inline int pg_chan_recv(pg_chan *chan, uintptr_t *value, pg_nanos deadline)
{
    return pg_chan_recv_noting(chan, value, deadline, NULL);
}
/* PG_ECLOSED when it is already. */
int pg_chan_close(pg_chan *chan);

typedef struct pg_case {
    pg_chan *chan; /* NULL: never ready */
    bool is_send;
    uintptr_t value;
} pg_case;

typedef struct pg_selected {
    int32_t index;
    bool ok; /* a receive got a value; false for a send on a closed channel, too */
    uintptr_t value;
} pg_selected;

/* PG_OK with *selected filled in; PG_EAGAIN (deadline PG_NEVER_WAIT) and else what pg_sched_park says, PG_ENOMEM. */
int pg_select(const pg_case *cases, uint32_t count, pg_nanos deadline, pg_selected *selected);

#endif
