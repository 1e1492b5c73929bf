"""Several products in one package: the command `combine`, and the options that say which product is inspected."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from onceover.cli.bank import warn_left_out
from onceover.cli.output import Output

AddCommand = Callable[..., argparse.ArgumentParser]  # parser._command
AddOptions = Callable[[argparse.ArgumentParser], None]  # parser._add_engine


def add_combine_command(subparsers: Any, command: AddCommand, add_engine: AddOptions) -> None:
    combine = command(subparsers, "combine", "several products on one network → one package", run_combine)
    combine.add_argument("packages", type=Path, nargs="+", help="one package for each product, of the same backbone")
    combine.add_argument("-o", "--output", type=Path, required=True, help="the package to write, e.g. line.onceover")
    combine.add_argument(
        "--name", action="append", default=[], help="of each product, in the same order (default: what they say)"
    )
    add_engine(combine)


def add_product_options(parser: argparse.ArgumentParser, gate: bool = False) -> None:
    parser.add_argument("--product", metavar="NAME", help="of a package of several: inspect this one")
    if gate:
        parser.add_argument(
            "--gate", action="store_true", help="of a package of one product: is that product in view at all?"
        )


def run_combine(options: argparse.Namespace, output: Output) -> int:
    from onceover.cli.commands import engine_options
    from onceover.cli.exporting import check_package_target
    from onceover.export.combine import combine
    from onceover.runtime.package import open_package

    check_package_target(options.output)
    warn_left_out(options.packages, output)
    package_id = combine(options.packages, options.output, options.name, engine_options(options))
    package = open_package(options.output)
    size = options.output.stat().st_size
    output.table(
        f"{options.output}: {size / 1e6:.1f} MB, id {package_id[:16]}",
        ("name", "from", "memory bank "),
        [
            (name, str(path), f"{len(package.core.array(member)):,} rows")
            for name, path, member in zip(
                package.products, options.packages, _banks(len(package.products)), strict=True
            )
        ],
    )
    output.say(f"[bold]{escape(str(options.output))}[/] written and verified")
    output.object(
        {"package": str(options.output), "id": package_id, "size_bytes": size, "products": list(package.products)}
    )
    return 0


def _banks(count: int) -> list[str]:
    return ["memory_bank", *(f"memory_bank.{number}" for number in range(1, count))]
