/* select() and its cases. */
#include "python/objects.h"

#include <string.h>

#include "base/failpoint.h"

/* ---- cases ---- */

static PyObject *case_make(PyObject *channel, bool is_send, PyObject *value)
{
    ChannelObject *chosen = NULL;
    if (channel != Py_None && (chosen = channel_from(channel, is_send)) == NULL) return NULL;
    CaseObject *self = PyObject_GC_New(CaseObject, &Case_Type);
    if (self == NULL) return NULL;
    self->channel = (ChannelObject *)Py_XNewRef((PyObject *)chosen);
    self->is_send = is_send;
    self->value = Py_XNewRef(value);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int case_traverse(CaseObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->channel);
    Py_VISIT(self->value);
    return 0;
}

static int case_clear(CaseObject *self)
{
    Py_CLEAR(self->value);
    return 0;
}

static void case_dealloc(CaseObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->channel);
    Py_XDECREF(self->value);
    PyObject_GC_Del(self);
}

static PyObject *case_repr(CaseObject *self)
{
    PyObject *channel = self->channel ? (PyObject *)self->channel : Py_None;
    if (self->is_send) return PyUnicode_FromFormat("<pygo.send case of %R, value %R>", channel, self->value);
    return PyUnicode_FromFormat("<pygo.recv case of %R>", channel);
}

PyTypeObject Case_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Case",
    .tp_basicsize = sizeof(CaseObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "One operation that select() may do: made by recv(channel) or send(channel, value), reusable.",
    .tp_dealloc = (destructor)case_dealloc,
    .tp_traverse = (traverseproc)case_traverse,
    .tp_clear = (inquiry)case_clear,
    .tp_repr = (reprfunc)case_repr,
};

static PyObject *make_recv(PyObject *module, PyObject *channel) { return case_make(channel, false, NULL); }

static PyObject *make_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count == 2) return case_make(args[0], true, args[1]);
    PyErr_Format(PyExc_TypeError, "send() takes a channel and a value, %zd arguments were given", count);
    return NULL;
}

/* ---- select ---- */

static PyObject *selected_make(Py_ssize_t index, PyObject *value, bool ok) /* steals value */
{
    PyTypeObject *type = (PyTypeObject *)names.selected; /* a named tuple: a tuple with names for its places */
    PyObject *self = type->tp_alloc(type, 3);
    PyObject *number = PyLong_FromSsize_t(index);
    if (self == NULL || number == NULL) {
        Py_XDECREF(self);
        Py_XDECREF(number);
        Py_DECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(self, 0, number);
    PyTuple_SET_ITEM(self, 1, value);
    PyTuple_SET_ITEM(self, 2, PyBool_FromLong(ok));
    return self;
}

static PyObject *run_cases(PyObject *const *args, pg_case *cases, Py_ssize_t count, pg_nanos deadline, bool has_default)
{
    wait_info info = {.reason = "select", .objects = args, .count = count};
    pg_selected selected;
    for (Py_ssize_t i = 0; i < count; i++) {
        CaseObject *one = (CaseObject *)args[i];
        cases[i] = (pg_case){one->channel ? &one->channel->core : NULL, one->is_send, (uintptr_t)one->value};
        Py_INCREF(one); /* with its channel and its value, whatever the caller's frame does */
        Py_XINCREF(one->value); /* what the channel takes over if a send is chosen */
    }
    note_wait(&info);
    int outcome = pg_select(cases, (uint32_t)count, has_default ? PG_NEVER_WAIT : deadline, &selected);
    bool closed_send = outcome == PG_OK && cases[selected.index].is_send && !selected.ok;
    for (Py_ssize_t i = 0; i < count; i++) {
        CaseObject *one = (CaseObject *)args[i];
        bool sent = outcome == PG_OK && i == selected.index && one->is_send && selected.ok;
        if (!sent) Py_XDECREF((PyObject *)cases[i].value);
        Py_DECREF(one);
    }
    if (outcome == PG_EAGAIN && has_default) return selected_make(-1, Py_NewRef(Py_None), false);
    if (outcome != PG_OK) {
        raise_outcome(outcome, "no case of the select was ready in time");
        return NULL;
    }
    after_success();
    if (closed_send) {
        raise_outcome(PG_ECLOSED, "select chose a send on a closed channel");
        return NULL;
    }
    bool got = !cases[selected.index].is_send && selected.ok;
    return selected_make(selected.index, got ? (PyObject *)selected.value : Py_NewRef(Py_None), selected.ok);
}

static PyObject *do_select(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_case few[8], *cases = few;
    pg_nanos deadline;
    Py_ssize_t used = 0;
    PyObject *fallback = keyword(args, count, keywords, "default", &used);
    PyObject *timeout = keyword(args, count, keywords, "timeout", &used);
    if (check_keywords("select", keywords, used) < 0 || deadline_from(timeout, &deadline) < 0) return NULL;
    int has_default = fallback ? PyObject_IsTrue(fallback) : 0;
    if (has_default < 0) return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!Py_IS_TYPE(args[i], &Case_Type)) {
            PyErr_Format(PyExc_TypeError, "select() takes cases made by recv() and send(); argument %zd is %.100s", i + 1,
                         Py_TYPE(args[i])->tp_name);
            return NULL;
        }
        ChannelObject *channel = ((CaseObject *)args[i])->channel;
        if (channel != NULL && check_bubble(channel->core.bubble, "select on a channel") < 0) return NULL;
    }
    if (count > 8 && (cases = pg_fails(select_cases) ? NULL : PyMem_New(pg_case, count)) == NULL) return PyErr_NoMemory();
    PyObject *result = run_cases(args, cases, count, deadline, has_default);
    if (cases != few) PyMem_Free(cases);
    return result;
}

PyMethodDef select_methods[] = {
    {"recv", make_recv, METH_O,
     PyDoc_STR("recv(channel, /)\n--\n\nA select case that receives from a channel (or RecvChannel); None: never ready.")},
    {"send", (PyCFunction)(void (*)(void))make_send, METH_FASTCALL,
     PyDoc_STR("send(channel, value, /)\n--\n\nA select case that sends a value to a channel (or SendChannel); None: "
               "never ready.")},
    {"select", (PyCFunction)(void (*)(void))do_select, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("select(*cases, default=False, timeout=None)\n--\n\n"
               "Do exactly one of the cases: wait until one can go on, choose uniformly among those that can.\n\n"
               "Returns Selected(index, value, ok): the case's position, the received value (None for a send), and False "
               "for a\nreceive from a closed and drained channel. default=True: nothing ready gives index -1 at once. "
               "timeout: seconds.\nRaises TimeoutError, and ChannelClosed when a send on a closed channel is chosen. "
               "Without cases and default it\nwaits for ever. Semantics after Go's select.")},
    {NULL, NULL, 0, NULL},
};
