"""Bad input to the segmentation metrics: refused by name, or NaN with a reason; never a wrong number. And no copies.

The rows are those of the table of bad inputs in issue 4: what other implementations answer silently.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onceover import metrics
from onceover.errors import InputError, UsageError
from onceover.metrics import inputs

MAP, MASK = np.arange(12, dtype=np.float32).reshape(3, 4), np.eye(3, 4, dtype=np.uint8)
NAN_MAP = np.where(MAP > 9, np.float32(np.nan), MAP)
RANDOM = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)


@pytest.mark.parametrize(
    ("maps", "masks", "said"),
    [
        ([MAP, NAN_MAP], [MASK, MASK], "image 1: 2 of 12 scores are NaN"),
        ([MAP, MAP * np.nan], [MASK, None], "image 1: 12 of 12 scores are NaN"),
        ([NAN_MAP.astype(np.float16)], [MASK], "image 0: 2 of 12 scores are NaN"),
        ([MAP], [MASK.T], r"mask 0 has shape \(4, 3\), its anomaly map \(3, 4\)"),
        ([MAP], [MASK.reshape(2, 6)], r"mask 0 has shape \(2, 6\), its anomaly map \(3, 4\)"),
        ([MAP], [np.stack([MASK] * 3, 2)], r"mask 0 has shape \(3, 4, 3\).*take one of its channels, as in \[..., 0\]"),
        ([MAP], [MASK[None]], r"mask 0 has shape \(1, 3, 4\).*take away the axes of length 1"),
        ([MAP], [MASK, MASK], "only 1 maps"),
        ([MAP, MAP], [MASK], "only 1 masks"),
        ([], [], "no images"),
        ([MAP], [MASK * 0.4], "mask 0 is soft"),
        ([MAP], [MASK * math.nan], "mask 0 is soft"),
        ([MAP], [MASK.astype(np.int8) * -1], "mask 0 holds negative"),
        ([MAP.astype(np.float64)], [MASK], r"map 0 is float64, expected float32; cast it with .astype\(np.float32\)"),
        ([MAP.astype(np.int64)], [MASK], r"map 0 is int64, expected float32 \(or float16, uint8, uint16\)"),
        ([MAP > 3], [MASK], "map 0 is bool, expected float32"),
        ([MAP[None]], [MASK], r"map 0 is \(1, 3, 4\).*of maps \(N, 1, H, W\) by maps\[:, 0\]"),
        (MAP, MASK, r"map 0 is \(4,\).*one by one"),  # type: ignore[arg-type]
        (None, [MASK], "maps is NoneType, expected one array"),
        ([MAP], 3, "masks is int, expected one array"),
        ([MAP[:0]], [MASK[:0]], r"map 0 is \(0, 4\)"),
        ([[1, 2]], [MASK], "map 0 is list"),
        ([None], [MASK], "map 0 is NoneType"),
        ([MAP], [MASK.astype(str)], "expected bool or uint8"),
        ([MAP], [MASK.tolist()], "mask 0 is list"),
        ([np.ma.masked_array(MAP, MASK > 0)], [MASK], "masked array"),
    ],
)
def test_bad_maps_and_masks_are_refused_by_name(maps: list[Any], masks: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        metrics.segmentation_metrics(maps, masks)


@pytest.mark.parametrize(
    ("anomaly_map", "mask"), [(NAN_MAP, MASK), (MAP, MASK.T), (MAP, MASK * 0.4), (MAP.astype(np.float64), MASK)]
)
def test_a_refused_image_changes_nothing(anomaly_map: NDArray[Any], mask: NDArray[Any]) -> None:
    collected = metrics.SegmentationMetrics(bootstrap=True)
    collected.update(MAP, MASK, defect="hole")
    before = collected.to_bytes()
    with pytest.raises(InputError):
        collected.update(anomaly_map, mask, defect="scratch")
    assert collected.to_bytes() == before


def test_an_image_is_named_by_its_number_among_all_of_the_accumulator() -> None:
    collected = metrics.SegmentationMetrics()
    for _ in range(5):
        collected.update(MAP, MASK)
    with pytest.raises(InputError, match="image 5: 2 of 12 scores are NaN"):
        collected.update(NAN_MAP, MASK)


# ---------------------------------------------------------------- what is undefined


@pytest.mark.parametrize(("mask", "lacking"), [(MASK * 0, "anomalous"), (MASK * 0 + 1, "normal")])
def test_without_anomalous_or_normal_pixels_metrics_are_nan_with_a_reason(mask: NDArray[Any], lacking: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"no {lacking} pixel") as caught:
        report = metrics.segmentation_metrics([MAP], [mask])
    assert len(caught) == 1
    values = (report.aupro[0.3], report.pixel_auroc, report.average_precision, report.f1_max, report.f1_max_threshold)
    assert all(math.isnan(value) for value in values)
    assert report.reason is not None
    assert f"no {lacking} pixel" in report.reason
    assert (report.normal_pixels, report.anomalous_pixels) == ((12, 0) if lacking == "anomalous" else (0, 12))


def test_the_warning_points_at_the_line_that_asked() -> None:
    collected = metrics.SegmentationMetrics()
    collected.update(MAP)
    calls = (
        lambda: collected.compute(),
        lambda: metrics.segmentation_metrics([MAP], [None]),
        lambda: metrics.aupro([MAP], [None]),
        lambda: metrics.pixel_auroc([MAP], [None]),
    )
    for call in calls:
        with pytest.warns(RuntimeWarning) as caught:
            call()
        assert [warning.filename for warning in caught] == [__file__]


def test_a_defined_set_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.segmentation_metrics([MAP], [MASK]).reason is None


def test_an_empty_accumulator_has_no_metrics_curve_or_intervals() -> None:
    empty = metrics.SegmentationMetrics(bootstrap=True)
    for asked in (empty.compute, empty.curve, empty.intervals):
        with pytest.raises(InputError, match="no images"):
            asked()


def test_a_set_of_one_class_has_no_curve() -> None:
    collected = metrics.SegmentationMetrics()
    collected.update(MAP)
    with pytest.raises(InputError, match="no anomalous pixel"):
        collected.curve()


# ---------------------------------------------------------------- what is accepted, and in place


@pytest.mark.parametrize(
    "mask",
    [
        MASK * 255,
        MASK * 7,
        MASK * 1.0,
        MASK * 255.0,
        MASK.astype(bool),
        MASK.astype(np.int64),
        MASK.astype(np.uint16) << 9,
    ],
)
def test_any_unsoft_mask_means_the_same(mask: NDArray[Any]) -> None:
    assert metrics.segmentation_metrics([MAP], [mask]) == metrics.segmentation_metrics([MAP], [MASK])


class Exported:
    """Only the numpy array interface, as an image library would offer."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.__array_interface__ = array.__array_interface__


def test_contiguous_maps_and_masks_are_read_in_place() -> None:
    torch = pytest.importorskip("torch")
    mask = (RANDOM > 1).astype(np.uint8)
    shapes = (lambda a: a, torch.from_numpy, memoryview, Exported, lambda a: a[::2, 3:30])
    for view in shapes:
        assert np.shares_memory(inputs.anomaly_map(view(RANDOM), 0), RANDOM)
        assert np.shares_memory(inputs.binary_mask(view(mask), None, "mask"), mask)
    assert np.shares_memory(inputs.binary_mask(mask.view(bool), None, "mask"), mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.uint16])
def test_every_view_of_a_map_gives_the_same_metrics(dtype: type) -> None:
    torch = pytest.importorskip("torch")
    scores = np.rint(RANDOM * 9 + 60).astype(dtype)
    mask = (RANDOM > 1).astype(np.uint8)
    expected = metrics.segmentation_metrics([scores], [mask])
    wide = np.zeros((60, 80), dtype)
    wide[::2, ::2] = scores
    views: list[Any] = [memoryview(scores), Exported(scores), wide[::2, ::2], np.asfortranarray(scores)]
    views += [scores[::-1, ::-1].copy()[::-1, ::-1], scores.astype(scores.dtype.newbyteorder(">"))]
    if dtype is not np.uint16:
        views.append(torch.from_numpy(scores))
    for view in views:
        assert metrics.segmentation_metrics([view], [mask]) == expected


def test_tensors_that_numpy_cannot_view_are_refused_with_what_to_call() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RANDOM.copy())
    cases = (
        (tensor.clone().requires_grad_(), r"requires grad; pass .detach\(\)"),
        (tensor.to("meta"), r"is on meta.*pass .cpu\(\)"),
        (tensor.to(torch.bfloat16), "anomaly map 0 .Tensor. cannot be read"),
        (tensor.double(), "is float64"),
    )
    for given, said in cases:
        with pytest.raises(InputError, match=said):
            metrics.segmentation_metrics([given], [None])


def test_arrays_on_a_gpu_are_refused() -> None:
    class OnGpu:
        __cuda_array_interface__ = {"shape": (3, 4)}  # noqa: RUF012

    with pytest.raises(InputError, match=r"is on a GPU.*pass .cpu\(\)"):
        metrics.segmentation_metrics([OnGpu()], [None])


def test_generators_that_reuse_one_buffer_give_the_same_numbers() -> None:
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((5, 20, 30)).astype(np.float32)
    masks = [None if i % 2 else rng.random((20, 30)) < 0.1 for i in range(5)]
    buffer = np.empty((20, 30), np.float32)

    def reuse() -> Any:
        for m in maps:
            buffer[:] = m
            yield buffer

    assert metrics.segmentation_metrics(reuse(), iter(masks)) == metrics.segmentation_metrics(maps, masks)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, math.nan])
def test_a_limit_outside_zero_to_one_is_a_usage_error(limit: float) -> None:
    collected = metrics.SegmentationMetrics()
    collected.update(MAP, MASK)
    for asked in (
        lambda: metrics.aupro([MAP], [MASK], fpr_limit=limit),
        lambda: metrics.SegmentationMetrics((limit,)),
        lambda: collected.compute((0.3, limit)),
    ):
        with pytest.raises(UsageError, match="fpr_limit"):
            asked()


def test_arguments_that_make_no_sense_are_usage_errors() -> None:
    collected = metrics.SegmentationMetrics()
    collected.update(MAP, MASK, defect="hole")
    cases = (
        (lambda: metrics.SegmentationMetrics(connectivity=6), "connectivity is 6"),
        (lambda: metrics.SegmentationMetrics(page_budget_bytes=0), "page_budget_bytes is 0"),
        (lambda: metrics.SegmentationMetrics(page_budget_bytes=1000), "page budget of 1000 bytes; expected at least"),
        (lambda: collected.update(MAP, MASK, defect=""), "name of a kind of defect"),
        (
            lambda: collected.merge(metrics.SegmentationMetrics(connectivity=4)),
            "8-connected here, 4-connected there",
        ),
        (lambda: collected.merge(metrics.SegmentationMetrics(bootstrap=True)), "create both alike"),
        (lambda: collected.curve("scratch"), "no image has the defect 'scratch'; known: hole"),
        (lambda: collected.intervals(), "bootstrap=True"),
        (lambda: metrics.region_overlap(MAP, MASK, math.nan), "threshold is NaN"),
        (lambda: metrics.region_overlap(MAP, MASK, None), "threshold is None, expected a number"),  # type: ignore[arg-type]
        (lambda: collected.curve().at("3"), "threshold is '3', expected a number"),  # type: ignore[arg-type]
        (lambda: collected.curve().at(10**400), "threshold is too large, expected a number"),
        (lambda: collected.curve().at(-(10**5000)), "threshold is too large, expected a number"),
        (lambda: collected.curve().threshold_at_fpr([1, 2]), "fpr_limit is"),  # type: ignore[arg-type]
        (lambda: collected.curve(thresholds=0.5), "expected several numbers"),  # type: ignore[arg-type]
        (lambda: collected.curve(thresholds=["a"]), "a threshold is 'a'"),  # type: ignore[list-item]
        (lambda: metrics.saturation_area(1.5, 1, True), "area is 1.5, expected a whole number"),  # type: ignore[arg-type]
        (lambda: metrics.connected_components(MASK, 5), "connectivity is 5"),
    )
    for asked, said in cases:
        with pytest.raises(UsageError, match=said):
            asked()
    assert collected.images == 1


def test_intervals_of_arguments_that_make_no_sense_are_usage_errors() -> None:
    collected = metrics.SegmentationMetrics(bootstrap=True)
    collected.update(MAP, MASK)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"level": 95}, "level is 95"),
        ({"level": "a"}, "level is 'a', expected a number"),
        ({"resamples": 1.5}, "resamples is 1.5, expected a whole number"),
        ({"resamples": 0}, "resamples 0"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"seed": None}, "seed is None"),
    )
    for arguments, said in wrong:
        with pytest.raises(UsageError, match=said):
            collected.intervals(**arguments)


@pytest.mark.parametrize(
    ("channels", "areas", "said"),
    [
        ([MASK], [], "1 channels and 0 saturation areas"),
        ([MASK], [0], "saturation area of channel 0 of image 0 is 0"),
        ([MASK], [1.5], "is 1.5, expected whole pixels"),
        ([MASK, MASK * 0], [1, 1], "channel 1 of image 0 is empty"),
        ([MASK, MASK.T], [1, 1], r"channel 1 of image 0 has shape \(4, 3\)"),
        ([MASK * 0.3], [1], "channel 0 of image 0 is soft"),
    ],
)
def test_bad_channels_are_refused_by_name(channels: list[Any], areas: list[Any], said: str) -> None:
    collected = metrics.SegmentationMetrics()
    with pytest.raises(InputError, match=said):
        collected.update_channels(MAP, channels, areas)
    assert collected.images == 0
