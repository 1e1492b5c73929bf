"""RepViT, Wang et al. 2024, arXiv:2307.09283: a convolutional network laid out like a mobile vision transformer.

State-dict keys are those of the official code. It has no windows and no softmax and takes any image size. `fold_` makes
one depthwise 3x3 convolution of the three branches of every token mixer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, StageInfo, check_strides
from onceover.backbones.folding import fold_norm_behind
from onceover.backbones.name_map import NameMap
from onceover.errors import UsageError

STRIDES = (4, 8, 16, 32)
DEPTHS = (2, 2, 14, 2)  # blocks per stage, of all variants here


class ConvNorm(nn.Module):
    """A convolution without bias (`c`) and its batch norm (`bn`)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)
        nn.init.constant_(self.bn.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.bn(self.c(x))
        return y

    def fold_(self) -> None:
        """The norm into the convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.c, self.bn = fold_norm_behind(self.c, self.bn), nn.Identity()


class DepthwiseBranches(nn.Module):
    """A depthwise 3x3, a depthwise 1x1 and the input itself, added and normalized."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1: nn.Conv2d | None = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        y: Tensor = self.conv(x)
        if self.conv1 is not None:
            y = self.bn(y + self.conv1(x) + x)
        return y

    def fold_(self) -> None:
        """Everything into `conv.c`: the 1x1 and the identity are 3x3 kernels with nothing but a center."""
        if self.conv1 is None or not isinstance(self.bn, nn.BatchNorm2d):
            return
        self.conv.fold_()
        dtype = self.conv1.weight.dtype
        whole, point = self.conv.c.double(), self.conv1.double()
        assert whole.bias is not None
        assert point.bias is not None
        with torch.no_grad():
            whole.weight += F.pad(point.weight + 1, (1, 1, 1, 1))  # (C, 1, 1, 1) → (C, 1, 3, 3)
            whole.bias += point.bias
        self.conv.c = fold_norm_behind(whole, self.bn).to(dtype)
        self.conv1, self.bn = None, nn.Identity()


class SqueezeExcitation(nn.Module):
    """Channels scaled by what the mean over the whole image says; hidden width a quarter, a multiple of 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # (B, C, H, W) → (B, C, 1, 1)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))


class ChannelMixer(nn.Module):
    """The input, and a pointwise expansion by 2 with GELU added to it; that begins as nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Sequential(ConvNorm(channels, 2 * channels), nn.GELU(), ConvNorm(2 * channels, channels, scale=0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        y: Tensor = self.m(x)
        return x + y


class Block(nn.Module):
    """Token mixer, squeeze and excitation where `squeeze`, channel mixer."""

    def __init__(self, channels: int, squeeze: bool) -> None:
        super().__init__()
        excitation = SqueezeExcitation(channels) if squeeze else nn.Identity()
        self.token_mixer = nn.Sequential(DepthwiseBranches(channels), excitation)
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        y: Tensor = self.channel_mixer(self.token_mixer(x))
        return y


class Downsample(nn.Module):
    """Half the size, depthwise, then another width, pointwise, then a channel mixer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # the gap in the numbers is a squeeze and excitation that no released variant has here
        self.token_mixer = nn.Sequential(
            ConvNorm(inputs, inputs, 3, stride=2, groups=inputs), nn.Identity(), ConvNorm(inputs, outputs)
        )
        self.channel_mixer = ChannelMixer(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.channel_mixer(self.token_mixer(x))
        return y


class Classifier(nn.Module):
    """Two heads, one of which learned from a teacher; their mean is the answer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier, self.classifier_dist = (
            nn.Sequential(OrderedDict(bn=nn.BatchNorm1d(channels), l=nn.Linear(channels, classes))) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) → logits (B, classes)."""
        logits: Tensor = (self.classifier(x) + self.classifier_dist(x)) / 2
        return logits


class RepViT(Backbone):
    """See the file's head. `features` holds blocks 0 … last tap; with `classes` all, and the two published heads.

    A stage is taken behind its last block, as in timm; the block without squeeze and excitation that follows belongs to
    the downsampling.
    """

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], strides: tuple[int, ...], classes: int = 0
    ) -> None:
        super().__init__()
        check_strides(strides, STRIDES)
        last = STRIDES[-1] if classes else strides[-1]
        self.features = nn.ModuleList([_stem(widths[0])])
        self._taps: dict[int, int] = {}  # stride → index in `features`
        for i, (stride, width, depth) in enumerate(zip(STRIDES, widths, depths, strict=True)):
            if stride > last:
                break
            if i > 0:
                self.features.extend([Block(widths[i - 1], squeeze=False), Downsample(widths[i - 1], width)])
            self.features.extend(Block(width, squeeze=j % 2 == 0) for j in range(depth))
            self._taps[stride] = len(self.features) - 1
        if classes:
            self.classifier = Classifier(widths[-1], classes)
        self._blocks = 1 + sum(depths) + 2 * (len(depths) - 1)  # of the whole network
        self.normalization = IMAGENET_NORMALIZATION
        self.name_maps = (NameMap("timm", tuple(_timm_rules(depths))),)
        self.stages = tuple(StageInfo(f"features.{self._taps[s]}", widths[STRIDES.index(s)], s) for s in strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        wanted = {self._taps[stage.stride] for stage in self.stages}
        taken = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in wanted:
                taken.append(x)
            if len(taken) == len(self.stages):
                break
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "classifier"):
            raise UsageError("this RepViT was built without a classifier; pass classes=1000 to build one")
        for block in self.features:
            x = block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))  # (B, C, h, w) → (B, C)
        return logits

    def may_ignore(self, key: str) -> bool:
        """True for blocks behind the cut and for the classifier."""
        room, _, rest = key.partition(".")
        if room == "features":
            index = rest.partition(".")[0]
            return index.isdigit() and len(self.features) <= int(index) < self._blocks
        return room == "classifier" and not hasattr(self, "classifier")


def _stem(width: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(3, width // 2, 3, stride=2), nn.GELU(), ConvNorm(width // 2, width, 3, stride=2))


def _timm_rules(depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    yield r"stem\.conv1\.(.+)", r"features.0.0.\1"
    yield r"stem\.conv2\.(.+)", r"features.0.2.\1"
    yield r"head\.head\.(.+)", r"classifier.classifier.\1"
    yield r"head\.head_dist\.(.+)", r"classifier.classifier_dist.\1"
    index = 1
    for stage, depth in enumerate(depths):
        if stage > 0:
            down = rf"stages\.{stage}\.downsample"
            yield from _timm_block_rules(rf"{down}\.pre_block", index)
            yield rf"{down}\.spatial_downsample\.(.+)", rf"features.{index + 1}.token_mixer.0.\1"
            yield rf"{down}\.channel_downsample\.(.+)", rf"features.{index + 1}.token_mixer.2.\1"
            yield rf"{down}\.ffn\.conv1\.(.+)", rf"features.{index + 1}.channel_mixer.m.0.\1"
            yield rf"{down}\.ffn\.conv2\.(.+)", rf"features.{index + 1}.channel_mixer.m.2.\1"
            index += 2
        for block in range(depth):
            yield from _timm_block_rules(rf"stages\.{stage}\.blocks\.{block}", index)
            index += 1


def _timm_block_rules(block: str, index: int) -> Iterator[tuple[str, str]]:
    yield rf"{block}\.token_mixer\.(.+)", rf"features.{index}.token_mixer.0.\1"
    yield rf"{block}\.se\.(.+)", rf"features.{index}.token_mixer.1.\1"
    yield rf"{block}\.channel_mixer\.conv1\.(.+)", rf"features.{index}.channel_mixer.m.0.\1"
    yield rf"{block}\.channel_mixer\.conv2\.(.+)", rf"features.{index}.channel_mixer.m.2.\1"


def repvit_m0_9(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> RepViT:
    """RepViT-M0.9."""
    return RepViT((48, 96, 192, 384), DEPTHS, strides, classes)


def repvit_m1_0(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> RepViT:
    """RepViT-M1.0."""
    return RepViT((56, 112, 224, 448), DEPTHS, strides, classes)


__all__ = ["RepViT", "repvit_m0_9", "repvit_m1_0"]
