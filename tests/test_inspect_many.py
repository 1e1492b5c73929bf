"""`onceover inspect` of many images: a bad file, a full disk or Ctrl-C must not cost the verdicts of the others."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from pathlib import Path

import pytest
from command_line import Capture, answer, refusal
from tiny_data import defective, fitted_package, tiny_options
from tiny_package import tiny_image
from watch_script import hear

import onceover.images
from onceover import export
from onceover.cli import main
from onceover.cli.inspecting import LINES_SHOWN, short_names
from onceover.errors import InputError, OutputError
from onceover.images import write_image
from onceover.monitoring.log import read_log
from onceover.training.fit import fit
from onceover.types import Image


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    fitted_package(folder)
    return folder / "tiny.onceover"


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images, 0.png to 3.png, in the folder seen of the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("seen")
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", tiny_image(i))
    return folder


def rows(capture: Capture) -> dict[str, str]:
    """Verdict by name, as the table on stdout has them."""
    lines = [line.split("│")[1:3] for line in capture.readouterr().out.splitlines() if line.startswith("│")]
    return {name.strip(): verdict.strip() for name, verdict in lines}


def test_a_file_that_cannot_be_read_does_not_cost_the_verdicts_of_the_others(
    package: Path, seen: Path, capsys: Capture
) -> None:
    whole = (seen / "1.png").read_bytes()
    (seen / "1.png").write_bytes(whole[: len(whole) // 2])  # as when the camera is still writing it
    log = Path("line.jsonl")
    status, printed = answer(capsys, "inspect", str(package), "seen", "gone.png", "--save", "out", "--log", str(log))
    assert status == 3
    assert [row["image"] for row in printed["results"]] == ["seen/0.png", "seen/2.png", "seen/3.png"]
    cut, gone = printed["unreadable"]
    assert cut["image"] == "seen/1.png"
    assert "seen/1.png: the file is cut" in cut["message"]
    assert gone["image"] == "gone.png"
    assert "no such file" in gone["message"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["seen_0.png", "seen_2.png", "seen_3.png"]
    assert len(log.read_text().splitlines()) == 1 + 3

    assert main(["inspect", str(package), "seen"]) == 3
    shown, errors = capsys.readouterr()
    table = [line for line in shown.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == ["0.png", "1.png", "2.png", "3.png"]
    assert [("unreadable" in line) for line in table] == [False, True, False, False]
    assert "error: seen/1.png: the file is cut" in errors
    assert "1 of 4 images" in errors


def test_where_no_image_can_be_read_each_is_named_like_some_of_many(package: Path, seen: Path, capsys: Capture) -> None:
    for path in seen.iterdir():
        path.write_bytes(b"")
    status, printed = answer(capsys, "inspect", str(package), "seen")
    assert (status, printed["results"]) == (3, [])
    assert [row["image"] for row in printed["unreadable"]] == [f"seen/{i}.png" for i in range(4)]
    assert main(["inspect", str(package), "seen", "--save", "out"]) == 3
    shown, errors = capsys.readouterr()
    assert errors.count("the file is empty") == 4
    assert "4 of 4 images were not inspected" in errors
    assert shown == ""


def test_a_long_list_of_bad_files_is_not_the_whole_screen(package: Path, seen: Path, capsys: Capture) -> None:
    for i in range(LINES_SHOWN + 5):
        (seen / f"bad_{i:02}.png").write_bytes(b"")
    assert main(["inspect", str(package), "seen"]) == 3
    errors = capsys.readouterr().err
    assert errors.count("the file is empty") == LINES_SHOWN
    assert "and 5 more that cannot be read" in errors


@pytest.mark.parametrize(
    ("stop", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OutputError("out/2.png: no space"), 3, "out/2.png: no space"),
        (OSError(5, "Input/output error"), 3, "[Errno 5] Input/output error; check that"),
        (MemoryError(), 3, "out of memory; use smaller images"),
    ],
)
def test_what_stops_in_the_middle_shows_what_is_known_by_then(
    package: Path,
    seen: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    status: int,
    says: str,
) -> None:
    read = onceover.images.read_image

    def stopping(path: Path) -> Image:
        if path.name == "2.png":
            raise stop
        return read(path)

    (seen / "1.png").write_bytes(b"")
    monkeypatch.setattr(onceover.images, "read_image", stopping)
    assert main(["inspect", str(package), "seen"]) == status
    shown, errors = capsys.readouterr()
    assert [name in shown for name in ("0.png", "1.png", "2.png", "3.png")] == [True, True, False, False]
    assert "stopped after 2 of 4 images" in errors
    assert f"error: {says}" in " ".join(errors.split())

    status_json, printed = answer(capsys, "inspect", str(package), "seen")
    assert status_json == status
    assert [row["image"] for row in printed["results"]] == ["seen/0.png"]
    assert [row["image"] for row in printed["unreadable"]] == ["seen/1.png"]
    assert says in printed["stopped"]


def test_a_termination_shows_what_is_known_by_then_like_ctrl_c(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = onceover.images.read_image

    hear(signal.SIGTERM)

    def terminated(path: Path) -> Image:
        if path.name == "2.png":
            signal.raise_signal(signal.SIGTERM)
        return read(path)

    monkeypatch.setattr(onceover.images, "read_image", terminated)
    status, printed = answer(capsys, "inspect", str(package), "seen")
    assert (status, [row["image"] for row in printed["results"]]) == (143, ["seen/0.png", "seen/1.png"])
    assert "terminated" in printed["stopped"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_picture_that_cannot_be_made_is_no_image_that_cannot_be_read(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("normals/7.png: the file is cut")

    monkeypatch.setattr(onceover.images, "write_image", refuse)
    log = Path("line.jsonl")
    status, printed = answer(capsys, "inspect", str(package), "seen", "--save", "out", "--log", str(log))
    assert (status, printed["unreadable"]) == (3, [])
    assert [row["image"] for row in printed["results"]] == ["seen/0.png"]  # as many parts as the log has
    assert len(log.read_text().splitlines()) == 1 + 1
    assert "normals/7.png" in printed["stopped"]


def test_a_log_that_cannot_be_begun_is_all_there_is_to_say(package: Path, seen: Path, capsys: Capture) -> None:
    status, message = refusal(capsys, "inspect", str(package), "seen", "--log", "gone/line.jsonl")
    assert (status, "gone/line.jsonl: cannot be written" in message) == (3, True)
    assert main(["inspect", str(package), "seen", "--log", "gone/line.jsonl"]) == 3
    assert "stopped" not in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
def test_a_disk_that_is_full_is_what_the_log_says(package: Path, seen: Path, capsys: Capture) -> None:
    for words in ((), ("--watch",)):
        status, message = refusal(capsys, "inspect", str(package), "seen", "--log", "/dev/full", *words)
        assert status == 3
        assert "/dev/full: cannot be written: No space left on device; make room" in message


def test_a_log_may_be_a_pipe(package: Path, seen: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert main(["inspect", str(package), "seen", "--log", "pipe"]) == 0
        lines = os.read(reader, 65536).splitlines()
    finally:
        os.close(reader)
    assert [json.loads(line).get("image") for line in lines] == [None, *(f"seen/{i}.png" for i in range(4))]


def test_a_disk_that_fills_in_the_middle_of_a_line_of_the_log_is_told(
    package: Path, seen: Path, capsys: Capture
) -> None:
    log = Path("line.jsonl")
    words = ["inspect", str(package), "seen", "--log", str(log)]
    assert main(words) == 0
    lines = log.read_bytes().splitlines(keepends=True)
    capsys.readouterr()
    log.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sum(map(len, lines[:4])) - 10, before[1]))  # the third part does not fit
    try:
        status, printed = answer(capsys, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 3
    assert [row["image"] for row in printed["results"]] == ["seen/0.png", "seen/1.png", "seen/2.png"]
    assert "line.jsonl: cannot be written" in printed["stopped"]
    assert main(words) == 0
    assert [part.image for part in read_log(log).packages[0].parts] == [
        f"seen/{i}.png"
        for i in (0, 1, 0, 1, 2, 3)  # what was torn is cut off
    ]


def test_images_of_one_name_in_two_folders_are_told_apart(package: Path, seen: Path, capsys: Capture) -> None:
    for shift in ("early", "late"):
        (seen / shift).mkdir()
        write_image(seen / shift / "part.png", tiny_image(9))
    main(["inspect", str(package), "seen/early", "seen/late"])
    assert set(rows(capsys)) == {"early/part.png", "late/part.png"}


def test_a_long_name_is_broken_over_lines_and_not_cut_off(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "2026-11-29T14-03-22_line-07_station-3_camera-left_serial-0000123456.png"
    write_image(seen / name, tiny_image(9))
    main(["inspect", str(package), f"seen/{name}"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert max(map(len, table)) <= 80
    assert "".join(line.split("│")[1].strip() for line in table) == name


def test_where_the_terminal_is_narrow_no_verdict_is_broken(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "62")
    write_image(seen / "part_0000017.png", defective(tiny_image(9))[0])
    main(["inspect", str(package), "seen"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert max(map(len, table)) <= 62
    assert {"normal", "anomalous"} <= {line.split("│")[2].strip() for line in table}


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_no_terminal_is_too_narrow_to_see_a_verdict(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    main(["inspect", str(package), "seen/0.png"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "".join(line.split("│")[2].strip() for line in table) == "normal"


def test_images_of_another_size_than_all_that_were_learned_from_are_told(tmp_path: Path, capsys: Capture) -> None:
    for name, sizes in (("one", [40] * 6), ("several", [40, 40, 40, 64, 64, 64])):
        (tmp_path / name).mkdir()
        for i, height in enumerate(sizes):
            write_image(tmp_path / name / f"{i}.png", tiny_image(i, height, 56))
        export.package(fit(tmp_path / name, tiny_options(holdout=0)), tmp_path / f"{name}.onceover")
    (tmp_path / "line").mkdir()
    for i, height in enumerate((40, 64, 64)):
        write_image(tmp_path / "line" / f"{i}.png", tiny_image(50 + i, height, 56))
    line = str(tmp_path / "line")
    main(["inspect", str(tmp_path / "one.onceover"), line])
    assert (
        "2 of 3 images measure 64 × 56 pixels, all that were learned from 40 × 56: another" in capsys.readouterr().err
    )
    main(["inspect", str(tmp_path / "one.onceover"), f"{line}/0.png"])
    main(["inspect", str(tmp_path / "several.onceover"), line])
    assert "were learned from" not in capsys.readouterr().err


def test_a_terminal_shows_in_red_what_is_wrong_and_a_file_gets_no_colors(
    package: Path, seen: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(seen / "bad[1].png", defective(tiny_image(9))[0])
    call = ["inspect", str(package), "seen"]
    assert main(call) == 1
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert "│ bad[1].png │ anomalous │" in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(call) == 1
    shown = capsys.readouterr().out
    assert re.search(r"\x1b\[1;31m ?anomalous", shown)
    assert re.search(r"\x1b\[32m ?normal", shown)
    assert re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).count("bad[1].png") == plain.count("bad[1].png")


def test_names_have_the_folders_that_it_takes_and_no_more(tmp_path: Path) -> None:
    assert short_names([tmp_path / "a" / "1.png", tmp_path / "b" / "2.png"]) == ["1.png", "2.png"]
    assert short_names([tmp_path / "a/x/1.png", tmp_path / "b/x/1.png"]) == ["a/x/1.png", "b/x/1.png"]
    assert short_names([Path("1.png"), Path("1.png"), Path("./1.png")]) == ["1.png"] * 3
    assert short_names([]) == []
