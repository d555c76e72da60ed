/* Bubbles for pygo.testing: the steward, and what the Python layer needs (sched/bubble.h). */
#include "python/objects.h"

/* ---- the steward ---- */

static bool has_end(const pg_timer *timer)
{
    return timer->deadline < PG_FOREVER - 1 && timer_is_awaited(timer); /* sleep(inf) ends one nanosecond before for ever */
}

/* Those that rang at the same time go in the order of the heap; with a seed, chance decides. */
static void enqueue_all(pg_task **ready, size_t count)
{
    for (size_t left = count; left > 0; left--) {
        size_t at = pg_load_relaxed(&pg_sched_is_seeded) ? pg_sched_random() % left : 0;
        pg_task *chosen = ready[at];
        for (; at + 1 < left; at++) ready[at] = ready[at + 1];
        pg_sched_enqueue_last(chosen);
    }
}

/* Fire what is due at this moment of the bubble's clock. */
static void fire(BubbleObject *self)
{
    enum { BATCH = 64 };
    pg_task *ready[BATCH];
    pg_nanos now = pg_load_relaxed(&self->core.now);
    do {
        enqueue_all(ready, pg_timers_expire(&self->core.timers, now, ready, BATCH));
    } while (pg_timers_due(&self->core.timers, now));
    timer_deliver(&self->rang);
}

/* Move the clock to the next timer that can wake somebody, by way of those before it. False: there is none. */
static bool advance(BubbleObject *self)
{
    pg_nanos next, target = pg_timers_earliest(&self->core.timers, has_end);
    if (target == PG_FOREVER) return false;
    do { /* a delivery may run any code, in a collection of garbage, so look who runs at each step */
        next = pg_load_seqcst(&self->core.timers.next_deadline);
        if (next > target) break;
        if (next > pg_load_relaxed(&self->core.now)) pg_store_relaxed(&self->core.now, next);
        fire(self);
    } while (!pg_bubble_is_busy(&self->core));
    return true;
}

/* Time stands still once the root has ended, except for those that are being cancelled. */
static bool may_advance(BubbleObject *self) { return self->core.root != NULL || self->closing; }

/* One step; false when the steward is through. */
static bool attend(BubbleObject *self)
{
    enum pg_bubble_state state = pg_bubble_look(&self->core);
    if (state != PG_BUBBLE_IDLE) return state == PG_BUBBLE_WOKEN;
    if (may_advance(self) && advance(self)) return true;
    if (!pg_bubble_retire(&self->core)) return true;
    if (!self->over) {
        self->over = true;
        pg_latch_add(&self->end, -1);
    }
    return false;
}

static void steward_run(pg_task *task)
{
    BubbleObject *self = pg_container_of(task, BubbleObject, steward);
    pg_fiber *fiber = task->fiber;
    pg_sched_detach_task(fiber); /* from here on, once it is through, the record may be queued again */
    while (attend(self)) {}
    Py_DECREF(self);
    interp_reset(fiber);
}

static void call_steward(pg_bubble *core)
{
    BubbleObject *self = pg_container_of(core, BubbleObject, core);
    Py_INCREF(self);
    pg_task_init(&self->steward, steward_run);
    pg_sched_spawn(&self->steward); /* counted like any other, for it will be counted when it ends */
}

BubbleObject *bubble_current(void)
{
    pg_bubble *core = pg_bubble_current();
    return PG_LIKELY(core == NULL) ? NULL : pg_container_of(core, BubbleObject, core);
}

int check_bubble_slow(uint32_t bubble, const char *what)
{
    if (is_own_bubble(bubble)) return 0;
    PyErr_Format(PyExc_RuntimeError, "%s that belongs to a bubble, from outside of it", what);
    return -1;
}

/* ---- the type ---- */

static PyObject *bubble_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *parameters[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":_Bubble", parameters)) return NULL;
    BubbleObject *self = PyObject_New(BubbleObject, type);
    if (self == NULL) return NULL;
    pg_bubble_init(&self->core, call_steward);
    pg_list_init(&self->rang);
    pg_latch_init(&self->end, 1);
    self->over = self->closing = false;
    return (PyObject *)self;
}

static void bubble_dealloc(BubbleObject *self)
{
    pg_bubble_free(&self->core);
    PyObject_Free(self);
}

static PyObject *bubble_start(BubbleObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (count == 0) {
        PyErr_SetString(PyExc_TypeError, "a bubble needs a callable");
        return NULL;
    }
    TaskObject *task = task_new(args[0], args + 1, count - 1, keywords, NULL);
    if (task == NULL) return NULL;
    if (task_put_in_bubble(task, self) < 0) {
        Py_DECREF(task);
        return NULL;
    }
    self->core.root = &task->core;
    task_start(task);
    return (PyObject *)task;
}

static PyObject *bubble_wait(BubbleObject *self, PyObject *unused)
{
    wait_info info = {.reason = "bubble", .object = (PyObject *)self};
    note_wait(&info);
    int outcome = pg_latch_wait(&self->end, PG_FOREVER);
    if (outcome != PG_OK) {
        raise_outcome(outcome, "bubble");
        return NULL;
    }
    after_success();
    Py_RETURN_NONE;
}

static PyObject *bubble_tasks(BubbleObject *self, PyObject *unused) { return task_list_bubble(self); }

static PyObject *bubble_drop_timers(BubbleObject *self, PyObject *unused)
{
    timer_drop_all(&self->core.timers);
    Py_RETURN_NONE;
}

static PyObject *bubble_close(BubbleObject *self, PyObject *unused)
{
    if (self->closing) Py_RETURN_NONE; /* who does not end on being cancelled is not waited for again */
    self->closing = true;
    timer_drop_all(&self->core.timers);
    if (self->over && self->core.total > 0) { /* else it stays so */
        self->over = false;
        pg_latch_add(&self->end, 1);
    }
    if (task_cancel_bubble(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *bubble_repr(BubbleObject *self)
{
    return PyUnicode_FromFormat("<pygo bubble %u, %u tasks, %u of them running>", self->core.id, self->core.total,
                                self->core.running);
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef bubble_methods[] = {
    {"start", CALL(bubble_start), FAST_KEYWORDS,
     PyDoc_STR("start($self, fn, /, *args, **kwargs)\n--\n\nSpawn the root task; once.")},
    {"wait", (PyCFunction)bubble_wait, METH_NOARGS,
     PyDoc_STR("wait($self, /)\n--\n\nWait until the bubble's tasks have ended, or wait for each other for ever.")},
    {"tasks", (PyCFunction)bubble_tasks, METH_NOARGS,
     PyDoc_STR("tasks($self, /)\n--\n\nA list of those that have not ended, oldest first.")},
    {"close", (PyCFunction)bubble_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nCancel all tasks that are left; those that must not wait for ever. Then wait() again.\nOnly the first call does anything.")},
    {"drop_timers", (PyCFunction)bubble_drop_timers, METH_NOARGS,
     PyDoc_STR("drop_timers($self, /)\n--\n\nLet go of the timers that are still pending.")},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Bubble_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo._Bubble",
    .tp_basicsize = sizeof(BubbleObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("_Bubble()\n--\n\nTasks with a clock of their own; see pygo.testing.bubble."),
    .tp_new = bubble_new,
    .tp_dealloc = (destructor)bubble_dealloc,
    .tp_repr = (reprfunc)bubble_repr,
    .tp_methods = bubble_methods,
};

/* ---- functions ---- */

static PyObject *do_now(PyObject *module, PyObject *unused) { return PyFloat_FromDouble((double)pg_sched_now() / 1e9); }

static PyObject *do_settle(PyObject *module, PyObject *unused)
{
    static const wait_info info = {.reason = "settle"};
    if (pg_bubble_current() == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "only a task of a bubble can wait for the others to settle");
        return NULL;
    }
    int outcome = pg_bubble_settle(&info);
    if (outcome == PG_EINVAL) PyErr_SetString(PyExc_RuntimeError, "another task of the bubble waits for it to settle");
    else if (outcome != PG_OK) raise_outcome(outcome, "settle");
    if (outcome != PG_OK) return NULL;
    after_success();
    Py_RETURN_NONE;
}

static PyObject *do_bubble(PyObject *module, PyObject *unused)
{
    pg_bubble *bubble = pg_bubble_current();
    return PyLong_FromUnsignedLong(bubble != NULL ? bubble->id : 0);
}

static PyObject *do_birthplace(PyObject *module, PyObject *unused)
{
    return PyLong_FromUnsignedLong(pg_bubble_birthplace());
}

static PyObject *do_made_in(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "_made_in() takes a bubble's number and a callable");
        return NULL;
    }
    unsigned long birthplace = PyLong_AsUnsignedLong(args[0]);
    if (birthplace == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    pg_fiber *fiber = pg_sched_fiber(); /* outside of tasks there is only the place outside of bubbles */
    uint32_t before = fiber != NULL ? fiber->birthplace : 0;
    if (fiber != NULL) fiber->birthplace = (uint32_t)birthplace;
    PyObject *made = PyObject_Vectorcall(args[1], args + 2, (size_t)count - 2, NULL);
    if (fiber != NULL) fiber->birthplace = before;
    return made;
}

PyMethodDef bubble_functions[] = {
    {"_now", do_now, METH_NOARGS,
     PyDoc_STR("_now()\n--\n\nThe caller's clock in seconds: its bubble's, else time.monotonic().")},
    {"_settle", do_settle, METH_NOARGS,
     PyDoc_STR("_settle()\n--\n\nWait until all other tasks of the bubble are durably blocked.")},
    {"_bubble", do_bubble, METH_NOARGS, PyDoc_STR("_bubble()\n--\n\nThe number of the caller's bubble, or 0.")},
    {"_birthplace", do_birthplace, METH_NOARGS,
     PyDoc_STR("_birthplace()\n--\n\nThe number of the bubble that what the caller makes belongs to, or 0.")},
    {"_made_in", CALL(do_made_in), METH_FASTCALL,
     PyDoc_STR("_made_in(birthplace, fn, /, *args)\n--\n\nCall fn(*args); channels, locks and the like that it makes belong "
               "to that bubble, 0: to none.")},
    {NULL, NULL, 0, NULL},
};
