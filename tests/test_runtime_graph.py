"""Where engines come from, what graphs say of themselves, and what is refused before a session exists."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_package import MEAN, STD, TinyShape, tiny_config, tiny_graph, tiny_image, tiny_metadata, tiny_package

from onceover import _core, errors
from onceover.runtime.graph import EMBEDDED, load_graph, read_graph_spec
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import ENGINES, EngineOptions, available_engines, engine_library, open_session


@pytest.fixture(scope="module")
def package_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("runtime") / "tiny.onceover")


def replace_config(config: _core.Config, grid_height: int) -> _core.Config:
    return _core.Config(
        height=config.height, width=config.width, mean=config.mean, std=config.std, grid_height=grid_height,
        grid_width=config.grid_width, embedding_dim=config.embedding_dim, blur_sigma=config.blur_sigma,
    )  # fmt: skip


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> _core.EngineOptions:
    pytest.importorskip(request.param)
    return EngineOptions(request.param).resolve()


def test_a_graph_with_external_data_reads_no_file(
    engine: _core.EngineOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)  # where the data lies: an engine left alone would find it
    model = onnx.load_from_string(tiny_graph())
    onnx.save_model(model, "split.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1000)
    graph = Path("split.onnx").read_bytes()
    assert Path("weights.bin").stat().st_size > 1000
    with pytest.raises(errors.EngineError, match="external data"):
        _core.Embedder(tiny_config(TinyShape()), graph, engine)
    with pytest.raises(errors.InputError, match="external data"):
        read_graph_spec(graph, "split.onnx")


def masked_graph(keep_above: float) -> Any:
    """The tiny graph, but only patches with a value above `keep_above` come out: what no engine can know beforehand."""
    onnx = pytest.importorskip("onnx")
    model, make_node = onnx.load_from_string(tiny_graph()), onnx.helper.make_node
    model.graph.node[-1].output[0] = "patches"  # (1, P, C), from −1 to 1
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(keep_above, np.float32), "limit"))
    model.graph.node.extend(
        [
            make_node("ReduceMax", ["patches"], ["largest"], axes=[0, 2], keepdims=0),  # → (P,)
            make_node("Greater", ["largest", "limit"], ["mask"]),
            make_node("Compress", ["patches", "mask"], ["embedding"], axis=1),
        ]
    )
    for axis, dimension in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        dimension.Clear()
        dimension.dim_param = f"n{axis}"
    return model


def test_an_open_output_shape_must_come_out_as_bound_and_nothing_is_printed(
    engine: _core.EngineOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    model, image = masked_graph(keep_above=-1.0), tiny_image(1)
    fitting = _core.Embedder(tiny_config(TinyShape()), model.SerializeToString(), engine)
    assert fitting.embed(image).shape == (24, 4)
    wrong = replace_config(tiny_config(TinyShape()), grid_height=2)  # (1, 12, 4), the graph answers (1, 24, 4)
    embedder = _core.Embedder(wrong, model.SerializeToString(), engine)
    with pytest.raises(errors.EngineError, match="cannot run the graph"):
        embedder.embed(image)
    empty = _core.Embedder(tiny_config(TinyShape()), masked_graph(keep_above=1.0).SerializeToString(), engine)
    with pytest.raises(errors.EngineError, match="cannot run the graph"):
        empty.embed(image)
    unused = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused")
    model.graph.initializer.append(unused)  # the engine has an opinion on that, too
    assert _core.Embedder(tiny_config(TinyShape()), model.SerializeToString(), engine) is not None
    assert capfd.readouterr() == ("", "")


def test_open_input_dimensions_become_those_of_the_configuration(engine: _core.EngineOptions) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    for tensor in (model.graph.input[0], model.graph.output[0]):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
        tensor.type.tensor_type.shape.dim[2 if tensor.name == "image" else 1].dim_param = "any"
    image, config = tiny_image(1), tiny_config(TinyShape())
    expected = _core.Embedder(config, tiny_graph(), engine).embed(image)
    np.testing.assert_array_equal(_core.Embedder(config, model.SerializeToString(), engine).embed(image), expected)
    wide = tiny_config(TinyShape(height=40))  # the graph's Reshape knows 24 patches only
    with pytest.raises(errors.EngineError):
        _core.Embedder(wide, model.SerializeToString(), engine).embed(image)


def test_a_missing_engine_wheel_says_what_to_install(package_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.MissingExtraError, match="pip install onnxruntime"):
        Inspector.open(package_path)
    for status in available_engines():
        assert (status.library, status.version, status.devices) == (None, None, ())
        assert f"pip install {status.name}" in str(status.problem)


def test_an_engine_wheel_without_its_library_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(errors.EngineError, match=r"no shared library.*too old.*--upgrade"):
        engine_library("onnxruntime")


def test_engines_are_known_by_name(package_path: Path) -> None:
    status = available_engines()[0]
    assert status.name == "onnxruntime"
    assert status.problem is None
    assert "CPU" in status.devices
    assert Path(str(status.library)).is_file()
    with pytest.raises(errors.UnknownNameError, match="did you mean 'onnxruntime'"):
        engine_library("onnxruntim")
    with pytest.raises(errors.UnknownNameError, match="Known: onnxruntime, openvino"):
        _core.Session(_core.Package.open(str(package_path)), _core.EngineOptions("openvin", "x.so"))
    with pytest.raises(errors.UsageError, match="threads"):
        open_session(_core.Package.open(str(package_path)), threads=0)
    with pytest.raises(errors.EngineError, match="cannot load"):
        open_session(_core.Package.open(str(package_path)), EngineOptions(library=package_path))


def test_a_graph_says_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph())
    for source in (path, str(path), path.read_bytes()):
        graph, spec = load_graph(source)
        assert graph == path.read_bytes()
        assert (spec.name, spec.grid_height, spec.grid_width, spec.embedding_dim) == ("tiny", 4, 6, 4)
        assert spec.preprocessing.mean == MEAN
        assert spec.preprocessing.std == STD
        assert spec.strides == (8,)
        assert spec.weights["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2), ("channels", 1), ("color", "bgr"), ("aggregation", 5), ("name", ""), ("height", 0),
        ("width", 48.5), ("mean", [0.5, 0.5]), ("std", [0.5, 0, 0.5]), ("std", [1, float("inf"), 1]),
        ("grid_height", True), ("embedding_dim", -4), ("strides", []), ("weights", None),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_is_refused_by_field(field: str, value: Any) -> None:
    graph = tiny_graph(metadata={**tiny_metadata(TinyShape()), field: value})
    with pytest.raises(errors.InputError, match=rf"some\.onnx.*{field} must be"):
        read_graph_spec(graph, "some.onnx")


def test_graphs_that_onceover_did_not_export_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    del model.metadata_props[:]
    with pytest.raises(errors.InputError, match="onceover export backbone"):
        read_graph_spec(model.SerializeToString(), "foreign.onnx")
    onnx.helper.set_model_props(model, {"onceover.backbone": "{"})
    with pytest.raises(errors.InputError, match="not JSON"):
        read_graph_spec(model.SerializeToString(), "foreign.onnx")
    with pytest.raises(errors.InputError, match="not an ONNX graph"):
        read_graph_spec(b"\x89PNG, not a graph", "picture.onnx")
    with pytest.raises(errors.InputError, match="cannot read"):
        load_graph(tmp_path / "absent.onnx")
    with pytest.raises(errors.UnknownNameError, match=f"did you mean '{next(iter(EMBEDDED))}'"):
        load_graph("emo_1")


def test_the_core_and_the_inspector_load_no_torch() -> None:
    program = (
        "import sys, onceover._core, onceover.runtime.inspector, onceover.runtime.graph; "
        "assert not {'torch', 'onnxruntime', 'onnx'} & set(sys.modules), sorted(sys.modules); print('clean')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "clean", done.stderr
