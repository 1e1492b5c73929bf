"""What thresholds keep of their promise, where the truth is known: the tables of docs/calibration.md.

    python benchmarks/calibration_study.py            # split conformal: scores of known distributions
    python benchmarks/calibration_study.py cross      # cross-conformal: drawn parts, the product's own detector

Scores and exposures are those of tests/simulated_parts.py, where the fast version of this is asserted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

from onceover import MemoryBank
from onceover.detectors.detector import Detector, no_progress
from onceover.detectors.patchcore import BankSize, PatchCore
from onceover.training.calibrate import calibrate, required_parts, threshold_rank
from onceover.training.cross_conformal import cross_scores, fold_of_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from simulated_parts import (
    EXPOSURES,
    PARTS,
    Realised,
    binomial_bounds,
    realised,
    realised_of_exposures,
)

TRIALS = 4000
MISS = 1e-4  # of the bounds: how often a true rate lies outside
PATCHES, DIMS, RATIO = 36, 6, 0.25  # of drawn parts
FRESH = 200  # parts that each drawn calibration is tried on


def split_conformal(console: Console) -> None:
    """Mean rate, its spread and how often it is above what was asked for: n parts, known scores."""
    cases = [
        (name, n, alpha, confidence)
        for alpha, confidence in ((0.05, None), (0.01, None), (0.05, 0.95))
        for n in (20, 59, 100, 1000)
        for name in PARTS
        if n >= required_parts(alpha, confidence)
    ]
    columns = (
        "scores",
        "n",
        "asked",
        "mean rate",
        f"alarms of {TRIALS}",
        "allowed",
        "5 % to 95 % of draws",
        "Beta",
        "above",
    )
    table = _table("Split conformal", columns)
    with Progress(console=Console(stderr=True)) as progress:
        for name, n, alpha, confidence in progress.track(cases):
            found = realised(PARTS[name], n, alpha, confidence, TRIALS, np.random.default_rng([n, round(1 / alpha)]))
            a = n + 1 - threshold_rank(n, alpha, confidence)
            beta = stats.beta(a, n + 1 - a)
            asked = f"{alpha:.0%}" if confidence is None else f"{alpha:.0%} at {confidence:.0%}"
            low, high = binomial_bounds(TRIALS, a / (n + 1), MISS)
            allowed = f"{low}–{high}" if PARTS[name].continuous else f"≤ {high}"
            table.add_row(
                name, str(n), asked, *_row(found, allowed, f"{beta.ppf(0.05):.1%}–{beta.ppf(0.95):.1%}", alpha)
            )
    console.print(table)


def exposures(console: Console) -> None:
    """Six pictures of each part, alike: counted by part, and as if they were parts of their own."""
    columns = ("parts × pictures", "correlation", "counted as", "mean rate", f"alarms of {TRIALS}", "allowed")
    table = _table("Exposures of the same part, 5 % asked for", (*columns, "5 % to 95 % of draws", "above"))
    for n_parts, correlation, by_group in ((20, 0.9, True), (100, 0.9, True), (6, 0.9, False), (6, 0.98, False)):
        rng = np.random.default_rng(n_parts)
        found = realised_of_exposures(n_parts, correlation, 0.05, by_group, TRIALS, rng)
        counted = f"{n_parts} parts" if by_group else f"{n_parts * EXPOSURES} images"
        k = threshold_rank(n_parts, 0.05)
        high = binomial_bounds(TRIALS, (n_parts + 1 - k) / (n_parts + 1) if by_group else 0.05, MISS)[1]
        mean, alarms, allowed, spread, _, above = _row(found, f"≤ {high}", "", 0.05)
        table.add_row(f"{n_parts} × {EXPOSURES}", f"{correlation}", counted, mean, alarms, allowed, spread, above)
    console.print(table)


def cross_conformal(console: Console, trials: int) -> None:
    """Few parts, each scored by a bank of the others: the rate of the bank of all of them on new parts."""
    columns = ("parts", "calibrated by", "mean rate", "standard error", "5 % to 95 % of draws", "above")
    table = _table(f"Cross-conformal, 5 % asked for, {trials} draws of {FRESH} new parts each", columns)
    with Progress(console=Console(stderr=True)) as progress:
        for n in (19, 24, 37):
            crossed, leaky = [], []
            for trial in progress.track(range(trials), description=f"{n} parts"):
                rng = np.random.default_rng([n, trial])
                ours, own = _drawn_calibration(n, rng)
                crossed.append(ours)
                leaky.append(own)
            for name, rates in ((f"{n} banks of the others", crossed), ("a bank that has seen them", leaky)):
                values = np.array(rates)
                low, high = np.quantile(values, [0.05, 0.95])
                error = values.std(ddof=1) / np.sqrt(trials)
                above = f"{(values > 0.05).mean():.0%}"
                table.add_row(str(n), name, f"{values.mean():.1%}", f"{error:.1%}", f"{low:.1%}–{high:.1%}", above)
    console.print(table)


def _drawn_calibration(n: int, rng: np.random.Generator) -> tuple[float, float]:
    """False-alarm rates on FRESH new parts of the bank of n: calibrated across folds, and on the bank's own parts."""
    centers = rng.normal(size=(PATCHES, DIMS)) * 2  # what the product looks like, patch by patch

    def drawn(count: int) -> NDArray[np.float32]:  # (count, P, D): a part's own shift, and heavy-tailed detail
        own = rng.normal(size=(count, 1, DIMS)) * 0.4
        return (centers + own + rng.standard_t(4, size=(count, PATCHES, DIMS)) * 0.5).astype(np.float32)

    parts, fresh = drawn(n), drawn(FRESH)
    rows = BankSize(ratio=RATIO).resolve(n * PATCHES, DIMS)
    whole = _fitted(PatchCore(BankSize(rows=rows)), parts)

    def score(
        inside: NDArray[np.int64], count: int, outside: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = _scores(_fitted(PatchCore(BankSize(rows=count)), parts[inside]), parts[outside])
        return scores, scores

    crossed, _ = cross_scores(fold_of_images([str(i) for i in range(n)], n, 0), rows, score, no_progress)
    own, further = _scores(whole, parts), _scores(whole, fresh)
    rates = []
    for scores in (crossed, own):
        threshold = calibrate(scores, scores, None, 0.05).threshold
        assert threshold is not None
        rates.append(float((further > threshold).mean()))
    return rates[0], rates[1]


def _fitted(detector: PatchCore, parts: NDArray[np.float32]) -> PatchCore:
    detector.fit(np.ascontiguousarray(parts.reshape(-1, parts.shape[2])))
    return detector


def _scores(detector: Detector, parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) the largest distance of a patch to the bank, as the session scores."""
    distances, _ = MemoryBank.build(detector.state()["memory_bank"]).search(parts.reshape(-1, DIMS), 1)
    return np.asarray(distances, np.float32).reshape(len(parts), -1).max(axis=1)


def _row(found: Realised, allowed: str, beta: str, alpha: float) -> tuple[str, ...]:
    low, high = np.quantile(found.rates, [0.05, 0.95])
    above = f"{(found.rates > alpha).mean():.1%}"
    return f"{found.rates.mean():.2%}", str(found.alarms), allowed, f"{low:.1%}–{high:.1%}", beta, above


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("scores", "counted as", "calibrated by") else "right")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("split", "cross"), default="split")
    parser.add_argument("--trials", type=int, default=200, help="of cross (default: 200)")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 120)
    if options.what == "split":
        split_conformal(console)
        exposures(console)
    else:
        cross_conformal(console, options.trials)


if __name__ == "__main__":
    main()
