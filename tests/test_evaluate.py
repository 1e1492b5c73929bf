"""The evaluation report against the plain definitions of reference.py, and what it says when something is missing."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from scipy import stats
from tiny_data import HELD_OUT, defective, fitted_package, labelled_folder

from onceover.errors import InputError, UsageError
from onceover.images import read_image, write_image
from onceover.runtime.inspector import Inspector
from onceover.training.evaluate import evaluate
from onceover.types import Image, Verdict


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("uncalibrated"), 6)


@pytest.fixture
def inspector(package: Path) -> Inspector:
    return Inspector.open(package)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four good and four defective images, of three sizes."""
    return labelled_folder(tmp_path / "plate")


def expected(inspector: Inspector, data: Path, side: int | None) -> tuple[list[float], list[int], list[Any], list[Any]]:
    """Scores, labels, maps and masks, image by image, without the code under test."""
    scores, labels, maps, masks = [], [], [], []
    for path in sorted((data / "test").rglob("*.png")):
        image = read_image(path)
        size = image.shape[:2] if side is None else (side, side)
        mask: NDArray[Any] = np.zeros(image.shape[:2], np.uint8)
        mask_path = data / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if mask_path.exists():
            mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)
        if side is not None:  # nearest neighbor by half-pixel centers
            rows = ((np.arange(side) + 0.5) * mask.shape[0] / side).astype(int)
            columns = ((np.arange(side) + 0.5) * mask.shape[1] / side).astype(int)
            mask = mask[np.ix_(rows, columns)]
        scores.append(inspector.inspect(image).score)
        maps.append(inspector.inspect(image, map_size=size).anomaly_map)
        masks.append(mask > 0)
        labels.append(int(path.parent.name != "good"))
    return scores, labels, maps, masks


@pytest.mark.parametrize("side", [None, 24])
def test_every_metric_equals_its_plain_definition(inspector: Inspector, data: Path, side: int | None) -> None:
    scores, labels, maps, masks = expected(inspector, data, side)
    report = evaluate(inspector, data, "mask" if side is None else side)
    assert report.image_auroc == pytest.approx(reference.auroc(scores, labels), abs=1e-12)
    pixels, truth = (np.concatenate([part.ravel() for part in parts]) for parts in (maps, masks))
    assert report.pixel_auroc == pytest.approx(reference.auroc(pixels, truth), abs=1e-12)
    assert report.aupro == pytest.approx(reference.aupro(maps, masks, 0.3), abs=1e-12)
    assert report.aupro_05 == pytest.approx(reference.aupro(maps, masks, 0.05), abs=1e-12)
    assert report.average_precision == pytest.approx(reference.average_precision(pixels, truth), abs=1e-12)
    best = (report.pixel_f1_max, report.pixel_f1_max_threshold)
    assert best == pytest.approx(reference.f1_max(pixels, truth), abs=1e-12)
    assert (report.f1_max, report.f1_max_threshold) == pytest.approx(reference.f1_max(scores, labels), abs=1e-12)
    assert sorted(report.scores.values()) == sorted(scores)
    assert 0.5 < report.pixel_auroc < 1  # neither trivial nor perfect, or the comparison says little


def test_the_pixel_metrics_know_the_curve_that_aupro_integrates_and_stay_out_of_the_json(
    inspector: Inspector, data: Path
) -> None:
    report = evaluate(inspector, data)
    assert report.pixel_metrics is not None
    curve = report.pixel_metrics.curve()
    inside = curve.fpr <= 0.3
    x = np.append(curve.fpr[inside], 0.3)
    y = np.append(curve.pro[inside], np.interp(0.3, curve.fpr, curve.pro))
    area = ((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2
    assert area / 0.3 == pytest.approx(report.aupro, abs=1e-12)
    assert "pixel_metrics" not in report.to_dict()


def test_intervals_lie_around_the_metrics(inspector: Inspector, data: Path) -> None:
    report = evaluate(inspector, data)
    assert list(report.intervals) == ["image_auroc", "pixel_auroc", "aupro"]
    for name, (lower, upper) in report.intervals.items():
        assert 0 <= lower <= getattr(report, name) <= upper <= 1
    assert report.intervals["aupro"][0] < report.intervals["aupro"][1]
    assert evaluate(inspector, data).intervals == report.intervals


def test_rates_are_shares_of_images_above_the_threshold(inspector: Inspector, data: Path) -> None:
    scores, labels, _, _ = expected(inspector, data, None)
    report = evaluate(inspector, data)
    threshold = inspector.calibration.threshold
    assert threshold is not None
    flagged = np.array(scores) > threshold
    assert report.false_alarm_rate == flagged[np.array(labels) == 0].mean()
    assert report.miss_rate == 1 - flagged[np.array(labels) == 1].mean()
    assert report.target_false_alarm_rate == 0.05
    (row,) = report.defects
    assert (row.defect, row.images, row.detected) == ("hole", 4, int(flagged[np.array(labels) == 1].sum()))
    assert row.image_auroc == report.image_auroc  # the only kind of defect


def test_false_alarms_that_the_calibration_cannot_explain_are_told(inspector: Inspector, tmp_path: Path) -> None:
    alike = evaluate(inspector, labelled_folder(tmp_path / "alike", good=12))
    assert not any("do not look like the calibration parts" in problem for problem in alike.problems)
    other = labelled_folder(tmp_path / "other", good=12)
    for path in (other / "test/good").iterdir():  # another lot, which has a hole where it should
        write_image(path, defective(read_image(path))[0])
    report = evaluate(inspector, other)
    alarms = round((report.false_alarm_rate or 0) * 12)
    assert stats.betabinom(12, 1, HELD_OUT).sf(alarms - 1) < 0.001  # 19 parts at 5 %: the rate is Beta(1, 19)
    said = f"{alarms} of 12 good images are false alarms, where 5 % were calibrated on 19 parts (p < 0.001)"
    assert any(said in problem and "run `onceover calibrate`" in problem for problem in report.problems)


def test_every_kind_of_defect_is_compared_with_all_good_images(inspector: Inspector, data: Path) -> None:
    shutil.copytree(data / "test/good", data / "test/nothing")  # a "defect" that looks good
    report = evaluate(inspector, data)
    assert [row.defect for row in report.defects] == ["hole", "nothing"]
    hole, nothing = report.defects
    assert nothing.image_auroc == 0.5  # the same images on both sides
    assert hole.image_auroc > 0.5


def test_without_masks_there_are_image_metrics_only_and_the_report_says_why(inspector: Inspector, data: Path) -> None:
    with_masks = evaluate(inspector, data)
    shutil.rmtree(data / "ground_truth")
    report = evaluate(inspector, data)
    assert report.image_auroc == with_masks.image_auroc
    assert np.isnan(report.pixel_auroc)
    assert np.isnan(report.aupro)
    assert len(report.problems) == 5  # four masks, and that pixel metrics are undefined
    assert report.problems[0].startswith("test/hole/00.png: no mask")


def test_an_image_without_mask_counts_for_the_image_but_not_for_pixels(inspector: Inspector, data: Path) -> None:
    (data / "ground_truth/hole/01_mask.png").unlink()
    scores, labels, maps, masks = expected(inspector, data, None)
    report = evaluate(inspector, data)
    unknown = 5  # test/hole/01.png after four good images and test/hole/00.png
    del maps[unknown], masks[unknown]
    assert report.image_auroc == pytest.approx(reference.auroc(scores, labels), abs=1e-12)
    assert report.aupro == pytest.approx(reference.aupro(maps, masks, 0.3), abs=1e-12)


def test_a_defect_with_an_empty_mask_is_told_and_not_counted_as_normal_pixels(inspector: Inspector, data: Path) -> None:
    path = data / "ground_truth/hole/01_mask.png"
    write_image(path, np.zeros_like(read_image(path)))
    emptied = evaluate(inspector, data)
    path.unlink()
    missing = evaluate(inspector, data)
    assert (emptied.pixel_auroc, emptied.aupro) == (missing.pixel_auroc, missing.aupro)
    assert "test/hole/01.png: anomalous, but its mask is empty; left out of the pixel metrics" in emptied.problems


@pytest.mark.parametrize("only", ["good", "hole"])
def test_a_missing_class_gives_nan_and_null_in_json_and_no_error(inspector: Inspector, data: Path, only: str) -> None:
    shutil.rmtree(data / "test" / ("hole" if only == "good" else "good"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(inspector, data)
    assert any("no " + ("anomalous" if only == "good" else "normal") in problem for problem in report.problems)
    assert np.isnan(report.image_auroc)
    answer = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert answer["image_auroc"] is None
    assert (answer["miss_rate"] is None) == (only == "good")
    assert (answer["false_alarm_rate"] is None) == (only == "hole")
    if only == "hole":
        assert answer["defects"][0]["image_auroc"] is None
        assert answer["aupro"] is not None  # the pixels around the holes are normal


def test_an_uncalibrated_package_has_scores_but_no_rates(uncalibrated: Path, data: Path) -> None:
    report = evaluate(Inspector.open(uncalibrated), data)
    assert report.threshold is None
    assert report.false_alarm_rate is None
    assert report.miss_rate is None
    assert report.target_false_alarm_rate is None
    assert report.defects[0].detected is None
    assert 0 <= report.image_auroc <= 1


def test_the_observer_sees_every_image_with_its_mask_and_map(inspector: Inspector, data: Path) -> None:
    seen: list[tuple[str, bool, tuple[int, ...]]] = []

    def observe(sample: Any, image: Image, mask: NDArray[np.bool_] | None, verdict: Verdict) -> None:
        assert mask is not None
        assert mask.shape == image.shape[:2]
        seen.append((sample.relative, bool(mask.any()), verdict.anomaly_map.shape))

    progress: list[int] = []
    report = evaluate(inspector, data, 16, lambda _stage, done, total: progress.append(total - done), observe)
    assert len(seen) == report.images == 8
    assert all(has_mask == name.startswith("test/hole") for name, has_mask, _ in seen)
    assert {shape for _, _, shape in seen} == {(16, 16)}
    assert progress == list(range(8, -1, -1))


def test_latency_is_told_for_every_stage(inspector: Inspector, data: Path) -> None:
    latency = evaluate(inspector, data).latency_ms
    assert list(latency) == ["prepare_ms", "engine_ms", "score_ms", "map_ms", "total_ms"]
    assert all(0 <= row["p50"] <= row["p99"] for row in latency.values())


@pytest.mark.parametrize("resolution", [0, 7, -1, 8193, 2.5, "big", None])
def test_a_resolution_that_cannot_be_is_refused_at_once(inspector: Inspector, data: Path, resolution: Any) -> None:
    with pytest.raises(UsageError, match="'mask' or 8 to 8192 pixels"):
        evaluate(inspector, data, resolution)


def test_a_folder_without_test_images_is_refused(inspector: Inspector, package: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        evaluate(inspector, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no test images"):
        evaluate(inspector, package.parent)  # has train/good only


def test_a_mask_of_another_size_is_refused_by_name(inspector: Inspector, data: Path) -> None:
    write_image(data / "ground_truth/hole/02_mask.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"02_mask\.png: mask is 9×9"):
        evaluate(inspector, data)


def test_a_test_image_that_was_fitted_on_is_told(inspector: Inspector, package: Path, data: Path) -> None:
    shutil.copytree(package.parent / "train", data / "train")
    shutil.copy(data / "train/good/00.png", data / "test/good/twin.png")
    report = evaluate(inspector, data)
    assert any("twin.png: the same file as" in problem for problem in report.problems)
    assert len(list((data / "train/good").iterdir())) == 2 * HELD_OUT
