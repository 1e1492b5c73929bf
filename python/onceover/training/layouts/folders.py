"""What layouts of folders share: images by kind, masks paired with them by name, a drawn split of normal images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from onceover.errors import InputError
from onceover.images import EXTENSIONS, list_images, visible_files
from onceover.training.dataset import Label, Sample, relative_path, split_holdout, subfolders

GOOD_NAMES = frozenset({"good", "ok", "normal"})  # folder names, in any case
_BAD = "anomalies anomalous anomaly bad defect defective defects faulty ko ng nok reject rejected rejects scrap"
BAD_NAMES = frozenset(_BAD.split())
MASK_SUFFIXES = ("_mask", "", "_GT")  # after the stem of the image, tried in this order
SPLIT_SEED = 0  # of the split of data sets that come without one
TEST_SHARE = 0.2  # of their normal images


def images_below(directory: Path) -> list[Path]:
    """The images below a folder that need not exist or hold any."""
    if not directory.is_dir() or not any(is_image(file) for file in visible_files(directory)):
        return []
    return list_images(directory)


def is_image(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS


def has_good(directory: Path) -> bool:
    return any(name.lower() in GOOD_NAMES for name in subfolders(directory))


def check_good_only(directory: Path, images: Sequence[Path]) -> None:
    """InputError where folders of an ordinary folder of good parts say by their names that not all parts are good.

    A defect that is learned is never found again. So images below a folder called bad, nok and the like are refused,
    and images beside a folder called good, ok or normal: whoever names that one has others, too.
    """
    relative = [path.relative_to(directory) for path in images]
    folders = {parent for path in relative for parent in path.parents} - {Path()}
    bad, good = (
        sorted((str(folder) for folder in folders if folder.name.lower() in names), key=os.fsencode)
        for names in (BAD_NAMES, GOOD_NAMES)
    )
    if bad:
        advice = f"give {directory / good[0]}" if len(good) == 1 else "give a folder of images of good parts alone"
        raise InputError(f"{directory}: holds images in {bad[0]}, by its name not of good parts; {advice}")
    for name in good:
        beside = [each for each in (*relative, *folders) if each.parent == Path(name).parent]
        others = sorted(str(each) for each in beside if each.name.lower() not in GOOD_NAMES)
        if others:
            raise InputError(
                f"{directory}: holds {name}, and {others[0]} beside it: are those good parts, too? Give "
                f"{directory / name}, or put all images of good parts into one folder"
            )


def kind_of(image: Path, split_root: Path) -> str:
    """The first folder below train or test; empty for an image that lies there directly."""
    parts = image.relative_to(split_root).parts
    return parts[0] if len(parts) > 1 else ""


def by_stem(directory: Path) -> dict[str, list[Path]]:
    """Masks by their path below the folder without extension: kind/sub/stem → files."""
    masks: dict[str, list[Path]] = defaultdict(list)
    for mask in images_below(directory):
        masks[relative_path(mask.with_suffix(""), directory)].append(mask)
    return masks


def read_normal(root: Path, split: Literal["train", "validation"], problems: list[str]) -> list[Sample]:
    """The normal images of a split; others there are reported and left out."""
    samples: list[Sample] = []
    for image in images_below(root / split):
        kind, relative = kind_of(image, root / split), relative_path(image, root)
        if kind.lower() in GOOD_NAMES:
            samples.append(Sample(image, relative, split, 0, kind))
        else:
            problems.append(f"{relative}: left out, {split} is read from {split}/good only")
    return samples


def read_labeled(root: Path, folder: str, mask_folder: str, problems: list[str]) -> list[Sample]:
    """The test images of root/folder/<kind> with their masks root/mask_folder/<kind>/<stem>[_mask | _GT].*"""
    directory, mask_root = root / folder, root / mask_folder
    masks = by_stem(mask_root)
    used: set[str] = set()
    samples: list[Sample] = []
    for image in images_below(directory):
        if image.is_relative_to(mask_root):
            continue
        kind, relative = kind_of(image, directory), relative_path(image, root)
        if not kind:
            problems.append(f"{relative}: left out, it lies in no {folder}/<kind> folder and so has no label")
            continue
        label: Label = 0 if kind.lower() in GOOD_NAMES else 1
        stem = relative_path(image.with_suffix(""), directory)
        keys = [stem + suffix for suffix in MASK_SUFFIXES if stem + suffix in masks]
        used.update(keys)
        mask_path = masks[keys[0]][0] if keys and label else None
        if label and mask_path is None:
            problems.append(f"{relative}: no mask {mask_folder}/{stem}_mask.*; image-level metrics only")
        if sum(len(masks[key]) for key in keys) > 1:
            problems.append(f"{relative}: several masks fit, took {relative_path(masks[keys[0]][0], root)}")
        samples.append(Sample(image, relative, "test", label, kind, mask_path))
    for key in sorted(set(masks) - used, key=os.fsencode):
        problems.append(f"{relative_path(masks[key][0], root)}: mask without a test image")
    return samples


def draw_split(samples: Sequence[Sample], groups: Mapping[Path, str] | None) -> tuple[list[Sample], list[Sample]]:
    """(train, test) of a data set that comes without a split: normal images, by whole groups, are drawn for train.

    Four fifths of the groups give their normal images; all else is tested. The draw depends on the names alone.
    """
    normal = sorted((s.path for s in samples if s.label == 0), key=os.fsencode)
    count = len({groups[path] for path in normal}) if groups else len(normal)
    tested = min(max(1, round(TEST_SHARE * count)), max(count - 1, 0))
    for_train = set(split_holdout(normal, groups, tested, SPLIT_SEED)[0])
    moved = [replace(s, split="train" if s.path in for_train else "test") for s in samples]
    return [s for s in moved if s.split == "train"], [s for s in moved if s.split == "test"]


def nothing_found(root: Path, expected: str) -> InputError:
    """The error for a root that was said to have a layout and has not."""
    if not root.is_dir():
        return InputError(f"{root}: is a file, expected a folder with {expected}")
    found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    return InputError(f"{root}: no images in {expected}; expected that layout, found {found}")
