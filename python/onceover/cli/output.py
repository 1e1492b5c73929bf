"""What the terminal shows: tables, progress bars with time left, errors. Machines get one JSON object instead."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from onceover.cli.stopping import Terminated
from onceover.cli.tables import ROWS_AT_ONCE, make_table, widths_that_fit
from onceover.errors import MemoryLimitError, OnceoverError, OutputError

SIGN_OF_LIFE_S = 30.0  # seconds
INTERRUPTED, TERMINATED = 130, 143  # what a shell reports for a program that Ctrl-C or SIGTERM ended
_SPELLED = {"→": "->", "…": "...", "−": "-", "–": "-", "×": "x", "·": "-", "≤": "<=", "≥": ">=", "±": "+-"}
_SPELLED |= dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True))
NARROWEST = 40  # columns of a terminal
STOPS = (OnceoverError, MemoryError, OSError, KeyboardInterrupt)  # what may stop a command that has no defect


class Output:
    """People read stderr and stdout in color; with as_json stdout carries the object alone."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.as_lines = as_json, False
        _prepare_streams()
        self.out = _PatientConsole(quiet=as_json, highlight=False, soft_wrap=True)
        if self.out.width < NARROWEST:  # a table of no width would show nothing; COLUMNS=0 is how some say "unknown"
            self.out.width = NARROWEST if self.out.width else 80
        self.err = _PatientConsole(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """text: rich markup; what is not ours (names, paths) goes through `escape` first."""
        self.out.print(_harmless(text))

    def warn(self, text: str) -> None:
        self.err.print(f"[yellow]note:[/] {escape(_harmless(text))}")

    def error(self, text: str) -> None:
        self.err.print(f"[bold red]error:[/] {escape(_harmless(text))}")

    def failure(self, error: OnceoverError) -> int:
        """Show why a command stopped; returns its exit status."""
        try:
            self.object({"error": type(error).__name__, "message": str(error)})
        except OSError:  # stdout itself is what failed
            self.out.on_broken_pipe()
        with suppress(OSError):  # the status still says it
            self.error(str(error))
        return error.exit_code

    def object(self, value: Any) -> None:
        """The JSON object, when asked for; of a command that tells many (as_lines), each on a line, at once."""
        if self.as_json:
            self.write(json.dumps(value, indent=None if self.as_lines else 1, allow_nan=False) + "\n")

    @property
    def unread(self) -> bool:
        """Whether the reader of stdout has gone away, as far as writing has shown."""
        return self.out.unread

    def write(self, text: str) -> None:
        """To stdout as it is, and out of our buffers: what fails any later would be reported by the interpreter."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self.out.on_broken_pipe()

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None
    ) -> None:
        """Text columns left, number columns (header ending in a space) right. styles: of rich, by what a cell says.

        A very long one is cut into several: rich lays a whole table out before it shows anything.
        """
        if self.as_json:
            return
        title, cells = printable(title), [[printable(cell) for cell in row] for row in rows]
        widths = widths_that_fit(columns, cells, self.out.width - 3 * len(columns) - 1)  # without borders and padding
        for first in range(0, max(len(cells), 1), ROWS_AT_ONCE):
            part = cells[first : first + ROWS_AT_ONCE]
            self.out.print(make_table(title if first == 0 else "", columns, widths, part, styles or {}))

    @contextmanager
    def progress(self) -> Iterator[StageProgress]:
        """A bar per stage, with the time left; lines where no terminal shows them move; silent under --json."""
        if not (self.as_json or self.err.is_terminal):
            yield StageLines(self.err)
            return
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        bars = Progress(*columns, console=self.err, disable=self.as_json)
        try:
            yield StageProgress(bars)
        finally:
            bars.stop()


class _PatientConsole(Console):
    """When the reader of a pipe goes away (`onceover list | head`), the work goes on and keeps its exit status."""

    unread = False

    def on_broken_pipe(self) -> None:
        self.unread = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Our own signs in ASCII; what else an encoding lacks is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_SPELLED.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs), error.end


codecs.register_error("onceover", _spell_out)


def _prepare_streams() -> None:
    """Printing must not decide the exit status: escape what a terminal cannot show, do without a closed stream."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the program ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="onceover")


class StageProgress:
    """Turns progress(stage, done, total, note) into bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if not self._tasks:
            self._bars.start()  # not before: what is refused at once leaves no empty line
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total, description=f"{stage} {note}".rstrip())


class StageLines(StageProgress):
    """For a log or a pipe: a line when a stage ends, and a sign of life every 30 seconds of it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: dict[str, float] = {}
        self._done: dict[str, int] = {}  # of each stage that has begun and not ended
        self._told = 0.0  # when the last line was written
        self._last = ("", 0, 0)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if (stage, done, total) == self._last:
            return
        if done < self._done.get(stage, done + 1):  # it begins, perhaps once more
            self._begun[stage] = now
        self._done[stage], begun = done, self._begun[stage]
        if done >= total:
            del self._done[stage]
        elif now - max(self._told, begun) < SIGN_OF_LIFE_S:
            return
        self._told, self._last = now, (stage, done, total)
        elapsed = timedelta(seconds=int(now - begun))
        self._console.print(escape(f"{f'{stage} {note}'.rstrip():<18} {done}/{total} {elapsed}"))


def reason_to_stop(stop: BaseException) -> tuple[int, str]:
    """Exit status and message for one of STOPS."""
    if isinstance(stop, Terminated):
        return TERMINATED, "terminated; nothing half-written remains"
    if isinstance(stop, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; nothing half-written remains"
    error = as_ours(stop)
    return error.exit_code, str(error)


def as_ours(error: BaseException) -> OnceoverError:
    """What no room foresaw of memory, files and folders, such as one that vanished or is full, says what to do."""
    if isinstance(error, OnceoverError):
        return error
    if isinstance(error, MemoryError):
        return MemoryLimitError("out of memory; use smaller images or fewer of them at a time")
    return OutputError(f"{error}; check that the file or folder exists and has space")


_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """Of a file's name, say: what a terminal would take as a command (or a new line) is spelled out."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _harmless(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def number(value: float | None, digits: int = 3) -> str:
    """A cell: n/a for what was not measured."""
    return "n/a" if value is None or value != value else f"{value:.{digits}f}"


def counted(number: int, noun: str) -> str:
    """1 part, 19 parts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def copies_note(copies: Mapping[str, str]) -> str:
    """Which images are others byte for byte; the first few of them by their names."""
    are = "is a copy of another" if len(copies) == 1 else "are copies of others"
    named = ", ".join(f"{name} = {original}" for name, original in list(copies.items())[:3])
    more = f" and {len(copies) - 3:,} more" if len(copies) > 3 else ""
    return f"{counted(len(copies), 'image')} {are} byte for byte, the same part, counted once: {named}{more}"


def percent(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{100 * value:.1f} %"


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of a weights card for people: hashes shortened, as in `git log`."""
    names = ("source", "license", "training_data", "sha256")
    sha256 = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{48}\b")
    rows = [(name, sha256.sub(r"\1…", str(card[name]))) for name in names if name in card]
    normalization = card.get("normalization")
    if normalization:
        texts = (" ".join(f"{value:g}" for value in normalization[key]) for key in ("mean", "std"))
        rows.append(("normalization", "mean {}, std {} of RGB in 0 … 1".format(*texts)))
    return [(name.replace("_", " ").replace("sha256", "SHA-256"), text) for name, text in rows]
