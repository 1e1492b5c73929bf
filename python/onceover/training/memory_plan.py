"""What a fit will cost in memory and time, told before it starts, and whether patches must pass as a stream.

The memory model is a sum over what is held at the same time; benchmarks/fit_memory.py compares it with measured peaks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onceover import _core
from onceover.detectors.patchcore import DEFAULT_PROJECTION_DIM
from onceover.detectors.streaming import SAMPLE_PATCHES, least_sample
from onceover.errors import MemoryLimitError
from onceover.images import read_image
from onceover.runtime.assemble import config_of
from onceover.training.adapter import CHECKS, LEARNING_MATRICES
from onceover.training.adapting import MAX_JUDGED, MAX_MOVES, NEIGHBORS, VIEWS
from onceover.training.calibration_patches import MAX_BYTES, TRACKED
from onceover.training.image_patches import naming
from onceover.training.machine_memory import resident_bytes, return_freed_memory
from onceover.training.position_weights import FOLDS, IMAGES
from onceover.types import GraphSpec

_GREEDY_BYTES = 17  # of csrc/scoring/coreset.h, per patch
_HELD_PER_ROW = 4  # rows of all nets together, per row of the bank: 2 to 3 were seen
_HELD_BYTES = 400  # beside the row itself and its projection
# Building the search index, a dimension: always, a row of the first 4,096, by which directions are found, any row.
_INDEX_BYTES, _INDEX_FITTED_ROWS = (16_000, 25, 3), 4096
_PACKAGE_COPIES = 4  # of graph and bank while a package is made and verified
_PACKING = 12 << 20  # an engine that opens for that takes so much more than one that runs
_INDEX_ROW_BYTES = 270  # search index and neighbors
_IMAGE_BYTES = 2_000  # names, hashes and the manifest, per image
_TOUCHED = 0.06  # share of an image's patches that drawn damage moves; 0.03 was seen
_DRAWING_BYTES = (150, 30)  # a pixel: of a material, which is a square, and of the image
_DRAWN = 24 << 20  # what stays in the process once damage was drawn and learned from: fonts, buffers of linear algebra
_FRAMES = 2.5  # images while one is read: as it is decoded, as RGB, and the one before
_CONSTANT = 9 << 20

# Seconds on a machine that takes _REFERENCE_S for the greedy selection that `_machine_factor` measures.
_REFERENCE_S = 0.0097
_GREEDY_S = (2.1e-8, 1.7e-7)  # times N·√k, k·√N
_STREAM_S = (3e-6, 7e-8)  # per patch: always, times √k
_SEARCH_S = 5e-10  # times patches · rows
_INDEX_S = 2e-5  # per row
_ADAPTING_S = (1.2e-3, 2.6e-6)  # times D, D²: learning a matrix; judging one takes twice as much
_DRAWING_S = 0.008  # one image of damage
_FINISH_S = 1.0  # parity, package, verification

REFIT_REMEDY = "allow more with --max-memory, free some, or refit on a machine that has more"
_FIT_REMEDY = (
    "allow more with --max-memory, or need less: fewer bank rows (--bank-rows), a smaller --size, a smaller network"
)
THUMBNAIL_PIXEL_BYTES = 0.5  # of a grainy picture as a JPEG of quality 90; most take less
_PROBES = 4  # images that tell what one takes


@dataclass(frozen=True)
class Probe:
    """What this machine takes. base_bytes: the process with its engine open; image_s: read and embed an image."""

    base_bytes: int
    image_s: float
    factor: float = 1.0  # how much slower than the reference selections run here
    open_s: float = 0.0  # to open the engine
    frame_bytes: int = 0  # beside that while an image is read, which stay in hand


@dataclass(frozen=True)
class FitSize:
    """What a fit is about. stored_bytes: of the graph and of pictures in the package.

    greedy: the coreset compares patches, so it needs all of them, or a sample and a stream.
    """

    bank_images: int
    calibration_images: int
    rows: int
    stored_bytes: int
    greedy: bool = True
    image_patches: int | None = None  # that are learned from, of an image; None: those of the network
    adapting_images: int = 0  # that tell how to adapt to the product; 0: it is not learned
    adapted: bool = False  # by a matrix, whether it is learned or was there before
    refit: bool = False  # of a package, which decides what a fit may choose
    folds: int = 0  # for each of which that is done again
    weighs_positions: bool = False  # good parts are compared with banks of the others
    tiles: int = 1  # of an image
    map_size: tuple[int, int] = (256, 256)  # height and width that damage is drawn in


@dataclass(frozen=True)
class MemoryPlan:
    """peak_bytes, seconds: what fit will take. plain_bytes: the peak with all patches in memory at once.

    streaming: patches pass one image at a time, but for those of sample_images. limit_bytes: None for no limit.
    """

    peak_bytes: int
    plain_bytes: int
    seconds: float
    streaming: bool
    sample_images: int
    limit_bytes: int | None
    limit_source: str


def probe(spec: GraphSpec, graph: bytes, engine: _core.EngineOptions, images: Sequence[Path]) -> Probe:
    """Opens the engine as fit will and embeds a few images, evenly spread."""
    start = time.perf_counter()
    embedder = _core.Embedder(config_of(spec, 0.0), graph, engine)
    opened = time.perf_counter() - start
    spread = np.linspace(0, len(images) - 1, min(_PROBES, len(images))).round().astype(int)
    times, largest = [], 0
    with naming(images[0]):
        embedder.embed(read_image(images[0]))  # the first run of an engine is slower
    for i in spread.tolist():
        start = time.perf_counter()
        image = read_image(images[i])
        with naming(images[i]):
            embedder.embed(image)
        times.append(time.perf_counter() - start)
        largest = max(largest, image.nbytes)
    del image
    return_freed_memory()  # or the images of the probe would count twice
    frames = int(_FRAMES * largest)
    return Probe(resident_bytes(), float(np.median(times)), _machine_factor(), opened, frames)


def plan_memory(spec: GraphSpec, size: FitSize, limit: tuple[int | None, str], found: Probe) -> MemoryPlan:
    """What a fit will cost; patches are held where the limit allows it, else they pass as a stream.

    Raises MemoryLimitError with what it would take when even a stream needs more than `limit`.
    """
    patches = spec.grid_height * spec.grid_width if size.image_patches is None else size.image_patches
    dim = spec.embedding_dim
    rows, greedy, images = size.rows, size.greedy, size.bank_images + size.calibration_images
    total = size.bank_images * patches
    matrix = 4 * dim**2 if size.adapting_images or size.adapted else 0  # by which embeddings are adapted
    process = found.base_bytes + _CONSTANT + _IMAGE_BYTES * images + (_DRAWN if size.adapting_images else 0)
    process += matrix * (1 + size.folds)  # held from when they are learned to the end of the fit
    base = process + found.frame_bytes
    index = _index_bytes(spec, rows)
    package = _PACKING + _PACKAGE_COPIES * (size.stored_bytes + matrix + rows * (4 * dim + _INDEX_ROW_BYTES))
    held_out = size.calibration_images * (8 * patches + TRACKED * 4 * (dim + 1))  # what a package remembers of them
    package += _PACKAGE_COPIES * held_out if held_out <= MAX_BYTES else MAX_BYTES  # too much is let go
    projected = 4 * min(DEFAULT_PROJECTION_DIM, dim) if greedy and dim > DEFAULT_PROJECTION_DIM else 0
    selecting = (projected + _GREEDY_BYTES) if greedy else 8
    bank = rows * 4 * dim
    # A fold's rows and their index, beside the bank's.
    weighing = int((1 - 1 / FOLDS) * (bank + index)) if size.weighs_positions else 0
    weighing += bank if weighing and size.folds else 0  # of folds that score each other, beside that of all
    # Over before patches are held.
    adapting = process + _adapting_bytes(spec, size, patches, found.frame_bytes) if size.adapting_images else 0

    def peak(held: int) -> int:
        """With so many patches in memory at once."""
        beside = max(
            held * selecting, bank + index + weighing, (package - _PACKING) // 2 if size.folds else 0
        )  # of folds
        return max(adapting, base + max(held * 4 * dim + beside, package))

    kept = _HELD_PER_ROW * rows * (4 * dim + 2 * projected + _HELD_BYTES) if greedy else bank

    def streaming_peak(sample: int) -> int:
        after = kept // 4 + max(bank + index, package)  # small arrays leave gaps that are not all filled or given back
        return max(adapting, peak(sample) if greedy else 0, base + max(kept + bank, after))

    limit_bytes, source = limit
    plain = needed = peak(total)
    streaming, sample = False, total if greedy else 0
    if limit_bytes is not None and plain > limit_bytes:
        least = least_sample(rows)
        sample = max(SAMPLE_PATCHES, least) if greedy else 0
        while sample > least and streaming_peak(sample) > limit_bytes:
            sample = max(least, sample // 2)
        streaming = sample < total
        needed = min(plain, streaming_peak(sample)) if streaming else plain
        if needed > limit_bytes:
            raise MemoryLimitError(
                f"{'a refit' if size.refit else 'fit'} needs {over_limit(needed, limit_bytes, source)}; "
                + (REFIT_REMEDY if size.refit else _FIT_REMEDY + (", or --no-adapt" if size.adapting_images else ""))
                + (", or smaller images" if found.frame_bytes > needed // 4 else "")
            )
    select_s = _GREEDY_S[0] * sample * rows**0.5 + _GREEDY_S[1] * rows * sample**0.5 if greedy else 0.0
    if streaming and greedy:
        select_s += (total - sample) * (_STREAM_S[0] + _STREAM_S[1] * rows**0.5)
    search_s = size.calibration_images * patches * rows * _SEARCH_S
    index_s = _INDEX_S * rows * dim / 128
    bank_s = select_s + index_s
    seconds = images * found.image_s + found.factor * (bank_s + search_s) + _FINISH_S
    seconds += size.folds * (found.factor * bank_s + found.open_s)  # a bank and a session of its own for each
    if size.weighs_positions:
        compared = min(size.bank_images, IMAGES)
        seconds += (1 + size.folds) * found.factor * (FOLDS * index_s + compared * patches * rows * _SEARCH_S)
        seconds += compared * found.image_s if streaming else 0.0
    if size.adapting_images:
        views = size.adapting_images * VIEWS
        learning = _ADAPTING_S[0] * dim + _ADAPTING_S[1] * dim**2
        seconds += (size.adapting_images + views) * found.image_s
        seconds += found.factor * (views * _DRAWING_S + (1 + 3 * CHECKS + size.folds) * learning)
    return MemoryPlan(
        peak_bytes=needed,
        plain_bytes=plain,
        seconds=seconds,
        streaming=streaming,
        sample_images=-(-sample // patches),
        limit_bytes=limit_bytes,
        limit_source=source,
    )


def _adapting_bytes(spec: GraphSpec, size: FitSize, patches: int, frame: int) -> int:
    """What `training.adapting` takes: patches and moves of the images, and drawing, or learning from them after it.

    frame: bytes while an image is read. Matrices that stay count elsewhere.
    """
    row, images = 4 * spec.embedding_dim, size.adapting_images
    compared = min(2 * NEIGHBORS, images * patches)
    touched = min(patches, int(_TOUCHED * spec.grid_height * spec.grid_width * size.tiles))
    moves = min(MAX_MOVES, images * VIEWS * touched)
    height, width = size.map_size
    drawing = frame + _DRAWING_BYTES[0] * max(height, width) ** 2 + _DRAWING_BYTES[1] * height * width
    # A fold of them, all others, their index, and differences to the nearest.
    learning = int(row * compared * (1 + 1 / CHECKS)) + _index_bytes(spec, compared - compared // CHECKS)
    matrix = 8 * spec.embedding_dim**2  # one is checked on parts while these are compared
    judged = min(moves, images * VIEWS * MAX_JUDGED)
    return row * (compared + moves + judged) + max(drawing, learning + matrix, LEARNING_MATRICES * matrix)


def _index_bytes(spec: GraphSpec, rows: int) -> int:
    """Building a search index of rows."""
    always, first, any_row = _INDEX_BYTES
    return spec.embedding_dim * (always + first * min(rows, _INDEX_FITTED_ROWS) + any_row * rows)


def megabytes(size: int) -> str:
    """For people: 412 MB, 1.6 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def over_limit(needed: int, limit: int, source: str) -> str:
    """For people: how much does not fit into what. One unit for both, and one in which they differ."""
    texts = megabytes(needed), megabytes(limit)
    if texts[0] == texts[1] or texts[0][-2:] != texts[1][-2:]:
        texts = f"{-(-needed // 10**6)} MB", f"{limit // 10**6} MB"
    return f"about {texts[0]} of memory; the limit is {texts[1]} ({source})"


def _machine_factor() -> float:
    points = np.random.Generator(np.random.PCG64(0)).standard_normal((4096, 32), np.float32)
    start = time.perf_counter()
    _core.GreedyCoreset(points, 0).select(1024)
    return (time.perf_counter() - start) / _REFERENCE_S


__all__ = ["REFIT_REMEDY", "FitSize", "MemoryPlan", "Probe", "megabytes", "plan_memory", "probe"]
