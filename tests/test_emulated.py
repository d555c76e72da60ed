"""What emulated.toml leaves out: the page has the same, and the emulator, without pygo, is like that."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

EMULATED = os.environ.get("PYGO_TEST_EMULATED", "0") not in ("", "0")  # as in helpers, which import pygo
HERE = Path(__file__).parent
LIST = tomllib.loads((HERE / "emulated.toml").read_text())


def test_the_page_has_the_list() -> None:
    page = (HERE.parent / "docs" / "testing.md").read_text()
    for part in LIST.values():
        names = ", ".join(f"`{name}`" for name in part["tests"])
        assert f"| {names} | {part['reason']} |\n" in page


def threads() -> None:
    with open("/proc/self/stat") as file:
        count = int(file.read().rpartition(")")[2].split()[17])
    assert count == 0, "the emulator tells the number of threads"
    assert len(os.listdir("/proc/self/task")) == 2, "the emulator has no thread of its own"


def memory() -> None:
    with open("/proc/self/smaps") as file:
        assert " rwxp " in file.read(), "nothing is translated"


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    mmap.mmap(-1, 1 << 28).close()  # refused where limits hold


def forks() -> None:
    def start_threads() -> None:
        while True:
            threading.Thread(target=int).start()
            time.sleep(0.0001)

    for _ in range(2):
        threading.Thread(target=start_threads, daemon=True).start()
    for _ in range(500):
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            os._exit(0)
        deadline = time.monotonic() + 10
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os._exit(0)
            time.sleep(0.002)
    raise AssertionError("no child hung")


def speed() -> None:
    start = time.process_time()
    for _ in range(5_000_000):
        pass
    taken = time.process_time() - start
    assert taken > 0.25, f"{taken} s: that is as fast as without an emulator"


PROOFS = {proof.__name__: proof for proof in (threads, memory, limits, forks, speed)}


def test_each_part_of_the_list_has_its_proof() -> None:
    assert sorted(LIST) == sorted(PROOFS)


if EMULATED:

    @pytest.mark.parametrize("part", LIST)
    def test_the_emulator_is_like_that(part: str) -> None:
        subprocess.run(
            [sys.executable, __file__, part], check=True, timeout=600, env={"PYTHONPATH": ":".join(sys.path)}
        )


if __name__ == "__main__":
    PROOFS[sys.argv[1]]()
