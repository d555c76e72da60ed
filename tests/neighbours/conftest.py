"""A neighbour that cannot be had is a failure here, not a skip, but for those that PYGO_WITHOUT_... names."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

ALLOWED = [name for name in os.environ if name.startswith("PYGO_WITHOUT_") and os.environ[name]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not any(name in str(report.longrepr) for name in ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is not allowed here: {report.longrepr}"
    return report
