"""Pages for the tests of the HTML report: generated images and verdicts, and a Chromium that opens a page."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onceover.report.gallery import Gallery
from onceover.report.html import Defect, EvaluationPage, Metric, PixelCurve, Rate
from onceover.report.plots import Threshold
from onceover.types import Timing, Verdict

THRESHOLD = 2.0
# As root in a container; nothing is fetched, nothing of an earlier run is found.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip


def verdict(score: float, shape: tuple[int, int], calibrated: bool = True) -> Verdict:
    """Its map is hot in the middle, as hot as the score."""
    anomaly_map = np.full(shape, 0.3 * score, np.float32)
    anomaly_map[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 3 : 2 * shape[1] // 3] = score
    return Verdict(
        score=score,
        p_value=0.05 if score > THRESHOLD else 0.5,
        decision="uncalibrated" if not calibrated else "anomalous" if score > THRESHOLD else "normal",
        threshold=THRESHOLD if calibrated else None,
        anomaly_map=anomaly_map,
        patch_scores=np.full((2, 2), score, np.float32),
        map_threshold=THRESHOLD if calibrated else None,
        regions=(),
        worst_patch=(0, 0),
        nearest=0,
        timing=Timing(1, 2, 3, 4),
    )


def add_image(
    gallery: Gallery,
    name: str,
    label: int,
    score: float,
    *,
    shape: tuple[int, int] = (48, 64),
    defect: str = "scratch",
    calibrated: bool = True,
    masked: bool = True,
) -> None:
    """One generated image; its defect, if any, is the right half of its map's hot part."""
    image = np.random.default_rng(len(gallery)).integers(0, 255, (*shape, 3), np.uint8)
    truth = np.zeros(shape, np.bool_)
    if label == 1:
        truth[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 2 : 2 * shape[1] // 3] = True
    known = label == 0 or (label == 1 and masked)
    gallery.add(
        name, label, defect if label == 1 else "", image, verdict(score, shape, calibrated), truth if known else None
    )


def small_gallery() -> Gallery:
    """Two misses, one false alarm, two found, three passed, one unlabeled; names by outcome and order on the page."""
    gallery = Gallery()
    for name, label, score in (
        ("passed 2", 0, 0.5), ("missed 1", 1, 1.5), ("found 1", 1, 2.5), ("passed 0", 0, 1.9), ("missed 0", 1, 1.0),
        ("false-alarm 0", 0, 2.2), ("passed 1", 0, 0.9), ("found 0", 1, 2.1), ("unlabeled 0", -1, 3.0),
    ):  # fmt: skip
        add_image(gallery, name, label, score)
    return gallery


def make_page(**changes: Any) -> EvaluationPage:
    """What the page of `small_gallery` says."""
    line = np.linspace(0, 1, 5)
    page = EvaluationPage(
        title="plate",
        images=9,
        good=4,
        anomalous=4,
        unlabeled=1,
        false_alarms=Rate(1, 4, (0.006, 0.806)),
        target=0.05,
        misses=Rate(2, 4, (0.068, 0.932)),
        metrics=[Metric("Image AUROC", 0.75, (0.5, 1.0)), Metric("AUPRO(0.3)", 0.9, (0.8, 0.95))],
        defects=[Defect("scratch", 3, 1, 0.7, 0.8, 0.9), Defect("hole", 1, 1, 1.0, float("nan"), float("nan"))],
        threshold=Threshold(THRESHOLD, (1.5, float("inf"))),
        calibration=np.linspace(0.5, 2, 19, dtype=np.float32),
        curve=PixelCurve(line, np.sqrt(line), line, 1),
        latency={"engine": {"p50": 10.0, "p99": 20.0}, "total": {"p50": 12.0, "p99": 22.0}},
        facts=[("Package", "plate.onceover")],
        problems=[],
        level=0.95,
        realised=(0.001, 0.14),
    )
    return replace(page, **changes)


@dataclass(frozen=True)
class Browser:
    """Chromium with a profile that is thrown away; `errors` of every page it opens: what its console said."""

    program: str
    folder: Path

    def run(self, *words: str) -> tuple[str, list[str]]:
        """(stdout, lines of the console) of one run."""
        profile = f"--user-data-dir={self.folder}/profile"
        done = subprocess.run(
            [self.program, *FLAGS, profile, *words], capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def dom(self, page: Path, anchor: str = "", width: int = 1000) -> str:
        """The document after its scripts ran; AssertionError when the console said anything."""
        text, console = self.run(f"--window-size={width},900", "--dump-dom", page.as_uri() + anchor)
        assert not console, console
        return text

    def picture(self, page: Path, target: Path, width: int, height: int) -> Path:
        """The file of a screenshot."""
        _, console = self.run(f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri())
        assert not console, console
        return target
