"""The edges of a process a few times each; `edge_runs.py` is the long form."""

from __future__ import annotations

import pytest
from edge_programs import EDGES, Edge, Ending
from edge_runs import run_once, runs_of
from helpers import LONG_TESTS

TIMES = 100 if LONG_TESTS else 1  # edges begin at different endings, so that once each shows all of them


@pytest.mark.timeout(1200 if LONG_TESTS else 120)
@pytest.mark.parametrize("name", list(EDGES))
def test_the_process_ends_as_it_should(name: str) -> None:
    edge = EDGES[name]
    for run, workers in runs_of(name, TIMES):
        problem = run_once(edge, run, workers)
        assert problem is None, f"ending {run % len(edge.endings)}, {workers} workers: {problem}"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("os.abort()", "exit code -6"),
        ("print('end')\nsys.exit(1)", "exit code 1"),
        ("print('end')\nprint('an error', file=sys.stderr)", "an error"),
        ("print('another end')", "another end"),
        (
            "print('end', flush=True)\nif os.fork() == 0: os.closerange(0, 3); time.sleep(60)\nos._exit(0)",
            "leaves processes behind",
        ),
        ("pygo.spawn(time.sleep, 60).join()", "hangs"),
    ],
)
def test_what_is_planted_is_found(statement: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if problem == "hangs":
        monkeypatch.setattr("edge_runs.HANG", 2.0)
    monkeypatch.setattr("edge_runs.LINGER", 0.5)
    found = run_once(Edge("", [Ending(statement)]), 0, "1")
    assert found is not None and problem in found, found
