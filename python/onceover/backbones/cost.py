"""What a backbone costs to run: parameters and multiply-accumulates of the graph that an export holds, counted."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from onceover.backbones import best_window, create_backbone, has_windows
from onceover.backbones.folding import folded
from onceover.registry import Cost


def count_cost(name: str, height: int = 256, width: int = 256) -> Cost:
    """Of the stages of stride 8 and 16, folded; padded cells of attention windows count, as they are computed.

    `registry.COSTS` keeps the answers for the default size. Takes no memory for weights. Raises UnknownNameError.
    """
    window = best_window(height, width) if has_windows(name) else None
    with torch.device("meta"):
        model = folded(create_backbone(name, None, random_init_seed=0, window=window))
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, height, width))
    return Cost(sum(part.numel() for part in model.parameters()), counter.get_total_flops() // 2)


__all__ = ["count_cost"]
