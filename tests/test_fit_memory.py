"""What fit says it will cost, what it refuses, and the coreset from a stream that spares it holding all patches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import good_folder, tiny_options

from onceover import export
from onceover.cli import main
from onceover.detectors import BankSize, streaming
from onceover.detectors.patchcore import PatchCore
from onceover.errors import InputError, MemoryLimitError, UsageError
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.training import fit as fitting
from onceover.training import machine_memory
from onceover.training.adapter import LEARNING_MATRICES
from onceover.training.fit import FitPlan, fit
from onceover.training.machine_memory import available_bytes, memory_limit, parse_size, resident_bytes
from onceover.training.memory_plan import FitSize, MemoryPlan, Probe, over_limit, plan_memory
from onceover.training.refit import refit
from onceover.types import GraphSpec, Preprocessing

GIB = 1 << 30
INPUT = Preprocessing(256, 256, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
SPEC = GraphSpec("net", INPUT, grid_height=32, grid_width=32, embedding_dim=128, strides=(8, 16), weights={})
PROBE = Probe(base_bytes=150 << 20, image_s=0.01)


class Images:
    """A source of patches: images drawn from a random walk, so that late ones are unlike the first."""

    def __init__(self, count: int, patches: int, dim: int, drift: float = 0.0) -> None:
        rng = np.random.default_rng(5)
        start = rng.normal(size=(count, patches, dim))
        self.all = (start + drift * np.arange(count)[:, None, None]).astype(np.float32)
        self.image_count, self.patches, self.dim = count, patches, dim
        self.embedded: list[int] = []

    def embed(self, image: int) -> NDArray[np.float32]:
        self.embedded.append(image)
        return self.all[image]

    @property
    def flat(self) -> NDArray[np.float32]:
        return self.all.reshape(-1, self.dim)


def farthest(points: NDArray[np.float32], chosen: NDArray[np.int64]) -> float:
    """By definition, in float64: of any point to the nearest chosen one."""
    data = points.astype(np.float64)
    least = np.full(len(data), np.inf)
    for row in data[chosen]:
        least = np.minimum(least, ((data - row) ** 2).sum(axis=1))
    return float(np.sqrt(least.max()))


def streamed(images: Images, rows: int, sample: int, **settings: Any) -> PatchCore:
    detector = PatchCore(BankSize(rows=rows), **settings)
    detector.stream(images, sample)
    return detector


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_a_streaming_coreset_covers_nearly_as_tightly_as_the_plain_one(drift: float) -> None:
    images = Images(60, 64, 6, drift)
    plain = PatchCore(BankSize(rows=200))
    plain.fit(images.flat)
    detector = streamed(images, 200, sample=8)
    told = detector.describe()["covering_radius"]
    assert farthest(images.flat, detector.chosen) <= told * (1 + 1e-6)
    assert told <= 1.1 * plain.describe()["covering_radius"]
    assert len(set(detector.chosen.tolist())) == 200
    np.testing.assert_array_equal(detector.state()["memory_bank"], images.flat[detector.chosen])


def test_a_stream_embeds_every_image_once_and_the_same_stream_gives_the_same_bank() -> None:
    images = Images(30, 40, 48)
    first = streamed(images, 100, sample=4)
    assert sorted(images.embedded) == list(range(30))
    again = streamed(Images(30, 40, 48), 100, sample=4)
    for name, member in first.state().items():
        np.testing.assert_array_equal(member, again.state()[name])
    other = streamed(images, 100, sample=4, seed=1)
    assert other.chosen.tolist() != first.chosen.tolist()


def test_the_manifest_labels_a_streaming_coreset() -> None:
    images = Images(30, 40, 8)
    described = streamed(images, 100, sample=4).describe()
    assert (described["coreset"], described["sample_patches"]) == ("greedy, streaming", 160)
    detector = PatchCore(BankSize(rows=100))
    detector.fit(images.flat)
    assert set(described) - set(detector.describe()) == {"sample_patches"}
    assert detector.describe()["coreset"] == "greedy"


def test_random_and_given_patches_are_the_same_from_a_stream() -> None:
    images = Images(40, 25, 12)
    given = np.array([7, 999, 3, 500, 3], np.int64)
    for chosen in (None, given):
        held, passed = (PatchCore(BankSize(rows=50), coreset="random") for _ in range(2))
        if chosen is None:
            held.fit(images.flat)
        else:
            held.refit(images.flat, chosen)
        passed.stream(images, 1, chosen)
        assert passed.chosen.tolist() == held.chosen.tolist()
        for name, member in held.state().items():
            np.testing.assert_array_equal(member, passed.state()[name])
    with pytest.raises(InputError, match="chosen patches must be 0 to 999"):
        PatchCore().stream(images, 1, np.array([1000]))


def test_a_bank_of_equal_patches_is_streamed_too() -> None:
    images = Images(20, 30, 8)
    images.all[:] = images.all[0, 0]
    detector = streamed(images, 50, sample=3)
    assert len(detector.chosen) == 1
    assert farthest(images.flat, detector.chosen) == 0


def test_the_sample_is_spread_over_all_images() -> None:
    assert streaming.sample_images(100, 5).tolist() == [0, 25, 50, 74, 99]
    assert streaming.sample_images(3, 10).tolist() == [0, 1, 2]


def planned(images: int, rows: int, limit: int | None, greedy: bool = True) -> MemoryPlan:
    return plan_memory(SPEC, FitSize(images, images // 5, rows, 5_000_000, greedy), (limit, "as asked for"), PROBE)


def test_twenty_thousand_images_fit_in_two_gibibytes_as_a_stream() -> None:
    plan = planned(16_000, 10_000, 2 * GIB)
    assert plan.streaming
    assert plan.plain_bytes > 16_000 * 1024 * 128 * 4
    assert plan.peak_bytes <= 2 * GIB
    assert plan.sample_images == 256
    assert not planned(16_000, 10_000, None).streaming


def test_a_plan_grows_with_images_and_rows_and_holds_what_it_must() -> None:
    peaks = [planned(images, 1000, None).peak_bytes for images in (100, 200, 400)]
    per_image = 1024 * (128 * 4 + 32 * 4 + 17)
    assert peaks[2] - peaks[1] == pytest.approx(200 * per_image, rel=0.02)
    assert peaks[1] - peaks[0] == pytest.approx(100 * per_image, rel=0.02)
    assert planned(100, 50_000, None).peak_bytes > planned(100, 1000, None).peak_bytes + 49_000 * 512
    seconds = [planned(images, 1000, None).seconds for images in (100, 1000)]
    assert seconds[1] > 1200 * PROBE.image_s > seconds[0]


def test_a_plan_counts_what_reading_an_image_takes() -> None:
    size, frame = FitSize(80, 20, 1000, 5_000_000, adapting_images=40), 40 << 20
    small, large = (plan_memory(SPEC, size, (None, ""), replace(PROBE, frame_bytes=each)) for each in (0, frame))
    assert large.peak_bytes == small.peak_bytes + frame
    folds = plan_memory(SPEC, replace(size, folds=40), (None, ""), replace(PROBE, open_s=0.5))
    assert folds.seconds > small.seconds + 20  # an engine is opened for each


def test_a_refusal_names_large_images_where_it_is_these() -> None:
    for frame, named in ((3 << 20, False), (300 << 20, True)):
        with pytest.raises(MemoryLimitError) as caught:
            plan_memory(SPEC, FitSize(20, 0, 100, 5_000_000), (100 << 20, ""), replace(PROBE, frame_bytes=frame))
        assert str(caught.value).endswith(", or smaller images") == named


def test_a_plan_counts_the_matrices_that_adapt_wide_embeddings() -> None:
    wide, matrix = replace(SPEC, embedding_dim=1536), 4 * 1536**2  # 9 MB, in float32
    size = FitSize(40, 0, 100, 5_000_000, image_patches=16, adapting_images=40)
    peaks = [plan_memory(wide, replace(size, folds=folds), (None, ""), PROBE).peak_bytes for folds in (0, 20, 40)]
    assert [later - peaks[0] for later in peaks] == [0, 20 * matrix, 40 * matrix]  # all folds' are held at once
    taken = plan_memory(replace(wide, embedding_dim=3072), size, (None, ""), PROBE).peak_bytes - PROBE.base_bytes
    assert taken > (1 + 2 * LEARNING_MATRICES) * 4 * 3072**2  # one is held, and float64 ones while it is learned


def test_a_plan_of_an_adapted_bank_counts_its_matrix_and_learning_it_only_where_that_is_done() -> None:
    wide, matrix = replace(SPEC, embedding_dim=1536), 4 * 1536**2
    size = FitSize(40, 0, 100, 5_000_000, image_patches=16)
    plain, there, learned = (
        plan_memory(wide, each, (None, ""), PROBE)
        for each in (size, replace(size, adapted=True), replace(size, adapting_images=40, adapted=True))
    )
    assert plain.peak_bytes + matrix <= there.peak_bytes <= plain.peak_bytes + 5 * matrix  # copies of the package
    assert learned.peak_bytes > there.peak_bytes + LEARNING_MATRICES * matrix
    assert there.seconds == plain.seconds < learned.seconds


def test_learning_takes_longer_the_wider_patches_are_and_more_than_in_proportion() -> None:
    size = FitSize(40, 0, 100, 5_000_000, image_patches=16, adapting_images=40)
    taken = []
    for dim in (128, 1536):
        spec = replace(SPEC, embedding_dim=dim)
        plans = (plan_memory(spec, each, (None, ""), PROBE) for each in (size, replace(size, folds=20)))
        taken.append(-float(np.subtract(*(plan.seconds for plan in plans))))
    assert taken[1] > 20 * taken[0]


def test_a_smaller_limit_takes_a_smaller_sample_and_then_refuses_with_the_number() -> None:
    samples = [planned(16_000, 2000, limit << 20).sample_images for limit in (500, 320, 290)]
    assert samples == sorted(samples, reverse=True)
    assert samples[0] == 256 > samples[-1]
    refusal = r"needs about \d+ MB of memory; the limit is 200 MB \(as asked for\)"
    with pytest.raises(MemoryLimitError, match=refusal) as caught:
        planned(16_000, 2000, 200_000_000)
    assert "--max-memory" in str(caught.value)
    assert "--bank-rows" in str(caught.value)
    needed = int(str(caught.value).split("about ")[1].split(" MB")[0]) * 1_000_000
    assert planned(16_000, 2000, needed + 1_000_000).streaming


@pytest.mark.parametrize(
    ("needed", "limit", "said"),
    [
        (412_000_000, 200_000_000, "about 412 MB of memory; the limit is 200 MB (free)"),
        (1_009_000_000, 997_000_000, "about 1009 MB of memory; the limit is 997 MB (free)"),
        (1_640_000_000, 1_610_000_000, "about 1640 MB of memory; the limit is 1610 MB (free)"),
        (17_300_000_000, 16_000_000_000, "about 17.3 GB of memory; the limit is 16.0 GB (free)"),
    ],
)
def test_a_refusal_tells_sizes_that_can_be_compared(needed: int, limit: int, said: str) -> None:
    assert over_limit(needed, limit, "free") == said


def test_what_is_no_larger_than_its_sample_is_not_streamed() -> None:
    with pytest.raises(MemoryLimitError):
        planned(20, 10_000, 170 << 20)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 * GIB), ("2G", 2 * 10**9), ("1500MB", 15 * 10**8), ("0.5 GiB", GIB // 2), ("800000000", 8 * 10**8),
     ("64k", 64_000), ("64KiB", 65536), (123, 123), ("1.5gb", 15 * 10**8)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "two", "-1GB", "0", "1TBs", "1e9", "nan", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no amount of memory"):
        parse_size(text)


def machine(root: Path, free_kb: int, cgroup: str, files: dict[str, str]) -> Path:
    meminfo = f"MemTotal: 9 kB\nMemAvailable: {free_kb} kB\n"
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_control_group_leaves_less_than_the_machine(tmp_path: Path) -> None:
    two = machine(tmp_path / "two", 1000, "0::/line/fit\n", {
        "sys/fs/cgroup/line/fit/memory.max": "max\n", "sys/fs/cgroup/line/fit/memory.current": "5\n",
        "sys/fs/cgroup/line/memory.max": "500000\n", "sys/fs/cgroup/line/memory.current": "300000\n",
        "sys/fs/cgroup/line/memory.stat": "anon 1\ninactive_file 100000\n",
    })  # fmt: skip
    assert available_bytes(two) == 500000 - 300000 + 100000
    one = machine(tmp_path / "one", 1000, "4:cpu:/a\n3:memory:/a\n", {
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "400000\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "390000\n",
    })  # fmt: skip
    assert available_bytes(one) == 10000
    assert available_bytes(machine(tmp_path / "free", 1000, "0::/\n", {})) == 1_024_000
    assert available_bytes(tmp_path / "nothing") is None


def test_without_a_limit_a_share_of_what_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 1000 << 20)
    limit, source = memory_limit(None)
    assert limit is not None
    assert (750 << 20) < limit < (750 << 20) + 2 * resident_bytes()
    assert source == "75 % of what is free here"
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: None)
    assert memory_limit(None)[0] is None
    assert memory_limit("1GiB") == (GIB, "as asked for")


def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans as on a machine where only a stream fits."""

    def plan(*arguments: Any) -> MemoryPlan:
        return replace(plan_memory(*arguments), streaming=True, sample_images=4)

    monkeypatch.setattr(fitting, "plan_memory", plan)


def test_a_package_fitted_from_a_stream_says_so_and_inspects_as_its_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = good_folder(tmp_path / "plate", 40)
    plain = fit(folder, tiny_options(bank=BankSize(rows=64)))
    tight(monkeypatch)
    stages: list[str] = []
    parts = fit(folder, tiny_options(bank=BankSize(rows=64)), lambda stage, _done, _total: stages.append(stage))
    assert {"patch embeddings", "coreset", "calibration"} <= set(stages)
    detector = parts.manifest["detector"]
    assert (detector["coreset"], detector["sample_patches"]) == ("greedy, streaming", 4 * 24)
    assert parts.manifest["data"] == plain.manifest["data"]  # the hashes are in order although the sample came first
    assert parts.calibration.n == plain.calibration.n
    export.package(parts, tmp_path / "plate.onceover")
    assert Inspector.open(tmp_path / "plate.onceover").verify()["largest_relative_difference"] == 0
    assert parts.bank_source is not None
    assert len(parts.bank_source) == len(parts.state["memory_bank"]) == 64

    again = refit(open_package(tmp_path / "plate.onceover"), parts.graph, folder)
    np.testing.assert_array_equal(again.state["memory_bank"], parts.state["memory_bank"])
    assert again.manifest["detector"]["coreset"] == "greedy, streaming"


def test_the_command_line_tells_the_plan_and_refuses_what_cannot_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = good_folder(tmp_path / "plate", 40)
    (tmp_path / "tiny.onnx").write_bytes(tiny_options().backbone)  # type: ignore[arg-type]
    words = ["fit", str(folder), "-o", str(tmp_path / "p.onceover"), "--backbone", str(tmp_path / "tiny.onnx")]
    assert main([*words, "--json", "--max-memory", "8GiB"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["limit_bytes"], plan["streaming"]) == (8 * GIB, False)
    assert 0 < plan["peak_bytes"] < 8 * GIB
    assert main(words) == 0
    assert "75 % of what is free" in capsys.readouterr().out
    assert main([*words, "--max-memory", "1MB"]) == 3
    assert "the limit is 1 MB" in capsys.readouterr().err
    assert main([*words, "--max-memory", "much"]) == 2


def test_the_plan_counts_what_this_process_holds_already(tmp_path: Path) -> None:
    plans: list[FitPlan] = []
    before = resident_bytes()
    fit(good_folder(tmp_path / "plate", 40), tiny_options(), on_plan=plans.append)
    memory = plans[0].memory
    assert memory is not None
    assert memory.peak_bytes > before > 10 << 20
    assert memory.limit_bytes is not None
    assert memory.peak_bytes < memory.limit_bytes
