"""The command line: parse, import late, call one function, show the result.

Exit status: 0 normal, 1 anomaly or failed check, 2 usage, 3 bad package or input (see onceover.errors), 130 Ctrl-C,
143 SIGTERM.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from onceover.cli.output import Output, as_ours, reason_to_stop
from onceover.cli.parser import build_parser, check_command, joined
from onceover.cli.stopping import termination_raised
from onceover.errors import InternalError, OnceoverError, UsageError

MESSAGE_LIMIT = 300  # characters of an unforeseen error: some quote whole files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in words)
    try:
        with termination_raised():
            status = _run(words, output)
        output.write("")
        return status
    except KeyboardInterrupt as stop:
        status, message = reason_to_stop(stop)
        output.error(message)
        return status
    except (OnceoverError, MemoryError, OSError) as error:
        return output.failure(as_ours(error))
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
    except UsageError as error:
        dashed = [word for word in words if word.startswith("-") and os.path.exists(word)]
        if dashed:  # as *.png gives it
            raise UsageError(
                f"{error}; the file {dashed[0]} is taken for an option: give it as ./{dashed[0]}"
            ) from None
        raise
    return int(options.run(options, output))


__all__ = ["main"]
