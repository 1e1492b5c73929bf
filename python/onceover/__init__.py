"""onceover: visual anomaly inspection on edge devices. Give every part the once-over.

    import onceover
    verdict = onceover.Inspector.open("part.onceover").inspect("image.png")
    verdict.decision, verdict.score, verdict.anomaly_map

Names are loaded when first used; nothing here imports torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onceover import metrics
    from onceover._core import __version__
    from onceover.errors import (
        EngineError,
        InputError,
        InternalError,
        MemoryLimitError,
        MissingExtraError,
        NotFittedError,
        OnceoverError,
        OutputError,
        PackageError,
        UnknownNameError,
        UnsupportedPackageError,
        UsageError,
        VerificationError,
    )
    from onceover.export.recalibrate import CalibrateOptions, CalibrationReport
    from onceover.memory_bank import MemoryBank
    from onceover.monitoring.monitor import DriftMonitor
    from onceover.runtime.corrections import Corrections
    from onceover.runtime.inspector import Inspector
    from onceover.runtime.session import EngineOptions
    from onceover.training.evaluate import EvaluationReport
    from onceover.training.field import TilingOptions
    from onceover.training.fit import FitOptions
    from onceover.types import NearestPatch, Region, ScoreRange, Timing, Verdict

_HOMES = {
    "__version__": "onceover._core",
    "CalibrateOptions": "onceover.export.recalibrate",
    "Corrections": "onceover.runtime.corrections",
    "DriftMonitor": "onceover.monitoring.monitor",
    "EngineOptions": "onceover.runtime.session",
    "FitOptions": "onceover.training.fit",
    "Inspector": "onceover.runtime.inspector",
    "MemoryBank": "onceover.memory_bank",
    "NearestPatch": "onceover.types",
    "Region": "onceover.types",
    "ScoreRange": "onceover.types",
    "TilingOptions": "onceover.training.field",
    "Timing": "onceover.types",
    "Verdict": "onceover.types",
}

__all__ = [
    "CalibrateOptions",
    "Corrections",
    "DriftMonitor",
    "EngineError",
    "EngineOptions",
    "FitOptions",
    "InputError",
    "Inspector",
    "InternalError",
    "MemoryBank",
    "MemoryLimitError",
    "MissingExtraError",
    "NearestPatch",
    "NotFittedError",
    "OnceoverError",
    "OutputError",
    "PackageError",
    "Region",
    "ScoreRange",
    "TilingOptions",
    "Timing",
    "UnknownNameError",
    "UnsupportedPackageError",
    "UsageError",
    "Verdict",
    "VerificationError",
    "__version__",
    "calibrate",
    "evaluate",
    "fit",
    "metrics",
]


def fit(
    directory: str | os.PathLike[str], output: str | os.PathLike[str], options: FitOptions | None = None
) -> Inspector:
    """Fit on a folder of images of good parts, write and verify the package `output`; returns it opened.

    Raises the errors of onceover.errors; on failure no package is left behind. UsageError where corrections of another
    package lie beside that name.
    """
    from onceover.export import package
    from onceover.runtime.corrections import check_no_journal
    from onceover.runtime.inspector import Inspector
    from onceover.training.fit import FitOptions
    from onceover.training.fit import fit as fit_parts

    options = options or FitOptions()
    check_no_journal(output)  # before the work, not after it
    package(fit_parts(directory, options), output, options.engine)
    return Inspector.open(output, options.engine, options.threads, corrections=None)


def calibrate(
    package: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: CalibrateOptions | None = None,
) -> CalibrationReport:
    """Write `package` with a threshold from the normal images in `directory` to `output`; None: in its place.

    The images must be of parts that the memory bank has not seen. Returns what changed. Raises UsageError for a rate
    that they do not support, with the number of parts it takes, and the other errors of onceover.errors.
    """
    from onceover.export.recalibrate import calibrate_package

    return calibrate_package(package, directory, output, options)


def evaluate(
    package: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    resolution: str | int = "mask",
    layout: str = "auto",
    category: str | None = None,
) -> EvaluationReport:
    """Inspect a labelled data set with a package. resolution: "mask", or pixels squared.

    layout: one of `onceover list layouts`, or found by itself; category: one of several products in the data set.
    """
    from onceover.runtime.inspector import Inspector
    from onceover.training.dataset import read_dataset
    from onceover.training.evaluate import evaluate as evaluate_with

    with Inspector.open(package) as inspector:
        return evaluate_with(inspector, read_dataset(dataset, layout, category), resolution)


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("onceover.metrics")
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "onceover.errors")), name)
    raise AttributeError(f"module 'onceover' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
