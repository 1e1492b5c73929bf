"""Folders → samples: labels, masks paired by name, groups, whole-group splits, and what is reported as odd."""

from __future__ import annotations

import csv
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from onceover import images
from onceover.errors import InputError, UsageError
from onceover.training.dataset import Sample, read_dataset, read_groups, split_holdout

SHARED = Path(__file__).resolve().parents[2] / "shared"
TILES = SHARED / "data" / "magnetic_tile"

needs_tiles = pytest.mark.skipif(not TILES.is_dir(), reason=f"the magnetic tile images {TILES} are not here")


def picture(path: Path, seed: int, shape: tuple[int, ...] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_image(path, np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small product with every oddity a loader meets, in a folder with a name that is not ASCII."""
    root = tmp_path / "Flasche é"
    names = ["train/Good/b.PNG", "train/Good/a.png", "train/Good/sub/c.bmp", "test/ok/g1.png", "test/ok/g2.png"]
    names += ["test/scratch/000.png", "test/scratch/001.png", "test/scratch/002.JPG", "test/dent/000.png"]
    for seed, name in enumerate(names):
        picture(root / name, seed)
    for name in ("scratch/000_mask.png", "scratch/001.bmp", "scratch/002_GT.png", "dent/000_mask.png"):
        picture(root / "ground_truth" / name, 99)
    (root / "train/Good/.hidden.png").write_bytes(b"x")
    (root / "license.txt").write_text("free")
    return root


def summary(samples: tuple[Sample, ...]) -> list[tuple[str, int, str, str | None]]:
    return [(s.relative, s.label, s.defect, s.mask_path.name if s.mask_path else None) for s in samples]


def test_samples_come_in_byte_order_with_labels_and_masks_paired_by_name(tree: Path) -> None:
    dataset = read_dataset(tree)
    assert summary(dataset.train) == [
        ("train/Good/a.png", 0, "Good", None),
        ("train/Good/b.PNG", 0, "Good", None),
        ("train/Good/sub/c.bmp", 0, "Good", None),
    ]
    assert summary(dataset.test) == [
        ("test/dent/000.png", 1, "dent", "000_mask.png"),
        ("test/ok/g1.png", 0, "ok", None),
        ("test/ok/g2.png", 0, "ok", None),
        ("test/scratch/000.png", 1, "scratch", "000_mask.png"),
        ("test/scratch/001.png", 1, "scratch", "001.bmp"),
        ("test/scratch/002.JPG", 1, "scratch", "002_GT.png"),
    ]
    assert dataset.problems == ()
    assert dataset.name == "Flasche é"


def test_a_deleted_mask_affects_exactly_its_own_image(tree: Path) -> None:
    before = read_dataset(tree)
    (tree / "ground_truth/scratch/000_mask.png").unlink()
    after = read_dataset(tree)
    changed = [old.relative for old, new in zip(before.test, after.test, strict=True) if old != new]
    assert changed == ["test/scratch/000.png"]
    assert after.problems == (
        "test/scratch/000.png: no mask ground_truth/scratch/000_mask.*; image-level metrics only",
    )


def test_odd_files_are_reported_and_never_used_silently(tree: Path) -> None:
    picture(tree / "train/bad/x.png", 50)
    picture(tree / "test/loose.png", 51)
    picture(tree / "ground_truth/scratch/777_mask.png", 99)
    picture(tree / "ground_truth/scratch/001_mask.png", 99)
    shutil.copy(tree / "train/Good/a.png", tree / "test/ok/g3.png")
    dataset = read_dataset(tree)
    assert len(dataset.train) == 3
    assert dataset.problems == (
        "train/bad/x.png: left out, train is read from train/good only",
        "test/loose.png: left out, it lies in no test/<kind> folder and so has no label",
        "test/scratch/001.png: several masks fit, took ground_truth/scratch/001_mask.png",
        "ground_truth/scratch/777_mask.png: mask without a test image",
        "test/ok/g3.png: the same file as train/Good/a.png; test results are too good by it",
    )


def test_the_order_does_not_depend_on_how_the_system_lists_folders(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, walk = read_dataset(tree), os.walk

    def shuffled(*args: object, **options: object):
        for parent, folders, names in walk(*args, **options):
            random.Random(3).shuffle(names)
            yield parent, folders, names

    monkeypatch.setattr(os, "walk", shuffled)
    assert read_dataset(tree) == plain


def test_a_root_with_only_a_test_folder_can_be_evaluated(tree: Path) -> None:
    shutil.rmtree(tree / "train")
    dataset = read_dataset(tree)
    assert (len(dataset.train), len(dataset.test)) == (0, 6)


def test_a_root_without_the_layout_says_what_it_holds(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", 0)
    with pytest.raises(InputError, match=r"no images in train/good or in test/<kind>; .* found images"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "none")


# ---------------------------------------------------------------- groups


def write_groups(path: Path, lines: list[tuple[str, str]], header: str = "file,group") -> Path:
    path.write_text("\n".join([header, *(f"{file},{group}" for file, group in lines)]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.PNG", "sub/c.bmp"],  # relative to the fit folder
        ["train/Good/a.png", "./train/Good/b.PNG", "train\\Good\\sub\\c.bmp"],  # relative to the CSV's folder
        ["elsewhere/a.png", "b.PNG", "c.bmp"],  # by a file name that occurs once
    ],
)
def test_groups_are_found_by_path_below_either_folder_or_by_a_unique_name(tree: Path, names: list[str]) -> None:
    fit_folder = tree / "train/Good"
    file = write_groups(tree / "groups.csv", [*zip(names, ["1", "1", "2"], strict=True), ("test/ok/g1.png", "3")])
    found = read_groups(file, images.list_images(fit_folder), fit_folder)
    assert {path.name: group for path, group in found.items()} == {"a.png": "1", "b.PNG": "1", "c.bmp": "2"}


def test_a_byte_order_mark_and_further_columns_are_no_obstacle(tree: Path) -> None:
    file = tree / "groups.csv"
    file.write_text("\ufeffgroup,file,remark\n7,a.png,first\n", encoding="utf-8")
    image = tree / "train/Good/a.png"
    assert read_groups(file, [image], tree / "train/Good") == {image: "7"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("a.png", "1")], r"no group for b.PNG, sub/c.bmp; add a line for each image"),
        ([("x/a.png", "1"), ("y/a.png", "2"), ("b.PNG", "1"), ("c.bmp", "1")], "more than one group .* a.png"),
        ([("a.png", "1"), ("./a.png", "2")], "line 3: ./a.png is in the groups 1 and 2"),
        ([("a.png", "")], "line 2: expected the columns file and group"),
        ([], "names no images"),
    ],
)
def test_missing_and_ambiguous_groups_are_listed(tree: Path, lines: list[tuple[str, str]], said: str) -> None:
    file = write_groups(tree / "groups.csv", lines)
    with pytest.raises(InputError, match=said):
        read_groups(file, images.list_images(tree / "train/Good"), tree / "train/Good")


def test_one_name_cannot_stand_for_two_images(tree: Path) -> None:
    picture(tree / "train/Good/sub/a.png", 60)
    file = write_groups(tree / "groups.csv", [("x/a.png", "1"), ("b.PNG", "1"), ("c.bmp", "2")])
    with pytest.raises(InputError, match=r"more than one group could be meant for a.png, sub/a.png"):
        read_groups(file, images.list_images(tree / "train/Good"), tree / "train/Good")


def test_a_groups_file_that_is_missing_or_no_table_is_refused(tree: Path) -> None:
    found = images.list_images(tree / "train/Good")
    with pytest.raises(InputError, match="cannot be read"):
        read_groups(tree / "none.csv", found, tree)
    with pytest.raises(InputError, match="not a CSV text file"):
        read_groups(picture(tree / "groups.png", 0), found, tree)
    with pytest.raises(InputError, match="expected the columns file and group"):
        read_groups(write_groups(tree / "g.csv", [("a.png", "1")], header="path,part"), found, tree)


# ---------------------------------------------------------------- splits

PATHS = [Path(f"{i:03}.png") for i in range(60)]
PARTS = {path: f"part {i // 6}" for i, path in enumerate(PATHS)}


def test_a_split_keeps_whole_groups_together_and_every_image_once() -> None:
    bank, calibration = split_holdout(PATHS, PARTS, 3, seed=0)
    assert sorted(bank + calibration) == PATHS
    assert (bank, calibration) == (sorted(bank), sorted(calibration))
    assert not {PARTS[path] for path in bank} & {PARTS[path] for path in calibration}
    assert len({PARTS[path] for path in calibration}) == 3


def test_a_seed_means_the_same_split_whatever_the_order_of_the_images() -> None:
    bank, calibration = split_holdout(PATHS, PARTS, 3, seed=5)
    assert split_holdout(PATHS, PARTS, 3, seed=5) == (bank, calibration)
    assert set(split_holdout(PATHS[::-1], PARTS, 3, seed=5)[1]) == set(calibration)
    assert len({tuple(split_holdout(PATHS, PARTS, 3, seed=seed)[1]) for seed in range(20)}) > 10


def test_every_group_is_held_out_equally_often() -> None:
    counts = dict.fromkeys(PATHS[:20], 0)
    for seed in range(600):
        for path in split_holdout(PATHS[:20], None, 5, seed)[1]:
            counts[path] += 1
    # Binomial(600, ¼): mean 150, standard deviation 10.6; five of them on either side
    assert all(97 <= count <= 203 for count in counts.values())


def test_nothing_is_held_out_when_nothing_is_asked_for() -> None:
    assert split_holdout(PATHS, None, 0, seed=1) == (PATHS, [])


@pytest.mark.parametrize("holdout", [-1, 10, 11])
def test_a_split_that_leaves_no_bank_is_a_usage_error(holdout: int) -> None:
    with pytest.raises(UsageError, match=f"cannot hold out {holdout} of 10 groups"):
        split_holdout(PATHS, PARTS, holdout, seed=0)


# ---------------------------------------------------------------- real images


@needs_tiles
def test_the_magnetic_tile_folder_has_the_counts_of_its_sheet() -> None:
    dataset = read_dataset(TILES)
    counts = {kind: sum(s.defect == kind for s in dataset.test) for kind in {s.defect for s in dataset.test}}
    assert len(dataset.train) == 252
    assert counts == {"good": 78, "blowhole": 60, "break": 50, "crack": 36, "fray": 18, "uneven": 58}
    assert all((sample.mask_path is not None) == (sample.label == 1) for sample in dataset.test)
    assert dataset.problems == ()


@needs_tiles
def test_magnetic_tile_masks_have_the_size_of_their_image_and_are_not_empty() -> None:
    for sample in [s for s in read_dataset(TILES).test if s.mask_path][::20]:
        assert sample.mask_path is not None
        assert images.read_mask(sample.mask_path, images.read_image(sample.path).shape[:2]).any()


@needs_tiles
def test_magnetic_tile_groups_cover_the_fit_folder_and_never_reach_into_test() -> None:
    found = images.list_images(TILES / "train/good")
    groups = read_groups(TILES / "groups.csv", found, TILES / "train/good")
    assert len(groups) == 252
    with open(TILES / "groups.csv", newline="", encoding="utf-8") as stream:
        tested = {line["group"] for line in csv.DictReader(stream) if line["file"].startswith("test/")}
    assert not set(groups.values()) & tested
    bank, calibration = split_holdout(found, groups, 8, seed=0)
    assert not {groups[path] for path in bank} & {groups[path] for path in calibration}
