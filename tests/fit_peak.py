"""A fit in a process of its own: `python fit_peak.py FOLDER OPTIONS`, OPTIONS as JSON; prints what it said and took.

OPTIONS: of FitOptions; "rows" of the bank; "tiles"; "inside": the share of the width that is inspected. The
peak is VmHWM of /proc/self/status, from the interpreter on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from onceover import export
from onceover.detectors import BankSize
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, FitPlan, fit
from onceover.training.machine_memory import resident_bytes


def main() -> None:
    folder, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    rows, tiles = changes.pop("rows"), changes.pop("tiles", None)
    if inside := changes.pop("inside", None):
        changes["roi"] = np.zeros((16, 16), np.uint8)
        changes["roi"][:, : round(16 * inside)] = 1
    if tiles:
        changes["tiling"] = TilingOptions(tiles=tuple(tiles))
    plans: list[FitPlan] = []
    parts = fit(folder, FitOptions(bank=BankSize(rows=rows), **changes), on_plan=plans.append)
    with tempfile.TemporaryDirectory() as scratch:
        export.package(parts, Path(scratch, "fitted.onceover"))
    memory = plans[0].memory
    assert memory is not None
    told = {"said": memory.peak_bytes, "streaming": memory.streaming, "folds": plans[0].folds}
    print(json.dumps({**told, "peak": resident_bytes("VmHWM"), "patches": plans[0].patch_count}))


if __name__ == "__main__":
    main()
