"""A table of one's own: a CSV with the columns image, label and split, and if there are any, mask and object.

Paths are relative to the table. label: normal or anomaly (also good/bad, ok/ko, 0/1), or unknown. split: train,
validation or test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar, get_args

from onceover.errors import InputError, unknown_name
from onceover.training.dataset import (
    MAX_CATEGORIES,
    Dataset,
    Label,
    Sample,
    Split,
    listed,
    read_csv_lines,
    relative_path,
)
from onceover.training.layouts.layout import Layout

Meaning = TypeVar("Meaning")
COLUMNS = ("image", "label", "split")
LABEL_WORDS: dict[Label, tuple[str, ...]] = {
    0: ("normal", "good", "ok", "0"),
    1: ("anomaly", "anomalous", "defective", "bad", "ko", "nok", "ng", "1"),
    -1: ("unknown", "-1"),
}
LABELS = {word: label for label, words in LABEL_WORDS.items() for word in words}
DEFECTS: dict[Label, str] = {0: "normal", 1: "anomaly", -1: "unknown"}
SPLITS: dict[str, Split] = {**{split: split for split in get_args(Split)}, "val": "validation"}


class CSVTable(Layout):
    expects: ClassVar[str] = "a .csv with the columns image, label, split and, if any, mask, object"
    takes_category: ClassVar[bool] = True

    def matches(self, root: Path) -> bool:
        return self._table(root) is not None

    def read(self, root: Path, category: str | None) -> Dataset:
        table = self._table(root)
        if table is None:
            raise InputError(
                f"{root}: expected a .csv file, or a folder with one, with the columns {','.join(COLUMNS)}"
            )
        return read_table(table, table.parent, category)

    def _table(self, root: Path) -> Path | None:
        """The file itself, or the only table of images in a folder."""
        if root.is_file():
            return root if root.suffix.lower() == ".csv" else None
        candidates = [path for path in root.glob("*.[cC][sS][vV]") if not path.name.startswith(".")]
        tables = [path for path in candidates if path.is_file() and _is_table(path)]
        return tables[0] if len(tables) == 1 else None


def _is_table(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            header = stream.readline().lower().replace('"', "").split(",")
    except (OSError, UnicodeDecodeError):
        return False
    return set(COLUMNS) <= {name.strip() for name in header}


def read_table(file: Path, root: Path, category: str | None, positive_from: int | None = None) -> Dataset:
    """The samples of one object of a table; its paths are relative to `root`.

    Raises InputError, naming file and line, for missing columns, words that are no label or split, an image that is
    named twice, and files that are not there; UnknownNameError for an object the table does not have.
    """
    lines = _lines_of_category(file, read_csv_lines(file, COLUMNS), category)
    samples, problems, seen = list[Sample](), list[str](), dict[Path, int]()
    for number, line in lines:
        where = f"{file}, line {number}"
        label, split = _word(where, "label", line["label"], LABELS), _word(where, "split", line["split"], SPLITS)
        image, mask = (_existing(where, root, line.get(column, "")) for column in ("image", "mask"))
        if image is None:
            raise InputError(f"{where}: names no image")
        if seen.setdefault(image, number) != number:
            raise InputError(f"{where}: {line['image']} is also on line {seen[image]}; name each image once")
        relative = relative_path(image, root)
        if label != 0 and split != "test":
            problems.append(f"{relative}: left out, {split} takes normal images only (line {number})")
            continue
        if label == 1 and mask is None:
            problems.append(f"{relative}: no mask on line {number}; image-level metrics only")
        truth = mask if label == 1 else None
        samples.append(Sample(image, relative, split, label, DEFECTS[label], truth, positive_from))
    if not samples:
        raise InputError(f"{file}: names no images; expected the header {','.join(COLUMNS)} and one line per image")
    train, validation, test = (
        tuple(sample for sample in samples if sample.split == split) for split in ("train", "validation", "test")
    )
    return Dataset(category or file.stem, train, test, tuple(problems), validation)


def _lines_of_category(
    file: Path, lines: Sequence[tuple[int, dict[str, str]]], category: str | None
) -> list[tuple[int, dict[str, str]]]:
    objects = sorted({line["object"] for _, line in lines if line.get("object")}, key=os.fsencode)
    if category is None and len(objects) > 1:
        raise InputError(
            f"{file}: holds {len(objects)} objects: {listed(objects, MAX_CATEGORIES)}; "
            f"give one: --category {objects[0]}"
        )
    if category is not None and category not in objects:
        raise unknown_name("category", category, objects)
    return [(number, line) for number, line in lines if category is None or line.get("object") == category]


def _word(where: str, column: str, word: str, known: Mapping[str, Meaning]) -> Meaning:
    if word.lower() not in known:
        raise InputError(f"{where}: {column} is {word!r}; expected one of {', '.join(known)}")
    return known[word.lower()]


def _existing(where: str, root: Path, text: str) -> Path | None:
    """The file that a cell names, with either slash; None for an empty cell."""
    if not text:
        return None
    path = root / os.path.normpath(text.replace("\\", "/"))
    if not path.is_file():
        raise InputError(f"{where}: {path}: no such file; paths are relative to {root}")
    return path
