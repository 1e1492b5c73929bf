"""The exact segmentation metrics of a test set: an accumulator that streams, merges and is saved."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from onceover import _core
from onceover.arrays import real_number, whole_number
from onceover.errors import InputError, UnsupportedPackageError, UsageError
from onceover.metrics import bootstrap as bootstrapping
from onceover.metrics import curve as curves
from onceover.metrics import inputs, storage
from onceover.metrics.bootstrap import Interval
from onceover.metrics.curve import SegmentationCurve
from onceover.metrics.regions import connected_components
from onceover.metrics.report import SegmentationReport, report_of
from onceover.metrics.summaries import ImageSummary, summarize

_EMPTY = "no images: the metrics of an empty test set are undefined; give at least one"


class SegmentationMetrics:
    """Collects a test set image by image and computes its metrics, exactly.

    State: at most 2 bytes per normal and 8 per anomalous pixel (8 more per pixel that counts in a channel) and a fixed
    part, whatever the scores; no map is kept. However the images are ordered and split over accumulators that are
    merged, the result has the same bits (without a page budget). An accumulator serves one thread at a time and refuses
    a second one with UsageError; give each its own and merge.
    """

    def __init__(
        self,
        fpr_limits: Sequence[float] = (0.3,),
        *,
        connectivity: int = 8,
        page_budget_bytes: int | None = None,
        bootstrap: bool = False,
    ) -> None:
        """fpr_limits: where the PRO and sPRO areas end, each in (0, 1]; may be chosen again in `compute`.

        connectivity: of regions, 8 as in the definition, or 4. page_budget_bytes: memory for the counters of normal
        scores between updates, 4 MiB or more; when it does not suffice they are coarsened and reports carry certified
        bounds.
        bootstrap: keep a summary of each image, about 40 KB and at most 128 KB, for `intervals`; updates take four
        times as long. Raises UsageError.
        """
        if page_budget_bytes is not None:
            page_budget_bytes = whole_number(page_budget_bytes, "page_budget_bytes")
        if page_budget_bytes is not None and page_budget_bytes < 1:
            raise UsageError(f"page_budget_bytes is {page_budget_bytes}, expected at least 1, or None for no budget")
        self._fpr_limits = inputs.fpr_limits(fpr_limits)
        self._connectivity = inputs.connectivity(connectivity)
        self._page_budget_bytes = page_budget_bytes
        self._core = _core.SegmentationState(self._connectivity, page_budget_bytes or 0)
        # name → images with an anomalous pixel. The core numbers kinds by their place here, from 1; 0 has no name.
        self._defects: dict[str, int] = {}
        self._summaries: list[bytes] | None = [] if bootstrap else None
        self._lock = threading.Lock()  # not for waiting: names and core must not come apart

    def update(self, anomaly_map: Any, mask: Any = None, *, defect: str | None = None) -> None:
        """Add an image: anomaly_map float32, float16, uint8 or uint16 (H, W), read in place; mask (H, W) or None.

        Non-zero mask pixels are anomalous; no mask: a good image. defect: the kind, for the breakdown by defect, which
        takes no note of images without anomalous pixels. Sizes may differ from image to image. ±inf are scores. Raises
        InputError, and changes nothing, for a NaN, another dtype, a soft mask, or a mask of another shape.
        """
        with self._turn():
            index = self._core.images
            scores = inputs.anomaly_map(anomaly_map, index)
            truth = None if mask is None else inputs.binary_mask(mask, scores.shape, f"mask {index}")
            summary = self._summary(scores, truth, [], [])
            regions = self._core.update(scores, truth, self._group(defect))
            self._count(defect, regions, summary)

    def update_channels(
        self, anomaly_map: Any, channels: Iterable[Any], saturation_areas: Iterable[int], *, defect: str | None = None
    ) -> None:
        """Add an image whose defects are given one mask each, as in MVTec LOCO AD: channels (H, W), may overlap.

        saturation_areas: for each, the pixels from which it counts as found, see `saturation_area`. sPRO weighs the
        channels; all other metrics see their union. Raises as `update` does.
        """
        with self._turn():
            index = self._core.images
            scores = inputs.anomaly_map(anomaly_map, index)
            masks, areas = inputs.channel_masks(channels, saturation_areas, scores.shape, index)
            union = np.any(masks, axis=0) if masks and self._summaries is not None else None
            summary = self._summary(scores, union, masks, areas)
            regions = self._core.update_channels(scores, masks, areas, self._group(defect))
            self._count(defect, regions, summary)

    def merge(self, other: SegmentationMetrics) -> None:
        """Add all images of `other`, which stays as it is. Raises UsageError if connectivity or bootstrap differ."""
        if not isinstance(other, SegmentationMetrics):
            raise UsageError(f"only SegmentationMetrics can be merged, not {type(other).__name__}")
        with self._turn(), contextlib.nullcontext() if other is self else other._turn():
            self._merge(other)

    def _merge(self, other: SegmentationMetrics) -> None:
        if self._connectivity != other._connectivity:
            raise UsageError(f"regions are {self._connectivity}-connected here, {other._connectivity}-connected there")
        if (self._summaries is None) != (other._summaries is None):
            raise UsageError("only one of the two keeps summaries for the bootstrap; create both alike")
        defects = dict(self._defects)
        for name, images in other._defects.items():
            defects[name] = defects.get(name, 0) + images
        self._core.merge(other._core, _groups_in(defects, other))
        self._defects = defects
        if self._summaries is not None and other._summaries is not None:
            self._summaries += list(other._summaries)

    def __iadd__(self, other: SegmentationMetrics) -> SegmentationMetrics:
        self.merge(other)
        return self

    def compute(self, fpr_limits: Sequence[float] | None = None) -> SegmentationReport:
        """All metrics of the images so far, at the limits given here or to the constructor; may be called any time.

        Raises InputError when there are none. Warns when a metric is NaN for want of a class; `reason` tells which.
        """
        limits = self._fpr_limits if fpr_limits is None else inputs.fpr_limits(fpr_limits)
        return self._compute(limits, stacklevel=3)

    def curve(self, defect: str | None = None, *, thresholds: Sequence[float] = ()) -> SegmentationCurve:
        """The PRO, ROC and precision-recall curve, of all anomalous pixels or of one kind of defect.

        thresholds: further ones to make vertices of, exact unless a budget coarsened the state, so that
        `SegmentationCurve.at` knows them; this copies the state. Raises InputError without images or for want of a
        class, UsageError for an unknown defect.
        """
        if defect is not None and defect not in self._defects:
            raise UsageError(f"no image has the defect {defect!r}; known: {', '.join(sorted(self._defects)) or 'none'}")
        report = self._report((), defect)
        if report.reason:
            raise InputError(f"there is no curve: {report.reason}")
        found = SegmentationCurve(**self._core.curve(-1 if defect is None else self._group(defect)))
        if np.ndim(thresholds) != 1:
            raise UsageError(f"thresholds is {thresholds!r}, expected several numbers, such as (0.5,)")
        numbers = [real_number(threshold, "a threshold") for threshold in thresholds]
        if not numbers:
            return found
        if any(math.isnan(threshold) for threshold in numbers):
            raise UsageError("a threshold is NaN; nothing is at or above it")
        asked = np.unique([curves.float32_at_or_above(threshold) for threshold in numbers])  # ascending
        # An anomalous pixel of a kind of its own at each threshold: the core ranks it among the normal ones.
        probe = _core.SegmentationState(self._connectivity)  # no budget: it must not coarsen any further
        probe.merge(self._core)
        free = probe.groups
        probe.update(asked[None], np.ones((1, len(asked)), np.uint8), free)
        ranks = SegmentationCurve(**probe.curve(free))
        fpr = np.array([ranks.at(float(threshold)).fpr for threshold in asked])
        return curves.with_points(found, asked, fpr, report.normal_pixels, report.anomalous_pixels)

    def intervals(self, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """Bootstrap confidence intervals of the metrics, images drawn with replacement; names as in report.values().

        The same images, arguments and machine give the same numbers in any order of updates and merges. Raises
        UsageError without bootstrap=True, InputError without images.
        """
        if self._summaries is None:
            raise UsageError("no summaries were kept; create the metrics with bootstrap=True")
        level, resamples, seed = bootstrapping.checked(level, resamples, seed)
        exact = self._report(self._fpr_limits, None).values()
        summaries = [ImageSummary.from_bytes(data) for data in sorted(self._summaries)]
        return bootstrapping.intervals(summaries, exact, level, resamples, seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, completely or not at all. Raises OutputError when it cannot be written."""
        _core.save_atomically(os.fspath(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SegmentationMetrics:
        """What `save` wrote. Raises InputError when the file cannot be read, is damaged or of another version."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise InputError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
        return cls.from_bytes(data, os.fspath(path))

    def to_bytes(self) -> bytes:
        """What `save` writes; the same bytes for the same images in any order, and the format of pickles."""
        defects = dict(sorted(self._defects.items()))
        core = self._core
        if list(defects) != list(self._defects) or core.groups > len(defects) + 1:  # number the kinds by their names
            core = _core.SegmentationState(self._connectivity, self._page_budget_bytes or 0)
            core.merge(self._core, _groups_in(defects, self))
        options = (self._fpr_limits, self._connectivity, self._page_budget_bytes)
        return storage.pack(storage.Stored(*options, defects, core.to_bytes(), self._summaries))

    @classmethod
    def from_bytes(cls, data: bytes, label: str = "segmentation metrics") -> SegmentationMetrics:
        """label: what errors call the data. Raises InputError for what `to_bytes` did not write."""
        stored = storage.unpack(data, label)
        made = cls(
            stored.fpr_limits,
            connectivity=stored.connectivity,
            page_budget_bytes=stored.page_budget_bytes,
            bootstrap=stored.summaries is not None,
        )
        try:
            made._core = _core.SegmentationState.from_bytes(stored.core)
        except (InputError, UnsupportedPackageError) as error:
            raise InputError(f"{label}: {error}") from error
        groups = len(stored.defects) + 1 if made.images or stored.defects else 0
        if (made._core.groups, made._core.connectivity) != (groups, stored.connectivity):
            raise InputError(f"{label}: kinds of defects or connectivity do not fit the state; compute it again")
        if stored.summaries is not None and len(stored.summaries) != made.images:
            raise InputError(f"{label}: {len(stored.summaries)} summaries of {made.images} images; compute it again")
        made._defects = dict(stored.defects)
        if stored.summaries is not None:
            made._summaries = list(stored.summaries)
        return made

    def __reduce__(self) -> tuple[Callable[[bytes], SegmentationMetrics], tuple[bytes]]:
        return type(self).from_bytes, (self.to_bytes(),)

    @property
    def images(self) -> int:
        """Images so far."""
        return self._core.images

    @property
    def state_bytes(self) -> int:
        """Memory of the counters and of the anomalous pixels."""
        return self._core.state_bytes

    def __repr__(self) -> str:
        pixels = f"{self._core.normal_pixels} normal and {self._core.anomalous_pixels} anomalous pixels"
        return f"SegmentationMetrics({self.images} images, {pixels}, fpr_limits={self._fpr_limits})"

    def _compute(self, limits: tuple[float, ...], stacklevel: int) -> SegmentationReport:
        report = self._report(limits, None)
        if report.reason:
            warnings.warn(report.reason, RuntimeWarning, stacklevel=stacklevel)
        for name in sorted(self._defects):
            report.by_defect[name] = self._report(limits, name)
        return report

    def _report(self, limits: tuple[float, ...], defect: str | None) -> SegmentationReport:
        if self.images == 0:
            raise InputError(_EMPTY)
        if defect is None:
            return report_of(self._core.compute(list(limits)), limits, self.images)
        return report_of(self._core.compute(list(limits), self._group(defect)), limits, self._defects[defect])

    def _group(self, defect: str | None) -> int:
        """The core's number for a kind of defect; for a new one, the number it will get."""
        if defect is None:
            return 0
        if not isinstance(defect, str) or not defect:
            raise UsageError(f"defect is {defect!r}, expected the name of a kind of defect")
        names = list(self._defects)
        return 1 + (names.index(defect) if defect in self._defects else len(names))

    def _summary(self, scores: inputs.Map, mask: Any, channels: list[inputs.Mask], areas: list[int]) -> bytes | None:
        """None without bootstrap. Before the core takes the image, so that a failure loses nothing."""
        if self._summaries is None or np.isnan(scores).any():  # the core refuses a NaN, and says it better
            return None
        components = connected_components(mask, self._connectivity) if mask is not None and mask.any() else None
        return summarize(scores, components, channels, areas).to_bytes()

    def _count(self, defect: str | None, regions: int, summary: bytes | None) -> None:
        if defect is not None and regions:
            self._defects[defect] = self._defects.get(defect, 0) + 1
        if self._summaries is not None and summary is not None:
            self._summaries.append(summary)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise UsageError("these SegmentationMetrics are in use by another thread; give each its own and merge")
        try:
            yield
        finally:
            self._lock.release()


def _groups_in(defects: dict[str, int], metrics: SegmentationMetrics) -> list[int]:
    """For each group of the core of `metrics`, its number when kinds are numbered by their place in `defects`.

    Two workers may have met the kinds in different orders. A last group without a name is empty: it was made for an
    image that turned out to have no anomalous pixel.
    """
    numbers = {name: place for place, name in enumerate(defects, 1)}
    named = [0, *(numbers[name] for name in metrics._defects)]
    groups = metrics._core.groups
    return (named + [0] * groups)[:groups]
