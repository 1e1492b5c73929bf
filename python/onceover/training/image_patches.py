"""Images as patch embeddings for a detector: each read, hashed and embedded once, in any order; and held ones again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import Progress
from onceover.errors import EngineError
from onceover.file_hash import file_hash
from onceover.images import read_image


class ImagePatches:
    """A source of patches for detectors.

    chosen: (n,), the patches of an image that are learned from, tile after tile. adaptation: (D, D), by which their
    embeddings are multiplied (`training.adapter`). hashes: SHA-256 of each file, empty until it was embedded. pooled:
    float32 (N, D), the mean embedding of each image, likewise, not adapted.
    """

    def __init__(
        self,
        images: Sequence[Path],
        graph: bytes,
        config: _core.Config,
        engine: _core.EngineOptions,
        chosen: NDArray[np.int64],
        adaptation: NDArray[np.float32] | None = None,
    ) -> None:
        self._images, self._chosen, self._adaptation = images, chosen, adaptation
        self._whole = len(chosen) == config.feature_count
        self._embedder = _core.Embedder(config, graph, engine)
        self.patches = len(chosen)
        self.dim = config.embedding_dim
        self.sizes: set[tuple[int, int]] = set()  # (H, W) of the images that were embedded
        self.hashes = [""] * len(images)
        self.pooled = np.zeros((len(images), self.dim), np.float32)

    @property
    def image_count(self) -> int:
        return len(self._images)

    def embed(self, image: int) -> NDArray[np.float32]:
        """(P, D) of image number `image`; EngineError that names it where the network answers NaN or infinity."""
        path = self._images[image]
        image_array = read_image(path)
        self.sizes.add((image_array.shape[0], image_array.shape[1]))
        with naming(path):
            embeddings = self._embedder.embed(image_array)
        embeddings = embeddings if self._whole else embeddings[self._chosen]
        self.hashes[image] = file_hash(path)
        self.pooled[image] = embeddings.mean(axis=0, dtype=np.float64)
        return embeddings if self._adaptation is None else _core.adapt(embeddings, self._adaptation)

    def all(self, progress: Progress) -> NDArray[np.float32]:
        """(N·P, D), image after image."""
        embeddings = np.empty((self.image_count * self.patches, self.dim), np.float32)
        progress("patch embeddings", 0, self.image_count)
        for i in range(self.image_count):
            embeddings[i * self.patches : (i + 1) * self.patches] = self.embed(i)
            progress("patch embeddings", i + 1, self.image_count)
        return embeddings


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What an engine says of an image is said of this one, by name."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error


class HeldPatches:
    """Embeddings in memory as a source of patches for detectors, adapted whenever they are asked for: an adapted copy
    of all, for every fold, would double what a fit holds.

    network: float32 (n·P, D), the patches of n images one after another. images: (m,), the numbers of those that count.
    adaptation: (D, D); None: embeddings stay what they are.
    """

    def __init__(
        self,
        network: NDArray[np.float32],
        patches: int,
        images: NDArray[np.int64],
        adaptation: NDArray[np.float32] | None,
    ) -> None:
        self._network = network.reshape(-1, patches, network.shape[1])  # (n, P, D)
        self._images, self._adaptation = images, adaptation
        self.image_count, self.patches, self.dim = len(images), patches, network.shape[1]

    def embed(self, image: int) -> NDArray[np.float32]:
        """(P, D)."""
        embeddings: NDArray[np.float32] = self._network[self._images[image]]
        return embeddings if self._adaptation is None else _core.adapt(embeddings, self._adaptation)


__all__ = ["HeldPatches", "ImagePatches", "naming"]
