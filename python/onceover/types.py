"""The nouns everything else talks about, frozen. A result does not know where it came from or how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Decision = Literal["uncalibrated", "normal", "anomalous", "wrong_part"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)  # in the order of session.h, whose numbers a parity record keeps
Image = NDArray[Any]  # uint8 or uint16; (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA


@dataclass(frozen=True)
class Preprocessing:
    """Image → network input: resize to (height, width), antialiased triangle filter, then (x/255 − mean)/std."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class GraphSpec:
    """What an exported backbone says of itself (ONNX metadata key "onceover.backbone")."""

    name: str
    preprocessing: Preprocessing
    grid_height: int
    grid_width: int
    embedding_dim: int
    strides: tuple[int, ...]
    weights: dict[str, Any] = field(hash=False)  # the weights card: source, license, training data, sha256
    resizable: int = 0  # the graph can be made for sides that are a multiple of this; 0: only for its own
    sides: tuple[int, ...] = ()  # of squares, where it can be made for these only (attention windows)


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles that a large image is cut into; overlaps in patches (csrc/image/tiling.h)."""

    rows: int = 1
    columns: int = 1
    overlap_rows: int = 0
    overlap_columns: int = 0

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def fields(self) -> tuple[int, int, int, int]:
        return self.rows, self.columns, self.overlap_rows, self.overlap_columns


ONE_TILE = Tiling()


@dataclass(frozen=True)
class Calibration:
    """Held-out normal parts and the threshold they support (split conformal, or cross-conformal where they are few).

    scores, map_maxima: float32 (n,), one value per independent part (its highest), ascending.
    threshold: an image score above it is anomalous; None when uncalibrated. cross_conformal: every part was scored by a
    bank without its fold, for which twice the rate is what is proven. confidence: with this probability over the draw
    of parts the realised rate is at most false_alarm_rate; None: the rate holds on average.
    """

    false_alarm_rate: float
    threshold: float | None
    map_threshold: float | None
    scores: NDArray[np.float32] = field(hash=False)
    map_maxima: NDArray[np.float32] = field(hash=False)
    image_count: int
    cross_conformal: bool = False
    confidence: float | None = None

    @classmethod
    def of_record(cls, stored: Mapping[str, Any]) -> Calibration:
        """From what the core reads of a package, where the thresholds of an uncalibrated one are infinite."""
        calibrated = stored["calibrated"]
        return cls(
            false_alarm_rate=stored["false_alarm_rate"],
            threshold=stored["threshold"] if calibrated else None,
            map_threshold=stored["map_threshold"] if calibrated else None,
            scores=stored["scores"],
            map_maxima=stored["map_maxima"],
            image_count=stored["image_count"],
            cross_conformal=stored["cross_conformal"],
            confidence=stored["confidence"] or None,
        )

    @property
    def calibrated(self) -> bool:
        return self.threshold is not None

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def score_range(self) -> ScoreRange:
        """Where the scores of normal parts lie."""
        if self.n == 0:
            return ScoreRange(None, None, None, self.threshold)
        lowest, median, highest = (float(value) for value in np.quantile(self.scores, (0, 0.5, 1)))
        return ScoreRange(lowest, median, highest, self.threshold)

    @property
    def method(self) -> str:
        """How far the threshold can be trusted: "split conformal", "cross-conformal" or "uncalibrated"."""
        if not self.calibrated:
            return "uncalibrated"
        return "cross-conformal" if self.cross_conformal else "split conformal"


@dataclass(frozen=True)
class NearestPatch:
    """Why a patch has its score: the patch of a normal image that comes nearest to it, and how near.

    patch: (row, column) in the patch grid of the inspected image; box: (top, left, bottom, right) of it, as parts 0 … 1
    of the image's height and width. distance: its score, weighed by position where the package does; times_threshold:
    in multiples of the threshold, None without one. bank_row: the memory bank row of the normal patch. image,
    image_index, image_patch, image_box: the normal image it was cut from, as fit called it, its number among the
    package's bank images, the patch in its grid and the box there; None where the package does not say.
    """

    patch: tuple[int, int]
    box: tuple[float, float, float, float]
    distance: float
    times_threshold: float | None
    bank_row: int
    image: str | None = None
    image_index: int | None = None
    image_patch: tuple[int, int] | None = None
    image_box: tuple[float, float, float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class ScoreRange:
    """What to compare a score with: the scores of the held-out normal parts, and the threshold made of them.

    lowest, median, highest: None without held-out parts. threshold: None when uncalibrated.
    """

    lowest: float | None
    median: float | None
    highest: float | None
    threshold: float | None


@dataclass(frozen=True)
class Region:
    """A connected part of the anomaly map above the map threshold, in pixels of the image.

    box: (top, left, bottom, right), bottom and right exclusive. peak: (row, column) of its largest map value.
    centroid: (row, column), the mean of its pixels, each counting alike; pixel centers are whole numbers. contour:
    int32 (n, 2), row and column of each pixel along its outer border, clockwise as seen, from the first one in row
    order, closed; a one-pixel-wide part is told there and back. reason: of the patch under its peak. p_value: of
    peak_value among the largest map values of the calibration parts, (1 + #{parts ≥ peak_value}) / (n + 1).
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    peak_value: float
    centroid: tuple[float, float]
    contour: NDArray[np.int32] = field(repr=False, compare=False)
    reason: NearestPatch | None = None
    p_value: float = 1.0

    def to_dict(self, contour: bool = False) -> dict[str, Any]:
        """For JSON, with the contour only if asked for: it has a point for every pixel of the outline."""
        told = {name: value for name, value in vars(self).items() if name not in ("contour", "reason")}
        told["reason"] = None if self.reason is None else self.reason.to_dict()
        return {**told, "contour": self.contour.tolist()} if contour else told


@dataclass(frozen=True)
class Timing:
    """Milliseconds per stage."""

    prepare_ms: float
    engine_ms: float
    score_ms: float
    map_ms: float

    @property
    def total_ms(self) -> float:
        return self.prepare_ms + self.engine_ms + self.score_ms + self.map_ms


@dataclass(frozen=True)
class Latency:
    """Milliseconds per image, of `runs` timed runs."""

    median_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class Verdict:
    """What the session says of one image.

    score: float32 distance, higher is more anomalous, never rescaled. p_value: share of normal parts at least this
    anomalous, (1 + #{calibration ≥ score}) / (n + 1), which is 1 without calibration parts. anomaly_map: float32 (H, W)
    of the image, raw.
    patch_scores: float32 (h, w). regions: where an anomalous image is above the map threshold, largest peak first; none
    for a normal one, and possibly none for an anomaly smaller than the blur (see worst_patch). nearest: memory bank
    row nearest to the worst patch. reason: which patch of which normal image that is, and how near; normal_range: the
    scores of normal parts to compare it with. Both are None in a verdict that nobody explained. roi: bool (H, W), True
    where the package inspects, None where it inspects all; the map is 0 outside. product: whose bank and thresholds
    were used, None where the package has one. gate: how far the image as a whole is from the product's own, None where
    that was not asked; above 1 the decision is "wrong_part", and score and map are those of the nearest product.
    corrections: id of the journal that was applied, None without one.
    """

    score: float
    p_value: float
    decision: Decision
    threshold: float | None
    anomaly_map: NDArray[np.float32] = field(repr=False, hash=False)
    patch_scores: NDArray[np.float32] = field(repr=False, hash=False)
    map_threshold: float | None
    regions: tuple[Region, ...]
    worst_patch: tuple[int, int]
    nearest: int
    timing: Timing
    reason: NearestPatch | None = None
    normal_range: ScoreRange | None = None
    product: str | None = None
    gate: float | None = None
    roi: NDArray[np.bool_] | None = field(default=None, repr=False, hash=False)
    corrections: str | None = None

    @property
    def is_anomalous(self) -> bool | None:
        """None when the package is uncalibrated: there is a score, but no verdict. A wrong part is anomalous, too."""
        return None if self.decision == "uncalibrated" else self.decision != "normal"

    def to_dict(self, contours: bool = False) -> dict[str, Any]:
        """Everything but the pictures, for JSON; the outlines of regions only if asked for."""
        return {
            "decision": self.decision, "is_anomalous": self.is_anomalous, "score": self.score,
            "p_value": self.p_value, "threshold": self.threshold, "map_threshold": self.map_threshold,
            "worst_patch": list(self.worst_patch), "nearest": self.nearest, "corrections": self.corrections,
            "reason": None if self.reason is None else self.reason.to_dict(),
            "normal_range": None if self.normal_range is None else asdict(self.normal_range),
            "regions": [region.to_dict(contours) for region in self.regions],
            **({} if self.product is None else {"product": self.product}),
            **({} if self.gate is None else {"gate": self.gate}),
            "timing": {**asdict(self.timing), "total_ms": self.timing.total_ms},
        }  # fmt: skip
