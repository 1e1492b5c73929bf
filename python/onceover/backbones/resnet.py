"""ResNet, He et al. 2015, arXiv:1512.03385, and wide ResNet, Zagoruyko & Komodakis 2016, arXiv:1605.07146.

Heavier than what an edge device wants, but what most papers on anomaly inspection measure with, PatchCore's among them.
State-dict keys are those of torchvision, which timm shares; stride 2 is in the 3x3 convolution of a bottleneck, as
there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, StageInfo, check_strides
from onceover.backbones.folding import fold_norm_behind
from onceover.errors import UsageError

TAPS = {4: 1, 8: 2, 16: 3, 32: 4}  # stride → layer


@dataclass(frozen=True)
class Variant:
    """depths: blocks of layers 1 … 4. bottleneck: three convolutions a block, the last four times as wide.

    width: of a bottleneck's 3x3 convolution, in units of the plain network's.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool
    width: int = 1

    def channels(self, layer: int) -> int:
        """What layer 1 … 4 answers."""
        return (64 << (layer - 1)) * (4 if self.bottleneck else 1)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """Convolutions with batch norms and ReLU between them; the input is added before the last ReLU."""

    def __init__(self, shapes: list[tuple[int, int, int, int]], stride: int) -> None:
        """shapes: inputs, outputs, kernel and stride of each convolution."""
        super().__init__()
        self.count = len(shapes)
        for i, (inputs, outputs, kernel, step) in enumerate(shapes, start=1):
            self.add_module(f"conv{i}", _conv(inputs, outputs, kernel, step))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        first, last = shapes[0][0], shapes[-1][1]
        self.downsample = nn.Sequential()
        if stride != 1 or first != last:
            self.downsample = nn.Sequential(_conv(first, last, 1, stride), nn.BatchNorm2d(last))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + self.downsample(x))

    def fold_(self) -> None:
        """Each norm into the convolution ahead of it."""
        for i in range(1, self.count + 1):
            _fold_pair(self, f"conv{i}", f"bn{i}")
        if len(self.downsample):
            _fold_pair(self.downsample, "0", "1")


class ResNet(Backbone):
    """See the file's head. Built up to the last layer asked for; with `classes` whole, with its classifier."""

    def __init__(self, variant: Variant, strides: tuple[int, ...] = (8, 16), classes: int = 0) -> None:
        super().__init__()
        check_strides(strides, TAPS)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(64)
        self.built = 4 if classes else TAPS[strides[-1]]
        inputs = 64
        for layer in range(1, self.built + 1):
            self.add_module(f"layer{layer}", _layer(variant, layer, inputs))
            inputs = variant.channels(layer)
        if classes:
            self.fc = nn.Linear(inputs, classes)
        self.normalization = IMAGENET_NORMALIZATION
        self.stages = tuple(StageInfo(f"layer{TAPS[s]}", variant.channels(TAPS[s]), s) for s in strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        taken = self._through(x, TAPS[self.stages[-1].stride])
        return [taken[TAPS[stage.stride] - 1] for stage in self.stages]

    def _through(self, x: Tensor, last: int) -> list[Tensor]:
        """What layers 1 … `last` answer."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        taken = []
        for layer in range(1, last + 1):
            x = self.get_submodule(f"layer{layer}")(x)
            taken.append(x)
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "fc"):
            raise UsageError("this ResNet was built without a classifier; pass classes=1000 to build one")
        logits: Tensor = self.fc(self._through(x, 4)[-1].mean(dim=(2, 3)))  # (B, C, h, w) → (B, C)
        return logits

    def may_ignore(self, key: str) -> bool:
        """True for layers behind the cut and for the classifier, where they were not built."""
        room = key.partition(".")[0]
        return room in {f"layer{layer}" for layer in range(self.built + 1, 5)} or (
            room == "fc" and not hasattr(self, "fc")
        )

    def fold_(self) -> None:
        """The first norm into the first convolution."""
        _fold_pair(self, "conv1", "bn1")


def _layer(variant: Variant, layer: int, inputs: int) -> nn.Sequential:
    outputs, middle = variant.channels(layer), (64 << (layer - 1)) * variant.width
    blocks = []
    for i in range(variant.depths[layer - 1]):
        stride = 2 if i == 0 and layer > 1 else 1
        if variant.bottleneck:
            shapes = [(inputs, middle, 1, 1), (middle, middle, 3, stride), (middle, outputs, 1, 1)]
        else:
            shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        blocks.append(Block(shapes, stride))
        inputs = outputs
    return nn.Sequential(*blocks)


def _fold_pair(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        module.add_module(conv_name, fold_norm_behind(conv, norm))
        module.add_module(norm_name, nn.Identity().eval())


RESNET18 = Variant((2, 2, 2, 2), bottleneck=False)
WIDE_RESNET50 = Variant((3, 4, 6, 3), bottleneck=True, width=2)


def resnet18(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> ResNet:
    """11.7 M parameters with head."""
    return ResNet(RESNET18, strides, classes)


def wide_resnet50(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> ResNet:
    """68.9 M parameters with head; the backbone of the PatchCore paper."""
    return ResNet(WIDE_RESNET50, strides, classes)


__all__ = ["ResNet", "Variant", "resnet18", "wide_resnet50"]
