"""The session against a numpy reference of the whole path; verdicts, limits, threads and the self test."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from tiny_package import (
    MEAN,
    STD,
    TinyOptions,
    TinyShape,
    read_members,
    tiny_config,
    tiny_graph,
    tiny_image,
    tiny_package,
    write_members,
)

from onceover import _core, errors
from onceover.errors import InputError
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions, open_session

# One convolution of 192 terms in float32, summed in another order: 192 · 2^-24 relative to values of at most 1.
EMBEDDING_TOLERANCE = 1e-5
# A distance is the square root of 4 such squared differences; blur and bilinear are convex sums of distances.
DISTANCE_TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def package_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("runtime") / "tiny.onceover")


@pytest.fixture
def inspector(package_path: Path) -> Inspector:
    return Inspector.open(package_path)


def reference_embeddings(image: NDArray[Any]) -> NDArray[np.float64]:
    """(P, D) by onnxruntime's own Python session."""
    import onnxruntime

    session = onnxruntime.InferenceSession(tiny_graph(), providers=["CPUExecutionProvider"])
    network_input = _core.prepare(image, 32, 48, MEAN, STD)[None]  # (1, 3, H, W)
    (answer,) = session.run(None, {session.get_inputs()[0].name: network_input})
    return np.asarray(answer[0], np.float64)


def reference_distances(queries: NDArray[Any], bank: NDArray[Any]) -> NDArray[np.float64]:
    """(Q, D), (M, D) → all distances (Q, M)."""
    return np.sqrt(((queries[:, None, :].astype(np.float64) - bank[None].astype(np.float64)) ** 2).sum(2))


def bilinear_matrix(size: int, grid: int) -> NDArray[np.float64]:
    """(size, grid): half-pixel centers, edges clamped."""
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(grid)))


def gaussian_matrix(size: int, sigma: float) -> NDArray[np.float64]:
    """(size, size): truncated at 4 sigma, mirrored with the edge sample repeated."""
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    matrix = np.zeros((size, size))
    for row in range(size):
        for tap, offset in zip(taps / taps.sum(), range(-radius, radius + 1), strict=True):
            column = (row + offset) % (2 * size)
            matrix[row, min(column, 2 * size - 1 - column)] += tap
    return matrix


def reference_map(patch_scores: NDArray[Any], height: int, width: int, sigma: float) -> NDArray[np.float64]:
    """(h, w) → (height, width)."""
    rows = gaussian_matrix(height, sigma) @ bilinear_matrix(height, patch_scores.shape[0])
    columns = gaussian_matrix(width, sigma) @ bilinear_matrix(width, patch_scores.shape[1])
    return np.asarray(rows @ patch_scores.astype(np.float64) @ columns.T)


def test_the_session_agrees_with_a_numpy_reference_of_the_whole_path(inspector: Inspector) -> None:
    bank = inspector.package.core.array("memory_bank")
    for seed in (1, 300, 301):
        image = tiny_image(seed, 50, 61)
        verdict = inspector.inspect(image, map_size=(32, 48))
        distances = reference_distances(reference_embeddings(image), bank)
        expected = distances.min(1)
        np.testing.assert_allclose(verdict.patch_scores.ravel(), expected, atol=DISTANCE_TOLERANCE)
        assert abs(verdict.score - expected.max()) <= DISTANCE_TOLERANCE
        row, column = verdict.worst_patch
        worst = row * verdict.patch_scores.shape[1] + column
        assert distances[worst, verdict.nearest] <= expected[worst] + DISTANCE_TOLERANCE
        expected_map = reference_map(expected.reshape(4, 6), 32, 48, 2.0)
        np.testing.assert_allclose(verdict.anomaly_map, expected_map, atol=DISTANCE_TOLERANCE)
        calibration = inspector.calibration.scores
        assert verdict.p_value == pytest.approx((1 + (calibration >= verdict.score).sum()) / 20)


def test_a_map_is_drawn_into_memory_of_the_caller(inspector: Inspector) -> None:
    image = tiny_image(300, 50, 61)
    expected = inspector.inspect(image).anomaly_map
    out = np.full((50, 61), -1, np.float32)
    verdict = inspector.inspect(image, map_out=out)
    assert verdict.anomaly_map is out
    np.testing.assert_array_equal(out, expected)
    inspector.inspect(tiny_image(1, 32, 48), map_size=(50, 61), map_out=out)
    assert (out != expected).any()
    for wrong in (np.zeros((61, 50), np.float32), np.zeros((50, 61)), np.zeros((50, 122), np.float32)[:, ::2]):
        with pytest.raises(InputError, match=r"expected a writable float32 \(50, 61\), C-contiguous"):
            inspector.inspect(image, map_out=wrong)  # type: ignore[arg-type]


def test_the_embedder_agrees_with_the_python_session_of_the_engine() -> None:
    embedder = _core.Embedder(tiny_config(TinyShape()), tiny_graph(), EngineOptions().resolve())
    image = tiny_image(5)
    embeddings = embedder.embed(image)
    assert embeddings.shape == (24, 4)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, reference_embeddings(image), atol=EMBEDDING_TOLERANCE)
    assert embedder.engine_version.startswith("onnxruntime 1.")


def test_a_bank_image_scores_zero(inspector: Inspector) -> None:
    verdict = inspector.inspect(tiny_image(0))
    assert verdict.score == 0.0
    assert verdict.decision == "normal"
    assert verdict.p_value == 1.0


def test_runs_and_thread_counts_agree_bit_for_bit(package_path: Path) -> None:
    image = tiny_image(77, 64, 64)
    seen = set()
    for threads in (1, 2):
        inspector = Inspector.open(package_path, threads=threads)
        for _ in range(3):
            inspector.inspect(tiny_image(78))
            verdict = inspector.inspect(image)
            seen.add((verdict.score, verdict.anomaly_map.tobytes(), verdict.patch_scores.tobytes()))
    assert len(seen) == 1


def recalibrated(source: Path, target: Path, threshold: float, map_threshold: float | None = None) -> Path:
    scores = np.array([threshold], np.float32)
    record = _core.calibration_bytes(
        calibrated=True, false_alarm_rate=0.5, threshold=threshold,
        map_threshold=threshold if map_threshold is None else map_threshold,
        scores=scores, map_maxima=scores, image_count=1,
    )  # fmt: skip
    return write_members(target, {**read_members(source), "calibration": record})


def test_only_a_score_above_the_threshold_is_anomalous(package_path: Path, tmp_path: Path) -> None:
    image = tiny_image(900)
    score = np.float32(Inspector.open(package_path).inspect(image).score)
    below = float(np.nextafter(score, np.float32(0)))
    at = Inspector.open(recalibrated(package_path, tmp_path / "at.onceover", float(score))).inspect(image)
    above = Inspector.open(recalibrated(package_path, tmp_path / "below.onceover", below)).inspect(image)
    assert (at.decision, at.is_anomalous, at.p_value) == ("normal", False, 1.0)
    assert (above.decision, above.is_anomalous, above.p_value) == ("anomalous", True, 0.5)


def test_only_an_anomalous_image_has_regions(package_path: Path, tmp_path: Path) -> None:
    image = tiny_image(900)
    verdict = Inspector.open(package_path).inspect(image)
    low = float(verdict.anomaly_map.min()) / 2
    normal = Inspector.open(recalibrated(package_path, tmp_path / "n.onceover", verdict.score, low)).inspect(image)
    anomalous = Inspector.open(recalibrated(package_path, tmp_path / "a.onceover", low, low)).inspect(image)
    assert (normal.decision, normal.regions) == ("normal", ())
    assert anomalous.decision == "anomalous"
    assert [region.area for region in anomalous.regions] == [image.shape[0] * image.shape[1]]


def test_a_region_has_the_p_value_of_its_peak_among_the_maxima_of_the_calibration_maps(
    package_path: Path, tmp_path: Path
) -> None:
    image = tiny_image(900)
    image[8:16, 8:24] = 255
    with Inspector.open(recalibrated(package_path, tmp_path / "a.onceover", 0.01, 0.3)) as inspector:
        verdict, maxima = inspector.inspect(image), inspector.calibration.map_maxima
        assert len(verdict.regions) >= 1
        for region in verdict.regions:
            assert region.p_value == reference.p_value(maxima, region.peak_value)
            assert region.p_value == verdict.to_dict()["regions"][verdict.regions.index(region)]["p_value"]
        peaks = [float(value) for value in (maxima[0], maxima[len(maxima) // 2], np.nextafter(maxima[-1], np.inf))]
        assert [inspector.session.map_p_value(peak) for peak in peaks] == [
            reference.p_value(maxima, peak) for peak in peaks
        ]


def test_an_uncalibrated_package_gives_a_score_but_no_verdict(tmp_path: Path) -> None:
    inspector = Inspector.open(tiny_package(tmp_path / "raw.onceover", TinyOptions(calibrated=False)))
    verdict = inspector.inspect(tiny_image(900))
    assert verdict.decision == "uncalibrated"
    assert verdict.is_anomalous is None
    assert verdict.threshold is None
    assert verdict.map_threshold is None
    assert verdict.regions == ()
    assert verdict.score > 0
    assert verdict.p_value == 1.0
    assert inspector.verify()["images"] == 3


def test_a_session_stays_within_its_memory_limit_or_is_refused(package_path: Path) -> None:
    package = _core.Package.open(str(package_path))
    needed = open_session(package).memory_bytes
    assert 3 * 32 * 48 * 4 < needed < 2_000_000  # network input; resize tables for images of any size
    assert open_session(package, memory_limit_mb=2).memory_bytes == needed
    with pytest.raises(errors.MemoryLimitError, match="allowed"):
        open_session(package, memory_limit_mb=needed / 1e6 - 0.001)
    with pytest.raises(errors.UsageError, match="memory_limit_mb"):
        open_session(package, memory_limit_mb=-1)


def test_a_damaged_graph_in_a_valid_package_is_an_engine_error(package_path: Path, tmp_path: Path) -> None:
    members = read_members(package_path)
    path = write_members(tmp_path / "bad.onceover", {**members, "graph.onnx": members["graph.onnx"][:1000]})
    with pytest.raises(errors.EngineError, match="load the graph"):
        Inspector.open(path)


def test_a_graph_of_another_size_is_an_engine_error(package_path: Path, tmp_path: Path) -> None:
    path = write_members(tmp_path / "other.onceover", {**read_members(package_path), "graph.onnx": tiny_graph(32, 56)})
    with pytest.raises(errors.EngineError, match=r"input has shape \(1, 3, 32, 56\), expected \(1, 3, 32, 48\)"):
        Inspector.open(path)


def test_a_graph_that_answers_nan_gives_no_verdict(package_path: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, np.nan, 0, 0], np.float32), "bias"))
    members = {**read_members(package_path), "graph.onnx": model.SerializeToString()}
    inspector = Inspector.open(write_members(tmp_path / "nan.onceover", members))
    with pytest.raises(errors.EngineError, match="NaN"):
        inspector.inspect(tiny_image(1))
    with pytest.raises(errors.UsageError, match="no result"):
        inspector.session.patch_scores()


def broken_bank(package_path: Path, tmp_path: Path, bank: NDArray[Any]) -> Path:
    return write_members(tmp_path / "bank.onceover", {**read_members(package_path), "memory_bank": bank})


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (np.zeros((5, 3), np.float32), "3 columns, the patch embedding has 4"),
        (np.zeros((5, 4), np.float64), "memory_bank"),
        (np.zeros(20, np.float32), "memory_bank"),
        (np.array([[0, 0, 0, 0], [0, np.inf, 0, 0]], np.float32), "memory_bank"),
    ],
)
def test_a_memory_bank_that_cannot_be_used_is_a_package_error(
    package_path: Path, tmp_path: Path, bank: NDArray[Any], message: str
) -> None:
    with pytest.raises(errors.PackageError, match=message):
        Inspector.open(broken_bank(package_path, tmp_path, bank))


@pytest.mark.parametrize("missing", ["graph.onnx", "memory_bank", "config", "calibration"])
def test_a_missing_member_is_named(package_path: Path, tmp_path: Path, missing: str) -> None:
    members = {name: content for name, content in read_members(package_path).items() if name != missing}
    with pytest.raises(errors.PackageError, match=missing):
        Inspector.open(write_members(tmp_path / "short.onceover", members))


def test_the_self_test_reproduces_the_parity_record(inspector: Inspector) -> None:
    report = inspector.verify()
    assert report["images"] == 3
    assert report["tolerance"] == pytest.approx(1e-4)
    assert report["largest_relative_difference"] == 0
    assert report["largest_map_difference"] == 0
    assert report["engine"].startswith("onnxruntime 1.")


def test_the_self_test_notices_one_changed_preprocessing_constant(package_path: Path, tmp_path: Path) -> None:
    config = _core.Config(
        height=32, width=48, mean=(MEAN[0] + 0.002, *MEAN[1:]), std=STD, grid_height=4, grid_width=6,
        embedding_dim=4, blur_sigma=2.0,
    )  # fmt: skip
    path = write_members(tmp_path / "mean.onceover", {**read_members(package_path), "config": config.to_bytes()})
    with pytest.raises(errors.VerificationError, match=r"image 0.*expected .* got .* allowed"):
        Inspector.open(path).verify()


def test_the_self_test_notices_another_blur(package_path: Path, tmp_path: Path) -> None:
    config = tiny_config(TinyShape(), blur_sigma=2.1).to_bytes()
    path = write_members(tmp_path / "blur.onceover", {**read_members(package_path), "config": config})
    with pytest.raises(errors.VerificationError, match="map pixel"):
        Inspector.open(path).verify()


def test_the_self_test_notices_one_changed_bank_value(package_path: Path, tmp_path: Path, inspector: Inspector) -> None:
    members = read_members(package_path)
    # The row that decides the score of the first parity image.
    members["memory_bank"][inspector.inspect(tiny_image(200)).nearest, 2] += np.float32(0.01)
    path = write_members(tmp_path / "value.onceover", members)
    with pytest.raises(errors.VerificationError, match="patch"):
        Inspector.open(path).verify()


def test_the_self_test_notices_a_changed_verdict(package_path: Path, tmp_path: Path) -> None:
    path = recalibrated(package_path, tmp_path / "verdict.onceover", 1e-6)
    with pytest.raises(errors.VerificationError, match="verdict: expected normal, got anomalous"):
        Inspector.open(path).verify()


def test_a_second_thread_is_refused_and_the_first_is_not_disturbed(package_path: Path) -> None:
    session = Inspector.open(package_path).session
    large, refused, scores = tiny_image(5, 1500, 1500), [], []
    start, stop = threading.Event(), threading.Event()

    def intrude() -> None:
        start.wait()
        while not stop.is_set():
            try:
                session.run(large)
            except errors.UsageError as error:
                refused.append(str(error))

    intruder = threading.Thread(target=intrude)
    intruder.start()
    start.set()
    for _ in range(200):  # either thread may be the one that is refused
        try:
            scores.append(session.run(large).score)
        except errors.UsageError as error:
            refused.append(str(error))
        if refused and scores:
            break
    stop.set()
    intruder.join()
    assert refused
    assert "another thread" in refused[0]
    assert set(scores) <= {session.run(large).score}


def test_sessions_share_a_package_between_threads(package_path: Path) -> None:
    package = _core.Package.open(str(package_path))
    expected = open_session(package).run(tiny_image(9)).score
    scores: list[float] = []

    def work() -> None:
        session = open_session(package)
        scores.extend(session.run(tiny_image(9)).score for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scores) == 60
    assert set(scores) == {expected}


def test_a_session_keeps_the_bytes_of_its_package_alive(package_path: Path) -> None:
    session = open_session(_core.Package.view(package_path.read_bytes(), "memory"))
    noise = [bytes(200_000) for _ in range(20)]  # would land where a freed package was
    assert len(noise) == 20
    assert session.run(tiny_image(0)).score == 0.0


def test_a_closed_inspector_says_so(package_path: Path) -> None:
    with Inspector.open(package_path) as inspector:
        assert inspector.manifest["name"] == "tiny"
    with pytest.raises(errors.UsageError, match="closed"):
        inspector.inspect(tiny_image(0))


def test_a_result_before_the_first_run_is_refused(inspector: Inspector) -> None:
    for read in (inspector.session.patch_scores, inspector.session.nearest_rows, inspector.session.anomaly_map):
        with pytest.raises(errors.UsageError, match="no result yet"):
            read()


def test_the_tiny_package_is_small_and_always_the_same(package_path: Path, tmp_path: Path) -> None:
    again = tiny_package(tmp_path / "again.onceover", replace(TinyOptions(), replace={}))
    assert again.read_bytes() == package_path.read_bytes()
    assert package_path.stat().st_size < 65536
