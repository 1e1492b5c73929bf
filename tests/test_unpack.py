"""`onceover unpack`: everything in a package as files that other programs open, complete or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from fuzz_seeds import FORMATS, SEEDS, seed_bytes
from tiny_package import tiny_package

from onceover import _core
from onceover.errors import OutputError, PackageError, UsageError
from onceover.images import read_image
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.unpack import unpack


def seed_package(folder: Path, name: str = "plain") -> PackageFile:
    path = folder / "part.onceover"
    path.write_bytes(seed_bytes(SEEDS[name]))
    return open_package(path)


def test_every_member_becomes_a_file_with_its_bytes_or_its_array(tmp_path: Path) -> None:
    package = open_package(tiny_package(tmp_path / "tiny.onceover"))
    folder = unpack(package, tmp_path / "out") / "members"
    assert len(list(folder.iterdir())) == len(package.members)
    for member in package.members:
        if member.type == "bytes":
            assert (folder / member.name).read_bytes() == package.core.read(member.name)
        else:
            array = np.load(folder / f"{member.name}.npy", allow_pickle=False)
            np.testing.assert_array_equal(array, package.core.array(member.name))
            assert array.dtype == member.type


def test_records_become_json_that_says_what_the_package_says(tmp_path: Path) -> None:
    package = seed_package(tmp_path)
    folder = unpack(package, tmp_path / "out")
    read = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert set(read) == {"contents", "config", "calibration", "manifest", "parity"}
    assert read["contents"]["id"] == package.id
    assert [member["name"] for member in read["contents"]["members"]] == [each.name for each in package.members]
    assert (read["config"]["height"], read["config"]["width"], read["config"]["embedding_dim"]) == (16, 24, 8)
    assert read["config"]["std"] == pytest.approx([0.25, 0.5, 0.2])
    assert read["calibration"]["threshold"] == 3.0
    assert read["calibration"]["scores"] == np.linspace(1, 3, 19, dtype=np.float32).tolist()
    assert (read["parity"]["map_step"], read["parity"]["images"][0]["verdict"]) == (8, "normal")
    assert read["manifest"] == {"name": "seed"}


def test_an_uncalibrated_package_has_no_thresholds(tmp_path: Path) -> None:
    folder = unpack(seed_package(tmp_path, "uncalibrated"), tmp_path / "out")
    calibration = json.loads((folder / "calibration.json").read_text())
    assert (calibration["threshold"], calibration["map_threshold"]) == (None, None)
    assert json.loads((folder / "parity.json").read_text())["images"] == []


def test_reference_images_of_every_pixel_format_become_pictures(tmp_path: Path) -> None:
    folder = unpack(seed_package(tmp_path, "every_pixel_format"), tmp_path / "out")
    random = np.random.default_rng(2)
    pictures = sorted((folder / "parity").iterdir())
    assert len(pictures) == len(FORMATS)
    for picture, (kind, channels, color) in zip(pictures, FORMATS, strict=True):
        expected = random.integers(0, np.iinfo(kind).max, (9, 11, *channels), dtype=kind)
        random.random((2, 3), np.float32), random.random((16, 24), np.float32)
        if channels:
            expected = expected[..., :3] if color == "rgb" else expected[..., 2::-1]
        np.testing.assert_array_equal(read_image(picture), expected)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    package = seed_package(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    for target in ("full", "part.onceover"):
        with pytest.raises(UsageError, match="exists and is not an empty folder; give the name of a new one"):
            unpack(package, tmp_path / target)
    assert (tmp_path / "full" / "note").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert (unpack(package, tmp_path / "empty") / "contents.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "part.onceover"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = seed_package(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        unpack(package, tmp_path / "absent" / "out")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onceover.runtime.unpack.write_image", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        unpack(package, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["part.onceover"]


def test_a_damaged_record_is_a_package_error_and_leaves_nothing(tmp_path: Path) -> None:
    writer = _core.PackageWriter()
    writer.add("config", b"too short")
    writer.save(tmp_path / "part.onceover")
    with pytest.raises(PackageError, match="member 'config'"):
        unpack(open_package(tmp_path / "part.onceover"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["part.onceover"]


def test_two_members_that_would_be_one_file_are_refused(tmp_path: Path) -> None:
    writer = _core.PackageWriter()
    writer.add("memory_bank", np.zeros((2, 3), np.float32))
    writer.add("memory_bank.npy", b"x", required=False)
    writer.save(tmp_path / "part.onceover")
    with pytest.raises(PackageError, match=r"two members would be the file memory_bank\.npy"):
        unpack(open_package(tmp_path / "part.onceover"), tmp_path / "out")


def test_the_command_lists_the_files_it_wrote(tmp_path: Path, capsys: Capture) -> None:
    package = seed_package(tmp_path)
    status, printed = answer(capsys, "unpack", package.path, "-o", str(tmp_path / "out"))
    assert (status, printed["id"]) == (0, package.id)
    assert {"config.json", "members/graph.onnx", "members/memory_bank.npy", "parity/00.png"} <= set(printed["files"])
    assert all((tmp_path / "out" / name).is_file() for name in printed["files"])
    status, message = refusal(capsys, "unpack", package.path, "-o", str(tmp_path / "out"))
    assert (status, "not an empty folder" in message) == (2, True)
