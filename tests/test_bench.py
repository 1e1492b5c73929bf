"""`onceover bench` and `onceover-run --bench`: what they tell, that both tell the same, and what they refuse."""

from __future__ import annotations

import html
import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_library import built
from command_line import Capture, answer, refusal
from tiny_data import good_folder
from tiny_package import TinyOptions, tiny_image, tiny_package

from onceover import _core, export
from onceover.cli.benching import markdown_of, tables_of
from onceover.detectors.patchcore import BankSize
from onceover.errors import UsageError
from onceover.measuring.bench import BenchPlan, BenchReport, run_bench
from onceover.measuring.comparing import TURN, ratio_of
from onceover.measuring.variants import resized_package
from onceover.report.latency_page import LatencyPage, LatencyTable, render_latency
from onceover.runtime.session import EngineOptions, engine_library
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, fit


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "part.onceover"
    tiny_package(path, TinyOptions())
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "part.ppm"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path.write_bytes(b"P6\n60 40\n255\n" + pixels.tobytes())
    return path


def test_one_case_tells_cold_warm_idle_rate_and_memory(capsys: Capture, package: Path, tmp_path: Path) -> None:
    markdown = tmp_path / "tables.md"
    status, report = answer(
        capsys, "bench", str(package), "--seconds", "0.2", "--rate", "50", "--no-idle", "--markdown", str(markdown)
    )
    (case,) = report["results"]
    assert status == 0
    assert case["package"] == str(package)
    assert case["threads"] == 1
    assert case["precision"] == "float32"
    assert case["cold"].keys() == {"import_ms", "open_ms", "create_ms", "first_run_ms"}
    assert all(value > 0 for value in case["cold"].values())
    warm = case["warm"]
    assert warm["runs"] > 10
    assert warm["total"]["p50_ms"][0] >= warm["engine"]["p50_ms"][0] > 0
    assert warm["total"]["min_ms"] <= warm["total"]["p50_ms"][0] <= warm["total"]["max_ms"]
    assert case["at_rate"]["arrivals"] == 10
    assert case["after_idle"] == []
    assert 1e7 < case["memory"]["anonymous_bytes"] <= case["memory"]["peak_rss_bytes"]
    assert report["machine"]["cpus"] >= 1
    assert report["versions"]["isa"] == _core.isa()
    assert report["clean"] == (report["noise"] == [])
    assert f"| 1 | {package.name} |" in markdown.read_text()


def test_every_combination_is_a_case_in_a_process_of_its_own(package: Path, picture: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    plan = BenchPlan([package], [picture], threads=(1, 2), seconds=0.1, idle=False)
    report = run_bench(plan, on_case=lambda name, i, count: seen.append((name, i, count)))
    assert [result["threads"] for result in report.results] == [1, 2]
    assert [entry[1:] for entry in seen] == [(0, 2), (1, 2)]
    assert "2 thread" in seen[1][0]
    assert all(result["image_sizes"] == ["60x40"] for result in report.results)
    titles = [title for title, _, _ in tables_of(report)]
    assert len(titles) == 3
    assert titles[1].startswith("warm")
    assert "case" in markdown_of(report)


def test_the_page_holds_histogram_tables_and_what_disturbed(capsys: Capture, package: Path, tmp_path: Path) -> None:
    page = tmp_path / "latency.html"
    words = ("bench", str(package), "--seconds", "0.3", "--no-idle", "--report", str(page))
    status, report = answer(capsys, *words)
    text = page.read_text()
    assert status == 0
    assert "<svg" in text
    assert text.count("<table") == len(tables_of_report(report)) == 3
    assert all(reason in html.unescape(text) for reason in report["noise"])
    assert "http-equiv" in text
    assert "<script" not in text
    status, message = refusal(capsys, "bench", str(package), "--report", str(tmp_path / "page.txt"))
    assert status == 2
    assert ".html" in message


def tables_of_report(report: dict[str, Any]) -> list[Any]:
    """The tables of a report that went through JSON."""
    told = (report["machine"], report["machine_after"], report["versions"], tuple(report["results"]))
    return tables_of(BenchReport(*told))


def test_names_are_escaped_in_the_page() -> None:
    page = LatencyPage("<b>", "a & b", ["<i>"], [], [LatencyTable("t", ("name",), [("<script>",)])])
    text = render_latency(page)
    assert "&lt;b&gt;" in text
    assert "a &amp; b" in text
    assert "<script" not in text
    assert "<i>" not in text


def test_a_package_compared_with_itself_takes_as_long(capsys: Capture, package: Path, picture: Path) -> None:
    """Not how long anything takes: that a ratio near 1 is told, with turns and both sides."""
    words = ("bench", str(package), "--compare", str(package), "--images", str(picture), "--seconds", "0.5")
    status, report = answer(capsys, *words)
    (case,) = report["results"]
    ratio = case["compare"]["ratio"]
    assert status == 0
    assert ratio["turn"] == TURN
    assert ratio["turns"] >= 8
    assert 0.2 < ratio["p50"]["ratio"] < 5
    assert case["compare"]["a"]["runs"] == case["compare"]["b"]["runs"]


def test_the_ratio_of_a_series_and_one_twice_as_long_is_two() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(900_000, 1_100_000, 400).astype(np.uint64)
    found = ratio_of(first, first * 2)
    assert found["p50"]["ratio"] == pytest.approx(2, rel=1e-9)
    low, high = found["p50"]["interval"]
    assert low <= 2 <= high
    assert high - low < 1e-6
    independent = ratio_of(first, rng.permutation(first))
    low, high = independent["p50"]["interval"]
    assert low < 1 < high
    assert high - low < 0.1


def test_few_turns_have_a_ratio_and_no_interval() -> None:
    times = np.full(3 * TURN, 1000, np.uint64)
    assert ratio_of(times, times)["p50"] == {"ratio": 1.0, "interval": None}
    assert ratio_of(times[:2], times)["p50"] == {"ratio": None, "interval": None}


def test_the_interval_holds_one_for_equal_series_95_times_of_100() -> None:
    """Seeded; of 60 comparisons at most 10 may miss, which an honest 95 % does with probability above 0.999."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(60):
        a, b = rng.lognormal(0, 0.1, (2, 20 * TURN)) * 1e6
        low, high = ratio_of(a.astype(np.uint64), b.astype(np.uint64))["p50"]["interval"]
        missed += not low <= 1 <= high
    assert missed <= 10


def test_noise_is_told_and_makes_the_exit_status_where_quiet_is_required(
    capsys: Capture, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = {"warm": {"noise": ["other programs used 40 % of the machine's CPU time"]}}
    machine = json.loads(_core.describe_machine())
    assert BenchReport(machine, machine, {}, ({"warm": {"noise": []}},)).noise == []
    both = BenchReport(machine, machine, {}, (noisy, noisy)).noise
    assert [line.partition(":")[0] for line in both] == ["case 1", "case 2"]
    original = BenchReport.noise
    monkeypatch.setattr(BenchReport, "noise", property(lambda _self: ["a test said so"]))
    words = ("bench", str(package), "--seconds", "0.1", "--no-idle")
    assert answer(capsys, *words)[0] == 0
    status, report = answer(capsys, *words, "--require-quiet")
    assert status == 1
    assert report["noise"] == ["a test said so"]
    assert report["clean"] is False
    monkeypatch.setattr(BenchReport, "noise", original)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--seconds", "0"), "0.1 to 3600"),
        (("--rate", "-1"), "parts a second"),
        (("--thread-counts", "1,x"), "whole numbers"),
        (("--thread-counts", "0"), "1 to 1024"),
        (("--sizes", "64"), "64"),
        (("--engines", "onnxruntime", "--device", "CPU"), "--engines"),
        (("--images", "nowhere.png"), "nowhere.png"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: Capture, package: Path, words: tuple[str, ...], text: str) -> None:
    status, message = refusal(capsys, "bench", str(package), *words)
    assert status in (2, 3)
    assert text in message


def test_the_same_network_for_another_size_is_refused_where_it_is_not_resizable(package: Path) -> None:
    with pytest.raises(UsageError, match="64"):
        resized_package(_core.Package.open(str(package)), 64)


def test_another_size_keeps_the_tiles_and_their_share_of_overlap(tmp_path: Path) -> None:
    graph = (resources.files("onceover") / "embedded" / "mobilenetv4_conv_small.onnx").read_bytes()
    folder = good_folder(tmp_path / "good", 4)
    options = FitOptions(
        backbone=graph, bank=BankSize(rows=20), size=64, tiling=TilingOptions(tiles=(2, 3), overlap=0.25)
    )
    path = tmp_path / "tiled.onceover"
    export.package(fit(folder, options), path)
    package = _core.Package.open(str(path))
    assert _core.read_config(package).tiling == (2, 3, 2, 2)
    larger = _core.Package.view(resized_package(package, 128), "larger")
    assert _core.read_config(larger).tiling == (2, 3, 4, 4)
    assert _core.Session(larger, EngineOptions().resolve()).prepare(tiny_image(0)).shape[0] == 6


def shape_of(value: Any) -> Any:
    """Keys and kinds of a JSON value, without its numbers."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return type(value).__name__ if isinstance(value, (list, str, bool)) else "number"


def test_onceover_run_tells_the_same_without_python(capsys: Capture, package: Path, picture: Path) -> None:
    program = built("onceover-run")
    command = [program, str(package), "--engine", "onnxruntime", "--library", engine_library("onnxruntime")]
    told = subprocess.run(
        [*command, "--bench", "0.2", "--rate", "50", "--no-idle", str(picture)], capture_output=True, check=True
    )
    native = json.loads(told.stdout)
    words = ("bench", str(package), "--images", str(picture), "--seconds", "0.2", "--rate", "50", "--no-idle")
    (case,) = answer(capsys, *words)[1]["results"]
    assert native["engine"] == case["engine"]
    assert native["isa"] == case["isa"]
    assert native["cold"].keys() <= case["cold"].keys()
    for what in ("warm", "at_rate", "memory"):
        assert shape_of(native[what]) == shape_of(case[what]), what
    assert native["after_idle"] == case["after_idle"] == []
    refused = subprocess.run([*command, "--rate", "5", str(picture)], capture_output=True, check=False)
    assert refused.returncode == 2
    assert b"--bench" in refused.stderr
