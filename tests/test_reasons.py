"""The reason of a verdict: which patch of which normal image is nearest, told truly or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from tiny_data import HELD_OUT, defective, good_folder, tiny_options
from tiny_package import TinyOptions, tiny_image, tiny_package

from onceover import _core, export
from onceover.cli import main
from onceover.errors import InputError, PackageError
from onceover.images import read_image, write_image
from onceover.runtime.assemble import PackageParts
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.reasons import NO_IMAGE, patch_at, patch_box
from onceover.runtime.session import EngineOptions
from onceover.training.fit import fit
from onceover.training.normal_images import find_normal_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("reasons") / "plate" / "train" / "good", 2 * HELD_OUT)


@pytest.fixture(scope="module")
def parts(folder: Path) -> PackageParts:
    return fit(folder, tiny_options(thumbnails=64, adapt=True))


@pytest.fixture
def work(parts: PackageParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with part.onceover, good.png and bad.png."""
    monkeypatch.chdir(tmp_path)
    export.package(parts, "part.onceover")
    write_image("good.png", tiny_image(900))
    write_image("bad.png", defective(tiny_image(901))[0])
    return tmp_path


def changed(parts: PackageParts, path: Path, source: Any = None, manifest: Any = None) -> Inspector:
    """The package with another bank_source or manifest, open."""
    new = replace(parts, manifest=parts.manifest if manifest is None else manifest, thumbnails=None)
    export.package(new if source is None else replace(new, bank_source=source), path)
    return Inspector.open(path)


def test_the_reason_names_the_patch_that_a_brute_force_over_the_bank_images_finds(
    parts: PackageParts, folder: Path, work: Path
) -> None:
    inspector = Inspector.open("part.onceover")
    embedder = _core.Embedder(_core.read_config(inspector.package.core), parts.graph, EngineOptions().resolve())
    assert parts.adaptation is not None
    for seed in range(940, 950):
        image = tiny_image(seed) if seed % 2 else defective(tiny_image(seed))[0]
        verdict = inspector.inspect(image)
        reason = verdict.reason
        assert reason is not None
        assert (reason.patch, reason.bank_row) == (verdict.worst_patch, verdict.nearest)
        assert reason.distance == verdict.score
        assert verdict.threshold is not None
        assert reason.times_threshold == pytest.approx(verdict.score / verdict.threshold)
        assert reason.image == inspector.manifest["data"]["bank_images"][reason.image_index or 0]
        # The named patch of the named file is as far away as the verdict says, and nothing in the bank is nearer.
        assert reason.image_patch is not None
        pictures = ((read_image(folder / str(reason.image)), reason.image_patch), (image, reason.patch))
        there, here = (
            _core.adapt(embedder.embed(picture), parts.adaptation)[patch[0] * 6 + patch[1]]
            for picture, patch in pictures
        )
        weight = 1 if parts.position_weights is None else parts.position_weights[reason.patch]
        assert weight * np.linalg.norm(here.astype(float) - there) == pytest.approx(reason.distance, rel=1e-5)
        nearest = np.linalg.norm(parts.state["memory_bank"].astype(float) - here, axis=1).min()
        assert weight * nearest == pytest.approx(reason.distance, rel=1e-5)


def test_each_region_has_the_reason_of_the_patch_under_its_peak(work: Path) -> None:
    inspector = Inspector.open("part.onceover")
    verdict = inspector.inspect(read_image("bad.png"))
    assert verdict.regions
    for region in verdict.regions:
        assert region.reason is not None
        top, left, bottom, right = region.reason.box
        assert top <= (region.peak[0] + 0.5) / 40 <= bottom
        assert left <= (region.peak[1] + 0.5) / 56 <= right
        assert region.reason.distance == verdict.patch_scores[region.reason.patch]
        assert region.reason.bank_row == inspector.session.nearest_rows()[region.reason.patch]


def test_the_range_of_normal_scores_is_that_of_the_calibration(parts: PackageParts, work: Path) -> None:
    verdict = Inspector.open("part.onceover").inspect(read_image("good.png"))
    scores = parts.calibration.scores
    found = verdict.normal_range
    assert found is not None
    assert (found.lowest, found.median, found.highest) == (scores[0], np.median(scores), scores[-1])
    assert found.threshold == verdict.threshold


def test_an_uncalibrated_package_has_a_reason_without_a_multiple(tmp_path: Path) -> None:
    inspector = Inspector.open(tiny_package(tmp_path / "t.onceover", TinyOptions(calibrated=False)))
    verdict = inspector.inspect(tiny_image(300))
    assert verdict.reason is not None
    assert verdict.reason.times_threshold is None
    assert verdict.normal_range is not None
    assert verdict.normal_range.highest is verdict.normal_range.threshold is None
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_without_a_source_the_bank_row_alone_is_named(tmp_path: Path) -> None:
    verdict = Inspector.open(tiny_package(tmp_path / "t.onceover")).inspect(tiny_image(300))
    assert verdict.reason is not None
    assert verdict.reason.bank_row == verdict.nearest
    assert (verdict.reason.image, verdict.reason.image_index, verdict.reason.image_box) == (None, None, None)


def test_rows_that_come_from_no_image_say_so(parts: PackageParts, tmp_path: Path) -> None:
    source = np.array(parts.bank_source)
    source[:, 0] = NO_IMAGE
    inspector = changed(parts, tmp_path / "p.onceover", source)
    verdict = inspector.inspect(tiny_image(300))
    assert verdict.reason is not None
    assert verdict.reason.image is None
    assert inspector.bank_images.used == ()


def test_without_names_the_number_of_the_image_is_told(parts: PackageParts, tmp_path: Path) -> None:
    inspector = changed(parts, tmp_path / "p.onceover", manifest={"name": "part"})
    verdict = inspector.inspect(tiny_image(300))
    assert verdict.reason is not None
    assert verdict.reason.image is None
    assert verdict.reason.image_index == parts.bank_source[verdict.nearest][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda source: source[:-1], "expected uint32"),
        (lambda source: source.astype(np.float32), "is float32"),
        (lambda source: source + np.uint32([1000, 0]), "names image 10"),
        (lambda source: source + np.uint32([0, 24]), "and patch"),
    ],
)
def test_a_source_that_does_not_fit_the_bank_is_refused(
    parts: PackageParts, tmp_path: Path, damage: Callable[[Any], Any], says: str
) -> None:
    with pytest.raises(PackageError, match="member 'bank_source'") as refused:
        changed(parts, tmp_path / "p.onceover", damage(np.array(parts.bank_source)))
    assert says in str(refused.value)


def test_boxes_cover_the_image_and_a_pixel_lies_in_its_patch() -> None:
    assert patch_box((0, 0), (4, 6)) == (0, 0, 0.25, 1 / 6)
    assert patch_box((3, 5), (4, 6)) == (0.75, 5 / 6, 1, 1)
    for size in ((40, 56), (4, 6), (7, 5), (100, 3)):
        for pixel in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
            top, left, bottom, right = patch_box(patch_at(pixel, size, (4, 6)), (4, 6))
            assert top <= pixel[0] / size[0] < bottom
            assert left <= pixel[1] / size[1] < right


def test_inspect_says_it_in_words_for_what_is_not_normal(work: Path, capsys: Capture) -> None:
    assert main(["inspect", "part.onceover", "good.png", "bad.png"]) == 1
    told = capsys.readouterr().out
    assert "bad.png: worst at" in told
    assert "nearest normal: " in told
    assert "× threshold" in told
    assert "good.png: worst" not in told


def test_inspect_tells_machines_all_of_it(work: Path, capsys: Capture) -> None:
    _, told = answer(capsys, "inspect", "part.onceover", "good.png", "bad.png")
    good, bad = told["results"]
    assert good["reason"]["image"].endswith(".png")
    assert bad["reason"]["times_threshold"] > 1 > good["reason"]["times_threshold"]
    assert bad["regions"][0]["reason"]["image_patch"]
    assert len(bad["regions"][0]["centroid"]) == 2
    assert "contour" not in bad["regions"][0]
    _, told = answer(capsys, "inspect", "part.onceover", "bad.png", "--contours")
    assert np.asarray(told["results"][0]["regions"][0]["contour"]).shape[1] == 2


def test_normal_images_are_found_by_their_bytes_whatever_they_are_called(
    parts: PackageParts, folder: Path, work: Path
) -> None:
    package = open_package("part.onceover")
    names = parts.manifest["data"]["bank_images"]
    for i, path in enumerate(sorted(folder.iterdir())):
        target = work / "moved" / f"renamed {i}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    found = find_normal_images(package, work / "moved")
    assert sorted(found) == list(Inspector.open(package).bank_images.used)
    for image, path in found.items():
        assert path.read_bytes() == (folder / names[image]).read_bytes()
    some = find_normal_images(package, folder, wanted=[0, 2])
    assert {image: path.name for image, path in some.items()} == {0: names[0], 2: names[2]}
    for folder_name in ("others", "empty"):
        (work / folder_name).mkdir()
    write_image(work / "others" / names[0], tiny_image(777))  # the right name is not enough
    assert find_normal_images(package, work / "others") == {}
    with pytest.raises(InputError, match="no images found"):
        find_normal_images(package, work / "empty")


def test_an_explanation_is_drawn_for_every_image_with_whatever_picture_there_is(
    parts: PackageParts, folder: Path, work: Path, capsys: Capture
) -> None:
    pictures = {}
    export.package(replace(parts, thumbnails=None), "bare.onceover")
    for name, words in {
        "thumbnail": ["part.onceover"], "file": ["bare.onceover", "--normals", str(folder)], "none": ["bare.onceover"],
    }.items():  # fmt: skip
        status, told = answer(capsys, "inspect", *words, "good.png", "bad.png", "--explain", name)
        assert status == 1
        assert all(Path(row["explanation"]).parent == Path(name) for row in told["results"])
        pictures[name] = [read_image(row["explanation"]) for row in told["results"]]
        assert {picture.shape for picture in pictures[name]} == {(580, 1000, 3)}
    normal = np.s_[84:324, 740:980]
    for thumbnail, file, none in zip(*pictures.values(), strict=True):
        near = np.abs(thumbnail[normal].astype(int) - file[normal]).mean()
        far = np.abs(none[normal].astype(int) - file[normal]).mean()
        assert near < 12 < far  # the thumbnail shows what the file shows; without both there are words
        np.testing.assert_array_equal(thumbnail[:, :730], none[:, :730])


def test_explanations_have_a_folder_by_default_and_normals_need_them(work: Path, capsys: Capture) -> None:
    assert main(["inspect", "part.onceover", "good.png", "--explain"]) == 0
    assert "explanations: explained" in capsys.readouterr().out
    assert len(list(Path("explained").iterdir())) == 1
    status, message = refusal(capsys, "inspect", "part.onceover", "good.png", "--normals", ".")
    assert status == 2
    assert "give it with --explain" in message
    status, message = refusal(capsys, "inspect", "part.onceover", "good.png", "--save", "a", "--explain", "./a")
    assert status == 2
    assert "give them two" in message
    status, message = refusal(capsys, "inspect", "part.onceover", "good.png", "--explain", "good.png")
    assert status != 0
    assert "--explain" in message
