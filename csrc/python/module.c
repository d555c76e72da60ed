/* The module `pygo._native`: task functions, set-up, and the hooks that make fibers interpreter threads.
 *
 * It lives in the shared object of the cffi module `pygo._core` and is loaded from there under its own name (PEP 489,
 * "multiple modules in one library").
 */
#include "machine/annotate.h"
#include "machine/switch.h"
#include "python/cxx.h"
#include "python/objects.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include <pthread.h>

/* ---- hooks ---- */

static void *thread_leave(void) { return PyEval_SaveThread(); }
static void thread_enter(void *token) { PyEval_RestoreThread(token); }

static void start_hooks(pg_hooks *hooks)
{
    *hooks = (pg_hooks){
        .fiber_extra = interp_fiber_extra(),
        .fiber_init = interp_fiber_init,
        .fiber_fini = interp_fiber_fini,
        .fiber_fini_possible = interp_fiber_fini_possible,
        .give_back = task_give_back,
        .enter = interp_enter,
        .foresee = interp_foresee,
        .leave = interp_leave,
        .is_outside = interp_is_outside,
        .must_stay = interp_must_stay,
        .may_have_to_stay = interp_may_have_to_stay,
        .may_stray = interp_may_stray,
        .thread_leave = thread_leave,
        .thread_enter = thread_enter,
        .thread_interrupted = main_interrupted,
        .is_cancelled = scope_is_cancelled,
        .thread_stuck = main_stuck,
        .is_ending = interp_is_ending,
        .describe = task_describe,
        .is_busy = interp_is_busy,
        .serial = true, /* the GIL */
        .switch_restarts_waits = !interp_switch_keeps_gil(),
    };
}

/* ---- tasks ---- */

static PyObject *do_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (PG_UNLIKELY(count == 0)) {
        PyErr_SetString(PyExc_TypeError, "spawn() needs a callable");
        return NULL;
    }
    TaskObject *task = task_new(args[0], args + 1, count - 1, keywords, NULL);
    if (task == NULL) return NULL;
    task_start(task);
    if (PG_UNLIKELY(pg_load_relaxed(&pg_sched_is_seeded))) pg_sched_preempt_point();
    return (PyObject *)task;
}

static PyObject *do_current_task(PyObject *module, PyObject *unused)
{
    TaskObject *task = task_current();
    return Py_NewRef(task ? (PyObject *)task : Py_None);
}

static PyObject *do_all_tasks(PyObject *module, PyObject *unused) { return task_list_all(); }

static PyObject *do_yield(PyObject *module, PyObject *unused)
{
    pg_sched_yield();
    if (check_cancelled() < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *do_exit_task(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t used = 0;
    PyObject *value = count ? args[0] : keyword(args, count, keywords, "value", &used);
    if (count > 1 || check_keywords("exit_task", keywords, used) < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "exit_task() takes one value at most");
        return NULL;
    }
    if (task_current() == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "exit_task() outside of a task");
        return NULL;
    }
    PyObject *exit = PyObject_CallOneArg(names.task_exit, value ? value : Py_None);
    if (exit != NULL) interp_raise(exit);
    return NULL;
}

static PyObject *do_pin(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(pg_sched_pin() == PG_OK); /* an ordinary thread is where it is anyway */
}

static PyObject *do_unpin(PyObject *module, PyObject *unused)
{
    if (pg_sched_unpin() == PG_OK || task_current() == NULL) Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError, "the task is not locked to its thread");
    return NULL;
}

/* ---- a call on another stack ---- */

typedef struct stack_call {
    PyObject *const *args;
    Py_ssize_t count;
    PyObject *keywords;
    const char *outer_base; /* the stack it comes back to, for machine/annotate.h */
    size_t outer_size;
} stack_call;

static void *run_stack_call(void *opaque)
{
    stack_call *call = opaque;
    pg_note_arrival_from(NULL, &call->outer_base, &call->outer_size);
    PyObject *result = PyObject_Vectorcall(call->args[0], call->args + 1, (size_t)call->count - 1, call->keywords);
    pg_note_departure(call->outer_base, call->outer_size);
    return result;
}

static PyObject *do_call_on_stack(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    pg_segment segment;
    interp_bounds saved;
    if (count < 2 || !PyCallable_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "call_on_stack() takes a size, a callable, and the callable's arguments");
        return NULL;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(args[0], PyExc_ValueError);
    if (size == -1 && PyErr_Occurred()) return NULL;
    if (size <= 0) {
        PyErr_Format(PyExc_ValueError, "a stack size must be positive, not %zd", size);
        return NULL;
    }
    if (size < INTERP_LEAST_STACK) size = INTERP_LEAST_STACK;
    int outcome = pg_sched_segment_link(&segment, (size_t)size);
    if (outcome == PG_EINVAL) {
        PyErr_SetString(PyExc_RuntimeError, "call_on_stack() after greenlets have been made: they cannot leave its stack");
        return NULL;
    }
    if (outcome != PG_OK) return PyErr_NoMemory();
    stack_call call = {.args = args + 1, .count = count - 1, .keywords = keywords};
    interp_stack_enter(segment.stack.base, pg_stack_size(&segment.stack), &saved);
    void *fake = pg_note_departure(segment.stack.base, pg_stack_size(&segment.stack));
    PyObject *result = pg_switch_call_on(segment.stack.top, run_stack_call, &call);
    pg_note_arrival(fake);
    interp_stack_leave(&saved);
    pg_sched_segment_unlink(&segment);
    return result;
}

/* ---- other extensions ---- */

static PyObject *do_extension_loaded(PyObject *module, PyObject *loaded)
{
    cxx_look();
    const char *name = PyModule_Check(loaded) ? PyModule_GetName(loaded) : NULL;
    if (name == NULL) PyErr_Clear();
    else if (strcmp(name, "greenlet._greenlet") == 0 && greenlet_take_over(loaded) < 0) return NULL;
    Py_RETURN_NONE;
}

/* ---- process ---- */

/* Who lets go of a failed task last reports it: a worker may be at that, and all else have ended. */
static void let_reports_end(void)
{
    pg_nanos deadline = pg_deadline_after(2 * PG_SECOND); /* a hook may as well wait for ever */
    while (task_is_reporting() && pg_now() < deadline) {
        Py_BEGIN_ALLOW_THREADS
        pg_nanosleep(PG_SECOND / 1000);
        Py_END_ALLOW_THREADS
    }
}

static PyObject *do_at_exit(PyObject *module, PyObject *unused)
{
    task_report_unretrieved();
    let_reports_end();
    Py_BEGIN_ALLOW_THREADS
    pg_sched_stop(PG_SECOND / 20);
    Py_END_ALLOW_THREADS
    task_report_unretrieved(); /* of tasks that ended meanwhile */
    Py_RETURN_NONE;
}

/* The core's locks are held around the system call alone, and the child is in order before anything runs in it: hence
 * handlers of the C library. Rejected: os.register_at_fork for all of it. Hooks that others had registered before us would
 * run with the locks held, give the GIL away (logging's waits for a lock), and the task that then needs a lock of ours
 * keeps the GIL for ever. And in the child the interpreter deletes the other threads' states before any hook runs, which
 * runs finalizers, which may use channels. */
static void fork_begins(void)
{
    interp_lock_states();
    pg_sched_before_fork();
}

static void fork_in_parent(void)
{
    pg_sched_after_fork_in_parent();
    interp_unlock_states();
}

static void fork_in_child(void)
{
    if (!interp_is_inside()) { /* a C library's fork: who knows where the others were; the child will not use Python */
        fork_in_parent();
        return;
    }
    pg_sched_after_fork_in_child(pg_sync_forget);
    interp_unlock_states();
    pg_bubble_after_fork(pg_sched_fiber());
    timer_after_fork_in_child();
    task_forget_others(task_current());
    forget_pending_in_main();
}

/* What needs an interpreter that has recovered from the fork. A task that forked is the child's main thread: it stays on
 * this OS thread, the only one that runs signal handlers. */
static PyObject *do_after_fork_in_child(PyObject *module, PyObject *unused)
{
    interp_after_fork(pg_sched_fiber());
    if (pg_sched_self() != NULL) scope_after_fork(pg_sched_self());
    (void)pg_sched_pin();
    Py_RETURN_NONE;
}

static PyObject *do_claim_process(PyObject *module, PyObject *unused)
{
    static bool claimed;
    bool first = !claimed;
    claimed = true;
    return PyBool_FromLong(first);
}

static PyObject *do_get_ident(PyObject *module, PyObject *unused)
{
    pg_fiber *fiber = pg_sched_fiber();
    unsigned long ident = fiber ? (unsigned long)(uintptr_t)fiber : (unsigned long)pthread_self();
    return PyLong_FromUnsignedLong(ident);
}

static PyObject *do_wait_to_report(PyObject *module, PyObject *unused)
{
    if (pg_sched_wait_to_report() == PG_OK) Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError, "only an ordinary thread can wait for reports");
    return NULL;
}

static PyObject *do_next_overdue(PyObject *module, PyObject *unused)
{
    pg_overdue found;
    if (!pg_sched_next_overdue(&found)) Py_RETURN_NONE;
    PyObject *task = (PyObject *)task_from_core(found.task);
    return Py_BuildValue("(Odk)", task ? task : Py_None, (double)(pg_now() - found.since) / 1e9, found.os_id);
}

static PyObject *do_next_dump(PyObject *module, PyObject *unused) { return PyBool_FromLong(pg_sched_next_dump()); }

/* Both ways at once: where the main thread computes its handler comes first, at the next bytecode, so that a program can
 * ask for a dump of this very moment; else the thread that reports makes the dump. */
static void on_dump_signal(int number)
{
    int saved = errno;
    pg_sched_ask_dump();
    PyErr_SetInterruptEx(number);
    errno = saved;
}

/* The handler in Python. In C, so that nobody takes the GIL between the signal and this one's taking of the request. */
static PyObject *do_dump_at_signal(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct sigaction now;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "a signal handler takes 2 arguments, not %zd", count);
    if (sigaction((int)PyLong_AsLong(args[0]), NULL, &now) != 0) return PyErr_SetFromErrno(PyExc_OSError);
    /* Under another action the program has put back this handler, or calls it from its own. */
    if (now.sa_handler == on_dump_signal && !pg_sched_next_dump()) Py_RETURN_NONE;
    PyObject *reporter = PyImport_ImportModule("pygo._reporter");
    if (reporter == NULL) return NULL;
    PyObject *result = PyObject_CallMethod(reporter, "dump_now", NULL);
    Py_DECREF(reporter);
    return result;
}

/* After signal.signal(), which has checked the number and replaced the handler of before. A call that the signal comes
 * into goes on after it. */
static PyObject *do_dump_on(PyObject *module, PyObject *number)
{
    struct sigaction action = {.sa_handler = on_dump_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction((int)PyLong_AsLong(number), &action, NULL) != 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *do_stack_of_thread(PyObject *module, PyObject *ident)
{
    unsigned long number = PyLong_AsUnsignedLong(ident);
    if (number == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    return task_stack_of_thread(number);
}

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef task_functions[] = {
    {"spawn", CALL(do_spawn), FAST_KEYWORDS,
     PyDoc_STR("spawn(fn, /, *args, **kwargs)\n--\n\nSchedule fn(*args, **kwargs) as a task and return its Task at once; "
               "never waits.\n\nMay be called from tasks and any thread. Raises TypeError if fn is not callable.\n\n"
               "    >>> spawn(sum, [1, 2, 3]).join()\n    6")},
    {"current_task", do_current_task, METH_NOARGS,
     PyDoc_STR("current_task()\n--\n\nThe running Task, or None outside of tasks.")},
    {"all_tasks", do_all_tasks, METH_NOARGS,
     PyDoc_STR("all_tasks()\n--\n\nA list of the tasks that have been spawned and have not ended, oldest first.")},
    {"yield_now", do_yield, METH_NOARGS,
     PyDoc_STR("yield_now()\n--\n\nLet other ready tasks run first. Go's runtime.Gosched.")},
    {"exit_task", CALL(do_exit_task), FAST_KEYWORDS,
     PyDoc_STR("exit_task(value=None)\n--\n\nEnd the running task with `value` as its result, running its finally blocks. "
               "Go's runtime.Goexit.\n\nRaises RuntimeError outside of tasks.")},
    {"call_on_stack", CALL(do_call_on_stack), FAST_KEYWORDS,
     PyDoc_STR("call_on_stack(size, fn, /, *args, **kwargs)\n--\n\nCall fn(*args, **kwargs) on a stack segment of `size` "
               "bytes linked for this one call; return its result.\n\nFor code that recurses deeply in C. Raises "
               "ValueError for a bad size, MemoryError when the system refuses.")},
    {"_extension_loaded", do_extension_loaded, METH_O,
     PyDoc_STR("_extension_loaded(module, /)\n--\n\nAn extension module has been loaded: tasks may have to mind it.")},
    {"_pin", do_pin, METH_NOARGS, NULL},
    {"_unpin", do_unpin, METH_NOARGS, NULL},
    {"_at_exit", do_at_exit, METH_NOARGS, NULL},
    {"_after_fork_in_child", do_after_fork_in_child, METH_NOARGS, NULL},
    {"_claim_process", do_claim_process, METH_NOARGS,
     PyDoc_STR("_claim_process()\n--\n\nTrue the first time: what is done once per process is the caller's to do.")},
    {"_wait_to_report", do_wait_to_report, METH_NOARGS,
     PyDoc_STR("_wait_to_report()\n--\n\nFor the thread that reports: wait until _next_dump() or _next_overdue() may have "
               "something.")},
    {"_next_dump", do_next_dump, METH_NOARGS,
     PyDoc_STR("_next_dump()\n--\n\nWhether a dump has been asked for since the last call.")},
    {"_dump_on", do_dump_on, METH_O,
     PyDoc_STR("_dump_on(signum, /)\n--\n\nHave the signal ask for a dump, besides running its Python handler.")},
    {"_dump_at_signal", CALL(do_dump_at_signal), METH_FASTCALL,
     PyDoc_STR("_dump_at_signal(signum, frame, /)\n--\n\nThe handler that goes with _dump_on().")},
    {"_next_overdue", do_next_overdue, METH_NOARGS,
     PyDoc_STR("_next_overdue()\n--\n\n(task, seconds, native thread id) of a stay in one call, or None; the task is None "
               "when it has left the call.")},
    {"_stack_of_thread", do_stack_of_thread, METH_O,
     PyDoc_STR("_stack_of_thread(ident, /)\n--\n\nAn ordinary thread's stack as Task._snapshot() gives it.")},
    {"_get_ident", do_get_ident, METH_NOARGS,
     PyDoc_STR("_get_ident()\n--\n\nLike threading.get_ident(), but a task has one of its own.")},
    {NULL, NULL, 0, NULL},
};

/* ---- set-up ---- */

static int take(PyObject **slot, PyObject *module, const char *name)
{
    *slot = module ? PyObject_GetAttrString(module, name) : NULL;
    return *slot ? 0 : -1;
}

static int take_names(void)
{
    PyObject *errors = PyImport_ImportModule("pygo._errors"), *threading = PyImport_ImportModule("threading");
    PyObject *deadlock = PyImport_ImportModule("pygo._deadlock");
    int failed = take(&names.error, errors, "Error") || take(&names.channel_closed, errors, "ChannelClosed") ||
                 take(&names.cancelled, errors, "Cancelled") || take(&names.task_cancelled, errors, "TaskCancelled") || take(&names.task_exit, errors, "TaskExit") ||
                 take(&names.selected, errors, "Selected") || take(&names.waiting_on, errors, "WaitingOn") ||
                 take(&names.threading, threading, "__dict__") ||
                 take(&names.deadlock_error, deadlock, "deadlock_error");
    names.pygo = PyUnicode_InternFromString("pygo");
    names.trace_hook = PyUnicode_InternFromString("_trace_hook");
    names.profile_hook = PyUnicode_InternFromString("_profile_hook");
    Py_XDECREF(errors);
    Py_XDECREF(threading);
    Py_XDECREF(deadlock);
    return failed || names.pygo == NULL || names.trace_hook == NULL || names.profile_hook == NULL ? -1 : 0;
}

static int add_types(PyObject *module)
{
    PyTypeObject *types[] = {&Task_Type,      &Scope_Type,   &Channel_Type, &SendChannel_Type, &RecvChannel_Type,
                             &Case_Type,      &WaitGroup_Type, &Timer_Type, &Ticker_Type,      &Lock_Type,
                             &RLock_Type,     &Semaphore_Type, &BoundedSemaphore_Type,         &WeightedSemaphore_Type,
                             &Event_Type,     &Bubble_Type};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0) return -1;
    return 0;
}

static int native_exec(PyObject *module)
{
    pg_hooks hooks;
    static bool done;
    if (interp_setup() < 0) return -1;
    if (take_names() < 0) return -1;
    if (!done) { /* the process has one runtime, however often the module is made */
        start_hooks(&hooks);
        if (task_setup() < 0) return -1;
        int workers = pg_cpu_count();
        pg_sched_init(&hooks, workers < PG_MAX_WORKERS ? workers : PG_MAX_WORKERS, true);
        if (pthread_atfork(fork_begins, fork_in_parent, fork_in_child) != 0) {
            PyErr_NoMemory();
            return -1;
        }
        cxx_look();
        done = true;
    }
    if (add_types(module) < 0) return -1;
    PyMethodDef *functions[] = {select_methods, time_methods, scope_functions, lock_functions, bubble_functions};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (PyModule_AddFunctions(module, functions[i]) < 0) return -1;
    return 0;
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pygo._native",
    .m_doc = "The native types of pygo. Import them from `pygo`.",
    .m_methods = task_functions,
    .m_slots = native_slots,
};

PyMODINIT_FUNC PyInit__native(void);
__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&native_module); }
