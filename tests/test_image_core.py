"""The one resize against Pillow, the anomaly map against scipy and torch, and what the image doors refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image
from tolerances import RESIZE_GRAY_LEVELS, anomaly_map_f32

from onceover import _core
from onceover.errors import InputError, UsageError

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL_IMAGES = ("photos/kodak_01.png", "photos/skimage_camera.png", "photos/skimage_chelsea.png", "photos/kodak_19.png")
REAL_FOLDERS = ("magnetic_tile/train/good", "pcb/train/good")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Pixels = NDArray[np.uint8]


def pillow_resize(image: Pixels, height: int, width: int) -> Pixels:
    """(H, W[, 3]) → (height, width, 3) by Pillow's bilinear, which is antialiased when it scales down."""
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return resized if resized.ndim == 3 else np.repeat(resized[:, :, None], 3, axis=2)


def gray_levels_off(image: Pixels, height: int, width: int) -> int:
    difference = _core.resize(image, height, width).astype(int) - pillow_resize(image, height, width)
    return int(np.abs(difference).max())


def noise(*shape: int, seed: int = 0) -> Pixels:
    """Black and white pixels mostly: the hardest input for a rounding error."""
    rng = np.random.default_rng(seed)
    extremes, levels = 255 * rng.integers(0, 2, shape), rng.integers(0, 256, shape)
    return np.where(rng.random(shape) < 0.8, extremes, levels).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "to_height", "to_width"),
    [
        (8, 8, 256, 256), (8, 8, 1, 1), (8, 8, 8, 8), (300, 350, 256, 256), (256, 256, 255, 257), (20, 400, 256, 256),
        (400, 20, 256, 256), (5000, 37, 256, 256), (37, 5000, 64, 96), (640, 640, 224, 320), (97, 101, 300, 31),
        (1200, 1600, 16, 16), (33, 8, 500, 3),
    ],
)  # fmt: skip
def test_resize_of_noise_is_within_one_gray_level_of_pillow(
    height: int, width: int, to_height: int, to_width: int
) -> None:
    assert gray_levels_off(noise(height, width), to_height, to_width) <= RESIZE_GRAY_LEVELS
    assert gray_levels_off(noise(height, width, 3), to_height, to_width) <= RESIZE_GRAY_LEVELS


@pytest.mark.parametrize("seed", range(20))
def test_resize_at_random_sizes_is_within_one_gray_level_of_pillow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, to_height, to_width = np.exp(rng.uniform(np.log(8), np.log(700), 4)).astype(int).tolist()
    image = noise(height, width, 3, seed=seed)
    assert gray_levels_off(image, to_height, to_width) <= RESIZE_GRAY_LEVELS


def real_images() -> list[Path]:
    data = SHARED / "data"
    listed = [data / name for name in REAL_IMAGES]
    return listed + [sorted((data / folder).glob("*"))[0] for folder in REAL_FOLDERS if (data / folder).is_dir()]


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"{SHARED / 'data'} is absent: no real images to resize")
def test_resize_of_real_images_is_within_one_gray_level_of_pillow() -> None:
    rng = np.random.default_rng(0)
    for path in real_images():
        image = np.asarray(Image.open(path))
        for height, width in [(256, 256), (512, 384), *rng.integers(1, 900, (4, 2)).tolist()]:
            assert gray_levels_off(image, height, width) <= RESIZE_GRAY_LEVELS, (path.name, height, width)


def test_the_pillow_check_notices_a_filter_without_antialiasing() -> None:
    image = noise(300, 350)
    bare = scipy.ndimage.zoom(image.astype(float), (64 / 300, 64 / 350), order=1, grid_mode=True, mode="nearest")
    assert np.abs(bare - pillow_resize(image, 64, 64)[..., 0]).max() > 20 * RESIZE_GRAY_LEVELS


def test_prepare_is_the_resize_and_then_the_normalization() -> None:
    image = noise(60, 70, 3)
    resized = _core.resize(image, 32, 48).astype(np.float32)
    expected = (resized / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)  # (32, 48, 3)
    got = _core.prepare(image, 32, 48, MEAN, STD)
    assert got.dtype == np.float32
    assert got.shape == (3, 32, 48)
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1))


def test_sixteen_bit_images_are_resized_without_rounding_to_levels() -> None:
    image = np.random.default_rng(1).integers(0, 65536, (90, 40, 3)).astype(np.uint16)
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    got = _core.prepare(image, 64, 64, zeros, ones)
    for channel in range(3):
        exact = Image.fromarray(image[..., channel].astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got[channel], np.asarray(exact) / 65535, rtol=1e-5)
    assert len(np.unique(got)) > 10 * 256


def test_channel_order_alpha_and_gray_mean_what_their_names_say() -> None:
    image = noise(30, 40, 4)
    rgb = _core.resize(np.ascontiguousarray(image[..., :3]), 20, 20)
    np.testing.assert_array_equal(_core.resize(image, 20, 20), rgb)
    np.testing.assert_array_equal(_core.resize(image, 20, 20, "bgr"), rgb[..., ::-1])
    gray = np.ascontiguousarray(image[..., 0])
    np.testing.assert_array_equal(_core.resize(gray, 20, 20), np.repeat(rgb[..., :1], 3, axis=2))
    wide = image.astype(np.uint16)
    one = _core.prepare(wide, 20, 20, MEAN, STD, color="bgr")
    np.testing.assert_array_equal(one, _core.prepare(np.ascontiguousarray(wide[..., 2::-1]), 20, 20, MEAN, STD))


def test_rows_may_be_strided() -> None:
    image = noise(64, 64, 3)
    for strided in (image[::2], image[::-1], image[5:50, 7:40]):
        np.testing.assert_array_equal(_core.resize(strided, 16, 16), _core.resize(strided.copy(), 16, 16))


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((16, 16), np.float32), "float32 (16, 16)"),
        (np.zeros((16, 16), ">u2"), "expected uint8 or uint16"),
        (np.zeros((16, 16, 2), np.uint8), "uint8 (16, 16, 2)"),
        (np.zeros((3, 16, 16), np.uint8), "channels last"),
        (np.zeros((16,), np.uint8), "uint8 (16,)"),
        (np.zeros((16, 32), np.uint8)[:, ::2], "np.ascontiguousarray"),
        (np.zeros((16, 16, 3), np.uint8)[..., ::-1], "not contiguous"),
        (np.zeros((7, 300, 3), np.uint8), "7 x 300"),
        (np.zeros((0, 0), np.uint8), "0 x 0"),
        (np.zeros((1, 1), np.uint8), "sides of 8 to 32768"),
        (np.zeros((40000, 8), np.uint8), "40000 x 8"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_with_what_was_given(image: NDArray[Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        _core.prepare(image, 32, 32, MEAN, STD)
    assert told in str(refused.value)


def test_arguments_that_make_no_sense_are_refused() -> None:
    image = noise(16, 16)
    with pytest.raises(UsageError, match="'rbg'"):
        _core.resize(image, 8, 8, "rbg")
    with pytest.raises(UsageError, match="height is -1"):
        _core.resize(image, -1, 8)
    with pytest.raises(UsageError, match=r"channel 1 is mean 0\.456, std 0"):
        _core.prepare(image, 8, 8, MEAN, (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="16 bits"):
        _core.resize(image.astype(np.uint16), 8, 8)
    scores = np.ones((4, 4), np.float32)
    with pytest.raises(UsageError, match="sigma is -2"):
        _core.draw_anomaly_map(scores, 8, 8, -2.0)
    with pytest.raises(InputError, match="float64"):
        _core.draw_anomaly_map(scores.astype(np.float64), 8, 8, 1.0)
    scores[2, 1] = np.nan
    with pytest.raises(InputError, match="row 2 of 4"):
        _core.draw_anomaly_map(scores, 8, 8, 1.0)


def bilinear(scores: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """Half-pixel bilinear in float64, by scipy's linear spline with repeated edges."""
    rows = (np.arange(height) + 0.5) * scores.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * scores.shape[1] / width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    drawn: NDArray[np.float64] = scipy.ndimage.map_coordinates(scores.astype(np.float64), grid, order=1, mode="nearest")
    return drawn


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 1.0, 4.0, 7.3])
@pytest.mark.parametrize("shapes", [(32, 32, 256, 256), (5, 9, 40, 13), (1, 1, 3, 200), (8, 6, 2, 3)])
def test_a_drawn_map_is_scipys_bilinear_and_gaussian(shapes: tuple[int, int, int, int], sigma: float) -> None:
    scores = np.random.default_rng(3).random(shapes[:2]).astype(np.float32)
    got = _core.draw_anomaly_map(scores, *shapes[2:], sigma)
    exact = bilinear(scores, *shapes[2:])
    if int(4 * sigma + 0.5) > 0:
        exact = scipy.ndimage.gaussian_filter(exact, float(np.float32(sigma)), mode="reflect")
    assert np.abs(got - exact).max() <= anomaly_map_f32(sigma) * scores.max()


def test_the_map_check_notices_another_border_rule() -> None:
    scores = np.random.default_rng(3).random((32, 32)).astype(np.float32)
    got = _core.draw_anomaly_map(scores, 256, 256, 4.0)
    other = scipy.ndimage.gaussian_filter(bilinear(scores, 256, 256), 4.0, mode="mirror")
    assert np.abs(got - other).max() > 100 * anomaly_map_f32(4.0)


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (5, 4), (1, 1)])
def test_resize_map_is_torchs_bilinear(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="could not import torch: the map is compared with scipy only")
    scores = np.random.default_rng(4).random((11, 7)).astype(np.float32)
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(scores).double()[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    assert np.abs(_core.resize_map(scores, *size) - exact).max() <= anomaly_map_f32(0.0)


def test_a_map_is_resized_into_an_array_that_fits() -> None:
    scores = np.random.default_rng(5).random((11, 7)).astype(np.float32)
    out = np.zeros((40, 30), np.float32)
    assert _core.resize_map(scores, 40, 30, out) is out
    np.testing.assert_array_equal(out, _core.resize_map(scores, 40, 30))
    frozen = np.zeros((40, 30), np.float32)
    frozen.flags.writeable = False
    gaps, double = np.zeros((40, 60), np.float32)[:, ::2], np.zeros((40, 30))
    wrong: Any
    for wrong in (np.zeros((30, 40), np.float32), np.zeros(1200, np.float32), frozen, gaps, gaps.T.copy().T, double):
        with pytest.raises(InputError, match=r"expected a writable float32 \(40, 30\), C-contiguous"):
            _core.resize_map(scores, 40, 30, wrong)
    with pytest.raises(TypeError):
        _core.resize_map(scores, 2, 2, [[0.0, 0.0], [0.0, 0.0]])  # type: ignore[arg-type]


def test_a_map_is_not_resized_into_memory_that_is_read() -> None:
    memory = np.random.default_rng(6).random((16, 16)).astype(np.float32)
    before = memory.copy()
    for read, out in ((memory[:8], memory), (memory[15:], memory), (memory[:9], memory[8:])):
        with pytest.raises(InputError, match="out shares memory with the array that is read"):
            _core.resize_map(read, *out.shape, out)
    np.testing.assert_array_equal(memory, before)
    beside = memory[8:]
    np.testing.assert_array_equal(_core.resize_map(memory[:8], 8, 16, beside), before[:8])
