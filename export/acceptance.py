"""Whether another engine or precision still inspects as the original did: judged by anomaly scores, maps and verdicts.

What top-1 accuracy or feature errors say about a quantized network does not matter here; a detector reads distances.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.detectors.detector import Progress, no_progress
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions
from onceover.training.dataset import Dataset, Sample
from onceover.training.evaluate import EvaluationReport, evaluate
from onceover.types import Verdict

MAP_SIDE = 128  # maps are compared on a grid of at most so many rows and columns
TOP_SHARE = 0.01  # of a map's pixels: where an operator looks
AT_THRESHOLD = 1e-4  # relative to it: scores that rounding may put on either side; the parity replay allows as much
MIN_ORDERED = 3  # images; two are in order or not, by chance


@dataclass(frozen=True)
class Limits:
    """What a package must keep. None: reported, not limited. Metrics are compared where the images have labels."""

    score_difference: float | None  # largest, relative to the original's score
    spearman: float
    flips: int | None
    metric_drop: float  # of image AUROC and of AUPRO


LIMITS = {
    "float32": Limits(1e-4, 0.9999, 0, 1e-3),
    "float16": Limits(None, 0.99, None, 5e-3),
    "int8": Limits(None, 0.99, None, 5e-3),
}


@dataclass(frozen=True)
class Judged:
    """What one package answers for the test images, in their order."""

    scores: NDArray[np.float32]
    decisions: tuple[str, ...]
    maps: tuple[NDArray[np.float32], ...]
    labels: tuple[int, ...]  # 0 normal, 1 anomalous, -1 unknown
    report: EvaluationReport
    threshold: float = math.nan  # of the scores; NaN: none


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the original, over the same images.

    score_difference: the largest |a - b| / b of image scores. spearman: of image scores; NaN below three images.
    score_shift: mean |a - b| over the standard deviation of the original's scores of normal images. map_correlation:
    mean over images of Pearson's coefficient of the anomaly maps; top_overlap: mean intersection over union of their
    top 1 %. flips: images with another verdict, but for those whose scores both lie at the threshold; None where one of
    the packages is uncalibrated. image_auroc, aupro: the
    candidate's, *_change: minus the original's; NaN without labels. false_alarm_rate: of the candidate, and its change.
    """

    images: int
    score_difference: float
    score_shift: float
    spearman: float
    map_correlation: float
    top_overlap: float
    flips: int | None
    image_auroc: float
    image_auroc_change: float
    aupro: float
    aupro_change: float
    false_alarm_rate: float | None
    false_alarm_rate_change: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes null."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def judge(
    package: Path,
    engine: str | EngineOptions,
    dataset: Dataset,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Judged:
    """Inspect every test image of the data set; raises what opening and inspecting raise."""
    scores: list[float] = []
    decisions: list[str] = []
    maps: list[NDArray[np.float32]] = []
    labels: list[int] = []

    def keep(sample: Sample, _image: Any, _mask: Any, verdict: Verdict) -> None:
        step = max(1, math.ceil(max(verdict.anomaly_map.shape) / MAP_SIDE))
        labels.append(sample.label)
        scores.append(verdict.score)
        decisions.append(verdict.decision)
        maps.append(verdict.anomaly_map[::step, ::step].copy())

    with Inspector.open(package, engine, threads, corrections=None) as inspector:
        threshold = inspector.calibration.threshold
        report = evaluate(inspector, dataset, progress=progress, observe=keep)
    return Judged(
        np.array(scores, np.float32),
        tuple(decisions),
        tuple(maps),
        tuple(labels),
        report,
        math.nan if threshold is None else threshold,
    )


def compare(original: Judged, candidate: Judged) -> Comparison:
    """Both judged the same images in the same order."""
    a, b = candidate.scores.astype(np.float64), original.scores.astype(np.float64)
    calibrated = "uncalibrated" not in (*original.decisions, *candidate.decisions)
    other = np.array([x != y for x, y in zip(original.decisions, candidate.decisions, strict=True)], np.bool_)
    flips = int((other & ~(_at_threshold(original) & _at_threshold(candidate))).sum()) if calibrated else None
    good = np.array(original.labels) == 0
    spread = float(b[good].std()) if good.sum() > 1 else float(b.std())
    ours, theirs = candidate.report, original.report
    rates = (ours.false_alarm_rate, theirs.false_alarm_rate)
    return Comparison(
        images=len(a),
        score_difference=float(np.max(np.abs(a - b) / np.maximum(np.abs(b), np.finfo(np.float32).tiny))),
        score_shift=float(np.mean(np.abs(a - b))) / spread if spread > 0 else math.nan,
        spearman=spearman(a, b),
        map_correlation=_mean_over_maps(candidate, original, pearson),
        top_overlap=_mean_over_maps(candidate, original, top_overlap),
        flips=flips,
        image_auroc=ours.image_auroc,
        image_auroc_change=ours.image_auroc - theirs.image_auroc,
        aupro=ours.aupro,
        aupro_change=ours.aupro - theirs.aupro,
        false_alarm_rate=rates[0],
        false_alarm_rate_change=None if rates[0] is None or rates[1] is None else rates[0] - rates[1],
    )


def _at_threshold(judged: Judged) -> NDArray[np.bool_]:
    """(n,): a held-out image whose score became the threshold lies at it exactly."""
    return np.asarray(np.abs(judged.scores - judged.threshold) <= AT_THRESHOLD * judged.threshold)


def problems(found: Comparison, limits: Limits) -> list[str]:
    """What the candidate does not keep; empty when it is accepted."""
    said = []
    if limits.score_difference is not None and not found.score_difference < limits.score_difference:
        said.append(f"scores differ by up to {found.score_difference:.1e}, allowed {limits.score_difference:.0e}")
    if found.images < MIN_ORDERED and limits.score_difference is None:
        said.append(f"{found.images} images are too few to judge by their order, needed {MIN_ORDERED}")
    if found.images >= MIN_ORDERED and not found.spearman >= limits.spearman:  # also true for NaN
        said.append(f"Spearman correlation of scores {found.spearman:.4f}, needed {limits.spearman}")
    if limits.flips is not None and found.flips is not None and found.flips > limits.flips:
        said.append(f"{found.flips} verdicts differ, allowed {limits.flips}")
    for name, change in (("image AUROC", found.image_auroc_change), ("AUPRO", found.aupro_change)):
        if change < -limits.metric_drop:
            said.append(f"{name} falls by {-change:.4f}, allowed {limits.metric_drop:g}")
    return said


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation, ties with their mean rank; NaN below three values or where one side is constant."""
    return pearson(_ranks(a), _ranks(b)) if len(a) >= MIN_ORDERED else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2
    ranks: NDArray[np.float64] = mean_rank[inverse.reshape(values.shape)]
    return ranks


def pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    """1 for two equal constants, NaN where only one is constant."""
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:  # the mean of a constant may differ from it by a rounding
        return 1.0 if np.array_equal(x, y) else math.nan
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def top_overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union of the top 1 % of two maps of one shape."""
    count = max(1, round(TOP_SHARE * a.size))
    top = [set(np.argsort(-part.ravel(), kind="stable")[:count].tolist()) for part in (a, b)]
    return len(top[0] & top[1]) / len(top[0] | top[1])


def _mean_over_maps(candidate: Judged, original: Judged, measure: Callable[[Any, Any], float]) -> float:
    values = [measure(a, b) for a, b in zip(candidate.maps, original.maps, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of them NaN
        return float(np.nanmean(values)) if values else math.nan


__all__ = ["LIMITS", "Comparison", "Judged", "Limits", "compare", "judge", "pearson", "problems", "spearman"]
