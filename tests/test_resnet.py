"""ResNet: the published sizes and keys, folding, weights of the whole network in a cut one.

Parameter counts: torchvision's documentation (resnet18 11,689,512, wide_resnet50_2 68,883,240).
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for module in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

import backbone_checks as checks  # noqa: E402 - only where torch is installed

from onceover.backbones.resnet import RESNET18, WIDE_RESNET50, ResNet, Variant, resnet18, wide_resnet50  # noqa: E402
from onceover.backbones.weights import load_into, save_weights  # noqa: E402
from onceover.errors import InputError, UsageError  # noqa: E402

TINY = Variant((2, 1, 1, 1), bottleneck=True, width=2)


@pytest.mark.parametrize(("make", "count"), [(resnet18, 11_689_512), (wide_resnet50, 68_883_240)])
def test_parameters_are_those_of_the_public_implementation(make: type[ResNet], count: int) -> None:
    assert checks.parameters(checks.on_meta(lambda: make((8, 16), classes=1000))) == count


def published_keys(variant: Variant) -> set[str]:
    """Of torchvision, and of timm."""
    keys = {*checks.norm_keys("conv1", "bn1"), "fc.weight", "fc.bias"}
    for layer, depth in enumerate(variant.depths, start=1):
        for i in range(depth):
            block = f"layer{layer}.{i}"
            for j in range(1, 4 if variant.bottleneck else 3):
                keys |= set(checks.norm_keys(f"{block}.conv{j}", f"{block}.bn{j}"))
            if i == 0 and (layer > 1 or variant.bottleneck):
                keys |= set(checks.norm_keys(f"{block}.downsample.0", f"{block}.downsample.1"))
    return keys


@pytest.mark.parametrize("variant", [RESNET18, WIDE_RESNET50])
def test_keys_are_those_of_the_public_implementation(variant: Variant) -> None:
    model = checks.on_meta(lambda: ResNet(variant, (32,), classes=1000))
    assert set(model.state_dict()) == published_keys(variant)


@pytest.mark.parametrize("size", checks.SIZES)
def test_taps_have_their_channels_at_any_size(size: tuple[int, int]) -> None:
    for variant, channels in ((RESNET18, (64, 128, 256, 512)), (WIDE_RESNET50, (256, 512, 1024, 2048))):
        model = checks.on_meta(lambda variant=variant: ResNet(variant, (4, 8, 16, 32)))
        cells = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
        assert checks.shapes_at(model, size) == [(c, *cell) for c, cell in zip(channels, cells, strict=True)]


def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution() -> None:
    block = checks.on_meta(lambda: wide_resnet50((8,))).layer2[0]
    assert [block.get_submodule(f"conv{i}").stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]
    assert [block.get_submodule(f"conv{i}").out_channels for i in (1, 2, 3)] == [256, 256, 512]


@pytest.mark.parametrize("variant", [RESNET18, TINY])
def test_folding_changes_nothing_and_leaves_no_norm(variant: Variant) -> None:
    model = checks.randomized(ResNet(variant, (4, 8, 16)))
    assert checks.folding_error(model) < 1e-12
    graph = checks.static_graph(model)
    assert "BatchNormalization" not in {operation for operation, _ in graph}


def test_weights_of_the_whole_network_fill_a_cut_one_and_foreign_keys_are_refused(tmp_path: Path) -> None:
    whole = checks.randomized(ResNet(TINY, (32,), classes=5))
    save_weights(tmp_path / "w.safetensors", whole.state_dict(), checks.CARD)
    cut = ResNet(TINY, (4, 8)).eval()
    load_into(cut, tmp_path / "w.safetensors")
    image = torch.randn(1, 3, 33, 61)
    with torch.inference_mode():
        for ours, theirs in zip(cut(image), whole._through(image, 2), strict=True):
            assert torch.equal(ours, theirs)
        assert whole.classify(image).shape == (1, 5)
    with pytest.raises(UsageError, match="without a classifier"):
        cut.classify(image)
    save_weights(tmp_path / "f.safetensors", {**whole.state_dict(), "layer5.0.conv1.weight": image}, checks.CARD)
    with pytest.raises(InputError, match=r"unexpected: layer5\.0\.conv1\.weight"):
        load_into(cut, tmp_path / "f.safetensors")
