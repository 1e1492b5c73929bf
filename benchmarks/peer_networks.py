"""PatchCore as it is usually written in torch, and the graphs that today's exporters make of it; for bench_peers.py.

All contenders embed with the same network: MobileNetV2 with the shared weights at 256 × 256, taps averaged over 3 × 3
cells, aligned to the 32 × 32 grid and joined: 1024 patches of D values.

    D = 128     32 + 96 bottleneck channels, features.6 and .13: what `onceover fit` embeds with
    D = 1024    192 + 192 expansion channels at stride 8 (features.5 and .7), 64 + 576 at stride 16 (bottlenecks of
                features.10, expansion of .14): as many as the code of Roth et al. 2022 (arXiv:2106.08265) pools to
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones import create_backbone
from onceover.backbones.backbone import Backbone, StageInfo
from onceover.backbones.mobilenetv2 import MobileNetV2
from onceover.backbones.patch_embedding import PatchEmbedding

SIDE, GRID = 256, 32  # pixels, cells
BLUR_SIGMA = 4.0

# D → (block, whether its expansion is taken and not its bottleneck) of each tap, with channels and stride, finest first
TAPS = {
    128: {(6, False): (32, 8), (13, False): (96, 16)},
    1024: {(5, True): (192, 8), (7, True): (192, 8), (10, False): (64, 16), (14, True): (576, 16)},
}


class Taps(Backbone):
    """The network up to its last tap."""

    def __init__(self, network: MobileNetV2, dim: int) -> None:
        super().__init__()
        self.taps = TAPS[dim]
        self.blocks = nn.ModuleList(network.features[: max(block for block, _ in self.taps) + 1])
        self.normalization = network.normalization
        self.stages = tuple(StageInfo(f"features.{block}", *size) for (block, _), size in self.taps.items())

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, 256, 256) → (B, C, 32 or 16, 32 or 16) of each tap."""
        taken = []
        for index, block in enumerate(self.blocks):
            if (index, True) in self.taps:
                expanded = block.conv[0](x)  # expand 1x1 and ReLU6, before the depthwise convolution
                taken.append(expanded)
            x = block(x)
            if (index, False) in self.taps:
                taken.append(x)
        return taken


def patch_embedding(weights: Path, dim: int) -> PatchEmbedding:
    """(1, 3, 256, 256) → (1, 1024, D)."""
    backbone = create_backbone("mobilenetv2", weights, strides=(8, 16, 32))
    assert isinstance(backbone, MobileNetV2)
    return PatchEmbedding(Taps(backbone, dim)).eval()


class NearestInGraph(nn.Module):
    """The bank as a constant: |q|² − 2 q·b + |b|², its square root, the least of each row. Holds P × M floats."""

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)  # (M, D)
        self.register_buffer("norms", (bank * bank).sum(dim=1)[None])  # (1, M)

    def forward(self, embedding: Tensor) -> Tensor:
        """(1, P, D) → (P,) distances."""
        queries = embedding[0]
        squared = (queries * queries).sum(dim=1, keepdim=True) - 2 * queries @ self.bank.T + self.norms
        return squared.clamp(min=0).sqrt().min(dim=1).values


class Map(nn.Module):
    """Patch scores to pixels: bilinear, then a Gaussian blur, along rows and columns in turn."""

    def __init__(self) -> None:
        super().__init__()
        radius = int(4 * BLUR_SIGMA + 0.5)
        taps = torch.tensor([math.exp(-0.5 * (x / BLUR_SIGMA) ** 2) for x in range(-radius, radius + 1)])
        self.radius = radius
        self.register_buffer("taps", taps / taps.sum())

    def forward(self, scores: Tensor) -> Tensor:
        """(P,) → (1, 1, 256, 256)."""
        pixels = F.interpolate(scores.view(1, 1, GRID, GRID), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        pixels = F.pad(pixels, [self.radius] * 4, mode="reflect")
        return F.conv2d(F.conv2d(pixels, self.taps.view(1, 1, 1, -1)), self.taps.view(1, 1, -1, 1))


class WholeGraph(nn.Module):
    """Image in, scores and map out: one file for any engine."""

    def __init__(self, embedding: PatchEmbedding, bank: Tensor) -> None:
        super().__init__()
        self.embedding, self.nearest, self.map = embedding, NearestInGraph(bank), Map()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, 256, 256) → (P,), (1, 1, 256, 256)."""
        scores = self.nearest(self.embedding(image))
        return scores, self.map(scores)


def write_graph(module: nn.Module, example: Tensor, path: Path) -> None:
    """As an exporter of today writes it: norms folded, everything else as the module says."""
    from onceover.backbones.folding import folded
    from onceover.export.to_onnx import export_module

    ready: Any = module.eval()
    if isinstance(ready, WholeGraph):
        ready.embedding = folded(ready.embedding)
    path.write_bytes(export_module(ready, (example,), ["input"]).SerializeToString())


__all__ = ["BLUR_SIGMA", "GRID", "SIDE", "Map", "NearestInGraph", "WholeGraph", "patch_embedding", "write_graph"]
