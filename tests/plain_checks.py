"""For the tests of plain ONNX files: packages, drawn and unusual ones, and engines that run a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_package import (
    MAP_STEP,
    TinyShape,
    read_members,
    tiny_config,
    tiny_graph,
    tiny_image,
    tiny_package,
    uncalibrated_bytes,
    write_members,
)

from onceover import _core, export
from onceover.detectors import BankSize
from onceover.export.to_plain_onnx import TOLERANCE
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions
from onceover.training.demo_parts import PRODUCTS
from onceover.training.demo_products import draw_part
from onceover.training.fit import FitOptions, fit

BANK_PARTS, HELD_OUT = 6, 19
OUTPUTS = ["score", "patch_scores", "anomaly_map", "nearest"]
Run = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


def drawn_part(index: int) -> NDArray[np.uint8]:
    """A good part of the first product, (SIZE, SIZE[, 3])."""
    return draw_part(PRODUCTS[0], None, "train/good", index).image


def drawn_defect(index: int) -> NDArray[np.uint8]:
    """A defective one; the kinds of defect take turns."""
    kinds = list(PRODUCTS[0].defects)
    kind = kinds[index % len(kinds)]
    return draw_part(PRODUCTS[0], kind, f"test/{kind}", index).image


def drawn_package(folder: Path) -> Path:
    """`drawn.onceover` in `folder`: the embedded backbone, 600 bank rows, calibrated on 19 parts."""
    (folder / "train").mkdir()
    for i in range(BANK_PARTS + HELD_OUT):
        write_image(folder / f"train/{i:02}.png", drawn_part(i))
    parts = fit(folder / "train", FitOptions(bank=BankSize(rows=600), holdout=HELD_OUT))
    export.package(parts, folder / "drawn.onceover")
    return folder / "drawn.onceover"


def changed_network(path: Path, change: Callable[[Any], None]) -> Path:
    """A tiny uncalibrated package whose network is changed in place before the bank is made of what it answers."""
    import onnx

    model = onnx.load_from_string(tiny_graph())
    change(model)
    graph: bytes = model.SerializeToString()
    config = tiny_config(TinyShape())
    embedder = _core.Embedder(config, graph, EngineOptions().resolve())
    members = read_members(tiny_package(path))
    members["graph.onnx"] = graph
    members["memory_bank"] = np.concatenate([embedder.embed(tiny_image(seed)) for seed in range(6)])
    members["calibration"] = uncalibrated_bytes()
    members["parity"] = _core.parity_bytes([], config, 1e-4, MAP_STEP)
    return write_members(path, members)


def offset_features(offset: float) -> Callable[[Any], None]:
    """A change of the network that adds a number to all of its features."""

    def change(model: Any) -> None:
        from onnx import helper, numpy_helper

        model.graph.node[-1].output[0] = "without_offset"
        model.graph.initializer.append(numpy_helper.from_array(np.array(offset, np.float32), "offset"))
        model.graph.node.append(helper.make_node("Add", ["without_offset", "offset"], ["embedding"]))

    return change


def engine_run(engine: str, path: Path) -> Run:
    """The file in an engine, in float32 on one thread: input → outputs by name."""
    if engine == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda given: dict(zip(OUTPUTS, session.run(OUTPUTS, {name: given}), strict=True))
    openvino = pytest.importorskip("openvino")
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}  # the default may be bfloat16
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    request = compiled.create_infer_request()

    def run(given: NDArray[Any]) -> dict[str, NDArray[Any]]:
        answers = request.infer([given])
        return {name: np.array(answers[name]) for name in OUTPUTS}

    return run


def network_input(inspector: Inspector, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    config = inspector.session.config
    return _core.prepare(image, config.height, config.width, config.mean, config.std)[None]


def assert_equal_to_session(answer: dict[str, NDArray[Any]], inspector: Inspector, image: NDArray[np.uint8]) -> None:
    """Score, patch scores and map within the promised tolerance, each value relative to itself."""
    result = inspector.session.run(image)
    patch_scores = inspector.session.patch_scores()
    tiny_part = 1e-2 * TOLERANCE * result.score  # of patches that are almost in the bank
    assert answer["score"].shape == (1,)
    assert answer["score"][0] == pytest.approx(result.score, rel=TOLERANCE)
    np.testing.assert_allclose(answer["patch_scores"][0, 0], patch_scores, rtol=TOLERANCE, atol=tiny_part)
    anomaly_map = inspector.session.anomaly_map()
    np.testing.assert_allclose(answer["anomaly_map"][0, 0], anomaly_map, rtol=TOLERANCE, atol=tiny_part)
