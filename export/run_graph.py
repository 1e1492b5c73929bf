"""One run of a graph in ONNX Runtime, to compare with; needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onceover.errors import EngineError


def run_graph(
    content: bytes, inputs: Mapping[str, NDArray[np.float32]], outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """The named outputs of a graph in onnxruntime, on one thread; EngineError where it cannot be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is in the exception
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        answers: list[NDArray[np.float32]] = session.run(list(outputs), dict(inputs))
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise EngineError(f"onnxruntime cannot run the exported graph: {error}") from error
    return answers


__all__ = ["run_graph"]
