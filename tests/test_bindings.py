"""What the compiled module promises at its border: threads, errors, paths, arrays, symbols; rooms have own tests."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import pytest
from tiny_package import tiny_package

from onceover import _core
from onceover.errors import InputError, MemoryLimitError, UsageError
from onceover.runtime.session import EngineOptions

PATIENCE_S = 20.0  # after which a promise counts as broken; a promise kept takes milliseconds


def is_refused_while(work: Callable[[], Any], poke: Callable[[], Any]) -> bool:
    """Whether `poke` gets "in use by another thread" while a second thread repeats `work`."""
    done = Event()

    def repeat() -> None:
        while not done.is_set():
            try:
                work()
            except UsageError:  # it was the poke's turn
                continue

    thread = Thread(target=repeat)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            try:
                poke()
            except UsageError as error:
                if "in use by another thread" in str(error):
                    return True
        return False
    finally:
        done.set()
        thread.join()


def large_writer() -> _core.PackageWriter:
    writer = _core.PackageWriter()
    writer.add("memory_bank", np.zeros((1 << 16, 64), np.float32))
    return writer


@pytest.mark.parametrize("method", ["select", "selected", "covering_radius"])
def test_a_coreset_refuses_a_second_thread(method: str) -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 32)).astype(np.float32)
    coreset = _core.GreedyCoreset(points, 0)
    pokes = {
        "select": lambda: coreset.select(0),
        "selected": lambda: coreset.selected,
        "covering_radius": lambda: coreset.covering_radius,
    }
    assert is_refused_while(lambda: coreset.select(500), pokes[method])
    rows = coreset.selected
    assert len(set(rows.tolist())) == len(rows), "the refusal left the selection whole"


@pytest.mark.parametrize("method", ["add bytes", "add array", "bytes", "save"])
def test_a_package_writer_refuses_a_second_thread(method: str, tmp_path: Path) -> None:
    writer = large_writer()
    pokes = {
        "add bytes": lambda: writer.add("memory_bank", b"twice"),
        "add array": lambda: writer.add("memory_bank", np.zeros(1, np.float32)),
        "bytes": writer.bytes,
        "save": lambda: writer.save(str(tmp_path / "plate.onceover")),
    }
    assert is_refused_while(writer.bytes, pokes[method])
    assert writer.bytes() == large_writer().bytes(), "the refusal left the members whole"


@pytest.mark.parametrize("call", ["GreedyCoreset", "draw_anomaly_map", "resize_map"])
def test_the_finite_check_lets_other_threads_run(call: str) -> None:
    values = np.zeros((1 << 20, 8), np.float32)
    values[-1, -1] = np.nan
    calls: dict[str, Callable[[], Any]] = {
        "GreedyCoreset": lambda: _core.GreedyCoreset(values, 0),
        "draw_anomaly_map": lambda: _core.draw_anomaly_map(values, 1, 1, 0.0),
        "resize_map": lambda: _core.resize_map(values, 1, 1),
    }
    gate, ran = Lock(), Event()

    def wait_and_run() -> None:
        with gate:
            ran.set()

    gate.acquire()
    thread = Thread(target=wait_and_run)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here on, another thread runs only when this one gives the GIL away
    try:
        gate.release()
        for _ in range(50):
            with pytest.raises(InputError, match="row 1048575"):
                calls[call]()
            if ran.is_set():
                break
        has_run = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert has_run


def test_the_instruction_set_is_chosen_before_a_session_gives_the_gil_away() -> None:
    # os.environ may be written by any thread that holds the GIL, so ONCEOVER_ISA is read under it: before the package.
    program = (
        "from onceover import _core\n"
        "writer = _core.PackageWriter()\n"
        "writer.add('manifest.json', b'{}', required=False)\n"
        "_core.Session(_core.Package.view(writer.bytes()), _core.EngineOptions('onnxruntime', ''))\n"
    )
    environment = {**os.environ, "ONCEOVER_ISA": "mmx"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "UnknownNameError: instruction set (from ONCEOVER_ISA) 'mmx' does not exist" in result.stderr


@pytest.mark.parametrize("name", ["/nowhere/\udcff.onceover", b"/nowhere/\xff.onceover"])
def test_a_message_with_bytes_that_are_no_text_stays_a_typed_error(name: str | bytes) -> None:
    with pytest.raises(InputError, match="/nowhere/\ufffd\\.onceover"):
        _core.Package.open(name)


class Folder(os.PathLike[bytes]):
    def __init__(self, path: bytes) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return self.path


@pytest.mark.parametrize("kind", ["str", "bytes", "Path", "PathLike of bytes"])
def test_every_kind_of_path_names_the_same_file(kind: str, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.onceover"  # Latin-1: no UTF-8
    text = os.fsdecode(raw)
    path: Any = {"str": text, "bytes": raw, "Path": Path(text), "PathLike of bytes": Folder(raw)}[kind]
    writer = large_writer()
    writer.save(path)
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.onceover"]
    package = _core.Package.open(path)
    assert package.label == text
    assert package.read("memory_bank") == bytes(1 << 24)
    _core.save_atomically(path, b"graph")
    assert Path(text).read_bytes() == b"graph"


@pytest.mark.parametrize("call", ["open", "save", "save_atomically", "Session", "Embedder"])
@pytest.mark.parametrize("name", ["good\0.onceover", b"good\0.onceover", Path("good\0.onceover"), "good\ud800"])
def test_what_cannot_name_a_file_is_refused(call: str, name: Any, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/" + name if isinstance(name, bytes) else f"{tmp_path}/{name}"
    package = _core.Package.view(large_writer().bytes())
    config = _core.Config(
        height=32, width=48, mean=(0, 0, 0), std=(1, 1, 1), grid_height=4, grid_width=6, embedding_dim=4, blur_sigma=0
    )
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: _core.Package.open(path),
        "save": lambda: large_writer().save(path),
        "save_atomically": lambda: _core.save_atomically(path, b"graph"),
        "Session": lambda: _core.Session(package, _core.EngineOptions("onnxruntime", path)),
        "Embedder": lambda: _core.Embedder(config, b"graph", _core.EngineOptions("onnxruntime", path)),
    }
    with pytest.raises(UsageError, match="cannot name a file"):
        calls[call]()
    assert not list(tmp_path.iterdir())


def test_what_is_no_path_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not int"):
        _core.Package.open(7)  # type: ignore[arg-type]


def test_an_array_that_does_not_fit_into_memory_is_a_typed_error() -> None:
    endless = np.broadcast_to(np.float32(0), (1 << 30, 1 << 30))  # one float; contiguous, it would take 4 EiB
    with pytest.raises(MemoryLimitError, match=r"memory_bank.*4611686018427387904 bytes"):
        _core.PackageWriter().add("memory_bank", endless)


def misaligned(rows: int, columns: int) -> Any:
    return np.frombuffer(bytearray(4 * rows * columns + 1), np.float32, offset=1).reshape(rows, columns)


def test_misaligned_floats_are_refused_and_their_copy_is_taken() -> None:
    points = misaligned(4, 6)
    assert not points.flags.aligned
    calls: list[Callable[[Any], Any]] = [
        lambda array: _core.MemoryBank(points.copy()).search(array),
        lambda array: _core.MemoryBank(array),
        lambda array: _core.GreedyCoreset(array, 0),
        lambda array: _core.draw_anomaly_map(array, 8, 8, 1.0),
        lambda array: _core.resize_map(array, 8, 8),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"not aligned.*pass \w+\.copy\(\)"):
            call(points)
        call(points.copy())


def test_misaligned_16_bit_pixels_are_read_as_they_are() -> None:
    pixels = np.random.default_rng(3).integers(0, 1 << 16, (9, 11, 3), np.uint16)
    buffer = bytearray(b"\0" + pixels.tobytes())
    shifted = np.frombuffer(buffer, np.uint16, offset=1).reshape(pixels.shape)
    assert not shifted.flags.aligned
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(
        _core.prepare(shifted, 9, 11, mean, std), _core.prepare(pixels, 9, 11, mean, std), strict=True
    )


def test_a_session_holds_the_bytes_of_its_package_and_not_its_python_object(tmp_path: Path) -> None:
    data = tiny_package(tmp_path / "tiny.onceover").read_bytes()
    package = _core.Package.view(data)
    session = _core.Session(package, EngineOptions().resolve())
    references, object_of_package = sys.getrefcount(data), weakref.ref(package)
    del package
    gc.collect()
    assert object_of_package() is None
    assert sys.getrefcount(data) == references
    assert session.self_test()["images"] == 3
    del session
    assert sys.getrefcount(data) == references - 1


def test_the_extension_exports_its_entry_and_nothing_else() -> None:
    nm = shutil.which("nm")
    if nm is None or not sys.platform.startswith("linux"):
        pytest.skip("needs nm (binutils) and ELF")
    lines = subprocess.run([nm, "-D", "--defined-only", _core.__file__], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in lines.stdout.splitlines()] == ["PyInit__core"]
