"""The C ABI as abidiff compares it: a library of empty functions, made from the public headers.

The headers are what programs are compiled with; that the real library exports their functions and nothing else is
tested beside this. Run it to store the ABI (abidw: apt-get install abigail-tools; on x86-64).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "data" / "libonceover.x86_64.abi"
DECLARATION = re.compile(r"^(ONCEOVER_API [^;]*\));", re.MULTILINE)


def public_headers() -> dict[str, str]:
    """File name → text of every C header."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc" / "include").glob("*.h"))}


def build(headers: dict[str, str], folder: Path) -> Path:
    """→ a shared library in `folder` with debug information and every declared function."""
    for name, text in headers.items():
        (folder / name).write_text(DECLARATION.sub(r"\1 { for (;;) {} }", text), encoding="utf-8")
    source, library = folder / "stubs.c", folder / "libonceover.so"
    source.write_text("".join(f'#include "{name}"\n' for name in headers), encoding="utf-8")
    subprocess.run(
        ["gcc", "-std=c99", "-g", "-O0", "-shared", "-fPIC", "-w", "-o", library, source], check=True, cwd=folder
    )
    return library


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        built = build(public_headers(), Path(temporary))
        subprocess.run(
            ["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file", STORED, built],
            check=True,
        )
        STORED.write_text(STORED.read_text(encoding="utf-8").replace(temporary, "stubs"), encoding="utf-8")
    print(f"{STORED}: {STORED.stat().st_size} bytes")
