"""What the tests of corrections share: a fitted package, and good parts that it flags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tiny_data import HELD_OUT, defective, good_folder, tiny_options
from tiny_package import tiny_image

from onceover import export
from onceover.detectors import BankSize
from onceover.images import write_image
from onceover.training.fit import fit


@dataclass(frozen=True)
class Line:
    """A fitted package, its training images, and false alarms (parts with a white window, say)."""

    package: Path
    images: Path
    alarms: tuple[Path, ...]


def fit_line(root: Path) -> Line:
    """Fitted in `root`; the alarms are parts with a white window, which no training part has."""
    images = good_folder(root / "good", 2 * HELD_OUT + 2)
    package = root / "part.onceover"
    export.package(fit(images, tiny_options(bank=BankSize(rows=200))), package)
    alarms = []
    for i in range(6):
        alarms.append(root / f"window_{i}.png")
        write_image(alarms[-1], defective(tiny_image(700 + i))[0])
    return Line(package, images, tuple(alarms))


def copied(fitted: Line, folder: Path) -> Line:
    """The same with a package of its own name, so that each test has its own journal."""
    package = folder / "part.onceover"
    package.write_bytes(fitted.package.read_bytes())
    return replace(fitted, package=package)
