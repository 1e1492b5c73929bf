"""A package for another input size, for timing alone: the bank's rows are those of the old size."""

from __future__ import annotations

from onceover import _core
from onceover.runtime.assemble import MAP_STEP, RELATIVE_TOLERANCE, config_of
from onceover.runtime.graph import read_graph_spec, resize


def resized_package(package: _core.Package, size: int) -> bytes:
    """The same network for (size, size), the same memory bank: as fast as one that was fitted so, but it must not
    decide anything, and is never written to a file.

    Raises UsageError where the network is not resizable, or not to that size.
    """
    graph = package.read("graph.onnx")
    changed, spec = resize(graph, read_graph_spec(graph, package.label), size, size)
    config = config_of(spec, _core.read_config(package).blur_sigma)
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


__all__ = ["resized_package"]
