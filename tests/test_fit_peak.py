"""What a fit takes, measured."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from onceover.training.procedural import MATERIALS, draw_material


@pytest.mark.parametrize("material", MATERIALS)
def test_drawing_a_material_takes_what_the_plan_says(material: str) -> None:
    """At most 150 bytes a pixel, and what is of the finished picture."""
    side, peak = 192, 0
    for seed in range(4):
        tracemalloc.start()
        draw_material(np.random.default_rng(seed), side, material)
        peak = max(peak, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peak < 160 * side**2
