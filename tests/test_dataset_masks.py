"""The ground truth of every kind of file a data set holds: ids, soft edges, palettes, one mask for each defect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from onceover.errors import InputError
from onceover.images import read_image
from onceover.training.dataset import Dataset, Sample, read_dataset
from onceover.training.ground_truth import read_channels, read_ground_truth, resize_mask

EXPECTED = np.zeros(trees.SHAPE, bool)
EXPECTED[trees.DEFECT] = True


def sample_of(dataset: Dataset, relative: str) -> Sample:
    return next(sample for sample in dataset.test if sample.relative == relative)


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    return trees.mvtec_loco(tmp_path / "juice_bottle")


def logical(root: Path) -> Sample:
    return sample_of(read_dataset(root), "test/logical_anomalies/000.png")


# ---------------------------------------------------------------- one mask


@pytest.mark.parametrize("draw", [trees.mvtec, trees.btad, trees.mvtec_ad2])
def test_every_mask_of_a_folder_marks_the_defect_whatever_its_format(
    draw: Callable[[Path], Path], tmp_path: Path
) -> None:
    found = read_dataset(draw(tmp_path / "part"))
    marked = [sample for sample in found.test if sample.label == 1]
    assert marked
    for sample in marked:
        truth = read_ground_truth(sample, read_image(sample.path).shape[:2])
        assert truth is not None
        assert (truth == EXPECTED).all()


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([0, 1, 2], {1, 2}),  # ids of defects
        ([0, 90, 200, 255], {200, 255}),  # a soft edge: the upper half
        ([0, 1], {1}),
        ([0, 255], {255}),
    ],
)
def test_which_values_of_a_mask_are_defective(tmp_path: Path, values: list[int], positive: set[int]) -> None:
    trees.mvtec(tmp_path)
    drawn = np.resize(np.array(values, np.uint8), trees.SHAPE)
    trees.put(tmp_path / "ground_truth/cut/000_mask.png", drawn)
    truth = read_ground_truth(sample_of(read_dataset(tmp_path), "test/cut/000.PNG"), trees.SHAPE)
    assert (truth == np.isin(drawn, list(positive))).all()


def test_a_mask_with_a_palette_and_an_image_with_a_palette_are_read(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    indexed = PillowImage.fromarray(EXPECTED.astype(np.uint8), "L").convert("P")
    indexed.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)  # black, dark red
    indexed.save(tmp_path / "ground_truth/cut/000_mask.png")
    indexed.save(tmp_path / "test/cut/000.PNG", format="PNG")
    sample = sample_of(read_dataset(tmp_path), "test/cut/000.PNG")
    truth = read_ground_truth(sample, read_image(sample.path).shape[:2])
    assert (truth == EXPECTED).all()


def test_magnetic_tile_masks_are_cut_at_half_of_the_range(tmp_path: Path) -> None:
    found = read_dataset(trees.magnetic_tile(tmp_path))
    truth = read_ground_truth(sample_of(found, "MT_Crack/Imgs/exp1_num_50.jpg"), trees.SHAPE)
    assert (truth == EXPECTED).all()
    empty = read_ground_truth(sample_of(found, "MT_Uneven/Imgs/exp1_num_60.jpg"), trees.SHAPE)
    assert empty is not None
    assert not empty.any()


def test_kolektor_masks_are_defective_above_zero(tmp_path: Path) -> None:
    truth = read_ground_truth(sample_of(read_dataset(trees.kolektor2(tmp_path)), "test/20001.png"), trees.SHAPE)
    assert truth is not None
    assert truth.sum() == 1


def test_a_normal_image_has_an_empty_mask_and_what_nobody_knows_has_none(tmp_path: Path) -> None:
    found = read_dataset(trees.mvtec_ad2(tmp_path))
    empty = read_ground_truth(sample_of(found, "test_public/good/002_regular.png"), trees.SHAPE)
    assert empty is not None
    assert empty.shape == trees.SHAPE
    assert not empty.any()
    assert read_ground_truth(sample_of(found, "test_private/000.png"), trees.SHAPE) is None


def test_masks_are_resized_to_the_nearest_pixel() -> None:
    rows = ((np.arange(5) + 0.5) * 12 / 5).astype(int)
    columns = ((np.arange(4) + 0.5) * 10 / 4).astype(int)
    assert (resize_mask(EXPECTED, (5, 4)) == EXPECTED[np.ix_(rows, columns)]).all()
    assert resize_mask(EXPECTED, trees.SHAPE) is EXPECTED


# ---------------------------------------------------------------- MVTec LOCO


def test_each_channel_has_the_saturation_area_of_its_gray_value(loco: Path) -> None:
    masks, areas = read_channels(logical(loco), trees.SHAPE)
    assert [int(mask.sum()) for mask in masks] == [20, 20, 6]
    # absolute 7; relative 0.37 · 20 = 7.4, truncated; 0.01 · 6 = 0.06, truncated to 0, of which no share can be taken
    assert areas == [7, 7, 1]


def test_the_union_of_the_channels_is_what_ordinary_pixel_metrics_see(loco: Path) -> None:
    union = EXPECTED.copy()
    union[trees.CORNER] = True
    assert (read_ground_truth(logical(loco), trees.SHAPE) == union).all()


def test_an_absolute_saturation_is_never_more_than_the_defect(loco: Path) -> None:
    sample = sample_of(read_dataset(loco), "test/structural_anomalies/000.png")
    assert read_channels(sample, trees.SHAPE)[1] == [6]


def test_at_another_resolution_absolute_areas_shrink_and_lost_defects_are_left_out(loco: Path) -> None:
    trees.mask(loco / "ground_truth/logical_anomalies/000/003.png", 250, (slice(0, 1), slice(0, 1)))
    size = (6, 5)
    masks, areas = read_channels(logical(loco), trees.SHAPE, size)
    assert all(mask.shape == size for mask in masks)
    assert len(masks) == 3  # of four: the single pixel falls between
    # absolute 7 · (30 / 120) = 1.75; relative 0.37 of what is left of the defect
    assert areas == [1, int(0.37 * masks[1].sum()), 1]


def test_without_a_saturation_for_a_gray_value_its_file_is_named(loco: Path) -> None:
    trees.mask(loco / "ground_truth/logical_anomalies/000/001.png", 77)
    with pytest.raises(InputError, match=r"001\.png: gray value 77 is not in defects_config.json, .*250, 251, 255"):
        read_channels(logical(loco), trees.SHAPE)
    (loco / "defects_config.json").unlink()
    found = read_dataset(loco)
    assert found.problems == ("no defects_config.json; the saturated overlap (sPRO) is unknown",)
    with pytest.raises(InputError, match=r"000\.png: gray value 255 is not in defects_config.json, .*no entry"):
        read_channels(logical(loco), trees.SHAPE)


def test_a_channel_with_two_gray_values_or_another_size_is_refused(loco: Path) -> None:
    path = loco / "ground_truth/logical_anomalies/000/001.png"
    values: NDArray[np.uint8] = np.zeros(trees.SHAPE, np.uint8)
    values[0, :2] = 250, 251
    trees.put(path, values)
    with pytest.raises(InputError, match=r"001\.png: holds the gray values \[250, 251\], expected one"):
        read_channels(logical(loco), trees.SHAPE)
    with pytest.raises(InputError, match=r"000\.png: mask is 12×10"):
        read_channels(logical(loco), (24, 20))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("no JSON", "defects_config.json: not JSON"),
        ({"pixel_value": 1}, "expected a list of defects, got dict"),
        ([7], "entry 0 is 7; expected defect_name"),
        ([{**trees.LOCO_CONFIG[0], "pixel_value": 0}], "entry 0 is .*pixel_value .1 to 255"),
        ([trees.LOCO_CONFIG[0], {**trees.LOCO_CONFIG[1], "saturation_threshold": 2}], "entry 1 is .*at most 1"),
        ([{**trees.LOCO_CONFIG[0], "saturation_threshold": "7"}], "entry 0 is"),
        ([{**trees.LOCO_CONFIG[0], "relative_saturation": 1}], "entry 0 is .*true or false"),
        ([{"defect_name": "a"}], "entry 0 is"),
        ([trees.LOCO_CONFIG[0]] * 2, r"two defects have one pixel_value.*\[255, 255\]"),
    ],
)
def test_a_wrong_defects_config_is_refused_by_entry(loco: Path, config: Any, said: str) -> None:
    (loco / "defects_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(InputError, match=said):
        read_dataset(loco)
