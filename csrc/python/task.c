/* Task: a call scheduled to run on a fiber.
 *
 * Who owns a task: its handles, and the runtime from the spawn until it has ended. Meanwhile it is a root: the garbage
 * collector need not know it, and tracks it only once it has ended with something that can be part of a cycle.
 */
#include "python/task.h"

#include "base/failpoint.h"
#include "machine/pool.h"

#include <stdlib.h>

/* All task objects. A free record is one without a type. */
static pg_pool pool;
static uint64_t last_id, started_count;
static size_t live, unreported; /* unreported: ended in an exception that nobody has looked at */
static size_t reporting; /* calls of pygo.excepthook under way */

size_t task_live_count(void) { return live; }
uint64_t task_started_count(void) { return started_count; }

/* In the child of a fork that a task made: that task, whose end is the process's. */
static TaskObject *main_task;

/* ---- the end ---- */

task_rare *task_rare_of(TaskObject *self)
{
    if (self->rare != NULL) return self->rare;
    self->rare = pg_fails(task_rare) ? NULL : PyMem_Calloc(1, sizeof *self->rare);
    if (self->rare != NULL) pg_latch_init(&self->rare->ended, 1);
    else PyErr_NoMemory();
    return self->rare;
}

static Py_ssize_t argument_count(const task_call *call)
{
    return (Py_ssize_t)call->positional + call->named + (call->named > 0); /* with the tuple of names */
}

/* The call itself stays, for its group. */
static void drop_arguments(TaskObject *self)
{
    task_call *call = self->call;
    if (PG_LIKELY(call == NULL)) return;
    Py_ssize_t count = argument_count(call);
    call->positional = call->named = 0;
    for (Py_ssize_t i = 0; i < count; i++) Py_DECREF(call->arguments[i]); /* runs any code, for which they are gone */
}

static void drop_call(TaskObject *self)
{
    task_call *call = self->call;
    if (PG_LIKELY(call == NULL)) return;
    drop_arguments(self);
    self->call = NULL;
    Py_XDECREF(call->group);
    PyMem_Free(call);
}

void task_mark_retrieved(TaskObject *self)
{
    if (self->done && self->failed && !self->retrieved) unreported--;
    self->retrieved = true;
}

/* Once, to pygo.excepthook(task, exception). */
static void report(TaskObject *self)
{
    task_mark_retrieved(self);
    reporting++;
    PyObject *pygo = PyImport_GetModule(names.pygo);
    PyObject *hook = pygo ? PyObject_GetAttrString(pygo, "excepthook") : NULL;
    PyObject *result = NULL;
    Py_XDECREF(pygo);
    if (hook != NULL) result = PyObject_CallFunctionObjArgs(hook, (PyObject *)self, self->payload, NULL);
    if (result == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(result);
    Py_XDECREF(hook);
    if (reporting > 0) reporting--; /* 0: forked meanwhile */
}

bool task_is_reporting(void) { return reporting > 0; }

static TaskObject *task_in(void *block)
{
    TaskObject *task = (TaskObject *)((char *)block + INTERP_OBJECT_HEADER);
    return Py_TYPE(task) != NULL ? task : NULL;
}

static int by_id(const void *one, const void *other)
{
    uint64_t first = (*(TaskObject *const *)one)->id, second = (*(TaskObject *const *)other)->id;
    return (first > second) - (first < second);
}

/* Those that `wanted` picks, oldest first, with a reference each: *count of them, from PyMem_Malloc. NULL: no memory. */
TaskObject **task_find(bool (*wanted)(TaskObject *, void *), void *argument, size_t limit, size_t *count)
{
    TaskObject **found = pg_fails(task_list) ? NULL : PyMem_New(TaskObject *, limit + 1);
    *count = 0;
    for (void *block = NULL; found != NULL && *count < limit && (block = pg_pool_next(&pool, block)) != NULL;) {
        TaskObject *task = task_in(block);
        if (task != NULL && wanted(task, argument)) found[(*count)++] = (TaskObject *)Py_NewRef((PyObject *)task);
    }
    if (found != NULL) qsort(found, *count, sizeof *found, by_id);
    else PyErr_NoMemory();
    return found;
}

void task_cancel_each(bool (*wanted)(TaskObject *, void *), void *argument, PyObject *reason)
{
    for (void *block = NULL; (block = pg_pool_next(&pool, block)) != NULL;) {
        TaskObject *task = task_in(block);
        if (task != NULL && wanted(task, argument)) task_cancel(task, reason);
    }
}

static bool is_unreported(TaskObject *task, void *unused)
{
    return task->done && task->failed && !task->retrieved && Py_REFCNT(task) > 0;
}

void task_report_unretrieved(void)
{
    while (unreported > 0) { /* reporting runs any code, which may leave more */
        size_t count;
        TaskObject **tasks = task_find(is_unreported, NULL, unreported, &count);
        if (tasks == NULL) PyErr_WriteUnraisable(NULL);
        for (size_t i = 0; i < count; i++) {
            if (is_unreported(tasks[i], NULL)) report(tasks[i]);
            Py_DECREF(tasks[i]);
        }
        PyMem_Free(tasks);
        if (count == 0) return;
    }
}

void task_run_callbacks(TaskObject *self)
{
    PyObject *callbacks = self->rare->callbacks;
    self->rare->callbacks = NULL;
    for (Py_ssize_t i = 0; callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *callback = PyList_GET_ITEM(callbacks, i);
        PyObject *result = PyObject_CallOneArg(callback, (PyObject *)self);
        if (result == NULL) PyErr_WriteUnraisable(callback);
        Py_XDECREF(result);
    }
    Py_XDECREF(callbacks);
}

/* The task ends with `exception` (stolen); returns what its payload is to be. */
static PyObject *failure(TaskObject *self, PyObject *exception)
{
    if (PyErr_GivenExceptionMatches(exception, names.task_exit)) {
        PyObject *value = PyObject_GetAttrString(exception, "value");
        if (value == NULL) { /* someone took the attribute away */
            PyErr_Clear();
            value = Py_NewRef(Py_None);
        }
        Py_DECREF(exception);
        return value;
    }
    self->failed = true;
    if (PyErr_GivenExceptionMatches(exception, names.cancelled)) self->cancelled = self->retrieved = true;
    PyObject *traceback = PyException_GetTraceback(exception);
    if (traceback != NULL && task_rare_of(self) != NULL) self->rare->traceback = traceback;
    else PyErr_Clear();
    if (PyErr_GivenExceptionMatches(exception, PyExc_SystemExit) ||
        PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
        self->retrieved = true;
        if (self != main_task) raise_in_main(Py_NewRef(exception));
    }
    return exception;
}

static void tell_group(TaskObject *self, PyObject *hook)
{
    task_mark_retrieved(self);
    PyObject *result = PyObject_CallFunctionObjArgs(hook, (PyObject *)self, self->payload, NULL);
    if (result == NULL) PyErr_WriteUnraisable(hook);
    Py_XDECREF(result);
}

static void count_down(TaskObject *self, PyObject *group)
{
    PyObject *hook = ((WaitGroupObject *)group)->on_failure;
    if (self->failed && !self->cancelled && hook != NULL) tell_group(self, hook);
    /* Its add() came with this task, so that the counter can only be short if someone called done() too often. */
    if (pg_latch_add(&((WaitGroupObject *)group)->core, -1) != PG_OK) {
        PyErr_SetString(PyExc_ValueError, "negative WaitGroup counter");
        PyErr_WriteUnraisable(group);
    }
}

static void finish(TaskObject *self, PyObject *result, pg_fiber *fiber)
{
    PyObject *exception = result ? NULL : interp_take_exception();
    if (self->own_context && PyContext_Exit(self->context) < 0) PyErr_WriteUnraisable((PyObject *)self);
    Py_CLEAR(self->payload);
    drop_arguments(self);
    Py_CLEAR(self->context);
    self->payload = exception == NULL ? result : failure(self, exception);
    self->done = true;
    self->live = false;
    live--;
    if (PG_UNLIKELY(self->failed && !self->retrieved)) unreported++;
    if (self->payload != Py_None && PyObject_IS_GC(self->payload) && !self->tracked) {
        PyObject_GC_Track(self);
        self->tracked = true;
    }
    scope_abandon_all(fiber);
    if (self->rare != NULL) pg_latch_add(&self->rare->ended, -1);
    if (self->call != NULL) {
        if (self->call->group != NULL) count_down(self, self->call->group);
        drop_call(self);
    }
    if (self->rare != NULL) task_run_callbacks(self);
}

/* ---- the run ---- */

static int install_hook(PyObject *name, const char *function)
{
    PyObject *hook = PyDict_GetItemWithError(names.threading, name);
    if (PG_LIKELY(hook == NULL || hook == Py_None)) return PyErr_Occurred() ? -1 : 0;
    PyObject *set = PySys_GetObject(function);
    PyObject *result = set ? PyObject_CallOneArg(set, hook) : NULL;
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* threading.settrace and setprofile reach new threads, and so new tasks. */
static int install_hooks(void)
{
    static uint64_t version_without; /* of threading's dict, when it named no hooks */
    uint64_t version = interp_dict_version(names.threading);
    if (PG_LIKELY(version != 0 && version == version_without)) return 0;
    if (install_hook(names.trace_hook, "settrace") < 0 || install_hook(names.profile_hook, "setprofile") < 0) return -1;
    PyObject *trace = PyDict_GetItemWithError(names.threading, names.trace_hook);
    PyObject *profile = PyDict_GetItemWithError(names.threading, names.profile_hook);
    if ((trace == NULL || trace == Py_None) && (profile == NULL || profile == Py_None)) version_without = version;
    return PyErr_Occurred() ? -1 : 0;
}

static int enter_context(TaskObject *self)
{
    if (self->context == NULL) return 0;
    if (self->own_context) {
        if (PyContext_Enter(self->context) == 0) return 0;
        self->own_context = false; /* it is entered elsewhere: the task fails, and leaves it alone */
        return -1;
    }
    interp_set_context(Py_NewRef(self->context));
    return 0;
}

/* As the end of a main program, with its exit codes. */
static _Noreturn void end_program(TaskObject *self)
{
    enum { INTERRUPTED = 128 + 2 };
    int code = 0;
    if (self->failed) {
        code = PyErr_GivenExceptionMatches(self->payload, PyExc_KeyboardInterrupt) ? INTERRUPTED : 1;
        task_mark_retrieved(self);
        interp_raise(Py_NewRef(self->payload));
        PyErr_Print(); /* ends the process itself, if it is a SystemExit */
    }
    Py_Exit(code);
}

/* Whoever waits for the task has been woken, so that the others are at rest only if nobody goes on. */
static void leave_bubble(TaskObject *self)
{
    pg_bubble_leave();
    Py_CLEAR(self->rare->bubble);
}

static PyObject *call_function(PyObject *function, const task_call *call)
{
    if (call == NULL) return PyObject_Vectorcall(function, NULL, 0, NULL);
    PyObject *keywords = call->named > 0 ? call->arguments[call->positional + call->named] : NULL;
    return PyObject_Vectorcall(function, call->arguments, call->positional, keywords);
}

static void task_run(pg_task *core)
{
    TaskObject *self = pg_container_of(core, TaskObject, core);
    pg_fiber *fiber = core->fiber; /* a task keeps its fiber wherever it goes */
    PyObject *result = NULL;
    self->started = true;
    if (PG_UNLIKELY(core->kind == PG_KIND_BUBBLED)) pg_bubble_enter(&self->rare->bubble->core);
    if (PG_UNLIKELY(self->cancel_requested)) { /* before it could begin */
        self->own_context = false; /* not entered */
        raise_cancelled();
    } else if (enter_context(self) == 0 && install_hooks() == 0) {
        interp_begin(fiber, self->payload);
        result = call_function(self->payload, self->call);
    }
    finish(self, result, fiber);
    if (PG_UNLIKELY(core->kind == PG_KIND_BUBBLED)) leave_bubble(self);
    if (PG_UNLIKELY(self == main_task)) end_program(self);
    pg_sched_detach_task(fiber); /* what follows may free it, and run any code */
    Py_DECREF(self);
    interp_reset(fiber);
}

/* ---- making ---- */

static int put_call(TaskObject *self, PyObject *const *args, Py_ssize_t positional, PyObject *keywords, PyObject *group)
{
    Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0, count = positional + named;
    if (count > INT32_MAX || pg_fails(task_arguments)) return -1;
    task_call *call = PyMem_Malloc(sizeof *call + (size_t)(count + (named > 0)) * sizeof call->arguments[0]);
    if (call == NULL) return -1;
    call->group = Py_XNewRef(group);
    call->positional = (uint32_t)positional;
    call->named = (uint32_t)named;
    for (Py_ssize_t i = 0; i < count; i++) call->arguments[i] = Py_NewRef(args[i]);
    if (named > 0) call->arguments[count] = Py_NewRef(keywords);
    self->call = call;
    return 0;
}

int task_put_in_bubble(TaskObject *self, BubbleObject *bubble)
{
    if (task_rare_of(self) == NULL) return -1;
    Py_XSETREF(self->rare->bubble, (BubbleObject *)Py_NewRef((PyObject *)bubble));
    return 0;
}

TaskObject *task_new(PyObject *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords,
                     PyObject *group)
{
    if (PG_UNLIKELY(!PyCallable_Check(function))) {
        PyErr_Format(PyExc_TypeError, "a task needs a callable, not %.100s", Py_TYPE(function)->tp_name);
        return NULL;
    }
    void *block = pg_fails(task_record) ? NULL : pg_pool_take(&pool);
    if (PG_UNLIKELY(block == NULL)) return (TaskObject *)PyErr_NoMemory();
    TaskObject *self = (TaskObject *)interp_object_in(block, &Task_Type);
    pg_task_init(&self->core, task_run);
    self->payload = Py_NewRef(function);
    self->context = NULL;
    self->spawner_code = interp_caller(&self->spawner_instruction);
    self->own_context = self->live = self->started = self->done = self->retrieved = self->failed = self->tracked = false;
    self->cancel_requested = self->cancelled = false;
    self->id = ++last_id;
    self->weakrefs = NULL;
    self->rare = NULL;
    self->call = NULL;
    BubbleObject *bubble = bubble_current();
    if (PG_UNLIKELY(bubble != NULL) && task_put_in_bubble(self, bubble) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    PyObject *context = interp_context();
    bool has_call = positional > 0 || keywords != NULL || group != NULL;
    if ((context != NULL && (self->context = PyContext_Copy(context)) == NULL) ||
        (has_call && put_call(self, args, positional, keywords, group) < 0)) {
        Py_DECREF(self);
        if (!PyErr_Occurred()) PyErr_NoMemory();
        return NULL;
    }
    return self;
}

void task_start(TaskObject *self)
{
    self->live = true;
    live++;
    started_count++;
    Py_INCREF(self); /* the runtime's, dropped at the end of task_run */
    if (PG_UNLIKELY(self->rare != NULL) && self->rare->bubble != NULL)
        pg_bubble_adopt(&self->rare->bubble->core, &self->core);
    pg_sched_spawn(&self->core);
}

static int options_from(TaskObject *self, PyObject *name, PyObject *context, PyObject *stack_size)
{
    if (name != Py_None) {
        if (!PyUnicode_Check(name)) {
            PyErr_Format(PyExc_TypeError, "a task's name must be a string, not %.100s", Py_TYPE(name)->tp_name);
            return -1;
        }
        if (task_rare_of(self) == NULL) return -1;
        self->rare->name = Py_NewRef(name);
    }
    if (context != Py_None) {
        if (!PyContext_CheckExact(context)) {
            PyErr_Format(PyExc_TypeError, "context must be a contextvars.Context, not %.100s",
                         Py_TYPE(context)->tp_name);
            return -1;
        }
        Py_XSETREF(self->context, Py_NewRef(context));
        self->own_context = true;
    }
    if (stack_size != Py_None) {
        Py_ssize_t size = PyNumber_AsSsize_t(stack_size, PyExc_ValueError);
        if (size == -1 && PyErr_Occurred()) return -1;
        if (size <= 0 || size > (Py_ssize_t)UINT16_MAX * PG_STACK_UNIT) {
            PyErr_Format(PyExc_ValueError, "a stack size must lie between 1 byte and 4 GiB, not %zd", size);
            return -1;
        }
        self->core.stack_units = (uint16_t)((size + PG_STACK_UNIT - 1) / PG_STACK_UNIT);
    }
    return 0;
}

/* (*args, **kwargs) as a vector; returns a new tuple that owns the items, and the names in *keywords (new). */
static PyObject *call_vector(PyObject *args, PyObject *kwargs, PyObject **keywords)
{
    PyObject *positional = PySequence_Tuple(args), *vector = NULL;
    *keywords = NULL;
    if (positional == NULL || kwargs == Py_None) return positional;
    if (!PyDict_Check(kwargs)) {
        PyErr_Format(PyExc_TypeError, "kwargs must be a dict, not %.100s", Py_TYPE(kwargs)->tp_name);
    } else {
        PyObject *keys = PyDict_Keys(kwargs), *values = PyDict_Values(kwargs), *tail = NULL;
        if (keys != NULL && values != NULL) {
            *keywords = PyList_AsTuple(keys);
            tail = PyList_AsTuple(values);
        }
        for (Py_ssize_t i = 0; *keywords != NULL && i < PyTuple_GET_SIZE(*keywords); i++)
            if (!PyUnicode_Check(PyTuple_GET_ITEM(*keywords, i))) {
                PyErr_SetString(PyExc_TypeError, "keywords must be strings");
                Py_CLEAR(tail);
                break;
            }
        if (tail != NULL) vector = PySequence_Concat(positional, tail);
        Py_XDECREF(keys);
        Py_XDECREF(values);
        Py_XDECREF(tail);
    }
    if (vector == NULL) Py_CLEAR(*keywords);
    Py_DECREF(positional);
    return vector;
}

PyObject *task_tp_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    static char *known[] = {"fn", "args", "kwargs", "name", "context", "stack_size", NULL};
    PyObject *function, *args = NULL, *kwargs = Py_None, *name = Py_None, *context = Py_None, *size = Py_None;
    PyObject *keywords;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|OO$OOO:Task", known, &function, &args, &kwargs, &name,
                                     &context, &size))
        return NULL;
    PyObject *none = PyTuple_New(0);
    PyObject *vector = call_vector(args ? args : none, kwargs, &keywords);
    Py_XDECREF(none);
    if (vector == NULL) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(vector) - (keywords ? PyTuple_GET_SIZE(keywords) : 0);
    TaskObject *self = task_new(function, ((PyTupleObject *)vector)->ob_item, count, keywords, NULL);
    Py_DECREF(vector);
    Py_XDECREF(keywords);
    if (self == NULL) return NULL;
    if (options_from(self, name, context, size) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    task_start(self);
    return (PyObject *)self;
}

/* ---- the type's life ---- */

int task_traverse(TaskObject *self, visitproc visit, void *arg)
{
    for (Py_ssize_t i = 0; self->call != NULL && i < argument_count(self->call); i++) Py_VISIT(self->call->arguments[i]);
    if (self->call != NULL) Py_VISIT(self->call->group);
    Py_VISIT(self->payload);
    Py_VISIT(self->context);
    if (self->rare == NULL) return 0;
    Py_VISIT(self->rare->callbacks);
    Py_VISIT(self->rare->traceback);
    Py_VISIT(self->rare->reason);
    return 0;
}

int task_clear(TaskObject *self)
{
    Py_CLEAR(self->payload);
    drop_call(self);
    Py_CLEAR(self->context);
    if (self->rare == NULL) return 0;
    Py_CLEAR(self->rare->callbacks);
    Py_CLEAR(self->rare->traceback);
    return 0;
}

void task_finalize(TaskObject *self)
{
    if (!self->failed || self->retrieved) return;
    PyObject *current = PyErr_Occurred() ? interp_take_exception() : NULL;
    report(self);
    if (current != NULL) interp_raise(current);
}

static void release(TaskObject *self)
{
    Py_XDECREF(self->spawner_code);
    Py_SET_TYPE(self, NULL);
    pg_pool_give(&pool, interp_object_block((PyObject *)self));
}

static void tear_down(TaskObject *self)
{
    if (self->failed && !self->retrieved && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    if (self->tracked) PyObject_GC_UnTrack(self);
    self->tracked = false;
    Py_TRASHCAN_BEGIN(self, task_dealloc)
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    task_clear(self);
    if (self->rare != NULL) {
        Py_XDECREF(self->rare->name);
        Py_XDECREF(self->rare->reason);
        Py_XDECREF(self->rare->bubble);
        PyMem_Free(self->rare);
    }
    release(self);
    Py_TRASHCAN_END
}

void task_dealloc(TaskObject *self)
{
    if (PG_UNLIKELY(self->payload != Py_None || self->weakrefs != NULL || self->rare != NULL)) tear_down(self);
    else { /* a task that has ended without a result: nothing of it can run code */
        Py_DECREF(Py_None);
        release(self);
    }
}

/* ---- all of them ---- */

TaskObject *task_from_core(pg_task *core)
{
    return core != NULL && core->run == task_run ? pg_container_of(core, TaskObject, core) : NULL;
}

TaskObject *task_current(void)
{
    pg_fiber *fiber = pg_sched_fiber();
    return fiber ? task_from_core(fiber->task) : NULL;
}

void task_forget_others(TaskObject *survivor)
{
    for (void *block = NULL; (block = pg_pool_next(&pool, block)) != NULL;) {
        TaskObject *task = task_in(block); /* the others never run again, nor end; the reference stays the runtime's */
        if (task == NULL || task == survivor) continue;
        if (task->live) task->live = false;
        if (task->done && task->failed && !task->retrieved) task->retrieved = true; /* the parent reports it */
    }
    live = survivor != NULL;
    unreported = reporting = 0;
    main_task = survivor;
}

static_assert(INTERP_OBJECT_HEADER + sizeof(TaskObject) == 2 * PG_CACHE_LINE, "a hundred thousand are bound by memory");

/* ---- memory ---- */

bool task_give_back(void) { return pg_pool_shrink(&pool, false); }

/* A full collection has CPython give its free lists back; whoever asks for one to see what is really in use must not find ours.
 * An object that the collector looks at learns of it. */
static int watcher_traverse(PyObject *self, visitproc visit, void *arg)
{
    pg_pool_shrink(&pool, true);
    return 0;
}

static PyTypeObject Watcher_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pygo._core.CollectionWatcher",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "Gives free memory of tasks back when the collector comes by.",
    .tp_traverse = watcher_traverse,
    .tp_free = PyObject_GC_Del,
};

int task_setup(void)
{
    enum { KEEP = 100000 };
    pg_pool_init(&pool, INTERP_OBJECT_HEADER + sizeof(TaskObject), KEEP);
    if (PyType_Ready(&Watcher_Type) < 0) return -1;
    PyObject *watcher = PyObject_GC_New(PyObject, &Watcher_Type); /* as long as the process */
    if (watcher == NULL) return -1;
    PyObject_GC_Track(watcher);
    return 0;
}
