"""Why a patch has its score: memory bank row → the normal image it was cut from, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import PackageError
from onceover.runtime.package import PackageFile, member_name
from onceover.types import NearestPatch

NO_IMAGE = 2**32 - 1  # in bank_source: a row that was not cut from a bank image
Box = tuple[float, float, float, float]


class BankImages:
    """The normal images that a package's memory bank rows were cut from, as far as the package says.

    names: of the images, as fit called them; empty when there is no manifest that tells. product: its number. joined:
    rows of corrections, with the name of their image and their patch in it, tile after tile. Raises PackageError for a
    member bank_source that does not fit the package.
    """

    def __init__(self, package: PackageFile, product: int = 0) -> None:
        self._config = _core.read_config(package.core)
        self.grid = self._config.cells
        manifest = package.product_manifest(product)
        self.names = _texts(manifest, "bank_images")
        self.sha256 = _texts(manifest, "bank_sha256")
        self._source = read_bank_source(package, self._config.feature_count, product)
        self.joined: dict[int, tuple[str, int]] = {}

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the images that own a bank row, ascending; none where the package does not say."""
        return () if self._source is None else owners(self._source)

    def nearest(self, patch: tuple[int, int], distance: float, bank_row: int, threshold: float | None) -> NearestPatch:
        """The reason for a patch of this score, whose nearest memory bank row is known."""
        known: dict[str, Any] = {}
        if bank_row in self.joined:
            name, place = self.joined[bank_row]
            where = self._cell(place)
            known = {"image": name or None, "image_patch": where, "image_box": patch_box(where, self.grid)}
        elif self._source is not None and self._source[bank_row, 0] != NO_IMAGE:
            image = int(self._source[bank_row, 0])
            where = self._cell(int(self._source[bank_row, 1]))
            known = {
                "image": self.names[image] if image < len(self.names) else None,
                "image_index": image,
                "image_patch": where,
                "image_box": patch_box(where, self.grid),
            }
        return NearestPatch(
            patch=patch,
            box=patch_box(patch, self.grid),
            distance=distance,
            times_threshold=None if not threshold else distance / threshold,  # also where no score is above 0
            bank_row=bank_row,
            **known,
        )

    def _cell(self, patch: int) -> tuple[int, int]:
        """(row, column) in the patch grid of a patch that is counted tile after tile."""
        cell = self._config.cells_of(np.array([patch], np.int64))
        return divmod(int(cell[0]), self.grid[1])


def owners(source: NDArray[np.uint32]) -> tuple[int, ...]:
    """Numbers of the images that own a row of a bank_source (M, 2), ascending."""
    return tuple(int(image) for image in np.unique(source[:, 0]) if image != NO_IMAGE)


def patch_box(patch: tuple[int, int], grid: tuple[int, int]) -> Box:
    """(row, column) in a patch grid (h, w) → (top, left, bottom, right) as parts 0 … 1 of the image's sides."""
    (row, column), (height, width) = patch, grid
    return row / height, column / width, (row + 1) / height, (column + 1) / width


def patch_at(pixel: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the patch under a pixel (row, column) of a map of this size (H, W)."""
    return pixel[0] * grid[0] // size[0], pixel[1] * grid[1] // size[1]


def read_bank_source(package: PackageFile, patch_count: int, product: int = 0) -> NDArray[np.uint32] | None:
    """uint32 (M, 2), image and patch of each memory bank row; None where the package has none. Raises PackageError."""
    members = {member.name: member for member in package.members}
    name, bank = member_name("bank_source", product), member_name("memory_bank", product)
    if name not in members or bank not in members:
        return None
    found, rows = members[name], members[bank].dimensions[0]
    if (found.type, found.dimensions) != ("uint32", (rows, 2)):
        shape = " × ".join(map(str, found.dimensions))
        raise PackageError(
            f"{package.path}: member '{name}' is {found.type} {shape}, expected uint32 {rows} × 2, a row for each "
            "of the memory bank; its writer is at fault, fit again"
        )
    source: NDArray[np.uint32] = package.core.array(name)
    images = len(_texts(package.product_manifest(product), "bank_images")) or NO_IMAGE
    told = source[source[:, 0] != NO_IMAGE]
    if len(told) and (told[:, 0].max() >= images or told[:, 1].max() >= patch_count):
        worst = (int(told[:, 0].max()), int(told[:, 1].max()))
        raise PackageError(
            f"{package.path}: member '{name}' names image {worst[0]} and patch {worst[1]}, expected below "
            f"{images} and {patch_count}; its writer is at fault, fit again"
        )
    return source


def _texts(manifest: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts in the manifest's data; empty where it is none."""
    data = manifest.get("data")
    values = data.get(key) if isinstance(data, dict) else None
    listed = values if isinstance(values, list) else []
    return tuple(listed) if all(isinstance(value, str) for value in listed) else ()


__all__ = ["NO_IMAGE", "BankImages", "Box", "owners", "patch_at", "patch_box", "read_bank_source"]
