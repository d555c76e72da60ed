"""One table of figures and ratios, for the terminal, as Markdown, as a plot and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.model import SYSTEMS, Figure, Workload
from bench.runs import Outcome, Results

RATIO_NOTE = "In brackets: how many times better pygo is, below 1 how much worse."


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names) or os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"


def environment(systems: Sequence[str], rounds: int, quick: bool) -> dict[str, str]:
    """What the figures were measured on and with."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    build = [word for word in ("--enable-shared", "--enable-optimizations", "--with-lto") if word in options]
    versions = []
    for name in systems:
        if package := SYSTEMS[name].package:
            try:
                versions.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                versions.append(f"{package} (version unknown)")
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{cpu_name()}, {len(os.sched_getaffinity(0))} usable, load {os.getloadavg()[0]:.1f} before",
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"CPython {platform.python_version()} ({' '.join(build) or 'plain build'})",
        "Packages": ", ".join(versions),
        "Method": f"interleaved, a fresh process each, medians of {rounds}" + (", quick sizes" if quick else ""),
    }


@dataclass(frozen=True)
class Row:
    """One figure of every system, with the notes that its cells refer to."""

    title: str
    cells: list[str]


@dataclass
class Table:
    """The comparison as text: what the terminal and the Markdown file both show."""

    header: dict[str, str]
    columns: list[str]
    rows: list[Row]
    notes: list[str]


def cell(figure: Figure, outcome: Outcome | None, ours: float | None, notes: list[str], size_note: str) -> str:
    """A figure with its ratio, or why there is none."""
    if outcome is None:
        return ""
    value = outcome.median(figure.key)
    words = []
    if value is not None:
        words.append(figure.show(value))
        ratio = figure.advantage(ours, value) if ours is not None else None
        if ratio is not None:
            words.append(f"({ratio:,.0f}x)" if ratio >= 10 else f"({ratio:.2g}x)")
        if size_note:
            words.append(_mark(size_note, notes))
    if outcome.failures:
        tried = len(outcome.failures) + len(outcome.rounds)
        words.append(f"FAILED {len(outcome.failures)}/{tried}")
        words += [_mark(reason, notes) for reason in dict.fromkeys(outcome.failures)]
    if outcome.unsupported:
        words.append(f"- {_mark(outcome.unsupported, notes)}")
    return " ".join(words)


def _mark(note: str, notes: list[str]) -> str:
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def tabulate(
    results: Results, workloads: Sequence[Workload], systems: Sequence[str], header: dict[str, str], quick: bool
) -> Table:
    notes: list[str] = []
    rows = []
    for workload in workloads:
        ours = results.get((workload.name, "pygo"), Outcome())
        usual = workload.sizes("pygo", quick)
        for figure in workload.figures:
            cells = []
            for system in systems:
                sizes = workload.sizes(system, quick)
                fewer = ", ".join(f"{key} = {size:,}" for key, size in sizes.items() if size != usual[key])
                own_ratio = None if system == "pygo" else ours.median(figure.key)
                outcome = results.get((workload.name, system))
                cells.append(cell(figure, outcome, own_ratio, notes, f"with {fewer}" if fewer else ""))
            title = workload.titled(figure, quick)
            if any(cells):
                rows.append(Row(f"{title}, {figure.unit}" if figure.unit else title, cells))
    return Table(header, list(systems), rows, notes)


def print_table(table: Table, missing: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(width=None if os.isatty(1) else 200)
    for key, value in table.header.items():
        console.print(Text(f"{key}: {value}"))
    drawn = RichTable("workload", *table.columns, show_lines=False)
    for row in table.rows:
        drawn.add_row(Text(row.title), *map(Text, row.cells))
    console.print(drawn)
    console.print(Text(RATIO_NOTE))
    for line in [*_numbered(table.notes), *_absent(missing)]:
        console.print(Text(line))


def _numbered(notes: Sequence[str]) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(notes, 1)]


def _absent(missing: dict[str, str]) -> list[str]:
    return [f"{system} cannot be imported: {reason}" for system, reason in missing.items()]


def markdown(table: Table, missing: dict[str, str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(text.replace('|', '/') for text in cells)} |"

    return "\n".join(
        [
            *(f"- {key}: {value}" for key, value in table.header.items()),
            "",
            line(["workload", *table.columns]),
            line(["---", *("---:" for _ in table.columns)]),
            *(line([row.title, *row.cells]) for row in table.rows),
            "",
            RATIO_NOTE,
            *(f"\n{note}" for note in [*_numbered(table.notes), *_absent(missing)]),
            "",
        ]
    )


def as_json(results: Results, header: dict[str, str], missing: dict[str, str]) -> str:
    """Every sample, in seconds, bytes and counts."""
    measured = [
        {"workload": workload, "system": system, **asdict(outcome)} for (workload, system), outcome in results.items()
    ]
    return json.dumps({"environment": header, "missing": missing, "results": measured}, indent=1) + "\n"


def plot(
    results: Results,
    workloads: Sequence[Workload],
    systems: Sequence[str],
    header: dict[str, str],
    quick: bool,
    path: Path,
) -> None:
    """Each figure's ratio to pygo on a logarithmic axis, a dot per peer."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and equal figures give equal files.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pygo"})
    from matplotlib import pyplot

    figures = [(workload, figure) for workload in workloads for figure in workload.figures]
    points: dict[str, list[tuple[float, int]]] = {system: [] for system in systems if system != "pygo"}
    titles: list[str] = []
    for workload, figure in figures:
        ours = results.get((workload.name, "pygo"), Outcome()).median(figure.key)
        if ours is None:
            continue
        for system, dots in points.items():
            theirs = results.get((workload.name, system), Outcome()).median(figure.key)
            if theirs is not None and (ratio := figure.advantage(ours, theirs)) is not None:
                dots.append((ratio, len(titles)))
        titles.append(f"{workload.titled(figure, quick)} ({figure.show(ours)} {figure.unit}".rstrip() + ")")
    chart, axes = pyplot.subplots(figsize=(10, 1.8 + 0.32 * max(len(titles), 1)), layout="constrained")
    for (system, dots), shape in zip(points.items(), "osD^vP*", strict=False):
        if dots:
            ratios, rows = zip(*dots, strict=True)
            axes.scatter(ratios, rows, marker=shape, label=system, s=42, alpha=0.85, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.grid(axis="both", color="0.9")
    axes.set_xlabel("times pygo's figure (right of the line: pygo is better)")
    axes.set_title(f"pygo and its peers, {header['Python'].split(' (')[0]}, {header['Date'][:10]}", loc="left")
    if any(points.values()):
        chart.legend(loc="outside lower center", ncols=len(points))
    chart.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(chart)
