"""`onceover monitor`: has the line drifted? And the log of `inspect --log`, which it reads."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover import _core
from onceover.cli.output import Output, counted
from onceover.errors import InputError, UsageError

if TYPE_CHECKING:
    from onceover.monitoring.history import ChartHistory, DriftHistory
    from onceover.monitoring.log import InspectionLog, PackageLog
    from onceover.runtime.package import PackageFile

AddCommand = Callable[..., argparse.ArgumentParser]  # parser._command
_BARS = "▁▂▃▄▅▆▇█"
_TREND_WIDTH = 12


def add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append a line of JSON for every image, for `onceover monitor`"
    )


def open_log(path: Path | None, package: PackageFile) -> AbstractContextManager[InspectionLog | None]:
    """Of --log; None without it."""
    if path is None:
        return nullcontext()
    from onceover.monitoring.log import InspectionLog

    return InspectionLog(path, package)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def add_monitor_command(subparsers: Any, command: AddCommand) -> None:
    monitor = command(subparsers, "monitor", "has the line drifted? Charts of a log of inspected parts", run_monitor)
    monitor.add_argument("log", type=Path, help="what `onceover inspect --log` wrote")
    monitor.add_argument("--package", type=Path, help="only its parts, and its calibration (default: as the log says)")
    monitor.add_argument("--save", type=Path, metavar="FILE", help="draw the charts (.png, .svg, .pdf)")
    monitor.add_argument(
        "--run-length",
        type=float,
        default=10_000,
        metavar="PARTS",
        help="parts between false alarms, on average, of all charts together (default: 10000)",
    )
    monitor.add_argument(
        "--batch", type=int, default=100, metavar="PARTS", help="of the chart of rejected parts (default: 100)"
    )
    monitor.add_argument(
        "--reject-rate", type=float, metavar="SHARE", help="of rejected parts when all is well (default: learned)"
    )
    monitor.add_argument(
        "--every", type=int, default=1, metavar="K", help="take each K-th part, where successive ones are much alike"
    )
    monitor.add_argument(
        "--from-part", type=int, default=1, metavar="N", help="leave out the parts before, e.g. before a repair"
    )


def run_monitor(options: argparse.Namespace, output: Output) -> int:
    from onceover.monitoring.log import read_log

    if options.save:
        from onceover.cli.exporting import check_target
        from onceover.report.drift_charts import check_picture

        picture_format = check_picture(options.save)
        check_target(options.save)
    with output.progress() as progress:
        log = read_log(options.log, progress)
    if not log.packages:
        raise InputError(f"{options.log}: no inspected part in it; write it with `onceover inspect --log`")
    if log.torn:
        output.warn(f"{options.log}: the last line is incomplete and was left out")
    watched = _of_package(options, log.packages, output)
    if options.save and len(watched) > 1:
        raise UsageError(f"{options.log}: parts of {len(watched)} packages; say which to draw with --package")
    histories = [_history(options, package, output) for package in watched]
    for history in histories:
        _show(history, options, output)
    if options.save:
        from onceover.report.drift_charts import draw_drift

        _core.save_atomically(options.save, draw_drift(histories[0], picture_format))
        output.say(f"charts: {escape(str(options.save))}")
    in_control = all(history.in_control for history in histories)
    output.object(
        {
            "log": str(options.log), "torn": log.torn, "in_control": in_control,
            "packages": [_to_dict(history) for history in histories],
        }
    )  # fmt: skip
    return 0 if in_control else 1


def _of_package(options: argparse.Namespace, packages: Sequence[PackageLog], output: Output) -> Sequence[PackageLog]:
    """Those to watch: of --package, or all. Says what is left out, and that charts are per package."""
    if options.package is None:
        if len(packages) > 1:
            output.warn(f"{options.log}: parts of {len(packages)} packages, each with charts of its own")
        return packages
    from onceover.monitoring.monitor import Calibrated
    from onceover.runtime.package import open_package

    package = open_package(options.package)
    chosen = [log for log in packages if log.id == package.id]
    found = ", ".join(f"{log.id[:16]} ({len(log.parts)} parts)" for log in packages)
    if not chosen:
        raise InputError(f"{options.log}: no part of package {package.id[:16]} ({options.package}); found: {found}")
    if len(packages) > 1:
        output.warn(f"{options.log}: also has parts of other packages, left out; found: {found}")
    for log in chosen:
        log.calibrated = Calibrated.of(package)
        log.name = log.name or str(package.manifest.get("name", ""))
    return chosen


def _history(options: argparse.Namespace, log: PackageLog, output: Output) -> DriftHistory:
    from onceover.monitoring.history import replay
    from onceover.monitoring.monitor import Calibrated, DriftMonitor

    if log.calibrated is None:
        output.warn(f"{log.id[:16]}: the log does not say its calibration; --package adds that chart")
    monitor = DriftMonitor.with_calibration(
        log.id, log.calibrated or Calibrated(), options.run_length, options.batch, options.reject_rate
    )
    with output.progress() as progress:
        return replay(log, monitor, options.from_part, options.every, progress)


def _show(history: DriftHistory, options: argparse.Namespace, output: Output) -> None:
    from onceover.monitoring.history import independent_step

    name = history.package.name or str(options.log)
    verdict = "in control" if history.in_control else "ALARM"
    output.table(
        f"{name} ({history.package.id[:16]}): {counted(history.parts, 'part')}, {verdict}; "
        f"a false alarm in {history.average_run_length:g} parts or more, on average",
        ("chart", "now ", "limits ", "trend", "alarm since"),
        [_row(chart, history.alarm_part(chart)) for chart in history.charts],
    )
    for chart in history.charts:
        alarm = history.alarm_part(chart)
        if alarm is not None:
            image = history.package.parts[alarm - 1]
            since = f"since part {alarm}, {image.image}" + (f" ({image.time})" if image.time else "")
            output.say(f"[bold red]{chart.state.title}[/], {escape(since)}: {chart.state.advice}")
    for what, correlation in history.correlations.items():
        output.warn(
            f"{what} of successive parts correlates ({correlation:.2f}): false alarms come sooner than said; "
            f"try --every {history.every * independent_step(correlation)}"
        )


def _row(chart: ChartHistory, alarm: int | None) -> tuple[str, ...]:
    state = chart.state
    if state.value is None:
        idle = "no data" if state.parts == 0 else counted(state.parts, "part")
        return (state.title, idle, "", "", "")
    if state.upper is not None and state.lower == -state.upper:
        limits = f"± {state.upper:.4g}"
    else:
        signs = (("≥", state.upper), ("≤", state.lower))
        limits = "; ".join(f"{sign} {limit:.4g}" for sign, limit in signs if limit is not None)
    since = "" if alarm is None else f"part {alarm}"
    value = state.value if abs(state.value) >= 1e-9 else 0.0  # what rounding left of a sum that is 0
    return (state.title, f"{value:.4g}", limits, _trend(chart), since)


def _trend(chart: ChartHistory) -> str:
    """The chart in a few characters, from its lower limit (or 0) to its upper one."""
    values = chart.value[~(chart.value != chart.value)]
    low = chart.state.lower if chart.state.lower is not None else 0.0
    high = chart.state.upper if chart.state.upper is not None else max(float(values.max()), low + 1)
    width = min(_TREND_WIDTH, len(values))
    ends = [(i + 1) * len(values) // width - 1 for i in range(width)]
    levels = [(float(values[end]) - low) / (high - low) * (len(_BARS) - 1) for end in ends]
    return "".join(_BARS[round(min(max(level, 0), len(_BARS) - 1))] for level in levels)


def _to_dict(history: DriftHistory) -> dict[str, Any]:
    charts = []
    for chart in history.charts:
        told = chart.state.to_dict()
        told["alarm_part"] = history.alarm_part(chart)  # in the log
        if told["alarm_part"] is not None:
            told["advice"] = chart.state.advice
        charts.append(told)
    return {
        "id": history.package.id, "name": history.package.name, "parts": history.parts,
        "from_part": history.first, "every": history.every, "in_control": history.in_control,
        "average_run_length": history.average_run_length, "charts": charts,
        "correlations": history.correlations,
    }  # fmt: skip
