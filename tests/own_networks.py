"""A small network of somebody else's, as a torch module: channels first, channels last and tokens among its values."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """(1, 3, H, W) → (1, 10) through maps of stride 4 (`stem`), 8 (`body`), tokens (`norm`) and 16 (`deep`)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.GELU())
        self.last = ChannelsLast()
        self.norm = nn.LayerNorm(24)
        self.deep = nn.Conv2d(24, 32, 3, 2, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.body(self.stem(x)))  # → (1, h, w, C)
        height, width = x.shape[1:3]
        tokens = self.norm(x.flatten(1, 2))
        x = tokens.transpose(1, 2).reshape(1, -1, height, width)
        y: Tensor = self.head(self.deep(x).mean(dim=(2, 3)))
        return y


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def make_net() -> Net:
    """Always the same one, in eval mode, with statistics that are not the defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        norm = net.body[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
    return net.eval()
