"""Backbones: an image → features of a few stages. One architecture per file; needs torch (the extra 'train')."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from onceover import registry
from onceover.errors import InputError, UsageError

if TYPE_CHECKING:
    from onceover.backbones.backbone import Backbone
    from onceover.backbones.checkpoints import WeightsFile


def create_backbone(
    name: str,
    weights: Path | WeightsFile | None,
    strides: tuple[int, ...] = (8, 16),
    random_init_seed: int | None = None,
    window: int | None = None,
    classes: int = 0,
) -> Backbone:
    """The backbone `name` in eval mode, filled from the weights file (.safetensors, or .pth of torch.save).

    `window` replaces the published size of attention windows, in cells; one that divides the maps saves padding.
    With `classes` it is built whole, and `classify` answers that many logits. Weights that `pretrain` taught come with
    projections of their own (`projected.Projected`).

    Raises UnknownNameError for a name that is not registered, UsageError for a window where the architecture has none,
    and InputError without weights: random features are only for tests, which ask for them by `random_init_seed`.
    """
    if window is not None and not has_windows(name):
        raise UsageError(f"the backbone {name!r} has no attention windows; leave out window, got {window}")
    factory = registry.load("backbone", name, registry.BACKBONES)
    if weights is None and random_init_seed is None:
        raise InputError(f"the backbone {name!r} needs a weights file; pass the path of a .safetensors or .pth file")
    import torch

    from onceover.backbones.projected import with_projections
    from onceover.backbones.weights import load_into, load_weights

    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(random_init_seed or 0)
        options = {"window": window, "classes": classes or None}
        backbone: Backbone = factory(strides, **{key: value for key, value in options.items() if value is not None})
    if weights is not None:
        tensors = load_weights(weights)
        backbone = with_projections(backbone, tensors)
        load_into(backbone, weights, tensors)
    return backbone.eval()


def has_windows(name: str) -> bool:
    """Whether the backbone attends in windows, so that their size can be chosen."""
    return "window" in inspect.signature(registry.load("backbone", name, registry.BACKBONES)).parameters


def best_window(height: int, width: int) -> int:
    """7, the published side of attention windows, or 8 where that leaves fewer padded cells at stride 16.

    At 256 x 256, 16 x 16 cells fill four windows of 8, but nine of 7: TinyViT-5M takes 1.3 times as long with those.
    """

    def cells(window: int) -> int:
        rows, columns = (-(-side // (16 * window)) for side in (height, width))
        return rows * columns * window * window

    return min((7, 8), key=cells)


__all__ = ["best_window", "create_backbone", "has_windows"]
