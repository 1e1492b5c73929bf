"""A package for another engine or in another precision, which proves on images that it still inspects as before."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onceover import _core, export
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError, missing_extra
from onceover.export.acceptance import LIMITS, Comparison, Judged, compare, judge, problems
from onceover.export.judging_images import JudgingImages, choose_images
from onceover.images import read_image
from onceover.runtime.assemble import RELATIVE_TOLERANCE, PackageParts, assemble, parity_item
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import PackageFile, open_package, require_one_product
from onceover.runtime.session import EngineOptions, open_session
from onceover.runtime.thumbnails import describe, privacy_note
from onceover.training.dataset import Dataset
from onceover.training.machine_memory import memory_limit
from onceover.training.refit import refit
from onceover.types import Calibration, Image, Tiling

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
HOME = "onnxruntime"  # the engine whose float32 answers are the reference
INT8_TOLERANCE = 0.02  # of the parity replay: integer kernels of other CPUs saturate and round differently
LATENCY_ROUNDS = 40
STATE = ("memory_bank", "bank_index", "bank_neighbors")


@dataclass(frozen=True)
class ExportOptions:
    """calibration: normal images (a folder, or a data set: those of its train and validation splits) that calibrate
    int8. test: what to judge on, labels and masks used where there are any; None: what `choose_images` makes of the
    calibration images. refit: the original training images, for a bank and a threshold of the new features.
    max_memory: of a refit, as of `FitOptions`. force: write what is not accepted, too, and say so inside.
    """

    engine: str | EngineOptions = HOME
    precision: Precision = "float32"
    calibration: Path | None = None
    test: Path | Dataset | None = None
    refit: Path | None = None
    max_memory: int | str | None = None
    threads: int = 1
    force: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One candidate. method: how its graph was made. problems: why not.

    milliseconds: median of whole runs; float32_milliseconds: of the original in the same engine, in turn with it.
    """

    method: str
    size_bytes: int
    milliseconds: float
    float32_milliseconds: float
    comparison: Comparison
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ExportReport:
    """What was tried. original: size and median ms in float32 on the reference engine, and on the target engine.

    thumbnails: what to know of the pictures that were taken over; None where there are none. adapted: to the product.
    """

    package: str
    package_id: str | None  # of what was written; None: refused
    engine: str
    precision: str
    refitted: bool
    images: str
    original_bytes: int
    home_milliseconds: float
    float32_milliseconds: float
    attempts: tuple[Attempt, ...]
    forced: bool
    thumbnails: str | None = None
    adapted: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the last attempt keeps what it must."""
        return bool(self.attempts) and not self.attempts[-1].problems

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes null."""
        attempts = [{**vars(attempt), "comparison": attempt.comparison.to_dict()} for attempt in self.attempts]
        return {**vars(self), "attempts": attempts, "accepted": self.accepted}


@dataclass
class _Export:
    """One export: what its steps share."""

    package: PackageFile
    options: ExportOptions
    images: JudgingImages
    progress: Progress
    folder: Path  # for candidates
    original: Judged = field(init=False)
    engine: EngineOptions = field(init=False)

    def __post_init__(self) -> None:
        self.engine = EngineOptions.of(self.options.engine)
        self.original = self._judged(Path(self.package.path), HOME)

    def _judged(self, path: Path, engine: str | EngineOptions) -> Judged:
        return judge(path, engine, self.images.test, self.options.threads, self.progress)

    def graphs(self) -> Iterator[tuple[str, bytes]]:
        """(method, graph) to try, the boldest first; the ladder of int8 goes on only as long as it must."""
        graph = self.package.core.read("graph.onnx")
        if self.options.precision == "float32":
            yield "the same graph", graph
            return
        try:
            from onceover.export.to_int8 import ladder, quantize, quantized_share, store_float16
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "onnx", "int8", f"the precision {self.options.precision}") from error
        if self.options.precision == "float16":
            yield "weights stored in float16", store_float16(graph)
            return
        inputs = self._network_inputs()
        adapted = any(member.name == "adaptation" for member in self.package.members)
        adaptation = self.package.core.array("adaptation") if adapted else None
        for rung in ladder(graph, inputs, self.progress, adaptation):
            self.progress(f"int8: {rung.name}", 0, 1)
            quantized = quantize(graph, inputs, self.engine.name, rung.excluded, self.folder / "ranges.json")
            yield "int8: {}, {} of {} layers".format(rung.name, *quantized_share(quantized)), quantized

    def _network_inputs(self) -> list[NDArray[np.float32]]:
        """The calibration images as the session prepares them, (1, 3, H, W) each."""
        session = open_session(self.package.core, HOME, self.options.threads)
        prepared = (session.prepare(read_image(path)) for path in self.images.calibration)  # (tiles, 3, H, W)
        return [np.ascontiguousarray(tile[None]) for tiles in prepared for tile in tiles]

    def parts(self, graph: bytes, method: str) -> PackageParts:
        """A package of this graph, its answers for the reference images those of the target engine."""
        options = self.options
        if options.refit is None:
            parts = take_apart(self.package, graph)
            if self.options.precision != "float32":
                parts = replace(parts, gate=None)  # of features that the new graph does not give, and judged by nothing
        else:
            parts = refit(
                self.package, graph, options.refit, self.engine, options.threads, self.progress, options.max_memory
            )
        tolerance = INT8_TOLERANCE if self.options.precision == "int8" else RELATIVE_TOLERANCE
        origin: dict[str, Any] = {"engine": self.engine.name, "precision": self.options.precision, "method": method}
        origin |= {"from": self.package.id, "refitted": self.options.refit is not None}
        parts = replace(parts, relative_tolerance=tolerance, manifest={**parts.manifest, "export": origin})
        return replace(parts, parity=self._replayed(parts))

    def _replayed(self, parts: PackageParts) -> tuple[_core.ParityItem, ...]:
        references = _core.read_parity(self.package.core)["images"]
        view = _core.Package.view(assemble(parts).bytes(), "the package being exported")
        session = _core.Session(view, self.engine.resolve(self.options.threads))
        return tuple(parity_item(session, reference["image"], reference["color"]) for reference in references)

    def attempt(self, method: str, parts: PackageParts) -> Attempt:
        """The candidate judged on the target engine."""
        path = self.folder / "candidate.onceover"
        path.write_bytes(assemble(parts).bytes())
        found = compare(self.original, self._judged(path, self.engine))
        said = problems(found, LIMITS[self.options.precision])
        candidate, float32 = self._milliseconds((path, self.engine), (Path(self.package.path), self.engine))
        return Attempt(method, path.stat().st_size, candidate, float32, found, tuple(said))

    def float32_milliseconds(self) -> list[float]:
        """Of the original, on the reference engine and on the target."""
        path = Path(self.package.path)
        return self._milliseconds((path, HOME), (path, self.engine))

    def _milliseconds(self, *runs: tuple[Path, str | EngineOptions]) -> list[float]:
        return median_milliseconds(runs, read_image(self.images.test.test[0].path), self.options.threads)


def median_milliseconds(
    runs: Sequence[tuple[Path, str | EngineOptions]], image: Image, threads: int = 1
) -> list[float]:
    """Of a whole run of each package in its engine on one image, all of them in turn, LATENCY_ROUNDS times."""
    inspectors = [Inspector.open(path, engine, threads, corrections=None) for path, engine in runs]
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(LATENCY_ROUNDS):
        for inspector, taken in zip(inspectors, times, strict=True):
            taken.append(inspector.inspect(image, map_size=image.shape[:2]).timing.total_ms)
    return [statistics.median(taken) for taken in times]


def export_package(
    source: str | os.PathLike[str],
    output: Path,
    options: ExportOptions | None = None,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write `source` for another engine or precision to `output`, another file, if it still inspects as before.

    The reference is the package in float32 on ONNX Runtime. int8 climbs down a ladder, from every layer quantized to
    ever fewer, and stops at the first that is accepted (export/acceptance.py). What is refused is not written, unless
    forced; the report tells all attempts. Raises UsageError for images that are in the memory bank or on both sides,
    InputError, EngineError, MissingExtraError, and what `export.package` raises.
    """
    options = options or ExportOptions()
    if options.precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {options.precision!r}")
    if options.max_memory is not None and options.refit is None:
        raise UsageError("--max-memory is for a refit: give the training images (--refit DIR), too, or leave it out")
    memory_limit(options.max_memory)  # refuses what is no size before anything is judged
    if output.exists() and output.samefile(source):
        raise UsageError(f"{output}: is the package itself, which the export is compared with; give another name")
    package = open_package(source)
    require_one_product(package, "an export")
    origin = package.manifest.get("export")
    if isinstance(origin, dict) and origin.get("precision", "float32") != "float32":
        raise InputError(f"{package.path}: is an export in reduced precision itself; give the package it was made from")
    with tempfile.TemporaryDirectory() as scratch:
        images = choose_images(package, options.calibration, options.test, Path(scratch), options.seed)
        if options.precision == "int8" and not images.calibration:
            raise UsageError("int8 needs --calibration DIR: normal images that are neither in the bank nor in the test")
        job = _Export(package, options, images, progress, Path(scratch))
        home, float32 = job.float32_milliseconds()
        attempts: list[Attempt] = []
        candidates: list[PackageParts] = []
        for method, graph in job.graphs():
            parts = job.parts(graph, method)
            attempts.append(job.attempt(method, parts))
            candidates.append(parts)
            if not attempts[-1].problems:
                break
        if attempts[-1].problems:  # the best of them comes last
            best = max(range(len(attempts)), key=lambda i: np.nan_to_num(attempts[i].comparison.spearman, nan=-1.0))
            attempts.append(attempts.pop(best))
            candidates.append(candidates.pop(best))
        written = None
        if not attempts[-1].problems or options.force:
            written = export.package(_judged_parts(candidates[-1], attempts[-1], images), output, options.engine)
    return ExportReport(
        package=str(output),
        package_id=written,
        engine=EngineOptions.of(options.engine).name,
        precision=options.precision,
        refitted=options.refit is not None,
        images=images.describe(),
        original_bytes=os.stat(source).st_size,
        home_milliseconds=home,
        float32_milliseconds=float32,
        attempts=tuple(attempts),
        forced=bool(attempts[-1].problems) and options.force,
        thumbnails=None if candidates[-1].thumbnails is None else privacy_note(describe(candidates[-1].thumbnails)),
        adapted=candidates[-1].adaptation is not None,
    )


def _judged_parts(parts: PackageParts, attempt: Attempt, images: JudgingImages) -> PackageParts:
    """The package says how it was judged, and whether against advice."""
    judged = {**attempt.comparison.to_dict(), "on": images.describe(), "problems": list(attempt.problems)}
    origin = {**parts.manifest["export"], "accepted": not attempt.problems, "judged": judged}
    return replace(parts, manifest={**parts.manifest, "export": origin})


def take_apart(package: PackageFile, graph: bytes) -> PackageParts:
    """The parts of a package, with another graph, and without its reference images: their answers may change."""
    core, names = package.core, {member.name for member in package.members}
    return PackageParts(
        graph=graph,
        spec=read_graph_spec(graph, package.path),
        blur_sigma=_core.read_config(core).blur_sigma,
        state={name: core.array(name) for name in STATE if name in names},
        calibration=Calibration.of_record(_core.read_calibration(core)),
        parity=(),
        manifest=package.manifest,
        bank_source=core.array("bank_source") if "bank_source" in names else None,
        thumbnails=core.read("thumbnails") if "thumbnails" in names else None,
        tiling=Tiling(*_core.read_config(core).tiling),
        roi=core.array("roi") if "roi" in names else None,
        adaptation=core.array("adaptation") if "adaptation" in names else None,
        position_weights=core.array("position_weights") if "position_weights" in names else None,
        gate=core.read("gate") if "gate" in names else None,
        calibration_patches=core.array("calibration_patches") if "calibration_patches" in names else None,
    )


__all__ = [
    "PRECISIONS",
    "Attempt",
    "ExportOptions",
    "ExportReport",
    "export_package",
    "median_milliseconds",
    "take_apart",
]
