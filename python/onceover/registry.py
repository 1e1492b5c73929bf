"""Names a user can say → "module:attribute", loaded on demand, so that listing them imports nothing.

A new backbone, detector, export target or data set layout is one new file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from onceover.errors import missing_extra, unknown_name

BACKBONES: Mapping[str, str] = {
    "emo_1m": "onceover.backbones.emo:emo_1m",
    "emo_2m": "onceover.backbones.emo:emo_2m",
    "emo_5m": "onceover.backbones.emo:emo_5m",
    "emo_6m": "onceover.backbones.emo:emo_6m",
    "emov2_1m": "onceover.backbones.emov2:emov2_1m",
    "emov2_2m": "onceover.backbones.emov2:emov2_2m",
    "emov2_5m": "onceover.backbones.emov2:emov2_5m",
    "mobilenetv2": "onceover.backbones.mobilenetv2:mobilenetv2",
    "mobilenetv2_050": "onceover.backbones.mobilenetv2:mobilenetv2_050",
    "mobilenetv2_w035": "onceover.backbones.mobilenetv2:mobilenetv2_w035",
    "mobilenetv2_w050": "onceover.backbones.mobilenetv2:mobilenetv2_w050",
    "mobilenetv2_w075": "onceover.backbones.mobilenetv2:mobilenetv2_w075",
    "mobilenetv2_w100": "onceover.backbones.mobilenetv2:mobilenetv2_w100",
    "mobilenetv2_w140": "onceover.backbones.mobilenetv2:mobilenetv2_w140",
    "mobilenetv4_conv_small": "onceover.backbones.mobilenetv4:mobilenetv4_conv_small",
    "repvit_m0_9": "onceover.backbones.repvit:repvit_m0_9",
    "repvit_m1_0": "onceover.backbones.repvit:repvit_m1_0",
    "resnet18": "onceover.backbones.resnet:resnet18",
    "wide_resnet50": "onceover.backbones.resnet:wide_resnet50",
    "tinyvit_5m": "onceover.backbones.tinyvit:tinyvit_5m",
    "tinyvit_11m": "onceover.backbones.tinyvit:tinyvit_11m",
    "tinyvit_21m": "onceover.backbones.tinyvit:tinyvit_21m",
}

DETECTORS: Mapping[str, str] = {
    "patchcore": "onceover.detectors.patchcore:PatchCore",
}

EXPORT_TARGETS: Mapping[str, str] = {
    "onnx": "onceover.export.to_onnx:export_backbone",
    "plain_onnx": "onceover.export.to_plain_onnx:write_plain_onnx",
}

# Networks of the user's own, by the suffix of the file.
OWN_NETWORKS: Mapping[str, str] = {
    ".onnx": "onceover.export.from_onnx:export_own_onnx",
    ".py": "onceover.export.from_module:export_own_file",
}

# In the order in which they are tried on a folder; exactly one must fit.
LAYOUTS: Mapping[str, str] = {
    "mvtec": "onceover.training.layouts.mvtec:MVTec",
    "mvtec_ad2": "onceover.training.layouts.mvtec_ad2:MVTecAD2",
    "mvtec_loco": "onceover.training.layouts.mvtec_loco:MVTecLOCO",
    "visa": "onceover.training.layouts.visa:VisA",
    "btad": "onceover.training.layouts.btad:BTAD",
    "kolektor": "onceover.training.layouts.kolektor:Kolektor",
    "magnetic_tile": "onceover.training.layouts.magnetic_tile:MagneticTile",
    "csv": "onceover.training.layouts.csv_table:CSVTable",
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


__all__ = ["BACKBONES", "DETECTORS", "EXPORT_TARGETS", "LAYOUTS", "OWN_NETWORKS", "load"]
