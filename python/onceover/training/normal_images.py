"""The normal images behind a memory bank, found again by their SHA-256 where somebody still has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError
from onceover.file_hash import file_hash
from onceover.images import list_images
from onceover.runtime.package import PackageFile
from onceover.runtime.reasons import BankImages


def find_normal_images(
    package: PackageFile, directory: Path, wanted: Iterable[int] | None = None, progress: Progress = no_progress
) -> dict[int, Path]:
    """Bank image number → its file below `directory`, for those that are there; their names do not matter.

    wanted: numbers of the images to look for; None: all that own a memory bank row. The search ends when all are found.
    Raises InputError when the folder has no images, or the package does not say what it was fitted on.
    """
    bank = BankImages(package)
    numbers = [image for image in sorted(set(bank.used if wanted is None else wanted)) if image < len(bank.sha256)]
    if not bank.sha256:
        raise InputError(f"{package.path}: its manifest does not say which images it was fitted on; fit it again")
    by_hash: dict[str, list[int]] = {}
    for image in numbers:
        by_hash.setdefault(bank.sha256[image], []).append(image)
    found: dict[int, Path] = {}
    names = {Path(bank.names[image]).name for image in numbers if image < len(bank.names)}
    paths = sorted(list_images(directory), key=lambda path: path.name not in names)  # the likely ones first
    for i, path in enumerate(paths):
        if not by_hash:
            break
        found.update(dict.fromkeys(by_hash.pop(file_hash(path), ()), path))
        progress("looking for the normal images", i + 1, len(paths))
    return found


__all__ = ["find_normal_images"]
