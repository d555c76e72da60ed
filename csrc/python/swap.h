/* One thread state for another on the same OS thread, without the detour that PyThreadState_Swap makes since 3.12: it gives
 * the GIL back and takes it again, which costs 30 to 50 ns, and wakes whoever waits for it each time.
 *
 * swap_in_place() does the rest of what PyThreadState_Swap does, and leaves the GIL alone. The thread-local variable that
 * names the attached state is hidden in CPython, so it is looked for at import, by what it contains, in the thread-local
 * memory of the object that CPython's code is in. And only where a swap in place has left two states and the GIL bit for bit as
 * PyThreadState_Swap leaves them is it used: a release that does more there does without.
 */
#ifndef PG_SWAP_H
#define PG_SWAP_H

#include <Python.h>

#include <pthread.h>

#include "base/base.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#include "machine/switch_config.h"

#if PY_VERSION_HEX < 0x030C0000
#define SWAP_GIL(interpreter) (_PyRuntime.ceval.gil)
#define SWAP_GILSTATE_KEY (_PyRuntime.gilstate.autoTSSkey)
#else
#define SWAP_GIL(interpreter) (*(interpreter)->ceval.gil)
#if PY_VERSION_HEX < 0x030F0000
#define SWAP_GILSTATE_KEY (_PyRuntime.autoTSSkey)
#endif
#endif

/* 3.11's own takes 2 ns, so there it is left to CPython. */
#if PY_VERSION_HEX >= 0x030C0000 && !defined PG_SWITCH_PORTABLE
#define SWAP_PAYS 1
#else
#define SWAP_PAYS 0
#endif

/* The thread-locals of an OS thread that change with the attached state; all NULL where a swap in place is not possible. */
typedef struct swap_slots {
    PyThreadState **current;
    PyThreadState **gilstate; /* 3.15: PyGILState's; before, that is in thread-specific storage */
} swap_slots;

/* At import, with the GIL held. 0, or -1 with an exception; that a swap in place is not possible is none. */
int swap_setup(void);
bool swap_is_possible(void);
/* 3.15: the thread-locals of all threads that asked for them were found. */
bool swap_slots_are_known(void);
/* Those of the calling thread. */
swap_slots swap_slots_of_thread(void);
/* No thread that waits for the GIL still means to write to a state that was swapped out in place. Before deleting one. */
void swap_settle(PyInterpreterState *interpreter);

#if SWAP_PAYS

/* Nobody wants the GIL, and nothing else is to be done at the next bytecode; what else attaching would bring up to date in `to`,
 * of 3.13 and later the version of the instrumentation, is. Otherwise PyThreadState_Swap has to see to it. */
static inline bool swap_is_all(PyThreadState *from, PyThreadState *to)
{
#if PY_VERSION_HEX >= 0x030D0000
    enum { EVENTS = 0xff, DETACHED = 0 }; /* _PY_EVAL_EVENTS_MASK, above which stands the version; _Py_THREAD_DETACHED */
    uintptr_t breaker = __atomic_load_n(&from->eval_breaker, __ATOMIC_RELAXED);
    return (breaker & EVENTS) == 0 && __atomic_load_n(&to->eval_breaker, __ATOMIC_RELAXED) == breaker &&
           __atomic_load_n(&to->state, __ATOMIC_RELAXED) == DETACHED;
#else
    return __atomic_load_n(&from->interp->ceval.eval_breaker._value, __ATOMIC_RELAXED) == 0 && to->async_exc == NULL;
#endif
}

/* The attached state `from` gives way to `to`, which has last been attached on this OS thread, if to any. False, and nothing
 * is changed, if PyThreadState_Swap has to do it. */
static inline bool swap_in_place(const swap_slots *slots, PyThreadState *from, PyThreadState *to)
{
    if (PG_UNLIKELY(slots->current == NULL || !swap_is_all(from, to))) return false;
    from->_status.active = 0;
    from->_status.bound_gilstate = 0;
#if PY_VERSION_HEX >= 0x030E0000
    from->holds_gil = 0;
    to->holds_gil = 1;
#elif PY_VERSION_HEX >= 0x030D0000
    from->_status.holds_gil = 0;
    to->_status.holds_gil = 1;
#endif
#if PY_VERSION_HEX >= 0x030D0000
    __atomic_store_n(&from->state, 0, __ATOMIC_RELAXED); /* _Py_THREAD_DETACHED */
    __atomic_store_n(&to->state, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&SWAP_GIL(to->interp).last_holder, to, __ATOMIC_RELAXED);
#else
    __atomic_store_n(&SWAP_GIL(to->interp).last_holder._value, (uintptr_t)to, __ATOMIC_RELAXED);
#endif
    *slots->current = to;
#if PY_VERSION_HEX < 0x030F0000
    PyThread_tss_set(&SWAP_GILSTATE_KEY, to);
#else
    *slots->gilstate = to;
#endif
    to->_status.bound_gilstate = 1;
    to->_status.active = 1;
    return true;
}
#else
static inline bool swap_in_place(const swap_slots *slots, PyThreadState *from, PyThreadState *to)
{
    return false;
}
#endif

#endif
