"""The command line: parse, import late, call one function, show the result.

Exit status: 0 normal, 1 anomaly or failed check, 2 usage, 3 bad package or input (see onceover.errors).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from onceover.cli.output import Output
from onceover.cli.parser import build_parser, check_command
from onceover.errors import OnceoverError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in words)
    try:
        check_command(words)
        options = build_parser().parse_args(words)
        return int(options.run(options, output))
    except OnceoverError as error:
        if output.as_json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        output.error(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe went away: `onceover list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        output.error("interrupted; nothing half-written remains")
        return 130


__all__ = ["main"]
