// Engine "onnxruntime": the C API of libonnxruntime, opened at run time; nothing is linked and no header is needed.
#pragma once

#include "engines/engine.h"

namespace onceover {

struct EngineBuffers {  // the caller's, alive as long as the engine
  float* input;
  const std::vector<int64_t>& input_shape;
  float* output;
  const std::vector<int64_t>& output_shape;
};

std::unique_ptr<Engine> create_onnxruntime(const EngineOptions& options, GraphView graph, const EngineBuffers& buffers);

}  // namespace onceover
