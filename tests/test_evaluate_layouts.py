"""Evaluation and fitting of data sets in every layout: what is counted, what is left out, and what is said of it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
import reference
from command_line import Capture, answer, refusal
from numpy.typing import NDArray
from tiny_data import defective, fitted_package, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

import onceover
from onceover.cli import main
from onceover.errors import InputError, UsageError
from onceover.images import read_image, write_image
from onceover.runtime.inspector import Inspector
from onceover.training.dataset import Sample, read_dataset
from onceover.training.evaluate import evaluate
from onceover.training.fit import fit
from onceover.types import Image, Verdict


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("layouts"))


@pytest.fixture
def inspector(package: Path) -> Inspector:
    return Inspector.open(package)


@pytest.mark.parametrize("name", list(trees.TREES))
def test_every_layout_is_evaluated_and_the_report_names_it(name: str, inspector: Inspector, tmp_path: Path) -> None:
    root = trees.TREES[name](tmp_path / "part")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(inspector, root)
    assert report.layout == name
    assert report.images == report.good + report.anomalous + report.unlabeled == len(report.scores)
    assert 0 <= report.image_auroc <= 1
    assert 0 <= report.pixel_auroc <= 1
    json.dumps(report.to_dict(), allow_nan=False)


def test_images_without_a_label_are_scored_counted_and_in_no_metric(inspector: Inspector, tmp_path: Path) -> None:
    root = trees.mvtec_ad2(tmp_path / "can")
    report = evaluate(inspector, root)
    assert (report.images, report.good, report.anomalous, report.unlabeled) == (4, 1, 1, 2)
    assert "test_private/000.png" in report.scores
    assert "2 of 4 images have no known label: scores, but no metric for them" in report.problems
    for folder in ("test_private", "test_private_mixed"):
        for path in (root / folder).glob("[0-9]*"):
            path.unlink()
    public = evaluate(inspector, root)
    assert public.unlabeled == 0
    assert (public.image_auroc, public.f1_max, public.aupro) == (report.image_auroc, report.f1_max, report.aupro)


def test_with_no_label_at_all_there_are_scores_and_nothing_else(inspector: Inspector, tmp_path: Path) -> None:
    for i in range(3):
        trees.picture(tmp_path / f"test_private/{i:03}.png", i)
    report = evaluate(inspector, tmp_path)
    assert len(report.scores) == 3
    assert np.isnan([report.image_auroc, report.f1_max, report.pixel_auroc, report.aupro]).all()
    assert (report.false_alarm_rate, report.miss_rate, report.defects) == (None, None, ())


def draw_loco(root: Path) -> Path:
    """Two good images, one logical anomaly (a hole), and three structural ones that look good."""
    for i, name in enumerate(["good/0", "good/1", "structural_anomalies/0", "structural_anomalies/1"]):
        path = root / f"test/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, tiny_image(700 + i))
    hole, truth = defective(tiny_image(710))
    for path in (root / "test/logical_anomalies/0.png", root / "ground_truth/logical_anomalies/0/000.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(root / "test/logical_anomalies/0.png", hole)
    write_image(root / "ground_truth/logical_anomalies/0/000.png", truth)
    return root


def test_loco_weighs_logical_and_structural_anomalies_equally(inspector: Inspector, tmp_path: Path) -> None:
    report = evaluate(inspector, draw_loco(tmp_path / "box"))
    by_kind = {
        kind: [score for name, score in report.scores.items() if f"/{kind}" in name]
        for kind in ("good", "logical", "structural")
    }
    each = [
        reference.auroc([*by_kind["good"], *by_kind[kind]], [0, 0, *[1] * len(by_kind[kind])])
        for kind in ("logical", "structural")
    ]
    assert [row.image_auroc for row in report.defects] == pytest.approx(each, abs=1e-12)
    assert report.mean_image_auroc == pytest.approx(np.mean(each), abs=1e-12)
    assert report.mean_image_auroc != report.image_auroc


def test_loco_has_the_saturated_overlap_of_each_kind_with_the_good_images_averaged(
    inspector: Inspector, tmp_path: Path
) -> None:
    root = draw_loco(tmp_path / "box")
    for i in range(2):  # two defects in each structural anomaly
        for channel in range(2):
            truth = np.zeros(tiny_image(0).shape[:2], np.uint8)
            truth[3 : 9 + channel, 4 + 12 * channel : 12 + 12 * channel] = 255
            path = root / f"ground_truth/structural_anomalies/{i}/{channel:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, truth)
    entry = {"defect_name": "any", "pixel_value": 255, "saturation_threshold": 0.4, "relative_saturation": True}
    (root / "defects_config.json").write_text(json.dumps([entry]))
    maps: dict[str, list[NDArray[np.float32]]] = {}
    channels: dict[str, list[list[NDArray[np.bool_]]]] = {}

    def keep(sample: Sample, _image: Image, _mask: NDArray[np.bool_] | None, verdict: Verdict) -> None:
        maps.setdefault(sample.defect, []).append(verdict.anomaly_map)
        channels.setdefault(sample.defect, []).append([read_image(file) > 0 for file in sample.channels])

    report = evaluate(inspector, root, observe=keep)
    for limit in (0.01, 0.05, 0.1, 0.3, 1.0):
        each = []
        for kind in ("logical_anomalies", "structural_anomalies"):
            masks = channels["good"] + channels[kind]
            areas = [[int(0.4 * channel.sum()) for channel in image] for image in masks]
            each.append(reference.auspro(maps["good"] + maps[kind], masks, areas, limit))
        assert report.auspro[str(limit)] == pytest.approx(np.mean(each), abs=1e-12)
    assert [row.aupro > 0 for row in report.defects] == [True, True]
    assert evaluate(inspector, trees.mvtec(tmp_path / "part")).auspro == {}


def test_loco_with_one_kind_only_has_no_mean_and_other_layouts_have_none(inspector: Inspector, tmp_path: Path) -> None:
    root = draw_loco(tmp_path / "box")
    for path in (root / "test/structural_anomalies").iterdir():
        path.unlink()
    report = evaluate(inspector, root)
    assert report.mean_image_auroc is not None
    assert np.isnan(report.mean_image_auroc)
    assert evaluate(inspector, trees.mvtec(tmp_path / "part")).mean_image_auroc is None


def test_a_scratch_that_vanishes_at_a_low_resolution_is_told(inspector: Inspector, tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path / "part")
    trees.mask(root / "ground_truth/cut/001.bmp", 255, (slice(4, 5), slice(0, 10)))
    assert not any("001.JPG" in problem for problem in evaluate(inspector, root).problems)
    said = "test/cut/001.JPG: anomalous, but nothing of its mask is left at 8 × 8 pixels; left out of the pixel metrics"
    assert said in evaluate(inspector, root, 8).problems


def test_the_front_door_takes_layout_and_category(package: Path, tmp_path: Path) -> None:
    root = trees.visa(tmp_path / "visa")
    report = onceover.evaluate(package, root, layout="visa", category="pcb1")
    assert (report.layout, report.images) == ("visa", 2)


def test_a_data_set_without_test_images_says_its_layout(inspector: Inspector, tmp_path: Path) -> None:
    trees.picture(tmp_path / "part/train/good/a.png", 0)
    with pytest.raises(InputError, match=r"part: no test images \(layout mvtec\)"):
        evaluate(inspector, tmp_path / "part")


# ---------------------------------------------------------------- the command line


def test_the_command_line_takes_layout_and_category(package: Path, tmp_path: Path, capsys: Capture) -> None:
    root = trees.visa(tmp_path / "visa")
    evaluation = ["evaluate", str(package), str(root)]
    status, message = refusal(capsys, *evaluation)
    assert (status, "holds 2 objects: candle, pcb1" in message) == (3, True)
    status, message = refusal(capsys, *evaluation, "--category", "candel")
    assert (status, "did you mean 'candle'" in message) == (2, True)
    status, message = refusal(capsys, *evaluation, "--layout", "vissa")
    assert (status, "did you mean 'visa'" in message) == (2, True)
    status, report = answer(capsys, *evaluation, "--category", "candle", "--layout", "visa")
    assert (status, report["layout"], report["images"]) == (0, "visa", 2)
    assert main([*evaluation, "--category", "candle"]) == 0
    assert "1 good, 1 anomalous images, layout visa" in " ".join(capsys.readouterr().out.split())


def test_the_command_line_shows_the_mean_of_loco_and_what_is_unlabeled(
    package: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["evaluate", str(package), str(draw_loco(tmp_path / "box"))]) == 0
    assert "mean" in capsys.readouterr().out
    assert main(["evaluate", str(package), str(trees.mvtec_ad2(tmp_path / "can"))]) == 0
    told = capsys.readouterr()
    assert "2 unlabeled" in told.out
    assert "mean" not in told.out
    assert "2 of 4 images have no known label" in told.err


# ---------------------------------------------------------------- fit


@pytest.mark.parametrize("name", list(trees.TREES))
def test_fit_learns_from_the_train_images_of_a_data_set_only(name: str, tmp_path: Path) -> None:
    root = trees.TREES[name](tmp_path / "part")
    train = read_dataset(root).train
    parts = fit(root, tiny_options(holdout=0))
    data = parts.manifest["data"]
    assert data["bank_images"] == [sample.relative for sample in train]
    assert data["calibration_images"] == []
    assert parts.manifest["name"] == "part"


def test_fit_takes_a_table_and_an_object_of_visa(tmp_path: Path, capsys: Capture) -> None:
    table = trees.csv_table(tmp_path / "part") / "list.csv"
    manifest = fit(table, tiny_options(holdout=0)).manifest
    assert (manifest["name"], manifest["data"]["bank_images"]) == ("list", ["photos/a.png"])
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    words = ["fit", str(trees.visa(tmp_path / "visa")), "-o", str(tmp_path / "pcb1.onceover"), "--holdout", "0"]
    words += ["--backbone", str(tmp_path / "tiny.onnx")]
    assert main([*words, "--category", "pcb1"]) == 0
    assert "layout visa): learning from the normal images of its train split only" in capsys.readouterr().out
    assert Inspector.open(tmp_path / "pcb1.onceover").manifest["name"] == "pcb1"
    status, message = refusal(capsys, *words)
    assert (status, "holds 2 objects" in message) == (3, True)


@pytest.mark.parametrize("draw", [trees.mvtec_ad2, trees.mvtec_loco, trees.csv_table])
def test_an_official_validation_split_calibrates_and_is_never_learned_from(
    draw: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = draw(tmp_path / "part")
    found = read_dataset(root)
    manifest = fit(root, tiny_options()).manifest
    assert manifest["data"]["bank_images"] == [sample.relative for sample in found.train]
    assert manifest["data"]["calibration_images"] == [sample.relative for sample in found.validation]
    assert manifest["calibration"]["parts"] == len(found.validation) == 1
    with pytest.raises(UsageError, match=r"takes 19 normal images .* of validation, the data set has 1; ask"):
        fit(root, tiny_options(false_alarm_rate=0.05))


def test_a_calibrated_package_comes_from_a_validation_split_that_is_large_enough(tmp_path: Path) -> None:
    root = tmp_path / "part"
    for split, count in (("train", 3), ("validation", 19)):
        good_folder(root / split / "good", count, 40 * count)
    (root / "test/good").mkdir(parents=True)
    parts = fit(root, tiny_options())
    assert parts.calibration.calibrated
    assert len(parts.manifest["data"]["calibration_images"]) == 19
    shutil.copy(root / "train/good/00.png", root / "validation/good/00.png")
    assert len(fit(root, tiny_options()).manifest["data"]["calibration_images"]) == 18  # a copy would look too good


def test_fit_of_a_data_set_without_normal_train_images_says_so(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path / "part")
    for path in (root / "train/good").glob("0*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no normal images in train \(layout mvtec\)"):
        fit(root, tiny_options())


def test_fit_of_a_folder_of_data_sets_lists_them_and_never_learns_from_their_defects(tmp_path: Path) -> None:
    for category in ("bottle", "zipper"):
        trees.mvtec(tmp_path / category)
    with pytest.raises(InputError, match="holds 2 data sets: bottle, zipper"):
        fit(tmp_path, tiny_options(holdout=0))
    manifest = fit(tmp_path, tiny_options(holdout=0, category="zipper")).manifest
    assert (manifest["name"], len(manifest["data"]["bank_images"])) == ("zipper", 2)


def test_fit_of_an_ordinary_folder_takes_every_image(tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "parts/batch", 3)
    assert len(fit(folder.parent, tiny_options(holdout=0)).manifest["data"]["bank_images"]) == 3
