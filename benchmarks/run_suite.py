"""Runs the benchmarks and writes their tables into README.md; `make bench`, `make bench-compare`, `make bench-smoke`.

    python benchmarks/run_suite.py                  # all, about a quarter of an hour
    python benchmarks/run_suite.py image metrics    # some
    python benchmarks/run_suite.py --compare        # with what the last run left in build/bench/; README.md stays
    python benchmarks/run_suite.py --short          # only that everything runs; README.md stays

Every file of benchmarks runs in a process of its own, one after the other, and all of them PASSES times: the noise of a
number is what it does from pass to pass (suite/estimates.py). A benchmark that fails keeps its old table, and so does
one that had to skip something; --partial writes what there is. Logs, tables and their JSON are in build/bench/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Shown
from suite import readme_blocks
from suite.estimates import LEVEL
from suite.machine_text import machine_text
from suite.passes import Benchmark, Outcome, Settings, run_passes
from suite.tables import Comparison, Table, combine, compare

from onceover.errors import InputError, OnceoverError, UsageError, unknown_name

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
BUILD = FOLDER.parent / "build" / "bench"
PASSES = 4

BENCHMARKS = (
    Benchmark("limits", "bench_limits.py"),
    Benchmark("nearest_neighbor", "bench_nearest_neighbor.py"),
    Benchmark("coreset", "bench_coreset.py"),
    Benchmark("image", "bench_image.py"),
    Benchmark("metrics", "bench_metrics.py"),
    Benchmark("latency", "bench_latency.py"),
    Benchmark("peers", "bench_peers.py"),
    Benchmark("plain_onnx", "bench_plain_onnx.py"),
    Benchmark("backbones", "bench_backbones.py"),
    Benchmark("package", "bench_package.py"),
    Benchmark("accuracy", "bench_accuracy.py", once=True),
)


def chosen(names: Sequence[str]) -> list[Benchmark]:
    known = {each.name: each for each in BENCHMARKS}
    for name in names:
        if name not in known:
            raise unknown_name("benchmark", name, known)
    return [known[name] for name in dict.fromkeys(names)] or list(BENCHMARKS)


def run(benchmarks: Sequence[Benchmark], options: argparse.Namespace, console: Console) -> dict[str, Outcome]:
    BUILD.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    total = sum(1 if each.once else options.passes for each in benchmarks)
    # one line a process instead where nobody watches; no refresh thread, which would run beside what is measured
    watched = console.is_terminal
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=BUILD) as kept,
        Progress(
            *columns,
            console=console,
            auto_refresh=False,
            disable=not watched,
        ) as progress,
    ):
        task = progress.add_task("benchmarks", total=total)
        progress.refresh()

        def on_process(name: str, number: int, seconds: float, failed: bool) -> None:
            done = f"pass {number} of {options.passes}: {name}, {seconds:.0f} s{', FAILED' if failed else ''}"
            progress.update(task, advance=1, description=done)
            progress.refresh()
            if failed or not watched:
                console.print(f"bench: {done}", highlight=False)

        at_once = min(2, os.cpu_count() or 1) if options.short else 1
        settings = Settings(BUILD, Path(kept), options.passes, options.short, at_once=at_once)
        return run_passes(benchmarks, settings, on_process)


def body(name: str, tables: Sequence[Table], outcome: Outcome) -> str:
    """What stands between the marks, but for the machine."""
    day = datetime.date.today()
    passes = len(outcome.recorded)
    how = f"{passes} passes, ± of {100 * LEVEL:g} %" if passes > 1 else "one pass"
    told = f"`make bench ONLY={name}`, {day.day} {day:%B %Y}, {how}; {outcome.noise}."
    return "\n".join([*(table.markdown() for table in tables), told])


def tables_of(outcome: Outcome) -> list[Table]:
    """InputError with the reason where there are none but should be."""
    if outcome.failure is not None:
        raise InputError(outcome.failure)
    tables = combine(outcome.recorded)
    if not tables and not outcome.skipped:
        raise InputError("it recorded nothing")
    return tables


def tell_skipped(name: str, outcome: Outcome, console: Console) -> None:
    for why, what in outcome.skipped.items():
        listed = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
        console.print(f"bench: {name} skipped {escape(f'{listed}: {why}')}", style="yellow", highlight=False)


def conclude(outcomes: dict[str, Outcome], options: argparse.Namespace, console: Console) -> int:
    """Write README.md and the records; → exit status."""
    fresh: dict[str, str] = {}
    failed, kept = [], []
    for name, outcome in outcomes.items():
        try:
            tables = tables_of(outcome)
        except InputError as error:
            failed.append(name)
            console.print(f"bench: {name} FAILED: {escape(str(error))}", style="red", highlight=False)
            continue
        tell_skipped(name, outcome, console)
        if not tables or (outcome.skipped and not options.partial):
            kept.append(name)
        else:
            fresh[name] = body(name, tables, outcome)
        if options.short:
            rows = sum(len(table.rows) for table in tables)
            console.print(f"bench: {name} runs, {rows} rows in {outcome.seconds:.0f} s", highlight=False)
        elif tables:
            console.print(f"\n{body(name, tables, outcome)}", markup=False, highlight=False, soft_wrap=True)
            found = {"machine": machine_text(), "date": str(datetime.date.today())}
            found["tables"] = [table.to_dict() for table in tables]
            readme_blocks.write_whole(BUILD / f"{name}.json", json.dumps(found, ensure_ascii=False, indent=1))
    if fresh:
        changed = readme_blocks.rewrite(options.readme, fresh, machine_text())
        state = "wrote" if changed else "nothing has changed in"
        console.print(f"bench: {state} {', '.join(fresh)}: {os.path.relpath(options.readme)}", highlight=False)
    for names, why in ((failed, "failed"), (kept, "skipped something; PARTIAL=1 writes what there is")):
        if names:
            console.print(f"bench: kept the old tables of {', '.join(names)}: {why}", style="yellow", highlight=False)
    return 1 if failed else 0


def comparison(title: str, rows: Sequence[Comparison]) -> Shown:
    """What was measured, and what else differs."""
    shown = Shown(title=escape(title), title_justify="left")
    for column in ("case", "", "before", "now", "change, %", ""):
        shown.add_column(column)
    for row in rows:
        if row.allowed or row.agrees is False:
            cells = map(escape, (row.case, row.column, row.before, row.now, row.allowed, row.verdict))
            shown.add_row(*cells, style="red" if row.agrees is False else "")
    return shown


def conclude_comparison(outcomes: dict[str, Outcome], recorded: dict[str, dict[str, Any]], console: Console) -> int:
    """Every number beside that of the recorded run; → 1 where one differs by more than the noise of both."""
    judged, differing, unknown, failed = 0, 0, 0, 0
    for name, outcome in outcomes.items():
        try:
            now = tables_of(outcome)
        except InputError as error:
            failed += 1
            console.print(f"bench: {name} FAILED: {escape(str(error))}", style="red", highlight=False)
            continue
        tell_skipped(name, outcome, console)
        rows = compare([Table.from_dict(told) for told in recorded[name]["tables"]], now)
        judged += sum(row.agrees is not None for row in rows)
        unknown += sum(row.agrees is None for row in rows)
        differing += sum(row.agrees is False for row in rows)
        console.print(f"\n{name}, recorded {recorded[name]['date']}; now {outcome.noise}", highlight=False)
        for title in dict.fromkeys(row.table for row in rows):
            console.print(comparison(title, [row for row in rows if row.table == title]))
    rest = f"; {unknown} have no noise to judge them by" if unknown else ""
    console.print(f"bench: {judged - differing} of {judged} agree within the noise of both runs{rest}", highlight=False)
    return 1 if differing or failed else 0


def records(benchmarks: Sequence[Benchmark]) -> dict[str, dict[str, Any]]:
    """What the last run of each left in build/bench/."""
    found = {}
    for each in benchmarks:
        path = BUILD / f"{each.name}.json"
        if not path.exists():
            raise InputError(
                f"{path}: there is no recorded run to compare with; `make bench ONLY={each.name}` makes it"
            )
        found[each.name] = json.loads(path.read_text(encoding="utf-8"))
        if found[each.name]["machine"] != machine_text():
            raise InputError(
                f"{path}: was recorded on another machine or with other libraries: {found[each.name]['machine']}\n"
                f"here: {machine_text()}\nrecord anew: `make bench ONLY={each.name}`"
            )
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(each.name for each in BENCHMARKS)}")
    parser.add_argument("--passes", type=int, help=f"{PASSES}; noise is stated from 2 on")
    parser.add_argument("--partial", action="store_true", help="write tables that lack what was skipped")
    parser.add_argument("--readme", type=Path, default=README, help="the file whose marks are filled")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--compare", action="store_true", help="say which numbers agree with the recorded run")
    mode.add_argument("--short", action="store_true", help="check that everything runs, and write a copy of README.md")
    options = parser.parse_args(arguments)
    if options.passes is None:
        options.passes = 1 if options.short else PASSES
    if options.passes < 1:
        raise UsageError(f"--passes {options.passes}: at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    console = Console(stderr=True, width=None if Console(stderr=True).is_terminal else 160)
    try:
        options = parse(arguments)
        benchmarks = chosen(options.names)
        known = records(benchmarks) if options.compare else {}
        if options.short:  # the same road to another file
            BUILD.mkdir(parents=True, exist_ok=True)
            copy = BUILD / "short.md"
            copy.write_text(options.readme.read_text(encoding="utf-8"), encoding="utf-8")
            options.readme, options.partial = copy, True
        places = readme_blocks.blocks(options.readme.read_text(encoding="utf-8"), str(options.readme))
        if lacking := [each.name for each in benchmarks if each.name not in places]:
            raise InputError(f"{options.readme}: no place for {', '.join(lacking)}; see suite/readme_blocks.py")
        console.print(f"bench: {machine_text()}", highlight=False, soft_wrap=True)
        outcomes = run(benchmarks, options, console)
        if options.compare:
            return conclude_comparison(outcomes, known, console)
        return conclude(outcomes, options, console)
    except KeyboardInterrupt:
        console.print("bench: stopped; all tables are as they were", style="red")
        return 130
    except OnceoverError as error:
        console.print(f"bench: {escape(str(error))}", style="red", highlight=False)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
