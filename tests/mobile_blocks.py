"""What tests of EMO and EMOv2 share: tiny variants, weights that hide nothing, slow and obvious window attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from onceover.backbones.emo import LayerNorm2d, Variant

# Every kind of block in every stage, two heads and more in stages 3 and 4.
TINY = Variant((2, 2, 3, 2), (8, 8, 16, 24), (1, 1.5, 2, 2), (8, 8))
SMALLEST = Variant((1, 1, 2, 1), (8, 8, 16, 16), (1, 1.5, 2, 2), (8, 8))  # for exports, which are slow
TINY_WINDOW = 3

Membership = Callable[[int, int, int], tuple[int, int]]  # (y, x, window) → the window of a pixel


def randomized(model: nn.Module) -> nn.Module:
    """Eval mode; norms, biases and layer scales far from the harmless defaults, which hide errors in folding."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()  # by this seed, whatever was drawn before
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "gamma")):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiplications(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image; on the meta device, so none is done."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2


def norm_by_hand(x: Tensor, norm: LayerNorm2d) -> Tensor:
    """(C, H, W) → the same shape: over the channels of each pixel."""
    variance = x.var(dim=0, unbiased=False, keepdim=True)
    standard = (x - x.mean(dim=0, keepdim=True)) / torch.sqrt(variance + 1e-6)
    return standard * norm.norm.weight.view(-1, 1, 1) + norm.norm.bias.view(-1, 1, 1)


def padded_by_hand(x: Tensor, window: int) -> Tensor:
    """(C, H, W) → zeros at the right and the bottom until the window fits."""
    channels, height, width = x.shape
    whole = torch.zeros(channels, -(-height // window) * window, -(-width // window) * window, dtype=x.dtype)
    whole[:, :height, :width] = x
    return whole


def pointwise_by_hand(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """(C, H, W) → (C', H, W)."""
    assert conv.bias is not None
    return torch.einsum("oc,chw->ohw", conv.weight[:, :, 0, 0], x) + conv.bias.view(-1, 1, 1)


def attention_by_hand(maps: tuple[Tensor, Tensor, Tensor], heads: int, window: int, window_of: Membership) -> Tensor:
    """Queries, keys (C, H, W), values (D, H, W), padded → (D, H, W); each pixel attends to all pixels of its window."""
    queries, keys, values = maps
    height, width = queries.shape[1:]
    depth, value_depth = queries.shape[0] // heads, values.shape[0] // heads
    pixels = [(y, x) for y in range(height) for x in range(width)]
    answer = torch.zeros_like(values)
    for head in range(heads):
        own, own_values = slice(head * depth, (head + 1) * depth), slice(head * value_depth, (head + 1) * value_depth)
        for y, x in pixels:
            others = [other for other in pixels if window_of(*other, window) == window_of(y, x, window)]
            logits = torch.stack([(queries[own, y, x] * keys[own, i, j]).sum() / depth**0.5 for i, j in others])
            weights = torch.exp(logits - logits.max())
            weights = weights / weights.sum()
            answer[own_values, y, x] = sum(
                w * values[own_values, i, j] for w, (i, j) in zip(weights, others, strict=True)
            )
    return answer


def strided(height: int, width: int) -> Membership:
    """The windows of a padded map whose members lie as far apart as they can."""
    return lambda y, x, window: (y % (height // window), x % (width // window))


def contiguous(y: int, x: int, window: int) -> tuple[int, int]:
    """Windows as tiles."""
    return y // window, x // window


def rest_of_block(expanded: Tensor, block: Any) -> Tensor:
    """Inner skip and projection of a block that keeps the shape; (hidden, H, W) → (C, H, W), without layer scale."""
    y = expanded[None]
    conv, norm = block.conv_local.conv, block.conv_local.norm
    local = nn.functional.conv2d(y, conv.weight, padding=conv.kernel_size[0] // 2, groups=y.shape[1])
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-6)
    local = (local - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    y = y + local * torch.sigmoid(local)
    projected: Tensor = torch.einsum("oc,chw->ohw", block.proj.conv.weight[:, :, 0, 0], y[0])
    return projected
