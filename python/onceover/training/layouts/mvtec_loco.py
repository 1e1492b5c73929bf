"""MVTec LOCO AD, Bergmann et al. 2022 (IJCV, "Beyond Dents and Scratches"): one mask for each defect of an image.

train/good, validation/good, test/{good,logical_anomalies,structural_anomalies}, ground_truth/<kind>/<stem>/000.png and
so on. The gray value of a mask names its defect in defects_config.json, which says from what area on it is found.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from onceover.errors import InputError
from onceover.training.dataset import Dataset, Sample, Saturation, relative_path, subfolders
from onceover.training.layouts.folders import (
    GOOD_NAMES,
    by_stem,
    images_below,
    kind_of,
    nothing_found,
    read_normal,
)
from onceover.training.layouts.layout import Layout
from onceover.training.layouts.mvtec import LOCO_KINDS

CONFIG = "defects_config.json"


class MVTecLOCO(Layout):
    expects: ClassVar[str] = "as mvtec, with validation/good, ground_truth/<kind>/<stem>/000.png, defects_config.json"

    def matches(self, root: Path) -> bool:
        return bool(set(subfolders(root / "test")) & LOCO_KINDS)

    def read(self, root: Path, category: str | None) -> Dataset:
        problems: list[str] = []
        train = read_normal(root, "train", problems)
        validation = read_normal(root, "validation", problems)
        saturations: tuple[Saturation, ...] = ()
        if (root / CONFIG).exists():
            saturations = read_saturations(root / CONFIG)
        else:
            problems.append(f"no {CONFIG}; the saturated overlap (sPRO) is unknown")
        test = [replace(s, saturations=saturations if s.channels else ()) for s in _read_test(root, problems)]
        if not train and not test:
            raise nothing_found(root, "train/good or in test/<good, logical_anomalies or structural_anomalies>")
        return Dataset(root.resolve().name, tuple(train), tuple(test), tuple(problems), tuple(validation))


def _read_test(root: Path, problems: list[str]) -> list[Sample]:
    masks: dict[str, list[Path]] = {}  # kind/stem → its channels
    for stem, files in by_stem(root / "ground_truth").items():
        masks.setdefault(stem.rpartition("/")[0], []).extend(files)
    samples: list[Sample] = []
    for image in images_below(root / "test"):
        kind, relative = kind_of(image, root / "test"), relative_path(image, root)
        if not kind:
            problems.append(f"{relative}: left out, it lies in no test/<kind> folder and so has no label")
            continue
        stem = relative_path(image.with_suffix(""), root / "test")
        channels = masks.pop(stem, [])
        if kind.lower() in GOOD_NAMES:
            samples.append(Sample(image, relative, "test", 0, kind))
            continue
        if not channels:
            problems.append(f"{relative}: no masks ground_truth/{stem}/*; image-level metrics only")
        samples.append(Sample(image, relative, "test", 1, kind, positive_from=1, channels=tuple(channels)))
    for stem in sorted(masks, key=os.fsencode):
        problems.append(f"{relative_path(masks[stem][0], root)}: mask without a test image")
    return samples


def read_saturations(file: Path) -> tuple[Saturation, ...]:
    """The entries of defects_config.json; raises InputError naming the file and the entry that is wrong."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); copy it from the data set again") from error
    if not isinstance(entries, list):
        raise InputError(f"{file}: expected a list of defects, got {type(entries).__name__}")
    saturations = tuple(_saturation(file, index, entry) for index, entry in enumerate(entries))
    values = [saturation.pixel_value for saturation in saturations]
    if len(set(values)) != len(values):
        raise InputError(f"{file}: two defects have one pixel_value; keep one entry of each ({sorted(values)})")
    return saturations


def _saturation(file: Path, index: int, entry: Any) -> Saturation:
    try:
        value, threshold = entry["pixel_value"], entry["saturation_threshold"]
        name, relative = entry["defect_name"], entry["relative_saturation"]
        numbers = not isinstance(value, bool) and not isinstance(threshold, bool) and isinstance(relative, bool)
        if numbers and 0 < int(value) == value < 256 and threshold > 0 and (threshold <= 1 or not relative):
            return Saturation(int(value), str(name), float(threshold), relative)
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(
        f"{file}: entry {index} is {entry!r}; expected defect_name, pixel_value (1 to 255), saturation_threshold "
        "(above 0; at most 1 if relative) and relative_saturation (true or false)"
    )
