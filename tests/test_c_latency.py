"""The latency histogram of the C session: what onceover adds to a frame, over many frames and after idle pauses.

Slow, and printed: nothing passes or fails by time, which belongs to the machine and its load.
"""

from __future__ import annotations

import re
import subprocess

import pytest
from c_library import built

QUANTILES = re.compile(r"first ([\d.]+) us, p50 ([\d.]+), p99 ([\d.]+), p99\.99 ([\d.]+), max ([\d.]+) us")


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "pause_ms"), [(100_000, 0), (300, 10), (100, 100), (20, 1000)])
def test_the_latency_histogram_is_complete(frames: int, pause_ms: int, capfd: pytest.CaptureFixture[str]) -> None:
    package, program = built("host.onceover"), built("session_latency")
    done = subprocess.run([program, package, str(frames), str(pause_ms)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with capfd.disabled():
        print("\n" + done.stdout.splitlines()[0])
    match = QUANTILES.search(done.stdout)
    assert match is not None
    _, *rising = map(float, match.groups())
    assert rising == sorted(rising)
