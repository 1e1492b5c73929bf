"""`inspect --watch` in tests without waiting: a step at each of its pauses, and after the last it is stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from command_line import Capture

from onceover.cli import main, watching

Step = Callable[[], object]


def nothing() -> None:
    """A pause in which nothing happens."""


def hear(number: int) -> None:
    """In the background of a script and under nohup, signals are ignored; here they must be heard, by children too."""
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def at_pauses(monkeypatch: pytest.MonkeyPatch, steps: Sequence[Step], stop: int = signal.SIGTERM) -> None:
    """One step at each pause, then the signal."""
    hear(stop)
    left = list(steps)

    def pause(_: float, __: object) -> None:
        if left:
            left.pop(0)()
        else:
            signal.raise_signal(stop)

    monkeypatch.setattr(watching, "sleep_until", pause)


def watched(capture: Capture, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and the lines of `inspect … --watch --json`; a file is taken at first sight."""
    status = main(["inspect", *words, "--watch", "--settle", "0", "--json"])
    return status, [json.loads(line) for line in capture.readouterr().out.splitlines()]


__all__ = ["at_pauses", "hear", "nothing", "watched"]
