"""Fail points: none in ordinary builds; calls of pygo that are refused something. The core: `tests/test_c_core.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import c_compiler
from sanitized import Tool

import pygo._core
from pygo._extension import has_portable_switch

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
HEADER = CSRC / "base" / "failpoint.h"

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources are not here")


def points() -> list[str]:
    """All names, as the header has them."""
    return re.findall(r"\bPOINT\((\w+)\)", HEADER.read_text())


def uses() -> dict[str, int]:
    """How often each name stands in the core."""
    sources = [path.read_text() for path in CSRC.rglob("*.[ch]") if path.parent.name != "base"]
    names = [name for text in sources for name in re.findall(r"pg_(?:fails|fails_with|delay)\((\w+)\)", text)]
    return {name: names.count(name) for name in names}


def test_every_point_stands_somewhere_and_every_use_is_of_a_point() -> None:
    assert len(points()) > 30
    assert set(uses()) == set(points()) - {"memory"}


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documentation is not here")
def test_the_documentation_names_every_point() -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    section = text.partition("## Fail points")[2].partition("\n## ")[0]
    tables = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert sorted(re.findall(r"`(\w+)`", tables)) == sorted(points())


USE = """
#include "base/failpoint.h"
#ifdef PG_FAILPOINTS
#error "armed"
#endif
_Static_assert(pg_fails(memory) == 0 && pg_fails_with(memory) == 0, "constants");
#define TEXT_OF(...) #__VA_ARGS__
#define TEXT(...) TEXT_OF(__VA_ARGS__)
_Static_assert(sizeof TEXT(pg_delay(lain_down)) == sizeof "((void)0)", "empty");
int with(int value);
int with(int value) { pg_delay(lain_down); return pg_fails(memory) ? 0 : value; }
"""


def test_ordinary_builds_have_nothing_in_their_place(tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text(USE)
    command = [*c_compiler(), "-std=gnu11", "-O0", f"-I{CSRC}", "-c", str(source), "-o", str(tmp_path / "use.o")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert b"failpoint" not in (tmp_path / "use.o").read_bytes()
    assert b"pygo_failpoints_arm" not in Path(pygo._core.__file__).read_bytes()


# Of these the C program asserts that they are reached; from Python that is up to chance.
REACHED_IN_C = {"handed_off", "slots_copied", "taken_to_spilled"}
# And this one before the program can arm anything: it has a test of its own.
AT_IMPORT = {"swap_probe"}


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs the program on a build that has fail points."""
    tool = Tool(tmp_path_factory.mktemp("failpoints"), "-O1 -w -DPG_FAILPOINTS")
    tree = tool.build("tree")
    env = tool.environment(tree)
    command = [sys.executable, "-X", "faulthandler", str(tree / "tests" / "failpoint_program.py")]

    def run(what: str, at_import: str = "") -> str:
        armed = {**env, "PYGO_FAILPOINTS": at_import}
        result = subprocess.run(
            [*command, what], env=armed, cwd=tree, capture_output=True, text=True, timeout=100, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def reached(output: str) -> set[str]:
    line = output.splitlines()[-1]
    assert line.startswith("reached: ")
    return set(line.split()[1:])


def test_what_is_refused_says_so_and_leaves_nothing_behind(armed: Callable[..., str]) -> None:
    """Every allocation of every call of the program, once and fifty in a row."""
    output = armed("refusals")
    assert "deadlock found" in output
    counts = [tuple(map(int, pair)) for pair in re.findall(r"^\w+: (\d+) refused, (\d+) raised$", output, re.MULTILINE)]
    assert len(counts) == 20
    assert sum(refused for refused, _ in counts) > 100
    assert sum(raised for _, raised in counts) > 100
    fails = set(points()[: points().index("linked_to_park")])
    assert not fails - reached(output) - AT_IMPORT


def test_delays_lose_nothing(armed: Callable[..., str]) -> None:
    output = armed("delays")
    assert output.count(": 600 values") == 2
    assert not set(points()) - reached(output) - REACHED_IN_C - AT_IMPORT


def test_planted_bugs_are_noticed(armed: Callable[..., str]) -> None:
    assert "found: 3 of 3" in armed("planted")


@pytest.mark.skipif(
    sys.version_info < (3, 12) or has_portable_switch(),
    reason="here PyThreadState_Swap keeps the GIL, or is all there is",
)
def test_an_interpreter_that_is_busy_at_import_gets_the_quick_switch_all_the_same(armed: Callable[..., str]) -> None:
    assert "keeps the GIL: True, after 3 of 4" in armed("import", "swap_probe=times:3")
    assert "keeps the GIL: False, after 100 of 100" in armed("import", "swap_probe")
