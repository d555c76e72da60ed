"""Contexts: cancellation, deadlines and values that are passed down a tree of calls. After Go's `context`.

>>> from pygo import context
>>> ctx, cancel = context.with_timeout(context.background(), 60)
>>> child = context.with_value(ctx, "user", "ada")
>>> child.value("user"), child.err
('ada', None)
>>> cancel()
>>> child.done.closed, child.err
(True, Canceled('context canceled'))

No call here waits, and all may be made from tasks and any thread. `contextvars` are something else: they need not be
passed on by hand, and carry no cancellation.
"""

# Any thread may run between two bytecodes, and a collection of garbage any code within one that allocates. There are no
# locks: each step is one operation of a list or a dict that the interpreter makes in one go, and may be done twice.
#   - What must happen once is won by the first append to an empty list, or by the pop that empties one.
#   - A child links itself into its parent and then looks whether that has ended; a parent first ends and then looks for
#     children: one of them sees the other. Likewise a done channel and its close, a timer and its stop.
#   - A node leaves its parent's children only when all below it have ended. So a second cancel() that comes while the
#     first is under way finds what is left, and does that itself.

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from pygo._errors import ChannelClosed, Error
from pygo._native import Channel, RecvChannel, Task, Timer, _birthplace, _bubble, _made_in, _now

__all__ = [
    "CancelFunc",
    "Canceled",
    "Context",
    "DeadlineExceeded",
    "after_func",
    "background",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]


class _End(Error):
    """Why a context has ended. Equal to its class, so that `ctx.err == Canceled` reads as in Go."""

    def __eq__(self, other: object) -> bool:
        return other is type(self) or type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


class Canceled(_End):
    """The context's cancel function, or that of one above it, was called."""


class DeadlineExceeded(_End, TimeoutError):
    """The context's deadline, or that of one above it, has passed."""


class CancelFunc(Protocol):
    """Ends a context and all below it; see `with_cancel`."""

    def __call__(self, cause: Any = None) -> None: ...


_Ended: TypeAlias = tuple[Canceled | DeadlineExceeded, Any]  # err, cause

_never_done: RecvChannel[None] = _made_in(0, Channel).receiver


class Context:
    """One node of a tree of contexts. Made by the functions of this module."""

    __slots__ = ("__weakref__", "_parent", "_source")

    def __init__(self, parent: Context | None, source: _Cancellable | None) -> None:
        self._parent = parent
        self._source = source  # the nearest node above this one that can end; None: nothing ends it

    @property
    def done(self) -> RecvChannel[None]:
        """A channel that is closed when the context ends; always the same. That of `background()` never closes."""
        return _never_done if self._source is None else self._source.done

    @property
    def err(self) -> Canceled | DeadlineExceeded | None:
        """None until the context ends; then why, always the same exception: a `Canceled` or a `DeadlineExceeded`."""
        return None if self._source is None else self._source.err

    @property
    def cause(self) -> Any:
        """What the cancel function that ended the context was given, else the same as `err`."""
        return None if self._source is None else self._source.cause

    @property
    def deadline(self) -> float | None:
        """When the context ends at the latest, on `time.monotonic()`; None if nothing says so.

        In a bubble of `pygo.testing` it is on the bubble's clock, which `testing.now` reads.
        """
        return None if self._source is None else self._source.deadline

    def value(self, key: object) -> Any:
        """The value that the nearest `with_value`, from here upwards, has for an equal key; None if there is none."""
        node: Context | None = self
        while node is not None:
            if isinstance(node, _Value) and (node.key is key or node.key == key):
                return node.held
            node = node._parent
        return None

    def __repr__(self) -> str:
        state = "background" if self._parent is None else f"at {id(self):#x}"
        if self.deadline is not None and self.err is None:
            state += f", {self.deadline - _now():.3f} s left"
        return f"<pygo.context.Context {state}{'' if self.err is None else f', {self.err}'}>"


class _Value(Context):
    __slots__ = ("held", "key")

    def __init__(self, parent: Context, key: object, held: object) -> None:
        super().__init__(parent, _nearest(parent))
        self.key = key
        self.held = held


class _Cancellable(Context):
    __slots__ = ("_birthplace", "_channels", "_deadline", "_ended", "_timer", "children", "owner")

    def __init__(self, parent: Context, deadline: float | None) -> None:
        self.owner = _nearest(parent)
        super().__init__(parent, self.owner)
        # What can be ended from outside of a bubble is not the bubble's, nor is anything below it.
        here = _birthplace()
        self._birthplace: int = here if self.owner is None or self.owner._birthplace == here else 0
        self.children: dict[_Cancellable | _AfterFunc, None] = {}
        self._deadline = deadline
        self._timer: Timer | None = None
        self._ended: list[_Ended] = []  # the first counts
        self._channels: list[tuple[Channel[None], RecvChannel[None]]] = []  # the first counts; none until asked for

    @property
    def done(self) -> RecvChannel[None]:
        if not self._channels:
            channel: Channel[None] = _made_in(self._birthplace, Channel)
            self._channels.append((channel, channel.receiver))
        if self._ended:  # whoever made the channel may not have come to it yet
            self._close_done()
        return self._channels[0][1]

    @property
    def err(self) -> Canceled | DeadlineExceeded | None:
        if not self._ended:
            return None
        self._close_done()  # nobody is to see the error before the channel is closed
        return self._ended[0][0]

    @property
    def cause(self) -> Any:
        return self._ended[0][1] if self._ended else None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @property
    def ended(self) -> _Ended | None:
        return self._ended[0] if self._ended else None

    def cancel(self, cause: Any = None) -> None:
        """End the context and all below it; they have ended on return. Another call changes nothing. Never waits.

        cause: what `cause` says from then on, instead of the `Canceled` that `err` is.
        """
        if self._birthplace not in (0, _bubble()):
            raise RuntimeError("a context that belongs to a bubble is ended from outside of it")
        err = Canceled("context canceled")
        _end_tree(self, self.ended or (err, err if cause is None else cause))

    def start_timer(self, seconds: float) -> None:
        self._timer = Timer(seconds, self._expire)
        if self._ended:
            self._stop_timer()

    def _expire(self) -> None:
        err = DeadlineExceeded("context deadline exceeded")
        _end_tree(self, (err, err))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer._drop()

    def _close_done(self) -> None:
        if self._channels and not self._channels[0][0].closed:
            try:
                self._channels[0][0].close()
            except ChannelClosed:  # by somebody else, between the look and the call
                pass

    def end(self, ended: _Ended) -> list[_Cancellable | _AfterFunc]:
        """End this node alone; returns its children."""
        if not self._ended:
            self._ended.append(ended)
        self._close_done()
        self._stop_timer()
        return list(self.children)


def _nearest(ctx: Context) -> _Cancellable | None:
    return ctx if isinstance(ctx, _Cancellable) else ctx._source


class _AfterFunc:
    """A function that is to be called when a context has ended, linked into it like a child."""

    __slots__ = ("calls", "children", "owner")

    def __init__(self, owner: _Cancellable | None, fn: Callable[[], object]) -> None:
        self.owner = owner
        self.calls = [(fn, contextvars.copy_context())]  # whoever pops it calls it, or keeps it from being called
        self.children: dict[_Cancellable | _AfterFunc, None] = {}

    def end(self, ended: _Ended) -> list[_Cancellable | _AfterFunc]:
        call = _pop(self.calls)
        if call is not None:
            Task(call[0], context=call[1])
        return []

    def stop(self) -> bool:
        """Keep the function from being called; True if this call did. False: it has been started, or stopped before."""
        stopped = _pop(self.calls) is not None
        if self.owner is not None:
            self.owner.children.pop(self, None)
        return stopped


def _pop(calls: list[tuple[Callable[[], object], contextvars.Context]]) -> Any:
    try:
        return calls.pop()
    except IndexError:
        return None


def _end_tree(root: _Cancellable | _AfterFunc, ended: _Ended) -> None:
    """End the node and all below it, without recursion: trees may be deep."""
    nodes = [root]
    for node in nodes:
        nodes.extend(node.end(ended))
    for node in nodes:  # whoever links itself now has seen that the node has ended, and ends itself
        node.children.clear()
    if root.owner is not None:
        root.owner.children.pop(root, None)


def _link(node: _Cancellable | _AfterFunc) -> None:
    if node.owner is None:
        return
    node.owner.children[node] = None
    ended = node.owner.ended
    if ended is not None:
        _end_tree(node, ended)


def _check(parent: Context) -> None:
    if not isinstance(parent, Context):
        raise TypeError(f"expected a pygo.context.Context, not {type(parent).__name__}")


_background = Context(None, None)


def background() -> Context:
    """The root of all contexts: never ends, has no deadline and no values. Always the same object."""
    return _background


def with_cancel(ctx: Context) -> tuple[Context, CancelFunc]:
    """A child of `ctx`, and the function that ends it: `(child, cancel)`. The child ends with `ctx` at the latest.

    `cancel(cause=None)` ends the child and all below it, which have ended when it returns. Call it when the child's
    work is done, too: until then `ctx` refers to the child. Raises TypeError.
    """
    _check(ctx)
    node = _Cancellable(ctx, ctx.deadline)
    _link(node)
    return node, node.cancel


def with_deadline(ctx: Context, t: float) -> tuple[Context, CancelFunc]:
    """Like `with_cancel`, with a child that ends with `DeadlineExceeded` at `t` on `time.monotonic()`, if not before.

    In a bubble of `pygo.testing`, `t` is on its clock, which `testing.now` reads.

    Its `deadline` is the earlier of `t` and that of `ctx`. A `t` in the past: the child has ended already. Raises
    TypeError, and ValueError for a NaN.
    """
    _check(ctx)
    left = t - _now()
    if left != left:
        raise ValueError("a deadline must be a number of seconds, not NaN")
    inherited = ctx.deadline
    if t == float("inf") or (inherited is not None and inherited <= t):
        return with_cancel(ctx)
    node = _Cancellable(ctx, float(t))
    _link(node)
    if left <= 0:
        node._expire()
    elif node.ended is None:
        node.start_timer(left)
    return node, node.cancel


def with_timeout(ctx: Context, s: float) -> tuple[Context, CancelFunc]:
    """`with_deadline(ctx, time.monotonic() + s)`. `s` in seconds; zero or less: the child has ended already."""
    return with_deadline(ctx, _now() + s)


def with_value(ctx: Context, k: object, v: object) -> Context:
    """A child of `ctx` whose `value(k)` is `v`. It ends when `ctx` does.

    k: compared by `==`; a type of one's own keeps modules apart. Raises TypeError when it is None.
    """
    _check(ctx)
    if k is None:
        raise TypeError("a context's key must not be None")
    return _Value(ctx, k, v)


def without_cancel(ctx: Context) -> Context:
    """A child with the values of `ctx` that does not end when `ctx` does, and has no deadline."""
    _check(ctx)
    return Context(ctx, None)


def after_func(ctx: Context, fn: Callable[[], object]) -> Callable[[], bool]:
    """Call `fn()` in a task of its own when `ctx` has ended, at once if it has; returns `stop`.

    `stop()` is True if it kept `fn` from being called, and False if that has been started or was stopped before; it
    does not wait for `fn`. The task starts in a copy of the caller's `contextvars.Context`. Raises TypeError.
    """
    _check(ctx)
    if not callable(fn):
        raise TypeError(f"expected a function, not {type(fn).__name__}")
    node = _AfterFunc(_nearest(ctx), fn)
    _link(node)
    return node.stop
