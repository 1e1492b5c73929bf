"""Bad input through fit, inspect and evaluate: images, folders, graphs, weights. Damage and targets: test_bad_disk.py.

Refused means: status 2 or 3, an error of onceover's own that names the file, no traceback, and no new file anywhere.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import Capture, answer, refusal
from numpy.typing import NDArray
from tiny_data import fitted_package, good_folder, labelled_folder
from tiny_package import tiny_graph, tiny_image

from onceover.cli import main
from onceover.images import MAX_PIXELS, write_image

COMMANDS = ("fit", "inspect", "evaluate")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.onceover and tiny.onnx; not to be changed."""
    folder = tmp_path_factory.mktemp("bad")
    fitted_package(folder)
    (folder / "tiny.onnx").write_bytes(tiny_graph())
    return folder


@pytest.fixture
def work(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the package, the graph, good/ with six images, plate/ with two good and two bad ones."""
    for path in (fitted / "tiny.onceover", fitted / "tiny.onnx"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    good_folder(tmp_path / "good", 6)
    labelled_folder(tmp_path / "plate", 2, 2)
    return tmp_path


def place(command: str) -> Path:
    """Where an image goes that `command` shall read."""
    return {"fit": Path("good"), "inspect": Path("seen"), "evaluate": Path("plate/test/good")}[command]


def words(command: str, folder: str | Path | None = None) -> list[str]:
    """The command line that reads that place."""
    if command == "fit":
        options = ["-o", "new.onceover", "--backbone", "tiny.onnx", "--holdout", "0"]
        return ["fit", str(folder or "good"), *options]
    return [command, "tiny.onceover", str(folder or ("seen" if command == "inspect" else "plate"))]


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def png(image: NDArray[Any]) -> bytes:
    data: bytes = cv2.imencode(".png", image)[1].tobytes()
    return data


def jpeg(image: NDArray[Any]) -> bytes:
    data: bytes = cv2.imencode(".jpg", image)[1].tobytes()
    return data


def huge_png() -> bytes:
    """A PNG of some hundred bytes that promises 100,000 × 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(99))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def flipped(data: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def float_tiff() -> bytes:
    data: bytes = cv2.imencode(".tiff", np.full((40, 56), 0.5, np.float32))[1].tobytes()
    return data


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a text file": ("text.png", lambda: b"not a picture, but a note\n", "not a picture"),
    "an empty file": ("empty.png", lambda: b"", "the file is empty"),
    "half a JPEG": ("half.jpg", lambda: (data := jpeg(tiny_image(1)))[: len(data) // 2], "is cut"),
    "a JPEG without its end": ("end.jpg", lambda: jpeg(tiny_image(1))[:-2], "is cut"),
    "half a PNG": ("half.png", lambda: (data := png(tiny_image(1)))[: len(data) // 2], "is cut"),
    "a PNG with a flipped bit": ("flip.png", lambda: flipped(png(tiny_image(1))), "checksum"),
    "one pixel": ("pixel.png", lambda: png(np.full((1, 1, 3), 9, np.uint8)), "1×1"),
    "one row": ("row.png", lambda: png(np.full((1, 500, 3), 9, np.uint8)), "smallest side"),
    "ten gigapixels": ("huge.png", huge_png, "100000×100000"),
    "floating point": ("float.tiff", float_tiff, "float32"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", REFUSED)
def test_an_image_that_cannot_be_used_is_refused_by_name(work: Path, capsys: Capture, command: str, what: str) -> None:
    name, content, says = REFUSED[what]
    place(command).mkdir(exist_ok=True)
    (place(command) / name).write_bytes(content())
    before = everything(work)
    status, message = refusal(capsys, *words(command))
    assert status == 3
    assert f"{place(command) / name}: " in message
    assert says in message
    assert everything(work) == before


def with_alpha(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([image, tiny_image(77, *image.shape[:2], 0)])


ACCEPTED: dict[str, Callable[[], NDArray[Any]]] = {
    "gray": lambda: tiny_image(1, channels=0),
    "16 bit gray": lambda: tiny_image(1, channels=0).astype(np.uint16) * 257,
    "16 bit color": lambda: tiny_image(1).astype(np.uint16) * 257,
    "with alpha": lambda: with_alpha(tiny_image(1)),
    "the smallest allowed": lambda: tiny_image(1, 8, 8),
    "one extreme strip": lambda: tiny_image(1, 8, 2000),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", ACCEPTED)
def test_an_unusual_image_among_others_of_other_sizes_is_read(
    work: Path, capsys: Capture, command: str, what: str
) -> None:
    place(command).mkdir(exist_ok=True)
    (place(command) / "unusual.png").write_bytes(png(ACCEPTED[what]()))
    (place(command) / "larger.jpg").write_bytes(jpeg(tiny_image(2, 130, 90)))
    status, printed = answer(capsys, *words(command))
    assert status in ({0, 1} if command == "inspect" else {0})
    assert "error" not in printed
    if command == "fit":
        assert main(["verify", "new.onceover"]) == 0


@pytest.mark.parametrize(
    ("plain", "other"),
    [
        (tiny_image(1, channels=0), np.repeat(tiny_image(1, channels=0)[..., None], 3, axis=2)),
        (tiny_image(1), with_alpha(tiny_image(1))),
        (tiny_image(1, channels=0), tiny_image(1, channels=0).astype(np.uint16) * 257),
        (tiny_image(1), tiny_image(1).astype(np.uint16) * 257),
    ],
    ids=["gray as color", "alpha", "16 bit gray", "16 bit color"],
)
def test_the_same_picture_in_another_layout_has_the_same_score(
    work: Path, capsys: Capture, plain: NDArray[Any], other: NDArray[Any]
) -> None:
    Path("plain.png").write_bytes(png(plain))
    Path("other.png").write_bytes(png(other))
    _, printed = answer(capsys, "inspect", "tiny.onceover", "plain.png", "other.png")
    scores = [row["score"] for row in printed["results"]]
    # 16 bits are resized without rounding to whole gray levels in between: half a level of noise through the network.
    assert scores[0] == pytest.approx(scores[1], rel=0.02 if other.dtype == np.uint16 else 0)


@pytest.mark.parametrize(
    ("command", "kind", "says"),
    [
        *((command, "missing", "no such f") for command in COMMANDS),
        *((command, kind, "no images") for command in COMMANDS for kind in ("empty", "notes")),
        *((command, "file", "folder") for command in ("fit", "evaluate")),  # inspect takes files too
    ],
)
def test_a_folder_without_images_is_refused_by_name(
    work: Path, capsys: Capture, command: str, kind: str, says: str
) -> None:
    folder = Path(f"{kind}.folder")
    if kind == "file":
        folder.write_text("a file")
    elif kind != "missing":
        folder.mkdir()
    if kind == "notes":
        (folder / "notes.txt").write_text("no picture")
    before = everything(work)
    status, message = refusal(capsys, *words(command, folder))
    assert status == 3
    assert str(folder) in message
    assert says in message
    assert everything(work) == before


def edited_graph(edit: Callable[[Any], None]) -> bytes:
    """The tiny graph after `edit` of its ONNX model."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny_graph())
    edit(model)
    data: bytes = model.SerializeToString()
    return data


def spoil_weights(model: Any) -> None:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))


def forget_metadata(model: Any) -> None:
    del model.metadata_props[:]


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (lambda: edited_graph(spoil_weights), "finite"),
        (lambda: edited_graph(forget_metadata), "has no metadata 'onceover.backbone'"),
        (lambda: tiny_graph()[:-100], "not an ONNX graph"),
        (lambda: b"not a graph", "not an ONNX graph"),
        (lambda: b"", "not an ONNX graph"),
    ],
    ids=["NaN weights", "no metadata", "cut", "text", "empty"],
)
def test_a_graph_that_cannot_be_trusted_is_refused(
    work: Path, capsys: Capture, graph: Callable[[], bytes], says: str
) -> None:
    Path("other.onnx").write_bytes(graph())
    before = everything(work)
    status, message = refusal(capsys, "fit", "good", "-o", "new.onceover", "--backbone", "other.onnx")
    assert status == 3
    assert says in message
    assert everything(work) == before


def test_a_missing_graph_is_refused_by_name(work: Path, capsys: Capture) -> None:
    status, message = refusal(capsys, "fit", "good", "-o", "new.onceover", "--backbone", "absent.onnx")
    assert status == 3
    assert "absent.onnx: cannot read the graph (No such file or directory)" in message


@pytest.mark.parametrize("kind", ["NaN", "missing", "cut", "text", "of another backbone"])
@pytest.mark.parametrize("command", ["fit", "export"])
def test_weights_that_cannot_be_used_are_refused_by_name(work: Path, capsys: Capture, command: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    from onceover.backbones import create_backbone

    weights, path = create_backbone("mobilenetv2_050", None, random_init_seed=0).state_dict(), Path("w.safetensors")
    if kind == "NaN":
        next(tensor for tensor in weights.values() if tensor.ndim == 4)[0, 0, 0, 0] = torch.nan
    content = safetensors_torch.save(dict(weights))
    if kind != "missing":
        path.write_bytes(content[: len(content) // 2] if kind == "cut" else b"text" if kind == "text" else content)
    name = "mobilenetv2" if kind == "of another backbone" else "mobilenetv2_050"
    before = everything(work)
    if command == "fit":
        call = ["fit", "good", "-o", "new.onceover", "--backbone", name, "--weights", str(path)]
    else:
        call = ["export", "backbone", name, "--weights", str(path), "-o", "new.onnx"]
    status, message = refusal(capsys, *call)
    assert status == 3
    assert message.startswith("w.safetensors: ")
    assert everything(work) == before


@pytest.fixture(scope="module")
def hundred_megapixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 × 10,000 gray, smooth: two files of some megabytes."""
    folder = tmp_path_factory.mktemp("hundred")
    wave = (60 + 50 * np.sin(np.linspace(0, 40, 10_000))).astype(np.uint8)
    image = np.add.outer(wave, wave)  # uint8 all the way: this is the test's own 100 MB
    cv2.imwrite(str(folder / "big.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_image(folder / "big.jpg", image)
    return folder


# VmHWM is the peak of this program; ru_maxrss would begin with that of the test process it was forked from.
MEASURED_RUN = """
import re, sys
from onceover.cli import main
def peak():
    return 1024 * int(re.search("VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
main(["inspect", "tiny.onceover", "good/00.png"])  # everything is imported and loaded
before = peak()
status = main(sys.argv[1:])
print(status, peak() - before)
"""

# Of the gray image itself 1 byte, its map 4, the map's regions 1 + 1 + 4, and the decoder's own buffers.
INSPECT_BYTES_PER_PIXEL = 15
FIT_BYTES_PER_PIXEL = 4  # no map at image size


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to measure memory")


@needs_proc
@pytest.mark.parametrize("name", ["big.png", "big.jpg"])
@pytest.mark.parametrize(("command", "limit"), [("inspect", INSPECT_BYTES_PER_PIXEL), ("fit", FIT_BYTES_PER_PIXEL)])
def test_a_hundred_megapixels_are_read_in_bounded_memory(
    work: Path, hundred_megapixels: Path, command: str, limit: int, name: str
) -> None:
    place(command).mkdir(exist_ok=True)
    (place(command) / name).symlink_to(hundred_megapixels / name)
    run = [sys.executable, "-c", MEASURED_RUN, *words(command)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    status, growth = map(int, done.stdout.splitlines()[-1].split())
    assert status in {0, 1}, done.stderr
    print(f"{command} {name}: {growth / 1e6:.0f} MB more at the peak")
    assert 10**8 < growth < limit * 10**8  # the decoded image at least, or nothing was measured
    assert MAX_PIXELS < 2 * 10**8  # so nothing larger gets this far


LIMITED_RUN = """
import resource, sys
from onceover.cli import main
main(["inspect", "tiny.onceover", "good/00.png"])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@needs_proc
def test_an_image_too_large_for_the_memory_there_is_is_refused(work: Path, hundred_megapixels: Path) -> None:
    shutil.copy(hundred_megapixels / "big.png", "big.png")
    run = [sys.executable, "-c", LIMITED_RUN, "inspect", "tiny.onceover", "big.png"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert "memory" in done.stderr
    assert "Traceback" not in done.stderr
