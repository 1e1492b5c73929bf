"""Folder of good parts → package: the same bytes twice, the bank of the session's own features, honest calibration."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

import onceover
from onceover import _core, export
from onceover.detectors import BankSize
from onceover.errors import InputError, OutputError, PackageError, UnknownNameError, UsageError, VerificationError
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, assemble, config_of
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import EngineOptions
from onceover.training.fit import FitOptions, FitPlan, fit, product_name

ENOUGH = 2 * HELD_OUT  # images for the default rate: as many again stay in the bank


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("fit") / "plate" / "train" / "good", ENOUGH)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("few") / "plate", 6)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, tiny_options())


def groups_file(path: Path, groups: dict[str, str]) -> Path:
    path.write_text("file,group\n" + "".join(f"{file},{group}\n" for file, group in groups.items()))
    return path


def bank_images(parts: PackageParts) -> set[str]:
    return set(parts.manifest["data"]["bank_images"])


def held_out(parts: PackageParts) -> set[str]:
    return set(parts.manifest["data"]["calibration_images"])


FIT_PROGRAM = """
import sys
from onceover import export
from onceover.training.fit import FitOptions, fit
folder, graph, target = sys.argv[1:]
export.package(fit(folder, FitOptions(backbone=graph, seed=3)), target)
"""


def test_two_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    packages = [tmp_path / "one.onceover", tmp_path / "two.onceover"]
    for package in packages:
        command = [sys.executable, "-c", FIT_PROGRAM, str(folder), str(tmp_path / "tiny.onnx"), str(package)]
        subprocess.run(command, check=True, timeout=120)
    assert packages[0].read_bytes() == packages[1].read_bytes()
    other = assemble(fit(folder, tiny_options(seed=4))).bytes()
    assert packages[0].read_bytes() != other


def test_a_copy_of_the_folder_elsewhere_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "plate" / "good"
    copy.mkdir(parents=True)
    for image in sorted(folder.iterdir(), reverse=True):
        (copy / image.name).write_bytes(image.read_bytes())
    same = [assemble(fit(path, tiny_options())).bytes() for path in (folder, copy)]
    assert same[0] == same[1]


def test_the_bank_holds_the_sessions_own_features_bit_for_bit(folder: Path) -> None:
    parts = fit(folder, tiny_options(adapt=True))
    embedder = _core.Embedder(config_of(parts.spec, parts.blur_sigma), parts.graph, EngineOptions().resolve())
    names = parts.manifest["data"]["bank_images"]
    embeddings = [embedder.embed(read_image(folder / name)) for name in names]
    assert parts.bank_source is not None
    bank = parts.state["memory_bank"]
    assert len(bank) == len(parts.bank_source) > 0
    assert parts.adaptation is not None
    for row, (image, patch) in zip(bank, parts.bank_source, strict=True):
        assert np.array_equal(row, _core.adapt(embeddings[image], parts.adaptation)[patch])


def test_a_held_out_image_never_enters_the_bank(folder: Path, parts: PackageParts) -> None:
    everything = {path.name for path in folder.iterdir()}
    assert bank_images(parts).isdisjoint(held_out(parts))
    assert bank_images(parts) | held_out(parts) == everything
    assert len(held_out(parts)) == HELD_OUT


def test_the_threshold_is_the_conformal_one_of_the_held_out_scores(
    folder: Path, parts: PackageParts, tmp_path: Path
) -> None:
    export.package(parts, tmp_path / "plate.onceover")
    inspector = Inspector.open(tmp_path / "plate.onceover")
    scores = sorted(inspector.inspect(folder / name).score for name in held_out(parts))
    assert inspector.calibration.scores.tolist() == scores
    assert inspector.calibration.threshold == scores[-1]  # n = 19, α = 5 %: the largest of them
    assert inspector.calibration.false_alarm_rate == 0.05
    assert all(inspector.inspect(folder / name).decision == "normal" for name in held_out(parts))


def test_too_few_images_leave_the_package_uncalibrated(few: Path, tmp_path: Path) -> None:
    parts = fit(few, tiny_options())
    assert not parts.calibration.calibrated
    assert parts.calibration.n == 1
    export.package(parts, tmp_path / "few.onceover")
    verdict = Inspector.open(tmp_path / "few.onceover").inspect(few / "00.png")
    assert verdict.decision == "uncalibrated"
    assert verdict.is_anomalous is None
    assert verdict.threshold is None


def test_an_explicit_rate_that_the_data_cannot_support_is_refused_with_the_number_it_takes(few: Path) -> None:
    with pytest.raises(UsageError, match=r"takes 99 held-out normal images .* so 198 in all"):
        fit(few, tiny_options(false_alarm_rate=0.01))


def test_an_explicit_rate_that_the_data_supports_is_kept(folder: Path) -> None:
    parts = fit(folder, tiny_options(false_alarm_rate=0.1))
    assert parts.calibration.false_alarm_rate == 0.1
    assert parts.calibration.n >= 9
    assert parts.manifest["calibration"]["false_alarm_rate"] == 0.1


def test_holding_out_none_puts_every_image_into_the_bank(few: Path, tmp_path: Path) -> None:
    parts = fit(few, tiny_options(holdout=0))
    assert held_out(parts) == set()
    assert len(bank_images(parts)) == 6
    assert parts.calibration.n == 0
    assert len(parts.parity) == 6  # replayed on images of the bank
    package_id = export.package(parts, tmp_path / "all.onceover")
    assert Inspector.open(tmp_path / "all.onceover").package.id == package_id


def test_one_image_is_enough_when_none_is_held_out(tmp_path: Path) -> None:
    single = good_folder(tmp_path / "single", 1)
    assert len(fit(single, tiny_options(holdout=0)).parity) == 4
    with pytest.raises(InputError, match="not enough to hold one out"):
        fit(single, tiny_options())


def test_images_of_one_part_are_never_on_both_sides_and_count_once(folder: Path, tmp_path: Path) -> None:
    groups = {f"{i:02}.png": f"part{i // 2}" for i in range(ENOUGH)}
    options = tiny_options(groups=groups_file(tmp_path / "groups.csv", groups), holdout=9, false_alarm_rate=0.1)
    parts = fit(folder, options)
    assert {groups[name] for name in bank_images(parts)}.isdisjoint(groups[name] for name in held_out(parts))
    assert len(held_out(parts)) == 18
    assert parts.calibration.n == 9
    assert parts.calibration.image_count == 18
    assert parts.manifest["calibration"]["parts"] == 9


def test_groups_make_the_default_rate_harder_to_support(folder: Path, tmp_path: Path) -> None:
    groups = groups_file(tmp_path / "groups.csv", {f"{i:02}.png": f"part{i % 6}" for i in range(ENOUGH)})
    assert not fit(folder, tiny_options(groups=groups)).calibration.calibrated
    with pytest.raises(UsageError, match="takes 19 held-out"):
        fit(folder, tiny_options(groups=groups, false_alarm_rate=0.05))


def test_progress_moves_forward_and_ends_full_in_every_stage(folder: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    fit(folder, tiny_options(), lambda stage, done, total: seen.setdefault(stage, []).append((done, total)))
    assert [stage for stage in seen if stage != "looking for copies"] == [
        "checking files", "adapting", "checking the adaptation", "patch embeddings", "coreset", "position weights",
        "calibration",
    ]  # fmt: skip
    for reports in seen.values():
        done = [report[0] for report in reports]
        assert done == sorted(done)
        assert reports[-1][0] == reports[-1][1] > 0
        assert len({total for _, total in reports}) == 1


def test_the_plan_is_told_before_any_work_and_may_stop_it(folder: Path) -> None:
    plans: list[FitPlan] = []
    worked: list[str] = []

    def stop(plan: FitPlan) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(folder, tiny_options(bank=BankSize(rows=64)), lambda stage, _done, _total: worked.append(stage), stop)
    assert set(worked) <= {"checking files", "looking for copies"}  # cheap, and the plan depends on them
    (plan,) = plans
    assert (len(plan.bank_images), len(plan.calibration_images)) == (HELD_OUT, HELD_OUT)
    assert (plan.patch_count, plan.embedding_dim, plan.bank_rows) == (HELD_OUT * 24, 4, 64)
    assert plan.bank_mb == pytest.approx(64 * 4 * 4 / 1e6)
    assert plan.memory is not None
    assert not plan.streaming


def test_the_parity_record_replays_and_a_changed_bank_does_not(parts: PackageParts, tmp_path: Path) -> None:
    assert len(parts.parity) == 6
    export.package(parts, tmp_path / "plate.onceover")
    report = Inspector.open(tmp_path / "plate.onceover").verify()
    assert report["images"] == 6
    assert report["largest_relative_difference"] == 0  # the same machine and engine
    changed = replace(parts, state={"memory_bank": parts.state["memory_bank"] + np.float32(0.01)})
    with pytest.raises(VerificationError, match="parity image 0"):
        export.package(changed, tmp_path / "changed.onceover")
    assert not (tmp_path / "changed.onceover").exists()


def test_reference_images_are_small_whatever_the_size_of_the_camera(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    for i in range(2):
        write_image(tmp_path / f"big/{i}.png", tiny_image(i, 1200, 1600))
    data = assemble(fit(tmp_path / "big", tiny_options(holdout=0))).bytes()
    assert len(data) < (2 * 3 + 1) * 509 * 509 + 3 * 101 * 509 + 50_000  # two pictures, a gray one, a strip


def test_the_manifest_tells_provenance_without_paths_or_times(folder: Path, parts: PackageParts) -> None:
    manifest = parts.manifest
    text = json.dumps(manifest)
    assert str(folder) not in text
    assert str(folder.parent.parent.parent) not in text
    assert not {"time", "date", "created", "host", "user"} & set(manifest)
    assert manifest["name"] == "plate"
    assert manifest["onceover"] == onceover.__version__
    assert manifest["backbone"]["weights"]["license"] == "Apache-2.0"
    assert manifest["detector"]["bank_rows"] == len(parts.state["memory_bank"])
    data = manifest["data"]
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in data["bank_images"]]
    assert data["bank_sha256"] == hashes


@pytest.mark.parametrize(
    ("path", "name"), [("tile/train/good", "tile"), ("Tile/GOOD", "Tile"), ("bolts", "bolts"), ("ok/tile/ok", "tile")]
)
def test_a_product_is_named_after_its_folder(tmp_path: Path, path: str, name: str) -> None:
    assert product_name(tmp_path / path) == name


def test_a_package_that_fails_its_verification_is_not_written(
    parts: PackageParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "plate.onceover"
    target.write_bytes(b"an older package")

    def fail(data: bytes, engine: str) -> str:
        raise VerificationError("does not reproduce")

    monkeypatch.setattr(export, "verify_bytes", fail)
    with pytest.raises(VerificationError):
        export.package(parts, target)
    assert target.read_bytes() == b"an older package"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"x" + data[1:]])
def test_a_package_that_cannot_be_read_back_is_not_kept(
    parts: PackageParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    def lose(path: str, data: bytes) -> None:
        Path(path).write_bytes(damage(data))

    monkeypatch.setattr(_core, "save_atomically", lose)
    with pytest.raises(PackageError):
        export.package(parts, tmp_path / "plate.onceover")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_package(
    parts: PackageParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "plate.onceover"
    old_id = export.package(parts, target)

    def full(path: str, data: bytes) -> None:
        raise OutputError(f"{path}: no space left")

    monkeypatch.setattr(_core, "save_atomically", full)
    with pytest.raises(OutputError):
        export.package(parts, target)
    assert Inspector.open(target).package.id == old_id


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"detector": "patchcor"}, UnknownNameError, "did you mean 'patchcore'"),
        ({"engine": "onxruntime"}, UnknownNameError, "did you mean 'onnxruntime'"),
        ({"backbone": "mobilenetv4_conv"}, UnknownNameError, "did you mean 'mobilenetv4_conv_small'"),
        ({"seed": -1}, UsageError, "seed is -1"),
        ({"blur_sigma": -1.0}, UsageError, "blur_sigma"),
        ({"blur_sigma": float("nan")}, UsageError, "blur_sigma"),
        ({"threads": 0}, UsageError, "threads must be between 1 and 256, got 0"),
        ({"holdout": 38}, UsageError, "leaves none for the memory bank"),
        ({"false_alarm_rate": 0.0}, UsageError, "between 0 and 1"),
        ({"groups": Path("nowhere.csv")}, InputError, "nowhere.csv"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(
    folder: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    worked: list[str] = []
    with pytest.raises(error, match=says):
        fit(folder, tiny_options(**changes), lambda stage, done, _total: worked.append(stage) if done else None)
    assert set(worked) <= {"checking files", "looking for copies"}  # cheap, and the plan depends on them


def test_the_package_function_of_the_front_door_fits_writes_and_opens(few: Path, tmp_path: Path) -> None:
    inspector = onceover.fit(few, tmp_path / "few.onceover", FitOptions(backbone=tiny_graph(), name="bolts"))
    assert inspector.manifest["name"] == "bolts"
    assert (tmp_path / "few.onceover").is_file()


def test_copies_of_an_image_are_one_part_and_never_on_both_sides(tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "plate", HELD_OUT - 1)
    for image in sorted(folder.iterdir()):
        (folder / f"copy_{image.name}").write_bytes(image.read_bytes())
    plans: list[FitPlan] = []
    parts = fit(folder, tiny_options(), on_plan=plans.append)
    assert plans[0].copies == {f"copy_{i:02}.png": f"{i:02}.png" for i in range(HELD_OUT - 1)}
    assert not parts.calibration.calibrated  # half as many parts as files: too few for the default rate
    originals = [{name.removeprefix("copy_") for name in side} for side in (bank_images(parts), held_out(parts))]
    assert originals[0].isdisjoint(originals[1])
    assert len(bank_images(parts)) + len(held_out(parts)) == 2 * (HELD_OUT - 1)
