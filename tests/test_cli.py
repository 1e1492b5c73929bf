"""The command line: exit status, one JSON object, near matches, pictures, pipes. Bad input: test_bad_input.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, cli, refusal
from tiny_data import defective, fitted_package, good_folder, labelled_folder
from tiny_package import read_members, tiny_graph, tiny_image, write_members

from onceover import registry
from onceover.cli import main
from onceover.cli.output import Output
from onceover.cli.parser import COMMANDS
from onceover.cli.tables import ROWS_AT_ONCE
from onceover.images import read_image, write_image


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.onceover, tiny.onnx, train/good, and a labelled data set plate/; not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    fitted_package(folder)
    (folder / "tiny.onnx").write_bytes(tiny_graph())
    labelled_folder(folder / "plate")
    return folder


@pytest.fixture
def work(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with links to all of `fitted`; the working directory."""
    for path in fitted.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    write_image("good.png", tiny_image(900))
    write_image("bad.png", defective(tiny_image(901))[0])
    return tmp_path


def test_fit_evaluate_inspect_and_verify_follow_each_other(work: Path, capsys: Capture) -> None:
    status, fitted = answer(capsys, "fit", "train/good", "-o", "new.onceover", "--backbone", "tiny.onnx")
    assert (status, fitted["calibrated"], fitted["false_alarm_rate"]) == (0, True, 0.05)
    assert fitted["size_bytes"] == Path("new.onceover").stat().st_size
    status, verified = answer(capsys, "verify", "new.onceover")
    assert (status, verified["verified"], verified["id"]) == (0, True, fitted["id"])
    status, report = answer(capsys, "evaluate", "new.onceover", "plate")
    assert status == 0
    assert {"image_auroc", "pixel_auroc", "aupro", "f1_max", "false_alarm_rate", "miss_rate"} <= set(report)
    assert report["package_id"] == fitted["id"]
    status, inspected = answer(capsys, "inspect", "new.onceover", "plate/test")
    assert [row["score"] for row in inspected["results"]] == list(report["scores"].values())
    assert status == 1  # there are holes among them


def test_the_same_commands_without_json_say_it_in_words(work: Path, capsys: Capture) -> None:
    assert main(["fit", "train/good", "-o", "new.onceover", "--backbone", "tiny.onnx"]) == 0
    told = capsys.readouterr().out
    assert "19 images for the memory bank, 19 held out" in told
    assert "new.onceover written and verified" in told
    assert main(["evaluate", "new.onceover", "plate", "--save", "sheet.png"]) == 0
    told = capsys.readouterr().out
    assert "AUPRO(0.3)" in told
    assert "contact sheet: sheet.png" in told
    assert min(read_image("sheet.png").shape[:2]) > 100
    assert main(["verify", "new.onceover"]) == 0
    assert "6 reference images replayed" in capsys.readouterr().out


def test_inspect_answers_0_for_normal_and_1_for_anomalous(work: Path, capsys: Capture) -> None:
    status, normal = answer(capsys, "inspect", "tiny.onceover", "good.png")
    assert (status, normal["results"][0]["decision"]) == (0, "normal")
    status, anomalous = answer(capsys, "inspect", "tiny.onceover", "bad.png")
    assert (status, anomalous["results"][0]["decision"]) == (1, "anomalous")
    assert main(["inspect", "tiny.onceover", "good.png", "bad.png"]) == 1


def test_inspect_never_calls_a_part_normal_that_an_uncalibrated_package_looked_at(work: Path, capsys: Capture) -> None:
    good_folder(work / "few", 5)
    assert main(["fit", "few", "-o", "few.onceover", "--backbone", "tiny.onnx"]) == 0
    assert "uncalibrated: 1 held-out part cannot support" in capsys.readouterr().err
    status, inspected = answer(capsys, "inspect", "few.onceover", "good.png")
    assert (status, inspected["results"][0]["is_anomalous"]) == (1, None)


def test_verify_answers_1_when_the_record_is_not_reproduced(work: Path, capsys: Capture) -> None:
    members = read_members(work / "tiny.onceover")
    for optional in ("bank_source", "bank_index", "bank_neighbors"):
        del members[optional]
    members["memory_bank"] = members["memory_bank"] + np.float32(0.01)
    write_members(work / "other.onceover", members)
    status, message = refusal(capsys, "verify", "other.onceover")
    assert status == 1
    assert "does not reproduce the package" in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fitt"], "unknown command 'fitt'; did you mean 'fit'"),
        (["inspct", "a", "b"], "did you mean 'inspect'"),
        (["fit", "train/good", "-o", "x.onceover", "--backbone", "emo_m1"], "did you mean 'emo_1m'"),
        (["fit", "train/good", "-o", "x", "--backbone", "mobilnetv2", "--weights", "w"], "did you mean 'mobilenetv2'"),
        (["fit", "train/good", "-o", "x.onceover", "--detector", "pathcore"], "did you mean 'patchcore'"),
        (["fit", "train/good", "-o", "x.onceover", "--engine", "onnx-runtime"], "did you mean 'onnxruntime'"),
        (["inspect", "tiny.onceover", "good.png", "--engine", "onxruntime"], "did you mean 'onnxruntime'"),
        (["verify", "tiny.onceover", "--engine", "openvino2"], "unknown engine 'openvino2'"),
        (["export", "backbone", "mobilenet", "--weights", "w", "-o", "x.onnx"], "did you mean 'mobilenetv2'"),
        (["list", "engine"], "did you mean 'engines'"),
    ],
)
def test_a_mistyped_name_suggests_near_ones(work: Path, capsys: Capture, words: list[str], says: str) -> None:
    if "--weights" in words:
        pytest.importorskip("torch")
        pytest.importorskip("onnxscript")
    status, message = refusal(capsys, *words)
    assert status == 2
    assert says in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND; see `onceover --help`"),
        (["fit"], "see `onceover fit --help`"),
        (["fit", "train/good"], "-o/--output"),
        (["fit", "train/good", "-o", "x", "--bank-rows", "5", "--bank-mb", "1"], "not allowed with"),
        (["fit", "train/good", "-o", "x", "--bank-rows", "0"], "rows must be positive"),
        (["fit", "train/good", "-o", "x", "--bank-mb", "inf"], "finite"),
        (["fit", "train/good", "-o", "x", "--holdout", "half"], "neither a share (0.2) nor a number"),
        (["fit", "train/good", "-o", "x", "--seed", "-1"], "whole number from 0"),
        (["fit", "train/good", "-o", "x", "--coreset", "fast"], "greedy"),
        (["fit", "train/good", "-o", "x", "--threads", "0"], "between 1 and 256"),
        (["fit", "train/good", "-o", "x", "--false-alarm", "0.001"], "takes 999"),
        (["fit", "train/good", "-o", "x", "--false-alarm", "2"], "between 0 and 1"),
        (["fit", "train/good", "-o", "x", "--weights", "w.safetensors"], "of which backbone?"),
        (["fit", "train/good", "-o", "x", "--ema"], "give --weights FILE with them"),
        (["convert", "weights", "n", "c.pth", "-o", "x.safetensors", "--mean", "0,0,0"], "--mean and --std belong"),
        (["convert", "weights", "n", "c.pth", "-o", "x.safetensors", "--mean", "0,0"], "is not three numbers"),
        (["convert", "weights", "n", "c.pth", "-o", "x.safetensors", "--std", "0,1,1"], "from 1e-06 to 1000"),
        (["fit", "train/good", "-o", "x", "--jso"], "unrecognized arguments: --jso"),
        (["evaluate", "tiny.onceover", "plate", "--resolution", "5"], "8 to 8192"),
        (["evaluate", "tiny.onceover", "plate", "--resolution", "²"], "neither 'mask' nor a number"),
        (["evaluate", "tiny.onceover", "plate", "--save", "sheet.gif"], "unknown picture format"),
        (["export", "bone"], "export needs -o FILE"),
        (["demo", "--seed", "x"], "whole number from 0"),
        (["fit", "train/good", "-o", "x", "--seed", str(1 << 64)], "from 0 to 2^64 - 1"),
        (["fit", "train/good", "-o", "x", "--holdout", "1.0"], "neither a share (0.2) nor a number of parts (50)"),
    ],
)
def test_a_usage_error_is_status_2_and_says_what_to_do(
    work: Path, capsys: Capture, words: list[str], says: str
) -> None:
    before = sorted(work.iterdir())
    status, message = refusal(capsys, *words)
    assert status == 2
    assert says in message
    assert sorted(work.iterdir()) == before


@pytest.mark.parametrize(
    ("target", "says", "status"),
    [
        ("missing/x.onceover", "does not exist", 2),
        ("train", "is a folder", 2),
        ("/dev/null", "not an ordinary file", 2),
    ],
)
def test_fit_refuses_a_bad_target_before_it_reads_an_image(
    work: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, target: str, says: str, status: int
) -> None:
    import onceover.training.fit

    monkeypatch.setattr(onceover.training.fit, "fit", None)  # would be a TypeError
    got, message = refusal(capsys, "fit", "train/good", "-o", target)
    assert got == status
    assert says in message


def test_evaluate_refuses_a_bad_sheet_before_it_inspects_an_image(work: Path, capsys: Capture) -> None:
    status, message = refusal(capsys, "evaluate", "tiny.onceover", "no/such/data", "--save", "missing/sheet.png")
    assert status == 2
    assert "missing/sheet.png: the folder missing does not exist" in message


def test_a_picture_never_replaces_an_image_that_is_inspected(work: Path, capsys: Capture) -> None:
    inputs = work / "own"
    inputs.mkdir()
    for name in ("a.png", "own_a.png"):  # the picture of the first would be named like the second
        (inputs / name).write_bytes((work / "good.png").read_bytes())
    before = (inputs / "own_a.png").read_bytes()
    status, message = refusal(capsys, "inspect", "tiny.onceover", "own", "--save", "own")
    assert status == 2
    assert "would overwrite the image own/own_a.png" in message.replace("\n", " ")
    assert (inputs / "own_a.png").read_bytes() == before


def test_saved_pictures_show_the_difference_between_a_good_and_a_bad_part(work: Path, capsys: Capture) -> None:
    status, inspected = answer(capsys, "inspect", "tiny.onceover", "good.png", "bad.png", "--save", "out/pictures")
    assert status == 1
    pictures = [read_image(row["picture"]).astype(float) for row in inspected["results"]]
    assert len(list(Path("out/pictures").iterdir())) == 2
    # Colorfulness of the whole picture: the gray part stays calm, the heat of the hole does not.
    warm = [float((picture[..., 0] - picture[..., 2] > 100).mean()) for picture in pictures]
    assert warm[1] > warm[0] + 0.005


def test_images_of_one_name_keep_a_picture_each(work: Path, capsys: Capture) -> None:
    sources = ["a/x/1.png", "b/x/1.png", "a/x/1.jpg", "1.png"]
    for i, source in enumerate(sources):
        Path(source).parent.mkdir(parents=True, exist_ok=True)
        write_image(source, tiny_image(i))
    _, inspected = answer(capsys, "inspect", "tiny.onceover", *sources, "--save", "out")
    pictures = [row["picture"] for row in inspected["results"]]
    assert pictures[:3] == ["out/x_1.png", "out/x_1_2.png", "out/x_1_3.png"]
    assert pictures[3] == f"out/{work.name}_1.png"
    assert len({Path(picture).read_bytes() for picture in pictures}) == 4


def test_a_folder_for_pictures_that_cannot_be_made_is_refused(work: Path, capsys: Capture) -> None:
    status, message = refusal(capsys, "inspect", "tiny.onceover", "good.png", "--save", "good.png/out")
    assert status == 3
    assert "good.png/out: cannot be created" in message


def test_brackets_in_a_path_are_no_markup(work: Path, capsys: Capture) -> None:
    Path("[b]/[red]").mkdir(parents=True)
    words = ["fit", "train/good", "-o", "[b]/[red]/[x.onceover", "--backbone", "tiny.onnx", "--name", "[/]"]
    assert main(words) == 0
    assert "[b]/[red]/[x.onceover written" in capsys.readouterr().out
    assert main(["inspect", "[b]/[red]/[x.onceover", "good.png", "--save", "[b]/[/x]"]) == 0
    assert "pictures: [b]/[/x]" in capsys.readouterr().out


def test_names_that_are_not_utf8_are_taken_everywhere_and_shown_escaped(work: Path, capsys: Capture) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        shutil.copy("good.png", f"{name}.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert main(["fit", "train/good", "-o", f"{name}.onceover", "--backbone", "tiny.onnx"]) == 0
    assert "caf\\udce9.onceover written" in capsys.readouterr().out
    assert main(["verify", f"{name}.onceover"]) == 0
    capsys.readouterr()
    status, printed = answer(capsys, "inspect", f"{name}.onceover", f"{name}.png", "--save", name)
    assert status == 0
    assert Path(printed["results"][0]["picture"]).is_file()
    assert main(["verify", f"{name}.absent"]) == 3


@pytest.mark.parametrize("what", ["backbones", "detectors", "targets", "layouts", "engines", "isas"])
def test_list_shows_one_table_or_all(what: str, capsys: Capture) -> None:
    status, one = answer(capsys, "list", what)
    assert (status, list(one)) == (0, [what])
    status, everything = answer(capsys, "list")
    assert everything[what] == one[what]
    assert main(["list", what]) == 0
    told = capsys.readouterr().out
    assert all(row["name"] in told for row in one[what])


def test_list_names_everything_that_is_registered(capsys: Capture) -> None:
    _, listing = answer(capsys, "list")
    names = {what: {row["name"] for row in rows} for what, rows in listing.items()}
    assert names["backbones"] >= set(registry.BACKBONES)
    assert names["detectors"] == set(registry.DETECTORS)
    assert names["targets"] == set(registry.EXPORT_TARGETS)
    assert names["layouts"] == set(registry.LAYOUTS)
    assert [row["state"] for row in listing["isas"]].count("active") == 1
    assert {row["name"]: row["state"] for row in listing["engines"]}["onnxruntime"] == "ready"


def test_every_command_explains_itself(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in overview
        assert main([command, "--help"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"usage: onceover {command}")
        if command not in {"bank", "convert", "pretrain"}:
            assert "--json" in told
    assert main(["export", "backbone", "--help"]) == 0
    assert "--weights" in capsys.readouterr().out
    assert main(["convert", "weights", "--help"]) == 0
    assert "--trust-pickle" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("onceover 0.")


def test_help_works_where_the_terminal_knows_ascii_only() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "onceover.cli", "fit", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"<=" in done.stdout  # "≤"


def test_a_table_of_thousands_of_rows_is_shown_piece_by_piece(capsys: Capture) -> None:
    rows = [(f"{i}.png", "normal") for i in range(2 * ROWS_AT_ONCE + 1)]
    rows[0] = ("a_longer_name.png", "normal")
    Output(as_json=False).table("all of them", ("image", "verdict"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("│")[1].strip() for line in lines if line.startswith("│")] == [name for name, _ in rows]
    assert [line.count("image") for line in lines if line.startswith("┃")] == [1, 1, 1]
    assert lines[0] == "all of them"
    assert len({len(line) for line in lines[1:]}) == 1  # the pieces are equally wide


def test_where_a_table_hardly_fits_headers_are_broken_before_numbers_and_names_never_are(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ("name", "considerable ", "another ")
    rows = [("a_name_to_be_copied", "12.3456", "0.0001")]
    for room in range(50, 43, -1):
        monkeypatch.setenv("COLUMNS", str(room))
        Output(as_json=False).table("", columns, rows)
        lines = capsys.readouterr().out.splitlines()
        (row,) = (line for line in lines if line.startswith("│"))
        assert [cell.strip() for cell in row.split("│")[1:-1]] == list(rows[0])
        assert len(row) <= room
        header = [line.split("┃")[2].strip() for line in lines if line.startswith("┃")]
        assert "".join(header) == "considerable"


def test_signs_that_a_terminal_cannot_show_are_spelled_out(work: Path) -> None:
    lines = [{"log": 1, "package": "a" * 64, "name": "Öse", "calibration_parts": 19, "accepted_cells": 19}]
    part = {"decision": "normal", "score": 1.0, "p_value": 0.5, "package": "a" * 64}
    lines += [{**part, "image": f"{i}.png", "score": float(i % 7)} for i in range(40)]
    Path("line.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "onceover.cli", "monitor", "line.jsonl"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    shown = done.stdout.decode("ascii")
    assert done.returncode == 1  # p-values that are all the same: not by chance
    assert shown.startswith(r"\xd6se (aaaa")
    assert "+- 0.6" in shown
    assert "\\u" not in shown


def test_a_file_that_is_taken_for_an_option_is_told_how_to_give(work: Path, capsys: Capture) -> None:
    Path("-1.png").write_bytes(Path("bad.png").read_bytes())
    for words in (["-1.png"], ["-1.png", "bad.png"]):
        status, message = refusal(capsys, "inspect", "tiny.onceover", *words)
        assert (status, "give it as ./-1.png" in message) == (2, True)
    assert main(["inspect", "tiny.onceover", "./-1.png"]) == 1
    assert "taken for an option" not in refusal(capsys, "inspect", "tiny.onceover", "bad.png", "--nonsense")[1]


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = cli(*words, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")


def test_a_reader_that_goes_away_does_not_change_a_verdict(work: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = cli("inspect", "tiny.onceover", "bad.png", "--save", "out", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in error
    assert len(list(Path("out").iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
@pytest.mark.parametrize("words", [["list"], ["list", "--json"]])
def test_output_that_cannot_be_written_is_status_3(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = cli(*words, stdout=full, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"No space left on device" in error
    assert b"Traceback" not in error


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 3, "out of memory"),
        (FileNotFoundError(2, "No such file or directory", "gone"), 3, "'gone'"),
        (ZeroDivisionError("x" * 10_000), 3, "a defect of onceover"),
    ],
)
def test_what_nobody_foresaw_never_looks_like_a_verdict(
    work: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, says: str
) -> None:
    from onceover.runtime.inspector import Inspector

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Inspector, "inspect", fail)
    assert main(["inspect", "tiny.onceover", "good.png"]) == status
    told = capsys.readouterr().err
    assert says in told
    assert len(told) < 5_000
