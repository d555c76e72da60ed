/* Tasks that make greenlets.
 *
 * The greenlet package keeps the current greenlet, and those to be thrown away, in a thread-local of C++, copies parts of the
 * running C stack to and fro, and resumes a greenlet wherever its OS thread is. To it, two tasks on one OS thread are one
 * program. A greenlet of a task that waits would be resumed, or killed, by another task, on the stack of the first. So from
 * the moment it makes its first greenlet a task has its OS thread for itself; that thread ends with the task, and what it
 * left suspended is for greenlet what a thread that ended left.
 *
 * That moment is seen in the type's tp_new, which is static and which subclasses come through, and in the one function of its
 * C API that makes greenlets. Rejected: asking at each park whether a greenlet is current. It does not tell of those that are
 * suspended, which are as dangerous.
 */
#include "python/objects.h"

#include <string.h>

enum { API_NEW = 3 }; /* PyGreenlet_New in the table of greenlet's C API; greenlet.h has the numbers */

static newfunc type_new;
static PyObject *(*api_new)(PyObject *run, PyObject *parent);

static int bind_task(void)
{
    switch (pg_sched_bind()) {
    case PG_OK: return 0;
    case PG_EINVAL:
        PyErr_SetString(PyExc_RuntimeError, "greenlets cannot be made inside call_on_stack(): they would outlive its stack");
        return -1;
    case PG_EAGAIN:
        PyErr_SetString(PyExc_RuntimeError, "greenlets cannot be made here: the task waits below C code, and another task has "
                                            "this OS thread to itself; use lock_thread() before");
        return -1;
    default: PyErr_NoMemory(); return -1;
    }
}

static PyObject *bound_type_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    return bind_task() < 0 ? NULL : type_new(type, args, keywords);
}

static PyObject *bound_api_new(PyObject *run, PyObject *parent)
{
    return bind_task() < 0 ? NULL : api_new(run, parent);
}

/* Types that were derived before copied the slot. */
static int take_over(PyTypeObject *type)
{
    if (type->tp_new == type_new) type->tp_new = bound_type_new;
    PyObject *derived = PyObject_CallMethod((PyObject *)type, "__subclasses__", NULL);
    int outcome = derived != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; outcome == 0 && i < PyList_GET_SIZE(derived); i++)
        outcome = take_over((PyTypeObject *)PyList_GET_ITEM(derived, i));
    Py_XDECREF(derived);
    return outcome;
}

static int take_over_api(PyObject *capsule)
{
    const char *name = PyCapsule_GetName(capsule);
    void **table = name ? PyCapsule_GetPointer(capsule, name) : NULL;
    if (table == NULL) return -1;
    memcpy(&api_new, &table[API_NEW], sizeof api_new);
    PyObject *(*bound)(PyObject *, PyObject *) = bound_api_new;
    memcpy(&table[API_NEW], &bound, sizeof bound);
    return 0;
}

int greenlet_take_over(PyObject *module)
{
    if (type_new != NULL) return 0; /* its types are static: once is enough */
    PyObject *type = PyObject_GetAttrString(module, "greenlet"), *api = PyObject_GetAttrString(module, "_C_API");
    int outcome = -1;
    if (type != NULL && api != NULL && PyType_Check(type) && ((PyTypeObject *)type)->tp_new != NULL) {
        type_new = ((PyTypeObject *)type)->tp_new;
        outcome = take_over((PyTypeObject *)type) < 0 ? -1 : take_over_api(api);
    }
    Py_XDECREF(type);
    Py_XDECREF(api);
    if (outcome < 0 && !PyErr_Occurred()) PyErr_SetString(PyExc_ImportError, "not the greenlet module that pygo knows");
    return outcome;
}
