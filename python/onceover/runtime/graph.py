"""Exported backbones: ONNX graphs that say of themselves what goes in and what comes out. Never torch."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onceover.errors import InputError, MissingExtraError, UsageError, unknown_name
from onceover.runtime.resizing import resized_graph
from onceover.runtime.self_contained import check_self_contained
from onceover.types import GraphSpec, Preprocessing

METADATA_KEY = "onceover.backbone"
METADATA_FORMAT = 1

# Backbones that ship inside onceover, as files of onceover/embedded: best first, by accuracy as measured here
# (docs/weights.md). `fit --backbone auto` takes the first that is fast enough; "auto" itself is no name.
EMBEDDED: Mapping[str, str] = {"emo_1m": "emo_1m.onnx", "mobilenetv4_conv_small": "mobilenetv4_conv_small.onnx"}
DEFAULT_BACKBONE = "emo_1m"

_MAX_SIDE = 4096
_MAX_EMBEDDING_DIM = 65536


def load_graph(backbone: str | Path | bytes) -> tuple[bytes, GraphSpec]:
    """An ONNX file, its bytes, or the name of an embedded backbone → (graph, what it says of itself).

    A name with a path separator or the ending .onnx is a file. Raises InputError, UnknownNameError.
    """
    if isinstance(backbone, bytes):
        return backbone, read_graph_spec(backbone, "graph")
    text = str(backbone)
    if isinstance(backbone, str) and not text.endswith(".onnx") and Path(text).name == text:
        return _load_embedded(text)
    try:
        graph = Path(backbone).read_bytes()
    except OSError as error:
        raise InputError(
            f"{backbone}: cannot read the graph ({error.strerror}); export one with `onceover export backbone`"
        ) from error
    return graph, read_graph_spec(graph, text)


def _load_embedded(name: str) -> tuple[bytes, GraphSpec]:
    if name not in EMBEDDED:
        error = unknown_name("embedded backbone", name, EMBEDDED)
        export = "onceover export backbone NAME --weights FILE -o NAME.onnx"
        raise type(error)(f"{error}. Any other one is a file, made by `{export}`")
    try:
        graph = importlib.resources.files("onceover").joinpath("embedded").joinpath(EMBEDDED[name]).read_bytes()
    except OSError as error:
        raise InputError(
            f"the embedded backbone {name!r} is missing from this installation ({error}); reinstall onceover"
        ) from error
    return graph, read_graph_spec(graph, name)


def read_graph_spec(graph: bytes, label: str) -> GraphSpec:
    """What the graph's metadata says, checked. label names the graph in messages.

    Raises InputError when it is not ONNX, needs other files or custom operators, was not exported by onceover, or says
    something that cannot be.
    """
    check_self_contained(graph, label)
    text = _read_metadata(graph, label).get(METADATA_KEY)
    if text is None:
        raise InputError(
            f"{label}: has no metadata {METADATA_KEY!r}, so its input size and normalization are unknown; "
            "export it with `onceover export backbone`"
        )
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{label}: metadata {METADATA_KEY!r} is not JSON ({error}); export it again") from error
    if not isinstance(fields, dict):
        raise InputError(f"{label}: metadata {METADATA_KEY!r} is not a JSON object; export it again")
    return _Fields(fields, label).spec()


def resize(graph: bytes, spec: GraphSpec, height: int, width: int) -> tuple[bytes, GraphSpec]:
    """The graph and its description for images of another size; the very ones for their own.

    UsageError where the graph is not resizable, or not to that size.
    """
    own = spec.preprocessing
    if (height, width) == (own.height, own.width):
        return graph, spec
    size = f"{width}x{height}" if width != height else str(width)
    if not spec.resizable:
        raise UsageError(
            f"backbone {spec.name} was exported for images of {own.width}x{own.height}; for {size} export it again: "
            f"onceover export backbone {spec.name} --weights FILE --height {height} --width {width} (or --resizable)"
        )
    if spec.sides and (height != width or height not in spec.sides):
        listed = ", ".join(map(str, spec.sides))
        raise UsageError(f"backbone {spec.name} attends in windows: its input size must be one of {listed}, got {size}")
    if not all(side % spec.resizable == 0 and spec.resizable <= side <= _MAX_SIDE for side in (height, width)):
        raise UsageError(
            f"backbone {spec.name}: the input size must be a multiple of {spec.resizable} up to {_MAX_SIDE}, got {size}"
        )
    changed = replace(
        spec,
        preprocessing=replace(own, height=height, width=width),
        grid_height=height // spec.strides[0],
        grid_width=width // spec.strides[0],
    )
    facts = json.loads(_read_metadata(graph, spec.name)[METADATA_KEY])
    facts |= {"height": height, "width": width, "grid_height": changed.grid_height, "grid_width": changed.grid_width}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    answer = (1, changed.grid_height * changed.grid_width, spec.embedding_dim)
    constants = facts.get("constants", {}).get(str(height), {})
    return resized_graph(graph, (1, 3, height, width), answer, constants, METADATA_KEY, text), changed


def _read_metadata(graph: bytes, label: str) -> dict[str, str]:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "reading a graph needs the module 'onnxruntime'; install it with: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # only metadata is wanted
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # As csrc/engines does: a graph in memory never reads files of the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise InputError(
            f"{label}: not an ONNX graph that onnxruntime {onnxruntime.__version__} can load ({error}); "
            "export it with `onceover export backbone`"
        ) from error
    return dict(session.get_modelmeta().custom_metadata_map)


class _Fields:
    """Typed access to the metadata; every complaint names graph, field, expected and got."""

    def __init__(self, fields: dict[str, Any], label: str) -> None:
        self.fields, self.label = fields, label

    def spec(self) -> GraphSpec:
        self.exactly("format", METADATA_FORMAT)
        self.exactly("channels", 3)
        self.exactly("color", "rgb")
        self.exactly("aggregation", 3)
        name, weights, strides = self.fields.get("name"), self.fields.get("weights"), self.fields.get("strides")
        if not isinstance(name, str) or not name:
            self.refuse("name", "a text", name)
        if not isinstance(weights, dict):
            self.refuse("weights", "a weights card", weights)
        if not isinstance(strides, list) or not strides or not all(_is_integer(s, 1, _MAX_SIDE) for s in strides):
            self.refuse("strides", "a list of whole numbers", strides)
        height, width = self.integer("height", 8, _MAX_SIDE), self.integer("width", 8, _MAX_SIDE)
        preprocessing = Preprocessing(height, width, self.triple("mean", -1e3), self.triple("std", 1e-6))
        return GraphSpec(
            name=str(name),
            preprocessing=preprocessing,
            grid_height=self.integer("grid_height", 1, height),
            grid_width=self.integer("grid_width", 1, width),
            embedding_dim=self.integer("embedding_dim", 1, _MAX_EMBEDDING_DIM),
            strides=tuple(strides or ()),
            weights=dict(weights or {}),
            resizable=self.integer("resizable", 0, _MAX_SIDE) if "resizable" in self.fields else 0,
            sides=self.sides(),
        )

    def sides(self) -> tuple[int, ...]:
        """Of the constants for other sizes: side → name → values."""
        table = self.fields.get("constants", {})
        if not isinstance(table, dict) or not all(
            side.isdecimal()
            and isinstance(constants, dict)
            and all(
                isinstance(v, list) and all(_is_integer(x, -1, _MAX_SIDE**2) for x in v) for v in constants.values()
            )
            for side, constants in table.items()
        ):
            self.refuse("constants", "lists of whole numbers by side and name", table)
        return tuple(sorted(map(int, table)))

    def refuse(self, field: str, expected: str, got: Any) -> None:
        raise InputError(
            f"{self.label}: metadata {METADATA_KEY!r}: {field} must be {expected}, got {got!r}; "
            "export it again with this version of onceover"
        )

    def exactly(self, field: str, expected: Any) -> None:
        if self.fields.get(field) != expected:
            self.refuse(field, repr(expected), self.fields.get(field))

    def integer(self, field: str, smallest: int, largest: int) -> int:
        value = self.fields.get(field)
        if not _is_integer(value, smallest, largest):
            self.refuse(field, f"a whole number from {smallest} to {largest}", value)
        return int(value)  # type: ignore[arg-type]

    def triple(self, field: str, smallest: float) -> tuple[float, float, float]:
        value = self.fields.get(field)
        if not isinstance(value, list) or len(value) != 3 or not all(_is_number(v, smallest) for v in value):
            self.refuse(field, f"three numbers from {smallest:g} to 1000", value)
        red, green, blue = (float(v) for v in value or ())
        return red, green, blue


def _is_integer(value: Any, smallest: int, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= largest


def _is_number(value: Any, smallest: float) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and smallest <= value <= 1e3


__all__ = ["DEFAULT_BACKBONE", "EMBEDDED", "METADATA_KEY", "load_graph", "read_graph_spec", "resize"]
