"""The contract of a detector: patch embeddings of normal images in, package members for one scorer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

# progress(stage, done, total); called often, must be cheap
Progress = Callable[[str, int, int], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


class PatchSource(Protocol):
    """Patch embeddings of images, one image at a time."""

    @property
    def image_count(self) -> int: ...
    @property
    def patches(self) -> int:
        """Per image, P."""
        ...

    @property
    def dim(self) -> int: ...
    def embed(self, image: int) -> NDArray[np.float32]:
        """(P, D), finite; InputError otherwise."""
        ...


class Detector(ABC):
    """Learns what normal patches look like."""

    scorer: ClassVar[str]  # one of the closed set in csrc/session: "nearest_neighbor"

    @abstractmethod
    def fit(self, embeddings: NDArray[np.float32], progress: Progress = no_progress) -> None:
        """embeddings: float32 (N·P, D), the patches of N images one after another, finite."""

    @abstractmethod
    def refit(
        self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64], progress: Progress = no_progress
    ) -> None:
        """As `fit`, for other embeddings of the same patches, of which an earlier fit had `chosen` some."""

    @abstractmethod
    def fit_source(
        self, source: PatchSource, chosen: NDArray[np.int64] | None = None, progress: Progress = no_progress
    ) -> None:
        """As `fit`, or with `chosen` as `refit`, of a source that answers at once and is asked twice for each image: no
        second copy of all embeddings is held beside it."""

    @abstractmethod
    def stream(
        self,
        source: PatchSource,
        sample_count: int,
        chosen: NDArray[np.int64] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """As `fit`, or with `chosen` as `refit`, holding the patches of at most `sample_count` images at a time."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Package members by name. Raises NotFittedError before `fit`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Settings and what came of them, for the manifest."""

    @property
    def rows(self) -> NDArray[np.float32] | None:
        """float32 (M, D): for detectors that keep patches, those that were kept."""
        return None

    @property
    def chosen(self) -> NDArray[np.int64] | None:
        """int64 (M,): for detectors that keep patches, which of the patches given to `fit` they kept."""
        return None
