"""MobileNetV4-conv-small: counts and keys of timm's network, foldings, exports.

Parameter counts: those of timm's implementation, whose layout of keys is ours. Kernels and strides: the paper's table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for module in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

import backbone_checks as checks  # noqa: E402 - only where torch is installed

from onceover.backbones.backbone import IMAGENET_NORMALIZATION  # noqa: E402
from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.mobilenetv4 import (  # noqa: E402
    HALF_NORMALIZATION,
    Bottleneck,
    MobileNetV4ConvSmall,
    UniversalBottleneck,
    mobilenetv4_conv_small,
)
from onceover.backbones.weights import load_into, save_weights  # noqa: E402
from onceover.errors import UsageError  # noqa: E402
from onceover.export.to_onnx import describe  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
ALL = (4, 8, 16, 32)
# (first depthwise kernel, second, expansion, stride) of each bottleneck, kernel 0: absent
STAGE_16 = [(5, 5, 3, 2), (0, 3, 2, 1), (0, 3, 2, 1), (0, 3, 2, 1), (0, 3, 2, 1), (3, 0, 4, 1)]
STAGE_32 = [(3, 3, 6, 2), (5, 5, 4, 1), (0, 5, 4, 1), (0, 5, 3, 1), (0, 3, 4, 1), (0, 3, 4, 1)]


def made(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> MobileNetV4ConvSmall:
    return checks.randomized(mobilenetv4_conv_small(strides, classes))


def test_parameter_counts_are_the_published_ones() -> None:
    whole = checks.on_meta(lambda: mobilenetv4_conv_small((32,), 1000))
    assert checks.parameters(whole) == 3_774_024
    assert checks.parameters(whole) - checks.parameters(whole.classifier) == 2_493_024
    assert checks.parameters(checks.on_meta(lambda: mobilenetv4_conv_small((4, 8, 16)))) == 317_568


@pytest.mark.parametrize("size", checks.SIZES)
def test_taps_have_the_published_widths_and_sizes(size: tuple[int, int]) -> None:
    model = checks.on_meta(lambda: mobilenetv4_conv_small(ALL))
    assert checks.shapes_at(model, size) == [
        (channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in zip((32, 64, 96, 128), ALL, strict=True)
    ]


def timm_keys() -> list[str]:
    """In order of execution."""
    keys = checks.norm_keys("conv_stem", "bn1")
    for group in (0, 1):
        for layer in (0, 1):
            keys += checks.norm_keys(f"blocks.{group}.{layer}.conv", f"blocks.{group}.{layer}.bn1")
    for group, plans in ((2, STAGE_16), (3, STAGE_32)):
        for index, (start, middle, _, _) in enumerate(plans):
            parts = ["dw_start"] * (start > 0) + ["pw_exp"] + ["dw_mid"] * (middle > 0) + ["pw_proj"]
            for part in parts:
                keys += checks.norm_keys(f"blocks.{group}.{index}.{part}.conv", f"blocks.{group}.{index}.{part}.bn")
    keys += checks.norm_keys("blocks.4.0.conv", "blocks.4.0.bn1") + checks.norm_keys("conv_head", "norm_head")
    return [*keys, "classifier.weight", "classifier.bias"]


def test_our_keys_are_timm_s() -> None:
    model = checks.on_meta(lambda: mobilenetv4_conv_small(ALL, 1000))
    assert list(model.state_dict()) == timm_keys()
    assert model.name_maps == ()


def test_kernels_strides_and_expansions_are_those_of_the_paper() -> None:
    model = checks.on_meta(lambda: mobilenetv4_conv_small(ALL))
    for group, plans in ((2, STAGE_16), (3, STAGE_32)):
        for block, (start, middle, expansion, stride) in zip(model.blocks[group], plans, strict=True):
            kernels = [0 if part is None else part.conv.kernel_size[0] for part in (block.dw_start, block.dw_mid)]
            assert kernels == [start, middle]
            assert block.pw_exp.conv.out_channels == expansion * block.pw_exp.conv.in_channels
            strides = [1 if part is None else part.conv.stride[0] for part in (block.dw_start, block.dw_mid)]
            assert strides == [1, stride]
            assert block.has_skip == (stride == 1)


@pytest.mark.parametrize(("start", "middle"), [(0, 0), (3, 0), (0, 5), (5, 3)])
def test_a_bottleneck_is_a_sum_of_what_its_parts_say(start: int, middle: int) -> None:
    torch.manual_seed(3)
    block = UniversalBottleneck(8, Bottleneck(start, middle, 2, 8)).eval()
    x = torch.randn(1, 8, 9, 7)
    with torch.inference_mode():
        y = block.dw_start(x) if start else x
        y = block.pw_exp(y).clamp(min=0)
        y = block.dw_mid(y).clamp(min=0) if middle else y
        y = block.pw_proj(y)
        torch.testing.assert_close(block(x), x + y)
    assert (y < 0).any()  # the last one has no activation


def test_without_a_second_depthwise_convolution_the_first_one_strides() -> None:
    block = UniversalBottleneck(8, Bottleneck(3, 0, 2, 16, stride=2)).eval()
    assert block(torch.zeros(1, 8, 9, 7)).shape == (1, 16, 5, 4)


def test_folding_is_exact_and_leaves_no_norm() -> None:
    assert checks.folding_error(made(ALL)) < 1e-10
    once = folded(made((32,), classes=5))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in once.modules())
    twice = folded(once)
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items())


def test_the_classifier_folds_too() -> None:
    model, image = made((32,), classes=5).double(), torch.randn(2, 3, 40, 64, dtype=torch.float64)
    with torch.inference_mode():
        logits = model.classify(image)
        assert logits.shape == (2, 5)
        torch.testing.assert_close(folded(model).classify(image), logits, rtol=1e-10, atol=1e-10)
    with pytest.raises(UsageError, match="without a classifier"):
        made().classify(image)


def test_weights_of_the_whole_network_fill_a_cut_one(tmp_path: Path) -> None:
    whole, path = made(ALL, classes=5), tmp_path / "w.safetensors"
    save_weights(path, whole.state_dict(), checks.CARD)
    cut = mobilenetv4_conv_small((4, 8)).eval()
    load_into(cut, path)
    image = torch.randn(1, 3, 33, 61)
    with torch.inference_mode():
        for ours, theirs in zip(cut(image), whole(image)[:2], strict=True):
            assert torch.equal(ours, theirs)
    assert not cut.may_ignore("blocks.5.0.conv.weight")
    assert not cut.may_ignore("blocks.1.2.conv.weight")


def test_normalization_travels_with_the_weights_into_the_graph() -> None:
    model = mobilenetv4_conv_small((4, 8))
    assert model.normalization == IMAGENET_NORMALIZATION
    model.normalization = HALF_NORMALIZATION  # of the e3600 weights
    facts = describe(model.stages, (16, 16), (64, 64), 3, model.normalization, checks.CARD, "mobilenetv4_conv_small")
    assert (facts["mean"], facts["std"]) == ([0.5] * 3, [0.5] * 3)


def test_strides_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="strides must be rising"):
        mobilenetv4_conv_small((2, 8))


def test_an_exported_folded_network_is_convolutions_only() -> None:
    graph = checks.static_graph(folded(made((8, 16))))
    assert "BatchNormalization" not in {operation for operation, _ in graph}
    assert sum(operation == "Conv" for operation, _ in graph) == 1 + 4 + 4 + 4 * 3 + 3
