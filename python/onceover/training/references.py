"""The reference images of a parity record: what proves the whole preprocessing when a package is verified.

Real pictures alone may not: pictures of the input's own size are not resized, gray ones hide a wrong order of colors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onceover.images import MIN_SIDE, read_image
from onceover.types import ONE_TILE, Image, Preprocessing, Tiling

PICTURES = 3
LONGEST_SIDE = 509  # pictures are cropped to this: prime, so that the resize is never trivial, and small
SHRINKING = 1.5  # an image so many times the input's size is antialiased: a resize that only interpolates differs
MOST_PIXELS = 4_000_000  # of a gray picture that is repeated for tiles: 4 MB in the package
ASPECT = 5  # of the strip; a resize that keeps the aspect, or swaps height and width, differs


def choose_references(
    paths: Sequence[Path], scores: NDArray[np.float32], input_size: Preprocessing, tiling: Tiling = ONE_TILE
) -> list[Image]:
    """Pictures with the lowest, middle and highest of `scores` (one per path, or none), cropped; and made from them:

    a gray one, a strip, and, where no picture is large beside the input, one repeated until it is. Of images that are
    cut into tiles, whose tiles have to be large, the repeated one is gray, and left out beyond MOST_PIXELS.
    """
    order = np.argsort(scores, kind="stable") if len(scores) else np.arange(len(paths))
    picks = {int(order[round(i * (len(order) - 1) / (PICTURES - 1))]) for i in range(PICTURES)}
    pictures = [_crop(read_image(paths[i]), LONGEST_SIDE, LONGEST_SIDE) for i in sorted(picks)]
    # Twice MIN_SIDE: tiles overlap, so that one of n spans at least an n-th.
    low, wide = (2 * MIN_SIDE * n if n > 1 else MIN_SIDE for n in (tiling.rows, tiling.columns))
    pictures = [repeated(picture, max(low, picture.shape[0]), max(wide, picture.shape[1])) for picture in pictures]
    first, last = pictures[0], colored(pictures[-1])
    made = [gray(first), repeated(last, max(low, last.shape[1] // ASPECT), max(ASPECT * MIN_SIDE, last.shape[1]))]
    height = math.ceil(SHRINKING * input_size.height) * tiling.rows
    width = math.ceil(SHRINKING * input_size.width) * tiling.columns
    if tiling != ONE_TILE:
        return pictures + made + ([repeated(gray(last), height, width)] if height * width <= MOST_PIXELS else [])
    if not any(picture.shape[0] >= height and picture.shape[1] >= width for picture in pictures):
        made.append(repeated(last, height, width))
    return pictures + made


def gray(image: Image) -> Image:
    """(H, W, 3) → (H, W): its green."""
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 1])


def colored(image: Image) -> Image:
    """(H, W) → (H, W, 3) whose colors differ, so that their order matters: the image, turned over, mirrored."""
    return image if image.ndim == 3 else np.stack([image, image[::-1], image[:, ::-1]], axis=2)


def repeated(image: Image, height: int, width: int) -> Image:
    """The image cut to (height, width), or repeated side by side until it is that large."""
    times = (-(-height // image.shape[0]), -(-width // image.shape[1]))
    return _crop(np.tile(image, (*times, *(1,) * (image.ndim - 2))), height, width)


def _crop(image: Image, height: int, width: int) -> Image:
    return np.ascontiguousarray(image[:height, :width])


__all__ = ["choose_references"]
