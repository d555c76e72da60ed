"""Extension modules and libraries compiled by the tests."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent


def compile_library(source: Path, target: Path, *options: str) -> Path:
    """A shared object of the C or C++ source."""
    compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=c11"]
    include = f"-I{sysconfig.get_path('include')}"
    command = [*compiler, "-O2", "-g", "-Wall", "-Werror", "-shared", "-fPIC", include, *options]
    subprocess.run([*command, str(source), "-o", str(target)], check=True)
    return target


def load_extension(name: str, path: Path) -> Any:
    """The extension module in a file, loaded as ``import`` would."""
    spec = importlib.util.spec_from_file_location(
        name, path, loader=importlib.machinery.ExtensionFileLoader(name, str(path))
    )
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_extension(name: str, source: Path, directory: Path, *options: str) -> Any:
    """Compile and load the extension module ``name``."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return load_extension(name, compile_library(source, directory / f"{name}{suffix}", *options))
