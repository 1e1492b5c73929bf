"""kill -9 in the middle of corrections: what was acknowledged is there; what was not, wholly or not at all."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bank_line import Line, copied, fit_line

from onceover import Corrections

WRITER = """
import sys, numpy as np, onceover
corrections = onceover.Corrections.open(sys.argv[1])
generator = np.random.default_rng(0)
while True:
    rows = generator.normal(size=(3, 4)).astype(np.float32)
    patches = np.arange(3, dtype=np.uint32)
    candidate = {"product": 0, "score": 2.0, "threshold": 1.0, "patches": patches, "rows": rows}
    number = corrections.core.propose(candidate, "", "", b"", 0)
    print(number, flush=True)
    corrections.confirm([number])
    print(number + 1, flush=True)
"""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("line"))


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    return copied(fitted, tmp_path)


def killed_writers(line: Line, kills: int) -> None:
    """Each writer goes on with the journal of those before it and is killed at a random moment."""
    generator = random.Random(3)
    known = 0
    for _ in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, line.package], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())  # it has begun
        time.sleep(generator.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].splitlines(keepends=True)
        acknowledged = max([acknowledged, *(int(said) for said in rest if said.endswith("\n"))])
        operations = Corrections.open(line.package).operations
        assert len(operations) in (acknowledged, acknowledged + 1)
        assert acknowledged > known
        known = len(operations)
        assert [each.type for each in operations[:2]] == ["propose", "confirm"]
        assert all(each.sequence == i + 1 for i, each in enumerate(operations))


def test_a_killed_process_loses_nothing_that_it_acknowledged(line: Line) -> None:
    killed_writers(line, 4)  # test_corrections.cpp kills twenty


@pytest.mark.slow
def test_two_hundred_killed_processes_lose_nothing_that_they_acknowledged(line: Line) -> None:
    killed_writers(line, 200)


FULL = """
import resource, sys, numpy as np, onceover
corrections = onceover.Corrections.open(sys.argv[1])
rows = np.zeros((1, 4), np.float32)
candidate = {"product": 0, "score": 2.0, "threshold": 1.0, "patches": np.zeros(1, np.uint32), "rows": rows}
corrections.core.propose(candidate, "first", "", b"", 0)
size = __import__("os").path.getsize(corrections.path)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    corrections.confirm([1])
except onceover.OutputError as error:
    print("refused", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert __import__("os").path.getsize(corrections.path) == size
assert len(corrections.operations) == 1
corrections.confirm([1], "again")
"""


@pytest.mark.parametrize("room", [0, 40, 95])  # nothing, half a record, all but its mark
def test_a_full_disk_refuses_the_operation_and_leaves_the_journal_as_it_was(line: Line, room: int) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FULL, line.package, str(room)], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("refused")
    assert "cannot write the journal" in told.stdout
    operations = Corrections.open(line.package).operations
    assert [each.type for each in operations] == ["propose", "confirm"]
    assert operations[1].text == "again"
