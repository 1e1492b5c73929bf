"""Any ONNX file → a backbone: cut behind the named taps, patch embedding joined on, checked against the file itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose, shape_inference, version_converter
from torch import nn

from onceover import _core
from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Normalization, StageInfo
from onceover.backbones.patch_embedding import join_stages
from onceover.backbones.weights import WeightsCard
from onceover.errors import EngineError, InputError, UsageError
from onceover.export.graph_cleaning import clean, inputs_of
from onceover.export.run_graph import run_graph
from onceover.export.taps import Tap, check_names, finest_first, last_of_each_stride, read_tap
from onceover.export.to_onnx import (
    INPUT_NAME,
    OPSET,
    OUTPUT_NAME,
    check_parity,
    describe,
    export_module,
    with_metadata,
)
from onceover.file_hash import file_hash

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OwnTrunk:
    """What a network of the user's own cannot say about itself.

    taps: names of values inside an ONNX file, of submodules of a torch module. card: None states an unknown origin.
    """

    taps: tuple[str, ...]
    height: int = 256
    width: int = 256
    normalization: Normalization = IMAGENET_NORMALIZATION
    aggregation: int = 3
    card: WeightsCard | None = field(default=None, compare=False)


def export_own_onnx(source: str | Path, trunk: OwnTrunk, output: Path) -> list[Tap]:
    """Write the backbone graph made from the ONNX file `source` to `output`; the taps found, finest first.

    The network must take one float32 image (1, 3, height, width), or leave those sizes open. Values inside are named
    as in the file. The result is proven: onnxruntime's taps of the file as it came, joined by torch, against it.

    Raises InputError for a file that is not such a network, UsageError and UnknownNameError for taps that are no
    feature maps, EngineError where the network does not run at this size, OutputError.
    """
    content, taps = graft(Path(source), trunk)
    _core.save_atomically(os.fspath(output), content)
    return taps


def graft(source: Path, trunk: OwnTrunk) -> tuple[bytes, list[Tap]]:
    """`export_own_onnx` without the writing."""
    network = _read(source)
    _fix_input(network, source, trunk.height, trunk.width)
    values = [name for node in network.graph.node for name in node.output if name]
    propose = partial(_proposals, network, trunk)
    check_names(trunk.taps, values, str(source), propose)
    _cut(network, trunk.taps)
    original = network.SerializeToString()
    shapes = [part.shape for part in _run(original, source, trunk, _zeros(trunk), trunk.taps)]
    taps = finest_first(
        read_tap(name, shape, trunk.height, trunk.width) for name, shape in zip(trunk.taps, shapes, strict=True)
    )
    head = Head(taps, trunk.aggregation)
    graph = clean(_joined(_with_opset(network, source), head, taps, source))
    content = with_metadata(graph, _facts(source, trunk, taps))

    def embedding(image: NDArray[np.float32]) -> NDArray[np.float32]:
        features = _run(original, source, trunk, image, [tap.name for tap in taps])
        with torch.inference_mode():
            joined: NDArray[np.float32] = head(*(torch.from_numpy(part) for part in features)).numpy()
        return joined

    check_parity(content, trunk.height, trunk.width, embedding, source.name)
    return content, taps


class Head(nn.Module):
    """Taps as the network gives them → patch embeddings (1, P, D)."""

    def __init__(self, taps: Sequence[Tap], aggregation: int) -> None:
        super().__init__()
        self.taps, self.aggregation = tuple(taps), aggregation

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        maps = [tap.as_map(part) for tap, part in zip(self.taps, features, strict=True)]
        return join_stages(maps, self.aggregation)


def _read(source: Path) -> Any:
    """The checked ModelProto, weights of other files included."""
    try:
        network = onnx.load(os.fspath(source))
        onnx.checker.check_model(network)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); check the path, and the data files") from error
    except Exception as error:  # protobuf's, onnx's and numpy's own
        raise InputError(f"{source}: not a valid ONNX file ({error}); export it again") from error
    foreign = {entry.domain for entry in network.opset_import if entry.domain not in STANDARD_DOMAINS}
    used = sorted({node.domain for node in network.graph.node if node.domain in foreign})
    if used or network.functions:
        raise InputError(
            f"{source}: uses operators outside the ONNX standard ({', '.join(used) or 'local functions'}), which not "
            "every engine has; export it without them (no quantization or fusion by a tool of one engine)"
        )
    return network


def _fix_input(network: Any, source: Path, height: int, width: int) -> None:
    """The one input gets the static shape (1, 3, height, width); UsageError where the file says another."""
    constants = {tensor.name for tensor in network.graph.initializer}
    inputs = [value for value in network.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise InputError(f"{source}: a backbone has one input, an image; this network has {len(inputs)}: {names}")
    kind = inputs[0].type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4:
        raise InputError(
            f"{source}: its input {inputs[0].name!r} must be float32 of shape (1, 3, height, width), normalized as "
            f"--mean and --std say; it has {len(sizes)} dimensions of type "
            f"{onnx.TensorProto.DataType.Name(kind.elem_type)}"
        )
    for size, wanted, what in zip(sizes, (1, 3, height, width), ("batch", "channels", "height", "width"), strict=True):
        if size not in (None, 0, wanted):
            raise UsageError(
                f"{source}: its input {inputs[0].name!r} has the fixed {what} {size}, needed: {wanted}; "
                "give the --height and --width it was exported with, or export it with open sizes and batch 1"
            )
    for dim, wanted in zip(kind.shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = wanted
    del network.graph.value_info[:]  # of other sizes


def _proposals(network: Any, trunk: OwnTrunk) -> list[Tap]:
    return last_of_each_stride(_shapes(network), trunk.height, trunk.width)


def _shapes(network: Any) -> dict[str, list[int]]:
    """The shape of every value, as far as ONNX's own inference finds it; 0 for what it does not find."""
    try:
        body = shape_inference.infer_shapes(network, data_prop=True).graph
    except Exception:  # a message of its own would hide what the user did wrong
        return {}
    found = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*body.value_info, *body.output)
    }
    return {name: found[name] for node in body.node for name in node.output if name in found}


def _cut(network: Any, taps: Sequence[str]) -> None:
    """Only what the taps need is kept, and the taps become the outputs."""
    needed, kept = set(taps), []
    for node in reversed(network.graph.node):  # ONNX lists nodes after what they read
        if needed & set(node.output):
            kept.append(node)
            needed |= inputs_of(node)
    kept.reverse()
    del network.graph.node[:], network.graph.output[:]
    network.graph.node.extend(kept)
    constants = [tensor for tensor in network.graph.initializer if tensor.name in needed]
    # Old files list constants among the inputs, where engines must take them for something that changes.
    inputs = [value for value in network.graph.input if value.name not in {tensor.name for tensor in constants}]
    inputs = [value for value in inputs if value.name in needed]
    del network.graph.initializer[:], network.graph.input[:]
    network.graph.initializer.extend(constants)
    network.graph.input.extend(inputs)
    network.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in taps)
    for value in network.graph.output:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def _zeros(trunk: OwnTrunk) -> NDArray[np.float32]:
    return np.zeros((1, 3, trunk.height, trunk.width), np.float32)


def _run(
    content: bytes, source: Path, trunk: OwnTrunk, image: NDArray[np.float32], taps: Sequence[str]
) -> list[NDArray[np.float32]]:
    """The taps of the file as it came."""
    name = onnx.load_from_string(content).graph.input[0].name
    try:
        return run_graph(content, {name: image}, taps)
    except EngineError as error:
        raise EngineError(
            f"{source}: does not run at {trunk.height}x{trunk.width} ({error}); give the --height and --width it was "
            "made for"
        ) from error


def _with_opset(network: Any, source: Path) -> Any:
    """The network in the opset of the patch embedding, or a later one of its own."""
    version = next(entry.version for entry in network.opset_import if entry.domain in STANDARD_DOMAINS)
    del network.opset_import[:]
    network.opset_import.append(onnx.helper.make_opsetid("", version))
    if version >= OPSET:
        return network
    try:
        return version_converter.convert_version(network, OPSET)
    except Exception as error:  # RuntimeError and others of the converter in C++
        raise InputError(
            f"{source}: cannot be brought from ONNX opset {version} to {OPSET} ({error}); export it with opset {OPSET}"
        ) from error


def _joined(network: Any, head: Head, taps: Sequence[Tap], source: Path) -> Any:
    """Network and patch embedding as one graph with our names at both ends."""
    version = network.opset_import[0].version
    features = tuple(torch.zeros(part) for part in (_shape(tap) for tap in taps))
    names = [f"tap{i}" for i in range(len(taps))]
    tail = export_module(head, features, names, version)
    tail.ir_version = network.ir_version = max(network.ir_version, tail.ir_version)
    try:
        graph = compose.merge_models(
            network,
            tail,
            io_map=[(tap.name, name) for tap, name in zip(taps, names, strict=True)],
            prefix1="net/",
            prefix2="embed/",
        )
    except Exception as error:
        raise InputError(f"{source}: cannot be joined with the patch embedding ({error})") from error
    _rename(graph.graph, graph.graph.input[0].name, INPUT_NAME)
    _rename(graph.graph, graph.graph.output[0].name, OUTPUT_NAME)
    return graph


def _shape(tap: Tap) -> tuple[int, ...]:
    """(1, …) of what the network gives."""
    if tap.order == "first":
        return 1, tap.channels, tap.height, tap.width
    if tap.order == "last":
        return 1, tap.height, tap.width, tap.channels
    return 1, tap.skipped + tap.height * tap.width, tap.channels


def _rename(body: Any, old: str, new: str) -> None:
    for node in body.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                _rename(branch, old, new)
    for value in (*body.input, *body.output):
        if value.name == old:
            value.name = new


def _facts(source: Path, trunk: OwnTrunk, taps: Sequence[Tap]) -> dict[str, Any]:
    card = trunk.card or WeightsCard(source.stem, "unknown source", "license not stated", "unknown", "")
    sha256 = file_hash(source, "graph")
    return describe(
        stages=[StageInfo(tap.name, tap.channels, tap.stride) for tap in taps],
        grid=(taps[0].height, taps[0].width),
        size=(trunk.height, trunk.width),
        aggregation=trunk.aggregation,
        normalization=trunk.normalization,
        card=replace(card, sha256=sha256, normalization=trunk.normalization),
        name=source.stem,
    )


__all__ = ["OwnTrunk", "export_own_onnx", "graft"]
