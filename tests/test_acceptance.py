"""Whether an export still inspects as before: figures by hand and by scipy, and what each limit refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import labelled_folder
from tiny_package import TinyOptions, read_members, tiny_image, tiny_package, write_members

from onceover.export.acceptance import (
    LIMITS,
    MAP_SIDE,
    Comparison,
    Judged,
    Limits,
    compare,
    judge,
    pearson,
    problems,
    spearman,
    top_overlap,
)
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.training.dataset import Dataset, Sample, read_dataset

stats = pytest.importorskip("scipy.stats")

SCORES = (1.0, 2.0, 4.0, 3.0)
DECISIONS = ("normal", "normal", "anomalous", "anomalous")
MAPS = tuple(np.arange(100, dtype=np.float32).reshape(10, 10) * (i + 1) for i in range(4))


def judged(scores: tuple[float, ...] = SCORES, **changes: Any) -> Judged:
    """Four images: two normal ones, an anomalous one, one without a label."""
    figures = {"image_auroc": 1.0, "aupro": 0.75, "false_alarm_rate": 0.0}
    report: Any = SimpleNamespace(**{**figures, **changes.pop("report", {})})
    made = Judged(np.array(scores, np.float32), DECISIONS, MAPS, (0, 0, 1, -1), report)
    return replace(made, **changes)


def found(**changes: Any) -> Comparison:
    """A comparison in which nothing changed."""
    same = Comparison(10, 0.0, 0.0, 1.0, 1.0, 1.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    return replace(same, **changes)


@pytest.mark.parametrize("levels", [1000, 6, 2])
def test_spearman_is_that_of_scipy_with_and_without_ties(levels: int) -> None:
    random = np.random.default_rng(levels)
    for count in (3, 4, 40):
        a = random.integers(0, levels, count).astype(np.float64)
        b = a + random.integers(0, levels, count)
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_of_four_values_with_a_tie_is_what_it_is_by_hand() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, squares 4.5 and 5.
    assert spearman(np.array([1.0, 7, 7, 9]), np.array([10.0, 20, 30, 40])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_spearman_looks_at_the_order_alone() -> None:
    scores = np.array([0.3, 5.0, 1.0, 2.0])
    assert spearman(scores, np.exp(scores)) == pytest.approx(1, abs=1e-15)
    assert spearman(scores, -scores) == pytest.approx(-1, abs=1e-15)


def test_spearman_is_unknown_for_two_values_and_for_a_constant() -> None:
    assert math.isnan(spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert math.isnan(spearman(np.array([5.0, 5.0, 5.0]), np.array([1.0, 2.0, 3.0])))


def test_pearson_is_that_of_numpy_over_all_pixels() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 7, 9))
    assert pearson(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-12)
    assert pearson(a, 3 - 2 * a) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("level", [0.0, 2.0, 0.1])  # the mean of three times 0.1 is not 0.1
def test_pearson_of_constants_is_one_if_they_are_equal_and_unknown_otherwise(level: float) -> None:
    constant = np.full(3, level)
    assert pearson(constant, constant.copy()) == 1
    assert math.isnan(pearson(constant, constant + 0.1))
    assert math.isnan(pearson(constant, np.array([1.0, 2.0, 4.0])))
    assert math.isnan(pearson(np.array([1.0, 2.0, 4.0]), constant))


def test_the_overlap_of_the_top_percent_is_what_it_is_by_hand() -> None:
    a = np.zeros((20, 20))  # 400 pixels, of which 4 count
    a[2, :4] = (9, 8, 7, 6)
    shifted = np.roll(a, 2, axis=1)  # two of four in common, of six in all
    assert top_overlap(a, a) == 1
    assert top_overlap(a, shifted) == pytest.approx(2 / 6)
    assert top_overlap(a, np.roll(a, 10, axis=1)) == 0
    assert top_overlap(a[:5, :5], shifted[:5, :5]) == 0  # 25 pixels: at least one counts


def test_what_equals_the_original_has_correlation_one_and_no_flips() -> None:
    same = compare(judged(), judged())
    assert (same.score_difference, same.score_shift, same.flips) == (0, 0, 0)
    assert (same.map_correlation, same.top_overlap) == (pytest.approx(1), 1)
    assert same.spearman == pytest.approx(1, abs=1e-12)
    assert (same.image_auroc_change, same.aupro_change, same.false_alarm_rate_change) == (0, 0, 0)
    for limits in LIMITS.values():
        assert problems(same, limits) == []


def test_the_figures_of_four_images_are_what_they_are_by_hand() -> None:
    report = {"image_auroc": 0.9, "aupro": 0.5, "false_alarm_rate": 0.5}
    maps = (*MAPS[:3], -MAPS[3])
    decisions = ("normal", "anomalous", "anomalous", "anomalous")
    candidate = judged((1.25, 2.0, 3.0, 3.75), decisions=decisions, maps=maps, report=report)
    result = compare(judged(), candidate)
    assert result.images == 4
    assert result.score_difference == 0.25  # of 1, of 4 and of 3
    assert result.score_shift == pytest.approx((0.25 + 0 + 1 + 0.75) / 4 / 0.5)  # normal scores: 1 ± 0.5
    assert result.spearman == pytest.approx(0.8)  # ranks 1 2 4 3 and 1 2 3 4: 1 − 6 · 2 / (4 · 15)
    assert result.map_correlation == pytest.approx((1 + 1 + 1 - 1) / 4)
    assert result.top_overlap == pytest.approx(3 / 4)
    assert result.flips == 1
    changes = (result.image_auroc_change, result.aupro_change, result.false_alarm_rate_change)
    assert changes == pytest.approx((-0.1, -0.25, 0.5))
    assert (result.image_auroc, result.aupro, result.false_alarm_rate) == (0.9, 0.5, 0.5)


def test_a_score_at_the_threshold_of_both_may_fall_on_either_side() -> None:
    above = ("normal", "anomalous", "anomalous", "anomalous")
    near = judged((1.0, 2.00001, 4.0, 3.0), decisions=above, threshold=2.0)
    assert compare(judged(threshold=2.0), near).flips == 0
    assert compare(judged(threshold=2.0), replace(near, scores=near.scores + np.float32(0.001))).flips == 1
    assert compare(judged(), replace(near, threshold=math.nan)).flips == 1


def test_verdicts_are_not_compared_where_one_side_is_uncalibrated() -> None:
    nothing = judged(decisions=("uncalibrated",) * 4, report={"false_alarm_rate": None})
    for pair in ((judged(), nothing), (nothing, judged())):
        result = compare(*pair)
        assert (result.flips, result.false_alarm_rate_change) == (None, None)


def test_a_comparison_without_labels_is_json_with_null() -> None:
    nan = {"image_auroc": math.nan, "aupro": math.nan}
    told = json.loads(json.dumps(compare(judged(report=nan), judged(report=nan)).to_dict(), allow_nan=False))
    assert told["image_auroc"] is told["aupro_change"] is None
    assert told["images"] == 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"score_difference": 1e-4}, "scores differ"),
        ({"score_difference": math.nan}, "scores differ"),
        ({"spearman": 0.9998}, "Spearman"),
        ({"spearman": math.nan}, "Spearman"),
        ({"flips": 1}, "verdicts"),
        ({"image_auroc_change": -0.0011}, "image AUROC"),
        ({"aupro_change": -0.0011}, "AUPRO"),
    ],
)
def test_each_limit_refuses_what_is_beyond_it(changes: dict[str, float], word: str) -> None:
    (said,) = problems(found(**changes), LIMITS["float32"])
    assert word in said


def test_what_is_better_than_the_original_or_not_measured_is_no_problem() -> None:
    better = found(score_difference=9e-5, spearman=0.9999, image_auroc_change=0.3, aupro_change=-0.0009)
    assert problems(better, LIMITS["float32"]) == []
    assert problems(found(flips=None, aupro_change=math.nan), LIMITS["float32"]) == []
    assert problems(found(score_difference=0.2, flips=3, spearman=0.99), LIMITS["int8"]) == []


def test_every_problem_is_told() -> None:
    worst = found(score_difference=1.0, spearman=-1.0, flips=9, image_auroc_change=-1.0, aupro_change=-1.0)
    assert len(problems(worst, LIMITS["float32"])) == 5
    assert len(problems(worst, Limits(None, 0.99, None, 0.1))) == 3


def test_two_images_have_no_order_and_judge_nothing_but_scores() -> None:
    two = found(images=2, spearman=math.nan)
    assert problems(two, LIMITS["float32"]) == []
    for precision in ("float16", "int8"):  # limited by the order alone
        (said,) = problems(two, LIMITS[precision])
        assert "2 images are too few" in said


def test_judging_keeps_scores_verdicts_labels_and_maps_in_the_order_of_the_images(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "tiny.onceover")
    dataset = read_dataset(labelled_folder(tmp_path / "data"))
    result = judge(package, "onnxruntime", dataset)
    inspector = Inspector.open(package)
    verdicts = [inspector.inspect(sample.path) for sample in dataset.test]
    assert result.scores.tolist() == [np.float32(verdict.score) for verdict in verdicts]
    assert result.decisions == tuple(verdict.decision for verdict in verdicts)
    assert result.labels == tuple(sample.label for sample in dataset.test)
    assert result.report.image_auroc == 1
    for kept, verdict in zip(result.maps, verdicts, strict=True):
        np.testing.assert_array_equal(kept, verdict.anomaly_map)


def test_large_maps_are_kept_on_a_grid_of_few_rows(tmp_path: Path) -> None:
    write_image(tmp_path / "long.png", tiny_image(1, 40, 2 * MAP_SIDE + 1))
    dataset = Dataset("one", (), (Sample(tmp_path / "long.png", "long.png", "test", -1, ""),))
    (kept,) = judge(tiny_package(tmp_path / "tiny.onceover"), "onnxruntime", dataset).maps
    assert kept.shape == (14, 86)  # every third row and column


def broken(path: Path, options: TinyOptions, change: Any) -> Path:
    """The same package with a changed memory bank."""
    members = read_members(tiny_package(path, options))
    bank: NDArray[np.float32] = members["memory_bank"]
    members["memory_bank"] = change(bank)
    return write_members(path, members)


def test_a_detector_whose_features_are_clipped_is_refused(tmp_path: Path) -> None:
    original = tiny_package(tmp_path / "tiny.onceover")
    worse = broken(tmp_path / "worse.onceover", TinyOptions(), lambda bank: np.clip(bank, -0.1, 0.1))
    dataset = read_dataset(labelled_folder(tmp_path / "data"))
    result = compare(judge(original, "onnxruntime", dataset), judge(worse, "onnxruntime", dataset))
    assert result.spearman < LIMITS["int8"].spearman
    assert any("Spearman" in said for said in problems(result, LIMITS["int8"]))
