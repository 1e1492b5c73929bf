"""A package as a folder for people: every member as a file, arrays as .npy, records as JSON, pictures as PNG.

```
contents.json      id, format version, what each member is
config.json  calibration.json  parity.json  manifest.json
parity/00.png …    the reference images
thumbnails/00000.jpg …  of bank image 0 …, where the package has them
members/           every member as it is in the package; arrays as NAME.npy
```
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onceover import _core
from onceover.errors import OutputError, PackageError, UsageError
from onceover.images import write_image
from onceover.runtime.package import PackageFile
from onceover.runtime.thumbnails import read_thumbnails
from onceover.types import DECISIONS, ONE_TILE, Image, Tiling


def unpack(package: PackageFile, folder: str | os.PathLike[str]) -> Path:
    """Write the package's content to `folder`, which is new or empty; it appears complete or not at all.

    Raises UsageError when the folder holds something, OutputError when it cannot be written, PackageError for a record
    without a meaning.
    """
    target = Path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target}: exists and is not an empty folder; give the name of a new one")
    temporary = target.parent / f".{target.name or 'package'}.{os.getpid()}.tmp"
    try:
        temporary.mkdir()
        try:
            _write_content(package, temporary)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    return target


def _write_content(package: PackageFile, folder: Path) -> None:
    (folder / "members").mkdir()
    for member in package.members:
        _write_member(package, member.name, member.type, folder / "members")
    names = {member.name for member in package.members}
    contents = {
        "id": package.id,
        "format": list(package.core.version),
        "members": [asdict(member) for member in package.members],
    }
    _write_json(folder / "contents.json", contents)
    if package.manifest:
        _write_json(folder / "manifest.json", package.manifest)
    if "config" in names:
        _write_json(folder / "config.json", _config(package.core))
    if "calibration" in names:
        _write_json(folder / "calibration.json", _calibration(package.core))
    if {"config", "parity"} <= names:
        _write_parity(package.core, folder)
    _write_thumbnails(package, folder)


def _write_member(package: PackageFile, name: str, kind: str, folder: Path) -> None:
    path = folder / (name if kind == "bytes" else f"{name}.npy")
    if path.exists():  # a member of bytes that is named like another one's array
        raise PackageError(f"{package.path}: two members would be the file {path.name}; its writer is at fault")
    if kind == "bytes":
        path.write_bytes(package.core.read(name))
    else:
        np.save(path, package.core.array(name), allow_pickle=False)


def _config(core: _core.Package) -> dict[str, Any]:
    config = _core.read_config(core)
    fields = ("height", "width", "mean", "std", "grid_height", "grid_width", "embedding_dim", "blur_sigma")
    facts = {"color": "rgb", "resize": "triangle", **{name: getattr(config, name) for name in fields}}
    tiling = Tiling(*config.tiling)
    return facts if tiling == ONE_TILE else {**facts, "tiling": asdict(tiling)}


def _calibration(core: _core.Package) -> dict[str, Any]:
    stored = _core.read_calibration(core)
    thresholds = ("threshold", "map_threshold")
    known = {name: stored[name] if stored["calibrated"] else None for name in thresholds}  # JSON has no infinity
    return {**stored, **known, "scores": stored["scores"].tolist(), "map_maxima": stored["map_maxima"].tolist()}


def _write_parity(core: _core.Package, folder: Path) -> None:
    record = _core.read_parity(core)
    rows = []
    (folder / "parity").mkdir()
    for i, reference in enumerate(record["images"]):
        picture = Path("parity", f"{i:02}.png")
        write_image(folder / picture, _to_rgb(reference["image"], reference["color"]))
        rows.append(
            {
                "image": picture.as_posix(),
                "score": reference["score"],
                "verdict": DECISIONS[reference["verdict"]],
                "patch_scores": reference["patch_scores"].tolist(),
            }
        )
    fields = {"relative_tolerance": record["relative_tolerance"], "map_step": record["map_step"]}
    _write_json(folder / "parity.json", {**fields, "images": rows})


def _write_thumbnails(package: PackageFile, folder: Path) -> None:
    stored = read_thumbnails(package)
    if stored is None:
        return
    (folder / "thumbnails").mkdir()
    for image, picture in stored.pictures.items():
        (folder / "thumbnails" / f"{image:05}.jpg").write_bytes(picture.jpeg)


def _to_rgb(image: Image, color: str) -> Image:
    """(H, W) or (H, W, 3) RGB; alpha is dropped, as the session ignores it."""
    if image.ndim == 2:
        return image
    colors = image[..., :3]
    return np.ascontiguousarray(colors if color == "rgb" else colors[..., ::-1])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


__all__ = ["unpack"]
