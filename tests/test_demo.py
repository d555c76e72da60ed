"""The main job: `python -m pygo demo`."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import HANG, Finished

import pygo
from pygo import _demo, _demo_threads
from pygo._demo_job import PIECE_BYTES, Crew, Piece, Result, Skip, TaskJob, ThreadJob, Tree, list_directory, read_pieces

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(Path(pygo.__file__).parent.parent))
QUICK = ("--tasks", "0", "--no-threads", "--readers", "8")

CREWS = [Crew(1, 1, 1), Crew(3, 2, 1), Crew()]


def start(*args: str | bytes | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pygo", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
        cwd="/",
        # A shell's background job, and so everything it starts, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def demo(*args: str | bytes | Path, **environment: str) -> Finished:
    with start("demo", *args, **environment) as process:
        try:
            out, err = process.communicate(timeout=4 * HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Finished(process.returncode, out, err)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with one of everything that a file system may hold."""
    root = tmp_path / "tree"
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "one.txt").write_text("Alpha beta\nalpha, beta; alpha_gamma 42\n")
    (root / "a" / "two.txt").write_text("größe ALPHA\n")
    (root / "a" / "b" / "nothing").write_bytes(b"")
    (root / "a" / "b" / "c" / "big").write_bytes(b"omega delta\n" * 50_000)
    (root / "a" / "latin").write_bytes(b"caf\xe9 alpha\n")
    (root / "picture").write_bytes(b"\x89PNG\0\0alpha")
    with open(os.fsencode(root) + b"/n\xe4me", "wb") as file:
        file.write(b"alpha")
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    (root / "again").symlink_to("one.txt")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.getcwd()
        os.chdir(root)  # the address of a socket is short
        listener.bind("socket")
        os.chdir(directory)
        yield root


EXPECTED = Result(
    files=6,
    size=40 + 13 + 0 + 600_000 + 11 + 5,
    words=Counter(alpha=6, beta=2, gamma=1, größe=1, omega=50_000, delta=50_000, caf=1),
    skipped=Counter({Skip.BINARY: 1, Skip.LINK: 3, Skip.SPECIAL: 2}),
)


@pytest.mark.parametrize("crew", CREWS, ids=lambda crew: f"{crew.walkers}-{crew.readers}-{crew.counters}")
def test_tasks_count_everything_once(tree: Path, crew: Crew, workers: int) -> None:
    job = TaskJob(Tree(str(tree)), crew)
    assert job.wait(HANG)
    assert job.result == EXPECTED


@pytest.mark.parametrize("crew", CREWS, ids=lambda crew: f"{crew.walkers}-{crew.readers}-{crew.counters}")
def test_threads_count_everything_once(tree: Path, crew: Crew) -> None:
    job = ThreadJob(Tree(str(tree)), crew)
    assert job.wait(HANG)
    assert job.result == EXPECTED


def test_left_out_directories_are_not_listed(tree: Path) -> None:
    job = TaskJob(Tree(str(tree), frozenset([str(tree / "a")])), Crew())
    assert job.wait(HANG)
    assert job.result.files == 2


def test_an_empty_directory_has_no_words(tmp_path: Path) -> None:
    finished = demo(tmp_path, "--tasks", "0").ok()
    assert "tasks    0 files" in finished.out
    assert "most frequent" not in finished.out


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * PIECE_BYTES,
        b"x" * (3 * PIECE_BYTES + 1),
        b"ab " * PIECE_BYTES,
        b" " + b"x" * (2 * PIECE_BYTES),
        b"\n" * (2 * PIECE_BYTES) + b"end",
        "größe ".encode() * (PIECE_BYTES // 3),
    ],
    ids=["empty", "one piece", "no space", "words", "one space", "newlines", "umlauts"],
)
def test_pieces_make_up_the_file_and_cut_no_word(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    pieces = [piece for piece in read_pieces(str(path)) if isinstance(piece, Piece)]
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.ends_file for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(piece.data) for piece in pieces) < 3 * PIECE_BYTES
    if b" " in data[1:]:
        assert all(piece.data.endswith(b" ") for piece in pieces[:-1])


def test_what_cannot_be_read_is_skipped_with_its_reason(tmp_path: Path) -> None:
    assert list(read_pieces(str(tmp_path / "gone"))) == [Skip.VANISHED]
    assert list(read_pieces(str(tmp_path))) == [Skip.UNREADABLE]
    assert list_directory(str(tmp_path / "gone")).skipped == [Skip.DIRECTORY]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_directories_without_permission_are_reported(tree: Path) -> None:
    (tree / "one.txt").chmod(0)
    (tree / "a" / "b").chmod(0)
    try:
        out = demo(tree, *QUICK).ok().out
    finally:
        (tree / "a" / "b").chmod(0o700)
    assert "files that could not be read (1)" in out
    assert "directories that could not be listed (1)" in out


def test_the_report_names_words_rates_and_what_was_not_counted(tree: Path) -> None:
    out = demo(tree, "--tasks", "1000", "--threads", "50", "--top", "3").ok().out
    assert re.search(r"^  tasks    6 files, 0\.6 MB, 100,011 words in .* files/s, .* MB/s$", out, re.M)
    assert re.search(r"^  threads  6 files, 0\.6 MB, 100,011 words in ", out, re.M)
    assert "the same counts" in out
    assert "most frequent words: delta 50,000, omega 50,000, alpha 6\n" in out
    assert "not counted: binary files (1), symbolic links (3), sockets, FIFOs and devices (2)\n" in out
    assert re.search(r"1,000 tasks waiting .*\n  create and wait .* per task\n  memory +[1-9][\d,]+ bytes", out)
    assert re.search(r"up to 50\n  create and wait .* per thread\n  memory +[1-9][\d,]+ bytes per thread", out)
    assert "\x1b" not in out


def test_words_that_the_output_cannot_encode_are_escaped(tree: Path) -> None:
    out = demo(tree, *QUICK, PYTHONIOENCODING="ascii").ok().out
    assert "gr\\xf6\\xdfe 1" in out


def test_a_directory_whose_name_is_not_utf8_works(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/d\xe4"
    os.mkdir(directory)
    with open(directory + b"/f\xe4", "wb") as file:
        file.write(b"word")
    assert "1 files" in demo(directory, *QUICK).ok().out


@pytest.mark.parametrize("name", ["/missing", "/one.txt", "/fifo", "/broken", "/one.txt/x", ""])
def test_what_is_no_readable_directory_is_refused_in_one_line(tree: Path, name: str) -> None:
    finished = demo(f"{tree}{name}" if name else "")
    assert finished.code == 2
    assert finished.out == ""
    assert re.fullmatch(rf"pygo demo: cannot read the directory '.*{name}': .+\n", finished.err)


@pytest.mark.parametrize(
    "options",
    [("--readers", "0"), ("--tasks", "-1"), ("--top", "x"), ("--nonsense",), ("a", "b")],
    ids=" ".join,
)
def test_wrong_options_are_refused(options: tuple[str, ...]) -> None:
    finished = demo(*options)
    assert finished.code == 2
    assert "usage: python -m pygo" in finished.err


def test_a_command_is_needed() -> None:
    with start() as process:
        _, err = process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert "usage: python -m pygo" in err


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A directory whose words take minutes to count: one file under many names."""
    first = tmp_path / "0"
    first.write_bytes(b"one two three four five\n" * 200_000)
    for name in range(1, 400):
        os.link(first, tmp_path / str(name))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["endless"], "Words below"),
        (["endless", "--no-threads"], "Words below"),
        (["quick", "--tasks", "300000"], "300,000 tasks waiting"),
        (["quick", "--tasks", "10"], "Threads waiting"),
    ],
    ids=["first look", "job", "parked tasks", "parked threads"],
)
def test_ctrl_c_ends_the_demo_with_one_line(endless: Path, tmp_path: Path, options: list[str], line: str) -> None:
    quick = tmp_path / "quick"
    quick.mkdir()
    directory = {"endless": endless, "quick": quick}[options[0]]
    with start("demo", directory, *options[1:]) as process:
        assert process.stdout is not None
        for got in process.stdout:
            if got.startswith(line):
                break
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert err == "pygo demo: interrupted\n"
    assert process.returncode == 130


def test_a_closed_pipe_ends_the_demo_quietly(tree: Path) -> None:
    with start("demo", tree, *QUICK) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def on_a_terminal(*args: str | Path, **environment: str) -> str:
    """The output of the demo when standard output is a terminal."""
    controller, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pygo", "demo", *args],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, "TERM": "xterm", **environment},
            cwd="/",
        )
        os.close(terminal)
        output = b""
        try:
            while chunk := os.read(controller, 65536):
                output += chunk
        except OSError:  # how Linux says that nobody has the terminal open any more
            pass
        assert process.wait(HANG) == 0, output
    finally:
        os.close(controller)
    return output.decode()


def test_a_terminal_gets_a_progress_bar(tree: Path) -> None:
    pytest.importorskip("rich")
    output = on_a_terminal(tree, "--tasks", "10", "--threads", "10")
    assert "\x1b[" in output
    assert "6 files, 0.6 MB" in output


def test_a_terminal_without_rich_gets_plain_lines(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not installed')\n")
    output = on_a_terminal(tree, *QUICK, PYTHONPATH=f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}")
    assert "\x1b" not in output
    assert "6 files, 0.6 MB" in output


def test_different_counts_are_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Forgetful(ThreadJob):
        def wait(self, timeout: float) -> bool:
            ended = super().wait(timeout)
            self.result.words["alpha"] = 5
            return ended

    monkeypatch.setattr(_demo, "ThreadJob", Forgetful)
    assert _demo.run_jobs(Tree(str(tree)), Crew(2, 2, 2), 3, compare=True) == 1
    assert "counted differently" in capsys.readouterr().err


def test_the_default_is_the_standard_library_without_installed_packages() -> None:
    tree = _demo.standard_library()
    assert os.path.samefile(tree.root, os.path.dirname(os.__file__))
    assert {os.path.basename(path) for path in tree.left_out} == {"site-packages", "dist-packages"}
    assert not tree.left_out & set(list_directory(tree.root, tree.left_out).directories)


def test_threads_that_the_system_refuses_are_reported_not_fatal() -> None:
    def limit_address_space() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))

    run = subprocess.run(
        [sys.executable, "-I", _demo_threads.__file__, "10000"],
        capture_output=True,
        text=True,
        timeout=HANG,
        preexec_fn=limit_address_space,
    )
    assert run.returncode == 0, run.stderr
    last = json.loads(run.stdout.splitlines()[-1])
    assert 0 < last["number"] < 10_000
    assert last["failure"]
