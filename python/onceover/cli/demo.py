"""`onceover demo`: the main job end to end on an inspection data set that the program draws itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.markup import escape

from onceover.cli.output import Output, number, percent
from onceover.errors import OutputError
from onceover.types import Verdict

SHEET_ROWS_PER_PRODUCT = 8


def run_demo(options: argparse.Namespace, output: Output) -> int:
    from onceover import export
    from onceover.images import write_image
    from onceover.report.contact_sheet import SheetRow, draw_contact_sheet, pick_rows
    from onceover.runtime.inspector import Inspector
    from onceover.training.demo_products import draw_products
    from onceover.training.evaluate import evaluate
    from onceover.training.fit import fit

    root: Path = options.output
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{root}: cannot be created: {error.strerror}; choose another folder with -o") from error
    with output.progress() as progress:
        products = draw_products(root / "data", seed=options.seed, progress=progress)
    rows: list[SheetRow] = []
    reports = []
    for product in products:
        package = root / f"{product.name}.onceover"
        output.say(f"\n[bold]{escape(f'onceover fit {product}/train/good -o {package}')}[/]")
        with output.progress() as progress:
            export.package(fit(product / "train" / "good", progress=progress), package)
        output.say(f"[bold]{escape(f'onceover evaluate {package} {product}')}[/]")
        seen: list[SheetRow] = []

        def keep(
            sample: Any, image: Any, mask: Any, verdict: Verdict, seen: list[SheetRow] = seen, product: Path = product
        ) -> None:
            name = f"{product.name}/{sample.relative}"
            seen.append(SheetRow(name=name, image=image, verdict=verdict, ground_truth=mask))

        with output.progress() as progress:
            reports.append(evaluate(Inspector.open(package), product, progress=progress, observe=keep))
        rows += pick_rows(seen, SHEET_ROWS_PER_PRODUCT)
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
    output.object({"contact_sheet": str(sheet), "products": [report.to_dict() for report in reports]})
    return 0
