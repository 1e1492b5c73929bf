"""Adapting counts parts, not pictures, and tells what it is worth on parts that it was not learned from."""

from __future__ import annotations

import tracemalloc
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover.errors import UsageError
from onceover.images import read_image, write_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.session import EngineOptions
from onceover.training import adapting
from onceover.training.adapter import CHECKS, LEARNING_MATRICES, Adaptation, Adapter, Move
from onceover.training.adapting import MIN_PARTS, study
from onceover.training.damage import KINDS
from onceover.training.fit import fit

GRAPH = tiny_graph()


def learned(images: list[Path], groups: Sequence[int] | None = None) -> Adapter:
    config = config_of(read_graph_spec(GRAPH, "tiny"), 4.0)
    return study(images, GRAPH, config, EngineOptions("onnxruntime").resolve(1), 0, groups=groups)


def drawn_adapter(parts: int, patches: int, pictures: int = 1, dim: int = 24) -> Adapter:
    """Of parts that differ, as damage moves them, in `dim` directions by chance alone: nothing of it is worth learning.

    pictures: of each part, that differ by a hundredth of that.
    """
    rng = np.random.default_rng(4)
    normal, moves, groups = {}, [], []
    for part in range(parts):
        of_part = rng.standard_normal((patches, dim), np.float32)
        for _ in range(pictures):
            image = len(groups)
            groups.append(part)
            normal[image] = of_part + np.float32(0.01) * rng.standard_normal((patches, dim), np.float32)
            for kind in list(KINDS)[image % 2 :: 2]:
                rows = rng.standard_normal((2, dim), np.float32)
                moves.append(Move(kind, (image, image), rows, of_part[:2] + rows))
    return Adapter(Path("drawn"), 0, normal, moves, groups)


def test_what_damage_stands_out_by_is_told_of_parts_that_were_not_learned_from() -> None:
    adapter = drawn_adapter(parts=16, patches=4)
    told = {kind: after / before for kind, (before, after) in adapter.of_all.record["contrast"].items()}
    assert list(told) == list(KINDS)
    # Directions that are alike gain nothing. By the very patches that it was learned from, the map seems to.
    assert max(told.values()) < 1.25
    matrix = adapter.of_all.matrix
    moved = np.concatenate([move.rows for move in adapter._moves])
    differences = adapter._differences(*adapter._halves(range(16)))
    before, after = (np.square(moved @ m).mean() / np.square(differences @ m).mean() for m in (np.eye(24), matrix))
    assert after / before > 2


def test_learning_holds_no_more_matrices_than_a_plan_counts() -> None:
    dim = 384
    tracemalloc.start()
    try:
        drawn_adapter(8, 10, dim=dim)
        taken = tracemalloc.get_traced_memory()[1] / (8 * dim**2)
    finally:
        tracemalloc.stop()
    assert 0.75 * LEARNING_MATRICES < taken < LEARNING_MATRICES  # what eigh works in is not traced


def test_pictures_of_a_part_are_not_taken_for_parts() -> None:
    pairs = drawn_adapter(parts=16, patches=8, pictures=2)
    assert pairs.of_all.record["parts"] == 16
    assert pairs.of_all.record["images"] == 32
    for left_out in (None, 3):
        sides = pairs._halves([image for image in range(32) if image // 2 != left_out])
        assert not {image // 2 for image in sides[0]} & {image // 2 for image in sides[1]}
    # Two pictures of a part are alike to a hundredth; parts are not.
    assert np.square(pairs._differences(*pairs._halves(range(32)))).sum(axis=1).min() > 1


def test_fit_tells_which_pictures_show_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part twice: the second picture a shade darker, so that copies do not count as one."""
    for i in range(2 * MIN_PARTS):
        (tmp_path / "good").mkdir(exist_ok=True)
        write_image(tmp_path / "good" / f"{i:02}.png", tiny_image(i // 2) - np.uint8(i % 2))
    lines = [f"{i:02}.png,part {i // 2}" for i in range(2 * MIN_PARTS)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    sides: list[list[set[int]]] = []

    class Noted(Adapter):
        def _check(self, held: Sequence[int]) -> Any:
            sides.append([{image // 2 for image in held}, {image // 2 for image in self._normal if image not in held}])
            return super()._check(held)

        def _differences(self, images: Sequence[int], others: Sequence[int]) -> NDArray[np.float32]:
            sides.append([{image // 2 for image in side} for side in (images, others)])
            return super()._differences(images, others)

    monkeypatch.setattr(adapting, "Adapter", Noted)
    record = fit(tmp_path / "good", tiny_options(groups=tmp_path / "groups.csv", holdout=0)).manifest["adaptation"]
    assert (record["images"], record["parts"]) == (2 * MIN_PARTS, MIN_PARTS)
    assert len(sides) == 1 + 2 * CHECKS
    assert not any(one & other for one, other in sides)
    images = sorted((tmp_path / "good").iterdir())
    with pytest.raises(UsageError, match="the memory bank has 2 parts, which is too few"):
        learned(images, groups=[i % 2 for i in range(len(images))])


def test_images_are_taken_of_every_part_and_not_always_the_first_of_it() -> None:
    of_all = adapting._of_all_parts
    assert of_all(range(19), 60) == list(range(19))
    assert of_all(range(100), 60) == list(range(0, 100, 2))
    assert of_all(range(9), 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    eight = of_all([i // 8 for i in range(64)], 8)  # where every eighth image is the first of its part
    assert [i // 8 for i in eight] == list(range(8))
    assert sorted({i % 8 for i in eight}) == list(range(8))
    of_each = of_all([i % 10 for i in range(40)], 24)
    assert set(np.bincount([i % 10 for i in of_each])) <= {2, 3}


def test_each_fold_is_scored_by_a_map_learned_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_folder(tmp_path / "good", HELD_OUT)
    left_out: list[list[int]] = []

    class Noted(Adapter):
        def without(self, images: Collection[int]) -> Adaptation:
            left_out.append(sorted(images))
            return super().without(images)

    monkeypatch.setattr(adapting, "Adapter", Noted)
    parts = fit(tmp_path / "good", tiny_options())
    assert parts.calibration.cross_conformal
    assert sorted(left_out) == [[i] for i in range(HELD_OUT)]


def test_a_map_without_an_image_does_not_depend_on_it(tmp_path: Path) -> None:
    images = sorted(good_folder(tmp_path / "good", MIN_PARTS + 2).iterdir())
    for left_out in (0, 4, len(images) - 1):
        before = learned(images)
        original = read_image(images[left_out])
        write_image(images[left_out], tiny_image(7000))
        after = learned(images)
        write_image(images[left_out], original)
        np.testing.assert_array_equal(before.without([left_out]).matrix, after.without([left_out]).matrix)
        assert (before.of_all.matrix != after.of_all.matrix).any()
        assert before.without([left_out]).record["images"] == len(images) - 1


def test_pictures_of_few_parts_do_not_count_as_many(tmp_path: Path) -> None:
    good_folder(tmp_path / "good", 12)
    lines = [f"{i:02}.png,part {i % 2}" for i in range(12)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    assert fit(tmp_path / "good", tiny_options(groups=tmp_path / "groups.csv", holdout=0)).adaptation is None
