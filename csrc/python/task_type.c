/* The type Task: waiting for tasks, cancelling them, looking at them. Their lives are in task.c. */
#include "python/task.h"

#include "base/failpoint.h"

/* ---- waiting for it ---- */

/* The id of the bubble it runs in, or 0. */
static uint32_t bubble_of(TaskObject *self)
{
    return self->rare != NULL && self->rare->bubble != NULL ? self->rare->bubble->core.id : 0;
}

/* 0 when it has ended; -1 with an exception. */
static int wait_for_end(TaskObject *self, pg_nanos deadline)
{
    wait_info info = {.reason = "join", .object = (PyObject *)self, .durable = is_own_bubble(bubble_of(self))};
    if (self->done) return 0;
    if (self == task_current()) {
        PyErr_SetString(PyExc_RuntimeError, "a task cannot wait for its own end");
        return -1;
    }
    task_rare *rare = task_rare_of(self);
    if (rare == NULL) return -1;
    note_wait(&info);
    int outcome = pg_latch_wait(&rare->ended, deadline);
    if (outcome != PG_OK) return raise_outcome(outcome, "the task did not end in time");
    after_success();
    return 0;
}

/* Not Cancelled: the joiner would take it for its own. */
static PyObject *raise_task_cancelled(TaskObject *self)
{
    PyObject *args = PyObject_GetAttrString(self->payload, "args");
    PyObject *error = args ? PyObject_CallObject(names.task_cancelled, PyTuple_Check(args) ? args : NULL) : NULL;
    Py_XDECREF(args);
    if (error == NULL) return NULL;
    PyException_SetCause(error, Py_NewRef(self->payload));
    interp_raise(error);
    return NULL;
}

static PyObject *outcome_of(TaskObject *self)
{
    if (self->payload == NULL) { /* taken by the garbage collector, from a finalizer's view */
        PyErr_SetString(PyExc_RuntimeError, "the task has been torn down");
        return NULL;
    }
    if (!self->failed) return Py_NewRef(self->payload);
    if (self->cancelled) return raise_task_cancelled(self);
    task_mark_retrieved(self);
    if (self->rare != NULL && self->rare->traceback != NULL)
        PyException_SetTraceback(self->payload, self->rare->traceback);
    not_again_in_main(self->payload);
    interp_raise(Py_NewRef(self->payload));
    return NULL;
}

static PyObject *task_join(TaskObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline;
    if (timeout_argument("join", args, count, keywords, 0, &deadline) < 0) return NULL;
    Py_INCREF(self); /* the caller's frame may let it go while we wait */
    PyObject *result = wait_for_end(self, deadline) < 0 ? NULL : outcome_of(self);
    Py_DECREF(self);
    return result;
}

static PyObject *task_exception(TaskObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_nanos deadline;
    if (timeout_argument("exception", args, count, keywords, 0, &deadline) < 0) return NULL;
    if (wait_for_end(self, deadline) < 0) return NULL;
    if (!self->failed) Py_RETURN_NONE;
    if (self->cancelled) return raise_task_cancelled(self);
    task_mark_retrieved(self);
    return Py_NewRef(self->payload);
}

static PyObject *task_add_done_callback(TaskObject *self, PyObject *callback)
{
    if (!PyCallable_Check(callback)) {
        PyErr_Format(PyExc_TypeError, "a callback must be callable, not %.100s", Py_TYPE(callback)->tp_name);
        return NULL;
    }
    task_rare *rare = task_rare_of(self);
    if (rare == NULL || (rare->callbacks == NULL && (rare->callbacks = PyList_New(0)) == NULL)) return NULL;
    if (PyList_Append(rare->callbacks, callback) < 0) return NULL;
    if (self->done) task_run_callbacks(self);
    Py_RETURN_NONE;
}

static PyObject *task_remove_done_callback(TaskObject *self, PyObject *callback)
{
    PyObject *callbacks = self->rare ? self->rare->callbacks : NULL;
    PyObject *kept = callbacks ? PyList_New(0) : NULL;
    if (callbacks == NULL) return PyLong_FromLong(0);
    for (Py_ssize_t i = 0; kept != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *one = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        int equal = PyObject_RichCompareBool(one, callback, Py_EQ);
        if (equal < 0 || (equal == 0 && PyList_Append(kept, one) < 0)) Py_CLEAR(kept);
        Py_DECREF(one);
    }
    if (kept == NULL) return NULL;
    Py_ssize_t removed = PyList_GET_SIZE(callbacks) - PyList_GET_SIZE(kept);
    if (self->rare->callbacks == callbacks) Py_SETREF(self->rare->callbacks, kept); /* else it ended meanwhile */
    else Py_DECREF(kept);
    return PyLong_FromSsize_t(removed);
}

/* ---- cancelling it ---- */

bool task_cancel(TaskObject *self, PyObject *reason)
{
    if (self->done) return false;
    if (self->cancel_requested) return true;
    if (reason != NULL && reason != Py_None) {
        if (task_rare_of(self) == NULL) PyErr_Clear(); /* it is cancelled all the same */
        else Py_XSETREF(self->rare->reason, Py_NewRef(reason));
    }
    self->cancel_requested = true;
    if (!self->started) return true; /* it will not begin */
    pg_store_release(&self->core.alarm, 1);
    if (pg_task_wake(&self->core)) pg_sched_enqueue_last(&self->core);
    return true;
}

static PyObject *task_cancel_method(TaskObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t used = 0;
    PyObject *reason = count ? args[0] : keyword(args, count, keywords, "reason", &used);
    if (count > 1 || check_keywords("cancel", keywords, used) < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "cancel() takes one reason at most");
        return NULL;
    }
    return PyBool_FromLong(task_cancel(self, reason));
}

static bool is_of_group(TaskObject *task, void *group)
{
    return task->live && task->call != NULL && task->call->group == group;
}

static bool is_in_bubble(TaskObject *task, void *bubble)
{
    return task->live && task->rare != NULL && task->rare->bubble == bubble;
}

static int cancel_all(bool (*wanted)(TaskObject *, void *), void *argument, PyObject *reason)
{
    size_t count;
    TaskObject **tasks = task_find(wanted, argument, task_live_count(), &count);
    if (tasks == NULL) { /* a group whose tasks go on would not end */
        PyErr_Clear();
        task_cancel_each(wanted, argument, reason);
    }
    for (size_t i = 0; i < count; i++) {
        task_cancel(tasks[i], reason);
        Py_DECREF(tasks[i]);
    }
    PyMem_Free(tasks);
    return 0;
}

int task_cancel_group(PyObject *group, PyObject *reason) { return cancel_all(is_of_group, group, reason); }
int task_cancel_bubble(BubbleObject *bubble) { return cancel_all(is_in_bubble, bubble, NULL); }

/* ---- all of them ---- */

static bool is_live(TaskObject *task, void *unused) { return task->live; }

static PyObject *list_of(bool (*wanted)(TaskObject *, void *), void *argument)
{
    size_t count;
    TaskObject **tasks = task_find(wanted, argument, task_live_count(), &count);
    PyObject *list = tasks ? PyList_New((Py_ssize_t)count) : NULL;
    for (size_t i = 0; i < count; i++) {
        if (list != NULL) PyList_SET_ITEM(list, (Py_ssize_t)i, (PyObject *)tasks[i]);
        else Py_DECREF(tasks[i]);
    }
    PyMem_Free(tasks);
    return list;
}

PyObject *task_list_all(void) { return list_of(is_live, NULL); }
PyObject *task_list_bubble(BubbleObject *bubble) { return list_of(is_in_bubble, bubble); }

/* ---- looking at it ---- */

static const char *state_of(TaskObject *self)
{
    if (self->done) return "done";
    if (!self->started) return "ready";
    if (self == task_current()) return "running";
    if (pg_load_acquire(&self->core.state) == PG_TASK_PARKED) return "waiting";
    if (pg_sched_is_blocked(self->core.fiber)) return "blocked";
    return pg_sched_is_running(self->core.fiber) ? "running" : "ready";
}

static PyObject *get_state(TaskObject *self, void *closure) { return PyUnicode_FromString(state_of(self)); }
static PyObject *get_id(TaskObject *self, void *closure) { return PyLong_FromUnsignedLongLong(self->id); }
static PyObject *task_done(TaskObject *self, PyObject *unused) { return PyBool_FromLong(self->done); }
static PyObject *task_was_cancelled(TaskObject *self, PyObject *unused) { return PyBool_FromLong(self->cancelled); }

static PyObject *get_bubble(TaskObject *self, void *closure) { return PyLong_FromUnsignedLong(bubble_of(self)); }
static PyObject *get_failed(TaskObject *self, void *closure) { return PyBool_FromLong(self->done && self->failed); }

static PyObject *get_name(TaskObject *self, void *closure)
{
    if (self->rare != NULL && self->rare->name != NULL) return Py_NewRef(self->rare->name);
    return PyUnicode_FromFormat("Task-%llu", (unsigned long long)self->id);
}

static int set_name(TaskObject *self, PyObject *name, void *closure)
{
    if (name == NULL || !PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a task's name must be a string");
        return -1;
    }
    if (task_rare_of(self) == NULL) return -1;
    Py_XSETREF(self->rare->name, Py_NewRef(name));
    return 0;
}

static bool is_parked(TaskObject *self)
{
    return self->started && !self->done && pg_load_acquire(&self->core.state) == PG_TASK_PARKED;
}

/* New references to what the parked task waits on, *count of them, from PyMem_Malloc; NULL without an exception when it
 * says nothing of that. Nothing here runs other code: the wait is on the task's stack, and over as soon as that runs. */
static PyObject **take_waited_for(const wait_info *wait, Py_ssize_t *count)
{
    *count = wait->object ? 1 : wait->count;
    PyObject **objects = pg_fails(task_list) ? NULL : PyMem_New(PyObject *, *count + 1);
    if (objects == NULL) return (PyObject **)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < *count; i++) {
        PyObject *object = wait->object;
        if (object == NULL) {
            CaseObject *one = (CaseObject *)wait->objects[i];
            object = one->channel ? (PyObject *)one->channel : Py_None;
        }
        objects[i] = Py_NewRef(object);
    }
    return objects;
}

static PyObject *get_waiting_on(TaskObject *self, void *closure)
{
    Py_ssize_t count;
    const wait_info *wait = is_parked(self) ? self->core.fiber->wait : NULL;
    if (wait == NULL) Py_RETURN_NONE;
    const char *reason = wait->reason;
    PyObject **objects = take_waited_for(wait, &count);
    PyObject *tuple = objects ? PyTuple_New(count) : NULL; /* may collect garbage, and so run the task */
    for (Py_ssize_t i = 0; objects != NULL && i < count; i++) {
        if (tuple != NULL) PyTuple_SET_ITEM(tuple, i, objects[i]);
        else Py_DECREF(objects[i]);
    }
    PyMem_Free(objects);
    return tuple ? PyObject_CallFunction(names.waiting_on, "sN", reason, tuple) : NULL;
}

static PyObject *get_waiting_since(TaskObject *self, void *closure)
{
    if (!is_parked(self)) Py_RETURN_NONE;
    return PyFloat_FromDouble((double)self->core.fiber->parked_at / 1e9);
}

static PyObject *get_endless_wait(TaskObject *self, void *closure)
{
    if (!is_parked(self) || !self->core.fiber->for_ever) Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(self->core.fiber->park_count);
}

static PyObject *get_spawned_at(TaskObject *self, void *closure)
{
    PyCodeObject *code = (PyCodeObject *)self->spawner_code;
    if (code == NULL) Py_RETURN_NONE;
    return Py_BuildValue("(Oi)", code->co_filename, PyCode_Addr2Line(code, self->spawner_instruction));
}

/* The state's frames, innermost first. The owner may run only while we run Python code, or a collection does. */
static PyObject *frames_of(PyThreadState *state)
{
    int collecting = PyGC_Disable(), failed = 0;
    PyObject *list = PyList_New(0);
    PyFrameObject *frame = list ? PyThreadState_GetFrame(state) : NULL; /* new reference */
    while (frame != NULL && !failed) {
        failed = PyList_Append(list, (PyObject *)frame) < 0;
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    if (collecting) PyGC_Enable();
    if (failed) Py_CLEAR(list);
    return list;
}

/* When the interpreter ends it deletes all thread states but the main thread's, then runs the last finalizers. */
static PyThreadState *state_if_started(TaskObject *self)
{
    return self->started && !self->done && !interp_is_ending() ? interp_state(self->core.fiber) : NULL;
}

static PyObject *task_frames(TaskObject *self, PyObject *unused)
{
    PyThreadState *state = state_if_started(self);
    PyObject *list = state ? frames_of(state) : PyList_New(0);
    if (list != NULL && PyList_Reverse(list) < 0) Py_CLEAR(list);
    return list;
}

/* (file name, line, function, file name, ...), outermost call first: of one moment, and quick to compare. */
static PyObject *flat_stack(PyThreadState *state)
{
    PyObject *frames = frames_of(state);
    Py_ssize_t count = frames ? PyList_GET_SIZE(frames) : 0;
    PyObject *stack = frames ? PyTuple_New(3 * count) : NULL;
    for (Py_ssize_t i = 0; stack != NULL && i < count; i++) {
        PyFrameObject *frame = (PyFrameObject *)PyList_GET_ITEM(frames, count - 1 - i);
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *line = PyLong_FromLong(PyFrame_GetLineNumber(frame));
        PyTuple_SET_ITEM(stack, 3 * i, Py_NewRef(code->co_filename));
        PyTuple_SET_ITEM(stack, 3 * i + 1, line);
        PyTuple_SET_ITEM(stack, 3 * i + 2, Py_NewRef(code->co_name));
        Py_DECREF(code);
        if (line == NULL) Py_CLEAR(stack);
    }
    Py_XDECREF(frames);
    return stack;
}

static PyObject *task_snapshot(TaskObject *self, PyObject *unused)
{
    int collecting = PyGC_Disable(); /* whatever runs the task in between would tear the picture */
    PyThreadState *state = state_if_started(self);
    PyObject *stack = state ? flat_stack(state) : PyTuple_New(0);
    PyObject *waiting = stack ? get_waiting_on(self, NULL) : NULL, *since = waiting ? get_waiting_since(self, NULL) : NULL;
    PyObject *result = since ? Py_BuildValue("(sOOO)", state_of(self), waiting, since, stack) : NULL;
    if (collecting) PyGC_Enable();
    Py_XDECREF(since);
    Py_XDECREF(waiting);
    Py_XDECREF(stack);
    return result;
}

PyObject *task_stack_of_thread(unsigned long ident)
{
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (state != NULL && state->thread_id != ident) state = PyThreadState_Next(state);
    return state ? flat_stack(state) : PyTuple_New(0);
}

static PyObject *task_print_stack(TaskObject *self, PyObject *args, PyObject *kwargs)
{
    static char *known[] = {"file", NULL};
    PyObject *file = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:print_stack", known, &file)) return NULL;
    PyObject *module = PyImport_ImportModule("pygo._report");
    PyObject *result = module ? PyObject_CallMethod(module, "print_stack", "OO", self, file) : NULL;
    Py_XDECREF(module);
    return result;
}

static PyObject *task_repr(TaskObject *self)
{
    PyObject *name = get_name(self, NULL), *function = NULL, *text = NULL;
    if (name == NULL) return NULL;
    bool has_function = !self->done && self->payload != NULL;
    if (has_function) {
        function = PyObject_GetAttrString(self->payload, "__qualname__");
        if (function == NULL) {
            PyErr_Clear();
            function = PyObject_Repr(self->payload);
        }
    }
    if (!has_function || function != NULL)
        text = PyUnicode_FromFormat("<pygo.Task %llu %R %s%s%V>", (unsigned long long)self->id, name, state_of(self),
                                    function ? " in " : (self->failed ? ", failed" : ""), function, "");
    Py_XDECREF(function);
    Py_DECREF(name);
    return text;
}

/* Without allocating, and without counting references: the memory of a string that has ASCII characters only, or "?". */
static const char *plain_text(PyObject *text)
{
    return PyUnicode_Check(text) && PyUnicode_IS_COMPACT_ASCII(text) ? (const char *)PyUnicode_1BYTE_DATA(text) : "?";
}

void task_describe(pg_task *core, char *text, size_t room)
{
    enum { LONGEST = 80 };
    TaskObject *self = task_from_core(core);
    if (self == NULL) {
        snprintf(text, room, "a task that has ended");
        return;
    }
    bool named = self->rare != NULL && self->rare->name != NULL;
    bool has_function = !self->done && self->payload != NULL && PyFunction_Check(self->payload);
    int length = snprintf(text, room, "task %llu", (unsigned long long)self->id);
    if (named) length += snprintf(text + length, room - (size_t)length, " '%.*s'", LONGEST, plain_text(self->rare->name));
    if (!has_function) return;
    PyObject *function = ((PyFunctionObject *)self->payload)->func_qualname;
    snprintf(text + length, room - (size_t)length, " in %.*s", LONGEST, plain_text(function));
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef task_methods[] = {
    {"join", CALL(task_join), FAST_KEYWORDS,
     PyDoc_STR("join($self, /, timeout=None)\n--\n\nWait until the task has ended; return its result or raise its "
               "exception.\n\ntimeout: seconds, None waits for ever, 0 only looks. Raises TimeoutError; TaskCancelled "
               "if the task was\ncancelled; RuntimeError when a task joins itself. May be called from tasks and any "
               "thread, any number of times.")},
    {"result", CALL(task_join), FAST_KEYWORDS,
     PyDoc_STR("result($self, /, timeout=None)\n--\n\nThe same as join(), under the name of concurrent.futures.")},
    {"exception", CALL(task_exception), FAST_KEYWORDS,
     PyDoc_STR("exception($self, /, timeout=None)\n--\n\nWait until the task has ended; return its exception, or None.\n\n"
               "timeout: seconds. Raises TimeoutError.")},
    {"done", (PyCFunction)task_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nWhether the task has ended. Never waits.")},
    {"cancelled", (PyCFunction)task_was_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nWhether the task ended by being cancelled: Cancelled left it. Never waits.")},
    {"add_done_callback", (PyCFunction)task_add_done_callback, METH_O,
     PyDoc_STR("add_done_callback($self, fn, /)\n--\n\nCall fn(task) when the task has ended, in its place; at once if "
               "it has.\n\nAn exception of fn goes to sys.unraisablehook.")},
    {"remove_done_callback", (PyCFunction)task_remove_done_callback, METH_O,
     PyDoc_STR("remove_done_callback($self, fn, /)\n--\n\nTake callbacks equal to fn away again; returns how many. Those "
               "already called are not counted.")},
    {"cancel", CALL(task_cancel_method), FAST_KEYWORDS,
     PyDoc_STR("cancel($self, /, reason=None)\n--\n\nAsk the task to end: its current wait, and every later one that would "
               "have to wait, raises Cancelled(reason),\nexcept under shield(). A task that has not begun will not.\n\n"
               "Returns False if it has ended already. Never waits; the first reason counts.")},
    {"frames", (PyCFunction)task_frames, METH_NOARGS,
     PyDoc_STR("frames($self, /)\n--\n\nThe task's Python frames, outermost first; [] unless it has started and not "
               "ended, and in finalizers at the end of\nthe interpreter.")},
    {"_snapshot", (PyCFunction)task_snapshot, METH_NOARGS,
     PyDoc_STR("_snapshot($self, /)\n--\n\n(state, waiting_on, waiting since, stack) of one moment; the stack as a flat "
               "tuple of file names,\nlines and functions, outermost first.")},
    {"print_stack", CALL(task_print_stack), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("print_stack($self, /, file=None)\n--\n\nPrint the task's stack as a traceback is printed; to sys.stderr "
               "unless a file is given.")},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Task[R], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_getset[] = {
    {"id", (getter)get_id, NULL, "A number no other task of this process has.", NULL},
    {"name", (getter)get_name, (setter)set_name, "For people; Task-<id> unless given.", NULL},
    {"state", (getter)get_state, NULL, "'ready', 'running', 'waiting', 'blocked' (in a blocking call) or 'done'.", NULL},
    {"waiting_on", (getter)get_waiting_on, NULL, "None, or (reason, objects) of the current wait.", NULL},
    {"_failed", (getter)get_failed, NULL, "Whether it has ended with an exception. Looking counts for nothing.", NULL},
    {"_bubble", (getter)get_bubble, NULL, "The number of the bubble it runs in, or 0.", NULL},
    {"_waiting_since", (getter)get_waiting_since, NULL, "time.monotonic() of the current wait's start, or None.", NULL},
    {"_endless_wait", (getter)get_endless_wait, NULL,
     "None, or a number that tells the current wait, which has no deadline, from the task's others.", NULL},
    {"_spawned_at", (getter)get_spawned_at, NULL, "(file name, line) of the spawn, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(task_doc, "Task(fn, args=(), kwargs=None, *, name=None, context=None, stack_size=None)\n--\n\n"
"A call of fn(*args, **kwargs) scheduled to run beside the others; constructing schedules it, as spawn() does.\n\n"
"name: for people. context: a contextvars.Context to run in instead of a copy of the caller's. stack_size: usable bytes\n"
"of stack it needs at least. Raises TypeError and ValueError for wrong arguments, before anything is scheduled.\n\n"
"    >>> Task(pow, (2, 10), name='power').join()\n"
"    1024");

PyTypeObject Task_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo.Task",
    .tp_basicsize = sizeof(TaskObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = task_doc,
    .tp_new = task_tp_new,
    .tp_dealloc = (destructor)task_dealloc,
    .tp_finalize = (destructor)task_finalize,
    .tp_traverse = (traverseproc)task_traverse,
    .tp_clear = (inquiry)task_clear,
    .tp_repr = (reprfunc)task_repr,
    .tp_weaklistoffset = offsetof(TaskObject, weakrefs),
    .tp_methods = task_methods,
    .tp_getset = task_getset,
};
