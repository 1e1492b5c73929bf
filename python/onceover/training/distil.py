"""Teach the small embedded backbone to see like a larger one, from a few dozen photographs and procedural textures.

Feature distillation on crops of very few images: Asano & Saeed 2021, arXiv:2112.00725. The student's projected
features are regressed on the teacher's taps, channel by channel normalized, as EfficientAD does (arXiv:2303.14535).
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from onceover.backbones import create_backbone
from onceover.backbones.backbone import Backbone, normalize
from onceover.backbones.weights import WeightsCard, read_card, save_weights
from onceover.errors import InputError, OutputError
from onceover.training import procedural

Image = NDArray[np.uint8]

STUDENT, TEACHER = "mobilenetv2_050", "mobilenetv2"
STRIDES = (8, 16)


@dataclass(frozen=True)
class Recipe:
    """Every number of the training. The number of steps is fixed, so that a run can be repeated.

    Longer training (5,600 steps, larger crops at the end, more kinds of textures, outputs on the teacher's scale) came
    closer to the teacher, and was better on circuit boards and at small defects, but saw large dull areas worse:
    magnetic tile 0.796 / 0.755 / 0.747 instead of the embedded 0.804 / 0.783 / 0.675 (benchmarks/README.md).
    """

    steps: int = 2406
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    photo_share: float = 0.65
    crop_size: int = 128
    batch: int = 24
    statistics_crops: int = 192
    seed: int = 0


def read_photos(folder: Path) -> list[Image]:
    """Every image of the folder in name order, (H, W, 3) uint8 RGB; InputError when there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    photos = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    broken = [path.name for path, photo in zip(paths, photos, strict=True) if photo is None]
    if broken or not photos:
        raise InputError(f"{folder}: needs .png or .jpg photographs; cannot read: {', '.join(broken) or 'none found'}")
    return [np.ascontiguousarray(photo[..., ::-1], dtype=np.uint8) for photo in photos if photo is not None]


def random_crop(rng: np.random.Generator, photo: Image, size: int) -> Image:
    """A random square of 15 to 100 % of the short side, resized to (size, size, 3)."""
    height, width = photo.shape[:2]
    side = max(16, int(min(height, width) * rng.uniform(0.15, 1.0)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = photo[top : top + side, left : left + side]
    filter_ = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR  # antialiased where it shrinks
    return np.asarray(cv2.resize(crop, (size, size), interpolation=filter_), dtype=np.uint8)


def augment(rng: np.random.Generator, image: Image) -> Image:
    """Flips, right-angle turns, 40 % gray, contrast 0.4 to 1.4 around mid-gray, brightness ±50."""
    image = np.rot90(image, int(rng.integers(4)))
    if rng.random() < 0.5:
        image = image[:, ::-1]
    pixels = image.astype(np.float32)
    if rng.random() < 0.4:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    contrast, brightness = rng.uniform(0.4, 1.4), rng.uniform(-50, 50)
    pixels = (pixels - 127.5) * np.float32(contrast) + np.float32(127.5 + brightness)
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)


def draw_batch(rng: np.random.Generator, photos: Sequence[Image], photo_share: float, size: int, count: int) -> Tensor:
    """(count, 3, size, size) uint8 RGB, photographs and textures mixed."""
    images = []
    for _ in range(count):
        if rng.random() < photo_share:
            image = random_crop(rng, photos[int(rng.integers(len(photos)))], size)
        else:
            image = procedural.draw(rng, size)
        images.append(augment(rng, image))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (count, size, size, 3) → (count, 3, size, size)


class NormalizedTeacher:
    """The teacher's taps with mean 0 and variance 1 per channel, measured on the student's own kind of crops."""

    def __init__(self, teacher: Backbone, crops: Tensor) -> None:
        self.teacher = _channels_last(teacher.eval().requires_grad_(False))
        stages = self._features(crops)
        self.means = [stage.mean(dim=(0, 2, 3), keepdim=True) for stage in stages]  # each (1, C, 1, 1)
        self.stds = [stage.std(dim=(0, 2, 3), keepdim=True) + 1e-6 for stage in stages]

    def _features(self, pixels: Tensor) -> list[Tensor]:
        x = normalize(pixels, self.teacher.normalization).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return [stage.float() for stage in self.teacher(x)]

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8 → normalized stage features."""
        stages = zip(self._features(pixels), self.means, self.stds, strict=True)
        return [(stage - mean) / std for stage, mean, std in stages]


def _channels_last(backbone: Backbone) -> Backbone:
    """The same module with its convolution weights in the layout that is faster here, by a fifth on one core."""
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this overload
    return backbone


def distil(
    student: Backbone, teacher: Backbone, photos: Sequence[Image], recipe: Recipe, on_step: Callable[[float], None]
) -> list[float]:
    """Train `student` in place and leave it in eval mode; it answers the teacher's features, normalized.

    The answer is the loss of every step: MSE of each normalized stage, summed (each has variance 1). `on_step` is
    called with each of them.
    """
    rng = np.random.Generator(np.random.PCG64(recipe.seed))
    crops = draw_batch(rng, photos, recipe.photo_share, recipe.crop_size, recipe.statistics_crops)
    target_of = NormalizedTeacher(teacher, crops)
    _channels_last(student.train())
    optimizer = torch.optim.AdamW(student.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    losses: list[float] = []
    for _ in range(recipe.steps):
        pixels = draw_batch(rng, photos, recipe.photo_share, recipe.crop_size, recipe.batch)
        x = normalize(pixels, student.normalization).contiguous(memory_format=torch.channels_last)
        pairs = zip(student(x), target_of(pixels), strict=True)
        loss = torch.stack([nn.functional.mse_loss(answer, target) for answer, target in pairs]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        cosine.step()
        losses.append(loss.item())
        on_step(losses[-1])
    student.eval()
    return losses


def run(teacher_weights: Path, photo_folder: Path, recipe: Recipe) -> tuple[Backbone, list[float]]:
    """The trained student and its losses, with a progress bar."""
    teacher = create_backbone(TEACHER, teacher_weights, STRIDES)
    student = create_backbone(STUDENT, None, STRIDES, random_init_seed=recipe.seed)
    recent: deque[float] = deque(maxlen=200)
    with Progress() as progress:
        task = progress.add_task("distilling", total=recipe.steps)

        def show(loss: float) -> None:
            recent.append(loss)
            progress.update(task, advance=1, description=f"distilling, loss {sum(recent) / len(recent):.3f}")

        losses = distil(student, teacher, read_photos(photo_folder), recipe, show)
    return student, losses


def card_of(teacher_weights: Path, photo_origins: str) -> WeightsCard:
    """The card of a student: its license is that of the weights it learned from."""
    teacher = read_card(teacher_weights)
    return WeightsCard(
        name=f"{STUDENT}_distilled",
        source=f"onceover.training.distil; teacher {teacher.name} ({teacher.source}), SHA-256 {teacher.sha256}",
        license=teacher.license,
        training_data=f"random crops of photographs ({photo_origins}) and procedural textures, no labels",
        sha256="",  # of the file that is written now; `read_card` fills it in
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `onceover.export.to_onnx.export_backbone` makes a graph from what it writes."""
    parser = argparse.ArgumentParser(prog="python -m onceover.training.distil", description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help=f"weights of {TEACHER}, .safetensors")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, a few dozen are enough")
    parser.add_argument("--photo-origins", default="origin and license not stated", help="for the weights card")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the student's weights, .safetensors")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="default: %(default)s, 0.6 CPU seconds each")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2, help="another number gives slightly other weights")
    chosen = parser.parse_args(arguments)
    if not chosen.output.parent.is_dir():  # better now than after the training
        raise OutputError(f"{chosen.output.parent}: no such folder; create it first")
    torch.set_num_threads(chosen.threads)
    student, losses = run(chosen.teacher, chosen.photos, Recipe(steps=chosen.steps, seed=chosen.seed))
    save_weights(chosen.output, student.state_dict(), card_of(chosen.teacher, chosen.photo_origins))
    print(f"{chosen.output}: loss {np.mean(losses[-200:]):.3f} over the last 200 of {len(losses)} steps")


if __name__ == "__main__":
    main()
