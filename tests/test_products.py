"""Several products in one package: combined, told apart by their gates, named; and the wrong part in view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from tiny_data import tiny_options
from tiny_package import tiny_image
from two_products import fit_plate_and_lid, other_image, third_image
from watch_script import at_pauses, watched

from onceover import _core, export
from onceover.cli import main
from onceover.errors import PackageError, UnknownNameError, UsageError
from onceover.export.combine import combine
from onceover.export.repackage import export_package
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.unpack import unpack
from onceover.training.fit import fit
from onceover.training.gate import MARGIN, fit_gate
from onceover.training.refit import refit


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Packages of two products, fitted apart."""
    return fit_plate_and_lid(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def both(single: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("both") / "line.onceover"
    combine(single, path)
    return path


def test_a_named_product_is_inspected_as_by_its_own_package(both: Path, single: tuple[Path, Path]) -> None:
    for number, path in enumerate(single):
        alone = Inspector.open(path)
        together = Inspector.open(both, product=alone.manifest["name"])
        for image in (tiny_image(700), other_image(700), third_image(700)):
            expected, got = alone.inspect(image), together.inspect(image)
            assert (got.score, got.p_value, got.decision) == (expected.score, expected.p_value, expected.decision)
            assert (got.threshold, got.map_threshold) == (expected.threshold, expected.map_threshold)
            np.testing.assert_array_equal(got.anomaly_map, expected.anomaly_map)
            np.testing.assert_array_equal(got.patch_scores, expected.patch_scores)
            assert got.product == ("plate", "lid")[number]
            assert got.gate is None
            assert expected.product is None


def test_the_product_in_view_is_found(both: Path) -> None:
    inspector = Inspector.open(both)
    assert inspector.products == ("plate", "lid")
    for seed in range(700, 720):
        for name, image in (("plate", tiny_image(seed)), ("lid", other_image(seed))):
            verdict = inspector.inspect(image)
            assert verdict.product == name
            assert verdict.gate is not None
            assert verdict.gate <= 1
            assert verdict.decision in ("normal", "anomalous")
            assert verdict.to_dict()["product"] == name


def test_a_wrong_part_is_its_own_verdict(both: Path, single: tuple[Path, Path]) -> None:
    for inspector in (Inspector.open(both), Inspector.open(single[0], gate=True)):
        verdict = inspector.inspect(third_image(700))
        assert verdict.decision == "wrong_part"
        assert verdict.is_anomalous is True
        assert verdict.gate is not None
        assert verdict.gate > 1
        assert verdict.regions == ()
    # Unasked, a package of one product judges what it is shown, as it did before there were gates.
    plain = Inspector.open(single[0]).inspect(third_image(700))
    assert plain.decision != "wrong_part"
    assert plain.gate is None


def test_a_product_can_be_named_for_one_image(both: Path) -> None:
    inspector = Inspector.open(both)
    assert inspector.inspect(other_image(700), product="plate").product == "plate"
    assert inspector.inspect(other_image(700)).product == "lid"
    with pytest.raises(UnknownNameError, match="plate"):
        inspector.inspect(other_image(700), product="plat")


def test_every_product_is_replayed(both: Path, single: tuple[Path, Path]) -> None:
    alone = [Inspector.open(path).verify()["images"] for path in single]
    assert Inspector.open(both).verify()["images"] == sum(alone)


def test_the_threshold_is_the_farthest_held_out_part_and_a_margin(single: tuple[Path, Path]) -> None:
    inspector = Inspector.open(single[0], gate=True)
    data = inspector.manifest["data"]
    folder = single[0].parent / "plate"
    ratios = [inspector.inspect(folder / name).gate for name in data["calibration_images"]]
    assert max(ratio for ratio in ratios if ratio is not None) == pytest.approx(1 / MARGIN, rel=1e-5)


def test_the_distance_is_that_of_the_shrunken_covariance() -> None:
    random = np.random.default_rng(3)
    pooled = (random.normal(0, 1, (12, 5)) * [5, 3, 1, 0.5, 0.1] + 7).astype(np.float32)
    gate = fit_gate(pooled)
    # Ledoit and Wolf 2004, lemma 3.2 to 3.4, written out with full matrices.
    centered = pooled - pooled.mean(axis=0, dtype=np.float64)
    sample = centered.T @ centered / 12
    scale = np.trace(sample) / 5
    distance = np.sum((sample - scale * np.eye(5)) ** 2) / 5
    spread = sum(np.sum((np.outer(x, x) - sample) ** 2) for x in centered) / 12**2 / 5
    shrinkage = min(1.0, spread / distance)
    covariance = (1 - shrinkage) * sample + shrinkage * scale * np.eye(5)
    rebuilt = gate.isotropic * np.eye(5)
    for weight, axis in zip(gate.weights, gate.axes, strict=True):
        rebuilt += (weight - gate.isotropic) * np.outer(axis, axis)
    np.testing.assert_allclose(rebuilt @ covariance, np.eye(5), atol=1e-4)


def test_images_that_are_all_the_same_have_a_gate_too() -> None:
    gate = fit_gate(np.full((4, 6), 2.5, np.float32))
    assert np.isfinite(gate.isotropic)
    assert gate.isotropic > 0
    assert len(gate.to_bytes()) == 64 + 4 * (6 + 3 + 18)


def test_what_cannot_be_combined_is_refused(single: tuple[Path, Path], both: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.onceover"
    for packages, names, said in (
        (single[:1], (), "1 packages: give 2 to 32"),
        ((*single, both), (), "holds several products already"),
        ((single[0], single[0]), (), "two products are called 'plate'"),
        (single, ("a",), "1 names for 2 packages"),
        (single, ("a", ""), "has no name"),
    ):
        with pytest.raises(UsageError, match=said):
            combine(packages, output, names)
    with pytest.raises(UsageError, match="1 to 47"):
        combine(single, output, ("a", "b" * 48))
    assert not output.exists()
    other = fit(single[0].parent / "plate", tiny_options(blur_sigma=1.0))
    export.package(other, tmp_path / "blurred.onceover")
    with pytest.raises(UsageError, match="another input, patch grid, tiles or blur"):
        combine((single[0], tmp_path / "blurred.onceover"), output, ("a", "b"))


def test_the_same_packages_give_the_same_bytes(single: tuple[Path, Path], both: Path, tmp_path: Path) -> None:
    combine(single, tmp_path / "again.onceover")
    assert (tmp_path / "again.onceover").read_bytes() == both.read_bytes()
    renamed = combine(single, tmp_path / "named.onceover", ("Deckel ä", "b"))
    assert open_package(tmp_path / "named.onceover").products == ("Deckel ä", "b")
    assert open_package(tmp_path / "named.onceover").id == renamed


def rewritten(path: Path, target: Path, replace: dict[str, Any]) -> Path:
    core = open_package(path).core
    writer = _core.PackageWriter()
    for member in core.members:
        name = member["name"]
        content: Any = core.read(name) if member["type"] == "bytes" else core.array(name)
        if replace.get(name, content) is not None:
            writer.add(name, replace.get(name, content), required=member["required"])
    writer.save(str(target))
    return target


def test_damage_is_refused_by_name_and_a_missing_gate_asks_for_a_name(both: Path, tmp_path: Path) -> None:
    core = open_package(both).core
    gate, products = bytearray(core.read("gate.1")), bytearray(core.read("products"))
    gate[16:20] = np.float32(-1).tobytes()
    products[64:112] = products[128:176]
    for name, content, said in (
        ("gate.1", bytes(gate), "member 'gate.1': field 'threshold' is -1"),
        ("products", bytes(products), r"field 'name\[1\]' is 'lid', expected another one"),
        ("memory_bank.1", None, "memory_bank.1"),
    ):
        with pytest.raises(PackageError, match=said):
            Inspector.open(rewritten(both, tmp_path / "bad.onceover", {name: content}))
    open_by_name = rewritten(both, tmp_path / "no_gate.onceover", {"gate": None})
    assert Inspector.open(open_by_name, product="lid").inspect(other_image(1)).product == "lid"
    with pytest.raises(UsageError, match="'plate' has no gate"):
        Inspector.open(open_by_name)
    assert main(["verify", str(open_by_name)]) == 0


def test_a_product_without_a_gate_is_combined_and_named(single: tuple[Path, Path], tmp_path: Path) -> None:
    plate = rewritten(single[0], tmp_path / "plate.onceover", {"gate": None})
    with pytest.raises(UsageError, match="has no gate, so nothing tells whether its product is in view"):
        Inspector.open(plate, gate=True)
    combine([plate, single[1]], tmp_path / "line.onceover")
    got = Inspector.open(tmp_path / "line.onceover", product="plate").inspect(tiny_image(701))
    assert got.score == Inspector.open(plate).inspect(tiny_image(701)).score
    with pytest.raises(UsageError, match="'plate' has no gate"):
        Inspector.open(tmp_path / "line.onceover")


def test_what_is_told_of_a_product_is_its_own(both: Path, single: tuple[Path, Path], tmp_path: Path) -> None:
    alone = open_package(single[1]).manifest
    told = Inspector.open(both, product="lid").product_manifest
    assert told == {**alone, "name": "lid", "package": open_package(single[1]).id}
    assert Inspector.open(both).product_manifest["name"] == "plate + lid"


def test_a_reader_of_format_1_0_would_refuse_it(both: Path) -> None:
    required = {member.name for member in open_package(both).members if member.required}
    assert {"products", "memory_bank.1", "calibration.1", "parity.1"} <= required


def test_what_takes_one_product_says_so(both: Path, tmp_path: Path) -> None:
    package = open_package(both)
    for attempt in (
        lambda: export_package(both, tmp_path / "x.onceover"),
        lambda: write_plain_onnx(both, tmp_path / "x.onnx"),
        lambda: refit(package, package.core.read("graph.onnx"), tmp_path),
    ):
        with pytest.raises(UsageError, match=r"holds 2 products \(plate, lid\)"):
            attempt()
    assert (unpack(package, tmp_path / "unpacked") / "members/memory_bank.1.npy").exists()


def test_the_command_line_combines_and_inspects(single: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    line, pictures = tmp_path / "line.onceover", tmp_path / "in"
    words = ["combine", *map(str, single), "-o", str(line), "--name", "plate", "--name", "lid"]
    assert main(words) == 0
    assert "lid" in capsys.readouterr().out
    pictures.mkdir()
    for name, image in (("a", tiny_image(705)), ("b", other_image(705)), ("c", third_image(705))):
        write_image(pictures / f"{name}.png", image)
    status, printed = answer(capsys, "inspect", str(line), str(pictures), "--save", str(tmp_path / "out"))
    assert status == 1
    assert [result["product"] for result in printed["results"]][:2] == ["plate", "lid"]
    assert printed["results"][2]["decision"] == "wrong_part"
    assert main(["inspect", str(line), str(pictures / "b.png"), "--product", "lid"]) == 0
    assert main(["inspect", str(single[0]), str(pictures / "c.png"), "--gate"]) == 1
    assert "wrong_part" in capsys.readouterr().out
    assert main(["verify", str(line)]) == 0
    status, said = refusal(capsys, "evaluate", str(line), str(pictures))
    assert status == 2
    assert "--product plate | lid" in said
    status, said = refusal(capsys, "inspect", str(line), str(pictures), "--product", "lit")
    assert status == 2
    assert "lid" in said


def test_products_are_told_as_their_images_are_written(
    both: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    steps = [
        lambda: write_image(camera / "a.png", tiny_image(700)),
        lambda: write_image(camera / "b.png", other_image(700)),
        lambda: write_image(camera / "c.png", third_image(700)),
    ]
    at_pauses(monkeypatch, steps)
    _, told = watched(capsys, str(both), str(camera))
    assert told[0]["calibration"] is None  # each product has its own
    assert [each["product"] for each in told[1:3]] == ["plate", "lid"]
    assert told[3]["decision"] == "wrong_part"
    at_pauses(monkeypatch, [])
    _, told = watched(capsys, str(both), str(camera), "--product", "lid")
    assert [each["product"] for each in told[1:-1]] == ["lid"] * 3
