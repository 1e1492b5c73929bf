"""`onceover calibrate`: thresholds from other parts; parts by folder or table; what the bank has seen is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_data import HELD_OUT, defective, good_folder, tiny_options
from tiny_package import tiny_image

import onceover
from onceover import _core, export
from onceover.cli import main
from onceover.detectors import BankSize
from onceover.errors import InputError, UsageError
from onceover.export.recalibrate import CalibrateOptions, calibrate_package
from onceover.export.repackage import take_apart
from onceover.file_hash import file_hash
from onceover.images import read_image, write_image
from onceover.runtime.assemble import parity_item
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.training.calibrate import calibrate
from onceover.training.fit import fit
from onceover.training.refit import refit

NORMALS = 40


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recalibrate")
    options = tiny_options(bank=BankSize(ratio=0.5))  # a dozen rows of each image
    export.package(fit(good_folder(folder / "train/good", 2 * HELD_OUT), options), folder / "tiny.onceover")
    return folder / "tiny.onceover"


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("normals") / "good", NORMALS, 2000)


def bank_image(fitted: Path, i: int = 0) -> Path:
    return fitted.parent / "train/good" / str(open_package(fitted).manifest["data"]["bank_images"][i])


def expected(package: Path, images: list[Path], groups: list[Any] | None, rate: float, sure: float | None) -> Any:
    """The calibration, from verdicts of the package as it was."""
    with Inspector.open(package) as inspector:
        seen = [inspector.session.run(read_image(path)) for path in images]
    return calibrate([each.score for each in seen], [each.map_maximum for each in seen], groups, rate, sure)


@pytest.mark.parametrize(("rate", "confidence"), [(None, None), (0.1, None), (0.2, 0.95)])
def test_the_new_thresholds_are_the_conformal_ones_of_the_images_given(
    fitted: Path, normals: Path, tmp_path: Path, rate: float | None, confidence: float | None
) -> None:
    options = CalibrateOptions(false_alarm_rate=rate, confidence=confidence)
    report = calibrate_package(fitted, normals, tmp_path / "new.onceover", options)
    wanted = expected(fitted, sorted(normals.iterdir()), None, rate or 0.05, confidence)
    with Inspector.open(tmp_path / "new.onceover") as inspector:
        found = inspector.calibration
        assert (found.threshold, found.map_threshold) == (wanted.threshold, wanted.map_threshold)
        assert (found.n, found.false_alarm_rate, found.confidence) == (NORMALS, rate or 0.05, confidence)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        np.testing.assert_array_equal(found.map_maxima, wanted.map_maxima)
        assert inspector.verify()["images"] > 0
    assert (report.threshold, report.parts, report.images) == (wanted.threshold, NORMALS, NORMALS)
    assert report.threshold_before == Inspector.open(fitted).calibration.threshold
    assert report.realised_rate[0] < (rate or 0.05)


def test_everything_else_of_the_package_stays_byte_for_byte(fitted: Path, normals: Path, tmp_path: Path) -> None:
    calibrate_package(fitted, normals, tmp_path / "new.onceover")
    old, new = open_package(fitted), open_package(tmp_path / "new.onceover")
    assert [member.name for member in old.members] == [member.name for member in new.members]
    changed = {a.name for a, b in zip(old.members, new.members, strict=True) if a.sha256 != b.sha256}
    assert changed <= {"calibration", "calibration_patches", "manifest.json", "parity"}
    data, before = new.manifest["data"], old.manifest["data"]
    assert data["bank_images"] == before["bank_images"]
    assert data["calibration_sha256"] == [file_hash(path) for path in sorted(normals.iterdir())]
    assert new.manifest["calibration"]["recalibrated_from"] == old.id
    assert old.core.version == new.core.version


def test_the_same_input_gives_the_same_bytes(fitted: Path, normals: Path, tmp_path: Path) -> None:
    for name in ("a.onceover", "b.onceover"):
        calibrate_package(fitted, normals, tmp_path / name)
    assert (tmp_path / "a.onceover").read_bytes() == (tmp_path / "b.onceover").read_bytes()


def test_a_package_is_replaced_whole_when_asked_and_else_left_alone(
    fitted: Path, normals: Path, tmp_path: Path
) -> None:
    package = tmp_path / "part.onceover"
    package.write_bytes(fitted.read_bytes())
    with pytest.raises(UsageError, match="is the package itself"):
        calibrate_package(package, normals, package)
    with Inspector.open(package) as still_open:  # the mapping keeps the old file
        report = onceover.calibrate(package, normals, options=CalibrateOptions(false_alarm_rate=0.1))
        assert still_open.calibration.false_alarm_rate == 0.05
        assert still_open.inspect(tiny_image(100)).score >= 0
    assert open_package(package).id == report.package_id != report.source_id
    assert Inspector.open(package).calibration.false_alarm_rate == 0.1
    before = package.read_bytes()
    with pytest.raises(UsageError, match="takes at least 99"):
        calibrate_package(package, normals, options=CalibrateOptions(false_alarm_rate=0.01))
    assert package.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["part.onceover"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"false_alarm_rate": 0.01}, "takes at least 99 held-out normal images .* 40 support 0.0244 at best"),
        ({"confidence": 0.95}, "of 0.05 with 0.95 confidence takes at least 59 .* 40 support 0.0722 at best"),
        ({"confidence": 1.5}, "usually 0.95"),
        ({"false_alarm_rate": 0.0}, "between 0 and 1"),
    ],
)
def test_a_rate_that_the_parts_do_not_support_is_refused_with_the_number_it_takes(
    fitted: Path, normals: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        calibrate_package(fitted, normals, tmp_path / "new.onceover", CalibrateOptions(**options))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- parts


def test_folders_of_images_are_parts_and_a_part_counts_once(fitted: Path, tmp_path: Path) -> None:
    for part in range(20):
        good_folder(tmp_path / f"normals/part {part}", 2, 3000 + 10 * part)
    report = calibrate_package(fitted, tmp_path / "normals", tmp_path / "new.onceover")
    assert (report.parts, report.images, report.grouping) == (20, 40, "each of 20 folders is a part")
    images = sorted((tmp_path / "normals").glob("*/*.png"))
    wanted = expected(fitted, images, [path.parent for path in images], 0.05, None)
    assert report.threshold == wanted.threshold
    assert len(set(open_package(tmp_path / "new.onceover").manifest["data"]["calibration_groups"])) == 20


def test_a_table_of_groups_goes_before_folders(fitted: Path, normals: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in normals.iterdir())
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"{n},{i // 2}\n" for i, n in enumerate(names)))
    report = calibrate_package(
        fitted, normals, tmp_path / "new.onceover", CalibrateOptions(groups=tmp_path / "groups.csv")
    )
    assert (report.parts, report.images, report.grouping) == (20, 40, "parts as groups.csv tells")


def test_copies_of_an_image_are_one_part(fitted: Path, normals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in sorted(normals.iterdir())[:20]:
        for copy in range(2):
            (folder / f"{copy}_{path.name}").write_bytes(path.read_bytes())
    report = calibrate_package(fitted, folder, tmp_path / "new.onceover")
    assert (report.parts, report.images) == (20, 40)
    assert report.copies == {f"1_{path.name}": f"0_{path.name}" for path in sorted(normals.iterdir())[:20]}


def test_a_data_set_calibrates_by_its_validation_split(fitted: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    good_folder(root / "train/good", 3, 4000)
    good_folder(root / "validation/good", 25, 4100)
    good_folder(root / "test/good", 2, 4200)
    (root / "test/bad").mkdir()
    write_image(root / "test/bad/0.png", defective(tiny_image(4300))[0])
    report = calibrate_package(fitted, root, tmp_path / "new.onceover", CalibrateOptions(layout="mvtec_loco"))
    assert report.images == 25


# ---------------------------------------------------------------- leaks


def test_parts_whose_other_pictures_are_in_the_bank_are_refused_by_the_table(
    fitted: Path, normals: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in normals.iterdir())
    lines = [f"good/{name},part {i}" for i, name in enumerate(names)]  # in part the names that bank images have, too
    bank = bank_image(fitted).name

    def calibrated(*more: str) -> Any:
        (normals.parent / "groups.csv").write_text("\n".join(["file,group", *lines, *more]) + "\n")
        options = CalibrateOptions(groups=normals.parent / "groups.csv")
        return calibrate_package(fitted, normals, tmp_path / "new.onceover", options)

    assert calibrated(f"train/good/{bank},part 1000").parts == NORMALS
    with pytest.raises(InputError, match=rf"1 of the groups .* memory bank .*: {bank} \(group part 7\); give images"):
        calibrated(f"train/good/{bank},part 7")
    assert calibrated(f"train/good/{bank},part 7", f"other/good/{bank},part 1000").parts == NORMALS  # which is it?


def test_an_export_is_calibrated_in_its_own_engine(fitted: Path, normals: Path, tmp_path: Path) -> None:
    package = open_package(fitted)
    parts = take_apart(package, package.core.read("graph.onnx"))
    references = _core.read_parity(package.core)["images"]
    session = Inspector.open(package).session
    parts = replace(
        parts,
        parity=tuple(parity_item(session, each["image"], each["color"]) for each in references),
        manifest={**package.manifest, "export": {"engine": "openvino", "precision": "int8"}},
    )
    export.package(parts, tmp_path / "x.onceover")
    with pytest.raises(UsageError, match=r"was exported for openvino.* calibrate it with --engine openvino"):
        calibrate_package(tmp_path / "x.onceover", normals, tmp_path / "new.onceover")


def saved_as(name: str, change: Callable[[Any], Any] = lambda image: image) -> Callable[[Path, Path], None]:
    return lambda source, folder: write_image(folder / name, change(read_image(source)))


RESAVED = {
    "another format": saved_as("leak.bmp"),
    "JPEG": saved_as("leak.jpg"),
    "noise of a unit": saved_as(
        "leak.png", lambda image: image ^ (np.arange(image.size).reshape(image.shape) % 2 == 0)
    ),
    "one row less": saved_as("leak.png", lambda image: np.ascontiguousarray(np.repeat(image, 2, 0).repeat(2, 1))),
}


def test_a_copy_of_a_bank_image_is_refused_by_name_before_anything_is_scored(
    fitted: Path, normals: Path, tmp_path: Path
) -> None:
    folder = good_folder(tmp_path / "good", 20, 2000)
    (folder / "innocent.png").write_bytes(bank_image(fitted).read_bytes())
    with pytest.raises(InputError, match=r"1 of 21 images are in the memory bank .* byte for byte: innocent.png"):
        calibrate_package(fitted, folder, tmp_path / "new.onceover", CalibrateOptions(allow_similar=True))


@pytest.mark.parametrize("how", RESAVED)
def test_a_bank_image_saved_again_is_refused_by_its_patches(fitted: Path, tmp_path: Path, how: str) -> None:
    folder = good_folder(tmp_path / "good", 20, 2000)
    RESAVED[how](bank_image(fitted, 3), folder)
    with pytest.raises(InputError, match=r"1 of 21 images look like images in the memory bank") as refused:
        calibrate_package(fitted, folder, tmp_path / "new.onceover")
    assert f"leak.{ {'another format': 'bmp', 'JPEG': 'jpg'}.get(how, 'png') } ({bank_image(fitted, 3).name}, " in str(
        refused.value
    )
    report = calibrate_package(fitted, folder, tmp_path / "new.onceover", CalibrateOptions(allow_similar=True))
    assert report.parts == 21


@pytest.mark.parametrize("weight", [0.01, 100.0])
def test_what_the_bank_has_seen_is_told_by_distances_and_not_by_what_they_count(
    fitted: Path, tmp_path: Path, weight: float
) -> None:
    core, writer = open_package(fitted).core, _core.PackageWriter()
    for member in core.members:
        content: Any = core.read(member["name"]) if member["type"] == "bytes" else core.array(member["name"])
        if member["name"] == "position_weights":
            content = np.full_like(content, weight)
        writer.add(member["name"], content, required=member["required"])
    writer.save(str(tmp_path / "weighed.onceover"))
    folder = good_folder(tmp_path / "good", 20, 2000)
    assert calibrate_package(tmp_path / "weighed.onceover", folder, tmp_path / "new.onceover").parts == 20
    RESAVED["JPEG"](bank_image(fitted, 3), folder)
    with pytest.raises(InputError, match=r"1 of 21 images look like images in the memory bank .*: leak.jpg"):
        calibrate_package(tmp_path / "weighed.onceover", folder, tmp_path / "new.onceover")


def test_a_whole_folder_of_resaved_bank_images_is_caught_and_would_have_lowered_the_threshold(
    fitted: Path, normals: Path, tmp_path: Path
) -> None:
    folder, leaks = tmp_path / "leaky", len(open_package(fitted).manifest["data"]["bank_images"])
    folder.mkdir()
    for i in range(leaks):
        write_image(folder / f"{i}.bmp", read_image(bank_image(fitted, i)))
    with pytest.raises(InputError, match=f"{leaks} of {leaks} images look like"):
        calibrate_package(fitted, folder, tmp_path / "new.onceover")
    leaky = calibrate_package(fitted, folder, tmp_path / "leaky.onceover", CalibrateOptions(allow_similar=True))
    honest = calibrate_package(fitted, normals, tmp_path / "honest.onceover")
    assert leaky.threshold is not None
    assert honest.threshold is not None
    assert leaky.threshold < honest.threshold
    assert any("score lower than those that calibrated the package before" in note for note in leaky.notes)
    assert honest.notes == ()
    with Inspector.open(tmp_path / "leaky.onceover") as inspector:
        alarms = sum(inspector.inspect(path).decision == "anomalous" for path in normals.iterdir())
    assert alarms > 0.3 * NORMALS  # 5 % were asked for


def test_bank_images_trimmed_by_a_pixel_are_noticed_by_their_scores(fitted: Path, tmp_path: Path) -> None:
    # Each patch sees something else and lies elsewhere, but all of them score low; docs/calibration.md says how much.
    (tmp_path / "trimmed").mkdir()
    for i in range(19):
        trimmed = np.ascontiguousarray(read_image(bank_image(fitted, i))[1:-1, 1:-1])
        write_image(tmp_path / f"trimmed/{i}.png", trimmed)
    options = CalibrateOptions(allow_similar=True)
    report = calibrate_package(fitted, tmp_path / "trimmed", tmp_path / "new.onceover", options)
    assert any("a crop or another picture of what is in the bank" in note for note in report.notes)


def test_an_empty_background_that_all_parts_share_is_no_leak(tmp_path: Path) -> None:
    def on_black(seed: int) -> Any:
        image = np.zeros((64, 96, 3), np.uint8)
        image[16:40, 24:60] = tiny_image(seed, 24, 36)
        return image

    for folder, count, first in (("train", 44, 0), ("normals", 22, 500)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            write_image(tmp_path / folder / f"{i:02}.png", on_black(first + i))
    export.package(fit(tmp_path / "train", tiny_options()), tmp_path / "black.onceover")
    assert calibrate_package(tmp_path / "black.onceover", tmp_path / "normals", tmp_path / "new.onceover").parts == 22


def test_a_package_without_sources_says_that_only_copies_were_looked_for(
    fitted: Path, normals: Path, tmp_path: Path
) -> None:
    package = open_package(fitted).core
    writer = _core.PackageWriter()
    for member in package.members:
        if member["name"] != "bank_source":
            content: Any = package.read(member["name"])
            if member["type"] != "bytes":
                content = np.array(package.array(member["name"]))
            writer.add(member["name"], content, required=member["required"])
    writer.save(str(tmp_path / "old.onceover"))
    report = calibrate_package(tmp_path / "old.onceover", normals, tmp_path / "new.onceover")
    assert any("only exact copies" in note for note in report.notes)


# ---------------------------------------------------------------- what comes after


def test_a_package_calibrated_again_can_be_refitted_where_all_its_images_are(fitted: Path, tmp_path: Path) -> None:
    good_folder(fitted.parent / "train/good/others", NORMALS, 2000)
    calibrate_package(fitted, fitted.parent / "train/good/others", tmp_path / "new.onceover")
    package = open_package(tmp_path / "new.onceover")
    again = refit(package, package.core.read("graph.onnx"), fitted.parent / "train/good")
    np.testing.assert_array_equal(again.calibration.scores, Inspector.open(package).calibration.scores)


def test_the_command_shows_what_changed(
    fitted: Path, normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", str(fitted), str(normals), "--confidence", "0.8"]
    assert main([*words]) == 2
    assert "-o FILE for the new package, or --replace" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "new.onceover")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "40 parts, 40 images: every image is a part" in said
    assert "with 80.0 % confidence that this threshold keeps it" in said
    assert main([*words, "-o", str(tmp_path / "new.onceover"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parts"], told["confidence"], told["method_before"]) == (40, 0.8, "split conformal")
    assert main(["inspect", str(tmp_path / "new.onceover"), str(normals / "00.png"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["calibration"]
    assert facts == {"method": "split conformal", "parts": 40, "confidence": 0.8, "false_alarm_rate": 0.05}
    assert main(["verify", str(tmp_path / "new.onceover")]) == 0
    assert "5 % with 80 % confidence, 40 parts" in " ".join(capsys.readouterr().out.split())
