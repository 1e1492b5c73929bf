"""The state of a training after some step, in one file that is replaced whole: a kill at any moment leaves an old one.

A training that goes on from it ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onceover import _core
from onceover.errors import InputError, UsageError

VERSION = 1
SUFFIX = ".checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """plan: everything that the weights depend on. losses: of every step so far."""

    step: int
    plan: dict[str, Any]
    losses: list[float]
    student: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


def checkpoint_path(output: Path) -> Path:
    """student.safetensors → student.safetensors.checkpoint."""
    return output.with_name(output.name + SUFFIX)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Atomic, on the disk when it returns; OutputError. Random numbers are seeded by the step: no state is kept."""
    fields = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    fields["losses"] = torch.tensor(checkpoint.losses, dtype=torch.float64)
    stream = io.BytesIO()
    torch.save({"version": VERSION, **fields}, stream)
    _core.save_atomically(path, stream.getvalue())


def load_checkpoint(path: Path, plan: dict[str, Any]) -> Checkpoint:
    """UsageError when it is of another plan, InputError when it cannot be read."""
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
        version = fields.pop("version")
        checkpoint = Checkpoint(**{**fields, "losses": fields["losses"].tolist()}) if version == VERSION else None
    except Exception as error:  # torch.load raises whatever a damaged file makes it stumble over
        what = f"{path}: cannot read the checkpoint ({type(error).__name__})"
        raise InputError(f"{what}; delete it to start over") from error
    if checkpoint is None:
        raise InputError(f"{path}: a checkpoint of version {version}, expected {VERSION}; delete it to start over")
    was = checkpoint.plan
    other = [f"{key} was {was.get(key)}, is {value}" for key, value in plan.items() if was.get(key) != value]
    if other:
        raise UsageError(f"{path}: is of another training ({'; '.join(other)}); give the same options, or delete it")
    return checkpoint


__all__ = ["Checkpoint", "checkpoint_path", "load_checkpoint", "save_checkpoint"]
