"""`inspect --log` and `monitor`: what is written, read, drawn and refused; exit status 0 in control, 1 alarm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from tiny_data import fitted_package, good_folder
from tiny_package import tiny_image

from onceover import Inspector, OutputError
from onceover.cli import main
from onceover.images import read_image, write_image
from onceover.monitoring.log import InspectionLog, read_log
from onceover.report.drift_charts import points_drawn
from onceover.runtime.package import open_package

IDS = ("a" * 64, "b" * 64)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("monitor"))


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(random: np.random.Generator, package: str = IDS[0], **changes: Any) -> dict[str, Any]:
    part = {
        "image": "x.png", "decision": "normal", "score": float(random.standard_normal()),
        "p_value": float(random.integers(2, 21)) / 20, "brightness": 0.5 + 0.01 * float(random.standard_normal()),
        "sharpness": 0.2 + 0.01 * float(random.standard_normal()), "package": package,
    }  # fmt: skip
    return {**part, **changes}


def header(package: str = IDS[0]) -> dict[str, Any]:
    return {"log": 1, "package": package, "name": "bolt", "calibration_parts": 19, "accepted_cells": 19}


def write_log(lines: list[dict[str, Any]], path: str = "line.jsonl", tail: str = "") -> str:
    Path(path).write_text("".join(json.dumps(each) + "\n" for each in lines) + tail, encoding="utf-8")
    return path


def quiet_line(parts: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [line(random) for _ in range(parts)]


def test_inspect_appends_a_line_per_image_that_says_what_it_said(package: Path, capsys: Capture) -> None:
    good_folder(Path("line"), 5, first_seed=3000)
    _, first = answer(capsys, "inspect", str(package), "line", "--log", "line.jsonl")
    _, second = answer(capsys, "inspect", str(package), "line/00.png", "--log", "line.jsonl")
    log = read_log("line.jsonl")
    assert (len(log.packages), log.torn) == (1, False)
    assert Path("line.jsonl").read_text(encoding="utf-8").count('"log"') == 1  # said once, while the package stays
    parts = log.packages[0].parts
    told = first["results"] + second["results"]
    assert [(part.image, part.decision, part.score, part.p_value) for part in parts] == [
        (row["image"], row["decision"], row["score"], row["p_value"]) for row in told
    ]
    assert log.packages[0].id == first["id"] == open_package(package).id
    assert parts[0].brightness == parts[5].brightness == pytest.approx(read_image("line/00.png").mean() / 255, abs=0.05)
    assert all(part.time is not None and part.time.endswith("+00:00") for part in parts)
    status, told = answer(capsys, "monitor", "line.jsonl", "--package", str(package))
    assert (status, told["in_control"], told["packages"][0]["parts"]) == (0, True, 6)
    assert {chart["name"]: chart["upper"] for chart in told["packages"][0]["charts"]}["p_values"] == 60_000


def test_a_quiet_line_is_in_control_and_a_dimmer_lamp_is_an_alarm(capsys: Capture) -> None:
    random = np.random.default_rng(1)
    lines = [header(), *quiet_line(500)]
    status, told = answer(capsys, "monitor", write_log(lines))
    assert (status, told["in_control"], told["torn"], told["packages"][0]["correlations"]) == (0, True, False, {})
    lines += [line(random, image=f"{i}.png", brightness=0.48, time="2026-03-01T06:00:00") for i in range(100)]
    status, told = answer(capsys, "monitor", write_log(lines))
    assert (status, told["in_control"]) == (1, False)
    charts = {chart["name"]: chart for chart in told["packages"][0]["charts"]}
    assert [name for name, chart in charts.items() if chart["alarm_part"]] == ["brightness"]
    assert 500 < charts["brightness"]["alarm_part"] < 530
    assert charts["brightness"]["value"] < charts["brightness"]["lower"]
    assert "lamp" in charts["brightness"]["advice"]
    assert main(["monitor", "line.jsonl"]) == 1
    shown = capsys.readouterr().out
    assert "ALARM" in shown
    assert f"part {charts['brightness']['alarm_part']}" in shown
    assert "look at the lamp" in shown
    assert "2026-03-01T06:00:00" in shown
    status, told = answer(capsys, "monitor", "line.jsonl", "--from-part", "501")  # the new lamp is what is normal now
    assert (status, told["packages"][0]["parts"]) == (0, 100)


def test_alarms_are_counted_in_parts_of_the_log_whatever_is_left_out(capsys: Capture) -> None:
    random = np.random.default_rng(2)
    lines = [header(), *quiet_line(900, 3), *(line(random, sharpness=0.1) for _ in range(300))]
    write_log(lines)
    for words, step in (((), 1), (("--every", "3"), 3), (("--from-part", "101", "--every", "2"), 2)):
        status, told = answer(capsys, "monitor", "line.jsonl", *words)
        alarm = next(chart["alarm_part"] for chart in told["packages"][0]["charts"] if chart["name"] == "sharpness")
        assert status == 1
        assert 900 < alarm <= 900 + 15 * step


def test_successive_parts_that_are_alike_are_said(capsys: Capture) -> None:
    random = np.random.default_rng(5)
    slow = np.repeat(random.standard_normal(150), 4)  # a lamp that flickers over four parts
    lines = [header()]
    lines += [{**part, "brightness": 0.5 + 0.01 * value} for part, value in zip(quiet_line(600, 6), slow, strict=True)]
    _, told = answer(capsys, "monitor", write_log(lines))
    assert list(told["packages"][0]["correlations"]) == ["brightness"]
    main(["monitor", "line.jsonl"])
    assert "try --every" in capsys.readouterr().err


def test_a_damaged_line_in_the_middle_is_told_by_its_number(capsys: Capture) -> None:
    text = Path(write_log([header(), *quiet_line(2)])).read_text(encoding="utf-8").splitlines(keepends=True)
    for damaged, says in ((text[1][:40] + "\n", "line 2: no JSON"), ("[1]\n", "line 2: a JSON list")):
        Path("line.jsonl").write_text("".join([text[0], damaged, *text[2:]]), encoding="utf-8")
        status, message = refusal(capsys, "monitor", "line.jsonl")
        assert (status, says in message) == (3, True)


def test_a_torn_last_line_is_left_out_and_the_next_inspection_mends_it(package: Path, capsys: Capture) -> None:
    lines = quiet_line(3)
    write_log(lines, tail=json.dumps(lines[0])[:40])
    log = read_log("line.jsonl")
    assert (log.torn, len(log.packages[0].parts)) == (True, 3)
    assert main(["monitor", "line.jsonl"]) == 0
    assert "last line is incomplete" in capsys.readouterr().err
    write_image("part.png", tiny_image(1))
    assert main(["inspect", str(package), "part.png", "--log", "line.jsonl"]) in (0, 1)
    mended = read_log("line.jsonl")
    assert (mended.torn, [len(each.parts) for each in mended.packages]) == (False, [3, 1])


def test_reading_a_long_log_tells_how_far_it_is(work: Path) -> None:
    write_log([header(), *quiet_line(5000)])
    told: list[tuple[str, int, int]] = []
    log = read_log("line.jsonl", lambda *words: told.append(words))
    assert len(log.packages[0].parts) == 5000
    size = -(-Path("line.jsonl").stat().st_size // 10**6)
    assert told[-1] == ("reading", size, size)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert len(told) == 5 + 1
    write_log(quiet_line(5))
    told.clear()
    assert len(read_log("line.jsonl", lambda *words: told.append(words)).packages[0].parts) == 5
    assert told == []


def test_a_whole_last_line_without_its_newline_is_kept(package: Path) -> None:
    write_log(quiet_line(2), tail=json.dumps(quiet_line(1)[0]))
    assert (read_log("line.jsonl").torn, len(read_log("line.jsonl").packages[0].parts)) == (False, 3)
    InspectionLog("line.jsonl", open_package(package)).close()
    assert len(read_log("line.jsonl").packages[0].parts) == 3


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "line 3: no JSON"),
        ("[1]", "line 3: a JSON list, expected an object"),
        ('{"package": "xyz"}', "'package' is 'xyz'"),
        (json.dumps({**quiet_line(1)[0], "decision": "fine"}), "'decision' is 'fine'"),
        (json.dumps({**quiet_line(1)[0], "score": None}), "'score' and 'p_value' must be there"),
        (json.dumps({**quiet_line(1)[0], "brightness": "dark"}), "'brightness' is 'dark'"),
        (json.dumps({**quiet_line(1)[0], "score": float("nan")}), "'score' is nan"),
        (json.dumps({**header(), "log": 9}), "a log of version 9"),
        (json.dumps({**header(), "accepted_cells": -1}), "'accepted_cells' is -1"),
    ],
)
def test_a_line_that_is_no_record_is_named_by_its_number(bad: str, said: str, capsys: Capture) -> None:
    good = [json.dumps(each) for each in (header(), quiet_line(1)[0], quiet_line(1)[0])]
    Path("line.jsonl").write_text("\n".join([*good[:2], bad, good[2]]) + "\n", encoding="utf-8")
    status, message = refusal(capsys, "monitor", "line.jsonl")
    assert status == 3
    assert "line.jsonl, line 3" in message
    assert said in message


def test_a_p_value_that_the_calibration_cannot_give_is_named_by_its_part(capsys: Capture) -> None:
    lines = [header(), *quiet_line(4)]
    lines[3]["p_value"] = 0.333
    status, message = refusal(capsys, "monitor", write_log(lines))
    assert status == 3
    assert "part 3 of package aaaaaaaaaaaaaaaa" in message


def test_several_packages_have_charts_of_their_own(package: Path, capsys: Capture) -> None:
    random = np.random.default_rng(8)
    lines = [header(), header(IDS[1])]
    for i in range(600):  # the second one's scores are much higher, which is no drift
        lines += [line(random), line(random, IDS[1], score=50 + float(random.standard_normal()) + (i >= 500))]
    status, told = answer(capsys, "monitor", write_log(lines))
    assert status == 1
    assert [(each["id"], each["parts"], each["in_control"]) for each in told["packages"]] == [
        (IDS[0], 600, True),
        (IDS[1], 600, False),
    ]
    main(["monitor", "line.jsonl"])
    assert "parts of 2 packages" in capsys.readouterr().err
    status, message = refusal(capsys, "monitor", "line.jsonl", "--package", str(package))
    assert status == 3
    assert "no part of package" in message
    assert "bbbbbbbbbbbbbbbb (600 parts)" in message
    status, message = refusal(capsys, "monitor", "line.jsonl", "--save", "charts.png")
    assert status == 2
    assert "--package" in message


def test_a_log_without_its_first_line_is_read_without_the_chart_of_p_values(capsys: Capture) -> None:
    status, told = answer(capsys, "monitor", write_log(quiet_line(50)))
    charts = {chart["name"]: chart for chart in told["packages"][0]["charts"]}
    assert (status, charts["p_values"]["parts"], charts["score_ewma"]["parts"]) == (0, 0, 50)
    main(["monitor", "line.jsonl"])
    assert "--package adds that chart" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_charts_are_drawn_and_the_same_log_gives_the_same_bytes(ending: str, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(9)
    write_log([header(), *quiet_line(300), *(line(random, score=3.0) for _ in range(100))])
    pictures = []
    for name in (f"a.{ending}", f"b.{ending}"):
        status, _ = answer(capsys, "monitor", "line.jsonl", "--save", name)
        assert status == 1
        pictures.append(Path(name).read_bytes())
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 5000
    if ending == "png":
        image = read_image("a.png")
        red = (image[..., 0] > 180) & (image[..., 1] < 90) & (image[..., 2] < 90)
        assert red.sum() > 100  # where the alarms began


def test_a_chart_without_a_value_says_why_and_one_part_can_be_seen(capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    for parts, says in ((1, True), (99, True), (100, False)):
        write_log([header(), *quiet_line(parts)])
        main(["monitor", "line.jsonl", "--save", "charts.svg"])
        drawn = Path("charts.svg").read_text(encoding="utf-8")
        assert (f"first full batch, parts until now: {parts}" in drawn) == says
    write_log([header(), *quiet_line(1)])
    main(["monitor", "line.jsonl", "--save", "charts.png"])
    blue = np.abs(read_image("charts.png").astype(int) - (0x1F, 0x4E, 0x79)).sum(axis=2) < 10
    assert blue.sum() > 50  # the points
    assert "1 part, in control" in capsys.readouterr().out


def test_a_picture_of_many_parts_shows_every_peak() -> None:
    values = np.random.default_rng(0).standard_normal(123_457)
    values[77_777], values[33_333] = 50.0, -50.0
    values[:5000] = np.nan  # no value until the first full batch, say
    drawn = points_drawn(values)
    assert {33_333, 77_777, len(values) - 1} <= set(drawn)
    assert np.all(np.diff(drawn) > 0)
    assert 3000 < len(drawn) <= 4002
    for first in range(5000, len(values) - 1000, 1000):  # what is highest nearby is there, wherever one looks
        nearby = drawn[(first <= drawn) & (drawn < first + 1000)]
        assert values[nearby].max() == values[first : first + 1000].max()
    assert list(points_drawn(values[-4000:])) == list(range(4000))


def test_the_table_of_charts_breaks_no_trend_where_the_terminal_is_narrow(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    write_log([header(), *quiet_line(200)])
    main(["monitor", "line.jsonl"])
    rows = [text for text in capsys.readouterr().out.splitlines() if text.startswith("│")]
    trends = [text.split("│")[4].strip() for text in rows]
    assert max(map(len, rows)) <= 60
    assert [len(trend) for trend in trends if trend] == [12] * 6
    assert "calibration" in {text.split("│")[1].strip() for text in rows}  # no word is broken


def test_what_cannot_be_monitored_is_refused(capsys: Capture) -> None:
    write_log([header(), *quiet_line(5)])
    for words, status, said in (
        (("missing.jsonl",), 3, "cannot be read"),
        (("line.jsonl", "--save", "charts.bmp"), 2, ".png, .svg, .pdf"),
        (("line.jsonl", "--run-length", "5"), 2, "average run length is 5"),
        (("line.jsonl", "--batch", "1"), 2, "batch is 1"),
        (("line.jsonl", "--reject-rate", "1.5"), 2, "reject rate is 1.5"),
        (("line.jsonl", "--from-part", "6"), 2, "has the parts 1 to 5"),
        (("line.jsonl", "--every", "0"), 2, "every 0"),
    ):
        got, message = refusal(capsys, "monitor", *words)
        assert (got, said in message) == (status, True), message
    write_log([header()])
    status, message = refusal(capsys, "monitor", "line.jsonl")
    assert status == 3
    assert "no inspected part" in message


def test_a_log_that_cannot_be_written_is_an_error_before_anything_is_inspected(package: Path) -> None:
    with Inspector.open(package) as inspector, pytest.raises(OutputError, match="cannot be written"):
        InspectionLog("no/such/folder.jsonl", inspector.package)
