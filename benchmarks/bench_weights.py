"""What our weights are worth: plain PatchCore at 256 on real and drawn products, beside the teacher and random weights.

    python benchmarks/bench_weights.py                        the embedded backbones, the teacher, random weights
    python benchmarks/bench_weights.py --also emo_1m=FILE     and other weights

The plain PatchCore of the reproduction run (bench_accuracy.py): every train/good image, random 10 % bank, pixel metrics
at 256, mean over seeds. ms: preparation and network in our session, median, one thread, all in turns. Real: magnetic
tile and PCB. Drawn: two products of the demo, whose drawings no training saw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_accuracy import METRICS, reproduction
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceover.export.to_onnx import export_backbone, untrained
from onceover.registry import COSTS
from onceover.runtime.graph import EMBEDDED, load_graph, resize
from onceover.runtime.latency import LatencyMeter, Network
from onceover.training.demo_products import Counts, draw_products

SHARED = Path(__file__).resolve().parents[2] / "shared"
TEACHER = SHARED / "weights" / "mobilenetv2_imagenet.safetensors"
REAL, DRAWN = ("magnetic_tile", "pcb"), ("fabric", "flange")
SIDE = 256


@dataclass(frozen=True)
class Contestant:
    """A graph at 256 and where its weights are from."""

    label: str
    architecture: str
    graph: Path


def contestants(folder: Path, others: dict[str, Path]) -> list[Contestant]:
    found = []
    for name in EMBEDDED:
        path = folder / f"{name}.onnx"
        path.write_bytes(resize(*load_graph(name), SIDE, SIDE)[0])
        found.append(Contestant(f"{name}, embedded", name, path))
    for name, weights in {"mobilenetv2": TEACHER, **others}.items():
        path = folder / f"{name}_{weights.stem}.onnx"
        label = f"{name}, {'the teacher' if weights == TEACHER else weights.stem}"
        found.append(Contestant(label, name, export_backbone(name, weights, path, SIDE, SIDE)))
    for name in dict.fromkeys((*EMBEDDED, *others)):
        path = folder / f"{name}_random.onnx"
        path.write_bytes(untrained(name, SIDE, SIDE))
        found.append(Contestant(f"{name}, random", name, path))
    return found


def milliseconds(all_of_them: list[Contestant], engine: str) -> dict[str, float]:
    networks = [Network.of_graph(each.label, *load_graph(each.graph)) for each in all_of_them]
    latencies = LatencyMeter(engine).measure(networks, lambda *_: None)
    return {label: latency.median_ms for label, latency in latencies.items()}


def measure(contestant: Contestant, datasets: list[Path], seeds: int) -> dict[str, Any]:
    cost = COSTS[contestant.architecture]
    row: dict[str, Any] = {
        "weights": contestant.label,
        "params M": round(cost.parameters / 1e6, 2),
        "MACs M": round(cost.macs / 1e6),
    }
    for dataset in datasets:
        reports = reproduction(dataset, contestant.graph, range(seeds))
        row[dataset.name] = [round(float(np.mean([getattr(r, m) for r in reports])), 4) for m in METRICS]
    row["real"] = round(float(np.mean([row[name] for name in REAL])), 4)
    row["drawn"] = round(float(np.mean([row[name] for name in DRAWN])), 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", nargs="*", default=[], metavar="ARCHITECTURE=FILE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="labels that contain this")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    others = {name: Path(path) for name, path in (word.split("=") for word in options.also)}
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn"
        draw_products(drawn, 0, Counts(train=60))
        datasets = [*(SHARED / "data" / name for name in REAL), *(drawn / name for name in DRAWN)]
        chosen = [each for each in contestants(Path(folder), others) if (options.only or "") in each.label]
        times = {engine: milliseconds(chosen, engine) for engine in ("onnxruntime", "openvino")}
        rows = []
        for each in track(chosen, "measuring", console=Console(stderr=True)):
            row = measure(each, datasets, options.seeds)
            row |= {f"{engine} ms": round(found[each.label], 1) for engine, found in times.items()}
            rows.append(row)
            Console(stderr=True).print(row)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"I-AUROC / P-AUROC / AUPRO, means; plain PatchCore at {SIDE}")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(" / ".join(f"{x:.3f}" for x in v) if isinstance(v, list) else str(v) for v in row.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
