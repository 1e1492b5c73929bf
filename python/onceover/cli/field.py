"""Options of `onceover fit` that say what of an image is inspected: the region of interest, and tiles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from onceover.errors import UsageError

if TYPE_CHECKING:
    from onceover.training.field import TilingOptions


def add_field_options(fit: argparse.ArgumentParser) -> None:
    fit.add_argument(
        "--roi",
        type=Path,
        metavar="FILE",
        help="inspect only this: a mask (image; not black is inspected) or a polygon (.json: [[x, y], …])",
    )
    tiles = fit.add_mutually_exclusive_group()
    tiles.add_argument(
        "--tiling", type=_tiles, metavar="RxC", help="cut large images into R rows and C columns of overlapping tiles"
    )
    tiles.add_argument("--tile-size", type=float, metavar="PIXELS", help="or: into tiles of at most this side")
    tiles.add_argument(
        "--min-defect",
        type=float,
        metavar="PIXELS",
        help="or: so that a defect of this size is large enough to be seen",
    )
    fit.add_argument("--overlap", type=float, metavar="SHARE", help="of a tile's side that neighbors share (0.125)")


def _tiles(text: str) -> tuple[int, int]:
    rows, separator, columns = text.lower().partition("x")
    if not (separator and rows.isascii() and rows.isdigit() and columns.isascii() and columns.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLUMNS, as in 3x4")
    return int(rows), int(columns)


def tiling_options(options: argparse.Namespace) -> TilingOptions | None:
    """What the options say; UsageError for an overlap of nothing."""
    from onceover.training.field import DEFAULT_OVERLAP, TilingOptions

    if options.tiling is None and options.tile_size is None and options.min_defect is None:
        if options.overlap is not None:
            raise UsageError("--overlap belongs to tiles: give --tiling, --tile-size or --min-defect with it")
        return None
    overlap = DEFAULT_OVERLAP if options.overlap is None else options.overlap
    return TilingOptions(options.tiling, options.tile_size, options.min_defect, overlap)
