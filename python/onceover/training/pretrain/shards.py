"""Shards: the files that hold the records. Written whole or not at all, checked by length, digest and hash.

64 bytes   magic | u32 version | u32 shard | u64 first record | u64 records | digest of the header (32 bytes)
records    as `RecordHeader.dtype` says, packed
statistics per tap float64 mean[C], then float64 variance[C], over all cells of the shard
32 bytes   SHA-256 of everything before
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import InputError
from onceover.training.pretrain.records import RECORD_VERSION, RecordHeader, read_header

MAGIC = b"\x89OOREC\r\n"  # damaged by any transfer that changes line ends
HEAD = struct.Struct("<8sIIQQ32s")
HASH_BYTES = 32
# A channel that hardly varies would turn rounding of float16 into a target: at least this share of the tap's largest.
STD_FLOOR = 1e-3
CORRELATED_RECORDS = 2000  # at most; more change no direction that matters

Statistics = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # per tap: mean and variance, (C,) each


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}.bin"


def write_shard(folder: Path, header: RecordHeader, shard: int, rows: NDArray[np.void]) -> None:
    """rows: all records of that shard, `header.dtype`."""
    ids = header.shard_range(shard)
    head = HEAD.pack(MAGIC, RECORD_VERSION, shard, ids.start, len(ids), header.digest())
    body = head + rows.tobytes() + _statistics_of(header, rows)
    _core.save_atomically(shard_path(folder, shard), body + hashlib.sha256(body).digest())


def _statistics_of(header: RecordHeader, rows: NDArray[np.void]) -> bytes:
    parts = []
    for index in range(len(header.taps)):
        values = rows[f"tap{index}"].astype(np.float64)  # (records, C, h, w)
        parts += [values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3))]
    return np.concatenate(parts).astype("<f8").tobytes()


def _expected_bytes(header: RecordHeader, shard: int) -> int:
    statistics = sum(2 * 8 * tap.channels for tap in header.taps)
    return HEAD.size + len(header.shard_range(shard)) * header.dtype.itemsize + statistics + HASH_BYTES


def check_shard(folder: Path, header: RecordHeader, shard: int) -> None:
    """InputError that says what is wrong with the file: missing, cut, of another recording, or changed."""
    path = shard_path(folder, shard)
    again = "run the same `onceover pretrain record` again, it writes what is missing"
    remove = "delete this file, then " + again
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the shard ({error.strerror}); {again}") from error
    expected = _expected_bytes(header, shard)
    if len(data) != expected:
        raise InputError(f"{path}: has {len(data)} bytes, expected {expected}: it is cut or damaged; {remove}")
    ids = header.shard_range(shard)
    if data[: HEAD.size] != HEAD.pack(MAGIC, RECORD_VERSION, shard, ids.start, len(ids), header.digest()):
        raise InputError(f"{path}: its head does not fit header.json, it is of another recording or damaged; {remove}")
    if hashlib.sha256(memoryview(data)[:-HASH_BYTES]).digest() != data[-HASH_BYTES:]:
        raise InputError(f"{path}: the SHA-256 of its content is wrong, bytes have changed; {remove}")


def missing_shards(folder: Path, header: RecordHeader) -> list[int]:
    """Shards that are not there; a file that is there must be whole, or InputError."""
    missing = []
    for shard in range(header.shards):
        if shard_path(folder, shard).exists():
            check_shard(folder, header, shard)
        else:
            missing.append(shard)
    return missing


class Records:
    """A complete folder of records, read by mmap."""

    def __init__(self, folder: Path, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Checks every byte; InputError for what is missing or damaged."""
        self.folder, self.header = folder, read_header(folder)
        absent = [shard for shard in range(self.header.shards) if not shard_path(folder, shard).exists()]
        if absent:
            raise InputError(
                f"{folder}: {len(absent)} of {self.header.shards} shards are missing, the first is "
                f"{shard_path(folder, absent[0]).name}; run the same `onceover pretrain record` again, it writes them"
            )
        for shard in range(self.header.shards):
            check_shard(folder, self.header, shard)
            if progress is not None:
                progress("checking shards", shard + 1, self.header.shards)
        self._maps: dict[int, NDArray[np.void]] = {}

    def __len__(self) -> int:
        return len(self.header)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # another process maps the files itself

    def row(self, record: int) -> np.void:
        """One record, `header.dtype`."""
        shard, place = divmod(record, self.header.shard_records)
        if shard not in self._maps:
            rows = len(self.header.shard_range(shard))
            path = shard_path(self.folder, shard)
            self._maps[shard] = np.memmap(path, self.header.dtype, "r", offset=HEAD.size, shape=(rows,))
        row: np.void = self._maps[shard][place]
        return row

    def statistics(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Per tap the mean and the standard deviation of each channel, (C,) each, over all records."""
        total: Statistics = []
        counted = 0
        for shard in range(self.header.shards):
            count = len(self.header.shard_range(shard))
            total = _merged(total, counted, self._shard_statistics(shard), count)
            counted += count
        answer = []
        for mean, variance in total:
            std = np.sqrt(variance)
            floored = np.maximum(std, max(1e-6, STD_FLOOR * float(std.max())))
            answer.append((mean.astype(np.float32), floored.astype(np.float32)))
        return answer

    def correlations(self) -> list[NDArray[np.float64]]:
        """Per tap (C, C): of its channels, over CORRELATED_RECORDS records, evenly spaced."""
        chosen = range(0, len(self), -(-len(self) // CORRELATED_RECORDS))
        answer = []
        for index, (mean, std) in enumerate(self.statistics()):
            total = np.zeros((len(mean), len(mean)))
            cells = 0
            for record in chosen:
                tap = self.row(record)[f"tap{index}"].astype(np.float64).reshape(len(mean), -1)  # (C, h·w)
                scaled = (tap - mean[:, None]) / std[:, None]
                total += scaled @ scaled.T
                cells += scaled.shape[1]
            answer.append(total / cells)
        return answer

    def _shard_statistics(self, shard: int) -> Statistics:
        with open(shard_path(self.folder, shard), "rb") as stream:
            stream.seek(HEAD.size + len(self.header.shard_range(shard)) * self.header.dtype.itemsize)
            values = np.frombuffer(stream.read(sum(16 * tap.channels for tap in self.header.taps)), "<f8")
        statistics, start = [], 0
        for tap in self.header.taps:
            middle, end = start + tap.channels, start + 2 * tap.channels
            statistics.append((values[start:middle], values[middle:end]))
            start = end
        return statistics


def _merged(first: Statistics, first_count: int, second: Statistics, second_count: int) -> Statistics:
    """Mean and variance of two sets together (Chan, Golub & LeVeque 1979); counts in records, all of one size."""
    if not first:
        return second
    share = second_count / (first_count + second_count)
    merged = []
    for (mean, variance), (other_mean, other_variance) in zip(first, second, strict=True):
        delta = other_mean - mean
        spread = (1 - share) * variance + share * other_variance + share * (1 - share) * delta**2
        merged.append((mean + share * delta, spread))
    return merged


__all__ = ["Records", "check_shard", "missing_shards", "shard_path", "write_shard"]
