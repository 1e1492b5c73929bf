"""Properties that every exact segmentation metric has, on drawn sets (hypothesis)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from metric_sets import assert_equals_reference
from numpy.typing import NDArray
from tolerances import EXACT_METRIC

from onceover import metrics

LIMITS = (0.3, 0.05, 1.0)
Drawn = tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]


@st.composite
def drawn_sets(draw: Any) -> Drawn:
    """One to four images of up to 6 × 7 pixels, coarse scores with many ties, at least one pixel of either kind."""
    maps, masks = [], []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 6), st.integers(2, 7)))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=st.integers(-4, 4).map(float))))
        masks.append(draw(hnp.arrays(np.bool_, shape)))
    masks[0].flat[0], masks[0].flat[1] = True, False
    return maps, masks


def collected(of: Drawn) -> metrics.SegmentationMetrics:
    made = metrics.SegmentationMetrics(LIMITS)
    for anomaly_map, mask in zip(*of, strict=True):
        made.update(anomaly_map, mask)
    return made


@settings(max_examples=60, deadline=None)
@given(drawn_sets())
def test_pixel_metrics_equal_the_slow_definitions(of: Drawn) -> None:
    assert_equals_reference(collected(of).compute(), *of)


@settings(max_examples=40, deadline=None)
@given(drawn_sets(), st.sampled_from([(2.0, 0.0), (2.0**-120, 0.0), (2.0**100, 0.0), (0.25, 8.0), (1024.0, -3.0)]))
def test_metrics_ignore_strictly_monotone_rescaling(of: Drawn, line: tuple[float, float]) -> None:
    # Exact: small whole numbers, powers of two.
    scaled = [m * np.float32(line[0]) + np.float32(line[1]) for m in of[0]]
    before, after = collected(of).compute(), collected((scaled, of[1])).compute()
    assert after.values() == before.values()
    assert after.f1_max_threshold == before.f1_max_threshold * line[0] + line[1]


@settings(max_examples=40, deadline=None)
@given(drawn_sets(), st.lists(st.floats(width=32, allow_nan=False), min_size=9, max_size=9, unique=True))
def test_metrics_see_only_the_order_of_scores(of: Drawn, values: list[float]) -> None:
    levels = np.sort(np.array(values, np.float32))
    if len(np.unique(levels)) < 9:  # −0 and 0
        return
    renamed = [levels[m.astype(int) + 4] for m in of[0]]
    before, after = collected(of).compute(), collected((renamed, of[1])).compute()
    assert after.values() == before.values()


@settings(max_examples=40, deadline=None)
@given(drawn_sets(), st.randoms(use_true_random=False))
def test_permuted_images_give_the_same_bytes(of: Drawn, draw: Any) -> None:
    order = list(range(len(of[0])))
    draw.shuffle(order)
    permuted = [of[0][i] for i in order], [of[1][i] for i in order]
    assert collected(permuted).to_bytes() == collected(of).to_bytes()


@settings(max_examples=40, deadline=None)
@given(drawn_sets())
def test_turned_images_give_the_same_bytes(of: Drawn) -> None:
    turned = [m[::-1].T for m in of[0]], [k[::-1].T for k in of[1]]
    assert collected(turned).to_bytes() == collected(of).to_bytes()


@settings(max_examples=40, deadline=None)
@given(drawn_sets(), drawn_sets(), drawn_sets())
def test_merging_is_associative_and_commutative(a: Drawn, b: Drawn, c: Drawn) -> None:
    left = collected(a)
    left += collected(b)
    left += collected(c)
    right, last = collected(c), collected(b)
    last += collected(a)
    right += last
    assert left.to_bytes() == right.to_bytes()
    assert left.compute() == right.compute()


@settings(max_examples=40, deadline=None)
@given(drawn_sets())
def test_a_second_copy_of_all_images_changes_no_metric(of: Drawn) -> None:
    once, twice = collected(of).compute(), collected((of[0] * 2, of[1] * 2)).compute()
    assert twice.values() == pytest.approx(once.values(), abs=EXACT_METRIC, rel=0)
    assert twice.f1_max_threshold == once.f1_max_threshold


@settings(max_examples=40, deadline=None)
@given(drawn_sets())
def test_metrics_lie_between_those_with_ties_broken_for_and_against_the_detector(of: Drawn) -> None:
    masks = of[1]
    for_it = [m + np.where(k, 0.25, 0).astype(np.float32) for m, k in zip(*of, strict=True)]
    against = [m - np.where(k, 0.25, 0).astype(np.float32) for m, k in zip(*of, strict=True)]
    low, middle, high = (collected((m, masks)).compute().values() for m in (against, of[0], for_it))
    for name, value in middle.items():
        assert low[name] - EXACT_METRIC <= value <= high[name] + EXACT_METRIC


@settings(max_examples=40, deadline=None)
@given(drawn_sets())
def test_every_metric_lies_between_zero_and_one_and_aupro_grows_with_its_limit(of: Drawn) -> None:
    report = collected(of).compute()
    assert all(-EXACT_METRIC <= value <= 1 + EXACT_METRIC for value in report.values().values())
    assert report.aupro[0.05] <= report.aupro[0.3] + EXACT_METRIC <= report.aupro[1.0] + 2 * EXACT_METRIC


@settings(max_examples=25, deadline=None)
@given(drawn_sets())
def test_saving_and_loading_is_the_identity(of: Drawn) -> None:
    made = collected(of)
    again = metrics.SegmentationMetrics.from_bytes(made.to_bytes())
    assert again.to_bytes() == made.to_bytes()
    assert again.compute() == made.compute()
