"""A backbone with a 1x1 convolution behind every stage: what distillation teaches, and what its weights files hold.

The convolutions give each stage the scale and the directions that distances are measured in, also where an activation
ends the stage, as in MobileNetV4; at stride 8 and 16 they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from onceover.backbones.backbone import Backbone

TRUNK, PROJECTIONS = "trunk.", "projections."


class Projected(Backbone):
    """Stages of `trunk`, each with its own number of channels."""

    def __init__(self, trunk: Backbone, channels: Sequence[int]) -> None:
        """channels: one number per stage of the trunk."""
        super().__init__()
        self.trunk = trunk
        pairs = list(zip(trunk.stages, channels, strict=True))
        self.projections = nn.ModuleDict({str(s.stride): nn.Conv2d(s.channels, count, 1) for s, count in pairs})
        self.stages = tuple(replace(stage, channels=count) for stage, count in pairs)
        self.normalization = trunk.normalization

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → projected stage features by rising stride."""
        return self.project(self.trunk(x))

    def project(self, stages: list[Tensor]) -> list[Tensor]:
        """The trunk's stages → ours."""
        return [convolution(stage) for convolution, stage in zip(self.projections.values(), stages, strict=True)]

    def may_ignore(self, key: str) -> bool:
        """True for projections of stages that were not asked for, and for what the trunk may ignore."""
        if key.startswith(PROJECTIONS):
            return key.removeprefix(PROJECTIONS).partition(".")[0] not in self.projections
        return key.startswith(TRUNK) and self.trunk.may_ignore(key.removeprefix(TRUNK))

    def adapted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See the trunk's."""
        inner = {key.removeprefix(TRUNK): tensor for key, tensor in tensors.items() if key.startswith(TRUNK)}
        outer = {key: tensor for key, tensor in tensors.items() if not key.startswith(TRUNK)}
        return outer | {TRUNK + key: tensor for key, tensor in self.trunk.adapted(inner).items()}


def is_taught(tensors: Iterable[str]) -> bool:
    """Whether the keys are those of a weights file that `pretrain` wrote."""
    return any(key.startswith(TRUNK) for key in tensors)


def with_projections(trunk: Backbone, tensors: Mapping[str, Tensor]) -> Backbone:
    """`trunk` itself, or projected where the weights are those of a projected one, to the channels that they have."""
    if not is_taught(tensors):
        return trunk
    weights = [tensors.get(f"{PROJECTIONS}{stage.stride}.weight") for stage in trunk.stages]
    pairs = zip(trunk.stages, weights, strict=True)
    return Projected(trunk, [stage.channels if weight is None else len(weight) for stage, weight in pairs])


__all__ = ["Projected", "is_taught", "with_projections"]
