"""Commands that make files of weights and networks: export, convert."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover import registry
from onceover.cli.output import Output, card_rows
from onceover.errors import OutputError, UsageError

if TYPE_CHECKING:
    from onceover.backbones.checkpoints import WeightsFile


def check_target(path: Path) -> None:
    """Fail before minutes of work, not after."""
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file to write, e.g. {path / 'part.onceover'}")
    if not folder.is_dir():
        raise UsageError(f"{path}: the folder {folder} does not exist; create it first")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is not an ordinary file; give the name of a file to write")
    # Also says no on a read-only file system, which lets nobody write, not even the superuser.
    if not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"{path}: the folder {folder} is read-only; choose another or change its permissions")


def weights_file(path: Path, options: argparse.Namespace) -> WeightsFile:
    """Only where torch is known to be there."""
    from onceover.backbones.checkpoints import WeightsFile

    return WeightsFile(path, options.ema, options.trust_pickle)


def run_export(options: argparse.Namespace, output: Output) -> int:
    from onceover.runtime.graph import load_graph

    export_backbone = registry.load("export target", "onnx", registry.EXPORT_TARGETS)
    check_target(options.output)
    own = options.name.endswith(".onnx") or ".py:" in options.name
    with output.err.status(f"exporting {escape(options.name)}"):
        if own:
            _export_own(options)
        elif options.taps is not None or any(_card_changes(options)):
            raise UsageError(
                "--taps and what belongs to a weights card are for a network of your own, FILE.onnx or "
                "FILE.py:FUNCTION; a named backbone has --strides and the card of its weights"
            )
        elif options.weights is None:
            raise UsageError(f"the backbone {options.name!r} needs --weights FILE")
        else:
            export_backbone(
                options.name,
                weights_file(options.weights, options),
                options.output,
                options.height,
                options.width,
                options.strides or (8, 16),
                options.window,
            )
    _, spec = load_graph(options.output)
    pixels = spec.preprocessing
    size = options.output.stat().st_size
    output.say(
        f"[bold]{escape(str(options.output))}[/]: {size / 1e6:.1f} MB, input {pixels.height} × {pixels.width}, "
        f"{spec.grid_height} × {spec.grid_width} patches of {spec.embedding_dim} values, strides "
        f"{', '.join(map(str, spec.strides))}; equal to {'the original' if own else 'torch'}"
    )
    output.object({"graph": str(options.output), "size_bytes": size, **asdict(spec)})
    return 0


def _export_own(options: argparse.Namespace) -> None:
    """A network of the user's own."""
    source = Path(options.name if options.name.endswith(".onnx") else options.name.rpartition(":")[0])
    export_own = registry.load("network", source.suffix, registry.OWN_NETWORKS)
    from onceover.backbones.backbone import IMAGENET_NORMALIZATION
    from onceover.backbones.weights import WeightsCard
    from onceover.export.from_onnx import OwnTrunk

    if options.strides or options.window:
        raise UsageError("--strides and --window are for a named backbone; a network of your own has --taps")
    changes = _card_changes(options)
    pixels = changes.setdefault("normalization", IMAGENET_NORMALIZATION)
    card = replace(WeightsCard(source.stem, "unknown source", "license not stated", "unknown", ""), **changes)
    trunk = OwnTrunk(options.taps or (), options.height, options.width, pixels, card=card)
    if options.weights is None:
        export_own(options.name, trunk, options.output)
    elif source.suffix == ".py":
        export_own(options.name, trunk, options.output, weights_file(options.weights, options))
    else:
        raise UsageError(f"--weights: {options.name} holds its own; leave the option out")


def _card_changes(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the weights, as fields of a card."""
    if (options.mean is None) != (options.std is None):
        raise UsageError("--mean and --std belong together; give both or neither")
    told = {key: getattr(options, key) for key in ("license", "source", "training_data")}
    changes: dict[str, Any] = {key: text for key, text in told.items() if text is not None}
    if options.mean is not None:
        from onceover.backbones.backbone import Normalization

        changes["normalization"] = Normalization(options.mean, options.std)
    return changes


def run_convert(options: argparse.Namespace, output: Output) -> int:
    changes = _card_changes(options)
    registry.load("backbone", options.name, registry.BACKBONES)  # says what is missing where torch is not installed
    from onceover.backbones.weights import convert, read_card

    check_target(options.output)
    file = weights_file(options.checkpoint, options)
    card = convert(file, options.name, options.output, replace(read_card(file), **changes))
    size = options.output.stat().st_size
    output.table(str(options.output), ("", ""), card_rows(card.to_json()))
    output.say(f"[bold]{escape(str(options.output))}[/] written: {size / 1e6:.1f} MB, fits {escape(options.name)}")
    output.object({"weights": str(options.output), "size_bytes": size, "card": card.to_json()})
    return 0
