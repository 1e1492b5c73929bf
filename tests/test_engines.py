"""Engines behind one contract: the same answers from each, devices and options passed through, and every refusal."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from numpy.typing import NDArray
from tiny_data import embedded_package, good_folder
from tiny_package import tiny_image, tiny_package
from tolerances import PARITY_SCORE

import onceover
from onceover import EngineOptions, Inspector, errors
from onceover.detectors import BankSize
from onceover.runtime.session import ENGINES, available_engines, engine_library, library_variable
from onceover.training.fit import FitOptions


@pytest.fixture(scope="module")
def package_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("engines") / "tiny.onceover")


@pytest.fixture(scope="module")
def real_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_package(tmp_path_factory.mktemp("real"))


@pytest.fixture
def openvino() -> EngineOptions:
    pytest.importorskip("openvino")
    return EngineOptions("openvino")


def image_with_hole(seed: int) -> NDArray[np.uint8]:
    image = tiny_image(seed)
    image[8:24, 8:32] = 255
    return image


def test_both_engines_give_the_same_scores_and_the_same_verdicts(real_package: Path, openvino: EngineOptions) -> None:
    images = [tiny_image(seed) for seed in range(700, 704)] + [image_with_hole(seed) for seed in range(800, 804)]
    decisions = set()
    with Inspector.open(real_package) as first, Inspector.open(real_package, openvino) as second:
        for image in images:
            expected, got = first.inspect(image), second.inspect(image)
            assert got.score == pytest.approx(expected.score, rel=PARITY_SCORE)
            allowed = PARITY_SCORE * expected.patch_scores.max()
            np.testing.assert_allclose(got.patch_scores, expected.patch_scores, rtol=0, atol=allowed)
            assert got.decision == expected.decision
            decisions.add(got.decision)
    assert decisions == {"normal", "anomalous"}


def test_a_package_fitted_by_one_engine_is_verified_by_the_other(
    real_package: Path, openvino: EngineOptions, capsys: Capture, tmp_path: Path
) -> None:
    status, report = answer(capsys, "verify", str(real_package), "--engine", "openvino")
    assert (status, report["verified"], report["images"]) == (0, True, 6)
    assert report["engine"].startswith("openvino 20")
    options = FitOptions(bank=BankSize(rows=100), coreset="random", engine=openvino)
    with onceover.fit(good_folder(tmp_path / "good", 8), tmp_path / "by_openvino.onceover", options) as inspector:
        assert inspector.manifest["engine"] == "openvino"
        assert inspector.session.engine_version.startswith("openvino ")
    assert Inspector.open(tmp_path / "by_openvino.onceover").verify()["engine"].startswith("onnxruntime ")


def test_runs_and_thread_counts_of_openvino_agree_within_the_promise(
    package_path: Path, openvino: EngineOptions
) -> None:
    image = tiny_image(77, 64, 64)
    one, two = (Inspector.open(package_path, openvino, threads=threads) for threads in (1, 2))
    score = one.inspect(image).score
    one.inspect(tiny_image(78))
    assert one.inspect(image).score == score
    assert two.inspect(image).score == pytest.approx(score, rel=PARITY_SCORE)


@pytest.mark.parametrize("name", list(ENGINES))
def test_sessions_of_one_engine_work_in_threads_of_their_own(package_path: Path, name: str) -> None:
    pytest.importorskip(name)
    expected = Inspector.open(package_path, name).inspect(tiny_image(9)).score
    scores: list[float] = []

    def work() -> None:
        for _ in range(5):  # opened, used and closed beside the others
            with Inspector.open(package_path, name) as inspector:
                scores.extend(inspector.inspect(tiny_image(9)).score for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scores) == 100
    assert set(scores) == {expected}


@pytest.mark.parametrize("first", ["", "import openvino, onnxruntime; openvino.Core()"])
def test_a_process_ends_quietly_with_sessions_open(package_path: Path, openvino: EngineOptions, first: str) -> None:
    program = (
        f"{first}\n"
        "import onceover\n"
        f"kept = [onceover.Inspector.open({str(package_path)!r}, name) for name in ('openvino', 'onnxruntime')]\n"
        "print([inspector.verify()['images'] for inspector in kept])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[3, 3]\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_still_arrive_after_a_session_ended_in_another_thread(package_path: Path) -> None:
    pytest.importorskip("openvino")
    program = (
        "import os, signal, threading, onceover\n"
        f"inspector = onceover.Inspector.open({str(package_path)!r}, 'openvino')\n"
        "thread = threading.Thread(target=inspector.close)\n"
        "thread.start(), thread.join()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('arrived'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "arrived\n", "")


REFUSALS: list[tuple[EngineOptions, type[errors.OnceoverError], str]] = [
    (EngineOptions("openvino", "ABACUS"), errors.EngineError, r"device ABACUS.*Devices found here: .*CPU.*name one"),
    (EngineOptions("openvino", options={"ABACUS": "1"}), errors.EngineError, "ABACUS.*check the options"),
    (EngineOptions("openvino", library="/nowhere/libopenvino_c.so"), errors.EngineError, "cannot load /nowhere"),
    (EngineOptions("openvino", library=__file__), errors.EngineError, f"cannot load {__file__}"),
    (EngineOptions("openvino", "CPU\0"), errors.UsageError, "holds a NUL"),
    (EngineOptions(device="ABACUSExecutionProvider"), errors.EngineError, r"'ABACUS' is not in this build.*has: .*CPU"),
    (EngineOptions(device="CPU,CPU"), errors.UsageError, "only be last"),
    (EngineOptions(options={"abacus": "1"}), errors.UsageError, "nobody takes the option 'abacus'"),
    (EngineOptions(cache_dir="cache"), errors.UsageError, "leave the cache folder"),
    (EngineOptions(library="/nowhere/libonnxruntime.so"), errors.EngineError, "cannot load /nowhere"),
    (EngineOptions(library=__file__), errors.EngineError, f"cannot load {__file__}"),
    (EngineOptions(library="libm.so.6"), errors.EngineError, "not ONNX Runtime"),
    (EngineOptions("openvin"), errors.UnknownNameError, "did you mean 'openvino'"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSALS)
def test_what_cannot_be_had_is_refused_and_named(
    package_path: Path, options: EngineOptions, error: type[errors.OnceoverError], message: str
) -> None:
    if options.name == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(error, match=message):
        Inspector.open(package_path, options)


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_without_its_driver_says_which_devices_there_are(
    package_path: Path, openvino: EngineOptions, device: str, capsys: Capture
) -> None:
    (found,) = (status.devices for status in available_engines() if status.name == "openvino")
    if any(name.startswith(device) for name in found):
        pytest.skip(f"this machine has a {device}")
    status, message = refusal(capsys, "verify", str(package_path), "--engine", "openvino", "--device", device)
    assert status == 3
    assert f"device {device}" in message
    assert f"Devices found here: {', '.join(found)}" in message


def test_a_provider_that_this_build_lacks_says_which_it_has(package_path: Path, capsys: Capture) -> None:
    found = available_engines()[0].devices
    if "CUDA" in found:
        pytest.skip("this build has CUDA")
    status, message = refusal(capsys, "verify", str(package_path), "--device", "CUDAExecutionProvider")
    assert status == 3
    assert "'CUDA' is not in this build" in message
    assert f"has: {', '.join(found)}" in message


def test_options_reach_the_engine(package_path: Path, openvino: EngineOptions, capsys: Capture) -> None:
    words = ["verify", str(package_path), "--engine", "openvino", "--device", "AUTO:CPU", "--engine-option"]
    assert answer(capsys, *words, "MODEL_PRIORITY=HIGH", "--engine-option", "ENABLE_CPU_PINNING=NO")[0] == 0
    assert "many" in refusal(capsys, *words[:4], "--engine-option", "NUM_STREAMS=many")[1]
    for bad in ("NUM_STREAMS", "=1", "NUM_STREAMS="):
        assert "is not KEY=VALUE" in refusal(capsys, *words, bad)[1]
    session = EngineOptions(device="CPU", options={"session.intra_op.allow_spinning": "1"})
    assert Inspector.open(package_path, session).verify()["images"] == 3


def test_openvino_keeps_compiled_graphs_in_the_folder_it_is_given(
    package_path: Path, openvino: EngineOptions, tmp_path: Path, capsys: Capture
) -> None:
    cache = tmp_path / "made" / "cache"
    words = ["verify", str(package_path), "--engine", "openvino", "--engine-cache", str(cache)]
    assert answer(capsys, *words)[0] == 0
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert kept
    assert answer(capsys, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == kept


def test_the_library_may_come_from_the_environment_or_a_path(
    package_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv(library_variable("onnxruntime"), raising=False)
    wheel = engine_library("onnxruntime")
    monkeypatch.setenv("ONCEOVER_ONNXRUNTIME_LIBRARY", "/nowhere/lib.so")
    assert "cannot load /nowhere/lib.so" in refusal(capsys, "verify", str(package_path))[1]
    assert answer(capsys, "verify", str(package_path), "--engine-library", wheel)[0] == 0
    monkeypatch.setenv("ONCEOVER_ONNXRUNTIME_LIBRARY", wheel)
    assert answer(capsys, "verify", str(package_path))[0] == 0
    monkeypatch.setenv("ONCEOVER_ONNXRUNTIME_LIBRARY", "")
    assert engine_library("onnxruntime") == wheel


def test_list_shows_version_and_devices_of_every_engine(openvino: EngineOptions, capsys: Capture) -> None:
    rows = {row["name"]: row for row in answer(capsys, "list", "engines")[1]["engines"]}
    assert rows.keys() == ENGINES.keys()
    for row in rows.values():
        assert row["state"] == "ready"
        assert "CPU" in row["devices"].split(", ")
        assert row["version"][0].isdigit()
