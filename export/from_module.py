"""Any torch module → a backbone: its submodules are tapped by name, and the rest is an export like every other."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceover import _core
from onceover.backbones.backbone import Backbone, Normalization, StageInfo
from onceover.backbones.checkpoints import WeightsFile, read_checkpoint
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.weights import WeightsCard
from onceover.errors import InputError, UsageError
from onceover.export.from_onnx import OwnTrunk
from onceover.export.taps import Tap, check_names, finest_first, last_of_each_stride, read_tap
from onceover.export.to_onnx import to_onnx


class TappedModule(Backbone):
    """A module of somebody's own whose submodules `taps` answer feature maps; what comes behind them is not exported.

    Raises UnknownNameError for a submodule that is not there, UsageError for one whose output is no feature map.
    """

    def __init__(self, module: nn.Module, taps: tuple[str, ...], size: tuple[int, int], pixels: Normalization) -> None:
        super().__init__()
        self.module = module.eval()
        self.normalization = pixels
        image = torch.zeros(1, 3, *size)
        shapes = _shapes(self.module, image)
        label = type(module).__name__
        outermost = dict(sorted(shapes.items(), key=lambda item: -item[0].count(".")))  # come last
        check_names(taps, shapes, label, lambda: last_of_each_stride(outermost, *size))
        self.taps = finest_first(read_tap(name, shapes[name], *size) for name in taps)
        self.stages = tuple(StageInfo(tap.name, tap.channels, tap.stride) for tap in self.taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(1, 3, H, W) float32, normalized, of the size given when it was made → its taps, finest first."""
        taken: dict[str, Tensor] = {}
        with _watching(self.module, [tap.name for tap in self.taps], taken.__setitem__):
            self.module(x)
        return [tap.as_map(taken[tap.name]) for tap in self.taps]


@contextlib.contextmanager
def _watching(module: nn.Module, names: Iterable[str], take: Callable[[str, Any], None]) -> Iterator[None]:
    """Meanwhile `take` is called with the name of each of these submodules and what it answers, in order of running.

    Hooks of a moment, so that a deep copy of the module has none that tell the original.
    """

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: take(name, output)

    hooks = [module.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def export_own_module(module: nn.Module, trunk: OwnTrunk, output: Path) -> list[Tap]:
    """Write the backbone graph made from a torch module to `output`; the taps, finest first.

    Raises what `TappedModule` and `to_onnx` raise, and OutputError.
    """
    size = (trunk.height, trunk.width)
    backbone = TappedModule(module, trunk.taps, size, trunk.normalization)
    name = type(module).__name__
    card = trunk.card or WeightsCard(name, "a torch module", "license not stated", "unknown", _hash(module))
    model = PatchEmbedding(backbone, trunk.aggregation)
    _core.save_atomically(os.fspath(output), to_onnx(model, *size, card, name))
    return backbone.taps


def export_own_file(reference: str, trunk: OwnTrunk, output: Path, weights: WeightsFile | None = None) -> list[Tap]:
    """`export_own_module` for what FUNCTION of `FILE.py:FUNCTION` answers; raises what `load_module` raises, too."""
    return export_own_module(load_module(reference, weights), trunk, output)


def load_module(reference: str, weights: WeightsFile | None) -> nn.Module:
    """`file.py:factory` → what factory() answers, filled from the weights file, whose keys must be the module's own.

    Running somebody's Python file is trusting it. Raises InputError.
    """
    place, _, factory = reference.rpartition(":")
    path = Path(place)
    if not path.is_file():
        raise InputError(
            f"{reference}: there is no file {place!r}; give FILE.py:FUNCTION, a function without arguments"
        )
    module = _call(path, factory)
    if weights is not None:
        _fill(module, weights)
    return module.eval()


def _call(path: Path, factory: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    source = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbors, as if it were run
    try:
        spec.loader.exec_module(source)
        made = getattr(source, factory)()
    except Exception as error:  # anything may go wrong in somebody else's file
        raise InputError(
            f"{path}:{factory}: {type(error).__name__}: {error}; it must run and answer a module"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise InputError(f"{path}:{factory}: answered a {type(made).__name__}, not a torch module")
    return made


def _fill(module: nn.Module, weights: WeightsFile) -> None:
    tensors = read_checkpoint(weights)
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    shaped = sorted(key for key in set(own) & set(tensors) if own[key].shape != tensors[key].shape)
    if missing or unexpected or shaped:
        raise InputError(
            f"{weights.path}: does not fit the module: missing {missing or 'none'}, unexpected {unexpected or 'none'}, "
            f"of another shape {shaped or 'none'}"
        )
    module.load_state_dict(tensors)


def _shapes(module: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what every submodule answers, in the order in which they answer; the last time counts."""
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str, output: Any) -> None:
        shapes.pop(name, None)
        shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()

    names = [name for name, _ in module.named_modules() if name]
    try:
        with torch.inference_mode(), _watching(module, names, keep):
            module(image)
    except Exception as error:  # of somebody else's forward
        raise UsageError(
            f"the module does not take an image (1, 3, {image.shape[2]}, {image.shape[3]}): "
            f"{type(error).__name__}: {error}; give the size it was made for"
        ) from error
    return shapes


def _hash(module: nn.Module) -> str:
    """SHA-256 over names and values of the state dict."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["TappedModule", "export_own_file", "export_own_module", "load_module"]
