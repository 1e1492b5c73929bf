"""The steps of one fit, planned before: patches → detector → calibration → parity record → parts of a package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors import BankSize, create_detector
from onceover.detectors.detector import Detector, Progress, no_progress
from onceover.file_hash import file_hash
from onceover.images import read_image
from onceover.runtime import thumbnails
from onceover.runtime.assemble import PackageParts, assemble, config_of, parity_item, uncalibrated
from onceover.runtime.reasons import owners
from onceover.runtime.session import EngineOptions
from onceover.training.adapter import Adaptation, Adapter, NothingToAdapt
from onceover.training.adapting import study
from onceover.training.calibrate import calibrate
from onceover.training.calibration_patches import CalibrationPatches
from onceover.training.cross_conformal import cross_scores, fold_of_images
from onceover.training.gate import fit_gate, gate_threshold
from onceover.training.image_patches import HeldPatches, ImagePatches, naming
from onceover.training.machine_memory import return_freed_memory
from onceover.training.position_weights import Weights, measure
from onceover.training.references import choose_references
from onceover.types import ONE_TILE, GraphSpec, Image

if TYPE_CHECKING:
    from onceover.training.fit import FitOptions, FitPlan

Rows = NDArray[np.float32]  # (n·P, D)
Matrix = NDArray[np.float32] | None  # (D, D), by which embeddings are multiplied; None: not at all
# Image scores and largest map values, float32 (n,) each, and distances to the gate, 0 without one.
Scored = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


class FitJob:
    """One fit: what its steps share. names: what the manifest calls the images.

    chosen: patches of an earlier fit that make the bank again; None: the detector chooses.
    adaptation, position_weights: of an earlier fit, likewise.
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
        adaptation: Adaptation | None = None,
        position_weights: Weights | None = None,
    ) -> None:
        self.chosen, self.adaptation, self.position_weights = chosen, adaptation, position_weights
        self.not_adapted = {"adapted": False, "reason": plan.not_adapting} if plan.not_adapting else {}
        self.fold_of: NDArray[np.int64] | None = None  # (n,), of each image, where folds score each other
        self.fold_matrices: list[Matrix] = []  # of each fold, learned without it; empty: as for all
        self.graph, self.spec, self.plan = graph, spec, plan
        self.options, self.names, self.product = options, names, product
        self.progress = progress
        self.config = config_of(spec, options.blur_sigma, plan.tiling)
        if plan.folds:
            self.fold_of = fold_of_images(plan.calibration_groups, plan.folds, options.seed)
        # (n,): the patches of an image that are learned from, tile after tile
        self.patches: NDArray[np.int64] = (
            np.arange(self.config.feature_count) if plan.roi is None else self.config.features_inside(plan.roi)
        )
        self.engine = EngineOptions.of(options.engine).resolve(options.threads)
        self.detector = create_detector(options.detector, options.bank, options.coreset, options.seed)

    def run(self) -> PackageParts:
        if self.plan.adapting_images:
            self._adapt()
            return_freed_memory()
        embeddings, hashes = self._learn()
        crossed = self._cross_scores(embeddings) if embeddings is not None else None
        del embeddings
        return_freed_memory()
        parts = self._uncalibrated_parts(self.detector, self._matrix, self.position_weights)
        parts = replace(parts, bank_source=self._bank_source())
        images = self.plan.calibration_images
        # A gate needs parts that it was not fitted on; across folds there are none.
        gate = fit_gate(self.pooled) if len(self.pooled) > 1 and images and crossed is None else None
        patches = CalibrationPatches()
        if crossed is None:
            session = self._session(replace(parts, gate=None if gate is None else gate.to_bytes()))
            scores, map_maxima, distances = self._score(session, images, gate is not None, self.progress, patches)
            del session  # and its engine, before there is another one
        else:
            scores, map_maxima, distances = crossed
        groups, rate = list(self.plan.calibration_groups), self.plan.false_alarm_rate
        calibration = replace(calibrate(scores, map_maxima, groups, rate), cross_conformal=crossed is not None)
        parts = replace(parts, calibration=calibration)
        if crossed is None:
            parts = replace(parts, calibration_patches=patches.to_array(groups))
        if gate is not None:
            told = replace(gate, threshold=gate_threshold(distances), part_count=len(set(groups)))
            parts = replace(parts, gate=told.to_bytes())
        session = self._session(parts)
        parity = tuple(parity_item(session, image) for image in self._reference_images(scores))
        parts = replace(parts, parity=parity, thumbnails=self._thumbnails(parts.bank_source))
        return replace(parts, manifest=self._manifest(parts, hashes))

    def _adapt(self) -> None:
        """To the product, by the bank's images; where nobody asked for it, only if that helps on parts held out of it.

        One decision for all folds, which are then all scored as the package scores (docs/calibration.md).
        """
        plan, seed = self.plan, self.options.seed
        try:
            adapter = study(
                plan.bank_images, self.graph, self.config, self.engine, seed, plan.roi, self.progress, plan.bank_groups
            )
        except NothingToAdapt as nothing:
            if self.options.adapt:
                raise
            self.not_adapted = {"adapted": False, "reason": nothing.reason}
            return
        if self.adaptation is None:  # else an earlier fit decided
            of_all = adapter.of_all
            if not (of_all.helps or self.options.adapt):
                told = {key: of_all.record[key] for key in ("auroc", "contrast", "contrast_folds")}
                self.not_adapted = {"adapted": False, "reason": "it does not help", **told}
                return
            why = {"adapted": True, "reason": "asked for" if self.options.adapt else "it helps"}
            self.adaptation = replace(of_all, record={**why, **of_all.record})
        # Now, before patches are held: learning takes memory of its own.
        for fold in range(plan.folds):
            self.progress("adapting folds", fold, plan.folds)
            self.fold_matrices.append(self._without(adapter, fold))
        if plan.folds:
            self.progress("adapting folds", plan.folds, plan.folds)

    def _without(self, adapter: Adapter, fold: int) -> Matrix:
        try:
            return adapter.without(np.flatnonzero(self.fold_of == fold).tolist()).matrix
        except NothingToAdapt:  # the images that differ are these
            return None

    @property
    def _matrix(self) -> Matrix:
        return None if self.adaptation is None else self.adaptation.matrix

    def _uncalibrated_parts(self, detector: Detector, matrix: Matrix, weights: Weights | None) -> PackageParts:
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
            adaptation=matrix,
            position_weights=weights,
        )

    def _cross_scores(self, network: Rows) -> Scored:
        """Of all images, each by the session of a bank without its fold (training/cross_conformal.py).

        network: not adapted: what a fold is scored by is adapted, and weighed by position, without it.
        """
        plan, options, fold_of = self.plan, self.options, self.fold_of
        assert fold_of is not None  # folds were planned

        def score(
            inside: NDArray[np.int64], count: int, outside: NDArray[np.int64]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            matrix = self.fold_matrices[fold_of[outside[0]]] if self.fold_matrices else self._matrix
            detector = create_detector(options.detector, BankSize(rows=count), options.coreset, options.seed)
            source = HeldPatches(network, len(self.patches), inside, matrix)
            detector.fit_source(source)
            weights = None
            if self.position_weights is not None:
                groups = [plan.bank_groups[i] for i in inside]
                weights = self._learned_weights(detector, groups, source.embed, no_progress)
            session = self._session(self._uncalibrated_parts(detector, matrix, weights))
            return self._score(session, [plan.bank_images[i] for i in outside], gated=False)[:2]

        scores, maxima = cross_scores(fold_of, plan.bank_rows, score, self.progress)
        return scores, maxima, np.zeros(len(scores))

    def _session(self, parts: PackageParts) -> _core.Session:
        package = _core.Package.view(assemble(parts).bytes(), "the package being fitted")
        return _core.Session(package, self.engine)

    def _learn(self) -> tuple[Rows | None, list[str]]:
        """The detector's fit on the bank images, in memory or as a stream.

        Returns the network's embeddings (n·P, D) where folds will score each other, and the SHA-256 of each file.
        """
        crossing = self.plan.folds > 0
        matrix = None if crossing else self._matrix
        images = ImagePatches(self.plan.bank_images, self.graph, self.config, self.engine, self.patches, matrix)
        self.pooled, self.sizes = images.pooled, images.sizes  # filled as they are embedded
        if self.plan.memory is not None and self.plan.memory.streaming:
            self.plan.require_all_patches("plan with a higher limit, or hold parts out")
            self.detector.stream(images, self.plan.memory.sample_images, self.chosen, self.progress)
            self._weigh(images.embed)
            return None, images.hashes
        embeddings = images.all(self.progress)
        if crossing:
            every = np.arange(images.image_count)
            held = HeldPatches(embeddings, len(self.patches), every, self._matrix)
            self.detector.fit_source(held, self.chosen, self.progress)
            self._weigh(held.embed)
            return embeddings, images.hashes
        if self.chosen is None:
            self.detector.fit(embeddings, self.progress)
        else:
            self.detector.refit(embeddings, self.chosen, self.progress)
        each = embeddings.reshape(images.image_count, images.patches, images.dim)
        self._weigh(lambda image: each[image])
        return None, images.hashes

    def _weigh(self, embed: Callable[[int], Rows]) -> None:
        """Learns position weights where the plan says so, unless an earlier fit gave its own."""
        if self.plan.weighs_positions and self.position_weights is None:
            groups = self.plan.bank_groups
            self.position_weights = self._learned_weights(self.detector, groups, embed, self.progress)

    def _learned_weights(
        self, detector: Detector, groups: Sequence[str], embed: Callable[[int], Rows], progress: Progress
    ) -> Weights | None:
        """For the bank that a detector has chosen; groups, embed: of the images that it was fitted on."""
        if detector.rows is None or detector.chosen is None:
            return None
        found = measure(
            detector.rows,
            detector.chosen // len(self.patches),
            groups,
            embed,
            self.config.cells_of(self.patches),
            self.config.cells,
            self.options.seed,
            progress,
        )
        return None if found is None else found.weights()

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
        self,
        session: _core.Session,
        images: Sequence[Path],
        gated: bool,
        progress: Progress = no_progress,
        patches: CalibrationPatches | None = None,
    ) -> Scored:
        """Image scores, map maxima and, where there is a gate, its distances of images that are not in the bank."""
        scores = np.zeros(len(images), np.float32)
        map_maxima = np.zeros(len(images), np.float32)
        distances = np.zeros(len(images))
        session.select(None if gated else 0)
        for i, path in enumerate(images):
            image = read_image(path)
            with naming(path):
                result = session.run(image)
            scores[i], map_maxima[i], distances[i] = result.score, result.map_maximum, result.gate_ratio
            if patches is not None:
                patches.add(session)
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
        adaptation = self.not_adapted if self.adaptation is None else self.adaptation.record
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
                **_told_sizes(self.sizes),
            },
            "seed": self.options.seed,
            "engine": EngineOptions.of(self.options.engine).name,
            **({} if plan.choice is None else {"choice": plan.choice.record()}),
            **({} if parts.thumbnails is None else {"thumbnails": thumbnails.describe(parts.thumbnails)}),
            **({} if plan.tiling == ONE_TILE else {"tiling": asdict(plan.tiling)}),
            **({} if plan.roi is None else {"roi": {"raster": list(plan.roi.shape), "inspected": plan.inspected}}),
            **({"adaptation": adaptation} if adaptation else {}),
            **(
                {}
                if self.position_weights is None
                else {"position_weights": position_weights_record(self.position_weights)}
            ),
        }


def position_weights_record(weights: Weights) -> dict[str, float]:
    return {"least": round(float(weights.min()), 4), "most": round(float(weights.max()), 4)}


def numbered(groups: Sequence[str]) -> list[int]:
    """The same partition by numbers in order of appearance: the names may be paths of this machine."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


def _told_sizes(sizes: Collection[tuple[int, int]]) -> dict[str, Any]:
    """image_size (H, W) of all bank images; or image_sizes, by area, and their proportions, W over H."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    if len(ordered) < 2:
        return {"image_size": list(*ordered)} if ordered else {}
    shares = sorted(round(width / height, 3) for height, width in ordered)
    told = {"count": len(ordered), "smallest": list(ordered[0]), "largest": list(ordered[-1])}
    return {"image_sizes": {**told, "proportions": [shares[0], shares[-1]]}}


__all__ = ["FitJob", "numbered"]
