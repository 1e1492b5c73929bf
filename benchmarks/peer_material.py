"""What the contenders of bench_peers.py inspect with: one network, one bank and one set of images for all of them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onceover import _core, export
from onceover.backbones import create_backbone
from onceover.backbones.weights import WeightsCard, read_card, save_weights
from onceover.detectors import BankSize
from onceover.export.to_onnx import to_onnx
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.images import list_images, read_image
from onceover.runtime.package import open_package
from onceover.training.fit import FitOptions, fit

TEST_IMAGES = 8
NORMAL_IMAGES = 60  # at most; 61,440 patches


def build(folder: Path, data: Path, weights: Path, dim: int, bank_rows: int) -> None:
    """Fit on normal images of `data` and write into `folder` what each contender reads."""
    import torch
    from peer_networks import SIDE, NearestInGraph, WholeGraph, patch_embedding, write_graph

    chosen = _spread(list_images(data / "train" / "good"), NORMAL_IMAGES)
    (folder / "good").mkdir(parents=True)
    for path in chosen:
        (folder / "good" / path.name).symlink_to(path.resolve())
    model = patch_embedding(weights, dim)
    (folder / "backbone.onnx").write_bytes(to_onnx(model, SIDE, SIDE, read_card(weights), "mobilenetv2"))
    holdout = min(20, len(chosen) // 3)
    bank, backbone = BankSize(rows=bank_rows), folder / "backbone.onnx"
    options = FitOptions(
        backbone=backbone, bank=bank, coreset="random", holdout=holdout, adapt=False, position_weights=False
    )
    export.package(fit(folder / "good", options), folder / "part.onceover")
    write_plain_onnx(folder / "part.onceover", folder / "plain.onnx")
    core = open_package(folder / "part.onceover").core
    rows = np.array(core.array("memory_bank"))  # torch wants to be able to write to it
    images = [read_image(path) for path in _spread(list_images(data / "test"), TEST_IMAGES)]
    _write_peers(folder, core, rows, images)
    write_graph(WholeGraph(model, torch.from_numpy(rows)), torch.zeros(1, 3, SIDE, SIDE), folder / "in_graph.onnx")
    embedding = torch.from_numpy(np.load(folder / "embedding.npy")[None])
    write_graph(NearestInGraph(torch.from_numpy(rows)), embedding, folder / "bank.onnx")
    if find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatL2(dim)
        index.add(rows)
        faiss.write_index(index, str(folder / "bank.faiss"))
    (folder / "weights").symlink_to(weights.resolve())
    normalization = model.backbone.normalization
    facts = {"mean": normalization.mean, "std": normalization.std, "weights": str(weights.resolve()), "dim": dim}
    (folder / "facts.json").write_text(json.dumps({**facts, "rows": len(rows)}))


def write_random_weights(path: Path) -> None:
    """Of MobileNetV2, for checks that everything runs."""
    model = create_backbone("mobilenetv2", None, random_init_seed=0, strides=(8, 16, 32))
    save_weights(path, model.state_dict(), WeightsCard("random", "seed 0", "none", "none", "0" * 64))


def _write_peers(folder: Path, core: _core.Package, bank: NDArray[np.float32], images: list[NDArray[np.uint8]]) -> None:
    from onceover.runtime.session import EngineOptions

    config = _core.read_config(core)
    embedder = _core.Embedder(config, core.read("graph.onnx"), EngineOptions().resolve())
    np.save(folder / "bank.npy", bank)
    np.save(folder / "embedding.npy", embedder.embed(images[0]))
    np.savez(folder / "images.npz", *images)
    # At the network's own size no filter resizes, and all contenders see the same pixels.
    small = [Image.fromarray(image).convert("RGB").resize((config.width, config.height)) for image in images]
    np.savez(folder / "small.npz", *(np.asarray(image) for image in small))


def _spread(paths: list[Path], count: int) -> list[Path]:
    """`count` of them at most, evenly spaced."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]


__all__ = ["build", "write_random_weights"]
