"""Whether fit adapts to a product: held-out parts of the memory bank decide, people may overrule, all of it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import export
from onceover.cli import main
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, assemble
from onceover.runtime.package import open_package
from onceover.training.adapter import Adaptation, Adapter, Move
from onceover.training.adapting import MIN_PARTS
from onceover.training.damage import KINDS
from onceover.training.fit import fit
from onceover.training.refit import refit

FIRST, LAST = slice(0, 8), slice(8, 24)  # directions of embeddings


def drawn_adapter(parts_differ: Callable[[int], slice], damage: slice, patches: int = 20) -> Adapter:
    """Sixteen parts that differ in some directions by 3, in all by 0.1, as damage moves four patches by 1 in some."""
    rng = np.random.default_rng(4)
    normal, moves = {}, []
    for part in range(16):
        normal[part] = 0.1 * rng.standard_normal((patches, 24), np.float32)
        directions = parts_differ(part)
        normal[part][:, directions] += 3 * rng.standard_normal(normal[part][:, directions].shape, np.float32)
        for kind in list(KINDS)[part % 2 :: 2]:
            rows = np.zeros((4, 24), np.float32)
            rows[:, damage] = rng.standard_normal(rows[:, damage].shape, np.float32)
            moves.append(Move(kind, (part, part), rows, normal[part][:4] + rows))
    return Adapter(Path("drawn"), 0, normal, moves, range(16))


def test_damage_that_parts_do_not_look_like_is_told_apart_better() -> None:
    adapted = drawn_adapter(lambda _part: FIRST, LAST).of_all
    before, after = adapted.record["auroc"]
    assert adapted.helps
    assert before < 0.85 < 0.95 < after


def test_a_map_that_new_parts_contradict_is_found_out() -> None:
    """What the others tell to be quiet, where damage is, is where each further part differs."""
    adapted = drawn_adapter(lambda part: slice(part, part + 1), slice(0, 16), patches=8).of_all
    before, after = adapted.record["auroc"]
    assert not adapted.helps
    assert after < before - 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("choice") / "plate", 2 * HELD_OUT)


def say(monkeypatch: pytest.MonkeyPatch, helps: bool) -> None:
    """What held-out parts say, on whatever machine."""

    def record(self: Adapter, *_arguments: Any) -> dict[str, Any]:
        return {"contrast": {kind: [1.0, 2.0] for kind in KINDS}, "auroc": [0.75, 0.75 + 0.125 * helps]}

    monkeypatch.setattr(Adapter, "_told", record)


def but_for_the_manifest(parts: PackageParts) -> bytes:
    content: bytes = assemble(replace(parts, manifest={})).bytes()
    return content


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize("count", [2 * HELD_OUT, HELD_OUT])  # with parts held out; across folds
def test_fit_does_what_held_out_parts_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool, count: int
) -> None:
    say(monkeypatch, helps)
    images = folder if count == 2 * HELD_OUT else good_folder(tmp_path / "plate", count)
    parts, asked = fit(images, tiny_options()), fit(images, tiny_options(adapt=helps))
    assert parts.calibration.cross_conformal == (count == HELD_OUT)
    assert but_for_the_manifest(parts) == but_for_the_manifest(asked)
    assert (parts.adaptation is not None) == helps
    record = parts.manifest["adaptation"]
    assert (record["adapted"], record["reason"]) == (helps, "it helps" if helps else "it does not help")
    assert record["auroc"] == [0.75, 0.875 if helps else 0.75]
    assert asked.manifest["adaptation"]["reason"] == "asked for"


def test_across_folds_no_map_of_a_fold_is_learned_where_none_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, helps=False)
    stages: set[str] = set()
    fit(good_folder(tmp_path / "few", HELD_OUT), tiny_options(), lambda stage, _done, _total: stages.add(stage))
    assert "adapting" in stages
    assert "adapting folds" not in stages


def test_images_that_calibrate_have_no_say(folder: Path, tmp_path: Path) -> None:
    parts = fit(folder, tiny_options())
    data = parts.manifest["data"]
    for name in data["bank_images"]:
        write_image(tmp_path / name, read_image(folder / name))
    for i, name in enumerate(data["calibration_images"]):
        write_image(tmp_path / name, 255 - tiny_image(9000 + i))
    other = fit(tmp_path, tiny_options())
    assert other.manifest["data"]["calibration_images"] == data["calibration_images"]
    assert other.manifest["adaptation"] == parts.manifest["adaptation"]


def test_too_few_parts_are_not_asked(folder: Path, tmp_path: Path) -> None:
    few = fit(good_folder(tmp_path / "few", MIN_PARTS), tiny_options(holdout=1))
    assert few.adaptation is None
    assert few.manifest["adaptation"] == {
        "adapted": False,
        "reason": f"the memory bank has {MIN_PARTS - 1} parts, and it takes {MIN_PARTS}",
    }
    assert "auroc" in fit(tmp_path / "few", tiny_options(holdout=0)).manifest["adaptation"]


@pytest.mark.parametrize("adapt", [None, True])
def test_a_refit_does_as_the_fit_did_and_keeps_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapt: bool | None
) -> None:
    say(monkeypatch, helps=False)
    images = good_folder(tmp_path / "few", HELD_OUT)  # across folds, of which each learns its map again
    parts = fit(images, tiny_options(adapt=adapt))
    export.package(parts, tmp_path / "few.onceover")
    again = refit(open_package(tmp_path / "few.onceover"), tiny_graph(), images)
    assert but_for_the_manifest(again) == but_for_the_manifest(parts)
    assert again.manifest["adaptation"] == parts.manifest["adaptation"]


@pytest.mark.parametrize(
    ("helps", "words", "said"),
    [
        (True, [], "adapted by 19 images of the memory bank, as it helps: drawn damage is told apart with AUROC 0.8750 "
         "instead of 0.7500, on parts that it was not learned from"),
        (True, ["--adapt"], "adapted by 19 images of the memory bank, as asked for: drawn damage is told apart with"),
        (False, [], "not adapted to the product, as it does not help: drawn damage would be told apart with AUROC "
         "0.7500 instead of 0.7500, on parts that it was not learned from; --adapt does it all the same"),
        (False, ["--adapt"], "adapted by 19 images of the memory bank, as asked for"),
        (False, ["--no-adapt"], "not adapted to the product, as asked for"),
    ],
)  # fmt: skip
def test_the_command_line_says_which_and_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, helps: bool, words: list[str],
    said: str,
) -> None:  # fmt: skip
    say(monkeypatch, helps)
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    command = ["fit", str(folder), "-o", str(tmp_path / "part.onceover"), "--backbone", str(tmp_path / "tiny.onnx")]
    assert main([*command, *words]) == 0
    shown, errors = (" ".join(text.split()) for text in capsys.readouterr())
    assert said in shown
    assert ("adapting does not help here: without --adapt, fit would leave it out" in errors) == (
        not helps and words == ["--adapt"]
    )
    record = open_package(tmp_path / "part.onceover").manifest["adaptation"]
    assert main([*command, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adaptation"] == record
    told = dict(open_package(tmp_path / "part.onceover").describe())["adapted"]
    assert told == ("by 19 images of the memory bank" if record["adapted"] else f"no: {record['reason']}")


def test_a_map_that_changes_nothing_does_not_help() -> None:
    same = Adaptation(np.eye(2, dtype=np.float32), {"auroc": [0.75, 0.75]})
    assert not same.helps
