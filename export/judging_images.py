"""Which images calibrate int8 and which judge: neither may be in the memory bank, none may do both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import InputError, UsageError
from onceover.file_hash import file_hash
from onceover.images import list_images, read_image, write_image
from onceover.runtime.package import PackageFile
from onceover.training.dataset import (
    Dataset,
    Sample,
    dataset_folders,
    fitting_layouts,
    read_dataset,
)
from onceover.training.refit import used_images
from onceover.types import Image

MAX_CALIBRATION = 300  # images; more change no minimum or maximum that matters
MIN_HALF = 5  # images on each side where one folder serves both


@dataclass(frozen=True)
class JudgingImages:
    """calibration: normal images for int8. test: what is judged. drawn: test holds drawn defects, no real ones."""

    calibration: tuple[Path, ...]
    test: Dataset
    drawn: bool

    def describe(self) -> str:
        """One line for reports."""
        good = sum(sample.label == 0 for sample in self.test.test)
        other = len(self.test.test) - good
        labelled = any(sample.label == 1 for sample in self.test.test)
        kind = "with a drawn defect" if self.drawn else "anomalous" if labelled else "without a label"
        judged = f"judged on {good} normal images and {other} {kind}"
        return f"{judged}; int8 calibrated on {len(self.calibration)} others" if self.calibration else judged


def choose_images(
    package: PackageFile, calibration: Path | None, test: Path | Dataset | None, folder: Path, seed: int = 0
) -> JudgingImages:
    """calibration: a folder of normal images, or a data set, whose normal train and validation images are taken.

    test: a data set or a folder. Without it, a data set's own test split judges; of a plain folder half of the images
    do, each also with a defect drawn into it, in files below `folder`. Without either, the package's reference images
    judge. Images of the memory bank are left out of calibration, and refused as test.

    Raises InputError for too few images, UsageError for a test image that is in the bank or calibrates.
    """
    bank, _ = used_images(package)
    if calibration is None and test is None:
        return JudgingImages((), _references(package, folder), drawn=False)
    normal, own_test = ([], None) if calibration is None else _normal_images(calibration)
    hashes = {path: file_hash(path) for path in normal}
    originals = {hashes[path]: path for path in reversed(normal)}  # the first of copies stands for all of them
    unused = [path for path in normal if hashes[path] not in bank and originals[hashes[path]] is path]
    if calibration is not None and not unused:
        raise InputError(f"{calibration}: all {len(normal)} images are in the memory bank; give other normal images")
    drawn = False
    if test is not None:
        judged = test if isinstance(test, Dataset) else _as_dataset(test)
    elif own_test is not None:
        judged = own_test
    else:
        calibrating, judging = _halves(unused, calibration)
        unused, judged, drawn = calibrating, with_drawn_defects(judging, folder, seed), True
    _check(judged, bank, {hashes[path] for path in unused}, package)
    step = max(1, -(-len(unused) // MAX_CALIBRATION))  # from all of the folder: light changes in the order of names
    return JudgingImages(tuple(unused[::step]), judged, drawn)


def _normal_images(directory: Path) -> tuple[list[Path], Dataset | None]:
    if not fitting_layouts(directory) and not dataset_folders(directory):
        return list_images(directory), None
    dataset = read_dataset(directory)
    normal = [sample.path for sample in (*dataset.train, *dataset.validation) if sample.label == 0]
    return normal, dataset if dataset.test else None


def _as_dataset(directory: Path) -> Dataset:
    if fitting_layouts(directory) or dataset_folders(directory):
        return read_dataset(directory)
    samples = [Sample(path, path.name, "test", -1, "") for path in list_images(directory)]
    return _dataset(directory.name, samples)


def _dataset(name: str, samples: Sequence[Sample]) -> Dataset:
    return Dataset(name=name, train=(), test=tuple(samples), layout="images")


def _halves(images: list[Path], directory: Path | None) -> tuple[list[Path], list[Path]]:
    if len(images) < 2 * MIN_HALF:
        raise InputError(
            f"{directory}: {len(images)} images outside the memory bank are too few to calibrate with one half and "
            f"judge with the other; give {2 * MIN_HALF} or more, or --test"
        )
    return images[::2], images[1::2]


def _check(judged: Dataset, bank: set[str], calibrating: set[str], package: PackageFile) -> None:
    for sample in judged.test:
        sha256 = file_hash(sample.path)
        if sha256 in bank:
            raise UsageError(f"{sample.path}: is in the memory bank of {package.path}; it cannot judge it, too")
        if sha256 in calibrating:
            raise UsageError(f"{sample.path}: is among the calibration images; judge with others")


def _references(package: PackageFile, folder: Path) -> Dataset:
    """The images of the parity record as files."""
    samples = []
    for i, reference in enumerate(_core.read_parity(package.core)["images"]):
        image, color = reference["image"], reference["color"]
        rgb = image if image.ndim == 2 else image[..., :3] if color == "rgb" else image[..., 2::-1]
        path = folder / f"reference_{i:02}.png"
        write_image(path, np.ascontiguousarray(rgb))
        samples.append(Sample(path, path.name, "test", -1, ""))
    return _dataset("reference images", samples)


def with_drawn_defects(images: Sequence[Path], folder: Path, seed: int) -> Dataset:
    """Each image as it is, and again with a crack, a stain or a misplaced patch drawn into it, and its mask.

    For want of real defects: they show whether a detector still reacts, not how well it will find yours.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    samples = []
    for i, path in enumerate(images):
        image = read_image(path)
        damaged, mask = draw_defect(rng, image)
        target, mask_path = folder / f"drawn_{i:04}.png", folder / f"drawn_{i:04}_mask.png"
        write_image(target, damaged)
        write_image(mask_path, mask.astype(np.uint8) * 255)
        samples.append(Sample(path, path.name, "test", 0, "good"))
        samples.append(Sample(target, target.name, "test", 1, "drawn", mask_path))
    return _dataset("drawn defects", samples)


def draw_defect(rng: np.random.Generator, image: Image) -> tuple[Image, NDArray[np.bool_]]:
    """(H, W) or (H, W, 3) uint8 or uint16 → the same with a defect, and where it is, bool (H, W)."""
    height, width = image.shape[:2]
    size = max(4, min(height, width) // 12)
    mask = np.zeros((height, width), np.uint8)
    x, y = (int(rng.integers(size, max(size + 1, side - size))) for side in (width, height))
    kind = int(rng.integers(3))
    if kind == 0:
        steps = rng.normal(0, size / 2, (6, 2)).cumsum(axis=0) + np.array([x, y])
        steps[0] = x, y  # at least this is inside
        cv2.polylines(mask, [np.round(steps).astype(np.int32)], False, 1, thickness=max(1, size // 5))
    else:
        axes = (int(rng.integers(size // 2, size + 1)), int(rng.integers(size // 2, size + 1)))
        cv2.ellipse(mask, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    inside = mask.astype(np.bool_)
    damaged, shade = image.copy(), float(rng.uniform(0.3, 0.6))
    if kind == 2:
        damaged[inside] = np.roll(image, (height // 3, width // 3), axis=(0, 1))[::-1][inside]
    if np.array_equal(damaged, image):  # also where a patch of one color has been moved within that color
        full = float(np.iinfo(image.dtype).max)
        dark = image[inside].mean() < full / 4  # what is black cannot be darkened
        pixels = image[inside].astype(np.float64)
        damaged[inside] = np.rint(full - (full - pixels) * shade if dark else pixels * shade).astype(image.dtype)
    changed = damaged != image
    return damaged, changed if changed.ndim == 2 else changed.any(axis=2)


__all__ = ["JudgingImages", "choose_images", "draw_defect", "with_drawn_defects"]
