"""Stage features → patch embeddings: pool, align, join. This module is the graph that gets exported.

PatchCore, Roth et al. 2022, arXiv:2106.08265, section 3.1. A departure: the paper's code averages unfolded patches and
pools the channels to a fixed D; here 3x3 average pooling does the same and all channels are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import Backbone
from onceover.errors import UsageError


class PatchEmbedding(nn.Module):
    """(B, 3, H, W) float32, normalized → (B, P, D) float32; P = h·w in row-major order, D = all channels.

    The patch grid (h, w) is that of the first, finest stage. Each cell is the mean over the `aggregation` x
    `aggregation` cells round it that lie inside the image: padding zeros are not averaged in, as they would pull
    every border patch towards the origin.
    """

    def __init__(self, backbone: Backbone, aggregation: int = 3) -> None:
        super().__init__()
        if aggregation < 1 or aggregation % 2 == 0:
            raise UsageError(f"aggregation must be odd and positive, got {aggregation}")
        self.backbone = backbone
        self.aggregation = aggregation

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.backbone.embedding_dim

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) for an image of (height, width)."""
        stride = self.backbone.stages[0].stride
        return (height + stride - 1) // stride, (width + stride - 1) // stride  # -(-n // s) exports wrongly

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return join_stages(self.backbone(image), self.aggregation)


def join_stages(stages: Sequence[Tensor], aggregation: int) -> Tensor:
    """Stage features (B, C, h, w), the finest first → patch embeddings (B, P, D) on the grid of the first."""
    pooled = [
        F.avg_pool2d(stage, aggregation, stride=1, padding=aggregation // 2, count_include_pad=False)
        for stage in stages
    ]
    h, w = pooled[0].shape[2:]
    aligned = pooled[:1] + [
        F.interpolate(stage, size=(h, w), mode="bilinear", align_corners=False) for stage in pooled[1:]
    ]
    return torch.cat(aligned, dim=1).flatten(2).transpose(1, 2)  # (B, D, h, w) → (B, D, P) → (B, P, D)


__all__ = ["PatchEmbedding", "join_stages"]
