"""Image → verdict in C, in C++ and in Python: the same bits from each, on the same machine with the same engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_library import built, c_session
from numpy.typing import NDArray
from tiny_package import tiny_image, tiny_package
from tolerances import PARITY_SCORE

from onceover import _core
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import engine_library

VERDICTS = {0: "uncalibrated", 1: "normal", 2: "anomalous"}


def spotted_image(seed: int, channels: int = 3) -> NDArray[np.uint8]:
    image = tiny_image(seed, 64, 90, channels)
    image[20:36, 30:50] = 255
    return image


IMAGES = [tiny_image(5), tiny_image(6, 37, 91), tiny_image(7, channels=0), spotted_image(8), spotted_image(9, 0)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("c") / "tiny.onceover")


def run_tool(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [built("onceover-run"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def write_netpbm(path: Path, image: NDArray[np.uint8]) -> Path:
    kind = "P5" if image.ndim == 2 else "P6"
    path.write_bytes(f"{kind}\n# a comment\n{image.shape[1]} {image.shape[0]}\n255\n".encode() + image.tobytes())
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("threads", [1, 2])
def test_c_and_python_answer_with_the_same_bits(package: Path, engine: str, threads: int) -> None:
    anomalous = 0
    with (
        Inspector.open(package, engine, threads) as inspector,
        c_session(package, engine, threads=threads, max_map_width=128) as session,
    ):
        for image in IMAGES:
            verdict, result = inspector.inspect(image), session.run(image)
            assert (VERDICTS[result.verdict], result.score, result.p_value) == (
                verdict.decision, verdict.score, verdict.p_value,
            )  # fmt: skip
            assert (result.nearest_row, (result.patch_row, result.patch_column)) == (
                verdict.nearest, verdict.worst_patch,
            )  # fmt: skip
            drawn = session.draw_map(*image.shape[:2])
            np.testing.assert_array_equal(drawn, verdict.anomaly_map)
            scores, rows = session.patches(verdict.patch_scores.shape)
            np.testing.assert_array_equal(scores, verdict.patch_scores)
            np.testing.assert_array_equal(rows, inspector.session.nearest_rows())
            found = session.regions(drawn)
            got = [(tuple(r.box), r.area, tuple(r.peak), r.peak_value, tuple(r.centroid)) for r in found]
            assert got == [(r.box, r.area, r.peak, r.peak_value, r.centroid) for r in verdict.regions]
            for region, expected in zip(found, verdict.regions, strict=True):
                np.testing.assert_array_equal(session.contour(drawn, region), expected.contour)
            anomalous += len(got) > 0
    assert anomalous >= 2  # regions were compared, too


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_tool_in_cpp_and_python_answer_with_the_same_bits(package: Path, engine: str, tmp_path: Path) -> None:
    paths = [
        write_netpbm(tmp_path / f"{i}.{'pgm' if image.ndim == 2 else 'ppm'}", image) for i, image in enumerate(IMAGES)
    ]
    done = run_tool(
        package, "--engine", engine, "--library", engine_library(engine), "--contours", "--self-test",
        "--repeat", "3", *paths,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # there are anomalies
    told = json.loads(done.stdout)
    assert told["engine"].startswith(engine)
    assert (told["self_test_images"], told["latency"]["runs"]) == (3, 3 * len(IMAGES))
    assert told["latency"]["p50_ms"] <= told["latency"]["p99_ms"] <= told["latency"]["max_ms"]
    with Inspector.open(package, engine) as inspector:
        for image, path, row in zip(IMAGES, paths, told["images"], strict=True):
            verdict = inspector.inspect(image)
            assert (row["image"], row["verdict"], row["nearest_row"]) == (str(path), verdict.decision, verdict.nearest)
            assert np.float32(row["score"]) == np.float32(verdict.score)  # nine digits name a float32
            assert np.float32(row["threshold"]) == np.float32(verdict.threshold)
            assert row["patch"] == list(verdict.worst_patch)
            regions = [(tuple(r["box"]), r["area"], tuple(r["peak"]), r["p_value"]) for r in row["regions"]]
            assert regions == [(r.box, r.area, r.peak, pytest.approx(r.p_value)) for r in verdict.regions]
            for told_region, region in zip(row["regions"], verdict.regions, strict=True):
                assert np.float32(told_region["centroid"]).tolist() == list(region.centroid)
                assert told_region["contour"] == region.contour.tolist()


def test_the_tool_reads_raw_frames_and_sixteen_bits_as_what_they_are(package: Path, tmp_path: Path) -> None:
    image = spotted_image(11)
    engine = ["--engine", "onnxruntime", "--library", engine_library("onnxruntime")]

    def score(*arguments: str | Path) -> float:
        done = run_tool(package, *engine, *arguments)
        assert done.returncode in (0, 1), done.stderr
        row: dict[str, Any] = json.loads(done.stdout)["images"][0]
        return float(row["score"])

    expected = score(write_netpbm(tmp_path / "a.ppm", image))
    (tmp_path / "a.rgb").write_bytes(image.tobytes())
    (tmp_path / "a.bgra").write_bytes(np.dstack([image[..., ::-1], image[..., 0]]).tobytes())
    assert score("--raw", "rgb8:90x64", tmp_path / "a.rgb") == expected
    assert score("--raw", "bgra8:90x64", tmp_path / "a.bgra") == expected
    gray = image[..., 0]
    neutral = np.full(gray.size // 2, 128, np.uint8)
    (tmp_path / "a.nv12").write_bytes(gray.tobytes() + neutral.tobytes())
    # BT.601 limited, as cameras give it: black is 16 and white is 235
    stretched = np.clip(np.floor((gray.astype(np.float64) - 16) * 255 / 219 + 0.5), 0, 255).astype(np.uint8)
    plain = score(write_netpbm(tmp_path / "b.pgm", stretched))
    assert score("--raw", "nv12:90x64", tmp_path / "a.nv12") == plain
    wide = (image.astype(np.uint16) * 257).astype(">u2")
    (tmp_path / "c.ppm").write_bytes(b"P6 90 64 65535\n" + wide.tobytes())
    with Inspector.open(package) as inspector:
        assert np.float32(score(tmp_path / "c.ppm")) == np.float32(inspector.inspect(wide.astype(np.uint16)).score)


def test_the_tool_says_what_is_wrong_and_exits_with_it(package: Path, tmp_path: Path) -> None:
    engine = ["--engine", "onnxruntime", "--library", engine_library("onnxruntime")]
    picture = write_netpbm(tmp_path / "a.ppm", tiny_image(50))
    (tmp_path / "text.ppm").write_text("no picture")
    (tmp_path / "cut.ppm").write_bytes(picture.read_bytes()[:-1])
    (tmp_path / "sides.ppm").write_bytes(b"P6 99999999999999999999 4 255\n")
    cases = [
        (2, "a package is missing", []),
        (2, "--engine is missing", [package, picture]),
        (2, "an image is missing", [package, *engine]),
        (2, "--speed", [package, *engine, "--speed", "9", picture]),
        (2, "--threads", [package, *engine, "--threads", "0", picture]),
        (2, "--raw", [package, *engine, "--raw", "rgb8:90", picture]),
        (3, "unknown engine 'tensorrt'", [package, "--engine", "tensorrt", picture]),
        (3, "no/such.onceover", ["no/such.onceover", *engine, picture]),
        (3, "not an onceover package", [picture, *engine, picture]),
        (3, "no/such.ppm: No such file", [package, *engine, "no/such.ppm"]),
        (3, "not a binary PGM or PPM", [package, *engine, tmp_path / "text.ppm"]),
        (3, "bytes of pixels", [package, *engine, tmp_path / "cut.ppm"]),
        (3, "width is not a number", [package, *engine, tmp_path / "sides.ppm"]),
        (3, "bytes of pixels", [package, *engine, "--raw", "rgb8:4x4", picture]),
        (3, "memory limit", [package, *engine, "--memory-limit", "1000", picture]),
    ]
    for status, text, arguments in cases:
        done = run_tool(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert text in done.stderr
    assert "exit status" in run_tool("--help").stdout
    assert run_tool(package, *engine, "--threshold", "0.0001", picture).returncode == 1
    assert run_tool(package, *engine, "--threshold", "1000", picture).returncode == 0


def test_the_program_in_the_header_inspects(package: Path) -> None:
    program = built("test_c_api_example")
    done = subprocess.run(
        [program, package, engine_library("onnxruntime")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Inspector.open(package) as inspector:
        verdict = inspector.inspect(np.zeros((480, 640, 3), np.uint8))
    expected = "normal" if verdict.decision == "normal" else "not normal"
    assert done.stdout == f"{expected}, score {verdict.score:g}\n"
    done = subprocess.run([program, "no/such.onceover"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no/such.onceover" in done.stderr


def answers(package: Path, engine: str, paths: list[Path], isa: str, threads: int) -> list[dict[str, Any]]:
    """What the tool says of each image, without times."""
    done = run_tool(
        package, "--engine", engine, "--library", engine_library(engine), "--threads", str(threads), "--regions",
        *paths, environment={"ONCEOVER_ISA": isa},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["isa"], told["threads"]) == (isa, threads)
    return [{key: value for key, value in row.items() if not key.endswith("_ms")} for row in told["images"]]


def test_bits_change_with_the_engine_alone_and_then_within_tolerance(package: Path, tmp_path: Path) -> None:
    paths = [
        write_netpbm(tmp_path / f"{i}.{'pgm' if image.ndim == 2 else 'ppm'}", image) for i, image in enumerate(IMAGES)
    ]
    of_engines = []
    for engine in ("onnxruntime", "openvino"):
        first = answers(package, engine, paths, "scalar", 1)
        for isa in _core.available_isas():
            for threads in (1, 3):
                assert answers(package, engine, paths, isa, threads) == first, f"{engine}, {isa}, {threads} threads"
        of_engines.append(first)
    for ours, theirs in zip(*of_engines, strict=True):
        assert ours["verdict"] == theirs["verdict"]
        # what the parity record of the package allows between machines and engines
        assert abs(ours["score"] - theirs["score"]) <= PARITY_SCORE * max(ours["score"], 1)
