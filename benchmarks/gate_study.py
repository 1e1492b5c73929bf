"""Gates: how often is a good part taken for a wrong one, and another product for the right one?

    python benchmarks/gate_study.py [--data ../shared/data]

Magnetic tile and PCB, where they are, and the three drawn products; the embedded backbone at 256. Over many splits of a
product's train images into bank and held-out parts: the share of its good and defective test images that its gate keeps
out, and of all images of other products that it lets in.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from onceover import _core
from onceover.errors import OnceoverError
from onceover.images import read_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import load_graph, resize
from onceover.runtime.session import EngineOptions
from onceover.training.dataset import read_dataset
from onceover.training.demo_products import Counts, draw_products
from onceover.training.gate import Gate, fit_gate

MARGINS = (1.0, 1.5, 2.0, 3.0, 4.0)
MOST = 80  # images of each kind
Pooled = NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """Pooled features (n, D) of one product's images."""

    name: str
    train: Pooled
    good: Pooled
    defective: Pooled


def pooled(paths: list[Path], embedder: _core.Embedder, name: str) -> Pooled:
    chosen = paths[:: max(1, -(-len(paths) // MOST))]
    return np.stack([embedder.embed(read_image(path)).mean(axis=0) for path in track(chosen, name)])


def distances(gate: Gate, rows: Pooled) -> NDArray[np.float64]:
    z = rows.astype(np.float64) - gate.mean
    along = z @ gate.axes.T.astype(np.float64)
    rest = np.maximum(0, (z**2).sum(axis=1) - (along**2).sum(axis=1))
    found: NDArray[np.float64] = np.sqrt((along**2 * gate.weights).sum(axis=1) + gate.isotropic * rest)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=50)
    options = parser.parse_args()
    graph, spec = resize(*load_graph("emo_1m"), 256, 256)
    embedder = _core.Embedder(config_of(spec, 4.0), graph, EngineOptions().resolve())
    with tempfile.TemporaryDirectory() as scratch:
        roots = draw_products(Path(scratch) / "drawn", seed=0, counts=Counts(MOST, 20, 6))
        products = []
        for root in [*roots, *(options.data / name for name in ("magnetic_tile", "pcb"))]:
            try:
                data = read_dataset(root)
            except OnceoverError as error:
                print(f"skipped: {error}")
                continue
            test = {label: [s.path for s in data.test if s.label == label] for label in (0, 1)}
            train = [sample.path for sample in data.train]
            products.append(
                Parts(root.name, *(pooled(paths, embedder, root.name) for paths in (train, test[0], test[1])))
            )
    print(
        "| product | held out | margin | good kept out | promise | defective kept out | others let in | nearest other |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for product in products:
        others = np.concatenate([np.concatenate([p.train, p.good, p.defective]) for p in products if p is not product])
        for held in (10, 19):
            report(product, others, held, options.splits)


def report(product: Parts, others: Pooled, held: int, splits: int) -> None:
    nearest = []
    shares: dict[float, list[tuple[float, float, float]]] = {margin: [] for margin in MARGINS}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(product.train))
        gate = fit_gate(product.train[order[held:]])
        farthest = distances(gate, product.train[order[:held]]).max()
        kinds = [distances(gate, rows) for rows in (product.good, product.defective, others)]
        nearest.append(kinds[2].min() / farthest)
        for margin in MARGINS:
            good, defective, foreign = ((d > margin * farthest).mean() for d in kinds)
            shares[margin].append((good, defective, 1 - foreign))
    for margin in MARGINS:
        good, defective, foreign = np.mean(shares[margin], axis=0)
        print(
            f"| {product.name} | {held} | {margin:g} | {good:.1%} | {1 / (held + 1):.1%} | {defective:.1%} | "
            f"{foreign:.2%} | {min(nearest):.1f} |"
        )


if __name__ == "__main__":
    main()
