"""The installed tree: moved, used from C and C++ by pkg-config and CMake; what the library needs, and its ABI."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import abi_stubs
import numpy as np
import pytest
from c_library import BUILT, built
from numpy.typing import NDArray
from tiny_package import tiny_image, tiny_package

from onceover.monitoring.monitor import DriftMonitor
from onceover.runtime.inspector import Inspector
from onceover.runtime.session import engine_library

ROOT = Path(__file__).resolve().parents[1]
HEADERS = ROOT / "csrc" / "include"
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
FindTool = Callable[[str], str]


def run(*command: str | Path, environment: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed at one place and moved to another, outside of the source tree."""
    built("libonceover.so")
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "--install", BUILT, "--prefix", folder / "first")
    return Path(shutil.move(folder / "first", folder / "moved here"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("package") / "tiny.onceover")


@pytest.mark.parametrize("standard", ["c99", "c11", "c17"])
@pytest.mark.parametrize("header", sorted(HEADERS.glob("*.h")), ids=lambda path: path.name)
def test_every_header_is_plain_c(header: Path, standard: str, require_tool: FindTool, tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text(f'#include "{header.name}"\n#include "{header.name}"\nint main(void) {{ return 0; }}\n')
    run(require_tool("gcc"), f"-std={standard}", *STRICT, "-fsyntax-only", f"-I{HEADERS}", source)


@pytest.mark.parametrize("standard", ["c++11", "c++14", "c++17", "c++20"])
def test_every_header_is_cpp_from_eleven_on(standard: str, require_tool: FindTool, tmp_path: Path) -> None:
    names = [path.name for path in HEADERS.iterdir() if standard >= "c++17" or path.name != "onceover_metrics.hpp"]
    source = tmp_path / "use.cpp"
    source.write_text("".join(f'#include "{name}"\n' for name in sorted(names)) + "int main() { return 0; }\n")
    run(require_tool("g++"), f"-std={standard}", *STRICT, "-fsyntax-only", f"-I{HEADERS}", source)


def picture(folder: Path, image: NDArray[np.uint8] | None = None, name: str = "picture.ppm") -> Path:
    image = tiny_image(50) if image is None else image
    path = folder / name
    path.write_bytes(f"P6 {image.shape[1]} {image.shape[0]} 255\n".encode() + image.tobytes())
    return path


def expected_answer(package: Path) -> str:
    with Inspector.open(package) as inspector:
        v = inspector.inspect(tiny_image(50))
    row, column = v.worst_patch
    return f"{v.decision} score {v.score:.9g} threshold {v.threshold:.9g} p {v.p_value:.9g} patch {row},{column}\n"


def test_the_example_is_built_by_pkg_config_and_answers_as_python_does(
    prefix: Path, package: Path, require_tool: FindTool, tmp_path: Path
) -> None:
    environment = {"PKG_CONFIG_PATH": str(next(prefix.rglob("pkgconfig")))}
    source = Path(shutil.copy(ROOT / "examples" / "inspect.c", tmp_path))
    assert len(source.read_text().splitlines()) < 75
    script = (
        f"eval {require_tool('gcc')} -std=c99 {' '.join(STRICT)} inspect.c "
        f'"$({require_tool("pkg-config")} --cflags --libs onceover)" -o inspect'
    )
    run("sh", "-c", script, environment=environment, cwd=tmp_path)
    libraries = {"LD_LIBRARY_PATH": str(next(prefix.rglob("libonceover.so")).parent)}
    engine = engine_library("onnxruntime")
    answer = run(tmp_path / "inspect", package, engine, picture(tmp_path), environment=libraries)
    assert answer == expected_answer(package)


CONSUMER = """cmake_minimum_required(VERSION 3.18)
project(consumer LANGUAGES C)
find_package(onceover 0.1 REQUIRED)
foreach(kind shared static)
  add_executable(inspect_${kind} inspect.c)
  target_link_libraries(inspect_${kind} PRIVATE onceover::${kind})
endforeach()
"""


def test_a_cmake_project_in_c_alone_links_both_libraries(prefix: Path, package: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "inspect.c", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    for kind in ("shared", "static"):
        program = tmp_path / "build" / f"inspect_{kind}"
        answer = run(program, package, engine_library("onnxruntime"), picture(tmp_path))
        assert answer == expected_answer(package)


SUBPROJECT = f"""cmake_minimum_required(VERSION 3.18)
project(device LANGUAGES C CXX)
add_subdirectory("{ROOT / "csrc"}" onceover EXCLUDE_FROM_ALL)
foreach(kind shared static)
  add_executable(inspect_${{kind}} inspect.c)
  target_link_libraries(inspect_${{kind}} PRIVATE onceover::${{kind}})
endforeach()
"""


def test_a_project_that_adds_the_sources_has_the_names_of_an_installed_tree(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "inspect.c", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(SUBPROJECT)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")  # fails for targets that do not exist
    cache = (tmp_path / "build" / "CMakeCache.txt").read_text()
    assert "CMAKE_BUILD_TYPE:STRING=\n" in cache, "the build type is the project's own affair"


CXX_CONSUMER = """cmake_minimum_required(VERSION 3.18)
project(consumer LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 11)
set(CMAKE_CXX_EXTENSIONS OFF)
find_package(onceover 0.1 REQUIRED)
foreach(kind shared static)
  add_executable(line_${kind} line.cpp)
  target_compile_options(line_${kind} PRIVATE -Wall -Wextra -Werror -pedantic)
  target_link_libraries(line_${kind} PRIVATE onceover::${kind})
endforeach()
"""


def test_the_line_in_cpp_learns_what_is_good_and_its_monitor_goes_on(
    prefix: Path, package: Path, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "examples" / "line.cpp", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(CXX_CONSUMER)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    image = tiny_image(50)
    image[10:30, 10:30] = 255
    good, bad = picture(tmp_path, name="good.ppm"), picture(tmp_path, image, "bad.ppm")
    engine = engine_library("onnxruntime")
    for kind in ("shared", "static"):
        own = Path(shutil.copy(package, tmp_path / f"{kind}.onceover"))
        state = tmp_path / f"{kind}.state"

        def line(*pictures: str | Path, expected: int, own: Path = own, kind: str = kind, state: Path = state) -> str:
            program = tmp_path / "build" / f"line_{kind}"
            done = subprocess.run([program, own, engine, state, *pictures], capture_output=True, text=True, check=False)
            assert done.returncode == expected, done.stderr
            return done.stdout

        with Inspector.open(own) as inspector:
            verdicts = [inspector.inspect(tiny_image(50)), inspector.inspect(image)]
        assert [verdict.decision for verdict in verdicts] == ["normal", "anomalous"]
        told = line(good, bad, expected=1).splitlines()
        assert told[0] == f"{good}: not anomalous, score {verdicts[0].score:.9g}"
        assert told[1] == f"{bad}: anomalous, score {verdicts[1].score:.9g}"
        regions = [f"  at {r.peak[0]},{r.peak[1]}: {r.area} pixels, p {r.p_value:.3g}" for r in verdicts[1].regions]
        assert told[2:] == regions
        assert regions
        assert "parts like it pass" in line("--good", bad, expected=0)
        assert line(good, bad, expected=0).count(": not anomalous") == 2
        with Inspector.open(own, corrections="auto") as inspector:
            assert inspector.inspect(image).decision == "normal"
            assert inspector.corrections is not None
            assert [candidate.name for candidate in inspector.corrections.candidates] == [str(bad)]
        assert DriftMonitor.load(state).parts == 5
        state.write_bytes(b"torn")
        assert (
            "no intact monitor"
            in subprocess.run(
                [tmp_path / "build" / f"line_{kind}", own, engine, state, good],
                capture_output=True,
                text=True,
                check=False,
            ).stderr
        )


def test_the_installed_tool_finds_its_library(prefix: Path) -> None:
    version = (ROOT / "VERSION").read_text().strip()
    assert run(prefix / "bin" / "onceover-run", "--version") == f"onceover-run {version}\n"


def needed_by(library: Path, require_tool: FindTool) -> set[str]:
    listed = run(require_tool("readelf"), "-d", library)
    needed = {line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line}
    assert needed
    return needed


def test_the_library_needs_the_c_and_cpp_libraries_at_most(require_tool: FindTool) -> None:
    needed = needed_by(built("libonceover.so"), require_tool)
    assert {name for name in needed if not name.startswith("ld-linux")} <= {
        "libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1",
    }  # fmt: skip


@pytest.mark.slow
def test_a_library_with_the_cpp_library_inside_needs_libc_alone_and_can_be_closed(
    require_tool: FindTool, tmp_path: Path
) -> None:
    run("cmake", "-S", ROOT / "csrc", "-B", tmp_path, "-DONCEOVER_STATIC_LIBSTDCXX=ON")
    run("cmake", "--build", tmp_path, "--parallel", "2", "--target", "onceover")
    library = tmp_path / "libonceover.so"
    assert {name for name in needed_by(library, require_tool) if not name.startswith("ld-linux")} <= {
        "libc.so.6", "libm.so.6",
    }  # fmt: skip
    run("sh", ROOT / "tests" / "c_api_exports.sh", require_tool("nm"), library, *sorted(HEADERS.glob("*.h")))
    run(built("test_c_api_closing"), library, built("host.onceover"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stored ABI is that of x86-64")
def test_the_abi_is_the_stored_one_and_a_moved_member_would_be_noticed(require_tool: FindTool, tmp_path: Path) -> None:
    require_tool("gcc")

    def compare(headers: dict[str, str]) -> subprocess.CompletedProcess[str]:
        stubs = abi_stubs.build(headers, tmp_path)
        return subprocess.run(
            [require_tool("abidiff"), abi_stubs.STORED, stubs], capture_output=True, text=True, check=False
        )

    headers = abi_stubs.public_headers()
    done = compare(headers)
    assert done.returncode == 0, (
        f"{done.stdout}\nIf that is meant: members at the end of structs and new functions are welcome, anything else "
        "raises ONCEOVER_ABI_VERSION; then store the new one with: python tests/abi_stubs.py"
    )
    member = "  uint32_t verdict;"
    moved = headers["onceover.h"].replace(member, "  uint64_t planted;\n" + member, 1)
    assert moved != headers["onceover.h"]
    assert "planted" in compare({**headers, "onceover.h": moved}).stdout
