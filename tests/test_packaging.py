"""The package as others get it: wheel, sdist, what a second build picks up, and which builds are refused."""

from __future__ import annotations

import email
import importlib.machinery
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import pygo

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
# All that is hidden but .ci belongs to tools.
NOT_SOURCES = ("build", "dist", "*.egg-info", "*.so", "*.o", "__pycache__", ".[!c]*", ".coverage")

# The wheel stage of .ci/run has the tests and csrc at hand, but no pygo/, so that the installed one is tested.
needs_tree = pytest.mark.skipif(not (ROOT / "pygo" / "__init__.py").exists(), reason="there is no pygo/ beside tests/")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYGO_", "PYTHONPATH"))}
    return subprocess.run(command, cwd=cwd, env=environment | (env or {}), text=True, capture_output=True, timeout=110)


def succeed(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = run(*command, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def backend(hook: str, tree: Path, place: Path) -> Path:
    """Call one hook of the build backend, as pip and build do, without their downloads."""
    program = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    place.mkdir()
    succeed(sys.executable, "-c", program, place, cwd=tree)
    (built,) = place.iterdir()
    return built


# --- what is in the sdist, and in the wheel built from it


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree without what builds leave in it."""
    place = tmp_path_factory.mktemp("tree") / "pygo"
    return shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(*NOT_SOURCES), symlinks=True)


@pytest.fixture(scope="module")
def unpacked(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    sources = sorted(path.relative_to(tree) for path in tree.rglob("*") if path.is_file())
    place = tmp_path_factory.mktemp("sdist")
    with tarfile.open(backend("build_sdist", tree, place / "dist")) as archive:
        archive.extractall(place, filter="data")
    unpacked = place / f"pygo-{pygo.__version__}"
    missing = [str(path) for path in sources if not (unpacked / path).exists()]
    assert not missing, f"not in the sdist: {missing}"
    return unpacked


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist."""
    return backend("build_wheel", unpacked, tmp_path_factory.mktemp("wheel") / "dist")


@needs_tree
def test_sdist_has_every_source_and_nothing_built(unpacked: Path) -> None:
    names = [path.name for path in unpacked.rglob("*")]
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]
    assert {"csrc", "tests", "pygo", "bench", "docs", ".ci"} <= set(names)


@needs_tree
def test_wheel_is_for_this_python_and_holds_the_package_only(wheel: Path, tree: Path) -> None:
    minor = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.startswith(f"pygo-{pygo.__version__}-{minor}-{minor}-linux_")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    typed = [*tree.glob("pygo/**/*.py"), *tree.glob("pygo/**/*.pyi"), tree / "pygo" / "py.typed"]
    assert packed == {str(path.relative_to(tree)) for path in typed} | {f"pygo/_core{SUFFIX}"}


@needs_tree
def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    always = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert {re.split(r"\W", line)[0] for line in always} == {"cffi"}
    assert metadata["Version"] == pygo.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"


@needs_tree
def test_wheel_from_the_sdist_works_when_unpacked_elsewhere(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "import pygo; print(pygo.__file__, pygo.spawn(lambda: 6 * 7).join())"
    out = succeed(sys.executable, "-c", program, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert out.split() == [str(tmp_path / "site" / "pygo" / "__init__.py"), "42"]


def test_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("pygo") == pygo.__version__


def test_changelog_has_an_entry_for_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", pygo.__version__)


# --- the shared object


def core() -> Path:
    return next(Path(path) for folder in pygo.__path__ for path in Path(folder).glob(f"_core{SUFFIX}"))


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_only_the_two_module_entries_are_exported() -> None:
    lines = succeed("nm", "-D", "--defined-only", core(), cwd=ROOT).splitlines()
    assert {line.split()[-1] for line in lines} - {"_init", "_fini"} == {"PyInit__core", "PyInit__native"}


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
def test_stacks_of_the_process_stay_non_executable() -> None:
    (line,) = (line for line in succeed("readelf", "-lW", core(), cwd=ROOT).splitlines() if "GNU_STACK" in line)
    assert "RWE" not in line


# --- the build itself, on a tree of a few lines

STUB = {
    "pygo/__init__.py": "__version__ = '1.2.3'\n",
    "csrc/base/base.h": "#pragma once\n#define ANSWER 40\nint pg_two(void);\n",
    "csrc/base/unused.c": '#include "base/base.h"\nint pg_two(void);\n',
    "csrc/machine/two.S": '#include "machine/number.h"\n#ifdef __x86_64__\n'
    ".text\n.globl pg_two\n.hidden pg_two\npg_two:\n  mov $TWO, %eax\n  ret\n"
    "#else\n.text\n.globl pg_two\n.hidden pg_two\npg_two:\n  mov w0, #TWO\n  ret\n#endif\n"
    '.section .note.GNU-stack,"",%progbits\n',
    "csrc/machine/number.h": "#define TWO 2\n",
    "csrc/python/cdef.h": "#pragma once\nint pg_answer(void);\n",
    "csrc/python/capi.h": '#pragma once\n#include "python/cdef.h"\n',
    "csrc/python/answer.c": '#include "base/base.h"\n#include "python/capi.h"\n'
    "int pg_answer(void) { return ANSWER + pg_two(); }\n",
}


class Stub:
    """A tree with the real build files and a tiny core."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("setup.py", "pyproject.toml", "csrc/python/build_core.py"):
            self.write(name, (ROOT / name).read_text())
        for name, text in STUB.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.place / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def try_build(self, **env: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "setup.py", "build_ext", "--build-lib=out", cwd=self.place, env=env)

    def build(self, **env: str) -> str:
        done = self.try_build(**env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def answer(self) -> int:
        program = "import sys; sys.path.insert(0, 'out/pygo'); import _core; print(_core.lib.pg_answer())"
        return int(succeed(sys.executable, "-c", program, cwd=self.place))


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path / "stub")


def test_second_build_compiles_nothing(stub: Stub) -> None:
    assert "answer.c" in stub.build()
    assert stub.answer() == 42
    assert "answer.c" not in stub.build()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("csrc/base/base.h", "ANSWER 40", "ANSWER 97"),
        ("csrc/python/answer.c", "ANSWER +", "57 + ANSWER +"),
        ("csrc/machine/two.S", "TWO,", "TWO + 57,"),
        ("csrc/machine/number.h", "TWO 2", "TWO 59"),
        ("csrc/python/cdef.h", "int pg_answer(void);", "int pg_answer(void);\nextern int pg_more;"),
    ],
    ids=["header", "source", "assembly", "header of assembly", "declaration"],
)
def test_second_build_picks_up_a_changed(stub: Stub, name: str, old: str, new: str) -> None:
    stub.build()
    stub.replace(name, old, new)
    if name.endswith("cdef.h"):
        stub.replace("csrc/python/answer.c", "ANSWER +", "57 + ANSWER +")
        stub.replace("csrc/python/answer.c", "int pg_answer", "int pg_more;\nint pg_answer")
    elif name.endswith(".S") and os.uname().machine != "x86_64":
        stub.replace(name, "#TWO", "#(TWO + 57)")
    stub.build()
    assert stub.answer() == 99


def test_second_build_picks_up_a_new_file(stub: Stub) -> None:
    stub.build()
    stub.write("csrc/base/three.c", "int pg_three(void);\nint pg_three(void) { return 3; }\n")
    stub.replace("csrc/base/base.h", "ANSWER 40", "ANSWER pg_three()\nint pg_three(void);")
    stub.build()
    assert stub.answer() == 5


def test_second_build_picks_up_other_flags(stub: Stub) -> None:
    stub.replace("csrc/base/base.h", "#define ANSWER 40", "#ifndef ANSWER\n#define ANSWER 40\n#endif")
    stub.build()
    stub.build(PYGO_CFLAGS="-DANSWER=97")
    assert stub.answer() == 99


def test_warnings_stop_the_build_where_asked(stub: Stub) -> None:
    stub.build(PYGO_WERROR="1")
    stub.write("csrc/base/unused.c", "static int unused(void) { return 1; }\n")
    assert "Wunused-function" in stub.build()
    failed = stub.try_build(PYGO_WERROR="1")
    assert failed.returncode != 0
    assert "Werror" in failed.stderr


# --- refusals


def test_free_threaded_build_is_refused_with_one_line(stub: Stub) -> None:
    program = "import runpy, sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; runpy.run_path('setup.py')"
    refused = run(sys.executable, "-c", program, cwd=stub.place)
    assert refused.returncode == 1
    assert re.fullmatch(r"pygo .*free-threaded.*\n", refused.stderr)


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a build with the GIL")
def test_import_is_refused_by_a_free_threaded_interpreter(tmp_path: Path) -> None:
    program = (
        "import sys, sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; sys.abiflags = 't'; import pygo"
    )
    refused = run(
        sys.executable, "-c", program, cwd=tmp_path, env={"PYTHONPATH": str(Path(pygo.__file__).parent.parent)}
    )
    assert refused.returncode != 0
    assert "free-threaded" in refused.stderr.splitlines()[-1]
