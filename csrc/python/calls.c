/* What waiting calls share: timeouts, waits as seen from outside, outcomes as exceptions. */
#include "python/objects.h"

#include <math.h>
#include <string.h>

py_names names;

/* ---- time ---- */

int nanos_from(PyObject *seconds, pg_nanos *nanos)
{
    if (PyLong_CheckExact(seconds)) {
        int overflow;
        long long whole = PyLong_AsLongLongAndOverflow(seconds, &overflow);
        if (overflow == 0 && whole >= 0) {
            *nanos = whole > PG_FOREVER / PG_SECOND ? PG_FOREVER : whole * PG_SECOND;
            return 0;
        }
    }
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        value = 1e30;
    }
    if (isnan(value) || value < 0) {
        PyErr_Format(PyExc_ValueError, "a time must be a non-negative number of seconds, not %R", seconds);
        return -1;
    }
    *nanos = value >= 9e9 ? PG_FOREVER : (pg_nanos)ceil(value * 1e9); /* never rounded down to a spin */
    return 0;
}

int deadline_from(PyObject *timeout, pg_nanos *deadline)
{
    pg_nanos nanos;
    *deadline = PG_FOREVER;
    if (timeout == NULL || timeout == Py_None) return 0;
    if (nanos_from(timeout, &nanos) < 0) return -1;
    *deadline = pg_sched_deadline_after(nanos);
    return 0;
}

/* ---- waits ---- */

void note_wait(const wait_info *info)
{
    pg_fiber *fiber = pg_sched_fiber();
    if (fiber == NULL) return;
    fiber->wait = info;
    fiber->durable = info->durable;
}

static PyObject *pending_in_main; /* an exception for the main thread */

static int raise_pending(void *unused)
{
    PyObject *exception = pending_in_main;
    if (exception == NULL) return 0;
    pending_in_main = NULL;
    interp_raise(exception);
    return -1;
}

void raise_in_main(PyObject *exception)
{
    if (pending_in_main != NULL) { /* the first is about to end the program */
        Py_DECREF(exception);
        return;
    }
    pending_in_main = exception;
    Py_AddPendingCall(raise_pending, NULL); /* if it runs Python; a full queue is no loss, the wait looks too */
    pg_sched_nudge_main();
}

void forget_pending_in_main(void) { pending_in_main = NULL; } /* a reference less: no code may run yet */

void not_again_in_main(PyObject *exception)
{
    if (PG_LIKELY(pending_in_main != exception) || !pg_os_is_main_thread()) return;
    Py_CLEAR(pending_in_main);
}

bool main_was_interrupted;

bool main_interrupted(void)
{
    bool interrupted = raise_pending(NULL) < 0 || PyErr_CheckSignals() < 0;
    if (interrupted) main_was_interrupted = true;
    return interrupted;
}

bool main_stuck(void)
{
    if (interp_is_ending()) { /* a finalizer at the very end waits; nothing can be imported any more, either */
        PyErr_SetString(PyExc_RuntimeError, "no task runs any more: the interpreter is shutting down");
        main_was_interrupted = true;
        return true;
    }
    PyObject *error = PyObject_CallNoArgs(names.deadlock_error);
    if (error == Py_None) { /* it knows better */
        Py_DECREF(error);
        return false;
    }
    if (error != NULL) interp_raise(error);
    main_was_interrupted = true;
    return true;
}

void raise_later(void)
{
    if (!pg_os_is_main_thread()) return; /* a task that succeeds while main is about to raise */
    main_was_interrupted = false;
    if (PyErr_Occurred() != NULL) raise_in_main(interp_take_exception());
}

int raise_outcome(int outcome, const char *what)
{
    switch (outcome) {
    case PG_EINTERRUPTED: main_was_interrupted = false; break;
    case PG_ECLOSED: PyErr_SetString(names.channel_closed, what); break;
    case PG_ENOMEM: PyErr_NoMemory(); break;
    case PG_ECANCELED: raise_cancelled(); break;
    case PG_EAGAIN:
    case PG_ETIMEDOUT: PyErr_SetString(PyExc_TimeoutError, what); break;
    default:
        if (!PyErr_Occurred()) PyErr_Format(PyExc_RuntimeError, "%s: %s", what, pg_error_name(outcome));
    }
    return -1;
}

/* ---- arguments ---- */

PyObject *keyword(PyObject *const *args, Py_ssize_t positional, PyObject *keywords, const char *name, Py_ssize_t *used)
{
    Py_ssize_t count = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, i), name) != 0) continue;
        ++*used;
        return args[positional + i];
    }
    return NULL;
}

int check_keywords(const char *function, PyObject *keywords, Py_ssize_t used)
{
    if (keywords == NULL || PyTuple_GET_SIZE(keywords) == used) return 0;
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument; the names were %R", function, keywords);
    return -1;
}

int some_timeout(const char *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords, Py_ssize_t at,
                 pg_nanos *deadline)
{
    Py_ssize_t used = 0;
    PyObject *timeout = NULL;
    if (positional < at || positional > at + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd positional arguments but %zd were given", function, at,
                     at + 1, positional);
        return -1;
    }
    timeout = keyword(args, positional, keywords, "timeout", &used);
    if (timeout != NULL && positional > at) {
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument 'timeout'", function);
        return -1;
    }
    if (check_keywords(function, keywords, used) < 0) return -1;
    return deadline_from(positional > at ? args[at] : timeout, deadline);
}
