"""The student while it learns: a projected backbone and, for soft labels, a classifier that is dropped in the end.

Behind every stage a 1x1 convolution answers the leading principal components of the teacher's tap, as many as the stage
has channels, so that distances between its features are the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from onceover.backbones.backbone import Backbone, StageInfo, normalize
from onceover.backbones.projected import Projected
from onceover.errors import UsageError
from onceover.training.pretrain.loading import TrainingBatch
from onceover.training.pretrain.records import RecordHeader
from onceover.training.pretrain.shards import Records


class Student(nn.Module):
    """Answers the teacher's taps, normalized, and logits where the records hold probabilities."""

    def __init__(self, backbone: Backbone, header: RecordHeader, with_classes: bool, seed: int) -> None:
        """backbone: one that was taught before goes on with its projections, another gets new ones.

        UsageError when its maps have another size than the recorded ones, or more channels.
        """
        super().__init__()
        _check_grids(backbone, header)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = [min(s.channels, tap.channels) for s, tap in zip(backbone.stages, header.taps, strict=True)]
            self.backbone = backbone if isinstance(backbone, Projected) else Projected(backbone, channels)
            last = self.backbone.trunk.stages[-1].channels
            self.classifier = nn.Linear(last, header.classes) if with_classes else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on CPUs

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """(B, 3, H, W) uint8 → features (B, K, h, w) per tap, as `Targets` gives them, logits (B, classes)."""
        x = normalize(pixels, self.backbone.normalization).contiguous(memory_format=torch.channels_last)
        stages = self.backbone.trunk(x)
        features = self.backbone.project(stages)
        if self.classifier is None:
            return features, None
        return features, self.classifier(stages[-1].mean(dim=(2, 3)))  # (B, C, h, w) → (B, C)

    def freeze_norms(self) -> None:
        """Batch norms keep their statistics: for small batches, and for losses that do not depend on their split."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _check_grids(backbone: Backbone, header: RecordHeader) -> None:
    side = header.view_size
    with torch.inference_mode():
        maps = [tuple(stage.shape[2:]) for stage in backbone.eval()(torch.zeros(1, 3, side, side))]
    recorded = [(tap.height, tap.width) for tap in header.taps]
    pairs = zip(backbone.stages, header.taps, strict=True)
    wide = [tap.name for stage, tap in pairs if stage.channels > tap.channels]
    if wide and isinstance(backbone, Projected):
        raise UsageError(f"the student has more channels than the teacher's {', '.join(wide)}; leave out --init")
    if maps != recorded:
        raise UsageError(f"the student's maps are {maps} cells, the recorded ones {recorded}; choose another student")


class Targets(nn.Module):
    """Stored answers → what the student should say: channels with mean 0 and variance 1 over all records, then the
    leading components of their covariance, as many as the student's stage has channels, with a mean variance of 1.
    """

    def __init__(self, records: Records, stages: Sequence[StageInfo]) -> None:
        """stages: of the student."""
        super().__init__()
        self.classes = records.header.classes
        statistics, correlations = records.statistics(), records.correlations()
        for index, ((mean, std), correlation, stage) in enumerate(zip(statistics, correlations, stages, strict=True)):
            rows = _components(correlation, stage.channels) / std  # (K, C): centered channels → components
            self.register_buffer(f"rows{index}", torch.from_numpy(rows).float()[..., None, None], persistent=False)
            self.register_buffer(f"mean{index}", torch.from_numpy(mean)[:, None, None], persistent=False)

    def features(self, taps: list[Tensor]) -> list[Tensor]:
        """(B, C, h, w) float16 → (B, K, h, w) float32."""
        return [
            F.conv2d(tap.float() - self.get_buffer(f"mean{index}"), self.get_buffer(f"rows{index}"))
            for index, tap in enumerate(taps)
        ]

    def probabilities(self, classes: Tensor, values: Tensor) -> Tensor:
        """The K stored probabilities (B, K) and the rest of the mass spread evenly: (B, classes), TinyViT's eq. 2."""
        kept = values.shape[1]
        rest = (1 - values.sum(dim=1, keepdim=True)).clamp_min(0)  # float16 may round the sum to above 1
        evenly = rest / max(1, self.classes - kept)
        return evenly.expand(-1, self.classes).scatter(1, classes, values)


def _components(correlation: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(C, C) → the leading `count` eigenvectors as rows, scaled to a mean variance of 1; all channels as they are where
    none has to go. The sign of each is fixed by its largest entry.
    """
    if count >= len(correlation):
        return np.eye(len(correlation))
    values, vectors = np.linalg.eigh(correlation)  # rising
    rows = vectors[:, ::-1][:, :count].T
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return np.asarray(rows * np.sign(largest) / np.sqrt(values[::-1][:count].mean()))


def distillation_loss(student: Student, targets: Targets, batch: TrainingBatch, logit_weight: float) -> Tensor:
    """Mean squared error of each tap (each has variance 1), summed, and the cross-entropy with the soft labels."""
    features, logits = student(batch.pixels)
    pairs = zip(features, targets.features(batch.taps), strict=True)
    loss = torch.stack([F.mse_loss(feature.float(), target) for feature, target in pairs]).sum()
    if logits is not None:
        wanted = targets.probabilities(batch.classes, batch.probabilities)
        loss = loss - logit_weight * (wanted * F.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
    return loss


__all__ = ["Student", "Targets", "distillation_loss"]
