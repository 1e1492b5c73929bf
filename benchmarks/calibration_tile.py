"""Calibration on real parts: the recorded run of docs/calibration.md, on magnetic tiles in six exposures.

    python benchmarks/calibration_tile.py [../shared/data/magnetic_tile]

Half of the training tiles (groups) make the bank, the other half calibrates; test/good tells what rate comes of it.
Then what a leak does: bank images saved again, as JPEG or trimmed, in place of other parts.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from onceover.errors import OnceoverError
from onceover.export.recalibrate import CalibrateOptions, calibrate_package
from onceover.images import list_images, read_image, write_image
from onceover.runtime.inspector import Inspector
from onceover.training.dataset import read_groups, split_holdout
from onceover.types import Image

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "magnetic_tile"
SHOWN = {"COLUMNS": "100"}
COMMAND = str(Path(sys.executable).parent / "onceover")


def run(folder: Path, *words: str) -> None:
    """Show the command as it is typed, and what it says; progress bars stay away."""
    print(f"$ onceover {' '.join(words)}")
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False, cwd=folder, env=SHOWN)
    notes = [line for line in done.stderr.splitlines() if line.startswith(("error:", "note:"))]
    print(done.stdout + "\n".join(notes) + f"\n(status {done.returncode})\n", flush=True)


def halves(data: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Links to the training images, half of the tiles in each of two folders, and the groups of all of them."""
    images = list_images(data / "train" / "good")
    groups = read_groups(data / "groups.csv", images, data)
    tiles = len(set(groups.values()))
    both = split_holdout(images, groups, tiles // 2, seed=0)
    for name, chosen in zip(("bank", "others"), both, strict=True):
        (folder / name).mkdir()
        for path in chosen:
            (folder / name / path.name).symlink_to(path.resolve())
        print(f"{name}: {len(chosen)} images of {len({groups[path] for path in chosen})} tiles")
    with open(folder / "groups.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "group"))
        writer.writerows((path.name, group) for path, group in groups.items())
    return folder / "bank", folder / "others", folder / "groups.csv"


def as_jpeg(quality: int) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))

    return change


def trimmed(share: float) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        top, left = (round(side * share / 2) for side in image.shape[:2])
        return np.ascontiguousarray(image[top : image.shape[0] - top, left : image.shape[1] - left])

    return change


LEAKS: dict[str, Callable[[Image], Image]] = {
    "saved as PNG": lambda image: image,
    "5 gray levels brighter": lambda image: np.clip(image.astype(int) + 5, 0, 255).astype(np.uint8),
    "JPEG, quality 95": as_jpeg(95),
    "JPEG, quality 80": as_jpeg(80),
    "trimmed by 2 %": trimmed(0.02),
    "trimmed by 5 %": trimmed(0.05),
    "trimmed by 10 %": trimmed(0.1),
}


def leaks(package: Path, bank: Path, others: Path, good: list[Path], folder: Path) -> None:
    """Calibrating on bank images saved again: refused or not, and the rate on test/good if it is let through."""
    rows = []
    for name, change in {"other tiles": None, **LEAKS}.items():
        source, options = others if change is None else bank, CalibrateOptions()
        images = list_images(source)
        target = folder / "again"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for path in images:
            write_image(target / f"{path.stem}.png", read_image(path) if change is None else change(read_image(path)))
        try:
            report = calibrate_package(package, target, folder / "again.onceover", options)
            said = "accepted"
        except OnceoverError as error:
            said = f"refused: {str(error).split(' images ')[0]}"
            report = calibrate_package(package, target, folder / "again.onceover", CalibrateOptions(allow_similar=True))
        with Inspector.open(folder / "again.onceover") as inspector:
            alarms = sum(inspector.inspect(path).decision == "anomalous" for path in good)
        noted = "noted" if any("lower" in note for note in report.notes) else "-"
        rows.append((name, said, noted, f"{report.threshold:.2f}", f"{alarms} of {len(good)}"))
    print("| calibrated on | said | lower scores | threshold | false alarms on test/good |")
    print("| --- | --- | --- | ---: | ---: |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    data: Path = parser.parse_args().data
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bank, others, groups = halves(data, folder)
        by_tile = ("--groups", groups.name)
        run(folder, "fit", bank.name, "-o", "tile.onceover", *by_tile, "--holdout", "0")
        calibrate = ("calibrate", "tile.onceover", others.name, "-o", "calibrated.onceover", *by_tile)
        run(folder, *calibrate)
        run(folder, *calibrate, "--false-alarm", "0.01")
        run(folder, *calibrate, "--confidence", "0.95")
        run(folder, "calibrate", "tile.onceover", bank.name, "-o", "calibrated.onceover", *by_tile)
        run(folder, "evaluate", "calibrated.onceover", str(data.resolve()))
        calibrated = folder / "calibrated.onceover"
        leaks(calibrated, bank, others, list_images(data / "test" / "good"), folder)


if __name__ == "__main__":
    main()
