"""How much disk the distributions that somebody needs take, with everything that they require.

python benchmarks/install_size.py torch numpy      # bytes
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Distributions by name: those named and what they require here without extras, as far as installed."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of another system, or no longer needed
        requirements = (Requirement(text) for text in found[name].requires or ())
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def install_bytes(names: Iterable[str]) -> int:
    """Bytes of all files of `needed(names)`; compiled Python (.pyc) is not counted, as it depends on what has run."""
    return sum(_own_bytes(name, found) for name, found in needed(names).items())


def _own_bytes(name: str, found: Distribution) -> int:
    if name == "onceover":  # where it is installed in place, its record names no module
        import onceover.export

        folders = {Path(place) for module in (onceover, onceover.export) for place in module.__path__}
        files = {path.resolve() for folder in folders for path in folder.rglob("*") if path.is_file()}
        return sum(path.stat().st_size for path in files if path.suffix != ".pyc")
    paths = (Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    print(install_bytes(sys.argv[1:]))

__all__ = ["install_bytes", "needed"]
