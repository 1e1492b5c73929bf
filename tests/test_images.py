"""Image files: every kind a factory sends is read, every damaged one is refused by name, pictures are written whole."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from onceover import images
from onceover.errors import InputError, OutputError, UsageError
from onceover.image_header import read_header

RNG = np.random.default_rng(7)
SMOOTH = cv2.resize(RNG.integers(0, 256, (5, 6, 3), np.uint8), (48, 40), interpolation=cv2.INTER_LINEAR)  # (40, 48, 3)
FORMATS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp", "PPM": "ppm"}


def encode(array: NDArray[np.generic], format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


def saved(folder: Path, data: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_as_rgb(format: str, tmp_path: Path) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 98} if format == "JPEG" else {}
    path = saved(tmp_path, encode(SMOOTH, format, **options), f"a.{FORMATS[format]}")
    found = images.read_image(path)
    assert (found.shape, found.dtype) == (SMOOTH.shape, np.uint8)
    assert np.abs(found.astype(int) - SMOOTH).mean() <= (4 if format == "JPEG" else 0)
    assert read_header(path.read_bytes()).size == SMOOTH.shape[:2]


def test_gray_stays_gray_and_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    gray = SMOOTH[..., 0]
    deep = gray.astype(np.uint16) * 257 - np.uint16(3) * (gray > 3).astype(np.uint16)
    np.testing.assert_array_equal(images.read_image(saved(tmp_path, encode(gray))), gray)
    found = images.read_image(saved(tmp_path, encode(deep)))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, deep)
    cv2.imwrite(str(tmp_path / "c.png"), SMOOTH[..., ::-1].astype(np.uint16) * 200)
    np.testing.assert_array_equal(images.read_image(tmp_path / "c.png"), SMOOTH.astype(np.uint16) * 200)


def test_alpha_is_dropped_and_a_palette_expanded(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (40, 48, 1), np.uint8)
    found = images.read_image(saved(tmp_path, encode(np.concatenate([SMOOTH, alpha], axis=2))))
    np.testing.assert_array_equal(found, SMOOTH)
    palette = Pillow.fromarray(SMOOTH).convert("P", palette=Pillow.Palette.ADAPTIVE, colors=16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(("tag", "turns"), [(6, 3), (3, 2), (8, 1), (1, 0)])
def test_the_exif_orientation_is_applied(tag: int, turns: int, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = tag
    turned = images.read_image(saved(tmp_path, encode(SMOOTH, "JPEG", quality=98, exif=exif)))
    plain = images.read_image(saved(tmp_path, encode(SMOOTH, "JPEG", quality=98)))
    np.testing.assert_array_equal(turned, np.rot90(plain, turns))


def test_a_hundred_megapixel_jpeg_is_read_whole(tmp_path: Path) -> None:
    tile = np.full((10_000, 10_000), 90, np.uint8)
    tile[-1, -1] = 200
    path = saved(tmp_path, cv2.imencode(".jpg", tile)[1].tobytes(), "large.jpg")
    found = images.read_image(path)
    assert found.shape == (10_000, 10_000)
    assert found[0, 0] == 90


# ---------------------------------------------------------------- what is refused


def test_missing_empty_text_and_folder_are_refused_with_their_path(tmp_path: Path) -> None:
    cases = {
        tmp_path / "none.png": "no such file",
        tmp_path: "is a folder",
        saved(tmp_path, b"", "empty.png"): "the file is empty",
        saved(tmp_path, b"serial number 12\n", "text.png"): r"not a picture \(it begins with b'serial",
    }
    for path, said in cases.items():
        with pytest.raises(InputError, match=said) as caught:
            images.read_image(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(progressive: bool, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x010E] = "a thumbnail may hold an end marker: \xff\xd9"
    data = encode(SMOOTH, "JPEG", progressive=progressive, exif=exif)
    for length in range(3, len(data), 7):
        assert read_header(data[:length]).problem  # without the decoder: some of them fill the rest with gray
        with pytest.raises(InputError, match="cut"):
            images.read_image(saved(tmp_path, data[:length], "cut.jpg"))
    assert images.read_image(saved(tmp_path, data + b"trailing bytes", "whole.jpg")).shape == SMOOTH.shape


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_cut_anywhere_are_refused(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(SMOOTH, format)
    for length in [*range(1, 60, 3), *range(60, len(data) - 1, max(1, len(data) // 25)), len(data) - 1]:
        with pytest.raises(InputError):
            images.read_image(saved(tmp_path, data[:length], f"cut.{FORMATS[format]}"))
    assert capfd.readouterr().err == ""  # libpng and OpenCV have nothing to add


def test_one_flipped_bit_anywhere_in_a_png_is_refused(tmp_path: Path) -> None:
    data = encode(SMOOTH[:10, :10])
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(InputError):
            images.read_image(saved(tmp_path, bytes(damaged)))


def test_float_and_thirty_two_bit_images_are_refused_with_their_type(tmp_path: Path) -> None:
    for array, name in ((SMOOTH[..., 0].astype(np.float32), "float32"), (SMOOTH[..., 0].astype(np.int32), "int32")):
        with pytest.raises(InputError, match=f"pixels are {name}, expected 8 or 16 bit"):
            images.read_image(saved(tmp_path, encode(array, "TIFF"), "deep.tif"))


def png_of_size(height: int, width: int) -> bytes:
    """A PNG that promises many pixels and holds none: the size must be judged before anything is decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (1, 1, "1×1 .* the smallest side onceover inspects is 8"),
        (7, 500, "7×500"),
        (40_000, 10, "40000×10 .* the longest side may be 32768"),
        (30_000, 30_000, "900000000 pixels, at most 134217728"),
    ],
)
def test_sizes_outside_the_limits_are_refused_before_decoding(
    height: int, width: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=said):
        images.read_image(saved(tmp_path, png_of_size(height, width)))


@pytest.mark.parametrize("format", FORMATS)
def test_the_size_is_read_from_every_header(format: str) -> None:
    assert read_header(encode(SMOOTH[:7, :9], format)).size == (7, 9)
    assert read_header(encode(SMOOTH[:7, :9], "WEBP", lossless=True)).size == (7, 9)


def test_the_log_level_of_opencv_is_put_back_by_the_last_of_many_threads(tmp_path: Path) -> None:
    path = saved(tmp_path, encode(SMOOTH))
    before = cv2.utils.logging.getLogLevel()
    threads = [threading.Thread(target=lambda: [images.read_image(path) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cv2.utils.logging.getLogLevel() == before


# ---------------------------------------------------------------- folders


def test_a_folder_that_cannot_be_listed_is_not_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("late", "early"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encode(SMOOTH))
    assert len(images.list_images(tmp_path)) == 2
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("late"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"late: cannot be listed \(Permission denied\); check its permissions"):
        images.list_images(tmp_path)


def test_images_are_listed_by_their_bytes_and_without_hidden_or_foreign_files(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/10.png", "a.bmp", "Z.Png", "é/ü.tiff", "b.png", ".hidden.png", ".git/x.png", "readme.txt"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in images.list_images(tmp_path)]
    assert found == ["Z.Png", "a.bmp", "b.png", "b/10.png", "b/2.JPG", "é/ü.tiff"]


def test_a_link_back_up_does_not_repeat_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"x")
    os.symlink(tmp_path, tmp_path / "sub" / "up")
    assert images.list_images(tmp_path) == [tmp_path / "sub" / "a.png"]


def test_a_folder_without_images_says_what_it_holds_and_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        images.list_images(tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        images.list_images(saved(tmp_path, b"x", "notes.txt"))
    saved(tmp_path, b"x", "movie.avi")
    with pytest.raises(InputError, match=r"only 2 other files \(.avi, .txt\); onceover reads .bmp, .jpeg"):
        images.list_images(tmp_path)


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255, 0, 255], [0, 1, 0, 1]),
        ([0, 1, 0, 1], [0, 1, 0, 1]),
        ([0, 1, 2, 31], [0, 1, 1, 1]),  # defect ids
        ([0, 1, 2, 255], [0, 1, 1, 1]),
        ([0, 50, 100, 40], [0, 1, 1, 1]),  # ids beyond the usual: nothing is near white
        ([0, 100, 100, 0], [0, 1, 1, 0]),  # one grey level: two kinds of pixel, not a soft edge
        ([0, 100, 128, 255], [0, 0, 1, 1]),  # soft edge
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_a_mask_is_what_is_not_zero_unless_its_edges_are_soft(
    values: list[int], expected: list[int], tmp_path: Path
) -> None:
    mask = np.repeat(np.array(values, np.uint8), 4)[None].repeat(8, axis=0)  # (8, 16)
    for array in (mask, np.repeat(mask[..., None], 3, axis=2)):
        found = images.read_mask(saved(tmp_path, encode(array)), (8, 16))
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found[0, ::4], np.array(expected, bool))


def test_a_colored_mask_is_whatever_is_not_black_and_a_threshold_can_be_given(tmp_path: Path) -> None:
    mask = np.zeros((8, 16, 3), np.uint8)
    mask[:, 4:8, 0], mask[:, 8:, 2] = 64, 128
    assert images.read_mask(saved(tmp_path, encode(mask)), (8, 16))[0].sum() == 12
    ramp = np.arange(0, 256, 16, dtype=np.uint8)[None].repeat(8, axis=0)
    assert images.read_mask(saved(tmp_path, encode(ramp)), (8, 16), threshold=1)[0].sum() == 15
    assert images.read_mask(saved(tmp_path, encode(ramp)), (8, 16))[0].sum() == 8


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask is 40×48 .*, its image 48×40"):
        images.read_mask(saved(tmp_path, encode(SMOOTH[..., 0])), (48, 40))


# ---------------------------------------------------------------- writing


def test_a_written_picture_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    for array in (SMOOTH, SMOOTH[..., 0], SMOOTH.astype(np.uint16) * 99):
        images.write_image(tmp_path / "out.png", array)
        np.testing.assert_array_equal(images.read_image(tmp_path / "out.png"), array)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out\.png"):
        images.write_image(tmp_path / "no folder" / "out.png", SMOOTH)
    with pytest.raises(UsageError, match=r"unknown picture format '.xyz'; use one of .bmp"):
        images.write_image(tmp_path / "out.xyz", SMOOTH)
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OutputError, match=r"taken\.png"):
        images.write_image(tmp_path / "taken.png", SMOOTH)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


# ---------------------------------------------------------------- drawing

RAMP = np.linspace(0, 4, 48, dtype=np.float32)[None].repeat(40, axis=0)


def test_a_heat_map_brightens_with_the_score_and_saturates_at_both_ends() -> None:
    picture = images.heat_map(RAMP, 1.0, 3.0)
    assert (picture.shape, picture.dtype) == ((40, 48, 3), np.uint8)
    luminance = picture[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -1.5).all()  # inferno rises throughout, up to rounding of 8-bit colors
    assert luminance[-1] - luminance[0] > 200
    assert (picture[0, RAMP[0] <= 1] == picture[0, 0]).all()
    assert (picture[0, RAMP[0] >= 3] == picture[0, -1]).all()


def test_an_overlay_leaves_normal_parts_as_they_are() -> None:
    drawn = images.overlay(SMOOTH, RAMP, 2.0, 4.0)
    np.testing.assert_array_equal(drawn[:, RAMP[0] <= 2], SMOOTH[:, RAMP[0] <= 2])
    assert (drawn[:, -1] != SMOOTH[:, -1]).any()


def test_an_outline_marks_the_border_and_not_the_inside() -> None:
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    drawn = images.outline(SMOOTH, mask, color=(1, 2, 3), thickness=1)
    marked = (drawn == (1, 2, 3)).all(axis=2)
    assert marked[10, 10:30].all()
    assert not marked[12:18, 12:28].any()
    assert not np.shares_memory(drawn, SMOOTH)


def test_infinite_distances_are_drawn_and_nan_or_a_reversed_range_is_refused() -> None:
    spiked = RAMP.copy()
    spiked[0, 0], spiked[0, 1] = np.inf, -np.inf
    picture = images.heat_map(spiked, 0.0, 4.0)
    assert (picture[0, 0] == picture[0, -1]).all()
    assert (picture[0, 1] == picture[1, 0]).all()
    assert (images.heat_map(np.full((8, 8), 2, np.float32), 2.0, 2.0) == images.heat_map(RAMP, 1.0, 3.0)[0, 0]).all()
    spiked[0, 0] = np.nan
    with pytest.raises(InputError, match="1 NaN"):
        images.heat_map(spiked, 0.0, 4.0)
    with pytest.raises(UsageError, match="ascending"):
        images.heat_map(RAMP, 4.0, 0.0)
    with pytest.raises(InputError, match="anomaly map is 8×8"):
        images.overlay(SMOOTH, np.zeros((8, 8), np.float32), 0.0, 1.0)
    with pytest.raises(InputError, match="mask is 8×8"):
        images.outline(SMOOTH, np.zeros((8, 8), bool))


def test_every_image_becomes_eight_bit_rgb_for_drawing() -> None:
    gray = SMOOTH[..., 0]
    np.testing.assert_array_equal(images.to_rgb8(gray), np.dstack([gray] * 3))
    np.testing.assert_array_equal(images.to_rgb8(SMOOTH.astype(np.uint16) * 257), SMOOTH)
    np.testing.assert_array_equal(images.to_rgb8(np.dstack([SMOOTH, gray])), SMOOTH)
    with pytest.raises(InputError, match="float32"):
        images.to_rgb8(SMOOTH.astype(np.float32))
    with pytest.raises(InputError, match="2 channels"):
        images.to_rgb8(SMOOTH[..., :2])
