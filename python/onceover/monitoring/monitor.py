"""DriftMonitor: one update per inspected part → alarms. Everything is computed in csrc/monitor, in fixed memory."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onceover import _core
from onceover.errors import InputError
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import PackageFile, open_package, require_one_product
from onceover.types import Decision, Image, Verdict

DEFAULT_RUN_LENGTH = 10_000  # parts
DEFAULT_BATCH = 100  # parts


@dataclass(frozen=True)
class ChartText:
    """title: what is watched. advice: what to look at when it alarms."""

    title: str
    advice: str


CHARTS: dict[str, ChartText] = {
    "score_ewma": ChartText(
        "scores, slow drift",
        "accepted parts score otherwise than they did: compare pictures of then and now; a new material lot or tool, "
        "dirt, light or position; if the parts are good, fit or calibrate again with some of them",
    ),
    "score_cusum": ChartText(
        "scores, a shift",
        "accepted parts score otherwise than they did, and at once: what changed at that part? Lot, tool, fixture, "
        "camera settings",
    ),
    "p_values": ChartText(
        "scores against calibration",
        "accepted parts do not score as the calibration parts did: the false-alarm rate no longer holds; calibrate "
        "again with parts of today",
    ),
    "brightness": ChartText("brightness of images", "look at the lamp, its supply, exposure, and stray light"),
    "sharpness": ChartText("sharpness of images", "clean the lens; check focus, distance, and for vibration"),
    "rejected": ChartText(
        "rejected parts per batch",
        "more: look at some of them, real defects or a changed picture? Fewer: does a part known to be bad still fail?",
    ),
}


@dataclass(frozen=True)
class ChartState:
    """One chart now. value: None before the first part (or whole batch). lower, upper: its limits, None for none.

    parts: how many it has taken. alarm_part: the first part beyond a limit, counted over all parts from 1.
    """

    name: str
    parts: int
    alarm_part: int | None
    value: float | None
    lower: float | None
    upper: float | None

    @property
    def title(self) -> str:
        return CHARTS[self.name].title

    @property
    def advice(self) -> str:
        return CHARTS[self.name].advice

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Calibrated:
    """What p-values are of: `parts` calibration parts; an accepted score has one of `accepted_cells` ranks in them."""

    parts: int = 0
    accepted_cells: int = 0

    @classmethod
    def of(cls, package: PackageFile) -> Calibrated:
        # Each product has scores of its own.
        require_one_product(package, "a drift monitor", "log each product as inspected with its own package")
        return cls(*_core.monitored_package(package.core))


class DriftMonitor:
    """Watches the parts of one package; for one thread at a time."""

    def __init__(self, core: _core.Monitor) -> None:
        self._core = core

    @classmethod
    def of(
        cls,
        package: Inspector | PackageFile | str | os.PathLike[str],
        average_run_length: float = DEFAULT_RUN_LENGTH,
        batch: int = DEFAULT_BATCH,
        reject_rate: float | None = None,
    ) -> DriftMonitor:
        """A new monitor for a package, by path, open, or of an inspector.

        average_run_length: parts between false alarms of all charts together, 100 to 1e6. batch: parts per point of
        the chart of rejected parts, 10 to 10000. reject_rate: their share when all is well; None: learned.
        Raises UsageError for options out of range, and what open_package raises.
        """
        if isinstance(package, Inspector):
            package = package.package
        opened = package if isinstance(package, PackageFile) else open_package(package)
        return cls.with_calibration(opened.id, Calibrated.of(opened), average_run_length, batch, reject_rate)

    @classmethod
    def with_calibration(
        cls,
        package_id: str,
        calibrated: Calibrated,
        average_run_length: float = DEFAULT_RUN_LENGTH,
        batch: int = DEFAULT_BATCH,
        reject_rate: float | None = None,
    ) -> DriftMonitor:
        """The same where the package is not at hand: from the id (64 hex digits) and numbers of a log."""
        return cls(
            _core.Monitor(
                package_id=package_id,
                calibration_parts=calibrated.parts,
                accepted_cells=calibrated.accepted_cells,
                run_length=average_run_length,
                batch=batch,
                reject_rate=reject_rate or 0.0,
            )
        )

    def update(
        self, verdict: Verdict, image: Image | str | os.PathLike[str] | None = None, color: str = "rgb"
    ) -> list[ChartState]:
        """Take one inspected part, in order → the charts whose alarm begins with it. image: the array or path that was
        inspected; None leaves the charts of images as they are. color: as for `Inspector.inspect`.
        Raises InputError for a verdict of another package or an image that cannot be used."""
        if image is not None and not isinstance(image, np.ndarray):
            from onceover.images import read_image

            image, color = read_image(image), "rgb"
        brightness, sharpness = (None, None) if image is None else _core.measure_image(image, color)
        return self.update_measured(verdict.decision, verdict.score, verdict.p_value, brightness, sharpness)

    def update_measured(
        self,
        decision: Decision,
        score: float,
        p_value: float,
        brightness: float | None = None,
        sharpness: float | None = None,
    ) -> list[ChartState]:
        """The same from numbers, as a log holds them; None: not measured."""
        begun = self._core.update(decision, score, p_value, brightness, sharpness)
        return [chart for chart in self.charts if chart.name in begun] if begun else []

    @property
    def charts(self) -> tuple[ChartState, ...]:
        return tuple(
            ChartState(name, parts, alarm or None, _known(value), _known(lower), _known(upper))
            for name, (parts, alarm, value, lower, upper) in self._core.states().items()
        )

    @property
    def alarms(self) -> list[ChartState]:
        """The charts in alarm; an alarm lasts until restart."""
        return [chart for chart in self.charts if chart.alarm_part is not None]

    @property
    def parts(self) -> int:
        """How many were taken."""
        return self._core.parts

    @property
    def package_id(self) -> str:
        return self._core.package_id

    @property
    def average_run_length(self) -> float:
        return self._core.run_length

    def restart(self, keep_baseline: bool = True) -> None:
        """End all alarms. keep_baseline: False when the line has changed for good (a new lamp), and the next parts are
        what others are compared with."""
        self._core.restart(keep_baseline)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything, atomically: a power cut leaves the file of before or of now. Raises OutputError."""
        _core.save_atomically(os.fspath(path), self._core.to_bytes())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], package: Inspector | PackageFile | str | os.PathLike[str] | None = None
    ) -> DriftMonitor:
        """Go on where `save` was. package: refuse the state of another one.

        Raises InputError for a file that cannot be read, is damaged, or of another package; UnsupportedPackageError
        for another version.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            core = _core.Monitor.from_bytes(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if package is not None:
            opened = package.package if isinstance(package, Inspector) else package
            wanted = opened if isinstance(opened, PackageFile) else open_package(opened)
            if core.package_id != wanted.id:
                raise InputError(
                    f"{path}: watched package {core.package_id[:16]}, expected {wanted.id[:16]} of {wanted.path}; "
                    "begin with a new monitor"
                )
        return cls(core)


def _known(value: float) -> float | None:
    return None if value != value else value


__all__ = ["CHARTS", "DEFAULT_BATCH", "DEFAULT_RUN_LENGTH", "Calibrated", "ChartState", "DriftMonitor"]
