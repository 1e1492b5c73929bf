"""A program for test_no_torch.py: the main job through the command line, where torch cannot be imported.

`python torch_free_run.py FOLDER` works in FOLDER, which holds tiny.onnx and data/; prints one JSON object as its last
line: the exit status of every command, and which modules of the torch family were loaded in the end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

TORCH_FAMILY = ("torch", "onnx", "onnxscript", "safetensors")
ABSENT = (*TORCH_FAMILY, "openvino")  # what extras would install


class Refuse:
    """An import hook, first in line, that makes the torch family and the second engine look uninstalled."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        root = name.partition(".")[0]
        if root in ABSENT:
            raise ModuleNotFoundError(f"No module named {root!r}", name=root)


def main(folder: Path) -> None:
    sys.meta_path.insert(0, Refuse)
    from onceover.cli import main as onceover

    package, graph, data = str(folder / "tiny.onceover"), str(folder / "tiny.onnx"), folder / "data"
    good, bad = str(data / "test" / "good"), str(data / "test" / "hole")
    commands = {
        "list": ["list"],
        "fit": ["fit", str(data / "train" / "good"), "-o", package, "--backbone", graph],
        "verify": ["verify", package],
        "evaluate": ["evaluate", package, str(data)],
        "inspect bad": ["inspect", package, bad, "--save", str(folder / "pictures")],
        "inspect good": ["inspect", package, good],
        "needs openvino": ["verify", package, "--engine", "openvino"],
        "needs torch": ["export", "backbone", "mobilenetv2", "--weights", graph, "-o", str(folder / "big.onnx")],
    }
    statuses = {name: onceover([*command, "--json"]) for name, command in commands.items()}

    import onceover as front

    verdict = front.Inspector.open(package).inspect(next(Path(bad).iterdir()))
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(ABSENT))
    answer = {"statuses": statuses, "loaded": loaded, "score": float(verdict.score), "installed": front.__file__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
