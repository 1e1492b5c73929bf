"""Fitting again on the original images: they are found by their bytes, and the same graph gives the same package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image, tiny_package

from onceover import _core, export
from onceover.detectors.patchcore import BankSize, PatchCore
from onceover.errors import InputError, MemoryLimitError, NotFittedError
from onceover.file_hash import file_hash
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts, assemble
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.session import EngineOptions
from onceover.training import fit as fitting
from onceover.training.fit import fit
from onceover.training.memory_plan import FitSize, MemoryPlan, plan_memory
from onceover.training.refit import find_images, refit, used_images

GRAPH = tiny_graph()


@dataclass(frozen=True)
class Fitted:
    parts: PackageParts
    folder: Path  # of its images
    package: PackageFile


def fitted_in(root: Path, count: int, **options: object) -> Fitted:
    folder = good_folder(root / "train/good", count)
    parts = fit(folder, tiny_options(**options))
    export.package(parts, root / "tiny.onceover")
    return Fitted(parts, folder, open_package(root / "tiny.onceover"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fitted_in(tmp_path_factory.mktemp("refit"), 2 * HELD_OUT, adapt=True)


def members_but_manifest(parts: PackageParts) -> dict[str, bytes]:
    package = _core.Package.view(assemble(parts).bytes(), "made")
    return {each["name"]: package.read(each["name"]) for each in package.members if each["name"] != "manifest.json"}


def rewritten(fitted: Fitted, path: Path, change: Callable[[dict[str, Any]], None]) -> PackageFile:
    """The package with another manifest."""
    manifest = json.loads(json.dumps(fitted.parts.manifest))
    change(manifest)
    export.package(replace(fitted.parts, manifest=manifest), path)
    return open_package(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"coreset": "random", "seed": 3},
        {"bank": BankSize(rows=40), "blur_sigma": 1.0},
        {"false_alarm_rate": 0.25, "holdout": 5},
        {"holdout": 3},  # too few: uncalibrated
        {"holdout": 0},
        {"adapt": True},
        {"adapt": False},
    ],
)
def test_the_same_graph_gives_the_original_again_bit_for_bit(options: dict[str, object], tmp_path: Path) -> None:
    fitted = fitted_in(tmp_path, 2 * HELD_OUT, **options)
    again = refit(fitted.package, GRAPH, fitted.folder)
    first, second = members_but_manifest(fitted.parts), members_but_manifest(again)
    assert list(first) == list(second)
    assert {"memory_bank", "bank_index", "bank_source", "calibration", "parity"} <= set(first)
    for name, content in first.items():
        assert second[name] == content, name
    assert again.calibration.threshold == fitted.parts.calibration.threshold
    assert (again.calibration.threshold is None) == (options.get("holdout") in (3, 0))
    for key in ("name", "data", "seed", "calibration", "backbone", "engine", "adaptation"):
        assert again.manifest[key] == fitted.parts.manifest[key]


@pytest.mark.parametrize("count", [2 * HELD_OUT, HELD_OUT])  # with parts held out; across folds
def test_a_refit_plans_to_learn_only_the_maps_that_the_package_does_not_hold(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, sizes, stages = fitted_in(tmp_path, count, adapt=True), list[FitSize](), set[str]()

    def plan(*arguments: Any) -> MemoryPlan:
        sizes.append(arguments[1])
        return plan_memory(*arguments)

    monkeypatch.setattr(fitting, "plan_memory", plan)
    refit(fitted.package, GRAPH, fitted.folder, progress=lambda stage, _done, _total: stages.add(stage))
    assert [size.adapted for size in sizes] == [True]
    assert (sizes[0].adapting_images > 0) == ("adapting" in stages) == (count == HELD_OUT)


def test_a_refit_keeps_to_the_memory_it_is_given_and_says_what_can_be_done(fitted: Fitted) -> None:
    advice = r"a refit needs about .* the limit is 1 MB \(as asked for\); allow more with --max-memory, free some, or"
    with pytest.raises(MemoryLimitError, match=advice):
        refit(fitted.package, GRAPH, fitted.folder, max_memory="1MB")
    roomy = refit(fitted.package, GRAPH, fitted.folder, max_memory="64GiB")
    assert members_but_manifest(roomy) == members_but_manifest(fitted.parts)


def test_another_graph_gives_its_own_features_of_the_same_patches(fitted: Fitted) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(GRAPH)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight[::-1] * np.float32(0.9), "weight"))
    graph = model.SerializeToString()
    again = refit(fitted.package, graph, fitted.folder)
    source = fitted.parts.bank_source
    assert source is not None
    np.testing.assert_array_equal(again.bank_source, source)
    embedder = _core.Embedder(_core.read_config(fitted.package.core), graph, EngineOptions().resolve())
    names = fitted.package.manifest["data"]["bank_images"]
    assert again.adaptation is not None
    np.testing.assert_array_equal(again.adaptation, fitted.parts.adaptation)
    for row, (image, patch) in zip(again.state["memory_bank"], source, strict=True):
        expected = embedder.embed(read_image(fitted.folder / names[image]))
        np.testing.assert_array_equal(row, _core.adapt(expected, again.adaptation)[patch])
    assert again.graph == graph
    assert again.calibration.threshold != fitted.parts.calibration.threshold
    assert again.calibration.calibrated


def test_images_are_found_in_a_moved_and_renamed_folder_among_others(fitted: Fitted, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(fitted.folder.iterdir(), reverse=True)):  # in another order
        target = tmp_path / f"archive/{i % 3}/part_{i:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    good_folder(tmp_path / "archive/others", 3, 700)
    again = refit(fitted.package, GRAPH, tmp_path / "archive")
    assert members_but_manifest(again) == members_but_manifest(fitted.parts)
    assert again.manifest["data"] == fitted.parts.manifest["data"]  # the names of the fit, not of this folder


def test_images_come_in_the_order_of_the_package(fitted: Fitted) -> None:
    bank, calibration = find_images(fitted.package, fitted.folder)
    data = fitted.package.manifest["data"]
    assert [path.name for path in bank] == data["bank_images"]
    assert [path.name for path in calibration] == data["calibration_images"]
    assert [file_hash(path) for path in bank] == data["bank_sha256"]
    assert used_images(fitted.package) == (set(data["bank_sha256"]), set(data["calibration_sha256"]))


def with_copies(root: Path) -> Fitted:
    """Six images, each in two files that are in the bank, or held out, together."""
    folder = good_folder(root / "train/good", 6)
    for path in sorted(folder.iterdir()):
        shutil.copy(path, folder / f"{path.stem} again.png")
    parts = fit(folder, tiny_options(holdout=2, bank=BankSize(ratio=1.0), coreset="random"))
    export.package(parts, root / "tiny.onceover")
    return Fitted(parts, folder, open_package(root / "tiny.onceover"))


@pytest.mark.parametrize("keep_copies", [True, False])
def test_copies_are_used_twice_whether_they_still_are_two_files_or_one(keep_copies: bool, tmp_path: Path) -> None:
    fitted = with_copies(tmp_path)
    data = fitted.package.manifest["data"]
    assert len(data["bank_sha256"]) + len(data["calibration_sha256"]) == 12
    for path in fitted.folder.glob("* again.png"):
        if not keep_copies:
            path.unlink()
    again = refit(fitted.package, GRAPH, fitted.folder)
    assert members_but_manifest(again) == members_but_manifest(fitted.parts)
    assert again.manifest["data"] == data
    assert (again.calibration.image_count, len(again.calibration.scores)) == (4, 2)  # copies show one part
    bank, calibration = find_images(fitted.package, fitted.folder)
    assert len({*bank, *calibration}) == (12 if keep_copies else 6)


def test_missing_images_are_listed_by_name(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copytree(fitted.folder, tmp_path / "some")
    data = fitted.package.manifest["data"]
    gone = [data["bank_images"][2], data["calibration_images"][0]]
    for name in gone:
        (tmp_path / "some" / name).unlink()
    with pytest.raises(InputError) as caught:
        refit(fitted.package, GRAPH, tmp_path / "some")
    message = str(caught.value)
    assert f"2 of {2 * HELD_OUT} images" in message
    assert all(name in message for name in gone)
    assert "give the folder of the original images" in message


def test_an_image_that_was_edited_is_missing_although_its_name_is_there(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copytree(fitted.folder, tmp_path / "edited")
    name = fitted.package.manifest["data"]["bank_images"][0]
    write_image(tmp_path / "edited" / name, tiny_image(12345))
    with pytest.raises(InputError, match=f"1 of {2 * HELD_OUT} images .*{name}"):
        find_images(fitted.package, tmp_path / "edited")


def test_a_folder_that_is_not_there_is_an_input_error(fitted: Fitted, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        refit(fitted.package, GRAPH, tmp_path / "nowhere")


def test_a_package_that_does_not_say_what_it_was_fitted_on_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    package = open_package(tiny_package(tmp_path / "tiny.onceover"))
    with pytest.raises(InputError, match=r"does not say what it was fitted on \(data\)"):
        refit(package, GRAPH, fitted.folder)
    assert used_images(package) == (set(), set())


@pytest.mark.parametrize(
    ("change", "section"),
    [
        (lambda manifest: manifest["data"].pop("calibration_sha256"), "data"),
        (lambda manifest: manifest["data"]["bank_images"].pop(), "data"),
        (lambda manifest: manifest["data"].update(calibration_groups=7), "data"),
        (lambda manifest: manifest.update(data=[]), "data"),
        (lambda manifest: manifest.pop("seed"), "data"),
        (lambda manifest: manifest["detector"].pop("coreset"), "detector"),
        (lambda manifest: manifest.update(detector="patchcore"), "detector"),
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(
    fitted: Fitted, change: Callable[[dict[str, Any]], None], section: str, tmp_path: Path
) -> None:
    package = rewritten(fitted, tmp_path / "changed.onceover", change)
    with pytest.raises(InputError, match=rf"changed.onceover: its manifest does not say .*\({section}\)"):
        refit(package, GRAPH, fitted.folder)
    bank, _ = used_images(package)
    assert bank == (set() if package.manifest["data"] == [] else set(fitted.parts.manifest["data"]["bank_sha256"]))


def test_without_the_record_of_patches_the_coreset_is_chosen_anew(fitted: Fitted, tmp_path: Path) -> None:
    export.package(replace(fitted.parts, bank_source=None), tmp_path / "old.onceover")
    again = refit(open_package(tmp_path / "old.onceover"), GRAPH, fitted.folder)
    np.testing.assert_array_equal(again.bank_source, fitted.parts.bank_source)  # by the same seed
    np.testing.assert_array_equal(again.state["memory_bank"], fitted.parts.state["memory_bank"])


def test_a_record_of_patches_that_are_not_there_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    source = np.array(fitted.parts.bank_source)
    source[0, 0] = HELD_OUT + 1
    export.package(replace(fitted.parts, bank_source=source), tmp_path / "wrong.onceover")
    spec = read_graph_spec(GRAPH, "tiny")
    last = HELD_OUT * spec.grid_height * spec.grid_width - 1
    with pytest.raises(InputError, match=f"chosen patches must be 0 to {last}"):
        refit(open_package(tmp_path / "wrong.onceover"), GRAPH, fitted.folder)


def embeddings(seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(500, 8)).astype(np.float32)


def test_a_refit_keeps_the_record_of_a_chosen_backbone(fitted: Fitted, tmp_path: Path) -> None:
    choice = {"backbone": "tiny", "budget_ms": 10}
    package = rewritten(fitted, tmp_path / "chosen.onceover", lambda manifest: manifest.update(choice=choice))
    assert refit(package, GRAPH, fitted.folder).manifest["choice"] == choice
    assert "choice" not in refit(fitted.package, GRAPH, fitted.folder).manifest


def test_patchcore_refits_the_patches_it_is_told() -> None:
    first, again = PatchCore(BankSize(rows=30)), PatchCore(BankSize(rows=30))
    first.fit(embeddings())
    again.refit(embeddings(), first.chosen)
    for name, member in first.state().items():
        np.testing.assert_array_equal(again.state()[name], member)
    again.refit(embeddings(2), np.array([7, 3, 3]))
    np.testing.assert_array_equal(again.state()["memory_bank"], embeddings(2)[[7, 3, 3]])
    assert again.describe()["bank_rows"] == 3


@pytest.mark.parametrize("chosen", [[], [-1], [0, 500]])
def test_patchcore_refuses_patches_that_do_not_exist(chosen: list[int]) -> None:
    detector = PatchCore()
    with pytest.raises(InputError, match="chosen patches must be 0 to 499"):
        detector.refit(embeddings(), np.array(chosen, np.int64))
    with pytest.raises(NotFittedError):
        detector.state()


def test_patchcore_refits_finite_embeddings_only() -> None:
    values = embeddings()
    values[123, 4] = np.nan
    with pytest.raises(InputError, match="embedding 123 is not finite"):
        PatchCore().refit(values, np.array([0]))
