"""No command and no call writes a package beside the corrections of another one: they would be of no package then."""

from __future__ import annotations

from pathlib import Path

import pytest
from bank_line import Line, copied, fit_line
from tiny_data import tiny_options

import onceover
from onceover import Corrections, Inspector, calibrate, export
from onceover.cli import main
from onceover.errors import UsageError
from onceover.export.combine import combine
from onceover.runtime.corrections import check_no_journal, journal_path
from onceover.training.fit import fit

SAID = r"part\.onceover\.journal: holds corrections of the package that has this name until now"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return fit_line(tmp_path_factory.mktemp("orphan"))


@pytest.fixture
def line(fitted: Line, tmp_path: Path) -> Line:
    """With one correction in force."""
    mine = copied(fitted, tmp_path)
    corrections = Corrections.open(mine.package)
    with Inspector.open(mine.package) as inspector:
        corrections.confirm([corrections.propose(inspector, mine.alarms[0])[0]])
    return mine


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_fit_refuses_to_orphan_corrections_before_it_works(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_options().backbone)  # type: ignore[arg-type]
    before = content(tmp_path)
    words = ["fit", str(line.images), "--backbone", str(tmp_path / "tiny.onnx"), "-o"]
    assert main([*words, str(line.package)]) == 2
    said = capsys.readouterr()
    assert "part.onceover.journal: holds corrections" in " ".join(said.err.split())
    assert "memory bank" not in said.out  # no plan was made
    assert content(tmp_path) == before
    assert main([*words, str(tmp_path / "new.onceover")]) == 0
    with Inspector.open(line.package) as inspector:
        assert inspector.applied is not None


def test_every_command_that_writes_a_package_refuses(
    line: Line, fitted: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(line.package.parent)
    for words in (
        ["calibrate", str(fitted.package), str(line.images), "-o"],
        ["export", str(fitted.package), "-o"],
        ["combine", str(fitted.package), str(fitted.package), "-o"],
    ):
        assert main([*words, str(line.package)]) == 2
        assert "part.onceover.journal: holds corrections" in " ".join(capsys.readouterr().err.split())
    assert content(line.package.parent) == before


def test_calls_from_python_refuse_too(line: Line, fitted: Line) -> None:
    before = content(line.package.parent)
    parts = fit(line.images, tiny_options())
    with pytest.raises(UsageError, match=SAID):
        export.package(parts, line.package)
    with pytest.raises(UsageError, match=SAID):
        onceover.fit("no such folder", line.package)  # which it would say if it began to work
    with pytest.raises(UsageError, match=SAID):
        calibrate(line.package, line.images)
    with pytest.raises(UsageError, match=SAID):
        combine([fitted.package, fitted.package], line.package)
    assert content(line.package.parent) == before


def test_a_journal_whose_package_is_gone_is_not_given_to_another_one(line: Line) -> None:
    line.package.unlink()
    with pytest.raises(UsageError, match="give the new package another name"):
        export.package(fit(line.images, tiny_options()), line.package)
    journal_path(line.package).unlink()
    export.package(fit(line.images, tiny_options()), line.package)
    assert Inspector.open(line.package).applied is None


def undo_all(package: Path) -> None:
    corrections = Corrections.open(package)
    for _ in corrections.operations[:]:
        corrections.undo()


def test_what_the_refusal_advises_can_be_done(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"`onceover (bank compact \S+ -o NEW)`") as refused:
        check_no_journal("part.onceover")
    advised = str(refused.value).split("`onceover ")[1].split("`")[0].split()
    assert main(advised) == 0
    assert Path("NEW").exists()
    undo_all(line.package)
    with pytest.raises(UsageError, match=r"no correction is in force; .* move it away") as refused:
        check_no_journal("part.onceover")
    assert "compact" not in str(refused.value)
    line.package.unlink()
    with pytest.raises(UsageError, match=r"corrections of a package that is not there; .* move it away"):
        check_no_journal("part.onceover")


def test_a_journal_of_another_package_is_to_be_moved_away(line: Line) -> None:
    export.package(fit(line.images, tiny_options(seed=5)), line.package.with_name("other.onceover"))
    line.package.with_name("other.onceover").replace(line.package)
    with pytest.raises(UsageError, match=r"cannot be used with the package .* move it away"):
        check_no_journal(line.package)


def test_corrections_that_stay_behind_are_told_only_where_there_are_some(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(line.package), "--to-onnx", str(tmp_path / "plain.onnx")]
    assert main(words) == 0
    assert f"bank compact {line.package} -o NEW" in " ".join(capsys.readouterr().err.split())
    undo_all(line.package)
    assert main(words) == 0
    assert "corrections" not in capsys.readouterr().err
