"""Functions that recurse without end, each in another way; for programs of test_overflow.py and others.

Most of them recurse mostly in C: the interpreter's count of Python frames alone would stop them too late.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import ctypes
import functools
import json
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

DEEP = 50_000  # levels of nested objects: more than any stack here bears


def by_python_calls() -> None:
    by_python_calls()


def by_getattr() -> None:
    class Endless:
        def __getattr__(self, name: str) -> Any:
            return getattr(self, name + "x")

    Endless().start


def by_repr() -> None:
    class Endless:
        def __repr__(self) -> str:
            return repr(self)

    repr(Endless())


def by_nested_repr() -> None:
    value: list[Any] = []
    for _ in range(4 * DEEP):  # a level may take less than 170 bytes
        value = [value]
    try:
        repr(value)
    finally:
        while value:
            value = value.pop()


def by_sort_key() -> None:
    def key(value: int) -> int:
        return sorted([value], key=key)[0]

    key(1)


def by_init() -> None:
    class Endless:
        def __init__(self) -> None:
            Endless()

    Endless()


def by_eq() -> None:
    class Endless:
        def __eq__(self, other: object) -> bool:
            return self == other

        __hash__ = None  # type: ignore[assignment]

    bool(Endless() == Endless())


def by_add() -> None:
    class Endless:
        def __add__(self, other: Any) -> Any:
            return self + other

    Endless() + 1


def by_call() -> None:
    class Endless:
        def __call__(self) -> None:
            self()

    Endless()()


def by_property() -> None:
    class Endless:
        @property
        def value(self) -> Any:
            return self.value

    Endless().value


def by_json_dumps() -> None:
    value: list[Any] = []
    for _ in range(DEEP):
        value = [value]
    try:
        json.dumps(value)
    finally:
        while value:
            value = value.pop()


def by_json_loads() -> None:
    json.loads("[" * 4 * DEEP)


def by_pickle() -> None:
    value: list[Any] = []
    for _ in range(DEEP):
        value = [value]
    try:
        pickle.dumps(value)
    finally:
        while value:
            value = value.pop()


def by_deepcopy() -> None:
    value: list[Any] = []
    for _ in range(DEEP):
        value = [value]
    try:
        copy.deepcopy(value)
    finally:
        while value:
            value = value.pop()


def by_map() -> None:
    def call(value: int) -> int:
        return next(map(call, [value]))

    call(1)


def by_isinstance() -> None:
    class Meta(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, cls)

    class Endless(metaclass=Meta):
        pass

    isinstance(1, Endless)


def by_generator() -> None:
    def endless() -> Iterator[int]:
        yield from endless()

    next(endless())


def by_exec() -> None:
    namespace: dict[str, Any] = {}
    namespace["source"] = compile("exec(source)", "deep", "exec")
    exec(namespace["source"], namespace)


def by_regex() -> None:
    re.compile("(" * 5000 + ")" * 5000)


def by_partial() -> None:
    def call() -> None:
        functools.partial(call)()

    call()


def by_lru_cache() -> None:
    @functools.cache
    def call(depth: int) -> int:
        return call(depth + 1)

    call(0)


def by_reduce() -> None:
    def call(left: int, right: int) -> int:
        return functools.reduce(call, [left, right])

    call(1, 2)


def by_filter() -> None:
    def call(value: int) -> bool:
        return bool(list(filter(call, [value])))

    call(1)


def by_re_sub() -> None:
    def call(match: Any) -> str:
        return re.sub("x", call, "x")

    re.sub("x", call, "x")


def by_json_default() -> None:
    encoder = json.JSONEncoder(default=lambda value: encoder.encode(value))
    encoder.encode(object())


def by_pickle_reduce() -> None:
    class Endless:
        def __reduce__(self) -> Any:
            return list, ((Endless(),),)

    pickle.dumps(Endless())


def by_hash() -> None:
    class Endless:
        def __hash__(self) -> int:
            return hash((self,))

    hash(Endless())


def by_descriptor() -> None:
    class Endless:
        def __get__(self, instance: Any, owner: Any) -> Any:
            return instance.value

    class Owner:
        value = Endless()

    Owner().value


def by_iter() -> None:
    class Endless:
        def __iter__(self) -> Iterator[int]:
            return iter(list(self))

    list(Endless())


def by_format() -> None:
    class Endless:
        def __format__(self, spec: str) -> str:
            return f"{self}"

    format(Endless())


def by_new() -> None:
    class Endless:
        def __new__(cls) -> Any:
            return Endless()

    Endless()


def by_super_setattr() -> None:
    class Endless:
        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self, name, value)

    Endless().value = 1


def by_nested_eq() -> None:
    left: Any = []
    right: Any = []
    for _ in range(DEEP):
        left, right = [left], [right]
    try:
        bool(left == right)
    finally:
        while left:
            left, right = left.pop(), right.pop()


def by_nested_hash() -> None:
    value: Any = ()
    for _ in range(DEEP):
        value = (value,)
    hash(value)


def by_nested_isinstance() -> None:
    classes: Any = int
    for _ in range(DEEP):
        classes = (classes,)
    isinstance("", classes)


def by_nested_dict_repr() -> None:
    value: Any = {}
    for _ in range(DEEP):
        value = {1: value}
    try:
        repr(value)
    finally:
        while value:
            value = value.pop(1)


def by_nested_partial() -> None:
    call: Any = int
    for level in range(DEEP):
        call = functools.partial(call) if level % 2 else functools.partial(lambda inner=call: inner())
    call()


def by_nested_generators() -> None:
    def chain(inner: Any) -> Iterator[Any]:
        yield from inner

    generator: Any = iter([1])
    for _ in range(DEEP // 2):
        generator = chain(generator)
    next(generator)


def by_nested_map() -> None:
    values: Any = iter([1])
    for _ in range(DEEP):
        values = map(int, values)
    next(values)


def by_callback_from_c() -> None:
    array = (ctypes.c_int * 2)()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(left: int, right: int) -> int:
        nonlocal failure
        if failure is None:
            try:
                ctypes.CDLL(None).qsort(array, 2, 4, compare)
            except RecursionError as exc:
                failure = exc
        return 0

    failure: RecursionError | None = None
    with contextlib.redirect_stderr(None):
        compare(None, None)  # type: ignore[arg-type]
    if failure is not None:
        raise failure


def by_sort_key_with_work_at_the_bottom() -> None:
    """Where it ends, C code takes room without asking."""
    worked = False

    def key(value: int) -> int:
        nonlocal worked
        try:
            return sorted([value], key=key)[0]
        except RecursionError:
            if not worked:
                worked = True
                with contextlib.suppress(RecursionError):
                    traceback.format_exc(limit=3)
                with contextlib.suppress(RecursionError), open(os.devnull) as file:
                    file.read()
            raise

    key(1)


# ---- what takes deep structures apart, and may not raise either


def by_deep_tuples() -> None:
    value: Any = None
    for _ in range(DEEP):
        value = (value, [])
    del value


def by_linked_objects_with_del() -> None:
    class Link:
        def __init__(self, rest: Any) -> None:
            self.rest = rest

        def __del__(self) -> None:
            self.rest = None

    value: Any = None
    for _ in range(DEEP // 10):
        value = Link(value)
    del value


def by_deep_closures() -> None:
    value: Callable[[], Any] | None = None
    for _ in range(DEEP // 10):
        value = functools.partial(lambda inner: inner, value)
    del value


def by_deep_generators() -> None:
    def hold(inner: Any) -> Iterator[Any]:
        yield inner

    value: Any = None
    for _ in range(DEEP // 10):
        value = hold(value)
        next(value)
    del value


# ---- up to 3.13 these are bounded by numbers of their own, which nobody can lower: see overflows below


def by_compile() -> None:
    compile("(" * 190 + "-" * 100_000 + "1", "deep", "eval")


def by_compiled_tree() -> None:
    tree: Any = ast.Constant(1, lineno=1, col_offset=0)
    for _ in range(DEEP // 10):
        tree = ast.UnaryOp(ast.USub(), tree, lineno=1, col_offset=0)
    try:
        compile(ast.Expression(tree), "deep", "eval")
    finally:
        while isinstance(tree, ast.UnaryOp):
            tree, tree.operand = tree.operand, ast.Constant(1)


ENDLESS = [function for name, function in list(globals().items()) if name.startswith("by_")]
# Where CPython itself does not look, on ordinary threads neither: it runs out of stack sooner or later.
UNBOUNDED = [by_nested_hash, by_nested_generators, by_nested_map]
if sys.version_info < (3, 14):
    UNBOUNDED += [by_compile, by_compiled_tree]
if sys.version_info[:2] == (3, 13):
    UNBOUNDED += [by_deep_generators]  # which it ends without running them
ERRORS = (RecursionError, MemoryError, SyntaxError)


def run_all(functions: list[Callable[[], None]] | None = None) -> list[str]:
    """Each one twice, in one task, printing its name first; what came of those that raised."""
    outcomes = []
    for function in functions if functions is not None else [f for f in ENDLESS if f not in UNBOUNDED]:
        print(function.__name__, end=" ", flush=True)
        for _ in range(2):
            try:
                function()
            except ERRORS as exc:
                outcomes.append(f"{function.__name__} {type(exc).__name__}")
    return outcomes
