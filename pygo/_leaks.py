"""Tasks that nothing can wake any more: `pygo.runtime.leaked_tasks`.

Suspects are the tasks parked without a deadline, but those of bubbles, which find out themselves. All else alive is a
root: modules, the frames of threads and of other tasks, pending timers, and every object with more references than
the objects known to the collector account for (somebody unseen holds it: C code, the evaluation stack of a frame). What
a suspect's own frames hold is exempt from that last rule, or each suspect would keep its own channel reachable. From
the roots everything reachable is marked; a suspect whose wait objects are marked can be woken, so its frames become
roots in turn, until nothing changes.

Rejected: `gc.get_referrers` (quadratic), and marking through handles of suspects (a handle does not give its arguments
away).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any

from pygo._native import Case, Task, _Bubble, _timer_channels, all_tasks

OPTIMIZED = 0x1  # a code flag: the frame's locals are not a namespace of their own
OWN_REFERENCES = 3  # while _unexplained counts: its list, its variable, getrefcount's argument


def _referents(value: Any) -> list[Any]:
    """What the value refers to, as far as the collector knows.

    Of a module only its namespace: what its C code keeps counts as held by somebody unseen. CPython 3.12's `_asyncio`
    visits iterators on its list of free ones, and to get hold of those, as gc.get_referents does, closes the list to a
    ring, which the next collection never leaves.
    """
    return [value.__dict__] if isinstance(value, ModuleType) else gc.get_referents(value)


def _locals_of(frame: FrameType) -> list[Any]:
    names = frame.f_locals
    values = list(names.values())
    if frame.f_code.co_flags & OPTIMIZED and type(names) is dict:
        names.clear()  # until 3.12 a copy that stays with the frame, and would keep the values alive
    return values


def _chain(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class _Suspect:
    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.frames = task.frames()
        waiting = task.waiting_on
        self.objects = list(waiting.objects) if waiting is not None else []
        self.held = [value for frame in self.frames for value in _locals_of(frame)]


def _exempt(suspects: list[_Suspect], objects: list[Any]) -> set[int]:
    """The ids of what suspects' frames hold: locals, what they wait on, their functions, and the cells of those."""
    found = {id(value) for suspect in suspects for value in (*suspect.held, *suspect.objects, *suspect.frames)}
    waited_for = {id(value) for suspect in suspects for value in suspect.objects}
    codes = {id(frame.f_code) for suspect in suspects for frame in suspect.frames}
    for value in objects:
        if type(value) is FunctionType and id(value.__code__) in codes:
            found.add(id(value))
            found.update(map(id, value.__closure__ or ()))
    for value in objects:
        if type(value) is CellType:
            if any(id(content) in found for content in _referents(value)):
                found.add(id(value))
        elif type(value) is Case and any(id(channel) in waited_for for channel in _referents(value)):
            found.add(id(value))  # while it waits, select holds its cases
    return found


def _unexplained(objects: list[Any], tasks: list[Task[Any]], exempt: set[int]) -> list[Any]:
    """Those of `objects` that somebody holds whom the collector does not know."""
    explained = dict.fromkeys(map(id, objects), 0)
    for holder in (*objects, *tasks):
        for value in _referents(holder):
            key = id(value)
            if key in explained:
                explained[key] += 1
        value = holder = None
    return [
        value
        for value in objects
        if id(value) not in exempt and sys.getrefcount(value) - OWN_REFERENCES > explained[id(value)]
    ]


class _Marks:
    def __init__(self, opaque: Iterable[int]) -> None:
        self._seen: set[int] = set()
        self._opaque = set(opaque)
        self._kept: list[Any] = []  # an id means something only while its object lives

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._seen

    def mark(self, values: Iterable[Any]) -> None:
        """Mark all that can be reached from the values, but not through suspects' handles."""
        stack = list(values)
        while stack:
            value = stack.pop()
            key = id(value)
            if key in self._seen:
                continue
            self._seen.add(key)
            self._kept.append(value)
            if key not in self._opaque:
                stack.extend(_referents(value))

    def reveal(self, task: Task[Any]) -> None:
        """The task lives: what it holds is reachable."""
        self._opaque.discard(id(task))
        self._seen.discard(id(task))
        self.mark([task])


def _roots(suspects: list[_Suspect]) -> Iterator[Any]:
    suspended = {id(frame) for suspect in suspects for frame in suspect.frames}
    yield sys.modules
    yield from _timer_channels()
    for top in sys._current_frames().values():
        if id(top) in suspended:
            continue
        for frame in _chain(top):
            if frame.f_code.co_filename != __file__:
                yield frame.f_globals
                yield from _locals_of(frame)


def _can_go_on(suspect: _Suspect, marks: _Marks, hopeless: set[int]) -> bool:
    """A joiner waits for an end, which a handle does not bring about; all else can be used by whoever reaches it."""
    for value in suspect.objects:
        if isinstance(value, Task):
            if id(value) not in hopeless:
                return True
        elif isinstance(value, _Bubble) or (value is not None and value in marks):
            return True
    return False


def _hopeless(suspects: list[_Suspect], objects: list[Any], tasks: list[Task[Any]]) -> set[int]:
    """The ids of the suspects that nobody alive can wake."""
    hopeless = {id(suspect.task) for suspect in suspects}
    marks = _Marks(hopeless)
    unexplained = _unexplained(objects, tasks, _exempt(suspects, objects))
    marks.mark(_roots(suspects))
    marks.mark(unexplained)
    marks.mark(task for task in tasks if id(task) not in hopeless)
    changed = True
    while changed:
        changed = False
        for suspect in suspects:
            if id(suspect.task) in hopeless and _can_go_on(suspect, marks, hopeless):
                hopeless.discard(id(suspect.task))
                marks.reveal(suspect.task)
                marks.mark(suspect.held)
                changed = True
    return hopeless


def _endless_waits(tasks: Iterable[Task[Any]]) -> list[tuple[Task[Any], int]]:
    return [(task, wait) for task in tasks if not task._bubble and (wait := task._endless_wait) is not None]


def _look(waits: list[tuple[Task[Any], int]]) -> list[tuple[Task[Any], int]]:
    """Those of the waits that nobody alive can end. What runs is looked at afterwards."""
    objects = gc.get_objects()
    suspects = [_Suspect(task) for task, wait in waits if task._endless_wait == wait]
    hopeless = _hopeless(suspects, objects, all_tasks())
    return [(task, wait) for task, wait in waits if id(task) in hopeless and task._endless_wait == wait]


def leaked_tasks() -> list[Task[Any]]:
    """See `pygo.runtime.leaked_tasks`."""
    collecting = gc.isenabled()
    gc.collect()  # what is garbage reaches nothing
    gc.disable()
    try:
        waits = _look(_endless_waits(all_tasks()))
        if waits:  # others ran meanwhile and may have moved what they hold; only those suspects count that did not
            waits = _look(waits)
        return [task for task, _ in waits]
    finally:
        if collecting:
            gc.enable()
