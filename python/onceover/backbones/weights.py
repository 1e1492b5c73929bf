"""Weights files: read, checked, and accompanied by a card that says where they come from and under which license."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceover.backbones.backbone import Backbone
from onceover.errors import InputError, OutputError, missing_extra

# The key of a card among the metadata of a safetensors file that `training/distil.py` wrote.
CARD_KEY = "onceover.card"


@dataclass(frozen=True)
class WeightsCard:
    """Where weights come from; travels inside every exported graph and every package."""

    name: str
    source: str
    license: str
    training_data: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """The card as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> WeightsCard:
        """The card from what `to_json` wrote; InputError for missing, unknown or non-text fields."""
        known = set(cls.__dataclass_fields__)
        if set(fields) != known or not all(isinstance(value, str) for value in fields.values()):
            raise InputError(f"a weights card needs exactly the text fields {sorted(known)}, got {sorted(fields)}")
        return cls(**fields)


# Published files that we know by hash.
KNOWN_CARDS = (
    WeightsCard(
        name="mobilenetv2_imagenet",
        source="https://github.com/google-coral/test_data tf2_mobilenet_v2_1.0_224_ptq.tflite, converted to float32",
        license="Apache-2.0",
        training_data="ImageNet-1k (ILSVRC 2012), by the publisher",
        sha256="47bbf20cbf6dd0346b6d2786f6dc8fb2802029af53a5e8c1a8afdf115ce3be82",
    ),
)


def read_card(path: Path) -> WeightsCard:
    """The card of a weights file: known by hash, or carried by the file, or 'unknown source'."""
    sha256 = hashlib.sha256(_read(path)).hexdigest()
    for card in KNOWN_CARDS:
        if card.sha256 == sha256:
            return card
    carried = _metadata(path).get(CARD_KEY)
    if carried is None:
        return WeightsCard(path.stem, "unknown source", "license not stated", "unknown", sha256)
    try:
        fields = json.loads(carried)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its weights card is not JSON ({error}); write the file again") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: its weights card is not a JSON object; write the file again")
    return WeightsCard.from_json({**fields, "sha256": sha256})


def load_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; InputError for a missing, foreign, damaged or non-finite file."""
    safetensors_torch = _import_safetensors()
    content = _read(path)
    try:
        tensors: dict[str, Tensor] = safetensors_torch.load(content)
    except Exception as error:  # the library raises its own type, and others for damaged headers
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); weights must be .safetensors, pickles are not opened"
        ) from error
    broken = sorted(
        key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    )
    if broken:
        raise InputError(f"{path}: NaN or infinite values in {_listed(broken)}; the file is damaged, get it again")
    return tensors


def load_into(backbone: Backbone, path: Path) -> None:
    """Fill `backbone` from the file; InputError that lists missing, unexpected and mis-shaped tensors.

    Extra tensors pass only where they belong to a part that was not built (later stages, the classifier).
    """
    tensors = load_weights(path)
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    extra = sorted(key for key in tensors if key not in wanted and not backbone.may_ignore(key))
    shapes = [
        f"{key} expected {tuple(wanted[key].shape)} got {tuple(tensors[key].shape)}"
        for key in wanted
        if key in tensors and wanted[key].shape != tensors[key].shape
    ]
    problems = [("missing", missing), ("unexpected", extra), ("of another shape", shapes)]
    if any(keys for _, keys in problems):
        text = "; ".join(f"{what}: {_listed(keys)}" for what, keys in problems if keys)
        raise InputError(
            f"{path}: these weights do not fit the backbone ({text}); name the backbone they were made for"
        )
    with torch.no_grad():
        for key, target in wanted.items():
            if key in tensors:
                target.copy_(tensors[key])


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: WeightsCard) -> None:
    """Write a safetensors file that carries its card (the hash is filled in when it is read); OutputError."""
    fields = json.dumps(replace(card, sha256="").to_json(), sort_keys=True)
    contiguous = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    content = _import_safetensors().save(contiguous, metadata={CARD_KEY: fields})
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot write ({error.strerror}); choose an existing, writable folder") from error


def _import_safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise missing_extra("safetensors", "train", "reading weights") from error
    return safetensors.torch


def _metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file; its tensors are not read."""
    _import_safetensors()
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # see load_weights
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the weights file ({error.strerror}); check the path") from error


def _listed(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


__all__ = ["KNOWN_CARDS", "WeightsCard", "load_into", "load_weights", "read_card", "save_weights"]
