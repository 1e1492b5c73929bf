"""RepViT: counts and keys of the published networks, and token mixers that fold into one convolution.

Parameter counts: those of the official implementation and of timm's. Layouts of keys: theirs, in order of execution.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for module in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

import backbone_checks as checks  # noqa: E402 - only where torch is installed

from onceover.backbones.backbone import IMAGENET_NORMALIZATION  # noqa: E402
from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.repvit import DepthwiseBranches, RepViT, repvit_m0_9, repvit_m1_0  # noqa: E402
from onceover.backbones.weights import load_into, save_weights  # noqa: E402
from onceover.errors import UsageError  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
ALL = (4, 8, 16, 32)
TINY_DEPTHS = (1, 2, 3, 1)


def tiny(strides: tuple[int, ...] = (8, 16), classes: int = 0) -> RepViT:
    return checks.randomized(RepViT((8, 16, 24, 32), TINY_DEPTHS, strides, classes))


@pytest.mark.parametrize(
    ("make", "whole", "features", "through_stride_16", "folded_whole", "folded_through_stride_16"),
    [
        (repvit_m0_9, 5_489_328, 4_717_792, 2_627_584, 5_067_056, 2_601_256),
        (repvit_m1_0, 7_302_796, 6_403_004, 3_563_020, 6_810_312, 3_532_304),
    ],
)
def test_parameter_counts_are_the_published_ones(
    make: Callable[..., RepViT],
    whole: int,
    features: int,
    through_stride_16: int,
    folded_whole: int,
    folded_through_stride_16: int,
) -> None:
    assert checks.parameters(checks.on_meta(lambda: make((32,), 1000))) == whole
    model = checks.on_meta(lambda: make(ALL))
    assert checks.parameters(model) == features
    cut = checks.on_meta(lambda: make((8, 16)))
    assert checks.parameters(cut) == through_stride_16
    assert checks.parameters(folded(cut)) == folded_through_stride_16
    head = (model.stages[-1].channels + 1) * 1000  # two heads, each a norm and a linear layer, are one linear layer
    assert checks.parameters(folded(model)) + head == folded_whole


@pytest.mark.parametrize("size", checks.SIZES)
@pytest.mark.parametrize(("make", "first"), [(repvit_m0_9, 48), (repvit_m1_0, 56)])
def test_taps_have_the_published_widths_and_sizes(
    make: Callable[..., RepViT], first: int, size: tuple[int, int]
) -> None:
    model = checks.on_meta(lambda: make(ALL))
    assert [stage.name for stage in model.stages] == ["features.2", "features.6", "features.22", "features.26"]
    assert checks.shapes_at(model, size) == [
        (first * 2**i, -(-size[0] // stride), -(-size[1] // stride)) for i, stride in enumerate(ALL)
    ]


def test_a_cut_network_answers_what_the_whole_one_does() -> None:
    whole = tiny(ALL, classes=5)
    cut = RepViT((8, 16, 24, 32), TINY_DEPTHS, (4, 16)).eval()
    cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.state_dict()})
    image = torch.randn(1, 3, 33, 61)
    with torch.inference_mode():
        stages = whole(image)
        for ours, theirs in zip(cut(image), (stages[0], stages[2]), strict=True):
            assert torch.equal(ours, theirs)


def test_squeeze_and_excitation_is_in_every_other_block_and_its_width_a_quarter() -> None:
    model = checks.on_meta(lambda: repvit_m0_9(ALL))
    widths = {
        index: block.token_mixer[1].fc1.out_channels
        for index, block in enumerate(model.features)
        if index > 0 and hasattr(block.token_mixer[1], "fc1")
    }
    assert widths == {1: 16, 5: 24, **dict.fromkeys(range(9, 22, 2), 48), 25: 96}


def conv_norm(prefix: str) -> list[str]:
    return checks.norm_keys(f"{prefix}.c", f"{prefix}.bn")


def mixer(token: str, excitation: str | None) -> list[str]:
    keys = [*conv_norm(f"{token}.conv"), f"{token}.conv1.weight", f"{token}.conv1.bias"]
    keys += [f"{token}.bn.{leaf}" for leaf in checks.NORM]
    if excitation is not None:
        keys += [f"{excitation}.{layer}.{leaf}" for layer in ("fc1", "fc2") for leaf in ("weight", "bias")]
    return keys


def head_keys(first: str, second: str) -> list[str]:
    return [
        key
        for head in (first, second)
        for key in (*(f"{head}.bn.{leaf}" for leaf in checks.NORM), f"{head}.l.weight", f"{head}.l.bias")
    ]


def official_keys(depths: tuple[int, ...]) -> list[str]:
    """One row per feature block: (stride, squeeze and excitation), as the official code configures it."""
    rows: list[tuple[int, bool]] = []
    for stage, depth in enumerate(depths):
        rows += [(2, False)] * (stage > 0) + [(1, block % 2 == 0) for block in range(depth)]
        rows += [(1, False)] * (stage < 3)
    keys = [*conv_norm("features.0.0"), *conv_norm("features.0.2")]
    for index, (stride, squeeze) in enumerate(rows, start=1):
        token, channel = f"features.{index}.token_mixer", f"features.{index}.channel_mixer.m"
        if stride == 2:
            keys += [*conv_norm(f"{token}.0"), *conv_norm(f"{token}.2")]
        else:
            keys += mixer(f"{token}.0", f"{token}.1" if squeeze else None)
        keys += [*conv_norm(f"{channel}.0"), *conv_norm(f"{channel}.2")]
    return keys + head_keys("classifier.classifier", "classifier.classifier_dist")


def timm_keys(depths: tuple[int, ...]) -> list[str]:
    def block(prefix: str, squeeze: bool) -> list[str]:
        channel = f"{prefix}.channel_mixer"
        return [
            *mixer(f"{prefix}.token_mixer", f"{prefix}.se" if squeeze else None),
            *conv_norm(f"{channel}.conv1"),
            *conv_norm(f"{channel}.conv2"),
        ]

    keys = [*conv_norm("stem.conv1"), *conv_norm("stem.conv2")]
    for stage, depth in enumerate(depths):
        if stage > 0:
            down = f"stages.{stage}.downsample"
            keys += block(f"{down}.pre_block", squeeze=False)
            for part in ("spatial_downsample", "channel_downsample", "ffn.conv1", "ffn.conv2"):
                keys += conv_norm(f"{down}.{part}")
        for index in range(depth):
            keys += block(f"stages.{stage}.blocks.{index}", squeeze=index % 2 == 0)
    return keys + head_keys("head.head", "head.head_dist")


@pytest.mark.parametrize("make", [repvit_m0_9, repvit_m1_0])
def test_our_keys_are_the_official_ones_and_timm_s_are_mapped_one_to_one(make: Callable[..., RepViT]) -> None:
    model = checks.on_meta(lambda: make(ALL, 1000))
    depths = (2, 2, 14, 2)
    assert list(model.state_dict()) == official_keys(depths)
    (timm,) = model.name_maps
    assert timm.source == "timm"
    assert checks.renamed(timm, timm_keys(depths)) == official_keys(depths)
    assert checks.renamed(timm, official_keys(depths)) is None


def test_weights_of_the_whole_network_fill_a_cut_one(tmp_path: Path) -> None:
    whole, path = tiny(ALL, classes=5), tmp_path / "w.safetensors"
    save_weights(path, whole.state_dict(), checks.CARD)
    cut = RepViT((8, 16, 24, 32), TINY_DEPTHS, (8,))
    load_into(cut, path)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in cut.state_dict().items())
    assert not cut.may_ignore("features.14.token_mixer.0.bn.bias")  # the whole network has features 0 … 13
    assert not cut.may_ignore("features.1.other")


def test_folding_is_exact() -> None:
    assert checks.folding_error(tiny(ALL)) < 1e-10
    assert checks.folding_error(checks.randomized(repvit_m0_9((4, 8, 16)))) < 1e-10


def test_a_folded_token_mixer_is_the_sum_of_three_kernels_by_hand() -> None:
    mixer = tiny().features[1].token_mixer[0].double()
    first = mixer.conv.bn.weight / torch.sqrt(mixer.conv.bn.running_var + 1e-5)
    last = mixer.bn.weight / torch.sqrt(mixer.bn.running_var + 1e-5)
    kernel = mixer.conv.c.weight * first.view(-1, 1, 1, 1)
    kernel[:, :, 1, 1] += mixer.conv1.weight[:, :, 0, 0] + 1
    bias = mixer.conv.bn.bias - mixer.conv.bn.running_mean * first + mixer.conv1.bias
    bias = mixer.bn.bias + (bias - mixer.bn.running_mean) * last
    once = folded(mixer)
    assert [tuple(parameter.shape) for parameter in once.parameters()] == [(8, 1, 3, 3), (8,)]
    torch.testing.assert_close(once.conv.c.weight, kernel * last.view(-1, 1, 1, 1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(once.conv.c.bias, bias, rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_original_alone_and_folding_twice_changes_nothing() -> None:
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    once = folded(model)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    twice = folded(once)
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items())
    kinds = {type(module) for module in once.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    assert {value.dtype for value in once.state_dict().values()} == {torch.float32}
    assert all(module.conv1 is None for module in once.modules() if isinstance(module, DepthwiseBranches))


def test_folding_in_float32_stays_within_its_rounding() -> None:
    model, image = tiny(ALL), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for before, after in zip(model(image), folded(model)(image), strict=True):
            assert (before - after).abs().max() < 1e-5 * before.abs().max()


def test_the_classifier_is_the_mean_of_its_two_heads() -> None:
    model, image = tiny((32,), classes=5), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        mean = model(image)[0].mean(dim=(2, 3))
        heads = (model.classifier.classifier(mean), model.classifier.classifier_dist(mean))
        torch.testing.assert_close(model.classify(image), (heads[0] + heads[1]) / 2)
    with pytest.raises(UsageError, match="without a classifier"):
        tiny().classify(image)


def test_strides_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="strides must be rising"):
        repvit_m0_9((2, 8))


def test_it_expects_the_normalization_of_imagenet() -> None:
    assert tiny().normalization == IMAGENET_NORMALIZATION
    assert IMAGENET_NORMALIZATION.mean == (0.485, 0.456, 0.406)
    assert IMAGENET_NORMALIZATION.std == (0.229, 0.224, 0.225)


def test_an_exported_folded_network_has_one_depthwise_convolution_per_block() -> None:
    graph = checks.static_graph(folded(tiny((4, 8))))
    assert "BatchNormalization" not in {operation for operation, _ in graph}
    assert sum(groups > 1 for operation, groups in graph if operation == "Conv") == 1 + 1 + 1 + 2
