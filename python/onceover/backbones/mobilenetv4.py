"""MobileNetV4-conv-small, Qin et al. 2024, arXiv:2404.10518: nothing but convolutions and ReLU, fast on CPUs.

State-dict keys are those of timm, `mobilenetv4_conv_small`. Normalization travels with weights, not with the network:
ImageNet's for timm's e1200_r224 and e2400_r224, but mean and standard deviation 0.5 for e3600_r256. Whoever loads that
file sets `backbone.normalization = HALF_NORMALIZATION`, which an export then writes into its graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, Normalization, StageInfo, check_strides
from onceover.backbones.folding import fold_norm_behind
from onceover.errors import UsageError

HALF_NORMALIZATION = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # of timm's e3600_r256 weights


@dataclass(frozen=True)
class Bottleneck:
    """One universal inverted bottleneck. Kernel 0: no such depthwise convolution."""

    start: int  # kernel of the depthwise convolution before the expansion
    middle: int  # and of the one behind it
    expansion: int
    outputs: int
    stride: int = 1


# The groups of bottlenecks, at strides 16 and 32 …
GROUPS = (
    (Bottleneck(5, 5, 3, 96, stride=2), *(Bottleneck(0, 3, 2, 96),) * 4, Bottleneck(3, 0, 4, 96)),
    (
        Bottleneck(3, 3, 6, 128, stride=2),
        Bottleneck(5, 5, 4, 128),
        Bottleneck(0, 5, 4, 128),
        Bottleneck(0, 5, 3, 128),
        Bottleneck(0, 3, 4, 128),
        Bottleneck(0, 3, 4, 128),
    ),
)
# … come behind two of plain convolutions (3x3 with stride 2, then 1x1), at strides 4 and 8: their outputs.
PLAIN = ((32, 32), (96, 64))
STEM, LAST, HEAD = 32, 960, 1280

# stride → (index in `blocks`, channels). The 960 channels of blocks.4, also at stride 32, only serve the classifier.
TAPS = {4: (0, 32), 8: (1, 64), 16: (2, 96), 32: (3, 128)}


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def _folded_pair(conv: nn.Conv2d, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """The convolution with its norm inside, and what takes the norm's place."""
    return (fold_norm_behind(conv, norm), nn.Identity()) if isinstance(norm, nn.BatchNorm2d) else (conv, norm)


class PlainConv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel, stride)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.bn1(self.conv(x)))

    def fold_(self) -> None:
        """The norm into the convolution."""
        self.conv, self.bn1 = _folded_pair(self.conv, self.bn1)


class ConvNorm(nn.Module):
    """Convolution and batch norm, the parts of a bottleneck."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel, stride, groups)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.bn(self.conv(x))
        return y

    def fold_(self) -> None:
        """The norm into the convolution."""
        self.conv, self.bn = _folded_pair(self.conv, self.bn)


class UniversalBottleneck(nn.Module):
    """Depthwise, expand 1x1 with ReLU, depthwise with ReLU, project 1x1; the input is added where the shapes agree."""

    def __init__(self, inputs: int, plan: Bottleneck) -> None:
        super().__init__()
        hidden = inputs * plan.expansion
        early, late = (1, plan.stride) if plan.middle else (plan.stride, 1)
        self.dw_start = ConvNorm(inputs, inputs, plan.start, early, groups=inputs) if plan.start else None
        self.pw_exp = ConvNorm(inputs, hidden)
        self.dw_mid = ConvNorm(hidden, hidden, plan.middle, late, groups=hidden) if plan.middle else None
        self.pw_proj = ConvNorm(hidden, plan.outputs)
        self.has_skip = plan.stride == 1 and inputs == plan.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = x if self.dw_start is None else self.dw_start(x)
        y = F.relu(self.pw_exp(y))
        if self.dw_mid is not None:
            y = F.relu(self.dw_mid(y))
        y = self.pw_proj(y)
        return x + y if self.has_skip else y


class MobileNetV4ConvSmall(Backbone):
    """See the file's head. `blocks` holds groups 0 … last tap; with `classes` all, and the published classifier."""

    def __init__(self, strides: tuple[int, ...], classes: int = 0) -> None:
        super().__init__()
        check_strides(strides, TAPS)
        self.conv_stem = _conv(3, STEM, 3, stride=2)
        self.bn1: nn.Module = nn.BatchNorm2d(STEM)
        groups = _groups()
        self.blocks = nn.ModuleList(groups if classes else groups[: TAPS[strides[-1]][0] + 1])
        if classes:
            self.conv_head = _conv(LAST, HEAD)
            self.norm_head: nn.Module = nn.BatchNorm2d(HEAD)
            self.classifier = nn.Linear(HEAD, classes)
        self.normalization = IMAGENET_NORMALIZATION
        self.stages = tuple(StageInfo(f"blocks.{TAPS[s][0]}", TAPS[s][1], s) for s in strides)
        self._initialize()

    def _initialize(self) -> None:
        """He initialization, fan out of each group of channels, as timm uses."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        wanted = {TAPS[stage.stride][0] for stage in self.stages}
        taken = []
        x = F.relu(self.bn1(self.conv_stem(x)))
        for index, group in enumerate(self.blocks[: max(wanted) + 1]):
            x = group(x)
            if index in wanted:
                taken.append(x)
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "classifier"):
            raise UsageError("this MobileNetV4 was built without a classifier; pass classes=1000 to build one")
        x = F.relu(self.bn1(self.conv_stem(x)))
        for group in self.blocks:
            x = group(x)
        x = x.mean(dim=(2, 3), keepdim=True)  # (B, C, h, w) → (B, C, 1, 1)
        logits: Tensor = self.classifier(F.relu(self.norm_head(self.conv_head(x))).flatten(1))
        return logits

    def fold_(self) -> None:
        """The norms of the first and the last convolution into them; the blocks fold their own."""
        self.conv_stem, self.bn1 = _folded_pair(self.conv_stem, self.bn1)
        if hasattr(self, "classifier"):
            self.conv_head, self.norm_head = _folded_pair(self.conv_head, self.norm_head)

    def may_ignore(self, key: str) -> bool:
        """True for groups behind the cut and for the classifier."""
        room, _, rest = key.partition(".")
        if room == "blocks":
            index = rest.partition(".")[0]
            return index.isdigit() and len(self.blocks) <= int(index) <= 4
        return room in {"conv_head", "norm_head", "classifier"} and not hasattr(self, "classifier")


def _groups() -> list[nn.Sequential]:
    """The five groups of `blocks`."""
    groups, channels = [], STEM
    for first, second in PLAIN:
        groups.append(nn.Sequential(PlainConv(channels, first, 3, stride=2), PlainConv(first, second)))
        channels = second
    for plans in GROUPS:
        bottlenecks = nn.Sequential()
        for plan in plans:
            bottlenecks.append(UniversalBottleneck(channels, plan))
            channels = plan.outputs
        groups.append(bottlenecks)
    groups.append(nn.Sequential(PlainConv(channels, LAST)))
    return groups


def mobilenetv4_conv_small(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> MobileNetV4ConvSmall:
    """The network of timm's `mobilenetv4_conv_small`, with ImageNet normalization; see the file's head for e3600."""
    return MobileNetV4ConvSmall(strides, classes)


__all__ = ["HALF_NORMALIZATION", "MobileNetV4ConvSmall", "mobilenetv4_conv_small"]
