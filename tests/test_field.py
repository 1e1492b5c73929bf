"""What of an image is inspected: regions of interest and tiles, from the command line to the verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, refusal
from numpy.typing import NDArray
from tiny_data import HELD_OUT, good_folder, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import _core, export
from onceover.cli import main
from onceover.errors import InputError, PackageError, UsageError
from onceover.export.to_plain_onnx import write_plain_onnx
from onceover.images import write_image
from onceover.report.contact_sheet import draw_verdict
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.unpack import unpack
from onceover.training.field import TilingOptions, check_roi, read_roi
from onceover.training.fit import fit
from onceover.training.refit import refit
from onceover.types import Tiling

IMAGE = (40, 56)
LEFT = np.zeros((4, 4), np.uint8)
LEFT[:, :2] = 1
TILED = TilingOptions(tiles=(2, 2), overlap=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("field") / "plate", 2 * HELD_OUT)


@pytest.fixture(scope="module")
def left(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("left") / "left.onceover"
    export.package(fit(folder, tiny_options(roi=LEFT)), path)
    return path


@pytest.fixture(scope="module")
def tiled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiled") / "tiled.onceover"
    export.package(fit(folder, tiny_options(tiling=TILED)), path)
    return path


def with_hole(seed: int, left_edge: int) -> NDArray[np.uint8]:
    image = tiny_image(seed)
    image[8:32, left_edge : left_edge + 20] = 255
    return image


def test_a_defect_outside_the_region_is_not_seen(left: Path) -> None:
    inspector = Inspector.open(left)
    plain, outside, inside = (
        inspector.inspect(image) for image in (tiny_image(900), with_hole(900, 36), with_hole(900, 4))
    )
    assert outside.score == plain.score
    assert outside.decision == plain.decision
    assert inside.decision == "anomalous"
    assert inside.score > 1.5 * plain.score
    assert (outside.anomaly_map[:, 28:] == 0).all()
    assert (outside.anomaly_map[:, :28] == plain.anomaly_map[:, :28]).all()
    assert outside.roi is not None
    assert outside.roi.shape == IMAGE
    assert outside.roi[:, :28].all()
    assert not outside.roi[:, 28:].any()
    assert all(region.box[3] <= 28 for region in inside.regions)
    assert inside.regions


def test_the_bank_learns_from_patches_inside_alone(left: Path) -> None:
    package = open_package(left)
    patches = package.core.array("bank_source")[:, 1]
    columns = patches % 6
    assert columns.max() == 2  # of 6: 3 columns of 8 pixels reach over half of the 48
    assert package.manifest["roi"] == {"raster": [4, 4], "inspected": 0.5}
    assert {member.name: member.required for member in package.members}["roi"]


def test_the_calibration_scores_are_those_of_the_region(left: Path, folder: Path) -> None:
    inspector = Inspector.open(left)
    names = inspector.manifest["data"]["calibration_images"]
    scores = sorted(inspector.inspect(folder / name).score for name in names)
    np.testing.assert_array_equal(np.float32(scores), inspector.calibration.scores)


def test_tiles_see_what_one_small_input_does_not(folder: Path, tiled: Path) -> None:
    inspector = Inspector.open(tiled)
    assert inspector.session.config.tiling == (2, 2, 2, 3)
    assert inspector.session.config.cells == (6, 9)
    assert inspector.session.config.map_size == (48, 72)
    verdict = inspector.inspect(with_hole(900, 4))
    assert verdict.patch_scores.shape == (6, 9)
    assert verdict.decision == "anomalous"
    assert verdict.anomaly_map.shape == IMAGE
    assert verdict.roi is None
    row, column = verdict.worst_patch
    assert 8 / 40 * 6 - 1 <= row <= 32 / 40 * 6
    assert column <= 24 / 56 * 9
    assert inspector.verify()["images"] >= 5
    package = open_package(tiled)
    assert package.core.array("bank_source")[:, 1].max() < 4 * 24
    assert package.manifest["tiling"] == {"rows": 2, "columns": 2, "overlap_rows": 2, "overlap_columns": 3}


def test_fit_with_tiles_and_region_gives_the_same_bytes_twice_and_refits_to_itself(
    folder: Path, tmp_path: Path
) -> None:
    options = tiny_options(tiling=TILED, roi=LEFT)
    paths = [tmp_path / "a.onceover", tmp_path / "b.onceover"]
    for path in paths:
        export.package(fit(folder, options), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    package = open_package(paths[0])
    again = refit(package, package.core.read("graph.onnx"), folder)
    np.testing.assert_array_equal(again.state["memory_bank"], package.core.array("memory_bank"))
    assert again.tiling == Tiling(2, 2, 2, 3)
    assert again.roi is not None
    assert (again.roi == LEFT).all()
    np.testing.assert_array_equal(again.calibration.scores, _core.read_calibration(package.core)["scores"])


def test_a_reader_of_format_1_0_would_refuse_both(left: Path, tiled: Path) -> None:
    # It knows no required member "roi", and takes nonzero reserved bytes (72 to 255 of the config) for damage.
    assert any(member.name == "roi" and member.required for member in open_package(left).members)
    assert any(open_package(tiled).core.read("config")[76:])
    assert not any(open_package(left).core.read("config")[76:])
    assert open_package(tiled).core.version >= (1, 1)


def test_a_damaged_region_is_refused_by_name(left: Path, tmp_path: Path) -> None:
    core = open_package(left).core
    for roi, said in ((np.zeros((4, 4), np.uint8), "empty"), (np.full((4, 4), 3, np.uint8), "holds a 3")):
        writer = _core.PackageWriter()
        for member in core.members:
            content: Any = core.read(member["name"]) if member["type"] == "bytes" else core.array(member["name"])
            writer.add(member["name"], roi if member["name"] == "roi" else content, required=member["required"])
        writer.save(str(tmp_path / "bad.onceover"))
        with pytest.raises(PackageError, match=f"member 'roi': .*{said}"):
            Inspector.open(tmp_path / "bad.onceover")


def test_export_and_unpack_know_both(left: Path, tiled: Path, tmp_path: Path) -> None:
    from onceover.export.repackage import take_apart

    for path in (left, tiled):
        package = open_package(path)
        parts = take_apart(package, package.core.read("graph.onnx"))
        assert parts.tiling.fields == _core.read_config(package.core).tiling
        assert (parts.roi is None) == (path == tiled)
        with pytest.raises(UsageError, match="which a plain ONNX file cannot hold"):
            write_plain_onnx(path, tmp_path / "plain.onnx")
    assert json.loads((unpack(open_package(tiled), tmp_path / "t") / "config.json").read_text())["tiling"]["rows"] == 2
    assert (np.load(unpack(open_package(left), tmp_path / "l") / "members/roi.npy") == LEFT).all()


def test_pictures_show_the_region(left: Path) -> None:
    inspector = Inspector.open(left)
    image = tiny_image(901, 400, 560)
    verdict = inspector.inspect(image)
    assert (draw_verdict(image, verdict) != draw_verdict(image, replace(verdict, roi=None))).any()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([[0, 0], [0.5, 0], [0.5, 1], [0, 1]], 0.5),
        ([[0, 0], [28, 0], [28, 40], [0, 40]], 0.5),
        ([[[0, 0], [0.25, 0], [0.25, 1], [0, 1]], [[0.75, 0], [1, 0], [1, 1], [0.75, 1]]], 0.5),
        ([[0, 0], [56, 0], [56, 40]], 0.5),
    ],
)
def test_a_polygon_is_in_pixels_or_shares(content: Any, expected: float, tmp_path: Path) -> None:
    (tmp_path / "roi.json").write_text(json.dumps(content))
    roi = read_roi(tmp_path / "roi.json", IMAGE)
    assert roi.shape == IMAGE
    assert set(np.unique(roi)) == {0, 1}
    assert abs(float(roi.mean()) - expected) < 0.04


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[0, 0], [1, 1]]", "at least three points"),
        ("[[0, 0], [1, 1], [57, 3]]", "outside the image; expected x from 0 to 56, y from 0 to 40"),
        ("[[0, 0], [1, -1], [1, 1]]", "outside the image"),
        ("[[0, 0], [1, NaN], [1, 1]]", "at least three points"),
        ('{"polygon": 3}', "at least three points"),
        ("[]", "at least three points"),
        ("[[0, 0], [1, 1, 1], [1, 1]]", "at least three points"),
    ],
)
def test_a_polygon_that_makes_no_sense_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "roi.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        read_roi(tmp_path / "roi.json", IMAGE)


def test_masks_are_read_at_any_scale_of_the_aspect(tmp_path: Path) -> None:
    mask = np.zeros((80, 112, 3), np.uint8)
    mask[:, :56, 1] = 7
    write_image(tmp_path / "mask.png", mask)
    assert read_roi(tmp_path / "mask.png", IMAGE)[:, :56].all()
    assert not read_roi(tmp_path / "mask.png", IMAGE)[:, 56:].any()
    with pytest.raises(UsageError, match=r"80 x 112 pixels .* the images are 56 x 40"):
        read_roi(tmp_path / "mask.png", (56, 40))
    write_image(tmp_path / "black.png", np.zeros(IMAGE, np.uint8))
    with pytest.raises(UsageError, match="nothing would be inspected"):
        read_roi(tmp_path / "black.png", IMAGE)
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_roi(tmp_path / "no.json", IMAGE)
    with pytest.raises(InputError, match="cannot be read"):
        read_roi(tmp_path / "missing.json", IMAGE)


def test_a_large_mask_is_reduced_and_loses_no_pixel_of_the_region() -> None:
    mask = np.zeros((2592, 1944), np.uint8)
    mask[1000, 777] = mask[2591, 1943] = 1
    roi = check_roi(mask)
    assert max(roi.shape) <= 1024
    rows, columns = roi.shape
    for y, x in ((1000, 777), (2591, 1943)):
        assert roi[y * rows // 2592, x * columns // 1944] == 1
    assert roi.sum() <= 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TilingOptions(tiles=(3, 4)), (3, 4)),
        (TilingOptions(tile_size=5000), (1, 1)),
        # A tile of n spans pixels · 32 / (32 + 28 (n − 1)): 1944 · 32 / 88 = 707, 2592 · 32 / 116 = 715.
        (TilingOptions(tile_size=720), (3, 4)),
        (TilingOptions(tile_size=700), (4, 5)),
        # 10 pixels are 4 of 256 in a tile of 640.
        (TilingOptions(min_defect=10), (4, 5)),
    ],
)
def test_tiles_are_counted_by_size_or_by_the_smallest_defect(options: TilingOptions, expected: tuple[int, int]) -> None:
    spec = replace(
        read_graph_spec(tiny_graph(), "tiny"), grid_height=32, grid_width=32,
    )  # fmt: skip
    spec = replace(spec, preprocessing=replace(spec.preprocessing, height=256, width=256))
    tiling = options.resolve(spec, (1944, 2592))
    assert (tiling.rows, tiling.columns) == expected
    assert tiling.overlap_rows == (4 if tiling.rows > 1 else 0)


def test_tilings_that_make_no_sense_are_refused() -> None:
    spec = read_graph_spec(tiny_graph(), "tiny")
    for options, said in (
        ({}, "got none"),
        ({"tiles": (1, 2), "tile_size": 3}, "got tiles and tile_size"),
        ({"tiles": (1, 2), "overlap": 0.6}, "overlap is 0.6"),
        ({"min_defect": 0}, "min_defect is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            TilingOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="65 columns of tiles, expected 1 to 64"):
        TilingOptions(tiles=(1, 65)).resolve(spec, IMAGE)


def test_the_page_of_an_evaluation_tells_what_was_inspected(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    data = tmp_path / "data"
    (data / "test").mkdir(parents=True)
    for kind in ("good", "hole"):
        shutil.copytree(folder, data / "test" / kind)
    export.package(fit(folder, tiny_options(tiling=TILED, roi=LEFT)), tmp_path / "part.onceover")
    page = tmp_path / "page.html"
    assert main(["evaluate", str(tmp_path / "part.onceover"), str(data), "--report", str(page)]) == 0
    said = page.read_text()
    assert "2 × 2, the network runs for each" in said
    assert "of the patch grid; nothing outside is found" in said


def test_fit_shows_what_it_will_inspect(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_graph())
    (tmp_path / "roi.json").write_text("[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]")
    fit_it = ["fit", str(folder), "--backbone", str(tmp_path / "tiny.onnx"), "-o", str(tmp_path / "part.onceover")]
    assert main([*fit_it, "--roi", str(tmp_path / "roi.json"), "--tiling", "2x2", "--overlap", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "2 × 2 tiles of images of 40 × 56: the network runs 4 times for each" in said
    assert "of the patches are inspected" in said
    pictures = str(tmp_path / "pictures")
    assert main(["inspect", str(tmp_path / "part.onceover"), str(folder / "00.png"), "--save", pictures]) in (0, 1)
    capsys.readouterr()
    assert main([*fit_it, "--min-defect", "1000"]) == 0
    assert "one tile: the network sees images of 40 × 56 whole" in capsys.readouterr().out
    assert main([*fit_it]) == 0
    assert "one tile" not in capsys.readouterr().out
    for words, message in (
        (["--overlap", "0.1"], "--overlap belongs to tiles"),
        (["--tiling", "3"], "'3' is not ROWSxCOLUMNS"),
        (["--tiling", "2x2", "--tile-size", "9"], "not allowed with"),
        (["--roi", str(tmp_path / "none.json")], "cannot be read"),
    ):
        status, refused = refusal(capsys, *fit_it, *words)
        assert status in (2, 3)
        assert message in refused
