"""The arrows of the house, as data and as checkers that read imports and #include lines; test_layers.py runs them.

A checker takes the root of a tree and returns one line per violation: "file:line: what, and what is allowed".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Python: room → the rooms it may import besides its own. A room is a module or a folder of python/onceover.
FOUNDATION = {"types", "registry", "errors", "_core"}
RUNTIME = {"images", "image_header", "file_hash", *FOUNDATION}
BACKBONES = {"images", "metrics", "file_hash", *FOUNDATION}
DETECTORS = {"backbones", "runtime", "memory_bank", *BACKBONES}
TRAINING = {"detectors", *DETECTORS}
EXPORT = {"training", *TRAINING}
PYTHON_ROOMS: dict[str, set[str]] = {
    "_core": set(),
    "errors": {"_core"},
    "types": {"errors", "_core"},
    "registry": {"errors", "types", "_core"},
    "image_header": FOUNDATION,
    "arrays": {"errors"},
    "file_hash": {"errors"},
    "images": {"image_header", *FOUNDATION},
    "metrics": {"arrays", *FOUNDATION},
    "memory_bank": {"arrays", *FOUNDATION},
    "runtime": RUNTIME,
    "measuring": {"runtime", *RUNTIME},
    "monitoring": {"runtime", *RUNTIME},
    "report": {"types", "images", "errors", "monitoring"},
    "backbones": BACKBONES,
    "detectors": DETECTORS,
    "training": TRAINING,
    "export": EXPORT,
    "cli": {"export", "measuring", "report", "monitoring", "", *EXPORT},
    "": {"cli", "export", "measuring", "report", "monitoring", *EXPORT},  # onceover/__init__.py, the front door
}

TORCH_FAMILY = {"torch", "onnx", "onnxscript", "safetensors"}
TORCH_ROOMS = {"backbones", "export"}
TORCH_MODULES = {
    *(
        f"onceover.training.pretrain.{module}"
        for module in ("checking", "checkpoint", "loading", "recording", "student", "teacher", "train")
    ),
}

# C++: room of csrc → the rooms it may include besides its own; "include" is the public headers.
CORE = {"base", "include"}
MIDDLE = {"kernels", *CORE}
MONITOR = {"package", *MIDDLE}
CORRECTIONS = {"package", "scoring", "image", *MIDDLE}
SESSION = {"corrections", "engines", "metrics", *CORRECTIONS}
COMPACTION = {"session", *SESSION}
CXX_ROOMS: dict[str, set[str]] = {
    "include": set(),
    "base": {"include"},
    "kernels": CORE,
    "measuring": set(),  # timing anything
    "image": MIDDLE,
    "metrics": MIDDLE,
    "scoring": MIDDLE,
    "engines": MIDDLE,
    "package": {"image", *MIDDLE},  # the config of a package holds the preprocessing
    "corrections": CORRECTIONS,
    "monitor": MONITOR,
    "session": SESSION,
    "compaction": COMPACTION,
    "c_api": {"compaction", "monitor", *COMPACTION},
    "bindings": {"compaction", "measuring", "monitor", *COMPACTION},
    "tools": {"include", "measuring"},  # programs over the public headers
}

CXX_SUFFIXES = {".cpp", ".h", ".hpp", ".inl", ".def", ".c"}
INTRINSICS = {"immintrin.h", "x86intrin.h", "arm_neon.h", "arm_sve.h", "arm_acle.h"}
PUBLIC_HEADER = re.compile(r"^onceover\w*\.h(?:pp)?$")
SHARED_BODY = re.compile(r"^kernels/\w+\.inl$")  # compiled anew inside each ISA file
PYTHON_HEADER = re.compile(r"^(pybind11/|Python\.h$|numpy/)")
# forbidden call → files and rooms of csrc that may make it
FORBIDDEN_CALLS: tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...] = (
    ("printing", re.compile(r"\b(?:v?f?printf|f?puts|f?putc|putchar)\s*\(|\bstd::(?:cout|cerr|clog)\b"), ("tools/",)),
    ("abort or exit", re.compile(r"\b(?:abort|_?exit|_Exit|quick_exit|terminate)\s*\("), ()),
    ("reading the environment", re.compile(r"\b(?:secure_)?getenv\b"), ("kernels/dispatch.cpp",)),
    (
        "starting a thread",
        re.compile(r"\bstd::(?:j?thread|async)\b|\bpthread_create\b|#\s*pragma\s+omp\b"),
        ("base/parallel.cpp", "base/parallel.h"),
    ),
)


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name; `names` are what `from module import names` asked for."""

    file: Path
    line: int
    module: str
    runs_on_import: bool  # at module level and not under TYPE_CHECKING

    def at(self, root: Path) -> str:
        return f"{self.file.relative_to(root)}:{self.line}"


def python_modules(root: Path) -> dict[str, Path]:
    """Module name → file, for python/onceover and for export/, which is installed as onceover.export."""
    modules: dict[str, Path] = {}
    for folder, prefix in ((root / "python" / "onceover", "onceover"), (root / "export", "onceover.export")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            modules[".".join((prefix, *parts))] = path
    return modules


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _import_nodes(node: ast.AST, runs: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, runs
        else:
            lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _is_type_checking(child)
            yield from _import_nodes(child, runs and not lazy)


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> list[Import]:
    """Every import of a file, relative ones resolved, `from package import submodule` as the submodule."""
    found: list[Import] = []
    for node, runs in _import_nodes(ast.parse(path.read_text(encoding="utf-8"), str(path)), True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join((*package[: len(package) - node.level + 1], *([base] if base else [])))
            names = []
            for alias in node.names:
                full = f"{base}.{alias.name}"
                names.append(full if full in modules or full == "onceover._core" else base)
        found += [Import(path, node.lineno, name, runs) for name in dict.fromkeys(names)]
    return found


def room_of(module: str) -> str:
    """onceover.runtime.session → runtime; onceover itself → "" (the front door)."""
    return [*module.split("."), ""][1]


def python_arrows(root: Path) -> list[str]:
    modules = python_modules(root)
    found: list[str] = []
    for module, path in modules.items():
        room = room_of(module)
        if room not in PYTHON_ROOMS:
            found.append(f"{path.relative_to(root)}:1: the room {room!r} has no arrows; add it to tests/layers.py")
            continue
        for used in imports_of(module, path, modules):
            target = room_of(used.module)
            if used.module.split(".")[0] == "onceover" and target not in {room, *PYTHON_ROOMS[room]}:
                allowed = ", ".join(sorted(filter(None, PYTHON_ROOMS[room])))
                found.append(f"{used.at(root)}: {room or 'onceover'} imports {used.module}; it may import: {allowed}")
    return found


def torch_rooms(root: Path) -> list[str]:
    """The torch family is named only where networks are built, trained or exported."""
    modules = python_modules(root)
    return [
        f"{used.at(root)}: {module} imports {used.module}, which only backbones, export, "
        f"{' and '.join(sorted(TORCH_MODULES))} may"
        for module, path in modules.items()
        if room_of(module) not in TORCH_ROOMS and module not in TORCH_MODULES
        for used in imports_of(module, path, modules)
        if used.module.split(".")[0] in TORCH_FAMILY
    ]


def may_load_torch(module: str) -> bool:
    """Modules that need torch to be imported at all: the files of backbones/, the export targets, and two more."""
    in_backbones = module.startswith("onceover.backbones.")
    return (
        in_backbones or module.startswith(("onceover.export.to_", "onceover.export.from_")) or module in TORCH_MODULES
    )


def torch_free_imports(root: Path) -> list[str]:
    """Importing any other module loads no torch, directly or through what it imports."""
    modules = python_modules(root)
    loads = {
        module: [used for used in imports_of(module, path, modules) if used.runs_on_import]
        for module, path in modules.items()
    }

    def path_to_torch(module: str, seen: set[str]) -> list[str] | None:
        seen.add(module)
        for used in loads.get(module, []):
            if used.module.split(".")[0] in TORCH_FAMILY:
                return [f"{used.at(root)} ({used.module})"]
            parts = used.module.split(".")
            for loaded in (".".join(parts[: end + 1]) for end in range(len(parts))):  # its packages come with it
                if loaded in loads and loaded not in seen and (rest := path_to_torch(loaded, seen)):
                    return [used.at(root), *rest]
        return None

    chains = {module: path_to_torch(module, set()) for module in modules if not may_load_torch(module)}
    return [f"{' → '.join(chain)}: importing {module} loads torch" for module, chain in chains.items() if chain]


def cxx_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "csrc").rglob("*") if path.suffix in CXX_SUFFIXES)


def without_comments(source: str, keep_strings: bool) -> str:
    """C++ text with comments (and the inside of strings) blanked, so that line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        text = match.group()
        if text[0] == '"' and keep_strings:
            return text
        return '""' if text[0] == '"' else re.sub(r"[^\n]", " ", text)

    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', blank, source, flags=re.DOTALL)


def includes_of(path: Path) -> list[tuple[int, str]]:
    lines = without_comments(path.read_text(encoding="utf-8"), keep_strings=True).splitlines()
    matches = ((number, re.match(r'\s*#\s*include\s*[<"]([^">]+)', line)) for number, line in enumerate(lines, 1))
    return [(number, match.group(1)) for number, match in matches if match]


def cxx_arrows(root: Path) -> list[str]:
    found: list[str] = []
    for path in cxx_files(root):
        room = path.relative_to(root / "csrc").parts[0]
        where = path.relative_to(root)
        if room not in CXX_ROOMS:
            found.append(f"{where}:1: the room {room!r} has no arrows; add it to tests/layers.py")
            continue
        for line, header in includes_of(path):
            target = "include" if PUBLIC_HEADER.match(header) else header.split("/")[0]
            if target in CXX_ROOMS and target not in {room, *CXX_ROOMS[room]}:
                allowed = ", ".join(sorted(CXX_ROOMS[room]))
                found.append(f'{where}:{line}: {room} includes "{header}"; it may include: {allowed}')
    return found


def python_headers(root: Path) -> list[str]:
    return [
        f'{path.relative_to(root)}:{line}: "{header}" is a Python header; only csrc/bindings may include it'
        for path in cxx_files(root)
        if path.relative_to(root / "csrc").parts[0] != "bindings"
        for line, header in includes_of(path)
        if PYTHON_HEADER.match(header)
    ]


def isa_includes(root: Path) -> list[str]:
    """An inline function of any other header, compiled for a newer CPU, could be the copy an older CPU gets.

    Shared bodies (.inl) are included inside the anonymous namespace of an ISA file, so they keep the same rule.
    """
    kernels = root / "csrc" / "kernels"
    return [
        f'{path.relative_to(root)}:{line}: an ISA file includes "{header}"; only intrinsics, kernels/kernel_table.h '
        "and kernels/*.inl"
        for path in sorted([*kernels.glob("*.cpp"), *kernels.glob("*.inl")])
        if path.name != "dispatch.cpp"
        for line, header in includes_of(path)
        if header not in {"kernels/kernel_table.h", *INTRINSICS} and not SHARED_BODY.match(header)
    ]


def forbidden_calls(root: Path) -> list[str]:
    found: list[str] = []
    for path in cxx_files(root):
        inside = path.relative_to(root / "csrc").as_posix()
        lines = without_comments(path.read_text(encoding="utf-8"), keep_strings=False).splitlines()
        for deed, pattern, allowed in FORBIDDEN_CALLS:
            if inside in allowed or f"{path.parent.name}/" in allowed:
                continue
            where = f"only {allowed[0]} may" if allowed else "the core never does; throw Error instead"
            found += [
                f"csrc/{inside}:{number}: {deed} ({match.group().strip()}): {where}"
                for number, line in enumerate(lines, 1)
                if (match := pattern.search(line))
            ]
    return found
