"""Reopen and replay: a package that does not reproduce its own record is not kept."""

from __future__ import annotations

from onceover import _core
from onceover.runtime.session import EngineOptions


def verify_bytes(data: bytes, engine: str | EngineOptions = "onnxruntime") -> str:
    """Open a package in memory, replay its parity record; returns its id. Raises PackageError, VerificationError."""
    package = _core.Package.view(data, "the new package")
    _core.Session(package, EngineOptions.of(engine).resolve()).self_test()
    return package.id
