"""Seams of tiles, with the embedded backbone: not seen in the scores of a texture, and no place for a defect to hide.

The texture has nothing at any seam. benchmarks/tile_study.py is the same at full size, with other rules beside ours.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onceover import export
from onceover.detectors import BankSize
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, fit

SIDE, TRAIN, DEFECT = 480, 6, 9
FRESH = range(100, 106)


def texture(seed: int) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): ground sheet metal, as the benchmark draws it."""
    random = np.random.default_rng(seed)
    streaks = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), 30, sigmaY=1.2)
    gray = 128 + 9 * streaks / streaks.std() + 3 * random.normal(0, 1, (SIDE, SIDE))
    return np.repeat(np.clip(np.rint(gray), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def spotted(image: NDArray[np.uint8], y: int, x: int) -> NDArray[np.uint8]:
    changed = image.copy()
    cv2.circle(changed, (x, y), DEFECT // 2, (70, 70, 70), -1)
    return changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    for seed in range(TRAIN):
        write_image(folder / f"{seed}.png", texture(seed))
    return folder


def inspector(folder: Path, overlap: float) -> Inspector:
    options = FitOptions(
        tiling=TilingOptions(tiles=(2, 2), overlap=overlap), bank=BankSize(rows=2000), size=256, holdout=1
    )
    path = folder.parent / f"sheet_{overlap}.onceover"
    export.package(fit(folder, options), path)
    return Inspector.open(path)


def ridge(tiled: Inspector) -> float:
    """How much higher patch scores beside a seam are than others, in standard deviations of a patch."""
    scores = np.stack([tiled.inspect(texture(seed)).patch_scores for seed in FRESH]).astype(np.float64)
    from_seam = np.abs(np.arange(scores.shape[1]) + 0.5 - scores.shape[1] / 2)  # the seams cross in the middle
    to_seam = np.minimum(from_seam[:, None], from_seam[None, :])
    border = np.minimum(np.arange(scores.shape[1]), np.arange(scores.shape[1])[::-1])
    inner = np.minimum(border[:, None], border[None, :]) >= 8  # away from the image's own edges
    near, far = scores[:, inner & (to_seam <= 1)], scores[:, inner & (to_seam > 8)]
    return float((near.mean() - far.mean()) / far.std())


def test_seams_are_not_seen_where_tiles_overlap_and_are_where_they_do_not(folder: Path) -> None:
    assert abs(ridge(inspector(folder, 0.125))) < 0.35
    assert ridge(inspector(folder, 0.0)) > 0.5


def test_a_defect_on_a_seam_is_found_as_within_a_tile(folder: Path) -> None:
    tiled = inspector(folder, 0.125)
    middle, quarter = SIDE // 2, SIDE // 4
    ratios = []
    for seed in FRESH:
        image, shift = texture(seed), seed % 5 - 2
        on_seam = tiled.inspect(spotted(image, quarter + 3 * shift, middle + shift))
        in_tile = tiled.inspect(spotted(image, quarter + 3 * shift, quarter + shift))
        assert on_seam.score > tiled.inspect(image).score
        ratios.append(on_seam.score / in_tile.score)
    assert 0.75 < np.median(ratios) < 1.35
