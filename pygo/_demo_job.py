"""The job of the demo: count the words in all files below a directory, once with tasks, once with threads.

Both versions are the same pipeline with the same numbers of walkers, readers and counters, and share every function
that touches a file or a word, so that they differ only in how the parts talk to each other:

    director --dirs--> walkers --paths--> readers --pieces--> counters --counted, tallies--> collector
        ^                 |  \\---------------+----------------skipped------------------------^
        +------found------+

Files travel in pieces, so memory is bounded by the readers and the channels, not by the largest file.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pygo import Channel, Task, WaitGroup, recv, select, send, spawn

WORD = re.compile(r"[^\W\d_]+")
PIECE_BYTES = 64 * 1024  # some milliseconds of counting
BUFFERED = 256  # entries in each channel and queue
REFRESH = 0.1  # seconds between two looks at the progress


class Skip(StrEnum):
    """Why something below the directory was not counted."""

    DIRECTORY = "directories that could not be listed"
    UNREADABLE = "files that could not be read"
    VANISHED = "files that vanished"
    BINARY = "binary files"
    LINK = "symbolic links"
    SPECIAL = "sockets, FIFOs and devices"


class Piece(NamedTuple):
    """A part of a file, cut between words."""

    data: bytes
    ends_file: bool


class Counted(NamedTuple):
    """What a counter did since its last word."""

    files: int
    size: int


class Listing(NamedTuple):
    """What stands in one directory."""

    directories: list[str]
    files: list[str]
    skipped: list[Skip]


@dataclass
class Result:
    """What the collector has gathered; it grows while the job runs."""

    files: int = 0
    size: int = 0
    words: Counter[str] = field(default_factory=Counter)
    skipped: Counter[Skip] = field(default_factory=Counter)

    def add(self, counted: Counted) -> None:
        self.files += counted.files
        self.size += counted.size


class Tree(NamedTuple):
    """What the job works on: everything below ``root`` but the directories ``left_out``."""

    root: str
    left_out: frozenset[str] = frozenset()


class Crew(NamedTuple):
    """How many of each work on the job."""

    walkers: int = 16
    readers: int = 256
    counters: int = 8


def list_directory(path: str, left_out: frozenset[str] = frozenset()) -> Listing:
    """List one directory. Links are not followed: nothing is counted twice, and no loop is possible."""
    listing = Listing([], [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    listing.skipped.append(Skip.LINK)
                elif entry.is_dir(follow_symlinks=False):
                    if entry.path not in left_out:
                        listing.directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    listing.files.append(entry.path)
                else:
                    listing.skipped.append(Skip.SPECIAL)
    except OSError:
        listing.skipped.append(Skip.DIRECTORY)
    return listing


def read_pieces(path: str) -> Iterator[Piece | Skip]:
    """Read one file piece by piece with plain blocking calls; what comes last is its end, or why there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(PIECE_BYTES)
            if b"\0" in data:
                yield Skip.BINARY
                return
            while len(data) >= PIECE_BYTES:
                cut = max(data.rfind(b" "), data.rfind(b"\n")) + 1 or len(data)
                yield Piece(data[:cut], ends_file=False)
                data = data[cut:] + file.read(PIECE_BYTES)
            yield Piece(data, ends_file=True)
    except FileNotFoundError:
        yield Skip.VANISHED
    except OSError:
        yield Skip.UNREADABLE


def count_words(piece: Piece, tally: Counter[str]) -> Counted:
    """Add the words of one piece to ``tally``."""
    tally.update(WORD.findall(piece.data.decode("utf-8", "replace").lower()))
    return Counted(int(piece.ends_file), len(piece.data))


class TaskJob:
    """The job with tasks and channels."""

    def __init__(self, tree: Tree, crew: Crew) -> None:
        self.result = Result()
        self._tree = tree
        self._crew = crew
        self._dirs: Channel[str] = Channel()
        self._found: Channel[list[str]] = Channel()
        self._paths: Channel[str] = Channel(BUFFERED)
        self._pieces: Channel[Piece] = Channel(BUFFERED)
        self._counted: Channel[Counted] = Channel(BUFFERED)
        self._tallies: Channel[Counter[str]] = Channel()
        self._skipped: Channel[Skip] = Channel(BUFFERED)
        self._director = spawn(self._direct)
        self._collector: Task[None] = spawn(self._collect)

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of the job; return whether it has ended."""
        try:
            self._collector.join(timeout)
        except TimeoutError:
            return False
        self._director.join()
        return True

    def _direct(self) -> None:
        """Start everybody, hand out the directories, and close each channel when its last sender is done."""
        walkers, readers, counters = WaitGroup(), WaitGroup(), WaitGroup()
        for group, number, work in (
            (walkers, self._crew.walkers, self._walk),
            (readers, self._crew.readers, self._read),
            (counters, self._crew.counters, self._count),
        ):
            for _ in range(number):
                group.go(work)
        todo, in_hand = [self._tree.root], 0
        while todo or in_hand:
            hand_out = send(self._dirs, todo[-1]) if todo else send(None, "")
            index, found, _ = select(hand_out, recv(self._found))
            if index == 0:
                todo.pop()
                in_hand += 1
            else:
                todo += found or []
                in_hand -= 1
        self._dirs.close()
        walkers.wait()
        self._paths.close()
        readers.wait()
        self._skipped.close()
        self._pieces.close()
        counters.wait()
        self._counted.close()
        self._tallies.close()

    def _walk(self) -> None:
        for directory in self._dirs:
            listing = list_directory(directory, self._tree.left_out)
            self._found.send(listing.directories)
            for skip in listing.skipped:
                self._skipped.send(skip)
            for path in listing.files:
                self._paths.send(path)

    def _read(self) -> None:
        for path in self._paths:
            for piece in read_pieces(path):
                if isinstance(piece, Skip):
                    self._skipped.send(piece)
                else:
                    self._pieces.send(piece)

    def _count(self) -> None:
        tally: Counter[str] = Counter()
        for piece in self._pieces:
            self._counted.send(count_words(piece, tally))
        self._tallies.send(tally)

    def _collect(self) -> None:
        result = self.result
        # A channel that has been closed becomes None here, so that its case is never ready again.
        sources: list[Channel[Any] | None] = [self._counted, self._tallies, self._skipped]
        while any(sources):
            index, value, ok = select(*map(recv, sources))
            if not ok:
                sources[index] = None
            elif index == 0:
                result.add(value)
            elif index == 1:
                result.words.update(value)
            else:
                result.skipped[value] += 1


class ThreadJob:
    """The job with ``threading`` and ``queue``; None in a queue says that nothing more comes, once per receiver."""

    def __init__(self, tree: Tree, crew: Crew) -> None:
        self.result = Result()
        self._tree = tree
        self._crew = crew
        self._dirs: queue.Queue[str | None] = queue.Queue()
        self._paths: queue.Queue[str | None] = queue.Queue(BUFFERED)
        self._pieces: queue.Queue[Piece | None] = queue.Queue(BUFFERED)
        # Queues have no select: everything that the collector takes goes through one.
        self._collected: queue.Queue[Counted | Counter[str] | Skip | None] = queue.Queue(BUFFERED)
        threading.Thread(target=self._direct, daemon=True).start()
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of the job; return whether it has ended."""
        self._collector.join(timeout)
        return not self._collector.is_alive()

    def _direct(self) -> None:
        """Start everybody, and tell each group to end when those before it in the pipeline are done."""
        walkers, readers, counters = (
            [threading.Thread(target=work, daemon=True) for _ in range(number)]
            for number, work in (
                (self._crew.walkers, self._walk),
                (self._crew.readers, self._read),
                (self._crew.counters, self._count),
            )
        )
        for thread in (*walkers, *readers, *counters):
            thread.start()
        self._dirs.put(self._tree.root)
        self._dirs.join()
        for group, source in ((walkers, self._dirs), (readers, self._paths), (counters, self._pieces)):
            for _ in group:
                source.put(None)
            for thread in group:
                thread.join()
        self._collected.put(None)

    def _walk(self) -> None:
        while (directory := self._dirs.get()) is not None:
            listing = list_directory(directory, self._tree.left_out)
            for found in listing.directories:
                self._dirs.put(found)
            for skip in listing.skipped:
                self._collected.put(skip)
            for path in listing.files:
                self._paths.put(path)
            self._dirs.task_done()

    def _read(self) -> None:
        while (path := self._paths.get()) is not None:
            for piece in read_pieces(path):
                if isinstance(piece, Skip):
                    self._collected.put(piece)
                else:
                    self._pieces.put(piece)

    def _count(self) -> None:
        tally: Counter[str] = Counter()
        while (piece := self._pieces.get()) is not None:
            self._collected.put(count_words(piece, tally))
        self._collected.put(tally)

    def _collect(self) -> None:
        result = self.result
        while (value := self._collected.get()) is not None:
            if isinstance(value, Counted):
                result.add(value)
            elif isinstance(value, Counter):
                result.words.update(value)
            else:
                result.skipped[value] += 1
