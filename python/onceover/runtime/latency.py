"""How long one image takes on this machine: preparation and network, by the code that every session runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter, process_time
from typing import Any

import numpy as np

from onceover import _core
from onceover.runtime.assemble import config_of
from onceover.runtime.latency_cache import LatencyCache, conditions
from onceover.runtime.session import EngineOptions
from onceover.types import GraphSpec, Image, Latency

WARM_UP = 3  # runs of each network before any is timed: engines allocate, and choose kernels, in the first ones
ROUNDS = 12  # in which every network has its turn, so that a busy moment of the machine hits all alike
TIMED_RUNS = 2  # in a turn, after one that brings the network back into the caches of the CPU

BUSY = 0.8  # of the wall time, in which a CPU that nobody else uses has worked for us

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Network:
    """A graph to be measured. identity: what its latency is remembered by."""

    name: str
    identity: str
    graph: bytes = field(repr=False)
    spec: GraphSpec

    @classmethod
    def of_graph(cls, name: str, graph: bytes, spec: GraphSpec) -> Network:
        """A network that is known by its bytes."""
        return cls(name, f"sha256 {hashlib.sha256(graph).hexdigest()}", graph, spec)


class LatencyMeter:
    """Measures networks under one setting of one engine, and remembers what earlier calls measured.

    image_size: (H, W) of the images that are prepared, None for the size of the network's input, which is the fastest.
    problems: what is wrong with the memory, in words. Methods raise what `EngineOptions.resolve` raises, and
    EngineError.
    """

    def __init__(
        self, engine: str | EngineOptions = "onnxruntime", threads: int = 1, image_size: tuple[int, int] | None = None
    ) -> None:
        self.engine, self.threads, self.image_size = EngineOptions.of(engine), threads, image_size
        self.cache = LatencyCache()

    @property
    def problems(self) -> list[str]:
        return self.cache.problems

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """Machine, engine and version; what a number needs beside it."""
        return conditions(self.engine, self.threads)

    def known(self, identity: str, input_size: tuple[int, int]) -> Latency | None:
        """What was measured earlier for this network with an input of (H, W), under the same conditions."""
        return self.cache.get(self._key(identity, input_size))

    def known_network(self, network: Network) -> Latency | None:
        """The same for a graph at hand."""
        return self.known(network.identity, _input_size(network.spec))

    def check(self, network: Network) -> None:
        """Raise now what `measure` would raise after minutes of exporting."""
        assert self.conditions
        self._open(network, self.engine.resolve(self.threads))

    def measure(self, networks: Sequence[Network], progress: Progress) -> dict[str, Latency]:
        """name → wall time, measured now and remembered; the networks take turns.

        Other work on the machine makes it longer, and is told in `problems`.
        """
        engine = self.engine.resolve(self.threads)
        turns = {network.name: self._open(network, engine) for network in networks}
        times: dict[str, list[float]] = {name: [] for name in turns}
        progress("measuring", 0, ROUNDS)
        for run in turns.values():
            for _ in range(WARM_UP):
                run()
        wall, cpu = perf_counter(), process_time()
        for done in range(ROUNDS):
            for name, run in turns.items():
                run()
                times[name] += [_timed(run) for _ in range(TIMED_RUNS)]
            progress("measuring", done + 1, ROUNDS)
        self._check_quiet(perf_counter() - wall, process_time() - cpu)
        found = {name: _summary(each) for name, each in times.items()}
        for network in networks:
            self.cache.put(self._key(network.identity, _input_size(network.spec)), found[network.name])
        self.cache.save()
        return found

    def _check_quiet(self, wall_s: float, cpu_s: float) -> None:
        """Only of the CPU: whoever computes on another device waits for it."""
        if not self.engine.device and cpu_s < BUSY * wall_s:
            self.problems.append(
                f"this machine was busy with other work: a CPU was ours for {cpu_s / wall_s:.0%} of the time only, so "
                "these times are too long; measure again when it is quiet"
            )

    def _open(self, network: Network, engine: _core.EngineOptions) -> Callable[[], object]:
        embedder = _core.Embedder(config_of(network.spec, blur_sigma=0.0), network.graph, engine)
        image = _noise(self.image_size or _input_size(network.spec))
        return lambda: embedder.embed(image)

    def _key(self, identity: str, input_size: tuple[int, int]) -> dict[str, Any]:
        image = self.image_size or input_size
        return {**self.conditions, "network": identity, "input": list(input_size), "image": list(image)}


def _input_size(spec: GraphSpec) -> tuple[int, int]:
    return spec.preprocessing.height, spec.preprocessing.width


def _noise(size: tuple[int, int]) -> Image:
    """(H, W, 3) uint8: the time does not depend on what a picture shows."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def _timed(run: Callable[[], object]) -> float:
    """Milliseconds."""
    start = perf_counter()
    run()
    return 1e3 * (perf_counter() - start)


def _summary(times: Sequence[float]) -> Latency:
    median, p90 = (round(float(value), 3) for value in np.percentile(times, (50, 90)))
    return Latency(median, p90, len(times))


__all__ = ["LatencyMeter", "Network"]
