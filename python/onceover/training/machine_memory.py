"""How much memory this machine and its control groups leave a process, and how much a person allows."""

from __future__ import annotations

import ctypes
import math
import os
import re
from pathlib import Path

from onceover.errors import UsageError

SHARE = 0.75  # of what is free, where nothing else was said: the rest stays for others and for what is not foreseen

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_FALLBACK_RESIDENT = 200 << 20  # of a process where the system does not tell


def parse_size(size: int | str) -> int:
    """Bytes: 2GiB, 1500MB, 2G (decimal, as GB), 800000000. UsageError for anything else."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmg]i?)?b?\s*", str(size).lower())
    value = float(match[1]) * _UNITS[match[2] or ""] if match else 0.0
    if not (math.isfinite(value) and value >= 1):
        raise UsageError(f"{size!r} is no amount of memory; give a number with a unit, e.g. 2GiB, 1500MB or 2G")
    return int(value)


def resident_bytes(field: str = "VmRSS") -> int:
    """Of this process now; "VmHWM": at its peak."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return _FALLBACK_RESIDENT
    found = re.search(rf"^{field}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else _FALLBACK_RESIDENT


def return_freed_memory() -> None:
    """What was freed goes back to the system, where the C library can do that (glibc).

    It keeps up to some ten megabytes in hand for the next small arrays, which those that hold all patches do not use.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: of Windows
        return


def available_bytes(root: Path = Path("/")) -> int | None:
    """What this process may still take before others or a control group suffer; None where the system does not tell.

    root: of the file system that holds proc and sys/fs/cgroup.
    """
    free = [amount for amount in (_free(root), *_control_groups(root)) if amount is not None]
    return min(free) if free else None


def memory_limit(given: int | str | None) -> tuple[int | None, str]:
    """Bytes that the whole process may take, and where that comes from; None for no limit."""
    if given is not None:
        return parse_size(given), "as asked for"
    available = available_bytes()
    if available is None:
        return None, "this system does not tell what is free"
    return resident_bytes() + int(SHARE * available), f"{100 * SHARE:.0f} % of what is free here"


def _free(root: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        try:  # all of it, where a system tells no more
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if root == Path("/") else None
        except (OSError, ValueError):
            return None
    return int(found[1]) * 1024 if found else None


def _control_groups(root: Path) -> list[int]:
    """What each limited group above this process leaves; a file cache that can be dropped does not count as used."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        old = bool(controllers)  # version 1
        base = root / ("sys/fs/cgroup/memory" if old else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        group = base / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(base))):
            limit, used = (_number(folder / name) for name in names)
            if limit is None or used is None:  # "max": none; or not seen from inside a container
                continue
            left.append(max(0, limit - used + _droppable(folder / "memory.stat")))
    return left


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _droppable(file: Path) -> int:
    try:
        found = re.search(r"^(?:total_)?inactive_file (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


__all__ = ["available_bytes", "memory_limit", "parse_size", "resident_bytes", "return_freed_memory"]
