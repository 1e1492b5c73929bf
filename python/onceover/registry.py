"""Names a user can say → "module:attribute", loaded on demand, so that listing them imports nothing.

A new backbone, detector, export target or data set layout is one new file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

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


class Cost(NamedTuple):
    """Parameters and multiply-accumulates of one image."""

    parameters: int
    macs: int


# Of the stages of stride 8 and 16 at 256 x 256, norms folded: what an exported graph holds, told where torch is not
# installed. `onceover.backbones.cost.count_cost` counts them, and a test compares.
COSTS: Mapping[str, Cost] = {
    "emo_1m": Cost(492_056, 282_563_712),
    "emo_2m": Cost(1_118_416, 482_518_144),
    "emo_5m": Cost(2_476_576, 983_270_528),
    "emo_6m": Cost(2_476_576, 983_270_528),
    "emov2_1m": Cost(494_104, 314_281_984),
    "emov2_2m": Cost(1_123_408, 559_718_400),
    "emov2_5m": Cost(2_491_504, 1_181_712_384),
    "mobilenetv2": Cost(534_464, 274_104_320),
    "mobilenetv2_050": Cost(152_504, 90_578_944),
    "mobilenetv2_w035": Cost(82_360, 55_205_888),
    "mobilenetv2_w050": Cost(147_256, 88_875_008),
    "mobilenetv2_w075": Cost(316_768, 200_257_536),
    "mobilenetv2_w100": Cost(534_464, 274_104_320),
    "mobilenetv2_w140": Cost(1_031_600, 528_924_672),
    "mobilenetv4_conv_small": Cost(314_272, 169_484_288),
    "repvit_m0_9": Cost(2_601_256, 907_948_032),
    "repvit_m1_0": Cost(3_532_304, 1_230_872_832),
    "resnet18": Cost(2_780_544, 1_831_862_272),
    "wide_resnet50": Cost(24_842_752, 11_998_855_168),
    "tinyvit_5m": Cost(2_432_512, 1_494_835_200),
    "tinyvit_11m": Cost(5_376_832, 2_330_787_840),
    "tinyvit_21m": Cost(12_054_240, 5_037_588_480),
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


__all__ = ["BACKBONES", "COSTS", "DETECTORS", "EXPORT_TARGETS", "LAYOUTS", "OWN_NETWORKS", "Cost", "load"]
