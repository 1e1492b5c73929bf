"""What every number needs beside it: CPU, instruction set, caches, memory and the versions of what ran."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onceover import _core

LIBRARIES = (
    "numpy",
    "onnxruntime",
    "openvino",
    "torch",
    "faiss-cpu",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
    "pyaupro",
    "ADEval",
    "anomalib",
)
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine_text(libraries: Sequence[str] = LIBRARIES) -> str:
    """One paragraph; the same on every call on one machine with one environment."""
    told = json.loads(_core.describe_machine())
    cpus = f"{told['cpus']} {'virtual ' if told['in_a_vm'] else ''}CPU{'s' if told['cpus'] > 1 else ''}"
    isas = ", ".join(_core.available_isas())
    parts = [f"{told['cpu'] or platform.machine()}, {cpus}", f"instruction set {_core.isa()} (of {isas})"]
    if sizes := cache_sizes():
        parts.append(", ".join(f"{level} {size}" for level, size in sizes.items()))
    parts.append(f"{told['memory_bytes'] / 1e9:.0f} GB of memory")
    parts.append(told["kernel"].split("-")[0])  # without the builder's suffix
    found = [f"Python {platform.python_version()}", f"onceover {_core.__version__}"]
    for library in libraries:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return f"{'; '.join(parts)}. {', '.join(found)}."


def cache_sizes() -> dict[str, str]:
    """Level → size of the data or unified cache of CPU 0, as Linux tells them; empty elsewhere."""
    sizes = {}
    for folder in sorted(CACHES.glob("index*")):
        kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            kilobytes = int(size.removesuffix("K"))
            sizes[f"L{level}"] = f"{kilobytes} KB" if kilobytes < 1024 else f"{kilobytes / 1024:.3g} MB"
    return sizes


__all__ = ["machine_text"]
