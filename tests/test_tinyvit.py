"""TinyViT: counts, windows, attention, foldings, foreign checkpoints and exports.

Golden numbers: parameters, multiply-accumulates and keys are those of the public implementations (microsoft/Cream and
timm 1.0), counted there; multiply-accumulates of convolutions and matrix products only. What attention computes is
compared with loops written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402 - only where torch is installed

from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.patch_embedding import PatchEmbedding  # noqa: E402
from onceover.backbones.tinyvit import (  # noqa: E402
    Attention,
    Block,
    RelativePositions,
    TinyViT,
    from_windows,
    resize_bias,
    tinyvit_5m,
    tinyvit_11m,
    tinyvit_21m,
    to_windows,
    windows_of,
)
from onceover.backbones.weights import WeightsCard, load_into, save_weights  # noqa: E402
from onceover.errors import InputError, UsageError  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)
RELATIVE = 2e-5  # exported graph and torch, see README.md

DIMS = {"5m": (64, 128, 160, 320), "11m": (64, 128, 256, 448), "21m": (96, 192, 384, 576)}
# patch_embed, layers.0 … layers.3 (each with the downsampling behind it), norm_head, head of 1000 classes
PARTS = {
    "5m": (19_488, 98_944, 448_232, 2_030_520, 2_473_940, 640, 321_000),
    "11m": (19_488, 98_944, 501_896, 5_086_976, 4_839_772, 896, 449_000),
    "21m": (43_056, 216_000, 1_121_484, 11_247_840, 7_992_036, 1_152, 577_000),
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tiny(
    strides: tuple[int, ...] = (4, 8, 16, 32), window: int | None = 3, classes: int = 0, depth: int = 1
) -> TinyViT:
    """A small network in eval mode none of whose norms, biases and tables is a harmless default."""
    model = TinyViT((32, 32, 64, 96), strides, window, classes, (depth, depth, depth, depth))
    return randomized(model)


def randomized(model: TinyViT, seed: int = 0) -> TinyViT:
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.state_dict().items():
        if key.endswith(("running_var", "norm.weight", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.uniform_(-0.4, 0.4, generator=generator)
        elif key.endswith("attention_biases"):
            tensor.normal_(generator=generator)
        elif tensor.is_floating_point() and tensor.dim() > 0:
            tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", sorted(DIMS))
def test_every_part_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = TinyViT(DIMS[name], classes=1000)
    parts = (model.patch_embed, *model.layers, model.norm_head, model.head)
    assert tuple(parameters(part) for part in parts) == PARTS[name]
    assert parameters(model) == sum(PARTS[name])
    assert len(model.state_dict()) == 296


@pytest.mark.parametrize(
    ("factory", "published", "window_8"),
    [
        (tinyvit_5m, 2_438_784, 2_440_704),
        (tinyvit_11m, 5_385_192, 5_388_192),
        (tinyvit_21m, 12_066_780, 12_071_280),
    ],
)
def test_a_network_cut_at_stride_16_keeps_the_published_number_of_parameters(
    factory: Callable[..., TinyViT], published: int, window_8: int
) -> None:
    with torch.device("meta"):
        assert parameters(factory((4, 8, 16))) == parameters(factory()) == published
        assert parameters(factory(window=8)) == window_8


def test_the_22k_head_and_the_windows_change_the_count_as_published() -> None:
    with torch.device("meta"):
        assert parameters(TinyViT(DIMS["5m"], classes=21_841)) == 12_082_725
        assert parameters(TinyViT(DIMS["5m"], window=8, classes=1000)) == 5_394_984


# Millions at (224, published windows), (256, published windows), (256, windows 8/8/16/8), with the head.
@pytest.mark.parametrize(
    ("name", "millions"),
    [("5m", (1255.2, 2310.2, 1677.9)), ("11m", (2016.0, 4036.4, 2689.8)), ("21m", (4250.3, 8328.8, 5636.1))],
)
def test_multiply_accumulates_are_the_published_ones(name: str, millions: tuple[float, ...]) -> None:
    with torch.device("meta"):
        for size, window, expected in zip((224, 256, 256), (None, None, 8), millions, strict=True):
            model = TinyViT(DIMS[name], window=window, classes=1000).eval()
            with FlopCounterMode(display=False) as counter:
                model.classify(torch.empty(1, 3, size, size))
            assert counter.get_total_flops() / 2e6 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", sorted(DIMS))
@pytest.mark.parametrize("size", [(224, 224), (256, 256), (250, 230)])
def test_stages_have_the_channels_and_sizes_of_their_strides(name: str, size: tuple[int, int]) -> None:
    for window in (None, 8):
        with torch.device("meta"):
            model = TinyViT(DIMS[name], (4, 8, 16, 32), window).eval()
            shapes = [tuple(stage.shape) for stage in model(torch.empty(2, 3, *size))]
        strides = (4, 8, 16, 32)
        assert shapes == [(2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(DIMS[name], strides, strict=True)]
        assert [(stage.channels, stage.stride) for stage in model.stages] == list(zip(DIMS[name], strides, strict=True))


def test_a_stage_does_not_depend_on_where_the_network_is_cut() -> None:
    whole, image = tiny(), torch.randn(1, 3, 45, 38, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = dict(zip((4, 8, 16, 32), whole(image), strict=True))
        for strides in ((4,), (8,), (4, 16), (8, 16)):
            cut = TinyViT((32, 32, 64, 96), strides, 3, 0, (1, 1, 1, 1)).eval()
            tensors = whole.state_dict()
            assert all(key in cut.state_dict() or cut.may_ignore(key) for key in tensors)
            cut.load_state_dict({key: tensors[key] for key in cut.state_dict()})
            for stride, stage in zip(strides, cut(image), strict=True):
                torch.testing.assert_close(stage, expected[stride], rtol=0, atol=0)


def test_a_batch_answers_what_its_images_answer_alone() -> None:
    model, images = tiny(), torch.randn(3, 3, 50, 41, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together, alone = model(images), [model(image[None]) for image in images]
    for stage, *singles in zip(together, *alone, strict=True):
        torch.testing.assert_close(stage, torch.cat(singles), rtol=1e-5, atol=1e-5)


# Windows and attention


@pytest.mark.parametrize("size", [1, 3, 7, 8, 14])
def test_the_index_table_is_the_enumeration_of_the_reference_and_its_formula(size: int) -> None:
    index = RelativePositions(size).index.reshape(size * size, size * size)
    points = [(y, x) for y in range(size) for x in range(size)]
    offsets: dict[tuple[int, int], int] = {}
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            dy, dx = abs(a[0] - b[0]), abs(a[1] - b[1])
            enumerated = offsets.setdefault((dy, dx), len(offsets))
            assert index[i, j] == enumerated == dy * size + dx


@pytest.mark.parametrize("height", [7, 8, 14, 15, 16, 20, 28])
@pytest.mark.parametrize("size", [7, 8, 14, 16])
def test_windows_put_together_again_are_the_map(height: int, size: int) -> None:
    for width in (7, 8, 14, 15, 16, 20, 28):
        x = torch.arange(2 * 3 * height * width, dtype=torch.float32).reshape(2, height, width, 3)
        tokens = to_windows(x, size)
        assert tokens.shape == (2 * math.ceil(height / size) * math.ceil(width / size), size * size, 3)
        assert torch.equal(from_windows(tokens, size, height, width), x)


def test_a_window_is_a_tile_and_zeros_where_it_sticks_out() -> None:
    x = 1.0 + torch.arange(2 * 2 * 5 * 8, dtype=torch.float32).reshape(2, 5, 8, 2)
    tokens = to_windows(x, 3)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                for y in range(3):
                    for x_in in range(3):
                        actual = tokens[(image * 2 + row) * 3 + column, y * 3 + x_in]
                        i, j = row * 3 + y, column * 3 + x_in
                        assert torch.equal(actual, x[image, i, j] if i < 5 and j < 8 else torch.zeros(2))


def attended_by_hand(block: Block, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, H, W) → x + attention, token by token and head by head, from the definition."""
    weights = {key: tensor.numpy() for key, tensor in block.attn.state_dict().items()}
    channels, height, width = x.shape
    size, result = block.window, x.copy()
    for top in range(0, height, size):
        for left in range(0, width, size):
            cells = [(i, j) for i in range(top, top + size) for j in range(left, left + size)]
            qkv = []
            for i, j in cells:
                token = x[:, i, j] if i < height and j < width else np.zeros(channels)
                token = (token - token.mean()) / np.sqrt(token.var() + 1e-5)
                token = token * weights["norm.weight"] + weights["norm.bias"]
                qkv.append(weights["qkv.weight"] @ token + weights["qkv.bias"])
            for i, j in cells:
                if i >= height or j >= width:
                    continue
                mixed = np.zeros(channels)
                for head in range(channels // 32):
                    q, k, v = (slice(96 * head + 32 * part, 96 * head + 32 * (part + 1)) for part in range(3))
                    query = qkv[cells.index((i, j))][q]
                    logits = [
                        query @ key[k] / np.sqrt(32) + weights["attention_biases"][head, abs(i - a) * size + abs(j - b)]
                        for (a, b), key in zip(cells, qkv, strict=True)
                    ]
                    shares = np.exp(logits) / np.exp(logits).sum()
                    mixed[32 * head : 32 * (head + 1)] = sum(
                        share * value[v] for share, value in zip(shares, qkv, strict=True)
                    )
                result[:, i, j] += weights["proj.weight"] @ mixed + weights["proj.bias"]
    return result


@pytest.mark.parametrize("size", [(3, 3), (6, 3), (4, 5), (2, 7)])
def test_window_attention_matches_the_obvious_loops(size: tuple[int, int]) -> None:
    block = tiny(strides=(4, 8, 16)).double().layers[2].blocks[0]
    block.window, block.attn.positions = 3, RelativePositions(3)  # of 6, the double of the others
    block.attn.attention_biases = torch.nn.Parameter(resize_bias(block.attn.attention_biases.detach(), 3).double())
    block.mlp, block.local_conv = torch.nn.Flatten(0, -1), torch.nn.Identity()
    block.mlp.forward = torch.zeros_like  # what is behind attention is not looked at here
    x = torch.randn(1, 64, *size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.inference_mode():
        actual = block(x)[0].numpy()
    np.testing.assert_allclose(actual, attended_by_hand(block, x[0].numpy()), rtol=0, atol=1e-12)


def test_an_index_table_is_shared_by_all_blocks_of_its_window_and_never_saved() -> None:
    model = folded(tiny(depth=2)).to(torch.float64)
    blocks = [module for module in model.modules() if isinstance(module, Attention)]
    assert len(blocks) == 6
    assert len({id(block.positions) for block in blocks}) == 2  # windows of 3 and 6
    assert not any("index" in key or "idxs" in key for key in model.state_dict())


def test_the_published_windows_are_those_of_every_image_size() -> None:
    assert windows_of(7) == (7, 7, 14, 7)
    assert windows_of(8) == (8, 8, 16, 8)
    assert windows_of(12) == (12, 12, 24, 12)
    assert windows_of(16) == (16, 16, 32, 16)


@pytest.mark.parametrize("window", [0, -7])
def test_a_window_without_cells_is_refused(window: int) -> None:
    with pytest.raises(UsageError, match="at least 1 cell"):
        tinyvit_5m(window=window)


@pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (2, 4)])
def test_strides_that_make_no_sense_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="strides must be rising"):
        tinyvit_5m(strides)


# Weights of other windows


def bicubic_by_hand(row: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Keys' cubic with a = -0.75 at half-pixel centers along the last axis, the border repeated."""
    old = row.shape[-1]
    result = np.zeros((*row.shape[:-1], size))
    for i in range(size):
        center = (i + 0.5) * old / size - 0.5
        for cell in range(math.floor(center) - 1, math.floor(center) + 3):
            d = abs(center - cell)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            result[..., i] += (near if d <= 1 else far if d < 2 else 0.0) * row[..., min(max(cell, 0), old - 1)]
    return result


@pytest.mark.parametrize(("old", "new"), [(7, 8), (14, 16), (7, 12), (8, 7)])
def test_a_bias_table_is_resized_as_an_image_per_head(old: int, new: int) -> None:
    table = torch.randn(3, old * old, generator=torch.Generator().manual_seed(4))
    image = table.double().numpy().reshape(3, old, old)
    wide = bicubic_by_hand(image, new)
    expected = bicubic_by_hand(wide.swapaxes(1, 2), new).swapaxes(1, 2).reshape(3, new * new)
    np.testing.assert_allclose(resize_bias(table, new).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_bias_table_of_the_same_window_stays_the_same(dtype: torch.dtype) -> None:
    table = torch.randn(5, 49).to(dtype)
    assert torch.equal(resize_bias(table, 7), table)
    assert resize_bias(table, 8).dtype == dtype


@pytest.mark.parametrize("shape", [(5, 48), (49,), (1, 5, 49), (5, 0)])
def test_a_tensor_that_is_no_bias_table_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="attention biases"):
        resize_bias(torch.zeros(shape), 8)


def test_weights_of_another_window_are_resized_while_they_are_loaded(tmp_path: Path) -> None:
    published, path = tiny(window=None), tmp_path / "w.safetensors"
    tensors = published.state_dict()
    save_weights(path, tensors, CARD)
    other = tiny(strides=(8, 16), window=8)
    load_into(other, path)
    for i, size in ((1, 8), (2, 16)):
        key = f"layers.{i}.blocks.0.attn.attention_biases"
        assert torch.equal(other.state_dict()[key], resize_bias(tensors[key], size))
    same = tiny(window=7)
    load_into(same, path)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in same.state_dict().items())


def test_a_damaged_bias_table_is_named_with_its_file(tmp_path: Path) -> None:
    model, path, key = tiny((8, 16)), tmp_path / "w.safetensors", "layers.1.blocks.0.attn.attention_biases"
    save_weights(path, {**model.state_dict(), key: torch.zeros(1, 8)}, CARD)
    with pytest.raises(InputError, match=rf"w\.safetensors.*{key} expected \(1, 9\) got \(1, 8\)"):
        load_into(model, path)


# Checkpoints of others


def official_keys() -> list[str]:
    """The keys of the official inference state dict, written out from its module tree."""

    def conv(name: str) -> list[str]:
        statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{name}.c.weight", *(f"{name}.bn.{part}" for part in statistics)]

    def both(name: str) -> list[str]:
        return [f"{name}.weight", f"{name}.bias"]

    keys = conv("patch_embed.seq.0") + conv("patch_embed.seq.2")
    for i, depth in enumerate((2, 2, 6, 2)):
        for block in (f"layers.{i}.blocks.{j}" for j in range(depth)):
            if i == 0:
                keys += [key for part in ("conv1", "conv2", "conv3") for key in conv(f"{block}.{part}")]
                continue
            keys += [f"{block}.attn.attention_biases", *conv(f"{block}.local_conv")]
            linears = ("attn.norm", "attn.qkv", "attn.proj", "mlp.norm", "mlp.fc1", "mlp.fc2")
            keys += [key for part in linears for key in both(f"{block}.{part}")]
        if i < 3:
            keys += [key for part in ("conv1", "conv2", "conv3") for key in conv(f"layers.{i}.downsample.{part}")]
    return keys + both("norm_head") + both("head")


def timm_key(key: str) -> str:
    """timm's name of an official key."""
    key = key.replace(".c.weight", ".conv.weight")
    key = key.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace("patch_embed.seq.2.", "patch_embed.conv2.")
    for i in range(4):
        key = key.replace(f"layers.{i}.downsample.", f"stages.{i + 1}.downsample.")
        key = key.replace(f"layers.{i}.blocks.", f"stages.{i}.blocks.")
    return key.replace("norm_head.", "head.norm.") if key.startswith("norm_head.") else key.replace("head.", "head.fc.")


def test_foreign_keys_rename_one_to_one_onto_ours() -> None:
    with torch.device("meta"):
        model = TinyViT(DIMS["5m"], classes=1000)
    ours, official = set(model.state_dict()), official_keys()
    assert len(official) == 296
    maps = {name_map.source: name_map for name_map in model.name_maps}
    assert sorted(maps) == ["official", "timm"]
    for source, keys in (("official", official), ("timm", [timm_key(key) for key in official])):
        renamed = [maps[source].rename(key) for key in keys]
        assert renamed == official
        assert set(renamed) == ours
        assert maps[source].rename(keys[100].split(".blocks")[0] + ".blocks.0.attn.attention_bias_idxs") is None
        other = maps["timm" if source == "official" else "official"]
        with pytest.raises(KeyError):  # no checkpoint passes for one of the other layout
            list(map(other.rename, keys))


@pytest.mark.parametrize("key", ["layers.4.blocks.0.x", "features.0.weight", "head", "stem.weight", "headless.weight"])
def test_keys_of_another_network_are_not_renamed(key: str) -> None:
    for name_map in tiny((4,)).name_maps:
        with pytest.raises(KeyError):
            name_map.rename(key)


def test_only_parts_that_were_not_built_may_be_ignored() -> None:
    cut, whole = tiny((4, 8)), tiny(classes=10)
    behind = {"layers.1.downsample.conv1.c.weight", "layers.2.blocks.0.attn.qkv.bias", "head.bias", "norm_head.bias"}
    assert all(cut.may_ignore(key) and not whole.may_ignore(key) for key in behind)
    for key in ("layers.0.downsample.conv1.c.weight", "layers.1.blocks.9.x", "layers.4.x", "layers.3x.y", "other.bias"):
        assert not cut.may_ignore(key)
        assert not whole.may_ignore(key)
    assert not whole.may_ignore("layers.3.downsample.conv1.c.weight")


def test_a_network_without_a_head_does_not_classify() -> None:
    image = torch.zeros(2, 3, 33, 40)
    assert tiny(classes=10).classify(image).shape == (2, 10)
    with pytest.raises(UsageError, match="without a classifier"):
        tiny().classify(image)


# Folding and export


def test_folding_changes_nothing_and_leaves_no_norm_to_compute() -> None:
    model = tiny(classes=10, depth=2).double()
    image = torch.randn(1, 3, 75, 50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    once = folded(model)
    twice = folded(once)
    with torch.inference_mode():
        expected = [*model(image), model.classify(image)]
        for other in (once, twice):
            for a, b in zip([*other(image), other.classify(image)], expected, strict=True):
                assert (a - b).abs().max() < 1e-10 * b.abs().max()
    assert not any(module.training for module in once.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in once.modules())
    affine = [name for name, m in once.named_modules() if isinstance(m, torch.nn.LayerNorm) and m.elementwise_affine]
    assert affine == ["norm_head"]  # behind a mean, where it costs nothing
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())  # a copy was folded


def test_an_exported_graph_computes_what_torch_computes_with_one_index_table_per_window() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from onceover.export.to_onnx import to_onnx

    model = randomized(TinyViT((32, 32, 32, 32), (4, 8), 7, 0, (1, 2, 1, 1)))
    content = to_onnx(PatchEmbedding(folded(model)), 75, 90, CARD, "tiny")  # raises where the numbers differ
    graph = onnx.load_from_string(content).graph
    assert not {"BatchNormalization", "If", "Loop", "Einsum"} & {node.op_type for node in graph.node}
    assert len([tensor for tensor in graph.initializer if 49 * 49 in tensor.dims]) <= 1
