"""Real worker processes that each see a shard: what they send back merges to the same bytes, whatever their number."""

from __future__ import annotations

import itertools
import multiprocessing

import pytest
from metric_sets import collected, images

from onceover import metrics

SEED, COUNT = 11, 9


def evaluate_shard(shard: range) -> metrics.SegmentationMetrics:
    """Runs in a worker; its result travels back as a pickle."""
    of = images(SEED, COUNT, None, side=16)
    return collected([of[i] for i in shard], bootstrap=True)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_shards_of_worker_processes_merge_to_the_bytes_of_one_process_in_any_order(workers: int) -> None:
    whole = collected(images(SEED, COUNT, None, side=16), bootstrap=True).to_bytes()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        shards = pool.map(evaluate_shard, [range(start, COUNT, workers) for start in range(workers)])
    assert sum(shard.images for shard in shards) == COUNT
    for order in itertools.permutations(shard.to_bytes() for shard in shards):
        left, *rest = (metrics.SegmentationMetrics.from_bytes(data) for data in order)
        for shard in rest:
            left += shard
        assert left.to_bytes() == whole
        *rest, last = (metrics.SegmentationMetrics.from_bytes(data) for data in order)
        for shard in reversed(rest):  # the other way to hang the tree
            shard += last
            last = shard
        assert last.to_bytes() == whole
