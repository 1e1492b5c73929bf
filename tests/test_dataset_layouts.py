"""Every layout on a small copy of it: which file is what, found by itself or by name. Masks: test_dataset_masks.py."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import pytest

from onceover import registry
from onceover.errors import InputError, UnknownNameError
from onceover.training.dataset import Sample, fitting_layouts, read_dataset

ALL = {**trees.TREES, "kolektor (1)": trees.kolektor1, "visa (two objects)": trees.visa}
LAYOUTS = pytest.mark.parametrize("name", list(trees.TREES))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a tree is drawn: a name that is not ASCII."""
    return tmp_path / "Prüfling é"


def told(samples: tuple[Sample, ...]) -> list[tuple[str, int, str, str | None]]:
    return [(s.relative, s.label, s.defect, s.mask_path.name if s.mask_path else None) for s in samples]


def names(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.relative for sample in samples]


def test_there_is_a_tree_for_every_layout() -> None:
    assert trees.TREES.keys() == registry.LAYOUTS.keys()


@LAYOUTS
def test_a_layout_is_found_by_itself_and_no_other_fits(name: str, root: Path) -> None:
    trees.TREES[name](root)
    assert fitting_layouts(root) == [name]
    found = read_dataset(root)
    assert found.layout == name
    assert found == read_dataset(root, name)
    assert found.train
    assert {sample.label for sample in found.test} >= {0, 1}
    assert all(sample.label == 0 for sample in (*found.train, *found.validation))


@pytest.mark.parametrize("name", list(ALL))
def test_the_order_does_not_depend_on_how_the_system_lists_folders(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ALL[name](root)
    category = "candle" if name.startswith("visa") else None
    plain, walk, list_folder = read_dataset(root, category=category), os.walk, Path.iterdir

    def shuffled_walk(*args: object, **options: object):
        for parent, folders, files in walk(*args, **options):
            random.Random(3).shuffle(files)
            yield parent, folders, files

    def shuffled(path: Path):
        inside = list(list_folder(path))
        random.Random(4).shuffle(inside)
        return iter(inside)

    monkeypatch.setattr(os, "walk", shuffled_walk)
    monkeypatch.setattr(Path, "iterdir", shuffled)
    assert read_dataset(root, category=category) == plain
    assert names(plain.test) == sorted(names(plain.test), key=os.fsencode)


@LAYOUTS
def test_files_that_are_no_images_are_never_read(name: str, root: Path) -> None:
    found = read_dataset(trees.TREES[name](root))
    everything = [*found.train, *found.validation, *found.test]
    used = {path for s in everything for path in (s.path, s.mask_path, *s.channels) if path}
    assert all(path.is_file() and not path.name.startswith(".") for path in used)
    assert not any("hidden" in problem or ".txt" in problem or ".DS" in problem for problem in found.problems)


# ---------------------------------------------------------------- what is what


def test_mvtec_pairs_masks_by_stem_whatever_their_extension(root: Path) -> None:
    found = read_dataset(trees.mvtec(root))
    assert names(found.train) == ["train/good/000.png", "train/good/001.png"]
    assert told(found.test) == [
        ("test/cut/000.PNG", 1, "cut", "000_mask.png"),
        ("test/cut/001.JPG", 1, "cut", "001.bmp"),
        ("test/cut/002.png", 1, "cut", "002_GT.png"),
        ("test/cut/003.png", 1, "cut", "003_mask.png"),
        ("test/good/000.png", 0, "good", None),
    ]
    assert (found.name, found.problems) == ("Prüfling é", ())


def test_mvtec_3d_is_refused_because_depth_images_are_no_pictures(root: Path) -> None:
    for folder in ("rgb", "xyz", "gt"):
        trees.picture(root / f"test/hole/{folder}/000.png", 0)
    with pytest.raises(InputError, match=r"is MVTec 3D-AD \(test/hole/xyz\)"):
        read_dataset(root)


def test_mvtec_ad2_keeps_validation_apart_and_private_images_unlabeled(root: Path) -> None:
    found = read_dataset(trees.mvtec_ad2(root))
    assert names(found.train) == ["train/good/000_regular.png"]
    assert [(s.relative, s.split) for s in found.validation] == [("validation/good/001_overexposed.png", "validation")]
    assert told(found.test) == [
        ("test_private/000.png", -1, "test_private", None),
        ("test_private_mixed/001_underexposed.png", -1, "test_private_mixed", None),
        ("test_public/bad/003_shift_1.png", 1, "bad", "003_shift_1_mask.png"),
        ("test_public/good/002_regular.png", 0, "good", None),
    ]
    assert [sample.condition for sample in found.test] == ["", "underexposed", "shift_1", "regular"]
    assert found.problems == ()


def test_mvtec_loco_has_one_mask_for_each_defect(root: Path) -> None:
    found = read_dataset(trees.mvtec_loco(root))
    assert names(found.validation) == ["validation/good/000.png"]
    assert [(s.relative, [path.name for path in s.channels]) for s in found.test] == [
        ("test/good/000.png", []),
        ("test/logical_anomalies/000.png", ["000.png", "001.png", "002.png"]),
        ("test/structural_anomalies/000.png", ["000.png"]),
    ]
    assert found.problems == ()


def test_kolektor2_is_labelled_by_the_content_of_its_masks(root: Path) -> None:
    found = read_dataset(trees.kolektor2(root))
    assert names(found.train) == ["train/10000.png"]
    assert told(found.test) == [
        ("test/20000.png", 0, "good", None),
        ("test/20001.png", 1, "defect", "20001_GT.png"),
    ]
    assert found.problems == ("1 defective images of train are left out; fit learns from normal ones only",)


def test_kolektor2_without_a_mask_knows_no_label(root: Path) -> None:
    trees.kolektor2(root)
    for name in ("train/10000_GT.png", "test/20000_GT.png"):
        (root / name).unlink()
    trees.mask(root / "test/99999_GT.png")
    found = read_dataset(root)
    assert found.train == ()
    assert [sample.label for sample in found.test] == [-1, 1]
    assert found.problems[0] == "test/99999_GT.png: mask without an image"
    assert found.problems[2].startswith("train/10000.png: left out of train, without a mask nobody knows")
    assert found.problems[3].startswith("test/20000.png: no mask 20000_GT.*")


def test_kolektor1_is_split_by_whole_parts_and_says_so(root: Path) -> None:
    found = read_dataset(trees.kolektor1(root))
    sides = {sample.path.parent.name for sample in found.train}
    assert len(found.train) + len(found.test) == 12
    assert not sides & {sample.path.parent.name for sample in found.test if sample.label == 0}
    assert [(s.relative, s.mask_path.name) for s in found.test if s.label == 1 and s.mask_path] == [
        ("kos02/Part1.jpg", "Part1_label.bmp")
    ]
    assert "comes without a split" in found.problems[0]
    assert f"{len(sides)} of 6 parts, drawn with seed 0" in found.problems[0]


def test_magnetic_tiles_are_labelled_by_folder_and_split_with_a_fixed_seed(root: Path) -> None:
    found = read_dataset(trees.magnetic_tile(root))
    assert len(found.train) == 8
    assert sorted(sample.defect for sample in found.test) == ["crack", "free", "free", "uneven"]
    assert [s.mask_path is not None for s in found.test if s.label == 1] == [True, True]
    assert "8 images of MT_Free, drawn with seed 0" in found.problems[0]


# ---------------------------------------------------------------- odd


PAIRED = {
    "mvtec": ("ground_truth/cut/001.bmp", "test/cut/001.JPG"),
    "mvtec_ad2": ("test_public/ground_truth/bad/003_shift_1_mask.png", "test_public/bad/003_shift_1.png"),
    "mvtec_loco": ("ground_truth/structural_anomalies/000/000.png", "test/structural_anomalies/000.png"),
    "btad": ("ground_truth/ko/0001.png", "test/ko/0001.bmp"),
    "kolektor": ("test/20001_GT.png", "test/20001.png"),
    "magnetic_tile": ("MT_Crack/Imgs/exp1_num_50.png", "MT_Crack/Imgs/exp1_num_50.jpg"),
}


@pytest.mark.parametrize("name", list(PAIRED))
def test_a_deleted_mask_affects_exactly_its_own_image(name: str, root: Path) -> None:
    before = read_dataset(trees.TREES[name](root))
    deleted, image = PAIRED[name]
    (root / deleted).unlink()
    after = read_dataset(root)
    changed = [new for old, new in zip(before.test, after.test, strict=True) if old != new]
    assert names(tuple(changed)) == [image]
    assert changed[0].mask_path is None
    assert changed[0].channels == ()
    assert [p.split(":")[0] for p in after.problems if p not in before.problems] == [image]


ORPHANS = {
    "mvtec": "ground_truth/cut/777_mask.png",
    "mvtec_ad2": "test_public/ground_truth/bad/777_mask.png",
    "mvtec_loco": "ground_truth/logical_anomalies/777/000.png",
    "btad": "ground_truth/ko/777.png",
    "kolektor": "train/777_GT.png",
    "magnetic_tile": "MT_Crack/Imgs/777.png",
}


@pytest.mark.parametrize("name", list(ORPHANS))
def test_a_mask_without_an_image_is_told(name: str, root: Path) -> None:
    trees.mask(trees.TREES[name](root) / ORPHANS[name])
    found = read_dataset(root)
    assert any(problem.startswith(f"{ORPHANS[name]}: mask without") for problem in found.problems)


@LAYOUTS
def test_the_same_picture_in_train_and_test_is_told(name: str, root: Path) -> None:
    found = read_dataset(trees.TREES[name](root))
    good = next(sample for sample in found.test if sample.label == 0)
    shutil.copy(found.train[0].path, good.path)
    said = f"{good.relative}: the same file as {found.train[0].relative}; test results are too good by it"
    assert said in read_dataset(root).problems


def test_the_same_picture_in_train_and_validation_is_told(root: Path) -> None:
    trees.mvtec_loco(root)
    shutil.copy(root / "train/good/000.png", root / "validation/good/000.png")
    (problem,) = read_dataset(root).problems
    assert problem.endswith("the same file as train/good/000.png; calibration is too good by it")


# ---------------------------------------------------------------- which data set


@pytest.mark.parametrize("draw", [trees.mvtec, trees.mvtec_ad2, trees.mvtec_loco, trees.btad])
def test_a_folder_of_categories_lists_them_and_takes_one(draw: Callable[[Path], Path], root: Path) -> None:
    for category in ("zipper", "bottle"):
        draw(root / category)
    trees.junk(root)
    with pytest.raises(InputError, match=r"holds 2 data sets: bottle, zipper; give one of them: .*bottle, or --cat"):
        read_dataset(root)
    found = read_dataset(root, category="zipper")
    assert (found.name, found.layout) == ("zipper", read_dataset(root / "zipper").layout)
    assert found.test == read_dataset(root / "zipper").test
    with pytest.raises(UnknownNameError, match=r"unknown category 'ziper'; did you mean 'zipper'"):
        read_dataset(root, "mvtec", "ziper")


def test_a_root_that_fits_two_layouts_asks_which(root: Path) -> None:
    trees.csv_table(trees.mvtec(root))
    with pytest.raises(InputError, match="fits the layouts mvtec and csv; say which with --layout"):
        read_dataset(root)
    assert read_dataset(root, "mvtec").layout == "mvtec"
    assert len(read_dataset(root, "csv").test) == 3


def test_a_layout_by_name_says_what_it_misses(root: Path) -> None:
    trees.picture(root / "images/a.png", 0)
    for name in registry.LAYOUTS:
        with pytest.raises(InputError, match=r"Prüfling é: .*(found images|no split_csv/1cls.csv|expected a .csv)"):
            read_dataset(root, name)
    with pytest.raises(UnknownNameError, match="unknown layout 'kolektr'; did you mean 'kolektor'"):
        read_dataset(root, "kolektr")


def test_a_root_without_any_layout_says_what_it_holds_and_what_is_known(root: Path) -> None:
    trees.picture(root / "images/a.png", 0)
    with pytest.raises(InputError, match=r"no other layout fits either, found images; onceover reads .*mvtec, .*csv"):
        read_dataset(root)
    with pytest.raises(InputError, match=r"a\.png: is a file, expected a folder or a \.csv table"):
        read_dataset(root / "images/a.png")
