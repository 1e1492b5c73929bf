"""Damaged packages, targets that cannot be written, and a fit that is killed while it writes."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Capture, answer, cli, refusal
from tiny_data import fitted_package, tiny_options
from tiny_package import tiny_graph, tiny_image

from onceover import export
from onceover.cli import main
from onceover.errors import OutputError
from onceover.images import write_image
from onceover.runtime.inspector import Inspector
from onceover.training.fit import fit

NOBODY = 65534


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.onceover, tiny.onnx and train/good; not to be changed."""
    folder = tmp_path_factory.mktemp("disk")
    fitted_package(folder)
    (folder / "tiny.onnx").write_bytes(tiny_graph())
    return folder


@pytest.fixture
def work(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a package of its own, links to the rest, one image."""
    shutil.copy(fitted / "tiny.onceover", tmp_path)
    for name in ("tiny.onnx", "train"):
        (tmp_path / name).symlink_to(fitted / name)
    write_image(tmp_path / "good.png", tiny_image(900))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit_words(target: str | Path, graph: str = "tiny.onnx") -> list[str]:
    return ["fit", "train/good", "-o", str(target), "--backbone", graph, "--seed", "5"]


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_package_cut_anywhere_is_refused_and_says_what_is_missing(work: Path, capsys: Capture, command: str) -> None:
    whole = (work / "tiny.onceover").read_bytes()
    lengths = [0, 1, 63, 64, 65, len(whole) - 1, *random.Random(1).sample(range(66, len(whole) - 1), 24)]
    for length in lengths:
        Path("cut.onceover").write_bytes(whole[:length])
        status, message = refusal(capsys, command, "cut.onceover", *(["good.png"] if command == "inspect" else []))
        assert status == 3
        assert message.startswith("cut.onceover: ")
        assert any(word in message for word in ("bytes", "empty", "member", "header")), (length, message)


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_package_with_a_flipped_bit_is_refused_and_says_where(work: Path, capsys: Capture, command: str) -> None:
    whole = (work / "tiny.onceover").read_bytes()
    choose = random.Random(2)
    for position in [0, 4, 8, len(whole) - 1, *(choose.randrange(len(whole)) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << choose.randrange(8)
        Path("flip.onceover").write_bytes(damaged)
        words = [command, "flip.onceover", *(["good.png"] if command == "inspect" else [])]
        status, printed = answer(capsys, *words)
        assert (status, printed["error"]) in {(3, "PackageError"), (3, "UnsupportedPackageError")}, position
        assert printed["message"].startswith("flip.onceover: ")
        assert len(printed["message"]) > len("flip.onceover: ") + 20


def test_damage_inside_a_member_names_the_member(work: Path, capsys: Capture) -> None:
    from onceover.runtime.package import open_package

    whole = (work / "tiny.onceover").read_bytes()
    for member in open_package(work / "tiny.onceover").members:
        content = Inspector.open(work / "tiny.onceover").package.core.read(member.name)
        at = whole.index(content)
        Path("flip.onceover").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        status, message = refusal(capsys, "verify", "flip.onceover")
        assert status == 3
        assert f"'{member.name}'" in message


@pytest.mark.parametrize(
    "content", [b"", b"not a package at all, but a long enough text" * 9, b"\x89PNG\r\n\x1a\n" * 20]
)
def test_another_file_is_not_taken_for_a_package(work: Path, capsys: Capture, content: bytes) -> None:
    Path("other.onceover").write_bytes(content)
    for words in (["verify", "other.onceover"], ["inspect", "other.onceover", "good.png"]):
        status, message = refusal(capsys, *words)
        assert status == 3
        assert message.startswith("other.onceover: ")


@contextlib.contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder with one old package, in which this process may not write: as the superuser, it is nobody's guest."""
    folder = Path(tempfile.mkdtemp())
    superuser = os.geteuid() == 0
    try:
        (folder / "part.onceover").write_bytes(b"an old package")
        folder.chmod(0o555)
        if superuser:
            os.seteuid(NOBODY)
        yield folder
    finally:
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_fit_refuses_a_read_only_folder_before_it_reads_an_image(capsys: Capture) -> None:
    main(["fit", "/no/such/images", "-o", "x.onceover"])  # so that nobody need import anything
    with read_only_folder() as folder:
        status, message = refusal(capsys, "fit", "/no/such/images", "-o", str(folder / "part.onceover"))
        assert status == 3
        assert f"the folder {folder} is read-only" in message
        assert [path.name for path in folder.iterdir()] == ["part.onceover"]
        assert (folder / "part.onceover").read_bytes() == b"an old package"


def test_a_package_for_a_read_only_folder_leaves_the_old_one(fitted: Path) -> None:
    parts = fit(fitted / "train/good", tiny_options())
    with read_only_folder() as folder:
        with pytest.raises(OutputError, match=r"part\.onceover: .*Permission denied"):
            export.package(parts, folder / "part.onceover")
        assert [path.name for path in folder.iterdir()] == ["part.onceover"]
        assert (folder / "part.onceover").read_bytes() == b"an old package"


LIMIT = 16_000  # bytes a file may have: less than the package or a picture


def small_files_only() -> None:
    """In the child: the disk is "full" after LIMIT bytes of a file. Python ignores SIGXFSZ, so write() says EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (fit_words("new.onceover"), "new.onceover"),
        (fit_words("tiny.onceover"), "tiny.onceover"),
        (["inspect", "tiny.onceover", "good.png", "--save", "out"], "good.png"),
    ],
    ids=["a new package", "an old package", "pictures"],
)
def test_a_full_disk_is_told_and_leaves_everything_as_it_was(work: Path, words: list[str], target: str) -> None:
    assert (work / "tiny.onceover").stat().st_size > LIMIT
    Path("out").mkdir()
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    process = cli(*words, preexec_fn=small_files_only, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error
    assert target in error.decode()
    assert b"File too large" in error
    assert b"Traceback" not in error
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


PADDING = 8 << 20  # bytes of ballast in the graph: the write takes long enough to be hit


def heavy_graph() -> bytes:
    """The tiny graph with a member nobody reads."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    ballast = model.metadata_props.add()
    ballast.key, ballast.value = "ballast", "x" * PADDING
    data: bytes = model.SerializeToString()
    return data


def written(folder: Path) -> int:
    """Bytes of the temporary file that is being written there; −1 when there is none."""
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.name != "part.onceover":
                return entry.stat().st_size
    return -1


def kill_while_writing(folder: Path, graph: str, at_bytes: int) -> bool:
    """Start a fit into `folder` and kill it once its temporary file has `at_bytes`; whether it came to that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "onceover.cli", *fit_words(folder / "part.onceover", graph)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if written(folder) >= at_bytes:
            break
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_fit_killed_while_it_writes_leaves_the_old_package_or_the_new_one(work: Path, capsys: Capture) -> None:
    Path("heavy.onnx").write_bytes(heavy_graph())
    folder = work / "packages"
    folder.mkdir()
    target = folder / "part.onceover"
    shutil.copy(work / "tiny.onceover", target)
    old_id = Inspector.open(target).package.id
    hits = 0
    for share in (0.0, 0.5, 1.0):
        hits += kill_while_writing(folder, "heavy.onnx", int(share * PADDING))
        package = Inspector.open(target)  # whole, and it proves itself
        assert package.verify()["images"] == 6
        if package.package.id != old_id:
            shutil.copy(work / "tiny.onceover", target)
    assert hits > 0
    status, _ = answer(capsys, *fit_words(target))
    assert status == 0
    assert [path.name for path in folder.iterdir()] == ["part.onceover"]  # what the killed ones left is gone
    assert Inspector.open(target).package.id != old_id
