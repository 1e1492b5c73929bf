"""Packages of several products on one network → one package: the graph once, and every product's own members."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from onceover import _core
from onceover.errors import OnceoverError, UsageError
from onceover.runtime.corrections import check_no_journal
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import PackageFile, open_package
from onceover.runtime.session import EngineOptions

SHARED = ("config", "graph.onnx")
MANIFEST, PRODUCTS = "manifest.json", "products"
MAX_PRODUCTS = 32  # kMaxProducts


def combine(
    packages: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    names: Sequence[str] = (),
    engine: str | EngineOptions = "onnxruntime",
) -> str:
    """Write one package that holds the products of `packages`, and verify it. Returns its id.

    names: of the products, in order; empty: what their manifests say. The same packages give the same bytes. Raises
    UsageError for packages of different networks or settings, fewer than 2 or more than 32, names that are not
    distinct, or corrections of another package beside `output`, and what opening, verifying and saving a package
    raises.
    """
    check_no_journal(output)
    opened = [open_package(path) for path in packages]
    if not 2 <= len(opened) <= MAX_PRODUCTS:
        raise UsageError(f"{len(opened)} packages: give 2 to {MAX_PRODUCTS}, each of one product")
    called = list(names) or [str(package.manifest.get("name", "")) for package in opened]
    _check(opened, called)
    writer = _core.PackageWriter()
    for name in SHARED:
        writer.add(name, opened[0].core.read(name))
    writer.add(PRODUCTS, _core.products_bytes(called))
    writer.add(MANIFEST, _manifest(opened, called))
    for number, package in enumerate(opened):
        for member in package.members:
            if member.name in (*SHARED, MANIFEST):
                continue
            content = package.core.read(member.name) if member.type == "bytes" else package.core.array(member.name)
            name = member.name if number == 0 else f"{member.name}.{number}"
            writer.add(name, content, required=member.required)
    target = Path(output)
    view = _core.Package.view(writer.bytes(), f"{target} (not yet written)")
    _core.Session(view, EngineOptions.of(engine).resolve()).self_test()
    _core.save_atomically(os.fspath(target), writer.bytes())
    try:
        # By name, as a product may have no gate; verifying replays all of them.
        with Inspector.open(target, engine, product=called[0]) as inspector:
            inspector.verify()
            return inspector.package.id
    except OnceoverError:
        target.unlink(missing_ok=True)
        raise


def _check(opened: Sequence[PackageFile], names: Sequence[str]) -> None:
    first = opened[0]
    for package in opened:
        if any(member.name == PRODUCTS for member in package.members):
            raise UsageError(f"{package.path}: holds several products already; combine the packages it was made of")
        for name in SHARED:
            if package.core.read(name) != first.core.read(name):
                what = "network" if name == "graph.onnx" else "input, patch grid, tiles or blur"
                raise UsageError(
                    f"{package.path}: has another {what} than {first.path}; products of one package share it: fit them "
                    "with the same backbone, --size and tiles"
                )
    if len(names) != len(opened):
        raise UsageError(f"{len(names)} names for {len(opened)} packages; name each of them, or none")
    for name in names:
        if not name:
            raise UsageError("a product has no name; give --name for each package")
        if names.count(name) > 1:
            raise UsageError(f"two products are called {name!r}; give each its own --name")


def _manifest(opened: Sequence[PackageFile], names: Sequence[str]) -> bytes:
    """What the products share at its top, where readers expect it, and each product's own manifest and former id."""
    shared: dict[str, object] = {
        key: opened[0].manifest[key] for key in ("onceover", "backbone", "engine") if key in opened[0].manifest
    }
    products: list[dict[str, object]] = [
        {**package.manifest, "name": name, "package": package.id} for package, name in zip(opened, names, strict=True)
    ]
    manifest: dict[str, object] = {**shared, "name": " + ".join(names), "products": products}
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode()


__all__ = ["combine"]
