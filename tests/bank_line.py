"""What the tests of corrections share: a fitted package, and good parts that it flags."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_data import HELD_OUT, defective, good_folder, tiny_options
from tiny_package import tiny_image

from onceover import Corrections, _core, export
from onceover.detectors import BankSize
from onceover.images import read_image, write_image
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.session import EngineOptions
from onceover.training.calibration_patches import HeldOutPatches
from onceover.training.fit import fit


@dataclass(frozen=True)
class Line:
    """A fitted package, its training images, and false alarms (parts with a white window, say)."""

    package: Path
    images: Path
    alarms: tuple[Path, ...]


def fit_line(root: Path, **options: object) -> Line:
    """Fitted in `root` with these options; the alarms are parts with a white window, which no training part has."""
    images = good_folder(root / "good", 2 * HELD_OUT + 2)
    package = root / "part.onceover"
    export.package(fit(images, tiny_options(**{"bank": BankSize(rows=200), "adapt": True, **options})), package)
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


def corrected_rows(corrections: Corrections) -> NDArray[np.float32]:
    """The rows that the bank should have, built by hand."""
    removed, _, added = corrections.changes()
    bank = np.array(corrections.package.core.array("memory_bank"))
    return np.concatenate([np.delete(bank, removed, axis=0), added])


def scores_by_hand(line: Line, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and map maxima of the held-out images by a package with these rows, as a new calibration finds them."""
    package = open_package(line.package)
    core = package.core
    writer = _core.PackageWriter()
    for member in package.members:
        if member.name in ("config", "graph.onnx", "calibration", "parity"):
            writer.add(member.name, core.read(member.name))
        elif member.name in ("roi", "adaptation", "position_weights"):
            writer.add(member.name, core.array(member.name))
    writer.add("memory_bank", np.ascontiguousarray(rows))
    session = _core.Session(_core.Package.view(writer.bytes(), "by hand"), EngineOptions().resolve())
    held_out = package.manifest["data"]["calibration_images"]
    results = [session.run(read_image(line.images / name)) for name in held_out]
    return (
        np.sort(np.array([result.score for result in results], np.float32)),
        np.sort(np.array([result.map_maximum for result in results], np.float32)),
    )


def remembered(package: PackageFile) -> tuple[HeldOutPatches, bool]:
    """What a package keeps of its held-out parts, and whether distances that are not tracked may be too high."""
    data = package.core.array("calibration_patches").tobytes()
    size, count, tracked, patches, dims, bounds = struct.unpack_from("<6I", data)
    arrays: list[NDArray[np.uint32]] = []
    for shape in ((count,), (count, patches), (count, patches), (count, tracked), (count, tracked, dims)):
        arrays.append(np.frombuffer(data, np.uint32, math.prod(shape), size).reshape(shape))
        size += arrays[-1].nbytes
    assert size == len(data)
    parts, distances, nearest, chosen, embeddings = arrays
    return HeldOutPatches(parts, distances.view(np.float32), nearest, chosen, embeddings.view(np.float32)), bool(bounds)


def weighed(package: PackageFile, held_out: HeldOutPatches) -> NDArray[np.float32]:
    """(n, P): patch scores of what a package remembers."""
    scores: NDArray[np.float32] = held_out.distances * package.core.array("position_weights").ravel()
    return scores
