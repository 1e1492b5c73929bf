"""Calling the command line in tests: in this process for speed, in one of its own for signals, pipes and limits."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from onceover.cli import main

Capture = pytest.CaptureFixture[str]


def answer(capture: Capture, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the object that --json printed; anything else on stdout fails."""
    status = main([*words, "--json"])
    printed = json.loads(capture.readouterr().out)
    assert isinstance(printed, dict)
    return status, printed


def refusal(capture: Capture, *words: str) -> tuple[int, str]:
    """Exit status and message of a command that fails, told the same on stderr and as JSON, without a traceback.

    Of `inspect` of one image that cannot be read, too, which its JSON lists as such.
    """
    status = main(list(words))
    error = capture.readouterr().err
    assert "Traceback" not in error
    status_json, printed = answer(capture, *words)
    assert status_json == status
    if "unreadable" in printed:
        assert (printed["results"], len(printed["unreadable"])) == ([], 1)
        printed = {"error": "InputError", "message": printed["unreadable"][0]["message"]}
    assert set(printed) == {"error", "message"}
    assert printed["message"] in error
    return status, printed["message"]


def cli(*words: str, **settings: Any) -> subprocess.Popen[bytes]:
    """The command as a process; settings: of Popen."""
    return subprocess.Popen([sys.executable, "-m", "onceover.cli", *words], **settings)
