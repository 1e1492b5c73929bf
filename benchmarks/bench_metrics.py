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
from pathlib import Path

import anomaly_maps
import cv2
import metric_peers
import pytest
from anomaly_maps import MapSet
from machine_limits import machine_limits
from metric_agreement import agreement, differences
from metric_parts import bad, labels, memory, noise_masks, spro, steps
from metric_peers import ADEVAL, OFFICIAL, OURS, PEERS, SKLEARN, Peer
from metric_timing import SLOW_ROUNDS, Calls, interleave, median, times_faster
from peers import one_thread
from reporting import Claim, Ledger, machine, wide_console
from suite.recording import Cell, Measured, Recorder

FLOAT_BYTES = 4
ROUNDS = 5

# times faster than these, from the acceptance of issue 4; "official" alone from specs/pro_metrics.md, section 8
FASTER: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "official + sklearn's three": ((OFFICIAL, *SKLEARN), {"screw": 80}),
    "sklearn's three": (SKLEARN, {"screw": 60, "s256": 40}),
    "official": ((OFFICIAL,), {"screw": 20, "s256": 15, "bottle": 10}),
    **{name: ((name,), {"screw": 2, "s256": 1.5, "bottle": 1.2}) for name in ADEVAL},
    "pyaupro": (("pyaupro",), {}),
    "anomalib": (("anomalib",), {}),
}

# images of the sets that `make bench` takes, 2 to 3 Mpx each, and what it compares with
FEW = {"s256": 32, "bottle": 3, "screw": 3, "tile": 32}
COLUMNS = {
    "official": (OFFICIAL,),
    "sklearn's three": SKLEARN,
    "both, the same outputs": (OFFICIAL, *SKLEARN),
    "ADEval": ADEVAL[:1],
}
TITLE = "Pixel metrics (AUPRO 0.3 and 0.05, AUROC, AP, F1-max in one call), one thread, CPU time"
TITLE_LABELS = "Connected components of the same masks, one thread, CPU time"


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
                **differences(name, values, peers),
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


# --- command ---


def single_thread() -> None:
    one_thread()
    cv2.setNumThreads(1)


@pytest.mark.parametrize("name", FEW)
def bench_segmentation_metrics(record: Recorder, name: str) -> None:
    """A few images of each set beside the official code, scikit-learn and ADEval; the whole sets are the command's."""
    maps = few(record, name)
    single_thread()
    wanted = {peer for names in COLUMNS.values() for peer in names}
    absent, peers = [], []
    for peer in PEERS:
        if peer.name in wanted and (maps.one_shape or not peer.one_shape):
            (peers if metric_peers.installed(peer.distribution) else absent).append(peer)
    for distribution in dict.fromkeys(peer.distribution for peer in absent):
        record.skip(distribution, "not installed; `make bench` installs it")
    ledger = Ledger(argparse.Namespace(json=None), wide_console())
    calls, _, _ = agreement(maps, peers, ledger)
    assert not ledger.disagreements
    for skipped in ledger.records:
        record.skip(skipped["what"], skipped["why"])
    samples = interleave(calls, record.choose(ROUNDS, 1), frozenset(calls) - {OURS, *ADEVAL}, slow_rounds=1)
    own = median(samples, OURS)
    limit_s = maps.pixels * (FLOAT_BYTES + 1) / machine_limits().reading(maps.pixels * (FLOAT_BYTES + 1)) / 1e9
    case = f"{name}, {len(maps)} images, {maps.pixels / 1e6:.1f} Mpx"
    cells: dict[str, Cell] = {"ns/px": Measured(1e9 * own / maps.pixels), "of its limit": Measured(limit_s / own)}
    for what, names in COLUMNS.items():
        if set(names) <= set(samples):
            cells[f"× {what}"] = Measured(sum(median(samples, each) for each in names) / own)
    record.row(TITLE, case, cells)
    label(record, case, maps)


def label(record: Recorder, case: str, maps: MapSet) -> None:
    masks = [mask for _, mask in maps.images()]
    found, absent = metric_peers.labelers()
    for reason in absent:
        record.skip("labeling", reason)
    calls: Calls = {name: (lambda count=count: sum(map(count, masks))) for name, count in found.items()}
    regions = {name: call() for name, call in calls.items()}
    assert len(set(regions.values())) == 1, regions
    samples = interleave(calls, record.choose(ROUNDS, 1))
    own = median(samples, OURS)
    limit_s = maps.pixels / machine_limits().reading(maps.pixels) / 1e9
    cells: dict[str, Cell] = {"ns/px": Measured(1e9 * own / maps.pixels), "of its limit": Measured(limit_s / own)}
    peers = {f"× {name}": Measured(median(samples, name) / own) for name in calls if name != OURS}
    record.row(TITLE_LABELS, case, {**cells, **peers, "regions": regions[OURS]})


def few(record: Recorder, name: str) -> MapSet:
    """Drawn sets are drawn anew with fewer images, as the whole ones take minutes and gigabytes."""
    count = record.choose(FEW[name], 2)
    if name in anomaly_maps.SETS:
        path = record.once(f"{name}-{count}.npz", lambda path: anomaly_maps.save_few(name, count, path))
        return anomaly_maps.load_few(name, path)
    if reason := anomaly_maps.missing(name):
        pytest.skip(reason)
    if record.short:
        pytest.skip("short: drawn maps stand for it")
    return anomaly_maps.mapped(name).sample(count)


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
