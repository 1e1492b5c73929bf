"""Which images calibrate and which judge: none of the bank, none on both sides; and defects drawn where none are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import HELD_OUT, fitted_package, good_folder, labelled_folder
from tiny_package import read_members, tiny_image, tiny_package, write_members

from onceover import _core
from onceover.errors import InputError, UsageError
from onceover.export.judging_images import (
    MAX_CALIBRATION,
    MIN_HALF,
    JudgingImages,
    choose_images,
    draw_defect,
    with_drawn_defects,
)
from onceover.images import list_images, read_image, read_mask, write_image
from onceover.runtime.package import PackageFile, open_package
from onceover.training.dataset import file_hash


@dataclass(frozen=True)
class Fitted:
    package: PackageFile
    train: Path

    @property
    def bank(self) -> set[str]:
        return set(self.package.manifest["data"]["bank_sha256"])

    def bank_image(self) -> Path:
        return self.train / self.package.manifest["data"]["bank_images"][0]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("judging")
    return Fitted(open_package(fitted_package(folder)), folder / "train/good")


def seeds_of(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_a_plain_folder_calibrates_with_one_half_and_judges_with_the_other(fitted: Fitted, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "normal", 2 * MIN_HALF, 900)
    images = choose_images(fitted.package, folder, None, tmp_path)
    assert seeds_of(images.calibration) == ["00.png", "02.png", "04.png", "06.png", "08.png"]
    good = [sample for sample in images.test.test if sample.label == 0]
    drawn = [sample for sample in images.test.test if sample.label == 1]
    assert seeds_of(tuple(sample.path for sample in good)) == ["01.png", "03.png", "05.png", "07.png", "09.png"]
    assert len(drawn) == len(good)
    assert images.drawn
    assert images.describe() == ("judged on 5 normal images and 5 with a drawn defect; int8 calibrated on 5 others")


def test_images_of_the_memory_bank_calibrate_nothing(fitted: Fitted, tmp_path: Path) -> None:
    images = choose_images(fitted.package, fitted.train, None, tmp_path)
    used = [*images.calibration, *(sample.path for sample in images.test.test if sample.label == 0)]
    assert len(used) == HELD_OUT  # of the folder it was fitted on: those that calibrated the threshold
    assert not {file_hash(path) for path in used} & fitted.bank


def test_a_folder_of_bank_images_alone_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    shutil.copy(fitted.bank_image(), tmp_path / "bank/renamed.png")
    with pytest.raises(InputError, match="all 1 images are in the memory bank"):
        choose_images(fitted.package, tmp_path / "bank", None, tmp_path)


def test_too_few_images_for_two_halves_are_refused_with_the_number_needed(fitted: Fitted, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "normal", 2 * MIN_HALF - 1, 900)
    with pytest.raises(InputError, match=r"9 images outside the memory bank are too few.*give 10 or more, or --test"):
        choose_images(fitted.package, folder, None, tmp_path)


def test_a_copy_of_an_image_is_not_on_both_sides(fitted: Fitted, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "normal", 2 * MIN_HALF, 900)
    shutil.copy(folder / "00.png", folder / "00b.png")  # its neighbor in the order of names
    images = choose_images(fitted.package, folder, None, tmp_path)
    calibrating = {file_hash(path) for path in images.calibration}
    assert len(calibrating) == len(images.calibration) == MIN_HALF
    assert not calibrating & {file_hash(sample.path) for sample in images.test.test}


def test_copies_do_not_count_as_further_images(fitted: Fitted, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "normal", 2 * MIN_HALF - 1, 900)
    shutil.copy(folder / "00.png", folder / "copy.png")
    with pytest.raises(InputError, match="9 images outside the memory bank are too few"):
        choose_images(fitted.package, folder, None, tmp_path)


def test_a_test_folder_leaves_all_images_to_calibration(fitted: Fitted, tmp_path: Path) -> None:
    folder, other = good_folder(tmp_path / "normal", 3, 900), good_folder(tmp_path / "other", 4, 950)
    images = choose_images(fitted.package, folder, other, tmp_path)
    assert (len(images.calibration), images.drawn) == (3, False)
    assert [sample.label for sample in images.test.test] == [-1] * 4
    assert "0 normal images and 4 without a label" in images.describe()


def test_a_test_image_that_is_in_the_bank_is_refused_under_any_name(fitted: Fitted, tmp_path: Path) -> None:
    other = good_folder(tmp_path / "other", 4, 950)
    shutil.copy(fitted.bank_image(), other / "renamed.png")
    with pytest.raises(UsageError, match=r"renamed.png: is in the memory bank of .*tiny.onceover"):
        choose_images(fitted.package, None, other, tmp_path)


def test_a_test_image_that_calibrates_is_refused_under_any_name(fitted: Fitted, tmp_path: Path) -> None:
    folder, other = good_folder(tmp_path / "normal", 3, 900), good_folder(tmp_path / "other", 4, 950)
    shutil.copy(folder / "01.png", other / "renamed.png")
    with pytest.raises(UsageError, match=r"renamed.png: is among the calibration images"):
        choose_images(fitted.package, folder, other, tmp_path)


def test_a_data_set_calibrates_with_its_train_and_is_judged_on_its_test_split(fitted: Fitted, tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data")
    good_folder(root / "train/good", 5, 900)
    images = choose_images(fitted.package, root, None, tmp_path)
    assert {path.parent for path in images.calibration} == {root / "train/good"}
    assert len(images.calibration) == 5
    assert sorted(sample.label for sample in images.test.test) == [0] * 4 + [1] * 4
    assert not images.drawn
    assert "4 normal images and 4 anomalous; int8 calibrated on 5 others" in images.describe()


def test_a_data_set_for_testing_brings_its_labels_and_masks(fitted: Fitted, tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data")
    images = choose_images(fitted.package, None, root, tmp_path)
    assert images.calibration == ()
    assert sum(sample.mask_path is not None for sample in images.test.test if sample.label == 1) == 4


def test_without_any_folder_the_reference_images_judge(tmp_path: Path) -> None:
    package = open_package(tiny_package(tmp_path / "tiny.onceover"))
    images = choose_images(package, None, None, tmp_path)
    assert (images.calibration, images.drawn) == ((), False)
    recorded = [each["image"] for each in _core.read_parity(package.core)["images"]]
    assert len(recorded) == 3
    for sample, image in zip(images.test.test, recorded, strict=True):
        np.testing.assert_array_equal(read_image(sample.path), image)


def test_reference_images_in_the_order_of_opencv_are_turned_to_rgb(tmp_path: Path) -> None:
    members = read_members(tiny_package(tmp_path / "tiny.onceover"))
    core = open_package(tmp_path / "tiny.onceover").core
    item = _core.ParityItem(
        tiny_image(1)[..., ::-1].copy(), "bgr", 1.0, 0, np.zeros((4, 6), np.float32), np.zeros((32, 48), np.float32)
    )
    members["parity"] = _core.parity_bytes([item], _core.read_config(core), 1e-4, 4)
    package = open_package(write_members(tmp_path / "bgr.onceover", members))
    (sample,) = choose_images(package, None, None, tmp_path).test.test
    np.testing.assert_array_equal(read_image(sample.path), tiny_image(1))


def test_more_images_than_calibration_can_use_are_taken_from_the_whole_folder(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_CALIBRATION == 300
    monkeypatch.setattr("onceover.export.judging_images.MAX_CALIBRATION", 4)
    folder, other = good_folder(tmp_path / "normal", 7, 900), good_folder(tmp_path / "other", 4, 950)
    images = choose_images(fitted.package, folder, other, tmp_path)
    assert seeds_of(images.calibration) == ["00.png", "02.png", "04.png", "06.png"]


KINDS = [(np.uint8, 0), (np.uint8, 3), (np.uint16, 0), (np.uint16, 3)]


def picture(kind: type[np.unsignedinteger[object]], channels: int, level: float) -> NDArray[np.uint8]:
    """Noise around a level from 0 to 1 of the full range, or plain black and white at its ends."""
    full = np.iinfo(kind).max
    noise = 0.05 if 0 < level < 1 else 0
    shape = (60, 90, channels) if channels else (60, 90)
    values = level * full + noise * full * np.random.default_rng(3).uniform(-1, 1, shape)
    return np.clip(values, 0, full).astype(kind)  # type: ignore[return-value]


@pytest.mark.parametrize(("kind", "channels"), KINDS)
@pytest.mark.parametrize("level", [0, 0.1, 0.5, 1])
def test_the_mask_of_a_drawn_defect_is_where_the_image_changed(kind: type, channels: int, level: float) -> None:
    image = picture(kind, channels, level)
    before = image.copy()
    for seed in range(30):
        damaged, mask = draw_defect(np.random.default_rng(seed), image)
        assert (damaged.dtype, damaged.shape, mask.shape) == (image.dtype, image.shape, (60, 90))
        changed = (damaged != image).reshape(60, 90, -1).any(axis=2)
        assert 0 < changed.sum() < 0.2 * changed.size  # also on black and on white
        np.testing.assert_array_equal(changed, mask)
        if level in (0, 1):  # where nothing else can be seen
            assert np.abs(damaged.astype(np.int64) - image).max() > 0.3 * np.iinfo(kind).max
    np.testing.assert_array_equal(image, before)


def test_defects_are_seeded_and_differ() -> None:
    image = tiny_image(1)
    drawn = [draw_defect(np.random.default_rng(seed), image)[0] for seed in range(20)]
    assert len({each.tobytes() for each in drawn}) == 20
    np.testing.assert_array_equal(drawn[7], draw_defect(np.random.default_rng(7), image)[0])


def test_a_defect_fits_into_the_smallest_image() -> None:
    for seed in range(30):
        _, mask = draw_defect(np.random.default_rng(seed), tiny_image(1, 8, 8))
        assert mask.any()


@pytest.mark.parametrize(("kind", "channels"), KINDS)
def test_drawn_files_keep_depth_and_color_and_carry_their_mask(kind: type, channels: int, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(kind, channels, 0.5))
    good, bad = with_drawn_defects([tmp_path / "a.png"], tmp_path, 5).test
    original, damaged = read_image(good.path), read_image(bad.path)
    assert (good.path, good.label, bad.label, good.mask_path) == (tmp_path / "a.png", 0, 1, None)
    assert (damaged.dtype, damaged.shape) == (original.dtype, original.shape) == (kind, original.shape)
    assert bad.mask_path is not None
    mask = read_mask(bad.mask_path, (60, 90))
    np.testing.assert_array_equal(mask, (damaged != original).reshape(60, 90, -1).any(axis=2))


def test_the_seed_decides_what_is_drawn(fitted: Fitted, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "normal", 2 * MIN_HALF, 900)

    def pictures(name: str, seed: int) -> list[bytes]:
        (tmp_path / name).mkdir()
        images: JudgingImages = choose_images(fitted.package, folder, None, tmp_path / name, seed)
        assert len(images.test.test) == 2 * MIN_HALF
        return [path.read_bytes() for path in list_images(tmp_path / name)]

    first = pictures("first", 1)
    assert first == pictures("again", 1)
    assert first != pictures("other", 2)
