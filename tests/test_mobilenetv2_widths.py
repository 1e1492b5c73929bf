"""MobileNetV2 as torchvision builds it, at five widths: counts, keys of four code bases, foldings, exports.

Parameter counts: those of the public implementations. Layouts of keys: theirs, in order of execution.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for module in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

import backbone_checks as checks  # noqa: E402 - only where torch is installed

from onceover import registry  # noqa: E402
from onceover.backbones import create_backbone  # noqa: E402
from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Normalization  # noqa: E402
from onceover.backbones.folding import folded  # noqa: E402
from onceover.backbones.mobilenetv2 import (  # noqa: E402
    MobileNetV2,
    TorchvisionMobileNetV2,
    mobilenetv2,
    mobilenetv2_050,
)
from onceover.backbones.weights import save_weights  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
ALL = (4, 8, 16, 32)
WIDTHS = {
    "mobilenetv2_w035": 0.35,
    "mobilenetv2_w050": 0.5,
    "mobilenetv2_w075": 0.75,
    "mobilenetv2_w100": 1.0,
    "mobilenetv2_w140": 1.4,
}


@pytest.mark.parametrize(
    ("width", "whole", "no_classifier", "through_stride_32", "through_stride_16", "taps"),
    [
        (0.35, 1_677_128, 396_128, 250_208, 85_440, [8, 16, 32]),
        (0.50, 1_968_680, 687_680, 480_320, 151_392, [16, 16, 48]),
        (0.75, 2_636_424, 1_355_424, 1_045_664, 323_024, [24, 24, 72]),
        (1.00, 3_504_872, 2_223_872, 1_811_712, 542_528, [24, 32, 96]),
        (1.40, 6_108_776, 4_315_776, 3_509_376, 1_042_960, [32, 48, 136]),
    ],
)
def test_parameter_counts_are_those_of_the_public_implementations(
    width: float, whole: int, no_classifier: int, through_stride_32: int, through_stride_16: int, taps: list[int]
) -> None:
    model = checks.on_meta(lambda: TorchvisionMobileNetV2(width, (32,), classes=1000))
    assert checks.parameters(model) == whole
    assert checks.parameters(model) - checks.parameters(model.classifier) == no_classifier
    assert checks.parameters(checks.on_meta(lambda: TorchvisionMobileNetV2(width, (32,)))) == through_stride_32
    cut = checks.on_meta(lambda: TorchvisionMobileNetV2(width, (4, 8, 16)))
    assert checks.parameters(cut) == through_stride_16
    assert [stage.channels for stage in cut.stages] == taps


@pytest.mark.parametrize("name", WIDTHS)
def test_a_registered_name_is_the_width_it_says(name: str) -> None:
    model = checks.on_meta(lambda: registry.load("backbone", name, registry.BACKBONES)())
    same = checks.on_meta(lambda: TorchvisionMobileNetV2(WIDTHS[name], (8, 16)))
    assert isinstance(model, TorchvisionMobileNetV2)
    assert [(key, value.shape) for key, value in model.state_dict().items()] == [
        (key, value.shape) for key, value in same.state_dict().items()
    ]
    assert model.normalization == IMAGENET_NORMALIZATION
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-5}


@pytest.mark.parametrize("size", checks.SIZES)
def test_taps_have_the_published_sizes(size: tuple[int, int]) -> None:
    model = checks.on_meta(lambda: TorchvisionMobileNetV2(1.0, ALL))
    assert checks.shapes_at(model, size) == [
        (channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in zip((24, 32, 96, 320), ALL, strict=True)
    ]


def torchvision_keys() -> list[str]:
    keys = checks.norm_keys("features.0.0", "features.0.1")
    keys += checks.norm_keys("features.1.conv.0.0", "features.1.conv.0.1")
    keys += checks.norm_keys("features.1.conv.1", "features.1.conv.2")
    for k in range(2, 18):
        for conv, norm in (("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")):
            keys += checks.norm_keys(f"features.{k}.conv.{conv}", f"features.{k}.conv.{norm}")
    keys += checks.norm_keys("features.18.0", "features.18.1")
    return [*keys, "classifier.1.weight", "classifier.1.bias"]


def flat_keys(last: str, classifier: str) -> list[str]:
    keys = checks.norm_keys("features.0.0", "features.0.1")
    for k in range(1, 18):
        for layer in (0, 3) if k == 1 else (0, 3, 6):
            keys += checks.norm_keys(f"features.{k}.conv.{layer}", f"features.{k}.conv.{layer + 1}")
    return [*keys, *checks.norm_keys(f"{last}.0", f"{last}.1"), f"{classifier}.weight", f"{classifier}.bias"]


def timm_keys() -> list[str]:
    keys = checks.norm_keys("conv_stem", "bn1")
    keys += checks.norm_keys("blocks.0.0.conv_dw", "blocks.0.0.bn1")
    keys += checks.norm_keys("blocks.0.0.conv_pw", "blocks.0.0.bn2")
    for stage, repeats in enumerate((2, 3, 4, 3, 3, 1), start=1):
        for block in range(repeats):
            prefix = f"blocks.{stage}.{block}"
            for conv, norm in (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")):
                keys += checks.norm_keys(f"{prefix}.{conv}", f"{prefix}.{norm}")
    return [*keys, *checks.norm_keys("conv_head", "bn2"), "classifier.weight", "classifier.bias"]


LAYOUTS: dict[str, Callable[[], list[str]]] = {
    "torchvision": torchvision_keys,
    "timm": timm_keys,
    "d-li14": lambda: flat_keys("conv", "classifier"),
    "tonylins": lambda: flat_keys("features.18", "classifier"),
}


def test_our_keys_are_torchvision_s() -> None:
    model = checks.on_meta(lambda: TorchvisionMobileNetV2(1.0, (32,), classes=1000))
    assert list(model.state_dict()) == torchvision_keys()
    assert len(torchvision_keys()) == 314


@pytest.mark.parametrize("source", LAYOUTS)
def test_every_layout_is_mapped_one_to_one_by_its_own_map_and_by_no_other(source: str) -> None:
    for name_map in TorchvisionMobileNetV2.name_maps:
        renamed = checks.renamed(name_map, LAYOUTS[source]())
        assert renamed == (torchvision_keys() if name_map.source == source else None)
    assert {name_map.source for name_map in TorchvisionMobileNetV2.name_maps} == set(LAYOUTS)


def test_both_classifiers_of_tonylins_are_mapped() -> None:
    name_map = next(m for m in TorchvisionMobileNetV2.name_maps if m.source == "tonylins")
    assert checks.renamed(name_map, flat_keys("features.18", "classifier.1")) == torchvision_keys()


def test_files_of_code_that_expands_the_first_block_are_refused() -> None:
    keys = [*flat_keys("features.18", "classifier"), *checks.norm_keys("features.1.conv.6", "features.1.conv.7")]
    assert all(checks.renamed(name_map, keys) is None for name_map in TorchvisionMobileNetV2.name_maps)


def test_weights_of_the_whole_network_fill_a_cut_one(tmp_path: Path) -> None:
    whole = checks.randomized(TorchvisionMobileNetV2(0.35, ALL, classes=10))
    path = tmp_path / "w.safetensors"
    save_weights(path, whole.state_dict(), checks.CARD)
    cut = create_backbone("mobilenetv2_w035", path)
    image = torch.randn(1, 3, 33, 61)
    with torch.inference_mode():
        for ours, theirs in zip(cut(image), whole(image)[1:3], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_folding_is_exact_and_gives_the_layout_without_batch_norm(width: float) -> None:
    model = checks.randomized(TorchvisionMobileNetV2(width, ALL))
    assert checks.folding_error(model) < 1e-10
    once, plain = folded(model), MobileNetV2(width, "symmetric", batch_norm=False, strides=ALL)
    assert {key: value.shape for key, value in once.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    twice = folded(once)
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items())


def test_the_student_folds_too_and_its_projections_stay() -> None:
    model = checks.randomized(mobilenetv2_050())
    assert checks.folding_error(model) < 1e-10
    assert torch.equal(folded(model).projections["8"].weight, model.projections["8"].weight)


def test_folding_what_is_folded_already_changes_nothing() -> None:
    model = checks.randomized(mobilenetv2())
    once = folded(model)
    assert list(once.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, once.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_older_names_keep_their_weights_and_their_normalization() -> None:
    for model in (mobilenetv2_050(), mobilenetv2()):
        assert model.normalization == Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        assert model.name_maps == ()


def test_an_exported_folded_network_is_convolutions_only() -> None:
    graph = checks.static_graph(folded(checks.randomized(TorchvisionMobileNetV2(0.35, (4, 8)))))
    assert "BatchNormalization" not in {operation for operation, _ in graph}
    assert sum(operation == "Conv" for operation, _ in graph) == 1 + 2 + 5 * 3
