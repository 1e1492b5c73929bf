"""Image → verdict: a thin view of the C++ session (csrc/session), which does everything."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import UsageError
from onceover.runtime.corrections import AppliedCorrections, Corrections, journal_path
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.reasons import BankImages, patch_at
from onceover.runtime.session import EngineOptions, open_session
from onceover.runtime.thumbnails import Thumbnails, read_thumbnails
from onceover.types import DECISIONS, Calibration, Decision, Image, NearestPatch, Region, Timing, Verdict


class Inspector:
    """An open package and its session; for one thread at a time. Use Inspector.open, and `with` to close it."""

    def __init__(
        self,
        package: PackageFile,
        session: _core.Session,
        product: str | None = None,
        gate: bool = False,
        corrections: Corrections | None = None,
    ) -> None:
        self.package = package
        self.products = package.products
        self.corrections = corrections
        self.applied: AppliedCorrections | None = None
        numbers = range(len(self.products))
        self._bank_images = [BankImages(package, number) for number in numbers]
        self._several = len(self.products) > 1
        self._session: _core.Session | None = session
        # None: by the gates
        self._product = None if product is None and (gate or self._several) else self._number(product)
        session.select(self._product)
        self._take_calibration()
        if corrections is not None:
            self.apply_corrections()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | PackageFile,
        engine: str | EngineOptions = "onnxruntime",
        threads: int = 1,
        memory_limit_mb: float | None = None,
        product: str | None = None,
        gate: bool = False,
        corrections: str | os.PathLike[str] | Corrections | None = "auto",
    ) -> Inspector:
        """Open and check a package, or take one that open_package or open_signed gave.

        product: of a package of several, the one to inspect; None: the one in view, or "wrong_part" when it is none of
        them. gate: ask that also of a package of one product. corrections: a journal (runtime/corrections.py), or its
        path; None: none; "auto": PATH.journal if there is one beside a package that is given by its path. A signature
        does not cover a journal, so one that belongs to an opened package is named. Raises InputError, PackageError,
        EngineError, MemoryLimitError, UsageError (products that cannot be told apart, and none named),
        UnknownNameError.
        """
        package = path if isinstance(path, PackageFile) else open_package(path)
        session = open_session(package.core, engine, threads, memory_limit_mb)
        if corrections == "auto":
            beside = journal_path(package.path)
            corrections = beside if not isinstance(path, PackageFile) and beside.exists() else None
        if not isinstance(corrections, Corrections) and corrections is not None:
            corrections = Corrections.open(package, corrections)
        return cls(package, session, product, gate, corrections)

    def apply_corrections(self) -> AppliedCorrections:
        """Read the journal again and inspect with it from now on. Raises UsageError when there is none."""
        if self.corrections is None:
            raise UsageError(f"{self.package.path}: opened without corrections; give Inspector.open(corrections=…)")
        self.corrections.refresh()
        self.applied = AppliedCorrections.of(self.corrections, self.session.apply(self.corrections.core))
        confirmed = [candidate for candidate in self.corrections.candidates if candidate.standing == "confirmed"]
        for images, product in zip(self._bank_images, self.corrections.product_names, strict=True):
            images.joined = {
                row: (candidate.name, patch)
                for candidate in confirmed
                if candidate.product == product
                for row, patch in zip(candidate.rows, candidate.patches, strict=True)
            }
        self._take_calibration()
        return self.applied

    def _take_calibration(self) -> None:
        told = (self.session.calibration_of(number) for number in range(len(self.products)))
        self._calibrations = [Calibration.of_record(each) for each in told]

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance: name, backbone and weights card, detector, data (runtime/package.py)."""
        return self.package.manifest

    @property
    def product_manifest(self) -> dict[str, Any]:
        """What the manifest says of the product that is inspected; all of it, where that is the one in view."""
        if self._several and self._product is None:
            return self.manifest
        return self.package.product_manifest(self._product or 0)

    @property
    def calibration(self) -> Calibration:
        """Of the product that is inspected; of the first, where the one in view is."""
        return self._calibrations[self._product or 0]

    @property
    def bank_images(self) -> BankImages:
        """Where the memory bank rows come from; of the same product as `calibration`."""
        return self._bank_images[self._product or 0]

    def inspect(
        self,
        image: Image | str | os.PathLike[str],
        color: str = "rgb",
        map_size: tuple[int, int] | None = None,
        product: str | None = None,
        *,
        map_out: NDArray[np.float32] | None = None,
    ) -> Verdict:
        """One image, or the path of one, → its verdict. The map has the image's own size, or map_size (H, W).

        color: "rgb" or "bgr", the channel order of an array; files are always read as RGB. product: this one, for once.
        map_out: float32 (H, W), C-contiguous, in which the map is drawn: the verdict's map is this array, and changes
        with the next image drawn there. Raises InputError for an image that cannot be used, or another map_out,
        EngineError for an answer that cannot be trusted.
        """
        session = self.session
        if not isinstance(image, np.ndarray):
            from onceover.images import read_image

            image, color = read_image(image), "rgb"
        session.select(self._product if product is None else self._number(product))
        result = session.run(image, color)
        calibration = self._calibrations[result.product]
        height, width = image.shape[:2] if map_size is None else map_size
        anomaly_map = session.anomaly_map(height, width, map_out)
        patch_scores, nearest_rows = session.patch_scores(), session.nearest_rows()  # (h, w) each
        worst = divmod(result.worst_patch, patch_scores.shape[1])

        def reason(patch: tuple[int, int]) -> NearestPatch:
            distance, row = float(patch_scores[patch]), int(nearest_rows[patch])
            return self._bank_images[result.product].nearest(patch, distance, row, calibration.threshold)

        regions = tuple(
            replace(
                region,
                reason=reason(patch_at(region.peak, anomaly_map.shape, patch_scores.shape)),
                p_value=session.map_p_value(region.peak_value),
            )
            for region in _regions(result, anomaly_map, calibration)
        )
        return Verdict(
            score=result.score,
            p_value=result.p_value,
            decision=_decision(result.decision),
            threshold=calibration.threshold,
            anomaly_map=anomaly_map,
            patch_scores=patch_scores,
            map_threshold=calibration.map_threshold,
            regions=regions,
            worst_patch=worst,
            nearest=result.nearest_row,
            timing=_timing(result),
            reason=reason(worst),
            normal_range=calibration.score_range,
            product=self.products[result.product] if self._several else None,
            gate=result.gate_ratio if product is None and self._product is None else None,
            roi=session.inside(height, width),
            corrections=None if self.applied is None else self.applied.id,
        )

    def _number(self, product: str | None) -> int:
        return 0 if product is None else self.package.product_number(product)

    def normal_picture(self, reason: NearestPatch) -> NDArray[np.uint8] | None:
        """The thumbnail of the normal image that a reason names, (H, W, 3) RGB.

        None where the package has none, or several products.

        Raises PackageError when the package's thumbnails are damaged.
        """
        if self._several or self.thumbnails is None or reason.image_index is None:
            return None
        return self.thumbnails.picture(reason.image_index)

    @cached_property
    def thumbnails(self) -> Thumbnails | None:
        """Pictures of the normal images, where `fit --thumbnails` stored them. PackageError when they are damaged."""
        return read_thumbnails(self.package)

    def verify(self) -> dict[str, Any]:
        """Replay the package's parity record: images, largest differences, tolerance, engine.

        Raises VerificationError when this machine does not reproduce it.
        """
        session = self.session
        return {**session.self_test(), "engine": session.engine_version}

    @property
    def session(self) -> _core.Session:
        """The C++ session; UsageError after close."""
        if self._session is None:
            raise UsageError(f"{self.package.path}: this inspector is closed; open it again")
        return self._session

    def close(self) -> None:
        """Free the session's memory and the engine's. A second call does nothing."""
        self._session = None

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_regions(anomaly_map: NDArray[np.float32], map_threshold: float | None) -> tuple[Region, ...]:
    """8-connected parts of the map (H, W) above map_threshold, largest peak first; none without a threshold.

    A map alone knows no calibration parts: their p_value is 1.
    """
    if map_threshold is None:
        return ()
    return tuple(Region(*found) for found in _core.find_regions(anomaly_map, map_threshold))


def _regions(result: _core.RunResult, anomaly_map: NDArray[np.float32], calibration: Calibration) -> tuple[Region, ...]:
    """Where, once the score has said that: a normal part has no anomalous regions, so that the two never differ."""
    return find_regions(anomaly_map, calibration.map_threshold) if result.decision == "anomalous" else ()


def _decision(name: str) -> Decision:
    return next((decision for decision in DECISIONS if decision == name), "uncalibrated")


def _timing(result: _core.RunResult) -> Timing:
    return Timing(result.prepare_ns / 1e6, result.engine_ns / 1e6, result.score_ns / 1e6, result.map_ns / 1e6)


__all__ = ["Inspector", "find_regions"]
