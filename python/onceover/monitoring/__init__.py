"""Has the line drifted? The monitor of csrc/monitor, the log of inspected parts, its charts (docs/monitoring.md)."""
