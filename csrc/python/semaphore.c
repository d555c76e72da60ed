/* Semaphore, BoundedSemaphore and Event, with the signatures of threading's; WeightedSemaphore, after Go's x/sync. */
#include "python/objects.h"

#include <string.h>

/* ---- what all semaphores share ---- */

static PyObject *semaphore_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    SemaphoreObject *self = (SemaphoreObject *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    pg_semaphore_init(&self->core, 0);
    self->limit = INT64_MAX;
    self->bubble = pg_bubble_birthplace();
    return (PyObject *)self;
}

static void semaphore_dealloc(SemaphoreObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    Py_TYPE(self)->tp_free(self);
}

/* A number of permits, at least `least`. */
static int permits_from(PyObject *object, long long least, const char *complaint, int64_t *permits)
{
    *permits = 1;
    if (object == NULL) return 0;
    long long value = PyLong_AsLongLong(object);
    if (value == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        value = LLONG_MIN;
    }
    if (value >= least) {
        *permits = value;
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, complaint);
    return -1;
}

static PyObject *semaphore_take(SemaphoreObject *self, int64_t permits, pg_nanos deadline)
{
    wait_info info = {.reason = "semaphore", .object = (PyObject *)self};
    if (check_bubble(self->bubble, "acquire of a semaphore") < 0) return NULL;
    const pg_patience patience = {.deadline = deadline, .durable = self->bubble != 0, .note = &info};
    return truth_of(pg_semaphore_acquire(&self->core, permits, &patience), "semaphore");
}

/* `blocking` and `timeout`, either of which may be NULL. */
static int semaphore_deadline(PyObject *blocking, PyObject *timeout, pg_nanos *deadline)
{
    int waits = blocking != NULL ? PyObject_IsTrue(blocking) : 1;
    if (waits < 0) return -1;
    if (!waits && timeout != NULL && timeout != Py_None) {
        PyErr_SetString(PyExc_ValueError, "can't specify timeout for non-blocking acquire");
        return -1;
    }
    if (patience_from(timeout, deadline) < 0) return -1;
    if (!waits) *deadline = PG_NEVER_WAIT;
    return 0;
}

/* ---- Semaphore and BoundedSemaphore ---- */

static int semaphore_init(SemaphoreObject *self, PyObject *args, PyObject *kwargs)
{
    static char *parameters[] = {"value", NULL};
    PyObject *value = NULL;
    int64_t permits;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Semaphore", parameters, &value)) return -1;
    if (permits_from(value, 0, "semaphore initial value must be >= 0", &permits) < 0) return -1;
    if (self->core.waiter_count > 0) {
        PyErr_SetString(PyExc_RuntimeError, "the semaphore is in use");
        return -1;
    }
    self->limit = INT64_MAX;
    self->core.available = permits;
    return 0;
}

static int bounded_init(SemaphoreObject *self, PyObject *args, PyObject *kwargs)
{
    if (semaphore_init(self, args, kwargs) < 0) return -1;
    self->limit = self->core.available;
    return 0;
}

static PyObject *semaphore_acquire(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"blocking", "timeout"};
    const call_arguments call = {"acquire", args, count, keywords};
    PyObject *values[2];
    pg_nanos deadline = PG_FOREVER;
    if (PG_UNLIKELY(count != 0 || keywords != NULL)) {
        if (pick_arguments(&call, parameters, values, 2) < 0) return NULL;
        if (semaphore_deadline(values[0], values[1], &deadline) < 0) return NULL;
    }
    return semaphore_take(self, 1, deadline);
}

static PyObject *semaphore_enter(SemaphoreObject *self, PyObject *unused) { return semaphore_take(self, 1, PG_FOREVER); }

static PyObject *give_back(SemaphoreObject *self, int64_t permits, const char *complaint)
{
    if (check_bubble(self->bubble, "release of a semaphore") < 0) return NULL;
    if (pg_semaphore_release(&self->core, permits, self->limit) == PG_OK) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, complaint);
    return NULL;
}

static PyObject *semaphore_release(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"n"};
    const call_arguments call = {"release", args, count, keywords};
    PyObject *number = NULL;
    int64_t permits = 1;
    if (PG_UNLIKELY(count != 0 || keywords != NULL)) {
        if (pick_arguments(&call, parameters, &number, 1) < 0) return NULL;
        if (permits_from(number, 1, "n must be one or more", &permits) < 0) return NULL;
    }
    return give_back(self, permits, "Semaphore released too many times");
}

static PyObject *semaphore_exit(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count)
{
    return give_back(self, 1, "Semaphore released too many times");
}

static PyObject *semaphore_repr(SemaphoreObject *self)
{
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    name = name != NULL ? name + 1 : Py_TYPE(self)->tp_name;
    if (self->limit == INT64_MAX)
        return PyUnicode_FromFormat("<sync.%s at %p: value=%lld>", name, self, (long long)self->core.available);
    return PyUnicode_FromFormat("<sync.%s at %p: value=%lld/%lld>", name, self, (long long)self->core.available,
                                (long long)self->limit);
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef semaphore_methods[] = {
    {"acquire", CALL(semaphore_acquire), FAST_KEYWORDS,
     PyDoc_STR("acquire($self, /, blocking=True, timeout=None)\n--\n\nTake a permit, waiting for one if need be; return "
               "whether it was taken.\n\nblocking: False tries once. timeout: seconds, None for ever. Waiters are served in "
               "the order of their coming.\nRaises ValueError for a timeout without blocking. May be called from tasks and "
               "any thread.")},
    {"release", CALL(semaphore_release), FAST_KEYWORDS,
     PyDoc_STR("release($self, /, n=1)\n--\n\nGive n permits back, to those who wait first. Never waits.\n\nRaises ValueError "
               "if n is not positive; of a BoundedSemaphore also, and nothing happens, if there would be more\npermits than in "
               "the beginning.")},
    {"__enter__", (PyCFunction)semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", CALL(semaphore_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Semaphore_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.Semaphore",
    .tp_basicsize = sizeof(SemaphoreObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = PyDoc_STR("Semaphore(value=1)\n--\n\nA number of permits, like threading.Semaphore; waiters are served in the "
                        "order of their coming.\n\nRaises ValueError for a negative value.\n\n"
                        "    >>> from pygo.sync import Semaphore\n    >>> two = Semaphore(2)\n    >>> with two, two:\n"
                        "    ...     two.acquire(timeout=0.01)\n    False"),
    .tp_new = semaphore_new,
    .tp_init = (initproc)semaphore_init,
    .tp_dealloc = (destructor)semaphore_dealloc,
    .tp_repr = (reprfunc)semaphore_repr,
    .tp_weaklistoffset = offsetof(SemaphoreObject, weakrefs),
    .tp_methods = semaphore_methods,
};

PyTypeObject BoundedSemaphore_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.BoundedSemaphore",
    .tp_basicsize = sizeof(SemaphoreObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = PyDoc_STR("BoundedSemaphore(value=1)\n--\n\nA Semaphore that never has more permits than in the beginning: to "
                        "release one too many raises ValueError."),
    .tp_base = &Semaphore_Type,
    .tp_init = (initproc)bounded_init,
};

/* ---- WeightedSemaphore ---- */

static int weighted_init(SemaphoreObject *self, PyObject *args, PyObject *kwargs)
{
    static char *parameters[] = {"size", NULL};
    PyObject *size;
    int64_t permits;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:WeightedSemaphore", parameters, &size)) return -1;
    if (permits_from(size, 0, "the size must not be negative", &permits) < 0) return -1;
    if (self->core.waiter_count > 0) {
        PyErr_SetString(PyExc_RuntimeError, "the semaphore is in use");
        return -1;
    }
    self->limit = self->core.available = permits;
    return 0;
}

static int weight_from(SemaphoreObject *self, PyObject *number, int64_t *permits)
{
    if (permits_from(number, 0, "a weight must not be negative", permits) < 0) return -1;
    if (*permits <= self->limit) return 0;
    PyErr_Format(PyExc_ValueError, "a weight of %lld is more than the whole semaphore's %lld", (long long)*permits,
                 (long long)self->limit);
    return -1;
}

static PyObject *weighted_acquire(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"n", "blocking", "timeout"};
    const call_arguments call = {"acquire", args, count, keywords};
    PyObject *values[3];
    int64_t permits;
    pg_nanos deadline;
    if (pick_arguments(&call, parameters, values, 3) < 0) return NULL;
    if (weight_from(self, values[0], &permits) < 0) return NULL;
    if (semaphore_deadline(values[1], values[2], &deadline) < 0) return NULL;
    return semaphore_take(self, permits, deadline);
}

static PyObject *weighted_try(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"n"};
    const call_arguments call = {"try_acquire", args, count, keywords};
    PyObject *number;
    int64_t permits;
    if (pick_arguments(&call, parameters, &number, 1) < 0 || weight_from(self, number, &permits) < 0) return NULL;
    return semaphore_take(self, permits, PG_NEVER_WAIT);
}

static PyObject *weighted_release(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"n"};
    const call_arguments call = {"release", args, count, keywords};
    PyObject *number;
    int64_t permits;
    if (pick_arguments(&call, parameters, &number, 1) < 0) return NULL;
    if (permits_from(number, 0, "a weight must not be negative", &permits) < 0) return NULL;
    return give_back(self, permits, "released more than was acquired");
}

static PyObject *weighted_exit(SemaphoreObject *self, PyObject *const *args, Py_ssize_t count)
{
    return give_back(self, 1, "released more than was acquired");
}

static PyMethodDef weighted_methods[] = {
    {"acquire", CALL(weighted_acquire), FAST_KEYWORDS,
     PyDoc_STR("acquire($self, /, n=1, blocking=True, timeout=None)\n--\n\nTake n permits at once, waiting for them if need "
               "be; return whether they were taken.\n\nblocking: False tries once. timeout: seconds, None for ever. Nobody "
               "overtakes the waiter in front, however little he\nasks for. Raises ValueError if n is negative or more than "
               "the size, or for a timeout without blocking.\nMay be called from tasks and any thread.")},
    {"try_acquire", CALL(weighted_try), FAST_KEYWORDS,
     PyDoc_STR("try_acquire($self, /, n=1)\n--\n\nTake n permits if they are there and nobody waits; return whether they "
               "were taken. Never waits.")},
    {"release", CALL(weighted_release), FAST_KEYWORDS,
     PyDoc_STR("release($self, /, n=1)\n--\n\nGive n permits back. Never waits.\n\nRaises ValueError, and nothing happens, if "
               "more would be free than the size.")},
    {"__enter__", (PyCFunction)semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", CALL(weighted_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject WeightedSemaphore_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.WeightedSemaphore",
    .tp_basicsize = sizeof(SemaphoreObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = PyDoc_STR("WeightedSemaphore(size)\n--\n\nPermits that are taken some at a time, first come first served. After "
                        "Go's x/sync/semaphore.\n\nIf the waiter in front gives up, those behind it that fit go on. Raises "
                        "ValueError for a negative size.\n\n    >>> from pygo.sync import WeightedSemaphore\n"
                        "    >>> memory = WeightedSemaphore(100)\n    >>> memory.acquire(60)\n    True\n"
                        "    >>> memory.try_acquire(60)\n    False\n    >>> memory.release(60)"),
    .tp_new = semaphore_new,
    .tp_init = (initproc)weighted_init,
    .tp_dealloc = (destructor)semaphore_dealloc,
    .tp_repr = (reprfunc)semaphore_repr,
    .tp_weaklistoffset = offsetof(SemaphoreObject, weakrefs),
    .tp_methods = weighted_methods,
};

/* ---- Event: a latch that can be set up again ---- */

static PyObject *event_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!takes_nothing(type, &Event_Type, args, kwargs)) return NULL;
    EventObject *self = (EventObject *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    pg_latch_init(&self->core, 1);
    self->bubble = pg_bubble_birthplace();
    return (PyObject *)self;
}

static void event_dealloc(EventObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    Py_TYPE(self)->tp_free(self);
}

/* All of these hold the interpreter between looking and changing. */
static bool event_flag(EventObject *self) { return self->core.count == 0; }

static PyObject *event_set(EventObject *self, PyObject *unused)
{
    if (check_bubble(self->bubble, "set() of an event") < 0) return NULL;
    if (!event_flag(self)) pg_latch_add(&self->core, -1);
    Py_RETURN_NONE;
}

static PyObject *event_clear(EventObject *self, PyObject *unused)
{
    if (event_flag(self)) pg_latch_add(&self->core, 1);
    Py_RETURN_NONE;
}

static PyObject *event_is_set(EventObject *self, PyObject *unused) { return PyBool_FromLong(event_flag(self)); }

static PyObject *event_wait(EventObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const parameters[] = {"timeout"};
    const call_arguments call = {"wait", args, count, keywords};
    wait_info info = {.reason = "event", .object = (PyObject *)self, .durable = is_own_bubble(self->bubble)};
    PyObject *timeout;
    pg_nanos deadline;
    if (pick_arguments(&call, parameters, &timeout, 1) < 0 || patience_from(timeout, &deadline) < 0) return NULL;
    note_wait(&info);
    return truth_of(pg_latch_wait(&self->core, deadline), "event");
}

static PyObject *event_repr(EventObject *self)
{
    return PyUnicode_FromFormat("<sync.Event at %p: %s>", self, event_flag(self) ? "set" : "unset");
}

static PyMethodDef event_methods[] = {
    {"set", (PyCFunction)event_set, METH_NOARGS,
     PyDoc_STR("set($self, /)\n--\n\nSet the flag, and wake all who wait for it. Never waits.")},
    {"clear", (PyCFunction)event_clear, METH_NOARGS,
     PyDoc_STR("clear($self, /)\n--\n\nTake the flag back; who was woken before stays woken. Never waits.")},
    {"is_set", (PyCFunction)event_is_set, METH_NOARGS, PyDoc_STR("is_set($self, /)\n--\n\nWhether the flag is set.")},
    {"wait", CALL(event_wait), FAST_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nWait until the flag is set; return True, or False when the time has "
               "passed first.\n\ntimeout: seconds. True also if the flag was set and cleared while waiting. From tasks and any "
               "thread.")},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Event_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.Event",
    .tp_basicsize = sizeof(EventObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = PyDoc_STR("Event()\n--\n\nA flag to wait for, like threading.Event.\n\n    >>> from pygo.sync import Event\n"
                        "    >>> event = Event()\n    >>> event.wait(timeout=0.01)\n    False\n    >>> event.set()\n"
                        "    >>> event.wait()\n    True"),
    .tp_new = event_new,
    .tp_dealloc = (destructor)event_dealloc,
    .tp_repr = (reprfunc)event_repr,
    .tp_weaklistoffset = offsetof(EventObject, weakrefs),
    .tp_methods = event_methods,
};
