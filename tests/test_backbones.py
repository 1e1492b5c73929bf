"""Backbones, weights files, the patch embedding, and how the embedded backbone was taught.

Golden numbers: `shared/weights/golden.json` (float32 reference outputs of the published MobileNetV2, tolerance
2e-3 + 2e-3 relative as stated there). Parameter counts: those of the public implementations (torchvision layout).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onceover import registry  # noqa: E402 - only where torch is installed
from onceover.backbones import create_backbone  # noqa: E402
from onceover.backbones.backbone import Backbone, Normalization, StageInfo, normalize  # noqa: E402
from onceover.backbones.mobilenetv2 import MobileNetV2, SameConv2d, mobilenetv2, mobilenetv2_050  # noqa: E402
from onceover.backbones.patch_embedding import PatchEmbedding  # noqa: E402
from onceover.backbones.weights import WeightsCard, load_into, load_weights, read_card, save_weights  # noqa: E402
from onceover.errors import InputError, UnknownNameError, UsageError  # noqa: E402
from onceover.training import procedural  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"
torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "")


def shared_weights() -> Path:
    path = SHARED / "weights" / "mobilenetv2_imagenet.safetensors"
    if not path.exists():
        pytest.skip("the published weights (../shared/weights) are not here")
    return path


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def golden_image(name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8; the patterns by their formula in golden.json, the photograph from disk."""
    if name.startswith("pattern_"):
        height, width = map(int, name.removeprefix("pattern_").split("x"))
        y, x, c = np.ogrid[:height, :width, :3]
        return ((3 * y + 5 * x + 40 * c + 64 * ((y // 16 + x // 16) % 2)) % 256).astype(np.uint8)
    cv2 = pytest.importorskip("cv2")
    return np.ascontiguousarray(cv2.imread(str(SHARED / "weights" / name), cv2.IMREAD_COLOR)[..., ::-1])


@pytest.fixture(scope="module")
def classifier() -> MobileNetV2:
    model = MobileNetV2(1.0, "same", batch_norm=False, strides=(4, 8, 16), classes=1001)
    load_into(model, shared_weights())
    return model.eval()


@pytest.mark.parametrize("name", ["pattern_256x256", "pattern_224x224", "pattern_250x231", "samples/parrot_256.png"])
def test_published_weights_give_the_published_features(classifier: MobileNetV2, name: str) -> None:
    golden = json.loads((SHARED / "weights" / "golden.json").read_text())["inputs"][name]
    image = golden_image(name)
    assert hashlib.sha256(image.tobytes()).hexdigest() == golden["sha256_of_hwc_bytes"]
    x = normalize(torch.from_numpy(image).permute(2, 0, 1)[None], classifier.normalization)
    with torch.inference_mode():
        stages, logits = classifier(x), classifier.classify(x)[0].numpy()
    for key, stage in zip(("features.3", "features.6", "features.13"), stages, strict=True):
        expected, actual = golden["outputs"][key], stage[0].numpy()
        assert list(actual.shape) == expected["shape"]
        np.testing.assert_allclose(actual.ravel()[:16], expected["first16"], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(actual.ravel()[-16:], expected["last16"], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(actual.std(), expected["std"], rtol=2e-3)
    np.testing.assert_allclose(logits[:16], golden["outputs"]["logits"]["first16"], rtol=2e-3, atol=2e-3)
    assert list(np.argsort(-logits)[:5]) == [row[0] for row in golden["outputs"]["logits"]["top5"]]


@pytest.mark.parametrize(
    ("width", "whole", "through_stride_16"),
    [(0.35, 1_677_128, 85_440), (0.5, 1_968_680, 151_392), (0.75, 2_636_424, 323_024), (1.0, 3_504_872, 542_528)],
)
def test_parameter_counts_are_those_of_the_paper_s_implementations(
    width: float, whole: int, through_stride_16: int
) -> None:
    assert parameters(MobileNetV2(width, "symmetric", batch_norm=True, strides=(16,), classes=1000)) == whole
    assert parameters(MobileNetV2(width, "symmetric", batch_norm=True, strides=(8, 16))) == through_stride_16


def test_the_student_has_the_parameters_of_its_recipe() -> None:
    assert parameters(mobilenetv2_050()) == 156_640


def test_the_folded_layout_holds_every_value_of_the_published_file() -> None:
    whole = MobileNetV2(1.0, "same", batch_norm=False, strides=(32,), classes=1001)
    assert len(whole.state_dict()) == 106
    assert parameters(whole) == 3_489_097


@pytest.mark.parametrize("name", sorted(registry.BACKBONES))
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_every_backbone_keeps_the_contract(name: str, size: tuple[int, int]) -> None:
    backbone = create_backbone(name, None, random_init_seed=0)
    assert isinstance(backbone, Backbone)
    assert not any(module.training for module in backbone.modules())
    with torch.inference_mode():
        stages = backbone(torch.zeros(2, 3, *size))
    for info, stage in zip(backbone.stages, stages, strict=True):
        assert stage.shape == (2, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
        assert stage.dtype == torch.float32


@pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (3,)])
def test_strides_that_make_no_sense_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="strides must be rising"):
        mobilenetv2(strides)


def test_an_unknown_backbone_suggests_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mobilenetv2'"):
        create_backbone("mobilnetv2", None)


def test_a_backbone_without_weights_is_refused_unless_a_seed_is_given() -> None:
    with pytest.raises(InputError, match="needs a weights file"):
        create_backbone("mobilenetv2_050", None)
    first, second = (create_backbone("mobilenetv2_050", None, random_init_seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_random_backbone_leaves_the_caller_s_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    create_backbone("mobilenetv2_050", None, random_init_seed=3)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 7), (5, 5), (6, 6), (1, 2)])
def test_same_padding_matches_a_window_that_is_moved_by_hand(size: tuple[int, int], stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = SameConv2d(2, 3, 3, stride)
    image = torch.randn(1, 2, *size, generator=generator)
    out = [-(-n // stride) for n in size]
    total = [max((o - 1) * stride + 3 - n, 0) for o, n in zip(out, size, strict=True)]
    padded = torch.zeros(2, size[0] + total[0], size[1] + total[1])
    padded[:, total[0] // 2 : total[0] // 2 + size[0], total[1] // 2 : total[1] // 2 + size[1]] = image[0]
    with torch.inference_mode():
        actual = conv(image)[0]
        assert actual.shape == (3, *out)
        for row in range(out[0]):
            for column in range(out[1]):
                window = padded[:, row * stride : row * stride + 3, column * stride : column * stride + 3]
                expected = (conv.weight * window).sum(dim=(1, 2, 3)) + conv.bias
                torch.testing.assert_close(actual[:, row, column], expected, rtol=1e-5, atol=1e-5)


class TwoStages(Backbone):
    """Hands out two given feature maps, whatever the image."""

    def __init__(self, fine: torch.Tensor, coarse: torch.Tensor) -> None:
        super().__init__()
        self.maps = [fine, coarse]
        self.stages = (StageInfo("fine", fine.shape[1], 8), StageInfo("coarse", coarse.shape[1], 16))
        self.normalization = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.maps


def pooled_by_hand(stage: NDArray[np.float32]) -> NDArray[np.float64]:
    """(C, h, w): each cell the mean of those of its 3x3 neighbors that exist."""
    _, h, w = stage.shape
    result = np.zeros(stage.shape)
    for i in range(h):
        for j in range(w):
            window = stage[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            result[:, i, j] = window.mean(axis=(1, 2), dtype=np.float64)
    return result


def sampled_by_hand(stage: NDArray[np.float64], i: int, j: int, h: int, w: int) -> NDArray[np.float64]:
    """The (C,) bilinear sample of a (C, h', w') map for cell (i, j) of an (h, w) grid, half-pixel centers."""
    _, rows, columns = stage.shape
    y = min(max((i + 0.5) * rows / h - 0.5, 0.0), rows - 1.0)
    x = min(max((j + 0.5) * columns / w - 0.5, 0.0), columns - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = stage[:, top, left] * (1 - (x - left)) + stage[:, top, right] * (x - left)
    lower = stage[:, bottom, left] * (1 - (x - left)) + stage[:, bottom, right] * (x - left)
    return np.asarray(upper * (1 - (y - top)) + lower * (y - top))


@pytest.mark.parametrize(("fine", "coarse"), [((6, 8), (3, 4)), ((5, 7), (3, 4)), ((1, 2), (1, 1))])
def test_a_patch_embedding_matches_the_obvious_loop(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(1, 2, *fine, generator=generator)
    second = torch.randn(1, 3, *coarse, generator=generator)
    embedding = PatchEmbedding(TwoStages(first, second))
    h, w = fine
    assert embedding.patch_grid(h * 8, w * 8) == fine
    actual = embedding(torch.zeros(1, 3, h * 8, w * 8)).numpy()
    assert actual.shape == (1, h * w, 5)
    near, far = pooled_by_hand(first[0].numpy()), pooled_by_hand(second[0].numpy())
    for i in range(h):
        for j in range(w):
            expected = np.concatenate([near[:, i, j], sampled_by_hand(far, i, j, h, w)])
            np.testing.assert_allclose(actual[0, i * w + j], expected, rtol=1e-5, atol=1e-6)


def test_constant_features_stay_constant_up_to_the_border() -> None:
    embedding = PatchEmbedding(TwoStages(torch.full((1, 2, 4, 4), 3.0), torch.full((1, 1, 2, 2), -2.0)))
    actual = embedding(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(actual, torch.tensor([3.0, 3.0, -2.0]).expand(1, 16, 3))


@pytest.mark.parametrize("aggregation", [0, 2, -1])
def test_an_even_aggregation_is_refused(aggregation: int) -> None:
    with pytest.raises(UsageError, match="odd"):
        PatchEmbedding(mobilenetv2_050(), aggregation)


def saved(path: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """A weights file of the student where some tensors are replaced, added or (None) left out."""
    tensors = {**mobilenetv2_050().state_dict(), **change}
    save_weights(path, {key: tensor for key, tensor in tensors.items() if tensor is not None}, CARD)
    return path


def test_saved_weights_come_back_with_their_card(tmp_path: Path) -> None:
    first = create_backbone("mobilenetv2_050", None, random_init_seed=1)
    path = tmp_path / "w.safetensors"
    save_weights(path, first.state_dict(), CARD)
    second = create_backbone("mobilenetv2_050", path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    card = read_card(path)
    assert (card.source, card.license) == (CARD.source, CARD.license)
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert WeightsCard.from_json(card.to_json()) == card


def test_a_foreign_file_gets_a_card_that_admits_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "found.safetensors"
    safetensors_torch.save_file({"a": torch.zeros(1)}, str(path))
    card = read_card(path)
    assert (card.source, card.license) == ("unknown source", "license not stated")


def test_the_published_weights_are_known_by_their_hash() -> None:
    card = read_card(shared_weights())
    assert (card.name, card.license) == ("mobilenetv2_imagenet", "Apache-2.0")


@pytest.mark.parametrize("fields", [{}, {**CARD.to_json(), "extra": "x"}, {**CARD.to_json(), "name": 3}])
def test_a_card_with_wrong_fields_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="weights card"):
        WeightsCard.from_json(fields)


def test_weights_behind_the_cut_are_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", {"features.17.conv.0.0.weight": torch.zeros(2)})
    path = saved(path, {"classifier.1.bias": torch.zeros(3), "features.18.0.bias": torch.zeros(3)})
    assert create_backbone("mobilenetv2_050", path, strides=(8,)).stages[0].channels == 32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused_by_name(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "w.safetensors", {"projections.8.bias": torch.full((32,), value)})
    with pytest.raises(InputError, match=r"NaN or infinite values in projections\.8\.bias"):
        create_backbone("mobilenetv2_050", path)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    change = {"projections.8.bias": None, "features.0.0.weight": torch.zeros(8, 3, 3, 3), "other.weight": torch.ones(1)}
    with pytest.raises(InputError) as caught:
        create_backbone("mobilenetv2_050", saved(tmp_path / "w.safetensors", change))
    assert "missing: projections.8.bias" in str(caught.value)
    assert "unexpected: other.weight" in str(caught.value)
    assert "features.0.0.weight expected (16, 3, 3, 3) got (8, 3, 3, 3)" in str(caught.value)


def test_weights_of_another_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit the backbone"):
        create_backbone("mobilenetv2_050", shared_weights())


@pytest.mark.parametrize(
    "content", [b"", b"just a text, no tensors\n", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "[:12]]
)
def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(path)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_card(path)


def test_a_weights_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.safetensors", {}).read_bytes()
    path = tmp_path / "cut.safetensors"
    for end in (1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            load_weights(path)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.safetensors: cannot read"):
        create_backbone("mobilenetv2", tmp_path / "absent.safetensors")


@pytest.mark.parametrize("texture", procedural.TEXTURES, ids=lambda texture: texture.__name__)
def test_a_procedural_texture_is_finite_and_not_flat(texture: procedural.Texture) -> None:
    for seed in range(5):
        image = texture(np.random.Generator(np.random.PCG64(seed)), 48)
        assert image.shape == (48, 48, 3)
        assert np.isfinite(image).all()
        assert image.std() > 1e-3


def test_the_same_seed_draws_the_same_texture() -> None:
    first, second = (procedural.draw(np.random.Generator(np.random.PCG64(4)), 40) for _ in range(2))
    assert (first.shape, first.dtype) == ((40, 40, 3), np.uint8)
    np.testing.assert_array_equal(first, second)
