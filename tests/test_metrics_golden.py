"""The segmentation metrics against ../shared/golden/pro: every case and implementation, tolerances of its README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from metric_sets import GOLDEN, needs_golden
from tolerances import ANOMALIB_AUPRO, EXACT_METRIC, LOCO_AUSPRO, OFFICIAL_AUPRO

from onceover import metrics

CASES = sorted(path.stem for path in GOLDEN.glob("*.npz") if not path.stem.startswith("spro_"))
SPRO_CASES = sorted(path.stem for path in GOLDEN.glob("spro_*.npz"))
LIMITS = ("0.3", "0.05", "0.01", "1.0")


@needs_golden
def test_the_golden_set_is_whole() -> None:
    assert (len(CASES), len(SPRO_CASES)) == (26, 3)


@needs_golden
@pytest.mark.parametrize("case", CASES)
def test_pixel_metrics_agree_with_every_golden_implementation(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    report = metrics.segmentation_metrics(golden["maps"], golden["masks"], [float(limit) for limit in LIMITS])
    for limit in LIMITS:
        found = report.aupro[float(limit)]
        assert found == pytest.approx(float(golden[f"float64_aupro_{limit}"]), abs=EXACT_METRIC, rel=0)
        assert found == pytest.approx(float(golden[f"official_aupro_{limit}"]), abs=OFFICIAL_AUPRO, rel=0)
        if case != "one_image_fully_anomalous":  # anomalib drops the region and calls its image normal
            assert found == pytest.approx(float(golden[f"anomalib_aupro_{limit}"]), abs=ANOMALIB_AUPRO, rel=0)
    assert report.pixel_auroc == pytest.approx(float(golden["sklearn_auroc"]), abs=EXACT_METRIC, rel=0)
    assert report.average_precision == pytest.approx(float(golden["sklearn_ap"]), abs=EXACT_METRIC, rel=0)
    assert report.f1_max == pytest.approx(float(golden["sklearn_f1max"]), abs=EXACT_METRIC, rel=0)
    assert report.f1_max_threshold == float(golden["sklearn_f1max_threshold"])
    counts = (report.regions, report.normal_pixels, report.anomalous_pixels)
    names = ("num_regions_8conn", "num_normal_pixels", "num_anomalous_pixels")
    assert counts == tuple(int(golden[name]) for name in names)


@needs_golden
@pytest.mark.parametrize("case", CASES)
def test_four_connected_regions_give_the_golden_negative_control(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    four = metrics.SegmentationMetrics([float(limit) for limit in LIMITS], connectivity=4)
    for anomaly_map, mask in zip(golden["maps"], golden["masks"], strict=True):
        four.update(anomaly_map, mask)
    report = four.compute()
    assert report.regions == int(golden["num_regions_4conn"])
    for limit in LIMITS:
        expected = float(golden[f"float64_aupro_4conn_{limit}"])
        assert report.aupro[float(limit)] == pytest.approx(expected, abs=EXACT_METRIC, rel=0)


@needs_golden
def test_connectivity_decides_the_aupro_of_diagonal_defects() -> None:
    golden = np.load(GOLDEN / "diagonal_8_vs_4_connectivity.npz")
    found = metrics.aupro(golden["maps"], golden["masks"])
    assert found == pytest.approx(0.275, abs=1e-3)
    assert abs(found - float(golden["float64_aupro_4conn_0.3"])) > 0.09


def loco(path: Path) -> metrics.SegmentationMetrics:
    golden = np.load(path)
    collected = metrics.SegmentationMetrics([float(limit) for limit in LOCO_AUSPRO])
    for index, anomaly_map in enumerate(golden["maps"]):
        channels = np.flatnonzero(golden["channel_image_index"] == index)
        areas = [int(golden["saturation_area"][channel]) for channel in channels]
        collected.update_channels(anomaly_map, [golden["channel_masks"][channel] for channel in channels], areas)
    return collected


@needs_golden
@pytest.mark.parametrize("case", SPRO_CASES)
def test_spro_agrees_with_the_golden_reference_and_with_the_code_of_loco(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    report = loco(GOLDEN / f"{case}.npz").compute()
    for limit, tolerance in LOCO_AUSPRO.items():
        found = report.auspro[float(limit)]
        assert found == pytest.approx(float(golden[f"float64_auspro_{limit}"]), abs=EXACT_METRIC, rel=0)
        assert found == pytest.approx(float(golden[f"loco_auspro_{limit}"]), abs=tolerance, rel=0)


@needs_golden
@pytest.mark.parametrize("case", SPRO_CASES)
def test_saturation_areas_follow_the_rule_of_loco(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    areas = (golden["channel_masks"] != 0).sum(axis=(1, 2))
    given = zip(areas, golden["saturation_threshold"], golden["relative_saturation"], strict=True)
    found = [
        metrics.saturation_area(int(area), float(threshold), bool(relative)) for area, threshold, relative in given
    ]
    assert found == golden["saturation_area"].tolist()
