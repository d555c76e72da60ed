"""README.md and docs/: every example runs and shows what it says, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import HANG, run_program

import pygo

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_EXAMPLES = (
    "cancellation caveats channels context debugging from-go from-others runtime select sync tasks testing timers"
    " tutorial waiting"
).split()

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_show_what_happens(page: Path, tmp_path: Path) -> None:
    examples = page.read_text().count("\n>>> ")
    assert examples >= 3 or page.stem not in WITH_EXAMPLES
    run = subprocess.run(
        [sys.executable, "-m", "doctest", "-v", str(page)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(pygo.__file__).parent.parent)},
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr
    assert f"{examples} passed" in run.stdout
    assert run.stderr == ""


def test_all_pages_with_examples_exist() -> None:
    assert set(WITH_EXAMPLES) <= {page.stem for page in PAGES}


def test_the_program_in_the_readme_prints_what_it_says() -> None:
    blocks = FENCE.findall(README.read_text())
    ((_, program), (kind, output)) = blocks[:2]
    assert kind == "text"
    assert len([line for line in program.splitlines() if line.strip()]) <= 26
    finished = run_program(program).ok()
    assert finished.out == output
    assert finished.err == ""


def test_the_readme_has_exactly_two_commands() -> None:
    commands = re.findall(r"^<!-- command: (\w+) -->\n```sh\n(.*)\n```$", README.read_text(), re.M)
    assert [name for name, _ in commands] == ["demo", "test"]
    assert len(re.findall(r"^```(?:sh|bash|console)$", README.read_text(), re.M)) == 2


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_tests_named_for_ported_behaviours_exist() -> None:
    """Every row names at least one, or says that it is left out and why."""
    defined = {path: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    text = (ROOT / "docs" / "testing.md").read_text().partition("## Ported behaviours")[2]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", text, re.M)
    assert len(rows) > 50
    for subject, ours in rows:
        if subject.startswith("---") or ours == "test":
            continue
        names = re.findall(r"`(?:(Test\w+)(?:\.[a-z_]+)?|([a-z]+(?:_[a-z]+){2,}))`", ours)
        cases = re.findall(r'"([^"]+)"', ours) if not names else []
        assert names or cases or ours.startswith("left out"), subject
        for case in cases:
            assert any(f'"{case}"' in source for source in defined.values()), case
        for group, name in names:
            wanted = f"class {group}" if group else f"def test_{name}("
            assert any(wanted in source for source in defined.values()), wanted


def test_what_notices_bugs_that_were_found_exists() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", (ROOT / "docs" / "found.md").read_text(), re.M)
    sources = [path for path in (ROOT / "tests").rglob("*") if path.suffix in (".py", ".c")]
    everything = "\n".join(path.read_text() for path in sources)
    assert len(rows) > 30
    for _, _, detector in rows:
        names = re.findall(r"`([^`]+)`", detector)
        assert names or set(detector) == {"-"} or detector == "noticed now by", detector
        for name in names:
            module, separator, function = name.partition("::")
            if name.startswith("tests/"):
                assert (ROOT / name).exists(), name
            elif separator:
                assert f"def {function}(" in (ROOT / "tests" / f"{module}.py").read_text(), name
            else:
                assert re.search(rf"\b{re.escape(name)}\b", everything), name
