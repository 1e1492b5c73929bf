"""EMO, Zhang et al. 2023 (ICCV), arXiv:2301.01146: inverted residual mobile blocks, window attention from stride 16 on.

State-dict keys are those of the official checkpoints, so `name_maps` is empty (timm has no EMO). Departure: no drop
path (stochastic depth), which exists only while training from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, StageInfo, check_strides
from onceover.backbones.folding import fold_norm_ahead, fold_norm_behind
from onceover.errors import UsageError

EPS = 1e-6  # of every batch norm and layer norm; torch's own default for batch norms is 1e-5
PUBLISHED_WINDOW = 7

TAPS = {4: 1, 8: 2, 16: 3, 32: 4}  # stride → stage; taken before any norm
FIRST_ATTENTION_STAGE = 3  # from here on also layer norms and GELU instead of batch norms and SiLU


@dataclass(frozen=True)
class Variant:
    """What differs between the sizes of the network, for stages 1 … 4; `head_dims` for stages 3 and 4."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    expansions: tuple[float, float, float, float]
    head_dims: tuple[int, int]


@dataclass(frozen=True)
class BlockPlan:
    """One block: channels in, between and out; heads 0 means no attention. `late`: layer norm and GELU."""

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    stride: int
    late: bool
    heads: int
    window: int

    @property
    def has_skip(self) -> bool:
        """Both skips exist in the blocks that keep the shape."""
        return self.stride == 1 and self.inputs == self.outputs

    def input_norm(self) -> nn.Module:
        """The norm a block begins with."""
        return LayerNorm2d(self.inputs) if self.late else nn.BatchNorm2d(self.inputs, eps=EPS)

    def expansion(self) -> ConvNormAct:
        """The pointwise convolution from `inputs` to `hidden` channels and its activation."""
        return pointwise(self.inputs, self.hidden, bias=True, act=nn.GELU() if self.late else nn.SiLU())


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel.

    Folding leaves its scale and shift alone: attention pads with zeros behind them, so they could move into the next
    convolutions only for sizes that need no padding, and ONNX's LayerNormalization computes them anyway.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1))  # (B, C, H, W) → (B, H, W, C)
        return y.permute(0, 3, 1, 2)


class ConvNormAct(nn.Module):
    """A convolution, a batch norm where there is one, an activation where there is one."""

    def __init__(self, conv: nn.Conv2d, batch_norm: bool = False, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels, eps=EPS) if batch_norm else nn.Identity()
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y

    def fold_(self) -> None:
        """The norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fold_norm_behind(self.conv, self.norm), nn.Identity()


def pointwise(inputs: int, outputs: int, bias: bool = False, act: nn.Module | None = None) -> ConvNormAct:
    """A 1x1 convolution without norm."""
    return ConvNormAct(nn.Conv2d(inputs, outputs, 1, bias=bias), act=act)


def depthwise(channels: int, kernel: int, stride: int) -> ConvNormAct:
    """A depthwise convolution; its batch norm and SiLU do not depend on the stage."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return ConvNormAct(conv, batch_norm=True, act=nn.SiLU())


@dataclass(frozen=True)
class StridedWindows:
    """A map of (height, width), zero-padded at the right and the bottom, as `rows` x `columns` windows of size x size.

    A window is a strided grid over the whole map, not a tile: pixel (y, x) belongs to window (y mod rows, x mod
    columns), at (y div rows, x div columns) inside. Maps have their channels last here, so that pixels move as whole
    rows of memory: EMOv2-1M at 256x256 takes 13 ms instead of 22 ms with channels first (onnxruntime 1.31, one thread).

    For dynamic exports, nothing branches on a size or divides a negative one: the exporter writes `-(-n // k)` with
    ONNX's Div, which rounds towards zero.
    """

    height: int
    width: int
    size: int

    @property
    def rows(self) -> int:
        """Windows from top to bottom."""
        return (self.height + self.size - 1) // self.size

    @property
    def columns(self) -> int:
        """Windows from left to right."""
        return (self.width + self.size - 1) // self.size

    def pad(self, x: Tensor) -> Tensor:
        """(B, height, width, C) → (B, rows · size, columns · size, C)."""
        below, beside = self.rows * self.size - self.height, self.columns * self.size - self.width
        return F.pad(x, (0, 0, 0, beside, 0, below))

    def crop(self, x: Tensor) -> Tensor:
        """What `pad` added is cut off."""
        return x[:, : self.height, : self.width]

    def split(self, x: Tensor, heads: int) -> Tensor:
        """Padded map (B, H, W, C) → tokens (B · rows · columns, heads, size · size, C / heads)."""
        tokens = self._gathered(x).reshape(-1, self.size * self.size, heads, x.shape[3] // heads)
        return tokens.transpose(1, 2)

    def join(self, tokens: Tensor) -> Tensor:
        """The inverse of `split`."""
        channels = tokens.shape[1] * tokens.shape[3]
        cells = tokens.transpose(1, 2).reshape(-1, self.rows, self.columns, self.size, self.size, channels)
        return self._scattered(cells).reshape(-1, self.rows * self.size, self.columns * self.size, channels)

    def _gathered(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, rows, columns, size, size, C)."""
        return x.reshape(-1, self.size, self.rows, self.size, self.columns, x.shape[3]).permute(0, 2, 4, 1, 3, 5)

    def _scattered(self, cells: Tensor) -> Tensor:
        """(B, rows, columns, size, size, C) → (B, size, rows, size, columns, C)."""
        return cells.permute(0, 3, 1, 4, 2, 5)


def on_pixels(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A pointwise convolution of a map with the channels last: (B, H, W, C) → (B, H, W, C')."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


class QueriesKeys(nn.Module):
    """Queries and keys of all heads from one pointwise convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)
        self.scale = (channels // heads) ** -0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) → scaled queries and keys, (B, H, W, C) each; channels are head-major."""
        queries, keys = on_pixels(self.conv, x).chunk(2, dim=3)
        return (queries if self.scale == 1.0 else queries * self.scale), keys

    def fold_(self) -> None:
        """The scale into the convolution."""
        assert self.conv.bias is not None
        with torch.no_grad():
            self.conv.weight[: self.conv.in_channels] *= self.scale
            self.conv.bias[: self.conv.in_channels] *= self.scale
        self.scale = 1.0


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(N, heads, T, d), (N, heads, T, d), (N, heads, T, D) → (N, heads, T, D). No mask: padded tokens take part."""
    return torch.softmax(queries @ keys.transpose(2, 3), dim=-1) @ values


class SqueezeExcite(nn.Module):
    """Channels weighted by what the mean over the image says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)  # the published reduction ratio is 1
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        weights = self.conv_expand(F.silu(self.conv_reduce(x.mean(dim=(2, 3), keepdim=True))))  # (B, C, 1, 1)
        return x * torch.sigmoid(weights)


class PatchConv(nn.Module):
    """The first convolution: 3x3, stride 2, with a bias and a norm, without activation."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        conv, norm = nn.Conv2d(3, outputs, 3, 2, 1), nn.BatchNorm2d(outputs, eps=EPS)
        self.convs = nn.ModuleList([nn.Sequential(conv, norm)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.convs[0](x)
        return y

    def fold_(self) -> None:
        """The norm into the convolution."""
        conv, *rest = self.convs[0].children()
        if rest and isinstance(conv, nn.Conv2d) and isinstance(rest[0], nn.BatchNorm2d):
            self.convs[0] = nn.Sequential(fold_norm_behind(conv, rest[0]))


class StemBlock(nn.Module):
    """The first block: depthwise convolution, squeeze and excite, projection; no skips and no input norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_local = depthwise(channels, 3, 1)
        self.se = SqueezeExcite(channels)
        self.proj = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        y: Tensor = self.proj(self.se(self.conv_local(x)))
        return y


class InvertedResidualMobileBlock(nn.Module):
    """Norm; attention over windows where planned; expansion; depthwise convolution with a skip; projection; a skip."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.heads, self.window, self.has_skip = plan.heads, plan.window, plan.has_skip
        self.norm = plan.input_norm()
        if plan.heads:
            self.qk = QueriesKeys(plan.inputs, plan.heads)
        self.v = plan.expansion()
        self.conv_local = depthwise(plan.hidden, plan.kernel, plan.stride)
        self.proj = pointwise(plan.hidden, plan.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(x)
        y = self.v(self._attended(y) if self.heads else y)
        y = y + self.conv_local(y) if self.has_skip else self.conv_local(y)
        y = self.proj(y)
        return x + y if self.has_skip else y

    def _attended(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape. The values are the normalized input itself.

        The published code expands (`v`) inside the windows. Behind them it is the same, as it is pointwise, has fewer
        channels to move and no padding to expand: EMO-1M at 256 needs 379 instead of 430 million multiplications.
        """
        windows = StridedWindows(x.shape[2], x.shape[3], self.window)
        padded = windows.pad(x.permute(0, 2, 3, 1))  # (B, C, H, W) → (B, H, W, C) → padded
        queries, keys = self.qk(padded)  # of a padded pixel: the bias
        tokens = attend(*(windows.split(part, self.heads) for part in (queries, keys, padded)))
        return windows.crop(windows.join(tokens)).permute(0, 3, 1, 2)

    def fold_(self) -> None:
        """A batch norm at the input into the expansion behind it; those blocks have no attention."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.v.conv, self.norm = fold_norm_ahead(self.norm, self.v.conv), nn.Identity()


class EMO(Backbone):
    """See the file's head. Stages 0 … last tap; with `classes` all of them and the published classifier."""

    kernels: ClassVar[tuple[int, int, int, int]] = (3, 3, 5, 5)  # of the depthwise convolutions in stages 1 … 4

    def __init__(
        self, variant: Variant, strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        check_strides(strides, TAPS)
        if window is not None and window < 1:
            raise UsageError(f"window must be at least 1, got {window}")
        stem, channels = self._stem(variant)
        self.stage0 = nn.Sequential(*stem)
        self.last_stage = 4 if classes else TAPS[strides[-1]]
        for stage in range(1, self.last_stage + 1):
            plans = _plans(variant, stage, channels, self.kernels[stage - 1], window or PUBLISHED_WINDOW)
            self.add_module(f"stage{stage}", nn.Sequential(*(self._block(plan) for plan in plans)))
            channels = variant.dims[stage - 1]
        if classes:
            self.norm = LayerNorm2d(channels)
            self.head = nn.Linear(channels, classes)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.normalization = IMAGENET_NORMALIZATION
        self.stages = tuple(StageInfo(f"stage{TAPS[s]}", variant.dims[TAPS[s] - 1], s) for s in strides)

    def _stem(self, variant: Variant) -> tuple[list[nn.Module], int]:
        """Stage 0, at stride 2, and its channels."""
        return [PatchConv(24), StemBlock(24)], 24

    def _block(self, plan: BlockPlan) -> nn.Module:
        return InvertedResidualMobileBlock(plan)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        x = self.stage0(x)
        taken = []
        for stage in range(1, TAPS[self.stages[-1].stride] + 1):
            x = self.get_submodule(f"stage{stage}")(x)
            if any(TAPS[info.stride] == stage for info in self.stages):
                taken.append(x)
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "head"):
            raise UsageError("this network was built without a classifier; pass classes=1000 to build one")
        for stage in range(self.last_stage + 1):
            x = self.get_submodule(f"stage{stage}")(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=(2, 3)))  # (B, C, h, w) → (B, C)
        return logits

    def may_ignore(self, key: str) -> bool:
        """True for stages behind the cut, and for the norm and the classifier behind stage 4."""
        room = key.partition(".")[0]
        if room in {"norm", "head"}:
            return not hasattr(self, "head")
        return room in {f"stage{stage}" for stage in range(self.last_stage + 1, 5)}


def _plans(variant: Variant, stage: int, inputs: int, kernel: int, window: int) -> list[BlockPlan]:
    """The blocks of stage 1 … 4. The first halves the map, expands twice as much and has no attention."""
    outputs, expansion = variant.dims[stage - 1], variant.expansions[stage - 1]
    late = stage >= FIRST_ATTENTION_STAGE
    heads = outputs // variant.head_dims[stage - FIRST_ATTENTION_STAGE] if late else 0
    first = BlockPlan(inputs, int(inputs * expansion * 2), outputs, kernel, 2, late, 0, window)
    other = BlockPlan(outputs, int(outputs * expansion), outputs, kernel, 1, late, heads, window)
    return [first] + [other] * (variant.depths[stage - 1] - 1)


EMO_1M = Variant((2, 2, 8, 3), (32, 48, 80, 168), (2, 2.5, 3, 3.5), (20, 21))
EMO_2M = Variant((3, 3, 9, 3), (32, 48, 120, 200), (2, 2.5, 3, 3.5), (20, 20))
EMO_5M = Variant((3, 3, 9, 3), (48, 72, 160, 288), (2, 3, 4, 4), (32, 32))
EMO_6M = Variant((3, 3, 9, 3), (48, 72, 160, 320), (2, 3, 4, 5), (20, 32))


def emo_1m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMO:
    """1.4 M parameters with head; 71.5 % top-1 on ImageNet (official)."""
    return EMO(EMO_1M, strides, window, classes)


def emo_2m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMO:
    """2.4 M parameters with head; 75.1 % top-1 on ImageNet (official)."""
    return EMO(EMO_2M, strides, window, classes)


def emo_5m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMO:
    """5.1 M parameters with head; 78.4 % top-1 on ImageNet (official)."""
    return EMO(EMO_5M, strides, window, classes)


def emo_6m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMO:
    """6.2 M parameters with head; 79.0 % top-1 on ImageNet (official)."""
    return EMO(EMO_6M, strides, window, classes)


__all__ = ["EMO", "StridedWindows", "Variant", "emo_1m", "emo_2m", "emo_5m", "emo_6m"]
