/* Where a swap in place has to write, and whether it does what PyThreadState_Swap does; see swap.h. */
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include "python/swap.h"

#include "base/atomic.h"
#include "base/failpoint.h"

#include <link.h>
#include <stddef.h>
#include <string.h>

#if PY_VERSION_HEX >= 0x030D0000
#include "internal/pycore_tstate.h"
#endif

#if !SWAP_PAYS
bool swap_is_possible(void) { return false; }
bool swap_slots_are_known(void) { return false; }
int swap_setup(void) { return 0; }
swap_slots swap_slots_of_thread(void) { return (swap_slots){NULL, NULL}; }
void swap_settle(PyInterpreterState *interpreter) {}
#else

#if PY_VERSION_HEX >= 0x030D0000
typedef _PyThreadStateImpl whole_state;
#else
typedef PyThreadState whole_state;
#endif

/* The thread-local memory of one object (the program or a library), as it lies for the calling thread. */
typedef struct tls_block {
    char *base; /* NULL: it has none, or not yet for this thread */
    size_t size;
} tls_block;

/* Words of CPython's block, counted from its base; found once. */
enum { NOWHERE = -1 };
static ptrdiff_t current_at = NOWHERE;
static ptrdiff_t gilstate_at = NOWHERE; /* 3.15 */
static atomic_bool some_are_unknown; /* where the interpreter was loaded late, and this thread has not been in it yet */

static bool has_code(const struct dl_phdr_info *module, uintptr_t address)
{
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && address - (module->dlpi_addr + part->p_vaddr) < part->p_memsz) return true;
    }
    return false;
}

static int note_block_of_cpython(struct dl_phdr_info *module, size_t size, void *result)
{
    tls_block *block = result;
    if (size < offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof module->dlpi_tls_data) return 0;
    if (!has_code(module, (uintptr_t)PyThreadState_Swap)) return 0;
    for (int i = 0; i < module->dlpi_phnum; i++)
        if (module->dlpi_phdr[i].p_type == PT_TLS) *block = (tls_block){module->dlpi_tls_data, module->dlpi_phdr[i].p_memsz};
    return 1;
}

static tls_block find_block(void)
{
    tls_block block = {NULL, 0};
    dl_iterate_phdr(note_block_of_cpython, &block);
    return block;
}

static PyThreadState **word_of(tls_block block, ptrdiff_t at) { return (PyThreadState **)block.base + at; }

bool swap_is_possible(void) { return current_at != NOWHERE; }
bool swap_slots_are_known(void) { return current_at != NOWHERE && !pg_load_relaxed(&some_are_unknown); }

swap_slots swap_slots_of_thread(void)
{
    tls_block block = {NULL, 0};
    if (current_at != NOWHERE) block = find_block();
    if (block.base == NULL) {
        pg_store_relaxed(&some_are_unknown, true);
        return (swap_slots){NULL, NULL};
    }
    return (swap_slots){word_of(block, current_at), gilstate_at == NOWHERE ? NULL : word_of(block, gilstate_at)};
}

void swap_settle(PyInterpreterState *interpreter)
{
    if (current_at == NOWHERE) return;
    pthread_mutex_lock(&SWAP_GIL(interpreter).mutex); /* such a thread has it from when it read the state till it wrote */
    pthread_mutex_unlock(&SWAP_GIL(interpreter).mutex);
}

/* ---- set-up ---- */

/* The thread-locals that named `one` when it was attached, and name `other` now that this is. */
static void look_for_slots(tls_block block, PyThreadState *one, PyThreadState *other)
{
    ptrdiff_t words = (ptrdiff_t)(block.size / sizeof(PyThreadState *)), named[8];
    int found = 0, count = 0;
    for (ptrdiff_t at = 0; at < words && count < 8; at++)
        if (*word_of(block, at) == one) named[count++] = at;
    PyThreadState_Swap(other);
    for (int i = 0; i < count; i++)
        if (*word_of(block, named[i]) == other) named[found++] = named[i];
    PyEval_SaveThread(); /* now none is attached, but PyGILState's is what it was */
    ptrdiff_t current = NOWHERE, gilstate = NOWHERE;
    int currents = 0, gilstates = 0;
    for (int i = 0; i < found; i++) {
        PyThreadState *value = *word_of(block, named[i]);
        if (value == NULL) current = named[i], currents++;
        else if (value == other) gilstate = named[i], gilstates++;
    }
    PyEval_RestoreThread(other);
    if (currents != 1 || gilstates != (PY_VERSION_HEX >= 0x030F0000)) return;
    current_at = current;
    gilstate_at = gilstate;
}

/* What there is to compare after a swap from one to another. */
typedef struct picture {
    whole_state from, to;
    uintptr_t last_holder;
    void *gilstate;
    int locked;
} picture;

static void take_picture(picture *shot, PyThreadState *from, PyThreadState *to)
{
    memcpy(&shot->from, from, sizeof shot->from);
    memcpy(&shot->to, to, sizeof shot->to);
#if PY_VERSION_HEX >= 0x030D0000
    /* others may set bits at any time */
    memset((char *)&shot->from + offsetof(PyThreadState, eval_breaker), 0, sizeof from->eval_breaker);
    memset((char *)&shot->to + offsetof(PyThreadState, eval_breaker), 0, sizeof to->eval_breaker);
    shot->last_holder = (uintptr_t)SWAP_GIL(to->interp).last_holder;
    shot->locked = SWAP_GIL(to->interp).locked;
#else
    shot->last_holder = SWAP_GIL(to->interp).last_holder._value;
    shot->locked = SWAP_GIL(to->interp).locked._value;
#endif
#if PY_VERSION_HEX < 0x030F0000
    shot->gilstate = PyThread_tss_get(&SWAP_GILSTATE_KEY);
#else
    shot->gilstate = PyGILState_GetThisThreadState();
#endif
}

static void swap_for_real(PyThreadState *to)
{
    to->_status.bound_gilstate = 0;
    PyThreadState_Swap(to);
}

enum verdict { THE_SAME, NOT_THE_SAME, NOT_NOW };

/* With `one` attached; ends with one of both. */
static enum verdict compare(PyThreadState *one, PyThreadState *other)
{
    picture real, ours;
    swap_slots slots = swap_slots_of_thread();
    memset(&real, 0, sizeof real);
    memset(&ours, 0, sizeof ours);
    swap_for_real(other);
    take_picture(&real, one, other);
    swap_for_real(one);
    other->_status.bound_gilstate = 0;
    if (pg_fails(swap_probe) || !swap_is_all(one, other)) return NOT_NOW;
    if (!swap_in_place(&slots, one, other)) return NOT_THE_SAME;
    take_picture(&ours, one, other);
    return memcmp(&real, &ours, sizeof real) == 0 && PyThreadState_Get() == other ? THE_SAME : NOT_THE_SAME;
}

/* What is to be done at the next bytecode: signals, a collection, letting another thread in. -1 with an exception. */
static int run_a_bytecode(void)
{
    PyObject *names_of_it = PyDict_New();
    PyObject *value = names_of_it ? PyRun_String("0", Py_eval_input, names_of_it, names_of_it) : NULL;
    Py_XDECREF(names_of_it);
    Py_XDECREF(value);
    return value ? 0 : -1;
}

/* Something may be asked for just now, and forbid our swap; it would then be done without for ever. One of both is attached
 * before and after. */
static int decide(PyThreadState *before, PyThreadState *one, PyThreadState *other)
{
    enum { TRIES = 100 };
    enum verdict verdict = NOT_NOW;
    int outcome = 0;
    for (int i = 0; i < TRIES && verdict == NOT_NOW && outcome == 0; i++) {
        swap_for_real(before);
        if (i > 0) outcome = run_a_bytecode();
        swap_for_real(one);
        verdict = compare(one, other);
    }
    if (verdict != THE_SAME) current_at = NOWHERE;
    return outcome;
}

int swap_setup(void)
{
    PyThreadState *before = PyThreadState_Get();
    PyThreadState *one = PyThreadState_New(before->interp), *other = PyThreadState_New(before->interp);
    tls_block block = find_block();
    int outcome = one != NULL && other != NULL ? 0 : -1;
    if (outcome < 0) PyErr_NoMemory();
    if (outcome == 0 && block.base != NULL) {
        swap_for_real(one);
        look_for_slots(block, one, other); /* attaches the other */
        if (current_at != NOWHERE) outcome = decide(before, one, other);
        swap_for_real(before);
    }
    for (int i = 0; i < 2; i++) {
        PyThreadState *probe = i == 0 ? one : other;
        if (probe == NULL) continue;
        probe->_status.bound_gilstate = 0;
        PyThreadState_Clear(probe);
        PyThreadState_Delete(probe);
    }
    return outcome;
}

#endif
