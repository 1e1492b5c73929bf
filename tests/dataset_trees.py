"""Small copies of every data set layout, drawn: two or three tiny images each, with the oddities of the real ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPE = (12, 10)  # (H, W)
DEFECT = (slice(3, 7), slice(2, 7))  # 20 pixels


def put(path: Path, values: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Encode with OpenCV itself, by the extension in any case; (H, W), BGR or BGRA."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), values)[1].tobytes())
    return path


def picture(path: Path, seed: int, channels: int = 3, dtype: type = np.uint8) -> Path:
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    return put(path, np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype))


def mask(path: Path, value: int = 255, area: tuple[slice, slice] = DEFECT) -> Path:
    """Zero but for `value` in one area."""
    values = np.zeros(SHAPE, np.uint8)
    values[area] = value
    return put(path, values)


def pictures(root: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        picture(root / name, seed)


def mvtec(root: Path) -> Path:
    """Upper-case extensions, gray, RGBA and 16-bit images, and files that are no images."""
    pictures(root, ["train/good/000.png", "test/good/000.png", "test/cut/000.PNG", "test/cut/001.JPG"])
    picture(root / "train/good/001.png", 10, channels=1)
    picture(root / "test/cut/002.png", 11, channels=4)
    picture(root / "test/cut/003.png", 12, channels=1, dtype=np.uint16)
    mask(root / "ground_truth/cut/000_mask.png")
    mask(root / "ground_truth/cut/001.bmp")
    mask(root / "ground_truth/cut/002_GT.png")
    mask(root / "ground_truth/cut/003_mask.png")
    return junk(root)


def junk(root: Path) -> Path:
    """What lies around in every release."""
    (root / "license.txt").write_text("free")
    (root / "readme.txt").write_text("read")
    (root / ".DS_Store").write_bytes(b"\0")
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        (folder / ".hidden.png").write_bytes(b"no picture")
    return root


def mvtec_ad2(root: Path) -> Path:
    pictures(
        root,
        [
            "train/good/000_regular.png",
            "validation/good/001_overexposed.png",
            "test_public/good/002_regular.png",
            "test_public/bad/003_shift_1.png",
            "test_private/000.png",
            "test_private_mixed/001_underexposed.png",
        ],
    )
    mask(root / "test_public/ground_truth/bad/003_shift_1_mask.png")
    return junk(root)


LOCO_CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 7, "relative_saturation": False},
    {"defect_name": "extra", "pixel_value": 251, "saturation_threshold": 0.37, "relative_saturation": True},
    {"defect_name": "speck", "pixel_value": 250, "saturation_threshold": 0.01, "relative_saturation": True},
]
CORNER = (slice(0, 2), slice(0, 3))  # 6 pixels


def mvtec_loco(root: Path) -> Path:
    """The logical anomaly has three masks, two of which overlap."""
    pictures(
        root,
        [
            "train/good/000.png",
            "validation/good/000.png",
            "test/good/000.png",
            "test/logical_anomalies/000.png",
            "test/structural_anomalies/000.png",
        ],
    )
    for i, (value, area) in enumerate([(255, DEFECT), (251, DEFECT), (250, CORNER)]):
        mask(root / f"ground_truth/logical_anomalies/000/{i:03}.png", value, area)
    mask(root / "ground_truth/structural_anomalies/000/000.png", 255, CORNER)
    (root / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    return junk(root)


def visa(root: Path, objects: Sequence[str] = ("candle", "pcb1")) -> Path:
    """Masks hold the ids 1 and 2; normal images have none."""
    rows = []
    for seed, name in enumerate(objects):
        folder = f"{name}/Data/Images"
        images = [f"{folder}/Normal/0000.JPG", f"{folder}/Normal/0001.JPG", f"{folder}/Anomaly/000.JPG"]
        for i, (image, split) in enumerate(zip(images, ("train", "test", "test"), strict=True)):
            picture(root / image, 10 * seed + i)
            truth = f"{name}/Data/Masks/Anomaly/000.png" if "Anomaly" in image else ""
            rows.append([name, split, "anomaly" if truth else "normal", image, truth])
        ids = np.zeros(SHAPE, np.uint8)
        ids[DEFECT], ids[CORNER] = 1, 2
        put(root / f"{name}/Data/Masks/Anomaly/000.png", ids)
        (root / name / "image_anno.csv").write_text("image,label,mask\n")
    table(root / "split_csv/1cls.csv", ["object", "split", "label", "image", "mask"], rows)
    return junk(root)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def btad(root: Path) -> Path:
    """Masks of another extension than their images, with soft edges."""
    pictures(root, ["train/ok/0000.bmp", "test/ok/0000.bmp", "test/ko/0001.bmp", "test/ko/0002.png"])
    soft = np.zeros(SHAPE, np.uint8)
    soft[2:8, 1:8], soft[DEFECT] = 90, 255  # a rim of gray around the defect
    put(root / "ground_truth/ko/0001.png", soft)
    mask(root / "ground_truth/ko/0002.bmp")
    return junk(root)


def kolektor2(root: Path) -> Path:
    """Every image has a mask; one pixel of value 1 makes an image defective, also in train."""
    pictures(root, ["train/10000.png", "train/10001.png", "test/20000.png", "test/20001.png"])
    for name, value in {"train/10000": 0, "train/10001": 255, "test/20000": 0, "test/20001": 1}.items():
        mask(root / f"{name}_GT.png", value, (slice(5, 6), slice(5, 6)))
    (root / "split_weakly_16.pyb").write_bytes(b"never unpickled")
    return junk(root)


def kolektor1(root: Path) -> Path:
    """Six parts with two sides each; side 1 of kos02 is defective."""
    for part in range(1, 7):
        for side in range(2):
            picture(root / f"kos{part:02}/Part{side}.jpg", 10 * part + side)
            mask(root / f"kos{part:02}/Part{side}_label.bmp", 255 if (part, side) == (2, 1) else 0)
    return junk(root)


def magnetic_tile(root: Path) -> Path:
    """An anti-aliased mask, and an Uneven image whose mask is empty."""
    for i in range(10):
        picture(root / f"MT_Free/Imgs/exp1_num_{i}.jpg", i, channels=1)
        mask(root / f"MT_Free/Imgs/exp1_num_{i}.png", 0)
    picture(root / "MT_Crack/Imgs/exp1_num_50.jpg", 50, channels=1)
    soft = np.zeros(SHAPE, np.uint8)
    soft[2:8, 1:8], soft[DEFECT] = 127, 128
    put(root / "MT_Crack/Imgs/exp1_num_50.png", soft)
    picture(root / "MT_Uneven/Imgs/exp1_num_60.jpg", 60, channels=1)
    mask(root / "MT_Uneven/Imgs/exp1_num_60.png", 0)
    return junk(root)


def csv_table(root: Path) -> Path:
    """A table with a byte order mark, either slash and a blank line; the folder is what a user would give."""
    pictures(root, ["photos/a.png", "photos/b.png", "photos/c.png", "photos/d.png", "photos/e.png"])
    mask(root / "masks/d.png")
    rows = [
        ["photos/a.png", "", "good", "train"],
        ["photos\\b.png", "", "OK", "val"],
        [],
        ["photos/c.png", "", "normal", "test"],
        ["./photos/d.png", "masks/d.png", "Anomaly", "TEST"],
        ["photos/e.png", "", "unknown", "test"],
    ]
    table(root / "list.csv", ["Image", "mask", "label", "split"], rows, encoding="utf-8-sig")
    return junk(root)


TREES = {
    "mvtec": mvtec,
    "mvtec_ad2": mvtec_ad2,
    "mvtec_loco": mvtec_loco,
    "visa": lambda root: visa(root, ("candle",)),
    "btad": btad,
    "kolektor": kolektor2,
    "magnetic_tile": magnetic_tile,
    "csv": csv_table,
}
