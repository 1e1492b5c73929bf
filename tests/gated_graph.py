"""A tiny network with what int8 is careful about, by onnx.helper: a stem, a gate (SE), a fragile layer, attention.

The names of its layers are LAYERS, in their order. `fragile`: input channel 0 of that layer is a thousandth of the
others and its weights a thousand times theirs, so that one scale for all channels of its input loses channel 0; in
float32 the network computes the same as without.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import HELD_OUT, HOLE, good_folder
from tiny_package import MEAN, STD, TinyShape, tiny_image, tiny_metadata

from onceover import _core, export
from onceover.images import write_image
from onceover.training.fit import FitOptions, fit

GATE = ("squeeze", "excite")
ATTENTION = ("alike", "softmax", "mix")  # no weights: what quantizes badly
LAYERS = ("stem", *GATE, "middle", "key", "query", "alike", "mix", "head")  # Conv and MatMul
SHAPE = TinyShape(32, 48, 8)
PATCHES = SHAPE.grid[0] * SHAPE.grid[1]
OUTPUT = "features"  # not the name that `onceover export backbone` gives


@dataclass(frozen=True)
class GatedOptions:
    fragile: bool = False
    constants: bool = False  # Constant nodes hold the weights of MatMul, as other exporters write them
    largest_weight: float | None = None  # put into the stem


def gated_graph(options: GatedOptions = GatedOptions()) -> bytes:
    """(1, 3, 32, 48) → (1, 24, 8)."""
    onnx = pytest.importorskip("onnx")
    helper, random = onnx.helper, np.random.default_rng(11)
    nodes: list[Any] = []
    weights: dict[str, NDArray[Any]] = {}

    def weight(name: str, shape: tuple[int, ...], inputs: int) -> str:
        weights[name] = random.normal(0, 1 / np.sqrt(inputs), shape).astype(np.float32)
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def point(value: str, name: str, before: int, after: int) -> str:
        return node("Conv", [value, weight(f"{name}.w", (after, before, 1, 1), before)], name)

    def linear(value: str, name: str) -> str:
        weight(f"{name}.w", (8, 8), 8)
        if options.constants:
            tensor = onnx.numpy_helper.from_array(weights.pop(f"{name}.w"))
            node("Constant", [], f"{name}.w", value=tensor)
        return node("MatMul", [value, f"{name}.w"], name)

    stem = node("Conv", ["image", weight("stem.w", (8, 3, 8, 8), 48)], "stem", kernel_shape=[8, 8], strides=[8, 8])
    wide = node("Tanh", [stem], "wide")  # (1, 8, 4, 6)
    gate = node("Relu", [point(node("GlobalAveragePool", [wide], "mean"), "squeeze", 8, 4)], "squeezed")
    gated = node("Mul", [wide, node("Sigmoid", [point(gate, "excite", 4, 8)], "gate")], "gated")
    scale = np.ones((1, 8, 1, 1), np.float32)
    scale[0, 0] = 1e-3 if options.fragile else 1
    weights["scale"] = scale
    middle = node("Tanh", [point(node("Mul", [gated, "scale"], "scaled"), "middle", 8, 8)], "active")
    weights["middle.w"] /= scale
    weights["flat"] = np.array([1, 8, PATCHES], np.int64)
    tokens = node("Transpose", [node("Reshape", [middle, "flat"], "rows")], "tokens", perm=[0, 2, 1])  # (1, P, 8)
    keys = node("Transpose", [linear(tokens, "key")], "keys", perm=[0, 2, 1])  # (1, 8, P)
    softmax = node("Softmax", [node("MatMul", [linear(tokens, "query"), keys], "alike")], "softmax", axis=2)
    mixed = node("Add", [node("MatMul", [softmax, tokens], "mix"), tokens], "mixed")
    head = linear(mixed, "head")
    node("Tanh", [head], OUTPUT)
    if options.largest_weight is not None:
        weights["stem.w"][0, 0, 0, 0] = options.largest_weight
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, SHAPE.height, SHAPE.width])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [1, PATCHES, SHAPE.channels])],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"onceover.backbone": json.dumps(tiny_metadata(SHAPE)), "note": "kept"})
    content: bytes = model.SerializeToString()
    return content


def network_inputs(count: int, first_seed: int = 0) -> list[NDArray[np.float32]]:
    """Tiny images as the session prepares them, (1, 3, 32, 48) each."""
    images = [tiny_image(first_seed + i) for i in range(count)]
    return [_core.prepare(image, SHAPE.height, SHAPE.width, MEAN, STD)[None] for image in images]


def features(graph: bytes, inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(n, 24, 8), by ONNX Runtime itself."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {session.get_inputs()[0].name: image})[0] for image in inputs]
    return np.concatenate(answers)


def clipped_graph(share: float) -> bytes:
    """The network with its first activations clipped to a share of their range: what a bad calibration does."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(gated_graph())
    for name, value in (("low", -share), ("high", share)):  # of tanh
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    wide = next(i for i, node in enumerate(model.graph.node) if node.name == "wide")
    model.graph.node[wide].output[0] = "unclipped"
    model.graph.node.insert(wide + 1, onnx.helper.make_node("Clip", ["unclipped", "low", "high"], ["wide"], "clip"))
    content: bytes = model.SerializeToString()
    return content


@dataclass(frozen=True)
class GatedCase:
    """A package of the network, and images to export it with."""

    package: Path
    train: Path  # its images
    near: Path  # normal images: scores close to each other
    graded: Path  # ever stronger defects: scores in an order that int8 keeps


def gated_case(root: Path) -> GatedCase:
    train = good_folder(root / "train/good", 2 * HELD_OUT)
    export.package(fit(train, FitOptions(backbone=gated_graph(), adapt=True)), root / "part.onceover")
    (root / "graded").mkdir()
    for i, share in enumerate((0, 0.2, 0.4, 1)):  # of white in the hole: scores 0.23 to 0.70
        image = tiny_image(400)
        image[HOLE] = np.rint(image[HOLE] * (1 - share) + 255 * share)
        write_image(root / f"graded/{i}.png", image)
    return GatedCase(root / "part.onceover", train, good_folder(root / "near", 16, 900), root / "graded")
