"""The cffi builder: describes the extension `pygo._core`, which holds the core and the native types.

setuptools runs this file (`cffi_modules` in setup.py) in the folder of setup.py. What cffi declares stands in
cdef.h as plain C; its lines with `#pragma` and `#include` are for the C compiler only.
Read from the environment:
  PYGO_DEBUG=1    no optimisation, full debug information, assertions on
  PYGO_WERROR=1   warnings in our own files are errors
  PYGO_CFLAGS     further flags, last on the command line
"""

import os
import shlex
from pathlib import Path

from cffi import FFI

CSRC = Path("csrc")

OPTIMISE = ["-O2"]
DEBUG = ["-O0", "-g3", "-UNDEBUG", "-U_FORTIFY_SOURCE"]
CODE = ["-std=gnu11", "-fvisibility=hidden", "-ftls-model=initial-exec", "-pthread"]
WARN = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wno-unused-parameter"]


def files(*suffixes: str) -> list[str]:
    return sorted(str(path) for path in CSRC.glob("*/*") if path.suffix in suffixes)


def flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def compile_args() -> list[str]:
    args = CODE + (DEBUG if flag("PYGO_DEBUG") else OPTIMISE) + WARN
    if flag("PYGO_WERROR"):
        args.append("-Werror")
    return args + shlex.split(os.environ.get("PYGO_CFLAGS", ""))


def cdef() -> str:
    lines = (CSRC / "python" / "cdef.h").read_text(encoding="utf-8").splitlines()
    return "\n".join("" if line.startswith(("#pragma", "#include")) else line for line in lines)


ffi = FFI()
ffi.cdef(cdef())
ffi.set_source(
    "pygo._core",
    # The flags stand in the generated file so that a build with others rebuilds everything.
    f'/* {" ".join(compile_args())} */\n#include "python/capi.h"\n',
    sources=files(".c", ".S"),
    depends=[*files(".c", ".S", ".h"), "csrc/python/build_core.py", "setup.py"],
    include_dirs=[str(CSRC)],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=compile_args(),
    extra_link_args=["-pthread"],
    py_limited_api=False,
)
