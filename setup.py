"""Builds onceover from its two roots (python/ and export/) and lets CMake compile the core (csrc/CMakeLists.txt)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Builds the CMake target `_core` and nothing else, in a folder that is kept, so that a rebuild is incremental."""

    def build_extension(self, ext: Extension) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            sys.exit("onceover: building the core needs CMake 3.18 or newer and a C++17 compiler; install them first "
                     "(Debian, Ubuntu: apt install cmake g++)")  # fmt: skip
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = ROOT / "build" / f"core-{sys.implementation.cache_tag}"
        settings = {
            "CMAKE_BUILD_TYPE": "Release",
            "ONCEOVER_BUILD_PYTHON": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        defines = [f"-D{name}={value}" for name, value in settings.items()]
        subprocess.run([cmake, "-S", ROOT / "csrc", "-B", build, *defines], check=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(min(4, os.cpu_count() or 1)))
        subprocess.run([cmake, "--build", build, "--target", "_core", "--parallel", jobs], check=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        fresh = output.with_suffix(".new")
        shutil.copy2(build / output.name, fresh)
        fresh.replace(output)  # a running program keeps the file it has mapped


setup(
    packages=[*find_packages("python"), "onceover.export"],
    package_dir={"": "python", "onceover.export": "export"},
    ext_modules=[Extension("onceover._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
