"""Tolerances hold for what they were derived for, and are small enough that a real defect exceeds them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from tolerances import COSINE_DISTANCE, EXACT_METRIC, OFFICIAL_AUPRO, bank_distance, distance_f32, squared_distance_f32

DIMS = (1, 3, 15, 16, 17, 128, 384, 1000)


def kernel_order_squared(query: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) squared distances in float32, summed in 16 partial sums and a tree as the kernels do."""
    padded = np.zeros((len(bank), -(-bank.shape[1] // 16) * 16), np.float32)
    padded[:, : bank.shape[1]] = query - bank
    partial = np.zeros((len(bank), 16), np.float32)
    for start in range(0, padded.shape[1], 16):
        difference = padded[:, start : start + 16]
        partial = partial + difference * difference
    for width in (8, 4, 2, 1):
        partial = partial[:, :width] + partial[:, width : 2 * width]
    return partial[:, 0]


def draw(dims: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(dims)
    return rng.standard_normal(dims).astype(np.float32), rng.standard_normal((2000, dims)).astype(np.float32)


@pytest.mark.parametrize("dims", DIMS)
def test_a_squared_distance_in_kernel_order_stays_within_its_bound(dims: int) -> None:
    query, bank = draw(dims)
    exact = ((query.astype(np.float64) - bank.astype(np.float64)) ** 2).sum(axis=1)
    error = np.abs(kernel_order_squared(query, bank) - exact) / exact
    assert error.max() <= squared_distance_f32(dims)


@pytest.mark.parametrize("dims", DIMS)
def test_a_distance_in_kernel_order_stays_within_its_bound(dims: int) -> None:
    query, bank = draw(dims)
    exact, index = reference.nearest_neighbor(query[None], bank)
    found = np.sqrt(kernel_order_squared(query, bank))
    assert found.dtype == np.float32
    assert abs(float(found[index[0, 0]]) - exact[0, 0]) <= distance_f32(dims) * exact[0, 0]


@pytest.mark.parametrize("dims", DIMS)
def test_rounding_the_bank_to_half_precision_exceeds_the_distance_bound(dims: int) -> None:
    query, bank = draw(dims)
    exact = np.sqrt(((query.astype(np.float64) - bank.astype(np.float64)) ** 2).sum(axis=1))
    found = np.sqrt(kernel_order_squared(query, bank.astype(np.float16).astype(np.float32)))
    assert (np.abs(found - exact) / exact).max() > distance_f32(dims)


@pytest.mark.parametrize("dims", DIMS)
def test_the_reference_distance_rounded_to_float32_is_within_its_bound_of_rational_arithmetic(dims: int) -> None:
    query, bank = draw(dims)
    bank = bank[:40]
    distances, indices = reference.nearest_neighbor(query[None], bank, len(bank))
    wide = [Fraction(float(value)) for value in query]
    for distance, row in zip(distances[0].astype(np.float32), indices[0], strict=True):
        squared = sum((a - Fraction(float(b))) ** 2 for a, b in zip(wide, bank[row], strict=True))
        exact, slack = Fraction(float(distance)), Fraction(bank_distance(dims))
        assert (exact / (1 + slack)) ** 2 <= squared <= (exact / (1 - slack)) ** 2


@pytest.mark.parametrize("dims", [128, 384, 1000])
def test_a_distance_summed_in_float32_exceeds_the_bound_of_a_memory_bank(dims: int) -> None:
    query, bank = draw(dims)
    exact = np.sqrt(reference.squared_distances(query, bank))
    found = np.sqrt(kernel_order_squared(query, bank)).astype(np.float64)
    assert (np.abs(found - exact) / exact).max() > bank_distance(dims)


def cosine_by_distance(query: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """1 − cos as a MemoryBank has it: unit rows in float32, half their squared distance."""
    unit, units = (query / np.linalg.norm(query)), rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squared = reference.squared_distances(unit.astype(np.float32), units.astype(np.float32))
    distance: NDArray[np.float32] = np.sqrt(squared).astype(np.float32)
    halved: NDArray[np.float32] = distance * distance / np.float32(2)
    return halved


@pytest.mark.parametrize("dims", DIMS[1:])
def test_a_cosine_distance_stays_within_its_bound_and_half_precision_exceeds_it(dims: int) -> None:
    query, rows = (array.astype(np.float64) for array in draw(dims))
    rows[:1000] = query + 1e-3 * rows[:1000]  # small angles as well as large ones
    exact = 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    assert np.abs(cosine_by_distance(query, rows) - exact).max() <= COSINE_DISTANCE
    assert np.abs(cosine_by_distance(query, rows.astype(np.float16).astype(np.float64)) - exact).max() > COSINE_DISTANCE


def test_the_expanded_form_of_a_distance_between_near_points_exceeds_the_bound() -> None:
    rng = np.random.default_rng(0)
    bank = (rng.standard_normal((500, 128)) + 10).astype(np.float32)
    query = bank[0] + np.float32(0.001) * rng.standard_normal(128).astype(np.float32)
    exact = float(((query.astype(np.float64) - bank[0].astype(np.float64)) ** 2).sum())
    expanded = float(query @ query - 2 * (query @ bank[0]) + bank[0] @ bank[0])
    assert abs(expanded - exact) / exact > squared_distance_f32(128)
    assert abs(float(kernel_order_squared(query, bank[:1])[0]) - exact) / exact <= squared_distance_f32(128)


def test_one_pair_in_the_wrong_order_exceeds_the_metric_tolerances() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.standard_normal(3000), rng.random(3000) < 0.1
    normal = np.sort(scores[~labels])
    anomalous = np.flatnonzero(labels)[0]
    moved = scores.copy()
    moved[anomalous] = normal[np.searchsorted(normal, scores[anomalous])] + 1e-9  # just above the next normal score
    change = abs(reference.auroc(moved, labels) - reference.auroc(scores, labels))
    assert change == pytest.approx(1 / (labels.sum() * (~labels).sum()))
    assert change > OFFICIAL_AUPRO > EXACT_METRIC
