"""One contender of bench_peers.py in a process of its own, which imports what this contender needs and nothing else.

    python benchmarks/peer_process.py CONTENDER FOLDER THREADS

Says what its start took, then answers each line of standard input with one of standard output, both JSON: a number n
runs n images in turn after an untimed one, "images" and "small" tell the scores of the images of images.npz and of
small.npz, "memory" what /proc/self/status says.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before anything heavy is imported

import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

SIDE = 256
Inspect = Callable[[Any], tuple[float, dict[str, int]]]  # image → score, ns of the stages that can be told apart
Prepare = Callable[[Any], Any]


def _preparation(folder: Path) -> Prepare:
    """(H, W) or (H, W, 3) uint8 → (1, 3, 256, 256) float32, normalized; Pillow's bilinear filter is antialiased."""
    import numpy as np
    from PIL import Image

    facts = json.loads((folder / "facts.json").read_text())
    scale = (1 / (255 * np.array(facts["std"], np.float32))).astype(np.float32)
    shift = (np.array(facts["mean"], np.float32) / np.array(facts["std"], np.float32)).astype(np.float32)

    def prepare(image: Any) -> Any:
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = np.asarray(small.convert("RGB"), np.float32) * scale - shift
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]

    return prepare


def onceover(folder: Path, threads: int, engine: str) -> Inspect:
    from onceover.runtime.package import open_package
    from onceover.runtime.session import open_session

    session = open_session(open_package(folder / "part.onceover").core, engine, threads)

    def inspect(image: Any) -> tuple[float, dict[str, int]]:
        found = session.run(image)
        stages = ("prepare", "engine", "score", "map")
        return found.score, {stage: getattr(found, f"{stage}_ns") for stage in stages}

    return inspect


def onceover_backbone(folder: Path, threads: int, engine: str) -> Inspect:
    from onceover import _core
    from onceover.runtime.package import open_package
    from onceover.runtime.session import EngineOptions

    core = open_package(folder / "part.onceover").core
    embedder = _core.Embedder(_core.read_config(core), core.read("graph.onnx"), EngineOptions(engine).resolve(threads))

    def inspect(image: Any) -> tuple[float, dict[str, int]]:
        return float(embedder.embed(image)[0, 0]), {}

    return inspect


def _graph(path: Path, threads: int, engine: str) -> Callable[[Any], Any]:
    """A graph in an engine's own Python package: input → its outputs, in their order."""
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda given: session.run(None, {name: given})
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(path), "CPU", hints).create_infer_request()
    return lambda given: list(request.infer([given]).values())


def graph(folder: Path, threads: int, engine: str, file: str) -> Inspect:
    prepare, run = _preparation(folder), _graph(folder / file, threads, engine)
    scores = {"in_graph.onnx": 0, "plain.onnx": 1, "backbone.onnx": 0, "anomalib.onnx": 0}[file]  # which output

    def inspect(image: Any) -> tuple[float, dict[str, int]]:
        start = time.perf_counter_ns()
        given = prepare(image)
        middle = time.perf_counter_ns()
        score = float(run(given)[scores].max())
        return score, {"prepare": middle - start, "engine": time.perf_counter_ns() - middle}

    return inspect


def bank_graph(folder: Path, threads: int, engine: str) -> Inspect:
    """The part of the in-graph bank alone, on the embedding of the first image."""
    import numpy as np

    embedding = np.load(folder / "embedding.npy")[None]
    run = _graph(folder / "bank.onnx", threads, engine)
    return lambda _image: (float(run(embedding)[0].max()), {})


def torch_patchcore(folder: Path, threads: int, search: str) -> Inspect:
    """Plain PatchCore in eager torch; `search` is "cdist", "faiss", or "none" for the backbone alone."""
    import numpy as np
    import torch
    from peer_networks import Map, patch_embedding

    torch.set_num_threads(threads)
    facts = json.loads((folder / "facts.json").read_text())
    prepare, embedding, draw = _preparation(folder), patch_embedding(Path(facts["weights"]), facts["dim"]), Map()
    index: Any = None
    bank = torch.empty(0)
    if search == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.read_index(str(folder / "bank.faiss"))
    elif search == "cdist":
        bank = torch.from_numpy(np.load(folder / "bank.npy"))

    def inspect(image: Any) -> tuple[float, dict[str, int]]:
        marks = [time.perf_counter_ns()]
        with torch.inference_mode():
            given = torch.from_numpy(prepare(image))
            marks.append(time.perf_counter_ns())
            patches = embedding(given)[0]  # (P, D)
            marks.append(time.perf_counter_ns())
            if search == "none":
                return float(patches[0, 0]), {}
            if search == "faiss":
                squared, _ = index.search(patches.contiguous().numpy(), 1)
                scores = torch.from_numpy(squared[:, 0]).clamp(min=0).sqrt()
            else:
                scores = torch.cdist(patches, bank).min(dim=1).values
            marks.append(time.perf_counter_ns())
            draw(scores)
            score = float(scores.max())
        marks.append(time.perf_counter_ns())
        stages = ("prepare", "engine", "score", "map")
        return score, {stage: marks[i + 1] - marks[i] for i, stage in enumerate(stages)}

    return inspect


def anomalib(folder: Path, threads: int) -> Inspect:
    import torch
    from anomalib_peer import patchcore

    torch.set_num_threads(threads)
    prepare, model = _preparation(folder), patchcore(folder)

    def inspect(image: Any) -> tuple[float, dict[str, int]]:
        start = time.perf_counter_ns()
        given = torch.from_numpy(prepare(image))
        middle = time.perf_counter_ns()
        with torch.inference_mode():
            score, _ = model(given)
        return float(score), {"prepare": middle - start, "engine": time.perf_counter_ns() - middle}

    return inspect


@dataclass(frozen=True)
class Contender:
    """modules: imported before anything else. base: the same stack with the network alone, which its memory is compared
    with; empty: it is no whole. files: of the folder, what a user would have to ship. needs: what one installs."""

    make: Callable[[Path, int], Inspect]
    modules: tuple[str, ...]
    base: str = ""
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_OURS = ("onceover", "onceover.runtime.session", "onceover.runtime.package")
_TORCH = ("numpy", "PIL.Image", "torch", "peer_networks")
_ENGINES = {"ORT": "onnxruntime", "OV": "openvino"}


def _ours(engine: str) -> dict[str, Contender]:
    module, base = _ENGINES[engine], f"backbone, onceover {engine}"
    needs = ("onceover",) if engine == "ORT" else ("onceover", module)
    return {
        f"onceover, {engine}": Contender(lambda f, t: onceover(f, t, module), _OURS, base, ("part.onceover",), needs),
        base: Contender(lambda f, t: onceover_backbone(f, t, module), _OURS),
    }


def _graphs(engine: str) -> dict[str, Contender]:
    module, base = _ENGINES[engine], f"backbone, {engine}"
    imported, needs = ("numpy", "PIL.Image", module), (module, "numpy", "pillow")

    def whole(file: str) -> Contender:
        return Contender(lambda f, t: graph(f, t, module, file), imported, base, (file,), needs)

    return {
        f"in graph, {engine}": whole("in_graph.onnx"),
        f"anomalib's export, {engine}": whole("anomalib.onnx"),
        f"our plain ONNX, {engine}": whole("plain.onnx"),
        f"bank in graph alone, {engine}": Contender(lambda f, t: bank_graph(f, t, module), imported),
        base: Contender(lambda f, t: graph(f, t, module, "backbone.onnx"), imported),
    }


def _in_torch() -> dict[str, Contender]:
    base, needs = "backbone, torch", ("torch", "numpy", "pillow")
    return {
        "torch": Contender(lambda f, t: torch_patchcore(f, t, "cdist"), _TORCH, base, ("weights", "bank.npy"), needs),
        "torch + faiss": Contender(
            lambda f, t: torch_patchcore(f, t, "faiss"),
            (*_TORCH, "faiss"),
            base,
            ("weights", "bank.faiss"),
            (*needs, "faiss-cpu"),
        ),
        "anomalib": Contender(anomalib, _TORCH, base, ("weights", "bank.npy"), ("anomalib", "torchvision", "torch")),
        base: Contender(lambda f, t: torch_patchcore(f, t, "none"), _TORCH),
    }


CONTENDERS = {**_ours("ORT"), **_ours("OV"), **_in_torch(), **_graphs("ORT"), **_graphs("OV")}


def _load(path: Path) -> list[Any]:
    import numpy as np

    with np.load(path) as file:
        return [file[key] for key in file.files]


def status() -> dict[str, int]:
    """Bytes of /proc/self/status."""
    wanted = ("VmRSS", "VmHWM", "RssAnon", "RssFile")
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) * 1024 for line in lines if line and line[0][:-1] in wanted}


def main(name: str, folder: Path, threads: int) -> None:
    contender = CONTENDERS[name]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is not an answer
        for module in contender.modules:
            importlib.import_module(module)
        imported = time.perf_counter()
        inspect = contender.make(folder, threads)
        opened = time.perf_counter()
        images = _load(folder / "images.npz")
        loaded = time.perf_counter()
        inspect(images[0])
        first = time.perf_counter()
        steps = {"import": imported - STARTED, "open": opened - imported, "first_run": first - loaded}
        start = {f"{step}_ms": 1e3 * seconds for step, seconds in steps.items()}
        print(json.dumps(start), file=answers, flush=True)
        turn = 0
        for line in sys.stdin:
            asked = json.loads(line)
            if asked in ("images", "small"):
                answer: Any = [inspect(image)[0] for image in _load(folder / f"{asked}.npz")]
            elif asked == "memory":
                answer = status()
            else:
                inspect(images[turn % len(images)])
                answer = []
                for _ in range(asked):
                    image = images[turn % len(images)]
                    turn += 1
                    cpu, begin = time.process_time_ns(), time.perf_counter_ns()
                    _, stages = inspect(image)
                    wall = time.perf_counter_ns() - begin
                    answer.append({"wall": wall, "cpu": time.process_time_ns() - cpu, **stages})
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
