"""`tests/sanitized.py`, as far as it can be seen without its tools: what it plants and names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sanitized

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
CSRC = ROOT / "csrc"

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources are not here")


@pytest.mark.parametrize("bugs", [sanitized.ASAN_BUGS, sanitized.VALGRIND_BUGS], ids=["asan", "valgrind"])
def test_every_planted_bug_has_its_place(bugs: tuple[sanitized.Bug, ...]) -> None:
    assert len(bugs) >= 3
    for bug in bugs:
        assert (CSRC / bug.source).read_text().count(bug.old) == 1, bug.name


def test_what_is_chosen_and_left_out_exists() -> None:
    for name in (*sanitized.SHORT, *sanitized.LEFT_OUT):
        assert (HERE / f"test_{name}.py").is_file(), name
    assert not set(sanitized.SHORT) & set(sanitized.LEFT_OUT)
    for name in sanitized.DESELECTED:
        file, _, test = name.partition("::")
        function = test.partition("[")[0].rpartition("::")[2]
        assert f"def {function}(" in (ROOT / file).read_text(), name


def test_the_program_for_valgrind_does_some_of_everything() -> None:
    command = [sys.executable, str(HERE / "echo_program.py"), "2", "3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    counts = {name: int(count) for name, count in re.findall(r"'(\w+)': (\d+)", result.stdout)}
    assert set(counts) == {"spawned", "selects", "locked", "cancelled", "timeouts", "slept", "echoes"}
    assert min(counts.values()) >= 4
    assert result.stdout.splitlines()[-1] == f"operations: {sum(counts.values())}"
