"""`onceover demo`: the main job end to end on an inspection data set that the program draws itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover.cli.output import Output, number, percent
from onceover.errors import OutputError
from onceover.types import Verdict

if TYPE_CHECKING:
    from onceover.report.contact_sheet import SheetRow
    from onceover.runtime.inspector import Inspector

SHEET_ROWS_PER_PRODUCT = 8


def run_demo(options: argparse.Namespace, output: Output) -> int:
    from onceover import export
    from onceover.images import write_image
    from onceover.report.contact_sheet import SheetRow, draw_contact_sheet, pick_rows
    from onceover.runtime.inspector import Inspector
    from onceover.runtime.thumbnails import DEFAULT_SIDE
    from onceover.training.demo_products import draw_products
    from onceover.training.evaluate import evaluate
    from onceover.training.fit import FitOptions, fit

    root: Path = options.output
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{root}: cannot be created: {error.strerror}; choose another folder with -o") from error
    with output.progress() as progress:
        products = draw_products(root / "data", seed=options.seed, progress=progress)
    rows: list[SheetRow] = []
    reports = []
    explanations: list[str] = []
    for product in products:
        package = root / f"{product.name}.onceover"
        output.say(f"\n[bold]{escape(f'onceover fit {product}/train/good -o {package} --thumbnails')}[/]")
        with output.progress() as progress:
            export.package(fit(product / "train" / "good", FitOptions(thumbnails=DEFAULT_SIDE), progress), package)
        output.say(f"[bold]{escape(f'onceover evaluate {package} {product}')}[/]")
        seen: list[SheetRow] = []

        def keep(
            sample: Any, image: Any, mask: Any, verdict: Verdict, seen: list[SheetRow] = seen, product: Path = product
        ) -> None:
            name = f"{product.name}/{sample.relative}"
            seen.append(SheetRow(name=name, image=image, verdict=verdict, ground_truth=mask))

        inspector = Inspector.open(package)
        with output.progress() as progress:
            reports.append(evaluate(inspector, product, progress=progress, observe=keep))
        shown = pick_rows(seen, SHEET_ROWS_PER_PRODUCT)
        explanations.append(_explain(inspector, shown, root / f"{product.name}_explained.png"))
        rows += shown
    sheet = root / "contact_sheet.png"
    write_image(sheet, draw_contact_sheet(rows, "onceover demo"))
    output.table(
        "onceover demo: parts the fit never saw; the target is at most 5 % false alarms on average",
        ("product", "image AUROC ", "pixel AUROC ", "AUPRO ", "false alarms ", "missed ", "ms per image "),
        [
            (
                report.name, number(report.image_auroc), number(report.pixel_auroc), number(report.aupro),
                percent(report.false_alarm_rate), percent(report.miss_rate),
                number(report.latency_ms["total_ms"]["p50"], 1),
            )
            for report in reports
        ],
    )  # fmt: skip
    output.say(f"Look at [bold]{escape(str(sheet))}[/]: images, heat maps, outlines, verdicts.")
    output.say(f"Why an image got its verdict: [bold]{escape(', '.join(explanations))}[/]")
    output.object(
        {
            "contact_sheet": str(sheet),
            "explanations": explanations,
            "products": [report.to_dict() for report in reports],
        }
    )
    return 0


def _explain(inspector: Inspector, rows: list[SheetRow], target: Path) -> str:
    """A picture of why the least obvious defect that was found (of all images, where none was) got its verdict."""
    from onceover.images import write_image
    from onceover.report.explanation import draw_explanation

    row = min([row for row in rows if row.outcome == "hit"] or rows, key=lambda row: row.verdict.score)
    assert row.verdict.reason is not None  # an inspector gives one
    normal = inspector.normal_picture(row.verdict.reason)
    write_image(target, draw_explanation(row.image, row.verdict, normal, row.name))
    return str(target)
