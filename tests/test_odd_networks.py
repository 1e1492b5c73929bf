"""Fitting by networks that answer NaN, huge values or always the same: said, with the image and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph

from onceover.cli import main
from onceover.errors import EngineError, InputError
from onceover.images import write_image
from onceover.training.fit import fit

SAME = "all good parts score 0: to the network their patches are all the same"


def changed_graph(weight: Any, bias: float, active: str) -> bytes:
    """The tiny graph, its weights given by what they were, its bias the same for all channels, another activation."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    for index, name, value in ((0, "weight", weight), (1, "bias", lambda old: np.full_like(old, bias))):
        old = onnx.numpy_helper.to_array(model.graph.initializer[index])
        new = np.ascontiguousarray(value(old), np.float32)
        model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(new, name))
    next(node for node in model.graph.node if node.op_type == "Tanh").op_type = active
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("white", [1, 12, 25])  # whoever meets it first: the probe, adapting, the bank, calibration
@pytest.mark.parametrize("count", [2 * HELD_OUT, HELD_OUT + 7])
def test_the_image_that_makes_a_network_answer_nan_is_named(tmp_path: Path, white: int, count: int) -> None:
    graph = changed_graph(lambda old: np.full_like(old, -1 / old[0].size), 1.8, "Sqrt")  # of what is white: below 0
    folder = good_folder(tmp_path / "good", count)
    fit(folder, tiny_options(backbone=graph))
    write_image(folder / f"{white:02}.png", np.full((40, 56, 3), 255, np.uint8))
    with pytest.raises(EngineError, match=rf"good/{white:02}\.png: onnxruntime .* answered NaN or infinite"):
        fit(folder, tiny_options(backbone=graph))


def test_distances_that_overflow_are_an_error_that_says_so(tmp_path: Path) -> None:
    graph = changed_graph(lambda old: old * np.float32(1e25), 0.0, "Relu")
    with pytest.raises(InputError, match="squared distances between patches overflow float32, so no greedy coreset"):
        fit(good_folder(tmp_path / "good", HELD_OUT), tiny_options(backbone=graph))


def test_a_network_that_always_answers_the_same_is_noted(tmp_path: Path, capsys: Capture) -> None:
    folder = good_folder(tmp_path / "good", HELD_OUT)
    for name, graph in (("dead", changed_graph(np.zeros_like, 1.0, "Relu")), ("alive", tiny_graph())):
        (tmp_path / f"{name}.onnx").write_bytes(graph)
        words = ["-o", str(tmp_path / "x.onceover"), "--backbone", str(tmp_path / f"{name}.onnx")]
        assert main(["fit", str(folder), *words]) == 0
        shown, errors = (" ".join(text.split()) for text in capsys.readouterr())
        assert (SAME in errors) == (name == "dead")
        assert ("as to the network good parts do not differ at all" in shown) == (name == "dead")
