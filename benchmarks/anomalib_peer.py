"""anomalib's PatchCore with the network and the bank of bench_peers.py, in torch and as the graph exported of it.

    PYTHON benchmarks/anomalib_peer.py FOLDER      # writes FOLDER/anomalib.onnx

Its class PatchcoreModel does the rest as it is: distances to all rows, their minimum, its map. num_neighbors is 1, so
that its image score is the largest patch score, as everybody's here; its default of 9 costs one more pass. Runs in any
environment where anomalib and onceover load.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peer_networks import SIDE, Taps, patch_embedding, write_graph
from torch import Tensor, nn


class Features(nn.Module):
    """The taps by name, averaged over 3 × 3 cells inside the image: instead of its feature extractor and pooler."""

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self.taps = taps
        self.names = [f"tap{i}" for i in range(len(taps.stages))]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 3, 256, 256) → name → (1, C, h, w)."""
        maps = (F.avg_pool2d(stage, 3, stride=1, padding=1, count_include_pad=False) for stage in self.taps(image))
        return dict(zip(self.names, maps, strict=True))


class ScoreAndMap(nn.Module):
    """Of what it answers, what is not None."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, 256, 256) → (1,), (1, 1, 256, 256)."""
        found = self.model(image)
        return found.pred_score, found.anomaly_map


def patchcore(folder: Path) -> nn.Module:
    """The model, ready to inspect."""
    _load_torchvision()
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    facts = json.loads((folder / "facts.json").read_text())
    embedding = patch_embedding(Path(facts["weights"]), facts["dim"])
    features = Features(embedding.backbone)
    model = PatchcoreModel(["blocks.1"], "mobilenetv2_100.ra_in1k", pre_trained=False, num_neighbors=1)
    model.feature_extractor, model.feature_pooler, model.layers = features, nn.Identity(), features.names
    model.memory_bank = torch.from_numpy(np.load(folder / "bank.npy"))
    return ScoreAndMap(model).eval()


def _load_torchvision() -> None:
    """timm imports it. PyPI's build is for CUDA and has no operators beside torch for CPUs, so importing it fails;
    PatchCore calls none of them, and names without an implementation will do."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(100):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            operators.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
        else:
            _KEPT.append(operators)
            return


_KEPT: list[Any] = []  # operators vanish with their library


if __name__ == "__main__":
    given = Path(sys.argv[1])
    with torch.no_grad():
        write_graph(patchcore(given), torch.zeros(1, 3, SIDE, SIDE), given / "anomalib.onnx")
