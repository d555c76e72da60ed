/* What task.c and task_type.c share. */
#ifndef PG_PYTHON_TASK_H
#define PG_PYTHON_TASK_H

#include "python/objects.h"

/* The part that few tasks have, made if there is none; NULL with MemoryError. */
task_rare *task_rare_of(TaskObject *self);
void task_mark_retrieved(TaskObject *self);
/* Those not called yet, once each. */
void task_run_callbacks(TaskObject *self);
/* Those that `wanted` picks, oldest first, with a reference each: *count of them, from PyMem_Malloc. NULL: no memory. */
TaskObject **task_find(bool (*wanted)(TaskObject *, void *), void *argument, size_t limit, size_t *count);
/* Cancel those that `wanted` picks, in no order, without memory. It runs no other code. */
void task_cancel_each(bool (*wanted)(TaskObject *, void *), void *argument, PyObject *reason);

/* Slots of the type. */
PyObject *task_tp_new(PyTypeObject *type, PyObject *arguments, PyObject *named);
int task_traverse(TaskObject *self, visitproc visit, void *arg);
int task_clear(TaskObject *self);
void task_finalize(TaskObject *self);
void task_dealloc(TaskObject *self);

#endif
