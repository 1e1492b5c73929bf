"""A plain ONNX file beside the package it was made of: process CPU and wall ms per image, one thread, methods in turn.

    python benchmarks/bench_plain_onnx.py

Embedded backbone at 256 × 256 on a drawn product, 10,000 bank rows: 1024 patches of 128 values. The session decodes
nothing but also prepares the image; the plain graphs get a prepared one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
from numpy.typing import NDArray

from onceover import _core, export
from onceover.detectors import BankSize
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.images import list_images, read_image
from onceover.runtime.session import open_session
from onceover.training.demo_products import draw_products
from onceover.training.fit import FitOptions, fit

BANK_ROWS, ROUNDS = 10_000, 25
LIMITS = (20, 21, 22, 24)  # of max_elements, as powers of two
Call = Callable[[], Any]


def onnxruntime_call(path: Path, given: NDArray[np.float32]) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: given})


def openvino_call(path: Path, given: NDArray[np.float32]) -> Call:
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(str(path), "CPU", hints).create_infer_request()
    return lambda: request.infer([given])


def in_turn(calls: dict[str, Call]) -> dict[str, tuple[float, float]]:
    """Median CPU and wall milliseconds over A B C A B C …; OpenVINO works in a thread of its own, so of the process."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            before = time.process_time(), time.perf_counter()
            call()
            spent[name].append((time.process_time() - before[0], time.perf_counter() - before[1]))
    medians = {name: np.median(np.array(samples[1:]), axis=0) * 1e3 for name, samples in spent.items()}
    return {name: (float(cpu), float(wall)) for name, (cpu, wall) in medians.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        product = draw_products(root / "data", seed=0)[0]
        options = FitOptions(bank=BankSize(rows=BANK_ROWS), coreset="random")
        export.package(fit(product / "train" / "good", options), root / "part.onceover")
        image = read_image(list_images(product / "test")[0])
        package = _core.Package.open(str(root / "part.onceover"))
        session = open_session(package)
        config = session.config
        given = _core.prepare(image, config.height, config.width, config.mean, config.std)[None]
        (root / "network.onnx").write_bytes(package.read("graph.onnx"))
        calls: dict[str, Call] = {
            "session": lambda: session.run(image),
            "network alone, onnxruntime": onnxruntime_call(root / "network.onnx", given),
            "network alone, openvino": openvino_call(root / "network.onnx", given),
        }
        for power in LIMITS:
            path = root / f"plain{power}.onnx"
            write_plain_onnx(root / "part.onceover", path, max_elements=2**power)
            calls[f"plain 2^{power}, onnxruntime"] = onnxruntime_call(path, given)
            calls[f"plain 2^{power}, openvino"] = openvino_call(path, given)
        print(f"{session.bank_rows} rows, {_core.isa()}, onnxruntime {onnxruntime.__version__}, {openvino.__version__}")
        for name, (cpu, wall) in in_turn(calls).items():
            print(f"{name:30} {cpu:6.1f} ms CPU {wall:6.1f} ms wall")


if __name__ == "__main__":
    main()
