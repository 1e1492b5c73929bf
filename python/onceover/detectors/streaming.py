"""PatchCore's coreset for more patches than memory holds: a greedy selection of a sample, grown in one pass over all.

Not the plain algorithm, and labelled so: the rows are those of a net (csrc/scoring/streaming_coreset.h), whose radius
bounds how far any patch is from the bank. benchmarks/README.md has it beside the plain one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import PatchSource, Progress

SAMPLE_PATCHES = 1 << 18  # in memory at once; with less memory fewer, but at least …
LEAST_SAMPLE_PATCHES = 1 << 14
SAMPLE_PER_ROW = 4  # … and for every row of the bank so many, or the sample says nothing of the radius
LABEL = "greedy, streaming"


@dataclass(frozen=True)
class Streamed:
    """chosen: int64 (M,), rising, over all patches; rows: (M, D); samples: some patches that were not chosen."""

    chosen: NDArray[np.int64]
    rows: NDArray[np.float32]
    samples: NDArray[np.float32]
    covering_radius: float  # no patch is farther from the bank, in the projection


def least_sample(rows: int) -> int:
    """Patches that the sample must have for a bank of so many rows."""
    return max(LEAST_SAMPLE_PATCHES, SAMPLE_PER_ROW * rows)


def sample_images(image_count: int, wanted: int) -> NDArray[np.int64]:
    """Numbers of about `wanted` images, evenly spread: folders are often sorted by day or camera."""
    return np.unique(np.linspace(0, image_count - 1, min(wanted, image_count)).round().astype(np.int64))


@dataclass(frozen=True)
class Steps:
    """What the streaming selection shares with the plain one.

    project: (n, D) → (n, d), where distances are compared; greedy: selects of (n, d). keep(chosen, total): which others
    of `total` patches the search index is chosen by.
    """

    project: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    greedy: Callable[[NDArray[np.float32]], _core.GreedyCoreset]
    keep: Callable[[NDArray[np.int64], int], NDArray[np.int64]]


def select_from_stream(
    source: PatchSource, sample: NDArray[np.int64], count: int, steps: Steps, progress: Progress
) -> Streamed:
    """`count` of all patches, each image embedded once; sample: numbers of the images that come first, and together."""
    patches, seen = source.patches, 0

    def embed(image: int) -> NDArray[np.float32]:
        nonlocal seen
        embeddings = source.embed(image)
        seen += 1
        progress("patch embeddings", seen, source.image_count)
        return embeddings

    progress("patch embeddings", 0, source.image_count)
    first = np.empty((len(sample) * patches, source.dim), np.float32)
    for i, image in enumerate(sample.tolist()):
        first[i * patches : (i + 1) * patches] = embed(image)
    ids = (sample[:, None] * patches + np.arange(patches)).ravel()  # (S·P,)
    points = steps.project(first)
    selection = steps.greedy(points)
    seeds = selection.selected
    coreset = _core.StreamingCoreset(points[seeds], ids[seeds], selection.covering_radius, count)
    rows = dict(zip(ids[seeds].tolist(), first[seeds], strict=True))
    others = steps.keep(seeds, len(first))
    spare = dict(zip(ids[others].tolist(), first[others], strict=True))
    del first, points, selection

    pruned = len(rows)
    in_sample = set(sample.tolist())
    for image in range(source.image_count):
        if image in in_sample:
            continue
        embeddings = embed(image)
        numbers = np.arange(image * patches, (image + 1) * patches)
        for taken in coreset.add(steps.project(embeddings), numbers).tolist():
            rows[image * patches + taken] = embeddings[taken].copy()  # a view would keep the whole image
        if len(rows) > pruned + pruned // 4 + patches:
            rows = {number: rows[number] for number in coreset.held().tolist()}
            pruned = len(rows)
    chosen = coreset.selected()
    bank = np.stack([rows[number] for number in chosen.tolist()])
    for number in chosen.tolist():
        spare.pop(number, None)
    samples = np.array(list(spare.values()), np.float32).reshape(-1, source.dim)
    return Streamed(chosen, bank, samples, float(coreset.covering_radius))


def gather(
    source: PatchSource, chosen: NDArray[np.int64], others: NDArray[np.int64], progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The patches `chosen` and `others`, (M, D) and (n, D) in their order, in one pass over all images."""
    wanted = np.concatenate([chosen, others])
    out = np.empty((len(wanted), source.dim), np.float32)
    order = np.argsort(wanted, kind="stable")
    image_of = wanted[order] // source.patches
    progress("patch embeddings", 0, source.image_count)
    for image in range(source.image_count):
        embeddings = source.embed(image)
        places = order[np.searchsorted(image_of, image) : np.searchsorted(image_of, image, side="right")]
        out[places] = embeddings[wanted[places] - image * source.patches]
        progress("patch embeddings", image + 1, source.image_count)
    return out[: len(chosen)], out[len(chosen) :]
