"""What bench_metrics.py measures beside the comparison: our steps, labeling, memory, hard scores, saturated overlap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anomaly_maps
import metric_peers
import numpy as np
from anomaly_maps import MapSet
from metric_agreement import agreement, differences
from metric_peers import OURS, Peer
from metric_timing import Calls, interleave, median, timed, times_faster
from reporting import Claim, Ledger

from onceover import metrics

MB = 1e6
FIXED_BYTES = 8_000_000  # of a state, whatever is in it (docs/metrics.md)
PEAK_MB = {"screw": 64}
LABELS_FASTER, SPRO_NS, BAD_FACTOR = 5.0, 19.0, 3.0


def steps(bench: Ledger, maps: MapSet) -> None:
    """Where our time goes."""
    spent: list[tuple[float, float]] = []
    for _ in range(bench.options.rounds + 1):
        accumulator = metrics.SegmentationMetrics(fpr_limits=metric_peers.LIMITS)

        def update(accumulator: Any = accumulator) -> None:
            for scores, mask in maps.images():
                accumulator.update(scores, mask)

        spent.append((timed(update)[1], timed(accumulator.compute)[1]))
    seconds = np.median(np.array(spent[1:]), axis=0)
    rows = [
        {"step": name, "CPU s": float(cpu), "ns/px": float(cpu) / maps.pixels * 1e9}
        for name, cpu in zip(("update", "compute", "both"), (*seconds, seconds.sum()), strict=True)
    ]
    bench.table("steps", f"{maps.name}: where our time goes", rows)
    bench.claims.append(Claim("update + compute", maps.name, rows[2]["ns/px"], "ns/px", None))


def labels(bench: Ledger, maps: MapSet, target: float | None = LABELS_FASTER) -> None:
    """Connected components of all masks of a set, regions and areas but no overlap."""
    masks = [mask for _, mask in maps.images()]
    found, absent = metric_peers.labelers()
    for reason in absent:
        bench.skip(f"labeling of {maps.name}", reason)
    calls: Calls = {name: (lambda count=count: sum(map(count, masks))) for name, count in found.items()}
    regions = {name: call() for name, call in calls.items()}
    samples = interleave(calls, bench.options.rounds)
    rows = [
        {
            "library": name,
            "ns/px": median(samples, name) / maps.pixels * 1e9,
            "ours ×": times_faster(samples, (name,)) if OURS in samples and name != OURS else None,
            "regions": regions[name],
        }
        for name in calls
    ]
    bench.table("labels", f"{maps.name}: connected components, 8-connected, {maps.pixels / 1e6:.1f} Mpx", rows)
    if len(set(regions.values())) > 1:
        bench.disagreements.append(f"regions of {maps.name}: {regions}")
    if OURS in samples:
        bench.claims.append(Claim("labeling, × cv2", maps.name, times_faster(samples, ("cv2",)), "×", target))


def noise_masks() -> MapSet:
    """Masks of independent pixels: as many runs and unions as there can be."""
    masks = (np.random.default_rng(6).random((4, 1024, 1024)) < 0.4).astype(np.uint8).ravel()
    return MapSet("noise masks", np.zeros(len(masks), np.float32), masks, np.array([(1024, 1024)] * 4))


def memory(bench: Ledger, names: list[str], families: list[str]) -> None:
    """Peak memory beyond one loaded map, each in a fresh process; for bad sets beside the bound on the state."""
    rows = []
    for name in names:
        maps = anomaly_maps.mapped(name)
        anomalous = int(maps.masks.sum())
        bound = (2 * (maps.pixels - anomalous) + 8 * anomalous + FIXED_BYTES) / MB
        for method in (OURS, *(["adeval accumulator"] if "adeval" in families else [])):
            argv = [sys.executable, str(Path(__file__).with_name("peak_memory.py")), name, method]
            run = subprocess.run(argv, capture_output=True, text=True)
            if run.returncode:
                lines = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
                bench.skip(f"memory of {method} on {name}", lines[-1])
                continue
            measured = json.loads(run.stdout)
            extra, state = measured["extra_bytes"] / MB, measured.get("state_bytes")
            is_ours = method == OURS
            rows.append(
                {
                    "set": name,
                    "method": method,
                    "extra peak MB": extra,
                    "state MB": state and state / MB,
                    "bound of the state MB": bound if is_ours else None,
                    "process before MB": measured["before_bytes"] / MB,
                }
            )
            if is_ours:
                bench.claims.append(Claim("extra peak memory", name, extra, "MB", PEAK_MB.get(name), at_least=False))
            if is_ours and name in anomaly_maps.BAD:
                what = "state, 2 B + 8 B per pixel + 8 MB"
                bench.claims.append(Claim(what, name, state / MB, "MB", bound, at_least=False))
    bench.table("memory", "peak memory, maps read one at a time", rows)


def bad(bench: Ledger, typical: str, peers: list[Peer]) -> None:
    """ns per pixel of scores that are hard to count, beside a typical set in the same rounds."""
    exact = [peer for peer in peers if peer.family in ("official", "sklearn")]
    sets = {name: anomaly_maps.mapped(name) for name in (typical, *anomaly_maps.BAD)}
    sets = {name: maps.sample(len(maps)) for name, maps in sets.items()}
    calls: Calls = {}
    for name, maps in sets.items():
        if name == typical:
            calls[name] = metric_peers.ours(maps)
            continue
        compared, values, _ = agreement(maps, exact, bench)
        calls[name] = compared[OURS]
        rows = [{"method": peer, **differences(peer, values, exact)} for peer in compared if peer != OURS]
        bench.table("bad", f"{name}: exact peers − ours", rows)
    samples = interleave(calls, bench.options.rounds)
    ns = {name: median(samples, name) / maps.pixels * 1e9 for name, maps in sets.items()}
    rows = [
        {"set": name, "Mpx": maps.pixels / 1e6, "ns/px": ns[name], "× typical": ns[name] / ns[typical]}
        for name, maps in sets.items()
    ]
    bench.table("bad", f"scores that are hard to count, beside {typical}", rows)
    for name in anomaly_maps.BAD:
        what = f"ns/px as multiple of {typical}"
        bench.claims.append(Claim(what, name, ns[name] / ns[typical], "×", BAD_FACTOR, at_least=False))


def spro(bench: Ledger) -> None:
    """update_channels and compute on 40 images of 256 × 256 with overlapping and scattered channels."""
    maps = anomaly_maps.mapped("s256").sample(40)
    rng = np.random.default_rng(7)
    images = []
    for scores, mask in maps.images():
        channels = anomaly_maps.channels(mask, rng)
        images.append((scores, channels, [metrics.saturation_area(int(c.sum()), 0.5, True) for c in channels]))

    def saturated() -> Any:
        accumulator = metrics.SegmentationMetrics(fpr_limits=(0.05, 0.3))
        for scores, channels, areas in images:
            if channels:
                accumulator.update_channels(scores, channels, areas)
            else:
                accumulator.update(scores)
        return accumulator.compute()

    found = saturated().auspro
    calls: Calls = {"sPRO, channels": saturated, "the same masks, no channels": metric_peers.ours(maps)}
    samples = interleave(calls, max(bench.options.rounds, 9))
    rows = [{"call": name, "ns/px": median(samples, name) / maps.pixels * 1e9} for name in calls]
    shown = ", ".join(f"{limit}: {value:.6f}" for limit, value in found.items())
    bench.table("spro", f"sPRO, 40 × 256 × 256, {sum(len(image[1]) for image in images)} channels; {shown}", rows)
    bench.claims.append(Claim("sPRO", "40 of s256", rows[0]["ns/px"], "ns/px", SPRO_NS, at_least=False))
