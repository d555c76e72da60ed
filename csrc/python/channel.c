/* Channel and its one-directional views. */
#include "python/objects.h"


static PyObject *as_object(uintptr_t word) { return (PyObject *)word; }
static uintptr_t as_word(PyObject *object) { return (uintptr_t)object; }

/* ---- operations, shared by channels and views ---- */

static PyObject *send_value(ChannelObject *self, PyObject *value, pg_nanos deadline)
{
    wait_info info = {.reason = "channel send", .object = (PyObject *)self};
    if (check_bubble(self->core.bubble, "send to a channel") < 0) return NULL;
    Py_INCREF(value);
    int outcome = pg_chan_send_noting(&self->core, as_word(value), deadline, &info);
    if (PG_UNLIKELY(outcome != PG_OK)) {
        Py_DECREF(value);
        raise_outcome(outcome, outcome == PG_ECLOSED ? "send on a closed channel" : "no receiver took the value in time");
        return NULL;
    }
    after_success();
    Py_RETURN_NONE;
}

/* New reference, or NULL with *outcome. */
static PyObject *recv_value(ChannelObject *self, pg_nanos deadline, int *outcome)
{
    wait_info info = {.reason = "channel receive", .object = (PyObject *)self};
    uintptr_t word;
    *outcome = PG_EINVAL; /* raised */
    if (check_bubble(self->core.bubble, "receive from a channel") < 0) return NULL;
    *outcome = pg_chan_recv_noting(&self->core, &word, deadline, &info);
    if (*outcome != PG_OK) return NULL;
    after_success();
    return as_object(word);
}

static PyObject *recv_or_raise(ChannelObject *self, pg_nanos deadline)
{
    int outcome;
    PyObject *value = recv_value(self, deadline, &outcome);
    if (value == NULL)
        raise_outcome(outcome, outcome == PG_ECLOSED ? "receive on a closed and drained channel" : "no value came in time");
    return value;
}

static PyObject *with_flag(PyObject *value, bool flag) /* steals value */
{
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, value);
    PyTuple_SET_ITEM(pair, 1, PyBool_FromLong(flag));
    return pair;
}

static PyObject *channel_send_impl(ChannelObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline;
    PyObject *value = NULL;
    Py_ssize_t used = 0;
    if (PG_LIKELY(count == 1 && keywords == NULL)) return send_value(self, args[0], PG_FOREVER);
    if (PG_UNLIKELY(count == 0 && (value = keyword(args, 0, keywords, "value", &used)) != NULL)) {
        PyObject *timeout = keyword(args, 0, keywords, "timeout", &used);
        if (check_keywords("send", keywords, used) < 0 || deadline_from(timeout, &deadline) < 0) return NULL;
        return send_value(self, value, deadline);
    }
    if (timeout_argument("send", args, count, keywords, 1, &deadline) < 0) return NULL;
    return send_value(self, args[0], deadline);
}

static PyObject *channel_recv_impl(ChannelObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline;
    if (PG_LIKELY(count == 0 && keywords == NULL)) return recv_or_raise(self, PG_FOREVER);
    if (timeout_argument("recv", args, count, keywords, 0, &deadline) < 0) return NULL;
    return recv_or_raise(self, deadline);
}

static PyObject *channel_recv_ok_impl(ChannelObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline;
    int outcome;
    if (timeout_argument("recv_ok", args, count, keywords, 0, &deadline) < 0) return NULL;
    PyObject *value = recv_value(self, deadline, &outcome);
    if (value != NULL) return with_flag(value, true);
    if (outcome == PG_ECLOSED) return with_flag(Py_NewRef(Py_None), false);
    raise_outcome(outcome, "no value came in time");
    return NULL;
}

static PyObject *channel_try_send_impl(ChannelObject *self, PyObject *value)
{
    if (check_bubble(self->core.bubble, "send to a channel") < 0) return NULL;
    Py_INCREF(value);
    int outcome = pg_chan_send(&self->core, as_word(value), PG_NEVER_WAIT);
    if (outcome == PG_OK) Py_RETURN_TRUE;
    Py_DECREF(value);
    if (outcome == PG_EAGAIN) Py_RETURN_FALSE;
    raise_outcome(outcome, "send on a closed channel");
    return NULL;
}

static PyObject *channel_try_recv_impl(ChannelObject *self)
{
    uintptr_t word;
    if (check_bubble(self->core.bubble, "receive from a channel") < 0) return NULL;
    int outcome = pg_chan_recv(&self->core, &word, PG_NEVER_WAIT);
    if (outcome == PG_OK) return with_flag(as_object(word), true);
    if (outcome == PG_EAGAIN) return with_flag(Py_NewRef(Py_None), false);
    raise_outcome(outcome, "receive on a closed and drained channel");
    return NULL;
}

static PyObject *channel_close_impl(ChannelObject *self)
{
    if (check_bubble(self->core.bubble, "close of a channel") < 0) return NULL;
    int outcome = pg_chan_close(&self->core);
    if (outcome == PG_OK) Py_RETURN_NONE;
    raise_outcome(outcome, "close of a closed channel");
    return NULL;
}

static PyObject *channel_next_impl(ChannelObject *self)
{
    int outcome;
    PyObject *value = recv_value(self, PG_FOREVER, &outcome);
    if (value == NULL && outcome != PG_ECLOSED) raise_outcome(outcome, "receive");
    return value; /* NULL without an exception ends the iteration */
}

static int always_true(PyObject *self) { return 1; }
static PyNumberMethods true_number = {.nb_bool = always_true};

/* ---- Channel ---- */

ChannelObject *channel_make(uint32_t capacity)
{
    ChannelObject *self = PyObject_GC_New(ChannelObject, &Channel_Type);
    if (self == NULL) return NULL;
    self->weakrefs = self->sender = self->receiver = NULL;
    self->alarm = NULL;
    if (pg_chan_init(&self->core, capacity) != PG_OK) {
        PyObject_GC_Del(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->core.bubble = pg_bubble_birthplace();
    PyObject_GC_Track(self);
    return self;
}

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"capacity", NULL};
    PyObject *given = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Channel", keywords, &given)) return NULL;
    Py_ssize_t capacity = given ? PyNumber_AsSsize_t(given, PyExc_OverflowError) : 0;
    if (capacity == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "a channel's capacity must lie between 0 and 2**31 - 1, not %R", given);
        return NULL;
    }
    if (capacity < 0 || capacity > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "a channel's capacity must lie between 0 and 2**31 - 1, not %zd", capacity);
        return NULL;
    }
    return (PyObject *)channel_make((uint32_t)capacity);
}

static int channel_traverse(ChannelObject *self, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < self->core.count; i++)
        Py_VISIT(as_object(self->core.ring[(self->core.head + i) % self->core.capacity]));
    return 0;
}

static int channel_clear(ChannelObject *self)
{
    uintptr_t word;
    while (self->core.count > 0 && pg_chan_recv(&self->core, &word, PG_NEVER_WAIT) == PG_OK) Py_DECREF(as_object(word));
    return 0;
}

static void channel_dealloc(ChannelObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, channel_dealloc)
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    if (self->alarm != NULL) alarm_free(self->alarm);
    channel_clear(self);
    pg_chan_free(&self->core);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static PyObject *channel_repr(ChannelObject *self)
{
    pg_chan *core = &self->core;
    return PyUnicode_FromFormat("<pygo.Channel at %p %s %u/%u buffered, %u receiving, %u sending>", self,
                                core->closed ? "closed" : "open", core->count, core->capacity, core->receiver_count,
                                core->sender_count);
}

static Py_ssize_t channel_length(ChannelObject *self) { return (Py_ssize_t)self->core.count; }
static PySequenceMethods channel_sequence = {.sq_length = (lenfunc)channel_length};

static PyObject *view_of(ChannelObject *channel, PyTypeObject *type, PyObject **slot)
{
    if (*slot != NULL) return Py_NewRef(*slot);
    ViewObject *view = PyObject_GC_New(ViewObject, type);
    if (view == NULL) return NULL;
    view->weakrefs = NULL;
    view->channel = (ChannelObject *)Py_NewRef((PyObject *)channel);
    *slot = (PyObject *)view;
    PyObject_GC_Track(view);
    return (PyObject *)view;
}

PyObject *channel_receiver(ChannelObject *channel) { return view_of(channel, &RecvChannel_Type, &channel->receiver); }

static PyObject *get_sender(ChannelObject *self, void *closure)
{
    return view_of(self, &SendChannel_Type, &self->sender);
}
static PyObject *get_receiver(ChannelObject *self, void *closure) { return channel_receiver(self); }
static PyObject *get_closed(ChannelObject *self, void *closure) { return PyBool_FromLong(self->core.closed); }
static PyObject *get_capacity(ChannelObject *self, void *closure)
{
    return PyLong_FromUnsignedLong(self->core.capacity);
}
static PyObject *get_waiting_receivers(ChannelObject *self, void *closure)
{
    return PyLong_FromUnsignedLong(self->core.receiver_count);
}
static PyObject *get_waiting_senders(ChannelObject *self, void *closure)
{
    return PyLong_FromUnsignedLong(self->core.sender_count);
}

/* `method`s that take the channel, for channels and (through view->channel) for views. */
#define DIRECT_FAST(name)                                                                                              \
    static PyObject *channel_##name(ChannelObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)  \
    {                                                                                                                  \
        return channel_##name##_impl(self, args, count, keywords);                                                     \
    }                                                                                                                  \
    static PyObject *view_##name(ViewObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)        \
    {                                                                                                                  \
        return channel_##name##_impl(self->channel, args, count, keywords);                                            \
    }
DIRECT_FAST(send)
DIRECT_FAST(recv)
DIRECT_FAST(recv_ok)

static PyObject *channel_try_send(ChannelObject *self, PyObject *value) { return channel_try_send_impl(self, value); }
static PyObject *view_try_send(ViewObject *self, PyObject *value) { return channel_try_send_impl(self->channel, value); }
static PyObject *channel_try_recv(ChannelObject *self, PyObject *unused) { return channel_try_recv_impl(self); }
static PyObject *view_try_recv(ViewObject *self, PyObject *unused) { return channel_try_recv_impl(self->channel); }
static PyObject *channel_close(ChannelObject *self, PyObject *unused) { return channel_close_impl(self); }
static PyObject *view_close(ViewObject *self, PyObject *unused) { return channel_close_impl(self->channel); }

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

PyDoc_STRVAR(send_doc, "send($self, /, value, timeout=None)\n--\n\n"
"Send a value; wait for a receiver, or for room in the buffer.\n\n"
"May be called from tasks and from any thread; only a task's own wait is cheap. timeout: seconds, None waits for ever,\n"
"0 tries once. Raises ChannelClosed when the channel is closed before or during the wait, and TimeoutError; then the\n"
"value was not sent.");
PyDoc_STRVAR(recv_doc, "recv($self, /, timeout=None)\n--\n\n"
"Receive the next value; wait for one.\n\n"
"timeout: seconds, None waits for ever, 0 tries once. Raises ChannelClosed when the channel is closed and drained, and\n"
"TimeoutError; then no value was taken.");
PyDoc_STRVAR(recv_ok_doc, "recv_ok($self, /, timeout=None)\n--\n\n"
"Receive as (value, True), or (None, False) when the channel is closed and drained: Go's `v, ok := <-ch`.\n\n"
"timeout: seconds, None waits for ever, 0 tries once. Raises TimeoutError; then no value was taken.");
PyDoc_STRVAR(try_send_doc, "try_send($self, value, /)\n--\n\n"
"Send without waiting: True when the value was taken or buffered, False when it would have to wait.\n\n"
"Raises ChannelClosed when the channel is closed.");
PyDoc_STRVAR(try_recv_doc, "try_recv($self, /)\n--\n\n"
"Receive without waiting: (value, True), or (None, False) when it would have to wait.\n\n"
"Raises ChannelClosed when the channel is closed and drained.");
PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
"Close the channel: senders raise ChannelClosed, receivers drain the buffer first. Wakes all that wait; never waits.\n\n"
"Raises ChannelClosed when it is closed already.");

static PyMethodDef channel_methods[] = {
    {"send", CALL(channel_send), FAST_KEYWORDS, send_doc},
    {"recv", CALL(channel_recv), FAST_KEYWORDS, recv_doc},
    {"recv_ok", CALL(channel_recv_ok), FAST_KEYWORDS, recv_ok_doc},
    {"try_send", (PyCFunction)channel_try_send, METH_O, try_send_doc},
    {"try_recv", (PyCFunction)channel_try_recv, METH_NOARGS, try_recv_doc},
    {"close", (PyCFunction)channel_close, METH_NOARGS, close_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Channel[T], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef channel_getset[] = {
    {"closed", (getter)get_closed, NULL, "Whether close() was called.", NULL},
    {"capacity", (getter)get_capacity, NULL, "How many values the buffer holds; 0: unbuffered.", NULL},
    {"waiting_receivers", (getter)get_waiting_receivers, NULL, "How many wait to receive now, selects included.", NULL},
    {"waiting_senders", (getter)get_waiting_senders, NULL, "How many wait to send now, selects included.", NULL},
    {"sender", (getter)get_sender, NULL, "The SendChannel view of this channel, the same each time.", NULL},
    {"receiver", (getter)get_receiver, NULL, "The RecvChannel view of this channel, the same each time.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(channel_doc, "Channel(capacity=0)\n--\n\n"
"A typed conduit between tasks: unbuffered (a send meets a receive) or a bounded first-in first-out buffer.\n\n"
"capacity: values the buffer holds. Iterating receives until the channel is closed and drained. Usable from tasks, the\n"
"main thread and any other thread. Semantics after Go's channels.\n\n"
"    >>> ch = Channel(2)\n"
"    >>> ch.send('a'); ch.send('b'); ch.close()\n"
"    >>> list(ch)\n"
"    ['a', 'b']");

PyTypeObject Channel_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Channel",
    .tp_basicsize = sizeof(ChannelObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = channel_doc,
    .tp_new = channel_new,
    .tp_dealloc = (destructor)channel_dealloc,
    .tp_traverse = (traverseproc)channel_traverse,
    .tp_clear = (inquiry)channel_clear,
    .tp_repr = (reprfunc)channel_repr,
    .tp_weaklistoffset = offsetof(ChannelObject, weakrefs),
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)channel_next_impl,
    .tp_as_number = &true_number,
    .tp_as_sequence = &channel_sequence,
    .tp_methods = channel_methods,
    .tp_getset = channel_getset,
};

/* ---- views ---- */

static int view_traverse(ViewObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->channel);
    return 0;
}

static void view_dealloc(ViewObject *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    if (self->channel->sender == (PyObject *)self) self->channel->sender = NULL;
    if (self->channel->receiver == (PyObject *)self) self->channel->receiver = NULL;
    Py_DECREF(self->channel);
    PyObject_GC_Del(self);
}

static PyObject *view_repr(ViewObject *self)
{
    return PyUnicode_FromFormat("<%s of %R>", Py_TYPE(self)->tp_name, self->channel);
}

static Py_ssize_t view_length(ViewObject *self) { return channel_length(self->channel); }
static PySequenceMethods view_sequence = {.sq_length = (lenfunc)view_length};
static PyObject *view_next(ViewObject *self) { return channel_next_impl(self->channel); }
static PyObject *view_closed(ViewObject *self, void *closure) { return get_closed(self->channel, closure); }
static PyObject *view_capacity(ViewObject *self, void *closure) { return get_capacity(self->channel, closure); }

static PyGetSetDef view_getset[] = {
    {"closed", (getter)view_closed, NULL, "Whether the channel is closed.", NULL},
    {"capacity", (getter)view_capacity, NULL, "How many values the buffer holds; 0: unbuffered.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef send_view_methods[] = {
    {"send", CALL(view_send), FAST_KEYWORDS, send_doc},
    {"try_send", (PyCFunction)view_try_send, METH_O, try_send_doc},
    {"close", (PyCFunction)view_close, METH_NOARGS, close_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "SendChannel[T], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef recv_view_methods[] = {
    {"recv", CALL(view_recv), FAST_KEYWORDS, recv_doc},
    {"recv_ok", CALL(view_recv_ok), FAST_KEYWORDS, recv_ok_doc},
    {"try_recv", (PyCFunction)view_try_recv, METH_NOARGS, try_recv_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "RecvChannel[T], for annotations."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject SendChannel_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.SendChannel",
    .tp_basicsize = sizeof(ViewObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "The sending side of a channel: `channel.sender`. Has no receiving methods.",
    .tp_dealloc = (destructor)view_dealloc,
    .tp_traverse = (traverseproc)view_traverse,
    .tp_repr = (reprfunc)view_repr,
    .tp_weaklistoffset = offsetof(ViewObject, weakrefs),
    .tp_as_number = &true_number,
    .tp_as_sequence = &view_sequence,
    .tp_methods = send_view_methods,
    .tp_getset = view_getset,
};

PyTypeObject RecvChannel_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.RecvChannel",
    .tp_basicsize = sizeof(ViewObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "The receiving side of a channel: `channel.receiver`. Has no sending methods; iterates.",
    .tp_dealloc = (destructor)view_dealloc,
    .tp_traverse = (traverseproc)view_traverse,
    .tp_repr = (reprfunc)view_repr,
    .tp_weaklistoffset = offsetof(ViewObject, weakrefs),
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)view_next,
    .tp_as_number = &true_number,
    .tp_as_sequence = &view_sequence,
    .tp_methods = recv_view_methods,
    .tp_getset = view_getset,
};

ChannelObject *channel_from(PyObject *object, bool to_send)
{
    if (Py_IS_TYPE(object, &Channel_Type)) return (ChannelObject *)object;
    if (Py_IS_TYPE(object, to_send ? &SendChannel_Type : &RecvChannel_Type)) return ((ViewObject *)object)->channel;
    PyErr_Format(PyExc_TypeError, "expected a Channel, a %s or None, not %.100s",
                 to_send ? "SendChannel" : "RecvChannel", Py_TYPE(object)->tp_name);
    return NULL;
}
