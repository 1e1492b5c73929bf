"""The command line: parse, import late, call one function, show the result.

Exit status: 0 normal, 1 anomaly or failed check, 2 usage, 3 bad package or input (see onceover.errors).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from onceover.cli.output import Output
from onceover.cli.parser import build_parser, check_command, joined
from onceover.errors import InternalError, MemoryLimitError, OnceoverError, OutputError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
MESSAGE_LIMIT = 300  # characters of an unforeseen error: some quote whole files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in words)
    try:
        status = _run(words, output)
        output.write("")
        return status
    except OnceoverError as error:
        return output.failure(error)
    except KeyboardInterrupt:
        output.error("interrupted; nothing half-written remains")
        return INTERRUPTED
    except MemoryError:
        return output.failure(MemoryLimitError("out of memory; use smaller images or fewer of them at a time"))
    except OSError as error:  # what no room foresaw: a folder that vanished, a temporary folder that is full
        return output.failure(OutputError(f"{error}; check that the file or folder exists and has space"))
    except Exception as error:  # exit status 1 would read as an anomaly
        traceback.print_tb(error.__traceback__)
        what = f"{type(error).__name__}: {str(error)[:MESSAGE_LIMIT]}"
        return output.failure(InternalError(f"{what}; this is a defect of onceover, please report it"))


def _run(words: list[str], output: Output) -> int:
    try:
        check_command(words)
        options = build_parser().parse_args(joined(words))
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    return int(options.run(options, output))


__all__ = ["main"]
