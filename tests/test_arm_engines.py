"""The ARM64 builds of ONNX Runtime and OpenVINO under our ARM64 library, on an emulated Cortex-A76.

Slow. Needs what `make test-arm` built, and the wheels, which are downloaded. The network is tiny: emulated, a real one
takes minutes.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_package import tiny_image, tiny_package
from tolerances import PARITY_SCORE

from onceover.runtime.inspector import Inspector

BUILT = Path(__file__).resolve().parents[1] / "build" / "arm64"
LIBC = Path("/usr/aarch64-linux-gnu/lib")
# ONNX Runtime reads these files when it is loaded, and crashes on those of an x86 host.
CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0

"""
MIDR = "sys/devices/system/cpu/cpu0/regs/identification/midr_el1"


@pytest.fixture(scope="module")
def sysroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sysroot")
    (root / "lib").symlink_to(LIBC)
    for name, text in (("proc/cpuinfo", CPUINFO), (MIDR, "0x00000000411fd0b0\n")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("package") / "tiny.onceover")


def fetched_library(engine: str, platform: str, pattern: str, folder: Path) -> Path:
    """From the ARM64 wheel of the installed version; skips, and says so, where it cannot be had."""
    requirement = f"{engine}=={importlib.metadata.version(engine)}"
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--platform", platform, "--only-binary=:all:",
         "--dest", folder, requirement],
        capture_output=True, text=True,
    )  # fmt: skip
    if fetched.returncode != 0:
        pytest.skip(f"{requirement} for {platform} cannot be downloaded: {fetched.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (library,) = folder.glob(pattern)
    return library


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "platform", "pattern"),
    [
        ("onnxruntime", "manylinux_2_28_aarch64", "onnxruntime/capi/libonnxruntime.so.*"),
        ("openvino", "manylinux_2_35_aarch64", "openvino/libs/libopenvino_c.so.*"),
    ],
)
def test_an_emulated_cortex_a76_reproduces_the_package(
    engine: str, platform: str, pattern: str, package: Path, sysroot: Path, tmp_path: Path,
    require_tool: Callable[[str], str],
) -> None:  # fmt: skip
    qemu = require_tool("qemu-aarch64-static")
    program = BUILT / "onceover-run"
    if not program.exists():
        pytest.skip(f"missing tool: {program}; build it with: make test-arm")
    library = fetched_library(engine, platform, pattern, tmp_path / "wheel")
    images = [tiny_image(50), tiny_image(51, 37, 91)]
    paths = [tmp_path / f"{i}.ppm" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(f"P6 {image.shape[1]} {image.shape[0]} 255\n".encode() + image.tobytes())
    done = subprocess.run(
        [qemu, "-cpu", "cortex-a76", "-L", sysroot, program, package, "--engine", engine, "--library", library,
         "--self-test", *paths],
        capture_output=True, text=True, timeout=500,
        env={**os.environ, "LD_LIBRARY_PATH": f"{BUILT}:{library.parent}"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["self_test_images"], told["isa"]) == (3, "neon_dotprod")
    assert told["engine"].startswith(f"{engine} {importlib.metadata.version(engine)}")
    with Inspector.open(package, engine) as inspector:
        for image, row in zip(images, told["images"], strict=True):
            verdict = inspector.inspect(image)
            assert abs(row["score"] - verdict.score) <= PARITY_SCORE * verdict.score
            assert (row["verdict"], row["nearest_row"]) == (verdict.decision, verdict.nearest)
            print(f"{told['engine']}, emulated: score {row['score']:.9g}, here {verdict.score:.9g}")
