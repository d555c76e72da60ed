/* Cancellation: one level-triggered model for Task.cancel, timeout, shield and TaskGroup. docs/cancellation.md has the state
 * machine.
 *
 * Every task, and every thread, has a stack of scopes, linked through `outer`, innermost first. Below them lies the
 * request of Task.cancel(). A wait is cancelled when, going outwards, a scope that is cancelled comes before a shield, or
 * none of both comes and the task itself is to be cancelled. Each wait that would have to wait asks anew, so that
 * nothing needs to be delivered or counted.
 *
 * Who cancels sets his flag, then the waiter's alarm, then wakes it; the waiter takes the alarm back before it reads the
 * flags, and sets it again if the answer is yes. Deadlines expire on any thread, without the interpreter: they touch
 * nothing but `cancelled`, the alarm and the task's state.
 */
#include "python/objects.h"

enum scope_kind { KIND_TIMEOUT, KIND_SHIELD, KIND_GROUP };
enum scope_stage { STAGE_NEW, STAGE_ENTERED, STAGE_LEFT };

typedef struct ScopeObject {
    PyObject_HEAD
    enum scope_kind kind;
    enum scope_stage stage;
    atomic_uchar cancelled;     /* its deadline has passed, or cancel() was called; never taken back */
    struct ScopeObject *outer;  /* owned while entered */
    pg_task *task;              /* whose it is, held while entered */
    PyObject *owner;            /* the Task, if it is one's */
    pg_nanos patience;          /* as given: from entering to the deadline; PG_FOREVER: none */
    pg_nanos deadline;
    pg_timer timer;
    PyObject *weakrefs;
} ScopeObject;

/* ---- asking ---- */

static bool is_cancelled_from(ScopeObject *scope, pg_task *task)
{
    for (; scope != NULL; scope = scope->outer) {
        if (scope->kind == KIND_SHIELD) return false;
        if (pg_load_acquire(&scope->cancelled)) return true;
    }
    TaskObject *base = task_from_core(task);
    return base != NULL && base->cancel_requested;
}

bool scope_is_cancelled(pg_task *self)
{
    atomic_exchange_explicit(&self->alarm, 0, memory_order_acq_rel); /* before reading the flags, see above */
    if (!is_cancelled_from(*pg_sched_scopes(self), self)) return false;
    pg_store_relaxed(&self->alarm, 1);
    return true;
}

PyObject *raise_cancelled(void)
{
    TaskObject *task = task_current();
    PyObject *reason = task != NULL && task->cancel_requested && task->rare != NULL ? task->rare->reason : NULL;
    PyObject *exception = reason ? PyObject_CallOneArg(names.cancelled, reason) : PyObject_CallNoArgs(names.cancelled);
    if (exception != NULL) interp_raise(exception);
    return NULL;
}

int check_cancelled(void)
{
    pg_task *self = pg_sched_self();
    if (PG_LIKELY(self == NULL || !pg_sched_is_cancelled(self))) return 0;
    raise_cancelled();
    return -1;
}

/* ---- telling ---- */

/* Any thread; under the timers' lock. */
static pg_task *expire(pg_timer *timer)
{
    ScopeObject *self = pg_container_of(timer, ScopeObject, timer);
    pg_task *task = self->task;
    pg_store_release(&self->cancelled, 1);
    pg_store_release(&task->alarm, 1);
    return pg_task_wake(task) ? task : NULL;
}

static void cancel_scope(ScopeObject *self)
{
    pg_store_release(&self->cancelled, 1);
    if (self->stage != STAGE_ENTERED) return;
    pg_store_release(&self->task->alarm, 1);
    if (pg_task_wake(self->task)) pg_sched_enqueue(self->task);
}

/* ---- entering and leaving ---- */

static int start_deadline(ScopeObject *self)
{
    if (self->deadline == PG_FOREVER) return 0;
    if (self->deadline <= pg_sched_now()) {
        cancel_scope(self);
        return 0;
    }
    self->timer.fire = expire;
    if (pg_sched_timer_start(&self->timer, self->deadline) == PG_OK) return 0;
    PyErr_NoMemory();
    return -1;
}

static void unlink_scope(ScopeObject *self)
{
    pg_task *task = self->task;
    ScopeObject **place = (ScopeObject **)pg_sched_scopes(task);
    while (*place != NULL && *place != self) place = &(*place)->outer; /* usually the first: a generator may leave late */
    if (*place == self) *place = self->outer;
    self->outer = NULL;
}

/* Its place in the stack is gone already. */
static void let_go(ScopeObject *self)
{
    pg_sched_timer_stop(&self->timer); /* from here on it is not firing */
    pg_sched_drop(self->task);
    self->task = NULL;
    self->stage = STAGE_LEFT;
    Py_CLEAR(self->owner);
    Py_DECREF(self); /* the stack's */
}

static PyObject *scope_enter(ScopeObject *self, PyObject *unused)
{
    pg_task *task = pg_sched_self();
    if (task == NULL) return PyErr_NoMemory();
    if (self->stage != STAGE_NEW) {
        PyErr_SetString(PyExc_RuntimeError, "a scope can be entered once");
        return NULL;
    }
    ScopeObject **stack = (ScopeObject **)pg_sched_scopes(task);
    pg_sched_hold(task);
    self->task = task;
    self->owner = Py_XNewRef((PyObject *)task_current());
    self->stage = STAGE_ENTERED;
    self->outer = *stack;
    *stack = (ScopeObject *)Py_NewRef((PyObject *)self);
    self->timer.home = pg_bubble_timers(pg_bubble_current());
    if (self->patience != PG_FOREVER) self->deadline = pg_sched_deadline_after(self->patience);
    if (start_deadline(self) < 0) {
        unlink_scope(self);
        let_go(self);
        return NULL;
    }
    if (pg_load_relaxed(&self->cancelled)) pg_store_release(&task->alarm, 1); /* cancelled before it was entered */
    return Py_NewRef((PyObject *)self);
}

static void raise_timeout(PyObject *cause)
{
    PyErr_SetString(PyExc_TimeoutError, "the block did not end in time");
    PyObject *error = interp_take_exception();
    PyException_SetCause(error, Py_NewRef(cause));
    PyException_SetContext(error, Py_NewRef(cause));
    interp_raise(error);
}

static PyObject *scope_exit(ScopeObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *exception = count == 3 ? args[1] : NULL;
    pg_task *task = pg_sched_self();
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "__exit__() takes 3 arguments but %zd were given", count);
        return NULL;
    }
    if (self->stage == STAGE_LEFT) Py_RETURN_FALSE; /* its task ended before: a generator that is collected late */
    if (self->stage == STAGE_NEW || self->task != task) {
        PyErr_SetString(PyExc_RuntimeError, "a scope must be left by the task that has entered it");
        return NULL;
    }
    ScopeObject *outer = self->outer;
    unlink_scope(self);
    Py_INCREF(self);
    let_go(self);
    bool cancelled = pg_load_acquire(&self->cancelled);
    if (self->kind == KIND_SHIELD) pg_store_release(&task->alarm, 1); /* what it kept away counts again */
    bool absorbs = cancelled && exception != Py_None && PyErr_GivenExceptionMatches(exception, names.cancelled) &&
                   !is_cancelled_from(outer, task);
    PyObject *result = Py_NewRef(absorbs ? Py_True : Py_False);
    if (absorbs && self->kind == KIND_TIMEOUT) {
        raise_timeout(exception);
        Py_CLEAR(result);
    }
    Py_DECREF(self);
    return result;
}

void scope_abandon_all(pg_fiber *fiber)
{
    while (PG_UNLIKELY(fiber->scopes != NULL)) {
        ScopeObject *scope = fiber->scopes;
        fiber->scopes = scope->outer;
        scope->outer = NULL;
        let_go(scope);
    }
}

void scope_after_fork(pg_task *self)
{
    for (ScopeObject *scope = *pg_sched_scopes(self); scope != NULL; scope = scope->outer)
        if (!pg_load_relaxed(&scope->cancelled) && start_deadline(scope) < 0) PyErr_WriteUnraisable((PyObject *)scope);
}

/* ---- the type ---- */

static PyObject *scope_cancel(ScopeObject *self, PyObject *unused)
{
    if (self->stage != STAGE_LEFT) cancel_scope(self);
    Py_RETURN_NONE;
}

static PyObject *scope_reschedule(ScopeObject *self, PyObject *seconds)
{
    pg_nanos nanos = PG_FOREVER;
    if (self->kind != KIND_TIMEOUT || self->stage == STAGE_LEFT || pg_load_acquire(&self->cancelled)) {
        PyErr_SetString(PyExc_RuntimeError, "the timeout is over");
        return NULL;
    }
    if (seconds != Py_None && nanos_from(seconds, &nanos) < 0) return NULL;
    self->patience = nanos;
    if (self->stage == STAGE_NEW) Py_RETURN_NONE;
    if (self->timer.home != pg_bubble_timers(pg_bubble_current())) {
        PyErr_SetString(PyExc_RuntimeError, "a timeout is rescheduled by who is not in the same bubble");
        return NULL;
    }
    pg_sched_timer_stop(&self->timer);
    self->deadline = nanos == PG_FOREVER ? PG_FOREVER : pg_sched_deadline_after(nanos);
    if (!pg_load_acquire(&self->cancelled) && start_deadline(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_cancelled(ScopeObject *self, void *closure)
{
    return PyBool_FromLong(pg_load_acquire(&self->cancelled));
}

static PyObject *get_deadline(ScopeObject *self, void *closure)
{
    if (self->stage == STAGE_NEW || self->deadline == PG_FOREVER) Py_RETURN_NONE;
    return PyFloat_FromDouble((double)self->deadline / 1e9);
}

static PyObject *scope_repr(ScopeObject *self)
{
    static const char *const kinds[] = {"timeout", "shield", "group scope"};
    static const char *const stages[] = {"not entered", "entered", "left"};
    return PyUnicode_FromFormat("<pygo.%s at %p %s%s>", kinds[self->kind], self, stages[self->stage],
                                pg_load_acquire(&self->cancelled) ? ", cancelled" : "");
}

static void scope_dealloc(ScopeObject *self)
{
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    PyObject_Free(self); /* entered, the stack would own it */
}

static ScopeObject *scope_make(enum scope_kind kind)
{
    ScopeObject *self = PyObject_New(ScopeObject, &Scope_Type);
    if (self == NULL) return NULL;
    self->kind = kind;
    self->stage = STAGE_NEW;
    pg_store_relaxed(&self->cancelled, 0);
    self->outer = NULL;
    self->task = NULL;
    self->owner = self->weakrefs = NULL;
    self->patience = self->deadline = PG_FOREVER;
    self->timer = (pg_timer){.fire = NULL};
    return self;
}

#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef scope_methods[] = {
    {"__enter__", (PyCFunction)scope_enter, METH_NOARGS, NULL},
    {"__exit__", CALL(scope_exit), METH_FASTCALL, NULL},
    {"cancel", (PyCFunction)scope_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nLet the block's waits raise Cancelled from now on, as if its deadline had passed. "
               "From any task or thread.")},
    {"reschedule", (PyCFunction)scope_reschedule, METH_O,
     PyDoc_STR("reschedule($self, seconds, /)\n--\n\nA new deadline, counted from now; None: none.\n\nRaises RuntimeError "
               "when the old one has passed already, ValueError for a negative time.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scope_getset[] = {
    {"expired", (getter)get_cancelled, NULL, "Whether the deadline has passed (or cancel() was called).", NULL},
    {"deadline", (getter)get_deadline, NULL, "On time.monotonic(); None before the block, and without one.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject Scope_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Scope",
    .tp_basicsize = sizeof(ScopeObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = PyDoc_STR("What timeout() and shield() return: a context manager, for one block of one task or thread."),
    .tp_dealloc = (destructor)scope_dealloc,
    .tp_repr = (reprfunc)scope_repr,
    .tp_weaklistoffset = offsetof(ScopeObject, weakrefs),
    .tp_methods = scope_methods,
    .tp_getset = scope_getset,
};

static PyObject *do_timeout(PyObject *module, PyObject *seconds)
{
    pg_nanos nanos = PG_FOREVER;
    if (seconds != Py_None && nanos_from(seconds, &nanos) < 0) return NULL;
    ScopeObject *self = scope_make(KIND_TIMEOUT);
    if (self != NULL) self->patience = nanos;
    return (PyObject *)self;
}

static PyObject *do_shield(PyObject *module, PyObject *unused) { return (PyObject *)scope_make(KIND_SHIELD); }
static PyObject *do_group_scope(PyObject *module, PyObject *unused) { return (PyObject *)scope_make(KIND_GROUP); }

static PyObject *do_cancel_group(PyObject *module, PyObject *group)
{
    if (task_cancel_group(group, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}

PyMethodDef scope_functions[] = {
    {"timeout", do_timeout, METH_O,
     PyDoc_STR("timeout(seconds, /)\n--\n\nA context manager: a deadline over a block. Once it has passed, the block's waits "
               "raise Cancelled, and leaving\nthe block turns that into TimeoutError.\n\nseconds: from entering the block; 0: the "
               "first wait that would have to wait; None: no deadline. Raises\nValueError for a negative time. For tasks and "
               "threads. Calls that do not wait in pygo (time.sleep, computing) are\nnot interrupted.\n\n"
               "    >>> with timeout(0):\n    ...     Channel().recv()\n    Traceback (most recent call last):\n"
               "    TimeoutError: the block did not end in time")},
    {"shield", do_shield, METH_NOARGS,
     PyDoc_STR("shield()\n--\n\nA context manager: a block that cancellation from outside of it waits for. Deadlines set "
               "inside still count.")},
    {"_group_scope", do_group_scope, METH_NOARGS, NULL},
    {"_cancel_group", do_cancel_group, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
