"""What else the machine did while something was measured. Linux tells it; elsewhere nothing is known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuTimes:
    """Seconds over all CPUs; `own`: of what was measured, told by who measures."""

    total: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    own: float = 0.0

    @staticmethod
    def now(own: float = 0.0) -> CpuTimes:
        """Since boot."""
        try:
            words = Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        except OSError:
            return CpuTimes(own=own)
        ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in words]
        return CpuTimes(sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7], own)

    def __sub__(self, other: CpuTimes) -> CpuTimes:
        return CpuTimes(
            self.total - other.total, self.busy - other.busy, self.stolen - other.stolen, self.own - other.own
        )

    def __add__(self, other: CpuTimes) -> CpuTimes:
        return self - (CpuTimes() - other)

    def __str__(self) -> str:
        """Quiet means the same as in csrc/measuring/summary.cpp."""
        if self.total <= 0:
            return "what else the machine did is not known"
        others, taken = max(0.0, self.busy - self.own) / self.total, self.stolen / self.total
        word = "quiet" if others <= 0.05 and taken <= 0.01 else "NOISY"
        return f"{word}: {100 * others:.0f} % of all CPU time by others, {100 * taken:.1f} % taken by the host"


__all__ = ["CpuTimes"]
