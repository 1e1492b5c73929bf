"""Adapting to a product: which images it reads, the same bytes twice, what the map does, and that it helps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import _core, export, metrics
from onceover.cli import main
from onceover.errors import InputError, UsageError
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, assemble, config_of
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.session import EngineOptions
from onceover.training import adapting
from onceover.training.adapter import B_SHRINKAGE, CHECKS, W_SHRINKAGE, Adapter, adapting_matrix
from onceover.training.adapting import MIN_PARTS, study
from onceover.training.damage import KINDS, draw_damage
from onceover.training.field import TilingOptions
from onceover.training.fit import fit
from onceover.training.refit import refit

GRAPH = tiny_graph()
ENGINE = EngineOptions("onnxruntime").resolve(1)
Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("adapt") / "plate/train/good", 2 * HELD_OUT)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, tiny_options(adapt=True))


def learned(images: list[Path], **options: object) -> Adapter:
    return study(images, GRAPH, config_of(read_graph_spec(GRAPH, "tiny"), 4.0), ENGINE, 0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [1, 4, 37, 128])
def test_adapted_features_are_the_product_summed_in_order(dims: int) -> None:
    rng = np.random.default_rng(dims)
    rows, matrix = (rng.normal(size=(n, dims)).astype(np.float32) for n in (9, dims))
    expected = np.zeros_like(rows)
    for k in range(dims):
        expected += rows[:, k : k + 1] * matrix[k]  # rounded after each product and each sum
    np.testing.assert_array_equal(_core.adapt(rows, matrix), expected)
    with pytest.raises(InputError, match=f"matrix is {dims} x {dims + 1}, expected {dims} x {dims}"):
        _core.adapt(rows, np.zeros((dims, dims + 1), np.float32))


def test_the_bank_holds_adapted_features_of_a_graph_that_stays_what_it_was(folder: Path, parts: PackageParts) -> None:
    assert parts.graph == GRAPH
    assert parts.adaptation is not None
    assert parts.bank_source is not None
    embedder = _core.Embedder(config_of(parts.spec, parts.blur_sigma), parts.graph, ENGINE)
    names = parts.manifest["data"]["bank_images"]
    network = np.stack([embedder.embed(read_image(folder / name)) for name in names])  # (N, P, D)
    image, patch = parts.bank_source.T
    expected = _core.adapt(np.ascontiguousarray(network[image, patch]), parts.adaptation)
    np.testing.assert_array_equal(parts.state["memory_bank"], expected)


def test_directions_in_which_normal_parts_differ_shrink_and_those_of_damage_grow() -> None:
    w, kinds = np.diag([9.0, 1.0, 1.0]), [np.diag([1.0, 1.0, 4.0]), np.diag([500.0, 500.0, 500.0])]
    matrix = adapting_matrix(w, kinds)
    # Diagonal matrices commute, so the formula of the file's head can be told entry by entry.
    within = 1 / np.sqrt((1 - W_SHRINKAGE) * np.diag(w) / (11 / 3) + W_SHRINKAGE)
    moved = [within**2 * np.diag(kind) for kind in kinds]
    between = np.mean([(1 - B_SHRINKAGE) * each / each.mean() + B_SHRINKAGE for each in moved], axis=0)
    expected = within * np.sqrt(between)
    scale = np.sqrt(11 / np.sum(expected**2 * np.diag(w)))
    np.testing.assert_allclose(matrix, np.diag(expected * scale), atol=1e-12)
    assert matrix[0, 0] < matrix[1, 1] < matrix[2, 2]
    assert np.trace(matrix.T @ w @ matrix) == pytest.approx(11)


def test_a_kind_of_damage_counts_alike_however_far_it_moves_patches() -> None:
    w, one, other = np.eye(2), np.diag([4.0, 1.0]), np.diag([1.0, 4.0])
    np.testing.assert_allclose(adapting_matrix(w, [one, other]), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(adapting_matrix(w, [one, 1000 * other]), np.eye(2), atol=1e-12)


def test_a_rotation_of_the_features_changes_no_adapted_distance() -> None:
    rng = np.random.default_rng(2)
    w, b = (np.cov(rng.normal(size=(5, 40)) * rng.uniform(0.1, 3, (5, 1))) for _ in range(2))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    rows = rng.normal(size=(7, 5))
    plain = np.linalg.norm(rows @ adapting_matrix(w, [b]), axis=1)
    turned = np.linalg.norm(rows @ turn @ adapting_matrix(turn.T @ w @ turn, [turn.T @ b @ turn]), axis=1)
    np.testing.assert_allclose(turned, plain, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_damage_stays_inside_its_mask_and_comes_again_from_its_seed(kind: str, seed: int) -> None:
    image, other = tiny_image(1), tiny_image(2)
    damaged, mask = draw_damage(np.random.default_rng(seed), image, other, kind)
    again, _ = draw_damage(np.random.default_rng(seed), image, other, kind)
    np.testing.assert_array_equal(damaged, again)
    np.testing.assert_array_equal(damaged[~mask], image[~mask])
    assert (damaged[mask] != image[mask]).any()


def test_cells_are_covered_by_the_share_of_their_pixels_inside() -> None:
    mask = np.zeros((8, 12), bool)
    mask[:4, :2] = True  # half of a cell of 4 x 4
    mask[4:, 8:] = True  # a whole one
    np.testing.assert_array_equal(adapting._cell_shares(mask, (2, 3)), [0.5, 0, 0, 0, 0, 1])


def test_two_fits_give_the_same_bytes_and_another_seed_gives_others(folder: Path, parts: PackageParts) -> None:
    assert assemble(fit(folder, tiny_options(adapt=True))).bytes() == assemble(parts).bytes()
    other = fit(folder, tiny_options(adapt=True, seed=1)).adaptation
    assert (np.asarray(other) != np.asarray(parts.adaptation)).any()


def test_the_manifest_says_what_was_done(folder: Path, parts: PackageParts) -> None:
    record = parts.manifest["adaptation"]
    assert record["images"] == len(parts.manifest["data"]["bank_images"])
    assert record["damaged_images"] == 2 * record["images"]
    assert record["seed"] == 0
    assert record["parts"] == record["images"]
    assert list(record["contrast"]) == list(KINDS)
    assert record["contrast_folds"] == CHECKS
    assert all(before > 0 < after for before, after in record["contrast"].values())
    plain = fit(folder, tiny_options(adapt=False))
    assert plain.manifest["adaptation"] == {"adapted": False, "reason": "asked for"}
    assert plain.adaptation is None


def test_with_a_region_only_what_is_inspected_counts(tmp_path: Path) -> None:
    """Below the region parts may differ as they like: pasted damage moves a little of that into it, no more."""
    images = sorted(good_folder(tmp_path / "good", MIN_PARTS).iterdir())
    roi = np.zeros((8, 8), np.uint8)
    roi[:4] = 1
    upper, whole = learned(images, roi=roi), learned(images)
    for i, path in enumerate(images):
        image = read_image(path)
        height = image.shape[0]
        image[height // 2 + height // 8 :] = tiny_image(8000 + i)[: height - height // 2 - height // 8]
        write_image(path, image)
    again = learned(images, roi=roi)
    assert upper.of_all.record["damaged_patches"] == again.of_all.record["damaged_patches"] > 0
    moved = np.linalg.norm(learned(images).of_all.matrix - whole.of_all.matrix)
    assert np.linalg.norm(again.of_all.matrix - upper.of_all.matrix) < moved / 3


def test_tiles_are_adapted_at_their_own_scale(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(2 * HELD_OUT):
        write_image(folder / f"{i:02}.png", tiny_image(i, 80, 120))
    parts = fit(folder, tiny_options(tiling=TilingOptions(tiles=(2, 2)), adapt=True))
    assert parts.adaptation is not None
    record = parts.manifest["adaptation"]
    assert record["images"] == 10  # every second of 19: at most 60 tiles
    session = _core.Session(_core.Package.view(assemble(parts).bytes(), "tiled"), ENGINE)
    assert session.self_test()["images"] > 0


def test_no_image_that_calibrates_is_read(folder: Path, parts: PackageParts, tmp_path: Path) -> None:
    names = parts.manifest["data"]
    for name in names["bank_images"]:
        write_image(tmp_path / name, read_image(folder / name))
    for i, name in enumerate(names["calibration_images"]):
        write_image(tmp_path / name, tiny_image(9000 + i))
    other = fit(tmp_path, tiny_options(adapt=True))
    assert other.adaptation is not None
    assert other.manifest["data"]["bank_images"] == names["bank_images"]
    np.testing.assert_array_equal(other.adaptation, parts.adaptation)
    assert other.manifest["data"]["calibration_sha256"] != names["calibration_sha256"]


def test_only_the_given_images_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, read = sorted(folder.iterdir())[:MIN_PARTS], set[Path]()

    def noted(path: Path) -> Image:
        read.add(path)
        return read_image(path)

    monkeypatch.setattr(adapting, "read_image", noted)
    learned(given)
    assert read == set(given)


def test_too_few_images_are_refused_with_what_would_do(tmp_path: Path) -> None:
    good_folder(tmp_path, MIN_PARTS - 1)
    with pytest.raises(UsageError, match=r"the memory bank has 6 parts, which is too few: give 8 or more"):
        fit(tmp_path, tiny_options(adapt=True))


def test_images_that_do_not_differ_are_refused(tmp_path: Path) -> None:
    for i in range(MIN_PARTS):
        write_image(tmp_path / f"{i}.png", tiny_image(0))
    with pytest.raises(InputError, match="good parts do not differ at all"):
        learned(sorted(tmp_path.iterdir()))
    with pytest.raises(UsageError, match="the memory bank has 1 part,"):  # copies are one part
        fit(tmp_path, tiny_options(adapt=True, holdout=0))
    unasked = fit(tmp_path, tiny_options(holdout=0))
    assert unasked.adaptation is None
    reason = "the memory bank has 1 part, and it takes 8"
    assert unasked.manifest["adaptation"] == {"adapted": False, "reason": reason}


def test_damage_that_leaves_smooth_parts_alone_is_left_out(tmp_path: Path) -> None:
    for i in range(MIN_PARTS):
        write_image(tmp_path / f"{i}.png", np.full((32, 48, 3), 60 + 10 * i, np.uint8))
    record = learned(sorted(tmp_path.iterdir())).of_all.record
    assert "blurred" not in record["contrast"]
    assert "foreign" in record["contrast"]


def lit_part(seed: int) -> Image:
    """Fine stripes under a colored light that differs from part to part more than the damage below changes anything."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(40)[:, None, None], np.arange(56)[None, :, None]
    light = rng.uniform(90, 165, 3) + rng.uniform(-0.5, 0.5, 3) * x + rng.uniform(-0.5, 0.5, 3) * y
    image = light + 20 * np.sin(1.6 * y + rng.uniform(0, 6)) + rng.normal(0, 2, (40, 56, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def worn_part(seed: int) -> Image:
    """The same part whose stripes are gone in one place."""
    image = lit_part(seed)
    place = image[8:24, 16:32].astype(np.float64)
    image[8:24, 16:32] = np.rint(place.mean(axis=0, keepdims=True)).astype(np.uint8)
    return image


def image_auroc(folder: Path, adapt_it: bool) -> float:
    parts = fit(folder, tiny_options(backbone=tiny_graph(channels=16), adapt=adapt_it))
    path = folder.parent / f"adapt_{adapt_it}.onceover"
    export.package(parts, path)
    inspector = Inspector.open(path)
    good = [inspector.inspect(lit_part(5000 + i)).score for i in range(40)]
    worn = [inspector.inspect(worn_part(5000 + i)).score for i in range(40)]
    return metrics.image_auroc([*good, *worn], [0] * len(good) + [1] * len(worn))


def test_defects_that_the_light_hides_are_found_once_adapted(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    for i in range(2 * HELD_OUT):
        write_image(tmp_path / "good" / f"{i:02}.png", lit_part(i))
    plain, adapted = image_auroc(tmp_path / "good", False), image_auroc(tmp_path / "good", True)
    assert plain < 0.65  # chance, nearly
    assert adapted > 0.75


def test_a_refit_keeps_the_adaptation(folder: Path, parts: PackageParts, tmp_path: Path) -> None:
    export.package(parts, tmp_path / "adapted.onceover")
    package = open_package(tmp_path / "adapted.onceover")
    assert dict(package.describe())["adapted"] == "by 19 images of the memory bank"
    again = refit(package, package.core.read("graph.onnx"), folder)
    assert again.manifest["adaptation"] == parts.manifest["adaptation"]
    assert assemble(replace(again, manifest=parts.manifest)).bytes() == assemble(parts).bytes()


def test_damage_that_hardly_moves_smooth_parts_is_left_out_and_the_command_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    y, x = np.mgrid[0:32, 0:48]
    (tmp_path / "good").mkdir()
    for i in range(2 * HELD_OUT):
        rng = np.random.default_rng(i)
        light = (
            rng.uniform(60, 180, 3)
            + rng.uniform(-0.5, 0.5, 3) * x[..., None]
            + rng.uniform(-0.5, 0.5, 3) * y[..., None]
        )
        write_image(tmp_path / "good" / f"{i:02}.png", np.clip(np.rint(light), 0, 255).astype(np.uint8))
    (tmp_path / "tiny.onnx").write_bytes(GRAPH)
    words = [
        "fit",
        str(tmp_path / "good"),
        "-o",
        str(tmp_path / "x.onceover"),
        "--backbone",
        str(tmp_path / "tiny.onnx"),
    ]
    assert main([*words, "--adapt", "--json"]) == 0
    contrast = json.loads(capsys.readouterr().out)["adaptation"]["contrast"]
    assert "blurred" not in contrast
    assert all(before > 0 for before, _ in contrast.values())


def test_eight_images_are_read_whatever_the_tiles(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(9):
        write_image(folder / f"{i}.png", tiny_image(i, 96, 144))
    parts = fit(folder, tiny_options(tiling=TilingOptions(tiles=(3, 3)), holdout=0, adapt=True))
    assert parts.manifest["adaptation"]["images"] == MIN_PARTS
