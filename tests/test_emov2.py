"""EMOv2: the published sizes and keys, hybrid window attention against a slow reference, folding, export at any size.

Golden numbers: parameters, state-dict entries and multiply-accumulates of the public implementation. Exported graphs:
2e-5 of the largest value, float32 sums in another order. Folding and references run in float64.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")

from mobile_blocks import (  # noqa: E402 - only where torch is installed
    TINY,
    TINY_WINDOW,
    attention_by_hand,
    contiguous,
    multiplications,
    norm_by_hand,
    padded_by_hand,
    parameters,
    pointwise_by_hand,
    randomized,
    rest_of_block,
    strided,
)

from onceover.backbones import create_backbone, emov2  # noqa: E402
from onceover.backbones.backbone import Normalization  # noqa: E402
from onceover.backbones.emo import Variant  # noqa: E402
from onceover.backbones.emov2 import ContiguousWindows, EMOv2, ImprovedInvertedResidualMobileBlock  # noqa: E402
from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.weights import WeightsCard, save_weights  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)

# variant → parameters of stages 0 … 4, the last norm and the head; all of them; state-dict entries; millions of
# multiply-accumulates with head at 224 and, with windows of 8, at 256
PUBLISHED = {
    "1M": ((912, 10_912, 32_416, 453_344, 781_900, 360, 181_000), 1_460_844, 228, 279.9, 385.9),
    "2M": ((912, 16_896, 47_440, 1_063_704, 1_053_960, 400, 201_000), 2_384_312, 272, 480.8, 660.9),
    "5M": ((1_560, 33_792, 117_528, 2_347_824, 2_336_160, 576, 289_000), 5_126_440, 272, 1025.1, 1393.5),
}
CHANNELS = {"1M": (32, 48, 80, 180), "2M": (32, 48, 120, 200), "5M": (48, 72, 160, 288)}
HEADS = {"1M": (4, 9), "2M": (6, 10), "5M": (5, 9)}


def variant(size: str) -> Variant:
    found: Variant = getattr(emov2, f"EMOV2_{size}")
    return found


def on_meta(size: str, strides: tuple[int, ...], window: int | None = None, classes: int = 0) -> EMOv2:
    """The network without memory for its weights: shapes only."""
    with torch.device("meta"):
        return EMOv2(variant(size), strides, window, classes).eval()


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_entries_are_those_of_the_public_implementation(size: str) -> None:
    rooms, whole, entries, _, _ = PUBLISHED[size]
    model = on_meta(size, (8, 16), classes=1000)
    assert tuple(parameters(room) for room in model.children()) == rooms
    assert parameters(model) == whole
    assert len(model.state_dict()) == entries


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_network_is_cut_after_the_last_stage_that_is_asked_for(size: str) -> None:
    rooms = PUBLISHED[size][0]
    for stages, strides in ((2, (4,)), (3, (8,)), (4, (4, 8, 16)), (4, (8, 16)), (5, (32,))):
        assert parameters(on_meta(size, strides)) == sum(rooms[:stages])


@pytest.mark.parametrize("size", PUBLISHED)
def test_multiplications_are_those_of_the_public_implementation(size: str) -> None:
    head = CHANNELS[size][3] * 1000
    at_224 = multiplications(on_meta(size, (32,)), 224, 224) + head
    at_256 = multiplications(on_meta(size, (32,), window=8), 256, 256) + head
    assert (round(at_224 / 1e6, 1), round(at_256 / 1e6, 1)) == PUBLISHED[size][3:]


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize(("height", "width"), [(224, 224), (256, 256), (250, 230)])
def test_taps_have_the_published_channels_at_any_size(size: str, height: int, width: int) -> None:
    model = on_meta(size, (4, 8, 16, 32))
    shapes = [tuple(stage.shape) for stage in model(torch.zeros(1, 3, height, width, device="meta"))]
    cells = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    assert shapes == [(1, channels, *grid) for channels, grid in zip(CHANNELS[size], cells, strict=True)]
    assert [stage.channels for stage in model.stages] == list(CHANNELS[size])


def test_heads_window_epsilon_and_normalization_are_the_published_ones() -> None:
    for size in PUBLISHED:
        model = on_meta(size, (32,), classes=1000)
        operators = [model.get_submodule(f"stage{stage}")[1].eops[0] for stage in (3, 4)]
        assert tuple(operator.heads for operator in operators) == HEADS[size]
        assert {operator.window for operator in operators} == {7}
        assert {norm.eps for norm in model.modules() if hasattr(norm, "eps")} == {1e-6}
        assert model.normalization == Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_layer_scales_begin_at_one_millionth() -> None:
    scales = [value for key, value in EMOv2(TINY, (32,)).state_dict().items() if key.endswith("ls.gamma")]
    assert len(scales) == 2 + 2 + 3 + 2  # every block, with or without a skip
    assert all(torch.equal(scale, torch.full((1, scale.shape[1], 1, 1), 1e-6)) for scale in scales)


def official_keys(depths: tuple[int, ...]) -> set[str]:
    """The keys of a released checkpoint."""
    affine = ("weight", "bias")
    batch_norm = (*affine, "running_mean", "running_var", "num_batches_tracked")
    keys = {f"stage0.{index}.conv.weight" for index in (0, 1, 2)} | {"stage0.0.conv.bias"}
    keys |= {f"stage0.{index}.norm.{leaf}" for index in (0, 1) for leaf in batch_norm}
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            block = f"stage{stage}.{index}"
            keys |= {f"{block}.{leaf}" for leaf in ("conv_local.conv.weight", "proj.conv.weight", "ls.gamma")}
            keys |= {f"{block}.conv_local.norm.{leaf}" for leaf in batch_norm}
            norm = [f"norm.{leaf}" for leaf in batch_norm] if stage < 3 else [f"norm.norm.{leaf}" for leaf in affine]
            keys |= {f"{block}.{leaf}" for leaf in norm}
            operators = ("qk", "v") if stage > 2 and index > 0 else ("net",)
            keys |= {f"{block}.eops.0.{operator}.conv.{leaf}" for operator in operators for leaf in affine}
    return keys | {f"{room}.{leaf}" for room in ("norm.norm", "head") for leaf in affine}


@pytest.mark.parametrize("size", PUBLISHED)
def test_our_keys_are_those_of_the_official_checkpoints(size: str) -> None:
    assert set(on_meta(size, (16,), classes=1000).state_dict()) == official_keys(variant(size).depths)


def test_a_whole_official_file_fills_a_cut_network(tmp_path: Path) -> None:
    whole = randomized(EMOv2(emov2.EMOV2_1M, (32,), classes=1000)).state_dict()
    save_weights(tmp_path / "whole.safetensors", whole, CARD)
    backbone = create_backbone("emov2_1m", tmp_path / "whole.safetensors", strides=(8, 16), window=8)
    assert all(torch.equal(value, whole[key]) for key, value in backbone.state_dict().items())
    assert backbone.get_submodule("stage3")[1].eops[0].window == 8


@pytest.mark.parametrize("width", [7, 8, 14, 15, 16, 20, 28])
@pytest.mark.parametrize("height", [7, 8, 14, 15, 16, 20, 28])
def test_contiguous_windows_are_tiles_and_joining_undoes_splitting(height: int, width: int) -> None:
    windows = ContiguousWindows(height, width, 7)
    n1, n2 = windows.rows, windows.columns
    x = torch.arange(2 * 6 * height * width, dtype=torch.float64).view(2, height, width, 6)
    tokens = windows.split(windows.pad(x), heads=2)
    assert tokens.shape == (2 * n1 * n2, 2, 49, 3)
    assert torch.equal(windows.crop(windows.join(tokens)), x)
    places = torch.arange(7 * n1 * 7 * n2).view(1, 7 * n1, 7 * n2, 1)
    for index, window in enumerate(windows.split(places, heads=1)):
        a, b = divmod(index, n2)
        expected = {(7 * a + i) * 7 * n2 + 7 * b + j for i in range(7) for j in range(7)}
        assert set(window.flatten().tolist()) == expected


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (2, 3), (3, 2)])
def test_a_block_with_attention_matches_the_slow_and_obvious_one(height: int, width: int) -> None:
    block = randomized(EMOv2(TINY, (16,), window=TINY_WINDOW)).double().stage3[1]
    operator = block.eops[0]
    x = torch.randn(2, 16, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        actual = block(x)
        for image, answer in zip(x, actual, strict=True):
            normed = padded_by_hand(norm_by_hand(image, block.norm), TINY_WINDOW)  # padding behind the norm
            queries, keys = pointwise_by_hand(normed, operator.qk.conv).split(16)
            maps = (queries, keys, torch.nn.functional.gelu(pointwise_by_hand(normed, operator.v.conv)))
            far = attention_by_hand(maps, 2, TINY_WINDOW, strided(*normed.shape[1:]))
            near = attention_by_hand(maps, 2, TINY_WINDOW, contiguous)
            expanded = (far + near)[:, :height, :width]
            expected = image + rest_of_block(expanded, block) * block.ls.gamma[0]
            torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


def test_the_stem_and_a_first_block_are_plain_chains_without_skips() -> None:
    model = randomized(EMOv2(TINY, (4,))).double()
    image = torch.randn(1, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    silu = torch.nn.functional.silu
    with torch.inference_mode():
        (actual,) = model(image)
        patches, depthwise, pointwise = model.stage0
        x = silu(patches.norm(patches.conv(image)))
        x = pointwise.conv(silu(depthwise.norm(depthwise.conv(x))))
        first, second = model.stage1
        y = silu(first.eops[0].net.conv(first.norm(x)))
        x = first.ls.gamma * first.proj.conv(silu(first.conv_local.norm(first.conv_local.conv(y))))
        y = silu(second.eops[0].net.conv(second.norm(x)))
        y = y + silu(second.conv_local.norm(second.conv_local.conv(y)))
        expected = x + second.ls.gamma * second.proj.conv(y)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (50, 46)])
def test_folding_changes_nothing_and_leaves_neither_batch_norms_nor_layer_scales(height: int, width: int) -> None:
    model = randomized(EMOv2(TINY, (4, 8, 16, 32), window=TINY_WINDOW, classes=5)).double()
    lean = folded(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in lean.modules())
    assert not any(key.endswith("gamma") for key in lean.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(folded(lean).parameters(), lean.parameters(), strict=True))
    image = torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        pairs = [*zip(lean(image), model(image), strict=True), (lean.classify(image), model.classify(image))]
    for actual, expected in pairs:
        assert (actual - expected).abs().max() < 1e-10 * expected.abs().max()


def test_every_block_is_of_the_second_version_with_kernels_of_5() -> None:
    blocks = [module for module in on_meta("1M", (32,)).modules() if hasattr(module, "conv_local")]
    assert len(blocks) == 15
    assert all(isinstance(block, ImprovedInvertedResidualMobileBlock) for block in blocks)
    assert {block.conv_local.conv.kernel_size for block in blocks} == {(5, 5)}
