"""Every registered name loads and is documented; unknown names suggest near ones; C and Python share error codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from onceover import errors, registry

ROOT = Path(__file__).resolve().parents[1]
TABLES: dict[str, Mapping[str, str]] = {
    "backbone": registry.BACKBONES,
    "detector": registry.DETECTORS,
    "export target": registry.EXPORT_TARGETS,
    "layout": registry.LAYOUTS,
}
NAMES = [(kind, name) for kind, table in TABLES.items() for name in table]
ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.OnceoverError) and value is not errors.OnceoverError
]


def source_of(target: str) -> Path:
    parts = target.split(":")[0].split(".")[1:]
    return (ROOT if parts[0] == "export" else ROOT / "python" / "onceover").joinpath(*parts).with_suffix(".py")


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_name_loads_something_callable(kind: str, name: str) -> None:
    if kind not in {"detector", "layout"}:
        for module in ("torch", "onnx", "safetensors"):
            pytest.importorskip(module)
    assert callable(registry.load(kind, name, TABLES[kind]))


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_name_opens_with_what_it_is_and_methods_cite_their_paper(kind: str, name: str) -> None:
    docstring = ast.get_docstring(ast.parse(source_of(TABLES[kind][name]).read_text(encoding="utf-8")))
    assert docstring
    if kind != "export target" and name != "csv":
        assert "arXiv:" in docstring or re.search(r"\b(19|20)\d\d\b", docstring), (
            f"{name} cites no paper: {docstring!r}"
        )


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("backbone", "mobilenetv3", "mobilenetv2"),
        ("detector", "patchcor", "patchcore"),
        ("export target", "onx", "onnx"),
        ("layout", "mvtek", "mvtec"),
    ],
)
def test_an_unknown_name_suggests_the_near_one_and_lists_all(kind: str, wrong: str, right: str) -> None:
    with pytest.raises(errors.UnknownNameError) as caught:
        registry.load(kind, wrong, TABLES[kind])
    message = str(caught.value)
    assert f"unknown {kind} {wrong!r}; did you mean {right!r}" in message
    assert all(name in message for name in TABLES[kind])


def test_a_name_unlike_any_other_gets_no_suggestion() -> None:
    with pytest.raises(errors.UnknownNameError) as caught:
        registry.load("detector", "xyzzy", registry.DETECTORS)
    assert "did you mean" not in str(caught.value)
    assert "patchcore" in str(caught.value)


def test_a_missing_module_of_an_extra_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_without_torch(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(registry.importlib, "import_module", import_without_torch)
    with pytest.raises(errors.MissingExtraError, match=re.escape("pip install 'onceover[train]'")):
        registry.load("backbone", "mobilenetv2", registry.BACKBONES)


def test_a_missing_module_that_no_extra_brings_is_not_disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'onceover.typo'", name="onceover.typo")

    monkeypatch.setattr(registry.importlib, "import_module", import_broken)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        registry.load("backbone", "mobilenetv2", registry.BACKBONES)


def status_name(error: type[errors.OnceoverError]) -> str:
    """UnknownNameError → UNKNOWN_NAME, by the names of onceover.h."""
    words = re.findall(r"[A-Z][a-z]+", error.__name__.removesuffix("Error"))
    shorter = {"UNSUPPORTED_PACKAGE": "UNSUPPORTED", "MEMORY_LIMIT": "MEMORY"}
    name = "_".join(words).upper()
    return shorter.get(name, name)


def test_every_error_has_the_status_of_the_c_header_and_every_status_an_error() -> None:
    header = (ROOT / "csrc" / "include" / "onceover.h").read_text(encoding="utf-8")
    enumeration = header[header.index("typedef enum onceover_status {") : header.index("} onceover_status;")]
    statuses = {name: int(value) for name, value in re.findall(r"ONCEOVER_([A-Z_]+)\s*=\s*(\d+)", enumeration)}
    assert statuses.pop("OK") == 0
    assert statuses.pop("CANCELLED")  # in Python what a callback raises comes back itself
    assert {status_name(error): error.code for error in ERRORS} == statuses


def test_the_tree_in_the_docstring_of_errors_tells_code_and_exit_of_every_error() -> None:
    rows = re.findall(r"[├└]── (\w+)\s+(\d+)\s+(\d)\s", errors.__doc__ or "")
    assert {name: (int(code), int(status)) for name, code, status in rows} == {
        error.__name__: (error.code, error.exit_code) for error in ERRORS
    }


def test_exit_codes_follow_the_command_line_contract() -> None:
    assert {error.exit_code for error in ERRORS} == {1, 2, 3}
    assert errors.VerificationError.exit_code == 1
    assert {error.__name__ for error in ERRORS if error.exit_code == 2} == {
        "UsageError",
        "UnknownNameError",
        "NotFittedError",
        "MissingExtraError",
    }
