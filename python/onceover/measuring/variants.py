"""A package for another input size, for timing alone: the bank's rows are those of the old size."""

from __future__ import annotations

from dataclasses import replace

from onceover import _core
from onceover.runtime.assemble import MAP_STEP, RELATIVE_TOLERANCE, config_of
from onceover.runtime.graph import read_graph_spec, resize
from onceover.types import GraphSpec, Tiling


def resized_package(package: _core.Package, size: int) -> bytes:
    """The same network for (size, size), the same memory bank: as fast as one that was fitted so, but it must not
    decide anything, and is never written to a file.

    Raises UsageError where the network is not resizable, or not to that size.
    """
    graph = package.read("graph.onnx")
    changed, spec = resize(graph, read_graph_spec(graph, package.label), size, size)
    stored = _core.read_config(package)
    config = config_of(spec, stored.blur_sigma, _tiles_of(stored, spec))
    replaced = {
        "config": config.to_bytes(),
        "graph.onnx": changed,
        "parity": _core.parity_bytes([], config, RELATIVE_TOLERANCE, MAP_STEP),
    }
    writer = _core.PackageWriter()
    for member in package.members:
        name = member["name"]
        if name in replaced:
            writer.add(name, replaced[name])
        elif member["type"] == "bytes":
            writer.add(name, package.read(name), required=member["required"])
        else:
            writer.add(name, package.array(name), required=member["required"])
    return writer.bytes()


def _tiles_of(stored: _core.Config, spec: GraphSpec) -> Tiling:
    """As many tiles; neighbors share the same part of them, in patches of the new grid."""
    tiling = Tiling(*stored.tiling)
    rows, columns = spec.grid_height, spec.grid_width
    return replace(
        tiling,
        overlap_rows=min(rows // 2, round(tiling.overlap_rows * rows / stored.grid_height)),
        overlap_columns=min(columns // 2, round(tiling.overlap_columns * columns / stored.grid_width)),
    )


__all__ = ["resized_package"]
