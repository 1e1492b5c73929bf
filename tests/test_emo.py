"""EMO: the published sizes and keys, strided window attention against a slow reference, folding, export at any size.

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
    multiplications,
    norm_by_hand,
    padded_by_hand,
    parameters,
    pointwise_by_hand,
    randomized,
    rest_of_block,
    strided,
)

from onceover.backbones import create_backbone, emo  # noqa: E402
from onceover.backbones.backbone import Normalization  # noqa: E402
from onceover.backbones.emo import EMO, StridedWindows, Variant  # noqa: E402
from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.weights import WeightsCard, save_weights  # noqa: E402
from onceover.errors import InputError, UsageError  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)

# variant → parameters of stages 0 … 4, the last norm and the head; all of them; state-dict entries; buffer elements;
# multiply-accumulates through stage 4 at 224
PUBLISHED = {
    "1M": ((2_760, 11_504, 27_840, 452_704, 697_024, 336, 169_000), 1_361_168, 217, 8_677, 255_069_672),
    "2M": ((2_760, 16_432, 40_896, 1_062_624, 1_053_360, 400, 201_000), 2_377_472, 258, 12_618, 431_717_024),
    "5M": ((2_760, 29_040, 105_792, 2_346_384, 2_335_296, 576, 289_000), 5_108_848, 258, 21_322, 891_936_000),
    "6M": ((2_760, 29_040, 105_792, 2_346_384, 3_362_880, 640, 321_000), 6_168_496, 258, 23_754, 949_930_048),
}
CHANNELS = {"1M": (32, 48, 80, 168), "2M": (32, 48, 120, 200), "5M": (48, 72, 160, 288), "6M": (48, 72, 160, 320)}
HEADS = {"1M": (4, 8), "2M": (6, 10), "5M": (5, 9), "6M": (8, 10)}


def variant(size: str) -> Variant:
    found: Variant = getattr(emo, f"EMO_{size}")
    return found


def on_meta(size: str, strides: tuple[int, ...], window: int | None = None, classes: int = 0) -> EMO:
    """The network without memory for its weights: shapes only."""
    with torch.device("meta"):
        return EMO(variant(size), strides, window, classes).eval()


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_entries_are_those_of_the_public_implementation(size: str) -> None:
    rooms, whole, entries, buffers, _ = PUBLISHED[size]
    model = on_meta(size, (8, 16), classes=1000)
    assert tuple(parameters(room) for room in model.children()) == rooms
    assert parameters(model) == whole
    assert len(model.state_dict()) == entries
    assert sum(buffer.numel() for buffer in model.buffers()) == buffers


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_network_is_cut_after_the_last_stage_that_is_asked_for(size: str) -> None:
    rooms = PUBLISHED[size][0]
    for stages, strides in ((2, (4,)), (3, (8,)), (4, (4, 8, 16)), (4, (8, 16)), (5, (32,))):
        assert parameters(on_meta(size, strides)) == sum(rooms[:stages])


@pytest.mark.parametrize("size", PUBLISHED)
def test_multiplications_are_those_of_the_public_implementation(size: str) -> None:
    assert multiplications(on_meta(size, (32,)), 224, 224) == PUBLISHED[size][4]


def test_a_window_that_divides_the_maps_saves_what_the_padding_costs() -> None:
    head = 168_000
    fitting, padded = (multiplications(on_meta("1M", (32,), window), 256, 256) + head for window in (8, 7))
    assert round(fitting / 1e5) == 3383  # the 338.3 million of the public implementation
    assert 1.1 * fitting < padded < 0.9 * 430.2e6  # which needs 430.2: it expands the padding, too


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize(("height", "width"), [(224, 224), (256, 256), (250, 230)])
def test_taps_have_the_published_channels_at_any_size(size: str, height: int, width: int) -> None:
    model = on_meta(size, (4, 8, 16, 32))
    shapes = [tuple(stage.shape) for stage in model(torch.zeros(1, 3, height, width, device="meta"))]
    cells = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    assert shapes == [(1, channels, *grid) for channels, grid in zip(CHANNELS[size], cells, strict=True)]
    assert [stage.channels for stage in model.stages] == list(CHANNELS[size])


@pytest.mark.parametrize("size", PUBLISHED)
def test_attention_has_the_published_heads_and_begins_in_the_second_block_of_stage_3(size: str) -> None:
    model = on_meta(size, (32,))
    heads = [[block.heads for block in getattr(model, f"stage{stage}")] for stage in (1, 2, 3, 4)]
    depths = variant(size).depths
    late = [[0] + [count] * (depth - 1) for count, depth in zip(HEADS[size], depths[2:], strict=True)]
    assert heads == [[0] * depths[0], [0] * depths[1], *late]


def test_the_published_window_and_normalization_are_the_default() -> None:
    model = on_meta("1M", (32,))
    assert {block.window for block in model.stage4} == {7}
    assert model.normalization == Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_every_norm_has_the_published_epsilon() -> None:
    norms = [m for m in on_meta("1M", (32,), classes=1000).modules() if hasattr(m, "eps")]
    assert len(norms) == 2 + 2 * 15 + 1  # stem, two for each block, the last one
    assert {norm.eps for norm in norms} == {1e-6}


def official_keys(depths: tuple[int, ...]) -> set[str]:
    """The keys of a released checkpoint."""
    affine = ("weight", "bias")
    batch_norm = (*affine, "running_mean", "running_var", "num_batches_tracked")
    keys = {f"stage0.0.convs.0.0.{leaf}" for leaf in affine} | {f"stage0.0.convs.0.1.{leaf}" for leaf in batch_norm}
    keys |= {f"stage0.1.se.{conv}.{leaf}" for conv in ("conv_reduce", "conv_expand") for leaf in affine}
    blocks = [(stage, index) for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    for stage, index in [(0, 1), *blocks]:
        block = f"stage{stage}.{index}"
        keys |= {f"{block}.conv_local.conv.weight", f"{block}.proj.conv.weight"}
        keys |= {f"{block}.conv_local.norm.{leaf}" for leaf in batch_norm}
        if stage:
            keys |= {f"{block}.v.conv.{leaf}" for leaf in affine}
        if stage in (1, 2):
            keys |= {f"{block}.norm.{leaf}" for leaf in batch_norm}
        if stage in (3, 4):
            keys |= {f"{block}.norm.norm.{leaf}" for leaf in affine}
            keys |= {f"{block}.qk.conv.{leaf}" for leaf in affine if index > 0}
    return keys | {f"{room}.{leaf}" for room in ("norm.norm", "head") for leaf in affine}


@pytest.mark.parametrize("size", PUBLISHED)
def test_our_keys_are_those_of_the_official_checkpoints(size: str) -> None:
    state = on_meta(size, (16,), classes=1000).state_dict()
    assert set(state) == official_keys(variant(size).depths)
    if size == "1M":
        shapes = {key: tuple(state[key].shape) for key in state if key.startswith("stage3.1.")}
        assert tuple(state["stage1.0.v.conv.weight"].shape) == (96, 24, 1, 1)
        assert shapes["stage3.1.qk.conv.weight"] == (160, 80, 1, 1)
        assert shapes["stage3.1.v.conv.weight"] == (240, 80, 1, 1)
        assert shapes["stage3.1.proj.conv.weight"] == (80, 240, 1, 1)


def test_a_whole_official_file_fills_a_cut_network_and_a_foreign_key_is_refused(tmp_path: Path) -> None:
    whole = randomized(EMO(emo.EMO_1M, (32,), classes=1000)).state_dict()
    save_weights(tmp_path / "whole.safetensors", whole, CARD)
    backbone = create_backbone("emo_1m", tmp_path / "whole.safetensors", strides=(8, 16))
    assert all(torch.equal(value, whole[key]) for key, value in backbone.state_dict().items())
    save_weights(tmp_path / "foreign.safetensors", {**whole, "stage5.0.norm.weight": torch.zeros(1)}, CARD)
    with pytest.raises(InputError, match=r"unexpected: stage5\.0\.norm\.weight"):
        create_backbone("emo_1m", tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("width", [7, 8, 14, 15, 16, 20, 28])
@pytest.mark.parametrize("height", [7, 8, 14, 15, 16, 20, 28])
def test_windows_are_strided_and_joining_undoes_splitting(height: int, width: int) -> None:
    windows = StridedWindows(height, width, 7)
    n1, n2 = windows.rows, windows.columns
    assert (n1, n2) == (-(-height // 7), -(-width // 7))
    x = torch.arange(2 * 6 * height * width, dtype=torch.float64).view(2, height, width, 6)
    padded = windows.pad(x)
    assert padded.shape == (2, 7 * n1, 7 * n2, 6)
    assert torch.equal(padded[:, :height, :width], x)
    assert padded.sum() == x.sum()
    tokens = windows.split(padded, heads=2)
    assert tokens.shape == (2 * n1 * n2, 2, 49, 3)
    assert torch.equal(windows.crop(windows.join(tokens)), x)
    places = torch.arange(7 * n1 * 7 * n2).view(1, 7 * n1, 7 * n2, 1)
    for index, window in enumerate(windows.split(places, heads=1)):
        a, b = divmod(index, n2)
        expected = {(a + i * n1) * 7 * n2 + b + j * n2 for i in range(7) for j in range(7)}
        assert set(window.flatten().tolist()) == expected


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (2, 3), (3, 2)])
def test_a_block_with_attention_matches_the_slow_and_obvious_one(height: int, width: int) -> None:
    block = randomized(EMO(TINY, (16,), window=TINY_WINDOW)).double().stage3[1]
    x = torch.randn(2, 16, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        actual = block(x)
        for image, answer in zip(x, actual, strict=True):
            normed = padded_by_hand(norm_by_hand(image, block.norm), TINY_WINDOW)  # padding behind the norm
            queries, keys = pointwise_by_hand(normed, block.qk.conv).split(16)
            window_of = strided(*normed.shape[1:])
            attended = attention_by_hand((queries, keys, normed), 2, TINY_WINDOW, window_of)
            expanded = torch.nn.functional.gelu(pointwise_by_hand(attended, block.v.conv))[:, :height, :width]
            expected = image + rest_of_block(expanded, block)
            torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


def test_the_stem_and_a_first_block_are_plain_chains_without_skips() -> None:
    model = randomized(EMO(TINY, (4,))).double()
    image = torch.randn(1, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    silu, sigmoid = torch.nn.functional.silu, torch.sigmoid
    with torch.inference_mode():
        (actual,) = model(image)
        conv, norm = model.stage0[0].convs[0]
        x = norm(conv(image))  # no activation
        stem = model.stage0[1]
        y = silu(stem.conv_local.norm(stem.conv_local.conv(x)))
        weights = sigmoid(stem.se.conv_expand(silu(stem.se.conv_reduce(y.mean(dim=(2, 3), keepdim=True)))))
        x = stem.proj.conv(y * weights)
        first, second = model.stage1
        y = silu(first.v.conv(first.norm(x)))
        x = first.proj.conv(silu(first.conv_local.norm(first.conv_local.conv(y))))
        y = silu(second.v.conv(second.norm(x)))
        expected = x + second.proj.conv(y + silu(second.conv_local.norm(second.conv_local.conv(y))))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (50, 46)])
def test_folding_changes_nothing_and_leaves_no_batch_norm(height: int, width: int) -> None:
    model = randomized(EMO(TINY, (4, 8, 16, 32), window=TINY_WINDOW, classes=5)).double()
    lean = folded(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in lean.modules())
    assert lean.stage3[1].qk.scale == 1.0
    image = torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        pairs = [*zip(lean(image), model(image), strict=True), (lean.classify(image), model.classify(image))]
    for actual, expected in pairs:
        assert (actual - expected).abs().max() < 1e-10 * expected.abs().max()


def test_folding_leaves_layer_norms_alone_because_padding_comes_behind_them() -> None:
    model = randomized(EMO(TINY, (32,), window=TINY_WINDOW))
    before = {key: value for key, value in model.state_dict().items() if ".norm.norm." in key}
    after = folded(model).state_dict()
    assert len(before) == 2 * 5
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_window_is_an_argument_of_architectures_that_have_one() -> None:
    image = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(3))
    published, stated, other = (create_backbone("emo_1m", None, random_init_seed=0, window=w) for w in (None, 7, 2))
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), other.parameters(), strict=True))
    with torch.inference_mode():
        assert torch.equal(published(image)[1], stated(image)[1])
        assert not torch.equal(published(image)[1], other(image)[1])
        assert torch.equal(published(image)[0], other(image)[0])  # no attention before stage 3
    with pytest.raises(UsageError, match=r"'mobilenetv2' has no attention windows; leave out window, got 8"):
        create_backbone("mobilenetv2", None, random_init_seed=0, window=8)


def test_arguments_that_make_no_sense_are_refused() -> None:
    for strides in ((), (16, 8), (8, 8), (3,)):
        with pytest.raises(UsageError, match="strides must be rising"):
            EMO(TINY, strides)
    with pytest.raises(UsageError, match="window must be at least 1, got 0"):
        EMO(TINY, window=0)
    with pytest.raises(UsageError, match="built without a classifier"):
        EMO(TINY).classify(torch.zeros(1, 3, 32, 32))
