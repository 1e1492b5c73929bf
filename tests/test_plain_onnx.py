"""Plain ONNX files of packages: other engines get our scores, verdicts and maps from one file and its JSON.

Tolerance: the promised 1e-3. Where onnxruntime runs the same network as the session, differences are far smaller.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_checks import (
    OUTPUTS,
    assert_equal_to_session,
    drawn_defect,
    drawn_package,
    drawn_part,
    engine_run,
    network_input,
)
from tiny_data import defective
from tiny_package import tiny_image, tiny_package

from onceover import _core
from onceover.export.to_plain_onnx import METADATA_KEY, TOLERANCE, write_plain_onnx
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions

onnx = pytest.importorskip("onnx")

ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Case:
    """A package and images that are not in its bank, the last half of them defective."""

    package: Path
    images: tuple[NDArray[np.uint8], ...]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Case:
    good = [tiny_image(seed) for seed in range(300, 303)]
    bad = [defective(tiny_image(seed, 50, 61))[0] for seed in range(303, 306)]
    return Case(tiny_package(tmp_path_factory.mktemp("plain") / "tiny.onceover"), (*good, *bad))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Case:
    good, bad = [drawn_part(i) for i in range(900, 903)], [drawn_defect(i) for i in range(3)]
    return Case(drawn_package(tmp_path_factory.mktemp("plain")), (*good, *bad))


@pytest.fixture(scope="module", params=["tiny", "drawn"])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_other_engines_get_the_scores_and_the_map_of_the_session(case: Case, engine: str, tmp_path: Path) -> None:
    write_plain_onnx(case.package, tmp_path / "model.onnx")
    run, inspector = engine_run(engine, tmp_path / "model.onnx"), Inspector.open(case.package)
    for image in case.images:
        assert_equal_to_session(run(network_input(inspector, image)), inspector, image)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_verdict_by_the_threshold_of_the_json_is_the_verdict_of_the_session(
    case: Case, engine: str, tmp_path: Path
) -> None:
    facts = write_plain_onnx(case.package, tmp_path / "model.onnx")
    run, inspector = engine_run(engine, tmp_path / "model.onnx"), Inspector.open(case.package)
    verdicts = [inspector.inspect(image).is_anomalous for image in case.images]
    assert {True, False} == set(verdicts)
    scores = [run(network_input(inspector, image))["score"][0] for image in case.images]
    assert [bool(score > facts["threshold"]) for score in scores] == verdicts
    assert (facts["threshold"], facts["map_threshold"]) == (
        inspector.calibration.threshold,
        inspector.calibration.map_threshold,
    )


def test_the_nearest_rows_are_those_of_the_session_but_for_ties(case: Case, tmp_path: Path) -> None:
    write_plain_onnx(case.package, tmp_path / "model.onnx")
    run, inspector = engine_run("onnxruntime", tmp_path / "model.onnx"), Inspector.open(case.package)
    package, config = inspector.package.core, inspector.session.config
    bank = package.array("memory_bank").astype(np.float64)
    embedder = _core.Embedder(config, package.read("graph.onnx"), EngineOptions().resolve())
    for image in case.images:
        nearest = run(network_input(inspector, image))["nearest"]
        inspector.session.run(image)
        expected = inspector.session.nearest_rows()
        assert (nearest.dtype, nearest.shape) == (np.int64, (1, *expected.shape))
        assert (nearest[0] == expected).mean() > 0.95
        patches = embedder.embed(image)
        to_named = np.linalg.norm(patches - bank[nearest.ravel()], axis=1)
        np.testing.assert_allclose(to_named, inspector.session.patch_scores().ravel(), rtol=1e-4, atol=1e-5)


def test_a_patch_of_the_bank_scores_next_to_nothing(tiny: Case, tmp_path: Path) -> None:
    write_plain_onnx(tiny.package, tmp_path / "model.onnx")
    run, inspector = engine_run("onnxruntime", tmp_path / "model.onnx"), Inspector.open(tiny.package)
    # Tanh of a sum of 192 products: 1e-5 if the engine sums in another order inside the larger graph.
    assert run(network_input(inspector, tiny_image(0)))["score"][0] <= 1e-5


def test_many_small_chunks_give_the_same_answers_and_no_larger_tensor(tiny: Case, tmp_path: Path) -> None:
    limit = 240  # 10 rows for 24 patches
    facts = write_plain_onnx(tiny.package, tmp_path / "small.onnx", max_elements=limit)
    write_plain_onnx(tiny.package, tmp_path / "whole.onnx")
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "small.onnx"), strict_mode=True).graph
    chunks = sum(node.op_type == "Gemm" for node in graph.node)
    assert (facts["memory_bank"]["chunk_rows"], chunks) == (10, -(-144 // 10))
    values = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in graph.value_info}
    sizes = {name: int(np.prod(shape)) for name, shape in values.items() if name.startswith("scorer/")}
    sizes |= {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer if "scorer/" in tensor.name}
    made = {name for node in graph.node for name in node.output if name.startswith("scorer/")}
    assert made <= sizes.keys()
    assert max(sizes.values()) == limit
    small, whole = (engine_run("onnxruntime", tmp_path / f"{name}.onnx") for name in ("small", "whole"))
    inspector = Inspector.open(tiny.package)
    for image in tiny.images:
        given = network_input(inspector, image)
        np.testing.assert_array_equal(small(given)["nearest"], whole(given)["nearest"])
        np.testing.assert_allclose(small(given)["patch_scores"], whole(given)["patch_scores"], rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_raw_pixels_are_normalized_inside_the_graph(tiny: Case, engine: str, tmp_path: Path) -> None:
    facts = write_plain_onnx(tiny.package, tmp_path / "model.onnx", raw_pixels=True)
    run, inspector = engine_run(engine, tmp_path / "model.onnx"), Inspector.open(tiny.package)
    assert facts["input"]["name"] == "pixels"
    for image in tiny.images:
        pixels = _core.resize(image, *facts["input"]["shape"][1:3])
        assert_equal_to_session(run(pixels[None]), inspector, image)


@pytest.mark.parametrize("raw_pixels", [False, True])
def test_the_file_is_a_valid_graph_of_plain_operators_with_static_shapes(
    case: Case, raw_pixels: bool, tmp_path: Path
) -> None:
    facts = write_plain_onnx(case.package, tmp_path / "model.onnx", raw_pixels=raw_pixels)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    network = onnx.load_from_string(_core.Package.open(str(case.package)).read("graph.onnx"))
    assert [(e.domain, e.version) for e in model.opset_import] == [(e.domain, e.version) for e in network.opset_import]
    assert model.ir_version <= 9
    assert {node.domain for node in model.graph.node} == {""}
    said = {facts["input"]["name"]: facts["input"]["shape"]} | {k: v["shape"] for k, v in facts["outputs"].items()}
    values = [*model.graph.input, *model.graph.output]
    assert {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values} == said
    assert [value.name for value in model.graph.output] == OUTPUTS


def test_the_same_package_gives_the_same_bytes_and_the_json_is_inside_and_beside(case: Case, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        facts = write_plain_onnx(case.package, tmp_path / folder / "model.onnx")
    first, second = (tmp_path / folder / "model.onnx" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    text = first.with_suffix(".json").read_text(encoding="utf-8")
    assert text == second.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text) == facts
    inside = {entry.key: entry.value for entry in onnx.load(first).metadata_props}
    assert inside.keys() == {METADATA_KEY}  # no longer a backbone, and nothing takes it for one
    file = facts.pop("file")
    assert json.loads(inside[METADATA_KEY]) == facts
    content = first.read_bytes()
    assert file == {
        "name": "model.onnx", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def test_the_json_says_what_a_program_must_know(drawn: Case, tmp_path: Path) -> None:
    facts = write_plain_onnx(drawn.package, tmp_path / "model.onnx")
    inspector = Inspector.open(drawn.package)
    assert facts["package"]["id"] == inspector.package.id
    assert facts["name"] == inspector.manifest["name"]
    assert facts["detector"] == inspector.manifest["detector"]
    assert facts["weights"] == inspector.manifest["backbone"]["weights"]
    assert facts["license"] == "Apache-2.0"
    assert facts["calibration"] == {"state": "split conformal", "false_alarm_rate": 0.05, "parts": 19, "images": 19}
    assert facts["memory_bank"]["rows"] == inspector.session.bank_rows
    assert facts["input"]["layout"] == "NCHW"
    assert facts["input"]["mean"] == list(inspector.session.config.mean)
    assert facts["tolerance"] == TOLERANCE
