"""`pretrain check`: records come out again, and whatever changed since is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Capture, answer, refusal
from pretrain_samples import image_folder, options_in, recorded, silent, tamper, teacher_weights

from onceover.errors import InputError, VerificationError
from onceover.training.pretrain import loading
from onceover.training.pretrain.augmentation import DEFAULT, draw_view
from onceover.training.pretrain.checking import FEATURE_TOLERANCE, CheckReport, check


def checked(folder: Path, weights: Path | None = None) -> CheckReport:
    return check(folder, None, weights, 100, 0, "cpu", silent)


def test_fresh_records_are_reproduced_up_to_rounding(tmp_path: Path) -> None:
    report = checked(recorded(tmp_path))
    assert (report.records, report.compared, report.images) == (11, 11, 5)
    assert 0 < report.feature_difference < FEATURE_TOLERANCE / 2
    assert report.changed_classes < 0.2


def test_a_changed_image_is_named(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    image = tmp_path / "images" / "1.png"
    image.write_bytes((tmp_path / "images" / "2.png").read_bytes())
    with pytest.raises(InputError, match=r"1\.png: the image has changed since it was recorded"):
        checked(folder)
    image.unlink()
    with pytest.raises(InputError, match=r"1\.png: cannot read the image"):
        checked(folder)


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    other = teacher_weights(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(InputError, match=r"other\.safetensors: is not the teacher of these records"):
        checked(folder, other)
    (tmp_path / "teacher.safetensors").unlink()
    with pytest.raises(InputError, match="say with --weights where"):
        checked(folder)


def test_one_changed_number_of_the_augmentation_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(tmp_path)
    other = replace(DEFAULT, brightness=51.0)
    monkeypatch.setattr(loading, "draw_view", lambda image, seed, size: draw_view(image, seed, size, other))
    with pytest.raises(VerificationError, match="its seed gives other pixels here"):
        checked(folder)


@pytest.mark.parametrize(
    ("field", "told"), [("tap0", r"stage features\.6"), ("probabilities", "a probability"), ("seed", "another view")]
)
def test_a_wrong_record_in_a_whole_shard_fails_the_check(field: str, told: str, tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    tamper(folder, 0, field)
    with pytest.raises(VerificationError, match=told):
        checked(folder)


def test_images_that_moved_are_found_where_the_user_says(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    (tmp_path / "images").rename(tmp_path / "moved")
    report = check(folder, tmp_path / "moved", None, 4, 0, "cpu", silent)
    assert report.compared == 4


def test_record_and_check_from_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    options = options_in(tmp_path)
    words = ["pretrain", "record", str(options.images), "-o", str(tmp_path / "records"), "--teacher", options.teacher]
    words += ["--weights", str(options.weights), "--views", "2", "--size", "32", "--logits-top-k", "2"]
    status, printed = answer(capsys, *words, "--procedural", "1")
    assert (status, printed["records"]) == (0, 7)
    status, printed = answer(capsys, "pretrain", "check", str(tmp_path / "records"), "--samples", "3")
    assert (status, printed["compared"]) == (0, 3)
    tamper(tmp_path / "records", 0, "tap1")
    status, message = refusal(capsys, "pretrain", "check", str(tmp_path / "records"))
    assert status == 1
    assert "record again" in message
    other = image_folder(tmp_path / "other", 1)
    status, message = refusal(capsys, "pretrain", "check", str(other))
    assert status == 3
    assert "onceover pretrain record" in message
