"""`onceover pretrain`: record what a teacher says of many views, check the records, train students from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from onceover.cli.exporting import check_target
from onceover.cli.output import Output
from onceover.errors import missing_extra

AddCommand = Callable[..., argparse.ArgumentParser]  # parser._command


def add_pretrain_commands(subparsers: Any, command: AddCommand) -> None:
    pretrain = subparsers.add_parser("pretrain", help="teach a small backbone by a large one's stored answers (torch)")
    steps = pretrain.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_record(steps, command)
    check = command(steps, "check", "do records come out again? images, pixels and the teacher's answers", run_check)
    check.add_argument("records", type=Path, help="folder of `pretrain record`")
    check.add_argument("--samples", type=_count, default=32, help="random records to compute again (default: 32)")
    check.add_argument("--weights", type=Path, help="the teacher's weights, where they have moved")
    check.add_argument("--seed", type=_count, default=0, help="of the choice of records")
    _add_place(check)
    _add_train(steps, command)


def _add_record(steps: Any, command: AddCommand) -> None:
    record = command(
        steps,
        "record",
        "run a teacher over views of images and store its answers; goes on where it was cut",
        run_record,
    )
    record.add_argument("images", type=Path, nargs="?", help="folder of images, no labels needed")
    record.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="new folder, or one to go on with"
    )
    record.add_argument(
        "--teacher", default="mobilenetv2", help="a name of `onceover list backbones` (default: %(default)s)"
    )
    record.add_argument("--weights", type=Path, required=True, help="its weights (.safetensors, .pth)")
    record.add_argument("--views", type=_count, default=4, help="stored views per image (default: 4)")
    record.add_argument(
        "--procedural", type=_count, default=0, metavar="N", help="and N drawn images, one view each (default: 0)"
    )
    record.add_argument(
        "--logits-top-k", type=_count, default=0, metavar="K", help="also the K best classes (default: 0)"
    )
    record.add_argument("--size", type=_count, default=128, help="side of a view in pixels (default: 128)")
    record.add_argument("--strides", type=_numbers, default=(8, 16), help="stages to store (default: 8,16)")
    record.add_argument(
        "--enlarge", type=_count, default=1, metavar="N", help="the teacher sees a view N times as large (default: 1)"
    )
    record.add_argument(
        "--mirrors",
        type=_count,
        default=1,
        metavar="N",
        help="and mirrored: the mean over 1, 2 or 4 views (default: 1)",
    )
    record.add_argument("--batch", type=_count, default=16, help="views at a time (default: 16)")
    record.add_argument("--seed", type=_count, default=0, help="of all views")
    _add_machine(record)


def _add_train(steps: Any, command: AddCommand) -> None:
    train = command(steps, "train", "train a student from records, without the teacher; also under torchrun", run_train)
    train.add_argument("records", type=Path, help="folder of `pretrain record`")
    train.add_argument("--student", required=True, help="a name of `onceover list backbones`")
    train.add_argument("-o", "--output", type=Path, required=True, help="its weights, .safetensors")
    train.add_argument("--steps", type=_count, default=10_000, help="default: %(default)s")
    train.add_argument("--batch", type=_count, default=24, help="views per step, of all processes (default: 24)")
    train.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    train.add_argument("--weight-decay", type=float, default=1e-4, help="default: %(default)s")
    train.add_argument(
        "--logit-weight", type=float, default=1.0, help="of recorded classes (default: 1; 0 ignores them)"
    )
    train.add_argument("--freeze-norms", action="store_true", help="batch norms keep their statistics")
    train.add_argument("--init", type=Path, help="weights to start from (default: random)")
    train.add_argument("--seed", type=_count, default=0, help="of the order and of a random start")
    train.add_argument("--threads", type=_count, default=0, help="another number gives slightly other weights")
    train.add_argument("--checkpoint-every", type=_count, default=200, metavar="STEPS", help="default: %(default)s")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted training")
    train.add_argument(
        "--accept-other-pixels", action="store_true", help="also where this machine draws views a little otherwise"
    )
    train.add_argument("--half", action="store_true", help="write float16: half the file")
    train.add_argument("--about", default="", metavar="TEXT", help="what the images are, for the weights card")
    _add_place(train)
    train.add_argument("--workers", type=_count, default=0, help="processes that read views (default: 0)")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images, where it has moved")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")
    parser.add_argument("--workers", type=_count, default=0, help="processes that read images (default: 0)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_count(word) for word in text.split(","))


def _require_torch() -> None:
    try:
        import onceover.training.pretrain.train  # noqa: F401 - only whether it can be
    except ModuleNotFoundError as error:
        if error.name in {"torch", "safetensors"}:
            raise missing_extra(error.name, "train", "onceover pretrain") from error
        raise


def run_record(options: argparse.Namespace, output: Output) -> int:
    _require_torch()
    from onceover.training.pretrain.recording import RecordingOptions, record
    from onceover.training.pretrain.teacher import Look

    settings = RecordingOptions(
        teacher=options.teacher,
        weights=options.weights,
        images=options.images,
        procedural=options.procedural,
        views=options.views,
        view_size=options.size,
        strides=options.strides,
        look=Look(options.enlarge, options.mirrors),
        top_k=options.logits_top_k,
        seed=options.seed,
        batch=options.batch,
        workers=options.workers,
        device=options.device,
    )
    with output.progress() as progress:
        recording = record(options.output, settings, progress)
    header = recording.header
    size = len(header) * header.dtype.itemsize
    output.say(
        f"[bold]{escape(str(options.output))}[/]: {len(header)} views of {len(header.images)} images "
        f"and {header.procedural} drawn ones, {header.dtype.itemsize} bytes each, {size / 1e6:.1f} MB; "
        f"{recording.written} of {header.shards} files are new"
    )
    output.object(
        {
            "records": len(header),
            "bytes_per_record": header.dtype.itemsize,
            "shards": header.shards,
            "written_shards": recording.written,
            "digest": header.digest().hex(),
        }
    )
    return 0


def run_check(options: argparse.Namespace, output: Output) -> int:
    _require_torch()
    from dataclasses import asdict

    from onceover.training.pretrain.checking import FEATURE_TOLERANCE, check

    with output.progress() as progress:
        report = check(
            options.records, options.images, options.weights, options.samples, options.seed, options.device, progress
        )
    output.say(
        f"[bold]{escape(str(options.records))}[/]: {report.compared} of {report.records} records come out again; "
        f"features differ by {report.feature_difference:.1e} of their scale at most (tolerance {FEATURE_TOLERANCE:g})"
    )
    output.object(asdict(report))
    return 0


def run_train(options: argparse.Namespace, output: Output) -> int:
    _require_torch()
    from onceover.training.pretrain.train import train

    check_target(options.output)
    with output.progress() as progress:
        report = train(
            options.records,
            options.output,
            _training_options(options),
            lambda step, steps, loss: progress("training", step, steps, f"loss {loss:.3f}"),
        )
    if not report.is_first_process:  # of torchrun: one of them tells it
        return 0
    last = report.losses[-50:]
    output.say(
        f"[bold]{escape(str(options.output))}[/]: loss {sum(last) / len(last):.3f} at the end of {len(report.losses)} "
        f"steps, {report.seconds_per_step:.3f} s each"
        + (f", resumed at {report.resumed_at}" if report.resumed_at else "")
    )
    output.object(
        {
            "output": str(options.output),
            "losses": report.losses,
            "resumed_at": report.resumed_at,
            "seconds_per_step": report.seconds_per_step,
        }
    )
    return 0


def _training_options(options: argparse.Namespace) -> Any:
    from dataclasses import fields

    from onceover.training.pretrain.train import TrainingOptions

    names = {field.name for field in fields(TrainingOptions)}
    return TrainingOptions(**{name: value for name, value in vars(options).items() if name in names})


__all__ = ["add_pretrain_commands"]
