"""Benchmarks are functions named bench_* in bench_*.py; they are not part of `make test`.

`make bench` starts each file in processes of its own (run_suite.py). Started by hand, as in
`python -m pytest benchmarks/bench_image.py`, a file shows its tables at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from suite.recording import Recorder
from suite.tables import combine

RECORDER = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onceover benchmarks")
    group.addoption("--short", action="store_true", help="only check that everything runs")
    group.addoption("--record", type=Path, metavar="FILE", help="write what was recorded here, as JSON")
    group.addoption("--keep", type=Path, metavar="FOLDER", help="where passes of one run share what they make once")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_functions", "bench_*")
    config.addinivalue_line("python_files", "bench_*.py")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory(prefix="bench-") as own:
        yield _recorder(request.config, Path(own))


def _recorder(config: pytest.Config, own: Path | None = None) -> Recorder:
    """The one of this process. A skip before any benchmark asked for it makes one without a folder to be used."""
    if RECORDER not in config.stash:
        config.stash[RECORDER] = Recorder(config.getoption("--short"), Path())
    recorder = config.stash[RECORDER]
    if own is not None:
        recorder.folder = config.getoption("--keep") or own
    return recorder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report: Any = yield
    if report.skipped:
        _, _, reason = report.longrepr
        _recorder(item.config).skip(item.name, reason.removeprefix("Skipped: "))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("--record"):
        path.write_text(_recorder(session.config).to_json(), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--record"):
        return
    recorder = _recorder(config)
    for table in combine([json.loads(recorder.to_json())]):
        terminalreporter.write_line(f"\n{table.markdown()}")
    for what, why in recorder.skipped:
        terminalreporter.write_line(f"skipped: {what}: {why}")
