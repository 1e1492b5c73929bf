"""The package room from Python: views, errors, files that are complete or not there. In depth: test_package*.cpp."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onceover import _core
from onceover.errors import InputError, OutputError, PackageError, UnsupportedPackageError, UsageError
from onceover.runtime.package import open_package

MANIFEST = {"name": "plate", "onceover": "0.1.0", "detector": {"name": "patchcore"}, "seed": 7}
BANK = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)


def make_config() -> _core.Config:
    return _core.Config(
        height=32, width=48, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.125),
        grid_height=4, grid_width=6, embedding_dim=8, blur_sigma=4.0,
    )  # fmt: skip


def make_parity(image: np.ndarray[Any, Any], map_step: int = 5) -> bytes:
    patch_scores = np.arange(24, dtype=np.float32).reshape(4, 6)
    anomaly_map = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    item = _core.ParityItem(image, "rgb", 1.5, 1, patch_scores, anomaly_map)
    return _core.parity_bytes([item], make_config(), 1e-4, map_step)


def make_writer(
    bank: np.ndarray[Any, Any] = BANK, manifest: bytes = json.dumps(MANIFEST).encode()
) -> _core.PackageWriter:
    scores = np.linspace(3, 1, 19, dtype=np.float32)
    writer = _core.PackageWriter()
    writer.add("config", make_config().to_bytes())
    writer.add("manifest.json", manifest)
    writer.add("memory_bank", bank)
    writer.add(
        "calibration",
        _core.calibration_bytes(
            calibrated=True, false_alarm_rate=0.05, threshold=3.0, map_threshold=3.0,
            scores=scores, map_maxima=scores, image_count=19,
        ),
    )  # fmt: skip
    writer.add("parity", make_parity(np.full((16, 20, 3), 99, np.uint8)))
    writer.add("bank_source", np.zeros((40, 2), np.uint32), required=False)
    return writer


@pytest.fixture(scope="module")
def package_bytes() -> bytes:
    return make_writer().bytes()


def test_a_package_read_back_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plate.onceover"
    make_writer().save(str(path))
    package = open_package(path)
    assert path.read_bytes() == make_writer().bytes()
    assert package.manifest == MANIFEST
    assert [member.name for member in package.members] == [
        "config", "manifest.json", "memory_bank", "calibration", "parity", "bank_source",
    ]  # fmt: skip
    bank = package.members[2]
    assert (bank.type, bank.dimensions, bank.size_bytes, bank.required) == ("float32", (40, 8), 1280, True)
    assert bank.sha256 == hashlib.sha256(BANK.tobytes()).hexdigest()
    assert not package.members[5].required
    np.testing.assert_array_equal(package.core.array("memory_bank"), BANK)
    assert package.core.read("config") == make_config().to_bytes()
    assert package.size_bytes == sum(len(package.core.read(member.name)) for member in package.members)


def test_the_id_is_the_hash_of_everything_before_it(package_bytes: bytes) -> None:
    directory = 64 + 6 * (128 + 32)  # header, six entries, six digests: export/FORMAT.md
    package = _core.Package.view(package_bytes)
    assert package.id == hashlib.sha256(package_bytes[:directory]).hexdigest()
    assert package_bytes[directory : directory + 32].hex() == package.id
    assert package.version == (1, 0)


def test_describe_names_the_package_and_every_member(tmp_path: Path) -> None:
    path = tmp_path / "plate.onceover"
    make_writer().save(str(path))
    rows = dict(open_package(path).describe())
    assert rows["package"] == str(path)
    assert rows["name"] == "plate"
    assert rows["detector"] == "patchcore"
    assert rows["memory_bank"] == "float32 40 × 8"
    assert rows["bank_source"] == "uint32 40 × 2 (optional)"
    assert rows["config"] == "256 bytes"


def test_a_member_array_cannot_be_changed_and_outlives_its_package(tmp_path: Path) -> None:
    path = tmp_path / "plate.onceover"
    make_writer().save(str(path))
    array = open_package(path).core.array("memory_bank")
    path.unlink()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)
    np.testing.assert_array_equal(array, BANK)


def test_a_view_of_bytes_keeps_them_alive(package_bytes: bytes) -> None:
    array = _core.Package.view(bytes(bytearray(package_bytes))).array("memory_bank")  # nothing else holds this copy
    np.testing.assert_array_equal(array, BANK)


def test_an_array_that_is_not_contiguous_is_written_in_its_own_order() -> None:
    writer = make_writer(np.asfortranarray(BANK))
    assert writer.bytes() == make_writer().bytes()


def test_the_parity_record_holds_every_step_th_row_and_column_and_unpadded_pixels() -> None:
    wide = np.random.default_rng(2).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    record = make_parity(wide[:, :20], map_step=5)
    assert record == make_parity(np.ascontiguousarray(wide[:, :20]), map_step=5)
    assert np.ascontiguousarray(wide[:, :20]).tobytes() in record
    anomaly_map = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    assert record.endswith(np.ascontiguousarray(anomaly_map[::5, ::5]).tobytes())


def test_a_config_keeps_its_values() -> None:
    config = make_config()
    assert (config.height, config.width, config.std) == (32, 48, (0.25, 0.5, 0.125))
    assert config.mean == pytest.approx((0.5, 0.4, 0.3))
    assert (config.grid_height, config.grid_width, config.embedding_dim, config.blur_sigma) == (4, 6, 8, 4.0)


@pytest.mark.parametrize("manifest", [b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_manifest_is_a_package_error_that_names_it(tmp_path: Path, manifest: bytes) -> None:
    path = tmp_path / "plate.onceover"
    make_writer(manifest=manifest).save(str(path))
    with pytest.raises(PackageError, match=r"plate\.onceover: member 'manifest\.json'"):
        open_package(path)


def test_a_package_cut_at_any_byte_raises(package_bytes: bytes) -> None:
    for size in range(0, len(package_bytes), 7):
        with pytest.raises(PackageError):
            _core.Package.view(package_bytes[:size])
    with pytest.raises(PackageError, match="1 bytes are missing; it is truncated, copy it again"):
        _core.Package.view(package_bytes[:-1])


def test_a_flipped_bit_raises(package_bytes: bytes) -> None:
    choose = random.Random(3)
    for _ in range(500):
        damaged = bytearray(package_bytes)
        damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
        with pytest.raises(PackageError):
            _core.Package.view(bytes(damaged))
    assert _core.Package.view(package_bytes).id


def forge(package: bytes, offset: int, content: bytes) -> bytes:
    """Change the header or table and make the id right again."""
    forged = bytearray(package)
    forged[offset : offset + len(content)] = content
    directory = 64 + 6 * (128 + 32)
    forged[directory : directory + 32] = hashlib.sha256(forged[:directory]).digest()
    return bytes(forged)


def test_an_unknown_required_member_is_refused_by_name(package_bytes: bytes) -> None:
    last = 64 + 5 * 128
    optional = forge(package_bytes, last, b"splines\0\0\0\0")
    assert [member["name"] for member in _core.Package.view(optional).members][-1] == "splines"
    with pytest.raises(UnsupportedPackageError, match="'splines' is required"):
        _core.Package.view(forge(optional, last + 48, b"\1"))


def test_another_major_version_is_unsupported_and_a_newer_minor_is_not(package_bytes: bytes) -> None:
    with pytest.raises(UnsupportedPackageError, match=r"package format 2\.0, this version reads 1\.x"):
        _core.Package.view(forge(package_bytes, 8, b"\2"))
    assert _core.Package.view(forge(package_bytes, 10, b"\7")).version == (1, 7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w.add("config", b"again"), "already added"),
        (lambda w: w.add("../evil", b"x", required=False), "member name '../evil'"),
        (lambda w: w.add("splines", b"x"), "add it as optional"),
        (lambda w: w.add("extra", b"", required=False), "0 bytes"),
        (lambda w: w.add("extra", np.zeros(3, np.int64), required=False), "int64"),
        (lambda w: w.add("extra", np.zeros((), np.float32), required=False), "scalar"),
    ],
)
def test_a_wrong_member_is_a_usage_error(call: Callable[[_core.PackageWriter], None], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(make_writer())


def test_what_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_package(tmp_path / "absent.onceover")
    with pytest.raises(InputError, match="is a folder"):
        open_package(tmp_path)
    empty = tmp_path / "empty.onceover"
    empty.touch()
    with pytest.raises(PackageError, match="the file is empty"):
        open_package(empty)


def test_what_cannot_be_written_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create the folder first"):
        make_writer().save(str(tmp_path / "absent" / "plate.onceover"))
    with pytest.raises(OutputError, match="is a folder"):
        make_writer().save(str(tmp_path))
    with pytest.raises(OutputError, match="/dev/full: is a device"):
        _core.save_atomically("/dev/full", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_keeps_its_old_package(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; run the tests as an ordinary user to include this one")
    path = tmp_path / "plate.onceover"
    path.write_bytes(b"old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="check the permissions of its folder"):
            make_writer().save(str(path))
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


SAVE_FOREVER = """
import sys
from onceover import _core

writers = []
for fill in (b"a", b"b"):
    writer = _core.PackageWriter()
    writer.add("memory_bank", fill * (8 << 20))
    writers.append(writer)
print("ready", flush=True)
while True:
    for writer in writers:
        writer.save(sys.argv[1])
"""


def test_a_save_that_is_killed_leaves_a_complete_package_or_none(tmp_path: Path) -> None:
    path = tmp_path / "plate.onceover"
    choose = random.Random(4)
    contents = {b"a" * (8 << 20), b"b" * (8 << 20)}
    for _ in range(8):
        command = [sys.executable, "-c", SAVE_FOREVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(choose.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        if path.exists():
            assert _core.Package.open(str(path)).read("memory_bank") in contents
    make_writer().save(str(path))
    assert list(tmp_path.iterdir()) == [path]  # what the killed ones left is gone
    assert open_package(path).manifest == MANIFEST
