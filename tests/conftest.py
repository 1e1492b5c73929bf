"""Rules for the whole suite: in CI (CI=true) a missing tool is a failure, not a skip; missing shared data stays a skip."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator

import pytest

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
