"""`backbone="auto"`: the best embedded backbone whose measured time on this machine stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onceover.detectors.detector import Progress, no_progress
from onceover.errors import UsageError
from onceover.images import read_image
from onceover.runtime.graph import EMBEDDED, load_graph, resize
from onceover.runtime.latency import LatencyMeter, Network
from onceover.runtime.session import EngineOptions
from onceover.training.input_size import SIZES, InputSize, choose_size
from onceover.types import GraphSpec, Latency

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


@dataclass(frozen=True)
class ChosenNetwork:
    """The graph that a fit will use; choice and input_size are None where they were given."""

    graph: bytes
    spec: GraphSpec
    choice: Choice | None
    input_size: InputSize | None


def choose_network(
    images: Sequence[Path],
    backbone: str | Path | bytes,
    budget_ms: float | None,
    size: int | None,
    engine: str | EngineOptions,
    threads: int,
    progress: Progress,
) -> ChosenNetwork:
    """The backbone, or the best one within the budget, at `size` or, where it is resizable, at what the images need.

    Raises UsageError for a size that it cannot have, and what `load_graph` and `choose_backbone` raise.
    """
    automatic = wants_choice(backbone, budget_ms)
    candidates = [load_graph(name) for name in (EMBEDDED if automatic else (backbone,))]
    resizable = [spec for _, spec in candidates if spec.resizable]
    sizes = [side for side in SIZES if all(_takes(spec, side) for spec in resizable)]
    input_size = choose_size(images, sizes, progress) if size is None and resizable and sizes else None
    side = size if input_size is None else input_size.side
    graph, spec = candidates[0]
    choice = None
    if automatic:
        assert budget_ms is not None
        height, width = read_image(images[0]).shape[:2]
        choice = choose_backbone(budget_ms, (height, width), engine, threads, progress, side)
        graph, spec = load_graph(choice.name)
    if size is not None or (side is not None and spec.resizable):
        graph, spec = resize(graph, spec, side or 0, side or 0)
    return ChosenNetwork(graph, spec, choice, input_size if spec.resizable else None)


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
    side: int | None = None,
) -> Choice:
    """The first of the embedded backbones, which are listed best first, whose median time is at most `budget_ms`.

    The time is that of preparing an image of `image_size` (H, W) and of running the network; scoring comes on top and
    depends on the memory bank. side: of the input of those that are resizable; one that cannot have it is left out.

    Raises UsageError when none is fast enough, or none takes that size, and what `LatencyMeter` raises.
    """
    meter = LatencyMeter(engine, threads, image_size)
    networks = [Network.of_graph(name, *at) for name in EMBEDDED if (at := _at_size(name, side)) is not None]
    if not networks:
        raise UsageError(f"no embedded backbone takes an input size of {side}; give another --size, or none")
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


def _takes(spec: GraphSpec, side: int) -> bool:
    return side in spec.sides if spec.sides else side % spec.resizable == 0


def _at_size(name: str, side: int | None) -> tuple[bytes, GraphSpec] | None:
    graph, spec = load_graph(name)
    if side is None or not spec.resizable:
        return graph, spec
    return resize(graph, spec, side, side) if _takes(spec, side) else None


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
        + "".join(f" ({problem})" for problem in meter.problems)
    )


__all__ = ["AUTO", "Choice", "choose_backbone", "wants_choice"]
