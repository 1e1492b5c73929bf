"""Few parts: each is scored by a bank without it, the package says so everywhere, and a refit does it again."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import _core, export
from onceover.cli import main
from onceover.detectors.patchcore import BankSize, PatchCore
from onceover.errors import UsageError
from onceover.images import read_image
from onceover.runtime.assemble import PackageParts, config_of
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.session import EngineOptions
from onceover.training.calibrate import conformal_rank
from onceover.training.cross_conformal import MAX_FOLDS, fold_of_images, planned_folds, proven_rate
from onceover.training.fit import fit
from onceover.training.refit import refit

FEW = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("cross") / "plate", FEW)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, tiny_options())


@pytest.fixture(scope="module")
def package(parts: PackageParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "plate.onceover"
    export.package(parts, path)
    return path


@pytest.mark.parametrize(
    ("groups", "alpha", "holdout", "folds"),
    [
        (18, 0.05, None, 0),  # too few for either: uncalibrated
        (19, 0.05, None, 19),
        (37, 0.05, None, 37),
        (38, 0.05, None, 0),  # half of them support the rate, held out
        (24, 0.05, 0.5, 0),  # as the user said
        (24, 0.05, 0, 0),
        (98, 0.01, None, 0),
        (150, 0.01, None, MAX_FOLDS),
        (198, 0.01, None, 0),
        (1, 0.5, None, 0),  # one part has nothing to score it by
        (0, 0.05, None, 0),
    ],
)
def test_parts_score_each_other_where_they_are_enough_but_cannot_be_split(
    groups: int, alpha: float, holdout: float | None, folds: int
) -> None:
    assert planned_folds(groups, alpha, holdout) == folds


def test_a_fold_holds_whole_groups_and_as_many_as_the_others_whatever_their_names() -> None:
    groups = [f"tile {i // 3}" for i in range(33)]  # 11 parts in three exposures
    fold_of = fold_of_images(groups, 4, seed=1)
    assert [len(set(fold_of[3 * i : 3 * i + 3])) for i in range(11)] == [1] * 11
    assert sorted(np.bincount(fold_of[::3])) == [2, 3, 3, 3]
    np.testing.assert_array_equal(fold_of, fold_of_images([str(99 - i // 3) for i in range(33)], 4, seed=1))
    assert (fold_of != fold_of_images(groups, 4, seed=2)).any()


@pytest.mark.parametrize(
    ("groups", "folds", "proven"),
    [
        (20, 20, 0.1),  # every part a fold: 2α
        (100, 10, 0.1 + 0.9 / 11),  # (1 − 10/100) / (10 + 1)
        (1000, 2, 0.1 + 1 / 501),  # 2 (1 − 1/2) / (500 + 1)
    ],
)
def test_what_is_proven_is_what_theorem_4_of_barber_et_al_says(groups: int, folds: int, proven: float) -> None:
    assert proven_rate(groups, folds, 0.05) == pytest.approx(proven, rel=1e-12)


def test_every_image_is_scored_by_a_bank_of_the_others(folder: Path) -> None:
    parts = fit(folder, tiny_options(adapt=False, position_weights=False))  # test_adapting.py, test_position_weights.py
    embedder = _core.Embedder(config_of(parts.spec, parts.blur_sigma), parts.graph, EngineOptions().resolve())
    images = sorted(folder.iterdir())
    patches = np.stack([embedder.embed(read_image(path)) for path in images])  # (n, P, D)
    rows, scores = len(parts.state["memory_bank"]), []
    for i in range(FEW):
        others = np.delete(patches, i, axis=0).reshape(-1, patches.shape[2])
        detector = PatchCore(BankSize(rows=round(rows * (FEW - 1) / FEW)))
        detector.fit(others)
        bank = detector.state()["memory_bank"].astype(np.float64)
        squared = ((patches[i].astype(np.float64)[:, None] - bank) ** 2).sum(axis=2)
        scores.append(np.sqrt(squared.min(axis=1)).max())
    found = parts.calibration
    np.testing.assert_allclose(found.scores, np.sort(scores), rtol=1e-5)
    assert (found.n, found.cross_conformal, found.method) == (FEW, True, "cross-conformal")
    assert found.threshold == found.scores[conformal_rank(FEW, 0.05) - 1]
    assert len(parts.manifest["data"]["bank_images"]) == FEW  # the package knows all of them


@pytest.mark.parametrize("adapt", [False, True])
def test_folds_hold_the_embeddings_once(folder: Path, adapt: bool) -> None:
    held = FEW * 64 * 64 * 64 * 4  # patches of all images, 64 values each: 25 MB
    options = tiny_options(backbone=tiny_graph(512, 512, channels=64), bank=BankSize(rows=50), adapt=adapt)

    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("patch embeddings", 0):
            tracemalloc.reset_peak()  # what drawing damage took is over

    tracemalloc.start()
    try:
        assert fit(folder, options, progress).calibration.cross_conformal
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < peak < 2 * held  # with half of it for the projections; an adapted copy would be as much again


def test_the_package_says_it_wherever_it_speaks(package: Path) -> None:
    with Inspector.open(package) as inspector:
        assert (inspector.calibration.cross_conformal, inspector.calibration.confidence) == (True, None)
        assert inspector.inspect(tiny_image(300)).decision in ("normal", "anomalous")
        assert inspector.verify()["images"] > 0
    opened = open_package(package)
    assert opened.core.version == (1, 1)  # a reader of 1.0 would take it for a split
    assert opened.manifest["calibration"]["method"] == "cross-conformal"
    assert dict(opened.describe())["threshold"] == f"cross-conformal, 5 %, {FEW} parts"


def test_the_command_says_it_and_what_is_proven(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    words = ["fit", str(folder), "-o", str(tmp_path / "x.onceover"), "--backbone", str(tmp_path / "tiny.onnx")]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "24 more banks score each others' parts" in said
    assert "cross-conformal: 24 parts are too few to hold out any" in said
    assert "About 5.0 % false alarms are to be expected, at most 10.0 % are proven" in said
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"] == "cross-conformal"
    main(["inspect", str(tmp_path / "x.onceover"), str(folder / "00.png")])
    assert "(cross-conformal, 5.0 % false alarms, 24 parts)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("options", [{}, {"bank": BankSize(rows=60)}, {"coreset": "random", "seed": 2}])
def test_a_refit_gives_the_same_calibration(folder: Path, tmp_path: Path, options: dict[str, object]) -> None:
    parts = fit(folder, tiny_options(**options))
    export.package(parts, tmp_path / "plate.onceover")
    again = refit(open_package(tmp_path / "plate.onceover"), parts.graph, folder)
    np.testing.assert_array_equal(again.calibration.scores, parts.calibration.scores)
    assert again.calibration.cross_conformal
    assert again.manifest["calibration"] == parts.manifest["calibration"]


def test_an_explicit_rate_is_met_across_folds_or_refused_with_its_number(folder: Path) -> None:
    crossed = fit(folder, tiny_options(false_alarm_rate=0.05))
    assert crossed.calibration.cross_conformal
    with pytest.raises(UsageError, match="takes 99 held-out"):
        fit(folder, tiny_options(false_alarm_rate=0.01))
    split = fit(folder, tiny_options(holdout=HELD_OUT))
    assert (split.calibration.cross_conformal, split.calibration.n) == (False, HELD_OUT)


def test_groups_are_never_scored_by_a_bank_of_themselves(folder: Path, tmp_path: Path) -> None:
    # Each part twice: were the second picture in the bank of the first one's fold, its score would be near 0.
    for path in folder.iterdir():
        (tmp_path / f"a_{path.name}").write_bytes(path.read_bytes())
        (tmp_path / f"b_{path.name}").write_bytes(path.read_bytes())
    twice = fit(tmp_path, tiny_options(bank=BankSize(ratio=1.0), coreset="random"))
    once = fit(folder, tiny_options(bank=BankSize(ratio=1.0), coreset="random"))
    assert twice.calibration.n == FEW
    assert float(twice.calibration.scores.min()) > 0.5 * float(once.calibration.scores.min())
