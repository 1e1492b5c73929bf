"""What every convolutional backbone is tested with: random statistics, foldings, checkpoints of others, exports."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import nn

from onceover.backbones.backbone import Backbone
from onceover.backbones.folding import folded
from onceover.backbones.name_map import NameMap
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.weights import WeightsCard
from onceover.export import to_onnx as exporter

CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)
HEIGHT, WIDTH = 50, 70  # odd and even sizes appear at every stride
SIZES = [(224, 224), (256, 256), (250, 230)]
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(make: Callable[[], Backbone]) -> Backbone:
    """The network without memory: for counts, keys and shapes."""
    with torch.device("meta"):
        return make().eval()


def shapes_at(model: Backbone, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """(C, h, w) of each stage of a network on the meta device."""
    return [tuple(stage.shape[1:]) for stage in model(torch.zeros(1, 3, *size, device="meta"))]


def randomized(model: Backbone, seed: int = 0) -> Backbone:
    """The same network in eval mode with norms and biases that are not the harmless defaults."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.uniform_(bias, -0.3, 0.3)
    return model.eval()


def folding_error(model: Backbone, size: tuple[int, int] = (HEIGHT, WIDTH)) -> float:
    """The largest difference that folding makes, relative to the largest value of its stage, in float64."""
    exact = copy.deepcopy(model).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pairs = list(zip(exact(image), folded(exact)(image), strict=True))
    assert all(before.abs().max() > 0.01 for before, _ in pairs)
    return max(float((before - after).abs().max() / before.abs().max()) for before, after in pairs)


def norm_keys(conv: str, norm: str) -> list[str]:
    """The keys of a convolution without bias and of the norm behind it."""
    return [f"{conv}.weight", *(f"{norm}.{leaf}" for leaf in NORM)]


def renamed(name_map: NameMap, keys: Iterable[str]) -> list[str | None] | None:
    """Our names for all of `keys`, or None where they are of another layout."""
    try:
        return [name_map.rename(key) for key in keys]
    except KeyError:
        return None


def static_graph(model: Backbone) -> list[tuple[str, int]]:
    """(operation, groups) of each node of the exported patch embedding; `to_onnx` compares its values with torch's."""
    import onnx

    content = exporter.to_onnx(PatchEmbedding(model), HEIGHT, WIDTH, CARD, "tiny")
    nodes = onnx.load_from_string(content).graph.node
    return [(node.op_type, next((a.i for a in node.attribute if a.name == "group"), 1)) for node in nodes]
