"""Two tiny products on one network, as their own packages: what the tests of packages of several share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_image

from onceover import export
from onceover.images import write_image
from onceover.training.fit import fit

COUNT = 2 * HELD_OUT  # training images of each


def other_image(seed: int) -> NDArray[np.uint8]:
    """Another product: the same kind of picture, darker, its colors turned."""
    return np.ascontiguousarray(tiny_image(seed)[..., ::-1] // 2)


def third_image(seed: int) -> NDArray[np.uint8]:
    """No product of the package."""
    return np.ascontiguousarray(255 - tiny_image(seed) // 3)


def other_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i in range(COUNT):
        write_image(folder / f"{i:02}.png", other_image(i))
    return folder


def fit_plate_and_lid(root: Path) -> tuple[Path, Path]:
    """Packages of two products in `root`, fitted apart on the images in its folders plate and lid; of the lid the left
    half is inspected.
    """
    good_folder(root / "plate", COUNT)
    other_folder(root / "lid")
    roi = np.zeros((4, 4), np.uint8)
    roi[:, :2] = 1
    for name, options in (("plate", tiny_options()), ("lid", tiny_options(roi=roi))):
        export.package(fit(root / name, options), root / f"{name}.onceover")
    return root / "plate.onceover", root / "lid.onceover"
