"""Speed of exported backbones: ms in ONNX Runtime and OpenVINO, beside MobileNetV2 and beside straightforward exports.

    python benchmarks/bench_backbones.py                         the table of all backbones at 256 x 256
    python benchmarks/bench_backbones.py --plain                 EMO-1M and TinyViT-5M as their papers' code exports
    python benchmarks/bench_backbones.py --profile tinyvit_5m    where the time goes, by kind of node

Random weights (the time does not depend on them), stages of stride 8 and 16 with the patch embedding behind them, one
image, one thread, all graphs and engines in one loop; medians of process CPU time, with wall time beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from reporting import machine, wide_console
from rich.console import Console
from rich.table import Table
from straightforward import straightforward
from suite.recording import Cell, Measured, Recorder
from torch import nn

from onceover import registry
from onceover.backbones import best_window, create_backbone, has_windows
from onceover.backbones.backbone import Backbone
from onceover.backbones.cost import count_cost
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.export.to_onnx import INPUT_NAME, OPSET, export_module, untrained

ENGINES = {"onnxruntime": "ORT", "openvino": "OV"}
GRAPHS = Path(__file__).resolve().parents[1] / "build" / "bench_graphs"
YARDSTICK = "mobilenetv2_w100"
SAME_AS_ANOTHER = {"mobilenetv2_050"}  # mobilenetv2_w050 with other normalization
PLAIN = ("emo_1m", "tinyvit_5m")
SOME = ("emo_1m", "mobilenetv4_conv_small", "mobilenetv2_w050", "resnet18", "tinyvit_5m", "repvit_m0_9")  # `make bench`
Image = NDArray[np.float32]
Run = Callable[[Image], Any]


def network(name: str, window: int | None) -> Backbone:
    return create_backbone(name, None, random_init_seed=0, window=window)


def kept(label: str, size: int, make: Callable[[], bytes]) -> Path:
    """The graph of this label; made once and kept in build/, as an export takes seconds."""
    path = GRAPHS / f"{label.replace(' ', '_')}_{size}_opset{OPSET}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    return path


def exported(module: nn.Module, size: int) -> bytes:
    """As torch exports it, not cleaned."""
    model = export_module(module.eval(), (torch.zeros(1, 3, size, size),), [INPUT_NAME])
    return bytes(model.SerializeToString())


def ours(name: str, size: int, window: int | None = None) -> Path:
    """As `onceover export backbone` writes it."""
    return kept(f"{name} w{window}", size, lambda: untrained(name, size, size, window))


def plain(name: str, size: int, window: int) -> Path:
    """As torch exports the published order of operations, nothing folded; checked to compute the same."""
    backbone = network(name, window)
    other = straightforward(backbone)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs = list(zip(backbone(image), other(image), strict=True))
    assert all((a - b).abs().max() < 1e-5 * a.abs().max() for a, b in pairs)
    return kept(f"{name} plain w{window}", size, lambda: exported(PatchEmbedding(other), size))


def in_onnxruntime(path: Path, profile: bool = False) -> tuple[Run, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = profile
    options.profile_file_prefix = str(GRAPHS / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return (lambda image: session.run(None, {INPUT_NAME: image})), session


def in_openvino(path: Path, profile: bool = False) -> tuple[Run, Any]:
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": profile}
    request = openvino.Core().compile_model(str(path), "CPU", hints).create_infer_request()
    return (lambda image: request.infer([image])), request


LOADERS = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


def measured(paths: Sequence[Path], size: int, rounds: int) -> dict[tuple[Path, str], tuple[float, float]]:
    """(graph, engine) → median CPU and wall ms; a round runs every graph in every engine once."""
    image = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    runs = {(path, engine): LOADERS[engine](path)[0] for path in paths for engine in ENGINES}
    times: dict[tuple[Path, str], list[tuple[float, float]]] = {key: [] for key in runs}
    for key, run in runs.items():
        for _ in range(2):
            run(image)
        assert times[key] == []
    for _ in range(rounds):
        for key, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run(image)
            times[key].append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    return {
        key: (statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for key, found in times.items()
    }


def table_of_all(names: Sequence[str], size: int, rounds: int) -> list[dict[str, Any]]:
    """One row per backbone."""
    names = [*names, *([] if YARDSTICK in names else [YARDSTICK])]
    paths = {name: ours(name, size) for name in names}
    times = measured(list(paths.values()), size, rounds)
    rows = []
    for name, path in paths.items():
        cost = count_cost(name, size, size)
        row: dict[str, Any] = {"backbone": name, "params M": round(cost.parameters / 1e6, 2)}
        row["MACs M"] = round(cost.macs / 1e6)
        row["window"] = best_window(size, size) if has_windows(name) else None
        for engine in ENGINES:
            cpu, wall = times[path, engine]
            short = ENGINES[engine]
            row |= {f"{short} ms": round(cpu, 2), f"{short} wall": round(wall, 2)}
            row[f"{short} / MNv2"] = round(cpu / times[paths[YARDSTICK], engine][0], 3)
        rows.append(row)
    return rows


def beside_plain(size: int, rounds: int) -> list[dict[str, Any]]:
    """Ours beside the straightforward export of the published window, by engine, and better engine to better engine."""
    rows = []
    for name in PLAIN:
        graphs = {f"plain, window {w}": plain(name, size, w) for w in (7, 8)}
        graphs |= {f"ours, window {w}": ours(name, size, w) for w in (7, 8)}
        times = measured(list(graphs.values()), size, rounds)
        start = {engine: times[graphs["plain, window 7"], engine][0] for engine in ENGINES}
        for label, path in graphs.items():
            found = {engine: times[path, engine][0] for engine in ENGINES}
            row = {"backbone": name, "graph": label}
            row |= {f"{short} ms": round(found[engine], 1) for engine, short in ENGINES.items()}
            row |= {f"{short} ×": round(start[engine] / found[engine], 2) for engine, short in ENGINES.items()}
            row["better engine ×"] = round(min(start.values()) / min(found.values()), 2)
            rows.append(row)
    return rows


def profile(name: str, size: int, runs: int = 20) -> list[dict[str, Any]]:
    """ms by kind of node in both engines, and the same products as one large matrix product would take."""
    path, image = ours(name, size), np.zeros((1, 3, size, size), np.float32)
    run, session = in_onnxruntime(path, profile=True)
    for _ in range(runs):
        run(image)
    log = Path(session.end_profiling())
    kinds: Counter[tuple[str, str]] = Counter()
    for event in json.loads(log.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kinds["onnxruntime", event["args"]["op_name"]] += event["dur"] / 1e3 / runs
    log.unlink()
    run, request = in_openvino(path, profile=True)
    for _ in range(runs):
        run(image)
        for node in request.profiling_info:
            kinds["openvino", node.node_type] += node.real_time.total_seconds() * 1e3 / runs
    bound = count_cost(name, size, size).macs / 1e6 / product_rate()
    kinds["bound", "multiply-accumulates at the rate of a large matrix product"] = bound
    return [
        {"engine": engine, "node": node, "ms": round(ms, 2)} for (engine, node), ms in kinds.most_common() if ms > 0.05
    ]


def product_rate() -> float:
    """Million multiply-accumulates per ms of this machine, one thread, the best of 30 products of 1024^3."""
    torch.set_num_threads(1)
    a = torch.ones(1024, 1024)
    best = float("inf")
    for _ in range(30):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 1024**3 / 1e6 / (1e3 * best)


def show(rows: Sequence[dict[str, Any]], console: Console, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [name for name in registry.BACKBONES if name not in SAME_AS_ANOTHER]
    parser.add_argument("names", nargs="*", default=everything, help="default: all")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--profile", metavar="NAME")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    console = wide_console()
    console.print(machine(("onnxruntime", "openvino", "torch")), markup=False, highlight=False)
    with console.status("exporting and measuring"):
        if options.profile:
            rows = profile(options.profile, options.size)
        elif options.plain:
            rows = beside_plain(options.size, options.rounds)
        else:
            rows = table_of_all(options.names, options.size, options.rounds)
    show(rows, console, f"{options.size} x {options.size}, one image, one thread, CPU ms (median)")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def bench_exported_backbones(record: Recorder, size: int = 256) -> None:
    """A few of all; graphs are exported once and kept in build/."""
    names = record.choose(SOME, ("mobilenetv2_w035", YARDSTICK))
    rows = table_of_all(names, size, record.choose(5, 1))
    title = f"Exported backbones at {size} × {size}, one image, one thread, CPU ms; ×: times MobileNetV2 1.0 there"
    for row in rows:
        cells: dict[str, Cell] = {"MACs M": row["MACs M"], "window": row["window"] or ""}
        for engine, short in ENGINES.items():
            cells[f"{engine} ms"] = Measured(row[f"{short} ms"])
            if row["backbone"] != YARDSTICK:
                cells[f"{engine} ×"] = Measured(row[f"{short} / MNv2"])
        record.row(title, row["backbone"], cells)


if __name__ == "__main__":
    main()
