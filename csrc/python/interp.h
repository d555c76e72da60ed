/* The interpreter seam: everything pygo knows about a CPython version's thread states stands in interp.c.
 *
 * Strategy of GIL builds: a fiber owns a PyThreadState for life; a switch is PyThreadState_Swap, or what swap.h makes of
 * it. Nothing above this file and module.c knows.
 */
#ifndef PG_INTERP_H
#define PG_INTERP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "sched/sched.h"

/* The smallest stack that Python code is run on, in bytes. 3.14 and later keep 32 KiB of each for errors, and where less
 * than 64 KiB are left above that, `except` clauses with several classes catch nothing; on a debug build twice as much. */
#ifdef Py_DEBUG
enum { INTERP_LEAST_STACK = (PY_VERSION_HEX >= 0x030E0000 ? 256 : 64) * 1024 };
#else
enum { INTERP_LEAST_STACK = (PY_VERSION_HEX >= 0x030E0000 ? 128 : 64) * 1024 };
#endif

size_t interp_fiber_extra(void);
/* At import, by the main thread. 0, or -1 with an exception. */
int interp_setup(void);

int interp_fiber_init(pg_fiber *fiber);
void interp_fiber_fini(pg_fiber *fiber);
bool interp_fiber_fini_possible(void);
void interp_foresee(const pg_fiber *fiber);
void interp_enter(pg_fiber *from, pg_fiber *to);
void interp_leave(pg_fiber *fiber);
bool interp_is_outside(pg_fiber *fiber);
/* Of a fiber that nobody can resume meanwhile; and of any, in doubt yes. */
bool interp_must_stay(pg_fiber *fiber);
bool interp_may_have_to_stay(pg_fiber *fiber);
bool interp_may_stray(pg_fiber *fiber);
/* The fiber is about to call a task's function. */
void interp_begin(pg_fiber *fiber, PyObject *callable);
bool interp_is_busy(void);
/* From one fiber to the next on the same OS thread the GIL is not given back and taken again. */
bool interp_switch_keeps_gil(void);

/* The fiber's thread state. */
PyThreadState *interp_state(const pg_fiber *fiber);
/* Make the running fiber's thread state as good as new after a task. Runs Python code (destructors), which may park. */
void interp_reset(pg_fiber *fiber);
/* Give the fresh thread state `context`, a copy nobody else uses; steals the reference. */
void interp_set_context(PyObject *context);
/* The caller's own context, borrowed, or NULL when it has none yet. */
PyObject *interp_context(void);
/* Where the caller of a native function is: its code object (new reference) or NULL, and the instruction offset. */
PyObject *interp_caller(int *instruction);
/* The thread state runs on another part of memory for a while: tell the interpreter its bounds. `saved` is for the
 * second call, which restores. */
typedef struct interp_bounds {
    uintptr_t words[3];
} interp_bounds;
void interp_stack_enter(char *base, size_t size, interp_bounds *saved);
void interp_stack_leave(const interp_bounds *saved);
/* No other thread will ever enter the interpreter. */
bool interp_is_ending(void);
/* The calling OS thread is inside the interpreter. */
bool interp_is_inside(void);
/* Around a fork: nobody makes or deletes a thread state. */
void interp_lock_states(void);
void interp_unlock_states(void);
/* In the child of a fork. */
void interp_after_fork(pg_fiber *fiber);

/* Objects with a garbage collector's header in memory of our own: bytes before the object, and the object made of a block,
 * untracked, with one reference and nothing else set. Their type must not be subclassed. */
enum { INTERP_OBJECT_HEADER = 2 * sizeof(void *) };
PyObject *interp_object_in(void *block, PyTypeObject *type);
static inline void *interp_object_block(PyObject *object) { return (char *)object - INTERP_OBJECT_HEADER; }
/* A number that changes whenever the dict does, or 0 when this version keeps none. */
uint64_t interp_dict_version(PyObject *dict);

/* 3.11 has no PyErr_GetRaisedException. */
PyObject *interp_take_exception(void);
void interp_raise(PyObject *exception); /* steals */

#endif
