"""Memory banks and queries for test_memory_bank*.py: each family is nasty in one way, at any shape."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import reference
from numpy.typing import NDArray

from onceover import _core

Rows = NDArray[np.float32]
Wide = NDArray[np.floating]
Pair = tuple[Wide, Wide]  # bank, queries
Random = np.random.Generator
Results = tuple[Rows, NDArray[np.int64]]  # distances (Q, k), row numbers (Q, k)

DIMS = (1, 2, 3, 15, 17, 63, 64, 65, 100, 127, 129, 317)
QUERIES = 37  # two groups of 16 and a part of one
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149


@dataclass(frozen=True)
class Shape:
    rows: int
    dims: int
    seed: int = 0


Family = Callable[[Random, int, int], Pair]
FAMILIES: dict[str, Family] = {}


def family(make: Family) -> Family:
    """make(random, rows, dims) → (rows, dims) bank, (any, dims) queries; rounded to float32 by `bank_and_queries`."""
    FAMILIES[make.__name__] = make
    return make


@functools.cache
def bank_and_queries(name: str, shape: Shape) -> tuple[Rows, Rows]:
    random = np.random.default_rng([shape.seed, shape.rows, shape.dims])
    bank, queries = FAMILIES[name](random, shape.rows, shape.dims)
    with np.errstate(over="ignore", invalid="ignore"):
        made = np.ascontiguousarray(bank, np.float32), np.ascontiguousarray(queries, np.float32)
    for array in made:
        array.flags.writeable = False
    return made


@functools.cache
def truth(name: str, shape: Shape) -> Results:
    """Of as many neighbors as a search may ask for."""
    bank, queries = bank_and_queries(name, shape)
    return float64_results(queries, bank, 32)


def float64_results(queries: Rows, bank: Rows, k: int = 1) -> Results:
    """What a search must return: distances rounded once to float32 (too far for it: +inf), and row numbers."""
    distances, indices = reference.nearest_neighbor(queries, bank, k)
    with np.errstate(over="ignore"):
        return distances.astype(np.float32), indices


def wrong_results(found: Results, expected: Results) -> list[str]:
    """The results (Q, k) that differ from the first k expected ones, by a bit of the distance or by the row."""
    distances, rows = found
    k = distances.shape[1]
    right_distances, right_rows = expected[0][:, :k], expected[1][:, :k]
    assert distances.dtype == right_distances.dtype == np.float32
    assert rows.dtype == right_rows.dtype == np.int64
    assert distances.shape == rows.shape == right_rows.shape
    bits, right_bits = (np.ascontiguousarray(values).view(np.uint32) for values in (distances, right_distances))
    return [
        f"query {q}, neighbor {n} of {k}: row {rows[q, n]} at {distances[q, n]!r}, in float64 row "
        f"{right_rows[q, n]} at {right_distances[q, n]!r}"
        for q, n in np.argwhere((bits != right_bits) | (rows != right_rows))
    ]


def assert_exact(bank: _core.MemoryBank, queries: Rows, expected: Results, k: int, threads: int = 1) -> None:
    wrong = wrong_results(bank.search(queries, k, threads), expected)
    ranks = "+".join(map(str, bank.ranks))
    assert not wrong, f"{bank.stats['isa']}, {bank.representation} {ranks}: {len(wrong)} wrong, first: {wrong[0]}"


REPRESENTATIONS = (
    "scan", "rank 32/64+0", "rank 32/64+64", "rank 16/64+32", "rank 64+64", "rank 48/128+0", "rank 64/128+0", "full",
    "chosen",
)  # fmt: skip


def fits(representation: str, dims: int) -> bool:
    """Whether `dims`, padded to 64, hold the coordinates that a forced rank asks for."""
    return not representation.startswith("rank") or sum(_ranks(representation)[1:]) <= -(-dims // 64) * 64


def _ranks(representation: str) -> tuple[int, int, int]:
    """ "rank 32/64+0" → 32, 64, 0; "rank 64+0" → 64, 64, 0."""
    first, _, more = representation.removeprefix("rank ").partition("+")
    screened, _, coded = first.rpartition("/")
    return int(screened or coded), int(coded), int(more)


def build(bank: Rows, representation: str = "chosen", isa: str | None = None) -> _core.MemoryBank:
    if representation == "chosen":
        return _core.MemoryBank(bank, isa=isa)
    if not representation.startswith("rank"):
        return _core.MemoryBank(bank, representation=representation, isa=isa)
    screened, first, more = _ranks(representation)
    return _core.MemoryBank(bank, representation="rank", rank1=first, rank2=first + more, screened=screened, isa=isa)


def queries_near(random: Random, bank: Wide, away: float) -> Wide:
    """Rows of the bank, moved by a normal deviate of `away` standard deviations in every coordinate."""
    moved = bank[random.integers(len(bank), size=QUERIES)]
    return np.asarray(moved + away * random.standard_normal(moved.shape))


@family
def gaussian(random: Random, rows: int, dims: int) -> Pair:
    return random.standard_normal((rows, dims)), random.standard_normal((QUERIES, dims))


@family
def clustered(random: Random, rows: int, dims: int) -> Pair:
    """Few directions of large variance, as features have; here the screen prunes almost everything."""
    latent = min(12, dims)
    centers, mixing = random.standard_normal((20, dims)), random.standard_normal((latent, dims)) / latent**0.5

    def draw(count: int) -> Wide:
        inside = 0.3 * random.standard_normal((count, latent)) @ mixing
        noise = 0.02 * random.standard_normal((count, dims))
        return np.asarray(centers[random.integers(20, size=count)] + inside + noise)

    return draw(rows), draw(QUERIES)


@family
def duplicated(random: Random, rows: int, dims: int) -> Pair:
    """Every row about four times, in no order."""
    distinct = random.standard_normal((-(-rows // 4), dims))
    bank = distinct[random.integers(len(distinct), size=rows)]
    return bank, queries_near(random, bank, 0.1)


@family
def exact_ties(random: Random, rows: int, dims: int) -> Pair:
    """Whole numbers: many different rows at exactly the same distance, in every arithmetic."""
    return random.integers(-1, 2, (rows, dims)) * 1.0, random.integers(-2, 3, (QUERIES, dims)) / 2


@family
def signed_zeros(random: Random, rows: int, dims: int) -> Pair:
    """Equal rows with different bytes."""
    bank = np.copysign(random.integers(0, 2, (rows, dims)), random.standard_normal((rows, dims)))
    return bank, np.asarray(-bank[:QUERIES] * random.integers(-1, 2, (min(QUERIES, rows), 1)))


@family
def near_ties(random: Random, rows: int, dims: int) -> Pair:
    """Around each query a dozen rows that differ by one unit in the last place of one coordinate; all others far."""
    queries = 20 * random.standard_normal((QUERIES, dims))
    nearest = np.arange(rows) // 12 % QUERIES
    bank = (queries + random.standard_normal((QUERIES, dims)))[nearest].astype(np.float32)
    column, up = random.integers(dims, size=rows), random.integers(2, size=rows)
    at = np.arange(rows), column
    bank[at] = np.nextafter(bank[at], np.where(up, np.inf, -np.inf).astype(np.float32))
    return bank[random.permutation(rows)], queries


@family
def mirrored(random: Random, rows: int, dims: int) -> Pair:
    """Pairs c + d, c − d with the query c: the same distance but for the rounding of the rows themselves."""
    centers = random.standard_normal((QUERIES, dims)).astype(np.float32)
    half = -(-rows // 2)
    difference = 0.1 * random.standard_normal((half, dims))
    nearest = centers[np.arange(half) % QUERIES]
    return np.concatenate([nearest + difference, nearest - difference])[:rows], centers


@family
def offset(random: Random, rows: int, dims: int) -> Pair:
    """+1000: an expanded |q|² − 2 q·b + |b|² in float32 would be noise."""
    bank = random.standard_normal((rows, dims)) + 1000
    return bank, queries_near(random, bank, 0.3)


@family
def one_repeated_row(random: Random, rows: int, dims: int) -> Pair:
    bank = np.repeat(random.standard_normal((1, dims)), rows, axis=0)
    return bank, queries_near(random, bank, 0.3)


@family
def all_within_rounding(random: Random, rows: int, dims: int) -> Pair:
    """One row, each value moved by at most one unit in the last place; queries far and near."""
    bank = np.repeat(random.standard_normal((1, dims)).astype(np.float32), rows, axis=0)
    moved = np.where(random.random(bank.shape) < 0.3, np.nextafter(bank, np.float32(np.inf)), bank)
    near, far = queries_near(random, moved, 1e-7), queries_near(random, moved, 1.0)
    return moved, np.concatenate([near[::2], far[::2]])


@family
def columns_of_every_size(random: Random, rows: int, dims: int) -> Pair:
    """Columns scaled by 1e-18 to 1e18: the large ones decide, but for rows that agree in them."""
    scale = 10.0 ** random.uniform(-18, 18, dims)
    bank = random.integers(-2, 3, (rows, dims)) * scale
    return bank, queries_near(random, bank / scale, 0.1) * scale


@family
def values_of_every_size(random: Random, rows: int, dims: int) -> Pair:
    def draw(count: int) -> Wide:
        return np.asarray(random.standard_normal((count, dims)) * 10.0 ** random.uniform(-18, 18, (count, dims)))

    bank = draw(rows)
    return bank, np.concatenate([draw(9), bank[random.integers(rows, size=9)] * (1 + 1e-6)])


@family
def as_large_as_coded(random: Random, rows: int, dims: int) -> Pair:
    """Just inside 1e15, where float32 arithmetic still serves, with queries on both sides of it."""
    bank = 1.5e14 * random.standard_normal((rows, dims)).clip(-6, 6)
    return bank, queries_near(random, bank, 1e13) * 10.0 ** random.integers(-2, 5, (QUERIES, 1))


@family
def as_small_as_coded(random: Random, rows: int, dims: int) -> Pair:
    bank = 2e-15 * random.standard_normal((rows, dims))
    return bank, queries_near(random, bank, 1e-16) * 10.0 ** random.integers(-4, 3, (QUERIES, 1))


@family
def beyond_1e19(random: Random, rows: int, dims: int) -> Pair:
    """Squares overflow in float32."""
    bank = 1e19 * random.standard_normal((rows, dims))
    return bank, queries_near(random, bank, 1e18)


@family
def largest_floats(random: Random, rows: int, dims: int) -> Pair:
    """± the largest float: even differences overflow in float32."""
    bank = LARGEST * random.choice([-1.0, -0.5, 0.0, 1.0], (rows, dims))
    return bank, LARGEST * random.choice([-1.0, 0.9, 1.0], (QUERIES, dims))


@family
def denormals(random: Random, rows: int, dims: int) -> Pair:
    return (
        SMALLEST * random.integers(-9, 10, (rows, dims)),
        SMALLEST * random.integers(-99, 100, (QUERIES, dims)),
    )


@family
def denormals_around_one(random: Random, rows: int, dims: int) -> Pair:
    """A constant column of ones beside denormals: nothing else tells rows apart."""
    bank, queries = denormals(random, rows, dims)
    bank[:, 0], queries[:, 0] = 1, 1
    return bank, queries


@family
def orthogonal(random: Random, rows: int, dims: int) -> Pair:
    """Multiples of unit vectors, all at the same distance from each other."""
    bank = 3 * np.eye(dims)[np.arange(rows) % dims] * (1 + np.arange(rows) // dims)[:, None]
    return bank, np.concatenate([queries_near(random, bank, 0.01)[:20], np.zeros((1, dims)), np.eye(dims)[:9]])


@family
def collinear(random: Random, rows: int, dims: int) -> Pair:
    direction = random.standard_normal((1, dims))
    return random.uniform(-5, 5, (rows, 1)) * direction, random.uniform(-6, 6, (QUERIES, 1)) * direction


@family
def rows_of_the_bank(random: Random, rows: int, dims: int) -> Pair:
    bank = random.standard_normal((rows, dims))
    return bank, queries_near(random, bank, 0)


@family
def far_away(random: Random, rows: int, dims: int) -> Pair:
    """Out of the distribution: a hundred times as far as the bank is wide."""
    bank = random.standard_normal((rows, dims))
    return bank, queries_near(random, bank, 100)


@family
def heavy_tails(random: Random, rows: int, dims: int) -> Pair:
    """Student's t with 1.5 degrees of freedom: no step suits all codes."""
    bank = random.standard_t(1.5, (rows, dims))
    return bank, np.concatenate([queries_near(random, bank, 0.1)[:20], random.standard_t(1.5, (17, dims))])


@family
def mixed_group(random: Random, rows: int, dims: int) -> Pair:
    """Side by side in one group of 16: what is coded, scanned, measured in float64, or has no neighbor at all."""
    bank, queries = clustered(random, rows, dims)
    queries[0::7] *= 1000
    queries[1::7, 0] = np.nan
    queries[2::7] *= 1e25
    queries[3::7] = 0
    queries[4::7] = bank[0]
    queries[5:20:7, -1] = -np.inf
    queries[31] = LARGEST
    return bank, queries


@family
def all_zero(random: Random, rows: int, dims: int) -> Pair:
    """−0 and 0 are the same place."""
    queries = np.concatenate([np.zeros((2, dims)), -np.zeros((1, dims)), random.standard_normal((5, dims))])
    return np.zeros((rows, dims)), queries


@family
def constant_columns(random: Random, rows: int, dims: int) -> Pair:
    """All columns but every third are one large number."""
    bank, queries = random.standard_normal((rows, dims)), random.standard_normal((QUERIES, dims))
    for array in (bank, queries):
        array[:, np.arange(dims) % 3 != 0] = 777.7
    return bank, queries
