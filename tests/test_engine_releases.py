"""Engine libraries that the environment lacks: older release lines of OpenVINO, another build of ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_data import embedded_package
from tolerances import PARITY_SCORE

# Besides the installed one.
OTHER_OPENVINO = ("2024.6.0", "2025.2.0", "2025.4.0", "2026.2.0")


@pytest.fixture(scope="module")
def real_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_package(tmp_path_factory.mktemp("real"))


def run_verify(package: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """In a process of its own: one process may hold one release. Exit status and what --json printed."""
    command = [sys.executable, "-m", "onceover.cli", "verify", str(package), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def fetched_library(requirement: str, pattern: str, folder: Path) -> str:
    """The library of a wheel that the environment does not have; skips, and says so, where it cannot be had."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), requirement]
    fetched = subprocess.run(pip, capture_output=True, text=True)
    if fetched.returncode != 0:
        pytest.skip(f"{requirement} cannot be downloaded: {fetched.stderr.strip().splitlines()[-1]}")
    (library,) = folder.glob(pattern)
    return str(library)


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHER_OPENVINO)
def test_other_releases_of_openvino_reproduce_the_package(version: str, real_package: Path, tmp_path: Path) -> None:
    library = fetched_library(f"openvino=={version}", "openvino/libs/libopenvino_c.so.*", tmp_path)
    status, report = run_verify(real_package, "--engine", "openvino", "--engine-library", library)
    assert (status, report["engine"]) == (0, f"openvino {version}")
    assert report["largest_relative_difference"] <= PARITY_SCORE
    print(f"{report['engine']}: largest relative difference {report['largest_relative_difference']:.1e}")


@pytest.mark.slow
def test_an_execution_provider_takes_its_options_and_its_cache(real_package: Path, tmp_path: Path) -> None:
    library = fetched_library("onnxruntime-openvino==1.24.1", "onnxruntime/capi/libonnxruntime.so.*", tmp_path)
    chosen = ["--engine-library", library, "--device", "OpenVINO,CPU"]
    cache, full_precision = tmp_path / "cache", ["--engine-option", "OpenVINO.precision=FP32"]
    status, report = run_verify(real_package, *chosen, *full_precision, "--engine-cache", str(cache))
    assert (status, report["engine"]) == (0, "onnxruntime 1.24.1")
    assert 0 < report["largest_relative_difference"] <= PARITY_SCORE  # it was not the CPU provider that answered
    assert any(cache.iterdir())
    status, report = run_verify(real_package, *chosen, "--engine-option", "abacus=1")
    assert status == 3
    assert "cannot start execution provider OpenVINO; its options" in report["message"]
