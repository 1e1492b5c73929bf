"""`onceover list backbones`: what each costs, whose its weights are, and how fast it is on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onceover import registry
from onceover.cli.commands import engine_options
from onceover.cli.output import Output, number
from onceover.errors import EngineError, MissingExtraError, UsageError, unknown_name
from onceover.types import GraphSpec, Latency

if TYPE_CHECKING:
    from onceover.runtime.latency import LatencyMeter, Network

DEFAULT_SIZE = 256
SIZES = (16, 4096)  # one cell of the coarsest stage … what a graph may say
MEASURE = "onceover list backbones --measure"

Row = dict[str, Any]


def add_measuring(parser: argparse.ArgumentParser, add_engine: Callable[[argparse.ArgumentParser], None]) -> None:
    """The options of `list backbones`; add_engine: parser._add_engine."""
    parser.add_argument(
        "--measure",
        nargs="*",
        metavar="NAME",
        help="of backbones: measure these now, or all that can be, and remember it (without torch: the embedded ones)",
    )
    parser.add_argument(
        "--size", type=int, default=DEFAULT_SIZE, help=f"of backbones: input side to measure (default: {DEFAULT_SIZE})"
    )
    add_engine(parser)


def check_measuring(options: argparse.Namespace) -> None:
    """UsageError for options of `list backbones` beside another table, where they would do nothing."""
    told = (options.engine, options.threads, options.device, options.engine_option, options.size)
    others = (options.measure, options.engine_cache, options.engine_library)
    asked = told != ("onnxruntime", 1, "", [], DEFAULT_SIZE) or any(other is not None for other in others)
    if asked and options.what != "backbones":
        raise UsageError("--measure, --size and what sets the engine are for `onceover list backbones`")
    if not SIZES[0] <= options.size <= SIZES[1]:
        raise UsageError(f"--size is {options.size}; give a side from {SIZES[0]} to {SIZES[1]} pixels")


class BackboneTable:
    """One call of the command: what is embedded, and what is measured or remembered under its options."""

    def __init__(self, options: argparse.Namespace, output: Output) -> None:
        from onceover.runtime.graph import EMBEDDED, load_graph
        from onceover.runtime.latency import LatencyMeter

        self.output, self.size, self.measure = output, (options.size, options.size), options.measure
        self.embedded = {name: load_graph(name) for name in EMBEDDED}  # best first
        self.names = list(dict.fromkeys((*self.embedded, *registry.BACKBONES)))
        self.meter: LatencyMeter = LatencyMeter(engine_options(options), options.threads)

    def rows(self) -> list[Row]:
        """The embedded ones first, best first; latency: None where it is not known."""
        found = self._remembered() if self.measure is None else {**self._remembered(), **self._measured()}
        for problem in self.meter.problems:
            self.output.warn(problem)
        return [self._row(name, found.get(name)) for name in self.names]

    def show(self, rows: Sequence[Row]) -> None:
        """The table, and what its dashes mean."""
        engine = self.meter.conditions["engine"] if any(row["latency"] for row in rows) else self.meter.engine.name
        threads = f"{self.meter.threads} thread{'s' if self.meter.threads > 1 else ''}"
        where = f"{engine}, {threads}" + (f", {self.meter.engine.device}" if self.meter.engine.device else "")
        self.output.table(
            f"backbones: MACs at 256 × 256, ms at {self.size[0]} × {self.size[1]} ({where})",
            ("name", "params M ", "MACs M ", "weights", "license", "ms "),
            [_cells(row) for row in rows],
        )
        self.output.say("ms: preparation and network of one image here, median; scoring comes on top")
        if not all(row["latency"] for row in rows):
            self.output.say(f"-: not measured yet; `{MEASURE}` does, where torch is")
            self.output.say("installed also those without weights, with random ones: the time is the same")

    def _row(self, name: str, latency: Latency | None) -> Row:
        spec = self.embedded[name][1] if name in self.embedded else None
        cost = registry.COSTS.get(name)
        return {
            "name": name,
            "parameters": None if cost is None else cost.parameters,
            "macs": None if cost is None else cost.macs,
            "weights": "your own: --weights" if spec is None else "embedded",
            "license": "" if spec is None else spec.weights.get("license", ""),
            "needs": "torch, to export" if spec is None else "nothing",
            "card": None if spec is None else weights_card(spec),
            "latency": None if latency is None else self._latency(name, latency),
        }

    def _latency(self, name: str, latency: Latency) -> Row:
        times = {"median_ms": latency.median_ms, "p90_ms": latency.p90_ms, "runs": latency.runs}
        random = not self._identity(name).startswith("sha256")
        return {**times, "size": self.size[0], "random_weights": random, "measured_on": self.meter.conditions}

    def _identity(self, name: str) -> str:
        """What its latency is remembered by: the embedded graph where it has this size, else the architecture."""
        from onceover.runtime.latency import Network

        graph, spec = self.embedded.get(name, (b"", None))
        if spec is not None and (spec.preprocessing.height, spec.preprocessing.width) == self.size:
            return Network.of_graph(name, graph, spec).identity
        return f"untrained {name}"

    def _remembered(self) -> dict[str, Latency]:
        try:
            known = {name: self.meter.known(self._identity(name), self.size) for name in self.names}
        except (EngineError, MissingExtraError) as error:  # the table is worth showing all the same
            if self.measure is None:
                self.output.warn(f"no times: {error}")
            return {}
        return {name: latency for name, latency in known.items() if latency is not None}

    def _measured(self) -> dict[str, Latency]:
        from onceover.runtime.latency import Network

        wanted = dict.fromkeys(self.measure or self.names)
        for name in wanted:
            if name not in self.names:
                raise unknown_name("backbone", name, self.names)
        first = next(iter(self.embedded))
        self.meter.check(Network.of_graph(first, *self.embedded[first]))
        with self.output.progress() as progress:
            networks = []
            for done, name in enumerate(wanted):
                progress("preparing", done, len(wanted), name)
                networks.append(self._network(name))
            progress("preparing", len(wanted), len(wanted))
            return self.meter.measure([network for network in networks if network is not None], progress)

    def _network(self, name: str) -> Network | None:
        """To be measured: the embedded graph, or one with random weights; None without torch, unless asked by name."""
        from onceover.runtime.graph import read_graph_spec
        from onceover.runtime.latency import Network

        identity = self._identity(name)
        if identity.startswith("sha256"):
            return Network.of_graph(name, *self.embedded[name])
        try:
            registry.load("export target", "onnx", registry.EXPORT_TARGETS)  # says what is missing without torch
            from onceover.export.to_onnx import untrained

            graph = untrained(name, *self.size)
        except MissingExtraError:
            if self.measure:
                raise
            return None
        return Network(name, identity, graph, read_graph_spec(graph, name))


def weights_card(spec: GraphSpec) -> dict[str, Any]:
    """The weights card of a graph, with the normalization that the graph uses."""
    pixels = spec.preprocessing
    return {**spec.weights, "normalization": {"mean": list(pixels.mean), "std": list(pixels.std)}}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    parameters, macs, latency = row["parameters"], row["macs"], row["latency"]
    return (
        row["name"],
        "-" if parameters is None else number(parameters / 1e6, 2),
        "-" if macs is None else number(macs / 1e6, 0),
        row["weights"].partition(":")[0],
        row["license"],
        "-" if latency is None else number(latency["median_ms"], 1),
    )


__all__ = ["BackboneTable", "add_measuring", "check_measuring"]
