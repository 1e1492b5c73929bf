"""Graphs that need other files or custom operators are refused before a package is made; real ones made by `onnx`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_data import good_folder, tiny_options
from tiny_package import tiny_graph

onnx = pytest.importorskip("onnx")

from onceover import export  # noqa: E402 - only where onnx is installed
from onceover.errors import InputError  # noqa: E402
from onceover.runtime.graph import EMBEDDED, load_graph  # noqa: E402
from onceover.runtime.self_contained import check_self_contained  # noqa: E402
from onceover.training.fit import fit  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
helper = onnx.helper


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, [1])


def model(nodes: list[Any], initializers: tuple[Any, ...] = (), functions: tuple[Any, ...] = ()) -> bytes:
    graph = helper.make_graph(nodes, "made", [value("in")], [value("out")], list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, functions=list(functions)).SerializeToString()
    return data


def refusal(graph: bytes) -> str:
    with pytest.raises(InputError) as caught:
        check_self_contained(graph, "made.onnx")
    message = str(caught.value)
    assert message.startswith("made.onnx: ")
    assert "; " in message
    return message


def external_tensor(name: str) -> Any:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin", offset=0, length=16)
    tensor.ClearField("raw_data")
    return tensor


def test_complete_graphs_pass() -> None:
    check_self_contained(tiny_graph(), "tiny")
    for name in EMBEDDED:
        check_self_contained(load_graph(name)[0], name)


def test_a_graph_saved_with_external_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    loaded = onnx.load_from_string(tiny_graph())
    onnx.save(loaded, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    with pytest.raises(InputError, match=r"external\.onnx: keeps 'weight'.*; export it as one file") as caught:
        load_graph(path)
    assert "external data" in str(caught.value)


def test_external_tensors_are_found_wherever_they_hide() -> None:
    identity = helper.make_node("Identity", ["in"], ["out"])
    hidden = external_tensor("hidden")
    constant = helper.make_node("Constant", [], ["c"], value=hidden)
    sparse = helper.make_sparse_tensor(hidden, onnx.numpy_helper.from_array(np.arange(4), "i"), [4])
    branch = helper.make_graph([constant], "branch", [], [value("c")])
    inside = helper.make_node("If", ["in"], ["out"], then_branch=branch, else_branch=branch)
    deep = helper.make_node(
        "If", ["in"], ["out"], then_branch=helper.make_graph([inside], "b", [], [value("out")]), else_branch=branch
    )
    listed = helper.make_node("Identity", ["in"], ["out"])
    listed.attribute.append(helper.make_attribute("tensors", [hidden]))
    function = helper.make_function("com.example", "F", ["in"], ["out"], [constant], [helper.make_opsetid("", 17)])
    with_sparse = onnx.load_from_string(model([identity]))
    with_sparse.graph.sparse_initializer.append(sparse)
    training = onnx.load_from_string(model([identity]))
    training.training_info.add().initialization.initializer.append(hidden)
    for graph in (
        model([identity], (hidden,)), model([constant]), model([inside]), model([deep]), model([listed]),
        model([identity], functions=(function,)), with_sparse.SerializeToString(), training.SerializeToString(),
    ):  # fmt: skip
        assert "'hidden'" in refusal(graph)


def test_an_external_mark_without_a_place_is_refused_and_so_is_a_place_without_a_mark() -> None:
    identity = helper.make_node("Identity", ["in"], ["out"])
    marked = onnx.numpy_helper.from_array(np.ones(4, np.float32), "marked")
    marked.data_location = onnx.TensorProto.EXTERNAL
    placed = external_tensor("placed")
    placed.data_location = onnx.TensorProto.DEFAULT
    assert "'marked'" in refusal(model([identity], (marked,)))
    assert "'placed'" in refusal(model([identity], (placed,)))


@pytest.mark.parametrize("domain", ["com.microsoft", "com.example", "ai.onnx.ml", "org.pytorch.aten"])
def test_operators_of_other_domains_are_refused_by_name(domain: str) -> None:
    node = helper.make_node("FusedConv", ["in"], ["out"], domain=domain)
    assert f"uses '{domain}.FusedConv', no standard ONNX operators" in refusal(model([node]))
    branch = helper.make_graph([node], "branch", [], [value("out")])
    nested = helper.make_node("If", ["in"], ["out"], then_branch=branch, else_branch=branch)
    assert f"{domain}.FusedConv" in refusal(model([nested]))


def test_functions_that_the_graph_defines_itself_are_no_custom_operators() -> None:
    def function(body: Any) -> Any:
        return helper.make_function("com.example", "F", ["in"], ["out"], [body], [helper.make_opsetid("", 17)])

    call = helper.make_node("F", ["in"], ["out"], domain="com.example")
    check_self_contained(model([call], functions=(function(helper.make_node("Relu", ["in"], ["out"])),)), "made.onnx")
    foreign = helper.make_node("G", ["in"], ["out"], domain="com.example")
    assert "'com.example.G'" in refusal(model([call], functions=(function(foreign),)))
    assert "'com.example.F'" in refusal(model([call]))


def test_a_long_list_is_cut() -> None:
    nodes = [helper.make_node(f"Op{i}", ["in"], ["out"], domain="com.example") for i in range(9)]
    assert "'com.example.Op2' and 6 more" in refusal(model(nodes))


def test_bytes_that_are_no_graph_are_refused_and_never_crash() -> None:
    graph = tiny_graph()
    for size in range(0, len(graph) - 1, 41):
        try:
            check_self_contained(graph[:size], "cut")
        except InputError as error:
            assert "not an ONNX graph" in str(error)  # noqa: PT017 - a cut between two fields is still a message
    for content in (b"\x3b", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x02\x01a"):
        assert "not an ONNX graph" in refusal(content)
    nested = b""
    for _ in range(100):  # a graph in a node's attribute in a graph …
        for key in (0x32, 0x2A, 0x0A):
            nested = bytes([key]) + _varint(len(nested)) + nested
    assert "nested more than" in refusal(b"\x3a" + _varint(len(nested)) + nested)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_an_enum_is_read_as_protobuf_reads_it() -> None:
    """2³² + 1 is EXTERNAL to a reader of 32-bit enums."""
    tensor = b"\x42\x01w" + b"\x70" + _varint((1 << 32) + 1)
    graph = b"\x2a" + _varint(len(tensor)) + tensor
    assert "'w'" in refusal(b"\x3a" + _varint(len(graph)) + graph)


def test_no_package_is_made_of_such_a_graph(tmp_path: Path) -> None:
    """Also of parts that were changed after fit."""
    parts = fit(good_folder(tmp_path / "good", 6), tiny_options())
    changed = onnx.load_from_string(parts.graph)
    changed.graph.node[1].domain = "com.microsoft"
    with pytest.raises(InputError, match=r"the graph: uses 'com\.microsoft\.Tanh'"):
        export.package(replace(parts, graph=changed.SerializeToString()), tmp_path / "part.onceover")
    with pytest.raises(InputError, match=r"'com\.microsoft\.Tanh'"):
        fit(tmp_path / "good", tiny_options(backbone=changed.SerializeToString()))
    assert not (tmp_path / "part.onceover").exists()
