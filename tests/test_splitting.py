"""What fit finds out about a folder before it does anything expensive: files, copies, bits, numbers that cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Capture, refusal
from tiny_data import fitted_package, good_folder, labelled_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover.cli import main
from onceover.cli.fitting import dark_note
from onceover.errors import InputError, UsageError
from onceover.images import write_image
from onceover.runtime.package import open_package
from onceover.training.fit import fit
from onceover.training.normal_parts import find_normal_parts
from onceover.training.splitting import bits_in_use, check_images


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: tiny.onnx and good/ with six images."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.onnx").write_bytes(tiny_graph())
    return good_folder(Path("good"), 6)


FIT = ("fit", "good", "-o", "new.onceover", "--backbone", "tiny.onnx")


def test_all_files_that_cannot_be_read_are_named_at_once(work: Path, capsys: Capture) -> None:
    whole = (work / "00.png").read_bytes()
    (work / "cut.png").write_bytes(whole[: len(whole) // 2])
    (work / "empty.jpg").write_bytes(b"")
    (work / "note.png").write_text("not a picture")
    status, message = refusal(capsys, *FIT)
    assert status == 3
    assert message.startswith("3 of 9 images cannot be read; repair them or take them out of the folder:")
    for name, problem in (("cut.png", "is cut"), ("empty.jpg", "is empty"), ("note.png", "not a picture")):
        assert any(f"good/{name}: " in line and problem in line for line in message.splitlines())


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_other_commands_that_read_whole_folders_name_them_at_once_too(
    tmp_path: Path, capsys: Capture, command: str
) -> None:
    package = fitted_package(tmp_path / "fitted", 6)
    folder = labelled_folder(tmp_path / "plate", 3, 3)
    others = good_folder(tmp_path / "others", 20, 900)
    damaged = [others / "00.png", others / "01.png"]
    if command == "evaluate":
        damaged = [folder / "test/hole/01.png", folder / "ground_truth/hole/02_mask.png"]
    for path in damaged:
        path.write_bytes(b"")
    call = [command, str(package), str(folder if command == "evaluate" else others)]
    status, message = refusal(
        capsys, *call, *(["-o", str(tmp_path / "new.onceover")] if command == "calibrate" else [])
    )
    assert status == 3
    assert f"2 of {20 if command == 'calibrate' else 9} images cannot be read" in message
    assert all(f"{path}: the file is empty" in message for path in damaged)


def test_of_many_such_files_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:02}.png" for i in range(14)]
    for path in paths[1:]:
        path.write_bytes(b"")
    write_image(paths[0], tiny_image(0))
    with pytest.raises(InputError, match="13 of 14 images cannot be read") as caught:
        check_images(paths)
    assert str(caught.value).count("is empty") == 10
    assert str(caught.value).endswith("and 3 more")


def test_a_folder_of_copies_of_one_image_is_called_that(work: Path, capsys: Capture) -> None:
    for path in work.iterdir():
        if path.name != "00.png":
            shutil.copy(work / "00.png", path)
    status, message = refusal(capsys, *FIT)
    assert status == 3
    assert "good: all 6 images are copies of one, byte for byte" in message
    assert main([*FIT, "--holdout", "0"]) == 0  # who asks for it


def test_copies_are_named_with_what_they_are_copies_of(work: Path, capsys: Capture) -> None:
    (work / "late").mkdir()
    for i in range(4):
        shutil.copy(work / f"0{i}.png", work / "late" / f"again[{i}].png")
    assert main([*FIT, "--json"]) == 0
    shown, errors = capsys.readouterr()
    assert json.loads(shown)["copies"] == {f"late/again[{i}].png": f"0{i}.png" for i in range(4)}
    told = "4 images are copies of others byte for byte, the same part, counted once: late/again[0].png = 00.png, "
    assert told + "late/again[1].png = 01.png, late/again[2].png = 02.png and 1 more" in " ".join(errors.split())


def test_an_empty_folder_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images found, the folder is empty; onceover reads"):
        fit(tmp_path, tiny_options())


def test_images_of_other_proportions_are_noted_and_those_of_other_sizes_alone_are_not(
    work: Path, capsys: Capture
) -> None:
    for i, (height, width) in enumerate(((80, 112), (60, 84), (40, 57))):
        write_image(work / f"late_{i}.png", tiny_image(50 + i, height, width))
    assert main([*FIT, "--holdout", "0"]) == 0
    assert "proportions" not in capsys.readouterr().err
    sizes = open_package("new.onceover").manifest["data"]["image_sizes"]
    assert sizes == {"count": 4, "smallest": [40, 56], "largest": [80, 112], "proportions": [1.4, 1.425]}
    write_image(work / "turned.png", tiny_image(60, 112, 80))
    assert main([*FIT, "--holdout", "0"]) == 0
    told = "images have 5 sizes, from 40 × 56 to 112 × 80, and proportions from 0.71 to 1.43 (width by height): each is"
    assert told in " ".join(capsys.readouterr().err.split())


def test_what_no_image_can_make_right_is_refused_before_any_image_is_read(work: Path) -> None:
    (work / "cut.png").write_bytes(b"")  # would be told first
    for changes in ({"false_alarm_rate": 5.0}, {"seed": -1}, {"seed": 1 << 64}, {"thumbnails": 3}):
        with pytest.raises(UsageError):
            fit(work, tiny_options(**changes))


def test_a_region_that_cannot_be_read_is_refused_before_the_size_of_the_input_is_chosen(work: Path) -> None:
    stages: list[str] = []
    with pytest.raises(InputError, match=r"absent\.png"):
        fit(work, tiny_options(roi=Path("absent.png")), lambda stage, _done, _total: stages.append(stage))
    assert set(stages) <= {"checking files", "looking for copies"}


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("good", "bad"), r"holds images in bad, by its name not of good parts; give .*parts/good$"),
        (("OK", "NOK/late"), r"holds images in NOK, .*; give .*parts/OK$"),
        (("line 1/good", "line 1/rejects", "line 2/good"), r"in line 1/rejects, .*; give a folder of images of good"),
        (("good", "scratched"), r"holds good, and scratched beside it: are those good parts, too\? Give .*parts/good,"),
        (("normal", "."), r"holds normal, and 00\.png beside it"),
    ],
)
def test_folders_that_say_that_some_parts_are_not_good_are_not_learned_from(
    tmp_path: Path, folders: tuple[str, ...], says: str
) -> None:
    for i, folder in enumerate(folders):
        good_folder(tmp_path / "parts" / folder, 4, 10 * i)
    with pytest.raises(InputError, match=says):
        fit(tmp_path / "parts", tiny_options())
    with pytest.raises(InputError, match=says):
        find_normal_parts(tmp_path / "parts")


@pytest.mark.parametrize("folders", [("good",), ("good", "ok"), ("monday", "tuesday"), ("good/early", "good/late")])
def test_folders_of_good_parts_alone_are_learned_from(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for i, folder in enumerate(folders):
        good_folder(tmp_path / "bad" / "parts" / folder, 4, 10 * i)  # what lies above the folder given says nothing
    assert fit(tmp_path / "bad" / "parts", tiny_options()).calibration.n >= 1
    assert len(find_normal_parts(tmp_path / "bad" / "parts").images) == 4 * len(folders)


def save_16_bit(folder: Path, bits: int) -> list[Path]:
    """Images of 16 bits of which the lowest `bits` are in use."""
    folder.mkdir()
    for i in range(6):
        image = tiny_image(i, channels=0).astype(np.uint16)
        image[0, 0] = 255
        cv2.imwrite(str(folder / f"{i}.png"), image << (bits - 8) if bits > 8 else image >> (8 - bits))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_bits_that_16_bit_images_use_are_counted(tmp_path: Path, bits: int) -> None:
    images = save_16_bit(tmp_path / "deep", bits)
    assert bits_in_use(images) == bits
    write_image(tmp_path / "eight.png", tiny_image(1))
    assert bits_in_use([*images, tmp_path / "eight.png"]) is None


def test_a_camera_of_12_bits_in_files_of_16_is_told_and_what_to_do(work: Path, capsys: Capture) -> None:
    save_16_bit(Path("dark"), 11)  # good parts need not be as bright as the sensor allows
    save_16_bit(Path("full"), 16)
    assert main(["fit", "dark", "-o", "dark.onceover", *FIT[4:]]) == 0
    assert "use the lowest 11 alone" in (errors := capsys.readouterr().err)
    assert "If the camera delivers 12 bits, multiply pixels by 16 and clip them at 65,535" in errors
    assert main(["fit", "full", "-o", "full.onceover", *FIT[4:]]) == 0
    assert "16 bits per channel" not in capsys.readouterr().err


@pytest.mark.parametrize(("bits", "factor"), [(1, 64), (8, 64), (10, 64), (11, 16), (12, 16), (13, 4), (14, 4)])
def test_no_pixel_of_a_camera_wraps_when_it_is_multiplied_as_told(bits: int, factor: int) -> None:
    note = dark_note(bits)
    assert note is not None
    assert f"multiply pixels by {factor} " in note
    assert ("nearly black" in note) == (factor > 4)


@pytest.mark.parametrize("bits", [0, 15, 16])
def test_black_images_and_those_that_use_16_bits_are_not_to_be_multiplied(bits: int) -> None:
    assert dark_note(bits) is None


def test_too_few_parts_for_verdicts_say_how_many_it_takes(work: Path, capsys: Capture) -> None:
    shutil.copy(work / "00.png", work / "again.png")
    assert main(list(FIT)) == 0
    shown, errors = capsys.readouterr()
    assert "fit on 19 good parts or more" in errors
    assert "1 image is a copy of another byte for byte" in errors
    assert "(1 part)" in shown


@pytest.mark.parametrize("held_out", ["0", "3"])
def test_parts_that_are_enough_but_for_what_was_held_out_are_not_asked_for(
    work: Path, capsys: Capture, held_out: str
) -> None:
    good_folder(work, 22)
    assert main([*FIT, "--holdout", held_out]) == 0
    errors = capsys.readouterr().err
    assert "For verdicts leave out --holdout, or hold out 19 of the 22 parts, or give 19" in errors
    assert "fit on 19" not in errors
    assert main([*FIT, "--holdout", "19"]) == 0
    assert "uncalibrated" not in capsys.readouterr().err


def test_too_few_parts_with_a_holdout_are_asked_for_without_it(work: Path, capsys: Capture) -> None:
    assert main([*FIT, "--holdout", "3"]) == 0
    assert "fit on 19 good parts or more and leave out --holdout" in capsys.readouterr().err


def test_a_small_validation_split_is_told_that_train_parts_can_be_held_out(work: Path, capsys: Capture) -> None:
    good_folder(Path("data/validation/good"), 3, 400)
    (Path("data/test/good")).mkdir(parents=True)
    words = ["fit", "data", *FIT[2:]]
    for train, advice in (
        (17, "give 19 parts for validation, or fit on more and hold out 19 parts of train"),
        (20, "For verdicts hold out 19 parts of train, not the 3 of validation, with --holdout 19"),
    ):
        good_folder(Path("data/train/good"), train)
        assert main(words) == 0
        errors = capsys.readouterr().err
        assert advice in errors
        assert "fit on 19" not in errors
    assert main([*words, "--holdout", "3"]) == 0
    assert "For verdicts hold out 19 of the 20 parts" in capsys.readouterr().err
    assert main([*words, "--holdout", "19"]) == 0
    assert "uncalibrated" not in capsys.readouterr().err
