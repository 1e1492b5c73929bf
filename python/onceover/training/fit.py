"""The one loop: folder of good images → patch embeddings → detector → calibration → parity record → package parts.

Everything is computed by the C++ session that the device will run, so nothing here can differ from deployment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.detectors import BankSize
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import MemoryLimitError, UsageError
from onceover.images import read_image
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, config_of
from onceover.runtime.graph import DEFAULT_BACKBONE, load_graph
from onceover.runtime.session import EngineOptions
from onceover.training import position_weights
from onceover.training.adapting import MIN_PARTS, most_images
from onceover.training.calibrate import required_groups
from onceover.training.choosing import AUTO, Choice, choose_network
from onceover.training.dataset import relative_path
from onceover.training.field import TilingOptions, check_roi, read_roi
from onceover.training.fit_job import FitJob
from onceover.training.input_size import SIZES, InputSize
from onceover.training.machine_memory import memory_limit
from onceover.training.memory_plan import THUMBNAIL_PIXEL_BYTES, FitSize, MemoryPlan, over_limit, plan_memory, probe
from onceover.training.splitting import Split, base_folder, bits_in_use, split_parts
from onceover.types import ONE_TILE, GraphSpec, Tiling


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
    adapt: measure distances as the product's own images suggest (`training.adapting`); None, the default: where the
    bank has the eight parts that it takes, and drawn damage is told apart better by it, on parts that it was not
    learned from. The manifest says what was done, and why.
    position_weights: let a distance count less where good parts are far from the bank
    (`training.position_weights`), where the bank has the eight parts that it takes.
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
    adapt: bool | None = None
    position_weights: bool = True
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
    bank_groups: tuple[str, ...]  # of bank_images, one each: pictures of one part
    copies: Mapping[str, str] = field(hash=False)  # images that are byte for byte like an earlier one → that one
    layout: str = ""  # of the data set they are the train images of; empty for an ordinary folder
    choice: Choice | None = None  # of backbone "auto"
    input_size: InputSize | None = None  # where it was chosen
    tiling: Tiling = ONE_TILE
    image_size: tuple[int, int] | None = None  # of the first image, where tiles or a region depend on it
    roi: NDArray[np.uint8] | None = field(default=None, hash=False)
    inspected: float = 1.0  # share of the patches that the region leaves
    adapting_images: int = 0  # that tell how to adapt to the product, and whether to; 0: it is not learned
    not_adapting: str = ""  # why not, in words; empty: it is learned, or not spoken of
    weighs_positions: bool = False  # learns what a distance counts where
    memory: MemoryPlan | None = None  # what it will cost; None: not asked, all patches are held
    bits_in_use: int | None = None  # of images of 16 bits per channel
    folds: int = 0  # cross-conformal: bank and calibration images are the same; 0: they have no part in common

    @property
    def streaming(self) -> bool:
        """Whether patches pass image by image instead of being held."""
        return self.memory is not None and self.memory.streaming

    def require_all_patches(self, remedy: str) -> None:
        """Folds score each other by patches that are all held; MemoryLimitError with `remedy` where they cannot be."""
        if self.folds and self.memory is not None and self.memory.streaming:
            raise MemoryLimitError(
                f"{len(self.bank_images)} images are calibrated across folds, which takes all patches at once, "
                f"{over_limit(self.memory.plain_bytes, self.memory.limit_bytes or 0, self.memory.limit_source)}; "
                f"{remedy}"
            )

    @property
    def bank_mb(self) -> float:
        return self.bank_rows * self.embedding_dim * 4 / 1e6


def plan_fit(split: Split, spec: GraphSpec, options: FitOptions) -> FitPlan:
    """What will be done with those images; raises InputError or UsageError before any work is done."""
    bank, calibration, groups = split.bank, split.calibration, split.groups
    field_of_view = _field_of_view(split.images[0], spec, options)
    patch_count = len(bank) * field_of_view.pop("patches")
    parts = len({groups[path] for path in bank})
    not_adapting = "asked for" if options.adapt is False else ""
    if options.adapt is None and parts < MIN_PARTS:
        not_adapting = f"the memory bank has {parts} part{'s' * (parts != 1)}, and it takes {MIN_PARTS}"
    config = config_of(spec, options.blur_sigma, field_of_view["tiling"])
    return FitPlan(
        bank_images=tuple(bank),
        calibration_images=tuple(calibration),
        calibration_groups=tuple(groups[path] for path in calibration),
        false_alarm_rate=split.rate,
        patch_count=patch_count,
        embedding_dim=spec.embedding_dim,
        bank_rows=options.bank.resolve(patch_count, spec.embedding_dim),
        bank_groups=tuple(groups[path] for path in bank),
        copies=split.copies,
        layout=split.layout,
        folds=split.folds,
        adapting_images=0 if not_adapting else min(len(bank), most_images(config)),
        not_adapting=not_adapting,
        weighs_positions=options.position_weights and parts >= position_weights.MIN_PARTS,
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
    _check_options(options)
    split = split_parts(folder, options, progress)
    if isinstance(options.roi, Path):  # the size of the input is not known yet; that the file can be used, is
        read_roi(options.roi, read_image(split.images[0]).shape[:2])
    network = choose_network(
        split.images,
        options.backbone,
        options.budget_ms,
        _input_side(options),
        options.engine,
        options.threads,
        progress,
    )
    graph, spec = network.graph, network.spec
    plan = with_memory(plan_fit(split, spec, options), graph, spec, options, limit)
    plan.require_all_patches("allow more with --max-memory, or hold parts out with --holdout")
    bits = bits_in_use(split.images)
    plan = replace(plan, choice=network.choice, input_size=network.input_size, bits_in_use=bits)
    if on_plan is not None:
        on_plan(plan)
    images = (*plan.bank_images, *plan.calibration_images)
    names = {path: relative_path(path, base_folder(folder)) for path in images}
    product = options.name or options.category or product_name(folder)
    return FitJob(graph, spec, plan, options, names, product, progress).run()


def _check_options(options: FitOptions) -> None:
    """UsageError for numbers that no images can make right."""
    if not 0 <= options.seed < 1 << 64:
        raise UsageError(f"seed is {options.seed}; give a whole number from 0 to 2^64 - 1")
    if options.thumbnails is not None:
        thumbnails.check_side(options.thumbnails)
    if options.false_alarm_rate is not None:
        required_groups(options.false_alarm_rate)


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
    refit: bool = False,
    adapted: bool = False,
) -> FitPlan:
    """The plan with what it will cost here, measured on a few images; MemoryLimitError where that is too much.

    greedy: whether a coreset is to be selected by distances. refit: of a package, and adapted by its matrix.
    """
    found = probe(spec, graph, EngineOptions.of(options.engine).resolve(options.threads), plan.bank_images)
    greedy = greedy and options.coreset == "greedy"
    pictures = 0
    if options.thumbnails is not None:
        pictures = min(plan.bank_rows, len(plan.bank_images)) * int(THUMBNAIL_PIXEL_BYTES * options.thumbnails**2)
    counts = (len(plan.bank_images), len(plan.calibration_images))
    patches = plan.patch_count // len(plan.bank_images)
    size = FitSize(
        *counts,
        rows=plan.bank_rows,
        stored_bytes=len(graph) + pictures,
        greedy=greedy,
        image_patches=patches,
        adapting_images=plan.adapting_images,
        refit=refit,
        adapted=adapted or plan.adapting_images > 0,
        weighs_positions=plan.weighs_positions,
        folds=plan.folds,
        tiles=plan.tiling.count,
        map_size=config_of(spec, options.blur_sigma, plan.tiling).map_size,
    )
    found = replace(found, image_s=found.image_s * plan.tiling.count)  # of one tile
    return replace(plan, memory=plan_memory(spec, size, limit, found))


def product_name(directory: Path) -> str:
    """The folder's name, or its product's: …/tile/train/good → tile; of a table, its name without extension."""
    directory = directory.with_suffix("") if directory.is_file() else directory
    parts = [part for part in directory.resolve().parts if part.lower() not in ("train", "good", "ok", "normal")]
    return parts[-1] if len(parts) > 1 else "part"
