"""The C library as Python tests see it: where `make test-cpp` built it, and its structs and calls for ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onceover.runtime.session import engine_library

BUILT = Path(__file__).resolve().parents[1] / "build" / "tests"
FORMATS = {1: 1, 3: 2, 4: 4}  # channels → GRAY8, RGB8, RGBA8


def built(name: str) -> Path:
    """A file that `make test-cpp` builds; without it the test is skipped, or fails where CI=true (conftest.py)."""
    path = BUILT / name
    if not path.exists():
        pytest.skip(f"missing tool: {path}; build it with: make test-cpp")
    return path


class Options(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("engine", ctypes.c_char_p),
        ("engine_library", ctypes.c_char_p), ("device", ctypes.c_char_p), ("cache_dir", ctypes.c_char_p),
        ("engine_options", ctypes.c_void_p), ("host_run", ctypes.c_void_p), ("host_context", ctypes.c_void_p),
        ("arena", ctypes.c_void_p), ("arena_bytes", ctypes.c_size_t), ("allocate", ctypes.c_void_p),
        ("release", ctypes.c_void_p), ("allocator_context", ctypes.c_void_p),
        ("memory_limit_bytes", ctypes.c_size_t), ("max_map_width", ctypes.c_uint32),
        ("touch_pages", ctypes.c_uint32), ("cpu_mask", ctypes.c_uint64),
    )  # fmt: skip


class Image(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32), ("format", ctypes.c_uint32), ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32), ("data", ctypes.c_void_p), ("stride_bytes", ctypes.c_ssize_t),
        ("chroma", ctypes.c_void_p), ("chroma_stride_bytes", ctypes.c_ssize_t), ("yuv_matrix", ctypes.c_uint32),
        ("roi_top", ctypes.c_uint32), ("roi_left", ctypes.c_uint32), ("roi_height", ctypes.c_uint32),
        ("roi_width", ctypes.c_uint32),
    )  # fmt: skip


class Result(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32), ("verdict", ctypes.c_uint32), ("score", ctypes.c_float),
        ("threshold", ctypes.c_float), ("p_value", ctypes.c_double), ("map_maximum", ctypes.c_float),
        ("patch_row", ctypes.c_uint32), ("patch_column", ctypes.c_uint32), ("nearest_row", ctypes.c_uint32),
        ("prepare_ns", ctypes.c_uint64), ("engine_ns", ctypes.c_uint64), ("score_ns", ctypes.c_uint64),
        ("map_ns", ctypes.c_uint64),
    )  # fmt: skip


class Region(ctypes.Structure):
    _fields_ = (
        ("box", ctypes.c_uint32 * 4), ("area", ctypes.c_uint32), ("peak", ctypes.c_uint32 * 2),
        ("peak_value", ctypes.c_float), ("centroid", ctypes.c_float * 2), ("first_column", ctypes.c_uint32),
    )  # fmt: skip


class CSession:
    """One session of libonceover.so."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def run(self, pixels: NDArray[np.uint8]) -> Result:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        image = Image(ctypes.sizeof(Image), FORMATS[channels], *pixels.shape[:2], pixels.ctypes.data, pixels.strides[0])
        result = Result(ctypes.sizeof(Result))
        self.check(self.library.onceover_session_run(self.handle, ctypes.byref(image), ctypes.byref(result)))
        return result

    def draw_map(self, height: int, width: int) -> NDArray[np.float32]:
        drawn = np.empty((height, width), np.float32)
        self.check(
            self.library.onceover_session_draw_map(
                self.handle, ctypes.c_void_p(drawn.ctypes.data), *map(ctypes.c_size_t, (height, width, width))
            )
        )
        return drawn

    def regions(self, drawn: NDArray[np.float32]) -> list[Region]:
        found, count = (Region * 64)(), ctypes.c_size_t()
        height, width = map(ctypes.c_size_t, drawn.shape)
        data = ctypes.c_void_p(drawn.ctypes.data)
        self.check(
            self.library.onceover_session_find_regions(
                self.handle, data, height, width, width, found, ctypes.c_size_t(64), ctypes.byref(count)
            )
        )
        return list(found[: count.value])

    def contour(self, drawn: NDArray[np.float32], region: Region) -> NDArray[np.uint32]:
        points, count = np.empty((4 * region.area, 2), np.uint32), ctypes.c_size_t()
        height, width = map(ctypes.c_size_t, drawn.shape)
        self.check(
            self.library.onceover_session_trace_contour(
                self.handle, ctypes.c_void_p(drawn.ctypes.data), height, width, width, ctypes.byref(region),
                ctypes.c_void_p(points.ctypes.data), ctypes.c_size_t(len(points)), ctypes.byref(count),
            )
        )  # fmt: skip
        return points[: count.value]

    def patches(self, grid: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        scores, rows = ctypes.POINTER(ctypes.c_float)(), ctypes.POINTER(ctypes.c_uint32)()
        self.check(self.library.onceover_session_patches(self.handle, ctypes.byref(scores), ctypes.byref(rows)))
        return np.ctypeslib.as_array(scores, grid).copy(), np.ctypeslib.as_array(rows, grid).copy()

    def check(self, status: int) -> None:
        assert status == 0, self.library.onceover_last_error()


@contextmanager
def c_session(package: Path, engine: str, **options: Any) -> Iterator[CSession]:
    """A session in C over the engine of the installed wheel."""
    library = ctypes.CDLL(str(built("libonceover.so")))
    library.onceover_last_error.restype = ctypes.c_char_p
    library.onceover_package_free.restype = library.onceover_session_free.restype = None
    opened, session = ctypes.c_void_p(), ctypes.c_void_p()
    given = Options(ctypes.sizeof(Options), engine=engine.encode(), engine_library=engine_library(engine).encode())
    for name, value in options.items():
        setattr(given, name, value)
    status = library.onceover_package_open(str(package).encode(), None, ctypes.byref(opened))
    assert status == 0, library.onceover_last_error()
    status = library.onceover_session_create(opened, ctypes.byref(given), ctypes.byref(session))
    library.onceover_package_free(opened)
    assert status == 0, library.onceover_last_error()
    try:
        yield CSession(library, session)
    finally:
        library.onceover_session_free(session)
