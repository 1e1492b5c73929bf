// Execution providers of ONNX Runtime: which of them run the graph, in which order, with which options.
#pragma once

#include "engines/engine.h"
#include "engines/onnxruntime_library.h"

namespace onceover {

// Adds what `options.device`, `.options` and `.cache_dir` ask for. Throws Error(kUsage) for an option that nobody
// would take, kEngine for a provider that this build lacks (naming those it has) or that cannot start here.
void apply_device(const OnnxRuntimeLibrary& library, const EngineOptions& options, ort::SessionOptions* session);

}  // namespace onceover
