"""The data set that the program draws itself: the same bytes twice, exact masks, the promised layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from onceover.errors import UsageError
from onceover.images import read_image, read_mask
from onceover.training import demo_products
from onceover.training.demo_parts import PRODUCTS, Product
from onceover.training.demo_products import Counts, draw_part, draw_products

KINDS = [pytest.param(product, kind, id=f"{product.name}-{kind}") for product in PRODUCTS for kind in product.defects]
FEW = Counts(train=2, test_good=1, per_defect=1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    draw_products(root, seed=3, counts=FEW)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_there_are_at_least_two_products_with_several_defects_each() -> None:
    assert len(PRODUCTS) >= 2
    assert all(len(set(product.defects)) >= 3 for product in PRODUCTS)


@pytest.mark.parametrize(("product", "kind"), KINDS)
def test_a_defective_picture_is_the_flawless_one_outside_its_mask(product: Product, kind: str) -> None:
    part = draw_part(product, kind, f"test/{kind}", 1, seed=5)
    change = np.abs(part.image.astype(int) - part.flawless).reshape(*part.mask.shape, -1).max(axis=2)
    assert change[~part.mask].max() == 0
    assert change[part.mask].mean() >= 8
    assert 0.002 <= part.mask.mean() <= 0.06


@pytest.mark.parametrize(("product", "kind"), KINDS)
def test_a_mask_has_no_dust(product: Product, kind: str) -> None:
    mask = draw_part(product, kind, f"test/{kind}", 2).mask
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    assert statistics[1:, cv2.CC_STAT_AREA].min() >= demo_products.SMALLEST_SPOT


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_good_part_has_an_empty_mask_and_parts_differ(product: Product) -> None:
    first, second = (draw_part(product, None, "train/good", index) for index in (0, 1))
    assert not first.mask.any()
    np.testing.assert_array_equal(first.image, first.flawless)
    assert np.abs(first.image.astype(int) - second.image).mean() > 1
    assert first.image.ndim == (2 if product.monochrome else 3)
    assert 20 < first.image.mean() < 235
    assert ((first.image == 0) | (first.image == 255)).mean() < 0.05  # neither drowned nor blown out


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(drawn: Path, tmp_path: Path) -> None:
    draw_products(tmp_path / "again", seed=3, counts=FEW)
    again = contents(tmp_path / "again")
    assert again == contents(drawn)
    product = PRODUCTS[0]
    other = draw_part(product, None, "train/good", 0, seed=4).image
    assert (other != read_image(drawn / product.name / "train" / "good" / "000.png")).any()


def test_train_and_test_images_of_one_index_are_different_parts() -> None:
    train, test = (draw_part(PRODUCTS[0], None, folder, 0).image for folder in ("train/good", "test/good"))
    assert (train != test).any()


def test_the_layout_is_that_of_mvtec(drawn: Path) -> None:
    for product in PRODUCTS:
        folder = drawn / product.name
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
        defects = [f"test/{kind}/000.png" for kind in product.defects]
        masks = [f"ground_truth/{kind}/000_mask.png" for kind in product.defects]
        assert files == sorted(["train/good/000.png", "train/good/001.png", "test/good/000.png", *defects, *masks])


def test_the_files_hold_what_was_drawn(drawn: Path) -> None:
    product = PRODUCTS[-1]
    kind = product.defects[0]
    part = draw_part(product, kind, f"test/{kind}", 0, seed=3)
    image = read_image(drawn / product.name / "test" / kind / "000.png")
    np.testing.assert_array_equal(image, part.image)
    mask_path = drawn / product.name / "ground_truth" / kind / "000_mask.png"
    np.testing.assert_array_equal(read_mask(mask_path, image.shape[:2]), part.mask)
    assert set(np.unique(read_image(mask_path))) == {0, 255}


def test_drawing_again_does_nothing_and_reports_no_progress(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    calls: list[tuple[str, int, int]] = []
    folders = draw_products(drawn, seed=3, counts=FEW, progress=lambda *call: calls.append(call))
    assert calls == []
    assert folders == [drawn / product.name for product in PRODUCTS]
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_an_interrupted_data_set_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_products, "PRODUCTS", PRODUCTS[:1])
    one = Counts(train=2, test_good=0, per_defect=0)

    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_products(tmp_path, counts=one, progress=stop)
    assert json.loads((tmp_path / "dataset.json").read_text())["complete"] is False
    calls: list[tuple[str, int, int]] = []
    draw_products(tmp_path, counts=one, progress=lambda *call: calls.append(call))
    assert calls == [("drawing", 1, 2), ("drawing", 2, 2)]
    assert json.loads((tmp_path / "dataset.json").read_text())["complete"] is True


def test_other_counts_replace_the_old_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_products, "PRODUCTS", PRODUCTS[:1])
    for train in (3, 1):
        (folder,) = draw_products(tmp_path, counts=Counts(train=train, test_good=0, per_defect=0))
        assert len(list(folder.rglob("*.png"))) == train


def test_a_folder_of_the_users_is_never_removed(tmp_path: Path) -> None:
    mine = tmp_path / PRODUCTS[0].name / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(UsageError, match="choose another folder"):
        draw_products(tmp_path, counts=FEW)
    assert mine.read_text() == "keep"


@pytest.mark.parametrize(("seed", "counts"), [(-1, FEW), (0, Counts(train=-1))])
def test_numbers_below_zero_are_refused(tmp_path: Path, seed: int, counts: Counts) -> None:
    with pytest.raises(UsageError, match="zero"):
        draw_products(tmp_path, seed=seed, counts=counts)
    assert list(tmp_path.iterdir()) == []
