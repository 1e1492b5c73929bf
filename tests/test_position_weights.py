"""What a distance counts where: learned from the bank's parts alone, kept by whatever makes packages of packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_checks import assert_equal_to_session, engine_run, network_input
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_image

from onceover import MemoryBank, _core, export, metrics
from onceover.cli import main
from onceover.detectors import BankSize
from onceover.detectors.detector import no_progress
from onceover.detectors.patchcore import PatchCore
from onceover.export.combine import combine
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, config_of
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.session import EngineOptions
from onceover.training.cross_conformal import fold_of_images
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, fit
from onceover.training.position_weights import FOLDS, IMAGES, PRIOR_IMAGES, RANGE, NormalDistances, measure
from onceover.training.refit import refit

Image = NDArray[np.uint8]
FEW = 24  # parts that calibrate across folds


def varied(index: int) -> Image:
    """A good part whose upper third differs from part to part, as print does, in the same light as the rest."""
    image = tiny_image(7).astype(np.int64)
    rng = np.random.Generator(np.random.PCG64(index))
    image += rng.integers(-4, 5, image.shape)
    third = len(image) // 3
    image[:third] += rng.integers(-60, 61, (third, image.shape[1], 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def varied_folder(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        write_image(folder / f"{i:02}.png", varied(i))
    return folder


def weighing_options(**changes: object) -> FitOptions:
    return tiny_options(adapt=False, bank=BankSize(rows=300), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_folder(tmp_path_factory.mktemp("varied") / "part/good", 2 * HELD_OUT)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, weighing_options())


@pytest.fixture(scope="module")
def package(parts: PackageParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weighed") / "part.onceover"
    export.package(parts, path)
    return path


def test_parts_are_compared_with_rows_that_are_of_no_part_of_their_fold() -> None:
    rng = np.random.default_rng(0)
    images, patches, dims = 10, 6, 5
    values = rng.normal(size=(images, patches, dims)).astype(np.float32)
    groups = [f"part {i // 2 if i < 4 else i}" for i in range(images)]  # two parts are seen twice: 8 of them
    rows = rng.permutation(images * patches)[:40]
    bank, row_images = values.reshape(-1, dims)[rows], rows // patches
    cells = np.array([0, 1, 2, 2, 3, 5])  # two patches share a cell, and cell 4 is outside
    asked: list[int] = []

    def embed(image: int) -> NDArray[np.float32]:
        asked.append(image)
        return values[image]

    found = measure(bank, row_images, groups, embed, cells, (2, 3), 0, no_progress)
    assert found is not None
    assert sorted(asked) == list(range(images)) == sorted(found.images.tolist())
    folds = set()
    for image, distances in zip(found.images.tolist(), found.distances, strict=True):
        # Which fold a part is in is drawn: the only rows that explain all distances are those of a quarter less.
        matches = []
        for left_out in range(1, 2**8):
            names = [name for bit, name in enumerate(dict.fromkeys(groups)) if left_out >> bit & 1]
            if groups[image] not in names or len(names) > 2:
                continue
            others = bank[[groups[i] not in names for i in row_images]].astype(np.float64)
            nearest = np.sqrt(((values[image].astype(np.float64)[:, None] - others) ** 2).sum(2).min(1))
            expected = [nearest[0], nearest[1], min(nearest[2], nearest[3]), nearest[4], np.nan, nearest[5]]
            if np.allclose(distances.ravel(), expected, rtol=1e-5, equal_nan=True):
                matches.append(frozenset(names))
        assert matches, image
        folds |= set(matches)
    assert len(folds) >= FOLDS


def test_one_image_of_every_part_comes_first_where_not_all_are_compared() -> None:
    rng = np.random.default_rng(1)
    groups = [str(i % 40) for i in range(3 * 40)]
    values = rng.normal(size=(len(groups), 1, 3)).astype(np.float32)
    found = measure(
        values.reshape(-1, 3), np.arange(len(groups)), groups, lambda i: values[i], np.zeros(1, np.int64), (1, 1), 0,
        no_progress,
    )  # fmt: skip
    assert found is not None
    assert len(found.images) == IMAGES
    assert {groups[i] for i in found.images[:40].tolist()} == set(groups)


def test_weights_are_roots_of_how_far_the_mean_place_is_to_this_one() -> None:
    distances = np.array([[[1.0, 2.0, np.nan], [4.0, 1.0, 2.0]], [[3.0, 2.0, np.nan], [4.0, 1.0, 2.0]]], np.float32)
    found = NormalDistances(np.array([5, 2]), distances)
    mean = np.array([2, 2, 4, 1, 2])
    shrunk = (2 * mean + PRIOR_IMAGES * 2.2) / (2 + PRIOR_IMAGES)
    expected = np.sqrt(2.2 / shrunk)
    weights = found.weights()
    assert weights is not None
    np.testing.assert_allclose(weights, [[expected[0], expected[1], 1], [*expected[2:]]], rtol=1e-6)
    assert NormalDistances(found.images, np.zeros((2, 2, 3), np.float32)).weights() is None  # all parts are alike


def test_no_place_counts_less_or_more_than_the_bounds() -> None:
    distances = np.ones((1000, 1, 400), np.float32)
    distances[:, 0, 0], distances[:, 0, 1] = 0, 100
    weights = NormalDistances(np.arange(1000), distances).weights()
    assert weights is not None
    assert (weights.max(), weights.min()) == (RANGE[1], RANGE[0]) == (weights[0, 0], weights[0, 1])


def test_where_good_parts_differ_a_distance_counts_less(parts: PackageParts) -> None:
    weights = parts.position_weights
    assert weights is not None
    assert weights.shape == (parts.spec.grid_height, parts.spec.grid_width)
    third = len(weights) // 3
    assert weights[:third].mean() < 0.9 < weights[third + 1 :].mean()
    assert parts.manifest["position_weights"] == {
        "least": pytest.approx(weights.min(), abs=1e-4), "most": pytest.approx(weights.max(), abs=1e-4),
    }  # fmt: skip


def test_scores_are_weighed_and_calibrated_so(folder: Path, parts: PackageParts, package: Path) -> None:
    weights = parts.position_weights
    assert weights is not None
    bank = MemoryBank.build(np.ascontiguousarray(parts.state["memory_bank"]))
    embedder = _core.Embedder(config_of(parts.spec, parts.blur_sigma), parts.graph, EngineOptions().resolve())
    scores = []
    with Inspector.open(package) as inspector:
        for name in parts.manifest["data"]["calibration_images"]:
            verdict = inspector.inspect(folder / name)
            distances = bank.search(embedder.embed(read_image(folder / name)))[0].reshape(weights.shape)
            np.testing.assert_array_equal(verdict.patch_scores, distances * weights)
            np.testing.assert_array_equal(inspector.session.patch_distances(), distances)
            assert verdict.score == verdict.patch_scores.max() == verdict.patch_scores[verdict.worst_patch]
            scores.append(verdict.score)
        assert inspector.verify()["images"] > 0
        np.testing.assert_array_equal(np.sort(np.array(scores, np.float32)), inspector.calibration.scores)


def test_held_out_parts_say_nothing_about_weights(folder: Path, parts: PackageParts, tmp_path: Path) -> None:
    other = tmp_path / "part/good"
    other.mkdir(parents=True)
    held_out = set(parts.manifest["data"]["calibration_images"])
    for path in sorted(folder.iterdir()):
        image = read_image(path)
        write_image(other / path.name, 255 - image if path.name in held_out else image)
    again = fit(other, weighing_options())
    assert set(again.manifest["data"]["calibration_images"]) == held_out
    assert again.calibration.threshold != parts.calibration.threshold
    np.testing.assert_array_equal(again.position_weights, parts.position_weights)


def test_defects_stand_out_more_where_parts_differ_elsewhere(folder: Path, package: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onceover"
    export.package(fit(folder, weighing_options(position_weights=False)), plain)
    aurocs = []
    for path in (plain, package):
        with Inspector.open(path) as inspector:
            scores, labels = [], []
            for i in range(30):
                image = varied(1000 + i)
                low = image.copy()
                low[-12:-6, 4 + i % 8 : 10 + i % 8] = np.clip(low[-12:-6, 4 + i % 8 : 10 + i % 8] + 35.0, 0, 255)
                scores += [inspector.inspect(image).score, inspector.inspect(low).score]
                labels += [False, True]
            aurocs.append(metrics.image_auroc(scores, labels))
    assert aurocs[1] > aurocs[0] + 0.03  # 0.958 and 0.911


@pytest.mark.parametrize(
    "options", [{"position_weights": False}, {"holdout": 31}], ids=["not asked for", "seven parts in the bank"]
)
def test_without_them_distances_are_scores(folder: Path, tmp_path: Path, options: dict[str, object]) -> None:
    parts = fit(folder, weighing_options(**options))
    assert parts.position_weights is None
    assert "position_weights" not in parts.manifest
    export.package(parts, tmp_path / "plain.onceover")
    assert all(member.name != "position_weights" for member in open_package(tmp_path / "plain.onceover").members)
    with Inspector.open(tmp_path / "plain.onceover") as inspector:
        verdict = inspector.inspect(varied(99))
        np.testing.assert_array_equal(inspector.session.patch_distances(), verdict.patch_scores)


def test_each_fold_is_weighed_without_its_own_images(tmp_path: Path) -> None:
    folder = varied_folder(tmp_path / "part/good", FEW)
    parts = fit(folder, weighing_options())
    assert parts.calibration.cross_conformal
    images = sorted(folder.iterdir())
    embedder = _core.Embedder(config_of(parts.spec, parts.blur_sigma), parts.graph, EngineOptions().resolve())
    patches = np.stack([embedder.embed(read_image(path)) for path in images])  # (n, P, D)
    groups = [path.name for path in images]
    grid = (parts.spec.grid_height, parts.spec.grid_width)
    assert parts.bank_source is not None
    found = measure(
        parts.state["memory_bank"], parts.bank_source[:, 0].astype(np.int64), groups, lambda i: patches[i],
        np.arange(patches.shape[1]), grid, 0, no_progress,
    )  # fmt: skip
    assert found is not None
    np.testing.assert_array_equal(parts.position_weights, found.weights())  # what the package keeps is of all
    folds = fold_of_images(tuple(groups), parts.manifest["calibration"]["folds"], 0)
    rows, scores = len(parts.state["memory_bank"]), []
    for i in range(FEW):
        inside = folds != folds[i]
        detector = PatchCore(BankSize(rows=round(rows * inside.sum() / FEW)))
        others = patches[inside]
        detector.fit(others.reshape(-1, patches.shape[2]))
        bank = detector.state()["memory_bank"]
        distances = MemoryBank.build(bank).search(patches[i])[0].reshape(grid)
        found = measure(
            bank, detector.chosen // patches.shape[1], [groups[k] for k in np.flatnonzero(inside)],
            others.__getitem__, np.arange(patches.shape[1]), grid, 0, no_progress,
        )  # fmt: skip
        assert found is not None
        weights = found.weights()
        assert weights is not None
        scores.append((distances * weights).max())
    np.testing.assert_allclose(parts.calibration.scores, np.sort(scores), rtol=1e-5)


def test_tiles_are_weighed_as_one_image(folder: Path) -> None:
    parts = fit(folder, weighing_options(tiling=TilingOptions(tiles=(2, 2))))
    assert parts.position_weights is not None
    cells = config_of(parts.spec, parts.blur_sigma, parts.tiling).cells
    assert parts.position_weights.shape == cells
    third = cells[0] // 3
    assert parts.position_weights[:third].mean() < 0.95 < parts.position_weights[third + 1 :].mean()


def test_outside_a_region_nothing_is_weighed(folder: Path) -> None:
    roi = np.zeros((8, 8), np.uint8)
    roi[:, :4] = 1
    parts = fit(folder, weighing_options(roi=roi))
    assert parts.position_weights is not None
    assert (parts.position_weights[:, -1] == 1).all()
    assert (parts.position_weights[:, 0] != 1).all()


def test_a_stream_learns_them_too(folder: Path, parts: PackageParts, monkeypatch: pytest.MonkeyPatch) -> None:
    from onceover.training.fit_job import FitJob

    seen: list[bool] = []
    learn = FitJob._learn

    def streaming(job: FitJob) -> object:
        memory = job.plan.memory
        assert memory is not None
        job.plan = type(job.plan)(
            **{**vars(job.plan), "memory": type(memory)(**{**vars(memory), "streaming": True, "sample_images": 19})}
        )
        seen.append(True)
        return learn(job)

    monkeypatch.setattr(FitJob, "_learn", streaming)
    streamed = fit(folder, weighing_options())
    assert seen
    assert streamed.position_weights is not None
    assert parts.position_weights is not None
    np.testing.assert_allclose(streamed.position_weights, parts.position_weights, rtol=0.1)


def test_a_refit_keeps_them(folder: Path, parts: PackageParts, package: Path) -> None:
    again = refit(open_package(package), parts.graph, folder)
    np.testing.assert_array_equal(again.position_weights, parts.position_weights)
    assert again.calibration.threshold == parts.calibration.threshold
    assert again.manifest["position_weights"] == parts.manifest["position_weights"]


def test_products_keep_their_own(package: Path, parts: PackageParts, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onceover"
    other = good_folder(tmp_path / "other/good", 2 * HELD_OUT, first_seed=300)
    export.package(fit(other, weighing_options(position_weights=False)), plain)
    combine((plain, package), tmp_path / "both.onceover", ("plain", "weighed"))
    both = open_package(tmp_path / "both.onceover")
    assert "position_weights" not in {member.name for member in both.members}
    np.testing.assert_array_equal(both.core.array("position_weights.1"), parts.position_weights)
    with Inspector.open(package) as alone, Inspector.open(tmp_path / "both.onceover") as inspector:
        image = varied(77)
        assert inspector.inspect(image, product="weighed").score == alone.inspect(image).score


def test_a_plain_onnx_file_weighs_as_the_session_does(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    assert main(["export", str(package), "--to-onnx", str(path)]) == 0
    run = engine_run("onnxruntime", path)
    with Inspector.open(package) as inspector:
        for i in range(3):
            image = varied(50 + i)
            assert_equal_to_session(run(network_input(inspector, image)), inspector, image)


def test_the_command_line_tells_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "tiny.onnx"
    options = weighing_options()
    assert isinstance(options.backbone, bytes)
    graph.write_bytes(options.backbone)
    words = ["fit", str(folder), "--backbone", str(graph), "--no-adapt", "--bank-rows", "300"]
    assert main([*words, "-o", str(tmp_path / "on.onceover")]) == 0
    assert "weighed by position: a distance counts 0." in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--no-position-weights", "-o", str(tmp_path / "off.onceover")]) == 0
    assert "weighed by position" not in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "on.onceover")]) == 0
    assert "distances count 0." in " ".join(capsys.readouterr().out.split())
