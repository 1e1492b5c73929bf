"""The teacher: a backbone with its weights, asked for the features of its taps and, where wanted, its best classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onceover.backbones import create_backbone
from onceover.backbones.backbone import Backbone, normalize
from onceover.backbones.weights import load_weights, read_card
from onceover.errors import InputError, UsageError
from onceover.training.pretrain.records import RecordHeader, Tap

# The linear layer of a classifier, by the names of all layouts that backbones/ reads; norms beside it have no matrix.
CLASSIFIER = re.compile(r"(^|\.)(classifier|head|fc|linear|l)\.([\w.]+\.)?weight$")


@dataclass(frozen=True)
class Answers:
    """Of B views. taps: (B, C, h, w) float32 each. Classes and probabilities (B, K), best first, where K > 0."""

    taps: list[NDArray[np.float32]]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How a teacher looks at a view. enlarge: times its side, so that fine structures reach the teacher's later stages.

    mirrors: 1, 2 (and left to right) or 4 (and upside down); its features are the mean over them, turned back.
    """

    enlarge: int = 1
    mirrors: int = 1

    def check(self) -> None:
        """UsageError for a look that cannot be."""
        if not 1 <= self.enlarge <= 4:
            raise UsageError(f"enlarge must be 1 to 4, got {self.enlarge}")
        if self.mirrors not in MIRRORS:
            raise UsageError(f"mirrors must be 1, 2 or 4, got {self.mirrors}")


PLAIN_LOOK = Look()
MIRRORS: dict[int, tuple[list[int], ...]] = {1: ([],), 2: ([], [3]), 4: ([], [3], [2], [2, 3])}  # dimensions to flip


class Teacher:
    """Runs in whole float32 wherever it runs (no TF32): what it answers is stored and compared."""

    def __init__(self, backbone: Backbone, look: Look, top_k: int, device: torch.device) -> None:
        self.device, self.look, self.top_k = device, look, top_k
        self._backbone = backbone.eval().requires_grad_(False).to(device)
        self._backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def __call__(self, pixels: Tensor) -> Answers:
        """(B, 3, H, W) uint8 → its answers, as arrays."""
        x = normalize(pixels.to(self.device), self._backbone.normalization)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            if self.look.enlarge > 1:
                x = F.interpolate(x, scale_factor=self.look.enlarge, mode="bicubic", align_corners=False)
            x = x.contiguous(memory_format=torch.channels_last)
            taps = [tap.float().cpu().numpy() for tap in self._mean_of_mirrors(x)]
            if not self.top_k:
                empty = np.zeros((len(pixels), 0))
                return Answers(taps, empty.astype(np.int64), empty.astype(np.float32))
            logits: Tensor = self._backbone.classify(x)  # type: ignore[operator]  # those built with classes have it
            best = logits.float().softmax(dim=1).topk(self.top_k, dim=1)
        return Answers(taps, best.indices.cpu().numpy(), best.values.cpu().numpy())

    def _mean_of_mirrors(self, x: Tensor) -> list[Tensor]:
        means: list[Tensor] = []
        for dims in MIRRORS[self.look.mirrors]:
            taps = [tap.flip(dims) if dims else tap for tap in self._backbone(x.flip(dims) if dims else x)]
            means = [mean + tap for mean, tap in zip(means, taps, strict=True)] if means else taps
        return [mean / self.look.mirrors for mean in means]

    def taps(self, view_size: int) -> tuple[Tap, ...]:
        """What views of that size come to; strides in pixels of the view."""
        answers = self(torch.zeros(1, 3, view_size, view_size, dtype=torch.uint8))
        shapes = [tap.shape[1:] for tap in answers.taps]
        pairs = zip(self._backbone.stages, shapes, strict=True)
        return tuple(Tap(stage.name, stage.stride // self.look.enlarge, *shape) for stage, shape in pairs)


def load_teacher(
    name: str, weights: Path, strides: tuple[int, ...], look: Look, top_k: int, device: torch.device
) -> tuple[Teacher, int]:
    """The teacher and the number of its classes (0 without top_k); UsageError when it has fewer than top_k.

    strides: in pixels of a view.
    """
    look.check()
    classes = count_classes(weights) if top_k else 0
    if top_k > classes:
        raise UsageError(f"{weights}: --logits-top-k {top_k}, but it has {classes} classes; ask for at most that many")
    own_strides = tuple(stride * look.enlarge for stride in strides)
    return Teacher(create_backbone(name, weights, own_strides, classes=classes), look, top_k, device), classes


def count_classes(weights: Path) -> int:
    """The classes that the classifier in a weights file tells apart; InputError when there is no classifier."""
    tensors = load_weights(weights).items()
    sizes = {len(tensor) for key, tensor in tensors if tensor.ndim == 2 and CLASSIFIER.search(key)}
    if len(sizes) != 1:
        found = f"several of sizes {sorted(sizes)}" if sizes else "none"
        raise InputError(f"{weights}: needs one classifier for --logits-top-k, found {found}; leave that option out")
    return int(sizes.pop())


def reload_teacher(header: RecordHeader, weights: Path | None, device: torch.device) -> Teacher:
    """The teacher that made the records; InputError when the file is another one than theirs."""
    path = weights or Path(header.locations.get("weights", ""))
    if not path.is_file():
        raise InputError(f"{path}: the teacher's weights are not there; say with --weights where they are")
    found, recorded = read_card(path).sha256, str(header.card.get("sha256"))
    if found != recorded:
        raise InputError(
            f"{path}: is not the teacher of these records (SHA-256 {found[:16]}, expected {recorded[:16]}); give its "
            "own weights, or record again into another folder"
        )
    strides = tuple(tap.stride for tap in header.taps)
    return load_teacher(header.backbone, path, strides, Look(header.enlarge, header.mirrors), header.top_k, device)[0]


def choose_device(name: str) -> torch.device:
    """auto: a GPU where torch has one. UsageError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here; use cpu, or install torch for your GPU")
    return torch.device(name)


__all__ = [
    "PLAIN_LOOK",
    "Answers",
    "Look",
    "Teacher",
    "choose_device",
    "count_classes",
    "load_teacher",
    "reload_teacher",
]
