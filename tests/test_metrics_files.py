"""Saved, pickled and copied accumulators are whole; a damaged or foreign file is refused by name."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import pickletools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from metric_sets import collected, images, loco_images

from onceover import metrics
from onceover.errors import InputError, OutputError
from onceover.metrics import storage


def made(bootstrap: bool = True) -> metrics.SegmentationMetrics:
    whole = collected(images(1, side=12), (0.3, 0.05), bootstrap=bootstrap)
    for image in loco_images(1):
        whole.update_channels(image.anomaly_map, image.masks, image.saturation_areas, defect="logical")
    return whole


def assert_same(found: metrics.SegmentationMetrics, whole: metrics.SegmentationMetrics) -> None:
    assert found.to_bytes() == whole.to_bytes()
    assert found.compute() == whole.compute()
    for part in (found, whole):
        part.update(np.full((3, 4), 61, np.float32), np.eye(3, 4, dtype=bool), defect="late")
    assert found.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("bootstrap", [False, True])
def test_what_is_saved_and_loaded_goes_on_as_if_nothing_had_happened(tmp_path: Path, bootstrap: bool) -> None:
    whole = made(bootstrap)
    whole.save(tmp_path / "set.metrics")
    found = metrics.SegmentationMetrics.load(tmp_path / "set.metrics")
    if bootstrap:
        assert found.intervals(resamples=20) == whole.intervals(resamples=20)
    assert_same(found, whole)
    assert os.listdir(tmp_path) == ["set.metrics"]


def test_options_survive_saving() -> None:
    options = {"connectivity": 4, "page_budget_bytes": 1 << 22, "bootstrap": True}
    whole = metrics.SegmentationMetrics((0.05, 1.0), **options)  # type: ignore[arg-type]
    found = metrics.SegmentationMetrics.from_bytes(whole.to_bytes())
    assert found.to_bytes() == whole.to_bytes()
    assert found.images == 0
    found.update(np.eye(3, dtype=np.float32), np.eye(3, dtype=bool))
    assert list(found.compute().aupro) == [0.05, 1.0]
    assert found.compute().regions == 3


def test_pickles_and_copies_are_whole_and_independent() -> None:
    for again in (lambda m: pickle.loads(pickle.dumps(m)), copy.copy, copy.deepcopy):
        whole = made()
        before = whole.to_bytes()
        found = again(whole)
        found.update(np.ones((2, 2), np.float32))
        assert whole.to_bytes() == before
        assert_same(again(whole), whole)


def test_a_pickle_holds_only_the_bytes_of_the_file() -> None:
    whole = made()
    held = [value for opcode, value, _ in pickletools.genops(pickle.dumps(whole)) if isinstance(value, bytes)]
    assert held == [whole.to_bytes()]


def test_saving_over_a_file_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "set.metrics"
    path.write_bytes(b"old")
    made().save(str(path))
    assert metrics.SegmentationMetrics.load(path).compute() == made().compute()


def test_a_path_that_cannot_be_written_or_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        made().save(tmp_path / "nowhere" / "set.metrics")
    with pytest.raises(InputError, match=r"absent\.metrics: cannot be read"):
        metrics.SegmentationMetrics.load(tmp_path / "absent.metrics")
    with pytest.raises(InputError, match="cannot be read"):
        metrics.SegmentationMetrics.load(tmp_path)


# ---------------------------------------------------------------- damage


def load(data: bytes) -> metrics.SegmentationMetrics:
    return metrics.SegmentationMetrics.from_bytes(data, "set.metrics")


def resigned(data: bytes) -> bytes:
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = made().to_bytes()
    lengths = {*range(80), *range(0, len(data), max(1, len(data) // 400)), *range(len(data) - 40, len(data))}
    for length in sorted(lengths):
        with pytest.raises(InputError, match=r"set\.metrics: "):
            load(data[:length])
    with pytest.raises(InputError, match=r"set\.metrics: has \d+ bytes, expected \d+"):
        load(data + b"\0")


def test_a_single_flipped_bit_anywhere_is_refused() -> None:
    data = made().to_bytes()
    places = {*range(100), *range(0, len(data), max(1, len(data) // 400)), *range(len(data) - 40, len(data))}
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(InputError, match=r"set\.metrics: "):
            load(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no segmentation metrics"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "holds no segmentation metrics"),
        (b"OOSEGMET", "has 8 bytes, expected at least 64"),
        (b"OOSEGMET\x02" + bytes(100), "has format version 2, this onceover reads 1"),
    ],
)
def test_foreign_and_newer_files_are_refused_by_what_they_are(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=rf"set\.metrics: {said}"):
        load(data)


def test_facts_that_make_no_sense_are_refused_even_with_a_right_digest() -> None:
    data = made().to_bytes()
    for old, new in (
        (b'"connectivity":8', b'"connectivity":6'),
        (b'"fpr_limits":[0.3,', b'"fpr_limits":[3.0,'),
        (b'"bootstrap":true', b'"bootstrap":1234'),
        (b'"logical":3', b'"logical":0'),
        (b'"page_budget_bytes":null', b'"page_budget_bytes":-123'),
        (b'"page_budget_bytes":null', b'"page_budget_bytes":12.5'),
        (b'{"bootstrap"', b'["bootstrap"'),
        (b'"defects"', b'"effects"'),
    ):
        assert data.count(old) == 1
        with pytest.raises(InputError, match=r"set\.metrics: is not as onceover writes it"):
            load(resigned(data.replace(old, new)))


def test_kinds_that_do_not_fit_the_state_are_refused_even_with_a_right_digest() -> None:
    data = metrics.SegmentationMetrics().to_bytes()
    stored = storage.unpack(data, "set.metrics")
    for other in (replace(stored, defects={"hole": 1}), replace(stored, connectivity=4)):
        with pytest.raises(InputError, match=r"set\.metrics: kinds of defects or connectivity do not fit"):
            load(storage.pack(other))


def test_damage_inside_the_core_state_is_refused_even_with_a_right_digest() -> None:
    data = made(bootstrap=False).to_bytes()
    begin = data.index(b'"page_budget_bytes":null}') + 25
    for place in range(begin, len(data) - 32, max(1, (len(data) - begin) // 200)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        with pytest.raises(InputError, match=r"set\.metrics: "):
            load(resigned(bytes(damaged)))
