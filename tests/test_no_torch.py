"""Where torch, onnx, onnxscript, safetensors and OpenVINO are not installed, all but building graphs works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_package import tiny_graph, tiny_image

PROGRAM = Path(__file__).with_name("torch_free_run.py")
HELD_OUT = 19  # 1 / 0.05 − 1: the default false-alarm rate needs so many


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """tiny.onnx and a small data set: a smooth texture, and the same with a white hole."""
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    counts = {"train/good": 2 * HELD_OUT, "test/good": 4, "test/hole": 4}
    for seed, (name, count) in enumerate(counts.items()):
        directory = tmp_path / "data" / name
        directory.mkdir(parents=True)
        for i in range(count):
            image = tiny_image(1000 * seed + i)
            mask = np.zeros(image.shape[:2], np.uint8)
            if name == "test/hole":
                mask[8:24, 8:32] = 255
                image[mask > 0] = 255
                (tmp_path / "data" / "ground_truth" / "hole").mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / "data" / "ground_truth" / "hole" / f"{i:03d}_mask.png"), mask)
            cv2.imwrite(str(directory / f"{i:03d}.png"), image)
    return tmp_path


def run(python: str, folder: Path) -> dict[str, Any]:
    """The program's last line; its other output is shown when it fails."""
    done = subprocess.run([python, str(PROGRAM), str(folder)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def assert_main_job_done(answer: dict[str, Any], folder: Path) -> None:
    statuses = answer["statuses"]
    assert statuses.pop("inspect good") in {0, 1}  # a false alarm is allowed, an error is not
    expected = {
        "list": 0,
        "fit": 0,
        "verify": 0,
        "evaluate": 0,
        "inspect bad": 1,
        "needs torch": 2,
        "needs openvino": 2,
    }
    assert statuses == expected
    assert answer["loaded"] == []
    assert answer["score"] > 0
    assert len(list((folder / "pictures").iterdir())) == 4
    assert not (folder / "big.onnx").exists()


def test_the_main_job_runs_where_torch_cannot_be_imported(folder: Path) -> None:
    assert_main_job_done(run(sys.executable, folder), folder)


@pytest.mark.slow
def test_the_main_job_runs_in_a_fresh_environment_with_runtime_dependencies_only(
    folder: Path, built_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = tmp_path_factory.mktemp("runtime") / "venv"
    python = str(environment / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", str(built_wheel)], check=True)
    search = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'safetensors') if u.find_spec(n)])"
    found = subprocess.run([python, "-c", search], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
    answer = run(python, folder)
    assert_main_job_done(answer, folder)
    assert Path(answer["installed"]).is_relative_to(environment)
