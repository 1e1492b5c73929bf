"""A package and normal images of other parts → the same package with a threshold and p-values of its own for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core, export
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError
from onceover.export.repackage import take_apart
from onceover.file_hash import file_hash
from onceover.images import read_image
from onceover.runtime.assemble import PackageParts, assemble, parity_item
from onceover.runtime.corrections import check_no_journal
from onceover.runtime.package import PackageFile, open_package, require_one_product
from onceover.runtime.session import EngineOptions, open_session
from onceover.training.calibrate import (
    DEFAULT_FALSE_ALARM_RATE,
    calibrate,
    check_rate,
    realised_rate_interval,
    required_parts,
)
from onceover.training.calibration_patches import CalibrationPatches
from onceover.training.dataset import listed
from onceover.training.fit_job import numbered
from onceover.training.leaks import LeakWatch, known_by_bytes, known_by_part, rank_sum_p_value
from onceover.training.normal_parts import NormalParts, find_normal_parts
from onceover.training.splitting import check_images
from onceover.types import Calibration

UNLIKELY = 0.001  # of the comparison with the earlier calibration: one false note in a thousand calibrations
SHOWN_LEAKS = 5


@dataclass(frozen=True)
class CalibrateOptions:
    """false_alarm_rate: None keeps that of the package, or 5 % of an uncalibrated one. confidence: that the realised
    rate is at most that; None: it holds on average. groups: CSV (file, group) of images that show the same part.
    layout, category: as for `read_dataset`; of a data set the validation split calibrates, or without one its train
    images. allow_similar: accept images that look like bank images, where parts really are as alike as that.
    """

    false_alarm_rate: float | None = None
    confidence: float | None = None
    groups: Path | None = None
    layout: str = "auto"
    category: str | None = None
    allow_similar: bool = False
    engine: str | EngineOptions = "onnxruntime"
    threads: int = 1


@dataclass(frozen=True)
class CalibrationReport:
    """What changed. parts: what counts, images: what they had, grouping: how images became parts. copies: images that
    are byte for byte like an earlier one → that one.

    realised_rate: 90 % interval of the false-alarm rate that this one threshold gives on the line.
    """

    package: str
    package_id: str
    source_id: str
    images: int
    copies: Mapping[str, str]
    parts: int
    grouping: str
    false_alarm_rate: float
    confidence: float | None
    method_before: str
    threshold_before: float | None
    threshold: float | None
    map_threshold_before: float | None
    map_threshold: float | None
    realised_rate: tuple[float, float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calibrate_package(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: CalibrateOptions | None = None,
    progress: Progress = no_progress,
) -> CalibrationReport:
    """Write `source`, calibrated on the normal images in `directory`, to `output`; None: in place of `source`.

    The new package is verified before it appears, whole, under its name. Where no groups are told and `directory` has
    folders of images, each folder is a part. Raises UsageError for a rate that the parts do not support, with the
    number it takes; InputError for images that are in the memory bank; and what `export.package` raises.
    """
    options, source = options or CalibrateOptions(), Path(source)
    target = source if output is None else Path(output)
    if output is not None and target.exists() and target.samefile(source):
        raise UsageError(f"{target}: is the package itself; say so to replace it (--replace), or give another name")
    check_no_journal(target)
    package = open_package(source)
    require_one_product(package, "a calibration")
    _check_engine(package, options)
    before = Calibration.of_record(_core.read_calibration(package.core))
    rate = options.false_alarm_rate
    if rate is None:
        rate = before.false_alarm_rate if before.calibrated else DEFAULT_FALSE_ALARM_RATE
    required_parts(rate, options.confidence)  # refuses what makes no sense before it reads an image
    normals = find_normal_parts(Path(directory), options.groups, options.layout, options.category)
    check_images(normals.images, progress)
    check_rate(rate, normals.parts, options.confidence)
    hashes = [file_hash(path) for path in normals.images]
    _refuse_copies(package, normals, hashes)
    _refuse_known_parts(package, normals, options)
    scores, map_maxima, watch, patches = _score(package, normals, options, progress)
    notes = [] if options.allow_similar else _refuse_similar(package, normals, watch)
    calibration = calibrate(scores, map_maxima, normals.groups, rate, options.confidence)
    notes += _compared(before, calibration)
    parts = replace(
        take_apart(package, package.core.read("graph.onnx")),
        calibration=calibration,
        calibration_patches=patches.to_array(normals.groups),
    )
    parts = replace(parts, manifest=_manifest(package, calibration, normals, hashes))
    parts = _replayed(package, parts, options)
    package_id = export.package(parts, target, options.engine)
    return CalibrationReport(
        package=str(target),
        package_id=package_id,
        source_id=package.id,
        images=len(normals.images),
        copies=normals.copies,
        parts=calibration.n,
        grouping=normals.grouping,
        false_alarm_rate=rate,
        confidence=calibration.confidence,
        method_before=before.method,
        threshold_before=before.threshold,
        threshold=calibration.threshold,
        map_threshold_before=before.map_threshold,
        map_threshold=calibration.map_threshold,
        realised_rate=realised_rate_interval(calibration.n, rate, confidence=options.confidence),
        notes=tuple(notes),
    )


def _refuse_copies(package: PackageFile, normals: NormalParts, hashes: list[str]) -> None:
    known, names = known_by_bytes(package, hashes), normals.names()
    if known:
        raise InputError(
            f"{len(known)} of {len(names)} images are in the memory bank of {package.path}, byte for byte: "
            f"{listed([names[i] for i in known], SHOWN_LEAKS)}; what the bank has seen scores too low to calibrate: "
            "give images of other parts"
        )


def _refuse_known_parts(package: PackageFile, normals: NormalParts, options: CalibrateOptions) -> None:
    """A part whose other pictures are in the bank scores nearly as low as these."""
    if options.groups is None:
        return
    known = known_by_part(package, options.groups, normals.images, normals.root)
    if known:
        pairs = [f"{name} (group {group})" for name, group in known.items()]
        raise InputError(
            f"{options.groups}: {len(set(known.values()))} of the groups that would calibrate are in the memory bank "
            f"of {package.path}: {listed(pairs, SHOWN_LEAKS)}; give images of other parts"
        )


def _check_engine(package: PackageFile, options: CalibrateOptions) -> None:
    """An export in reduced precision scores as it should in the engine that it was judged on."""
    origin, engine = package.manifest.get("export"), EngineOptions.of(options.engine).name
    exported_for = origin.get("engine") if isinstance(origin, dict) else None
    if exported_for not in (None, engine):
        raise UsageError(
            f"{package.path}: was exported for {exported_for}, where its scores may be others; "
            f"calibrate it with --engine {exported_for}"
        )


def _score(
    package: PackageFile, normals: NormalParts, options: CalibrateOptions, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.float32], LeakWatch, CalibrationPatches]:
    """Scores and largest map values (n,), what the bank has seen of these images, what corrections need of them."""
    session = open_session(package.core, options.engine, options.threads)
    watch, patches = LeakWatch(package), CalibrationPatches()
    scores, map_maxima = (np.zeros(len(normals.images), np.float32) for _ in range(2))
    for i, (path, part) in enumerate(zip(normals.images, normals.groups, strict=True)):
        result = session.run(read_image(path))
        scores[i], map_maxima[i] = result.score, result.map_maximum
        watch.add(part, session.patch_distances(), session.nearest_rows())
        patches.add(session)
        progress("calibration", i + 1, len(normals.images))
    return scores, map_maxima, watch, patches


def _refuse_similar(package: PackageFile, normals: NormalParts, watch: LeakWatch) -> list[str]:
    if not watch.works:
        return [
            "the package does not say which image a bank row is of: only exact copies of bank images were looked for"
        ]
    found, names = watch.leaks(), normals.names()
    data = package.manifest.get("data")
    bank = data.get("bank_images", []) if isinstance(data, dict) else []
    if not found:
        return []
    pairs = [
        f"{names[leak.image]} ({bank[leak.bank_image] if leak.bank_image < len(bank) else 'bank image'}, "
        f"{100 * leak.share:.0f} %)"
        for leak in found
    ]
    raise InputError(
        f"{len(found)} of {len(names)} images look like images in the memory bank of {package.path}, saved again: "
        f"{listed(pairs, SHOWN_LEAKS)}; in brackets the image and how many of its rows are reproduced. What the bank "
        "has seen scores too low to calibrate: give images of other parts, or --allow-similar if they really are"
    )


def _compared(before: Calibration, after: Calibration) -> list[str]:
    """Whether these parts score like those that calibrated the package before, which is what drift and leaks change."""
    if before.cross_conformal:  # scored by other banks
        return []
    advice = "calibrate again when camera, light or parts change"
    if rank_sum_p_value(after.scores, before.scores) < UNLIKELY:
        lower = "these parts score lower than those that calibrated the package before (p < 0.001)"
        return [f"{lower}: a crop or another picture of what is in the bank would, too; {advice}"]
    if rank_sum_p_value(before.scores, after.scores) < UNLIKELY:
        higher = "these parts score higher than those that calibrated the package before (p < 0.001)"
        return [f"{higher}: a threshold from the old ones gives more false alarms here; {advice}"]
    return []


def _manifest(
    package: PackageFile, calibration: Calibration, normals: NormalParts, hashes: list[str]
) -> dict[str, Any]:
    """That of the package, with these images and this calibration. No absolute path: the same input, the same bytes."""
    data = package.manifest.get("data")
    used = {
        "calibration_images": normals.names(),
        "calibration_sha256": hashes,
        "calibration_groups": numbered(normals.groups),
    }
    stored = {
        "method": calibration.method,
        "false_alarm_rate": calibration.false_alarm_rate,
        "parts": calibration.n,
        "images": calibration.image_count,
        "recalibrated_from": package.id,
        **({} if calibration.confidence is None else {"confidence": calibration.confidence}),
    }
    return {**package.manifest, "calibration": stored, "data": {**(data if isinstance(data, dict) else {}), **used}}


def _replayed(package: PackageFile, parts: PackageParts, options: CalibrateOptions) -> PackageParts:
    """With the package's reference images, whose verdicts are those of the new threshold."""
    record = _core.read_parity(package.core)
    parts = replace(parts, relative_tolerance=record["relative_tolerance"])
    view = _core.Package.view(assemble(parts).bytes(), "the package being calibrated")
    session = _core.Session(view, EngineOptions.of(options.engine).resolve(options.threads))
    references = record["images"]
    return replace(parts, parity=tuple(parity_item(session, each["image"], each["color"]) for each in references))


__all__ = ["CalibrateOptions", "CalibrationReport", "calibrate_package"]
