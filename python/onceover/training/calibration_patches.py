"""What a package remembers of its held-out parts, so that they can be scored again when the memory bank changes.

The member "calibration_patches" (export/FORMAT.md); csrc/corrections reads it, csrc/compaction writes it anew.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover import _core

TRACKED = 16  # patches of an image whose embeddings are kept: the image score stays exact while its worst is among them
MAX_BYTES = 16_000_000  # about 970 held-out images of 1024 patches; beyond, corrections keep the thresholds as fitted
_RECORD = "<5I44x"


class CalibrationPatches:
    """Collects one image after the other, in the order of the calibration."""

    def __init__(self) -> None:
        self._distances: list[NDArray[np.float32]] = []
        self._nearest: list[NDArray[np.uint32]] = []
        self._patches: list[NDArray[np.uint32]] = []
        self._embeddings: list[NDArray[np.float32]] = []
        self._bytes = 0

    def add(self, session: _core.Session) -> None:
        """The image that the session ran last. Beyond MAX_BYTES all are let go: some would calibrate nothing."""
        if self._bytes > MAX_BYTES:
            return
        worst = np.argsort(-session.patch_scores().ravel(), kind="stable")[:TRACKED]  # of (P,), the cells of all tiles
        self._distances.append(session.patch_distances().ravel())
        self._nearest.append(session.nearest_rows().ravel().astype(np.uint32))
        self._patches.append(worst.astype(np.uint32))
        # (T, D): where tiles overlap, of the one whose score counts
        self._embeddings.append(session.embeddings()[session.patch_features().ravel()[worst]])
        lists = (self._distances, self._nearest, self._patches, self._embeddings)
        self._bytes += sum(each[-1].nbytes for each in lists)
        if self._bytes > MAX_BYTES:
            for each in lists:
                each.clear()

    def to_array(self, groups: Sequence[str]) -> NDArray[np.uint8] | None:
        """The member, uint8 (n,); groups: which part each image shows. None without images, or with too many."""
        if not self._distances:
            return None
        numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        return HeldOutPatches(
            parts=np.array([numbers[group] for group in groups], np.uint32),
            distances=np.stack(self._distances),
            nearest=np.stack(self._nearest),
            patches=np.stack(self._patches),
            embeddings=np.stack(self._embeddings),
        ).to_array()


@dataclass(frozen=True)
class HeldOutPatches:
    """The member's arrays. parts (n,) uint32; distances float32 and nearest uint32 (n, P); patches uint32 (n, T);
    embeddings float32 (n, T, D).
    """

    parts: NDArray[np.uint32]
    distances: NDArray[np.float32]
    nearest: NDArray[np.uint32]
    patches: NDArray[np.uint32]
    embeddings: NDArray[np.float32]

    def to_array(self) -> NDArray[np.uint8]:
        """As a package holds it, uint8 (n,)."""
        count, tracked, dims = self.embeddings.shape
        record = struct.pack(_RECORD, struct.calcsize(_RECORD), count, tracked, self.distances.shape[1], dims)
        arrays = (self.parts, self.distances, self.nearest, self.patches, self.embeddings)
        return np.frombuffer(record + b"".join(array.tobytes() for array in arrays), np.uint8)


__all__ = ["TRACKED", "CalibrationPatches", "HeldOutPatches"]
