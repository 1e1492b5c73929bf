"""The programs of docs/neighbors.md run in order and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bank_cases import float64_results, wrong_results

from onceover import MemoryBank

PAGE = Path(__file__).resolve().parents[1] / "docs" / "neighbors.md"


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    rows, queries = names["rows"], names["queries"]
    expected = float64_results(queries, rows, 5)
    assert not wrong_results((names["distances"], names["numbers"]), expected)
    exec(blocks[1], names)
    bank = names["bank"]
    assert isinstance(bank, MemoryBank)
    assert bank.shape == (5190, 128)
    assert names["old"].tolist() == [*range(5000), *range(5010, 5200)]
    assert names["graph"].shape == (5190, 9)
    assert names["graph"][:, 0].tolist() == list(range(5190))
    np.testing.assert_array_equal(MemoryBank.open(tmp_path / "rows.bank").rows()[:5000], rows)
    exec(blocks[2], names)
    first = MemoryBank.build(rows)
    assert not wrong_results(names["kneighbors"](first, queries, 5), expected)
    squared, numbers = names["flat_l2"](first, queries, 5)
    np.testing.assert_array_equal(numbers, expected[1])
    np.testing.assert_allclose(squared, expected[0].astype(np.float64) ** 2, rtol=1e-6)
