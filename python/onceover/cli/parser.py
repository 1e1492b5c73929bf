"""The commands and their options; each names the function that runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from onceover.cli import commands, exporting
from onceover.cli.backbones import add_measuring
from onceover.cli.bank import add_bank_command, add_corrections_options
from onceover.cli.benching import add_bench_command
from onceover.cli.calibrating import add_calibrate_command
from onceover.cli.demo import run_demo
from onceover.cli.field import add_field_options
from onceover.cli.fitting import add_adapting, add_thumbnails, run_fit
from onceover.cli.inspecting import add_inspect_command
from onceover.cli.listing import LISTINGS, run_list
from onceover.cli.monitoring import add_monitor_command
from onceover.cli.packages import add_package_commands
from onceover.cli.pretraining import add_pretrain_commands
from onceover.cli.products import add_combine_command, add_product_options
from onceover.errors import UsageError, unknown_name

EXAMPLES = """\
examples:
  onceover demo                                         draw three products, fit, evaluate, look
  onceover fit good_parts/ -o part.onceover             learn from images of good parts
  onceover inspect part.onceover *.png --save results/  verdicts and heat maps
  onceover inspect part.onceover camera/ --watch        as the camera writes them, until Ctrl-C
  onceover evaluate part.onceover dataset/              AUROC, AUPRO, false alarms, latency
"""


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing the usage and leaving, so that --json covers it too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        allow_abbrev=False,
        prog="onceover",
        description="Give every part the once-over: visual anomaly inspection on edge devices.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onceover {commands.version()}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_fit(subparsers)
    _add_evaluate(subparsers)
    add_inspect_command(subparsers, _command, commands.run_inspect, _add_key, _add_engine)
    _add_verify(subparsers)
    add_monitor_command(subparsers, _command)
    add_package_commands(subparsers, _command)
    add_bench_command(subparsers, _command, _add_engine)
    calibrate = add_calibrate_command(subparsers, _command)
    _add_layout(calibrate, "of a data set, whose validation or else train images calibrate (default: auto)")
    _add_engine(calibrate)
    add_combine_command(subparsers, _command, _add_engine)
    add_bank_command(subparsers, _command, _add_engine)
    _add_export(subparsers)
    _add_convert(subparsers)
    add_pretrain_commands(subparsers, _command)
    listing = _command(
        subparsers, "list", "what is here: backbones, detectors, layouts, engines, instruction sets", run_list
    )
    listing.add_argument("what", nargs="?", help=f"only this table: {', '.join(LISTINGS)}")
    add_measuring(listing, _add_engine)
    demo = _command(subparsers, "demo", "draw an inspection data set, fit, evaluate and show the results", run_demo)
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    _add_seed(demo)
    return parser


EXPORT_BACKBONE = "export backbone"  # one word for argparse, two for people


def joined(words: Sequence[str]) -> list[str]:
    """`export backbone …` as its one command, so that `export part.onceover` can be another."""
    return [EXPORT_BACKBONE, *words[2:]] if list(words[:2]) == EXPORT_BACKBONE.split() else list(words)


def check_command(words: Sequence[str]) -> None:
    """UnknownNameError with near matches for a mistyped command (argparse would only list them)."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown_name("command", words[0], COMMANDS)


COMMANDS = (
    "bank",
    "bench",
    "calibrate",
    "combine",
    "convert",
    "demo",
    "evaluate",
    "export",
    "fit",
    "inspect",
    "keygen",
    "list",
    "monitor",
    "pretrain",
    "sign",
    "unpack",
    "verify",
)


def _command(subparsers: Any, name: str, summary: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.set_defaults(run=run)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", default="onnxruntime", help="what runs the network: onnxruntime (default), openvino"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine (default: 1)")
    parser.add_argument(
        "--device",
        default="",
        help="where: a device of openvino (GPU, NPU, AUTO, …), execution providers of onnxruntime (TensorRT,CUDA); "
        "default: the CPU",
    )
    parser.add_argument(
        "--engine-option",
        action="append",
        type=_key_value,
        default=[],
        metavar="KEY=VALUE",
        help="as the engine's manual spells it; may be repeated",
    )
    parser.add_argument("--engine-cache", type=Path, metavar="DIR", help="keep compiled graphs in this folder")
    parser.add_argument(
        "--engine-library",
        type=Path,
        metavar="PATH",
        help="shared library of the engine (default: $ONCEOVER_ONNXRUNTIME_LIBRARY or $ONCEOVER_OPENVINO_LIBRARY, else "
        "the installed wheel's)",
    )


def _key_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="public key: refuse a package that its owner did not sign"
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, help="of every random choice: the same seed, the same file")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ema", action="store_true", help="take the averaged weights of a training checkpoint")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="open a file of pickled objects, which can run any program"
    )


def _add_layout(parser: argparse.ArgumentParser, layout_help: str) -> None:
    parser.add_argument("--layout", default="auto", metavar="NAME", help=layout_help)
    parser.add_argument("--category", metavar="NAME", help="which product of a data set that holds several")


def _add_fit(subparsers: Any) -> None:
    fit = _command(subparsers, "fit", "learn from a folder of images of good parts and write one package", run_fit)
    fit.add_argument("directory", type=Path, help="folder of images of good parts only, or a data set")
    fit.add_argument("-o", "--output", type=Path, required=True, help="the package to write, e.g. part.onceover")
    fit.add_argument(
        "--backbone",
        default=None,
        help="an exported .onnx, a name of `onceover list` (default: embedded), or auto with --budget-ms",
    )
    fit.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="with --backbone auto: the best embedded one whose network and preparation of an image take at most this "
        "long here",
    )
    fit.add_argument(
        "--weights", type=Path, help="weights of a named backbone (.safetensors, .pth); exports it first (torch)"
    )
    _add_reading(fit)
    fit.add_argument("--size", type=int, help="side of the network's input in pixels (default: what the images need)")
    add_adapting(fit)
    fit.add_argument("--detector", default="patchcore")
    fit.add_argument("--coreset", choices=("greedy", "random"), default="greedy")
    size = fit.add_mutually_exclusive_group()
    size.add_argument("--bank-rows", type=int, help="memory bank size in rows (default: 10 %% of patches, ≤ 10,000)")
    size.add_argument("--bank-mb", type=float, help="memory bank size in megabytes")
    size.add_argument("--bank-ratio", type=float, help="memory bank size as a share of all patches")
    fit.add_argument("--false-alarm", type=float, metavar="RATE", help="target false-alarm rate (default: 0.05)")
    fit.add_argument(
        "--holdout", type=_share_or_count, help="share (0.2) or number (50) of parts held out for calibration"
    )
    fit.add_argument("--groups", type=Path, help="CSV with columns file,group: images of the same part count once")
    _add_layout(fit, "of a data set, whose train images are learned from (default: auto)")
    _add_seed(fit)
    add_field_options(fit)
    fit.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="that fit may take, e.g. 2GiB (default: 75 %% of what is free); a larger set passes as a stream",
    )
    fit.add_argument("--name", help="product name (default: from the folder)")
    add_thumbnails(fit)
    _add_engine(fit)


def _share_or_count(text: str) -> float | int:
    try:
        if "." not in text or float(text) < 1:  # 1.0 would be one part, where all were meant
            return float(text) if "." in text else int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is neither a share (0.2) nor a number of parts (50)")


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^64 - 1")
    return int(text)


def _channel_values(lowest: float) -> Callable[[str], tuple[float, float, float]]:
    def read(text: str) -> tuple[float, float, float]:
        try:
            red, green, blue = (float(value) for value in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, as in 0.485,0.456,0.406") from None
        if not all(lowest <= value <= 1e3 for value in (red, green, blue)):  # also refuses NaN
            raise argparse.ArgumentTypeError(f"{text!r}: each must be from {lowest:g} to 1000, of pixels in 0 … 1")
        return red, green, blue

    return read


def _resolution(text: str) -> str | int:
    if text != "mask" and not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'mask' nor a number of pixels")
    return text if text == "mask" else int(text)


def _add_evaluate(subparsers: Any) -> None:
    evaluate = _command(subparsers, "evaluate", "inspect a labelled data set and report", commands.run_evaluate)
    evaluate.add_argument("package", type=Path)
    _add_key(evaluate)
    add_corrections_options(evaluate)
    evaluate.add_argument("dataset", type=Path, help="folder (test/good, test/<defect>, ground_truth/<defect>) or .csv")
    _add_layout(evaluate, "how the data set is laid out: a name of `onceover list layouts` (default: auto)")
    evaluate.add_argument(
        "--resolution", type=_resolution, default="mask", help="compare maps at 'mask' size (default) or at N pixels"
    )
    add_product_options(evaluate)
    evaluate.add_argument(
        "--save", type=Path, metavar="FILE", help="write a contact sheet of the hardest images (.png)"
    )
    evaluate.add_argument(
        "--report", type=Path, metavar="FILE", help="write one self-contained page with curves and images (.html)"
    )
    _add_engine(evaluate)


def _add_verify(subparsers: Any) -> None:
    verify = _command(
        subparsers, "verify", "check a package and replay its reference images on this machine", commands.run_verify
    )
    verify.add_argument("package", type=Path)
    _add_key(verify)
    _add_engine(verify)


def _add_export(subparsers: Any) -> None:
    export = _command(
        subparsers,
        "export",
        "a package for another engine or precision, judged by its scores (or: onceover export backbone --help)",
        exporting.run_export_package,
    )
    export.add_argument("package", type=Path)
    export.add_argument("-o", "--output", type=Path, help="the package to write")
    export.add_argument(
        "--to-onnx", type=Path, metavar="FILE", help="instead: one plain .onnx with the memory bank inside, and a .json"
    )
    export.add_argument("--raw-pixels", action="store_true", help="with --to-onnx: takes uint8 pixels, not normalized")
    export.add_argument("--precision", choices=("float32", "float16", "int8"), default="float32")
    export.add_argument(
        "--calibration", type=Path, metavar="DIR", help="normal images, none of them in the bank: for int8"
    )
    export.add_argument(
        "--test",
        type=Path,
        metavar="DIR",
        help="data set or folder to judge on (default: the test split of --calibration; half of its images, also with "
        "drawn defects; without it, the package's reference images)",
    )
    exporting.add_refit(export)
    export.add_argument("--force", action="store_true", help="write it even if it is not accepted, and say so inside")
    _add_engine(export)
    _add_seed(export)
    backbone = _command(
        subparsers,
        EXPORT_BACKBONE,
        "a named backbone and its weights, or a network of your own → one .onnx that fit can use",
        exporting.run_export,
    )
    backbone.add_argument(
        "name",
        help="of `onceover list backbones`; or MODEL.onnx; or FILE.py:FUNCTION that makes a torch module",
    )
    backbone.add_argument("--weights", type=Path, help=".safetensors, or .pth, .pt, .bin of torch.save")
    _add_reading(backbone)
    backbone.add_argument("-o", "--output", type=Path, required=True)
    backbone.add_argument("--height", type=int, default=256)
    backbone.add_argument("--width", type=int, default=256)
    backbone.add_argument("--strides", type=_strides, help="which stages of a named backbone (default: 8,16)")
    backbone.add_argument(
        "--resizable", action="store_true", help="for `fit --size`: any multiple of 16; with windows 256 or 384"
    )
    backbone.add_argument(
        "--window", type=int, help="side of attention windows of a named backbone (default: what needs less padding)"
    )
    backbone.add_argument(
        "--taps", type=_names, metavar="A,B", help="feature maps of your own network (an empty text proposes some)"
    )
    _add_card(backbone)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _strides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers, as in 8,16") from None


def _add_convert(subparsers: Any) -> None:
    convert = subparsers.add_parser("convert", help="a checkpoint to a safetensors file with its card (needs torch)")
    kinds = convert.add_subparsers(dest="kind", required=True, metavar="WHAT")
    weights = _command(
        kinds, "weights", "a checkpoint of a backbone → one .safetensors that needs no trust", exporting.run_convert
    )
    weights.add_argument("name", help="see `onceover list backbones`")
    weights.add_argument("checkpoint", type=Path, help=".pth, .pt or .bin of torch.save, or .safetensors")
    weights.add_argument("-o", "--output", type=Path, required=True, help="the .safetensors file to write")
    _add_reading(weights)
    _add_card(weights)


def _add_card(parser: argparse.ArgumentParser) -> None:
    for option, what in (
        ("--license", "license of the weights"),
        ("--source", "where they come from, e.g. a URL"),
        ("--training-data", "what they learned from"),
    ):
        parser.add_argument(option, metavar="TEXT", help=f"{what}; for the weights card")
    for option, what, lowest in (("--mean", "mean", -1e3), ("--std", "deviation", 1e-6)):
        parser.add_argument(
            option,
            type=_channel_values(lowest),
            metavar="R,G,B",
            help=f"{what} they expect of pixels in 0 … 1, where that is not what the architecture says",
        )
