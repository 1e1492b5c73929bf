"""The one loop: folder of good images → patch embeddings → detector → calibration → parity record → package parts.

Everything is computed by the C++ session that the device will run, so nothing here can differ from deployment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors import BankSize, create_detector
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError
from onceover.images import list_images, read_image
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, assemble, config_of, parity_item, uncalibrated
from onceover.runtime.graph import DEFAULT_BACKBONE
from onceover.runtime.reasons import owners
from onceover.runtime.session import EngineOptions
from onceover.training.calibrate import DEFAULT_FALSE_ALARM_RATE, calibrate, check_validation, plan_holdout
from onceover.training.calibration_patches import CalibrationPatches
from onceover.training.choosing import Choice, choose_network
from onceover.training.dataset import (
    dataset_folders,
    fitting_layouts,
    join_copies,
    read_dataset,
    read_groups,
    relative_path,
    split_holdout,
)
from onceover.training.input_size import InputSize
from onceover.training.references import choose_references
from onceover.types import GraphSpec, Image


@dataclass(frozen=True)
class FitOptions:
    """What fit may be told; every default is a decision of the docs.

    false_alarm_rate: None means 5 % if the data can support it, else an uncalibrated package; an explicit rate that
    the data cannot support is refused. holdout: share (float) or number (int) of parts held out for calibration.
    groups: CSV (file, group) of images that show the same part. layout, category: as for `read_dataset`; of a data set
    only the normal images of train are learned from, of any other folder all images. A data set's own validation split
    calibrates, unless holdout is given. backbone "auto": the best embedded one whose network and preparation of an
    image, of the size of the first, take at most budget_ms on this machine (`training.choosing`). size: side of the
    square input of a backbone that is resizable; None: chosen from what the images show (`training.input_size`).
    thumbnails: longest side in pixels of pictures of the bank's images to store; None, the default, stores none, for
    whoever has the package would see them (`runtime.thumbnails`).
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

    @property
    def embeddings_mb(self) -> float:
        """Peak memory of the embeddings while the bank is chosen."""
        return self.patch_count * self.embedding_dim * 4 / 1e6

    @property
    def bank_mb(self) -> float:
        return self.bank_rows * self.embedding_dim * 4 / 1e6


def plan_fit(directory: Path, spec: GraphSpec, options: FitOptions) -> FitPlan:
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
    groups, copies = join_copies(everything, groups)
    explicit = options.false_alarm_rate is not None
    rate = DEFAULT_FALSE_ALARM_RATE if options.false_alarm_rate is None else options.false_alarm_rate
    if official:
        in_bank = {groups[path] for path in images}
        bank, calibration = images, [path for path in official if groups[path] not in in_bank]
        check_validation(len({groups[path] for path in calibration}), rate, explicit)
    else:
        held_out = plan_holdout(len(set(groups.values())), rate, explicit, options.holdout)
        bank, calibration = split_holdout(images, groups, held_out, options.seed)
    patch_count = len(bank) * spec.grid_height * spec.grid_width
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
    )


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
    nothing usable in the folder), UsageError (an impossible rate, size or budget), UnknownNameError, EngineError.
    """
    options, folder = options or FitOptions(), Path(directory)
    found, _, _ = _find_images(folder, options)
    network = choose_network(
        found, options.backbone, options.budget_ms, options.size, options.engine, options.threads, progress
    )
    graph, spec = network.graph, network.spec
    plan = replace(plan_fit(folder, spec, options), choice=network.choice, input_size=network.input_size)
    if on_plan is not None:
        on_plan(plan)
    images = (*plan.bank_images, *plan.calibration_images)
    names = {path: relative_path(path, _folder(folder)) for path in images}
    product = options.name or options.category or product_name(folder)
    return FitJob(graph, spec, plan, options, names, product, progress).run()


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
        self.engine = EngineOptions.of(options.engine).resolve(options.threads)
        self.detector = create_detector(options.detector, options.bank, options.coreset, options.seed)

    def run(self) -> PackageParts:
        embeddings, hashes = self._embed_bank_images()
        if self.chosen is None:
            self.detector.fit(embeddings, self.progress)
        else:
            self.detector.refit(embeddings, self.chosen, self.progress)
        del embeddings
        parts = PackageParts(
            graph=self.graph,
            spec=self.spec,
            blur_sigma=self.options.blur_sigma,
            state=self.detector.state(),
            calibration=uncalibrated(),
            parity=(),
            manifest={},
            bank_source=self._bank_source(),
        )
        patches = CalibrationPatches()
        scores, map_maxima = self._score_held_out(self._session(parts), patches)
        groups, rate = list(self.plan.calibration_groups), self.plan.false_alarm_rate
        remembered = patches.to_array(groups)
        parts = replace(parts, calibration=calibrate(scores, map_maxima, groups, rate), calibration_patches=remembered)
        session = self._session(parts)
        parity = tuple(parity_item(session, image) for image in self._reference_images(scores))
        parts = replace(parts, parity=parity, thumbnails=self._thumbnails(parts.bank_source))
        return replace(parts, manifest=self._manifest(parts, hashes))

    def _session(self, parts: PackageParts) -> _core.Session:
        package = _core.Package.view(assemble(parts).bytes(), "the package being fitted")
        return _core.Session(package, self.engine)

    def _embed_bank_images(self) -> tuple[NDArray[np.float32], list[str]]:
        """→ (N·P, D) patch embeddings of the bank images in order, and the SHA-256 of each file."""
        config = config_of(self.spec, self.options.blur_sigma)
        embedder = _core.Embedder(config, self.graph, self.engine)
        images = self.plan.bank_images
        patches = self.spec.grid_height * self.spec.grid_width
        embeddings = np.empty((len(images) * patches, self.spec.embedding_dim), np.float32)
        hashes = []
        self.progress("patch embeddings", 0, len(images))
        for i, path in enumerate(images):
            embeddings[i * patches : (i + 1) * patches] = embedder.embed(read_image(path))
            hashes.append(file_hash(path))
            self.progress("patch embeddings", i + 1, len(images))
        return embeddings, hashes

    def _bank_source(self) -> NDArray[np.uint32] | None:
        """(M, 2): image and patch of every bank row, for detectors that keep patches."""
        chosen = self.detector.chosen
        if chosen is None:
            return None
        return np.stack(divmod(chosen, self.spec.grid_height * self.spec.grid_width), axis=1).astype(np.uint32)

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

    def _score_held_out(
        self, session: _core.Session, patches: CalibrationPatches
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image scores and anomaly-map maxima of the held-out images, float32 (n,) each."""
        images = self.plan.calibration_images
        scores = np.zeros(len(images), np.float32)
        map_maxima = np.zeros(len(images), np.float32)
        for i, path in enumerate(images):
            result = session.run(read_image(path))
            scores[i], map_maxima[i] = result.score, result.map_maximum
            patches.add(session)
            self.progress("calibration", i + 1, len(images))
        return scores, map_maxima

    def _reference_images(self, scores: NDArray[np.float32]) -> list[Image]:
        """For the parity record: of the held-out images, or of the bank's when there are none."""
        plan = self.plan
        paths: Sequence[Path] = plan.calibration_images or plan.bank_images
        return choose_references(paths, scores, self.spec.preprocessing)

    def _manifest(self, parts: PackageParts, hashes: list[str]) -> dict[str, Any]:
        """Provenance for people and Python. No time and no absolute path: the same input gives the same bytes."""
        calibration, plan = parts.calibration, self.plan
        return {
            "name": self.product,
            "onceover": _core.__version__,
            "backbone": asdict(self.spec),
            "detector": self.detector.describe(),
            "calibration": {
                "method": "split conformal" if calibration.calibrated else "uncalibrated",
                "false_alarm_rate": plan.false_alarm_rate if calibration.calibrated else None,
                "parts": calibration.n,
                "images": calibration.image_count,
            },
            "data": {
                "bank_images": [self.names[path] for path in plan.bank_images],
                "bank_sha256": hashes,
                "calibration_images": [self.names[path] for path in plan.calibration_images],
                "calibration_sha256": [file_hash(path) for path in plan.calibration_images],
                "calibration_groups": _numbered(plan.calibration_groups),
            },
            "seed": self.options.seed,
            "engine": EngineOptions.of(self.options.engine).name,
            **({} if plan.choice is None else {"choice": plan.choice.record()}),
            **({} if parts.thumbnails is None else {"thumbnails": thumbnails.describe(parts.thumbnails)}),
        }


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _numbered(groups: Sequence[str]) -> list[int]:
    """The same partition by numbers in order of appearance: the names may be paths of this machine."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


def product_name(directory: Path) -> str:
    """The folder's name, or its product's: …/tile/train/good → tile; of a table, its name without extension."""
    directory = directory.with_suffix("") if directory.is_file() else directory
    parts = [part for part in directory.resolve().parts if part.lower() not in ("train", "good", "ok", "normal")]
    return parts[-1] if len(parts) > 1 else "part"
