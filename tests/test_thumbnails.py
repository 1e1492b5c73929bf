"""Pictures of the normal images in a package: asked for only, bounded, checked, and kept through everything."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import _core, export
from onceover.cli import main
from onceover.errors import PackageError, UsageError
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, assemble
from onceover.runtime.package import open_package
from onceover.runtime.reasons import BankImages
from onceover.runtime.thumbnails import (
    Thumbnail,
    make_thumbnail,
    pack,
    read_thumbnails,
    unpack_thumbnails,
)
from onceover.runtime.unpack import unpack
from onceover.training.fit import fit
from onceover.training.refit import refit

SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("thumbnails") / "plate" / "train" / "good", 2 * HELD_OUT)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, tiny_options(thumbnails=SIDE))


@pytest.fixture(scope="module")
def package(parts: PackageParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("thumbnails") / "plate.onceover"
    export.package(parts, path)
    return path


def test_without_being_asked_nothing_is_stored_and_the_bytes_are_those_of_format_1_0(
    folder: Path, parts: PackageParts, package: Path
) -> None:
    plain = fit(folder, tiny_options())
    assert plain.thumbnails is None
    bytes_of_manifest = {**parts.manifest}
    del bytes_of_manifest["thumbnails"]
    assert bytes_of_manifest == plain.manifest
    without = replace(parts, thumbnails=None, manifest=bytes_of_manifest)
    assert assemble(without).bytes() == assemble(plain).bytes()
    brought_by_1_1 = ("calibration_patches", "gate", "adaptation", "position_weights")  # other members
    as_before = replace(plain, **dict.fromkeys(brought_by_1_1))
    assert _core.Package.view(assemble(as_before).bytes()).version == (1, 0)
    assert open_package(package).core.version == (1, 1)


def test_each_image_that_owns_a_bank_row_has_one_picture_of_it(folder: Path, package: Path) -> None:
    opened = open_package(package)
    stored = read_thumbnails(opened)
    assert stored is not None
    bank = BankImages(opened)
    assert tuple(stored.pictures) == bank.used
    for image in bank.used:
        picture, original = stored.picture(image), read_image(folder / bank.names[image])
        assert picture is not None
        assert max(picture.shape) == SIDE
        assert stored.pictures[image].source_size == original.shape[:2] == (40, 56)
        small = _core.resize(original, *picture.shape[:2])
        assert np.abs(picture.astype(int) - small).mean() < 8  # noise of the texture, as JPEG keeps it
    assert stored.picture(10**6) is None


def test_images_that_own_no_bank_row_are_not_stored(folder: Path) -> None:
    from onceover.detectors import BankSize

    few = fit(folder, tiny_options(thumbnails=SIDE, bank=BankSize(rows=3)))
    assert few.thumbnails is not None
    assert few.bank_source is not None
    stored = unpack_thumbnails(few.thumbnails, "few")
    assert list(stored.pictures) == sorted({int(image) for image in few.bank_source[:, 0]})
    assert 1 <= len(stored.pictures) <= 3
    assert few.manifest["thumbnails"] == {"images": len(stored.pictures), "side": SIDE, "size_bytes": stored.size_bytes}


def test_the_same_images_give_the_same_bytes(folder: Path, parts: PackageParts) -> None:
    assert fit(folder, tiny_options(thumbnails=SIDE)).thumbnails == parts.thumbnails
    assert fit(folder, tiny_options(thumbnails=SIDE + 8)).thumbnails != parts.thumbnails


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((40, 56, 3), np.uint8, (40, 56)),  # never scaled up
        ((400, 200, 3), np.uint8, (64, 32)),
        ((300, 600), np.uint8, (32, 64)),
        ((600, 300, 4), np.uint8, (64, 32)),
        ((128, 128), np.uint16, (64, 64)),
        ((8, 4000), np.uint8, (1, 64)),
    ],
)
def test_every_kind_of_image_becomes_a_picture_of_bounded_size(
    shape: tuple[int, ...], dtype: type, size: tuple[int, int]
) -> None:
    image = np.full(shape, 100 if dtype is np.uint8 else 100 * 257, dtype)
    made = make_thumbnail(image, 64)
    assert (made.size, made.source_size) == (size, shape[:2])
    picture = unpack_thumbnails(pack({3: made}, 64), "made").picture(3)
    assert picture is not None
    assert picture.shape == (*size, 3)
    assert np.abs(picture.astype(int) - 100).max() <= 2
    assert len(make_thumbnail(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8), 64).jpeg) < 12288


@pytest.mark.parametrize("side", [0, 31, 1025, -5])
def test_a_senseless_size_is_refused_before_any_work(folder: Path, side: int) -> None:
    with pytest.raises(UsageError, match="32 to 1024"):
        fit(folder, tiny_options(thumbnails=side), on_plan=lambda plan: pytest.fail("work was planned"))


HEADER, ENTRY = 64, 32


def _put(at: int, kind: str, *values: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(kind, data, at, *values)


def _cut(data: bytearray) -> None:
    del data[-1]


def _append(data: bytearray) -> None:
    data += b"\0"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data.__delitem__(slice(20, None)), "its header alone 64"),
        (_put(0, "<I", 8), "records of 8"),
        (_put(4, "<I", 16), "records of 64 and 16"),
        (_put(8, "<I", 0), "0 pictures"),
        (_put(8, "<I", 2**32 - 1), "4294967295 pictures"),
        (_put(8, "<I", 5000), "the table of 5000 pictures ends at byte 160064"),
        (_put(12, "<I", 5), "up to 5 pixels"),
        (_put(16, "<I", 2), "encoding 2"),
        (_put(20, "<I", 1), "reserved"),
        (_put(63, "<B", 1), "reserved"),
        (_put(HEADER + ENTRY, "<I", 0), "ascending"),
        (_put(HEADER + 4, "<I", 70_000), "70000 ×"),
        (_put(HEADER + 4, "<I", 0), "picture 0"),
        (_put(HEADER + 12, "<I", 1), "picture 0"),
        (_put(HEADER + 12, "<I", 2**31), "at most 32768"),
        (_put(HEADER + 20, "<I", 0), "has 0 bytes"),
        (_put(HEADER + 20, "<I", 2**32 - 1), "has 4294967295 bytes"),
        (_put(HEADER + 24, "<Q", 2**64 - 1), "from byte 18446744073709551615 on"),
        (_put(HEADER + 24, "<Q", 0), "from byte 0 on"),
        (_cut, "picture 1 has"),
        (_append, "the last picture ends at byte"),
    ],
)
def test_a_damaged_member_is_refused_and_the_message_says_where(
    parts: PackageParts, damage: Callable[[bytearray], None], says: str
) -> None:
    two = pack({0: make_thumbnail(tiny_image(0), 32), 2: make_thumbnail(tiny_image(1), 32)}, 32)
    data = bytearray(two)
    damage(data)
    with pytest.raises(PackageError, match="member 'thumbnails'") as refused:
        unpack_thumbnails(bytes(data), "part.onceover")
    assert says in str(refused.value)
    assert str(refused.value).startswith("part.onceover: ")


def test_cut_at_any_byte_the_member_is_refused() -> None:
    whole = pack({1: make_thumbnail(tiny_image(0), 32)}, 32)
    for size in range(len(whole)):
        with pytest.raises(PackageError):
            unpack_thumbnails(whole[:size], "cut")


@pytest.mark.parametrize("jpeg", [b"no picture", b"\xff\xd8\xff\xd9", make_thumbnail(tiny_image(0), 40).jpeg])
def test_a_picture_that_is_no_jpeg_of_its_size_is_refused_when_it_is_looked_at(jpeg: bytes) -> None:
    stored = unpack_thumbnails(pack({0: Thumbnail((23, 32), (40, 56), jpeg)}, 32), "part.onceover")
    with pytest.raises(PackageError, match="image 0 is no JPEG of 23 × 32"):
        stored.picture(0)


def test_a_damaged_member_leaves_verdicts_alone_and_is_told_when_it_is_needed(
    parts: PackageParts, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    export.package(replace(parts, thumbnails=b"x" * 100), tmp_path / "bad.onceover")
    image = str(folder / "00.png")
    assert main(["inspect", str(tmp_path / "bad.onceover"), image]) in {0, 1}
    capsys.readouterr()
    status, message = refusal(
        capsys, "inspect", str(tmp_path / "bad.onceover"), image, "--explain", str(tmp_path / "e")
    )
    assert status == 3
    assert "member 'thumbnails'" in message


def test_unpack_writes_them_as_files(package: Path, tmp_path: Path) -> None:
    out = unpack(open_package(package), tmp_path / "out")
    stored = read_thumbnails(open_package(package))
    assert stored is not None
    files = sorted((out / "thumbnails").iterdir())
    assert [path.name for path in files] == [f"{image:05}.jpg" for image in stored.pictures]
    assert read_image(files[0]).shape[:2] == next(iter(stored.pictures.values())).size


def test_a_refit_keeps_them(package: Path, parts: PackageParts, folder: Path) -> None:
    again = refit(open_package(package), tiny_graph(), folder)
    assert again.thumbnails == parts.thumbnails
    assert again.manifest["thumbnails"] == parts.manifest["thumbnails"]
    plain = fit(folder, tiny_options())
    view = _core.Package.view(assemble(plain).bytes())
    from onceover.runtime.package import view_package

    assert refit(view_package(view), tiny_graph(), folder).thumbnails is None


def test_an_export_keeps_them_and_says_so(package: Path, parts: PackageParts, tmp_path: Path, capsys: Capture) -> None:
    assert main(["export", str(package), "-o", str(tmp_path / "out.onceover")]) == 0
    assert "whoever has the file sees them" in capsys.readouterr().err
    exported = open_package(tmp_path / "out.onceover")
    assert exported.core.read("thumbnails") == parts.thumbnails
    assert exported.manifest["thumbnails"] == parts.manifest["thumbnails"]


def test_fit_says_what_is_stored_before_it_writes(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    words = ["fit", str(folder), "-o", str(tmp_path / "p.onceover"), "--backbone", str(tmp_path / "tiny.onnx")]
    assert main([*words, "--thumbnails"]) == 0
    told = capsys.readouterr()
    assert "pictures of your parts" in told.err
    assert "whoever has the file sees them" in told.err
    stored = read_thumbnails(open_package(tmp_path / "p.onceover"))
    assert stored is not None
    assert stored.side == 256
    assert main(words) == 0
    assert "pictures" not in capsys.readouterr().err
    assert read_thumbnails(open_package(tmp_path / "p.onceover")) is None
    status, fitted = answer(capsys, *words, "--thumbnails", "48")
    assert status == 0
    assert fitted["thumbnails"]["side"] == 48
    manifest = json.loads(open_package(tmp_path / "p.onceover").core.read("manifest.json"))
    assert manifest["thumbnails"] == fitted["thumbnails"]


def test_a_word_in_place_of_the_size_is_explained(tmp_path: Path, capsys: Capture) -> None:
    write_image(tmp_path / "a.png", tiny_image(0))
    status, message = refusal(capsys, "fit", "-o", "p.onceover", "--thumbnails", str(tmp_path))
    assert status == 2
    assert "is not a number of pixels; for the default give it last" in message
