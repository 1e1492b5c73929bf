"""Corrections on the device: a confirmed false alarm is none any more, what decides is exactly the corrected rows and
their calibration, and nothing that was acknowledged is ever lost. The file itself: test_corrections.cpp.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bank_line import Line, copied, corrected_rows, fit_line, remembered, scores_by_hand, weighed
from command_line import Capture, answer, refusal
from tiny_data import defective
from tiny_package import read_members, tiny_image, tiny_package, write_members

from onceover import Corrections, Inspector, MemoryBank, _core
from onceover.cli import main
from onceover.errors import InputError, PackageError, UsageError
from onceover.runtime.corrections import journal_path
from onceover.runtime.package import open_package
from onceover.training.calibrate import conformal_threshold
from onceover.training.calibration_patches import TRACKED
from onceover.types import Calibration


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("line"))


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    return copied(fitted, tmp_path)


def test_a_confirmed_false_alarm_is_none_any_more(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        assert inspector.applied is not None
        assert inspector.applied.calibration == "fitted"
        number, before = corrections.propose(inspector, line.alarms[0], note="a window", time=5)
        assert before.decision == "anomalous"
        assert inspector.inspect(line.alarms[0]).score == before.score  # in quarantine
        corrections.confirm([number], "seen by R.", time=6)
        inspector.apply_corrections()
        after = inspector.inspect(line.alarms[0])
        assert after.decision == "normal"
        assert after.score <= inspector.calibration.threshold
        assert after.corrections == corrections.id
        assert inspector.applied.describe().startswith("1 correction (")
        assert after.nearest != before.nearest
        assert inspector.verify()["images"] > 0  # is about the package
        assert inspector.inspect(line.alarms[0]).score == after.score
        assert corrections.undo() == 2
        inspector.apply_corrections()
        assert inspector.inspect(line.alarms[0]).to_dict()["score"] == before.score


def test_the_corrected_bank_is_searched_like_one_built_of_its_rows(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        ids = [corrections.propose(inspector, path)[0] for path in line.alarms[:3]]
        corrections.confirm(ids[:2])
        corrections.remove([3, 11, corrections.candidates[0].rows[1]])
        inspector.apply_corrections()
        bank = MemoryBank.build(corrected_rows(corrections))
        removed, added, _ = corrections.changes()
        numbers = np.concatenate([np.setdiff1d(np.arange(200), removed), added])
        for seed in range(900, 906):
            inspector.inspect(tiny_image(seed))
            embeddings = inspector.session.embeddings()
            distances, rows = bank.search(embeddings, k=1)
            assert np.array_equal(inspector.session.patch_distances().ravel(), distances[:, 0])
            assert np.array_equal(inspector.session.nearest_rows().ravel(), numbers[rows[:, 0]])


@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_instruction_set_decides_alike(line: Line, isa: str) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.confirm([corrections.propose(inspector, line.alarms[0], time=1)[0]], time=1)
        corrections.remove([7], time=1)
        applied = inspector.apply_corrections()
        verdict = inspector.inspect(line.alarms[1])
        expected = f"{verdict.score!r} {inspector.calibration.threshold!r} {verdict.nearest} {applied.calibration}"
    program = (
        "import sys, onceover\n"
        "inspector = onceover.Inspector.open(sys.argv[1])\n"
        "verdict = inspector.inspect(sys.argv[2])\n"
        "print(repr(verdict.score), repr(inspector.calibration.threshold), verdict.nearest,"
        " inspector.applied.calibration)\n"
    )
    environment = {**os.environ, "ONCEOVER_ISA": isa}
    told = subprocess.run(
        [sys.executable, "-c", program, line.package, line.alarms[1]], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert told.stdout.strip() == expected


def test_added_rows_give_the_thresholds_of_a_new_calibration_or_higher_ones(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        before = inspector.calibration
        ids = [corrections.propose(inspector, path)[0] for path in line.alarms]
        corrections.confirm(ids)
        applied = inspector.apply_corrections()
        calibration = inspector.calibration
        scores, maxima = scores_by_hand(line, corrected_rows(corrections))
        assert (calibration.scores >= scores).all()
        assert (calibration.map_maxima >= maxima).all()
        if applied.calibration == "exact":
            assert np.array_equal(calibration.scores, scores)
        assert calibration.threshold == max(before.threshold or 0, conformal_threshold(calibration.scores, 0.05))
        map_threshold = conformal_threshold(calibration.map_maxima, 0.05)
        assert calibration.map_threshold == max(before.map_threshold or 0, map_threshold)


def test_a_calibration_whose_worst_patches_fall_is_followed(line: Line) -> None:
    """The worst held-out patch itself joins the bank: p-values follow, the threshold does not fall."""
    package = open_package(line.package)
    held_out = remembered(package)[0]
    worst = int(np.argmax(weighed(package, held_out).max(axis=1)))
    corrections = Corrections.open(package)
    candidate = {
        "product": 0, "score": 9.0, "threshold": 1.0, "patches": held_out.patches[worst][:1].copy(),
        "rows": held_out.embeddings[worst][:1].copy(),
    }  # fmt: skip
    with Inspector.open(line.package, corrections=corrections) as inspector:
        before = inspector.calibration
        corrections.core.propose(candidate, "the worst one", "", b"", 0)
        corrections.confirm([1])
        applied = inspector.apply_corrections()
        scores, _ = scores_by_hand(line, corrected_rows(corrections))
        assert applied.calibration == "exact"
        assert np.array_equal(inspector.calibration.scores, scores)
        assert scores[-1] < before.scores[-1]
        assert inspector.calibration.threshold == before.threshold


def test_removing_fitted_rows_never_scores_a_held_out_part_too_low(line: Line) -> None:
    corrections = Corrections.open(line.package)
    generator = np.random.default_rng(5)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        original = inspector.calibration.scores
        for count in (1, 10, 60):
            alive = np.setdiff1d(np.arange(200), corrections.changes()[0])
            corrections.remove(generator.choice(alive, count, replace=False).tolist())
            applied = inspector.apply_corrections()
            scores, maxima = scores_by_hand(line, corrected_rows(corrections))
            assert (inspector.calibration.scores >= scores).all()
            assert (inspector.calibration.map_maxima >= maxima).all()
            assert applied.calibration in ("exact", "bounded")
            assert (applied.bounded_parts > 0) == (applied.calibration == "bounded")
            if applied.calibration == "exact":
                assert np.array_equal(inspector.calibration.scores, scores)
        assert (inspector.calibration.scores >= original).all()
        assert inspector.calibration.threshold == conformal_threshold(inspector.calibration.scores, 0.05)


def test_a_package_that_remembers_no_patches_keeps_its_threshold_or_says_that_it_has_none(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "old.onceover")
    alarm = defective(tiny_image(700))[0]
    corrections = Corrections.open(package)
    with Inspector.open(package, corrections=corrections) as inspector:
        fitted_threshold = inspector.calibration.threshold
        number, _ = corrections.propose(inspector, alarm)
        corrections.confirm([number])
        assert inspector.apply_corrections().calibration == "kept"
        assert inspector.calibration.threshold == fitted_threshold
        assert inspector.inspect(alarm).decision == "normal"
        corrections.remove([0])
        assert inspector.apply_corrections().calibration == "stale"
        verdict = inspector.inspect(alarm)
        assert verdict.decision == "uncalibrated"
        assert verdict.p_value == 1
        assert verdict.threshold is None
        corrections.undo()
        assert inspector.apply_corrections().calibration == "kept"
        assert inspector.inspect(alarm).decision == "normal"


def test_only_alarms_are_proposed(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        with pytest.raises(UsageError, match=r"the last image is normal .* only a false alarm"):
            corrections.propose(inspector, tiny_image(0))
        assert not journal_path(line.package).exists()


def test_a_journal_of_another_package_or_a_damaged_one_is_refused(line: Line, tmp_path: Path) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.propose(inspector, line.alarms[0])
        corrections.propose(inspector, line.alarms[1])
    other = tiny_package(tmp_path / "other.onceover")
    journal = journal_path(line.package)
    journal_path(other).write_bytes(journal.read_bytes())
    with pytest.raises(InputError, match="holds corrections of the package"):
        Inspector.open(other)
    assert Inspector.open(other, corrections=None).applied is None
    damaged = bytearray(journal.read_bytes())
    damaged[300] ^= 1
    journal.write_bytes(damaged)
    with pytest.raises(PackageError, match="the journal is damaged at byte 128"):
        Inspector.open(line.package)


def test_the_path_of_a_package_brings_its_journal_an_opened_package_does_not(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.confirm([corrections.propose(inspector, line.alarms[0])[0]])
    by_path = Inspector.open(line.package)
    assert by_path.applied is not None
    assert by_path.applied.confirmed == 1
    assert Inspector.open(open_package(line.package)).applied is None
    assert Inspector.open(line.package, corrections=None).inspect(line.alarms[0]).corrections is None


def test_a_new_package_of_a_corrected_one_says_that_it_leaves_the_corrections_out(
    line: Line, tmp_path: Path, capsys: Capture
) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.confirm([corrections.propose(inspector, line.alarms[0])[0]])
    before = line.package.read_bytes()
    status, message = refusal(capsys, "calibrate", str(line.package), str(line.images), "--replace")
    assert status == 2
    assert f"{line.package}.journal" in message
    assert "compact" in message
    assert line.package.read_bytes() == before
    assert main(["export", str(line.package), "--to-onnx", str(tmp_path / "plain.onnx")]) == 0
    assert "are not in the new package" in " ".join(capsys.readouterr().err.split())


def test_a_fitted_package_remembers_its_held_out_patches(line: Line) -> None:
    package = open_package(line.package)
    held_out = remembered(package)[0]
    calibration = Calibration.of_record(_core.read_calibration(package.core))
    assert held_out.embeddings.shape == (calibration.image_count, TRACKED, 4)
    assert not remembered(package)[1]
    scores = weighed(package, held_out)
    assert np.array_equal(np.sort(scores.max(axis=1)), calibration.scores)
    worst = np.take_along_axis(scores, held_out.patches.astype(np.int64), axis=1)
    assert (np.diff(worst, axis=1) <= 0).all()
    assert np.array_equal(worst[:, 0], scores.max(axis=1))
    assert np.array_equal(held_out.to_array(), package.core.array("calibration_patches"))


DAMAGES = {
    "another number of images": (4, 0, "another calibration or patch grid"),
    "more tracked patches than there are": (8, 10_000, "another calibration or patch grid"),
    "another size than its numbers say": (8, 3, "another size than its numbers say"),
    "a field of a later version": (24, 1, "field 'zeros' is not zero at byte 0"),
    "bounds that are neither": (20, 2, "field 'bounds' is 2, expected 0 to 1"),
    "a part that is not there": (64, 4_000, "a part that the calibration does not have"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_held_out_patches_that_make_no_sense_are_refused_when_they_are_needed(
    line: Line, tmp_path: Path, damage: str
) -> None:
    at, value, message = DAMAGES[damage]
    members = {name: content for name, content in read_members(line.package).items() if name[:5] != "bank_"}
    patches = np.frombuffer(members["calibration_patches"], np.uint8).copy()
    patches[at : at + 4] = np.array([value], np.uint32).view(np.uint8)
    members["calibration_patches"] = patches
    package = write_members(tmp_path / "damaged.onceover", members)
    corrections = Corrections.open(package)
    with Inspector.open(package, corrections=corrections) as inspector:
        before = inspector.inspect(line.alarms[0])
        corrections.remove([0])
        with pytest.raises(PackageError, match=message):
            inspector.apply_corrections()
        assert inspector.inspect(line.alarms[0]).score == before.score  # as if nothing had been applied


# ---- The command line ----


def test_the_commands_take_a_false_alarm_from_candidate_to_new_package(
    line: Line, tmp_path: Path, capsys: Capture
) -> None:
    package, alarm = str(line.package), str(line.alarms[0])
    assert answer(capsys, "inspect", package, alarm)[0] == 1
    status, added = answer(capsys, "bank", "add", package, alarm, str(line.images / "00.png"), "--note", "a window")
    assert status == 0
    assert [each["candidate"] for each in added["results"]] == [1, None]
    status, inspected = answer(capsys, "inspect", package, alarm)
    assert status == 1
    assert inspected["corrections"]["confirmed"] == 0
    assert answer(capsys, "bank", "confirm", package, "1", "--reason", "R.")[1]["confirmed"] == [1]
    status, inspected = answer(capsys, "inspect", package, alarm)
    assert status == 0
    assert inspected["corrections"]["id"] == inspected["results"][0]["corrections"]
    assert answer(capsys, "inspect", package, alarm, "--no-corrections")[0] == 1
    assert answer(capsys, "verify", package)[0] == 0
    status, listed = answer(capsys, "bank", "list", package)
    assert [each["type"] for each in listed["operations"]] == ["propose", "confirm"]
    assert listed["operations"][1]["text"] == "R."
    assert listed["candidates"][0]["standing"] == "confirmed"
    made = tmp_path / "new.onceover"
    assert answer(capsys, "bank", "compact", package, "-o", str(made))[0] == 0
    assert answer(capsys, "inspect", str(made), alarm)[0] == 0
    assert answer(capsys, "bank", "undo", package)[1]["undone"] == 2
    assert answer(capsys, "inspect", package, alarm)[0] == 1
    status, added = answer(capsys, "bank", "add", package, alarm, "--confirm")
    assert added["results"][0]["standing"] == "confirmed"
    assert added["results"][0]["decision_after"] == "normal"
    nearest = answer(capsys, "inspect", package, alarm)[1]["results"][0]["nearest"]
    assert answer(capsys, "bank", "remove", package, str(nearest))[0] == 0
    assert answer(capsys, "bank", "reject", package, "1")[1]["rejected"] == [1]
    assert main(["bank", "list", package]) == 0
    assert "rejected" in capsys.readouterr().out


def test_the_audit_log_is_read_in_a_narrow_terminal(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    package = str(line.package)
    for words in (
        ["add", package, str(line.alarms[0])],
        ["confirm", package, "1"],
        ["remove", package, "3"],
        ["undo", package],
    ):
        assert main(["bank", *words]) == 0
    capsys.readouterr()
    main(["bank", "list", package])
    shown = capsys.readouterr().out
    table = [text for text in shown.splitlines() if text.startswith("│")]
    assert max(map(len, table)) <= 60
    operations = [text.split("│")[3].strip() for text in table]
    assert [operation for operation in operations if operation] == ["propose", "confirm 1", "remove 3", "undo 3"]
    assert "confirmed" in [text.split("│")[4].strip() for text in table]
    assert " 0 fitted rows removed" in shown


def test_a_candidate_is_named_by_a_whole_number_and_by_nothing_that_only_counts_as_one(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=None) as inspector:
        corrections.propose(inspector, line.alarms[0])
    for value in (True, np.True_, 1.0, "1"):
        with pytest.raises(UsageError, match=f"{value} is no number of a candidate"):
            corrections.confirm([value])  # type: ignore[list-item]
    corrections.confirm(np.array([1]))  # type: ignore[arg-type]
    assert corrections.candidates[0].standing == "confirmed"


def test_the_commands_refuse_what_makes_no_sense(line: Line, tmp_path: Path, capsys: Capture) -> None:
    package = str(line.package)
    assert refusal(capsys, "bank", "confirm", package, "4") == (2, "4 is no candidate; see the list for the numbers")
    assert refusal(capsys, "bank", "undo", package)[1].endswith("there is nothing left to undo")
    assert "nothing to compact" in refusal(capsys, "bank", "compact", package, "-o", str(tmp_path / "x.onceover"))[1]
    assert refusal(capsys, "bank", "remove", package, "200")[0] == 2
    assert not journal_path(line.package).exists()
    with Inspector.open(line.package, corrections=None) as inspector:
        Corrections.open(line.package, max_added_rows=90).propose(inspector, line.alarms[0])
    message = refusal(capsys, "bank", "add", package, str(line.alarms[0]), "--max-rows", "80")[1]
    assert "holds at most 90 rows, as it was begun" in message
    with pytest.raises(UsageError, match="-3 is no number of a candidate"):
        Corrections.open(line.package).confirm([-3])
