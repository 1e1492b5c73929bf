"""BTAD, Mishra et al. 2021 (VT-ADL): train/ok, test/{ok,ko}, ground_truth/ko/<stem>.png or .bmp.

Read as MVTec AD: masks are paired by stem, for category 03 mixes .bmp and .png, and soft ones are halved by read_mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from onceover.training.dataset import subfolders
from onceover.training.layouts.mvtec import BTAD_KINDS, MVTec


class BTAD(MVTec):
    expects: ClassVar[str] = "train/ok, test/ok, test/ko, ground_truth/ko/<stem>.*"

    def matches(self, root: Path) -> bool:
        kinds = set(subfolders(root / "test"))
        return "ko" in kinds and kinds <= BTAD_KINDS
