"""`onceover inspect`: its options, what was found so far, what to call each image, and those that cannot be read."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onceover.cli.bank import add_corrections_options
from onceover.cli.explaining import add_explain_options
from onceover.cli.monitoring import AddCommand, add_log
from onceover.cli.output import Output, counted, number
from onceover.cli.products import add_product_options
from onceover.errors import UsageError
from onceover.types import Calibration, Image, NearestPatch, Verdict

AddOptions = Callable[[argparse.ArgumentParser], None]  # parser._add_engine
SETTLE_S = 0.5  # for so long a file of --watch stands still before it counts as whole, unless --settle says otherwise
LINES_SHOWN = 20  # of unreadable images in words; --json has all
UNCALIBRATED = (
    "this package is uncalibrated: scores mean something, verdicts do not; fit it on more images, or give it "
    "good ones that it has not seen with `onceover calibrate`"
)
VERDICT_STYLES = {"normal": "green", "anomalous": "bold red", "wrong_part": "bold red", "unreadable": "bold yellow"}
UNREADABLE = ("unreadable", "n/a", "n/a", "n/a", "n/a")  # the cells of such an image, in its place among the others


def add_inspect_command(
    subparsers: Any, command: AddCommand, run: Callable[..., int], add_key: AddOptions, add_engine: AddOptions
) -> None:
    inspect = command(subparsers, "inspect", "verdict, score, where and why for images", run)
    inspect.add_argument("package", type=Path)
    add_key(inspect)
    add_corrections_options(inspect)
    inspect.add_argument("images", type=Path, nargs="+", help="image files or folders")
    inspect.add_argument("--save", type=Path, metavar="DIR", help="write a picture with heat map for every image")
    add_explain_options(inspect)
    add_log(inspect)
    _add_watch(inspect)
    add_product_options(inspect, gate=True)
    add_engine(inspect)


def _add_watch(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument(
        "--watch",
        action="store_true",
        help="go on with images as they are written into the folders, until Ctrl-C; with --json a line for each",
    )
    inspect.add_argument("--new-only", action="store_true", help="with --watch: leave out what is there at the start")
    inspect.add_argument(
        "--settle",
        type=_seconds,
        metavar="SECONDS",
        help=f"with --watch: a file that can be read is whole after so long without a change (default: {SETTLE_S:g})",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def check_watch_options(options: argparse.Namespace) -> None:
    """UsageError for what belongs to --watch where it is not given, and for pictures among the images."""
    if not options.watch:
        for option, given in (("--new-only", options.new_only), ("--settle", options.settle is not None)):
            if given:
                raise UsageError(f"{option} says how to watch folders; give it with --watch")
        return
    for option, folder in (("--save", options.save), ("--explain", options.explain)):
        for watched in options.images if folder is not None else ():
            if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(watched)):
                raise UsageError(f"{option} {folder}: lies in {watched}, and what is written there is inspected")


@dataclass
class Inspected:
    """results, unreadable: for --json, each in order. rows: (name, product, other cells) of both kinds, in order.

    reasons: (name, reason) of what is not normal.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    rows: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    reasons: list[tuple[str, NearestPatch]] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (H, W) of the images

    def add(self, name: str, result: dict[str, Any], verdict: Verdict, image: Image) -> None:
        """result: for --json, which says what the verdict says. Neither map nor image is kept."""
        self.sizes[image.shape[0], image.shape[1]] += 1
        self.results.append(result)
        self.rows.append((name, result.get("product", ""), verdict_cells(verdict)))
        if verdict.reason is not None and verdict.decision != "normal":
            self.reasons.append((name, verdict.reason))

    def add_unreadable(self, name: str, path: Path, message: str) -> None:
        self.unreadable.append({"image": str(path), "message": message})
        self.rows.append((name, "", UNREADABLE))

    def table_rows(self, products: bool) -> list[tuple[str, ...]]:
        return [(name, *((product,) if products else ()), *cells) for name, product, cells in self.rows]


def verdict_cells(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Decision, score, p-value, regions, milliseconds."""
    return (
        verdict.decision, number(verdict.score, 4), number(verdict.p_value, 4),
        _regions_cell(verdict), number(verdict.timing.total_ms, 1),
    )  # fmt: skip


def _regions_cell(verdict: Verdict) -> str:
    """How many regions, and how rare the most anomalous is."""
    count = len(verdict.regions)
    return f"{count} (p {verdict.regions[0].p_value:.3g})" if count else "0"


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many folders before them, of all alike, as it takes to tell different files apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    files = len(set(parts))
    depth = 1
    while len({path[-depth:] for path in parts}) < files:  # ends: whole paths differ
        depth += 1
    return [os.path.join(*path[-depth:]) for path in parts]


def calibration_facts(calibration: Calibration) -> dict[str, Any]:
    """What --json says of the threshold."""
    facts = {"method": calibration.method, "parts": calibration.n, "confidence": calibration.confidence}
    return facts | {"false_alarm_rate": calibration.false_alarm_rate if calibration.calibrated else None}


def save_picture(target: Path, image: Image, verdict: Verdict, name: str) -> None:
    """Of --save."""
    from onceover.images import write_image
    from onceover.report.contact_sheet import draw_verdict

    write_image(target, draw_verdict(image, verdict, name=name))


def other_sizes(sizes: Counter[tuple[int, int]], data: Any) -> str:
    """A note where images are not as large as all that were learned from, else "". data: what the manifest says of
    those.

    The input of the network has one size, so that a part in an image of another one is shown to it larger, smaller or
    stretched, and scores higher for that alone.
    """
    fitted = data.get("image_size") if isinstance(data, dict) else None
    if not isinstance(fitted, list) or len(fitted) != 2:  # they had several sizes, or nobody wrote it down
        return ""
    others = [size for size in sizes if list(size) != fitted]
    if not others:
        return ""
    found = ", ".join("{} × {}".format(*size) for size in others[:3]) + (", …" if len(others) > 3 else "")
    count = sum(sizes[size] for size in others)
    return (
        f"{count} of {counted(sum(sizes.values()), 'image')} measure {found} pixels, all that were learned from "
        f"{fitted[0]} × {fitted[1]}: another camera, binning or crop? Parts at another scale score higher"
    )


def show_unreadable(inspected: Inspected, output: Output) -> None:
    """Why images were not inspected."""
    unreadable = inspected.unreadable
    if not unreadable:
        return
    for problem in unreadable[:LINES_SHOWN]:
        output.error(problem["message"])
    if len(unreadable) > LINES_SHOWN:
        output.error(f"and {len(unreadable) - LINES_SHOWN} more that cannot be read; --json tells all")
    images = f"{len(unreadable)} of {counted(len(inspected.rows), 'image')}"
    output.warn(f"{images} {'was' if len(unreadable) == 1 else 'were'} not inspected, hence exit status 3")


__all__ = [
    "SETTLE_S",
    "UNCALIBRATED",
    "VERDICT_STYLES",
    "Inspected",
    "add_inspect_command",
    "calibration_facts",
    "check_watch_options",
    "other_sizes",
    "save_picture",
    "short_names",
    "show_unreadable",
    "verdict_cells",
]
