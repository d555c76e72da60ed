/* sleep() and after(). */
#include "python/objects.h"

static PyObject *do_sleep(PyObject *module, PyObject *seconds)
{
    static const wait_info info = {.reason = "sleep"};
    pg_nanos nanos;
    if (nanos_from(seconds, &nanos) < 0) return NULL;
    if (nanos == 0) {
        pg_sched_yield();
        if (check_cancelled() < 0) return NULL;
        Py_RETURN_NONE;
    }
    note_wait(&info);
    int outcome = pg_sched_sleep_until(pg_deadline_after(nanos));
    if (outcome != PG_OK) {
        raise_outcome(outcome, "sleep");
        return NULL;
    }
    after_success();
    Py_RETURN_NONE;
}

/* ---- after: a channel, and a timer whose expiry starts a task of its own that sends ---- */

typedef struct after_timer {
    pg_task task;
    pg_timer timer;
    PyObject *channel;
} after_timer;

static pg_task *after_fire(pg_timer *timer) { return &pg_container_of(timer, after_timer, timer)->task; }

static void after_run(pg_task *task)
{
    after_timer *self = pg_container_of(task, after_timer, task);
    ChannelObject *channel = (ChannelObject *)self->channel;
    pg_sched_detach_task();
    PyMem_Free(self);
    PyObject *now = PyFloat_FromDouble((double)pg_now() / 1e9);
    if (now == NULL) {
        PyErr_WriteUnraisable((PyObject *)channel);
    } else if (pg_chan_send(&channel->core, (uintptr_t)now, PG_NEVER_WAIT) != PG_OK) {
        Py_DECREF(now); /* the one place is free: only a channel closed behind the view's back gets here */
    }
    Py_DECREF(channel);
    interp_reset(pg_sched_fiber());
}

static PyObject *do_after(PyObject *module, PyObject *seconds)
{
    pg_nanos nanos;
    if (nanos_from(seconds, &nanos) < 0) return NULL;
    ChannelObject *channel = channel_make(1);
    PyObject *view = channel ? channel_receiver(channel) : NULL;
    after_timer *self = view ? PyMem_Malloc(sizeof *self) : NULL;
    if (self == NULL) {
        Py_XDECREF(view);
        Py_XDECREF(channel);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    pg_task_init(&self->task, after_run);
    self->timer = (pg_timer){.fire = after_fire};
    self->channel = (PyObject *)channel; /* steals */
    pg_nanos deadline = nanos == 0 ? pg_now() : pg_deadline_after(nanos);
    if (deadline == PG_FOREVER) { /* it never fires: nothing to keep */
        PyMem_Free(self);
        Py_DECREF(channel);
    } else if (pg_sched_timer_start(&self->timer, deadline) != PG_OK) {
        PyMem_Free(self);
        Py_DECREF(channel);
        Py_DECREF(view);
        return PyErr_NoMemory();
    }
    return view;
}

PyMethodDef time_methods[] = {
    {"sleep", do_sleep, METH_O,
     PyDoc_STR("sleep(seconds, /)\n--\n\nLet the caller wait while other tasks run; 0 only yields.\n\nRaises ValueError "
               "for a negative time. time.sleep() works in tasks too, but keeps an OS thread.")},
    {"after", do_after, METH_O,
     PyDoc_STR("after(seconds, /)\n--\n\nA RecvChannel[float] that gets one value, time.monotonic(), when the time has "
               "passed. Never waits.\n\nRaises ValueError for a negative time. Meant for select.")},
    {NULL, NULL, 0, NULL},
};
