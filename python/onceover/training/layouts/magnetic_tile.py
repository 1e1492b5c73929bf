"""Magnetic tile defects, Huang et al. 2020 (The Visual Computer 36): MT_<kind>/Imgs/<stem>.jpg with <stem>.png as mask.

Masks are anti-aliased: defective from half of the range on. The label is the folder's: four MT_Uneven masks are empty.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from onceover.training.dataset import Dataset, Sample, relative_path, subfolders
from onceover.training.layouts.folders import SPLIT_SEED, draw_split, images_below, nothing_found
from onceover.training.layouts.layout import Layout

POSITIVE_FROM = 128
FREE = "free"


class MagneticTile(Layout):
    expects: ClassVar[str] = "MT_<kind>/Imgs/<stem>.jpg, <stem>.png"

    def matches(self, root: Path) -> bool:
        return bool(_kinds(root))

    def read(self, root: Path, category: str | None) -> Dataset:
        problems: list[str] = []
        samples = [sample for folder in _kinds(root) for sample in _read_kind(root, folder, problems)]
        if not samples:
            raise nothing_found(root, "MT_Free/Imgs, MT_Crack/Imgs and so on")
        train, test = draw_split(samples, None)
        problems.append(
            f"the data set comes without a split: {len(train)} images of MT_Free, drawn with seed {SPLIT_SEED}, are "
            "train, all others test; photographs of one tile may lie on both sides"
        )
        return Dataset(root.resolve().name, tuple(train), tuple(test), tuple(problems))


def _kinds(root: Path) -> list[str]:
    return [name for name in subfolders(root) if name.startswith("MT_") and (root / name / "Imgs").is_dir()]


def _read_kind(root: Path, folder: str, problems: list[str]) -> list[Sample]:
    kind = folder.removeprefix("MT_").lower()
    files = images_below(root / folder / "Imgs")
    masks = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    samples: list[Sample] = []
    for image in (path for path in files if path.suffix.lower() != ".png"):
        relative, mask = relative_path(image, root), masks.pop(image.stem, None)
        if kind == FREE:
            samples.append(Sample(image, relative, "test", 0, kind))
            continue
        if mask is None:
            problems.append(f"{relative}: no mask {image.stem}.png beside it; image-level metrics only")
        samples.append(Sample(image, relative, "test", 1, kind, mask, POSITIVE_FROM))
    for stem in sorted(masks, key=os.fsencode):
        problems.append(f"{relative_path(masks[stem], root)}: mask without an image")
    return samples
