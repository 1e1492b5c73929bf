"""One test per kind of damage that has right hashes: what a wrong or hostile writer makes is refused by its own words.

Each message says which package and member, what is wrong with which numbers, and what to do. Every field of every
record is in test_package*.cpp; fuzz_package.cpp tries what nobody thought of.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forged_package import Forgery
from fuzz_seeds import SEEDS, seed_bytes, write_seeds
from index_layout import aligned_copy, sections_of
from tiny_package import TinyOptions, read_members, tiny_graph, tiny_package, write_members

from onceover import _core
from onceover.errors import EngineError, MemoryLimitError, OnceoverError, PackageError, UnsupportedPackageError
from onceover.runtime.inspector import Inspector
from onceover.runtime.package import open_package
from onceover.runtime.session import open_session

NAN, INFINITY = float("nan"), float("inf")
PLAIN = seed_bytes(SEEDS["plain"])


def refusal(path: Path, change: Callable[[Forgery], object], kind: type[OnceoverError] = PackageError) -> str:
    """The message with which the changed package is refused, by the reader or by what reads its members."""
    forgery = Forgery(bytearray(PLAIN))
    change(forgery)
    path.write_bytes(forgery.sealed())
    with pytest.raises(kind) as caught:
        read_everything(open_package(path).core)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message, f"no advice in: {message}"
    return message


def read_everything(package: _core.Package) -> None:
    _core.read_config(package)
    _core.read_calibration(package)
    _core.read_parity(package)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part.onceover"


def test_the_forger_itself_breaks_nothing(path: Path) -> None:
    path.write_bytes(Forgery(bytearray(PLAIN)).sealed())
    read_everything(open_package(path).core)
    assert path.read_bytes() == PLAIN


def test_two_members_of_one_name_are_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("manifest.json", name=b"config"))
    assert "two members are named 'config'" in message
    assert "write it again" in message


def test_members_that_overlap_are_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("memory_bank", offset=f.get("calibration", "offset")))
    assert "'memory_bank' begins at byte" in message
    assert "not overlap" in message


def test_a_member_over_the_table_of_contents_is_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("config", offset=64))
    assert "'config' begins at byte 64, before what precedes it ends at byte" in message


def test_a_table_of_contents_inside_a_member_is_refused(path: Path) -> None:
    forgery = Forgery(bytearray(PLAIN))
    struct.pack_into("<Q", forgery.data, 24, forgery.get("memory_bank", "offset"))  # table_offset, beyond the id
    path.write_bytes(forgery.sealed())
    with pytest.raises(PackageError, match=r"table at byte \d+, expected 64 and 64; the header is damaged"):
        open_package(path)


def test_a_member_of_no_bytes_is_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("manifest.json", size_bytes=0, dimensions=(0, 0, 0, 0)))
    assert "member 'manifest.json' has 1 dimensions 0, 0, 0, 0" in message
    assert "none of them 0" in message


def test_dimensions_that_overflow_are_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("memory_bank", dimensions=(2**33, 2**33, 0, 0)))
    assert "8589934592, 8589934592" in message
    assert "a size below 2^64 bytes" in message


def test_a_member_larger_than_the_file_is_refused_before_anything_is_allocated(path: Path) -> None:
    message = refusal(path, lambda f: f.put("parity", size_bytes=2**40, dimensions=(2**40, 0, 0, 0)))
    assert "has 1099511627776 bytes from byte" in message
    assert f"the file ends at byte {len(PLAIN)}" in message


def test_a_table_of_billions_of_members_is_refused_before_it_is_read(path: Path) -> None:
    forgery = bytearray(PLAIN)
    struct.pack_into("<I", forgery, 32, 0xFFFFFFFF)
    path.write_bytes(forgery)
    with pytest.raises(PackageError, match=r"4294967295 members, expected 1 to 512; the header is damaged"):
        open_package(path)


def test_embeddings_of_gigabytes_are_refused(path: Path) -> None:
    def enlarge(forgery: Forgery) -> None:
        forgery.put_inside("config", 8, "<2I", 4096, 4096)  # input
        forgery.put_inside("config", 48, "<3I", 4096, 4096, 65536)  # grid, embedding_dim

    message = refusal(path, enlarge)
    assert "'grid_height * grid_width * embedding_dim' is 1099511627776, expected 1 to 268435456" in message


def test_a_reference_image_of_gigapixels_is_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put_inside("parity", 64, "<2I", 32768, 32768))
    assert "member 'parity': field 'pixels' is 1073741824, expected 1 to 134217728" in message


def test_a_session_that_needs_more_than_its_memory_limit_is_refused(tmp_path: Path) -> None:
    package = open_package(tiny_package(tmp_path / "tiny.onceover"))
    with pytest.raises(MemoryLimitError, match="limit"):
        open_session(package.core, memory_limit_mb=0.001)


@pytest.mark.parametrize(("offset", "field"), [(16, "threshold"), (20, "map_threshold")])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_a_threshold_that_is_no_number_is_refused(path: Path, offset: int, field: str, value: float) -> None:
    message = refusal(path, lambda f: f.put_inside("calibration", offset, "<f", value))
    assert f"member 'calibration': field '{field}' is {value:g}, expected a finite number; fit again" in message


@pytest.mark.parametrize(("first", "field"), [(64, "scores"), (64 + 4 * 19, "map_maxima")])
def test_calibration_scores_out_of_order_are_refused(path: Path, first: int, field: str) -> None:
    message = refusal(path, lambda f: f.put_inside("calibration", first, "<2f", 9.0, 1.0))
    assert f"member 'calibration': field '{field}' is not sorted at 1, expected ascending" in message


def test_an_array_with_other_dimensions_than_its_bytes_is_refused(path: Path) -> None:
    message = refusal(path, lambda f: f.put("memory_bank", dimensions=(11, 8, 0, 0)))
    assert "member 'memory_bank' has 384 bytes, its type float32 and dimensions say 352" in message


def test_a_bank_of_another_width_than_the_embedding_is_refused(tmp_path: Path) -> None:
    options = TinyOptions(replace={"memory_bank": np.ones((6, 5), np.float32)})
    package = tiny_package(tmp_path / "tiny.onceover", options)
    with pytest.raises(PackageError, match=r"'memory_bank' has 5 columns, the patch embedding has 4; write it again"):
        Inspector.open(package)


def test_a_graph_that_answers_another_shape_than_the_config_says_is_refused(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "tiny.onceover", TinyOptions(replace={"graph.onnx": tiny_graph(32, 48, 5)}))
    with pytest.raises(EngineError, match="5"):
        Inspector.open(package).verify()


@pytest.mark.parametrize("name", [b"../evil", b"/etc/passwd", b"a/b", b"a\\b", b".hidden", b"-rf", b"c:x", b"Con"])
def test_a_member_named_like_a_path_is_refused(path: Path, name: bytes) -> None:
    message = refusal(path, lambda f: f.put("manifest.json", name=name))
    assert f"member 1 is named '{name.decode()}'; expected 1 to 47 characters of [a-z0-9_.-]" in message
    assert "do not use it" in message


def test_a_value_that_a_newer_version_may_know_is_called_unsupported(path: Path) -> None:
    message = refusal(path, lambda f: f.put("memory_bank", type=9), UnsupportedPackageError)
    assert "type 9" in message
    assert "update onceover" in message


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_a_bank_row_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    bank = np.ones((6, 4), np.float32)
    bank[3, 2] = value
    path = tiny_package(tmp_path / "tiny.onceover", TinyOptions(replace={"memory_bank": bank}))
    with pytest.raises(PackageError, match=r"memory_bank.*; write it again"):
        Inspector.open(path)


@pytest.mark.parametrize("missing", ["config", "graph.onnx", "memory_bank", "calibration", "parity"])
def test_a_package_without_a_required_member_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    members = read_members(tiny_package(tmp_path / "tiny.onceover"))
    del members[missing]
    write_members(tmp_path / "part.onceover", members)
    with pytest.raises(PackageError, match=f"member '{missing}' is missing; the package has: "):
        Inspector.open(tmp_path / "part.onceover").verify()


def test_a_search_index_whose_sums_would_overflow_is_refused() -> None:
    """Found by fuzz_package.cpp: signed overflow in the screen."""
    bank = np.random.default_rng(1).normal(size=(40, 9)).astype(np.float32)
    for section, value in (("sums", 1 << 24), ("norms", -1), ("norms", (1 << 30) + 1)):
        index = aligned_copy(_core.MemoryBank(bank, representation="full").index_bytes())
        sections_of(index)[section][0] = value
        with pytest.raises(OnceoverError, match=rf"search index: .* 0 is {value}, expected .*; build the index again"):
            _core.MemoryBank.view(bank, index)


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_of_the_fuzzer_is_a_whole_package(tmp_path: Path, name: str) -> None:
    """One that were refused at the door would never lead inside."""
    package = open_package(write_seeds(tmp_path)[list(SEEDS).index(name)]).core
    read_everything(package)
    bank = package.array("memory_bank")
    if any(member["name"] == "bank_index" for member in package.members):
        index = _core.MemoryBank.view(bank, package.array("bank_index"))
        assert index.search(bank[:3])[1][:, 0].tolist() == [0, 1, 2]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 64 * 1024  # mutated a thousand times a second
