"""Peak memory of metrics over a set that is read from disk image by image; bench_metrics.py starts it afresh each time.

    python benchmarks/peak_memory.py screw onceover        # or "adeval accumulator"; prints one line of JSON

Extra memory is the peak beyond what is resident after imports, a small first call, and one map with its mask loaded.
The peak is VmHWM of /proc/self/status: unlike ru_maxrss it starts anew with the program, not with its parent's peak.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anomaly_maps
import numpy as np
from anomaly_maps import Image

from onceover import _core, metrics

OURS = "onceover"
LIMITS = (0.3, 0.05)


def stream(name: str) -> Iterator[Image]:
    """Images of a set in two buffers that are used again; the files are mapped for one copy at a time."""
    paths = anomaly_maps.files(name)
    shapes = np.load(paths[2])
    sizes = shapes.prod(axis=1)
    buffers = [np.zeros(int(sizes.max()), dtype) for dtype in (np.float32, np.uint8)]
    start = 0
    for size, shape in zip(sizes.tolist(), shapes.tolist(), strict=True):
        for buffer, path in zip(buffers, paths[:2], strict=True):
            np.copyto(buffer[:size], np.load(path, mmap_mode="r")[start : start + size])
        start += size
        yield buffers[0][:size].reshape(shape), buffers[1][:size].reshape(shape)


def ours(images: Iterator[Image]) -> Any:
    first, second = itertools.tee(images)  # advanced together, so that each image is held once
    return metrics.segmentation_metrics((scores for scores, _ in first), (mask for _, mask in second), LIMITS)


def adeval(images: Iterator[Image], low: float, high: float) -> Any:
    from metric_peers import adeval_accumulator

    accumulator = adeval_accumulator(low, high)
    for scores, mask in images:
        accumulator.add_anomap(scores, mask)
    with np.errstate(all="ignore"):
        return accumulator.summary()


def resident(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status tells no {field}")


def measure(name: str, method: str) -> dict[str, Any]:
    if method == OURS:
        call, warm = ours, ours
    else:
        scores = anomaly_maps.mapped(name).maps
        call = partial(adeval, low=float(scores.min()), high=float(scores.max()))
        warm = partial(adeval, low=0.0, high=1.0)
        del scores  # and its pages
    rng = np.random.default_rng(0)
    warm(iter([(rng.random((32, 32), np.float32), np.eye(32, dtype=np.uint8))]))
    images = stream(name)
    first = next(images)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = resident("VmRSS")
    call(itertools.chain([first], images))
    return {"extra_bytes": max(0, resident("VmHWM") - before), "before_bytes": before}


def state_bytes(name: str) -> int:
    """What the state itself counts, once computed: meanwhile up to 2 MB of scores wait to be put into place."""
    state = _core.SegmentationState()
    for scores, mask in stream(name):
        state.update(scores, mask)
    state.compute([0.3])
    return int(state.state_bytes)


if __name__ == "__main__":
    found = measure(*sys.argv[1:3])
    if sys.argv[2] == OURS:
        found["state_bytes"] = state_bytes(sys.argv[1])
    print(json.dumps(found))
