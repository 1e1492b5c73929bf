"""The commands that handle a package file as such: keygen, sign, unpack. They run no engine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from onceover.cli.output import Output

AddCommand = Callable[..., argparse.ArgumentParser]  # parser._command


def add_package_commands(subparsers: Any, command: AddCommand) -> None:
    keygen = command(subparsers, "keygen", "make a pair of keys for signing packages", run_keygen)
    keygen.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NAME", help="writes NAME.private.pem and NAME.public.pem"
    )
    sign = command(subparsers, "sign", "sign a package: writes PACKAGE.sig beside it", run_sign)
    sign.add_argument("package", type=Path)
    sign.add_argument("--key", type=Path, required=True, help="private key (Ed25519, PEM)")
    unpack = command(subparsers, "unpack", "a package as a folder of files that people can read", run_unpack)
    unpack.add_argument("package", type=Path)
    unpack.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")


def run_keygen(options: argparse.Namespace, output: Output) -> int:
    from onceover.runtime.signature import new_key_pair

    private, public = new_key_pair(options.output)
    output.say(f"[bold]{escape(str(private))}[/]: signs packages; keep it secret and keep a copy of it")
    output.say(f"[bold]{escape(str(public))}[/]: goes to every device, for `onceover verify --key`")
    output.object({"private_key": str(private), "public_key": str(public)})
    return 0


def run_sign(options: argparse.Namespace, output: Output) -> int:
    from onceover.runtime.signature import sign_package

    path, package_id = sign_package(options.package, options.key)
    output.say(f"[bold]{escape(str(path))}[/] signs package {package_id[:16]}; copy it along with the package")
    output.object({"package": str(options.package), "id": package_id, "signature": str(path)})
    return 0


def run_unpack(options: argparse.Namespace, output: Output) -> int:
    from onceover.runtime.package import open_package
    from onceover.runtime.unpack import unpack

    package = open_package(options.package)
    folder = unpack(package, options.output)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    output.say(f"[bold]{escape(str(folder))}[/]: {len(files)} files of package {package.id[:16]}")
    output.object({"package": str(options.package), "id": package.id, "folder": str(folder), "files": files})
    return 0
