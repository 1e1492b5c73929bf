"""One case of a benchmark, in a process of its own: nothing measured before it warms it up or counts as its memory.

`python -m onceover.measuring.case` reads a case as JSON from standard input and writes what it measured to standard
output; `onceover.measuring.bench` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

STARTED = time.perf_counter()  # before numpy, the core and an engine are loaded: the import is part of a cold start

# The same numbers as in csrc/tools/bench.cpp, so that both programs do the same.
WARM_UP = 10  # engines allocate, and choose kernels, in the first runs
AFTER_IDLE = ((0.5, 10), (5.0, 3))  # seconds asleep, and how often
MAX_SHOWN = 20_000  # runs whose times are handed over for a histogram


class Case(TypedDict):
    """What is measured. size: side of the input of a resizable network, None for the package's own."""

    package: str
    images: list[str]
    engine: str
    device: str
    engine_options: dict[str, str]
    engine_library: str | None
    threads: int
    size: int | None
    seconds: float
    rate_hz: float | None
    idle: bool
    compare: str | None


def measure(case: Case) -> dict[str, Any]:
    """Cold start, warm runs, runs after a pause, arrivals at a rate, memory. Raises the errors of onceover.errors."""
    from onceover import _core
    from onceover.images import read_image

    imported = time.perf_counter()
    images = [read_image(path) for path in case["images"]]
    loaded = time.perf_counter()
    session, cold = _open(case, case["package"], images[0])
    cold = {"import_ms": 1e3 * (imported - STARTED), **cold}
    found: dict[str, Any] = {
        "engine": session.engine_version,
        "isa": _core.isa(),
        "bank_rows": session.bank_rows,
        "memory_bytes": session.memory_bytes,
        "cold": cold,
        "image_sizes": sorted({f"{image.shape[1]}x{image.shape[0]}" for image in images}),
        "decode_ms": 1e3 * (loaded - imported) / len(images),
    }
    run = _in_turn(session, images)
    if case["compare"] is not None:
        other, _ = _open(case, case["compare"], images[0])
        found["compare"] = _compare(run, _in_turn(other, images), case["seconds"])
        return found
    for _ in range(WARM_UP):
        run()
    ((runs, summary),) = _core.measure_in_turn([run], case["seconds"])
    found["warm"] = json.loads(summary)
    found["warm_ms"] = [round(float(value) / 1e6, 4) for value in runs[-MAX_SHOWN:, 1]]
    found["after_idle"] = []
    for idle_s, count in AFTER_IDLE if case["idle"] else ():
        _, summary = _core.measure_after_idle(run, idle_s, count)
        found["after_idle"].append({"idle_s": idle_s, "latency": json.loads(summary)})
    if case["rate_hz"] is not None:
        _, summary = _core.measure_at_rate(run, case["rate_hz"], case["seconds"])
        found["at_rate"] = json.loads(summary)
    found["memory"] = json.loads(_core.describe_memory())
    return found


def _open(case: Case, path: str, image: Any) -> tuple[Any, dict[str, float]]:
    """A session and the milliseconds it took: open, create, first run."""
    from onceover import _core
    from onceover.measuring.variants import resized_package
    from onceover.runtime.package import member_name, open_package
    from onceover.runtime.session import EngineOptions, open_session

    engine = EngineOptions(case["engine"], case["device"], case["engine_options"], library=case["engine_library"])
    _drop_from_cache(path)
    times = [time.perf_counter()]
    package = open_package(path).core
    times.append(time.perf_counter())
    if case["size"] is not None:
        package = _core.Package.view(resized_package(package, case["size"]), path)
        times[-1] = times[0] = time.perf_counter()  # no such file exists: the opening is not measured
    session = open_session(package, engine, case["threads"])
    gates = {member_name("gate", number) for number in range(len(_core.read_products(package)))}
    if len(gates) > 1 and not gates <= {member["name"] for member in package.members}:
        session.select(0)  # products that are not told apart are inspected by name
    times.append(time.perf_counter())
    session.run(image)
    times.append(time.perf_counter())
    steps = ("open_ms", "create_ms", "first_run_ms")
    return session, {step: 1e3 * (end - start) for step, start, end in zip(steps, times[:-1], times[1:], strict=True)}


def _drop_from_cache(path: str) -> None:
    """As after a reboot: the file comes from the disk. Where the system keeps it nevertheless, it is merely warm."""
    if not hasattr(os, "posix_fadvise"):
        return
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _in_turn(session: Any, images: Sequence[Any]) -> Callable[[], Any]:
    """Inspects the next of the images at each call."""
    state = {"next": 0}

    def run() -> Any:
        state["next"] = (state["next"] + 1) % len(images)
        return session.run(images[state["next"]])

    return run


def _compare(ours: Callable[[], Any], other: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """A B A B …: both see the same moments of the machine."""
    from onceover import _core
    from onceover.measuring.comparing import TURN, ratio_of

    for run in (ours, other) * WARM_UP:
        run()
    (first, first_summary), (second, second_summary) = _core.measure_in_turn([ours, other], seconds, TURN)
    return {
        "a": json.loads(first_summary),
        "b": json.loads(second_summary),
        "ratio": ratio_of(first[:, 1], second[:, 1]),
    }


def main() -> int:
    from onceover.errors import OnceoverError

    case: Case = json.load(sys.stdin)
    try:
        result = measure(case)
    except OnceoverError as error:
        json.dump({"error": type(error).__name__, "message": str(error)}, sys.stdout)
        return 0
    json.dump(result, sys.stdout, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
