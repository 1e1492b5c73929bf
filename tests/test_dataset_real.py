"""Counts of the released data sets, from their papers and split files; needs ONCEOVER_DATASETS, a folder of them.

Expected in it, as far as they are there: mvtec_ad, mvtec_loco, visa, btad, 3cad, kolektorsdd2, kolektorsdd and
magnetic_tile, each as it was released. What is not there is skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from onceover.training.dataset import Dataset, read_dataset

ROOT = os.environ.get("ONCEOVER_DATASETS")
Row = tuple[int, int, int]  # train, test good, test anomalous

MVTEC_AD: dict[str, Row] = {
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "leather": (245, 32, 92),
    "tile": (230, 33, 84),
    "wood": (247, 19, 60),
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "hazelnut": (391, 40, 70),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "zipper": (240, 32, 119),
}
VISA: dict[str, Row] = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}
CAD3: dict[str, tuple[int, int]] = {  # train, test
    "Aluminum_Camera_Cover": (784, 1446),
    "Aluminum_Ipad": (2096, 2047),
    "Aluminum_Middle_Frame": (1548, 1479),
    "Aluminum_New_Middle_Frame": (1072, 1406),
    "Aluminum_New_Ipad": (2233, 4936),
    "Aluminum_Pc": (1698, 3161),
    "Copper_Stator": (409, 959),
    "Iron_Stator": (653, 1112),
}
BTAD = {"01": (400, 70), "02": (399, 230), "03": (1000, 441)}  # train, test
LOCO_CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


def released(name: str) -> Path:
    if not ROOT or not Path(ROOT, name).is_dir():
        pytest.skip(f"ONCEOVER_DATASETS ({ROOT or 'not set'}) has no folder {name}")
    return Path(ROOT, name)


def counts(dataset: Dataset) -> Row:
    labels = Counter(sample.label for sample in dataset.test)
    return len(dataset.train), labels[0], labels[1]


def test_the_tables_add_up_to_the_published_sums() -> None:
    assert [sum(column) for column in zip(*MVTEC_AD.values(), strict=True)] == [3629, 467, 1258]
    assert [sum(column) for column in zip(*VISA.values(), strict=True)] == [8659, 962, 1200]
    assert [sum(column) for column in zip(*CAD3.values(), strict=True)] == [10493, 16546]


@pytest.mark.parametrize("category", MVTEC_AD)
def test_mvtec_ad_has_the_published_counts_and_every_mask(category: str) -> None:
    dataset = read_dataset(released("mvtec_ad"), category=category)
    assert counts(dataset) == MVTEC_AD[category]
    assert all((sample.mask_path is not None) == (sample.label == 1) for sample in dataset.test)


@pytest.mark.parametrize("category", VISA)
def test_visa_has_the_published_counts_and_every_mask(category: str) -> None:
    dataset = read_dataset(released("visa"), "visa", category)
    assert counts(dataset) == VISA[category]
    assert all((sample.mask_path is not None) == (sample.label == 1) for sample in dataset.test)


@pytest.mark.parametrize(("name", "table"), [("btad", BTAD), ("3cad", CAD3)])
def test_btad_and_3cad_have_the_published_counts(name: str, table: dict[str, tuple[int, int]]) -> None:
    root = released(name)
    read = {category: read_dataset(root, category=category) for category in table}
    assert {category: (len(found.train), len(found.test)) for category, found in read.items()} == table


def test_mvtec_loco_has_the_published_counts() -> None:
    root = released("mvtec_loco")
    read = [read_dataset(root, category=category) for category in LOCO_CATEGORIES]
    kinds = Counter(sample.defect for dataset in read for sample in dataset.test)
    assert sum(len(dataset.train) for dataset in read) == 1772
    assert kinds == {"good": 575, "structural_anomalies": 432, "logical_anomalies": 561}
    assert all(sample.channels for dataset in read for sample in dataset.test if sample.label == 1)


def test_kolektorsdd2_has_the_published_counts() -> None:
    assert counts(read_dataset(released("kolektorsdd2"))) == (2085, 894, 110)


def test_kolektorsdd_has_399_images_of_which_52_are_defective() -> None:
    dataset = read_dataset(released("kolektorsdd"))
    assert len(dataset.train) + len(dataset.test) == 399
    assert counts(dataset)[2] == 52


def test_magnetic_tile_has_the_published_counts() -> None:
    dataset = read_dataset(released("magnetic_tile"))
    kinds = Counter(sample.defect for sample in (*dataset.train, *dataset.test))
    assert kinds == {"free": 952, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
