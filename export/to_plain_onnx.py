"""A package → one plain ONNX file with the memory bank inside, and a JSON file that says what it means.

For engines and programs without onceover: image in; score, patch scores, anomaly map and nearest rows out. A package
in our own session is exact and faster; docs/plain_onnx.md says by how much.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import EngineError, OutputError, PackageError, UsageError, missing_extra
from onceover.export.plain_graph import PlainParts, build, chunk_rows
from onceover.runtime.package import PackageFile, open_package, require_one_product
from onceover.runtime.session import open_session

METADATA_KEY = "onceover.plain"
METADATA_FORMAT = 1
TOLERANCE = 1e-3  # of scores and maps against our session, relative to the largest patch score of the image
MAX_PROTOBUF_BYTES = 2**31 - 1  # of one file: sizes in protobuf are signed 32-bit integers
DEFAULT_MAX_ELEMENTS = 2**22  # 16 MB of products at a time; more is not faster (docs/plain_onnx.md)

RESIZE = "antialiased triangle filter, half-pixel centers, aspect ratio not kept, rounded to 8 bits"
MEANINGS = {
    "score": "the image score: the largest patch score; anomalous when above threshold",
    "patch_scores": "distance of each patch to the nearest row of the memory bank, higher is more anomalous",
    "anomaly_map": "patch scores at input size, bilinear and blurred; anomalous where above map_threshold, "
    "of an image whose score is above threshold",
    "nearest": "the row of the package's memory bank nearest to each patch",
}


def write_plain_onnx(
    package: str | os.PathLike[str],
    output: str | os.PathLike[str],
    max_elements: int = DEFAULT_MAX_ELEMENTS,
    raw_pixels: bool = False,
) -> dict[str, Any]:
    """Write `output` (NAME.onnx) and NAME.json beside it; returns what the JSON says.

    max_elements: of any product of patches and bank rows, and of any part of the bank, up to 2^31 − 1. raw_pixels: the
    input is "pixels", uint8 (1, H, W, 3) RGB, instead of "image", float32 (1, 3, H, W) normalized. The same package
    gives the same bytes. The graph is run and compared with the session before anything is written.

    Raises what `Inspector.open` raises for a package that cannot be used; UsageError for max_elements, the ending of
    the name, or a bank too large for a file; InputError for a network that cannot be joined; EngineError when
    onnxruntime does not reproduce the session within TOLERANCE; OutputError; MissingExtraError without onnx.
    """
    target = Path(output)
    if target.suffix != ".onnx":
        raise UsageError(f"{target}: the name must end in .onnx; what it means is written to the same name with .json")
    opened = open_package(package)
    require_one_product(opened, "a plain ONNX file")
    _check_whole(opened)
    session = open_session(opened.core)
    parts = _parts(opened.core, session.config, max_elements, raw_pixels)
    check_size(parts)
    facts = _facts(opened, session, parts)
    content = _serialized(parts, facts)
    check_against_session(content, parts, session)
    facts["file"] = {"name": target.name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _core.save_atomically(os.fspath(target), content)
    try:
        _core.save_atomically(os.fspath(target.with_suffix(".json")), (_json(facts, 1) + "\n").encode())
    except OutputError:
        target.unlink(missing_ok=True)  # half of an export would be used without its threshold
        raise
    return facts


def _check_whole(package: PackageFile) -> None:
    """UsageError for what one graph of one image does not say."""
    tiled = math.prod(_core.read_config(package.core).tiling[:2]) > 1
    cut = any(member.name == "roi" for member in package.members)
    if tiled or cut:
        what = " and ".join(name for name, there in (("tiles", tiled), ("a region of interest", cut)) if there)
        raise UsageError(
            f"{package.path}: inspects with {what}, which a plain ONNX file cannot hold; use the package itself, or "
            "fit without"
        )


def check_size(parts: PlainParts) -> None:
    """UsageError for a bank that does not fit into one file, before minutes are spent on it."""
    rows, dims = parts.rows.shape
    config = parts.config
    map_values = config.height * config.grid_height + config.width * config.grid_width
    # Of each row its values, its norm (4 bytes) and its number (8); 2 KiB for the nodes of a chunk, 1 MiB for the rest.
    chunks = -(-rows // parts.chunk_rows)
    size = len(parts.network) + rows * (4 * dims + 12) + 4 * map_values + 2**11 * chunks + 2**20
    if size > MAX_PROTOBUF_BYTES:
        raise UsageError(
            f"the memory bank of {rows} × {dims} values makes an ONNX file of {size / 1e9:.2f} GB, expected at most "
            f"{MAX_PROTOBUF_BYTES / 1e9:.2f} GB; fit with fewer rows (--bank-rows), or use the package itself"
        )


def check_against_session(content: bytes, parts: PlainParts, session: _core.Session) -> None:
    """Run the graph in onnxruntime on noise; EngineError where it differs from the session by more than TOLERANCE."""
    config = parts.config
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (config.height, config.width, 3), np.uint8)
    expected_score = session.run(noise).score
    expected = {
        "score": np.array([expected_score], np.float32),
        "patch_scores": session.patch_scores()[None, None],
        "anomaly_map": session.anomaly_map()[None, None],
    }
    answers = _run(content, _fed(noise, parts), list(expected))
    for (name, values), answer in zip(expected.items(), answers, strict=True):
        largest = float(np.abs(answer - values).max()) if answer.shape == values.shape else float("nan")
        if not largest <= TOLERANCE * expected_score:  # also true for NaN
            raise EngineError(
                f"the plain graph's {name} {answer.shape} differs from the session's {values.shape} by {largest:.1e}, "
                f"allowed {TOLERANCE * expected_score:.1e}; this is a defect, please report it"
            )


def _fed(image: NDArray[np.uint8], parts: PlainParts) -> dict[str, NDArray[Any]]:
    """(H, W, 3) of the network's size → the graph's input."""
    config = parts.config
    if parts.raw_pixels:
        return {"pixels": image[None]}
    return {"image": _core.prepare(image, config.height, config.width, config.mean, config.std)[None]}


def _run(content: bytes, inputs: Mapping[str, NDArray[Any]], outputs: list[str]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is in the exception
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        answers: list[NDArray[Any]] = session.run(outputs, dict(inputs))
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise EngineError(f"onnxruntime cannot run the plain graph: {error}") from error
    return answers


def _parts(core: _core.Package, config: _core.Config, max_elements: int, raw_pixels: bool) -> PlainParts:
    bank = core.array("memory_bank")
    numbers = np.arange(len(bank), dtype=np.int64)
    if any(member["name"] == "bank_index" for member in core.members):
        alive = _core.MemoryBank.view(bank, core.array("bank_index")).alive  # the session finds no row that was removed
        if not alive.all():
            bank, numbers = bank[alive], numbers[alive]
    rows = chunk_rows(config.grid_height * config.grid_width, config.embedding_dim, max_elements)
    adapted = any(member["name"] == "adaptation" for member in core.members)
    adaptation = core.array("adaptation") if adapted else None
    weighed = any(member["name"] == "position_weights" for member in core.members)
    weights = core.array("position_weights") if weighed else None
    graph = core.read("graph.onnx")
    return PlainParts(graph, config, bank, numbers, min(rows, len(bank)), raw_pixels, adaptation, weights)


def _serialized(parts: PlainParts, facts: Mapping[str, Any]) -> bytes:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra("onnx", "train", "writing a plain ONNX file") from error
    model = build(parts)
    onnx.helper.set_model_props(model, {METADATA_KEY: _json(facts)})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _facts(opened: PackageFile, session: _core.Session, parts: PlainParts) -> dict[str, Any]:
    """What a program must know, as JSON values; the file's own hash comes later, it cannot be inside the file."""
    calibration, backbone = session.calibration, _object(opened.manifest.get("backbone"))
    calibrated = calibration["calibrated"]
    major, minor = opened.core.version
    weights = _object(backbone.get("weights"))
    return {
        "format": METADATA_FORMAT,
        "name": opened.manifest.get("name"),
        "onceover": _core.__version__,
        "package": {"id": opened.id, "format": f"{major}.{minor}"},
        "input": _input_facts(parts),
        "outputs": _output_facts(parts.config),
        "threshold": calibration["threshold"] if calibrated else None,
        "map_threshold": calibration["map_threshold"] if calibrated else None,
        "calibration": {
            "state": "split conformal" if calibrated else "uncalibrated",
            "false_alarm_rate": calibration["false_alarm_rate"] if calibrated else None,
            "parts": int(calibration["n"]),
            "images": int(calibration["image_count"]),
        },
        "detector": opened.manifest.get("detector"),
        "memory_bank": {
            "rows": len(parts.rows),
            "values_per_row": parts.config.embedding_dim,
            "chunk_rows": parts.chunk_rows,
        },
        "blur_sigma": parts.config.blur_sigma,
        "backbone": backbone.get("name"),
        "weights": weights or None,
        "license": weights.get("license"),
        "tolerance": TOLERANCE,
    }


def _json(facts: Mapping[str, Any], indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    try:
        return json.dumps(facts, indent=indent, separators=separators, sort_keys=True, allow_nan=False)
    except ValueError as error:  # Python reads NaN and Infinity, which are not JSON
        raise PackageError(
            f"the package's manifest.json holds a value that is not JSON ({error}); fit again"
        ) from error


def _object(value: Any) -> dict[str, Any]:
    """The manifest is for people: what is no object there says nothing."""
    return value if isinstance(value, dict) else {}


def _input_facts(parts: PlainParts) -> dict[str, Any]:
    config = parts.config
    raw = parts.raw_pixels
    return {
        "name": "pixels" if raw else "image",
        "shape": [1, config.height, config.width, 3] if raw else [1, 3, config.height, config.width],
        "dtype": "uint8" if raw else "float32",
        "layout": "NHWC" if raw else "NCHW",
        "color": "rgb",
        "mean": list(config.mean),
        "std": list(config.std),
        "normalization": "inside the graph" if raw else "(pixel / 255 - mean) / std, before the graph",
        "resize": RESIZE,
    }


def _output_facts(config: _core.Config) -> dict[str, Any]:
    grid = [config.grid_height, config.grid_width]
    shapes = {
        "score": [1],
        "patch_scores": [1, 1, *grid],
        "anomaly_map": [1, 1, config.height, config.width],
        "nearest": [1, *grid],
    }
    return {
        name: {"shape": shape, "dtype": "int64" if name == "nearest" else "float32", "meaning": MEANINGS[name]}
        for name, shape in shapes.items()
    }


__all__ = ["DEFAULT_MAX_ELEMENTS", "METADATA_KEY", "TOLERANCE", "write_plain_onnx"]
