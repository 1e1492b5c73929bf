"""`onceover bench`: cases in turn, each in a fresh process, and the verdict whether the machine was quiet enough."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from onceover import _core, errors
from onceover.errors import EngineError, InputError, UsageError
from onceover.measuring.case import AFTER_IDLE, Case
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.session import EngineOptions

MAX_IMAGES = 16  # that the runs go through in turn
LIBRARIES = ("numpy", "onnxruntime", "openvino", "opencv-python-headless")

OnCase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchPlan:
    """What to measure; every combination of packages, engines, threads and sizes is a case.

    seconds: of warm runs, and of arrivals, in each case. rate_hz: parts a second. sizes: sides of the input of
    resizable networks; empty: the packages' own. idle: also after pauses of 0.5 and 5 s (20 s in each case).
    """

    packages: Sequence[Path]
    images: Sequence[Path]
    engines: Sequence[EngineOptions] = (EngineOptions(),)
    threads: Sequence[int] = (1,)
    sizes: Sequence[int] = ()
    seconds: float = 10.0
    rate_hz: float | None = None
    idle: bool = True

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 3600:
            raise UsageError(f"seconds is {self.seconds:g}; give 0.1 to 3600")
        if self.rate_hz is not None and not 0.01 <= self.rate_hz <= 1e5:
            raise UsageError(f"rate is {self.rate_hz:g} parts a second; give 0.01 to 100,000")
        if any(not 1 <= count <= 1024 for count in self.threads):
            raise UsageError(f"threads are {', '.join(map(str, self.threads))}; give numbers from 1 to 1024")
        if not self.images:
            raise InputError("no image to measure with; give one, or a folder")

    def cases(self, compare: Path | None = None) -> Iterator[Case]:
        for package in self.packages:
            for engine in self.engines:
                for threads in self.threads:
                    for size in self.sizes or (None,):
                        yield Case(
                            package=str(package),
                            images=[str(path) for path in self.images[:MAX_IMAGES]],
                            engine=engine.name,
                            device=engine.device,
                            engine_options={str(key): str(value) for key, value in engine.options.items()},
                            engine_library=None if engine.library is None else os.fspath(engine.library),
                            threads=threads,
                            size=size,
                            seconds=self.seconds,
                            rate_hz=self.rate_hz,
                            idle=self.idle,
                            compare=None if compare is None else str(compare),
                        )

    def case_seconds(self) -> float:
        """About how long a case takes, without what opening the engine takes."""
        idle = sum(pause * count for pause, count in AFTER_IDLE) if self.idle else 0.0
        return self.seconds * (1 if self.rate_hz is None else 2) + idle


@dataclass(frozen=True)
class BenchReport:
    """machine_before, machine_after: as csrc/measuring/machine.h. results: one per case, in their order.

    Each result holds its case's facts (package, engine, threads, size, precision, …) and what case.py measured.
    """

    machine_before: dict[str, Any]
    machine_after: dict[str, Any]
    versions: dict[str, str]
    results: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def noise(self) -> list[str]:
        """Why these are not the machine's own times; empty: nothing speaks against them."""
        several = len(self.results) > 1
        said = []
        for i, result in enumerate(self.results):
            compare = result.get("compare", {})
            reasons: dict[str, None] = {}
            for summary in (result.get("warm"), compare.get("a")):  # both sides of a comparison saw the same
                reasons.update(dict.fromkeys(() if summary is None else summary["noise"]))
            said += [f"case {i + 1}: {reason}" if several else reason for reason in reasons]
        return said

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": self.machine_before,
            "machine_after": self.machine_after,
            "versions": self.versions,
            "clean": not self.noise,
            "noise": self.noise,
            "results": [{key: value for key, value in result.items() if key != "warm_ms"} for result in self.results],
        }


def run_bench(
    plan: BenchPlan, compare: Path | None = None, on_case: OnCase = lambda _name, _i, _n: None
) -> BenchReport:
    """Measure every case. compare: a second package, measured in turn with each of the plan's instead.

    on_case is told the case before it starts, its number from 0, and how many there are. Raises InputError,
    PackageError, EngineError, UsageError.
    """
    facts = {str(path): _facts(open_package(path)) for path in {*plan.packages, *([compare] if compare else [])}}
    cases = list(plan.cases(compare))
    before = json.loads(_core.describe_machine())
    results = []
    for i, case in enumerate(cases):
        on_case(_name_of(case), i, len(cases))
        told = facts[case["package"]]
        results.append({**told, **_settings(case), **_run_case(case)})
        if compare is not None:
            results[-1]["compared_with"] = facts[str(compare)]
    return BenchReport(before, json.loads(_core.describe_machine()), _versions(), tuple(results))


def _run_case(case: Case) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(case["threads"])}
    command = [sys.executable, "-m", "onceover.measuring.case"]
    start = time.perf_counter()
    done = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, env=environment, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(
            f"{_name_of(case)}: the measuring process ended with status {done.returncode}: {last}"
        ) from None
    if "error" in found:
        raise getattr(errors, found["error"])(found["message"])
    return {**found, "process_s": time.perf_counter() - start}


def _name_of(case: Case) -> str:
    size = "" if case["size"] is None else f", {case['size']} px"
    device = f" {case['device']}" if case["device"] else ""
    return f"{Path(case['package']).name}, {case['engine']}{device}, {case['threads']} thread(s){size}"


def _settings(case: Case) -> dict[str, Any]:
    return {
        "engine_name": case["engine"],
        "device": case["device"] or "CPU",
        "threads": case["threads"],
        "size": case["size"],
        "seconds": case["seconds"],
    }


def _facts(package: PackageFile) -> dict[str, Any]:
    config, manifest = _core.read_config(package.core), package.manifest
    backbone = manifest.get("backbone")
    exported = manifest.get("export")
    return {
        "package": package.path,
        "id": package.id,
        "package_bytes": package.size_bytes,
        "backbone": backbone.get("name") if isinstance(backbone, dict) else None,
        "precision": exported.get("precision", "float32") if isinstance(exported, dict) else "float32",
        "input": [config.height, config.width],
    }


def _versions() -> dict[str, str]:
    found = {"onceover": _core.__version__, "python": platform.python_version(), "isa": _core.isa()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["BenchPlan", "BenchReport", "run_bench"]
