"""The images that views are made of: files of a folder, known by their SHA-256, and drawn ones, known by number."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onceover.errors import InputError, UsageError
from onceover.file_hash import file_hash
from onceover.images import list_images, read_image, to_rgb8
from onceover.training.pretrain.augmentation import Pixels
from onceover.training.procedural import draw_material

CACHE_BYTES = 1 << 30  # of decoded and drawn images, per process
Progress = Callable[[str, int, int], None]

_LOST = "put it back, or record again"


@dataclass(frozen=True)
class ImageFile:
    """One image of the folder: its path below it, with /, and the hash of its bytes."""

    name: str
    sha256: str


def find_images(folder: Path, progress: Progress) -> tuple[ImageFile, ...]:
    """Every image below the folder, hashed."""
    paths = list_images(folder)
    files = []
    for done, path in enumerate(paths):
        files.append(ImageFile(path.relative_to(folder).as_posix(), file_hash(path, advice=_LOST)))
        progress("hashing", done + 1, len(paths))
    return tuple(files)


class Sources:
    """Image `index`: first the files, then `procedural` drawn ones of `drawn_size` pixels a side."""

    def __init__(
        self, folder: Path | None, files: tuple[ImageFile, ...], procedural: int, drawn_size: int, seed: int
    ) -> None:
        if files and folder is None:
            raise UsageError("these records were made from image files; say with --images where they are")
        self.folder, self.files = folder, files
        self.procedural, self.drawn_size, self.seed = procedural, drawn_size, seed
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.files) + self.procedural

    def name(self, index: int) -> str:
        drawn = index - len(self.files)
        return f"procedural image {drawn}" if drawn >= 0 else str(self._path(index))

    def view_seed(self, index: int, view: int) -> int:
        """Of a view, from what the image is and not from where it stands in the list: 63 bits."""
        drawn = index - len(self.files)
        identity = f"drawn {drawn}" if drawn >= 0 else f"{self.files[index].sha256} {self.files[index].name}"
        return _seed_from(f"{self.seed} {identity} view {view}")

    def read(self, index: int) -> Pixels:
        """(H, W, 3) uint8 RGB; InputError for a file that is missing, damaged, or not the one that was recorded."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        drawn = index - len(self.files)
        image = self._draw(drawn) if drawn >= 0 else self._decode(index)
        self._cache[index] = image
        self._cached_bytes += image.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return image

    def verify(self, index: int) -> None:
        """InputError unless the file still has the bytes that were recorded; a drawn image has none."""
        if index >= len(self.files):
            return
        recorded, found = self.files[index].sha256, file_hash(self._path(index), advice=_LOST)
        if found != recorded:
            raise InputError(
                f"{self._path(index)}: the image has changed since it was recorded (SHA-256 {found[:16]}, expected "
                f"{recorded[:16]}); put the old file back, or record again into another folder"
            )

    def _path(self, index: int) -> Path:
        assert self.folder is not None  # by __init__
        return self.folder / self.files[index].name

    def _decode(self, index: int) -> Pixels:
        self.verify(index)
        return to_rgb8(read_image(self._path(index)))

    def _draw(self, drawn: int) -> Pixels:
        seed = _seed_from(f"{self.seed} drawn {drawn}")
        return draw_material(np.random.Generator(np.random.PCG64(seed)), self.drawn_size)


def _seed_from(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


__all__ = ["ImageFile", "Progress", "Sources", "find_images"]
