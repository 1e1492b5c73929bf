"""EMO and TinyViT computed the way their papers' public code does: what an export without further thought starts from.

Only the order of operations differs from `onceover.backbones`; parameters and results are the same, as bench_backbones
checks.
"""

from __future__ import annotations

import copy
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor

from onceover.backbones import emo, tinyvit
from onceover.backbones.backbone import Backbone


def straightforward(backbone: Backbone) -> Backbone:
    """A copy of an EMO or TinyViT with the published order of operations."""
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        if isinstance(module, emo.InvertedResidualMobileBlock) and module.heads:
            module.forward = MethodType(_emo_block, module)  # type: ignore[method-assign]
        elif isinstance(module, tinyvit.Block):
            module.forward = MethodType(_tinyvit_block, module)  # type: ignore[method-assign]
    return plain


def _emo_block(block: emo.InvertedResidualMobileBlock, x: Tensor) -> Tensor:
    """Partition with the channels first, attention and expansion inside the windows."""
    shortcut, size = x, block.window
    x = block.norm(x)
    batch, channels, height, width = x.shape
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    if rows * size != height or columns * size != width:
        x = F.pad(x, (0, columns * size - width, 0, rows * size - height))
    x = x.reshape(batch, channels, size, rows, size, columns).permute(0, 3, 5, 1, 2, 4)
    x = x.reshape(batch * rows * columns, channels, size, size)  # windows become a batch
    windows = x.shape[0]
    qk = block.qk.conv(x)
    qk = qk.reshape(windows, 2, block.heads, channels // block.heads, size * size).permute(1, 0, 2, 4, 3)
    attention = torch.softmax((qk[0] @ qk[1].transpose(-2, -1)) * block.qk.scale, dim=-1)
    values = x.reshape(windows, block.heads, channels // block.heads, size * size).transpose(-2, -1)
    x = (attention @ values).transpose(-2, -1).reshape(windows, channels, size, size)
    x = block.v(x)
    hidden = x.shape[1]
    x = x.reshape(batch, rows, columns, hidden, size, size).permute(0, 3, 4, 1, 5, 2)
    x = x.reshape(batch, hidden, size * rows, size * columns)
    if rows * size != height or columns * size != width:
        x = x[:, :, :height, :width]
    x = x + block.conv_local(x) if block.has_skip else block.conv_local(x)
    x = block.proj(x)
    return shortcut + x if block.has_skip else x


def _tinyvit_block(block: tinyvit.Block, x: Tensor) -> Tensor:
    """Tokens (B, L, C) in between; queries, keys and values apart; the bias gathered at run time."""
    batch, channels, height, width = x.shape
    size, attention = block.window, block.attn
    tokens = x.flatten(2).transpose(1, 2)
    shortcut = tokens
    cells = tokens.view(batch, height, width, channels)
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    below, beside = rows * size - height, columns * size - width
    if below or beside:
        cells = F.pad(cells, (0, 0, 0, beside, 0, below))
    cells = cells.view(batch, rows, size, columns, size, channels).transpose(2, 3)
    windows = cells.reshape(batch * rows * columns, size * size, channels)
    qkv = attention.qkv(attention.norm(windows)).view(windows.shape[0], size * size, attention.heads, -1)
    query, key, value = (part.permute(0, 2, 1, 3) for part in qkv.split([tinyvit.HEAD_DIM] * 3, dim=3))
    bias = attention.attention_biases[:, attention.positions.index].view(-1, size * size, size * size)
    scores = torch.softmax((query @ key.transpose(-2, -1)) * attention.scale + bias, dim=-1)
    windows = attention.proj((scores @ value).transpose(1, 2).reshape(-1, size * size, channels))
    cells = windows.view(batch, rows, columns, size, size, channels).transpose(2, 3)
    cells = cells.reshape(batch, rows * size, columns * size, channels)
    if below or beside:
        cells = cells[:, :height, :width].contiguous()
    tokens = shortcut + cells.view(batch, height * width, channels)
    image = block.local_conv(tokens.transpose(1, 2).reshape(batch, channels, height, width))
    tokens = image.view(batch, channels, height * width).transpose(1, 2)
    tokens = tokens + block.mlp(tokens)
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


__all__ = ["straightforward"]
