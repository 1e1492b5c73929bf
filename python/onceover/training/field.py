"""What of an image is inspected, and how finely: the region of interest, and the tiles a large image is cut into.

Both are settled once, by fit, and stored in the package; csrc/image/roi.h and tiling.h say what they mean.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError, UsageError
from onceover.images import read_image
from onceover.types import GraphSpec, Tiling

DEFAULT_OVERLAP = 0.125  # of a tile's side; benchmarks/README.md ("Tiles") shows what less and more cost
DEFECT_PIXELS = 4  # of the network input that the smallest defect must span: half a patch of the finest stage
MAX_TILES = 64  # per side, as csrc/image/tiling.h
ROI_SIDE = 1024  # a finer raster is reduced to this: a patch is some pixels wide anyway
_SUBPIXEL = 4  # bits of cv2.fillPoly


@dataclass(frozen=True)
class TilingOptions:
    """How large images are cut; one of the three says how many tiles, UsageError for none or more.

    tiles: (rows, columns). tile_size: largest side of a tile in pixels of the image. min_defect: size in pixels of the
    image of the smallest defect; a tile is then so small that the defect spans DEFECT_PIXELS of the network input.
    overlap: share of a tile's side that neighbors share, 0 to 0.5; it is rounded to whole patches.
    """

    tiles: tuple[int, int] | None = None
    tile_size: float | None = None
    min_defect: float | None = None
    overlap: float = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        given = [name for name in ("tiles", "tile_size", "min_defect") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                f"tiling: give one of tiles, tile_size and min_defect, got {' and '.join(given) or 'none'}"
            )
        if not 0 <= self.overlap <= 0.5:
            raise UsageError(f"tiling: the overlap is {self.overlap:g}; give a share of a tile's side from 0 to 0.5")
        for name in ("tile_size", "min_defect"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"tiling: {name} is {value:g}; give pixels of the image, above 0")

    def resolve(self, spec: GraphSpec, image_size: tuple[int, int]) -> Tiling:
        """The tiles of an image of this size (H, W) for a network; UsageError for more than MAX_TILES per side."""
        overlaps = tuple(min(side // 2, round(self.overlap * side)) for side in (spec.grid_height, spec.grid_width))
        if self.tiles is not None:
            rows, columns = self.tiles
        else:
            inputs = (spec.preprocessing.height, spec.preprocessing.width)
            grids = (spec.grid_height, spec.grid_width)
            rows, columns = (
                _count(pixels, self._largest_tile(side), grid, overlap)
                for pixels, side, grid, overlap in zip(image_size, inputs, grids, overlaps, strict=True)
            )
        for what, count in (("rows", rows), ("columns", columns)):
            if not 1 <= count <= MAX_TILES:
                raise UsageError(
                    f"tiling: {count} {what} of tiles, expected 1 to {MAX_TILES}; take larger tiles, or inspect the "
                    "image in parts"
                )
        return Tiling(rows, columns, overlaps[0] if rows > 1 else 0, overlaps[1] if columns > 1 else 0)

    def _largest_tile(self, side: int) -> float:
        """Pixels of the image that one tile may span; side: of the network input."""
        if self.tile_size is not None:
            return self.tile_size
        assert self.min_defect is not None
        return self.min_defect * side / DEFECT_PIXELS


def _count(pixels: int, largest: float, grid: int, overlap: int) -> int:
    """The fewest tiles, each `grid` patches of which neighbors share `overlap`, none above `largest` pixels."""
    # A tile of n spans pixels · grid / (grid + (n − 1)(grid − overlap)).
    return max(1, 1 + math.ceil((pixels * grid / largest - grid) / (grid - overlap) - 1e-9))


def read_roi(path: Path, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask (image: not black is inspected) or polygon (.json) → raster (h, w) of 0 and 1 over the whole image.

    A polygon is a list of [x, y], or a list of such lists, whose union counts: in pixels of the image, or, where no
    number is above 1, as shares of its width and height. image_size: (H, W) that it was drawn for. Raises InputError
    for a file that cannot be read, UsageError for a mask of another aspect, for points outside and for nothing inside.
    """
    raster = _polygons(path, image_size) if path.suffix.lower() == ".json" else _mask(path, image_size)
    return check_roi(raster, str(path))


def check_roi(raster: NDArray[Any], name: str = "roi") -> NDArray[np.uint8]:
    """Any (H, W) array, nonzero inside → what a package stores, at most ROI_SIDE on a side; UsageError when empty."""
    if raster.ndim != 2 or raster.size == 0:
        raise UsageError(f"{name}: the region of interest is an array of shape {raster.shape}, expected (H, W)")
    inside = np.asarray(raster) != 0
    if not inside.any():
        raise UsageError(f"{name}: the region of interest is empty: nothing would be inspected; mark what to inspect")
    return _reduced(inside)


def _reduced(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """No side above ROI_SIDE; a cell of the smaller raster is inside where any pixel of it is."""
    reduced = inside
    for axis in (0, 1):
        factor = -(-reduced.shape[axis] // ROI_SIDE)
        if factor > 1:
            # Cells of the smaller raster overlap the pixels [floor(i·n/m), ceil((i+1)·n/m)).
            n, m = reduced.shape[axis], reduced.shape[axis] // factor
            starts = [i * n // m for i in range(m)]
            ends = [-(-(i + 1) * n // m) for i in range(m)]
            moved = np.moveaxis(reduced, axis, 0)
            rows = [moved[start:end].any(axis=0) for start, end in zip(starts, ends, strict=True)]
            reduced = np.moveaxis(np.stack(rows), 0, axis)
    return np.ascontiguousarray(reduced, np.uint8)


def _mask(path: Path, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    image = read_image(path)
    colors = image if image.ndim == 2 else image[..., :3].any(axis=2)
    (height, width), (rows, columns) = image_size, colors.shape
    if abs(columns * height - width * rows) > max(height, width):  # by more than a pixel
        raise UsageError(
            f"{path}: the mask is {rows} x {columns} pixels (height x width), the images are {height} x {width}; "
            "draw it over one of them, at any scale of the same aspect"
        )
    return np.asarray(colors != 0, np.uint8)


def _polygons(path: Path, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give a mask or a polygon") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); a polygon is a list of points [x, y]") from error
    polygons = [_points(path, part) for part in (content if _is_nested(content) else [content])]
    if not polygons:
        raise UsageError(f"{path}: the region of interest is empty; a polygon is a list of points [x, y]")
    height, width = image_size
    relative = max(float(points.max()) for points in polygons) <= 1
    limits = (1.0, 1.0) if relative else (float(width), float(height))
    for points in polygons:
        if points.min() < 0 or (points > limits).any():
            raise UsageError(
                f"{path}: a point lies outside the image; expected x from 0 to {limits[0]:g}, y from 0 to {limits[1]:g}"
            )
    scale = min(1.0, ROI_SIDE / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    raster = np.zeros((rows, columns), np.uint8)
    for points in polygons:
        # Shares of the raster; pixel centers lie at whole numbers for OpenCV, half a pixel from the edge.
        at = points / limits * (columns, rows) - 0.5
        cv2.fillPoly(raster, [np.round(at * 2**_SUBPIXEL).astype(np.int32)], 1, shift=_SUBPIXEL)
    return raster


def _is_nested(content: Any) -> bool:
    """A list of polygons: lists of lists of lists."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, list) and bool(part) and isinstance(part[0], list) for part in content)
    )


def _points(path: Path, part: Any) -> NDArray[np.float64]:
    """(n, 2), finite."""
    try:
        points = np.asarray(part, np.float64)
    except (ValueError, TypeError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise UsageError(f"{path}: a polygon is a list of at least three points [x, y]")
    return points


__all__ = ["DEFAULT_OVERLAP", "DEFECT_PIXELS", "TilingOptions", "check_roi", "read_roi"]
