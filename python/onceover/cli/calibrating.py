"""`onceover calibrate`: another threshold for a package, from normal images of other parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover.cli.bank import warn_left_out
from onceover.cli.commands import engine_options
from onceover.cli.exporting import check_package_target
from onceover.cli.output import Output, copies_note, number, percent
from onceover.cli.packages import AddCommand
from onceover.errors import UsageError

if TYPE_CHECKING:
    from onceover.export.recalibrate import CalibrationReport


def add_calibrate_command(subparsers: Any, command: AddCommand) -> argparse.ArgumentParser:
    parser = command(
        subparsers, "calibrate", "a package with another threshold, from images of other good parts", run_calibrate
    )
    parser.add_argument("package", type=Path)
    parser.add_argument(
        "normals", type=Path, help="folder of images of good parts that are not in the package, or a data set"
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", type=Path, help="the package to write")
    target.add_argument("--replace", action="store_true", help="write it in place of PACKAGE, whole or not at all")
    parser.add_argument(
        "--false-alarm", type=float, metavar="RATE", help="target false-alarm rate (default: the package's, or 0.05)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="C",
        help="that this threshold keeps the rate, e.g. 0.95 (default: thresholds keep it on average)",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        help="CSV with columns file,group: images of the same part count once (default: every folder of images is a "
        "part, or every image where there are no folders)",
    )
    parser.add_argument(
        "--allow-similar", action="store_true", help="accept images that look like images in the memory bank"
    )
    return parser


def run_calibrate(options: argparse.Namespace, output: Output) -> int:
    from onceover.export.recalibrate import CalibrateOptions, calibrate_package

    if options.output is None and not options.replace:
        raise UsageError("calibrate needs -o FILE for the new package, or --replace to write it in place of the old")
    check_package_target(options.package if options.replace else options.output)
    warn_left_out([options.package], output)
    settings = CalibrateOptions(
        false_alarm_rate=options.false_alarm,
        confidence=options.confidence,
        groups=options.groups,
        layout=options.layout,
        category=options.category,
        allow_similar=options.allow_similar,
        engine=engine_options(options),
        threads=options.threads,
    )
    with output.progress() as progress:
        report = calibrate_package(options.package, options.normals, options.output, settings, progress)
    show_calibration(report, output)
    signature = Path(f"{report.package}.sig")
    if signature.exists():
        output.warn(f"{signature} signs the package that was here before; sign the new one")
    output.object(report.to_dict())
    return 0


def show_calibration(report: CalibrationReport, output: Output) -> None:
    """What the threshold was and is, and what it promises."""
    output.table(
        f"{report.parts} parts, {report.images} images: {report.grouping}",
        ("", "threshold ", "map threshold ", "method"),
        [
            (
                "before",
                number(report.threshold_before, 4),
                number(report.map_threshold_before, 4),
                report.method_before,
            ),
            ("now", number(report.threshold, 4), number(report.map_threshold, 4), "split conformal"),
        ],
    )
    low, high = report.realised_rate
    promise = (
        "at most on average"
        if report.confidence is None
        else f"at most, with {percent(report.confidence)} confidence that this threshold keeps it"
    )
    output.say(
        f"false alarms: {percent(report.false_alarm_rate)} {promise}; this one threshold gives {percent(low)} to "
        f"{percent(high)} (90 % interval), as long as parts, camera and light stay like these"
    )
    if report.copies:
        output.warn(copies_note(report.copies))
    for note in report.notes:
        output.warn(note)
    output.say(f"[bold]{escape(report.package)}[/] written and verified, id {report.package_id[:16]}")
