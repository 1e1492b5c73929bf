"""A package file for people: what is in it, where it came from. Reading and checking is csrc/package; never torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onceover import _core
from onceover.errors import PackageError, UsageError, unknown_name


@dataclass(frozen=True)
class Member:
    """One row of a package's table of contents.

    type: bytes, float32, float64, uint8, int8 or uint32. dimensions: of the array, in elements. sha256: hex.
    """

    name: str
    type: str
    dimensions: tuple[int, ...]
    size_bytes: int
    required: bool
    sha256: str


@dataclass(frozen=True)
class PackageFile:
    """An open, checked package.

    core: the compiled reader, for sessions and member arrays. id: 64 hex digits, changes with any byte of the file.
    manifest: the parsed member manifest.json, {} when there is none (a session does not need it).
    """

    core: _core.Package = field(repr=False)
    id: str
    members: tuple[Member, ...] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False, hash=False)

    @property
    def path(self) -> str:
        return self.core.label

    @property
    def products(self) -> tuple[str, ...]:
        """Names, in the order of their numbers; of a package of one product what its manifest says."""
        names = _core.read_products(self.core)
        return (str(self.manifest.get("name", "")),) if len(names) == 1 else tuple(names)

    def product_manifest(self, number: int) -> dict[str, Any]:
        """What the manifest says of one product: all of it, where there is one."""
        listed = self.manifest.get("products")
        if not isinstance(listed, list):
            return self.manifest if number == 0 else {}
        return listed[number] if number < len(listed) and isinstance(listed[number], dict) else {}

    def product_number(self, name: str) -> int:
        """UnknownNameError, with near matches, for a product that the package does not have."""
        if name not in self.products:
            raise unknown_name(f"product of {self.path}", name, self.products)
        return self.products.index(name)

    @property
    def size_bytes(self) -> int:
        """Of all members; the file adds its table of contents and padding."""
        return sum(member.size_bytes for member in self.members)

    def describe(self) -> Iterator[tuple[str, str]]:
        """(what, value) rows for `onceover list` and `onceover inspect`."""
        major, minor = self.core.version
        yield "package", self.path
        yield "id", self.id
        yield "format", f"{major}.{minor}"
        for what, key in (
            ("name", "name"),
            ("written by onceover", "onceover"),
            ("backbone", "backbone"),
            ("detector", "detector"),
        ):
            if key in self.manifest:
                yield what, _one_line(self.manifest[key])
        adaptation = self.manifest.get("adaptation")
        if isinstance(adaptation, dict) and "images" in adaptation:
            yield "adapted", f"by {adaptation['images']} images of the memory bank"
        elif isinstance(adaptation, dict) and adaptation.get("adapted") is False:
            yield "adapted", f"no: {_one_line(adaptation.get('reason', 'the package does not say why'))}"
        weights = self.manifest.get("position_weights")
        if isinstance(weights, dict) and {"least", "most"} <= weights.keys():
            yield "positions", f"distances count {weights['least']} to {weights['most']} times, by where they are"
        if isinstance(self.manifest.get("calibration"), dict):
            yield "threshold", calibration_text(self.manifest["calibration"])
        for member in self.members:
            shape = " × ".join(str(size) for size in member.dimensions)
            kind = _size_text(member.size_bytes) if member.type == "bytes" else f"{member.type} {shape}"
            yield member.name, kind if member.required else f"{kind} (optional)"
        yield "size", _size_text(self.size_bytes)


def open_package(path: str | os.PathLike[str], verify_hashes: str = "all", copy: bool = False) -> PackageFile:
    """Open and check a package.

    verify_hashes: "all", or "small", which opens a large package faster and does not notice damage of its members
    above 64 KiB (graph, memory bank, its index); then use it only from storage that is checked otherwise.
    copy: read the file into memory instead of mapping it, so that nothing that happens to the file later is seen.
    Raises InputError when the file cannot be read, PackageError when it is damaged (or its manifest is no JSON
    object), UnsupportedPackageError when it is of another format version or has required members unknown here.
    """
    return view_package(_core.Package.open(os.fspath(path), verify_hashes, copy))


def member_name(name: str, product: int) -> str:
    """What a product's member is called: "memory_bank" of the first, "memory_bank.3" of number 3."""
    return name if product == 0 else f"{name}.{product}"


def require_one_product(package: PackageFile, what: str, instead: str = "do it for each, then combine them") -> None:
    """UsageError for a package of several products, which `what` cannot handle, with what to do instead."""
    if len(package.products) > 1:
        raise UsageError(
            f"{package.path}: holds {len(package.products)} products ({', '.join(package.products)}); {what} takes a "
            f"package of one: {instead}"
        )


def view_package(core: _core.Package) -> PackageFile:
    """The same view of a package that is open already."""
    members = tuple(Member(**{**row, "dimensions": tuple(row["dimensions"])}) for row in core.members)
    return PackageFile(core=core, id=core.id, members=members, manifest=read_manifest(core))


def read_manifest(core: _core.Package) -> dict[str, Any]:
    """The member manifest.json, {} when there is none; PackageError when it is not a JSON object in UTF-8."""
    if all(member["name"] != "manifest.json" for member in core.members):
        return {}
    try:
        manifest = json.loads(core.read("manifest.json").decode("utf-8"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise PackageError(
            f"{core.label}: member 'manifest.json' is not JSON ({error}); fit the package again"
        ) from error
    if not isinstance(manifest, dict):
        found = type(manifest).__name__
        raise PackageError(f"{core.label}: member 'manifest.json' holds a JSON {found}, expected an object; fit again")
    return manifest


def calibration_text(stored: Mapping[str, Any]) -> str:
    """What a manifest says of its calibration, on a line: method, rate, parts, confidence."""
    words = [str(stored.get("method", "unknown method"))]
    rate, confidence = stored.get("false_alarm_rate"), stored.get("confidence")
    if isinstance(rate, (int, float)):
        surely = f" with {100 * confidence:g} % confidence" if isinstance(confidence, (int, float)) else ""
        words.append(f"{100 * rate:g} %{surely}")
    return ", ".join([*words, f"{stored.get('parts', '?')} parts"])


def _one_line(value: Any) -> str:
    """A manifest value for a table: objects are shown by their name."""
    if isinstance(value, dict):
        value = value.get("name", value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _size_text(size_bytes: int) -> str:
    """12345678 → "12.3 MB": decimal units, as file managers and flash vendors count."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.1f} {unit}"
    return f"{size_bytes} bytes"


__all__ = [
    "Member",
    "PackageFile",
    "calibration_text",
    "member_name",
    "open_package",
    "read_manifest",
    "require_one_product",
    "view_package",
]
