"""Weights files as published: safetensors or torch.save, bare or wrapped → one flat dict of tensors by their own names.

A pickle can run any program while it is opened. What torch.save wrote is therefore opened with weights_only, and
anything else in it only where the user says that its source is to be trusted.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceover.errors import InputError, missing_extra

# Where training programs keep the weights, and where their moving average (EMA), among optimizers and counters.
PLAIN = ("net", "model", "state_dict")
AVERAGED = ("net_E", "model_ema", "state_dict_ema", "ema")
INNER = "module"  # one more level, as some averages have
PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and by torch.compile, in front of every key

ZIP = b"PK\x03\x04"  # begins what torch.save writes


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and how to read it.

    ema: the averaged weights of a training checkpoint. trust_pickle: run the pickled program that the file may be.
    """

    path: Path
    ema: bool = False
    trust_pickle: bool = False

    @classmethod
    def of(cls, weights: WeightsFile | str | os.PathLike[str]) -> WeightsFile:
        """A bare path is read with the defaults."""
        return weights if isinstance(weights, WeightsFile) else cls(Path(weights))


def read_checkpoint(file: WeightsFile) -> dict[str, Tensor]:
    """The tensors of the file by their names there, of any shape and dtype; InputError for a file without weights."""
    loaded = _load_safetensors(file.path) if is_safetensors(file.path) else _load_torch(file)
    tensors = {key: tensor.detach() for key, tensor in _state_dict_in(loaded, file).items()}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def is_safetensors(path: Path) -> bool:
    """False for a file of torch.save; by content, and by name where that is neither. InputError for anything else."""
    try:
        with open(path, "rb") as stream:
            begin = stream.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot read the weights file ({error.strerror}); check the path") from error
    if begin[8:9] == b"{":  # behind the length of its header
        return True
    if begin.startswith(ZIP) or begin[:1] == b"\x80":  # a zip archive; a pickle, as torch wrote before 1.6
        if path.suffix == ".safetensors":  # that name promises a file that needs no trust, also to torch
            raise InputError(f"{path}: not a readable safetensors file, torch.save wrote it; rename it to .pth")
        return False
    if path.suffix == ".safetensors":
        return True
    what = f"it begins with {begin!r}" if begin else "it is empty"
    raise InputError(
        f"{path}: neither a safetensors file nor one that torch.save wrote ({what}); get the weights file again"
    )


def metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file; its tensors are not read."""
    _import_safetensors()
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # the library raises its own type, and others for damaged headers
        raise _not_safetensors(path, error) from error


def listed(names: Iterable[str], limit: int = 8) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def save_safetensors(tensors: Mapping[str, Tensor], texts: dict[str, str]) -> bytes:
    """The bytes of a safetensors file with the metadata `texts`."""
    contiguous = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    content: bytes = _import_safetensors().save(contiguous, metadata=texts)
    return content


def _import_safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise missing_extra("safetensors", "train", "reading and writing weights") from error
    return safetensors.torch


def _load_safetensors(path: Path) -> Any:
    library = _import_safetensors()
    content = path.read_bytes()
    try:
        return library.load(content)
    except Exception as error:  # see metadata
        raise _not_safetensors(path, error) from error


def _not_safetensors(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: not a readable safetensors file ({error}); it is damaged or another format, get it again"
    )


def _load_torch(file: WeightsFile) -> Any:
    """Whatever the file holds, of types that torch considers harmless unless the pickle is trusted."""
    path = str(file.path)
    with open(path, "rb") as stream:
        is_archive = stream.read(len(ZIP)) == ZIP  # older files cannot be mapped
    if is_archive and _is_program(path):
        raise InputError(f"{path}: a TorchScript program, not weights; save the state_dict() of the model instead")
    try:
        return _torch_load(path, is_archive, weights_only=True)
    except Exception as error:  # torch raises a dozen types for damaged files
        objects = _pickled_objects(path, error)
        if not objects:
            raise InputError(
                f"{path}: not a readable file of torch.save ({_first_line(error)}); it is damaged or cut, get it again"
            ) from error
        if not file.trust_pickle:
            raise InputError(
                f"{path}: holds pickled objects ({listed(objects)}), and opening such a file can run any program. "
                "If you trust its source, --trust-pickle loads it, and `onceover convert weights NAME FILE "
                "-o OUT.safetensors --trust-pickle` makes a file of it that needs no trust"
            ) from error
    try:
        return _torch_load(path, is_archive, weights_only=False)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: its pickled objects need the module {error.name!r}; install it, or convert the file where it is"
        ) from error
    except Exception as error:  # whatever the pickled program raises
        raise InputError(f"{path}: its pickled objects cannot be loaded ({_first_line(error)})") from error


def _torch_load(path: str, mmap: bool, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old formats, which are no user's concern
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mmap)


def _is_program(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # zipfile raises several types for damage; torch says what is wrong with it
        return False


def _pickled_objects(path: str, error: Exception) -> list[str]:
    """The names that made torch refuse the file; none where it is damaged instead."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an older format: its message names the first object
        return re.findall(r"(?:GLOBAL|global:?|function)\s+`?([A-Za-z_]\w*(?:\.\w+)+)", str(error))[:1]


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _unwrapped(value: Any) -> Any:
    """The state dict itself, where `value` is one or holds one as its only inner level."""
    inner = value.get(INNER) if isinstance(value, Mapping) else None
    return inner if _is_state_dict(inner) else value


def _state_dict_in(loaded: Any, file: WeightsFile) -> Mapping[str, Tensor]:
    """The state dict that was asked for; InputError that lists what the file holds where there is not exactly one."""
    if not isinstance(loaded, Mapping) or not loaded:
        what = "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise InputError(f"{file.path}: holds {what}, not a state dict; save the state_dict() of a model")
    if _is_state_dict(loaded):
        if file.ema:
            raise InputError(
                f"{file.path}: holds one bare state dict ({len(loaded)} tensors), no averaged weights beside it; "
                "leave out --ema"
            )
        return dict(loaded)
    found = {str(key): _unwrapped(value) for key, value in loaded.items()}
    dicts = [key for key, value in found.items() if _is_state_dict(value)]
    chosen = [key for key in (AVERAGED if file.ema else PLAIN) if key in dicts]
    if len(chosen) == 1:
        return dict(found[chosen[0]])
    held = [f"{key!r} ({len(found[key])} tensors)" for key in dicts]
    held += [f"{key!r} ({type(value).__name__})" for key, value in found.items() if key not in dicts]
    if chosen:
        advice = f"{' and '.join(map(repr, chosen))} may both be meant; save the right one in a file of its own"
    elif file.ema:
        advice = f"no averaged weights ({', '.join(AVERAGED)}) are among them; leave out --ema"
    elif any(key in dicts for key in AVERAGED):
        advice = "only averaged weights are among them; --ema takes these"
    else:
        advice = f"none of {', '.join(PLAIN)} holds weights; save the state_dict() of the model in a file of its own"
    raise InputError(f"{file.path}: holds {listed(held)}; {advice}")


__all__ = ["WeightsFile", "is_safetensors", "listed", "metadata", "read_checkpoint", "save_safetensors"]
