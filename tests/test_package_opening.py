"""Options of opening a package: what is hashed, mapped or copied, and what happens when the file changes meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_package import tiny_image, tiny_package

from onceover import _core
from onceover.errors import InputError, PackageError, UsageError
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package

SMALL = 65536


def bank_package(path: Path, fill: float = 0.0, rows: int = SMALL // 32 + 1) -> Path:
    """A package whose memory bank is just above what is always hashed."""
    writer = _core.PackageWriter()
    writer.add("config", b"small")
    writer.add("memory_bank", np.full((rows, 8), fill, np.float32))
    writer.save(path)
    return path


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_damage_of_a_large_member_is_noticed_unless_only_small_ones_are_hashed(tmp_path: Path) -> None:
    path = bank_package(tmp_path / "part.onceover")
    flip(path, path.stat().st_size - 5)
    with pytest.raises(PackageError, match=r"'memory_bank' .* does not match its SHA-256; the file is damaged"):
        open_package(path)
    package = open_package(path, verify_hashes="small")
    assert package.core.verified_hashes == "small"
    assert package.core.array("memory_bank").any()  # the damage is there: the price of the fast path


def test_small_members_table_and_padding_are_checked_in_any_mode(tmp_path: Path) -> None:
    path = bank_package(tmp_path / "part.onceover", rows=SMALL // 32)  # exactly the limit
    sound = path.read_bytes()
    directory = 64 + 2 * (128 + 32) + 32  # header, two entries, two digests, id
    bank_begins = len(sound) - SMALL
    for offset in (3, 40, 70, 64 + 2 * 128 + 1, directory - 1, directory, bank_begins - 64, bank_begins - 1, -1):
        path.write_bytes(sound)
        flip(path, offset)
        with pytest.raises(PackageError):
            open_package(path, verify_hashes="small")
    path.write_bytes(sound)
    assert open_package(path, verify_hashes="small").id == open_package(path).id


def test_an_unknown_way_of_hashing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="verify_hashes is 'none', expected 'all' or 'small'"):
        open_package(bank_package(tmp_path / "part.onceover"), verify_hashes="none")


def test_a_copied_package_is_the_mapped_one(tmp_path: Path) -> None:
    path = tiny_package(tmp_path / "tiny.onceover")
    mapped, copied = open_package(path), open_package(path, copy=True)
    assert (mapped.id, mapped.members, mapped.manifest) == (copied.id, copied.members, copied.manifest)
    assert copied.core.array("memory_bank").ctypes.data % 64 == 0


def test_a_copied_package_survives_a_file_that_is_overwritten_and_cut(tmp_path: Path) -> None:
    path = tiny_package(tmp_path / "tiny.onceover")
    expected = Inspector.open(path).inspect(tiny_image(300))
    with Inspector.open(open_package(path, copy=True)) as inspector:
        path.write_bytes(b"x" * path.stat().st_size)
        os.truncate(path, 0)
        verdict = inspector.inspect(tiny_image(300))
        assert verdict.score == expected.score
        assert inspector.verify()["images"] == 3


def test_a_mapped_package_survives_a_file_that_is_replaced_by_renaming(tmp_path: Path) -> None:
    path = bank_package(tmp_path / "part.onceover", fill=1)
    package = open_package(path)
    bank_package(path, fill=2)  # the writer renames
    assert (package.core.array("memory_bank") == 1).all()
    assert (open_package(path).core.array("memory_bank") == 2).all()


def test_a_mapped_package_under_a_file_that_is_cut_ends_the_process(tmp_path: Path) -> None:
    """What FORMAT.md warns of, and why `copy` exists: a promise about what is not promised."""
    program = (
        "import os, sys\n"
        "from onceover.runtime.package import open_package\n"
        "package = open_package(sys.argv[1], copy=sys.argv[2] == 'copy')\n"
        "os.truncate(sys.argv[1], 0)\n"
        "print(package.core.array('memory_bank').sum())\n"
    )

    def run(how: str) -> subprocess.CompletedProcess[str]:
        path = bank_package(tmp_path / f"{how}.onceover", rows=100_000)
        return subprocess.run([sys.executable, "-c", program, path, how], capture_output=True, text=True, check=False)

    assert run("map").returncode == -signal.SIGBUS
    copied = run("copy")
    assert (copied.returncode, copied.stdout) == (0, "0.0\n")


REWRITE_FOREVER = """
import os, sys
contents = [open(name, "rb").read() for name in sys.argv[2:]]
file = os.open(sys.argv[1], os.O_WRONLY)
print("ready", flush=True)
while True:
    for content in contents:
        os.pwrite(file, content, 0)
"""


@pytest.mark.parametrize("copy", [True, False])
def test_a_file_that_is_rewritten_while_it_is_opened_is_one_whole_package_or_an_error(
    tmp_path: Path, copy: bool
) -> None:
    names = [str(bank_package(tmp_path / f"{fill}.onceover", fill)) for fill in (1, 2)]
    ids = {open_package(name).id: fill for name, fill in zip(names, (1, 2), strict=True)}
    path = tmp_path / "part.onceover"
    path.write_bytes(Path(names[0]).read_bytes())
    opened = refused = 0
    with subprocess.Popen([sys.executable, "-c", REWRITE_FOREVER, str(path), *names], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for _ in range(300):
            try:
                package = open_package(path, copy=copy)
            except (PackageError, InputError):
                refused += 1
                continue
            opened += 1
            if copy:  # what was checked is what is used
                assert (package.core.array("memory_bank") == ids[package.id]).all()
        child.kill()
    assert opened + refused == 300
    assert refused > 0
