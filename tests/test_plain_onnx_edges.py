"""Plain ONNX files: features with an offset, removed rows, unusual networks, what is refused, and how it says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_checks import assert_equal_to_session, changed_network, engine_run, network_input, offset_features
from tiny_data import defective
from tiny_package import TinyOptions, read_members, tiny_image, tiny_package, write_members
from tolerances import anomaly_map_f32

from onceover import _core
from onceover.errors import (
    EngineError,
    InputError,
    MissingExtraError,
    OnceoverError,
    OutputError,
    PackageError,
    UsageError,
)
from onceover.export import plain_graph, to_plain_onnx
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.runtime.inspector import Inspector

onnx = pytest.importorskip("onnx")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plain_onnx.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("edges") / "tiny.onceover")


def assert_answers_agree(package: Path, output: Path, seeds: range = range(300, 304)) -> None:
    run, inspector = engine_run("onnxruntime", output), Inspector.open(package)
    for seed in seeds:
        image = tiny_image(seed)
        assert_equal_to_session(run(network_input(inspector, image)), inspector, image)


def test_a_large_offset_of_all_features_costs_no_accuracy(tmp_path: Path) -> None:
    package = changed_network(tmp_path / "offset.onceover", offset_features(1000))
    write_plain_onnx(package, tmp_path / "model.onnx")
    assert_answers_agree(package, tmp_path / "model.onnx")


def test_without_centering_that_offset_would_cost_all_accuracy(tmp_path: Path) -> None:
    package = changed_network(tmp_path / "offset.onceover", offset_features(1000))
    session = Inspector.open(package).session
    rows = _core.Package.open(str(package)).array("memory_bank")
    queries = rows[:24] + np.float32(0.25)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - rows, axis=2).min(1)
    expanded = (queries**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * queries @ rows.T
    rough = np.sqrt(np.maximum(expanded, 0).min(1))
    assert session.bank_rows == len(rows)
    assert np.abs(rough - exact).max() > 100 * to_plain_onnx.TOLERANCE * exact.max()


def test_removed_rows_are_not_found(package: Path, tmp_path: Path) -> None:
    members = read_members(package)
    bank = _core.MemoryBank(members["memory_bank"])
    bank.remove(list(range(24, 96)))
    members["bank_index"] = np.frombuffer(bank.index_bytes(), np.uint8)
    thinned = write_members(tmp_path / "thinned.onceover", {**members})
    facts = write_plain_onnx(thinned, tmp_path / "model.onnx", max_elements=240)
    assert facts["memory_bank"]["rows"] == 72
    assert_answers_agree(thinned, tmp_path / "model.onnx")
    run, inspector = engine_run("onnxruntime", tmp_path / "model.onnx"), Inspector.open(thinned)
    answer = run(network_input(inspector, tiny_image(3)))  # an image whose rows were removed
    assert not np.isin(answer["nearest"], np.arange(24, 96)).any()
    inspector.session.run(tiny_image(3))
    assert (answer["nearest"][0] == inspector.session.nearest_rows()).mean() > 0.95


def test_of_equal_rows_in_two_chunks_the_first_is_named(package: Path, tmp_path: Path) -> None:
    members = read_members(package)
    members["memory_bank"] = np.concatenate([members["memory_bank"][:24]] * 3)
    tripled = write_members(tmp_path / "tripled.onceover", members)
    write_plain_onnx(tripled, tmp_path / "model.onnx", max_elements=24 * 24)
    run, inspector = engine_run("onnxruntime", tmp_path / "model.onnx"), Inspector.open(tripled)
    assert run(network_input(inspector, tiny_image(300)))["nearest"].max() < 24


def test_a_network_may_use_the_names_of_our_values(tmp_path: Path) -> None:
    def rename(model: Any) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [{"active": "score", "rows": "pixels"}.get(name, name) for name in names]

    package = changed_network(tmp_path / "names.onceover", rename)
    write_plain_onnx(package, tmp_path / "model.onnx", raw_pixels=True)
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_an_uncalibrated_package_has_no_threshold(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "tiny.onceover", TinyOptions(calibrated=False))
    facts = write_plain_onnx(package, tmp_path / "model.onnx")
    assert facts["threshold"] is None
    assert facts["map_threshold"] is None
    assert facts["calibration"] == {"state": "uncalibrated", "false_alarm_rate": None, "parts": 0, "images": 0}
    assert '"threshold": null' in (tmp_path / "model.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("size", "cells", "sigma"), [(32, 4, 2.0), (7, 7, 0.0), (9, 2, 0.4), (50, 13, 40.0), (8, 1, 3.0), (64, 64, 4.0)]
)
def test_the_matrices_of_the_map_draw_what_the_core_draws(size: int, cells: int, sigma: float) -> None:
    scores = np.random.default_rng(size).uniform(0, 5, (cells, 3)).astype(np.float32)
    down, across = plain_graph.axis_matrix(size, cells, sigma), plain_graph.axis_matrix(20, 3, sigma)
    expected = _core.draw_anomaly_map(scores, size, 20, sigma)
    drawn = down.astype(np.float64) @ scores @ across.T
    np.testing.assert_allclose(drawn, expected, atol=2 * anomaly_map_f32(sigma) * scores.max())
    np.testing.assert_allclose(down.sum(axis=1), 1, atol=1e-6)


def refused(kind: type[OnceoverError], match: str, package: Path, output: Path, **options: Any) -> None:
    """Refused with this error, and nothing is left in the output's folder."""
    with pytest.raises(kind, match=match):
        write_plain_onnx(package, output, **options)
    assert not output.is_file()
    assert not output.with_suffix(".json").is_file()


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onceover").write_text("not a package", encoding="utf-8")
    damaged = bytearray(package.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.onceover").write_bytes(damaged)
    refused(PackageError, "text.onceover", tmp_path / "text.onceover", tmp_path / "model.onnx")
    refused(PackageError, "damaged.onceover", tmp_path / "damaged.onceover", tmp_path / "model.onnx")
    refused(InputError, "absent.onceover", tmp_path / "absent.onceover", tmp_path / "model.onnx")


def test_an_output_that_cannot_be_written_is_refused(package: Path, tmp_path: Path) -> None:
    refused(OutputError, "absent", package, tmp_path / "absent" / "model.onnx")
    refused(UsageError, r"must end in \.onnx", package, tmp_path / "model.json")
    (tmp_path / "model.json").mkdir()
    refused(OutputError, "model.json", package, tmp_path / "model.onnx")  # no graph without its threshold


@pytest.mark.parametrize("limit", [23, 0, -5, 2**31])
def test_a_limit_that_no_row_fits_or_no_tensor_may_have_is_refused(package: Path, limit: int, tmp_path: Path) -> None:
    refused(UsageError, f"max_elements is {limit}, expected 24", package, tmp_path / "model.onnx", max_elements=limit)


def test_a_bank_too_large_for_one_file_is_refused_by_its_size(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_plain_onnx, "MAX_PROTOBUF_BYTES", 2**20)
    refused(UsageError, r"144 × 4 values.*--bank-rows", package, tmp_path / "model.onnx")


def test_networks_that_other_engines_cannot_run_are_refused(tmp_path: Path) -> None:
    def foreign(model: Any) -> None:
        model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    def old(model: Any) -> None:
        model.opset_import[0].version = 12

    refused(InputError, "com.microsoft", changed_network(tmp_path / "a.onceover", foreign), tmp_path / "model.onnx")
    refused(InputError, "opset 12", changed_network(tmp_path / "b.onceover", old), tmp_path / "model.onnx")


def test_features_whose_squares_do_not_fit_float32_are_refused(package: Path, tmp_path: Path) -> None:
    members = read_members(package)
    members["memory_bank"] = members["memory_bank"].copy()
    members["memory_bank"][3] = 1e19
    huge = write_members(tmp_path / "huge.onceover", members)
    refused(InputError, "squares float32 cannot hold", huge, tmp_path / "model.onnx")


def test_a_manifest_with_a_value_that_is_not_json_is_refused(package: Path, tmp_path: Path) -> None:
    members = {**read_members(package), "manifest.json": b'{"name": NaN}'}
    odd = write_members(tmp_path / "odd.onceover", members)
    refused(PackageError, "manifest.json", odd, tmp_path / "model.onnx")


def test_a_graph_that_differs_from_the_session_is_not_kept(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_graph, "BLUR_TRUNCATION", 0.5)
    refused(EngineError, "anomaly_map .* differs from the session", package, tmp_path / "model.onnx")


def test_without_onnx_the_extra_is_named(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(MissingExtraError, r"onceover\[train\]", package, tmp_path / "model.onnx")


def test_no_torch_is_needed(package: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from onceover.export.to_plain_onnx import write_plain_onnx; "
        "write_plain_onnx(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, str(package), str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.json").is_file()


def example_run(folder: Path, image: NDArray[np.uint8]) -> str:
    """The program of the page, run beside the exported files; what it prints."""
    from PIL import Image

    (program,) = re.findall(r"```python\n# run: inspect\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "inspect_part.py").write_text(program, encoding="utf-8")
    Image.fromarray(image).save(folder / "part.png")
    done = subprocess.run(
        [sys.executable, "inspect_part.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_of_the_page_prints_the_verdict_of_the_session(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    write_plain_onnx(package, tmp_path / "model.onnx", raw_pixels=True)
    inspector = Inspector.open(package)
    for image in (tiny_image(300, 32, 48), defective(tiny_image(301, 32, 48))[0]):  # of input size: nothing to resize
        verdict = inspector.inspect(image)
        row, column = np.unravel_index(np.argmax(verdict.anomaly_map), verdict.anomaly_map.shape)
        expected = f"{verdict.decision} score {verdict.score:.3f} worst at row {row}, column {column}\n"
        assert example_run(tmp_path, image) == expected
