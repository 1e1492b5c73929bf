"""Whether the peers of bench_metrics.py compute what ours does."""

from __future__ import annotations

from typing import Any

import metric_peers
from anomaly_maps import MapSet
from metric_peers import OURS, Peer, Values
from metric_timing import SLOW_S, Calls, timed
from reporting import Ledger


def agreement(maps: MapSet, peers: list[Peer], bench: Ledger) -> tuple[Calls, dict[str, Values], frozenset[str]]:
    """One call of ours and of every peer: the calls, what they found, and which are slow."""
    calls: Calls = {OURS: metric_peers.ours(maps)}
    report, _, wall = timed(calls[OURS])
    values, walls = {OURS: metric_peers.read_ours(report)}, {OURS: wall}
    for peer in peers:
        try:
            call = peer.prepare(maps)
            result, _, walls[peer.name] = timed(call)
            values[peer.name] = peer.read(result)
        except Exception as error:  # a peer that fails is left out, whatever the reason
            bench.skip(f"{peer.name} on {maps.name}", f"{type(error).__name__}: {error}" if str(error) else repr(error))
            continue
        del result
        calls[peer.name] = call
        if within(peer, values) == "NO":
            bench.disagreements.append(f"{peer.name} on {maps.name}: {differences(peer.name, values, peers)}")
    return calls, values, frozenset(name for name in calls if walls[name] > SLOW_S)


def within(peer: Peer, values: dict[str, Values]) -> str:
    if peer.tolerance is None:
        return "inexact"
    worst = max(abs(value - values[OURS][key]) for key, value in values[peer.name].items() if key != "f1_threshold")
    return f"≤ {peer.tolerance:.0e}" if worst <= peer.tolerance else "NO"


def differences(name: str, values: dict[str, Values], peers: list[Peer]) -> dict[str, Any]:
    """Peer minus ours for every metric it gives; F1 thresholds must be equal floats where scores do not tie."""
    shown = {"Δ AUPRO": "aupro@0.3", "Δ .05": "aupro@0.05", "Δ AUROC": "auroc", "Δ AP": "ap", "Δ F1": "f1_max"}
    found, mine = values[name], values[OURS]
    row: dict[str, Any] = {
        column: f"{found[key] - mine[key]:.0e}" if name != OURS and key in found else None
        for column, key in shown.items()
    }
    row["within"] = next((within(peer, values) for peer in peers if peer.name == name), None)
    return row
