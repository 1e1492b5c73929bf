"""Packages for other engines and precisions: what is written, what is refused, what the package says of it.

Every pair of engine and precision is exported once for all tests. The weights of the network are random, so int8
changes the order of scores that are close: it is refused on the folder `near` and accepted on `graded`.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated_graph import GatedCase, clipped_graph, features, gated_case, gated_graph, network_inputs
from tiny_data import tiny_options

from onceover import _core, export
from onceover.detectors import BankSize
from onceover.errors import InputError, MissingExtraError, UsageError
from onceover.export.verify import verify_bytes
from onceover.images import read_image
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.self_contained import check_self_contained
from onceover.runtime.session import EngineOptions
from onceover.training.fit import fit

pytest.importorskip("onnx")

from onceover.export import repackage, to_int8
from onceover.export.repackage import ExportOptions, ExportReport, export_package

ENGINES = ("onnxruntime", "openvino")
STATE = ("memory_bank", "bank_index", "bank_neighbors", "bank_source", "calibration")


@dataclass(frozen=True)
class Exported:
    engine: str
    precision: str
    options: ExportOptions
    report: ExportReport
    path: Path

    @property
    def package(self) -> PackageFile:
        return open_package(self.path)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Latency is told, not judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repackage, "LATENCY_ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> GatedCase:
    return gated_case(tmp_path_factory.mktemp("repackage"))


@pytest.fixture(scope="module", params=[(e, p) for p in ("float32", "float16", "int8") for e in ENGINES], ids="-".join)
def exported(request: pytest.FixtureRequest, case: GatedCase, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    engine, precision = request.param
    if (engine, precision) == ("openvino", "int8"):
        pytest.importorskip("nncf")
    options = ExportOptions(engine, precision, test=case.graded)
    if precision == "int8":
        options = replace(options, calibration=case.near, refit=case.train)
    path = tmp_path_factory.mktemp("exported") / f"{engine}_{precision}.onceover"
    return Exported(engine, precision, options, export_package(case.package, path, options), path)


def graph_of(path: Path) -> Any:
    return open_package(path).core.read("graph.onnx")


def test_what_is_accepted_is_written_and_reproduces_its_record_on_its_engine(exported: Exported) -> None:
    report = exported.report
    assert (report.accepted, report.forced, report.engine) == (True, False, exported.engine)
    assert len(report.attempts) == 1 or exported.precision == "int8"
    assert report.package_id == exported.package.id == verify_bytes(exported.path.read_bytes(), exported.engine)
    last = report.attempts[-1]
    assert all(attempt.problems for attempt in report.attempts[:-1])  # the ladder ends with the first that is accepted
    assert (last.problems, last.comparison.spearman) == ((), pytest.approx(1))
    assert min(report.home_milliseconds, last.float32_milliseconds, last.milliseconds) > 0
    # The manifest grows by its judgement after the candidate was measured.
    assert 0 < exported.path.stat().st_size - last.size_bytes < 2000


def test_the_package_says_where_it_comes_from_and_how_it_was_judged(exported: Exported, case: GatedCase) -> None:
    origin = exported.package.manifest["export"]
    refitted = exported.precision == "int8"
    assert {key: origin[key] for key in ("engine", "precision", "from", "refitted", "accepted")} == {
        "engine": exported.engine,
        "precision": exported.precision,
        "from": open_package(case.package).id,
        "refitted": refitted,
        "accepted": True,
    }
    last = exported.report.attempts[-1]
    assert origin["method"] == last.method
    assert (origin["judged"]["problems"], origin["judged"]["on"]) == ([], exported.report.images)
    assert origin["judged"]["spearman"] == last.comparison.spearman
    assert exported.package.manifest["data"] == open_package(case.package).manifest["data"]


def test_the_graph_is_complete_in_itself_and_runs_in_both_engines(exported: Exported, case: GatedCase) -> None:
    check_self_contained(graph_of(exported.path), "exported")
    images = sorted(case.graded.iterdir())
    scores = [[Inspector.open(exported.path, engine).inspect(path).score for path in images] for engine in ENGINES]
    assert scores[0] == sorted(scores[0])
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.05 if exported.precision == "int8" else 1e-4)


def test_the_record_allows_more_for_int8_and_keeps_its_pictures(exported: Exported, case: GatedCase) -> None:
    record, original = (_core.read_parity(open_package(path).core) for path in (exported.path, case.package))
    session = Inspector.open(exported.path, exported.engine).session
    expected = 0.02 if exported.precision == "int8" else 1e-4
    assert record["relative_tolerance"] == pytest.approx(expected)
    for kept, known in zip(record["images"], original["images"], strict=True):
        np.testing.assert_array_equal(kept["image"], known["image"])
        assert kept["score"] == session.run(kept["image"], kept["color"]).score  # of the engine it is for


def test_without_refit_the_detector_stays_as_it_is(exported: Exported, case: GatedCase) -> None:
    same = [exported.package.core.read(name) == open_package(case.package).core.read(name) for name in STATE]
    if exported.precision == "int8":
        assert same == [False, False, False, True, False]  # the patches alone
    else:
        assert same == [True] * 5


def test_the_same_export_gives_the_same_bytes(exported: Exported, case: GatedCase, tmp_path: Path) -> None:
    export_package(case.package, tmp_path / "again.onceover", exported.options)
    assert (tmp_path / "again.onceover").read_bytes() == exported.path.read_bytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_float32_keeps_the_graph_the_scores_and_all_verdicts(engine: str, case: GatedCase, tmp_path: Path) -> None:
    report = export_package(case.package, tmp_path / "out.onceover", ExportOptions(engine, calibration=case.near))
    found = report.attempts[0].comparison
    assert graph_of(tmp_path / "out.onceover") == gated_graph()
    assert found.flips == 0
    assert found.score_difference < 1e-4
    assert (found.image_auroc_change, found.aupro_change) == (0, pytest.approx(0, abs=1e-4))
    assert found.images == 16
    assert "8 normal images and 8 with a drawn defect" in report.images


def test_float16_halves_the_weights_and_moves_scores_by_their_rounding(case: GatedCase, tmp_path: Path) -> None:
    report = export_package(
        case.package, tmp_path / "out.onceover", ExportOptions(precision="float16", calibration=case.near)
    )
    assert report.accepted
    saved = 2 * (8 * 3 * 8 * 8 + 4 * 64)
    assert len(gated_graph()) - len(graph_of(tmp_path / "out.onceover")) > saved - 5 * 120
    # Embeddings move by less than 4 · 8 · 2⁻¹¹ in each of 8 channels (test_to_int8.py); a distance by no more.
    bound = 4 * 8 * 2**-11 * np.sqrt(8)
    images = sorted(case.near.iterdir())
    before, after = (Inspector.open(path) for path in (case.package, tmp_path / "out.onceover"))
    differences = [abs(before.inspect(path).score - after.inspect(path).score) for path in images]
    assert 0 < max(differences) < bound


@pytest.mark.parametrize("engine", ENGINES)
def test_a_refitted_bank_holds_what_the_int8_graph_answers(engine: str, case: GatedCase, tmp_path: Path) -> None:
    options = ExportOptions(engine, "int8", case.near, case.graded, case.train)
    export_package(case.package, tmp_path / "out.onceover", options)
    core = open_package(tmp_path / "out.onceover").core
    embedder = _core.Embedder(_core.read_config(core), core.read("graph.onnx"), EngineOptions(engine).resolve())
    names = open_package(case.package).manifest["data"]["bank_images"]
    embeddings = [embedder.embed(read_image(case.train / name)) for name in names]
    source, bank = core.array("bank_source"), core.array("memory_bank")
    rows = np.stack([embeddings[image][patch] for image, patch in source])
    np.testing.assert_array_equal(bank, _core.adapt(rows, core.array("adaptation")))
    inspector = Inspector.open(tmp_path / "out.onceover", engine)
    held_out = open_package(case.package).manifest["data"]["calibration_images"]
    scores = [inspector.inspect(case.train / name).score for name in held_out]
    assert inspector.calibration.threshold == pytest.approx(max(scores), rel=1e-6)  # of 19, for 5 %


def test_int8_goes_down_the_ladder_and_refuses_what_never_is_accepted(case: GatedCase, tmp_path: Path) -> None:
    options = ExportOptions(precision="int8", calibration=case.near)
    report = export_package(case.package, tmp_path / "out.onceover", options)
    assert (report.accepted, report.forced, report.package_id) == (False, False, None)
    assert list(tmp_path.iterdir()) == []
    assert len(report.attempts) == 5
    assert {attempt.method.split(",")[0] for attempt in report.attempts} == {
        "int8: every layer",
        "int8: nothing between the layers",
        "int8: but the first layer and gates",
        "int8: and the most fragile quarter",
        "int8: and the most fragile half",
    }
    assert all(attempt.problems for attempt in report.attempts)
    correlations = [attempt.comparison.spearman for attempt in report.attempts]
    assert correlations[-1] == max(correlations)  # the best comes last


@pytest.fixture
def boldest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_int8, "ladder", lambda *_: iter([to_int8.Rung("every layer", ())]))


@pytest.mark.usefixtures("boldest_only")
def test_a_forced_package_is_written_and_says_what_is_wrong_with_it(case: GatedCase, tmp_path: Path) -> None:
    options = ExportOptions(precision="int8", calibration=case.near, force=True)
    report = export_package(case.package, tmp_path / "out.onceover", options)
    package = open_package(tmp_path / "out.onceover")
    assert (report.accepted, report.forced, report.package_id) == (False, True, package.id)
    origin = package.manifest["export"]
    assert origin["accepted"] is False
    assert origin["judged"]["problems"] == list(report.attempts[-1].problems) != []
    assert origin["method"] == report.attempts[-1].method
    verify_bytes((tmp_path / "out.onceover").read_bytes())


def test_force_changes_nothing_where_the_package_is_accepted(case: GatedCase, tmp_path: Path) -> None:
    report = export_package(case.package, tmp_path / "out.onceover", ExportOptions(test=case.graded, force=True))
    assert (report.accepted, report.forced) == (True, False)
    assert open_package(tmp_path / "out.onceover").manifest["export"]["accepted"] is True


@pytest.mark.usefixtures("boldest_only")
def test_a_graph_with_clipped_activations_is_refused(
    case: GatedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = network_inputs(1)
    assert np.abs(features(clipped_graph(1.0), inputs) - features(gated_graph(), inputs)).max() < 1e-6
    monkeypatch.setattr(to_int8, "quantize", lambda *_: clipped_graph(0.1))
    options = ExportOptions(precision="int8", calibration=case.near, test=case.graded, refit=case.train)
    report = export_package(case.package, tmp_path / "out.onceover", options)
    assert report.package_id is None
    assert "Spearman" in report.attempts[0].problems[0]
    assert list(tmp_path.iterdir()) == []


def test_without_folders_the_reference_images_judge_and_the_report_is_json(case: GatedCase, tmp_path: Path) -> None:
    report = export_package(case.package, tmp_path / "out.onceover", ExportOptions("openvino"))
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (told["accepted"], told["package_id"]) == (True, report.package_id)
    assert told["attempts"][0]["comparison"]["image_auroc"] is None
    assert told["attempts"][0]["problems"] == []
    assert "0 normal images and" in told["images"]
    assert "without a label" in told["images"]


def test_an_uncalibrated_package_stays_uncalibrated(case: GatedCase, tmp_path: Path) -> None:
    parts = fit(case.train, tiny_options(holdout=0, bank=BankSize(rows=50)))
    export.package(parts, tmp_path / "tiny.onceover")
    options = ExportOptions(test=case.graded, refit=case.train)
    report = export_package(tmp_path / "tiny.onceover", tmp_path / "out.onceover", options)
    assert (report.accepted, report.attempts[0].comparison.flips) == (True, None)
    assert not Inspector.open(tmp_path / "out.onceover").calibration.calibrated


def test_an_export_in_float32_can_be_exported_again_and_one_in_less_cannot(exported: Exported, tmp_path: Path) -> None:
    options = ExportOptions(test=exported.options.test)
    if exported.precision == "float32":
        export_package(exported.path, tmp_path / "out.onceover", options)
        assert open_package(tmp_path / "out.onceover").manifest["export"]["from"] == exported.report.package_id
    else:
        with pytest.raises(InputError, match="is an export in reduced precision itself"):
            export_package(exported.path, tmp_path / "out.onceover", options)


def test_what_makes_no_sense_is_refused_before_any_work(case: GatedCase, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float32, float16, int8, got 'int4'"):
        export_package(case.package, tmp_path / "out.onceover", ExportOptions(precision="int4"))  # type: ignore[arg-type]
    for test in (None, case.graded):
        with pytest.raises(UsageError, match="int8 needs --calibration DIR"):
            export_package(case.package, tmp_path / "out.onceover", ExportOptions(precision="int8", test=test))
    with pytest.raises(UsageError, match="is in the memory bank"):
        export_package(case.package, tmp_path / "out.onceover", ExportOptions(test=case.train))
    with pytest.raises(InputError, match=r"images that .* was fitted on are not here"):
        export_package(case.package, tmp_path / "out.onceover", ExportOptions(test=case.graded, refit=case.near))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_without_onnx_reduced_precision_says_what_to_install(
    precision: Any, case: GatedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **settings: Any) -> Any:
        if name == "onceover.export.to_int8":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **settings)

    monkeypatch.setattr(builtins, "__import__", refuse)
    options = ExportOptions(precision=precision, calibration=case.near)
    with pytest.raises(MissingExtraError, match=r"needs the module 'onnx'.*onceover\[int8\]"):
        export_package(case.package, tmp_path / "out.onceover", options)


def test_the_package_itself_is_not_overwritten(case: GatedCase) -> None:
    before = case.package.read_bytes()
    with pytest.raises(UsageError, match="is the package itself"):
        export_package(case.package, case.package, ExportOptions(test=case.graded))
    assert case.package.read_bytes() == before
