/* sleep() and after(). */
#include "python/objects.h"

#include "base/failpoint.h"

static PyObject *do_sleep(PyObject *module, PyObject *seconds)
{
    static const wait_info info = {.reason = "sleep", .durable = true};
    pg_nanos nanos;
    if (nanos_from(seconds, &nanos) < 0) return NULL;
    if (nanos == 0) {
        pg_sched_yield();
        if (check_cancelled() < 0) return NULL;
        Py_RETURN_NONE;
    }
    note_wait(&info);
    int outcome = pg_sched_sleep_until(pg_sched_deadline_after(nanos));
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

/* ---- what pending timers will touch ---- */

typedef struct found_channels {
    PyObject **items;
    Py_ssize_t count, room;
} found_channels;

static void look_at_timer(pg_timer *timer, void *opaque)
{
    found_channels *found = opaque;
    PyObject *channel = timer_target(timer);
    if (channel == NULL) return;
    if (found->count < found->room) found->items[found->count] = Py_NewRef(channel);
    found->count++;
}

static PyObject *do_timer_channels(PyObject *module, PyObject *unused)
{
    found_channels found = {NULL, 0, 0};
    pg_sched_each_timer(look_at_timer, &found); /* counts; timers that expire before the next call leave room over */
    Py_ssize_t room = found.count;
    found = (found_channels){pg_fails(task_list) ? NULL : PyMem_New(PyObject *, room + 1), 0, room}; /* only with the GIL are channel timers started */
    if (found.items == NULL) return PyErr_NoMemory();
    pg_sched_each_timer(look_at_timer, &found);
    PyObject *list = PyList_New(found.count);
    for (Py_ssize_t i = 0; i < found.count; i++) {
        if (list != NULL) PyList_SET_ITEM(list, i, found.items[i]);
        else Py_DECREF(found.items[i]);
    }
    PyMem_Free(found.items);
    return list;
}

PyMethodDef time_methods[] = {
    {"sleep", do_sleep, METH_O,
     PyDoc_STR("sleep(seconds, /)\n--\n\nLet the caller wait while other tasks run; 0 only yields.\n\nRaises ValueError "
               "for a negative time. time.sleep() works in tasks too, but keeps an OS thread.")},
    {"_timer_channels", do_timer_channels, METH_NOARGS,
     PyDoc_STR("_timer_channels()\n--\n\nThe channels that pending timers will send to.")},
    {"after", do_after, METH_O,
     PyDoc_STR("after(seconds, /)\n--\n\nA RecvChannel[float] that gets one value, time.monotonic(), when the time has "
               "passed. Never waits.\n\nRaises ValueError for a negative time. Meant for select.")},
    {NULL, NULL, 0, NULL},
};
