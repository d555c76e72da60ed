"""cffi and ctypes: callbacks in API and ABI mode that wait; structures and buffers of tasks that move."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cffi
import pytest
from compiled import load_extension
from crowd import run_crowd
from helpers import in_task, in_thread, join_all

import pygo

Wait = Callable[[], None]

DECLARATIONS = """
    extern "Python" int visit(int number, void *context);
    typedef int (*visitor)(int number, void *context);
    int each(visitor function, int count, void *context);
    int each_of_ours(int count, void *context);
    extern "Python+C" int shared_visit(int number, void *context);
    int in_thread(int count, void *context);
    int errno_after(visitor function, void *context);
"""
SOURCE = """
#include <errno.h>
#include <pthread.h>

static int visit(int number, void *context);
typedef int (*visitor)(int number, void *context);

static int each(visitor function, int count, void *context)
{
    int sum = 0;
    for (int i = 0; i < count; i++) sum += function(i, context);
    return sum;
}

static int each_of_ours(int count, void *context) { return each(visit, count, context); }

struct job { int count, sum; void *context; };

static void *run(void *opaque)
{
    struct job *job = opaque;
    job->sum = each_of_ours(job->count, job->context);
    return NULL;
}

static int in_thread(int count, void *context)
{
    struct job job = {count, 0, context};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, &job) != 0) return -1;
    pthread_join(thread, NULL);
    return job.sum;
}

static int errno_after(visitor function, void *context)
{
    errno = 77;
    function(0, context);
    return errno;
}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The API-mode module, with its ``extern "Python"`` functions set."""
    directory = tmp_path_factory.mktemp("visits")
    builder = cffi.FFI()
    builder.cdef(DECLARATIONS)
    builder.set_source("visits", SOURCE)
    module = load_extension("visits", Path(builder.compile(tmpdir=str(directory))))

    @module.ffi.def_extern()
    def visit(number: int, context: Any) -> int:
        return module.ffi.from_handle(context)(number)  # type: ignore[no-any-return]

    @module.ffi.def_extern(name="shared_visit", onerror=lambda *failure: -100)
    def shared_visit(number: int, context: Any) -> int:
        return module.ffi.from_handle(context)(number)  # type: ignore[no-any-return]

    return module


def waiting(wait: Wait) -> Callable[[int], int]:
    def function(number: int) -> int:
        wait()
        return number

    return function


def test_extern_python_functions_may_wait(built: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        handle = built.ffi.new_handle(waiting(wait))
        return built.lib.each_of_ours(6, handle), built.lib.each(built.lib.shared_visit, 5, handle)

    run_crowd(use, (15, 10))


def test_callbacks_made_at_run_time_may_wait(built: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        visitor = built.ffi.callback("visitor", lambda number, context: waiting(wait)(number))
        return built.lib.each(visitor, 6, built.ffi.NULL)

    run_crowd(use, 15)


def test_callbacks_nest_in_each_other(built: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        inner = built.ffi.new_handle(waiting(wait))
        outer = built.ffi.new_handle(lambda number: built.lib.each_of_ours(number, inner))
        return built.lib.each_of_ours(4, outer)

    run_crowd(use, 4)


def test_a_callback_in_a_thread_of_c_waits_for_tasks(built: Any, workers: int) -> None:
    run_crowd(lambda wait: built.lib.in_thread(3, built.ffi.new_handle(waiting(wait))), 3, rounds=1, stays=False)


def test_errno_survives_a_callback_that_waits_in_a_locked_task(built: Any, workers: int) -> None:
    """cffi keeps the errno of C during a callback per OS thread, where other tasks' calls would replace it."""

    def use(wait: Wait) -> Any:
        def function(number: int) -> int:
            wait()
            built.ffi.errno = 88
            return 0

        with pygo.lock_thread():
            kept = built.lib.errno_after(built.lib.shared_visit, built.ffi.new_handle(waiting(wait)))
            changed = built.lib.errno_after(built.lib.shared_visit, built.ffi.new_handle(function))
        return kept, changed

    run_crowd(use, (77, 88))


def test_errors_in_callbacks(built: Any, workers: int, reports: Any) -> None:
    def broken(number: int) -> int:
        pygo.yield_now()
        raise KeyError(number)

    def body() -> int:
        return built.lib.each(built.lib.shared_visit, 2, built.ffi.new_handle(broken))  # type: ignore[no-any-return]

    assert join_all([pygo.spawn(body) for _ in range(5)]) == [-200] * 5


def test_abi_mode_callbacks_may_wait(workers: int) -> None:
    ffi = cffi.FFI()
    ffi.cdef("void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *));")
    libc = ffi.dlopen(None)

    def use(wait: Wait) -> Any:
        @ffi.callback("int(const void *, const void *)")
        def compare(left: Any, right: Any) -> int:
            wait()
            return int(ffi.cast("int *", left)[0] - ffi.cast("int *", right)[0])

        array = ffi.new("int[]", [4, 2, 5, 1, 3])
        libc.qsort(array, len(array), ffi.sizeof("int"), compare)
        return list(array)

    run_crowd(use, [1, 2, 3, 4, 5])


def test_what_cffi_frees_waits_and_moves(built: Any, workers: int) -> None:
    """``ffi.gc`` destructors run wherever the last reference goes; buffers are the task's, not the thread's."""

    def use(wait: Wait) -> Any:
        freed: list[int] = []
        memory = built.ffi.gc(built.ffi.new("int[4]", [1, 2, 3, 4]), lambda _: (wait(), freed.append(1)))
        view = built.ffi.buffer(memory)
        wait()
        data = bytes(view)
        del view, memory
        return len(data), freed

    run_crowd(use, (16, [1]))


UNARY = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


@pytest.mark.parametrize("library", [ctypes.CDLL(None), ctypes.PyDLL(None)], ids=["CDLL", "PyDLL"])
def test_qsort_of_ctypes_with_and_without_the_gil(library: Any, workers: int) -> None:
    def use(wait: Wait) -> Any:
        compare = COMPARE(lambda left, right: (wait(), left[0] - right[0])[1])
        array = (ctypes.c_int * 5)(4, 2, 5, 1, 3)
        library.qsort(array, ctypes.c_size_t(5), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int)), compare)
        return list(array)

    run_crowd(use, [1, 2, 3, 4, 5])


def test_errno_of_ctypes_belongs_to_the_task(workers: int) -> None:
    """``ctypes.get_errno`` keeps its copy in the thread state, which is the task's."""
    close = functools.partial(ctypes.CDLL(None, use_errno=True).close, -1)

    def body(number: int) -> list[int]:
        seen = []
        for _ in range(10):
            ctypes.set_errno(number)
            pygo.yield_now()
            seen.append(ctypes.get_errno() - number)
            assert close() == -1
            pygo.yield_now()
            seen.append(ctypes.get_errno() - 9)  # EBADF
        return seen

    assert join_all([pygo.spawn(body, 100 + number) for number in range(8)]) == [[0] * 20] * 8
    assert in_thread(body, 5) == [0] * 20
    assert in_task(body, 6) == [0] * 20
