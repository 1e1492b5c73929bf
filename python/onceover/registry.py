"""Names a user can say → "module:attribute", loaded on demand, so that listing them imports nothing.

A new backbone, detector or export target is one new file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from onceover.errors import missing_extra, unknown_name

BACKBONES: Mapping[str, str] = {
    "mobilenetv2": "onceover.backbones.mobilenetv2:mobilenetv2",
    "mobilenetv2_050": "onceover.backbones.mobilenetv2:mobilenetv2_050",
}

DETECTORS: Mapping[str, str] = {
    "patchcore": "onceover.detectors.patchcore:PatchCore",
}

EXPORT_TARGETS: Mapping[str, str] = {
    "onnx": "onceover.export.to_onnx:export_backbone",
}


def load(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The object registered as `name`; UnknownNameError with near matches, MissingExtraError without torch."""
    if name not in table:
        raise unknown_name(kind, name, table)
    module_name, attribute = table[name].split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name in {"torch", "onnx", "onnxscript", "safetensors"}:
            raise missing_extra(error.name, "train", f"the {kind} {name!r}") from error
        raise
    return getattr(module, attribute)


__all__ = ["BACKBONES", "DETECTORS", "EXPORT_TARGETS", "load"]
