"""A patch embedding in torch → one ONNX file with everything a device must know about it in its metadata.

The graph has a static shape: engines run it faster, and one that was specialized by accident cannot happen. Paddings
that differ at both ends end up inside the convolutions (the exporter's FuseConvPad): MobileNetV2 at 256 takes 6.4 ms
instead of 10.1 ms with separate Pad nodes (onnxruntime 1.31, one thread, Xeon with AVX-512).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onceover import _core
from onceover.backbones import create_backbone
from onceover.backbones.checkpoints import WeightsFile
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.weights import WeightsCard, read_card
from onceover.errors import EngineError, UsageError, missing_extra

METADATA_KEY = "onceover.backbone"
METADATA_FORMAT = 1
INPUT_NAME, OUTPUT_NAME = "image", "patch_embedding"

OPSET = 18
IR_VERSION = 8  # the exporter writes 10, which engines before onnxruntime 1.18 refuse; nothing in the graph needs it

# Largest difference to torch over the largest value of the embedding. Two float32 programs that sum in another order
# were measured to differ by up to 1.1e-5 on MobileNetV2; a wrong padding or layout differs by more than 1e-1.
RELATIVE_TOLERANCE = 2e-5


def to_onnx(model: PatchEmbedding, height: int, width: int, card: WeightsCard, name: str) -> bytes:
    """The ONNX file: "image" (1, 3, height, width) → "patch_embedding" (1, P, D), float32, metadata included.

    The same model and torch give the same bytes. Raises UsageError for a size smaller than a patch of the coarsest
    stage, EngineError when onnxruntime does not reproduce torch within RELATIVE_TOLERANCE.
    """
    coarsest = model.backbone.stages[-1].stride
    if min(height, width) < coarsest:
        raise UsageError(
            f"height and width must be at least {coarsest}, one cell of the last stage; got {height}x{width}"
        )
    model.eval()  # a module left in train mode would be exported with its batch statistics
    graph = _cleaned(_exported(model, torch.zeros(1, 3, height, width)))
    entry = graph.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(describe(model, height, width, card, name), sort_keys=True, separators=(",", ":"))
    content: bytes = graph.SerializeToString(deterministic=True)
    check_parity(model, content, height, width)
    return content


def export_backbone(
    name: str,
    weights: Path | WeightsFile,
    output: Path,
    height: int = 256,
    width: int = 256,
    strides: tuple[int, ...] = (8, 16),
) -> Path:
    """Export the registered backbone `name` with the weights of a file to `output`, and answer `output`.

    The card inside says the normalization that is used, whether the weights or the architecture brought it.

    Raises what `create_backbone` and `to_onnx` raise, and OutputError; on failure no file is left behind.
    """
    model = PatchEmbedding(create_backbone(name, weights, strides))
    card = replace(read_card(weights), normalization=model.backbone.normalization)
    _core.save_atomically(str(output), to_onnx(model, height, width, card, name))
    return Path(output)


def describe(model: PatchEmbedding, height: int, width: int, card: WeightsCard, name: str) -> dict[str, Any]:
    """What the metadata says, as JSON values; `mean` and `std` are those of pixels scaled to 0 … 1."""
    grid_height, grid_width = model.patch_grid(height, width)
    return {
        "format": METADATA_FORMAT,
        "name": name,
        "height": height,
        "width": width,
        "channels": 3,
        "color": "rgb",
        "mean": list(model.backbone.normalization.mean),
        "std": list(model.backbone.normalization.std),
        "grid_height": grid_height,
        "grid_width": grid_width,
        "embedding_dim": model.embedding_dim,
        "strides": [stage.stride for stage in model.backbone.stages],
        "aggregation": model.aggregation,
        "weights": card.to_json(),
    }


def check_parity(model: PatchEmbedding, content: bytes, height: int, width: int) -> None:
    """Run the file in onnxruntime and the module in torch on the same noise; EngineError where they differ."""
    import onnxruntime

    noise = np.random.Generator(np.random.PCG64(0)).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (answer,) = session.run([OUTPUT_NAME], {INPUT_NAME: noise})
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise EngineError(f"onnxruntime cannot run the exported graph: {error}") from error
    with torch.inference_mode():
        expected = model(torch.from_numpy(noise)).numpy()
    if answer.shape != expected.shape:
        raise EngineError(f"the exported graph answers shape {answer.shape}, torch {expected.shape}")
    relative = float(np.abs(answer - expected).max() / np.abs(expected).max())
    if not relative <= RELATIVE_TOLERANCE:  # also true for NaN
        raise EngineError(f"the exported graph differs from torch by {relative:.1e}, allowed {RELATIVE_TOLERANCE:.0e}")


def _exported(model: PatchEmbedding, example: torch.Tensor) -> Any:
    """The exporter's own ModelProto."""
    for module in ("onnx", "onnxscript"):
        try:
            __import__(module)
        except ModuleNotFoundError as error:
            raise missing_extra(module, "train", "exporting to ONNX") from error
    with _silence():
        program = torch.onnx.export(
            model,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # only the deprecated exporter answers None
    return program.model_proto


def _cleaned(graph: Any) -> Any:
    """The same graph without what names this machine or this moment: stack traces, comments, inferred shapes."""
    body = graph.graph
    del graph.metadata_props[:], body.metadata_props[:], body.value_info[:]
    for part in (*body.node, *body.initializer, *body.input, *body.output):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.doc_string = body.doc_string = ""
    graph.ir_version = IR_VERSION
    graph.producer_name, graph.producer_version, body.name = "onceover", "", "patch_embedding"
    return graph


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter reports its progress and the absence of torchvision; neither is a user's concern."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


__all__ = ["METADATA_FORMAT", "METADATA_KEY", "check_parity", "describe", "export_backbone", "to_onnx"]
