"""MVTec AD 2, Heckler-Kram et al. 2025, arXiv:2503.21622: also validation/good, and test sets whose labels are secret.

test_public/{good,bad}, test_public/ground_truth/bad/<stem>_mask.png; test_private and test_private_mixed are flat.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from onceover.training.dataset import Dataset, Sample, relative_path
from onceover.training.layouts.folders import images_below, nothing_found, read_labeled, read_normal
from onceover.training.layouts.layout import Layout

PRIVATE = ("test_private", "test_private_mixed")


class MVTecAD2(Layout):
    expects: ClassVar[str] = "as mvtec, with validation/good, test_public and test_private*"

    def matches(self, root: Path) -> bool:
        return any((root / folder).is_dir() for folder in ("test_public", *PRIVATE))

    def read(self, root: Path, category: str | None) -> Dataset:
        problems: list[str] = []
        train = read_normal(root, "train", problems)
        validation = read_normal(root, "validation", problems)
        test = read_labeled(root, "test_public", "test_public/ground_truth", problems)
        for folder in PRIVATE:
            for image in images_below(root / folder):
                test.append(Sample(image, relative_path(image, root), "test", -1, folder))
        if not train and not test:
            raise nothing_found(root, "train/good or in test_public/<good or bad>")
        splits = [
            tuple(replace(s, condition=_condition(s.path.stem)) for s in part) for part in (train, test, validation)
        ]
        return Dataset(root.resolve().name, splits[0], splits[1], tuple(problems), splits[2])


def _condition(stem: str) -> str:
    """000_overexposed → overexposed, 012_shift_2 → shift_2; empty when the stem tells no lighting."""
    told = re.fullmatch(r"\d+_([A-Za-z]\w*)", stem)
    return told.group(1) if told else ""
