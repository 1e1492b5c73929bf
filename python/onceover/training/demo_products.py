"""The inspection data set that the program draws itself, in the MVTec layout, with exact defect masks.

Every defective picture is drawn twice from the same seed, with the defect and without: where the two differ is the
mask, and everywhere else the defective picture *is* the flawless one, noise included.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.errors import InternalError, OutputError, UsageError
from onceover.images import write_image
from onceover.training.demo_parts import PRODUCTS, Defect, Product
from onceover.training.demo_parts.surface import SIZE, Float

VERSION = 1  # of the generator: the same seed and version give the same bytes (with the same numpy, OpenCV and CPU)
MARKER = "dataset.json"
CHANGED = 6 / 255  # a pixel belongs to the defect when any channel changed by more; sensor noise is about 2/255
SMALLEST_SPOT = 12  # pixels; smaller islands of change are dust, and drawn as if nothing had happened there
LEAST_CHANGE = 12 / 255  # mean change within the mask: below it, a defect could not be seen
AREA = (0.002, 0.06)  # share of the image that a defect may cover
ATTEMPTS = 40

Progress = Callable[[str, int, int], None]  # (stage, done, total)


@dataclass(frozen=True)
class Counts:
    """How many images of each kind, per product; `per_defect` for every kind of defect."""

    train: int = 120
    test_good: int = 20
    per_defect: int = 8


@dataclass(frozen=True)
class DrawnPart:
    """image: uint8 (SIZE, SIZE) or (SIZE, SIZE, 3) RGB. flawless: the same part and noise without its defect.

    mask: bool (SIZE, SIZE), True where the defect changed the picture; nowhere for a good part.
    """

    image: NDArray[np.uint8]
    flawless: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def draw_products(
    root: Path, seed: int = 0, counts: Counts | None = None, progress: Progress | None = None
) -> list[Path]:
    """Draw every product below `root` and return their folders; nothing is drawn when that was done before.

    <product>/train/good, test/good, test/<defect>: 000.png …; ground_truth/<defect>/000_mask.png: 0 or 255.
    progress("drawing", done, total) is called after every image. `root`/dataset.json says what was drawn, and
    "complete" only at the end: an interrupted or different data set is drawn anew. Raises UsageError for impossible
    counts or when a product folder exists that was not drawn here, OutputError when `root` cannot be written.
    """
    counts = counts or Counts()
    if seed < 0 or min(asdict(counts).values()) < 0:
        raise UsageError(f"seed {seed} and {counts}: numbers below zero; give zero or more")
    root = Path(root)
    folders = [root / product.name for product in PRODUCTS]
    marker = {
        "generator": "onceover demo products", "version": VERSION, "seed": seed, **asdict(counts),
        "products": {product.name: list(product.defects) for product in PRODUCTS}, "complete": True,
    }  # fmt: skip
    found = _read_marker(root)
    if found == marker and all(folder.is_dir() for folder in folders):
        return folders
    try:
        _clear(root, found)
        _write_marker(root, {**marker, "complete": False})
        _draw_all(root, seed, counts, progress)
        _write_marker(root, marker)
    except OSError as error:
        raise OutputError(f"{root}: the demo data set cannot be written ({error}); check folder and space") from error
    return folders


def draw_part(product: Product, kind: str | None, folder: str, index: int, seed: int = 0) -> DrawnPart:
    """The image `index` of `folder` (such as "test/chip"); kind: the defect, None for a good part."""
    entropy = (seed, VERSION, zlib.crc32(f"{product.name}/{folder}".encode()), index)
    flawless = _encode(product.render(_generator(entropy, 0), None))
    mask = np.zeros((SIZE, SIZE), np.bool_)
    picture = flawless
    for attempt in range(ATTEMPTS if kind else 0):
        defect = Defect(str(kind), _generator(entropy, 2, attempt))
        defective = _encode(product.render(_generator(entropy, 0), defect))
        change = np.abs(defective - flawless).max(axis=2)
        mask = _clean(change > CHANGED)
        if mask.any() and AREA[0] <= mask.mean() <= AREA[1] and change[mask].mean() >= LEAST_CHANGE:
            picture = np.where(mask[..., None], defective, flawless)
            break
    else:
        if kind:
            where = f"{product.name}/{folder}/{index}, seed {seed}"
            raise InternalError(f"{where}: no visible {kind} in {ATTEMPTS} attempts; try another seed")
    return DrawnPart(
        _expose(picture, _generator(entropy, 1), product.monochrome),
        _expose(flawless, _generator(entropy, 1), product.monochrome), mask,
    )  # fmt: skip


def _draw_all(root: Path, seed: int, counts: Counts, progress: Progress | None) -> None:
    jobs = [
        (product, folder, kind, index)
        for product in PRODUCTS
        for folder, kind, count in (
            ("train/good", None, counts.train), ("test/good", None, counts.test_good),
            *((f"test/{kind}", kind, counts.per_defect) for kind in product.defects),
        )
        for index in range(count)
    ]  # fmt: skip
    for product in PRODUCTS:
        (root / product.name).mkdir(parents=True, exist_ok=True)
    for done, (product, folder, kind, index) in enumerate(jobs, start=1):
        part = draw_part(product, kind, folder, index, seed)
        path = root / product.name / folder / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, part.image)
        if kind:
            truth = root / product.name / "ground_truth" / kind / f"{index:03d}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            write_image(truth, part.mask.astype(np.uint8) * 255)
        if progress is not None:
            progress("drawing", done, len(jobs))


def _generator(entropy: tuple[int, ...], *stream: int) -> np.random.Generator:
    """stream: 0 the part, 1 the sensor, (2, attempt) the defect; independent of each other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=stream)))


def _encode(linear: Float) -> Float:
    """Linear light → the display curve of a camera, 0 … 1."""
    return np.asarray(np.clip(linear, 0, 1) ** np.float32(1 / 2.2), np.float32)


def _expose(picture: Float, rng: np.random.Generator, monochrome: bool) -> NDArray[np.uint8]:
    """Sensor noise and 8 bits: a little read noise everywhere, shot noise that fades on the display curve."""
    planes = picture[..., :1] if monochrome else picture
    noise = rng.standard_normal(planes.shape, dtype=np.float32)
    if not monochrome:  # a color sensor interpolates between its pixels, so its noise is coarser
        noise = 1.6 * np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.6), np.float32)
    noisy = planes + noise * (0.006 + 0.005 * np.sqrt(planes))
    return np.asarray(np.round(np.clip(noisy, 0, 1) * 255), np.uint8).squeeze()


def _clean(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close the gaps within a defect (≤ 6 pixels) and drop isolated dust."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    dense = _without_dust(changed)
    closed = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return _without_dust(closed > 0)


def _without_dust(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= SMALLEST_SPOT
    large[0] = False  # the background
    return np.asarray(large[labels], np.bool_)


def _read_marker(root: Path) -> dict[str, object] | None:
    try:
        found = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "onceover demo products" else None


def _write_marker(root: Path, marker: dict[str, object]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f".{MARKER}.part"
    partial.write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    partial.replace(root / MARKER)


def _clear(root: Path, found: dict[str, object] | None) -> None:
    """Remove the product folders of an earlier run; refuse to touch folders that are not known to be ours."""
    for product in PRODUCTS:
        folder = root / product.name
        if not folder.exists():
            continue
        if found is None:
            raise UsageError(f"{folder} exists, but {root / MARKER} does not say it is ours; choose another folder")
        shutil.rmtree(folder)
