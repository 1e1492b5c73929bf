"""`onceover list backbones`: costs, measured times, and what a table without torch or without an engine says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Capture, answer, refusal
from tiny_package import tiny_graph

from onceover import _core, registry
from onceover.cli import main
from onceover.errors import EngineError
from onceover.runtime import graph as embedded_graphs


@pytest.fixture
def two_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny graph as the best embedded backbone, under a registered name, and the real one behind it."""
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph(256, 256))
    embedded = {"emo_1m": str(tmp_path / "tiny.onnx"), **embedded_graphs.EMBEDDED}
    monkeypatch.setattr(embedded_graphs, "EMBEDDED", embedded)
    return list(embedded)


def listed(capture: Capture, *words: str) -> dict[str, Any]:
    """Name → row."""
    status, printed = answer(capture, "list", "backbones", *words)
    assert status == 0
    return {row["name"]: row for row in printed["backbones"]}


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onceover.export.to_onnx", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails from here on

    def load(kind: str, name: str, table: Any) -> Any:
        raise registry.missing_extra("torch", "train", f"the {kind} {name!r}")

    monkeypatch.setattr(registry, "load", load)


def test_every_backbone_shows_its_cost_and_whose_its_weights_are(capsys: Capture, two_embedded: list[str]) -> None:
    rows = listed(capsys)
    assert list(rows)[: len(two_embedded)] == two_embedded  # best first
    assert set(rows) == set(registry.BACKBONES)
    for name, row in rows.items():
        assert (row["parameters"], row["macs"]) == registry.COSTS[name]
        assert (row["weights"] == "embedded") == (name in two_embedded)
        assert row["latency"] is None
    assert rows["emo_1m"]["license"] == "Apache-2.0"
    assert main(["list", "backbones"]) == 0
    assert "onceover list backbones --measure" in capsys.readouterr().out


def test_the_table_fits_a_terminal_of_80_columns(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, two_embedded: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "backbones", "--measure", *two_embedded]) == 0
    told = capsys.readouterr().out
    table = told[: told.index("weights card")].splitlines()
    assert max(len(line) for line in table) <= 100
    assert "…" not in "".join(table)
    assert next(line for line in table if "emo_1m" in line).count("Apache-2.0") == 1


def test_what_was_measured_is_shown_until_something_else_is_asked(capsys: Capture, two_embedded: list[str]) -> None:
    measured = listed(capsys, "--measure", *two_embedded)
    for name, row in measured.items():
        assert (row["latency"] is not None) == (name in two_embedded)
    latency = measured["emo_1m"]["latency"]
    assert 0 < latency["median_ms"] <= latency["p90_ms"]
    assert latency["runs"] >= 20
    assert (latency["size"], latency["random_weights"]) == (256, False)
    assert latency["measured_on"]["isa"] == _core.isa()
    assert listed(capsys) == measured
    for others in (["--threads", "2"], ["--size", "224"], ["--engine-option", "session.x=1"]):
        assert all(row["latency"] is None for row in listed(capsys, *others).values())


def test_with_torch_a_backbone_without_weights_is_measured_with_random_ones(capsys: Capture) -> None:
    pytest.importorskip("torch").set_num_threads(1)  # small networks: more threads only get in the way of each other
    pytest.importorskip("onnxscript")
    words = ["--size", "64"]
    rows = listed(capsys, "--measure", "mobilenetv2_050", *words)  # what is embedded is of another size
    latency = rows["mobilenetv2_050"]["latency"]
    assert (latency["size"], latency["random_weights"]) == (64, True)
    assert listed(capsys, *words) == rows
    assert all(row["latency"] is None for row in listed(capsys).values())


def test_without_torch_the_embedded_ones_are_measured_and_the_others_say_nothing(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, two_embedded: list[str]
) -> None:
    without_torch(monkeypatch)
    rows = listed(capsys, "--measure")
    assert {name for name, row in rows.items() if row["latency"]} == set(two_embedded)
    assert main(["list", "backbones"]) == 0
    assert "where torch" in capsys.readouterr().out


def test_without_torch_a_backbone_asked_for_by_name_is_refused(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    status, message = refusal(capsys, "list", "backbones", "--measure", "emo_2m")
    assert status == 2
    assert "pip install 'onceover[train]'" in message


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        (["backbones", "--measure", "emo_3m"], "did you mean 'emo_", 2),
        (["backbones", "--size", "8"], "from 16 to 4096", 2),
        (["backbones", "--size", "big"], "--size", 2),
        (["backbones", "--engine", "onxruntime"], "did you mean 'onnxruntime'", 2),
        (["backbones", "--measure", "--threads", "0"], "between 1 and 256", 2),
        (["backbones", "--measure", "--device", "Nowhere"], "Nowhere", 3),
        (["engines", "--measure"], "for `onceover list backbones`", 2),
        (["--measure"], "for `onceover list backbones`", 2),
        (["isas", "--threads", "2"], "for `onceover list backbones`", 2),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_exported(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str, status: int
) -> None:
    monkeypatch.setattr(registry, "load", None)  # would be a TypeError
    got, message = refusal(capsys, "list", *words)
    assert got == status
    assert says in message


def test_an_engine_that_cannot_be_asked_leaves_the_table_without_times(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, library: str) -> None:
        raise EngineError("engine onnxruntime: cannot load it; install it with: pip install onnxruntime")

    monkeypatch.setattr(_core, "describe_engine", fail)
    assert main(["list", "backbones"]) == 0
    told = capsys.readouterr()
    assert "emo_1m" in told.out
    assert "no times: engine onnxruntime: cannot load it" in told.err
    status, message = refusal(capsys, "list", "backbones", "--measure")
    assert (status, "cannot load it" in message) == (3, True)


def test_a_damaged_memory_is_told_and_measured_anew(capsys: Capture, cache_folder: Path) -> None:
    (cache_folder / "latencies.json").write_text("{")
    assert main(["list", "backbones"]) == 0
    assert "latencies.json: is damaged" in capsys.readouterr().err.replace("\n", "")
    assert main(["list", "backbones", "--measure", "mobilenetv2_050"]) == 0
    capsys.readouterr()
    assert main(["list", "backbones"]) == 0
    assert capsys.readouterr().err == ""
