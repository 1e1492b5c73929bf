"""The methods that bench_metrics.py compares: each peer behind two functions, one that is timed and one that reads.

`prepare` turns a set into a call without arguments; the call is timed and holds all the peer does, from float32 maps
and 0/1 masks in memory to its result. `read` turns the result into named numbers and is not timed. A peer that is not
installed, or fails to load, is left out with its reason.

Where the packages need help (the versions that were looked at):
- pyaupro 0.1.11 carries MVTec's compute_pro as pyaupro._reference, but not MVTec's trapezoid, which is written here.
  Its own computation does not merge ties and does not interpolate at the limit, so it is inexact.
- ADEval 1.1.0 calls np.trapz, which numpy 2.4 lacks; it demands opencv-python, so it is installed without dependencies.
  Its AP is the trapezoid under precision and recall, and it stops on a constant map.
- anomalib 2.7.0 demands lightning, kornia and much more for its AUPRO. Only that module is loaded, with empty modules
  in the place of what it imports but does not use for AUPRO on the CPU.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from anomaly_maps import U8, MapSet
from numpy.typing import NDArray

from onceover import metrics

F64 = NDArray[np.float64]
Call = Callable[[], Any]
Values = dict[str, float]

OURS, OFFICIAL = "onceover", "MVTec official"
SKLEARN = ("sklearn AUROC", "sklearn AP", "sklearn PR curve")
ADEVAL = ("adeval arrays", "adeval accumulator")
LIMITS = (0.3, 0.05)
AUPRO, AUPRO_05, AUROC, AP, F1, F1_THRESHOLD = "aupro@0.3", "aupro@0.05", "auroc", "ap", "f1_max", "f1_threshold"


@dataclass(frozen=True)
class Peer:
    """tolerance: largest difference from ours that its arithmetic explains, None where it is inexact by design.

    bytes_per_pixel: peak memory beside its input, measured for specs/pro_metrics.md, section 3.
    """

    name: str
    family: str  # what --peers selects
    distribution: str
    prepare: Callable[[MapSet], Call]
    read: Callable[[Any], Values]
    tolerance: float | None
    bytes_per_pixel: int = 0
    one_shape: bool = False  # takes (N, H, W) only


def ours(maps: MapSet) -> Call:
    images = list(maps.images())
    return lambda: metrics.segmentation_metrics([image for image, _ in images], [mask for _, mask in images], LIMITS)


def read_ours(report: metrics.SegmentationReport) -> Values:
    return {
        AUPRO: report.aupro[0.3],
        AUPRO_05: report.aupro[0.05],
        AUROC: report.pixel_auroc,
        AP: report.average_precision,
        F1: report.f1_max,
        F1_THRESHOLD: report.f1_max_threshold,
    }


# --- MVTec's official computation ---


def _official(maps: MapSet) -> Call:
    from pyaupro._reference import compute_pro

    scores, masks = maps.stacked()

    def call() -> tuple[F64, F64, float]:
        fpr, pro = compute_pro(scores, masks)
        return fpr, pro, _area_to(fpr, pro, 0.3)

    return call


def _read_official(result: tuple[F64, F64, float]) -> Values:
    fpr, pro, area = result
    return {AUPRO: area, AUPRO_05: _area_to(fpr, pro, 0.05)}


def _area_to(x: F64, y: F64, limit: float) -> float:
    """Trapezoids up to `limit`, interpolated there, divided by it, as MVTec's generic_util.trapezoid. x ascends."""
    stop = int(np.searchsorted(x, limit, side="right"))  # x[:stop] ≤ limit; x ends at 1
    area = float(np.sum(0.5 * (y[1:stop] + y[: stop - 1]) * np.diff(x[:stop])))
    if stop < len(x):
        run = limit - x[stop - 1]
        at_limit = y[stop - 1] + (y[stop] - y[stop - 1]) * run / (x[stop] - x[stop - 1])
        area += 0.5 * (at_limit + y[stop - 1]) * run
    return area / limit


# --- scikit-learn: three calls, each sorts all pixels ---


def _sklearn(function: str) -> Callable[[MapSet], Call]:
    def prepare(maps: MapSet) -> Call:
        from sklearn import metrics as sklearn_metrics

        return lambda: getattr(sklearn_metrics, function)(maps.masks, maps.maps)

    return prepare


def _read_curve(curve: tuple[F64, F64, Any]) -> Values:
    precision, recall, thresholds = curve
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = int(np.argmax(f1[:-1]))  # the last point has no threshold
    return {F1: float(f1[best]), F1_THRESHOLD: float(thresholds[best])}


# --- pyaupro's own ---


def _pyaupro(maps: MapSet) -> Call:
    import torch
    from pyaupro import PerRegionOverlap, auc_compute

    scores, masks = map(torch.from_numpy, maps.stacked())

    def call() -> tuple[Any, Any, Any]:
        metric = PerRegionOverlap(thresholds=None)
        metric.update(scores, masks)
        fpr, pro = metric.compute()
        return fpr, pro, auc_compute(fpr, pro, limit=0.3)

    return call


def _read_pyaupro(result: tuple[Any, Any, Any]) -> Values:
    from pyaupro import auc_compute

    fpr, pro, area = result
    return {AUPRO: float(area), AUPRO_05: float(auc_compute(fpr, pro, limit=0.05))}


# --- ADEval: 1000 equal steps, limit 0.3 ---


def _adeval_module() -> Any:
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010, its old name
    return importlib.import_module("adeval")


def _adeval(maps: MapSet) -> Call:
    adeval = _adeval_module()
    images = list(maps.images())
    scores, masks = [image for image, _ in images], [mask for _, mask in images]  # as arrays or lists, equally fast

    def call() -> Any:
        return adeval.auroc_aupr_aupro(scores, masks)

    return call


def _read_adeval(result: tuple[float, float, float]) -> Values:
    return {AUROC: result[0], AP: result[1], AUPRO: result[2]}


def adeval_accumulator(low: float, high: float) -> Any:
    """It wants the range of all scores before the first image; the exact one is its best case."""
    return _adeval_module().EvalAccumulator(low, high, low, high)


def _adeval_stream(maps: MapSet) -> Call:
    images = list(maps.images())
    low, high = float(maps.maps.min()), float(maps.maps.max())

    def call() -> Any:
        accumulator = adeval_accumulator(low, high)
        for scores, mask in images:
            accumulator.add_anomap(scores, mask)
        with np.errstate(all="ignore"):  # its image metrics have no image: 0 / 0
            return accumulator.summary()

    return call


def _read_adeval_stream(summary: dict[str, float]) -> Values:
    return {AUROC: summary["p_auroc"], AP: summary["p_aupr"], AUPRO: summary["p_aupro"]}


# --- anomalib ---


@contextmanager
def _placeholders(modules: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Modules with these attributes stand in for what is not installed, while something is imported."""
    added = []
    for name, attributes in modules.items():
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            sys.modules[name] = module
            added.append(name)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _anomalib_aupro() -> Any:
    """anomalib's AUPRO without anomalib.metrics, which would import lightning, kornia, matplotlib and others."""
    importlib.import_module("torchmetrics")  # before the placeholders: it looks for matplotlib itself
    package = find_spec("anomalib")
    assert package is not None
    assert package.submodule_search_locations
    folder = package.submodule_search_locations[0]
    unused: dict[str, dict[str, Any]] = {
        "anomalib.metrics": {"__path__": [f"{folder}/metrics"]},
        "anomalib.data": {"Batch": object},
        "kornia": {"__path__": []},
        "kornia.contrib": {"connected_components": None},
        "matplotlib": {"__path__": [], "pyplot": None},
        "matplotlib.axes": {"Axes": object},
        "matplotlib.figure": {"Figure": object},
    }
    with _placeholders(unused):
        return importlib.import_module("anomalib.metrics.aupro")._AUPRO


def _anomalib(maps: MapSet) -> Call:
    import torch

    kind = _anomalib_aupro()
    scores, masks = map(torch.from_numpy, maps.stacked())

    def call() -> float:
        metric = kind(fpr_limit=0.3)
        metric.update(scores, masks)
        return float(metric.compute())

    return call


PEERS = (
    Peer(OFFICIAL, "official", "pyaupro", _official, _read_official, 2e-8, 40, one_shape=True),
    Peer(SKLEARN[0], "sklearn", "scikit-learn", _sklearn("roc_auc_score"), lambda value: {AUROC: value}, 1e-12, 52),
    Peer(SKLEARN[1], "sklearn", "scikit-learn", _sklearn("average_precision_score"), lambda v: {AP: v}, 1e-12, 32),
    Peer(SKLEARN[2], "sklearn", "scikit-learn", _sklearn("precision_recall_curve"), _read_curve, 1e-12, 60),
    Peer("pyaupro", "pyaupro", "pyaupro", _pyaupro, _read_pyaupro, None, 48, one_shape=True),
    Peer("anomalib", "anomalib", "anomalib", _anomalib, lambda value: {AUPRO: value}, 5e-7, 60, one_shape=True),
    Peer(ADEVAL[0], "adeval", "ADEval", _adeval, _read_adeval, None, 1),
    Peer(ADEVAL[1], "adeval", "ADEval", _adeval_stream, _read_adeval_stream, None, 1),
)
FAMILIES = tuple(dict.fromkeys(peer.family for peer in PEERS))


def installed(distribution: str) -> str | None:
    """The version that is installed, if any."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- connected components ---

Labeler = Callable[[U8], int]  # mask → number of regions


def labelers() -> tuple[dict[str, Labeler], list[str]]:
    """8-connected labeling of one mask by every library at hand; and what is missing."""
    found: dict[str, Labeler] = {OURS: lambda mask: len(metrics.connected_components(mask).areas)}
    absent = []
    found["cv2"] = lambda mask: cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)[0] - 1
    if installed("connected-components-3d"):
        cc3d = importlib.import_module("cc3d")
        label = partial(cc3d.connected_components, connectivity=8, return_N=True, binary_image=True)
        found["cc3d"] = lambda mask: label(mask)[1]
    else:
        absent.append("cc3d: connected-components-3d is not installed")
    if installed("scipy"):
        ndimage = importlib.import_module("scipy.ndimage")
        neighbors = np.ones((3, 3), bool)
        found["scipy"] = lambda mask: ndimage.label(mask, neighbors)[1]
    else:
        absent.append("scipy is not installed")
    return found, absent
