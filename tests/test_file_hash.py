"""The SHA-256 of files, and that what cannot be read is an InputError wherever files are hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from onceover.errors import InputError
from onceover.file_hash import file_hash
from onceover.training.dataset import join_copies


def test_a_file_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for size in (0, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):  # around what is read at once
        path.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
        assert file_hash(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: cannot read the image \(No such file or directory\); check the"):
        file_hash(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"cannot read the weights file \(Is a directory\); copy it again"):
        file_hash(tmp_path, "weights file", "copy it again")
    images = [tmp_path / "a.png", tmp_path / "b.png"]  # of equal length, and no files
    for path in images:
        path.mkdir()
    with pytest.raises(InputError, match=r"a\.png: cannot read the image"):
        join_copies(images, {path: path.name for path in images})
