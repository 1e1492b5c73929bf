"""Commands that make files of weights and networks: export, convert."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover import registry
from onceover.cli.bank import warn_left_out
from onceover.cli.output import Output, card_rows, number
from onceover.errors import OutputError, UsageError

if TYPE_CHECKING:
    from onceover.backbones.checkpoints import WeightsFile
    from onceover.export.repackage import Attempt, ExportReport


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


def check_package_target(path: Path) -> None:
    """As check_target, for a package; also UsageError where corrections of another one lie beside that name."""
    from onceover.runtime.corrections import check_no_journal

    check_target(path)
    check_no_journal(path)


def weights_file(path: Path, options: argparse.Namespace) -> WeightsFile:
    """Only where torch is known to be there."""
    from onceover.backbones.checkpoints import WeightsFile

    return WeightsFile(path, options.ema, options.trust_pickle)


def add_refit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--refit", type=Path, metavar="DIR", help="the training images: rebuild bank and threshold (recommended)"
    )
    parser.add_argument(
        "--max-memory", metavar="SIZE", help="that a refit may take, e.g. 2GiB (default: 75 %% of what is free)"
    )


def run_export_package(options: argparse.Namespace, output: Output) -> int:
    from onceover.cli.commands import engine_options
    from onceover.export.repackage import ExportOptions, export_package

    if options.to_onnx is not None:
        return _export_plain(options, output)
    if options.output is None:
        raise UsageError("export needs -o FILE for a package, or --to-onnx FILE for a plain graph")
    if options.raw_pixels:
        raise UsageError("--raw-pixels is for --to-onnx FILE; a package takes images as they are")
    check_package_target(options.output)
    warn_left_out([options.package], output)
    settings = ExportOptions(
        engine=engine_options(options),
        precision=options.precision,
        calibration=options.calibration,
        test=options.test,
        refit=options.refit,
        max_memory=options.max_memory,
        threads=options.threads,
        force=options.force,
        seed=options.seed,
    )
    with output.progress() as progress:
        report = export_package(options.package, options.output, settings, progress)
    show_export(report, output)
    output.object(report.to_dict())
    return 0 if report.package_id else 1


def _export_plain(options: argparse.Namespace, output: Output) -> int:
    """For engines without our scorer: one ONNX file with the memory bank inside, and what to know as JSON."""
    judging = options.calibration or options.test or options.refit or options.force or options.max_memory
    if options.output is not None or options.precision != "float32" or judging:
        others = "-o, --precision, --calibration, --test, --refit, --max-memory, --force"
        raise UsageError(f"--to-onnx writes the package as it is: without {others}")
    write_plain_onnx = registry.load("export target", "plain_onnx", registry.EXPORT_TARGETS)
    check_target(options.to_onnx)
    warn_left_out([options.package], output)
    with output.err.status(f"writing {escape(str(options.to_onnx))}"):
        facts = write_plain_onnx(options.package, options.to_onnx, raw_pixels=options.raw_pixels)
    size = options.to_onnx.stat().st_size
    output.say(
        f"[bold]{escape(str(options.to_onnx))}[/]: {size / 1e6:.1f} MB, memory bank inside, scores as the package's "
        f"within 1e-3; how to use it: {escape(str(options.to_onnx.with_suffix('.json')))}"
    )
    output.object(facts)
    return 0


def show_export(report: ExportReport, output: Output) -> None:
    """What was tried, what it changes, and what became of it."""
    size = f"{report.original_bytes / 1e6:.2f}"
    rows = [("ref", size, number(report.home_milliseconds, 2), *[""] * 6)]
    if report.engine != "onnxruntime":
        rows.append(("here", size, number(report.float32_milliseconds, 2), *[""] * 6))
    output.say("ref: float32 on onnxruntime" + (f"; here: float32 on {report.engine}" if len(rows) > 1 else ""))
    for i, attempt in enumerate(report.attempts, start=1):
        output.say(f"{i}: {escape(attempt.method)}: {'; '.join(attempt.problems) or 'accepted'}")
        rows.append((str(i), f"{attempt.size_bytes / 1e6:.2f}", number(attempt.milliseconds, 2), *_changes(attempt)))
    output.table(
        f"{report.precision} on {report.engine}{', refitted' if report.refitted else ''}: {report.images}",
        ("", "MB ", "ms p50 ", "score ", "ρ ", "maps ", "flips ", "AUROC ", "AUPRO "),
        rows,
    )
    output.say(
        "score: largest relative difference; ρ: Spearman's, of scores; maps: mean correlation; AUROC, AUPRO: change"
    )
    last = report.attempts[-1]
    if report.precision == "int8" and last.milliseconds >= last.float32_milliseconds:
        output.warn(
            f"int8 is slower here: {last.milliseconds:.2f} ms instead of {last.float32_milliseconds:.2f} in float32"
        )
    if report.package_id:
        forced = " although it was not accepted (--force)" if report.forced else ""
        output.say(f"[bold]{escape(report.package)}[/] written and verified{forced}, id {report.package_id[:16]}")
        if report.thumbnails is not None:
            output.warn(report.thumbnails)
    else:
        other = "fit with --no-adapt or another backbone" if report.adapted else "fit with another backbone"
        other = other if report.refitted else "--refit with the training images"
        output.warn(f"nothing was written; try {other}, or --force to write it all the same")


def _changes(attempt: Attempt) -> tuple[str, ...]:
    found = attempt.comparison
    return (
        f"{found.score_difference:.0e}",
        number(found.spearman, 3),
        number(found.map_correlation, 3),
        "n/a" if found.flips is None else f"{found.flips}/{found.images}",
        *("n/a" if change != change else f"{change:+.3f}" for change in (found.image_auroc_change, found.aupro_change)),
    )


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
                options.resizable,
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

    if options.strides or options.window or options.resizable:
        raise UsageError("--strides, --window and --resizable are for a named backbone; one of your own has --taps")
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
