"""onceover.DriftMonitor: verdicts in, alarms out; a state on disk; drift of parts that the program draws itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import fitted_package
from tiny_package import tiny_image

from onceover import DriftMonitor, InputError, Inspector, UsageError
from onceover.images import write_image
from onceover.monitoring.history import independent_step, serial_correlation
from onceover.monitoring.monitor import CHARTS, Calibrated
from onceover.runtime.package import open_package
from onceover.training.demo_parts import PRODUCTS
from onceover.training.demo_products import draw_part
from onceover.types import Image


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def drawn() -> list[NDArray[np.uint8]]:
    """Good flanges, each another part."""
    return [draw_part(PRODUCTS[0], None, "line", i).image for i in range(60)]


def test_verdicts_go_in_and_an_uneventful_line_raises_no_alarm(package: Path) -> None:
    with Inspector.open(package) as inspector:
        monitor = DriftMonitor.of(inspector)
        for seed in range(60):
            image = tiny_image(2000 + seed)
            assert monitor.update(inspector.inspect(image), image) == []
        assert monitor.package_id == inspector.package.id
    assert (monitor.parts, monitor.alarms) == (60, [])
    assert [chart.name for chart in monitor.charts] == list(CHARTS)
    taken = {chart.name: chart.parts for chart in monitor.charts}
    assert taken["brightness"] == taken["sharpness"] == taken["rejected"] == 60
    assert taken["score_ewma"] == taken["p_values"] > 40


def test_a_path_is_measured_as_its_image(package: Path, tmp_path: Path) -> None:
    image, path = tiny_image(1), tmp_path / "part.png"
    write_image(path, image)
    given, read = DriftMonitor.of(package), DriftMonitor.of(package)
    with Inspector.open(package) as inspector:
        verdict = inspector.inspect(path)
        given.update(verdict, image)
        for either in (path, str(path)):  # both of them, so that charts hold what they differ by
            read.update(verdict, either)
        given.update(verdict, image)
    assert read.charts == given.charts
    with pytest.raises(InputError, match="no such file"):
        read.update(verdict, tmp_path / "absent.png")


def test_the_calibration_of_a_package_is_what_its_threshold_says(package: Path) -> None:
    opened = open_package(package)
    with Inspector.open(package) as inspector:
        calibration = inspector.calibration
    below = int((calibration.scores < calibration.threshold).sum())
    assert Calibrated.of(opened) == Calibrated(calibration.n, below + 1)


def alarms_of(images: list[Image], changed: list[Image]) -> set[str]:
    """Charts in alarm after 3 × `images`, with small changes of light, and then `changed`."""
    random = np.random.default_rng(0)
    monitor = DriftMonitor.with_calibration("", Calibrated(), average_run_length=10_000)
    for image in [image for _ in range(3) for image in images] + changed:
        flicker = np.clip(image * random.normal(1, 0.01), 0, 255).astype(np.uint8)
        brightness, sharpness = (float(value) for value in measured(flicker))
        monitor.update_measured("normal", float(random.standard_normal()), 1.0, brightness, sharpness)
    return {chart.name for chart in monitor.alarms}


def measured(image: Image) -> tuple[float, float]:
    from onceover import _core

    return _core.measure_image(image)


def test_a_dimmer_lamp_and_a_dirty_lens_are_told_apart_on_drawn_parts(drawn: list[NDArray[np.uint8]]) -> None:
    assert alarms_of(drawn, list(drawn)) == set()
    dimmer = [(image * 0.93).astype(np.uint8) for image in drawn]
    assert alarms_of(drawn, dimmer) == {"brightness"}
    blurred = [np.asarray(cv2.GaussianBlur(image, (0, 0), 0.7), np.uint8) for image in drawn]
    assert alarms_of(drawn, blurred) == {"sharpness"}


def test_brightness_is_the_mean_luma_and_sharpness_does_not_depend_on_it() -> None:
    image = np.random.default_rng(0).integers(0, 120, (64, 80, 3)).astype(np.uint8)
    inner = (image[1:-1, 1:-1] @ np.array([0.299, 0.587, 0.114])).mean() / 255
    assert measured(image)[0] == pytest.approx(inner, abs=1e-6)
    assert measured(2 * image) == pytest.approx((2 * inner, measured(image)[1]), rel=1e-5)
    assert measured(np.ascontiguousarray(image[..., ::-1])) != measured(image)  # colors have an order


def test_a_saved_monitor_goes_on_as_if_nothing_had_happened(package: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    values = random.standard_normal((400, 3)).tolist()
    whole, monitor = DriftMonitor.of(package), DriftMonitor.of(package)
    for i, (score, brightness, sharpness) in enumerate(values):
        if i % 100 == 50:  # a power cut
            monitor.save(tmp_path / "state")
            monitor = DriftMonitor.load(tmp_path / "state", package)
        for each in (whole, monitor):
            each.update_measured("normal", score, 1.0, brightness, sharpness)
    assert monitor.charts == whole.charts
    monitor.save(tmp_path / "a")
    whole.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_state_that_is_damaged_missing_or_of_another_package_is_refused(package: Path, tmp_path: Path) -> None:
    DriftMonitor.of(package).save(tmp_path / "state")
    other = fitted_package(tmp_path / "other", 40)
    with pytest.raises(InputError, match="begin with a new monitor"):
        DriftMonitor.load(tmp_path / "state", other)
    data = bytearray((tmp_path / "state").read_bytes())
    data[77] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged: .*the checksum differs"):
        DriftMonitor.load(tmp_path / "damaged")
    with pytest.raises(InputError, match="cannot be read"):
        DriftMonitor.load(tmp_path / "missing")


def test_an_alarm_is_told_once_with_what_to_do_and_restart_ends_it() -> None:
    random = np.random.default_rng(6)
    monitor = DriftMonitor.with_calibration("", Calibrated())
    told = []
    for i in range(700):
        told += monitor.update_measured("normal", random.standard_normal() + (2 if i >= 600 else 0), 1.0)
    assert {chart.name for chart in told} == {"score_ewma", "score_cusum"} == {chart.name for chart in monitor.alarms}
    assert all(chart.alarm_part is not None and 600 < chart.alarm_part <= 700 for chart in told)
    assert all("pictures" in chart.advice or "changed" in chart.advice for chart in told)
    monitor.restart()
    assert monitor.alarms == []


def test_a_p_value_of_another_package_and_options_out_of_range_are_refused(package: Path) -> None:
    monitor = DriftMonitor.of(package)
    with pytest.raises(InputError, match="was it another package's"):
        monitor.update_measured("normal", 1.0, 0.333)
    with pytest.raises(InputError, match="its score is nan"):
        monitor.update_measured("normal", float("nan"), 1.0)
    with pytest.raises(InputError, match="decision is 'good'"):
        monitor.update_measured("good", 1.0, 1.0)  # type: ignore[arg-type]
    assert monitor.parts == 0
    with pytest.raises(UsageError, match="average run length is 10 parts"):
        DriftMonitor.of(package, average_run_length=10)


def test_serial_correlation_is_that_of_ranks_and_says_how_many_parts_to_skip() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(4000)
    values = np.empty(4000)
    values[0] = noise[0]
    for i in range(1, 4000):
        values[i] = 0.6 * values[i - 1] + 0.8 * noise[i]
    # Spearman's of a normal pair with 0.6: 6/π · asin(0.6 / 2)
    assert serial_correlation(np.exp(values)) == pytest.approx(6 / np.pi * np.arcsin(0.3), abs=0.05)
    assert abs(serial_correlation(noise)) < 0.07
    assert serial_correlation(np.ones(50)) == serial_correlation(np.ones(2)) == 0.0
    assert independent_step(0.6) == 6  # 0.6^6 = 0.047
    assert independent_step(0.04) == 1
