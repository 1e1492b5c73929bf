"""Torch against the session on real images: the same scores and the same verdicts, from the decoded picture onwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tolerances import PARITY_SCORE

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from onceover import _core, export  # noqa: E402 - only where torch is installed
from onceover.backbones import create_backbone  # noqa: E402
from onceover.backbones.patch_embedding import PatchEmbedding  # noqa: E402
from onceover.backbones.weights import read_card  # noqa: E402
from onceover.detectors import BankSize  # noqa: E402
from onceover.export.to_onnx import to_onnx  # noqa: E402
from onceover.images import read_image  # noqa: E402
from onceover.runtime.inspector import Inspector  # noqa: E402
from onceover.training.fit import FitOptions, fit  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"
TILES, WEIGHTS = SHARED / "data/magnetic_tile", SHARED / "weights/mobilenetv2_imagenet.safetensors"
pytestmark = pytest.mark.skipif(
    not (TILES.is_dir() and WEIGHTS.is_file()),
    reason="the tiles and weights of ../shared are not here",
)

SIDE = 256
BANK_ROWS = 2000
TRAIN_IMAGES = 40  # 21 for the bank, 19 held out for the threshold
GOOD, DEFECTIVE = 25, 25


@pytest.fixture(scope="module")
def model() -> PatchEmbedding:
    torch.set_num_threads(1)
    return PatchEmbedding(create_backbone("mobilenetv2", WEIGHTS)).eval()


@pytest.fixture(scope="module")
def inspector(model: PatchEmbedding, tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    """A calibrated package of the exported graph."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "good").mkdir()
    for image in sorted((TILES / "train/good").iterdir())[:: 252 // TRAIN_IMAGES][:TRAIN_IMAGES]:
        (folder / "good" / image.name).symlink_to(image)
    graph = to_onnx(model, SIDE, SIDE, read_card(WEIGHTS), "mobilenetv2")
    options = FitOptions(backbone=graph, coreset="random", bank=BankSize(rows=BANK_ROWS), adapt=False)
    export.package(fit(folder / "good", options), folder / "tile.onceover")
    return Inspector.open(folder / "tile.onceover")


def tile_images() -> list[Path]:
    """25 good and 25 defective ones of every kind, spread over the set."""
    good = sorted((TILES / "test/good").iterdir())
    defective = sorted(path for path in (TILES / "test").rglob("*.jpg") if path.parent.name != "good")
    return good[:: len(good) // GOOD][:GOOD] + defective[:: len(defective) // DEFECTIVE][:DEFECTIVE]


def torch_patch_scores(model: PatchEmbedding, image: NDArray[Any], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    """(P,) distances: resize by the core, everything else in torch, the nearest neighbor in float64."""
    pixels = torch.from_numpy(_core.resize(image, SIDE, SIDE)).permute(2, 0, 1)[None].float() / 255
    normalization = model.backbone.normalization
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (normalization.mean, normalization.std))
    with torch.inference_mode():
        queries = model((pixels - mean) / std)[0].double()  # (P, D)
    rows = torch.from_numpy(np.array(bank)).double()  # (M, D)
    # ‖q − b‖² expanded: in float64 the cancellation costs 1e-16 of squared norms, far below the bound.
    squared = (queries**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2 * queries @ rows.T
    distances: NDArray[np.float64] = squared.min(1).values.clamp_min(0).sqrt().numpy()
    return distances


def test_fifty_real_images_have_the_same_scores_and_verdicts_in_torch_and_in_the_session(
    model: PatchEmbedding, inspector: Inspector
) -> None:
    bank = inspector.package.core.array("memory_bank")
    weights = inspector.package.core.array("position_weights").ravel()
    threshold = inspector.calibration.threshold
    assert threshold is not None
    images = tile_images()
    assert len(images) == GOOD + DEFECTIVE
    score_differences, patch_differences, decisions, flips = [], [], [], 0
    for path in images:
        image = read_image(path)
        verdict = inspector.inspect(image)
        expected = torch_patch_scores(model, image, bank) * weights
        score = float(expected.max())
        score_differences.append(abs(verdict.score - score) / score)
        patch_differences.append(float(np.abs(verdict.patch_scores.ravel() - expected).max()) / score)
        decisions.append(verdict.decision)
        flips += (score > threshold) != verdict.is_anomalous
    print(
        f"{len(images)} images: largest relative score difference {max(score_differences):.1e}, "
        f"of a patch {max(patch_differences):.1e}, {flips} verdicts flipped"
    )
    assert max(score_differences) < PARITY_SCORE
    assert max(patch_differences) < PARITY_SCORE
    assert flips == 0
    assert {"normal", "anomalous"} == set(decisions)  # or "no flips" would say nothing


def test_a_resize_that_differs_would_be_noticed(model: PatchEmbedding, inspector: Inspector) -> None:
    """The most persistent export mismatch: plain bilinear instead of the antialiased filter breaks the bound."""
    import cv2

    image = read_image(tile_images()[0])
    bank = inspector.package.core.array("memory_bank")
    weights = inspector.package.core.array("position_weights").ravel()
    aliased = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    score = inspector.inspect(image).score
    assert abs((torch_patch_scores(model, aliased, bank) * weights).max() - score) / score > 10 * PARITY_SCORE
