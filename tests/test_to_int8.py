"""int8 graphs of both quantizers: what is kept, what is left out and in which order; weights in float16.

One quantization per engine is shared by all tests, because NNCF takes seconds to import.
"""

from __future__ import annotations

import builtins
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated_graph import ATTENTION, GATE, LAYERS, OUTPUT, GatedOptions, features, gated_graph, network_inputs
from tiny_package import tiny_graph

from onceover import _core
from onceover.errors import EngineError, InputError, MissingExtraError
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.self_contained import check_self_contained
from onceover.runtime.session import EngineOptions

onnx = pytest.importorskip("onnx")

from onceover.export import to_int8  # noqa: E402 - only where onnx is installed
from onceover.export.to_int8 import (  # noqa: E402
    by_sensitivity,
    ladder,
    named,
    quantize,
    quantized_share,
    store_float16,
)

ENGINES = ("onnxruntime", "openvino")
IMAGES = network_inputs(6)


def silent(_stage: str, _done: int, _total: int) -> None:
    pass


def nodes_of(graph: bytes) -> list[Any]:
    return list(onnx.load_from_string(graph).graph.node)


def initializers(graph: bytes) -> list[Any]:
    return list(onnx.load_from_string(graph).graph.initializer)


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.fixture(scope="module", params=ENGINES)
def int8(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """Engine, and the graph quantized for it."""
    if request.param == "openvino":
        pytest.importorskip("nncf")
    return request.param, quantize(gated_graph(), IMAGES, request.param)


def test_a_quantized_graph_holds_int8_layers_and_answers_nearly_the_same(int8: tuple[str, bytes]) -> None:
    kinds = Counter(node.op_type for node in nodes_of(int8[1]))
    assert kinds["QuantizeLinear"] > 0
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"]  # weights are stored in int8
    stored = {tuple(tensor.dims) for tensor in initializers(int8[1]) if tensor.data_type == onnx.TensorProto.INT8}
    assert {(8, 3, 8, 8), (8, 8, 1, 1), (8, 8)} <= stored
    others = network_inputs(6, 50)
    assert 0.999 < cosine(features(int8[1], others), features(gated_graph(), others)) < 1


def test_weights_have_a_scale_for_each_channel(int8: tuple[str, bytes]) -> None:
    assert (8,) in {tuple(tensor.dims) for tensor in initializers(int8[1]) if "scale" in tensor.name}


def test_a_quantized_graph_keeps_its_metadata_and_the_names_of_its_layers(int8: tuple[str, bytes]) -> None:
    model = onnx.load_from_string(int8[1])
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        entry.key: entry.value for entry in onnx.load_from_string(gated_graph()).metadata_props
    }
    assert read_graph_spec(int8[1], "int8").embedding_dim == 8
    assert [node.name for node in model.graph.node if node.name in LAYERS] == list(LAYERS)
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", OUTPUT)


def test_a_quantized_graph_is_self_contained_and_says_nothing_of_its_quantizer(int8: tuple[str, bytes]) -> None:
    check_self_contained(int8[1], "int8")
    model = onnx.load_from_string(int8[1])
    assert (model.producer_name, model.producer_version, model.doc_string) == ("onceover", "", "")
    assert not model.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_same_images_give_the_same_bytes_and_others_do_not(int8: tuple[str, bytes]) -> None:
    engine, graph = int8
    assert quantize(gated_graph(), list(IMAGES), engine) == graph
    assert quantize(gated_graph(), [2 * image for image in IMAGES], engine) != graph


def test_both_engines_run_what_either_quantizer_made(int8: tuple[str, bytes]) -> None:
    spec = read_graph_spec(int8[1], "int8")
    config = _core.Config(
        height=spec.preprocessing.height, width=spec.preprocessing.width, mean=spec.preprocessing.mean,
        std=spec.preprocessing.std, grid_height=spec.grid_height, grid_width=spec.grid_width,
        embedding_dim=spec.embedding_dim, blur_sigma=2.0,
    )  # fmt: skip
    image = np.full((40, 56, 3), 90, np.uint8)
    answers = [
        _core.Embedder(config, int8[1], EngineOptions(engine).resolve()).embed(image)  # (P, D)
        for engine in ENGINES
    ]
    assert cosine(answers[0], answers[1]) > 0.999


def test_excluded_layers_keep_their_weights_in_float32(int8: tuple[str, bytes]) -> None:
    whole, layers = quantized_share(int8[1])
    assert layers == len(LAYERS)
    assert whole == (len(LAYERS) if int8[0] == "onnxruntime" else len(LAYERS) - len(GATE))  # NNCF knows gates itself
    graph = quantize(gated_graph(), IMAGES, int8[0], ("stem", "squeeze", "excite"))
    weights = {node.name: node.input[1] for node in nodes_of(graph) if node.name in LAYERS}
    assert (weights["stem"], weights["squeeze"], weights["excite"]) == ("stem.w", "squeeze.w", "excite.w")
    assert weights["middle"] != "middle.w"
    assert quantized_share(graph) == (6, 9)


def test_a_float32_graph_has_no_quantized_layer() -> None:
    assert quantized_share(gated_graph()) == (0, 9)


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_without_calibration_images_is_refused(engine: str) -> None:
    with pytest.raises(InputError, match="--calibration DIR"):
        quantize(gated_graph(), [], engine)


def test_a_graph_in_int8_is_not_quantized_again(int8: tuple[str, bytes]) -> None:
    with pytest.raises(InputError, match="already is in int8"):
        quantize(int8[1], IMAGES, int8[0])


def test_without_nncf_only_openvino_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **settings: Any) -> Any:
        if name.partition(".")[0] == "nncf":
            raise ModuleNotFoundError("No module named 'nncf'", name="nncf")
        return real(name, *rest, **settings)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'onceover\[int8\]'"):
        quantize(gated_graph(), IMAGES, "openvino")
    assert quantized_share(quantize(gated_graph(), IMAGES[:1], "onnxruntime")) == (9, 9)


@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_another_size_are_an_engine_error(engine: str) -> None:
    with pytest.raises(EngineError, match="cannot quantize the graph"):
        quantize(gated_graph(), [np.zeros((1, 3, 9, 9), np.float32)], engine)


def test_every_node_gets_a_name_of_its_own_and_names_are_kept() -> None:
    model = onnx.load_from_string(gated_graph())
    model.graph.node[3].name, model.graph.node[4].name = "", "stem"  # none, and one that is taken
    names = [node.name for node in nodes_of(named(model.SerializeToString()))]
    assert len(set(names)) == len(names)
    assert (names[0], names[3], names[4]) == ("stem", "Conv_3", "Relu_4")
    assert nodes_of(named(gated_graph())) == nodes_of(gated_graph())


def between(graph: bytes) -> set[str]:
    """The names of all nodes but the layers with weights."""
    return {node.name for node in nodes_of(graph)} - (set(LAYERS) - set(ATTENTION))


def test_the_ladder_leaves_out_what_is_between_the_layers_then_the_first_and_gates_then_what_is_fragile() -> None:
    graph = gated_graph(GatedOptions(fragile=True))
    rungs = list(ladder(graph, IMAGES, silent))
    assert [rung.name for rung in rungs] == [
        "every layer",
        "nothing between the layers",
        "but the first layer and gates",
        "and the most fragile quarter",
        "and the most fragile half",
    ]
    plain = between(graph)
    assert [set(rung.excluded) for rung in rungs[:3]] == [set(), plain, plain | {"stem", *GATE}]
    assert "middle" in rungs[3].excluded
    for less, more in itertools.pairwise(rungs):
        assert set(less.excluded) < set(more.excluded)
    assert set(LAYERS) - set(rungs[-1].excluded)


def test_products_with_weights_from_constant_nodes_are_not_attention() -> None:
    graph = gated_graph(GatedOptions(constants=True))
    second = next(itertools.islice(ladder(graph, IMAGES, silent), 1, None))
    assert set(second.excluded) == between(graph)
    assert not {"key", "query", "head"} & set(second.excluded)


def test_rungs_that_change_nothing_or_leave_nothing_are_skipped() -> None:
    assert [rung.name for rung in ladder(tiny_graph(), network_inputs(1), silent)] == ["every layer"]  # one layer
    model = onnx.load_from_string(gated_graph())
    del model.graph.node[2:]  # the stem and Tanh: nothing but one layer
    model.graph.node[-1].output[0] = OUTPUT
    assert [rung.name for rung in ladder(model.SerializeToString(), IMAGES, silent)] == ["every layer"]


def test_a_plain_network_keeps_its_sums_in_int8() -> None:
    model = onnx.load_from_string(gated_graph())
    for node in model.graph.node:
        if node.op_type in to_int8.CURVED:  # Mul with a gate, Sigmoid, Softmax
            node.op_type = "Relu" if len(node.input) == 1 else "Add"
            del node.attribute[:]
    names = [rung.name for rung in ladder(model.SerializeToString(), IMAGES, silent)]
    assert names[:2] == ["every layer", "but the first layer and gates"]


def test_sensitivity_is_measured_only_where_the_ladder_gets_that_far(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(_graph: bytes, images: list[Any], _progress: Any, _adaptation: Any) -> list[str]:
        measured.append(len(images))
        return list(reversed(LAYERS))

    monkeypatch.setattr(to_int8, "by_sensitivity", measure)
    rungs = ladder(gated_graph(), IMAGES, silent)
    for _ in range(3):
        next(rungs)
    assert measured == []
    assert next(rungs).name == "and the most fragile quarter"
    assert measured == [to_int8.SENSITIVITY_IMAGES]


def test_the_deliberately_fragile_layer_comes_first() -> None:
    seen: list[tuple[int, int]] = []
    order = by_sensitivity(gated_graph(GatedOptions(fragile=True)), IMAGES[:2], lambda _, *at: seen.append(at))
    assert sorted(order) == sorted(LAYERS)
    assert order[0] == "middle"
    assert seen == [(i + 1, len(LAYERS)) for i in range(len(LAYERS))]
    assert by_sensitivity(gated_graph(), IMAGES[:2], silent)[0] != "middle"


def test_errors_count_as_adapted_embeddings_are_compared() -> None:
    expected = np.random.default_rng(0).normal(size=(1, 500, 2)).astype(np.float32)
    first, second = expected.copy(), expected.copy()
    first[..., 0] += 0.1
    second[..., 1] += 0.1
    matrix = np.diag([3.0, 1.0]).astype(np.float32)  # what happens in the first channel counts three times as much
    ratio = to_int8._relative(first, expected, matrix) / to_int8._relative(second, expected, matrix)
    assert ratio == pytest.approx(3, rel=1e-3)
    assert to_int8._relative(first, expected) == pytest.approx(to_int8._relative(second, expected), rel=0.1)


def test_errors_of_channels_count_by_the_deviation_of_the_channel() -> None:
    expected = np.array([[[-1, -1e-3], [1, 1e-3]]], np.float32)  # (1, P, D)
    for channel in (0, 1):
        actual = expected.copy()
        actual[..., channel] *= 1.5  # off by half a deviation, in one of two channels
        assert to_int8._relative(actual, expected) == pytest.approx(0.5 / np.sqrt(2), rel=1e-5)


def test_the_whole_ladder_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from test_to_int8 import IMAGES, gated_graph, ladder, silent\n"
        "print(len(list(ladder(gated_graph(), IMAGES[:1], silent))))"
    )
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr[-300:]) == ("5", "")


def test_float16_halves_large_weights_and_changes_answers_by_their_rounding() -> None:
    graph = gated_graph()
    stored = store_float16(graph)
    kept = {tensor.name: tensor for tensor in onnx.load_from_string(stored).graph.initializer}
    assert {name for name, tensor in kept.items() if tensor.data_type == onnx.TensorProto.FLOAT16} == {
        f"{name}.w/float16" for name in ("stem", "middle", "query", "key", "head")
    }  # the gate's 32 values and the constants are too small to be worth it
    saved = 2 * (8 * 3 * 8 * 8 + 4 * 64)
    assert len(graph) - saved <= len(stored) <= len(graph) - saved + 5 * 120  # names and casts
    check_self_contained(stored, "float16")
    assert read_graph_spec(stored, "float16") == read_graph_spec(graph, "float32")
    difference = np.abs(features(stored, IMAGES) - features(graph, IMAGES)).max()
    # Each weight moves by at most 2⁻¹¹ of itself; four layers and a softmax in a row, values below 1 between them.
    assert 0 < difference < 4 * 8 * 2**-11


def test_the_casts_of_float16_give_exactly_the_rounded_weights() -> None:
    graph = onnx.load_from_string(gated_graph())
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= to_int8.FLOAT16_MINIMUM:
            rounded = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    expected = features(graph.SerializeToString(), IMAGES)
    np.testing.assert_array_equal(features(store_float16(gated_graph()), IMAGES), expected)


def test_weights_that_float16_cannot_hold_are_refused_by_name() -> None:
    store_float16(gated_graph(GatedOptions(largest_weight=65504)))
    for value in (65520, -1e6, np.inf):
        with pytest.raises(InputError, match=r"'stem.w' have values above 65504"):
            store_float16(gated_graph(GatedOptions(largest_weight=value)))
