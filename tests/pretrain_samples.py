"""Tiny folders of images, teachers and records for the tests of `onceover pretrain`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbone_checks import CARD, randomized
from numpy.typing import NDArray

from onceover.backbones import create_backbone
from onceover.backbones.weights import save_weights
from onceover.images import write_image
from onceover.training.pretrain.recording import RecordingOptions, record
from onceover.training.pretrain.records import RecordHeader, Tap
from onceover.training.pretrain.shards import HEAD, shard_path
from onceover.training.pretrain.sources import ImageFile
from onceover.training.procedural import draw_material

TEACHER = "mobilenetv2_w035"
CLASSES = 9
SMALL_SHARD = 4_000  # bytes: a tiny recording then fills several


def silent(stage: str, done: int, total: int) -> None:
    """No progress bar."""


def image_folder(folder: Path, count: int = 3) -> Path:
    """`count` drawn images of different sizes."""
    folder.mkdir(parents=True)
    for seed in range(count):
        image = draw_material(np.random.Generator(np.random.PCG64(seed)), 48 + 8 * seed)
        write_image(folder / f"{seed}.png", image)
    return folder


def teacher_weights(path: Path, seed: int = 1) -> Path:
    """A whole random teacher with a classifier, as a published checkpoint has one."""
    teacher = randomized(create_backbone(TEACHER, None, random_init_seed=seed, classes=CLASSES), seed)
    save_weights(path, teacher.state_dict(), CARD)
    return path


def options_in(folder: Path, **changes: Any) -> RecordingOptions:
    """Three images, three views each, and two drawn ones, of 32 pixels, best three classes: 11 records."""
    images = folder / "images"
    weights = folder / "teacher.safetensors"
    if not images.exists():
        image_folder(images)
    if not weights.exists():
        teacher_weights(weights)
    options = RecordingOptions(
        TEACHER, weights, images, procedural=2, views=3, view_size=32, top_k=3, batch=4, device="cpu"
    )
    return replace(options, **changes)


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few records, so that a tiny recording has several."""
    monkeypatch.setattr("onceover.training.pretrain.records.SHARD_BYTES", SMALL_SHARD)


def recorded(folder: Path, **changes: Any) -> Path:
    """A finished recording in folder/records."""
    record(folder / "records", options_in(folder, **changes), silent)
    return folder / "records"


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def made_up_header(top_k: int, classes: int, views: int = 4, taps: tuple[Tap, ...] | None = None) -> RecordHeader:
    """A header without a teacher behind it."""
    return RecordHeader(
        backbone=TEACHER,
        card=CARD.to_json(),
        enlarge=1,
        mirrors=1,
        taps=taps or (Tap("a", 8, 3, 4, 5), Tap("b", 16, 2, 2, 3)),
        top_k=top_k,
        classes=classes,
        view_size=32,
        views=views,
        seed=0,
        procedural=0,
        images=(ImageFile("0.png", "0" * 64), ImageFile("1.png", "1" * 64)),
        fingerprint={},
        locations={},
    )


def random_rows(header: RecordHeader, count: int, seed: int = 0) -> NDArray[np.void]:
    """Records of plausible numbers: probabilities best first, features of mean 1 and deviation 2."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, header.dtype)
    rows["image"], rows["seed"] = rng.integers(1000, size=count), rng.integers(1 << 62, size=count)
    for index in range(len(header.taps)):
        rows[f"tap{index}"] = rng.normal(1, 2, rows[f"tap{index}"].shape)
    if header.top_k:
        logits = 3 * rng.standard_normal((count, header.classes))
        whole = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        best = np.argsort(-whole, axis=1)[:, : header.top_k]
        rows["classes"], rows["probabilities"] = best, np.take_along_axis(whole, best, axis=1)
    return rows


def tamper(folder: Path, shard: int, field: str) -> None:
    """Change one record's field and make the hash of the shard right again, as no accident does."""
    from onceover.training.pretrain.records import read_header

    header = read_header(folder)
    data = bytearray(shard_path(folder, shard).read_bytes())
    rows = np.frombuffer(memoryview(data)[HEAD.size :], header.dtype, count=1)
    rows[field] = rows[field] + 1
    data[-32:] = hashlib.sha256(memoryview(data)[:-32]).digest()
    shard_path(folder, shard).write_bytes(data)
