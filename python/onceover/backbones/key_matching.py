"""Which tensor of a checkpoint fills which parameter of a backbone: by our own keys, or by one of its name maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from onceover.backbones.backbone import Backbone
from onceover.backbones.checkpoints import listed
from onceover.errors import InputError

COUNTER = "num_batches_tracked"  # of batch norms, for training only
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Matched:
    """used: our key → tensor, one for each parameter and buffer. spare: the same for parts that were not built."""

    used: dict[str, Tensor]
    spare: dict[str, Tensor]


@dataclass
class _Reading:
    """A checkpoint's keys read as one layout: its key → ours, and those that do not belong to it."""

    source: str
    names: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def match_keys(backbone: Backbone, tensors: Mapping[str, Tensor], label: str) -> Matched:
    """Every tensor in its place; InputError, which begins with `label`, lists what is missing, unexpected, mis-shaped.

    Of our own keys and the backbone's name maps, in this order, the layout is chosen that leaves no key over, or the
    fewest. Extra tensors pass only where they belong to a part that was not built (later stages, the classifier).
    """
    wanted = {key: value for key, value in backbone.state_dict().items() if not key.endswith(COUNTER)}
    given = {key: tensors[key] for key in sorted(tensors) if not key.endswith(COUNTER)}  # safetensors shuffles them
    readings = [_read(backbone, wanted, given, "our", lambda key: key)]
    readings += [_read(backbone, wanted, given, names.source, names.rename) for names in backbone.name_maps]
    best = min(readings, key=lambda reading: (len(reading.unexpected), len(reading.missing)))
    placed = backbone.adapted({name: given[key] for key, name in best.names.items()})
    shapes = [
        f"{name} expected {tuple(wanted[name].shape)} got {tuple(tensor.shape)}"
        for name, tensor in placed.items()
        if name in wanted and wanted[name].shape != tensor.shape
    ]
    problems = {
        "missing": best.missing,
        "unexpected": best.unexpected,
        "given twice": [name for name, count in Counter(best.names.values()).items() if count > 1],
        "of another shape": shapes,
    }
    if any(problems.values()):
        text = "; ".join(f"{len(keys)} {what}: {listed(keys, limit=5)}" for what, keys in problems.items() if keys)
        source = "" if best is readings[0] else f", read by their {best.source} names"
        raise InputError(
            f"{label}: these weights do not fit the backbone ({text}{source}); name the backbone they were made for"
        )
    return Matched(
        used={name: tensor for name, tensor in placed.items() if name in wanted},
        spare={name: tensor for name, tensor in placed.items() if name not in wanted},
    )


def to_float32(tensors: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """Copies in float32; InputError for what is no plain float tensor, or is not finite (in float32) everywhere."""
    odd = [f"{key} ({problem})" for key, tensor in tensors.items() if (problem := _problem(tensor))]
    if odd:
        raise InputError(
            f"{label}: {listed(odd)}: weights must be floating-point numbers; use the file before it was quantized"
        )
    converted = {key: tensor.to(torch.float32, copy=True).contiguous() for key, tensor in tensors.items()}
    broken = sorted(key for key, tensor in converted.items() if not tensor.isfinite().all())
    if broken:
        raise InputError(f"{label}: NaN or infinite values in {listed(broken)}; the file is damaged, get it again")
    return converted


def _read(
    backbone: Backbone,
    wanted: Mapping[str, Tensor],
    keys: Iterable[str],
    source: str,
    rename: Callable[[str], str | None],
) -> _Reading:
    reading = _Reading(source)
    for key in keys:
        try:
            name = rename(key)
        except KeyError:
            reading.unexpected.append(key)
            continue
        if name is None:
            continue
        if name in wanted or backbone.may_ignore(name):
            reading.names[key] = name
        else:
            reading.unexpected.append(key)
    taken = set(reading.names.values())
    reading.missing += [key for key in wanted if key not in taken]
    return reading


def _problem(tensor: Tensor) -> str | None:
    """Why the tensor is no plain array of floats that lies in the file, if it is not."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"{tensor.layout} on {tensor.device.type}, quantized: {tensor.is_quantized}"
    if tensor.dtype not in FLOATS:
        return str(tensor.dtype).removeprefix("torch.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"shape {tuple(tensor.shape)}, but fewer values in the file"
    return None


__all__ = ["Matched", "match_keys", "to_float32"]
