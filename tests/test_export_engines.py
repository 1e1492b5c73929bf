"""Every architecture, exported: ONNX Runtime and OpenVINO answer what torch answers, at sizes fixed and open.

Tiny variants here; every registered backbone at full size in the slow test, which prints what it measured.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
for module in ("safetensors", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

import backbone_checks  # noqa: E402 - only where torch is installed
import mobile_blocks  # noqa: E402
from export_checks import ENGINES, dynamic_errors, static_errors  # noqa: E402
from test_mobilenetv4 import made as mobilenetv4  # noqa: E402
from test_repvit import tiny as repvit  # noqa: E402

from onceover import registry  # noqa: E402
from onceover.backbones import best_window, create_backbone, has_windows  # noqa: E402
from onceover.backbones.backbone import Backbone  # noqa: E402
from onceover.backbones.emo import EMO  # noqa: E402
from onceover.backbones.emov2 import EMOv2  # noqa: E402
from onceover.backbones.mobilenetv2 import MobileNetV2, TorchvisionMobileNetV2  # noqa: E402
from onceover.backbones.tinyvit import TinyViT  # noqa: E402

torch.set_num_threads(1)
LIMIT = 2e-5  # relative to the largest value; a wrong padding or layout is off by more than 1e-1

TINY: dict[str, Callable[[], Backbone]] = {
    "emo": lambda: EMO(mobile_blocks.SMALLEST, (8, 16), window=3),
    "emov2": lambda: EMOv2(mobile_blocks.SMALLEST, (8, 16), window=3),
    "tinyvit": lambda: TinyViT((32, 32, 32, 32), (8, 16), 3, 0, (1, 1, 1, 1)),
    "mobilenetv2, same": lambda: MobileNetV2(0.25, "same", False, strides=(8, 16)),
    "mobilenetv2, symmetric": lambda: TorchvisionMobileNetV2(0.35, (4, 8)),
    "mobilenetv4": lambda: mobilenetv4((4, 8)),
    "repvit": lambda: repvit((4, 8)),
}


@pytest.mark.parametrize("name", TINY)
def test_a_static_graph_answers_what_torch_answers(name: str) -> None:
    errors = static_errors(backbone_checks.randomized(TINY[name]()), 75, 90)  # needs padding along both axes
    assert list(errors) == list(ENGINES)
    assert max(errors.values()) < LIMIT, errors


@pytest.mark.parametrize("name", TINY)
def test_one_dynamic_graph_is_right_at_sizes_it_was_not_traced_with(name: str) -> None:
    shapes = [(1, 96, 96), (3, 50, 70), (2, 33, 130)]  # without padding; with it; odd, and less than a window
    errors = dynamic_errors(backbone_checks.randomized(TINY[name]()), (80, 72), shapes)
    assert list(errors) == list(ENGINES)
    assert max(errors.values()) < LIMIT, errors


def distinct_backbones() -> list[str]:
    """Registered names without the second names of one factory's product."""
    return [name for name in registry.BACKBONES if name not in {"mobilenetv2_w050", "mobilenetv2_w100"}]


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct_backbones())
def test_full_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """224, 256 and an odd rectangle, each as a static graph, and all of them through one dynamic graph."""
    sizes = [(224, 224), (256, 256), (250, 230)]
    found = {}
    for height, width in sizes:
        window = best_window(height, width) if has_windows(name) else None
        model = backbone_checks.randomized(create_backbone(name, None, random_init_seed=0, window=window))
        found[f"{height}x{width}"] = static_errors(model, height, width)
    model = backbone_checks.randomized(create_backbone(name, None, random_init_seed=0))
    found["dynamic"] = dynamic_errors(model, (240, 272), [(1, *sizes[0]), (2, *sizes[1]), (1, *sizes[2])])
    with capsys.disabled():
        cells = (f"{what} {errors['onnxruntime']:.0e} {errors['openvino']:.0e}" for what, errors in found.items())
        print(f"\n{name:24s} {' | '.join(cells)}", end="")
    assert max(error for errors in found.values() for error in errors.values()) < LIMIT
