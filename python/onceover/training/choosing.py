"""`backbone="auto"`: the best embedded backbone whose measured time on this machine stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onceover.detectors.detector import Progress, no_progress
from onceover.errors import UsageError
from onceover.runtime.graph import EMBEDDED, load_graph
from onceover.runtime.latency import LatencyMeter, Network
from onceover.runtime.session import EngineOptions
from onceover.types import Latency

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """Which backbone was taken, and why.

    latencies: of all candidates, best first, for an image of image_size (H, W); name is the first within budget_ms.
    remembered: those that an earlier run measured. problems: what is wrong with the memory, in words.
    """

    name: str
    budget_ms: float
    image_size: tuple[int, int]
    latencies: Mapping[str, Latency]
    remembered: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For the manifest. No times: the same choice gives the same bytes."""
        return {"backbone": self.name, "budget_ms": self.budget_ms}


def wants_choice(backbone: str | Path | bytes, budget_ms: float | None) -> bool:
    """Whether a backbone is to be chosen; UsageError where the name and the budget do not belong together."""
    automatic = isinstance(backbone, str) and backbone == AUTO
    if automatic and budget_ms is None:
        raise UsageError("backbone 'auto' takes the best one within a time: give the budget, e.g. --budget-ms 10")
    if budget_ms is not None and not automatic:
        raise UsageError("a budget chooses among the embedded backbones: give --backbone auto with --budget-ms")
    if budget_ms is not None and not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(f"the budget is {budget_ms} ms; give milliseconds per image above 0")
    return automatic


def choose_backbone(
    budget_ms: float,
    image_size: tuple[int, int],
    engine: str | EngineOptions = "onnxruntime",
    threads: int = 1,
    progress: Progress = no_progress,
) -> Choice:
    """The first of the embedded backbones, which are listed best first, whose median time is at most `budget_ms`.

    The time is that of preparing an image of `image_size` (H, W) and of running the network; scoring comes on top and
    depends on the memory bank. Raises UsageError when none is fast enough, and what `LatencyMeter` raises.
    """
    meter = LatencyMeter(engine, threads, image_size)
    networks = [Network.of_graph(name, *load_graph(name)) for name in EMBEDDED]
    remembered = {network.name: meter.known_network(network) for network in networks}
    missing = [network for network in networks if remembered[network.name] is None]
    measured = meter.measure(missing, progress) if missing else {}
    latencies = {name: found or measured[name] for name, found in remembered.items()}
    if len(measured) < len(networks) and not _within(budget_ms, latencies):
        latencies = measured = meter.measure(networks, progress)  # the machine may have been busy then
    fitting = _within(budget_ms, latencies)
    if not fitting:
        raise UsageError(_nothing_fits(budget_ms, meter, latencies))
    earlier = tuple(name for name in latencies if name not in measured)
    return Choice(fitting[0], budget_ms, image_size, latencies, earlier, tuple(meter.problems))


def _within(budget_ms: float, latencies: Mapping[str, Latency]) -> list[str]:
    return [name for name, latency in latencies.items() if latency.median_ms <= budget_ms]


def _nothing_fits(budget_ms: float, meter: LatencyMeter, latencies: Mapping[str, Latency]) -> str:
    fastest = min(latencies, key=lambda name: latencies[name].median_ms)
    size = " × ".join(map(str, meter.image_size or ()))
    return (
        f"no embedded backbone takes at most {budget_ms:g} ms for an image of {size} on {meter.engine.name}, threads "
        f"{meter.threads}: the fastest, {fastest!r}, takes {latencies[fastest].median_ms:.1f} ms for network and "
        "preparation; allow more, try another --engine or more --threads, take smaller images, or give --backbone a "
        "network exported for a smaller input: `onceover export backbone NAME --weights FILE --height 192 --width 192`"
    )


__all__ = ["AUTO", "Choice", "choose_backbone", "wants_choice"]
