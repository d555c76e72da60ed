"""Loads the two modules of the one shared object. The only module that sees `ffi`.

`pygo._core` is the cffi module. `pygo._native`, the types written against CPython's API, lies in the same file and is
loaded from there under its own name (PEP 489, "multiple modules in one library").
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from types import ModuleType
from typing import Any

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError("pygo does not support free-threaded builds of CPython yet; use a build with the GIL")


def _load_native(path: str) -> ModuleType:
    name = "pygo._native"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


try:
    from pygo import _core
except ImportError as error:
    if importlib.util.find_spec("pygo._core") is not None:
        raise  # it is there, and says itself why it cannot be used (in a subinterpreter, for one)
    raise ImportError(
        f"pygo's extension module is not built for this Python in {os.path.dirname(__file__)}: "
        "run `pip install -e .` there, or start Python where no source tree of pygo hides the installed one"
    ) from error

native = _load_native(_core.__file__)
_lib: Any = _core.lib
_ffi: Any = _core.ffi

_seed: int | None = None
_STATS_FIELDS: tuple[str, ...] = tuple(name for name, _ in _ffi.typeof("pygo_stats").fields)


def read_stats() -> dict[str, int]:
    """The core's counters by name."""
    stats = _ffi.new("pygo_stats *")
    _lib.pygo_read_stats(stats)
    return {name: getattr(stats, name) for name in _STATS_FIELDS}


def workers() -> int:
    return int(_lib.pygo_workers())


def set_workers(count: int) -> None:
    """Raises ValueError when the core does not take the number."""
    if not 1 <= count <= 256 or _lib.pygo_set_workers(count) != 0:
        raise ValueError(f"the number of workers must lie between 1 and 256, not {count}")


def cpu_count() -> int:
    return int(_lib.pygo_cpu_count())


def set_default_stack_size(size: int) -> None:
    """Raises ValueError when the core does not take the size."""
    if size < 0 or size >= 1 << 40 or _lib.pygo_set_default_stack_size(size) != 0:
        raise ValueError(f"the stack size must lie between 64 KiB and 1 TiB, not {size} bytes")


def default_stack_size() -> int:
    return int(_lib.pygo_default_stack_size())


def set_seed(seed: int | None) -> None:
    """For tests: draw what the scheduler leaves to chance from `seed`; None: no more."""
    global _seed
    _lib.pygo_set_seed(seed is not None, (seed or 0) % 2**64)
    _seed = seed


def current_seed() -> int | None:
    return _seed


def inject_stale_wakes(every: int) -> None:
    """For tests: every n-th wait is woken once for nothing; 0 turns it off."""
    _lib.pygo_inject_stale_wakes(every)


def switch_keeps_gil() -> bool:
    """For tests: from task to task the GIL is not given back and taken again; see csrc/python/swap.h."""
    return bool(_lib.pygo_switch_keeps_gil())


def hold_monitor(on: bool) -> None:
    """For tests: the monitor thread does nothing meanwhile, as where it does not get to run."""
    _lib.pygo_hold_monitor(on)


def set_signal_slice(seconds: float) -> None:
    """For tests: how long a waiting main thread sleeps between looks at signals and for deadlock; 0 resets it."""
    _lib.pygo_set_signal_slice(int(seconds * 1e9))


def set_scavenge_interval(seconds: float) -> None:
    """For tests: how often memory of stacks is given back, and of tasks that wait for how long; 0 resets it."""
    _lib.pygo_set_scavenge_interval(int(seconds * 1e9))


def outside_add(change: int) -> None:
    """Raise (or lower again) the number of those who can wake tasks and whom the scheduler does not see.

    While it is above zero no deadlock is reported. For pollers and executors; threads that run are seen anyway.
    """
    _lib.pygo_outside_add(change)


def set_watchdog(seconds: float) -> None:
    """Report tasks that stay so long without a scheduling point; 0 turns it off."""
    _lib.pygo_set_watchdog(int(seconds * 1e9))


def set_trace(seconds: float) -> None:
    """Write a line on the scheduler to stderr every so often; 0 turns it off."""
    _lib.pygo_set_trace(int(seconds * 1e9))


def has_portable_switch() -> bool:
    """Whether the core was built with the portable switch, whose saved contexts are larger."""
    return bool(_lib.pygo_has_portable_switch())
