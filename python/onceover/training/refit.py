"""A fitted package and another graph → the same fit again: the same images and patches, with the new features.

The recommended way to change precision: the memory bank then holds what the new graph answers, and the threshold is
calibrated on it. The bank keeps the patches that it had, and embeddings are adapted as they were: a coreset or a matrix
made anew is as good, but another one, which moves scores more than int8 does (magnetic tile: Spearman 0.98 instead of
0.99 and more).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors import BankSize
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, PackageError, UsageError
from onceover.file_hash import file_hash
from onceover.images import list_images
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, config_of
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.package import PackageFile, require_one_product
from onceover.runtime.session import EngineOptions
from onceover.training.adapter import Adaptation
from onceover.training.adapting import most_images
from onceover.training.dataset import listed
from onceover.training.fit import FitOptions, FitPlan, with_memory
from onceover.training.fit_job import FitJob
from onceover.training.machine_memory import memory_limit
from onceover.training.memory_plan import REFIT_REMEDY
from onceover.types import GraphSpec, Tiling


def refit(
    package: PackageFile,
    graph: bytes,
    directory: Path,
    engine: str | EngineOptions = "onnxruntime",
    threads: int = 1,
    progress: Progress = no_progress,
    max_memory: int | str | None = None,
) -> PackageParts:
    """Fit again on the images of the package, which are found below `directory` by their SHA-256, with `graph`.

    max_memory: as of `FitOptions`. Raises InputError when images are missing, or when the package does not say what it
    was fitted on; MemoryLimitError before anything expensive, also where folds score each other and not all patches can
    be held.
    """
    limit = memory_limit(max_memory)
    require_one_product(package, "a refit")
    if "compacted" in package.manifest:
        raise UsageError(
            f"{package.path}: has corrections inside, whose images nobody kept; refit the package it was made of and "
            "correct that one, or fit with the images that raised false alarms"
        )
    data, detector = _section(package, "data"), _section(package, "detector")
    bank, calibration = find_images(package, directory, progress)
    spec = read_graph_spec(graph, package.path)
    stored = _core.read_calibration(package.core)
    rows = int(detector["bank_rows"])
    config, tiling, roi = _field_of_view(package, spec)
    patches = config.feature_count if roi is None else len(config.features_inside(roi))
    members = {member.name for member in package.members}
    groups, folds = tuple(str(group) for group in data["calibration_groups"]), _folds(package)
    plan = FitPlan(
        bank_images=tuple(bank),
        calibration_images=tuple(calibration),
        calibration_groups=groups,
        false_alarm_rate=float(stored["false_alarm_rate"]) or 1.0 / (len(calibration) + 2),
        patch_count=len(bank) * patches,
        embedding_dim=spec.embedding_dim,
        bank_rows=rows,
        bank_groups=groups if folds else tuple(map(str, bank)),  # nothing is learned of how parts differ, but by folds
        copies={},
        folds=folds,
        tiling=tiling,
        roi=roi,
        inspected=patches / config.feature_count,
        # The matrix of all is in the package; those without one fold are not.
        adapting_images=min(len(bank), most_images(config)) if folds and "adaptation" in members else 0,
        weighs_positions="position_weights" in members and folds > 0,
    )
    options = FitOptions(
        detector=str(detector["name"]),
        coreset="random" if detector["coreset"] == "random" else "greedy",  # which has another label from a stream
        bank=BankSize(rows=rows),
        seed=int(package.manifest["seed"]),
        blur_sigma=float(_core.read_config(package.core).blur_sigma),
        engine=engine,
        threads=threads,
    )
    chosen = _chosen(package)
    adapted = "adaptation" in members
    plan = with_memory(plan, graph, spec, options, limit, greedy=chosen is None, refit=True, adapted=adapted)
    plan.require_all_patches(REFIT_REMEDY)
    # Of two copies of an image that are one file here, one name is used; the package keeps what it said.
    names = dict(zip((*bank, *calibration), (*data["bank_images"], *data["calibration_images"]), strict=True))
    name, adaptation = str(package.manifest["name"]), _adaptation(package)
    weights = package.core.array("position_weights") if "position_weights" in members else None
    parts = FitJob(graph, spec, plan, options, names, name, progress, chosen, adaptation, weights).run()
    has_pictures = thumbnails.MEMBER in members
    # An older package has the matrix inside its graph.
    keys = ["choice", *(["thumbnails"] if has_pictures else []), *([] if "adaptation" in members else ["adaptation"])]
    kept = {key: package.manifest[key] for key in keys if key in package.manifest}
    if chosen is not None:  # how the patches came to be chosen
        facts = {key: detector[key] for key in ("coreset", "sample_patches") if key in detector}
        kept["detector"] = {**parts.manifest["detector"], **facts}
    pictures = package.core.read(thumbnails.MEMBER) if has_pictures else None  # of the same images
    return replace(parts, manifest={**parts.manifest, "data": data, **kept}, thumbnails=pictures)


def _adaptation(package: PackageFile) -> Adaptation | None:
    if all(member.name != "adaptation" for member in package.members):
        return None
    record = package.manifest.get("adaptation")
    return Adaptation(package.core.array("adaptation"), record if isinstance(record, dict) else {})


def _folds(package: PackageFile) -> int:
    """Of a cross-conformal calibration, whose images are those of the bank; 0 where parts were held out."""
    stored = package.manifest.get("calibration")
    folds = stored.get("folds", 0) if isinstance(stored, dict) else 0
    return folds if isinstance(folds, int) and folds >= 2 else 0


def _field_of_view(package: PackageFile, spec: GraphSpec) -> tuple[_core.Config, Tiling, NDArray[np.uint8] | None]:
    """The config of a package, its tiles and its region of interest."""
    stored = _core.read_config(package.core)
    tiling = Tiling(*stored.tiling)
    roi = package.core.array("roi") if any(member.name == "roi" for member in package.members) else None
    return config_of(spec, stored.blur_sigma, tiling), tiling, roi


def _chosen(package: PackageFile) -> NDArray[np.int64] | None:
    """(M,): the patches of the bank, counted over those that are learned from; None where that was not kept."""
    if all(member.name != "bank_source" for member in package.members):
        return None
    config = _core.read_config(package.core)
    source = package.core.array("bank_source").astype(np.int64)  # (M, 2): image, patch
    patches = np.arange(config.feature_count)
    if any(member.name == "roi" for member in package.members):
        patches = config.features_inside(package.core.array("roi"))
    number = np.searchsorted(patches, source[:, 1])
    if (number == len(patches)).any() or (patches[np.minimum(number, len(patches) - 1)] != source[:, 1]).any():
        raise PackageError(f"{package.path}: member 'bank_source' names patches that are not inspected; fit again")
    chosen: NDArray[np.int64] = source[:, 0] * len(patches) + number
    return chosen


def find_images(
    package: PackageFile, directory: Path, progress: Progress = no_progress
) -> tuple[list[Path], list[Path]]:
    """The bank images and the calibration images of the package, in its order; InputError that names missing ones.

    A file that stands twice in the package, as two copies of one image, is taken twice where there are two.
    """
    data = _section(package, "data")
    found: dict[str, list[Path]] = {}
    images = list_images(directory)
    for i, path in enumerate(images):
        found.setdefault(file_hash(path), []).append(path)
        progress("looking for the training images", i + 1, len(images))
    chosen, missing, taken = [], [], Counter[str]()
    wanted = (*data["bank_sha256"], *data["calibration_sha256"])
    for name, sha256 in zip((*data["bank_images"], *data["calibration_images"]), wanted, strict=True):
        paths = found.get(sha256, [])
        if not paths:
            missing.append(str(name))
        else:
            chosen.append(paths[min(taken[sha256], len(paths) - 1)])
            taken[sha256] += 1
    if missing:
        raise InputError(
            f"{directory}: {len(missing)} of {len(wanted)} images that {package.path} was fitted on are not here "
            f"(compared by SHA-256): {listed(missing)}; give the folder of the original images"
        )
    count = len(data["bank_sha256"])
    return chosen[:count], chosen[count:]


def used_images(package: PackageFile) -> tuple[set[str], set[str]]:
    """SHA-256 of the images in the bank, and of those that calibrated; empty where the package does not say."""
    data = package.manifest.get("data")
    data = data if isinstance(data, dict) else {}
    return set(_texts(data.get("bank_sha256"))), set(_texts(data.get("calibration_sha256")))


def _texts(values: Any) -> Sequence[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _section(package: PackageFile, name: str) -> dict[str, Any]:
    """A part of the manifest that `FitJob` wrote."""
    needed = {
        "data": {"bank_images", "bank_sha256", "calibration_images", "calibration_sha256", "calibration_groups"},
        "detector": {"name", "coreset", "bank_rows"},
    }[name]
    found = package.manifest.get(name)
    section: dict[str, Any] = found if isinstance(found, dict) else {}
    complete = needed <= set(section) and {"name", "seed"} <= set(package.manifest)
    if not complete or (name == "data" and not _one_of_each(section)):
        raise InputError(
            f"{package.path}: its manifest does not say what it was fitted on ({name}); fit it with this version first"
        )
    return section


def _one_of_each(data: dict[str, Any]) -> bool:
    """A name and a hash for every image, and a group where it calibrated."""
    sizes = [
        [len(data[f"{role}_{what}"]) if isinstance(data[f"{role}_{what}"], list) else -1 for what in facts]
        for role, facts in (("bank", ("images", "sha256")), ("calibration", ("images", "sha256", "groups")))
    ]
    return all(len(set(counts)) == 1 and counts[0] >= 0 for counts in sizes)


__all__ = ["find_images", "refit", "used_images"]
