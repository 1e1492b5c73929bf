"""The methods that bench_nearest_neighbor.py compares, and how they are timed beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from brute_force import Search
from features import F32
from threadpoolctl import threadpool_limits

try:
    import faiss
except ImportError:  # what needs it says so
    faiss = None

# distance_compute_blas_threshold: below Q · D = threshold, faiss measures row by row without BLAS
FAISS_DEFAULT, FAISS_ALWAYS_BLAS = 128_000, 20

TUNED, OURS = "faiss tuned", "onceover"  # the base of all ratios, and what is measured

ROUNDS = 9
SLOW_ROUNDS, SLOW_S = 3, 30.0  # a call that takes longer than SLOW_S is timed in fewer rounds

Calls = dict[str, Callable[[], object]]


def faiss_flat(bank: F32, blas_threshold: int) -> Search:
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)

    def search(queries: F32) -> Any:
        faiss.cvar.distance_compute_blas_threshold = blas_threshold
        squared, found = index.search(queries, 1)  # (Q, 1), (Q, 1)
        return np.sqrt(np.maximum(squared[:, 0], 0)), found[:, 0]

    return search


def torch_mm(bank: F32) -> Search:
    columns = torch.from_numpy(bank).T  # (D, M), a view
    norms = (columns**2).sum(dim=0)  # (M,)
    products = torch.empty(0)

    def search(queries: F32) -> Any:
        nonlocal products
        asked = torch.from_numpy(queries)
        products = products if len(products) == len(asked) else torch.empty(len(asked), len(bank))
        torch.addmm(norms, asked, columns, alpha=-2, out=products)  # |b|² − 2 q·b, (Q, M)
        least, found = products.min(dim=1)
        return (least + (asked**2).sum(dim=1)).clamp_(min=0).sqrt_().numpy(), found.numpy()

    return search


def numpy_mm(bank: F32) -> Search:
    norms = np.einsum("md,md->m", bank, bank)
    products = np.empty((0, 0), np.float32)

    def search(queries: F32) -> Any:
        nonlocal products
        products = products if len(products) == len(queries) else np.empty((len(queries), len(bank)), np.float32)
        np.matmul(-2 * queries, bank.T, out=products)
        np.add(products, norms, out=products)  # |b|² − 2 q·b, (Q, M)
        found = products.argmin(axis=1)
        squared = products[np.arange(len(queries)), found] + np.einsum("qd,qd->q", queries, queries)
        return np.sqrt(np.maximum(squared, 0)), found

    return search


def ours(memory_bank: Any, threads: int = 1) -> Search:
    def search(queries: F32) -> Any:
        distance, found = memory_bank.search(queries, k=1, threads=threads)  # (Q, 1), (Q, 1)
        return distance[:, 0], found[:, 0]

    return search


def one_thread() -> None:
    """Every library that has threads of its own may use one."""
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    threadpool_limits(limits=1)


def interleave(calls: Calls, rounds: int = ROUNDS, threads: int = 1) -> dict[str, tuple[float, float]]:
    """Median thread CPU and wall milliseconds of each call, over A B C A B C …; a first round warms up.

    With threads = 1 a call that works in other threads is refused, as their time would be missing.
    """
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in calls}  # thread, process, wall; seconds
    for turn in range(rounds + 1):
        for name, call in calls.items():
            if turn > SLOW_ROUNDS and spent[name][0][2] > SLOW_S:
                continue
            before = time.thread_time(), time.process_time(), time.perf_counter()
            call()
            after = time.thread_time(), time.process_time(), time.perf_counter()
            spent[name].append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
    medians = {}
    for name, samples in spent.items():
        thread, process, wall = np.median(np.array(samples[1:]), axis=0) * 1e3
        if threads == 1 and process > 1.2 * thread + 1:
            raise RuntimeError(f"{name}: {thread:.1f} ms in its thread, {process:.1f} ms in all; it must run in one")
        medians[name] = float(thread), float(wall)
    return medians
