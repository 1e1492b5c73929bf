"""VisA's split table and a table of one's own: what each column means, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from onceover import images
from onceover.errors import InputError, UnknownNameError
from onceover.training.dataset import read_dataset

HEADER = ["image", "mask", "label", "split"]


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    return trees.visa(tmp_path / "VisA é")


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """The table; its images are photos/a.png to e.png beside it."""
    return trees.csv_table(tmp_path / "é") / "list.csv"


# ---------------------------------------------------------------- VisA


def test_visa_gives_one_object_by_category_or_by_its_folder(visa: Path) -> None:
    found = read_dataset(visa, category="pcb1")
    assert [sample.relative for sample in found.train] == ["pcb1/Data/Images/Normal/0000.JPG"]
    assert [(s.relative, s.label, s.defect) for s in found.test] == [
        ("pcb1/Data/Images/Anomaly/000.JPG", 1, "anomaly"),
        ("pcb1/Data/Images/Normal/0001.JPG", 0, "normal"),
    ]
    assert (found.name, found.layout, found.problems) == ("pcb1", "visa", ())
    by_folder = read_dataset(visa / "pcb1")
    assert [s.relative for s in by_folder.test] == [s.relative for s in found.test]
    assert by_folder.name == "pcb1"


def test_visa_without_a_category_lists_its_objects(visa: Path) -> None:
    with pytest.raises(InputError, match=r"1cls\.csv: holds 2 objects: candle, pcb1; give one: --category candle"):
        read_dataset(visa)
    with pytest.raises(UnknownNameError, match="unknown category 'candel'; did you mean 'candle'"):
        read_dataset(visa, category="candel")


def test_visa_masks_hold_ids_and_any_of_them_is_defective(visa: Path) -> None:
    sample = read_dataset(visa, category="candle").test[0]
    assert (sample.label, sample.positive_from) == (1, 1)
    assert sample.mask_path is not None
    ids = images.read_image(sample.mask_path)
    assert set(np.unique(ids)) == {0, 1, 2}
    assert (images.read_mask(sample.mask_path, ids.shape, sample.positive_from) == (ids > 0)).all()


def test_a_converted_visa_object_has_the_layout_mvtec(visa: Path) -> None:
    trees.mvtec(visa / "1cls" / "candle")
    assert read_dataset(visa / "1cls", category="candle").layout == "mvtec"


# ---------------------------------------------------------------- a table of one's own


def test_a_table_is_read_with_relative_paths_a_byte_order_mark_and_words_in_any_case(listing: Path) -> None:
    found = read_dataset(listing)
    assert listing.read_bytes().startswith(b"\xef\xbb\xbf")
    assert [s.relative for s in found.train] == ["photos/a.png"]
    assert [s.relative for s in found.validation] == ["photos/b.png"]
    assert [(s.relative, s.label, s.mask_path and s.mask_path.name) for s in found.test] == [
        ("photos/c.png", 0, None),
        ("photos/d.png", 1, "d.png"),
        ("photos/e.png", -1, None),
    ]
    assert (found.name, found.layout, found.problems) == ("list", "csv", ())
    assert read_dataset(listing.parent) == found


def test_absolute_paths_and_paths_beside_the_table_are_taken(listing: Path) -> None:
    photo = listing.parent / "photos/c.png"
    elsewhere = listing.parent / "tables/t.csv"
    trees.table(elsewhere, HEADER, [[str(photo), "", "ok", "test"], ["../photos/a.png", "", "ok", "train"]])
    found = read_dataset(elsewhere)
    assert [s.relative for s in (*found.train, *found.test)] == ["../photos/a.png", "../photos/c.png"]


def test_a_table_of_several_objects_takes_a_category(listing: Path) -> None:
    rows = [["nut", "photos/a.png", "ok", "train"], ["bolt", "photos/b.png", "ok", "test"]]
    trees.table(listing, ["object", "image", "label", "split"], rows)
    with pytest.raises(InputError, match="holds 2 objects: bolt, nut"):
        read_dataset(listing)
    found = read_dataset(listing, category="bolt")
    assert ([s.relative for s in found.test], found.name) == (["photos/b.png"], "bolt")


def test_what_a_table_leaves_open_is_told(listing: Path) -> None:
    rows = [["photos/a.png", "", "bad", "train"], ["photos/b.png", "", "bad", "test"]]
    found = read_dataset(trees.table(listing, HEADER, rows))
    assert found.train == ()
    assert found.problems == (
        "photos/a.png: left out, train takes normal images only (line 2)",
        "photos/b.png: no mask on line 3; image-level metrics only",
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["photos/a.png", "", "good", "tarin"], r"list\.csv, line 3: split is 'tarin'; expected one of train, valid"),
        (["photos/a.png", "", "gut", "train"], r"list\.csv, line 3: label is 'gut'; expected one of normal, good"),
        (["photos/a.png", "", "", "train"], r"line 3: label is ''"),
        (["", "", "good", "train"], "line 3: names no image"),
        (["photos/z.png", "", "good", "train"], r"line 3: .*photos/z\.png: no such file; paths are relative to"),
        (["photos/a.png", "masks/z.png", "bad", "test"], r"line 3: .*masks/z\.png: no such file"),
        (["photos", "", "good", "train"], "line 3: .*photos: no such file"),
        (["photos/../photos/c.png", "", "good", "train"], r"line 3: .* is also on line 2; name each image once"),
        (["photos/a.png"], "line 3: label is ''"),
    ],
)
def test_a_wrong_line_is_named(listing: Path, row: list[str], said: str) -> None:
    trees.table(listing, HEADER, [["photos/c.png", "", "good", "test"], row])
    with pytest.raises(InputError, match=said):
        read_dataset(listing)


@pytest.mark.parametrize("missing", ["image", "label", "split"])
def test_a_missing_column_is_named(listing: Path, missing: str) -> None:
    trees.table(listing, [name for name in HEADER if name != missing], [["photos/a.png", "good", "train"]])
    with pytest.raises(InputError, match=r"list\.csv, line 1: expected the columns image and label and split, found"):
        read_dataset(listing)


def test_a_table_that_is_empty_or_no_text_is_refused(listing: Path) -> None:
    trees.table(listing, HEADER, [])
    with pytest.raises(InputError, match="names no images"):
        read_dataset(listing)
    listing.write_bytes(b"")
    with pytest.raises(InputError, match="line 1: expected the columns image and label and split, found nothing"):
        read_dataset(listing)
    listing.write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="not a CSV text file in UTF-8"):
        read_dataset(listing)
    with pytest.raises(InputError, match="no such folder or table"):
        read_dataset(listing.with_name("none.csv"))


def test_two_tables_in_a_folder_are_not_guessed_between(listing: Path) -> None:
    trees.table(listing.with_name("other.csv"), HEADER, [["photos/a.png", "", "good", "train"]])
    with pytest.raises(InputError, match="no other layout fits"):
        read_dataset(listing.parent)
    trees.table(listing.with_name("other.csv"), ["file", "group"], [["photos/a.png", "1"]])
    assert read_dataset(listing.parent).name == "list"
