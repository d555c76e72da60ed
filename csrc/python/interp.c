/* Thread states of GIL builds, CPython 3.11 to 3.15. Field by field reasons are in docs/design.md, "Interpreter state".
 *
 * Rules kept here:
 *      - a task's thread state is attached before, and detached after, anything of the task runs; it is published only
 *        after the swap (the scheduler does that);
 *      - PyGILState's slot of the OS thread names the attached state, or a C library's callback would deadlock;
 *      - thread ids are real while running and unique while suspended, or sys._current_frames hides tasks;
 *      - stack bounds are set before the first attach (3.14+);
 *      - no field's address is kept across a switch.
 */
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1 /* internal headers; 3.11 and 3.12 want it before Python.h */
#endif
#include "python/interp.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/failpoint.h"
#include "internal/pycore_gc.h"
#include "python/cxx.h"
#include "python/swap.h"
#if PY_VERSION_HEX < 0x030C0000
#include "internal/pycore_frame.h"
#include "opcode.h"
#endif
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#include "internal/pycore_tstate.h"
#endif

enum {
    FIRST_CHUNK = 1024,       /* bytes of the first data-stack chunk: five to eight Python frames */
    CPYTHON_CHUNK = 16 * 1024, /* what CPython takes for further chunks */
    /* C stack per level of the interpreter's own count, at worst: a sort with a Python key function. 3.11 counts it twice. */
    BYTES_PER_LEVEL = PY_VERSION_HEX < 0x030C0000 ? 2600 : 1700,
};

/* Per fiber, in its stack's top page; the first data-stack chunk follows it. */
typedef struct interp_fiber {
    PyThreadState *state;
    int c_budget;             /* 3.12, 3.13: c_recursion_remaining of an idle fiber; 3.11: recursion_remaining */
    int own_loops;            /* evaluation loops of the task itself, below no other C code: 1, or 0 */
    int seen_limit;           /* 3.11: recursion_limit when the fiber was last left */
    uint64_t thread_number;   /* the OS thread that it was last on: own_thread.number; 0: none yet */
    cxx_flight flight;        /* the suspended task's */
} interp_fiber;

static PyInterpreterState *main_interpreter;
static bool shared_libpython;
static PyObject *partial_type;         /* functools.partial */
static pg_fiber *fiber_of_forked_main; /* set in a fork's child when a task forked */

static interp_fiber *extra(const pg_fiber *fiber) { return pg_fiber_extra(fiber, interp_fiber_extra()); }
PyThreadState *interp_state(const pg_fiber *fiber) { return extra(fiber)->state; }

size_t interp_fiber_extra(void)
{
    size_t page_rest = sizeof(interp_fiber) + FIRST_CHUNK;
    return (page_rest + 15) & ~(size_t)15;
}

/* ---- the GIL ---- */

#define GIL SWAP_GIL(main_interpreter)

bool interp_is_busy(void)
{
#if PY_VERSION_HEX < 0x030D0000
    return __atomic_load_n(&GIL.locked._value, __ATOMIC_RELAXED) != 0;
#else
    return __atomic_load_n(&GIL.locked, __ATOMIC_RELAXED) != 0;
#endif
}

/* ---- data stack: the first chunk lies in the fiber, further ones come from CPython ---- */

static void install_first_chunk(interp_fiber *self)
{
    PyThreadState *state = self->state;
    _PyStackChunk *chunk = (_PyStackChunk *)(self + 1);
    chunk->previous = NULL;
    chunk->size = FIRST_CHUNK;
    chunk->top = 0;
    state->datastack_chunk = chunk;
    state->datastack_top = &chunk->data[1]; /* an empty slot 0 keeps CPython from freeing the root */
    state->datastack_limit = (PyObject **)((char *)chunk + FIRST_CHUNK);
}

/* CPython before 3.13.13 and 3.14.4 maps and unmaps 16 KiB at every call that crosses the end of a chunk, and with a
 * small first chunk loops do that. Keep some of those blocks. Called inside the interpreter only. */
static PyObjectArenaAllocator system_arenas;
static struct {
    void *free[64];
    int count;
} chunks;

static void *arena_alloc(void *context, size_t size)
{
    if (size == CPYTHON_CHUNK && chunks.count > 0) return chunks.free[--chunks.count];
    return system_arenas.alloc(system_arenas.ctx, size);
}

static void arena_free(void *context, void *block, size_t size)
{
    if (PG_UNLIKELY(size == FIRST_CHUNK)) return; /* a fiber's: its state is deleted after a fork, or at the end */
    if (size == CPYTHON_CHUNK && chunks.count < (int)(sizeof chunks.free / sizeof *chunks.free)) {
        chunks.free[chunks.count++] = block;
        return;
    }
    system_arenas.free(system_arenas.ctx, block, size);
}

static void keep_chunks(void)
{
    PyObjectArenaAllocator keeping = {NULL, arena_alloc, arena_free};
    PyObject_GetArenaAllocator(&system_arenas);
    PyObject_SetArenaAllocator(&keeping);
}

/* ---- stack bounds: what turns runaway recursion into RecursionError ---- */

#if PY_VERSION_HEX >= 0x030D0000
#define C_LIMIT Py_C_RECURSION_LIMIT
#else
#define C_LIMIT C_RECURSION_LIMIT
#endif

static void set_bounds(PyThreadState *state, char *base, size_t size, int *budget)
{
#if PY_VERSION_HEX >= 0x030E0100
    if (PyUnstable_ThreadState_SetStackProtection(state, base, size) < 0) PyErr_Clear();
    *budget = 0;
#elif PY_VERSION_HEX >= 0x030E0000
    _PyThreadStateImpl *impl = (_PyThreadStateImpl *)state;
    impl->c_stack_top = (uintptr_t)base + size;
    impl->c_stack_hard_limit = (uintptr_t)base + 16 * 1024;
    impl->c_stack_soft_limit = (uintptr_t)base + 32 * 1024;
    *budget = 0;
#elif PY_VERSION_HEX >= 0x030C0000
    int levels = (int)(size / BYTES_PER_LEVEL);
    *budget = levels < C_LIMIT ? levels : C_LIMIT;
    state->c_recursion_remaining = *budget;
#else
    /* One counter for Python and C calls: pretend to be at a depth already. The limit itself must stay. */
    int limit = state->recursion_limit;
    *budget = size / BYTES_PER_LEVEL < INT_MAX ? (int)(size / BYTES_PER_LEVEL) : INT_MAX;
    state->recursion_remaining = *budget < limit ? *budget : limit;
#endif
}

#if PY_VERSION_HEX >= 0x030E0000
#define BOUND_FIELDS(state)                                                                                            \
    &((_PyThreadStateImpl *)(state))->c_stack_top, &((_PyThreadStateImpl *)(state))->c_stack_soft_limit,              \
        &((_PyThreadStateImpl *)(state))->c_stack_hard_limit
#endif

void interp_stack_enter(char *base, size_t size, interp_bounds *saved)
{
    PyThreadState *state = PyThreadState_Get();
    int budget;
#if PY_VERSION_HEX >= 0x030E0000
    uintptr_t *fields[] = {BOUND_FIELDS(state)};
    for (int i = 0; i < 3; i++) saved->words[i] = *fields[i];
    set_bounds(state, base, size, &budget);
#elif PY_VERSION_HEX >= 0x030C0000
    int before = state->c_recursion_remaining;
    set_bounds(state, base, size, &budget);
    saved->words[0] = (uintptr_t)(state->c_recursion_remaining - before);
#else
    int before = state->recursion_remaining, used = 0;
    set_bounds(state, base, size, &budget);
    used = state->recursion_remaining - before;
    saved->words[0] = (uintptr_t)used;
#endif
}

void interp_stack_leave(const interp_bounds *saved)
{
    PyThreadState *state = PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030E0000
    uintptr_t *fields[] = {BOUND_FIELDS(state)};
    for (int i = 0; i < 3; i++) *fields[i] = saved->words[i];
#elif PY_VERSION_HEX >= 0x030C0000
    state->c_recursion_remaining -= (int)saved->words[0];
#else
    state->recursion_remaining -= (int)saved->words[0];
#endif
}

/* ---- fibers ---- */

/* The thread_id of a suspended fiber: unique, and amid memory that can be read. faulthandler of 3.14 and later asks the C
 * library for the name of every thread that has a state, and that looks into the thread's descriptor, which it takes this
 * for. Below the record lie the extra area and the top of the C stack, on the same page. */
static unsigned long suspended_ident(pg_fiber *fiber)
{
    enum { DESCRIPTOR = 2048 }; /* bytes; the fields read lie in its first kilobyte */
    return (unsigned long)(uintptr_t)fiber - DESCRIPTOR;
}

int interp_fiber_init(pg_fiber *fiber)
{
    interp_fiber *self = extra(fiber);
    *self = (interp_fiber){.thread_number = 0};
    self->state = pg_fails(thread_state) ? NULL : PyThreadState_New(main_interpreter);
    if (self->state == NULL) return PG_ENOMEM;
    install_first_chunk(self);
    self->state->thread_id = suspended_ident(fiber);
#if PY_VERSION_HEX < 0x030C0000
    self->seen_limit = self->state->recursion_limit;
#endif
    set_bounds(self->state, fiber->stack.base, (size_t)((char *)self - fiber->stack.base), &self->c_budget);
    return PG_OK;
}

bool interp_fiber_fini_possible(void)
{
#if PY_VERSION_HEX >= 0x030F0000
    return swap_slots_are_known(); /* PyGILState's slot may name any of our states still, unless we can clear it */
#else
    return true;
#endif
}

void interp_fiber_fini(pg_fiber *fiber)
{
    PyThreadState *state = interp_state(fiber);
    state->datastack_chunk = NULL; /* the first chunk is ours, not CPython's to free */
    state->datastack_top = state->datastack_limit = NULL;
#if PY_VERSION_HEX >= 0x030C0000
    state->_status.bound_gilstate = 0;
#endif
    swap_settle(main_interpreter);
    PyThreadState_Clear(state); /* interp_reset left nothing in it: no code runs */
    PyThreadState_Delete(state);
}

/* ---- switching ---- */

#if PY_VERSION_HEX < 0x030C0000
/* sys.setrecursionlimit moves the counters of all threads by the difference of the limits. Where ours pretended to a depth,
 * since the stack bears less than the limit, lowering it left a counter far below zero: a fatal error at the next call. */
static void after_lower_limit(interp_fiber *self)
{
    PyThreadState *state = self->state;
    int old = self->seen_limit, pretended = old > self->c_budget ? old - self->c_budget : 0;
    int lowered = old - state->recursion_limit;
    if (lowered > 0) state->recursion_remaining += lowered < pretended ? lowered : pretended;
    self->seen_limit = state->recursion_limit;
}
#endif

/* What a fiber finds on its OS thread. Workers' records do not tell threads apart: one that has ended leaves its own to
 * another. Code that changes stacks must not keep the address. */
static _Thread_local struct own_thread {
    uint64_t number; /* of all threads that ever ran a fiber; 0: this one has not yet */
    unsigned long ident, os_id;
    swap_slots slots;
    cxx_flight *flight; /* once it was asked for */
} own_thread;

static void __attribute__((noinline)) note_own_thread(interp_fiber *self)
{
    static _Atomic uint64_t last;
    if (own_thread.number == 0) {
        own_thread.number = pg_add_relaxed(&last, 1) + 1;
        own_thread.ident = (unsigned long)pthread_self();
        own_thread.os_id = pg_os_thread_id();
    }
    if (own_thread.slots.current == NULL) own_thread.slots = swap_slots_of_thread();
    self->thread_number = own_thread.number;
    self->state->native_thread_id = own_thread.os_id;
}

/* Whether the state was on this OS thread the last time, too. Makes attaching set PyGILState's slot of this thread. A debug
 * build refuses what would be wrong for its own threads. */
static bool before_attach(pg_fiber *from, pg_fiber *fiber, PyThreadState *state)
{
    interp_fiber *self = extra(fiber);
    bool stays = PG_LIKELY(self->thread_number == own_thread.number && self->thread_number != 0);
    if (PG_UNLIKELY(!stays)) note_own_thread(self);
    state->thread_id = own_thread.ident;
#if PY_VERSION_HEX >= 0x030C0000
    /* not bound: attaching binds it, unless a thread without a state has just made it and so bound it */
    state->_status.bound_gilstate = from == NULL && PyGILState_GetThisThreadState() == state;
#else
    PyThread_tss_set(&SWAP_GILSTATE_KEY, state);
#endif
    return stays;
}

static void after_attach(pg_fiber *fiber, PyThreadState *state)
{
#if PY_VERSION_HEX < 0x030C0000
    if (PG_UNLIKELY(extra(fiber)->seen_limit != state->recursion_limit)) after_lower_limit(extra(fiber));
#endif
#if PY_VERSION_HEX >= 0x030D0000
    if (PG_UNLIKELY(fiber_of_forked_main != NULL) && pg_os_is_main_thread())
        _PyRuntime.main_tstate = state; /* signals reach only this one */
#endif
}

/* On its OS thread still: what C++ keeps there for the task that was left. */
static void take_flight(pg_fiber *fiber)
{
    interp_fiber *self = extra(fiber);
    if (PG_UNLIKELY(cxx_of_thread == NULL)) {
        if (PG_LIKELY(self->state->gilstate_counter == 1)) return;
        cxx_look();
        if (cxx_of_thread == NULL) return;
    }
    if (PG_UNLIKELY(own_thread.flight == NULL)) own_thread.flight = cxx_of_thread();
    cxx_flight *here = own_thread.flight;
    if (PG_LIKELY(here->caught == NULL && here->uncaught == 0)) return;
    self->flight = *here;
    *here = (cxx_flight){NULL, 0};
}

static void put_flight(pg_fiber *fiber)
{
    interp_fiber *self = extra(fiber);
    if (PG_LIKELY(self->flight.caught == NULL && self->flight.uncaught == 0)) return;
    *cxx_of_thread() = self->flight;
    self->flight = (cxx_flight){NULL, 0};
}

void interp_foresee(const pg_fiber *fiber)
{
    enum { LINES = 5 }; /* of what attaching and the evaluation loop touch */
    const char *state = (const char *)interp_state(fiber);
    for (int line = 0; line < LINES; line++) __builtin_prefetch(state + line * PG_CACHE_LINE, 1);
}

void interp_enter(pg_fiber *from, pg_fiber *to)
{
    PyThreadState *state = interp_state(to);
    bool stays = before_attach(from, to, state);
    if (from == NULL) {
        PyEval_RestoreThread(state);
    } else {
        take_flight(from);
        interp_state(from)->thread_id = suspended_ident(from);
#if PY_VERSION_HEX < 0x030C0000
        extra(from)->seen_limit = interp_state(from)->recursion_limit;
#endif
        if (PG_UNLIKELY(!stays) || !swap_in_place(&own_thread.slots, interp_state(from), state)) {
            PyThreadState_Swap(state);
#if PY_VERSION_HEX >= 0x030C0000
            /* It dropped and retook the GIL and counted that as a change of threads. To a thread that waits for the GIL
             * nothing has changed; counting it would keep that thread from ever asking us to let go. */
            GIL.switch_number--;
#endif
        }
    }
    after_attach(to, state);
    put_flight(to);
}

/* No slot may name a state that is given up. */
#ifdef SWAP_GILSTATE_KEY
static void save_thread(PyThreadState **gilstate_slot)
{
    PyEval_SaveThread();
    PyThread_tss_set(&SWAP_GILSTATE_KEY, NULL);
}
#else
static void save_thread(PyThreadState **gilstate_slot)
{
#ifdef Py_DEBUG
    /* A slot that we cannot clear goes on naming the state that was left. When another state takes its place, the one left is
     * marked as not bound, although it may be by then, to another thread. That does no harm, but a debug build would abort.
     * So there a state of no further use takes the slot, whose end clears it. */
    if (gilstate_slot == NULL) {
        PyThreadState *passing = PyThreadState_New(main_interpreter);
        if (passing == NULL) pg_fatal("no memory for a thread state");
        PyThreadState_Swap(passing);
        PyThreadState_Clear(passing);
        PyThreadState_DeleteCurrent();
        return;
    }
#endif
    PyEval_SaveThread();
    if (gilstate_slot != NULL) *gilstate_slot = NULL;
}
#endif

void interp_leave(pg_fiber *fiber)
{
    take_flight(fiber);
    interp_state(fiber)->thread_id = suspended_ident(fiber);
#if PY_VERSION_HEX < 0x030C0000
    extra(fiber)->seen_limit = interp_state(fiber)->recursion_limit;
#endif
    save_thread(own_thread.slots.gilstate);
}

bool interp_switch_keeps_gil(void) { return PY_VERSION_HEX < 0x030C0000 || swap_is_possible(); }

bool interp_is_outside(pg_fiber *fiber)
{
    PyThreadState *state = interp_state(fiber);
    if (PG_UNLIKELY(interp_is_ending())) return true; /* the interpreter has deleted the state */
#if PY_VERSION_HEX >= 0x030D0000
    return __atomic_load_n(&state->state, __ATOMIC_RELAXED) == 0; /* _Py_THREAD_DETACHED */
#elif PY_VERSION_HEX >= 0x030C0000
    return !state->_status.active;
#else
    return (PyThreadState *)__atomic_load_n(&_PyRuntime.gilstate.tstate_current._value, __ATOMIC_RELAXED) != state;
#endif
}

/* Whether the suspended task waits below C code: in a call from an evaluation loop through C to another one. How many loops
 * are its own depends on what it runs: a Python function has one, a callable written in C none.
 *
 * C code may hold on to its OS thread across a call back into Python: CPython's own the address of a thread-local, on builds
 * with a shared libpython; extensions their thread-locals, on every build (PyO3 counts there how often it is inside).
 *
 * `is_sure`: the caller keeps it from being resumed. Else only memory that stays mapped is looked at, and in doubt it does. */
#if PY_VERSION_HEX >= 0x030E0000
static bool has_nested_c_frames(pg_fiber *fiber, bool is_sure)
{
    interp_fiber *self = extra(fiber);
    int entries = 0, own = self->own_loops;
    struct _PyInterpreterFrame *frame = self->state->current_frame;
#if PY_VERSION_HEX >= 0x030F0000
    own++; /* the base frame */
#endif
    for (; frame != NULL && entries <= own; frame = frame->previous) {
        bool is_mapped = (char *)frame >= fiber->stack.base && (char *)frame < (char *)fiber;
#if PY_VERSION_HEX >= 0x030F0000
        is_mapped = is_mapped || frame == &((_PyThreadStateImpl *)self->state)->base_frame;
#endif
        if (!is_sure && !is_mapped) return true;
        entries += frame->owner >= FRAME_OWNED_BY_INTERPRETER;
    }
    return entries > own;
}
#elif PY_VERSION_HEX >= 0x030C0000
static bool has_nested_c_frames(pg_fiber *fiber, bool is_sure)
{
    enum { ONE_LOOP = 2, OUR_CALL = 1 }; /* an evaluation loop counts 2, the native method that parks 1 */
    interp_fiber *self = extra(fiber);
    return self->c_budget - self->state->c_recursion_remaining > (self->own_loops ? ONE_LOOP + OUR_CALL : OUR_CALL);
}
#else
/* A `for` or a `yield from` enters a loop for each generator, and nothing but the interpreter is between. */
static bool is_generator_in_loop(_PyCFrame *loop)
{
    _PyInterpreterFrame *frame = loop->current_frame;
    while (frame != NULL && !frame->is_entry) frame = frame->previous;
    if (frame == NULL || frame->owner != FRAME_OWNED_BY_GENERATOR || frame->previous == NULL) return false;
    int operation = _Py_OPCODE(*frame->previous->prev_instr);
    return operation == FOR_ITER || operation == SEND;
}

static bool has_nested_c_frames(pg_fiber *fiber, bool is_sure)
{
    interp_fiber *self = extra(fiber);
    PyThreadState *state = self->state;
    _PyCFrame *root = &state->root_cframe, *loop = state->cframe;
    while (loop != root && loop->previous != root) {
        if (!is_sure || !is_generator_in_loop(loop)) return true;
        loop = loop->previous;
    }
    return loop != root && self->own_loops == 0;
}
#endif

static bool is_in_callback(pg_fiber *fiber) /* of a C library, which counts per OS thread */
{
    return interp_state(fiber)->gilstate_counter != 1;
}

bool interp_must_stay(pg_fiber *fiber) { return is_in_callback(fiber) || has_nested_c_frames(fiber, true); }
bool interp_may_have_to_stay(pg_fiber *fiber) { return is_in_callback(fiber) || has_nested_c_frames(fiber, false); }

/* What extensions keep in thread-locals is then another thread's, which is better than to wait for ever. An address of one, as
 * C code in a shared libpython may hold on to since 3.12, would be that of memory that may be gone. */
bool interp_may_stray(pg_fiber *fiber)
{
    return !is_in_callback(fiber) && (PY_VERSION_HEX < 0x030C0000 || !shared_libpython);
}

void interp_begin(pg_fiber *fiber, PyObject *callable)
{
    interp_fiber *self = extra(fiber);
    if (PG_LIKELY(PyFunction_Check(callable))) {
        self->own_loops = 1;
        return;
    }
    PyObject *inner = Py_NewRef(callable);
    while (inner != NULL && Py_IS_TYPE(inner, (PyTypeObject *)partial_type))
        Py_SETREF(inner, PyObject_GetAttrString(inner, "func"));
    if (inner != NULL && PyMethod_Check(inner)) Py_SETREF(inner, Py_NewRef(PyMethod_GET_FUNCTION(inner)));
    self->own_loops = inner != NULL && PyFunction_Check(inner);
    if (inner == NULL) PyErr_Clear();
    Py_XDECREF(inner);
}

/* ---- between tasks ---- */

static bool is_clean(PyThreadState *state)
{
    return state->dict == NULL && state->async_exc == NULL && state->exc_state.exc_value == NULL &&
           state->c_profilefunc == NULL && state->c_tracefunc == NULL && state->async_gen_firstiter == NULL &&
           state->async_gen_finalizer == NULL
#if PY_VERSION_HEX < 0x030D0000
           && state->on_delete == NULL
#else
           && state->threading_local_key == NULL && state->threading_local_sentinel == NULL
#endif
#if PY_VERSION_HEX >= 0x030E0000
           && ((_PyThreadStateImpl *)state)->asyncio_running_loop == NULL
#endif
        ;
}

void interp_reset(pg_fiber *fiber)
{
    PyThreadState *state = interp_state(fiber);
    extra(fiber)->own_loops = 0; /* destructors are called from here */
    while (PG_UNLIKELY(!is_clean(state))) { /* destructors may have left something again */
        PyThreadState_Clear(state);
#if PY_VERSION_HEX >= 0x030C0000
        state->_status.cleared = state->_status.finalizing = 0;
#endif
        state->tracing = 0;
    }
    Py_CLEAR(state->context);
    state->context_ver++; /* context variables cache their value by (state, version) */
    state->coroutine_origin_tracking_depth = 0;
#if PY_VERSION_HEX >= 0x030C0000
    state->what_event = -1;
#else
    /* sys.setrecursionlimit moves the counters of all threads by the difference, beyond what our stack bears. */
    int budget = extra(fiber)->c_budget;
    state->recursion_remaining = budget < state->recursion_limit ? budget : state->recursion_limit;
#endif
    if (fiber->bound) state->gilstate_counter = 1; /* greenlets left suspended in callbacks: they never go on */
    pg_check(state->gilstate_counter == 1);
}

void interp_set_context(PyObject *context)
{
    PyThreadState *state = PyThreadState_Get();
    Py_XSETREF(state->context, context);
    state->context_ver++;
}

PyObject *interp_context(void) { return PyThreadState_Get()->context; }

PyObject *interp_caller(int *instruction)
{
    PyThreadState *state = PyThreadState_Get();
#if PY_VERSION_HEX < 0x030C0000
    _PyInterpreterFrame *frame = state->cframe->current_frame;
    if (frame == NULL) return NULL;
    *instruction = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    return Py_NewRef((PyObject *)frame->f_code);
#else
#if PY_VERSION_HEX < 0x030D0000
    struct _PyInterpreterFrame *frame = state->cframe->current_frame;
#else
    struct _PyInterpreterFrame *frame = state->current_frame;
#endif
    if (frame == NULL) return NULL;
    PyObject *code = PyUnstable_InterpreterFrame_GetCode(frame);
    if (code == NULL || !PyCode_Check(code)) {
        Py_XDECREF(code);
        return NULL;
    }
    *instruction = PyUnstable_InterpreterFrame_GetLasti(frame);
    return code;
#endif
}

#if PY_VERSION_HEX < 0x030E0000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* the field, since 3.12; it counts on until 3.14 */
uint64_t interp_dict_version(PyObject *dict) { return ((PyDictObject *)dict)->ma_version_tag; }
#pragma GCC diagnostic pop
#else
uint64_t interp_dict_version(PyObject *dict) { return 0; }
#endif

/* ---- the end ---- */

bool interp_is_ending(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* ---- fork ---- */

bool interp_is_inside(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked() != NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    return _PyThreadState_UncheckedGet() != NULL;
#else
    return PyGILState_Check(); /* the current state is that of whoever has the GIL */
#endif
}

/* CPython's lock of its thread states may be held by a thread outside of the GIL that makes one: a worker, for a new fiber. A
 * child of that moment would wait for it for ever. CPython 3.13 holds it across os.fork itself; before, we do. NULL: the
 * interpreter is gone. */
#if PY_VERSION_HEX < 0x030D0000
void interp_lock_states(void)
{
    PyThread_type_lock lock = _PyRuntime.interpreters.mutex;
    if (lock != NULL) PyThread_acquire_lock(lock, WAIT_LOCK);
}

void interp_unlock_states(void)
{
    PyThread_type_lock lock = _PyRuntime.interpreters.mutex;
    if (lock != NULL) PyThread_release_lock(lock);
}
#else
void interp_lock_states(void) {}
void interp_unlock_states(void) {}
#endif

void interp_after_fork(pg_fiber *fiber)
{
    fiber_of_forked_main = fiber;
    own_thread.number = 0; /* its id has changed */
#if PY_VERSION_HEX >= 0x030D0000
    _PyRuntime.main_tstate = PyThreadState_Get(); /* CPython leaves it pointing at a state that is gone */
#endif
}

/* ---- objects ---- */

_Static_assert(INTERP_OBJECT_HEADER == sizeof(PyGC_Head), "what the collector keeps before an object");

PyObject *interp_object_in(void *block, PyTypeObject *type)
{
    PyGC_Head *header = block;
    header->_gc_next = header->_gc_prev = 0;
    return PyObject_Init((PyObject *)(header + 1), type);
}

/* ---- exceptions ---- */

#if PY_VERSION_HEX < 0x030C0000
PyObject *interp_take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void interp_raise(PyObject *exception)
{
    PyObject *type = Py_NewRef((PyObject *)Py_TYPE(exception));
    PyErr_Restore(type, exception, PyException_GetTraceback(exception));
}
#else
PyObject *interp_take_exception(void) { return PyErr_GetRaisedException(); }
void interp_raise(PyObject *exception) { PyErr_SetRaisedException(exception); }
#endif

/* ---- set-up ---- */

static bool libpython_is_shared(void)
{
    Dl_info info;
    return dladdr((void *)(uintptr_t)PyThreadState_New, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "libpython") != NULL;
}

int interp_setup(void)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "pygo can be used in the main interpreter only");
        return -1;
    }
    if (system_arenas.alloc != NULL) return 0; /* the module is made once more */
    PyObject *functools = PyImport_ImportModule("functools");
    partial_type = functools ? PyObject_GetAttrString(functools, "partial") : NULL;
    Py_XDECREF(functools);
    if (partial_type == NULL) return -1;
    main_interpreter = PyInterpreterState_Main();
    shared_libpython = libpython_is_shared();
    keep_chunks();
    return swap_setup();
}
