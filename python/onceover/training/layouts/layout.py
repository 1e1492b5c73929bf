"""The contract of a layout: does it fit a folder, and which samples does that folder hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from onceover.training.dataset import Dataset


class Layout(ABC):
    """Which file of a data set is what. A new one is a file here and a line in registry.LAYOUTS."""

    expects: ClassVar[str]  # what is where, in one line, for messages and `onceover list layouts`
    takes_category: ClassVar[bool] = False  # one table of several products: `category` picks one

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether `root`, which exists, has this layout and no other. Looks at names only, so that it is quick."""

    @abstractmethod
    def read(self, root: Path, category: str | None) -> Dataset:
        """The samples in any order, and what is odd. Raises InputError when what the layout needs is not there."""
