"""Latencies measured on this machine, kept in one JSON file of the user's cache folder.

The folder is $ONCEOVER_CACHE_DIR, else $XDG_CACHE_HOME/onceover, else ~/.cache/onceover. An entry is found by
everything its value depends on, so one of another machine, engine or onceover is never shown. Nothing here fails a
command: a file that cannot be read, or is damaged, counts as empty; one that cannot be written is a problem to tell.
Of two programs that write at once the later wins, and what is lost is measured again.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

from onceover import _core
from onceover.errors import OnceoverError
from onceover.runtime.session import EngineOptions, engine_library
from onceover.types import Latency

FILE_NAME = "latencies.json"
FORMAT = 1
MAX_ENTRIES = 1000  # the oldest go first: engines and versions that are no longer here
CPUINFO = Path("/proc/cpuinfo")

Key = Mapping[str, Any]  # JSON values


def cache_folder() -> Path | None:
    """Where the file lives; None where the user has no home."""
    if own := os.environ.get("ONCEOVER_CACHE_DIR"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the specification says to ignore a relative one
        return Path(shared) / "onceover"
    try:
        return Path.home() / ".cache" / "onceover"
    except RuntimeError:
        return None


def cpu_model() -> str:
    """What CPU and board call themselves, or else only the architecture."""
    fields = _cpuinfo()
    names = ("model name", "cpu model", "Model", "Hardware")  # on a Raspberry Pi the first says only "ARMv7 Processor"
    if told := [fields[name] for name in names if name in fields]:
        return ", ".join(told)
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        pass
    part = " ".join(fields[name] for name in ("CPU implementer", "CPU part", "CPU variant") if name in fields)
    return part or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """The fields that Linux tells of its first CPU, and of the board on ARM; empty elsewhere."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":")[::2] for line in lines]
    return {name.strip(): value.strip() for name, value in reversed(pairs) if value.strip()}


def conditions(engine: EngineOptions, threads: int) -> dict[str, Any]:
    """What a latency depends on besides network and image: this machine, the engine as it is set, this onceover.

    Loads the engine's library to ask its version. Raises what `engine_library` raises, and EngineError.
    """
    library = engine_library(engine.name, engine.library)
    version, _ = _core.describe_engine(engine.name, library)
    return {
        "cpu": cpu_model(),
        "isa": _core.isa(),
        "cores": os.cpu_count(),
        "engine": version,  # "onnxruntime 1.31.1"
        "library": library,  # two builds of one version need not be as fast
        "device": engine.device,
        "options": {str(name): str(value) for name, value in engine.options.items()},
        "threads": threads,
        "onceover": _core.__version__,
    }


class LatencyCache:
    """The file, read once. problems: what went wrong with it, in words for the user."""

    def __init__(self) -> None:
        folder = cache_folder()
        self.path = None if folder is None else folder / FILE_NAME
        self.problems: list[str] = []
        self._entries: dict[str, tuple[Key, Latency]] = {}
        self._read()

    def get(self, key: Key) -> Latency | None:
        """What was measured for exactly this key."""
        entry = self._entries.get(_text(key))
        return None if entry is None else entry[1]

    def put(self, key: Key, latency: Latency) -> None:
        """Remember; `save` writes it down."""
        self._entries.pop(_text(key), None)  # to be the newest
        self._entries[_text(key)] = (key, latency)

    def save(self) -> None:
        """Replace the file as a whole, or say in `problems` why not."""
        if self.path is None:
            self.problems.append("latencies are not kept: no home folder; set ONCEOVER_CACHE_DIR to a folder")
            return
        entries = list(self._entries.values())[-MAX_ENTRIES:]
        content = {"format": FORMAT, "entries": [{"key": key, **asdict(latency)} for key, latency in entries]}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _core.save_atomically(self.path, json.dumps(content, indent=1).encode())
        except (OSError, OnceoverError) as error:
            self.problems.append(
                f"{self.path}: latencies are not kept ({error}); set ONCEOVER_CACHE_DIR to a folder of yours"
            )

    def _read(self) -> None:
        if self.path is None:
            return
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            self.problems.append(f"{self.path}: cannot be read ({error.strerror}), so what was measured is not known")
            return
        except (ValueError, RecursionError):  # not JSON, not even text, or nested without end
            content = None
        entries = content.get("entries") if isinstance(content, dict) and content.get("format") == FORMAT else None
        read = [_read_entry(entry) for entry in entries] if isinstance(entries, list) else [None]
        for found in read:
            if found is not None:
                self.put(*found)
        if None in read:
            self.problems.append(f"{self.path}: is damaged; what it held is measured again when it is needed")


def _text(key: Key) -> str:
    """A key as something to look up."""
    return json.dumps(key, sort_keys=True)


def _read_entry(entry: Any) -> tuple[Key, Latency] | None:
    """An entry as `save` writes it; None for anything else."""
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), dict):
        return None
    median, p90, runs = (entry.get(name) for name in ("median_ms", "p90_ms", "runs"))
    if not (_is_time(median) and _is_time(p90) and type(runs) is int and runs > 0):
        return None
    return entry["key"], Latency(float(median), float(p90), runs)


def _is_time(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 < value < 1e9


__all__ = ["LatencyCache", "cache_folder", "conditions", "cpu_model"]
