"""`make bench`: what passes say together, the noise they state, and the tables' places in benchmarks/README.md."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from onceover.errors import InputError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import run_suite  # noqa: E402
from suite import readme_blocks  # noqa: E402
from suite.estimates import Estimate, estimates, significant  # noqa: E402
from suite.passes import Benchmark, Settings, run_passes  # noqa: E402
from suite.recording import Measured, Recorder  # noqa: E402
from suite.tables import Table, combine, compare  # noqa: E402

TEXT = """# Numbers

Of this machine:

<!-- bench: machine -->
old machine
<!-- end -->

A finding by hand.

<!-- bench: image -->
old image table
Machine: the one above.
<!-- end -->
<!-- bench: metrics -->
old metrics table
Machine: the one above.
<!-- end -->

The end, by hand.
"""


def recorded(*values: float, fact: str = "0") -> list[dict[str, object]]:
    """Passes with one row each."""
    found = []
    for value in values:
        recorder = Recorder(False, Path())
        recorder.row("title", "case", {"ms": Measured(value), "wrong": fact})
        found.append(json.loads(recorder.to_json()))
    return found


# --- places ---


def test_a_table_takes_the_place_of_its_old_one_and_nothing_else_changes() -> None:
    new = readme_blocks.updated(TEXT, {"image": "new image table\n"}, "old machine", "x.md")
    assert new == TEXT.replace("old image table", "new image table")


def test_writing_the_same_tables_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text(TEXT, encoding="utf-8")
    fresh = {"image": "| a |\n| --- |\n| \\1 \\g<name> |\n", "metrics": "m"}
    assert readme_blocks.rewrite(path, fresh, "new machine")
    once = path.read_bytes()
    assert not readme_blocks.rewrite(path, fresh, "new machine")
    assert path.read_bytes() == once
    assert b"| \\1 \\g<name> |" in once
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_of_another_machine_tells_its_own() -> None:
    new = readme_blocks.blocks(readme_blocks.updated(TEXT, {"image": "new"}, "new machine", "x.md"), "x.md")
    assert new["machine"] == "old machine\n"
    assert new["image"] == "new\nMachine: new machine\n"
    assert new["metrics"] == "old metrics table\nMachine: the one above.\n"


def test_an_old_table_that_stays_keeps_its_machine_when_another_one_is_told_above() -> None:
    text = TEXT.replace("<!-- bench: image", "<!-- bench: latency -->\nold\n<!-- end -->\n<!-- bench: image")
    new = readme_blocks.blocks(readme_blocks.updated(text, {"image": "new", "latency": "new"}, "new machine", "x"), "x")
    assert new["machine"] == "new machine\n"
    assert new["image"] == new["latency"] == "new\nMachine: the one above.\n"
    assert new["metrics"] == "old metrics table\nMachine: old machine\n"


def test_a_table_without_a_place_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.md: no place for latency; add .*<!-- bench: latency --> <!-- end -->"):
        readme_blocks.rewrite(path, {"image": "new", "latency": "new"}, "old machine")
    assert path.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("<!-- end -->\n<!-- bench: metrics -->", "<!-- bench: metrics -->"), "do not pair"),
        (TEXT + "<!-- end -->\n", "do not pair"),
        (TEXT + "<!-- bench: image -->\n<!-- end -->\n", "two blocks of 'image'"),
    ],
)
def test_marks_that_do_not_pair_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        readme_blocks.updated(text, {"image": "new"}, "old machine", "x.md")


def test_every_benchmark_has_a_file_and_a_place_in_the_readme() -> None:
    places = readme_blocks.blocks(run_suite.README.read_text(encoding="utf-8"), "README.md")
    assert set(places) == {readme_blocks.MACHINE, *(each.name for each in run_suite.BENCHMARKS)}
    files = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))
    with_functions = {name for name in files if "\ndef bench_" in (ROOT / "benchmarks" / name).read_text("utf-8")}
    assert with_functions == {each.file for each in run_suite.BENCHMARKS}


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown benchmark 'imgae'; did you mean 'image'"):
        run_suite.chosen(["imgae"])


# --- passes and noise ---


def test_a_number_is_the_median_of_its_passes_and_a_fact_is_told_once() -> None:
    (table,) = combine(recorded(2.0, 9.0, 3.0))
    assert table.rows["case"]["wrong"] == "0"
    cell = table.rows["case"]["ms"]
    assert isinstance(cell, Estimate)
    assert cell.value == pytest.approx(3.0)
    assert "| case | 3.00 ± " in table.markdown()


def test_one_pass_states_no_noise() -> None:
    (table,) = combine(recorded(2.0))
    assert table.markdown() == "title:\n\n| | ms | wrong |\n| --- | --- | --- |\n| case | 2.00 | 0 |\n"
    assert Estimate(2.0).agrees(Estimate(2.0)) is None


def test_passes_that_recorded_other_cells_are_refused() -> None:
    other = recorded(1.0)
    other[0]["tables"] = {"title": {"another": {"ms": {"measured": 1.0}}}}
    with pytest.raises(InputError, match="pass 2 recorded other cells than pass 1"):
        combine([*recorded(1.0), *other])


def test_tables_survive_json() -> None:
    (table,) = combine(recorded(2.0, 2.1, 2.2))
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_measured_value_that_cannot_be_one_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is no measured value"):
        Recorder(False, Path()).row("title", "case", {"ms": Measured(value)})


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert significant(value) == text


def runs(rng: np.random.Generator, disturbed: float) -> list[Estimate]:
    """Ten rows of the same truth whose passes differ by 0.2 to 10 %; some passes are a third slower."""
    spread = np.geomspace(0.002, 0.1, 10)[:, None]
    slower = np.where(rng.random((10, 4)) < disturbed, 1.33, 1.0)
    return estimates((np.exp(spread * rng.standard_normal((10, 4))) * slower).tolist())


@pytest.mark.parametrize("disturbed", [0.0, 0.1, 0.3])
def test_two_runs_of_the_same_truth_agree_within_the_noise_they_state(disturbed: float) -> None:
    rng = np.random.default_rng(0)
    pairs = [pair for _ in range(1000) for pair in zip(runs(rng, disturbed), runs(rng, disturbed), strict=True)]
    assert np.mean([bool(a.agrees(b)) for a, b in pairs]) >= 0.997


def test_a_number_that_became_a_quarter_larger_does_not_agree() -> None:
    rng = np.random.default_rng(1)
    pairs = [pair for _ in range(200) for pair in list(zip(runs(rng, 0.0), runs(rng, 0.0), strict=True))[:5]]
    larger = [Estimate(1.25 * b.value, b.spread) for _, b in pairs]  # of rows up to 1.3 % noisy
    assert np.mean([bool(a.agrees(b)) for (a, _), b in zip(pairs, larger, strict=True)]) <= 0.02


def test_facts_agree_only_where_they_are_equal() -> None:
    before, same, other = (combine(recorded(1.0, 1.0, 1.01, fact=fact)) for fact in ("0", "0", "1"))
    assert [row.agrees for row in compare(before, same)] == [True, True]
    differing = compare(before, other)
    assert [row.agrees for row in differing] == [True, False]
    assert (differing[1].before, differing[1].now, differing[1].verdict) == ("0", "1", "DIFFERS")


# --- processes ---

WORKS = """
from suite.recording import Measured
def bench_one(record):
    made = record.once("made", lambda path: path.write_text("1"))
    record.row("title", "case", {"ms": Measured(2.0), "made once": made.read_text()})
def bench_two(record):
    import pytest
    pytest.skip("no peer")
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks: one that works, one that fails."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("conftest.py", "suite"):
        (folder / name).symlink_to(ROOT / "benchmarks" / name)
    (folder / "bench_works.py").write_text(WORKS)
    (folder / "bench_fails.py").write_text("def bench_it(record):\n    assert 1 == 2\n")
    monkeypatch.setattr("suite.passes.FOLDER", folder)
    return folder


def test_a_benchmark_that_fails_stops_no_other_and_every_pass_has_a_process(files: Path, tmp_path: Path) -> None:
    seen = []
    kept = tmp_path / "kept"
    kept.mkdir()
    benchmarks = [Benchmark("fails", "bench_fails.py"), Benchmark("works", "bench_works.py")]
    found = run_passes(benchmarks, Settings(tmp_path, kept, 2), lambda *told: seen.append((told[0], told[1], told[3])))
    assert seen == [("fails", 1, True), ("works", 1, False), ("works", 2, False)]
    assert "assert 1 == 2" in (found["fails"].failure or "")
    assert found["works"].failure is None
    assert found["works"].skipped == {"no peer": ["bench_two"]}
    (table,) = combine(found["works"].recorded)
    assert table.rows["case"]["made once"] == "1"
    assert str(table.rows["case"]["ms"]) == "2.00 ± 0.5 %"  # the least noise that is believed of two passes


def test_a_run_keeps_old_tables_of_what_failed_or_skipped(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "x.md"
    readme.write_text(TEXT, encoding="utf-8")
    benchmarks = (Benchmark("image", "bench_works.py"), Benchmark("metrics", "bench_fails.py"))
    monkeypatch.setattr(run_suite, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(run_suite, "BUILD", tmp_path / "build")
    assert run_suite.main(["--passes", "1", "--readme", str(readme)]) == 1
    assert readme.read_text(encoding="utf-8") == TEXT
    said = capsys.readouterr().err
    assert "kept the old tables of metrics: failed" in said
    assert "kept the old tables of image: skipped something" in said
    assert run_suite.main(["image", "--passes", "2", "--partial", "--readme", str(readme)]) == 0
    written = readme.read_text(encoding="utf-8")
    assert "| case | 2.00 ± 0.5 % | 1 |" in written
    assert "old metrics table" in written
    assert "A finding by hand." in written
    assert run_suite.main(["image", "--passes", "2", "--compare", "--readme", str(readme)]) == 0
    assert "2 of 2 agree within the noise of both runs" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == written


def test_comparing_without_a_recorded_run_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_suite, "BUILD", tmp_path)
    assert run_suite.main(["image", "--compare"]) == 3
    assert "make bench ONLY=image" in capsys.readouterr().err.replace("\n", "")
