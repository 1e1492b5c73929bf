// Engine "onnxruntime": the C API of libonnxruntime, opened at run time; nothing is linked and no header is needed.
#pragma once

#include "engines/engine.h"

namespace onceover {

std::unique_ptr<Engine> create_onnxruntime(const EngineOptions& options, GraphView graph, const GraphShapes& shapes);

}  // namespace onceover
