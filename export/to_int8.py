"""A float32 graph → the same graph with int8 layers (QDQ), or with weights stored in float16.

What a quantized graph is worth is decided by anomaly scores, not here (export/acceptance.py). Methods: ONNX Runtime's
static quantization for ONNX Runtime, NNCF's for OpenVINO; both answer plain ONNX with QuantizeLinear and
DequantizeLinear, per channel for weights, calibrated by minimum and maximum: a percentile would clip the activations
that anomalies cause.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from onceover.errors import EngineError, InputError, missing_extra
from onceover.export.run_graph import run_graph

Tensor = NDArray[np.float32]
PRODUCTS = ("Conv", "MatMul", "Gemm")
# Where eight bits between the layers cost most; a plain CNN has none of them and is faster with its sums in int8.
CURVED = {"Softmax", "LayerNormalization", "Gelu", "Erf", "Sigmoid", "Mul"}
QUANTIZED_TYPES = {"QuantizeLinear", "DequantizeLinear"}
MOVES = {"Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}  # compute nothing
SENSITIVITY_IMAGES = 4
FLOAT16_MINIMUM = 64  # smaller tensors, biases and shapes among them, are not worth a node of their own


@dataclass(frozen=True)
class Rung:
    """One step of the fallback ladder: a name, and the nodes that stay in float32."""

    name: str
    excluded: tuple[str, ...]


def named(graph: bytes) -> bytes:
    """The same graph in which every node has a unique name, by which it can be left out."""
    model = onnx.load_from_string(graph)
    seen: set[str] = set()
    for i, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{i}"
        seen.add(node.name)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def quantize(
    graph: bytes, images: Sequence[Tensor], engine: str, excluded: Sequence[str] = (), ranges: Path | None = None
) -> bytes:
    """The graph in int8, for an engine; `images` (1, 3, H, W), normalized, calibrate its activations.

    ranges: a file that keeps what ONNX Runtime measured of them, so that another call with the same graph and images
    need not do it again; made by the first call.

    The metadata of the graph is kept; the same images in the same order give the same bytes. Raises MissingExtraError
    without NNCF where it is needed, InputError for no images or a graph that already is in int8, EngineError where a
    quantizer fails.
    """
    if not images:
        raise InputError("int8 needs images of normal parts to calibrate with; give --calibration DIR")
    model = onnx.load_from_string(named(graph))
    if QUANTIZED_TYPES & {node.op_type for node in model.graph.node}:
        raise InputError("the graph already is in int8; quantize the float32 package it was made from")
    metadata = [(entry.key, entry.value) for entry in model.metadata_props]
    with _quietly():
        if engine == "openvino":
            quantized = _by_nncf(model, images, list(excluded))
        else:
            quantized = _by_onnxruntime(model, images, list(excluded), None, ranges)
    del quantized.metadata_props[:]
    onnx.helper.set_model_props(quantized, dict(metadata))
    _make_deterministic(quantized)
    content: bytes = quantized.SerializeToString(deterministic=True)
    return content


def _by_onnxruntime(
    model: Any, images: Sequence[Tensor], excluded: list[str], only: list[str] | None, ranges: Path | None
) -> Any:
    """Activations uint8, weights int8: what its kernels for x86 and ARM take without conversion."""
    from onnxruntime import quantization

    keeps_ranges = "calibration_cache_path" in inspect.signature(quantization.quantize_static).parameters
    kept = {"calibration_cache_path": ranges} if ranges is not None and keeps_ranges else {}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, Tensor] | None:
            image = next(self.images, None)
            return None if image is None else {model.graph.input[0].name: image}

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "int8.onnx")
        try:
            quantization.quantize_static(
                model,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=excluded,
                nodes_to_quantize=only,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                **kept,
            )
        except Exception as error:  # it raises whatever its parts raise
            raise EngineError(f"ONNX Runtime cannot quantize the graph: {error}") from error
        return onnx.load(path)


def _by_nncf(model: Any, images: Sequence[Tensor], excluded: list[str]) -> Any:
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise missing_extra("nncf", "int8", "int8 for OpenVINO") from error
    dataset = nncf.Dataset(list(images), lambda image: {model.graph.input[0].name: image})
    settings = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    )
    try:
        return nncf.quantize(
            model,
            dataset,
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=excluded) if excluded else None,
            advanced_parameters=settings,
        )
    except Exception as error:
        raise EngineError(f"NNCF cannot quantize the graph: {error}") from error


def _make_deterministic(model: Any) -> None:
    """Nothing of the quantizer's own: versions, comments, inferred shapes."""
    model.producer_name, model.producer_version, model.doc_string = "onceover", "", ""
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def ladder(
    graph: bytes,
    images: Sequence[Tensor],
    progress: Callable[[str, int, int], None],
    adaptation: Tensor | None = None,
) -> Iterator[Rung]:
    """What to try, from all layers in int8 to ever fewer; a rung that changes nothing or leaves none is left out.

    The last two need the sensitivity of every layer, which is measured when they are asked for. adaptation: (D, D), by
    which embeddings are multiplied before they are compared.
    """
    model = onnx.load_from_string(named(graph))
    shapes = _shapes(model)
    nodes = list(model.graph.node)
    layers = [node.name for node in nodes if node.op_type in PRODUCTS]
    gates = {
        node.name for node in nodes if node.op_type == "Conv" and tuple(shapes.get(node.output[0], ())[2:]) == (1, 1)
    }
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in nodes if node.op_type == "Constant" for name in node.output}
    attention = {
        node.name
        for node in nodes
        if node.op_type == "Softmax" or (node.op_type == "MatMul" and not constants & set(node.input))
    }
    excluded: set[str] = set()

    def without(name: str, more: set[str]) -> Iterator[Rung]:
        if more - excluded and set(layers) - excluded - more:
            excluded.update(more)
            yield Rung(name, tuple(sorted(excluded)))

    yield Rung("every layer", ())
    if CURVED & {node.op_type for node in nodes}:
        yield from without("nothing between the layers", {node.name for node in nodes} - set(layers) | attention)
    yield from without("but the first layer and gates", {*layers[:1]} | gates)
    order = by_sensitivity(graph, images[:SENSITIVITY_IMAGES], progress, adaptation)
    yield from without("and the most fragile quarter", set(order[: len(order) // 4]))
    yield from without("and the most fragile half", set(order[: len(order) // 2]))


def by_sensitivity(
    graph: bytes,
    images: Sequence[Tensor],
    progress: Callable[[str, int, int], None],
    adaptation: Tensor | None = None,
) -> list[str]:
    """The layers, most fragile first: the relative error of the embeddings with this layer alone in int8."""
    content = named(graph)
    body = onnx.load_from_string(content).graph
    layers = [node.name for node in body.node if node.op_type in PRODUCTS]
    name, output = body.input[0].name, body.output[0].name
    expected = [run_graph(content, {name: image}, [output])[0] for image in images]
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, layer in enumerate(layers):
            with _quietly():
                model = _by_onnxruntime(onnx.load_from_string(content), images, [], [layer], Path(folder, "ranges"))
            alone = model.SerializeToString()
            answers = [run_graph(alone, {name: image}, [output])[0] for image in images]
            errors[layer] = max(_relative(a, e, adaptation) for a, e in zip(answers, expected, strict=True))
            progress("sensitivity of layers", i + 1, len(layers))
    return sorted(layers, key=lambda layer: (-errors[layer], layer))


def _relative(actual: Tensor, expected: Tensor, adaptation: Tensor | None = None) -> float:
    """L2 error over L2 deviation from the mean patch: each channel scaled by its own deviation, or all as adapted."""
    if adaptation is not None:
        actual, expected = actual @ adaptation, expected @ adaptation  # (1, P, D)
        deviation = expected - expected.mean(axis=1, keepdims=True)
        return float(np.linalg.norm(actual - expected) / (np.linalg.norm(deviation) + 1e-12))
    scale = expected.std(axis=1, keepdims=True) + 1e-12  # (1, 1, D) over the patches
    return float(np.sqrt((((actual - expected) / scale) ** 2).mean()))


def _shapes(model: Any) -> dict[str, list[int]]:
    body = shape_inference.infer_shapes(model).graph
    values = (*body.value_info, *body.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def store_float16(graph: bytes) -> bytes:
    """The graph with its large float32 constants in float16, made float32 again when it is loaded: half the size.

    Computation stays in float32. Raises InputError for a constant that float16 cannot hold.
    """
    model = onnx.load_from_string(graph)
    body, casts = model.graph, []
    for tensor in body.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < FLOAT16_MINIMUM:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise InputError(f"the weights {tensor.name!r} have values above 65504, which float16 cannot hold")
        half, original = f"{tensor.name}/float16", tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(onnx.helper.make_node("Cast", [half], [original], f"{original}/cast", to=onnx.TensorProto.FLOAT))
    nodes = list(body.node)
    del body.node[:]
    body.node.extend([*casts, *nodes])
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def quantized_share(graph: bytes) -> tuple[int, int]:
    """Layers both of whose factors come out of a DequantizeLinear (moved at most), and all layers."""
    nodes = onnx.load_from_string(graph).graph.node  # in an order in which they can be run
    whole: set[str] = set()
    for node in nodes:
        if node.op_type == "DequantizeLinear" or (node.op_type in MOVES and node.input[0] in whole):
            whole.update(node.output)
    layers = [node for node in nodes if node.op_type in PRODUCTS]
    return sum(whole.issuperset(node.input[:2]) for node in layers), len(layers)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Quantizers print progress and advice of their own."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


__all__ = ["Rung", "by_sensitivity", "ladder", "named", "quantize", "quantized_share", "store_float16"]
