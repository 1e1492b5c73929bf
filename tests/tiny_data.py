"""Tiny inspection data sets for tests: smooth textures, a white hole as the defect, exact masks; packages of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_package import tiny_graph, tiny_image

from onceover import export
from onceover.detectors import BankSize
from onceover.images import write_image
from onceover.training.fit import FitOptions, fit

HELD_OUT = 19  # 1 / 0.05 − 1: the default false-alarm rate needs so many
HOLE = (slice(8, 24), slice(8, 32))


def tiny_options(**changes: object) -> FitOptions:
    """Fit options with the tiny graph as the backbone."""
    return replace(FitOptions(backbone=tiny_graph()), **changes)  # type: ignore[arg-type]


def good_folder(folder: Path, count: int, first_seed: int = 0) -> Path:
    """`count` images of good parts, 00.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        write_image(folder / f"{i:02}.png", tiny_image(first_seed + i))
    return folder


def defective(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same picture with a white hole, and its mask (0 or 255)."""
    changed, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    changed[HOLE], mask[HOLE] = 255, 255
    return changed, mask


def labelled_folder(root: Path, good: int = 4, bad: int = 4) -> Path:
    """test/good and test/hole with masks, as MVTec lays them out; a size of its own for every other image."""
    for i in range(good):
        (root / "test/good").mkdir(parents=True, exist_ok=True)
        write_image(root / f"test/good/{i:02}.png", tiny_image(500 + i, 40 + 6 * (i % 2)))
    for i in range(bad):
        for folder in ("test/hole", "ground_truth/hole"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image, mask = defective(tiny_image(600 + i, 40 + 10 * (i % 2)))
        write_image(root / f"test/hole/{i:02}.png", image)
        write_image(root / f"ground_truth/hole/{i:02}_mask.png", mask)
    return root


def fitted_package(folder: Path, count: int = 2 * HELD_OUT) -> Path:
    """`tiny.onceover` in `folder`, fitted on `count` good images there; calibrated and adapted when they are enough."""
    adapt = True if count >= 2 * HELD_OUT else None  # not by what some machine finds of four values a patch
    parts = fit(good_folder(folder / "train/good", count), tiny_options(adapt=adapt))
    export.package(parts, folder / "tiny.onceover")
    return folder / "tiny.onceover"


def embedded_package(folder: Path) -> Path:
    """`real.onceover` in `folder`, fitted by onnxruntime with the embedded backbone, and calibrated."""
    options = FitOptions(bank=BankSize(rows=500), coreset="random")
    export.package(fit(good_folder(folder / "good", 2 * HELD_OUT), options), folder / "real.onceover")
    return folder / "real.onceover"
