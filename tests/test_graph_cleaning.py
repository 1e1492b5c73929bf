"""Cleaning a graph takes away what names this machine and what computes nothing, and never what is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gated_graph import OUTPUT, features, gated_graph, network_inputs

onnx = pytest.importorskip("onnx")

from onceover.export.graph_cleaning import IR_VERSION, clean, inputs_of  # noqa: E402 - only where onnx is installed

FLOAT = onnx.TensorProto.FLOAT
helper = onnx.helper


def padded(pads: list[int], name: str = "pads") -> Any:
    """The gated graph with a Pad of the image in front of the stem and one constant that nobody reads."""
    model = onnx.load_from_string(gated_graph())
    model.graph.node[0].input[0] = "padded"
    model.graph.node.insert(0, helper.make_node("Pad", ["image", name], ["padded"], "pad"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(pads, np.int64), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "unused"))
    return model


def constants(model: Any) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def test_a_clean_graph_answers_the_same_and_says_nothing_of_this_machine() -> None:
    model = padded([0] * 8)
    model.producer_name, model.producer_version, model.doc_string = "exporter", "1.2", "made in /home/me"
    model.ir_version = IR_VERSION + 1
    model.graph.doc_string = model.graph.node[1].doc_string = model.graph.input[0].doc_string = "/home/me/model.py"
    model.graph.initializer[0].doc_string = "/home/me/weights"
    for part in (model.graph.node[1], model.graph.initializer[0], model.graph.input[0], model.graph.output[0]):
        part.metadata_props.add(key="stack", value="/home/me")
    model.graph.value_info.append(helper.make_tensor_value_info("wide", FLOAT, [1, 8, 4, 6]))
    cleaned = clean(model)
    content = cleaned.SerializeToString()
    assert cleaned is model
    assert b"/home/me" not in content
    assert (model.producer_name, model.producer_version, model.ir_version) == ("onceover", "", IR_VERSION)
    assert not model.graph.value_info
    assert not model.metadata_props
    np.testing.assert_array_equal(features(content, network_inputs(2)), features(gated_graph(), network_inputs(2)))


def test_an_older_ir_version_is_kept() -> None:
    assert clean(onnx.load_from_string(gated_graph())).ir_version == 8


def test_padding_by_nothing_is_dropped_with_its_constant_and_any_other_stays() -> None:
    empty = clean(padded([0] * 8))
    assert [node.op_type for node in empty.graph.node][:2] == ["Conv", "Tanh"]
    assert empty.graph.node[0].input[0] == "image"
    assert {"pads", "unused"} & constants(empty) == set()
    kept = clean(padded([0, 0, 0, 0, 0, 0, 0, 1]))
    assert [node.op_type for node in kept.graph.node][:2] == ["Pad", "Conv"]
    assert {"pads", "unused"} & constants(kept) == {"pads"}


def test_two_empty_pads_in_a_row_are_dropped() -> None:
    model = padded([0] * 8)
    model.graph.node.insert(1, helper.make_node("Pad", ["padded", "pads"], ["padded twice"], "again"))
    model.graph.node[2].input[0] = "padded twice"
    assert clean(model).graph.node[0].input[0] == "image"


def test_an_empty_pad_that_makes_an_output_stays() -> None:
    model = padded([0] * 6)
    head = model.graph.node[-1]
    head.output[0] = "before"
    model.graph.node.append(helper.make_node("Pad", ["before", "pads"], [OUTPUT], "last"))
    model.graph.node[1].input[0] = "image"
    assert clean(model).graph.node[-1].output[0] == OUTPUT


def chosen_inside(model: Any) -> Any:
    """An If at the end whose branches read `wide's` pad and a constant of the graph around it."""
    branches = {}
    for name, constant in (("then_branch", "one"), ("else_branch", "two")):
        node = helper.make_node("Add", ["padded", constant], [f"{name}.sum"])
        value = helper.make_tensor_value_info(f"{name}.sum", FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [value])
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], "choice", **branches))
    model.graph.output.append(helper.make_tensor_value_info("chosen", FLOAT, [1, 3, 32, 48]))
    for name, value in (("one", np.float32(1)), ("two", np.float32(2)), ("flag", np.bool_(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    return model


def test_what_only_a_branch_reads_is_read() -> None:
    model = chosen_inside(padded([0] * 8))
    choice = model.graph.node[-1]
    assert inputs_of(choice) >= {"flag", "one", "two", "padded"}
    cleaned = clean(model)
    assert {"one", "two", "flag"} <= constants(cleaned)
    onnx.checker.check_model(cleaned, full_check=True)
    answers = features(cleaned.SerializeToString(), network_inputs(1))
    np.testing.assert_array_equal(answers, features(gated_graph(), network_inputs(1)))
