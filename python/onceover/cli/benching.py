"""`onceover bench`: how fast a package is here, cold, warm, after a pause, at a rate; two packages side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover.cli.evaluation_page import check_report
from onceover.cli.output import Output
from onceover.errors import UsageError

if TYPE_CHECKING:
    from onceover.measuring.bench import BenchReport
    from onceover.runtime.session import EngineOptions

AddCommand = Callable[..., argparse.ArgumentParser]
STAGES = ("prepare", "engine", "score", "map")
PERCENTILES = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms")


def add_bench_command(
    subparsers: Any, command: AddCommand, add_engine: Callable[[argparse.ArgumentParser], None]
) -> None:
    bench = command(
        subparsers, "bench", "how fast a package is on this machine, and how sure that is", run_bench_command
    )
    bench.add_argument("packages", type=Path, nargs="+", metavar="PACKAGE", help="one package, or several in one table")
    bench.add_argument(
        "--images", type=Path, nargs="+", metavar="PATH", help="image files or folders (default: the reference images)"
    )
    bench.add_argument("--seconds", type=float, default=10.0, help="of warm runs in each case (default: 10)")
    bench.add_argument("--rate", type=float, metavar="HZ", help="also when so many parts arrive a second, done or not")
    bench.add_argument("--engines", metavar="A,B", help="several engines, default devices; instead of --engine")
    bench.add_argument("--thread-counts", metavar="1,2", help="several numbers of threads; instead of --threads")
    bench.add_argument("--sizes", metavar="256,384", help="input sizes of a resizable network, for timing alone")
    bench.add_argument("--compare", type=Path, metavar="PACKAGE", help="in turn with another one: ratio and interval")
    bench.add_argument("--no-idle", action="store_true", help="skip the runs after pauses (20 s in each case)")
    bench.add_argument("--require-quiet", action="store_true", help="exit 1 when the machine was not quiet")
    bench.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for a README")
    bench.add_argument("--report", type=Path, metavar="FILE", help="write one HTML page with histograms ([report])")
    add_engine(bench)


def run_bench_command(options: argparse.Namespace, output: Output) -> int:
    import tempfile

    from onceover.measuring.bench import BenchPlan, run_bench

    def on_case(name: str, i: int, count: int) -> None:
        # a line and no bar: drawing one would disturb what is measured
        about = f"about {plan.case_seconds() + 2:.0f} s"
        output.err.print(f"[dim]{i + 1} of {count}: {escape(name)} ({about})[/]") if not output.as_json else None

    if options.report is not None:
        check_report(options.report)
    with tempfile.TemporaryDirectory(prefix="onceover-bench-") as folder:
        plan = BenchPlan(
            packages=options.packages,
            images=_images(options, Path(folder)),
            engines=_engines(options),
            threads=_numbers(options.thread_counts, "--thread-counts") or (options.threads,),
            sizes=_numbers(options.sizes, "--sizes"),
            seconds=options.seconds,
            rate_hz=options.rate,
            idle=not options.no_idle,
        )
        report = run_bench(plan, options.compare, on_case)
    show_bench(report, output)
    if options.markdown is not None:
        from onceover import _core

        _core.save_atomically(str(options.markdown), markdown_of(report).encode())
        output.say(f"tables: {escape(str(options.markdown))}")
    if options.report is not None:
        from onceover import _core

        _core.save_atomically(str(options.report), page_of(report).encode())
        output.say(f"report: {escape(str(options.report))}")
    output.object(report.to_dict())
    return 1 if options.require_quiet and report.noise else 0


def _images(options: argparse.Namespace, folder: Path) -> list[Path]:
    """The files given, or the reference images of the first package, written to `folder`."""
    from onceover import _core
    from onceover.images import list_images, write_image
    from onceover.runtime.package import open_package

    if options.images:
        return [image for path in options.images for image in (list_images(path) if path.is_dir() else [path])]
    paths = []
    for i, item in enumerate(_core.read_parity(open_package(options.packages[0]).core)["images"]):
        image = item["image"] if item["color"] == "rgb" else item["image"][..., ::-1]
        paths.append(folder / f"reference_{i}.png")
        write_image(paths[-1], image)
    return paths


def _engines(options: argparse.Namespace) -> tuple[EngineOptions, ...]:
    from onceover.cli.commands import engine_options
    from onceover.runtime.session import EngineOptions

    given = engine_options(options)
    if options.engines is None:
        return (given,)
    if options.device or options.engine_option or options.engine_library:
        raise UsageError("--engines takes the engines' defaults; leave out --device, --engine-option, --engine-library")
    names = [name.strip() for name in options.engines.split(",") if name.strip()]
    return tuple(replace(EngineOptions(name), cache_dir=given.cache_dir) for name in names)


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a list of whole numbers, as in 1,2") from None


SATURATED = 0.999  # of the time busy: what arrives later waits longer
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def tables_of(report: BenchReport) -> list[Table]:
    """(title, columns, rows) of everything measured; what was not asked for is left out. All but the first name cases
    by their number, so that they fit a terminal.
    """
    cases = {str(i + 1): result for i, result in enumerate(report.results)}
    tables = [_case_table(cases)]
    timed = {case: result for case, result in cases.items() if "warm" in result}
    if timed:
        tables += [_latency_table(timed), _start_table(timed)]
    if any("at_rate" in result for result in timed.values()):
        tables.append(_rate_table(timed))
    compared = {case: result for case, result in cases.items() if "compare" in result}
    if compared:
        tables.append(_compare_table(compared))
    return tables


Cases = dict[str, dict[str, Any]]


def _case_table(cases: Cases) -> Table:
    rows: list[tuple[str, ...]] = []
    for case, result in cases.items():
        where = "" if result["device"] == "CPU" else f" on {result['device']}"
        threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
        side = result["size"] or result["input"][0]
        setting = f"{result['engine']}{where}, {threads}, {result['precision']}, {side} px"
        memory = result.get("memory", {})
        peak = f"{memory['peak_rss_bytes'] / 1e6:.0f}" if memory else ""
        rows.append((case, Path(result["package"]).name, setting, str(result["bank_rows"]), peak))
    return "cases, each in a process of its own", ("case ", "package", "setting", "bank rows ", "peak MB "), rows


def _latency_table(cases: Cases) -> Table:
    rows = [
        (
            case,
            *(_value(result["warm"][stage], "p50_ms") for stage in STAGES),
            *(_value(result["warm"]["total"], part) for part in PERCENTILES),
            _ms(result["warm"]["total"]["max_ms"]),
        )
        for case, result in cases.items()
    ]
    columns = ("case ", "prep ", "engine ", "score ", "map ", "p50 ", "p90 ", "p99 ", "p99.9 ", "max ")
    seconds = next(iter(cases.values()))["seconds"]
    return f"warm: ms per image, medians of the stages, then the whole ({seconds:g} s each)", columns, rows


def _start_table(cases: Cases) -> Table:
    pauses = [entry["idle_s"] for entry in next(iter(cases.values()))["after_idle"]]
    rows = []
    for case, result in cases.items():
        cold, warm = result["cold"], result["warm"]
        idle = [_ms(entry["latency"]["total"]["max_ms"]) for entry in result["after_idle"]]
        steps = (_ms(cold[step]) for step in ("import_ms", "open_ms", "create_ms", "first_run_ms"))
        rows.append((case, *steps, *idle, _ms(warm["jitter_ms"]), f"{warm['throughput_hz']:.1f}"))
    after = tuple(f"{pause:g} s idle " for pause in pauses)
    columns = ("case ", "import ", "open ", "create ", "1st run ", *after, "jitter ", "per s ")
    return "cold start, ms; the longest after a pause; variation from run to run; images per second", columns, rows


def _rate_table(cases: Cases) -> Table:
    rows = []
    for case, result in cases.items():
        at_rate = result["at_rate"]
        total = at_rate["latency"]["total"]
        busy = f"{100 * at_rate['utilization']:.0f} %"
        parts = (_value(total, part) for part in PERCENTILES)
        rows.append((case, busy, *parts, _ms(total["max_ms"]), str(at_rate["longest_queue"]), _keeps_up(at_rate)))
    columns = ("case ", "busy ", "p50 ", "p90 ", "p99 ", "p99.9 ", "max ", "queue ", "keeps up")
    rate = next(iter(cases.values()))["at_rate"]["rate_hz"]
    return f"{rate:g} parts a second, done or not: ms from arrival to verdict", columns, rows


def _keeps_up(at_rate: dict[str, Any]) -> str:
    if at_rate["overrun"]:
        return "no, the queue grew without end"
    return "no" if at_rate["utilization"] > SATURATED else "yes"


def _compare_table(cases: Cases) -> Table:
    rows = []
    for case, result in cases.items():
        found = result["compare"]
        sides = [_value(found[side]["total"], "p50_ms") for side in "ab"]
        ratios = [_ratio(found["ratio"][part]) for part in ("p50", "p99")]
        rows.append((case, Path(result["compared_with"]["package"]).name, *sides, *ratios))
    columns = ("case ", "compared with", "p50 ", "its p50 ", "p50 ratio (95 %) ", "p99 ratio (95 %) ")
    return "in turn, A B A B: how many times as long the other one takes", columns, rows


def _ratio(found: dict[str, Any]) -> str:
    value, interval = found["ratio"], found["interval"]
    if value is None:
        return "n/a"
    return f"{value:.3f} (?)" if interval is None else f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"


def show_bench(report: BenchReport, output: Output) -> None:
    """Tables, the machine, and whether it was quiet."""
    for title, columns, rows in tables_of(report):
        output.table(title, columns, rows)
    output.say(escape(machine_line(report)))
    if report.noise:
        output.warn("NOT a clean measurement: " + "; ".join(report.noise) + ". Stop other programs and measure again.")
    else:
        output.say("[green]clean[/]: nothing else disturbed the machine while it was measured")


def machine_line(report: BenchReport) -> str:
    """One line for people: what a number needs beside it."""
    before, after = report.machine_before, report.machine_after
    clock = before["clock_mhz"]
    facts = [
        f"{before['cpu'] or 'unknown CPU'}, {before['cpus']} CPUs{', virtual machine' if before['in_a_vm'] else ''}",
        f"governor {before['governor'] or 'not told'}",
        "clock not told" if clock is None else f"clock {clock:.0f} → {after['clock_mhz']:.0f} MHz",
        "temperature not told"
        if before["celsius"] is None
        else f"{before['celsius']:.0f} → {after['celsius'] or float('nan'):.0f} °C",
        f"load {before['load']:.1f} → {after['load']:.1f}",
        f"ISA {report.versions['isa']}",
        ", ".join(f"{name} {value}" for name, value in report.versions.items() if name != "isa"),
        before["kernel"],
    ]
    return "; ".join(facts)


def markdown_of(report: BenchReport) -> str:
    """The tables for a README, with the machine and the verdict on its quiet."""
    parts = []
    for title, columns, rows in tables_of(report):
        head = "| " + " | ".join(column.strip() for column in columns) + " |"
        rule = "| " + " | ".join("---:" if column.endswith(" ") else "---" for column in columns) + " |"
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        parts.append("\n".join([f"{title[0].upper()}{title[1:]}:", "", head, rule, *body]))
    quiet = "Clean." if not report.noise else "**Not clean**: " + "; ".join(report.noise) + "."
    return "\n\n".join([*parts, f"{machine_line(report)}. {quiet}"]) + "\n"


def page_of(report: BenchReport) -> str:
    """The same as one HTML file, with a histogram of each case's warm runs."""
    import numpy as np

    from onceover.report.latency_page import LatencyHistogram, LatencyPage, LatencyTable, render_latency

    histograms = []
    for i, result in enumerate(report.results):
        if not result.get("warm_ms"):
            continue
        total = result["warm"]["total"]
        marks = [(part.removesuffix("_ms"), total[part][0]) for part in ("p50_ms", "p99_ms") if total[part] is not None]
        title = f"Case {i + 1}: {result['engine']}, {result['threads']} thread{'s' if result['threads'] > 1 else ''}"
        histograms.append(LatencyHistogram(title, np.array(result["warm_ms"]), marks))
    names = dict.fromkeys(Path(result["package"]).name for result in report.results)
    tables = [LatencyTable(*table) for table in tables_of(report)]
    page = LatencyPage(", ".join(names), machine_line(report), report.noise, histograms, tables)
    return render_latency(page)


def _value(percentiles: dict[str, Any] | None, part: str) -> str:
    """The percentile; n/a where there were too few runs for it."""
    found = None if percentiles is None else percentiles[part]
    return "n/a" if found is None else _ms(found[0])


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


__all__ = ["add_bench_command"]
