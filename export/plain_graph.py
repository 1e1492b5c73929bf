"""A package's scoring and anomaly map as plain ONNX operators behind its network, for engines without our scorer.

Every operator means the same from opset 13 on (ReduceMax is used without axes, which moved in opset 18). Shapes are
static. Two decisions keep float32 exact enough:

- |q − b|² = |q|² + |b|² − 2 q·b cancels where features share a large offset, so bank and queries are centered by the
  bank's mean, which changes no distance. |q|² is the same for all rows of a query and is left out.
- What the expansion finds is only the row. Its distance is computed from the difference q − b, so that a patch of the
  bank scores 0, and a patch close to it does not score rounding noise (which would be of the order of 1e-3 · |q|).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import InputError, UsageError
from onceover.export.graph_cleaning import IR_VERSION

SMALLEST_OPSET = 13  # ReduceSum takes its axes as an input from here on
LAST_OPSET_OF_IR = 20  # later opsets need a newer IR_VERSION
STANDARD_DOMAINS = ("", "ai.onnx")
BLUR_TRUNCATION = 4.0  # sigmas, as csrc/image/anomaly_map.h


@dataclass(frozen=True)
class PlainParts:
    """What goes into the graph.

    rows: float32 (M, D), those that are searched. numbers: int64 (M,), for each its row in the package. chunk_rows: of
    the bank that are compared at a time. adaptation: float32 (D, D), behind the network; None: nothing.
    position_weights: float32 (h, w), by which distances are multiplied; None: nothing.
    """

    network: bytes
    config: _core.Config
    rows: NDArray[np.float32]
    numbers: NDArray[np.int64]
    chunk_rows: int
    raw_pixels: bool
    adaptation: NDArray[np.float32] | None = None
    position_weights: NDArray[np.float32] | None = None

    @property
    def patches(self) -> int:
        return self.config.grid_height * self.config.grid_width


def chunk_rows(patches: int, dims: int, max_elements: int) -> int:
    """The most rows with (patches, rows) and (rows, dims) of at most max_elements; UsageError where none fits."""
    rows = min(max_elements // patches, max_elements // dims)
    if rows < 1 or max_elements >= 2**31:
        raise UsageError(
            f"max_elements is {max_elements}, expected {max(patches, dims)} (one row of the memory bank against "
            f"{patches} patches of {dims} values) to {2**31 - 1}"
        )
    return rows


def build(parts: PlainParts) -> Any:
    """The ModelProto: "image" or "pixels" → score, patch_scores, anomaly_map, nearest."""
    from onnx import compose, load_from_string

    source = load_from_string(parts.network)
    opset = _opset(source)
    # Prefixed, so that no value of the network can have the name of one of ours.
    model = compose.add_prefix(source, "network/")
    body = model.graph
    entrance, embeddings = body.input[0].name, body.output[0].name
    del body.input[:], body.output[:], model.opset_import[:], model.metadata_props[:]
    nodes = _Nodes()
    given = _pixels(nodes, parts, entrance) if parts.raw_pixels else _image(nodes, parts, entrance)
    head, nodes.made = nodes.made, []
    squared, nearest = _nearest_rows(nodes, parts, embeddings)
    answers = _answers(nodes, parts, squared, nearest)
    network = list(body.node)
    del body.node[:]
    body.node.extend([*head, *network, *nodes.made])
    body.initializer.extend(nodes.constants)
    body.input.append(given)
    body.output.extend(answers)
    model.opset_import.append(opset)
    if opset.version <= LAST_OPSET_OF_IR:
        model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name, model.producer_version, body.name = "onceover", "", "inspection"
    return model


class _Nodes:
    """Nodes and constants in the order they were added; names are paths, so that a viewer shows what belongs where."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._node, self._tensor = helper.make_node, numpy_helper.from_array
        self.made: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str, attributes: dict[str, Any] | None = None) -> str:
        self.made.append(self._node(operator, inputs, [output], name=output, **(attributes or {})))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(self._tensor(np.ascontiguousarray(values), name))
        return name

    def shaped(self, value: str, shape: tuple[int, ...], output: str) -> str:
        return self.add("Reshape", [value, self.constant(f"{output}/shape", np.array(shape, np.int64))], output)


def _opset(model: Any) -> Any:
    """The opset of the network; InputError for one that is too old, or operators that other engines do not have."""
    from onnx import helper

    foreign = {node.domain for node in _nodes_of(model.graph)} - set(STANDARD_DOMAINS)
    if foreign or model.functions:
        raise InputError(
            f"the package's network uses operators of {', '.join(sorted(foreign)) or 'its own functions'}, which other "
            "engines do not have; export the backbone with standard operators and fit again"
        )
    version = next(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
    if version < SMALLEST_OPSET:
        raise InputError(
            f"the package's network is of ONNX opset {version}, expected at least {SMALLEST_OPSET}; export the "
            "backbone again and fit with it"
        )
    return helper.make_opsetid("", version)


def _nodes_of(body: Any) -> list[Any]:
    """All nodes, also inside branches and loops."""
    inner = [
        branch for node in body.node for attribute in node.attribute for branch in (attribute.g, *attribute.graphs)
    ]
    return [*body.node, *(node for branch in inner for node in _nodes_of(branch))]


def _image(nodes: _Nodes, parts: PlainParts, entrance: str) -> Any:
    from onnx import TensorProto, helper

    nodes.add("Identity", ["image"], entrance)  # engines remove it; the network's own name for its input may be any
    shape = [1, 3, parts.config.height, parts.config.width]
    return helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)


def _pixels(nodes: _Nodes, parts: PlainParts, entrance: str) -> Any:
    """(pixel / 255 − mean) / std in this order, rounded as csrc/image/prepare.cpp rounds."""
    from onnx import TensorProto, helper

    config = parts.config
    value = nodes.add("Cast", ["pixels"], "prepare/float", {"to": TensorProto.FLOAT})
    for operator, name, constant in (
        ("Div", "scaled", np.array(255, np.float32)),
        ("Sub", "shifted", np.array(config.mean, np.float32)),
        ("Div", "normalized", np.array(config.std, np.float32)),
    ):
        value = nodes.add(operator, [value, nodes.constant(f"prepare/{name}/by", constant)], f"prepare/{name}")
    nodes.add("Transpose", [value], entrance, {"perm": [0, 3, 1, 2]})  # (1, H, W, 3) → (1, 3, H, W)
    return helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, config.height, config.width, 3])


def _nearest_rows(nodes: _Nodes, parts: PlainParts, embeddings: str) -> tuple[str, str]:
    """(1, P, D) → squared distances float32 (P,) and row numbers int64 (P,), of the earlier chunk on ties."""
    mean = parts.rows.mean(axis=0, dtype=np.float64).astype(np.float32)  # (D,)
    queries = nodes.shaped(embeddings, (parts.patches, parts.config.embedding_dim), "scorer/patches")
    if parts.adaptation is not None:
        by = nodes.constant("scorer/adaptation", parts.adaptation)
        queries = nodes.add("MatMul", [queries, by], "scorer/adapted")
    queries = nodes.add("Sub", [queries, nodes.constant("scorer/mean", mean)], "scorer/centered")
    nodes.constant("scorer/columns", np.array([1], np.int64))
    squared = nearest = ""
    for chunk, start in enumerate(range(0, len(parts.rows), parts.chunk_rows)):
        part = slice(start, start + parts.chunk_rows)
        found = _nearest_of_chunk(
            nodes, f"scorer/chunk{chunk}", queries, _centered(parts.rows[part], mean), parts.numbers[part]
        )
        if chunk == 0:
            squared, nearest = found
            continue
        nearer = nodes.add("Less", [found[0], squared], f"scorer/chunk{chunk}/nearer")
        squared = nodes.add("Where", [nearer, found[0], squared], f"scorer/chunk{chunk}/best_squared")
        nearest = nodes.add("Where", [nearer, found[1], nearest], f"scorer/chunk{chunk}/best_number")
    return squared, nearest


def _centered(rows: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtracted in float32, as the graph does with queries: a patch of the bank is then equal to its row."""
    with np.errstate(over="ignore"):
        return rows - mean


def _nearest_of_chunk(
    nodes: _Nodes, name: str, queries: str, centered: NDArray[np.float32], numbers: NDArray[np.int64]
) -> tuple[str, str]:
    squares = (centered.astype(np.float64) ** 2).sum(axis=1)  # (rows,)
    if not squares.max() < np.finfo(np.float32).max / 4:  # also true for NaN; leaves room for 2 q·b
        raise InputError(
            f"the memory bank has rows {squares.max() ** 0.5:.3g} away from its mean, whose squares float32 cannot "
            "hold; fit with a backbone of smaller features"
        )
    rows = nodes.constant(f"{name}/rows", centered)
    norms = nodes.constant(f"{name}/norms", squares.astype(np.float32))
    screen = {"alpha": -2.0, "transB": 1}
    ranks = nodes.add("Gemm", [queries, rows, norms], f"{name}/ranks", screen)  # (P, rows): |b|² − 2 q·b
    first = nodes.add("ArgMin", [ranks], f"{name}/first", {"axis": 1, "keepdims": 0})  # (P,)
    row = nodes.add("Gather", [rows, first], f"{name}/row")  # (P, D)
    difference = nodes.add("Sub", [queries, row], f"{name}/difference")
    product = nodes.add("Mul", [difference, difference], f"{name}/product")
    squared = nodes.add("ReduceSum", [product, "scorer/columns"], f"{name}/squared", {"keepdims": 0})  # (P,)
    number = nodes.add("Gather", [nodes.constant(f"{name}/numbers", numbers), first], f"{name}/number")
    return squared, number


def _answers(nodes: _Nodes, parts: PlainParts, squared: str, nearest: str) -> list[Any]:
    from onnx import TensorProto, helper

    config = parts.config
    grid = config.grid_height, config.grid_width
    distances = nodes.add("Sqrt", [squared], "scorer/distances")  # (P,)
    if parts.position_weights is not None:
        by = nodes.constant("scorer/position_weights", parts.position_weights.ravel())
        distances = nodes.add("Mul", [distances, by], "scorer/weighed")
    largest = nodes.add("ReduceMax", [distances], "scorer/largest", {"keepdims": 0})  # the config knows no other score
    nodes.shaped(largest, (1,), "score")
    nodes.shaped(distances, (1, 1, *grid), "patch_scores")
    nodes.shaped(nearest, (1, *grid), "nearest")
    cells = nodes.shaped(distances, grid, "map/cells")
    down = nodes.constant("map/down", axis_matrix(config.height, grid[0], config.blur_sigma))
    across = nodes.constant("map/across", axis_matrix(config.width, grid[1], config.blur_sigma).T)
    tall = nodes.add("MatMul", [down, cells], "map/tall")  # (H, w)
    drawn = nodes.add("MatMul", [tall, across], "map/drawn")  # (H, W)
    nodes.shaped(drawn, (1, 1, config.height, config.width), "anomaly_map")
    return [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("patch_scores", TensorProto.FLOAT, [1, 1, *grid]),
        helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [1, 1, config.height, config.width]),
        helper.make_tensor_value_info("nearest", TensorProto.INT64, [1, *grid]),
    ]


def axis_matrix(size: int, cells: int, sigma: float) -> NDArray[np.float32]:
    """(size, cells): one axis of the anomaly map, bilinear then blurred, as one matrix; each row sums to 1.

    Both are linear and separable, so the map is two small products, and no engine's idea of Resize or Pad matters.
    Bilinear: half-pixel centers, edges clamped. Blur: truncated, the edge sample repeated (… 1 0 | 0 1 …).
    """
    source = np.clip((np.arange(size) + 0.5) * (cells / size) - 0.5, 0, cells - 1)
    low = np.floor(source).astype(np.int64)
    bilinear = np.zeros((size, cells))
    bilinear[np.arange(size), low] = 1 - (source - low)
    bilinear[np.arange(size), np.minimum(low + 1, cells - 1)] += source - low
    radius = int(BLUR_TRUNCATION * sigma + 0.5)
    if radius == 0:
        return bilinear.astype(np.float32)
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    folded = np.arange(size)[:, None] + offsets
    folded = np.mod(folded, 2 * size)  # (size, 2 · radius + 1)
    folded = np.minimum(folded, 2 * size - 1 - folded)
    blur = np.zeros((size, size))
    np.add.at(blur, (np.arange(size)[:, None], folded), taps / taps.sum())
    return np.asarray(blur @ bilinear, dtype=np.float32)


__all__ = ["PlainParts", "axis_matrix", "build", "chunk_rows"]
