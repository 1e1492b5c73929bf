"""Views and drawn materials: nothing but the image and the seed decides their pixels."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onceover.errors import InputError, UnknownNameError
from onceover.training import procedural
from onceover.training.pretrain.augmentation import DEFAULT, draw_view, pipeline_fingerprint
from onceover.training.pretrain.sources import ImageFile, Sources

PICTURE = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)


def material(name: str, seed: int, size: int = 56) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return procedural.draw_material(np.random.Generator(np.random.PCG64(seed)), size, name)


@pytest.mark.parametrize("name", procedural.MATERIALS)
def test_a_material_is_drawn_again_by_its_seed_and_is_neither_flat_nor_always_the_same(name: str) -> None:
    drawn = [material(name, seed) for seed in range(6)]
    assert all(image.shape == (56, 56, 3) and image.dtype == np.uint8 for image in drawn)
    assert np.median([image.std() for image in drawn]) > 4
    np.testing.assert_array_equal(drawn[0], material(name, 0))
    assert all((drawn[0] != other).mean() > 0.2 for other in drawn[1:])


@pytest.mark.parametrize("size", [16, 33, 150])
def test_every_material_is_drawn_at_any_size(size: int) -> None:
    for name in procedural.MATERIALS:
        assert material(name, 3, size).shape == (size, size, 3)


def test_an_unknown_material_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'woven'"):
        material("wowen", 0)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    views = [draw_view(PICTURE, seed, 32) for seed in (5, 5, 6)]
    assert views[0].shape == (32, 32, 3)
    assert views[0].dtype == np.uint8
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).mean() > 0.5


def test_a_view_does_not_depend_on_random_state_outside() -> None:
    first = draw_view(PICTURE, 5, 32)
    np.random.seed(1)  # noqa: NPY002 - the global state that a careless transform would use
    np.testing.assert_array_equal(first, draw_view(PICTURE, 5, 32))


def test_a_fresh_process_draws_the_same_pixels() -> None:
    code = "from onceover.training.pretrain.augmentation import pipeline_fingerprint as f; print(sorted(f().items()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(sorted(pipeline_fingerprint().items()))


@pytest.mark.parametrize("shape", [(8, 8), (9, 300), (300, 12), (1000, 1300)])
def test_a_view_is_made_of_an_image_of_any_shape(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    for seed in range(20):
        assert draw_view(image, seed, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("name", [field.name for field in fields(DEFAULT)])
def test_changing_any_number_of_the_augmentation_changes_the_fingerprint_of_its_pixels(name: str) -> None:
    value = getattr(DEFAULT, name)
    other = tuple(0.8 * part for part in value) if isinstance(value, tuple) else 0.8 * value
    changed, before = pipeline_fingerprint(replace(DEFAULT, **{name: other})), pipeline_fingerprint()
    assert changed["settings"] != before["settings"]
    assert changed["views"] != before["views"]


def test_gray_is_gray_and_the_crop_covers_what_it_says() -> None:
    always_gray = replace(DEFAULT, gray=1.0, noise=0.0)
    view = draw_view(PICTURE, 2, 32, always_gray)
    assert (view[..., 0] == view[..., 1]).all()
    assert (view[..., 1] == view[..., 2]).all()
    whole = replace(DEFAULT, smallest_crop=1.0, stretch=1.0, noise=0.0, blur=0.0, contrast=(1, 1), brightness=0.0)
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (64, 64, 3)).copy()
    view = draw_view(ramp, 3, 64, replace(whole, gray=1.0))
    assert {int(view.min()), int(view.max())} == {0, 252}  # both ends of the ramp: nothing was cut off


def test_an_image_that_changed_or_vanished_is_named(tmp_path: Path) -> None:
    sources = Sources(tmp_path, (ImageFile("a.png", "0" * 64),), 0, 40, 0)
    with pytest.raises(InputError, match=r"a\.png: cannot read"):
        sources.read(0)
    (tmp_path / "a.png").write_bytes(b"other")
    with pytest.raises(InputError, match=r"a\.png: the image has changed"):
        sources.read(0)


def test_view_seeds_differ_by_image_view_and_recording_and_not_by_place() -> None:
    files = tuple(ImageFile(f"{name}.png", name * 64) for name in "ab")
    one, other = Sources(None or Path(), files, 2, 40, 0), Sources(Path(), files, 2, 40, 1)
    seeds = {source.view_seed(image, view) for source in (one, other) for image in range(4) for view in range(3)}
    assert len(seeds) == 24
    moved = Sources(Path(), files[::-1], 2, 40, 0)
    assert moved.view_seed(1, 2) == one.view_seed(0, 2)
