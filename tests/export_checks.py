"""Exported graphs against torch, in ONNX Runtime and in OpenVINO, with static and with dynamic sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onceover.backbones.backbone import Backbone
from onceover.backbones.folding import folded
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.weights import WeightsCard
from onceover.export import to_onnx as exporter

CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)
ENGINES = ("onnxruntime", "openvino")
Image = NDArray[np.float32]


def compiled(engine: str, content: bytes) -> Callable[[Image], list[NDArray[Any]]]:
    """The graph in an engine, in float32 on one thread: an image → the outputs."""
    if engine == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda image: [np.asarray(part) for part in session.run(None, {name: image})]
    openvino = pytest.importorskip("openvino")
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}  # the default may be bfloat16
    model = openvino.Core().compile_model(openvino.Core().read_model(content), "CPU", hints)
    request = model.create_infer_request()

    def run(image: Image) -> list[NDArray[Any]]:
        answers = request.infer([image])
        return [np.array(answers[output]) for output in model.outputs]

    return run


def static_graph(model: Backbone, height: int, width: int) -> bytes:
    """The exported patch embedding, as a user exports it."""
    return exporter.to_onnx(PatchEmbedding(model), height, width, CARD, "tiny")


def dynamic_graph(model: Backbone, height: int, width: int) -> bytes:
    """The folded stages with batch, height and width left open, traced at a size."""
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with exporter._silence():
        program = torch.onnx.export(
            folded(model),
            (torch.zeros(2, 3, height, width),),
            opset_version=exporter.OPSET,
            dynamo=True,
            dynamic_shapes=(dynamic,),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def error(run: Callable[[Image], list[NDArray[Any]]], model: torch.nn.Module, shape: Sequence[int]) -> float:
    """The largest difference to torch on noise of this shape, relative to the largest value of the same output."""
    image = np.random.default_rng(shape[2]).standard_normal(shape).astype(np.float32)
    with torch.inference_mode():
        answers = copy.deepcopy(model).eval()(torch.from_numpy(image))
    expected = [part.numpy() for part in (answers if isinstance(answers, list) else [answers])]
    actual = run(image)
    assert [part.shape for part in actual] == [part.shape for part in expected]
    return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in zip(actual, expected, strict=True))


def static_errors(model: Backbone, height: int, width: int) -> dict[str, float]:
    """By engine, of the graph a user exports."""
    content, shape = static_graph(model, height, width), (1, 3, height, width)
    return {engine: error(compiled(engine, content), PatchEmbedding(model), shape) for engine in ENGINES}


def dynamic_errors(
    model: Backbone, traced: tuple[int, int], shapes: Iterable[tuple[int, int, int]]
) -> dict[str, float]:
    """By engine, the worst over images of (batch, height, width) of one dynamic graph."""
    content, shapes = dynamic_graph(model, *traced), list(shapes)
    errors = {}
    for engine in ENGINES:
        run = compiled(engine, content)
        errors[engine] = max(error(run, model, (batch, 3, height, width)) for batch, height, width in shapes)
    return errors


__all__ = ["ENGINES", "compiled", "dynamic_errors", "dynamic_graph", "error", "static_errors", "static_graph"]
