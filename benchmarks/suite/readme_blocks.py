"""The tables between marks in README.md; everything around them is written by hand and stays as it is.

    <!-- bench: NAME -->
    tables, and under them the command, date, passes and noise, and the machine
    <!-- end -->

The block `machine` tells the machine once; a table of another one (a single benchmark that ran elsewhere, or an old
table that stayed) tells its own.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from onceover.errors import InputError, OutputError

MACHINE = "machine"
BLOCK = re.compile(r"^<!-- bench: (?P<name>\w+) -->\n(?P<body>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"^<!-- (?:bench: \w+|end) -->$", re.MULTILINE)
ABOVE = "Machine: the one above."


def blocks(text: str, where: str) -> dict[str, str]:
    """Name → what is between its marks, as it stands."""
    found: dict[str, str] = {}
    for match in BLOCK.finditer(text):
        if match["name"] in found:
            raise InputError(f"{where}: there are two blocks of {match['name']!r}; keep one")
        found[match["name"]] = match["body"]
    marks = [match[0] for match in MARK.finditer(text)]
    expected = [mark for name in found for mark in (f"<!-- bench: {name} -->", "<!-- end -->")]
    if marks != expected:
        raise InputError(
            f"{where}: marks do not pair: {' '.join(marks)}; every <!-- bench: NAME --> needs its own <!-- end -->"
        )
    return found


def updated(text: str, fresh: Mapping[str, str], machine: str, where: str) -> str:
    """`text` with the blocks of `fresh` in the place of their old ones; the others stay, word for word.

    Only where a block stays that told the machine above, and another machine is told there now, it gets its own line.
    """
    old = blocks(text, where)
    missing = [name for name in (*fresh, MACHINE) if name not in old]
    if missing:
        lines = " ".join(f"<!-- bench: {name} --> <!-- end -->" for name in missing)
        raise InputError(
            f"{where}: no place for {', '.join(missing)}; add where the tables belong, a line each: {lines}"
        )
    new = dict(old)
    before = old[MACHINE].strip()
    staying = [name for name in old if name not in fresh and ABOVE in old[name]]
    told = ABOVE
    if machine != before and len(staying) >= len(fresh):  # most tables keep the machine above
        told = f"Machine: {machine}"
    elif machine != before:
        new[MACHINE] = f"{machine}\n"
        new |= {name: old[name].replace(ABOVE, f"Machine: {before}") for name in staying}
    new |= {name: f"{body.rstrip()}\n{told}\n" for name, body in fresh.items()}
    return BLOCK.sub(lambda match: f"<!-- bench: {match['name']} -->\n{new[match['name']]}<!-- end -->", text)


def rewrite(path: Path, fresh: Mapping[str, str], machine: str) -> bool:
    """The file, whole or not at all; False where nothing changed."""
    text = path.read_text(encoding="utf-8")
    changed = updated(text, fresh, machine, str(path))
    if changed != text:
        write_whole(path, changed)
    return changed != text


def write_whole(path: Path, text: str) -> None:
    """A temporary file beside it takes its name; a run that is cut off leaves the old one."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)  # mkstemp made it 0600
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}; what was there before is unchanged") from error


__all__ = ["MACHINE", "blocks", "rewrite", "updated", "write_whole"]
