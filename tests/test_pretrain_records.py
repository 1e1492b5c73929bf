"""Records: what is written comes back, damage is told from the first wrong byte on, an interruption costs a shard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrain_samples import (
    CLASSES,
    bytes_in,
    made_up_header,
    options_in,
    random_rows,
    recorded,
    silent,
    small_shards,
    teacher_weights,
)

from onceover.backbones.backbone import StageInfo
from onceover.errors import InputError, UsageError
from onceover.training.pretrain.recording import record
from onceover.training.pretrain.records import HEADER_NAME, RecordHeader, Tap, read_header, write_header
from onceover.training.pretrain.shards import HEAD, Records, shard_path, write_shard
from onceover.training.pretrain.student import Targets
from onceover.training.pretrain.teacher import count_classes

HALF = 2.0**-11  # relative rounding of float16


def written(folder: Path, header: RecordHeader) -> np.ndarray[Any, np.dtype[np.void]]:
    """A whole recording of random numbers; answers its rows."""
    write_header(folder, header)
    rows = random_rows(header, len(header))
    for shard in range(header.shards):
        write_shard(folder, header, shard, rows[header.shard_range(shard).start : header.shard_range(shard).stop])
    return rows


@pytest.mark.parametrize(("top_k", "classes"), [(0, 0), (1, 5), (5, 50), (7, 7), (3, 40_000), (2, 70_000)])
def test_records_come_back_as_they_were_written(top_k: int, classes: int, tmp_path: Path) -> None:
    header = made_up_header(top_k, classes)
    rows = written(tmp_path, header)
    records = Records(tmp_path)
    assert records.header == header
    assert len(records) == 8
    back = np.array([records.row(record) for record in range(8)], header.dtype)
    assert back.tobytes() == rows.tobytes()
    if top_k:
        assert header.dtype["classes"].base == np.dtype("<u2" if classes <= 65536 else "<u4")
        assert rows["classes"].max() < classes


def all_channels(records: Records) -> Targets:
    return Targets(records, [StageInfo(tap.name, tap.channels, tap.stride) for tap in records.header.taps])


@pytest.mark.parametrize(("top_k", "classes"), [(1, 5), (5, 50), (7, 7), (10, 40_000)])
def test_soft_labels_are_restored_to_probabilities(top_k: int, classes: int, tmp_path: Path) -> None:
    header = made_up_header(top_k, classes)
    rows = written(tmp_path, header)
    kept, values = rows["classes"].astype(np.int64), rows["probabilities"].astype(np.float32)
    targets = all_channels(Records(tmp_path)).probabilities(torch.from_numpy(kept), torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=top_k * 1e-3)
    assert (targets >= 0).all()
    np.testing.assert_array_equal(np.take_along_axis(targets, kept, axis=1), values)
    if top_k < classes:
        minor = (1 - values.sum(axis=1)) / (classes - top_k)
        other = next(label for label in range(classes) if label not in kept[0])
        assert targets[0, other] == pytest.approx(minor[0], abs=1e-6)


def test_statistics_over_shards_are_those_of_all_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceover.training.pretrain.records.SHARD_BYTES", 500)
    header = made_up_header(0, 0, views=7)
    rows = written(tmp_path, header)
    assert header.shards > 3
    assert len(header) % header.shard_records  # a last short shard must not weigh as a whole one
    for index, (mean, std) in enumerate(Records(tmp_path).statistics()):
        values = rows[f"tap{index}"].astype(np.float64)
        np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-6)


def test_a_channel_that_never_changes_gives_finite_targets(tmp_path: Path) -> None:
    header = made_up_header(0, 0)
    write_header(tmp_path, header)
    rows = random_rows(header, len(header))
    rows["tap0"][:, 1] = 3.0
    write_shard(tmp_path, header, 0, rows)
    records = Records(tmp_path)
    taps = [torch.from_numpy(np.ascontiguousarray(rows[f"tap{index}"])) for index in range(2)]
    first, _ = all_channels(records).features(taps)
    assert first.isfinite().all()
    assert first[:, 1].abs().max() == 0
    assert first[:, 0].std().item() == pytest.approx(1, abs=0.02)


def test_a_narrow_student_learns_the_principal_components(tmp_path: Path) -> None:
    header = made_up_header(0, 0, views=40, taps=(Tap("a", 8, 6, 4, 4),))
    write_header(tmp_path, header)
    rows = random_rows(header, len(header))
    rows["tap0"][:, 3:] = 4 * rows["tap0"][:, :3] + 0.01 * rows["tap0"][:, 3:] + 7  # three directions carry nearly all
    write_shard(tmp_path, header, 0, rows)
    records = Records(tmp_path)
    taps = [torch.from_numpy(np.ascontiguousarray(rows["tap0"]))]
    whole, narrow = all_channels(records).features(taps)[0], Targets(records, [StageInfo("a", 3, 8)]).features(taps)[0]
    cells = narrow.transpose(0, 1).flatten(1)  # (B, K, h, w) → (K, B·h·w)
    covariance = torch.cov(cells)
    assert covariance.diagonal().mean().item() == pytest.approx(1, abs=0.02)
    assert (covariance - covariance.diag().diag()).abs().max() < 0.02
    distances = [torch.pdist(part.permute(0, 2, 3, 1).flatten(0, 2)[:50]) for part in (whole, narrow)]
    ratio = distances[1] / distances[0]
    assert ratio.std() / ratio.mean() < 0.01  # the same distances up to one factor


def test_a_shard_with_any_byte_changed_is_refused_by_name(tmp_path: Path) -> None:
    header = made_up_header(3, 9)
    written(tmp_path, header)
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    statistics = HEAD.size + len(header) * header.dtype.itemsize
    for place in (0, 9, 13, 17, 25, 40, HEAD.size, HEAD.size + 900, statistics + 8, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"shard-000000\.bin: .*delete this file"):
            Records(tmp_path)
    path.write_bytes(whole)
    assert len(Records(tmp_path)) == 8


@pytest.mark.parametrize("end", [0, 10, 64, 500, -1])
def test_a_cut_shard_is_refused(end: int, tmp_path: Path) -> None:
    written(tmp_path, made_up_header(3, 9))
    path = shard_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InputError, match=r"expected \d+: it is cut"):
        Records(tmp_path)


def test_a_shard_of_another_recording_or_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceover.training.pretrain.records.SHARD_BYTES", 500)
    header = made_up_header(0, 0)
    written(tmp_path, header)
    shard_path(tmp_path, 1).write_bytes(shard_path(tmp_path, 0).read_bytes())
    with pytest.raises(InputError, match=r"shard-000001\.bin: its head does not fit"):
        Records(tmp_path)
    written(tmp_path, header)
    write_header(tmp_path, replace(header, seed=1))
    with pytest.raises(InputError, match=r"shard-000000\.bin: its head does not fit"):
        Records(tmp_path)


def test_a_missing_shard_is_told_with_the_way_to_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceover.training.pretrain.records.SHARD_BYTES", 500)
    written(tmp_path, made_up_header(0, 0))
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(InputError, match=r"1 of \d+ shards are missing.*shard-000001\.bin.*again, it writes them"):
        Records(tmp_path)


DAMAGE: dict[str, Any] = {
    "no JSON": "{",
    "no object": "[1]",
    "another format": {"format": "other"},
    "another version": {"version": 99},
    "no taps": {"taps": []},
    "a huge tap": {"taps": [["a", 8, 1 << 40, 4, 4]]},
    "a short tap": {"taps": [["a", 8]]},
    "a text for a number": {"views": "4"},
    "a fraction": {"views": 4.5},
    "no images": {"images": []},
    "more classes kept than there are": {"top_k": 10},
    "no records in a shard": {"shard_records": -1},
    "no card": {"teacher": {"backbone": "x"}},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_header_is_refused(what: str, tmp_path: Path) -> None:
    write_header(tmp_path, made_up_header(3, 9))
    path, damage = tmp_path / HEADER_NAME, DAMAGE[what]
    facts = json.loads(path.read_bytes())
    path.write_text(damage if isinstance(damage, str) else json.dumps({**facts, **damage}))
    with pytest.raises(InputError, match=r"header\.json: "):
        read_header(tmp_path)


def test_a_folder_without_records_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no records"):
        Records(tmp_path)


class Interrupted(Exception):
    """What a kill does to the recording."""


def test_an_interrupted_recording_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    options = options_in(tmp_path)
    whole = record(tmp_path / "whole", options, silent)
    assert whole.written == whole.header.shards > 2

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "recording" and done == total - 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        record(tmp_path / "cut", options, interrupt)
    with pytest.raises(InputError, match="shards are missing"):
        Records(tmp_path / "cut")
    rest = record(tmp_path / "cut", options, silent)
    assert 0 < rest.written < rest.header.shards
    assert bytes_in(tmp_path / "cut") == bytes_in(tmp_path / "whole")
    assert record(tmp_path / "cut", options, silent).written == 0


def test_loader_workers_change_nothing_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    record(tmp_path / "none", options_in(tmp_path), silent)
    record(tmp_path / "two", options_in(tmp_path, workers=2), silent)
    assert bytes_in(tmp_path / "none") == bytes_in(tmp_path / "two")


def test_a_folder_with_another_recording_is_left_alone(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    with pytest.raises(UsageError, match=r"holds another recording \(other: views\)"):
        record(folder, options_in(tmp_path, views=4), silent)
    teacher_weights(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(UsageError, match=r"\(other: teacher\)"):
        record(folder, options_in(tmp_path, weights=tmp_path / "other.safetensors"), silent)
    with pytest.raises(UsageError, match="is not empty and holds no records"):
        record(tmp_path, options_in(tmp_path), silent)


def test_a_damaged_shard_is_told_before_a_recording_goes_on(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    path = shard_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="cut or damaged"):
        record(folder, options_in(tmp_path), silent)
    path.unlink()
    assert record(folder, options_in(tmp_path), silent).written == 1


def test_stored_features_are_those_of_the_teacher_rounded_to_float16(tmp_path: Path) -> None:
    from onceover.training.pretrain.loading import view_of
    from onceover.training.pretrain.teacher import PLAIN_LOOK, load_teacher

    records = Records(recorded(tmp_path))
    header, options = records.header, options_in(tmp_path)
    teacher, classes = load_teacher(options.teacher, options.weights, (8, 16), PLAIN_LOOK, 3, torch.device("cpu"))
    assert classes == count_classes(options.weights) == CLASSES
    for index in (0, 4, 10):
        pixels, _ = view_of(header, header.sources(), index)
        answers = teacher(torch.from_numpy(pixels).permute(2, 0, 1)[None])  # (H, W, 3) → (1, 3, H, W)
        row = records.row(index)
        for tap in range(2):
            now = answers.taps[tap][0]
            np.testing.assert_allclose(row[f"tap{tap}"].astype(np.float32), now, rtol=HALF, atol=1e-5)
        np.testing.assert_array_equal(row["classes"], answers.classes[0])


def test_a_teacher_looks_at_an_enlarged_view_and_its_mirror_images(tmp_path: Path) -> None:
    from onceover.training.pretrain.teacher import Look, load_teacher

    options = options_in(tmp_path)
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for mirrors, dims in ((2, [3]), (4, [2, 3])):
        look = Look(enlarge=2, mirrors=mirrors)
        teacher, _ = load_teacher(options.teacher, options.weights, (8, 16), look, 0, torch.device("cpu"))
        assert [(tap.stride, tap.height, tap.width) for tap in teacher.taps(32)] == [(8, 4, 4), (16, 2, 2)]
        seen, mirrored = (teacher(view).taps for view in (pixels, pixels.flip(dims)))
        for one, other in zip(seen, mirrored, strict=True):
            turned = np.flip(other, axis=dims)
            np.testing.assert_allclose(one, turned, rtol=1e-3, atol=1e-4 * np.abs(one).max())
    folder = recorded(tmp_path / "mirrored", look=Look(2, 2), views=1, procedural=1)
    assert [tap.stride for tap in Records(folder).header.taps] == [8, 16]
    for look in (Look(0), Look(5), Look(1, 3)):
        with pytest.raises(UsageError, match=r"must be 1( to 4|, 2 or 4), got"):
            record(tmp_path / "refused", options_in(tmp_path, look=look), silent)


def test_a_feature_beyond_float16_is_refused_by_stage(tmp_path: Path) -> None:
    from backbone_checks import CARD

    from onceover.backbones.weights import load_weights, save_weights

    options = options_in(tmp_path)
    tensors = load_weights(options.weights)
    tensors["features.6.conv.3.weight"] = tensors["features.6.conv.3.weight"] + 1e6
    save_weights(options.weights, tensors, CARD)
    with pytest.raises(InputError, match=r"stage features\.6 answers values up to .* float16"):
        record(tmp_path / "records", options, silent)


def test_recordings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to record"):
        record(tmp_path / "records", options_in(tmp_path, images=None, procedural=0), silent)
    with pytest.raises(UsageError, match="views must be 1 to"):
        record(tmp_path / "records", options_in(tmp_path, views=0), silent)
    with pytest.raises(UsageError, match="10, but it has 9 classes"):
        record(tmp_path / "records", options_in(tmp_path, top_k=10), silent)
    assert not (tmp_path / "records").exists()


def test_features_of_any_tap_shape_fit_a_record() -> None:
    header = made_up_header(0, 0, taps=(Tap("wide", 4, 7, 1, 9),))
    assert header.dtype.itemsize == 4 + 8 + 4 + 2 * 7 * 9
    assert header.shard_range(header.shards - 1).stop == len(header)
