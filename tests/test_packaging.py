"""The package as a user gets it: one version, exact public names, and an sdist and a wheel that hold all they need."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import layers
import pytest

import onceover
from onceover import _core

ROOT = Path(__file__).resolve().parents[1]


def test_version_file_metadata_core_and_module_agree() -> None:
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    assert importlib.metadata.version("onceover") == version
    assert _core.__version__ == version
    assert onceover.__version__ == version


def test_public_names_are_exact_sorted_and_all_resolve() -> None:
    assert list(onceover.__all__) == sorted(onceover.__all__)
    for name in onceover.__all__:
        assert getattr(onceover, name) is not None, name
    made_here = {name for name, value in vars(onceover).items() if getattr(value, "__module__", "") == "onceover"}
    assert {name for name in made_here if not name.startswith("_")} <= set(onceover.__all__)
    assert dir(onceover) == list(onceover.__all__)


def test_the_supported_pythons_are_said_once_and_alike() -> None:
    metadata = importlib.metadata.metadata("onceover")
    said = [line.rpartition(" ")[2] for line in metadata.get_all("Classifier") or [] if "Python :: 3." in line]
    assert said == ["3.10", "3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == f">={said[0]}"


def test_run_time_needs_no_torch_and_the_extra_train_brings_it() -> None:
    requirements = importlib.metadata.requires("onceover") or []
    plain = [line for line in requirements if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in plain) == ["numpy", "onnxruntime", "opencv-python-headless", "rich"]
    train = [line for line in requirements if 'extra == "train"' in line]
    assert any(line.startswith("torch>=") for line in train)


@pytest.mark.slow
def test_the_sdist_holds_every_source_of_the_core_and_of_the_package(built_sdist: Path) -> None:
    with tarfile.open(built_sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = [*layers.python_modules(ROOT).values(), *layers.cxx_files(ROOT), ROOT / "csrc" / "CMakeLists.txt"]
    assert {str(path.relative_to(ROOT)) for path in sources} - names == set()
    assert {"VERSION", "LICENSE", "README.md", "setup.py", "pyproject.toml", "tests/check.h"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_holds_every_module_and_nothing_foreign(built_wheel: Path) -> None:
    with zipfile.ZipFile(built_wheel) as archive:
        names = archive.namelist()
    modules = {
        (Path("onceover") / path.relative_to(ROOT / "python" / "onceover")).as_posix()
        if path.is_relative_to(ROOT / "python")
        else (Path("onceover") / path.relative_to(ROOT)).as_posix()
        for path in layers.python_modules(ROOT).values()
    }
    assert modules == {name for name in names if name.endswith(".py")}
    embedded = {f"onceover/embedded/{path.name}" for path in (ROOT / "python/onceover/embedded").glob("*.onnx")}
    templates = {f"onceover/report/{path.name}" for path in (ROOT / "python/onceover/report").glob("page.*")}
    assert len(templates) == 3
    assert {"onceover/py.typed", "onceover/_core.pyi", *embedded, *templates} <= set(names)
    assert [name.split(".")[0] for name in names if name.endswith(".so")] == ["onceover/_core"]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"onceover"}


@pytest.mark.slow
def test_an_installed_wheel_imports_package_core_and_export_from_one_folder(built_wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(tmp_path), str(built_wheel)]
    subprocess.run(pip, check=True)
    program = (
        "import json, onceover, onceover._core, onceover.export, onceover.export.verify as v; "
        "print(json.dumps([m.__file__ for m in (onceover, onceover._core, onceover.export, v)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    files = json.loads(done.stdout)
    assert len(files) == 4
    assert all(Path(file).is_relative_to(tmp_path / "onceover") for file in files), files
