"""The programs of docs/metrics.md run and do what the page says."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reference
from metric_sets import loco_images
from tolerances import EXACT_METRIC

from onceover import metrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


def program(name: str) -> str:
    found = re.findall(rf"```python\n# run: {re.escape(name)}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_example_with_worker_processes_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "shards.py").write_text(program("shards.py"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "shards.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"AUPRO 0\.\d{6}\n", done.stdout)


def test_the_loco_protocol_of_the_page_is_the_mean_of_the_two_separate_sets() -> None:
    kinds = ["structural", "logical", "structural", "good"]
    test_set = [(kind, image.anomaly_map, image.masks) for kind, image in zip(kinds, loco_images(2), strict=True)]
    names: dict[str, Any] = {"metrics": metrics, "copy": copy, "test_set": test_set}
    exec(program("loco.py"), names)
    expected = 0.0
    for one in ("structural", "logical"):
        chosen = [(anomaly_map, channels) for kind, anomaly_map, channels in test_set if kind in ("good", one)]
        areas = [[max(1, int(0.5 * int((c > 0).sum()))) for c in channels] for _, channels in chosen]
        expected += reference.auspro([m for m, _ in chosen], [c for _, c in chosen], areas, 0.05) / 2
    assert names["auspro"] == pytest.approx(expected, abs=EXACT_METRIC, rel=0)


def test_every_name_of_the_page_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(re.findall(r"metrics\.([a-zA-Z_]+)\(", text)):
        assert name in metrics.__all__
    for name in set(re.findall(r"\bm\.([a-z_]+)\(", text)):
        assert callable(getattr(metrics.SegmentationMetrics, name))
    for name in set(re.findall(r"report\.([a-z_0-9]+)", text)):
        assert name in metrics.SegmentationReport.__dataclass_fields__
