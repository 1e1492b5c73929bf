"""Measured latencies: taken by the session's own code, remembered for exactly this machine, engine and image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_package import tiny_graph

from onceover import _core
from onceover.detectors.detector import no_progress
from onceover.errors import EngineError, UnknownNameError
from onceover.runtime import latency, latency_cache
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.latency import LatencyMeter, Network
from onceover.runtime.latency_cache import FORMAT, MAX_ENTRIES, LatencyCache
from onceover.runtime.session import EngineOptions
from onceover.types import Latency

KEY = {"cpu": "one", "threads": 1}
SOME = Latency(2.5, 3.0, 20)


def tiny_network(name: str = "tiny", channels: int = 4) -> Network:
    graph = tiny_graph(channels=channels)
    return Network.of_graph(name, graph, read_graph_spec(graph, name))


def known(meter: LatencyMeter, network: Network) -> Latency | None:
    return meter.known(network.identity, (32, 48))


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows these seconds, one after the other, and then a millisecond more at every look."""
    times: list[float] = []

    def clock() -> float:
        clock.last = times.pop(0) if times else clock.last + 1e-3  # type: ignore[attr-defined]
        return float(clock.last)  # type: ignore[attr-defined]

    clock.last = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr(latency, "perf_counter", clock)
    return times


@pytest.fixture
def file(cache_folder: Path) -> Path:
    """The cache, holding one entry."""
    cache = LatencyCache()
    cache.put(KEY, SOME)
    cache.save()
    assert cache.problems == []
    return cache_folder / "latencies.json"


def test_a_measurement_is_median_and_p90_of_at_least_20_runs(ticks: list[float]) -> None:
    runs = latency.ROUNDS * latency.TIMED_RUNS
    ticks.append(0.0)  # the rounds begin
    for i in range(runs):
        ticks += [i, i + (i + 1) / 1e3]  # runs of 1, 2, 3 … ms
    found = LatencyMeter().measure([tiny_network()], no_progress)["tiny"]
    assert (found.runs, found.median_ms) == (runs, (1 + runs) / 2)
    assert found.p90_ms == pytest.approx(1 + 0.9 * (runs - 1))
    assert runs >= 20


@pytest.mark.parametrize(("share", "device", "told"), [(0.5, "", True), (1.0, "", False), (0.5, "GPU", False)])
def test_a_busy_machine_is_told(
    ticks: list[float], monkeypatch: pytest.MonkeyPatch, share: float, device: str, told: bool
) -> None:
    monkeypatch.setattr(LatencyMeter, "_open", lambda self, network, engine: lambda: None)
    monkeypatch.setattr(latency, "process_time", lambda: share * latency.perf_counter())
    meter = LatencyMeter(EngineOptions(device=device))
    meter.measure([tiny_network()], no_progress)
    assert any("busy with other work: a CPU was ours for 5" in problem for problem in meter.problems) == told


def test_networks_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch, ticks: list[float]) -> None:
    order: list[str] = []
    monkeypatch.setattr(LatencyMeter, "_open", lambda self, network, engine: lambda: order.append(network.name))
    LatencyMeter().measure([tiny_network("a"), tiny_network("b")], no_progress)
    turn = 1 + latency.TIMED_RUNS
    assert order == ["a"] * latency.WARM_UP + ["b"] * latency.WARM_UP + (["a"] * turn + ["b"] * turn) * latency.ROUNDS


def test_what_was_measured_is_known_to_the_next_meter(ticks: list[float]) -> None:
    network = tiny_network()
    assert known(LatencyMeter(), network) is None
    measured = LatencyMeter().measure([network], no_progress)["tiny"]
    assert known(LatencyMeter(), network) == measured == Latency(1.0, 1.0, 24)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (latency_cache, "cpu_model", lambda: "another CPU"),
        (_core, "isa", lambda: "another ISA"),
        (os, "cpu_count", lambda: 999),
        (_core, "describe_engine", lambda name, library: ("onnxruntime 99.0", [])),
        (latency_cache, "engine_library", lambda name, library: "/another/build.so"),
        (_core, "__version__", "99.0"),
    ],
    ids=["CPU", "ISA", "cores", "engine version", "engine library", "onceover"],
)
def test_a_value_of_another_machine_or_engine_is_not_shown(
    place: Any, name: str, value: Any, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "describe_engine", lambda name, library: ("onnxruntime 1.0", []))
    network = tiny_network()
    LatencyMeter().measure([network], no_progress)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, value)
        assert known(LatencyMeter(), network) is None
    assert known(LatencyMeter(), network) is not None


@pytest.mark.parametrize(
    "meter",
    [
        LatencyMeter(threads=2),
        LatencyMeter(EngineOptions(options={"session.x": "1"})),
        LatencyMeter(EngineOptions(device="CPU")),
        LatencyMeter(image_size=(64, 96)),
    ],
    ids=["threads", "options", "device", "image"],
)
def test_a_value_of_another_setting_is_not_shown(meter: LatencyMeter, ticks: list[float]) -> None:
    network = tiny_network()
    LatencyMeter().measure([network], no_progress)
    fresh = LatencyMeter(meter.engine, meter.threads, meter.image_size)
    assert known(fresh, network) is None


def test_another_graph_or_input_size_is_another_network(ticks: list[float]) -> None:
    LatencyMeter().measure([tiny_network()], no_progress)
    assert known(LatencyMeter(), tiny_network(channels=8)) is None
    assert LatencyMeter().known(tiny_network().identity, (48, 32)) is None


def test_an_image_of_another_size_is_prepared_as_it_is(ticks: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    class Embedder:
        def __init__(self, config: object, graph: bytes, engine: object) -> None:
            pass

        def embed(self, image: Any) -> None:
            seen.append(image.shape)

    monkeypatch.setattr(_core, "Embedder", Embedder)
    LatencyMeter(image_size=(70, 90)).measure([tiny_network()], no_progress)
    LatencyMeter().measure([tiny_network()], no_progress)
    assert set(seen) == {(70, 90, 3), (32, 48, 3)}


def test_an_unknown_engine_and_a_device_that_is_absent_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'onnxruntime'"):
        LatencyMeter("onxruntime").measure([tiny_network()], no_progress)
    with pytest.raises(EngineError):
        LatencyMeter(EngineOptions(device="Nowhere")).measure([tiny_network()], no_progress)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format": 2, "entries": []}',
        b'{"format": 1}',
        b'{"format": 1, "entries": [3]}',
        b'{"format": 1, "entries": [{"key": "x", "median_ms": 1, "p90_ms": 1, "runs": 1}]}',
    ],
)
def test_a_damaged_file_is_ignored_with_a_warning_and_written_anew(file: Path, damage: bytes) -> None:
    file.write_bytes(damage)
    cache = LatencyCache()
    assert cache.get(KEY) is None
    assert [str(file) in problem and "is damaged" in problem for problem in cache.problems] == [True]
    cache.put(KEY, SOME)
    cache.save()
    again = LatencyCache()
    assert (again.get(KEY), again.problems) == (SOME, [])


@pytest.mark.parametrize(
    "values",
    [
        {"median_ms": "fast"},
        {"median_ms": True},
        {"median_ms": float("nan")},
        {"median_ms": float("inf")},
        {"median_ms": -1.0},
        {"p90_ms": None},
        {"p90_ms": 10**400},
        {"runs": 0},
        {"runs": 1.5},
    ],
)
def test_an_entry_that_cannot_be_is_dropped_and_the_others_kept(file: Path, values: dict[str, Any]) -> None:
    content = json.loads(file.read_text())
    content["entries"].append({**content["entries"][0], "key": {"cpu": "other"}, **values})
    file.write_text(json.dumps(content))
    cache = LatencyCache()
    assert (cache.get(KEY), cache.get({"cpu": "other"})) == (SOME, None)
    assert "is damaged" in cache.problems[0]


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: list[float]
) -> None:
    (tmp_path / "taken").write_text("a file in the place of the folder")
    monkeypatch.setenv("ONCEOVER_CACHE_DIR", str(tmp_path / "taken"))
    meter = LatencyMeter()
    assert meter.measure([tiny_network()], no_progress)["tiny"] == Latency(1.0, 1.0, 24)
    assert any("are not kept" in problem and "ONCEOVER_CACHE_DIR" in problem for problem in meter.problems)


def test_a_file_that_cannot_be_read_is_told(cache_folder: Path) -> None:
    (cache_folder / "latencies.json").mkdir()
    assert "cannot be read" in LatencyCache().problems[0]


def test_the_file_keeps_the_newest_entries(cache_folder: Path) -> None:
    cache = LatencyCache()
    for i in range(MAX_ENTRIES + 5):
        cache.put({"number": i}, SOME)
    cache.put({"number": 5}, Latency(9.0, 9.0, 20))  # measured again
    cache.save()
    stored = json.loads((cache_folder / "latencies.json").read_text())
    assert (stored["format"], len(stored["entries"])) == (FORMAT, MAX_ENTRIES)
    again = LatencyCache()
    assert again.get({"number": 5}) == Latency(9.0, 9.0, 20)
    assert again.get({"number": 6}) == SOME
    assert again.get({"number": 4}) is None


def test_the_folder_is_ours_then_that_of_the_desktop_then_that_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("ONCEOVER_CACHE_DIR", str(tmp_path / "own"))
    assert latency_cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ONCEOVER_CACHE_DIR")
    assert latency_cache.cache_folder() == tmp_path / "xdg" / "onceover"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert latency_cache.cache_folder() == tmp_path / "home" / ".cache" / "onceover"


def test_without_a_home_nothing_is_kept_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_cache, "cache_folder", lambda: None)
    cache = LatencyCache()
    cache.put(KEY, SOME)
    cache.save()
    assert cache.get(KEY) == SOME
    assert "no home folder" in cache.problems[0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("processor: 0\nmodel name\t: First CPU\n\nmodel name\t: Second CPU\n", "First CPU"),
        ("model name\t: ARMv7 Processor rev 3 (v7l)\n\nModel\t: Raspberry Pi 4\n", "ARMv7 Processor rev 3 (v7l), Rasp"),
        ("CPU part\t: 0xd0b\n\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n", "Raspberry Pi 4"),
    ],
)
def test_the_cpu_is_named_as_linux_names_it(
    lines: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(lines)
    monkeypatch.setattr(latency_cache, "CPUINFO", tmp_path / "cpuinfo")
    assert latency_cache.cpu_model().startswith(says)
    monkeypatch.setattr(latency_cache, "CPUINFO", tmp_path / "absent")
    assert latency_cache.cpu_model()
