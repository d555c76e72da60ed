"""The floors of the C core and the imports of the Python layer go one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pygo

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = Path(pygo.__file__).parent
FLOORS = ["base", "os", "machine", "objects", "sources", "sched", "sync", "python"]
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources are not here")


def c_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in (".c", ".h", ".S"))


def floor_of(path: Path) -> str:
    return path.relative_to(CSRC).parts[0]


def resolve(including: Path, name: str) -> Path | None:
    """The file of ours that ``#include "name"`` means, or ``None`` for one from elsewhere."""
    for base in (including.parent, CSRC, CSRC.parent):
        candidate = (base / name).resolve()
        if candidate.is_file() and candidate.is_relative_to(CSRC):
            return candidate
    matches = [path for path in c_files() if path.name == Path(name).name]
    assert len(matches) <= 1, f"{including}: {name} could be any of {matches}"
    return matches[0] if matches else None


def includes(path: Path) -> list[tuple[str, bool]]:
    """The names a file includes, and whether in quotes."""
    return [(quoted or angled, bool(quoted)) for quoted, angled in INCLUDE.findall(path.read_text())]


def test_every_c_file_stands_on_a_known_floor() -> None:
    assert c_files()
    assert {floor_of(path) for path in c_files()} <= set(FLOORS)


def test_a_file_includes_only_files_of_its_own_and_lower_floors() -> None:
    wrong, seen = [], 0
    for path in c_files():
        for name, quoted in includes(path):
            target = resolve(path, name) if quoted else None
            if target is None:
                continue
            seen += 1
            if FLOORS.index(floor_of(target)) > FLOORS.index(floor_of(path)):
                wrong.append(f"{path.relative_to(CSRC)} includes {target.relative_to(CSRC)}")
    assert seen > 10
    assert not wrong


def test_headers_include_each_other_in_no_cycle() -> None:
    graph = {
        path: {target for name, quoted in includes(path) if quoted and (target := resolve(path, name))}
        for path in c_files()
    }
    assert_no_cycle({str(path.relative_to(CSRC)): {str(t.relative_to(CSRC)) for t in ts} for path, ts in graph.items()})


def test_no_source_file_is_included() -> None:
    wrong = [f"{path.name}: {name}" for path in c_files() for name, _ in includes(path) if name.endswith(".c")]
    assert not wrong


def test_only_the_top_floor_knows_python() -> None:
    users = {floor_of(path) for path in c_files() for name, _ in includes(path) if name.split("/")[-1] == "Python.h"}
    assert users == {"python"}
    internals = {
        floor_of(path)
        for path in c_files()
        for name, _ in includes(path)
        if name.startswith(("internal/", "cpython/")) or name in ("frameobject.h", "structmember.h", "pythread.h")
    }
    assert internals <= {"python"}
    names = re.compile(r"\bPy(?:Object|ThreadState|_INCREF|_DECREF|GILState_\w+|Err_\w+)\b")
    wrong = [
        str(path.relative_to(CSRC))
        for path in c_files()
        if floor_of(path) != "python" and names.search(without_comments(path.read_text()))
    ]
    assert not wrong


def without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)


def assert_no_cycle(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()
    path: list[str] = []

    def visit(node: str) -> None:
        if node in path:
            raise AssertionError("a cycle: " + " -> ".join([*path[path.index(node) :], node]))
        if node in done:
            return
        path.append(node)
        for target in graph.get(node, ()):
            visit(target)
        done.add(path.pop())

    for node in graph:
        visit(node)


def is_extension(name: str) -> bool:
    """A compiled module: nothing in the sources but its stub, if any, and a private name."""
    return name.startswith("_")


def module_imports(path: Path) -> set[str]:
    """The modules of the package imported at the top level of a file, type checking aside."""
    package = PACKAGE
    own = path.relative_to(package).with_suffix("").parts
    found: set[str] = set()

    def add(module: str) -> None:
        parts = module.split(".")
        while parts:
            if (package.joinpath(*parts).with_suffix(".py")).is_file() or package.joinpath(
                *parts, "__init__.py"
            ).is_file():
                found.add(".".join(parts))
                return
            parts.pop()

    def visit(statements: list[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    if alias.name == "pygo":
                        found.add("__init__")
                    elif alias.name.startswith("pygo."):
                        add(alias.name.removeprefix("pygo."))
            elif isinstance(statement, ast.ImportFrom):
                if statement.level:
                    base = list(own[: len(own) - statement.level])
                elif (statement.module or "").split(".")[0] == "pygo":
                    base = []
                else:
                    continue
                module = (
                    (statement.module or "").removeprefix("pygo").lstrip(".")
                    if not statement.level
                    else statement.module
                )
                prefix = [*base, *(module.split(".") if module else [])]
                for alias in statement.names:
                    before = len(found)
                    add(".".join([*prefix, alias.name]))
                    if len(found) == before and not prefix and not is_extension(alias.name):
                        found.add("__init__")
            elif isinstance(statement, ast.If):
                if "TYPE_CHECKING" not in ast.dump(statement.test):
                    visit(statement.body)
                visit(statement.orelse)
            elif isinstance(statement, ast.Try):
                visit(statement.body)
                for handler in statement.handlers:
                    visit(handler.body)

    visit(ast.parse(path.read_text()).body)
    return found


def test_modules_of_the_package_import_each_other_one_way() -> None:
    package = PACKAGE
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        graph[name] = module_imports(path) - {name} | ({"__init__"} & module_imports(path))
    assert "__init__" in graph
    assert_no_cycle(graph)


def test_at_most_one_module_of_the_package_sees_ffi() -> None:
    package = PACKAGE
    users = []
    for path in package.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if {"ffi", "lib"} & names:
            users.append(path.name)
    assert len(users) <= 1, users


def test_the_detector_finds_a_planted_cycle() -> None:
    with pytest.raises(AssertionError, match="a -> b -> c -> a"):
        assert_no_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert_no_cycle({"a": {"b", "c"}, "b": {"c"}})
