"""Backbones from networks of somebody else's: ONNX files and torch modules, by naming their taps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from own_networks import make_net  # noqa: E402

from onceover import cli  # noqa: E402 - only where torch is installed
from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Normalization  # noqa: E402
from onceover.errors import EngineError, InputError, UnknownNameError, UsageError  # noqa: E402
from onceover.export.from_module import export_own_module, load_module  # noqa: E402
from onceover.export.from_onnx import OwnTrunk, export_own_onnx  # noqa: E402
from onceover.export.taps import read_tap, tap_of  # noqa: E402
from onceover.runtime.graph import load_graph  # noqa: E402

HEIGHT, WIDTH = 64, 96
IMAGE = np.random.default_rng(3).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)


def embedding_by_hand(maps: list[Any]) -> Any:
    """Mean over 3x3 neighbors inside the map, bilinear to the finest, joined: (1, P, D), in float64."""
    aligned = []
    for part in maps:
        x = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64))
        ones = torch.ones_like(x[:, :1])
        kernel = torch.ones(x.shape[1], 1, 3, 3, dtype=torch.float64)
        total = torch.nn.functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
        x = total / torch.nn.functional.conv2d(ones, kernel[:1], padding=1)
        aligned.append(torch.nn.functional.interpolate(x, size=maps[0].shape[2:], mode="bilinear"))
    return torch.cat(aligned, 1).flatten(2).transpose(1, 2).numpy()


def features() -> dict[str, Any]:
    """What the submodules of the network answer for IMAGE, channels first."""
    net, taken = make_net(), {}
    for name in ("stem", "body", "last", "norm", "deep"):
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: taken.__setitem__(name, output.detach().numpy())
        )
    net(torch.from_numpy(IMAGE))
    taken["last"] = taken["last"].transpose(0, 3, 1, 2)
    taken["norm"] = taken["norm"].transpose(0, 2, 1).reshape(1, -1, HEIGHT // 8, WIDTH // 8)
    return taken


def answer(path: Path) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["patch_embedding"], {"image": IMAGE})[0]


def close(actual: Any, expected: Any) -> bool:
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network as ONNX: static, dynamic, of an older opset, with its weights beside it."""
    folder = tmp_path_factory.mktemp("networks")
    net, example = make_net(), (torch.zeros(1, 3, HEIGHT, WIDTH),)
    sizes = {2: torch.export.Dim("height") * 16, 3: torch.export.Dim("width") * 16}
    sizes = dict.fromkeys(sizes, torch.export.Dim.DYNAMIC)
    for name, opset, dynamic, external in (
        ("static", 18, None, False),
        ("dynamic", 20, {"x": sizes}, False),
        ("late", 22, None, False),
        ("split", 20, None, True),
    ):
        torch.onnx.export(
            net,
            example,
            str(folder / f"{name}.onnx"),
            input_names=["x"],
            opset_version=opset,
            dynamic_shapes=dynamic,
            external_data=external,
            dynamo=True,
            verbose=False,
        )
    return folder


def value(path: Path, operation: str) -> str:
    """The first value of an ONNX file that this operation computes."""
    return str(next(node.output[0] for node in onnx.load(path).graph.node if node.op_type == operation))


@pytest.mark.parametrize(
    "taps", [("stem", "deep"), ("deep", "stem"), ("last",), ("norm", "deep"), ("stem", "last", "norm")]
)
def test_submodules_of_a_torch_module_become_patch_embeddings(tmp_path: Path, taps: tuple[str, ...]) -> None:
    found = export_own_module(make_net(), OwnTrunk(taps, HEIGHT, WIDTH), tmp_path / "b.onnx")
    assert [tap.stride for tap in found] == sorted(tap.stride for tap in found)
    expected = embedding_by_hand([features()[tap.name] for tap in found])
    assert close(answer(tmp_path / "b.onnx"), expected)
    operations = [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node]
    assert "Gemm" not in operations  # the classifier is gone
    assert operations.count("Conv") == {"stem": 1, "last": 2, "norm": 2, "deep": 3}[found[-1].name]


@pytest.mark.parametrize("name", ["static", "dynamic", "late", "split"])
def test_values_of_an_onnx_file_become_patch_embeddings(networks: Path, tmp_path: Path, name: str) -> None:
    source = networks / f"{name}.onnx"
    assert (networks / "split.onnx.data").exists()
    taps = (value(source, "LayerNormalization"), value(source, "Relu"))
    found = export_own_onnx(source, OwnTrunk(taps, HEIGHT, WIDTH), tmp_path / "b.onnx")
    assert [(tap.stride, tap.order) for tap in found] == [(4, "first"), (8, "tokens")]
    assert close(answer(tmp_path / "b.onnx"), embedding_by_hand([features()["stem"], features()["norm"]]))
    graph = onnx.load(tmp_path / "b.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert [tensor for tensor in graph.graph.initializer if tensor.external_data] == []


def test_the_graph_says_what_a_device_must_know(networks: Path, tmp_path: Path) -> None:
    source = networks / "dynamic.onnx"
    pixels = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    trunk = OwnTrunk((value(source, "Relu"),), 80, 112, pixels)
    export_own_onnx(source, trunk, tmp_path / "b.onnx")
    _, spec = load_graph(tmp_path / "b.onnx")
    assert (spec.preprocessing.height, spec.preprocessing.width) == (80, 112)
    assert (spec.grid_height, spec.grid_width, spec.embedding_dim, spec.strides) == (20, 28, 16, (4,))
    assert tuple(spec.preprocessing.mean) == pixels.mean
    assert spec.weights["name"] == "dynamic"
    assert spec.weights["license"] == "license not stated"
    assert len(spec.weights["sha256"]) == 64


def test_the_same_file_gives_the_same_bytes(networks: Path, tmp_path: Path) -> None:
    source = networks / "static.onnx"
    trunk = OwnTrunk((value(source, "Relu"),), HEIGHT, WIDTH)
    for name in ("a", "b"):
        export_own_onnx(source, trunk, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_taps_some_are_proposed(networks: Path, tmp_path: Path) -> None:
    source = networks / "static.onnx"
    with pytest.raises(UsageError, match=r"stride 4, 16 channels.*stride 8, 24 channels.*stride 16, 32 channels"):
        export_own_onnx(source, OwnTrunk((), HEIGHT, WIDTH), tmp_path / "b.onnx")
    with pytest.raises(UsageError, match=r"stem \(stride 4, 16 channels\); norm .*; deep \(stride 16, 32 channels\)"):
        export_own_module(make_net(), OwnTrunk((), HEIGHT, WIDTH), tmp_path / "b.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_tap_that_is_not_there_is_named_with_near_ones(networks: Path, tmp_path: Path) -> None:
    source = networks / "static.onnx"
    with pytest.raises(UnknownNameError, match=r"unknown tap 'rellu'; did you mean 'relu'"):
        export_own_onnx(source, OwnTrunk(("rellu",), HEIGHT, WIDTH), tmp_path / "b.onnx")
    with pytest.raises(UnknownNameError, match=r"unknown tap 'stemm'; did you mean 'stem'"):
        export_own_module(make_net(), OwnTrunk(("stemm",), HEIGHT, WIDTH), tmp_path / "b.onnx")
    with pytest.raises(UsageError, match="named twice"):
        export_own_module(make_net(), OwnTrunk(("stem", "stem"), HEIGHT, WIDTH), tmp_path / "b.onnx")


def test_a_tap_that_is_no_map_is_refused_with_its_shape(networks: Path, tmp_path: Path) -> None:
    source = networks / "static.onnx"
    with pytest.raises(UsageError, match=r"shape \(1, 10\) is no feature map of an image of 64x96"):
        export_own_onnx(source, OwnTrunk((value(source, "Gemm"),), HEIGHT, WIDTH), tmp_path / "b.onnx")
    with pytest.raises(UsageError, match=r"tap 'head': its shape \(1, 10\)"):
        export_own_module(make_net(), OwnTrunk(("head",), HEIGHT, WIDTH), tmp_path / "b.onnx")


def test_a_size_the_file_was_not_made_for_is_refused(networks: Path, tmp_path: Path) -> None:
    source = networks / "static.onnx"
    with pytest.raises(UsageError, match="fixed height 64, needed: 128; give the --height"):
        export_own_onnx(source, OwnTrunk(("relu",), 128, WIDTH), tmp_path / "b.onnx")


def test_a_graph_whose_inside_is_fixed_to_another_size_is_refused(networks: Path, tmp_path: Path) -> None:
    network = onnx.load(networks / "static.onnx")
    for dim in network.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "any"  # a lie
    onnx.save(network, tmp_path / "lying.onnx")
    trunk = OwnTrunk((value(networks / "static.onnx", "LayerNormalization"),), 128, 128)
    with pytest.raises(EngineError, match="does not run at 128x128"):
        export_own_onnx(tmp_path / "lying.onnx", trunk, tmp_path / "b.onnx")


def damaged(path: Path, networks: Path, kind: str) -> Path:
    """A network that must be refused."""
    network = onnx.load(networks / "static.onnx")
    if kind == "operators outside the ONNX standard":
        network.graph.node[0].domain = "com.microsoft"
        network.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    elif kind == "has 2: x, y":
        network.graph.input.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    elif kind == "of type UINT8":
        network.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    elif kind == "not a valid ONNX file":
        path.write_bytes(b"no network")
        return path
    path.write_bytes(network.SerializeToString())
    return path


@pytest.mark.parametrize(
    "kind", ["operators outside the ONNX standard", "has 2: x, y", "of type UINT8", "not a valid ONNX file"]
)
def test_what_is_no_such_network_is_refused(networks: Path, tmp_path: Path, kind: str) -> None:
    source = damaged(tmp_path / "n.onnx", networks, kind)
    with pytest.raises(InputError, match=kind):
        export_own_onnx(source, OwnTrunk(("relu",), HEIGHT, WIDTH), tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.onnx: cannot be read"):
        export_own_onnx(tmp_path / "absent.onnx", OwnTrunk(("a",)), tmp_path / "b.onnx")
    with pytest.raises(InputError, match=r"no file '.*absent\.py'; give FILE\.py:FUNCTION"):
        load_module(f"{tmp_path}/absent.py:make", None)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("def make(): return 3", "answered a int, not a torch module"),
        ("def make(): raise ValueError('no')", "ValueError: no; it must run"),
        ("", "AttributeError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_makes_no_module_is_refused(tmp_path: Path, program: str, says: str) -> None:
    (tmp_path / "own.py").write_text(program)
    with pytest.raises(InputError, match=says):
        load_module(f"{tmp_path}/own.py:make", None)


SHAPES = [
    ((1, 24, 8, 12), "first", 8),
    ((1, 24, 7, 11), "first", 9),  # without padding: 64 / 9 = 7.1, 96 / 9 = 10.7, rounded up
    ((1, 8, 12, 24), "last", 8),
    ((1, 96, 24), "tokens", 8),
    ((1, 97, 24), "tokens", 8),
    ((2, 24, 8, 12), None, 0),
    ((1, 24, 8, 8), None, 0),
    ((1, 24), None, 0),
    ((1, 24, 1, 1), None, 0),
    ((1, 1, 64, 96), None, 0),
]


@pytest.mark.parametrize(("shape", "order", "stride"), SHAPES)
def test_the_shape_says_what_a_tap_is(shape: tuple[int, ...], order: str | None, stride: int) -> None:
    found = tap_of("t", shape, HEIGHT, WIDTH)
    assert (order, stride) == (None, 0) if found is None else (found.order, found.stride) == (order, stride)


def test_a_class_token_is_left_out() -> None:
    tap = read_tap("t", (1, 97, 24), HEIGHT, WIDTH)
    tokens = torch.arange(97 * 24, dtype=torch.float32).reshape(1, 97, 24)
    assert torch.equal(tap.as_map(tokens)[0, :, 0, 0], tokens[0, 1])
    assert torch.equal(tap.as_map(tokens)[0, :, 7, 11], tokens[0, 96])


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main([*words])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_the_command_takes_a_python_file_and_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(Path(__file__).with_name("own_networks.py").read_text())
    torch.save(make_net().state_dict(), tmp_path / "w.pth")
    words = ("export", "backbone", f"{tmp_path}/own.py:Net", "--taps", "stem, deep", "--height", "64", "--width", "96")
    words += ("--weights", f"{tmp_path}/w.pth", "--license", "MIT", "-o", f"{tmp_path}/b.onnx", "--json")
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert json.loads(out)["strides"] == [4, 16]
    assert json.loads(out)["weights"]["license"] == "MIT"
    assert json.loads(out)["preprocessing"]["mean"] == list(IMAGENET_NORMALIZATION.mean)
    assert close(answer(tmp_path / "b.onnx"), embedding_by_hand([features()["stem"], features()["deep"]]))


def test_weights_that_do_not_fit_the_module_are_listed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(Path(__file__).with_name("own_networks.py").read_text())
    state = make_net().state_dict()
    state["surplus"] = state.pop("deep.bias")
    state["head.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    from onceover.backbones.checkpoints import WeightsFile

    with pytest.raises(InputError, match=r"missing \['deep.bias'\], unexpected \['surplus'\].*\['head.bias'\]"):
        load_module(f"{tmp_path}/own.py:Net", WeightsFile(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mobilenetv2",), "needs --weights"),
        (("mobilenetv2", "--weights", "w", "--taps", "a"), "for a network of your own"),
        (("n.onnx", "--taps", "a", "--window", "8"), "for a named backbone"),
        (("n.onnx", "--taps", "a", "--weights", "w"), "holds its own"),
        (("mobilenetv2", "--weights", "w", "--strides", "8;16"), "not a list of whole numbers"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    status, _, err = run(capsys, "export", "backbone", *words, "-o", f"{tmp_path}/b.onnx")
    assert status == 2
    assert says in " ".join(err.split())
