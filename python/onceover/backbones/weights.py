"""Weights files: checked, loaded, converted, and accompanied by a card that says where they come from.

checkpoints.py reads them, key_matching.py finds the place of every tensor.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceover import _core, registry
from onceover.backbones.backbone import Backbone, Normalization
from onceover.backbones.checkpoints import WeightsFile, is_safetensors, metadata, read_checkpoint, save_safetensors
from onceover.backbones.key_matching import match_keys, to_float32
from onceover.errors import InputError, UsageError
from onceover.file_hash import file_hash

AnyWeights = WeightsFile | str | os.PathLike[str]

# The key of a card among the metadata of a safetensors file that `save_weights` wrote.
CARD_KEY = "onceover.card"

UNKNOWN_SOURCE = "unknown source"


@dataclass(frozen=True)
class WeightsCard:
    """Where weights come from; travels inside every exported graph and every package.

    normalization: what these weights expect of pixels, where that is not what the architecture says.
    """

    name: str
    source: str
    license: str
    training_data: str
    sha256: str
    normalization: Normalization | None = None

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values; without a normalization of its own, that field is left out."""
        fields: dict[str, Any] = {key: getattr(self, key) for key in _TEXTS}
        if self.normalization is not None:
            fields["normalization"] = {"mean": list(self.normalization.mean), "std": list(self.normalization.std)}
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> WeightsCard:
        """The card from what `to_json` wrote; InputError for missing, unknown or wrongly typed fields."""
        texts = {key: value for key, value in fields.items() if key != "normalization"}
        if set(texts) != set(_TEXTS) or not all(isinstance(value, str) for value in texts.values()):
            raise InputError(f"a weights card needs exactly the text fields {sorted(_TEXTS)}, got {sorted(texts)}")
        normalization = _read_normalization(fields["normalization"]) if "normalization" in fields else None
        return cls(**texts, normalization=normalization)


_TEXTS = ("name", "source", "license", "training_data", "sha256")


def _read_normalization(fields: Any) -> Normalization:
    if not isinstance(fields, Mapping) or set(fields) != {"mean", "std"}:
        raise InputError(f"a weights card's normalization needs exactly the fields mean and std, got {fields!r}")
    triples = {}
    for key, lowest in (("mean", -1e3), ("std", 1e-6)):  # as runtime/graph.py checks them in the end
        values = fields[key]
        if not isinstance(values, list) or len(values) != 3 or not all(_is_number(v, lowest) for v in values):
            raise InputError(
                f"a weights card's {key} must be three numbers from {lowest:g} to 1000, got {values!r}; write it again"
            )
        red, green, blue = map(float, values)
        triples[key] = (red, green, blue)
    return Normalization(**triples)


def _is_number(value: Any, lowest: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and lowest <= value <= 1e3


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


def read_card(weights: AnyWeights) -> WeightsCard:
    """The card of a weights file: known by hash, or carried by the file, or 'unknown source'."""
    file = WeightsFile.of(weights)
    sha256 = file_hash(file.path, "weights file")
    for card in KNOWN_CARDS:
        if card.sha256 == sha256:
            return card
    carried = metadata(file.path).get(CARD_KEY) if is_safetensors(file.path) else None
    if carried is None:
        source = f"{UNKNOWN_SOURCE}, averaged weights (EMA)" if file.ema else UNKNOWN_SOURCE
        return WeightsCard(file.path.stem, source, "license not stated", "unknown", sha256)
    try:
        fields = json.loads(carried)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{file.path}: its weights card is not JSON ({error}); write the file again") from error
    if not isinstance(fields, dict):
        raise InputError(f"{file.path}: its weights card is not a JSON object; write the file again")
    try:
        return WeightsCard.from_json({**fields, "sha256": sha256})
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error


def load_weights(weights: AnyWeights) -> dict[str, Tensor]:
    """All tensors of a weights file by their names there; see checkpoints.py for what is read and what is refused."""
    return read_checkpoint(WeightsFile.of(weights))


def load_into(backbone: Backbone, weights: AnyWeights, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Fill `backbone` from the file, whose card may also bring another normalization. tensors: the file's, if read.

    Raises InputError that lists missing, unexpected and mis-shaped tensors; then the backbone is as it was.
    """
    file = WeightsFile.of(weights)
    card = read_card(file)
    found = load_weights(file) if tensors is None else tensors
    tensors = to_float32(match_keys(backbone, found, str(file.path)).used, str(file.path))
    with torch.no_grad():
        for key, target in backbone.state_dict().items():
            if key in tensors:  # all but counters of batch norms
                target.copy_(tensors[key])
    if card.normalization is not None:
        backbone.normalization = card.normalization


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: WeightsCard) -> None:
    """Write a safetensors file that carries its card (the hash is filled in when it is read); OutputError."""
    fields = json.dumps(replace(card, sha256="").to_json(), sort_keys=True)
    _core.save_atomically(str(path), save_safetensors(tensors, {CARD_KEY: fields}))


def convert(checkpoint: AnyWeights, backbone_name: str, output: Path, card: WeightsCard) -> WeightsCard:
    """A checkpoint that fits the backbone → a safetensors file: our keys, float32, and the card, which is answered.

    Parts that the backbone does not build by default (later stages, the classifier) are kept. `card.source` is followed
    by the name and the hash of the checkpoint.
    """
    file = WeightsFile.of(checkpoint)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: give the name of a .safetensors file to write")
    if output.exists() and file.path.exists() and output.samefile(file.path):
        raise UsageError(f"{output}: would replace the checkpoint itself; choose another name")
    factory = registry.load("backbone", backbone_name, registry.BACKBONES)
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        backbone: Backbone = factory()
    matched = match_keys(backbone, load_weights(file), str(file.path))
    spare = {key: tensor for key, tensor in matched.spare.items() if tensor.is_floating_point()}
    tensors = to_float32({**spare, **matched.used}, str(file.path))
    origin = f"converted from {file.path.name}, SHA-256 {file_hash(file.path, 'weights file')}"
    save_weights(output, tensors, replace(card, source=f"{card.source}; {origin}"))
    return read_card(output)


__all__ = ["KNOWN_CARDS", "WeightsCard", "convert", "load_into", "load_weights", "read_card", "save_weights"]
