"""`onceover list`: everything with a name, and the weights card of what is embedded."""

from __future__ import annotations

import argparse
from typing import Any

from onceover import _core, registry
from onceover.cli.output import Output, card_rows
from onceover.errors import unknown_name
from onceover.types import GraphSpec

LISTINGS = ("backbones", "detectors", "targets", "layouts", "engines", "isas")


def run_list(options: argparse.Namespace, output: Output) -> int:
    if options.what is not None and options.what not in LISTINGS:
        raise unknown_name("listing", options.what, LISTINGS)
    listing = _listing()
    chosen = {options.what: listing[options.what]} if options.what else listing
    for name, rows in chosen.items():
        columns = tuple(column for column in (rows[0] if rows else ("name",)) if column != "card")
        output.table(name, columns, [tuple(str(row[column]) for column in columns) for row in rows])
        for row in rows:
            if row.get("card"):
                output.table(f"weights card of {row['name']}", ("", ""), card_rows(row["card"]))
    output.object(chosen)
    return 0


def _card(spec: GraphSpec) -> dict[str, Any]:
    """The weights card of a graph, with the normalization that the graph uses."""
    pixels = spec.preprocessing
    return {**spec.weights, "normalization": {"mean": list(pixels.mean), "std": list(pixels.std)}}


def _listing() -> dict[str, list[dict[str, Any]]]:
    """Everything with a name, as tables."""
    from onceover.runtime.graph import EMBEDDED, load_graph
    from onceover.runtime.session import available_engines

    embedded = {name: load_graph(name)[1] for name in EMBEDDED}
    backbones = [
        {
            "name": name,
            "weights": "embedded" if name in embedded else "your own: --weights",
            "license": embedded[name].weights.get("license", "") if name in embedded else "",
            "needs": "nothing" if name in embedded else "torch, to export",
            "card": _card(embedded[name]) if name in embedded else None,
        }
        for name in sorted({*registry.BACKBONES, *EMBEDDED})
    ]
    active = _core.isa()
    return {
        "backbones": backbones,
        "detectors": [{"name": name} for name in registry.DETECTORS],
        "targets": [{"name": name} for name in registry.EXPORT_TARGETS],
        "layouts": [
            {"name": name, "expects": registry.load("layout", name, registry.LAYOUTS).expects}
            for name in registry.LAYOUTS
        ],
        "engines": [
            {
                "name": e.name,
                "version": e.version or "",
                "devices": ", ".join(e.devices),
                "state": e.problem or "ready",
            }
            for e in available_engines()
        ],
        "isas": [
            {"name": name, "state": "active" if name == active else "available"} for name in _core.available_isas()
        ],
    }
