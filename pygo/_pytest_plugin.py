"""The pytest plugin, an entry point of the distribution: see `pygo.testing`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pygo")
    group.addoption(
        "--pygo-seed",
        type=int,
        default=None,
        metavar="N",
        help="the seed of the fixture pygo_seed, to repeat a run (default: another one each time)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pygo_bubble: run the test in a bubble, with virtual time (pygo.testing.bubble)")


@pytest.hookimpl(hookwrapper=True)  # which older releases of pytest know, too
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run a test that is marked with `pygo_bubble` in one. Its fixtures are set up outside."""
    function = pyfuncitem.obj
    if pyfuncitem.get_closest_marker("pygo_bubble") is not None:
        from pygo import testing

        pyfuncitem.obj = testing.bubbled(function)
    yield  # an outcome, and so never an exception here
    pyfuncitem.obj = function


@pytest.fixture
def pygo_leak_check() -> Iterator[None]:
    """Fail the test if tasks that it has spawned do not end."""
    from pygo import testing

    with testing.leak_check():
        yield


@pytest.fixture
def pygo_seed(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with a seeded scheduler and one worker; the value is the seed, which a failure's report shows."""
    import random

    from pygo import testing

    seed = request.config.getoption("--pygo-seed")
    if seed is None:
        seed = random.randrange(2**32)
    request.node.add_report_section("setup", "pygo", f"scheduled with --pygo-seed={seed}")
    with testing.seeded(seed):
        yield seed
