"""Folder of normal images → the parts they show, each of which counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onceover.errors import InputError
from onceover.images import list_images
from onceover.training.dataset import (
    copies_below,
    dataset_folders,
    fitting_layouts,
    join_copies,
    read_dataset,
    read_groups,
    relative_path,
)
from onceover.training.layouts.folders import check_good_only


@dataclass(frozen=True)
class NormalParts:
    """The images that calibrate, below root. groups: the part that each shows; grouping: how that is known.

    copies: images that are byte for byte like an earlier one → that one, by their names.
    """

    images: tuple[Path, ...]
    groups: tuple[str, ...]
    copies: Mapping[str, str]
    grouping: str
    root: Path

    @property
    def parts(self) -> int:
        return len(set(self.groups))

    def names(self) -> list[str]:
        return [relative_path(path, self.root) for path in self.images]


def find_normal_parts(
    directory: Path, table: Path | None = None, layout: str = "auto", category: str | None = None
) -> NormalParts:
    """The images in a folder, or those of the validation split of a data set, or of its train split where it has none.

    table: CSV (file, group) that tells the parts; None: of an ordinary folder, every folder of images in it is a part,
    if there are two or more; else every image is. Copies byte for byte are one part. Raises InputError and what
    `read_dataset` does.
    """
    in_a_dataset = layout != "auto" or category is not None
    root = directory.parent if directory.is_file() else directory
    if in_a_dataset or (directory.exists() and (fitting_layouts(directory) or dataset_folders(directory))):
        dataset = read_dataset(directory, layout, category)
        images = [sample.path for sample in dataset.validation or dataset.train]
        if not images:
            raise InputError(f"{directory}: no normal images in train or validation (layout {dataset.layout})")
        groups, grouping = {path: str(path) for path in images}, "every image is a part"
    else:
        images = list_images(directory)
        check_good_only(directory, images)
        groups, grouping = _by_folder(images, root)
    if table is not None:
        groups, grouping = read_groups(table, images, root), f"parts as {table.name} tells"
    groups, copies = join_copies(images, groups)
    of_images = tuple(groups[path] for path in images)
    return NormalParts(tuple(images), of_images, copies_below(copies, root), grouping, root)


def _by_folder(images: Sequence[Path], root: Path) -> tuple[dict[Path, str], str]:
    """Each folder of images below `root` is a part, if there are two at least; else every image is."""
    folders = {path.parent for path in images if path.parent != root}
    if len(folders) < 2:
        return {path: str(path) for path in images}, "every image is a part"
    grouping = f"each of {len(folders)} folders is a part"
    loose = sum(path.parent == root for path in images)
    grouping += f", and each of {loose} images beside them" if loose else ""
    return {path: str(path if path.parent == root else path.parent) for path in images}, grouping


__all__ = ["NormalParts", "find_normal_parts"]
