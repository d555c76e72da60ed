"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import report
from bench.bars import judge, needed, promised
from bench.model import SYSTEMS, WORKLOADS
from bench.runs import Plan, Results, installed, interleaved, measure_here


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal's stderr, a line per measurement elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: print(what, file=sys.stderr, flush=True)
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        started = False

        def step(what: str) -> None:
            nonlocal started
            progress.update(task, advance=int(started), description=what)
            started = True

        yield step


def measured(plan: Plan, options: argparse.Namespace) -> Results:
    with progress_bar(options.rounds * sum(map(len, plan.values()))) as progress:
        return interleaved(plan, rounds=options.rounds, quick=options.quick, progress=progress)


def list_all(_: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("workload", "what is measured", "sizes", "quick", "threads")
    for workload in WORKLOADS.values():
        sizes = (workload.full, workload.quick, workload.threading or {})
        shown = (", ".join(f"{key}={size:,}" for key, size in kind.items()) for kind in sizes)
        table.add_row(workload.name, workload.title, *shown)
    console = Console(width=None if os.isatty(1) else 180)
    console.print(table)
    present, missing = installed(SYSTEMS)
    console.print("installed:", ", ".join(present))
    for system, reason in missing.items():
        console.print(f"not installed: {system} ({reason})", markup=False)


def run(options: argparse.Namespace) -> None:
    answer = measure_here(options.system, WORKLOADS[options.workload], options.quick, options.rounds)
    print(json.dumps(answer), flush=True)


def compare(options: argparse.Namespace) -> None:
    workloads = [WORKLOADS[name] for name in options.only or WORKLOADS]
    systems, missing = installed(options.systems)
    header = report.environment(systems, options.rounds, options.quick)
    plan = {
        workload.name: [system for system in systems if not workload.only or system in workload.only]
        for workload in workloads
    }
    results = measured(plan, options)
    table = report.tabulate(results, workloads, systems, header, options.quick)
    report.print_table(table, missing)
    if options.markdown:
        options.markdown.write_text(report.markdown(table, missing))
    if options.json:
        options.json.write_text(report.as_json(results, header, missing))
    if options.svg:
        report.plot(results, workloads, systems, header, options.quick, options.svg)


def bars(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    due = [bar for bar in promised(sys.version_info[:2]) if not options.only or bar.workload in options.only]
    wanted = needed(due)
    systems, missing = installed(dict.fromkeys(system for names in wanted.values() for system in names))
    if "pygo" in missing:
        sys.exit(f"pygo cannot be imported: {missing['pygo']}")
    header = report.environment(systems, options.rounds, options.quick)
    plan = {name: [system for system in names if system in systems] for name, names in wanted.items()}
    results = measured(plan, options)
    console = Console(width=None if os.isatty(1) else 160)
    for key, value in header.items():
        console.print(f"{key}: {value}", highlight=False, markup=False)
    table = Table("what", "bar", "median", "best", "met")
    verdicts = [judge(bar, results, missing, options.quick) for bar in due]
    for verdict in verdicts:
        met = {True: "[green]met[/]", False: "[red]NOT MET[/]", None: "cannot say"}[verdict.met]
        table.add_row(verdict.what, verdict.bar, verdict.measured, verdict.best, met)
    console.print(table)
    console.print(f"{sum(verdict.met is True for verdict in verdicts)} of {len(verdicts)} met")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench", description="pygo beside its peers.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(act=act)
        return sub

    def sizes_and_rounds(sub: argparse.ArgumentParser, rounds: int) -> None:
        sub.add_argument("--quick", action="store_true", help="small sizes")
        sub.add_argument("--rounds", type=positive, default=rounds, metavar="N", help=f"measurements each ({rounds})")

    def selection(sub: argparse.ArgumentParser) -> None:
        sizes_and_rounds(sub, rounds=5)
        sub.add_argument("--only", nargs="+", choices=WORKLOADS, metavar="WORKLOAD", help="these workloads")

    command("list", list_all, "Show the workloads and the systems.")
    single = command("run", run, "Measure one workload on one system in this process; prints JSON.")
    single.add_argument("system", choices=SYSTEMS)
    single.add_argument("workload", choices=WORKLOADS, metavar="workload")
    sizes_and_rounds(single, rounds=1)
    table = command("compare", compare, "Measure all, interleaved, and print one table of figures and ratios.")
    selection(table)
    table.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM")
    for kind in ("markdown", "svg", "json"):
        table.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the result as {kind}")
    selection(command("bars", bars, "Measure what the project promises and tell what is met."))
    return top


def main() -> None:
    options = parser().parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
