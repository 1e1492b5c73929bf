"""Engines and sessions: finds the engine library of an installed wheel, without importing it, and opens a session."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from onceover import _core
from onceover.errors import EngineError, MissingExtraError, OnceoverError, UsageError, unknown_name


@dataclass(frozen=True)
class EngineWheel:
    """Where a Python wheel keeps the shared library of an engine.

    distributions: PyPI names that provide `module`; variants for other hardware share one module.
    patterns: file names by sys.platform, best first.
    """

    module: str
    directory: str
    distributions: tuple[str, ...]
    patterns: dict[str, tuple[str, ...]]


ENGINES = {
    "onnxruntime": EngineWheel(
        "onnxruntime",
        "capi",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
        {
            "linux": ("libonnxruntime.so.*", "libonnxruntime.so"),
            "darwin": ("libonnxruntime.*.dylib", "libonnxruntime.dylib"),
            "win32": ("onnxruntime.dll",),
        },
    ),
}


@dataclass(frozen=True)
class EngineStatus:
    """One engine on this machine. problem: why it cannot be used, None when it can."""

    name: str
    library: str | None
    version: str | None
    problem: str | None


def engine_library(engine: str) -> str:
    """The path of the engine's shared library in its installed wheel.

    Raises UnknownNameError, MissingExtraError when the wheel is not installed, EngineError when it has no library.
    """
    wheel = _wheel(engine)
    try:
        spec = importlib.util.find_spec(wheel.module)
    except (ImportError, ValueError):  # a half-removed package raises instead of answering None
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MissingExtraError(
            f"engine {engine!r} needs the module {wheel.module!r}; "
            f"install it with: pip install {wheel.distributions[0]}"
        )
    folder = Path(places[0]) / wheel.directory
    for pattern in wheel.patterns.get(sys.platform, ()):
        found = sorted(folder.glob(pattern))
        if found:
            return str(found[-1])
    raise EngineError(
        f"engine {engine!r}: {folder} holds no shared library for {sys.platform}: the wheel is damaged or too old; "
        f"replace it with: pip install --upgrade --force-reinstall {wheel.distributions[0]}"
    )


def available_engines() -> list[EngineStatus]:
    """Every engine onceover knows, usable here or not; loads none of them."""
    statuses = []
    for name in ENGINES:
        try:
            statuses.append(EngineStatus(name, engine_library(name), _version(name), None))
        except OnceoverError as error:
            statuses.append(EngineStatus(name, None, None, str(error)))
    return statuses


def open_session(
    package: _core.Package, engine: str = "onnxruntime", threads: int = 1, memory_limit_mb: float | None = None
) -> _core.Session:
    """A session of an open package, for one thread at a time.

    memory_limit_mb: of our buffers (network input, embeddings, map), not of what the engine allocates; None for no
    limit. Raises PackageError, EngineError, MemoryLimitError, UsageError, and what engine_library raises.
    """
    if memory_limit_mb is not None and not 0 < memory_limit_mb < 1e9:
        raise UsageError(f"memory_limit_mb must be above 0, or None for no limit; got {memory_limit_mb}")
    limit_bytes = 0 if memory_limit_mb is None else max(1, int(memory_limit_mb * 1e6))
    return _core.Session(package, engine, engine_library(engine), threads, limit_bytes)


def _wheel(engine: str) -> EngineWheel:
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    return ENGINES[engine]


def _version(engine: str) -> str | None:
    """What the wheel's metadata says; None for a library that was put there by other means."""
    for distribution in _wheel(engine).distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


__all__ = ["ENGINES", "EngineStatus", "available_engines", "engine_library", "open_session"]
