"""Folds score each other by patches that are all held: where these do not fit, a refit is refused as a fit is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_data import good_folder, tiny_options
from tiny_package import tiny_graph

from onceover import export
from onceover.detectors import BankSize
from onceover.detectors.detector import no_progress
from onceover.errors import MemoryLimitError
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.package import open_package
from onceover.training import fit as fitting
from onceover.training.fit import FitPlan, fit
from onceover.training.fit_job import FitJob
from onceover.training.memory_plan import MemoryPlan, plan_memory
from onceover.training.refit import refit

GRAPH = tiny_graph(512, 512, channels=64)  # 4096 patches of 64 values, 1 MB, per image
IMAGES = 36
OPTIONS = tiny_options(backbone=GRAPH, bank=BankSize(rows=200), adapt=False)
SIZE = r"(\d+ MB|\d+\.\d GB)"  # what this process holds already is part of it
REFUSAL = rf"{IMAGES} images are calibrated across folds, .* about {SIZE} of memory; the limit is {SIZE} \(a test's\); "


def limit_to_a_stream(monkeypatch: pytest.MonkeyPatch) -> list[MemoryPlan]:
    """Every plan has 12 MB less than it takes to hold the patches, which are 36 MB. Returns those that will be made."""
    made: list[MemoryPlan] = []

    def plan(spec: Any, size: Any, _limit: Any, found: Any) -> MemoryPlan:
        plain = plan_memory(spec, size, (None, ""), found).plain_bytes
        made.append(plan_memory(spec, size, (plain - (12 << 20), "a test's"), found))
        return made[-1]

    monkeypatch.setattr(fitting, "plan_memory", plan)
    return made


def test_folds_are_neither_fitted_nor_fitted_again_from_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plans, stages = good_folder(tmp_path / "good", IMAGES), list[FitPlan](), set[str]()
    export.package(fit(folder, OPTIONS, on_plan=plans.append), tmp_path / "folds.onceover")
    assert plans[0].folds == IMAGES
    made = limit_to_a_stream(monkeypatch)

    def progress(stage: str, _done: int, _total: int) -> None:
        stages.add(stage)

    with pytest.raises(MemoryLimitError, match=REFUSAL + "allow more with --max-memory, or hold parts out"):
        fit(folder, OPTIONS, progress)
    with pytest.raises(MemoryLimitError, match=REFUSAL + "allow more with --max-memory, free some"):
        refit(open_package(tmp_path / "folds.onceover"), GRAPH, folder, progress=progress)
    assert [plan.streaming for plan in made] == [True, True]
    assert not stages & {"patch embeddings", "coreset", "calibration"}  # refused before anything expensive


def test_a_job_refuses_a_plan_that_streams_folds(tmp_path: Path) -> None:
    plans: list[FitPlan] = []
    folder = good_folder(tmp_path / "good", 24)
    options = tiny_options(adapt=False)
    graph = options.backbone
    assert isinstance(graph, bytes)
    fit(folder, options, on_plan=plans.append)
    plan = plans[0]
    assert plan.memory is not None
    assert plan.folds == 24
    streaming = replace(plan, memory=replace(plan.memory, streaming=True))
    names = {path: path.name for path in plan.bank_images}
    job = FitJob(graph, read_graph_spec(graph, "tiny"), streaming, options, names, "tiny", no_progress)
    with pytest.raises(MemoryLimitError, match="24 images are calibrated across folds"):
        job.run()
