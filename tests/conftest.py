"""For the whole suite: with CI=true a missing tool is a failure, not a skip; missing shared data stays a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MISSING_TOOL = "missing tool"


def is_missing_tool(reason: str) -> bool:
    """Whether a skip says that a program or a module is absent (`require_tool`, `pytest.importorskip`)."""
    return MISSING_TOOL in reason or "could not import" in reason


def _fail_instead(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and os.environ.get("CI") == "true" and isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        if is_missing_tool(reason):
            report.outcome = "failed"
            report.longrepr = f"{path}:{line}: {reason} (with CI=true everything the tests need must be installed)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_instead(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_instead(report)
    return report


@pytest.fixture
def require_tool() -> Callable[[str], str]:
    """require_tool("nm") → its path; without it the test is skipped, or fails when CI=true."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{MISSING_TOOL}: {name}")
        return path

    return find


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has measured nothing yet, and leaves the cache of whoever runs it alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ONCEOVER_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def built_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this tree."""
    folder = tmp_path_factory.mktemp("sdist")
    build = f"import setuptools.build_meta as b; b.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def built_wheel(built_sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, so that nothing of this tree that is not shipped can help."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(built_sdist) as archive:
        archive.extractall(folder, filter="data")
    source = next(folder.iterdir())
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*pip, str(source)], check=True)
    return next(folder.glob("*.whl"))
