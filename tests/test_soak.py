"""A short soak, and that it finds what is planted. The long form: `python tests/soak.py --seconds 3600`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import LONG_TESTS
from soak import ACTIVITIES, draw, grows

import pygo

SECONDS = 300 if LONG_TESTS else 6
PROGRAM = str(Path(__file__).with_name("soak.py"))


def run_soak(*arguments: object, limit: float = SECONDS + 110) -> subprocess.CompletedProcess[str]:
    """With warnings off: a fork beside threads is part of it."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=limit,
        env=dict(os.environ, PYTHONPATH=str(Path(pygo.__file__).parent.parent)),
    )


@pytest.mark.timeout(SECONDS + 120)
def test_everything_at_once_keeps_its_invariants() -> None:
    """With another seed each time; what failed names it."""
    ended = run_soak("--seconds", SECONDS)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-20000:]}"
    assert "all well: " in ended.stdout


@pytest.mark.timeout(145)
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("dropped value", "channels: Failed('sent"),
        ("doubled value", "channels: Failed('sent"),
        ("lost wake-up", "FAILED with --seed 1: round "),
        ("leaked task", "left behind: {'live': 1"),
        ("leaked timer", "'timers': 1"),
        ("leaked memory", "resident bytes grow"),
        ("leaked file", "descriptors grow"),
    ],
)
def test_what_is_planted_is_found(fault: str, found: str) -> None:
    """By the same rounds on any machine, however long they take."""
    ended = run_soak("--seconds", 1000, "--rounds", 150, "--seed", 1, "--plant", fault, limit=140)
    assert ended.returncode == 1 and found in ended.stdout, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def test_a_round_is_drawn_from_its_seed_and_number_alone() -> None:
    assert draw(7, 3) == draw(7, 3)
    assert draw(7, 3) != draw(7, 4) and draw(7, 3) != draw(8, 3)
    assert {activity for number in range(100) for activity, _ in draw(1, number)} == set(ACTIVITIES)


def test_growth_is_told_from_warming_up_and_noise() -> None:
    chance = random.Random(1)
    noise = [1000 + chance.randrange(100) for _ in range(200)]
    assert not grows(noise, 100)
    assert not grows([value + max(0, 50 - at) * 100 for at, value in enumerate(noise)], 100)  # falls, once warm
    assert not grows([value + 5000 * (at > 60) for at, value in enumerate(noise)], 100)  # a pool grew, once
    assert not grows([round(5000 * (1 - 0.97**at)) for at in range(200)], 100)  # ever more seldom
    assert grows([value + 2 * at for at, value in enumerate(noise)], 100)
    assert grows([at // 3 for at in range(200)], 10)
