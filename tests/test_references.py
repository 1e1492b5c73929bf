"""The parity record proves the preprocessing: which images it holds, and that each constant of it is noticed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import Capture, refusal
from forged_package import Forgery
from numpy.typing import NDArray
from tiny_data import fitted_package
from tiny_package import MAP_STEP, TOLERANCE, TinyShape, read_members, tiny_config, tiny_image, write_members

from onceover import _core
from onceover.errors import PackageError, VerificationError
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.session import EngineOptions
from onceover.training.references import choose_references
from onceover.types import Preprocessing

INPUT = Preprocessing(32, 48, (0.5, 0.4, 0.3), (0.25, 0.5, 0.2))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("references"))


def saved(folder: Path, *images: NDArray[Any]) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    return paths


def shapes(images: list[NDArray[Any]]) -> list[tuple[int, ...]]:
    return [image.shape for image in images]


def test_a_fitted_package_holds_every_kind_of_reference(fitted: Path) -> None:
    images = [row["image"] for row in _core.read_parity(open_package(fitted).core)["images"]]
    assert len(images) == 6
    assert any(image.shape[0] >= 1.5 * 32 and image.shape[1] >= 1.5 * 48 for image in images)
    assert any(image.ndim == 2 for image in images)
    assert any(image.shape[1] >= 5 * image.shape[0] for image in images)
    assert any(image.ndim == 3 and (image[..., 0] != image[..., 2]).any() for image in images)


def test_lowest_middle_and_highest_come_first_and_large_ones_are_cropped(tmp_path: Path) -> None:
    paths = saved(tmp_path, *(np.full((600 + i, 700, 3), 40 * i, np.uint8) for i in range(5)))
    chosen = choose_references(paths, np.array([3, 1, 5, 2, 4], np.float32), INPUT)
    assert sorted(int(image.flat[0]) // 40 for image in chosen[:3]) == [0, 1, 2]  # scores 3, 1, 5
    assert shapes(chosen) == [(509, 509, 3)] * 3 + [(509, 509), (101, 509, 3)]


def test_small_and_gray_pictures_are_repeated_and_colored(tmp_path: Path) -> None:
    chosen = choose_references(saved(tmp_path, tiny_image(1, 8, 9, 0)), np.zeros(0, np.float32), INPUT)
    assert shapes(chosen) == [(8, 9), (8, 9), (8, 40, 3), (48, 72, 3)]
    for image in chosen[2:]:
        assert (image[..., 0] != image[..., 2]).any()


def test_16_bit_pictures_stay_16_bit(tmp_path: Path) -> None:
    picture = tiny_image(1).astype(np.uint16) * 257
    for image in choose_references(saved(tmp_path, picture), np.zeros(0, np.float32), INPUT):
        assert image.dtype == np.uint16


def changed(fitted: Path, path: Path, change: Callable[[Forgery], None]) -> Path:
    """The fitted package with one thing changed and all hashes right."""
    forgery = Forgery(bytearray(fitted.read_bytes()))
    change(forgery)
    path.write_bytes(forgery.sealed())
    return path


def scaled(offset: int, factor: float) -> Callable[[Forgery], None]:
    """One float32 of the config times `factor`."""

    def change(forgery: Forgery) -> None:
        (value,) = struct.unpack_from("<f", forgery.data, forgery.get("config", "offset") + offset)
        forgery.put_inside("config", offset, "<f", value * factor)

    return change


def swapped_colors(forgery: Forgery) -> None:
    """Every reference image that is said to be RGB is said to be BGR: the session swaps red and blue."""
    count = struct.unpack_from("<I", forgery.data, forgery.get("parity", "offset") + 4)[0]
    for i in range(count):
        at = 64 + 64 * i + 8
        if struct.unpack_from("<I", forgery.data, forgery.get("parity", "offset") + at)[0] == 2:
            forgery.put_inside("parity", at, "<I", 3)


def test_the_unchanged_package_verifies(fitted: Path, tmp_path: Path) -> None:
    path = changed(fitted, tmp_path / "same.onceover", lambda _: None)
    assert Inspector.open(path).verify()["images"] == 6


MEAN, STD, BLUR = 24, 36, 68  # offsets in the config: export/FORMAT.md


@pytest.mark.parametrize(
    "change",
    [
        *(pytest.param(scaled(MEAN + 4 * c, 1.01), id=f"mean of {color} + 1 %") for c, color in enumerate("RGB")),
        *(pytest.param(scaled(STD + 4 * c, 0.99), id=f"std of {color} - 1 %") for c, color in enumerate("RGB")),
        pytest.param(scaled(BLUR, 1.01), id="blur + 1 %"),
        pytest.param(swapped_colors, id="order of colors"),
    ],
)
def test_one_changed_constant_of_the_preprocessing_fails_verification(
    fitted: Path, tmp_path: Path, change: Callable[[Forgery], None], capsys: Capture
) -> None:
    path = changed(fitted, tmp_path / "changed.onceover", change)
    with pytest.raises(VerificationError, match="does not reproduce the package"):
        Inspector.open(path).verify()
    assert refusal(capsys, "verify", str(path))[0] == 1


@pytest.mark.parametrize(("offset", "value"), [(8, 40), (12, 40), (16, 2), (20, 2)])
def test_another_input_size_color_or_resize_is_refused(
    fitted: Path, tmp_path: Path, offset: int, value: int, capsys: Capture
) -> None:
    """The graph has one size, and the format one color order and one resize; other values have no meaning."""
    path = changed(fitted, tmp_path / "changed.onceover", lambda f: f.put_inside("config", offset, "<I", value))
    status, message = refusal(capsys, "verify", str(path))
    assert status == 3
    assert "; " in message


def rewritten(fitted: Path, path: Path, resize: Callable[[NDArray[Any]], NDArray[Any]]) -> Path:
    """The package with the answers of a machine that resizes by other means: what verify must notice."""
    session = _core.Session(_core.Package.open(fitted), EngineOptions().resolve())
    items = []
    for row in _core.read_parity(open_package(fitted).core)["images"]:
        result = session.run(resize(row["image"]))  # of the input's size: nothing left for our own resize
        items.append(
            _core.ParityItem(
                row["image"], "rgb", result.score, row["verdict"], session.patch_scores(), session.anomaly_map()
            )
        )
    members = read_members(fitted)
    members["parity"] = _core.parity_bytes(items, tiny_config(TinyShape(), 4.0), TOLERANCE, MAP_STEP)
    for name in ("bank_index", "bank_neighbors", "bank_source"):
        members.pop(name, None)
    return write_members(path, members)


def test_our_own_resize_done_beforehand_changes_nothing(fitted: Path, tmp_path: Path) -> None:
    path = rewritten(fitted, tmp_path / "ours.onceover", lambda image: _core.resize(image, 32, 48))
    assert Inspector.open(path).verify()["images"] == 6


@pytest.mark.parametrize("how", [cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_AREA, cv2.INTER_CUBIC])
def test_a_machine_with_another_resize_fails_verification(fitted: Path, tmp_path: Path, how: int) -> None:
    def resize(image: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(image, (48, 32), interpolation=how))

    path = rewritten(fitted, tmp_path / "other.onceover", resize)
    with pytest.raises(VerificationError, match="does not reproduce the package"):
        Inspector.open(path).verify()


def test_verification_fails_outside_the_stated_tolerance_and_only_there(fitted: Path, tmp_path: Path) -> None:
    """|difference| ≤ tolerance · largest expected patch score: half of it passes, twice of it does not."""
    record = _core.read_parity(open_package(fitted).core)
    score = record["images"][0]["score"]
    for share, passes in ((0.5, True), (2.0, False)):
        value = score * (1 + share * record["relative_tolerance"])
        path = changed(
            fitted, tmp_path / "changed.onceover", lambda f, value=value: f.put_inside("parity", 64 + 12, "<f", value)
        )
        if passes:
            assert Inspector.open(path).verify()["largest_relative_difference"] > 0.4 * record["relative_tolerance"]
        else:
            with pytest.raises(VerificationError, match=r"score of patch .* allowed difference"):
                Inspector.open(path).verify()


def test_a_record_without_images_proves_nothing(fitted: Path, tmp_path: Path) -> None:
    path = changed(fitted, tmp_path / "empty.onceover", lambda f: f.put_inside("parity", 4, "<I", 0))
    with pytest.raises(VerificationError, match="has no reference images"):
        Inspector.open(path).verify()


def test_a_tolerance_that_would_prove_nothing_is_refused(fitted: Path, tmp_path: Path) -> None:
    path = changed(fitted, tmp_path / "wide.onceover", lambda f: f.put_inside("parity", 8, "<f", 0.5))
    with pytest.raises(PackageError, match=r"'relative_tolerance' is 0\.5, expected above 0 and at most 0\.1"):
        Inspector.open(path).verify()
