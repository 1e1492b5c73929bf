"""Folders of images → samples with label and mask; explicit, seeded splits by groups of images of one part.

The layout is that of MVTec AD: train/good, test/<good or kind of defect>, ground_truth/<kind of defect>/<stem>_mask.*.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from onceover.errors import InputError, UsageError
from onceover.images import EXTENSIONS, list_images, visible_files

GOOD_NAMES = frozenset({"good", "ok", "normal"})  # folder names, in any case
MASK_SUFFIXES = ("_mask", "", "_GT")  # after the stem of the image, tried in this order

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Sample:
    """One image. relative: POSIX path below the root. label: 0 normal, 1 anomalous. defect: its folder below test.

    mask_path is None for a normal image, and for an anomalous one without ground truth (image-level metrics only).
    """

    path: Path
    relative: str
    split: Split
    label: Literal[0, 1]
    defect: str
    mask_path: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """train and test in byte-wise order of their relative paths; problems: what a person should know, in sentences."""

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    problems: tuple[str, ...] = ()


def read_dataset(root: str | os.PathLike[str]) -> Dataset:
    """The samples below `root`, which holds train/good, test, or both; a good folder may also be named ok or normal.

    Raises InputError when the root is missing or holds neither. What is merely odd (a missing mask, a mask without
    image, defective images in train, the same picture in train and test) is reported in `problems`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one with train/good and test inside")
    problems: list[str] = []
    train = _read_train(root, problems)
    test = _read_test(root, problems)
    if not train and not test:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root}: no images in train/good or in test/<kind>; expected that layout, found {found}")
    problems += _duplicates(train, test)
    return Dataset(root.resolve().name, tuple(train), tuple(test), tuple(problems))


def read_groups(file: str | os.PathLike[str], images: Sequence[Path], root: str | os.PathLike[str]) -> dict[Path, str]:
    """The group (physical part) of each image, from a CSV with the header `file,group`.

    A file is named by its path relative to `root` (the fit folder), by its path relative to the CSV's own folder, or by
    a file name that occurs once in the CSV and once among the images. Lines about other images
    are ignored. Raises InputError for an unreadable CSV, images it does not name, and names that stand for two groups.
    """
    file, root = Path(file), Path(root)
    table = _read_group_lines(file)
    by_name: dict[str, set[str]] = defaultdict(set)
    for line_path, group in table.items():
        by_name[Path(line_path).name].add(f"{line_path}\0{group}")
    twins = Counter(image.name for image in images)
    groups: dict[Path, str] = {}
    missing: list[str] = []
    ambiguous: list[str] = []
    for image in images:
        keys = (_relative(image, root), _relative(image, file.parent))
        found = {table[key] for key in keys if key in table}
        candidates = by_name.get(image.name, set())
        if not found and len(candidates) == 1 and twins[image.name] == 1:
            found = {next(iter(candidates)).split("\0")[1]}
        if len(found) == 1:
            groups[image] = found.pop()
        elif found or candidates:
            ambiguous.append(_relative(image, root))
        else:
            missing.append(_relative(image, root))
    if missing:
        raise InputError(f"{file}: no group for {_list(missing)}; add a line for each image (path relative to {root})")
    if ambiguous:
        names = _list(ambiguous)
        raise InputError(f"{file}: more than one group could be meant for {names}; write paths relative to {root}")
    return groups


def join_copies(images: Sequence[Path], groups: dict[Path, str]) -> tuple[dict[Path, str], int]:
    """Groups joined where two images are the same byte for byte, and how many images are such copies.

    A copy on both sides of the split would make held-out images look better than any new part can.
    """
    joined, first, copies = dict(groups), dict[str, Path](), 0
    for path in images:
        original = first.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        if original is path:
            continue
        copies += 1
        old, new = joined[path], joined[original]
        joined = {each: new if group == old else group for each, group in joined.items()} if old != new else joined
    return joined, copies


def split_holdout(
    images: Sequence[Path], groups: Mapping[Path, str] | None, holdout: int, seed: int
) -> tuple[list[Path], list[Path]]:
    """(bank, calibration): `holdout` whole groups go to calibration, drawn by `seed`; both keep the order of `images`.

    Without groups every image is a group of its own. The draw uses PCG64's raw stream, which numpy keeps stable
    between versions, so a seed means the same split everywhere.
    """
    group_of = [groups[image] if groups is not None else str(index) for index, image in enumerate(images)]
    names = list(dict.fromkeys(group_of)) if groups is None else sorted(set(group_of))
    if not 0 <= holdout < max(len(names), 1):
        raise UsageError(f"cannot hold out {holdout} of {len(names)} groups; at least one must stay for the bank")
    keys = np.random.PCG64(seed).random_raw(len(names))
    chosen = {names[index] for index in np.argsort(keys, kind="stable")[:holdout]}
    bank = [image for image, group in zip(images, group_of, strict=True) if group not in chosen]
    calibration = [image for image, group in zip(images, group_of, strict=True) if group in chosen]
    return bank, calibration


def _read_train(root: Path, problems: list[str]) -> list[Sample]:
    samples: list[Sample] = []
    for image in _images(root / "train"):
        kind = _kind(image, root / "train")
        if kind.lower() in GOOD_NAMES:
            samples.append(Sample(image, _relative(image, root), "train", 0, kind))
        else:
            problems.append(f"{_relative(image, root)}: left out, train is read from train/good only")
    return samples


def _read_test(root: Path, problems: list[str]) -> list[Sample]:
    masks: dict[str, list[Path]] = defaultdict(list)  # "kind/sub/stem" → files
    for mask in _images(root / "ground_truth"):
        masks[_relative(mask.with_suffix(""), root / "ground_truth")].append(mask)
    used: set[str] = set()
    samples: list[Sample] = []
    for image in _images(root / "test"):
        kind = _kind(image, root / "test")
        if not kind:
            problems.append(f"{_relative(image, root)}: left out, it lies in no test/<kind> folder and so has no label")
            continue
        relative, label = _relative(image, root), int(kind.lower() not in GOOD_NAMES)
        stem = _relative(image.with_suffix(""), root / "test")
        keys = [stem + suffix for suffix in MASK_SUFFIXES if stem + suffix in masks]
        used.update(keys)
        mask_path = masks[keys[0]][0] if keys and label else None
        if label and mask_path is None:
            problems.append(f"{relative}: no mask ground_truth/{stem}_mask.*; image-level metrics only")
        if sum(len(masks[key]) for key in keys) > 1:
            problems.append(f"{relative}: several masks fit, took {_relative(masks[keys[0]][0], root)}")
        samples.append(Sample(image, relative, "test", 1 if label else 0, kind, mask_path))
    for key in sorted(set(masks) - used, key=os.fsencode):
        problems.append(f"{_relative(masks[key][0], root)}: mask without a test image")
    return samples


def _duplicates(train: list[Sample], test: list[Sample]) -> list[str]:
    """Sentences about test files whose bytes are also in train. Only files of equal length are hashed."""
    by_length: dict[int, list[Sample]] = defaultdict(list)
    for sample in train:
        by_length[sample.path.stat().st_size].append(sample)
    digests: dict[Path, str] = {}

    def digest(sample: Sample) -> str:
        if sample.path not in digests:
            digests[sample.path] = hashlib.sha256(sample.path.read_bytes()).hexdigest()
        return digests[sample.path]

    sentences: list[str] = []
    for sample in test:
        twins = by_length.get(sample.path.stat().st_size, [])
        twin = next((other for other in twins if digest(other) == digest(sample)), None)
        if twin:
            sentences.append(f"{sample.relative}: the same file as {twin.relative}; test results are too good by it")
    return sentences


def _images(directory: Path) -> list[Path]:
    """The images below a folder that need not exist or hold any."""
    if not directory.is_dir() or not any(file.suffix.lower() in EXTENSIONS for file in visible_files(directory)):
        return []
    return list_images(directory)


def _kind(image: Path, split_root: Path) -> str:
    """The first folder below train or test; empty for an image that lies there directly."""
    parts = image.relative_to(split_root).parts
    return parts[0] if len(parts) > 1 else ""


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.absolute(), root.absolute())).as_posix()


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _read_group_lines(file: Path) -> dict[str, str]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path of the groups file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV text file in UTF-8 ({error}); expected the header file,group") from error
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        path, group = line.get("file"), line.get("group")
        if not path or not group:
            raise InputError(f"{file}, line {number}: expected the columns file and group, got {dict(line)}")
        key = os.path.normpath(path.strip().replace("\\", "/")).replace(os.sep, "/")
        if table.setdefault(key, group.strip()) != group.strip():
            raise InputError(f"{file}, line {number}: {path} is in the groups {table[key]} and {group}; keep one")
    if not table:
        raise InputError(f"{file}: names no images; expected the header file,group and one line per image")
    return table
