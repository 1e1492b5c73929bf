"""The contract of a demo product: a name, its defect kinds, and one function that draws a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onceover.training.demo_parts.surface import Float


@dataclass(frozen=True)
class Defect:
    """A defect to draw: its kind, and the randomness that places and shapes it."""

    kind: str
    rng: np.random.Generator


@dataclass(frozen=True)
class Product:
    """A kind of part.

    render(rng, defect) → (SIZE, SIZE, 3) float32 linear light in 0 … 1, before the sensor. It draws from `rng` the
    same numbers with and without a defect, so that the two pictures show the same part.
    monochrome: the camera over this line has no color; images are written with one channel.
    """

    name: str
    defects: tuple[str, ...]
    render: Callable[[np.random.Generator, Defect | None], Float]
    monochrome: bool = False
