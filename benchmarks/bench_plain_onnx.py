"""A plain ONNX file beside the package it was made of: process CPU ms per image, one thread, methods in turn.

    python -m pytest -q benchmarks/bench_plain_onnx.py

Embedded backbone at 256 × 256 on a drawn product, 10,000 bank rows: 1024 patches of 128 values. The session decodes
nothing but also prepares the image; the plain graphs get a prepared one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
from bench_latency import fitted, product
from numpy.typing import NDArray
from suite.recording import Cell, Measured, Recorder

from onceover import _core
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.images import list_images, read_image
from onceover.runtime.session import open_session

BANK_ROWS, ROUNDS = 10_000, 5
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


def in_turn(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds over A B C A B C …; OpenVINO works in a thread of its own, so of the process."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            spent[name].append(time.process_time() - start)
    return {name: 1e3 * float(np.median(samples[1:])) for name, samples in spent.items()}


def bench_plain_onnx(record: Recorder) -> None:
    rows = record.choose(BANK_ROWS, 200)
    data = product(record)
    path = fitted(record, data, rows)
    image = read_image(list_images(data / "test")[0])
    package = _core.Package.open(str(path))
    session = open_session(package)
    config = session.config
    given = _core.prepare(image, config.height, config.width, config.mean, config.std)[None]
    network = record.once("network.onnx", lambda file: file.write_bytes(package.read("graph.onnx")))
    engines = {"ONNX Runtime": onnxruntime_call, "OpenVINO": openvino_call}
    calls: dict[str, Call] = {"session": lambda: session.run(image)}
    calls |= {f"network alone, {engine}": call(network, given) for engine, call in engines.items()}
    for power in LIMITS:
        plain = record.once(
            f"plain-{power}.onnx", lambda file, power=power: write_plain_onnx(path, file, max_elements=2**power)
        )
        of_all = f"plain, at most 2^{power} elements"
        calls |= {f"{of_all}, {engine}": call(plain, given) for engine, call in engines.items()}
    found = in_turn(calls, record.choose(ROUNDS, 1))
    title = f"A session and plain ONNX files of the same package, {rows:,} rows × 128, one thread, ms"
    for name, cpu in found.items():
        cells: dict[str, Cell] = {"CPU ms": Measured(cpu)}
        if name != "session":
            cells["× session"] = Measured(cpu / found["session"])
        record.row(title, name, cells)
