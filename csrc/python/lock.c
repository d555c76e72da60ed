/* Lock and RLock, with the signatures of threading's, owned by tasks. */
#include "python/objects.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* ---- arguments ---- */

/* What threading.TIMEOUT_MAX is on 64-bit systems. */
#define LONGEST_TIMEOUT 9223372036.0

/* A timeout as a deadline; negative and zero: PG_NEVER_WAIT. */
static int timeout_from(PyObject *object, double seconds, pg_nanos *deadline)
{
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a timeout must not be NaN");
        return -1;
    }
    if (seconds > LONGEST_TIMEOUT) {
        PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
        return -1;
    }
    *deadline = seconds <= 0 ? PG_NEVER_WAIT : pg_sched_deadline_after((pg_nanos)ceil(seconds * 1e9));
    return 0;
}

int patience_from(PyObject *timeout, pg_nanos *deadline)
{
    *deadline = PG_FOREVER;
    if (timeout == NULL || timeout == Py_None) return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) return -1;
    return timeout_from(timeout, seconds, deadline);
}

/* One parameter by position or name. -1 when it was given twice. */
static int pick(const call_arguments *call, Py_ssize_t at, const char *name, Py_ssize_t *used, PyObject **value)
{
    PyObject *named = keyword(call->args, call->count, call->keywords, name, used);
    if (named != NULL && call->count > at) {
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", call->function, name);
        return -1;
    }
    *value = call->count > at ? call->args[at] : named;
    return 0;
}

int pick_arguments(const call_arguments *call, const char *const *parameters, PyObject **values, Py_ssize_t many)
{
    Py_ssize_t used = 0;
    if (call->count > many) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", call->function, many, call->count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < many; i++)
        if (pick(call, i, parameters[i], &used, &values[i]) < 0) return -1;
    return check_keywords(call->function, call->keywords, used);
}

/* acquire(blocking=True, timeout=-1), by the rules of threading.Lock. */
static int lock_deadline(PyObject *const *args, Py_ssize_t count, PyObject *keywords, pg_nanos *deadline)
{
    static const char *const parameters[] = {"blocking", "timeout"};
    const call_arguments call = {"acquire", args, count, keywords};
    PyObject *values[2];
    if (pick_arguments(&call, parameters, values, 2) < 0) return -1;
    int blocking = values[0] != NULL ? PyObject_IsTrue(values[0]) : 1;
    double seconds = values[1] != NULL ? PyFloat_AsDouble(values[1]) : -1;
    if (blocking < 0 || (seconds == -1.0 && PyErr_Occurred())) return -1;
    if (!blocking && seconds != -1) {
        PyErr_SetString(PyExc_ValueError, "can't specify a timeout for a non-blocking call");
        return -1;
    }
    if (seconds < 0 && seconds != -1) {
        PyErr_SetString(PyExc_ValueError, "timeout value must be a non-negative number");
        return -1;
    }
    *deadline = blocking ? PG_FOREVER : PG_NEVER_WAIT;
    return seconds == -1 ? 0 : timeout_from(values[1], seconds, deadline);
}

PyObject *truth_of(int outcome, const char *what)
{
    switch (outcome) {
    case PG_OK: after_success(); Py_RETURN_TRUE;
    case PG_EAGAIN:
    case PG_ETIMEDOUT: Py_RETURN_FALSE;
    default: raise_outcome(outcome, what); return NULL;
    }
}

/* ---- who is asking ---- */

/* The running task, or the thread outside of tasks, as a number that no other living one has. Ids of tasks are never
 * used again, so a lock that a task has left behind is not taken for a later task's own. */
static uint64_t caller_id(void)
{
    TaskObject *task = task_current();
    if (task != NULL) return task->id << 1 | 1; /* the others are addresses, and even */
    pg_fiber *fiber = pg_sched_fiber();
    return fiber != NULL ? (uintptr_t)fiber : (uint64_t)pthread_self();
}

/* ---- waiting ---- */

static int acquire_slow(pg_mutex *mutex, PyObject *self, uint32_t bubble, bool shielded, pg_nanos deadline)
{
    if (check_bubble(bubble, "acquire of a lock") < 0) return PG_EINVAL;
    wait_info info = {.reason = "lock", .object = self};
    const pg_patience patience = {.deadline = deadline, .shielded = shielded && deadline == PG_FOREVER,
                                  .durable = bubble != 0, .note = &info};
    return pg_mutex_acquire(mutex, &patience);
}

static inline int acquire(pg_mutex *mutex, PyObject *self, uint32_t bubble, bool shielded, pg_nanos deadline)
{
    return PG_LIKELY(pg_mutex_try(mutex)) ? PG_OK : acquire_slow(mutex, self, bubble, shielded, deadline);
}

static PyObject *release_failed(const char *what)
{
    PyErr_SetString(PyExc_RuntimeError, what);
    return NULL;
}

/* ---- Lock ---- */

static LockObject *lock_make(bool shielded)
{
    LockObject *self = PyObject_New(LockObject, &Lock_Type);
    if (self == NULL) return NULL;
    pg_mutex_init(&self->core);
    self->shielded = shielded;
    self->bubble = pg_bubble_birthplace();
    self->weakrefs = NULL;
    return self;
}

static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *parameters[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Lock", parameters)) return NULL;
    return (PyObject *)lock_make(false);
}

static void lock_dealloc(LockObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    PyObject_Free(self);
}

static PyObject *lock_take(LockObject *self, pg_nanos deadline)
{
    return truth_of(acquire(&self->core, (PyObject *)self, self->bubble, self->shielded, deadline), "Lock.acquire");
}

static PyObject *lock_acquire(LockObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline = PG_FOREVER;
    if (PG_UNLIKELY(count != 0 || keywords != NULL) && lock_deadline(args, count, keywords, &deadline) < 0) return NULL;
    return lock_take(self, deadline);
}

static PyObject *lock_enter(LockObject *self, PyObject *unused) { return lock_take(self, PG_FOREVER); }

static PyObject *lock_release(LockObject *self, PyObject *unused)
{
    if (PG_UNLIKELY(pg_mutex_release(&self->core) != PG_OK)) return release_failed("release unlocked lock");
    Py_RETURN_NONE;
}

static PyObject *lock_exit(LockObject *self, PyObject *const *args, Py_ssize_t count)
{
    return lock_release(self, NULL);
}

static PyObject *lock_locked(LockObject *self, PyObject *unused)
{
    return PyBool_FromLong(pg_mutex_is_held(&self->core));
}

static PyObject *lock_acquire_restore(LockObject *self, PyObject *state)
{
    return truth_of(acquire(&self->core, (PyObject *)self, self->bubble, true, PG_FOREVER), "Lock.acquire");
}

/* In a fork's child the waiters are gone; elsewhere this is a release. */
static PyObject *lock_reinit(LockObject *self, PyObject *unused)
{
    pg_mutex_release(&self->core);
    Py_RETURN_NONE;
}

static PyObject *lock_repr(LockObject *self)
{
    return PyUnicode_FromFormat("<%s sync.Lock object at %p>", pg_mutex_is_held(&self->core) ? "locked" : "unlocked",
                                self);
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

#define ACQUIRE_DOC                                                                                                   \
    "acquire($self, /, blocking=True, timeout=-1)\n--\n\nTake the lock, waiting for it if need be; return whether it "  \
    "was taken.\n\nblocking: False tries once. timeout: seconds, -1 for ever. Waiters are served in the order of their " \
    "coming.\nRaises ValueError for a negative timeout or one without blocking, OverflowError for one over "            \
    "threading.TIMEOUT_MAX.\nMay be called from tasks and any thread."

static PyMethodDef lock_methods[] = {
    {"acquire", CALL(lock_acquire), FAST_KEYWORDS, PyDoc_STR(ACQUIRE_DOC)},
    {"release", (PyCFunction)lock_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nGive the lock to the waiter in front, or make it free. Any task or thread may do "
               "so; never waits.\n\nRaises RuntimeError if it is not locked.")},
    {"locked", (PyCFunction)lock_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether somebody holds the lock.")},
    {"__enter__", (PyCFunction)lock_enter, METH_NOARGS, NULL},
    {"__exit__", CALL(lock_exit), METH_FASTCALL, NULL},
    {"_is_owned", (PyCFunction)lock_locked, METH_NOARGS, NULL},
    {"_release_save", (PyCFunction)lock_release, METH_NOARGS, NULL},
    {"_acquire_restore", (PyCFunction)lock_acquire_restore, METH_O, NULL},
    {"_at_fork_reinit", (PyCFunction)lock_reinit, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Lock_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.Lock",
    .tp_basicsize = sizeof(LockObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("Lock()\n--\n\nMutual exclusion, like threading.Lock, for tasks and threads alike. Under contention "
                        "it is handed over in the\norder of arrival.\n\n    >>> from pygo.sync import Lock\n"
                        "    >>> lock = Lock()\n    >>> with lock:\n    ...     lock.acquire(blocking=False)\n    False"),
    .tp_new = lock_new,
    .tp_dealloc = (destructor)lock_dealloc,
    .tp_repr = (reprfunc)lock_repr,
    .tp_weaklistoffset = offsetof(LockObject, weakrefs),
    .tp_methods = lock_methods,
};

/* ---- RLock ---- */

bool takes_nothing(PyTypeObject *type, PyTypeObject *base, PyObject *args, PyObject *kwargs)
{
    if (type != base) return true; /* arguments are for the subclass's __init__ */
    if (PyTuple_GET_SIZE(args) == 0 && (kwargs == NULL || PyDict_GET_SIZE(kwargs) == 0)) return true;
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments", strrchr(base->tp_name, '.') + 1);
    return false;
}

static PyObject *rlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!takes_nothing(type, &RLock_Type, args, kwargs)) return NULL;
    RLockObject *self = (RLockObject *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    pg_mutex_init(&self->core);
    self->bubble = pg_bubble_birthplace();
    return (PyObject *)self;
}

static void rlock_dealloc(RLockObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    Py_TYPE(self)->tp_free(self);
}

/* Take it `depth` times, as its new owner. */
static PyObject *rlock_take(RLockObject *self, uint64_t caller, size_t depth, bool shielded, pg_nanos deadline)
{
    int outcome = acquire(&self->core, (PyObject *)self, self->bubble, shielded, deadline);
    if (PG_LIKELY(outcome == PG_OK)) {
        self->owner = caller;
        self->depth = depth;
    }
    return truth_of(outcome, "RLock.acquire");
}

static PyObject *rlock_take_once(RLockObject *self, pg_nanos deadline)
{
    uint64_t caller = caller_id();
    if (self->owner != caller) return rlock_take(self, caller, 1, false, deadline);
    self->depth++;
    Py_RETURN_TRUE;
}

static PyObject *rlock_acquire(RLockObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline = PG_FOREVER;
    if (PG_UNLIKELY(count != 0 || keywords != NULL) && lock_deadline(args, count, keywords, &deadline) < 0) return NULL;
    return rlock_take_once(self, deadline);
}

static PyObject *rlock_enter(RLockObject *self, PyObject *unused) { return rlock_take_once(self, PG_FOREVER); }

static void rlock_let_go(RLockObject *self)
{
    self->owner = 0;
    self->depth = 0;
    pg_mutex_release(&self->core);
}

static PyObject *rlock_release(RLockObject *self, PyObject *unused)
{
    if (PG_UNLIKELY(self->owner != caller_id())) return release_failed("cannot release un-acquired lock");
    if (--self->depth == 0) rlock_let_go(self);
    Py_RETURN_NONE;
}

static PyObject *rlock_exit(RLockObject *self, PyObject *const *args, Py_ssize_t count)
{
    return rlock_release(self, NULL);
}

static PyObject *rlock_locked(RLockObject *self, PyObject *unused)
{
    return PyBool_FromLong(pg_mutex_is_held(&self->core));
}

static PyObject *rlock_is_owned(RLockObject *self, PyObject *unused)
{
    return PyBool_FromLong(self->owner == caller_id());
}

static PyObject *rlock_recursion_count(RLockObject *self, PyObject *unused)
{
    return PyLong_FromSize_t(self->owner == caller_id() ? self->depth : 0);
}

static PyObject *rlock_release_save(RLockObject *self, PyObject *unused)
{
    if (self->owner != caller_id()) return release_failed("cannot release un-acquired lock");
    PyObject *depth = PyLong_FromSize_t(self->depth);
    if (depth != NULL) rlock_let_go(self);
    return depth;
}

static PyObject *rlock_acquire_restore(RLockObject *self, PyObject *state)
{
    size_t depth = PyLong_AsSize_t(state);
    if (depth == (size_t)-1 && PyErr_Occurred()) return NULL;
    return rlock_take(self, caller_id(), depth, true, PG_FOREVER);
}

static PyObject *rlock_reinit(RLockObject *self, PyObject *unused)
{
    if (pg_mutex_is_held(&self->core)) rlock_let_go(self);
    Py_RETURN_NONE;
}

static PyObject *rlock_repr(RLockObject *self)
{
    const char *state = pg_mutex_is_held(&self->core) ? "locked" : "unlocked";
    if (self->owner & 1)
        return PyUnicode_FromFormat("<%s sync.RLock object owner=task %llu count=%zu at %p>", state,
                                    (unsigned long long)(self->owner >> 1), self->depth, self);
    return PyUnicode_FromFormat("<%s sync.RLock object owner=%llu count=%zu at %p>", state,
                                (unsigned long long)self->owner, self->depth, self);
}

static PyMethodDef rlock_methods[] = {
    {"acquire", CALL(rlock_acquire), FAST_KEYWORDS, PyDoc_STR(ACQUIRE_DOC "\n\nThe owner takes it once more at once.")},
    {"release", (PyCFunction)rlock_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nTake one acquire() back; with the last one the lock goes to the waiter in front, or "
               "becomes free.\n\nRaises RuntimeError if the caller is not its owner.")},
    {"locked", (PyCFunction)rlock_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether somebody holds the lock.")},
    {"__enter__", (PyCFunction)rlock_enter, METH_NOARGS, NULL},
    {"__exit__", CALL(rlock_exit), METH_FASTCALL, NULL},
    {"_is_owned", (PyCFunction)rlock_is_owned, METH_NOARGS, NULL},
    {"_recursion_count", (PyCFunction)rlock_recursion_count, METH_NOARGS, NULL},
    {"_release_save", (PyCFunction)rlock_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", (PyCFunction)rlock_acquire_restore, METH_O, NULL},
    {"_at_fork_reinit", (PyCFunction)rlock_reinit, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject RLock_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.sync.RLock",
    .tp_basicsize = sizeof(RLockObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = PyDoc_STR("RLock()\n--\n\nA lock that its owner may take again, like threading.RLock. The owner is the running "
                        "task, or the thread outside\nof tasks: two tasks on one OS thread exclude each other.\n\n"
                        "    >>> from pygo.sync import RLock\n    >>> lock = RLock()\n    >>> with lock, lock:\n"
                        "    ...     lock.locked()\n    True"),
    .tp_new = rlock_new,
    .tp_dealloc = (destructor)rlock_dealloc,
    .tp_repr = (reprfunc)rlock_repr,
    .tp_weaklistoffset = offsetof(RLockObject, weakrefs),
    .tp_methods = rlock_methods,
};

/* ---- for the Python layer ---- */

static PyObject *do_mutex(PyObject *module, PyObject *unused) { return (PyObject *)lock_make(true); }

PyMethodDef lock_functions[] = {
    {"_mutex", do_mutex, METH_NOARGS,
     PyDoc_STR("_mutex()\n--\n\nA Lock that cancellation waits for: for sections that have to happen and never wait long.")},
    {NULL, NULL, 0, NULL},
};
