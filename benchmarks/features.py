"""Banks and queries for the speed benchmarks: real patch features of the shared images, synthetic ones, and bad cases.

    python benchmarks/features.py        # builds the cache below build/bench_features and lists what is there

Real features: the shared MobileNetV2 at 224 × 224, 3 × 3 average, stages aligned to 28 × 28 = 784 patches and joined.

    D = 96          32 + 64 bottleneck channels, features.6 and features.10
    D = 128         32 + 96, features.6 and features.13: what `onceover fit` embeds with
    D = 384, 1024   192 + 384 + 576 expansion channels of features.7, .11 and .14, pooled to D by an adaptive average
                    over neighboring channels, as PatchCore does (Roth et al. 2022, arXiv:2106.08265)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from onceover import _core
from onceover.images import list_images, read_image

F32 = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_imagenet.safetensors"
CACHE = ROOT / "build" / "bench_features"

SIDE = 224  # pixels
PATCHES = 784  # 28 · 28
DIMS = (96, 128, 384, 1024)
NORMAL_IMAGES = 130  # at most; the pool of pcb is smaller, it has 80 training images
RECIPE = 1  # raise it when features change; caches of another recipe are built again

# data set → one folder of test images per query image
DATASETS = {
    "mt": ("magnetic_tile", ("blowhole", "crack", "uneven")),
    "pcb": ("pcb", ("defect", "defect", "defect")),
}


@dataclass(frozen=True)
class Features:
    """Real features of one data set at one D."""

    pool: F32  # (images · 784, D), normal training images
    queries: F32  # (3, 784, D), one defective test image each


def available() -> bool:
    """True where the shared images and weights are beside the repository."""
    return WEIGHTS.exists() and all((SHARED / "data" / folder).is_dir() for folder, _ in DATASETS.values())


@lru_cache(maxsize=4)
def real(dataset: str, dim: int) -> Features:
    """Features of "mt" or "pcb", from the cache, which is built where it is missing or of another recipe."""
    path = CACHE / f"{dataset}-{dim}.npz"
    images, key = _images(dataset), _key(dataset)
    if not path.exists() or str(np.load(path)["key"]) != key:
        _build(dataset, images, key)
    with np.load(path) as file:
        return Features(file["pool"], file["queries"])


def _images(dataset: str) -> tuple[list[Path], list[Path]]:
    """Normal training images, evenly spaced over the sorted folder, and defective test images."""
    folder, kinds = DATASETS[dataset]
    root = SHARED / "data" / folder
    good = list_images(root / "train" / "good")
    chosen = np.linspace(0, len(good) - 1, min(NORMAL_IMAGES, len(good))).astype(int)
    defective = []
    for position, kind in enumerate(kinds):
        found = list_images(root / "test" / kind)
        defective.append(found[position * len(found) // len(kinds)])
    return [good[index] for index in chosen], defective


def _key(dataset: str) -> str:
    return (
        f"recipe {RECIPE}, {WEIGHTS.stat().st_size} bytes of weights, {[p.name for g in _images(dataset) for p in g]}"
    )


def _build(dataset: str, images: tuple[list[Path], list[Path]], key: str) -> None:
    """Embed all images and write one .npz for each D. Torch is needed here only."""
    embed = _embedder()
    normal, defective = images
    found: dict[int, list[F32]] = {dim: [] for dim in DIMS}
    for path in track([*normal, *defective], f"features of {dataset}", console=Console(stderr=True)):
        for dim, patches in embed(path).items():
            found[dim].append(patches)
    CACHE.mkdir(parents=True, exist_ok=True)
    for dim, patches in found.items():
        joined = np.stack(patches)  # (images, 784, D)
        pool = joined[: len(normal)].reshape(-1, dim)  # (images, 784, D) → (images · 784, D)
        _save(CACHE / f"{dataset}-{dim}.npz", pool=pool, queries=joined[len(normal) :], key=np.array(key))


def _embedder() -> Callable[[Path], dict[int, F32]]:
    """image file → {D: (784, D) float32}."""
    import torch

    from onceover.backbones import create_backbone
    from onceover.backbones.backbone import Backbone, StageInfo
    from onceover.backbones.mobilenetv2 import MobileNetV2
    from onceover.backbones.patch_embedding import PatchEmbedding

    class Taps(Backbone):
        """The bottlenecks and expansions that the head of this file names, as one backbone of six stages."""

        bottlenecks = {6: (32, 8), 10: (64, 16), 13: (96, 16)}  # noqa: RUF012  block → (channels, stride)
        expansions = {7: (192, 8), 11: (384, 16), 14: (576, 16)}  # noqa: RUF012

        def __init__(self, network: MobileNetV2) -> None:
            super().__init__()
            self.network, self.normalization = network, network.normalization
            taps = [*self.bottlenecks.items(), *self.expansions.items()]
            self.stages = tuple(StageInfo(f"features.{block}", *size) for block, size in taps)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            """(1, 3, 224, 224) → bottlenecks, then expansions, each (1, C, 28 or 14, 28 or 14)."""
            narrow, wide = [], []
            for index, block in enumerate(self.network.features[:15]):
                if index in self.expansions:
                    wide.append(block.conv[0](x))  # expand 1x1 and ReLU6, before the depthwise convolution
                x = block(x)
                if index in self.bottlenecks:
                    narrow.append(x)
            return narrow + wide

    backbone = create_backbone("mobilenetv2", WEIGHTS, strides=(8, 16, 32))
    assert isinstance(backbone, MobileNetV2)
    embedding = PatchEmbedding(Taps(backbone).eval())
    mean, std = backbone.normalization.mean, backbone.normalization.std

    def embed(path: Path) -> dict[int, F32]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one order of summation, whatever the machine
        with torch.inference_mode():
            pixels = torch.from_numpy(_core.prepare(read_image(path), SIDE, SIDE, mean, std))  # (3, 224, 224)
            joined = embedding(pixels[None])[0]  # (784, 32 + 64 + 96 + 192 + 384 + 576)
            c8, c16, c16_deep, wide = joined.split((32, 64, 96, 1152), dim=1)
            dims = {96: torch.cat((c8, c16), dim=1), 128: torch.cat((c8, c16_deep), dim=1)}
            for dim in (384, 1024):
                # (784, 1152) → (784, 1, 1152) → (784, 1, D) → (784, D)
                dims[dim] = torch.nn.functional.adaptive_avg_pool1d(wide[:, None], dim)[:, 0]
        torch.set_num_threads(threads)
        return {dim: patches.contiguous().numpy() for dim, patches in dims.items()}

    return embed


def _save(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write the whole file or none."""
    part = path.with_suffix(".tmp")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, path)


def _subset(dataset: str, dim: int, rows: int, seed: int = 0) -> F32:
    """A random bank of `rows` normal patches."""
    pool = real(dataset, dim).pool
    if rows > len(pool):
        raise ValueError(
            f"{dataset}: a bank of {rows:,} rows was asked, its pool has {len(pool):,} "
            f"({len(pool) // PATCHES} images of {PATCHES} patches); ask for fewer rows"
        )
    return pool[np.random.default_rng(seed).permutation(len(pool))[:rows]]


def _coreset(dataset: str, dim: int, rows: int) -> F32:
    """A greedy k-center bank of `rows`, chosen in a random projection to 24 dimensions; the choice is cached."""
    pool = real(dataset, dim).pool
    path = CACHE / f"{dataset}-{dim}-coreset-{rows}.npz"
    if rows > len(pool):
        raise ValueError(f"{dataset}: a coreset of {rows:,} rows was asked, its pool has {len(pool):,}")
    if not path.exists() or str(np.load(path)["key"]) != _key(dataset):
        projection = np.random.default_rng(0).standard_normal((dim, 24), dtype=np.float32)
        greedy = _core.GreedyCoreset(np.ascontiguousarray(pool @ projection), 0)  # (N, D) → (N, 24)
        for _ in track(range(0, rows, 100), f"coreset of {dataset} {dim}", console=Console(stderr=True)):
            greedy.select(min(100, rows - len(greedy.selected)))
        _save(path, selected=greedy.selected, key=np.array(_key(dataset)))
    return pool[np.load(path)["selected"]]


def gauss(dim: int, rows: int, queries: int = PATCHES, seed: int = 0) -> tuple[F32, F32]:
    """iid normal: (M, D), (Q, D). Nothing to exploit."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, dim), np.float32), rng.standard_normal((queries, dim), np.float32)


def clustered(dim: int, rows: int, queries: int = PATCHES, seed: int = 0) -> tuple[F32, F32]:
    """64 clusters in 24 latent directions of falling scale, plus a little noise in all D; 1 query in 20 is far off."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, 25, dtype=np.float32) ** -0.8  # (24,)
    loading = rng.standard_normal((24, dim), np.float32)
    centers = rng.standard_normal((64, 24), np.float32)

    def draw(count: int) -> F32:
        latent = centers[rng.integers(64, size=count)] + 0.3 * rng.standard_normal((count, 24), np.float32)
        return (latent * scale) @ loading + 0.05 * rng.standard_normal((count, dim), np.float32)  # (count, D)

    bank, asked = draw(rows), draw(queries)
    asked[::20] += rng.standard_normal(asked[::20].shape, np.float32)
    return bank, asked


def _duplicated(dim: int, rows: int) -> tuple[F32, F32]:
    """Four copies of M / 4 real rows; 100 of the queries are rows of the bank."""
    bank = np.tile(_subset("mt", dim, -(-rows // 4)), (4, 1))[:rows]
    queries = real("mt", dim).queries[0].copy()
    queries[:100] = bank[:: rows // 100][:100]
    return bank, queries


def _offset(dim: int, rows: int) -> tuple[F32, F32]:
    """Everything far from the origin: differences are small beside the values."""
    return _subset("mt", dim, rows) + np.float32(1000), real("mt", dim).queries[0] + np.float32(1000)


def _heavy_tails(dim: int, rows: int) -> tuple[F32, F32]:
    """Normal rows, each times its own draw of Student's t with 1.5 degrees of freedom: lengths over five decades."""
    bank, queries = gauss(dim, rows)
    rng = np.random.default_rng(1)
    lengths = rng.standard_t(1.5, (rows + len(queries), 1)).astype(np.float32)
    return bank * lengths[:rows], queries * lengths[rows:]


def _mixed(dim: int, rows: int) -> tuple[F32, F32]:
    """In every 16 consecutive queries: six of magnetic tile, five of a board, five of Gaussian junk of that scale."""
    bank = _subset("mt", dim, rows)
    queries = real("mt", dim).queries[0].copy()
    junk = np.random.default_rng(2).standard_normal(queries.shape, np.float32) * bank.std() + bank.mean()
    place = np.arange(len(queries)) % 16 % 3
    queries[place == 1] = real("pcb", dim).queries[0][place == 1]
    queries[place == 2] = junk[place == 2]
    return bank, queries


def _one_row(dim: int, rows: int) -> tuple[F32, F32]:
    """One row, M times; 16 of the queries equal it."""
    queries = real("mt", dim).queries[0].copy()
    row = real("mt", dim).pool[400]
    queries[::49] = row
    return np.tile(row, (rows, 1)), queries


def _rounding(dim: int, rows: int) -> tuple[F32, F32]:
    """One row, off by −3 … 3 units in the last place of every value; so are the queries."""
    row = real("mt", dim).pool[400]
    ulp = np.where(row == 0, np.float32(0), np.spacing(np.abs(row)))  # (D,)
    steps = np.random.default_rng(3).integers(-3, 4, (rows + PATCHES, dim)).astype(np.float32)
    values = row + steps * ulp
    return values[:rows], values[rows:]


_MAKERS: dict[str, Callable[[int, int], tuple[F32, F32]]] = {
    "mt": lambda dim, rows: (_subset("mt", dim, rows), real("mt", dim).queries[0]),
    "mt-coreset": lambda dim, rows: (_coreset("mt", dim, rows), real("mt", dim).queries[0]),
    "pcb": lambda dim, rows: (_subset("pcb", dim, rows), real("pcb", dim).queries[0]),
    "pcb-coreset": lambda dim, rows: (_coreset("pcb", dim, rows), real("pcb", dim).queries[0]),
    "gauss": gauss,
    "clustered": clustered,
    "out_of_distribution": lambda dim, rows: (_subset("mt", dim, rows), real("pcb", dim).queries[0]),
    "duplicated": _duplicated,
    "offset": _offset,
    "heavy_tails": _heavy_tails,
    "mixed": _mixed,
    "one_row": _one_row,
    "rounding": _rounding,
}
NAMES = tuple(_MAKERS)


def bank_and_queries(name: str, dim: int, rows: int) -> tuple[F32, F32]:
    """(M, D) bank and (784, D) queries, float32, C-contiguous, the same on every call; `name` is one of NAMES.

    Real banks end where their pool does: 101,920 rows for mt (130 images), 62,720 for pcb (80); ValueError beyond.
    """
    bank, queries = _MAKERS[name](dim, rows)
    return np.ascontiguousarray(bank, np.float32), np.ascontiguousarray(queries, np.float32)


def main() -> None:
    for dataset in DATASETS:
        for dim in DIMS:
            features = real(dataset, dim)
            Console().print(f"{dataset}-{dim}: pool {features.pool.shape}, queries {features.queries.shape}")


if __name__ == "__main__":
    main()
