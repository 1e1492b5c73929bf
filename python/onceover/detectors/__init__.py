"""Detectors: patch embeddings → something a scorer of the session can score. One method per file."""

from __future__ import annotations

from onceover import registry
from onceover.detectors.detector import Detector
from onceover.detectors.patchcore import BankSize


def create_detector(name: str, bank: BankSize, coreset: str, seed: int) -> Detector:
    """The detector registered as `name`; UnknownNameError with near matches otherwise."""
    detector: Detector = registry.load("detector", name, registry.DETECTORS)(bank=bank, coreset=coreset, seed=seed)
    return detector


__all__ = ["BankSize", "Detector", "create_detector"]
