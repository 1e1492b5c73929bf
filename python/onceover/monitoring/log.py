"""The log of inspected parts: one JSON object per line, appended; what `inspect --log` writes and `monitor` reads.

A line with "log" names the package and what its p-values are of; the lines after it are parts, in order.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onceover import _core
from onceover.errors import InputError, OutputError
from onceover.monitoring.monitor import Calibrated
from onceover.runtime.package import PackageFile
from onceover.types import DECISIONS, Decision, Image, Verdict

LOG_VERSION = 1
Progress = Callable[[str, int, int], None]
_REPORT_EVERY = 1000  # lines


@dataclass(frozen=True, slots=True)  # there are millions of them
class LoggedPart:
    """One inspected part. brightness, sharpness: of its image, None when not measured. time: ISO 8601, or None."""

    image: str
    decision: Decision
    score: float
    p_value: float
    package: str
    brightness: float | None = None
    sharpness: float | None = None
    time: str | None = None


@dataclass
class PackageLog:
    """The parts of one package, in order. calibrated: None when no line says it."""

    id: str
    name: str = ""
    calibrated: Calibrated | None = None
    parts: list[LoggedPart] = field(default_factory=list)


class InspectionLog:
    """Appends to a log; a line is written at once, so that a power cut tears the last one at most."""

    def __init__(self, path: str | os.PathLike[str], package: PackageFile) -> None:
        """Open or begin a log for parts of a package. A torn last line is cut off. Raises OutputError."""
        self.path = Path(path)
        self._package = package.id
        try:
            self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - until close
            is_file = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            last = self._mend() if is_file else None  # of a pipe or a device nothing is left to be mended
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        if last == package.id:  # it is going on
            return
        calibrated = Calibrated.of(package)
        self._write(
            {
                "log": LOG_VERSION, "package": package.id, "name": str(package.manifest.get("name", "")),
                "calibration_parts": calibrated.parts, "accepted_cells": calibrated.accepted_cells,
            }
        )  # fmt: skip

    def append(self, name: str, verdict: Verdict, image: Image, color: str = "rgb", time: str | None = None) -> None:
        """One part, its image measured here. time: ISO 8601. Raises OutputError."""
        brightness, sharpness = _core.measure_image(image, color)
        line = {
            "image": name, "decision": verdict.decision, "score": verdict.score, "p_value": verdict.p_value,
            "brightness": brightness, "sharpness": sharpness, "package": self._package,
        }  # fmt: skip
        self._write({"time": time, **line} if time is not None else line)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> InspectionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mend(self) -> object:
        """End a last line that a power cut left without its newline: kept if it is whole, else cut off. → the package
        of the last line, None when there is none."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - 65536))
        *whole, last = self._file.read(65536).split(b"\n")  # a device would never end
        if last and _record(last) is None:
            self._file.truncate(size - len(last))
        elif last:
            self._file.write(b"\n")
            whole.append(last)
        return (_record(whole[-1]) or {}).get("package") if whole else None

    def _write(self, line: dict[str, Any]) -> None:
        rest = json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        try:
            while rest:  # a disk that is nearly full takes what it has room for, and refuses only what comes then
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}; make room, then go on") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True)
class Log:
    """A whole log. torn: its last line is incomplete and was left out."""

    packages: tuple[PackageLog, ...]  # in the order they appear
    torn: bool


def read_log(path: str | os.PathLike[str], progress: Progress | None = None) -> Log:
    """Every part of a log, by package. progress: in megabytes, of a long one.

    Raises InputError: unreadable, or a line that is no record, with its number.
    """
    packages: dict[str, PackageLog] = {}
    torn = False
    try:
        with open(path, "rb") as file:
            megabytes = math.ceil(os.fstat(file.fileno()).st_size / 1e6)
            done = number = 0
            for number, line in enumerate(file, 1):
                done += len(line)
                if progress is not None and number % _REPORT_EVERY == 0:
                    progress("reading", min(int(done / 1e6), megabytes), megabytes)
                torn = not _read_line(line, f"{path}, line {number}", packages)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if progress is not None and number >= _REPORT_EVERY:
        progress("reading", megabytes, megabytes)
    return Log(tuple(log for log in packages.values() if log.parts), torn)


def _read_line(line: bytes, where: str, packages: dict[str, PackageLog]) -> bool:
    """Take its record, if there is one; → False for one that was being written."""
    if not line.strip():
        return True
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        if not line.endswith(b"\n"):  # the last one
            return False
        raise InputError(f"{where}: no JSON; this log was changed or damaged, delete that line") from None
    _take(record, where, packages)
    return True


def _take(record: Any, where: str, packages: dict[str, PackageLog]) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON {type(record).__name__}, expected an object")
    package = record.get("package")
    if not (isinstance(package, str) and len(package) == 64 and set(package) <= set("0123456789abcdef")):
        raise InputError(f"{where}: 'package' is {package!r}, expected the 64 hex digits of a package id")
    log = packages.setdefault(package, PackageLog(package))
    if "log" not in record:
        log.parts.append(_part(record, log.id, where))
        return
    if record["log"] != LOG_VERSION:
        raise InputError(f"{where}: a log of version {record['log']!r}, this onceover reads {LOG_VERSION}")
    log.name = str(record.get("name", ""))
    log.calibrated = Calibrated(
        _count(record, "calibration_parts", where),
        _count(record, "accepted_cells", where),
    )


def _part(record: dict[str, Any], package: str, where: str) -> LoggedPart:
    decision = next((known for known in DECISIONS if known == record.get("decision")), None)
    if decision is None:
        raise InputError(f"{where}: 'decision' is {record.get('decision')!r}, expected one of {', '.join(DECISIONS)}")
    score, p_value, brightness, sharpness = _numbers(record, where)
    if score is None or p_value is None:
        raise InputError(f"{where}: 'score' and 'p_value' must be there")
    time = record.get("time")
    return LoggedPart(
        image=str(record.get("image", "")),
        decision=decision,
        score=score,
        p_value=p_value,
        package=package,  # one text for all of them
        brightness=brightness,
        sharpness=sharpness,
        time=None if time is None else str(time),
    )


def _numbers(record: dict[str, Any], where: str) -> Iterator[float | None]:
    for key in ("score", "p_value", "brightness", "sharpness"):
        value = record.get(key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not is_number:
            raise InputError(f"{where}: {key!r} is {value!r}, expected a finite number")
        yield None if value is None else float(value)


def _count(record: dict[str, Any], key: str, where: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise InputError(f"{where}: {key!r} is {value!r}, expected a whole number from 0")
    return value


__all__ = ["InspectionLog", "Log", "LoggedPart", "PackageLog", "read_log"]
