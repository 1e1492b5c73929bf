"""The backbone contract: an image goes in, one feature map per requested stage comes out.

A backbone keeps this contract and any head, the patch embedding first, can be put on top of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onceover.backbones.name_map import NameMap
from onceover.errors import UsageError


@dataclass(frozen=True)
class StageInfo:
    """One stage a backbone hands out: where it is taken, its channels, and pixels per feature cell."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Normalization:
    """What the weights expect: x = (pixel / 255 - mean) / std, per channel, RGB."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# What most weights trained on ImageNet in torch expect.
IMAGENET_NORMALIZATION = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Backbone(nn.Module):
    """Base of all backbones.

    `stages` lists the requested stages only, by rising stride; `forward` answers one tensor for each, in that
    order: (B, C, ceil(H / stride), ceil(W / stride)) float32.
    """

    stages: tuple[StageInfo, ...]
    normalization: Normalization
    name_maps: tuple[NameMap, ...] = ()  # of checkpoint layouts other than our own keys

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features."""
        raise NotImplementedError

    def may_ignore(self, key: str) -> bool:
        """True for a weights key that belongs to a part of the architecture which was not built."""
        return False

    def adapted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file, by our keys, with those changed that depend on how this one was built."""
        return dict(tensors)

    @property
    def embedding_dim(self) -> int:
        """D of the patch embedding: the channels of all stages together."""
        return sum(stage.channels for stage in self.stages)


def check_strides(strides: tuple[int, ...], available: Collection[int]) -> None:
    """UsageError unless `strides` is a rising selection of the available ones."""
    if not strides or list(strides) != sorted(set(strides)) or not set(strides) <= set(available):
        raise UsageError(f"strides must be rising and among {sorted(available)}, got {strides}")


def normalize(pixels: Tensor, normalization: Normalization) -> Tensor:
    """(B, 3, H, W) uint8, RGB → float32, normalized; for training and tests, a device does this in `csrc/image`."""
    mean = torch.tensor(normalization.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(normalization.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255.0 - mean) / std


__all__ = ["IMAGENET_NORMALIZATION", "Backbone", "Normalization", "StageInfo", "check_strides", "normalize"]
