"""Calibration where parts are too few to hold any out: k banks, each without one fold, score that fold.

Cross-conformal prediction, Vovk 2015 (Annals of Mathematics and Artificial Intelligence 74); as CV+ in Barber, Candès,
Ramdas and Tibshirani 2021, arXiv:1905.02928. Every part is scored by a bank that has not seen it; all n scores make the
threshold, and the package keeps the bank of all parts. What is proven is weaker than for parts held out: a further part
that is scored by the k banks raises an alarm with probability at most `proven_rate`, 2α where every part is a fold,
though about α is what is usually measured (docs/calibration.md). The bank of all parts knows more than any of the k, so
its scores tend to be lower: fewer alarms. That is measured, not proven, because each bank has a coreset of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onceover.detectors.detector import Progress
from onceover.training.calibrate import plan_holdout, required_groups

MAX_FOLDS = 40  # where 5 % is asked for, parts are fewer, and each is a fold of its own
Scores = tuple[NDArray[np.float32], NDArray[np.float32]]  # image scores and largest map values, (n,) each


def planned_folds(n_groups: int, alpha: float, holdout: float | int | None) -> int:
    """How many folds score each other; 0 where parts are held out, or are too few for that, too.

    Never where the user said how many to hold out. The promise takes as many parts as a split would: n ≥ 1/α − 1.
    """
    required = required_groups(alpha)
    if holdout is not None or not max(required, 2) <= n_groups or plan_holdout(n_groups, alpha, False) >= required:
        return 0
    return min(MAX_FOLDS, n_groups)


def proven_rate(n_groups: int, folds: int, alpha: float) -> float:
    """What the false-alarm rate cannot exceed, on average over calibrations: theorem 4 of Barber et al. 2021."""
    size = n_groups / folds
    return 2 * alpha + min(2 * (1 - 1 / folds) / (size + 1), (1 - 1 / size) / (folds + 1))


def fold_of_images(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each image: whole groups, dealt out by `seed`.

    Groups count in order of appearance, so that their names do not matter. PCG64's raw stream is the same in every
    version of numpy.
    """
    names = list(dict.fromkeys(groups))
    order = np.argsort(np.random.PCG64(seed).random_raw(len(names)), kind="stable")
    fold_of = {names[group]: rank % folds for rank, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups], np.int64)


def cross_scores(
    fold_of: NDArray[np.int64],
    bank_rows: int,
    score: Callable[[NDArray[np.int64], int, NDArray[np.int64]], Scores],
    progress: Progress,
) -> Scores:
    """Image scores and largest map values (n,) of n images, each by a bank without its fold.

    fold_of: (n,). score(inside, count, outside): of the images `outside`, by a bank of `count` rows of the images
    `inside`, all others; it has as many for each patch as the bank of all, which has bank_rows.
    """
    images = len(fold_of)
    scores, maxima = np.zeros(images, np.float32), np.zeros(images, np.float32)
    done = 0
    for fold in range(int(fold_of.max()) + 1):
        inside, outside = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        count = max(1, round(bank_rows * len(inside) / images))
        scores[outside], maxima[outside] = score(inside, count, outside)
        done += len(outside)
        progress("calibration", done, images)
    return scores, maxima


__all__ = ["MAX_FOLDS", "cross_scores", "fold_of_images", "planned_folds", "proven_rate"]
