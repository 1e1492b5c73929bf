"""`onceover export PACKAGE`: the table and the JSON, exit statuses, what is refused and what is left on the disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from gated_graph import GatedCase, gated_case
from plain_checks import engine_run
from tiny_data import good_folder, labelled_folder, tiny_options
from tiny_package import tiny_image, tiny_package

from onceover import export
from onceover.cli import main
from onceover.export import repackage
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.training.fit import fit

pytest.importorskip("onnx")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Latency is told, not judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repackage, "LATENCY_ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> GatedCase:
    return gated_case(tmp_path_factory.mktemp("cli_export"))


def words(case: GatedCase, output: Path, *more: object) -> list[str]:
    return ["export", str(case.package), "-o", str(output), *map(str, more)]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_accepted_package_is_written_shown_and_verified(
    precision: str, case: GatedCase, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "out.onceover"
    options = ["--engine", "openvino", "--precision", precision, "--calibration", case.near]
    assert main(words(case, output, *options)) == 0
    printed = capsys.readouterr().out
    assert f"{precision} on openvino: judged on 8 normal" in printed
    for word in ("ref", "here", "accepted", "ms p50", "ρ", "flips", "AUPRO"):
        assert word in printed
    assert f"{output} written and verified, id {open_package(output).id[:16]}" in printed.replace("\n", "")
    assert main(["verify", str(output), "--engine", "openvino"]) == 0


def test_json_tells_the_whole_report_also_where_nothing_has_a_label(
    case: GatedCase, tmp_path: Path, capsys: Capture
) -> None:
    status, told = answer(capsys, *words(case, tmp_path / "out.onceover"))
    assert (status, told["accepted"], told["forced"], told["refitted"]) == (0, True, False, False)
    assert told["package_id"] == open_package(tmp_path / "out.onceover").id
    assert (told["engine"], told["precision"], told["package"]) == (
        "onnxruntime",
        "float32",
        str(tmp_path / "out.onceover"),
    )
    assert told["original_bytes"] == case.package.stat().st_size
    (attempt,) = told["attempts"]
    assert set(attempt) == {"method", "size_bytes", "milliseconds", "float32_milliseconds", "comparison", "problems"}
    assert attempt["comparison"]["flips"] == 0
    assert attempt["comparison"]["aupro"] is None


def test_a_data_set_with_labels_gives_the_change_of_auroc_and_aupro(
    case: GatedCase, tmp_path: Path, capsys: Capture
) -> None:
    root = labelled_folder(tmp_path / "data")
    good_folder(root / "train/good", 3, 900)
    more = ["--precision", "float16", "--calibration", root]
    status, told = answer(capsys, *words(case, tmp_path / "out.onceover", *more))
    assert status == 0
    assert told["images"] == "judged on 4 normal images and 4 anomalous; int8 calibrated on 3 others"
    found = told["attempts"][0]["comparison"]
    assert (found["images"], found["image_auroc_change"]) == (8, 0)
    assert 0 < found["aupro"] <= 1
    assert main(words(case, tmp_path / "out.onceover", *more)) == 0
    assert "+0.000" in capsys.readouterr().out


def test_int8_with_refit_is_accepted_and_inspects(case: GatedCase, tmp_path: Path, capsys: Capture) -> None:
    more = ["--precision", "int8", "--calibration", case.near, "--test", case.graded, "--refit", case.train]
    status, told = answer(capsys, *words(case, tmp_path / "out.onceover", *more))
    assert (status, told["accepted"], told["refitted"]) == (0, True, True)
    status, verdicts = answer(capsys, "inspect", str(tmp_path / "out.onceover"), str(case.graded / "3.png"))
    assert (status, verdicts["results"][0]["decision"]) == (1, "anomalous")


def test_a_refused_package_leaves_no_file_and_status_1_and_a_forced_one_says_so(
    case: GatedCase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onceover.export import to_int8

    monkeypatch.setattr(to_int8, "ladder", lambda *_: iter([to_int8.Rung("every layer", ())]))
    output = tmp_path / "out.onceover"
    more = ["--precision", "int8", "--calibration", case.near]
    assert main(words(case, output, *more)) == 1
    shown = capsys.readouterr()
    assert "Spearman correlation of scores" in shown.out
    assert "nothing was written; try --refit" in shown.err
    with monkeypatch.context() as strict:
        strict.setitem(repackage.LIMITS, "int8", replace(repackage.LIMITS["int8"], spearman=1.1))
        assert main(words(case, output, *more, "--refit", case.train)) == 1
    assert "nothing was written; try fit with --no-adapt" in capsys.readouterr().err  # it was refitted
    status, told = answer(capsys, *words(case, output, *more))
    assert (status, told["accepted"], told["package_id"]) == (1, False, None)
    assert list(tmp_path.iterdir()) == []
    assert main(words(case, output, *more, "--force")) == 0
    assert "although it was not accepted (--force)" in capsys.readouterr().out.replace("\n", " ")
    origin = open_package(output).manifest["export"]
    assert (origin["accepted"], origin["judged"]["problems"]) == (False, told["attempts"][0]["problems"])


def test_a_refused_package_leaves_an_older_file_of_that_name_alone(
    case: GatedCase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repackage, "problems", lambda *_: ["not today"])
    (tmp_path / "out.onceover").write_bytes(b"older")
    status, told = answer(capsys, *words(case, tmp_path / "out.onceover"))
    assert (status, told["attempts"][0]["problems"]) == (1, ["not today"])
    assert (tmp_path / "out.onceover").read_bytes() == b"older"


def test_int8_that_is_slower_is_told(
    case: GatedCase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--precision", "int8", "--calibration", case.near, "--test", case.graded]
    times = {"candidate.onceover": 7.5}
    monkeypatch.setattr(
        repackage._Export, "_milliseconds", lambda _, *runs: [times.get(path.name, 2.5) for path, _ in runs]
    )
    assert main(words(case, tmp_path / "out.onceover", *more)) == 0
    assert "int8 is slower here: 7.50 ms instead of 2.50 in float32" in capsys.readouterr().err.replace("\n", " ")
    times["candidate.onceover"] = 1.0
    assert main(words(case, tmp_path / "out.onceover", *more)) == 0
    assert "slower" not in capsys.readouterr().err


def test_a_package_that_is_not_adapted_is_not_told_to_leave_that_out(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = good_folder(tmp_path / "good", 4)
    export.package(fit(folder, tiny_options(adapt=False, holdout=0)), tmp_path / "part.onceover")
    monkeypatch.setitem(repackage.LIMITS, "float32", replace(repackage.LIMITS["float32"], spearman=1.1))
    words = ["export", str(tmp_path / "part.onceover"), "-o", str(tmp_path / "out.onceover"), "--refit", str(folder)]
    assert main(words) == 1
    assert "nothing was written; try fit with another backbone, or --force" in capsys.readouterr().err


def test_a_refit_that_does_not_fit_is_refused(case: GatedCase, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(case, tmp_path / "out.onceover", "--refit", case.train, "--max-memory", "1MB")) == 3
    assert "a refit needs about" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_refusal_is_one_sentence_with_its_status_and_writes_nothing(
    case: GatedCase, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "out.onceover"
    few = good_folder(tmp_path / "few", 3, 950)
    cases = [
        ([], 2, "export needs -o FILE"),
        (["-o", output, "--precision", "int8"], 2, "int8 needs --calibration DIR"),
        (["-o", output, "--precision", "int4"], 2, "invalid choice: 'int4'"),
        (["-o", output, "--calibration", few], 3, "3 images outside the memory bank are too few"),
        (["-o", output, "--calibration", case.near, "--test", case.near], 2, "is among the calibration images"),
        (["-o", output, "--test", case.train], 2, "is in the memory bank"),
        (["-o", output, "--refit", case.near], 3, "give the folder of the original images"),
        (["-o", output, "--refit", case.train, "--max-memory", "much"], 2, "'much' is no amount of memory"),
        (["-o", output, "--max-memory", "2GiB"], 2, "--max-memory is for a refit: give the training images"),
        (["-o", output, "--test", tmp_path / "nowhere"], 3, "no such folder"),
        (["-o", output, "--engine", "tensorflow"], 2, "unknown engine"),
        (["-o", tmp_path / "no/out.onceover"], 2, "does not exist; create it first"),
        (["-o", output, "--raw-pixels"], 2, "--raw-pixels is for --to-onnx"),
    ]
    for more, expected, message in cases:
        status, said = refusal(capsys, "export", str(case.package), *map(str, more))
        assert (status, message in said) == (expected, True), (more, said)
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_a_missing_quantizer_names_what_to_install(
    case: GatedCase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    more = ["--engine", "openvino", "--precision", "int8", "--calibration", case.near]
    status, said = refusal(capsys, *words(case, tmp_path / "out.onceover", *more))
    assert (status, "pip install 'onceover[int8]'" in said) == (2, True)


@pytest.mark.parametrize("raw", [False, True])
def test_to_onnx_writes_one_plain_file_that_scores_as_the_package_does(
    raw: bool, tmp_path: Path, capsys: Capture
) -> None:
    package = tiny_package(tmp_path / "tiny.onceover")
    more = ["--raw-pixels"] if raw else []
    status, facts = answer(capsys, "export", str(package), "--to-onnx", str(tmp_path / "plain.onnx"), *more)
    assert status == 0
    assert facts == json.loads((tmp_path / "plain.json").read_text())
    image, inspector = tiny_image(300, 32, 48), Inspector.open(package)  # of the network's size: nothing is resized
    config = inspector.session.config
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    normalized = ((image / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]  # (1, 3, H, W)
    given = image[None] if raw else np.ascontiguousarray(normalized, np.float32)
    score = engine_run("onnxruntime", tmp_path / "plain.onnx")(given)["score"][0]
    assert score == pytest.approx(inspector.inspect(image).score, rel=1e-3)
    assert main(["export", str(package), "--to-onnx", str(tmp_path / "plain.onnx"), *more]) == 0
    assert "memory bank inside" in capsys.readouterr().out


def test_to_onnx_takes_nothing_that_changes_a_package(case: GatedCase, tmp_path: Path, capsys: Capture) -> None:
    plain = ["export", str(case.package), "--to-onnx", str(tmp_path / "plain.onnx")]
    others = (
        ["-o", str(tmp_path / "out.onceover")],
        ["--precision", "int8"],
        ["--calibration", str(case.near)],
        ["--test", str(case.near)],
        ["--refit", str(case.train)],
        ["--force"],
    )
    for more in others:
        status, said = refusal(capsys, *plain, *more)
        assert (status, "--to-onnx writes the package as it is: without" in said) == (2, True), more
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_and_seed_give_the_same_file(case: GatedCase, tmp_path: Path, capsys: Capture) -> None:
    contents = []
    for i, seed in enumerate((1, 1, 2)):  # of the drawn defects, on which the package says how it was judged
        output = tmp_path / f"{i}.onceover"
        more = ["--precision", "float16", "--calibration", case.near, "--seed", seed]
        assert answer(capsys, *words(case, output, *more))[0] == 0
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_an_image_that_cannot_be_read_stops_the_export(case: GatedCase, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mixed").mkdir()
    write_image(tmp_path / "mixed/a.png", tiny_image(1))
    (tmp_path / "mixed/b.png").write_bytes(b"no picture")
    status, said = refusal(capsys, *words(case, tmp_path / "out.onceover", "--test", tmp_path / "mixed"))
    assert (status, "b.png: not a picture" in said) == (3, True)
    assert not (tmp_path / "out.onceover").exists()
