"""A package and its journal → a new package with the corrections inside, which proves itself like any other."""

from __future__ import annotations

import os

from onceover.detectors.detector import Progress, no_progress
from onceover.runtime.corrections import Corrections
from onceover.runtime.self_contained import check_self_contained
from onceover.runtime.session import EngineOptions


def compact(
    corrections: Corrections,
    output: str | os.PathLike[str],
    engine: str | EngineOptions = "onnxruntime",
    threads: int = 1,
    progress: Progress = no_progress,
) -> str:
    """Write the package with its corrections to `output`, another file; → the new id.

    Its memory bank has the rows that are left and those that joined, in this order; thresholds are those that the
    corrections came to; the manifest names the old package and the journal ("compacted"; earlier ones are listed in
    "compacted_before"). Quarantined candidates are left behind. The file is read back and replayed before it gets its
    name, so that there is the old one or a whole new one. csrc/compaction does it, for C as well.

    Raises UsageError for a journal without effect, for an output that is the package or the journal, and for one beside
    which another journal lies; VerificationError, OutputError, and InputError for a graph that is not complete.
    """
    core = corrections.package.core
    check_self_contained(core.read("graph.onnx"), corrections.package.path)
    return corrections.core.compact(os.fspath(output), EngineOptions.of(engine).resolve(threads), progress)


__all__ = ["compact"]
