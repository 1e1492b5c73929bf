"""MVTec AD, Bergmann et al. 2021 (IJCV), and every folder like it: VisA after conversion, 3CAD, most of users' own.

train/good, test/<good or kind of defect>, ground_truth/<kind of defect>/<stem>_mask.*, or <stem>.* or <stem>_GT.*; a
good folder may also be named ok or normal.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from onceover.errors import InputError
from onceover.training.dataset import Dataset, subfolders
from onceover.training.layouts.folders import has_good, nothing_found, read_labeled, read_normal
from onceover.training.layouts.layout import Layout

# Folders by which a relative of this layout is told from it.
LOCO_KINDS = frozenset({"logical_anomalies", "structural_anomalies"})
BTAD_KINDS = frozenset({"ok", "ko"})


class MVTec(Layout):
    expects: ClassVar[str] = "train/good, test/<good or kind>, ground_truth/<kind>/<stem>_mask.*"

    def matches(self, root: Path) -> bool:
        kinds = set(subfolders(root / "test"))
        if kinds & LOCO_KINDS or ("ko" in kinds and kinds <= BTAD_KINDS) or (root / "test_public").is_dir():
            return False
        return bool(kinds) or has_good(root / "train")

    def read(self, root: Path, category: str | None) -> Dataset:
        for split in ("train", "test"):
            for kind in subfolders(root / split):
                if (root / split / kind / "xyz").is_dir():  # its depth and mask files would be taken for images
                    raise InputError(f"{root}: is MVTec 3D-AD ({split}/{kind}/xyz), which onceover does not read")
        problems: list[str] = []
        train = read_normal(root, "train", problems)
        validation = read_normal(root, "validation", problems)
        test = read_labeled(root, "test", "ground_truth", problems)
        if not train and not test:
            raise nothing_found(root, "train/good or in test/<kind>")
        return Dataset(root.resolve().name, tuple(train), tuple(test), tuple(problems), tuple(validation))
