"""The public contract: every name exists, takes the stated arguments, refuses others at the call, and shows itself."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import re
import types
import weakref
from typing import Any

import pytest
from helpers import wait_until

import pygo
from pygo import runtime

# Name: the parameters that callers may rely on; "/" and "*" as in a definition, "=" marks a default.
FUNCTIONS = {
    "spawn": "(fn, /, *args, **kwargs)",
    "go": "(fn, /, *args, **kwargs)",
    "current_task": "()",
    "all_tasks": "()",
    "yield_now": "()",
    "sleep": "(seconds)",
    "exit_task": "(value=None)",
    "lock_thread": "()",
    "call_on_stack": "(size, fn, /, *args, **kwargs)",
    "select": "(*cases, default=False, timeout=None)",
    "recv": "(ch)",
    "send": "(ch, value)",
    "after": "(seconds)",
    "context.background": "()",
    "context.with_cancel": "(ctx)",
    "context.with_timeout": "(ctx, s)",
    "context.with_deadline": "(ctx, t)",
    "context.with_value": "(ctx, k, v)",
    "context.without_cancel": "(ctx)",
    "context.after_func": "(ctx, fn)",
    "runtime.workers": "()",
    "runtime.set_workers": "(n)",
    "runtime.stats": "()",
    "runtime.dump": "(file=None)",
    "runtime.set_default_stack_size": "(n)",
}
METHODS = {
    "Task.join": "(self, timeout=None)",
    "Task.result": "(self, timeout=None)",
    "Task.exception": "(self, timeout=None)",
    "Task.done": "(self)",
    "Task.cancelled": "(self)",
    "Task.add_done_callback": "(self, fn)",
    "Task.frames": "(self)",
    "Task.print_stack": "(self, file=None)",
    "Channel.send": "(self, value, timeout=None)",
    "Channel.recv": "(self, timeout=None)",
    "Channel.recv_ok": "(self, timeout=None)",
    "Channel.try_send": "(self, value)",
    "Channel.try_recv": "(self)",
    "Channel.close": "(self)",
    "SendChannel.send": "(self, value, timeout=None)",
    "SendChannel.try_send": "(self, value)",
    "SendChannel.close": "(self)",
    "RecvChannel.recv": "(self, timeout=None)",
    "RecvChannel.recv_ok": "(self, timeout=None)",
    "RecvChannel.try_recv": "(self)",
    "Timer.stop": "(self)",
    "Timer.reset": "(self, seconds)",
    "Ticker.stop": "(self)",
    "Ticker.reset": "(self, seconds)",
    "context.Context.value": "(self, key)",
    "WaitGroup.add": "(self, n=1)",
    "WaitGroup.done": "(self)",
    "WaitGroup.wait": "(self, timeout=None)",
    "WaitGroup.go": "(self, fn, /, *args, **kwargs)",
}
CLASSES = {
    "Task": "(fn, args=(), kwargs=None, *, name=None, context=None, stack_size=None)",
    "Channel": "(capacity=0)",
    "Timer": "(seconds, fn=None)",
    "Ticker": "(seconds)",
    "WaitGroup": "()",
}
ATTRIBUTES = {
    "Task": ["id", "name", "state", "waiting_on"],
    "Channel": ["closed", "capacity", "waiting_receivers", "waiting_senders", "sender", "receiver"],
    "SendChannel": ["closed", "capacity"],
    "RecvChannel": ["closed", "capacity"],
    "Timer": ["channel"],
    "Ticker": ["channel"],
    "context.Context": ["done", "err", "cause", "deadline"],
}
ERRORS = {
    "Error": Exception,
    "ChannelClosed": "Error",
    "DeadlockError": "Error",
    "TaskCancelled": "Error",
    "Cancelled": BaseException,
}


def lookup(path: str) -> Any:
    item: Any = pygo
    for name in path.split("."):
        item = getattr(item, name)
    return item


def parameters(signature: str) -> list[tuple[str, str, str | None]]:
    """The parameters of a signature given as text: kind, name and default."""
    function: dict[str, Any] = {}
    exec(f"def function{signature}: pass", {}, function)
    return described(inspect.signature(function["function"]))


def described(signature: inspect.Signature) -> list[tuple[str, str, str | None]]:
    empty = inspect.Parameter.empty
    return [
        (parameter.kind.name, parameter.name, None if parameter.default is empty else repr(parameter.default))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]


def signature_of(item: Any) -> list[tuple[str, str, str | None]]:
    """From ``inspect``, or from the first line of the docstring of a native function that has no text signature."""
    try:
        return described(inspect.signature(item))
    except ValueError:
        found = re.match(r"\w+(\(.*?\))(\s*->|\s*$)", (item.__doc__ or "").splitlines()[0])
        assert found, f"neither a signature nor one in the docstring: {item!r}"
        return parameters(re.sub(r":[^,=)]+", "", found.group(1)))


def agree(actual: list[tuple[str, str, str | None]], wanted: list[tuple[str, str, str | None]]) -> bool:
    """Same names and defaults in the same order. What is required may be positional only, and then have any name."""
    if len(actual) != len(wanted):
        return False
    for (kind, name, default), (kind_wanted, name_wanted, default_wanted) in zip(actual, wanted, strict=True):
        if default != default_wanted:
            return False
        if (kind == kind_wanted and kind.startswith("VAR_")) or (kind == "POSITIONAL_ONLY" and default is None):
            continue
        if name != name_wanted or kind_wanted == "POSITIONAL_ONLY":
            return False
        if kind != kind_wanted and kind != "POSITIONAL_OR_KEYWORD":
            return False
    return True


@pytest.mark.parametrize("path", [*FUNCTIONS, *METHODS, *CLASSES])
def test_the_name_exists_with_its_signature_and_a_docstring(path: str) -> None:
    item = lookup(path)
    assert callable(item)
    wanted = {**FUNCTIONS, **METHODS, **CLASSES}[path]
    assert agree(signature_of(item), parameters(wanted)), f"{path}{wanted}, but it has {signature_of(item)}"
    doc = inspect.getdoc(item)
    assert doc
    assert len(doc.strip()) > 20


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in ATTRIBUTES.items() for name in names])
def test_the_attribute_exists_is_read_only_and_has_a_docstring(path: str, name: str) -> None:
    attribute = inspect.getattr_static(lookup(path), name)
    assert inspect.isdatadescriptor(attribute)
    if name != "name":
        item = {"Task": lambda: pygo.spawn(int), "Channel": pygo.Channel}.get(path, lambda: None)()
        if path in ("SendChannel", "RecvChannel"):
            item = getattr(pygo.Channel(), {"SendChannel": "sender", "RecvChannel": "receiver"}[path])
        with pytest.raises(AttributeError):
            setattr(item, name, 1)
        if path == "Task":
            item.join()
    assert attribute.__doc__


@pytest.mark.parametrize("name", list(ERRORS))
def test_the_error_exists_with_its_base(name: str) -> None:
    base = ERRORS[name]
    error = getattr(pygo, name)
    assert issubclass(error, getattr(pygo, base) if isinstance(base, str) else base)
    assert error.__module__ == "pygo"
    assert error.__doc__
    assert not issubclass(pygo.Cancelled, Exception)
    assert pickle.loads(pickle.dumps(error("text"))).args == ("text",)


def test_selected_is_a_named_tuple() -> None:
    assert pygo.Selected._fields == ("index", "value", "ok")
    assert issubclass(pygo.Selected, tuple)


def test_excepthook_is_a_function_of_task_and_exception() -> None:
    assert callable(pygo.excepthook)


def test_all_lists_what_is_public() -> None:
    names = [path for path in (*FUNCTIONS, *CLASSES, *ERRORS) if "." not in path]
    assert {*names, "SendChannel", "RecvChannel", "Selected", "runtime"} <= set(pygo.__all__)
    assert sorted(set(pygo.__all__)) == sorted(pygo.__all__)
    visible = {
        name
        for name, value in vars(pygo).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert visible - {"excepthook"} <= set(pygo.__all__)


@pytest.mark.parametrize("name", ["Task", "Channel", "SendChannel", "RecvChannel", "WaitGroup"])
def test_public_classes_name_pygo_as_their_module(name: str) -> None:
    assert getattr(pygo, name).__module__ == "pygo"
    assert getattr(pygo, name).__qualname__ == name


@pytest.mark.parametrize("name", ["Task", "Channel", "SendChannel", "RecvChannel"])
def test_generic_classes_can_be_subscripted(name: str) -> None:
    alias = getattr(pygo, name)[int]
    assert alias.__origin__ is getattr(pygo, name)
    assert alias.__args__ == (int,)


def test_wrong_arguments_raise_at_the_call() -> None:
    ch: Any = pygo.Channel(1)
    task: Any = pygo.spawn(int)
    group: Any = pygo.WaitGroup()
    wrong = [
        lambda: pygo.Channel(1, 2),
        lambda: pygo.Channel(size=1),
        lambda: pygo.WaitGroup(1),
        lambda: ch.send(),
        lambda: ch.send(1, 2, 3),
        lambda: ch.send(1, time=3),
        lambda: ch.recv(1, 2),
        lambda: ch.recv(time=3),
        lambda: ch.try_send(),
        lambda: ch.try_send(1, 2),
        lambda: ch.try_recv(1),
        lambda: ch.close(1),
        lambda: task.join(1, 2),
        lambda: task.join(time=1),
        lambda: task.done(1),
        lambda: task.add_done_callback(),
        lambda: group.add("1"),
        lambda: group.done(1),
        lambda: group.wait(1, 2),
        lambda: pygo.current_task(1),
        lambda: pygo.all_tasks(1),
        lambda: pygo.yield_now(1),
        lambda: pygo.sleep(),
        lambda: pygo.sleep(1, 2),
        lambda: pygo.after(),
        lambda: runtime.workers(1),
        lambda: runtime.set_workers(),
        lambda: runtime.stats(1),
        lambda: runtime.dump(file=3),
    ]
    for call in wrong:
        with pytest.raises((TypeError, AttributeError)):
            call()
    assert len(ch) == 0
    task.join()
    group.wait(timeout=0)


class TestRepr:
    def test_of_tasks(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel()
        task = pygo.Task(ch.recv, name="the-name")
        wait_until(lambda: ch.waiting_receivers == 1)
        text = repr(task)
        assert "Task" in text
        assert "the-name" in text
        assert str(task.id) in text
        assert "waiting" in text
        ch.send(1)
        task.join()
        assert "done" in repr(task)

    def test_of_channels(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(7)
        ch.send(1)
        text = repr(ch)
        assert "Channel" in text
        assert f"{id(ch):#x}" in text.lower()
        assert re.search(r"\b1\b.*\b7\b", text)
        assert "closed" not in text
        ch.close()
        assert "closed" in repr(ch)

    def test_of_views(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(7)
        assert "SendChannel" in repr(ch.sender)
        assert "RecvChannel" in repr(ch.receiver)
        assert repr(ch.sender) != repr(pygo.Channel(7).sender)

    def test_of_wait_groups(self) -> None:
        group = pygo.WaitGroup()
        group.add(41)
        assert "WaitGroup" in repr(group)
        assert "41" in repr(group)
        group.add(-41)

    def test_of_cases_and_selected(self) -> None:
        ch: pygo.Channel[int] = pygo.Channel(1)
        assert "send" in repr(pygo.send(ch, 5)).lower()
        assert "recv" in repr(pygo.recv(ch)).lower()
        assert repr(pygo.select(default=True)) == "Selected(index=-1, value=None, ok=False)"

    def test_of_a_channel_in_its_own_buffer_ends(self) -> None:
        ch: pygo.Channel[Any] = pygo.Channel(1)
        ch.send(ch)
        assert len(repr(ch)) < 500
        ch.recv()

    def test_of_stats(self) -> None:
        assert "workers=" in repr(runtime.stats())


@pytest.mark.parametrize("name", ["Task", "Channel", "SendChannel", "RecvChannel", "WaitGroup"])
def test_objects_are_weakly_referable_hashable_and_not_copied(name: str) -> None:
    channel: pygo.Channel[int] = pygo.Channel()
    items: dict[str, Any] = {
        "Task": pygo.spawn(int),
        "Channel": channel,
        "SendChannel": channel.sender,
        "RecvChannel": channel.receiver,
        "WaitGroup": pygo.WaitGroup(),
    }
    item = items[name]
    assert weakref.ref(item)() is item
    assert {item: 1}[item] == 1
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(item)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(item)
    items["Task"].join()


def test_weak_references_die_with_their_objects() -> None:
    for make in (pygo.Channel, pygo.WaitGroup):
        ref = weakref.ref(make())
        gc.collect()
        assert ref() is None


def test_unknown_attributes_are_refused() -> None:
    task = pygo.spawn(int)
    for item in (pygo.Channel(), pygo.WaitGroup(), task, pygo.Channel().sender):
        with pytest.raises(AttributeError):
            item.no_such_thing
    task.join()
