"""`onceover fit`: a folder of good parts → one package."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover import registry
from onceover.cli.commands import engine_options
from onceover.cli.exporting import check_package_target, weights_file
from onceover.cli.field import tiling_options
from onceover.cli.output import Output, copies_note, counted, number, percent
from onceover.errors import UsageError

if TYPE_CHECKING:
    from onceover.training.choosing import Choice
    from onceover.training.fit import FitPlan
    from onceover.training.memory_plan import MemoryPlan


MOST_STRETCHED = 1.1  # proportions of one image over those of another, before it is worth a note
CAMERA_BITS = (10, 12, 14)  # in files of 16; what good parts leave dark says nothing of what the camera can deliver


def add_adapting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapt",
        action=argparse.BooleanOptionalAction,
        help="learn from the bank's images which differences matter (default: where held-out parts say that it helps)",
    )
    parser.add_argument(
        "--position-weights",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let a distance count less where good parts are far from the bank (default: with 8 parts or more)",
    )


def add_thumbnails(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--thumbnails",
        type=_pixels,
        nargs="?",
        const=True,
        metavar="PIXELS",
        help="store pictures of the normal images, their longest side this long (256), so that `inspect --explain` can "
        "show them; whoever has the package sees them",
    )


def _pixels(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels; for the default give it last")
    return int(text)


def run_fit(options: argparse.Namespace, output: Output) -> int:
    from onceover import export
    from onceover.detectors import BankSize
    from onceover.runtime.thumbnails import DEFAULT_SIDE, describe, privacy_note
    from onceover.training.calibrate import realised_rate_interval, required_groups
    from onceover.training.cross_conformal import proven_rate
    from onceover.training.fit import FitOptions, fit
    from onceover.training.splitting import find_images

    def keep(plan: FitPlan) -> None:
        plans.append(plan)
        show_plan(plan, output)

    check_package_target(options.output)
    plans: list[FitPlan] = []
    with output.progress() as progress:
        settings = FitOptions(
            backbone=_backbone(options),
            detector=options.detector,
            coreset=options.coreset,
            bank=BankSize(options.bank_rows, options.bank_mb, options.bank_ratio),
            false_alarm_rate=options.false_alarm,
            holdout=options.holdout,
            groups=options.groups,
            layout=options.layout,
            category=options.category,
            seed=options.seed,
            engine=engine_options(options),
            threads=options.threads,
            name=options.name,
            budget_ms=options.budget_ms,
            size=options.size if options.weights is None else None,
            thumbnails=DEFAULT_SIDE if options.thumbnails is True else options.thumbnails,
            roi=options.roi,
            tiling=tiling_options(options),
            adapt=options.adapt,
            position_weights=options.position_weights,
            max_memory=options.max_memory,
        )
        parts = fit(options.directory, settings, progress, keep)
        if parts.thumbnails is not None:
            output.warn(privacy_note(describe(parts.thumbnails)))
        package_id = export.package(parts, options.output, settings.engine)
    calibration = parts.calibration
    size_mb = options.output.stat().st_size / 1e6
    output.say(f"[bold]{escape(str(options.output))}[/] written and verified: {size_mb:.1f} MB, id {package_id[:16]}")
    if calibration.cross_conformal:
        proven = proven_rate(calibration.n, plans[0].folds, calibration.false_alarm_rate)
        output.say(
            f"threshold {calibration.threshold:.4f}, [bold]cross-conformal[/]: {calibration.n} parts are too few to "
            f"hold out any, so a bank without it scored each. About {percent(calibration.false_alarm_rate)} false "
            f"alarms are to be expected, at most {percent(proven)} are proven (docs/calibration.md); "
            "run `onceover calibrate` when there are more parts"
        )
    elif calibration.calibrated:
        low, high = realised_rate_interval(calibration.n, calibration.false_alarm_rate)
        output.say(
            f"threshold {calibration.threshold:.4f} from {calibration.n} held-out parts: at most "
            f"{percent(calibration.false_alarm_rate)} false alarms on average; this one threshold may well give "
            f"{percent(low)} to {percent(high)} (90 % interval, narrower with more parts)"
        )
    else:
        rate = plans[0].false_alarm_rate
        official = bool(plans[0].layout and find_images(options.directory, settings)[1])
        output.warn(
            f"uncalibrated: {counted(calibration.n, 'held-out part')} cannot support a false-alarm rate of "
            f"{percent(rate)}; scores and maps work, verdicts will say 'uncalibrated'. For verdicts "
            f"{more_parts(plans[0], options.holdout is not None, official, required_groups(rate))}, or give "
            f"{required_groups(rate)} good parts that it has not seen to `onceover calibrate`"
        )
    if len(calibration.scores) and not calibration.scores.any():
        output.warn(
            "all good parts score 0: to the network their patches are all the same, so it may see no defect either, or "
            "call any difference one; are the images black, or is it the wrong network?"
        )
    manifest, choice, memory = parts.manifest, plans[0].choice, plans[0].memory
    show_adaptation(manifest["adaptation"], output)
    if note := stretched_note(manifest["data"].get("image_sizes")):
        output.warn(note)
    weights = manifest.get("position_weights")
    if weights:
        output.say(
            f"weighed by position: a distance counts {weights['least']:.2f} to {weights['most']:.2f} times, less where "
            "good parts are farther from the memory bank"
        )
    output.object(
        {
            "package": str(options.output),
            "id": package_id,
            "size_bytes": options.output.stat().st_size,
            "calibrated": calibration.calibrated,
            "calibration": calibration.method,
            "false_alarm_rate": calibration.false_alarm_rate if calibration.calibrated else None,
            "threshold": calibration.threshold,
            "detector": manifest["detector"],
            "backbone": manifest["backbone"]["name"],
            **({} if parts.thumbnails is None else {"thumbnails": manifest["thumbnails"]}),
            "copies": dict(plans[0].copies),
            **({} if choice is None else {"choice": asdict(choice)}),
            "adaptation": manifest["adaptation"],
            **({"position_weights": weights} if weights else {}),
            **({} if memory is None else {"plan": asdict(memory)}),
        }
    )
    return 0


def stretched_note(sizes: Mapping[str, Any] | None) -> str | None:
    """What to know of images whose proportions differ; sizes: as in a fit's manifest."""
    narrow, wide = (1, 1) if sizes is None else sizes["proportions"]
    if sizes is None or wide <= MOST_STRETCHED * narrow:
        return None
    smallest, largest = (" × ".join(map(str, sizes[key])) for key in ("smallest", "largest"))
    return (
        f"images have {sizes['count']} sizes, from {smallest} to {largest}, and proportions from {narrow:.2f} to "
        f"{wide:.2f} (width by height): each is stretched to the network's input by itself, so that alike parts look "
        "unlike; if this is one product under one camera, crop all alike"
    )


def show_adaptation(record: Mapping[str, Any], output: Output) -> None:
    """Whether distances are measured as the product suggests, and why; record: `adaptation` of a fit's manifest."""
    adapted, reason = record["adapted"], escape(record["reason"])
    before, after = record.get("auroc", (None, None))
    told = f"AUROC {number(after, 4)} instead of {number(before, 4)}, on parts that it was not learned from"
    if adapted:
        images = counted(record["images"], "image")
        output.say(f"adapted by {images} of the memory bank, as {reason}: drawn damage is told apart with {told}")
    elif before is None:
        output.say(f"not adapted to the product, as {reason}")
    else:
        output.say(
            f"not adapted to the product, as {reason}: drawn damage would be told apart with {told}; --adapt does it "
            "all the same"
        )
    if adapted and after <= before:
        output.warn("adapting does not help here: without --adapt, fit would leave it out")


def more_parts(plan: FitPlan, asked: bool, official: bool, required: int) -> str:
    """What to change so that this fit calibrates. asked: --holdout was given. official: a validation split calibrates,
    which more parts to learn from do not help. required: parts that the rate takes.
    """
    learned, held_out = len(set(plan.bank_groups)), len(set(plan.calibration_groups))
    parts = len({*plan.bank_groups, *plan.calibration_groups})
    if official:
        rather = f"hold out {required} parts of train, not the {held_out} of validation, with --holdout {required}"
        return rather if learned > required else f"give {required} parts for validation, or fit on more and {rather}"
    if not asked:
        return f"fit on {required} good parts or more"
    if parts < required:
        return f"fit on {required} good parts or more and leave out --holdout"
    hold_out = f"hold out {required} of the {parts} parts" if parts > required else ""
    if plan.layout and hold_out:  # without --holdout it may be a small validation split that calibrates
        return hold_out
    return f"leave out --holdout, or {hold_out}" if hold_out else "leave out --holdout"


def show_plan(plan: FitPlan, output: Output) -> None:
    """What fit will do, before it does it."""
    if plan.choice is not None:
        show_choice(plan.choice, output)
    if plan.input_size is not None:
        side = plan.input_size.side
        output.say(f"input {side} × {side}: {escape(plan.input_size.reason)}")
    if plan.copies:
        output.warn(copies_note(plan.copies))
    if plan.bits_in_use is not None and (note := dark_note(plan.bits_in_use)):
        output.warn(note)
    if plan.layout:
        output.say(f"a data set (layout {plan.layout}): learning from the normal images of its train split only")
    show_field(plan, output)
    rate, parts = percent(plan.false_alarm_rate), counted(len(set(plan.calibration_groups)), "part")
    if plan.folds:
        output.say(
            f"{len(plan.bank_images)} images ({parts}) for the memory bank; too few "
            f"to hold some out for a false-alarm rate of {rate}: {plan.folds} more banks score each others' parts"
        )
    else:
        output.say(
            f"{counted(len(plan.bank_images), 'image')} for the memory bank, {len(plan.calibration_images)} held out "
            f"({parts}) for a false-alarm rate of {rate}"
        )
    output.say(f"memory bank: {plan.bank_rows:,} of {plan.patch_count:,} patches, {plan.bank_mb:.1f} MB in the package")
    if plan.memory is not None:
        show_memory(plan.memory, output)


def dark_note(bits: int) -> str | None:
    """What to do about images of 16 bits whose brightest pixel takes `bits`; None for black ones and for all of 16.

    The factor is of a camera, not of that pixel: a glare on a later part may be as bright as the sensor allows.
    """
    camera = next((each for each in CAMERA_BITS if each >= bits > 0), None)
    if camera is None:
        return None
    seen = "nearly black" if camera < CAMERA_BITS[-1] else "darker than they need be"
    return (
        f"these images have 16 bits per channel and use the lowest {bits} alone, so the network sees them {seen} and "
        f"tells parts apart worse. If the camera delivers {camera} bits, multiply pixels by {2 ** (16 - camera)} "
        "and clip them at 65,535 before they are saved, for fit and for inspect alike"
    )


def show_memory(memory: MemoryPlan, output: Output) -> None:
    """What fit will take, and what was decided because of it."""
    from onceover.training.memory_plan import megabytes

    limit = "no limit" if memory.limit_bytes is None else f"limit {megabytes(memory.limit_bytes)}"
    output.say(
        f"takes about {_duration(memory.seconds)} and {megabytes(memory.peak_bytes)} of memory "
        f"({limit}: {memory.limit_source})"
    )
    if memory.streaming:
        output.warn(
            f"all patches at once would take {megabytes(memory.plain_bytes)}, so they pass as a stream: the bank is "
            f"selected from a sample of {memory.sample_images:,} images, grown in one pass over all"
        )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_field(plan: FitPlan, output: Output) -> None:
    """What of an image is inspected, where that is not simply all of it."""
    tiling = plan.tiling
    if plan.image_size is not None and tiling.count > 1:
        height, width = plan.image_size
        output.say(
            f"{tiling.rows} × {tiling.columns} tiles of images of {height} × {width}: the network runs "
            f"{tiling.count} times for each"
        )
    elif plan.image_size is not None:
        output.say("one tile: the network sees images of {} × {} whole".format(*plan.image_size))
    if plan.roi is not None:
        output.say(f"region of interest: {percent(plan.inspected)} of the patches are inspected")


def show_choice(choice: Choice, output: Output) -> None:
    """Which backbone was taken for a budget, and what all of them take."""
    height, width = choice.image_size
    output.say(
        f"backbone [bold]{escape(choice.name)}[/]: the best within {choice.budget_ms:g} ms for network and preparation "
        f"of a {height} × {width} image; scoring comes on top"
    )
    times = [f"{name} {latency.median_ms:.1f} ms" for name, latency in choice.latencies.items()]
    earlier = f"; measured earlier: {', '.join(choice.remembered)}" if choice.remembered else ""
    output.say(escape(f"here they take, best first: {', '.join(times)} (median{earlier})"))
    for problem in choice.problems:
        output.warn(problem)


def _backbone(options: argparse.Namespace) -> str | bytes:
    """The file or embedded name given, or a fresh export of a named backbone when weights are given."""
    from onceover.runtime.graph import DEFAULT_BACKBONE
    from onceover.training.choosing import wants_choice

    automatic = wants_choice(options.backbone or DEFAULT_BACKBONE, options.budget_ms)
    if automatic and options.weights is not None:
        raise UsageError("--backbone auto chooses among embedded networks: leave out --weights")
    if options.weights is None:
        if options.ema or options.trust_pickle:
            raise UsageError("--ema and --trust-pickle say how to read a weights file; give --weights FILE with them")
        return DEFAULT_BACKBONE if options.backbone is None else str(options.backbone)
    from onceover.backbones import has_windows

    if options.backbone is None:
        raise UsageError(f"--weights {options.weights}: of which backbone? Name it with --backbone, e.g. mobilenetv2")
    export_backbone = registry.load("export target", "onnx", registry.EXPORT_TARGETS)
    side, resizable = options.size or 256, options.size is None and not has_windows(options.backbone)
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch, "graph.onnx")
        exported: Path = export_backbone(
            options.backbone, weights_file(options.weights, options), graph, side, side, resizable=resizable
        )
        return exported.read_bytes()
