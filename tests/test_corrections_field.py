"""Corrections of packages that inspect a part of the image, or in tiles: nothing outside the region joins, thresholds
are those of a new calibration or above, reasons name the right place, and a compacted package decides alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bank_line import Line, copied, corrected_rows, fit_line, remembered, scores_by_hand
from tiny_data import defective
from tiny_package import tiny_image

from onceover import Corrections, Inspector, _core
from onceover.export.combine import combine
from onceover.export.compact import compact
from onceover.images import read_image
from onceover.runtime.package import open_package
from onceover.training.calibrate import conformal_threshold
from onceover.training.field import TilingOptions

UPPER = np.zeros((4, 4), np.uint8)  # of the image: where the white window is, and what lies beside it
UPPER[:2] = 1
TILED = TilingOptions(tiles=(2, 2), overlap=0.5)
FIELDS: dict[str, dict[str, Any]] = {
    "region": {"roi": UPPER},
    "tiles": {"tiling": TILED},
    "tiles and region": {"tiling": TILED, "roi": UPPER},
}


@pytest.fixture(scope="module", params=FIELDS)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("line"), **FIELDS[request.param])


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    return copied(fitted, tmp_path)


def rows_of_a_held_out_part(line: Line) -> list[int]:
    """Bank rows that its inspected patches are nearest to."""
    package = open_package(line.package)
    with Inspector.open(package) as inspector:
        inspector.session.run(read_image(line.images / package.manifest["data"]["calibration_images"][0]))
        inside = inspector.session.inside(*_core.read_config(package.core).cells)
        rows = inspector.session.nearest_rows()
    return sorted({int(row) for row in (rows if inside is None else rows[inside]).ravel()})[:40]


def test_a_confirmed_false_alarm_passes_and_thresholds_are_not_too_low(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        before = inspector.calibration
        ids = [corrections.propose(inspector, path)[0] for path in line.alarms[:2]]
        states = []
        for change in ("confirm", "remove"):
            if change == "confirm":
                corrections.confirm(ids)
            else:
                corrections.remove(rows_of_a_held_out_part(line))
            states.append(inspector.apply_corrections().calibration)
            scores, maxima = scores_by_hand(line, corrected_rows(corrections))
            calibration = inspector.calibration
            assert (calibration.scores >= scores).all()
            assert (calibration.map_maxima >= maxima).all()
            if states[-1] == "exact":
                assert np.array_equal(calibration.scores, scores)
            assert calibration.threshold == max(before.threshold or 0, conformal_threshold(calibration.scores, 0.05))
            if change == "confirm":  # later a row may be missed that another patch of it was near to
                assert [inspector.inspect(path).decision for path in line.alarms[:2]] == ["normal", "normal"]
        assert set(states) <= {"exact", "bounded"}


def test_only_inspected_patches_join_the_bank_and_are_named_where_they_are(line: Line) -> None:
    corrections = Corrections.open(line.package)
    image = defective(tiny_image(700))[0]
    image[-12:-4, 8:32] = 255  # in the lower half, too
    with Inspector.open(line.package, corrections=corrections) as inspector:
        number, _ = corrections.propose(inspector, image, name="two windows.png")
        config = _core.read_config(corrections.package.core)
        cells = config.cells_of(np.array(corrections.candidates[0].patches, np.int64))
        scores = inspector.session.patch_scores().ravel()
        threshold = inspector.calibration.threshold
        assert threshold is not None
        assert (scores[cells] > threshold).all()  # outside the region they are 0
        features = inspector.session.patch_features().ravel()
        assert np.array_equal(features[cells], corrections.candidates[0].patches)
        assert np.array_equal(config.cells_of(features), np.arange(len(features)))
        corrections.confirm([number])
        inspector.apply_corrections()
        verdict = inspector.inspect(image)
        assert verdict.decision == "normal"
        rows, joined = inspector.session.nearest_rows().ravel()[cells], corrections.candidates[0].rows
        for cell, row in zip(cells, rows, strict=True):
            assert int(row) in joined
            at = divmod(int(cell), config.cells[1])
            reason = inspector.bank_images.nearest(at, 0.0, int(row), threshold)
            assert (reason.image, reason.image_patch) == ("two windows.png", at)


def test_what_is_remembered_is_what_a_session_says(line: Line) -> None:
    package = open_package(line.package)
    held_out, bounds = remembered(package)
    assert not bounds
    with Inspector.open(package) as inspector:
        for i, name in enumerate(package.manifest["data"]["calibration_images"]):
            inspector.session.run(read_image(line.images / name))
            assert np.array_equal(held_out.distances[i], inspector.session.patch_distances().ravel())
            assert np.array_equal(held_out.nearest[i], inspector.session.nearest_rows().ravel())
            bank = package.core.array("memory_bank").astype(np.float64)
            tracked = held_out.patches[i]
            distances = np.linalg.norm(held_out.embeddings[i] - bank[held_out.nearest[i][tracked]], axis=1)
            inside = held_out.distances[i][tracked] > 0
            assert np.allclose(distances[inside], held_out.distances[i][tracked][inside], rtol=1e-5)


def test_a_compacted_package_decides_alike(line: Line, tmp_path: Path) -> None:
    corrections = Corrections.open(line.package)
    made = tmp_path / "compacted.onceover"
    with Inspector.open(line.package, corrections=corrections) as inspector:
        corrections.confirm([corrections.propose(inspector, path)[0] for path in line.alarms[:2]])
        corrections.remove(rows_of_a_held_out_part(line))
        inspector.apply_corrections()
        compact(corrections, made)
        with Inspector.open(made) as compacted:
            for path in (*line.alarms, *sorted(line.images.iterdir())[:5]):
                before, after = inspector.inspect(path), compacted.inspect(path)
                assert (after.score, after.decision, after.p_value) == (before.score, before.decision, before.p_value)
                assert (after.threshold, after.map_threshold) == (before.threshold, before.map_threshold)
                assert np.array_equal(after.anomaly_map, before.anomaly_map)
            assert np.array_equal(compacted.calibration.scores, inspector.calibration.scores)
    old, new = corrections.package, open_package(made)
    assert new.core.read("config") == old.core.read("config")
    assert [m.sha256 for m in new.members if m.name == "roi"] == [m.sha256 for m in old.members if m.name == "roi"]
    config = _core.read_config(new.core)
    source = new.core.array("bank_source")
    assert source[:, 1].max() < config.feature_count


def test_correcting_before_and_after_products_are_combined_gives_the_same_members(line: Line, tmp_path: Path) -> None:
    """Of a corrected product, byte for byte; the other one stays as it was fitted."""
    made, before, after = (tmp_path / f"{name}.onceover" for name in ("made", "before", "after"))
    rows = rows_of_a_held_out_part(line)[:5]
    alone = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=alone) as inspector:
        alone.confirm([alone.propose(inspector, line.alarms[0])[0]])
    alone.remove(rows)
    compact(alone, made)
    combine([line.package, made], before, ["fitted", "corrected"])
    combined = combine_fitted(line, tmp_path / "combined.onceover")
    together = Corrections.open(combined)
    with Inspector.open(combined, corrections=together, product="corrected") as inspector:
        together.confirm([together.propose(inspector, line.alarms[0])[0]])
        together.remove(rows, product="corrected")
        assert inspector.apply_corrections().products[0].calibration == "fitted"
    compact(together, after)
    expected, got = open_package(before), open_package(after)
    assert {each.name: each.sha256 for each in got.members if each.name != "manifest.json"} == {
        each.name: each.sha256 for each in expected.members if each.name != "manifest.json"
    }
    assert got.product_manifest(1)["data"] == expected.product_manifest(1)["data"]
    for package in (before, after):
        decisions = []
        for product in ("fitted", "corrected"):
            with Inspector.open(package, product=product) as inspector:
                decisions.append(inspector.inspect(line.alarms[0]).decision)
        assert decisions == ["anomalous", "normal"]


def combine_fitted(line: Line, path: Path) -> Path:
    combine([line.package, line.package], path, ["fitted", "corrected"])
    return path
