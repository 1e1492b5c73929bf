"""ONNX graphs: the same numbers as torch, everything a device needs inside, nothing of this machine.

Tolerance: 2e-5 of the largest value, float32 sums in another order (MobileNetV2 was measured at 1.1e-5).
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from onceover.backbones.mobilenetv2 import MobileNetV2  # noqa: E402 - only where torch is installed
from onceover.backbones.patch_embedding import PatchEmbedding  # noqa: E402
from onceover.backbones.weights import WeightsCard, read_card  # noqa: E402
from onceover.errors import EngineError, OutputError, UsageError  # noqa: E402
from onceover.export import to_onnx as exporter  # noqa: E402
from onceover.runtime.graph import EMBEDDED, read_graph_spec  # noqa: E402
from onceover.types import GraphSpec  # noqa: E402

torch.set_num_threads(1)  # small networks: more threads only get in the way of each other
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "0" * 64)
HEIGHT, WIDTH = 50, 70  # odd and even sizes appear at every stride, so every kind of padding does


def randomized(batch_norm: bool) -> PatchEmbedding:
    """A narrow network whose batch norms and biases are not the harmless defaults."""
    torch.manual_seed(0)
    backbone = MobileNetV2(0.25, "symmetric" if batch_norm else "same", batch_norm, strides=(8, 16))
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    return PatchEmbedding(backbone).eval()


@pytest.fixture(scope="module")
def same() -> PatchEmbedding:
    return randomized(batch_norm=False)


@pytest.fixture(scope="module")
def same_bytes(same: PatchEmbedding) -> bytes:
    return exporter.to_onnx(same, HEIGHT, WIDTH, CARD, "tiny")


def answer_of(model: PatchEmbedding) -> Any:
    return lambda image: model(torch.from_numpy(image)).detach().numpy()


def answer(content: bytes, image: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["patch_embedding"], {"image": image})[0]


def test_the_graph_computes_what_torch_computes(same: PatchEmbedding, same_bytes: bytes) -> None:
    image = np.random.default_rng(7).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    with torch.inference_mode():
        expected = same(torch.from_numpy(image)).numpy()
    actual = answer(same_bytes, image)
    assert actual.shape == (1, 7 * 9, same.embedding_dim)
    assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


def test_batch_norms_are_folded_and_change_nothing() -> None:
    model = randomized(batch_norm=True)
    content = exporter.to_onnx(model.train(), HEIGHT, WIDTH, CARD, "tiny")  # a model left in train mode is put right
    assert not model.training
    image = np.random.default_rng(8).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    assert np.abs(answer(content, image) - expected).max() < 2e-5 * np.abs(expected).max()
    assert "BatchNormalization" not in {node.op_type for node in onnx.load_from_string(content).graph.node}


def test_the_same_model_gives_the_same_bytes(same: PatchEmbedding, same_bytes: bytes) -> None:
    assert exporter.to_onnx(same, HEIGHT, WIDTH, CARD, "tiny") == same_bytes


def test_the_file_is_a_valid_graph_that_old_engines_read(same_bytes: bytes) -> None:
    graph = onnx.load_from_string(same_bytes)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 9  # newer ones shut out older engines and other runtimes for no gain
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    assert [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim] == [1, 3, HEIGHT, WIDTH]
    assert [value.name for value in graph.graph.output] == ["patch_embedding"]


def test_lopsided_paddings_are_inside_the_convolutions(same_bytes: bytes) -> None:
    nodes = onnx.load_from_string(same_bytes).graph.node
    assert "Pad" not in {node.op_type for node in nodes}
    pads = {tuple(a.ints) for node in nodes if node.op_type == "Conv" for a in node.attribute if a.name == "pads"}
    assert any(pad[:2] != pad[2:] for pad in pads)


def test_the_metadata_says_what_a_device_must_know(same: PatchEmbedding, same_bytes: bytes) -> None:
    session = onnxruntime.InferenceSession(same_bytes, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["onceover.backbone"]
    facts = json.loads(text)
    assert text == json.dumps(facts, sort_keys=True, separators=(",", ":"))
    assert facts == {
        "format": 1,
        "name": "tiny",
        "height": HEIGHT,
        "width": WIDTH,
        "channels": 3,
        "color": "rgb",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "grid_height": 7,
        "grid_width": 9,
        "embedding_dim": same.embedding_dim,
        "strides": [8, 16],
        "aggregation": 3,
        "weights": CARD.to_json(),
    }


def test_the_file_names_no_folder_of_this_machine(same_bytes: bytes) -> None:
    home = str(Path(exporter.__file__).resolve().parents[1])
    for trace in (home, os.path.expanduser("~"), "site-packages", ".py", "stack_trace", "Traceback"):
        assert trace.encode() not in same_bytes


def test_a_graph_that_differs_from_torch_is_refused(same: PatchEmbedding, same_bytes: bytes) -> None:
    with torch.no_grad():
        same.backbone.features[0][0].bias += 0.01
    try:
        with pytest.raises(EngineError, match="differs from torch"):
            exporter.check_parity(same_bytes, HEIGHT, WIDTH, answer_of(same), "torch")
    finally:
        with torch.no_grad():
            same.backbone.features[0][0].bias -= 0.01


def test_an_image_smaller_than_a_cell_is_refused(same: PatchEmbedding) -> None:
    with pytest.raises(UsageError, match="at least 16"):
        exporter.to_onnx(same, 15, 64, CARD, "tiny")


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """`export_backbone` with everything but the writing taken away."""
    monkeypatch.setattr(exporter, "create_backbone", lambda *_, **__: randomized(batch_norm=False).backbone)
    monkeypatch.setattr(exporter, "has_windows", lambda _: False)
    monkeypatch.setattr(exporter, "read_card", lambda _: CARD)
    monkeypatch.setattr(exporter, "to_onnx", lambda *_: b"a graph")


@pytest.mark.usefixtures("quick_export")
def test_an_export_replaces_an_older_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "b.onnx"
    target.write_bytes(b"older")
    assert exporter.export_backbone("tiny", Path("w"), target) == target
    assert target.read_bytes() == b"a graph"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("quick_export")
def test_a_target_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for target in (tmp_path / "absent" / "b.onnx", tmp_path / "folder.onnx"):
        with pytest.raises(OutputError, match=target.name):
            exporter.export_backbone("tiny", Path("w"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.usefixtures("quick_export")
def test_a_read_only_folder_is_reported_as_such(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may write into read-only folders")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"b\.onnx"):
        exporter.export_backbone("tiny", Path("w"), tmp_path / "b.onnx")


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_backbone_is_small_and_says_where_it_comes_from(name: str) -> None:
    path = Path(__file__).resolve().parents[1] / "python" / "onceover" / "embedded" / EMBEDDED[name]
    assert path.stat().st_size < 3_000_000
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["onceover.backbone"])
    assert (facts["name"], facts["height"], facts["width"]) == (name, 256, 256)
    assert facts["weights"]["license"] == "Apache-2.0"
    assert "google-coral" in facts["weights"]["source"]
    assert "Kodak" in facts["weights"]["training_data"]
    weights = read_card(path.with_suffix(".safetensors"))
    assert weights.to_json().items() <= facts["weights"].items()  # a graph's card also says the normalization
    answer = session.run(None, {"image": np.zeros((1, 3, 256, 256), np.float32)})[0]
    assert answer.shape == (1, 32 * 32, facts["embedding_dim"])
    assert facts["embedding_dim"] in {128, 160}
    assert np.isfinite(answer).all()


def test_an_untrained_graph_is_an_export_but_for_the_numbers(tmp_path: Path) -> None:
    from onceover.backbones import create_backbone
    from onceover.backbones.weights import save_weights

    name, file = "mobilenetv2_w035", tmp_path / "other.safetensors"
    save_weights(file, create_backbone(name, None, random_init_seed=1).state_dict(), CARD)
    trained = read_graph(exporter.export_backbone(name, file, tmp_path / "trained.onnx", 64, 96).read_bytes())
    graph, spec = read_graph(exporter.untrained(name, 64, 96))
    assert spec == replace(trained[1], weights=spec.weights)
    assert spec.weights["source"] == "random numbers"
    assert [node.op_type for node in graph.node] == [node.op_type for node in trained[0].node]


def read_graph(content: bytes) -> tuple[Any, GraphSpec]:
    return onnx.load_from_string(content).graph, read_graph_spec(content, "graph")
