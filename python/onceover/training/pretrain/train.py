"""Train a student from records, without the teacher: AdamW, warm-up and cosine, resumable, in one process or several.

Started by torchrun, every process takes its share of each batch; gradients are averaged, so that with norms that do
not look at the batch the losses are those of one process.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from onceover.backbones import create_backbone
from onceover.backbones.weights import WeightsCard, read_card, save_weights
from onceover.errors import InputError, UsageError
from onceover.training.pretrain.augmentation import pipeline_fingerprint
from onceover.training.pretrain.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from onceover.training.pretrain.loading import BatchOrder, RecordedViews, TrainingBatch, training_batches
from onceover.training.pretrain.records import RecordHeader
from onceover.training.pretrain.shards import Records
from onceover.training.pretrain.student import Student, Targets, distillation_loss
from onceover.training.pretrain.teacher import choose_device

CLIP_NORM = 5.0  # of the gradient, as TinyViT
AROUND = ("workers", "images", "accept_other_pixels", "checkpoint_every", "resume", "half", "about")  # change no weight
MIN_RATE_SHARE = 0.01  # of the learning rate, at the end of the cosine


@dataclass(frozen=True)
class TrainingOptions:
    """What to train. batch: of all processes together. init: weights to start from, else a random start by the seed.

    half: write float16, half the file. about: what the images are, for the card.
    """

    student: str
    steps: int = 10_000
    batch: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05  # share of the steps
    logit_weight: float = 1.0  # of the soft labels, where the records hold some; 0: features only
    freeze_norms: bool = False
    init: Path | None = None
    seed: int = 0
    threads: int = 0  # of torch; 0: as torch chooses
    workers: int = 0
    device: str = "auto"
    images: Path | None = None
    accept_other_pixels: bool = False
    checkpoint_every: int = 200
    resume: bool = False
    half: bool = False
    about: str = ""

    def check(self, processes: int) -> None:
        """UsageError for numbers that make no training."""
        for name in ("steps", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, got {getattr(self, name)}")
        for name, high in {"learning_rate": 10, "weight_decay": 10, "warmup": 1, "logit_weight": 1e6}.items():
            if not 0 <= getattr(self, name) <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be 0 to {high:g}, got {getattr(self, name)}")
        if self.batch % processes:
            raise UsageError(f"a batch of {self.batch} cannot be shared by {processes} processes; choose a multiple")


@dataclass(frozen=True)
class TrainingReport:
    """losses: of every step, also of those before an interruption; the same in every process."""

    losses: list[float]
    resumed_at: int
    seconds_per_step: float
    is_first_process: bool


OnStep = Callable[[int, int, float], None]  # step, steps, mean of the last losses


def train(folder: Path, output: Path, options: TrainingOptions, on_step: OnStep) -> TrainingReport:
    """Write the student's weights to `output`. The same records and options give the same bits on the same machine."""
    device = choose_device(options.device)
    with _process_group(device) as group, _deterministic(options.threads, device):
        options.check(processes=group[1])
        records = Records(folder)
        if not options.accept_other_pixels:
            records.header.check_pipeline(pipeline_fingerprint())
        run = _Run(records, output, options, device, group)
        start = run.resume() if options.resume else run.begin()
        began = time.perf_counter()
        for step, batch in zip(range(start, options.steps), run.batches(start), strict=True):
            run.step(step, batch)
            on_step(step + 1, options.steps, sum(run.losses[-50:]) / len(run.losses[-50:]))
        seconds = time.perf_counter() - began
        run.finish()
        return TrainingReport(run.losses, start, seconds / max(1, options.steps - start), group[0] == 0)


class _Run:
    """One training: the student, its optimizer, and where they are kept."""

    def __init__(
        self, records: Records, output: Path, options: TrainingOptions, device: torch.device, group: tuple[int, int]
    ) -> None:
        """group: number of this process, and of all."""
        header = records.header
        self.records, self.output, self.options, self.device = records, output, options, device
        self.process, self.processes = group
        strides = tuple(tap.stride for tap in header.taps)
        backbone = create_backbone(options.student, options.init, strides, random_init_seed=options.seed)
        with_classes = header.top_k > 0 and options.logit_weight > 0
        self.student = Student(backbone, header, with_classes, options.seed).to(device)
        self.targets = Targets(records, self.student.backbone.stages).to(device)
        self.parameters = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, options.learning_rate, weight_decay=options.weight_decay)
        # Half precision where a GPU has it: bfloat16 needs no scaling, float16 on older ones does.
        self.half = torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half == torch.float16)
        self.losses: list[float] = []

    def plan(self) -> dict[str, Any]:
        """Everything that the weights depend on, as plain values."""
        options = asdict(self.options)
        for key in (*AROUND, "device", "init"):
            del options[key]
        init = read_card(self.options.init).sha256 if self.options.init is not None else None
        return {
            **options,
            "threads": torch.get_num_threads(),
            "init": init,
            "device": self.device.type,
            "processes": self.processes,
            "records": self.records.header.digest().hex(),
        }

    def begin(self) -> int:
        path = checkpoint_path(self.output)
        if path.exists():
            raise UsageError(f"{path}: is of an interrupted training; go on with --resume, or delete it to start over")
        return 0

    def resume(self) -> int:
        """The step to go on with; 0 where no checkpoint was written yet."""
        path = checkpoint_path(self.output)
        if not path.exists():
            return 0
        checkpoint = load_checkpoint(path, self.plan())
        self.student.load_state_dict(checkpoint.student)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scaler.load_state_dict(checkpoint.scaler)
        self.losses = checkpoint.losses
        return checkpoint.step

    def batches(self, start: int) -> Iterator[TrainingBatch]:
        options, header = self.options, self.records.header
        steps = range(start, options.steps)
        order = BatchOrder(steps, len(header), options.batch, options.seed, self.process, self.processes)
        views = RecordedViews(self.records, header.sources(options.images), not options.accept_other_pixels)
        return training_batches(views, order, options.workers)

    def step(self, step: int, batch: TrainingBatch) -> None:
        """One step of the optimizer, and a checkpoint where one is due."""
        # What draws in a network (dropout) is seeded by the step, so that no state has to survive an interruption.
        torch.manual_seed(self.options.seed + 1_000_003 * step + self.process)
        self.student.train()
        if self.options.freeze_norms:
            self.student.freeze_norms()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, step)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.half, enabled=self.device.type == "cuda"):
            loss = distillation_loss(self.student, self.targets, _moved(batch, self.device), self.options.logit_weight)
        torch.autograd.backward(self.scaler.scale(loss))
        _average(self.parameters, self.processes)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.losses.append(_mean_over_processes(loss.detach(), self.processes))
        if (step + 1) % self.options.checkpoint_every == 0 and step + 1 < self.options.steps and self.process == 0:
            self._save(step + 1)

    def _save(self, step: int) -> None:
        states = self.student.state_dict(), self.optimizer.state_dict(), self.scaler.state_dict()
        save_checkpoint(checkpoint_path(self.output), Checkpoint(step, self.plan(), self.losses, *states))

    def finish(self) -> None:
        """The backbone's weights with their card; only then is the checkpoint removed."""
        if self.process == 0:
            tensors = {key: tensor.cpu().contiguous() for key, tensor in self.student.backbone.state_dict().items()}
            if self.options.half:
                tensors = {key: half(key, tensor) for key, tensor in tensors.items()}
            save_weights(self.output, tensors, card_of(self.options, self.records.header))
            checkpoint_path(self.output).unlink(missing_ok=True)


def learning_rate(options: TrainingOptions, step: int) -> float:
    """Rises over the warm-up, then falls along half a cosine to MIN_RATE_SHARE; a function of the step alone."""
    warm = round(options.warmup * options.steps)
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, options.steps - warm)
    return options.learning_rate * (MIN_RATE_SHARE + (1 - MIN_RATE_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def half(key: str, tensor: Tensor) -> Tensor:
    """float16 of what is float; InputError for a value that it cannot hold."""
    if not tensor.is_floating_point():
        return tensor
    stored = tensor.half()
    if not stored.isfinite().all():
        raise InputError(f"{key}: values up to {tensor.abs().max():g} do not fit float16; leave out --half")
    return stored


def card_of(options: TrainingOptions, header: RecordHeader) -> WeightsCard:
    """The card of a student: its license is that of the weights it learned from."""
    card, about = header.card, f" ({options.about})" if options.about else ""
    teacher = f"teacher {card['name']} ({card['source']}), SHA-256 {card['sha256']}"
    return WeightsCard(
        name=f"{options.student}_distilled",
        source=f"onceover pretrain, records {header.digest().hex()}; {teacher}",
        license=str(card["license"]),
        training_data=f"views of {len(header.images)} images{about} and {header.procedural} drawn ones, no labels",
        sha256="",  # of the file that is written now; `read_card` fills it in
    )


def _moved(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    taps = [tap.to(device, non_blocking=True) for tap in batch.taps]
    return TrainingBatch(batch.pixels.to(device), taps, batch.classes.to(device), batch.probabilities.to(device))


def _average(parameters: list[torch.nn.Parameter], processes: int) -> None:
    """The mean gradient of all processes, in one exchange, in the order of the parameters."""
    if processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def _mean_over_processes(loss: Tensor, processes: int) -> float:
    if processes > 1:
        distributed.all_reduce(loss)
    return float(loss.item() / processes)


@contextmanager
def _process_group(device: torch.device) -> Iterator[tuple[int, int]]:
    """Number of this process and of all, as torchrun tells them."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield 0, 1
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), processes
    finally:
        distributed.destroy_process_group()


@contextmanager
def _deterministic(threads: int, device: torch.device) -> Iterator[None]:
    """Only kernels that give the same bits every time; the caller's settings return afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads or before[1])
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


__all__ = ["TrainingOptions", "TrainingReport", "card_of", "half", "learning_rate", "train"]
