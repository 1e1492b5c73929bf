"""Data set → samples with label and mask, in any layout of the registry; explicit, seeded splits by groups of images.

A layout (training/layouts/) knows which file is what; what holds for every layout is here.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from onceover import registry
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError, unknown_name
from onceover.file_hash import file_hash

if TYPE_CHECKING:
    from onceover.training.layouts.layout import Layout

Split = Literal["train", "validation", "test"]
Label = Literal[-1, 0, 1]

MAX_CATEGORIES = 40  # named in a message; Real-IAD has 30


@dataclass(frozen=True)
class Saturation:
    """When a defect of MVTec LOCO counts as found: after `threshold` pixels, or that share of its area if relative."""

    pixel_value: int  # of the defect in its mask
    defect: str
    threshold: float
    relative: bool


@dataclass(frozen=True)
class Sample:
    """One image. relative: POSIX path below the root. label: 0 normal, 1 anomalous, -1 unknown. defect: its kind.

    mask_path and channels (MVTec LOCO: one mask for each defect, with their saturations) are empty for a normal image
    and for an anomalous one without ground truth (image-level metrics only). positive_from: the least mask value that
    means defective; None: as images.read_mask decides. condition: the lighting, where a layout tells it.
    """

    path: Path
    relative: str
    split: Split
    label: Label
    defect: str
    mask_path: Path | None = None
    positive_from: int | None = None
    channels: tuple[Path, ...] = ()
    saturations: tuple[Saturation, ...] = ()
    condition: str = ""


@dataclass(frozen=True)
class Dataset:
    """Splits in byte-wise order of their relative paths; problems: what a person should know, in sentences.

    train holds normal images only. validation is for calibration: it is neither learned from nor tested on.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    validation: tuple[Sample, ...] = ()
    layout: str = ""


def read_dataset(root: str | os.PathLike[str], layout: str = "auto", category: str | None = None) -> Dataset:
    """The samples below `root` (for the layout csv: a table of them), in a layout of registry.LAYOUTS.

    category: one of several products below root. Raises InputError when the root is missing, fits no layout or more
    than one, or lacks what its layout needs; UnknownNameError for a layout. What is merely odd (a missing mask, a mask
    without image, defective images in train, the same picture in train and test) is reported in `problems`.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder or table; give a folder with train/good and test inside")
    if category is not None and (root / category).is_dir():
        asked = fitting_layouts(root) if layout == "auto" else [layout]
        if not any(_layout(name).takes_category for name in asked):  # no table of objects, so one folder for each
            root, category = root / category, None
    name = _detect(root) if layout == "auto" else layout
    reader = _layout(name)
    if category is not None and not reader.takes_category:
        raise unknown_name("category", category, subfolders(root))
    dataset = reader.read(root, category)
    train, validation, test = (
        tuple(sorted(samples, key=lambda sample: os.fsencode(sample.relative)))
        for samples in (dataset.train, dataset.validation, dataset.test)
    )
    twins = [
        *_duplicates(train, validation, "calibration is too good by it"),
        *_duplicates((*train, *validation), test, "test results are too good by it"),
    ]
    problems = (*dataset.problems, *twins)
    return replace(dataset, train=train, validation=validation, test=test, problems=problems, layout=name)


def fitting_layouts(root: Path) -> list[str]:
    """Names of the layouts that `root` has; empty for an ordinary folder of images."""
    return [name for name in registry.LAYOUTS if _layout(name).matches(root)]


def dataset_folders(root: Path) -> list[str]:
    """Names of the folders in `root` that are a data set each: its categories."""
    return [name for name in subfolders(root) if fitting_layouts(root / name)]


def subfolders(directory: Path) -> list[str]:
    """Names of the visible folders in one that need not exist, byte-wise in order."""
    if not directory.is_dir():
        return []
    try:
        names = [path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror}); check its permissions") from error
    return sorted(names, key=os.fsencode)


def relative_path(path: Path, root: Path) -> str:
    """POSIX path below root, with ../ where it lies outside."""
    return Path(os.path.relpath(path.absolute(), root.absolute())).as_posix()


def copies_below(copies: Mapping[Path, Path], root: Path) -> dict[str, str]:
    """What `join_copies` found, by the names that people know."""
    return {relative_path(path, root): relative_path(original, root) for path, original in copies.items()}


def listed(names: Sequence[str], limit: int = 5) -> str:
    """For a message: the first few, and how many more."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def read_csv_lines(file: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, column → text) of a CSV in UTF-8, with or without byte order mark; blank lines are skipped.

    Raises InputError for an unreadable file and for a header that lacks one of the columns.
    """
    expected = ",".join(columns)
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            lines = [
                (reader.line_num, {key: (text or "").strip() for key, text in line.items() if key}) for line in reader
            ]
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path of the CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV text file in UTF-8 ({error}); expected the header {expected}") from error
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header) or "nothing"
        raise InputError(f"{file}, line 1: expected the columns {' and '.join(columns)}, found {found}")
    return lines


def read_groups(file: str | os.PathLike[str], images: Sequence[Path], root: str | os.PathLike[str]) -> dict[Path, str]:
    """The group (physical part) of each image, from a CSV with the header `file,group`.

    A file is named by its path relative to `root` (the fit folder), by its path relative to the CSV's own folder, or by
    a file name that occurs once in the CSV and once among the images. Lines about other images
    are ignored. Raises InputError for an unreadable CSV, images it does not name, and names that stand for two groups.
    """
    file, root = Path(file), Path(root)
    table = read_group_table(file)
    by_name: dict[str, set[str]] = defaultdict(set)
    for line_path, group in table.items():
        by_name[Path(line_path).name].add(f"{line_path}\0{group}")
    twins = Counter(image.name for image in images)
    groups: dict[Path, str] = {}
    missing: list[str] = []
    ambiguous: list[str] = []
    for image in images:
        keys = (relative_path(image, root), relative_path(image, file.parent))
        found = {table[key] for key in keys if key in table}
        candidates = by_name.get(image.name, set())
        if not found and len(candidates) == 1 and twins[image.name] == 1:
            found = {next(iter(candidates)).split("\0")[1]}
        if len(found) == 1:
            groups[image] = found.pop()
        elif found or candidates:
            ambiguous.append(relative_path(image, root))
        else:
            missing.append(relative_path(image, root))
    if missing:
        raise InputError(f"{file}: no group for {listed(missing)}; add a line for each image (path relative to {root})")
    if ambiguous:
        names = listed(ambiguous)
        raise InputError(f"{file}: more than one group could be meant for {names}; write paths relative to {root}")
    return groups


def join_copies(
    images: Sequence[Path], groups: dict[Path, str], progress: Progress = no_progress
) -> tuple[dict[Path, str], dict[Path, Path]]:
    """Groups joined where two images are the same byte for byte; and each such copy → the first image that it is.

    A copy on both sides of the split would make held-out images look better than any new part can. Only files of equal
    length are read.
    """
    lengths = [path.stat().st_size for path in images]
    twins = Counter(lengths)
    first, copies = dict[str, Path](), dict[Path, Path]()
    leads: dict[str, str] = {}  # group → the one it was joined to
    read, to_read = 0, sum(1 for length in lengths if twins[length] > 1)
    for path, length in zip(images, lengths, strict=True):
        if twins[length] == 1:
            continue
        original = first.setdefault(file_hash(path), path)
        read += 1
        progress("looking for copies", read, to_read)
        if original is path:
            continue
        copies[path] = original
        old, new = _lead(groups[path], leads), _lead(groups[original], leads)
        if old != new:
            leads[old] = new
    return {path: _lead(group, leads) for path, group in groups.items()}, copies


def _lead(group: str, leads: Mapping[str, str]) -> str:
    while group in leads:
        group = leads[group]
    return group


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


def _layout(name: str) -> Layout:
    layout: Layout = registry.load("layout", name, registry.LAYOUTS)()
    return layout


def _detect(root: Path) -> str:
    """The one layout that fits."""
    names = fitting_layouts(root)
    if len(names) == 1:
        return names[0]
    if names:
        raise InputError(f"{root}: fits the layouts {' and '.join(names)}; say which with --layout")
    if not root.is_dir():
        raise InputError(f"{root}: is a file, expected a folder or a .csv table of images")
    categories = dataset_folders(root)
    if categories:
        raise InputError(
            f"{root}: holds {len(categories)} data sets: {listed(categories, MAX_CATEGORIES)}; give one of them: "
            f"{root / categories[0]}, or --category {categories[0]}"
        )
    found = listed(sorted(path.name for path in root.iterdir() if not path.name.startswith("."))) or "nothing"
    raise InputError(
        f"{root}: no images in train/good or in test/<kind>; no other layout fits either, found {found}; "
        f"onceover reads the layouts {', '.join(registry.LAYOUTS)}. For labelled images of your own make the folders "
        f"{root / 'test' / 'good'} and {root / 'test' / 'bad'}, or one for each kind of defect"
    )


def _duplicates(earlier: Sequence[Sample], later: Sequence[Sample], consequence: str) -> list[str]:
    """Sentences about later files whose bytes are also in an earlier split. Only files of equal length are hashed."""
    by_length: dict[int, list[Sample]] = defaultdict(list)
    for sample in earlier:
        by_length[sample.path.stat().st_size].append(sample)
    digests: dict[Path, str] = {}

    def digest(sample: Sample) -> str:
        if sample.path not in digests:
            digests[sample.path] = file_hash(sample.path)
        return digests[sample.path]

    sentences: list[str] = []
    for sample in later:
        twins = by_length.get(sample.path.stat().st_size, [])
        twin = next((other for other in twins if digest(other) == digest(sample)), None)
        if twin:
            sentences.append(f"{sample.relative}: the same file as {twin.relative}; {consequence}")
    return sentences


def read_group_table(file: Path) -> dict[str, str]:
    """Path as the table `file,group` has it, with / and normalized → group; InputError as `read_groups`."""
    table: dict[str, str] = {}
    for number, line in read_csv_lines(file, ("file", "group")):
        path, group = line.get("file"), line.get("group")
        if not path or not group:
            raise InputError(f"{file}, line {number}: expected the columns file and group, got {line}")
        key = os.path.normpath(path.replace("\\", "/")).replace(os.sep, "/")
        if table.setdefault(key, group) != group:
            raise InputError(f"{file}, line {number}: {path} is in the groups {table[key]} and {group}; keep one")
    if not table:
        raise InputError(f"{file}: names no images; expected the header file,group and one line per image")
    return table
