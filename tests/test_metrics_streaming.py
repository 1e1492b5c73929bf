"""One accumulator or many, in any order, of any sizes: the same bits, in a bounded state, within certified bounds."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from metric_sets import DTYPES, KINDS, Image, arrays, collected, images, loco_images
from numpy.typing import NDArray
from tolerances import EXACT_METRIC

from onceover import metrics
from onceover.errors import UsageError

# Bytes that are there whatever the input: 2 MiB of keys that wait to be sorted, 1 MiB of pointers to pages, 0.5 MiB for
# shelves and as much for a first slab (csrc/metrics/key_counter.h), and for the codes of float16 and of integer maps.
STATE_CONSTANT = 8 << 20
BUDGET = 4 << 20  # bytes; with less, the fixed part alone fills it


def merged_as_a_tree(parts: list[metrics.SegmentationMetrics], draw: random.Random) -> metrics.SegmentationMetrics:
    """Merge two random ones until one is left."""
    while len(parts) > 1:
        draw.shuffle(parts)
        parts[0].merge(parts.pop())
    return parts[0]


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_any_order_split_and_merge_tree_gives_the_same_bytes_and_report(seed: int, bootstrap: bool) -> None:
    draw = random.Random(seed)
    of = images(seed, 12, None)
    whole = collected(of, bootstrap=bootstrap)
    for parts in (1, 2, 3, 7, len(of)):
        shuffled = draw.sample(of, len(of))
        split = [collected(shuffled[i::parts], bootstrap=bootstrap) for i in range(parts)]
        other = merged_as_a_tree(split, draw)
        assert other.to_bytes() == whole.to_bytes()
        assert other.compute() == whole.compute()


def test_channels_and_masks_in_one_set_merge_to_the_same_bytes_in_any_order() -> None:
    of, channels = images(3), loco_images(3)
    whole, parts = metrics.SegmentationMetrics(), [metrics.SegmentationMetrics() for _ in range(4)]
    for image in channels:
        whole.update_channels(image.anomaly_map, image.masks, image.saturation_areas, defect="logical")
    for anomaly_map, mask, defect in of:
        whole.update(anomaly_map, mask, defect=defect)
    for i, (anomaly_map, mask, defect) in enumerate(of):
        parts[i % 4].update(anomaly_map, mask, defect=defect)
    for i, image in enumerate(reversed(channels)):
        parts[i % 3].update_channels(image.anomaly_map, image.masks, image.saturation_areas, defect="logical")
    other = merged_as_a_tree(parts, random.Random(1))
    assert other.to_bytes() == whole.to_bytes()
    assert other.compute() == whole.compute()
    assert sorted(whole.compute().by_defect) == ["hole", "logical", "scratch"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_of_every_dtype_give_what_their_values_in_float32_give(dtype: type) -> None:
    of = images(4, dtype=dtype)
    wide: list[Image] = [(m.astype(np.float32), mask, defect) for m, mask, defect in of]
    assert collected(of).compute() == collected(wide).compute()


def test_the_full_range_of_sixteen_bit_maps_is_resolved() -> None:
    scores = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    mask = (scores % 2).astype(np.uint8)  # each anomalous score beats exactly one more normal score than the one below
    report = metrics.segmentation_metrics([scores], [mask])
    assert report.pixel_auroc == pytest.approx((32768 + 1) / 2 / 32768, abs=EXACT_METRIC)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    finite = np.where(np.isnan(halves), np.float16(0), halves)
    expected = metrics.segmentation_metrics([finite.astype(np.float32)], [mask])
    assert metrics.segmentation_metrics([finite], [mask]) == expected


def test_merging_with_itself_counts_everything_twice_and_leaves_the_metrics() -> None:
    once = collected(images(5))
    twice = copy.copy(once)
    twice.merge(twice)
    assert twice.images == 2 * once.images
    assert twice.compute().aupro[0.3] == pytest.approx(once.compute().aupro[0.3], abs=EXACT_METRIC)
    assert twice.compute().normal_pixels == 2 * once.compute().normal_pixels


def test_merging_leaves_the_other_as_it_was() -> None:
    first, second = collected(images(1)), collected(images(2))
    before = second.to_bytes()
    first.merge(second)
    assert second.to_bytes() == before


def test_merging_with_an_empty_one_changes_nothing() -> None:
    made = collected(images(1))
    before = made.to_bytes()
    made += metrics.SegmentationMetrics()
    assert made.to_bytes() == before


def test_workers_that_saw_other_kinds_of_defects_agree_on_who_is_who() -> None:
    of = images(6, 9)
    holes = collected([image for image in of if image[2] == KINDS[0]])
    rest = collected([image for image in of if image[2] != KINDS[0]])
    rest += holes
    assert rest.compute() == collected(of).compute()


def test_kinds_seen_in_another_order_or_named_on_good_images_leave_the_bytes() -> None:
    of = images(6, 6)
    plain = collected(of)
    named = metrics.SegmentationMetrics((0.3, 0.05))
    named.update(of[2][0], of[2][1], defect="zebra")  # a good image
    for anomaly_map, mask, defect in [of[1], of[0], *of[3:]]:
        named.update(anomaly_map, mask, defect=defect)
    assert named.to_bytes() == plain.to_bytes()
    again = metrics.SegmentationMetrics.from_bytes(named.to_bytes())
    assert again.compute() == plain.compute()


def test_metrics_so_far_can_be_computed_between_updates() -> None:
    of = images(7, 6)
    made = metrics.SegmentationMetrics((0.3, 0.05))
    for i, (anomaly_map, mask, defect) in enumerate(of):
        made.update(anomaly_map, mask, defect=defect)
        assert made.compute() == collected(of[: i + 1]).compute()


def test_limits_can_be_chosen_again_when_computing() -> None:
    made = collected(images(8), (0.3,))
    assert list(made.compute((0.05, 1.0)).aupro) == [0.05, 1.0]
    assert made.compute((0.05,)).aupro == collected(images(8), (0.05,)).compute().aupro


# ---------------------------------------------------------------- memory


def octaves(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.exp2(rng.uniform(-30, 30, shape)).astype(np.float32)


def bit_patterns(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    drawn = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isnan(drawn), np.float32(1), drawn)


FAMILIES: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]] = {
    "60 octaves": octaves,
    "random bits": bit_patterns,
    "constant": lambda rng, shape: np.full(shape, 3.5, np.float32),
    "256 levels": lambda rng, shape: rng.integers(0, 256, shape, np.uint8),
    "65536 levels": lambda rng, shape: rng.integers(0, 65536, shape, np.uint16),
    "one octave": lambda rng, shape: rng.uniform(1, 2, shape).astype(np.float32),
}

FIT_IN_BUDGET = {"constant", "256 levels", "65536 levels"}  # 16-bit maps are counted beside the budget


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_is_bounded_by_two_bytes_per_normal_and_eight_per_anomalous_pixel(family: str) -> None:
    rng = np.random.default_rng(0)
    made = metrics.SegmentationMetrics()
    mask = np.zeros((1024, 1024), np.uint8)
    mask[100:400, 50:380] = 1
    for i in range(8):
        made.update(FAMILIES[family](rng, mask.shape), mask if i % 2 else None)
        anomalous = (i + 1) // 2 * int(mask.sum())
        normal = (i + 1) * mask.size - anomalous
        assert made.state_bytes <= 2 * normal + 8 * anomalous + STATE_CONSTANT


def defective(family: str, seed: int, count: int = 6) -> list[Image]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((700, 700), np.uint8)
    mask[20:170, 30:160] = 1
    return [(FAMILIES[family](rng, mask.shape), mask, None) for _ in range(count)]


def assert_bounds_hold(report: metrics.SegmentationReport, exact: dict[str, float]) -> None:
    assert report.bounds is not None
    assert report.bounds.keys() == exact.keys()
    for name, (lower, upper) in report.bounds.items():
        assert lower - EXACT_METRIC <= exact[name] <= upper + EXACT_METRIC
        assert lower - EXACT_METRIC <= report.values()[name] <= upper + EXACT_METRIC


@pytest.mark.parametrize("family", FAMILIES)
def test_certified_bounds_of_a_budgeted_state_hold_the_exact_values(family: str) -> None:
    of = defective(family, 1)
    exact = collected(of).compute()
    budgeted = collected(of, page_budget_bytes=BUDGET).compute()
    if family in FIT_IN_BUDGET:
        assert budgeted == exact
    else:
        assert_bounds_hold(budgeted, exact.values())


def test_a_budget_that_suffices_leaves_everything_exact() -> None:
    of = defective("60 octaves", 2)
    assert collected(of, page_budget_bytes=1 << 30).compute() == collected(of).compute()


def test_a_state_keeps_its_budget() -> None:
    of = defective("60 octaves", 2)
    tight, exact = collected(of, page_budget_bytes=BUDGET), collected(of)
    anomalous = 8 * tight.compute().anomalous_pixels
    assert tight.state_bytes <= BUDGET + anomalous + (1 << 16) < exact.state_bytes  # blocks of 32 KiB, and the object


def test_budgeted_states_merge_and_keep_their_bounds() -> None:
    of = defective("60 octaves", 3, 8)
    first, second = (collected(of[i::2], page_budget_bytes=BUDGET) for i in range(2))
    first += second
    assert_bounds_hold(first.compute(), collected(of).compute().values())


def test_counters_that_one_score_fills_over_and_over_do_not_wrap() -> None:
    good: Sequence[Image] = [(np.full((300, 300), 2, np.float32), None, None)] * 3  # 270,000 of one score
    defective: Image = (np.array([[3, 2, 1]], np.float32), np.array([[0, 1, 0]], np.uint8), None)
    report = collected([*good, defective]).compute()
    assert report.normal_pixels == 270_002
    # One normal score above, 270,000 tied, one below.
    assert report.pixel_auroc == pytest.approx((1 + 135_000) / 270_002, abs=EXACT_METRIC)
    assert math.isclose(report.average_precision, 1 / 270_002, abs_tol=EXACT_METRIC)


def test_streamed_and_one_call_metrics_are_the_same() -> None:
    of = images(9)
    report = metrics.segmentation_metrics(*arrays(of), (0.3, 0.05))
    streamed = collected([(m, mask, None) for m, mask, _ in of]).compute()
    assert report == streamed


def test_kinds_of_one_pixel_each_take_little() -> None:
    made = metrics.SegmentationMetrics()
    mask = np.zeros((4, 4), np.uint8)
    mask[1, 1] = 1
    for i in range(500):
        made.update(np.full(mask.shape, i, np.float32), mask, defect=f"kind {i}")
    assert made.state_bytes <= 500 * (16 * 15 + 8 * 16 + 200) + STATE_CONSTANT // 2


def test_scores_that_come_256_times_keep_the_bound() -> None:
    made = metrics.SegmentationMetrics()
    keys = np.uint32(20000 << 15) + (np.arange(256, dtype=np.uint32)[:, None] << np.uint32(15))
    keys = keys + np.arange(68, dtype=np.uint32) * np.uint32(400)  # 256 pages of 68; every byte overflows
    for _ in range(256):
        made.update(np.uint32(~keys).view(np.float32))  # negative scores
    report_state = made.state_bytes
    assert report_state <= 2 * 256 * keys.size + STATE_CONSTANT // 2


def test_one_accumulator_in_two_threads_is_refused() -> None:
    made = metrics.SegmentationMetrics()

    class Slow:
        """An array that is asked for while the accumulator is already at work."""

        def __array__(self, dtype: object = None, copy: object = None) -> NDArray[np.float32]:
            with pytest.raises(UsageError, match="in use by another thread"):
                made.update(np.zeros((2, 2), np.float32))
            return np.ones((2, 2), np.float32)

    made.update(Slow(), defect="a")
    assert made.images == 1
    made.update(np.zeros((2, 2), np.float32))
