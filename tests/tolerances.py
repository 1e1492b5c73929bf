"""Named tolerances, each with its derivation. test_tolerances.py shows that they hold and that a defect breaks them."""

from __future__ import annotations

U32 = 2.0**-24  # unit roundoff of float32
U64 = 2.0**-53  # unit roundoff of float64

# Against published golden numbers. The metrics are float64 sums over exact int64 counts: with up to 2^24 terms summed
# pairwise the error stays below (24 + 8)·u = 4e-15 of a value ≤ 1; 1e-12 leaves room for the reference's own order.
EXACT_METRIC = 1e-12
# The official evaluation code keeps the false positive rate in float32: 2^-24 per point, a third of it in the area.
OFFICIAL_AUPRO = 2e-8
# anomalib's does all of it in float32, the limit too: some roundings of 2^-24 of values up to 1.
ANOMALIB_AUPRO = 5e-7
# LOCO's code samples the curve until two points are less than 0.001 apart, so the area up to a small limit is worst.
LOCO_AUSPRO = {"0.01": 1e-3, "0.05": 2e-4, "0.1": 1e-4, "0.3": 1e-4, "1.0": 1e-4}

# Pillow rounds to whole levels between its two passes (±0.5) and again at the end; the core only at the end.
RESIZE_GRAY_LEVELS = 1

# Torch or another engine against the session: both sum some thousand float32 products per value in other orders and
# the errors partly cancel, about 1e-5 through a MobileNetV2. The package's parity record promises this bound.
PARITY_SCORE = 1e-4


def squared_distance_f32(dims: int) -> float:
    """Relative error of a squared distance in the kernels' order of sums (csrc/kernels/kernel_table.h).

    Sixteen partial sums, then a tree: a term is rounded three times (the difference counts twice,
    the product once), ⌈D/16⌉ − 1 times in its partial sum and 4 times in the tree. All terms are ≥ 0, so with
    k = ⌈D/16⌉ + 6 roundings the sum is off by at most k·u / (1 − k·u).
    """
    roundings = -(-dims // 16) + 6
    return roundings * U32 / (1 - roundings * U32)


def distance_f32(dims: int) -> float:
    """Relative error of the distance: the square root halves the error of its argument and is rounded once itself."""
    return squared_distance_f32(dims) / 2 + U32


def bank_distance(dims: int) -> float:
    """Relative error of a distance of a MemoryBank against real arithmetic, for results that are normal in float32.

    The same sum in float64, k = ⌈D/16⌉ + 6 roundings (even the difference of two float32 values may take one), halved
    by the square root, which rounds once more; then one rounding to float32. In all 2^-24 and next to nothing.
    """
    roundings = -(-dims // 16) + 6
    return (1 + (roundings / 2 + 1) * U64 / (1 - roundings * U64)) * (1 + U32) - 1


# A cosine distance is half the square of the distance d ≤ 2 of rows that were normalized in float64 and rounded to
# float32: each row is off by at most u (and 2^-50) of its length 1, so d by 2u, d²/2 by d · 2u ≤ 4u and, second order,
# 2u²; d, its square and nothing else (halving is exact) are rounded: 2u of d and u of d², together ≤ 3u · 2 = 6u.
COSINE_DISTANCE = 10.1 * U32


def anomaly_map_f32(sigma: float) -> float:
    """Error of an upsampled and blurred map in float32, relative to its largest value (all scores ≥ 0).

    Each axis is one sum of products: a weight, rounded once from float64, a product, and a sum less than it has terms.
    A blur of 2 · radius + 1 taps over bilinear cells has at most 2 · radius + 2 terms where the map is no smaller than
    its grid, and 2 · (2 · radius + 1) where it is. Without a blur an axis is rounded no more often than the bilinear
    resize of a map: a fraction, its complement, a product, a sum. Weights are ≥ 0 and sum to 1.
    """
    radius = int(4 * sigma + 0.5)
    roundings = 2 * max(4, 2 * (2 * radius + 1) + 1)
    return roundings * U32 / (1 - roundings * U32)
