"""The package of format 1.0 that every later 1.x reader must read and score the same (tests/frozen_package.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_package import tiny_image

from onceover import _core
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package

FROZEN = Path(__file__).with_name("data") / "format_1_0.onceover"
ID = "f8559244d9490890326ef66cb67dcd2706e348ffa6b5d89084f238faefa73521"
MEMBERS = [
    ("config", "bytes", (256,), True),
    ("manifest.json", "bytes", (27,), False),
    ("graph.onnx", "bytes", (6869,), True),
    ("memory_bank", "float32", (144, 8), True),
    ("calibration", "bytes", (216,), True),
    ("parity", "bytes", (20864,), True),
    ("bank_index", "uint8", (1152,), False),
    ("bank_neighbors", "uint32", (144, 9), False),
    ("bank_source", "uint32", (144, 2), False),
]


def test_it_is_read_member_by_member() -> None:
    package = open_package(FROZEN)
    assert (package.id, package.core.version) == (ID, (1, 0))
    assert [(m.name, m.type, m.dimensions, m.required) for m in package.members] == MEMBERS
    config = _core.read_config(package.core)
    assert (config.height, config.width, config.grid_height, config.grid_width) == (32, 48, 4, 6)
    np.testing.assert_allclose([config.mean, config.std], [(0.5, 0.4, 0.3), (0.25, 0.5, 0.2)], rtol=1e-7)
    calibration = _core.read_calibration(package.core)
    assert (calibration["calibrated"], calibration["image_count"]) == (True, 19)
    assert abs(calibration["threshold"] - 0.8944005370140076) < 1e-12
    assert len(_core.read_parity(package.core)["images"]) == 3


def test_it_scores_as_on_the_day_it_was_written() -> None:
    with Inspector.open(FROZEN) as inspector:
        assert inspector.verify()["images"] == 3  # raises where a score differs by more than 1e-4
        assert inspector.inspect(tiny_image(100)).decision == "normal"  # one of those that calibrated it


def test_a_writer_of_today_makes_the_same_bytes_of_its_members() -> None:
    package = open_package(FROZEN).core
    writer = _core.PackageWriter()
    for name, kind, _, required in MEMBERS:
        content = package.read(name) if kind == "bytes" else np.array(package.array(name))
        writer.add(name, content, required=required)
    assert writer.bytes() == FROZEN.read_bytes()
