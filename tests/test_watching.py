"""`onceover inspect --watch`: a verdict for each image as it is written, until it is stopped, and how that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import weakref
from pathlib import Path

import numpy as np
import pytest
from bank_line import Line, copied, fit_line
from command_line import Capture, answer, cli, refusal
from tiny_data import defective
from tiny_package import tiny_image
from watch_script import at_pauses, hear, nothing, watched

import onceover.images
from onceover import Corrections, Inspector
from onceover.cli import arrivals, main
from onceover.cli.arrivals import TRIES
from onceover.cli.output import Output
from onceover.images import write_image
from onceover.monitoring.log import read_log
from onceover.runtime.corrections import journal_path
from onceover.types import Verdict


@pytest.fixture(autouse=True)
def heard() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        hear(number)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("watching"))


@pytest.fixture
def line(fitted: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A package with two images in the folder camera of the working directory: 0.png and 1.png."""
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        shoot(f"{i}.png")
    return copied(fitted, tmp_path)


def shoot(name: str, bad: bool = False) -> None:
    """The camera writes an image, in order: each a second after the one before."""
    path = Path("camera", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    latest = max((image.stat().st_mtime for image in Path("camera").rglob("*.*")), default=1000.0)
    image = tiny_image(900 + len(name))
    write_image(path, defective(image)[0] if bad else image)
    os.utime(path, (latest + 1, latest + 1))


def test_images_are_inspected_as_they_are_written_and_each_once(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_pauses(monkeypatch, [nothing, lambda: shoot("late/2.png", bad=True), nothing, lambda: shoot("0.png", bad=True)])
    status, told = watched(capsys, str(line.package), "camera", "--log", "line.jsonl")
    assert status == 0
    assert [each["event"] for each in told] == ["started", *["verdict"] * 4, "stopped"]
    verdicts = told[1:-1]
    images = ["camera/0.png", "camera/1.png", "camera/late/2.png", "camera/0.png"]
    assert [each["image"] for each in verdicts] == images
    assert [each["decision"] for each in verdicts[2:]] == ["anomalous", "anomalous"]
    assert told[0]["folders"] == ["camera"]
    assert told[-1]["reason"] == "SIGTERM"
    assert (told[-1]["images"], told[-1]["unreadable"], told[-1]["vanished"], told[-1]["waiting"]) == (4, 0, 0, 0)
    assert sum(told[-1]["decisions"].values()) == 4
    parts = read_log("line.jsonl").packages[0].parts
    assert [(part.image, part.score, part.time) for part in parts] == [
        (each["image"], each["score"], each["time"]) for each in verdicts
    ]
    _, once = answer(capsys, "inspect", str(line.package), "camera/0.png", "camera/1.png", "camera/late/2.png")
    for row, at in zip(once["results"], (4, 2, 3), strict=True):  # the same as without --watch
        ours = {key: value for key, value in told[at].items() if key not in ("event", "time", "timing", "timing_ms")}
        assert ours == {key: row[key] for key in ours}
    assert {key: told[0][key] for key in ("package", "id", "corrections", "calibration")} == {
        key: once[key] for key in ("package", "id", "corrections", "calibration")
    }


def test_what_is_there_can_be_left_out(line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pauses(monkeypatch, [nothing, lambda: shoot("2.png")])
    _, told = watched(capsys, str(line.package), "camera", "--new-only")
    assert [each.get("image") for each in told] == [None, "camera/2.png", None]


def test_an_empty_folder_is_waited_at(line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("empty").mkdir()
    at_pauses(monkeypatch, [nothing])
    status, told = watched(capsys, str(line.package), "empty")
    assert (status, [each["event"] for each in told]) == (0, ["started", "stopped"])


def test_a_torn_file_is_tried_again_then_told_and_inspected_once_it_is_whole(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = Path("camera/torn.png")
    whole = Path("camera/1.png").read_bytes()
    at_pauses(
        monkeypatch,
        [
            lambda: torn.write_bytes(whole[: len(whole) // 2]),
            nothing,  # tried once
            lambda: torn.write_bytes(whole),  # in time: nobody hears of it
            nothing,
            lambda: torn.write_bytes(whole[: len(whole) // 3]),
            *[nothing] * (TRIES + 2),
            lambda: torn.write_bytes(whole),
            nothing,
            lambda: torn.write_bytes(b""),
        ],
    )
    status, told = watched(capsys, str(line.package), "camera")
    assert status == 0
    events = [each["event"] for each in told if str(torn) == each.get("image")]
    assert events == ["verdict", "unreadable", "verdict"]
    (problem,) = (each for each in told if each["event"] == "unreadable")
    assert "torn.png: the file is cut" in problem["message"]
    assert (told[-1]["unreadable"], told[-1]["images"], told[-1]["waiting"]) == (1, 5, 1)  # the empty one waits


def test_a_folder_that_goes_and_comes_back_is_told_and_so_is_a_file_that_never_stands_still(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "RESTLESS_S", -1.0)
    latest = Path("camera/latest.jpg")
    steps = [
        lambda: Path("camera").rename("away"),
        nothing,
        lambda: Path("away").rename("camera"),
        lambda: latest.write_bytes(b"1"),
        lambda: latest.write_bytes(b"12"),
        lambda: latest.write_bytes(b"123"),
    ]
    at_pauses(monkeypatch, steps)
    status, told = watched(capsys, str(line.package), "camera")
    notes = [each["message"] for each in told if each["event"] == "note"]
    assert status == 0
    assert [note.split(":")[0] for note in notes] == ["camera", "camera", "latest.jpg"]
    assert "cannot be listed: No such file or directory; waiting for it" in notes[0]
    assert "is there again" in notes[1]
    assert "inspected once it stands still" in notes[2]
    assert [each["event"] for each in told].count("verdict") == 2  # none of them again


def test_a_file_that_changes_while_it_is_read_is_read_again(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = onceover.images.read_image
    changes = iter([True])

    def changing(path: Path) -> object:
        image = read(path)
        if path.name == "1.png" and next(changes, False):
            shoot("1.png", bad=True)
        return image

    monkeypatch.setattr(onceover.images, "read_image", changing)
    at_pauses(monkeypatch, [nothing, nothing])
    _, told = watched(capsys, str(line.package), "camera")
    decisions = [each["decision"] for each in told if each.get("image") == "camera/1.png"]
    assert decisions == ["anomalous"]


def test_corrections_are_followed_from_the_first_one_on(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrections = Corrections.open(line.package)
    alarm = "alarm.png"

    def correct() -> None:
        with Inspector.open(line.package, corrections=corrections) as inspector:
            number, _ = corrections.propose(inspector, f"camera/{alarm}")
        corrections.confirm([number])

    def again() -> None:
        picture = Path("camera", alarm).read_bytes()
        Path("camera", f"{len(list(Path('camera').iterdir()))}.png").write_bytes(picture)

    write_image(Path("camera", alarm), onceover.images.read_image(line.alarms[0]))
    steps = [
        nothing,
        correct,
        lambda: os.utime(corrections.path, (1, 1)),
        again,
        nothing,
        corrections.undo,
        again,
        nothing,
    ]
    at_pauses(monkeypatch, steps)
    _, told = watched(capsys, str(line.package), "camera", "--new-only", "--log", "line.jsonl")
    assert [(each["event"], each.get("decision")) for each in told[1:-1]] == [
        ("corrections", None), ("verdict", "normal"), ("corrections", None), ("verdict", "anomalous"),
    ]  # fmt: skip
    assert (told[0]["corrections"], told[1]["corrections"]["confirmed"]) == (None, 1)
    assert told[2]["corrections"] == told[1]["corrections"]["id"]
    assert told[3]["corrections"]["confirmed"] == 0


def test_a_journal_that_cannot_be_used_is_told_and_does_not_stop_the_line(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_path(line.package)
    at_pauses(monkeypatch, [lambda: journal.write_bytes(b"no journal" * 100), nothing, lambda: shoot("2.png")])
    status, told = watched(capsys, str(line.package), "camera")
    assert status == 0
    (note,) = (each for each in told if each["event"] == "note")
    assert str(journal) in note["message"]
    assert "goes on deciding" in note["message"]
    assert [each["image"] for each in told if each["event"] == "verdict"][-1] == "camera/2.png"
    at_pauses(monkeypatch, [lambda: journal.write_bytes(b"no journal either" * 100), nothing])
    journal.unlink()
    assert "note" not in {each["event"] for each in watched(capsys, str(line.package), "camera", "--no-corrections")[1]}


def test_another_package_of_the_same_name_is_told_and_not_taken(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        new = line.package.with_suffix(".new")
        new.write_bytes(line.package.read_bytes())
        new.replace(line.package)

    at_pauses(monkeypatch, [nothing, replace, nothing, lambda: shoot("2.png")])
    _, told = watched(capsys, str(line.package), "camera")
    assert [each["event"] for each in told] == ["started", "verdict", "verdict", "note", "verdict", "stopped"]
    assert "is another package now" in told[3]["message"]


def test_pictures_go_where_no_image_is_looked_for(line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    shoot("late/0.png")
    at_pauses(monkeypatch, [lambda: shoot("0.png", bad=True)])
    _, told = watched(capsys, str(line.package), "camera", "--save", "out", "--explain", "why")
    pictures = sorted(str(path) for path in Path("out").rglob("*.png"))
    assert pictures == ["out/0.png", "out/1.png", "out/late/0.png"]
    assert {each["picture"] for each in told if each["event"] == "verdict"} == set(pictures)
    assert len(list(Path("why").rglob("*.png"))) == 3
    for words in (
        ("--save", "camera"),
        ("--explain", "camera/late/why"),
        ("--save", "../" + Path.cwd().name + "/camera"),
    ):
        status, message = refusal(capsys, "inspect", str(line.package), "camera", "--watch", *words)
        assert (status, "lies in camera" in message) == (2, True)


def test_options_of_watching_belong_to_watching_and_only_folders_are_watched(line: Line, capsys: Capture) -> None:
    for words, expected, says in (
        (("camera", "--new-only"), 2, "give it with --watch"),
        (("camera", "--settle", "1"), 2, "give it with --watch"),
        (("camera", "--watch", "--settle", "-1"), 2, "not a number of seconds"),
        (("camera/0.png", "--watch"), 2, "give the folder"),
        (("gone", "--watch"), 3, "gone: no such folder"),
    ):
        status, message = refusal(capsys, "inspect", str(line.package), *words)
        assert (status, says in message) == (expected, True), message


def test_a_disk_that_is_full_stops_it_after_the_verdict(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_pauses(monkeypatch, [nothing])
    Path("out").mkdir()
    Path("out/1.png").mkdir()  # no picture can have this name
    status, told = watched(capsys, str(line.package), "camera", "--save", "out")
    assert status == 3
    assert [each.get("image") for each in told] == [None, "camera/0.png", "camera/1.png", None]
    assert told[-1]["event"] == "stopped"
    assert "out/1.png" in told[-1]["reason"]


def test_a_ctrl_c_that_ends_the_reader_too_is_still_what_was_asked(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = onceover.images.read_image

    def interrupted(path: Path) -> object:
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(Output, "unread", True)  # the shell has sent it to the whole pipeline
        return read(path)

    monkeypatch.setattr(onceover.images, "read_image", interrupted)
    status, told = watched(capsys, str(line.package), "camera")
    assert (status, [each["event"] for each in told]) == (0, ["started", "verdict", "stopped"])
    assert (told[-1]["reason"], told[-1]["waiting"]) == ("Ctrl-C", 1)


def test_a_second_ctrl_c_ends_it_at_once(line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> object:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(onceover.images, "read_image", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    status, told = watched(capsys, str(line.package), "camera")
    assert (status, [each["event"] for each in told]) == (130, ["started", "stopped"])
    assert signal.getsignal(signal.SIGINT) == handler


def test_people_get_a_line_for_each_image_and_a_sum_at_the_end(
    line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "bad [red] \x1b[2J\n.png"
    at_pauses(monkeypatch, [lambda: shoot(odd, bad=True)], stop=signal.SIGINT)
    assert main(["inspect", str(line.package), "camera", "--watch", "--settle", "0"]) == 0
    shown, notes = capsys.readouterr()
    lines = shown.splitlines()
    assert lines[0] == "watching camera; Ctrl-C ends"
    assert [text.split("  ")[0] for text in lines[1:4]] == ["0.png", "1.png", r"bad [red] \x1b[2J\n.png"]
    assert "  anomalous  score " in lines[3]
    assert "worst at" in lines[4]
    assert "stopped by Ctrl-C; 3 images: " in notes


def test_nothing_of_an_image_is_kept(line: Line, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: list[weakref.ref[Verdict]] = []
    maps: list[weakref.ref[np.ndarray]] = []  # type: ignore[type-arg]
    inspect = Inspector.inspect

    def counted(self: Inspector, *words: object) -> Verdict:
        assert sum(reference() is not None for reference in maps) <= 1
        verdict = inspect(self, *words)  # type: ignore[arg-type]
        verdicts.append(weakref.ref(verdict))
        maps.append(weakref.ref(verdict.anomaly_map))
        return verdict

    monkeypatch.setattr(Inspector, "inspect", counted)
    for i in range(2, 8):
        shoot(f"{i}.png")
    at_pauses(monkeypatch, [nothing])
    watched(capsys, str(line.package), "camera")
    assert len(maps) == 8


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_writes_each_line_at_once_and_ends_well_by_a_signal(line: Line, stop: signal.Signals) -> None:
    words = ("inspect", str(line.package), "camera", "--watch", "--json", "--settle", "0.01")
    process = cli(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    told = [json.loads(process.stdout.readline()) for _ in range(3)]  # waits for each: none is held back
    shoot("2.png", bad=True)
    told.append(json.loads(process.stdout.readline()))
    process.send_signal(stop)
    rest, error = process.communicate(timeout=60)
    told += [json.loads(text) for text in rest.splitlines()]
    assert process.returncode == 0, error
    assert [each["event"] for each in told] == ["started", "verdict", "verdict", "verdict", "stopped"]
    assert told[3]["image"] == "camera/2.png"
    assert b"Traceback" not in error


def test_a_reader_that_goes_away_ends_it(line: Line) -> None:
    for words in ((), ("--json",)):
        process = cli(
            "inspect", str(line.package), "camera", "--watch", "--settle", "0.01", *words,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        for i in range(2, 5):
            shoot(f"{i}.png")
        _, error = process.communicate(timeout=60)
        assert process.returncode == 3
        assert b"nobody reads the verdicts" in error
        assert b"Traceback" not in error
