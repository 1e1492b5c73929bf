"""onceover.metrics beside scikit-learn, MVTec's official computation, pyaupro, ADEval and anomalib, on one thread.

    python benchmarks/bench_metrics.py                       # everything; an hour, most of it spent in the peers
    python benchmarks/bench_metrics.py --sets s256 --peers adeval --rounds 3 --json build/metrics.json
    python benchmarks/bench_metrics.py --parts labels memory bad spro

compare: all pixel metrics of a set held in memory, float32 maps and 0/1 masks. Methods run in turn, A B C A B C …, and
every ratio is one of median CPU times over the rounds that both sides ran (wall time beside it). The first call of each
method warms up and is compared with ours. Where memory lacks, peers get an evenly spaced part of the set, and so does
ours. steps: update and compute. labels: connected components alone. memory: a fresh process, maps read one at a time.
bad: scores that are hard to count. spro: LOCO's saturated overlap. At the end, what was asked of us beside what is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anomaly_maps
import cv2
import metric_peers
import numpy as np
import pytest
from anomaly_maps import MapSet
from metric_peers import ADEVAL, OFFICIAL, OURS, PEERS, SKLEARN, Peer, Values
from peers import one_thread
from pytest_benchmark.fixture import BenchmarkFixture
from reporting import Claim, Ledger, machine, wide_console

from onceover import metrics

ROUNDS = 5
SLOW_ROUNDS, SLOW_S = 3, 10.0  # a call that takes longer than SLOW_S is timed in fewer rounds
MB = 1e6

# times faster than these, from the acceptance of issue 4; "official" alone from specs/pro_metrics.md, section 8
FASTER: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "official + sklearn's three": ((OFFICIAL, *SKLEARN), {"screw": 80}),
    "sklearn's three": (SKLEARN, {"screw": 60, "s256": 40}),
    "official": ((OFFICIAL,), {"screw": 20, "s256": 15, "bottle": 10}),
    **{name: ((name,), {"screw": 2, "s256": 1.5, "bottle": 1.2}) for name in ADEVAL},
    "pyaupro": (("pyaupro",), {}),
    "anomalib": (("anomalib",), {}),
}
FIXED_BYTES = 8_000_000  # of a state, whatever is in it (docs/metrics.md)
PEAK_MB = {"screw": 64}
LABELS_FASTER, SPRO_NS, BAD_FACTOR = 5.0, 19.0, 3.0

Calls = dict[str, Callable[[], Any]]
Samples = dict[str, list[tuple[float, float]]]  # (CPU, wall) seconds of each round


# --- timing ---


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU and wall seconds; a call that works in other threads is refused, as their time would be missing."""
    before = time.thread_time(), time.process_time(), time.perf_counter()
    result = call()
    thread, process, wall = time.thread_time(), time.process_time(), time.perf_counter()
    thread, process, wall = thread - before[0], process - before[1], wall - before[2]
    if process > 1.2 * thread + 1e-3:
        raise RuntimeError(f"{thread:.3f} s in its thread, {process:.3f} s in all; it must run in one")
    return result, thread, wall


def interleave(calls: Calls, rounds: int, slow: frozenset[str] = frozenset()) -> Samples:
    samples: Samples = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn < SLOW_ROUNDS or name not in slow:
                samples[name].append(timed(call)[1:])
    return samples


def median(samples: Samples, *names: str, rounds: int | None = None, wall: bool = False) -> float:
    """Median over rounds of the sum of these methods."""
    count = rounds or min(len(samples[name]) for name in names)
    return float(np.median([sum(samples[name][turn][wall] for name in names) for turn in range(count)]))


def times_faster(samples: Samples, names: tuple[str, ...]) -> float:
    """Of ours, over the rounds that all of them ran."""
    rounds = min(len(samples[name]) for name in (*names, OURS))
    return median(samples, *names, rounds=rounds) / median(samples, OURS, rounds=rounds)


# --- parts ---


def compare(bench: Ledger, maps: MapSet, peers: list[Peer]) -> None:
    """Agreement and time; peers that need more memory than there is get a part of the set."""
    if not maps.one_shape:
        for peer in [peer for peer in peers if peer.one_shape]:
            bench.skip(f"{peer.name} on {maps.name}", "it takes images of one size only")
        peers = [peer for peer in peers if not peer.one_shape]
    light, heavy = ([peer for peer in peers if (peer.bytes_per_pixel > 1) is many] for many in (False, True))
    count = _affordable(maps, heavy, bench.options.images)
    groups = [(maps, peers)]
    if count < len(maps):
        groups = [(maps, light), (maps.sample(count), heavy)]
    for part, members in groups:
        if members:
            _compare(bench, part, members, len(maps))


def _affordable(maps: MapSet, peers: list[Peer], asked: int | None) -> int:
    """How many images the hungriest peer can take with four fifths of the memory that is free now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    per_image = max((peer.bytes_per_pixel for peer in peers), default=0) * maps.pixels / len(maps)
    affordable = len(maps) if per_image == 0 else int((0.8 * free - 5 * maps.pixels) / per_image)
    return max(1, min(affordable, asked or len(maps), len(maps)))


def _compare(bench: Ledger, maps: MapSet, peers: list[Peer], of_images: int) -> None:
    calls, values, slow = agreement(maps, peers, bench)
    samples = interleave(calls, bench.options.rounds, slow)
    rows = []
    for name in calls:
        cpu = median(samples, name)
        rows.append(
            {
                "method": name,
                "CPU s": cpu,
                "wall s": median(samples, name, wall=True),
                "runs": len(samples[name]),
                "ns/px": cpu / maps.pixels * 1e9,
                "ours ×": None if name == OURS else times_faster(samples, (name,)),
                **_differences(name, values, peers),
            }
        )
    share = f"{len(maps)} images" if len(maps) == of_images else f"{len(maps)} of {of_images} images, evenly spaced"
    label = maps.name if len(maps) == of_images else f"{maps.name} {len(maps)}/{of_images}"
    title = f"{maps.name}: {share}, {maps.pixels / 1e6:.1f} Mpx, {maps.masks.mean():.2%} anomalous; Δ: peer − ours"
    bench.table("compare", title, rows)
    found = ", ".join(f"{key} {value:.6f}" for key, value in values[OURS].items())
    bench.console.print(f"  ours: {found}", highlight=False)
    bench.records.append({"part": "values", "set": label, **values[OURS]})
    for what, (names, targets) in FASTER.items():
        if all(name in samples for name in names):
            bench.claims.append(Claim(f"× {what}", label, times_faster(samples, names), "×", targets.get(maps.name)))


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
        if _within(peer, values) == "NO":
            bench.disagreements.append(f"{peer.name} on {maps.name}: {_differences(peer.name, values, peers)}")
    return calls, values, frozenset(name for name in calls if walls[name] > SLOW_S)


def _within(peer: Peer, values: dict[str, Values]) -> str:
    if peer.tolerance is None:
        return "inexact"
    worst = max(abs(value - values[OURS][key]) for key, value in values[peer.name].items() if key != "f1_threshold")
    return f"≤ {peer.tolerance:.0e}" if worst <= peer.tolerance else "NO"


def _differences(name: str, values: dict[str, Values], peers: list[Peer]) -> dict[str, Any]:
    """Peer minus ours for every metric it gives; F1 thresholds must be equal floats where scores do not tie."""
    shown = {"Δ AUPRO": "aupro@0.3", "Δ .05": "aupro@0.05", "Δ AUROC": "auroc", "Δ AP": "ap", "Δ F1": "f1_max"}
    found, mine = values[name], values[OURS]
    row: dict[str, Any] = {
        column: f"{found[key] - mine[key]:.0e}" if name != OURS and key in found else None
        for column, key in shown.items()
    }
    row["within"] = next((_within(peer, values) for peer in peers if peer.name == name), None)
    return row


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
        rows = [{"method": peer, **_differences(peer, values, exact)} for peer in compared if peer != OURS]
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


# --- command ---


def single_thread() -> None:
    one_thread()
    cv2.setNumThreads(1)


@pytest.mark.parametrize("name", ["s256", *anomaly_maps.REAL])
def bench_segmentation_metrics(benchmark: BenchmarkFixture, name: str) -> None:
    """Ours alone; the comparison is a script, as the peers take minutes."""
    if reason := anomaly_maps.missing(name):
        pytest.skip(reason)
    single_thread()
    maps = anomaly_maps.mapped(name)
    maps = maps.sample(len(maps))
    benchmark.extra_info.update(machine=machine(["numpy"]), megapixels=maps.pixels / 1e6)
    benchmark.pedantic(metric_peers.ours(maps), rounds=3, warmup_rounds=1)


PARTS = ("compare", "steps", "labels", "memory", "bad", "spro")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*anomaly_maps.NAMES, "real"]
    parser.add_argument("--sets", nargs="+", choices=names, default=["screw", "bottle", "s256", "real"])
    families = metric_peers.FAMILIES
    parser.add_argument("--peers", nargs="*", choices=families, default=list(families), help="default: all; none: ours")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS}; slow peers run at most {SLOW_ROUNDS}")
    parser.add_argument("--images", type=int, help="compare exact peers on this many images of each set")
    parser.add_argument("--json", type=Path, help="also write what was measured here")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    expanded = [name for asked in options.sets for name in (anomaly_maps.REAL if asked == "real" else [asked])]
    options.sets = list(dict.fromkeys(expanded))
    return options


def _peers(bench: Ledger) -> list[Peer]:
    chosen = [peer for peer in PEERS if peer.family in bench.options.peers]
    absent = {peer.distribution for peer in chosen if metric_peers.installed(peer.distribution) is None}
    for distribution in sorted(absent):
        bench.skip(distribution, "not installed; `make bench` installs it")
    return [peer for peer in chosen if peer.distribution not in absent]


def _run(bench: Ledger, peers: list[Peer]) -> None:
    options = bench.options
    sets = []
    for name in options.sets:
        if reason := anomaly_maps.missing(name):
            bench.skip(name, reason)
        else:
            sets.append(name)
    chosen = set(options.parts)
    for name in sets if chosen & {"compare", "steps", "labels"} else []:
        maps = anomaly_maps.mapped(name)
        maps = maps.sample(len(maps))
        if "compare" in chosen:
            compare(bench, maps, peers)
        if "steps" in chosen:
            steps(bench, maps)
        if "labels" in chosen:
            labels(bench, maps)
        del maps
    if "labels" in chosen:
        labels(bench, noise_masks(), target=None)
    if "memory" in chosen:
        memory(bench, list(dict.fromkeys((*sets, *anomaly_maps.BAD))), options.peers)
    if "bad" in chosen:
        bad(bench, next((name for name in sets if name not in anomaly_maps.BAD), "s256"), peers)
    if "spro" in chosen:
        spro(bench)


def main() -> None:
    options = _parse()
    console = wide_console()
    bench = Ledger(options, console)
    single_thread()
    peers = _peers(bench)
    bench.machine = machine(["numpy", "opencv-python-headless", *dict.fromkeys(peer.distribution for peer in peers)])
    console.print(bench.machine, highlight=False)
    _run(bench, peers)
    bench.conclude()
    if bench.disagreements:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
