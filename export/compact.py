"""A package and its journal → a new package with the corrections inside, which proves itself like any other."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core, export
from onceover.detectors.patchcore import GRAPH_NEIGHBORS
from onceover.errors import UsageError
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, assemble, parity_item
from onceover.runtime.corrections import Candidate, Corrections
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions
from onceover.training.calibration_patches import HeldOutPatches

_UNKNOWN = "0" * 64  # SHA-256 of an image that nobody has


def compact(
    corrections: Corrections, output: str | os.PathLike[str], engine: str | EngineOptions = "onnxruntime"
) -> str:
    """Write the package with its corrections to `output`, another file; → the new id.

    Its memory bank has the rows that are left and those that joined, in this order; thresholds are those that the
    corrections came to; the manifest names the old package and the journal. Quarantined candidates are left behind.
    Raises UsageError for a journal without effect or for an output that is the package, and what `export.package`
    raises.
    """
    core, package = corrections.package.core, corrections.package
    removed, numbers, added = corrections.changes()
    if len(removed) + len(numbers) == 0:
        raise UsageError(f"{corrections.path}: nothing is confirmed or removed, so there is nothing to compact")
    if Path(output).exists() and Path(output).samefile(package.path):
        raise UsageError(f"{output}: is the package itself, to which the journal belongs; give another name")
    names = {member.name for member in package.members}
    with Inspector.open(package, engine, corrections=corrections) as inspector:
        calibration, applied = inspector.calibration, inspector.applied
    assert applied is not None
    fitted = core.array("memory_bank")  # (M, D)
    left = np.setdiff1d(np.arange(len(fitted)), removed)
    rows = np.ascontiguousarray(np.concatenate([fitted[left], added]))
    bank = _core.MemoryBank(rows, seed=int(package.manifest.get("seed", 0)))
    graph = core.read("graph.onnx")
    manifest, source = _provenance(corrections, left, numbers)
    manifest["compacted"] = {
        "from": package.id, "journal": corrections.id, "removed_rows": len(removed), "added_rows": len(numbers),
        "candidates": [each.id for each in _confirmed(corrections)], "calibration": applied.calibration,
    }  # fmt: skip
    parts = PackageParts(
        graph=graph,
        spec=read_graph_spec(graph, package.path),
        blur_sigma=_core.read_config(core).blur_sigma,
        state={
            "memory_bank": rows,
            "bank_index": np.frombuffer(bank.index_bytes(), np.uint8),
            "bank_neighbors": bank.search(rows, min(GRAPH_NEIGHBORS, len(rows)))[1].astype(np.uint32),
        },
        calibration=calibration,
        parity=(),
        manifest=manifest,
        bank_source=source,
        calibration_patches=None,
        relative_tolerance=_core.read_parity(core)["relative_tolerance"],
        adaptation=core.array("adaptation") if "adaptation" in names else None,
        thumbnails=core.read(thumbnails.MEMBER) if thumbnails.MEMBER in names else None,  # of the bank's images
        gate=core.read("gate") if "gate" in names else None,  # of images as a whole, which rows do not change
    )
    if "calibration_patches" in names:
        parts = replace(parts, calibration_patches=_remembered(core, bank, left, removed, fitted))
    view = _core.Package.view(assemble(parts).bytes(), "the compacted package")
    session = _core.Session(view, EngineOptions.of(engine).resolve())
    references = _core.read_parity(core)["images"]
    parity = tuple(parity_item(session, each["image"], each["color"]) for each in references)
    return export.package(replace(parts, parity=parity), output, engine)


def _confirmed(corrections: Corrections) -> list[Candidate]:
    return [candidate for candidate in corrections.candidates if candidate.standing == "confirmed"]


def _provenance(
    corrections: Corrections, left: NDArray[np.int64], numbers: NDArray[np.uint32]
) -> tuple[dict[str, Any], NDArray[np.uint32] | None]:
    """The manifest with the images of the corrections among the bank's, and image and patch of every row, (M, 2)."""
    core, names = corrections.package.core, {member.name for member in corrections.package.members}
    manifest: dict[str, Any] = json.loads(json.dumps(corrections.package.manifest))
    detector, data = manifest.get("detector"), manifest.get("data")
    if isinstance(detector, dict):
        detector["bank_rows"] = len(left) + len(numbers)
    if "bank_source" not in names or not isinstance(data, dict):
        return manifest, None
    source = [core.array("bank_source")[left]]
    joined = set(numbers.tolist())
    for candidate in _confirmed(corrections):
        image = len(data["bank_images"])
        data["bank_images"].append(Path(candidate.name).name or f"correction {candidate.id}")
        data["bank_sha256"].append(candidate.image_sha256 or _UNKNOWN)
        patches = [patch for row, patch in zip(candidate.rows, candidate.patches, strict=True) if row in joined]
        source.append(np.array([(image, patch) for patch in patches], np.uint32).reshape(-1, 2))
    return manifest, np.concatenate(source).astype(np.uint32)


def _remembered(
    core: _core.Package, bank: _core.MemoryBank, left: NDArray[np.int64], removed: NDArray[np.uint32],
    fitted: NDArray[np.float32],
) -> NDArray[np.uint8]:  # fmt: skip
    """The held-out patches by the new rows: tracked ones exactly, of others a bound by way of a row near them."""
    old = HeldOutPatches.of_array(core.array("calibration_patches"))
    number = np.full(len(fitted), -1, np.int64)  # of each fitted row that is left, in the new bank
    number[left] = np.arange(len(left))
    scores, nearest = old.scores.copy(), number[old.nearest]
    if len(removed):
        distance, instead = bank.search(np.ascontiguousarray(fitted[removed]), 1)
        at = np.searchsorted(removed, old.nearest)
        at[at == len(removed)] = 0
        gone = removed[at] == old.nearest
        up = np.float32(np.inf)
        bound = np.nextafter(np.nextafter(scores, up) + np.nextafter(distance[at, 0], up), up)
        scores, nearest = np.where(gone, bound, scores), np.where(gone, instead[at, 0], nearest)
    count, tracked, dims = old.embeddings.shape
    exact, rows = bank.search(np.ascontiguousarray(old.embeddings.reshape(-1, dims)), 1)
    np.put_along_axis(scores, old.patches.astype(np.int64), exact.reshape(count, tracked), axis=1)
    np.put_along_axis(nearest, old.patches.astype(np.int64), rows.reshape(count, tracked), axis=1)
    return replace(old, scores=scores.astype(np.float32), nearest=nearest.astype(np.uint32), bounds=True).to_array()


__all__ = ["compact"]
