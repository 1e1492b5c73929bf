"""MobileNetV2, Sandler et al. 2018, arXiv:1801.04381, table 2: any width, cut after the last stage that is asked for.

State-dict keys are those of torchvision; without batch norm the same keys name folded convolutions with a bias, which
is also what `fold_` leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, Normalization, StageInfo, check_strides
from onceover.backbones.folding import fold_norm_behind
from onceover.backbones.name_map import NameMap
from onceover.errors import UsageError

Padding = Literal["same", "symmetric"]

# (expansion t, channels c, repeats n, first stride s) of each group of inverted residuals
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# stride → index in `features` of the last block at that stride. These are linear bottlenecks: signed values.
TAPS = {4: 3, 8: 6, 16: 13, 32: 17}

# The published TensorFlow weights take pixels in -1..1.
TENSORFLOW_NORMALIZATION = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def round_channels(value: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than 10 % below `value`."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow SAME padding (before, after) of one axis: the output has ceil(size / stride) cells."""
    assert kernel >= stride  # otherwise cells would be skipped, and the sum below be negative
    out = (size + stride - 1) // stride  # as -(-size // stride) it would be wrong in a graph with dynamic sizes
    total = (out - 1) * stride + kernel - size
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow SAME padding, which depends on the input size and may be lopsided."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        padding = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)
        if self.stride != (1, 1):  # depends on the size; always an operation of its own, which an export merges
            top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
            left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class FoldableSequential(nn.Sequential):
    """A sequence that can merge each of its convolutions with the batch norm straight behind it."""

    def fold_(self) -> None:
        """What is left is numbered anew, as in a sequence that was built without batch norm."""
        kept: list[nn.Module] = []
        for part in self:
            if isinstance(part, nn.BatchNorm2d) and kept and isinstance(kept[-1], nn.Conv2d):
                kept[-1] = fold_norm_behind(kept[-1], part)
            else:
                kept.append(part)
        del self[:]
        self.extend(kept)


class _Layers:
    """Makes convolutions of one padding and one normalization style."""

    def __init__(self, padding: Padding, batch_norm: bool) -> None:
        self.padding, self.batch_norm = padding, batch_norm

    def linear(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        """A convolution and its batch norm (or a convolution with a bias, where that is folded)."""
        bias = not self.batch_norm
        conv: nn.Conv2d
        if self.padding == "same":
            conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        return [conv, nn.BatchNorm2d(outputs)] if self.batch_norm else [conv]

    def active(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
        """The same, followed by ReLU6."""
        return FoldableSequential(*self.linear(inputs, outputs, kernel, stride, groups), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; the input is added where the shapes agree."""

    def __init__(self, layers: _Layers, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [layers.active(inputs, hidden)] if expansion != 1 else []
        depthwise = layers.active(hidden, hidden, 3, stride, groups=hidden)
        self.conv = FoldableSequential(*expand, depthwise, *layers.linear(hidden, outputs))
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(x)
        return x + y if self.has_skip else y


class MobileNetV2(Backbone):
    """See the file's head. `features` holds blocks 0 … last tap; with `classes` also the published classifier.

    `projections` (stride → channels) puts a 1x1 convolution behind a stage, as a distilled student needs.
    """

    def __init__(
        self,
        width: float,
        padding: Padding,
        batch_norm: bool,
        strides: tuple[int, ...],
        projections: dict[int, int] | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        check_strides(strides, TAPS)
        layers = _Layers(padding, batch_norm)
        blocks, channels = _blocks(layers, width, through=18 if classes else TAPS[strides[-1]])
        self.features = nn.ModuleList(blocks)
        wanted = {stride: outputs for stride, outputs in (projections or {}).items() if stride in strides}
        self.projections = nn.ModuleDict({str(s): nn.Conv2d(channels[TAPS[s]], out, 1) for s, out in wanted.items()})
        if classes:
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels[18], classes))
        self.normalization = TENSORFLOW_NORMALIZATION
        self.stages = tuple(StageInfo(f"features.{TAPS[s]}", wanted.get(s, channels[TAPS[s]]), s) for s in strides)
        self._initialize()

    def _initialize(self) -> None:
        """He initialization, fan out, as the paper's public implementations use."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        strides = {TAPS[stage.stride]: str(stage.stride) for stage in self.stages}
        taken = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in strides:
                stride = strides[index]
                taken.append(self.projections[stride](x) if stride in self.projections else x)
            if len(taken) == len(self.stages):
                break
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "classifier"):
            raise UsageError("this MobileNetV2 was built without a classifier; pass classes=1001 to build one")
        for block in self.features:
            x = block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))  # (B, C, h, w) → (B, C)
        return logits

    def may_ignore(self, key: str) -> bool:
        """True for blocks behind the cut, the classifier, and projections of stages that were not asked for."""
        room, _, rest = key.partition(".")
        if room == "features":
            index = rest.partition(".")[0]
            return index.isdigit() and len(self.features) <= int(index) <= 18
        if room == "projections":
            return rest.partition(".")[0] not in {str(stage.stride) for stage in self.stages}
        return room == "classifier" and not hasattr(self, "classifier")


def _blocks(layers: _Layers, width: float, through: int) -> tuple[list[nn.Module], list[int]]:
    """Blocks 0 … `through` and the channels behind each."""
    channels = [round_channels(32 * width)]
    blocks: list[nn.Module] = [layers.active(3, channels[0], 3, 2)]
    for expansion, base, repeats, first_stride in GROUPS:
        for repeat in range(repeats):
            channels.append(round_channels(base * width))
            stride = first_stride if repeat == 0 else 1
            blocks.append(InvertedResidual(layers, channels[-2], channels[-1], stride, expansion))
    channels.append(round_channels(1280 * max(1.0, width)))
    blocks.append(layers.active(channels[-2], channels[-1]))
    return blocks[: through + 1], channels


_LEAF = r"(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
_FLAT_K = "(?P<k>[2-9]|1[0-7])"  # all blocks but the first, which has no expansion

# Their parts of a block → ours; the second table of each layout is for the first block.
_TIMM_PARTS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
_TIMM_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_FLAT_PARTS = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_FLAT_FIRST = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}


def _moved(theirs: str, ours: str) -> tuple[str, str]:
    """A rule for all tensors of one layer; `theirs` is a pattern."""
    return rf"{theirs}\.{_LEAF}", rf"{ours}.\g<leaf>"


def _torchvision_rules() -> Iterator[tuple[str, str]]:
    """Ours, told from the flat layouts by the parts that exist."""
    for ours in (r"features\.(0|18)\.[01]", r"features\.1\.conv\.(0\.[01]|[12])", r"classifier\.1"):
        yield rf"{ours}\.{_LEAF}", r"\g<0>"
    yield rf"features\.{_FLAT_K}\.conv\.([01]\.[01]|[23])\.{_LEAF}", r"\g<0>"


def _timm_rules() -> Iterator[tuple[str, str]]:
    ends = {"conv_stem": "0.0", "bn1": "0.1", "conv_head": "18.0", "bn2": "18.1"}
    yield from (_moved(theirs, f"features.{ours}") for theirs, ours in ends.items())
    yield _moved("classifier", "classifier.1")
    index = 1
    for stage, (_, _, repeats, _) in enumerate(GROUPS):
        for repeat in range(repeats):
            for theirs, ours in (_TIMM_PARTS if index > 1 else _TIMM_FIRST).items():
                yield _moved(rf"blocks\.{stage}\.{repeat}\.{theirs}", f"features.{index}.conv.{ours}")
            index += 1


def _flat_rules() -> Iterator[tuple[str, str]]:
    """The blocks of d-li14's and of tonylins' files, which number the layers of a block in one sequence."""
    yield rf"features\.0\.[01]\.{_LEAF}", r"\g<0>"
    yield from (
        _moved(rf"features\.1\.conv\.{theirs}", f"features.1.conv.{our}") for theirs, our in _FLAT_FIRST.items()
    )
    for theirs, ours in _FLAT_PARTS.items():
        yield _moved(rf"features\.{_FLAT_K}\.conv\.{theirs}", rf"features.\g<k>.conv.{ours}")


class TorchvisionMobileNetV2(MobileNetV2):
    """As torchvision and timm train it: symmetric padding, batch norm, ImageNet normalization.

    Of tonylins' files only those of width 1.0 fit: at others, the first convolution and the first block are not scaled
    there, and the shapes are refused. Neither does an older layout of his fit, which expands the first block.
    """

    name_maps = (
        NameMap("torchvision", tuple(_torchvision_rules())),
        NameMap("timm", tuple(_timm_rules())),
        NameMap(
            "d-li14",
            (*_flat_rules(), _moved(r"conv\.(?P<k>[01])", r"features.18.\g<k>"), _moved("classifier", "classifier.1")),
        ),
        NameMap(
            "tonylins",
            (
                *_flat_rules(),
                (rf"features\.18\.[01]\.{_LEAF}", r"\g<0>"),
                _moved(r"classifier(\.1)?", "classifier.1"),
            ),
        ),
    )

    def __init__(self, width: float, strides: tuple[int, ...], classes: int = 0) -> None:
        super().__init__(width, "symmetric", batch_norm=True, strides=strides, classes=classes)
        self.normalization = IMAGENET_NORMALIZATION


def mobilenetv2(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> MobileNetV2:
    """Width 1.0 in the layout of the folded TensorFlow weights (SAME padding, no batch norm)."""
    return MobileNetV2(1.0, "same", batch_norm=False, strides=strides, classes=classes)


def mobilenetv2_050(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> MobileNetV2:
    """Width 0.5, symmetric padding, batch norm: the student that onceover 0.1 embedded.

    Its projections have the widths of the teacher's taps, features.6 (32) and features.13 (96).
    """
    return MobileNetV2(0.5, "symmetric", batch_norm=True, strides=strides, projections={8: 32, 16: 96}, classes=classes)


def mobilenetv2_w035(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> TorchvisionMobileNetV2:
    """Width 0.35, for weights of torchvision's, timm's or d-li14's code."""
    return TorchvisionMobileNetV2(0.35, strides, classes)


def mobilenetv2_w050(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> TorchvisionMobileNetV2:
    """Width 0.5, for weights of torchvision's, timm's or d-li14's code."""
    return TorchvisionMobileNetV2(0.5, strides, classes)


def mobilenetv2_w075(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> TorchvisionMobileNetV2:
    """Width 0.75, for weights of torchvision's, timm's or d-li14's code."""
    return TorchvisionMobileNetV2(0.75, strides, classes)


def mobilenetv2_w100(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> TorchvisionMobileNetV2:
    """Width 1.0, for weights of torchvision's, timm's or d-li14's code."""
    return TorchvisionMobileNetV2(1.0, strides, classes)


def mobilenetv2_w140(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> TorchvisionMobileNetV2:
    """Width 1.4, for weights of torchvision's, timm's or d-li14's code."""
    return TorchvisionMobileNetV2(1.4, strides, classes)


__all__ = [
    "MobileNetV2",
    "SameConv2d",
    "TorchvisionMobileNetV2",
    "mobilenetv2",
    "mobilenetv2_050",
    "mobilenetv2_w035",
    "mobilenetv2_w050",
    "mobilenetv2_w075",
    "mobilenetv2_w100",
    "mobilenetv2_w140",
    "round_channels",
    "same_padding",
]
