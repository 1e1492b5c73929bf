"""Image files: decode to arrays, list folders, read masks, write results, draw heat maps.

Nothing here resizes a picture for the model; the one resize lives in csrc/image.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import InputError, OutputError, UsageError
from onceover.image_header import ImageHeader, read_header
from onceover.types import Image

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# The limits of csrc/image/image_view.h, checked here too so that a bad file is refused before it is decoded.
MIN_SIDE = 8
MAX_SIDE = 32768
MAX_PIXELS = 1 << 27

_LARGEST_DEFECT_ID = 31  # grey values up to here are read as defect ids, not as a soft edge

_log_lock = threading.Lock()
_log_readers = 0
_log_level = 0


def read_image(path: str | os.PathLike[str]) -> Image:
    """Decode an image file: uint8 or uint16, (H, W) if gray, else (H, W, 3) RGB.

    The EXIF orientation is applied, alpha is dropped, a palette is expanded. Raises InputError when the file is
    missing, empty, no picture, cut, damaged, of another depth (float, 32-bit), or outside the size limits of the core.
    One damage passes: a JPEG whose inner data is corrupt but whose end marker is in place. libjpeg fills the gap
    with gray and OpenCV does not tell.
    """
    path = Path(path)
    data, header = _read_checked(path)
    try:
        with _quiet_opencv():
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        raise InputError(f"{path}: OpenCV cannot decode this file ({error.err or error}); export it as PNG") from error
    if decoded is None and not header.format:
        raise InputError(f"{path}: not a picture (it begins with {data[:16]!r}); remove it or export it as PNG or JPEG")
    if decoded is None:
        raise InputError(f"{path}: the {header.format} data is cut or damaged; copy or export the image again")
    _check_size(path, *decoded.shape[:2])
    if decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {decoded.dtype}, expected 8 or 16 bit unsigned; convert the image")
    image: Image = decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return image


def check_file(path: str | os.PathLike[str]) -> None:
    """InputError for what `read_image` refuses before it decodes: missing, empty, no picture, cut, or a wrong size."""
    path = Path(path)
    _, header = _read_checked(path)
    if not header.format:  # OpenCV may know it; that takes decoding
        read_image(path)


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """Every image below `directory`, sorted by relative POSIX path, byte by byte; hidden files and folders are skipped.

    Raises InputError when the folder is missing, is a file, or holds no image.
    """
    directory = Path(directory)
    if not directory.exists():
        raise InputError(f"{directory}: no such folder; check the path")
    if not directory.is_dir():
        raise InputError(f"{directory}: is a file, expected a folder of images; give its folder")
    files = visible_files(directory)
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not images:
        others = ", ".join(sorted({path.suffix.lower() or path.name for path in files})[:8])
        found = f"only {len(files)} other files ({others})" if files else "the folder is empty"
        raise InputError(f"{directory}: no images found, {found}; onceover reads {', '.join(EXTENSIONS)}")
    return images


def visible_files(directory: Path) -> list[Path]:
    """Every file below `directory` that is not hidden, in the order of `list_images`; links to folders are followed.

    Raises InputError for a folder that cannot be listed: what it holds must not be left out in silence.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error

    files: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(directory, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: os.fsencode(path.relative_to(directory).as_posix()))


def read_mask(path: str | os.PathLike[str], shape: tuple[int, int], threshold: int | None = None) -> NDArray[np.bool_]:
    """Ground truth as bool (H, W): True where defective. `shape` is (H, W) of the image it belongs to.

    threshold: a pixel is defective when its value is at least this. Without it any non-zero value is, which covers
    0/1, 0/255 and defect ids; except when grey levels beyond ids (≤ 31) lie below one in the upper half of the range:
    then the mask has soft edges, and that upper half is defective. A colored mask: any pixel not black.
    """
    values = read_image(path)
    if values.shape[:2] != tuple(shape):
        sizes = f"mask is {_size(values.shape[:2])}, its image {_size(shape)}"
        raise InputError(f"{path}: {sizes}; export both at one size")
    if values.ndim == 3:
        gray = values[..., 0]
        colored = bool((values != gray[..., None]).any())
        values = values.max(axis=2) if colored else gray
        threshold = 1 if colored and threshold is None else threshold
    if threshold is None:
        full = int(np.iinfo(values.dtype).max)
        levels = np.unique(values)
        levels = levels[levels > 0]
        half = (full + 1) // 2
        soft = len(levels) > 0 and levels[-1] >= half and bool((levels[:-1] > _LARGEST_DEFECT_ID).any())
        threshold = half if soft else 1
    return np.asarray(values >= threshold)


def write_image(path: str | os.PathLike[str], image: Image) -> None:
    """Encode by the extension of `path` (PNG, JPEG, …) and put the file in place whole; raises OutputError.

    image: uint8 or uint16, (H, W) or (H, W, 3) RGB. A failed write leaves the old file as it was.
    """
    path = Path(path)
    extension = picture_format(path)
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        with _quiet_opencv():
            encoded = cv2.imencode(extension, bgr)[1].tobytes()
    except cv2.error as error:
        raise OutputError(f"{path}: cannot encode a {image.dtype} picture of shape {image.shape}; use PNG") from error
    _core.save_atomically(path, encoded)


def picture_format(path: str | os.PathLike[str]) -> str:
    """The extension that says how write_image encodes `path`, in lower case; UsageError for an unknown one."""
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise UsageError(f"{path}: unknown picture format {extension!r}; use one of {', '.join(EXTENSIONS)}")
    return extension


def to_rgb8(image: Image) -> NDArray[np.uint8]:
    """Any image array as (H, W, 3) uint8 for drawing: gray replicated, alpha dropped, 16 bit scaled by 1/257."""
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
        raise InputError(f"image is {image.dtype} of shape {image.shape}, expected 8 or 16 bit (H, W) or (H, W, C)")
    values = image if image.ndim == 3 else image[..., None]
    if values.shape[2] not in (1, 3, 4):
        raise InputError(f"image has {values.shape[2]} channels, expected 1, 3 or 4")
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) + 128) // 257  # 0 → 0, 65535 → 255, rounded
    values = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]
    return np.ascontiguousarray(values, dtype=np.uint8)


def heat_map(anomaly_map: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Raw distances (H, W) as colors (H, W, 3) RGB: `low` and below dark, `high` and above bright (inferno)."""
    levels = np.round(_heat(anomaly_map, low, high) * 255).astype(np.uint8)
    return _colors(levels, cv2.COLORMAP_INFERNO)


def overlay(
    image: Image, anomaly_map: NDArray[np.float32], low: float, high: float, alpha: float = 0.6
) -> NDArray[np.uint8]:
    """The heat map over the image, (H, W, 3) RGB; opacity grows with heat up to `alpha`, so normal parts stay clear."""
    rgb = to_rgb8(image)
    if anomaly_map.shape != rgb.shape[:2]:
        raise InputError(f"anomaly map is {_size(anomaly_map.shape)}, its image {_size(rgb.shape[:2])}")
    heat = _heat(anomaly_map, low, high)
    colors = _colors(np.round(heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    opacity = (alpha * heat)[..., None]
    return np.asarray(np.round(rgb + (colors.astype(np.float32) - rgb) * opacity), dtype=np.uint8)


def outline(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int] = (255, 0, 0), thickness: int = 1
) -> NDArray[np.uint8]:
    """A copy of the picture with the border of every region of `mask` (H, W) drawn in `color`."""
    if mask.shape != rgb.shape[:2]:
        raise InputError(f"mask is {_size(mask.shape)}, its picture {_size(rgb.shape[:2])}")
    drawn: NDArray[np.uint8] = rgb.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, color, thickness)
    return drawn


def _heat(anomaly_map: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Position of every value between low and high, 0..1; with high == low only what lies above is hot."""
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise UsageError(f"heat map range is {low} to {high}; give two finite numbers in ascending order")
    if np.isnan(anomaly_map).any():
        raise InputError(f"anomaly map holds {int(np.isnan(anomaly_map).sum())} NaN values and cannot be drawn")
    if low == high:
        return (anomaly_map > high).astype(np.float32)
    clipped = np.clip(anomaly_map, low, high)
    return np.asarray((clipped.astype(np.float64) - low) / (high - low), dtype=np.float32)


def _colors(levels: NDArray[np.uint8], palette: int) -> NDArray[np.uint8]:
    """(H, W) levels → (H, W, 3) RGB."""
    return np.ascontiguousarray(cv2.applyColorMap(levels, palette)[..., ::-1], dtype=np.uint8)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) + (" (height×width)" if len(shape) == 2 else "")


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected an image file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise InputError(f"{path}: the file is empty; copy the image again")
    return data


def _read_checked(path: Path) -> tuple[bytes, ImageHeader]:
    """The bytes of an image file that its header does not refuse."""
    data = _read_bytes(path)
    header = read_header(data)
    if header.problem:
        raise InputError(f"{path}: {header.problem}; copy or export the image again")
    if header.size:
        _check_size(path, *header.size)
    return data, header


def _check_size(path: Path, height: int, width: int) -> None:
    size = f"{path}: the image is {height}×{width} (height×width)"
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{size}, the smallest side onceover inspects is {MIN_SIDE} pixels")
    if max(height, width) > MAX_SIDE:
        raise InputError(f"{size}, the longest side may be {MAX_SIDE} pixels; crop it or scale it down")
    if height * width > MAX_PIXELS:
        raise InputError(f"{size}, {height * width} pixels, at most {MAX_PIXELS} are read; crop it or scale it down")


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV's log is off while any thread decodes; the level found by the first is put back by the last."""
    global _log_readers, _log_level
    with _log_lock:
        if _log_readers == 0:
            _log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _log_readers += 1
    try:
        yield
    finally:
        with _log_lock:
            _log_readers -= 1
            if _log_readers == 0:
                cv2.utils.logging.setLogLevel(_log_level)
