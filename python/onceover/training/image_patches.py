"""Images as patch embeddings for a detector: each read, hashed and embedded once, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import Progress
from onceover.errors import InputError
from onceover.images import read_image
from onceover.runtime.assemble import config_of
from onceover.training.dataset import file_hash
from onceover.types import GraphSpec


class ImagePatches:
    """A source of patches for detectors. hashes: SHA-256 of each file, empty until it was embedded."""

    def __init__(
        self, images: Sequence[Path], graph: bytes, spec: GraphSpec, blur_sigma: float, engine: _core.EngineOptions
    ) -> None:
        self._images = images
        self._embedder = _core.Embedder(config_of(spec, blur_sigma), graph, engine)
        self.patches = spec.grid_height * spec.grid_width
        self.dim = spec.embedding_dim
        self.hashes = [""] * len(images)

    @property
    def image_count(self) -> int:
        return len(self._images)

    def embed(self, image: int) -> NDArray[np.float32]:
        """(P, D) of image number `image`; InputError where the network answers NaN or infinity."""
        path = self._images[image]
        embeddings = self._embedder.embed(read_image(path))
        if not np.isfinite(embeddings).all():
            raise InputError(f"{path}: its embedding is not finite (NaN or infinity); look at that image")
        self.hashes[image] = file_hash(path)
        return embeddings

    def all(self, progress: Progress) -> NDArray[np.float32]:
        """(N·P, D), image after image."""
        embeddings = np.empty((self.image_count * self.patches, self.dim), np.float32)
        progress("patch embeddings", 0, self.image_count)
        for i in range(self.image_count):
            embeddings[i * self.patches : (i + 1) * self.patches] = self.embed(i)
            progress("patch embeddings", i + 1, self.image_count)
        return embeddings


__all__ = ["ImagePatches"]
