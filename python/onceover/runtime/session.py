"""Engines and sessions: finds the engine library of an installed wheel, without importing it, and opens a session."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onceover import _core
from onceover.errors import EngineError, MissingExtraError, OnceoverError, UsageError, unknown_name


@dataclass(frozen=True)
class EngineWheel:
    """Where a Python wheel keeps the shared library of an engine.

    Module and PyPI distribution share a name. patterns: file names by sys.platform, best first.
    """

    module: str
    directory: str
    patterns: dict[str, tuple[str, ...]]


ENGINES = {
    "onnxruntime": EngineWheel(
        "onnxruntime",
        "capi",
        {
            "linux": ("libonnxruntime.so.*", "libonnxruntime.so"),
            "darwin": ("libonnxruntime.*.dylib", "libonnxruntime.dylib"),
            "win32": ("onnxruntime.dll",),
        },
    ),
    "openvino": EngineWheel(
        "openvino",
        "libs",
        {
            "linux": ("libopenvino_c.so.*", "libopenvino_c.so"),
            "darwin": ("libopenvino_c.*.dylib", "libopenvino_c.dylib"),
            "win32": ("openvino_c.dll",),
        },
    ),
}


@dataclass(frozen=True)
class EngineOptions:
    """What runs the network, and where. Wherever an engine is asked for, its name alone will do.

    device: of openvino a device in its own words (GPU, NPU, AUTO:GPU,CPU), of onnxruntime execution providers, best
    first (TensorRT,CUDA); empty for the CPU. options: as the engine's manual spells them; for onnxruntime they belong
    to the first provider, "CUDA.key" to a named one, "session.key" to the session. cache_dir: folder for compiled
    graphs. library: path of the engine's shared library; None: what ONCEOVER_<NAME>_LIBRARY says, else the installed
    wheel's.
    """

    name: str = "onnxruntime"
    device: str = ""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    cache_dir: str | os.PathLike[str] | None = None
    library: str | os.PathLike[str] | None = None

    @classmethod
    def of(cls, engine: str | EngineOptions) -> EngineOptions:
        return cls(engine) if isinstance(engine, str) else engine

    def resolve(self, threads: int = 1) -> _core.EngineOptions:
        """For the core, with the library found. Raises UsageError and what engine_library raises."""
        library = engine_library(self.name, self.library)
        options = [(str(key), str(value)) for key, value in self.options.items()]
        return _core.EngineOptions(self.name, library, threads, self.device, options, self.cache_dir)


@dataclass(frozen=True)
class EngineStatus:
    """One engine on this machine. devices: what it offers here. problem: why it cannot be used, None when it can."""

    name: str
    library: str | None
    version: str | None
    devices: tuple[str, ...]
    problem: str | None


def engine_library(engine: str, library: str | os.PathLike[str] | None = None) -> str:
    """The path of the engine's shared library: the one given, of the environment, or in the installed wheel.

    Raises UnknownNameError, MissingExtraError when the wheel is not installed, EngineError when it has no library.
    """
    wheel = _wheel(engine)
    given = library or os.environ.get(library_variable(engine))
    if given:  # a bare name that is no file here is left to the system's own search
        return str(Path(given).absolute()) if Path(given).exists() else os.fspath(given)
    try:
        spec = importlib.util.find_spec(wheel.module)
    except (ImportError, ValueError):  # a half-removed package raises instead of answering None
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MissingExtraError(
            f"engine {engine!r} needs the module {wheel.module!r}; install it with: pip install {wheel.module}, "
            f"or give the path of its library ({library_variable(engine)})"
        )
    folder = Path(places[0]) / wheel.directory
    for pattern in wheel.patterns.get(sys.platform, ()):
        found = sorted(folder.glob(pattern))
        if found:
            return str(found[-1])
    raise EngineError(
        f"engine {engine!r}: {folder} holds no shared library for {sys.platform}: the wheel is damaged or too old; "
        f"replace it with: pip install --upgrade --force-reinstall {wheel.module}"
    )


def library_variable(engine: str) -> str:
    """The environment variable that names the engine's library."""
    return f"ONCEOVER_{engine.upper()}_LIBRARY"


def available_engines() -> list[EngineStatus]:
    """Every engine onceover knows, usable here or not; loads each that is installed, to ask what it offers."""
    statuses = []
    for name in ENGINES:
        try:
            library = engine_library(name)
            version, devices = _core.describe_engine(name, library)
            statuses.append(EngineStatus(name, library, version.removeprefix(f"{name} "), tuple(devices), None))
        except OnceoverError as error:
            statuses.append(EngineStatus(name, None, None, (), str(error)))
    return statuses


def open_session(
    package: _core.Package,
    engine: str | EngineOptions = "onnxruntime",
    threads: int = 1,
    memory_limit_mb: float | None = None,
) -> _core.Session:
    """A session of an open package, for one thread at a time.

    memory_limit_mb: of our buffers (network input, embeddings, map), not of what the engine allocates; None for no
    limit. Raises PackageError, EngineError, MemoryLimitError, UsageError, and what engine_library raises.
    """
    if memory_limit_mb is not None and not 0 < memory_limit_mb < 1e9:
        raise UsageError(f"memory_limit_mb must be above 0, or None for no limit; got {memory_limit_mb}")
    limit_bytes = 0 if memory_limit_mb is None else max(1, int(memory_limit_mb * 1e6))
    return _core.Session(package, EngineOptions.of(engine).resolve(threads), limit_bytes)


def _wheel(engine: str) -> EngineWheel:
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    return ENGINES[engine]


__all__ = [
    "ENGINES",
    "EngineOptions",
    "EngineStatus",
    "available_engines",
    "engine_library",
    "library_variable",
    "open_session",
]
