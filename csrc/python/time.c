/* sleep() and after(). */
#include "python/objects.h"

static PyObject *do_sleep(PyObject *module, PyObject *seconds)
{
    static const wait_info info = {.reason = "sleep"};
    pg_nanos nanos;
    if (nanos_from(seconds, &nanos) < 0) return NULL;
    if (nanos == 0) {
        pg_sched_yield();
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

static PyObject *do_after(PyObject *module, PyObject *seconds)
{
    pg_nanos nanos;
    if (nanos_from(seconds, &nanos) < 0) return NULL;
    ChannelObject *channel = timer_channel(nanos);
    PyObject *view = channel ? channel_receiver(channel) : NULL;
    Py_XDECREF(channel);
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
