"""The input size by itself: what images show decides, their noise does not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import onceover.training.input_size as input_size
from onceover.images import write_image
from onceover.training.input_size import (
    LOCAL,
    MAX_LOST,
    SIZES,
    choose_size,
    lost_contrast,
    lost_contrasts,
    noise_variance,
)

Image = NDArray[np.uint8]


def silent(stage: str, done: int, total: int) -> None:
    """No progress bar."""


def stripes(side: int, period: int, noise: float = 0.0) -> Image:
    """Vertical stripes of `period` pixels, softened by one pixel, with white noise."""
    rng = np.random.default_rng(0)
    line = np.where(np.arange(side) % period < period / 2, 60.0, 180.0)
    plane = cv2.GaussianBlur(np.tile(line, (side, 1)), (0, 0), 1.0) + rng.normal(0, noise, (side, side))
    return np.repeat(np.clip(np.rint(plane), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def chosen(folder: Path, image: Image, sizes: tuple[int, ...] = SIZES) -> tuple[int, str]:
    write_image(folder / "a.png", image)
    answer = choose_size([folder / "a.png"], sizes, silent)
    return answer.side, answer.reason


@pytest.mark.parametrize(("period", "side"), [(8, 512), (16, 384), (64, 256)])
def test_the_finer_the_texture_the_larger_the_input(period: int, side: int, tmp_path: Path) -> None:
    found, reason = chosen(tmp_path, stripes(1024, period))
    assert found == side
    assert "images of 1024 × 1024 pixels" in reason


@pytest.mark.parametrize(("own", "side"), [(64, 256), (256, 256), (266, 256), (300, 320), (336, 320), (400, 384)])
def test_a_small_image_gets_its_own_size(own: int, side: int, tmp_path: Path) -> None:
    found, reason = chosen(tmp_path, stripes(own, 5))
    assert found == side
    assert "a larger input would show no more" in reason


def test_the_largest_is_said_to_be_too_small_for_what_is_finer_still(tmp_path: Path) -> None:
    assert "chosen unasked (it loses" in chosen(tmp_path, stripes(1024, 4))[1]


def test_noise_is_no_detail(tmp_path: Path) -> None:
    for noise in (0.0, 12.0):
        assert chosen(tmp_path, stripes(1024, 96, noise))[0] == 256
    flat = stripes(512, 10_000, 8.0)
    assert lost_contrast(flat, 256) < MAX_LOST


def test_the_noise_of_stripes_is_found() -> None:
    gray = stripes(512, 32, 10.0)[..., 0].astype(np.float32)
    assert noise_variance(gray) == pytest.approx(100, rel=0.15)


def test_only_sizes_that_the_graph_takes_are_chosen(tmp_path: Path) -> None:
    assert chosen(tmp_path, stripes(300, 5), (256, 384, 512))[0] == 384


def test_the_median_image_decides(tmp_path: Path) -> None:
    paths = []
    for index, side in enumerate((100, 310, 310, 2000)):
        paths.append(tmp_path / f"{index}.png")
        write_image(paths[-1], stripes(side, 4))
    assert choose_size(paths[:3], SIZES, silent).side == choose_size(paths, SIZES, silent).side == 320


def test_the_reason_tells_the_size_of_the_images(tmp_path: Path) -> None:
    whole = stripes(320, 5)[:240]
    assert chosen(tmp_path, whole)[1] == "it takes images of 240 × 320 pixels whole; a larger input would show no more"
    assert "320 × 320 pixels nearly whole" in chosen(tmp_path, stripes(320, 5), (310,))[1]
    write_image(tmp_path / "b.png", stripes(100, 5))
    assert "images as large as" in choose_size(sorted(tmp_path.iterdir()), SIZES, silent).reason


def test_of_an_image_what_no_size_changes_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide blur of 5 megapixels takes nearly a second; five sizes took five."""
    seen: list[tuple[int, ...]] = []
    blur = cv2.GaussianBlur

    def counting(plane: Image, *arguments: object) -> Image:
        seen.append(plane.shape)
        return blur(plane, *arguments)  # type: ignore[call-overload,no-any-return]

    image = stripes(1024, 24)
    monkeypatch.setattr(input_size.cv2, "GaussianBlur", counting)
    assert lost_contrasts(image, SIZES) == [lost_contrast(image, size) for size in SIZES]
    assert len(seen) == 1 + len(SIZES)
    assert max(seen) == (256, 256)  # reduced by four


def test_a_reduced_blur_changes_the_contrast_by_less_than_a_hundredth() -> None:
    image = stripes(1024, 48, 5.0)
    gray = image.astype(np.float32) @ input_size.GRAY
    plain = gray - cv2.GaussianBlur(gray, (0, 0), 1024 * LOCAL)
    reduced = gray - input_size._smooth(gray, 1024 * LOCAL)
    assert float(np.var(reduced)) == pytest.approx(float(np.var(plain)), rel=0.01)
