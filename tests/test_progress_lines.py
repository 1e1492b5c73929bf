"""Progress where no terminal shows it move: lines in a log, in time; and nothing at all where nothing was begun."""

from __future__ import annotations

import pytest
from command_line import Capture

from onceover.cli import main, output
from onceover.cli.output import Output


class Clock:
    """time.monotonic of the module under test, in seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    return clock


def test_a_log_gets_a_line_at_the_end_of_each_stage(clock: Clock, capsys: Capture) -> None:
    with Output(as_json=False).progress() as progress:
        for done in range(1, 4):
            clock.now += 1
            progress("first", done, 3)
        assert capsys.readouterr().err.split() == ["first", "3/3", "0:00:02"]  # at once, not when all has ended
        progress("first", 3, 3)
        progress("second", 1, 1, "of [two]")
    assert capsys.readouterr().err.split() == ["second", "of", "[two]", "1/1", "0:00:00"]


def test_a_long_stage_gives_a_sign_of_life_now_and_then(clock: Clock, capsys: Capture) -> None:
    with Output(as_json=False).progress() as progress:
        for done in range(1, 101):
            progress("long", done, 100)
            clock.now += 1
    told = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert told == ["31/100", "61/100", "91/100", "100/100"]


def test_a_stage_that_comes_again_is_timed_anew(clock: Clock, capsys: Capture) -> None:
    with Output(as_json=False).progress() as progress:
        for _ in range(2):
            for done in range(1, 4):
                clock.now += 5
                progress("first", done, 3)
            clock.now += 60
            progress("second", 1, 1)
    told = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert told == 2 * [["first", "3/3", "0:00:10"], ["second", "1/1", "0:00:00"]]


def test_programs_get_no_progress(capsys: Capture) -> None:
    with Output(as_json=True).progress() as progress:
        progress("stage", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_an_error_before_any_work_stands_in_the_first_line(capsys: Capture) -> None:
    assert main(["fit", "absent", "-o", "new.onceover"]) == 3
    assert capsys.readouterr().err.startswith("error: absent: ")


def test_a_terminal_gets_bars_once_there_is_something_to_show(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("TERM", "xterm")
    assert main(["fit", "absent", "-o", "new.onceover"]) == 3
    assert not capsys.readouterr().err.startswith("\n")
    with Output(as_json=False).progress() as progress:
        progress("stage", 1, 1)
    assert "━" in capsys.readouterr().err
