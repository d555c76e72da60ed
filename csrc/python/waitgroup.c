/* WaitGroup, after Go's sync.WaitGroup. */
#include "python/objects.h"

static PyObject *waitgroup_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":WaitGroup", keywords)) return NULL;
    WaitGroupObject *self = PyObject_New(WaitGroupObject, &WaitGroup_Type);
    if (self == NULL) return NULL;
    pg_latch_init(&self->core, 0);
    self->bubble = 0;
    self->on_failure = self->weakrefs = NULL;
    return (PyObject *)self;
}

static void waitgroup_dealloc(WaitGroupObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    Py_XDECREF(self->on_failure);
    PyObject_Free(self);
}

/* As in Go, a group belongs to the bubble whose add() raises the counter from zero, and until it is zero again nobody
 * else may raise it, nor, if it is a bubble's, lower it. */
static int check_place(WaitGroupObject *self, long long by)
{
    uint32_t here = pg_bubble_birthplace();
    if (by <= 0) return check_bubble(self->bubble, "done() of a WaitGroup");
    if (self->core.count == 0) self->bubble = here;
    if (self->bubble == here) return 0;
    PyErr_SetString(PyExc_RuntimeError, "add() to one WaitGroup from inside and outside of a bubble");
    return -1;
}

static PyObject *change(WaitGroupObject *self, long long by)
{
    if (PG_UNLIKELY(pg_load_relaxed(&pg_bubble_count) > 0 || self->bubble != 0) && check_place(self, by) < 0) return NULL;
    if (pg_latch_add(&self->core, by) == PG_OK) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, by < 0 ? "negative WaitGroup counter" : "WaitGroup counter too large");
    return NULL;
}

static PyObject *waitgroup_add(WaitGroupObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"n"};
    const call_arguments call = {"add", args, count, keywords};
    PyObject *number = count == 1 && keywords == NULL ? args[0] : NULL;
    if (PG_UNLIKELY(keywords != NULL || count > 1) && pick_arguments(&call, parameters, &number, 1) < 0) return NULL;
    if (number == NULL) return change(self, 1);
    long long by = PyLong_AsLongLong(number);
    return by == -1 && PyErr_Occurred() ? NULL : change(self, by);
}

static PyObject *waitgroup_done(WaitGroupObject *self, PyObject *unused) { return change(self, -1); }

static PyObject *waitgroup_wait(WaitGroupObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    wait_info info = {.reason = "wait group", .object = (PyObject *)self, .durable = is_own_bubble(self->bubble)};
    pg_nanos deadline;
    if (timeout_argument("wait", args, count, keywords, 0, &deadline) < 0) return NULL;
    note_wait(&info);
    int outcome = pg_latch_wait(&self->core, deadline);
    if (outcome != PG_OK) {
        raise_outcome(outcome, "the WaitGroup's counter did not reach zero in time");
        return NULL;
    }
    after_success();
    Py_RETURN_NONE;
}

static PyObject *waitgroup_go(WaitGroupObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (count == 0) {
        PyErr_SetString(PyExc_TypeError, "go() needs a callable");
        return NULL;
    }
    TaskObject *task = task_new(args[0], args + 1, count - 1, keywords, (PyObject *)self);
    if (task == NULL) return NULL;
    PyObject *added = change(self, 1);
    if (added == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    Py_DECREF(added);
    task_start(task);
    return (PyObject *)task;
}

static PyObject *waitgroup_repr(WaitGroupObject *self)
{
    return PyUnicode_FromFormat("<pygo.WaitGroup at %p count %lld, %u waiting>", self, (long long)self->core.count,
                                self->core.waiter_count);
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef waitgroup_methods[] = {
    {"add", CALL(waitgroup_add), FAST_KEYWORDS,
     PyDoc_STR("add($self, /, n=1)\n--\n\nAdd n (may be negative) to the counter. Raises ValueError, and changes nothing, "
               "if it would become\nnegative. Never waits.")},
    {"done", (PyCFunction)waitgroup_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nTake one off the counter: add(-1).")},
    {"wait", CALL(waitgroup_wait), FAST_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nWait until the counter is zero.\n\ntimeout: seconds. Raises "
               "TimeoutError. May be called from tasks and any thread, by many at once.")},
    {"go", CALL(waitgroup_go), FAST_KEYWORDS,
     PyDoc_STR("go($self, fn, /, *args, **kwargs)\n--\n\nSpawn fn(*args, **kwargs) as a task that is counted until it "
               "ends, and return the Task.")},
    {NULL, NULL, 0, NULL},
};

/* For TaskGroup, which takes it away again when the group is over: a cycle through it is not seen by the collector. */
static int set_on_failure(WaitGroupObject *self, PyObject *hook, void *closure)
{
    Py_XSETREF(self->on_failure, hook == NULL || hook == Py_None ? NULL : Py_NewRef(hook));
    return 0;
}

static PyObject *get_bubble(WaitGroupObject *self, void *closure) { return PyLong_FromUnsignedLong(self->bubble); }

static PyGetSetDef waitgroup_getset[] = {
    {"_on_failure", NULL, (setter)set_on_failure, NULL, NULL},
    {"_bubble", (getter)get_bubble, NULL, "The number of the bubble it belongs to, or 0.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject WaitGroup_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.WaitGroup",
    .tp_basicsize = sizeof(WaitGroupObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("WaitGroup()\n--\n\nWaits for a number of things to be done: a counter, and a wait until it is "
                        "zero. After Go's sync.WaitGroup.\n\n    >>> wg, seen = WaitGroup(), []\n"
                        "    >>> for i in range(3):\n    ...     _ = wg.go(seen.append, i)\n    >>> wg.wait()\n"
                        "    >>> sorted(seen)\n    [0, 1, 2]"),
    .tp_new = waitgroup_new,
    .tp_dealloc = (destructor)waitgroup_dealloc,
    .tp_repr = (reprfunc)waitgroup_repr,
    .tp_weaklistoffset = offsetof(WaitGroupObject, weakrefs),
    .tp_methods = waitgroup_methods,
    .tp_getset = waitgroup_getset,
};
