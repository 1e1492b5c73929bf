"""Everything that leaves: graphs from torch modules (torch), packages from fitted parts (no torch)."""

from __future__ import annotations

import os

from onceover import _core
from onceover.errors import OnceoverError, VerificationError
from onceover.export.verify import verify_bytes
from onceover.runtime.assemble import PackageParts, assemble
from onceover.runtime.corrections import check_no_journal
from onceover.runtime.self_contained import check_self_contained
from onceover.runtime.session import EngineOptions


def package(parts: PackageParts, path: str | os.PathLike[str], engine: str | EngineOptions = "onnxruntime") -> str:
    """Write a package that has proven itself; returns its id (64 hex digits).

    The bytes are opened and their parity record replayed before anything is written; the file then appears complete
    under its name or not at all, and is reopened once more. Raises VerificationError, OutputError, and InputError for a
    graph that is not complete in itself (external data, custom operators), UsageError where corrections of another
    package lie beside that name.
    """
    check_no_journal(path)
    check_self_contained(parts.graph, "the graph")
    data = assemble(parts).bytes()
    package_id = verify_bytes(data, engine)
    _core.save_atomically(os.fspath(path), data)
    try:
        reopened = _core.Package.open(os.fspath(path))
        if reopened.id != package_id:
            raise VerificationError(
                f"{path}: written as {package_id[:12]}, read back as {reopened.id[:12]}; the disk is at fault"
            )
    except OnceoverError:
        os.unlink(path)  # a package that cannot be read back is not kept
        raise
    return package_id


__all__ = ["package"]
