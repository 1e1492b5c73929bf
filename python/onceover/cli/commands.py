"""One function per command: call the library, show what it says, return the exit status."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover import _core
from onceover.cli.bank import corrections_of, say_corrections
from onceover.cli.evaluation_page import check_report, new_gallery, write_report
from onceover.cli.explaining import open_explainer, show_reasons
from onceover.cli.exporting import check_target
from onceover.cli.inspecting import (
    UNCALIBRATED,
    VERDICT_STYLES,
    Inspected,
    calibration_facts,
    check_watch_options,
    other_sizes,
    save_picture,
    short_names,
    show_unreadable,
)
from onceover.cli.monitoring import now, open_log
from onceover.cli.output import STOPS, Output, number, percent, reason_to_stop
from onceover.cli.watching import run_watch
from onceover.errors import InputError, OutputError, UsageError
from onceover.types import Calibration, Image, Verdict

if TYPE_CHECKING:
    from onceover.monitoring.log import InspectionLog
    from onceover.runtime.inspector import Inspector
    from onceover.runtime.session import EngineOptions

Draw = Callable[[Path, Image, Verdict, str], None]  # target, image, verdict, name of the image


def version() -> str:
    return _core.__version__


def _open_inspector(options: argparse.Namespace, by_name: bool = False) -> Inspector:
    """by_name: where a package holds several products, its first one; it may have no gate to choose by."""
    from onceover.runtime.inspector import Inspector
    from onceover.runtime.package import open_package
    from onceover.runtime.signature import open_signed

    package = options.package if options.key is None else open_signed(options.package, options.key)
    first = None
    if by_name:
        package = open_package(options.package) if options.key is None else package
        first = package.products[0] if len(package.products) > 1 else None
    return Inspector.open(
        package,
        engine=engine_options(options),
        threads=options.threads,
        product=getattr(options, "product", first),
        gate=getattr(options, "gate", False),
        corrections=corrections_of(options),
    )


def engine_options(options: argparse.Namespace) -> EngineOptions:
    from onceover.runtime.session import EngineOptions

    return EngineOptions(
        name=options.engine,
        device=options.device,
        options=dict(options.engine_option),
        cache_dir=options.engine_cache,
        library=options.engine_library,
    )


def run_evaluate(options: argparse.Namespace, output: Output) -> int:
    from onceover.report.contact_sheet import SheetRow, draw_contact_sheet
    from onceover.training.dataset import read_dataset
    from onceover.training.evaluate import evaluate
    from onceover.training.splitting import check_images

    if options.save:
        from onceover.images import picture_format, write_image
        from onceover.report.contact_sheet import pick_rows

        picture_format(options.save)
        check_target(options.save)
    if options.report:
        check_report(options.report)
    rows: list[SheetRow] = []
    inspector = _open_inspector(options)
    if len(inspector.products) > 1 and options.product is None:
        raise UsageError(f"{options.package}: name one of its products: --product {' | '.join(inspector.products)}")
    gallery = new_gallery(inspector.calibration) if options.report else None

    def keep(sample: Any, image: Any, mask: Any, verdict: Verdict) -> None:
        if options.save:
            rows.append(SheetRow(name=sample.relative, image=image, verdict=verdict, ground_truth=mask))
        if gallery is not None:
            gallery.add(sample.relative, sample.label, sample.defect, image, verdict, mask)

    dataset = read_dataset(options.dataset, options.layout, options.category)
    with output.progress() as progress:
        masks = [file for sample in dataset.test for file in (sample.mask_path, *sample.channels) if file]
        check_images([*(sample.path for sample in dataset.test), *masks], progress)
        report = evaluate(inspector, dataset, options.resolution, progress, keep)
    corrected = say_corrections(inspector, options, output)
    show_report(report, output)
    if options.save:
        write_image(options.save, draw_contact_sheet(pick_rows(rows), report.name))
        output.say(f"contact sheet: {escape(str(options.save))}")
    if gallery is not None:
        write_report(options.report, report, inspector, options.dataset, gallery)
        output.say(f"report: {escape(str(options.report))}")
    output.object({**report.to_dict(), **corrected} | ({"report": str(options.report)} if options.report else {}))
    return 0


def show_report(report: Any, output: Output) -> None:
    """The tables of one evaluation."""
    at = "mask resolution" if report.resolution == "mask" else f"{report.resolution} pixels"
    counts = f"{report.good} good, {report.anomalous} anomalous"
    counts += f", {report.unlabeled} unlabeled" if report.unlabeled else ""
    output.table(
        f"{report.name}: {counts} images, layout {report.layout}, maps at {at}; below: 95 % bootstrap intervals",
        ("image AUROC ", "pixel AUROC ", "AUPRO(0.3) ", "F1-max ", "false alarms ", "target ", "missed "),
        [
            (
                number(report.image_auroc), number(report.pixel_auroc), number(report.aupro), number(report.f1_max),
                percent(report.false_alarm_rate), percent(report.target_false_alarm_rate), percent(report.miss_rate),
            ),
            (
                *(_interval(report, name) for name in ("image_auroc", "pixel_auroc", "aupro")), "", "", "", "",
            ),
        ],
    )  # fmt: skip
    output.table(
        "by kind of defect",
        ("defect", "images ", "found ", "image AUROC ", "pixel AUROC ", "AUPRO(0.3) "),
        [
            (
                row.defect,
                str(row.images),
                "n/a" if row.detected is None else str(row.detected),
                number(row.image_auroc),
                number(row.pixel_auroc),
                number(row.aupro),
            )
            for row in report.defects
        ]
        + ([] if report.mean_image_auroc is None else [("mean", "", "", number(report.mean_image_auroc), "", "")]),
    )
    stages = [stage for stage in report.latency_ms if stage != "total_ms"]
    output.table(
        "latency, ms per image",
        ("", *(f"{stage.removesuffix('_ms')} " for stage in stages), "total "),
        [
            (key, *(number(report.latency_ms[stage][key], 2) for stage in [*stages, "total_ms"]))
            for key in ("p50", "p99")
        ],
    )
    for problem in report.problems:
        output.warn(problem)


def _interval(report: Any, name: str) -> str:
    """Where the metric would lie for another draw of as many images."""
    lower, upper = report.intervals.get(name, (None, None))
    return "" if lower is None else f"{lower:.2f}–{upper:.2f}"


def run_inspect(options: argparse.Namespace, output: Output) -> int:
    output.as_lines = options.watch
    check_watch_options(options)
    inspector = _open_inspector(options)
    if options.watch:
        return run_watch(inspector, options, output)
    paths = _expand(options.images)
    drawings: list[tuple[str, list[Path], Draw]] = []
    if options.save:
        drawings.append(("picture", _picture_paths(options.save, paths), save_picture))
    explainer = open_explainer(inspector, options, output)
    if explainer:
        drawings.append(("explanation", _picture_paths(options.explain, paths, "--explain"), explainer.draw))
    inspected = Inspected()
    stopped: tuple[int, str] | None = None  # exit status and why
    try:
        with output.progress() as progress, open_log(options.log, inspector.package) as log:
            for i, (path, name) in enumerate(zip(paths, short_names(paths), strict=True)):
                drawn = [(key, targets[i], draw) for key, targets, draw in drawings]
                _inspect_one(inspector, path, name, drawn, options.contours, log, inspected)
                progress("inspecting", i + 1, len(paths))
    except STOPS as stop:  # a full disk, Ctrl-C: what is known by now is shown first
        if not inspected.rows:
            raise
        stopped = reason_to_stop(stop)
        output.warn(f"stopped after {len(inspected.rows)} of {len(paths)} images")
    calibration = inspector.calibration
    threshold = calibration.threshold
    corrected = say_corrections(inspector, options, output)
    mixed = len(inspector.products) > 1 and options.product is None  # each product has a threshold of its own
    name = options.product or inspector.manifest.get("name", options.package)
    if inspected.results:  # a table of what could not be read would say nothing
        output.table(
            str(name) if mixed else f"{name}: threshold {number(threshold, 4)}{_promise(calibration)}",
            ("image", *(("product",) if mixed else ()), "verdict", "score ", "p-value ", "regions ", "ms "),
            inspected.table_rows(products=mixed),
            VERDICT_STYLES,
        )
    show_reasons(inspected.reasons, output)
    show_unreadable(inspected, output)
    note = other_sizes(inspected.sizes, inspector.manifest.get("data")) if len(inspector.products) == 1 else ""
    if note:
        output.warn(note)
    for folder, what in ((options.save, "pictures"), (options.explain, "explanations")):
        if folder and inspected.results:
            output.say(f"{what}: {escape(str(folder))}")
    if any(result["decision"] == "uncalibrated" for result in inspected.results):
        output.warn(UNCALIBRATED)
    told = {"package": str(options.package), "id": inspector.package.id, **corrected}
    told |= {"calibration": None if mixed else calibration_facts(calibration)}
    told |= {"results": inspected.results, "unreadable": inspected.unreadable}
    output.object(told if stopped is None else {**told, "stopped": stopped[1]})
    if stopped is not None:
        output.error(stopped[1])
        return stopped[0]
    if inspected.unreadable:
        return InputError.exit_code
    return 0 if all(result["decision"] == "normal" for result in inspected.results) else 1


def _promise(calibration: Calibration) -> str:
    """What stands behind a threshold, for a title."""
    if not calibration.calibrated:
        return ""
    surely = f", {percent(calibration.confidence)} confidence" if calibration.confidence else ""
    rate = percent(calibration.false_alarm_rate)
    return f" ({calibration.method}, {rate} false alarms{surely}, {calibration.n} parts)"


def _inspect_one(
    inspector: Inspector,
    path: Path,
    name: str,
    drawings: list[tuple[str, Path, Draw]],
    contours: bool,
    log: InspectionLog | None,
    inspected: Inspected,
) -> None:
    """Add what is found in one image to `inspected`; its map is freed before the next is drawn. drawings: what to call
    each picture of it, where it goes, and what draws it."""
    from onceover.images import read_image

    try:
        image = read_image(path)
        verdict = inspector.inspect(image)
    except InputError as error:  # a bad file says nothing about the others; what is written below is no bad file
        inspected.add_unreadable(name, path, str(error))
        return
    result = {"image": str(path), **verdict.to_dict(contours)}
    inspected.add(name, result, verdict, image)  # before anything that may fail to be written
    if log is not None:
        log.append(str(path), verdict, image, time=now())
    for key, target, draw in drawings:
        draw(target, image, verdict, name)
        result[key] = str(target)


def _expand(paths: list[Path]) -> list[Path]:
    from onceover.images import list_images

    return [image for path in paths for image in (list_images(path) if path.is_dir() else [path])]


def _picture_paths(folder: Path, paths: list[Path], option: str = "--save") -> list[Path]:
    """One picture for each image in `folder`, which is made: <folder of the image>_<stem>.png, numbered on a clash."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created: {error.strerror}; choose another folder for {option}"
        ) from error
    taken: set[str] = set()
    inputs = {os.path.realpath(path) for path in paths}
    targets = []
    for path in paths:
        stem = f"{Path(os.path.abspath(path)).parent.name}_{path.stem}"
        names = (f"{stem}.png" if i == 1 else f"{stem}_{i}.png" for i in range(1, len(paths) + 1))
        taken.add(name := next(name for name in names if name not in taken))
        targets.append(folder / name)
        if os.path.realpath(targets[-1]) in inputs:
            raise UsageError(f"{option} {folder}: would overwrite the image {targets[-1]}; choose another folder")
    return targets


def run_verify(options: argparse.Namespace, output: Output) -> int:
    inspector = _open_inspector(options, by_name=True)
    result = inspector.verify()
    output.table(str(options.package), ("", ""), list(inspector.package.describe()))
    output.say(
        f"[green]verified[/]: {result['images']} reference images replayed on {result['engine']}, "
        f"largest score difference {result['largest_relative_difference']:.1e} "
        f"(allowed {result['tolerance']:.0e}), id {inspector.package.id[:16]}"
    )
    signed = options.key is not None  # or it would not have been opened
    if signed:
        output.say(f"[green]signed[/] by the owner of {escape(str(options.key))}")
    report = {"verified": True, "signed": signed, **result}
    output.object({"package": str(options.package), "id": inspector.package.id, **report})
    return 0
