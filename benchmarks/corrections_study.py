"""What corrections do to false alarms and misses: on real tiles and on a drawn line where a harmless variant appears.

    python benchmarks/corrections_study.py

tile: fit on the shared magnetic tiles (39 training groups, about half of them held out), confirm every false alarm of
half of the test/good groups, and look at the other half before and after; repeated over random halves. Halves of one
data set share images, so the pooled interval is of one half; docs/corrections.md has the numbers, which are of
distances that are not weighed by position. variant: flanges get a dot of paint that no training part has; ten of them
are confirmed. --json FILE keeps everything.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from onceover import Corrections, Inspector, export
from onceover.images import list_images, write_image
from onceover.runtime.corrections import journal_path
from onceover.training.demo_parts import PRODUCTS
from onceover.training.demo_products import draw_part
from onceover.training.fit import FitOptions, fit

SHARED = Path(__file__).resolve().parents[2] / "shared"
CONFIDENCE = 0.95
FLANGE = next(product for product in PRODUCTS if product.name == "flange")


@dataclass(frozen=True)
class Effect:
    """Counts before and after. fresh: good parts that were not corrected. known: those that were confirmed."""

    name: str
    confirmed: int
    rows: int
    fresh: int
    alarms_before: int
    alarms_after: int
    defects: int
    missed_before: int
    missed_after: int
    threshold_before: float
    threshold_after: float
    calibration: str
    known_after: int


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """The exact interval of a binomial share, by bisection."""
    tail = (1 - CONFIDENCE) / 2

    def at_most(k: int, p: float) -> float:
        return math.fsum(math.comb(count, i) * p**i * (1 - p) ** (count - i) for i in range(k + 1))

    def solve(k: int, target: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > target else (low, middle)
        return (low + high) / 2

    lower = 0.0 if hits == 0 else solve(hits - 1, 1 - tail)
    return lower, 1.0 if hits == count else solve(hits, tail)


def correct(package: Path, name: str, line: Sequence[Path], fresh: Sequence[Path], defects: Sequence[Path]) -> Effect:
    """Every alarm of `line` is recorded, then confirmed; `fresh` and `defects` are only looked at."""
    journal_path(package).unlink(missing_ok=True)
    corrections = Corrections.open(package)
    with Inspector.open(package, corrections=corrections) as inspector:

        def flagged(paths: Sequence[Path]) -> int:
            return sum(inspector.inspect(path).decision == "anomalous" for path in paths)

        before = flagged(fresh), flagged(defects), float(inspector.calibration.threshold or math.inf)
        known = [path for path in line if inspector.inspect(path).decision == "anomalous"]
        for candidate in [corrections.propose(inspector, path)[0] for path in known]:
            corrections.confirm([candidate])
        applied = inspector.apply_corrections()
        return Effect(
            name=name, confirmed=len(known), rows=applied.added_rows, fresh=len(fresh), alarms_before=before[0],
            alarms_after=flagged(fresh), defects=len(defects), missed_before=len(defects) - before[1],
            missed_after=len(defects) - flagged(defects), threshold_before=before[2],
            threshold_after=float(inspector.calibration.threshold or math.inf), calibration=applied.calibration,
            known_after=flagged(known),
        )  # fmt: skip


def tile(folder: Path, cases: Sequence[tuple[float, bool]], halves: int, progress: Progress) -> list[Effect]:
    """cases: (rate, whether the six exposures of a tile are told to belong together)."""
    data = SHARED / "data" / "magnetic_tile"
    with (data / "groups.csv").open(newline="", encoding="utf-8") as file:
        group = {line["file"]: line["group"] for line in csv.DictReader(file)}
    good = sorted((data / "test" / "good").iterdir())
    groups = sorted({group[f"test/good/{path.name}"] for path in good})
    defects = [path for path in list_images(data / "test") if path.parent.name != "good"]
    effects = []
    for rate, grouped in cases:
        package = folder / f"tile_{rate:g}_{'groups' if grouped else 'images'}.onceover"  # a journal beside each
        told = data / "groups.csv" if grouped else None
        options = FitOptions(false_alarm_rate=rate, groups=told, position_weights=False)
        export.package(fit(data, options), package)
        case = f"tile, rate {rate:g}" + ("" if grouped else ", groups not told")
        for seed in progress.track(range(halves), description=case):
            chosen = set(np.random.default_rng(seed).permutation(groups)[: len(groups) // 2].tolist())
            line = [path for path in good if group[f"test/good/{path.name}"] in chosen]
            fresh = [path for path in good if path not in line]
            effects.append(correct(package, f"{case}, half {seed}", line, fresh, defects if seed == 0 else []))
    return effects


def painted(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A harmless dot of paint on a flange (H, W), not always at the same place, of the same size or tone."""
    generator = np.random.default_rng(seed)
    center = np.array([picture.shape[0] / 2 - 74, picture.shape[1] / 2]) + generator.normal(0, 3, 2)
    rows, columns = np.indices(picture.shape)
    distance = np.hypot(rows - center[0], columns - center[1])
    cover = np.clip(generator.uniform(7, 10) - distance, 0, 1)  # one pixel of soft edge
    tone = generator.normal(225, 6) + generator.normal(0, 3, picture.shape)
    return np.asarray(np.clip(np.rint(picture * (1 - cover) + tone * cover), 0, 255), np.uint8)


def variant(folder: Path, progress: Progress) -> list[Effect]:
    def draw(where: str, kind: str | None, count: int, paint: bool = False) -> list[Path]:
        paths = []
        (folder / where).mkdir(parents=True, exist_ok=True)
        for i in progress.track(range(count), description=f"drawing {where}"):
            picture = draw_part(FLANGE, kind, where, i).image
            paths.append(folder / where / f"{i:03d}.png")
            write_image(paths[-1], painted(picture, i) if paint else picture)
        return paths

    draw("flange/good", None, 120)
    line, fresh = draw("painted/line", None, 60, True), draw("painted/fresh", None, 60, True)
    defects = [path for kind in FLANGE.defects for path in draw(f"test/{kind}", kind, 15)]
    package = folder / "flange.onceover"
    export.package(fit(folder / "flange/good", FitOptions(false_alarm_rate=0.05, position_weights=False)), package)
    effects = []
    for count in (1, 3, 10, 30):
        with Inspector.open(package, corrections=None) as inspector:
            alarms = [path for path in line if inspector.inspect(path).decision == "anomalous"][:count]
        effects.append(correct(package, f"variant, {count} seen", alarms, fresh, defects))
    plain = draw("flange/more", None, 60)
    effects.append(correct(package, "variant, 10 seen; parts without it", alarms[:10], plain, []))
    return effects


def show(effects: Sequence[Effect], console: Console) -> None:
    table = Table("case", "confirmed", "rows", "false alarms before", "after", "missed before", "after", "threshold")
    for each in effects:
        table.add_row(
            each.name, f"{each.confirmed} ({each.known_after} still flagged)", str(each.rows),
            _share(each.alarms_before, each.fresh), _share(each.alarms_after, each.fresh),
            _share(each.missed_before, each.defects), _share(each.missed_after, each.defects),
            f"{each.threshold_before:.4f} → {each.threshold_after:.4f} ({each.calibration})",
        )  # fmt: skip
    console.print(table)


def _share(hits: int, count: int) -> str:
    if count == 0:
        return ""
    low, high = clopper_pearson(hits, count)
    return f"{hits}/{count} = {100 * hits / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halves", type=int, default=10)
    parser.add_argument("--rates", type=float, nargs="*", default=[0.05, 0.5])
    parser.add_argument("--rates-without-groups", type=float, nargs="*", default=[0.05])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("tile", "variant"))
    options = parser.parse_args()
    console = Console(width=200)
    effects: list[Effect] = []
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True)) as progress:
        if options.only != "variant" and (SHARED / "data" / "magnetic_tile").is_dir():
            cases = [(rate, True) for rate in options.rates] + [(rate, False) for rate in options.rates_without_groups]
            effects += tile(Path(scratch), cases, options.halves, progress)
        if options.only != "tile":
            effects += variant(Path(scratch), progress)
    show(effects, console)
    if options.json:
        kept: list[dict[str, Any]] = [asdict(each) for each in effects]
        options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
