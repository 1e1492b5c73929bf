"""The one loop: folder of good images → patch embeddings → detector → calibration → parity record → package parts.

Everything is computed by the C++ session that the device will run, so nothing here can differ from deployment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors import BankSize, create_detector
from onceover.detectors.detector import Detector, Progress, no_progress
from onceover.errors import InputError, MemoryLimitError, UsageError
from onceover.images import list_images, read_image
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, assemble, config_of, parity_item, uncalibrated
from onceover.runtime.graph import DEFAULT_BACKBONE, load_graph
from onceover.runtime.reasons import owners
from onceover.runtime.session import EngineOptions
from onceover.training.adapting import adapt
from onceover.training.calibrate import DEFAULT_FALSE_ALARM_RATE, calibrate, check_validation, plan_holdout
from onceover.training.choosing import AUTO, Choice, choose_network
from onceover.training.cross_conformal import cross_scores, fold_of_images, planned_folds
from onceover.training.dataset import (
    dataset_folders,
    file_hash,
    fitting_layouts,
    join_copies,
    read_dataset,
    read_groups,
    relative_path,
    split_holdout,
)
from onceover.training.field import TilingOptions, check_roi, read_roi
from onceover.training.gate import fit_gate, gate_threshold
from onceover.training.image_patches import ImagePatches
from onceover.training.input_size import SIZES, InputSize
from onceover.training.machine_memory import memory_limit
from onceover.training.memory_plan import THUMBNAIL_PIXEL_BYTES, FitSize, MemoryPlan, plan_memory, probe
from onceover.training.references import choose_references
from onceover.types import ONE_TILE, GraphSpec, Image, Tiling


@dataclass(frozen=True)
class FitOptions:
    """What fit may be told; every default is a decision of the docs.

    false_alarm_rate: None means 5 % if the data can support it, else an uncalibrated package; an explicit rate that
    the data cannot support is refused. holdout: share (float) or number (int) of parts held out for calibration; None:
    a fifth or more; where that is too few for the rate, but all parts are enough, `training.cross_conformal`.
    groups: CSV (file, group) of images that show the same part. layout, category: as for `read_dataset`; of a data set
    only the normal images of train are learned from, of any other folder all images. A data set's own validation split
    calibrates, unless holdout is given. backbone "auto": the best embedded one whose network and preparation of an
    image, of the size of the first, take at most budget_ms on this machine (`training.choosing`). size: side of the
    square input of a backbone that is resizable; None: chosen from what the images show (`training.input_size`), or the
    smallest for tiles. thumbnails: longest side in pixels of pictures of the bank's images to store; None, the default,
    stores none, for whoever has the package would see them (`runtime.thumbnails`). roi: what to inspect, a file (mask
    or polygon, `training.field.read_roi`) or an array (H, W) over the image, nonzero inside; a patch that overlaps it
    at all is inspected. tiling: how large images are cut.
    adapt: measure distances as the product's own images suggest (`training.adapting`).
    max_memory: bytes, or text like "2GiB", that the whole process may take; None: a share of what is free here. Where
    the patches of all images do not fit, the greedy coreset is selected from a stream, and labelled so.
    """

    backbone: str | Path | bytes = DEFAULT_BACKBONE
    detector: str = "patchcore"
    coreset: str = "greedy"
    bank: BankSize = BankSize()
    false_alarm_rate: float | None = None
    holdout: float | int | None = None
    groups: Path | None = None
    layout: str = "auto"
    category: str | None = None
    seed: int = 0
    blur_sigma: float = 4.0
    engine: str | EngineOptions = "onnxruntime"
    threads: int = 1
    name: str | None = None
    budget_ms: float | None = None
    size: int | None = None
    thumbnails: int | None = None
    roi: Path | NDArray[Any] | None = field(default=None, hash=False)
    tiling: TilingOptions | None = None
    adapt: bool = False
    max_memory: int | str | None = None


@dataclass(frozen=True)
class FitPlan:
    """What fit will do, known before it starts, so that it can be shown and refused."""

    bank_images: tuple[Path, ...]
    calibration_images: tuple[Path, ...]
    calibration_groups: tuple[str, ...]  # of calibration_images, one each
    false_alarm_rate: float
    patch_count: int
    embedding_dim: int
    bank_rows: int
    copies: int  # images that are byte for byte like an earlier one
    layout: str = ""  # of the data set they are the train images of; empty for an ordinary folder
    choice: Choice | None = None  # of backbone "auto"
    input_size: InputSize | None = None  # where it was chosen
    tiling: Tiling = ONE_TILE
    image_size: tuple[int, int] | None = None  # of the first image, where tiles or a region depend on it
    roi: NDArray[np.uint8] | None = field(default=None, hash=False)
    inspected: float = 1.0  # share of the patches that the region leaves
    adaptation: Mapping[str, Any] | None = None  # what the manifest says of it, once it is done
    memory: MemoryPlan | None = None  # what it will cost; None: not asked, all patches are held
    folds: int = 0  # cross-conformal: bank and calibration images are the same; 0: they have no part in common

    @property
    def streaming(self) -> bool:
        """Whether patches pass image by image instead of being held."""
        return self.memory is not None and self.memory.streaming

    @property
    def bank_mb(self) -> float:
        return self.bank_rows * self.embedding_dim * 4 / 1e6


def plan_fit(directory: Path, spec: GraphSpec, options: FitOptions, progress: Progress = no_progress) -> FitPlan:
    """Which images go where; raises InputError or UsageError before any work is done."""
    if options.seed < 0:
        raise UsageError(f"seed is {options.seed}; give a whole number from 0")
    if options.thumbnails is not None:
        thumbnails.check_side(options.thumbnails)
    images, official, layout = _find_images(directory, options)
    everything = images + official
    groups = {path: str(path) for path in everything}
    if options.groups:
        groups = read_groups(options.groups, everything, _folder(directory))
    groups, copies = join_copies(everything, groups, progress)
    explicit, folds = options.false_alarm_rate is not None, 0
    rate = DEFAULT_FALSE_ALARM_RATE if options.false_alarm_rate is None else options.false_alarm_rate
    if official:
        in_bank = {groups[path] for path in images}
        bank, calibration = images, [path for path in official if groups[path] not in in_bank]
        check_validation(len({groups[path] for path in calibration}), rate, explicit)
    # What adapting learns, it learns from all bank images: no fold would be new to it.
    elif not options.adapt and (folds := planned_folds(len(set(groups.values())), rate, options.holdout)):
        bank, calibration = images, images
    else:
        held_out = plan_holdout(len(set(groups.values())), rate, explicit, options.holdout)
        bank, calibration = split_holdout(images, groups, held_out, options.seed)
    field_of_view = _field_of_view(everything[0], spec, options)
    patch_count = len(bank) * field_of_view.pop("patches")
    return FitPlan(
        bank_images=tuple(bank),
        calibration_images=tuple(calibration),
        calibration_groups=tuple(groups[path] for path in calibration),
        false_alarm_rate=rate,
        patch_count=patch_count,
        embedding_dim=spec.embedding_dim,
        bank_rows=options.bank.resolve(patch_count, spec.embedding_dim),
        copies=copies,
        layout=layout,
        folds=folds,
        **field_of_view,
    )


def _field_of_view(image: Path, spec: GraphSpec, options: FitOptions) -> dict[str, Any]:
    """Of the plan: tiling, roi, image_size, inspected; and the patches of an image that are learned from."""
    size = None if options.tiling is None and not isinstance(options.roi, Path) else read_image(image).shape[:2]
    tiling = ONE_TILE if options.tiling is None else options.tiling.resolve(spec, size or (0, 0))
    roi = options.roi
    if roi is not None:
        roi = read_roi(roi, size or (0, 0)) if isinstance(roi, Path) else check_roi(roi)
    config = config_of(spec, options.blur_sigma, tiling)
    patches = config.feature_count if roi is None else len(config.features_inside(roi))
    inspected = patches / config.feature_count
    return {"tiling": tiling, "roi": roi, "image_size": size, "inspected": inspected, "patches": patches}


def _find_images(directory: Path, options: FitOptions) -> tuple[list[Path], list[Path], str]:
    """Normal images to learn from, those of an official validation split, and the layout (empty: an ordinary folder).

    The validation split calibrates, unless a holdout of the train images is asked for.
    """
    in_a_dataset = options.layout != "auto" or options.category is not None
    if not in_a_dataset and not fitting_layouts(directory) and not dataset_folders(directory):
        return list_images(directory), [], ""
    dataset = read_dataset(directory, options.layout, options.category)
    if not dataset.train:
        raise InputError(f"{directory}: no normal images in train (layout {dataset.layout}); give a folder of them")
    official = dataset.validation if options.holdout is None else ()
    return [sample.path for sample in dataset.train], [sample.path for sample in official], dataset.layout


def _folder(directory: Path) -> Path:
    """What paths of the manifest and of groups are relative to: a table's paths begin beside it."""
    return directory.parent if directory.is_file() else directory


def fit(
    directory: str | os.PathLike[str],
    options: FitOptions | None = None,
    progress: Progress = no_progress,
    on_plan: Callable[[FitPlan], None] | None = None,
) -> PackageParts:
    """Fit on a folder of images of good parts, or on the train images of a data set in any layout.

    on_plan is told what will happen before anything expensive does; it may raise to stop.
    Returns the parts of a package; `onceover.export.package` writes and verifies it. Raises InputError (nothing or
    nothing usable in the folder), UsageError (an impossible rate, size or budget), UnknownNameError, EngineError,
    MemoryLimitError (before anything expensive).
    """
    options, folder = options or FitOptions(), Path(directory)
    limit = memory_limit(options.max_memory)
    found, _, _ = _find_images(folder, options)
    network = choose_network(
        found, options.backbone, options.budget_ms, _input_side(options), options.engine, options.threads, progress
    )
    graph, spec = network.graph, network.spec
    plan = with_memory(plan_fit(folder, spec, options, progress), graph, spec, options, limit)
    plan = replace(plan, choice=network.choice, input_size=network.input_size)
    if plan.folds and plan.streaming:
        raise MemoryLimitError(
            f"{len(plan.bank_images)} images are calibrated across folds, which takes all patches at once; allow "
            "more with --max-memory, or hold parts out with --holdout"
        )
    if on_plan is not None:
        on_plan(plan)
    if options.adapt:
        engine = EngineOptions.of(options.engine).resolve(options.threads)
        adapted = adapt(graph, spec, plan.bank_images, options.seed, engine, progress)
        graph, plan = adapted.graph, replace(plan, adaptation=adapted.record)
    images = (*plan.bank_images, *plan.calibration_images)
    names = {path: relative_path(path, _folder(folder)) for path in images}
    product = options.name or options.category or product_name(folder)
    return FitJob(graph, spec, plan, options, names, product, progress).run()


def _input_side(options: FitOptions) -> int | None:
    """Of the network input, where it is not to be chosen: tiles, not a larger input, show the detail of an image."""
    if options.size is not None or options.tiling is None:
        return options.size
    resizable = options.backbone == AUTO or load_graph(options.backbone)[1].resizable
    return SIZES[0] if resizable else None


def with_memory(
    plan: FitPlan,
    graph: bytes,
    spec: GraphSpec,
    options: FitOptions,
    limit: tuple[int | None, str],
    greedy: bool = True,
) -> FitPlan:
    """The plan with what it will cost here, measured on a few images; MemoryLimitError where that is too much.

    greedy: whether a coreset is to be selected by distances.
    """
    found = probe(spec, graph, EngineOptions.of(options.engine).resolve(options.threads), plan.bank_images)
    greedy = greedy and options.coreset == "greedy"
    pictures = 0
    if options.thumbnails is not None:
        pictures = min(plan.bank_rows, len(plan.bank_images)) * int(THUMBNAIL_PIXEL_BYTES * options.thumbnails**2)
    counts = (len(plan.bank_images), len(plan.calibration_images))
    size = FitSize(*counts, plan.bank_rows, len(graph) + pictures, greedy, plan.patch_count // len(plan.bank_images))
    found = replace(found, image_s=found.image_s * plan.tiling.count)  # of one tile
    return replace(plan, memory=plan_memory(spec, size, limit, found))


# Image scores and largest map values, float32 (n,) each, and distances to the gate, 0 without one.
Scored = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


class FitJob:
    """One fit: what its steps share. names: what the manifest calls the images.

    chosen: patches of an earlier fit that make the bank again; None: the detector chooses.
    """

    def __init__(
        self,
        graph: bytes,
        spec: GraphSpec,
        plan: FitPlan,
        options: FitOptions,
        names: Mapping[Path, str],
        product: str,
        progress: Progress,
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        self.chosen = chosen
        self.graph, self.spec, self.plan = graph, spec, plan
        self.options, self.names, self.product = options, names, product
        self.progress = progress
        self.config = config_of(spec, options.blur_sigma, plan.tiling)
        # (n,): the patches of an image that are learned from, tile after tile
        self.patches: NDArray[np.int64] = (
            np.arange(self.config.feature_count) if plan.roi is None else self.config.features_inside(plan.roi)
        )
        self.engine = EngineOptions.of(options.engine).resolve(options.threads)
        self.detector = create_detector(options.detector, options.bank, options.coreset, options.seed)

    def run(self) -> PackageParts:
        embeddings, hashes = self._learn()
        crossed = self._cross_scores(embeddings) if embeddings is not None else None
        del embeddings
        parts = replace(self._uncalibrated_parts(self.detector), bank_source=self._bank_source())
        images = self.plan.calibration_images
        # A gate needs parts that it was not fitted on; across folds there are none.
        gate = fit_gate(self.pooled) if len(self.pooled) > 1 and images and crossed is None else None
        session = self._session(replace(parts, gate=None if gate is None else gate.to_bytes()))
        scores, map_maxima, distances = crossed or self._score(session, images, gate is not None, self.progress)
        groups, rate = list(self.plan.calibration_groups), self.plan.false_alarm_rate
        calibration = replace(calibrate(scores, map_maxima, groups, rate), cross_conformal=crossed is not None)
        parts = replace(parts, calibration=calibration)
        if gate is not None:
            told = replace(gate, threshold=gate_threshold(distances), part_count=len(set(groups)))
            parts = replace(parts, gate=told.to_bytes())
        session = self._session(parts)
        parity = tuple(parity_item(session, image) for image in self._reference_images(scores))
        parts = replace(parts, parity=parity, thumbnails=self._thumbnails(parts.bank_source))
        return replace(parts, manifest=self._manifest(parts, hashes))

    def _new_detector(self, rows: int) -> Detector:
        return create_detector(self.options.detector, BankSize(rows=rows), self.options.coreset, self.options.seed)

    def _uncalibrated_parts(self, detector: Detector) -> PackageParts:
        return PackageParts(
            graph=self.graph,
            spec=self.spec,
            blur_sigma=self.options.blur_sigma,
            state=detector.state(),
            calibration=uncalibrated(),
            parity=(),
            manifest={},
            tiling=self.plan.tiling,
            roi=self.plan.roi,
        )

    def _cross_scores(self, embeddings: NDArray[np.float32]) -> Scored:
        """Of all images, each by the session of a bank without its fold (training/cross_conformal.py)."""
        plan = self.plan

        def score(detector: Detector, images: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            session = self._session(self._uncalibrated_parts(detector))
            return self._score(session, [plan.bank_images[i] for i in images], gated=False)[:2]

        fold_of = fold_of_images(plan.calibration_groups, plan.folds, self.options.seed)
        scores, maxima = cross_scores(embeddings, fold_of, plan.bank_rows, self._new_detector, score, self.progress)
        return scores, maxima, np.zeros(len(scores))

    def _session(self, parts: PackageParts) -> _core.Session:
        package = _core.Package.view(assemble(parts).bytes(), "the package being fitted")
        return _core.Session(package, self.engine)

    def _learn(self) -> tuple[NDArray[np.float32] | None, list[str]]:
        """The detector's fit on the bank images, in memory or as a stream.

        Returns their embeddings (n·P, D) where folds will score each other, and the SHA-256 of each file.
        """
        images = ImagePatches(self.plan.bank_images, self.graph, self.config, self.engine, self.patches)
        self.pooled = images.pooled  # filled as they are embedded
        if self.plan.memory is not None and self.plan.memory.streaming:
            self.detector.stream(images, self.plan.memory.sample_images, self.chosen, self.progress)
            return None, images.hashes
        embeddings = images.all(self.progress)
        if self.chosen is None:
            self.detector.fit(embeddings, self.progress)
        else:
            self.detector.refit(embeddings, self.chosen, self.progress)
        return embeddings if self.plan.folds else None, images.hashes

    def _bank_source(self) -> NDArray[np.uint32] | None:
        """(M, 2): image and patch of every bank row, for detectors that keep patches."""
        chosen = self.detector.chosen
        if chosen is None:
            return None
        image, number = divmod(chosen, len(self.patches))
        return np.stack([image, self.patches[number]], axis=1).astype(np.uint32)

    def _thumbnails(self, source: NDArray[np.uint32] | None) -> bytes | None:
        """Pictures of the images that own a bank row, if asked for. The files are read again: few own none."""
        side = self.options.thumbnails
        if side is None or source is None:
            return None
        pictures, images = {}, owners(source)
        for i, image in enumerate(images):
            pictures[image] = thumbnails.make_thumbnail(read_image(self.plan.bank_images[image]), side)
            self.progress("thumbnails", i + 1, len(images))
        return thumbnails.pack(pictures, side)

    def _score(
        self, session: _core.Session, images: Sequence[Path], gated: bool, progress: Progress = no_progress
    ) -> Scored:
        """Image scores, map maxima and, where there is a gate, its distances of images that are not in the bank."""
        scores = np.zeros(len(images), np.float32)
        map_maxima = np.zeros(len(images), np.float32)
        distances = np.zeros(len(images))
        session.select(None if gated else 0)
        for i, path in enumerate(images):
            result = session.run(read_image(path))
            scores[i], map_maxima[i], distances[i] = result.score, result.map_maximum, result.gate_ratio
            progress("calibration", i + 1, len(images))
        return scores, map_maxima, distances

    def _reference_images(self, scores: NDArray[np.float32]) -> list[Image]:
        """For the parity record: of the held-out images, or of the bank's when there are none."""
        plan = self.plan
        paths: Sequence[Path] = plan.calibration_images or plan.bank_images
        return choose_references(paths, scores, self.spec.preprocessing, plan.tiling)

    def _manifest(self, parts: PackageParts, hashes: list[str]) -> dict[str, Any]:
        """Provenance for people and Python. No time and no absolute path: the same input gives the same bytes."""
        calibration, plan = parts.calibration, self.plan
        return {
            "name": self.product,
            "onceover": _core.__version__,
            "backbone": asdict(self.spec),
            "detector": self.detector.describe(),
            "calibration": {
                "method": calibration.method,
                **({"folds": plan.folds} if plan.folds else {}),
                "false_alarm_rate": plan.false_alarm_rate if calibration.calibrated else None,
                "parts": calibration.n,
                "images": calibration.image_count,
            },
            "data": {
                "bank_images": [self.names[path] for path in plan.bank_images],
                "bank_sha256": hashes,
                "calibration_images": [self.names[path] for path in plan.calibration_images],
                "calibration_sha256": [file_hash(path) for path in plan.calibration_images],
                "calibration_groups": numbered(plan.calibration_groups),
            },
            "seed": self.options.seed,
            "engine": EngineOptions.of(self.options.engine).name,
            **({} if plan.choice is None else {"choice": plan.choice.record()}),
            **({} if parts.thumbnails is None else {"thumbnails": thumbnails.describe(parts.thumbnails)}),
            **({} if plan.tiling == ONE_TILE else {"tiling": asdict(plan.tiling)}),
            **({} if plan.roi is None else {"roi": {"raster": list(plan.roi.shape), "inspected": plan.inspected}}),
            **({} if plan.adaptation is None else {"adaptation": dict(plan.adaptation)}),
        }


def numbered(groups: Sequence[str]) -> list[int]:
    """The same partition by numbers in order of appearance: the names may be paths of this machine."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


def product_name(directory: Path) -> str:
    """The folder's name, or its product's: …/tile/train/good → tile; of a table, its name without extension."""
    directory = directory.with_suffix("") if directory.is_file() else directory
    parts = [part for part in directory.resolve().parts if part.lower() not in ("train", "good", "ok", "normal")]
    return parts[-1] if len(parts) > 1 else "part"
