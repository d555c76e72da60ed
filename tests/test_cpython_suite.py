"""Modules of CPython's own tests in a task, as cpython_suite.py runs them; and that it finds what is planted."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import cpython_suite as suite
import pytest
from cpython_suite import Excepted, Verdict, check_module
from helpers import LONG_TESTS

# In the usual run each Python takes other modules, of those that are quick and say much.
SHORT = {
    (3, 11): "test_generators test_context test_fork1 test_sqlite3 test_decimal test_select",
    (3, 12): "test_sys_settrace test_gc test_contextlib test_zlib test_float test_set",
    (3, 13): "test_coroutines test_monitoring test_ctypes test_functools test_re",
    (3, 14): "test_traceback test_sys_setprofile test_struct test_tempfile test_asyncio.test_queues",
    (3, 15): "test_sys test_thread test_list test_threading_local test_hashlib test_asyncio.test_locks",
}
CHOSEN = suite.MODULES if LONG_TESTS else SHORT.get(sys.version_info[:2], SHORT[3, 11]).split()
WORKERS = [1, 4] if LONG_TESTS else [4]


def problems_of(verdict: Verdict) -> list[str]:
    return [problem.partition("\n")[0] for problem in verdict.problems]


@pytest.mark.timeout(0)  # each process has a limit of its own
@pytest.mark.parametrize("module", CHOSEN)
def test_a_module_does_in_a_task_what_it_does_in_the_main_thread(module: str) -> None:
    pytest.importorskip("test.support", reason="this interpreter ships no `test` package")
    exceptions = suite.load_exceptions(suite.EXCEPTIONS)
    limit = suite.LIMIT if LONG_TESTS else 100.0
    verdict = check_module(module, exceptions, workers=WORKERS, limit=limit, always_compare=LONG_TESTS)
    if verdict.absent:
        pytest.skip(f"there is no {module} in this Python")
    assert not verdict.problems, suite.shown(verdict, details=True)
    assert all(run.count(suite.PASSED) for run in verdict.runs.values()), verdict.line()


# ---- the detectors, each with what it must catch

PLANTED = """
    import os, sys, threading, time, unittest

    def in_main_thread():
        return threading.current_thread() is threading.main_thread()

    class Cases(unittest.TestCase):
        def test_passes(self):
            self.assertEqual(1, 1)

        def test_fails_in_the_task(self):
            self.assertEqual(in_main_thread(), True)

        def test_fails_in_a_part_in_the_task(self):
            for number in range(3):
                with self.subTest(number=number):
                    self.assertTrue(number != 1 or in_main_thread())

        def test_fails_everywhere(self):
            self.fail()

        def test_is_skipped_in_the_task(self):
            if not in_main_thread():
                self.skipTest("not here")

        def test_is_listed(self):
            self.assertEqual(in_main_thread(), True)

        test_is_listed_but_fails_otherwise = test_is_listed

        def test_is_listed_but_passes(self):
            pass

        def test_is_left_out(self):
            os.abort()

    class Class(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            assert in_main_thread()

        def test_of_the_class(self):
            pass
"""
EXCEPTIONS = [
    Excepted("planted_cases", ["Cases.test_is_listed"], "planted", says="False != True"),
    Excepted("planted_cases", ["Cases.test_is_listed_but*"], "planted", says="the moon"),
    Excepted("planted_cases", ["Cases.test_nowhere"], "planted"),
    Excepted("planted_cases", ["Cases.test_is_left*"], "planted", kind=suite.LEFT_OUT),
    Excepted("another_module", ["*"], "planted"),
    Excepted("planted_cases", ["*"], "planted", versions=["3.99"]),
]


def run_planted(directory: Path, source: str, exceptions: list[Excepted], limit: float = 100.0) -> Verdict:
    """Check a module that consists of `source`."""
    (directory / "planted_cases.py").write_text(textwrap.dedent(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(directory))
        patch.syspath_prepend(str(directory))
        return check_module("planted_cases", exceptions, workers=[2], limit=limit)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return run_planted(tmp_path_factory.mktemp("planted"), PLANTED, EXCEPTIONS)


def test_nothing_but_what_is_planted_is_found(planted: Verdict) -> None:
    assert sorted(problems_of(planted)) == [
        "task, 2 workers: Cases.test_fails_in_a_part_in_the_task: failed",
        "task, 2 workers: Cases.test_fails_in_the_task: failed",
        "task, 2 workers: Cases.test_is_listed_but_fails_otherwise: failed, but not as listed (planted)",
        "task, 2 workers: Cases.test_is_listed_but_passes: passed, but is listed as an exception (planted)",
        "task, 2 workers: Cases.test_is_skipped_in_the_task: skipped, but passed in the main thread",
        "task, 2 workers: Cases.test_nowhere: is listed as an exception, but there is no such test",
        "task, 2 workers: Class.test_of_the_class: not run, but passed in the main thread",
        "task, 2 workers: setUpClass (Class): failed",
    ]


def test_what_is_planted_is_counted(planted: Verdict) -> None:
    assert planted.excepted == {
        "Cases.test_is_left_out",
        "Cases.test_is_listed",
        "Cases.test_is_listed_but_fails_otherwise",
    }
    assert planted.cell() == "8 / 2 / 3"


def test_a_crash_is_found_with_the_test_it_was_in(tmp_path: Path) -> None:
    source = """
        import os, sys, unittest

        class Cases(unittest.TestCase):
            def test_one(self):
                if "pygo" in sys.modules: os.abort()
    """
    verdict = run_planted(tmp_path, source, [])
    assert problems_of(verdict)[0] == "task, 2 workers: killed by SIGABRT, Cases.test_one"
    assert "in test_one" in verdict.problems[0]  # faulthandler's stack


def test_a_hang_is_found_with_the_test_it_was_in(tmp_path: Path) -> None:
    source = """
        import sys, time, unittest

        class Cases(unittest.TestCase):
            def test_one(self):
                if "pygo" in sys.modules: time.sleep(1000)
    """
    verdict = run_planted(tmp_path, source, [], limit=5.0)
    assert problems_of(verdict)[0] == "task, 2 workers: it hung for 5 s, Cases.test_one"
    assert "in test_one" in verdict.problems[0]


def test_a_task_that_never_moves_is_found(tmp_path: Path) -> None:
    source = """
        import sys, unittest

        def setUpModule():
            if "pygo" in sys.modules: sys.modules["pygo"].lock_thread().__enter__()

        class Cases(unittest.TestCase):
            def test(self): pass

        for number in range(30):
            setattr(Cases, f"test_{number}", Cases.test)
    """
    verdict = run_planted(tmp_path, source, [])
    assert problems_of(verdict) == ["task, 2 workers: the task never moved to another OS thread"]


def test_the_crowd_does_not_meet_what_a_test_replaces(tmp_path: Path) -> None:
    source = """
        import os, sys, threading, time, unittest
        from unittest import mock

        class Cases(unittest.TestCase):
            def test(self):
                sleep, end = time.sleep, time.monotonic() + 0.5
                with mock.patch.multiple(os, read=None, write=None, getpid=None):
                    with mock.patch.object(time, "sleep", None), mock.patch.object(threading, "get_native_id", None):
                        while time.monotonic() < end:
                            self.assertTrue(True)
                            sleep(0.005)
    """
    assert problems_of(run_planted(tmp_path, source, [])) == []


def test_a_crowd_that_stands_still_is_found() -> None:
    verdict = Verdict("m")
    run = suite.Run(moves=1, seconds=10.0, crowd={"yields": 5, "sleeps": 0})
    suite.judge_crowd(verdict, "task", run)
    assert problems_of(verdict) == ["task: the crowd stood still: sleeps"]


# ---- the list and the page


def test_every_exception_has_a_kind_a_reason_and_a_module_that_is_run() -> None:
    for entry in suite.load_exceptions(suite.EXCEPTIONS):
        assert entry.kind in (suite.FAILS, suite.LEFT_OUT, suite.ONE_THREAD)
        assert entry.reason and entry.tests
        assert any(entry.module == module for module in suite.MODULES) or entry.module == "test_asyncio.*"


def test_the_page_shows_the_list_as_it_is() -> None:
    page = Path(__file__).parent.parent / "docs" / "cpython-suite.md"
    shown = page.read_text().partition(suite.LEFT_BEGIN)[2].partition(suite.LEFT_END)[0]
    assert shown.strip() == suite.written_exceptions(suite.load_exceptions(suite.EXCEPTIONS))


def test_a_column_of_the_table_replaces_that_of_its_version(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    old = suite.written_table({"3.99.1": {"test_list": "1 / 1 / 0"}, f"{suite.MINOR}.0": {"test_list": "2 / 2 / 0"}})
    page.write_text(f"a\n{suite.BEGIN}\n{old}\n{suite.END}\nb\n{suite.LEFT_BEGIN}\n{suite.LEFT_END}\nc\n")
    suite.update_page(page, [Verdict("test_list", absent=True)], [1, 4], [])
    columns = suite.read_table(page.read_text())
    assert len(columns) == 2
    assert columns["3.99.1"]["test_list"] == "1 / 1 / 0"
    (cells,) = (cells for python, cells in columns.items() if python.startswith(f"{suite.MINOR}."))
    assert (cells["test_list"], cells["workers"], cells["test_set"]) == ("-", "1, 4", "")
    assert page.read_text().startswith("a\n") and page.read_text().endswith("c\n")
