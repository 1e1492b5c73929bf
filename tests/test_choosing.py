"""`backbone="auto"`: the best embedded backbone within a budget, by measured times; the times here are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Capture, answer, refusal
from tiny_data import good_folder
from tiny_package import tiny_graph

import onceover
from onceover.cli import main
from onceover.errors import InputError, UsageError
from onceover.runtime import graph as embedded_graphs
from onceover.runtime.assemble import assemble
from onceover.runtime.latency import LatencyMeter, Network
from onceover.runtime.package import open_package
from onceover.runtime.session import EngineOptions
from onceover.training import choosing
from onceover.training.choosing import choose_backbone
from onceover.training.fit import FitOptions, fit
from onceover.types import Latency

SIZE = (40, 56)  # of the images of good_folder


class Times(dict[str, float]):
    """Median ms by name, instead of measuring; asked: names of each measurement."""

    asked: list[list[str]]


@pytest.fixture
def times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Times:
    """Embedded, best first: large, which takes 12 ms, middle, which takes 20, and small, which takes 5."""
    times, sizes = Times(large=12.0, middle=20.0, small=5.0), {"large": 16, "middle": 8, "small": 4}
    times.asked = []
    embedded = {name: str(tmp_path / f"{name}.onnx") for name in times}
    for name, path in embedded.items():
        Path(path).write_bytes(tiny_graph(channels=sizes[name]))
    for module in (embedded_graphs, choosing):
        monkeypatch.setattr(module, "EMBEDDED", embedded)

    def measure(self: LatencyMeter, networks: Sequence[Network], progress: Any) -> dict[str, Latency]:
        times.asked.append([network.name for network in networks])
        found = {network.name: Latency(times[network.name], 2 * times[network.name], 24) for network in networks}
        for network in networks:
            self.cache.put(self._key(network.identity, (32, 48)), found[network.name])
        self.cache.save()
        return found

    monkeypatch.setattr(LatencyMeter, "measure", measure)
    return times


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("choosing") / "plate", 6)


@pytest.mark.parametrize(
    ("budget", "expected"), [(100, "large"), (12, "large"), (11.9, "small"), (5, "small"), (20, "large")]
)
def test_the_first_that_fits_is_taken_not_the_slowest_that_fits(times: Times, budget: float, expected: str) -> None:
    choice = choose_backbone(budget, SIZE)
    assert choice.name == expected
    assert {name: latency.median_ms for name, latency in choice.latencies.items()} == times
    assert list(choice.latencies) == ["large", "middle", "small"]


def test_when_none_fits_the_error_says_what_the_fastest_takes_and_what_to_do(times: Times) -> None:
    with pytest.raises(UsageError) as caught:
        choose_backbone(4.9, SIZE)
    message = str(caught.value)
    assert "at most 4.9 ms for an image of 40 × 56 on onnxruntime" in message
    assert "the fastest, 'small', takes 5.0 ms for network and preparation; allow more" in message
    assert all(advice in message for advice in ("--engine", "--threads", "--height 192"))


def test_nothing_is_refused_by_what_a_busy_machine_took_earlier(times: Times) -> None:
    with pytest.raises(UsageError, match=r"takes 5\.0 ms"):
        choose_backbone(4.9, SIZE)
    times["small"] = 4.5
    choice = choose_backbone(4.9, SIZE)
    assert (choice.name, choice.remembered) == ("small", ())
    assert choose_backbone(4.9, SIZE).remembered == ("large", "middle", "small")
    assert len(times.asked) == 2


def test_only_what_is_not_remembered_is_measured(times: Times) -> None:
    first = choose_backbone(15, SIZE)
    assert choose_backbone(15, SIZE).remembered == ("large", "middle", "small")
    assert first.remembered == ()
    Path(embedded_graphs.EMBEDDED["middle"]).write_bytes(tiny_graph(channels=10))  # another graph of that name
    choice = choose_backbone(15, SIZE)
    assert times.asked == [["large", "middle", "small"], ["middle"]]
    assert (choice.remembered, list(choice.latencies)) == (("large", "small"), ["large", "middle", "small"])
    choose_backbone(15, (80, 112))
    choose_backbone(15, SIZE, EngineOptions(options={"session.x": "1"}))
    choose_backbone(15, SIZE, threads=2)
    assert times.asked[2:] == [["large", "middle", "small"]] * 3


def test_what_is_wrong_with_the_memory_is_told_with_the_choice(times: Times, cache_folder: Path) -> None:
    (cache_folder / "latencies.json").write_text("{")
    assert "is damaged" in choose_backbone(15, SIZE).problems[0]
    (cache_folder / "latencies.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        choose_backbone(1, SIZE)


def test_fit_takes_the_backbone_within_the_budget_and_records_both(times: Times, folder: Path) -> None:
    parts = fit(folder, FitOptions(backbone="auto", budget_ms=10))
    assert parts.graph == Path(embedded_graphs.EMBEDDED["small"]).read_bytes()
    assert parts.manifest["choice"] == {"backbone": "small", "budget_ms": 10}
    assert "choice" not in fit(folder, FitOptions(backbone="small")).manifest


def test_the_same_choice_gives_the_same_bytes_whatever_was_measured(
    times: Times, folder: Path, cache_folder: Path
) -> None:
    options = FitOptions(backbone="auto", budget_ms=10)
    first = assemble(fit(folder, options)).bytes()
    (cache_folder / "latencies.json").unlink()
    times["small"], times["large"] = 3.25, 99.0
    assert assemble(fit(folder, options)).bytes() == first
    assert len(times.asked) == 2


def test_the_budget_is_for_images_as_large_as_those_of_the_folder(
    times: Times, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    plan = fit(folder, FitOptions(backbone="auto", budget_ms=10, threads=2), on_plan=seen.append)
    assert plan.spec.preprocessing.height == 32
    assert seen[0].choice.image_size == SIZE


def test_a_backbone_that_cannot_have_the_size_is_left_out() -> None:
    found = choose_backbone(60_000, (64, 64), side=320)  # what is embedded: EMO-1M's windows are not laid out for 320
    assert list(found.latencies) == ["mobilenetv4_conv_small"]
    with pytest.raises(UsageError, match="no embedded backbone takes an input size of 100"):
        choose_backbone(60_000, (64, 64), side=100)


def test_the_front_door_takes_a_budget_too(times: Times, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "plate.onceover"
    onceover.fit(folder, target, onceover.FitOptions(backbone="auto", budget_ms=30))
    manifest = open_package(target).manifest
    assert (manifest["backbone"]["embedding_dim"], manifest["choice"]["backbone"]) == (16, "large")


@pytest.mark.parametrize(
    ("backbone", "budget", "says"),
    [
        ("auto", None, "--budget-ms 10"),
        ("small", 10.0, "give --backbone auto"),
        (b"graph", 10.0, "give --backbone auto"),
        ("auto", 0.0, "above 0"),
        ("auto", -1.0, "above 0"),
        ("auto", float("nan"), "above 0"),
        ("auto", float("inf"), "above 0"),
    ],
)
def test_a_budget_and_auto_belong_together(
    times: Times, folder: Path, backbone: str | bytes, budget: float | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        fit(folder, FitOptions(backbone=backbone, budget_ms=budget))
    assert times.asked == []


def test_a_folder_without_images_is_refused_before_anything_is_measured(times: Times, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        fit(tmp_path / "empty", FitOptions(backbone="auto", budget_ms=10))
    assert times.asked == []


def test_the_command_says_what_it_took_and_what_the_others_take(
    times: Times, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "plate.onceover"
    words = ["fit", str(folder), "-o", str(target), "--backbone", "auto", "--budget-ms", "10"]
    assert main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "backbone small: the best within 10 ms for network and preparation of a 40 × 56 image" in told
    assert "large 12.0 ms, middle 20.0 ms, small 5.0 ms (median)" in told
    status, printed = answer(capsys, *words)
    assert (status, printed["choice"]["name"], printed["choice"]["remembered"]) == (0, "small", list(times))
    assert printed["choice"]["latencies"]["large"] == {"median_ms": 12.0, "p90_ms": 24.0, "runs": 24}
    assert json.loads(open_package(target).core.read("manifest.json"))["choice"]["budget_ms"] == 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--backbone", "auto"], "--budget-ms 10"),
        (["--budget-ms", "10"], "give --backbone auto"),
        (["--backbone", "auto", "--budget-ms", "much"], "--budget-ms"),
        (["--backbone", "auto", "--budget-ms", "0.001"], "the fastest, 'small', takes 5.0 ms"),
        (["--backbone", "auto", "--budget-ms", "10", "--weights", "w.pth"], "leave out --weights"),
        (["--backbone", "mobilenetv2", "--weights", "w.pth", "--budget-ms", "10"], "give --backbone auto"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    times: Times, folder: Path, tmp_path: Path, capsys: Capture, words: list[str], says: str
) -> None:
    status, message = refusal(capsys, "fit", str(folder), "-o", str(tmp_path / "x.onceover"), *words)
    assert status == 2
    assert says in message
    assert not (tmp_path / "x.onceover").exists()
