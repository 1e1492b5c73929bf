"""The arrows of CONTRIBUTING.md, enforced; each checker is shown planted violations, so that it is itself tested."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import layers
import pytest

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]


def assert_kept(rule: Rule, root: Path = ROOT) -> None:
    violations = rule(root)
    assert not violations, "\n" + "\n".join(violations)


def test_python_rooms_import_only_what_lies_below_them() -> None:
    assert_kept(layers.python_arrows)


def test_torch_is_named_only_where_networks_are_built_trained_or_exported() -> None:
    assert_kept(layers.torch_rooms)


def test_no_torch_free_module_loads_torch_through_another() -> None:
    assert_kept(layers.torch_free_imports)


def test_cxx_rooms_include_only_what_lies_below_them() -> None:
    assert_kept(layers.cxx_arrows)


def test_only_the_bindings_include_python_headers() -> None:
    assert_kept(layers.python_headers)


def test_isa_files_include_only_intrinsics_the_kernel_table_and_shared_bodies() -> None:
    assert_kept(layers.isa_includes)


def test_the_core_never_prints_exits_reads_the_environment_or_starts_threads_elsewhere() -> None:
    assert_kept(layers.forbidden_calls)


def test_the_checkers_see_the_whole_tree() -> None:
    modules = layers.python_modules(ROOT)
    assert {"onceover", "onceover.errors", "onceover.runtime", "onceover.export"} <= modules.keys()
    assert len(layers.cxx_files(ROOT)) > 20
    assert {".cpp", ".h", ".hpp", ".inl", ".def"} <= {path.suffix for path in layers.cxx_files(ROOT)}
    assert any(header == "base/error.h" for path in layers.cxx_files(ROOT) for _, header in layers.includes_of(path))


PLANTED: list[tuple[Rule, str, str, str]] = [
    (layers.python_arrows, "python/onceover/runtime/__init__.py", "import onceover.training", "onceover.training"),
    (layers.python_arrows, "python/onceover/runtime/__init__.py", "from onceover import metrics", "onceover.metrics"),
    (layers.python_arrows, "python/onceover/detectors/__init__.py", "from ..training import fit", "onceover.training"),
    (layers.python_arrows, "python/onceover/types.py", "def f():\n    from onceover import report", "report"),
    (layers.python_arrows, "export/__init__.py", "from onceover.cli import main", "onceover.cli"),
    (layers.python_arrows, "python/onceover/utils.py", "", "'utils' has no arrows"),
    (layers.torch_rooms, "python/onceover/runtime/__init__.py", "def f():\n    import torch.nn", "torch.nn"),
    (layers.torch_rooms, "python/onceover/training/__init__.py", "from onnx import helper", "onnx"),
    (layers.torch_free_imports, "export/__init__.py", "import torch", "importing onceover.export loads torch"),
    (layers.torch_free_imports, "export/verify.py", "import onnxscript", "importing onceover.export.verify loads"),
    (
        layers.torch_free_imports,
        "python/onceover/training/__init__.py",
        "from onceover.training.pretrain.student import Student",
        "importing onceover.training loads torch",
    ),
    (layers.cxx_arrows, "csrc/kernels/kernel_table.h", '#include "scoring/coreset.h"', "kernels includes"),
    (layers.cxx_arrows, "csrc/image/prepare.h", '#include "package/reader.h"', "image includes"),
    (layers.cxx_arrows, "csrc/base/error.h", '#include "session/session.h"', "base includes"),
    (layers.cxx_arrows, "csrc/include/onceover_metrics.hpp", '#include "metrics/compute.h"', "include includes"),
    (layers.cxx_arrows, "csrc/tools/planted.cpp", '#include "session/session.h"', "tools includes"),
    (layers.forbidden_calls, "csrc/tools/planted.cpp", 'auto* x = std::getenv("X");', "environment"),
    (layers.cxx_arrows, "csrc/misc/planted.cpp", "", "'misc' has no arrows"),
    (layers.python_headers, "csrc/session/session.h", "#include <pybind11/pybind11.h>", "pybind11/pybind11.h"),
    (layers.isa_includes, "csrc/kernels/planted.cpp", "#include <algorithm>", "algorithm"),
    (layers.isa_includes, "csrc/kernels/planted.cpp", '#include "base/matrix_view.h"', "base/matrix_view.h"),
    (layers.isa_includes, "csrc/kernels/planted.cpp", '#include "scoring/planted.inl"', "scoring/planted.inl"),
    (layers.isa_includes, "csrc/kernels/planted.inl", "#include <vector>", "vector"),
    (layers.isa_includes, "csrc/kernels/portable.inl", '#include "kernels/dispatch.h"', "kernels/dispatch.h"),
    (layers.cxx_arrows, "csrc/kernels/planted.inl", '#include "scoring/coreset.h"', "kernels includes"),
    (layers.python_headers, "csrc/kernels/planted.inl", "#include <Python.h>", "Python.h"),
    (layers.forbidden_calls, "csrc/kernels/planted.inl", "inline void f() { std::abort(); }", "abort"),
    (layers.forbidden_calls, "csrc/package/planted.cpp", 'void f() { std::printf("x"); }', "printing"),
    (layers.forbidden_calls, "csrc/package/planted.cpp", "void f() { std::abort(); }", "abort"),
    (layers.forbidden_calls, "csrc/engines/planted.cpp", 'auto* x = std::getenv("X");', "environment"),
    (layers.forbidden_calls, "csrc/session/planted.cpp", "std::thread worker;", "thread"),
]


@functools.cache
def kept_before(rule: Rule) -> list[str]:
    return rule(ROOT)


@pytest.mark.parametrize(("rule", "file", "line", "told"), PLANTED)
def test_a_planted_violation_is_found_and_named(rule: Rule, file: str, line: str, told: str, tmp_path: Path) -> None:
    built = shutil.ignore_patterns("*.so", "__pycache__", "*.onnx")
    for folder in ("python", "export", "csrc"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=built)
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    text = planted.read_text(encoding="utf-8") if planted.exists() else ""
    planted.write_text(text + "\n" + line + "\n", encoding="utf-8")
    new = [violation for violation in rule(tmp_path) if violation not in kept_before(rule)]
    assert any(file in violation and told in violation for violation in new), new


HARMLESS = ("// std::abort();", '/* printf */ const char* s = "getenv(abort())";', "std::vsnprintf(a, b);")


@pytest.mark.parametrize("line", HARMLESS)
def test_comments_strings_and_formatting_into_memory_are_not_violations(line: str, tmp_path: Path) -> None:
    (tmp_path / "csrc" / "base").mkdir(parents=True)
    (tmp_path / "csrc" / "base" / "planted.cpp").write_text(line + "\n", encoding="utf-8")
    assert layers.forbidden_calls(tmp_path) == []
