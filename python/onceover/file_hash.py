"""The SHA-256 of a file: what names images, weights and graphs in manifests and cards, however they were called."""

from __future__ import annotations

import hashlib
import os

from onceover.errors import InputError

_BLOCK = 1 << 20


def file_hash(path: str | os.PathLike[str], kind: str = "image", advice: str = "check the path") -> str:
    """SHA-256 of a file's bytes, hex. Raises InputError, which calls it a `kind`, when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot read the {kind} ({error.strerror}); {advice}") from error
    return digest.hexdigest()
