"""What a package remembers of its held-out parts stays small; what it is used for: test_bank_corrections.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onceover.training import calibration_patches
from onceover.training.calibration_patches import TRACKED, CalibrationPatches

PATCHES, DIMS = 64, 4
IMAGE_BYTES = PATCHES * 8 + TRACKED * (4 + 4 * DIMS)


class LastRun:
    """A session that ran an image, as far as it is asked."""

    def patch_scores(self) -> Any:
        return np.arange(PATCHES, dtype=np.float32).reshape(8, 8)

    def patch_distances(self) -> Any:
        return np.ones((8, 8), np.float32)

    def nearest_rows(self) -> Any:
        return np.zeros((8, 8), np.int64)

    def patch_features(self) -> Any:
        return np.arange(PATCHES).reshape(8, 8)

    def embeddings(self) -> Any:
        return np.ones((PATCHES, DIMS), np.float32)


@pytest.mark.parametrize(("images", "kept"), [(3, True), (4, False), (9, False)])
def test_all_held_out_images_are_remembered_or_none(images: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_patches, "MAX_BYTES", 3 * IMAGE_BYTES)
    patches = CalibrationPatches()
    for _ in range(images):
        patches.add(LastRun())  # type: ignore[arg-type]
    member = patches.to_array([str(i) for i in range(images)])
    assert (member is not None) == kept
    if member is not None:
        assert len(member) == 64 + images * (IMAGE_BYTES + 4)
