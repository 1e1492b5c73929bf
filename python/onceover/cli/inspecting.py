"""`onceover inspect` of many images: what was found so far, what to call each, and those that cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onceover.cli.output import Output, counted, number
from onceover.types import Image, NearestPatch, Verdict

LINES_SHOWN = 20  # of unreadable images in words; --json has all
VERDICT_STYLES = {"normal": "green", "anomalous": "bold red", "wrong_part": "bold red", "unreadable": "bold yellow"}
UNREADABLE = ("unreadable", "n/a", "n/a", "n/a", "n/a")  # the cells of such an image, in its place among the others


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
        self.rows.append((name, result.get("product", ""), _verdict_cells(verdict)))
        if verdict.reason is not None and verdict.decision != "normal":
            self.reasons.append((name, verdict.reason))

    def add_unreadable(self, name: str, path: Path, message: str) -> None:
        self.unreadable.append({"image": str(path), "message": message})
        self.rows.append((name, "", UNREADABLE))

    def table_rows(self, products: bool) -> list[tuple[str, ...]]:
        return [(name, *((product,) if products else ()), *cells) for name, product, cells in self.rows]


def _verdict_cells(verdict: Verdict) -> tuple[str, ...]:
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


def show_other_sizes(sizes: Counter[tuple[int, int]], data: Any, output: Output) -> None:
    """A note where images are not as large as all that were learned from. data: what the manifest says of those.

    The input of the network has one size, so that a part in an image of another one is shown to it larger, smaller or
    stretched, and scores higher for that alone.
    """
    fitted = data.get("image_size") if isinstance(data, dict) else None
    if not isinstance(fitted, list) or len(fitted) != 2:  # they had several sizes, or nobody wrote it down
        return
    others = [size for size in sizes if list(size) != fitted]
    if others:
        found = ", ".join("{} × {}".format(*size) for size in others[:3]) + (", …" if len(others) > 3 else "")
        count = sum(sizes[size] for size in others)
        output.warn(
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
    output.warn(f"{len(unreadable)} of {len(inspected.rows)} images were not inspected, hence exit status 3")


__all__ = ["VERDICT_STYLES", "Inspected", "short_names", "show_other_sizes", "show_unreadable"]
