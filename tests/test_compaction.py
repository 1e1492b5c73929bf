"""A package and its journal become a new package, by the same code as in C (test_compaction.cpp): it decides as the
corrected one, and says where everything in it came from.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bank_line import Line, copied, corrected_rows, fit_line, remembered, scores_by_hand
from command_line import Capture, answer, refusal
from tiny_data import good_folder

from onceover import Corrections, Inspector, _core
from onceover.errors import EngineError, InputError, UsageError
from onceover.export.compact import compact
from onceover.export.recalibrate import CalibrateOptions, calibrate_package
from onceover.images import read_image
from onceover.runtime.corrections import journal_path
from onceover.runtime.package import open_package
from onceover.training.calibrate import conformal_rank, threshold_rank
from onceover.training.refit import refit


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("line"))


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    return copied(fitted, tmp_path)


def corrected(line: Line, alarms: int = 2, removed: tuple[int, ...] = (5,)) -> Corrections:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.confirm([corrections.propose(inspector, path, time=1)[0] for path in line.alarms[:alarms]], time=1)
    corrections.remove(removed, time=1)
    return corrections


def test_a_compacted_package_decides_as_the_corrected_one_and_can_be_corrected_again(
    line: Line, tmp_path: Path
) -> None:
    corrections = corrected(line)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        made = tmp_path / "compacted.onceover"
        compact(corrections, made)
        compacted = Inspector.open(made)
        for path in (*line.alarms, *sorted(line.images.iterdir())[:5]):
            before, after = inspector.inspect(path), compacted.inspect(path)
            assert (after.score, after.decision, after.p_value) == (before.score, before.decision, before.p_value)
            assert after.threshold == before.threshold
            assert after.map_threshold == before.map_threshold
        assert np.array_equal(compacted.calibration.scores, inspector.calibration.scores)
    told = compacted.manifest["compacted"]
    assert told["from"] == corrections.package.id
    assert told["journal"] == corrections.id
    source = compacted.package.core.array("bank_source")
    data = compacted.manifest["data"]
    assert len(source) == compacted.session.bank_rows
    assert data["bank_images"][source[-1, 0]] == "window_1.png"
    again = Corrections.open(made)
    with Inspector.open(made, corrections=again) as inspector:
        again.remove([9])
        applied = inspector.apply_corrections()
        scores, _ = scores_by_hand(replace(line, package=made), corrected_rows(again))
        assert applied.calibration in ("exact", "bounded")
        assert (inspector.calibration.scores >= scores).all()
    assert compacted.package.core.read("gate") == corrections.package.core.read("gate")
    with pytest.raises(UsageError, match="is the package itself"):
        compact(corrections, line.package)
    with pytest.raises(UsageError, match="has corrections inside"):
        refit(open_package(made), line.images, compacted.package.core.read("graph.onnx"))


def test_what_a_compacted_package_remembers_is_never_better_than_it_is(line: Line, tmp_path: Path) -> None:
    corrections = corrected(line, removed=(5, 17, 100))
    made = tmp_path / "compacted.onceover"
    compact(corrections, made)
    package = open_package(made)
    before, after = remembered(corrections.package)[0], remembered(package)[0]
    assert remembered(package)[1]
    assert np.array_equal(after.parts, before.parts)
    assert np.array_equal(after.patches, before.patches)
    assert np.array_equal(after.embeddings, before.embeddings)
    bank = package.core.array("memory_bank").astype(np.float64)
    with Inspector.open(package) as inspector:
        for i, name in enumerate(package.manifest["data"]["calibration_images"]):
            inspector.session.run(read_image(line.images / name))
            embeddings, distances = inspector.session.embeddings(), inspector.session.patch_distances().ravel()
            assert (after.distances[i] >= distances).all()
            assert np.array_equal(after.distances[i][after.patches[i]], distances[after.patches[i]])
            told = np.linalg.norm(embeddings - bank[after.nearest[i]], axis=1)
            assert (told <= after.distances[i] * (1 + 1e-6)).all()  # the row that it says is that near


def test_an_image_with_any_name_is_told_in_the_manifest(line: Line, tmp_path: Path) -> None:
    names = ('a/ä "quoted" \\ 部品.png', "..", "dir/", "line\nbreak\t\x7f", "", "/")
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        ids = [
            corrections.propose(inspector, path, name=name)[0] for path, name in zip(line.alarms, names, strict=True)
        ]
    corrections.confirm(ids)
    made = tmp_path / "compacted.onceover"
    compact(corrections, made)
    manifest, old = open_package(made).manifest, corrections.package.manifest
    told = [Path(name).name or f"correction {number}" for name, number in zip(names, ids, strict=True)]
    assert manifest["data"]["bank_images"] == [*old["data"]["bank_images"], *told]
    assert manifest["data"]["bank_sha256"][-6:] == [each.image_sha256 for each in corrections.candidates]
    manifest["data"], manifest["detector"] = old["data"], old["detector"]
    assert manifest.pop("compacted")["candidates"] == ids
    assert manifest == old  # nothing else changed


def test_every_compaction_stays_in_the_manifest(line: Line, tmp_path: Path) -> None:
    packages = [open_package(line.package)]
    for i in range(3):
        corrections = Corrections.open(packages[-1])
        corrections.remove([i], time=1)
        compact(corrections, tmp_path / f"{i}.onceover")
        packages.append(open_package(tmp_path / f"{i}.onceover"))
    told = packages[-1].manifest
    assert [*(each["from"] for each in told["compacted_before"]), told["compacted"]["from"]] == [
        package.id for package in packages[:-1]
    ]
    assert told["detector"]["bank_rows"] == len(packages[-1].core.array("memory_bank")) == 197


def test_the_same_package_and_journal_give_the_same_bytes(line: Line, tmp_path: Path) -> None:
    corrections = corrected(line)
    one, other = tmp_path / "one.onceover", tmp_path / "other.onceover"
    stages: list[str] = []
    assert compact(corrections, one) == compact(
        corrections, other, threads=2, progress=lambda what, done, total: stages.append(what)
    )
    assert one.read_bytes() == other.read_bytes()
    assert list(dict.fromkeys(stages)) == ["reference images", "search index", "neighbors", "verifying"]


def test_a_new_package_does_not_take_the_place_of_one_that_has_corrections(line: Line, tmp_path: Path) -> None:
    corrections = corrected(line)
    (tmp_path / "other").mkdir()
    taken = copied(line, tmp_path / "other")  # a package with a journal of its own
    corrected(taken)
    with pytest.raises(UsageError, match="lies where the journal of the new package would"):
        compact(corrections, taken.package)
    with pytest.raises(UsageError, match="is the journal"):
        compact(corrections, journal_path(line.package))
    journal_path(taken.package).unlink()
    compact(corrections, taken.package)
    assert Inspector.open(taken.package).applied is None


def test_what_stops_it_leaves_no_file(line: Line, tmp_path: Path) -> None:
    corrections = corrected(line)
    before = sorted(tmp_path.iterdir())

    def stop(what: str, done: int, total: int) -> None:
        if what == "verifying":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(corrections, tmp_path / "stopped.onceover", progress=stop)
    with pytest.raises(EngineError):
        corrections.core.compact(str(tmp_path / "x"), _core.EngineOptions("onnxruntime", "/nowhere/libonnxruntime.so"))
    assert sorted(tmp_path.iterdir()) == before


KILLED = """
import os, signal, sys
from onceover import Corrections
from onceover.export.compact import compact

def kill(what, done, total):
    if what == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

compact(Corrections.open(sys.argv[1]), sys.argv[2], progress=kill)
"""


@pytest.mark.parametrize("stage", ["neighbors", "verifying"])
def test_a_killed_command_leaves_the_old_package(line: Line, tmp_path: Path, stage: str) -> None:
    corrections = corrected(line)
    target = tmp_path / "target.onceover"
    target.write_bytes(line.package.read_bytes())
    killed = subprocess.run([sys.executable, "-c", KILLED, str(line.package), str(target), stage], check=False)
    assert killed.returncode == -9
    assert target.read_bytes() == line.package.read_bytes()
    compact(corrections, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part.onceover", "part.onceover.journal", "target.onceover"
    ]  # fmt: skip
    assert Inspector.open(target).inspect(line.alarms[0]).decision == "normal"


def test_the_command_says_what_became_of_the_calibration(line: Line, tmp_path: Path, capsys: Capture) -> None:
    corrected(line)
    made = tmp_path / "made.onceover"
    status, told = answer(capsys, "bank", "compact", str(line.package), "-o", str(made))
    package = open_package(made)
    assert (status, told["id"], told["output"]) == (0, package.id, str(made))
    assert told["calibration"] == package.manifest["compacted"]["calibration"]
    assert told["calibration"] in ("exact", "bounded")
    status, message = refusal(capsys, "bank", "compact", str(line.package), "-o", str(line.package))
    assert (status, "is the package itself" in message) == (2, True)
    with pytest.raises(InputError, match="holds corrections of the package"):
        Corrections.open(made, journal_path(line.package))


def test_a_promise_with_confidence_outlives_compaction(line: Line, tmp_path: Path) -> None:
    """The threshold that is kept may be none of the scores any more: its rank is found by the promise, not by it."""
    rate, sure = 0.3, 0.9
    normals, source = good_folder(tmp_path / "normals", 40, first_seed=3000), tmp_path / "sure.onceover"
    calibrate_package(line.package, normals, source, CalibrateOptions(false_alarm_rate=rate, confidence=sure))
    package = open_package(source)
    held_out = remembered(package)[0]
    corrections = Corrections.open(package)
    worst = held_out.embeddings[:, :6].reshape(-1, 4).copy()  # so that all scores fall
    patches = np.zeros(len(worst), np.uint32)
    candidate = {"product": 0, "score": 9.0, "threshold": 1.0, "patches": patches, "rows": worst}
    corrections.core.propose(candidate, "many", "", b"", 0)
    corrections.confirm([1])
    compact(corrections, tmp_path / "made.onceover")
    again = Corrections.open(tmp_path / "made.onceover")
    with Inspector.open(tmp_path / "made.onceover", corrections=again) as inspector:
        kept = inspector.calibration.threshold
        assert kept is not None
        assert kept not in inspector.calibration.scores
        rows = inspector.session.bank_rows
        again.remove(list(range(200, rows)))  # what joined
        again.remove(list(range(0, 150)))
        inspector.apply_corrections()
        calibration = inspector.calibration
        rank = threshold_rank(calibration.n, rate, sure)
        assert rank > conformal_rank(calibration.n, rate)
        assert calibration.threshold == calibration.scores[rank - 1] > kept
