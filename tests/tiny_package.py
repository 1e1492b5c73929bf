"""Tiny graphs and packages for tests: a strided convolution with seeded weights instead of a backbone, no torch.

`python tests/tiny_package.py PATH.onnx` writes the graph that tests/test_engines.cpp reads, and the same as PATH.xml
and PATH.bin, which is the format of OpenVINO.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

MEAN = (0.5, 0.4, 0.3)
STD = (0.25, 0.5, 0.2)
TOLERANCE = 1e-4
MAP_STEP = 4


@dataclass(frozen=True)
class TinyShape:
    """Of the network input and its embeddings; the stride of the one convolution is 8."""

    height: int = 32
    width: int = 48
    channels: int = 4

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // 8, self.width // 8


@dataclass(frozen=True)
class TinyOptions:
    shape: TinyShape = TinyShape()
    bank_images: int = 6
    calibrated: bool = True
    blur_sigma: float = 2.0
    replace: dict[str, Any] = field(default_factory=dict)  # member name → other content


def tiny_metadata(shape: TinyShape) -> dict[str, Any]:
    """What `onceover.backbone` holds in a tiny graph."""
    return {
        "format": 1, "name": "tiny", "height": shape.height, "width": shape.width, "channels": 3, "color": "rgb",
        "mean": list(MEAN), "std": list(STD), "grid_height": shape.grid[0], "grid_width": shape.grid[1],
        "embedding_dim": shape.channels, "strides": [8], "aggregation": 3,
        "weights": {"name": "tiny", "source": "seeded noise", "license": "Apache-2.0", "training_data": "none"},
    }  # fmt: skip


def tiny_graph(height: int = 32, width: int = 48, channels: int = 4, metadata: dict[str, Any] | None = None) -> bytes:
    """(1, 3, height, width) → (1, P, channels), ONNX: convolution 8x8 stride 8, tanh, flattened patch grid."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, float32 = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    shape = TinyShape(height, width, channels)
    patches = shape.grid[0] * shape.grid[1]
    random = np.random.default_rng(7)
    weight = random.normal(0, 0.1, (channels, 3, 8, 8)).astype(np.float32)
    bias = random.normal(0, 0.1, channels).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["stage"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Tanh", ["stage"], ["active"]),
        helper.make_node("Reshape", ["active", "flat"], ["rows"]),  # (1, C, h, w) → (1, C, P)
        helper.make_node("Transpose", ["rows"], ["embedding"], perm=[0, 2, 1]),  # → (1, P, C)
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", float32, [1, 3, height, width])],
        [helper.make_tensor_value_info("embedding", float32, [1, patches, channels])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([1, channels, patches], np.int64), "flat"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fields = tiny_metadata(shape) if metadata is None else metadata
    helper.set_model_props(model, {"onceover.backbone": json.dumps(fields)})
    data: bytes = model.SerializeToString()
    return data


def tiny_image(seed: int, height: int = 40, width: int = 56, channels: int = 3) -> NDArray[np.uint8]:
    """A smooth seeded texture: (height, width, channels), or (height, width) when channels is 0."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 3, height)[:, None, None]
    columns = np.linspace(0, 4, width)[None, :, None]
    phase = random.uniform(0, 6, (1, 1, max(channels, 1)))
    wave = 110 + 60 * np.sin(rows + phase) * np.cos(columns - phase) + random.normal(0, 8, (height, width, 1))
    image = np.clip(np.rint(wave), 0, 255).astype(np.uint8)
    return image[..., 0] if channels == 0 else image


def tiny_config(shape: TinyShape, blur_sigma: float = 2.0) -> Any:
    from onceover import _core

    return _core.Config(
        height=shape.height, width=shape.width, mean=MEAN, std=STD, grid_height=shape.grid[0],
        grid_width=shape.grid[1], embedding_dim=shape.channels, blur_sigma=blur_sigma,
    )  # fmt: skip


def uncalibrated_bytes() -> bytes:
    from onceover import _core

    nothing = np.zeros(0, np.float32)
    return _core.calibration_bytes(
        calibrated=False, false_alarm_rate=0.0, threshold=float("inf"), map_threshold=float("inf"),
        scores=nothing, map_maxima=nothing, image_count=0,
    )  # fmt: skip


OPTIONAL_MEMBERS = {"manifest.json", "bank_index", "bank_neighbors", "bank_source", "calibration_patches"}


def write_members(path: Path, members: dict[str, Any]) -> Path:
    """A package of these members, in this order."""
    from onceover import _core

    writer = _core.PackageWriter()
    for name, content in members.items():
        writer.add(name, content, required=name not in OPTIONAL_MEMBERS)
    writer.save(str(path))
    return path


def read_members(path: Path) -> dict[str, Any]:
    """The members of a package, for rewriting it: bytes, and float32 arrays of their own."""
    from onceover import _core

    package = _core.Package.open(str(path))
    return {
        member["name"]: np.array(package.array(member["name"]))
        if member["type"] == "float32"
        else package.read(member["name"])
        for member in package.members
    }


def tiny_package(path: Path, options: TinyOptions = TinyOptions()) -> Path:
    """A whole valid package, < 64 KiB: bank of real embeddings, 19 calibration scores (α = 0.05), 3 parity images.

    The package is written twice: first without calibration and parity, to learn the scores from the session itself.
    """
    from onceover import _core
    from onceover.runtime.session import EngineOptions

    shape, engine = options.shape, EngineOptions().resolve()
    graph = tiny_graph(shape.height, shape.width, shape.channels)
    config = tiny_config(shape, options.blur_sigma)
    embedder = _core.Embedder(config, graph, engine)
    bank = np.concatenate([embedder.embed(tiny_image(seed)) for seed in range(options.bank_images)])
    members: dict[str, Any] = {
        "config": config.to_bytes(),
        "manifest.json": json.dumps({"name": "tiny", "seed": 7}).encode(),
        "graph.onnx": graph,
        "memory_bank": bank,
        "calibration": uncalibrated_bytes(),
        "parity": _core.parity_bytes([], config, TOLERANCE, MAP_STEP),
    }
    write_members(path, members)
    if options.calibrated:
        members["calibration"] = _calibration(_core.Session(_core.Package.open(str(path)), engine))
        write_members(path, members)
    session = _core.Session(_core.Package.open(str(path)), engine)
    members["parity"] = _parity(session, config)
    members.update(options.replace)
    return write_members(path, members)


def _calibration(session: Any) -> bytes:
    from onceover import _core

    results = [session.run(tiny_image(seed)) for seed in range(100, 119)]
    scores = np.array([result.score for result in results], np.float32)
    maxima = np.array([result.map_maximum for result in results], np.float32)
    # n = 19, α = 0.05: the ⌈20 · 0.95⌉ = 19th smallest, which is the largest.
    return _core.calibration_bytes(
        calibrated=True, false_alarm_rate=0.05, threshold=float(scores.max()), map_threshold=float(maxima.max()),
        scores=scores, map_maxima=maxima, image_count=19,
    )  # fmt: skip


def _parity(session: Any, config: Any) -> bytes:
    """Three images: an ordinary one, a gray one, and a larger one of odd aspect."""
    from onceover import _core

    verdicts = {"uncalibrated": 0, "normal": 1, "anomalous": 2}
    items = []
    for image in (tiny_image(200), tiny_image(201, channels=0), tiny_image(202, 37, 91)):
        result = session.run(image)
        items.append(
            _core.ParityItem(
                image, "rgb", result.score, verdicts[result.decision], session.patch_scores(), session.anomaly_map()
            )
        )
    return _core.parity_bytes(items, config, TOLERANCE, MAP_STEP)


if __name__ == "__main__":
    import sys

    import openvino

    target = Path(sys.argv[1])
    openvino.save_model(openvino.Core().read_model(tiny_graph()), target.with_suffix(".xml"), compress_to_fp16=False)
    target.write_bytes(tiny_graph())
