/* Timer, Ticker, and the channel of after().
 *
 * An alarm is an entry of the timers' heap. Its fire function runs under the heap's lock, on any worker or on the
 * monitor, outside of the interpreter, so it may touch no object: it puts the alarm into a list and names a task, the
 * courier, which does the rest inside: sends the time into a channel, or starts a task for a function.
 *
 *      A1 pending: in the heap
 *      A2 rang: in the courier's list (a ticker's stays in the heap, too)
 *      A3 delivered, in one go under the GIL: out of the list, the value in the channel or the task started
 * Stopping takes it out of heap and list and the unread value out of the channel, also in one go under the GIL. So
 * what a stop or a reset has overtaken never arrives, and an alarm can be freed at any time.
 *
 * Who keeps what alive: a channel owns its alarm; a Timer or Ticker, and the view its user holds, own the channel. When
 * both are gone, so is the pending alarm. A Timer with a function owns its alarm, and while the function is still to be
 * called the runtime owns the Timer: nobody need keep it.
 *
 * In a bubble the heap is the bubble's, and what rang goes into the bubble's own list: its steward, who is inside the
 * interpreter, delivers it in the same go in which the clock moves. An alarm owns the bubble it belongs to.
 *
 * Locks: the courier's, below the heap's.
 */
#include "python/objects.h"

#include "base/failpoint.h"

typedef struct alarm_entry {
    pg_timer timer;
    pg_node link;     /* in courier.rang, or the bubble's: the courier's lock */
    uint32_t rang;    /* courier.era while linked there: likewise */
    PyObject *target; /* a channel or a Timer with a function; borrowed, it owns the alarm */
    BubbleObject *bubble; /* or NULL */
} alarm_entry;

static struct {
    pg_lock lock;
    pg_node rang;  /* alarms: lock, as everything below */
    bool queued;   /* the task below, and not begun */
    uint32_t era;  /* another one in a fork's child, where the links of before mean nothing */
    pg_task task;
} courier = {.rang = {&courier.rang, &courier.rang}, .era = 1};

/* ---- the courier ---- */

static void deliver(alarm_entry *self);
static void courier_run(pg_task *task);

/* Under the lock: true when the caller is to enqueue the task. */
static bool call_courier(void)
{
    if (courier.queued) return false;
    courier.queued = true;
    pg_task_init(&courier.task, courier_run);
    return true;
}

/* At the end; with a seed also in front: who rings at the same time as others does so in no certain order. */
static pg_node *place_in(pg_node *rang)
{
    return pg_load_relaxed(&pg_sched_is_seeded) && pg_sched_random() % 2 == 0 ? rang->next : rang;
}

static pg_task *alarm_fire(pg_timer *timer)
{
    alarm_entry *self = pg_container_of(timer, alarm_entry, timer);
    bool call = false;
    pg_lock_acquire(&courier.lock);
    if (self->rang != courier.era) { /* else the last tick still waits to be delivered: this one is dropped */
        self->rang = courier.era;
        pg_list_append(self->bubble != NULL ? place_in(&self->bubble->rang) : &courier.rang, &self->link);
        call = self->bubble == NULL && call_courier();
    }
    pg_lock_release(&courier.lock);
    return call ? &courier.task : NULL;
}

PyObject *timer_target(const pg_timer *timer)
{
    if (timer->fire != alarm_fire) return NULL;
    PyObject *target = pg_container_of(timer, const alarm_entry, timer)->target;
    return Py_IS_TYPE(target, &Channel_Type) ? target : NULL;
}

static void unlink_rang(alarm_entry *self)
{
    pg_list_remove(&self->link);
    self->rang = 0;
}

/* Whoever takes one of several has a successor queued: a delivery may run any code (a finalizer, in a collection of
 * garbage), which may wait, and the others must not wait for that. */
static alarm_entry *take_rang(void)
{
    pg_lock_acquire(&courier.lock);
    pg_node *node = pg_list_first(&courier.rang);
    alarm_entry *self = node ? pg_container_of(node, alarm_entry, link) : NULL;
    if (self != NULL) unlink_rang(self);
    bool call = !pg_list_empty(&courier.rang) && call_courier();
    pg_lock_release(&courier.lock);
    if (call) pg_sched_enqueue_last(&courier.task);
    return self;
}

void timer_deliver(pg_node *rang)
{
    for (;;) {
        pg_lock_acquire(&courier.lock);
        pg_node *node = pg_list_first(rang);
        alarm_entry *self = node ? pg_container_of(node, alarm_entry, link) : NULL;
        if (self != NULL) unlink_rang(self);
        pg_lock_release(&courier.lock);
        if (self == NULL) return;
        deliver(self);
    }
}

static void courier_run(pg_task *task)
{
    enum { BATCH = 64 }; /* then others have their turn */
    alarm_entry *self;
    pg_fiber *fiber = task->fiber;
    pg_sched_detach_task(fiber); /* from here on the record may be queued again */
    pg_lock_acquire(&courier.lock);
    courier.queued = false;
    pg_lock_release(&courier.lock);
    for (int i = 0; i < BATCH && (self = take_rang()) != NULL; i++) deliver(self);
    interp_reset(fiber);
}

void timer_after_fork_in_child(void)
{
    pg_lock_init(&courier.lock);
    pg_list_init(&courier.rang);
    courier.queued = false;
    courier.era++;
}

/* ---- alarms ---- */

static alarm_entry *alarm_new(PyObject *target)
{
    alarm_entry *self = pg_fails(alarm) ? NULL : PyMem_Malloc(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    BubbleObject *bubble = bubble_current();
    *self = (alarm_entry){
        .timer = {.fire = alarm_fire, .home = bubble != NULL ? &bubble->core.timers : NULL},
        .target = target,
        .bubble = (BubbleObject *)Py_XNewRef((PyObject *)bubble),
    };
    return self;
}

static uint32_t bubble_of(const alarm_entry *self) { return self->bubble != NULL ? self->bubble->core.id : 0; }

/* Of the clock it goes by, which is the caller's unless that is the courier or the steward. */
static pg_nanos now_of(const alarm_entry *self)
{
    return self->bubble != NULL ? pg_load_relaxed(&self->bubble->core.now) : pg_now();
}

static int alarm_start(alarm_entry *self, pg_nanos nanos, pg_nanos period)
{
    pg_nanos deadline;
    if (__builtin_add_overflow(now_of(self), nanos, &deadline)) deadline = PG_FOREVER;
    self->timer.period = period;
    if (nanos == 0 && self->bubble != NULL) { /* no need for the bubble to come to rest */
        deliver(self);
        return 0;
    }
    if (pg_sched_timer_start(&self->timer, deadline) == PG_OK) return 0;
    PyErr_NoMemory();
    return -1;
}

/* Whether it was pending: that it rang does not count as long as nobody could have noticed. */
static bool alarm_stop(alarm_entry *self)
{
    bool pending = pg_sched_timer_stop(&self->timer);
    if (self->rang != courier.era) return pending; /* it does not fire any more, and the courier needs the GIL */
    pg_lock_acquire(&courier.lock);
    unlink_rang(self);
    pg_lock_release(&courier.lock);
    return true;
}

void alarm_free(alarm_entry *self)
{
    alarm_stop(self);
    Py_XDECREF(self->bubble);
    PyMem_Free(self);
}

static ChannelObject *channel_with_alarm(void)
{
    ChannelObject *channel = channel_make(1);
    if (channel == NULL) return NULL;
    PyObject_GC_UnTrack(channel); /* it only ever holds a float: part of no cycle */
    channel->alarm = alarm_new((PyObject *)channel);
    if (channel->alarm == NULL) Py_CLEAR(channel);
    return channel;
}

ChannelObject *timer_channel(pg_nanos nanos)
{
    ChannelObject *channel = channel_with_alarm();
    if (channel != NULL && alarm_start(channel->alarm, nanos, 0) < 0) Py_CLEAR(channel);
    return channel;
}

/* ---- delivery ---- */

static void send_time(ChannelObject *channel)
{
    if (channel->core.count == channel->core.capacity) return; /* nobody has read the last tick: this one is dropped */
    PyObject *now = PyFloat_FromDouble((double)now_of(channel->alarm) / 1e9);
    if (now == NULL) PyErr_WriteUnraisable((PyObject *)channel);
    else if (pg_chan_send(&channel->core, (uintptr_t)now, PG_NEVER_WAIT) != PG_OK) Py_DECREF(now);
}

/* The runtime's reference goes. */
static void release_hold(TimerObject *self)
{
    if (!self->held) return;
    self->held = false;
    Py_DECREF(self);
}

/* 0, or -1 with an exception. */
static int start_function(TimerObject *self)
{
    PyObject *context = NULL;
    if (self->function == NULL) return 0; /* taken by the garbage collector */
    if (self->context != NULL && (context = PyContext_Copy(self->context)) == NULL) return -1;
    TaskObject *task = task_new(self->function, NULL, 0, NULL, NULL);
    BubbleObject *bubble = self->alarm->bubble;
    if (task != NULL && bubble != NULL && task_put_in_bubble(task, bubble) < 0) Py_CLEAR(task);
    if (task == NULL) {
        Py_XDECREF(context);
        return -1;
    }
    Py_XSETREF(task->context, context);
    Py_XSETREF(task->spawner_code, Py_XNewRef(self->spawner_code));
    task->spawner_instruction = self->spawner_instruction;
    task_start(task);
    Py_DECREF(task);
    return 0;
}

/* No memory for the task: it rings again in a moment, for deadlines hang on it. Unless it has been started anew. */
static void ring_again(TimerObject *self)
{
    enum { A_MOMENT = 5000000 };
    alarm_entry *alarm = self->alarm;
    pg_nanos deadline = now_of(alarm) + (alarm->bubble != NULL ? 1 : A_MOMENT);
    bool may = !self->held && PyErr_ExceptionMatches(PyExc_MemoryError) && alarm->rang != courier.era;
    if (may && !pg_sched_timer_is_pending(&alarm->timer, &deadline) &&
        pg_sched_timer_start(&alarm->timer, deadline) == PG_OK) {
        PyErr_Clear();
        self->held = true;
        Py_INCREF(self);
    } else {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

static bool is_alarm(const pg_timer *timer) { return timer->fire == alarm_fire; }

bool timer_is_awaited(const pg_timer *timer)
{
    PyObject *channel = timer_target(timer);
    return channel == NULL || ((ChannelObject *)channel)->core.receiver_count > 0;
}

void timer_drop_all(pg_timers *timers)
{
    for (pg_timer *timer; (timer = pg_timers_take(timers, is_alarm)) != NULL;) {
        PyObject *target = pg_container_of(timer, alarm_entry, timer)->target;
        if (!Py_IS_TYPE(target, &Channel_Type)) release_hold((TimerObject *)target); /* the last reference, perhaps */
    }
}

static void deliver(alarm_entry *self)
{
    if (Py_IS_TYPE(self->target, &Channel_Type)) {
        send_time((ChannelObject *)self->target);
        return;
    }
    TimerObject *timer = (TimerObject *)Py_NewRef(self->target);
    release_hold(timer); /* first: what follows may run code that starts it anew */
    if (start_function(timer) < 0) ring_again(timer);
    Py_DECREF(timer);
}

/* ---- Timer and Ticker ---- */

static bool is_ticker(TimerObject *self) { return Py_IS_TYPE(self, &Ticker_Type); }

static int nanos_for(PyTypeObject *type, PyObject *seconds, pg_nanos *nanos)
{
    if (nanos_from(seconds, nanos) < 0) return -1;
    if (*nanos > 0 || type != &Ticker_Type) return 0;
    PyErr_SetString(PyExc_ValueError, "a Ticker's period must be positive");
    return -1;
}

static int start(TimerObject *self, pg_nanos nanos)
{
    if (alarm_start(self->alarm, nanos, is_ticker(self) ? nanos : 0) < 0) return -1;
    if (self->function == NULL || nanos == PG_FOREVER) return 0; /* what never fires need not be kept */
    if (nanos == 0 && self->alarm->bubble != NULL) return 0;     /* has been delivered */
    self->held = true;
    Py_INCREF(self);
    return 0;
}

static bool stop(TimerObject *self)
{
    uintptr_t unread;
    bool pending = alarm_stop(self->alarm);
    if (self->channel != NULL && self->channel->core.count > 0 &&
        pg_chan_recv(&self->channel->core, &unread, PG_NEVER_WAIT) == PG_OK)
        Py_DECREF((PyObject *)unread);
    release_hold(self);
    return pending;
}

static int fill_in(TimerObject *self, PyObject *function)
{
    if (function == Py_None) {
        self->channel = channel_with_alarm();
        if (self->channel != NULL) self->alarm = self->channel->alarm;
        return self->channel != NULL ? 0 : -1;
    }
    self->function = Py_NewRef(function);
    self->spawner_code = interp_caller(&self->spawner_instruction);
    PyObject *context = interp_context();
    if (context != NULL && (self->context = PyContext_Copy(context)) == NULL) return -1;
    self->alarm = alarm_new((PyObject *)self);
    return self->alarm != NULL ? 0 : -1;
}

static PyObject *make(PyTypeObject *type, PyObject *seconds, PyObject *function)
{
    pg_nanos nanos;
    if (nanos_for(type, seconds, &nanos) < 0) return NULL;
    if (function != Py_None && !PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "a Timer calls a function or None, not %.100s", Py_TYPE(function)->tp_name);
        return NULL;
    }
    TimerObject *self = PyObject_GC_New(TimerObject, type);
    if (self == NULL) return NULL;
    self->alarm = NULL;
    self->channel = NULL;
    self->function = self->context = self->spawner_code = self->weakrefs = NULL;
    self->held = false;
    if (fill_in(self, function) < 0 || start(self, nanos) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (self->function != NULL) PyObject_GC_Track(self); /* with a channel it can be part of no cycle */
    return (PyObject *)self;
}

static PyObject *timer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"seconds", "fn", NULL};
    PyObject *seconds, *function = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:Timer", keywords, &seconds, &function)) return NULL;
    return make(type, seconds, function);
}

static PyObject *ticker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"seconds", NULL};
    PyObject *seconds;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Ticker", keywords, &seconds)) return NULL;
    return make(type, seconds, Py_None);
}

static PyObject *timer_stop(TimerObject *self, PyObject *unused)
{
    if (check_bubble(bubble_of(self->alarm), "stop of a timer") < 0) return NULL;
    return PyBool_FromLong(stop(self));
}

/* For contexts: one may be ended, and so stop its timer, from outside of its bubble. */
static PyObject *timer_drop(TimerObject *self, PyObject *unused) { return PyBool_FromLong(stop(self)); }

static PyObject *timer_reset(TimerObject *self, PyObject *seconds)
{
    pg_nanos nanos;
    if (nanos_for(Py_TYPE(self), seconds, &nanos) < 0) return NULL;
    if (check_bubble(bubble_of(self->alarm), "reset of a timer") < 0) return NULL;
    bool pending = stop(self);
    return start(self, nanos) < 0 ? NULL : PyBool_FromLong(pending);
}

static PyObject *get_channel(TimerObject *self, void *closure)
{
    return self->channel ? channel_receiver(self->channel) : Py_NewRef(Py_None);
}

static int timer_traverse(TimerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->function);
    Py_VISIT(self->context);
    return 0;
}

static int timer_clear(TimerObject *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->context);
    return 0;
}

static void timer_dealloc(TimerObject *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    if (self->channel != NULL) Py_DECREF(self->channel);
    else if (self->alarm != NULL) alarm_free(self->alarm);
    timer_clear(self);
    Py_XDECREF(self->spawner_code);
    PyObject_GC_Del(self);
}

static PyObject *timer_repr(TimerObject *self)
{
    const char *name = Py_TYPE(self)->tp_name;
    pg_nanos deadline;
    if (!pg_sched_timer_is_pending(&self->alarm->timer, &deadline))
        return PyUnicode_FromFormat("<%s at %p not pending>", name, self);
    if (deadline == PG_FOREVER) return PyUnicode_FromFormat("<%s at %p pending for ever>", name, self);
    long long left = (deadline - now_of(self->alarm)) / 1000000;
    return PyUnicode_FromFormat("<%s at %p pending, due in %lld ms>", name, self, left > 0 ? left : 0LL);
}

#define TIMER_STOP "stop($self, /)\n--\n\n"
#define TIMER_RESET "reset($self, seconds, /)\n--\n\n"

static PyMethodDef timer_methods[] = {
    {"_drop", (PyCFunction)timer_drop, METH_NOARGS, PyDoc_STR("_drop($self, /)\n--\n\nstop() from anywhere.")},
    {"stop", (PyCFunction)timer_stop, METH_NOARGS,
     PyDoc_STR(TIMER_STOP "Keep the timer from firing, and drop a value nobody has read; return whether it was "
               "pending.\n\nAfterwards nothing arrives in its channel, and its function is not called. A call that has "
               "begun goes on.\nNever waits.")},
    {"reset", (PyCFunction)timer_reset, METH_O,
     PyDoc_STR(TIMER_RESET "Stop the timer, as stop() does, and start it anew; return whether it was pending.\n\n"
               "seconds: from now. Raises ValueError for a negative time; then the timer is as it was. Never waits.")},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef ticker_methods[] = {
    {"stop", (PyCFunction)timer_stop, METH_NOARGS,
     PyDoc_STR(TIMER_STOP "End the ticks, and drop one that nobody has read; return whether it was ticking.\n\n"
               "The channel is not closed. Never waits.")},
    {"reset", (PyCFunction)timer_reset, METH_O,
     PyDoc_STR(TIMER_RESET "Stop the ticker, as stop() does, and start it with another period; return whether it was "
               "ticking.\n\nseconds: the new period; the next tick is one period from now. Raises ValueError unless it is "
               "positive; then the\nticker is as it was. Never waits.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef timer_getset[] = {
    {"channel", (getter)get_channel, NULL, "The RecvChannel[float] that gets the time, or None with a function.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef ticker_getset[] = {
    {"channel", (getter)get_channel, NULL, "The RecvChannel[float] that gets the times.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(timer_doc, "Timer(seconds, fn=None)\n--\n\n"
"One event in the future: `channel` gets the time, time.monotonic(), or fn() is called in a task of its own.\n\n"
"seconds: from now, never early. The task of fn starts in a copy of the context of the Timer's maker. A Timer that nobody\n"
"refers to, nor to its channel, is gone; one with a function stays until it has been called. Raises ValueError for a\n"
"negative time, TypeError if fn cannot be called. Usable from tasks and any thread; no method waits. Go's time.Timer.\n\n"
"    >>> timer = Timer(0.001)\n"
"    >>> isinstance(timer.channel.recv(), float)\n"
"    True\n"
"    >>> timer.stop()\n"
"    False");

PyDoc_STRVAR(ticker_doc, "Ticker(seconds)\n--\n\n"
"Ticks in a steady rhythm: `channel` gets the time, time.monotonic(), once per period.\n\n"
"seconds: the period; the first tick is one period from now. The channel holds one tick, and ticks that find it full are\n"
"dropped. A Ticker that nobody refers to, nor to its channel, is gone. Raises ValueError unless the period is positive.\n"
"Usable from tasks and any thread; no method waits. Go's time.Ticker.\n\n"
"    >>> ticker = Ticker(0.001)\n"
"    >>> first, second = ticker.channel.recv(), ticker.channel.recv()\n"
"    >>> ticker.stop(), first < second\n"
"    (True, True)");

#define TIMER_SLOTS                                                                                                    \
    .tp_basicsize = sizeof(TimerObject), .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,                          \
    .tp_dealloc = (destructor)timer_dealloc, .tp_traverse = (traverseproc)timer_traverse,                              \
    .tp_clear = (inquiry)timer_clear, .tp_repr = (reprfunc)timer_repr,                                                 \
    .tp_weaklistoffset = offsetof(TimerObject, weakrefs)

PyTypeObject Timer_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Timer",
    TIMER_SLOTS,
    .tp_doc = timer_doc,
    .tp_new = timer_new,
    .tp_methods = timer_methods,
    .tp_getset = timer_getset,
};

PyTypeObject Ticker_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Ticker",
    TIMER_SLOTS,
    .tp_doc = ticker_doc,
    .tp_new = ticker_new,
    .tp_methods = ticker_methods,
    .tp_getset = ticker_getset,
};
