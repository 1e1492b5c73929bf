"""A patch embedding in torch → one ONNX file with everything a device must know about it in its metadata.

The graph has a static shape: engines run it faster, and one that was specialized by accident cannot happen. One that is
resizable has nodes that work at any size, so that only its ends must be changed for another one. Paddings
that differ at both ends end up inside the convolutions (the exporter's FuseConvPad): MobileNetV2 at 256 takes 6.4 ms
instead of 10.1 ms with separate Pad nodes (onnxruntime 1.31, one thread, Xeon with AVX-512).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onceover import _core
from onceover.backbones import best_window, create_backbone, has_windows
from onceover.backbones.backbone import Normalization, StageInfo
from onceover.backbones.checkpoints import WeightsFile
from onceover.backbones.folding import folded
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.projected import is_taught
from onceover.backbones.weights import WeightsCard, load_weights, read_card
from onceover.errors import EngineError, UsageError, missing_extra
from onceover.export.graph_cleaning import clean
from onceover.export.resizable import WINDOW_SIDES, constants_by_side, make_resizable
from onceover.export.run_graph import run_graph
from onceover.runtime.graph import read_graph_spec, resize

METADATA_KEY = "onceover.backbone"
METADATA_FORMAT = 1
INPUT_NAME, OUTPUT_NAME = "image", "patch_embedding"

OPSET = 20  # the first with GELU as one node: with 18, engines compute it in five passes over memory

# Largest difference to torch over the largest value of the embedding. Two float32 programs that sum in another order
# were measured to differ by up to 1.1e-5 on MobileNetV2; a wrong padding or layout differs by more than 1e-1.
RELATIVE_TOLERANCE = 2e-5


def to_onnx(
    model: PatchEmbedding, height: int, width: int, card: WeightsCard, name: str, resizable: bool = False
) -> bytes:
    """The ONNX file: "image" (1, 3, height, width) → "patch_embedding" (1, P, D), float32, metadata included.

    resizable: `runtime.graph.resize` can make one for another size of it; with attention windows, of WINDOW_SIDES.

    Norms are folded into the layers beside them first. The same model and torch give the same bytes. Raises UsageError
    for a size smaller than a patch of the coarsest stage, EngineError when onnxruntime does not reproduce torch within
    RELATIVE_TOLERANCE.
    """
    coarsest = model.backbone.stages[-1].stride
    if min(height, width) < coarsest:
        raise UsageError(
            f"height and width must be at least {coarsest}, one cell of the last stage; got {height}x{width}"
        )
    content = _write(model, height, width, card, name, resizable)
    _check_against_torch(content, model, height, width)
    if resizable:
        spec = read_graph_spec(content, name)
        multiple = spec.resizable
        for size in [(side, side) for side in spec.sides] or [(height + 2 * multiple, width + multiple)]:
            _check_against_torch(resize(content, spec, *size)[0], model, *size)
    return content


def _write(
    model: PatchEmbedding, height: int, width: int, card: WeightsCard, name: str, resizable: bool = False
) -> bytes:
    model.eval()  # a module left in train mode would be exported with its batch statistics
    strides = [stage.stride for stage in model.backbone.stages]
    graph = _graph(model, height, width)
    facts = describe(
        stages=model.backbone.stages,
        grid=model.patch_grid(height, width),
        size=(height, width),
        aggregation=model.aggregation,
        normalization=model.backbone.normalization,
        card=card,
        name=name,
    )
    if resizable and has_windows(name):
        if height != width or height not in WINDOW_SIDES:
            raise UsageError(f"a resizable network with attention windows is exported at one of {WINDOW_SIDES}, square")
        graphs = {side: graph if side == height else _graph(model, side, side) for side in WINDOW_SIDES}
        facts |= {"resizable": max(strides), "constants": constants_by_side(graphs)}
    elif resizable:
        facts["resizable"] = make_resizable(graph, strides)
    return with_metadata(clean(graph), facts)


def _graph(model: PatchEmbedding, height: int, width: int) -> Any:
    return clean(export_module(folded(model), (torch.zeros(1, 3, height, width),), [INPUT_NAME]))


def _check_against_torch(content: bytes, model: PatchEmbedding, height: int, width: int) -> None:
    with torch.inference_mode():
        check_parity(content, height, width, lambda image: model(torch.from_numpy(image)).numpy(), "torch")


def untrained(name: str, height: int = 256, width: int = 256, window: int | None = None) -> bytes:
    """The registered backbone `name` as `export_backbone` writes it, but with seeded random weights.

    For measuring: the time does not depend on weights. Raises what `create_backbone` raises.
    """
    if window is None and has_windows(name):
        window = best_window(height, width)
    model = PatchEmbedding(create_backbone(name, None, random_init_seed=0, window=window))
    return _write(model, height, width, WeightsCard(name, "random numbers", "none", "none", ""), name)


def export_backbone(
    name: str,
    weights: Path | WeightsFile,
    output: Path,
    height: int = 256,
    width: int = 256,
    strides: tuple[int, ...] = (8, 16),
    window: int | None = None,
    resizable: bool = False,
) -> Path:
    """Export the registered backbone `name` with the weights of a file to `output`, and answer `output`.

    window: side of attention windows in cells, None for the one that needs less padding at this size (`best_window`),
    or the published one where `pretrain` taught the weights with it: EMO's windows are spread over the whole image, and
    with others its features are not those that were taught (on PCB, AUPRO 0.32 instead of 0.65).
    The card inside says the normalization that is used, whether the weights or the architecture brought it.

    Raises what `create_backbone` and `to_onnx` raise, and OutputError; on failure no file is left behind.
    """
    if window is None and has_windows(name) and not is_taught(load_weights(weights)):
        window = best_window(height, width)
    model = PatchEmbedding(create_backbone(name, weights, strides, window=window))
    card = replace(read_card(weights), normalization=model.backbone.normalization)
    _core.save_atomically(str(output), to_onnx(model, height, width, card, name, resizable))
    return Path(output)


def describe(
    stages: Sequence[StageInfo],
    grid: tuple[int, int],
    size: tuple[int, int],
    aggregation: int,
    normalization: Normalization,
    card: WeightsCard,
    name: str,
) -> dict[str, Any]:
    """What the metadata says, as JSON values; `mean` and `std` are those of pixels scaled to 0 … 1."""
    return {
        "format": METADATA_FORMAT,
        "name": name,
        "height": size[0],
        "width": size[1],
        "channels": 3,
        "color": "rgb",
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "grid_height": grid[0],
        "grid_width": grid[1],
        "embedding_dim": sum(stage.channels for stage in stages),
        "strides": [stage.stride for stage in stages],
        "aggregation": aggregation,
        "weights": card.to_json(),
    }


def with_metadata(graph: Any, facts: Mapping[str, Any]) -> bytes:
    """The ModelProto as bytes, with what a device must know."""
    entry = graph.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def check_parity(
    content: bytes, height: int, width: int, original: Callable[[NDArray[np.float32]], NDArray[Any]], label: str
) -> None:
    """Run the file and the original it was made from on the same noise; EngineError where they differ."""
    noise = np.random.Generator(np.random.PCG64(0)).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    (answer,) = run_graph(content, {INPUT_NAME: noise}, [OUTPUT_NAME])
    expected = original(noise)
    if answer.shape != expected.shape:
        raise EngineError(f"the exported graph answers shape {answer.shape}, {label} {expected.shape}")
    relative = float(np.abs(answer - expected).max() / np.abs(expected).max())
    if not relative <= RELATIVE_TOLERANCE:  # also true for NaN
        raise EngineError(
            f"the exported graph differs from {label} by {relative:.1e}, allowed {RELATIVE_TOLERANCE:.0e}"
        )


def export_module(
    module: nn.Module, example: tuple[torch.Tensor, ...], inputs: Sequence[str], opset: int = OPSET
) -> Any:
    """The exporter's own ModelProto, not cleaned; MissingExtraError where it is not installed."""
    for needed in ("onnx", "onnxscript"):
        try:
            __import__(needed)
        except ModuleNotFoundError as error:
            raise missing_extra(needed, "train", "exporting to ONNX") from error
    with _silence():
        program = torch.onnx.export(
            module,
            example,
            input_names=list(inputs),
            output_names=[OUTPUT_NAME],
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # only the deprecated exporter answers None
    return program.model_proto


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


__all__ = [
    "INPUT_NAME",
    "METADATA_FORMAT",
    "METADATA_KEY",
    "OPSET",
    "OUTPUT_NAME",
    "check_parity",
    "describe",
    "export_backbone",
    "export_module",
    "to_onnx",
    "untrained",
    "with_metadata",
]
