"""KolektorSDD2, Božič et al. 2021 (arXiv:2104.06064), and KolektorSDD, Tabernik et al. 2020: every image has a mask.

SDD2: {train,test}/<stem>.png with <stem>_GT.png; an image is defective when its mask has a pixel that is not 0. SDD:
kosNN/PartN.jpg with PartN_label.bmp, without a split. The pickles with weak splits are never opened.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from onceover.images import read_image
from onceover.training.dataset import Dataset, Sample, Split, relative_path, subfolders
from onceover.training.layouts.folders import SPLIT_SEED, draw_split, images_below, is_image, nothing_found
from onceover.training.layouts.layout import Layout

SUFFIXES = ("_GT", "_label")


class Kolektor(Layout):
    expects: ClassVar[str] = "train and test with <stem>.png, <stem>_GT.png; or kos01/Part0.jpg, Part0_label.bmp"

    def matches(self, root: Path) -> bool:
        if _parts(root):
            return True
        splits = [root / split for split in ("train", "test") if (root / split).is_dir()]
        return any(is_image(path) and path.stem.endswith("_GT") for split in splits for path in split.iterdir())

    def read(self, root: Path, category: str | None) -> Dataset:
        problems: list[str] = []
        parts = _parts(root)
        if parts:
            train, test = self._draw(root, parts, problems)
        else:
            train, test = _pairs(root, root / "train", "train", problems), _pairs(root, root / "test", "test", problems)
        if not train and not test:
            raise nothing_found(root, "train and test (<stem>.png and <stem>_GT.png) or in kos01 and so on")
        left_out = [sample for sample in train if sample.label == 1]
        if left_out:
            problems.append(f"{len(left_out)} defective images of train are left out; fit learns from normal ones only")
        for sample in [sample for sample in train if sample.label == -1]:
            problems.append(f"{sample.relative}: left out of train, without a mask nobody knows whether it is normal")
        for sample in [sample for sample in test if sample.label == -1]:
            problems.append(f"{sample.relative}: no mask {sample.path.stem}_GT.* or _label.*; its label is unknown")
        return Dataset(root.resolve().name, tuple(s for s in train if s.label == 0), tuple(test), tuple(problems))

    def _draw(self, root: Path, parts: list[str], problems: list[str]) -> tuple[list[Sample], list[Sample]]:
        """KolektorSDD: the sides of one part stay together."""
        samples = [sample for part in parts for sample in _pairs(root, root / part, "test", problems)]
        train, test = draw_split(samples, {sample.path: sample.path.parent.name for sample in samples})
        drawn = len({sample.path.parent for sample in train})
        problems.append(
            f"KolektorSDD comes without a split: the normal images of {drawn} of {len(parts)} parts, drawn with seed "
            f"{SPLIT_SEED}, are train, all others test"
        )
        return train, test


def _parts(root: Path) -> list[str]:
    return [name for name in subfolders(root) if re.fullmatch(r"kos\d+", name, re.IGNORECASE)]


def _pairs(root: Path, directory: Path, split: Split, problems: list[str]) -> list[Sample]:
    """Images with the label that their mask's content says; -1 where there is no mask."""
    files = images_below(directory)
    masks = {relative_path(path.with_suffix(""), directory): path for path in files if path.stem.endswith(SUFFIXES)}
    samples: list[Sample] = []
    for image in (path for path in files if not path.stem.endswith(SUFFIXES)):
        stem, relative = relative_path(image.with_suffix(""), directory), relative_path(image, root)
        mask = next((masks.pop(stem + suffix) for suffix in SUFFIXES if stem + suffix in masks), None)
        if mask is None:
            samples.append(Sample(image, relative, split, -1, "unknown"))
        elif read_image(mask).any():
            samples.append(Sample(image, relative, split, 1, "defect", mask, positive_from=1))
        else:
            samples.append(Sample(image, relative, split, 0, "good"))
    for stem in sorted(masks, key=os.fsencode):
        problems.append(f"{relative_path(masks[stem], root)}: mask without an image")
    return samples
