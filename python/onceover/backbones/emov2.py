"""EMOv2, Zhang et al. 2024, arXiv:2412.06674: EMO with attention over near and far windows at once, and layer scales.

State-dict keys are those of the official checkpoints, so `name_maps` is empty. Departure: no drop path, as in `emo`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from onceover.backbones.emo import (
    EMO,
    BlockPlan,
    ConvNormAct,
    QueriesKeys,
    StridedWindows,
    Variant,
    attend,
    depthwise,
    on_pixels,
    pointwise,
)
from onceover.backbones.folding import fold_norm_ahead


class ContiguousWindows(StridedWindows):
    """The same map as tiles: pixel (y, x) belongs to window (y div size, x div size)."""

    def _gathered(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, rows, columns, size, size, C)."""
        return x.reshape(-1, self.rows, self.size, self.columns, self.size, x.shape[3]).permute(0, 1, 3, 2, 4, 5)

    def _scattered(self, cells: Tensor) -> Tensor:
        """(B, rows, columns, size, size, C) → (B, rows, size, columns, size, C)."""
        return cells.permute(0, 1, 3, 2, 4, 5)


class Expansion(nn.Module):
    """The operator of blocks without attention: a pointwise convolution and its activation."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.net = plan.expansion()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, hidden, H, W)."""
        y: Tensor = self.net(x)
        return y


class HybridAttention(nn.Module):
    """The other operator: one set of queries, keys and expanded values, attended in strided and in contiguous windows.

    The two answers are added. Unlike in EMO the values are expanded first, behind the padding: a padded pixel has the
    values GELU(bias), so `v` cannot move behind the windows.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.heads, self.window = plan.heads, plan.window
        self.qk = QueriesKeys(plan.inputs, plan.heads)
        self.v = plan.expansion()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, hidden, H, W)."""
        far = StridedWindows(x.shape[2], x.shape[3], self.window)
        near = ContiguousWindows(x.shape[2], x.shape[3], self.window)
        padded = far.pad(x.permute(0, 2, 3, 1))  # (B, C, H, W) → (B, H, W, C) → padded
        maps = (*self.qk(padded), self.v.act(on_pixels(self.v.conv, padded)))
        far_answer, near_answer = (
            windows.join(attend(*(windows.split(part, self.heads) for part in maps))) for windows in (far, near)
        )
        return far.crop(far_answer + near_answer).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A factor for each channel, published to begin at 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return x * self.gamma


class ImprovedInvertedResidualMobileBlock(nn.Module):
    """Norm; operator; depthwise convolution with a skip; projection and its layer scale; a skip."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.has_skip = plan.has_skip
        self.norm = plan.input_norm()
        self.eops = nn.ModuleList([HybridAttention(plan) if plan.heads else Expansion(plan)])
        self.conv_local = depthwise(plan.hidden, plan.kernel, plan.stride)
        self.proj = pointwise(plan.hidden, plan.outputs)
        self.ls: nn.Module = LayerScale(plan.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.eops[0](self.norm(x))
        y = y + self.conv_local(y) if self.has_skip else self.conv_local(y)
        y = self.ls(self.proj(y))
        return x + y if self.has_skip else y

    def fold_(self) -> None:
        """The layer scale into the projection, a batch norm at the input into the expansion behind it."""
        if isinstance(self.ls, LayerScale):
            with torch.no_grad():
                self.proj.conv.weight *= self.ls.gamma.view(-1, 1, 1, 1)
            self.ls = nn.Identity()
        operator = self.eops[0]
        if isinstance(self.norm, nn.BatchNorm2d) and isinstance(operator, Expansion):
            operator.net.conv, self.norm = fold_norm_ahead(self.norm, operator.net.conv), nn.Identity()


class EMOv2(EMO):
    """See the file's head."""

    kernels: ClassVar[tuple[int, int, int, int]] = (5, 5, 5, 5)

    def _stem(self, variant: Variant) -> tuple[list[nn.Module], int]:
        channels = variant.dims[0] // 2
        patches = ConvNormAct(nn.Conv2d(3, channels, 3, 2, 1), batch_norm=True, act=nn.SiLU())
        return [patches, depthwise(channels, 3, 1), pointwise(channels, channels)], channels

    def _block(self, plan: BlockPlan) -> nn.Module:
        return ImprovedInvertedResidualMobileBlock(plan)


EMOV2_1M = Variant((2, 2, 8, 3), (32, 48, 80, 180), (2, 2.5, 3, 3.5), (20, 20))
EMOV2_2M = Variant((3, 3, 9, 3), (32, 48, 120, 200), (2, 2.5, 3, 3.5), (20, 20))
EMOV2_5M = Variant((3, 3, 9, 3), (48, 72, 160, 288), (2, 3, 4, 4), (32, 32))


def emov2_1m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMOv2:
    """1.5 M parameters with head; 72.3 % top-1 on ImageNet, 73.5 % distilled (official)."""
    return EMOv2(EMOV2_1M, strides, window, classes)


def emov2_2m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMOv2:
    """2.4 M parameters with head; 75.8 % top-1 on ImageNet, 76.7 % distilled (official)."""
    return EMOv2(EMOV2_2M, strides, window, classes)


def emov2_5m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> EMOv2:
    """5.1 M parameters with head; 79.4 % top-1 on ImageNet, 80.9 % distilled (official)."""
    return EMOv2(EMOV2_5M, strides, window, classes)


__all__ = ["ContiguousWindows", "EMOv2", "emov2_1m", "emov2_2m", "emov2_5m"]
