"""Benchmarks are functions named bench_*; they need pytest-benchmark and are not part of `make test`."""

from __future__ import annotations


def pytest_configure(config: object) -> None:
    config.addinivalue_line("python_functions", "bench_*")  # type: ignore[attr-defined]
    config.addinivalue_line("python_files", "bench_*.py")  # type: ignore[attr-defined]
