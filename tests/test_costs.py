"""What the registry says a backbone costs is what torch counts, and what the embedded graphs hold."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from onceover import registry  # noqa: E402 - only where torch is installed
from onceover.backbones import create_backbone  # noqa: E402
from onceover.backbones.cost import count_cost  # noqa: E402
from onceover.runtime.graph import EMBEDDED, load_graph  # noqa: E402


@pytest.mark.parametrize("name", registry.BACKBONES)
def test_the_registry_says_what_torch_counts(name: str) -> None:
    counted = count_cost(name)
    line = f'"{name}": Cost({counted.parameters:_}, {counted.macs:_}),'
    assert registry.COSTS.get(name) == counted, f"onceover/registry.py: COSTS needs the line {line}"


def test_only_registered_backbones_have_a_cost() -> None:
    assert list(registry.COSTS) == list(registry.BACKBONES)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 128), (64, 96)])
def test_a_convolution_costs_its_weights_at_every_cell(height: int, width: int) -> None:
    # ResNet-18 by hand, He et al. 2016, table 1, up to stride 16: 7x7 at stride 2; 4 convolutions of 64 channels at
    # stride 4; 128 channels at stride 8 and 256 at stride 16, each with a first one from half as many and a shortcut.
    stem, at_4 = 64 * 3 * 49, 4 * 64 * 64 * 9
    at_8, at_16 = ((c * c // 2 + 3 * c * c) * 9 + c * c // 2 for c in (128, 256))
    biases = 64 * 5 + 128 * 5 + 256 * 5
    cells = height * width
    assert count_cost("resnet18", height, width) == (
        stem + at_4 + at_8 + at_16 + biases,
        cells // 4 * stem + cells // 16 * at_4 + cells // 64 * at_8 + cells // 256 * at_16,
    )


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_graph_holds_as_many_parameters_as_the_registry_says(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    graph, spec = load_graph(name)
    assert (spec.preprocessing.height, spec.preprocessing.width, spec.strides) == (256, 256, (8, 16))
    initializers = onnx.load_from_string(graph).graph.initializer
    held = sum(math.prod(each.dims) for each in initializers if each.data_type == onnx.TensorProto.FLOAT)
    stages = create_backbone(name, None, random_init_seed=0).stages
    projections = sum(stage.channels * (stage.channels + 1) for stage in stages)  # see backbones/projected.py
    expected = registry.COSTS[name].parameters + projections
    assert held == pytest.approx(expected, rel=0.001)  # constants of layers are held, too
