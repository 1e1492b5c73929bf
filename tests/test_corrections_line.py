"""A harmless variant appears on a drawn line: ten confirmed false alarms let parts like it pass, and defects do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_data import HELD_OUT

from onceover import Corrections, Inspector, export
from onceover.images import write_image
from onceover.training.demo_parts import PRODUCTS
from onceover.training.demo_products import draw_part
from onceover.training.fit import FitOptions, fit

FLANGE = next(product for product in PRODUCTS if product.name == "flange")
CORRECTED, FRESH, DEFECTS = 10, 16, 8


def painted(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A dot of paint on the face of a flange, not always at the same place, of the same size or tone."""
    generator = np.random.default_rng(seed)
    center = np.array([picture.shape[0] / 2 - 74, picture.shape[1] / 2]) + generator.normal(0, 3, 2)
    rows, columns = np.indices(picture.shape)
    cover = np.clip(generator.uniform(7, 10) - np.hypot(rows - center[0], columns - center[1]), 0, 1)
    return np.asarray(np.rint(picture * (1 - cover) + generator.normal(225, 6) * cover), np.uint8)


def test_ten_corrections_let_a_harmless_variant_pass_and_no_defect(tmp_path: Path) -> None:
    for i in range(2 * HELD_OUT + 6):
        (tmp_path / "good").mkdir(exist_ok=True)
        write_image(tmp_path / "good" / f"{i:02}.png", draw_part(FLANGE, None, "train/good", i).image)
    package = tmp_path / "flange.onceover"
    export.package(fit(tmp_path / "good", FitOptions(size=256)), package)

    def variants(folder: str, count: int) -> list[NDArray[np.uint8]]:
        return [painted(draw_part(FLANGE, None, folder, i).image, i) for i in range(count)]

    line, fresh = variants("line", CORRECTED), variants("fresh", FRESH)
    chips = [draw_part(FLANGE, "chip", "test/chip", i).image for i in range(DEFECTS)]
    corrections = Corrections.open(package)
    with Inspector.open(package, corrections=corrections) as inspector:

        def flagged(images: list[NDArray[np.uint8]]) -> int:
            return sum(inspector.inspect(image).decision == "anomalous" for image in images)

        before, chips_before = flagged(fresh), flagged(chips)
        assert flagged(line) == CORRECTED
        corrections.confirm([corrections.propose(inspector, image, name="dot")[0] for image in line])
        inspector.apply_corrections()
        assert flagged(line) == 0
        assert flagged(fresh) <= before / 2
        assert flagged(chips) == chips_before
