"""Memory and time that `fit` says it will take, beside what it took; and how well the streaming coreset covers.

    python benchmarks/fit_memory.py plan                         # several sizes, adapted and not, also as a stream
    python benchmarks/fit_memory.py large --images 20000 --max-memory 2GiB
    python benchmarks/fit_memory.py radius                       # 250,000 patches: streaming beside plain greedy

Images are drawn: a hundred good parts of the demo, each shifted, turned, lit and grained anew, 256 × 256 JPEG.
Every fit runs in a process of its own; its peak is VmHWM of /proc/self/status, of everything from the interpreter on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import onceover
from onceover import _core, export
from onceover.detectors import BankSize
from onceover.detectors.streaming import sample_images
from onceover.images import list_images, read_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import load_graph
from onceover.runtime.session import EngineOptions
from onceover.training.demo_parts import PRODUCTS
from onceover.training.demo_products import draw_part
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, FitPlan, fit
from onceover.training.machine_memory import resident_bytes

F32 = NDArray[np.float32]

SIDE = 256
ORIGINALS = 40  # of each product
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = ("magnetic_tile", "pcb")
PATCHES = 250_000
# images; of FitOptions, but rows: of the bank; tiles; inside: the share of the width and of the height in the region
PLANS: tuple[tuple[int, dict[str, Any]], ...] = (
    (2000, {"rows": 10_000, "max_memory": "500MB"}),
    (1000, {"rows": 2000, "max_memory": "400MB"}),
    (300, {"rows": 40_000}),
    (20, {"rows": 1000}),  # across folds
    (60, {"rows": 300}),
    (30, {"rows": 1000, "size": 384}),  # across folds
    (120, {"rows": 1000, "size": 384, "false_alarm_rate": 0.01}),  # across folds
    (100, {"rows": 2000, "tiles": (2, 2)}),
    (100, {"rows": 1000, "inside": 0.25}),
    (300, {"rows": 10_000}),
    (1000, {"rows": 10_000}),
    (2000, {"rows": 10_000}),
)


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` pictures of good parts below `folder`; kept where they are already."""
    folder.mkdir(parents=True, exist_ok=True)
    if sum(1 for _ in folder.glob("*.jpg")) == count:
        return folder
    originals = []
    for product in PRODUCTS:
        for number in range(ORIGINALS):
            picture = draw_part(product, None, "train/good", number, seed).image
            bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            originals.append(cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    for number in track(range(count), description=f"drawing {count} images"):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), varied(originals[number % len(originals)], number, seed))
    return folder


def varied(picture: NDArray[Any], number: int, seed: int) -> NDArray[np.uint8]:
    """(SIDE, SIDE[, 3]) uint8: as the next part under the same camera would look."""
    rng = np.random.default_rng([seed, 1, number])
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-4, 4), rng.uniform(0.97, 1.03))
    turn[:, 2] += rng.uniform(-6, 6, 2)
    moved = cv2.warpAffine(picture, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    slope = np.linspace(-1, 1, SIDE, dtype=np.float32) * np.float32(rng.uniform(-0.06, 0.06))
    light = np.float32(rng.uniform(0.93, 1.07)) + slope.reshape(-1, *(1,) * (moved.ndim - 1))
    grain = rng.standard_normal((SIDE, SIDE), dtype=np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(moved * light + grain.reshape(SIDE, SIDE, *(1,) * (moved.ndim - 2)), 0, 255).astype(np.uint8)


def measured_fit(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """In this process: the plan, the peak and the wall time of fit and of writing the package."""
    plans: list[FitPlan] = []
    bank, tiles, inside = BankSize(rows=changes.pop("rows")), changes.pop("tiles", None), changes.pop("inside", None)
    if inside is not None:
        changes["roi"] = np.zeros((16, 16), np.uint8)
        changes["roi"][: round(16 * inside), : round(16 * inside)] = 1
    tiling = TilingOptions(tiles=tuple(tiles)) if tiles else None
    options = FitOptions(bank=bank, tiling=tiling, **{"size": SIDE, **changes})
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        parts = fit(folder, options, on_plan=plans.append)
        export.package(parts, Path(scratch, "fitted.onceover"))
    took = time.perf_counter() - start
    memory = plans[0].memory
    assert memory is not None
    return {
        "plan": asdict(memory), "peak_bytes": resident_bytes("VmHWM"), "seconds": took, "folds": plans[0].folds,
        "rows": plans[0].bank_rows, "detector": parts.manifest["detector"], "patches": plans[0].patch_count,
        "adapted": parts.adaptation is not None,
    }  # fmt: skip


def in_a_process(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "one", str(folder), json.dumps(changes)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def show(console: Console, title: str, results: list[tuple[str, dict[str, Any]]]) -> None:
    table = Table("what", "coreset", "planned MB", "peak MB", "off", "planned s", "took s", title=title)
    for name, found in results:
        plan, peak = found["plan"], found["peak_bytes"]
        table.add_row(
            name, found["detector"]["coreset"], f"{plan['peak_bytes'] / 1e6:.0f}", f"{peak / 1e6:.0f}",
            f"{100 * (plan['peak_bytes'] / peak - 1):+.0f} %", f"{plan['seconds']:.0f}", f"{found['seconds']:.0f}",
        )  # fmt: skip
    console.print(table)


def plan(console: Console, backbone: str, adapt: bool | None) -> None:
    """Each adapted to the product and not, unless asked for one of both."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for images, changes in PLANS:
            folder = draw(Path(scratch, str(images)), images)
            for adapted in (True, False) if adapt is None else (adapt,):
                found = in_a_process(folder, {"backbone": backbone, "adapt": adapted, **changes})
                facts = [f"{key} {value}" for key, value in changes.items()]
                facts += ["adapted"] * adapted + [f"{found['folds']} folds"] * (found["folds"] > 0)
                results.append((f"{images} images, {', '.join(facts)}", found))
                print(results[-1][0], found["plan"]["peak_bytes"], found["peak_bytes"], file=sys.stderr, flush=True)
    show(console, f"fit, {backbone}, what it says and what it takes", results)


def large(console: Console, backbone: str, images: int, limit: str, keep: Path | None, adapt: bool | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = draw(keep or Path(scratch), images)
        changes = {"backbone": backbone, "max_memory": limit, "rows": 10_000, "adapt": adapt}
        found = in_a_process(folder, changes)
    show(console, f"{images} images of {SIDE} × {SIDE}, --max-memory {limit}, {backbone}", [("fit", found)])
    console.print_json(data=found)


def radius(console: Console, backbone: str) -> None:
    """Largest distance of any patch to the bank, in the projection that both select in, and of whole embeddings."""
    table = Table("patches", "order", "rows", "sample", "told", "projection", "whole", "plain: projection", "whole")
    for source, load in (("real", real_patches), ("drawn", drawn_patches)):
        embeddings = load(backbone)
        for order in ("sorted", "shuffled"):
            shuffled = np.random.default_rng(0).permutation(len(embeddings))
            patches = embeddings if order == "sorted" else embeddings[shuffled]
            per_image, dim = patches.shape[1:]
            whole = patches.reshape(-1, dim)
            projection = np.random.default_rng(1).standard_normal((dim, 32), np.float32) / np.float32(32**0.5)
            points = whole @ projection  # (N, D) → (N, 32)
            for rows, share in ((10_000, 4), (1000, 16)):
                plain = greedy(points, rows)
                sample = sample_images(len(patches), len(patches) // share)
                ids = (sample[:, None] * per_image + np.arange(per_image)).ravel()
                first = greedy(points[ids], rows)
                seeds = first.selected
                stream = _core.StreamingCoreset(points[ids][seeds], ids[seeds], first.covering_radius, rows)
                for image in sorted(set(range(len(patches))) - set(sample.tolist())):
                    place = np.arange(image * per_image, (image + 1) * per_image)
                    stream.add(points[place], place)
                told, both = stream.covering_radius, (stream.selected(), plain.selected)
                reached = [farthest(data, chosen) for chosen in both for data in (points, whole)]
                table.add_row(
                    f"{source}, {len(whole):,}", order, f"{rows:,}", f"1/{share}",
                    *(f"{value:.3f}" for value in (told, *reached)),
                )  # fmt: skip
                ratio = stream.covering_radius / plain.covering_radius
                console.print(f"{source}, {order}, {rows} rows: told radius {ratio:.3f} of the plain one")
    console.print(table)


def greedy(points: F32, rows: int) -> _core.GreedyCoreset:
    selection = _core.GreedyCoreset(np.ascontiguousarray(points), 0)
    selection.select(rows)
    return selection


def farthest(data: F32, chosen: NDArray[np.int64]) -> float:
    bank = onceover.MemoryBank.build(np.ascontiguousarray(data[chosen]))
    return max(float(bank.search(data[at : at + 8192])[0].max()) for at in range(0, len(data), 8192))


def real_patches(backbone: str) -> F32:
    """(images, P, D): normal training images of the shared data sets."""
    return embedded([path for name in REAL for path in list_images(SHARED / name / "train" / "good")], backbone)


def drawn_patches(backbone: str) -> F32:
    with tempfile.TemporaryDirectory() as scratch:
        return embedded(list_images(draw(Path(scratch), PATCHES // 1024 + 1)), backbone)


def embedded(paths: list[Path], backbone: str) -> F32:
    graph, spec = load_graph(backbone)
    embedder = _core.Embedder(config_of(spec, 4.0), graph, EngineOptions().resolve(1))
    count = min(len(paths), PATCHES // (spec.grid_height * spec.grid_width) + 1)
    spread = sample_images(len(paths), count)
    return np.stack([embedder.embed(read_image(paths[i])) for i in track(spread.tolist(), description="embedding")])


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measured_fit(Path(sys.argv[2]), json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "large", "radius"))
    parser.add_argument("--backbone", default="emo_1m")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--max-memory", default="2GiB")
    parser.add_argument("--folder", type=Path, help="where the drawn images of `large` are kept (default: nowhere)")
    parser.add_argument("--adapt", action=argparse.BooleanOptionalAction, help="as onceover fit")
    options = parser.parse_args()
    console = Console(width=120)
    if options.what == "large":
        large(console, options.backbone, options.images, options.max_memory, options.folder, options.adapt)
    elif options.what == "plan":
        plan(console, options.backbone, options.adapt)
    else:
        radius(console, options.backbone)


if __name__ == "__main__":
    main()
