"""Which product is in view: how far the image as a whole is from those that a product was fitted on.

The mean embedding of the inspected patches, and its Mahalanobis distance with the shrunken covariance of Ledoit and
Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", eq. 14: a few dozen images never
fill the dimensions of an embedding. Scored by csrc/package/products.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover import _core

MAX_RANK = 64  # axes of their own; along all others the variance is taken to be the same (kMaxGateRank)
MARGIN = 3.0  # of the threshold over the farthest held-out part; docs/products.md has what was measured
_FLOOR = 1e-9  # of the variance beside the squared mean: identical images have none


@dataclass(frozen=True)
class Gate:
    """float32 mean (D,), inverse variances weights (r,) along axes (r, D), isotropic along all others.

    threshold: MARGIN times the largest distance of a held-out part. part_count: of held-out parts.
    """

    mean: NDArray[np.float32]
    weights: NDArray[np.float32]
    axes: NDArray[np.float32]
    isotropic: float
    threshold: float = 1.0
    part_count: int = 0

    def to_bytes(self) -> bytes:
        """The package member."""
        return _core.gate_bytes(
            mean=self.mean,
            weights=self.weights,
            axes=self.axes,
            isotropic=self.isotropic,
            threshold=self.threshold,
            part_count=self.part_count,
        )


def fit_gate(pooled: NDArray[np.float32]) -> Gate:
    """pooled: (n, D), one row per image of the bank, n ≥ 2. The threshold is still 1."""
    n, dims = pooled.shape
    mean = pooled.mean(axis=0, dtype=np.float64)
    centered = pooled - mean
    _, singular, axes = np.linalg.svd(centered, full_matrices=False)
    variances = singular**2 / n  # of the sample covariance S, descending
    scale = max(float(variances.sum()) / dims, _FLOOR * (float(mean @ mean) / dims + _FLOOR))
    distance = (float((variances**2).sum()) - 2 * scale * float(variances.sum()) + dims * scale**2) / dims
    spread = (
        (float((np.einsum("nd,nd->n", centered, centered) ** 2).sum()) / n - float((variances**2).sum())) / n / dims
    )
    shrinkage = 1.0 if distance <= 0 else min(1.0, max(0.0, spread) / distance)
    rank = min(MAX_RANK, n - 1, dims)
    rest = float(variances[rank:].sum()) / max(1, dims - rank)
    isotropic = 1 / max((1 - shrinkage) * rest + shrinkage * scale, _FLOOR * scale)
    weights = 1 / np.maximum((1 - shrinkage) * variances[:rank] + shrinkage * scale, _FLOOR * scale)
    return Gate(
        mean.astype(np.float32), weights.astype(np.float32), np.ascontiguousarray(axes[:rank], np.float32), isotropic
    )


def gate_threshold(distances: NDArray[np.float64]) -> float:
    """distances: (n,) of held-out images, n ≥ 1 → MARGIN times the largest.

    A further part that is exchangeable with n held-out ones exceeds their largest distance with probability at most
    1/(n + 1); the margin lowers that further, by how much no theorem says.
    """
    return max(MARGIN * float(distances.max()), float(np.finfo(np.float32).tiny))


__all__ = ["MARGIN", "Gate", "fit_gate", "gate_threshold"]
