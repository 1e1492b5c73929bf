"""VisA, Zou et al. 2022 (SPot-the-Difference, arXiv:2207.14315), as released: split_csv/1cls.csv names every image.

root is the folder of all objects (with the object as category), or one object's folder in it. Masks hold defect ids, so
anything above 0 is defective. After the official conversion each object has the layout mvtec.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from onceover.errors import InputError
from onceover.training.dataset import Dataset
from onceover.training.layouts.csv_table import read_table
from onceover.training.layouts.layout import Layout

TABLE = Path("split_csv", "1cls.csv")


class VisA(Layout):
    expects: ClassVar[str] = "split_csv/1cls.csv, <object>/Data"
    takes_category: ClassVar[bool] = True

    def matches(self, root: Path) -> bool:
        return (root / TABLE).is_file() or self._is_object(root)

    def read(self, root: Path, category: str | None) -> Dataset:
        if category is None and self._is_object(root):
            root, category = root.resolve().parent, root.resolve().name
        if not (root / TABLE).is_file():
            raise InputError(
                f"{root}: no {TABLE.as_posix()}; give the folder of VisA that holds it, or an object's in it"
            )
        return read_table(root / TABLE, root, category, positive_from=1)

    def _is_object(self, root: Path) -> bool:
        return (root / "Data" / "Images").is_dir() and (root.resolve().parent / TABLE).is_file()
