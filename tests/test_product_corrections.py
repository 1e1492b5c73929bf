"""Corrections of several products in one package: each is decided exactly as by its own corrected package, the others
stay bit for bit as they were, and the commands say whose corrections they are. Journals: test_product_corrections.cpp.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from numpy.typing import NDArray
from tiny_package import tiny_image
from two_products import fit_plate_and_lid, other_image, third_image
from watch_script import at_pauses, nothing, watched

from onceover import Corrections, Inspector, MemoryBank, _core
from onceover.cli import main
from onceover.errors import UnknownNameError, UsageError
from onceover.export.combine import combine
from onceover.export.compact import compact
from onceover.images import write_image
from onceover.runtime.corrections import check_no_journal, corrections_in_force, journal_path
from onceover.runtime.package import member_name, open_package
from onceover.types import Verdict

NAMES = ("plate", "lid")
SEEDS = range(700, 704)


def marked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a black mark in the left half, which no training part has."""
    changed = image.copy()
    changed[8:18, 4:14] = 0
    return changed


@dataclass(frozen=True)
class Line:
    """A package of both products, their own ones, and false alarms of each, as files."""

    package: Path
    alone: dict[str, Path]
    alarms: dict[str, list[Path]]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("fitted")
    single = fit_plate_and_lid(root)
    combine(single, root / "line.onceover")
    alarms: dict[str, list[Path]] = {name: [] for name in NAMES}
    for name, picture in zip(NAMES, (tiny_image, other_image), strict=True):
        for seed in SEEDS:
            alarms[name].append(root / f"{name}_{seed}.png")
            write_image(alarms[name][-1], marked(picture(seed)))
    return Line(root / "line.onceover", dict(zip(NAMES, single, strict=True)), alarms)


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    """The same with packages of their own names, so that each test has its own journals."""
    copies = {path: tmp_path / path.name for path in (fitted.package, *fitted.alone.values())}
    for path, copy in copies.items():
        copy.write_bytes(path.read_bytes())
    return Line(copies[fitted.package], {name: copies[path] for name, path in fitted.alone.items()}, fitted.alarms)


def told(verdict: Verdict) -> tuple[Any, ...]:
    """All of a verdict but its times, the name of its product and the corrections behind it; comparable."""
    return (
        verdict.score, verdict.decision, verdict.p_value, verdict.threshold, verdict.map_threshold, verdict.worst_patch,
        verdict.nearest, verdict.normal_range, verdict.reason, verdict.regions, verdict.anomaly_map.tobytes(),
        verdict.patch_scores.tobytes(),
    )  # fmt: skip


def seen(inspector: Inspector, line: Line, product: str | None) -> list[tuple[Any, ...]]:
    """What an inspector says of alarms and good parts of both products."""
    images = [*line.alarms["plate"], *line.alarms["lid"], tiny_image(720), other_image(720)]
    return [told(inspector.inspect(image, product=product)) for image in images]


def test_a_correction_lets_its_product_pass_and_leaves_the_other_bit_for_bit(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        before = {name: seen(inspector, line, name) for name in NAMES}
        calibration = inspector._calibrations[0]
        number, verdict = corrections.propose(inspector, line.alarms["lid"][0], note="a mark")
        assert (verdict.product, verdict.decision) == ("lid", "anomalous")
        assert corrections.candidates[0].product == corrections.operations[0].product == "lid"
        corrections.confirm([number], "R.")
        assert corrections.operations[1].product is None
        applied = inspector.apply_corrections()
        assert [each.product for each in applied.products] == ["plate", "lid"]
        plate, lid = applied.products
        assert (plate.confirmed, plate.added_rows, plate.calibration) == (0, 0, "fitted")
        assert (lid.confirmed, lid.added_rows) == (1, len(corrections.candidates[0].rows))
        assert lid.calibration in ("exact", "bounded")
        assert applied.calibration == lid.calibration
        assert "lid: " in applied.describe()
        assert "plate" not in applied.describe()
        after = inspector.inspect(line.alarms["lid"][0])
        assert (after.product, after.decision, after.corrections) == ("lid", "normal", corrections.id)
        assert after.reason is not None
        assert seen(inspector, line, "plate") == before["plate"]
        assert seen(inspector, line, "lid") != before["lid"]
        assert np.array_equal(inspector._calibrations[0].scores, calibration.scores)
        assert inspector.verify()["images"] > 0  # is about the package
        assert corrections.undo() == 2
        inspector.apply_corrections()
        assert {name: seen(inspector, line, name) for name in NAMES} == before


def correct(corrections: Corrections, inspector: Inspector, line: Line, name: str, product: str | None) -> None:
    """Rows join and rows go, fitted and joined ones, of one product."""
    ids = [corrections.propose(inspector, path, product=product)[0] for path in line.alarms[name][:2]]
    corrections.confirm(ids)
    _, added, _ = corrections.changes(product)
    corrections.remove([3, 11, int(added[-1])], product=product)
    inspector.apply_corrections()


@pytest.mark.parametrize("order", [("plate", "lid"), ("lid", "plate")])
def test_each_product_is_decided_as_by_its_own_corrected_package(line: Line, order: tuple[str, str]) -> None:
    together = Corrections.open(line.package)
    own = {name: Corrections.open(path) for name, path in line.alone.items()}
    alone = {name: Inspector.open(line.alone[name], corrections=own[name]) for name in NAMES}
    with Inspector.open(line.package, corrections=together) as both:
        for name in order:
            correct(own[name], alone[name], line, name, None)
            correct(together, both, line, name, name)
            assert both.applied is not None
            for each in NAMES:  # the one that was not corrected yet is as fitted
                assert seen(both, line, each) == seen(alone[each], line, None)
                number = NAMES.index(each)
                assert both.applied.products[number].calibration == alone[each].applied.calibration  # type: ignore[union-attr]
                for got, expected in zip(together.changes(each), own[each].changes(), strict=True):
                    assert np.array_equal(got, expected)
                calibration, expected_calibration = both._calibrations[number], alone[each].calibration
                assert np.array_equal(calibration.scores, expected_calibration.scores)
                assert np.array_equal(calibration.map_maxima, expected_calibration.map_maxima)
                assert both._bank_images[number].joined == alone[each].bank_images.joined


def test_the_corrected_bank_of_a_product_is_searched_like_one_built_of_its_rows(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        for number, name in enumerate(NAMES):
            correct(corrections, inspector, line, name, name)
            fitted_rows = np.array(corrections.package.core.array(member_name("memory_bank", number)))
            removed, added, rows = corrections.changes(name)
            bank = MemoryBank.build(np.concatenate([np.delete(fitted_rows, removed, axis=0), rows]))
            numbers = np.concatenate([np.setdiff1d(np.arange(len(fitted_rows)), removed), added])
            for image in (tiny_image(900), marked(other_image(901))):
                inspector.inspect(image, product=name)
                inside = inspector.session.inside(*inspector.session.patch_scores().shape)
                inside = np.ones(inspector.session.patch_scores().shape, bool) if inside is None else inside
                distances, found = bank.search(inspector.session.embeddings(), k=1)
                shape = inside.shape
                assert np.array_equal(inspector.session.patch_distances()[inside], distances.reshape(shape)[inside])
                expected = numbers[found[:, 0]].reshape(shape)[inside]
                assert np.array_equal(inspector.session.nearest_rows()[inside], expected)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_instruction_set_decides_alike(line: Line, isa: str) -> None:
    corrections = Corrections.open(line.package)
    with Inspector.open(line.package, corrections=corrections) as inspector:
        correct(corrections, inspector, line, "lid", "lid")
        verdicts = [inspector.inspect(line.alarms[name][2]) for name in NAMES]
        expected = [f"{each.score!r} {each.threshold!r} {each.nearest} {each.product}" for each in verdicts]
    program = (
        "import sys, onceover\n"
        "inspector = onceover.Inspector.open(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    verdict = inspector.inspect(path)\n"
        "    print(repr(verdict.score), repr(verdict.threshold), verdict.nearest, verdict.product)\n"
    )
    alarms = [line.alarms[name][2] for name in NAMES]
    environment = {**os.environ, "ONCEOVER_ISA": isa}
    said = subprocess.run(
        [sys.executable, "-c", program, line.package, *alarms], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert said.stdout.splitlines() == expected


def test_rows_are_named_with_their_product_and_a_wrong_part_is_no_false_alarm(line: Line) -> None:
    corrections = Corrections.open(line.package)
    with pytest.raises(UsageError, match=r"each product's own; name one of plate, lid"):
        corrections.remove([3])
    with pytest.raises(UsageError, match="name one of plate, lid"):
        corrections.changes()
    with pytest.raises(UnknownNameError, match="lid"):
        corrections.remove([3], product="lit")
    with Inspector.open(line.package, corrections=corrections) as inspector:
        with pytest.raises(UsageError, match="no correction changes a gate; select the product"):
            corrections.propose(inspector, marked(third_image(700)))
        assert not journal_path(line.package).exists()
        number, verdict = corrections.propose(inspector, marked(third_image(700)), product="plate")
        assert (number, verdict.product, verdict.decision) == (1, "plate", "anomalous")
    with Inspector.open(line.package, corrections=corrections, product="lid") as inspector:  # named for all images
        assert corrections.propose(inspector, line.alarms["plate"][0])[1].product == "lid"
    assert [each.product for each in corrections.candidates] == ["plate", "lid"]
    assert corrections.candidates[0].rows.start == len(corrections.package.core.array("memory_bank"))
    assert corrections.candidates[1].rows.start == len(corrections.package.core.array("memory_bank.1"))


def test_a_compacted_package_holds_all_products_and_decides_as_the_corrected_inspector(
    line: Line, tmp_path: Path
) -> None:
    corrections = Corrections.open(line.package)
    made, again = tmp_path / "made.onceover", tmp_path / "again.onceover"
    with Inspector.open(line.package, corrections=corrections) as inspector:
        correct(corrections, inspector, line, "lid", "lid")
        compact(corrections, made)
        old, new = open_package(line.package), open_package(made)
        assert new.products == NAMES
        kept = {each.name: each.sha256 for each in new.members if not each.name.endswith((".1", ".json"))}
        assert kept == {each.name: each.sha256 for each in old.members if not each.name.endswith((".1", ".json"))}
        assert new.product_manifest(0) == old.product_manifest(0)
        assert new.product_manifest(1)["compacted"]["from"] == old.id
        with Inspector.open(made) as compacted:
            for image in (*line.alarms["plate"], *line.alarms["lid"], tiny_image(720), third_image(1)):
                before, after = inspector.inspect(image), compacted.inspect(image)
                assert (after.product, after.decision, after.gate) == (before.product, before.decision, before.gate)
                assert (after.score, after.p_value, after.threshold) == (before.score, before.p_value, before.threshold)
                assert np.array_equal(after.anomaly_map, before.anomaly_map)
                assert after.reason is not None
                assert before.reason is not None
                assert Path(str(after.reason.image)).name == Path(str(before.reason.image)).name
            assert compacted.verify()["images"] == inspector.verify()["images"]
    second = Corrections.open(made)
    with Inspector.open(made, corrections=second) as inspector:
        correct(second, inspector, line, "plate", "plate")
        compact(second, again)
        with Inspector.open(again) as compacted:
            for name in NAMES:
                expected, got = inspector.inspect(line.alarms[name][0]), compacted.inspect(line.alarms[name][0])
                assert (got.score, got.p_value, got.decision) == (expected.score, expected.p_value, expected.decision)
    assert "compacted_before" not in open_package(again).product_manifest(1)
    assert open_package(again).product_manifest(0)["compacted"]["from"] == open_package(made).id


def test_corrections_of_any_product_keep_their_package_from_being_replaced(line: Line) -> None:
    corrections = Corrections.open(line.package)
    corrections.remove([3], product="lid")
    assert corrections_in_force(line.package) is True
    with pytest.raises(UsageError, match="onceover bank compact"):
        combine(list(line.alone.values()), line.package)
    corrections.undo()
    assert corrections_in_force(line.package) is False
    with pytest.raises(UsageError, match="no correction is in force"):
        check_no_journal(line.package)


# ---- The command line ----


def test_the_commands_say_whose_corrections_they_are(line: Line, tmp_path: Path, capsys: Capture) -> None:
    package = str(line.package)
    plate, lid = (str(line.alarms[name][0]) for name in NAMES)
    good, wrong = tmp_path / "good.png", tmp_path / "wrong.png"
    write_image(good, tiny_image(720))
    write_image(wrong, marked(third_image(700)))
    assert answer(capsys, "inspect", package, plate, lid)[0] == 1
    status, added = answer(capsys, "bank", "add", package, plate, lid, str(good), str(wrong), "--note", "a mark")
    assert status == 0
    assert [each["product"] for each in added["results"][:3]] == ["plate", "lid", "plate"]
    assert [each["candidate"] for each in added["results"]] == [1, 2, None, None]
    assert added["results"][3]["decision"] == "wrong_part"
    assert answer(capsys, "bank", "confirm", package, "2")[0] == 0
    inspected = answer(capsys, "inspect", package, plate, lid)[1]
    assert [each["decision"] for each in inspected["results"]] == ["anomalous", "normal"]
    told_of = {each["product"]: each for each in inspected["corrections"]["products"]}
    assert (told_of["plate"]["confirmed"], told_of["lid"]["confirmed"]) == (0, 1)
    status, named = answer(capsys, "bank", "add", package, str(wrong), "--product", "plate", "--confirm")
    assert (named["results"][0]["product"], named["results"][0]["decision_after"]) == ("plate", "normal")
    status, message = refusal(capsys, "bank", "remove", package, "3")
    assert status == 2
    assert "name one of plate, lid (--product)" in message
    removed = answer(capsys, "bank", "remove", package, "3", "--product", "lid", "--reason", "hides a dent")[1]
    assert (removed["removed"], removed["product"], removed["removed_rows"]) == ([3], "lid", 1)
    assert removed["products"]["lid"]["removed_rows"] == 1
    assert removed["products"]["plate"]["removed_rows"] == 0
    listed = answer(capsys, "bank", "list", package)[1]
    assert [each["product"] for each in listed["operations"]] == ["plate", "lid", None, "plate", None, "lid"]
    assert [each["product"] for each in listed["candidates"]] == ["plate", "lid", "plate"]
    made = str(tmp_path / "made.onceover")
    compacted = answer(capsys, "bank", "compact", package, "-o", made)[1]
    assert set(compacted["calibrations"]) == {"plate", "lid"}
    assert compacted["calibration"] in ("exact", "bounded")
    inspected = answer(capsys, "inspect", made, plate, lid)[1]
    assert [each["product"] for each in inspected["results"]] == ["plate", "lid"]
    assert [each["decision"] for each in inspected["results"]] == ["anomalous", "normal"]
    assert inspected["corrections"] is None
    assert answer(capsys, "bank", "undo", package)[1]["undone"] == 6
    for folder, picture in (("good", other_image), ("mark", lambda seed: marked(other_image(seed)))):
        (tmp_path / "data/test" / folder).mkdir(parents=True)
        for seed in range(700, 704):
            write_image(tmp_path / "data/test" / folder / f"{seed}.png", picture(seed))
    status, evaluated = answer(capsys, "evaluate", package, str(tmp_path / "data"), "--product", "lid")
    assert status == 0
    assert evaluated["corrections"]["products"][1]["added_rows"] > 0


def test_people_read_whose_corrections_they_are(line: Line, capsys: Capture) -> None:
    package, lid = str(line.package), str(line.alarms["lid"][0])

    def printed(*words: str) -> str:
        assert main(list(words)) == 0
        captured = capsys.readouterr()
        return " ".join((captured.out + captured.err).split())

    assert "as their gates found them; --product names one" in printed("bank", "add", package, lid)
    assert "lid: 0 of at most" in printed("bank", "add", package, lid, "--product", "lid")
    assert "confirmed: 1 (lid)" in printed("bank", "confirm", package, "1")
    assert "1 correction of" in (said := printed("inspect", package, lid))
    assert "lid: " in said
    assert "removed from the memory bank of lid: rows 3" in printed("bank", "remove", package, "3", "--product", "lid")
    assert "product" in printed("bank", "list", package)
    assert "of lid" in printed("bank", "undo", package)


def test_a_watched_folder_follows_the_corrections_of_each_product(
    line: Line, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    corrections = Corrections.open(line.package)

    def shoot(when: str) -> None:
        for name in NAMES:
            (camera / f"{when}_{name}.png").write_bytes(line.alarms[name][0].read_bytes())

    def confirm() -> None:
        with Inspector.open(line.package, corrections=corrections) as inspector:
            corrections.confirm([corrections.propose(inspector, line.alarms["lid"][0])[0]])

    at_pauses(monkeypatch, [lambda: shoot("before"), nothing, confirm, lambda: shoot("after")])
    _, told = watched(capsys, str(line.package), str(camera))
    decided = {Path(each["image"]).stem: (each["product"], each["decision"]) for each in told if "image" in each}
    assert decided == {
        "before_plate": ("plate", "anomalous"), "before_lid": ("lid", "anomalous"),
        "after_plate": ("plate", "anomalous"), "after_lid": ("lid", "normal"),
    }  # fmt: skip
    assert [each["corrections"]["confirmed"] for each in told if each["event"] == "corrections"] == [1]


def test_a_product_that_cannot_calibrate_again_is_named(line: Line, tmp_path: Path, capsys: Capture) -> None:
    """Its package remembers no held-out patches, and a fitted row was removed."""
    core = open_package(line.package).core
    writer = _core.PackageWriter()
    for member in core.members:
        name = member["name"]
        content: Any = core.read(name) if member["type"] == "bytes" else core.array(name)
        if name != "calibration_patches.1":
            writer.add(name, content, required=member["required"])
    package = tmp_path / "forgetful.onceover"
    writer.save(str(package))
    corrections = Corrections.open(package)
    corrections.remove([3], product="lid")
    lid, plate = str(line.alarms["lid"][0]), str(line.alarms["plate"][0])
    assert main(["inspect", str(package), lid, plate]) == 1
    captured = capsys.readouterr()
    assert "fitted rows of lid were removed" in " ".join(captured.err.split())
    inspected = answer(capsys, "inspect", str(package), lid, plate)[1]
    assert [each["decision"] for each in inspected["results"]] == ["uncalibrated", "anomalous"]
    status, message = refusal(capsys, "bank", "add", str(package), plate, lid)
    assert status == 2
    assert "lid: is uncalibrated" in message
    assert not Corrections.open(package).candidates  # what is refused records nothing, of the other product either
    assert main(["bank", "compact", str(package), "-o", str(tmp_path / "made.onceover")]) == 0
    assert "made.onceover: lid is uncalibrated" in " ".join(capsys.readouterr().err.split())
