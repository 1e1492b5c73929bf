"""Procedural textures: images without a source, for training where no photographs may be used or too few exist.

`draw` draws the three textures that the embedded network learned from, unchanged. `draw_material` draws any of
MATERIALS, two in ten times a second one beside it, with light, gloss and scratches. numpy and OpenCV's lines only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onceover.errors import unknown_name
from onceover.training.procedural import classic, made, natural
from onceover.training.procedural.classic import TEXTURES, Texture, draw
from onceover.training.procedural.fields import Float, spectrum_noise
from onceover.training.procedural.finish import finished

# A new material is one function and one line here; it changes what every seed draws, so it goes with a new
# RECORD_VERSION in training/pretrain/records.py.
MATERIALS: Mapping[str, Texture] = {
    "noise": classic.noise,
    "grating": classic.grating,
    "clutter": classic.clutter,
    "plasma": natural.plasma,
    "ridges": natural.ridges,
    "spots": natural.spots,
    "attractor": natural.attractor,
    "dead_leaves": natural.dead_leaves,
    "cells": natural.cells,
    "wood": natural.wood,
    "woven": made.woven,
    "knit": made.knit,
    "brushed_metal": made.brushed_metal,
    "halftone": made.halftone,
    "lettering": made.lettering,
    "perforated": made.perforated,
    "tiles": made.tiles,
    "circuit_board": made.circuit_board,
}


def draw_material(rng: np.random.Generator, size: int, name: str | None = None) -> NDArray[np.uint8]:
    """A random finished material, or the one of that name alone; (size, size, 3) uint8 RGB."""
    if name is not None:
        if name not in MATERIALS:
            raise unknown_name("material", name, MATERIALS)
        image = MATERIALS[name](rng, size)
    else:
        image = _any(rng, size)
        if rng.random() < 0.2:  # two meet along a soft or a hard border, as parts and background do
            border = np.float32(rng.uniform(2, 60)) * spectrum_noise(rng, size, 2.0)
            blend = np.clip(border + np.float32(0.5), 0, 1)[..., None]
            image = blend * image + (1 - blend) * _any(rng, size)
    image = finished(rng, np.clip(image, 0, 1))
    image = image + np.float32(rng.uniform(0, 0.04)) * rng.standard_normal((size, size, 1), dtype=np.float32)
    return np.asarray(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _any(rng: np.random.Generator, size: int) -> Float:
    names = list(MATERIALS)
    return MATERIALS[names[int(rng.integers(len(names)))]](rng, size)


__all__ = ["MATERIALS", "TEXTURES", "Texture", "draw", "draw_material"]
