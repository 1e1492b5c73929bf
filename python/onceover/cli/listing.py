"""`onceover list`: everything with a name, and the weights card of what is embedded."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from onceover import _core, registry
from onceover.cli.backbones import BackboneTable, check_measuring
from onceover.cli.output import Output, card_rows
from onceover.errors import unknown_name

Row = dict[str, Any]


def run_list(options: argparse.Namespace, output: Output) -> int:
    if options.what is not None and options.what not in LISTINGS:
        raise unknown_name("listing", options.what, LISTINGS)
    check_measuring(options)
    chosen: dict[str, list[Row]] = {}
    for name in LISTINGS if options.what is None else (options.what,):
        if name == "backbones":
            chosen[name] = _show_backbones(options, output)
        else:
            rows = chosen[name] = TABLES[name]()
            columns = tuple(rows[0]) if rows else ("name",)
            output.table(name, columns, [tuple(str(row[column]) for column in columns) for row in rows])
    output.object(chosen)
    return 0


def _show_backbones(options: argparse.Namespace, output: Output) -> list[Row]:
    table = BackboneTable(options, output)
    rows = table.rows()
    table.show(rows)
    for row in rows:
        if row["card"]:
            output.table(f"weights card of {row['name']}", ("", ""), card_rows(row["card"]))
    return rows


def _engines() -> list[Row]:
    from onceover.runtime.session import available_engines

    return [
        {
            "name": engine.name,
            "version": engine.version or "",
            "devices": ", ".join(engine.devices),
            "state": engine.problem or "ready",
        }
        for engine in available_engines()
    ]


def _layouts() -> list[Row]:
    return [
        {"name": name, "expects": registry.load("layout", name, registry.LAYOUTS).expects} for name in registry.LAYOUTS
    ]


def _isas() -> list[Row]:
    active = _core.isa()
    return [{"name": name, "state": "active" if name == active else "available"} for name in _core.available_isas()]


TABLES: Mapping[str, Callable[[], list[Row]]] = {
    "detectors": lambda: [{"name": name} for name in registry.DETECTORS],
    "targets": lambda: [{"name": name} for name in registry.EXPORT_TARGETS],
    "layouts": _layouts,
    "engines": _engines,
    "isas": _isas,
}
LISTINGS = ("backbones", *TABLES)
