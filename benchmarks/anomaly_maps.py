"""Anomaly maps with masks for the metric benchmarks: drawn sets shaped like a detector's, real images, and bad cases.

    python benchmarks/anomaly_maps.py            # builds every set below build/bench_maps and lists what is there

screw, bottle and s256 have the sizes and shares of defects of MVTec AD (`SETS`); their maps are smooth log-normal noise
with blobs, of which some are missed and some are false alarms. tile and pcb are the shared images at their own sizes
with a weak real detector: smoothed local contrast. noise60, levels256 and constant are hard for tables and histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from features import ROOT, SHARED
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from onceover.images import list_images, read_image

F32, U8, I64 = NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]
Image = tuple[F32, U8]  # anomaly map (H, W), mask (H, W) of 0 and 1

CACHE = ROOT / "build" / "bench_maps"
RECIPE = 1  # raise it when maps change; caches of another recipe are built again


@dataclass(frozen=True)
class MapSet:
    """Maps and masks of a test set, image after image in one array each; images may differ in size."""

    name: str
    maps: F32  # (sum of H · W,)
    masks: U8  # (sum of H · W,), 0 or 1
    shapes: I64  # (images, 2)

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def pixels(self) -> int:
        return int(self.shapes.prod(axis=1).sum())

    @property
    def one_shape(self) -> bool:
        return bool((self.shapes == self.shapes[0]).all())

    @property
    def ends(self) -> I64:
        return np.cumsum(self.shapes.prod(axis=1))

    def images(self) -> Iterator[Image]:
        """Views, without copies."""
        for end, (height, width) in zip(self.ends.tolist(), self.shapes.tolist(), strict=True):
            start = end - height * width
            yield self.maps[start:end].reshape(height, width), self.masks[start:end].reshape(height, width)

    def stacked(self) -> Image:
        """All images as (N, H, W), for peers that know no other form; without copies."""
        shape = (len(self), *self.shapes[0].tolist())
        return self.maps.reshape(shape), self.masks.reshape(shape)

    def sample(self, count: int) -> MapSet:
        """`count` images evenly spaced over the set, in memory; the head of the set would be good images alone."""
        if count == len(self):
            return MapSet(self.name, np.array(self.maps), np.array(self.masks), self.shapes)
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        starts = self.ends - self.shapes.prod(axis=1)
        parts = [slice(starts[index], self.ends[index]) for index in chosen]
        maps, masks = (np.concatenate([pool[part] for part in parts]) for pool in (self.maps, self.masks))
        return MapSet(self.name, maps, masks, self.shapes[chosen])


def mapped(name: str) -> MapSet:
    """The set of this name, memory-mapped from the cache, which is built where it is missing or of another recipe."""
    paths = files(name)
    if not all(path.exists() for path in paths):
        _build(name, paths)
    maps, masks = (np.load(path, mmap_mode="r") for path in paths[:2])
    return MapSet(name, maps, masks, np.load(paths[2]))


def files(name: str) -> tuple[Path, Path, Path]:
    """Where maps, masks and shapes of a set lie."""
    maps, masks, shapes = (CACHE / f"{name}-{RECIPE}-{part}.npy" for part in ("maps", "masks", "shapes"))
    return maps, masks, shapes


def missing(name: str) -> str | None:
    """Why a set cannot be had, if so."""
    if name in REAL and not (SHARED / "data" / REAL[name]).is_dir():
        return f"no shared images in {SHARED / 'data' / REAL[name]}"
    return None


def save_few(name: str, images: int, path: Path) -> None:
    """A drawn set of so many images, with the same shares of good and anomalous ones."""
    drawn = list(draw(replace(SETS[name], images=images)))
    maps, masks = (np.stack(each) for each in zip(*drawn, strict=True))
    with path.open("wb") as file:
        np.savez(file, maps=maps, masks=masks)


def load_few(name: str, path: Path) -> MapSet:
    with np.load(path) as file:
        maps, masks = file["maps"], file["masks"]
    return MapSet(name, maps.ravel(), masks.ravel(), np.array([mask.shape for mask in masks], np.int64))


@dataclass(frozen=True)
class Product:
    """A drawn set. good: share of images without defect; area: mean share of a defective image that is anomalous."""

    images: int
    height: int
    width: int
    good: float
    area: float
    seed: int


SETS = {
    "screw": Product(160, 1024, 1024, 41 / 160, 0.003, 2),
    "bottle": Product(83, 900, 900, 20 / 83, 0.07, 1),
    "s256": Product(1000, 256, 256, 0.5, 0.04, 3),
}
REAL = {"tile": "magnetic_tile", "pcb": "pcb"}
BAD = ("noise60", "levels256", "constant")
_BAD = Product(16, 1024, 1024, 0.25, 0.003, 4)


def draw(product: Product) -> Iterator[Image]:
    """Background exp(noise); defects add a blurred blob of random strength; 15 % of images hold a false alarm."""
    rng = np.random.default_rng(product.seed)
    shape = product.height, product.width
    unit = product.height / 256  # pixels per pixel of a map at 256
    for index in range(product.images):
        fine, coarse = _noise(rng, shape, 28, 4 * unit), _noise(rng, shape, 7, 0)
        scores, mask = np.exp(0.45 * fine + 0.25 * coarse), np.zeros(shape, np.uint8)
        if index >= int(product.images * product.good):
            share, count = product.area * rng.uniform(0.3, 2.0), int(rng.integers(1, 5))
            mask = _blobs(rng, shape, share, count)
            strength = rng.uniform(0.5, 6.0)
            scores += strength * _blur(mask, 7 * unit) * np.exp(0.4 * _noise(rng, shape, 28, 4 * unit))
        if rng.random() < 0.15:
            alarm = _blur(_blobs(rng, shape, 0.01, 1), 8 * unit)
            scores += rng.uniform(0.5, 3.0) * alarm
        yield scores, mask


def _noise(rng: np.random.Generator, shape: tuple[int, int], grid: int, sigma: float) -> F32:
    """A patch grid of normal values, upsampled and blurred as detectors do, (H, W)."""
    values = rng.standard_normal((grid, grid)).astype(np.float32)
    values = cv2.resize(values, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return _blur(values, sigma) if sigma else values


def _blur(values: F32 | U8, sigma: float) -> F32:
    return cv2.GaussianBlur(values.astype(np.float32, copy=False), (0, 0), sigma)


def _blobs(rng: np.random.Generator, shape: tuple[int, int], share: float, count: int) -> U8:
    """`count` rotated ellipses with a ragged edge that cover about `share` of the image, cut off at its border."""
    mask = np.zeros(shape, np.uint8)
    for _ in range(count):
        radius = max(2.0, float(np.sqrt(share * mask.size / count * rng.uniform(0.4, 1.8) / np.pi)))
        center = [rng.uniform(0.1 * side, 0.9 * side) for side in shape]
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 2.2)
        reach = int(3 * radius) + 4
        down, right = np.mgrid[-reach:reach, -reach:reach].astype(np.float32)
        along = (right * np.cos(angle) + down * np.sin(angle)) / stretch
        across = (down * np.cos(angle) - right * np.sin(angle)) * stretch
        edge = cv2.resize(
            rng.standard_normal((9, 9)).astype(np.float32), down.shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        blob = np.hypot(along, across) / radius + 0.25 * edge < 1
        top, left = (int(at - reach) for at in center)
        inside = mask[max(top, 0) : max(top + 2 * reach, 0), max(left, 0) : max(left + 2 * reach, 0)]
        above, before = max(-top, 0), max(-left, 0)
        inside |= blob[above : above + inside.shape[0], before : before + inside.shape[1]].astype(np.uint8)
    return mask


def local_contrast(path: Path) -> F32:
    """A weak but real detector: how far pixels are from the mean around them, smoothed, (H, W)."""
    gray = _gray(path).astype(np.float32)
    return _blur(np.abs(gray - _blur(gray, 12)), 4)


def _gray(path: Path) -> U8:
    image = read_image(path)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def photograph(folder: str) -> Iterator[Image]:
    """The test images of a shared set: good ones first, then kind by kind."""
    root = SHARED / "data" / folder
    kinds = sorted((path.name for path in (root / "test").iterdir()), key=lambda kind: (kind != "good", kind))
    for kind in kinds:
        for path in list_images(root / "test" / kind):
            scores = local_contrast(path)
            mask = np.zeros(scores.shape, np.uint8)
            if kind != "good":
                mask = (_gray(root / "ground_truth" / kind / f"{path.stem}_mask.png") >= 128).astype(np.uint8)
            yield scores, mask


def noise60() -> Iterator[Image]:
    """Log-uniform noise over 60 octaves: nearly every score is another float."""
    rng = np.random.default_rng(5)
    for scores, mask in draw(_BAD):
        yield np.exp2(rng.uniform(-30, 30, scores.shape).astype(np.float32)), mask


def levels256() -> Iterator[Image]:
    """Whole numbers 0 to 255, as from maps that were stored as images."""
    for scores, mask in draw(_BAD):
        yield np.clip(np.round(scores * 48), 0, 255), mask


def constant() -> Iterator[Image]:
    for scores, mask in draw(_BAD):
        yield np.full_like(scores, 0.5), mask


def channels(mask: U8, rng: np.random.Generator) -> list[U8]:
    """A mask as LOCO's channels: regions dealt at random to two defects, one of them grown so that they may overlap."""
    count, labels = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    second = rng.random(count) < 0.5
    first_mask, second_mask = ((mask & which[labels]).astype(np.uint8) for which in (~second, second))
    grown = cv2.dilate(first_mask, np.ones((5, 5), np.uint8))
    return [channel for channel in (grown, second_mask) if channel.any()]


_SOURCES: dict[str, Callable[[], Iterator[Image]]] = {
    **{name: partial(draw, product) for name, product in SETS.items()},
    **{name: partial(photograph, folder) for name, folder in REAL.items()},
    "noise60": noise60,
    "levels256": levels256,
    "constant": constant,
}
NAMES = tuple(_SOURCES)


def _build(name: str, paths: tuple[Path, Path, Path]) -> None:
    """Two passes over the images for sets of photographs, whose sizes are not known before."""
    CACHE.mkdir(parents=True, exist_ok=True)
    drawn = SETS.get(name, _BAD)
    if name in REAL:
        shapes = np.array([mask.shape for _, mask in _SOURCES[name]()])
    else:
        shapes = np.array([(drawn.height, drawn.width)] * drawn.images)
    unfinished = [path.with_suffix(".tmp") for path in paths]
    total = int(shapes.prod(axis=1).sum())
    maps = open_memmap(unfinished[0], "w+", np.float32, (total,))
    masks = open_memmap(unfinished[1], "w+", np.uint8, (total,))
    end = 0
    console = Console(stderr=True)
    for scores, mask in track(_SOURCES[name](), f"drawing {name}", len(shapes), console=console, transient=True):
        start, end = end, end + mask.size
        maps[start:end], masks[start:end] = scores.ravel(), mask.ravel()
    maps.flush(), masks.flush()
    with unfinished[2].open("wb") as file:
        np.save(file, shapes.astype(np.int64))
    for source, path in zip(unfinished, paths, strict=True):
        source.replace(path)


def main() -> None:
    for name in NAMES:
        if reason := missing(name):
            print(f"{name:10} skipped: {reason}")
            continue
        found = mapped(name)
        sizes = "x".join(map(str, found.shapes[0])) if found.one_shape else "own sizes"
        regions = sum(cv2.connectedComponents(mask, connectivity=8)[0] - 1 for _, mask in found.images())
        print(
            f"{name:10} {len(found):5} images, {sizes:9}  {found.pixels / 1e6:6.1f} Mpx, {found.masks.mean():7.3%} "
            f"anomalous, {regions} regions, scores {found.maps.min():.3g} to {found.maps.max():.3g}"
        )


if __name__ == "__main__":
    main()
