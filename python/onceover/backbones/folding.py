"""Norms into the convolutions beside them, exactly: what a graph need not compute. Done before export, in float64.

A module that can be folded has a method `fold_()`, which replaces its own parts in place and may assume eval mode.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def folded(module: AnyModule) -> AnyModule:
    """A copy of `module` in eval mode in which every part with a `fold_` method was folded, innermost first."""
    copied = copy.deepcopy(module).eval()
    for part in reversed(list(copied.modules())):  # modules() names parents before their children
        fold = getattr(part, "fold_", None)
        if fold is not None:
            fold()
    return copied


def fold_norm_behind(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution for norm(conv(x)): W' = W · g per output channel, b' = β + (b − μ) · g, g = γ / √(σ² + ε)."""
    scale, shift = scale_and_shift(norm)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return _like(conv, weight, bias)


def fold_norm_ahead(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """One convolution for conv(norm(x)), a pointwise one: padding would see the norm's zeros, not ours.

    W' = W · g per input channel, b' = b + W (β − μ · g).
    """
    assert conv.kernel_size == (1, 1)
    assert conv.groups == 1
    assert conv.padding == (0, 0)
    scale, shift = scale_and_shift(norm)
    weight = conv.weight.double()
    bias = (weight[:, :, 0, 0] * shift).sum(dim=1)
    if conv.bias is not None:
        bias = bias + conv.bias.double()
    return _like(conv, weight * scale.view(1, -1, 1, 1), bias)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 (C,) each: norm(x) = scale · x + shift per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _like(conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    """A convolution of the class, geometry and dtype of `conv`."""
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(weight.detach().to(conv.weight.dtype), requires_grad=False)
    made.bias = nn.Parameter(bias.detach().to(conv.weight.dtype), requires_grad=False)
    return made


__all__ = ["fold_norm_ahead", "fold_norm_behind", "folded", "scale_and_shift"]
