"""Fitted parts → the members of one package. The only place that says which members a package has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.runtime import thumbnails
from onceover.types import DECISIONS, ONE_TILE, Calibration, GraphSpec, Image, Tiling

RELATIVE_TOLERANCE = 1e-4  # of the parity replay: engine kernels differ by CPU; see tests/tolerances.py
OPTIONAL_STATE = {"bank_index", "bank_neighbors"}  # a reader that does not know them scans, and scores the same
MAP_STEP = 8  # the parity record keeps every 8th row and column of the map: 4 KB at 256 × 256


@dataclass(frozen=True)
class PackageParts:
    """Everything a package is made of.

    state: the detector's members (PatchCore: memory_bank float32 (M, D), bank_index, bank_neighbors).
    bank_source: uint32 (M, 2), for every bank row its image (index into manifest bank_images) and patch; optional.
    calibration_patches: uint8 (n,), what the held-out images are scored again by (export/FORMAT.md); optional.
    relative_tolerance: of the parity replay. thumbnails: the member of runtime/thumbnails.py; None by default.
    roi: uint8 (h, w) of 0 and 1 over the whole image, what is inspected.
    adaptation: float32 (D, D), by which patch embeddings are multiplied before they are compared; None: not at all.
    position_weights: float32 (h, w), the patch grid of all tiles; distances are multiplied by them.
    gate: the member that tells this product from others (`training.gate`); optional.
    """

    graph: bytes
    spec: GraphSpec
    blur_sigma: float
    state: Mapping[str, NDArray[Any]]
    calibration: Calibration
    parity: tuple[_core.ParityItem, ...]
    manifest: Mapping[str, Any]
    bank_source: NDArray[np.uint32] | None = None
    calibration_patches: NDArray[np.uint8] | None = None
    relative_tolerance: float = RELATIVE_TOLERANCE
    thumbnails: bytes | None = None
    tiling: Tiling = ONE_TILE
    roi: NDArray[np.uint8] | None = None
    gate: bytes | None = None
    adaptation: NDArray[np.float32] | None = None
    position_weights: NDArray[np.float32] | None = None


def config_of(spec: GraphSpec, blur_sigma: float, tiling: Tiling = ONE_TILE) -> _core.Config:
    """The fixed config record of a graph."""
    return _core.Config(
        height=spec.preprocessing.height,
        width=spec.preprocessing.width,
        mean=spec.preprocessing.mean,
        std=spec.preprocessing.std,
        grid_height=spec.grid_height,
        grid_width=spec.grid_width,
        embedding_dim=spec.embedding_dim,
        blur_sigma=blur_sigma,
        tiling=tiling.fields,
    )


def uncalibrated() -> Calibration:
    """The calibration of a package nobody calibrated."""
    none = np.zeros(0, np.float32)
    return Calibration(0.0, None, None, none, none, 0)


def assemble(parts: PackageParts) -> _core.PackageWriter:
    """A writer holding all members; deterministic: the same parts give the same bytes."""
    config = config_of(parts.spec, parts.blur_sigma, parts.tiling)
    calibration = parts.calibration
    writer = _core.PackageWriter()
    writer.add("config", config.to_bytes())
    writer.add("manifest.json", json.dumps(parts.manifest, indent=1, sort_keys=True, allow_nan=False).encode())
    writer.add("graph.onnx", parts.graph)
    for name, member in parts.state.items():
        writer.add(name, member, required=name not in OPTIONAL_STATE)
    writer.add(
        "calibration",
        _core.calibration_bytes(
            calibrated=calibration.calibrated,
            false_alarm_rate=calibration.false_alarm_rate if calibration.calibrated else 0.0,
            threshold=np.inf if calibration.threshold is None else calibration.threshold,
            map_threshold=np.inf if calibration.map_threshold is None else calibration.map_threshold,
            scores=calibration.scores,
            map_maxima=calibration.map_maxima,
            image_count=calibration.image_count,
            cross_conformal=calibration.cross_conformal,
            confidence=calibration.confidence or 0.0,
        ),
    )
    writer.add("parity", _core.parity_bytes(list(parts.parity), config, parts.relative_tolerance, MAP_STEP))
    if parts.roi is not None:
        writer.add("roi", parts.roi)  # required: who does not know it would judge what is not to be inspected
    if parts.adaptation is not None:
        writer.add("adaptation", parts.adaptation)  # required: the bank holds embeddings that are multiplied by it
    if parts.position_weights is not None:
        writer.add("position_weights", parts.position_weights)  # required: thresholds are of scores that it made
    if parts.gate is not None:
        writer.add("gate", parts.gate, required=False)
    if parts.calibration_patches is not None:
        writer.add("calibration_patches", parts.calibration_patches, required=False)
    if parts.bank_source is not None:
        writer.add("bank_source", parts.bank_source, required=False)
    if parts.thumbnails is not None:
        writer.add(thumbnails.MEMBER, parts.thumbnails, required=False)
    return writer


def parity_item(session: _core.Session, image: Image, color: str = "rgb") -> _core.ParityItem:
    """What this machine answers for a reference image."""
    result = session.run(image, color)
    verdict = DECISIONS.index(result.decision)
    return _core.ParityItem(image, color, result.score, verdict, session.patch_scores(), session.anomaly_map())
